/* Exact products of rows with a few vectors of int8: what fingerprints are made of and checked with.
 *
 * Elements are in [-125, 125] on both sides and lengths at most 32768, so that no sum leaves int32. Forms for AVX-512
 * with VNNI, AVX2 and any CPU give the same numbers; vector.h says which is used. */
#ifndef SLUICE_PROBES_DOT_H
#define SLUICE_PROBES_DOT_H

#include "core/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DOT_VECTORS_MAX 16
#define DOT_ROWS 4 /* at a time */
/* Rows and vectors that lie a power of two apart would share their lines of the cache. */
#define DOT_GAP 64

struct dot_vectors {
    uint32_t length, count; /* length: a multiple of 64 */
    size_t stride;
    int8_t *bytes;                 /* vector v at v * stride; owned, 64-byte aligned; zeros up to a multiple of 4 */
    int32_t sums[DOT_VECTORS_MAX]; /* of each vector: see dot_vectors_seal */
};
MUST_CHECK enum error dot_vectors_open(uint32_t length, uint32_t count, struct dot_vectors *ret);
void dot_vectors_free(struct dot_vectors *vectors); /* wipes */
/* After the vectors were written and before they are used. */
void dot_vectors_seal(struct dot_vectors *vectors);
/* ret[row][vector]. A row may be given several times. */
void dot_rows(const struct dot_vectors *vectors, const int8_t *const rows[DOT_ROWS],
              int32_t ret[DOT_ROWS][DOT_VECTORS_MAX]);

#endif
