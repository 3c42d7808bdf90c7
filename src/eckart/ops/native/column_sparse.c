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

/* What block b adds to rows low..high, into y; or with y NULL those rows of W, into out. A place outside of them is
   another thread's, or damaged. */
INLINE void block_of(const column_sparse *w, int64_t b, int64_t low, int64_t high, const float *x, float *y, float *out,
                     int type, int place_bytes) {
    const int64_t wide = (w->columns + w->blocks - 1) / w->blocks;
    const int64_t first = b * wide, stop = first + wide < w->columns ? first + wide : w->columns;
    for (int64_t s = 0; s < w->stored; s++)
        for (int64_t j = first; j < stop; j++) {
            const int64_t i = s * w->columns + j, row = place_of(w, i, place_bytes) - low;
            if (row < 0 || row >= high - low) continue;
            const float value = value_at(w->values, type, i);
            if (y != NULL) y[row] = add_product(value, x[j], y[row]);
            else out[row * w->columns + j] = value;
        }
}

INLINE void all_blocks(const column_sparse *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
    if (y != NULL) memset(y + from, 0, (size_t)(to - from) * 4);
    else memset(out, 0, (size_t)(to - from) * (size_t)w->columns * 4);
    for (int64_t b = from / w->size; b * w->size < to; b++) {
        const int64_t start = b * w->size, low = from > start ? from - start : 0;
        const int64_t high = to < start + w->size ? to - start : w->size;
        float *of_y = y == NULL ? NULL : y + start + low, *of_out = y == NULL ? out + (start + low - from) * w->columns : NULL;
#define WITH(type)                                                                            \
    if (w->place_bytes == 2) block_of(w, b, low, high, x, of_y, of_out, type, 2);             \
    else block_of(w, b, low, high, x, of_y, of_out, type, 4)
        EACH_TYPE(w->type, WITH)
    }
}

void NAME(column_sparse_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_blocks(matrix, x, y, NULL, from, to);
}

void NAME(column_sparse_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_blocks(matrix, NULL, NULL, out, from, to);
}
