/* Matrix products by NVIDIA's cuBLASLt (libcublasLt.so.13 or .12), opened at run time; the probe does without where it
 * is not installed. Exact ones (int8 in, int32 out) for CHAIN, bf16 ones for the bench's table.
 *
 * All matrices are column-major as cuBLASLt wants them for its int8 tensor-core kernels ("TN"): C (m x n, ld m) = the
 * transpose of A (k x m, ld k) times B (k x n, ld k). So both inputs run along k. */
#ifndef SLUICE_PROBES_CUBLASLT_H
#define SLUICE_PROBES_CUBLASLT_H

#include "core/error.h"
#include "probes/cuda_driver.h"

#include <stdbool.h>

#define GEMM_ALGORITHMS_MAX 8

struct cublaslt; /* belongs to one CUDA context, which must be current in every call here */
/* NULL: not installed, or not for this driver and device. The library is $SLUICE_LIBCUBLASLT if set (never in a
 * set-user-id process). */
struct cublaslt *cublaslt_open(void);
struct cublaslt *cublaslt_close(struct cublaslt *blas); /* accepts NULL; returns NULL */
/* For a device that hangs: gives our part back and leaves the library's, whose end might wait for the device. */
struct cublaslt *cublaslt_abandon(struct cublaslt *blas);
unsigned cublaslt_version(const struct cublaslt *blas); /* 120901 */

enum gemm_type { GEMM_S8, GEMM_BF16 }; /* C is int32 or float */
struct gemm_shape {
    enum gemm_type type;
    uint32_t m, n, k;
    uint32_t batch;              /* >= 1 products in one call, all with the same A */
    uint64_t b_stride, c_stride; /* in elements, from one product's B or C to the next one's */
};
struct gemm { /* one shape's plan; plain data but for its descriptors */
    struct cublaslt *blas;
    struct gemm_shape shape;
    void *operation, *a, *b, *c;
    unsigned algorithms; /* that may be asked for, best guess first */
    struct gemm_algorithm {
        uint64_t data[8];
        size_t workspace_bytes;
    } algorithm[GEMM_ALGORITHMS_MAX];
};
/* ERR_NOT_FOUND: the library has no kernel for that shape on this device. */
MUST_CHECK enum error gemm_plan(struct cublaslt *blas, const struct gemm_shape *shape, size_t workspace_bytes_max,
                                struct gemm *ret);
void gemm_free(struct gemm *gemm); /* accepts an all-zero one */
/* Queues the product on the stream. The workspace may be 0 for an algorithm that needs none. */
MUST_CHECK enum error gemm_run(const struct gemm *gemm, unsigned algorithm, cu_pointer a, cu_pointer b, cu_pointer c,
                               cu_pointer workspace, cu_stream stream);

#endif
