/* Tenants and API keys in Redis: one hash each of JSON by id, a version that counts changes and a log of ids by the
 * version that changed them last, so that a gateway reads only what is new to it (keyring_follow.c).
 * All calls are asynchronous; done is called once, in a coming turn. */
#ifndef SLUICE_GATEWAY_KEYRING_STORE_H
#define SLUICE_GATEWAY_KEYRING_STORE_H

#include "core/redis.h"
#include <jansson.h>

#define KEYRING_TENANTS "sl:{keyring}:tenants"
#define KEYRING_KEYS "sl:{keyring}:keys"
#define KEYRING_LOG "sl:{keyring}:log"
#define KEYRING_VERSION "sl:{keyring}:version"

/* take_object: what is stored now (a new reference; NULL on error). is_new: by this call; false: it was there. */
typedef void keyring_put_fn(void *ctx, enum error error, json_t *take_object, bool is_new);
/* ERR_NOT_FOUND: no such tenant or key. */
typedef void keyring_done_fn(void *ctx, enum error error);
typedef void keyring_list_fn(void *ctx, enum error error, json_t *take_array);

/* Both store an object with its "id" once: the same id again changes nothing and answers what is stored. */
MUST_CHECK enum error keyring_put_tenant(struct redis *redis, const json_t *object, keyring_put_fn *done, void *ctx);
/* ERR_NOT_FOUND: no such tenant; ERR_MISMATCH: the id was stored and is deleted. Tells the feed. */
MUST_CHECK enum error keyring_put_key(struct redis *redis, const json_t *object, keyring_put_fn *done, void *ctx);
/* Harmless when it is deleted already. Tells the feed. */
MUST_CHECK enum error keyring_delete_key(struct redis *redis, struct str id, keyring_done_fn *done, void *ctx);
MUST_CHECK enum error keyring_has_tenant(struct redis *redis, struct str tenant, keyring_done_fn *done, void *ctx);
/* All of them, in no order; keys without their digests. */
MUST_CHECK enum error keyring_list_tenants(struct redis *redis, keyring_list_fn *done, void *ctx);
MUST_CHECK enum error keyring_list_keys(struct redis *redis, keyring_list_fn *done, void *ctx);

/* -- the stored form of a key -- */
struct api_key;
struct keyring_key_text { /* what the parsed key's views and pointers point into */
    json_t *object;
    struct str *models;
};
/* Parses the stored JSON into the plain fields of *ret (credits NULL) and the budget; keyring_key_text_free after. */
MUST_CHECK bool keyring_key_parse(struct str json, struct api_key *ret, int64_t *ret_budget_usd_nano,
                                  const char **ret_budget_period, struct keyring_key_text *ret_text);
void keyring_key_text_free(struct keyring_key_text *text);

#endif
