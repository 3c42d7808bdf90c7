/* What is done with rows of any layout, a few at a time: multiply them by several vectors, or round them. */
#include "lanes.h"
#include "products.h"

/* As many sums at once as there are registers for. */
#if defined(__AVX512F__)
enum { ROWS = 4, VECTORS = 4 };
#else
enum { ROWS = 2, VECTORS = 2 };
#endif

/* y[t, from + i] = w[i] . x[t] for i < rows and t < vectors. */
INLINE void tile(const float *w, int rows, const float *x, int vectors, float *y, int64_t y_step, int64_t columns) {
    floats sum[ROWS][VECTORS];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int t = 0; t < vectors; t++) sum[i][t] = all(0);
    for (int64_t j = 0; j < columns; j += LANES) {
        const int64_t n = columns - j;
        floats of_w[ROWS];
        UNROLL for (int i = 0; i < rows; i++) of_w[i] = load_up_to(w + i * columns + j, n);
        UNROLL for (int t = 0; t < vectors; t++) {
            const floats of_x = load_up_to(x + t * columns + j, n);
            UNROLL for (int i = 0; i < rows; i++) sum[i][t] = fma16(of_w[i], of_x, sum[i][t]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int t = 0; t < vectors; t++) y[t * y_step + i] = total(sum[i][t]);
}

/* y[t, i] = w[i] . x[t] for i < count and t < vectors. */
INLINE void all_vectors(const float *w, int count, const float *x, int64_t vectors, float *y, int64_t y_step,
                        int64_t columns) {
    int64_t t = 0;
    for (; t + VECTORS <= vectors; t += VECTORS) tile(w, count, x + t * columns, VECTORS, y + t * y_step, y_step, columns);
    for (; t < vectors; t++) tile(w, count, x + t * columns, 1, y + t * y_step, y_step, columns);
}

void NAME(several)(const layout *layout, const void *matrix, int64_t columns, const float *x, int64_t vectors, float *y,
                   int64_t y_step, int64_t from, int64_t to) {
    float w[ROWS * columns]; /* the caller sees to it that this fits a thread's stack */
    int64_t row = from;
    for (; row + ROWS <= to; row += ROWS) {
        layout->rows(matrix, w, row, row + ROWS);
        all_vectors(w, ROWS, x, vectors, y + row, y_step, columns);
    }
    for (; row < to; row++) {
        layout->rows(matrix, w, row, row + 1);
        all_vectors(w, 1, x, vectors, y + row, y_step, columns);
    }
}

void NAME(rounded)(const layout *layout, const void *matrix, int64_t columns, uint16_t *out, int64_t from, int64_t to) {
    float w[columns]; /* this fits the stack as well */
    for (int64_t row = from; row < to; row++) {
        uint16_t *to_row = out + (row - from) * columns;
        layout->rows(matrix, w, row, row + 1);
        int64_t j = 0;
        for (; j + LANES <= columns; j += LANES) {
            const halves v = to_bfloat16(load(w + j));
            memcpy(to_row + j, &v, sizeof v);
        }
        const halves v = to_bfloat16(load_some(w + j, columns - j));
        memcpy(to_row + j, &v, (size_t)(columns - j) * 2);
    }
}
