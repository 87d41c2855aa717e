/* emu.h over a GPU: the first device's, with the kernels that are built in. Memory is pinned memory of the host, which
 * a kernel reaches under the same address: slow, and enough for a test. A failure ends the process with a message. */
#include "probes/cuda/kernels.h"
#include "probes/cuda_driver.h"
#include "tests/cuda_emu/emu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORTABLE_AND_MAPPED = 3 };

static const struct {
    const char *name;
    unsigned threads;
    size_t shared_bytes;
} kernels[] = {
#define ROW(name, params, threads, shared) {#name, threads, shared},
    PROBE_KERNELS(ROW)};
#define KERNELS (sizeof kernels / sizeof *kernels)

static void check(const struct cuda_driver *driver, cu_result result, const char *what)
{
    char text[128];
    if (result == CU_OK)
        return;
    fprintf(stderr, "on the GPU: %s: %s\n", what, cuda_driver_text(driver, result, text));
    exit(1);
}

struct gpu {
    const struct cuda_driver *driver;
    cu_module module;
    cu_stream stream;
    cu_event done;
};

static const struct gpu *gpu_get(void)
{
    static struct gpu gpu;
    cu_context context;
    if (gpu.driver)
        return &gpu;
    gpu.driver = cuda_driver_get();
    if (!gpu.driver || probe_fatbin_len == 0) {
        fprintf(stderr, "on the GPU: %s\n", gpu.driver ? "no kernels are built in" : "no NVIDIA driver with a device");
        exit(1);
    }
    check(gpu.driver, gpu.driver->context_retain(&context, 0), "cuDevicePrimaryCtxRetain");
    check(gpu.driver, gpu.driver->context_set(context), "cuCtxSetCurrent");
    check(gpu.driver, gpu.driver->module_load(&gpu.module, probe_fatbin), "cuModuleLoadData");
    check(gpu.driver, gpu.driver->stream_create(&gpu.stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    check(gpu.driver, gpu.driver->event_create(&gpu.done, CU_EVENT_UNTIMED), "cuEventCreate");
    return &gpu;
}

const char *emu_kernel_name(unsigned index)
{
    return index < KERNELS ? kernels[index].name : NULL;
}

int emu_launch(const char *name, void **params, unsigned grid, unsigned threads, size_t shared_bytes)
{
    cu_function function;
    cu_result result;
    size_t i = 0;
    while (i < KERNELS && strcmp(kernels[i].name, name) != 0)
        i++;
    if (i == KERNELS)
        return 1;
    if (grid == 0 || threads != kernels[i].threads || shared_bytes != kernels[i].shared_bytes)
        return 2;
    const struct gpu *gpu = gpu_get();
    const struct cuda_driver *driver = gpu->driver;
    check(driver, driver->module_function(&function, gpu->module, name), name);
    if (shared_bytes > 48 * 1024)
        check(driver, driver->function_attribute(function, CU_FUNCTION_DYNAMIC_SHARED_MAX, (int)shared_bytes), name);
    result = driver->launch(function, grid, 1, 1, threads, 1, 1, (unsigned)shared_bytes, gpu->stream, params, NULL);
    check(driver, result, name);
    check(driver, driver->event_record(gpu->done, gpu->stream), name);
    while ((result = driver->event_query(gpu->done)) == CU_NOT_READY)
        sched_yield();
    check(driver, result, name);
    return 0;
}

void *emu_take(size_t bytes)
{
    void *ret;
    const struct cuda_driver *driver = gpu_get()->driver;
    check(driver, driver->host_alloc(&ret, bytes, PORTABLE_AND_MAPPED), "cuMemHostAlloc");
    return ret;
}

void emu_give(void *memory)
{
    const struct cuda_driver *driver = gpu_get()->driver;
    if (memory)
        check(driver, driver->host_free(memory), "cuMemFreeHost");
}

unsigned emu_multiprocessors(void)
{
    int ret, device;
    const struct cuda_driver *driver = gpu_get()->driver;
    check(driver, driver->device_get(&device, 0), "cuDeviceGet");
    check(driver, driver->device_attribute(&ret, CU_ATTRIBUTE_SMS, device), "cuDeviceGetAttribute");
    return (unsigned)ret;
}
