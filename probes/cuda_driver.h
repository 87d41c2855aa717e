/* NVIDIA's driver, opened at run time: the few calls of its C interface that the CUDA backend needs, by dlopen of
 * libcuda.so.1. No header and no library of NVIDIA's is needed to build; names, types and numbers are those of the
 * driver API's reference (cuda.h of CUDA 12; the versions behind the names, such as _v2, are part of its binary
 * interface and do not change). */
#ifndef SLUICE_PROBES_CUDA_DRIVER_H
#define SLUICE_PROBES_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int cu_result;
typedef int cu_device;
typedef uint64_t cu_pointer; /* of device memory */
typedef struct cu_context_opaque *cu_context;
typedef struct cu_module_opaque *cu_module;
typedef struct cu_function_opaque *cu_function;
typedef struct cu_stream_opaque *cu_stream;
typedef struct cu_event_opaque *cu_event;

enum { /* CUresult */
       CU_OK = 0,
       CU_OUT_OF_MEMORY = 2,
       CU_NOT_READY = 600,
};
enum { /* CUdevice_attribute */
       CU_ATTRIBUTE_CLOCK_KHZ = 13,
       CU_ATTRIBUTE_SMS = 16,
       CU_ATTRIBUTE_ECC = 32,
       CU_ATTRIBUTE_MEMORY_CLOCK_KHZ = 36,
       CU_ATTRIBUTE_BUS_BITS = 37,
       CU_ATTRIBUTE_L2_BYTES = 38,
       CU_ATTRIBUTE_CC_MAJOR = 75,
       CU_ATTRIBUTE_CC_MINOR = 76,
       CU_ATTRIBUTE_SHARED_BYTES_MAX = 97, /* of a block, when asked for */
};
enum {
    CU_FUNCTION_DYNAMIC_SHARED_MAX = 8, /* CUfunction_attribute */
    CU_STREAM_NON_BLOCKING = 1,
    CU_EVENT_TIMED = 0,
    CU_EVENT_UNTIMED = 2,
};

/* X(name in the table, name in the library, parameters) */
#define CUDA_DRIVER_CALLS(X)                                                                                        \
    X(init, "cuInit", (unsigned flags))                                                                             \
    X(driver_version, "cuDriverGetVersion", (int *ret))                                                             \
    X(error_name, "cuGetErrorName", (cu_result result, const char **ret))                                           \
    X(error_string, "cuGetErrorString", (cu_result result, const char **ret))                                       \
    X(device_count, "cuDeviceGetCount", (int *ret))                                                                 \
    X(device_get, "cuDeviceGet", (cu_device * ret, int ordinal))                                                    \
    X(device_name, "cuDeviceGetName", (char *ret, int size, cu_device device))                                      \
    X(device_uuid, "cuDeviceGetUuid", (uint8_t ret[16], cu_device device))                                          \
    X(device_attribute, "cuDeviceGetAttribute", (int *ret, int attribute, cu_device device))                        \
    X(device_memory, "cuDeviceTotalMem_v2", (size_t * ret, cu_device device))                                       \
    X(device_pci, "cuDeviceGetPCIBusId", (char *ret, int size, cu_device device))                                   \
    X(context_retain, "cuDevicePrimaryCtxRetain", (cu_context * ret, cu_device device))                             \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (cu_device device))                                          \
    X(context_set, "cuCtxSetCurrent", (cu_context context))                                                         \
    X(module_load, "cuModuleLoadData", (cu_module * ret, const void *image))                                        \
    X(module_unload, "cuModuleUnload", (cu_module module))                                                          \
    X(module_function, "cuModuleGetFunction", (cu_function * ret, cu_module module, const char *name))              \
    X(function_attribute, "cuFuncSetAttribute", (cu_function function, int attribute, int value))                   \
    X(memory_info, "cuMemGetInfo_v2", (size_t * ret_free, size_t * ret_total))                                      \
    X(memory_alloc, "cuMemAlloc_v2", (cu_pointer * ret, size_t bytes))                                              \
    X(memory_free, "cuMemFree_v2", (cu_pointer pointer))                                                            \
    X(host_alloc, "cuMemHostAlloc", (void **ret, size_t bytes, unsigned flags))                                     \
    X(host_free, "cuMemFreeHost", (void *pointer))                                                                  \
    X(copy_in, "cuMemcpyHtoDAsync_v2", (cu_pointer to, const void *from, size_t bytes, cu_stream stream))           \
    X(copy_out, "cuMemcpyDtoHAsync_v2", (void *to, cu_pointer from, size_t bytes, cu_stream stream))                \
    X(memory_set, "cuMemsetD8Async", (cu_pointer to, unsigned char value, size_t bytes, cu_stream stream))          \
    X(stream_create, "cuStreamCreate", (cu_stream * ret, unsigned flags))                                           \
    X(stream_destroy, "cuStreamDestroy_v2", (cu_stream stream))                                                     \
    X(stream_wait, "cuStreamWaitEvent", (cu_stream stream, cu_event event, unsigned flags))                         \
    X(event_create, "cuEventCreate", (cu_event * ret, unsigned flags))                                              \
    X(event_destroy, "cuEventDestroy_v2", (cu_event event))                                                         \
    X(event_record, "cuEventRecord", (cu_event event, cu_stream stream))                                            \
    X(event_query, "cuEventQuery", (cu_event event))                                                                \
    X(event_elapsed, "cuEventElapsedTime", (float *ret_ms, cu_event start, cu_event end))                           \
    X(launch, "cuLaunchKernel",                                                                                     \
      (cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
       unsigned block_z, unsigned shared_bytes, cu_stream stream, void **params, void **extra))

#define CUDA_DRIVER_POINTER(name, symbol, parameters) cu_result(*name) parameters;
struct cuda_driver {
    CUDA_DRIVER_CALLS(CUDA_DRIVER_POINTER)
};
#undef CUDA_DRIVER_POINTER

/* The driver, opened and initialised once in a process; NULL: there is none, or it found no device. Any thread. The
 * library is $SLUICE_LIBCUDA if set (never in a set-user-id process), else libcuda.so.1. */
const struct cuda_driver *cuda_driver_get(void);
/* For tests: another library, opened at the next cuda_driver_get; NULL: the usual one. No backend may be open. */
void cuda_driver_set_library(const char *path);
/* "CUDA_ERROR_OUT_OF_MEMORY (out of memory)", or its number where the driver has no name. Gives ret. */
const char *cuda_driver_text(const struct cuda_driver *driver, cu_result result, char ret[static 128]);

/* Fills table, an array of function pointers laid out as names is, from a library that dlopen gave; false when one is
 * missing. For the other libraries as well. */
struct library_call {
    const char *symbol;
    size_t offset; /* of its pointer in the table */
    int is_optional;
};
int library_resolve(void *library, const struct library_call *calls, size_t count, void *table);

#endif
