/* What a layout is: two functions over the description of a matrix W (rows, columns), which its own file knows.

   Nothing in these files allocates, checks or keeps anything: whoever calls has checked all shapes and all indices. No
   byte outside of a tensor is read or written. */
#pragma once

#include <stdint.h>

/* y[row] = W[row] . x for from <= row < to. */
typedef void multiply_rows(const void *matrix, const float *x, float *y, int64_t from, int64_t to);
/* W[from:to], rows of `columns` values one after another. */
typedef void decode_rows(const void *matrix, float *out, int64_t from, int64_t to);

typedef struct {
    multiply_rows *multiply;
    decode_rows *rows;
} layout;

/* W[from:to], rounded to bfloat16. */
typedef void decode_rounded(const layout *layout, const void *matrix, int64_t columns, uint16_t *out, int64_t from,
                            int64_t to);
/* y[t, row] = W[row] . x[t] for from <= row < to and t < vectors, out of rows that are decoded once. */
typedef void multiply_several(const layout *layout, const void *matrix, int64_t columns, const float *x, int64_t vectors,
                              float *y, int64_t y_step, int64_t from, int64_t to);
