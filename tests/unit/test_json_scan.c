#include "tests/unit/cmocka_all.h"

#include "core/json_scan.h"

#include <jansson.h>
#include <string.h>

static const char *const good[] = {
    "{}",
    "[]",
    "0",
    "-0",
    "null",
    " true ",
    "\"\"",
    "1e5",
    "1E+5",
    "-1.5e-10",
    "[1,2 , 3]",
    "{\"a\":{\"b\":[{},[],\"\",null,false]},\"c\":1}",
    "\r\n\t {\"a\" : 1 , \"b\" :2}\n",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800x\"",
    "\"\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf\"",
    "{\"a\":1,\"a\":2}",
    "\"\x7f\"",
    "\"0123456789abcdef0123456789abcdef\xe6\xbc\xa2\xe5\xad\x97 and then \\n\"",
    "{\"\":0}",
    "[[[[[[]]]]]]",
    "123456789012345678901234567890",
    "\"\\u0000\"",
};

static const struct {
    const char *text;
    size_t at; /* offset of the byte that is wrong */
} bad[] = {
    {"", 0},
    {" ", 1},
    {"{", 1},
    {"}", 0},
    {"[1,]", 3},
    {"[,1]", 1},
    {"[1 2]", 3},
    {"[1}", 2},
    {"{\"a\":1]", 6},
    {"{\"a\":1,}", 7},
    {"{\"a\" 1}", 5},
    {"{\"a\":}", 5},
    {"{a:1}", 1},
    {"{'a':1}", 1},
    {"{1:1}", 1},
    {"{\"a\"}", 4},
    {"01", 1},
    {"-", 1},
    {"+1", 0},
    {"1.", 2},
    {".5", 0},
    {"1.e5", 2},
    {"1e", 2},
    {"1e+", 3},
    {"0x10", 1},
    {"1 2", 2},
    {"{}{}", 2},
    {"tru", 3},
    {"truE", 3},
    {"nulll", 4},
    {"NaN", 0},
    {"Infinity", 0},
    {"-Infinity", 1},
    {"\"", 1},
    {"\"\\", 2},
    {"\"\\x41\"", 2},
    {"\"\\'\"", 2},
    {"\"\\u12g4\"", 5},
    {"\"\\u12\"", 5},
    {"\"a\nb\"", 2},
    {"\"a\tb\"", 2},
    {"\"\x1f\"", 1},
    {"\"\x80\"", 1},
    {"\"\xc0\xaf\"", 1},
    {"\"\xc1\xbf\"", 1},
    {"\"\xe0\x9f\xbf\"", 2},
    {"\"\xed\xa0\x80\"", 2},
    {"\"\xf0\x8f\xbf\xbf\"", 2},
    {"\"\xf4\x90\x80\x80\"", 2},
    {"\"\xf5\x80\x80\x80\"", 1},
    {"\"\xe6\xbc\"", 3},
    {"\"\xe6\"", 2},
    {"\"\xff\"", 1},
    {"\xef\xbb\xbf{}", 0},
    {"{}\v", 2},
    {"\f{}", 0},
    {"// x\n{}", 0},
    {"[1]\xc2\xa0", 3},
    {"\"0123456789abcdef0123456789abcdef\x01\"", 33},
};

/* Feeds text cut in three at a and b. */
static enum error scan_cut(struct json_scan *scan, struct str text, size_t a, size_t b)
{
    enum error error = json_scan_feed(scan, (struct str){text.ptr, a});
    error = error ? error : json_scan_feed(scan, (struct str){text.ptr + a, b - a});
    error = error ? error : json_scan_feed(scan, (struct str){text.ptr + b, text.len - b});
    enum error at_end = json_scan_end(scan);
    assert_true(!error || at_end == error);
    return at_end;
}

static void takes_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        struct str text = str_of(good[i]);
        for (size_t a = 0; a <= text.len; a++) {
            for (size_t b = a; b <= text.len; b++) {
                struct json_scan scan;
                json_scan_init(&scan, NULL, NULL);
                if (scan_cut(&scan, text, a, b))
                    fail_msg("%s cut at %zu and %zu: %s at %zu", good[i], a, b, scan.problem, scan.offset);
                assert_int_equal(scan.offset, text.len);
                assert_null(scan.problem);
            }
        }
    }
}

static void refuses_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct str text = str_of(bad[i].text);
        for (size_t a = 0; a <= text.len; a++) {
            struct json_scan scan;
            json_scan_init(&scan, NULL, NULL);
            if (scan_cut(&scan, text, a, text.len) != ERR_BAD_INPUT)
                fail_msg("%s cut at %zu was taken", bad[i].text, a);
            if (scan.offset != bad[i].at)
                fail_msg("%s cut at %zu: problem at %zu, not %zu", bad[i].text, a, scan.offset, bad[i].at);
            assert_non_null(scan.problem);
            assert_int_equal(json_scan_feed(&scan, STR("{}")), ERR_BAD_INPUT);
        }
    }
}

static void bounds_depth(void **state)
{
    (void)state;
    char text[2 * JSON_DEPTH_MAX + 3];
    for (size_t depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        enum error want = depth <= JSON_DEPTH_MAX ? ERR_NONE : ERR_BAD_INPUT;
        assert_int_equal(json_scan_all((struct str){text, 2 * depth}, NULL, NULL), want);
    }
}

struct listing {
    char text[1024];
    size_t len;
    struct str source;
};

static void list_member(void *arg, const struct json_member *member)
{
    struct listing *listing = arg;
    assert_true(member->start < member->end && member->end <= listing->source.len);
    listing->len += (size_t)snprintf(listing->text + listing->len, sizeof(listing->text) - listing->len,
                                     STR_FMT "=%d:" STR_FMT ";", STR_ARG(member->key), (int)member->type,
                                     (int)(member->end - member->start), listing->source.ptr + member->start);
}

static void reports_members(void **state)
{
    (void)state;
    static const struct {
        const char *text, *listing;
    } cases[] = {
        {"{\"a\":1,\"b\": \"x\\\"y\" ,\"c\":[1,{\"d\":2}],\"e\":{\"a\":{}},\"f\":true,\"g\":false,\"h\":null}",
         "a=4:1;b=5:\"x\\\"y\";c=6:[1,{\"d\":2}];e=7:{\"a\":{}};f=3:true;g=2:false;h=1:null;"},
        {"{\"\\u006dodel\":1, \"mo\\u0064el\":2,\"a\\/b\":3}", "model=4:1;model=4:2;a/b=4:3;"},
        {"{\"\":1}", "=4:1;"},
        {"{\"\xc3\xa9\":1,\"\\u00e9\":2,\"\xf0\x9f\x98\x80\":3,\"z\":-1.5e3}", "z=4:-1.5e3;"},
        {"{\"0123456789012345678901234567890123456789012345678901234567890123\":1,"
         "\"01234567890123456789012345678901234567890123456789012345678901234\":2}",
         "0123456789012345678901234567890123456789012345678901234567890123=4:1;"},
        {"[{\"a\":1}]", ""},
        {"[1,2]", ""},
        {"{}", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct str text = str_of(cases[i].text);
        for (size_t a = 0; a <= text.len; a++) {
            struct listing listing = {.source = text};
            struct json_scan scan;
            json_scan_init(&scan, list_member, &listing);
            assert_int_equal(scan_cut(&scan, text, a, text.len), ERR_NONE);
            assert_string_equal(listing.text, cases[i].listing);
            assert_int_equal(scan.root, *text.ptr == '[' ? JS_ARRAY : JS_OBJECT);
            assert_int_equal(scan.root_end, text.len);
        }
    }
}

/* Every single-byte change of a text that uses the whole grammar is judged as jansson judges it. */
static void agrees_with_jansson(void **state)
{
    (void)state;
    const char source[] =
        "{\"a\":[1,-2.5e3,\"x\\n\xc3\xa9\xe6\xbc\xa2\xf0\x9f\x98\x80\"],\"b\":{\"c\":null,\"d\":true}}";
    char text[sizeof(source)];
    for (size_t i = 0; i + 1 < sizeof(source); i++) {
        for (int c = 0; c < 256; c++) {
            memcpy(text, source, sizeof(source));
            text[i] = (char)c;
            json_t *tree = json_loadb(text, sizeof(text) - 1, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
            enum error error = json_scan_all((struct str){text, sizeof(text) - 1}, NULL, NULL);
            if ((tree != NULL) != (error == ERR_NONE))
                fail_msg("byte %zu changed to %d: jansson %s it", i, c, tree ? "takes" : "refuses");
            json_decref(tree);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_good),      cmocka_unit_test(refuses_bad),         cmocka_unit_test(bounds_depth),
        cmocka_unit_test(reports_members), cmocka_unit_test(agrees_with_jansson),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
