/* Entries of any float type, row after row. */
#pragma once

#include "values.h"

/* One row of a matrix of `columns` columns: W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float entries_of(const void *entries, int type, int64_t columns, int64_t r, const float *x, float *out) {
    const int64_t first = r * columns, size = type == FLOAT32 ? 4 : 2;
    const char *row = (const char *)entries + first * size;
    floats sum[4] = {all(0), all(0), all(0), all(0)};
    int64_t j = 0;
    for (; j + 4 * LANES <= columns; j += 4 * LANES) {
        /* The processor runs ahead by itself where nothing is computed. */
        if (type != FLOAT32) UNROLL for (int line = 0; line < 2; line++)
            __builtin_prefetch(row + j * size + 64 * line + AHEAD);
        UNROLL for (int i = 0; i < 4; i++) {
            const floats value = load_values(entries, type, first + j + i * LANES);
            if (out == NULL) sum[i] = fma16(value, load(x + j + i * LANES), sum[i]);
            else store(out + j + i * LANES, value);
        }
    }
    for (; j < columns; j += LANES) {
        const int64_t n = columns - j < LANES ? columns - j : LANES;
        const floats value = n == LANES ? load_values(entries, type, first + j)
                                        : load_some_values(entries, type, first + j, n);
        if (out == NULL) sum[0] = fma16(value, load_up_to(x + j, n), sum[0]);
        else store_some(out + j, value, n);
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}
