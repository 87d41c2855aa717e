#include "tests/unit/cmocka_all.h"

#include "core/json_walk.h"

#include <string.h>

static void walks(void **state)
{
    (void)state;
    struct json_value root = json_value_of(STR(
        " {\"a\" : [1, \"x\\\\\" , \"]\\\"\" ,{\"b\":[]} , null,-2.5e1 ],\"c\":{} , \"d\":\"\\\\\\\"\",\"e\":true} "));
    assert_int_equal(root.type, JS_OBJECT);
    struct json_value list = json_member_of(root, "a"), item;
    static const char *const items[] = {"1", "\"x\\\\\"", "\"]\\\"\"", "{\"b\":[]}", "null", "-2.5e1"};
    struct json_walk walk = json_walk_of(list);
    for (size_t i = 0; i < sizeof(items) / sizeof(*items); i++) {
        assert_true(json_next_item(&walk, &item));
        assert_true(str_eq(item.text, str_of(items[i])));
    }
    assert_false(json_next_item(&walk, &item));
    assert_false(json_next_item(&walk, &item));
    assert_true(str_eq(json_member_of(root, "c").text, STR("{}")));
    assert_true(str_eq(json_member_of(root, "d").text, STR("\"\\\\\\\"\"")));
    assert_int_equal(json_member_of(root, "e").type, JS_TRUE);
    assert_int_equal(json_member_of(root, "f").type, JS_NONE);
    assert_int_equal(json_member_of(list, "a").type, JS_NONE);
    walk = json_walk_of(json_member_of(root, "e"));
    assert_false(json_next_item(&walk, &item));
    assert_true(json_is_nothing(json_member_of(root, "f")));
    assert_false(json_is_nothing(root));
}

/* On broken text it may answer anything, but stays inside: the heap copy lets a sanitizer see. */
static void stays_inside(void **state)
{
    (void)state;
    const char text[] = "{\"a\":[1,{\"b\":\"x\\\\\\\"y\"}],\"c\":-1.5,\"d\":{\"e\":[true,null]}}";
    for (size_t len = 0; len < sizeof(text); len++) {
        char *copy = malloc(len + 1);
        assert_non_null(copy);
        memcpy(copy, text, len);
        struct json_value value, root = json_value_of((struct str){copy, len});
        struct json_walk walk = json_walk_of(root);
        struct str key;
        size_t members = 0;
        while (json_next_member(&walk, &key, &value)) {
            assert_true(value.text.ptr >= copy && value.text.ptr + value.text.len <= copy + len);
            members++;
        }
        assert_true(members <= 3);
        free(copy);
    }
}

static void counts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t count;
        bool ok;
    } cases[] = {
        {"0", 0, true},
        {"-0", 0, true},
        {"17", 17, true},
        {"17.0", 17, true},
        {"1.7e1", 17, true},
        {"-1", 0, false},
        {"1.5", 0, false},
        {"1e300", 0, false},
        {"\"1\"", 0, false},
        {"null", 0, false},
        {"9223372036854775807", INT64_MAX, true},
        {"9223372036854775808", 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int64_t count = 42;
        assert_int_equal(json_to_count(json_value_of(str_of(cases[i].text)), &count), cases[i].ok);
        assert_int_equal(count, cases[i].ok ? cases[i].count : 42);
    }
}

static void texts(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"\"\"", ""},
        {"\"plain\"", "plain"},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz"},
        {"\"\\u0041\\u00e9\\u6f22\\ud83d\\ude00\"", "A\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x98\x80"},
        {"\"\\ud83d\"", "\xef\xbf\xbd"},
        {"\"\\ude00\\ud83dx\"", "\xef\xbf\xbd\xef\xbf\xbdx"},
        {"\"\\ud83d\\u0041\"", "\xef\xbf\xbd"
                               "A"},
    };
    char text[32];
    size_t len;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct json_value value = json_value_of(str_of(cases[i].json));
        assert_true(json_to_text(value, text, sizeof(text), &len));
        assert_string_equal(text, cases[i].text);
        assert_int_equal(len, strlen(cases[i].text));
        assert_true(json_to_text(value, text, len + 1, &len));
        if (len > 0)
            assert_false(json_to_text(value, text, len, &len));
    }
    assert_false(json_to_text(json_value_of(STR("12")), text, sizeof(text), &len));
    assert_true(json_to_text(json_value_of(STR("\"a\\u0000b\"")), text, sizeof(text), &len));
    assert_int_equal(len, 3);
}

static void quotes(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 64);
    assert_true(json_quote(&buf, STR("a\"\\\n\xc3\xa9\xff\xe6\xbcz\x7f")));
    assert_true(str_eq(buf_str(&buf), STR("\"a\\\"\\\\\\u000a\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\x7f\"")));
    size_t before = buf.len;
    assert_false(json_quote(&buf, STR("0123456789012345678901234567890123456789")));
    assert_int_equal(buf.len, before);
    buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks), cmocka_unit_test(stays_inside), cmocka_unit_test(counts),
        cmocka_unit_test(texts), cmocka_unit_test(quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
