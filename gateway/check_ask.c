/* Questions of checks: who can be asked, the request, the answer. */
#include "gateway/check.h"
#include "core/clock.h"

#include <string.h>

#define H2_CANCEL 8

/* -- who -- */

static bool shares_block(const struct worker *one, const struct worker *other)
{
    unsigned long long a = atomic_load_explicit(&one->address_block, memory_order_relaxed);
    unsigned long long b = atomic_load_explicit(&other->address_block, memory_order_relaxed);
    return a && a == b;
}

/* Of another operator than all that have had a say, as far as one can tell. */
static bool is_other(const struct answer_check *check, const struct market *market, uint32_t row)
{
    for (size_t i = 0; i < CHECK_PARTIES; i++) {
        const struct check_ask *ask = &check->asks[i];
        if (!ask->record.worker[0])
            continue;
        if (str_eq(market_supplier(market, row), str_of(ask->record.supplier)) ||
            str_eq(str_of(market_worker(market, row)->id), str_of(ask->record.worker)) ||
            (ask->worker && shares_block(market_worker(market, row), ask->worker)))
            return false;
    }
    for (size_t i = 0; i < check->failed_count; i++)
        if (str_eq(str_of(market_worker(market, row)->id), str_of(check->failed[i])))
            return false;
    return true;
}

static const uint32_t *rows_of(const struct answer_check *check, const struct market *market, size_t *ret_count)
{
    struct str target;
    uint32_t model = market_model(market, str_of(check->model), &target);
    *ret_count = 0;
    return model == MARKET_NONE ? NULL : market_replicas(market, model, ret_count);
}

bool check_has_other(const struct answer_check *check)
{
    const struct market *market = check->checks->reactor->snapshot->market;
    size_t count;
    const uint32_t *rows = rows_of(check, market, &count);
    for (size_t i = 0; i < count; i++)
        if (is_other(check, market, rows[i]))
            return true;
    return false;
}

bool checks_may_ask(const struct openai_checks *checks)
{
    const struct reactor *reactor = checks->reactor;
    return reactor->hub && reactor->openai->queued == 0 && !journal_is_nearly_full(reactor->journal);
}

bool check_has_slot(const struct openai_checks *checks, const struct worker *worker)
{
    const struct reactor *reactor = checks->reactor;
    int64_t now = loop_now(reactor->loop);
    size_t link_count;
    void *const *links = hub_links(reactor->hub, &link_count);
    int ours = atomic_load_explicit(&worker->in_flight, memory_order_relaxed), load = worker_load(worker);
    bool is_spare = (ours > load ? ours : load) + 2 <= atomic_load_explicit(&worker->slots, memory_order_relaxed);
    return is_spare && worker->index < link_count && links[worker->index] && worker_is_live(worker, now) &&
           !worker_is_ejected(worker, now) && !worker_refused_lately(worker, now);
}

/* -- the answer -- */

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct check_ask *ask = ctx;
    ask->status = status;
    for (size_t i = 0; i < count; i++)
        ask->is_refused |= str_eq(headers[i].name, STR("x-sluice-fault"));
    ask->is_refused |= status == 429;
}

static void on_data(void *ctx, struct str bytes)
{
    struct check_ask *ask = ctx;
    h2_stream_consumed(ask->stream, bytes.len);
    if (ask->status != 200)
        return;
    if (!check_may_hold(ask->check, bytes.len) || !buf_append_str(&ask->answer, bytes) ||
        json_scan_feed(&ask->scan, bytes) != ERR_NONE)
        h2_stream_cancel(ask->stream, H2_CANCEL);
}

static void on_finished(void *ctx)
{
    struct check_ask *ask = ctx;
    int64_t span_ns = loop_now(ask->check->checks->reactor->loop) - ask->sent_ns;
    ask->is_good = ask->status == 200 && json_scan_end(&ask->scan) == ERR_NONE && ask->scan.root == JS_OBJECT;
    ask->record.gpu_ms = money_gpu_ms(span_ns > 0 ? span_ns : 0, ask->gpus, ask->slots);
}

static void on_end(void *ctx, enum h2_end end)
{
    struct check_ask *ask = ctx;
    struct openai_checks *checks = ask->check->checks;
    (void)end;
    ask->stream = NULL;
    /* Only a good answer is told of the worker: what it makes of an odd question is no failure. */
    worker_end(ask->worker, loop_now(checks->reactor->loop),
               ask->is_good      ? WORKER_DONE
               : ask->is_refused ? WORKER_REFUSED
                                 : WORKER_CANCELLED,
               false);
    openai_wake(checks->reactor->openai);
    check_answered(ask->check);
}

static const struct h2_stream_ops ask_ops = {
    .on_head = on_head,
    .on_data = on_data,
    .on_finished = on_finished,
    .on_end = on_end,
};

/* -- the request -- */

void check_ask_free(struct check_ask *ask)
{
    worker_unref(ask->worker);
    buf_free(&ask->answer);
    ask->worker = NULL;
    ask->is_refused = false;
    ask->status = 0;
    memset(&ask->record, 0, sizeof(ask->record));
}

/* What a call to it would be billed by. */
static void take_row(struct check_ask *ask, const struct answer_check *check, const struct market *market, uint32_t row)
{
    struct usage_record *record = &ask->record;
    ask->worker = worker_ref(market_worker(market, row));
    ask->gpus = market_gpus(market, row);
    ask->slots = market_slots(market, row);
    str_copy(record->worker, sizeof(record->worker), str_of(ask->worker->id));
    str_copy(record->supplier, sizeof(record->supplier), market_supplier(market, row));
    str_copy(record->network, sizeof(record->network), market_network(market, row));
    str_copy(record->gpu, sizeof(record->gpu), market_gpu(market, row));
    str_copy(record->model, sizeof(record->model), str_of(check->model));
    record->price_usd_nano = market_price(market, row);
    record->take_rate_bps = market_take_rate_bps(market, row);
}

bool check_ask_row(struct answer_check *check, const struct market *market, uint32_t row)
{
    struct reactor *reactor = check->checks->reactor;
    struct check_ask *ask = &check->asks[check->asking];
    char request_id[ID_TEXT_MAX];
    id_new("req_", request_id); /* and all else as a call has it */
    const struct h2_header headers[] = {{STR("content-type"), STR("application/json")},
                                        {STR("accept"), STR("application/json")},
                                        {STR("x-request-id"), str_of(request_id)}};
    struct h2_request request = {.method = STR("POST"),
                                 .path = str_of(check->path),
                                 .headers = headers,
                                 .header_count = 3,
                                 .body = buf_str(check->asking == CHECK_ORIGINAL ? &check->plain : &check->question)};
    take_row(ask, check, market, row);
    ask->check = check;
    ask->sent_ns = loop_now(reactor->loop);
    buf_init(&ask->answer, answer_limits_default().replay_max);
    json_scan_init(&ask->scan, NULL, NULL);
    worker_begin(ask->worker, ask->sent_ns);
    if (hub_request(reactor->hub, ask->worker, &request, &ask_ops, ask, &ask->stream) == ERR_NONE) {
        timer_set(reactor->loop, &check->timer, check->deadline_ns);
        return true;
    }
    ask->stream = NULL;
    worker_end(ask->worker, ask->sent_ns, WORKER_CANCELLED, false);
    check_ask_free(ask);
    return false;
}

bool check_ask(struct answer_check *check)
{
    struct openai_checks *checks = check->checks;
    const struct market *market = checks->reactor->snapshot->market;
    size_t count, fitting = 0;
    const uint32_t *rows = rows_of(check, market, &count);
    uint32_t chosen = 0;
    if (!checks_may_ask(checks))
        return false;
    for (size_t i = 0; i < count; i++) { /* each of those that fit with the same probability */
        if (is_other(check, market, rows[i]) && check_has_slot(checks, market_worker(market, rows[i])) &&
            checks_random(checks) % ++fitting == 0)
            chosen = rows[i];
    }
    return fitting > 0 && check_ask_row(check, market, chosen);
}
