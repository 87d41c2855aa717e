/* Enrolment tokens: with one, any number of workers of a supplier may register, until it expires or is deleted. One of
 * a lease's attempt is good for one worker, the attempt's own. Only the SHA-256 of a token is stored. All calls are
 * asynchronous: done is called once, in a coming turn. */
#ifndef SLUICE_GATEWAY_ENROLMENT_H
#define SLUICE_GATEWAY_ENROLMENT_H

#include "core/crypto.h"
#include "core/id.h"
#include "core/redis.h"
#include "scheduler/worker_store.h"
#include <jansson.h>

#define ENROLMENT_TOKEN_PREFIX "slw-"
#define ENROLMENT_LEASE_PREFIX "sll-" /* of tokens of leases */
#define ENROLMENT_ID_PREFIX "enr_"
#define ENROLMENT_SUPPLIER_MAX 64 /* bytes with NUL */

struct enrolment {
    char id[ID_TEXT_MAX];
    char supplier[ENROLMENT_SUPPLIER_MAX];
    int64_t created_at_ms, expires_at_ms; /* 0: never */
    char lease[WORKER_LEASE_MAX];         /* "<lease id>.<attempt>", and no id; "": of no lease */
};

/* ERR_EXISTS: the id is stored already (nothing was changed). */
typedef void enrolment_done_fn(void *ctx, enum error error);
/* ERR_NOT_FOUND: no such token, or it has expired. enrolment is borrowed, NULL on error. */
typedef void enrolment_found_fn(void *ctx, enum error error, const struct enrolment *enrolment);
typedef void enrolment_list_fn(void *ctx, enum error error, json_t *take_array);

/* Does it look like a token of ours? Others need no question to Redis. */
bool enrolment_token_is_formed(struct str token);
MUST_CHECK enum error enrolment_put(struct redis *redis, const struct enrolment *enrolment, struct str token,
                                    enrolment_done_fn *done, void *ctx);
/* ERR_NOT_FOUND: there never was one. Again is harmless. */
MUST_CHECK enum error enrolment_delete(struct redis *redis, struct str id, enrolment_done_fn *done, void *ctx);
MUST_CHECK enum error enrolment_find(struct redis *redis, struct str token, enrolment_found_fn *done, void *ctx);
/* Of a lease (enrolment->lease, supplier, expires_at_ms; token in ENROLMENT_LEASE_PREFIX): it goes when it expires, is
 * not listed, and may be put again. enrolment_find finds it. */
MUST_CHECK enum error enrolment_put_lease(struct redis *redis, const struct enrolment *enrolment, struct str token,
                                          enrolment_done_fn *done, void *ctx);
/* Harmless when there is none. */
MUST_CHECK enum error enrolment_delete_lease(struct redis *redis, struct str token, enrolment_done_fn *done, void *ctx);
/* The one worker of a lease's attempt: its id, and the secret that its token makes. */
void enrolment_lease_worker(struct str lease, char ret_id[static ID_TEXT_MAX]);
void enrolment_lease_secret(struct str token, char ret[static SECRET_TEXT_MAX]);
/* Those that are not deleted, oldest first, as JSON objects: id, supplier, created_at, expires_at. */
MUST_CHECK enum error enrolment_list(struct redis *redis, enrolment_list_fn *done, void *ctx);

#endif
