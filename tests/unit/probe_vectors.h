/* Holds a backend against tests/vectors/probe.json (whose README.md says where that comes from). */
#ifndef SLUICE_TESTS_UNIT_PROBE_VECTORS_H
#define SLUICE_TESTS_UNIT_PROBE_VECTORS_H

#include "tests/unit/cmocka_all.h"

#include "probes/backend.h"
#include "probes/hash.h"

#include <jansson.h>
#include <openssl/sha.h>
#include <string.h>

static inline uint32_t vector_number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return (uint32_t)json_integer_value(value);
}

static inline void assert_vector_hex(const json_t *value, const void *bytes, size_t len)
{
    assert_true(json_is_string(value));
    assert_int_equal(json_string_length(value), 2 * len);
    for (size_t i = 0; i < len; i++) {
        char text[3];
        snprintf(text, sizeof(text), "%02x", ((const uint8_t *)bytes)[i]);
        assert_memory_equal(text, json_string_value(value) + 2 * i, 2);
    }
}

static inline void vector_words(const json_t *object, const char *name, size_t count, uint32_t *ret)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_string(value));
    assert_int_equal(json_string_length(value), 8 * count);
    for (size_t i = 0; i < 4 * count; i++) {
        char text[3] = {0}, *end;
        memcpy(text, json_string_value(value) + 2 * i, 2);
        ((uint8_t *)ret)[i] = (uint8_t)strtoul(text, &end, 16);
        assert_ptr_equal(end, text + 2);
    }
}

static inline void assert_vector_sha256(const json_t *value, struct str bytes)
{
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)bytes.ptr, bytes.len, digest);
    assert_vector_hex(value, digest, sizeof(digest));
}

static inline void vector_pass(const struct probe_backend_ops *ops, struct probe_backend *backend, const json_t *vector,
                               uint64_t tiles)
{
    struct probe_pass pass;
    uint32_t roots[PROBE_PASSES_MAX][8], leaf[8];
    const json_t *opening;
    size_t i;
    vector_words(vector, "challenge", 4, pass.challenge);
    vector_words(vector, "worker_key", 8, pass.worker_key);
    vector_words(vector, "key", 8, pass.key);
    pass.passes = vector_number(vector, "passes");
    assert_int_equal(ops->pass(backend, &pass, roots), ERR_NONE);
    for (uint32_t p = 0; p < pass.passes; p++)
        assert_vector_hex(json_array_get(json_object_get(vector, "roots"), p), roots[p], 32);
    json_array_foreach(json_object_get(vector, "openings"), i, opening)
    {
        struct buf path;
        uint32_t p = vector_number(opening, "pass"), tile = vector_number(opening, "tile");
        buf_init(&path, 0);
        assert_int_equal(ops->pass_open(backend, p, tile, &path), ERR_NONE);
        assert_vector_hex(json_object_get(opening, "path"), path.ptr, path.len);
        vector_words(opening, "leaf", 8, leaf);
        assert_true(merkle_check(leaf, tile, tiles, buf_str(&path), roots[p]));
        buf_free(&path);
    }
}

static inline void vector_walk(const struct probe_backend_ops *ops, struct probe_backend *backend, const json_t *vector)
{
    struct probe_walk walk;
    uint32_t root[8];
    const json_t *opening;
    size_t i;
    vector_words(vector, "challenge", 4, walk.challenge);
    vector_words(vector, "worker_key", 8, walk.worker_key);
    vector_words(vector, "key", 8, walk.key);
    walk.walkers = vector_number(vector, "walkers");
    walk.steps = vector_number(vector, "steps");
    assert_int_equal(ops->walk(backend, &walk, root), ERR_NONE);
    assert_vector_hex(json_object_get(vector, "root"), root, 32);
    json_array_foreach(json_object_get(vector, "openings"), i, opening)
    {
        struct buf trace, path;
        buf_init(&trace, 0);
        buf_init(&path, 0);
        assert_int_equal(ops->walk_open(backend, vector_number(opening, "walker"), &trace, &path), ERR_NONE);
        assert_vector_hex(json_object_get(opening, "trace"), trace.ptr, trace.len);
        assert_vector_hex(json_object_get(opening, "path"), path.ptr, path.len);
        buf_free(&trace);
        buf_free(&path);
    }
}

static inline void vector_memory(const struct probe_backend_ops *ops, struct probe_backend *backend,
                                 const json_t *vector)
{
    struct probe_fill fill;
    struct buf tile;
    buf_init(&tile, 0);
    vector_words(vector, "seed", 8, fill.seed);
    fill.tiles = vector_number(vector, "tiles");
    fill.double_rounds = vector_number(vector, "double_rounds");
    assert_int_equal(ops->fill(backend, &fill), ERR_NONE);
    for (size_t i = 0; i < 2; i++) {
        buf_clear(&tile);
        assert_int_equal(ops->tile_read(backend, i == 0 ? 0 : fill.tiles - 1, &tile), ERR_NONE);
        assert_int_equal(tile.len, PROBE_TILE_BYTES);
        assert_vector_sha256(json_array_get(json_object_get(vector, "tile_sha256"), i), buf_str(&tile));
    }
    buf_free(&tile);
    vector_pass(ops, backend, json_object_get(vector, "pass"), fill.tiles);
    vector_walk(ops, backend, json_object_get(vector, "walk"));
}

static inline void vector_chain(const struct probe_backend_ops *ops, struct probe_backend *backend,
                                const json_t *vector)
{
    struct probe_chain chain;
    enum probe_route route;
    uint32_t root[8], leaf[8];
    const json_t *opening;
    size_t i;
    vector_words(vector, "challenge", 4, chain.challenge);
    vector_words(vector, "worker_key", 8, chain.worker_key);
    vector_words(vector, "seed", 8, chain.seed);
    chain.n = vector_number(vector, "n");
    chain.blocks = vector_number(vector, "blocks");
    chain.steps = vector_number(vector, "steps");
    assert_int_equal(ops->chain(backend, &chain, root, &route), ERR_NONE);
    assert_vector_hex(json_object_get(vector, "root"), root, 32);
    json_array_foreach(json_object_get(vector, "openings"), i, opening)
    {
        struct buf bytes, path;
        uint32_t row = vector_number(opening, "row");
        buf_init(&bytes, 0);
        buf_init(&path, 0);
        assert_int_equal(ops->chain_open(backend, row, &bytes, &path), ERR_NONE);
        assert_int_equal(bytes.len, (size_t)chain.n * chain.blocks);
        assert_vector_hex(json_object_get(opening, "head"), bytes.ptr, 32);
        assert_vector_sha256(json_object_get(opening, "sha256"), buf_str(&bytes));
        assert_vector_hex(json_object_get(opening, "path"), path.ptr, path.len);
        vector_words(opening, "leaf", 8, leaf);
        assert_true(merkle_check(leaf, row, chain.n, buf_str(&path), root));
        buf_free(&bytes);
        buf_free(&path);
    }
}

/* From the repository's root. backend: an open device of ops; its memory is released. */
static inline void probe_vectors_hold(const struct probe_backend_ops *ops, struct probe_backend *backend)
{
    json_error_t where;
    json_t *vectors = json_load_file("tests/vectors/probe.json", JSON_REJECT_DUPLICATES, &where);
    const json_t *vector;
    size_t i;
    assert_non_null(vectors);
    assert_true(json_array_size(json_object_get(vectors, "memory")) > 0);
    assert_true(json_array_size(json_object_get(vectors, "chain")) > 0);
    json_array_foreach(json_object_get(vectors, "memory"), i, vector)
    {
        print_message("%s\n", json_string_value(json_object_get(vector, "name")));
        vector_memory(ops, backend, vector);
    }
    json_array_foreach(json_object_get(vectors, "chain"), i, vector)
    {
        print_message("%s\n", json_string_value(json_object_get(vector, "name")));
        vector_chain(ops, backend, vector);
    }
    ops->release(backend);
    json_decref(vectors);
}

#endif
