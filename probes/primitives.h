/* The arithmetic of the challenges, bit for bit: one definition that the C compiler and nvcc both compile.
 *
 * Everything is little-endian 32-bit words and wraps. What a worker computes on a GPU and what a gateway recomputes on
 * a CPU come from these functions, so that they cannot drift apart. Faster forms (vectors, warps) live beside and are
 * tested against them. protocol.h says who sends what; README.md says what each challenge proves. */
#ifndef SLUICE_PROBES_PRIMITIVES_H
#define SLUICE_PROBES_PRIMITIVES_H

#include <stdint.h>

#ifdef __CUDACC__
#define PROBE_FN __host__ __device__ static inline
#else
#define PROBE_FN static inline
#endif

enum { PROBE_SEED_WORDS = 8, PROBE_HASH_WORDS = 8, PROBE_HASH_BYTES = 32 };

/* -- ChaCha: the generator behind all pseudo-random data ------------------------------------------------------------
 * The block function of RFC 8439 with a free number of double rounds (10 there). Words 12 to 14 say which block, the
 * top byte of word 15 what it is for, its rest the double rounds: no two uses of a seed share a block. */

enum probe_domain {
    PROBE_DOMAIN_FILL = 1,
    PROBE_DOMAIN_PASS_KEY = 2,
    PROBE_DOMAIN_WALK_KEY = 3,
    PROBE_DOMAIN_WALK_START = 4,
    PROBE_DOMAIN_CHAIN_A = 5,
    PROBE_DOMAIN_CHAIN_X = 6,
    PROBE_DOMAIN_CHAIN_STEP = 7,
    PROBE_DOMAIN_NET = 8,
};
#define PROBE_KEY_DOUBLE_ROUNDS 10u /* keys, starts, network payload */
#define PROBE_CHAIN_DOUBLE_ROUNDS \
    4u /* matrices: unpredictable before the seed is told, nothing more is asked of them */

PROBE_FN uint32_t probe_rotl(uint32_t x, int n)
{
    return x << n | x >> (32 - n);
}

#define PROBE_QUARTER(a, b, c, d)                                                                          \
    ((a) += (b), (d) = probe_rotl((d) ^ (a), 16), (c) += (d), (b) = probe_rotl((b) ^ (c), 12), (a) += (b), \
     (d) = probe_rotl((d) ^ (a), 8), (c) += (d), (b) = probe_rotl((b) ^ (c), 7))

PROBE_FN void probe_chacha(const uint32_t seed[PROBE_SEED_WORDS], uint32_t w12, uint32_t w13, uint32_t w14,
                           uint32_t domain, uint32_t double_rounds, uint32_t ret[16])
{
    const uint32_t w15 = domain << 24 | double_rounds;
    uint32_t x0 = 0x61707865u, x1 = 0x3320646eu, x2 = 0x79622d32u, x3 = 0x6b206574u;
    uint32_t x4 = seed[0], x5 = seed[1], x6 = seed[2], x7 = seed[3];
    uint32_t x8 = seed[4], x9 = seed[5], x10 = seed[6], x11 = seed[7];
    uint32_t x12 = w12, x13 = w13, x14 = w14, x15 = w15;
    for (uint32_t i = 0; i < double_rounds; i++) {
        PROBE_QUARTER(x0, x4, x8, x12);
        PROBE_QUARTER(x1, x5, x9, x13);
        PROBE_QUARTER(x2, x6, x10, x14);
        PROBE_QUARTER(x3, x7, x11, x15);
        PROBE_QUARTER(x0, x5, x10, x15);
        PROBE_QUARTER(x1, x6, x11, x12);
        PROBE_QUARTER(x2, x7, x8, x13);
        PROBE_QUARTER(x3, x4, x9, x14);
    }
    ret[0] = x0 + 0x61707865u;
    ret[1] = x1 + 0x3320646eu;
    ret[2] = x2 + 0x79622d32u;
    ret[3] = x3 + 0x6b206574u;
    ret[4] = x4 + seed[0];
    ret[5] = x5 + seed[1];
    ret[6] = x6 + seed[2];
    ret[7] = x7 + seed[3];
    ret[8] = x8 + seed[4];
    ret[9] = x9 + seed[5];
    ret[10] = x10 + seed[6];
    ret[11] = x11 + seed[7];
    ret[12] = x12 + w12;
    ret[13] = x13 + w13;
    ret[14] = x14 + w14;
    ret[15] = x15 + w15;
}

/* -- BLAKE2s-256 (RFC 7693): leaves, nodes, contexts ----------------------------------------------------------------
 * Unkeyed, with the eight bytes of "personal" for what is hashed, so that a leaf is never a node. */

enum probe_personal { /* the first 32-bit word of "personal"; the second is 0x32636c73 ("slc2") */
                      PROBE_HASH_CONTEXT = 0x31787463, /* "ctx1" */
                      PROBE_HASH_NODE = 0x3165646e,    /* "nde1" */
                      PROBE_HASH_TILE = 0x316c6974,    /* "til1" */
                      PROBE_HASH_WALK = 0x316b6c77,    /* "wlk1" */
                      PROBE_HASH_CHUNK = 0x316b6863,   /* "chk1" */
                      PROBE_HASH_ROW = 0x31776f72,     /* "row1" */
                      PROBE_HASH_KEY = 0x3179656b,     /* "key1" */
                      PROBE_HASH_NET = 0x3174656e,     /* "net1" */
};

/* One compression of the running state h over the 16 words m. t: bytes hashed with this block; last: the final one. */
PROBE_FN void probe_blake2s_compress(uint32_t h[8], const uint32_t m[16], uint64_t t, int last)
{
    const uint8_t sigma[10][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};
    const uint32_t iv[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                            0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    uint32_t v[16];
    for (int i = 0; i < 8; i++) {
        v[i] = h[i];
        v[i + 8] = iv[i];
    }
    v[12] ^= (uint32_t)t;
    v[13] ^= (uint32_t)(t >> 32);
    if (last)
        v[14] = ~v[14];
#define PROBE_G(a, b, c, d, x, y)                                                                              \
    (v[a] += v[b] + (x), v[d] = probe_rotl(v[d] ^ v[a], 16), v[c] += v[d], v[b] = probe_rotl(v[b] ^ v[c], 20), \
     v[a] += v[b] + (y), v[d] = probe_rotl(v[d] ^ v[a], 24), v[c] += v[d], v[b] = probe_rotl(v[b] ^ v[c], 25))
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int r = 0; r < 10; r++) {
        const uint8_t *s = sigma[r];
        PROBE_G(0, 4, 8, 12, m[s[0]], m[s[1]]);
        PROBE_G(1, 5, 9, 13, m[s[2]], m[s[3]]);
        PROBE_G(2, 6, 10, 14, m[s[4]], m[s[5]]);
        PROBE_G(3, 7, 11, 15, m[s[6]], m[s[7]]);
        PROBE_G(0, 5, 10, 15, m[s[8]], m[s[9]]);
        PROBE_G(1, 6, 11, 12, m[s[10]], m[s[11]]);
        PROBE_G(2, 7, 8, 13, m[s[12]], m[s[13]]);
        PROBE_G(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
#undef PROBE_G
    for (int i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

PROBE_FN void probe_blake2s_init(uint32_t h[8], uint32_t personal)
{
    h[0] = 0x6a09e667u ^ 0x01010020u; /* 32 bytes out, no key, fan-out and depth 1 */
    h[1] = 0xbb67ae85u;
    h[2] = 0x3c6ef372u;
    h[3] = 0xa54ff53au;
    h[4] = 0x510e527fu;
    h[5] = 0x9b05688cu;
    h[6] = 0x1f83d9abu ^ personal;
    h[7] = 0x5be0cd19u ^ 0x32636c73u;
}

/* The hash of exactly one block of 64 bytes. */
PROBE_FN void probe_hash_block(uint32_t personal, const uint32_t m[16], uint32_t ret[8])
{
    probe_blake2s_init(ret, personal);
    probe_blake2s_compress(ret, m, 64, 1);
}

/* A node of a Merkle tree. Trees: leaves in order, level by level in pairs; the last of an odd level goes up as it is.
 * So node j of level k covers the leaves j*2^k up to (j+1)*2^k, and subtrees can be hashed apart. */
PROBE_FN void probe_node(const uint32_t left[8], const uint32_t right[8], uint32_t ret[8])
{
    uint32_t m[16];
    for (int i = 0; i < 8; i++) {
        m[i] = left[i];
        m[i + 8] = right[i];
    }
    probe_hash_block(PROBE_HASH_NODE, m, ret);
}

/* -- FILL: tiles ----------------------------------------------------------------------------------------------------
 * Memory is tiles of 8 KiB = 128 blocks of 64 bytes. Block i of tile t is one ChaCha block with D double rounds: any
 * block can be recomputed alone, at a cost that D sets against reading it. */

enum {
    PROBE_TILE_BYTES = 8192,
    PROBE_TILE_WORDS = 2048,
    PROBE_TILE_BLOCKS = 128,
};

PROBE_FN void probe_tile_block(const uint32_t seed[8], uint64_t tile, uint32_t block, uint32_t double_rounds,
                               uint32_t ret[16])
{
    probe_chacha(seed, block, (uint32_t)tile, (uint32_t)(tile >> 32), PROBE_DOMAIN_FILL, double_rounds, ret);
}

/* -- PASS: a keyed hash of every tile -------------------------------------------------------------------------------
 * NH (RFC 4418 section 5.3's form, 64-bit sums) over the tile's 2048 words, twice, the second with the key shifted by
 * four words (Toeplitz). Sums wrap modulo 2^64, so that parts may be added in any order. */

enum { PROBE_PASS_KEY_WORDS = PROBE_TILE_WORDS + 4 };

/* Word j of the key stream of a pass: word j % 16 of block j / 16. */
PROBE_FN void probe_pass_key_block(const uint32_t key[8], uint32_t block, uint32_t ret[16])
{
    probe_chacha(key, block, 0, 0, PROBE_DOMAIN_PASS_KEY, PROBE_KEY_DOUBLE_ROUNDS, ret);
}

/* One pair: the words 2j and 2j+1 of a tile with the same of the key (or four further on). */
PROBE_FN uint64_t probe_nh_pair(uint32_t m0, uint32_t m1, uint32_t k0, uint32_t k1)
{
    return (uint64_t)(uint32_t)(m0 + k0) * (uint32_t)(m1 + k1);
}

/* The leaf of a tile. context: probe_context of this pass (index = the pass, from 0). */
PROBE_FN void probe_tile_leaf(const uint32_t context[8], uint64_t tile, uint64_t nh0, uint64_t nh1, uint32_t ret[8])
{
    uint32_t m[16] = {context[0],
                      context[1],
                      context[2],
                      context[3],
                      context[4],
                      context[5],
                      context[6],
                      context[7],
                      (uint32_t)tile,
                      (uint32_t)(tile >> 32),
                      (uint32_t)nh0,
                      (uint32_t)(nh0 >> 32),
                      (uint32_t)nh1,
                      (uint32_t)(nh1 >> 32),
                      0,
                      0};
    probe_hash_block(PROBE_HASH_TILE, m, ret);
}

/* The key of the next pass, from this one's key and root: passes cannot run at once. */
PROBE_FN void probe_next_key(const uint32_t key[8], const uint32_t root[8], uint32_t ret[8])
{
    uint32_t m[16];
    for (int i = 0; i < 8; i++) {
        m[i] = key[i];
        m[i + 8] = root[i];
    }
    probe_hash_block(PROBE_HASH_KEY, m, ret);
}

/* Binds leaves to a challenge and to the worker that answers: a root is of no use to another. Three words of index are
 * never needed; m is chal_id (4 words), public key (8), index, zeros. */
PROBE_FN void probe_context(const uint32_t challenge[4], const uint32_t worker_key[8], uint32_t index, uint32_t ret[8])
{
    uint32_t m[16];
    for (int i = 0; i < 4; i++)
        m[i] = challenge[i];
    for (int i = 0; i < 8; i++)
        m[i + 4] = worker_key[i];
    m[12] = index;
    m[13] = m[14] = m[15] = 0;
    probe_hash_block(PROBE_HASH_CONTEXT, m, ret);
}

/* -- WALK: dependent random reads over the filled tiles -------------------------------------------------------------
 * A walker at x reads line x % 64 (128 bytes) of tile (x * n_tiles) >> 64 and goes to mix(x + NH(line)). */

enum { PROBE_LINE_WORDS = 32, PROBE_TILE_LINES = 64, PROBE_WALK_KEY_WORDS = 32 };

/* Words 16*block .. of the walk's key; block 0 or 1. */
PROBE_FN void probe_walk_key_block(const uint32_t key[8], uint32_t block, uint32_t ret[16])
{
    probe_chacha(key, block, 0, 0, PROBE_DOMAIN_WALK_KEY, PROBE_KEY_DOUBLE_ROUNDS, ret);
}

PROBE_FN uint64_t probe_walk_start(const uint32_t key[8], uint32_t walker)
{
    uint32_t block[16];
    probe_chacha(key, walker, 0, 0, PROBE_DOMAIN_WALK_START, PROBE_KEY_DOUBLE_ROUNDS, block);
    return (uint64_t)block[1] << 32 | block[0];
}

PROBE_FN uint64_t probe_walk_tile(uint64_t x, uint64_t n_tiles) /* n_tiles < 2^32 */
{
    return ((x >> 32) * n_tiles + (((x & 0xffffffffu) * n_tiles) >> 32)) >> 32;
}

PROBE_FN uint32_t probe_walk_line(uint64_t x)
{
    return (uint32_t)x & (PROBE_TILE_LINES - 1);
}

/* nh: the sum over j < 16 of probe_nh_pair(line[2j], line[2j+1], key[2j], key[2j+1]). */
PROBE_FN uint64_t probe_walk_next(uint64_t x, uint64_t nh)
{
    x += nh;
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    x ^= x >> 31;
    return x;
}
/* A walker's leaf is BLAKE2s (PROBE_HASH_WALK) over a block {context[8], walker, zeros} and then its trace x_0 ... x_S,
 * 64-bit words. The context's index is 0. */

/* -- CHAIN: integer matrix products that cannot be skipped ----------------------------------------------------------
 * Over GF(251), residues held as int8 in [-125, 125]. A is n x n, X_0 is n x (B*n) in B blocks of n columns.
 * Step t: C = A * X_t (exact in int32: n * 125^2 < 2^31), and
 *     X_{t+1}[i][block (b + o) % B][c] = d * C[i][block b][c] mod 251,   d = d_t[i] in 1..250, o = o_t[i] in 0..B-1.
 * The answer is the Merkle root over the rows of X_L. */

enum { PROBE_FIELD = 251, PROBE_FIELD_HALF = 125 };

PROBE_FN int8_t probe_residue_of_byte(uint32_t byte)
{
    return (int8_t)((int)(byte >= PROBE_FIELD ? byte - PROBE_FIELD : byte) - PROBE_FIELD_HALF);
}

/* Columns 64*block .. of row i of A or X_0 (domain): byte k of the 16 little-endian words is column 64*block + k. */
PROBE_FN void probe_chain_block(const uint32_t seed[8], uint32_t domain, uint32_t row, uint32_t block, uint32_t ret[16])
{
    probe_chacha(seed, block, row, 0, domain, PROBE_CHAIN_DOUBLE_ROUNDS, ret);
}

/* The 16 rows 16*block .. of step t: word i % 16 is row i's. */
PROBE_FN void probe_chain_step_block(const uint32_t seed[8], uint32_t step, uint32_t block, uint32_t ret[16])
{
    probe_chacha(seed, block, step, 0, PROBE_DOMAIN_CHAIN_STEP, PROBE_CHAIN_DOUBLE_ROUNDS, ret);
}

PROBE_FN int32_t probe_chain_scale(uint32_t step_word) /* d_t[i] */
{
    return 1 + (int32_t)((step_word & 0xffffu) % 250u);
}

PROBE_FN uint32_t probe_chain_shift(uint32_t step_word, uint32_t blocks) /* o_t[i] */
{
    return (step_word >> 16) % blocks;
}

PROBE_FN int32_t probe_residue(int32_t x) /* of any int32, in [-125, 125] */
{
    int32_t r = x % PROBE_FIELD;
    if (r > PROBE_FIELD_HALF)
        r -= PROBE_FIELD;
    if (r < -PROBE_FIELD_HALF)
        r += PROBE_FIELD;
    return r;
}

PROBE_FN int8_t probe_chain_element(int32_t sum, int32_t scale)
{
    return (int8_t)probe_residue(probe_residue(sum) * scale);
}

/* A row is hashed in chunks of 1 KiB (the last may be shorter; B*n is a multiple of 64), so that many threads can share
 * it: chunk digest = BLAKE2s (PROBE_HASH_CHUNK) over a block {context[8], row, chunk, zeros} and the chunk's bytes;
 * leaf = BLAKE2s (PROBE_HASH_ROW) over a block {context[8], row, chunks, zeros} and the digests. The context's index is
 * 0. */
enum { PROBE_CHUNK_BYTES = 1024 };

#endif
