/* Shared by the fuzz targets: each takes a few bytes that steer it off the front of its input. */
#ifndef SLUICE_TESTS_FUZZ_FUZZ_H
#define SLUICE_TESTS_FUZZ_FUZZ_H

#include "core/str.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

static inline uint8_t fuzz_byte(const uint8_t **data, size_t *size)
{
    if (*size == 0)
        return 0;
    --*size;
    return *(*data)++;
}

/* Where to cut a text of len bytes. */
static inline size_t fuzz_cut(const uint8_t **data, size_t *size, size_t len)
{
    size_t at = (size_t)fuzz_byte(data, size) << 8;
    at |= fuzz_byte(data, size);
    return at % (len + 1);
}

#endif
