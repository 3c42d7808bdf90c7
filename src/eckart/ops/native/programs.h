/* A product as a program: stages one after another, each a sum of products by matrices, shared out to threads.

   A stage reads x, or what stages before it wrote. Numbers of one stage lie vector after vector. */
#pragma once

#include "products.h"

typedef struct {
    const void *matrix; /* (the stage's rows, columns), as its layout sees it */
    int64_t columns;
    int64_t reads;      /* where in the scratch the numbers are that it multiplies; -1 for x */
    int64_t room;       /* where its own go, unless it is the first of its stage; all places are numbers of one vector */
    int32_t layout;
} term;

typedef struct {
    const term *terms;
    int64_t rows, writes; /* how many numbers it makes, and where they go, but for the last stage */
    int64_t piece;        /* rows that a thread takes at once */
    int32_t count;        /* of terms */
} stage;

typedef struct {
    const stage *stages;
    const void *bias; /* added to the last stage's numbers, or NULL */
    int64_t columns;  /* of x */
    int64_t scratch;  /* numbers of one vector */
    int64_t threads;  /* that the whole is worth */
    int32_t count;    /* of stages, at most MOST_STAGES */
    int32_t bias_type;
} program;

enum { MOST_STAGES = 8, ON_STACK = 1 << 12 }; /* numbers of the scratch that need no other room */
