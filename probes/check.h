/* Does a backend give the answers that a gateway expects? Each challenge is asked and every opening (or, of a large
 * one, a sample of them) recomputed by the functions that gateways check with. */
#ifndef SLUICE_PROBES_CHECK_H
#define SLUICE_PROBES_CHECK_H

#include "probes/backend.h"

#define CHECK_SAMPLES 64 /* openings of a large challenge */

struct check { /* what one challenge gave */
    const char *kind;
    char shape[48];
    char route[16];            /* of CHAIN; else "" */
    uint64_t compared, out_of; /* openings */
    bool is_identical;
    char reason[80]; /* of one that is not */
    int64_t took_ns; /* the answer, without openings */
};
typedef void check_done(void *owner, const struct check *check);

struct check_tiles {
    uint64_t tiles;
    uint32_t double_rounds, passes, walkers, steps;
};
/* FILL, PASS and WALK over that many tiles: three calls of done, fewer when one fails. */
void check_tiles(const struct probe_backend_ops *ops, struct probe_backend *backend, const struct check_tiles *shape,
                 check_done *done, void *owner);
/* CHAIN: against the chain by the book where that is quick, by fingerprints where it is not. One call of done. */
void check_chain(const struct probe_backend_ops *ops, struct probe_backend *backend, uint32_t n, uint32_t blocks,
                 uint32_t steps, check_done *done, void *owner);

#endif
