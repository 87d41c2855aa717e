#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "core/crypto.h"
#include "probes/challenge.h"

#include <string.h>

#define HEAD 40
#define ELEMENTS (384 * 384)

static struct challenge challenge;
static struct buf answer;

static int setup(void **state)
{
    (void)state;
    challenge_make(&challenge);
    buf_init(&answer, CHALLENGE_ANSWER_MAX);
    return (int)challenge_answer((struct str){(char *)challenge.question, challenge.question_len}, &answer);
}

static int teardown(void **state)
{
    (void)state;
    buf_free(&answer);
    return 0;
}

static void right_answer(void **state)
{
    (void)state;
    assert_int_equal(answer.len, HEAD + ELEMENTS);
    assert_true(answer.len <= CHALLENGE_ANSWER_MAX);
    assert_true(challenge.deadline_ns >= NS_PER_S);
    for (int i = 0; i < 3; i++)
        assert_true(challenge_check(&challenge, buf_str(&answer)));
}

static void every_changed_byte_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < 150; i++) {
        size_t at = i < HEAD ? i : HEAD + (i * UINT64_C(2654435761)) % ELEMENTS;
        char before = answer.ptr[at];
        answer.ptr[at] = (char)(before ^ 1);
        assert_false(challenge_check(&challenge, buf_str(&answer)));
        answer.ptr[at] = before;
    }
    assert_true(challenge_check(&challenge, buf_str(&answer)));
}

static void another_form_of_the_same_value_is_wrong(void **state)
{
    (void)state;
    size_t at = HEAD;
    while ((uint8_t)answer.ptr[at] > 4)
        at++;
    answer.ptr[at] = (char)((uint8_t)answer.ptr[at] + 251);
    assert_false(challenge_check(&challenge, buf_str(&answer)));
}

static void wrong_sizes(void **state)
{
    (void)state;
    assert_false(challenge_check(&challenge, (struct str){NULL, 0}));
    for (size_t len = 0; len < answer.len; len += answer.len / 37)
        assert_false(challenge_check(&challenge, (struct str){answer.ptr, len}));
    assert_false(challenge_check(&challenge, (struct str){answer.ptr, answer.len - 1}));
    assert_true(buf_append(&answer, "\0", 1));
    assert_false(challenge_check(&challenge, buf_str(&answer)));
}

static void answer_to_another_question(void **state)
{
    (void)state;
    struct challenge other;
    challenge_make(&other);
    assert_false(challenge_check(&other, buf_str(&answer)));
    /* with the other question's name on it */
    uint8_t digest[SHA256_BYTES];
    crypto_sha256((struct str){(char *)other.question, other.question_len}, digest);
    memcpy(answer.ptr + 8, digest, sizeof(digest));
    assert_false(challenge_check(&other, buf_str(&answer)));
    assert_false(challenge_check(&challenge, buf_str(&answer)));
}

static void two_rows_swapped(void **state)
{
    (void)state;
    char row[384];
    memcpy(row, answer.ptr + HEAD, 384);
    memmove(answer.ptr + HEAD, answer.ptr + HEAD + 384, 384);
    memcpy(answer.ptr + HEAD + 384, row, 384);
    assert_false(challenge_check(&challenge, buf_str(&answer)));
}

static void malformed_questions(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 0);
    struct str question = {(char *)challenge.question, challenge.question_len};
    for (size_t len = 0; len < question.len; len++)
        assert_int_equal(challenge_answer((struct str){question.ptr, len}, &out), ERR_BAD_INPUT);
    assert_int_equal(challenge_answer((struct str){question.ptr, question.len + 1}, &out), ERR_BAD_INPUT);
    for (size_t at = 0; at < 12; at++) {
        challenge.question[at] ^= 1;
        assert_int_equal(challenge_answer(question, &out), ERR_BAD_INPUT);
        challenge.question[at] ^= 1;
    }
    assert_int_equal(out.len, 0);
    struct buf small;
    buf_init(&small, 1000);
    assert_int_equal(challenge_answer(question, &small), ERR_NO_MEMORY);
    assert_int_equal(small.len, 0);
    buf_free(&small);
    buf_free(&out);
}

/* Fixes the protocol: a fixed seed has one answer, on every machine, for ever. */
static void known_answer(void **state)
{
    (void)state;
    char hex[SHA256_HEX];
    for (size_t i = 12; i < challenge.question_len; i++)
        challenge.question[i] = (uint8_t)i;
    buf_clear(&answer);
    assert_int_equal(challenge_answer((struct str){(char *)challenge.question, challenge.question_len}, &answer), 0);
    assert_true(challenge_check(&challenge, buf_str(&answer)));
    crypto_sha256_hex(buf_str(&answer), hex);
    assert_string_equal(hex, "fcfa75784f5f74df40475bae13c46417ecfd720f437f8c5a1a4029dce682e045");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(right_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(every_changed_byte_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(another_form_of_the_same_value_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(answer_to_another_question, setup, teardown),
        cmocka_unit_test_setup_teardown(two_rows_swapped, setup, teardown),
        cmocka_unit_test_setup_teardown(malformed_questions, setup, teardown),
        cmocka_unit_test_setup_teardown(known_answer, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
