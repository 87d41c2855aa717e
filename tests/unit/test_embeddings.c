#include "tests/unit/cmocka_all.h"

#include "gateway/embeddings.h"

#include <math.h>
#include <string.h>

#define ANSWER(embedding) "{\"object\":\"list\",\"data\":[{\"embedding\": " embedding " ,\"index\":0}],\"model\":\"m\"}"

static void converts(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        bool base64;
        enum error error;
        const char *out; /* NULL: nothing to change */
    } cases[] = {
        {ANSWER("[1, -2.5,0]"), true, ERR_NONE, ANSWER("\"AACAPwAAIMAAAAAA\"")},
        {ANSWER("[1, -2.5,0]"), false, ERR_NONE, NULL},
        {ANSWER("\"AACAPwAAIMAAAAAA\""), false, ERR_NONE, ANSWER("[1,-2.5,0]")},
        {ANSWER("\"AACAPwAAIMAAAAAA\""), true, ERR_NONE, NULL},
        {ANSWER("[1]"), true, ERR_NONE, ANSWER("\"AACAPw==\"")},
        {ANSWER("\"AACAPw==\""), false, ERR_NONE, ANSWER("[1]")},
        {ANSWER("[1,2]"), true, ERR_NONE, ANSWER("\"AACAPwAAAEA=\"")},
        {ANSWER("\"AACAPwAAAEA=\""), false, ERR_NONE, ANSWER("[1,2]")},
        {ANSWER("\"\\u0041ACAPw==\""), false, ERR_NONE, ANSWER("[1]")},
        {ANSWER("\"\\/\\/9\\/fw==\""), false, ERR_NONE, ANSWER("[3.40282347e+38]")},
        {ANSWER("[]"), true, ERR_NONE, ANSWER("\"\"")},
        {ANSWER("\"\""), false, ERR_NONE, ANSWER("[]")},
        {ANSWER("[1,null]"), true, ERR_PROTOCOL, NULL},
        {ANSWER("[1e39]"), true, ERR_PROTOCOL, NULL},
        {ANSWER("[[1]]"), true, ERR_PROTOCOL, NULL},
        {ANSWER("null"), true, ERR_PROTOCOL, NULL},
        {ANSWER("7"), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACAPw=\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACAPw\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACAPw!=\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACA\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACAPx==\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACA=w==\""), false, ERR_PROTOCOL, NULL},
        {ANSWER("\"AACAfw==\""), false, ERR_PROTOCOL, NULL}, /* infinity */
        {"{\"data\":[{\"embedding\":[1]},{\"embedding\":\"AACAPw==\"},{\"x\":[1]},7,{\"embedding\":[2]}]}", true,
         ERR_NONE,
         "{\"data\":[{\"embedding\":\"AACAPw==\"},{\"embedding\":\"AACAPw==\"},{\"x\":[1]},7,{\"embedding\":\"AAAAQA=="
         "\"}]}"},
        {"{\"data\":{\"embedding\":[1]}}", true, ERR_NONE, NULL},
        {"{\"x\":[{\"embedding\":[1]}]}", true, ERR_NONE, NULL},
        {"[]", true, ERR_NONE, NULL},
    };
    struct buf to;
    buf_init(&to, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        bool changed = false;
        enum error error = embeddings_convert(str_of(cases[i].in), cases[i].base64, &to, &changed);
        if (error != cases[i].error)
            fail_msg("%s: %s", cases[i].in, error_text(error));
        assert_int_equal(changed, cases[i].out != NULL);
        assert_true(str_eq(buf_str(&to), str_of(cases[i].out)));
    }
    buf_free(&to);
}

static void long_vectors_come_back(void **state)
{
    (void)state;
    struct buf text, coded, back;
    bool changed;
    buf_init(&text, 0);
    buf_init(&coded, 0);
    buf_init(&back, 0);
    uint32_t random = 1;
    assert_true(buf_printf(&text, "{\"data\":[{\"embedding\":["));
    for (int i = 0; i < 4099; i++) {
        float number;
        do {
            random = random * 1664525 + 1013904223;
            memcpy(&number, &random, 4);
        } while (!isfinite(number));
        assert_true(buf_printf(&text, i ? ",%.9g" : "%.9g", (double)number));
    }
    assert_true(buf_printf(&text, "]}]}"));
    assert_int_equal(embeddings_convert(buf_str(&text), true, &coded, &changed), ERR_NONE);
    assert_int_equal(embeddings_convert(buf_str(&coded), false, &back, &changed), ERR_NONE);
    assert_true(str_eq(buf_str(&text), buf_str(&back)));
    buf_free(&back);
    buf_init(&back, 1000);
    changed = false;
    assert_int_equal(embeddings_convert(buf_str(&text), true, &back, &changed), ERR_TOO_LARGE);
    assert_int_equal(embeddings_convert(buf_str(&coded), false, &back, &changed), ERR_TOO_LARGE);
    assert_false(changed);
    assert_int_equal(back.len, 0);
    buf_free(&text);
    buf_free(&coded);
    buf_free(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(converts), cmocka_unit_test(long_vectors_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
