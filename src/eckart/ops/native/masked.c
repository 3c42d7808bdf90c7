/* A bit for each place and the values of those that are set, row after row.

   A row of bits is cut into eight runs of columns; byte i holds the bits of the i-th columns of all runs (see ops/packing.py).
   So the bits of 16 neighbours come out of 16 bytes, and the values of a run lie behind those of the run before. */
#include "values.h"
#include "products.h"

typedef struct {
    const void *values;    /* (stored,) */
    const uint8_t *mask;   /* (rows, width) */
    const int64_t *starts; /* (rows,): of the values of each row */
    int64_t rows, columns, width, stored;
    int32_t type;
} masked;

/* The values of 16 columns whose bits are set; at the end of the values none behind the last is read. */
static __attribute__((noinline)) floats last_values(const void *values, int type, int64_t at, int64_t stored,
                                                    unsigned bits) {
    return expand_before(values, type, at, stored, bits);
}

/* To the sum whose turn it is, by the column alone, so that the last row is added up as all others are. */
#define ADD(turn, value, of_x)                                       \
    {                                                                \
        const floats of = of_x;                                      \
        UNROLL for (int part = 0; part < 4; part++)                  \
            if (part == (turn)) sum[part] = fma16(value, of, sum[part]); \
    }

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const masked *w, int64_t r, const float *x, float *out, int type) {
    const int64_t columns = w->columns, width = w->width, stored = w->stored;
    const int value_bytes = type == FLOAT32 ? 4 : 2;
    const uint8_t *row = w->mask + r * width, *end = w->mask + w->rows * w->width;
    floats sum[4] = {all(0), all(0), all(0), all(0)};
    int64_t at = w->starts[r];
    for (int64_t k = 0; k < 8; k++) {
        const bytes bit = (bytes){0} + (uint8_t)(1 << k);
        const int64_t first = k * width, last = first + width < columns ? width : columns - first;
        int64_t i = 0;
        for (; i + 4 * LANES <= last && at + 4 * LANES <= stored; i += 4 * LANES) {
            __builtin_prefetch((const char *)w->values + value_bytes * at + AHEAD);
            __builtin_prefetch((const char *)w->values + value_bytes * at + AHEAD + 64);
            UNROLL for (int part = 0; part < 4; part++) {
                const int64_t c = i + part * LANES;
                const unsigned bits = bits_of(load_bytes(row + c), bit);
                const floats value = expand(w->values, type, at, bits);
                at += __builtin_popcount(bits);
                if (out == NULL) sum[part] = fma16(value, load(x + first + c), sum[part]);
                else store(out + first + c, value);
            }
        }
        for (; i + LANES <= last && at + LANES <= stored; i += LANES) {
            const unsigned bits = bits_of(load_bytes(row + i), bit);
            const floats value = expand(w->values, type, at, bits);
            at += __builtin_popcount(bits);
            if (out == NULL) ADD(i / LANES % 4, value, load(x + first + i))
            else store(out + first + i, value);
        }
        for (; i < last; i += LANES) {
            const int64_t n = last - i, column = first + i;
            const bytes places = row + i + LANES <= end ? load_bytes(row + i) : load_some_bytes(row + i, end - row - i);
            const unsigned bits = bits_of(places, bit) & (n >= LANES ? 0xffff : (1u << n) - 1);
            const floats value = at + LANES <= stored ? expand(w->values, type, at, bits)
                                                      : last_values(w->values, type, at, stored, bits);
            at += __builtin_popcount(bits);
            if (out == NULL) ADD(i / LANES % 4, value, load_first(x, column, n, columns))
            else if (column + LANES <= columns) store(out + column, value); /* what is too much is written over */
            else store_some(out + column, value, columns - column);
        }
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE void each_row(const masked *w, const float *x, float *y, float *out, int64_t from, int64_t to, int type) {
    for (int64_t r = from; r < to; r++) {
        if (out == NULL) y[r] = row_of(w, r, x, NULL, type);
        else row_of(w, r, NULL, out + (r - from) * w->columns, type);
    }
}

INLINE void all_rows(const masked *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
#define WITH(type) each_row(w, x, y, out, from, to, type)
    EACH_TYPE(w->type, WITH)
}

void NAME(masked_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(masked_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
