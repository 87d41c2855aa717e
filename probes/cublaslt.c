#include "probes/cublaslt.h"

#include "core/log.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {            /* of library_types.h, cublas_api.h and cublasLt.h */
       LT_OK = 0, /* CUBLAS_STATUS_SUCCESS */
       LT_R_32F = 0,
       LT_R_8I = 3,
       LT_R_32I = 10,
       LT_R_16BF = 14,
       LT_COMPUTE_32F = 68,
       LT_COMPUTE_32I = 72,
       LT_OP_T = 1,
       LT_DESC_TRANS_A = 3,
       LT_PREFERENCE_WORKSPACE_MAX = 1,
       LT_LAYOUT_BATCH = 5,
       LT_LAYOUT_STRIDE = 6,
};

struct lt_result { /* cublasLtMatmulHeuristicResult_t */
    uint64_t algorithm[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

/* X(name in the table, name in the library, result, parameters) */
#define LT_CALLS(X)                                                                                                    \
    X(create, "cublasLtCreate", int, (void **ret))                                                                     \
    X(destroy, "cublasLtDestroy", int, (void *handle))                                                                 \
    X(version, "cublasLtGetVersion", size_t, (void))                                                                   \
    X(operation_create, "cublasLtMatmulDescCreate", int, (void **ret, int compute, int scale_type))                    \
    X(operation_destroy, "cublasLtMatmulDescDestroy", int, (void *operation))                                          \
    X(operation_set, "cublasLtMatmulDescSetAttribute", int,                                                            \
      (void *operation, int attribute, const void *value, size_t size))                                                \
    X(layout_create, "cublasLtMatrixLayoutCreate", int,                                                                \
      (void **ret, int type, uint64_t rows, uint64_t columns, int64_t ld))                                             \
    X(layout_destroy, "cublasLtMatrixLayoutDestroy", int, (void *layout))                                              \
    X(layout_set, "cublasLtMatrixLayoutSetAttribute", int,                                                             \
      (void *layout, int attribute, const void *value, size_t size))                                                   \
    X(preference_create, "cublasLtMatmulPreferenceCreate", int, (void **ret))                                          \
    X(preference_destroy, "cublasLtMatmulPreferenceDestroy", int, (void *preference))                                  \
    X(preference_set, "cublasLtMatmulPreferenceSetAttribute", int,                                                     \
      (void *preference, int attribute, const void *value, size_t size))                                               \
    X(heuristic, "cublasLtMatmulAlgoGetHeuristic", int,                                                                \
      (void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference, int count,                 \
       struct lt_result *ret, int *ret_count))                                                                         \
    X(matmul, "cublasLtMatmul", int,                                                                                   \
      (void *handle, void *operation, const void *alpha, const void *a, void *a_layout, const void *b, void *b_layout, \
       const void *beta, const void *c, void *c_layout, void *d, void *d_layout, const void *algorithm,                \
       void *workspace, size_t workspace_bytes, cu_stream stream))

#define POINTER(name, symbol, result, parameters) result(*name) parameters;
struct lt_table {
    LT_CALLS(POINTER)
};
struct cublaslt {
    struct lt_table call;
    void *library, *handle;
    unsigned version;
};
#define ROW(name, symbol, result, parameters) {symbol, offsetof(struct lt_table, name), 0},
static const struct library_call lt_calls[] = {LT_CALLS(ROW)};

static struct cublaslt *library_open(const char *path)
{
    struct cublaslt *blas = calloc(1, sizeof *blas);
    if (blas == NULL)
        return NULL;
    blas->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (blas->library == NULL)
        goto out;
    if (!library_resolve(blas->library, lt_calls, sizeof lt_calls / sizeof lt_calls[0], &blas->call))
        goto out;
    const int status = blas->call.create(&blas->handle); /* fails where the driver is older than the library */
    if (status != LT_OK) {
        log_info(NULL, "%s cannot be used here: cublasLtCreate gave %d", path, status);
        goto out;
    }
    blas->version = (unsigned)blas->call.version();
    return blas;
out:
    if (blas->library != NULL)
        dlclose(blas->library);
    free(blas);
    return NULL;
}

struct cublaslt *cublaslt_open(void)
{
    const char *path = secure_getenv("SLUICE_LIBCUBLASLT");
    if (path != NULL && path[0] != 0)
        return library_open(path);
    struct cublaslt *blas = library_open("libcublasLt.so.13");
    return blas != NULL ? blas : library_open("libcublasLt.so.12");
}

struct cublaslt *cublaslt_close(struct cublaslt *blas)
{
    if (blas == NULL)
        return NULL;
    (void)blas->call.destroy(blas->handle);
    dlclose(blas->library);
    free(blas);
    return NULL;
}

struct cublaslt *cublaslt_abandon(struct cublaslt *blas)
{
    free(blas);
    return NULL;
}

unsigned cublaslt_version(const struct cublaslt *blas)
{
    return blas->version;
}

static enum error lt_checked(int status, const char *call)
{
    if (status == LT_OK)
        return ERR_NONE;
    log_info(NULL, "%s gave %d", call, status); /* the caller may have another way */
    return ERR_SYSTEM;
}

static enum error layout_make(const struct gemm *gemm, int type, uint32_t rows, uint32_t columns, uint64_t stride,
                              void **ret)
{
    const struct lt_table *call = &gemm->blas->call;
    const int32_t batch = (int32_t)gemm->shape.batch;
    const int64_t step = (int64_t)stride;
    enum error error =
        lt_checked(call->layout_create(ret, type, rows, columns, (int64_t)rows), "cublasLtMatrixLayoutCreate");
    if (error == ERR_NONE && batch > 1)
        error = lt_checked(call->layout_set(*ret, LT_LAYOUT_BATCH, &batch, sizeof batch),
                           "cublasLtMatrixLayoutSetAttribute (batch)");
    if (error == ERR_NONE && batch > 1)
        error = lt_checked(call->layout_set(*ret, LT_LAYOUT_STRIDE, &step, sizeof step),
                           "cublasLtMatrixLayoutSetAttribute (stride)");
    return error;
}

static enum error descriptors_make(struct gemm *gemm)
{
    const struct lt_table *call = &gemm->blas->call;
    const struct gemm_shape *shape = &gemm->shape;
    const bool is_s8 = shape->type == GEMM_S8;
    const int in = is_s8 ? LT_R_8I : LT_R_16BF, out = is_s8 ? LT_R_32I : LT_R_32F, transposed = LT_OP_T;
    const int compute = is_s8 ? LT_COMPUTE_32I : LT_COMPUTE_32F;
    enum error error = lt_checked(call->operation_create(&gemm->operation, compute, out), "cublasLtMatmulDescCreate");
    if (error == ERR_NONE)
        error = lt_checked(call->operation_set(gemm->operation, LT_DESC_TRANS_A, &transposed, sizeof transposed),
                           "cublasLtMatmulDescSetAttribute");
    if (error == ERR_NONE)
        error = layout_make(gemm, in, shape->k, shape->m, 0, &gemm->a);
    if (error == ERR_NONE)
        error = layout_make(gemm, in, shape->k, shape->n, shape->b_stride, &gemm->b);
    if (error == ERR_NONE)
        error = layout_make(gemm, out, shape->m, shape->n, shape->c_stride, &gemm->c);
    return error;
}

/* What the library thinks fastest; which one is, only the clock says (backend_cuda.c). */
static enum error algorithms_find(struct gemm *gemm, size_t workspace_bytes_max)
{
    const struct lt_table *call = &gemm->blas->call;
    const uint64_t bytes_max = workspace_bytes_max;
    struct lt_result results[GEMM_ALGORITHMS_MAX];
    void *preference = NULL;
    int found = 0;
    enum error error = lt_checked(call->preference_create(&preference), "cublasLtMatmulPreferenceCreate");
    if (error != ERR_NONE)
        return error;
    error = lt_checked(call->preference_set(preference, LT_PREFERENCE_WORKSPACE_MAX, &bytes_max, sizeof bytes_max),
                       "cublasLtMatmulPreferenceSetAttribute");
    if (error != ERR_NONE)
        goto out;
    memset(results, 0, sizeof results);
    const int status = call->heuristic(gemm->blas->handle, gemm->operation, gemm->a, gemm->b, gemm->c, gemm->c,
                                       preference, GEMM_ALGORITHMS_MAX, results, &found);
    if (status != LT_OK)
        found = 0;
    for (int i = 0; i < found && i < GEMM_ALGORITHMS_MAX; i++) {
        if (results[i].state != LT_OK || results[i].workspace_bytes > workspace_bytes_max)
            continue;
        struct gemm_algorithm *algorithm = &gemm->algorithm[gemm->algorithms++];
        memcpy(algorithm->data, results[i].algorithm, sizeof algorithm->data);
        algorithm->workspace_bytes = results[i].workspace_bytes;
    }
    if (gemm->algorithms == 0)
        error = ERR_NOT_FOUND;
out:
    (void)call->preference_destroy(preference);
    return error;
}

enum error gemm_plan(struct cublaslt *blas, const struct gemm_shape *shape, size_t workspace_bytes_max,
                     struct gemm *ret)
{
    struct gemm gemm = {.blas = blas, .shape = *shape};
    assert(shape->batch >= 1);
    enum error error = descriptors_make(&gemm);
    if (error == ERR_NONE)
        error = algorithms_find(&gemm, workspace_bytes_max);
    if (error == ERR_NONE)
        *ret = gemm;
    else
        gemm_free(&gemm);
    return error;
}

void gemm_free(struct gemm *gemm)
{
    if (gemm->blas == NULL)
        return;
    const struct lt_table *call = &gemm->blas->call;
    void *layouts[] = {gemm->a, gemm->b, gemm->c};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i] != NULL)
            (void)call->layout_destroy(layouts[i]);
    if (gemm->operation != NULL)
        (void)call->operation_destroy(gemm->operation);
    *gemm = (struct gemm){0};
}

enum error gemm_run(const struct gemm *gemm, unsigned algorithm, cu_pointer a, cu_pointer b, cu_pointer c,
                    cu_pointer workspace, cu_stream stream)
{
    assert(algorithm < gemm->algorithms);
    const struct gemm_algorithm *chosen = &gemm->algorithm[algorithm];
    const int32_t one_s32 = 1, zero_s32 = 0;
    const float one_f32 = 1, zero_f32 = 0;
    const bool is_s8 = gemm->shape.type == GEMM_S8;
    const void *alpha = is_s8 ? (const void *)&one_s32 : (const void *)&one_f32;
    const void *beta = is_s8 ? (const void *)&zero_s32 : (const void *)&zero_f32;
    void *to = (void *)(uintptr_t)c;
    return lt_checked(gemm->blas->call.matmul(gemm->blas->handle, gemm->operation, alpha, (const void *)(uintptr_t)a,
                                              gemm->a, (const void *)(uintptr_t)b, gemm->b, beta, to, gemm->c, to,
                                              gemm->c, chosen->data, (void *)(uintptr_t)workspace,
                                              chosen->workspace_bytes, stream),
                      "cublasLtMatmul");
}
