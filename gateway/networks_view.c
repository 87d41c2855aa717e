/* Networks as operators see them: GET /api/v1/networks, /metrics. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

static json_t *at_json(int64_t at_ms)
{
    return at_ms ? json_integer(at_ms) : json_null();
}

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

static json_t *traits_json(const struct adapter *adapter)
{
    static const struct {
        unsigned trait;
        const char *name;
    } names[] = {{ADAPTER_NO_LOGS, "no_logs"},       {ADAPTER_NO_TAG, "no_tag"},
                 {ADAPTER_PREPAID, "prepaid"},       {ADAPTER_INTERRUPTIBLE, "interruptible"},
                 {ADAPTER_ESTIMATED, "estimated"},   {ADAPTER_VM, "vm"},
                 {ADAPTER_IDEMPOTENT, "idempotent"}, {ADAPTER_ONE_PORT, "one_port"},
                 {ADAPTER_NO_STOP, "no_stop"},       {ADAPTER_IMPORTED_PRICE, "imported_price"}};
    json_t *list = json_array();
    for (size_t i = 0; list && i < sizeof(names) / sizeof(*names); i++) {
        if (adapter->traits & names[i].trait)
            json_array_append_new(list, json_string(names[i].name));
    }
    return list;
}

static json_t *errors_json(const int64_t errors[SUPPLY_ERROR_COUNT])
{
    json_t *object = json_object();
    for (enum supply_error error = SUPPLY_OK + 1; object && error < SUPPLY_ERROR_COUNT; error++) {
        if (errors[error])
            json_object_set_new(object, supply_error_name(error), json_integer(errors[error]));
    }
    return object;
}

/* In one word; the rest of the row says why. */
static const char *state_of(const struct net *net)
{
    if (!net->shared.looked_at_ms && net->breaker.state == BREAKER_CLOSED)
        return "starting";
    if (net->breaker.state != BREAKER_CLOSED)
        return net->breaker.reason == SUPPLY_BAD_CREDENTIAL ? "refused" : "down";
    if (clock_wall_ms() < net->blocked_until_ms)
        return "no_funds";
    return net->shared.error[0] ? "failing" : net_is_stale(net) ? "stale" : "ok";
}

static json_t *row_json(const struct net *net)
{
    static const char *const probes[] = {[PROBE_REQUIRED] = "required", [PROBE_REPORT] = "report", [PROBE_OFF] = "off"};
    const struct breaker *breaker = &net->breaker;
    bool is_closed = breaker->state == BREAKER_CLOSED;
    json_t *state = json_pack("{s:s, s:i, s:o, s:o}", "state", breaker_state_name(breaker->state), "failures",
                              (int)breaker->failures, "until_at", at_json(is_closed ? 0 : breaker->until_ms), "reason",
                              is_closed ? json_null() : json_string(supply_error_name(breaker->reason)));
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:I, s:I, s:o, s:s, s:I}", "id",
                     net->settings->id, "adapter", net->settings->adapter, "title", net->adapter->title, "state",
                     state_of(net), "offers", (json_int_t)net->table.count, "last_poll_at",
                     at_json(net->shared.polled_at_ms), "last_error", text_or_null(net->shared.error), "last_error_at",
                     at_json(net->shared.error_at_ms), "orphans_ended", (json_int_t)net->shared.orphans_ended,
                     "breaker", state, "poller", text_or_null(net->shared.poller), "errors",
                     errors_json(net->shared.errors), "unknown_gpus", (json_int_t)net->shared.unknown_gpus, "unpriced",
                     (json_int_t)net->shared.unpriced, "traits", traits_json(net->adapter), "probe",
                     probes[net->settings->probe], "poll_s", (json_int_t)net->settings->poll_s);
}

/* -- from reactors ----------------------------------------------------------------------------------------------- */

struct view_ask {
    struct control *control;
    struct reactor *reactor;
    struct task task;
    json_t *list;
    void (*done)(void *ctx, json_t *take_list);
    void *ctx;
};

static void view_answer(void *arg)
{
    struct view_ask ask = *(struct view_ask *)arg;
    free(arg);
    ask.done(ask.ctx, ask.list);
}

static void view_task(struct task *task)
{
    view_answer(container_of(task, struct view_ask, task));
}

static json_t *make_list(const struct networks *networks)
{
    json_t *list = json_array();
    for (size_t i = 0; list && networks && i < networks->count; i++) {
        if (json_array_append_new(list, row_json(&networks->nets[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static void on_view_ask(void *arg)
{
    struct view_ask *ask = arg;
    ask->list = make_list(ask->control->networks);
    if (loop_post(ask->reactor->loop, view_answer, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for the networks");
}

void networks_json(struct control *control, struct reactor *reactor, void (*done)(void *ctx, json_t *take_list),
                   void *ctx)
{
    struct view_ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        done(ctx, NULL);
        return;
    }
    *ask =
        (struct view_ask){.control = control, .reactor = reactor, .task = {.run = view_task}, .done = done, .ctx = ctx};
    if (loop_post(control->loop, on_view_ask, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}

/* -- numbers ----------------------------------------------------------------------------------------------------- */

void networks_extra(const struct networks *networks, struct metrics_extra *ret)
{
    for (size_t i = 0; networks && i < networks->count && i < METRICS_NETWORKS_MAX; i++) {
        const struct net *net = &networks->nets[i];
        struct metrics_network *row = &ret->networks[ret->network_count++];
        snprintf(row->id, sizeof(row->id), "%s", net->settings->id);
        row->offers = (int64_t)net->table.count;
        row->is_up = !net_is_down(net) && !net_is_stale(net);
        row->orphans_ended = net->shared.orphans_ended;
        row->unknown_gpus = net->shared.unknown_gpus;
        for (enum supply_error error = 0; error < SUPPLY_ERROR_COUNT; error++)
            row->errors[error] = net->errors[error];
    }
}
