/* accept, authenticate, admit, choose: from a request to a replica with money held for it, or to the right error. */
#include "gateway/openai_call.h"
#include "core/clock.h"
#include "core/log.h"
#include "gateway/openai_check.h"
#include "gateway/prefer.h"

#include <stdlib.h>
#include <string.h>

#define CREDIT_ROUNDS_MAX 8
#define BUSY_RETRY_MS 1000
#define SLOT_PAUSE_NS (10 * NS_PER_MS)

static void on_timer(struct timer *timer);
static void on_credit(struct credit_waiter *waiter, bool has_funds, enum error error);

/* -- the head -- */

/* Who is asking. The key's table is kept for the whole call. */
static bool authenticate(struct openai_call *call)
{
    struct reactor *reactor = call->reactor;
    struct str token = front_bearer(call->front->http);
    const struct keyring *keyring = reactor->snapshot->keyring;
    if (front_is_starting(reactor, &call->refusal))
        return false;
    const struct api_key *key = token.ptr ? keyring_find(keyring, token) : NULL;
    if (!key || (key->expires_at_ms && key->expires_at_ms <= clock_wall_ms())) {
        api_error_unauthorized(&call->refusal);
        if (key)
            str_copy(call->refusal.message, sizeof(call->refusal.message), STR("This API key has expired."));
        return false;
    }
    call->key = key;
    call->snapshot = snapshot_ref(reactor->snapshot);
    return true;
}

void openai_head(struct front_call *front)
{
    struct openai_call *call = calloc(1, sizeof(*call));
    if (!call) {
        front->http->discard_body = true;
        return;
    }
    front->openai = call;
    call->reactor = front->reactor;
    call->front = front;
    call->endpoint = openai_endpoint(front->http->path);
    call->timer.on_due = on_timer;
    call->credit_waiter.on_answer = on_credit;
    call->query.max_price_usd_nano = -1;
    call->rate_left = -1; /* not counted yet: no x-ratelimit headers */
    call->is_refused = !authenticate(call);
    front->http->discard_body = call->is_refused;
    openai_body_init(&call->parsed, call->endpoint->kind);
}

static bool is_multipart(const struct openai_call *call)
{
    return call->endpoint->is_pass_through &&
           str_starts(call->front->http->known[HEADER_CONTENT_TYPE], STR("multipart/"));
}

static void refuse_body(struct openai_call *call)
{
    call->is_refused = true;
    call->front->http->discard_body = true;
    api_error_bad_request(&call->refusal, call->parsed.param, "%s", call->parsed.message);
}

void openai_body_bytes(struct openai_call *call, struct str bytes)
{
    if (!call->is_refused && !is_multipart(call) && openai_body_feed(&call->parsed, bytes) != ERR_NONE)
        refuse_body(call);
}

/* -- errors -- */

void call_release_holds(struct openai_call *call)
{
    running_leave(call);
    if (call->held_balance)
        credit_charge(call->key->balance, call->held_balance, 0);
    if (call->held_budget)
        credit_charge(call->key->budget, call->held_budget, 0);
    call->held_balance = call->held_budget = 0;
    if (call->is_running)
        key_concurrency_leave(call->key->limits);
    call->is_running = false;
}

void call_error(struct openai_call *call, struct api_error *error)
{
    struct answer answer;
    struct buf body;
    queue_leave(call);
    timer_clear(call->reactor->loop, &call->timer);
    call_release_holds(call);
    call->state = CALL_ANSWERED;
    if (!call->front)
        return;
    if (call->attempts > 1)
        error->no_retry = true;
    answer_init(&answer, call->front->request_id, front_has_origin(call->front));
    call_answer_headers(call, &answer, false);
    if (!answer_error(&answer, error, &body))
        buf_init(&body, 0);
    call_observe(call, error->status);
    front_answer(call->front, error->status, &answer, &body);
}

/* -- deadlines -- */

static int64_t header_seconds_ns(struct str text)
{
    double seconds;
    if (!str_to_double(str_trim(text), &seconds) || !(seconds > 0) || seconds > 86400)
        return INT64_MAX;
    return (int64_t)(seconds * (double)NS_PER_S);
}

static int64_t client_wait_ns(const struct httpd_call *http)
{
    int64_t a = header_seconds_ns(http->known[HEADER_STAINLESS_TIMEOUT]);
    int64_t b = header_seconds_ns(http->known[HEADER_STAINLESS_READ_TIMEOUT]);
    int64_t least = a < b ? a : b;
    return least == INT64_MAX ? OPENAI_WAIT_DEFAULT_NS : least;
}

void call_watch_deadline(struct openai_call *call)
{
    struct loop *loop = call->reactor->loop;
    int64_t due = call->deadline_ns;
    if (call->state == CALL_QUEUED) {
        int64_t wait_ns = call->reactor->gateway->settings->limits.queue_wait_ms * NS_PER_MS;
        int64_t queue_due = call->queue_from_ns + wait_ns - call->queued_ns;
        due = queue_due < due ? queue_due : due;
    }
    timer_set(loop, &call->timer, due);
}

static void on_timer(struct timer *timer)
{
    struct openai_call *call = container_of(timer, struct openai_call, timer);
    struct api_error error;
    if (call->state == CALL_SETTLING) { /* the journal has the record: the answer need not wait for ever */
        log_warn(NULL, "the ledger did not acknowledge a record in time");
        settle_wait_cancel(&call->settle_waiter);
        call->after_settle(call);
        return;
    }
    if (call->attempt)
        attempt_cancel(call->attempt);
    if (call->waits_for)
        credit_wait_cancel(&call->credit_waiter);
    call->waits_for = NULL;
    if (loop_now(call->reactor->loop) >= call->deadline_ns) {
        api_error_set(&error, 504, "server_error", "deadline_exceeded", NULL,
                      "No answer came within the time that the client gave.");
    } else {
        api_error_set(&error, 503, "server_error", "overloaded", NULL, "No slot became free in time. Try again later.");
        error.retry_after_ms = BUSY_RETRY_MS;
    }
    call_error(call, &error);
    call_free_if_over(call);
}

/* -- admission -- */

static void affinity(struct openai_call *call)
{
    const struct httpd_call *http = call->front->http;
    struct str of = http->known[HEADER_SESSION_ID];
    if (!of.len && !is_multipart(call))
        of = openai_body_affinity(&call->parsed, buf_str(&call->body));
    /* The same words under another key are another session: nobody can steer another tenant's home. */
    uint64_t seed = str_hash(str_of(call->key->tenant), 0x51ce);
    call->query.affinity = of.len ? str_hash(of, seed) | 1 : 0;
}

static bool read_model(struct openai_call *call, struct api_error *error)
{
    struct str text = buf_str(&call->body);
    if (is_multipart(call)) {
        struct str model = multipart_model(call->front->http->known[HEADER_CONTENT_TYPE], text);
        if (!model.len || !str_copy(call->multipart_model, sizeof(call->multipart_model), model)) {
            api_error_bad_request(error, "model", "The form names no model.");
            return false;
        }
        call->model = str_of(call->multipart_model);
        return true;
    }
    if (openai_body_end(&call->parsed, text) != ERR_NONE) {
        api_error_bad_request(error, call->parsed.param, "%s", call->parsed.message);
        return false;
    }
    call->model = (struct str){call->parsed.model, call->parsed.model_len};
    call->wants_usage = call->parsed.include_usage;
    return true;
}

static bool admit_model(struct openai_call *call, struct api_error *error)
{
    struct str target;
    const struct market *market = call->reactor->snapshot->market;
    uint32_t model = market_model(market, call->model, &target);
    int shown = (int)(call->model.len < 100 ? call->model.len : 100);
    if (model == MARKET_NONE) {
        api_error_set(error, 404, "invalid_request_error", "model_not_found", "model",
                      "The model '%.*s' does not exist or no worker serves it now.", shown, call->model.ptr);
        return false;
    }
    if (!api_key_allows_model(call->key, call->model)) {
        api_error_set(error, 403, "invalid_request_error", "model_not_allowed", "model",
                      "This API key may not use the model '%.*s'.", shown, call->model.ptr);
        return false;
    }
    return true;
}

/* The body as the worker gets it: an alias mapped, usage asked for. */
static bool splice_body(struct openai_call *call, struct api_error *error)
{
    struct str target;
    const struct market *market = call->reactor->snapshot->market;
    bool is_chat = call->endpoint->kind == OPENAI_CHAT || call->endpoint->kind == OPENAI_COMPLETIONS;
    if (market_model(market, call->model, &target) == MARKET_NONE)
        return true;
    struct str alias = str_eq(target, call->model) ? (struct str){NULL, 0} : target;
    if (is_multipart(call)) {
        call->body.limit += OPENAI_BODY_SLACK;
        struct str type = call->front->http->known[HEADER_CONTENT_TYPE];
        if (!alias.ptr || multipart_set_model(type, &call->body, alias))
            return true;
        api_error_from(error, ERR_NO_MEMORY);
        return false;
    }
    bool want_usage = is_chat && call->parsed.stream && !call->parsed.include_usage;
    if (!alias.ptr && !want_usage)
        return true;
    call->body.limit += OPENAI_BODY_SLACK;
    enum error failed = openai_body_splice(&call->parsed, &call->body, alias, want_usage);
    if (failed != ERR_NONE)
        api_error_from(error, failed);
    return failed == ERR_NONE;
}

static bool admit_limits(struct openai_call *call, struct api_error *error)
{
    int64_t retry_ms = 0;
    if (!key_concurrency_enter(call->key)) {
        api_error_set(error, 429, "rate_limit_error", "concurrency_limit_exceeded", NULL,
                      "This API key has its %d calls running already.", (int)call->key->max_concurrency);
        error->retry_after_ms = BUSY_RETRY_MS;
        return false;
    }
    call->is_running = true;
    if (!key_rate_take(call->key, loop_now(call->reactor->loop), &retry_ms, &call->rate_left, &call->rate_reset_ms)) {
        api_error_set(error, 429, "rate_limit_error", "rate_limit_exceeded", NULL,
                      "This API key's %d requests a minute are used up.", (int)call->key->rpm);
        error->retry_after_ms = retry_ms;
        return false;
    }
    return true;
}

static bool admit(struct openai_call *call, struct api_error *error)
{
    const struct httpd_call *http = call->front->http;
    struct prefer_headers wishes = {http->known[HEADER_PREFER], http->known[HEADER_MAX_PRICE],
                                    http->known[HEADER_REGION], http->known[HEADER_REQUIRE]};
    if (!read_model(call, error) || !prefer_parse(&wishes, &call->query, error) || !admit_model(call, error))
        return false;
    if (journal_is_nearly_full(call->reactor->journal) && !redis_is_connected(call->reactor->redis)) {
        api_error_unavailable(error);
        return false;
    }
    if (!admit_limits(call, error))
        return false;
    affinity(call);
    return splice_body(call, error);
}

void openai_request(struct openai_call *call)
{
    struct api_error error;
    call->request_ns = loop_now(call->reactor->loop);
    call->deadline_ns = call->request_ns + client_wait_ns(call->front->http);
    if (call->is_refused) {
        call_error(call, &call->refusal);
        return;
    }
    call->body = call->front->http->body;
    call->front->http->body = (struct buf){0};
    if (!admit(call, &error)) {
        call_error(call, &error);
        return;
    }
    call_dispatch(call);
}

/* -- money -- */

static void wait_for_credit(struct openai_call *call, struct credit *credit)
{
    queue_leave(call);
    call->state = CALL_CREDIT;
    call->waits_for = credit;
    call_watch_deadline(call);
    credit_wait(call->reactor->credit_gate, credit, &call->credit_waiter);
}

static void refuse_no_funds(struct openai_call *call, bool is_budget)
{
    struct api_error error;
    api_error_set(&error, 429, "insufficient_quota", is_budget ? "budget_exceeded" : "insufficient_quota", NULL,
                  is_budget ? "This API key's budget is used up."
                            : "The balance is used up. Add credit and try again.");
    error.no_retry = true;
    call_error(call, &error);
}

static void on_credit(struct credit_waiter *waiter, bool has_funds, enum error error)
{
    struct openai_call *call = container_of(waiter, struct openai_call, credit_waiter);
    bool is_budget = call->waits_for == call->key->budget;
    call->waits_for = NULL;
    timer_clear(call->reactor->loop, &call->timer);
    if (error != ERR_NONE) {
        struct api_error refusal;
        api_error_unavailable(&refusal);
        call_error(call, &refusal);
    } else if (!has_funds || ++call->credit_rounds > CREDIT_ROUNDS_MAX) {
        refuse_no_funds(call, is_budget);
    } else {
        call_dispatch(call);
    }
    call_free_if_over(call);
}

/* Holds as much as is wanted, or what is left of it. False: nothing is, the call waits for credit. */
static bool hold_one(struct openai_call *call, struct credit *credit, int64_t *held, int64_t want)
{
    if (*held >= want)
        return true;
    *held += credit_take(credit, want - *held);
    if (!*held) {
        wait_for_credit(call, credit);
        return false;
    }
    credit_renew_if_low(call->reactor->credit_gate, credit);
    return true;
}

static bool hold_money(struct openai_call *call, int64_t want)
{
    const struct api_key *key = call->key;
    return want == 0 || (hold_one(call, key->balance, &call->held_balance, want) &&
                         (!key->budget || hold_one(call, key->budget, &call->held_budget, want)));
}

/* Who has no money takes no place in the queue: a sign of it is held unless some replica is free of charge. */
static int64_t queue_hold(const struct market *market, uint32_t model)
{
    size_t count;
    const uint32_t *rows = market_replicas(market, model, &count);
    for (size_t i = 0; i < count; i++)
        if (market_price(market, rows[i]) == 0)
            return 0;
    return 1;
}

/* -- choice -- */

static void refuse_no_match(struct openai_call *call)
{
    struct api_error error;
    api_error_set(&error, 503, "server_error", "no_worker_matches", NULL,
                  "No worker for this model fits the request's constraints.");
    error.no_retry = true;
    call_error(call, &error);
}

/* The model was served when the call came, and its last worker has left for good since. */
static void refuse_gone(struct openai_call *call)
{
    struct api_error error;
    api_error_set(&error, 503, "server_error", "overloaded", NULL,
                  "The last worker for this model has just gone. Try again later.");
    error.retry_after_ms = BUSY_RETRY_MS;
    call_error(call, &error);
}

/* All replicas that fit were tried: the last failure decides. */
static void refuse_all_failed(struct openai_call *call)
{
    struct api_error error;
    if (call->last_failure == FAILURE_RATE) {
        api_error_set(&error, 429, "rate_limit_error", "rate_limit_exceeded", NULL,
                      "The workers for this model limit their rate. Try again later.");
        error.retry_after_ms = call->last_retry_after_ms;
    } else {
        api_error_set(&error, 502, "server_error", "upstream_error", NULL,
                      "The worker failed before it answered (%d tries).", call->tries);
    }
    call_error(call, &error);
}

static uint64_t reactor_random(struct openai_call *call)
{
    return str_hash((struct str){call->front->request_id, ID_TEXT_MAX - 1}, (uint64_t)call->request_ns) +
           (uint64_t)call->tries * 0x9e3779b97f4a7c15u;
}

/* Every replica that fits was tried or has refused for want of a slot. True: the call goes on. */
static bool try_once_more(struct openai_call *call, const struct market *market)
{
    struct dispatch_query *query = &call->query;
    if (query->tried_count > (size_t)call->tries) { /* refusals for want of a slot are no tries: wait for one */
        query->tried_count = (size_t)call->tries;
        call->not_before_ns = query->now_ns + SLOT_PAUSE_NS;
        queue_enter(call);
        return true;
    }
    /* A lone replica gets one more try where no byte of an answer came: in a moment, for it may be that its link is
     * just breaking and a new one on the way. */
    if (call->tries == 1 && !call->had_second_try && call->last_had_no_byte && dispatch_fitting(market, query) == 1) {
        call->had_second_try = true;
        query->tried_count = 0;
        call->not_before_ns = query->now_ns + SLOT_PAUSE_NS;
        queue_enter(call);
        return true;
    }
    return false;
}

void call_dispatch(struct openai_call *call)
{
    struct reactor *reactor = call->reactor;
    const struct market *market = reactor->snapshot->market;
    struct dispatch_query *query = &call->query;
    struct str target;
    uint32_t row;
    query->model = market_model(market, call->model, &target);
    query->links = hub_links(reactor->hub, &query->link_count);
    query->now_ns = loop_now(reactor->loop);
    query->random = reactor_random(call);
    if (query->model == MARKET_NONE) {
        if (call->tries)
            refuse_all_failed(call);
        else
            refuse_gone(call);
        return;
    }
    if (call->tries >= DISPATCH_TRIES_MAX) {
        refuse_all_failed(call);
        return;
    }
    if (journal_is_nearly_full(reactor->journal)) { /* calls end faster than the store takes their records */
        queue_enter(call);
        return;
    }
    switch (dispatch_choose(market, query, &row)) {
    case DISPATCH_CHOSEN:
        if (hold_money(call, hold_wanted(market_price(market, row), OPENAI_HOLD_NS, market_gpus(market, row),
                                         market_slots(market, row)))) {
            queue_leave(call);
            attempt_start(call, market, row);
        }
        break;
    case DISPATCH_FULL:
        if (hold_money(call, queue_hold(market, query->model)))
            queue_enter(call);
        break;
    case DISPATCH_NO_MATCH:
        refuse_no_match(call);
        break;
    case DISPATCH_NONE_LEFT:
        if (!try_once_more(call, market))
            refuse_all_failed(call);
        break;
    }
}

/* -- the end -- */

void openai_gone(struct openai_call *call)
{
    call->is_gone = true;
    metrics_count(call->reactor->metrics, METRIC_CANCELLED, 1);
    if (call->waits_for)
        credit_wait_cancel(&call->credit_waiter);
    call->waits_for = NULL;
    queue_leave(call);
    timer_clear(call->reactor->loop, &call->timer);
    struct attempt *attempt = call->attempt;
    if (attempt) {
        /* Paid is the time to the hang-up, if the worker had begun and had not already failed. */
        if (attempt->mode != MODE_REFUSE && attempt->mode != MODE_FAULT)
            call_meter(call, attempt, USAGE_CANCELLED);
        attempt_over(attempt, WORKER_CANCELLED);
        attempt_cancel(attempt);
    }
    call_release_holds(call);
    call_observe(call, 499);
    call->state = CALL_ANSWERED;
}

void openai_drained(struct openai_call *call)
{
    if (call->attempt)
        attempt_consumed(call->attempt);
}

void call_free_if_over(struct openai_call *call)
{
    struct loop *loop = call->reactor->loop;
    if (call->front || call->open_streams)
        return;
    timer_clear(loop, &call->timer);
    settle_wait_cancel(&call->settle_waiter);
    if (call->has_sse)
        sse_scan_free(&call->sse);
    check_start(call);
    snapshot_unref(call->snapshot);
    buf_free(&call->body);
    buf_free(&call->held);
    buf_free(&call->answer);
    free(call);
}

void openai_end(struct openai_call *call)
{
    if (call->state != CALL_ANSWERED && !call->is_gone && call->state != CALL_READING)
        openai_gone(call);
    call_release_holds(call);
    call->query.region = call->query.require = (struct str){NULL, 0}; /* they lay in the request's head */
    call->front->openai = NULL;
    call->front = NULL;
    call_free_if_over(call);
}
