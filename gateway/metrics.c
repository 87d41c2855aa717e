#include "gateway/metrics.h"

#include "core/clock.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_TEXT_MAX 161
#define NETWORK_TEXT_MAX 32
#define MODELS_MAX 512
#define SERIES_MAX 1024 /* of model and network */
#define STATUSES_MAX 24
#define TABLE_SIZE 4096 /* a power of two, well above SERIES_MAX */
#define OTHER STR("other")

static const int64_t bounds_ns[] = {
    50 * NS_PER_US,   100 * NS_PER_US, 250 * NS_PER_US, 500 * NS_PER_US, 1 * NS_PER_MS,
    2500 * NS_PER_US, 5 * NS_PER_MS,   10 * NS_PER_MS,  25 * NS_PER_MS,  50 * NS_PER_MS,
    100 * NS_PER_MS,  250 * NS_PER_MS, 500 * NS_PER_MS, 1 * NS_PER_S,    2500 * NS_PER_MS,
    5 * NS_PER_S,     10 * NS_PER_S,   30 * NS_PER_S,   60 * NS_PER_S,
};
static const char *const bound_texts[] = {"5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005",
                                          "0.01",  "0.025",  "0.05",    "0.1",    "0.25",  "0.5",    "1",
                                          "2.5",   "5",      "10",      "30",     "60"};
#define BOUNDS (sizeof(bounds_ns) / sizeof(bounds_ns[0]))

/* Written by one thread: a relaxed load and store, no locked instruction. */
typedef atomic_llong cell;

static void add(cell *to, int64_t by)
{
    atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + by, memory_order_relaxed);
}

static int64_t get(const cell *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

struct histogram {
    cell counts[BOUNDS + 1]; /* the last: above all bounds; not cumulative */
    cell sum_ns;
};

struct series {
    char model[MODEL_TEXT_MAX], network[NETWORK_TEXT_MAX];
    struct {
        atomic_int status; /* 0: free; the last one counts all others as well */
        cell count;
    } statuses[STATUSES_MAX];
    struct histogram histograms[METRIC_HISTOGRAM_COUNT];
};

struct metrics {
    cell counters[METRIC_COUNTER_COUNT];
    cell gauges[METRIC_GAUGE_COUNT];
    _Atomic(struct series *) series[SERIES_MAX]; /* in order of first use; never taken away */
    atomic_size_t series_count;
    uint16_t table[TABLE_SIZE]; /* of the writer: index + 1 by hash of model and network as they were given */
    uint64_t keys[SERIES_MAX];  /* of the writer: that hash */
    uint64_t seed;
    size_t model_count; /* of the writer: different models among the series */
};

struct metrics *metrics_new(void)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));
    if (metrics)
        metrics->seed = (uint64_t)clock_mono_ns() ^ (uint64_t)(uintptr_t)metrics;
    return metrics;
}

struct metrics *metrics_free(struct metrics *metrics)
{
    if (metrics) {
        for (size_t i = 0; i < atomic_load(&metrics->series_count); i++)
            free(atomic_load(&metrics->series[i]));
        free(metrics);
    }
    return NULL;
}

void metrics_count(struct metrics *metrics, enum metric_counter counter, int64_t by)
{
    assert(counter < METRIC_COUNTER_COUNT && by >= 0);
    add(&metrics->counters[counter], by);
}

void metrics_gauge_add(struct metrics *metrics, enum metric_gauge gauge, int64_t by)
{
    assert(gauge < METRIC_GAUGE_COUNT);
    add(&metrics->gauges[gauge], by);
}

int64_t metrics_gauge(const struct metrics *metrics, enum metric_gauge gauge)
{
    assert(gauge < METRIC_GAUGE_COUNT);
    return get(&metrics->gauges[gauge]);
}

/* -- series -- */

/* A label's value: valid UTF-8 without control characters, cut to fit. */
static void label_copy(char *to, size_t to_size, struct str from)
{
    size_t len = from.len < to_size ? from.len : to_size - 1;
    json_t *whole = json_stringn(from.ptr ? from.ptr : "", len);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)from.ptr[i];
        to[i] = c < 0x20 || c == 0x7f || (c >= 0x80 && !whole) ? '?' : (char)c;
    }
    to[len] = '\0';
    json_decref(whole);
}

static bool is_series(const struct series *series, struct str model, struct str network)
{
    return str_eq(str_of(series->model), model) && str_eq(str_of(series->network), network);
}

static bool is_model_known(const struct metrics *metrics, struct str model)
{
    size_t count = atomic_load_explicit(&metrics->series_count, memory_order_relaxed);
    for (size_t i = 0; i < count; i++) {
        const struct series *series = atomic_load_explicit(&metrics->series[i], memory_order_relaxed);
        if (str_eq(str_of(series->model), model))
            return true;
    }
    return false;
}

/* May the model and network have a series of their own, or are there too many? */
static bool has_room(const struct metrics *metrics, struct str model)
{
    return atomic_load_explicit(&metrics->series_count, memory_order_relaxed) < SERIES_MAX - 1 &&
           (metrics->model_count < MODELS_MAX || is_model_known(metrics, model));
}

static struct series *series_add(struct metrics *metrics, struct str model, struct str network, uint64_t hash)
{
    size_t at = atomic_load_explicit(&metrics->series_count, memory_order_relaxed);
    struct series *series = at < SERIES_MAX ? calloc(1, sizeof(*series)) : NULL;
    if (!series)
        return NULL;
    metrics->model_count += !is_model_known(metrics, model);
    label_copy(series->model, sizeof(series->model), model);
    label_copy(series->network, sizeof(series->network), network);
    metrics->keys[at] = hash;
    size_t slot = hash & (TABLE_SIZE - 1);
    while (metrics->table[slot])
        slot = (slot + 1) & (TABLE_SIZE - 1);
    metrics->table[slot] = (uint16_t)(at + 1);
    atomic_store_explicit(&metrics->series[at], series, memory_order_release);
    atomic_store_explicit(&metrics->series_count, at + 1, memory_order_release);
    return series;
}

static struct series *series_look(const struct metrics *metrics, uint64_t hash)
{
    for (size_t slot = hash & (TABLE_SIZE - 1); metrics->table[slot]; slot = (slot + 1) & (TABLE_SIZE - 1)) {
        size_t at = metrics->table[slot] - 1u;
        if (metrics->keys[at] == hash)
            return atomic_load_explicit(&metrics->series[at], memory_order_relaxed);
    }
    return NULL;
}

/* The series of a model and network; by the 64-bit hash of a secret seed alone, as a name may have been cut. */
static struct series *series_of(struct metrics *metrics, struct str model, struct str network)
{
    uint64_t hash = str_hash(network, str_hash(model, metrics->seed));
    struct series *series = series_look(metrics, hash);
    if (series || has_room(metrics, model))
        return series ? series : series_add(metrics, model, network, hash);
    hash = str_hash(OTHER, str_hash(OTHER, metrics->seed));
    series = series_look(metrics, hash);
    return series ? series : series_add(metrics, OTHER, OTHER, hash);
}

void metrics_request(struct metrics *metrics, int status, struct str model, struct str network)
{
    struct series *series = series_of(metrics, model, network);
    if (!series)
        return;
    size_t at = 0;
    for (; at < STATUSES_MAX - 1; at++) {
        int have = atomic_load_explicit(&series->statuses[at].status, memory_order_relaxed);
        if (have == status)
            break;
        if (have == 0) {
            atomic_store_explicit(&series->statuses[at].status, status, memory_order_release);
            break;
        }
    }
    add(&series->statuses[at].count, 1);
}

void metrics_observe(struct metrics *metrics, enum metric_histogram histogram, struct str model, struct str network,
                     int64_t span_ns)
{
    assert(histogram < METRIC_HISTOGRAM_COUNT);
    struct series *series = series_of(metrics, model, network);
    if (!series)
        return;
    span_ns = span_ns < 0 ? 0 : span_ns;
    size_t at = 0;
    while (at < BOUNDS && span_ns > bounds_ns[at])
        at++;
    add(&series->histograms[histogram].counts[at], 1);
    add(&series->histograms[histogram].sum_ns, span_ns);
}

/* -- the sum of all sets -- */

struct sum_histogram {
    int64_t counts[BOUNDS + 1], sum_ns;
};

struct sum_series {
    const struct series *name; /* of any set */
    struct {
        int status;
        int64_t count;
    } statuses[STATUSES_MAX + 1];
    struct sum_histogram histograms[METRIC_HISTOGRAM_COUNT];
};

struct sum {
    struct sum_series *series;
    size_t count;
};

static void sum_statuses(struct sum_series *to, const struct series *from)
{
    for (size_t i = 0; i < STATUSES_MAX; i++) {
        int status = atomic_load_explicit(&from->statuses[i].status, memory_order_acquire);
        int64_t count = get(&from->statuses[i].count);
        if (count == 0)
            continue;
        size_t at = 0;
        while (at < STATUSES_MAX && to->statuses[at].count > 0 && to->statuses[at].status != status)
            at++;
        to->statuses[at].status = at < STATUSES_MAX ? status : 0;
        to->statuses[at].count += count;
    }
}

static void sum_add(struct sum_series *to, const struct series *from)
{
    sum_statuses(to, from);
    for (size_t h = 0; h < METRIC_HISTOGRAM_COUNT; h++) {
        for (size_t i = 0; i <= BOUNDS; i++)
            to->histograms[h].counts[i] += get(&from->histograms[h].counts[i]);
        to->histograms[h].sum_ns += get(&from->histograms[h].sum_ns);
    }
}

static int by_name(const void *a, const void *b)
{
    const struct series *one = *(struct series *const *)a, *two = *(struct series *const *)b;
    int order = strcmp(one->model, two->model);
    return order ? order : strcmp(one->network, two->network);
}

/* Sorted by name, equal names summed. Two names that were cut to the same text count as one. */
static bool sum_make(struct metrics *const *sets, size_t set_count, struct sum *ret)
{
    size_t count = 0, at = 0;
    for (size_t s = 0; s < set_count; s++)
        count += atomic_load_explicit(&sets[s]->series_count, memory_order_acquire);
    const struct series **all = calloc(count ? count : 1, sizeof(const struct series *));
    struct sum sum = {calloc(count ? count : 1, sizeof(*sum.series)), 0};
    if (!all || !sum.series) {
        free(all);
        free(sum.series);
        return false;
    }
    for (size_t s = 0; s < set_count; s++) {
        size_t of_set = atomic_load_explicit(&sets[s]->series_count, memory_order_acquire);
        for (size_t i = 0; i < of_set && at < count; i++)
            all[at++] = atomic_load_explicit(&sets[s]->series[i], memory_order_acquire);
    }
    qsort(all, at, sizeof(const struct series *), by_name);
    for (size_t i = 0; i < at; i++) {
        if (i == 0 || !is_series(all[i], str_of(all[i - 1]->model), str_of(all[i - 1]->network)))
            sum.series[sum.count++].name = all[i];
        sum_add(&sum.series[sum.count - 1], all[i]);
    }
    free(all);
    *ret = sum;
    return true;
}

static int64_t counter_sum(struct metrics *const *sets, size_t set_count, enum metric_counter counter)
{
    int64_t sum = 0;
    for (size_t s = 0; s < set_count; s++)
        sum += get(&sets[s]->counters[counter]);
    return sum;
}

static int64_t gauge_sum(struct metrics *const *sets, size_t set_count, enum metric_gauge gauge)
{
    int64_t sum = 0;
    for (size_t s = 0; s < set_count; s++)
        sum += get(&sets[s]->gauges[gauge]);
    return sum;
}

/* -- the text -- */

static bool head(struct buf *to, const char *name, const char *type, const char *help)
{
    return buf_printf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static bool one(struct buf *to, const char *name, const char *type, const char *help, int64_t value)
{
    return head(to, name, type, help) && buf_printf(to, "%s %" PRId64 "\n", name, value);
}

/* A label's value between its quotes. */
static bool quoted(struct buf *to, const char *value)
{
    if (!buf_append(to, "\"", 1))
        return false;
    for (; *value; value++) {
        if ((*value == '"' || *value == '\\') && !buf_append(to, "\\", 1))
            return false;
        if (!buf_append(to, value, 1))
            return false;
    }
    return buf_append(to, "\"", 1);
}

static bool model_labels(struct buf *to, const struct series *name)
{
    return buf_append_str(to, STR("model=")) && quoted(to, name->model) && buf_append_str(to, STR(",network=")) &&
           quoted(to, name->network);
}

static bool seconds(struct buf *to, int64_t ns)
{
    return buf_printf(to, "%" PRId64 ".%09d", ns / NS_PER_S, (int)(ns % NS_PER_S));
}

static bool render_requests(struct buf *to, const struct sum *sum)
{
    if (!head(to, "sluice_requests_total", "counter", "Calls answered, by status, model and network."))
        return false;
    for (size_t i = 0; i < sum->count; i++) {
        const struct sum_series *series = &sum->series[i];
        for (size_t s = 0; s <= STATUSES_MAX; s++) {
            if (series->statuses[s].count == 0)
                continue;
            bool fits = series->statuses[s].status > 0
                            ? buf_printf(to, "sluice_requests_total{status=\"%d\",", series->statuses[s].status)
                            : buf_append_str(to, STR("sluice_requests_total{status=\"other\","));
            if (!fits || !model_labels(to, series->name) ||
                !buf_printf(to, "} %" PRId64 "\n", series->statuses[s].count))
                return false;
        }
    }
    return true;
}

static bool render_histogram_series(struct buf *to, const char *name, const struct series *of,
                                    const struct sum_histogram *histogram)
{
    int64_t count = 0;
    for (size_t i = 0; i <= BOUNDS; i++) {
        count += histogram->counts[i];
        if (!buf_printf(to, "%s_bucket{", name) || !model_labels(to, of) ||
            !buf_printf(to, ",le=\"%s\"} %" PRId64 "\n", i < BOUNDS ? bound_texts[i] : "+Inf", count))
            return false;
    }
    return buf_printf(to, "%s_sum{", name) && model_labels(to, of) && buf_append_str(to, STR("} ")) &&
           seconds(to, histogram->sum_ns) && buf_printf(to, "\n%s_count{", name) && model_labels(to, of) &&
           buf_printf(to, "} %" PRId64 "\n", count);
}

static const struct {
    const char *name, *help;
} histogram_names[METRIC_HISTOGRAM_COUNT] = {
    [METRIC_ADDED_LATENCY] = {"sluice_added_latency_seconds", "Time that the gateway itself added to a call."},
    [METRIC_FIRST_TOKEN] = {"sluice_time_to_first_token_seconds", "From the call's arrival to its first content."},
    [METRIC_QUEUE_WAIT] = {"sluice_queue_wait_seconds", "Time that calls waited for a free slot."},
    [METRIC_UPSTREAM_TIME] = {"sluice_upstream_time_seconds", "Time that the answering worker took for a call."},
};

static bool render_histograms(struct buf *to, const struct sum *sum)
{
    for (size_t h = 0; h < METRIC_HISTOGRAM_COUNT; h++) {
        if (!head(to, histogram_names[h].name, "histogram", histogram_names[h].help))
            return false;
        for (size_t i = 0; i < sum->count; i++) {
            const struct sum_histogram *histogram = &sum->series[i].histograms[h];
            int64_t count = 0;
            for (size_t b = 0; b <= BOUNDS; b++)
                count += histogram->counts[b];
            if (count > 0 && !render_histogram_series(to, histogram_names[h].name, sum->series[i].name, histogram))
                return false;
        }
    }
    return true;
}

static bool render_counters(struct buf *to, struct metrics *const *sets, size_t count)
{
    static const struct {
        enum metric_counter counter;
        const char *name, *help;
    } rows[] = {
        {METRIC_RETRIES, "sluice_retries_total", "Attempts beyond the first one of a call."},
        {METRIC_EJECTIONS, "sluice_ejections_total", "Workers taken out of the choice after failures."},
        {METRIC_CANCELLED, "sluice_cancelled_total", "Calls whose caller hung up."},
        {METRIC_BROKEN_STREAMS, "sluice_broken_streams_total", "Streams that the worker's side broke."},
        {METRIC_QUEUED, "sluice_queued_total", "Calls that had to wait for a slot."},
        {METRIC_GPU_MS, "sluice_gpu_milliseconds_total", "GPU time metered."},
        {METRIC_BILLED_USD_NANO, "sluice_billed_usd_nano_total", "Money charged, in billionths of a US dollar."},
        {METRIC_LOSS_USD_NANO, "sluice_loss_usd_nano_total",
         "Cost beyond what callers could cover, in billionths of a US dollar."},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!one(to, rows[i].name, "counter", rows[i].help, counter_sum(sets, count, rows[i].counter)))
            return false;
    }
    return head(to, "sluice_tokens_total", "counter", "Tokens as workers reported them, by kind.") &&
           buf_printf(to,
                      "sluice_tokens_total{kind=\"prompt\"} %" PRId64
                      "\nsluice_tokens_total{kind=\"completion\"} %" PRId64 "\n",
                      counter_sum(sets, count, METRIC_PROMPT_TOKENS),
                      counter_sum(sets, count, METRIC_COMPLETION_TOKENS));
}

static bool render_checks(struct buf *to, struct metrics *const *sets, size_t count)
{
    static const struct {
        enum metric_counter counter;
        const char *result;
    } rows[] = {{METRIC_CHECKS_AGREED, "agreed"},
                {METRIC_CHECKS_ORIGINAL_WRONG, "original_wrong"},
                {METRIC_CHECKS_PEER_WRONG, "peer_wrong"},
                {METRIC_CHECKS_INCONCLUSIVE, "inconclusive"}};
    bool fits = head(to, "sluice_answer_checks_total", "counter", "Answers compared with another worker's, by result.");
    for (size_t i = 0; fits && i < sizeof(rows) / sizeof(rows[0]); i++)
        fits = buf_printf(to, "sluice_answer_checks_total{result=\"%s\"} %" PRId64 "\n", rows[i].result,
                          counter_sum(sets, count, rows[i].counter));
    return fits && one(to, "sluice_refunds_total", "counter", "Calls given back because their answer was wrong.",
                       counter_sum(sets, count, METRIC_REFUNDS));
}

static bool render_gauges(struct buf *to, struct metrics *const *sets, size_t count, const struct metrics_extra *extra)
{
    static const char *const states[] = {"enrolled", "probing", "ready", "suspended"};
    bool fits =
        one(to, "sluice_calls_running", "gauge", "Calls in work now.", gauge_sum(sets, count, METRIC_CALLS_RUNNING)) &&
        one(to, "sluice_calls_queued", "gauge", "Calls that wait for a slot now.",
            gauge_sum(sets, count, METRIC_CALLS_QUEUED)) &&
        one(to, "sluice_connections", "gauge", "Open connections of callers.",
            gauge_sum(sets, count, METRIC_CONNECTIONS)) &&
        one(to, "sluice_answer_checks_running", "gauge", "Answers that are being compared, or kept for it.",
            gauge_sum(sets, count, METRIC_CHECKS_RUNNING)) &&
        one(to, "sluice_redis_connected", "gauge", "Whether the store answers (1) or not (0).",
            extra->redis_connected) &&
        one(to, "sluice_journal_pending_records", "gauge", "Usage records that wait to be settled.",
            extra->journal_pending) &&
        one(to, "sluice_credit_held_usd_nano", "gauge", "Balances held by this gateway, in billionths of a US dollar.",
            extra->credit_held_usd_nano) &&
        head(to, "sluice_workers", "gauge", "Workers known, by state.");
    for (size_t i = 0; fits && i < sizeof(states) / sizeof(states[0]); i++)
        fits = buf_printf(to, "sluice_workers{state=\"%s\"} %" PRId64 "\n", states[i], extra->workers_by_state[i]);
    fits = fits && head(to, "sluice_loop_lag_seconds", "gauge", "Time that the last turn of a reactor's loop took.");
    size_t reactors = sizeof(extra->loop_lag_ns) / sizeof(extra->loop_lag_ns[0]);
    reactors = extra->reactor_count < reactors ? extra->reactor_count : reactors;
    for (size_t i = 0; fits && i < reactors; i++)
        fits = buf_printf(to, "sluice_loop_lag_seconds{reactor=\"%zu\"} ", i) && seconds(to, extra->loop_lag_ns[i]) &&
               buf_append(to, "\n", 1);
    return fits;
}

static bool render_proofs(struct buf *to, const struct metrics_extra *extra)
{
    static const char *const results[METRICS_PROOF_RESULTS] = {"passed", "slow", "wrong", "late", "lost"};
    bool fits = head(to, "sluice_proofs_total", "counter", "Proofs of workers' devices that ended here, by result.");
    for (size_t i = 0; fits && i < METRICS_PROOF_RESULTS; i++)
        fits = buf_printf(to, "sluice_proofs_total{result=\"%s\"} %" PRId64 "\n", results[i], extra->proofs[i]);
    return fits &&
           head(to, "sluice_proof_cpu_seconds_total", "counter",
                "CPU time of proofs: checking answers, and preparing challenges beforehand.") &&
           buf_printf(to, "sluice_proof_cpu_seconds_total{work=\"check\"} ") && seconds(to, extra->proof_cpu_ns) &&
           buf_printf(to, "\nsluice_proof_cpu_seconds_total{work=\"prepare\"} ") &&
           seconds(to, extra->prepare_cpu_ns) && buf_append(to, "\n", 1) &&
           one(to, "sluice_challenges_prepared", "gauge", "Prepared challenges that wait to be used.", extra->prepared);
}

bool metrics_render(struct metrics *const *sets, size_t count, const struct metrics_extra *extra, struct buf *ret_text)
{
    struct sum sum;
    if (!sum_make(sets, count, &sum))
        return false;
    size_t before = ret_text->len;
    bool fits = render_requests(ret_text, &sum) && render_counters(ret_text, sets, count) &&
                render_checks(ret_text, sets, count) && render_gauges(ret_text, sets, count, extra) &&
                render_proofs(ret_text, extra) && metrics_render_networks(extra, ret_text) &&
                render_histograms(ret_text, &sum);
    if (!fits)
        ret_text->len = before;
    free(sum.series);
    return fits;
}

/* -- totals -- */

/* Where the share q of the observations lies, by a straight line within its bucket. */
static double quantile(const struct sum_histogram *histogram, double q)
{
    int64_t count = 0, seen = 0;
    for (size_t i = 0; i <= BOUNDS; i++)
        count += histogram->counts[i];
    double rank = q * (double)count;
    for (size_t i = 0; i < BOUNDS && count > 0; i++) {
        if (histogram->counts[i] > 0 && (double)(seen + histogram->counts[i]) >= rank) {
            double low = i > 0 ? (double)bounds_ns[i - 1] : 0, high = (double)bounds_ns[i];
            return low + (high - low) * (rank - (double)seen) / (double)histogram->counts[i];
        }
        seen += histogram->counts[i];
    }
    return count > 0 ? (double)bounds_ns[BOUNDS - 1] : 0;
}

bool metrics_totals(struct metrics *const *sets, size_t count, struct metrics_totals *ret)
{
    struct sum sum;
    if (!sum_make(sets, count, &sum))
        return false;
    struct metrics_totals totals = {0};
    struct sum_histogram all[METRIC_HISTOGRAM_COUNT] = {0};
    for (size_t i = 0; i < sum.count; i++) {
        for (size_t s = 0; s <= STATUSES_MAX; s++) {
            int status = sum.series[i].statuses[s].status;
            int64_t requests = sum.series[i].statuses[s].count;
            totals.requests += requests;
            totals.by_class[status >= 100 && status < 600 ? status / 100 : 0] += requests;
        }
        for (size_t h = 0; h < METRIC_HISTOGRAM_COUNT; h++) {
            for (size_t b = 0; b <= BOUNDS; b++)
                all[h].counts[b] += sum.series[i].histograms[h].counts[b];
        }
    }
    for (size_t h = 0; h < METRIC_HISTOGRAM_COUNT; h++) {
        totals.p50_ns[h] = quantile(&all[h], 0.5);
        totals.p99_ns[h] = quantile(&all[h], 0.99);
    }
    for (size_t c = 0; c < METRIC_COUNTER_COUNT; c++)
        totals.counters[c] = counter_sum(sets, count, (enum metric_counter)c);
    for (size_t g = 0; g < METRIC_GAUGE_COUNT; g++)
        totals.gauges[g] = gauge_sum(sets, count, (enum metric_gauge)g);
    free(sum.series);
    *ret = totals;
    return true;
}
