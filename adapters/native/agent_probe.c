/* The relay between gateways and the probe: `sluice-probe serve` as a child, frames to and from it over pipes.
 *
 * Envelope, both ways: u32 length of the frame, u64 id of the request, the frame; little-endian. The child answers each
 * id once, in any order. Ids with the top bit set are the agent's own requests (JSON), the others are gateways': the
 * next 15 bits tell those apart. */
#include "adapters/native/agent_priv.h"
#include "core/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define ENVELOPE_BYTES 12
#define REMOTE_MAX 32 /* gateways' frames under way */
#define LOCAL_MAX 8
#define LOCAL_BIT ((uint64_t)1 << 63)
#define ASKER_SHIFT 48 /* 15 bits of the id say which gateway asks */
#define ASKER_MASK 0x7fffu
#define READS_MAX 8               /* of a turn */
#define STEADY_NS (10 * NS_PER_S) /* a child that lived this long starts the back-off afresh */
#define HANG_NS (180 * NS_PER_S)  /* no challenge may take as long */
#define CLOSE_NS NS_PER_S
#define NAP_NS (2 * NS_PER_MS)
#define LINE_MAX_BYTES 400 /* of its log */

enum probe_state { PROBE_DOWN, PROBE_UP, PROBE_CLOSED };

struct agent_ask {
    struct agent_probe *probe;
    struct agent_ask *next;
    uint64_t id;
    struct buf frame;
    size_t sent; /* of envelope and frame */
    int64_t since_ns;
    void (*done)(void *ctx, struct str answer); /* NULL: nobody waits any more */
    void *ctx;
};

struct agent_probe {
    struct agent *agent;
    enum probe_state state;
    struct agent_child child;
    struct io_source in, out, err;
    bool in_is_added;
    struct timer timer; /* DOWN: the next start; UP: the oldest request's limit; CLOSED: the kill */
    struct backoff backoff;
    int64_t up_ns;
    uint64_t next_id;
    struct agent_ask *asks; /* oldest first */
    unsigned remote_count, local_count;
    bool is_broken; /* its stdin is gone */
    uint8_t head[ENVELOPE_BYTES];
    size_t head_len, body_len; /* body_len: of the answer being read */
    struct buf body;
    char line[LINE_MAX_BYTES + 1];
    size_t line_len;
    bool is_cutting; /* the rest of a line too long */
};

static uint64_t load_le(const uint8_t *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = count; i-- > 0;)
        value = value << 8 | bytes[i];
    return value;
}

static void store_le(uint8_t *bytes, size_t count, uint64_t value)
{
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

/* -- requests ---------------------------------------------------------------------------------------------------- */

static bool ask_is_sent(const struct agent_ask *ask)
{
    return ask->sent == ENVELOPE_BYTES + ask->frame.len;
}

static void ask_unlink(struct agent_ask *ask)
{
    struct agent_probe *probe = ask->probe;
    struct agent_ask **at = &probe->asks;
    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
    if (ask->id & LOCAL_BIT)
        probe->local_count--;
    else
        probe->remote_count--;
}

/* Unlinked before the callback, which may ask again. */
static void ask_end(struct agent_ask *ask, struct str answer)
{
    ask_unlink(ask);
    if (ask->done)
        ask->done(ask->ctx, answer);
    buf_free(&ask->frame);
    free(ask);
}

static void in_watch(struct agent_probe *probe, bool is_wanted)
{
    if (probe->in_is_added == is_wanted)
        return;
    if (is_wanted && loop_add(probe->agent->loop, &probe->in, EPOLLOUT) != ERR_NONE)
        probe->is_broken = true;
    else if (!is_wanted)
        loop_remove(probe->agent->loop, &probe->in);
    probe->in_is_added = is_wanted && !probe->is_broken;
}

/* One request to the child. True when it has left whole. */
static bool ask_write(struct agent_ask *ask)
{
    uint8_t head[ENVELOPE_BYTES];
    store_le(head, 4, ask->frame.len);
    store_le(head + 4, 8, ask->id);
    while (!ask_is_sent(ask)) {
        size_t head_sent = ask->sent < ENVELOPE_BYTES ? ask->sent : ENVELOPE_BYTES, at = ask->sent - head_sent;
        struct iovec parts[2] = {{head + head_sent, ENVELOPE_BYTES - head_sent},
                                 {ask->frame.ptr + at, ask->frame.len - at}};
        ssize_t n = writev(ask->probe->in.fd, parts, 2);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            ask->probe->is_broken = errno != EAGAIN;
            return false;
        }
        ask->sent += (size_t)n;
    }
    return true;
}

/* Losing the child ends requests, which may be the caller's own: so that waits for a turn of its own. */
static void probe_write(struct agent_probe *probe)
{
    struct agent_ask *ask = probe->asks;
    while (ask && (ask_is_sent(ask) || ask_write(ask)))
        ask = ask->next;
    in_watch(probe, ask && !probe->is_broken);
    if (probe->is_broken)
        timer_set(probe->agent->loop, &probe->timer, loop_now(probe->agent->loop));
    else if (!timer_is_set(&probe->timer) && probe->asks)
        timer_set(probe->agent->loop, &probe->timer, probe->asks->since_ns + HANG_NS);
}

static enum error ask_new(struct agent_probe *probe, uint64_t id_top, struct buf *frame,
                          void (*done)(void *ctx, struct str answer), void *ctx, struct agent_ask **ret)
{
    assert(frame->len > 0 && frame->len <= PROBE_FRAME_MAX);
    bool is_local = (id_top & LOCAL_BIT) != 0;
    if (!probe || probe->state != PROBE_UP ||
        (is_local ? probe->local_count >= LOCAL_MAX : probe->remote_count >= REMOTE_MAX))
        return ERR_BUSY;
    struct agent_ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct agent_ask){.probe = probe, .frame = *frame, .done = done, .ctx = ctx};
    *frame = (struct buf){.limit = frame->limit};
    ask->id = ++probe->next_id | id_top;
    ask->since_ns = loop_now(probe->agent->loop);
    struct agent_ask **end = &probe->asks;
    while (*end)
        end = &(*end)->next;
    *end = ask;
    if (is_local)
        probe->local_count++;
    else
        probe->remote_count++;
    *ret = ask;
    probe_write(probe);
    return ERR_NONE;
}

enum error agent_probe_ask(struct agent_probe *probe, struct str gateway, struct buf *frame,
                           void (*done)(void *ctx, struct str answer), void *ctx, struct agent_ask **ret)
{
    uint64_t asker = str_hash(gateway, 0) & ASKER_MASK;
    return ask_new(probe, asker << ASKER_SHIFT, frame, done, ctx, ret);
}

void agent_ask_cancel(struct agent_ask *ask)
{
    ask->done = NULL;
    if (ask->sent == 0)
        ask_end(ask, (struct str){NULL, 0}); /* the child has heard nothing of it */
}

enum error agent_probe_local(struct agent *agent, struct str text, void (*done)(void *ctx, struct str answer),
                             void *ctx)
{
    struct agent_ask *ask;
    struct buf frame;
    buf_init(&frame, PROBE_FRAME_MAX);
    if (text.len == 0 || !buf_append_str(&frame, text))
        return ERR_TOO_LARGE;
    enum error error = ask_new(agent->probe, LOCAL_BIT, &frame, done, ctx, &ask);
    buf_free(&frame);
    return error;
}

/* -- the child's life -------------------------------------------------------------------------------------------- */

static void source_close(struct agent_probe *probe, struct io_source *source)
{
    loop_remove(probe->agent->loop, source);
    if (source->fd >= 0)
        close(source->fd);
    source->fd = -1;
}

/* The child is of no use any more: ends it, and every request that it has not answered. */
static void probe_lost(struct agent_probe *probe, const char *why)
{
    struct agent *agent = probe->agent;
    struct log_ctx log = agent_log(agent);
    int64_t now_ns = loop_now(agent->loop);
    bool is_closed = probe->state == PROBE_CLOSED;
    in_watch(probe, false);
    source_close(probe, &probe->in);
    source_close(probe, &probe->out);
    source_close(probe, &probe->err);
    agent_child_kill(&probe->child);
    probe->is_broken = false;
    buf_free(&probe->body);
    probe->head_len = probe->body_len = probe->line_len = 0;
    probe->is_cutting = false;
    timer_clear(agent->loop, &probe->timer);
    if (!is_closed) {
        if (now_ns - probe->up_ns > STEADY_NS)
            backoff_reset(&probe->backoff);
        log_warn(&log, "the probe is lost with %u requests open: %s", probe->remote_count + probe->local_count, why);
        probe->state = PROBE_DOWN;
        timer_set(agent->loop, &probe->timer, now_ns + backoff_next(&probe->backoff));
    }
    while (probe->asks)
        ask_end(probe->asks, (struct str){NULL, 0});
}

static void in_on_ready(struct io_source *source, uint32_t events)
{
    (void)events;
    probe_write(container_of(source, struct agent_probe, in));
}

/* Takes bytes of an answer. False: the child has broken the envelope, and is lost. */
static bool out_take(struct agent_probe *probe, size_t len)
{
    if (probe->head_len < ENVELOPE_BYTES) {
        probe->head_len += len;
        if (probe->head_len < ENVELOPE_BYTES)
            return true;
        probe->body_len = (size_t)load_le(probe->head, 4);
        if (probe->body_len > 0 && probe->body_len <= PROBE_FRAME_MAX && buf_reserve(&probe->body, probe->body_len))
            return true;
        probe_lost(probe, "an answer that is empty or too large");
        return false;
    }
    probe->body.len += len;
    if (probe->body.len < probe->body_len)
        return true;
    uint64_t id = load_le(probe->head + 4, 8);
    struct agent_ask *ask = probe->asks;
    while (ask && ask->id != id)
        ask = ask->next;
    if (!ask || !ask_is_sent(ask)) {
        probe_lost(probe, "an answer that nobody has asked for");
        return false;
    }
    ask_end(ask, buf_str(&probe->body));
    buf_clear(&probe->body);
    probe->head_len = probe->body_len = 0;
    return true;
}

static void out_on_ready(struct io_source *source, uint32_t events)
{
    struct agent_probe *probe = container_of(source, struct agent_probe, out);
    (void)events;
    for (int reads = 0; reads < READS_MAX; reads++) {
        bool is_head = probe->head_len < ENVELOPE_BYTES;
        ssize_t n = is_head ? read(source->fd, probe->head + probe->head_len, ENVELOPE_BYTES - probe->head_len)
                            : read(source->fd, probe->body.ptr + probe->body.len, probe->body_len - probe->body.len);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            probe_lost(probe, n == 0 ? "it has ended" : strerror(errno));
            return;
        }
        if (!out_take(probe, (size_t)n))
            return;
    }
}

/* Its log becomes ours, line by line; log_write makes the bytes harmless. */
static void err_on_ready(struct io_source *source, uint32_t events)
{
    struct agent_probe *probe = container_of(source, struct agent_probe, err);
    struct log_ctx log = agent_log(probe->agent);
    char bytes[4096];
    ssize_t n = read(source->fd, bytes, sizeof(bytes));
    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        source_close(probe, source);
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        bool is_end = bytes[i] == '\n', is_full = probe->line_len == LINE_MAX_BYTES;
        if ((is_end || is_full) && !probe->is_cutting && probe->line_len > 0) {
            probe->line[probe->line_len] = '\0';
            log_info(&log, "probe: %s%s", probe->line, is_end ? "" : "...");
            probe->is_cutting = !is_end;
            probe->line_len = 0;
        }
        if (is_end)
            probe->is_cutting = false;
        else if (!probe->is_cutting)
            probe->line[probe->line_len++] = bytes[i] ? bytes[i] : ' ';
        if (is_end)
            probe->line_len = 0;
    }
}

/* Without --gpu we register as what the first device says it is, and as many as are like it. */
static void describe(struct agent *agent, const json_t *claims)
{
    struct agent_options *options = &agent->options;
    struct log_ctx log = agent_log(agent);
    const json_t *first = json_array_get(claims, 0);
    const char *name = json_string_value(json_object_get(first, "name"));
    uint64_t vram = (uint64_t)json_integer_value(json_object_get(first, "vram_bytes"));
    int alike = 0;
    for (size_t i = 0; i < json_array_size(claims); i++)
        alike += json_equal(json_object_get(json_array_get(claims, i), "name"), json_object_get(first, "name"));
    bool is_known = !strcmp(name, "cpu") ? str_copy(options->gpu, sizeof(options->gpu), STR("cpu"))
                                         : agent_gpu_name(str_of(name), vram, options->gpu, sizeof(options->gpu));
    if (!is_known && agent->lease) /* it is rented as it is: what it reaches will be seen */
        is_known = str_copy(options->gpu, sizeof(options->gpu), STR("none/unknown"));
    if (!is_known) {
        log_error(&log, "no class is known for a GPU \"%.64s\" with %llu MiB: give --gpu", name,
                  (unsigned long long)(vram >> 20));
        agent_finish(agent, AGENT_REFUSED);
        return;
    }
    if (options->gpus == 0)
        options->gpus = alike;
    agent_register_soon(agent);
}

/* What the devices say of themselves: told to whoever reads the log, and held against what we registered as. */
static void on_claims(void *ctx, struct str answer)
{
    struct agent *agent = ctx;
    struct log_ctx log = agent_log(agent);
    json_t *root = answer.ptr ? json_loadb(answer.ptr, answer.len, 0, NULL) : NULL;
    const json_t *claims = json_object_get(root, "claims");
    const char *name = json_string_value(json_object_get(json_array_get(claims, 0), "name"));
    size_t count = json_array_size(claims);
    if (name && count <= PROBE_DEVICES_MAX) {
        log_info(&log, "the probe answers for %zu devices, the first: %.64s", count, name);
        if (!agent->options.gpu[0])
            describe(agent, claims);
        if (strcmp(name, "cpu") != 0 && count != (size_t)agent->options.gpus)
            log_warn(&log, "%d GPUs are registered, and the probe has %zu", agent->options.gpus, count);
    } else if (answer.ptr) {
        log_warn(&log, "the probe tells of no device");
    }
    json_decref(root);
}

static void probe_start(struct agent_probe *probe)
{
    struct agent *agent = probe->agent;
    struct log_ctx log = agent_log(agent);
    char how[32];
    if (!agent_child_reap(&probe->child, how, sizeof(how))) { /* it still holds the devices' memory */
        timer_set(agent->loop, &probe->timer, loop_now(agent->loop) + backoff_next(&probe->backoff));
        return;
    }
    enum error error = agent_child_start(&agent->options, agent->state.dir, &probe->child);
    if (error) {
        log_error(&log, "cannot start the probe %s: %s", agent->options.probe, error_text(error));
        timer_set(agent->loop, &probe->timer, loop_now(agent->loop) + backoff_next(&probe->backoff));
        return;
    }
    probe->in.fd = probe->child.in;
    probe->out.fd = probe->child.out;
    probe->err.fd = probe->child.err;
    probe->state = PROBE_UP;
    probe->up_ns = loop_now(agent->loop);
    log_info(&log, "the probe %s runs, process %d", agent->options.probe, (int)probe->child.pid);
    if (loop_add(agent->loop, &probe->out, EPOLLIN) != ERR_NONE ||
        loop_add(agent->loop, &probe->err, EPOLLIN) != ERR_NONE)
        probe_lost(probe, "no room in the loop");
    else if (agent_probe_local(agent, STR("{\"op\":\"claims\"}"), on_claims, agent) != ERR_NONE)
        log_warn(&log, "the probe could not be asked for its devices");
}

static void timer_on_due(struct timer *timer)
{
    struct agent_probe *probe = container_of(timer, struct agent_probe, timer);
    int64_t now_ns = loop_now(probe->agent->loop);
    if (probe->state == PROBE_DOWN)
        probe_start(probe);
    else if (probe->state == PROBE_CLOSED)
        probe_lost(probe, "");
    else if (probe->is_broken)
        probe_lost(probe, "it reads no more");
    else if (probe->asks && now_ns - probe->asks->since_ns >= HANG_NS)
        probe_lost(probe, "a request without an answer for too long");
    else if (probe->asks)
        timer_set(probe->agent->loop, timer, probe->asks->since_ns + HANG_NS);
}

enum error agent_probe_open(struct agent *agent)
{
    struct agent_probe *probe = calloc(1, sizeof(*probe));
    if (!probe)
        return ERR_NO_MEMORY;
    probe->agent = agent;
    probe->in = (struct io_source){.fd = -1, .on_ready = in_on_ready};
    probe->out = (struct io_source){.fd = -1, .on_ready = out_on_ready};
    probe->err = (struct io_source){.fd = -1, .on_ready = err_on_ready};
    probe->timer.on_due = timer_on_due;
    buf_init(&probe->body, PROBE_FRAME_MAX);
    agent->probe = probe;
    probe_start(probe);
    return ERR_NONE;
}

void agent_probe_close(struct agent_probe *probe)
{
    if (!probe || probe->state == PROBE_CLOSED)
        return;
    bool is_up = probe->state == PROBE_UP;
    probe->state = PROBE_CLOSED;
    probe->up_ns = loop_now(probe->agent->loop);
    in_watch(probe, false);
    source_close(probe, &probe->in);
    timer_clear(probe->agent->loop, &probe->timer);
    if (is_up)
        timer_set(probe->agent->loop, &probe->timer, probe->up_ns + CLOSE_NS);
}

bool agent_probe_is_gone(struct agent_probe *probe)
{
    char how[32];
    return !probe || (probe->state == PROBE_CLOSED && agent_child_reap(&probe->child, how, sizeof(how)));
}

bool agent_probe_is(const struct agent_probe *probe, pid_t pid)
{
    return probe && probe->child.pid == pid;
}

struct agent_probe *agent_probe_free(struct agent_probe *probe)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    char how[32];
    if (!probe)
        return NULL;
    agent_probe_close(probe);
    source_close(probe, &probe->out);
    source_close(probe, &probe->err);
    for (int64_t naps = 0; !agent_child_reap(&probe->child, how, sizeof(how)) && naps * NAP_NS < 2 * CLOSE_NS; naps++) {
        if (clock_mono_ns() - probe->up_ns >= CLOSE_NS)
            agent_child_kill(&probe->child);
        nanosleep(&nap, NULL);
    }
    while (probe->asks)
        ask_end(probe->asks, (struct str){NULL, 0});
    timer_clear(probe->agent->loop, &probe->timer);
    buf_free(&probe->body);
    free(probe);
    return NULL;
}
