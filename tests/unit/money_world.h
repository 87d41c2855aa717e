/* Records, gateways and tenants for the tests of settling and of the ledger. */
#ifndef SLUICE_TESTS_UNIT_MONEY_WORLD_H
#define SLUICE_TESTS_UNIT_MONEY_WORLD_H

#include "pricing/credit.h"
#include "pricing/journal.h"
#include "pricing/ledger.h"
#include "pricing/settle.h"
#include "tests/unit/redis_fixture.h"

#include <inttypes.h>

#define AT_MS INT64_C(1795305600000) /* 2026-11-22 00:00:00 UTC */

struct money_answer {
    int count;
    enum error error;
    char json[65536];
};

static struct money_answer money_answer;

static inline void on_money(void *ctx, enum error error, struct str json)
{
    struct money_answer *to = ctx;
    to->count++;
    to->error = error;
    if (!str_copy(to->json, sizeof(to->json), json))
        fail_msg("an answer of %zu bytes", json.len);
}

/* Runs a ledger call to its answer. */
#define ask_money(call)                          \
    do {                                         \
        money_answer.count = 0;                  \
        assert_int_equal((call), ERR_NONE);      \
        assert_int_equal(money_answer.count, 0); \
        turn_until(money_answer.count == 1);     \
    } while (0)

static inline void credit_tenant(const char *tenant, int64_t amount, const char *transfer)
{
    ask_money(ledger_credit(fixture.redis, str_of(tenant), amount, str_of(transfer), on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_NONE);
}

static inline struct usage_record usage_of(const char *tenant, int64_t cost)
{
    struct usage_record record = {.at_ms = AT_MS,
                                  .price_usd_nano = 1200000000,
                                  .gpu_ms = cost / 333,
                                  .cost_usd_nano = cost,
                                  .take_rate_bps = 1000,
                                  .outcome = USAGE_COMPLETED,
                                  .prompt_tokens = 7,
                                  .completion_tokens = 11};
    id_new("use_", record.id);
    snprintf(record.tenant, sizeof(record.tenant), "%s", tenant);
    strcpy(record.key, "key_a");
    strcpy(record.worker, "wrk_a");
    strcpy(record.supplier, "acme");
    strcpy(record.network, "native");
    strcpy(record.gpu, "nvidia/h100-sxm-80");
    strcpy(record.model, "llama");
    return record;
}

static inline struct journal *journal_named(const char *name, size_t slots)
{
    struct journal *journal = NULL;
    assert_int_equal(journal_open(fixture.dir, name, slots, &journal, NULL), ERR_NONE);
    return journal;
}

static inline struct settler *settler_on(struct journal *journal, const char *gateway)
{
    struct settler *settler = NULL;
    assert_int_equal(settler_open(fixture.loop, fixture.redis, journal, gateway, &settler), ERR_NONE);
    return settler;
}

/* Gives a gateway a hold by the script that gateways use. */
static inline void hold_for(const char *tenant, const char *gateway, int64_t amount)
{
    struct credit_gate *gate = NULL;
    struct credit *credit = credit_new(CREDIT_BALANCE, tenant, 0, NULL);
    char key[96];

    assert_non_null(credit);
    assert_int_equal(credit_gate_open(fixture.loop, fixture.redis, gateway, &gate), ERR_NONE);
    snprintf(key, sizeof(key), "sl:{ten:%s}:hold", tenant);
    while (look_number(key, gateway) < amount) {
        int64_t left = credit_left(credit);
        if (left)
            (void)credit_take(credit, left);
        credit_renew_if_low(gate, credit);
        if (credit_gate_is_idle(gate)) {
            struct credit_waiter waiter = {.on_answer = NULL};
            credit_wait(gate, credit, &waiter);
            credit_wait_cancel(&waiter);
        }
        turn_until(credit_gate_is_idle(gate));
    }
    credit_unref(credit);
    credit_gate_free(gate);
}

static inline void append_usage(struct journal *journal, const struct usage_record *record)
{
    assert_int_equal(journal_append(journal, record), ERR_NONE);
}

static inline void empty_journals(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -f %s/usage-*", fixture.dir);
    assert_int_equal(system(command), 0);
}

static inline int world_empty(void **state)
{
    empty_journals();
    return fixture_empty(state);
}

static inline long long account(const char *tenant, const char *name)
{
    char key[96];
    snprintf(key, sizeof(key), "sl:{ten:%s}:acct", tenant);
    return look_number(key, name);
}

/* All accounts of a tenant sum to zero, its holds to what is held, and nothing of its own is negative. One script reads
 * them, because gateways may be at work. */
static inline void expect_books_balance(const char *tenant)
{
    long long sums[2] = {0};
    redisReply *reply =
        redisCommand(fixture.look, "EVAL %s 2 sl:{ten:%s}:acct sl:{ten:%s}:hold",
                     "return {redis.call('HVALS', KEYS[1]), redis.call('HVALS', KEYS[2]),"
                     " redis.call('HGET', KEYS[1], 'avail') or '0', redis.call('HGET', KEYS[1], 'held') or '0'}",
                     tenant, tenant);

    assert_true(reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 4);
    for (size_t n = 0; n < 2; n++)
        for (size_t i = 0; i < reply->element[n]->elements; i++)
            sums[n] += strtoll(reply->element[n]->element[i]->str, NULL, 10);
    assert_int_equal(sums[0], 0);
    assert_true(strtoll(reply->element[2]->str, NULL, 10) >= 0);
    assert_int_equal(sums[1], strtoll(reply->element[3]->str, NULL, 10));
    assert_true(sums[1] >= 0);
    freeReplyObject(reply);
}

#endif
