/* The same number of values in each column, at places of their own.

   Columns are cut into blocks, and rows b size .. (b + 1) size of the product are what block b adds to all of it, so that
   threads share blocks and sums do not depend on who adds. With one block it is the product. */
#include "products.h"
#include "values.h"

typedef struct {
    const void *values; /* (stored, columns) */
    const void *places; /* (stored, columns): rows */
    int64_t stored, columns, size, blocks;
    int32_t place_bytes, type;
} column_sparse;

INLINE int64_t place_of(const column_sparse *w, int64_t i, int place_bytes) {
    return place_bytes == 2 ? ((const int16_t *)w->places)[i] : ((const int32_t *)w->places)[i];
}

INLINE float add_product(float a, float x, float y) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, x, y);
#else
    return a * x + y;
#endif
}

/* Sums that are kept at once, and the rows up to which they are: one after the other would wait for the last addition to
   its row, which a neighbouring column often shares. */
enum { SUMS = 4, MOST_ROWS = 4096 };

/* Columns that are decoded at once, their places and values lying side by side. */
enum { STRIP = 16 };

/* What columns first..stop add to rows low..high, into y. A place outside of them is another thread's, or damaged. */
INLINE void add_columns(const column_sparse *w, int64_t first, int64_t stop, int64_t low, int64_t high, const float *x,
                        float *y, int type, int place_bytes) {
    const int64_t rows = high - low, sums = w->size <= MOST_ROWS ? SUMS : 1, step = (stop - first) / sums;
    float others[SUMS - 1][sums > 1 ? rows : 1];
    float *sum[SUMS] = {y, others[0], others[1], others[2]};
    if (sums > 1) memset(others, 0, sizeof others);
#define ADD(t, column)                                                                                   \
    do {                                                                                                 \
        const int64_t at = s * w->columns + (column), row = place_of(w, at, place_bytes) - low;          \
        if (row >= 0 && row < rows)                                                                      \
            sum[t][row] = add_product(value_at(w->values, type, at), x[column], sum[t][row]);            \
    } while (0)
    for (int64_t s = 0; s < w->stored; s++) {
        int64_t j = first;
        if (sums > 1)
            for (; j < first + step; j++) {
                ADD(0, j);
                ADD(1, j + step);
                ADD(2, j + 2 * step);
                ADD(3, j + 3 * step);
            }
        for (j = first + (sums > 1 ? sums * step : 0); j < stop; j++) ADD(0, j);
    }
#undef ADD
    if (sums > 1)
        for (int64_t row = 0; row < rows; row++) y[row] += (others[0][row] + others[1][row]) + others[2][row];
}

/* Columns first..stop of W, each a row of out. */
INLINE void fill_columns(const column_sparse *w, int64_t first, int64_t stop, float *out, int type, int place_bytes) {
    for (int64_t s = 0; s < w->stored; s++)
        for (int64_t j = first; j < stop; j++) {
            const int64_t at = s * w->columns + j, row = place_of(w, at, place_bytes);
            if (row >= 0 && row < w->size) out[(j - first) * w->size + row] = value_at(w->values, type, at);
        }
}

void NAME(column_sparse_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const column_sparse *w = matrix;
    const int64_t wide = (w->columns + w->blocks - 1) / w->blocks;
    memset(y + from, 0, (size_t)(to - from) * 4);
    for (int64_t b = from / w->size; b * w->size < to; b++) {
        const int64_t start = b * w->size, low = from > start ? from - start : 0;
        const int64_t high = to < start + w->size ? to - start : w->size;
        const int64_t first = b * wide, stop = first + wide < w->columns ? first + wide : w->columns;
#define WITH(type)                                                                                    \
    if (w->place_bytes == 2) add_columns(w, first, stop, low, high, x, y + start + low, type, 2);     \
    else add_columns(w, first, stop, low, high, x, y + start + low, type, 4)
        EACH_TYPE(w->type, WITH)
#undef WITH
    }
}

/* Of the matrix in one block, columns from..to instead of rows: each is a row of out. */
void NAME(column_sparse_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    const column_sparse *w = matrix;
    memset(out, 0, (size_t)(to - from) * (size_t)w->size * 4);
    for (int64_t first = from; first < to; first += STRIP) {
        const int64_t stop = first + STRIP < to ? first + STRIP : to;
        float *of_out = out + (first - from) * w->size;
#define WITH(type)                                                                      \
    if (w->place_bytes == 2) fill_columns(w, first, stop, of_out, type, 2);             \
    else fill_columns(w, first, stop, of_out, type, 4)
        EACH_TYPE(w->type, WITH)
#undef WITH
    }
}
