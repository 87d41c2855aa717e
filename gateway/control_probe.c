/* Admission probes: claimed in Redis, sent over a link by the reactor that has it, checked in the verify pool.
 *
 * A run belongs to the control thread, but for the time between run_send and on_run_back, when it is the reactor's. */
#include "gateway/control_priv.h"

#include "core/clock.h"
#include "core/log.h"

#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#define RUNS_MAX 256
#define LOST_RUNS_MAX 5 /* in a row; then no answer counts as one that is too late */

struct probe_run {
    struct probe_run *next, **link; /* of control->runs */
    struct control *control;
    struct worker *worker; /* a reference */
    struct admission claim;
    struct challenge challenge;
    struct admission verdict; /* to be stored */
    enum admission_event event;
    int64_t took_ns;
    /* the reactor's */
    struct reactor *reactor;
    struct h2_stream *stream;
    struct timer deadline;
    struct buf answer;
    int64_t sent_ns;
    int status;
    bool is_late, is_too_large;
};

static struct admission_policy policy_of(const struct control *control)
{
    return (struct admission_policy){control->settings->probes.reprobe_min_s * 1000,
                                     control->settings->probes.reprobe_max_s * 1000};
}

static uint64_t fresh_bits(void)
{
    uint64_t bits;
    crypto_random(&bits, sizeof(bits));
    return bits;
}

/* What happened to the worker of that record, as this gateway tells it. */
static struct admission_news news_of(const struct control *control, const struct registry_entry *entry,
                                     enum admission_event event)
{
    int64_t now_ms = clock_wall_ms();
    return (struct admission_news){.event = event,
                                   .now_ms = now_ms,
                                   .random = fresh_bits(),
                                   .gateway = (uint32_t)str_hash(str_of(control->gateway->id), 0) | 1,
                                   .score = reputation_bound(&entry->record.reputation, now_ms)};
}

static void run_free(struct probe_run *run)
{
    struct registry_entry *entry = registry_find(run->control->registry, str_of(run->worker->id));
    if (entry && entry->probe == run)
        entry->probe = NULL;
    *run->link = run->next;
    if (run->next)
        run->next->link = run->link;
    run->control->run_count--;
    worker_unref(run->worker);
    buf_free(&run->answer);
    free(run);
}

void control_runs_free(struct control *control)
{
    while (control->runs)
        run_free(control->runs);
}

/* The entry, unless it is gone or was made anew meanwhile. */
static struct registry_entry *entry_of(const struct probe_run *run)
{
    struct registry_entry *entry = registry_find(run->control->registry, str_of(run->worker->id));
    return entry && entry->probe == run ? entry : NULL;
}

/* -- verdict ----------------------------------------------------------------------------------------------------- */

static void on_reputed(void *ctx, enum error error)
{
    (void)ctx;
    (void)error; /* one probe more or less */
}

static void tell_verdict(const struct probe_run *run)
{
    struct log_ctx log = {.worker = run->worker->id};
    int64_t took_ms = run->took_ns / NS_PER_MS;
    if (run->event == ADMISSION_PROBE_GOOD)
        log_info(&log, "probe passed in %" PRId64 " ms", took_ms);
    else if (run->event == ADMISSION_PROBE_LOST)
        log_info(&log, "probe was lost on the way");
    else
        log_warn(&log, "suspended: %s", run->verdict.reason);
}

static void on_verdict_stored(void *ctx, enum error error)
{
    struct probe_run *run = ctx;
    struct control *control = run->control;
    struct registry_entry *entry = entry_of(run);
    if (error == ERR_NONE && entry) {
        entry->record.admission = run->verdict;
        tell_verdict(run);
        control_market_check(control, entry);
    } else if (entry && !control->is_shut) {
        log_warn(&(struct log_ctx){.worker = run->worker->id}, "cannot store what came of a probe: %s",
                 error_text(error));
        control_load_worker(control, str_of(run->worker->id));
    }
    const struct reputation_evidence evidence =
        run->event == ADMISSION_PROBE_GOOD   ? reputation_of_proof(run->claim.next_purpose, 1, true)
        : run->event == ADMISSION_PROBE_LATE ? reputation_of_late(run->claim.next_purpose)
                                             : reputation_of_wrong(run->claim.next_purpose);
    if (error == ERR_NONE && run->event != ADMISSION_PROBE_LOST &&
        worker_store_reputation(control->redis, str_of(run->worker->id), &evidence, on_reputed, NULL) != ERR_NONE)
        log_debug(NULL, "reputation not told");
    run_free(run);
}

static void run_end(struct probe_run *run, enum admission_event event)
{
    struct control *control = run->control;
    struct registry_entry *entry = entry_of(run);
    const struct admission_policy policy = policy_of(control);
    if (!entry || control->is_shut) {
        run_free(run);
        return;
    }
    entry->lost_runs = event == ADMISSION_PROBE_LOST ? entry->lost_runs + 1 : 0;
    if (entry->lost_runs > LOST_RUNS_MAX)
        event = ADMISSION_PROBE_LATE;
    run->event = event;
    run->verdict = run->claim;
    const struct admission_news news = news_of(control, entry, event);
    (void)admission_step(&run->verdict, &news, &policy);
    if (event == ADMISSION_PROBE_GOOD)
        run->verdict.last_probe_took_ms = run->took_ns / NS_PER_MS;
    if (worker_store_admit(control->redis, str_of(run->worker->id), run->claim.token, &run->verdict, on_verdict_stored,
                           run) != ERR_NONE)
        run_free(run); /* another try comes when the claim has run out */
}

static void on_checked(void *ctx, enum error error, bool is_right)
{
    struct probe_run *run = ctx;
    if (error)
        run_end(run, ADMISSION_PROBE_LOST);
    else
        run_end(run, is_right ? ADMISSION_PROBE_GOOD : ADMISSION_PROBE_WRONG);
}

/* Back on the control thread. event GOOD: an answer came in time, right or wrong. */
static void on_run_back(void *arg)
{
    struct probe_run *run = arg;
    if (run->event != ADMISSION_PROBE_GOOD || run->control->is_shut)
        run_end(run, run->event);
    else if (verify_pool_check(run->control->pool, &run->challenge, &run->answer, on_checked, run) != ERR_NONE)
        run_end(run, ADMISSION_PROBE_LOST);
}

/* -- on the reactor ---------------------------------------------------------------------------------------------- */

static void run_return(struct probe_run *run, enum admission_event event)
{
    timer_clear(run->reactor->loop, &run->deadline);
    run->event = event;
    if (loop_post(run->control->loop, on_run_back, run) != ERR_NONE)
        log_error(&(struct log_ctx){.worker = run->worker->id}, "no memory to tell of a probe");
}

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct probe_run *run = ctx;
    (void)headers;
    (void)count;
    run->status = status;
}

static void on_data(void *ctx, struct str bytes)
{
    struct probe_run *run = ctx;
    h2_stream_consumed(run->stream, bytes.len);
    if (!run->is_too_large && !buf_append_str(&run->answer, bytes)) {
        run->is_too_large = true;
        h2_stream_cancel(run->stream, NGHTTP2_CANCEL);
    }
}

static void on_finished(void *ctx)
{
    struct probe_run *run = ctx;
    run->took_ns = clock_mono_ns() - run->sent_ns;
}

static void on_end(void *ctx, enum h2_end end)
{
    struct probe_run *run = ctx;
    bool is_late = run->is_late || (end == H2_END_OK && run->took_ns > run->challenge.deadline_ns);
    run->stream = NULL;
    if (end == H2_END_REFUSED || end == H2_END_CLOSED || (end == H2_END_OK && run->status == 503))
        run_return(run, ADMISSION_PROBE_LOST);
    else if (is_late)
        run_return(run, ADMISSION_PROBE_LATE);
    else
        run_return(run, end == H2_END_OK && run->status == 200 ? ADMISSION_PROBE_GOOD : ADMISSION_PROBE_WRONG);
}

static void on_deadline(struct timer *timer)
{
    struct probe_run *run = container_of(timer, struct probe_run, deadline);
    run->is_late = true;
    h2_stream_cancel(run->stream, NGHTTP2_CANCEL);
}

static void run_send(void *arg)
{
    static const struct h2_stream_ops ops = {
        .on_head = on_head, .on_data = on_data, .on_finished = on_finished, .on_end = on_end};
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/octet-stream", 24}}};
    struct probe_run *run = arg;
    const struct h2_request request = {.method = STR("POST"),
                                       .path = STR("/sluice/probe"),
                                       .headers = headers,
                                       .header_count = 1,
                                       .body = {(const char *)run->challenge.question, run->challenge.question_len}};
    run->sent_ns = clock_mono_ns();
    if (hub_request(run->reactor->hub, run->worker, &request, &ops, run, &run->stream) != ERR_NONE) {
        run_return(run, ADMISSION_PROBE_LOST);
        return;
    }
    run->deadline.on_due = on_deadline;
    timer_set(run->reactor->loop, &run->deadline, run->sent_ns + run->challenge.deadline_ns);
}

/* -- claim ------------------------------------------------------------------------------------------------------- */

static struct reactor *linked_reactor(const struct control *control, const struct registry_entry *entry)
{
    for (size_t i = 0; i < control->gateway->reactor_count; i++)
        if (entry->links_of[i] > 0)
            return control->gateway->reactors[i];
    return NULL;
}

static void on_claimed(void *ctx, enum error error)
{
    struct probe_run *run = ctx;
    struct control *control = run->control;
    struct registry_entry *entry = entry_of(run);
    if (error || !entry || control->is_shut) {
        /* Another gateway was faster, or Redis did not answer: what is stored tells how to go on. */
        if (entry && !control->is_shut)
            control_load_worker(control, str_of(run->worker->id));
        run_free(run);
        return;
    }
    entry->record.admission = run->claim;
    run->reactor = linked_reactor(control, entry);
    challenge_make(&run->challenge);
    if (!run->reactor || loop_post(run->reactor->loop, run_send, run) != ERR_NONE)
        run_end(run, ADMISSION_PROBE_LOST);
}

static void run_start(struct control *control, struct registry_entry *entry, const struct admission *claim)
{
    struct probe_run *run = calloc(1, sizeof(*run));
    if (!run)
        return; /* the next tick tries again */
    run->control = control;
    run->worker = worker_ref(entry->worker);
    run->claim = *claim;
    buf_init(&run->answer, CHALLENGE_ANSWER_MAX);
    run->next = control->runs;
    run->link = &control->runs;
    if (run->next)
        run->next->link = &run->next;
    control->runs = run;
    control->run_count++;
    entry->probe = run;
    if (worker_store_admit(control->redis, str_of(run->worker->id), entry->record.admission.token, claim, on_claimed,
                           run) != ERR_NONE)
        run_free(run);
}

void control_consider(struct control *control, struct registry_entry *entry, enum admission_event event)
{
    const struct admission_policy policy = policy_of(control);
    struct admission claim = entry->record.admission;
    if (control->settings->probes.admission == PROBE_OFF || control->is_shut || entry->probe || entry->links == 0 ||
        entry->draining || control->run_count >= RUNS_MAX)
        return;
    const struct admission_news news = news_of(control, entry, event);
    if (admission_step(&claim, &news, &policy) == ADMISSION_SEND_PROBE)
        run_start(control, entry, &claim);
}
