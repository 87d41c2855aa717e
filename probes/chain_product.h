/* One step of CHAIN, C = A * X reduced, scaled and shifted: inside chain.c and its vector forms.
 *
 * X lies packed: strips of 64 columns; in a strip, for each four rows k, the four elements of each column together,
 * plus a bias. So a strip is n*64 bytes that stay in a cache while all rows of A pass over it. */
#ifndef SLUICE_PROBES_CHAIN_PRODUCT_H
#define SLUICE_PROBES_CHAIN_PRODUCT_H

#include "probes/primitives.h"

enum { CHAIN_STRIP = 64, CHAIN_ROWS = 4 /* rows of A at a time; n is a multiple */ };

struct chain_step {
    uint32_t n;
    const int8_t *matrix;  /* A */
    const uint8_t *packed; /* the strip of X */
    const uint8_t *scale;  /* per row */
};

/* Rows row .. row + CHAIN_ROWS - 1 of the strip of C, each reduced and scaled by its row's scale. */
typedef void (*chain_product)(const struct chain_step *step, uint32_t row, int8_t ret[CHAIN_ROWS][CHAIN_STRIP]);

#endif
