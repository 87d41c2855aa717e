/* The workers that this process knows: what Redis holds of them, and what their links tell. Plain data without I/O;
 * the control thread's own. */
#ifndef SLUICE_GATEWAY_REGISTRY_H
#define SLUICE_GATEWAY_REGISTRY_H

#include "adapters/native/hub.h"
#include "gateway/settings.h"
#include "scheduler/market.h"
#include "scheduler/worker_store.h"
#include <jansson.h>

#define REGISTRY_UNLINKED_NS (5 * INT64_C(1000000000)) /* without a link for longer: no longer served here */

struct registry;
struct probe_run; /* control_probe.c */

struct registry_entry {
    struct worker *worker; /* a reference */
    struct worker_record record;
    uint32_t pass;        /* the full read that met it last */
    unsigned links;       /* open ones, over all reactors */
    uint8_t *links_of;    /* by reactor */
    int64_t unlinked_ns;  /* when the last link went; 0: never had one */
    bool is_models_known; /* told by a status, or by the store of models */
    struct str *models;   /* one allocation with their texts */
    size_t model_count;
    bool is_models_stored; /* in Redis, by this gateway, as they are */
    bool draining;
    bool was_served;             /* in the last list of offers */
    unsigned lost_runs;          /* probes in a row that the worker did not answer in any way */
    uint64_t counted_failed;     /* already told to the reputation */
    bool is_counting;            /* a reputation update is under way */
    bool is_loading, load_again; /* its record is being read */
    struct proven lease_self;    /* what it proved beside a job of its own before, for the next such check */
    enum worker_command command; /* of a lease's worker: its tenant's, as its last status told */
    int exit_code;
    struct probe_run *probe; /* under way; NULL: none */
};

MUST_CHECK enum error registry_open(size_t reactor_count, struct registry **ret);
struct registry *registry_free(struct registry *registry);

size_t registry_count(const struct registry *registry);
struct registry_entry *registry_at(const struct registry *registry, size_t i); /* in order of ids */
struct registry_entry *registry_find(const struct registry *registry, struct str id);

enum registry_change {
    REGISTRY_SAME,
    REGISTRY_SLOW,
    REGISTRY_NOW
}; /* does the market change, and how soon is it due */
/* Takes a copy of the stored record, as a new entry if need be. *ret_entry may be NULL. */
MUST_CHECK enum error registry_put(struct registry *registry, const struct worker_record *record,
                                   enum registry_change *ret_change, struct registry_entry **ret_entry);
/* A full read: entries that were not put between begin and end are no longer stored; each is handed to on_gone (the
 * entry is freed when that returns). */
void registry_pass_begin(struct registry *registry);
void registry_pass_end(struct registry *registry, void (*on_gone)(void *ctx, struct registry_entry *entry), void *ctx);
/* Its record is gone: on_gone, then the entry is freed. */
void registry_remove(struct registry *registry, struct registry_entry *entry,
                     void (*on_gone)(void *ctx, struct registry_entry *entry), void *ctx);
/* Gives back the indexes of workers that are gone and that nobody holds any more. Every second or so. */
void registry_sweep(struct registry *registry);

/* Links and status; true: the market changes. */
bool registry_link(struct registry *registry, struct registry_entry *entry, unsigned reactor, bool is_up,
                   int64_t now_ns);
MUST_CHECK enum error registry_models(struct registry_entry *entry, const struct str *models, size_t count,
                                      bool *ret_changed);

/* Does this gateway offer it to callers? admission: enum settings_probe. */
bool registry_serves(const struct registry_entry *entry, int admission, int64_t now_ns);
/* The offers of those that serve now into offers (room for registry_count); how many. Views live until the registry
 * changes. */
size_t registry_offers(struct registry *registry, const struct settings *settings, int64_t now_ns, int64_t now_ms,
                       struct offer *offers);
/* The row of GET /api/v1/workers: `state` is the admission's, or for an admitted worker that cannot take calls now
 * "offline" or "draining" with the reason. NULL: out of memory. */
json_t *registry_row(const struct registry_entry *entry, int64_t now_ms);

#endif
