/* What the kernels need of the device beyond C++, each in one small function: tests/cuda_emu/emulation.hpp has the same
 * functions for a CPU and is included before this. */
#ifndef SLUICE_PROBES_CUDA_DEVICE_CUH
#define SLUICE_PROBES_CUDA_DEVICE_CUH

#include "probes/cuda/kernels.h"
#include "probes/primitives.h"

#define WARP_ALL 0xffffffffu

#ifdef __CUDACC__

#define DEVICE_FN static __device__ __forceinline__
#define DYNAMIC_SHARED(name) extern __shared__ uint4 name[]

/* 16 bytes that nobody will read again: past the first cache. */
DEVICE_FN uint4 load_once(const uint4 *at)
{
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(at));
    return v;
}

/* Global to shared memory, 16 bytes, in the background: commit closes a group, wait returns when all but the newest
 * `left` groups of this thread are there. Other threads' copies are there after a barrier that follows their wait. */
DEVICE_FN void copy_async(uint4 *shared, const uint4 *global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}
DEVICE_FN void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int left> DEVICE_FN void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/* Four 8 x 16 byte matrices: lanes 8k .. 8k+7 say where the rows of matrix k lie; lane l gets bytes 4*(l%4) .. of row
 * l/4 of each. */
DEVICE_FN void load_matrices(uint32_t ret[4], const uint4 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(ret[0]), "=r"(ret[1]), "=r"(ret[2]), "=r"(ret[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

/* sum += a * b: 16 x 32 by 32 x 8 of int8 into int32, fragments as PTX lays them out for mma.m16n8k32. */
DEVICE_FN void mma_s8(int32_t sum[4], const uint32_t a[4], const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same for 16 x 16 by 16 x 8 of bf16 into float. */
DEVICE_FN void mma_bf16(float sum[4], const uint32_t a[4], const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE_FN uint32_t multiprocessor_id()
{
    uint32_t id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

DEVICE_FN uint32_t cycle_count()
{
    return (uint32_t)clock64();
}

#endif

DEVICE_FN uint64_t shuffle_xor_64(uint64_t v, int lanes)
{
    const uint32_t low = __shfl_xor_sync(WARP_ALL, (uint32_t)v, lanes);
    const uint32_t high = __shfl_xor_sync(WARP_ALL, (uint32_t)(v >> 32), lanes);
    return (uint64_t)high << 32 | low;
}

DEVICE_FN uint64_t shuffle_64(uint64_t v, int lane)
{
    const uint32_t low = __shfl_sync(WARP_ALL, (uint32_t)v, lane);
    const uint32_t high = __shfl_sync(WARP_ALL, (uint32_t)(v >> 32), lane);
    return (uint64_t)high << 32 | low;
}

/* Every thread of a warp has a block of 64 bytes; thread t's goes to out[4 * (first + t)] .. if first + t < count. Four
 * lanes exchange theirs first, so that they store 64 bytes in a row at a time. All lanes must call. */
DEVICE_FN void store_blocks(uint4 *out, uint64_t first, uint64_t count, uint32_t words[16])
{
    const unsigned lane = threadIdx.x & 31;
#pragma unroll
    for (int apart = 1; apart <= 2; apart *= 2) {
        const bool is_upper = lane & apart;
#pragma unroll
        for (int chunk = 0; chunk < 4; chunk++) {
            if (chunk & apart)
                continue;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t low = words[4 * chunk + i], high = words[4 * (chunk + apart) + i];
                const uint32_t got = __shfl_xor_sync(WARP_ALL, is_upper ? low : high, apart);
                words[4 * chunk + i] = is_upper ? got : low;
                words[4 * (chunk + apart) + i] = is_upper ? high : got;
            }
        }
    }
#pragma unroll
    for (int block = 0; block < 4; block++) {
        const uint64_t at = first + (lane & ~3u) + block;
        if (at < count)
            out[4 * at + (lane & 3)] =
                make_uint4(words[4 * block], words[4 * block + 1], words[4 * block + 2], words[4 * block + 3]);
    }
}

DEVICE_FN void store_hash(uint32_t *out, const uint32_t hash[8])
{
    ((uint4 *)out)[0] = make_uint4(hash[0], hash[1], hash[2], hash[3]);
    ((uint4 *)out)[1] = make_uint4(hash[4], hash[5], hash[6], hash[7]);
}

DEVICE_FN void load_words(uint32_t *words, const uint4 *from, int count)
{
#pragma unroll
    for (int i = 0; i < count; i++) {
        const uint4 v = from[i];
        words[4 * i] = v.x;
        words[4 * i + 1] = v.y;
        words[4 * i + 2] = v.z;
        words[4 * i + 3] = v.w;
    }
}

/* BLAKE2s over a block {context[8], a, b, zeros} and `len` > 0 bytes, a multiple of 8. One compression in the code for
 * all blocks: it is 1,200 instructions long. */
DEVICE_FN void hash_stream(uint32_t personal, const uint32_t context[8], uint32_t a, uint32_t b, const uint32_t *bytes,
                           uint32_t len, uint32_t ret[8])
{
    uint32_t m[16];
    probe_blake2s_init(ret, personal);
#pragma unroll
    for (int i = 0; i < 8; i++)
        m[i] = context[i];
    m[8] = a;
    m[9] = b;
#pragma unroll
    for (int i = 10; i < 16; i++)
        m[i] = 0;
    uint32_t done = 0;
#pragma unroll 1
    for (;;) {
        const bool is_last = done >= len;
        probe_blake2s_compress(ret, m, 64 + (is_last ? len : done), is_last);
        if (is_last)
            return;
        const uint64_t *from = (const uint64_t *)bytes + done / 8;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint64_t pair = done + 8 * i < len ? from[i] : 0;
            m[2 * i] = (uint32_t)pair;
            m[2 * i + 1] = (uint32_t)(pair >> 32);
        }
        done += 64;
    }
}

#endif
