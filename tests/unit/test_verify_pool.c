#include "tests/unit/cmocka_all.h"
#include "core/clock.h"
#include "gateway/verify_pool.h"

#include <stdatomic.h>

#define PATIENCE_NS (20 * NS_PER_S)

struct outcome {
    struct verify_job job;
    atomic_uint runs;
    unsigned fired, cancelled;
    bool in_call;
};

static void on_run(struct verify_job *job)
{
    atomic_fetch_add(&container_of(job, struct outcome, job)->runs, 1);
}

static void on_done(struct verify_job *job, enum error error)
{
    struct outcome *outcome = container_of(job, struct outcome, job);
    assert_false(outcome->in_call);
    outcome->fired++;
    outcome->cancelled += error == ERR_CANCELLED;
    assert_int_equal(atomic_load(&outcome->runs), error == ERR_NONE);
}

static enum error give(struct verify_pool *pool, struct outcome *outcome)
{
    outcome->job.run = on_run;
    outcome->job.done = on_done;
    outcome->in_call = true;
    enum error error = verify_pool_give(pool, &outcome->job);
    outcome->in_call = false;
    return error;
}

static void runs_and_tells_on_the_loop(void **state)
{
    (void)state;
    struct loop *loop;
    struct verify_pool *pool;
    struct outcome outcomes[8] = {0};
    unsigned fired = 0;
    assert_int_equal(loop_open(&loop), ERR_NONE);
    assert_int_equal(verify_pool_open(loop, 2, 8, &pool), ERR_NONE);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(give(pool, &outcomes[i]), ERR_NONE);
    for (int64_t until = clock_mono_ns() + PATIENCE_NS; fired < 8;) {
        assert_true(clock_mono_ns() < until);
        loop_turn(loop, 10 * NS_PER_MS);
        fired = 0;
        for (unsigned i = 0; i < 8; i++)
            fired += outcomes[i].fired;
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(outcomes[i].fired, 1);
        assert_int_equal(outcomes[i].cancelled, 0);
    }
    assert_null(verify_pool_free(pool));
    loop_free(loop);
}

/* Without a turn of the loop nothing completes, so the queue fills; what is open when the pool goes completes there. */
static void is_bounded_and_completes_all(void **state)
{
    (void)state;
    struct loop *loop;
    struct verify_pool *pool;
    struct outcome outcomes[5] = {0};
    unsigned done = 0;
    assert_int_equal(loop_open(&loop), ERR_NONE);
    assert_int_equal(verify_pool_open(loop, 1, 4, &pool), ERR_NONE);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(give(pool, &outcomes[i]), ERR_NONE);
    assert_int_equal(give(pool, &outcomes[4]), ERR_BUSY);
    assert_int_equal(outcomes[0].fired, 0);
    verify_pool_free(pool);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(outcomes[i].fired, 1);
        done += atomic_load(&outcomes[i].runs) + outcomes[i].cancelled;
    }
    assert_int_equal(done, 4);
    loop_turn(loop, 0); /* a wake-up that was posted comes late and finds nothing */
    assert_int_equal(outcomes[0].fired, 1);
    assert_int_equal(outcomes[4].fired, 0);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runs_and_tells_on_the_loop),
        cmocka_unit_test(is_bounded_and_completes_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
