/* Checks of answers: which calls, what is kept of them, and the way from the first question to the verdict. */
#include "gateway/check.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "gateway/canary.h"
#include "scheduler/exposure.h"

#include <stdlib.h>
#include <string.h>

#define H2_CANCEL 8
#define BPS 10000
#define DOUBTFUL 0.4            /* a newcomer that has proven itself stands at 0.45 */
#define PAUSE_NS (2 * NS_PER_S) /* up to this long after the call, so that two workers cannot tell by the time */

/* -- which -- */

/* SplitMix64: workers see nothing of it, so they cannot tell which answers are checked. */
uint64_t checks_random(struct openai_checks *checks)
{
    uint64_t x = checks->random += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

bool checks_draw(struct openai_checks *checks, double reputation)
{
    uint32_t share = checks->share;
    if (share == 0)
        return false;
    if (reputation < DOUBTFUL) /* it has nothing to lose but what it earns by this call */
        share = (uint32_t)(exposure_check_probability(1, 0) * UINT32_MAX);
    return (uint32_t)(checks_random(checks) >> 32) < share;
}

struct openai_checks *checks_open(struct reactor *reactor)
{
    const struct settings *settings = reactor->gateway->settings;
    struct openai_checks *checks = calloc(1, sizeof(*checks));
    if (!checks)
        return NULL;
    checks->reactor = reactor;
    crypto_random(&checks->random, sizeof(checks->random));
    checks->share = (uint32_t)((uint64_t)settings_check_answers_bps(settings) * UINT32_MAX / BPS);
    if (settings->probes.canaries && !(checks->canaries = canaries_open(checks)))
        return checks_free(checks);
    return checks;
}

struct openai_checks *checks_free(struct openai_checks *checks)
{
    if (!checks)
        return NULL;
    while (checks->running)
        check_free(checks->running);
    canaries_free(checks->canaries);
    free(checks);
    return NULL;
}

/* -- a check -- */

static void on_timer(struct timer *timer);

struct answer_check *check_new(struct openai_checks *checks, enum answer_kind kind)
{
    const struct answer_limits limits = answer_limits_default();
    struct answer_check *check = checks->count < CHECKS_MAX ? calloc(1, sizeof(*check)) : NULL;
    if (!check)
        return NULL;
    checks->count++;
    metrics_gauge_add(checks->reactor->metrics, METRIC_CHECKS_RUNNING, 1);
    check->checks = checks;
    check->kind = kind;
    check->path = kind == ANSWER_CHAT ? "/v1/chat/completions" : "/v1/completions";
    check->timer.on_due = on_timer;
    buf_init(&check->text, limits.text_max);
    buf_init(&check->question, limits.body_max + OPENAI_BODY_SLACK);
    buf_init(&check->plain, limits.body_max);
    return check;
}

void check_free(struct answer_check *check)
{
    struct openai_checks *checks = check->checks;
    timer_clear(checks->reactor->loop, &check->timer);
    if (check->link) {
        *check->link = check->next;
        if (check->next)
            check->next->link = check->link;
    }
    for (size_t i = 0; i < CHECK_PARTIES; i++)
        check_ask_free(&check->asks[i]);
    canary_free(check->canary);
    buf_free(&check->question);
    buf_free(&check->plain);
    buf_free(&check->text);
    checks->bytes -= check->bytes;
    checks->count--;
    metrics_gauge_add(checks->reactor->metrics, METRIC_CHECKS_RUNNING, -1);
    free(check);
}

bool check_may_hold(struct answer_check *check, size_t bytes)
{
    struct openai_checks *checks = check->checks;
    if (bytes > CHECK_BYTES_MAX - checks->bytes)
        return false;
    checks->bytes += bytes;
    check->bytes += bytes;
    return true;
}

void check_enter(struct answer_check *check)
{
    struct openai_checks *checks = check->checks;
    check->next = checks->running;
    check->link = &checks->running;
    if (checks->running)
        checks->running->link = &check->next;
    checks->running = check;
}

/* -- while the call runs -- */

void check_hold(struct attempt *attempt)
{
    struct openai_call *call = attempt->call;
    struct openai_checks *checks = call->reactor->openai->checks;
    enum answer_kind kind = call->endpoint->kind == OPENAI_CHAT ? ANSWER_CHAT : ANSWER_COMPLETION;
    struct str body = buf_str(&call->body), target;
    if (call->endpoint->kind != OPENAI_CHAT && call->endpoint->kind != OPENAI_COMPLETIONS)
        return;
    if (market_model(call->reactor->snapshot->market, call->model, &target) == MARKET_NONE)
        return;
    canary_call(checks, target);
    if (body.len > answer_limits_default().body_max || !answer_is_determined(kind, body))
        return;
    struct answer_check *check = check_new(checks, kind);
    if (!check)
        return;
    struct check_ask *original = &check->asks[CHECK_ORIGINAL];
    original->worker = worker_ref(attempt->worker);
    str_copy(original->record.worker, sizeof(original->record.worker), str_of(call->target.worker));
    str_copy(original->record.supplier, sizeof(original->record.supplier), str_of(call->target.supplier));
    call->check = check;
    if (!str_copy(check->model, sizeof(check->model), target) || !check_has_other(check))
        check_drop(call);
}

void check_drop(struct openai_call *call)
{
    if (call->check)
        check_free(call->check);
    call->check = NULL;
}

static void keep_text(struct openai_call *call, enum error (*read)(enum answer_kind, struct str, struct buf *),
                      struct str from)
{
    struct answer_check *check = call->check;
    size_t before = check->text.len;
    if (read(check->kind, from, &check->text) != ERR_NONE || !check_may_hold(check, check->text.len - before))
        check_drop(call);
}

void check_event(struct openai_call *call, struct str data)
{
    if (call->check)
        keep_text(call, answer_event_text, data);
}

void check_plain(struct openai_call *call)
{
    if (call->check && call->answer.len > answer_limits_default().replay_max)
        check_drop(call);
    if (call->check)
        keep_text(call, answer_text, buf_str(&call->answer));
}

void check_metered(struct openai_call *call, bool is_paid)
{
    if (!is_paid)
        check_drop(call);
    if (!call->check)
        return;
    call->check->is_metered = true;
    call->check->asks[CHECK_ORIGINAL].record = call->record;
}

void check_start(struct openai_call *call)
{
    struct answer_check *check = call->check;
    if (!check)
        return;
    if (!check->is_metered || !check_may_hold(check, call->body.len) ||
        !answer_replay(check->kind, buf_str(&call->body), true, &check->question)) {
        check_drop(call);
        return;
    }
    call->check = NULL;
    check_enter(check);
    check_begin(check, CHECK_PEER, (int64_t)(checks_random(check->checks) % (uint64_t)PAUSE_NS));
}

/* -- on its own -- */

void check_begin(struct answer_check *check, enum check_party party, int64_t wait_ns)
{
    struct loop *loop = check->checks->reactor->loop;
    check->asking = party;
    check->deadline_ns = loop_now(loop) + wait_ns + CHECK_WAIT_NS;
    timer_set(loop, &check->timer, loop_now(loop) + wait_ns);
}

static void on_timer(struct timer *timer)
{
    struct answer_check *check = container_of(timer, struct answer_check, timer);
    struct loop *loop = check->checks->reactor->loop;
    struct check_ask *ask = &check->asks[check->asking];
    if (!check->checks->reactor->hub) /* the gateway ends */
        return;
    if (ask->stream)
        h2_stream_cancel(ask->stream, H2_CANCEL); /* check_answered follows */
    else if (loop_now(loop) >= check->deadline_ns || !check_has_other(check))
        check_verdict(check, CHECK_INCONCLUSIVE);
    else if (!check_ask(check))
        timer_set(loop, timer, loop_now(loop) + CHECK_LOOK_NS);
}

static void compare(struct answer_check *check)
{
    switch (answer_compare(check->kind, buf_str(&check->text), buf_str(&check->asks[CHECK_PEER].answer))) {
    case ANSWER_AGREES:
        check_verdict(check, CHECK_AGREED);
        break;
    case ANSWER_DIFFERS:
        check_begin(check, CHECK_REFEREE, 0);
        break;
    case ANSWER_UNKNOWN:
        check_verdict(check, CHECK_INCONCLUSIVE);
        break;
    }
}

static void judge(struct answer_check *check)
{
    static const enum check_result results[] = {
        [ANSWER_NOBODY] = CHECK_INCONCLUSIVE,
        [ANSWER_ORIGINAL_WRONG] = CHECK_ORIGINAL_WRONG,
        [ANSWER_PEER_WRONG] = CHECK_PEER_WRONG,
    };
    struct str peer = buf_str(&check->asks[CHECK_PEER].answer), referee = buf_str(&check->asks[CHECK_REFEREE].answer);
    check_verdict(check,
                  results[answer_judge(ANSWER_DIFFERS, answer_compare(check->kind, buf_str(&check->text), referee),
                                       answer_compare_both(check->kind, peer, referee))]);
}

/* Somebody else, or the same one when it was only busy. */
static void ask_another(struct answer_check *check)
{
    struct loop *loop = check->checks->reactor->loop;
    struct check_ask *ask = &check->asks[check->asking];
    if (!ask->is_refused) {
        if (check->asking == CHECK_ORIGINAL || check->failed_count == CHECK_FAILED_MAX) {
            check_verdict(check, CHECK_INCONCLUSIVE);
            return;
        }
        memcpy(check->failed[check->failed_count++], ask->record.worker, ID_TEXT_MAX);
    }
    check_ask_free(ask);
    timer_set(loop, &check->timer, loop_now(loop) + CHECK_LOOK_NS);
}

void check_answered(struct answer_check *check)
{
    struct loop *loop = check->checks->reactor->loop;
    struct check_ask *ask = &check->asks[check->asking];
    timer_clear(loop, &check->timer);
    if (!ask->is_good) {
        ask_another(check);
        return;
    }
    switch (check->asking) {
    case CHECK_ORIGINAL: /* a canary's */
        if (answer_text(check->kind, buf_str(&ask->answer), &check->text) != ERR_NONE)
            check_verdict(check, CHECK_INCONCLUSIVE);
        else if (check->asks[CHECK_PEER].is_good) /* its answer is known */
            compare(check);
        else
            check_begin(check, CHECK_PEER, 0);
        break;
    case CHECK_PEER:
        compare(check);
        break;
    case CHECK_REFEREE:
    case CHECK_PARTIES:
        judge(check);
        break;
    }
}
