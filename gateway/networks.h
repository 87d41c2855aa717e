/* The networks of the configuration, on the control thread: opened, checked, polled by one gateway each, their offers
 * kept in Redis and here, orphans ended, and what is known of them shown.
 *
 * networks_priv.h names the files. */
#ifndef SLUICE_GATEWAY_NETWORKS_H
#define SLUICE_GATEWAY_NETWORKS_H

#include "adapters/network.h"
#include "gateway/control.h"
#include "scheduler/lease_pick.h"

struct networks;

/* What networks_open would say of the configuration, without a gateway; error says which network. */
MUST_CHECK enum error networks_check(const struct settings *settings, char error[static CONFIG_ERROR_MAX]);
/* Opens every network but `native` ones. ERR_BAD_INPUT: one refuses its configuration (logged with its id). */
MUST_CHECK enum error networks_open(struct control *control, struct redis *redis, struct networks **ret);
/* Resigns as poller, so that another gateway takes over at once. */
void networks_shut(struct networks *networks);
struct networks *networks_free(struct networks *networks);

struct network *networks_find(const struct networks *networks, const char *id); /* NULL: not configured */
struct http_client *networks_http(const struct networks *networks);
/* 6 hex digits; absent until Redis told it: nothing may be created before. */
struct str networks_installation(const struct networks *networks);
/* For lease_policy.terms; ctx is the struct networks. */
struct lease_terms networks_terms(void *ctx, const char *network);

/* The best `most` offers for the request, best first, its constraints (GPU, count, region, network, require,
 * interruptible, offer, price cap with our markup) applied. Texts are copied. How many; *ret_considered: offers of that
 * GPU at all, for the message when there is none. */
size_t networks_candidates(struct networks *networks, const struct lease_request *request, size_t most,
                           struct lease_ranked *ret, size_t *ret_considered);
/* What a lease learned from the network, good or bad: moves the breaker, the counts by error class and the supplier's
 * reputation; NO_CAPACITY and PRICE_MOVED ask for an early poll. */
void networks_note(struct networks *networks, const char *network, const struct lease_candidate *candidate,
                   enum supply_error error, const char *message);

/* The market of foreign offers as it is now: a new reference; NULL before the first. networks may be NULL. */
struct market *networks_market(struct networks *networks);
/* GET /api/v1/networks: DESIGN's fields and more; a new reference; NULL: out of memory. From reactors, asynchronous. */
void networks_json(struct control *control, struct reactor *reactor, void (*done)(void *ctx, json_t *take_list),
                   void *ctx);
/* Their figures for /metrics. networks may be NULL. */
void networks_extra(const struct networks *networks, struct metrics_extra *ret);
/* A lease's own hand ended or adopted what runs under this tag: the reconciler need not wait for its next round. */
void networks_reconcile_soon(struct networks *networks, const char *network);

#endif
