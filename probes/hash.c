#include "probes/hash.h"

#include <assert.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are hashed as they lie in memory");

void probe_hash_init(struct probe_hash *hash, uint32_t personal)
{
    probe_blake2s_init(hash->h, personal);
    hash->length = 0;
    hash->held = 0;
}

static void hash_compress(struct probe_hash *hash, const void *block, uint32_t bytes, int last)
{
    uint32_t words[16];
    memcpy(words, block, sizeof(words));
    hash->length += bytes;
    probe_blake2s_compress(hash->h, words, hash->length, last);
}

void probe_hash_update(struct probe_hash *hash, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    if (len == 0)
        return;
    size_t room = sizeof(hash->block) - hash->held;
    if (len > room) {
        memcpy(hash->block + hash->held, at, room);
        hash_compress(hash, hash->block, 64, 0);
        hash->held = 0;
        at += room;
        len -= room;
        for (; len > 64; at += 64, len -= 64) /* not the last: it may be the final one */
            hash_compress(hash, at, 64, 0);
    }
    memcpy(hash->block + hash->held, at, len);
    hash->held += (uint32_t)len;
}

void probe_hash_final(struct probe_hash *hash, uint32_t ret[8])
{
    memset(hash->block + hash->held, 0, sizeof(hash->block) - hash->held);
    hash_compress(hash, hash->block, hash->held, 1);
    memcpy(ret, hash->h, PROBE_HASH_BYTES);
}

uint64_t merkle_width(uint64_t leaves, unsigned level)
{
    assert(level <= MERKLE_DEPTH_MAX);
    return (leaves >> level) + ((leaves & ((UINT64_C(1) << level) - 1)) != 0);
}

/* One level up, to may be from itself. */
static void reduce_level(const uint32_t (*from)[8], uint64_t width, uint32_t (*to)[8])
{
    for (uint64_t i = 0; i < width / 2; i++) {
        uint32_t node[8];
        probe_node(from[2 * i], from[2 * i + 1], node);
        memcpy(to[i], node, sizeof(node));
    }
    if (width % 2)
        memmove(to[width / 2], from[width - 1], PROBE_HASH_BYTES);
}

void merkle_root(uint32_t (*leaves)[8], uint64_t count, uint32_t ret[8])
{
    assert(count >= 1);
    for (uint64_t width = count; width > 1; width = width / 2 + width % 2)
        reduce_level((const uint32_t(*)[8])leaves, width, leaves);
    memcpy(ret, leaves[0], PROBE_HASH_BYTES);
}

/* Node `index` of a level: pairs are joined as soon as both halves are there, so one node a level is held. */
static void node_of(const uint32_t (*leaves)[8], uint64_t count, unsigned level, uint64_t index, uint32_t ret[8])
{
    uint32_t held[MERKLE_DEPTH_MAX + 1][8];
    unsigned levels[MERKLE_DEPTH_MAX + 1], depth = 0;
    uint64_t first = index << level, end = first + (UINT64_C(1) << level);
    if (end > count)
        end = count;
    for (uint64_t i = first; i < end; i++) {
        memcpy(held[depth], leaves[i], PROBE_HASH_BYTES);
        levels[depth++] = 0;
        while (depth >= 2 && levels[depth - 2] == levels[depth - 1]) {
            probe_node(held[depth - 2], held[depth - 1], ret);
            memcpy(held[depth - 2], ret, PROBE_HASH_BYTES);
            levels[--depth - 1]++;
        }
    }
    for (; depth >= 2; depth--) { /* the right edge: the smaller one went up as it was until it found its pair */
        probe_node(held[depth - 2], held[depth - 1], ret);
        memcpy(held[depth - 2], ret, PROBE_HASH_BYTES);
    }
    memcpy(ret, held[0], PROBE_HASH_BYTES);
}

enum error merkle_path(const uint32_t (*leaves)[8], uint64_t count, uint64_t index, struct buf *to)
{
    if (index >= count || merkle_width(count, MERKLE_DEPTH_MAX) != 1)
        return ERR_BAD_INPUT;
    if (!buf_reserve(to, (size_t)merkle_path_length(index, count) * PROBE_HASH_BYTES))
        return ERR_NO_MEMORY;
    for (unsigned level = 0; merkle_width(count, level) > 1; level++) {
        uint64_t sibling = (index >> level) ^ 1;
        uint32_t node[8];
        if (sibling >= merkle_width(count, level))
            continue;
        node_of(leaves, count, level, sibling, node);
        if (!buf_append(to, node, sizeof(node)))
            return ERR_NO_MEMORY;
    }
    return ERR_NONE;
}

uint64_t merkle_tree_nodes(uint64_t leaves)
{
    uint64_t nodes = leaves;
    for (uint64_t width = leaves; width > 1;) {
        width = width / 2 + width % 2;
        nodes += width;
    }
    return nodes;
}

void merkle_tree_grow(uint32_t (*nodes)[8], uint64_t leaves)
{
    for (uint64_t width = leaves; width > 1; width = width / 2 + width % 2) {
        reduce_level((const uint32_t(*)[8])nodes, width, nodes + width);
        nodes += width;
    }
}

enum error merkle_tree_path(const uint32_t (*nodes)[8], uint64_t leaves, uint64_t index, struct buf *to)
{
    if (index >= leaves || merkle_width(leaves, MERKLE_DEPTH_MAX) != 1)
        return ERR_BAD_INPUT;
    if (!buf_reserve(to, (size_t)merkle_path_length(index, leaves) * PROBE_HASH_BYTES))
        return ERR_NO_MEMORY;
    for (uint64_t width = leaves; width > 1; width = width / 2 + width % 2) {
        if ((index ^ 1) < width && !buf_append(to, nodes[index ^ 1], PROBE_HASH_BYTES))
            return ERR_NO_MEMORY;
        nodes += width;
        index /= 2;
    }
    return ERR_NONE;
}

unsigned merkle_path_length(uint64_t index, uint64_t leaves)
{
    unsigned length = 0;
    for (uint64_t width = leaves; width > 1; width = width / 2 + width % 2, index /= 2)
        length += (index ^ 1) < width;
    return length;
}

bool merkle_check(const uint32_t leaf[8], uint64_t index, uint64_t leaves, struct str path, const uint32_t root[8])
{
    uint32_t node[8], sibling[8], parent[8];
    if (index >= leaves || path.len != (size_t)merkle_path_length(index, leaves) * PROBE_HASH_BYTES)
        return false;
    memcpy(node, leaf, sizeof(node));
    size_t at = 0;
    for (uint64_t width = leaves; width > 1; width = width / 2 + width % 2, index /= 2) {
        if ((index ^ 1) >= width)
            continue;
        memcpy(sibling, path.ptr + at, sizeof(sibling));
        at += PROBE_HASH_BYTES;
        if (index % 2)
            probe_node(sibling, node, parent);
        else
            probe_node(node, sibling, parent);
        memcpy(node, parent, sizeof(node));
    }
    return memcmp(node, root, sizeof(node)) == 0; /* nothing here is secret */
}
