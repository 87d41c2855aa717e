/* What is remembered of machines and keys, whatever name they enrol under: bad counts and bans, so that a bad name is
 * not washed off by taking a new one; and how many newcomers an address block may bring.
 *
 * Keys in Redis, all of one slot: hash "sl:{ident}:<digest>" of each identity that has something against it (gone after
 * a year without news), hash "sl:{ident}bans" and sorted set "sl:{ident}due" of the bans that last,
 * "sl:{ident}new:h:<block>" and ":d:" for the counters, ":w:<worker>" for who was counted. */
#ifndef SLUICE_SCHEDULER_IDENTITY_STORE_H
#define SLUICE_SCHEDULER_IDENTITY_STORE_H

#include "core/id.h"
#include "core/redis.h"
#include "scheduler/reputation.h"

#define IDENTITY_DIGEST_MAX 65
#define IDENTITIES_MAX 40                                /* of one worker: its devices, its key, its machine */
#define IDENTITY_BAN_MS (INT64_C(30) * 24 * 3600 * 1000) /* the first one; each next one lasts twice as long */
#define IDENTITY_BAN_DOUBLINGS 6
#define IDENTITY_BANS_LISTED_MAX 1000
#define NEWCOMERS_PER_HOUR 32 /* of an address block */
#define NEWCOMERS_PER_DAY 128

enum identity_kind {
    IDENTITY_UUID, /* a device's */
    IDENTITY_KEY,  /* the worker's Ed25519 key */
    IDENTITY_HOST, /* a machine's: remembered but never banned, for clones of one image may share it */
};
struct identity {
    enum identity_kind kind;
    char digest[IDENTITY_DIGEST_MAX]; /* SHA-256 in hex */
};
void identity_digest(enum identity_kind kind, struct str value, char ret[static IDENTITY_DIGEST_MAX]);

/* The worst that is known of any of the identities. */
struct identity_memory {
    double bad[REPUTATION_DIMENSIONS]; /* decayed to now */
    uint32_t bans;                     /* so far */
    int64_t banned_until_ms;           /* 0, or past: not banned */
    char reason[96];                   /* of the ban; "" */
};
typedef void identity_memory_fn(void *ctx, enum error error, const struct identity_memory *memory); /* borrowed */

/* After HELLO: what is known of these (1 .. IDENTITIES_MAX). Give bad to worker_store_inherit, bans to the admission.
 * Reads only. */
MUST_CHECK enum error identity_store_learn(struct redis *redis, const struct identity *identities, size_t count,
                                           identity_memory_fn *done, void *ctx);
/* Adds the evidence's bad counts to each of them. ban_reason: NULL, or why keys and devices among them are banned from
 * now on: 30 days, doubled for each earlier ban of any of them. worker: its id, for the list of bans. What is then
 * known comes back. */
MUST_CHECK enum error identity_store_fail(struct redis *redis, const struct identity *identities, size_t count,
                                          const struct reputation_evidence *evidence, const char *ban_reason,
                                          struct str worker, identity_memory_fn *done, void *ctx);

struct identity_ban {
    char digest[IDENTITY_DIGEST_MAX];
    enum identity_kind kind;
    char worker[ID_TEXT_MAX], reason[96];
    int64_t at_ms, until_ms;
    uint32_t bans;
};
typedef void identity_bans_fn(void *ctx, enum error error, const struct identity_ban *bans, size_t count);
/* The bans that last now, those that end first in front; at most IDENTITY_BANS_LISTED_MAX. */
MUST_CHECK enum error identity_store_bans(struct redis *redis, identity_bans_fn *done, void *ctx);

/* An operator's pardon: forgets all that is held against these digests and ends their bans. *found: how many had
 * something. The admission of their workers is lifted apart. */
typedef void identity_lifted_fn(void *ctx, enum error error, unsigned found);
MUST_CHECK enum error identity_store_lift(struct redis *redis, const struct identity *identities, size_t count,
                                          identity_lifted_fn *done, void *ctx);

/* Takes one of the admissions that an address block (worker.h, not 0) has in an hour and in a day; a worker that asks
 * again within the day has it already. is_granted false: none is left, again after retry_after_ms;
 * IDENTITY_BLOCK_FULL is what the worker is told. */
#define IDENTITY_BLOCK_FULL "too many new workers from this address block"
typedef void identity_slot_fn(void *ctx, enum error error, bool is_granted, int64_t retry_after_ms);
MUST_CHECK enum error identity_store_newcomer(struct redis *redis, uint64_t block, struct str worker,
                                              identity_slot_fn *done, void *ctx);

#endif
