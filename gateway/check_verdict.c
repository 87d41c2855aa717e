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

#define AGAIN_WITHIN_S "86400" /* wrong twice within this: what it has is proven anew */

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

/* What was noted of it before: nil or an answer. */
static void on_noted(void *ctx, const redisReply *reply, enum error error)
{
    struct wrong *wrong = ctx;
    if (error == ERR_NONE && reply->type == REDIS_REPLY_STRING)
        control_prove(wrong->reactor->gateway->control, wrong->reactor, str_of(wrong->worker), on_prove, NULL);
    free(wrong);
}

static void on_stored(void *ctx, enum error error)
{
    (void)ctx;
    if (error != ERR_NONE)
        log_warn(NULL, "a wrong answer was not noted in its worker's reputation: %s", error_text(error));
}

static void was_wrong(struct reactor *reactor, const char *worker)
{
    struct reputation_evidence evidence = reputation_of_mismatch();
    struct log_ctx ctx = {.worker = worker};
    struct wrong *wrong = calloc(1, sizeof(*wrong));
    log_warn(&ctx, "its answer was wrong: two other operators' workers agree on another one");
    enum error error = worker_store_reputation(reactor->redis, str_of(worker), &evidence, on_stored, NULL);
    if (error != ERR_NONE)
        on_stored(NULL, error);
    if (!wrong)
        return;
    wrong->reactor = reactor;
    str_copy(wrong->worker, sizeof(wrong->worker), str_of(worker));
    if (redis_commandf(reactor->redis, on_noted, wrong, "SET sl:mismatch:%s 1 EX " AGAIN_WITHIN_S " GET", worker) !=
        ERR_NONE)
        free(wrong);
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
    metrics_count(reactor->metrics, counters[result], 1);
    if (result == CHECK_ORIGINAL_WRONG) {
        was_wrong(reactor, check->asks[CHECK_ORIGINAL].record.worker);
        if (!check->canary)
            refund(reactor, &check->asks[CHECK_ORIGINAL].record);
    } else if (result == CHECK_PEER_WRONG && check->asks[CHECK_PEER].worker) {
        was_wrong(reactor, check->asks[CHECK_PEER].record.worker);
    }
    if (check->canary)
        canary_verdict(check, result);
    pay(check, result);
    check_free(check);
}
