/* forward: one try of a call on one worker, and what its failure means. */
#include "gateway/openai_call.h"
#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

#define H2_CANCEL 8
#define RATE_RETRY_MS 1000
#define RETRY_MS_MAX 60000

/* -- the worker's side is over -- */

/* The last replica of its model is never ejected, whatever this caller asked for. */
static bool is_last_replica(const struct openai_call *call)
{
    const struct reactor *reactor = call->reactor;
    const struct market *market = reactor->snapshot->market;
    struct str target;
    struct dispatch_query query = {.model = market_model(market, call->model, &target),
                                   .weights = weights_default(),
                                   .max_price_usd_nano = -1,
                                   .now_ns = loop_now(reactor->loop)};
    query.links = hub_links(reactor->hub, &query.link_count);
    return query.model == MARKET_NONE || dispatch_fitting(market, &query) <= 1;
}

void attempt_over(struct attempt *attempt, enum worker_outcome outcome)
{
    struct openai_call *call = attempt->call;
    struct reactor *reactor = call->reactor;
    if (attempt->is_over)
        return;
    attempt->is_over = true;
    bool is_last = outcome == WORKER_FAILED && is_last_replica(call);
    if (worker_end(attempt->worker, loop_now(reactor->loop), outcome, is_last)) {
        struct log_ctx ctx = {.worker = attempt->worker->id};
        metrics_count(reactor->metrics, METRIC_EJECTIONS, 1);
        log_warn(&ctx, "worker taken out for a while: it failed too often");
    }
    if (call->attempt == attempt)
        call->attempt = NULL;
    openai_wake(reactor->openai);
}

void attempt_cancel(struct attempt *attempt)
{
    attempt_over(attempt, WORKER_CANCELLED);
    if (attempt->stream)
        h2_stream_cancel(attempt->stream, H2_CANCEL);
}

static void attempt_free(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    timer_clear(call->reactor->loop, &attempt->linger);
    worker_unref(attempt->worker);
    free(attempt);
    call->open_streams--;
    call_free_if_over(call);
}

/* -- failures -- */

void attempt_failed(struct attempt *attempt, enum attempt_failure failure)
{
    struct openai_call *call = attempt->call;
    struct log_ctx ctx = {.request = call->front ? call->front->request_id : NULL, .worker = attempt->worker->id};
    if (attempt->is_over)
        return;
    call->was_answered_by_worker = false; /* the next one may */
    call->last_failure = failure;
    call->last_had_no_byte = attempt->first_byte_ns == 0;
    call->last_retry_after_ms = attempt->retry_after_ms ? attempt->retry_after_ms : RATE_RETRY_MS;
    if (failure == FAILURE_SLOTS) {
        call->attempts--;
        if (call->query.tried_count < DISPATCH_TRIES_MAX)
            call->query.tried[call->query.tried_count++] = attempt->worker;
    } else {
        /* Refusals for want of a slot stand behind the real tries: this one takes its place before them. */
        call->query.tried[call->tries++] = attempt->worker;
        call->query.tried_count = (size_t)call->tries;
        log_debug(&ctx, "try %d failed with status %d", call->tries, attempt->status);
    }
    bool is_refusal = failure == FAILURE_SLOTS || failure == FAILURE_RATE;
    attempt_over(attempt, is_refusal ? WORKER_REFUSED : WORKER_FAILED);
    if (attempt->stream)
        h2_stream_cancel(attempt->stream, H2_CANCEL);
    timer_clear(call->reactor->loop, &call->timer);
    call_dispatch(call);
}

static int64_t retry_after_of(const struct h2_header *headers, size_t count)
{
    int64_t ms = 0;
    double seconds;
    for (size_t i = 0; i < count; i++) {
        if (str_eq(headers[i].name, STR("retry-after-ms")) && str_to_i64(headers[i].value, &ms))
            break;
        if (str_eq(headers[i].name, STR("retry-after")) && str_to_double(headers[i].value, &seconds) && seconds > 0 &&
            seconds < 1e6)
            ms = (int64_t)(seconds * 1000);
    }
    return ms < 1 ? 0 : ms > RETRY_MS_MAX ? RETRY_MS_MAX : ms;
}

static struct str header_of(const struct h2_header *headers, size_t count, struct str name)
{
    for (size_t i = 0; i < count; i++)
        if (str_eq(headers[i].name, name))
            return headers[i].value;
    return (struct str){NULL, 0};
}

/* Which statuses are whose fault. */
static bool failure_of(int status, enum attempt_failure *ret)
{
    if (status == 401 || status == 402 || status == 403)
        *ret = FAILURE_CREDENTIAL;
    else if (status == 408 || status == 429)
        *ret = FAILURE_RATE;
    else if (status >= 200 && status < 300)
        return false;
    else if (status >= 400 && status < 500)
        return false; /* the caller's own fault: handed on */
    else
        *ret = FAILURE_TRANSIENT;
    return true;
}

/* -- the stream's callbacks -- */

static void first_byte(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    int64_t now = loop_now(call->reactor->loop);
    if (attempt->first_byte_ns)
        return;
    attempt->first_byte_ns = now;
    worker_first_byte(attempt->worker, now, now - attempt->sent_ns);
}

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct attempt *attempt = ctx;
    struct openai_call *call = attempt->call;
    enum attempt_failure failure;
    if (attempt->is_over)
        return;
    attempt->status = status;
    attempt->retry_after_ms = retry_after_of(headers, count);
    struct str fault = header_of(headers, count, STR("x-sluice-fault"));
    if (str_eq(fault, STR("slots")) || str_eq(fault, STR("draining"))) {
        attempt->mode = MODE_REFUSE;
        attempt_failed(attempt, FAILURE_SLOTS);
        return;
    }
    if (str_eq(fault, STR("upstream"))) { /* the worker could not reach its model server: no byte of an answer came */
        attempt->mode = MODE_REFUSE;
        attempt_failed(attempt, FAILURE_TRANSIENT);
        return;
    }
    first_byte(attempt);
    if (failure_of(status, &failure)) {
        attempt->mode = MODE_REFUSE;
        attempt_failed(attempt, failure);
        return;
    }
    call->was_answered_by_worker = true;
    if (!answer_begin(attempt, status, header_of(headers, count, STR("content-type"))))
        attempt_failed(attempt, FAILURE_TRANSIENT);
}

static void on_data(void *ctx, struct str bytes)
{
    struct attempt *attempt = ctx;
    struct openai_call *call = attempt->call;
    attempt->unconsumed += bytes.len;
    if (!attempt->is_over)
        answer_bytes(attempt, bytes);
    /* Back-pressure: the worker's window stays shut while the caller takes nothing. */
    bool is_slow = !attempt->is_over && call->state == CALL_STREAMING && call->front &&
                   httpd_queued(call->front->http) > HTTPD_STREAM_HIGH;
    if (!is_slow)
        attempt_consumed(attempt);
}

void attempt_consumed(struct attempt *attempt)
{
    if (attempt->stream && attempt->unconsumed)
        h2_stream_consumed(attempt->stream, attempt->unconsumed);
    attempt->unconsumed = 0;
}

static void on_finished(void *ctx)
{
    struct attempt *attempt = ctx;
    if (!attempt->is_over)
        answer_finished(attempt);
}

static void on_end(void *ctx, enum h2_end end)
{
    struct attempt *attempt = ctx;
    struct openai_call *call = attempt->call;
    attempt->stream = NULL;
    if (!attempt->is_over) {
        if (end == H2_END_REFUSED && attempt->mode == MODE_HEAD)
            attempt_failed(attempt, FAILURE_TRANSIENT);
        else
            answer_broken(attempt);
    } else if (call->attempt == attempt) {
        call->attempt = NULL;
    }
    attempt_free(attempt);
}

static const struct h2_stream_ops attempt_ops = {
    .on_head = on_head,
    .on_data = on_data,
    .on_finished = on_finished,
    .on_end = on_end,
};

/* -- start -- */

static void on_linger(struct timer *timer)
{
    struct attempt *attempt = container_of(timer, struct attempt, linger);
    attempt_cancel(attempt);
}

static void copy_target(struct target *target, const struct market *market, uint32_t row)
{
    str_copy(target->worker, sizeof(target->worker), str_of(market_worker(market, row)->id));
    str_copy(target->network, sizeof(target->network), market_network(market, row));
    str_copy(target->gpu, sizeof(target->gpu), market_gpu(market, row));
    str_copy(target->supplier, sizeof(target->supplier), market_supplier(market, row));
    target->price_usd_nano = market_price(market, row);
    target->gpus = market_gpus(market, row);
    target->slots = market_slots(market, row);
    target->take_rate_bps = market_take_rate_bps(market, row);
    target->reputation = market_reputation(market, row);
}

void attempt_start(struct openai_call *call, const struct market *market, uint32_t row)
{
    struct reactor *reactor = call->reactor;
    int64_t now = loop_now(reactor->loop);
    struct attempt *attempt = calloc(1, sizeof(*attempt));
    struct str content_type = call->front->http->known[HEADER_CONTENT_TYPE];
    struct str accept = call->front->http->known[HEADER_ACCEPT];
    struct h2_header headers[3];
    size_t count = 0;
    if (!attempt) {
        struct api_error error;
        api_error_unavailable(&error);
        call_error(call, &error);
        return;
    }
    copy_target(&call->target, market, row);
    attempt->call = call;
    attempt->worker = worker_ref(market_worker(market, row));
    attempt->linger.on_due = on_linger;
    attempt->sent_ns = now;
    call->attempt = attempt;
    call->open_streams++;
    call->attempts++;
    call->state = CALL_SENT;
    call_watch_deadline(call);
    running_enter(call);
    metrics_count(reactor->metrics, METRIC_RETRIES, call->attempts > 1);
    worker_begin(attempt->worker, now);
    /* What was read as JSON goes on as JSON, whatever the caller's tool called it. */
    bool is_form = call->endpoint->is_pass_through && content_type.len;
    headers[count++] = (struct h2_header){STR("content-type"), is_form ? content_type : STR("application/json")};
    if (accept.len)
        headers[count++] = (struct h2_header){STR("accept"), accept};
    headers[count++] = (struct h2_header){STR("x-request-id"), str_of(call->front->request_id)};
    struct h2_request request = {.method = STR("POST"),
                                 .path = str_of(call->endpoint->path),
                                 .headers = headers,
                                 .header_count = count,
                                 .body = buf_str(&call->body)};
    enum error error = hub_request(reactor->hub, attempt->worker, &request, &attempt_ops, attempt, &attempt->stream);
    if (error != ERR_NONE) {
        attempt->stream = NULL;
        /* Streams are used up, or the link is just going: nothing was sent, so it was no try. */
        bool is_unsent = error == ERR_BUSY || error == ERR_CLOSED;
        attempt_failed(attempt, is_unsent ? FAILURE_SLOTS : FAILURE_TRANSIENT);
        attempt_free(attempt);
    }
}
