/* Codes times float32: each code becomes a value, by a table in a register where one fits. See quantized.h. */
#include "quantized.h"

#include "products.h"
#include "values.h"

enum { TABLE, ARITHMETIC, BOOK };
enum { EXPONENT = 0x4b000000 }; /* of 2^23: a code below it is the float 2^23 + code, and zero-points have 2^23 added */

/* How codes become values: by a table of 16 in a register, by arithmetic, or out of a codebook in memory. */
INLINE int way(int bits, int has_book) {
    (void)bits;
#if defined(__AVX512F__)
    if (bits <= 4) return TABLE;
#elif defined(__AVX2__)
    if (bits <= 4 && has_book) return TABLE;
#endif
    return has_book ? BOOK : ARITHMETIC;
}

#if defined(__AVX2__) && !defined(__AVX512F__)
#define PAIRS 1
#else
#define PAIRS 0
#endif

/* Byte k of sixteen floats, in both halves. */
typedef struct { uint8_t of[4][32]; } planes;

INLINE planes planes_of(const float *table) {
    planes found;
    for (int lane = 0; lane < 32; lane++)
        for (int k = 0; k < 4; k++) memcpy(&found.of[k][lane], (const char *)(table + lane % 16) + k, 1);
    return found;
}

#if PAIRS
/* Values of 32 neighbours. Their codes are cut out where they are bytes; then each byte is either put below the exponent of
   2^23, or looked up four times, for the bytes of its level. */
INLINE void pair_of(const uint8_t *low, const uint8_t *high, int bits, int shift, int how, const planes *levels, floats scale,
                    floats zero, floats *value) {
    const int mask = (1 << bits) - 1, split = 0xff >> shift & mask;
    __m256i code = _mm256_loadu_si256((const __m256i *)low);
    code = _mm256_and_si256(shift ? _mm256_srli_epi16(code, shift) : code, _mm256_set1_epi8((char)split));
    if (shift + bits > 8) {
        const __m256i rest = _mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)high), 8 - shift);
        code = _mm256_or_si256(code, _mm256_and_si256(rest, _mm256_set1_epi8((char)(mask ^ split))));
    }
    /* Bytes 8 k to 8 k + 3 and 8 k + 4 to 8 k + 7 in the same places of both halves, which is where eight floats come from. */
    code = _mm256_permutevar8x32_epi32(code, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    __m256i part[4];
    if (how == TABLE) {
        __m256i byte[4];
        UNROLL for (int k = 0; k < 4; k++)
            byte[k] = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)levels->of[k]), code);
        const __m256i low_0 = _mm256_unpacklo_epi8(byte[0], byte[1]), low_1 = _mm256_unpackhi_epi8(byte[0], byte[1]);
        const __m256i high_0 = _mm256_unpacklo_epi8(byte[2], byte[3]), high_1 = _mm256_unpackhi_epi8(byte[2], byte[3]);
        part[0] = _mm256_unpacklo_epi16(low_0, high_0), part[1] = _mm256_unpackhi_epi16(low_0, high_0);
        part[2] = _mm256_unpacklo_epi16(low_1, high_1), part[3] = _mm256_unpackhi_epi16(low_1, high_1);
    } else {
        const __m256i none = _mm256_setzero_si256(), exponent = _mm256_set1_epi16(EXPONENT >> 16);
        const __m256i word_0 = _mm256_unpacklo_epi8(code, none), word_1 = _mm256_unpackhi_epi8(code, none);
        part[0] = _mm256_unpacklo_epi16(word_0, exponent), part[1] = _mm256_unpackhi_epi16(word_0, exponent);
        part[2] = _mm256_unpacklo_epi16(word_1, exponent), part[3] = _mm256_unpackhi_epi16(word_1, exponent);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        const floats number = WHOLE(part[2 * i], part[2 * i + 1]);
        value[i] = (how == TABLE ? number : number - zero) * scale;
    }
}
#endif

/* Codes out of the bytes they begin in and, where they lie in two, the next ones; bits above them are left in for a table,
   which ignores them. */
INLINE ints codes_in(bytes low, bytes high, int bits, int shift, int how) {
    ints word = widen(low);
    if (shift + bits > 8) word |= widen(high) << 8;
    word >>= shift;
    return how == TABLE || shift + bits == 8 ? word : word & ((1 << bits) - 1);
}

/* As many bytes as there are before the end. */
INLINE bytes load_before(const uint8_t *from, const uint8_t *end) {
    return from + LANES <= end ? load_bytes(from) : load_some_bytes(from, end - from);
}

/* What makes values of the codes of a group. */
typedef struct { floats table, scale, zero; } decoder;

INLINE floats values_of(ints code, int how, const decoder *by, const float *book) {
    if (how == TABLE) return look_up(by->table, code);
    if (how == ARITHMETIC) return ((floats)(code | EXPONENT) - by->zero) * by->scale;
    floats value;
    for (int lane = 0; lane < LANES; lane++) value[lane] = book[code[lane]];
    return value * by->scale;
}

/* Values of 16 or, where `count` is 2, of 32 neighbours. */
INLINE void neighbours(const uint8_t *low, const uint8_t *high, int count, int bits, int shift, int how,
                       const decoder *by, const planes *levels, const float *book, floats *value) {
#if PAIRS
    if (count == 2 && bits < 8 && how != BOOK)
        return pair_of(low, high, bits, shift, how, levels, by->scale, by->zero, value);
#endif
    UNROLL for (int i = 0; i < count; i++) {
        const ints code = codes_in(load_bytes(low + i * LANES), load_bytes(high + i * LANES), bits, shift, how);
        value[i] = values_of(code, how, by, book);
    }
    (void)levels;
}

/* The next `count` times 16 columns of a run, those behind 32 by another decoder: added to as many sums, or written. */
#define CHUNKS(count, by, then)                                                                                      \
    {                                                                                                                \
        const uint8_t *low = from + column, *high = low + two * run;                                                 \
        if (shift == 0 || two) __builtin_prefetch(high + AHEAD); /* bytes that are new */                            \
        UNROLL for (int i = 0; i < count; i += 2) {                                                                  \
            const int many = count < 2 ? 1 : 2;                                                                      \
            floats value[2];                                                                                         \
            neighbours(low + i * LANES, high + i * LANES, many, bits, shift, how, i < 2 ? &by : &then, levels, book,  \
                       value);                                                                                       \
            UNROLL for (int j = 0; j < many; j++) {                                                                  \
                const int64_t c = column + (i + j) * LANES;                                                          \
                if (out == NULL) sum[i + j] = fma16(value[j], load(x + c), sum[i + j]);                              \
                else store(out + c, value[j]);                                                                       \
            }                                                                                                        \
        }                                                                                                            \
    }

enum { AT_ONCE = 64 }; /* groups whose scales and zero-points are made floats together */

typedef struct {
    float scale[AT_ONCE], zero[AT_ONCE];
} floated;

/* Of groups of row r, from number `group` on. */
INLINE void make_floats(const quantized *w, int64_t r, int64_t group, int bits, const uint8_t *zeros, floated *made) {
    for (int64_t i = 0; i < AT_ONCE && group + i < w->groups; i += LANES) {
        const int64_t at = r * w->groups + group + i, n = w->groups - group - i;
        store(made->scale + i, n >= LANES ? load_values(w->scales, w->scale_type, at)
                                          : load_some_values(w->scales, w->scale_type, at, n));
        if (zeros == NULL) continue;
        const bytes zero = n >= LANES ? load_bytes(zeros + group + i) : load_some_bytes(zeros + group + i, n);
        store(made->zero + i, (floats)(widen(zero) | EXPONENT));
    }
    if (zeros == NULL && group == 0) UNROLL for (int i = 0; i < AT_ONCE; i += LANES) store(made->zero + i, all(0x1p23f + (1 << (bits - 1))));
}

#define NEXT_GROUP(by)                                                                                               \
    {                                                                                                                \
        const int64_t i = group % AT_ONCE;                                                                           \
        if (i == 0) make_floats(w, r, group, bits, zeros, &made);                                                    \
        by.scale = all(made.scale[i]), by.zero = all(made.zero[i]);                                                  \
        if (how == TABLE) by.table = (has_book ? load(book) : first + 0x1p23f - by.zero) * by.scale;                 \
        group++;                                                                                                     \
        group_end += w->group;                                                                                       \
    }

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const quantized *w, int64_t r, const float *x, float *out, int bits, int has_book, const float *book,
                    const planes *levels, const uint8_t *zeros) {
    const int how = way(bits, has_book), slabs = slabs_of(bits);
    const int in_pairs = (bits == 4 || bits == 8) && w->group == 2 * LANES; /* as files of others have their groups */
    const floats first = bits == 4 ? (floats){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
                       : bits == 3 ? (floats){0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7}
                                   : (floats){0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    const int64_t run = w->run, columns = w->columns;
    const uint8_t *row = w->codes + r * w->width, *end = w->codes + w->rows * w->width;
    floated made;
    floats sum[4] = {all(0), all(0), all(0), all(0)};
    decoder now = {all(0), all(0), all(0)}, then;
    int64_t column = 0, group_end = 0, group = 0;
    UNROLL for (int k = 0; k < slabs; k++) {
        const int shift = k * bits % 8, two = shift + bits > 8;
        const int64_t slab_end = (k + 1) * run < columns ? (k + 1) * run : columns;
        const uint8_t *from = row + k * bits / 8 * run - k * run; /* its byte for column 0 of the row, were there one */
        while (column < slab_end) {
            for (; in_pairs && column == group_end && column + 4 * LANES <= slab_end; column += 4 * LANES) {
                NEXT_GROUP(now)
                NEXT_GROUP(then)
                CHUNKS(4, now, then)
            }
            for (; column + 4 * LANES <= slab_end; column += 4 * LANES) {
                if (column == group_end) NEXT_GROUP(now)
                if (column + 4 * LANES > group_end) break;
                CHUNKS(4, now, now)
            }
            if (column == slab_end) break;
            if (column == group_end) NEXT_GROUP(now)
            const int64_t stop = group_end < slab_end ? group_end : slab_end;
            for (; column + 2 * LANES <= stop; column += 2 * LANES) CHUNKS(2, now, now)
            for (; column + LANES <= stop; column += LANES) CHUNKS(1, now, now)
            if (column < stop) {
                const int64_t n = stop - column;
                const ints code = codes_in(load_before(from + column, end), load_before(from + two * run + column, end),
                                           bits, shift, how);
                const floats value = values_of(code, how, &now, book);
                if (out == NULL) sum[0] = fma16(value, load_first(x, column, n, columns), sum[0]);
                else if (column + LANES <= columns) store(out + column, value); /* what is too much is written over */
                else store_some(out + column, value, columns - column);
            }
            column = stop;
        }
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE void each_row(const quantized *w, const float *x, float *y, float *out, int64_t from, int64_t to, int bits,
                     int has_book) {
    float book[256] = {0}; /* a level for every code that its bits can be, and again until there are sixteen */
    if (has_book)
        for (int64_t i = 0; i < (bits < 4 ? 16 : 1 << bits); i++) {
            const int64_t code = i & ((1 << bits) - 1);
            if (code < w->levels) book[i] = value_at(w->book, w->book_type, code);
        }
    const planes levels = planes_of(book);
    uint8_t room[w->packed_zeros ? w->groups : 1];
    for (int64_t r = from; r < to; r++) {
        const uint8_t *zeros = w->zeros ? zeros_of(w, r, room) : NULL;
        if (out == NULL) y[r] = row_of(w, r, x, NULL, bits, has_book, book, &levels, zeros);
        else row_of(w, r, NULL, out + (r - from) * w->columns, bits, has_book, book, &levels, zeros);
    }
}

#define EITHER(bits)                                                                      \
    case bits:                                                                            \
        if (w->book != NULL) each_row(w, x, y, out, from, to, bits, 1);                   \
        else each_row(w, x, y, out, from, to, bits, 0);                                   \
        break;

INLINE void all_rows(const quantized *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
    switch (w->bits) { EITHER(2) EITHER(3) EITHER(4) EITHER(5) EITHER(6) EITHER(7) EITHER(8) }
}

void NAME(quantized_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(quantized_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
