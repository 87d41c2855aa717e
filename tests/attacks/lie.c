/* The device of lie.h, out of the same parts as the honest ones. */
#include "tests/attacks/lie.h"
#include "probes/chain.h"
#include "probes/tiles.h"

#include <stdlib.h>
#include <string.h>

typedef uint32_t digest[PROBE_HASH_WORDS];

struct probe_backend {
    struct lie *lie;
    struct probe_fill fill;
    uint32_t *tiles; /* all of them; what the device would not hold is never read from here, but for host and peer */
    uint64_t held;   /* the first ones, in the device's memory */
    uint32_t passes;
    digest *pass_trees;
    struct probe_walk walk;
    uint64_t *traces;
    digest *walk_tree;
    struct probe_chain chain;
    int8_t *rows;
    digest *chain_tree;
};

static struct lie *next_lie;

static unsigned lie_count(void)
{
    return 1;
}

static enum error lie_open(unsigned index, struct probe_backend **ret)
{
    (void)index;
    struct probe_backend *backend = calloc(1, sizeof(*backend));
    if (!backend)
        return ERR_NO_MEMORY;
    backend->lie = next_lie;
    *ret = backend;
    return ERR_NONE;
}

static void lie_release(struct probe_backend *backend)
{
    struct lie *lie = backend->lie;
    free(backend->tiles);
    free(backend->pass_trees);
    free(backend->traces);
    free(backend->walk_tree);
    free(backend->rows);
    free(backend->chain_tree);
    *backend = (struct probe_backend){.lie = lie};
}

static struct probe_backend *lie_close(struct probe_backend *backend)
{
    if (backend)
        lie_release(backend);
    free(backend);
    return NULL;
}

static void lie_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    *ret = backend->lie->claim;
}

static enum error lie_warm(struct probe_backend *backend)
{
    (void)backend;
    return ERR_NONE;
}

/* Leaves are bound to a challenge and a worker; a lie binds them to others. */
static void context_of(const struct lie *lie, const uint32_t challenge[4], const uint32_t key[8], uint32_t index,
                       uint32_t ret[8])
{
    uint32_t id[4], worker[8];
    memcpy(id, challenge, sizeof(id));
    memcpy(worker, key, sizeof(worker));
    id[0] ^= lie->is_other_challenge;
    worker[7] ^= lie->is_other_worker;
    probe_context(id, worker, index, ret);
}

/* -- tiles ------------------------------------------------------------------------------------------------------- */

static enum error lie_fill(struct probe_backend *backend, const struct probe_fill *fill)
{
    struct lie *lie = backend->lie;
    const uint64_t bytes = fill->tiles * PROBE_TILE_BYTES;
    lie_release(backend);
    lie->work = (struct lie_work){0};
    if (lie->memory_bytes && bytes > lie->memory_bytes && lie->missing_share <= 0)
        return ERR_NO_MEMORY;
    backend->fill = *fill;
    backend->fill.seed[3] ^= lie->has_other_seed;
    backend->held = fill->tiles - (uint64_t)(lie->missing_share * (double)fill->tiles + 0.5);
    backend->tiles = calloc((size_t)fill->tiles, PROBE_TILE_BYTES);
    if (!backend->tiles)
        return ERR_NO_MEMORY;
    bool is_elsewhere = lie->missing == LIE_FROM_HOST || lie->missing == LIE_FROM_PEER;
    for (uint64_t i = 0; i < (is_elsewhere ? fill->tiles : backend->held); i++)
        tile_make(backend->fill.seed, i, fill->double_rounds, backend->tiles + i * PROBE_TILE_WORDS);
    lie->work.filled = (double)backend->held * PROBE_TILE_BYTES;
    return ERR_NONE;
}

static const uint32_t *tile_get(struct probe_backend *backend, uint64_t tile, uint32_t made[PROBE_TILE_WORDS])
{
    struct lie_work *work = &backend->lie->work;
    const uint32_t *held = backend->tiles + tile * PROBE_TILE_WORDS;
    if (tile < backend->held) {
        work->read += PROBE_TILE_BYTES;
        return held;
    }
    switch (backend->lie->missing) {
    case LIE_GARBAGE:
        memset(made, 0x5a, PROBE_TILE_BYTES);
        return made;
    case LIE_RECOMPUTED:
        work->recomputed += PROBE_TILE_BYTES;
        tile_make(backend->fill.seed, tile, backend->fill.double_rounds, made);
        return made;
    case LIE_FROM_HOST:
        work->from_host += PROBE_TILE_BYTES;
        return held;
    case LIE_FROM_PEER:
        work->from_peer += PROBE_TILE_BYTES;
        return held;
    }
    return held;
}

static void run_pass(struct probe_backend *backend, const struct probe_pass *pass, uint32_t index,
                     const uint32_t key[8], digest *tree)
{
    const uint64_t tiles = backend->fill.tiles;
    uint32_t stream[PROBE_PASS_KEY_WORDS], context[8], made[PROBE_TILE_WORDS];
    pass_key_make(key, stream);
    context_of(backend->lie, pass->challenge, pass->worker_key, index, context);
    for (uint64_t i = 0; i < tiles; i++) {
        uint64_t nh[2];
        tile_nh(tile_get(backend, i, made), stream, nh);
        probe_tile_leaf(context, i, nh[0], nh[1], tree[i]);
    }
    merkle_tree_grow(tree, tiles);
}

static enum error lie_pass(struct probe_backend *backend, const struct probe_pass *pass,
                           uint32_t ret_roots[PROBE_PASSES_MAX][8])
{
    struct lie *lie = backend->lie;
    const uint64_t nodes = merkle_tree_nodes(backend->fill.tiles);
    uint32_t key[8], next[8];
    lie->work = (struct lie_work){0};
    free(backend->pass_trees);
    backend->passes = 0;
    backend->pass_trees = calloc((size_t)nodes * pass->passes, sizeof(digest));
    if (!backend->pass_trees)
        return ERR_NO_MEMORY;
    memcpy(key, pass->key, sizeof(key));
    for (uint32_t p = 0; p < pass->passes; p++) {
        digest *tree = backend->pass_trees + p * nodes;
        if (lie->passes_done == 0 || p < lie->passes_done)
            run_pass(backend, pass, p, key, tree);
        else
            merkle_tree_grow(tree, backend->fill.tiles);
        memcpy(ret_roots[p], tree[nodes - 1], sizeof(digest));
        probe_next_key(key, ret_roots[p], next);
        memcpy(key, next, sizeof(key));
    }
    backend->passes = pass->passes;
    return ERR_NONE;
}

static enum error lie_pass_open(struct probe_backend *backend, uint32_t pass, uint64_t tile, struct buf *to)
{
    if (pass >= backend->passes)
        return ERR_BAD_INPUT;
    return merkle_tree_path((const digest *)backend->pass_trees + pass * merkle_tree_nodes(backend->fill.tiles),
                            backend->fill.tiles, tile, to);
}

static enum error lie_tile_read(struct probe_backend *backend, uint64_t tile, struct buf *to)
{
    uint32_t made[PROBE_TILE_WORDS];
    return buf_append(to, tile_get(backend, tile, made), PROBE_TILE_BYTES) ? ERR_NONE : ERR_NO_MEMORY;
}

/* -- walkers ----------------------------------------------------------------------------------------------------- */

static void walk_one(struct probe_backend *backend, const struct probe_walk *walk, const uint32_t *key, uint32_t walker)
{
    uint64_t *trace = backend->traces + (size_t)walker * (walk->steps + 1), x = probe_walk_start(walk->key, walker);
    const uint32_t most = backend->lie->steps_walked ? backend->lie->steps_walked : walk->steps;
    trace[0] = x;
    for (uint32_t i = 1; i <= walk->steps; i++) {
        uint32_t made[PROBE_TILE_WORDS];
        const uint32_t *tile = tile_get(backend, probe_walk_tile(x, backend->fill.tiles), made);
        x = i > most ? x + 1 : probe_walk_next(x, line_nh(tile + (size_t)probe_walk_line(x) * PROBE_LINE_WORDS, key));
        trace[i] = x;
    }
}

static enum error lie_walk(struct probe_backend *backend, const struct probe_walk *walk, uint32_t ret_root[8])
{
    const uint64_t nodes = merkle_tree_nodes(walk->walkers);
    uint32_t key[PROBE_WALK_KEY_WORDS], context[8];
    free(backend->traces);
    free(backend->walk_tree);
    backend->traces = calloc((size_t)walk->walkers * (walk->steps + 1), sizeof(uint64_t));
    backend->walk_tree = calloc((size_t)nodes, sizeof(digest));
    if (!backend->traces || !backend->walk_tree)
        return ERR_NO_MEMORY;
    walk_key_make(walk->key, key);
    context_of(backend->lie, walk->challenge, walk->worker_key, 0, context);
    for (uint32_t i = 0; i < walk->walkers; i++) {
        walk_one(backend, walk, key, i);
        walk_leaf(context, i, backend->traces + (size_t)i * (walk->steps + 1), walk->steps, backend->walk_tree[i]);
    }
    merkle_tree_grow(backend->walk_tree, walk->walkers);
    memcpy(ret_root, backend->walk_tree[nodes - 1], sizeof(digest));
    backend->walk = *walk;
    backend->lie->work = (struct lie_work){.walked = 128.0 * walk->walkers * walk->steps};
    return ERR_NONE;
}

static enum error lie_walk_open(struct probe_backend *backend, uint32_t walker, struct buf *trace, struct buf *path)
{
    const size_t words = (size_t)backend->walk.steps + 1;
    if (!buf_append(trace, backend->traces + walker * words, words * sizeof(uint64_t)))
        return ERR_NO_MEMORY;
    return merkle_tree_path((const digest *)backend->walk_tree, backend->walk.walkers, walker, path);
}

/* -- the chain --------------------------------------------------------------------------------------------------- */

struct matrices { /* of n, blocks * n columns; whole numbers in [-125, 125] */
    uint32_t n, blocks, columns;
    int8_t *a, *x, *next;
    uint8_t *scale, *shift;
    int32_t *sums; /* of a row */
};

static int8_t element_of(enum lie_chain kind, int32_t sum, int32_t scale)
{
    if (kind == LIE_CHAIN_WRONG_FIELD)
        return (int8_t)((int)((int64_t)sum * scale % 250) / 2);
    if (kind == LIE_CHAIN_SATURATED)
        sum = sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum;
    return probe_chain_element(sum, scale);
}

/* One row of one step. terms: how many products of each sum are added up; columns: of X, that are computed. */
static void chain_row_step(struct matrices *m, enum lie_chain kind, uint32_t row, uint32_t terms, uint32_t columns)
{
    memset(m->sums, 0, m->columns * sizeof(*m->sums));
    for (uint32_t k = 0; k < terms; k++) {
        const int32_t a = m->a[(size_t)row * m->n + k];
        const int8_t *x = m->x + (size_t)k * m->columns;
        for (uint32_t c = 0; c < columns; c++)
            m->sums[c] += a * x[c];
    }
    const uint32_t shift = kind == LIE_CHAIN_NO_SHIFT || kind == LIE_CHAIN_NO_SCALE ? 0 : m->shift[row];
    const int32_t scale = kind == LIE_CHAIN_NO_SCALE ? 1 : m->scale[row];
    for (uint32_t c = 0; c < m->columns; c++)
        m->next[(size_t)row * m->columns + (c / m->n + shift) % m->blocks * m->n + c % m->n] =
            element_of(kind, m->sums[c], scale);
}

static void chain_lie_step(struct matrices *m, const struct lie *lie, uint32_t t, uint32_t steps, double *operations)
{
    const bool is_here = t == lie->chain_step, is_last = t + 1 == steps;
    const uint32_t n = m->n;
    uint32_t rows = n, terms = n, columns = m->columns;
    if ((lie->chain == LIE_CHAIN_ROWS && is_here) || (lie->chain == LIE_CHAIN_LAST_ROWS && is_last))
        rows = n - (uint32_t)(lie->chain_share * n + 0.5);
    if (lie->chain == LIE_CHAIN_ONE_ROW && is_here)
        rows = n - 1;
    if (lie->chain == LIE_CHAIN_SUMS && is_here)
        terms = n - (uint32_t)(lie->chain_share * n + 0.5);
    if (lie->chain == LIE_CHAIN_BLOCK && is_here)
        columns = m->columns - n;
    if (lie->chain == LIE_CHAIN_STEP && is_here)
        return;
    memcpy(m->next, m->x, (size_t)n * m->columns);
    for (uint32_t row = 0; row < rows; row++)
        chain_row_step(m, lie->chain, row, terms, columns);
    if (lie->chain == LIE_CHAIN_ONE_ELEMENT && is_here)
        m->next[0] = (int8_t)(m->next[0] > 0 ? m->next[0] - 1 : m->next[0] + 1);
    int8_t *was = m->x;
    m->x = m->next;
    m->next = was;
    *operations += 2.0 * rows * terms * columns;
}

/* Where a lie is right it costs what it costs; the others get what they are after, however wrong their answers are. */
static double operations_of(const struct lie *lie, const struct probe_chain *chain, double counted)
{
    const double n = chain->n, blocks = chain->blocks, step = 2 * n * n * blocks * n;
    switch (lie->chain) {
    case LIE_CHAIN_NO_SHIFT: /* products of n x n matrices, then once X */
    case LIE_CHAIN_NO_SCALE:
        return 2 * n * n * n * chain->steps + step;
    case LIE_CHAIN_GROUP_RING: /* n x (blocks * n), as X is; then once, all blocks of it with all blocks of X */
        return step * (chain->steps - 1) + step * blocks;
    case LIE_CHAIN_OTHER_SEED:
        return 0;
    default:
        return counted;
    }
}

static enum error chain_lie(const struct lie *lie, const struct probe_chain *chain, int8_t *rows, double *operations)
{
    const uint32_t n = chain->n, columns = n * chain->blocks;
    struct matrices m = {.n = n, .blocks = chain->blocks, .columns = columns};
    int8_t *spare = malloc((size_t)n * columns), *first = malloc((size_t)n * columns);
    enum error error = ERR_NO_MEMORY;
    m.a = malloc((size_t)n * n);
    m.x = first;
    m.next = spare;
    m.scale = malloc(n);
    m.shift = malloc(n);
    m.sums = malloc(columns * sizeof(*m.sums));
    if (!m.a || !m.x || !m.next || !m.scale || !m.shift || !m.sums)
        goto out;
    for (uint32_t i = 0; i < n; i++) {
        chain_row_make(chain->seed, PROBE_DOMAIN_CHAIN_A, i, n, m.a + (size_t)i * n);
        chain_row_make(chain->seed, PROBE_DOMAIN_CHAIN_X, i, columns, m.x + (size_t)i * columns);
    }
    for (uint32_t t = 0; t < chain->steps; t++) {
        chain_step_make(chain->seed, t, n, chain->blocks, m.scale, m.shift);
        chain_lie_step(&m, lie, t, chain->steps, operations);
    }
    memcpy(rows, m.x, (size_t)n * columns);
    error = ERR_NONE;
out:
    free(first);
    free(spare);
    free(m.a);
    free(m.scale);
    free(m.shift);
    free(m.sums);
    return error;
}

static enum error lie_chain_run(struct probe_backend *backend, const struct probe_chain *chain, uint32_t ret_root[8],
                                enum probe_route *ret_route)
{
    struct lie *lie = backend->lie;
    const uint64_t columns = (uint64_t)chain->n * chain->blocks, nodes = merkle_tree_nodes(chain->n);
    struct probe_chain asked = *chain;
    uint32_t context[8];
    double operations = 0;
    asked.seed[5] ^= lie->chain == LIE_CHAIN_OTHER_SEED;
    free(backend->rows);
    free(backend->chain_tree);
    backend->rows = malloc((size_t)(chain->n * columns));
    backend->chain_tree = malloc((size_t)nodes * sizeof(digest));
    if (!backend->rows || !backend->chain_tree)
        return ERR_NO_MEMORY;
    const bool is_right =
        lie->chain == LIE_CHAIN_NONE || lie->chain == LIE_CHAIN_OTHER_SEED || lie->chain == LIE_CHAIN_GROUP_RING;
    enum error error = is_right ? chain_run(asked.seed, chain->n, chain->blocks, chain->steps, backend->rows)
                                : chain_lie(lie, &asked, backend->rows, &operations);
    if (error != ERR_NONE)
        return error;
    if (lie->chain == LIE_CHAIN_NONE)
        operations = 2.0 * chain->n * (double)columns * chain->n * chain->steps;
    context_of(lie, chain->challenge, chain->worker_key, 0, context);
    for (uint32_t i = 0; i < chain->n; i++)
        chain_leaf(context, i, backend->rows + i * columns, (uint32_t)columns, backend->chain_tree[i]);
    merkle_tree_grow(backend->chain_tree, chain->n);
    memcpy(ret_root, backend->chain_tree[nodes - 1], sizeof(digest));
    *ret_route = PROBE_ROUTE_CPU;
    backend->chain = *chain;
    lie->work = (struct lie_work){.operations = operations_of(lie, chain, operations)};
    return ERR_NONE;
}

static enum error lie_chain_open(struct probe_backend *backend, uint32_t row, struct buf *bytes, struct buf *path)
{
    const size_t columns = (size_t)backend->chain.n * backend->chain.blocks;
    if (!buf_append(bytes, backend->rows + row * columns, columns))
        return ERR_NO_MEMORY;
    return merkle_tree_path((const digest *)backend->chain_tree, backend->chain.n, row, path);
}

static uint32_t lie_clock_mhz(struct probe_backend *backend)
{
    (void)backend;
    return 0;
}

const struct probe_backend_ops *lie_backend(struct lie *lie)
{
    static const struct probe_backend_ops ops = {
        .name = "lie",
        .count = lie_count,
        .open = lie_open,
        .close = lie_close,
        .claim = lie_claim,
        .warm = lie_warm,
        .fill = lie_fill,
        .pass = lie_pass,
        .pass_open = lie_pass_open,
        .walk = lie_walk,
        .walk_open = lie_walk_open,
        .tile_read = lie_tile_read,
        .chain = lie_chain_run,
        .chain_open = lie_chain_open,
        .release = lie_release,
        .clock_mhz = lie_clock_mhz,
    };
    next_lie = lie;
    return &ops;
}
