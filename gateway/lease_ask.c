/* What handlers ask of the lease driver: the question goes to the control thread, and the answer comes back to the
 * asking reactor's loop. */
#include "gateway/lease_drive_priv.h"

#include "core/clock.h"
#include "core/log.h"
#include "core/money.h"

#include <stdlib.h>
#include <string.h>

#define LOG_BYTES_MAX ((size_t)262144) /* of one answer */

/* -- candidates -------------------------------------------------------------------------------------------------- */

struct candidates_ask {
    struct control *control;
    struct reactor *reactor;
    struct lease *lease; /* only its request counts */
    json_t *answer;
    struct task task; /* answers where the control thread cannot be reached */
    void (*done)(void *ctx, json_t *take_json);
    void *ctx;
};

static void candidates_answer(void *arg)
{
    struct candidates_ask ask = *(struct candidates_ask *)arg;
    free(arg);
    lease_free(ask.lease);
    ask.done(ask.ctx, ask.answer);
}

static void candidates_task(struct task *task)
{
    candidates_answer(container_of(task, struct candidates_ask, task));
}

static json_t *candidate_json(const struct lease_ranked *ranked)
{
    const struct lease_candidate *of = &ranked->candidate;
    char price[MONEY_TEXT_MAX];
    money_text(of->price_usd_nano, price);
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:b, s:f}", "offer", of->shown_offer, "network",
                     of->network, "gpu", of->gpu, "gpu_raw", of->gpu_raw, "gpus", (json_int_t)of->gpus, "region",
                     of->region, "zone", of->zone, "price_per_gpu_hour_usd", price, "interruptible", of->interruptible,
                     "score", ranked->score);
}

static const char *const skip_names[SKIP_COUNT] = {
    [SKIP_STALE] = "stale",
    [SKIP_DOWN] = "network down",
    [SKIP_TRIED] = "tried",
    [SKIP_NO_CAPACITY] = "no capacity lately",
    [SKIP_PRICE] = "above the price cap",
    [SKIP_QUOTE] = "above the quote",
};

static json_t *rejected_json(const struct lease_picked *picked)
{
    json_t *rejected = json_array();
    for (size_t i = 0; i < SKIP_COUNT; i++)
        if (picked->skipped[i])
            json_array_append_new(
                rejected, json_pack("{s:s, s:I}", "reason", skip_names[i], "count", (json_int_t)picked->skipped[i]));
    return rejected;
}

static json_t *make_candidates(struct candidates_ask *ask)
{
    struct lease_driver *driver = ask->control->leases;
    size_t considered = 0;
    struct lease_ranked *ranked = driver ? calloc(LEASE_RANKED_MAX, sizeof(*ranked)) : NULL;
    if (!ranked)
        return NULL;
    size_t count = drive_candidates(driver, &ask->lease->request, ranked, &considered);
    struct lease_picked picked = lease_pick(ask->lease, ranked, count, driver->memory, clock_wall_ms(), 0);
    json_t *data = json_array();
    for (size_t i = 0; i < count; i++)
        if (!ranked[i].is_stale && !ranked[i].is_down)
            json_array_append_new(data, candidate_json(&ranked[i]));
    free(ranked);
    bool is_none = picked.index >= count;
    return json_pack("{s:o, s:o, s:I, s:s}", "data", data, "rejected", rejected_json(&picked), "considered",
                     (json_int_t)considered, "message", is_none ? picked.message : "");
}

static void on_candidates(void *arg)
{
    struct candidates_ask *ask = arg;
    ask->answer = make_candidates(ask);
    if (loop_post(ask->reactor->loop, candidates_answer, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for the candidates");
}

void lease_candidates_json(struct control *control, struct reactor *reactor, const struct lease_request *request,
                           void (*done)(void *ctx, json_t *take_json), void *ctx)
{
    struct candidates_ask *ask = calloc(1, sizeof(*ask));
    struct lease *lease = ask ? lease_new() : NULL;
    if (!lease || !lease_request_copy(lease, request)) {
        lease_free(lease);
        free(ask);
        done(ctx, NULL);
        return;
    }
    *ask = (struct candidates_ask){.control = control,
                                   .reactor = reactor,
                                   .lease = lease,
                                   .task = {.run = candidates_task},
                                   .done = done,
                                   .ctx = ctx};
    if (loop_post(control->loop, on_candidates, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}

/* -- logs -------------------------------------------------------------------------------------------------------- */

struct logs_ask {
    struct control *control;
    struct reactor *reactor;
    struct lease *lease;
    int64_t from, next;
    struct buf bytes;
    enum error error;
    char message[SUPPLY_MESSAGE_MAX];
    struct task task;
    void (*done)(void *ctx, enum error error, struct str bytes, int64_t next, const char *message);
    void *ctx;
};

static void logs_answer(void *arg)
{
    struct logs_ask *ask = arg;
    ask->done(ask->ctx, ask->error, buf_str(&ask->bytes), ask->next, ask->message);
    buf_free(&ask->bytes);
    lease_free(ask->lease);
    free(ask);
}

static void logs_task(struct task *task)
{
    logs_answer(container_of(task, struct logs_ask, task));
}

/* To the asking reactor; from the control thread. */
static void logs_return(struct logs_ask *ask, enum error error)
{
    ask->error = error;
    if (loop_post(ask->reactor->loop, logs_answer, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for the logs");
}

static void on_network_logs(void *ctx, struct str bytes)
{
    struct logs_ask *ask = ctx;
    size_t room = LOG_BYTES_MAX - ask->bytes.len;
    if (bytes.len > room)
        bytes.len = room; /* the rest comes with the next question, from where these end */
    if (buf_append_str(&ask->bytes, bytes))
        ask->next += (int64_t)bytes.len;
}

static void on_network_logs_end(void *ctx, const struct network_result *result)
{
    struct logs_ask *ask = ctx;
    str_copy(ask->message, sizeof(ask->message), str_of(result->message));
    if (result->error == SUPPLY_UNSUPPORTED)
        logs_return(ask, ERR_DENIED);
    else if (result->error == SUPPLY_NOT_FOUND)
        logs_return(ask, ERR_NOT_FOUND);
    else
        logs_return(ask, result->error == SUPPLY_OK ? ERR_NONE : ERR_UNREACHABLE);
}

static void ask_network(struct logs_ask *ask, const struct lease_attempt *attempt)
{
    struct network *network =
        ask->control->networks ? networks_find(ask->control->networks, attempt->of.network) : NULL;
    if (!network || !*attempt->instance) {
        logs_return(ask, ERR_NOT_FOUND);
        return;
    }
    network_logs(network, str_of(attempt->instance), str_of(attempt->tag), ask->from, on_network_logs,
                 on_network_logs_end, ask);
}

/* The machine that the lease is about, or was until now: what it wrote at last is asked for while it is being ended. */
static const struct lease_attempt *logged_attempt(const struct lease *lease)
{
    const struct lease_attempt *last = lease->attempt_count ? &lease->attempts[lease->attempt_count - 1] : NULL;
    return last && last->state != ATTEMPT_CLOSED ? last : NULL;
}

static void on_door_logs(void *ctx, enum error error, const struct door_logs *logs)
{
    struct logs_ask *ask = ctx;
    if (error != ERR_NONE) {
        ask_network(ask, logged_attempt(ask->lease));
        return;
    }
    if (logs->bytes.len && !buf_append_str(&ask->bytes, logs->bytes)) {
        logs_return(ask, ERR_NO_MEMORY);
        return;
    }
    ask->next = logs->end > ask->from ? logs->end : ask->from;
    logs_return(ask, ERR_NONE);
}

static void on_logs_ask(void *arg)
{
    struct logs_ask *ask = arg;
    const struct lease_attempt *attempt = logged_attempt(ask->lease);
    struct door_view view;
    if (!attempt) {
        logs_return(ask, ERR_NOT_FOUND);
        return;
    }
    door_state(ask->control, str_of(ask->lease->id), attempt->number, &view);
    if (view.is_linked &&
        door_logs(ask->control, str_of(ask->lease->id), attempt->number, ask->from, 0, on_door_logs, ask) == ERR_NONE)
        return;
    ask_network(ask, attempt);
}

void lease_logs(struct control *control, struct reactor *reactor, struct lease *take_lease, int64_t from,
                void (*done)(void *ctx, enum error error, struct str bytes, int64_t next, const char *message),
                void *ctx)
{
    struct logs_ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        lease_free(take_lease);
        done(ctx, ERR_NO_MEMORY, (struct str){NULL, 0}, from, "");
        return;
    }
    *ask = (struct logs_ask){.control = control,
                             .reactor = reactor,
                             .lease = take_lease,
                             .from = from,
                             .next = from,
                             .error = ERR_NO_MEMORY,
                             .task = {.run = logs_task},
                             .done = done,
                             .ctx = ctx};
    buf_init(&ask->bytes, LOG_BYTES_MAX);
    if (loop_post(control->loop, on_logs_ask, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}
