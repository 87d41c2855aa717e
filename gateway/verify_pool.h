/* A few threads for work that would hold a loop up: checking proofs. Called from one loop's thread. */
#ifndef SLUICE_GATEWAY_VERIFY_POOL_H
#define SLUICE_GATEWAY_VERIFY_POOL_H

#include "core/loop.h"

struct verify_pool;

/* Embedded in its owner, which keeps it alive until done. run is on one of the threads; then done on the loop, exactly
 * once, never inside the call that gave it (but inside verify_pool_free). error ERR_CANCELLED: the pool was freed
 * before a thread came to it, and run was not called. */
struct verify_job {
    void (*run)(struct verify_job *job);
    void (*done)(struct verify_job *job, enum error error);
    struct verify_job *next; /* the pool's */
};

MUST_CHECK enum error verify_pool_open(struct loop *loop, unsigned threads, unsigned queue_max,
                                       struct verify_pool **ret);
/* Ends the threads after the job that each is at; what waits is cancelled. */
struct verify_pool *verify_pool_free(struct verify_pool *pool);
/* ERR_BUSY: the queue is full; the job stays the caller's. */
MUST_CHECK enum error verify_pool_give(struct verify_pool *pool, struct verify_job *job);

#endif
