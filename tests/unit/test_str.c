#include "tests/unit/cmocka_all.h"

#include "core/str.h"

#include <string.h>

static void views(void **state)
{
    (void)state;
    assert_null(str_of(NULL).ptr);
    assert_true(str_eq(str_of("ab"), STR("ab")));
    assert_false(str_eq(STR("ab"), STR("abc")));
    assert_true(str_eq((struct str){NULL, 0}, STR("")));
    assert_true(str_eq_nocase(STR("Content-TYPE"), STR("content-type")));
    assert_false(str_eq_nocase(STR("a@"), STR("a`")));
    assert_true(str_starts(STR("bearer x"), STR("bearer ")));
    assert_false(str_starts(STR("b"), STR("bearer ")));
    assert_true(str_ends(STR("response.text.delta"), STR(".delta")));
    assert_true(str_eq(str_trim(STR(" \t a b \t")), STR("a b")));
    assert_true(str_eq(str_trim(STR(" \t ")), STR("")));
}

static void fields(void **state)
{
    (void)state;
    struct str rest = STR("a,,b");
    assert_true(str_eq(str_next(&rest, ','), STR("a")));
    struct str empty = str_next(&rest, ',');
    assert_non_null(empty.ptr);
    assert_int_equal(empty.len, 0);
    assert_true(str_eq(str_next(&rest, ','), STR("b")));
    assert_null(str_next(&rest, ',').ptr);
    rest = STR("a,");
    assert_true(str_eq(str_next(&rest, ','), STR("a")));
    assert_non_null(str_next(&rest, ',').ptr);
    assert_null(str_next(&rest, ',').ptr);
}

static void integers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
        bool ok;
    } cases[] = {
        {"0", 0, true},    {"-1", -1, true},
        {"007", 7, true},  {"9223372036854775807", INT64_MAX, true},
        {"", 0, false},    {"-9223372036854775808", INT64_MIN, true},
        {"-", 0, false},   {"9223372036854775808", 0, false},
        {"1 ", 0, false},  {"-9223372036854775809", 0, false},
        {"+1", 0, false},  {"99999999999999999999999", 0, false},
        {"1e3", 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int64_t value = 42;
        assert_int_equal(str_to_i64(str_of(cases[i].text), &value), cases[i].ok);
        assert_int_equal(value, cases[i].ok ? cases[i].value : 42);
    }
}

static void doubles(void **state)
{
    (void)state;
    static const char *const good[] = {"0",
                                       "-0",
                                       "1.5",
                                       "-2.25e3",
                                       "1E-7",
                                       "0.1",
                                       "0.30000000000000004",
                                       "123456789012345678901234567890",
                                       "5e-324",
                                       "1.7976931348623157e308",
                                       "9007199254740993",
                                       "-0.023064255",
                                       "1e23",
                                       "0.000001234e22",
                                       "1e-400",
                                       "1234567890123456789.5",
                                       "0.00000000000000000000000000000000000000000001234567890123456789"};
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        double value = 42;
        assert_true(str_to_double(str_of(good[i]), &value));
        double want = strtod(good[i], NULL);
        assert_memory_equal(&value, &want, sizeof(value));
    }
    static const char *const bad[] = {"",      "-",   ".5",  "1.",    "1.e3",
                                      "1e",    "1e+", "inf", "nan",   "0x10",
                                      " 1",    "1 ",  "1,5", "1e400", "-1e999999999999",
                                      "1.2.3", "+1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        double value = 42;
        if (str_to_double(str_of(bad[i]), &value))
            fail_msg("%s was taken", bad[i]);
        assert_true(value == 42);
    }
    /* Random float32 values as they come in embeddings: the fast path equals strtod. */
    uint64_t random = 1;
    for (int i = 0; i < 20000; i++) {
        char text[64];
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        double number = (double)(int64_t)random / 9.3e18, value;
        snprintf(text, sizeof(text), i % 2 ? "%.17g" : "%.9g", number);
        assert_true(str_to_double(str_of(text), &value));
        assert_true(value == strtod(text, NULL));
    }
}

static void copies(void **state)
{
    (void)state;
    char to[4] = "zzz";
    assert_true(str_copy(to, sizeof(to), STR("abc")));
    assert_string_equal(to, "abc");
    assert_false(str_copy(to, sizeof(to), STR("abcd")));
    assert_string_equal(to, "");
}

static void hashes(void **state)
{
    (void)state;
    char text[64];
    memset(text, 'a', sizeof(text));
    for (size_t len = 0; len < sizeof(text); len++) {
        uint64_t whole = str_hash((struct str){text, len}, 1);
        assert_int_not_equal(whole, str_hash((struct str){text, len + 1}, 1));
        assert_int_not_equal(whole, str_hash((struct str){text, len}, 2));
        for (size_t i = 0; i < len; i++) {
            text[i] = 'b';
            assert_int_not_equal(whole, str_hash((struct str){text, len}, 1));
            text[i] = 'a';
        }
    }
}

static void buffers(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, 10);
    assert_true(buf_append(&buf, "12345", 5));
    assert_true(buf_append_str(&buf, STR("67890")));
    assert_false(buf_append(&buf, "x", 1));
    assert_int_equal(buf.len, 10);
    buf_drop_front(&buf, 3);
    assert_true(str_eq(buf_str(&buf), STR("4567890")));
    assert_false(buf_printf(&buf, "%d", 123));
    assert_true(buf_printf(&buf, "%d", 12));
    assert_true(str_eq(buf_str(&buf), STR("456789012")));
    buf_free(&buf);
    assert_int_equal(buf_str(&buf).len, 0);
    assert_true(buf_append(&buf, "a", 1));
    assert_false(buf_reserve(&buf, SIZE_MAX));
    buf_free(&buf);
    buf_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views),  cmocka_unit_test(fields), cmocka_unit_test(integers), cmocka_unit_test(doubles),
        cmocka_unit_test(copies), cmocka_unit_test(hashes), cmocka_unit_test(buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
