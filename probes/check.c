#include "probes/check.h"

#include "core/clock.h"
#include "probes/fingerprint.h"
#include "probes/tiles.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BY_THE_BOOK_MAX ((uint64_t)2000000000) /* multiplications of a chain that are quick on any CPU */

static const uint32_t challenge_id[4] = {0x63, 0x68, 0x65, 0x63}, worker_key[8] = {0x6b, 1, 2, 3, 4, 5, 6, 7};

/* Opening i of those that are looked at: all of few, else evenly spread with both ends. */
static uint64_t samples_of(uint64_t total)
{
    return total < CHECK_SAMPLES ? total : CHECK_SAMPLES;
}

static uint64_t sample(uint64_t total, uint64_t i)
{
    return total <= CHECK_SAMPLES
               ? i
               : (total - 1) / (CHECK_SAMPLES - 1) * i + (i == CHECK_SAMPLES - 1) * ((total - 1) % (CHECK_SAMPLES - 1));
}

static void fail(struct check *check, const char *what, uint64_t index)
{
    check->is_identical = false;
    (void)snprintf(check->reason, sizeof check->reason, "%s %" PRIu64 " is not what it should be", what, index);
}

static void fail_error(struct check *check, enum error error)
{
    check->is_identical = false;
    (void)snprintf(check->reason, sizeof check->reason, "%s", error_text(error));
}

/* -- FILL, PASS, WALK -- */

struct tiles_run {
    const struct probe_backend_ops *ops;
    struct probe_backend *backend;
    struct probe_fill fill;
    struct probe_pass pass;
    struct probe_walk walk;
    uint32_t roots[PROBE_PASSES_MAX][8], walk_root[8];
};

static void fill_check(struct tiles_run *run, struct check *check)
{
    uint32_t expected[PROBE_TILE_WORDS];
    struct buf bytes;
    const int64_t start_ns = clock_mono_ns();
    enum error error = run->ops->fill(run->backend, &run->fill);
    check->took_ns = clock_mono_ns() - start_ns;
    check->compared = samples_of(run->fill.tiles);
    buf_init(&bytes, 0);
    for (uint64_t i = 0; i < check->compared && error == ERR_NONE && check->is_identical; i++) {
        const uint64_t tile = sample(run->fill.tiles, i);
        buf_clear(&bytes);
        error = run->ops->tile_read(run->backend, tile, &bytes);
        tile_make(run->fill.seed, tile, run->fill.double_rounds, expected);
        if (error == ERR_NONE && (bytes.len != sizeof expected || memcmp(bytes.ptr, expected, sizeof expected) != 0))
            fail(check, "tile", tile);
    }
    if (error != ERR_NONE)
        fail_error(check, error);
    buf_free(&bytes);
}

/* Tiles of one pass; key: of that pass. */
static enum error pass_one(struct tiles_run *run, uint32_t p, const uint32_t key[8], struct check *check)
{
    uint32_t stream[PROBE_PASS_KEY_WORDS], context[8], tile_words[PROBE_TILE_WORDS], leaf[8];
    uint64_t nh[2];
    struct buf path;
    enum error error = ERR_NONE;
    pass_key_make(key, stream);
    probe_context(challenge_id, worker_key, p, context);
    buf_init(&path, 0);
    for (uint64_t i = 0; i < samples_of(run->fill.tiles) && error == ERR_NONE && check->is_identical; i++) {
        const uint64_t tile = sample(run->fill.tiles, i);
        buf_clear(&path);
        error = run->ops->pass_open(run->backend, p, tile, &path);
        tile_make(run->fill.seed, tile, run->fill.double_rounds, tile_words);
        tile_nh(tile_words, stream, nh);
        probe_tile_leaf(context, tile, nh[0], nh[1], leaf);
        if (error == ERR_NONE && !merkle_check(leaf, tile, run->fill.tiles, buf_str(&path), run->roots[p]))
            fail(check, "the leaf or path of tile", tile);
        check->compared++;
    }
    buf_free(&path);
    return error;
}

static void pass_check(struct tiles_run *run, struct check *check)
{
    uint32_t key[8], next[8];
    const int64_t start_ns = clock_mono_ns();
    enum error error = run->ops->pass(run->backend, &run->pass, run->roots);
    check->took_ns = clock_mono_ns() - start_ns;
    memcpy(key, run->pass.key, sizeof key);
    for (uint32_t p = 0; p < run->pass.passes && error == ERR_NONE && check->is_identical; p++) {
        error = pass_one(run, p, key, check);
        probe_next_key(key, run->roots[p], next);
        memcpy(key, next, sizeof key);
    }
    if (error != ERR_NONE)
        fail_error(check, error);
}

/* Is it the walk from where this walker starts? */
static bool trace_is_right(const struct tiles_run *run, uint32_t walker, struct str trace)
{
    uint32_t key[PROBE_WALK_KEY_WORDS], line[PROBE_LINE_WORDS];
    uint64_t x = probe_walk_start(run->walk.key, walker), told;
    if (trace.len != ((size_t)run->walk.steps + 1) * sizeof x)
        return false;
    walk_key_make(run->walk.key, key);
    for (uint32_t step = 0;; step++) {
        memcpy(&told, trace.ptr + step * sizeof told, sizeof told);
        if (told != x)
            return false;
        if (step == run->walk.steps)
            return true;
        tile_line_make(run->fill.seed, probe_walk_tile(x, run->fill.tiles), probe_walk_line(x), run->fill.double_rounds,
                       line);
        x = probe_walk_next(x, line_nh(line, key));
    }
}

static enum error walker_check(struct tiles_run *run, uint32_t walker, struct buf *trace, struct buf *path,
                               struct check *check)
{
    uint32_t context[8], leaf[8];
    buf_clear(trace);
    buf_clear(path);
    const enum error error = run->ops->walk_open(run->backend, walker, trace, path);
    if (error != ERR_NONE)
        return error;
    check->compared++;
    if (!trace_is_right(run, walker, buf_str(trace))) {
        fail(check, "the trace of walker", walker);
        return ERR_NONE;
    }
    uint64_t *words = malloc(trace->len); /* aligned, which a buffer of bytes need not be */
    if (words == NULL)
        return ERR_NO_MEMORY;
    memcpy(words, trace->ptr, trace->len);
    probe_context(challenge_id, worker_key, 0, context);
    walk_leaf(context, walker, words, run->walk.steps, leaf);
    free(words);
    if (!merkle_check(leaf, walker, run->walk.walkers, buf_str(path), run->walk_root))
        fail(check, "the path of walker", walker);
    return ERR_NONE;
}

static void walk_check(struct tiles_run *run, struct check *check)
{
    struct buf trace, path;
    const int64_t start_ns = clock_mono_ns();
    enum error error = run->ops->walk(run->backend, &run->walk, run->walk_root);
    check->took_ns = clock_mono_ns() - start_ns;
    buf_init(&trace, 0);
    buf_init(&path, 0);
    for (uint64_t i = 0; i < samples_of(run->walk.walkers) && error == ERR_NONE && check->is_identical; i++)
        error = walker_check(run, (uint32_t)sample(run->walk.walkers, i), &trace, &path, check);
    if (error != ERR_NONE)
        fail_error(check, error);
    buf_free(&trace);
    buf_free(&path);
}

void check_tiles(const struct probe_backend_ops *ops, struct probe_backend *backend, const struct check_tiles *shape,
                 check_done *done, void *owner)
{
    struct tiles_run run = {
        .ops = ops,
        .backend = backend,
        .fill = {.seed = {0x66696c6c, (uint32_t)shape->tiles},
                 .tiles = shape->tiles,
                 .double_rounds = shape->double_rounds},
        .pass = {.key = {0x70617373, (uint32_t)shape->tiles}, .passes = shape->passes},
        .walk = {.key = {0x77616c6b, shape->walkers}, .walkers = shape->walkers, .steps = shape->steps}};
    struct check fill = {.kind = "fill", .out_of = shape->tiles, .is_identical = true};
    struct check pass = {.kind = "pass", .out_of = shape->tiles * shape->passes, .is_identical = true};
    struct check walk = {.kind = "walk", .out_of = shape->walkers, .is_identical = true};
    memcpy(run.pass.challenge, challenge_id, sizeof challenge_id);
    memcpy(run.pass.worker_key, worker_key, sizeof worker_key);
    memcpy(run.walk.challenge, challenge_id, sizeof challenge_id);
    memcpy(run.walk.worker_key, worker_key, sizeof worker_key);
    (void)snprintf(fill.shape, sizeof fill.shape, "%" PRIu64 " tiles, D %u", shape->tiles, shape->double_rounds);
    (void)snprintf(pass.shape, sizeof pass.shape, "%" PRIu64 " tiles, %u passes", shape->tiles, shape->passes);
    (void)snprintf(walk.shape, sizeof walk.shape, "%u walkers, %u steps", shape->walkers, shape->steps);
    fill_check(&run, &fill);
    done(owner, &fill);
    if (!fill.is_identical)
        return;
    pass_check(&run, &pass);
    done(owner, &pass);
    walk_check(&run, &walk);
    done(owner, &walk);
}

/* -- CHAIN -- */

struct chain_truth { /* one of the two */
    int8_t *rows;    /* X_L */
    struct fingerprint fingerprint;
};

static enum error truth_make(struct probe_chain *chain, struct chain_truth *ret)
{
    const uint64_t columns = (uint64_t)chain->n * chain->blocks;
    if (columns * chain->n * chain->n * chain->steps > BY_THE_BOOK_MAX) {
        const struct chain_shape shape = {.n = chain->n, .blocks = chain->blocks, .steps = chain->steps};
        const enum error error = fingerprint_make(shape, &ret->fingerprint);
        if (error == ERR_NONE)
            memcpy(chain->seed, ret->fingerprint.seed, sizeof chain->seed);
        return error;
    }
    ret->rows = malloc((size_t)(columns * chain->n));
    return ret->rows != NULL ? chain_run(chain->seed, chain->n, chain->blocks, chain->steps, ret->rows) : ERR_NO_MEMORY;
}

static void row_check(const struct probe_chain *chain, const struct chain_truth *truth, uint32_t row,
                      const uint32_t root[8], struct str bytes, struct str path, struct check *check)
{
    const size_t columns = (size_t)chain->n * chain->blocks;
    uint32_t context[8], leaf[8];
    const bool is_right =
        bytes.len == columns && (truth->rows != NULL ? memcmp(bytes.ptr, truth->rows + row * columns, columns) == 0
                                                     : fingerprint_check(&truth->fingerprint, row, bytes));
    check->compared++;
    if (!is_right) {
        fail(check, "row", row);
        return;
    }
    probe_context(challenge_id, worker_key, 0, context);
    chain_leaf(context, row, (const int8_t *)bytes.ptr, (uint32_t)columns, leaf);
    if (!merkle_check(leaf, row, chain->n, path, root))
        fail(check, "the leaf or path of row", row);
}

void check_chain(const struct probe_backend_ops *ops, struct probe_backend *backend, uint32_t n, uint32_t blocks,
                 uint32_t steps, check_done *done, void *owner)
{
    struct probe_chain chain = {.seed = {0x63686169, n, blocks}, .n = n, .blocks = blocks, .steps = steps};
    struct check check = {.kind = "chain", .out_of = n, .is_identical = true};
    struct chain_truth truth = {0};
    struct buf bytes, path;
    uint32_t root[8];
    enum probe_route route = PROBE_ROUTE_CPU;
    memcpy(chain.challenge, challenge_id, sizeof challenge_id);
    memcpy(chain.worker_key, worker_key, sizeof worker_key);
    (void)snprintf(check.shape, sizeof check.shape, "n %u, %u blocks, %u steps", n, blocks, steps);
    buf_init(&bytes, 0);
    buf_init(&path, 0);
    enum error error = truth_make(&chain, &truth);
    const int64_t start_ns = clock_mono_ns();
    if (error == ERR_NONE)
        error = ops->chain(backend, &chain, root, &route);
    check.took_ns = clock_mono_ns() - start_ns;
    for (uint64_t i = 0; i < samples_of(n) && error == ERR_NONE && check.is_identical; i++) {
        const uint32_t row = (uint32_t)sample(n, i);
        buf_clear(&bytes);
        buf_clear(&path);
        error = ops->chain_open(backend, row, &bytes, &path);
        if (error == ERR_NONE)
            row_check(&chain, &truth, row, root, buf_str(&bytes), buf_str(&path), &check);
    }
    if (error != ERR_NONE)
        fail_error(&check, error);
    else
        (void)snprintf(check.route, sizeof check.route, "%s", probe_route_name(route));
    done(owner, &check);
    free(truth.rows);
    fingerprint_free(&truth.fingerprint);
    buf_free(&bytes);
    buf_free(&path);
}
