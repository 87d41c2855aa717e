#include "gateway/cli/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void test_text_is_made_harmless(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", ""},
        {"plain ~", "plain ~"},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\x8a", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x8c\x8a"},
        {"a\x1b[31mb\x07\r\n\t\x7f", "a?[31mb?????"},
        {"\xc2\x9b"
         "31m",
         "?31m"},                                        /* a control of two bytes */
        {"\xe2\x80\xae\xe2\x81\xa6\xef\xbb\xbf", "???"}, /* turns the direction; nothing to see */
        {"\xc0\x80\xe0\x80\x80", "?????"},               /* longer than need be */
        {"\xed\xa0\x80", "???"},                         /* half a pair */
        {"\xf4\x90\x80\x80\xff", "?????"},               /* beyond the last */
        {"\xe2\x82", "??"},                              /* cut off */
        {"\xe2\x82z", "??z"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf safe;
        buf_init(&safe, 0);
        assert_true(text_safe(str_of(cases[i].text), &safe));
        assert_true(str_eq(buf_str(&safe), str_of(cases[i].want)) || (safe.len == 0 && !*cases[i].want));
        buf_free(&safe);
    }
}

static void expect_print(struct table *table, const char *want)
{
    char *got = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&got, &len);
    assert_true(table_print(table, to));
    fclose(to);
    assert_string_equal(got, want);
    free(got);
    table_free(table);
}

static void test_columns_line_up(void **state)
{
    (void)state;
    static const char *const heads[] = {"ID", ">N", "TEXT"};
    struct table *table = table_new(3, heads, 0);
    table_text(table, STR("wrk_\xc3\xa9"));
    table_printf(table, "%d", 7);
    table_text(table, STR(""));
    table_text(table, STR("w"));
    table_printf(table, "%d", 12345);
    table_text(table, STR("last\none"));
    table_text(table, STR("half a row"));
    expect_print(table, "ID              N  TEXT\n"
                        "wrk_\xc3\xa9           7  -\n"
                        "w           12345  last?one\n");
    static const char *const narrow[] = {"A", "B"};
    table = table_new(2, narrow, 6);
    table_text(table, STR("123456"));
    table_text(table, STR("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"));
    expect_print(table, "A       B\n123456  \xc3\xa9\xc3\xa9\xc3\xa9...\n");
    expect_print(table_new(1, NULL, 0), "");
    table = table_new(1, NULL, 0);
    char many[201] = "";
    for (size_t i = 0; i < 100; i++) {
        table_text(table, STR("x"));
        memcpy(many + 2 * i, "x\n", 3);
    }
    expect_print(table, many);
    assert_false(table_print(NULL, stderr));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_is_made_harmless),
        cmocka_unit_test(test_columns_line_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
