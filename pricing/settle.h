/* Settling: moves records from a journal into the ledger in Redis, in batches, exactly once by record id. */
#ifndef SLUICE_PRICING_SETTLE_H
#define SLUICE_PRICING_SETTLE_H

#include "core/redis.h"
#include "pricing/journal.h"

struct settler;

/* One a journal. Looks every 20 ms (timer only while records wait) and settles batches within 50 ms of their append
 * while Redis answers; retries with the same ids when it does not. Starts at once on what the journal held at open. */
MUST_CHECK enum error settler_open(struct loop *loop, struct redis *redis, struct journal *journal,
                                   const char *gateway_id, struct settler **ret);
struct settler *settler_free(struct settler *settler); /* leaves unsettled records in the journal */
void settler_kick(struct settler *settler);            /* a record was appended */
/* `settle: redis`: on_settled fires when everything appended so far is acknowledged by Redis. Once. */
struct settle_waiter {
    void (*on_settled)(struct settle_waiter *waiter);
    struct settle_waiter *next, **link;
    uint64_t upto;
};
void settler_wait(struct settler *settler, struct settle_waiter *waiter);
void settle_wait_cancel(struct settle_waiter *waiter);
/* At start, control thread: journals in dir whose names are not in use now (an earlier run had more reactors) are
 * settled and removed. done(ctx) once. Reactors' journals are named "0", "1", ... in_use - 1. */
void settle_leftovers(struct loop *loop, struct redis *redis, const char *dir, const char *gateway_id, size_t in_use,
                      void (*done)(void *ctx), void *ctx);
/* Every few seconds by the control thread: returns holds of gateways that have not kept them alive. */
void settle_sweep(struct redis *redis);

#endif
