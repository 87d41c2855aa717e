#include "tests/unit/cmocka_all.h"
#include "core/clock.h"
#include "gateway/verify_pool.h"

#define PATIENCE_NS (20 * NS_PER_S)

struct outcome {
    unsigned fired, right, cancelled;
    bool in_call;
};

static void on_done(void *ctx, enum error error, bool is_right)
{
    struct outcome *outcome = ctx;
    assert_false(outcome->in_call);
    outcome->fired++;
    outcome->right += error == ERR_NONE && is_right;
    outcome->cancelled += error == ERR_CANCELLED;
}

static void question(struct challenge *challenge, struct buf *answer)
{
    challenge_make(challenge);
    buf_init(answer, CHALLENGE_ANSWER_MAX);
    struct str text = {(const char *)challenge->question, challenge->question_len};
    assert_int_equal(challenge_answer(text, answer), ERR_NONE);
}

static enum error check(struct verify_pool *pool, const struct challenge *challenge, struct buf *answer,
                        struct outcome *outcome)
{
    outcome->in_call = true;
    enum error error = verify_pool_check(pool, challenge, answer, on_done, outcome);
    outcome->in_call = false;
    return error;
}

static void tells_right_from_wrong(void **state)
{
    (void)state;
    struct loop *loop;
    struct verify_pool *pool;
    struct outcome outcome = {0};
    struct challenge challenge;
    struct buf answer, wrong;
    assert_int_equal(loop_open(&loop), ERR_NONE);
    assert_int_equal(verify_pool_open(loop, 2, 8, &pool), ERR_NONE);
    question(&challenge, &answer);
    buf_init(&wrong, CHALLENGE_ANSWER_MAX);
    assert_true(buf_append_str(&wrong, buf_str(&answer)));
    wrong.ptr[wrong.len / 2] ^= 1;
    assert_int_equal(check(pool, &challenge, &answer, &outcome), ERR_NONE);
    assert_int_equal(check(pool, &challenge, &wrong, &outcome), ERR_NONE);
    assert_null(answer.ptr);
    for (int64_t until = clock_mono_ns() + PATIENCE_NS; outcome.fired < 2;) {
        assert_true(clock_mono_ns() < until);
        loop_turn(loop, 10 * NS_PER_MS);
    }
    assert_int_equal(outcome.right, 1);
    assert_int_equal(outcome.cancelled, 0);
    verify_pool_free(pool);
    loop_free(loop);
}

/* Without a turn of the loop nothing completes, so the queue fills; what is open when the pool goes completes there. */
static void is_bounded_and_completes_all(void **state)
{
    (void)state;
    struct loop *loop;
    struct verify_pool *pool;
    struct outcome outcome = {0};
    struct challenge challenge;
    struct buf answer, copy;
    assert_int_equal(loop_open(&loop), ERR_NONE);
    assert_int_equal(verify_pool_open(loop, 1, 4, &pool), ERR_NONE);
    question(&challenge, &answer);
    for (unsigned i = 0; i < 4; i++) {
        buf_init(&copy, CHALLENGE_ANSWER_MAX);
        assert_true(buf_append_str(&copy, buf_str(&answer)));
        assert_int_equal(check(pool, &challenge, &copy, &outcome), ERR_NONE);
    }
    assert_int_equal(check(pool, &challenge, &answer, &outcome), ERR_BUSY);
    assert_non_null(answer.ptr);
    assert_int_equal(outcome.fired, 0);
    verify_pool_free(pool);
    assert_int_equal(outcome.fired, 4);
    assert_int_equal(outcome.right + outcome.cancelled, 4);
    loop_turn(loop, 0); /* a wake-up that was posted comes late and finds nothing */
    assert_int_equal(outcome.fired, 4);
    buf_free(&answer);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_right_from_wrong),
        cmocka_unit_test(is_bounded_and_completes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
