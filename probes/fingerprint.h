/* What the verifier of CHAIN knows beforehand: Freivalds fingerprints of X_L's rows under a secret vector.
 *
 * r is uniform in GF(251)^(B*n), drawn when the challenge is prepared and never sent. With F_t[i][o] the product of row
 * i of X_t with r rotated by o blocks, one step is F_{t+1}[i][o] = d * (A * F_t)[i][(o + s) % B] for d, s of row i: B
 * matrix-vector products a step instead of n*B. A row that is not X_L's passes with probability 1/251 for a proven
 * bound and about 251^-B in practice; a chain with one wrong row or column before its last step has no right rows left.
 * Source: R. Freivalds, "Probabilistic machines can use less running time" (1977); README.md for the chain's own. */
#ifndef SLUICE_PROBES_FINGERPRINT_H
#define SLUICE_PROBES_FINGERPRINT_H

#include "probes/chain.h"
#include "probes/dot.h"
#include "probes/vector.h"

struct chain_shape {
    uint32_t n, blocks, steps;
};
bool chain_shape_equal(struct chain_shape a, struct chain_shape b);

struct fingerprint { /* one prepared challenge; secret until sent, used once */
    struct chain_shape shape;
    uint32_t seed[8];
    struct dot_vectors secret; /* r, block by block; owned */
    uint8_t *prints;           /* F_L: n rows of `blocks` residues 0..250; owned */
    int64_t made_ns;
};
/* CPU-bound: from milliseconds (n = 256) to most of a second (n = 8192, 50 steps), and n*n + O(n) bytes meanwhile. */
MUST_CHECK enum error fingerprint_make(struct chain_shape shape, struct fingerprint *ret);
void fingerprint_free(struct fingerprint *fingerprint); /* wipes r; leaves it empty */
/* Is this X_L's row? bytes: blocks*n int8 in [-125, 125]; anything else is wrong. */
bool fingerprint_check(const struct fingerprint *fingerprint, uint32_t row, struct str bytes);

#endif
