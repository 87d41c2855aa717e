/* What gateways ask of the agent itself: status, proofs, and the list of gateways. Calls go to agent_forward.c. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <stdlib.h>
#include <string.h>

#define STATUS_NS NS_PER_S
#define LOAD_STATUS_NS (50 * NS_PER_MS) /* calls in flight alone are not told more often */
#define STATUS_QUEUED_MAX ((size_t)64 << 10)
#define GATEWAYS_BODY_MAX ((size_t)64 << 10)
#define PROBE_STREAMS_MAX 64

enum aux_kind { AUX_STATUS, AUX_PROBE, AUX_GATEWAYS };

struct agent_aux {
    enum aux_kind kind;
    struct agent *agent;
    struct agent_link *link;
    struct h2_stream *stream;       /* NULL once it has ended */
    struct agent_aux *next, **prev; /* status streams of the link */
    struct buf body;
    struct agent_ask *ask; /* of the probe, under way */
};

/* -- answers ----------------------------------------------------------------------------------------------------- */

static void drop_on_data(void *ctx, struct str bytes)
{
    h2_stream_consumed(ctx, bytes.len);
}

static void drop_on_end(void *ctx, enum h2_end end)
{
    (void)ctx;
    (void)end;
}

const struct h2_stream_ops agent_drop_ops = {.on_data = drop_on_data, .on_end = drop_on_end};

void agent_answer_error(struct h2_stream *stream, int status, const char *fault, const char *code, const char *message)
{
    struct h2_header headers[] = {{STR("content-type"), STR("application/json")},
                                  {STR("x-sluice-fault"), str_of(fault)}};
    struct buf body;
    buf_init(&body, 1024);
    bool is_good = buf_printf(&body, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}",
                              message, status < 500 ? "invalid_request_error" : "upstream_error", code);
    if (!is_good || h2_stream_respond(stream, status, headers, fault ? 2 : 1) != ERR_NONE ||
        h2_stream_send(stream, buf_str(&body)) != ERR_NONE || h2_stream_finish(stream) != ERR_NONE)
        h2_stream_cancel(stream, NGHTTP2_INTERNAL_ERROR);
    buf_free(&body);
}

/* -- status ------------------------------------------------------------------------------------------------------ */

static bool status_write(const struct agent *agent, struct buf *line)
{
    json_t *models = json_array();
    for (size_t i = 0; models && i < agent->model_count; i++)
        json_array_append_new(models, json_string(agent->models[i]));
    int exit_code = 0;
    const char *state = agent->lease ? agent_lease_state(agent->lease, &exit_code) : NULL;
    json_t *root =
        json_pack("{s:i, s:i, s:o, s:b, s:s}", "in_flight", agent->in_flight, "slots", agent->options.slots, "models",
                  models, "draining", agent->is_draining, "upstream", agent->upstream_ok ? "ok" : "down");
    if (root && state)
        json_object_set_new(root, "lease", json_pack("{s:s, s:i}", "state", state, "exit_code", exit_code));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    bool is_good = text && buf_append_str(line, str_of(text)) && buf_append_str(line, STR("\n"));
    free(text);
    json_decref(root);
    return is_good;
}

static void status_send(struct agent *agent)
{
    struct buf line;
    buf_init(&line, STATUS_QUEUED_MAX);
    if (status_write(agent, &line))
        for (size_t i = 0; i < agent->gateway_count; i++)
            for (size_t k = 0; k < AGENT_LINKS_MAX; k++) {
                struct agent_link *link = agent->gateways[i]->links[k];
                for (struct agent_aux *aux = link ? link->status : NULL; aux; aux = aux->next)
                    if (h2_stream_queued(aux->stream) < STATUS_QUEUED_MAX &&
                        h2_stream_send(aux->stream, buf_str(&line)) != ERR_NONE)
                        h2_stream_cancel(aux->stream, NGHTTP2_INTERNAL_ERROR);
            }
    buf_free(&line);
    agent->status_sent_ns = loop_now(agent->loop);
    timer_set(agent->loop, &agent->status_timer, agent->status_sent_ns + STATUS_NS);
}

static void status_on_due(struct timer *timer)
{
    status_send(container_of(timer, struct agent, status_timer));
}

static void status_run(struct task *task)
{
    status_send(container_of(task, struct agent, status_task));
}

void agent_status_start(struct agent *agent)
{
    agent->status_timer.on_due = status_on_due;
    agent->status_task.run = status_run;
    timer_set(agent->loop, &agent->status_timer, loop_now(agent->loop) + STATUS_NS);
}

void agent_status_stop(struct agent *agent)
{
    timer_clear(agent->loop, &agent->status_timer);
    loop_undefer(agent->loop, &agent->status_task);
}

void agent_status_last(struct agent *agent)
{
    status_send(agent);
    agent_status_stop(agent);
}

void agent_status_changed(struct agent *agent)
{
    loop_defer(agent->loop, &agent->status_task);
}

void agent_load_changed(struct agent *agent)
{
    int64_t due_ns = agent->status_sent_ns + LOAD_STATUS_NS;
    if (agent->status_timer.due_ns > due_ns)
        timer_set(agent->loop, &agent->status_timer, due_ns);
}

static void status_unlist(struct agent_aux *aux)
{
    if (!aux->prev)
        return;
    *aux->prev = aux->next;
    if (aux->next)
        aux->next->prev = aux->prev;
    aux->prev = NULL;
}

void agent_status_end(struct agent_link *link)
{
    while (link->status) {
        struct agent_aux *aux = link->status;
        status_unlist(aux);
        if (h2_stream_finish(aux->stream) != ERR_NONE)
            h2_stream_cancel(aux->stream, NGHTTP2_CANCEL);
    }
}

static void aux_free(struct agent_aux *aux)
{
    status_unlist(aux);
    aux->agent->probe_streams -= aux->kind == AUX_PROBE;
    buf_free(&aux->body);
    free(aux);
}

static void status_open(struct agent_aux *aux)
{
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/x-ndjson", 20}}};
    struct agent_link *link = aux->link;
    if (h2_stream_respond(aux->stream, 200, headers, 1) != ERR_NONE) {
        h2_stream_cancel(aux->stream, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    aux->next = link->status;
    aux->prev = &link->status;
    if (aux->next)
        aux->next->prev = &aux->next;
    link->status = aux;
    agent_status_changed(aux->agent);
}

/* -- proofs ------------------------------------------------------------------------------------------------------ */

static void ask_done(void *ctx, struct str answer)
{
    static const struct h2_header headers[] = {{{"content-type", 12}, {"application/octet-stream", 24}}};
    struct agent_aux *aux = ctx;
    aux->ask = NULL;
    if (!answer.ptr)
        agent_answer_error(aux->stream, 503, "busy", "busy", "The probe of this worker was lost.");
    else if (h2_stream_respond(aux->stream, 200, headers, 1) != ERR_NONE ||
             h2_stream_send(aux->stream, answer) != ERR_NONE || h2_stream_finish(aux->stream) != ERR_NONE)
        h2_stream_cancel(aux->stream, NGHTTP2_INTERNAL_ERROR);
}

static bool is_frame(struct str body)
{
    return body.len >= 3 && body.ptr[0] == 'S' && body.ptr[1] == 'L' && body.ptr[2] == PROBE_PROTOCOL_VERSION;
}

/* What the gateway made of a proof, for the operator of this machine. */
static void tell_verdict(const struct agent_aux *aux)
{
    struct str body = buf_str(&aux->body);
    if (body.len < PROBE_FRAME_HEAD || body.ptr[3] != PROBE_VERDICT)
        return;
    struct probe_frame *frame = malloc(sizeof(*frame));
    struct log_ctx log = agent_log(aux->agent);
    if (frame && probe_frame_decode(body, frame) == ERR_NONE && frame->of.verdict.is_passed)
        log_info(&log, "gateway %s took a proof", aux->link->gateway->id);
    else if (frame && probe_frame_decode(body, frame) == ERR_NONE)
        log_warn(&log, "gateway %s did not take a proof: " STR_FMT, aux->link->gateway->id,
                 STR_ARG(frame->of.verdict.reason));
    free(frame);
}

static void probe_finished(struct agent_aux *aux)
{
    if (is_frame(buf_str(&aux->body)))
        tell_verdict(aux);
    if (!is_frame(buf_str(&aux->body)))
        agent_answer_error(aux->stream, 400, NULL, "bad_frame", "This is no frame of the proof protocol.");
    else if (agent_probe_ask(aux->agent->probe, str_of(aux->link->gateway->id), &aux->body, ask_done, aux, &aux->ask) !=
             ERR_NONE)
        agent_answer_error(aux->stream, 503, "busy", "busy", "The probe of this worker is busy or down.");
}

/* -- the list of gateways ---------------------------------------------------------------------------------------- */

static void gateways_finished(struct agent_aux *aux)
{
    json_t *root = json_loadb(aux->body.ptr ? aux->body.ptr : "", aux->body.len, 0, NULL);
    bool is_good = root && agent_gateways_set(aux->agent, root);
    json_decref(root);
    if (!is_good)
        agent_answer_error(aux->stream, 400, NULL, "bad_gateways", "This is no list of gateways.");
    else if (h2_stream_respond(aux->stream, 204, NULL, 0) != ERR_NONE || h2_stream_finish(aux->stream) != ERR_NONE)
        h2_stream_cancel(aux->stream, NGHTTP2_INTERNAL_ERROR);
}

/* -- streams ----------------------------------------------------------------------------------------------------- */

static void aux_on_data(void *ctx, struct str bytes)
{
    struct agent_aux *aux = ctx;
    h2_stream_consumed(aux->stream, bytes.len);
    if (!buf_append_str(&aux->body, bytes))
        h2_stream_cancel(aux->stream, NGHTTP2_REFUSED_STREAM);
}

static void aux_on_finished(void *ctx)
{
    struct agent_aux *aux = ctx;
    if (aux->kind == AUX_PROBE)
        probe_finished(aux);
    else if (aux->kind == AUX_GATEWAYS)
        gateways_finished(aux);
}

static void aux_on_end(void *ctx, enum h2_end end)
{
    struct agent_aux *aux = ctx;
    (void)end;
    aux->stream = NULL;
    if (aux->ask)
        agent_ask_cancel(aux->ask);
    aux->ask = NULL;
    aux_free(aux);
}

static bool aux_open(struct agent_link *link, struct h2_stream *stream, enum aux_kind kind, size_t body_max,
                     const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    static const struct h2_stream_ops ops = {
        .on_data = aux_on_data, .on_finished = aux_on_finished, .on_end = aux_on_end};
    if (kind == AUX_PROBE && link->agent->probe_streams >= PROBE_STREAMS_MAX) {
        *ret_ops = &agent_drop_ops;
        *ret_ctx = stream;
        agent_answer_error(stream, 503, "busy", "busy", "Too many challenges at once.");
        return true;
    }
    struct agent_aux *aux = calloc(1, sizeof(*aux));
    if (!aux)
        return false;
    link->agent->probe_streams += kind == AUX_PROBE;
    aux->kind = kind;
    aux->agent = link->agent;
    aux->link = link;
    aux->stream = stream;
    buf_init(&aux->body, body_max);
    *ret_ops = &ops;
    *ret_ctx = aux;
    if (kind == AUX_STATUS)
        status_open(aux);
    return true;
}

bool agent_on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                      const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct agent_link *link = ctx;
    struct str method = headers[0].value, path = headers[1].value;
    const struct agent_source *source = link->agent->options.source;
    if (link->agent->lease && (str_starts(path, STR("/v1/")) || str_starts(path, STR("/sluice/lease"))))
        return agent_lease_request(link->agent, stream, method, path, ret_ops, ret_ctx);
    if (str_starts(path, STR("/v1/")) && source)
        return source->on_call(source->ctx, stream, headers, count, ret_ops, ret_ctx);
    if (str_starts(path, STR("/v1/")))
        return agent_call_open(link->agent, stream, headers, count, ret_ops, ret_ctx);
    if (str_eq(path, STR("/sluice/status")) && str_eq(method, STR("GET")))
        return aux_open(link, stream, AUX_STATUS, 1, ret_ops, ret_ctx);
    if (str_eq(path, STR("/sluice/probe")) && str_eq(method, STR("POST")))
        return aux_open(link, stream, AUX_PROBE, PROBE_FRAME_MAX, ret_ops, ret_ctx);
    if (str_eq(path, STR("/sluice/gateways")) && str_eq(method, STR("PUT")))
        return aux_open(link, stream, AUX_GATEWAYS, GATEWAYS_BODY_MAX, ret_ops, ret_ctx);
    *ret_ops = &agent_drop_ops;
    *ret_ctx = stream;
    agent_answer_error(stream, 404, NULL, "unknown_url", "A worker has no such path.");
    return true;
}
