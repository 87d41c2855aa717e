/* When a canary goes, to whom, and what is kept of it. */
#include "gateway/canary.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/embed.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(canary_lua, "gateway/canary.lua");
REDIS_SCRIPT(canary_script, canary_lua);

#define DELAY_NS (5 * NS_PER_S) /* at most, after the draw */
#define SLOT_S "60"             /* between two canaries to one worker */
#define KEPT_MOST "16"          /* of a model */
#define KEPT_S "86400"
#define KEPT_BYTES_MAX ((size_t)128 << 10)
#define FRESH_IN 4 /* one in so many is a new question though answers are known */
#define KEY_MAX 96

struct canary {
    struct canaries *of; /* NULL: the gateway ends */
    char model[OPENAI_MODEL_MAX + 1], worker[ID_TEXT_MAX];
    char key[KEY_MAX];    /* of what is kept of the model */
    char id[ID_TEXT_MAX]; /* of the one that is kept; "": a new question */
};

struct canaries {
    struct openai_checks *checks;
    struct timer timer;
    char model[OPENAI_MODEL_MAX + 1];
    struct canary *asking; /* Redis is asked for it */
};

static void on_due(struct timer *timer);

struct canaries *canaries_open(struct openai_checks *checks)
{
    struct canaries *canaries = calloc(1, sizeof(*canaries));
    if (!canaries)
        return NULL;
    canaries->checks = checks;
    canaries->timer.on_due = on_due;
    return canaries;
}

struct canaries *canaries_free(struct canaries *canaries)
{
    if (!canaries)
        return NULL;
    timer_clear(canaries->checks->reactor->loop, &canaries->timer);
    if (canaries->asking)
        canaries->asking->of = NULL;
    free(canaries);
    return NULL;
}

struct canary *canary_free(struct canary *canary)
{
    free(canary);
    return NULL;
}

void canary_call(struct openai_checks *checks, struct str model)
{
    struct canaries *canaries = checks->canaries;
    if (!canaries || canaries->asking || timer_is_set(&canaries->timer) ||
        !str_copy(canaries->model, sizeof(canaries->model), model))
        return;
    timer_set(checks->reactor->loop, &canaries->timer,
              loop_now(checks->reactor->loop) + (int64_t)(checks_random(checks) % (uint64_t)DELAY_NS));
}

/* -- to whom -- */

static bool has_other_supplier(const struct market *market, const uint32_t *rows, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (!str_eq(market_supplier(market, rows[i]), market_supplier(market, rows[0])))
            return true;
    return false;
}

/* Of the model's workers that have a slot to spare one at random, or that one. MARKET_NONE: none, or all are one
 * operator's, whose answers nobody could confirm. */
static uint32_t choose(const struct canaries *canaries, struct str model, const char *worker)
{
    struct openai_checks *checks = canaries->checks;
    const struct market *market = checks->reactor->snapshot->market;
    struct str target;
    size_t count = 0, fitting = 0;
    uint32_t index = market_model(market, model, &target), chosen = MARKET_NONE;
    const uint32_t *rows = index == MARKET_NONE ? NULL : market_replicas(market, index, &count);
    if (!checks_may_ask(checks) || !has_other_supplier(market, rows, count))
        return MARKET_NONE;
    for (size_t i = 0; i < count; i++) {
        const struct worker *of = market_worker(market, rows[i]);
        if (check_has_slot(checks, of) && (!worker || !strcmp(of->id, worker)) &&
            checks_random(checks) % ++fitting == 0)
            chosen = rows[i];
    }
    return chosen;
}

/* -- the question -- */

static bool prepare(struct canary *canary, struct answer_check *check, struct str kept)
{
    struct openai_checks *checks = check->checks;
    bool is_known = kept.ptr && checks_random(checks) % FRESH_IN != 0 && canary_read(kept, check);
    str_copy(check->model, sizeof(check->model), str_of(canary->model));
    if (!is_known) {
        canary->id[0] = '\0';
        check_ask_free(&check->asks[CHECK_PEER]);
        buf_clear(&check->plain);
        if (!canary_question(str_of(canary->model), checks_random(checks), &check->plain))
            return false;
    }
    return answer_replay(check->kind, buf_str(&check->plain), true, &check->question);
}

/* Takes the canary. */
static void start(struct canary *canary, struct str kept)
{
    struct canaries *canaries = canary->of;
    struct openai_checks *checks = canaries->checks;
    uint32_t row = choose(canaries, str_of(canary->model), canary->worker);
    struct answer_check *check = row == MARKET_NONE ? NULL : check_new(checks, ANSWER_CHAT);
    if (!check) {
        canary_free(canary);
        return;
    }
    check->canary = canary;
    check->asking = CHECK_ORIGINAL;
    check->deadline_ns = loop_now(checks->reactor->loop) + CHECK_WAIT_NS;
    check_enter(check);
    if (!prepare(canary, check, kept) || !check_ask_row(check, checks->reactor->snapshot->market, row))
        check_free(check);
}

/* -- Redis -- */

static void on_kept(void *ctx, const redisReply *reply, enum error error)
{
    struct canary *canary = ctx;
    struct str kept = {NULL, 0};
    if (!canary->of) {
        canary_free(canary);
        return;
    }
    canary->of->asking = NULL;
    if (error == ERR_NONE && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_STRING &&
        str_copy(canary->id, sizeof(canary->id), (struct str){reply->element[0]->str, reply->element[0]->len}))
        kept = (struct str){reply->element[1]->str, reply->element[1]->len};
    start(canary, kept);
}

/* The minute of this worker is ours, or another gateway's. */
static void on_slot(void *ctx, const redisReply *reply, enum error error)
{
    struct canary *canary = ctx;
    bool is_ours = canary->of && error == ERR_NONE && reply->type == REDIS_REPLY_STATUS;
    if (is_ours && redis_commandf(canary->of->checks->reactor->redis, on_kept, canary, "HRANDFIELD %s 1 WITHVALUES",
                                  canary->key) == ERR_NONE)
        return;
    if (canary->of)
        canary->of->asking = NULL;
    canary_free(canary);
}

static void on_due(struct timer *timer)
{
    struct canaries *canaries = container_of(timer, struct canaries, timer);
    struct reactor *reactor = canaries->checks->reactor;
    uint32_t row = choose(canaries, str_of(canaries->model), NULL);
    struct canary *canary = row == MARKET_NONE ? NULL : calloc(1, sizeof(*canary));
    char digest[SHA256_HEX];
    if (!canary)
        return;
    canary->of = canaries;
    memcpy(canary->model, canaries->model, sizeof(canary->model));
    str_copy(canary->worker, sizeof(canary->worker), str_of(market_worker(reactor->snapshot->market, row)->id));
    crypto_sha256_hex(str_of(canary->model), digest);
    snprintf(canary->key, sizeof(canary->key), "sl:canary:%.32s", digest);
    canaries->asking = canary;
    if (redis_commandf(reactor->redis, on_slot, canary, "SET sl:canary:%s 1 NX EX " SLOT_S, canary->worker) !=
        ERR_NONE) {
        canaries->asking = NULL;
        canary_free(canary);
    }
}

/* -- what comes of it -- */

static void keep(const struct answer_check *check)
{
    const struct check_ask *peer = &check->asks[CHECK_PEER];
    char id[ID_TEXT_MAX];
    struct buf text;
    buf_init(&text, KEPT_BYTES_MAX);
    id_new("can_", id);
    if (canary_write(buf_str(&check->plain), buf_str(&peer->answer), str_of(peer->record.worker),
                     str_of(peer->record.supplier), &text)) {
        struct str args[] = {str_of(check->canary->key), str_of(id), buf_str(&text), STR(KEPT_MOST), STR(KEPT_S)};
        if (redis_run(check->checks->reactor->redis, &canary_script, NULL, NULL, 1, 4, args) != ERR_NONE)
            log_debug(NULL, "a canary is not kept");
    }
    buf_free(&text);
}

void canary_verdict(const struct answer_check *check, enum check_result result)
{
    const struct canary *canary = check->canary;
    if (result == CHECK_AGREED && !canary->id[0])
        keep(check);
    /* What was kept is itself wrong: two others agree on another answer. */
    if (result == CHECK_PEER_WRONG && canary->id[0] &&
        redis_commandf(check->checks->reactor->redis, NULL, NULL, "HDEL %s %s", canary->key, canary->id) != ERR_NONE)
        log_debug(NULL, "a canary that was wrong is still kept");
}
