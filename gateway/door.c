#include "gateway/door.h"

#include "core/clock.h"
#include "core/log.h"
#include "gateway/bootstrap.h"
#include "gateway/control_priv.h"
#include "gateway/enrolment.h"

#include <inttypes.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALID_MS INT64_C(3600000)
#define SCRIPT_MAX (4 * DOOR_TEXT_MAX + 16384) /* each byte may take four to quote */
#define ASK_NS (5 * NS_PER_S)
#define WAIT_MAX_MS 30000
#define ASKS_MAX 4096
#define SUPPLIER "lease"
#define CLOSE_TRIES 300
#define CLOSE_PAUSE_NS NS_PER_S

/* "<lease id>.<attempt>" */
static bool lease_text(struct str lease_id, unsigned attempt, char ret[static WORKER_LEASE_MAX])
{
    int len = snprintf(ret, WORKER_LEASE_MAX, STR_FMT ".%u", STR_ARG(lease_id), attempt);
    return lease_id.len > 0 && lease_id.len < WORKER_LEASE_MAX && (size_t)len < WORKER_LEASE_MAX;
}

static struct registry_entry *entry_of(struct control *control, struct str lease_id, unsigned attempt,
                                       char ret_worker_id[static ID_TEXT_MAX])
{
    char lease[WORKER_LEASE_MAX];
    ret_worker_id[0] = '\0';
    if (!lease_text(lease_id, attempt, lease))
        return NULL;
    enrolment_lease_worker(str_of(lease), ret_worker_id);
    return registry_find(control->registry, str_of(ret_worker_id));
}

/* -- opening ----------------------------------------------------------------------------------------------------- */

struct opening {
    struct control *control;
    struct buf script, user_data;
    char token[SECRET_TEXT_MAX];
    enum door_kind kind;
    int64_t expires_at_ms;
    door_opened_fn *done;
    void *ctx;
};

static void opening_free(struct opening *opening)
{
    crypto_wipe(opening->token, sizeof(opening->token));
    if (opening->user_data.ptr)
        crypto_wipe(opening->user_data.ptr, opening->user_data.len);
    buf_free(&opening->script);
    buf_free(&opening->user_data);
    free(opening);
}

static void on_opened(void *ctx, enum error error)
{
    struct opening *opening = ctx;
    bool is_machine = opening->kind == DOOR_MACHINE;
    struct door_start start = {.script = buf_str(&opening->script), .expires_at_ms = opening->expires_at_ms};
    start.argv[0] = STR("sh");
    start.argv[1] = STR("-c");
    start.argv[2] = start.script;
    if (is_machine)
        start.user_data = buf_str(&opening->user_data);
    else
        start.env[start.env_count++] = (struct door_pair){STR("SLUICE_TOKEN"), str_of(opening->token)};
    opening->control->door_open--;
    opening->done(opening->ctx, error, error ? NULL : &start);
    opening_free(opening);
}

static enum error write_scripts(struct opening *opening, struct bootstrap *bootstrap, struct str lease,
                                const struct door_want *want)
{
    const struct bootstrap_want texts = {.lease = lease,
                                         .url = str_of(opening->control->gateway->public_url),
                                         .token = str_of(opening->token),
                                         .expires_at_s = opening->expires_at_ms / 1000,
                                         .door = want};
    enum error error = bootstrap_script(bootstrap, &texts, &opening->script);
    if (!error && want->kind == DOOR_MACHINE)
        error = bootstrap_user_data(bootstrap, &texts, &opening->user_data);
    return error;
}

enum error door_open_attempt(struct control *control, struct str lease_id, unsigned attempt,
                             const struct door_want *want, door_opened_fn *done, void *ctx)
{
    struct bootstrap *bootstrap = control->gateway->bootstrap;
    struct str supplier = want->supplier.ptr ? want->supplier : STR(SUPPLIER);
    struct enrolment enrolment = {.created_at_ms = clock_wall_ms()};
    if (!lease_text(lease_id, attempt, enrolment.lease) ||
        !str_copy(enrolment.supplier, sizeof(enrolment.supplier), supplier))
        return ERR_BAD_INPUT;
    if (!bootstrap_is_whole(bootstrap) || !control->gateway->public_url[0]) {
        log_warn(NULL, "no machine can be leased: %s",
                 control->gateway->public_url[0] ? "sluice-worker and sluice-probe are not beside sluiced"
                                                 : "public_url is not set");
        return ERR_UNREACHABLE;
    }
    if (control->is_shut)
        return ERR_UNREACHABLE;
    struct opening *opening = calloc(1, sizeof(*opening));
    if (!opening)
        return ERR_NO_MEMORY;
    *opening = (struct opening){.control = control, .kind = want->kind, .done = done, .ctx = ctx};
    enrolment.expires_at_ms = enrolment.created_at_ms + (want->valid_ms > 0 ? want->valid_ms : VALID_MS);
    opening->expires_at_ms = enrolment.expires_at_ms;
    buf_init(&opening->script, SCRIPT_MAX);
    buf_init(&opening->user_data, SCRIPT_MAX + 1024);
    enum error error = ERR_UNREACHABLE;
    if (bootstrap_token(bootstrap, str_of(enrolment.lease), opening->token))
        error = write_scripts(opening, bootstrap, str_of(enrolment.lease), want);
    if (!error)
        error = enrolment_put_lease(control->redis, &enrolment, str_of(opening->token), on_opened, opening);
    if (error)
        opening_free(opening);
    else
        control->door_open++;
    return error;
}

/* -- looking ----------------------------------------------------------------------------------------------------- */

static enum door_stage stage_of(const struct registry_entry *entry)
{
    switch (entry->record.admission.state) {
    case ADMISSION_READY:
        return entry->record.admission.retests ? DOOR_REFUSED : DOOR_PROVEN;
    case ADMISSION_PROBING:
        return DOOR_PROBING;
    case ADMISSION_SUSPENDED:
        return DOOR_REFUSED;
    case ADMISSION_ENROLLED:
    case ADMISSION_STATE_COUNT:
        break;
    }
    return DOOR_REGISTERED;
}

static enum door_command command_of(const struct registry_entry *entry)
{
    switch (entry->command) {
    case COMMAND_NONE:
        break;
    case COMMAND_WAITING:
        return DOOR_COMMAND_WAITING;
    case COMMAND_RUNNING:
        return DOOR_COMMAND_RUNNING;
    case COMMAND_STOPPING:
        return DOOR_COMMAND_STOPPING;
    case COMMAND_EXITED:
        return DOOR_COMMAND_EXITED;
    }
    return DOOR_COMMAND_UNKNOWN;
}

void door_state(struct control *control, struct str lease_id, unsigned attempt, struct door_view *ret)
{
    struct door_view view = {.silent_ms = -1};
    const struct registry_entry *entry = entry_of(control, lease_id, attempt, view.worker_id);
    if (entry) {
        const struct worker_proof *proof = &entry->record.proof;
        int64_t heard_ns = atomic_load(&entry->worker->heard_ns);
        view.stage = stage_of(entry);
        view.is_linked = entry->links > 0;
        view.command = command_of(entry);
        view.exit_code = entry->exit_code;
        view.silent_ms = heard_ns ? (clock_mono_ns() - heard_ns) / NS_PER_MS : -1;
        memcpy(view.reason, entry->record.admission.reason, sizeof(view.reason));
        if (proof->at_ms) {
            memcpy(view.gpu, proof->gpu, sizeof(view.gpu));
            view.devices = proof->devices;
            view.vram_gib = proof->proven.vram_gib;
            view.class_vram_gib = proof->class_vram_gib;
            view.performance = proof->performance > 0 ? proof->performance : 1;
            view.proven_at_ms = proof->at_ms;
        }
    }
    *ret = view;
}

/* -- asking the worker ------------------------------------------------------------------------------------------- */

/* With the control thread, then (between run_ask and return_back) with a reactor. */
struct ask {
    struct control *control;
    struct reactor *reactor;
    struct worker *worker; /* a reference */
    bool is_run;
    char path[96], body[32];
    door_done_fn *on_done;
    door_logs_fn *on_logs;
    void *ctx;

    struct h2_stream *stream;
    struct timer deadline;
    int64_t limit_ns;
    struct buf answer;
    int status;
    int64_t start, end;
    bool is_over, is_late;
    enum error error;
};

static void ask_free(struct ask *ask)
{
    worker_unref(ask->worker);
    buf_free(&ask->answer);
    free(ask);
}

/* What a hostile worker says of its output is taken only as far as it fits. */
static bool has_logs(const struct ask *ask)
{
    return ask->start >= 0 && ask->end >= ask->start && (uint64_t)(ask->end - ask->start) == ask->answer.len;
}

static void ask_back(void *arg)
{
    struct ask *ask = arg;
    struct control *control = ask->control;
    struct registry_entry *entry = registry_find(control->registry, str_of(ask->worker->id));
    control->door_open--;
    if (!ask->error && ask->is_run && entry && entry->command == COMMAND_WAITING)
        entry->command = COMMAND_RUNNING; /* its status tells it in a moment; no challenge comes in between */
    if (ask->on_done) {
        ask->on_done(ask->ctx, ask->error);
    } else {
        if (!ask->error && !has_logs(ask))
            ask->error = ERR_PROTOCOL;
        const struct door_logs logs = {
            .start = ask->start, .end = ask->end, .bytes = buf_str(&ask->answer), .is_over = ask->is_over};
        ask->on_logs(ask->ctx, ask->error, ask->error ? NULL : &logs);
    }
    ask_free(ask);
}

static void return_back(struct ask *ask, enum error error)
{
    timer_clear(ask->reactor->loop, &ask->deadline);
    ask->error = error;
    if (loop_post(ask->control->loop, ask_back, ask) != ERR_NONE)
        log_error(&(struct log_ctx){.worker = ask->worker->id}, "no memory to tell of a lease's worker");
}

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct ask *ask = ctx;
    ask->status = status;
    for (size_t i = 0; i < count; i++) {
        bool is_good = true;
        if (str_eq(headers[i].name, STR("x-sluice-start")))
            is_good = str_to_i64(headers[i].value, &ask->start);
        else if (str_eq(headers[i].name, STR("x-sluice-end")))
            is_good = str_to_i64(headers[i].value, &ask->end);
        else if (str_eq(headers[i].name, STR("x-sluice-over")))
            ask->is_over = str_eq(headers[i].value, STR("1"));
        if (!is_good)
            ask->start = -1;
    }
}

static void on_data(void *ctx, struct str bytes)
{
    struct ask *ask = ctx;
    h2_stream_consumed(ask->stream, bytes.len);
    if (!buf_append_str(&ask->answer, bytes))
        h2_stream_cancel(ask->stream, NGHTTP2_CANCEL);
}

static void on_end(void *ctx, enum h2_end end)
{
    struct ask *ask = ctx;
    ask->stream = NULL;
    if (ask->is_late)
        return_back(ask, ERR_DEADLINE);
    else if (end == H2_END_OK && ask->status == 200)
        return_back(ask, ERR_NONE);
    else if (end == H2_END_OK)
        return_back(ask, ask->status == 503 ? ERR_BUSY : ERR_PROTOCOL);
    else
        return_back(ask, ERR_CLOSED);
}

static void on_deadline(struct timer *timer)
{
    struct ask *ask = container_of(timer, struct ask, deadline);
    ask->is_late = true;
    h2_stream_cancel(ask->stream, NGHTTP2_CANCEL);
}

static void run_ask(void *arg)
{
    static const struct h2_stream_ops ops = {.on_head = on_head, .on_data = on_data, .on_end = on_end};
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/json", 16}}};
    struct ask *ask = arg;
    bool is_post = ask->body[0] != '\0';
    const struct h2_request request = {.method = is_post ? STR("POST") : STR("GET"),
                                       .path = str_of(ask->path),
                                       .headers = headers,
                                       .header_count = is_post,
                                       .body = is_post ? str_of(ask->body) : (struct str){NULL, 0}};
    if (hub_request(ask->reactor->hub, ask->worker, &request, &ops, ask, &ask->stream) != ERR_NONE) {
        return_back(ask, ERR_CLOSED);
        return;
    }
    ask->deadline.on_due = on_deadline;
    timer_set(ask->reactor->loop, &ask->deadline, loop_now(ask->reactor->loop) + ask->limit_ns);
}

/* what: the ask's own fields. */
static enum error ask_start(struct control *control, struct str lease_id, unsigned attempt, const struct ask *what)
{
    char worker_id[ID_TEXT_MAX];
    const struct registry_entry *entry = entry_of(control, lease_id, attempt, worker_id);
    struct reactor *reactor = entry ? control_linked_reactor(control, entry) : NULL;
    if (!reactor || control->is_shut)
        return ERR_CLOSED;
    if (control->door_open >= ASKS_MAX)
        return ERR_BUSY;
    struct ask *ask = malloc(sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = *what;
    ask->control = control;
    ask->reactor = reactor;
    ask->worker = worker_ref(entry->worker);
    buf_init(&ask->answer, DOOR_LOGS_MAX);
    if (loop_post(reactor->loop, run_ask, ask) != ERR_NONE) {
        ask_free(ask);
        return ERR_NO_MEMORY;
    }
    control->door_open++;
    return ERR_NONE;
}

enum error door_go(struct control *control, struct str lease_id, unsigned attempt, door_done_fn *done, void *ctx)
{
    const struct ask ask = {.path = "/sluice/lease",
                            .body = "{\"action\":\"run\"}",
                            .is_run = true,
                            .limit_ns = ASK_NS,
                            .on_done = done,
                            .ctx = ctx};
    return ask_start(control, lease_id, attempt, &ask);
}

enum error door_stop(struct control *control, struct str lease_id, unsigned attempt, door_done_fn *done, void *ctx)
{
    const struct ask ask = {
        .path = "/sluice/lease", .body = "{\"action\":\"stop\"}", .limit_ns = ASK_NS, .on_done = done, .ctx = ctx};
    return ask_start(control, lease_id, attempt, &ask);
}

enum error door_logs(struct control *control, struct str lease_id, unsigned attempt, int64_t from, int64_t wait_ms,
                     door_logs_fn *done, void *ctx)
{
    struct ask ask = {.on_logs = done, .ctx = ctx};
    wait_ms = wait_ms < 0 ? 0 : wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS : wait_ms;
    ask.limit_ns = ASK_NS + wait_ms * NS_PER_MS;
    snprintf(ask.path, sizeof(ask.path), "/sluice/lease/logs?from=%" PRId64 "&wait_ms=%" PRId64, from < 0 ? 0 : from,
             wait_ms);
    return ask_start(control, lease_id, attempt, &ask);
}

/* -- closing ----------------------------------------------------------------------------------------------------- */

/* Tried again while Redis does not answer, or the worker would stay stored for ever. */
struct door_closing {
    struct control *control;
    struct door_closing *next, **prev; /* those that wait for the next try */
    struct timer again;
    unsigned tries;
    char worker_id[ID_TEXT_MAX], token[SECRET_TEXT_MAX];
    door_done_fn *done;
    void *ctx;
};

static void closing_end(struct door_closing *closing, enum error error)
{
    closing->control->door_open--;
    closing->done(closing->ctx, error);
    crypto_wipe(closing->token, sizeof(closing->token));
    free(closing);
}

static void closing_unlist(struct door_closing *closing)
{
    timer_clear(closing->control->loop, &closing->again);
    *closing->prev = closing->next;
    if (closing->next)
        closing->next->prev = closing->prev;
}

static void on_again(struct timer *timer);

static void on_removed(void *ctx, enum error error)
{
    struct door_closing *closing = ctx;
    struct control *control = closing->control;
    if (!error || control->is_shut || ++closing->tries >= CLOSE_TRIES) {
        closing_end(closing, error);
        return;
    }
    closing->next = control->door_closing;
    closing->prev = &control->door_closing;
    if (closing->next)
        closing->next->prev = &closing->next;
    control->door_closing = closing;
    closing->again.on_due = on_again;
    timer_set(control->loop, &closing->again, loop_now(control->loop) + CLOSE_PAUSE_NS);
}

/* The token first: who registers meanwhile looks for it once more (routes_worker.c). */
static void on_token_gone(void *ctx, enum error error)
{
    struct door_closing *closing = ctx;
    if (!error)
        error = worker_store_remove(closing->control->redis, str_of(closing->worker_id), on_removed, closing);
    if (error)
        on_removed(closing, error);
}

static void on_again(struct timer *timer)
{
    struct door_closing *closing = container_of(timer, struct door_closing, again);
    closing_unlist(closing);
    enum error error = enrolment_delete_lease(closing->control->redis, str_of(closing->token), on_token_gone, closing);
    if (error)
        on_removed(closing, error);
}

void door_shut(struct control *control)
{
    while (control->door_closing) {
        struct door_closing *closing = control->door_closing;
        closing_unlist(closing);
        closing_end(closing, ERR_CANCELLED);
    }
}

enum error door_close_attempt(struct control *control, struct str lease_id, unsigned attempt, door_done_fn *done,
                              void *ctx)
{
    char lease[WORKER_LEASE_MAX], token[SECRET_TEXT_MAX];
    if (!lease_text(lease_id, attempt, lease))
        return ERR_BAD_INPUT;
    if (!control->gateway->bootstrap || !bootstrap_token(control->gateway->bootstrap, str_of(lease), token))
        return ERR_UNREACHABLE;
    struct door_closing *closing = calloc(1, sizeof(*closing));
    if (!closing)
        return ERR_NO_MEMORY;
    *closing = (struct door_closing){.control = control, .done = done, .ctx = ctx};
    memcpy(closing->token, token, sizeof(token));
    enrolment_lease_worker(str_of(lease), closing->worker_id);
    enum error error = enrolment_delete_lease(control->redis, str_of(token), on_token_gone, closing);
    crypto_wipe(token, sizeof(token));
    if (error)
        free(closing);
    else
        control->door_open++;
    return error;
}
