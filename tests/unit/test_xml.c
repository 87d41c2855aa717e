#include "adapters/xml.h"
#include "tests/unit/cmocka_all.h"

#include <string.h>

static void expect(const char *xml, const char *json)
{
    json_t *got = xml_to_json(str_of(xml)), *want = json ? json_loads(json, JSON_DECODE_ANY, NULL) : NULL;
    if (!json)
        assert_null(got);
    else if (!got || !json_equal(got, want))
        fail_msg("%s gives %s", xml, got ? json_dumps(got, JSON_ENCODE_ANY) : "nothing");
    json_decref(got);
    json_decref(want);
}

static void test_trees(void **state)
{
    (void)state;
    expect("<a>x</a>", "\"x\"");
    expect("<a/>", "\"\"");
    expect("<a xmlns=\"http://x/\"><b>1</b><c> two </c></a>", "{\"b\":\"1\",\"c\":\"two\"}");
    expect("<a><set><item><i>1</i></item><item><i>2</i></item></set></a>", "{\"set\":[{\"i\":\"1\"},{\"i\":\"2\"}]}");
    expect("<a><set><item>x</item></set><empty/></a>", "{\"set\":[\"x\"],\"empty\":\"\"}");
    expect("<a><b>1</b><b>2</b><b>3</b></a>", "{\"b\":[\"1\",\"2\",\"3\"]}");
    expect("<a><b>&lt;&amp;&#xe9;</b></a>", "{\"b\":\"<&\xc3\xa9\"}");
    expect("<a><b><item>1</item></b><b><item>2</item></b></a>", "{\"b\":[[\"1\"],[\"2\"]]}");
}

static void test_refusals(void **state)
{
    struct buf deep;
    (void)state;
    expect("", NULL);
    expect("<a>", NULL);
    expect("<a></b>", NULL);
    expect("{\"json\":1}", NULL);
    expect("<!DOCTYPE a [<!ENTITY x \"boom\">]><a>&x;</a>", NULL);
    expect("<a>\xff</a>", NULL);
    buf_init(&deep, 0);
    for (size_t i = 0; i < XML_DEPTH_MAX + 1; i++)
        assert_true(buf_append_str(&deep, STR("<a>")));
    for (size_t i = 0; i < XML_DEPTH_MAX + 1; i++)
        assert_true(buf_append_str(&deep, STR("</a>")));
    assert_null(xml_to_json(buf_str(&deep)));
    buf_free(&deep);
}

/* What is nested as deep as is allowed, and texts up to their limit. */
static void test_limits(void **state)
{
    struct buf text;
    (void)state;
    buf_init(&text, 0);
    assert_true(buf_printf(&text, "<a><t>"));
    for (size_t i = 0; i < 65536; i++)
        assert_true(buf_append(&text, "x", 1));
    assert_true(buf_printf(&text, "</t></a>"));
    json_t *tree = xml_to_json(buf_str(&text));
    assert_int_equal(json_string_length(json_object_get(tree, "t")), 65536);
    json_decref(tree);
    buf_clear(&text);
    assert_true(buf_printf(&text, "<a><t>"));
    for (size_t i = 0; i < 65537; i++)
        assert_true(buf_append(&text, "x", 1));
    assert_true(buf_printf(&text, "</t></a>"));
    assert_null(xml_to_json(buf_str(&text)));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("xml", tests, NULL, NULL);
}
