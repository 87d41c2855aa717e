/* CHAIN: one step, X_{t+1} = d * (A * X_t) mod 251 with the blocks of every row turned.
 *
 * A tile of the result has, of every block, the same few columns. So the turning of a row's blocks stays within the
 * tile: it happens while the bytes are put into shared memory, and they leave it in whole lines. */
#include "probes/cuda/residue.cuh"

struct tile_place {    /* which tile this block of threads makes */
    uint32_t of_block; /* columns of each block of X in a tile */
    uint32_t column, row;
};

/* Tiles in groups of eight columns, so that what runs at once shares its operands in the second cache. */
DEVICE_FN struct tile_place tile_place_of(const struct kernel_chain_step &p, uint32_t tile_columns, uint32_t tile_rows)
{
    const uint32_t of_block = tile_columns / p.blocks, group_width = 8;
    const uint32_t down = (p.n + of_block - 1) / of_block, across = (p.n + tile_rows - 1) / tile_rows;
    const uint32_t group = blockIdx.x / (group_width * across), rest = blockIdx.x % (group_width * across);
    const uint32_t left = down - group * group_width, width = left < group_width ? left : group_width;
    return {of_block, (group * group_width + rest % width) * of_block, rest / width * tile_rows};
}

/* Where row m of the tile's part of X begins, in bytes; what lies past the edges reads the last that does not. */
DEVICE_FN uint64_t tile_column_at(const struct kernel_chain_step &p, const struct tile_place &place, uint32_t m)
{
    uint32_t block = m / place.of_block, column = place.column + m % place.of_block;
    block = block < p.blocks ? block : p.blocks - 1;
    column = column < p.n ? column : p.n - 1;
    return ((uint64_t)block * p.n + column) * p.n;
}

DEVICE_FN uint64_t tile_row_at(const struct kernel_chain_step &p, uint32_t row)
{
    return (uint64_t)(row < p.n ? row : p.n - 1) * p.n;
}

/* How far from its own place in the tile an element of one row of C goes, in bytes: `up`, or `wrap` when its block is
 * not below `limit`. */
struct turn {
    int32_t up, wrap, limit, scale;
};

DEVICE_FN struct turn turn_of(const struct kernel_chain_step &p, const struct tile_place &place, uint32_t row,
                              uint32_t pitch_bytes)
{
    const uint32_t entry = row < p.n ? p.table_at[row] : 1, shift = entry >> 8;
    const int32_t block_bytes = (int32_t)(place.of_block * pitch_bytes);
    return {(int32_t)shift * block_bytes, ((int32_t)shift - (int32_t)p.blocks) * block_bytes,
            (int32_t)(p.blocks - shift), (int32_t)(entry & 255)};
}

/* The block of row m of the tile. Rows past the last block, which no column of X stands for, are as block -1: they are
 * turned up only, and so past the last row that counts. */
DEVICE_FN int32_t block_of(const struct kernel_chain_step &p, const struct tile_place &place, uint32_t m)
{
    const uint32_t block = m / place.of_block;
    return block < p.blocks ? (int32_t)block : -1;
}

DEVICE_FN void put_turned(uint8_t *own_place, int32_t block, const struct turn &turn, int32_t sum)
{
    own_place[block < turn.limit ? turn.up : turn.wrap] = (uint8_t)chain_element(sum, turn.scale);
}

/* Writes the turned bytes: rows of `vectors` 16-byte pieces, `pitch` pieces apart. */
DEVICE_FN void tile_store(const struct kernel_chain_step &p, const struct tile_place &place, const uint4 *tile,
                          uint32_t vectors, uint32_t pitch)
{
    for (uint32_t at = threadIdx.x; at < p.blocks * place.of_block * vectors; at += blockDim.x) {
        const uint32_t m = at / vectors, piece = at % vectors, row = place.row + 16 * piece;
        if (place.column + m % place.of_block < p.n && row < p.n)
            *(uint4 *)((uint8_t *)p.next_at + tile_column_at(p, place, m) + row) = tile[m * pitch + piece];
    }
}

/* -- Tensor cores: a tile of 128 columns by 256 rows, eight warps of 64 by 64, four stages of 64 bytes of K ---------
 */

enum {
    STAGES = 4,
    STEP_VECTORS = 4, /* 64 bytes of K */
    STAGE_VECTORS = (KERNEL_CHAIN_MMA_COLUMNS + KERNEL_CHAIN_MMA_ROWS) * STEP_VECTORS,
    TILE_PITCH = KERNEL_CHAIN_MMA_ROWS / 16 + 1,
};
static_assert(STAGES * STAGE_VECTORS * 16 == KERNEL_CHAIN_MMA_SHARED, "kernels.h says how much");
static_assert(2 * KERNEL_CHAIN_MMA_COLUMNS * TILE_PITCH * 16 <= KERNEL_CHAIN_MMA_SHARED, "the result turned up fits");

/* Piece k of a row of 64 bytes: turned about so that eight rows' same pieces lie in different banks. */
DEVICE_FN uint32_t staged_at(uint32_t row, uint32_t piece)
{
    return row * STEP_VECTORS + (piece ^ (row >> 1 & 3));
}

/* One step of 32 bytes of K for a warp: 4 x 8 products. */
DEVICE_FN void warp_product(int32_t sums[4][8][4], const uint4 *x, const uint4 *a, uint32_t piece)
{
    const uint32_t lane = threadIdx.x & 31;
    uint32_t left[4][4], right[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        load_matrices(left[i], x + staged_at(16 * i + (lane & 15), piece + (lane >> 4)));
#pragma unroll
    for (int j = 0; j < 4; j++)
        load_matrices(right[j], a + staged_at(16 * j + (lane & 7) + (lane >> 4 << 3), piece + (lane >> 3 & 1)));
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            mma_s8(sums[i][j], left[i], right[j / 2] + j % 2 * 2);
}

extern "C" __global__ void __launch_bounds__(256, 1) probe_chain_mma(const struct kernel_chain_step p)
{
    DYNAMIC_SHARED(shared);
    const struct tile_place place = tile_place_of(p, KERNEL_CHAIN_MMA_COLUMNS, KERNEL_CHAIN_MMA_ROWS);
    const uint32_t row = threadIdx.x / STEP_VECTORS, piece = threadIdx.x % STEP_VECTORS;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    const uint32_t warp_column = (warp & 1) * 64, warp_row = (warp >> 1) * 64;
    const uint8_t *from[6]; /* X: rows row, row + 64 of a stage; A: 128 more and so on */
#pragma unroll
    for (int i = 0; i < 2; i++)
        from[i] = (const uint8_t *)p.x_at + tile_column_at(p, place, row + 64 * i) + 16 * piece;
#pragma unroll
    for (int i = 0; i < 4; i++)
        from[2 + i] = (const uint8_t *)p.a_at + tile_row_at(p, place.row + row + 64 * i) + 16 * piece;
    int32_t sums[4][8][4] = {};
    const uint32_t steps = p.n / 64, put = staged_at(row, piece); /* 64 rows on: the same turn, 256 pieces further */
    for (uint32_t step = 0; step < steps + STAGES - 1; step++) {
        if (step >= STAGES - 1) {
            copy_async_wait<STAGES - 2>();
            __syncthreads();
        }
        if (step < steps) {
            uint4 *stage = shared + step % STAGES * STAGE_VECTORS;
#pragma unroll
            for (int i = 0; i < 6; i++) {
                copy_async(stage + put + 64 * STEP_VECTORS * i, (const uint4 *)from[i]);
                from[i] += 64;
            }
        }
        copy_async_commit();
        if (step >= STAGES - 1) {
            const uint4 *stage = shared + (step - (STAGES - 1)) % STAGES * STAGE_VECTORS;
            const uint4 *x = stage + warp_column * STEP_VECTORS;
            const uint4 *a = stage + (KERNEL_CHAIN_MMA_COLUMNS + warp_row) * STEP_VECTORS;
            warp_product(sums, x, a, 0);
            warp_product(sums, x, a, 2);
        }
    }
    copy_async_wait<0>();
    __syncthreads();
    const uint32_t m = warp_column + lane / 4, to = warp_row + lane % 4 * 2;
    uint8_t *own_place = (uint8_t *)(shared + m * TILE_PITCH) + to;
    int32_t block[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        block[i] = block_of(p, place, m + 8 * i);
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const struct turn turn = turn_of(p, place, place.row + to + 8 * j + k, TILE_PITCH * 16);
#pragma unroll
            for (int i = 0; i < 8; i++)
                put_turned(own_place + 8 * i * TILE_PITCH * 16 + 8 * j + k, block[i], turn,
                           sums[i / 2][j][i % 2 * 2 + k]);
        }
    }
    __syncthreads();
    tile_store(p, place, shared, KERNEL_CHAIN_MMA_ROWS / 16, TILE_PITCH);
}

/* -- Without tensor cores: four products and a sum in one instruction, 64 x 64 ----------------------------------------
 */

extern "C" __global__ void __launch_bounds__(256) probe_chain_dp4a(const struct kernel_chain_step p)
{
    enum { SIDE = 64, STEP_WORDS = 16, PITCH_VECTORS = SIDE / 16 + 1 };
    static_assert(SIDE == KERNEL_CHAIN_DP4A_COLUMNS && SIDE == KERNEL_CHAIN_DP4A_ROWS, "the grid's tiles");
    __shared__ uint32_t x[SIDE][STEP_WORDS + 1], a[SIDE][STEP_WORDS + 1];
    __shared__ uint4 turned[2 * SIDE * PITCH_VECTORS];
    const struct tile_place place = tile_place_of(p, SIDE, SIDE);
    const uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int32_t sums[4][4] = {};
    for (uint32_t step = 0; step < p.n / 64; step++) {
        for (uint32_t i = ty; i < SIDE; i += 16) {
            x[i][tx] = p.x_at[tile_column_at(p, place, i) / 4 + step * STEP_WORDS + tx];
            a[i][tx] = p.a_at[tile_row_at(p, place.row + i) / 4 + step * STEP_WORDS + tx];
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < STEP_WORDS; k++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] = __dp4a((int)x[ty + 16 * i][k], (int)a[tx + 16 * j][k], sums[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const struct turn turn = turn_of(p, place, place.row + tx + 16 * j, PITCH_VECTORS * 16);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t m = ty + 16 * i;
            put_turned((uint8_t *)(turned + m * PITCH_VECTORS) + tx + 16 * j, block_of(p, place, m), turn, sums[i][j]);
        }
    }
    __syncthreads();
    tile_store(p, place, turned, SIDE / 16, PITCH_VECTORS);
}

/* -- After a library's product: int32 sums of some columns
 * ------------------------------------------------------------- */

extern "C" __global__ void __launch_bounds__(256) probe_chain_epilogue(const struct kernel_chain_epilogue p)
{
    enum { ROWS = 256, BLOCKS_MAX = 16 };
    __shared__ uint32_t turned[BLOCKS_MAX][ROWS / 4 + 1];
    const uint32_t across = (p.n + ROWS - 1) / ROWS, tiles = across * p.width;
    for (uint32_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const uint32_t column = tile / across, first = tile % across * ROWS, row = first + threadIdx.x;
        if (row < p.n) {
            const uint32_t entry = p.table_at[row];
            uint32_t to = entry >> 8;
            const int32_t *sum = p.sums_at + (uint64_t)column * p.n + row;
#pragma unroll 4
            for (uint32_t block = 0; block < p.blocks; block++, sum += (uint64_t)p.width * p.n) {
                ((uint8_t *)turned[to])[threadIdx.x] = (uint8_t)chain_element(*sum, entry & 255);
                to = to + 1 < p.blocks ? to + 1 : 0;
            }
        }
        __syncthreads();
        for (uint32_t at = threadIdx.x; at < p.blocks * (ROWS / 4); at += blockDim.x) {
            const uint32_t block = at / (ROWS / 4), word = at % (ROWS / 4);
            if (first + 4 * word < p.n)
                p.next_at[(((uint64_t)block * p.n + p.first + column) * p.n + first) / 4 + word] = turned[block][word];
        }
        __syncthreads();
    }
}
