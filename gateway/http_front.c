#include "gateway/http_front.h"
#include "core/clock.h"
#include "core/log.h"
#include "gateway/openai.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define REST_BODY_MAX ((size_t)1 << 20)
#define FREE_CALLS_MAX 256
#define STARTING_RETRY_MS 1000

const char *const front_headers[HEADER_COUNT + 1] = {
    [HEADER_AUTHORIZATION] = "authorization",
    [HEADER_ORIGIN] = "origin",
    [HEADER_ACCESS_CONTROL_REQUEST_HEADERS] = "access-control-request-headers",
    [HEADER_CONTENT_TYPE] = "content-type",
    [HEADER_ACCEPT] = "accept",
    [HEADER_IDEMPOTENCY_KEY] = "idempotency-key",
    [HEADER_STAINLESS_TIMEOUT] = "x-stainless-timeout",
    [HEADER_STAINLESS_READ_TIMEOUT] = "x-stainless-read-timeout",
    [HEADER_SESSION_ID] = "x-session-id",
    [HEADER_PREFER] = "x-sluice-prefer",
    [HEADER_MAX_PRICE] = "x-sluice-max-price",
    [HEADER_REGION] = "x-sluice-region",
    [HEADER_REQUIRE] = "x-sluice-require",
};

/* Calls to be used again, one list a reactor. */
struct front {
    struct front_call *free_calls;
    size_t free_count;
};

/* A REST handler's call: lives until it is answered, even if the caller hangs up before. */
struct rest_call {
    struct api_call api;
    struct front_call *front; /* NULL once the HTTP side has ended */
    struct reactor *reactor;
    bool is_stream;
    void (*on_gone)(struct api_call *call);
};

struct front *front_open(void)
{
    return calloc(1, sizeof(struct front));
}

struct front *front_free(struct front *front)
{
    while (front && front->free_calls) {
        struct front_call *call = front->free_calls;
        front->free_calls = call->next_free;
        free(call);
    }
    free(front);
    return NULL;
}

static struct front_call *call_new(struct reactor *reactor)
{
    struct front *front = reactor->front;
    struct front_call *call = front->free_calls;
    if (call) {
        front->free_calls = call->next_free;
        front->free_count--;
    } else if (!(call = malloc(sizeof(*call)))) {
        return NULL;
    }
    *call = (struct front_call){.reactor = reactor};
    id_new("req_", call->request_id);
    return call;
}

static void call_release(struct front_call *call)
{
    struct front *front = call->reactor->front;
    if (front->free_count >= FREE_CALLS_MAX) {
        free(call);
        return;
    }
    call->next_free = front->free_calls;
    front->free_calls = call;
    front->free_count++;
}

/* -- who is asking -- */

bool front_has_origin(const struct front_call *call)
{
    return call->http->known[HEADER_ORIGIN].ptr != NULL;
}

struct str front_bearer(const struct httpd_call *http)
{
    struct str value = http->known[HEADER_AUTHORIZATION];
    static const struct str scheme = {"bearer ", 7};
    if (value.len <= scheme.len || !str_eq_nocase((struct str){value.ptr, scheme.len}, scheme))
        return (struct str){NULL, 0};
    return str_trim((struct str){value.ptr + scheme.len, value.len - scheme.len});
}

bool front_is_admin(const struct gateway *gateway, struct str token)
{
    uint8_t digest[SHA256_BYTES];
    if (!token.ptr)
        return false;
    crypto_sha256(token, digest);
    return crypto_equal(digest, gateway->admin_key_sha256, sizeof(digest));
}

bool front_is_starting(const struct reactor *reactor, struct api_error *ret_error)
{
    if (reactor->snapshot->keyring && reactor->snapshot->is_complete)
        return false;
    api_error_set(ret_error, 503, "server_error", "starting", NULL, "The gateway is starting. Try again.");
    ret_error->retry_after_ms = STARTING_RETRY_MS;
    return true;
}

/* -- answers -- */

void front_answer(struct front_call *call, int status, struct answer *answer, struct buf *take_body)
{
    if (!call->openai) { /* which counts from the moment that the request was whole */
        int64_t span_ns = loop_now(call->reactor->loop) - call->http->started_ns;
        answer_add_number(answer, "openai-processing-ms", span_ns / NS_PER_MS);
    }
    httpd_answer(call->http, status, answer->fields, answer->count, take_body);
}

void front_error(struct front_call *call, const struct api_error *error, struct str model)
{
    struct answer answer;
    struct buf body;
    answer_init(&answer, call->request_id, front_has_origin(call));
    if (!answer_error(&answer, error, &body))
        buf_init(&body, 0);
    metrics_request(call->reactor->metrics, error->status, model, STR(""));
    front_answer(call, error->status, &answer, &body);
}

static void answer_preflight(struct front_call *call)
{
    struct answer answer;
    char asked[1024];
    answer_init(&answer, call->request_id, true);
    answer_add(&answer, "access-control-allow-methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS");
    if (str_copy(asked, sizeof(asked), call->http->known[HEADER_ACCESS_CONTROL_REQUEST_HEADERS]) && *asked)
        answer_add(&answer, "access-control-allow-headers", asked);
    answer_add(&answer, "access-control-max-age", "86400");
    metrics_request(call->reactor->metrics, 204, STR(""), STR(""));
    front_answer(call, 204, &answer, NULL);
}

/* -- the REST table -- */

static struct str rest_header(const struct api_call *api, const char *name)
{
    const struct rest_call *rest = container_of(api, struct rest_call, api);
    if (!rest->front)
        return (struct str){NULL, 0};
    for (size_t i = 0; i < HEADER_COUNT; i++)
        if (strcmp(front_headers[i], name) == 0)
            return rest->front->http->known[i];
    return (struct str){NULL, 0};
}

/* Checks the caller against what the route wants; fills who is asking. */
static bool rest_authorise(struct rest_call *rest, enum api_access access, struct api_error *ret_error)
{
    struct api_call *api = &rest->api;
    struct reactor *reactor = rest->reactor;
    struct str token = front_bearer(rest->front->http);
    if (access == API_OPEN || (access == API_LOOPBACK && api->from_loopback))
        return true;
    api->is_admin = front_is_admin(reactor->gateway, token);
    if (api->is_admin && access != API_CALLER)
        return true;
    const char *metrics_token = reactor->gateway->settings->metrics_token;
    if (access == API_LOOPBACK && metrics_token && *metrics_token && crypto_str_equal(token, str_of(metrics_token)))
        return true;
    if (!api->is_admin && front_is_starting(reactor, ret_error))
        return false;
    const struct api_key *key = token.ptr && !api->is_admin ? keyring_find(reactor->snapshot->keyring, token) : NULL;
    if (!key || (key->expires_at_ms && key->expires_at_ms <= clock_wall_ms())) {
        api_error_unauthorized(ret_error);
        return false;
    }
    if (access == API_ADMIN || access == API_LOOPBACK) {
        api_error_forbidden(ret_error);
        return false;
    }
    api->key = key;
    memcpy(api->tenant, key->tenant, sizeof(api->tenant));
    memcpy(api->key_id, key->id, sizeof(api->key_id));
    return true;
}

static void rest_begin(struct front_call *call, const struct api_route *route, const struct str *captured)
{
    struct httpd_call *http = call->http;
    struct api_error error;
    struct rest_call *rest = calloc(1, sizeof(*rest));
    if (!rest) {
        api_error_unavailable(&error);
        front_error(call, &error, STR(""));
        return;
    }
    call->rest = rest;
    rest->front = call;
    rest->reactor = call->reactor;
    struct api_call *api = &rest->api;
    *api = (struct api_call){.reactor = call->reactor,
                             .method = http->method,
                             .path = http->path,
                             .query = http->query,
                             .body = buf_str(&http->body),
                             .from_loopback = http->from_loopback,
                             .idempotency_key = http->known[HEADER_IDEMPOTENCY_KEY],
                             .header = rest_header};
    memcpy(api->request_id, call->request_id, sizeof(api->request_id));
    if (!rest_authorise(rest, route->access, &error)) {
        api_reply_error(api, &error);
    } else if (!api_params_set(api, captured)) {
        api_error_not_found(&error, "object");
        api_reply_error(api, &error);
    } else if (call->is_too_large) {
        api_error_set(&error, 413, "invalid_request_error", "too_large", NULL, "The body is larger than 1 MiB.");
        api_reply_error(api, &error);
    } else {
        route->handler(api);
    }
}

/* The HTTP side went first: what the handler borrowed from it is void, so the call keeps none of it. */
static void rest_orphan(struct rest_call *rest)
{
    rest->front = NULL;
    if (rest->is_stream && rest->on_gone)
        rest->on_gone(&rest->api);
}

static void rest_done(struct rest_call *rest)
{
    if (rest->front)
        rest->front->rest = NULL;
    free(rest);
}

void api_reply(struct api_call *api, int status, const char *content_type, struct str body)
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    struct front_call *call = rest->front;
    if (call) {
        struct answer answer;
        struct buf copy;
        buf_init(&copy, 0);
        answer_init(&answer, call->request_id, front_has_origin(call));
        if (content_type)
            answer_add(&answer, "content-type", content_type);
        if (!buf_append_str(&copy, body))
            status = 500;
        metrics_request(rest->reactor->metrics, status, STR(""), STR(""));
        front_answer(call, status, &answer, &copy);
    }
    rest_done(rest);
}

void api_reply_static(struct api_call *api, int status, const char *content_type, struct str body)
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    struct front_call *call = rest->front;
    if (call) {
        struct answer answer;
        answer_init(&answer, call->request_id, front_has_origin(call));
        answer_add(&answer, "content-type", content_type);
        metrics_request(rest->reactor->metrics, status, STR(""), STR(""));
        httpd_answer_static(call->http, status, answer.fields, answer.count, body);
    }
    rest_done(rest);
}

void api_reply_json(struct api_call *api, int status, json_t *take_json)
{
    char *text = take_json ? json_dumps(take_json, JSON_COMPACT) : NULL;
    json_decref(take_json);
    if (text) {
        api_reply(api, status, "application/json", str_of(text));
        free(text);
        return;
    }
    struct api_error error;
    api_error_set(&error, 500, "server_error", "internal_error", NULL, "The answer could not be written.");
    api_reply_error(api, &error);
}

void api_reply_empty(struct api_call *api, int status)
{
    api_reply(api, status, NULL, STR(""));
}

void api_reply_error(struct api_call *api, const struct api_error *error)
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    if (rest->front)
        front_error(rest->front, error, STR(""));
    rest_done(rest);
}

void api_stream_begin(struct api_call *api, void (*on_gone)(struct api_call *call))
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    struct answer answer;
    rest->is_stream = true;
    rest->on_gone = on_gone;
    if (!rest->front)
        return;
    answer_init(&answer, rest->front->request_id, front_has_origin(rest->front));
    answer_add(&answer, "content-type", "text/event-stream");
    answer_add(&answer, "cache-control", "no-cache");
    answer_add(&answer, "x-accel-buffering", "no");
    metrics_request(rest->reactor->metrics, 200, STR(""), STR(""));
    metrics_gauge_add(rest->reactor->metrics, METRIC_CALLS_RUNNING, -1);
    rest->front->is_listener = true;
    httpd_stream(rest->front->http, 200, answer.fields, answer.count);
}

bool api_stream_send(struct api_call *api, struct str bytes)
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    return rest->front && httpd_queued(rest->front->http) < HTTPD_STREAM_HIGH && httpd_write(rest->front->http, bytes);
}

void api_stream_end(struct api_call *api)
{
    struct rest_call *rest = container_of(api, struct rest_call, api);
    if (rest->front)
        httpd_finish(rest->front->http, NULL, 0);
    rest_done(rest);
}

/* -- the HTTP server's callbacks -- */

static void front_on_head(void *ctx, struct httpd_call *http)
{
    struct reactor *reactor = ctx;
    struct front_call *call = call_new(reactor);
    http->owner = call;
    if (!call) {
        http->discard_body = true;
        return;
    }
    call->http = http;
    metrics_gauge_add(reactor->metrics, METRIC_CALLS_RUNNING, 1);
    if (openai_takes(http))
        openai_head(call);
}

static void front_on_body(void *ctx, struct httpd_call *http, struct str bytes)
{
    struct front_call *call = http->owner;
    (void)ctx;
    if (call && call->openai) {
        openai_body_bytes(call->openai, bytes);
    } else if (call && http->body.len > REST_BODY_MAX) { /* who sends it is not known yet: keep no more */
        call->is_too_large = true;
        http->discard_body = true;
        buf_free(&http->body);
    }
}

static void answer_no_route(struct front_call *call, enum api_match match, const struct buf *allow)
{
    struct api_error error;
    struct answer answer;
    struct buf body;
    char methods[128];
    if (match == API_NO_PATH || !str_copy(methods, sizeof(methods), buf_str(allow))) {
        api_error_set(&error, 404, "invalid_request_error", "unknown_url", NULL, "Unknown path: " STR_FMT ".",
                      (int)(call->http->path.len < 120 ? call->http->path.len : 120), call->http->path.ptr);
        front_error(call, &error, STR(""));
        return;
    }
    api_error_set(&error, 405, "invalid_request_error", "method_not_allowed", NULL, "This path takes: %s.", methods);
    answer_init(&answer, call->request_id, front_has_origin(call));
    answer_add(&answer, "allow", methods);
    if (!answer_error(&answer, &error, &body))
        buf_init(&body, 0);
    metrics_request(call->reactor->metrics, 405, STR(""), STR(""));
    front_answer(call, 405, &answer, &body);
}

static void front_on_request(void *ctx, struct httpd_call *http)
{
    struct front_call *call = http->owner;
    const struct api_route *route;
    struct str captured[API_PARAMS_MAX] = {{NULL, 0}};
    struct buf allow;
    (void)ctx;
    if (!call) {
        httpd_answer(http, 503, NULL, 0, NULL);
        return;
    }
    if (call->openai) {
        openai_request(call->openai);
        return;
    }
    if (str_eq(http->method, STR("OPTIONS"))) {
        answer_preflight(call);
        return;
    }
    buf_init(&allow, 256);
    enum api_match match = openai_match(http, &allow);
    if (match == API_FOUND) {
        openai_models(call);
    } else {
        if (match == API_NO_PATH)
            match = api_match(http->method, http->path, &route, captured, &allow);
        if (match == API_FOUND)
            rest_begin(call, route, captured);
        else
            answer_no_route(call, match, &allow);
    }
    buf_free(&allow);
}

static void front_on_gone(void *ctx, struct httpd_call *http)
{
    struct front_call *call = http->owner;
    (void)ctx;
    if (call && call->openai)
        openai_gone(call->openai);
}

static void front_on_drained(void *ctx, struct httpd_call *http)
{
    struct front_call *call = http->owner;
    (void)ctx;
    if (call && call->openai)
        openai_drained(call->openai);
}

static void front_on_end(void *ctx, struct httpd_call *http, bool is_complete)
{
    struct reactor *reactor = ctx;
    struct front_call *call = http->owner;
    (void)is_complete;
    if (!call)
        return;
    if (!call->is_listener)
        metrics_gauge_add(reactor->metrics, METRIC_CALLS_RUNNING, -1);
    if (call->openai)
        openai_end(call->openai);
    if (call->rest)
        rest_orphan(call->rest);
    call->http = NULL;
    call_release(call);
}

static void front_refuse(void *ctx, int status, struct buf *ret)
{
    struct reactor *reactor = ctx;
    struct api_error error;
    struct buf body;
    char id[ID_TEXT_MAX];
    static const struct {
        int status;
        const char *reason, *code, *message;
    } refusals[] = {
        {400, "Bad Request", "bad_framing", "The request's framing is malformed or ambiguous."},
        {408, "Request Timeout", "request_timeout", "The request came too slowly."},
        {413, "Content Too Large", "body_too_large", "The request's body is larger than this gateway takes."},
        {431, "Request Header Fields Too Large", "header_too_large", "The request's head is larger than allowed."},
        {501, "Not Implemented", "unknown_coding", "Only chunked transfer coding is understood."},
        {505, "HTTP Version Not Supported", "unknown_version", "Only HTTP/1.0 and HTTP/1.1 are understood."},
    };
    size_t at = 0;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(*refusals); i++)
        if (refusals[i].status == status)
            at = i;
    id_new("req_", id);
    api_error_set(&error, refusals[at].status, "invalid_request_error", refusals[at].code, NULL, "%s",
                  refusals[at].message);
    buf_init(&body, 0);
    if (!api_error_json(&error, &body) ||
        !buf_printf(ret,
                    "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n"
                    "x-request-id: %s\r\naccess-control-allow-origin: *\r\n"
                    "access-control-expose-headers: x-request-id\r\n\r\n",
                    error.status, refusals[at].reason, body.len, id) ||
        !buf_append_str(ret, buf_str(&body)))
        buf_clear(ret);
    metrics_request(reactor->metrics, error.status, STR(""), STR(""));
    buf_free(&body);
}

const struct httpd_ops front_ops = {
    .on_head = front_on_head,
    .on_body = front_on_body,
    .on_request = front_on_request,
    .on_gone = front_on_gone,
    .on_drained = front_on_drained,
    .on_end = front_on_end,
    .refuse = front_refuse,
};
