#include "pricing/lease_money.h"

#include "core/money.h"
#include "pricing/keys.h"
#include "tests/unit/money_world.h"

#define USD INT64_C(1000000000)
#define TENANT "ten_a"
#define LEASE "lse_01jd0000000000000000000001"
#define HOUR_MS INT64_C(3600000)
#define OPEN_MOST 64

struct answer {
    int count;
    enum error error;
};

static void on_answer(void *ctx, enum error error)
{
    struct answer *answer = ctx;
    answer->count++;
    answer->error = error;
}

/* Runs a call to its answer and gives its error. */
#define ask(call_with_answer)                           \
    __extension__({                                     \
        struct answer answer = {0};                     \
        assert_int_equal((call_with_answer), ERR_NONE); \
        assert_int_equal(answer.count, 0);              \
        turn_until(answer.count == 1);                  \
        answer.error;                                   \
    })

static enum error hold(int64_t want)
{
    return ask(lease_hold(fixture.redis, TENANT, LEASE, want, NULL, on_answer, &answer));
}

static enum error charge(const struct lease_bill *bill)
{
    return ask(lease_charge(fixture.redis, bill, on_answer, &answer));
}

static enum error release(void)
{
    return ask(lease_release(fixture.redis, TENANT, LEASE, NULL, on_answer, &answer));
}

static struct lease_bill bill_of(int64_t price, int32_t gpus, int64_t until_ms)
{
    return (struct lease_bill){.lease = LEASE,
                               .tenant = TENANT,
                               .budget = {.key = "key_a"},
                               .network = "vast-main",
                               .gpu = "nvidia/rtx4090-24",
                               .price_usd_nano = price,
                               .gpus = gpus,
                               .active_at_ms = AT_MS,
                               .until_ms = until_ms};
}

static long long lease_held(void)
{
    return look_number("sl:{ten:" TENANT "}:hold", LEASE);
}

static void holds_charges_and_returns(void **state)
{
    struct lease_bill bill = bill_of(USD, 1, HOUR_MS / 2);

    (void)state;
    credit_tenant(TENANT, 10 * USD, "c1");
    assert_int_equal(hold(USD), ERR_NONE);
    assert_int_equal(account(TENANT, "avail"), 9 * USD);
    assert_int_equal(lease_held(), USD);
    assert_int_equal(hold(USD), ERR_NONE);
    assert_int_equal(hold(USD / 2), ERR_NONE);
    assert_int_equal(lease_held(), USD);
    assert_int_equal(hold(USD + 7), ERR_NONE);
    assert_int_equal(lease_held(), USD + 7);
    assert_int_equal(account(TENANT, "held"), USD + 7);
    expect_books_balance(TENANT);

    bill.take_rate_bps = 1000;
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(charge(&bill), ERR_NONE);
    bill.until_ms = HOUR_MS / 4;
    assert_int_equal(charge(&bill), ERR_NONE);
    bill.until_ms = 0;
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(lease_held(), USD / 2 + 7);
    assert_int_equal(account(TENANT, "sup:vast-main:pending"), USD / 20 * 9);
    assert_int_equal(account(TENANT, "plat:revenue"), USD / 20);
    expect_books_balance(TENANT);

    assert_int_equal(release(), ERR_NONE);
    assert_int_equal(release(), ERR_NONE);
    assert_int_equal(account(TENANT, "avail"), 9 * USD + USD / 2);
    assert_int_equal(account(TENANT, "held"), 0);
    assert_int_equal(hold(1), ERR_DENIED);
    assert_int_equal(account(TENANT, "held"), 0);
    expect_books_balance(TENANT);
    /* What is known of an ended lease does not stay for ever, and until then longer than its records' ids. */
    assert_true(strtoll(look("TTL sl:{ten:" TENANT "}:lse:" LEASE), NULL, 10) >= 40 * 86400);
}

static void poor_tenants_hold_nothing(void **state)
{
    (void)state;
    assert_int_equal(hold(1), ERR_NO_FUNDS);
    assert_int_equal(hold(0), ERR_NONE); /* of what is free */
    credit_tenant(TENANT, 100, "c1");
    assert_int_equal(hold(101), ERR_NO_FUNDS);
    assert_int_equal(hold(60), ERR_NONE);
    assert_int_equal(hold(101), ERR_NO_FUNDS);
    assert_int_equal(lease_held(), 60);
    assert_int_equal(account(TENANT, "avail"), 40);
    assert_int_equal(hold(100), ERR_NONE);
    assert_int_equal(account(TENANT, "avail"), 0);
    expect_books_balance(TENANT);
}

static void costs_beyond_the_hold(void **state)
{
    struct lease_bill bill = bill_of(1000, 1, HOUR_MS);

    (void)state;
    credit_tenant(TENANT, 1500, "c1");
    assert_int_equal(hold(600), ERR_NONE);
    assert_int_equal(charge(&bill), ERR_NONE); /* 600 held, 400 of the balance */
    assert_int_equal(account(TENANT, "avail"), 500);
    assert_int_equal(account(TENANT, "held"), 0);
    bill.until_ms = 2 * HOUR_MS; /* 500 of the balance, 500 lost */
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(account(TENANT, "avail"), 0);
    assert_int_equal(account(TENANT, "plat:loss"), -500);
    assert_int_equal(account(TENANT, "sup:vast-main:pending"), 2000);
    expect_books_balance(TENANT);
    assert_int_equal(release(), ERR_NONE);
    expect_books_balance(TENANT);
}

/* A sweep returns what a dead gateway held and leaves what leases hold. */
static void sweeps_leave_leases_alone(void **state)
{
    (void)state;
    credit_tenant(TENANT, 10 * USD, "c1");
    assert_int_equal(hold(USD), ERR_NONE);
    hold_for(TENANT, "gwy_dead", 40000000);
    look("ZADD sl:{ten:" TENANT "}:due 1 gwy_dead");
    look("ZADD " HOLDS_DUE " 1 ten:" TENANT);
    settle_sweep(fixture.redis);
    turn_until(account(TENANT, "held") == USD);
    assert_int_equal(lease_held(), USD);
    assert_int_equal(account(TENANT, "avail"), 9 * USD);
    expect_books_balance(TENANT);
    turn_until(strtoll(look("ZCARD " HOLDS_DUE), NULL, 10) == 0);
    assert_int_equal(release(), ERR_NONE);
    assert_int_equal(account(TENANT, "avail"), 10 * USD);
    expect_books_balance(TENANT);
}

static void shows_in_usage_and_on_the_invoice(void **state)
{
    struct lease_bill bill = bill_of(2 * USD, 8, HOUR_MS / 2);

    (void)state;
    credit_tenant(TENANT, 100 * USD, "c1");
    assert_int_equal(hold(50 * USD), ERR_NONE);
    assert_int_equal(charge(&bill), ERR_NONE);
    bill.until_ms = HOUR_MS;
    assert_int_equal(charge(&bill), ERR_NONE);
    ask_money(ledger_usage(fixture.redis, STR(TENANT), 0, INT64_MAX, USAGE_BY_WORKER, on_money, &money_answer));
    assert_string_equal(money_answer.json,
                        "{\"object\":\"list\",\"data\":[{\"worker\":\"" LEASE "\",\"requests\":0,\"gpu_ms\":28800000,"
                        "\"prompt_tokens\":0,\"completion_tokens\":0,\"cost_usd\":\"16.00\"}],\"next\":null}");
    ask_money(ledger_usage(fixture.redis, STR(TENANT), 0, INT64_MAX, USAGE_BY_NETWORK, on_money, &money_answer));
    assert_non_null(strstr(money_answer.json, "\"network\":\"vast-main\""));
    ask_money(ledger_invoice(fixture.redis, STR(TENANT), STR("2026-11"), true, on_money, &money_answer));
    assert_non_null(strstr(money_answer.json, "lease," LEASE ",nvidia/rtx4090-24,0,28800000,8.00,2.00,16.00"));
    ask_money(ledger_list(fixture.redis, STR(TENANT), (struct str){0}, 100, on_money, &money_answer));
    assert_non_null(strstr(money_answer.json, "\"id\":\"" LEASE ":1\""));
    assert_non_null(strstr(money_answer.json, "\"id\":\"" LEASE ":h1\""));
}

static void counts_in_the_budget_of_its_key(void **state)
{
    struct lease_bill bill = bill_of(1000, 1, HOUR_MS / 2);
    struct purse purse;
    char acct[MONEY_KEY_MAX];

    (void)state;
    bill.budget = (struct lease_budget){.key = "key_a", .period = "month", .limit_usd_nano = 1200};
    bill.active_at_ms = clock_month_start(clock_wall_ms());
    assert_true(purse_of_budget(STR("key_a"), bill.active_at_ms, &purse));
    purse_key(&purse, "acct", acct);
    credit_tenant(TENANT, 5000, "c1");
    assert_int_equal(ask(lease_hold(fixture.redis, TENANT, LEASE, 1201, &bill.budget, on_answer, &answer)),
                     ERR_NO_FUNDS);
    assert_int_equal(account(TENANT, "avail"), 5000);
    assert_int_equal(ask(lease_hold(fixture.redis, TENANT, LEASE, 700, &bill.budget, on_answer, &answer)), ERR_NONE);
    assert_int_equal(look_number(acct, "avail"), 500);
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(look_number(acct, "spent"), 500);
    assert_int_equal(look_number(acct, "held"), 200);
    assert_int_equal(ask(lease_hold(fixture.redis, TENANT, LEASE, 701, &bill.budget, on_answer, &answer)),
                     ERR_NO_FUNDS);
    bill.budget.limit_usd_nano = 1300; /* it was raised */
    assert_int_equal(ask(lease_hold(fixture.redis, TENANT, LEASE, 701, &bill.budget, on_answer, &answer)), ERR_NONE);
    assert_int_equal(account(TENANT, "held"), 701);
    bill.until_ms = 2 * HOUR_MS; /* more than the budget has: counted all the same */
    assert_int_equal(charge(&bill), ERR_NONE);
    assert_int_equal(look_number(acct, "spent"), 2000);
    assert_int_equal(look_number(acct, "avail"), -700);
    assert_int_equal(look_number(acct, "held"), 0);
    assert_int_equal(ask(lease_release(fixture.redis, TENANT, LEASE, &bill.budget, on_answer, &answer)), ERR_NONE);
    assert_int_equal(ask(lease_hold(fixture.redis, TENANT, LEASE, 1, &bill.budget, on_answer, &answer)), ERR_DENIED);
    assert_int_equal(account(TENANT, "avail"), 3000);
    expect_books_balance(TENANT);
}

static void refuses_what_no_ledger_could_take(void **state)
{
    struct lease_bill good = bill_of(USD, 1, 1000), bad;
    struct usage_record record;
    int64_t cost;

    (void)state;
    assert_true(lease_record(&good, 0, 99999999, &record));
    assert_string_equal(record.id, LEASE ":99999999");
    assert_false(lease_record(&good, 0, 100000000, &record));
    assert_false(lease_record(&good, 1000, 0, &record));
    assert_false(lease_record(&good, -1, 0, &record));
#define REFUSED(change)                                                                      \
    do {                                                                                     \
        bad = good;                                                                          \
        change;                                                                              \
        assert_false(lease_record(&bad, 0, 0, &record));                                     \
        assert_int_equal(lease_charge(fixture.redis, &bad, on_answer, NULL), ERR_BAD_INPUT); \
    } while (0)
    REFUSED(bad.gpus = 0);
    REFUSED(bad.gpus = LEASE_GPUS_MOST + 1);
    REFUSED(bad.price_usd_nano = -1);
    REFUSED(bad.price_usd_nano = INT64_MAX; bad.gpus = 4096; bad.until_ms = HOUR_MS);
    REFUSED(bad.take_rate_bps = 10001);
    REFUSED(bad.run = LEASE_RUNS_MOST);
    REFUSED(bad.network[0] = '\0');
    REFUSED(strcpy(bad.tenant, "ten a"));
    REFUSED(strcpy(bad.lease, "lse_}x"));
    REFUSED(bad.active_at_ms = INT64_MAX);
    REFUSED(bad.budget.limit_usd_nano = 1); /* of no period */
    assert_int_equal(lease_hold(fixture.redis, TENANT, "lse_}x", 1, NULL, on_answer, NULL), ERR_BAD_INPUT);
    assert_int_equal(lease_hold(fixture.redis, TENANT, LEASE, -1, NULL, on_answer, NULL), ERR_BAD_INPUT);
    assert_int_equal(lease_release(fixture.redis, "", LEASE, NULL, on_answer, NULL), ERR_BAD_INPUT);
    assert_true(lease_hold_want(USD, 8, 0, HOUR_MS, &cost));
    assert_int_equal(cost, 12 * USD);
    assert_false(lease_hold_want(USD, 8, -1, HOUR_MS, &cost));
    assert_false(lease_hold_want(USD, 8, INT64_MAX, HOUR_MS, &cost));
}

/* -- whatever is asked, in whatever order, by two gateways at once -- */

static uint64_t play_state;

static int64_t play(int64_t below)
{
    play_state = play_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (int64_t)((play_state >> 33) % (uint64_t)below);
}

static struct answer open_answers[OPEN_MOST];
static size_t open_count;

static void let_answer(void)
{
    turn_until(({
        bool are_all = true;
        for (size_t i = 0; i < open_count; i++)
            are_all &= open_answers[i].count == 1;
        are_all;
    }));
    for (size_t i = 0; i < open_count; i++)
        if (open_answers[i].error != ERR_NONE && open_answers[i].error != ERR_NO_FUNDS &&
            open_answers[i].error != ERR_DENIED)
            fail_msg("answered %s", error_text(open_answers[i].error));
    open_count = 0;
}

static struct answer *next_answer(void)
{
    if (open_count == OPEN_MOST)
        let_answer();
    open_answers[open_count] = (struct answer){0};
    return &open_answers[open_count++];
}

static void play_once(uint64_t seed, struct redis *gateways[2])
{
    struct lease_bill runs[2];
    int64_t ends[2], due = 0, paid, credited;

    fixture_empty(NULL);
    play_state = seed;
    credited = play(2) ? 1000 * USD : play(USD);
    credit_tenant(TENANT, credited, "c1");
    for (int32_t i = 0; i < 2; i++) {
        int64_t cost;
        runs[i] = bill_of(play(3 * USD), (int32_t)play(16) + 1, 0);
        runs[i].run = i;
        runs[i].take_rate_bps = (int32_t)play(3) * 777;
        runs[i].active_at_ms += i * 20 * HOUR_MS; /* the second crosses midnight */
        ends[i] = play(10 * HOUR_MS) + 1;
        assert_true(lease_cost(runs[i].price_usd_nano, runs[i].gpus, ends[i], &cost));
        due += cost;
    }
    for (int step = 0; step < 60; step++) {
        struct redis *redis = gateways[play(2)];
        struct lease_bill bill = runs[play(2)];
        struct answer *to = next_answer();
        bill.until_ms = step % 7 ? play(ends[bill.run]) : ends[bill.run];
        switch (play(4)) {
        case 0:
            assert_int_equal(lease_hold(redis, TENANT, LEASE, play(20 * USD), NULL, on_answer, to), ERR_NONE);
            break;
        case 1:
            if (step > 50 && play(2)) {
                assert_int_equal(lease_release(redis, TENANT, LEASE, NULL, on_answer, to), ERR_NONE);
                break;
            }
            /* fall through */
        default:
            assert_int_equal(lease_charge(redis, &bill, on_answer, to), ERR_NONE);
        }
        if (play(3) == 0)
            loop_turn(fixture.loop, 0);
        if (play(8) == 0)
            expect_books_balance(TENANT);
    }
    let_answer();
    for (int i = 0; i < 2; i++) {
        runs[i].until_ms = ends[i];
        assert_int_equal(charge(&runs[i]), ERR_NONE);
    }
    assert_int_equal(release(), ERR_NONE);
    expect_books_balance(TENANT);
    assert_int_equal(lease_held(), 0);
    assert_int_equal(account(TENANT, "held"), 0);
    /* The network and the platform got what the formula says; the tenant paid it, or the platform what it lacked. */
    assert_int_equal(account(TENANT, "sup:vast-main:pending") + account(TENANT, "plat:revenue"), due);
    paid = credited - account(TENANT, "avail");
    assert_int_equal(paid - account(TENANT, "plat:loss"), due);
    if (account(TENANT, "plat:loss"))
        assert_int_equal(account(TENANT, "avail"), 0);
    ask_money(ledger_invoice(fixture.redis, STR(TENANT), STR("2026-11"), false, on_money, &money_answer));
    if (money_answer.error == ERR_NONE) {
        char total[MONEY_TEXT_MAX], wanted[64];
        money_text(paid, total);
        snprintf(wanted, sizeof(wanted), "\"total_usd\":\"%s\"", total);
        assert_non_null(strstr(money_answer.json, wanted));
    }
}

static void every_order_gives_the_same_books(void **state)
{
    struct redis_options options = {.url = fixture.url};
    struct redis *gateways[2] = {fixture.redis};

    (void)state;
    assert_int_equal(redis_open(fixture.loop, &options, &gateways[1]), ERR_NONE);
    for (uint64_t seed = 1; seed <= 150; seed++)
        play_once(seed, gateways);
    redis_free(gateways[1]);
}

/* What Redis did not answer is asked again, and nothing is charged twice or lost. */
static void killed_redis_loses_and_doubles_nothing(void **state)
{
    struct lease_bill bill = bill_of(USD, 8, 0);
    int64_t due;
    int unanswered = 0;

    (void)state;
    look("CONFIG SET appendfsync always");
    credit_tenant(TENANT, 1000 * USD, "c1");
    for (int round = 0; round < 3; round++) {
        struct answer answers[24] = {{0}};
        bool is_hold[24];
        for (int i = 0; i < 24; i++) {
            bill.until_ms += 60000;
            is_hold[i] = i % 3 == 0;
            if (is_hold[i])
                assert_int_equal(lease_hold(fixture.redis, TENANT, LEASE, i * USD, NULL, on_answer, &answers[i]),
                                 ERR_NONE);
            else
                assert_int_equal(lease_charge(fixture.redis, &bill, on_answer, &answers[i]), ERR_NONE);
            if (i == 8 + round * 4)
                fixture_kill_redis();
            loop_turn(fixture.loop, 0);
        }
        fixture_restart_redis();
        turn_until(({
            int count = 0;
            for (int i = 0; i < 24; i++)
                count += answers[i].count;
            count == 24;
        }));
        for (int i = 0; i < 24; i++)
            unanswered += answers[i].error != ERR_NONE;
        for (int tries = 0; charge(&bill) != ERR_NONE; tries++)
            assert_true(tries < 100);
        look("CONFIG SET appendfsync always");
        expect_books_balance(TENANT);
    }
    assert_true(unanswered > 0);
    assert_int_equal(release(), ERR_NONE);
    assert_true(lease_cost(bill.price_usd_nano, bill.gpus, bill.until_ms, &due));
    assert_int_equal(account(TENANT, "sup:vast-main:pending"), due);
    assert_int_equal(account(TENANT, "avail"), 1000 * USD - due);
    assert_int_equal(account(TENANT, "plat:loss"), 0);
    expect_books_balance(TENANT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(holds_charges_and_returns, fixture_empty),
        cmocka_unit_test_setup(poor_tenants_hold_nothing, fixture_empty),
        cmocka_unit_test_setup(costs_beyond_the_hold, fixture_empty),
        cmocka_unit_test_setup(sweeps_leave_leases_alone, fixture_empty),
        cmocka_unit_test_setup(shows_in_usage_and_on_the_invoice, fixture_empty),
        cmocka_unit_test_setup(counts_in_the_budget_of_its_key, fixture_empty),
        cmocka_unit_test_setup(refuses_what_no_ledger_could_take, fixture_empty),
        cmocka_unit_test_setup(every_order_gives_the_same_books, fixture_empty),
        cmocka_unit_test_setup(killed_redis_loses_and_doubles_nothing, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
