/* Codes times a vector that is rounded to integers of at most 8 bits, with one scale: sums are integers within a group.

   With x = t k, k integers, and w = s (q - z) in a group: w . x = t s (q . k - z sum(k)). */
#include <math.h>

#include "inputs.h"
#include "lanes.h"
#include "products.h"
#include "quantized.h"

decode_rows NAME(quantized_rows);

typedef uint8_t codes64 __attribute__((vector_size(64)));
typedef int8_t small64 __attribute__((vector_size(64)));

typedef struct {
    quantized matrix; /* without a codebook */
    int32_t top;      /* the largest integer that inputs are rounded to */
} rounded_quantized;

INLINE codes64 load_codes(const uint8_t *from, const uint8_t *end) {
    codes64 v = {0};
    if (from + 64 <= end) memcpy(&v, from, 64);
    else if (from < end) memcpy(&v, from, (size_t)(end - from));
    return v;
}

/* v, and zeros from n on. */
INLINE small64 first_of(small64 v, int64_t n) {
    const codes64 place = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                           22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
                           44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    return v & (small64)(place < (uint8_t)n);
}

/* sum + the products of four neighbours each, q . k. */
INLINE ints add_products(ints sum, codes64 q, small64 k, int bits) {
#if defined(__AVX512VNNI__)
    (void)bits;
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)q, (__m512i)k);
#elif defined(__AVX2__)
    __m256i half[2], of_q[2], of_k[2];
    memcpy(half, &sum, 64), memcpy(of_q, &q, 64), memcpy(of_k, &k, 64);
    UNROLL for (int i = 0; i < 2; i++) {
        __m256i pairs;
        if (bits < 8) {
            pairs = _mm256_maddubs_epi16(of_q[i], of_k[i]); /* at most 2 x 127 x 127 */
        } else { /* about 128, so that pairs fit 16 bits; whoever calls takes that into account */
            const __m256i signs = _mm256_xor_si256(of_q[i], _mm256_set1_epi8(-128));
            pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signs), _mm256_sign_epi8(of_k[i], signs));
        }
        half[i] = _mm256_add_epi32(half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    memcpy(&sum, half, 64);
    return sum;
#else
    (void)bits;
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) sum[lane] += (int32_t)q[4 * lane + i] * k[4 * lane + i];
    return sum;
#endif
}

/* What `add_products` takes off every code. */
INLINE int middle(int bits) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    return bits == 8 ? 128 : 0;
#else
    (void)bits;
    return 0;
#endif
}

INLINE codes64 codes_in(codes64 low, codes64 high, int bits, int shift) {
    codes64 q = low >> shift;
    if (shift + bits > 8) q |= high << (8 - shift);
    return shift + bits == 8 ? q : q & (uint8_t)((1 << bits) - 1);
}

/* W[r] . k; `sums` are those of k's groups. */
INLINE float row_of(const quantized *w, int64_t r, const int8_t *k, const int32_t *sums, int bits,
                     const uint8_t *zeros) {
    const int64_t run = w->run, columns = w->columns;
    const uint8_t *row = w->codes + r * w->width, *end = w->codes + w->rows * w->width;
    floats sum = all(0);
    float shifted = 0, scale = 0;
    int64_t column = 0, group_end = 0, g = 0;
    UNROLL for (int slab = 0; slab < slabs_of(bits); slab++) {
        const int shift = slab * bits % 8, two = shift + bits > 8;
        const int64_t slab_end = (slab + 1) * run < columns ? (slab + 1) * run : columns;
        const uint8_t *from = row + slab * bits / 8 * run - slab * run;
        while (column < slab_end) {
            if (column == group_end) {
                const int zero = zeros ? zeros[g] : 1 << (bits - 1);
                scale = value_at(w->scales, w->scale_type, r * w->groups + g);
                shifted += scale * ((float)(middle(bits) - zero) * (float)sums[g]);
                g++;
                group_end += w->group;
            }
            const int64_t stop = group_end < slab_end ? group_end : slab_end;
            ints products = {0};
            for (; column + 64 <= stop; column += 64) {
                codes64 low, high;
                small64 some;
                if (shift == 0 || two) __builtin_prefetch(from + two * run + column + AHEAD);
                memcpy(&low, from + column, 64), memcpy(&high, from + two * run + column, 64);
                memcpy(&some, k + column, 64);
                products = add_products(products, codes_in(low, high, bits, shift), some, bits);
            }
            if (column < stop) {
                small64 some;
                if (shift == 0 || two) __builtin_prefetch(from + two * run + column + AHEAD);
                memcpy(&some, k + column, 64);
                some = first_of(some, stop - column);
                const codes64 low = load_codes(from + column, end), high = load_codes(from + two * run + column, end);
                products = add_products(products, codes_in(low, high, bits, shift), some, bits);
            }
            column = stop;
            sum = fma16(__builtin_convertvector(products, floats), all(scale), sum);
        }
    }
    return total(sum) + shifted;
}

#define BITS(bits)                                                                              \
    case bits:                                                                                  \
        for (int64_t r = from; r < to; r++)                                                     \
            y[r] = scale * row_of(w, r, k, sums, bits, w->zeros ? zeros_of(w, r, room) : NULL); \
        break;

/* Rounds x to k t with |k| <= top, and adds up each group's k; returns t, NaN where x holds NaN or an infinity. */
INLINE float rounded_input(const quantized *w, const float *x, float top, int8_t *k, int32_t *sums) {
    const float largest = largest_magnitude(x, w->columns);
    if (largest != largest) return largest;
    const float scale = largest / top, divisor = scale > 0 ? scale : INFINITY;
    for (int64_t j = 0; j < w->columns; j++) {
        const float level = rintf(x[j] / divisor);
        k[j] = (int8_t)(level > top ? top : level < -top ? -top : level);
    }
    for (int64_t g = 0; g < w->groups; g++) {
        const int64_t stop = (g + 1) * w->group < w->columns ? (g + 1) * w->group : w->columns;
        sums[g] = 0;
        for (int64_t j = g * w->group; j < stop; j++) sums[g] += k[j];
    }
    return scale;
}

void NAME(quantized_rounded_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const rounded_quantized *given = matrix;
    const quantized *w = &given->matrix;
    int8_t k[w->columns + 64]; /* what is read behind its end is not used */
    memset(k + w->columns, 0, 64);
    int32_t sums[w->groups];
    uint8_t room[w->packed_zeros ? w->groups : 1];
    const float scale = rounded_input(w, x, (float)given->top, k, sums);
    if (scale != scale) {
        for (int64_t r = from; r < to; r++) y[r] = scale;
        return;
    }
    switch (w->bits) { BITS(2) BITS(3) BITS(4) BITS(5) BITS(6) BITS(7) BITS(8) }
}

/* W itself, by which several vectors are multiplied once they are rounded. */
void NAME(quantized_rounded_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    NAME(quantized_rows)(&((const rounded_quantized *)matrix)->matrix, out, from, to);
}
