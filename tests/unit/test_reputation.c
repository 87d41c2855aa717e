#include "tests/unit/cmocka_all.h"

#include "scheduler/reputation.h"

#include <math.h>

#define DAY (INT64_C(24) * 3600 * 1000)
#define T (100 * DAY)

/* The same counts in every dimension. */
static struct reputation counts_of(double good, double bad)
{
    struct reputation reputation = {.at_ms = T};
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        reputation.good[i] = good;
        reputation.bad[i] = bad;
    }
    return reputation;
}

static double bound_of(double good, double bad)
{
    const struct reputation reputation = counts_of(good, bad);
    return reputation_bound(&reputation, T);
}

static double after(struct reputation reputation, struct reputation_evidence evidence)
{
    reputation_add(&reputation, &evidence, T);
    return reputation_bound(&reputation, T);
}

static void newcomers(void **state)
{
    (void)state;
    const struct reputation nobody = {.at_ms = T};
    double newcomer = after(nobody, reputation_of_proof(VERIFY_ADMISSION, 1, true));
    assert_true(fabs(bound_of(0, 0) - 0.133) < 0.001);
    assert_true(fabs(newcomer - 0.45) < 0.01);
    assert_true(after(nobody, reputation_of_proof(VERIFY_ADMISSION, 1, false)) < newcomer);
    assert_true(after(nobody, reputation_of_proof(VERIFY_ADMISSION, 0.5, true)) < newcomer);
    assert_true(bound_of(1000, 0) > 0.99 && bound_of(0, 1000) < 0.001);
    assert_true(bound_of(18, 2) > newcomer && bound_of(9, 1) > newcomer); /* who serves beats a new name */
}

/* Whatever a worker has proven before: after one wrong answer it stands below a newcomer. */
static void one_wrong_answer_outweighs_all(void **state)
{
    (void)state;
    static const enum verify_purpose purposes[] = {VERIFY_ADMISSION, VERIFY_SPOT, VERIFY_LEASE};
    double newcomer = after((struct reputation){.at_ms = T}, reputation_of_proof(VERIFY_ADMISSION, 1, true));
    for (size_t i = 0; i < 3; i++)
        assert_true(after(counts_of(1e9, 0), reputation_of_wrong(purposes[i])) < newcomer);
    struct reputation veteran = counts_of(1000, 0);
    const struct reputation_evidence mismatch = reputation_of_mismatch();
    reputation_add(&veteran, &mismatch, T);
    assert_true(reputation_bound(&veteran, T) > 0.9); /* may be an accident */
    for (int i = 0; i < 4; i++)
        reputation_add(&veteran, &mismatch, T);
    assert_true(reputation_bound(&veteran, T) < newcomer); /* this often it is none */
}

static void each_in_its_dimension(void **state)
{
    (void)state;
    const struct reputation before = counts_of(10, 1);
    const struct {
        struct reputation_evidence evidence;
        int moves[REPUTATION_DIMENSIONS];
    } cases[] = {
        {reputation_of_proof(VERIFY_SPOT, 1, true), {1, 1, 1, 1}},
        {reputation_of_proof(VERIFY_SPOT, 0, false), {-1, 1, 1, 0}},
        {reputation_of_wrong(VERIFY_LEASE), {-1, -1, 0, 0}},
        {reputation_of_late(VERIFY_SPOT), {0, 0, -1, 0}},
        {reputation_of_mismatch(), {0, -1, 0, 0}},
        {reputation_of_calls(5, 0, 5000000), {0, 0, 1, 0}},
        {reputation_of_calls(0, 5, 0), {0, 0, -1, 0}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct reputation reputation = before;
        reputation_add(&reputation, &cases[i].evidence, T);
        for (unsigned d = 0; d < REPUTATION_DIMENSIONS; d++) {
            double change = reputation_score(&reputation, d, T) - reputation_score(&before, d, T);
            assert_int_equal((change > 0) - (change < 0), cases[i].moves[d]);
        }
    }
    assert_string_equal(reputation_dimension_name(REPUTATION_AVAILABILITY), "availability");
}

static void calls_weigh_by_value(void **state)
{
    (void)state;
    double least = reputation_of_calls(1, 0, 0).good[REPUTATION_AVAILABILITY];
    double cent = reputation_of_calls(1, 0, 10000000).good[REPUTATION_AVAILABILITY];
    assert_true(least > 0 && least < 0.02 && fabs(cent - 0.5) < 1e-9);
    assert_true(reputation_of_calls(1, 0, INT64_MAX).good[REPUTATION_AVAILABILITY] <= 0.5);
    assert_true(reputation_of_calls(UINT64_MAX, 0, INT64_MAX).good[REPUTATION_AVAILABILITY] <= REPUTATION_COUNT_MAX);
    assert_true(reputation_of_calls(0, 1, 0).bad[REPUTATION_AVAILABILITY] > least);
    struct reputation_evidence sum = reputation_of_calls(1, 2, 0), more = reputation_of_late(VERIFY_ADMISSION);
    reputation_merge(&sum, &more);
    assert_true(fabs(sum.bad[REPUTATION_AVAILABILITY] - 3.1) < 1e-9);
    more = reputation_of_mismatch();
    reputation_merge(&sum, &more);
    reputation_merge(&sum, &more);
    assert_true(fabs(sum.forfeit[REPUTATION_CORRECTNESS] - 0.75) < 1e-9);
}

static void half_lives(void **state)
{
    (void)state;
    struct reputation reputation = {.at_ms = 0};
    const struct reputation_evidence some = {.good = {8, 0, 0, 0}, .bad = {4, 0, 0, 0}}, none = {.good = {0}};
    reputation_add(&reputation, &some, T);
    struct reputation later = reputation_at(&reputation, T + 7 * DAY);
    assert_true(fabs(later.good[0] - 4) < 1e-9);
    later = reputation_at(&reputation, T + 30 * DAY);
    assert_true(fabs(later.bad[0] - 2) < 1e-9); /* a bad name lasts longer */
    reputation_add(&reputation, &none, T + 7 * DAY);
    double good = reputation.good[0];
    reputation_add(&reputation, &some, T); /* another gateway's clock is behind: no decay, no growth */
    assert_true(fabs(reputation.good[0] - good - 8) < 1e-9);
    assert_int_equal(reputation.at_ms, T + 7 * DAY);
    /* adding in two steps or asking later is the same */
    double then = reputation_bound(&reputation, T + 30 * DAY);
    reputation_add(&reputation, &none, T + 20 * DAY);
    assert_true(fabs(reputation_bound(&reputation, T + 30 * DAY) - then) < 1e-12);
    /* all is forgotten in the end */
    assert_true(fabs(reputation_bound(&reputation, T + 10000 * DAY) - bound_of(0, 0)) < 1e-9);
}

static void nonsense(void **state)
{
    (void)state;
    struct reputation reputation = counts_of(NAN, -5);
    const struct reputation_evidence evidence = {.good = {INFINITY, NAN, -1, 0}, .bad = {NAN, -7, 0, INFINITY}};
    assert_true(fabs(reputation_bound(&reputation, T) - bound_of(0, 0)) < 1e-9);
    reputation_add(&reputation, &evidence, T);
    assert_true(reputation.good[0] == REPUTATION_COUNT_MAX && reputation.good[1] == 0 && reputation.good[2] == 0);
    assert_true(reputation.bad[0] == 0 && reputation.bad[1] == 0 && reputation.bad[3] == REPUTATION_COUNT_MAX);
    assert_true(reputation_of_proof(VERIFY_SPOT, NAN, true).good[REPUTATION_HARDWARE] == 0);
    reputation.at_ms = INT64_MIN;
    assert_true(reputation_bound(&reputation, INT64_MAX) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newcomers),
        cmocka_unit_test(one_wrong_answer_outweighs_all),
        cmocka_unit_test(each_in_its_dimension),
        cmocka_unit_test(calls_weigh_by_value),
        cmocka_unit_test(half_lives),
        cmocka_unit_test(nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
