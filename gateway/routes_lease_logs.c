/* GET /api/v1/leases/{id}/logs: what the lease's machine has written, as text, or with ?follow=1 as server-sent events:
 * `state` when the lease changed, `log` with what came since (data lines are the text's lines, id is the offset behind
 * it: ?from= goes on there), `note` when there is something to say of the logs, `end` at the end. */
#include "core/clock.h"
#include "gateway/lease_drive.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "gateway/routes_lease.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_NS NS_PER_S
#define GAP_MOST 4 /* looks from one question for logs to the next, while nothing comes: networks count questions */
#define QUIET_MAX_NS (15 * NS_PER_S)
#define FROM_MOST (INT64_C(1) << 50)

struct logs {
    struct api_call *call;
    struct timer timer;
    int64_t from, sent_ns;
    uint32_t attempt;       /* whose logs these are; 0: none yet */
    unsigned gap, looks;    /* since the last question for logs */
    enum lease_state state; /* that was told last; LEASE_STATE_COUNT: none */
    json_t *end;            /* the lease is over: what is told after the last logs */
    bool is_following, is_asking, is_gone, is_noted;
};

/* -- as text ----------------------------------------------------------------------------------------------------- */

static void answer_text(struct logs *logs, enum error code, struct str bytes, const char *message)
{
    struct api_call *call = logs->call;
    struct api_error error;
    free(logs);
    if (!code) {
        api_reply(call, 200, "text/plain; charset=utf-8", bytes.ptr ? bytes : STR(""));
        return;
    }
    if (code == ERR_NOT_FOUND)
        api_error_set(&error, 409, "invalid_request_error", "not_running", "id",
                      "Nothing runs for this lease, so there are no logs.");
    else if (code == ERR_DENIED)
        api_error_set(&error, 501, "invalid_request_error", "not_supported", "id", "%.240s",
                      message && *message ? message : "This network tells no logs.");
    else
        api_error_from(&error, code);
    api_reply_error(call, &error);
}

/* -- as events --------------------------------------------------------------------------------------------------- */

static void logs_end(struct logs *logs)
{
    struct api_call *call = logs->call;
    timer_clear(call->reactor->loop, &logs->timer);
    json_decref(logs->end);
    free(logs);
    api_stream_end(call);
}

static void on_gone(struct api_call *call)
{
    struct logs *logs = call->ctx;
    logs->is_gone = true;
    timer_clear(call->reactor->loop, &logs->timer);
    if (!logs->is_asking)
        logs_end(logs);
}

static bool send_text(struct logs *logs, struct str text)
{
    logs->sent_ns = loop_now(logs->call->reactor->loop);
    return api_stream_send(logs->call, text);
}

/* Each line of the text is a data line: the reader joins them by line ends and has the text again. Carriage returns
 * would end lines of the stream and are left out. */
static bool put_data(struct buf *event, struct str text)
{
    bool fits = true;
    for (struct str line = str_next(&text, '\n'); fits && line.ptr; line = str_next(&text, '\n')) {
        fits = buf_append(event, "data: ", 6);
        for (struct str part = str_next(&line, '\r'); fits && part.ptr; part = str_next(&line, '\r'))
            fits = buf_append_str(event, part);
        fits = fits && buf_append(event, "\n", 1);
    }
    return fits && buf_append(event, "\n", 1);
}

static bool send_log(struct logs *logs, struct str bytes, int64_t next)
{
    struct buf event;
    buf_init(&event, 0);
    bool is_sent = buf_printf(&event, "event: log\nid: %" PRId64 "\n", next) && put_data(&event, bytes) &&
                   send_text(logs, buf_str(&event));
    buf_free(&event);
    return is_sent;
}

static bool send_json(struct logs *logs, const char *name, json_t *take_data)
{
    char *text = take_data ? json_dumps(take_data, JSON_COMPACT) : NULL;
    struct buf event;
    buf_init(&event, 0);
    bool is_sent =
        text && buf_printf(&event, "event: %s\ndata: %s\n\n", name, text) && send_text(logs, buf_str(&event));
    buf_free(&event);
    free(text);
    json_decref(take_data);
    return is_sent;
}

static json_t *state_json(const struct lease *lease)
{
    return json_pack("{s:s, s:s?, s:I}", "state", lease_state_name(lease->state), "reason",
                     lease->reason[0] ? lease->reason : NULL, "at", (json_int_t)clock_wall_ms());
}

static void wait_a_while(struct logs *logs)
{
    struct loop *loop = logs->call->reactor->loop;
    bool lives = !logs->is_gone;
    logs->is_asking = false;
    if (lives && loop_now(loop) - logs->sent_ns >= QUIET_MAX_NS)
        lives = send_text(logs, STR(": quiet\n\n"));
    if (lives)
        timer_set(loop, &logs->timer, loop_now(loop) + LOOK_EVERY_NS);
    else
        logs_end(logs);
}

/* False: the caller is gone, or too slow. */
static bool tell_logs(struct logs *logs, enum error code, struct str bytes, int64_t next, const char *message)
{
    logs->looks = 0;
    logs->gap = code == ERR_NOT_FOUND ? 1 : logs->gap * 2 < GAP_MOST ? logs->gap * 2 : GAP_MOST;
    if (!code && bytes.len > 0) {
        logs->from = next;
        logs->gap = 1;
        return send_log(logs, bytes, next);
    }
    if (!code || code == ERR_NOT_FOUND || logs->is_noted)
        return true;
    logs->is_noted = true;
    return send_json(logs, "note", json_pack("{s:s}", "message", message && *message ? message : error_text(code)));
}

static void on_logs(void *ctx, enum error code, struct str bytes, int64_t next, const char *message)
{
    struct logs *logs = ctx;
    if (!logs->is_following) {
        answer_text(logs, code, bytes, message);
        return;
    }
    bool lives = !logs->is_gone && tell_logs(logs, code, bytes, next, message);
    if (lives && !logs->end) {
        wait_a_while(logs);
        return;
    }
    if (lives) {
        json_t *end = logs->end;
        logs->end = NULL;
        lives = send_json(logs, "end", end);
    }
    logs_end(logs);
}

/* Another machine's logs begin at the beginning. */
static void note_attempt(struct logs *logs, const struct lease *lease)
{
    const struct lease_attempt *now = lease->attempt_count ? &lease->attempts[lease->attempt_count - 1] : NULL;
    if (!now || now->number == logs->attempt)
        return;
    if (logs->attempt)
        logs->from = 0;
    logs->attempt = now->number;
}

static void follow(struct logs *logs, struct lease *take)
{
    bool lives = !logs->is_gone, is_new = take->state != logs->state;
    logs->state = take->state;
    note_attempt(logs, take);
    if (lives && lease_is_over(take))
        lives = (logs->end = state_json(take)) != NULL; /* after what was written until then */
    else if (lives && is_new)
        lives = send_json(logs, "state", state_json(take));
    if (!lives) {
        lease_free(take);
        logs_end(logs);
    } else if (++logs->looks < logs->gap && !is_new) {
        lease_free(take);
        wait_a_while(logs);
    } else {
        lease_logs(logs->call->reactor->gateway->control, logs->call->reactor, take, logs->from, on_logs, logs);
    }
}

static void on_lease(void *ctx, enum error code, struct lease *take)
{
    struct logs *logs = ctx;
    if (!code)
        follow(logs, take);
    else
        wait_a_while(logs); /* Redis does not answer: it may again */
}

static void look(struct timer *timer)
{
    struct logs *logs = container_of(timer, struct logs, timer);
    logs->is_asking = true;
    if (lease_store_get(logs->call->reactor->redis, logs->call->params[0], on_lease, logs))
        wait_a_while(logs);
}

/* -- the call ---------------------------------------------------------------------------------------------------- */

static void start(struct api_call *call, struct lease *take)
{
    struct logs *logs = calloc(1, sizeof(*logs));
    int is_following = 0;
    struct api_error error;
    if (!logs) {
        lease_free(take);
        lease_fail(call, ERR_NO_MEMORY);
        return;
    }
    *logs =
        (struct logs){.call = call, .timer = {.on_due = look}, .state = LEASE_STATE_COUNT, .gap = 1, .is_asking = true};
    if (!query_flag(call, "follow", &is_following, &error) ||
        !query_int(call, "from", 0, FROM_MOST, &logs->from, &error)) {
        lease_free(take);
        free(logs);
        api_reply_error(call, &error);
        return;
    }
    logs->is_following = is_following;
    if (!is_following) {
        lease_logs(call->reactor->gateway->control, call->reactor, take, logs->from, on_logs, logs);
        return;
    }
    call->ctx = logs;
    logs->sent_ns = loop_now(call->reactor->loop);
    api_stream_begin(call, on_gone);
    follow(logs, take);
}

void route_lease_logs(struct api_call *call)
{
    static const char *const known[] = {"follow", "from", NULL};
    if (api_query_check(call, known))
        with_lease(call, start);
}
