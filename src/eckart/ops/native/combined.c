/* Rows of which some pick an input and the others combine all of them: row i is [I; T][index[i]]. */
#include "entries.h"
#include "products.h"

typedef struct {
    const int32_t *index; /* (rows,) */
    const void *rest;     /* T, (rows - columns, columns) */
    int64_t rows, columns;
    int32_t type;
} combined;

INLINE void each_row(const combined *w, const float *x, float *y, float *out, int64_t from, int64_t to, int type) {
    for (int64_t r = from; r < to; r++) {
        float *row = out == NULL ? NULL : out + (r - from) * w->columns;
        int64_t at = w->index[r];
        if (at < 0 || at >= w->rows) at = 0; /* damaged since it was looked at */
        if (at >= w->columns) {
            const float found = entries_of(w->rest, type, w->columns, at - w->columns, x, row);
            if (out == NULL) y[r] = found;
        } else if (out == NULL) {
            y[r] = x[at];
        } else {
            memset(row, 0, (size_t)w->columns * 4);
            row[at] = 1;
        }
    }
}

INLINE void all_rows(const combined *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
#define WITH(type) each_row(w, x, y, out, from, to, type)
    EACH_TYPE(w->type, WITH)
}

void NAME(combined_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(combined_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
