/* Planes of signs, a scale for each plane and each group of columns of a row, and offsets or none (see
   ops/binary_planes.py): signed sums of four inputs come out of tables of sixteen, which are made for the call.

   Rows come in tiles of 16, the last one shorter. A tile is, for each byte of eight columns and for each plane in it, one
   byte of each of its rows; scales and offsets likewise. Groups are whole runs of 16 columns. */
#include "binary_coded.h"
#include "products.h"

enum { CHUNK = 4096 }; /* columns whose tables are made at once, in 64 KiB of the stack */

/* Entry c of a table is the sum of four x, each positive where its bit is set in c. */
INLINE void make_tables(float *tables, const float *x, int64_t start, int64_t stop) {
    const ints number = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t c = start; c < stop; c += 4, tables += LANES) {
        floats signed_x[4];
        UNROLL for (int i = 0; i < 4; i++) {
            const ints negative = ((number >> i & 1) - 1) & INT32_MIN;
            signed_x[i] = (floats)((ints)all(c + i < stop ? x[c + i] : 0) ^ negative);
        }
        store(tables, (signed_x[0] + signed_x[1]) + (signed_x[2] + signed_x[3]));
    }
    if ((stop - start + 3) / 4 % 2) store(tables, all(0)); /* whole bytes are read */
}

/* Adds W[rows] . x to sum, for columns start..stop and the rows of `tiles` tiles, or of one that has n rows. */
INLINE void add_tiles(const binary_coded *w, int64_t row, int tiles, int64_t n, int planes, const float *tables,
                      int64_t start, int64_t stop, floats *sum) {
    const int64_t width = (w->columns + 7) / 8;
    const uint8_t *from[2];
    for (int i = 0; i < tiles; i++) from[i] = w->codes + (row + i * LANES) * width * planes + start / 8 * planes * n;
    for (int64_t column = start; column < stop;) {
        const int64_t g = column / w->group, group_end = (g + 1) * w->group < stop ? (g + 1) * w->group : stop;
        floats of_plane[2][8], ones = all(0);
        UNROLL for (int i = 0; i < tiles; i++)
            UNROLL for (int p = 0; p < planes; p++) of_plane[i][p] = all(0);
        for (; column < group_end; column += 8, tables += 2 * LANES) {
            const floats low = load(tables), high = load(tables + LANES);
            if (w->offsets) ones += all(tables[15] + tables[LANES + 15]); /* the sums of eight x */
            UNROLL for (int i = 0; i < tiles; i++) {
                __builtin_prefetch(from[i] + AHEAD);
                UNROLL for (int p = 0; p < planes; p++) {
                    const ints code = widen(n == LANES ? load_bytes(from[i] + p * LANES) : load_some_bytes(from[i] + p * n, n));
                    of_plane[i][p] += look_up(low, code) + look_up(high, code >> 4);
                }
                from[i] += planes * n;
            }
        }
        UNROLL for (int i = 0; i < tiles; i++) {
            const int64_t first = row + i * LANES;
            UNROLL for (int p = 0; p < planes; p++) {
                const floats scale = load_values(w->scales, w->scale_type, (first * w->groups + g * n) * planes + p * n, n);
                sum[i] = fma16(of_plane[i][p], scale, sum[i]);
            }
            if (w->offsets) sum[i] = fma16(ones, load_values(w->offsets, w->offset_type, first * w->groups + g * n, n), sum[i]);
        }
        column = group_end;
    }
}

INLINE void multiply_chunk(const binary_coded *w, const float *tables, int64_t start, int64_t stop, float *y,
                           int64_t from, int64_t to, int planes) {
    for (int64_t row = from / LANES * LANES; row < to;) {
        const int tiles = planes <= 4 && row + 2 * LANES <= w->rows && row + LANES < to ? 2 : 1;
        const int64_t n = row + LANES <= w->rows ? LANES : w->rows - row;
        float found[2 * LANES];
        floats sum[2] = {all(0), all(0)};
        if (tiles == 2) add_tiles(w, row, 2, LANES, planes, tables, start, stop, sum);
        else if (n == LANES) add_tiles(w, row, 1, LANES, planes, tables, start, stop, sum);
        else add_tiles(w, row, 1, n, planes, tables, start, stop, sum);
        store(found, sum[0]), store(found + LANES, sum[1]);
        const int64_t first = row < from ? from : row, end = row + tiles * LANES < to ? row + tiles * LANES : to;
        for (int64_t r = first; r < end; r++) y[r] = start ? y[r] + found[r - row] : found[r - row];
        row += tiles * LANES;
    }
}

#define PLANES(planes) case planes: multiply_chunk(w, tables, start, stop, y, from, to, planes); break;

void NAME(binary_coded_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const binary_coded *w = matrix;
    float tables[CHUNK * 4];
    for (int64_t start = 0; start < w->columns; start += CHUNK) {
        const int64_t stop = start + CHUNK < w->columns ? start + CHUNK : w->columns;
        make_tables(tables, x, start, stop);
        switch (w->planes) { PLANES(1) PLANES(2) PLANES(3) PLANES(4) PLANES(5) PLANES(6) PLANES(7) PLANES(8) }
    }
}

void NAME(binary_coded_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    const binary_coded *w = matrix;
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int64_t width = (w->columns + 7) / 8, planes = w->planes;
    for (int64_t row = from; row < to; row++, out += w->columns) {
        const int64_t tile = row / LANES * LANES, n = tile + LANES <= w->rows ? LANES : w->rows - tile;
        const uint8_t *codes = w->codes + tile * width * planes + (row - tile);
        for (int64_t column = 0; column < w->columns;) {
            const int64_t g = column / w->group;
            const int64_t end = (g + 1) * w->group < w->columns ? (g + 1) * w->group : w->columns;
            float scales[8];
            for (int64_t p = 0; p < planes; p++)
                scales[p] = value_at(w->scales, w->scale_type, (tile * w->groups + g * n) * planes + p * n + row - tile);
            const float offset = w->offsets ? value_at(w->offsets, w->offset_type, tile * w->groups + g * n + row - tile) : 0;
            for (; column < end; column += LANES) {
                floats value = all(offset);
                for (int64_t p = 0; p < planes; p++) {
                    int32_t signs = codes[(column / 8 * planes + p) * n];
                    if (column + 8 < w->columns) signs |= codes[((column / 8 + 1) * planes + p) * n] << 8;
                    const ints negative = ((((ints){0} + signs) >> lane & 1) - 1) & INT32_MIN;
                    value += (floats)((ints)all(scales[p]) ^ negative);
                }
                if (column + LANES <= w->columns) store(out + column, value);
                else store_some(out + column, value, w->columns - column);
            }
            column = end;
        }
    }
}
