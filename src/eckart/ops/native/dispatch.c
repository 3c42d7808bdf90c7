/* The doors of the library: the layouts and levels that there are, and the two things that are done with a matrix. */
#include "layouts.h"
#include "products.h"

#include <stddef.h>

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

typedef struct {
    int level;
    const layout *layout;
    const void *matrix;
    int64_t columns, vectors, y_step, start;
    const float *x;
    void *out;
} task;

typedef void work(int64_t from, int64_t to, void *task);
/* Shares the numbers from..to out to threads, at least `grain` to each. */
typedef int32_t spread(int64_t from, int64_t to, int64_t grain, work *, void *task);

static void multiply(int64_t from, int64_t to, void *given) {
    const task *t = given;
    if (t->vectors == 1) t->layout->multiply(t->matrix, t->x, t->out, from, to);
    else several[t->level](t->layout, t->matrix, t->columns, t->x, t->vectors, t->out, t->y_step, from, to);
}

static void decode(int64_t from, int64_t to, void *given) {
    const task *t = given;
    t->layout->rows(t->matrix, (float *)t->out + (from - t->start) * t->columns, from, to);
}

static void decode_to_bfloat16(int64_t from, int64_t to, void *given) {
    const task *t = given;
    uint16_t *out = (uint16_t *)t->out + (from - t->start) * t->columns;
    rounded[t->level](t->layout, t->matrix, t->columns, out, from, to);
}

static void run(spread *threads, int64_t from, int64_t to, int64_t grain, work *what, task *t) {
    if (threads) threads(from, to, grain, what, t);
    else what(from, to, t);
}

/* y[t] = W x[t] for t < vectors, W (rows, columns); in one thread where `threads` is NULL. */
EXPORT void eckart_multiply(spread *threads, int64_t grain, int level, int number, const void *matrix, int64_t rows,
                            int64_t columns, const float *x, int64_t vectors, float *y) {
    task t = {level, &layouts[level][number], matrix, columns, vectors, rows, 0, x, y};
    run(threads, 0, rows, grain, multiply, &t);
}

/* out = W[from:to], in float32 or bfloat16. */
EXPORT void eckart_rows(spread *threads, int64_t grain, int level, int number, const void *matrix, int64_t columns,
                        int64_t from, int64_t to, int bfloat16, void *out) {
    task t = {level, &layouts[level][number], matrix, columns, 0, 0, from, NULL, out};
    run(threads, from, to, grain, bfloat16 ? decode_to_bfloat16 : decode, &t);
}
