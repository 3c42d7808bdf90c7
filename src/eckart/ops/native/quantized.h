/* Codes of 2 to 8 bits, a scale for each group of columns of a row, and zero-points or a codebook.

   A row of codes is cut into `slabs` runs of columns; the i-th codes of all runs make one word, and byte k of all words is
   one run of bytes (see ops/packing.py). So the codes of 16 neighbours of every run come out of the same few loads. */
#pragma once

#include <stdint.h>

typedef struct {
    const uint8_t *codes; /* (rows, width) */
    const void *scales;   /* (rows, groups) */
    const uint8_t *zeros; /* (rows, zero_width): a byte each, or packed as codes are; NULL for those in the middle */
    const void *book;     /* (levels,), or NULL */
    int64_t rows, columns, width, run, group, groups, levels, zero_width;
    int32_t bits, scale_type, book_type, packed_zeros;
} quantized;

/* Codes that fill whole bytes. */
static inline int slabs_of(int bits) { return bits == 8 ? 1 : bits == 4 ? 2 : bits % 2 ? 8 : 4; }


/* The zero-points of row r, unpacked into `room` for `groups` of them where they are packed. */
static inline const uint8_t *zeros_of(const quantized *w, int64_t r, uint8_t *room) {
    const uint8_t *row = w->zeros + r * w->zero_width;
    if (!w->packed_zeros) return row;
    const int64_t slabs = slabs_of(w->bits), run = (w->groups + slabs - 1) / slabs;
    for (int64_t slab = 0; slab < slabs; slab++) {
        const int64_t byte = slab * w->bits / 8, shift = slab * w->bits % 8;
        const int64_t stop = (slab + 1) * run < w->groups ? run : w->groups - slab * run;
        for (int64_t i = 0; i < stop; i++) {
            int word = row[byte * run + i] >> shift;
            if (shift + w->bits > 8) word |= row[(byte + 1) * run + i] << (8 - shift);
            room[slab * run + i] = (uint8_t)(word & ((1 << w->bits) - 1));
        }
    }
    return room;
}
