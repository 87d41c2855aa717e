/* NVML and cuBLASLt of the fake. cuBLASLt has three algorithms for an int8 product: right ones (0, 2) and one that it
 * refuses to run (1); it has nothing for other types. */
#include "tests/fake_cuda/fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_FOUND = 6, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

/* -- NVML -- */

struct pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_and_vendor, subsystem;
    char bus_id[32];
};

int nvmlInit_v2(void)
{
    LOCKED;
    return OK;
}

int nvmlShutdown(void)
{
    LOCKED;
    return OK;
}

int nvmlSystemGetDriverVersion(char *ret, unsigned size)
{
    LOCKED;
    (void)snprintf(ret, size, "570.00.fake");
    return OK;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **ret)
{
    LOCKED;
    *ret = (void *)(uintptr_t)0x1234;
    return strncmp(bus_id, "0000:", 5) == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *ret)
{
    LOCKED;
    (void)device;
    *ret = (struct pci){.device_and_vendor = 0x233510deu, .subsystem = 0x18be10deu};
    return OK;
}

int nvmlDeviceGetClockInfo(void *device, int type, unsigned *ret)
{
    LOCKED;
    (void)device;
    *ret = type == 1 ? 1755 : 3201;
    return OK;
}

int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *ret)
{
    LOCKED;
    (void)device;
    *ret = type == 1 ? 1980 : 3201;
    return OK;
}

int nvmlDeviceGetEccMode(void *device, int *ret_current, int *ret_pending)
{
    LOCKED;
    (void)device;
    *ret_current = *ret_pending = 1;
    return OK;
}

int nvmlDeviceGetMigMode(void *device, unsigned *ret_current, unsigned *ret_pending)
{
    LOCKED;
    (void)device;
    *ret_current = *ret_pending = 0;
    return OK;
}

int nvmlDeviceGetMemoryBusWidth(void *device, unsigned *ret)
{
    LOCKED;
    (void)device;
    *ret = 6144;
    return OK;
}

/* -- cuBLASLt -- */

struct operation {
    int compute, scale_type, is_a_transposed;
};
struct layout {
    int type;
    uint64_t rows, columns;
    int64_t ld, stride;
    int32_t batch;
};
struct preference {
    uint64_t workspace_bytes_max;
};
struct result {
    uint64_t algorithm[8];
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

static int make(void **ret, size_t bytes, const void *from)
{
    *ret = fake_keep(malloc(bytes));
    if (*ret == NULL)
        return INVALID_VALUE;
    memcpy(*ret, from, bytes);
    fake_descriptors(1);
    return OK;
}

static int destroy(void *descriptor)
{
    if (descriptor == NULL)
        return INVALID_VALUE;
    fake_drop(descriptor);
    fake_descriptors(-1);
    return OK;
}

int cublasLtCreate(void **ret)
{
    LOCKED;
    return make(ret, sizeof(int), &(int){1});
}

int cublasLtDestroy(void *handle)
{
    LOCKED;
    return destroy(handle);
}

size_t cublasLtGetVersion(void)
{
    LOCKED;
    return 120800;
}

int cublasLtMatmulDescCreate(void **ret, int compute, int scale_type)
{
    LOCKED;
    return make(ret, sizeof(struct operation), &(struct operation){.compute = compute, .scale_type = scale_type});
}

int cublasLtMatmulDescDestroy(void *operation)
{
    LOCKED;
    return destroy(operation);
}

int cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t size)
{
    LOCKED;
    struct operation *operation = handle;
    if (attribute != 3 || size != sizeof(int32_t))
        return INVALID_VALUE;
    memcpy(&operation->is_a_transposed, value, size);
    return OK;
}

int cublasLtMatrixLayoutCreate(void **ret, int type, uint64_t rows, uint64_t columns, int64_t ld)
{
    LOCKED;
    return make(ret, sizeof(struct layout),
                &(struct layout){.type = type, .rows = rows, .columns = columns, .ld = ld, .batch = 1});
}

int cublasLtMatrixLayoutDestroy(void *layout)
{
    LOCKED;
    return destroy(layout);
}

int cublasLtMatrixLayoutSetAttribute(void *handle, int attribute, const void *value, size_t size)
{
    LOCKED;
    struct layout *layout = handle;
    if (attribute == 5 && size == sizeof layout->batch)
        memcpy(&layout->batch, value, size);
    else if (attribute == 6 && size == sizeof layout->stride)
        memcpy(&layout->stride, value, size);
    else
        return INVALID_VALUE;
    return OK;
}

int cublasLtMatmulPreferenceCreate(void **ret)
{
    LOCKED;
    return make(ret, sizeof(struct preference), &(struct preference){0});
}

int cublasLtMatmulPreferenceDestroy(void *preference)
{
    LOCKED;
    return destroy(preference);
}

int cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute, const void *value, size_t size)
{
    LOCKED;
    struct preference *preference = handle;
    if (attribute != 1 || size != sizeof preference->workspace_bytes_max)
        return INVALID_VALUE;
    memcpy(&preference->workspace_bytes_max, value, size);
    return OK;
}

/* int8 in, int32 out, A transposed, all packed. */
static int is_known(const struct operation *operation, const struct layout *a, const struct layout *b,
                    const struct layout *c)
{
    return operation->compute == 72 && operation->scale_type == 10 && operation->is_a_transposed == 1 && a->type == 3 &&
           b->type == 3 && c->type == 10 && a->rows == b->rows && a->columns == c->rows && b->columns == c->columns &&
           a->ld == (int64_t)a->rows && b->ld == (int64_t)b->rows && c->ld == (int64_t)c->rows &&
           a->batch == b->batch && b->batch == c->batch && a->stride == 0;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, struct layout *b, void *c, void *d,
                                   void *preference, int count, struct result *ret, int *ret_count)
{
    LOCKED;
    (void)handle;
    (void)preference;
    *ret_count = 0;
    if (c != d || !is_known(operation, a, b, c) || (b->batch > 1 && getenv("FAKE_CUDA_NO_BATCH") != NULL))
        return NOT_SUPPORTED;
    for (; *ret_count < 3 && *ret_count < count; (*ret_count)++)
        ret[*ret_count] = (struct result){.algorithm = {0x10 + (uint64_t)*ret_count}, .workspace_bytes = 1024};
    return OK;
}

int cublasLtMatmul(void *handle, void *operation, const void *alpha, const void *a, const struct layout *a_layout,
                   const void *b, const struct layout *b_layout, const void *beta, const void *c,
                   const struct layout *c_layout, void *d, const struct layout *d_layout, const void *algorithm,
                   void *workspace, size_t workspace_bytes, void *stream)
{
    LOCKED;
    uint64_t chosen;
    memcpy(&chosen, algorithm, sizeof chosen);
    (void)handle;
    if (!is_known(operation, a_layout, b_layout, c_layout) || c != d || c_layout != d_layout ||
        *(const int32_t *)alpha != 1 || *(const int32_t *)beta != 0 || workspace == NULL || workspace_bytes != 1024)
        return INVALID_VALUE;
    if (chosen == 0x11)
        return NOT_SUPPORTED;
    const struct fake_product product = {.a = a,
                                         .b = b,
                                         .c = d,
                                         .m = (uint32_t)a_layout->columns,
                                         .n = (uint32_t)b_layout->columns,
                                         .k = (uint32_t)a_layout->rows,
                                         .batch = (uint32_t)b_layout->batch,
                                         .b_stride = b_layout->stride,
                                         .c_stride = c_layout->stride};
    return fake_queue_product(stream, &product);
}
