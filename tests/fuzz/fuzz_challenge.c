/* The two parsers of the challenge. First byte even: the rest is a question; odd: the rest changes a right answer
 * (pairs of a place and a byte) or stands for one, and only the unchanged answer may pass. */
#include "probes/challenge.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

static void fuzz_question(struct str question)
{
    struct buf answer;
    buf_init(&answer, CHALLENGE_ANSWER_MAX);
    enum error error = challenge_answer(question, &answer);
    expect(error == ERR_NONE ? answer.len > 0 : answer.len == 0);
    buf_free(&answer);
}

static void fuzz_answer(const uint8_t *data, size_t size)
{
    static struct challenge challenge;
    static char *right, *changed;
    static size_t len;
    if (!right) {
        struct buf buf;
        buf_init(&buf, CHALLENGE_ANSWER_MAX);
        challenge_make(&challenge);
        expect(challenge_answer((struct str){(char *)challenge.question, challenge.question_len}, &buf) == ERR_NONE);
        right = buf.ptr;
        len = buf.len;
        changed = malloc(len);
        expect(changed);
    }
    expect(!challenge_check(&challenge, (struct str){(const char *)data, size})); /* too short to be one */
    memcpy(changed, right, len);
    for (; size >= 4; data += 4, size -= 4) {
        size_t at = (data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16) % len;
        changed[at] = (char)data[3];
    }
    expect(challenge_check(&challenge, (struct str){changed, len}) == (memcmp(changed, right, len) == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] & 1)
        fuzz_answer(data + 1, size - 1);
    else
        fuzz_question((struct str){(const char *)data + 1, size - 1});
    return 0;
}
