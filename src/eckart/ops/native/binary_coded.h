/* Planes of signs with their scales, as `binary_coded.c` says how they lie. */
#pragma once

#include "lanes.h"

typedef struct {
    const uint8_t *codes; /* (rows, planes * width), in tiles */
    const void *scales;   /* (rows, groups * planes), in tiles */
    const void *offsets;  /* (rows, groups) in tiles, or NULL */
    int64_t rows, columns, group, groups;
    int32_t planes, scale_type, offset_type;
} binary_coded;

/* n values of a float type from the i-th on, and zeros behind. */
INLINE floats load_values(const void *values, int type, int64_t i, int64_t n) {
    if (type == FLOAT32) return load_up_to((const float *)values + i, n);
    if (type == BFLOAT16) {
        const uint16_t *from = (const uint16_t *)values + i;
        return from_bfloat16(n >= LANES ? load_halves(from) : load_some_halves(from, n));
    }
    floats v = all(0);
    for (int64_t lane = 0; lane < n && lane < LANES; lane++) v[lane] = value_at(values, type, i + lane);
    return v;
}
