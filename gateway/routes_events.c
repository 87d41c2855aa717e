/* GET /api/v1/events: changes of the workers' states as server-sent events.
 *
 * Each listener looks once a second at what the control thread knows and is told what differs from what it was told
 * before; at first that is every worker. A worker that is gone is told with state "gone". */
#include "core/clock.h"
#include "gateway/control.h"
#include "gateway/routes.h"

#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_NS NS_PER_S
#define QUIET_MAX_NS (15 * NS_PER_S) /* then a comment tells proxies and the caller that the stream lives */

struct events {
    struct api_call *call;
    struct timer timer;
    json_t *told; /* worker id -> {state, reason} */
    int64_t sent_ns;
    bool is_asking, is_gone;
};

static void events_end(struct events *events)
{
    struct api_call *call = events->call;
    timer_clear(call->reactor->loop, &events->timer);
    json_decref(events->told);
    free(events);
    api_stream_end(call);
}

static void on_gone(struct api_call *call)
{
    struct events *events = call->ctx;
    events->is_gone = true;
    timer_clear(call->reactor->loop, &events->timer);
    if (!events->is_asking)
        events_end(events);
}

static bool send_text(struct events *events, struct str text)
{
    events->sent_ns = loop_now(events->call->reactor->loop);
    return api_stream_send(events->call, text);
}

static bool send_event(struct events *events, const char *worker, const json_t *seen, const char *before)
{
    json_t *data =
        json_pack("{s:s, s:O, s:O, s:s?, s:I}", "worker", worker, "state", json_object_get(seen, "state"), "reason",
                  json_object_get(seen, "reason"), "was", before, "at", (json_int_t)clock_wall_ms());
    char *text = data ? json_dumps(data, JSON_COMPACT) : NULL;
    struct buf event;
    buf_init(&event, 0);
    bool is_sent =
        text && buf_printf(&event, "event: worker\ndata: %s\n\n", text) && send_text(events, buf_str(&event));
    buf_free(&event);
    free(text);
    json_decref(data);
    return is_sent;
}

/* What a listener is told of each worker. */
static json_t *seen_now(const json_t *workers)
{
    json_t *seen = json_object();
    for (size_t i = 0; seen && i < json_array_size(workers); i++) {
        const json_t *row = json_array_get(workers, i);
        const char *id = json_string_value(json_object_get(row, "id"));
        json_t *entry =
            json_pack("{s:O, s:O}", "state", json_object_get(row, "state"), "reason", json_object_get(row, "reason"));
        if (!id || json_object_set_new(seen, id, entry) != 0) {
            json_decref(seen);
            return NULL;
        }
    }
    return seen;
}

static bool tell_changes(struct events *events, json_t *seen)
{
    const char *id;
    json_t *entry;
    json_object_foreach(seen, id, entry)
    {
        const json_t *before = json_object_get(events->told, id);
        if (!json_equal(entry, before) &&
            !send_event(events, id, entry, json_string_value(json_object_get(before, "state"))))
            return false;
    }
    json_object_foreach(events->told, id, entry)
    {
        if (json_object_get(seen, id))
            continue;
        json_t *gone = json_pack("{s:s, s:n}", "state", "gone", "reason");
        bool is_sent = gone && send_event(events, id, gone, json_string_value(json_object_get(entry, "state")));
        json_decref(gone);
        if (!is_sent)
            return false;
    }
    return true;
}

static void on_workers(void *ctx, json_t *take_workers)
{
    struct events *events = ctx;
    struct loop *loop = events->call->reactor->loop;
    json_t *seen = take_workers ? seen_now(take_workers) : NULL;
    json_decref(take_workers);
    events->is_asking = false;
    bool lives = seen && !events->is_gone && tell_changes(events, seen);
    if (lives && loop_now(loop) - events->sent_ns >= QUIET_MAX_NS)
        lives = send_text(events, STR(": quiet\n\n"));
    if (!lives) {
        json_decref(seen);
        events_end(events);
        return;
    }
    json_decref(events->told);
    events->told = seen;
    timer_set(loop, &events->timer, loop_now(loop) + LOOK_EVERY_NS);
}

static void look(struct timer *timer)
{
    struct events *events = container_of(timer, struct events, timer);
    struct reactor *reactor = events->call->reactor;
    events->is_asking = true;
    control_workers_json(reactor->gateway->control, reactor, (struct str){NULL, 0}, on_workers, events);
}

void route_events(struct api_call *call)
{
    static const char *const known[] = {NULL};
    if (!api_query_check(call, known))
        return;
    if (str_eq(call->method, STR("HEAD"))) {
        api_reply(call, 200, "text/event-stream", STR(""));
        return;
    }
    struct events *events = calloc(1, sizeof(*events));
    if (!events || !(events->told = json_object())) {
        struct api_error error;
        free(events);
        api_error_unavailable(&error);
        api_reply_error(call, &error);
        return;
    }
    events->call = call;
    events->timer.on_due = look;
    call->ctx = events;
    api_stream_begin(call, on_gone);
    if (send_text(events, STR(": events of workers\n\n")))
        look(&events->timer);
    else
        events_end(events);
}
