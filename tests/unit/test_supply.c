#include "tests/unit/cmocka_all.h"

#include "core/id.h"
#include "scheduler/supply.h"

#include <string.h>

#define LEASE "lse_01jd5v7q2m3n4p5r6s7t8v9wxy"

static void names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPLY_ERROR_COUNT; i++) {
        enum supply_error error = SUPPLY_ERROR_COUNT;
        assert_true(supply_error_of(str_of(supply_error_name((enum supply_error)i)), &error));
        assert_int_equal(error, i);
    }
    enum supply_error kept = SUPPLY_LOST;
    assert_false(supply_error_of(STR("no capacity"), &kept));
    assert_false(supply_error_of(STR(""), &kept));
    assert_int_equal(kept, SUPPLY_LOST);
    assert_string_equal(supply_error_name((enum supply_error)999), "unknown");
    assert_string_equal(instance_state_name(INSTANCE_GONE), "gone");
    assert_string_equal(instance_state_name((enum instance_state)999), "unknown");
    assert_true(supply_error_is_suppliers(SUPPLY_LOST) && supply_error_is_suppliers(SUPPLY_PROBE_FAILED) &&
                supply_error_is_suppliers(SUPPLY_BOOT_TIMEOUT) && supply_error_is_suppliers(SUPPLY_FAILED));
    assert_false(supply_error_is_suppliers(SUPPLY_NO_CAPACITY) || supply_error_is_suppliers(SUPPLY_OK) ||
                 supply_error_is_suppliers(SUPPLY_BAD_REQUEST));
}

static void tags(void **state)
{
    (void)state;
    char tag[SUPPLY_TAG_MAX], lease[ID_TEXT_MAX];
    uint32_t attempt = 0;
    assert_true(supply_tag_make(STR("0a1b2c"), STR(LEASE), 12, tag));
    assert_string_equal(tag, "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-12");
    assert_true(supply_tag_parse(STR("0a1b2c"), str_of(tag), lease, &attempt));
    assert_string_equal(lease, LEASE);
    assert_int_equal(attempt, 12);
    assert_true(supply_tag_make(STR("0a1b2c"), STR(LEASE), UINT32_MAX, tag));
    assert_true(strlen(tag) < SUPPLY_TAG_MAX);
    assert_true(supply_tag_parse(STR("0a1b2c"), str_of(tag), lease, &attempt));
    assert_int_equal(attempt, UINT32_MAX);
    assert_false(supply_tag_make(STR("0A1b2c"), STR(LEASE), 1, tag));
    assert_false(supply_tag_make(STR("0a1b2"), STR(LEASE), 1, tag));
    assert_false(supply_tag_make(STR("0a1b2c"), STR("lse_short"), 1, tag));
    assert_false(supply_tag_make(STR("0a1b2c"), STR(LEASE), 0, tag));
}

static void tags_of_others(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "sluice",
        "sluice-0a1b2c",
        "sluice-0a1b2d-01jd5v7q2m3n4p5r6s7t8v9wxy-1",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-0",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-01",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy--1",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-1-2",
        "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-4294967296",
        "sluice-0a1b2c-01JD5V7Q2M3N4P5R6S7T8V9WXY-1",
        "sluice-0a1b2c-81jd5v7q2m3n4p5r6s7t8v9wxy-1",
        "sluices-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-1",
    };
    char lease[ID_TEXT_MAX] = "kept";
    uint32_t attempt = 7;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (supply_tag_parse(STR("0a1b2c"), str_of(bad[i]), lease, &attempt))
            fail_msg("taken for ours: %s", bad[i]);
    }
    assert_false(supply_tag_parse(STR("0a1b2c"), (struct str){NULL, 0}, lease, &attempt));
    assert_string_equal(lease, "kept");
    assert_int_equal(attempt, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(tags),
        cmocka_unit_test(tags_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
