/* The backend of a machine without a GPU: the same answers, out of ordinary memory, by one thread. */
#include "core/clock.h"
#include "probes/backend.h"
#include "probes/chain.h"
#include "probes/tiles.h"

#include <stdlib.h>
#include <string.h>

#define OFFERED_BYTES (UINT64_C(16) << 20)   /* what the claim says; more is taken when asked for, up to */
#define HELD_BYTES_MAX (UINT64_C(256) << 20) /* ... this, of tiles and of a chain's X: no gateway may ask for all */
#define WARM_NS (5 * NS_PER_MS)

typedef uint32_t digest[PROBE_HASH_WORDS];

struct probe_backend {
    struct probe_fill fill; /* tiles 0: nothing is filled */
    uint32_t *tiles;
    uint32_t passes;
    digest *pass_trees;     /* one after the other, of merkle_tree_nodes(fill.tiles) each */
    struct probe_walk walk; /* walkers 0: none; traces are walked again when they are asked for */
    digest *walk_tree;
    struct probe_chain chain; /* n 0: none */
    int8_t *rows;             /* X_L */
    digest *chain_tree;
};

static unsigned cpu_count(void)
{
    return 1;
}

static enum error cpu_open(unsigned index, struct probe_backend **ret)
{
    if (index >= cpu_count())
        return ERR_NOT_FOUND;
    struct probe_backend *backend = calloc(1, sizeof(*backend));
    if (!backend)
        return ERR_NO_MEMORY;
    *ret = backend;
    return ERR_NONE;
}

static void drop_pass(struct probe_backend *backend)
{
    free(backend->pass_trees);
    backend->pass_trees = NULL;
    backend->passes = 0;
}

static void drop_walk(struct probe_backend *backend)
{
    free(backend->walk_tree);
    backend->walk_tree = NULL;
    backend->walk = (struct probe_walk){0};
}

static void drop_chain(struct probe_backend *backend)
{
    free(backend->rows);
    free(backend->chain_tree);
    backend->rows = NULL;
    backend->chain_tree = NULL;
    backend->chain = (struct probe_chain){0};
}

static void cpu_release(struct probe_backend *backend)
{
    drop_pass(backend);
    drop_walk(backend);
    drop_chain(backend);
    free(backend->tiles);
    backend->tiles = NULL;
    backend->fill = (struct probe_fill){0};
}

static struct probe_backend *cpu_close(struct probe_backend *backend)
{
    if (backend)
        cpu_release(backend);
    free(backend);
    return NULL;
}

static void cpu_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    (void)backend;
    *ret = (struct probe_claim){.name = "cpu", .vram_bytes = OFFERED_BYTES, .free_bytes = OFFERED_BYTES};
}

static enum error cpu_warm(struct probe_backend *backend)
{
    static const uint32_t seed[8] = {1};
    uint32_t tile[PROBE_TILE_WORDS];
    (void)backend;
    for (int64_t end_ns = clock_mono_ns() + WARM_NS; clock_mono_ns() < end_ns;)
        tile_make(seed, 0, 64, tile);
    return ERR_NONE;
}

static enum error cpu_fill(struct probe_backend *backend, const struct probe_fill *fill)
{
    cpu_release(backend);
    if (fill->tiles == 0 || fill->double_rounds == 0)
        return ERR_BAD_INPUT;
    if (fill->tiles > HELD_BYTES_MAX / PROBE_TILE_BYTES)
        return ERR_NO_MEMORY;
    backend->tiles = aligned_alloc(64, (size_t)fill->tiles * PROBE_TILE_BYTES);
    if (!backend->tiles)
        return ERR_NO_MEMORY;
    for (uint64_t i = 0; i < fill->tiles; i++)
        tile_make(fill->seed, i, fill->double_rounds, backend->tiles + i * PROBE_TILE_WORDS);
    backend->fill = *fill;
    return ERR_NONE;
}

static enum error cpu_pass(struct probe_backend *backend, const struct probe_pass *pass,
                           uint32_t ret_roots[PROBE_PASSES_MAX][8])
{
    uint64_t tiles = backend->fill.tiles, nodes = merkle_tree_nodes(tiles);
    uint32_t key[8], next[8], context[8], stream[PROBE_PASS_KEY_WORDS];
    drop_pass(backend);
    if (tiles == 0 || pass->passes == 0 || pass->passes > PROBE_PASSES_MAX)
        return ERR_BAD_INPUT;
    backend->pass_trees = malloc((size_t)nodes * pass->passes * sizeof(digest));
    if (!backend->pass_trees)
        return ERR_NO_MEMORY;
    memcpy(key, pass->key, sizeof(key));
    for (uint32_t p = 0; p < pass->passes; p++) {
        digest *tree = backend->pass_trees + p * nodes;
        pass_key_make(key, stream);
        probe_context(pass->challenge, pass->worker_key, p, context);
        for (uint64_t i = 0; i < tiles; i++) {
            uint64_t nh[2];
            tile_nh(backend->tiles + i * PROBE_TILE_WORDS, stream, nh);
            probe_tile_leaf(context, i, nh[0], nh[1], tree[i]);
        }
        merkle_tree_grow(tree, tiles);
        memcpy(ret_roots[p], tree[nodes - 1], sizeof(digest));
        probe_next_key(key, ret_roots[p], next);
        memcpy(key, next, sizeof(key));
    }
    backend->passes = pass->passes;
    return ERR_NONE;
}

static enum error cpu_pass_open(struct probe_backend *backend, uint32_t pass, uint64_t tile, struct buf *to)
{
    if (pass >= backend->passes)
        return ERR_BAD_INPUT;
    const digest *tree = (const digest *)backend->pass_trees + pass * merkle_tree_nodes(backend->fill.tiles);
    return merkle_tree_path(tree, backend->fill.tiles, tile, to);
}

/* The positions of a walker, steps + 1 of them. */
static void walk_trace(const struct probe_backend *backend, const uint32_t start[8],
                       const uint32_t key[PROBE_WALK_KEY_WORDS], uint32_t walker, uint32_t steps, uint64_t *ret)
{
    uint64_t x = ret[0] = probe_walk_start(start, walker);
    for (uint32_t i = 1; i <= steps; i++) {
        const uint32_t *tile = backend->tiles + probe_walk_tile(x, backend->fill.tiles) * PROBE_TILE_WORDS;
        x = ret[i] = probe_walk_next(x, line_nh(tile + (size_t)probe_walk_line(x) * PROBE_LINE_WORDS, key));
    }
}

static enum error cpu_walk(struct probe_backend *backend, const struct probe_walk *walk, uint32_t ret_root[8])
{
    uint32_t key[PROBE_WALK_KEY_WORDS], context[8];
    uint64_t nodes = merkle_tree_nodes(walk->walkers), *trace = NULL;
    enum error error = ERR_NO_MEMORY;
    drop_walk(backend);
    if (backend->fill.tiles == 0 || walk->walkers == 0)
        return ERR_BAD_INPUT;
    trace = malloc(((size_t)walk->steps + 1) * sizeof(*trace));
    backend->walk_tree = malloc((size_t)nodes * sizeof(digest));
    if (!trace || !backend->walk_tree)
        goto out;
    walk_key_make(walk->key, key);
    probe_context(walk->challenge, walk->worker_key, 0, context);
    for (uint32_t i = 0; i < walk->walkers; i++) {
        walk_trace(backend, walk->key, key, i, walk->steps, trace);
        walk_leaf(context, i, trace, walk->steps, backend->walk_tree[i]);
    }
    merkle_tree_grow(backend->walk_tree, walk->walkers);
    memcpy(ret_root, backend->walk_tree[nodes - 1], sizeof(digest));
    backend->walk = *walk;
    error = ERR_NONE;
out:
    free(trace);
    return error;
}

static enum error cpu_walk_open(struct probe_backend *backend, uint32_t walker, struct buf *trace, struct buf *path)
{
    const struct probe_walk *walk = &backend->walk;
    uint32_t key[PROBE_WALK_KEY_WORDS];
    size_t words = (size_t)walk->steps + 1, trace_was = trace->len;
    if (walker >= walk->walkers)
        return ERR_BAD_INPUT;
    uint64_t *walked = malloc(words * sizeof(*walked));
    if (!walked)
        return ERR_NO_MEMORY;
    walk_key_make(walk->key, key);
    walk_trace(backend, walk->key, key, walker, walk->steps, walked);
    enum error error = buf_append(trace, walked, words * sizeof(*walked)) ? ERR_NONE : ERR_NO_MEMORY;
    free(walked);
    if (error == ERR_NONE)
        error = merkle_tree_path((const digest *)backend->walk_tree, walk->walkers, walker, path);
    if (error != ERR_NONE)
        trace->len = trace_was;
    return error;
}

static enum error cpu_tile_read(struct probe_backend *backend, uint64_t tile, struct buf *to)
{
    if (tile >= backend->fill.tiles)
        return ERR_BAD_INPUT;
    return buf_append(to, backend->tiles + tile * PROBE_TILE_WORDS, PROBE_TILE_BYTES) ? ERR_NONE : ERR_NO_MEMORY;
}

static enum error cpu_chain(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                            enum probe_route *ret_route)
{
    uint32_t n = chain->n, context[8];
    uint64_t columns = (uint64_t)n * chain->blocks, nodes = merkle_tree_nodes(n);
    drop_chain(backend);
    if (n == 0 || n % 64 != 0 || chain->blocks == 0 || chain->blocks > UINT8_MAX)
        return ERR_BAD_INPUT;
    if (columns > HELD_BYTES_MAX / n)
        return ERR_NO_MEMORY;
    backend->rows = malloc((size_t)(n * columns));
    backend->chain_tree = malloc((size_t)nodes * sizeof(digest));
    enum error error = backend->rows && backend->chain_tree
                           ? chain_run(chain->seed, n, chain->blocks, chain->steps, backend->rows)
                           : ERR_NO_MEMORY;
    if (error != ERR_NONE) {
        drop_chain(backend);
        return error;
    }
    probe_context(chain->challenge, chain->worker_key, 0, context);
    for (uint32_t i = 0; i < n; i++)
        chain_leaf(context, i, backend->rows + i * columns, (uint32_t)columns, backend->chain_tree[i]);
    merkle_tree_grow(backend->chain_tree, n);
    memcpy(ret_root, backend->chain_tree[nodes - 1], sizeof(digest));
    *ret_route = PROBE_ROUTE_CPU;
    backend->chain = *chain;
    return ERR_NONE;
}

static enum error cpu_chain_open(struct probe_backend *backend, uint32_t row, struct buf *bytes, struct buf *path)
{
    size_t columns = (size_t)backend->chain.n * backend->chain.blocks, bytes_was = bytes->len;
    if (row >= backend->chain.n)
        return ERR_BAD_INPUT;
    if (!buf_append(bytes, backend->rows + row * columns, columns))
        return ERR_NO_MEMORY;
    enum error error = merkle_tree_path((const digest *)backend->chain_tree, backend->chain.n, row, path);
    if (error != ERR_NONE)
        bytes->len = bytes_was;
    return error;
}

static uint32_t cpu_clock_mhz(struct probe_backend *backend)
{
    (void)backend;
    return 0;
}

static uint64_t sum_of(const uint64_t *words, size_t count)
{
    uint64_t sums[8] = {0}, sum = 0;
    for (size_t i = 0; i < count; i += 8)
        for (size_t k = 0; k < 8; k++)
            sums[k] += words[i + k];
    for (size_t k = 0; k < 8; k++)
        sum += sums[k];
    return sum;
}

/* Reads a buffer that no cache holds a few times; the best counts. */
static double bench_memory_gbps(void)
{
    const size_t bytes = (size_t)128 << 20, words = bytes / sizeof(uint64_t);
    uint64_t *buffer = malloc(bytes);
    int64_t best_ns = INT64_MAX;
    if (!buffer)
        return 0;
    memset(buffer, 1, bytes);
    for (int round = 0; round < 4 && best_ns > 0; round++) {
        int64_t start_ns = clock_mono_ns();
        bool is_right = sum_of(buffer, words) == buffer[0] * words;
        int64_t took_ns = is_right ? clock_mono_ns() - start_ns : 0;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
    }
    free(buffer);
    return best_ns > 0 ? (double)bytes / (double)best_ns : 0;
}

/* Chains of one step and of five: the difference is four steps and nothing else. */
static double bench_int8_tops(void)
{
    enum { N = 512, BLOCKS = 2 };
    static const uint32_t seed[8] = {1};
    int8_t *rows = malloc((size_t)N * N * BLOCKS);
    int64_t took_ns[2] = {0, 0};
    bool is_done = rows != NULL;
    for (int i = 0; i < 2 && is_done; i++) {
        int64_t start_ns = clock_mono_ns();
        is_done = chain_run(seed, N, BLOCKS, i ? 5 : 1, rows) == ERR_NONE;
        took_ns[i] = clock_mono_ns() - start_ns;
    }
    free(rows);
    return is_done && took_ns[1] > took_ns[0] ? 4 * 2.0 * N * N * N * BLOCKS / (double)(took_ns[1] - took_ns[0]) / 1e3
                                              : 0;
}

static struct probe_bench cpu_bench(struct probe_backend *backend)
{
    (void)backend;
    return (struct probe_bench){
        .memory_gbps = bench_memory_gbps(),
        .int8_tops = bench_int8_tops(),
        .free_bytes = OFFERED_BYTES,
        .route = "cpu",
    };
}

const struct probe_backend_ops probe_backend_cpu = {
    .name = "cpu",
    .count = cpu_count,
    .open = cpu_open,
    .close = cpu_close,
    .claim = cpu_claim,
    .warm = cpu_warm,
    .fill = cpu_fill,
    .pass = cpu_pass,
    .pass_open = cpu_pass_open,
    .walk = cpu_walk,
    .walk_open = cpu_walk_open,
    .tile_read = cpu_tile_read,
    .chain = cpu_chain,
    .chain_open = cpu_chain_open,
    .release = cpu_release,
    .clock_mhz = cpu_clock_mhz,
    .bench = cpu_bench,
};
