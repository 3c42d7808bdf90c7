/* Codes of 2 to 8 bits, a scale for each group of columns of a row, and zero-points or a codebook.

   A row of codes is cut into `slabs` runs of columns; the i-th codes of all runs make one word, and byte k of all words is
   one run of bytes (see ops/packing.py). So the codes of 16 neighbours of every run come out of the same few loads. */
#pragma once

#include <stdint.h>

typedef struct {
    const uint8_t *codes; /* (rows, width) */
    const void *scales;   /* (rows, groups) */
    const uint8_t *zeros; /* (rows, groups), or NULL */
    const void *book;     /* (levels,), or NULL */
    int64_t rows, columns, width, run, group, groups, levels;
    int32_t bits, scale_type, book_type;
} quantized;

/* Codes that fill whole bytes. */
static inline int slabs_of(int bits) { return bits == 8 ? 1 : bits == 4 ? 2 : bits % 2 ? 8 : 4; }

