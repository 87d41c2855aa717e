/* An opened network: its configuration over its adapter, and the calls that may be made of it. Belongs to one loop.
 *
 * Every call completes exactly once, in a coming turn, by its deadline, whatever the network does. Results are borrowed
 * for the callback. */
#ifndef SLUICE_ADAPTERS_NETWORK_H
#define SLUICE_ADAPTERS_NETWORK_H

#include "adapters/adapter.h"
#include "core/config.h"
#include "pricing/rates.h"

#define NETWORK_ID_MAX 24    /* of the configuration, with NUL */
#define NETWORK_CALLS_MAX 64 /* waiting or under way; more: SUPPLY_RATE_LIMITED */
#define NETWORK_OFFERS_MAX 200000

struct network_options {
    struct loop *loop;
    struct http_client *http; /* of that loop; outlives the network */
    const struct adapter *adapter;
    const char *id, *base_url;                     /* base_url "": the adapter's */
    const struct config_map *credential, *options; /* borrowed for the network's life */
    struct rates *rates;                           /* borrowed; adapters may add to it */
    struct str installation;                       /* 6 hex digits */
};
/* ERR_BAD_INPUT: the configuration; a line for people into error (CONFIG_ERROR_MAX bytes). */
MUST_CHECK enum error network_open(const struct network_options *options, struct network **ret, char *error);
struct network *network_free(struct network *network); /* open calls complete with SUPPLY_TRANSIENT "closed" inside */
struct str network_id(const struct network *network);
/* How long its listings may lag: the adapter's settle_ms, or as configured. */
int64_t network_settle_ms(const struct network *network);
int64_t network_boot_ms(const struct network *network); /* likewise: the hard limit from create to running; 0: 20 min */

struct network_result {
    enum supply_error error;
    bool is_uncertain;                /* CREATE: it may have been made all the same: list by tag before the next try */
    int64_t retry_after_ms;           /* RATE_LIMITED and TRANSIENT: as the network told; 0: it did not */
    int http_status;                  /* of the last answer; 0: none */
    char message[SUPPLY_MESSAGE_MAX]; /* which network, what it answered, for people; "" when ok */
    struct str leftover;              /* CREATE that failed: this instance must be ended; absent: none */
    const struct supply_instance *instance; /* DESCRIBE, CREATE; else NULL */
    size_t count;                           /* offers or instances that came */
    size_t unknown_gpus, unpriced;          /* OFFERS: dropped or marked */
};
typedef void network_done_fn(void *ctx, const struct network_result *result);

/* An offer, normalised. */
struct network_offer {
    struct str id, gpu_raw, region, country, zone, machine, origin, tags;
    char gpu[40]; /* canonical; "" unknown */
    bool is_slice, interruptible, is_estimate, is_arm;
    uint32_t gpus, fraction_ppm, available;
    uint64_t vram_bytes;    /* of the name where the network does not tell; 0: unknown */
    int64_t price_usd_nano; /* per GPU-hour, the network's own, without our markup */
    struct str terms;       /* raw terms as JSON */
    double reliability;     /* -1: not told */
    int64_t span_min_s, span_max_s;
};
/* is_whole offers only with a price are handed out; those with an unknown GPU too (gpu ""). */
typedef void network_offers_fn(void *ctx, const struct network_offer *offers, size_t count);
typedef void network_instances_fn(void *ctx, const struct supply_instance *instances, size_t count);
typedef void network_logs_fn(void *ctx, struct str bytes);

/* Each gives the call, to cancel it (NULL never: out of memory completes with SUPPLY_TRANSIENT). */
struct adapter_call *network_check(struct network *network, network_done_fn *done, void *ctx);
struct adapter_call *network_offers(struct network *network, network_offers_fn *on_offers, network_done_fn *done,
                                    void *ctx);
struct adapter_call *network_create(struct network *network, const struct supply_order *order, network_done_fn *done,
                                    void *ctx); /* order is copied */
/* tag: of the instance, where it is known (some networks find by it); may be absent. */
struct adapter_call *network_describe(struct network *network, struct str instance, struct str tag,
                                      network_done_fn *done, void *ctx);
/* Instances whose tag is not of this installation are not handed out. */
struct adapter_call *network_list(struct network *network, network_instances_fn *on_instances, network_done_fn *done,
                                  void *ctx);
/* from: bytes the asker has had; on_logs gets what comes after. */
struct adapter_call *network_logs(struct network *network, struct str instance, struct str tag, int64_t from,
                                  network_logs_fn *on_logs, network_done_fn *done, void *ctx);
struct adapter_call *network_stop(struct network *network, struct str instance, struct str tag, network_done_fn *done,
                                  void *ctx);
/* SUPPLY_OK: the network said that it is ended (look again: some lie). SUPPLY_NOT_FOUND counts as SUPPLY_OK. */
struct adapter_call *network_terminate(struct network *network, struct str instance, struct str tag,
                                       network_done_fn *done, void *ctx);
void network_cancel(struct adapter_call *call); /* no completion any more; the answer, if one comes, is lost */

#endif
