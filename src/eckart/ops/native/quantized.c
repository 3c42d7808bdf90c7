/* Codes times float32: each code becomes a value, by a table in a register where one fits. See quantized.h. */
#include "quantized.h"

#include "lanes.h"
#include "products.h"

enum { TABLE, ARITHMETIC, BOOK };

/* How codes become values: by a table of 16 in a register, by arithmetic, or out of a codebook in memory. */
INLINE int way(int bits, int has_book) {
    (void)bits;
#if defined(__AVX512F__)
    if (bits <= 4) return TABLE;
#elif defined(__AVX2__)
    if (bits <= 3 || (bits == 4 && has_book)) return TABLE;
#endif
    return has_book ? BOOK : ARITHMETIC;
}

/* Codes out of the bytes they begin in and, where they lie in two, the next ones; bits above them are left in for a table,
   which ignores them. */
INLINE ints codes_in(bytes low, bytes high, int bits, int shift, int how) {
    ints word = widen(low);
    if (shift + bits > 8) word |= widen(high) << 8;
    word >>= shift;
    return how == TABLE || shift + bits == 8 ? word : word & ((1 << bits) - 1);
}

/* As many bytes as there are before the end. */
INLINE bytes load_before(const uint8_t *from, const uint8_t *end) {
    return from + LANES <= end ? load_bytes(from) : load_some_bytes(from, end - from);
}

INLINE floats values_of(ints code, int how, int bits, floats table, const float *book, float scale, float zero) {
    if (how == TABLE) return bits <= 3 ? look_up_8(table, code) : look_up(table, code);
    if (how == ARITHMETIC) return (__builtin_convertvector(code, floats) - zero) * scale;
    floats value;
    for (int lane = 0; lane < LANES; lane++) value[lane] = book[code[lane]];
    return value * scale;
}

/* The next `count` times 16 columns of a run: added to as many sums, or written. */
#define CHUNKS(count)                                                                                                \
    {                                                                                                                \
        if (shift == 0 || two) __builtin_prefetch(from + two * run + column + AHEAD); /* bytes that are new */       \
        UNROLL for (int i = 0; i < count; i++) {                                                                     \
            const int64_t c = column + i * LANES;                                                                    \
            const ints code = codes_in(load_bytes(from + c), load_bytes(from + two * run + c), bits, shift, how);    \
            const floats value = values_of(code, how, bits, table, book, scale, zero);                               \
            if (out == NULL) sum[i] = fma16(value, load(x + c), sum[i]);                                             \
            else store(out + c, value);                                                                              \
        }                                                                                                            \
    }

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const quantized *w, int64_t r, const float *x, float *out, int bits, int has_book, const float *book,
                     const uint8_t *zeros) {
    const int how = way(bits, has_book), slabs = slabs_of(bits);
    const int64_t run = w->run, columns = w->columns;
    const uint8_t *row = w->codes + r * w->width, *end = w->codes + w->rows * w->width;
    floats sum[4] = {all(0), all(0), all(0), all(0)}, table = all(0);
    float scale = 0, zero = 0;
    int64_t column = 0, group_end = 0, group = 0;
    UNROLL for (int k = 0; k < slabs; k++) {
        const int shift = k * bits % 8, two = shift + bits > 8;
        const int64_t slab_end = (k + 1) * run < columns ? (k + 1) * run : columns;
        const uint8_t *from = row + k * bits / 8 * run - k * run; /* its byte for column 0 of the row, were there one */
        while (column < slab_end) {
            if (column == group_end) {
                scale = value_at(w->scales, w->scale_type, r * w->groups + group);
                zero = zeros ? zeros[group] : 1 << (bits - 1);
                if (how == TABLE) {
                    const floats levels = bits == 4 ? (floats){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
                                        : bits == 3 ? (floats){0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7}
                                                    : (floats){0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
                    table = (has_book ? load(book) : levels - zero) * scale;
                }
                group++;
                group_end += w->group;
            }
            const int64_t stop = group_end < slab_end ? group_end : slab_end;
            for (; column + 4 * LANES <= stop; column += 4 * LANES) CHUNKS(4)
            for (; column + 2 * LANES <= stop; column += 2 * LANES) CHUNKS(2)
            for (; column + LANES <= stop; column += LANES) CHUNKS(1)
            if (column < stop) {
                const int64_t n = stop - column;
                const ints code = codes_in(load_before(from + column, end), load_before(from + two * run + column, end),
                                           bits, shift, how);
                const floats value = values_of(code, how, bits, table, book, scale, zero);
                if (out == NULL) sum[0] = fma16(value, load_first(x, column, n, columns), sum[0]);
                else if (column + LANES <= columns) store(out + column, value); /* what is too much is written over */
                else store_some(out + column, value, columns - column);
            }
            column = stop;
        }
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE void each_row(const quantized *w, const float *x, float *y, float *out, int64_t from, int64_t to, int bits,
                     int has_book) {
    float book[256] = {0}; /* a level for every code that its bits can be, and again until there are sixteen */
    if (has_book)
        for (int64_t i = 0; i < (bits < 4 ? 16 : 1 << bits); i++) {
            const int64_t code = i & ((1 << bits) - 1);
            if (code < w->levels) book[i] = value_at(w->book, w->book_type, code);
        }
    uint8_t room[w->packed_zeros ? w->groups : 1];
    for (int64_t r = from; r < to; r++) {
        const uint8_t *zeros = w->zeros ? zeros_of(w, r, room) : NULL;
        if (out == NULL) y[r] = row_of(w, r, x, NULL, bits, has_book, book, zeros);
        else row_of(w, r, NULL, out + (r - from) * w->columns, bits, has_book, book, zeros);
    }
}

#define EITHER(bits)                                                                      \
    case bits:                                                                            \
        if (w->book != NULL) each_row(w, x, y, out, from, to, bits, 1);                   \
        else each_row(w, x, y, out, from, to, bits, 0);                                   \
        break;

INLINE void all_rows(const quantized *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
    switch (w->bits) { EITHER(2) EITHER(3) EITHER(4) EITHER(5) EITHER(6) EITHER(7) EITHER(8) }
}

void NAME(quantized_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(quantized_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
