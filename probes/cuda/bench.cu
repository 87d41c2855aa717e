/* What is no challenge: which multiprocessors there are, and rates for the benchmark and the warm-up. */
#include "probes/cuda/device.cuh"

extern "C" __global__ void __launch_bounds__(64) probe_smids(const struct kernel_smids p)
{
    const uint32_t id = multiprocessor_id(), begin = cycle_count();
    if (threadIdx.x == 0 && id < 1024)
        atomicOr(p.seen_at + id / 32, 1u << id % 32);
    while (cycle_count() - begin < p.cycles) {
    }
}

extern "C" __global__ void __launch_bounds__(256) probe_read(const struct kernel_read p)
{
    enum { IN_FLIGHT = 8, PIECE_BYTES = 32 * 16 * IN_FLIGHT }; /* a warp's 4 KiB at a time */
    const uint32_t lane = threadIdx.x & 31;
    const uint64_t pieces = p.bytes / PIECE_BYTES, warps = (uint64_t)gridDim.x * (blockDim.x / 32);
    uint32_t sum = 0;
    for (uint64_t piece = (uint64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; piece < pieces; piece += warps) {
        uint4 v[IN_FLIGHT];
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++)
            v[i] = load_once((const uint4 *)p.in_at + piece * (PIECE_BYTES / 16) + i * 32 + lane);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; i++)
            sum += v[i].x + v[i].y + v[i].z + v[i].w;
    }
#pragma unroll
    for (int apart = 16; apart; apart /= 2)
        sum += __shfl_xor_sync(WARP_ALL, sum, apart);
    if (lane == 0)
        atomicAdd(p.out_at, sum);
}

extern "C" __global__ void __launch_bounds__(256) probe_rate(const struct kernel_rate p)
{
    const uint32_t a[4] = {threadIdx.x * 0x01010101u, 0x3f803f80u, 0x01020304u, 0x3f813f82u};
    const uint32_t b[2] = {0x3f803f81u, threadIdx.x * 0x00010001u};
    uint32_t word = 0;
    if (p.kind == KERNEL_RATE_BF16) {
        float sums[KERNEL_RATE_TILES][4] = {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}}; /* equal ones could be made one */
        for (uint32_t i = 0; i < p.rounds; i++)
#pragma unroll
            for (uint32_t tile = 0; tile < KERNEL_RATE_TILES; tile++)
                mma_bf16(sums[tile], a, b);
#pragma unroll
        for (uint32_t tile = 0; tile < KERNEL_RATE_TILES; tile++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                word += sums[tile][i] > 1.0f;
    } else {
        int32_t sums[KERNEL_RATE_TILES][4] = {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}};
        for (uint32_t i = 0; i < p.rounds; i++)
#pragma unroll
            for (uint32_t tile = 0; tile < KERNEL_RATE_TILES; tile++)
                mma_s8(sums[tile], a, b);
#pragma unroll
        for (uint32_t tile = 0; tile < KERNEL_RATE_TILES; tile++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                word += (uint32_t)sums[tile][i];
    }
    atomicAdd(p.out_at + threadIdx.x, word);
}
