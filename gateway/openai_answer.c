/* stream: what a worker's answer does, plain or streamed. Nothing goes to the caller before it is sure that the answer
 * is one: until then another replica can take over. */
#include "gateway/openai_call.h"
#include "core/clock.h"
#include "core/log.h"
#include "gateway/embeddings.h"
#include "gateway/openai_check.h"

#include <stdio.h>
#include <string.h>

#define LINGER_NS (5 * NS_PER_S) /* after [DONE] the worker's end of stream follows within this */

static bool is_type(struct str content_type, struct str type)
{
    return content_type.len >= type.len && str_eq_nocase((struct str){content_type.ptr, type.len}, type);
}

static bool is_json(struct str content_type)
{
    return is_type(content_type, STR("application/json"));
}

/* /v1/responses: the bytes pass as they are, but in whole events, so that an error event can take the place of the next
 * one wherever the worker's stream breaks. */
static bool is_raw_sse(const struct openai_call *call)
{
    return call->has_sse && call->sse.mode == SSE_RESPONSES;
}

static bool is_event_stream(struct str content_type)
{
    return is_type(content_type, STR("text/event-stream"));
}

/* -- the answer leaves -- */

static void send_plain(struct openai_call *call)
{
    struct answer answer;
    call->state = CALL_ANSWERED;
    if (!call->front)
        return;
    answer_init(&answer, call->front->request_id, front_has_origin(call->front));
    call_answer_headers(call, &answer, true);
    if (*call->content_type)
        answer_add(&answer, "content-type", call->content_type);
    call_observe(call, 200);
    front_answer(call->front, 200, &answer, &call->answer);
}

static void send_fault(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    struct answer answer;
    timer_clear(call->reactor->loop, &call->timer);
    attempt_over(attempt, WORKER_DONE);
    call_release_holds(call);
    call->state = CALL_ANSWERED;
    answer_init(&answer, call->front->request_id, front_has_origin(call->front));
    call_answer_headers(call, &answer, true); /* which say that it costs nothing */
    if (*call->content_type)
        answer_add(&answer, "content-type", call->content_type);
    if (call->attempts > 1)
        answer_add(&answer, "x-should-retry", "false");
    call_observe(call, attempt->status);
    front_answer(call->front, attempt->status, &answer, &call->answer);
}

static void end_transfer(struct openai_call *call)
{
    struct httpd_field trailers[2];
    char cost[MONEY_TEXT_MAX], gpu_ms[24];
    money_text(call->record.cost_usd_nano, cost);
    snprintf(gpu_ms, sizeof(gpu_ms), "%lld", (long long)call->record.gpu_ms);
    trailers[0] = (struct httpd_field){"x-sluice-cost-usd", cost};
    trailers[1] = (struct httpd_field){"x-sluice-gpu-ms", gpu_ms};
    httpd_finish(call->front->http, trailers, call->front->http->is_http10 ? 0 : 2);
}

static void finish_stream(struct openai_call *call)
{
    call->state = CALL_ANSWERED;
    if (!call->front)
        return;
    call_observe(call, 200);
    end_transfer(call);
}

/* Starts the caller's stream: from here on there is no other replica. */
static void commit(struct openai_call *call)
{
    struct answer answer;
    if (call->is_committed)
        return;
    call->is_committed = true;
    call->state = CALL_STREAMING;
    call->told_ns = loop_now(call->reactor->loop);
    timer_clear(call->reactor->loop, &call->timer);
    answer_init(&answer, call->front->request_id, front_has_origin(call->front));
    call_answer_headers(call, &answer, false);
    answer_add(&answer, "content-type", *call->content_type ? call->content_type : "application/octet-stream");
    answer_add(&answer, "cache-control", "no-cache");
    answer_add(&answer, "x-accel-buffering", "no");
    if (!call->front->http->is_http10)
        answer_add(&answer, "trailer", "x-sluice-cost-usd, x-sluice-gpu-ms");
    int64_t now = loop_now(call->reactor->loop);
    metrics_observe(call->reactor->metrics, METRIC_FIRST_TOKEN, call->model, str_of(call->target.network),
                    now - call->request_ns);
    httpd_stream(call->front->http, 200, answer.fields, answer.count);
    if (is_raw_sse(call)) /* its last event may be cut: sse_bytes sends what is whole */
        return;
    if (call->held.len && !httpd_write(call->front->http, buf_str(&call->held)))
        httpd_break(call->front->http);
    buf_free(&call->held);
}

/* Bytes for the caller: held back before the commit. False: too much is held, or out of memory. */
static bool deliver(struct openai_call *call, struct str bytes)
{
    if (!call->is_committed)
        return buf_append_str(&call->held, bytes);
    call->told_ns = loop_now(call->reactor->loop);
    return httpd_write(call->front->http, bytes);
}

/* The stream said all it had to: meter, settle, trailers. */
static void complete_stream(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    struct loop *loop = call->reactor->loop;
    commit(call);
    call_meter(call, attempt, USAGE_COMPLETED);
    call_release_holds(call);
    if (attempt->stream) /* its slot is free when its stream has ended */
        timer_set(loop, &attempt->linger, loop_now(loop) + LINGER_NS);
    call_settle(call, finish_stream);
}

/* The worker's side died in mid-stream: an error event that clients raise on in place of [DONE]. Bytes that know no
 * events end in an aborted transfer. Costs nothing. */
static void break_stream(struct attempt *attempt, bool has_error_event)
{
    struct openai_call *call = attempt->call;
    static const char error[] = "{\"message\":\"The worker's stream broke off.\",\"type\":\"server_error\","
                                "\"param\":null,\"code\":\"upstream_error\"}";
    struct buf event;
    buf_init(&event, 1024);
    call_meter(call, attempt, USAGE_BROKEN);
    attempt_over(attempt, WORKER_FAILED);
    attempt_cancel(attempt);
    call_release_holds(call);
    metrics_count(call->reactor->metrics, METRIC_BROKEN_STREAMS, 1);
    call->state = CALL_ANSWERED;
    call_observe(call, 502);
    bool is_written =
        is_raw_sse(call)
            ? buf_printf(&event,
                         "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_error\",\"message\":\"The "
                         "worker's stream broke off.\",\"param\":null,\"sequence_number\":0,\"error\":%s}\n\n",
                         error)
            : buf_printf(&event, "data: {\"error\":%s}\n\n", error);
    if (call->has_sse && !has_error_event && is_written && !httpd_write(call->front->http, buf_str(&event)))
        log_warn(NULL, "no memory for a stream's error event");
    buf_free(&event);
    if (call->has_sse)
        end_transfer(call);
    else
        httpd_break(call->front->http);
}

/* -- server-sent events -- */

static void on_event(void *arg, const struct sse_event *event)
{
    struct attempt *attempt = arg;
    struct openai_call *call = attempt->call;
    bool is_raw = is_raw_sse(call);
    if (attempt->is_over || call->has_record)
        return;
    switch (event->kind) {
    case SSE_COMMENT:
        if (call->is_committed && !is_raw && !deliver(call, event->text))
            break_stream(attempt, false);
        return;
    case SSE_CONTENT:
        commit(call);
        if (call->check)
            check_event(call, event->data);
        break;
    case SSE_USAGE:
        if (!call->wants_usage)
            return;
        break;
    case SSE_ERROR:
    case SSE_MALFORMED:
        if (!call->is_committed) {
            attempt_failed(attempt, FAILURE_TRANSIENT);
            return;
        }
        if (event->kind == SSE_ERROR && is_raw)
            return; /* it passes as it is: see raw_flush */
        if (event->kind == SSE_ERROR && !deliver(call, event->text))
            log_warn(NULL, "no memory for a stream's error event");
        break_stream(attempt, event->kind == SSE_ERROR);
        return;
    case SSE_DONE:
        if (!deliver(call, event->text)) {
            if (!call->is_committed)
                attempt_failed(attempt, FAILURE_TRANSIENT);
            return;
        }
        complete_stream(attempt);
        return;
    case SSE_OTHER:
        break;
    }
    if (!is_raw && !deliver(call, event->text)) {
        if (call->is_committed)
            break_stream(attempt, false);
        else
            attempt_failed(attempt, FAILURE_TRANSIENT);
    }
}

/* Sends what /v1/responses may have by now: the events that are whole, at the end everything. */
static void raw_flush(struct attempt *attempt, bool is_end)
{
    struct openai_call *call = attempt->call;
    size_t cut = is_end ? 0 : sse_scan_cut(&call->sse);
    size_t len = call->held.len > cut ? call->held.len - cut : 0;
    if (!call->is_committed)
        return;
    if (len && !deliver(call, (struct str){call->held.ptr, len})) {
        break_stream(attempt, false);
        return;
    }
    buf_drop_front(&call->held, len);
    if (call->sse.failed && !is_end)
        break_stream(attempt, true);
}

static void sse_bytes(struct attempt *attempt, struct str bytes)
{
    struct openai_call *call = attempt->call;
    bool is_held = !is_raw_sse(call) || call->has_record || buf_append_str(&call->held, bytes);
    if ((!is_held || sse_scan_feed(&call->sse, bytes) != ERR_NONE) && !attempt->is_over && !call->has_record)
        answer_broken(attempt);
    if (is_raw_sse(call) && !attempt->is_over && !call->has_record)
        raw_flush(attempt, false);
}

static void stream_failed(struct attempt *attempt)
{
    if (attempt->call->is_committed)
        break_stream(attempt, false);
    else
        attempt_failed(attempt, FAILURE_TRANSIENT);
}

static void sse_finished(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    if (sse_scan_end(&call->sse) != ERR_NONE || attempt->is_over) {
        if (!attempt->is_over)
            stream_failed(attempt);
        return;
    }
    if (call->has_record) { /* [DONE] came before */
        attempt_over(attempt, WORKER_DONE);
        return;
    }
    if (!sse_scan_is_complete(&call->sse)) {
        stream_failed(attempt);
        return;
    }
    if (call->sse.mode == SSE_CHAT && !deliver(call, STR("data: [DONE]\n\n"))) {
        stream_failed(attempt);
        return;
    }
    if (is_raw_sse(call)) {
        commit(call);
        raw_flush(attempt, true);
        if (attempt->is_over)
            return;
    }
    complete_stream(attempt);
    attempt_over(attempt, WORKER_DONE);
}

/* -- plain answers -- */

static bool plain_is_good(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    if (!call->has_scan) /* audio, images: any content type */
        return true;
    if (usage_scan_end(&call->scan, buf_str(&call->answer)) != ERR_NONE || call->scan.is_error)
        return false;
    bool wants_base64 = call->parsed.encoding == OPENAI_ENCODING_BASE64;
    if (call->endpoint->kind != OPENAI_EMBEDDINGS || (!wants_base64 && call->parsed.encoding != OPENAI_ENCODING_FLOAT))
        return true;
    struct buf converted;
    bool is_changed = false;
    buf_init(&converted, OPENAI_ANSWER_MAX);
    enum error error = embeddings_convert(buf_str(&call->answer), wants_base64, &converted, &is_changed);
    if (error == ERR_NONE && is_changed) {
        buf_free(&call->answer);
        call->answer = converted;
        return true;
    }
    buf_free(&converted);
    return error == ERR_NONE;
}

static void plain_finished(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    if (!plain_is_good(attempt)) {
        attempt_failed(attempt, FAILURE_TRANSIENT);
        return;
    }
    timer_clear(call->reactor->loop, &call->timer);
    if (call->check)
        check_plain(call);
    call_meter(call, attempt, USAGE_COMPLETED);
    attempt_over(attempt, WORKER_DONE);
    call_release_holds(call);
    call_settle(call, send_plain);
}

/* -- the attempt's side -- */

static void answer_reset(struct openai_call *call)
{
    if (call->has_sse)
        sse_scan_free(&call->sse);
    call->has_sse = call->has_scan = false;
    check_drop(call);
    buf_free(&call->held);
    buf_free(&call->answer);
}

bool answer_begin(struct attempt *attempt, int status, struct str content_type)
{
    struct openai_call *call = attempt->call;
    bool is_success = status >= 200 && status < 300;
    bool is_pass_through = call->endpoint->is_pass_through;
    answer_reset(call);
    /* A type that does not fit is no type of ours: it would be cut, and be another one. */
    if (!str_copy(call->content_type, sizeof(call->content_type), content_type))
        return false;
    if (!is_success) {
        attempt->mode = MODE_FAULT;
        buf_init(&call->answer, OPENAI_ERROR_MAX);
    } else if (is_event_stream(content_type) && (call->parsed.stream || is_pass_through)) {
        bool is_chat = call->endpoint->kind == OPENAI_CHAT || call->endpoint->kind == OPENAI_COMPLETIONS;
        attempt->mode = is_pass_through ? MODE_RAW : MODE_SSE;
        buf_init(&call->held, OPENAI_HELD_MAX);
        if (!is_pass_through) {
            call->held.limit += is_chat ? 0 : SSE_EVENT_MAX;
            sse_scan_init(&call->sse, is_chat ? SSE_CHAT : SSE_RESPONSES, 0, on_event, attempt);
            call->has_sse = true;
        }
    } else if (is_json(content_type)) {
        attempt->mode = MODE_PLAIN;
        buf_init(&call->answer, OPENAI_ANSWER_MAX);
        usage_scan_init(&call->scan);
        call->has_scan = true;
    } else if (is_pass_through && !is_type(content_type, STR("text/html"))) {
        attempt->mode = MODE_RAW;
        buf_init(&call->held, OPENAI_HELD_MAX);
    } else {
        return false; /* HTML or nothing known under 200 */
    }
    bool is_text = attempt->mode == MODE_SSE || attempt->mode == MODE_PLAIN;
    if (is_text && checks_draw(call->reactor->openai->checks, call->target.reputation))
        check_hold(attempt);
    return true;
}

void answer_bytes(struct attempt *attempt, struct str bytes)
{
    struct openai_call *call = attempt->call;
    switch (attempt->mode) {
    case MODE_SSE:
        sse_bytes(attempt, bytes);
        break;
    case MODE_PLAIN:
        if (!buf_append_str(&call->answer, bytes) || usage_scan_feed(&call->scan, bytes) != ERR_NONE)
            attempt_failed(attempt, FAILURE_TRANSIENT);
        break;
    case MODE_FAULT:
        if (!buf_append_str(&call->answer, bytes))
            attempt_failed(attempt, FAILURE_TRANSIENT);
        break;
    case MODE_RAW:
        commit(call);
        if (!deliver(call, bytes))
            break_stream(attempt, false);
        break;
    case MODE_HEAD:
    case MODE_REFUSE:
        break;
    }
}

void answer_finished(struct attempt *attempt)
{
    switch (attempt->mode) {
    case MODE_SSE:
        sse_finished(attempt);
        break;
    case MODE_PLAIN:
        plain_finished(attempt);
        break;
    case MODE_FAULT:
        send_fault(attempt);
        break;
    case MODE_RAW:
        complete_stream(attempt);
        attempt_over(attempt, WORKER_DONE);
        break;
    case MODE_HEAD: /* an end without a head is no answer */
        attempt_failed(attempt, FAILURE_TRANSIENT);
        break;
    case MODE_REFUSE:
        break;
    }
}

/* A stream that broke when it had said everything but its end is whole; what it began to say behind that goes. */
static bool sse_said_all(struct openai_call *call)
{
    if (!call->is_committed || call->sse.failed || !sse_scan_is_complete(&call->sse))
        return false;
    size_t cut = sse_scan_cut(&call->sse);
    if (is_raw_sse(call))
        call->held.len -= cut < call->held.len ? cut : call->held.len;
    return true;
}

void answer_broken(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    if (call->has_record) /* complete: only its end of stream was missing */
        attempt_over(attempt, WORKER_DONE);
    else if (attempt->mode == MODE_SSE && sse_said_all(call))
        sse_finished(attempt);
    else
        stream_failed(attempt);
}
