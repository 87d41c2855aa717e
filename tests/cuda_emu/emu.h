/* The CUDA kernels on a CPU, bit for bit and slowly: the sources in probes/cuda compiled as C++ (emulation.hpp),
 * launched by name.
 *
 * A "device pointer" is a host pointer. Blocks run one after the other on the calling thread, the threads of a block as
 * fibers that change at barriers and warp operations. A kernel that would hang or read what no barrier ordered (a warp
 * operation that not all lanes reach, an asynchronous copy not waited for) ends the process with a message.
 *
 * on_gpu.c has the same calls over a real driver and the built-in kernels: `make check-gpu` runs the kernels' unit test
 * so. */
#ifndef SLUICE_TESTS_CUDA_EMU_H
#define SLUICE_TESTS_CUDA_EMU_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All kernels of PROBE_KERNELS, in its order; NULL past the last. */
const char *emu_kernel_name(unsigned index);
/* As cuLaunchKernel with a grid and a block of one dimension: params[0] is the kernel's struct. Returns when the kernel
 * has ended. 0, or what is wrong: 1 no such kernel, 2 a shape that the kernel is not made for (threads, dynamic shared
 * bytes, an empty grid). */
int emu_launch(const char *name, void **params, unsigned grid, unsigned threads, size_t shared_bytes);
/* Memory that kernels may be given, aligned to 256 bytes; the emulation itself takes any. The owner gives it back. */
void *emu_take(size_t bytes);
void emu_give(void *memory);
unsigned emu_multiprocessors(void);

#ifdef __cplusplus
}
#endif

#endif
