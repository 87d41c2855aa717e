/* CHAIN: the matrices A and X_0, the table of scales and shifts, and bytes transposed. */
#include "probes/cuda/device.cuh"

extern "C" __global__ void __launch_bounds__(256) probe_chain_rows(const struct kernel_chain_rows p)
{
    const uint32_t row_blocks = p.columns / 64;
    const uint32_t blocks = p.rows * row_blocks; /* at most 2^27 */
    const uint32_t lane = threadIdx.x & 31;
    for (uint32_t at = blockIdx.x * blockDim.x + (threadIdx.x & ~31u); at < blocks; at += gridDim.x * blockDim.x) {
        uint32_t words[16];
        probe_chain_block(p.seed, p.domain, (at + lane) / row_blocks, (at + lane) % row_blocks, words);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            uint32_t packed = 0;
#pragma unroll
            for (int shift = 0; shift < 32; shift += 8)
                packed |= (uint32_t)(uint8_t)probe_residue_of_byte(words[i] >> shift & 255u) << shift;
            words[i] = packed;
        }
        store_blocks((uint4 *)p.out_at, at, blocks, words);
    }
}

extern "C" __global__ void __launch_bounds__(128) probe_chain_table(const struct kernel_chain_table p)
{
    const uint32_t row_blocks = p.n / 16, blocks = row_blocks * p.steps;
    for (uint32_t at = blockIdx.x * blockDim.x + threadIdx.x; at < blocks; at += gridDim.x * blockDim.x) {
        uint32_t words[16], packed[8];
        probe_chain_step_block(p.seed, at / row_blocks, at % row_blocks, words);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const uint32_t entry = (uint32_t)probe_chain_scale(words[i]) | probe_chain_shift(words[i], p.blocks) << 8;
            packed[i / 2] = i % 2 ? packed[i / 2] | entry << 16 : entry;
        }
        store_hash((uint32_t *)(p.out_at + 16 * (uint64_t)at), packed);
    }
}

/* Squares of 64 x 64 bytes: a thread turns 4 x 4 of them in registers, shared memory does the rest. */
enum { SQUARE = 64, SQUARE_WORDS = SQUARE / 4 };

extern "C" __global__ void __launch_bounds__(256) probe_chain_transpose(const struct kernel_chain_transpose p)
{
    __shared__ uint32_t turned[SQUARE][SQUARE_WORDS + 1];
    const uint32_t across = p.columns / SQUARE, x = threadIdx.x % SQUARE_WORDS, y = threadIdx.x / SQUARE_WORDS;
    const uint32_t squares = across * (p.rows / SQUARE);
    for (uint32_t square = blockIdx.x; square < squares; square += gridDim.x) {
        const uint32_t row = square / across * SQUARE, column = square % across * SQUARE;
        uint32_t w[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[i] = p.in_at[((uint64_t)(row + 4 * y + i) * p.columns + column) / 4 + x];
        const uint32_t low01 = __byte_perm(w[0], w[1], 0x5140), high01 = __byte_perm(w[0], w[1], 0x7362);
        const uint32_t low23 = __byte_perm(w[2], w[3], 0x5140), high23 = __byte_perm(w[2], w[3], 0x7362);
        turned[4 * x][y] = __byte_perm(low01, low23, 0x5410);
        turned[4 * x + 1][y] = __byte_perm(low01, low23, 0x7632);
        turned[4 * x + 2][y] = __byte_perm(high01, high23, 0x5410);
        turned[4 * x + 3][y] = __byte_perm(high01, high23, 0x7632);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++)
            p.out_at[((uint64_t)(column + 16 * i + y) * p.rows + row) / 4 + x] = turned[16 * i + y][x];
        __syncthreads();
    }
}
