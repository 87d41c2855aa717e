/* What follows of a check: the wrong one pays, the caller gets its money back, and those who were asked are paid. */
#include "gateway/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "gateway/canary.h"
#include "gateway/control.h"
#include "pricing/keys.h"
#include "pricing/refund.h"
#include "scheduler/worker_store.h"

#include <stdlib.h>
#include <string.h>

#define DAY_S "86400"

/* -- the wrong one -- */

struct wrong {
    struct reactor *reactor;
    char worker[ID_TEXT_MAX];
};

static void on_prove(void *ctx, enum error error, const char *state)
{
    (void)ctx;
    if (error != ERR_NONE)
        log_debug(NULL, "a worker that was wrong twice is not asked for a proof now: %s", state ? state : "unknown");
}

/* Was it wrong before on this day? Then what it has is proven anew. */
static void on_noted(void *ctx, const redisReply *reply, enum error error)
{
    struct wrong *wrong = ctx;
    if (error == ERR_NONE && reply->type == REDIS_REPLY_STRING)
        control_prove(wrong->reactor->gateway->control, wrong->reactor, str_of(wrong->worker), on_prove, NULL);
    free(wrong);
}

static void not_noted(enum error error)
{
    log_warn(NULL, "a wrong answer was not noted in its worker's reputation: %s", error_text(error));
}

static void on_stored(void *ctx, enum error error)
{
    struct wrong *wrong = ctx;
    struct redis *redis = wrong->reactor->redis;
    if (error != ERR_NONE)
        not_noted(error);
    /* All gateways learn of it now: the store itself tells of a worker only once a second, and what comes in between
     * with its next change. */
    if (error == ERR_NONE)
        error = feed_append(redis, "worker", str_of(wrong->worker));
    if (error == ERR_NONE)
        error = redis_commandf(redis, on_noted, wrong, "SET sl:mismatch:%s 1 EX " DAY_S " GET", wrong->worker);
    if (error != ERR_NONE)
        free(wrong);
}

/* Takes wrong. */
static void count(struct wrong *wrong)
{
    struct reputation_evidence evidence = reputation_of_mismatch();
    enum error error =
        worker_store_reputation(wrong->reactor->redis, str_of(wrong->worker), &evidence, on_stored, wrong);
    if (error != ERR_NONE) {
        not_noted(error);
        free(wrong);
    }
}

/* Did this tenant's calls tell of it before on this day? */
static void on_first(void *ctx, const redisReply *reply, enum error error)
{
    struct wrong *wrong = ctx;
    if (error != ERR_NONE)
        not_noted(error);
    if (error == ERR_NONE && reply->type == REDIS_REPLY_STATUS)
        count(wrong);
    else
        free(wrong);
}

/* One tenant counts once a day against a worker: who looks for questions on which honest workers part cannot ruin one
 * with them. Canaries (no tenant) count each time. */
static void was_wrong(struct reactor *reactor, const char *worker, const char *tenant)
{
    struct log_ctx ctx = {.worker = worker};
    struct wrong *wrong = calloc(1, sizeof(*wrong));
    log_warn(&ctx, "its answer was wrong: two other operators' workers agree on another one");
    if (!wrong) {
        not_noted(ERR_NO_MEMORY);
        return;
    }
    wrong->reactor = reactor;
    str_copy(wrong->worker, sizeof(wrong->worker), str_of(worker));
    if (!tenant) {
        count(wrong);
        return;
    }
    enum error error =
        redis_commandf(reactor->redis, on_first, wrong, "SET sl:mismatch:%s:%s 1 NX EX " DAY_S, worker, tenant);
    if (error != ERR_NONE) {
        not_noted(error);
        free(wrong);
    }
}

/* -- money -- */

static void append(struct reactor *reactor, const struct usage_record *record)
{
    struct log_ctx ctx = {.request = record->id, .tenant = record->tenant, .worker = record->worker};
    if (journal_append(reactor->journal, record) != ERR_NONE)
        log_error(&ctx, "the usage journal is full: this is not booked");
    settler_kick(reactor->settler);
}

/* The record of the call lies before this one in the same journal. */
static void refund(struct reactor *reactor, const struct usage_record *call)
{
    struct usage_record record;
    refund_record(call, &record);
    append(reactor, &record);
    metrics_count(reactor->metrics, METRIC_REFUNDS, 1);
}

/* Whoever answered for the check's sake, and was not wrong. */
static void pay(struct answer_check *check, enum check_result result)
{
    struct reactor *reactor = check->checks->reactor;
    bool is_any = false;
    for (enum check_party party = CHECK_ORIGINAL; party < CHECK_PARTIES; party++) {
        struct check_ask *ask = &check->asks[party];
        bool is_wrong = (party == CHECK_ORIGINAL && result == CHECK_ORIGINAL_WRONG) ||
                        (party == CHECK_PEER && result == CHECK_PEER_WRONG);
        if (!ask->worker || !ask->is_good || is_wrong || (party == CHECK_ORIGINAL && !check->canary))
            continue;
        if (!check_record(ask->record.gpu_ms, clock_wall_ms(), &ask->record))
            continue;
        append(reactor, &ask->record);
        is_any = true;
    }
    if (is_any && redis_commandf(reactor->redis, NULL, NULL, "ZADD %s 0 %s", LEDGERS, REFUND_PLATFORM) != ERR_NONE)
        log_debug(NULL, "the platform's ledger is not listed yet");
}

/* -- the verdict -- */

void check_verdict(struct answer_check *check, enum check_result result)
{
    struct reactor *reactor = check->checks->reactor;
    static const enum metric_counter counters[] = {
        [CHECK_AGREED] = METRIC_CHECKS_AGREED,
        [CHECK_ORIGINAL_WRONG] = METRIC_CHECKS_ORIGINAL_WRONG,
        [CHECK_PEER_WRONG] = METRIC_CHECKS_PEER_WRONG,
        [CHECK_INCONCLUSIVE] = METRIC_CHECKS_INCONCLUSIVE,
    };
    const struct usage_record *original = &check->asks[CHECK_ORIGINAL].record;
    const char *tenant = check->canary ? NULL : original->tenant;
    metrics_count(reactor->metrics, counters[result], 1);
    if (result == CHECK_ORIGINAL_WRONG) {
        was_wrong(reactor, original->worker, tenant);
        if (!check->canary)
            refund(reactor, original);
    } else if (result == CHECK_PEER_WRONG && check->asks[CHECK_PEER].worker) {
        was_wrong(reactor, check->asks[CHECK_PEER].record.worker, tenant);
    }
    if (check->canary)
        canary_verdict(check, result);
    pay(check, result);
    check_free(check);
}
