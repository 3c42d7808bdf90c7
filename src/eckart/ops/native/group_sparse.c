/* Groups of 16 columns of a row that are stored, floats or codes of 4 bits with a scale each; the others are zero. */
#include "values.h"
#include "products.h"

typedef struct {
    const void *values;    /* (kept, 16), or NULL */
    const uint8_t *codes;  /* (kept, 8): the first eight of a group in the low halves; or NULL */
    const void *scales;    /* (kept,), beside codes */
    const void *places;    /* (kept,): the group of its row that each is */
    const int64_t *starts; /* (rows + 1,): of the groups of each row */
    int64_t columns;
    int32_t place_bytes, type; /* type: of the values, or of the scales */
} group_sparse;

INLINE int64_t place_of(const void *places, int place_bytes, int64_t i) {
    if (place_bytes == 1) return ((const uint8_t *)places)[i];
    return place_bytes == 2 ? ((const int16_t *)places)[i] : ((const int32_t *)places)[i];
}

/* Sixteen levels of 4 bits, from -8 on. */
INLINE floats levels_of(const uint8_t *codes) {
    typedef uint64_t two __attribute__((vector_size(16)));
    uint64_t eight_bytes;
    memcpy(&eight_bytes, codes, 8);
    const ints code = widen((bytes)(two){eight_bytes, eight_bytes >> 4});
#if defined(__AVX512F__)
    return look_up((floats){-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7}, code);
#else
    return __builtin_convertvector((code & 15) - 8, floats);
#endif
}

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. What is stored beyond the last column is nothing. */
INLINE float row_of(const group_sparse *w, int64_t r, const float *x, float *out, int coded, int type, int place_bytes) {
    const int64_t columns = w->columns, end = w->starts[r + 1];
    floats sum[4] = {all(0), all(0), all(0), all(0)};
    if (out != NULL) memset(out, 0, (size_t)columns * 4);
    for (int64_t first = w->starts[r]; first < end; first += 4) {
        if (coded) __builtin_prefetch(w->codes + 8 * first + AHEAD);
        else if (type != FLOAT32) UNROLL for (int line = 0; line < 2; line++)
            __builtin_prefetch((const char *)w->values + 32 * first + 64 * line + 2 * AHEAD);
        UNROLL for (int k = 0; k < 4; k++) {
            const int64_t i = first + k;
            if (i < end) {
                const int64_t at = LANES * place_of(w->places, place_bytes, i);
                floats value = coded ? levels_of(w->codes + 8 * i) * value_at(w->scales, type, i)
                                     : load_values(w->values, type, LANES * i);
                if (at >= 0 && at + LANES <= columns) {
                    if (out == NULL) sum[k] = fma16(value, load(x + at), sum[k]);
                    else store(out + at, value);
                } else if (at < 0 || at >= columns) {
                    continue; /* damaged since it was looked at */
                } else if (out == NULL) {
                    sum[k] = fma16(first_lanes(value, columns - at), load_some(x + at, columns - at), sum[k]);
                } else {
                    store_some(out + at, value, columns - at);
                }
            }
        }
    }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE floats add_group(const group_sparse *w, int64_t i, const float *x, floats sum, int type, int place_bytes) {
    const int64_t at = LANES * place_of(w->places, place_bytes, i), left = w->columns - at;
    if (at < 0 || left <= 0) return sum; /* damaged since it was looked at */
    const floats value = load_values(w->values, type, LANES * i);
    return left >= LANES ? fma16(value, load(x + at), sum) : fma16(first_lanes(value, left), load_some(x + at, left), sum);
}

enum { SIDE_BY_SIDE = 8 };

/* y[r + i] = W[r + i] . x for i < rows. */
INLINE void wide_rows(const group_sparse *w, int64_t r, int rows, const float *x, float *y, int type, int place_bytes) {
    floats sum[SIDE_BY_SIDE];
    int64_t all_have = w->starts[r + 1] - w->starts[r];
    UNROLL for (int i = 0; i < rows; i++) {
        const int64_t count = w->starts[r + i + 1] - w->starts[r + i];
        all_have = count < all_have ? count : all_have;
        sum[i] = all(0);
    }
    for (int64_t j = 0; j < all_have; j++)
        UNROLL for (int i = 0; i < rows; i++)
            sum[i] = add_group(w, w->starts[r + i] + j, x, sum[i], type, place_bytes);
    UNROLL for (int i = 0; i < rows; i++) {
        for (int64_t at = w->starts[r + i] + all_have; at < w->starts[r + i + 1]; at++)
            sum[i] = add_group(w, at, x, sum[i], type, place_bytes);
        y[r + i] = total(sum[i]);
    }
}

INLINE void each_row(const group_sparse *w, const float *x, float *y, float *out, int64_t from, int64_t to, int coded,
                     int type, int place_bytes) {
    int64_t r = from;
    if (out == NULL && !coded && w->columns >= WIDE) {
        for (; r + SIDE_BY_SIDE <= to; r += SIDE_BY_SIDE) wide_rows(w, r, SIDE_BY_SIDE, x, y, type, place_bytes);
        for (; r < to; r++) wide_rows(w, r, 1, x, y, type, place_bytes);
        return;
    }
    for (; r < to; r++) {
        if (out == NULL) y[r] = row_of(w, r, x, NULL, coded, type, place_bytes);
        else row_of(w, r, NULL, out + (r - from) * w->columns, coded, type, place_bytes);
    }
}

INLINE void all_rows(const group_sparse *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
#define WITH(type)                                                                                                   \
    if (w->codes != NULL)                                                                                            \
        w->place_bytes == 1 ? each_row(w, x, y, out, from, to, 1, type, 1)                                           \
                            : each_row(w, x, y, out, from, to, 1, type, w->place_bytes);                             \
    else                                                                                                             \
        w->place_bytes == 1 ? each_row(w, x, y, out, from, to, 0, type, 1)                                           \
                            : each_row(w, x, y, out, from, to, 0, type, w->place_bytes)
    EACH_TYPE(w->type, WITH)
}

void NAME(group_sparse_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(group_sparse_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
