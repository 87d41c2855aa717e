/* core/http_pool: what libmicrohttpd counts on in its own pool. */
#include "core/http_pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct MemoryPool *MHD_pool_create(size_t size);
void MHD_pool_destroy(struct MemoryPool *pool);
size_t MHD_pool_get_free(struct MemoryPool *pool);
void *MHD_pool_allocate(struct MemoryPool *pool, size_t size, bool from_end);
void *MHD_pool_try_alloc(struct MemoryPool *pool, size_t size, size_t *required);
void *MHD_pool_reallocate(struct MemoryPool *pool, void *old, size_t old_size, size_t new_size);
void *MHD_pool_reset(struct MemoryPool *pool, void *keep, size_t keep_size, size_t new_size);

static void test_two_ends(void **state)
{
    (void)state;
    size_t required = 7;
    struct MemoryPool *pool = MHD_pool_create(1000); /* 1008 when rounded up */
    assert_true(http_pool_is_ours());
    char *front = MHD_pool_allocate(pool, 500, false), *end = MHD_pool_allocate(pool, 100, true);
    assert_non_null(front);
    assert_ptr_equal(end, front + 1008 - 112);
    assert_int_equal(MHD_pool_get_free(pool), 1008 - 512 - 112);
    assert_null(MHD_pool_allocate(pool, 385, false));
    assert_null(MHD_pool_allocate(pool, SIZE_MAX - 3, false));
    assert_null(MHD_pool_try_alloc(pool, 400, &required));
    assert_int_equal(required, 400 - 384);
    assert_null(MHD_pool_try_alloc(pool, SIZE_MAX - 3, &required));
    assert_true(required == SIZE_MAX);
    assert_ptr_equal(MHD_pool_try_alloc(pool, 384, &required), front + 512);
    assert_int_equal(MHD_pool_get_free(pool), 0);
    MHD_pool_destroy(pool);
}

static void test_a_block_grows_moves_and_shrinks(void **state)
{
    (void)state;
    struct MemoryPool *pool = MHD_pool_create(1024);
    char *first = MHD_pool_reallocate(pool, NULL, 0, 100);
    memset(first, 'a', 100);
    assert_ptr_equal(MHD_pool_reallocate(pool, first, 100, 200), first); /* the last one: in place */
    char *second = MHD_pool_allocate(pool, 16, false);
    assert_ptr_equal(second, first + 208);
    char *moved = MHD_pool_reallocate(pool, first, 200, 300);
    assert_ptr_equal(moved, second + 16);
    assert_memory_equal(moved, first, 100);
    assert_ptr_equal(MHD_pool_reallocate(pool, second, 16, 4), second);
    assert_null(MHD_pool_reallocate(pool, moved, 300, 1000));
    assert_null(MHD_pool_reallocate(pool, moved, 300, SIZE_MAX - 100));
    assert_int_equal(moved[99], 'a');
    assert_ptr_equal(MHD_pool_reallocate(pool, moved, 300, 10), moved);
    assert_int_equal(MHD_pool_get_free(pool), 1024 - 208 - 16 - 16);
    MHD_pool_destroy(pool);
}

static void test_reset_keeps_what_it_is_told(void **state)
{
    (void)state;
    struct MemoryPool *pool = MHD_pool_create(1024);
    char *first = MHD_pool_allocate(pool, 512, false);
    assert_non_null(MHD_pool_allocate(pool, 300, true));
    memcpy(first + 100, "the next request", 16);
    assert_ptr_equal(MHD_pool_reset(pool, first + 100, 16, 512), first);
    assert_memory_equal(first, "the next request", 16);
    assert_int_equal(MHD_pool_get_free(pool), 512);
    MHD_pool_destroy(pool);
    MHD_pool_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_ends),
        cmocka_unit_test(test_a_block_grows_moves_and_shrinks),
        cmocka_unit_test(test_reset_keeps_what_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
