/* Calls that wait for a slot: first in, first out, bounded a model, looked at whenever a slot may be free. */
#include "gateway/openai_call.h"
#include "core/clock.h"
#include "gateway/openai_check.h"

#include <stdlib.h>

#define POLL_NS (20 * NS_PER_MS)
#define FULL_MODELS_MAX 16
#define FULL_RETRY_MS 1000

static _Atomic int *places_of(const struct openai_call *call)
{
    return &call->reactor->gateway->queued[str_hash(call->model, 0) % GATEWAY_QUEUES];
}

void queue_leave(struct openai_call *call)
{
    struct openai *openai = call->reactor->openai;
    if (call->state != CALL_QUEUED)
        return;
    *(call->queue_prev ? &call->queue_prev->queue_next : &openai->queue_head) = call->queue_next;
    *(call->queue_next ? &call->queue_next->queue_prev : &openai->queue_tail) = call->queue_prev;
    call->queue_next = call->queue_prev = NULL;
    openai->queued--;
    atomic_fetch_sub_explicit(places_of(call), 1, memory_order_relaxed);
    call->queued_ns += loop_now(call->reactor->loop) - call->queue_from_ns;
    call->state = CALL_READING;
    timer_clear(call->reactor->loop, &call->timer);
    metrics_gauge_add(call->reactor->metrics, METRIC_CALLS_QUEUED, -1);
}

void queue_enter(struct openai_call *call)
{
    struct reactor *reactor = call->reactor;
    if (call->state == CALL_QUEUED)
        return; /* keeps its place in the line */
    struct openai *openai = reactor->openai;
    const struct settings *settings = reactor->gateway->settings;
    if (atomic_fetch_add_explicit(places_of(call), 1, memory_order_relaxed) >= settings->limits.queue_per_model) {
        struct api_error error;
        atomic_fetch_sub_explicit(places_of(call), 1, memory_order_relaxed);
        api_error_set(&error, 429, "rate_limit_error", "queue_full", NULL,
                      "All slots for this model are busy and its queue is full. Try again later.");
        error.retry_after_ms = FULL_RETRY_MS;
        call_error(call, &error);
        return;
    }
    call->state = CALL_QUEUED;
    call->queue_from_ns = loop_now(reactor->loop);
    call->queue_next = NULL;
    call->queue_prev = openai->queue_tail;
    *(openai->queue_tail ? &openai->queue_tail->queue_next : &openai->queue_head) = call;
    openai->queue_tail = call;
    openai->queued++;
    call_watch_deadline(call);
    metrics_gauge_add(reactor->metrics, METRIC_CALLS_QUEUED, 1);
    if (call->queued_ns == 0)
        metrics_count(reactor->metrics, METRIC_QUEUED, 1);
    if (!timer_is_set(&openai->poll))
        timer_set(reactor->loop, &openai->poll, loop_now(reactor->loop) + POLL_NS);
}

/* May the call at the head of its model's line be tried? Calls of a model that was found full in this pass wait. */
static bool is_full(const struct str *full, size_t count, struct str model)
{
    for (size_t i = 0; i < count; i++)
        if (str_eq(full[i], model))
            return true;
    return false;
}

static bool is_plain(const struct openai_call *call)
{
    return call->query.max_price_usd_nano < 0 && !call->query.region.ptr && !call->query.require.ptr &&
           call->query.tried_count == 0;
}

static void on_wake(struct task *task)
{
    struct openai *openai = container_of(task, struct openai, wake);
    struct str full[FULL_MODELS_MAX];
    size_t full_count = 0, left = openai->queued;
    int64_t now = loop_now(openai->reactor->loop);
    struct openai_call *call = openai->queue_head;
    while (call && left--) {
        struct openai_call *next = call->queue_next;
        if (call->not_before_ns <= now && !is_full(full, full_count, call->model)) {
            struct str model = call->model;
            bool was_plain = is_plain(call);
            call_dispatch(call); /* may free the call */
            bool still_waits = next ? next->queue_prev == call : openai->queue_tail == call;
            if (still_waits && was_plain && full_count < FULL_MODELS_MAX)
                full[full_count++] = model;
        }
        call = next;
    }
}

static void on_poll(struct timer *timer)
{
    struct openai *openai = container_of(timer, struct openai, poll);
    if (!openai->queued)
        return;
    timer_set(openai->reactor->loop, timer, loop_now(openai->reactor->loop) + POLL_NS);
    openai_wake(openai);
}

void openai_wake(struct openai *openai)
{
    if (openai->queued)
        loop_defer(openai->reactor->loop, &openai->wake);
}

struct openai *openai_open(struct reactor *reactor)
{
    struct openai *openai = calloc(1, sizeof(*openai));
    if (!openai)
        return NULL;
    openai->reactor = reactor;
    openai->wake.run = on_wake;
    openai->poll.on_due = on_poll;
    openai->tick.on_due = running_tick;
    openai->checks = checks_open(reactor);
    return openai->checks ? openai : openai_free(openai);
}

struct openai *openai_free(struct openai *openai)
{
    if (!openai)
        return NULL;
    loop_undefer(openai->reactor->loop, &openai->wake);
    timer_clear(openai->reactor->loop, &openai->poll);
    timer_clear(openai->reactor->loop, &openai->tick);
    openai->checks = checks_free(openai->checks);
    free(openai);
    return NULL;
}
