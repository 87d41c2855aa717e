#include "probes/backend_cuda_priv.h"
#include "probes/hash.h"

#include <assert.h>
#include <string.h>

enum { KEY_BYTES = 32 };

/* -- trees (kernels.h: every ninth level lies on the device) -- */

enum error cuda_tree_queue(struct probe_backend *backend, const struct cuda_tree *tree, cu_pointer key,
                           cu_pointer next_key)
{
    const unsigned levels = kernel_tree_levels(tree->count);
    const bool has_next = next_key != 0;
    enum error error = ERR_NONE;
    if (levels == 1 && has_next) { /* the one node is the root; the kernel makes the next key of it */
        struct kernel_merkle only = {
            .in_at = tree->at, .out_at = tree->at, .key_at = key, .next_key_at = next_key, .count = 1};
        return cuda_queue(backend, CUDA_probe_merkle, 1, 0, &only);
    }
    for (unsigned k = 0; k + 1 < levels && error == ERR_NONE; k++) {
        const uint64_t width = kernel_tree_width(tree->count, k);
        const bool is_last = k + 2 == levels;
        struct kernel_merkle level = {
            .in_at = tree->at + kernel_tree_begin(tree->count, k) * PROBE_HASH_BYTES,
            .out_at = tree->at + kernel_tree_begin(tree->count, k + 1) * PROBE_HASH_BYTES,
            .key_at = is_last && has_next ? key : 0,
            .next_key_at = is_last && has_next ? next_key : 0,
            .count = width,
        };
        error = cuda_queue(backend, CUDA_probe_merkle, kernel_merkle_grid(width), 0, &level);
    }
    return error;
}

enum error cuda_tree_root(struct probe_backend *backend, const struct cuda_tree *tree, uint32_t ret[8])
{
    return gpu_read(&backend->gpu, ret, tree->at + (kernel_tree_nodes(tree->count) - 1) * PROBE_HASH_BYTES,
                    PROBE_HASH_BYTES);
}

enum error cuda_tree_path(struct probe_backend *backend, const struct cuda_tree *tree, uint64_t node, struct buf *to)
{
    uint32_t group[KERNEL_MERKLE_GROUP][8];
    enum error error = ERR_NONE;
    assert(node < tree->count);
    const unsigned levels = kernel_tree_levels(tree->count);
    for (unsigned k = 0; k + 1 < levels && error == ERR_NONE; k++) {
        const uint64_t first = node / KERNEL_MERKLE_GROUP * KERNEL_MERKLE_GROUP;
        const uint64_t left = kernel_tree_width(tree->count, k) - first;
        const uint64_t count = left < KERNEL_MERKLE_GROUP ? left : KERNEL_MERKLE_GROUP;
        error =
            gpu_read(&backend->gpu, group, tree->at + (kernel_tree_begin(tree->count, k) + first) * PROBE_HASH_BYTES,
                     (size_t)count * PROBE_HASH_BYTES);
        if (error == ERR_NONE)
            error = merkle_path((const uint32_t(*)[8])group, count, node - first, to);
        node /= KERNEL_MERKLE_GROUP;
    }
    return error;
}

/* -- fill -- */

static void pass_drop(struct probe_backend *backend)
{
    struct cuda_tiles *tiles = &backend->tiles;
    gpu_free(&backend->gpu, &tiles->trees[0].at);
    gpu_free(&backend->gpu, &tiles->keys);
    gpu_free(&backend->gpu, &tiles->leaves);
    memset(tiles->trees, 0, sizeof tiles->trees);
    tiles->passes = 0;
}

static void walk_drop(struct probe_backend *backend)
{
    struct cuda_tiles *tiles = &backend->tiles;
    gpu_free(&backend->gpu, &tiles->trace);
    gpu_free(&backend->gpu, &tiles->walk.at);
    tiles->walk.count = 0;
    tiles->walkers = tiles->steps = 0;
}

void cuda_tiles_free(struct probe_backend *backend)
{
    pass_drop(backend);
    walk_drop(backend);
    gpu_free(&backend->gpu, &backend->tiles.at);
    backend->tiles.count = 0;
}

enum error cuda_fill(struct probe_backend *backend, const struct probe_fill *fill)
{
    enum error error = gpu_enter(&backend->gpu);
    if (error != ERR_NONE)
        return error;
    cuda_tiles_free(backend);
    cuda_chain_free(backend);
    if (fill->tiles == 0 || fill->tiles > UINT32_MAX || fill->double_rounds == 0)
        return ERR_BAD_INPUT;
    error = gpu_alloc(&backend->gpu, (size_t)fill->tiles * PROBE_TILE_BYTES, &backend->tiles.at);
    if (error != ERR_NONE)
        return error;
    struct kernel_fill parameters = {
        .tiles_at = backend->tiles.at, .count = fill->tiles, .double_rounds = fill->double_rounds};
    memcpy(parameters.seed, fill->seed, sizeof parameters.seed);
    error = cuda_queue(backend, CUDA_probe_fill, backend->sms * KERNEL_FILL_PER_SM, 0, &parameters);
    if (error == ERR_NONE)
        error = gpu_wait(&backend->gpu, backend->gpu.stream[0]);
    if (error == ERR_NONE)
        backend->tiles.count = fill->tiles;
    else
        cuda_tiles_free(backend);
    return error;
}

enum error cuda_tile_read(struct probe_backend *backend, uint64_t tile, struct buf *to)
{
    if (tile >= backend->tiles.count)
        return ERR_BAD_INPUT;
    const enum error error = gpu_enter(&backend->gpu);
    return error != ERR_NONE
               ? error
               : gpu_read_buf(&backend->gpu, to, backend->tiles.at + tile * PROBE_TILE_BYTES, PROBE_TILE_BYTES);
}

/* -- pass -- */

static cu_pointer key_at(const struct cuda_tiles *tiles, uint32_t pass)
{
    return tiles->keys + (cu_pointer)pass * KEY_BYTES;
}

static enum error pass_make(struct probe_backend *backend, const struct probe_pass *pass)
{
    struct cuda_tiles *tiles = &backend->tiles;
    const uint64_t subtrees = (tiles->count + KERNEL_SUBTREE_TILES - 1) / KERNEL_SUBTREE_TILES;
    const size_t tree_bytes = ((size_t)kernel_tree_nodes(subtrees) * PROBE_HASH_BYTES + 255) / 256 * 256;
    cu_pointer trees = 0;
    enum error error = gpu_alloc(&backend->gpu, tree_bytes * pass->passes, &trees);
    if (error != ERR_NONE)
        return error;
    for (uint32_t p = 0; p < pass->passes; p++) {
        tiles->trees[p] = (struct cuda_tree){.at = trees + p * tree_bytes, .count = subtrees};
        probe_context(pass->challenge, pass->worker_key, p, tiles->contexts[p]);
    }
    error = gpu_alloc(&backend->gpu, (size_t)(pass->passes + 1) * KEY_BYTES, &tiles->keys);
    if (error == ERR_NONE)
        error = gpu_alloc(&backend->gpu, KERNEL_SUBTREE_TILES * PROBE_HASH_BYTES, &tiles->leaves);
    return error == ERR_NONE ? gpu_write(&backend->gpu, tiles->keys, pass->key, KEY_BYTES) : error;
}

/* Queues one pass. The key of the next is made on the device, so that all passes are queued at once. */
static enum error pass_queue(struct probe_backend *backend, uint32_t p)
{
    struct cuda_tiles *tiles = &backend->tiles;
    struct kernel_pass parameters = {.tiles_at = tiles->at,
                                     .key_at = key_at(tiles, p),
                                     .nodes_at = tiles->trees[p].at,
                                     .tiles = tiles->count,
                                     .count = tiles->trees[p].count};
    memcpy(parameters.context, tiles->contexts[p], sizeof parameters.context);
    const enum error error = cuda_queue(backend, CUDA_probe_pass, backend->sms * KERNEL_PASS_PER_SM, 0, &parameters);
    return error != ERR_NONE ? error
                             : cuda_tree_queue(backend, &tiles->trees[p], key_at(tiles, p), key_at(tiles, p + 1));
}

enum error cuda_pass(struct probe_backend *backend, const struct probe_pass *pass,
                     uint32_t ret_roots[PROBE_PASSES_MAX][8])
{
    uint32_t roots[PROBE_PASSES_MAX][8];
    enum error error = gpu_enter(&backend->gpu);
    if (error != ERR_NONE)
        return error;
    pass_drop(backend);
    if (backend->tiles.count == 0 || pass->passes == 0 || pass->passes > PROBE_PASSES_MAX)
        return ERR_BAD_INPUT;
    error = pass_make(backend, pass);
    for (uint32_t p = 0; p < pass->passes && error == ERR_NONE; p++)
        error = pass_queue(backend, p);
    for (uint32_t p = 0; p < pass->passes && error == ERR_NONE; p++)
        error = cuda_tree_root(backend, &backend->tiles.trees[p], roots[p]);
    if (error != ERR_NONE) {
        pass_drop(backend);
        return error;
    }
    backend->tiles.passes = pass->passes;
    memcpy(ret_roots, roots, pass->passes * sizeof roots[0]);
    return ERR_NONE;
}

enum error cuda_pass_open(struct probe_backend *backend, uint32_t pass, uint64_t tile, struct buf *to)
{
    struct cuda_tiles *tiles = &backend->tiles;
    uint32_t leaves[KERNEL_SUBTREE_TILES][8];
    const uint64_t subtree = tile / KERNEL_SUBTREE_TILES, first = subtree * KERNEL_SUBTREE_TILES;
    const size_t was = to->len;
    if (pass >= tiles->passes || tile >= tiles->count)
        return ERR_BAD_INPUT;
    const uint64_t left = tiles->count - first, count = left < KERNEL_SUBTREE_TILES ? left : KERNEL_SUBTREE_TILES;
    struct kernel_pass parameters = {.tiles_at = tiles->at,
                                     .key_at = key_at(tiles, pass),
                                     .nodes_at = tiles->trees[pass].at,
                                     .leaves_at = tiles->leaves,
                                     .tiles = tiles->count,
                                     .first = subtree,
                                     .count = 1};
    memcpy(parameters.context, tiles->contexts[pass], sizeof parameters.context);
    enum error error = gpu_enter(&backend->gpu);
    if (error == ERR_NONE)
        error = cuda_queue(backend, CUDA_probe_pass, 1, 0, &parameters);
    if (error == ERR_NONE)
        error = gpu_read(&backend->gpu, leaves, tiles->leaves, (size_t)count * PROBE_HASH_BYTES);
    if (error == ERR_NONE)
        error = merkle_path((const uint32_t(*)[8])leaves, count, tile - first, to);
    if (error == ERR_NONE)
        error = cuda_tree_path(backend, &tiles->trees[pass], subtree, to);
    if (error != ERR_NONE)
        to->len = was;
    return error;
}

/* -- walk -- */

static enum error walk_queue(struct probe_backend *backend, const struct probe_walk *walk)
{
    struct cuda_tiles *tiles = &backend->tiles;
    struct kernel_walk steps = {.tiles_at = tiles->at,
                                .trace_at = tiles->trace,
                                .tiles = tiles->count,
                                .walkers = walk->walkers,
                                .steps = walk->steps};
    struct kernel_walk_leaves leaves = {
        .trace_at = tiles->trace, .leaves_at = tiles->walk.at, .walkers = walk->walkers, .steps = walk->steps};
    memcpy(steps.key, walk->key, sizeof steps.key);
    probe_context(walk->challenge, walk->worker_key, 0, leaves.context);
    enum error error = cuda_queue(backend, CUDA_probe_walk, kernel_walk_grid(walk->walkers), 0, &steps);
    if (error == ERR_NONE)
        error = cuda_queue(backend, CUDA_probe_walk_leaves, (walk->walkers + 63) / 64, 0, &leaves);
    return error == ERR_NONE ? cuda_tree_queue(backend, &tiles->walk, 0, 0) : error;
}

enum error cuda_walk(struct probe_backend *backend, const struct probe_walk *walk, uint32_t ret_root[8])
{
    struct cuda_tiles *tiles = &backend->tiles;
    enum error error = gpu_enter(&backend->gpu);
    if (error != ERR_NONE)
        return error;
    walk_drop(backend);
    if (tiles->count == 0 || walk->walkers == 0)
        return ERR_BAD_INPUT;
    tiles->walk.count = walk->walkers;
    error =
        gpu_alloc(&backend->gpu, (size_t)walk->walkers * (walk->steps + (size_t)1) * sizeof(uint64_t), &tiles->trace);
    if (error == ERR_NONE)
        error = gpu_alloc(&backend->gpu, (size_t)kernel_tree_nodes(walk->walkers) * PROBE_HASH_BYTES, &tiles->walk.at);
    if (error == ERR_NONE)
        error = walk_queue(backend, walk);
    if (error == ERR_NONE)
        error = cuda_tree_root(backend, &tiles->walk, ret_root);
    if (error != ERR_NONE) {
        walk_drop(backend);
        return error;
    }
    tiles->walkers = walk->walkers;
    tiles->steps = walk->steps;
    return ERR_NONE;
}

enum error cuda_walk_open(struct probe_backend *backend, uint32_t walker, struct buf *trace, struct buf *path)
{
    const struct cuda_tiles *tiles = &backend->tiles;
    const size_t trace_was = trace->len, path_was = path->len;
    if (walker >= tiles->walkers)
        return ERR_BAD_INPUT;
    const size_t bytes = (tiles->steps + (size_t)1) * sizeof(uint64_t);
    enum error error = gpu_enter(&backend->gpu);
    if (error == ERR_NONE)
        error = gpu_read_buf(&backend->gpu, trace, tiles->trace + walker * bytes, bytes);
    if (error == ERR_NONE)
        error = cuda_tree_path(backend, &tiles->walk, walker, path);
    if (error != ERR_NONE) {
        trace->len = trace_was;
        path->len = path_was;
    }
    return error;
}
