/* CHAIN on a CPU: generators, the step by the book (the CPU backend), and leaves. Fingerprints: fingerprint.h. */
#ifndef SLUICE_PROBES_CHAIN_H
#define SLUICE_PROBES_CHAIN_H

#include "probes/hash.h"

/* Row i of A (columns n) or of X_0 (columns B*n); a multiple of 64 columns. Vectorised; domain says which. */
void chain_row_make(const uint32_t seed[8], uint32_t domain, uint32_t row, uint32_t columns, int8_t *ret);
/* Scales and shifts of step t for rows 0 .. n-1. */
void chain_step_make(const uint32_t seed[8], uint32_t step, uint32_t n, uint32_t blocks, uint8_t *ret_scale,
                     uint8_t *ret_shift);
void chain_leaf(const uint32_t context[8], uint32_t row, const int8_t *bytes, uint32_t columns, uint32_t ret[8]);
/* X_L of the whole chain into ret (n rows of blocks*n). Needs n*n + n*blocks*n bytes of its own. ERR_NO_MEMORY. */
MUST_CHECK enum error chain_run(const uint32_t seed[8], uint32_t n, uint32_t blocks, uint32_t steps, int8_t *ret);

#endif
