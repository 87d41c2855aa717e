#include "tests/unit/cmocka_all.h"

#include "scheduler/reputation.h"

#include <math.h>

#define DAY (INT64_C(24) * 3600 * 1000)
#define T (100 * DAY)

static double bound_of(double good, double bad)
{
    struct reputation reputation = {good, bad, T};
    return reputation_bound(&reputation, T);
}

static void newcomers(void **state)
{
    (void)state;
    assert_true(fabs(bound_of(0, 0) - 0.133) < 0.001);
    assert_true(fabs(bound_of(3, 0) - 0.45) < 0.01);
    assert_true(bound_of(1000, 0) > 0.99);
    assert_true(bound_of(0, 1000) < 0.001);
    assert_true(bound_of(60, 40) > bound_of(3, 0)); /* some experience beats a new name */
}

static void half_life(void **state)
{
    (void)state;
    struct reputation reputation = {0};
    reputation_add(&reputation, 8, 4, T);
    reputation_add(&reputation, 0, 0, T + 7 * DAY);
    assert_true(fabs(reputation.good - 4) < 1e-9 && fabs(reputation.bad - 2) < 1e-9);
    reputation_add(&reputation, 1, 0, T); /* another gateway's clock is behind: no decay, no growth */
    assert_true(fabs(reputation.good - 5) < 1e-9);
    assert_int_equal(reputation.at_ms, T + 7 * DAY);
    /* adding in two steps or asking later is the same */
    double later = reputation_bound(&reputation, T + 30 * DAY);
    reputation_add(&reputation, 0, 0, T + 20 * DAY);
    assert_true(fabs(reputation_bound(&reputation, T + 30 * DAY) - later) < 1e-12);
    /* all is forgotten in the end */
    assert_true(fabs(reputation_bound(&reputation, T + 10000 * DAY) - bound_of(0, 0)) < 1e-9);
}

static void more_good_never_hurts(void **state)
{
    (void)state;
    for (double good = 0; good < 2000; good = good * 1.5 + 0.5) {
        for (double bad = 0; bad < 2000; bad = bad * 1.5 + 0.5) {
            double bound = bound_of(good, bad);
            assert_true(bound >= 0 && bound <= 1);
            assert_true(bound_of(good + 0.1, bad) >= bound && bound_of(good + 7, bad) >= bound);
            assert_true(bound_of(good, bad + 0.1) <= bound && bound_of(good, bad + 7) <= bound);
        }
    }
}

static void nonsense(void **state)
{
    (void)state;
    struct reputation reputation = {NAN, -5, T};
    assert_true(fabs(reputation_bound(&reputation, T) - bound_of(0, 0)) < 1e-9);
    reputation_add(&reputation, INFINITY, NAN, T);
    assert_true(reputation.good == 0 && reputation.bad == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newcomers),
        cmocka_unit_test(half_life),
        cmocka_unit_test(more_good_never_hurts),
        cmocka_unit_test(nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
