#include "gateway/reactor.h"
#include "core/clock.h"
#include "core/httpd.h"
#include "core/log.h"
#include "gateway/control.h"
#include "gateway/http_front.h"
#include "gateway/openai.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define JOURNAL_SLOTS 16384
#define JOURNAL_DRAIN_NS (5 * NS_PER_S)

/* -- links -- */

static void on_link(void *ctx, struct worker *worker, bool is_up)
{
    struct reactor *reactor = ctx;
    if (reactor->gateway->control)
        control_link_changed(reactor->gateway->control, reactor->index, worker, is_up);
    openai_wake(reactor->openai);
}

static void on_status(void *ctx, struct worker *worker, const struct worker_status *status)
{
    struct reactor *reactor = ctx;
    if (reactor->gateway->control)
        control_status(reactor->gateway->control, reactor->index, worker, status);
    openai_wake(reactor->openai);
}

static const struct hub_events hub_events = {.on_link = on_link, .on_status = on_status};

void reactor_adopt(struct reactor *reactor, struct snapshot *take)
{
    snapshot_unref(reactor->snapshot);
    reactor->snapshot = take;
    if (reactor->openai)
        openai_wake(reactor->openai);
}

/* -- start -- */

static enum error open_snapshot(struct reactor *reactor)
{
    struct market *market;
    enum error error = market_build(NULL, 0, NULL, 0, &market);
    if (error != ERR_NONE)
        return error;
    reactor->snapshot = snapshot_new(market, NULL, NULL, false);
    return reactor->snapshot ? ERR_NONE : ERR_NO_MEMORY;
}

static enum error open_money(struct reactor *reactor, const struct reactor_options *options)
{
    struct redis_options redis = {.url = options->redis_url};
    const char *gateway_id = options->gateway->id;
    char name[16];
    size_t torn = 0;
    enum error error = redis_open(reactor->loop, &redis, &reactor->redis);
    if (error != ERR_NONE)
        return error;
    snprintf(name, sizeof(name), "%u", options->index);
    error = journal_open(options->journal_dir, name, JOURNAL_SLOTS, &reactor->journal, &torn);
    if (torn)
        log_warn(NULL, "%zu torn records in the usage journal %s were passed over", torn, name);
    if (error == ERR_NONE)
        error = settler_open(reactor->loop, reactor->redis, reactor->journal, gateway_id, &reactor->settler);
    if (error == ERR_NONE)
        error = credit_gate_open(reactor->loop, reactor->redis, gateway_id, &reactor->credit_gate);
    return error;
}

static enum error open_door(struct reactor *reactor, int listen_fd)
{
    const struct settings *settings = reactor->gateway->settings;
    size_t share = reactor->gateway->reactor_count;
    struct httpd_options options = {
        .listen_fd = listen_fd,
        .known = front_headers,
        .head_bytes = (size_t)settings->limits.header_bytes,
        .body_bytes = (uint64_t)settings->limits.body_bytes,
        .head_ms = settings->limits.head_ms,
        .body_min_bps = settings->limits.body_min_bps,
        .write_stall_ms = settings->limits.write_stall_ms,
        .connections_max = (unsigned)((size_t)settings->limits.connections_max / share + 1),
        .ops = &front_ops,
        .ctx = reactor,
    };
    reactor->metrics = metrics_new();
    reactor->front = front_open();
    reactor->openai = openai_open(reactor);
    if (!reactor->metrics || !reactor->front || !reactor->openai)
        return ERR_NO_MEMORY;
    return httpd_open(reactor->loop, &options, &reactor->httpd);
}

enum error reactor_open(const struct reactor_options *options, struct reactor **ret)
{
    struct reactor *reactor = calloc(1, sizeof(*reactor));
    if (!reactor) {
        close(options->listen_fd);
        return ERR_NO_MEMORY;
    }
    reactor->gateway = options->gateway;
    reactor->index = options->index;
    enum error error = loop_open(&reactor->loop);
    if (error == ERR_NONE)
        error = open_snapshot(reactor);
    if (error == ERR_NONE)
        error = open_money(reactor, options);
    if (error == ERR_NONE)
        error = hub_reactor_open(reactor->loop, reactor->index, &hub_events, reactor, &reactor->hub);
    if (error == ERR_NONE) {
        error = open_door(reactor, options->listen_fd);
    } else {
        close(options->listen_fd);
    }
    if (error != ERR_NONE) {
        reactor_free(reactor);
        return error;
    }
    *ret = reactor;
    return ERR_NONE;
}

/* -- run and stop -- */

static void close_all(struct reactor *reactor)
{
    reactor->httpd = httpd_free(reactor->httpd); /* its open calls end as hung up */
    if (reactor->loop)
        loop_turn(reactor->loop, 0); /* cancelled streams leave */
    reactor->hub = hub_reactor_free(reactor->hub);
    if (reactor->loop)
        loop_turn(reactor->loop, 0);
    reactor->openai = openai_free(reactor->openai);
    reactor->front = front_free(reactor->front);
    reactor->credit_gate = credit_gate_free(reactor->credit_gate);
    reactor->settler = settler_free(reactor->settler);
    reactor->journal = journal_close(reactor->journal);
    reactor->redis = redis_free(reactor->redis);
}

void reactor_run(struct reactor *reactor)
{
    loop_run(reactor->loop);
    int64_t deadline = clock_mono_ns() + JOURNAL_DRAIN_NS;
    reactor->httpd = httpd_free(reactor->httpd);
    while (journal_pending(reactor->journal) && clock_mono_ns() < deadline)
        loop_turn(reactor->loop, 10 * NS_PER_MS);
    if (journal_pending(reactor->journal))
        log_warn(NULL, "%zu usage records stay in the journal for the next start", journal_pending(reactor->journal));
    close_all(reactor);
}

void reactor_stop(struct reactor *reactor)
{
    loop_stop(reactor->loop);
}

static void quiesce(void *arg)
{
    struct reactor *reactor = arg;
    if (reactor->httpd)
        httpd_quiesce(reactor->httpd);
}

void reactor_quiesce(struct reactor *reactor)
{
    if (loop_post(reactor->loop, quiesce, reactor) != ERR_NONE)
        log_warn(NULL, "a reactor could not be told to take no more connections");
}

struct reactor *reactor_free(struct reactor *reactor)
{
    if (!reactor)
        return NULL;
    close_all(reactor);
    snapshot_unref(reactor->snapshot);
    metrics_free(reactor->metrics);
    loop_free(reactor->loop);
    free(reactor);
    return NULL;
}
