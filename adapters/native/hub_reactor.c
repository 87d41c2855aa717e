/* The links of one reactor: requests, status, the list of gateways. */
#include "adapters/native/hub_priv.h"
#include "adapters/native/hub_status.h"

#include "core/clock.h"
#include "core/log.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SILENT_NS (15 * NS_PER_S)
#define TICK_NS NS_PER_S
#define STATUS_LINES_A_TICK_MAX 1024 /* what a stalled connection may bring at once; more is a flood */
#define WORKERS_MAX ((uint32_t)1 << 20)
#define LINK_STREAMS_MAX 65536
#define STREAM_WINDOW ((uint32_t)256 << 10) /* what a slow caller may make us hold of its answer */

/* The gateways list; shared by the pushes in flight, for a request's body must lie still until the stream ends. */
struct gateways {
    unsigned refs;
    size_t len;
    char json[];
};

struct link {
    struct link *prev, *next;
    struct hub_reactor *reactor;
    struct worker *worker;
    struct link_slots *slots;
    uint64_t number;
    struct h2 *h2;
    struct task end;          /* ends or retires the link when its own streams, or a call, have found that it must */
    bool is_up;               /* in the table, its on_link told */
    bool is_retiring;         /* no new calls; closes when the running ones have ended */
    bool is_ending;           /* closes at the end of this turn */
    struct h2_stream *status; /* NULL when it has ended */
    struct buf line;
    int64_t asked_ns, heard_ns;
    unsigned lines_left;      /* of this tick */
    struct gateways *pushing; /* in flight; NULL: none */
    bool push_again;
};

struct hub_reactor {
    struct loop *loop;
    unsigned index;
    struct hub_events events;
    void *ctx;
    struct link links; /* ring head */
    void **table;      /* by worker index */
    size_t table_count;
    struct gateways *gateways;
    struct timer tick;
};

static const struct h2_stream_ops push_ops;
static const struct h2_stream_ops status_ops;

struct link_slots *link_slots_unref(struct link_slots *slots)
{
    if (slots && atomic_fetch_sub(&slots->refs, 1) == 1)
        free(slots);
    return NULL;
}

static void gateways_unref(struct gateways *gateways)
{
    if (gateways && --gateways->refs == 0)
        free(gateways);
}

/* -- the life of a link ------------------------------------------------------------------------------------------ */

/* Out of the table: no new calls. */
static void link_leave(struct link *link)
{
    struct hub_reactor *reactor = link->reactor;
    unsigned long long number = link->number;
    if (!link->is_up)
        return;
    link->is_up = false;
    if (reactor->table[link->worker->index] == link)
        reactor->table[link->worker->index] = NULL;
    (void)atomic_compare_exchange_strong(&link->slots->number[reactor->index], &number, 0);
    log_debug(&(struct log_ctx){.worker = link->worker->id}, "link %llu down", (unsigned long long)link->number);
    reactor->events.on_link(reactor->ctx, link->worker, false);
}

/* Ends the calls that still run on it too. */
static void link_end(struct link *link)
{
    link->is_ending = true;
    link_leave(link);
    link->h2 = h2_free(link->h2);
    loop_undefer(link->reactor->loop, &link->end);
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link_slots_unref(link->slots);
    worker_unref(link->worker);
    buf_free(&link->line);
    free(link);
}

/* Running calls may end; then the connection closes by itself. */
static void link_retire(struct link *link)
{
    link->is_retiring = true;
    link_leave(link);
    if (link->status)
        h2_stream_cancel(link->status, NGHTTP2_NO_ERROR);
    h2_shutdown(link->h2);
}

static void on_end_task(struct task *task)
{
    struct link *link = container_of(task, struct link, end);
    if (link->is_ending)
        link_end(link);
    else
        link_retire(link);
}

/* From within callbacks of the link's own streams, and from hub_drop: the end itself comes from the loop. */
static void link_end_soon(struct link *link, const char *why)
{
    if (link->is_ending)
        return;
    link->is_ending = true;
    log_info(&(struct log_ctx){.worker = link->worker->id}, "link closes: %s", why);
    loop_defer(link->reactor->loop, &link->end);
}

static void link_retire_soon(struct link *link)
{
    if (link->is_ending || link->is_retiring)
        return;
    link->is_retiring = true;
    loop_defer(link->reactor->loop, &link->end);
}

static void on_h2_close(void *ctx, enum error error)
{
    (void)error;
    link_end(ctx);
}

static enum error status_ask(struct link *link)
{
    const struct h2_request request = {.method = STR("GET"), .path = STR("/sluice/status")};
    link->asked_ns = loop_now(link->reactor->loop);
    return h2_request(link->h2, &request, &status_ops, link, &link->status);
}

static void push_start(struct link *link)
{
    struct gateways *gateways = link->reactor->gateways;
    struct h2_stream *stream = NULL;
    const struct h2_header headers[] = {{STR("content-type"), STR("application/json")}};
    if (!gateways || link->is_ending || link->is_retiring)
        return;
    if (link->pushing) {
        link->push_again = true;
        return;
    }
    const struct h2_request request = {.method = STR("PUT"),
                                       .path = STR("/sluice/gateways"),
                                       .headers = headers,
                                       .header_count = 1,
                                       .body = {gateways->json, gateways->len}};
    if (h2_request(link->h2, &request, &push_ops, link, &stream) != ERR_NONE)
        return; /* the link is going, or its streams are full: the next list will do */
    link->pushing = gateways;
    gateways->refs++;
}

static bool table_reserve(struct hub_reactor *reactor, uint32_t index)
{
    if (index < reactor->table_count)
        return true;
    if (index >= WORKERS_MAX)
        return false;
    size_t count = reactor->table_count * 2 > 64 ? reactor->table_count * 2 : 64;
    count = count > index ? count : (size_t)index + 1;
    void **table = realloc(reactor->table, count * sizeof(*table));
    if (!table)
        return false;
    memset(table + reactor->table_count, 0, (count - reactor->table_count) * sizeof(*table));
    reactor->table = table;
    reactor->table_count = count;
    return true;
}

static enum error link_start(struct hub_reactor *reactor, struct handover *handover)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return ERR_NO_MEMORY;
    const struct h2_options options = {.tls = handover->ssl,
                                       .streams_max = LINK_STREAMS_MAX,
                                       .stream_window = STREAM_WINDOW,
                                       .on_close = on_h2_close,
                                       .ctx = link};
    enum error error = h2_open(reactor->loop, handover->fd, &options, &link->h2);
    if (error != ERR_NONE) {
        free(link);
        return error;
    }
    link->reactor = reactor;
    link->worker = handover->worker;
    link->slots = handover->slots;
    link->number = handover->number;
    link->end.run = on_end_task;
    link->lines_left = STATUS_LINES_A_TICK_MAX;
    link->heard_ns = loop_now(reactor->loop);
    link->prev = reactor->links.prev;
    link->next = &reactor->links;
    link->prev->next = link->next->prev = link;
    handover->fd = -1;
    handover->ssl = NULL;
    handover->worker = NULL;
    handover->slots = NULL;
    reactor->table[link->worker->index] = link;
    link->is_up = true;
    if (!timer_is_set(&reactor->tick))
        timer_set(reactor->loop, &reactor->tick, loop_now(reactor->loop) + TICK_NS);
    log_debug(&(struct log_ctx){.worker = link->worker->id}, "link %llu up", (unsigned long long)link->number);
    reactor->events.on_link(reactor->ctx, link->worker, true);
    if (!link->is_ending) {
        if (status_ask(link) != ERR_NONE)
            link_end_soon(link, "no stream for its status");
        push_start(link);
    }
    return ERR_NONE;
}

/* The worker was started again: what is left of its earlier links is dead. */
static void end_all_of(struct hub_reactor *reactor, const struct worker *worker)
{
    struct link *next = NULL;
    for (struct link *link = reactor->links.next; link != &reactor->links; link = next) {
        next = link->next;
        if (link->worker == worker)
            link_end_soon(link, "the worker has started again");
    }
}

void hub_reactor_take(void *arg)
{
    struct handover *handover = arg;
    struct hub_reactor *reactor = handover->reactor;
    uint32_t index = handover->worker->index;
    unsigned long long number = handover->number;
    if (handover->fd < 0) {
        end_all_of(reactor, handover->worker);
    } else if (table_reserve(reactor, index)) {
        if (reactor->table[index])
            link_retire(reactor->table[index]);
        if (link_start(reactor, handover) != ERR_NONE)
            log_warn(&(struct log_ctx){.worker = handover->worker->id}, "no memory or descriptors for a link");
    }
    if (handover->fd >= 0) {
        (void)atomic_compare_exchange_strong(&handover->slots->number[reactor->index], &number, 0);
        SSL_free(handover->ssl);
        close(handover->fd);
    }
    link_slots_unref(handover->slots);
    worker_unref(handover->worker);
    free(handover);
}

/* -- status ------------------------------------------------------------------------------------------------------ */

static void status_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct link *link = ctx;
    (void)headers;
    (void)count;
    atomic_store(&link->worker->rtt_ns, loop_now(link->reactor->loop) - link->asked_ns);
    if (status != 200)
        link_end_soon(link, "it tells no status");
}

static void status_found(void *ctx, const struct worker_status *status)
{
    struct link *link = ctx;
    struct worker *worker = link->worker;
    if (link->is_ending)
        return;
    link->heard_ns = loop_now(link->reactor->loop);
    atomic_store(&worker->reported, status->in_flight);
    atomic_store(&worker->slots, status->slots);
    atomic_store(&worker->draining, status->draining);
    atomic_store(&worker->upstream_ok, status->upstream_ok);
    atomic_store(&worker->heard_ns, link->heard_ns);
    link->reactor->events.on_status(link->reactor->ctx, worker, status);
}

static void status_data(void *ctx, struct str bytes)
{
    struct link *link = ctx;
    h2_stream_consumed(link->status, bytes.len);
    if (link->is_ending)
        return;
    enum error error = status_feed(&link->line, bytes, &link->lines_left, status_found, link);
    if (error != ERR_NONE)
        link_end_soon(link, error == ERR_BUSY ? "too many status lines" : "a status line breaks the rules");
}

static void status_end(void *ctx, enum h2_end end)
{
    struct link *link = ctx;
    link->status = NULL;
    if (end == H2_END_OK)
        link_retire_soon(link);
    else if (!link->is_retiring)
        link_end_soon(link, "its status stream broke");
}

static const struct h2_stream_ops status_ops = {.on_head = status_head, .on_data = status_data, .on_end = status_end};

static void on_tick(struct timer *timer)
{
    struct hub_reactor *reactor = container_of(timer, struct hub_reactor, tick);
    int64_t now = loop_now(reactor->loop);
    for (struct link *link = reactor->links.next; link != &reactor->links; link = link->next) {
        int64_t heard_ns = link->is_retiring ? h2_last_read_ns(link->h2) : link->heard_ns;
        link->lines_left = STATUS_LINES_A_TICK_MAX;
        if (now - heard_ns > SILENT_NS)
            link_end_soon(link, "silent for 15 seconds");
        else if (link->is_retiring)
            h2_ping(link->h2);
    }
    if (reactor->links.next != &reactor->links)
        timer_set(reactor->loop, timer, now + TICK_NS);
}

/* -- the list of gateways ---------------------------------------------------------------------------------------- */

static void push_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct link *link = ctx;
    (void)headers;
    (void)count;
    if (status / 100 != 2)
        log_warn(&(struct log_ctx){.worker = link->worker->id}, "the list of gateways was answered with %d", status);
}

static void push_data(void *ctx, struct str bytes)
{
    (void)ctx; /* not given back: nobody reads it, and the window bounds it */
    (void)bytes;
}

static void push_end(void *ctx, enum h2_end end)
{
    struct link *link = ctx;
    (void)end;
    gateways_unref(link->pushing);
    link->pushing = NULL;
    if (link->push_again) {
        link->push_again = false;
        push_start(link);
    }
}

static const struct h2_stream_ops push_ops = {.on_head = push_head, .on_data = push_data, .on_end = push_end};

void hub_set_gateways(struct hub_reactor *reactor, struct str json)
{
    struct gateways *gateways = malloc(sizeof(*gateways) + json.len);
    if (!gateways)
        return; /* it comes again every few seconds */
    gateways->refs = 1;
    gateways->len = json.len;
    memcpy(gateways->json, json.ptr, json.len);
    gateways_unref(reactor->gateways);
    reactor->gateways = gateways;
    for (struct link *link = reactor->links.next; link != &reactor->links; link = link->next)
        push_start(link);
}

/* -- calls ------------------------------------------------------------------------------------------------------- */

enum error hub_reactor_open(struct loop *loop, unsigned index, const struct hub_events *events, void *ctx,
                            struct hub_reactor **ret)
{
    struct hub_reactor *reactor = calloc(1, sizeof(*reactor));
    if (!reactor)
        return ERR_NO_MEMORY;
    *reactor =
        (struct hub_reactor){.loop = loop, .index = index, .events = *events, .ctx = ctx, .tick = {.on_due = on_tick}};
    reactor->links.prev = reactor->links.next = &reactor->links;
    *ret = reactor;
    return ERR_NONE;
}

struct hub_reactor *hub_reactor_free(struct hub_reactor *reactor)
{
    if (!reactor)
        return NULL;
    while (reactor->links.next != &reactor->links)
        link_end(reactor->links.next);
    timer_clear(reactor->loop, &reactor->tick);
    gateways_unref(reactor->gateways);
    free(reactor->table);
    free(reactor);
    return NULL;
}

void *const *hub_links(const struct hub_reactor *reactor, size_t *ret_count)
{
    *ret_count = reactor->table_count;
    return reactor->table;
}

static struct link *link_of(const struct hub_reactor *reactor, const struct worker *worker)
{
    struct link *link = worker->index < reactor->table_count ? reactor->table[worker->index] : NULL;
    return link && link->worker == worker ? link : NULL;
}

enum error hub_request(struct hub_reactor *reactor, const struct worker *worker, const struct h2_request *request,
                       const struct h2_stream_ops *ops, void *ctx, struct h2_stream **ret)
{
    struct link *link = link_of(reactor, worker);
    if (!link || link->is_ending || link->is_retiring)
        return ERR_CLOSED;
    enum error error = h2_request(link->h2, request, ops, ctx, ret);
    if (error == ERR_CLOSED) /* the worker says goodbye, or the stream ids are used up */
        link_retire_soon(link);
    return error;
}

void hub_drop(struct hub_reactor *reactor, const struct worker *worker)
{
    struct link *link = link_of(reactor, worker);
    if (link)
        link_end_soon(link, "dropped by the gateway");
}
