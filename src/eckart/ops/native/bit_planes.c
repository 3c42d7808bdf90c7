/* Planes of signs times a vector that is rounded to odd integers of few bits, which are sums of planes of signs too.

   With x = t sum_j 2^j X_j and w = sum_p a_p B_p, X_j and B_p in {-1, 1}: w . x = t sum_pj a_p 2^j (n - 2 |B_p xor X_j|)
   in each group of n columns, |.| the number of bits that are set. W lies as in binary_coded.c. */
#include "binary_coded.h"
#include "inputs.h"
#include "products.h"

decode_rows NAME(binary_coded_rows);

enum {
    MOST_BITS = 4,   /* of an integer */
    MOST_PLANES = 4, /* of W */
    RUN = 32         /* columns whose signs fill whole vectors, however many planes there are */
};

typedef uint8_t bytes64 __attribute__((vector_size(64)));

typedef struct {
    binary_coded matrix;
    int32_t bits; /* of an integer of x */
} bit_planes;

/* x as integers. */
typedef struct {
    bytes64 *lanes; /* signs as they meet those of 16 rows and a run of columns */
    uint8_t *bytes; /* a bit for each column, byte after byte the planes */
    float *sums;    /* of each group */
} input_planes;

/* How many bits are set in each byte. */
#if defined(__AVX2__)
#define HALVES_OF_BYTES 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4
#if defined(__AVX512BW__)
INLINE bytes64 set_bits(bytes64 v) {
    const __m512i of_half = _mm512_broadcast_i32x4(_mm_setr_epi8(HALVES_OF_BYTES));
    return (bytes64)_mm512_shuffle_epi8(of_half, (__m512i)(v & 15)) + (bytes64)_mm512_shuffle_epi8(of_half, (__m512i)(v >> 4));
}
#else
INLINE bytes64 set_bits(bytes64 v) {
    const __m256i of_half = _mm256_broadcastsi128_si256(_mm_setr_epi8(HALVES_OF_BYTES));
    bytes64 low = v & 15, high = v >> 4;
    __m256i of_low[2], of_high[2];
    memcpy(of_low, &low, 64), memcpy(of_high, &high, 64);
    UNROLL for (int i = 0; i < 2; i++)
        of_low[i] = _mm256_add_epi8(_mm256_shuffle_epi8(of_half, of_low[i]), _mm256_shuffle_epi8(of_half, of_high[i]));
    memcpy(&v, of_low, 64);
    return v;
}
#endif
#else
INLINE bytes64 set_bits(bytes64 v) { /* sums of 2, 4 and 8 of them */
    v -= v >> 1 & 0x55;
    v = (v & 0x33) + (v >> 2 & 0x33);
    return (v + (v >> 4)) & 0x0f;
}
#endif

#define LANE(v, i)                                                                                                  \
    widen(__builtin_shufflevector(v, v, i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7, i + 8, i + 9, i + 10, i + 11, \
                                  i + 12, i + 13, i + 14, i + 15))

/* One of the four lanes of sixteen bytes. */
INLINE ints lane_of(bytes64 v, int lane) {
    switch (lane) {
        case 0: return LANE(v, 0);
        case 1: return LANE(v, 16);
        case 2: return LANE(v, 32);
        default: return LANE(v, 48);
    }
}

/* Rounds x to t k, k odd with |k| < 2^bits, t of least squares; returns t, NaN where x holds NaN or an infinity. */
INLINE float odd_integers(const float *x, int64_t n, int bits, int8_t *k) {
    const int top = (1 << bits) - 1;
    const float largest = largest_magnitude(x, n), unit = largest / (float)top;
    if (largest != largest) return largest;
    const float divisor = unit > 0 ? unit : INFINITY;
    double product = 0, square = 0;
    for (int64_t j = 0; j < n; j++) {
        const float level = 2 * floorf(x[j] / divisor / 2) + 1;
        k[j] = (int8_t)(level > (float)top ? top : level < (float)-top ? -top : (int)level);
        product += (double)x[j] * k[j];
        square += (double)k[j] * k[j];
    }
    return unit > 0 ? (float)(product / square) : 0;
}

/* Lays out the integers k. */
INLINE void lay_out(const binary_coded *w, const int8_t *k, int bits, const input_planes *x) {
    const int planes = w->planes, top = (1 << bits) - 1;
    memset(x->bytes, 0, (size_t)((w->columns + 7) / 8 * bits));
    for (int64_t c = 0; c < w->columns; c++) {
        const int signs = (k[c] + top) >> 1;
        for (int j = 0; j < bits; j++) x->bytes[c / 8 * bits + j] |= (uint8_t)((signs >> j & 1) << c % 8);
    }
    for (int64_t run = 0; run < w->columns / RUN; run++)
        for (int i = 0; i < planes; i++)
            for (int j = 0; j < bits; j++)
                for (int lane = 0; lane < 4; lane++)
                    memset((uint8_t *)&x->lanes[(run * planes + i) * bits + j] + lane * LANES,
                           x->bytes[(4 * run + (4 * i + lane) / planes) * bits + j], LANES);
    for (int64_t g = 0, c = 0; g < w->groups; g++)
        for (x->sums[g] = 0; c < w->columns && c < (g + 1) * w->group; c++) x->sums[g] += k[c];
}

/* W[row : row + n] . k, n <= 16. */
INLINE floats tile_of(const binary_coded *w, int64_t row, int64_t n, const input_planes *x, int planes, int bits) {
    const int64_t columns = w->columns, group = w->group;
    const uint8_t *from = w->codes + row * ((columns + 7) / 8) * planes;
    floats sum = all(0);
    for (int64_t g = 0, column = 0; g < w->groups; g++) {
        const int64_t first = column, end = first + group < columns ? first + group : columns;
        ints differing[MOST_PLANES]; /* sum_j 2^j |B_p xor X_j| */
        UNROLL for (int p = 0; p < planes; p++) differing[p] = (ints){0};
        while (column < end) {
            if (n == LANES && column % RUN == 0 && column + RUN <= end) {
                const int64_t most = 255 / (8 * ((1 << bits) - 1)); /* runs whose sums fit a byte */
                const int64_t whole = (end - column) / RUN, runs = whole < most ? whole : most;
                const bytes64 *lanes = x->lanes + column / RUN * planes * bits;
                bytes64 counts[MOST_PLANES][MOST_BITS];
                UNROLL for (int i = 0; i < planes; i++)
                    UNROLL for (int j = 0; j < bits; j++) counts[i][j] = (bytes64){0};
                for (int64_t run = 0; run < runs; run++)
                    UNROLL for (int i = 0; i < planes; i++, from += 64, lanes += bits) {
                        bytes64 code;
                        __builtin_prefetch(from + AHEAD);
                        memcpy(&code, from, 64);
                        UNROLL for (int j = 0; j < bits; j++) counts[i][j] += set_bits(code ^ lanes[j]);
                    }
                UNROLL for (int i = 0; i < planes; i++) {
                    bytes64 weighed = counts[i][0];
                    UNROLL for (int j = 1; j < bits; j++) weighed += counts[i][j] << j;
                    UNROLL for (int lane = 0; lane < 4; lane++) differing[(4 * i + lane) % planes] += lane_of(weighed, lane);
                }
                column += runs * RUN;
            } else {
                UNROLL for (int p = 0; p < planes; p++, from += n) {
                    bytes64 both = {0};
                    const bytes code = n == LANES ? load_bytes(from) : load_some_bytes(from, n);
                    UNROLL for (int j = 0; j < bits; j++) {
                        const bytes differ = code ^ x->bytes[column / 8 * bits + j];
                        memcpy((uint8_t *)&both + j * LANES, &differ, LANES);
                    }
                    both = set_bits(both);
                    UNROLL for (int j = 0; j < bits; j++) differing[p] += lane_of(both, j) << j;
                }
                column += 8;
            }
        }
        column = end;
        UNROLL for (int p = 0; p < planes; p++) {
            const ints dot = (int32_t)(end - first) * ((1 << bits) - 1) - 2 * differing[p];
            const floats scale = load_values(w->scales, w->scale_type, (row * w->groups + g * n) * planes + p * n, n);
            sum = fma16(__builtin_convertvector(dot, floats), scale, sum);
        }
        if (w->offsets)
            sum = fma16(all(x->sums[g]), load_values(w->offsets, w->offset_type, row * w->groups + g * n, n), sum);
    }
    return sum;
}

INLINE void multiply_tiles(const binary_coded *w, const input_planes *x, float t, float *y, int64_t from, int64_t to,
                           int planes, int bits) {
    for (int64_t row = from / LANES * LANES; row < to; row += LANES) {
        const int64_t n = row + LANES <= w->rows ? LANES : w->rows - row;
        float found[LANES];
        if (n == LANES) store(found, all(t) * tile_of(w, row, LANES, x, planes, bits));
        else store(found, all(t) * tile_of(w, row, n, x, planes, bits));
        for (int64_t r = row < from ? from : row; r < row + LANES && r < to; r++) y[r] = found[r - row];
    }
}

#define CASE(planes, bits) \
    case planes << 4 | bits: multiply_tiles(w, &laid, t, y, from, to, planes, bits); break;

void NAME(bit_planes_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    const bit_planes *given = matrix;
    const binary_coded *w = &given->matrix;
    const int bits = given->bits;
    int8_t k[w->columns];
    const float t = odd_integers(x, w->columns, bits, k);
    if (t != t) {
        for (int64_t r = from; r < to; r++) y[r] = t;
        return;
    }
    bytes64 lanes[w->columns / RUN * w->planes * bits + 1];
    uint8_t bytes[(w->columns + 7) / 8 * bits];
    float sums[w->groups];
    const input_planes laid = {lanes, bytes, sums};
    lay_out(w, k, bits, &laid);
    switch (w->planes << 4 | bits) { /* for more pairs of planes tables are faster */
        CASE(1, 1) CASE(1, 2) CASE(1, 3) CASE(1, 4) CASE(2, 1) CASE(2, 2) CASE(3, 1) CASE(4, 1)
    }
}

/* W itself, by which several vectors are multiplied once they are rounded. */
void NAME(bit_planes_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    NAME(binary_coded_rows)(&((const bit_planes *)matrix)->matrix, out, from, to);
}
