/* Receipts of a worker in Redis: what worker_store_prove pushed, newest first, for other gateways and for anybody who
 * asks. At most PROOF_STORE_MAX a worker, none older than PROOF_STORE_MS. */
#ifndef SLUICE_SCHEDULER_PROOF_STORE_H
#define SLUICE_SCHEDULER_PROOF_STORE_H

#include "core/id.h"
#include "core/redis.h"

#define PROOF_STORE_MAX 200
#define PROOF_STORE_MS (INT64_C(30) * 24 * 3600 * 1000)
#define PROOF_LIST_MAX 100 /* of one answer */

struct proof_entry {
    uint64_t number;    /* counts up from 1 over a worker's receipts */
    int64_t at_ms;      /* when it was stored, by Redis' clock */
    struct str receipt; /* signed JSON; borrowed for the call */
};
/* next: the cursor of the entries that follow; 0: there are none. */
typedef void proof_list_fn(void *ctx, enum error error, const struct proof_entry *entries, size_t count, uint64_t next);

/* The worker's receipts older than the cursor (0: from the newest on), at most limit (1 .. PROOF_LIST_MAX). A worker
 * without receipts, or that is not known, has none. */
MUST_CHECK enum error proof_store_list(struct redis *redis, struct str worker, uint64_t cursor, size_t limit,
                                       proof_list_fn *done, void *ctx);

#endif
