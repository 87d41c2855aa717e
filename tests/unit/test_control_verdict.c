/* Which device of a worker tells of all. */
#include "tests/unit/cmocka_all.h"
#include "gateway/control_proof.h"

static struct verify_report report_of(enum verify_result result, const struct gpu_class *class, double ratio,
                                      double chain_tops)
{
    return (struct verify_report){.result = result,
                                  .proven_class = class,
                                  .ratio = ratio,
                                  .proven = {.vram_gib = 20, .pass_gbps = 100, .chain_tops = chain_tops}};
}

static void a_failure_tells_of_all(void **state)
{
    (void)state;
    const struct verify_report passed = report_of(VERIFY_PASSED, NULL, 0.9, 1),
                               wrong = report_of(VERIFY_WRONG, NULL, 2, 9), late = report_of(VERIFY_LATE, NULL, 2, 9);
    assert_true(control_is_worse(&wrong, &passed) && !control_is_worse(&passed, &wrong));
    assert_true(control_is_worse(&wrong, &late) && control_is_worse(&late, &passed));
}

/* A small device that does all that is expected of its class must not be sold as the large one beside it, which is a
 * little slower than its class. */
static void the_weaker_class_tells_of_all(void **state)
{
    (void)state;
    const struct gpu_class large = {.name = "large"}, small = {.name = "small"};
    const struct verify_report strong = report_of(VERIFY_PASSED, &large, 0.95, 1000),
                               weak = report_of(VERIFY_PASSED, &small, 1.1, 100);
    assert_true(control_is_worse(&weak, &strong));
    assert_false(control_is_worse(&strong, &weak));
}

static void within_a_class_the_slower_does(void **state)
{
    (void)state;
    const struct gpu_class class = {.name = "class"};
    const struct verify_report slow = report_of(VERIFY_PASSED, &class, 0.8, 1000),
                               quick = report_of(VERIFY_PASSED, &class, 1, 900);
    assert_true(control_is_worse(&slow, &quick) && !control_is_worse(&quick, &slow));
}

/* A device whose memory is never free again lives on what it showed of it for a week. */
static void old_proofs_of_memory_fade(void **state)
{
    (void)state;
    const int64_t day_ms = INT64_C(86400000), admitted_at = 1000 * day_ms;
    struct verify_report lease = report_of(VERIFY_PASSED, NULL, 1, 100), spot = lease;
    lease.purpose = VERIFY_LEASE;
    spot.purpose = VERIFY_SPOT;
    lease.credit = spot.credit = 1;
    struct reputation_evidence young = control_good_evidence(&lease, admitted_at, admitted_at + 7 * day_ms),
                               old = control_good_evidence(&lease, admitted_at, admitted_at + 7 * day_ms + 1),
                               free = control_good_evidence(&spot, admitted_at, admitted_at + 8 * day_ms);
    assert_true(young.good[REPUTATION_HARDWARE] > 0 && free.good[REPUTATION_HARDWARE] > 0);
    assert_true(old.good[REPUTATION_HARDWARE] == 0 && old.bad[REPUTATION_HARDWARE] == 0);
    assert_true(old.good[REPUTATION_CORRECTNESS] == young.good[REPUTATION_CORRECTNESS]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_tells_of_all),
        cmocka_unit_test(the_weaker_class_tells_of_all),
        cmocka_unit_test(within_a_class_the_slower_does),
        cmocka_unit_test(old_proofs_of_memory_fade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
