/* PASS: every tile read once, hashed and reduced to one node for 32 tiles; and Merkle trees in general. */
#include "probes/cuda/device.cuh"

enum { KEY_VECTORS = PROBE_PASS_KEY_WORDS / 4, TILE_VECTORS = PROBE_TILE_WORDS / 4, IN_FLIGHT = 8 };

/* Both NH sums over a tile: lanes 0 .. 15 return the first, the others the second. 16 bytes at a time, eight loads
 * before the first is used; the sums are halved over the warp with one exchange a step instead of two. */
DEVICE_FN uint64_t tile_nh_of_warp(const uint4 *tile, const uint4 *key)
{
    const unsigned lane = threadIdx.x & 31;
    uint64_t sum0 = 0, sum1 = 0;
    __syncwarp(); /* or the compiler reads the key once for all tiles, into more registers than there are */
#pragma unroll
    for (int half = 0; half < TILE_VECTORS / 32; half += IN_FLIGHT) {
        uint4 m[IN_FLIGHT];
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++)
            m[i] = load_once(tile + (half + i) * 32 + lane);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++) {
            const uint4 k0 = key[(half + i) * 32 + lane], k1 = key[(half + i) * 32 + lane + 1];
            sum0 += probe_nh_pair(m[i].x, m[i].y, k0.x, k0.y) + probe_nh_pair(m[i].z, m[i].w, k0.z, k0.w);
            sum1 += probe_nh_pair(m[i].x, m[i].y, k1.x, k1.y) + probe_nh_pair(m[i].z, m[i].w, k1.z, k1.w);
        }
    }
    const uint64_t got = shuffle_xor_64(lane < 16 ? sum1 : sum0, 16);
    uint64_t sum = (lane < 16 ? sum0 : sum1) + got;
#pragma unroll
    for (int apart = 8; apart; apart /= 2)
        sum += shuffle_xor_64(sum, apart);
    return sum;
}

/* From the NH sums of tile first + lane to the node of level 5 in lane 0: leaves, then five levels, all by one
 * compression in the code. With leaves, those are stored and nothing more is done. */
DEVICE_FN void subtree_of_warp(const uint32_t context[8], uint64_t first, uint32_t tiles, uint64_t nh0, uint64_t nh1,
                               uint32_t *leaves, uint32_t node[8])
{
    const uint32_t lane = threadIdx.x & 31;
    const uint64_t tile = first + lane;
    uint32_t m[16];
#pragma unroll
    for (int i = 0; i < 8; i++)
        m[i] = context[i];
    m[8] = (uint32_t)tile;
    m[9] = (uint32_t)(tile >> 32);
    m[10] = (uint32_t)nh0;
    m[11] = (uint32_t)(nh0 >> 32);
    m[12] = (uint32_t)nh1;
    m[13] = (uint32_t)(nh1 >> 32);
    m[14] = m[15] = 0;
    bool is_hashed = true; /* a left child without a right one goes up as it is */
#pragma unroll 1
    for (uint32_t apart = 0;;) {
        uint32_t hash[8];
        probe_hash_block(apart ? PROBE_HASH_NODE : PROBE_HASH_TILE, m, hash);
#pragma unroll
        for (int i = 0; i < 8; i++)
            node[i] = is_hashed ? hash[i] : node[i];
        if (leaves) {
            if (lane < tiles)
                store_hash(leaves + 8 * lane, node);
            return;
        }
        apart = apart ? 2 * apart : 1;
        if (apart == KERNEL_SUBTREE_TILES)
            return;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            m[i] = node[i];
            m[i + 8] = __shfl_down_sync(WARP_ALL, node[i], apart);
        }
        is_hashed = lane % (2 * apart) == 0 && lane + apart < tiles;
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) probe_pass(const struct kernel_pass p)
{
    __shared__ uint4 key[KEY_VECTORS];
    for (uint32_t block = threadIdx.x; block * 4 < KEY_VECTORS; block += blockDim.x) {
        uint32_t k[16];
        probe_pass_key_block(p.key_at, block, k);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (block * 4 + i < KEY_VECTORS)
                key[block * 4 + i] = make_uint4(k[4 * i], k[4 * i + 1], k[4 * i + 2], k[4 * i + 3]);
    }
    __syncthreads();
    const uint32_t lane = threadIdx.x & 31;
    const uint64_t warps = (uint64_t)gridDim.x * (blockDim.x / 32);
    for (uint64_t subtree = p.first + (uint64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
         subtree < p.first + p.count; subtree += warps) {
        const uint64_t first = subtree * KERNEL_SUBTREE_TILES, rest = p.tiles - first;
        const uint32_t tiles = rest < KERNEL_SUBTREE_TILES ? (uint32_t)rest : KERNEL_SUBTREE_TILES;
        uint64_t mine0 = 0, mine1 = 0;
        for (uint32_t i = 0; i < tiles; i++) {
            const uint64_t sum = tile_nh_of_warp((const uint4 *)p.tiles_at + (first + i) * TILE_VECTORS, key);
            const uint64_t nh0 = shuffle_64(sum, 0), nh1 = shuffle_64(sum, 16);
            mine0 = lane == i ? nh0 : mine0;
            mine1 = lane == i ? nh1 : mine1;
        }
        uint32_t node[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        subtree_of_warp(p.context, first, tiles, mine0, mine1, p.leaves_at, node);
        if (!p.leaves_at && lane == 0)
            store_hash(p.nodes_at + 8 * subtree, node);
    }
}

extern "C" __global__ void __launch_bounds__(256) probe_merkle(const struct kernel_merkle p)
{
    __shared__ uint4 nodes[KERNEL_MERKLE_GROUP / 2][2];
    const uint64_t first = (uint64_t)blockIdx.x * KERNEL_MERKLE_GROUP, rest = p.count - first;
    uint32_t width = rest < KERNEL_MERKLE_GROUP ? (uint32_t)rest : KERNEL_MERKLE_GROUP;
    const uint4 *from = (const uint4 *)p.in_at + 2 * first;
    const uint32_t left = 2 * threadIdx.x;
#pragma unroll 1
    do {
        uint32_t m[16], node[8];
        if (left < width)
            load_words(m, from + 2 * left, 2);
        if (left + 1 < width)
            load_words(m + 8, from + 2 * left + 2, 2);
        __syncthreads();
        if (left < width) {
            if (left + 1 < width)
                probe_hash_block(PROBE_HASH_NODE, m, node);
#pragma unroll
            for (int i = 0; i < 8; i++)
                node[i] = left + 1 < width ? node[i] : m[i];
            store_hash((uint32_t *)nodes[threadIdx.x], node);
        }
        __syncthreads();
        from = nodes[0];
        width = (width + 1) / 2;
    } while (width > 1);
    if (threadIdx.x != 0)
        return;
    uint32_t root[8], key[8];
    load_words(root, nodes[0], 2);
    store_hash(p.out_at + 8 * blockIdx.x, root);
    if (p.next_key_at) {
        probe_next_key(p.key_at, root, key);
        store_hash(p.next_key_at, key);
    }
}
