/* The inner loops of CHAIN in their vector forms: inside chain.c.
 *
 * For the product, X lies packed: strips of 64 columns; in a strip, for each four rows k, the four elements of each
 * column together, each plus the form's bias. So a strip is n*64 bytes, which stay in a cache while all rows of A pass
 * over it, and four multiplications and their sum are one instruction where the CPU has it. */
#ifndef SLUICE_PROBES_CHAIN_FORMS_H
#define SLUICE_PROBES_CHAIN_FORMS_H

#include "probes/primitives.h"

#include <stddef.h>

enum { CHAIN_STRIP = 64, CHAIN_ROWS = 4 /* rows of A at a time; n is a multiple */ };

struct chain_step {
    uint32_t n;
    const int8_t *matrix;    /* A */
    const int32_t *row_sums; /* of A */
    const uint8_t *scale;    /* d of each row */
    const uint8_t *strip;    /* of X, packed */
};

struct chain_form {
    /* Random bytes to residues (probe_residue_of_byte), in place; count is a multiple of 64. */
    void (*residues)(int8_t *bytes, size_t count);
    /* The 64 columns at x of n rows, each `columns` after the one before it. */
    void (*pack)(const int8_t *x, uint32_t n, size_t columns, uint8_t *ret);
    /* Rows row .. row + CHAIN_ROWS - 1 of d * C in the strip, reduced. */
    void (*product)(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP]);
};

const struct chain_form *chain_form_now(void); /* by probe_vector_now */
#if defined(__x86_64__)
extern const struct chain_form chain_form_avx2, chain_form_avx512;
#endif

#endif
