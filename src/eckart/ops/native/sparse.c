/* Compressed sparse rows: values and their columns, row after row. */
#include "values.h"
#include "products.h"

typedef struct {
    const void *values;    /* (stored,) */
    const void *places;    /* (stored,): columns */
    const int64_t *starts; /* (rows + 1,): of the values of each row */
    int64_t columns;
    int32_t place_bytes, type;
} sparse;

INLINE ints load_places(const void *places, int place_bytes, int64_t at) {
    if (place_bytes == 2) return __builtin_convertvector(load_halves((const uint16_t *)places + at), ints);
    ints v;
    memcpy(&v, (const int32_t *)places + at, sizeof v);
    return v;
}

INLINE int64_t place_of(const void *places, int place_bytes, int64_t i) {
    return place_bytes == 2 ? ((const int16_t *)places)[i] : ((const int32_t *)places)[i];
}

/* Columns were looked at when the matrix was; one that was damaged since is another column, and no other memory. */
INLINE int64_t inside(int64_t column, int64_t columns) {
    return (uint64_t)column < (uint64_t)columns ? column : columns - 1;
}

INLINE ints all_inside(ints column, int64_t columns) {
    return (ints)__builtin_elementwise_min((words)column, (words){0} + (uint32_t)(columns - 1));
}

/* One row: returns W[r] . x where out is NULL; else writes W[r] to out. */
INLINE float row_of(const sparse *w, int64_t r, const float *x, float *out, int type, int place_bytes) {
    const int64_t end = w->starts[r + 1];
    int64_t i = w->starts[r];
    floats sum = all(0);
    if (out != NULL) {
        memset(out, 0, (size_t)w->columns * 4);
        for (; i < end; i++) out[inside(place_of(w->places, place_bytes, i), w->columns)] = value_at(w->values, type, i);
        return 0;
    }
    for (; i + LANES <= end; i += LANES)
        sum = fma16(load_values(w->values, type, i), gather(x, all_inside(load_places(w->places, place_bytes, i), w->columns)), sum);
    if (i < end) {
        floats of_x = all(0);
        for (int lane = 0; lane < end - i; lane++) of_x[lane] = x[inside(place_of(w->places, place_bytes, i + lane), w->columns)];
        sum = fma16(load_some_values(w->values, type, i, end - i), of_x, sum);
    }
    return total(sum);
}

INLINE void each_row(const sparse *w, const float *x, float *y, float *out, int64_t from, int64_t to, int type) {
    for (int64_t r = from; r < to; r++) {
        float *row = out == NULL ? NULL : out + (r - from) * w->columns;
        const float found = w->place_bytes == 2 ? row_of(w, r, x, row, type, 2) : row_of(w, r, x, row, type, 4);
        if (out == NULL) y[r] = found;
    }
}

INLINE void all_rows(const sparse *w, const float *x, float *y, float *out, int64_t from, int64_t to) {
#define WITH(type) each_row(w, x, y, out, from, to, type)
    EACH_TYPE(w->type, WITH)
}

void NAME(sparse_multiply)(const void *matrix, const float *x, float *y, int64_t from, int64_t to) {
    all_rows(matrix, x, y, NULL, from, to);
}

void NAME(sparse_rows)(const void *matrix, float *out, int64_t from, int64_t to) {
    all_rows(matrix, NULL, NULL, out, from, to);
}
