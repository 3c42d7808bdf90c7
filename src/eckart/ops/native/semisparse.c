/* n of every m neighbours in a row: their values, and the place of each in its group in so many bits.

   Places are packed as codes are (see quantized.c and ops/packing.py). Where half of the entries are stored, 16 values are
   those of 32 columns that follow each other: x is then looked up in registers, and a row is written by its bits. */
#include "values.h"
#include "products.h"

typedef struct {
    const void *values;     /* (rows, kept) */
    const uint8_t *places;  /* (rows, width) */
    const int32_t *groups;  /* (kept,): the first column of each value's group */
    int64_t rows, columns, kept, width, run;
    int32_t n, m, bits, type;
} semisparse;

INLINE bytes load_before(const uint8_t *from, const uint8_t *end) {
    return from + LANES <= end ? load_bytes(from) : load_some_bytes(from, end - from);
}

/* x[index] for index < 32. */
INLINE floats look_up_32(const float *x, ints index) {
#if defined(__AVX512F__)
    return (floats)_mm512_permutex2var_ps((__m512)load(x), (__m512i)index, (__m512)load(x + LANES));
#elif defined(__AVX2__)
    return WHOLE(look_up_half(load(x), HALF(index, __m256i, 0)), look_up_half(load(x + LANES), HALF(index, __m256i, 8)));
#else
    return gather(x, index);
#endif
}

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const semisparse *w, int64_t r, const float *x, float *out, int half, int bits, int type) {
    const int slabs = bits == 4 ? 2 : bits == 3 ? 8 : 4;
    const int64_t run = w->run, columns = w->columns, kept = w->kept, row = r * kept, stored = w->rows * kept;
    const uint8_t *end = w->places + w->rows * w->width;
    const words ones = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const int32_t of_n = w->n, of_m = w->m;
    ints steps; /* from the first column of sixteen values to that of each one's group */
    for (int lane = 0; lane < LANES; lane++) steps[lane] = lane / of_n * of_m;
    floats sum = all(0);
    if (out != NULL) memset(out, 0, (size_t)columns * 4);
    UNROLL for (int k = 0; k < slabs; k++) {
        const int shift = k * bits % 8, two = shift + bits > 8;
        const int64_t first = k * run, last = first + run < kept ? first + run : kept;
        const uint8_t *from = w->places + r * w->width + k * bits / 8 * run - first;
        int64_t i = first;
        /* Sixteen values that begin with a group and all lie in the matrix: those of 32 columns that follow each other. */
        for (; half && first % w->n == 0 && i + LANES <= last; i += LANES) {
            const int64_t start = 2 * i, next = row + i;
            if (start + 2 * LANES > columns || next + 2 * LANES > stored) break;
            if (shift == 0 || two) __builtin_prefetch(from + two * run + i + AHEAD);
            __builtin_prefetch((const char *)w->values + (type == FLOAT32 ? 4 : 2) * next + AHEAD);
            ints place = widen(load_bytes(from + i));
            if (two) place |= widen(load_bytes(from + run + i)) << 8;
            const ints index = (place >> shift & ((1 << bits) - 1)) + steps;
            if (out == NULL) {
                sum = fma16(load_values(w->values, type, next), look_up_32(x + start, index), sum);
            } else {
                const unsigned set = __builtin_reduce_or(ones << (words)index);
                store(out + start, expand(w->values, type, next, set & 0xffff));
                store(out + start + LANES, expand(w->values, type, next + __builtin_popcount(set & 0xffff), set >> 16));
            }
        }
        for (; i < last; i += LANES) {
            const int64_t n = last - i < LANES ? last - i : LANES, start = w->groups[i];
            ints place = widen(load_before(from + i, end)), group = {0};
            if (two) place |= widen(load_before(from + run + i, end)) << 8;
            place = place >> shift & ((1 << bits) - 1);
            memcpy(&group, w->groups + i, (size_t)(kept - i < LANES ? kept - i : LANES) * 4);
            const ints column = group + place;
            const floats value = n == LANES ? load_values(w->values, type, row + i)
                                            : load_some_values(w->values, type, row + i, n);
            if (half && i % w->n == 0 && i + LANES <= kept && start + 2 * LANES <= columns) {
                const ints index = column - group[0];
                if (out == NULL) {
                    sum = fma16(value, look_up_32(x + start, index), sum);
                } else {
                    const unsigned set = __builtin_reduce_or((words)first_lanes((floats)(ones << (words)index), n));
                    const int64_t next = row + i + __builtin_popcount(set & 0xffff);
                    store(out + start, expand_before(w->values, type, row + i, stored, set & 0xffff));
                    store(out + start + LANES, expand_before(w->values, type, next, stored, set >> 16));
                }
            } else if (out == NULL && n == LANES && group[LANES - 1] + w->m <= columns) {
                sum = fma16(value, gather(x, column), sum);
            } else {
                floats of_x = all(0);
                for (int lane = 0; lane < n; lane++) {
                    if (column[lane] >= columns) continue;
                    if (out == NULL) of_x[lane] = x[column[lane]];
                    else out[column[lane]] = value[lane];
                }
                if (out == NULL) sum = fma16((floats)((ints)value & (column < (int32_t)columns)), of_x, sum);
            }
        }
    }
    return total(sum);
}

INLINE void each_row(const semisparse *w, const float *x, float *y, float *out, int64_t from, int64_t to, int half,
                     int bits, int type) {
    for (int64_t r = from; r < to; r++) {
        if (out == NULL) y[r] = row_of(w, r, x, NULL, half, bits, type);
        else row_of(w, r, NULL, out + (r - from) * w->columns, half, bits, type);
    }
}

INLINE void all_rows(const semisparse *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
    const int half = w->m == 2 * w->n && w->n <= 8;
#define OF_BITS(type, bits)                                          \
    if (half) each_row(w, x, y, out, from, to, 1, bits, type);       \
    else each_row(w, x, y, out, from, to, 0, bits, type)
#define WITH(type)                       \
    if (w->bits == 2) { OF_BITS(type, 2); } \
    else if (w->bits == 3) { OF_BITS(type, 3); } \
    else { OF_BITS(type, 4); }
    EACH_TYPE(w->type, WITH)
}

void NAME(semisparse_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(semisparse_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
