#include "scheduler/answer_check.h"

#include "core/json_scan.h"
#include "tests/unit/cmocka_all.h"

#include <stdio.h>
#include <string.h>

/* -- which requests -- */

static void only_determined_requests(void **state)
{
    static const struct {
        enum answer_kind kind;
        const char *body;
        bool fits;
    } cases[] = {
        {ANSWER_CHAT, "{\"temperature\":0,\"messages\":[]}", true},
        {ANSWER_CHAT, "{\"temperature\":0.0,\"n\":1,\"tools\":null,\"messages\":[]}", true},
        {ANSWER_CHAT, "{\"temperature\":-0.0e5,\"messages\":[],\"stream\":true}", true},
        {ANSWER_CHAT, "{\"temp\\u0065rature\":0,\"messages\":[]}", true},
        {ANSWER_CHAT, "{\"top_k\":1,\"temperature\":0.7,\"messages\":[]}", true},
        {ANSWER_COMPLETION, "{\"temperature\":0,\"prompt\":\"x\",\"echo\":false,\"best_of\":1}", true},
        {ANSWER_CHAT, "{\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"messages\":[{\"temperature\":0}]}", false},
        {ANSWER_CHAT, "{\"temperature\":1e-400,\"messages\":[],\"temperature\":1}", false},
        {ANSWER_CHAT, "{\"temperature\":0.001,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":\"0\",\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":null,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"temperature\":0,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"n\":2,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"n\":1,\"n\":2,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"tools\":[],\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"modalities\":[\"audio\"],\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"use_beam_search\":true,\"messages\":[]}", false},
        {ANSWER_CHAT, "{\"temperature\":0,\"prompt\":\"x\"}", false},
        {ANSWER_COMPLETION, "{\"temperature\":0,\"prompt\":[\"x\",\"y\"]}", false},
        {ANSWER_COMPLETION, "{\"temperature\":0,\"prompt\":\"x\",\"echo\":true}", false},
        {ANSWER_COMPLETION, "{\"temperature\":0}", false},
        {ANSWER_CHAT, "[0]", false},
        {ANSWER_CHAT, "{\"temperature\":0", false},
        {ANSWER_CHAT, "", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        if (answer_is_determined(cases[i].kind, str_of(cases[i].body)) != cases[i].fits)
            fail_msg("%s", cases[i].body);
}

static void expect_replay(enum answer_kind kind, const char *body, bool with_logprobs, const char *expected)
{
    struct buf buf;
    buf_init(&buf, 4096);
    assert_true(answer_replay(kind, str_of(body), with_logprobs, &buf));
    if (!str_eq(buf_str(&buf), str_of(expected)))
        fail_msg(STR_FMT, STR_ARG(buf_str(&buf)));
    buf_free(&buf);
}

static void asks_again_the_same(void **state)
{
    struct buf small;
    (void)state;
    expect_replay(ANSWER_CHAT,
                  "{ \"stream\" : true, \"model\":\"a\\\"b\",\"messages\":[{\"stream\":true}] ,\"temperature\":0,"
                  "\"stream_options\":{\"include_usage\":true} }",
                  true,
                  "{\"model\":\"a\\\"b\",\"messages\":[{\"stream\":true}],\"temperature\":0,\"logprobs\":true,"
                  "\"top_logprobs\":5}");
    expect_replay(ANSWER_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":2,\"str\\u0065am\":true}", true,
                  "{\"prompt\":\"x\",\"logprobs\":5}");
    expect_replay(ANSWER_CHAT, "{\"top_logprobs\":20,\"logprobs\":true,\"seed\":7}", false, "{\"seed\":7}");
    expect_replay(ANSWER_CHAT, "{}", true, "{\"logprobs\":true,\"top_logprobs\":5}");
    expect_replay(ANSWER_CHAT, "{\"stream\":true}", false, "{}");
    buf_init(&small, 8);
    assert_false(answer_replay(ANSWER_CHAT, STR("{\"model\":\"abcdef\"}"), true, &small));
    buf_free(&small);
}

/* -- what was said -- */

static void expect_text(enum answer_kind kind, bool is_event, const char *json, enum error error, const char *text)
{
    struct buf buf;
    buf_init(&buf, 64);
    assert_true(buf_append(&buf, "<", 1));
    enum error got = is_event ? answer_event_text(kind, str_of(json), &buf) : answer_text(kind, str_of(json), &buf);
    if (got != error || (!error && !str_eq((struct str){buf.ptr + 1, buf.len - 1}, str_of(text))))
        fail_msg("%s: %d " STR_FMT, json, (int)got, STR_ARG(buf_str(&buf)));
    buf_free(&buf);
}

static void reads_what_was_said(void **state)
{
    (void)state;
    expect_text(ANSWER_CHAT, false, "{\"choices\":[{\"message\":{\"content\":\"h\\u00e9\\n\"}}]}", ERR_NONE,
                "h\xc3\xa9\n");
    expect_text(ANSWER_CHAT, false, "{\"choices\":[{\"message\":{\"content\":\"\",\"tool_calls\":[]}}]}", ERR_NONE, "");
    expect_text(ANSWER_COMPLETION, false, "{\"choices\":[{\"text\":\"x\"}]}", ERR_NONE, "x");
    expect_text(ANSWER_CHAT, true, "{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}", ERR_NONE, "b");
    expect_text(ANSWER_CHAT, true, "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", ERR_NONE, "");
    expect_text(ANSWER_COMPLETION, true, "{\"choices\":[{\"text\":\"b\"}]}", ERR_NONE, "b");
    static const char *const odd[] = {
        "{}",
        "{\"choices\":{}}",
        "{\"choices\":[]}",
        "{\"choices\":[1]}",
        "{\"choices\":[{\"message\":{\"content\":\"a\"}},{\"message\":{\"content\":\"b\"}}]}",
        "{\"choices\":[{\"message\":{\"content\":null}}]}",
        "{\"choices\":[{\"message\":{\"content\":[\"a\"]}}]}",
        "{\"choices\":[{\"message\":{\"content\":\"a\",\"reasoning_content\":\"hm\"}}]}",
        "{\"choices\":[{\"message\":{\"content\":\"a\",\"tool_calls\":[{}]}}]}",
        "[]",
    };
    for (size_t i = 0; i < sizeof(odd) / sizeof(*odd); i++)
        expect_text(ANSWER_CHAT, false, odd[i], ERR_NOT_FOUND, "");
    expect_text(ANSWER_CHAT, true, "{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}", ERR_NOT_FOUND, "");
    char large[256] = "{\"choices\":[{\"text\":\"";
    memset(large + strlen(large), 'x', 100);
    strcat(large, "\"}]}");
    expect_text(ANSWER_COMPLETION, false, large, ERR_TOO_LARGE, "");
}

/* -- comparing: an answer is written as tokens "text=logprob/rival=logprob/...", separated by blanks; _ is a blank --
 */

static const char *unblank(const char *from, size_t len, char to[static 64])
{
    size_t at = 0;
    for (size_t i = 0; i < len; i++)
        to[at++] = from[i] == '_' ? ' ' : from[i];
    to[at] = '\0';
    return to;
}

static void put_entry(struct buf *to, struct str spec, const char *more)
{
    struct str token = str_next(&spec, '=');
    char text[64];
    unblank(token.ptr, token.len, text);
    assert_true(buf_printf(to, "{\"token\":\"%s\",\"logprob\":" STR_FMT "%s", text, STR_ARG(spec), more));
}

static void chat_tokens(struct buf *to, const char *tokens)
{
    struct str rest = str_of(tokens);
    bool is_first = true;
    while (rest.len) {
        struct str token = str_next(&rest, ' '), spec = str_next(&token, '/');
        assert_true(buf_printf(to, "%s", is_first ? "" : ","));
        put_entry(to, spec, ",\"bytes\":null,\"top_logprobs\":[");
        put_entry(to, spec, "}");
        while (token.len) {
            assert_true(buf_append(to, ",", 1));
            put_entry(to, str_next(&token, '/'), "}");
        }
        assert_true(buf_printf(to, "]}"));
        is_first = false;
    }
}

static void completion_tokens(struct buf *to, const char *tokens)
{
    static const char *const heads[] = {"\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":["};
    char text[64];
    for (size_t part = 0; part < 3; part++) {
        struct str rest = str_of(tokens);
        assert_true(buf_printf(to, "%s", heads[part]));
        for (bool is_first = true; rest.len; is_first = false) {
            struct str token = str_next(&rest, ' '), all = token, spec = str_next(&token, '/');
            struct str name = str_next(&spec, '=');
            assert_true(buf_printf(to, "%s", is_first ? "" : ","));
            if (part == 0)
                assert_true(buf_printf(to, "\"%s\"", unblank(name.ptr, name.len, text)));
            else if (part == 1)
                assert_true(buf_append_str(to, spec));
            for (size_t i = 0; part == 2 && all.len; i++) {
                struct str rival = str_next(&all, '/'), rival_name = str_next(&rival, '=');
                assert_true(buf_printf(to, "%s\"%s\":" STR_FMT, i ? "," : "{",
                                       unblank(rival_name.ptr, rival_name.len, text), STR_ARG(rival)));
            }
            assert_true(buf_printf(to, "%s", part == 2 ? "}" : ""));
        }
    }
    assert_true(buf_printf(to, "]"));
}

static void make_answer(struct buf *to, enum answer_kind kind, const char *said, const char *tokens)
{
    char text[64];
    unblank(said, strlen(said), text);
    buf_init(to, 0);
    assert_true(buf_printf(to,
                           kind == ANSWER_CHAT ? "{\"choices\":[{\"message\":{\"content\":\"%s\"},\"logprobs\":"
                                               : "{\"choices\":[{\"text\":\"%s\",\"logprobs\":",
                           text));
    if (!tokens) {
        assert_true(buf_printf(to, "null}]}"));
        return;
    }
    assert_true(buf_printf(to, kind == ANSWER_CHAT ? "{\"content\":[" : "{"));
    (kind == ANSWER_CHAT ? chat_tokens : completion_tokens)(to, tokens);
    assert_true(buf_printf(to, kind == ANSWER_CHAT ? "]}}]}" : "}}]}"));
}

static void expect_match(const char *text, const char *said, const char *tokens, enum answer_match expected)
{
    for (enum answer_kind kind = ANSWER_CHAT; kind <= ANSWER_COMPLETION; kind++) {
        struct buf answer;
        char original[64];
        unblank(text, strlen(text), original);
        make_answer(&answer, kind, said, tokens);
        assert_int_equal(json_scan_all(buf_str(&answer), NULL, NULL), ERR_NONE);
        if (answer_compare(kind, str_of(original), buf_str(&answer)) != expected)
            fail_msg("%s against %s with %s: " STR_FMT, text, said, tokens ? tokens : "nothing",
                     STR_ARG(buf_str(&answer)));
        buf_free(&answer);
    }
}

#define THE_CAT "the=-0.1/a=-3 _cat=-0.5/_dog=-0.9/_cow=-4 _sat=-0.2/_ran=-2"

static void the_same_text_agrees(void **state)
{
    (void)state;
    expect_match("the_cat_sat", "the_cat_sat", THE_CAT, ANSWER_AGREES);
    expect_match("the_cat_sat", "the_cat_sat", NULL, ANSWER_AGREES);
    expect_match("", "", NULL, ANSWER_AGREES);
}

static void a_near_tie_agrees(void **state)
{
    (void)state;
    expect_match("the_dog_barked_all_day", "the_cat_sat", THE_CAT, ANSWER_AGREES);
    expect_match("the_dog", "the_cat_sat", THE_CAT, ANSWER_AGREES);
    /* Exactly at the margin, and just beyond it. */
    expect_match("the_dog", "the_cat", "the=-1 _cat=-1/_dog=-2", ANSWER_AGREES);
    expect_match("the_dog", "the_cat", "the=-1 _cat=-1/_dog=-2.001", ANSWER_DIFFERS);
}

static void another_text_differs(void **state)
{
    (void)state;
    expect_match("the_cow_barked", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    expect_match("a_cat_sat", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    expect_match("nonsense", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    expect_match("the_cat_ran", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    /* Cut short, where nothing says that it could have ended; and where that was nearly as likely. */
    expect_match("the_cat", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    expect_match("", "the_cat_sat", THE_CAT, ANSWER_DIFFERS);
    expect_match("the", "the_cat", "the=-0.1 _cat=-0.5/<|eot|>=-0.8", ANSWER_AGREES);
    expect_match("the", "the_cat", "the=-0.1 _cat=-0.5/=-0.8", ANSWER_AGREES);
    expect_match("the", "the_cat", "the=-0.1 _cat=-0.5/<|eot|>=-2.8", ANSWER_DIFFERS);
    /* An empty rival is an end, not the beginning of everything. */
    expect_match("the_dog", "the_cat", "the=-0.1 _cat=-0.5/=-0.6", ANSWER_DIFFERS);
}

static void goes_on_behind_the_end(void **state)
{
    (void)state;
    expect_match("the_cat_sat_down", "the_cat_sat", THE_CAT, ANSWER_UNKNOWN);
    expect_match("the_cat_sat_down", "the_cat_sat", THE_CAT " <|eot|>=-0.1/_down=-0.4", ANSWER_AGREES);
    expect_match("the_cat_sat_down", "the_cat_sat", THE_CAT " <|eot|>=-0.1/_down=-4", ANSWER_DIFFERS);
    /* A stop text cut the last token. */
    expect_match("the_dog", "the_c", "the=-0.1 _cat=-0.5/_dog=-0.6", ANSWER_AGREES);
    expect_match("the_cow", "the_c", "the=-0.1 _cat=-0.5/_dog=-0.6", ANSWER_UNKNOWN);
}

static void no_evidence_is_no_verdict(void **state)
{
    (void)state;
    expect_match("the_dog", "the_cat", NULL, ANSWER_UNKNOWN);
    expect_match("the_dog", "the_cat", "", ANSWER_UNKNOWN);
    expect_match("the_dog", "the_cat", "the=-1", ANSWER_UNKNOWN);         /* tokens are missing */
    expect_match("the_dog", "the_cat", "one=-1 _dog=-1", ANSWER_UNKNOWN); /* not of this text */
    expect_match("a_dog", "the_cat", "the=-1 _bird=-1", ANSWER_DIFFERS);  /* parted before that shows */
    expect_match("the\xc3\xa9", "the_cat", "the=-1 _cat=-1/\xef\xbf\xbd=-1.1", ANSWER_UNKNOWN);
    expect_match("the\xc3\xa9", "the_cat", "the=-1 _cat=-1/\xef\xbf\xbd=-5", ANSWER_DIFFERS);
    assert_int_equal(answer_compare(ANSWER_CHAT, STR("x"), STR("{}")), ANSWER_UNKNOWN);
    assert_int_equal(answer_compare(ANSWER_CHAT, STR("x"), STR("7")), ANSWER_UNKNOWN);
}

static void bytes_of_tokens_count(void **state)
{
    (void)state;
    struct str answer = STR("{\"choices\":[{\"message\":{\"content\":\"\\u00e9\"},\"logprobs\":{\"content\":["
                            "{\"token\":\"\\ufffd\",\"bytes\":[195],\"logprob\":-1,\"top_logprobs\":[]},"
                            "{\"token\":\"\\ufffd\",\"bytes\":[169],\"logprob\":-1,\"top_logprobs\":["
                            "{\"token\":\"\\ufffd\",\"bytes\":[168],\"logprob\":-1.5}]}]}}]}");
    struct str odd = STR("{\"choices\":[{\"message\":{\"content\":\"ab\"},\"logprobs\":{\"content\":["
                         "{\"token\":\"a\",\"bytes\":[256],\"logprob\":-1,\"top_logprobs\":[]}]}}]}");
    assert_int_equal(answer_compare(ANSWER_CHAT, STR("\xc3\xa8"), answer), ANSWER_AGREES);
    assert_int_equal(answer_compare(ANSWER_CHAT, STR("\xc3\xaa"), answer), ANSWER_DIFFERS);
    assert_int_equal(answer_compare(ANSWER_CHAT, STR("ac"), odd), ANSWER_UNKNOWN);
}

static void either_evidence_serves_for_two(void **state)
{
    struct buf cat, dog, bare;
    (void)state;
    make_answer(&cat, ANSWER_CHAT, "the_cat", "the=-1 _cat=-1/_dog=-1.2");
    make_answer(&dog, ANSWER_CHAT, "the_dog", "the=-1 _dog=-0.1/_cat=-6");
    make_answer(&bare, ANSWER_CHAT, "the_bird", NULL);
    assert_int_equal(answer_compare_both(ANSWER_CHAT, buf_str(&cat), buf_str(&dog)), ANSWER_AGREES);
    assert_int_equal(answer_compare_both(ANSWER_CHAT, buf_str(&dog), buf_str(&cat)), ANSWER_AGREES);
    assert_int_equal(answer_compare_both(ANSWER_CHAT, buf_str(&bare), buf_str(&cat)), ANSWER_DIFFERS);
    assert_int_equal(answer_compare_both(ANSWER_CHAT, buf_str(&bare), STR("{}")), ANSWER_UNKNOWN);
    buf_free(&cat);
    buf_free(&dog);
    buf_free(&bare);
}

/* Of all 27 combinations exactly two find somebody wrong. */
static void judges(void **state)
{
    static const enum answer_match all[] = {ANSWER_UNKNOWN, ANSWER_AGREES, ANSWER_DIFFERS};
    (void)state;
    for (size_t i = 0; i < 27; i++) {
        enum answer_match peer = all[i % 3], referee = all[i / 3 % 3], both = all[i / 9];
        enum answer_verdict expected = ANSWER_NOBODY;
        if (peer == ANSWER_DIFFERS && referee == ANSWER_DIFFERS && both == ANSWER_AGREES)
            expected = ANSWER_ORIGINAL_WRONG;
        if (peer == ANSWER_DIFFERS && referee == ANSWER_AGREES && both == ANSWER_DIFFERS)
            expected = ANSWER_PEER_WRONG;
        assert_int_equal(answer_judge(peer, referee, both), expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_determined_requests),
        cmocka_unit_test(asks_again_the_same),
        cmocka_unit_test(reads_what_was_said),
        cmocka_unit_test(the_same_text_agrees),
        cmocka_unit_test(a_near_tie_agrees),
        cmocka_unit_test(another_text_differs),
        cmocka_unit_test(goes_on_behind_the_end),
        cmocka_unit_test(no_evidence_is_no_verdict),
        cmocka_unit_test(bytes_of_tokens_count),
        cmocka_unit_test(either_evidence_serves_for_two),
        cmocka_unit_test(judges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
