#include "tests/unit/cmocka_all.h"

#include "core/clock.h"
#include "probes/chain_pool.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static const struct chain_shape small = {256, 4, 2}, large = {576, 2, 1}, other = {576, 2, 2};
static struct chain_pool *pool;

static int setup(void **state)
{
    (void)state;
    return (int)chain_pool_open(2, &pool);
}

static int teardown(void **state)
{
    (void)state;
    pool = chain_pool_free(pool);
    return 0;
}

static void wait_for_ready(unsigned count)
{
    while (chain_pool_stats(pool).ready < count)
        usleep(1000);
}

static void wait_until_idle(void)
{
    struct chain_pool_stats stats;
    do {
        usleep(1000);
        stats = chain_pool_stats(pool);
    } while (stats.making || stats.ready != stats.shapes);
}

static void take_when_ready(struct chain_shape shape, struct fingerprint *ret)
{
    enum error error;
    while ((error = chain_pool_take(pool, shape, ret)) == ERR_BUSY)
        usleep(1000);
    assert_int_equal(error, ERR_NONE);
    assert_true(chain_shape_equal(ret->shape, shape));
}

static void nothing_is_made_unasked(void **state)
{
    (void)state;
    struct chain_pool_stats stats = chain_pool_stats(pool);
    assert_int_equal(stats.shapes + stats.ready + stats.making, 0);
    assert_int_equal(stats.made, 0);
    chain_pool_want(pool, small); /* costs nothing beforehand */
    assert_int_equal(chain_pool_stats(pool).shapes, 0);
}

static void small_ones_on_the_spot(void **state)
{
    (void)state;
    struct fingerprint a, b;
    assert_int_equal(chain_pool_take(pool, small, &a), ERR_NONE);
    assert_int_equal(chain_pool_take(pool, small, &b), ERR_NONE);
    assert_true(memcmp(a.seed, b.seed, sizeof(a.seed)) != 0);
    assert_int_equal(chain_pool_stats(pool).taken, 2);
    assert_true(chain_pool_stats(pool).cpu_ns > 0);
    fingerprint_free(&a);
    fingerprint_free(&b);
}

static void large_ones_beforehand(void **state)
{
    (void)state;
    struct fingerprint a;
    chain_pool_want(pool, large);
    wait_for_ready(2); /* one for the taker, one more */
    assert_int_equal(chain_pool_take(pool, large, &a), ERR_NONE);
    assert_true(chain_shape_equal(a.shape, large));
    fingerprint_free(&a);
    wait_until_idle();
    assert_int_equal(chain_pool_stats(pool).made, 2); /* the one more is there: nothing further is made */
    assert_int_equal(chain_pool_stats(pool).ready, 1);
}

static void asking_is_enough(void **state)
{
    (void)state;
    struct fingerprint a;
    assert_int_equal(chain_pool_take(pool, large, &a), ERR_BUSY);
    take_when_ready(large, &a);
    fingerprint_free(&a);
}

static void many_wishes_are_bounded(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        chain_pool_want(pool, (struct chain_shape){576, 1, 1});
    wait_for_ready(32);
    struct chain_pool_stats stats = chain_pool_stats(pool);
    assert_int_equal(stats.ready, 32);
    assert_int_equal(stats.making, 0);
}

static void many_shapes_are_bounded(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3 * CHAIN_POOL_SHAPES_MAX; i++)
        chain_pool_want(pool, (struct chain_shape){576, 1, 1 + i});
    assert_true(chain_pool_stats(pool).shapes <= CHAIN_POOL_SHAPES_MAX);
}

static void old_ones_are_dropped(void **state)
{
    (void)state;
    struct fingerprint a;
    take_when_ready(other, &a);
    fingerprint_free(&a);
    chain_pool_want(pool, large);
    wait_for_ready(3);
    chain_pool_sweep(pool, clock_mono_ns() + 3599 * NS_PER_S);
    assert_int_equal(chain_pool_stats(pool).dropped, 0);
    chain_pool_sweep(pool, clock_mono_ns() + 3601 * NS_PER_S);
    struct chain_pool_stats stats = chain_pool_stats(pool);
    assert_int_equal(stats.dropped, 3);
    assert_int_equal(stats.ready + stats.making, 0);
    assert_int_equal(stats.shapes, 0); /* nobody used them for an hour */
}

static void *taker(void *ctx)
{
    unsigned *count = ctx;
    for (int i = 0; i < 6; i++) {
        struct fingerprint a;
        chain_pool_want(pool, large);
        take_when_ready(i % 2 ? large : other, &a);
        *count += a.prints != NULL;
        fingerprint_free(&a);
    }
    return NULL;
}

static void takers_on_many_threads(void **state)
{
    (void)state;
    enum { TAKERS = 3 };
    pthread_t threads[TAKERS];
    unsigned counts[TAKERS] = {0};
    for (int i = 0; i < TAKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, taker, &counts[i]), 0);
    for (int i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(counts[i], 6);
    }
    assert_int_equal(chain_pool_stats(pool).taken, 6 * TAKERS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_made_unasked, setup, teardown),
        cmocka_unit_test_setup_teardown(small_ones_on_the_spot, setup, teardown),
        cmocka_unit_test_setup_teardown(large_ones_beforehand, setup, teardown),
        cmocka_unit_test_setup_teardown(asking_is_enough, setup, teardown),
        cmocka_unit_test_setup_teardown(many_wishes_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(many_shapes_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(old_ones_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(takers_on_many_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
