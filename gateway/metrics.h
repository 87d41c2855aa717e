/* Counters, gauges and histograms. Each reactor writes its own set without locks; a scrape sums them. */
#ifndef SLUICE_GATEWAY_METRICS_H
#define SLUICE_GATEWAY_METRICS_H

#include "core/str.h"
#include "scheduler/supply.h"

enum metric_histogram {
    METRIC_ADDED_LATENCY,
    METRIC_FIRST_TOKEN,
    METRIC_QUEUE_WAIT,
    METRIC_UPSTREAM_TIME,
    METRIC_HISTOGRAM_COUNT
};
enum metric_counter {
    METRIC_RETRIES, /* attempts beyond the first */
    METRIC_EJECTIONS,
    METRIC_CANCELLED, /* calls whose caller hung up */
    METRIC_BROKEN_STREAMS,
    METRIC_QUEUED, /* calls that had to wait for a slot */
    METRIC_PROMPT_TOKENS,
    METRIC_COMPLETION_TOKENS,
    METRIC_GPU_MS,
    METRIC_BILLED_USD_NANO,
    METRIC_LOSS_USD_NANO,
    METRIC_CHECKS_AGREED, /* of answers, by result */
    METRIC_CHECKS_ORIGINAL_WRONG,
    METRIC_CHECKS_PEER_WRONG,
    METRIC_CHECKS_INCONCLUSIVE,
    METRIC_REFUNDS,
    METRIC_COUNTER_COUNT
};
enum metric_gauge {
    METRIC_CALLS_RUNNING,
    METRIC_CALLS_QUEUED,
    METRIC_CONNECTIONS,
    METRIC_CHECKS_RUNNING,
    METRIC_GAUGE_COUNT
};

struct metrics; /* one a reactor or the control thread; written by its thread only (relaxed atomics), read by any */
struct metrics *metrics_new(void);
struct metrics *metrics_free(struct metrics *metrics);

void metrics_count(struct metrics *metrics, enum metric_counter counter, int64_t by);
void metrics_gauge_add(struct metrics *metrics, enum metric_gauge gauge, int64_t by);
int64_t metrics_gauge(const struct metrics *metrics, enum metric_gauge gauge); /* from any thread */
/* sluice_requests_total{status,model,network}: model and network "" when none; at most 512 models a gateway, more are
 * counted as "other". No allocation once a model was seen. Give only names of models that are served: a name that a
 * caller made up would take a place. */
void metrics_request(struct metrics *metrics, int status, struct str model, struct str network);
/* Histograms by model and network, in seconds from nanoseconds. */
void metrics_observe(struct metrics *metrics, enum metric_histogram histogram, struct str model, struct str network,
                     int64_t span_ns);

#define METRICS_PROOF_RESULTS 5
#define METRICS_NETWORKS_MAX 64
struct metrics_network {
    char id[24];
    int64_t offers, is_up, orphans_ended, unknown_gpus;
    int64_t errors[SUPPLY_ERROR_COUNT]; /* that this gateway met */
};
struct metrics_extra {                     /* what is not a per-reactor number; from the control thread */
    int64_t workers_by_state[4];           /* enum admission_state */
    int64_t proofs[METRICS_PROOF_RESULTS]; /* of devices, by enum verify_result - 1 */
    int64_t proof_cpu_ns, prepare_cpu_ns, prepared;
    int64_t redis_connected, journal_pending, credit_held_usd_nano;
    int64_t loop_lag_ns[64];
    size_t reactor_count;
    struct metrics_network networks[METRICS_NETWORKS_MAX];
    size_t network_count;
};
/* Appends those of networks (metrics_networks.c). */
MUST_CHECK bool metrics_render_networks(const struct metrics_extra *extra, struct buf *to);
/* Prometheus text format of the sum of all sets. False: out of memory, *ret_text as it was. */
MUST_CHECK bool metrics_render(struct metrics *const *sets, size_t count, const struct metrics_extra *extra,
                               struct buf *ret_text);

/* The same, summed up over models and networks, for people. Quantiles are interpolated within buckets. */
struct metrics_totals {
    int64_t requests;
    int64_t by_class[6]; /* [2]: 2xx ...; [0]: other */
    int64_t counters[METRIC_COUNTER_COUNT], gauges[METRIC_GAUGE_COUNT];
    double p50_ns[METRIC_HISTOGRAM_COUNT], p99_ns[METRIC_HISTOGRAM_COUNT];
};
MUST_CHECK bool metrics_totals(struct metrics *const *sets, size_t count, struct metrics_totals *ret);

#endif
