/* Every CUDA kernel, emulated (or on a GPU: `make check-gpu`), against the functions that the gateway checks with. */
#include "tests/unit/cmocka_all.h"

#include "probes/chain.h"
#include "probes/cuda/kernels.h"
#include "probes/tiles.h"
#include "tests/cuda_emu/emu.h"

#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const uint32_t seed[8] = {0x01234567, 0x89abcdef, 0xfedcba98, 0x76543210, 0x0f1e2d3c, 0x4b5a6978, 0x8796a5b4, 1};
static const uint32_t context[8] = {9, 8, 7, 6, 5, 4, 3, 0xffffffff};

static void *take(size_t bytes)
{
    void *memory = emu_take(bytes);
    assert_non_null(memory);
    memset(memory, 0xee, bytes);
    return memory;
}

static void *take_copy(const void *from, size_t bytes)
{
    void *memory = take(bytes);
    memcpy(memory, from, bytes);
    return memory;
}

static uint64_t at(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static uint32_t random_word(void)
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

static void launch(const char *name, void *params, unsigned grid)
{
    static const struct {
        const char *name;
        unsigned threads;
        size_t shared;
    } shapes[] = {
#define SHAPE(kernel, params, threads, shared) {#kernel, threads, shared},
        PROBE_KERNELS(SHAPE)};
    for (size_t i = 0; i < COUNT(shapes); i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            assert_int_equal(emu_launch(name, (void *[]){params}, grid, shapes[i].threads, shapes[i].shared), 0);
            return;
        }
    }
    fail_msg("no kernel %s", name);
}

static uint32_t *make_tiles(uint64_t tiles)
{
    uint32_t *ret = take(tiles * PROBE_TILE_BYTES);
    for (uint64_t i = 0; i < tiles; i++)
        tile_make(seed, i, 1, ret + i * PROBE_TILE_WORDS);
    return ret;
}

static void launch_says_what_is_wrong(void **state)
{
    (void)state;
    struct kernel_read read = {0};
    assert_int_equal(emu_launch("probe_nothing", (void *[]){&read}, 1, 256, 0), 1);
    assert_int_equal(emu_launch("probe_read", (void *[]){&read}, 1, 128, 0), 2);
    assert_int_equal(emu_launch("probe_read", (void *[]){&read}, 0, 256, 0), 2);
    assert_int_equal(emu_launch("probe_read", (void *[]){&read}, 1, 256, 16), 2);
    assert_string_equal(emu_kernel_name(0), "probe_fill");
    assert_null(emu_kernel_name(1000));
}

static void fill_writes_tiles(void **state)
{
    (void)state;
    static const struct {
        uint64_t first, count;
        uint32_t double_rounds;
        unsigned grid;
    } cases[] = {{0, 1, 4, 1}, {0, 3, 1, 1}, {7, 5, 10, 2}, {0xfffffffe, 4, 3, 3}, {0x100000000u, 1, 2, 9}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint32_t *tiles = take((cases[i].count + 1) * PROBE_TILE_BYTES), want[PROBE_TILE_WORDS];
        struct kernel_fill p = {.tiles_at = at(tiles),
                                .first = cases[i].first,
                                .count = cases[i].count,
                                .double_rounds = cases[i].double_rounds};
        memcpy(p.seed, seed, sizeof seed);
        launch("probe_fill", &p, cases[i].grid);
        for (uint64_t t = 0; t < cases[i].count; t++) {
            tile_make(seed, cases[i].first + t, cases[i].double_rounds, want);
            assert_memory_equal(tiles + t * PROBE_TILE_WORDS, want, sizeof want);
        }
        assert_int_equal(tiles[cases[i].count * PROBE_TILE_WORDS], 0xeeeeeeee);
        emu_give(tiles);
    }
}

static void merkle_of(uint32_t *tree, uint64_t count, const uint32_t *key, uint32_t *next_key)
{
    unsigned level = 0;
    do {
        const uint64_t width = kernel_tree_width(count, level);
        const uint64_t to = kernel_tree_begin(count, width == 1 ? level : level + 1);
        struct kernel_merkle p = {
            .in_at = at(tree + 8 * kernel_tree_begin(count, level)), .out_at = at(tree + 8 * to), .count = width};
        if (kernel_merkle_grid(width) == 1 && next_key) {
            p.key_at = at(key);
            p.next_key_at = at(next_key);
        }
        launch("probe_merkle", &p, kernel_merkle_grid(width));
    } while (kernel_tree_width(count, ++level) > 1);
}

static void merkle_makes_roots(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1, 2, 3, 5, 255, 511, 512, 513, 1023, 1025, 3001};
    for (size_t i = 0; i < COUNT(counts); i++) {
        const uint64_t count = counts[i], nodes = kernel_tree_nodes(count);
        uint32_t *tree = take((nodes + 1) * 32), *leaves = take(count * 32), root[8], want[8];
        uint32_t *key = take_copy(seed, sizeof seed), *next = take(32);
        for (uint64_t w = 0; w < count * 8; w++)
            tree[w] = leaves[w] = random_word();
        merkle_of(tree, count, key, next);
        merkle_root((uint32_t(*)[8])leaves, count, root);
        assert_memory_equal(tree + 8 * (nodes - 1), root, sizeof root);
        assert_int_equal(tree[8 * nodes], 0xeeeeeeee);
        probe_next_key(seed, root, want);
        assert_memory_equal(next, want, sizeof want);
        emu_give(tree);
        emu_give(leaves);
        emu_give(key);
        emu_give(next);
    }
}

static void trees_lie_as_told(void **state)
{
    (void)state;
    assert_int_equal(kernel_tree_levels(1), 1);
    assert_int_equal(kernel_tree_levels(2), 2);
    assert_int_equal(kernel_tree_levels(512), 2);
    assert_int_equal(kernel_tree_levels(513), 3);
    assert_int_equal(kernel_tree_nodes(1), 1);
    assert_int_equal(kernel_tree_nodes(513), 513 + 2 + 1);
    assert_int_equal(kernel_tree_begin(513, 2), 515);
    assert_int_equal(kernel_tree_width((uint64_t)1 << 22, 2), 16);
}

static void pass_hashes_tiles(void **state)
{
    (void)state;
    static const struct {
        uint64_t tiles;
        unsigned grid;
    } cases[] = {{1, 1}, {2, 1}, {31, 2}, {32, 1}, {33, 1}, {96, 1}, {300, 1}, {301, 2}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const uint64_t tiles = cases[i].tiles, subtrees = (tiles + 31) / 32, nodes = kernel_tree_nodes(subtrees);
        uint32_t *data = make_tiles(tiles), *tree = take((nodes + 1) * 32), *want = take(tiles * 32);
        uint32_t *again = take(32 * 32), *key = take_copy(seed, sizeof seed);
        uint32_t stream[PROBE_PASS_KEY_WORDS], root[8];
        struct kernel_pass p = {
            .tiles_at = at(data), .key_at = at(key), .nodes_at = at(tree), .tiles = tiles, .count = subtrees};
        memcpy(p.context, context, sizeof context);
        launch("probe_pass", &p, cases[i].grid);
        merkle_of(tree, subtrees, NULL, NULL);
        pass_key_make(key, stream);
        for (uint64_t t = 0; t < tiles; t++) {
            uint64_t nh[2];
            tile_nh(data + t * PROBE_TILE_WORDS, stream, nh);
            probe_tile_leaf(context, t, nh[0], nh[1], want + 8 * t);
        }
        for (uint64_t s = 0; s<subtrees; s += subtrees> 1 ? subtrees - 1 : 1) { /* the first and the last */
            const uint64_t here = tiles - 32 * s < 32 ? tiles - 32 * s : 32;
            struct kernel_pass open = p;
            open.first = s;
            open.count = 1;
            open.leaves_at = at(again);
            memset(again, 0xee, 32 * 32);
            launch("probe_pass", &open, 1);
            assert_memory_equal(again, want + 8 * 32 * s, here * 32);
            if (here < 32)
                assert_int_equal(again[here * 8], 0xeeeeeeee);
        }
        merkle_root((uint32_t(*)[8])want, tiles, root);
        assert_memory_equal(tree + 8 * (nodes - 1), root, sizeof root);
        assert_int_equal(tree[8 * nodes], 0xeeeeeeee);
        emu_give(data);
        emu_give(tree);
        emu_give(want);
        emu_give(again);
        emu_give(key);
    }
}

static void walk_follows_lines(void **state)
{
    (void)state;
    static const struct {
        uint64_t tiles;
        uint32_t walkers, steps;
        unsigned grid;
    } cases[] = {{1, 1, 1, 1}, {5, 3, 9, 1}, {40, 8, 20, 1}, {33, 9, 7, 2}, {7, 33, 5, 1}, {64, 70, 6, 3}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const uint32_t walkers = cases[i].walkers, steps = cases[i].steps;
        uint32_t *data = make_tiles(cases[i].tiles), *leaves = take((walkers + 1) * 32), key[PROBE_WALK_KEY_WORDS];
        uint64_t *trace = take(((uint64_t)walkers * (steps + 1) + 1) * 8), *want = take((steps + 1) * 8);
        struct kernel_walk p = {
            .tiles_at = at(data), .trace_at = at(trace), .tiles = cases[i].tiles, .walkers = walkers, .steps = steps};
        struct kernel_walk_leaves q = {
            .trace_at = at(trace), .leaves_at = at(leaves), .walkers = walkers, .steps = steps};
        memcpy(p.key, seed, sizeof seed);
        memcpy(q.context, context, sizeof context);
        launch("probe_walk", &p, cases[i].grid);
        launch("probe_walk_leaves", &q, cases[i].grid);
        walk_key_make(seed, key);
        for (uint32_t w = 0; w < walkers; w++) {
            uint32_t leaf[8];
            want[0] = probe_walk_start(seed, w);
            for (uint32_t s = 0; s < steps; s++) {
                const uint64_t tile = probe_walk_tile(want[s], cases[i].tiles);
                const uint32_t *line =
                    data + tile * PROBE_TILE_WORDS + probe_walk_line(want[s]) * (uint64_t)PROBE_LINE_WORDS;
                want[s + 1] = probe_walk_next(want[s], line_nh(line, key));
            }
            assert_memory_equal(trace + (uint64_t)w * (steps + 1), want, (steps + 1) * 8);
            walk_leaf(context, w, want, steps, leaf);
            assert_memory_equal(leaves + 8 * w, leaf, sizeof leaf);
        }
        assert_int_equal(leaves[8 * walkers], 0xeeeeeeee);
        emu_give(data);
        emu_give(leaves);
        emu_give(trace);
        emu_give(want);
    }
}

/* -- CHAIN ------------------------------------------------------------------------------------------------------------
 */

static void transpose(const void *in, void *out, uint32_t rows, uint32_t columns, unsigned grid)
{
    struct kernel_chain_transpose p = {at(in), at(out), rows, columns};
    launch("probe_chain_transpose", &p, grid);
}

static void matrices_are_those_of_the_gateway(void **state)
{
    (void)state;
    static const struct {
        uint32_t rows, columns;
        unsigned grid;
    } cases[] = {{64, 64, 1}, {64, 192, 1}, {128, 64, 3}, {192, 320, 2}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const uint32_t rows = cases[i].rows, columns = cases[i].columns;
        int8_t *made = take((size_t)rows * columns + 1), *turned = take((size_t)rows * columns + 1);
        int8_t want[320];
        struct kernel_chain_rows p = {
            .out_at = at(made), .domain = PROBE_DOMAIN_CHAIN_X, .rows = rows, .columns = columns};
        memcpy(p.seed, seed, sizeof seed);
        launch("probe_chain_rows", &p, cases[i].grid);
        transpose(made, turned, rows, columns, cases[i].grid);
        for (uint32_t r = 0; r < rows; r++) {
            chain_row_make(seed, PROBE_DOMAIN_CHAIN_X, r, columns, want);
            assert_memory_equal(made + (size_t)r * columns, want, columns);
            for (uint32_t c = 0; c < columns; c++)
                assert_int_equal(turned[(size_t)c * rows + r], want[c]);
        }
        assert_int_equal((uint8_t)made[(size_t)rows * columns], 0xee);
        assert_int_equal((uint8_t)turned[(size_t)rows * columns], 0xee);
        emu_give(made);
        emu_give(turned);
    }
}

/* All scales with sums at both ends, about zero, about multiples of 251 and anywhere. */
static void residues_are_exact(void **state)
{
    (void)state;
    enum { N = 256, WIDTH = 160 };
    int32_t *sums = take((size_t)N * WIDTH * 4);
    uint16_t *table = take(N * sizeof *table);
    int8_t *next = take((size_t)N * N);
    for (uint32_t i = 0; i < N; i++)
        table[i] = (uint16_t)(i % 250 + 1);
    for (uint32_t c = 0; c < WIDTH; c++) {
        for (uint32_t i = 0; i < N; i++) {
            int64_t v = (int32_t)random_word();
            if (c < 40)
                v = INT32_MIN + (int64_t)(c * 10);
            else if (c < 80)
                v = INT32_MAX - (int64_t)((c - 40) * 10);
            else if (c < 110)
                v = (int64_t)c - 95;
            else if (c < 140)
                v = v / 251 * 251 + (int64_t)(c % 7) - 3;
            sums[c * N + i] = (int32_t)(v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : v);
        }
    }
    struct kernel_chain_epilogue p = {at(sums), at(next), at(table), N, 1, 32, WIDTH};
    launch("probe_chain_epilogue", &p, 5);
    for (uint32_t c = 0; c < WIDTH; c++) {
        for (uint32_t i = 0; i < N; i++)
            assert_int_equal(next[(size_t)(32 + c) * N + i], probe_chain_element(sums[c * N + i], table[i]));
    }
    assert_int_equal((uint8_t)next[31 * N], 0xee);
    assert_int_equal((uint8_t)next[(32 + WIDTH) * N], 0xee);
    emu_give(sums);
    emu_give(table);
    emu_give(next);
}

enum route { MMA, DP4A, LIBRARY, ROUTES };

struct chain_case {
    uint32_t n, blocks, steps;
};

/* What cublasLt does: sums of `width` columns of every block, from `first`. Half a billion reads by one thread. */
__attribute__((no_sanitize("thread"))) static void
library_product(const int8_t *a, const int8_t *x, struct chain_case shape, uint32_t first, uint32_t width, int32_t *ret)
{
    for (uint32_t b = 0; b < shape.blocks; b++) {
        for (uint32_t c = 0; c < width; c++) {
            const int8_t *column = x + ((size_t)b * shape.n + first + c) * shape.n;
            for (uint32_t i = 0; i < shape.n; i++) {
                int32_t sum = 0;
                for (uint32_t k = 0; k < shape.n; k++)
                    sum += a[(size_t)i * shape.n + k] * column[k];
                ret[((size_t)b * width + c) * shape.n + i] = sum;
            }
        }
    }
}

static void step_by(enum route route, struct chain_case shape, const int8_t *a, const int8_t *x, int8_t *next,
                    const uint16_t *table)
{
    const uint32_t n = shape.n, blocks = shape.blocks;
    struct kernel_chain_step p = {at(a), at(x), at(next), at(table), n, blocks};
    if (route == MMA)
        launch("probe_chain_mma", &p, kernel_chain_mma_grid(n, blocks));
    else if (route == DP4A)
        launch("probe_chain_dp4a", &p, kernel_chain_dp4a_grid(n, blocks));
    else {
        enum { WIDTH = 48 };
        int32_t *sums = take((size_t)blocks * WIDTH * n * 4);
        for (uint32_t first = 0; first < n; first += WIDTH) {
            const uint32_t width = n - first < WIDTH ? n - first : WIDTH;
            struct kernel_chain_epilogue q = {at(sums), at(next), at(table), n, blocks, first, width};
            library_product(a, x, shape, first, width, sums);
            launch("probe_chain_epilogue", &q, 3);
        }
        emu_give(sums);
    }
}

/* A whole challenge in the order that kernels.h gives: the root, and X_L in *ret (row after row). */
static void chain_by(enum route route, struct chain_case shape, int8_t *ret, uint32_t root[8])
{
    const uint32_t n = shape.n, columns = shape.n * shape.blocks, chunks = kernel_row_chunks(columns);
    const size_t size = (size_t)n * columns;
    const uint64_t nodes = kernel_tree_nodes(n);
    int8_t *a = take((size_t)n * n), *x = take(size + 1), *y = take(size + 1);
    uint16_t *table = take((size_t)n * shape.steps * 2);
    uint32_t *digests = take((size_t)n * chunks * 32), *tree = take(nodes * 32);
    struct kernel_chain_rows rows = {.out_at = at(a), .domain = PROBE_DOMAIN_CHAIN_A, .rows = n, .columns = n};
    memcpy(rows.seed, seed, sizeof seed);
    launch("probe_chain_rows", &rows, 2);
    rows = (struct kernel_chain_rows){.out_at = at(y), .domain = PROBE_DOMAIN_CHAIN_X, .rows = n, .columns = columns};
    memcpy(rows.seed, seed, sizeof seed);
    launch("probe_chain_rows", &rows, 2);
    transpose(y, x, n, columns, 2);
    struct kernel_chain_table t = {.out_at = at(table), .n = n, .blocks = shape.blocks, .steps = shape.steps};
    memcpy(t.seed, seed, sizeof seed);
    launch("probe_chain_table", &t, 1);
    for (uint32_t step = 0; step < shape.steps; step++) {
        int8_t *next = y;
        memset(next, 0xee, size);
        step_by(route, shape, a, x, next, table + (size_t)step * n);
        y = x;
        x = next;
    }
    assert_int_equal((uint8_t)x[size], 0xee);
    transpose(x, y, columns, n, 2);
    struct kernel_row_chunks c = {.bytes_at = at(y), .digests_at = at(digests), .rows = n, .columns = columns};
    struct kernel_row_leaves l = {.digests_at = at(digests), .leaves_at = at(tree), .rows = n, .chunks = chunks};
    memcpy(c.context, context, sizeof context);
    memcpy(l.context, context, sizeof context);
    launch("probe_row_chunks", &c, 1);
    launch("probe_row_leaves", &l, 2);
    merkle_of(tree, n, NULL, NULL);
    memcpy(ret, y, size);
    memcpy(root, tree + 8 * (nodes - 1), 32);
    emu_give(a);
    emu_give(x);
    emu_give(y);
    emu_give(table);
    emu_give(digests);
    emu_give(tree);
}

static void chains_end_alike(void **state)
{
    (void)state;
    static const struct chain_case cases[] = {{64, 1, 1},  {64, 16, 3}, {64, 3, 2},  {128, 4, 3},
                                              {128, 7, 2}, {192, 5, 1}, {256, 1, 2}, {320, 4, 1}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const uint32_t n = cases[i].n, columns = n * cases[i].blocks;
        int8_t *want = take((size_t)n * columns), *got = take((size_t)n * columns);
        uint32_t *leaves = take((size_t)n * 32), want_root[8], root[8];
        assert_int_equal(chain_run(seed, n, cases[i].blocks, cases[i].steps, want), ERR_NONE);
        for (uint32_t r = 0; r < n; r++)
            chain_leaf(context, r, want + (size_t)r * columns, columns, leaves + 8 * r);
        merkle_root((uint32_t(*)[8])leaves, n, want_root);
        for (enum route route = MMA; route < ROUTES; route++) {
            chain_by(route, cases[i], got, root);
            assert_memory_equal(got, want, (size_t)n * columns);
            assert_memory_equal(root, want_root, sizeof root);
        }
        emu_give(want);
        emu_give(got);
        emu_give(leaves);
    }
}

/* -- What is no challenge ---------------------------------------------------------------------------------------------
 */

static void census_and_rates(void **state)
{
    (void)state;
    enum { OUT = 256, PIECES = 5 };
    uint32_t *seen = take(32 * 4), *out = take(OUT * 4), *bytes = take(PIECES * 4096), sum = 0, count = 0;
    memset(seen, 0, 32 * 4);
    struct kernel_smids smids = {at(seen), 100000};
    launch("probe_smids", &smids, 8 * emu_multiprocessors());
    for (uint32_t i = 0; i < 1024; i++)
        count += seen[i / 32] >> i % 32 & 1;
    assert_int_equal(count, emu_multiprocessors());
    for (uint32_t i = 0; i < PIECES * 1024; i++)
        sum += bytes[i] = random_word();
    memset(out, 0, OUT * 4);
    struct kernel_read read = {at(bytes), at(out), PIECES * 4096};
    launch("probe_read", &read, 1);
    assert_int_equal(out[0], sum);
    for (uint32_t kind = KERNEL_RATE_BF16; kind <= KERNEL_RATE_INT8; kind++) {
        struct kernel_rate rate = {at(out), 2, kind};
        memset(out, 0, OUT * 4);
        launch("probe_rate", &rate, 1);
        assert_int_not_equal(out[OUT - 1], 0);
    }
    emu_give(seen);
    emu_give(out);
    emu_give(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launch_says_what_is_wrong), cmocka_unit_test(fill_writes_tiles),
        cmocka_unit_test(merkle_makes_roots),        cmocka_unit_test(trees_lie_as_told),
        cmocka_unit_test(pass_hashes_tiles),         cmocka_unit_test(walk_follows_lines),
        cmocka_unit_test(residues_are_exact),        cmocka_unit_test(matrices_are_those_of_the_gateway),
        cmocka_unit_test(chains_end_alike),          cmocka_unit_test(census_and_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
