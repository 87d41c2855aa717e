/* The kernels of the CUDA backend: what there is, their parameters and launch shapes. Plain C, for the host code that
 * launches them, for nvcc that compiles them, and for the emulator that tests them (tests/cuda_emu).
 *
 * Every kernel takes one struct by value: cuLaunchKernel(f, grid, block, shared, stream, (void *[]){&params}, NULL).
 * All blocks are one-dimensional. A kernel whose grid is marked "any" strides over its work and is right for every
 * grid; the macros KERNEL_..._PER_SM say how many blocks a multiprocessor are meant. Kernels of one stream run in
 * order, and nothing below needs the host in between: queue a whole challenge, then wait once.
 *
 * What is computed is defined in probes/primitives.h. All device buffers are aligned to 256 bytes (cuMemAlloc's are).
 *
 * Trees. A Merkle tree lies on the device as every ninth level, one after the other: level 0 (the leaves, or for PASS
 * the nodes of level 5, each over 32 tiles), then one node for each 512 of it, and so on to the root, which is last;
 * kernel_tree_* say how many and where. probe_merkle makes each from the one before. A path is made on the CPU: fetch
 * the group of at most 512 nodes that holds the wanted one, and hash it up; then the same for the next stored level.
 * Below level 5 PASS recomputes: probe_pass with leaves_at gives the 32 leaves of one subtree again.
 *
 * CHAIN. A is n x n, row after row. X is kept transposed: byte [column][row], n bytes for each of the blocks * n
 * columns, so that both operands of the product run along memory. Order of a challenge, with two buffers X and Y of
 * blocks*n*n bytes each: probe_chain_rows (A; into a), probe_chain_rows (X_0; into Y, row after row),
 * probe_chain_transpose (Y -> X), probe_chain_table (all steps), then for each step a product X -> Y and X, Y change
 * places, probe_chain_transpose (X -> Y: now rows of X_L), probe_row_chunks, probe_row_leaves, probe_merkle ... The
 * product of a step is one launch of probe_chain_mma or probe_chain_dp4a; or a library's product into int32 and
 * probe_chain_epilogue, for some columns of all blocks at a time: sum[b][c][i] of column first + c of block b, row i.
 */
#ifndef SLUICE_PROBES_CUDA_KERNELS_H
#define SLUICE_PROBES_CUDA_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus /* the kernels themselves */
#define KERNEL_AT(type) type *
#else /* the host: a CUdeviceptr */
#define KERNEL_AT(type) uint64_t
#endif

/* X(kernel, its parameters, threads of a block, bytes of dynamic shared memory). More than 48 KiB of those must be
 * allowed first: cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes). */
#define PROBE_KERNELS(X)                                                       \
    X(probe_fill, struct kernel_fill, 256, 0)                                  \
    X(probe_pass, struct kernel_pass, 256, 0)                                  \
    X(probe_merkle, struct kernel_merkle, 256, 0)                              \
    X(probe_walk, struct kernel_walk, 64, 0)                                   \
    X(probe_walk_leaves, struct kernel_walk_leaves, 64, 0)                     \
    X(probe_chain_rows, struct kernel_chain_rows, 256, 0)                      \
    X(probe_chain_transpose, struct kernel_chain_transpose, 256, 0)            \
    X(probe_chain_table, struct kernel_chain_table, 128, 0)                    \
    X(probe_chain_mma, struct kernel_chain_step, 256, KERNEL_CHAIN_MMA_SHARED) \
    X(probe_chain_dp4a, struct kernel_chain_step, 256, 0)                      \
    X(probe_chain_epilogue, struct kernel_chain_epilogue, 256, 0)              \
    X(probe_row_chunks, struct kernel_row_chunks, 128, 0)                      \
    X(probe_row_leaves, struct kernel_row_leaves, 64, 0)                       \
    X(probe_smids, struct kernel_smids, 64, 0)                                 \
    X(probe_read, struct kernel_read, 256, 0)                                  \
    X(probe_rate, struct kernel_rate, 256, 0)

/* FILL: tiles[count], tile i of it being tile first + i of the fill. Grid: any. */
#define KERNEL_FILL_PER_SM 6
struct kernel_fill {
    KERNEL_AT(uint32_t) tiles_at; /* of tile `first` */
    uint64_t first, count;
    uint32_t seed[8];
    uint32_t double_rounds;
};

/* PASS over the subtrees first .. first+count-1 of 32 tiles each: nodes[s] of level 5 for each, or, with leaves_at, the
 * leaves of the subtree `first` alone (count = 1; at most 32, the last subtree may have fewer). Grid: any; one warp
 * works on a subtree. A tree of one tile: its node of level 5 is its leaf. */
#define KERNEL_SUBTREE_TILES 32u
#define KERNEL_PASS_PER_SM 4
struct kernel_pass {
    KERNEL_AT(const uint32_t) tiles_at; /* of tile 0 */
    KERNEL_AT(const uint32_t) key_at;   /* 8 words: the pass's key */
    KERNEL_AT(uint32_t) nodes_at;       /* 8 words each: of subtree 0 */
    KERNEL_AT(uint32_t) leaves_at;      /* or 0 */
    uint64_t tiles, first, count;       /* all tiles; subtrees */
    uint32_t context[8];
};

/* One node for each 512, the last for the rest; grid: kernel_merkle_grid(count), exactly. With next_key_at the one
 * output is the root of a pass, and the next pass's key is written there (probe_next_key of the key at key_at). A
 * single node goes up as it is, and out_at may then be in_at: so that a pass of one subtree has its next key too. */
#define KERNEL_MERKLE_GROUP 512u
struct kernel_merkle {
    KERNEL_AT(const uint32_t) in_at; /* 8 words each */
    KERNEL_AT(uint32_t) out_at;
    KERNEL_AT(const uint32_t) key_at; /* or 0 */
    KERNEL_AT(uint32_t) next_key_at;  /* or 0 */
    uint64_t count;                   /* of `in`; >= 1 */
};
static inline uint32_t kernel_merkle_grid(uint64_t count)
{
    return (uint32_t)((count + KERNEL_MERKLE_GROUP - 1) / KERNEL_MERKLE_GROUP);
}
/* The stored levels of a tree whose lowest has `count` >= 1 nodes: how many levels (1 for a single node, which is the
 * root), and how many nodes together. Level k begins at node kernel_tree_begin(count, k). */
static inline uint64_t kernel_tree_width(uint64_t count, unsigned level)
{
    while (level--)
        count = kernel_merkle_grid(count);
    return count;
}
static inline unsigned kernel_tree_levels(uint64_t count)
{
    unsigned levels = 1;
    for (; count > 1; count = kernel_merkle_grid(count))
        levels++;
    return levels;
}
static inline uint64_t kernel_tree_begin(uint64_t count, unsigned level)
{
    uint64_t begin = 0;
    for (; level--; count = kernel_merkle_grid(count))
        begin += count;
    return begin;
}
static inline uint64_t kernel_tree_nodes(uint64_t count)
{
    return kernel_tree_begin(count, kernel_tree_levels(count));
}

/* WALK: trace[walker][0 .. steps], 64-bit words. Grid: any; 8 threads work on a walker. */
#define KERNEL_WALK_WALKERS 8u /* of a block: kernel_walk_grid(walkers) blocks run all at once */
struct kernel_walk {
    KERNEL_AT(const uint32_t) tiles_at;
    KERNEL_AT(uint64_t) trace_at;
    uint64_t tiles;
    uint32_t key[8];
    uint32_t walkers, steps;
};
static inline uint32_t kernel_walk_grid(uint32_t walkers)
{
    return (walkers + KERNEL_WALK_WALKERS - 1) / KERNEL_WALK_WALKERS;
}
/* leaves[walkers], 8 words each. Grid: any; a thread for each walker. */
struct kernel_walk_leaves {
    KERNEL_AT(const uint64_t) trace_at;
    KERNEL_AT(uint32_t) leaves_at;
    uint32_t context[8];
    uint32_t walkers, steps;
};

/* Rows 0 .. rows-1 of A (columns = n) or of X_0 (columns = blocks*n), row after row. Grid: any. */
#define KERNEL_CHAIN_ROWS_PER_SM 6
struct kernel_chain_rows {
    KERNEL_AT(uint32_t) out_at;
    uint32_t seed[8];
    uint32_t domain; /* PROBE_DOMAIN_CHAIN_A or _X */
    uint32_t rows, columns;
};

/* out[c][r] = in[r][c], bytes; both multiples of 64. Grid: any. */
#define KERNEL_CHAIN_TRANSPOSE_PER_SM 6
struct kernel_chain_transpose {
    KERNEL_AT(const uint32_t) in_at;
    KERNEL_AT(uint32_t) out_at;
    uint32_t rows, columns; /* of in */
};

/* table[step][row] for all steps: the scale in the low byte, the shift in the high one. Grid: any. */
struct kernel_chain_table {
    KERNEL_AT(uint16_t) out_at;
    uint32_t seed[8];
    uint32_t n, blocks, steps;
};

/* One step. Grid: kernel_chain_mma_grid or kernel_chain_dp4a_grid(n, blocks), exactly. */
#define KERNEL_CHAIN_MMA_COLUMNS 128u /* of X in a tile: of each block as many as fit */
#define KERNEL_CHAIN_MMA_ROWS 256u
#define KERNEL_CHAIN_MMA_SHARED 98304
#define KERNEL_CHAIN_DP4A_COLUMNS 64u
#define KERNEL_CHAIN_DP4A_ROWS 64u
struct kernel_chain_step {
    KERNEL_AT(const uint32_t) a_at;
    KERNEL_AT(const uint32_t) x_at;
    KERNEL_AT(uint32_t) next_at;
    KERNEL_AT(const uint16_t) table_at; /* of this step */
    uint32_t n, blocks;
};
static inline uint32_t kernel_chain_grid(uint32_t n, uint32_t blocks, uint32_t tile_columns, uint32_t tile_rows)
{
    const uint32_t of_block = tile_columns / blocks;
    return (n + of_block - 1) / of_block * ((n + tile_rows - 1) / tile_rows);
}
static inline uint32_t kernel_chain_mma_grid(uint32_t n, uint32_t blocks)
{
    return kernel_chain_grid(n, blocks, KERNEL_CHAIN_MMA_COLUMNS, KERNEL_CHAIN_MMA_ROWS);
}
static inline uint32_t kernel_chain_dp4a_grid(uint32_t n, uint32_t blocks)
{
    return kernel_chain_grid(n, blocks, KERNEL_CHAIN_DP4A_COLUMNS, KERNEL_CHAIN_DP4A_ROWS);
}

/* From int32 sums[b][c][i] (b < blocks, c < width, i < n) to X_{t+1} of the columns first + c of every block. With
 * cublasLt: a strided batch of `blocks` products D_b (n x width, column-major, leading dimension n, stride width*n) =
 * A^T (op T, column-major n x n, leading dimension n) * B_b (op N, n x width at x + (b*n + first)*n, leading dimension
 * n, stride n*n). Grid: any. */
#define KERNEL_CHAIN_EPILOGUE_PER_SM 6
struct kernel_chain_epilogue {
    KERNEL_AT(const int32_t) sums_at;
    KERNEL_AT(uint32_t) next_at;
    KERNEL_AT(const uint16_t) table_at; /* of this step */
    uint32_t n, blocks, first, width;
};

/* digests[row][chunk], 8 words each, kernel_row_chunks(columns) of a row. bytes: row after row. Grid: any. */
#define KERNEL_ROW_CHUNKS_PER_SM 8
struct kernel_row_chunks {
    KERNEL_AT(const uint32_t) bytes_at;
    KERNEL_AT(uint32_t) digests_at;
    uint32_t context[8];
    uint32_t rows, columns; /* columns: a multiple of 64 */
};
static inline uint32_t kernel_row_chunks(uint32_t columns)
{
    return (columns + 1023u) / 1024u;
}
struct kernel_row_leaves {
    KERNEL_AT(const uint32_t) digests_at;
    KERNEL_AT(uint32_t) leaves_at; /* 8 words each */
    uint32_t context[8];
    uint32_t rows, chunks;
};

/* Sets bit %smid (if < 1024) of a bitmap of 32 words that the host zeroed. Grid: a few blocks for each multiprocessor;
 * each stays for `cycles`, so that all of them get some. */
struct kernel_smids {
    KERNEL_AT(uint32_t) seen_at;
    uint32_t cycles;
};

/* For the benchmark. Reads `bytes` (a multiple of 4096) once; the sum of all words is added to out[0]. Grid: any. */
#define KERNEL_READ_PER_SM 6
struct kernel_read {
    KERNEL_AT(const uint32_t) in_at;
    KERNEL_AT(uint32_t) out_at;
    uint64_t bytes;
};
/* A loop over registers on the tensor cores: every warp does `rounds` times KERNEL_RATE_TILES products of 16 x 8 x 16
 * (kind 0: bf16) or 16 x 8 x 32 (kind 1: int8), two operations an element; also to get clocks up. Each thread adds a
 * word to out[threadIdx.x]; the values mean nothing. Grid: any. */
#define KERNEL_RATE_TILES 8u
#define KERNEL_RATE_PER_SM 2
enum { KERNEL_RATE_BF16 = 0, KERNEL_RATE_INT8 = 1 };
struct kernel_rate {
    KERNEL_AT(uint32_t) out_at;
    uint32_t rounds, kind;
};

/* What is built in: a fat binary for cuModuleLoadData, kernels by their names above. Length 0: built without nvcc. */
#ifdef __cplusplus
extern "C" {
#endif
extern const unsigned char probe_fatbin[];
extern const uint64_t probe_fatbin_len;
#ifdef __cplusplus
}
#endif

#endif
