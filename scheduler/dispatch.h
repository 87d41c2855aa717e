/* Choosing a replica for a call, and explaining the choice. Pure: reads the
 * market and the workers' atomics, decides, changes nothing. */
#ifndef SLUICE_SCHEDULER_DISPATCH_H
#define SLUICE_SCHEDULER_DISPATCH_H

#include "scheduler/market.h"

struct weights {
    double price, latency, reputation; /* >= 0, sum 1 */
};

/* "price" | "latency" | "reputation" | "balanced", or "price=0.6,latency=0.3,reputation=0.1" (each at most once, at
 * least one above 0; scaled to sum 1). */
MUST_CHECK bool weights_parse(struct str text, struct weights *ret);
struct weights weights_default(void); /* balanced */

#define DISPATCH_TRIES_MAX 3

struct dispatch_query {
    uint32_t model; /* of the market */
    struct weights weights;
    int64_t max_price_usd_nano; /* -1: any; equal fits */
    struct str region;          /* absent: any; exact, case ignored */
    struct str require;         /* absent: none; comma-separated tags that all must be there, case ignored */
    uint64_t affinity;          /* hash of the session or prefix; 0: none */
    const struct worker *tried[DISPATCH_TRIES_MAX]; /* not again */
    size_t tried_count;
    void *const *links; /* by worker index: non-NULL when this reactor has a link to it; NULL: it has none */
    size_t link_count;
    int64_t now_ns;
    uint64_t random; /* fresh random bits for the two choices */
};

enum dispatch_verdict {
    DISPATCH_CHOSEN,
    DISPATCH_FULL,     /* some fit, but all are full, not linked here yet, ejected or not live: wait */
    DISPATCH_NO_MATCH, /* none fits the caller's constraints */
    DISPATCH_NONE_LEFT /* those that fit have all been tried; on a retry also: the others are ejected or not live */
};

enum dispatch_verdict dispatch_choose(const struct market *market, const struct dispatch_query *query,
                                      uint32_t *ret_row);
/* How many replicas that are live and not ejected fit the constraints (ignoring load, links and tried). 0 or 1: a call
 * on one of them is on a lone replica, which worker_end must not eject. */
size_t dispatch_fitting(const struct market *market, const struct dispatch_query *query);

struct dispatch_candidate {
    uint32_t row;
    double score;                      /* lower is better */
    double price, latency, reputation; /* parts, unweighted, [0, 1] */
    const char *rejected;              /* NULL: a candidate; else the reason ("price above x-sluice-max-price", ...) */
    struct str missing_tag;            /* with "required tag missing": the first one, of the query's text */
};
/* All replicas of the model, candidates best first, then the rejected. At most `max`; returns how many. */
size_t dispatch_explain(const struct market *market, const struct dispatch_query *query, struct dispatch_candidate *ret,
                        size_t max);

#endif
