/* The doors of the library: the layouts and levels that there are, and the two things that are done with a matrix. */
#include "layouts.h"
#include "programs.h"
#include "values.h"

#include <sched.h>
#include <stdatomic.h>

#define EXPORT __attribute__((visibility("default")))

#define DECLARE(name, level)                  \
    multiply_rows name##_multiply_##level;    \
    decode_rows name##_rows_##level;
#define ENTER(name, level) {name##_multiply_##level, name##_rows_##level},
#define LEVEL_OF(level, declare, enter)                    \
    LAYOUTS(declare)                                       \
    multiply_several several_##level;                      \
    decode_rounded rounded_##level;                        \
    static const layout layouts_##level[] = {LAYOUTS(enter)};

#define DECLARE_BASELINE(name) DECLARE(name, baseline)
#define ENTER_BASELINE(name) ENTER(name, baseline)
LEVEL_OF(baseline, DECLARE_BASELINE, ENTER_BASELINE)

#if defined(__x86_64__)
#include <cpuid.h>
#define DECLARE_AVX2(name) DECLARE(name, avx2)
#define ENTER_AVX2(name) ENTER(name, avx2)
LEVEL_OF(avx2, DECLARE_AVX2, ENTER_AVX2)
#define DECLARE_AVX512(name) DECLARE(name, avx512)
#define ENTER_AVX512(name) ENTER(name, avx512)
LEVEL_OF(avx512, DECLARE_AVX512, ENTER_AVX512)
static const layout *const layouts[] = {layouts_baseline, layouts_avx2, layouts_avx512};
static multiply_several *const several[] = {several_baseline, several_avx2, several_avx512};
static decode_rounded *const rounded[] = {rounded_baseline, rounded_avx2, rounded_avx512};
#else
static const layout *const layouts[] = {layouts_baseline};
static multiply_several *const several[] = {several_baseline};
static decode_rounded *const rounded[] = {rounded_baseline};
#endif

#define QUOTED(name) #name,
static const char *const names[] = {LAYOUTS(QUOTED) NULL};

/* The digest of the sources that this library is made from. */
EXPORT const char *eckart_sources(void) { return SOURCES; }

/* The name of a layout by its number, NULL behind the last. */
EXPORT const char *eckart_layout(int number) { return names[number]; }

/* The highest level that the processor and the operating system have: 0 baseline, 1 avx2, 2 avx512. */
EXPORT int eckart_level(void) {
#if defined(__x86_64__)
    const unsigned first = 1u << 12 | 1u << 27 | 1u << 29;                                   /* FMA, OSXSAVE, F16C */
    const unsigned second = 1u << 3 | 1u << 5 | 1u << 8;                                     /* BMI1, AVX2, BMI2 */
    const unsigned third = second | 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;    /* AVX512 F, DQ, CD, BW, VL */
    unsigned a, b, c, d, kept, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & first) != first) return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0)); /* the registers that the operating system saves */
    if ((kept & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & second) != second) return 0;
    return (kept & 0xe6) == 0xe6 && (b & third) == third && (c & 1u << 11) ? 2 : 1; /* and VNNI */
#else
    return 0;
#endif
}

/* Whether the processor multiplies bfloat16, so that PyTorch's products of it are the fastest. */
EXPORT int eckart_bfloat16(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return eckart_level() == 2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5) != 0; /* AVX512_BF16 */
#else
    return 0;
#endif
}

/* Shares the numbers from..to out to threads, at least `grain` to each. */
typedef void work(int64_t from, int64_t to, void *task);
typedef int32_t spread(int64_t from, int64_t to, int64_t grain, work *, void *task);

/* A program that runs. */
typedef struct {
    const program *program;
    const layout *layouts;
    multiply_several *several;
    int64_t vectors;
    const float *x;
    float *scratch, *out; /* out: the last stage's numbers */
    uint16_t *narrow;     /* the same rounded to `type`; NULL where that is float32 */
    int type;
    struct {
        _Alignas(64) _Atomic int64_t taken; /* pieces */
        _Atomic int64_t done;
    } progress[MOST_STAGES];
} task;

static uint16_t rounded_to(float value, int type) {
    uint16_t bits;
    if (type == FLOAT16) {
        const _Float16 half = (_Float16)value;
        memcpy(&bits, &half, 2);
        return bits;
    }
    uint32_t word;
    memcpy(&word, &value, 4);
    return value == value ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : (word | 0x400000) >> 16;
}

/* Rows from..to of a stage. */
static void compute(const task *t, const stage *s, int last, int64_t from, int64_t to) {
    float *first = last ? t->out : t->scratch + s->writes * t->vectors;
    for (int k = 0; k < s->count; k++) {
        const term *m = &s->terms[k];
        const layout *by = &t->layouts[m->layout];
        const float *x = m->reads < 0 ? t->x : t->scratch + m->reads * t->vectors;
        float *y = k == 0 ? first : t->scratch + m->room * t->vectors;
        if (t->vectors == 1) by->multiply(m->matrix, x, y, from, to);
        else t->several(by, m->matrix, m->columns, x, t->vectors, y, s->rows, from, to);
        if (k == 0) continue;
        for (int64_t v = 0; v < t->vectors; v++)
            for (int64_t i = v * s->rows + from; i < v * s->rows + to; i++) first[i] += y[i];
    }
    if (!last) return;
    const program *p = t->program;
    for (int64_t v = 0; p->bias != NULL && v < t->vectors; v++)
        for (int64_t i = from; i < to; i++) first[v * s->rows + i] += value_at(p->bias, p->bias_type, i);
    for (int64_t v = 0; t->narrow != NULL && v < t->vectors; v++)
        for (int64_t i = v * s->rows + from; i < v * s->rows + to; i++) t->narrow[i] = rounded_to(first[i], t->type);
}

/* Takes pieces of one stage after another. Whoever comes late finds them taken, and nobody waits for a thread that has
   not begun: a stage is over once all that was taken is done. */
static void take_part(int64_t from, int64_t to, void *given) {
    task *t = given;
    const program *p = t->program;
    (void)from, (void)to;
    for (int i = 0; i < p->count; i++) {
        const stage *s = &p->stages[i];
        const int64_t pieces = (s->rows + s->piece - 1) / s->piece;
        int64_t n;
        while ((n = atomic_fetch_add(&t->progress[i].taken, 1)) < pieces) {
            const int64_t start = n * s->piece, stop = start + s->piece;
            compute(t, s, i == p->count - 1, start, stop < s->rows ? stop : s->rows);
            atomic_fetch_add(&t->progress[i].done, 1);
        }
        for (int turns = 0; i < p->count - 1 && atomic_load(&t->progress[i].done) < pieces; turns++) {
            if (turns >= 1 << 12) sched_yield();
#if defined(__x86_64__)
            else __builtin_ia32_pause();
#endif
        }
    }
}

/* y[t] = W x[t] + bias for t < vectors, x and y of one type; in one thread where `threads` is NULL. `room` is for
   `vectors` times the program's scratch, and where the type is not float32 x and y as well; NULL up to ON_STACK numbers. */
EXPORT void eckart_run(spread *threads, int level, const program *p, int64_t vectors, const void *x, void *y, int type,
                            float *room) {
    const int64_t narrow = type != FLOAT32, needed = vectors * (p->scratch + narrow * (p->columns + p->stages[p->count - 1].rows));
    float here[room == NULL ? needed + 1 : 1];
    if (room == NULL) room = here;
    task t = {.program = p, .layouts = layouts[level], .several = several[level], .vectors = vectors, .x = x,
              .scratch = room, .out = y, .type = type};
    if (narrow) {
        const int64_t entering = vectors * p->columns;
        float *wide = room + vectors * p->scratch;
        for (int64_t i = 0; i < entering; i++) wide[i] = value_at(x, type, i);
        t.x = wide, t.out = wide + entering, t.narrow = y;
    }
    if (threads && p->threads > 1) threads(0, p->threads, 1, take_part, &t);
    else take_part(0, 1, &t);
}

/* Rows that are written out. */
typedef struct {
    int level;
    const layout *layout;
    const void *matrix;
    int64_t columns, start;
    void *out;
} writing;

static void decode(int64_t from, int64_t to, void *given) {
    const writing *t = given;
    t->layout->rows(t->matrix, (float *)t->out + (from - t->start) * t->columns, from, to);
}

static void decode_to_bfloat16(int64_t from, int64_t to, void *given) {
    const writing *t = given;
    uint16_t *out = (uint16_t *)t->out + (from - t->start) * t->columns;
    rounded[t->level](t->layout, t->matrix, t->columns, out, from, to);
}

/* out = W[from:to], in float32 or bfloat16. */
EXPORT void eckart_rows(spread *threads, int64_t grain, int level, int number, const void *matrix, int64_t columns,
                        int64_t from, int64_t to, int bfloat16, void *out) {
    writing t = {level, &layouts[level][number], matrix, columns, from, out};
    work *what = bfloat16 ? decode_to_bfloat16 : decode;
    if (threads) threads(from, to, grain, what, &t);
    else what(from, to, &t);
}
