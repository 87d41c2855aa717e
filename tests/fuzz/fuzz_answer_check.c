/* A worker's answer is anything: comparing it reads nothing outside, what was said agrees with itself, and a question
 * that is asked again is the same question. */
#include "tests/fuzz/fuzz.h"

#include "core/json_walk.h"
#include "scheduler/answer_check.h"

static bool is_object(struct str text)
{
    return json_scan_all(text, NULL, NULL) == ERR_NONE && json_value_of(text).type == JS_OBJECT;
}

static void ask_again(enum answer_kind kind, struct str body)
{
    bool is_determined = answer_is_determined(kind, body);
    struct buf once, twice;
    buf_init(&once, 0);
    buf_init(&twice, 0);
    CHECK(answer_replay(kind, body, true, &once));
    CHECK(is_object(buf_str(&once)));
    CHECK(answer_is_determined(kind, buf_str(&once)) == is_determined);
    CHECK(answer_replay(kind, buf_str(&once), true, &twice));
    CHECK(str_eq(buf_str(&once), buf_str(&twice)));
    buf_free(&once);
    buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum answer_kind kind = fuzz_byte(&data, &size) & 1 ? ANSWER_COMPLETION : ANSWER_CHAT;
    size_t cut = fuzz_cut(&data, &size, size > 2 ? size - 2 : 0);
    struct str one = {(const char *)data, cut}, other = {(const char *)data + cut, size - cut};
    struct buf said;
    if (!is_object(other))
        return 0;
    ask_again(kind, other);
    answer_compare(kind, one, other);
    buf_init(&said, 0);
    if (answer_text(kind, other, &said) == ERR_NONE) {
        CHECK(answer_compare(kind, buf_str(&said), other) == ANSWER_AGREES);
        CHECK(answer_compare_both(kind, other, other) == ANSWER_AGREES);
    }
    buf_clear(&said);
    enum error error = answer_event_text(kind, other, &said);
    CHECK(error == ERR_NONE || error == ERR_NOT_FOUND);
    if (is_object(one))
        answer_compare_both(kind, one, other);
    buf_free(&said);
    return 0;
}
