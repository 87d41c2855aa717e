#include "tests/unit/cmocka_all.h"

#include "probes/hash.h"

#include <string.h>

#define LEAVES_MAX 70

static void assert_hex(const uint32_t digest[8], const char *want)
{
    char text[65];
    const uint8_t *bytes = (const uint8_t *)digest;
    for (int i = 0; i < 32; i++)
        snprintf(text + (size_t)i * 2, 3, "%02x", bytes[i]);
    assert_string_equal(text, want);
}

static void standard_vector(void **state)
{
    (void)state;
    /* RFC 7693, appendix B: "abc" without personalisation. */
    uint32_t h[8], m[16] = {0};
    probe_blake2s_init(h, 0);
    h[7] ^= 0x32636c73u;
    memcpy(m, "abc", 3);
    probe_blake2s_compress(h, m, 3, 1);
    assert_hex(h, "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982");
}

static const struct {
    uint32_t personal;
    size_t len;
    const char *want; /* of the bytes i % 251, by Python's hashlib.blake2s(person=...) */
} known[] = {
    {PROBE_HASH_TILE, 64, "808faa5e8d721e67aaa435941bd65a1dbb135c2155c088e8471ad27965be320f"},
    {PROBE_HASH_NODE, 64, "bdbe9d72ebeb60cb01000a1982b5088b4affec2b0203e4b1448795bafc3295c1"},
    {PROBE_HASH_ROW, 0, "a3bb0507f9b8704f029384a6b7168d24a889df278d8d121fc547d54e8b20001d"},
    {PROBE_HASH_ROW, 1000, "c01a84e6beb389dfadd3790e9b3c8127c26b2fcd494d39784dc9bfb276dd1ec6"},
    {PROBE_HASH_CHUNK, 128, "229a424fd8d2750b55d41955d1744bc57a56fe308c312064edabb4a76c2804d4"},
    {PROBE_HASH_NET, 65, "fcdcc2d9c7b54dc087b8abb53d13a29526813c748b2429876ff10a880b368380"},
};

static void known_answers(void **state)
{
    (void)state;
    uint8_t bytes[1000];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i % 251);
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        /* in pieces of every size: where blocks are cut must not show */
        for (size_t piece = 1; piece <= 130; piece++) {
            struct probe_hash hash;
            uint32_t digest[8];
            probe_hash_init(&hash, known[i].personal);
            for (size_t at = 0; at < known[i].len; at += piece)
                probe_hash_update(&hash, bytes + at, known[i].len - at < piece ? known[i].len - at : piece);
            probe_hash_final(&hash, digest);
            assert_hex(digest, known[i].want);
        }
    }
}

static void blocks_and_nodes_are_the_same_hash(void **state)
{
    (void)state;
    uint32_t m[16], by_block[8], by_node[8], by_hash[8];
    struct probe_hash hash;
    for (uint32_t i = 0; i < 16; i++)
        m[i] = i * 2654435761u;
    probe_hash_block(PROBE_HASH_NODE, m, by_block);
    probe_node(m, m + 8, by_node);
    probe_hash_init(&hash, PROBE_HASH_NODE);
    probe_hash_update(&hash, m, sizeof(m));
    probe_hash_final(&hash, by_hash);
    assert_memory_equal(by_block, by_node, 32);
    assert_memory_equal(by_block, by_hash, 32);
    probe_hash_block(PROBE_HASH_TILE, m, by_node);
    assert_memory_not_equal(by_block, by_node, 32);
}

/* By the definition: node j of level k, or false where there is none. */
static bool node_by_definition(uint32_t (*leaves)[8], uint64_t count, unsigned level, uint64_t j, uint32_t ret[8])
{
    uint32_t left[8], right[8];
    if (level == 0) {
        if (j < count)
            memcpy(ret, leaves[j], 32);
        return j < count;
    }
    if (!node_by_definition(leaves, count, level - 1, 2 * j, left))
        return false;
    if (node_by_definition(leaves, count, level - 1, 2 * j + 1, right))
        probe_node(left, right, ret);
    else
        memcpy(ret, left, 32);
    return true;
}

static void make_leaves(uint32_t (*leaves)[8], uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint32_t m[16] = {(uint32_t)i, 77};
        probe_hash_block(PROBE_HASH_TILE, m, leaves[i]);
    }
}

static void all_small_trees(void **state)
{
    (void)state;
    uint32_t leaves[LEAVES_MAX][8], work[LEAVES_MAX][8], tree[3 * LEAVES_MAX][8], want[8], root[8];
    make_leaves(leaves, LEAVES_MAX);
    for (uint64_t count = 1; count <= LEAVES_MAX; count++) {
        assert_true(node_by_definition(leaves, count, 7, 0, want));
        memcpy(work, leaves, sizeof(work));
        merkle_root(work, count, root);
        assert_memory_equal(root, want, 32);

        memcpy(tree, leaves, count * 32);
        uint64_t nodes = merkle_tree_nodes(count), widths = 0;
        for (unsigned level = 0; level == 0 || merkle_width(count, level - 1) > 1; level++)
            widths += merkle_width(count, level);
        assert_int_equal(nodes, widths);
        merkle_tree_grow(tree, count);
        assert_memory_equal(tree[nodes - 1], want, 32);

        for (uint64_t index = 0; index < count; index++) {
            struct buf path, same;
            buf_init(&path, 4096);
            buf_init(&same, 4096);
            assert_int_equal(merkle_path((const uint32_t(*)[8])leaves, count, index, &path), ERR_NONE);
            assert_int_equal(merkle_tree_path((const uint32_t(*)[8])tree, count, index, &same), ERR_NONE);
            assert_true(str_eq(buf_str(&path), buf_str(&same)));
            assert_int_equal(path.len, merkle_path_length(index, count) * 32);
            assert_true(merkle_check(leaves[index], index, count, buf_str(&path), root));
            for (uint64_t other = 0; other < count; other++) {
                if (other == index)
                    continue;
                assert_false(merkle_check(leaves[index], other, count, buf_str(&path), root));
                assert_false(merkle_check(leaves[other], index, count, buf_str(&path), root));
            }
            buf_free(&path);
            buf_free(&same);
        }
    }
}

static void wrong_paths_are_refused(void **state)
{
    (void)state;
    uint32_t leaves[LEAVES_MAX][8], work[LEAVES_MAX][8], root[8];
    make_leaves(leaves, LEAVES_MAX);
    static const uint64_t counts[] = {1, 2, 3, 7, 8, 33, 70};
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        uint64_t count = counts[c];
        memcpy(work, leaves, sizeof(work));
        merkle_root(work, count, root);
        for (uint64_t index = 0; index < count; index++) {
            struct buf path;
            buf_init(&path, 4096);
            assert_int_equal(merkle_path((const uint32_t(*)[8])leaves, count, index, &path), ERR_NONE);
            assert_true(buf_reserve(&path, 32));
            memset(path.ptr + path.len, 0, 32);
            for (size_t len = 0; len <= path.len + 32; len++)
                assert_int_equal(merkle_check(leaves[index], index, count, (struct str){path.ptr, len}, root),
                                 len == path.len);
            for (size_t bit = 0; bit < path.len * 8; bit += 5) {
                path.ptr[bit / 8] = (char)(path.ptr[bit / 8] ^ 1 << bit % 8);
                assert_false(merkle_check(leaves[index], index, count, buf_str(&path), root));
                path.ptr[bit / 8] = (char)(path.ptr[bit / 8] ^ 1 << bit % 8);
            }
            root[index % 8] ^= 1;
            assert_false(merkle_check(leaves[index], index, count, buf_str(&path), root));
            root[index % 8] ^= 1;
            assert_false(merkle_check(leaves[index], index + count, count, buf_str(&path), root));
            assert_false(merkle_check(leaves[index], UINT64_MAX, count, buf_str(&path), root));
            buf_free(&path);
        }
    }
    /* a node is not a leaf of a smaller tree: the same root, and yet no path of that length */
    uint32_t node[8];
    probe_node(leaves[0], leaves[1], node);
    merkle_root((memcpy(work, leaves, sizeof(work)), work), 4, root);
    uint32_t sibling[8];
    probe_node(leaves[2], leaves[3], sibling);
    assert_false(merkle_check(node, 0, 4, (struct str){(const char *)sibling, 32}, root));
}

static void paths_that_cannot_be(void **state)
{
    (void)state;
    uint32_t tree[3 * LEAVES_MAX][8];
    struct buf to;
    make_leaves(tree, 5);
    merkle_tree_grow(tree, 5);
    buf_init(&to, 64); /* index 0 of 5 has three siblings */
    assert_true(buf_append(&to, "ab", 2));
    assert_int_equal(merkle_path((const uint32_t(*)[8])tree, 5, 5, &to), ERR_BAD_INPUT);
    assert_int_equal(merkle_path((const uint32_t(*)[8])tree, 0, 0, &to), ERR_BAD_INPUT);
    assert_int_equal(merkle_tree_path((const uint32_t(*)[8])tree, 5, 5, &to), ERR_BAD_INPUT);
    assert_int_equal(merkle_path((const uint32_t(*)[8])tree, 5, 0, &to), ERR_NO_MEMORY);
    assert_int_equal(merkle_tree_path((const uint32_t(*)[8])tree, 5, 0, &to), ERR_NO_MEMORY);
    assert_int_equal(to.len, 2);
    buf_free(&to);
    assert_false(merkle_check(tree[0], 0, 0, (struct str){"", 0}, tree[0]));
    assert_int_equal(merkle_width((UINT64_C(1) << 27) + 1, 20), 129);
    assert_int_equal(merkle_path_length(0, (UINT64_C(1) << 27) + 1), 28);
    assert_int_equal(merkle_path_length(UINT64_C(1) << 27, (UINT64_C(1) << 27) + 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_vector),
        cmocka_unit_test(known_answers),
        cmocka_unit_test(blocks_and_nodes_are_the_same_hash),
        cmocka_unit_test(all_small_trees),
        cmocka_unit_test(wrong_paths_are_refused),
        cmocka_unit_test(paths_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
