#include "tests/unit/cmocka_all.h"

#include "core/clock.h"

static void dates(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *day, *month;
        int64_t day_start, month_start;
    } cases[] = {
        {0, "1970-01-01", "1970-01", 0, 0},
        {86399999, "1970-01-01", "1970-01", 0, 0},
        {86400000, "1970-01-02", "1970-01", 86400000, 0},
        {INT64_C(1709210096789), "2024-02-29", "2024-02", INT64_C(1709164800000), INT64_C(1706745600000)},
        {INT64_C(1795219199999), "2026-11-20", "2026-11", INT64_C(1795132800000), INT64_C(1793491200000)},
        {INT64_C(1798761600000), "2027-01-01", "2027-01", INT64_C(1798761600000), INT64_C(1798761600000)},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char day[11], month[8];
        clock_day(cases[i].ms, day);
        clock_month(cases[i].ms, month);
        assert_string_equal(day, cases[i].day);
        assert_string_equal(month, cases[i].month);
        assert_int_equal(clock_day_start(cases[i].ms), cases[i].day_start);
        assert_int_equal(clock_month_start(cases[i].ms), cases[i].month_start);
    }
}

static void wild_times(void **state)
{
    (void)state;
    char day[11];
    clock_day(INT64_MAX, day);
    assert_string_equal(day, "9999-12-31");
    clock_day(INT64_MIN, day);
    assert_string_equal(day, "1970-01-01");
}

static void runs_on(void **state)
{
    (void)state;
    int64_t before = clock_mono_ns();
    assert_true(clock_mono_ns() >= before);
    assert_true(clock_wall_ms() > INT64_C(1700000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dates), cmocka_unit_test(wild_times),
                                       cmocka_unit_test(runs_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
