/* Calls: a stream of a link goes to the upstream and its answer back, with back-pressure, cancellation and slots. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define METHOD_MAX 16
#define PATH_MAX_BYTES 8192
#define TYPE_MAX 512

/* Freed when both its stream and its fetch have ended. */
struct agent_call {
    struct agent *agent;
    struct agent_call *next, **link;
    struct h2_stream *stream; /* NULL once it has ended */
    struct http_fetch *fetch; /* NULL before it starts and once it has ended */
    struct timer timer;       /* --delay-ms */
    struct buf body;
    bool has_slot, is_answered, is_refused;
    bool is_torn; /* the stream is being reset */
    char method[METHOD_MAX], accept[TYPE_MAX], content_type[TYPE_MAX];
    size_t path_len;
    char path[]; /* NUL-terminated */
};

/* -- the life of a call ------------------------------------------------------------------------------------------ */

static void slot_release(struct agent_call *call)
{
    if (!call->has_slot)
        return;
    call->has_slot = false;
    assert(call->agent->in_flight > 0);
    call->agent->in_flight--;
    agent_load_changed(call->agent);
}

static void call_free_if_over(struct agent_call *call)
{
    struct agent *agent = call->agent;
    if (call->stream || call->fetch)
        return;
    slot_release(call);
    timer_clear(agent->loop, &call->timer);
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    buf_free(&call->body);
    free(call);
    agent_call_ended(agent);
}

static void call_refuse(struct agent_call *call, int status, const char *fault, const char *code, const char *message)
{
    call->is_answered = call->is_refused = true;
    agent_answer_error(call->stream, status, fault, code, message);
}

/* A torn answer never looks whole. */
static void call_tear(struct agent_call *call)
{
    call->is_torn = true;
    h2_stream_cancel(call->stream, NGHTTP2_INTERNAL_ERROR);
    if (call->fetch)
        http_fetch_cancel(call->fetch);
}

/* -- from the upstream ------------------------------------------------------------------------------------------- */

static void fetch_on_head(void *ctx, int status, const struct http_header *headers, size_t count)
{
    static const struct str passed[] = {
        {"content-type", 12}, {"retry-after", 11}, {"retry-after-ms", 14}, {"x-request-id", 12}};
    struct agent_call *call = ctx;
    struct h2_header kept[sizeof(passed) / sizeof(passed[0])];
    size_t kept_count = 0;
    if (!call->stream || call->is_torn)
        return;
    for (size_t k = 0; k < sizeof(passed) / sizeof(passed[0]); k++)
        for (size_t i = 0; i < count; i++)
            if (str_eq(headers[i].name, passed[k])) {
                kept[kept_count++] = (struct h2_header){passed[k], headers[i].value};
                break;
            }
    call->is_answered = true;
    if (h2_stream_respond(call->stream, status, kept, kept_count) != ERR_NONE)
        call_tear(call);
}

static void fetch_on_data(void *ctx, struct str bytes)
{
    struct agent_call *call = ctx;
    if (!call->stream || call->is_torn)
        return;
    if (h2_stream_send(call->stream, bytes) != ERR_NONE)
        call_tear(call);
    else if (h2_stream_queued(call->stream) > H2_QUEUE_HIGH)
        http_fetch_pause(call->fetch, true);
}

static void fetch_on_end(void *ctx, enum http_end end)
{
    struct agent_call *call = ctx;
    struct agent *agent = call->agent;
    bool is_silent = !http_fetch_was_answered(call->fetch);
    call->fetch = NULL;
    slot_release(call); /* the upstream is free again, even if the answer is still on its way */
    buf_free(&call->body);
    if (end == HTTP_END_UNREACHABLE)
        agent_models_soon(agent);
    if (!call->stream || call->is_torn) {
        call_free_if_over(call);
        return;
    }
    if (end != HTTP_END_OK && !call->is_answered)
        call_refuse(call, 502, is_silent ? "upstream" : NULL,
                    end == HTTP_END_UNREACHABLE ? "upstream_unreachable" : "upstream_broken",
                    is_silent ? "The model server gave no answer." : "The model server gave no whole answer.");
    else if (end != HTTP_END_OK && h2_stream_tear(call->stream) != ERR_NONE)
        call_tear(call);
    else if (end == HTTP_END_OK && h2_stream_finish(call->stream) != ERR_NONE)
        call_tear(call);
}

static bool fetch_start(struct agent_call *call)
{
    struct agent *agent = call->agent;
    char bearer[sizeof(agent->options.upstream_key) + 8];
    struct http_header headers[3];
    size_t count = 0;
    struct buf text;
    buf_init(&text, sizeof(agent->options.upstream) + PATH_MAX_BYTES);
    bool is_good = buf_printf(&text, "%s%s", agent->options.upstream, call->path) && buf_append(&text, "", 1);
    if (call->content_type[0])
        headers[count++] = (struct http_header){STR("content-type"), str_of(call->content_type)};
    if (call->accept[0])
        headers[count++] = (struct http_header){STR("accept"), str_of(call->accept)};
    if (agent->options.upstream_key[0]) {
        memcpy(bearer, "Bearer ", 7);
        memcpy(bearer + 7, agent->options.upstream_key, strlen(agent->options.upstream_key) + 1);
        headers[count++] = (struct http_header){STR("authorization"), str_of(bearer)};
    }
    struct http_request request = {.method = call->method,
                                   .url = text.ptr,
                                   .headers = headers,
                                   .header_count = count,
                                   .body = buf_str(&call->body),
                                   .on_head = fetch_on_head,
                                   .on_data = fetch_on_data,
                                   .on_end = fetch_on_end,
                                   .ctx = call};
    is_good = is_good && http_fetch_start(agent->http, &request, &call->fetch) == ERR_NONE;
    buf_free(&text);
    if (agent->options.upstream_key[0])
        crypto_wipe(bearer, sizeof(bearer));
    return is_good;
}

static void call_go(struct agent_call *call)
{
    if (!fetch_start(call))
        call_refuse(call, 502, "upstream", "upstream_unreachable", "The call could not be sent to the model server.");
}

static void call_on_due(struct timer *timer)
{
    call_go(container_of(timer, struct agent_call, timer));
}

/* -- from the gateway -------------------------------------------------------------------------------------------- */

static void call_on_data(void *ctx, struct str bytes)
{
    struct agent_call *call = ctx;
    h2_stream_consumed(call->stream, bytes.len);
    if (!call->is_refused && !buf_append_str(&call->body, bytes))
        call_refuse(call, 413, NULL, "request_too_large", "The request is too large for this worker.");
}

static void call_on_finished(void *ctx)
{
    struct agent_call *call = ctx;
    if (call->is_refused)
        return;
    if (call->agent->options.delay_ns > 0)
        timer_set(call->agent->loop, &call->timer, loop_now(call->agent->loop) + call->agent->options.delay_ns);
    else
        call_go(call);
}

static void call_on_sent(void *ctx)
{
    struct agent_call *call = ctx;
    if (call->fetch)
        http_fetch_pause(call->fetch, false);
}

static void call_on_end(void *ctx, enum h2_end end)
{
    struct agent_call *call = ctx;
    (void)end;
    call->stream = NULL;
    if (call->fetch)
        http_fetch_cancel(call->fetch); /* its on_end frees the call */
    call_free_if_over(call);
}

static bool is_path(struct str path)
{
    if (path.len >= PATH_MAX_BYTES)
        return false;
    for (size_t i = 0; i < path.len; i++)
        if (path.ptr[i] <= ' ' || path.ptr[i] >= 0x7f || path.ptr[i] == '#')
            return false;
    /* Nothing that climbs out of /v1/. */
    for (size_t i = 0; i + 1 < path.len && path.ptr[i] != '?'; i++)
        if ((path.ptr[i] == '/' && path.ptr[i + 1] == '.') || path.ptr[i] == '\\' ||
            (path.ptr[i] == '%' && path.ptr[i + 1] == '2'))
            return false;
    return true;
}

static bool is_method(struct str method)
{
    for (size_t i = 0; i < method.len; i++)
        if (method.ptr[i] < 'A' || method.ptr[i] > 'Z')
            return false;
    return method.len > 0 && method.len < METHOD_MAX;
}

bool agent_call_open(struct agent *agent, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                     const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    static const struct h2_stream_ops ops = {
        .on_data = call_on_data, .on_finished = call_on_finished, .on_sent = call_on_sent, .on_end = call_on_end};
    struct str method = headers[0].value, path = headers[1].value;
    *ret_ops = &agent_drop_ops;
    *ret_ctx = stream;
    if (agent->is_draining) {
        agent_answer_error(stream, 503, "draining", "draining", "This worker is draining.");
        return true;
    }
    if (agent->in_flight >= agent->options.slots) {
        agent_answer_error(stream, 429, "slots", "slots_full", "All slots of this worker are taken.");
        return true;
    }
    struct agent_call *call = calloc(1, sizeof(*call) + path.len + 1);
    if (!call)
        return false;
    call->agent = agent;
    call->stream = stream;
    call->timer.on_due = call_on_due;
    buf_init(&call->body, AGENT_BODY_MAX);
    bool is_good = is_method(method) && is_path(path) && str_copy(call->method, sizeof(call->method), method) &&
                   str_copy(call->path, path.len + 1, path);
    for (size_t i = 2; is_good && i < count; i++) {
        if (str_eq(headers[i].name, STR("content-type")))
            is_good = str_copy(call->content_type, sizeof(call->content_type), headers[i].value);
        else if (str_eq(headers[i].name, STR("accept")))
            is_good = str_copy(call->accept, sizeof(call->accept), headers[i].value);
    }
    if (!is_good) {
        free(call);
        agent_answer_error(stream, 400, NULL, "bad_request", "This worker cannot forward that request.");
        return true;
    }
    call->next = agent->calls;
    call->link = &agent->calls;
    if (call->next)
        call->next->link = &call->next;
    agent->calls = call;
    call->has_slot = true;
    agent->in_flight++;
    agent_load_changed(agent);
    *ret_ops = &ops;
    *ret_ctx = call;
    return true;
}

void agent_calls_cancel(struct agent *agent)
{
    for (struct agent_call *call = agent->calls, *next; call; call = next) {
        next = call->next;
        if (call->stream)
            h2_stream_cancel(call->stream, NGHTTP2_CANCEL);
        if (call->fetch)
            http_fetch_cancel(call->fetch);
    }
}
