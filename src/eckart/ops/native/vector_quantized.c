/* Codes for vectors of rows, a scale for each group of columns of a row, and one codebook (see
   structures/vector_quantized.py): a code gives the weights of one input in `length` rows at once.

   Codes are packed as those of `quantized.h` are, one row of them for `length` rows of the matrix. Products take as many
   of those as make sixteen rows, and a few of their codes at a time, unpacked. */
#include "quantized.h"

#include "products.h"
#include "values.h"

enum { CODES = 64, MOST_ENTRIES = 4 << 8 }; /* columns whose codes are unpacked at once; numbers of a codebook */

typedef struct {
    const uint8_t *codes; /* (vectors, width) */
    const void *scales;   /* (groups, rows) */
    const void *book;     /* (1 << bits, length) */
    int64_t rows, columns, width, run, group;
    int32_t bits, length, scale_type, book_type;
} vector_quantized;

typedef float four __attribute__((vector_size(16)));
typedef float two __attribute__((vector_size(8)));

INLINE eight join_4(four a, four b) { return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7); }
INLINE four join_2(two a, two b) { return __builtin_shufflevector(a, b, 0, 1, 2, 3); }
INLINE floats join_8(eight a, eight b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
INLINE four four_at(const char *from) { four v; memcpy(&v, from, sizeof v); return v; }
INLINE two two_at(const char *from) { two v; memcpy(&v, from, sizeof v); return v; }

/* The codebook in float32. */
INLINE void open_book(const vector_quantized *w, float *book) {
    const int64_t entries = (int64_t)w->length << w->bits;
    int64_t i = 0;
    for (; i + LANES <= entries; i += LANES) store(book + i, load_values(w->book, w->book_type, i));
    if (i < entries) store_some(book + i, load_some_values(w->book, w->book_type, i, entries - i), entries - i);
}

/* n codes that begin in the bytes `low` and, where they lie in two, end in `high`; sixteen at most. */
INLINE bytes codes_in(const uint8_t *low, const uint8_t *high, int64_t n, int bits, int shift) {
    const int whole = n >= LANES;
    bytes code = (whole ? load_bytes(low) : load_some_bytes(low, n)) >> (uint8_t)shift;
    if (shift + bits > 8) code |= (whole ? load_bytes(high) : load_some_bytes(high, n)) << (uint8_t)(8 - shift);
    return code & (uint8_t)((1 << bits) - 1);
}

/* Where codes lie that are of one run of columns. */
typedef struct {
    int64_t end, place, next; /* its last column and one; its byte for column 0, were there one; from there to the other byte */
    int shift;
} slab;

INLINE slab slab_at(const vector_quantized *w, int s) {
    const int64_t end = (s + 1) * w->run, first = s * w->bits;
    const int shift = first % 8;
    return (slab){end < w->columns ? end : w->columns, first / 8 * w->run - s * w->run, shift + w->bits > 8 ? w->run : 0, shift};
}

/* Entries of one input in sixteen rows, which lie so many bytes into the codebook. */
INLINE floats points(const char *book, uint16_t (*places)[CODES], int64_t i, int length) {
#define FOUR(k) four_at(book + places[k][i])
#define TWO(k) two_at(book + places[k][i])
    if (length == 4) return join_8(join_4(FOUR(0), FOUR(1)), join_4(FOUR(2), FOUR(3)));
    if (length == 2)
        return join_8(join_4(join_2(TWO(0), TWO(1)), join_2(TWO(2), TWO(3))),
                      join_4(join_2(TWO(4), TWO(5)), join_2(TWO(6), TWO(7))));
    floats v;
    UNROLL for (int k = 0; k < LANES; k++) memcpy((char *)&v + 4 * k, book + places[k][i], 4);
    return v;
}

INLINE floats each(float v) { return (floats){v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }

/* W[rows] . x for sixteen rows from `row` on, whose codes are those of the vector that it is in and of the next ones;
   behind the last row are zeros. `joined` codes of two vectors are one for as many rows as both have. */
INLINE floats of_rows(const vector_quantized *w, int64_t row, const float *x, int length, int joined, const float *book) {
    const int vectors = LANES / length, slabs = slabs_of(w->bits), size = length << joined;
    const int64_t last = (w->rows - 1) / length;
    const uint8_t *from[LANES];
    UNROLL for (int k = 0; k < vectors; k++) {
        const int64_t vector = row / length + k;
        from[k] = w->codes + (vector < last ? vector : last) * w->width;
    }
    floats sum = all(0), scale = all(0);
    int64_t column = 0, group_end = 0, group = 0;
    for (int s = 0; s < slabs; s++) {
        const slab here = slab_at(w, s);
        while (column < here.end) {
            if (column == group_end) {
                const int64_t at = group++ * w->rows + row, n = w->rows - row;
                scale = n >= LANES ? load_values(w->scales, w->scale_type, at)
                                   : load_some_values(w->scales, w->scale_type, at, n);
                group_end += w->group;
            }
            const int64_t stop = group_end < here.end ? group_end : here.end;
            floats part[2] = {all(0), all(0)};
            while (column < stop) {
                const int64_t n = stop - column < CODES ? stop - column : CODES;
                uint16_t places[LANES][CODES];
                UNROLL for (int k = 0; k < vectors >> joined; k++) {
                    const uint8_t *at = from[k << joined] + (here.place + column);
                    const uint8_t *other = from[(k << joined) + joined] + (here.place + column);
                    if (here.next || here.shift == 0) { /* bytes that are new: those of the next sixteen rows */
                        __builtin_prefetch(at + here.next + vectors * w->width, 0, 2);
                        if (joined) __builtin_prefetch(other + here.next + vectors * w->width, 0, 2);
                    }
                    for (int64_t i = 0; i < n; i += LANES) {
                        bytes code = codes_in(at + i, at + here.next + i, n - i, w->bits, here.shift);
                        if (joined)
                            code |= codes_in(other + i, other + here.next + i, n - i, w->bits, here.shift) << (uint8_t)w->bits;
                        const halves place = __builtin_convertvector(code, halves) * (uint16_t)(4 * size);
                        memcpy(places[k] + i, &place, sizeof place);
                    }
                }
                int64_t i = 0;
                for (; i + 2 <= n; i += 2) {
                    part[0] = fma16(points((const char *)book, places, i, size), each(x[column + i]), part[0]);
                    part[1] = fma16(points((const char *)book, places, i + 1, size), each(x[column + i + 1]), part[1]);
                }
                if (i < n) part[0] = fma16(points((const char *)book, places, i, size), each(x[column + i]), part[0]);
                column += n;
            }
            sum = fma16(part[0] + part[1], scale, sum);
        }
    }
    return sum;
}

INLINE void multiply(const vector_quantized *w, const float *x, float *y, int64_t from, int64_t to, int length, int joined) {
    float book[MOST_ENTRIES], both[joined ? MOST_ENTRIES : 1];
    open_book(w, book);
    if (joined) /* entry c of two vectors' is that of its low bits, then that of its high ones */
        for (int c = 0; c < 1 << 2 * w->bits; c++) {
            memcpy(both + 4 * c, book + 2 * (c & ((1 << w->bits) - 1)), 8);
            memcpy(both + 4 * c + 2, book + 2 * (c >> w->bits), 8);
        }
    for (int64_t row = from / length * length; row < to; row += LANES) {
        float found[LANES];
        store(found, of_rows(w, row, x, length, joined, joined ? both : book));
        const int64_t end = row + LANES < to ? row + LANES : to;
        for (int64_t r = row < from ? from : row; r < end; r++) y[r] = found[r - row];
    }
}

void NAME(vector_quantized_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const vector_quantized *w = matrix;
    if (w->length == 4) multiply(w, x, y, from, to, 4, 0);
    else if (w->length == 2 && w->bits <= 4) multiply(w, x, y, from, to, 2, 1);
    else if (w->length == 2) multiply(w, x, y, from, to, 2, 0);
    else multiply(w, x, y, from, to, 1, 0);
}

/* The codes of a row pick out of its own entries of the codebook. */
void NAME(vector_quantized_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    const vector_quantized *w = matrix;
    const int slabs = slabs_of(w->bits), length = w->length;
    float book[MOST_ENTRIES], entries[MOST_ENTRIES];
    open_book(w, book);
    for (int i = 0; i < length; i++)
        for (int code = 0; code < 1 << w->bits; code++) entries[(i << w->bits) + code] = book[code * length + i];
    for (int64_t r = from; r < to; r++, out += w->columns) {
        const uint8_t *row = w->codes + r / length * w->width;
        const float *of_row = entries + (r % length << w->bits);
        float scale = 0;
        int64_t column = 0, group_end = 0, group = 0;
        for (int s = 0; s < slabs; s++) {
            const slab here = slab_at(w, s);
            while (column < here.end) {
                if (column == group_end) {
                    scale = value_at(w->scales, w->scale_type, group++ * w->rows + r);
                    group_end += w->group;
                }
                const int64_t stop = group_end < here.end ? group_end : here.end;
                while (column < stop) {
                    const int64_t n = stop - column < LANES ? stop - column : LANES;
                    const uint8_t *at = row + (here.place + column);
                    const ints code = widen(codes_in(at, at + here.next, n, w->bits, here.shift));
                    const floats value = gather(of_row, code) * scale;
                    if (n == LANES) store(out + column, value);
                    else store_some(out + column, value, n);
                    column += n;
                }
            }
        }
    }
}
