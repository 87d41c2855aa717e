/* Enrolment tokens: with one, any number of workers of a supplier may register, until it expires or is deleted. Only
 * the SHA-256 of a token is stored. All calls are asynchronous: done is called once, in a coming turn. */
#ifndef SLUICE_GATEWAY_ENROLMENT_H
#define SLUICE_GATEWAY_ENROLMENT_H

#include "core/crypto.h"
#include "core/id.h"
#include "core/redis.h"
#include <jansson.h>

#define ENROLMENT_TOKEN_PREFIX "slw-"
#define ENROLMENT_ID_PREFIX "enr_"
#define ENROLMENT_SUPPLIER_MAX 64 /* bytes with NUL */

struct enrolment {
    char id[ID_TEXT_MAX];
    char supplier[ENROLMENT_SUPPLIER_MAX];
    int64_t created_at_ms, expires_at_ms; /* 0: never */
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
/* Those that are not deleted, oldest first, as JSON objects: id, supplier, created_at, expires_at. */
MUST_CHECK enum error enrolment_list(struct redis *redis, enrolment_list_fn *done, void *ctx);

#endif
