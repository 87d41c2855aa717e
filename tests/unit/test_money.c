#include "tests/unit/cmocka_all.h"

#include "core/money.h"

static void parses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t nano;
        bool ok;
    } cases[] = {
        {"0.10", 100000000, true},
        {"12.5", 12500000000, true},
        {"0.000000001", 1, true},
        {"007", 7000000000, true},
        {"9223372036.854775807", INT64_MAX, true},
        {"9223372036.854775808", 0, false},
        {"9999999999", 0, false},
        {"00000000001", 0, false},
        {"0.0000000001", 0, false},
        {"", 0, false},
        {".", 0, false},
        {"1.", 0, false},
        {".5", 0, false},
        {"-1", 0, false},
        {"+1", 0, false},
        {"1e3", 0, false},
        {" 1", 0, false},
        {"1 ", 0, false},
        {"1,5", 0, false},
        {"1.2.3", 0, false},
        {"NaN", 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int64_t nano = 42;
        if (money_parse(str_of(cases[i].text), &nano) != cases[i].ok)
            fail_msg("%s", cases[i].text);
        assert_int_equal(nano, cases[i].ok ? cases[i].nano : 42);
    }
}

static void prints(void **state)
{
    (void)state;
    static const struct {
        int64_t nano;
        const char *text;
    } cases[] = {
        {0, "0.00"},
        {1, "0.000000001"},
        {-1, "-0.000000001"},
        {1200000000, "1.20"},
        {100 * USD_NANO, "100.00"},
        {INT64_MAX, "9223372036.854775807"},
        {INT64_MIN, "-9223372036.854775808"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[MONEY_TEXT_MAX];
        money_text(cases[i].nano, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void costs(void **state)
{
    (void)state;
    static const struct {
        int64_t price, gpu_ms, cost;
        bool ok;
    } cases[] = {
        {3600000, 1, 1, true},
        {1800000, 1, 0, true}, /* 0.5 -> 0 */
        {1800000, 3, 2, true}, /* 1.5 -> 2 */
        {1800000, 5, 2, true}, /* 2.5 -> 2 */
        {1800001, 1, 1, true},
        {1799999, 1, 0, true},
        {USD_NANO, 3600000, USD_NANO, true},
        {0, INT64_MAX, 0, true},
        {INT64_MAX, 3600000, INT64_MAX, true},
        {INT64_MAX, 3600001, 0, false},
        {INT64_MAX, INT64_MAX, 0, false},
        {-1, 1, 0, false},
        {1, -1, 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int64_t cost = 42;
        assert_int_equal(money_cost(cases[i].price, cases[i].gpu_ms, &cost), cases[i].ok);
        assert_int_equal(cost, cases[i].ok ? cases[i].cost : 42);
    }
}

static void shares(void **state)
{
    (void)state;
    int64_t part = 0;
    assert_true(money_bps(100, 1000, &part));
    assert_int_equal(part, 10);
    assert_true(money_bps(5, 1000, &part)); /* 0.5 */
    assert_int_equal(part, 0);
    assert_true(money_bps(15, 1000, &part)); /* 1.5 */
    assert_int_equal(part, 2);
    assert_true(money_bps(-15, 1000, &part));
    assert_int_equal(part, -2);
    assert_true(money_bps(INT64_MIN, 10000, &part));
    assert_int_equal(part, INT64_MIN);
    assert_false(money_bps(INT64_MAX, 10001, &part));
    assert_true(money_add(1, 2, &part));
    assert_int_equal(part, 3);
    assert_false(money_add(INT64_MAX, 1, &part));
    assert_int_equal(part, 3);
}

static void gpu_time(void **state)
{
    (void)state;
    assert_int_equal(money_gpu_ms(500000, 1, 1), 0);
    assert_int_equal(money_gpu_ms(1500000, 1, 1), 2);
    assert_int_equal(money_gpu_ms(2500000, 1, 1), 2);
    assert_int_equal(money_gpu_ms(64000000, 1, 64), 1);
    assert_int_equal(money_gpu_ms(1000000000, 8, 4), 2000);
    assert_int_equal(money_gpu_ms(-5, 1, 1), 0);
    assert_int_equal(money_gpu_ms(INT64_MAX, INT64_MAX, 1), INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses), cmocka_unit_test(prints),   cmocka_unit_test(costs),
        cmocka_unit_test(shares), cmocka_unit_test(gpu_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
