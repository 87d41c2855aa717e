/* Requests of a call: when they may go, how they are sent, what their answers mean. */
#include "adapters/network_priv.h"

#include <assert.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RETRY_AFTER_MAX_MS INT64_C(3600000)
#define STRIKE_NS NS_PER_S /* without a word from the network: 1 s, 2 s, 4 s ... */
#define STRIKES_MAX 5
#define CODE_MAX 128
#define WALK_PAUSE_NS (50 * NS_PER_MS)

static void request_send(struct adapter_call *call);

/* -- what an answer means -- */

static struct str answer_header(const struct adapter_answer *answer, const char *lower_name)
{
    for (size_t i = 0; i < answer->header_count; i++)
        if (str_eq(answer->headers[i].name, str_of(lower_name)))
            return answer->headers[i].value;
    return (struct str){NULL, 0};
}

static bool str_has_nocase(struct str s, struct str part)
{
    for (size_t i = 0; part.len <= s.len && i <= s.len - part.len; i++)
        if (str_eq_nocase((struct str){s.ptr + i, part.len}, part))
            return true;
    return false;
}

static enum supply_error classify_status(enum adapter_op op, int status)
{
    bool has_instance = op == ADAPTER_DESCRIBE || op == ADAPTER_LOGS || op == ADAPTER_STOP || op == ADAPTER_TERMINATE;
    switch (status) {
    case 401:
    case 403:
        return SUPPLY_BAD_CREDENTIAL;
    case 402:
        return SUPPLY_NO_FUNDS;
    case 404:
    case 410:
        return has_instance ? SUPPLY_NOT_FOUND : SUPPLY_UNKNOWN;
    case 409:
    case 423:
        return has_instance ? SUPPLY_NOT_YET : SUPPLY_UNKNOWN;
    case 400:
    case 413:
    case 415:
    case 422:
        return SUPPLY_BAD_REQUEST;
    case 429:
        return SUPPLY_RATE_LIMITED;
    case 408:
        return SUPPLY_TRANSIENT;
    default:
        return status >= 500 ? SUPPLY_TRANSIENT : SUPPLY_UNKNOWN;
    }
}

enum supply_error adapter_classify(const struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct adapter *adapter = call->network->adapter;
    struct str code = {NULL, 0}, said = {NULL, 0};
    message_explain(adapter, answer, &code, &said);
    for (const struct adapter_error_row *row = adapter->errors; row && row->error != SUPPLY_OK; row++) {
        if ((!row->status || row->status == answer->status) && (!row->code || str_eq(str_of(row->code), code)) &&
            (!row->phrase || str_has_nocase(said, str_of(row->phrase))))
            return row->error;
    }
    return classify_status(call->op, answer->status);
}

static int64_t retry_after_ms(const struct adapter_answer *answer)
{
    struct str value = str_trim(answer_header(answer, "retry-after"));
    double seconds;
    char text[64];
    if (!value.len || !str_copy(text, sizeof(text), value))
        return 0;
    if (!str_to_double(value, &seconds)) {
        time_t at = curl_getdate(text, NULL);
        seconds = at < 0 ? 0 : difftime(at, (time_t)(clock_wall_ms() / 1000));
    }
    if (!(seconds > 0))
        return 0;
    return seconds * 1000 > (double)RETRY_AFTER_MAX_MS ? RETRY_AFTER_MAX_MS : (int64_t)(seconds * 1000);
}

void adapter_fail_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (call->is_over)
        return;
    struct str code = {NULL, 0}, said = {NULL, 0};
    message_explain(call->network->adapter, answer, &code, &said);
    enum supply_error error = adapter_classify(call, answer);
    if (error != SUPPLY_TRANSIENT && error != SUPPLY_UNKNOWN)
        call->is_uncertain = false;
    if (error == SUPPLY_RATE_LIMITED || error == SUPPLY_TRANSIENT)
        call->result.retry_after_ms = retry_after_ms(answer);
    adapter_fail(call, error, said.len ? said : code);
}

/* -- the pace -- */

static int64_t paced(const struct network *network, int64_t interval_ns)
{
    return interval_ns / 100 * network->pace_percent;
}

static void request_queue(struct adapter_call *call);
static void request_last_turn(struct adapter_call *call);

static void request_seen(struct network *network, enum adapter_op op)
{
    int64_t now = loop_now(network->loop);
    int64_t by_op = paced(network, network->adapter->interval_ns[op]);
    int64_t by_any = paced(network, network->adapter->any_interval_ns);
    network->seen_ns[op] = by_op ? now + by_op : 0;
    network->any_seen_ns = by_any ? now + by_any : 0;
}

static void request_wait(struct adapter_call *call, int64_t at, void (*then)(struct adapter_call *call))
{
    if (at <= loop_now(call->network->loop)) {
        then(call);
        return;
    }
    call->then = then;
    timer_set(call->network->loop, &call->wake, at);
}

/* The operation's turn has come: now that of all requests together. A pause may have been asked for since. */
static void request_turn(struct adapter_call *call)
{
    struct network *network = call->network;
    int64_t now = loop_now(network->loop);
    if (network->hold_ns[call->op] > now) {
        request_queue(call);
        return;
    }
    if (call->op == ADAPTER_TERMINATE) { /* what bills is ended before anything is looked at */
        request_last_turn(call);
        return;
    }
    int64_t at = network->any_next_ns > now ? network->any_next_ns : now;
    network->any_next_ns = at + paced(network, network->adapter->any_interval_ns);
    request_wait(call, at, request_last_turn);
}

/* What was sent before may have been long on its way: the network counts from when it came. */
static void request_last_turn(struct adapter_call *call)
{
    const struct network *network = call->network;
    int64_t by_op = network->seen_ns[call->op], by_any = network->any_seen_ns;
    int64_t at = by_op > by_any ? by_op : by_any;
    request_wait(call, at, at > loop_now(network->loop) ? request_last_turn : request_send);
}

static void request_queue(struct adapter_call *call)
{
    struct network *network = call->network;
    enum adapter_op op = call->op;
    int64_t at = loop_now(network->loop);
    if (at < network->next_ns[op])
        at = network->next_ns[op];
    if (at < network->hold_ns[op])
        at = network->hold_ns[op];
    if (at >= call->due_ns) {
        call->result.retry_after_ms = (at - loop_now(network->loop)) / NS_PER_MS;
        adapter_fail(call, SUPPLY_RATE_LIMITED, STR("it may not be asked again yet"));
        return;
    }
    network->next_ns[op] = at + paced(network, network->adapter->interval_ns[op]);
    request_wait(call, at, request_turn);
}

/* The network asked for a pause: nobody asks this of it for a while. True: the same request goes again. */
static bool request_again(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct network *network = call->network;
    enum adapter_op op = call->op;
    unsigned strikes = network->strikes[op]++;
    int64_t told = retry_after_ms(answer) * NS_PER_MS;
    int64_t wait = told ? told : paced(network, STRIKE_NS << (strikes < STRIKES_MAX ? strikes : STRIKES_MAX));
    int64_t until = loop_now(network->loop) + wait;
    if (network->hold_ns[op] < until)
        network->hold_ns[op] = until;
    if (call->request.retries >= RATE_RETRIES_MAX || until >= call->due_ns)
        return false;
    call->request.retries++;
    call->request.is_sent = false;
    request_queue(call);
    return true;
}

/* A walk through pages or instances is not lost with one of its many requests: the same one goes again. */
static bool request_again_in_walk(struct adapter_call *call)
{
    struct call_request *request = &call->request;
    int64_t at = loop_now(call->network->loop) + (WALK_PAUSE_NS << request->again);
    if ((call->op != ADAPTER_LIST && call->op != ADAPTER_OFFERS) || request->creates || !call->answers ||
        request->again == WALK_RETRIES_MAX || at >= call->due_ns)
        return false;
    request->again++;
    request->is_sent = false;
    request_wait(call, at, request_queue);
    return true;
}

/* -- one exchange -- */

static void request_clear(struct adapter_call *call)
{
    free(call->request.json_body);
    call->request = (struct call_request){0};
    buf_free(&call->body);
    buf_clear(&call->head_bytes);
    call->head_count = 0;
    call->status = 0;
}

void request_drop(struct adapter_call *call)
{
    if (call->fetch)
        http_fetch_cancel(call->fetch);
}

static void on_head(void *ctx, int status, const struct http_header *headers, size_t count)
{
    struct adapter_call *call = ctx;
    call->status = status;
    call->head_count = 0;
    size_t ends[ANSWER_HEADERS_MAX][2];
    for (size_t i = 0; i < count && call->head_count < ANSWER_HEADERS_MAX; i++) {
        if (!buf_append_str(&call->head_bytes, headers[i].name) || !buf_append_str(&call->head_bytes, headers[i].value))
            break;
        ends[call->head_count][0] = call->head_bytes.len - headers[i].value.len;
        ends[call->head_count++][1] = call->head_bytes.len;
    }
    size_t at = 0; /* the buffer may have moved while it grew */
    for (size_t i = 0; i < call->head_count; i++) {
        const char *bytes = call->head_bytes.ptr;
        call->head[i].name = (struct str){bytes + at, ends[i][0] - at};
        call->head[i].value = (struct str){bytes + ends[i][0], ends[i][1] - ends[i][0]};
        at = ends[i][1];
    }
}

static void on_data(void *ctx, struct str bytes)
{
    struct adapter_call *call = ctx;
    if (call->is_over)
        return;
    if (call->request.on_data && call->status >= 200 && call->status < 300)
        call->request.on_data(call, bytes);
    else if (!buf_append_str(&call->body, bytes))
        adapter_fail(call, SUPPLY_TRANSIENT, STR("out of memory"));
}

/* Hands the answer on; the request's own fields are free for the next one then. */
static void answer_deliver(struct adapter_call *call, struct adapter_answer *answer)
{
    struct network *network = call->network;
    bool is_good = answer->status >= 200 && answer->status < 300, creates = call->request.creates;
    bool wants_json = is_good && !call->request.accept && !call->request.on_data;
    adapter_answer_fn *on_answer = call->request.on_answer;
    enum supply_error error = is_good ? SUPPLY_OK : adapter_classify(call, answer);
    call->result.http_status = answer->status;
    if (error == SUPPLY_RATE_LIMITED && request_again(call, answer))
        return;
    if ((error == SUPPLY_TRANSIENT || (wants_json && !answer->json && str_trim(answer->body).len)) &&
        request_again_in_walk(call))
        return;
    call->answers += is_good;
    if (is_good)
        network->strikes[call->op] = 0;
    if (creates) /* a refusal that is understood made nothing; all else may have */
        call->is_uncertain =
            is_good || (answer->status >= 500 && (error == SUPPLY_TRANSIENT || error == SUPPLY_UNKNOWN));
    bool takes_errors = call->request.takes_errors;
    struct buf body = call->body, head_bytes = call->head_bytes; /* stay until the adapter has seen them */
    call->body = (struct buf){0};
    buf_init(&call->head_bytes, head_bytes.limit);
    request_clear(call);
    if (wants_json && !answer->json && str_trim(answer->body).len)
        adapter_fail(call, SUPPLY_TRANSIENT, STR("it answered something that is no JSON"));
    else if (!is_good && !takes_errors)
        adapter_fail_answer(call, answer);
    else
        on_answer(call, answer);
    buf_free(&body);
    buf_free(&head_bytes);
}

static void on_end(void *ctx, enum http_end end)
{
    struct adapter_call *call = ctx;
    call->fetch = NULL;
    if (call->is_over) {
        call_release(call);
        return;
    }
    request_seen(call->network, call->op);
    static const struct str why[] = {
        [HTTP_END_UNREACHABLE] = STR("it cannot be reached"),
        [HTTP_END_BROKEN] = STR("the connection broke before it answered"),
        [HTTP_END_DEADLINE] = STR("no answer in time"),
        [HTTP_END_TOO_LARGE] = STR("its answer is larger than what is taken from it"),
        [HTTP_END_CANCELLED] = STR("closed"),
    };
    if (end != HTTP_END_OK && end != HTTP_END_TOO_LARGE && request_again_in_walk(call))
        return;
    if (end != HTTP_END_OK) {
        if (end == HTTP_END_UNREACHABLE && call->request.creates)
            call->is_uncertain = false;
        adapter_fail(call, SUPPLY_TRANSIENT, why[end]);
        return;
    }
    json_t *json = call->body.len ? json_loadb(call->body.ptr, call->body.len, JSON_DECODE_ANY, NULL) : NULL;
    if (json && !json_is_object(json) && !json_is_array(json)) {
        json_decref(json);
        json = NULL;
    }
    struct adapter_answer answer = {call->status,  buf_str(&call->body), json,
                                    answer_header, call->head,           call->head_count};
    struct http_header head[ANSWER_HEADERS_MAX]; /* the call's own is free for the next request */
    memcpy(head, call->head, sizeof(head[0]) * call->head_count);
    answer.headers = head;
    answer_deliver(call, &answer);
    json_decref(json);
}

static void request_send(struct adapter_call *call)
{
    struct network *network = call->network;
    struct call_request *request = &call->request;
    if (call->fetch || call->is_over)
        return;
    buf_free(&call->body);
    buf_init(&call->body, request->body_max);
    buf_clear(&call->head_bytes);
    struct http_request http = {.method = request->method,
                                .url = request->url.ptr,
                                .headers = request->headers,
                                .header_count = request->header_count,
                                .body = request->body,
                                .body_max = request->body_max,
                                .aws_sigv4 = request->aws_sigv4,
                                .user = network_credential(network, "access_key"),
                                .password = network_credential(network, "secret_key"),
                                .ca_file = network_option(network, "ca_file"),
                                .client_cert = network_option(network, "client_cert_file"),
                                .client_key = network_option(network, "client_key_file"),
                                .on_head = on_head,
                                .on_data = on_data,
                                .on_end = on_end,
                                .ctx = call};
    enum error error = http_fetch_start(network->http, &http, &call->fetch);
    if (error) {
        adapter_fail(call, error == ERR_BAD_INPUT ? SUPPLY_BAD_REQUEST : SUPPLY_TRANSIENT,
                     STR("the request could not be sent"));
        return;
    }
    request->is_sent = true;
    request_seen(network, call->op);
    if (request->creates)
        call->is_uncertain = true;
}

/* -- what adapters call -- */

void adapter_header(struct adapter_call *call, const char *name, struct str value)
{
    if (call->is_over)
        return;
    assert(call->pending_count < CALL_HEADERS_MAX);
    call->pending[call->pending_count++] = (struct http_header){call_copy(call, str_of(name)), call_copy(call, value)};
}

static void authorise(struct adapter_call *call)
{
    const struct adapter *adapter = call->network->adapter;
    if (adapter->authorise) {
        adapter->authorise(call->network, call);
        return;
    }
    const char *key = network_credential(call->network, "api_key");
    if (!key || call->request.aws_sigv4)
        return;
    struct str value = adapter_text(call, "Bearer %s", key);
    adapter_header(call, "Authorization", value);
}

static bool request_set_body(struct adapter_call *call, const struct adapter_request *from)
{
    struct call_request *request = &call->request;
    if (!from->take_json) {
        request->body = call_copy(call, from->body);
        return !from->body.ptr || request->body.ptr;
    }
    request->json_body = json_dumps(from->take_json, JSON_COMPACT);
    request->body = str_of(request->json_body);
    if (!request->json_body)
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the order cannot be written as JSON"));
    if (!request->content_type)
        request->content_type = "application/json";
    return request->json_body;
}

void adapter_send(struct adapter_call *call, const struct adapter_request *from)
{
    assert(from->on_answer && !call->fetch);
    if (call->is_over) {
        json_decref(from->take_json);
        return;
    }
    assert(!call->request.url.len && !call->then);
    struct call_request *request = &call->request;
    *request = (struct call_request){.method = from->method ? from->method : "GET",
                                     .content_type = from->content_type,
                                     .accept = from->accept,
                                     .aws_sigv4 = from->aws_sigv4,
                                     .creates = from->creates,
                                     .takes_errors = from->takes_errors,
                                     .body_max = from->body_max ? from->body_max : ANSWER_BODY_MAX,
                                     .on_answer = from->on_answer,
                                     .on_data = from->on_data};
    bool is_whole = str_starts(from->path, STR("http://")) || str_starts(from->path, STR("https://"));
    struct str url = adapter_text(call, "%s" STR_FMT, is_whole ? "" : call->network->base_url, STR_ARG(from->path));
    bool is_set = url.ptr && request_set_body(call, from);
    json_decref(from->take_json);
    authorise(call);
    if (request->content_type && request->body.len)
        adapter_header(call, "Content-Type", str_of(request->content_type));
    adapter_header(call, "Accept", request->accept ? str_of(request->accept) : STR("application/json"));
    if (!request->aws_sigv4) /* all headers are signed then, and this one is rewritten on the way by some */
        adapter_header(call, "User-Agent", STR("sluice"));
    if (call->is_over || !is_set)
        return;
    memcpy(request->headers, call->pending, sizeof(call->pending[0]) * call->pending_count);
    request->header_count = call->pending_count;
    call->pending_count = 0;
    request->url = url;
    request_queue(call);
}
