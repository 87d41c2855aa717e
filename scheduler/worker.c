#include "scheduler/worker.h"
#include "core/clock.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HEARTBEAT_MAX_NS (5 * NS_PER_S)
#define FAILURES_IN_ROW 3
#define FAILURES_IN_RING (WORKER_OUTCOMES / 2)
#define RING_SPAN_NS (10 * NS_PER_S)
#define EJECT_MIN_NS (5 * NS_PER_S)
#define EJECT_MAX_NS (60 * NS_PER_S)
/* This long back without another ejection, and the next one starts again at EJECT_MIN_NS. */
#define EJECT_FORGET_NS (60 * NS_PER_S)
#define RAMP_NS (10 * NS_PER_S)
#define RAMP_MIN 0.1
#define REFUSED_PAUSE_NS (50 * NS_PER_MS)
/* Samples pull the EWMA down in 10 s. Without samples it falls more slowly, so that a worker that was slow is tried
 * again about once a minute rather than with every tenth call. */
#define EWMA_SAMPLE_NS (10.0 * (double)NS_PER_S)
#define EWMA_IDLE_NS (60.0 * (double)NS_PER_S)
#define TYPICAL_SAMPLES_MIN 3
#define TYPICAL_SAMPLES_MAX 32
#define PRIOR_NS NS_PER_MS

struct worker *worker_new(const char *id, uint32_t index)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return NULL;
    if (!str_copy(worker->id, sizeof(worker->id), str_of(id))) {
        free(worker);
        return NULL;
    }
    worker->index = index;
    atomic_init(&worker->refs, 1);
    return worker;
}

struct worker *worker_ref(struct worker *worker)
{
    if (worker)
        atomic_fetch_add_explicit(&worker->refs, 1, memory_order_relaxed);
    return worker;
}

struct worker *worker_unref(struct worker *worker)
{
    if (!worker)
        return NULL;
    unsigned before = atomic_fetch_sub_explicit(&worker->refs, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before == 1)
        free(worker);
    return NULL;
}

void worker_begin(struct worker *worker, int64_t now_ns)
{
    (void)now_ns;
    atomic_fetch_add_explicit(&worker->in_flight, 1, memory_order_relaxed);
}

static void note_typical(struct worker *worker, int64_t took_ns)
{
    unsigned samples = atomic_load_explicit(&worker->ttfb_samples, memory_order_relaxed);
    int64_t typical = atomic_load_explicit(&worker->ttfb_typical_ns, memory_order_relaxed);
    if (samples < TYPICAL_SAMPLES_MAX)
        samples++;
    /* A geometric mean: one call a hundred times slower than the rest (a cold start) hardly moves it. */
    if (typical > 0)
        took_ns = (int64_t)((double)typical * exp(log((double)took_ns / (double)typical) / samples));
    /* Threads that meet here lose a sample, which does no harm. */
    atomic_store_explicit(&worker->ttfb_typical_ns, took_ns > 0 ? took_ns : 1, memory_order_relaxed);
    atomic_store_explicit(&worker->ttfb_samples, samples, memory_order_relaxed);
}

void worker_first_byte(struct worker *worker, int64_t now_ns, int64_t took_ns)
{
    if (took_ns < 1)
        took_ns = 1;
    int64_t before = atomic_load_explicit(&worker->ttfb_ewma_ns, memory_order_relaxed);
    int64_t after;
    do {
        int64_t at = atomic_load_explicit(&worker->ttfb_at_ns, memory_order_relaxed);
        after = took_ns;
        if (took_ns < before) {
            double age = now_ns > at ? (double)(now_ns - at) : 0.0;
            double keep = exp(-age / EWMA_SAMPLE_NS);
            after = (int64_t)((double)took_ns + (double)(before - took_ns) * keep);
        }
    } while (!atomic_compare_exchange_weak_explicit(&worker->ttfb_ewma_ns, (long long *)&before, after,
                                                    memory_order_relaxed, memory_order_relaxed));
    atomic_store_explicit(&worker->ttfb_at_ns, now_ns, memory_order_relaxed);
    note_typical(worker, took_ns);
}

double worker_ttfb_ns(const struct worker *worker, int64_t now_ns, int64_t prior_ns)
{
    int64_t rtt = atomic_load_explicit(&worker->rtt_ns, memory_order_relaxed);
    double prior = (double)(rtt > 0 ? rtt : prior_ns > 0 ? prior_ns : PRIOR_NS);
    double ewma = (double)atomic_load_explicit(&worker->ttfb_ewma_ns, memory_order_relaxed);
    if (ewma <= prior)
        return prior;
    int64_t age = now_ns - atomic_load_explicit(&worker->ttfb_at_ns, memory_order_relaxed);
    if (age <= 0)
        return ewma;
    return prior + (ewma - prior) * exp(-(double)age / EWMA_IDLE_NS);
}

double worker_typical_ttfb_ns(const struct worker *worker)
{
    if (atomic_load_explicit(&worker->ttfb_samples, memory_order_relaxed) < TYPICAL_SAMPLES_MIN)
        return 0;
    return (double)atomic_load_explicit(&worker->ttfb_typical_ns, memory_order_relaxed);
}

int worker_load(const struct worker *worker)
{
    int ours = atomic_load_explicit(&worker->in_flight, memory_order_relaxed);
    int all = atomic_load_explicit(&worker->reported, memory_order_relaxed);
    /* An old report counts calls of ours that are over, and would make an idle worker look busy for a second. */
    if (atomic_load_explicit(&worker->ended_ns, memory_order_relaxed) >=
        atomic_load_explicit(&worker->heard_ns, memory_order_relaxed))
        return ours;
    return ours > all ? ours : all;
}

static void forget_outcomes(struct worker *worker)
{
    atomic_store_explicit(&worker->failures_in_row, 0, memory_order_relaxed);
    for (unsigned i = 0; i < WORKER_OUTCOMES; i++)
        atomic_store_explicit(&worker->outcomes[i], 0, memory_order_relaxed);
}

static void note_outcome(struct worker *worker, int64_t now_ns, bool failed)
{
    unsigned at = atomic_fetch_add_explicit(&worker->outcome_next, 1, memory_order_relaxed) % WORKER_OUTCOMES;
    int64_t packed = (int64_t)(((uint64_t)now_ns & ~UINT64_C(1)) | (failed ? 1 : 0));
    atomic_store_explicit(&worker->outcomes[at], packed, memory_order_relaxed);
    if (failed)
        atomic_fetch_add_explicit(&worker->failures_in_row, 1, memory_order_relaxed);
    else
        atomic_store_explicit(&worker->failures_in_row, 0, memory_order_relaxed);
}

static bool fails_too_often(const struct worker *worker, int64_t now_ns)
{
    if (atomic_load_explicit(&worker->failures_in_row, memory_order_relaxed) >= FAILURES_IN_ROW)
        return true;
    unsigned failed = 0;
    for (unsigned i = 0; i < WORKER_OUTCOMES; i++) {
        int64_t packed = atomic_load_explicit(&worker->outcomes[i], memory_order_relaxed);
        failed += (packed & 1) && now_ns - packed <= RING_SPAN_NS;
    }
    return failed >= FAILURES_IN_RING;
}

static bool eject(struct worker *worker, int64_t now_ns)
{
    long long until = atomic_load(&worker->ejected_until_ns);
    if (until > now_ns) /* calls that were under way when it was ejected do not lengthen its time */
        return false;
    int64_t span = atomic_load(&worker->ejected_span_ns);
    if (until == 0 || now_ns - until > EJECT_FORGET_NS)
        span = EJECT_MIN_NS;
    else
        span = span * 2 < EJECT_MAX_NS ? span * 2 : EJECT_MAX_NS;
    if (!atomic_compare_exchange_strong(&worker->ejected_until_ns, &until, now_ns + span))
        return false; /* another thread was faster */
    atomic_store(&worker->ejected_span_ns, span);
    forget_outcomes(worker);
    return true;
}

bool worker_end(struct worker *worker, int64_t now_ns, enum worker_outcome outcome, bool is_last_replica)
{
    int before = atomic_fetch_sub_explicit(&worker->in_flight, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    atomic_store_explicit(&worker->ended_ns, now_ns, memory_order_relaxed);
    switch (outcome) {
    case WORKER_DONE:
        atomic_fetch_add_explicit(&worker->done_count, 1, memory_order_relaxed);
        note_outcome(worker, now_ns, false);
        return false;
    case WORKER_FAILED:
        atomic_fetch_add_explicit(&worker->failed_count, 1, memory_order_relaxed);
        note_outcome(worker, now_ns, true);
        return !is_last_replica && fails_too_often(worker, now_ns) && eject(worker, now_ns);
    case WORKER_REFUSED:
        atomic_store_explicit(&worker->refused_ns, now_ns, memory_order_relaxed);
        return false;
    case WORKER_CANCELLED:
        return false;
    }
    assert(false && "no such outcome");
    return false;
}

uint64_t worker_tenant(struct str tenant_id)
{
    uint64_t digest = str_hash(tenant_id, 0);
    return digest ? digest : 1;
}

void worker_paid(struct worker *worker, uint64_t tenant, int64_t value_usd_nano)
{
    for (size_t i = 0; i < WORKER_PAYERS; i++) {
        unsigned long long known = atomic_load_explicit(&worker->payers[i].tenant, memory_order_relaxed);
        if (known == 0 && atomic_compare_exchange_strong_explicit(&worker->payers[i].tenant, &known, tenant,
                                                                  memory_order_relaxed, memory_order_relaxed))
            known = tenant;
        if (known != tenant)
            continue;
        atomic_fetch_add_explicit(&worker->payers[i].value_usd_nano, value_usd_nano, memory_order_relaxed);
        atomic_fetch_add_explicit(&worker->payers[i].done, 1, memory_order_relaxed);
        return;
    }
}

size_t worker_take_payments(struct worker *worker, struct worker_payment ret[static WORKER_PAYERS])
{
    size_t count = 0;
    for (size_t i = 0; i < WORKER_PAYERS; i++) {
        uint64_t tenant = atomic_load_explicit(&worker->payers[i].tenant, memory_order_relaxed);
        uint64_t done = atomic_exchange_explicit(&worker->payers[i].done, 0, memory_order_relaxed);
        int64_t value = atomic_exchange_explicit(&worker->payers[i].value_usd_nano, 0, memory_order_relaxed);
        if (done > 0)
            ret[count++] = (struct worker_payment){tenant, done, value};
        else /* idle since the last time: another tenant may have the place. A call of just now counts for that one. */
            atomic_store_explicit(&worker->payers[i].tenant, 0, memory_order_relaxed);
    }
    return count;
}

bool worker_is_ejected(const struct worker *worker, int64_t now_ns)
{
    return atomic_load_explicit(&worker->ejected_until_ns, memory_order_relaxed) > now_ns;
}

double worker_ramp(const struct worker *worker, int64_t now_ns)
{
    int64_t back_at = atomic_load_explicit(&worker->ejected_until_ns, memory_order_relaxed);
    if (back_at == 0 || now_ns - back_at >= RAMP_NS)
        return 1.0;
    double share = (double)(now_ns - back_at) / (double)RAMP_NS;
    return share > RAMP_MIN ? share : RAMP_MIN;
}

bool worker_is_live(const struct worker *worker, int64_t now_ns)
{
    int64_t heard = atomic_load_explicit(&worker->heard_ns, memory_order_relaxed);
    return heard != 0 && now_ns - heard <= HEARTBEAT_MAX_NS &&
           !atomic_load_explicit(&worker->draining, memory_order_relaxed) &&
           atomic_load_explicit(&worker->upstream_ok, memory_order_relaxed);
}

bool worker_has_free_slot(const struct worker *worker)
{
    return atomic_load_explicit(&worker->in_flight, memory_order_relaxed) <
           atomic_load_explicit(&worker->slots, memory_order_relaxed);
}

bool worker_refused_lately(const struct worker *worker, int64_t now_ns)
{
    int64_t refused = atomic_load_explicit(&worker->refused_ns, memory_order_relaxed);
    return refused != 0 && now_ns - refused < REFUSED_PAUSE_NS;
}

unsigned long long worker_address_block(const uint8_t *address, bool is_v6)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const uint8_t loopback[16] = {[15] = 1};
    unsigned long long block = 0;
    if (is_v6 && memcmp(address, mapped, sizeof(mapped)) == 0) {
        address += sizeof(mapped);
        is_v6 = false;
    }
    if (is_v6 ? memcmp(address, loopback, sizeof(loopback)) == 0 : address[0] == 127)
        return 0;
    for (size_t i = 0; i < (is_v6 ? 6u : 3u); i++)
        block = block << 8 | address[i];
    return (is_v6 ? 6ull : 4ull) << 56 | block;
}
