/* What is looked up of a vector before it is rounded. */
#pragma once

#include <math.h>

#include "lanes.h"

/* The largest of |x|, NaN where one is NaN or infinite. */
INLINE float largest_magnitude(const float *x, int64_t n) {
    uint32_t most = 0;
    for (int64_t j = 0; j < n; j++) {
        uint32_t bits;
        memcpy(&bits, x + j, 4);
        bits &= 0x7fffffff; /* its magnitude, in the order of magnitudes, infinity and NaN last */
        most = bits > most ? bits : most;
    }
    if (most >= 0x7f800000) return (float)NAN;
    float largest;
    memcpy(&largest, &most, 4);
    return largest;
}
