/* CUDA C++ for a CPU, as far as probes/cuda uses it: included before every kernel, in place of nvcc's own headers and
 * of the first half of probes/cuda/device.cuh. What threads of a warp do together goes through emu_exchange. */
#ifndef SLUICE_TESTS_CUDA_EMULATION_HPP
#define SLUICE_TESTS_CUDA_EMULATION_HPP

#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define DEVICE_FN static inline
#define DYNAMIC_SHARED(name) uint4 *const name = (uint4 *)emu_shared()

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return {x, y, z, w};
}

struct emu_index {
    uint32_t x;
};
struct emu_place {
    emu_index thread, block, block_size, grid_size;
};
/* Of the thread that runs now. */
const emu_place &emu_where();
#define threadIdx (emu_where().thread)
#define blockIdx (emu_where().block)
#define blockDim (emu_where().block_size)
#define gridDim (emu_where().grid_size)

void *emu_shared(); /* the block's dynamic shared memory */
void emu_barrier_block();
/* Every lane of the warp gives `size` <= 64 bytes; what all of them gave, lane after lane 64 bytes apart. The answer
 * lasts until this lane's exchange after the next. */
const uint8_t *emu_exchange(const void *mine, uint32_t size);
void emu_copy_start(void *to, const void *from);
void emu_copy_commit();
void emu_copy_wait(uint32_t left);

static inline void __syncthreads()
{
    emu_barrier_block();
}

static inline uint32_t emu_lane()
{
    return threadIdx.x & 31;
}

static inline void __syncwarp()
{
    emu_exchange("", 1);
}

static inline uint32_t emu_word_of(const uint8_t *all, uint32_t lane)
{
    uint32_t v;
    memcpy(&v, all + lane * 64, sizeof v);
    return v;
}

static inline uint32_t __shfl_sync(uint32_t, uint32_t v, int lane)
{
    return emu_word_of(emu_exchange(&v, sizeof v), (uint32_t)lane & 31);
}

static inline uint32_t __shfl_xor_sync(uint32_t, uint32_t v, int lanes)
{
    return emu_word_of(emu_exchange(&v, sizeof v), emu_lane() ^ (uint32_t)lanes);
}

static inline uint32_t __shfl_down_sync(uint32_t, uint32_t v, uint32_t lanes)
{
    const uint8_t *all = emu_exchange(&v, sizeof v);
    return emu_lane() + lanes < 32 ? emu_word_of(all, emu_lane() + lanes) : v;
}

static inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector)
{
    const uint64_t all = (uint64_t)high << 32 | low;
    uint32_t ret = 0;
    for (uint32_t i = 0; i < 4; i++)
        ret |= (uint32_t)(all >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return ret;
}

static inline int32_t __mulhi(int32_t a, int32_t b)
{
    return (int32_t)((int64_t)a * b >> 32);
}

static inline uint32_t __umulhi(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

static inline int32_t emu_byte(uint32_t word, uint32_t at)
{
    return (int8_t)(word >> 8 * at & 255);
}

static inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum)
{
    for (uint32_t i = 0; i < 4; i++)
        sum += emu_byte((uint32_t)a, i) * emu_byte((uint32_t)b, i);
    return sum;
}

static inline uint32_t atomicAdd(uint32_t *at, uint32_t v)
{
    const uint32_t old = *at;
    *at = old + v;
    return old;
}

static inline uint32_t atomicOr(uint32_t *at, uint32_t v)
{
    const uint32_t old = *at;
    *at = old | v;
    return old;
}

/* -- The functions of device.cuh ------------------------------------------------------------------------------------
 */

void emu_check_aligned(const void *at);

static inline uint4 load_once(const uint4 *at)
{
    emu_check_aligned(at);
    return *at;
}

static inline void copy_async(uint4 *shared, const uint4 *global)
{
    emu_check_aligned(shared);
    emu_check_aligned(global);
    emu_copy_start(shared, global);
}

static inline void copy_async_commit()
{
    emu_copy_commit();
}

template <int left> static inline void copy_async_wait()
{
    emu_copy_wait(left);
}

static inline void load_matrices(uint32_t ret[4], const uint4 *row)
{
    emu_check_aligned(row);
    const uint8_t *all = emu_exchange(&row, sizeof row);
    for (uint32_t i = 0; i < 4; i++) {
        const uint8_t *from;
        memcpy(&from, all + (8 * i + emu_lane() / 4) * 64, sizeof from);
        memcpy(&ret[i], from + emu_lane() % 4 * 4, sizeof ret[i]);
    }
}

/* Element (row, k) of the left and (k, column) of the right operand lie as PTX says: see "Matrix Fragments for
 * mma.m16n8k32" and "... m16n8k16"; each register of a lane holds four bytes or two halves along k, so that a row is
 * the words of four lanes' one register and then of their next. */
struct emu_fragments {
    uint32_t a[4], b[2];
};

static inline void emu_left_row(const uint8_t *all, uint32_t row, uint32_t ret[8])
{
    for (uint32_t i = 0; i < 8; i++)
        ret[i] = ((const emu_fragments *)(all + (row % 8 * 4 + i % 4) * 64))->a[row / 8 + i / 4 * 2];
}

static inline void emu_right_column(const uint8_t *all, uint32_t column, uint32_t ret[8])
{
    for (uint32_t i = 0; i < 8; i++)
        ret[i] = ((const emu_fragments *)(all + (column * 4 + i % 4) * 64))->b[i / 4];
}

static inline void mma_s8(int32_t sum[4], const uint32_t a[4], const uint32_t b[2])
{
    const emu_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const uint8_t *all = emu_exchange(&mine, sizeof mine);
    uint32_t left[2][8], right[2][8];
    for (uint32_t i = 0; i < 2; i++) {
        emu_left_row(all, emu_lane() / 4 + 8 * i, left[i]);
        emu_right_column(all, emu_lane() % 4 * 2 + i, right[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        const int8_t *l = (const int8_t *)left[i / 2], *r = (const int8_t *)right[i % 2];
        for (uint32_t k = 0; k < 32; k++)
            sum[i] += l[k] * r[k];
    }
}

static inline float emu_half(uint32_t word, uint32_t at)
{
    const uint32_t bits = at ? word & 0xffff0000u : word << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline void mma_bf16(float sum[4], const uint32_t a[4], const uint32_t b[2])
{
    const emu_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const uint8_t *all = emu_exchange(&mine, sizeof mine);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t left[8], right[8];
        emu_left_row(all, emu_lane() / 4 + i / 2 * 8, left);
        emu_right_column(all, emu_lane() % 4 * 2 + i % 2, right);
        for (uint32_t k = 0; k < 16; k++)
            sum[i] += emu_half(left[k / 2], k % 2) * emu_half(right[k / 2], k % 2);
    }
}

enum { EMU_MULTIPROCESSORS = 4 };
static inline uint32_t multiprocessor_id()
{
    return blockIdx.x % EMU_MULTIPROCESSORS;
}

uint32_t cycle_count();

#endif
