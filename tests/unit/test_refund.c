#include "pricing/refund.h"

#include "tests/unit/money_world.h"

#define USD INT64_C(1000000000)
#define TENANT "ten_r"

static void settle_all(struct journal *journal, struct settler *settler)
{
    settler_kick(settler);
    turn_until(journal_pending(journal) == 0);
    expect_books_balance(TENANT);
}

/* Transfers of a kind in a tenant's ledger. */
static int transfers(const char *tenant, const char *kind)
{
    char key[96], between[32];
    int count = 0;
    snprintf(key, sizeof(key), "sl:{ten:%s}:ledger", tenant);
    snprintf(between, sizeof(between), "\x1f%s\x1f", kind);
    redisReply *reply = redisCommand(fixture.look, "XRANGE %s - +", key);
    assert_true(reply && reply->type == REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < reply->elements; i++)
        count += strstr(reply->element[i]->element[1]->element[1]->str, between) != NULL;
    freeReplyObject(reply);
    return count;
}

static long long number_in(const char *json, const char *name)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\":", name);
    const char *at = strstr(json, quoted);
    assert_non_null(at);
    return strtoll(at + strlen(quoted), NULL, 10);
}

static void expect_usage(long long requests, const char *cost)
{
    char text[64];
    ask_money(ledger_usage(fixture.redis, STR(TENANT), 0, INT64_MAX, USAGE_BY_MODEL, on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_NONE);
    assert_int_equal(number_in(money_answer.json, "requests"), requests);
    snprintf(text, sizeof(text), "\"cost_usd\":\"%s\"", cost);
    assert_non_null(strstr(money_answer.json, text));
    ask_money(ledger_invoice(fixture.redis, STR(TENANT), STR("2026-11"), false, on_money, &money_answer));
    assert_int_equal(money_answer.error, ERR_NONE);
    assert_int_equal(number_in(money_answer.json, "requests"), requests);
    snprintf(text, sizeof(text), "\"total_usd\":\"%s\"", cost);
    assert_non_null(strstr(money_answer.json, text));
}

struct world {
    struct journal *journal;
    struct settler *settler;
};

static struct world begin(void)
{
    struct world world = {.journal = journal_named("0", 256)};
    world.settler = settler_on(world.journal, "gwy_1");
    credit_tenant(TENANT, USD, "c1");
    hold_for(TENANT, "gwy_1", 40000000);
    return world;
}

static void end(struct world *world)
{
    settler_free(world->settler);
    journal_close(world->journal);
}

static void gives_back_once(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 1001), good = usage_of(TENANT, 50000), refund;
    (void)state;
    append_usage(world.journal, &good);
    settle_all(world.journal, world.settler);
    long long total = account(TENANT, "avail") + account(TENANT, "held");
    append_usage(world.journal, &wrong);
    refund_record(&wrong, &refund);
    assert_string_not_equal(refund.id, wrong.id);
    append_usage(world.journal, &refund); /* in one batch with its call, and twice */
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), total);
    assert_int_equal(account(TENANT, "plat:revenue"), 5000);
    assert_int_equal(account(TENANT, "plat:loss"), 0);
    assert_int_equal(account(TENANT, "plat:penalties"), 10010);
    assert_int_equal(account(TENANT, "sup:acme:pending"), 45000 - 10010);
    assert_int_equal(transfers(TENANT, "refund"), 1);
    assert_int_equal(transfers(TENANT, "penalty"), 1);
    expect_usage(2, "0.00005");
    end(&world);
}

static void takes_no_more_than_was_earned(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 1000), refund;
    (void)state;
    append_usage(world.journal, &wrong);
    settle_all(world.journal, world.settler);
    /* The supplier was paid most of it meanwhile. */
    look("HINCRBY sl:{ten:%s}:acct sup:acme:pending -800", TENANT);
    look("HINCRBY sl:{ten:%s}:acct ext:payouts 800", TENANT);
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    assert_int_equal(account(TENANT, "sup:acme:pending"), 0);
    assert_int_equal(account(TENANT, "plat:loss"), -800);
    assert_int_equal(account(TENANT, "plat:penalties"), 0);
    assert_int_equal(transfers(TENANT, "penalty"), 0);
    expect_usage(1, "0.00");
    end(&world);
}

/* What the tenant's credit did not cover, and what its balance could not pay, was the platform's loss and comes back to
 * it; the tenant gets what it was charged. */
static void gives_back_what_was_charged(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 700), refund;
    (void)state;
    wrong.loss_usd_nano = 300;
    append_usage(world.journal, &wrong);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "plat:loss"), -300);
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "plat:loss"), 0);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    /* More than there is: the cost of the second is charged as far as the money reaches. */
    wrong = usage_of(TENANT, 2 * USD);
    append_usage(world.journal, &wrong);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), 0);
    assert_int_equal(account(TENANT, "plat:loss"), -USD);
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    assert_int_equal(account(TENANT, "plat:loss"), 0);
    assert_int_equal(account(TENANT, "plat:revenue"), 0);
    assert_int_equal(account(TENANT, "sup:acme:pending"), 0);
    expect_usage(2, "0.00");
    end(&world);
}

static void free_calls_have_nothing_to_give_back(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 0), refund;
    (void)state;
    refund_record(&wrong, &refund);
    append_usage(world.journal, &wrong);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(transfers(TENANT, "refund"), 0);
    expect_usage(1, "0.00");
    end(&world);
}

static void a_call_that_is_not_in_the_books_is_not_given_back(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 1000), refund;
    (void)state;
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    assert_int_equal(transfers(TENANT, "refund"), 0);
    end(&world);
}

/* A gateway dies between the verdict and the settling: the next run of it settles the refund, under its own name. */
static void outlives_its_gateway(void **state)
{
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, 1000), refund;
    (void)state;
    append_usage(world.journal, &wrong);
    settle_all(world.journal, world.settler);
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    end(&world);
    world.journal = journal_named("0", 256);
    assert_int_equal(journal_pending(world.journal), 1);
    world.settler = settler_on(world.journal, "gwy_2");
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    assert_int_equal(transfers(TENANT, "refund"), 1);
    end(&world);
}

static void amounts_above_2_53_are_exact(void **state)
{
    const int64_t big = (INT64_C(1) << 55) + 1;
    struct world world = begin();
    struct usage_record wrong = usage_of(TENANT, big), refund;
    (void)state;
    credit_tenant(TENANT, INT64_C(1) << 56, "c2");
    append_usage(world.journal, &wrong);
    settle_all(world.journal, world.settler);
    refund_record(&wrong, &refund);
    append_usage(world.journal, &refund);
    settle_all(world.journal, world.settler);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), (INT64_C(1) << 56) + USD);
    assert_int_equal(account(TENANT, "sup:acme:pending"), 0);
    end(&world);
}

static void the_platform_pays_for_checks(void **state)
{
    struct world world = begin();
    struct usage_record call = usage_of(TENANT, 1000), check = call;
    (void)state;
    check.price_usd_nano = 3600000;
    assert_true(check_record(1000, AT_MS, &check));
    assert_int_equal(check.loss_usd_nano, 1000);
    append_usage(world.journal, &check);
    append_usage(world.journal, &check);
    settle_all(world.journal, world.settler);
    expect_books_balance(REFUND_PLATFORM);
    assert_int_equal(account(REFUND_PLATFORM, "plat:checks"), -1000);
    assert_int_equal(account(REFUND_PLATFORM, "sup:acme:pending"), 900);
    assert_int_equal(account(REFUND_PLATFORM, "plat:revenue"), 100);
    assert_int_equal(transfers(REFUND_PLATFORM, "check"), 1);
    assert_int_equal(account(TENANT, "avail") + account(TENANT, "held"), USD);
    check.price_usd_nano = 0;
    assert_false(check_record(1000, AT_MS, &check));
    end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(gives_back_once, world_empty),
        cmocka_unit_test_setup(takes_no_more_than_was_earned, world_empty),
        cmocka_unit_test_setup(gives_back_what_was_charged, world_empty),
        cmocka_unit_test_setup(free_calls_have_nothing_to_give_back, world_empty),
        cmocka_unit_test_setup(a_call_that_is_not_in_the_books_is_not_given_back, world_empty),
        cmocka_unit_test_setup(outlives_its_gateway, world_empty),
        cmocka_unit_test_setup(amounts_above_2_53_are_exact, world_empty),
        cmocka_unit_test_setup(the_platform_pays_for_checks, world_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
