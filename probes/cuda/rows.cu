/* CHAIN: the leaves of the rows of X_L. */
#include "probes/cuda/device.cuh"

extern "C" __global__ void __launch_bounds__(128) probe_row_chunks(const struct kernel_row_chunks p)
{
    const uint32_t chunks = (p.columns + PROBE_CHUNK_BYTES - 1) / PROBE_CHUNK_BYTES, all = p.rows * chunks;
    for (uint32_t at = blockIdx.x * blockDim.x + threadIdx.x; at < all; at += gridDim.x * blockDim.x) {
        const uint32_t row = at / chunks, chunk = at % chunks, rest = p.columns - chunk * PROBE_CHUNK_BYTES;
        uint32_t digest[8];
        hash_stream(PROBE_HASH_CHUNK, p.context, row, chunk,
                    p.bytes_at + ((uint64_t)row * p.columns + chunk * PROBE_CHUNK_BYTES) / 4,
                    rest < PROBE_CHUNK_BYTES ? rest : (uint32_t)PROBE_CHUNK_BYTES, digest);
        store_hash(p.digests_at + 8 * (uint64_t)at, digest);
    }
}

extern "C" __global__ void __launch_bounds__(64) probe_row_leaves(const struct kernel_row_leaves p)
{
    for (uint32_t row = blockIdx.x * blockDim.x + threadIdx.x; row < p.rows; row += gridDim.x * blockDim.x) {
        uint32_t leaf[8];
        hash_stream(PROBE_HASH_ROW, p.context, row, p.chunks, p.digests_at + 8 * (uint64_t)row * p.chunks,
                    p.chunks * PROBE_HASH_BYTES, leaf);
        store_hash(p.leaves_at + 8 * (uint64_t)row, leaf);
    }
}
