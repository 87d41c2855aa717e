/* Idempotency-Key: a request that creates something, sent again with the same key and body, gives the first answer.
 *
 * Each key has a record in Redis with the body's digest, a seed, and later the answer. The object's id is derived from
 * the seed and storing it twice changes nothing, so a crash between claim and answer blocks nobody, and two requests
 * at once create one object: both go on with the same seed. */
#ifndef SLUICE_GATEWAY_IDEMPOTENCY_H
#define SLUICE_GATEWAY_IDEMPOTENCY_H

#include "core/crypto.h"
#include "core/id.h"
#include "core/redis.h"

#define IDEMPOTENCY_KEY_MAX 255 /* bytes of the header */
#define IDEMPOTENCY_ANSWER_MAX ((size_t)65536)
#define IDEMPOTENCY_DAY_MS (INT64_C(24) * 3600 * 1000)        /* creations */
#define IDEMPOTENCY_MONEY_MS (INT64_C(40) * 24 * 3600 * 1000) /* whatever moves money */

/* What identifies a request. */
struct idempotency {
    char record[96];              /* the Redis key: a digest of caller, method, path and Idempotency-Key */
    char body_sha256[SHA256_HEX]; /* of the body as received */
    int64_t keep_ms;
};

/* caller: the tenant's id, or "admin". False: the key is empty or too long. */
MUST_CHECK bool idempotency_make(struct str caller, struct str method, struct str path, struct str key, struct str body,
                                 int64_t keep_ms, struct idempotency *ret);

/* error: ERR_MISMATCH: used with another body. status 0: not answered yet, create from seed; else the first answer
 * (borrowed for the call). */
typedef void idempotency_claimed_fn(void *ctx, enum error error, const struct id *seed, int status, struct str answer);
typedef void idempotency_done_fn(void *ctx, enum error error);

MUST_CHECK enum error idempotency_claim(struct redis *redis, const struct idempotency *what,
                                        idempotency_claimed_fn *done, void *ctx);
/* Stores the answer, without secrets: the first one stays. ERR_TOO_LARGE past IDEMPOTENCY_ANSWER_MAX. */
MUST_CHECK enum error idempotency_complete(struct redis *redis, const struct idempotency *what, const struct id *seed,
                                           int status, struct str answer, idempotency_done_fn *done, void *ctx);
/* The request was refused and changed nothing: its key may be used for another. */
MUST_CHECK enum error idempotency_release(struct redis *redis, const struct idempotency *what, const struct id *seed,
                                          idempotency_done_fn *done, void *ctx);

#endif
