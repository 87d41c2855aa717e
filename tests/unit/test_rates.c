#include "tests/unit/cmocka_all.h"

#include "pricing/rates.h"

#include <stdio.h>
#include <string.h>

#define NOW_MS INT64_C(1790000000000)
#define HOUR_MS RATES_LIMIT_MS_DEFAULT

static struct rates rates;

static int empty_table(void **state)
{
    (void)state;
    rates_init(&rates, 0);
    return 0;
}

static void expect_rate(const char *currency, int64_t now_ms, uint64_t digits, uint32_t scale, const char *source)
{
    struct rate rate;
    assert_int_equal(rates_find(&rates, str_of(currency), now_ms, &rate), ERR_NONE);
    assert_true(rate.digits == digits);
    assert_int_equal(rate.scale, scale);
    assert_string_equal(rate.source, source);
}

static void fixed_rows(void **state)
{
    (void)state;
    expect_rate("USD", NOW_MS, 1, 0, "fixed");
    expect_rate("usd", 0, 1, 0, "fixed");
    expect_rate("USDC", INT64_MAX, 1, 0, "fixed");
    expect_rate("ACT", NOW_MS, 1, 0, "fixed");
    expect_rate("uact", NOW_MS, 1, 6, "fixed");
    expect_rate("cents", NOW_MS, 1, 2, "fixed");
    static const char *const names[] = {"USD", "usdc", "uact", "ACT", "Cents", "uakt"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(rates_set(&rates, str_of(names[i]), STR("1"), STR("x"), NOW_MS), ERR_DENIED);
    assert_int_equal(rates.count, 0);
    struct rate rate = {.scale = 77};
    assert_int_equal(rates_find(&rates, STR("uakt"), NOW_MS, &rate), ERR_NOT_FOUND);
    assert_int_equal(rates_find(&rates, STR("EUR"), NOW_MS, &rate), ERR_NOT_FOUND);
    assert_int_equal(rates_find(&rates, STR(""), NOW_MS, &rate), ERR_NOT_FOUND);
    assert_int_equal(rates_find(&rates, (struct str){NULL, 0}, NOW_MS, &rate), ERR_NOT_FOUND);
    assert_int_equal(rate.scale, 77);
}

static void rates_are_set(void **state)
{
    (void)state;
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.7310"), STR("akash"), NOW_MS), ERR_NONE);
    expect_rate("akt", NOW_MS, 731, 3, "akash");
    expect_rate("uakt", NOW_MS, 731, 9, "akash");
    assert_int_equal(rates_set(&rates, STR("EUR"), STR("1.1"), STR("configuration"), 0), ERR_NONE);
    expect_rate("EUR", INT64_MAX, 11, 1, "configuration");
    assert_int_equal(rates_set(&rates, STR("YEN"), STR("999999999999999999"), STR(""), NOW_MS), ERR_NONE);
    assert_int_equal(rates.count, 3);
    char source[100];
    memset(source, 's', sizeof(source));
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("2"), (struct str){source, sizeof(source)}, NOW_MS), ERR_NONE);
    struct rate rate;
    assert_int_equal(rates_find(&rates, STR("AKT"), NOW_MS, &rate), ERR_NONE);
    assert_int_equal(strlen(rate.source), RATE_SOURCE_MAX - 1);
    assert_string_equal(rate.currency, "AKT");
    assert_int_equal(rates.count, 3);
}

static void what_is_no_rate(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "0",
                                      "0.000",
                                      "-1",
                                      "1e2",
                                      "abc",
                                      ".1",
                                      "1.",
                                      "1 ",
                                      "nan",
                                      "1,1",
                                      "1000000000000000001",
                                      "1.000000000000000001"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(rates_set(&rates, STR("AKT"), str_of(bad[i]), STR("x"), NOW_MS), ERR_BAD_INPUT);
    static const char *const names[] = {"", "A B", "A\n", "SIXTEENLETTERSXX", "\xc3\xa9"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(rates_set(&rates, str_of(names[i]), STR("1"), STR("x"), NOW_MS), ERR_BAD_INPUT);
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("1"), STR("x"), -1), ERR_BAD_INPUT);
    assert_int_equal(rates.count, 0);
}

static void rates_grow_old(void **state)
{
    (void)state;
    struct rate rate;
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.5"), STR("akash"), NOW_MS), ERR_NONE);
    expect_rate("AKT", NOW_MS + HOUR_MS, 5, 1, "akash");
    expect_rate("AKT", NOW_MS - HOUR_MS, 5, 1, "akash");
    assert_int_equal(rates_find(&rates, STR("uakt"), NOW_MS + HOUR_MS + 1, &rate), ERR_DEADLINE);
    assert_string_equal(rate.currency, "AKT"); /* to say which */
    assert_int_equal(rate.at_ms, NOW_MS);
    assert_int_equal(rates_find(&rates, STR("AKT"), NOW_MS - HOUR_MS - 1, &rate), ERR_DEADLINE);
    assert_int_equal(rates_find(&rates, STR("AKT"), INT64_MIN, &rate), ERR_DEADLINE);
    assert_int_equal(rates_find(&rates, STR("AKT"), INT64_MAX, &rate), ERR_DEADLINE);
    rates.limit_ms = 2 * HOUR_MS;
    expect_rate("AKT", NOW_MS + HOUR_MS + 1, 5, 1, "akash");
    rates_init(&rates, 60000);
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.5"), STR("akash"), NOW_MS), ERR_NONE);
    assert_int_equal(rates_find(&rates, STR("AKT"), NOW_MS + 60001, &rate), ERR_DEADLINE);
}

static void the_newest_and_the_operator_win(void **state)
{
    (void)state;
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.5"), STR("a"), NOW_MS), ERR_NONE);
    assert_int_equal(rates_set(&rates, STR("akt"), STR("0.6"), STR("b"), NOW_MS - 1), ERR_EXISTS);
    expect_rate("AKT", NOW_MS, 5, 1, "a");
    assert_int_equal(rates_set(&rates, STR("akt"), STR("0.6"), STR("b"), NOW_MS + 1), ERR_NONE);
    expect_rate("AKT", NOW_MS, 6, 1, "b");
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.7"), STR("operator"), 0), ERR_NONE);
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.8"), STR("c"), NOW_MS + 2), ERR_EXISTS);
    expect_rate("AKT", INT64_MAX, 7, 1, "operator");
    assert_int_equal(rates_set(&rates, STR("AKT"), STR("0.9"), STR("operator"), 0), ERR_NONE);
    expect_rate("AKT", 0, 9, 1, "operator");
    assert_int_equal(rates.count, 1);
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    char name[RATE_CURRENCY_MAX];
    for (int i = 0; i < RATES_MAX; i++) {
        snprintf(name, sizeof(name), "C%d", i);
        assert_int_equal(rates_set(&rates, str_of(name), STR("1"), STR("x"), NOW_MS), ERR_NONE);
    }
    assert_int_equal(rates_set(&rates, STR("MORE"), STR("1"), STR("x"), NOW_MS), ERR_TOO_LARGE);
    assert_int_equal(rates_set(&rates, STR("C31"), STR("3"), STR("x"), NOW_MS), ERR_NONE);
    expect_rate("C31", NOW_MS, 3, 0, "x");
    expect_rate("C0", NOW_MS, 1, 0, "x");
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup(function, empty_table)
    const struct CMUnitTest tests[] = {
        TEST(fixed_rows),
        TEST(rates_are_set),
        TEST(what_is_no_rate),
        TEST(rates_grow_old),
        TEST(the_newest_and_the_operator_win),
        TEST(the_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
