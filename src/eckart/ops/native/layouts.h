/* Every layout that there is, by name: X(name) for a file name.c with name_multiply and name_rows in it. */
#pragma once

#define LAYOUTS(X)        \
    X(binary_coded)       \
    X(bit_planes)         \
    X(column_sparse)      \
    X(combined)           \
    X(dense)              \
    X(folded)             \
    X(quantized)          \
    X(quantized_rounded)  \
    X(group_sparse)       \
    X(masked)             \
    X(sparse)             \
    X(semisparse)         \
    X(vector_quantized)
