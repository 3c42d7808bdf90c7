/* Entries of 16 bits, row after row. */
#include "lanes.h"
#include "products.h"

typedef struct {
    const uint16_t *entries; /* (rows, columns) */
    int64_t columns;
    int32_t type;
} half_matrix;

typedef _Float16 narrow __attribute__((vector_size(32)));

INLINE floats value_of(halves v, int type) {
    return type == BFLOAT16 ? from_bfloat16(v) : __builtin_convertvector((narrow)v, floats);
}

/* W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const half_matrix *w, int64_t r, const float *x, float *out, int type) {
    const uint16_t *row = w->entries + r * w->columns;
    floats sum[4] = {all(0), all(0), all(0), all(0)};
    int64_t j = 0;
    for (; j + 4 * LANES <= w->columns; j += 4 * LANES) {
        __builtin_prefetch(row + j + AHEAD / 2);
        __builtin_prefetch(row + j + AHEAD / 2 + 32);
        UNROLL for (int i = 0; i < 4; i++) {
            const floats value = value_of(load_halves(row + j + i * LANES), type);
            if (out == NULL) sum[i] = fma16(value, load(x + j + i * LANES), sum[i]);
            else store(out + j + i * LANES, value);
        }
    }
    for (; j < w->columns; j += LANES) {
        const int64_t n = w->columns - j < LANES ? w->columns - j : LANES;
        const floats value = value_of(load_some_halves(row + j, n), type);
        if (out == NULL) sum[0] = fma16(value, load_some(x + j, n), sum[0]);
        else store_some(out + j, value, n);
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

void NAME(halves_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const half_matrix *w = matrix;
    for (int64_t r = from; r < to; r++)
        y[r] = w->type == BFLOAT16 ? row_of(w, r, x, NULL, BFLOAT16) : row_of(w, r, x, NULL, FLOAT16);
}

void NAME(halves_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    const half_matrix *w = matrix;
    for (int64_t r = from; r < to; r++) {
        float *row = out + (r - from) * w->columns;
        if (w->type == BFLOAT16) row_of(w, r, NULL, row, BFLOAT16);
        else row_of(w, r, NULL, row, FLOAT16);
    }
}
