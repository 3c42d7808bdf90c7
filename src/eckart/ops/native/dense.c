/* A matrix that is stored entry by entry. */
#include "entries.h"
#include "products.h"

typedef struct {
    const void *entries; /* (rows, columns) */
    int64_t columns;
    int32_t type;
} dense_matrix;

enum { SIDE_BY_SIDE = 4 };

/* y[r + i] = W[r + i] . x for i < rows. */
INLINE void wide_rows(const dense_matrix *w, int64_t r, int rows, const float *x, float *y, int type) {
    const int64_t columns = w->columns;
    floats sum[SIDE_BY_SIDE][2];
    UNROLL for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = all(0);
    int64_t j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        UNROLL for (int k = 0; k < 2; k++) {
            const floats of_x = load(x + j + k * LANES);
            UNROLL for (int i = 0; i < rows; i++)
                sum[i][k] = fma16(load_values(w->entries, type, (r + i) * columns + j + k * LANES), of_x, sum[i][k]);
        }
    for (; j < columns; j += LANES) {
        const int64_t n = columns - j < LANES ? columns - j : LANES;
        const floats of_x = load_up_to(x + j, n);
        UNROLL for (int i = 0; i < rows; i++) {
            const int64_t at = (r + i) * columns + j;
            const floats value = n == LANES ? load_values(w->entries, type, at) : load_some_values(w->entries, type, at, n);
            sum[i][0] = fma16(value, of_x, sum[i][0]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) y[r + i] = total(sum[i][0] + sum[i][1]);
}

INLINE void each_row(const dense_matrix *w, const float *x, float *y, float *out, int64_t from, int64_t to, int type) {
    int64_t r = from;
    if (out == NULL && w->columns >= WIDE) {
        for (; r + SIDE_BY_SIDE <= to; r += SIDE_BY_SIDE) wide_rows(w, r, SIDE_BY_SIDE, x, y, type);
        for (; r < to; r++) wide_rows(w, r, 1, x, y, type);
        return;
    }
    for (; r < to; r++) {
        if (out == NULL) y[r] = entries_of(w->entries, type, w->columns, r, x, NULL);
        else entries_of(w->entries, type, w->columns, r, NULL, out + (r - from) * w->columns);
    }
}

INLINE void all_rows(const dense_matrix *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
#define WITH(type) each_row(w, x, y, out, from, to, type)
    EACH_TYPE(w->type, WITH)
}

void NAME(dense_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(dense_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
