#include "tests/unit/cmocka_all.h"

#include "gateway/sse_scan.h"

#include <string.h>

/* Events as text: a letter of their kind, then what the caller gets. */
struct record {
    char text[4096];
    size_t len;
};

static void record_event(void *arg, const struct sse_event *event)
{
    struct record *record = arg;
    record->len += (size_t)snprintf(record->text + record->len, sizeof(record->text) - record->len, "%c<" STR_FMT ">",
                                    "coCUDEM"[event->kind], STR_ARG(event->text));
    assert_true(record->len < sizeof(record->text));
}

/* Scans text cut in three. */
static void scan_cut(struct sse_scan *scan, enum sse_mode mode, struct str text, size_t a, size_t b,
                     struct record *record)
{
    *record = (struct record){.len = 0};
    sse_scan_init(scan, mode, 0, record_event, record);
    assert_int_equal(sse_scan_feed(scan, (struct str){text.ptr, a}), ERR_NONE);
    assert_int_equal(sse_scan_feed(scan, (struct str){text.ptr + a, b - a}), ERR_NONE);
    assert_int_equal(sse_scan_feed(scan, (struct str){text.ptr + b, text.len - b}), ERR_NONE);
    assert_int_equal(sse_scan_end(scan), ERR_NONE);
}

#define ROLE \
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}"
#define HI "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}"
#define STOP "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}"
#define USAGE "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}"

static const struct {
    const char *in, *out;
    bool complete, failed;
} chats[] = {
    {"", "", false, false},
    {ROLE "\n\n" HI "\n\n" STOP "\n\n" USAGE "\n\ndata: [DONE]\n\n",
     "o<" ROLE "\n\n>C<" HI "\n\n>C<" STOP "\n\n>U<" USAGE "\n\n>D<data: [DONE]\n\n>", true, false},
    {HI "\r\n\r\n" STOP "\r\rdata:[DONE]\r\n\r\n", "C<" HI "\n\n>C<" STOP "\n\n>D<data: [DONE]\n\n>", true, false},
    {"\xef\xbb\xbf" HI "\n\n", "C<" HI "\n\n>", false, false},
    {"\xef\xbb\xbf"
     "event: x\nid: 1\n" HI "\nretry: 5\n\nid: 2\n\n",
     "C<" HI "\n\n>", false, false},
    {"\n\n\r\n"
     ": ping\n\n:\n" HI "\n\n",
     "c<: ping\n\n>C<:\n" HI "\n\n>", false, false},
    {"data: [DONE]", "D<data: [DONE]\n\n>", true, false},
    {"data:  [DONE] \n", "D<data: [DONE]\n\n>", true, false},
    {"data: [DONE]\n\n" HI "\n\n", "D<data: [DONE]\n\n>", true, false},
    {STOP "\n\n", "C<" STOP "\n\n>", true, false},
    {STOP "\n\ndata: [DO", "C<" STOP "\n\n>", true, false},
    {HI "\n\ndata: {\"choices\":[{\"ind", "C<" HI "\n\n>", false, false},
    {HI, "C<" HI "\n\n>", false, false},
    {"data: {\"error\":{\"message\":\"no\"}}\n\n", "E<data: {\"error\":{\"message\":\"no\"}}\n\n>", false, true},
    {"event: error\ndata: {\"error\":null,\"choices\":[]}\n\n", "o<data: {\"error\":null,\"choices\":[]}\n\n>", false,
     false},
    {"data: oops\n\n", "M<data: oops\n\n>", false, true},
    {"data: [1]\n\n", "M<data: [1]\n\n>", false, true},
    {"data: {\"choices\":[]\ndata: ,\"usage\":{\"prompt_tokens\":1}}\n\n",
     "U<data: {\"choices\":[]\ndata: ,\"usage\":{\"prompt_tokens\":1}}\n\n>", false, false},
    {"data:\n\ndata\n\n", "", false, false},
    {"database: 1\n" HI "\n\n", "C<" HI "\n\n>", false, false},
    {"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"},{\"index\":1,\"text\":\"\"}]}\n\n",
     "C<data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"},{\"index\":1,\"text\":\"\"}]}\n\n>",
     false, false},
};

static void chat_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(chats) / sizeof(*chats); i++) {
        struct str text = str_of(chats[i].in);
        for (size_t a = 0; a <= text.len; a++) {
            for (size_t b = a; b <= text.len; b += text.len > 100 ? 17 : 1) {
                struct sse_scan scan;
                struct record record;
                scan_cut(&scan, SSE_CHAT, text, a, b, &record);
                if (strcmp(record.text, chats[i].out) != 0)
                    fail_msg("case %zu cut at %zu, %zu:\n%s\nis not\n%s", i, a, b, record.text, chats[i].out);
                assert_int_equal(sse_scan_is_complete(&scan), chats[i].complete);
                assert_int_equal(scan.failed, chats[i].failed);
                assert_int_equal(scan.committed, strstr(chats[i].out, "C<") != NULL);
                sse_scan_free(&scan);
            }
        }
    }
}

static void commits(void **state)
{
    (void)state;
    static const struct {
        const char *choice;
        enum sse_kind kind;
    } cases[] = {
        {"{\"index\":0,\"delta\":{}}", SSE_OTHER},
        {"{\"index\":0,\"delta\":null}", SSE_OTHER},
        {"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[],\"refusal\":null}}",
         SSE_OTHER},
        {"{\"delta\":{\"x\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}}", SSE_OTHER},
        {"{\"index\":0,\"delta\":{\"reasoning_content\":\"h\"}}", SSE_CONTENT},
        {"{\"index\":0,\"delta\":{\"reasoning\":\"h\"}}", SSE_CONTENT},
        {"{\"index\":0,\"delta\":{\"refusal\":\"no\"}}", SSE_CONTENT},
        {"{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0}]}}", SSE_CONTENT},
        {"{\"index\":0,\"delta\":{\"function_call\":{\"name\":\"f\"}}}", SSE_CONTENT},
        {"{\"index\":0,\"text\":\"t\"}", SSE_CONTENT},
        {"{\"index\":0,\"text\":\"\"}", SSE_OTHER},
        {"{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}", SSE_CONTENT},
        {"{\"index\":200,\"text\":\"t\",\"finish_reason\":\"length\"}", SSE_CONTENT},
        {"7", SSE_OTHER},
        {"{\"index\":0,\"delta\":{}},{\"index\":1,\"delta\":{\"content\":\"x\"}}", SSE_CONTENT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[512], want[520];
        struct sse_scan scan;
        struct record record;
        snprintf(text, sizeof(text), "data: {\"choices\":[%s],\"usage\":null}\n\n", cases[i].choice);
        snprintf(want, sizeof(want), "%c<%s>", cases[i].kind == SSE_CONTENT ? 'C' : 'o', text);
        scan_cut(&scan, SSE_CHAT, str_of(text), 0, 0, &record);
        assert_string_equal(record.text, want);
        assert_false(scan.usage.known);
        assert_int_equal(sse_scan_is_complete(&scan), strstr(text, "length") && !strstr(text, "200"));
        sse_scan_free(&scan);
    }
}

static void usage_is_read(void **state)
{
    (void)state;
    struct sse_scan scan;
    struct record record;
    scan_cut(
        &scan, SSE_CHAT,
        STR("data: "
            "{\"choices\":[{\"index\":0,\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n"
            "data: {\"usage\":{\"prompt_tokens\":3,\"prompt_tokens_details\":{\"prompt_tokens\":9},"
            "\"completion_tokens\":17,\"total_tokens\":20},\"choices\":[ ]}\n\n"),
        5, 50, &record);
    assert_true(scan.usage.known);
    assert_int_equal(scan.usage.prompt_tokens, 3);
    assert_int_equal(scan.usage.completion_tokens, 17);
    sse_scan_free(&scan);
}

static void response_streams(void **state)
{
    (void)state;
    static const char text[] =
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\n\n"
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n"
        "event: response.completed\ndata: {\"response\":{\"output\":[{\"usage\":{\"input_tokens\":1}}],\"usage\":"
        "{\"input_tokens\":5,\"output_tokens\":6,\"total_tokens\":11}},\"type\":\"response.completed\"}\n\n";
    for (size_t a = 0; a < sizeof(text); a++) {
        struct sse_scan scan;
        struct record record;
        scan_cut(&scan, SSE_RESPONSES, str_of(text), a, a, &record);
        assert_string_equal(record.text, "o<>C<>o<>");
        assert_true(scan.committed && scan.ended && !scan.failed && sse_scan_is_complete(&scan));
        assert_int_equal(scan.usage.prompt_tokens, 5);
        assert_int_equal(scan.usage.completion_tokens, 6);
        sse_scan_free(&scan);
    }
    struct sse_scan scan;
    struct record record;
    scan_cut(&scan, SSE_RESPONSES, STR("data: {\"type\":\"error\",\"code\":\"x\"}\n\n"), 0, 0, &record);
    assert_string_equal(record.text, "E<>");
    assert_true(scan.failed && !sse_scan_is_complete(&scan));
    sse_scan_free(&scan);
}

static void events_are_bounded(void **state)
{
    (void)state;
    struct sse_scan scan;
    struct record record = {.len = 0};
    sse_scan_init(&scan, SSE_CHAT, 64, record_event, &record);
    for (int i = 0; i < 6; i++)
        assert_int_equal(sse_scan_feed(&scan, STR(": 34567\n\n:")), ERR_NONE);
    sse_scan_free(&scan);
    sse_scan_init(&scan, SSE_CHAT, 64, record_event, &record);
    enum error error = ERR_NONE;
    for (int i = 0; i < 7 && !error; i++)
        error = sse_scan_feed(&scan, STR(": 34567890"));
    assert_int_equal(error, ERR_TOO_LARGE);
    assert_int_equal(sse_scan_feed(&scan, STR("\n\n")), ERR_TOO_LARGE);
    assert_int_equal(sse_scan_end(&scan), ERR_TOO_LARGE);
    sse_scan_free(&scan);
    sse_scan_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_streams),       cmocka_unit_test(commits),
        cmocka_unit_test(usage_is_read),      cmocka_unit_test(response_streams),
        cmocka_unit_test(events_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
