/* Leases in Redis. One hash a lease, a sorted set of due times, an index by tenant, the set of those of a tenant that
 * are not over (lease_open.h) and a capped stream of changes, all of a shard under one hash tag, so that each change is
 * one script: `sl:{lse:<shard>}:l:<id>`, `:due`, `:ten:<tenant>`, `:open:<tenant>`, `:all`, `:events`. The shard is a
 * digest of the id.
 *
 * Environments lie in it as they were given: it is as secret as the tenants' own secrets are. What is over and cleared
 * is kept for 90 days.
 *
 * Whoever claims a due lease gets it for CLAIM_MS with the next fencing token; a save with an older token, or over
 * another version, changes nothing; but the same save again, whose answer was lost, is one that succeeded.
 * Asynchronous: done is called once, in a coming turn. */
#ifndef SLUICE_SCHEDULER_LEASE_STORE_H
#define SLUICE_SCHEDULER_LEASE_STORE_H

#include "core/redis.h"
#include "scheduler/lease_record.h"

#define LEASE_SHARDS 8
#define LEASE_CLAIM_MS 30000

typedef void lease_stored_fn(void *ctx, enum error error);
/* take: the lease, the callee's from then on; NULL on error. ERR_NOT_FOUND. */
typedef void lease_loaded_fn(void *ctx, enum error error, struct lease *take);

/* A new lease, due at once. Again with the same id changes nothing (ERR_NONE): creation is repeatable. */
MUST_CHECK enum error lease_store_create(struct redis *redis, const struct lease *lease, lease_stored_fn *done,
                                         void *ctx);
MUST_CHECK enum error lease_store_get(struct redis *redis, struct str id, lease_loaded_fn *done, void *ctx);
/* Up to `most` due leases of a shard are claimed, each handed to on_lease with ERR_NONE, then once with NULL and the
 * final error. A record that cannot be read is put off for an hour and logged, never dropped. */
MUST_CHECK enum error lease_store_claim(struct redis *redis, unsigned shard, size_t most, lease_loaded_fn *on_lease,
                                        void *ctx);
/* Stores lease (its state, version + 1, its due_ms) if token and version are still the stored ones; else ERR_MISMATCH:
 * another gateway has it now. due_ms 0: no longer due. Keeps the claim for another CLAIM_MS while is_claimed, else the
 * lease is due at due_ms. On success lease->version counts on, and lease->stop_asked_ms is what the store holds: a stop
 * may have been asked meanwhile. Writes the event (id, state, reason) where the state changed, and
 * feed_append("lease"). lease must stay until done. */
MUST_CHECK enum error lease_store_save(struct redis *redis, struct lease *lease, bool is_claimed, lease_stored_fn *done,
                                       void *ctx);
/* The claim goes on for another CLAIM_MS; ERR_MISMATCH: lost. */
MUST_CHECK enum error lease_store_keep(struct redis *redis, const struct lease *lease, lease_stored_fn *done,
                                       void *ctx);
/* The tenant wants it ended: notes when (the first time counts) and makes it due now unless it is claimed, in which
 * case the owner sees it at its next save. tenant absent: any (operator). ERR_NOT_FOUND: also another tenant's.
 */
MUST_CHECK enum error lease_store_stop(struct redis *redis, struct str id, struct str tenant, lease_loaded_fn *done,
                                       void *ctx);
/* Newest first, at most `most`, older than the id `before` (absent: from the newest). tenant absent: all. Leases are
 * handed out as in claim. */
MUST_CHECK enum error lease_store_list(struct redis *redis, struct str tenant, struct str before, size_t most,
                                       lease_loaded_fn *on_lease, void *ctx);
/* `sl:installation`: 6 hex digits, made once for all gateways of this Redis. */
typedef void lease_installation_fn(void *ctx, enum error error, struct str installation);
MUST_CHECK enum error lease_store_installation(struct redis *redis, lease_installation_fn *done, void *ctx);

#endif
