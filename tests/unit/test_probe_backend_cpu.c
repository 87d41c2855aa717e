#include "tests/unit/probe_vectors.h"

#include "probes/backend.h"
#include "probes/chain.h"
#include "probes/tiles.h"
#include "probes/vector.h"

#include <string.h>

static const struct probe_backend_ops *const ops = &probe_backend_cpu;
static const struct probe_fill fill = {.seed = {1, 2, 3}, .tiles = 13, .double_rounds = 2};
static const struct probe_pass pass = {
    .challenge = {11, 12, 13, 14}, .worker_key = {21, 22}, .key = {31, 32}, .passes = 3};
static const struct probe_walk walk = {
    .challenge = {41, 42, 43, 44}, .worker_key = {21, 22}, .key = {51, 52}, .walkers = 21, .steps = 9};
static const struct probe_chain chain = {
    .challenge = {61}, .worker_key = {21, 22}, .seed = {71}, .n = 64, .blocks = 3, .steps = 4};

static int open_backend(void **state)
{
    struct probe_backend *backend = NULL;
    if (ops->open(0, &backend) != ERR_NONE)
        return -1;
    *state = backend;
    return 0;
}
static int close_backend(void **state)
{
    *state = ops->close(*state);
    return *state != NULL;
}

static void one_device(void **state)
{
    struct probe_backend *other = (void *)1;
    struct probe_claim claim;
    assert_int_equal(ops->count(), 1);
    assert_int_equal(ops->open(1, &other), ERR_NOT_FOUND);
    assert_ptr_equal(other, (void *)1);
    assert_null(ops->close(NULL));
    assert_string_equal(ops->name, "cpu");
    memset(&claim, 0xff, sizeof(claim));
    ops->claim(*state, &claim);
    assert_string_equal(claim.name, "cpu");
    assert_int_equal(claim.vram_bytes, 16 << 20);
    assert_int_equal(claim.free_bytes, 16 << 20);
    for (size_t i = 0; i < sizeof(claim.uuid); i++)
        assert_int_equal(claim.uuid[i], 0);
    assert_int_equal(ops->warm(*state), ERR_NONE);
    assert_int_equal(ops->clock_mhz(*state), 0);
    assert_string_equal(probe_route_name(PROBE_ROUTE_CPU), "cpu");
    for (int i = 0; i < PROBE_ROUTE_COUNT; i++)
        assert_string_not_equal(probe_route_name((enum probe_route)i), "unknown");
    assert_string_equal(probe_route_name(PROBE_ROUTE_COUNT), "unknown");
}

static void fill_and_pass(void **state)
{
    uint32_t roots[PROBE_PASSES_MAX][8], tile[PROBE_TILE_WORDS], stream[PROBE_PASS_KEY_WORDS];
    uint32_t key[8], next[8], context[8], leaf[8];
    struct buf to;
    buf_init(&to, 0);
    assert_int_equal(ops->fill(*state, &fill), ERR_NONE);
    assert_int_equal(ops->pass(*state, &pass, roots), ERR_NONE);
    memcpy(key, pass.key, sizeof(key));
    for (uint32_t p = 0; p < pass.passes; p++) {
        pass_key_make(key, stream);
        probe_context(pass.challenge, pass.worker_key, p, context);
        for (uint64_t i = 0; i < fill.tiles; i++) {
            uint64_t nh[2];
            tile_make(fill.seed, i, fill.double_rounds, tile);
            buf_clear(&to);
            assert_int_equal(ops->tile_read(*state, i, &to), ERR_NONE);
            assert_true(str_eq(buf_str(&to), (struct str){(const char *)tile, sizeof(tile)}));
            tile_nh(tile, stream, nh);
            probe_tile_leaf(context, i, nh[0], nh[1], leaf);
            buf_clear(&to);
            assert_int_equal(ops->pass_open(*state, p, i, &to), ERR_NONE);
            assert_true(merkle_check(leaf, i, fill.tiles, buf_str(&to), roots[p]));
            assert_false(merkle_check(leaf, i, fill.tiles, buf_str(&to), roots[(p + 1) % pass.passes]));
        }
        probe_next_key(key, roots[p], next);
        memcpy(key, next, sizeof(key));
    }
    assert_int_equal(ops->pass_open(*state, pass.passes, 0, &to), ERR_BAD_INPUT);
    assert_int_equal(ops->pass_open(*state, 0, fill.tiles, &to), ERR_BAD_INPUT);
    assert_int_equal(ops->tile_read(*state, fill.tiles, &to), ERR_BAD_INPUT);
    buf_free(&to);
}

static void walks(void **state)
{
    uint32_t root[8], key[PROBE_WALK_KEY_WORDS], context[8], leaf[8], line[PROBE_LINE_WORDS];
    struct buf trace, path;
    buf_init(&trace, 0);
    buf_init(&path, 0);
    assert_int_equal(ops->fill(*state, &fill), ERR_NONE);
    assert_int_equal(ops->walk(*state, &walk, root), ERR_NONE);
    walk_key_make(walk.key, key);
    probe_context(walk.challenge, walk.worker_key, 0, context);
    for (uint32_t w = 0; w < walk.walkers; w++) {
        uint64_t xs[10], x = probe_walk_start(walk.key, w);
        buf_clear(&trace);
        buf_clear(&path);
        assert_int_equal(ops->walk_open(*state, w, &trace, &path), ERR_NONE);
        assert_int_equal(trace.len, sizeof(xs));
        memcpy(xs, trace.ptr, sizeof(xs));
        for (uint32_t s = 0; s <= walk.steps; s++) {
            assert_int_equal(xs[s], x);
            tile_line_make(fill.seed, probe_walk_tile(x, fill.tiles), probe_walk_line(x), fill.double_rounds, line);
            x = probe_walk_next(x, line_nh(line, key));
        }
        walk_leaf(context, w, xs, walk.steps, leaf);
        assert_true(merkle_check(leaf, w, walk.walkers, buf_str(&path), root));
    }
    assert_int_equal(ops->walk_open(*state, walk.walkers, &trace, &path), ERR_BAD_INPUT);
    buf_free(&trace);
    buf_free(&path);
}

static void chains(void **state)
{
    uint32_t root[8], context[8], leaf[8];
    size_t columns = (size_t)chain.n * chain.blocks;
    int8_t *rows = malloc(chain.n * columns);
    struct buf bytes, path;
    enum probe_route route = PROBE_ROUTE_COUNT;
    assert_non_null(rows);
    buf_init(&bytes, 0);
    buf_init(&path, 0);
    assert_int_equal(ops->chain(*state, &chain, root, &route), ERR_NONE);
    assert_int_equal(route, PROBE_ROUTE_CPU);
    assert_int_equal(chain_run(chain.seed, chain.n, chain.blocks, chain.steps, rows), ERR_NONE);
    probe_context(chain.challenge, chain.worker_key, 0, context);
    for (uint32_t i = 0; i < chain.n; i++) {
        buf_clear(&bytes);
        buf_clear(&path);
        assert_int_equal(ops->chain_open(*state, i, &bytes, &path), ERR_NONE);
        assert_true(str_eq(buf_str(&bytes), (struct str){(const char *)rows + i * columns, columns}));
        chain_leaf(context, i, rows + i * columns, (uint32_t)columns, leaf);
        assert_true(merkle_check(leaf, i, chain.n, buf_str(&path), root));
    }
    assert_int_equal(ops->chain_open(*state, chain.n, &bytes, &path), ERR_BAD_INPUT);
    /* what does not fit leaves nothing behind */
    struct buf tight;
    buf_init(&tight, 16);
    buf_clear(&bytes);
    assert_int_equal(ops->chain_open(*state, 0, &bytes, &tight), ERR_NO_MEMORY);
    assert_int_equal(bytes.len, 0);
    assert_int_equal(ops->chain_open(*state, 0, &tight, &path), ERR_NO_MEMORY);
    free(rows);
    buf_free(&tight);
    buf_free(&bytes);
    buf_free(&path);
}

static void nothing_opens(struct probe_backend *backend)
{
    struct buf to, path;
    buf_init(&to, 0);
    buf_init(&path, 0);
    assert_int_equal(ops->tile_read(backend, 0, &to), ERR_BAD_INPUT);
    assert_int_equal(ops->pass_open(backend, 0, 0, &to), ERR_BAD_INPUT);
    assert_int_equal(ops->walk_open(backend, 0, &to, &path), ERR_BAD_INPUT);
    assert_int_equal(ops->chain_open(backend, 0, &to, &path), ERR_BAD_INPUT);
    assert_int_equal(to.len + path.len, 0);
    buf_free(&to);
    buf_free(&path);
}

static void nothing_opens_before_it_is_computed(void **state)
{
    uint32_t roots[PROBE_PASSES_MAX][8];
    enum probe_route route;
    struct buf to, path;
    nothing_opens(*state);
    assert_int_equal(ops->pass(*state, &pass, roots), ERR_BAD_INPUT);
    assert_int_equal(ops->walk(*state, &walk, roots[0]), ERR_BAD_INPUT);
    nothing_opens(*state);
    buf_init(&to, 0);
    buf_init(&path, 0);
    /* a new fill forgets what was said of the old one; release forgets all */
    for (int round = 0; round < 2; round++) {
        assert_int_equal(ops->fill(*state, &fill), ERR_NONE);
        assert_int_equal(ops->pass(*state, &pass, roots), ERR_NONE);
        assert_int_equal(ops->walk(*state, &walk, roots[0]), ERR_NONE);
        assert_int_equal(ops->chain(*state, &chain, roots[0], &route), ERR_NONE);
        if (round == 0) {
            assert_int_equal(ops->fill(*state, &fill), ERR_NONE);
            assert_int_equal(ops->tile_read(*state, 0, &to), ERR_NONE);
            assert_int_equal(ops->pass_open(*state, 0, 0, &to), ERR_BAD_INPUT);
            assert_int_equal(ops->walk_open(*state, 0, &to, &path), ERR_BAD_INPUT);
            assert_int_equal(ops->chain_open(*state, 0, &to, &path), ERR_BAD_INPUT);
        } else {
            ops->release(*state);
            nothing_opens(*state);
        }
    }
    buf_free(&to);
    buf_free(&path);
}

static void what_cannot_be_is_refused(void **state)
{
    uint32_t roots[PROBE_PASSES_MAX][8];
    enum probe_route route;
    struct probe_fill bad_fill = fill;
    bad_fill.tiles = 0;
    assert_int_equal(ops->fill(*state, &bad_fill), ERR_BAD_INPUT);
    bad_fill.tiles = UINT32_MAX;
    assert_int_equal(ops->fill(*state, &bad_fill), ERR_NO_MEMORY);
    nothing_opens(*state);
    assert_int_equal(ops->fill(*state, &fill), ERR_NONE);
    struct probe_pass bad_pass = pass;
    bad_pass.passes = 0;
    assert_int_equal(ops->pass(*state, &bad_pass, roots), ERR_BAD_INPUT);
    bad_pass.passes = PROBE_PASSES_MAX + 1;
    assert_int_equal(ops->pass(*state, &bad_pass, roots), ERR_BAD_INPUT);
    struct probe_walk bad_walk = walk;
    bad_walk.walkers = 0;
    assert_int_equal(ops->walk(*state, &bad_walk, roots[0]), ERR_BAD_INPUT);
    struct probe_chain bad_chain = chain;
    static const uint32_t shapes[][2] = {{0, 4}, {63, 4}, {65, 4}, {64, 0}, {64, 256}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        bad_chain.n = shapes[i][0];
        bad_chain.blocks = shapes[i][1];
        assert_int_equal(ops->chain(*state, &bad_chain, roots[0], &route), ERR_BAD_INPUT);
    }
    bad_chain.n = 32768;
    bad_chain.blocks = 8;
    assert_int_equal(ops->chain(*state, &bad_chain, roots[0], &route), ERR_NO_MEMORY);
}

static void bench_measures(void **state)
{
    struct probe_bench bench = ops->bench(*state);
    assert_true(bench.memory_gbps > 0 && bench.int8_tops > 0);
    assert_true(bench.bf16_tflops == 0 && bench.h2d_gbps == 0 && bench.d2h_gbps == 0);
    assert_string_equal(bench.route, "cpu");
    assert_int_equal(bench.free_bytes, 16 << 20);
}

static void reference_vectors(void **state)
{
    for (enum probe_vector vector = PROBE_VECTOR_PORTABLE; vector <= probe_vector_best(); vector++) {
        probe_vector_force(vector);
        probe_vectors_hold(ops, *state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_device, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(fill_and_pass, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(walks, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(chains, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(nothing_opens_before_it_is_computed, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(bench_measures, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(reference_vectors, open_backend, close_backend),
        cmocka_unit_test_setup_teardown(what_cannot_be_is_refused, open_backend, close_backend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
