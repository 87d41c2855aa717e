#include "tests/unit/cmocka_all.h"

#include "scheduler/admission.h"

#include <string.h>

#define T 1000000

static const struct admission_policy policy = {60000, 300000};

static enum admission_action step(struct admission *admission, enum admission_event event, int64_t now_ms)
{
    return admission_step(admission, event, now_ms, &policy, 12345);
}

static void names(void **state)
{
    (void)state;
    static const char *const texts[] = {"enrolled", "probing", "ready", "suspended"};
    for (int i = 0; i < ADMISSION_STATE_COUNT; i++) {
        enum admission_state got = ADMISSION_STATE_COUNT;
        assert_string_equal(admission_state_name((enum admission_state)i), texts[i]);
        assert_true(admission_state_parse(str_of(texts[i]), &got));
        assert_int_equal(got, i);
    }
    enum admission_state untouched = ADMISSION_READY;
    assert_false(admission_state_parse(STR("Ready"), &untouched));
    assert_false(admission_state_parse(STR(""), &untouched));
    assert_int_equal(untouched, ADMISSION_READY);
}

static void passes(void **state)
{
    (void)state;
    struct admission admission = {0};
    assert_int_equal(step(&admission, ADMISSION_LINKED, T), ADMISSION_SEND_PROBE);
    assert_int_equal(admission.state, ADMISSION_PROBING);
    assert_int_equal(step(&admission, ADMISSION_LINKED, T), ADMISSION_NOTHING); /* one probe at a time */
    assert_int_equal(step(&admission, ADMISSION_TICK, T + 9999), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_PROBE_GOOD, T + 70), ADMISSION_NOTHING);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(admission.last_probe_at_ms, T + 70);
    assert_int_equal(admission.last_probe_took_ms, 70);
    assert_string_equal(admission.reason, "");
    assert_int_equal(admission.token, 2);
    assert_in_range(admission.next_probe_at_ms, T + 70 + 60000, T + 70 + 300000);
}

static void probed_again(void **state)
{
    (void)state;
    struct admission admission = {0};
    step(&admission, ADMISSION_LINKED, T);
    step(&admission, ADMISSION_PROBE_GOOD, T);
    int64_t due = admission.next_probe_at_ms;
    assert_int_equal(step(&admission, ADMISSION_TICK, due - 1), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_TICK, due), ADMISSION_SEND_PROBE);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(step(&admission, ADMISSION_TICK, due + 1), ADMISSION_NOTHING);
    step(&admission, ADMISSION_PROBE_LOST, due + 2);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(step(&admission, ADMISSION_TICK, due + 1002), ADMISSION_SEND_PROBE);
    step(&admission, ADMISSION_PROBE_WRONG, due + 1100);
    assert_false(admission_is_ready(&admission));
    assert_string_equal(admission.reason, "wrong answer");
    /* nothing but a new probe brings it back */
    step(&admission, ADMISSION_PROBE_GOOD, due + 1200);
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
}

static void pauses_double(void **state)
{
    (void)state;
    static const int64_t pauses[] = {10, 20, 40, 80, 160, 320, 600, 600, 600};
    struct admission admission = {0};
    int64_t now = T;
    for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        assert_false(admission_is_ready(&admission));
        step(&admission, ADMISSION_PROBE_LATE, now);
        assert_string_equal(admission.reason, "answer too late");
        assert_int_equal(step(&admission, ADMISSION_LINKED, now + pauses[i] * 1000 - 1), ADMISSION_NOTHING);
        now += pauses[i] * 1000;
    }
    assert_int_equal(step(&admission, ADMISSION_LINKED, now), ADMISSION_SEND_PROBE);
    step(&admission, ADMISSION_PROBE_LOST, now); /* says nothing: suspended as before */
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
    assert_string_equal(admission.reason, "answer too late");
    step(&admission, ADMISSION_TICK, now + 1000);
    step(&admission, ADMISSION_PROBE_GOOD, now + 1010);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(admission.suspensions, 0);
    assert_string_equal(admission.reason, "");
}

static void lost_probe_of_a_newcomer(void **state)
{
    (void)state;
    struct admission admission = {0};
    step(&admission, ADMISSION_LINKED, T);
    step(&admission, ADMISSION_PROBE_LOST, T + 5);
    assert_int_equal(admission.state, ADMISSION_ENROLLED);
    assert_int_equal(step(&admission, ADMISSION_LINKED, T + 6), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_TICK, T + 1005), ADMISSION_SEND_PROBE);
    /* its gateway died: another one takes over */
    assert_int_equal(step(&admission, ADMISSION_LINKED, T + 1005 + 9999), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_LINKED, T + 1005 + 10000), ADMISSION_SEND_PROBE);
}

static uint64_t random_state = 42;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Random events: ready only by a good probe that was sent since the last failure. */
static void properties(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct admission admission = {0};
        int64_t now = T;
        bool under_way = false, proven = false;
        for (int i = 0; i < 300; i++) {
            enum admission_event event = (enum admission_event)(next_random() % (ADMISSION_TICK + 1));
            struct admission before = admission;
            now += (int64_t)(next_random() % 20000);
            enum admission_action action = admission_step(&admission, event, now, &policy, next_random());
            if (event == ADMISSION_PROBE_WRONG || event == ADMISSION_PROBE_LATE) {
                if (under_way || before.state == ADMISSION_READY)
                    proven = false;
            } else if (event == ADMISSION_PROBE_GOOD && under_way) {
                proven = true;
            }
            under_way =
                action == ADMISSION_SEND_PROBE || (under_way && (event == ADMISSION_TICK || event == ADMISSION_LINKED));
            assert_true(!admission_is_ready(&admission) || proven);
            bool same = memcmp(&before, &admission, sizeof(before)) == 0;
            assert_true(same ? admission.token == before.token : admission.token == before.token + 1);
            assert_true(action == ADMISSION_NOTHING || event == ADMISSION_TICK || event == ADMISSION_LINKED);
            if (action == ADMISSION_SEND_PROBE)
                assert_true(before.next_probe_at_ms <= now && admission.next_probe_at_ms > now);
            if (!same && event == ADMISSION_PROBE_GOOD)
                assert_in_range(admission.next_probe_at_ms, now + policy.reprobe_min_ms, now + policy.reprobe_max_ms);
            assert_true((admission.state == ADMISSION_SUSPENDED) <= (admission.reason[0] != 0));
            assert_true(admission.state != ADMISSION_READY || admission.reason[0] == 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),         cmocka_unit_test(passes),     cmocka_unit_test(probed_again),
        cmocka_unit_test(pauses_double), cmocka_unit_test(properties), cmocka_unit_test(lost_probe_of_a_newcomer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
