/* Sixteen lanes at a time, on every processor: 64-byte vectors, which the compiler splits where registers are shorter.
   Sums have the same order, so that a product has the same bits at every level that has fused multiply-adds. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(function) JOIN(function, LEVEL)
#define LANES 16
#define UNROLL _Pragma("clang loop unroll(full)")
#define WIDE 2048  /* columns from which several rows are read side by side: memory is faster in several places at once */
#define AHEAD 2048 /* bytes that are asked of the memory ahead of their use */

typedef float floats __attribute__((vector_size(64)));
typedef float eight __attribute__((vector_size(32)));
typedef int32_t ints __attribute__((vector_size(64)));
typedef uint32_t words __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef uint8_t bytes __attribute__((vector_size(16)));

enum { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

INLINE floats load(const float *from) { floats v; memcpy(&v, from, sizeof v); return v; }
INLINE void store(float *to, floats v) { memcpy(to, &v, sizeof v); }
/* The first n lanes are read and written below; what the others would be of is not touched in memory. */
#if defined(__AVX512F__)
INLINE uint16_t lanes_before(int64_t n) { return (uint16_t)(n >= LANES ? 0xffff : (1u << n) - 1); }
INLINE floats load_some(const float *from, int64_t n) { return (floats)_mm512_maskz_loadu_ps(lanes_before(n), from); }
INLINE void store_some(float *to, floats v, int64_t n) { _mm512_mask_storeu_ps(to, lanes_before(n), (__m512)v); }
INLINE bytes load_some_bytes(const uint8_t *from, int64_t n) {
    return (bytes)_mm_maskz_loadu_epi8(lanes_before(n < 0 ? 0 : n), from);
}
INLINE halves load_some_halves(const uint16_t *from, int64_t n) {
    return (halves)_mm256_maskz_loadu_epi16(lanes_before(n), from);
}
#else
#if defined(__AVX2__)
#define HALF(v, type, from) ((type)__builtin_shufflevector(v, v, from, from + 1, from + 2, from + 3, from + 4, from + 5, from + 6, from + 7))
#define WHOLE(a, b) __builtin_shufflevector((eight)(a), (eight)(b), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
INLINE ints lanes_before(int64_t n) {
    return (ints){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} < (int32_t)n;
}
INLINE floats load_some(const float *from, int64_t n) {
    const ints mask = lanes_before(n);
    return WHOLE(_mm256_maskload_ps(from, HALF(mask, __m256i, 0)), _mm256_maskload_ps(from + 8, HALF(mask, __m256i, 8)));
}
INLINE void store_some(float *to, floats v, int64_t n) {
    const ints mask = lanes_before(n);
    _mm256_maskstore_ps(to, HALF(mask, __m256i, 0), HALF(v, __m256, 0));
    _mm256_maskstore_ps(to + 8, HALF(mask, __m256i, 8), HALF(v, __m256, 8));
}
#else
INLINE floats load_some(const float *from, int64_t n) {
    floats v = {0};
    memcpy(&v, from, (size_t)n * 4);
    return v;
}
INLINE void store_some(float *to, floats v, int64_t n) { memcpy(to, &v, (size_t)n * 4); }
#endif
INLINE bytes load_some_bytes(const uint8_t *from, int64_t n) {
    bytes v = {0};
    if (n > 0) memcpy(&v, from, (size_t)n);
    return v;
}
INLINE halves load_some_halves(const uint16_t *from, int64_t n) {
    halves v = {0};
    memcpy(&v, from, (size_t)n * 2);
    return v;
}
#endif
INLINE bytes load_bytes(const uint8_t *from) { bytes v; memcpy(&v, from, sizeof v); return v; }
INLINE halves load_halves(const uint16_t *from) { halves v; memcpy(&v, from, sizeof v); return v; }
/* v, and zeros from lane n on. */
INLINE floats first_lanes(floats v, int64_t n) {
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (floats)((ints)v & (lane < (int32_t)n));
}
/* x[at : at + n] of `size` values, and zeros behind. */
INLINE floats load_first(const float *x, int64_t at, int64_t n, int64_t size) {
    return at + LANES <= size ? first_lanes(load(x + at), n) : load_some(x + at, n);
}
INLINE floats load_up_to(const float *from, int64_t n) { return n >= LANES ? load(from) : load_some(from, n); }
INLINE floats all(float value) { return (floats){0} + value; }
INLINE ints widen(bytes v) { return __builtin_convertvector(v, ints); }
INLINE floats from_bfloat16(halves v) { return (floats)(__builtin_convertvector(v, words) << 16); }

/* The nearest bfloat16, the even one of two. */
INLINE halves to_bfloat16(floats v) {
    const words bits = (words)v, rounded = bits + 0x7fff + (bits >> 16 & 1);
    const words number = (words)(v == v);
    return __builtin_convertvector(((rounded & number) | ((bits | 0x400000) & ~number)) >> 16, halves);
}

/* One value of a float type that is named by a number. */
INLINE float value_at(const void *values, int type, int64_t i) {
    if (type == FLOAT32) return ((const float *)values)[i];
    if (type == FLOAT16) return (float)((const _Float16 *)values)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)values)[i] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* a x + y, rounded once where the processor can. */
INLINE floats fma16(floats a, floats x, floats y) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_elementwise_fma(a, x, y);
#else
    return a * x + y;
#endif
}

INLINE float total(floats v) {
    typedef float four __attribute__((vector_size(16)));
    eight a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    four b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

#if defined(__AVX2__) && !defined(__AVX512F__)
INLINE __m256 look_up_half(floats table, __m256i index) {
    __m256 low = _mm256_permutevar8x32_ps(HALF(table, __m256, 0), index);
    __m256 high = _mm256_permutevar8x32_ps(HALF(table, __m256, 8), index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}
#endif

/* table[index & 15] in each lane. */
INLINE floats look_up(floats table, ints index) {
#if defined(__AVX512F__)
    return (floats)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
#elif defined(__AVX2__)
    return WHOLE(look_up_half(table, HALF(index, __m256i, 0)), look_up_half(table, HALF(index, __m256i, 8)));
#else
    floats v;
    for (int lane = 0; lane < LANES; lane++) v[lane] = table[index[lane] & 15];
    return v;
#endif
}
