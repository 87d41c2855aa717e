/* What gateways ask of a leased machine: to start or end its tenant's command, and for the output of it. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASKS_MAX 64
#define BODY_MAX 1024
#define OUTPUT_MAX ((size_t)64 << 10)
#define WAIT_MAX_MS 30000

/* A question under way. Those that wait for output are in a list. */
struct agent_lease_ask {
    struct agent *agent;
    struct h2_stream *stream;
    struct agent_lease_ask *next, **prev;
    struct buf body;
    int64_t from, due_ns;
    bool is_output;
};

static void unlist(struct agent_lease_ask *ask)
{
    if (!ask->prev)
        return;
    *ask->prev = ask->next;
    if (ask->next)
        ask->next->prev = ask->prev;
    ask->prev = NULL;
}

/* -- output ------------------------------------------------------------------------------------------------------ */

static void answer_output(struct agent_lease_ask *ask, const struct agent_output *output)
{
    char start[24], end[24];
    snprintf(start, sizeof(start), "%" PRId64, output->start);
    snprintf(end, sizeof(end), "%" PRId64, output->end);
    const struct h2_header headers[] = {{STR("content-type"), STR("application/octet-stream")},
                                        {STR("x-sluice-start"), str_of(start)},
                                        {STR("x-sluice-end"), str_of(end)},
                                        {STR("x-sluice-over"), output->is_over ? STR("1") : STR("0")}};
    unlist(ask);
    bool is_good = h2_stream_respond(ask->stream, 200, headers, 4) == ERR_NONE;
    for (size_t i = 0; i < 2 && is_good; i++)
        is_good = output->parts[i].len == 0 || h2_stream_send(ask->stream, output->parts[i]) == ERR_NONE;
    if (!is_good || h2_stream_finish(ask->stream) != ERR_NONE)
        h2_stream_cancel(ask->stream, NGHTTP2_INTERNAL_ERROR);
}

/* True: it was answered. */
static bool try_output(struct agent_lease_ask *ask)
{
    struct agent_output output;
    agent_lease_output(ask->agent->lease, ask->from, OUTPUT_MAX, &output);
    bool is_due = output.end > output.start || output.is_over || loop_now(ask->agent->loop) >= ask->due_ns;
    if (is_due)
        answer_output(ask, &output);
    return is_due;
}

void agent_output_came(struct agent *agent)
{
    for (struct agent_lease_ask *ask = agent->log_waiters, *next; ask; ask = next) {
        next = ask->next;
        (void)try_output(ask);
    }
}

static void output_finished(struct agent_lease_ask *ask)
{
    struct agent *agent = ask->agent;
    if (try_output(ask))
        return;
    ask->next = agent->log_waiters;
    ask->prev = &agent->log_waiters;
    if (ask->next)
        ask->next->prev = &ask->next;
    agent->log_waiters = ask;
}

/* "from=N&wait_ms=N", either may be missing. False: something else. */
static bool take_query(struct agent_lease_ask *ask, struct str query)
{
    int64_t wait_ms = 0;
    bool is_good = true;
    for (struct str field; is_good && (field = str_next(&query, '&')).ptr;) {
        struct str name = str_next(&field, '=');
        if (str_eq(name, STR("from")))
            is_good = field.ptr && str_to_i64(field, &ask->from) && ask->from >= 0;
        else
            is_good = str_eq(name, STR("wait_ms")) && field.ptr && str_to_i64(field, &wait_ms) && wait_ms >= 0 &&
                      wait_ms <= WAIT_MAX_MS;
    }
    ask->due_ns = loop_now(ask->agent->loop) + wait_ms * NS_PER_MS;
    return is_good;
}

/* -- start and stop ---------------------------------------------------------------------------------------------- */

static void answer_state(struct agent_lease_ask *ask)
{
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/json", 16}}};
    char text[96];
    int exit_code;
    const char *state = agent_lease_state(ask->agent->lease, &exit_code);
    snprintf(text, sizeof(text), "{\"state\":\"%s\",\"exit_code\":%d}", state, exit_code);
    if (h2_stream_respond(ask->stream, 200, headers, 1) != ERR_NONE ||
        h2_stream_send(ask->stream, str_of(text)) != ERR_NONE || h2_stream_finish(ask->stream) != ERR_NONE)
        h2_stream_cancel(ask->stream, NGHTTP2_INTERNAL_ERROR);
}

static void action_finished(struct agent_lease_ask *ask)
{
    json_t *root = json_loadb(ask->body.ptr ? ask->body.ptr : "", ask->body.len, 0, NULL);
    struct str action = str_of(json_string_value(json_object_get(root, "action")));
    bool is_run = str_eq(action, STR("run")), is_known = is_run || str_eq(action, STR("stop"));
    json_decref(root);
    if (!is_known) {
        agent_answer_error(ask->stream, 400, NULL, "bad_action", "The action is run or stop.");
        return;
    }
    if (is_run)
        agent_lease_run(ask->agent->lease);
    else
        agent_lease_stop(ask->agent->lease);
    answer_state(ask);
}

/* -- streams ----------------------------------------------------------------------------------------------------- */

static void ask_on_data(void *ctx, struct str bytes)
{
    struct agent_lease_ask *ask = ctx;
    h2_stream_consumed(ask->stream, bytes.len);
    if (!buf_append_str(&ask->body, bytes))
        h2_stream_cancel(ask->stream, NGHTTP2_REFUSED_STREAM);
}

static void ask_on_finished(void *ctx)
{
    struct agent_lease_ask *ask = ctx;
    if (ask->is_output)
        output_finished(ask);
    else
        action_finished(ask);
}

static void ask_on_end(void *ctx, enum h2_end end)
{
    struct agent_lease_ask *ask = ctx;
    (void)end;
    unlist(ask);
    ask->agent->log_asks--;
    buf_free(&ask->body);
    free(ask);
}

static bool refuse(struct h2_stream *stream, int status, const char *code, const char *message,
                   const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    *ret_ops = &agent_drop_ops;
    *ret_ctx = stream;
    agent_answer_error(stream, status, status == 503 ? "busy" : NULL, code, message);
    return true;
}

bool agent_lease_request(struct agent *agent, struct h2_stream *stream, struct str method, struct str path,
                         const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    static const struct h2_stream_ops ops = {
        .on_data = ask_on_data, .on_finished = ask_on_finished, .on_end = ask_on_end};
    struct str query = path, name = str_next(&query, '?');
    bool is_output = str_eq(name, STR("/sluice/lease/logs")) && str_eq(method, STR("GET"));
    if (!is_output && !(str_eq(path, STR("/sluice/lease")) && str_eq(method, STR("POST"))))
        return refuse(stream, 404, "unknown_url", "A leased machine has no such path.", ret_ops, ret_ctx);
    if (agent->log_asks >= ASKS_MAX)
        return refuse(stream, 503, "busy", "Too many questions at once.", ret_ops, ret_ctx);
    struct agent_lease_ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return false;
    *ask = (struct agent_lease_ask){.agent = agent, .stream = stream, .is_output = is_output};
    if (is_output && !take_query(ask, query)) {
        free(ask);
        return refuse(stream, 400, "bad_query", "The query is from and wait_ms.", ret_ops, ret_ctx);
    }
    buf_init(&ask->body, BODY_MAX);
    agent->log_asks++;
    *ret_ops = &ops;
    *ret_ctx = ask;
    return true;
}
