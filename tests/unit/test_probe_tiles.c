#include "tests/unit/cmocka_all.h"

#include "probes/stream.h"
#include "probes/tiles.h"
#include "probes/vector.h"

#include <openssl/evp.h>
#include <string.h>

static uint64_t random_state = 88172645463325252;
static uint64_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545f4914f6cdd1du;
}
static void random_words(uint32_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        words[i] = (uint32_t)(random_word() >> 32);
}

/* With ten double rounds a run of blocks is OpenSSL's ChaCha20 key stream. */
static void chacha_is_openssls(void **state)
{
    (void)state;
    for (int round = 0; round < 8; round++) {
        uint32_t seed[8], w13, w14, first = round == 0 ? 0 : (uint32_t)random_word() & 0xffffff, blocks[20 * 16];
        uint32_t want[20 * 16] = {0}, one[16];
        int len;
        random_words(seed, 8);
        random_words(&w13, 1);
        random_words(&w14, 1);
        stream_make((struct stream){seed, w13, w14, 0xab, 10}, first, 20, blocks);
        uint32_t iv[4] = {first, w13, w14, 0xab00000au};
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        assert_non_null(ctx);
        assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_chacha20(), NULL, (uint8_t *)seed, (uint8_t *)iv), 1);
        assert_int_equal(EVP_EncryptUpdate(ctx, (uint8_t *)want, &len, (uint8_t *)want, (int)sizeof(want)), 1);
        EVP_CIPHER_CTX_free(ctx);
        assert_memory_equal(blocks, want, sizeof(want));
        probe_chacha(seed, first, w13, w14, 0xab, 10, one);
        assert_memory_equal(one, want, sizeof(one));
    }
}

/* Any count at any place, to any address, and not a byte further; the block's number wraps. */
static void runs_are_their_blocks(void **state)
{
    (void)state;
    uint32_t seed[8], block[16];
    uint8_t bytes[45 * 64 + 8];
    random_words(seed, 8);
    struct stream stream = {seed, 7, UINT32_MAX, PROBE_DOMAIN_NET, 3};
    for (uint32_t count = 0; count <= 44; count++) {
        uint32_t first = count % 3 == 0 ? UINT32_MAX - 9 : (uint32_t)random_word(), offset = count % 8;
        memset(bytes, 0x5a, sizeof(bytes));
        stream_make(stream, first, count, bytes + offset);
        for (uint32_t i = 0; i < count; i++) {
            probe_chacha(seed, first + i, 7, UINT32_MAX, PROBE_DOMAIN_NET, 3, block);
            assert_memory_equal(bytes + offset + (size_t)i * 64, block, sizeof(block));
        }
        for (size_t i = 0; i < sizeof(bytes); i++)
            if (i < offset || i >= offset + (size_t)count * 64)
                assert_int_equal(bytes[i], 0x5a);
    }
}

static void tiles_are_their_blocks(void **state)
{
    (void)state;
    static const uint64_t tiles[] = {0, 1, 0xffffffff, 0x123456789a};
    static const uint32_t rounds[] = {1, 4, 7, 64};
    uint32_t seed[8], tile[PROBE_TILE_WORDS], line[PROBE_LINE_WORDS], block[16];
    random_words(seed, 8);
    for (size_t i = 0; i < 4; i++) {
        tile_make(seed, tiles[i], rounds[i], tile);
        for (uint32_t b = 0; b < PROBE_TILE_BLOCKS; b++) {
            probe_tile_block(seed, tiles[i], b, rounds[i], block);
            assert_memory_equal(tile + (size_t)b * 16, block, sizeof(block));
        }
        for (uint32_t l = 0; l < PROBE_TILE_LINES; l++) {
            tile_line_make(seed, tiles[i], l, rounds[i], line);
            assert_memory_equal(tile + (size_t)l * PROBE_LINE_WORDS, line, sizeof(line));
        }
    }
}

static uint64_t nh_by_definition(const uint32_t *m, const uint32_t *k, size_t words)
{
    unsigned __int128 sum = 0;
    for (size_t i = 0; i < words; i += 2) {
        uint64_t a = ((uint64_t)m[i] + k[i]) % (UINT64_C(1) << 32);
        uint64_t b = ((uint64_t)m[i + 1] + k[i + 1]) % (UINT64_C(1) << 32);
        sum += (unsigned __int128)a * b;
    }
    return (uint64_t)sum;
}

static void nh_is_by_definition(void **state)
{
    (void)state;
    uint32_t tile[PROBE_TILE_WORDS], key[PROBE_PASS_KEY_WORDS], block[16], seed[8];
    random_words(seed, 8);
    pass_key_make(seed, key);
    for (uint32_t i = 0; i < PROBE_PASS_KEY_WORDS; i++) {
        probe_pass_key_block(seed, i / 16, block);
        assert_int_equal(key[i], block[i % 16]);
    }
    for (int round = 0; round < 8; round++) {
        uint64_t nh[2];
        if (round == 0) { /* all sums as large as they get */
            memset(tile, 0, sizeof(tile));
            memset(key, 0xff, sizeof(key));
        } else if (round == 1) { /* every sum wraps */
            memset(tile, 0xff, sizeof(tile));
        } else {
            random_words(tile, PROBE_TILE_WORDS);
            random_words(key, PROBE_PASS_KEY_WORDS);
        }
        tile_nh(tile, key, nh);
        assert_int_equal(nh[0], nh_by_definition(tile, key, PROBE_TILE_WORDS));
        assert_int_equal(nh[1], nh_by_definition(tile, key + 4, PROBE_TILE_WORDS));
    }
}

static void walking(void **state)
{
    (void)state;
    uint32_t seed[8], key[PROBE_WALK_KEY_WORDS], block[16], line[PROBE_LINE_WORDS];
    random_words(seed, 8);
    walk_key_make(seed, key);
    for (uint32_t i = 0; i < PROBE_WALK_KEY_WORDS; i++) {
        probe_walk_key_block(seed, i / 16, block);
        assert_int_equal(key[i], block[i % 16]);
    }
    for (int i = 0; i < 100; i++) {
        random_words(line, PROBE_LINE_WORDS);
        assert_int_equal(line_nh(line, key), nh_by_definition(line, key, PROBE_LINE_WORDS));
        uint64_t x = random_word(), tiles = 1 + (random_word() >> (32 + i % 32));
        if (tiles > UINT32_MAX)
            tiles = UINT32_MAX;
        assert_int_equal(probe_walk_tile(x, tiles), (uint64_t)(((unsigned __int128)x * tiles) >> 64));
        assert_true(probe_walk_tile(x, tiles) < tiles);
    }
    assert_int_equal(probe_walk_tile(UINT64_MAX, UINT32_MAX), UINT32_MAX - 1);
    assert_int_equal(probe_walk_tile(UINT64_MAX, 1), 0);
    assert_int_equal(probe_walk_tile(0, UINT32_MAX), 0);
}

static void walk_leaves(void **state)
{
    (void)state;
    uint32_t context[8], leaf[8], want[8], head[16] = {0};
    uint64_t trace[11];
    struct probe_hash hash;
    random_words(context, 8);
    for (size_t i = 0; i < 11; i++)
        trace[i] = random_word();
    memcpy(head, context, 32);
    head[8] = 19;
    probe_hash_init(&hash, PROBE_HASH_WALK);
    probe_hash_update(&hash, head, 64);
    probe_hash_update(&hash, trace, sizeof(trace));
    probe_hash_final(&hash, want);
    walk_leaf(context, 19, trace, 10, leaf);
    assert_memory_equal(leaf, want, 32);
    walk_leaf(context, 18, trace, 10, leaf);
    assert_memory_not_equal(leaf, want, 32);
    walk_leaf(context, 19, trace, 9, leaf);
    assert_memory_not_equal(leaf, want, 32);
}

static const char *const vector_names[] = {"portable", "AVX2", "AVX-512"};

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chacha_is_openssls),
        cmocka_unit_test(runs_are_their_blocks),
        cmocka_unit_test(tiles_are_their_blocks),
        cmocka_unit_test(nh_is_by_definition),
        cmocka_unit_test(walking),
        cmocka_unit_test(walk_leaves),
    };
    int failed = 0;
    for (enum probe_vector vector = PROBE_VECTOR_PORTABLE; vector <= probe_vector_best(); vector++) {
        probe_vector_force(vector);
        failed += cmocka_run_group_tests_name(vector_names[vector], tests, NULL, NULL);
    }
    return failed;
}
