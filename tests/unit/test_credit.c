#include "pricing/credit.h"

#include "pricing/credit_internal.h"
#include "tests/unit/redis_fixture.h"

#include <pthread.h>

#define TENANT "ten_a"
#define ACCT "sl:{ten:ten_a}:acct"
#define HOLD "sl:{ten:ten_a}:hold"

static int64_t mono_now, wall_now;

static int64_t test_mono(void)
{
    return mono_now;
}

static int64_t test_wall(void)
{
    return wall_now;
}

static struct credit *credit_at(int64_t mono_ns, int64_t wall_ms, enum credit_kind kind, const char *id, int64_t limit)
{
    struct credit *credit = credit_new(kind, id, limit, kind == CREDIT_BUDGET ? "day" : NULL);
    assert_non_null(credit);
    mono_now = mono_ns;
    wall_now = wall_ms;
    credit->mono_ns = test_mono;
    credit->wall_ms = test_wall;
    return credit;
}

/* -- arithmetic -- */

static void take_and_charge(void **state)
{
    struct credit *credit = credit_at(NS_PER_S, 0, CREDIT_BALANCE, TENANT, 0);

    (void)state;
    assert_int_equal(credit_take(credit, 5), 0);
    credit_grant(credit, 100, mono_now, 0);
    assert_int_equal(credit_take(credit, 30), 30);
    assert_int_equal(credit_take(credit, 200), 70);
    assert_int_equal(credit_take(credit, 1), 0);
    assert_int_equal(credit_charge(credit, 30, 10), 10); /* gives 20 back */
    assert_int_equal(credit_left(credit), 20);
    assert_int_equal(credit_charge(credit, 70, 85), 85); /* draws 15 more */
    assert_int_equal(credit_left(credit), 5);
    assert_int_equal(credit_charge(credit, 0, 9), 5); /* 4 are the operator's loss */
    assert_int_equal(credit_left(credit), 0);
    credit_unref(credit);
}

static void lapses_without_sign_of_life(void **state)
{
    struct credit *credit = credit_at(NS_PER_S, 0, CREDIT_BALANCE, TENANT, 0);

    (void)state;
    credit_grant(credit, 100, mono_now, 0);
    mono_now += LOCAL_LIFE_NS - 1;
    assert_int_equal(credit_take(credit, 10), 10);
    credit_extend(credit, mono_now);
    mono_now += LOCAL_LIFE_NS - 1;
    assert_int_equal(credit_take(credit, 10), 10);
    mono_now += 1;
    assert_int_equal(credit_take(credit, 10), 0);
    assert_int_equal(credit_left(credit), 0);
    credit_grant(credit, 7, mono_now, 0); /* what was left before is no longer ours */
    assert_int_equal(credit_left(credit), 7);
    credit_unref(credit);
}

static void budget_starts_anew_each_period(void **state)
{
    int64_t midnight = clock_day_start(INT64_C(1790000000000));
    struct credit *credit = credit_at(NS_PER_S, midnight - 1, CREDIT_BUDGET, "key_a", 1000);

    (void)state;
    assert_int_equal(credit_period_start(credit, wall_now), midnight - 86400000);
    credit_grant(credit, 100, mono_now, credit_period_start(credit, wall_now));
    assert_int_equal(credit_take(credit, 40), 40);
    wall_now = midnight;
    assert_int_equal(credit_take(credit, 40), 0);
    credit_grant(credit, 9, mono_now, midnight - 86400000); /* late answer for yesterday */
    assert_int_equal(credit_left(credit), 0);
    credit_grant(credit, 50, mono_now, midnight);
    assert_int_equal(credit_left(credit), 50);
    credit_unref(credit);

    credit = credit_new(CREDIT_BUDGET, "key_b", 5, "month");
    assert_non_null(credit);
    assert_int_equal(credit_period_start(credit, INT64_C(1790000000000)), clock_month_start(INT64_C(1790000000000)));
    int64_t december = clock_month_start(INT64_C(1798700000000));
    assert_int_equal(credit_period_end(credit, december), clock_month_start(december + INT64_C(40) * 86400000));
    credit_unref(credit);
}

static void slices_follow_the_spending(void **state)
{
    struct credit *credit = credit_at(NS_PER_S, 0, CREDIT_BALANCE, TENANT, 0);
    int64_t slice = 0;

    (void)state;
    for (int i = 0; i < 12; i++) {
        slice = credit_next_slice(credit);
        mono_now += NS_PER_S;
    }
    assert_int_equal(slice, SLICE_MOST);
    for (int i = 0; i < 12; i++) {
        mono_now += 30 * NS_PER_S;
        slice = credit_next_slice(credit);
    }
    assert_int_equal(slice, SLICE_LEAST);
    (void)credit_take(credit, USD_NANO); /* larger calls want larger slices */
    assert_int_equal(credit_next_slice(credit), WANTS_A_SLICE * USD_NANO);
    credit_unref(credit);
}

#define THREADS 4
#define CALLS 60000
#define GRANT INT64_C(977)

struct caller {
    struct credit *credit;
    uint32_t seed;
    int64_t charged, granted;
};

/* Random calls, and now and then a slice. What all threads together charged and still hold never exceeds the grants. */
static void *call_often(void *arg)
{
    struct caller *caller = arg;
    int64_t held[8] = {0};

    for (int i = 0; i < CALLS; i++) {
        caller->seed = caller->seed * 1664525 + 1013904223;
        uint32_t random = caller->seed >> 8;
        int64_t *slot = &held[random % 8];
        if (*slot) {
            caller->charged += credit_charge(caller->credit, *slot, (random >> 3) % 60);
            *slot = 0;
        } else {
            *slot = credit_take(caller->credit, 1 + (random >> 3) % 50);
        }
        if (random % 97 == 0) {
            caller->granted += GRANT;
            credit_grant(caller->credit, GRANT, clock_mono_ns(), 0);
        }
        if (random % 1009 == 0)
            credit_unref(credit_ref(caller->credit));
    }
    for (int i = 0; i < 8; i++)
        caller->charged += credit_charge(caller->credit, held[i], 0);
    return NULL;
}

static void threads_never_overspend(void **state)
{
    struct credit *credit = credit_new(CREDIT_BALANCE, TENANT, 0, NULL);
    struct caller callers[THREADS];
    pthread_t threads[THREADS];
    int64_t charged = 0, granted = 0;

    (void)state;
    assert_non_null(credit);
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.credit = credit, .seed = (uint32_t)(i + 1)};
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        charged += callers[i].charged;
        granted += callers[i].granted;
    }
    assert_true(charged > 0);
    assert_int_equal(charged + credit_left(credit), granted);
    credit_unref(credit);
}

/* -- with Redis -- */

struct answer {
    struct credit_waiter waiter;
    int count;
    bool has_funds;
    enum error error;
};

static void on_answer(struct credit_waiter *waiter, bool has_funds, enum error error)
{
    struct answer *answer = container_of(waiter, struct answer, waiter);
    answer->count++;
    answer->has_funds = has_funds;
    answer->error = error;
}

#define ANSWER ((struct answer){.waiter = {.on_answer = on_answer}})

static struct credit_gate *gate_new(const char *gateway)
{
    struct credit_gate *gate = NULL;
    assert_int_equal(credit_gate_open(fixture.loop, fixture.redis, gateway, &gate), ERR_NONE);
    return gate;
}

static void put_money(const char *amount)
{
    look("HSET " ACCT " avail %s ext:psp -%s", amount, amount);
}

/* Asks until Redis has answered. */
static bool wait_for_money(struct credit_gate *gate, struct credit *credit)
{
    struct answer answer;

    do {
        answer = ANSWER;
        credit_wait(gate, credit, &answer.waiter);
        assert_int_equal(answer.count, 0);
        turn_until(answer.count == 1);
    } while (answer.error == ERR_CLOSED);
    assert_int_equal(answer.error, ERR_NONE);
    return answer.has_funds;
}

static void waits_for_a_slice(void **state)
{
    struct credit_gate *gate = gate_new("gwy_1");
    struct credit *credit = credit_new(CREDIT_BALANCE, TENANT, 0, NULL);
    struct answer answers[3] = {ANSWER, ANSWER, ANSWER};

    (void)state;
    put_money("9007199254740993"); /* 2^53 + 1 */
    for (int i = 0; i < 3; i++)
        credit_wait(gate, credit, &answers[i].waiter);
    credit_wait_cancel(&answers[1].waiter);
    credit_wait_cancel(&answers[1].waiter);
    turn_until(answers[0].count && answers[2].count);
    assert_int_equal(answers[1].count, 0);
    assert_true(answers[0].has_funds && answers[2].has_funds);
    assert_int_equal(credit_left(credit), SLICE_LEAST); /* one question for both */
    assert_int_equal(look_number(HOLD, "gwy_1"), SLICE_LEAST);
    assert_int_equal(look_number(ACCT, "avail"), 9007199254740993 - SLICE_LEAST);
    assert_int_equal(look_number(ACCT, "held"), SLICE_LEAST);
    assert_int_equal(sum_of_accounts(TENANT), 0);

    /* More comes in the background once half is gone, and all goes back at the end. */
    assert_int_equal(credit_take(credit, SLICE_LEAST / 2 + 1), SLICE_LEAST / 2 + 1);
    credit_renew_if_low(gate, credit);
    turn_until(credit_left(credit) > SLICE_LEAST);
    assert_int_equal(credit_charge(credit, SLICE_LEAST / 2 + 1, 1000), 1000);
    credit_give_back(gate, credit);
    turn_until(credit_gate_is_idle(gate));
    assert_int_equal(look_number(HOLD, "gwy_1"), 1000); /* charged, not settled yet */
    assert_int_equal(look_number(ACCT, "held"), 1000);
    assert_int_equal(sum_of_accounts(TENANT), 0);
    credit_unref(credit);
    credit_gate_free(gate);
}

static void no_money_is_no(void **state)
{
    struct credit_gate *gate = gate_new("gwy_1");
    struct credit *credit = credit_at(clock_mono_ns(), clock_wall_ms(), CREDIT_BALANCE, TENANT, 0);

    (void)state;
    assert_false(wait_for_money(gate, credit));
    put_money("3");
    assert_false(wait_for_money(gate, credit)); /* not asked again so soon */
    mono_now += 100 * NS_PER_MS;
    assert_true(wait_for_money(gate, credit));
    assert_int_equal(credit_take(credit, 10), 3);
    assert_int_equal(look_number(ACCT, "avail"), 0);
    assert_int_equal(look_number(ACCT, "held"), 3);
    mono_now += 100 * NS_PER_MS;
    assert_false(wait_for_money(gate, credit));
    assert_int_equal(sum_of_accounts(TENANT), 0);
    credit_unref(credit);
    credit_gate_free(gate);
}

/* Two gateways spend one small balance to its end: what both could take is the balance, exactly. */
static void two_gateways_share_one_balance(void **state)
{
    struct credit_gate *gates[2] = {gate_new("gwy_1"), gate_new("gwy_2")};
    struct credit *credits[2];
    int64_t taken[2] = {0}, total = 0;
    bool is_dry[2] = {false};

    (void)state;
    put_money("123456789");
    for (int i = 0; i < 2; i++)
        credits[i] = credit_at(clock_mono_ns(), 0, CREDIT_BALANCE, TENANT, 0);
    while (!is_dry[0] || !is_dry[1]) {
        struct answer answers[2] = {ANSWER, ANSWER};
        for (int i = 0; i < 2; i++)
            credit_wait(gates[i], credits[i], &answers[i].waiter);
        turn_until(answers[0].count && answers[1].count);
        for (int i = 0; i < 2; i++) {
            int64_t got;
            is_dry[i] = !answers[i].has_funds;
            while ((got = credit_take(credits[i], 1000003)) > 0)
                taken[i] += got;
        }
        assert_int_equal(look_number(ACCT, "avail") + look_number(ACCT, "held"), 123456789);
        mono_now += NS_PER_S / 4;
    }
    total = taken[0] + taken[1];
    assert_int_equal(total, 123456789);
    assert_true(taken[0] > 0 && taken[1] > 0); /* a small balance is not locked up by whoever asks first */
    assert_int_equal(sum_of_holds(TENANT), 123456789);
    assert_int_equal(sum_of_accounts(TENANT), 0);
    for (int i = 0; i < 2; i++) {
        credit_unref(credits[i]);
        credit_gate_free(gates[i]);
    }
}

static void idle_credit_goes_back(void **state)
{
    struct credit_gate *gate = gate_new("gwy_1");
    struct credit *credit = credit_at(clock_mono_ns(), 0, CREDIT_BALANCE, TENANT, 0);

    (void)state;
    put_money("10000000000");
    assert_true(wait_for_money(gate, credit));
    assert_int_equal(credit_take(credit, 500), 500);
    credit_keep_alive(gate, credit);
    turn_until(credit_gate_is_idle(gate));
    assert_int_equal(look_number(HOLD, "gwy_1"), SLICE_LEAST); /* in use */
    mono_now += 11 * NS_PER_S;
    credit_keep_alive(gate, credit);
    turn_until(credit_gate_is_idle(gate));
    assert_int_equal(look_number(HOLD, "gwy_1"), 500); /* the running call's */
    assert_int_equal(look_number(ACCT, "held"), 500);
    assert_int_equal(credit_charge(credit, 500, 500), 500);
    /* Somebody swept it: the gateway learns so and lends no more. */
    credit_grant(credit, 77, mono_now, 0);
    look("DEL " HOLD);
    credit_keep_alive(gate, credit);
    turn_until(credit_gate_is_idle(gate));
    assert_int_equal(credit_left(credit), 0);
    /* With nothing held there is nothing to keep alive, until there is again. */
    credit_keep_alive(gate, credit);
    assert_true(credit_gate_is_idle(gate));
    assert_true(wait_for_money(gate, credit));
    credit_keep_alive(gate, credit);
    assert_false(credit_gate_is_idle(gate));
    turn_until(credit_gate_is_idle(gate));
    credit_unref(credit);
    credit_gate_free(gate);
}

static void budget_is_a_limit_over_gateways(void **state)
{
    int64_t wall = clock_wall_ms(), day = clock_day_start(wall);
    struct credit_gate *gates[2] = {gate_new("gwy_1"), gate_new("gwy_2")};
    struct credit *credits[2];
    int64_t taken = 0;
    char acct[96];

    (void)state;
    snprintf(acct, sizeof(acct), "sl:{key:key_a}:%lld:acct", (long long)day);
    for (int i = 0; i < 2; i++)
        credits[i] = credit_at(clock_mono_ns(), wall, CREDIT_BUDGET, "key_a", 60000000);
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < 2; i++) {
            int64_t got;
            (void)wait_for_money(gates[i], credits[i]);
            while ((got = credit_take(credits[i], 999999)) > 0)
                taken += got;
        }
        mono_now += NS_PER_S / 4;
    }
    assert_int_equal(taken, 60000000);
    assert_int_equal(look_number(acct, "avail"), 0);
    assert_int_equal(look_number(acct, "held"), 60000000);
    /* The next day has a budget of its own. */
    wall_now += 86400000;
    assert_true(wait_for_money(gates[0], credits[0]));
    assert_true(credit_take(credits[0], 5) == 5);
    wall_now -= 86400000;
    credit_unref(credits[1]);
    /* A raised limit counts at once. */
    credits[1] = credit_at(mono_now, wall, CREDIT_BUDGET, "key_a", 60000123);
    assert_true(wait_for_money(gates[1], credits[1]));
    assert_int_equal(credit_left(credits[1]), 123);
    for (int i = 0; i < 2; i++) {
        credit_unref(credits[i]);
        credit_gate_free(gates[i]);
    }
}

/* The answer to a question is lost with the connection: asked again under its id, the slice is held once. */
static void lost_answers_hold_nothing_twice(void **state)
{
    struct credit_gate *gate = gate_new("gwy_1");
    struct credit *credit = credit_new(CREDIT_BALANCE, TENANT, 0, NULL);
    int grants = 0;

    (void)state;
    put_money("9000000000000000");
    for (int round = 0; round < 30; round++) {
        struct answer answer = ANSWER;
        int64_t left = credit_left(credit);
        assert_int_equal(credit_take(credit, INT64_C(1) << 62), left);
        credit_wait(gate, credit, &answer.waiter);
        for (int i = 0; i < round % 5; i++)
            loop_turn(fixture.loop, 0);
        look("CLIENT KILL TYPE normal SKIPME yes");
        turn_until(credit_gate_is_idle(gate));
        assert_int_equal(answer.count, 1);
        grants += credit_left(credit) > 0;
    }
    assert_int_equal(grants, 30);
    int64_t left = credit_left(credit), held = look_number(HOLD, "gwy_1");
    assert_int_equal(strtoll(look("HGET " ACCT " held"), NULL, 10), held);
    assert_int_equal(look_number(ACCT, "avail") + held, 9000000000000000);
    assert_true(left <= held);
    credit_unref(credit);
    credit_gate_free(gate);
}

static void gate_may_be_freed_while_asking(void **state)
{
    struct credit_gate *gate = gate_new("gwy_1");
    struct credit *credit = credit_new(CREDIT_BALANCE, TENANT, 0, NULL);
    struct answer answer = ANSWER;

    (void)state;
    credit_wait(gate, credit, &answer.waiter);
    credit_gate_free(gate);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.error, ERR_CANCELLED);
    credit_unref(credit);
    gate = gate_new("gwy_1"); /* the abandoned answer comes before this one's */
    credit = credit_new(CREDIT_BALANCE, TENANT, 0, NULL);
    assert_false(wait_for_money(gate, credit));
    credit_unref(credit);
    credit_gate_free(gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take_and_charge),
        cmocka_unit_test(lapses_without_sign_of_life),
        cmocka_unit_test(budget_starts_anew_each_period),
        cmocka_unit_test(slices_follow_the_spending),
        cmocka_unit_test(threads_never_overspend),
        cmocka_unit_test_setup(waits_for_a_slice, fixture_empty),
        cmocka_unit_test_setup(no_money_is_no, fixture_empty),
        cmocka_unit_test_setup(two_gateways_share_one_balance, fixture_empty),
        cmocka_unit_test_setup(idle_credit_goes_back, fixture_empty),
        cmocka_unit_test_setup(budget_is_a_limit_over_gateways, fixture_empty),
        cmocka_unit_test_setup(lost_answers_hold_nothing_twice, fixture_empty),
        cmocka_unit_test_setup(gate_may_be_freed_while_asking, fixture_empty),
    };
    return cmocka_run_group_tests(tests, fixture_start, fixture_stop);
}
