/* The life of a call: its memory, its deadline, its one completion. */
#include "adapters/network_priv.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BLOCK ((size_t)4096)
#define ARENA_MAX ((size_t)2 << 20)
#define ARENA_OFFERS_MAX ((size_t)32 << 20)
#define MEMORY_MAX ((size_t)64 << 10)
#define ARGS_MAX 256
#define DEADLINE_NS (30 * NS_PER_S)
#define DEADLINE_LONG_NS (60 * NS_PER_S)
#define ENDPOINT_MAX 1024
#define REASON_MAX 256

struct arena_block {
    struct arena_block *next;
    size_t size, used;
    _Alignas(16) char bytes[];
};

static void arena_free(struct adapter_call *call)
{
    while (call->arena) {
        struct arena_block *next = call->arena->next;
        explicit_bzero(call->arena->bytes, call->arena->used); /* orders hold secrets */
        free(call->arena);
        call->arena = next;
    }
}

void *call_alloc(struct adapter_call *call, size_t size)
{
    size_t need = (size + 15) & ~(size_t)15;
    struct arena_block *block = call->arena;
    if (!block || block->size - block->used < need) {
        size_t room = need > ARENA_BLOCK ? need : ARENA_BLOCK;
        size_t limit = call->op == ADAPTER_OFFERS ? ARENA_OFFERS_MAX : ARENA_MAX;
        if (need > limit || call->arena_bytes > limit - need || !(block = calloc(1, sizeof(*block) + room))) {
            adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer takes too much memory"));
            return NULL;
        }
        block->size = room;
        block->next = call->arena;
        call->arena = block;
        call->arena_bytes += room;
    }
    void *at = block->bytes + block->used;
    block->used += need;
    return at;
}

struct str call_copy(struct adapter_call *call, struct str text)
{
    char *at = text.ptr ? call_alloc(call, text.len + 1) : NULL;
    if (!at)
        return (struct str){NULL, 0};
    if (text.len)
        memcpy(at, text.ptr, text.len);
    return (struct str){at, text.len};
}

void *adapter_memory(struct adapter_call *call, size_t size)
{
    assert(size && size <= MEMORY_MAX);
    if (!call->memory && !(call->memory = calloc(1, size)))
        adapter_fail(call, SUPPLY_TRANSIENT, STR("out of memory"));
    return call->memory;
}

struct str adapter_text(struct adapter_call *call, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *at = len < 0 ? NULL : call_alloc(call, (size_t)len + 1);
    if (at)
        vsnprintf(at, (size_t)len + 1, format, again);
    va_end(again);
    return at ? (struct str){at, (size_t)len} : (struct str){NULL, 0};
}

struct str adapter_url_escaped(struct adapter_call *call, struct str text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *at = call_alloc(call, text.len * 3 + 1);
    size_t len = 0;
    for (size_t i = 0; at && i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c ? c : '/')) {
            at[len++] = (char)c;
            continue;
        }
        at[len++] = '%';
        at[len++] = hex[c >> 4];
        at[len++] = hex[c & 15];
    }
    return at ? (struct str){at, len} : (struct str){NULL, 0};
}

bool call_copy_order(struct adapter_call *call, const struct supply_order *order)
{
    if (order->argc > ARGS_MAX || order->env_count > ARGS_MAX || order->port_count > SUPPLY_PORTS_MAX)
        return false;
    struct str *argv = call_alloc(call, sizeof(*argv) * (order->argc + 1));
    struct supply_pair *env = call_alloc(call, sizeof(*env) * (order->env_count + 1));
    uint16_t *ports = call_alloc(call, sizeof(*ports) * (order->port_count + 1));
    if (!argv || !env || !ports)
        return false;
    for (size_t i = 0; i < order->argc; i++)
        argv[i] = call_copy(call, order->argv[i]);
    for (size_t i = 0; i < order->env_count; i++)
        env[i] = (struct supply_pair){call_copy(call, order->env[i].key), call_copy(call, order->env[i].value)};
    for (size_t i = 0; i < order->port_count; i++)
        ports[i] = order->ports[i];
    call->order = *order;
    call->order.tag = call->tag = call_copy(call, order->tag);
    call->order.offer = call_copy(call, order->offer);
    call->order.image = call_copy(call, order->image);
    call->order.script = call_copy(call, order->script);
    call->order.argv = argv;
    call->order.env = env;
    call->order.ports = ports;
    return !call->is_over;
}

bool call_copy_instance(struct adapter_call *call, const struct supply_instance *from, struct supply_instance *to)
{
    size_t count = from->endpoint_count < SUPPLY_PORTS_MAX ? from->endpoint_count : SUPPLY_PORTS_MAX;
    struct supply_endpoint *endpoints = call_alloc(call, sizeof(*endpoints) * (count + 1));
    if (!endpoints || !from->id.len || from->id.len >= SUPPLY_ID_MAX || from->tag.len >= SUPPLY_TAG_MAX)
        return false;
    *to = *from;
    to->endpoints = endpoints;
    to->endpoint_count = 0;
    for (size_t i = 0; i < count; i++) {
        struct str url = from->endpoints[i].url;
        if (url.len && url.len <= ENDPOINT_MAX)
            endpoints[to->endpoint_count++] = (struct supply_endpoint){from->endpoints[i].port, call_copy(call, url)};
    }
    struct str reason = from->reason;
    reason.len = reason.len < REASON_MAX ? reason.len : REASON_MAX;
    to->id = call_copy(call, from->id);
    to->tag = call_copy(call, from->tag);
    to->reason = call_copy(call, reason);
    to->placement = call_copy(call, from->placement);
    return !call->is_over;
}

/* The HTTP client may hold a dropped request for a turn more. */
void call_release(struct adapter_call *call)
{
    if (!call->is_told || call->fetch)
        return;
    arena_free(call);
    free(call->memory);
    free(call->request.json_body);
    buf_free(&call->body);
    buf_free(&call->head_bytes);
    free(call);
}

static void call_leave(struct adapter_call *call)
{
    struct network *network = call->network;
    request_drop(call);
    timer_clear(network->loop, &call->deadline);
    timer_clear(network->loop, &call->wake);
    loop_undefer(network->loop, &call->task);
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    network->open_count--;
    call->network = NULL;
}

static void call_tell(struct adapter_call *call)
{
    call->is_over = call->is_told = true;
    call->result.is_uncertain = call->result.error != SUPPLY_OK && call->asked == ADAPTER_CREATE && call->is_uncertain;
    call_leave(call);
    if (call->done)
        call->done(call->ctx, &call->result);
    call_release(call);
}

static void call_run(struct task *task)
{
    struct adapter_call *call = container_of(task, struct adapter_call, task);
    if (call->is_over) {
        call_tell(call);
    } else if (!call->is_started) {
        call->is_started = true;
        call->network->adapter->run[call->op](call);
    }
}

static void call_on_deadline(struct timer *timer)
{
    struct adapter_call *call = container_of(timer, struct adapter_call, deadline);
    if (call->is_over)
        return;
    bool is_waiting = call->request.url.len && !call->request.is_sent;
    adapter_fail(call, is_waiting ? SUPPLY_RATE_LIMITED : SUPPLY_TRANSIENT,
                 is_waiting ? STR("it may not be asked again yet") : STR("no answer in time"));
}

static void call_on_wake(struct timer *timer)
{
    struct adapter_call *call = container_of(timer, struct adapter_call, wake);
    void (*then)(struct adapter_call *) = call->then;
    call->then = NULL;
    if (!call->is_over && then)
        then(call);
}

void adapter_later(struct adapter_call *call, int64_t after_ns, void (*then)(struct adapter_call *call))
{
    if (call->is_over)
        return;
    assert(!call->then && !call->request.url.len);
    call->then = then;
    timer_set(call->network->loop, &call->wake, loop_now(call->network->loop) + after_ns);
}

static int64_t deadline_of(const struct network *network, enum adapter_op op)
{
    int64_t own = network->adapter->deadline_ns[op];
    if (network->deadline_ms)
        return network->deadline_ms * NS_PER_MS;
    return own ? own : op == ADAPTER_OFFERS || op == ADAPTER_CREATE ? DEADLINE_LONG_NS : DEADLINE_NS;
}

struct adapter_call *call_make(struct network *network, enum adapter_op op, network_done_fn *done, void *ctx)
{
    struct adapter_call *call = calloc(1, sizeof(*call));
    if (!call)
        abort(); /* there is nothing that could tell of it in a coming turn */
    *call = (struct adapter_call){.network = network, .op = op, .asked = op, .done = done, .ctx = ctx};
    call->next = network->open;
    call->link = &network->open;
    if (call->next)
        call->next->link = &call->next;
    network->open = call;
    call->task.run = call_run;
    call->deadline.on_due = call_on_deadline;
    call->wake.on_due = call_on_wake;
    buf_init(&call->head_bytes, (size_t)64 << 10);
    call->due_ns = loop_now(network->loop) + deadline_of(network, op);
    timer_set(network->loop, &call->deadline, call->due_ns);
    loop_defer(network->loop, &call->task);
    const struct adapter *adapter = network->adapter;
    if (op == ADAPTER_CHECK && !adapter->run[op])
        call->op = adapter->run[ADAPTER_LIST] ? ADAPTER_LIST : ADAPTER_OFFERS;
    if (++network->open_count > NETWORK_CALLS_MAX)
        adapter_fail(call, SUPPLY_RATE_LIMITED, STR("too many calls of it are open here"));
    else if (!adapter->run[call->op])
        adapter_fail(call, SUPPLY_UNSUPPORTED, str_of(adapter_op_name(op)));
    return call;
}

void call_end(struct adapter_call *call)
{
    call->is_over = true;
    call->then = NULL;
    request_drop(call);
    timer_clear(call->network->loop, &call->deadline);
    timer_clear(call->network->loop, &call->wake);
    loop_defer(call->network->loop, &call->task);
}

void call_close(struct adapter_call *call, const char *why)
{
    if (!call->is_over)
        adapter_fail(call, SUPPLY_TRANSIENT, str_of(why));
    call_tell(call);
}

void network_cancel(struct adapter_call *call)
{
    if (!call || call->is_told)
        return;
    call->done = NULL;
    call->on_offers = NULL;
    call->on_instances = NULL;
    call->on_logs = NULL;
    if (!call->is_over)
        call_end(call);
}

/* -- how an adapter ends a call -- */

void adapter_done(struct adapter_call *call, const struct supply_instance *instance)
{
    if (call->is_over)
        return;
    if (call->asked == ADAPTER_DESCRIBE || call->asked == ADAPTER_CREATE) {
        if (!instance || !call_copy_instance(call, instance, &call->instance)) {
            adapter_fail(call, SUPPLY_UNKNOWN, STR("its answer names no instance"));
            return;
        }
        call->result.instance = &call->instance;
    }
    call->result.error = SUPPLY_OK;
    call->result.leftover = (struct str){NULL, 0};
    call_end(call);
}

void adapter_fail(struct adapter_call *call, enum supply_error error, struct str message)
{
    if (call->is_over)
        return;
    assert(error != SUPPLY_OK);
    if (call->asked == ADAPTER_TERMINATE && error == SUPPLY_NOT_FOUND) {
        adapter_done(call, NULL);
        return;
    }
    call->result.error = error;
    message_write(call->network, error, call->result.http_status, message, call->result.message);
    call_end(call);
}

void adapter_leftover(struct adapter_call *call, struct str instance)
{
    if (!call->is_over && instance.len && instance.len < SUPPLY_ID_MAX)
        call->result.leftover = call_copy(call, instance);
}

void adapter_uncertain(struct adapter_call *call, bool is_uncertain)
{
    call->is_uncertain = is_uncertain;
}
