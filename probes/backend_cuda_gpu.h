/* One GPU as the CUDA backend uses it: its context, two streams, memory, and waits that end.
 *
 * Every call of the driver is checked and a failing one logged with its name. A failure that is not "out of memory"
 * leaves a context that no call works in any more (the driver's own rule), so the GPU is dead from then on: all calls
 * give ERR_SYSTEM at once, and what it holds goes with the context. A device that does not end its work in time hangs:
 * then nothing of the driver is called again, for any call may wait for it. */
#ifndef SLUICE_PROBES_BACKEND_CUDA_GPU_H
#define SLUICE_PROBES_BACKEND_CUDA_GPU_H

#include "core/str.h"
#include "probes/cuda_driver.h"

#define GPU_STREAMS 2
#define GPU_STAGING_BYTES ((size_t)8 << 20) /* of pinned memory, through which all copies go */
#define GPU_PACE 128 /* launches of a stream after which the host waits for those before the last such lot */
#define GPU_WAIT_LIMIT_NS (INT64_C(60) * 1000000000) /* far above any challenge's deadline */

struct gpu {
    const struct cuda_driver *driver;
    cu_device device;
    cu_context context;
    cu_module module;
    cu_stream stream[GPU_STREAMS];
    cu_event done, start, end; /* waits; a bench's clock */
    cu_event pace[GPU_STREAMS][2];
    unsigned launches[GPU_STREAMS];
    void *staging;
    int64_t wait_limit_ns;
    bool is_held;          /* the primary context */
    bool is_dead, is_hung; /* hung: also dead */
};

/* image: a fatbin, cubin or PTX text. ERR_NOT_FOUND: no such device. On failure nothing is left in *ret. */
MUST_CHECK enum error gpu_open(const struct cuda_driver *driver, unsigned index, const void *image, struct gpu *ret);
void gpu_close(struct gpu *gpu);
/* Makes its context the thread's; first in every operation. ERR_SYSTEM: it is dead. */
MUST_CHECK enum error gpu_enter(struct gpu *gpu);
/* Of a driver call's result: ERR_NONE, ERR_NO_MEMORY (not logged), or ERR_SYSTEM and a dead GPU. */
MUST_CHECK enum error gpu_checked(struct gpu *gpu, cu_result result, const char *call);
/* A failure outside the driver's calls after which the device's state is unknown: it is dead. */
void gpu_give_up(struct gpu *gpu, const char *what);

MUST_CHECK enum error gpu_alloc(struct gpu *gpu, size_t bytes, cu_pointer *ret);
void gpu_free(struct gpu *gpu, cu_pointer *pointer); /* accepts one that is 0; sets it to 0 */
MUST_CHECK enum error gpu_kernel(struct gpu *gpu, const char *name, cu_function *ret);
struct gpu_grid {
    unsigned blocks, threads, shared_bytes;
};
/* parameters: the kernel's one struct. Keeps the stream's queue short enough that no launch blocks: a driver's queue
 * has an end, and waiting there could not be cut short. */
MUST_CHECK enum error gpu_launch(struct gpu *gpu, cu_function kernel, const char *name, struct gpu_grid grid,
                                 size_t stream, void *parameters);
/* Until all that is queued on the stream is done. */
MUST_CHECK enum error gpu_wait(struct gpu *gpu, cu_stream stream);
/* What follows on `after` starts when all that is queued on `first` now is done. */
MUST_CHECK enum error gpu_order(struct gpu *gpu, cu_stream first, cu_stream after);
MUST_CHECK enum error gpu_read(struct gpu *gpu, void *to, cu_pointer from, size_t bytes); /* behind stream 0; waits */
MUST_CHECK enum error gpu_write(struct gpu *gpu, cu_pointer to, const void *from, size_t bytes);
MUST_CHECK enum error gpu_read_buf(struct gpu *gpu, struct buf *to, cu_pointer from, size_t bytes); /* appends */
/* The device's own clock around what is queued on stream 0 between the two. */
MUST_CHECK enum error gpu_clock_start(struct gpu *gpu);
MUST_CHECK enum error gpu_clock_end(struct gpu *gpu, double *ret_seconds); /* waits */

#endif
