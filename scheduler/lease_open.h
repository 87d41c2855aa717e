/* How many leases of a tenant are not over: in each shard a set, which lease_store's scripts keep. */
#ifndef SLUICE_SCHEDULER_LEASE_OPEN_H
#define SLUICE_SCHEDULER_LEASE_OPEN_H

#include "core/redis.h"
#include "core/str.h"

#define LEASE_OPEN_KEY_MAX 96

struct str lease_open_key(char ret[static LEASE_OPEN_KEY_MAX], unsigned shard, struct str tenant);

typedef void lease_open_fn(void *ctx, enum error error, size_t count);
/* The sum over all shards, which are asked at once and not in one instant: leases that are made meanwhile may be
 * missing. done is called once, in a coming turn. */
MUST_CHECK enum error lease_open_count(struct redis *redis, struct str tenant, lease_open_fn *done, void *ctx);

#endif
