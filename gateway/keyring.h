/* API keys as the request path sees them: an immutable table by SHA-256, part of the snapshot, plus the counters of
 * each key (rate, concurrency) that live on across snapshots. */
#ifndef SLUICE_GATEWAY_KEYRING_H
#define SLUICE_GATEWAY_KEYRING_H

#include "core/crypto.h"
#include "pricing/credit.h"

/* Shared by all threads and snapshots; atomics; reference-counted. Limits hold for this gateway process. */
struct key_limits {
    atomic_uint refs;
    atomic_int running;           /* calls in flight with this key */
    atomic_llong window_start_ns; /* of the request window (a sliding or token scheme, see keyring.c) */
    atomic_llong window_count;
};

struct api_key {
    char id[ID_TEXT_MAX], tenant[ID_TEXT_MAX], name[64];
    uint8_t sha256[SHA256_BYTES];
    int64_t expires_at_ms;        /* 0: never */
    int32_t rpm, max_concurrency; /* 0: no limit */
    const struct str *models;     /* allow-list; none: all */
    size_t model_count;
    bool has_models; /* an empty list allows nothing */
    struct key_limits *limits;
    struct credit *balance; /* the tenant's */
    struct credit *budget;  /* NULL: no budget */
};

struct keyring; /* atomically reference-counted */
struct keyring *keyring_ref(struct keyring *keyring);
struct keyring *keyring_unref(struct keyring *keyring);

/* The key of a presented secret, or NULL (unknown or revoked). Expiry is the caller's to check. */
const struct api_key *keyring_find(const struct keyring *keyring, struct str secret);
/* The tenant's credit, whatever key; NULL when the tenant has no key here. */
bool api_key_allows_model(const struct api_key *key, struct str model);

/* One call in: false = over the limit, *ret_retry_ms in 1..60000. A true is matched by one key_concurrency_leave. */
MUST_CHECK bool key_concurrency_enter(const struct api_key *key);
void key_concurrency_leave(struct key_limits *limits);
MUST_CHECK bool key_rate_take(const struct api_key *key, int64_t now_ns, int64_t *ret_retry_ms, int64_t *ret_left,
                              int64_t *ret_reset_ms);

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
