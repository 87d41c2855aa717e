#include "tests/unit/cmocka_all.h"

#include "gateway/openai_body.h"

#include <jansson.h>
#include <string.h>

/* Parses text fed in two parts cut at `cut`. */
static enum error parse(struct openai_body *body, enum openai_kind kind, struct str text, size_t cut)
{
    openai_body_init(body, kind);
    enum error error = openai_body_feed(body, (struct str){text.ptr, cut});
    if (!error)
        error = openai_body_feed(body, (struct str){text.ptr + cut, text.len - cut});
    return error ? error : openai_body_end(body, text);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *param, *message;
    } cases[] = {
        {"", NULL, "The body is not valid JSON: the text ends too early, at byte 0."},
        {"{\"model\":\"m\"", NULL, "The body is not valid JSON: the text ends too early, at byte 12."},
        {"{\"model\":\"m\",}", NULL, "The body is not valid JSON: a key in quotes is expected, at byte 13."},
        {"[1]", NULL, "The body must be a JSON object."},
        {"[oops", NULL, "The body must be a JSON object."},
        {"{\"stream\":5,\"stream\":5,oops", "stream", "'stream' is given twice."},
        {"\"x\"", NULL, "The body must be a JSON object."},
        {"{}", "model", "You must provide a 'model' parameter."},
        {"{\"model\":null}", "model", "'model' must be a string."},
        {"{\"model\":7}", "model", "'model' must be a string."},
        {"{\"model\":\"\"}", "model", "'model' is no model's name."},
        {"{\"model\":\"a\\u0000\"}", "model", "'model' is no model's name."},
        {"{\"model\":\"m\",\"model\":\"m\"}", "model", "'model' is given twice."},
        {"{\"model\":\"m\",\"mod\\u0065l\":\"n\"}", "model", "'model' is given twice."},
        {"{\"model\":\"m\",\"stream\":\"true\"}", "stream", "'stream' must be true or false."},
        {"{\"model\":\"m\",\"stream\":1}", "stream", "'stream' must be true or false."},
        {"{\"model\":\"m\",\"stream\":true,\"stream\":true}", "stream", "'stream' is given twice."},
        {"{\"model\":\"m\",\"stream_options\":5}", "stream_options", "'stream_options' must be an object."},
        {"{\"model\":\"m\",\"stream_options\":{},\"stream_options\":{}}", "stream_options",
         "'stream_options' is given twice."},
        {"{\"model\":\"m\",\"stream_options\":{\"include_usage\":1}}", "stream_options.include_usage",
         "'include_usage' must be true or false."},
        {"{\"model\":\"m\",\"stream_options\":{\"include_usage\":true,\"include_usage\":true}}",
         "stream_options.include_usage", "'include_usage' is given twice."},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct str text = str_of(cases[i].text);
        for (size_t cut = 0; cut <= text.len; cut++) {
            struct openai_body body;
            if (parse(&body, OPENAI_CHAT, text, cut) != ERR_BAD_INPUT)
                fail_msg("%s cut at %zu was taken", cases[i].text, cut);
            assert_string_equal(body.message, cases[i].message);
            if (cases[i].param)
                assert_string_equal(body.param, cases[i].param);
            else
                assert_null(body.param);
        }
    }
}

static void long_model(void **state)
{
    (void)state;
    char text[512];
    for (int len = 255; len <= 257; len++) {
        struct openai_body body;
        snprintf(text, sizeof(text), "{\"model\":\"%0*d\"}", len, 7);
        enum error want = len <= OPENAI_MODEL_MAX ? ERR_NONE : ERR_BAD_INPUT;
        assert_int_equal(parse(&body, OPENAI_CHAT, str_of(text), 3), want);
        if (!want)
            assert_int_equal(body.model_len, len);
        else
            assert_string_equal(body.message, "'model' is longer than 256 bytes.");
    }
}

static void reads(void **state)
{
    (void)state;
    static const struct {
        enum openai_kind kind;
        const char *text, *model, *affinity;
        bool stream, include_usage;
        enum openai_encoding encoding;
    } cases[] = {
        {OPENAI_CHAT, "{\"model\":\"m\"}", "m", NULL, false, false, 0},
        {OPENAI_CHAT, "{\"messages\":[{\"role\":\"user\"}],\"stream\":true,\"model\":\"a\\/\\u00e9\"}", "a/\xc3\xa9",
         "[{\"role\":\"user\"}]", true, false, 0},
        {OPENAI_CHAT, "{\"model\":\"m\",\"stream\":null,\"stream_options\":null}", "m", NULL, false, false, 0},
        {OPENAI_CHAT,
         "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"x\":{\"include_usage\":false},"
         "\"include_usage\":true}}",
         "m", NULL, true, true, 0},
        {OPENAI_CHAT, "{\"model\":\"m\",\"user\":\"u1\",\"prompt_cache_key\":\"\",\"messages\":[]}", "m", "\"u1\"",
         false, false, 0},
        {OPENAI_CHAT, "{\"model\":\"m\",\"user\":\"u1\",\"prompt_cache_key\":\"k\",\"messages\":[]}", "m", "\"k\"",
         false, false, 0},
        {OPENAI_CHAT, "{\"model\":\"m\",\"user\":5,\"prompt\":\"p\",\"messages\":\"x\"}", "m", "\"x\"", false, false,
         0},
        {OPENAI_COMPLETIONS, "{\"model\":\"m\",\"prompt\":\"p\",\"messages\":\"x\"}", "m", "\"p\"", false, false, 0},
        {OPENAI_RESPONSES, "{\"model\":\"m\",\"input\":\"i\"}", "m", "\"i\"", false, false, 0},
        {OPENAI_EMBEDDINGS, "{\"model\":\"m\",\"input\":[1],\"encoding_format\":\"float\"}", "m", "[1]", false, false,
         OPENAI_ENCODING_FLOAT},
        {OPENAI_EMBEDDINGS, "{\"model\":\"m\",\"encoding_format\":\"base64\"}", "m", NULL, false, false,
         OPENAI_ENCODING_BASE64},
        {OPENAI_EMBEDDINGS, "{\"model\":\"m\",\"encoding_format\":null}", "m", NULL, false, false, 0},
        {OPENAI_EMBEDDINGS, "{\"model\":\"m\",\"encoding_format\":\"int8\"}", "m", NULL, false, false,
         OPENAI_ENCODING_OTHER},
        {OPENAI_CHAT, " {\"user\":\"a\",\"user\":\"b\",\"n\":1,\"n\":2,\"model\":\"m\"}\r\n", "m", "\"b\"", false,
         false, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct str text = str_of(cases[i].text);
        for (size_t cut = 0; cut <= text.len; cut++) {
            struct openai_body body;
            if (parse(&body, cases[i].kind, text, cut))
                fail_msg("%s: %s", cases[i].text, body.message);
            assert_string_equal(body.model, cases[i].model);
            assert_int_equal(body.stream, cases[i].stream);
            assert_int_equal(body.include_usage, cases[i].include_usage);
            assert_int_equal(body.encoding, cases[i].encoding);
            struct str affinity = openai_body_affinity(&body, text);
            assert_true(str_eq(affinity, str_of(cases[i].affinity)));
            assert_int_equal(affinity.ptr != NULL, cases[i].affinity != NULL);
        }
    }
}

static void affinity_is_bounded(void **state)
{
    (void)state;
    char text[1024];
    struct openai_body body;
    snprintf(text, sizeof(text), "{\"model\":\"m\",\"messages\":\"%0500d\"}", 0);
    assert_int_equal(parse(&body, OPENAI_CHAT, str_of(text), 0), ERR_NONE);
    assert_int_equal(openai_body_affinity(&body, str_of(text)).len, OPENAI_AFFINITY_MAX);
}

static void splices(void **state)
{
    (void)state;
    static const struct {
        enum openai_kind kind;
        const char *text, *alias;
        bool want_usage;
        const char *result;
    } cases[] = {
        {OPENAI_CHAT, "{\"model\":\"m\"}", NULL, true, "{\"model\":\"m\"}"},
        {OPENAI_CHAT, "{\"model\":\"m\",\"stream\":true}", NULL, false, "{\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"model\":\"m\",\"stream\":true } \n", NULL, true,
         "{\"model\":\"m\",\"stream\":true ,\"stream_options\":{\"include_usage\":true}} \n"},
        {OPENAI_CHAT, "{\"stream_options\":{},\"model\":\"m\",\"stream\":true}", NULL, true,
         "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"stream_options\":{ \"x\" : 1 },\"model\":\"m\",\"stream\":true}", NULL, true,
         "{\"stream_options\":{\"include_usage\":true, \"x\" : 1 },\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"stream_options\":{\"include_usage\": false},\"model\":\"m\",\"stream\":true}", NULL, true,
         "{\"stream_options\":{\"include_usage\": true},\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"stream_options\":{\"a\":[],\"include_usage\":null },\"model\":\"m\",\"stream\":true}", "n",
         true, "{\"stream_options\":{\"a\":[],\"include_usage\":true },\"model\":\"n\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"stream_options\":null,\"model\":\"m\",\"stream\":true}", NULL, true,
         "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}", NULL, true,
         "{\"stream_options\":{\"include_usage\":true},\"model\":\"m\",\"stream\":true}"},
        {OPENAI_CHAT, "{\"model\": \"gpt-4o-mini\" ,\"stream\":true}", "a\"b", true,
         "{\"model\": \"a\\\"b\" ,\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
        {OPENAI_CHAT, "{\"model\":\"m\"}", "much-longer-name", true, "{\"model\":\"much-longer-name\"}"},
        {OPENAI_COMPLETIONS, "{\"model\":\"m\",\"stream\":true}", "", true,
         "{\"model\":\"\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
        {OPENAI_RESPONSES, "{\"model\":\"m\",\"stream\":true}", NULL, true, "{\"model\":\"m\",\"stream\":true}"},
        {OPENAI_EMBEDDINGS, "{\"model\":\"m\",\"stream\":true}", "e", true, "{\"model\":\"e\",\"stream\":true}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct openai_body body;
        struct buf text;
        buf_init(&text, strlen(cases[i].text) + OPENAI_BODY_SLACK);
        assert_true(buf_append_str(&text, str_of(cases[i].text)));
        assert_int_equal(parse(&body, cases[i].kind, buf_str(&text), 1), ERR_NONE);
        assert_int_equal(openai_body_splice(&body, &text, str_of(cases[i].alias), cases[i].want_usage), ERR_NONE);
        if (!str_eq(buf_str(&text), str_of(cases[i].result)))
            fail_msg(STR_FMT " is not %s", STR_ARG(buf_str(&text)), cases[i].result);
        json_t *tree = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(tree);
        json_decref(tree);
        buf_free(&text);
    }
}

static void splice_fails_whole(void **state)
{
    (void)state;
    const char text[] = "{\"model\":\"m\",\"stream\":true}";
    struct openai_body body;
    struct buf held;
    buf_init(&held, sizeof(text) + 10);
    assert_true(buf_append(&held, text, sizeof(text) - 1));
    assert_int_equal(parse(&body, OPENAI_CHAT, buf_str(&held), 1), ERR_NONE);
    assert_int_equal(openai_body_splice(&body, &held, STR("alias"), true), ERR_TOO_LARGE);
    assert_true(str_eq(buf_str(&held), str_of(text)));
    buf_free(&held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses), cmocka_unit_test(long_model),
        cmocka_unit_test(reads),   cmocka_unit_test(affinity_is_bounded),
        cmocka_unit_test(splices), cmocka_unit_test(splice_fails_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
