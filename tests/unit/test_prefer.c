#include "tests/unit/cmocka_all.h"

#include "gateway/prefer.h"
#include <math.h>
#include <string.h>

static void test_defaults(void **state)
{
    (void)state;
    struct dispatch_query query = {.affinity = 7};
    struct api_error error;
    struct prefer_headers none = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
    assert_true(prefer_parse(&none, &query, &error));
    struct weights balanced = weights_default();
    assert_memory_equal(&query.weights, &balanced, sizeof(balanced));
    assert_int_equal(query.max_price_usd_nano, -1);
    assert_null(query.region.ptr);
    assert_null(query.require.ptr);
    assert_int_equal(query.affinity, 7); /* not ours to touch */
}

static void test_all_given(void **state)
{
    (void)state;
    struct dispatch_query query = {0};
    struct api_error error;
    struct prefer_headers all = {STR("price=3,latency=1"), STR("1.2"), STR("eu-west"), STR("gdpr, hipaa")};
    assert_true(prefer_parse(&all, &query, &error));
    assert_true(fabs(query.weights.price - 0.75) < 1e-9 && fabs(query.weights.latency - 0.25) < 1e-9);
    assert_int_equal(query.max_price_usd_nano, 1200000000);
    assert_true(str_eq(query.region, STR("eu-west")));
    assert_true(str_eq(query.require, STR("gdpr, hipaa")));
}

static void test_bad_values(void **state)
{
    (void)state;
    static const char *const prefer[] = {"",
                                         "cheap",
                                         "price=",
                                         "price=-1",
                                         "price=0.5,price=0.5",
                                         "speed=1",
                                         "price=nan",
                                         "price=inf",
                                         "price=0,latency=0,reputation=0",
                                         NULL};
    static const char *const max_price[] = {"", "-1", "x", "1e3", "1.0000000001", "12345678901", "+1", "$1", NULL};
    static const char *const region[] = {"", "a\tb", NULL};
    static const char *const require[] = {"", ",", "gdpr,", "gdpr,,hipaa", "a b", "a;b", "a\xff", NULL};
    static const struct {
        const char *name;
        const char *const *values;
    } headers[] = {{PREFER_HEADER_PREFER, prefer},
                   {PREFER_HEADER_MAX_PRICE, max_price},
                   {PREFER_HEADER_REGION, region},
                   {PREFER_HEADER_REQUIRE, require}};
    for (size_t h = 0; h < sizeof(headers) / sizeof(headers[0]); h++) {
        for (const char *const *value = headers[h].values; *value; value++) {
            struct str text = {*value, strlen(*value)}, none = {NULL, 0};
            struct prefer_headers given = {h == 0 ? text : none, h == 1 ? text : none, h == 2 ? text : none,
                                           h == 3 ? text : none};
            struct dispatch_query query = {.max_price_usd_nano = 42};
            struct api_error error = {0};
            if (prefer_parse(&given, &query, &error))
                fail_msg("%s: \"%s\" passed", headers[h].name, *value);
            assert_int_equal(error.status, 400);
            assert_string_equal(error.param, headers[h].name);
            assert_int_equal(query.max_price_usd_nano, 42);
        }
    }
}

static void test_bounds(void **state)
{
    (void)state;
    char text[80];
    memset(text, 'a', sizeof(text));
    assert_true(prefer_is_region((struct str){text, 64}));
    assert_false(prefer_is_region((struct str){text, 65}));
    assert_true(prefer_is_require((struct str){text, 32}));
    assert_false(prefer_is_require((struct str){text, 33}));
    assert_true(prefer_is_require(STR("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16")));
    assert_false(prefer_is_require(STR("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_given),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
