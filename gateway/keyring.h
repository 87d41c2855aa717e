/* API keys as the request path sees them: an immutable table by SHA-256, part of the snapshot, plus the counters of
 * each key (rate, concurrency) that live on across snapshots. */
#ifndef SLUICE_GATEWAY_KEYRING_H
#define SLUICE_GATEWAY_KEYRING_H

#include "core/crypto.h"
#include "pricing/credit.h"

#define KEY_NAME_MAX 260 /* bytes with NUL: at most 64 characters */
#define KEY_RPM_MAX 1000000

/* Counters of one key; atomics, shared by all threads and snapshots, reference-counted inside. Limits hold for this
 * gateway process. */
struct key_limits;

/* Immutable once in a keyring. */
struct api_key {
    char id[ID_TEXT_MAX], tenant[ID_TEXT_MAX], name[KEY_NAME_MAX];
    uint8_t sha256[SHA256_BYTES];
    int64_t expires_at_ms;        /* 0: never */
    int32_t rpm, max_concurrency; /* 0: no limit */
    const struct str *models;     /* allow-list */
    size_t model_count;
    bool has_models; /* false: all models; true with an empty list allows nothing */
    struct key_limits *limits;
    struct credit *balance; /* the tenant's */
    struct credit *budget;  /* NULL: no budget */
    atomic_uint refs;       /* of keyring.c */
};

/* Copies fields and models; takes references of its own to the credits; makes new limits (limits and refs of *fields
 * are ignored). NULL: out of memory. */
struct api_key *api_key_new(const struct api_key *fields);
struct api_key *api_key_ref(struct api_key *key);
struct api_key *api_key_unref(struct api_key *key); /* returns NULL */
bool api_key_allows_model(const struct api_key *key, struct str model);

struct keyring; /* atomically reference-counted */
/* Takes a reference of its own to each key. NULL: out of memory. */
struct keyring *keyring_new(struct api_key *const *keys, size_t count);
struct keyring *keyring_ref(struct keyring *keyring);
struct keyring *keyring_unref(struct keyring *keyring); /* accepts NULL; returns NULL */
size_t keyring_count(const struct keyring *keyring);

/* The key of a presented secret, or NULL (unknown or revoked). Expiry is the caller's to check. */
const struct api_key *keyring_find(const struct keyring *keyring, struct str secret);

/* One call in: false: max_concurrency calls run. A true is matched by exactly one key_concurrency_leave with
 * key->limits, which may come after the key was revoked. */
MUST_CHECK bool key_concurrency_enter(const struct api_key *key);
void key_concurrency_leave(struct key_limits *limits);
/* One call of the key's `rpm` in any 60 s. False: over the limit, *ret_retry_ms in 1..60000. *ret_left: calls that
 * could come now after this one (-1: no limit); *ret_reset_ms: when all are there again. */
MUST_CHECK bool key_rate_take(const struct api_key *key, int64_t now_ns, int64_t *ret_retry_ms, int64_t *ret_left,
                              int64_t *ret_reset_ms);
/* A duration as the x-ratelimit-reset-* headers write it: "12ms", "1.5s", "6m0s". */
#define DURATION_TEXT_MAX 32
void ratelimit_duration_text(int64_t span_ms, char ret[static DURATION_TEXT_MAX]);

/* -- control thread: the store behind it (keyring_store.c, *.lua) -- */
struct keyring_store;
/* Reads all keys and tenants, then follows changes told by keyring_store_changed; each new table goes to on_keyring
 * (a new reference). */
MUST_CHECK enum error keyring_store_open(struct loop *loop, struct redis *redis,
                                         void (*on_keyring)(void *ctx, struct keyring *keyring), void *ctx,
                                         struct keyring_store **ret);
struct keyring_store *keyring_store_free(struct keyring_store *store);
/* The feed told of a change (kind "key" or "tenant"); id names what. "" with kind "all": read everything again. */
void keyring_store_changed(struct keyring_store *store, struct str kind, struct str id);
/* For keep-alive and give-back: calls each(ctx, credit) for every credit in use. */
void keyring_store_each_credit(struct keyring_store *store, void (*each)(void *ctx, struct credit *credit), void *ctx);

#endif
