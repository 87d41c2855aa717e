/* A CUDA driver without a GPU: one shared object that stands for libcuda.so.1, libnvidia-ml.so.1 and libcublasLt.so.
 * Device memory is host memory, kernels run in the emulator (tests/cuda_emu).
 *
 * Work is only queued by the calls that launch or copy; it runs when an event is asked for, one stream as far as it
 * may before the other, so that an order which no event enforces shows as a wrong answer.
 *
 * Read at cuInit from the environment, which tests set:
 *   FAKE_CUDA_DEVICES   devices (1)             FAKE_CUDA_NAME    their name ("NVIDIA Fake")
 *   FAKE_CUDA_MEMORY    bytes claimed (64 MiB)  FAKE_CUDA_REAL    bytes there really are (as claimed)
 *   FAKE_CUDA_USED  bytes that somebody else has (0)
 *   FAKE_CUDA_SMS       multiprocessors (4)     FAKE_CUDA_CC      compute capability (90)
 *   FAKE_CUDA_MACHINE   0..255, its GPUs' UUIDs differ from another's (1)
 *   FAKE_CUDA_ORDER     1: stream created first runs last
 *   FAKE_CUDA_FAIL      the k-th launch from now fails, and every call after it
 *   FAKE_CUDA_HANG      the k-th launch from now never ends
 *   FAKE_CUDA_NO_BATCH  set: cuBLASLt has no batched products
 *   FAKE_CUDA_FLIP      a kernel's name: a bit of what its first pointer points at is wrong after each launch of it */
#ifndef SLUICE_TESTS_FAKE_CUDA_H
#define SLUICE_TESTS_FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

/* What is held: memory, pinned memory, streams, events, modules, contexts, cuBLASLt descriptors. By dlsym. */
struct fake_cuda_live {
    unsigned allocations, pinned, streams, events, modules, contexts, descriptors;
    uint64_t bytes;
    unsigned launches, products; /* since cuInit */
};
void fake_cuda_live(struct fake_cuda_live *ret);

/* One caller at a time: the emulator has one set of shared memory. First in each function that the object exports. */
int fake_lock(void);
void fake_unlock(const int *held);
#define LOCKED __attribute__((cleanup(fake_unlock), unused)) const int held_ = fake_lock()

/* For the other file: a product that runs when its turn on the stream comes. */
struct fake_product {
    const int8_t *a, *b;
    int32_t *c;
    uint32_t m, n, k, batch;
    int64_t b_stride, c_stride;
};
int fake_queue_product(void *stream, const struct fake_product *product);
void fake_descriptors(int more);
void *fake_keep(void *made);
void fake_drop(void *made);

#endif
