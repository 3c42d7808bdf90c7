/* Stored values of any float type, sixteen at a time, side by side or spread over the places that a mask names. */
#pragma once

#include "lanes.h"

typedef _Float16 singles16 __attribute__((vector_size(32)));

/* Sixteen values from number `at` on. */
INLINE floats load_values(const void *values, int type, int64_t at) {
    if (type == FLOAT32) return load((const float *)values + at);
    if (type == BFLOAT16) return from_bfloat16(load_halves((const uint16_t *)values + at));
    return __builtin_convertvector((singles16)load_halves((const uint16_t *)values + at), floats);
}

/* The n < 16 values from number `at` on, and zeros. */
INLINE floats load_some_values(const void *values, int type, int64_t at, int64_t n) {
    if (n <= 0) return all(0);
    if (type == FLOAT32) return load_some((const float *)values + at, n);
    const halves some = load_some_halves((const uint16_t *)values + at, n);
    return type == BFLOAT16 ? from_bfloat16(some) : __builtin_convertvector((singles16)some, floats);
}

/* x[index] in each lane. */
INLINE floats gather(const float *x, ints index) {
#if defined(__AVX512F__)
    return (floats)_mm512_i32gather_ps((__m512i)index, x, 4);
#else
    floats v;
    for (int lane = 0; lane < LANES; lane++) v[lane] = x[index[lane]];
    return v;
#endif
}

#if defined(__AVX2__) && !defined(__AVX512F__)
/* In each lane of PLACES[m] the rank of its bit among those set in m; for bits that are not, the sign. */
#define PLACE(m, bit) ((m) >> (bit) & 1 ? __builtin_popcount((m) & ((1 << (bit)) - 1)) : INT32_MIN)
#define PLACES_1(m) {PLACE(m, 0), PLACE(m, 1), PLACE(m, 2), PLACE(m, 3), PLACE(m, 4), PLACE(m, 5), PLACE(m, 6), PLACE(m, 7)},
#define PLACES_4(m) PLACES_1(m) PLACES_1(m + 1) PLACES_1(m + 2) PLACES_1(m + 3)
#define PLACES_16(m) PLACES_4(m) PLACES_4(m + 4) PLACES_4(m + 8) PLACES_4(m + 12)
#define PLACES_64(m) PLACES_16(m) PLACES_16(m + 16) PLACES_16(m + 32) PLACES_16(m + 48)
static const int32_t PLACES[256][8] = {PLACES_64(0) PLACES_64(64) PLACES_64(128) PLACES_64(192)};

/* The values of v in the lanes whose bits are set, in order, and zeros. */
INLINE __m256 expand_eight(__m256 v, unsigned mask) {
    const __m256i place = _mm256_loadu_si256((const __m256i *)PLACES[mask]);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(v, place), _mm256_setzero_ps(), _mm256_castsi256_ps(place));
}

INLINE __m256 load_eight(const void *values, int type, int64_t at) {
    if (type == FLOAT32) return _mm256_loadu_ps((const float *)values + at);
    const __m128i eight_halves = _mm_loadu_si128((const __m128i *)((const uint16_t *)values + at));
    if (type == FLOAT16) return _mm256_cvtph_ps(eight_halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight_halves), 16));
}
#endif

/* The values from number `at` on in the lanes whose bits are set, and zeros; sixteen values may be read. */
INLINE floats expand(const void *values, int type, int64_t at, unsigned mask) {
#if defined(__AVX512F__)
    return (floats)_mm512_maskz_expand_ps((__mmask16)mask, (__m512)load_values(values, type, at));
#elif defined(__AVX2__)
    const unsigned low = mask & 255;
    return WHOLE(expand_eight(load_eight(values, type, at), low),
                 expand_eight(load_eight(values, type, at + __builtin_popcount(low)), mask >> 8));
#else
    const floats from = load_values(values, type, at);
    floats v = all(0);
    for (int lane = 0, next = 0; lane < LANES; lane++)
        if (mask >> lane & 1) v[lane] = from[next++];
    return v;
#endif
}

/* As `expand`, out of `stored` values, none of which behind the last is read. */
INLINE floats expand_before(const void *values, int type, int64_t at, int64_t stored, unsigned mask) {
    if (at + LANES <= stored) return expand(values, type, at, mask);
    float last[LANES];
    store(last, load_some_values(values, type, at, stored - at));
    return expand(last, FLOAT32, 0, mask);
}

/* Which of sixteen bytes have the bit that `bit` has in each byte. */
INLINE unsigned bits_of(bytes v, bytes bit) {
#if defined(__SSE2__)
    return (unsigned)_mm_movemask_epi8((__m128i)((v & bit) == bit));
#else
    typedef uint64_t two __attribute__((vector_size(16)));
    const two ones = (two)((bytes)((v & bit) == bit) & 1), packed = ones * 0x0102040810204080u >> 56;
    return (unsigned)(packed[0] | packed[1] << 8);
#endif
}

#define EACH_TYPE(type, call)                \
    switch (type) {                          \
        case FLOAT32: call(FLOAT32); break;  \
        case BFLOAT16: call(BFLOAT16); break; \
        default: call(FLOAT16);              \
    }
