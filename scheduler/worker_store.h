/* Workers in Redis: what outlives a gateway and is shared by all of them. One hash a worker, an index, and a capped
 * feed of changes that every gateway tails. */
#ifndef SLUICE_SCHEDULER_WORKER_STORE_H
#define SLUICE_SCHEDULER_WORKER_STORE_H

#include "core/id.h"
#include "core/redis.h"
#include "scheduler/admission.h"
#include "scheduler/reputation.h"
#include "scheduler/worker.h"

#define WORKER_MODELS_MAX 64
#define WORKER_GPU_UNPROVEN "none/unproven" /* what a lease's worker without a probe calls its GPU */
#define WORKER_LEASE_MAX 56                 /* with NUL */

/* What a worker last proved: of several devices the one that proved least. Texts of digests and keys are hex or "". */
struct worker_proof {
    int64_t at_ms;               /* Unix ms of the last proof that passed; 0: it has proven nothing yet */
    enum verify_purpose purpose; /* of that proof */
    uint32_t devices;            /* that were proven */
    char gpu[40];                /* class by the proven numbers; "": none is near */
    struct proven proven;
    double class_vram_gib;      /* of the class's datasheet; 0: unknown */
    double ratio;               /* the worst rate against the class's reference */
    double performance;         /* share of the proven class's datasheet, (0, 1]; 1: unknown */
    double claimed_performance; /* share of the claimed class's datasheet, (0, 1]; 1: unknown */
    char driver[32];
    char worker_key[65], exchange_key[65]; /* Ed25519, X25519 */
    char chain_root[65];                   /* what secrets for it are sealed with */
    char uuid_sha256[65];                  /* identity_digest() of the device */
    char receipt_sha256[65];               /* of its newest receipt, the next one's "previous"; "": none */
};

/* A stored worker; texts owned by the record. */
struct worker_record {
    char id[ID_TEXT_MAX];
    char secret_sha256[65]; /* hex */
    char name[64], supplier[64], gpu[40], gpu_raw[64], region[32], tags[256];
    uint32_t gpus, slots;
    int64_t price_usd_nano;
    uint64_t vram_bytes;
    int64_t enrolled_at_ms;
    char lease[WORKER_LEASE_MAX]; /* "<lease id>.<attempt>" that it was made for, by its enrolment; "": none */
    struct admission admission;
    struct reputation reputation;
    int64_t earned_usd_nano; /* decayed as of reputation.at_ms: see exposure.h */
    struct worker_proof proof;
};

typedef void worker_stored_fn(void *ctx, enum error error);
typedef void worker_record_fn(void *ctx, enum error error, const struct worker_record *record); /* borrowed */

/* Writes a new worker, or an existing one's declared fields (name ... price); appends to the feed. */
MUST_CHECK enum error worker_store_put(struct redis *redis, const struct worker_record *record, worker_stored_fn *done,
                                       void *ctx);
/* The like, of one that must be there: ERR_NOT_FOUND when it was removed meanwhile. */
MUST_CHECK enum error worker_store_redeclare(struct redis *redis, const struct worker_record *record,
                                             worker_stored_fn *done, void *ctx);
MUST_CHECK enum error worker_store_get(struct redis *redis, struct str id, worker_record_fn *done, void *ctx);
/* Stores an admission change if the stored fencing token is still expect_token (else ERR_MISMATCH: another gateway was
 * faster; its change comes by the feed). Claims for probing go the same way. */
MUST_CHECK enum error worker_store_admit(struct redis *redis, struct str id, uint64_t expect_token,
                                         const struct admission *admission, worker_stored_fn *done, void *ctx);
/* As worker_store_admit, with what else came of a proof in the same step. proof: the new summary (its receipt_sha256
 * does not count), or NULL: the old one stays. receipts: signed JSON, at most WORKER_RECEIPTS_MAX, each naming the one
 * before it; the last one's SHA-256 becomes the record's proof.receipt_sha256. previous: what the first names, the
 * record's proof.receipt_sha256; if the stored one is another, nothing is stored: ERR_MISMATCH, as with the token.
 * proof_store.h reads receipts. */
#define WORKER_RECEIPTS_MAX 16 /* one a device */
struct worker_verdict {
    const struct admission *admission;
    const struct worker_proof *proof;
    struct str previous;
    const struct str *receipts;
    size_t receipt_count;
};
MUST_CHECK enum error worker_store_prove(struct redis *redis, struct str id, uint64_t expect_token,
                                         const struct worker_verdict *verdict, worker_stored_fn *done, void *ctx);
/* Adds evidence to the reputation, decayed to now (atomic in Redis, by Redis' clock); appends to the feed at most once
 * a second a worker. */
MUST_CHECK enum error worker_store_reputation(struct redis *redis, struct str id,
                                              const struct reputation_evidence *evidence, worker_stored_fn *done,
                                              void *ctx);
/* The same for calls: by payer those that ended well, and how many the worker failed. No payer's share of what calls
 * and proofs give to availability passes a quarter of it. Values add to what the worker earned. */
MUST_CHECK enum error worker_store_count(struct redis *redis, struct str id, const struct worker_payment *payments,
                                         size_t payment_count, uint64_t failed, worker_stored_fn *done, void *ctx);
/* Raises bad counts to at least these: what another worker of the same identity has done (identity_store.h). */
MUST_CHECK enum error worker_store_inherit(struct redis *redis, struct str id, const double bad[REPUTATION_DIMENSIONS],
                                           worker_stored_fn *done, void *ctx);
/* Forgets the worker; its receipts stay for WORKER_RECEIPTS_KEEP_S. Harmless when there is none. */
#define WORKER_RECEIPTS_KEEP_S 604800
MUST_CHECK enum error worker_store_remove(struct redis *redis, struct str id, worker_stored_fn *done, void *ctx);
/* Every stored worker, each by on_record with ERR_NONE, then once with record NULL and the final error. */
MUST_CHECK enum error worker_store_all(struct redis *redis, worker_record_fn *on_record, void *ctx);

/* The feed of changes, key "sl:feed" (a stream, MAXLEN ~ 10,000), shared by all stores: field "kind" (worker, key,
 * tenant, gateway, ...) and "id". Scripts append to it by XADD in a call of their own after the change. */
MUST_CHECK enum error feed_append(struct redis *redis, const char *kind, struct str id);

#endif
