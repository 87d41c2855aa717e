/* A few threads that check challenges, so that no loop waits for them. Called from one loop's thread. */
#ifndef SLUICE_GATEWAY_VERIFY_POOL_H
#define SLUICE_GATEWAY_VERIFY_POOL_H

#include "core/loop.h"
#include "probes/challenge.h"

struct verify_pool;

/* error ERR_CANCELLED: the pool was freed before a thread came to it. Once, on the loop, never inside the call that
 * asked (but inside verify_pool_free). */
typedef void verify_done_fn(void *ctx, enum error error, bool is_right);

MUST_CHECK enum error verify_pool_open(struct loop *loop, unsigned threads, unsigned queue_max,
                                       struct verify_pool **ret);
/* Ends the threads after the check that each is at; what waits is cancelled. */
struct verify_pool *verify_pool_free(struct verify_pool *pool);
/* Takes what answer holds (it is left empty). ERR_BUSY: the queue is full. On error the answer stays the caller's. */
MUST_CHECK enum error verify_pool_check(struct verify_pool *pool, const struct challenge *challenge,
                                        struct buf *take_answer, verify_done_fn *done, void *ctx);

#endif
