/* For dashboards and machines: metrics, health, statistics, the description of the API. */
#include "core/clock.h"
#include "core/embed.h"
#include "core/money.h"
#include "gateway/control.h"
#include "gateway/metrics.h"
#include "gateway/routes.h"
#include "pricing/ledger.h"

#include <stdlib.h>
#include <string.h>

EMBED(openapi_json, "gateway/openapi.json");

static const char *const no_query[] = {NULL};

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

void route_openapi(struct api_call *call)
{
    if (api_query_check(call, no_query))
        api_reply(call, 200, "application/json", (struct str){openapi_json, (size_t)(openapi_json_end - openapi_json)});
}

void route_healthz(struct api_call *call)
{
    api_reply_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

void route_readyz(struct api_call *call)
{
    struct reactor *reactor = call->reactor;
    if (control_is_ready(reactor->gateway->control) && redis_is_connected(reactor->redis) &&
        reactor->snapshot->is_complete) {
        api_reply_json(call, 200, json_pack("{s:s}", "status", "ready"));
        return;
    }
    struct api_error error;
    api_error_unavailable(&error);
    api_reply_error(call, &error);
}

/* -- metrics -- */

/* The sets of all reactors; the caller frees the list. NULL: out of memory. */
static struct metrics **all_sets(const struct gateway *gateway)
{
    struct metrics **sets = calloc(gateway->reactor_count, sizeof(struct metrics *));
    for (size_t i = 0; sets && i < gateway->reactor_count; i++)
        sets[i] = gateway->reactors[i]->metrics;
    return sets;
}

static void on_metrics_extra(void *ctx, const struct metrics_extra *extra)
{
    struct api_call *call = ctx;
    const struct gateway *gateway = call->reactor->gateway;
    struct metrics **sets = all_sets(gateway);
    struct buf text;
    buf_init(&text, 0);
    if (sets && metrics_render(sets, gateway->reactor_count, extra, &text))
        api_reply(call, 200, "text/plain; version=0.0.4; charset=utf-8", buf_str(&text));
    else
        fail(call, ERR_NO_MEMORY);
    buf_free(&text);
    free(sets);
}

void route_metrics(struct api_call *call)
{
    if (api_query_check(call, no_query))
        control_extra(call->reactor->gateway->control, call->reactor, on_metrics_extra, call);
}

/* -- statistics for the operator -- */

static json_t *latency_json(const struct metrics_totals *totals, enum metric_histogram histogram)
{
    return json_pack("{s:f, s:f}", "p50_ms", totals->p50_ns[histogram] / 1e6, "p99_ms",
                     totals->p99_ns[histogram] / 1e6);
}

static json_t *money_json(int64_t usd_nano)
{
    char text[MONEY_TEXT_MAX];
    money_text(usd_nano, text);
    return json_string(text);
}

static json_t *admin_stats(const struct gateway *gateway, const struct metrics_totals *totals,
                           const struct metrics_extra *extra)
{
    const int64_t *counters = totals->counters, *states = extra->workers_by_state;
    int64_t now_ms = clock_wall_ms();
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:{s:I, s:I, s:I}, s:I, s:I, s:{s:I, s:I}, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I,"
        " s:{s:I, s:I, s:I, s:I}, s:{s:o, s:o, s:o, s:o}, s:I, s:o, s:b}",
        "object", "stats", "gateway", gateway->id, "started_at", (json_int_t)gateway->started_at_ms, "uptime_ms",
        (json_int_t)(now_ms - gateway->started_at_ms), "requests", (json_int_t)totals->requests, "requests_by_class",
        "2xx", (json_int_t)totals->by_class[2], "4xx", (json_int_t)totals->by_class[4], "5xx",
        (json_int_t)totals->by_class[5], "running", (json_int_t)totals->gauges[METRIC_CALLS_RUNNING], "queued",
        (json_int_t)totals->gauges[METRIC_CALLS_QUEUED], "tokens", "prompt", (json_int_t)counters[METRIC_PROMPT_TOKENS],
        "completion", (json_int_t)counters[METRIC_COMPLETION_TOKENS], "gpu_ms", (json_int_t)counters[METRIC_GPU_MS],
        "billed_usd", money_json(counters[METRIC_BILLED_USD_NANO]), "loss_usd",
        money_json(counters[METRIC_LOSS_USD_NANO]), "retries", (json_int_t)counters[METRIC_RETRIES], "ejections",
        (json_int_t)counters[METRIC_EJECTIONS], "cancelled", (json_int_t)counters[METRIC_CANCELLED], "broken_streams",
        (json_int_t)counters[METRIC_BROKEN_STREAMS], "waited", (json_int_t)counters[METRIC_QUEUED], "workers",
        "enrolled", (json_int_t)states[0], "probing", (json_int_t)states[1], "ready", (json_int_t)states[2],
        "suspended", (json_int_t)states[3], "latency", "added", latency_json(totals, METRIC_ADDED_LATENCY),
        "time_to_first_token", latency_json(totals, METRIC_FIRST_TOKEN), "queue_wait",
        latency_json(totals, METRIC_QUEUE_WAIT), "upstream", latency_json(totals, METRIC_UPSTREAM_TIME),
        "journal_pending", (json_int_t)extra->journal_pending, "credit_held_usd",
        money_json(extra->credit_held_usd_nano), "redis_connected", (int)(extra->redis_connected != 0));
}

static void on_stats_extra(void *ctx, const struct metrics_extra *extra)
{
    struct api_call *call = ctx;
    const struct gateway *gateway = call->reactor->gateway;
    struct metrics **sets = all_sets(gateway);
    struct metrics_totals totals;
    if (sets && metrics_totals(sets, gateway->reactor_count, &totals))
        api_reply_json(call, 200, admin_stats(gateway, &totals, extra));
    else
        fail(call, ERR_NO_MEMORY);
    free(sets);
}

/* -- statistics for a caller: the month so far, by model, and the balance -- */

static json_int_t whole(const json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

static json_t *tenant_stats(const struct api_call *call, const json_t *usage, const json_t *balance)
{
    json_t *rows = json_object_get(usage, "data");
    json_int_t requests = 0, gpu_ms = 0, prompt = 0, completion = 0;
    int64_t cost = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        int64_t amount;
        requests += whole(row, "requests");
        gpu_ms += whole(row, "gpu_ms");
        prompt += whole(row, "prompt_tokens");
        completion += whole(row, "completion_tokens");
        const char *text = json_string_value(json_object_get(row, "cost_usd"));
        if (text && money_parse(str_of(text), &amount) && !money_add(cost, amount, &cost))
            return NULL;
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:{s:I, s:I}, s:o, s:O?, s:O?, s:O?}", "object", "stats", "tenant",
                     call->tenant, "since_at", (json_int_t)clock_month_start(clock_wall_ms()), "requests", requests,
                     "gpu_ms", gpu_ms, "tokens", "prompt", prompt, "completion", completion, "cost_usd",
                     money_json(cost), "models", rows, "available_usd", json_object_get(balance, "available_usd"),
                     "held_usd", json_object_get(balance, "held_usd"));
}

static void on_stats_balance(void *ctx, enum error code, struct str json)
{
    struct api_call *call = ctx;
    json_t *usage = call->ctx;
    json_t *balance = code ? NULL : json_loadb(json.ptr, json.len, 0, NULL);
    if (code)
        fail(call, code);
    else
        api_reply_json(call, 200, tenant_stats(call, usage, balance));
    json_decref(usage);
    json_decref(balance);
}

static void on_stats_usage(void *ctx, enum error code, struct str json)
{
    struct api_call *call = ctx;
    json_t *usage = code ? NULL : json_loadb(json.ptr, json.len, 0, NULL);
    call->ctx = usage;
    if (!code)
        code = ledger_balance(call->reactor->redis, str_of(call->tenant), on_stats_balance, call);
    if (code) {
        fail(call, code);
        json_decref(usage);
    }
}

void route_stats(struct api_call *call)
{
    if (!api_query_check(call, no_query))
        return;
    if (call->is_admin) {
        control_extra(call->reactor->gateway->control, call->reactor, on_stats_extra, call);
        return;
    }
    enum error code = ledger_usage(call->reactor->redis, str_of(call->tenant), clock_month_start(clock_wall_ms()),
                                   INT64_MAX, USAGE_BY_MODEL, on_stats_usage, call);
    if (code)
        fail(call, code);
}
