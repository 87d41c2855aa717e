/* Workers in Redis: what outlives a gateway and is shared by all of them. One hash a worker, an index, and a capped
 * feed of changes that every gateway tails. */
#ifndef SLUICE_SCHEDULER_WORKER_STORE_H
#define SLUICE_SCHEDULER_WORKER_STORE_H

#include "core/id.h"
#include "core/redis.h"
#include "scheduler/admission.h"
#include "scheduler/reputation.h"

#define WORKER_MODELS_MAX 64

/* A stored worker; texts owned by the record. */
struct worker_record {
    char id[ID_TEXT_MAX];
    char secret_sha256[65]; /* hex */
    char name[64], supplier[64], gpu[40], gpu_raw[64], region[32], tags[256];
    uint32_t gpus, slots;
    int64_t price_usd_nano;
    uint64_t vram_bytes;
    int64_t enrolled_at_ms;
    struct admission admission;
    struct reputation reputation;
};

typedef void worker_stored_fn(void *ctx, enum error error);
typedef void worker_record_fn(void *ctx, enum error error, const struct worker_record *record); /* borrowed */

/* Writes a new worker, or an existing one's declared fields (name ... price); appends to the feed. */
MUST_CHECK enum error worker_store_put(struct redis *redis, const struct worker_record *record, worker_stored_fn *done,
                                       void *ctx);
MUST_CHECK enum error worker_store_get(struct redis *redis, struct str id, worker_record_fn *done, void *ctx);
/* Stores an admission change if the stored fencing token is still expect_token (else ERR_MISMATCH: another gateway was
 * faster; its change comes by the feed). Claims for probing go the same way. */
MUST_CHECK enum error worker_store_admit(struct redis *redis, struct str id, uint64_t expect_token,
                                         const struct admission *admission, worker_stored_fn *done, void *ctx);
/* Adds counts to the reputation (atomic in Redis); appends to the feed at most once a second a worker. */
MUST_CHECK enum error worker_store_reputation(struct redis *redis, struct str id, uint32_t good, uint32_t bad,
                                              worker_stored_fn *done, void *ctx);
/* Every stored worker, each by on_record with ERR_NONE, then once with record NULL and the final error. */
MUST_CHECK enum error worker_store_all(struct redis *redis, worker_record_fn *on_record, void *ctx);

/* The feed of changes, key "sl:feed" (a stream, MAXLEN ~ 10,000), shared by all stores: field "kind" (worker, key,
 * tenant, gateway, ...) and "id". Scripts append to it by XADD in a call of their own after the change. */
MUST_CHECK enum error feed_append(struct redis *redis, const char *kind, struct str id);

#endif
