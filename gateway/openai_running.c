/* Calls that last: once a second each gets money held ahead of what it has used, so that a long call is paid by its
 * tenant as long as there is money, and a silent stream a sign of life that keeps proxies from closing it. */
#include "gateway/openai_call.h"
#include "core/clock.h"

#define TICK_NS NS_PER_S
#define SILENCE_NS (15 * NS_PER_S)

int64_t hold_wanted(int64_t price_usd_nano, int64_t span_ns, uint32_t gpus, uint32_t slots)
{
    int64_t cost;
    if (price_usd_nano == 0)
        return 0;
    if (!money_cost(price_usd_nano, money_gpu_ms(span_ns, gpus, slots), &cost))
        return INT64_MAX / 4;
    return cost < 1 ? 1 : cost;
}

void running_enter(struct openai_call *call)
{
    struct openai *openai = call->reactor->openai;
    if (call->running_link)
        return;
    call->running_next = openai->running;
    call->running_link = &openai->running;
    if (openai->running)
        openai->running->running_link = &call->running_next;
    openai->running = call;
    if (!timer_is_set(&openai->tick))
        timer_set(call->reactor->loop, &openai->tick, loop_now(call->reactor->loop) + TICK_NS);
}

void running_leave(struct openai_call *call)
{
    if (!call->running_link)
        return;
    *call->running_link = call->running_next;
    if (call->running_next)
        call->running_next->running_link = call->running_link;
    call->running_next = NULL;
    call->running_link = NULL;
}

/* Takes what is there; the rest is tried again at the next tick, when the lease may have been renewed. */
static void hold_more(struct openai_call *call, struct credit *credit, int64_t *held, int64_t want)
{
    if (*held >= want)
        return;
    *held += credit_take(credit, want - *held);
    credit_renew_if_low(call->reactor->credit_gate, credit);
}

static void top_up(struct openai_call *call, int64_t now)
{
    const struct target *target = &call->target;
    int64_t span_ns = now - call->attempt->sent_ns + OPENAI_HOLD_NS;
    int64_t want = hold_wanted(target->price_usd_nano, span_ns, target->gpus, target->slots);
    if (want == 0)
        return;
    hold_more(call, call->key->balance, &call->held_balance, want);
    if (call->key->budget)
        hold_more(call, call->key->budget, &call->held_budget, want);
}

static void keep_alive(struct openai_call *call, int64_t now)
{
    bool is_clean_stream = call->state == CALL_STREAMING && call->has_sse && call->sse.mode == SSE_CHAT;
    if (!is_clean_stream || now - call->told_ns < SILENCE_NS || httpd_queued(call->front->http) > 0)
        return;
    call->told_ns = now;
    if (!httpd_write(call->front->http, STR(": ping\n\n")))
        httpd_break(call->front->http);
}

void running_tick(struct timer *timer)
{
    struct openai *openai = container_of(timer, struct openai, tick);
    struct loop *loop = openai->reactor->loop;
    int64_t now = loop_now(loop);
    for (struct openai_call *call = openai->running; call; call = call->running_next) {
        if (!call->attempt || call->has_record)
            continue;
        top_up(call, now);
        keep_alive(call, now);
    }
    if (openai->running)
        timer_set(loop, timer, now + TICK_NS);
}
