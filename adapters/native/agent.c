/* The agent's life: start, drain, end. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define GOODBYE_NS (2 * NS_PER_S) /* for the links to close once the calls have ended */

struct log_ctx agent_log(const struct agent *agent)
{
    return (struct log_ctx){.worker = agent->state.worker_id[0] ? agent->state.worker_id : NULL};
}

static void watch_on_due(struct timer *timer)
{
    struct agent *agent = container_of(timer, struct agent, watch_timer);
    agent_links_watch(agent);
    if (agent->lease)
        agent_lease_each_second(agent->lease, agent_links_open(agent) > 0);
    if (agent_links_open(agent) == 0)
        agent_register_soon(agent); /* the list may have been empty, or all that was on it is gone */
    timer_set(agent->loop, timer, loop_now(agent->loop) + NS_PER_S);
}

static void done_run(struct task *task)
{
    struct agent *agent = container_of(task, struct agent, done_task);
    agent->on_done(agent->ctx, agent->exit_code);
}

void agent_finish(struct agent *agent, enum agent_exit code)
{
    if (agent->is_done)
        return;
    agent->is_done = true;
    agent->exit_code = code;
    loop_defer(agent->loop, &agent->done_task);
}

/* -- draining ---------------------------------------------------------------------------------------------------- */

/* The calls have ended: say goodbye on the links, which then close by themselves. */
static void leave(struct agent *agent)
{
    if (agent->is_leaving)
        return;
    agent->is_leaving = true;
    timer_set(agent->loop, &agent->drain_timer, loop_now(agent->loop) + GOODBYE_NS);
    agent_status_last(agent);
    agent_probe_close(agent->probe);
    agent_links_shutdown(agent);
    agent_link_closed(agent);
}

void agent_call_ended(struct agent *agent)
{
    bool is_idle = !agent->calls && (!agent->lease || agent_lease_has_ended(agent->lease));
    if (agent->is_draining && !agent->is_freeing && is_idle)
        leave(agent);
}

void agent_link_closed(struct agent *agent)
{
    if (agent->is_leaving && !agent->is_freeing && agent_links_open(agent) == 0)
        agent_finish(agent, AGENT_DRAINED);
}

static void drain_on_due(struct timer *timer)
{
    struct agent *agent = container_of(timer, struct agent, drain_timer);
    struct log_ctx log = agent_log(agent);
    if (agent->is_leaving) {
        agent_finish(agent, AGENT_DRAINED);
        return;
    }
    log_warn(&log, "%d calls cut off: they outlasted the drain", agent->in_flight);
    agent_calls_cancel(agent);
    leave(agent);
}

void agent_drain(struct agent *agent)
{
    struct log_ctx log = agent_log(agent);
    if (agent->is_draining)
        return;
    log_info(&log, "draining, %d calls in flight", agent->in_flight);
    agent->is_draining = true;
    if (agent->lease)
        agent_lease_stop(agent->lease);
    agent_register_stop(agent);
    agent_status_changed(agent);
    agent->drain_timer.on_due = drain_on_due;
    timer_set(agent->loop, &agent->drain_timer, loop_now(agent->loop) + agent->options.drain_ns);
    agent_call_ended(agent);
}

/* -- start and end ----------------------------------------------------------------------------------------------- */

enum error agent_open(struct loop *loop, const struct agent_options *options,
                      void (*on_done)(void *ctx, enum agent_exit code), void *ctx, struct agent **ret)
{
    uint8_t boot[16];
    struct agent *agent = calloc(1, sizeof(*agent));
    if (!agent)
        return ERR_NO_MEMORY;
    agent->loop = loop;
    agent->options = *options;
    agent->state.lock_fd = -1;
    agent->on_done = on_done;
    agent->ctx = ctx;
    agent->done_task.run = done_run;
    crypto_random(boot, sizeof(boot));
    crypto_hex(boot, sizeof(boot), agent->boot_id);
    buf_init(&agent->register_body, (size_t)1 << 20);
    buf_init(&agent->register_answer, (size_t)1 << 20);
    buf_init(&agent->models_answer, (size_t)4 << 20);
    enum error error = agent_state_open(options->state_dir, &agent->state);
    if (!error)
        error = http_client_open(loop, &agent->http);
    if (!error && options->ca[0] && !http_client_trust(agent->http, options->ca))
        error = ERR_TOO_LARGE;
    if (!error)
        error = helper_open(loop, &agent->helper);
    if (!error && options->lease[0])
        error = agent_lease_open(agent, &agent->lease);
    if (!error && options->probe[0])
        error = agent_probe_open(agent);
    else if (!error && !options->gpu[0])
        error = ERR_BAD_INPUT;
    if (error) {
        agent_free(agent);
        return error;
    }
    agent->watch_timer.on_due = watch_on_due;
    timer_set(loop, &agent->watch_timer, loop_now(loop) + NS_PER_S);
    agent_status_start(agent);
    if (agent->lease)
        agent->upstream_ok = true; /* it has none */
    else
        agent_models_soon(agent);
    agent_register_start(agent);
    *ret = agent;
    return ERR_NONE;
}

struct agent *agent_free(struct agent *agent)
{
    if (!agent)
        return NULL;
    agent->is_freeing = true;
    agent_links_free(agent); /* ends the streams, which cancels the fetches */
    agent->lease = agent_lease_free(agent->lease);
    agent->probe = agent_probe_free(agent->probe);
    agent->helper = helper_free(agent->helper);
    agent_register_stop(agent);
    agent->http = http_client_free(agent->http);
    assert(!agent->calls && agent->in_flight == 0);
    agent_upstream_free(agent);
    agent_status_stop(agent);
    timer_clear(agent->loop, &agent->watch_timer);
    timer_clear(agent->loop, &agent->drain_timer);
    loop_undefer(agent->loop, &agent->done_task);
    crypto_wipe(agent->register_body.ptr, agent->register_body.len);
    buf_free(&agent->register_body);
    buf_free(&agent->register_answer);
    agent_state_close(&agent->state);
    crypto_wipe(&agent->options, sizeof(agent->options));
    free(agent);
    return NULL;
}
