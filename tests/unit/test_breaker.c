#include "tests/unit/cmocka_all.h"

#include "gateway/breaker.h"

#include <string.h>

static void opens_after_failures_and_heals(void **state)
{
    (void)state;
    struct breaker b = {.state = BREAKER_CLOSED};
    assert_false(breaker_note(&b, SUPPLY_TRANSIENT, 0, 1000));
    assert_false(breaker_note(&b, SUPPLY_RATE_LIMITED, 0, 1000));
    assert_false(breaker_note(&b, SUPPLY_NO_CAPACITY, 0, 1000)); /* it answers */
    assert_int_equal(b.failures, 0);
    for (int i = 0; i < BREAKER_FAILURES - 1; i++)
        assert_false(breaker_note(&b, SUPPLY_TRANSIENT, 0, 1000));
    assert_true(breaker_try(&b, 1000));
    assert_false(breaker_note(&b, SUPPLY_UNKNOWN, 0, 1000)); /* of one offer */
    assert_true(breaker_note(&b, SUPPLY_TRANSIENT, 0, 1000));
    assert_int_equal(b.state, BREAKER_OPEN);
    assert_int_equal(b.until_ms, 1000 + BREAKER_LEAST_MS);
    assert_false(breaker_try(&b, b.until_ms - 1));
    assert_false(breaker_note(&b, SUPPLY_TRANSIENT, 0, 2000)); /* asked before it opened */
    assert_true(breaker_try(&b, b.until_ms));
    assert_int_equal(b.state, BREAKER_HALF_OPEN);
    assert_false(breaker_try(&b, b.until_ms)); /* one goes through */
    assert_true(breaker_note(&b, SUPPLY_OK, 0, 9000));
    assert_int_equal(b.state, BREAKER_CLOSED);
}

static void backs_off(void **state)
{
    (void)state;
    struct breaker b = {.state = BREAKER_CLOSED, .failures = BREAKER_FAILURES - 1};
    int64_t now_ms = 0, pause_ms = BREAKER_LEAST_MS;
    for (int i = 0; i < 12; i++) {
        assert_true(breaker_note(&b, i % 2 ? SUPPLY_UNKNOWN : SUPPLY_TRANSIENT, 0, now_ms));
        assert_int_equal(b.until_ms, now_ms + pause_ms);
        pause_ms = pause_ms * 2 < BREAKER_MOST_MS ? pause_ms * 2 : BREAKER_MOST_MS;
        now_ms = b.until_ms;
        assert_true(breaker_try(&b, now_ms));
    }
    assert_true(breaker_note(&b, SUPPLY_BAD_REQUEST, 0, now_ms)); /* any answer heals */
    b.failures = BREAKER_FAILURES;
    assert_true(breaker_note(&b, SUPPLY_RATE_LIMITED, 20000, now_ms)); /* its own word counts */
    assert_int_equal(b.until_ms, now_ms + 20000);
    b = (struct breaker){.failures = BREAKER_FAILURES};
    assert_true(breaker_note(&b, SUPPLY_RATE_LIMITED, INT64_MAX, now_ms)); /* but not for ever */
    assert_int_equal(b.until_ms, now_ms + BREAKER_MOST_MS);
}

static void a_refused_credential_opens_at_once(void **state)
{
    (void)state;
    struct breaker b = {.state = BREAKER_CLOSED};
    assert_true(breaker_note(&b, SUPPLY_BAD_CREDENTIAL, 0, 500));
    assert_int_equal(b.until_ms, 500 + BREAKER_CREDENTIAL_MS);
    assert_true(breaker_try(&b, b.until_ms));
    int64_t now_ms = b.until_ms;
    assert_true(breaker_note(&b, SUPPLY_BAD_CREDENTIAL, 0, now_ms)); /* always a minute */
    assert_int_equal(b.until_ms, now_ms + BREAKER_CREDENTIAL_MS);
}

static void told_to_others(void **state)
{
    (void)state;
    struct breaker b = {.state = BREAKER_CLOSED}, read;
    char text[BREAKER_TEXT_MAX];
    breaker_text(&b, text);
    assert_true(breaker_parse(str_of(text), &read));
    assert_int_equal(read.state, BREAKER_CLOSED);
    assert_true(breaker_note(&b, SUPPLY_BAD_CREDENTIAL, 0, 1795327045906));
    breaker_text(&b, text);
    assert_true(breaker_parse(str_of(text), &read));
    assert_int_equal(read.state, BREAKER_OPEN);
    assert_int_equal(read.until_ms, b.until_ms);
    assert_int_equal(read.rounds, b.rounds);
    assert_int_equal(read.reason, SUPPLY_BAD_CREDENTIAL);
    static const char *const bad[] = {"",           "open",           "open x 1 transient", "open 1 -1 transient",
                                      "closed now", "open 1 1 dance", "open 1 1",           "half_open"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(breaker_parse(str_of(bad[i]), &read));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_after_failures_and_heals),
        cmocka_unit_test(backs_off),
        cmocka_unit_test(a_refused_credential_opens_at_once),
        cmocka_unit_test(told_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
