#include "tests/unit/cmocka_all.h"

#include "scheduler/exposure.h"

#include <math.h>

#define USD INT64_C(1000000000)
#define DAY (INT64_C(24) * 3600 * 1000)

static void earnings_fade(void **state)
{
    (void)state;
    assert_int_equal(exposure_earned_usd_nano(8 * USD, DAY, DAY), 8 * USD);
    assert_int_equal(exposure_earned_usd_nano(8 * USD, DAY, 0), 8 * USD); /* another clock */
    assert_int_equal(exposure_earned_usd_nano(8 * USD, 0, 7 * DAY), 4 * USD);
    assert_int_equal(exposure_earned_usd_nano(-1, 0, DAY), 0);
    assert_int_equal(exposure_earned_usd_nano(INT64_MAX, 0, INT64_MAX), 0);
    assert_true(exposure_earned_usd_nano(INT64_MAX, 0, 1) <= INT64_MAX);
}

static void the_cap_grows_with_earnings(void **state)
{
    (void)state;
    assert_int_equal(exposure_cap_usd_nano(USD, 0), USD);
    assert_int_equal(exposure_cap_usd_nano(USD, 10 * USD), 6 * USD);
    assert_int_equal(exposure_cap_usd_nano(INT64_MAX, INT64_MAX), INT64_MAX);
    assert_int_equal(exposure_cap_usd_nano(-5, -5), 0);
}

static void calls_at_once(void **state)
{
    (void)state;
    static const struct {
        int64_t cap, price;
        uint32_t gpus, slots, calls;
    } cases[] = {
        {USD, USD / 2, 1, 64, 769},    /* a common worker with all its slots: no bound that it meets */
        {USD, 32 * USD, 1, 1, 1},      /* a call of more than the cap: one */
        {USD, 4 * USD, 8, 8, 2},       /* 0.67 a call: the second begins within the cap, no third */
        {10 * USD, 4 * USD, 8, 8, 16}, /* after it has earned */
        {USD, 6 * USD, 1, 1, 2},       /* exactly the cap is within */
        {0, 6 * USD, 1, 1, 1},
        {USD, 0, 1, 8, EXPOSURE_ANY},
        {USD, 1, 1, 8, EXPOSURE_ANY},
        {INT64_MAX, 1000, 0, 0, EXPOSURE_ANY},
        {USD, INT64_MAX, UINT32_MAX, 1, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t call = exposure_call_usd_nano(cases[i].price, cases[i].gpus, cases[i].slots);
        assert_int_equal(exposure_calls(cases[i].cap, call), cases[i].calls);
    }
}

static void checking_makes_cheating_not_pay(void **state)
{
    (void)state;
    for (int64_t gain = 1; gain < 1000 * USD; gain = gain * 3 + 1) {
        for (int64_t penalty = 1; penalty < 1000 * USD; penalty = penalty * 3 + 1) {
            double p = exposure_check_probability(gain, penalty);
            assert_true(p >= 0.01 && p <= 0.3);
            if (p < 0.3) /* what it loses when caught is no less than what it gains when not */
                assert_true(p * (double)penalty >= (1 - p) * (double)gain - 1e-3);
        }
    }
    assert_true(exposure_check_probability(USD, 0) == 0.3);
    assert_true(exposure_check_probability(0, USD) == 0.01);
    assert_true(exposure_check_probability(-1, -1) == 0.3);
    assert_true(fabs(exposure_check_probability(USD, 9 * USD) - 0.1) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(earnings_fade),
        cmocka_unit_test(the_cap_grows_with_earnings),
        cmocka_unit_test(calls_at_once),
        cmocka_unit_test(checking_makes_cheating_not_pay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
