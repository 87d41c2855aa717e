/* Prepared CHAIN challenges, made by threads of low priority before they are asked for.
 *
 * By shape: what is wanted is remembered with a target count that follows use, so that a pool without workers costs
 * nothing. Any thread may call. Prepared ones older than an hour are dropped. */
#ifndef SLUICE_PROBES_CHAIN_POOL_H
#define SLUICE_PROBES_CHAIN_POOL_H

#include "probes/fingerprint.h"

#define CHAIN_POOL_SHAPES_MAX 64
#define CHAIN_POOL_BYTES_MAX ((size_t)64 << 20) /* of what is ready; 128 KiB each at n = 8192 with 8 blocks */

struct chain_pool;
/* threads: 1 .. 16, of low priority; each needs n * n bytes while it makes one. */
MUST_CHECK enum error chain_pool_open(unsigned threads, struct chain_pool **ret);
struct chain_pool *chain_pool_free(struct chain_pool *pool); /* waits for what is being made; accepts NULL */
/* It will be taken soon: makes one more than there are takers expected. */
void chain_pool_want(struct chain_pool *pool, struct chain_shape shape);
/* ERR_BUSY: none is ready, one is being made; ask again. A small shape (n <= 512) is made on the spot. The caller owns
 * *ret. */
MUST_CHECK enum error chain_pool_take(struct chain_pool *pool, struct chain_shape shape, struct fingerprint *ret);
/* Drops what is too old at that time (clock_mono_ns). The threads do so by themselves every minute. */
void chain_pool_sweep(struct chain_pool *pool, int64_t now_ns);
struct chain_pool_stats {
    unsigned shapes, ready, making;
    uint64_t made, taken, dropped;
    int64_t cpu_ns; /* spent preparing */
} chain_pool_stats(struct chain_pool *pool);

#endif
