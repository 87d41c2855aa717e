/* A lease as users see it. */
#include "core/money.h"
#include "scheduler/lease_record.h"

#include <string.h>

static json_t *text_or_null(const char *text)
{
    json_t *json = *text ? json_string(text) : json_null();
    return json ? json : json_string("?"); /* a network's bytes that are no text */
}

static json_t *borrowed_or_null(struct str text)
{
    return text.ptr ? json_stringn(text.ptr, text.len) : json_null();
}

static json_t *time_or_null(int64_t at_ms)
{
    return at_ms > 0 ? json_integer(at_ms) : json_null();
}

static json_t *money(int64_t usd_nano)
{
    char text[MONEY_TEXT_MAX];
    money_text(usd_nano, text);
    return json_string(text);
}

static json_t *view_attempt(const struct lease_attempt *attempt)
{
    bool is_fine = attempt->error == SUPPLY_OK;
    return json_pack(
        "{s:I, s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:I, s:I}", "number", (json_int_t)attempt->number, "network",
        text_or_null(attempt->of.network), "offer", text_or_null(attempt->of.shown_offer), "gpu",
        text_or_null(attempt->of.gpu), "region", text_or_null(attempt->of.region), "price_per_gpu_hour_usd",
        money(attempt->of.price_usd_nano), "state", attempt_state_name(attempt->state), "error",
        is_fine ? json_null() : json_string(supply_error_name(attempt->error)), "message",
        text_or_null(attempt->message), "at", (json_int_t)attempt->at_ms, "epoch", (json_int_t)attempt->epoch);
}

static json_t *view_attempts(const struct lease *lease)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < lease->attempt_count; i++)
        json_array_append_new(list, view_attempt(&lease->attempts[i]));
    return list;
}

static json_t *view_endpoints(const struct lease *lease)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < lease->endpoint_count; i++)
        json_array_append_new(list, json_pack("{s:i, s:o}", "port", (int)lease->endpoints[i].port, "url",
                                              text_or_null(lease->endpoints[i].url)));
    return list;
}

static json_t *view_texts(const struct lease_request *request, bool is_env)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < (is_env ? request->env_count : request->argc); i++)
        json_array_append_new(list, borrowed_or_null(is_env ? request->env[i].key : request->argv[i]));
    return list;
}

static json_t *view_ports(const struct lease_request *request)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < request->port_count; i++)
        json_array_append_new(list, json_integer(request->ports[i]));
    return list;
}

/* GPU time and its cost: what was charged and what will be for what ran until now. */
static void accrued(const struct lease *lease, int64_t now_ms, int64_t *ret_gpu_ms, int64_t *ret_cost_usd_nano)
{
    int64_t gpus = lease->request.gpus, before = 0, after = 0, from = 0, to = 0;
    *ret_gpu_ms = lease->billed_gpu_ms;
    *ret_cost_usd_nano = lease->cost_usd_nano;
    if (__builtin_mul_overflow(lease->epoch_billed_ms, gpus, &from) ||
        __builtin_mul_overflow(lease_epoch_ms(lease, now_ms), gpus, &to) ||
        !money_cost(lease->price_usd_nano, from, &before) || !money_cost(lease->price_usd_nano, to, &after))
        return;
    int64_t gpu_ms = 0, cost = 0;
    if (__builtin_add_overflow(lease->billed_gpu_ms, to - from, &gpu_ms) ||
        !money_add(lease->cost_usd_nano, after - before, &cost))
        return;
    *ret_gpu_ms = gpu_ms;
    *ret_cost_usd_nano = cost;
}

/* Per GPU-hour now; of a lease that is over what its last run cost, though a later search found nothing. 0: none. */
static int64_t price_shown(const struct lease *lease)
{
    if (lease->price_usd_nano > 0 || !lease_is_over(lease) || lease->cost_usd_nano == 0)
        return lease->price_usd_nano;
    for (size_t i = lease->attempt_count; i-- > 0;)
        if (lease->attempts[i].epoch < lease->epoch)
            return lease->attempts[i].of.price_usd_nano;
    return 0;
}

json_t *lease_view(const struct lease *lease, int64_t now_ms)
{
    const struct lease_request *request = &lease->request;
    const struct lease_attempt *last = lease->attempt_count > 0 ? &lease->attempts[lease->attempt_count - 1] : NULL;
    int64_t gpu_ms = 0, cost = 0, price = price_shown(lease);
    accrued(lease, now_ms, &gpu_ms, &cost);
    json_t *view =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:I, s:o, s:o}", "id", lease->id, "object",
                  "lease", "state", lease_state_name(lease->state), "reason", text_or_null(lease->reason), "offer",
                  text_or_null(last ? last->of.shown_offer : ""), "attempts", view_attempts(lease), "endpoints",
                  view_endpoints(lease), "price_per_gpu_hour_usd", price > 0 ? money(price) : json_null(), "billed_ms",
                  (json_int_t)gpu_ms, "cost_usd", money(cost), "created_at", (json_int_t)lease->created_at_ms,
                  "active_at", time_or_null(lease->active_at_ms), "ended_at", time_or_null(lease->ended_at_ms));
    json_t *more = json_pack(
        "{s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o, s:I, s:b, s:b, s:I, s:I}", "gpu",
        borrowed_or_null(request->gpu), "count", (json_int_t)request->gpus, "image", borrowed_or_null(request->image),
        "command", view_texts(request, false), "env", view_texts(request, true), "ports", view_ports(request), "region",
        borrowed_or_null(request->region), "network", text_or_null(last ? last->of.network : ""), "interruptible",
        request->interruptible, "max_price_per_gpu_hour_usd",
        request->price_max_usd_nano >= 0 ? money(request->price_max_usd_nano) : json_null(), "max_duration_s",
        (json_int_t)request->max_duration_s, "retry_until_up", (int)request->retry_until_up, "recover",
        (int)request->recovers, "epoch", (json_int_t)lease->epoch, "disk_gib", (json_int_t)request->disk_gib);
    if (!view || !more || json_object_update(view, more) != 0) {
        json_decref(view);
        view = NULL;
    }
    json_decref(more);
    return view;
}
