/* FILL: pseudo-random tiles. Arithmetic alone: 96 integer instructions a double round for 64 bytes. */
#include "probes/cuda/device.cuh"

extern "C" __global__ void __launch_bounds__(256, 6) probe_fill(const struct kernel_fill p)
{
    const uint64_t blocks = p.count * PROBE_TILE_BLOCKS;
    const uint32_t lane = threadIdx.x & 31;
    for (uint64_t at = (uint64_t)blockIdx.x * blockDim.x + (threadIdx.x & ~31u); at < blocks;
         at += (uint64_t)gridDim.x * blockDim.x) {
        uint32_t words[16];
        const uint64_t block = p.first * PROBE_TILE_BLOCKS + at + lane;
        probe_tile_block(p.seed, block / PROBE_TILE_BLOCKS, (uint32_t)block % PROBE_TILE_BLOCKS, p.double_rounds,
                         words);
        store_blocks((uint4 *)p.tiles_at, at, blocks, words);
    }
}
