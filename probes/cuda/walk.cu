/* WALK: dependent random reads of a line of 128 bytes, eight threads with 16 bytes each a walker. */
#include "probes/cuda/device.cuh"

enum { WALKER_THREADS = 8, WARP_WALKERS = 32 / WALKER_THREADS };

extern "C" __global__ void __launch_bounds__(64) probe_walk(const struct kernel_walk p)
{
    __shared__ uint4 key[PROBE_WALK_KEY_WORDS / 4];
    if (threadIdx.x < 2) {
        uint32_t k[16];
        probe_walk_key_block(p.key, threadIdx.x, k);
#pragma unroll
        for (int i = 0; i < 4; i++)
            key[threadIdx.x * 4 + i] = make_uint4(k[4 * i], k[4 * i + 1], k[4 * i + 2], k[4 * i + 3]);
    }
    __syncthreads();
    const uint32_t part = threadIdx.x % WALKER_THREADS;
    const uint4 k = key[part];
    const uint32_t warps = gridDim.x * (blockDim.x / 32);
    for (uint32_t warp = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; warp * WARP_WALKERS < p.walkers;
         warp += warps) {
        const uint32_t walker = warp * WARP_WALKERS + threadIdx.x % 32 / WALKER_THREADS;
        const bool is_writer = part == 0 && walker < p.walkers; /* past the last one: walks along, for the shuffles */
        uint64_t *trace = p.trace_at + (uint64_t)walker * (p.steps + 1);
        uint64_t x = probe_walk_start(p.key, walker);
        for (uint32_t step = 0; step < p.steps; step++) {
            const uint64_t line = probe_walk_tile(x, p.tiles) * PROBE_TILE_LINES + probe_walk_line(x);
            const uint4 m = load_once((const uint4 *)p.tiles_at + line * (PROBE_LINE_WORDS / 4) + part);
            if (is_writer)
                trace[step] = x;
            uint64_t nh = probe_nh_pair(m.x, m.y, k.x, k.y) + probe_nh_pair(m.z, m.w, k.z, k.w);
#pragma unroll
            for (int apart = WALKER_THREADS / 2; apart; apart /= 2)
                nh += shuffle_xor_64(nh, apart);
            x = probe_walk_next(x, nh);
        }
        if (is_writer)
            trace[p.steps] = x;
    }
}

extern "C" __global__ void __launch_bounds__(64) probe_walk_leaves(const struct kernel_walk_leaves p)
{
    for (uint32_t walker = blockIdx.x * blockDim.x + threadIdx.x; walker < p.walkers;
         walker += gridDim.x * blockDim.x) {
        uint32_t leaf[8];
        hash_stream(PROBE_HASH_WALK, p.context, walker, 0,
                    (const uint32_t *)(p.trace_at + (uint64_t)walker * (p.steps + 1)), (p.steps + 1) * 8, leaf);
        store_hash(p.leaves_at + 8 * (uint64_t)walker, leaf);
    }
}
