/* Inside of the CUDA backend: what a device holds, shared by the backend_cuda_*.c files. */
#ifndef SLUICE_PROBES_BACKEND_CUDA_PRIV_H
#define SLUICE_PROBES_BACKEND_CUDA_PRIV_H

#include "probes/backend.h"
#include "probes/backend_cuda_gpu.h"
#include "probes/cublaslt.h"
#include "probes/cuda/kernels.h"
#include "probes/nvml.h"

#define KERNEL_ROW(name, parameters, threads, shared) CUDA_##name,
enum cuda_kernel { PROBE_KERNELS(KERNEL_ROW) CUDA_KERNELS };
#undef KERNEL_ROW

struct cuda_tree { /* kernels.h says how a tree lies on the device */
    cu_pointer at;
    uint64_t count; /* of its lowest stored level; 0: none */
};

struct cuda_tiles { /* what fill, pass and walk hold */
    cu_pointer at;
    uint64_t count;
    cu_pointer keys;                          /* of the passes, and one more, 8 words each */
    struct cuda_tree trees[PROBE_PASSES_MAX]; /* in one piece of memory, the first one's */
    uint32_t contexts[PROBE_PASSES_MAX][8];
    uint32_t passes;
    cu_pointer leaves; /* of one subtree, for pass_open */
    cu_pointer trace;
    struct cuda_tree walk;
    uint32_t walkers, steps;
};

enum { CHAIN_SUMS_BYTES_MAX = 268435456 }; /* of int32 products for each stream */
struct cuda_chain {                        /* buffers of one shape */
    uint32_t n, blocks, steps;
    cu_pointer a, x, y, table, digests, sums[GPU_STREAMS], workspace[GPU_STREAMS];
    struct cuda_tree tree;
    cu_pointer rows; /* x or y: the rows of X_L; 0: no answer yet */
};

/* A route for one shape, settled by warm() or, for a shape that it did not see, by the library's first guess. */
struct cuda_route {
    uint32_t n, blocks;
    enum probe_route route;
    struct gemm gemm; /* PROBE_ROUTE_CUBLASLT_S8 */
    unsigned algorithm;
    uint32_t width; /* columns of each block in a product */
};
enum { CUDA_ROUTES_MAX = 4 };

struct probe_backend {
    struct gpu gpu;
    cu_function kernel[CUDA_KERNELS];
    struct nvml *nvml;
    struct nvml_device *nvml_device;
    struct cublaslt *blas;
    uint32_t sms;
    uint8_t cc_major, cc_minor;
    enum probe_route own_route, preferred, wanted; /* wanted: PROBE_ROUTE_COUNT for the fastest */
    struct cuda_tiles tiles;
    struct cuda_chain chain;
    struct cuda_route routes[CUDA_ROUTES_MAX]; /* a ring */
    unsigned routes_next;
    uint32_t tuned_n, tuned_blocks; /* the shape on which routes were measured; 0: not yet */
};

/* parameters: the kernel's struct. */
MUST_CHECK enum error cuda_queue(struct probe_backend *backend, enum cuda_kernel kernel, uint32_t blocks, size_t stream,
                                 void *parameters);
/* Queues the levels above the lowest one, which lies there; the root is the last node. next_key: see kernel_merkle. */
MUST_CHECK enum error cuda_tree_queue(struct probe_backend *backend, const struct cuda_tree *tree, cu_pointer key,
                                      cu_pointer next_key);
MUST_CHECK enum error cuda_tree_root(struct probe_backend *backend, const struct cuda_tree *tree, uint32_t ret[8]);
/* Appends the path from that node of the lowest level up. */
MUST_CHECK enum error cuda_tree_path(struct probe_backend *backend, const struct cuda_tree *tree, uint64_t node,
                                     struct buf *to);

void cuda_tiles_free(struct probe_backend *backend);
MUST_CHECK enum error cuda_fill(struct probe_backend *backend, const struct probe_fill *fill);
MUST_CHECK enum error cuda_pass(struct probe_backend *backend, const struct probe_pass *pass,
                                uint32_t ret_roots[PROBE_PASSES_MAX][8]);
MUST_CHECK enum error cuda_pass_open(struct probe_backend *backend, uint32_t pass, uint64_t tile, struct buf *to);
MUST_CHECK enum error cuda_walk(struct probe_backend *backend, const struct probe_walk *walk, uint32_t ret_root[8]);
MUST_CHECK enum error cuda_walk_open(struct probe_backend *backend, uint32_t walker, struct buf *trace,
                                     struct buf *path);
MUST_CHECK enum error cuda_tile_read(struct probe_backend *backend, uint64_t tile, struct buf *to);

void cuda_chain_free(struct probe_backend *backend);
void cuda_routes_free(struct probe_backend *backend);
MUST_CHECK enum error cuda_chain_run(struct probe_backend *backend, const struct probe_chain *chain,
                                     uint32_t ret_root[8], enum probe_route *ret_route);
MUST_CHECK enum error cuda_chain_open(struct probe_backend *backend, uint32_t row, struct buf *bytes, struct buf *path);
/* Measures the routes that this device has on a shape of its size and keeps the fastest. */
MUST_CHECK enum error cuda_chain_tune(struct probe_backend *backend);
/* int8 operations a second over `steps` steps of that shape, by the device's clock, in 10^12. */
MUST_CHECK enum error cuda_chain_rate(struct probe_backend *backend, uint32_t n, uint32_t blocks, uint32_t steps,
                                      double *ret_tops);

/* Tensor-core load for that long; the rate in 10^12 operations a second. kind: KERNEL_RATE_... */
MUST_CHECK enum error cuda_load(struct probe_backend *backend, uint32_t kind, int64_t for_ns, double *ret_tops);
struct probe_bench cuda_bench(struct probe_backend *backend);

/* For tests: how long one wait for the device may take. */
void cuda_backend_wait_limit(struct probe_backend *backend, int64_t limit_ns);

#endif
