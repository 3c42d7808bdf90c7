/* Runs products that were recorded on another processor, and compares every bit; see `other_processors.py`.

   Tensors end where a page begins that must not be touched. The file holds 64-bit numbers and bytes filled up to them. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef int32_t spread(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void *), void *);
void eckart_run(spread *, int, const void *, int64_t, const void *, void *, int, float *);
void eckart_rows(spread *, int64_t, int, int, const void *, int64_t, int64_t, int64_t, int, void *);
const char *eckart_layout(int);

enum { MOST = 64, PAGE = 1 << 16 };
typedef struct { int64_t from, size, described; char *to; } part;

static const char *at;
static int64_t number(void) { int64_t v; memcpy(&v, at, 8); at += 8; return v; }
static const char *taken(int64_t size) { const char *here = at; at += (size + 7) / 8 * 8; return here; }

/* `size` bytes that end where memory does. */
static char *room(int64_t size) {
    const int64_t whole = (size + PAGE - 1) / PAGE * PAGE + PAGE;
    char *start = mmap(NULL, (size_t)whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + whole - PAGE, PAGE, PROT_NONE)) exit(3);
    return start + whole - PAGE - size;
}
static void give_back(char *start, int64_t size) {
    const int64_t whole = (size + PAGE - 1) / PAGE * PAGE + PAGE;
    munmap(start + size + PAGE - whole, (size_t)whole);
}
static int64_t moved(const part *parts, int64_t count, int64_t address) {
    for (int64_t i = 0; i < count; i++)
        if (address >= parts[i].from && address < parts[i].from + parts[i].size)
            return (int64_t)(intptr_t)parts[i].to + address - parts[i].from;
    return address;
}
static int compared(const char *what, int64_t test, const char *name, const char *found, int64_t size) {
    const char *expected = taken(size);
    if (!memcmp(found, expected, (size_t)size)) return 0;
    printf("%s of case %lld (%.*s) is not what was recorded\n", what, (long long)test, 300, name);
    return 1;
}

int main(int count, char **arguments) {
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (!file || fseek(file, 0, SEEK_END)) return 2;
    const long size = ftell(file);
    char *whole = malloc((size_t)size);
    rewind(file);
    if (fread(whole, 1, (size_t)size, file) != (size_t)size) return 2;
    at = whole;
    const int64_t cases = number();
    int wrong = 0;
    for (int64_t test = 0; test < cases; test++) {
        const int64_t length = number();
        const char *name = taken(length);
        part parts[MOST];
        const int64_t many = number();
        for (int64_t i = 0; i < many; i++) {
            part *p = &parts[i];
            p->from = number(), p->size = number(), p->described = number();
            p->to = p->described ? malloc((size_t)p->size) : room(p->size);
            memcpy(p->to, taken(p->size), (size_t)p->size);
        }
        for (int64_t i = 0; i < many; i++) /* addresses in descriptions are those that were */
            for (int64_t j = 0; parts[i].described && j + 8 <= parts[i].size; j += 8) {
                int64_t value;
                memcpy(&value, parts[i].to + j, 8);
                value = moved(parts, many, value);
                memcpy(parts[i].to + j, &value, 8);
            }
        const void *program = (void *)(intptr_t)moved(parts, many, number());
        const int64_t vectors = number(), type = number(), x = moved(parts, many, number()), scratch = number();
        int64_t bytes = number();
        char *y = room(bytes), *more = room(4 * scratch);
        eckart_run(NULL, 0, program, vectors, (void *)(intptr_t)x, y, (int)type, (float *)(void *)more);
        wrong += compared("the product", test, name, y, bytes);
        give_back(y, bytes), give_back(more, 4 * scratch);
        const void *matrix = (void *)(intptr_t)moved(parts, many, number());
        const int64_t layout = number(), columns = number(), start = number(), stop = number(), narrow = number();
        bytes = number();
        y = room(bytes);
        eckart_rows(NULL, 1, 0, (int)layout, matrix, columns, start, stop, (int)narrow, y);
        wrong += compared("rows", test, name, y, bytes);
        give_back(y, bytes);
        for (int64_t i = 0; i < many; i++)
            if (parts[i].described) free(parts[i].to);
            else give_back(parts[i].to, parts[i].size);
    }
    printf("%lld cases, %d outcomes that differ\n", (long long)cases, wrong);
    return wrong > 0;
}
