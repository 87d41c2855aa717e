/* What this process knows of a worker while it runs: identity, calls in flight, latency, failures.
 *
 * Shared by all threads, atomics only; reference-counted, so that a call in flight may outlive the snapshot that led to
 * it. What rarely changes (price, GPU, region...) is in the market snapshot. */
#ifndef SLUICE_SCHEDULER_WORKER_H
#define SLUICE_SCHEDULER_WORKER_H

#include "core/id.h"
#include <stdatomic.h>
#include <stdint.h>

enum worker_outcome {
    WORKER_DONE,      /* a good answer */
    WORKER_CANCELLED, /* the caller went away: says nothing of the worker */
    WORKER_REFUSED,   /* full or draining (429 of the agent): not a failure; no free slot for a moment */
    WORKER_FAILED,    /* 5xx, broken, no answer, nonsense */
};

#define WORKER_OUTCOMES 10
#define WORKER_PAYERS 8

/* Calls of one tenant that ended well. */
struct worker_payment {
    uint64_t tenant; /* worker_tenant(): a digest of its id, never 0 */
    uint64_t done;
    int64_t value_usd_nano;
};

struct worker {
    char id[ID_TEXT_MAX];
    uint32_t index; /* small, unique among the live workers of this process; for per-thread tables */
    atomic_uint refs;
    atomic_int in_flight; /* calls that this gateway has on it; ends at 0 on every path */
    atomic_int reported;  /* in-flight total that its last status told (all gateways) */
    atomic_int slots;     /* as its last status told */
    atomic_bool draining;
    atomic_bool upstream_ok;
    atomic_llong heard_ns;     /* loop time of its last status on any link; 0: never */
    atomic_llong rtt_ns;       /* probe or status round trip; the latency prior */
    atomic_llong ttfb_ewma_ns; /* peak EWMA of time to first byte; 0: no sample yet */
    atomic_llong ttfb_at_ns;
    atomic_llong ttfb_typical_ns; /* slow geometric mean: what affinity compares */
    atomic_uint ttfb_samples;     /* in ttfb_typical_ns, counted up to its span */
    atomic_llong ended_ns;        /* when a call of ours last ended */
    atomic_llong refused_ns;      /* when it last refused a call as full; 0: never */
    atomic_ullong address_block; /* of its last link: 4 << 56 | IPv4 /24, 6 << 56 | IPv6 /48; 0: loopback or none yet */
    /* ejection (worker.c) */
    atomic_uint failures_in_row;
    atomic_uint outcome_next;
    atomic_llong outcomes[WORKER_OUTCOMES]; /* ring: time of the outcome, lowest bit set when it failed; 0: none */
    atomic_llong ejected_until_ns, ejected_span_ns;
    atomic_ullong done_count, failed_count; /* since start; reputation reads and the metrics show them */
    struct {                                /* what tenants paid since it was last taken */
        atomic_ullong tenant, done;         /* tenant 0: free */
        atomic_llong value_usd_nano;
    } payers[WORKER_PAYERS];
};

struct worker *worker_new(const char *id, uint32_t index); /* one reference; NULL: out of memory */
struct worker *worker_ref(struct worker *worker);
struct worker *worker_unref(struct worker *worker); /* returns NULL */

/* Every worker_begin is matched by exactly one worker_end. */
void worker_begin(struct worker *worker, int64_t now_ns);
void worker_first_byte(struct worker *worker, int64_t now_ns, int64_t took_ns);
/* Returns true when this outcome ejected the worker (for the metric). is_last_replica: never eject. */
bool worker_end(struct worker *worker, int64_t now_ns, enum worker_outcome outcome, bool is_last_replica);

/* What a finished call cost its tenant. While WORKER_PAYERS tenants are noted, the calls of others are not: they count
 * neither for the reputation nor as earnings, until the next take makes room. */
uint64_t worker_tenant(struct str tenant_id);
void worker_paid(struct worker *worker, uint64_t tenant, int64_t value_usd_nano);
/* Hands over what was paid since the last time; how many of ret are filled. One thread takes. */
size_t worker_take_payments(struct worker *worker, struct worker_payment ret[static WORKER_PAYERS]);

bool worker_is_ejected(const struct worker *worker, int64_t now_ns);
/* Share of its normal load that a worker back from ejection may take, (0, 1]; rises over 10 s. */
double worker_ramp(const struct worker *worker, int64_t now_ns);
/* Heard of within 5 s, not draining, its upstream alive. */
bool worker_is_live(const struct worker *worker, int64_t now_ns);
/* Fewer calls of this gateway than slots. What the status reported of all gateways does not count here: it is up to a
 * second old, a gateway that heeded it would starve beside a busy one, and the worker itself holds the cap. */
bool worker_has_free_slot(const struct worker *worker);
/* It refused a call as full a moment ago: dispatch takes it as full for 50 ms. */
bool worker_refused_lately(const struct worker *worker, int64_t now_ns);

/* Expected time to first byte of a call given to it now, without load: the peak EWMA, falling back towards the round
 * trip while nothing is measured. prior_ns stands in while no round trip is known. */
double worker_ttfb_ns(const struct worker *worker, int64_t now_ns, int64_t prior_ns);
/* Calls on it as far as known: ours, or what it reported if that is more and none of ours has ended since. */
int worker_load(const struct worker *worker);
/* The slow mean of the time to first byte; 0 while fewer than three samples back it. */
double worker_typical_ttfb_ns(const struct worker *worker);

/* The block of an address (4 or 16 bytes, network order): what one operator's machines tend to share. */
unsigned long long worker_address_block(const uint8_t *address, bool is_v6);

#endif
