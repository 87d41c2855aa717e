/* Of the files of the control thread: control.c (opening, ticks, closing), control_feed.c (following Redis),
 * control_links.c (what reactors tell), control_models.c (what workers serve, for the next start), control_probe.c
 * (admission), control_market.c (snapshots), control_views.c (what handlers ask). Everything here belongs to the
 * control thread, except where said. */
#ifndef SLUICE_GATEWAY_CONTROL_PRIV_H
#define SLUICE_GATEWAY_CONTROL_PRIV_H

#include "gateway/control.h"
#include "gateway/gateways.h"
#include "gateway/registry.h"
#include "gateway/verify_pool.h"
#include "core/tls.h"
#include "probes/catalogue.h"
#include "probes/chain_pool.h"
#include "probes/identity.h"

#include <stdatomic.h>

#define CONTROL_FEED_ID_MAX 48
#define WORKER_ID_PREFIX "wrk_"

struct control_feed {
    struct redis *redis;
    struct timer retry;
    char last_id[CONTROL_FEED_ID_MAX]; /* "": to be asked for */
    bool is_asking;
    bool is_reading_all, read_all_again;
    bool has_failed;        /* the last full read */
    unsigned unknown_loads; /* workers asked for that are not in the registry */
};

/* By worker index, a digest of the last status told. Belongs to the reactor's thread. */
struct control_told {
    uint64_t *digests;
    size_t count;
};

struct lease_driver;
struct networks;

struct control {
    struct gateway *gateway;
    struct loop *loop;
    struct redis *redis;    /* its own */
    struct redis *settling; /* borrowed */
    const struct settings *settings;
    struct registry *registry;
    struct control_told *told; /* by reactor */
    struct control_feed feed;
    struct timer tick;
    uint64_t ticks;
    bool is_shut;
    unsigned closing;   /* questions of control_shut that are open */
    unsigned door_open; /* questions of door.c */
    struct door_closing *door_closing;

    struct verify_pool *pool;
    struct chain_pool *chain_pool;
    struct catalogue *catalogue;
    struct signing_key *proof_key; /* of receipts */
    int64_t proofs[METRICS_PROOF_RESULTS], proof_cpu_ns;
    struct probe_run *runs; /* all that are under way */
    unsigned run_count;

    struct market *market; /* NULL before the first is built */
    struct model_alias *aliases;
    struct keyring *keyring;
    struct timer publish;
    int64_t built_ns; /* when the last snapshot went out */
    bool has_workers; /* all were read at least once, and what they serve */
    bool is_market_due;

    struct keyring_store *keyring_store;
    struct credit_gate *credit_gate;

    struct networks *networks;
    struct lease_driver *leases;

    struct hub *hub;
    struct hub_reactor **hubs; /* by reactor; the hub borrows them */
    struct loop **loops;
    SSL_CTX *tls;
    struct gateway_address self;
    struct buf gateways; /* the list as the reactors know it */
    unsigned signs;      /* in a row */
    bool is_signing, is_told;

    /* read by any thread */
    atomic_bool is_connected, is_published;
    atomic_llong answered_ns; /* when Redis last answered a sign */
};

/* -- control.c -- */
/* Tells the other gateways that this one is there, and asks for their list. */
void control_sign(struct control *control);

/* -- door.c -- */
void door_shut(struct control *control); /* ends what waits for another try */

/* -- control_feed.c -- */
MUST_CHECK enum error control_feed_open(struct control *control, const char *redis_url);
void control_feed_close(struct control *control);
/* Reads the worker's record again, soon. */
void control_load_worker(struct control *control, struct str id);
void control_read_all(struct control *control);

/* -- control_links.c -- */
struct worker *control_find(void *ctx, struct str worker_id, uint8_t ret_secret_sha256[SHA256_BYTES]);
/* Posts hub_drop of a worker that is gone to all reactors. */
void control_drop(struct control *control, struct worker *worker);
/* Posts the list of gateways to all reactors. False: out of memory, try again. */
bool control_tell_gateways(struct control *control, struct str json);

/* -- control_probe.c -- */
/* One that has a link to the worker; NULL: none. */
struct reactor *control_linked_reactor(const struct control *control, const struct registry_entry *entry);
/* A link came up or time passed: probes the worker if that is due. */
void control_consider(struct control *control, struct registry_entry *entry, enum admission_event event);
void control_runs_free(struct control *control);
/* Its tenant's command has started: nobody disturbs it with challenges. */
bool control_is_leased_out(const struct registry_entry *entry);
uint32_t control_gateway_hash(const struct control *control); /* not 0 */
struct admission_policy control_admission_policy(const struct control *control);
uint64_t control_fresh_bits(void);
void control_forget(void *ctx, enum error error); /* a worker_stored_fn for what may fail without harm */

/* -- control_fleet.c -- */
/* Now and then: what devices of a class reach becomes what is expected of one. */
void control_fleet(struct control *control);

/* -- control_models.c -- */
/* After a full read of the workers; the first one completes what the first snapshot needs. */
void control_models_read(struct control *control);
/* Stores, or forgets, what the worker serves, when that has changed. */
void control_models_sync(struct control *control, struct registry_entry *entry);
void control_models_forget(struct control *control, struct registry_entry *entry);

/* -- control_market.c -- */
/* Builds and publishes within 50 ms, or, when it is not urgent, within seconds. */
void control_market_changed(struct control *control, bool is_urgent);
void control_keyring_changed(void *ctx, struct keyring *keyring);
void control_foreign_changed(struct control *control); /* the market of other networks' offers is a new one */
void control_publish_init(struct control *control);
/* Is the worker served (or not) unlike in the last market? */
void control_market_check(struct control *control, struct registry_entry *entry);

#endif
