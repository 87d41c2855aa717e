/* Runs of ChaCha blocks (primitives.h), many at a time: what tiles, keys and matrices are made of. */
#ifndef SLUICE_PROBES_STREAM_H
#define SLUICE_PROBES_STREAM_H

#include "probes/primitives.h"

struct stream { /* the words that all blocks of a run share */
    const uint32_t *seed;
    uint32_t w13, w14;
    uint32_t domain, double_rounds;
};

/* The blocks first, first + 1 ... (word 12), 64 bytes each, to any address. */
void stream_make(struct stream stream, uint32_t first, uint32_t count, void *ret);

#endif
