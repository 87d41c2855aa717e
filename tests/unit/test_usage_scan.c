#include "tests/unit/cmocka_all.h"

#include "gateway/usage_scan.h"

static void answers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum error error;
        bool is_error, known;
        int64_t prompt, completion;
    } cases[] = {
        {"{}", ERR_NONE, false, false, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}", ERR_NONE, false, true, 3, 4},
        {"{\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}}", ERR_NONE, false, true, 3, 0},
        {"{\"usage\":{\"prompt_tokens\":3,\"total_tokens\":8}}", ERR_NONE, false, true, 3, 5},
        {"{\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}", ERR_NONE, false, true, 3, 4},
        {"{\"usage\":{\"prompt_tokens\":-3,\"completion_tokens\":\"4\"}}", ERR_NONE, false, false, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":1e99,\"completion_tokens\":4}}", ERR_NONE, false, true, 0, 4},
        {"{\"usage\":null,\"x\":{\"usage\":{\"prompt_tokens\":3}}}", ERR_NONE, false, false, 0, 0},
        {"{\"error\":{\"message\":\"x\"}}", ERR_NONE, true, false, 0, 0},
        {"{\"error\":\"x\"}", ERR_NONE, true, false, 0, 0},
        {"{\"error\":null}", ERR_NONE, false, false, 0, 0},
        {"{\"data\":[{\"error\":1}]}", ERR_NONE, false, false, 0, 0},
        {"", ERR_PROTOCOL, false, false, 0, 0},
        {"<html>", ERR_PROTOCOL, false, false, 0, 0},
        {"[{\"usage\":{}}]", ERR_PROTOCOL, false, false, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":3}", ERR_PROTOCOL, false, false, 0, 0},
        {"{} x", ERR_PROTOCOL, false, false, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct str text = str_of(cases[i].text);
        for (size_t cut = 0; cut <= text.len; cut++) {
            struct usage_scan scan;
            usage_scan_init(&scan);
            enum error error = usage_scan_feed(&scan, (struct str){text.ptr, cut});
            error = error ? error : usage_scan_feed(&scan, (struct str){text.ptr + cut, text.len - cut});
            error = error ? error : usage_scan_end(&scan, text);
            if (error != cases[i].error)
                fail_msg("%s: %s", cases[i].text, error_text(error));
            if (error)
                continue;
            assert_int_equal(scan.is_error, cases[i].is_error);
            assert_int_equal(scan.usage.known, cases[i].known);
            assert_int_equal(scan.usage.prompt_tokens, cases[i].prompt);
            assert_int_equal(scan.usage.completion_tokens, cases[i].completion);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
