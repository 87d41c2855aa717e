#include "gateway/canary.h"

#include "core/json_walk.h"
#include "tests/unit/cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#define MODEL "vendor/a \"model\""

static void questions_look_like_calls(void **state)
{
    size_t different = 0;
    uint64_t seen[512];
    (void)state;
    for (uint64_t i = 0; i < 512; i++) {
        struct buf body;
        int64_t tokens;
        char model[64];
        size_t len;
        buf_init(&body, 4096);
        assert_true(canary_question(STR(MODEL), i * UINT64_C(0x9e3779b97f4a7c15), &body));
        struct json_value question = json_value_of(buf_str(&body));
        assert_true(answer_is_determined(ANSWER_CHAT, buf_str(&body)));
        assert_true(json_to_text(json_member_of(question, "model"), model, sizeof(model), &len));
        assert_string_equal(model, MODEL);
        assert_true(json_to_count(json_member_of(question, "max_tokens"), &tokens) && tokens >= 16 && tokens <= 48);
        assert_int_equal(json_member_of(question, "messages").type, JS_ARRAY);
        assert_int_equal(json_member_of(question, "logprobs").type, JS_NONE);
        assert_null(memchr(body.ptr, '$', body.len));
        assert_null(memchr(body.ptr, '#', body.len));
        seen[i] = str_hash(buf_str(&body), 0);
        bool is_new = true;
        for (uint64_t j = 0; j < i; j++)
            is_new &= seen[j] != seen[i];
        different += is_new;
        buf_free(&body);
    }
    assert_true(different > 480);
}

static void no_room_is_told(void **state)
{
    struct buf body;
    (void)state;
    buf_init(&body, 40);
    assert_false(canary_question(STR(MODEL), 7, &body));
    buf_free(&body);
}

struct kept {
    struct openai_checks checks;
    struct answer_check check;
};

static void kept_init(struct kept *kept)
{
    memset(kept, 0, sizeof(*kept));
    kept->check.checks = &kept->checks;
    buf_init(&kept->check.plain, answer_limits_default().body_max);
}

static void kept_free(struct kept *kept)
{
    buf_free(&kept->check.plain);
    buf_free(&kept->check.asks[CHECK_PEER].answer);
}

static void what_is_kept_comes_back(void **state)
{
    struct str question = STR("{\"temperature\":0,\"messages\":[{\"content\":\"\\u00e9 \\\"x\\\"\"}]}");
    struct str answer = STR("{\"choices\":[{\"message\":{\"content\":\"h\xc3\xa9\"}}]}");
    struct kept kept;
    struct buf text;
    (void)state;
    kept_init(&kept);
    buf_init(&text, 4096);
    assert_true(canary_write(question, answer, STR("wrk_1"), STR("acme"), &text));
    assert_true(canary_read(buf_str(&text), &kept.check));
    const struct check_ask *peer = &kept.check.asks[CHECK_PEER];
    assert_true(str_eq(buf_str(&kept.check.plain), question));
    assert_true(str_eq(buf_str(&peer->answer), answer));
    assert_string_equal(peer->record.worker, "wrk_1");
    assert_string_equal(peer->record.supplier, "acme");
    assert_true(peer->is_good && !peer->worker);
    assert_int_equal(kept.checks.bytes, question.len + answer.len);
    kept_free(&kept);
    buf_free(&text);
}

static void nonsense_in_the_store_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"question\":\"{\\\"temperature\\\":0}\"}",
        "{\"question\":\"{\\\"temperature\\\":1}\",\"answer\":\"{}\",\"worker\":\"w\",\"supplier\":\"s\"}",
        "{\"question\":\"{\\\"temperature\\\":0}\",\"answer\":\"{\",\"worker\":\"w\",\"supplier\":\"s\"}",
        "{\"question\":\"{\\\"temperature\\\":0}\",\"answer\":7,\"worker\":\"w\",\"supplier\":\"s\"}",
        "{\"question\":\"{\\\"temperature\\\":0}\",\"answer\":\"{}\",\"worker\":\"w\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct kept kept;
        kept_init(&kept);
        if (canary_read(str_of(texts[i]), &kept.check) || kept.check.asks[CHECK_PEER].is_good)
            fail_msg("%s", texts[i]);
        kept_free(&kept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_look_like_calls),
        cmocka_unit_test(no_room_is_told),
        cmocka_unit_test(what_is_kept_comes_back),
        cmocka_unit_test(nonsense_in_the_store_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
