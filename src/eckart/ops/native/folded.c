/* [I, I, ...]: the sum of what several blocks add, each `size` numbers. */
#include "lanes.h"
#include "products.h"

typedef struct {
    int64_t size, blocks;
} folded;

void NAME(folded_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const folded *w = matrix;
    for (int64_t i = from; i < to; i++) {
        float sum = x[i];
        for (int64_t b = 1; b < w->blocks; b++) sum += x[b * w->size + i];
        y[i] = sum;
    }
}

void NAME(folded_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    const folded *w = matrix;
    const int64_t columns = w->size * w->blocks;
    memset(out, 0, (size_t)(to - from) * (size_t)columns * 4);
    for (int64_t i = from; i < to; i++)
        for (int64_t b = 0; b < w->blocks; b++) out[(i - from) * columns + b * w->size + i] = 1;
}
