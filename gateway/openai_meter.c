/* meter and settle: what a call used, what it costs, and the record that outlives us. */
#include "gateway/openai_call.h"
#include "core/clock.h"
#include "core/log.h"
#include "gateway/openai_check.h"

#include <inttypes.h>
#include <string.h>

#define SETTLE_WAIT_NS (30 * NS_PER_S)

static void record_texts(struct usage_record *record, const struct openai_call *call)
{
    const struct target *target = &call->target;
    id_new("use_", record->id);
    memcpy(record->tenant, call->key->tenant, sizeof(record->tenant));
    memcpy(record->key, call->key->id, sizeof(record->key));
    memcpy(record->worker, target->worker, sizeof(record->worker));
    memcpy(record->supplier, target->supplier, sizeof(record->supplier));
    memcpy(record->network, target->network, sizeof(record->network));
    memcpy(record->gpu, target->gpu, sizeof(record->gpu));
    size_t len = call->model.len < sizeof(record->model) ? call->model.len : sizeof(record->model) - 1;
    memcpy(record->model, call->model.ptr, len);
}

/* What this attempt told: an earlier one may have left its own numbers. */
static void record_usage(struct usage_record *record, const struct openai_call *call, const struct attempt *attempt)
{
    const struct usage *usage = attempt->mode == MODE_SSE     ? &call->sse.usage
                                : attempt->mode == MODE_PLAIN ? &call->scan.usage
                                                              : NULL;
    if (!usage || !usage->known)
        return;
    /* A worker's word; it moves no money, but nonsense need not be shown. */
    record->prompt_tokens = usage->prompt_tokens > 0 ? usage->prompt_tokens : 0;
    record->completion_tokens = usage->completion_tokens > 0 ? usage->completion_tokens : 0;
}

/* Takes the cost from what was held; what the tenant's credit cannot cover is the operator's loss. */
static void record_money(struct usage_record *record, struct openai_call *call, int64_t cost)
{
    const struct api_key *key = call->key;
    record->cost_usd_nano = credit_charge(key->balance, call->held_balance, cost);
    record->loss_usd_nano = cost - record->cost_usd_nano;
    call->held_balance = 0;
    if (key->budget) {
        record->budget_period_ms = credit_period_start(key->budget, record->at_ms);
        credit_charge(key->budget, call->held_budget, record->cost_usd_nano);
        call->held_budget = 0;
    }
}

void call_meter(struct openai_call *call, struct attempt *attempt, enum usage_outcome outcome)
{
    struct reactor *reactor = call->reactor;
    struct usage_record *record = &call->record;
    const struct target *target = &call->target;
    int64_t cost = 0, span_ns = loop_now(reactor->loop) - attempt->sent_ns;
    if (call->has_record)
        return;
    call->has_record = true;
    call->upstream_ns = span_ns;
    record_texts(record, call);
    record_usage(record, call, attempt);
    record->at_ms = clock_wall_ms();
    record->price_usd_nano = target->price_usd_nano;
    record->take_rate_bps = target->take_rate_bps;
    record->outcome = (int32_t)outcome;
    record->gpu_ms = money_gpu_ms(span_ns > 0 ? span_ns : 0, target->gpus, target->slots);
    if (outcome == USAGE_BROKEN || !money_cost(target->price_usd_nano, record->gpu_ms, &cost))
        cost = 0;
    record_money(record, call, cost);
    if (outcome == USAGE_COMPLETED)
        worker_paid(attempt->worker, worker_tenant(str_of(record->tenant)), record->cost_usd_nano);
    bool is_safe = journal_append(reactor->journal, record) == ERR_NONE;
    if (!is_safe) {
        struct log_ctx ctx = {.request = record->id, .tenant = record->tenant};
        log_error(&ctx, "the usage journal is full: a call of %" PRId64 " GPU-ms is not billed", record->gpu_ms);
    }
    if (call->check)
        check_metered(call, is_safe && outcome == USAGE_COMPLETED);
    settler_kick(reactor->settler);
    metrics_count(reactor->metrics, METRIC_PROMPT_TOKENS, record->prompt_tokens);
    metrics_count(reactor->metrics, METRIC_COMPLETION_TOKENS, record->completion_tokens);
    metrics_count(reactor->metrics, METRIC_GPU_MS, record->gpu_ms);
    metrics_count(reactor->metrics, METRIC_BILLED_USD_NANO, record->cost_usd_nano);
    metrics_count(reactor->metrics, METRIC_LOSS_USD_NANO, record->loss_usd_nano);
    metrics_observe(reactor->metrics, METRIC_UPSTREAM_TIME, call->model, str_of(target->network), span_ns);
}

static void on_settled(struct settle_waiter *waiter)
{
    struct openai_call *call = container_of(waiter, struct openai_call, settle_waiter);
    void (*then)(struct openai_call *) = call->after_settle;
    timer_clear(call->reactor->loop, &call->timer);
    if (!call->is_gone)
        then(call);
}

void call_settle(struct openai_call *call, void (*then)(struct openai_call *call))
{
    struct reactor *reactor = call->reactor;
    if (reactor->gateway->settings->pricing.settle != SETTLE_REDIS) {
        then(call);
        return;
    }
    call->state = CALL_SETTLING;
    call->after_settle = then;
    call->settle_waiter.on_settled = on_settled;
    timer_set(reactor->loop, &call->timer, loop_now(reactor->loop) + SETTLE_WAIT_NS);
    settler_wait(reactor->settler, &call->settle_waiter);
}

void call_answer_headers(struct openai_call *call, struct answer *answer, bool with_cost)
{
    char text[MONEY_TEXT_MAX];
    int64_t now = loop_now(call->reactor->loop);
    if (call->request_ns)
        answer_add_number(answer, "openai-processing-ms", (now - call->request_ns) / NS_PER_MS);
    if (call->key && call->key->rpm && call->rate_left >= 0) {
        char reset[DURATION_TEXT_MAX];
        ratelimit_duration_text(call->rate_reset_ms, reset);
        answer_add_number(answer, "x-ratelimit-limit-requests", call->key->rpm);
        answer_add_number(answer, "x-ratelimit-remaining-requests", call->rate_left);
        answer_add_copy(answer, "x-ratelimit-reset-requests", reset);
    }
    if (!call->was_answered_by_worker)
        return;
    answer_add(answer, "x-sluice-worker", call->target.worker);
    answer_add(answer, "x-sluice-network", call->target.network);
    answer_add(answer, "x-sluice-gpu", call->target.gpu);
    money_text(call->target.price_usd_nano, text);
    answer_add_copy(answer, "x-sluice-price-per-gpu-hour-usd", text);
    if (!with_cost)
        return;
    money_text(call->record.cost_usd_nano, text);
    answer_add_copy(answer, "x-sluice-cost-usd", text);
    answer_add_number(answer, "x-sluice-gpu-ms", call->record.gpu_ms);
}

void call_observe(struct openai_call *call, int status)
{
    struct metrics *metrics = call->reactor->metrics;
    struct str network = call->was_answered_by_worker ? str_of(call->target.network) : STR("");
    /* An unknown model's name is the caller's invention: it makes no label. */
    struct str model = call->was_answered_by_worker || call->tries ? call->model : STR("");
    metrics_request(metrics, status, model, network);
    if (call->has_record && call->was_answered_by_worker)
        metrics_observe(metrics, METRIC_ADDED_LATENCY, model, network,
                        loop_now(call->reactor->loop) - call->request_ns - call->queued_ns - call->upstream_ns);
    if (call->queued_ns)
        metrics_observe(metrics, METRIC_QUEUE_WAIT, model, network, call->queued_ns);
}
