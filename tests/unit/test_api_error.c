#include "tests/unit/cmocka_all.h"

#include "gateway/api_error.h"
#include <jansson.h>
#include <string.h>

static json_t *decoded(const struct api_error *error)
{
    struct buf text;
    buf_init(&text, 0);
    assert_true(api_error_json(error, &text));
    json_error_t where;
    json_t *json = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, &where);
    buf_free(&text);
    assert_non_null(json);
    json_t *inner = json_object_get(json, "error");
    assert_int_equal(json_object_size(json), 1);
    assert_int_equal(json_object_size(inner), 4);
    json_incref(inner);
    json_decref(json);
    return inner;
}

static void test_four_members(void **state)
{
    (void)state;
    struct api_error error;
    api_error_unauthorized(&error);
    assert_int_equal(error.status, 401);
    json_t *json = decoded(&error);
    assert_string_equal(json_string_value(json_object_get(json, "code")), "invalid_api_key");
    assert_string_equal(json_string_value(json_object_get(json, "type")), "invalid_request_error");
    assert_true(json_is_null(json_object_get(json, "param")));
    assert_true(strlen(json_string_value(json_object_get(json, "message"))) > 0);
    json_decref(json);
    api_error_bad_request(&error, "amount_usd", "%s must be %d", "it", 1);
    json = decoded(&error);
    assert_int_equal(error.status, 400);
    assert_string_equal(json_string_value(json_object_get(json, "param")), "amount_usd");
    assert_true(json_is_null(json_object_get(json, "code")));
    assert_string_equal(json_string_value(json_object_get(json, "message")), "it must be 1");
    json_decref(json);
}

static void test_hostile_bytes_stay_json(void **state)
{
    (void)state;
    static const struct {
        const char *raw, *shown;
    } cases[] = {
        {"plain", "plain"},
        {"\"quoted\\\" \n\t\x01\x7f", "\"quoted\\\" \n\t\x01\x7f"},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xff", "\xef\xbf\xbd"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"cut \xe2\x82", "cut \xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct api_error error;
        api_error_bad_request(&error, cases[i].raw, "%s", cases[i].raw);
        json_t *json = decoded(&error);
        assert_string_equal(json_string_value(json_object_get(json, "message")), cases[i].shown);
        assert_string_equal(json_string_value(json_object_get(json, "param")), cases[i].shown);
        json_decref(json);
    }
}

static void test_long_messages_are_cut(void **state)
{
    (void)state;
    char text[1000];
    memset(text, 'x', sizeof(text));
    struct api_error error;
    api_error_bad_request(&error, NULL, "%.*s", (int)sizeof(text), text);
    json_t *json = decoded(&error);
    assert_int_equal(json_string_length(json_object_get(json, "message")), sizeof(error.message) - 1);
    json_decref(json);
}

static void test_from_error(void **state)
{
    (void)state;
    static const struct {
        enum error error;
        int status;
    } cases[] = {
        {ERR_CLOSED, 503},    {ERR_DEADLINE, 503},  {ERR_BUSY, 503},   {ERR_NOT_FOUND, 404}, {ERR_MISMATCH, 409},
        {ERR_BAD_INPUT, 400}, {ERR_TOO_LARGE, 413}, {ERR_DENIED, 403}, {ERR_PROTOCOL, 500},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct api_error error;
        api_error_from(&error, cases[i].error);
        assert_int_equal(error.status, cases[i].status);
        if (error.status == 503)
            assert_in_range(error.retry_after_ms, 1, 60000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_four_members),
        cmocka_unit_test(test_hostile_bytes_stay_json),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_from_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
