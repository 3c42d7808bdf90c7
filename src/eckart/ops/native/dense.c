/* A matrix that is stored entry by entry. */
#include "entries.h"
#include "products.h"

typedef struct {
    const void *entries; /* (rows, columns) */
    int64_t columns;
    int32_t type;
} dense_matrix;

INLINE void each_row(const dense_matrix *w, const float *x, float *y, float *out, int64_t from, int64_t to, int type) {
    for (int64_t r = from; r < to; r++) {
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
