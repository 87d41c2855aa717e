#include "probes/backend_cuda_gpu.h"

#include "core/clock.h"
#include "core/log.h"

#include <assert.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define SPIN_NS (2 * NS_PER_MS) /* a wait's first part polls without sleeping: most are this short */
#define POLL_NS (20 * NS_PER_US)

void gpu_give_up(struct gpu *gpu, const char *what)
{
    if (!gpu->is_dead)
        log_error(NULL, "GPU %d failed: %s; it is not used any more", gpu->device, what);
    gpu->is_dead = true;
}

enum error gpu_checked(struct gpu *gpu, cu_result result, const char *call)
{
    if (result == CU_OK)
        return ERR_NONE;
    if (result == CU_OUT_OF_MEMORY)
        return ERR_NO_MEMORY;
    char text[128];
    if (!gpu->is_dead)
        log_error(NULL, "GPU %d: %s gave %s; it is not used any more", gpu->device, call,
                  cuda_driver_text(gpu->driver, result, text));
    gpu->is_dead = true;
    return ERR_SYSTEM;
}

static enum error things_make(struct gpu *gpu, const void *image)
{
    const struct cuda_driver *call = gpu->driver;
    enum error error = gpu_checked(gpu, call->context_retain(&gpu->context, gpu->device), "cuDevicePrimaryCtxRetain");
    gpu->is_held = error == ERR_NONE;
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->context_set(gpu->context), "cuCtxSetCurrent");
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->module_load(&gpu->module, image), "cuModuleLoadData");
    for (size_t i = 0; i < GPU_STREAMS && error == ERR_NONE; i++)
        error = gpu_checked(gpu, call->stream_create(&gpu->stream[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->event_create(&gpu->done, CU_EVENT_UNTIMED), "cuEventCreate");
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->event_create(&gpu->start, CU_EVENT_TIMED), "cuEventCreate");
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->event_create(&gpu->end, CU_EVENT_TIMED), "cuEventCreate");
    for (size_t i = 0; i < GPU_STREAMS * 2 && error == ERR_NONE; i++)
        error = gpu_checked(gpu, call->event_create(&gpu->pace[i / 2][i % 2], CU_EVENT_UNTIMED), "cuEventCreate");
    if (error == ERR_NONE)
        error = gpu_checked(gpu, call->host_alloc(&gpu->staging, GPU_STAGING_BYTES, 0), "cuMemHostAlloc");
    return error;
}

enum error gpu_open(const struct cuda_driver *driver, unsigned index, const void *image, struct gpu *ret)
{
    struct gpu gpu = {.driver = driver, .wait_limit_ns = GPU_WAIT_LIMIT_NS};
    int count = 0;
    enum error error = gpu_checked(&gpu, driver->device_count(&count), "cuDeviceGetCount");
    if (error != ERR_NONE)
        return error;
    if (count < 0 || index >= (unsigned)count)
        return ERR_NOT_FOUND;
    error = gpu_checked(&gpu, driver->device_get(&gpu.device, (int)index), "cuDeviceGet");
    if (error == ERR_NONE)
        error = things_make(&gpu, image);
    if (error == ERR_NONE)
        *ret = gpu;
    else
        gpu_close(&gpu);
    return error;
}

void gpu_close(struct gpu *gpu)
{
    const struct cuda_driver *call = gpu->driver;
    cu_event events[] = {gpu->done,       gpu->start,      gpu->end,       gpu->pace[0][0],
                         gpu->pace[0][1], gpu->pace[1][0], gpu->pace[1][1]};
    if (call == NULL)
        return;
    if (!gpu->is_hung && gpu->is_held) {
        (void)call->context_set(gpu->context);
        if (gpu->staging != NULL)
            (void)call->host_free(gpu->staging);
        for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
            if (events[i] != NULL)
                (void)call->event_destroy(events[i]);
        for (size_t i = 0; i < GPU_STREAMS; i++)
            if (gpu->stream[i] != NULL)
                (void)call->stream_destroy(gpu->stream[i]);
        if (gpu->module != NULL)
            (void)call->module_unload(gpu->module);
        (void)call->context_set(NULL);
        (void)call->context_release(gpu->device);
    }
    *gpu = (struct gpu){0};
}

enum error gpu_enter(struct gpu *gpu)
{
    if (gpu->is_dead || gpu->driver == NULL) /* or never opened */
        return ERR_SYSTEM;
    return gpu_checked(gpu, gpu->driver->context_set(gpu->context), "cuCtxSetCurrent");
}

enum error gpu_alloc(struct gpu *gpu, size_t bytes, cu_pointer *ret)
{
    return gpu_checked(gpu, gpu->driver->memory_alloc(ret, bytes), "cuMemAlloc");
}

void gpu_free(struct gpu *gpu, cu_pointer *pointer)
{
    if (*pointer != 0 && !gpu->is_dead) {
        const enum error error = gpu_checked(gpu, gpu->driver->memory_free(*pointer), "cuMemFree");
        (void)error; /* noted in the GPU */
    }
    *pointer = 0;
}

enum error gpu_kernel(struct gpu *gpu, const char *name, cu_function *ret)
{
    return gpu_checked(gpu, gpu->driver->module_function(ret, gpu->module, name), name);
}

/* cuStreamSynchronize would wait for ever for a device that hangs, so the event is polled. */
static enum error event_await(struct gpu *gpu, cu_event event)
{
    const int64_t start_ns = clock_mono_ns();
    for (;;) {
        const cu_result result = gpu->driver->event_query(event);
        if (result != CU_NOT_READY)
            return gpu_checked(gpu, result, "cuEventQuery");
        const int64_t waited_ns = clock_mono_ns() - start_ns;
        if (waited_ns > gpu->wait_limit_ns) {
            gpu_give_up(gpu, "it did not finish its work in time");
            gpu->is_hung = true;
            return ERR_SYSTEM;
        }
        if (waited_ns < SPIN_NS)
            (void)sched_yield();
        else
            (void)nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

static enum error pace(struct gpu *gpu, size_t stream)
{
    const unsigned lot = ++gpu->launches[stream] / GPU_PACE;
    if (gpu->launches[stream] % GPU_PACE != 0)
        return ERR_NONE;
    enum error error =
        gpu_checked(gpu, gpu->driver->event_record(gpu->pace[stream][lot % 2], gpu->stream[stream]), "cuEventRecord");
    return error == ERR_NONE && lot > 1 ? event_await(gpu, gpu->pace[stream][(lot + 1) % 2]) : error;
}

enum error gpu_launch(struct gpu *gpu, cu_function kernel, const char *name, struct gpu_grid grid, size_t stream,
                      void *parameters)
{
    if (gpu->is_dead)
        return ERR_SYSTEM;
    assert(grid.blocks > 0 && grid.threads > 0);
    const enum error error =
        gpu_checked(gpu,
                    gpu->driver->launch(kernel, grid.blocks, 1, 1, grid.threads, 1, 1, grid.shared_bytes,
                                        gpu->stream[stream], (void *[]){parameters}, NULL),
                    name);
    return error == ERR_NONE ? pace(gpu, stream) : error;
}

enum error gpu_wait(struct gpu *gpu, cu_stream stream)
{
    if (gpu->is_dead)
        return ERR_SYSTEM;
    const enum error error = gpu_checked(gpu, gpu->driver->event_record(gpu->done, stream), "cuEventRecord");
    return error != ERR_NONE ? error : event_await(gpu, gpu->done);
}

enum error gpu_order(struct gpu *gpu, cu_stream first, cu_stream after)
{
    if (gpu->is_dead)
        return ERR_SYSTEM;
    const enum error error = gpu_checked(gpu, gpu->driver->event_record(gpu->done, first), "cuEventRecord");
    return error != ERR_NONE ? error
                             : gpu_checked(gpu, gpu->driver->stream_wait(after, gpu->done, 0), "cuStreamWaitEvent");
}

enum error gpu_read(struct gpu *gpu, void *to, cu_pointer from, size_t bytes)
{
    enum error error = gpu->is_dead ? ERR_SYSTEM : ERR_NONE;
    for (size_t done = 0; done < bytes && error == ERR_NONE;) {
        const size_t part = bytes - done < GPU_STAGING_BYTES ? bytes - done : GPU_STAGING_BYTES;
        error = gpu_checked(gpu, gpu->driver->copy_out(gpu->staging, from + done, part, gpu->stream[0]),
                            "cuMemcpyDtoHAsync");
        if (error == ERR_NONE)
            error = gpu_wait(gpu, gpu->stream[0]);
        if (error == ERR_NONE)
            memcpy((char *)to + done, gpu->staging, part);
        done += part;
    }
    return error;
}

enum error gpu_write(struct gpu *gpu, cu_pointer to, const void *from, size_t bytes)
{
    enum error error = gpu->is_dead ? ERR_SYSTEM : ERR_NONE;
    for (size_t done = 0; done < bytes && error == ERR_NONE;) {
        const size_t part = bytes - done < GPU_STAGING_BYTES ? bytes - done : GPU_STAGING_BYTES;
        memcpy(gpu->staging, (const char *)from + done, part);
        error =
            gpu_checked(gpu, gpu->driver->copy_in(to + done, gpu->staging, part, gpu->stream[0]), "cuMemcpyHtoDAsync");
        if (error == ERR_NONE)
            error = gpu_wait(gpu, gpu->stream[0]);
        done += part;
    }
    return error;
}

enum error gpu_read_buf(struct gpu *gpu, struct buf *to, cu_pointer from, size_t bytes)
{
    if (!buf_reserve(to, bytes))
        return ERR_NO_MEMORY;
    const enum error error = gpu_read(gpu, to->ptr + to->len, from, bytes);
    if (error == ERR_NONE)
        to->len += bytes;
    return error;
}

enum error gpu_clock_start(struct gpu *gpu)
{
    if (gpu->is_dead)
        return ERR_SYSTEM;
    return gpu_checked(gpu, gpu->driver->event_record(gpu->start, gpu->stream[0]), "cuEventRecord");
}

enum error gpu_clock_end(struct gpu *gpu, double *ret_seconds)
{
    float ms = 0;
    if (gpu->is_dead)
        return ERR_SYSTEM;
    enum error error = gpu_checked(gpu, gpu->driver->event_record(gpu->end, gpu->stream[0]), "cuEventRecord");
    if (error == ERR_NONE)
        error = event_await(gpu, gpu->end);
    if (error == ERR_NONE)
        error = gpu_checked(gpu, gpu->driver->event_elapsed(&ms, gpu->start, gpu->end), "cuEventElapsedTime");
    if (error == ERR_NONE)
        *ret_seconds = (double)ms / 1000;
    return error;
}
