#include "tests/unit/cmocka_all.h"

#include "scheduler/admission.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define T INT64_C(1000000)
#define DAY_MS INT64_C(86400000)

static const struct admission_policy policy = {60000, 300000};

static enum admission_action tell(struct admission *admission, enum admission_event event, int64_t now_ms,
                                  uint32_t gateway, const char *reason)
{
    const struct admission_news news = {.event = event,
                                        .now_ms = now_ms,
                                        .random = UINT64_C(0x8000000000000000),
                                        .gateway = gateway,
                                        .score = 0.45,
                                        .reason = str_of(reason)};
    return admission_step(admission, &news, &policy);
}

static enum admission_action step(struct admission *admission, enum admission_event event, int64_t now_ms)
{
    return tell(admission, event, now_ms, 1, NULL);
}

static struct admission ready_at(int64_t now_ms)
{
    struct admission admission = {0};
    assert_int_equal(step(&admission, ADMISSION_LINKED, now_ms), ADMISSION_SEND_PROBE);
    assert_int_equal(step(&admission, ADMISSION_PROBE_GOOD, now_ms), ADMISSION_NOTHING);
    assert_true(admission_is_ready(&admission));
    return admission;
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
    assert_int_equal(admission.next_purpose, VERIFY_ADMISSION);
    assert_int_equal(step(&admission, ADMISSION_LINKED, T), ADMISSION_NOTHING); /* one probe at a time */
    assert_int_equal(step(&admission, ADMISSION_TICK, T + 29999), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_PROBE_GOOD, T + 70), ADMISSION_NOTHING);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(admission.last_probe_at_ms, T + 70);
    assert_int_equal(admission.last_probe_took_ms, 70);
    assert_int_equal(admission.admitted_at_ms, T + 70);
    assert_int_equal(admission.next_purpose, VERIFY_SPOT);
    assert_string_equal(admission.reason, "");
    assert_int_equal(admission.token, 2);
    assert_int_equal(admission.claimed_at_ms, 0);
    assert_in_range(admission.next_probe_at_ms, T + 70 + 30000, T + 70 + 600000);
}

static void probed_again(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    int64_t due = admission.next_probe_at_ms;
    assert_int_equal(step(&admission, ADMISSION_TICK, due - 1), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_TICK, due), ADMISSION_SEND_PROBE);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(admission.next_purpose, VERIFY_SPOT);
    assert_int_equal(step(&admission, ADMISSION_TICK, due + 1), ADMISSION_NOTHING);
    step(&admission, ADMISSION_PROBE_LOST, due + 2);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(step(&admission, ADMISSION_TICK, due + 1002), ADMISSION_SEND_PROBE);
    step(&admission, ADMISSION_PROBE_LATE, due + 1100);
    assert_false(admission_is_ready(&admission));
    assert_string_equal(admission.reason, "answer too late");
    assert_int_equal(admission.last_probe_at_ms, due + 1100);
    /* nothing but a new probe brings it back, and that is a whole admission */
    step(&admission, ADMISSION_PROBE_GOOD, due + 1200);
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
    assert_int_equal(step(&admission, ADMISSION_TICK, due + 11100), ADMISSION_SEND_PROBE);
    assert_int_equal(admission.next_purpose, VERIFY_ADMISSION);
}

static void prove(struct admission *admission, enum verify_purpose purpose, int64_t now_ms)
{
    const struct admission_news news = {
        .event = ADMISSION_PROBE_GOOD, .now_ms = now_ms, .random = 1, .gateway = 1, .score = 1, .purpose = purpose};
    (void)admission_step(admission, &news, &policy);
}

/* Its memory was in use: it stays ready, and the whole is due until it comes. */
static void less_than_due_leaves_the_whole_due(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    int64_t now = T + DAY_MS;
    for (int i = 0; i < 3; i++) {
        now = admission.next_probe_at_ms > now ? admission.next_probe_at_ms : now;
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        assert_int_equal(admission.next_purpose, VERIFY_ADMISSION);
        prove(&admission, i % 2 ? VERIFY_SPOT : VERIFY_LEASE, now);
        assert_true(admission_is_ready(&admission));
        assert_int_equal(admission.admitted_at_ms, T);
    }
    now = admission.next_probe_at_ms;
    assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
    prove(&admission, VERIFY_ADMISSION, now);
    assert_int_equal(admission.admitted_at_ms, now);
}

static void whole_again_after_a_day(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    int64_t now = T;
    while (now < T + DAY_MS) {
        now = admission.next_probe_at_ms;
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        assert_int_equal(admission.next_purpose, now < T + DAY_MS ? VERIFY_SPOT : VERIFY_ADMISSION);
        prove(&admission, admission.next_purpose, now);
        assert_int_equal(admission.admitted_at_ms, now < T + DAY_MS ? T : now);
        now = admission.next_probe_at_ms < T + DAY_MS ? now : T + DAY_MS;
    }
}

static void wanted_and_changed(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    assert_int_equal(step(&admission, ADMISSION_WANTED, T + 1), ADMISSION_SEND_PROBE);
    assert_int_equal(step(&admission, ADMISSION_WANTED, T + 2), ADMISSION_NOTHING); /* it is being looked at */
    assert_int_equal(step(&admission, ADMISSION_WANTED, T + 1 + 30000), ADMISSION_SEND_PROBE);
    /* another key: no longer proven, and the probe that showed it is over */
    step(&admission, ADMISSION_CHANGED, T + 30500);
    assert_int_equal(admission.state, ADMISSION_ENROLLED);
    step(&admission, ADMISSION_PROBE_GOOD, T + 30501);
    assert_int_equal(admission.state, ADMISSION_ENROLLED);
    assert_int_equal(step(&admission, ADMISSION_WANTED, T + 30501), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_TICK, T + 30501), ADMISSION_SEND_PROBE);
    assert_int_equal(admission.next_purpose, VERIFY_ADMISSION);
    step(&admission, ADMISSION_PROBE_GOOD, T + 30600);
    assert_true(admission_is_ready(&admission));
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
        step(&admission, i % 2 ? ADMISSION_PROBE_SLOW : ADMISSION_PROBE_LATE, now);
        assert_string_equal(admission.reason, i % 2 ? "slower than its class" : "answer too late");
        assert_int_equal(admission.state, ADMISSION_SUSPENDED);
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
    assert_int_equal(admission.slow_in_row, 0);
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
    assert_int_equal(step(&admission, ADMISSION_LINKED, T + 1005 + 29999), ADMISSION_NOTHING);
    assert_int_equal(step(&admission, ADMISSION_LINKED, T + 1005 + 30000), ADMISSION_SEND_PROBE);
}

/* A device stays for half a minute with a gateway that died, and answers no other: tries go on for longer than that. */
static void tries_after_losses_come_slower(void **state)
{
    (void)state;
    static const int64_t waits[] = {1000, 1000, 2000, 4000, 8000, 16000, 16000};
    struct admission admission = {0};
    int64_t now = T;
    assert_int_equal(step(&admission, ADMISSION_LINKED, now), ADMISSION_SEND_PROBE);
    for (unsigned lost = 0; lost < sizeof(waits) / sizeof(waits[0]); lost++) {
        const struct admission_news news = {.event = ADMISSION_PROBE_LOST, .now_ms = now, .gateway = 1, .lost = lost};
        assert_int_equal(admission_step(&admission, &news, &policy), ADMISSION_NOTHING);
        assert_int_equal(step(&admission, ADMISSION_TICK, now + waits[lost] - 1), ADMISSION_NOTHING);
        now += waits[lost];
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
    }
}

static void long_probe_keeps_its_claim(void **state)
{
    (void)state;
    struct admission admission = {0};
    step(&admission, ADMISSION_LINKED, T);
    int64_t now = T;
    for (; now <= T + 290000; now += 10000) {
        uint64_t token = admission.token;
        step(&admission, ADMISSION_PROBE_GOING_ON, now);
        assert_int_equal(admission.token, token + 1);
        assert_int_equal(step(&admission, ADMISSION_TICK, now + 29999), ADMISSION_NOTHING);
    }
    /* but not for ever */
    uint64_t token = admission.token;
    step(&admission, ADMISSION_PROBE_GOING_ON, T + 300001);
    assert_int_equal(admission.token, token);
    step(&admission, ADMISSION_PROBE_GOOD, T + 305000);
    assert_int_equal(admission.last_probe_took_ms, 305000);
    token = admission.token;
    step(&admission, ADMISSION_PROBE_GOING_ON, T + 305001); /* none is under way */
    assert_int_equal(admission.token, token);
}

static void slow_is_evidence(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    for (int i = 1; i <= 3; i++) {
        int64_t now = admission.next_probe_at_ms;
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        tell(&admission, ADMISSION_PROBE_SLOW, now + 100, 1, i == 3 ? "pass: 900 GB/s of 2700" : NULL);
        assert_int_equal(admission_is_ready(&admission), i < 3);
        assert_int_equal(admission.slow_in_row, i);
        if (i < 3)
            assert_in_range(admission.next_probe_at_ms, now + 100 + 30000, now + 100 + 600000);
    }
    assert_string_equal(admission.reason, "pass: 900 GB/s of 2700");
    assert_int_equal(admission.bans, 0);
    assert_int_equal(admission.retests, 0);
    /* a good one between two slow ones */
    admission = ready_at(T);
    for (int i = 0; i < 10; i++) {
        int64_t now = admission.next_probe_at_ms;
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        step(&admission, i % 3 == 2 ? ADMISSION_PROBE_GOOD : ADMISSION_PROBE_SLOW, now);
        assert_true(admission_is_ready(&admission));
    }
}

static void wrong_is_tested_again(void **state)
{
    (void)state;
    struct admission admission = ready_at(T);
    int64_t now = admission.next_probe_at_ms;
    assert_int_equal(tell(&admission, ADMISSION_TICK, now, 7, NULL), ADMISSION_SEND_PROBE);
    tell(&admission, ADMISSION_PROBE_WRONG, now, 7, "chain: row 17 is wrong");
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
    assert_string_equal(admission.reason, "chain: row 17 is wrong");
    /* the gateway that saw it leaves the re-test to another for two seconds */
    struct admission alone = admission;
    assert_int_equal(tell(&alone, ADMISSION_TICK, now + 2999, 7, NULL), ADMISSION_NOTHING);
    assert_int_equal(tell(&alone, ADMISSION_TICK, now + 3000, 7, NULL), ADMISSION_SEND_PROBE);
    assert_int_equal(tell(&admission, ADMISSION_TICK, now + 999, 8, NULL), ADMISSION_NOTHING);
    assert_int_equal(tell(&admission, ADMISSION_TICK, now + 1000, 8, NULL), ADMISSION_SEND_PROBE);
    assert_int_equal(admission.next_purpose, VERIFY_ADMISSION);
    tell(&admission, ADMISSION_PROBE_GOOD, now + 1500, 8, NULL);
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
    assert_string_equal(admission.reason, "chain: row 17 is wrong");
    assert_int_equal(tell(&admission, ADMISSION_TICK, now + 2500, 8, NULL), ADMISSION_NOTHING);
    assert_int_equal(tell(&admission, ADMISSION_TICK, now + 2500, 7, NULL), ADMISSION_SEND_PROBE);
    tell(&admission, ADMISSION_PROBE_LOST, now + 2600, 7, NULL); /* says nothing */
    assert_int_equal(admission.state, ADMISSION_SUSPENDED);
    assert_int_equal(tell(&admission, ADMISSION_TICK, now + 3600, 7, NULL), ADMISSION_SEND_PROBE);
    tell(&admission, ADMISSION_PROBE_GOOD, now + 3700, 7, NULL);
    assert_true(admission_is_ready(&admission));
    assert_string_equal(admission.reason, "");
    assert_int_equal(admission.bans, 0);
    assert_int_equal(admission.banned_until_ms, 0);
}

static void second_failure_bans(void **state)
{
    (void)state;
    struct admission admission = {0};
    int64_t now = INT64_C(1795000000000); /* 2026-11-18 */
    int64_t days = 30;
    static const char *const until[] = {"2026-12-18", "2027-02-16"};
    for (uint32_t bans = 1; bans <= 8; bans++) {
        assert_int_equal(step(&admission, ADMISSION_TICK, now), ADMISSION_SEND_PROBE);
        step(&admission, ADMISSION_PROBE_WRONG, now);
        assert_int_equal(admission.bans, bans - 1);
        if (bans % 2 == 0) { /* in the second re-test */
            step(&admission, ADMISSION_TICK, now + 3000);
            step(&admission, ADMISSION_PROBE_GOOD, now + 3000);
            now += 3000;
        }
        assert_int_equal(step(&admission, ADMISSION_TICK, now + 3000), ADMISSION_SEND_PROBE);
        tell(&admission, ADMISSION_PROBE_WRONG, now + 3000, 1, bans == 1 ? "fill: tile 3 is wrong" : NULL);
        now += 3000;
        assert_int_equal(admission.state, ADMISSION_SUSPENDED);
        assert_int_equal(admission.bans, bans);
        assert_int_equal(admission.banned_until_ms, now + days * DAY_MS);
        if (bans <= 2) {
            char text[96];
            snprintf(text, sizeof(text), "banned until %s: %s", until[bans - 1],
                     bans == 1 ? "fill: tile 3 is wrong" : "wrong answer");
            assert_string_equal(admission.reason, text);
        }
        for (int i = 0; i < ADMISSION_EVENT_COUNT; i++) /* nothing opens it before its time */
            assert_int_equal(step(&admission, (enum admission_event)i, admission.banned_until_ms - 1),
                             ADMISSION_NOTHING);
        assert_int_equal(admission.state, ADMISSION_SUSPENDED);
        now = admission.banned_until_ms;
        days = days < 30 * 64 ? 2 * days : days;
    }
    step(&admission, ADMISSION_TICK, now);
    step(&admission, ADMISSION_PROBE_GOOD, now);
    assert_true(admission_is_ready(&admission));
    assert_int_equal(admission.bans, 8);
}

static uint64_t random_state = 42;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void intervals_are_poisson(void **state)
{
    (void)state;
    static const struct {
        double score, mean_ms;
    } cases[] = {{0, 60000}, {0.45, 60000}, {0.675, 180000}, {0.9, 300000}, {1, 300000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double sum = 0;
        int clamped = 0, late = 0, count = 20000;
        for (int k = 0; k < count; k++) {
            int64_t got = admission_interval_ms(&policy, cases[i].score, next_random());
            assert_in_range(got, 30000, 600000);
            sum += (double)got;
            clamped += got == 30000;
            late += (double)got > 0.6931 * cases[i].mean_ms;
        }
        /* half of an exponential's values lie past 0.69 of its mean; the clamps move nothing across that */
        assert_in_range(late, count * 48 / 100, count * 52 / 100);
        assert_true(sum / count > 0.80 * cases[i].mean_ms && sum / count < 1.15 * cases[i].mean_ms);
        assert_true(clamped > 0 && clamped < count * 45 / 100);
    }
    /* a score that is no number is a low one */
    assert_int_equal(admission_interval_ms(&policy, NAN, 4711), admission_interval_ms(&policy, 0, 4711));
    assert_int_equal(admission_interval_ms(&policy, -INFINITY, 4711), admission_interval_ms(&policy, 0, 4711));
    const struct admission_policy fixed = {5000, 5000};
    assert_int_equal(admission_interval_ms(&fixed, 1, UINT64_MAX), 2500);
    assert_int_equal(admission_interval_ms(&fixed, 1, 0), 10000);
    const struct admission_policy none = {0, 0};
    assert_int_equal(admission_interval_ms(&none, 0.5, 12345), 0);
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
            struct admission_news news = {.event = (enum admission_event)(next_random() % ADMISSION_EVENT_COUNT),
                                          .random = next_random(),
                                          .gateway = 1 + (uint32_t)(next_random() % 3),
                                          .score = (double)(next_random() % 100) / 100};
            struct admission before = admission;
            now += (int64_t)(next_random() % 20000);
            news.now_ms = now;
            enum admission_action action = admission_step(&admission, &news, &policy);
            bool same = memcmp(&before, &admission, sizeof(before)) == 0;
            if (news.event == ADMISSION_CHANGED && before.state != ADMISSION_SUSPENDED)
                proven = under_way = false;
            if ((news.event == ADMISSION_PROBE_WRONG || news.event == ADMISSION_PROBE_LATE) && under_way)
                proven = false;
            else if (news.event == ADMISSION_PROBE_GOOD && under_way)
                proven = true;
            if (action == ADMISSION_SEND_PROBE)
                under_way = true;
            else if (news.event != ADMISSION_TICK && news.event != ADMISSION_LINKED && news.event != ADMISSION_WANTED &&
                     news.event != ADMISSION_PROBE_GOING_ON)
                under_way = false;
            assert_true(under_way == (admission.claimed_at_ms != 0));
            assert_true(!admission_is_ready(&admission) || proven);
            assert_true(same ? admission.token == before.token : admission.token == before.token + 1);
            assert_true(action == ADMISSION_NOTHING || news.event == ADMISSION_TICK || news.event == ADMISSION_LINKED ||
                        news.event == ADMISSION_WANTED);
            if (action == ADMISSION_SEND_PROBE)
                assert_true(admission.next_probe_at_ms > now && now >= admission.banned_until_ms);
            assert_true((admission.state == ADMISSION_SUSPENDED) <= (admission.reason[0] != 0));
            assert_true(admission.state != ADMISSION_READY || (!admission.reason[0] && !admission.retests));
            assert_true(admission.slow_in_row < 3 || !admission_is_ready(&admission));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(passes),
        cmocka_unit_test(probed_again),
        cmocka_unit_test(whole_again_after_a_day),
        cmocka_unit_test(less_than_due_leaves_the_whole_due),
        cmocka_unit_test(wanted_and_changed),
        cmocka_unit_test(pauses_double),
        cmocka_unit_test(lost_probe_of_a_newcomer),
        cmocka_unit_test(tries_after_losses_come_slower),
        cmocka_unit_test(long_probe_keeps_its_claim),
        cmocka_unit_test(slow_is_evidence),
        cmocka_unit_test(wrong_is_tested_again),
        cmocka_unit_test(second_failure_bans),
        cmocka_unit_test(intervals_are_poisson),
        cmocka_unit_test(properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
