#include "tests/fake_cuda/fake_cuda.h"

#include "probes/cuda/kernels.h"
#include "tests/cuda_emu/emu.h"

#include <stdbool.h>
#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NO_DEVICE = 100, NO_FUNCTION = 500, NOT_READY = 600, LAUNCH_FAILED = 719 };
enum { PARAMETERS_MAX = 256, STREAMS_MAX = 8, ALLOCATIONS_MAX = 256, MADE_MAX = 4096 };

enum op_kind { OP_LAUNCH, OP_COPY, OP_SET, OP_RECORD, OP_WAIT, OP_PRODUCT };
struct event {
    uint64_t asked, done; /* how often recorded; the last one that was reached */
    int64_t at_ns;
};
struct op {
    enum op_kind kind;
    const char *kernel;
    unsigned grid, threads, shared_bytes;
    _Alignas(16) unsigned char parameters[PARAMETERS_MAX];
    void *to;
    const void *from;
    size_t bytes;
    int value;
    struct event *event;
    uint64_t event_at;
    struct fake_product product;
};
struct stream {
    struct op *ops;
    size_t next, count, cap;
};

#define ROW(name, parameters, threads, shared) {#name, sizeof(parameters)},
static const struct kernel_row {
    const char *name;
    size_t bytes;
} kernels[] = {PROBE_KERNELS(ROW)};

static struct {
    int devices, sms, cc, machine;
    uint64_t memory, real, used;
    bool is_reversed, is_failed, is_hung;
    long fail_at, hang_at;
    char name[64], flipped[64];
    struct stream *streams[STREAMS_MAX];
    struct {
        void *at;
        size_t bytes;
    } allocations[ALLOCATIONS_MAX];
    void *made[MADE_MAX];
    struct fake_cuda_live live;
} fake;

static pthread_mutex_t mutex;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_mutex(void)
{
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &kind);
    pthread_mutexattr_destroy(&kind);
}

int fake_lock(void)
{
    pthread_once(&once, make_mutex);
    return pthread_mutex_lock(&mutex);
}

void fake_unlock(const int *held)
{
    (void)held;
    pthread_mutex_unlock(&mutex);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != 0 ? strtoull(text, NULL, 10) : otherwise;
}

static int64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* What a program that gave a device up never frees stays reachable here, so that leak checkers tell its leaks only. */
void *fake_keep(void *made)
{
    LOCKED;
    for (size_t i = 0; i < MADE_MAX && made != NULL; i++)
        if (fake.made[i] == NULL) {
            fake.made[i] = made;
            break;
        }
    return made;
}

void fake_drop(void *made)
{
    LOCKED;
    for (size_t i = 0; i < MADE_MAX; i++)
        if (fake.made[i] == made)
            fake.made[i] = NULL;
    free(made);
}

static int state(void)
{
    return fake.is_failed ? LAUNCH_FAILED : OK;
}

void fake_cuda_live(struct fake_cuda_live *ret)
{
    LOCKED;
    *ret = fake.live;
}

void fake_descriptors(int more)
{
    LOCKED;
    fake.live.descriptors += (unsigned)more;
}

/* -- what runs -- */

static void product_run(const struct fake_product *p)
{
    for (uint32_t batch = 0; batch < p->batch; batch++)
        for (uint32_t column = 0; column < p->n; column++)
            for (uint32_t row = 0; row < p->m; row++) {
                const int8_t *a = p->a + (size_t)row * p->k;
                const int8_t *b = p->b + (int64_t)batch * p->b_stride + (int64_t)column * p->k;
                int32_t sum = 0;
                for (uint32_t i = 0; i < p->k; i++)
                    sum += a[i] * b[i];
                p->c[(int64_t)batch * p->c_stride + (int64_t)column * p->m + row] = sum;
            }
}

/* False: it waits for an event that is not there yet. */
static bool op_run(struct op *op)
{
    switch (op->kind) {
    case OP_LAUNCH:
        if (emu_launch(op->kernel, (void *[]){op->parameters}, op->grid, op->threads, op->shared_bytes) != 0)
            fake.is_failed = true;
        if (strcmp(op->kernel, fake.flipped) == 0) {
            unsigned char *first;
            memcpy(&first, op->parameters, sizeof first);
            first[0] ^= 1;
        }
        break;
    case OP_COPY:
        memcpy(op->to, op->from, op->bytes);
        break;
    case OP_SET:
        memset(op->to, op->value, op->bytes);
        break;
    case OP_RECORD:
        op->event->at_ns = now_ns();
        op->event->done = op->event_at;
        break;
    case OP_WAIT:
        return op->event->done >= op->event_at;
    case OP_PRODUCT:
        product_run(&op->product);
        break;
    }
    return true;
}

/* One stream as far as it may, then the next, until nothing more can run. */
static void run_all(void)
{
    for (bool is_moving = true; is_moving && !fake.is_hung;) {
        is_moving = false;
        for (size_t i = 0; i < STREAMS_MAX; i++) {
            struct stream *stream = fake.streams[fake.is_reversed ? STREAMS_MAX - 1 - i : i];
            while (stream != NULL && stream->next < stream->count && op_run(&stream->ops[stream->next])) {
                stream->next++;
                is_moving = true;
            }
            if (stream != NULL && stream->next == stream->count)
                stream->next = stream->count = 0;
        }
    }
}

static int queue(void *handle, const struct op *op)
{
    struct stream *stream = handle;
    if (stream == NULL)
        return INVALID;
    if (stream->count == stream->cap) {
        const size_t cap = stream->cap ? 2 * stream->cap : 64;
        struct op *ops = realloc(stream->ops, cap * sizeof *ops);
        if (ops == NULL)
            return NO_MEMORY;
        stream->ops = ops;
        stream->cap = cap;
    }
    stream->ops[stream->count++] = *op;
    return state();
}

int fake_queue_product(void *stream, const struct fake_product *product)
{
    LOCKED;
    fake.live.products++;
    return queue(stream, &(struct op){.kind = OP_PRODUCT, .product = *product});
}

/* A new machine: what a failed one held stays where it is, for whoever still has it. */
static void forget(void)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        (void)fake_keep(fake.streams[i]);
        fake.streams[i] = NULL;
    }
    for (size_t i = 0; i < ALLOCATIONS_MAX; i++) {
        (void)fake_keep(fake.allocations[i].at);
        fake.allocations[i].at = NULL;
    }
    fake.live = (struct fake_cuda_live){0};
}

/* -- the driver's calls; names and parameters are cuda.h's -- */

int cuInit(unsigned flags)
{
    LOCKED;
    const char *name = getenv("FAKE_CUDA_NAME"), *flipped = getenv("FAKE_CUDA_FLIP");
    (void)flags;
    fake.devices = (int)number("FAKE_CUDA_DEVICES", 1);
    fake.sms = (int)number("FAKE_CUDA_SMS", 4);
    fake.cc = (int)number("FAKE_CUDA_CC", 90);
    fake.machine = (int)number("FAKE_CUDA_MACHINE", 1);
    fake.memory = number("FAKE_CUDA_MEMORY", (uint64_t)64 << 20);
    fake.used = number("FAKE_CUDA_USED", 0);
    fake.real = number("FAKE_CUDA_REAL", fake.memory) - fake.used;
    fake.fail_at = (long)number("FAKE_CUDA_FAIL", 0);
    fake.hang_at = (long)number("FAKE_CUDA_HANG", 0);
    fake.is_reversed = number("FAKE_CUDA_ORDER", 0) == 1;
    if (fake.is_hung || fake.is_failed)
        forget();
    fake.is_failed = fake.is_hung = false;
    fake.live.launches = fake.live.products = 0;
    (void)snprintf(fake.flipped, sizeof fake.flipped, "%s", flipped != NULL ? flipped : "");
    (void)snprintf(fake.name, sizeof fake.name, "%s", name != NULL ? name : "NVIDIA Fake");
    return fake.devices > 0 ? OK : NO_DEVICE;
}

int cuDriverGetVersion(int *ret)
{
    LOCKED;
    *ret = 12080;
    return OK;
}

int cuGetErrorName(int result, const char **ret)
{
    LOCKED;
    *ret = result == OK              ? "CUDA_SUCCESS"
           : result == NO_MEMORY     ? "CUDA_ERROR_OUT_OF_MEMORY"
           : result == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED"
                                     : NULL;
    return *ret != NULL ? OK : INVALID;
}

int cuGetErrorString(int result, const char **ret)
{
    LOCKED;
    *ret = result == LAUNCH_FAILED ? "unspecified launch failure" : NULL;
    return *ret != NULL ? OK : INVALID;
}

int cuDeviceGetCount(int *ret)
{
    LOCKED;
    *ret = fake.devices;
    return OK;
}

int cuDeviceGet(int *ret, int ordinal)
{
    LOCKED;
    *ret = ordinal;
    return ordinal >= 0 && ordinal < fake.devices ? OK : INVALID;
}

int cuDeviceGetName(char *ret, int size, int device)
{
    LOCKED;
    (void)device;
    (void)snprintf(ret, (size_t)size, "%s", fake.name);
    return OK;
}

int cuDeviceGetUuid(unsigned char ret[16], int device)
{
    LOCKED;
    for (int i = 0; i < 16; i++)
        ret[i] = (unsigned char)(0xa0 + i + device);
    ret[0] = (unsigned char)fake.machine;
    return OK;
}

int cuDeviceGetAttribute(int *ret, int attribute, int device)
{
    LOCKED;
    (void)device;
    switch (attribute) {
    case 13:
        *ret = 1980000;
        break;
    case 16:
        *ret = fake.sms;
        break;
    case 32:
        *ret = 1;
        break;
    case 36:
        *ret = 2619000;
        break;
    case 37:
        *ret = 5120;
        break;
    case 38:
        *ret = 50 << 20;
        break;
    case 75:
        *ret = fake.cc / 10;
        break;
    case 76:
        *ret = fake.cc % 10;
        break;
    case 97:
        *ret = 232448;
        break;
    default:
        return INVALID;
    }
    return OK;
}

int cuDeviceTotalMem_v2(size_t *ret, int device)
{
    LOCKED;
    (void)device;
    *ret = fake.memory;
    return OK;
}

int cuDeviceGetPCIBusId(char *ret, int size, int device)
{
    LOCKED;
    (void)snprintf(ret, (size_t)size, "0000:%02x:00.0", 0x1b + device);
    return OK;
}

int cuDevicePrimaryCtxRetain(void **ret, int device)
{
    LOCKED;
    (void)device;
    *ret = &fake;
    fake.live.contexts++;
    return state();
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    LOCKED;
    (void)device;
    fake.live.contexts--;
    return state();
}

int cuCtxSetCurrent(void *context)
{
    LOCKED;
    (void)context;
    return state();
}

int cuModuleLoadData(void **ret, const void *image)
{
    LOCKED;
    *ret = &fake;
    fake.live.modules++;
    return image != NULL ? state() : INVALID;
}

int cuModuleUnload(void *module)
{
    LOCKED;
    (void)module;
    fake.live.modules--;
    return state();
}

int cuModuleGetFunction(void **ret, void *module, const char *name)
{
    LOCKED;
    (void)module;
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++)
        if (strcmp(kernels[i].name, name) == 0) {
            *ret = (void *)(uintptr_t)&kernels[i];
            return OK;
        }
    return NO_FUNCTION;
}

int cuFuncSetAttribute(void *function, int attribute, int value)
{
    LOCKED;
    (void)function;
    return attribute == 8 && value > 48 * 1024 ? OK : INVALID;
}

int cuMemGetInfo_v2(size_t *ret_free, size_t *ret_total)
{
    LOCKED;
    *ret_total = fake.memory;
    uint64_t taken = fake.live.bytes + fake.used;
    *ret_free = fake.memory > taken ? fake.memory - taken : 0;
    return state();
}

int cuMemAlloc_v2(uint64_t *ret, size_t bytes)
{
    LOCKED;
    if (fake.is_failed)
        return LAUNCH_FAILED;
    if (bytes == 0)
        return INVALID;
    if (bytes > fake.real || fake.live.bytes > fake.real - bytes)
        return NO_MEMORY;
    for (size_t i = 0; i < ALLOCATIONS_MAX; i++)
        if (fake.allocations[i].at == NULL) {
            void *at = aligned_alloc(256, (bytes + 255) / 256 * 256);
            if (at == NULL)
                return NO_MEMORY;
            memset(at, 0xcd, bytes);
            fake.allocations[i].at = at;
            fake.allocations[i].bytes = bytes;
            fake.live.allocations++;
            fake.live.bytes += bytes;
            *ret = (uint64_t)(uintptr_t)at;
            return OK;
        }
    return NO_MEMORY;
}

int cuMemFree_v2(uint64_t pointer)
{
    LOCKED;
    if (fake.is_failed)
        return LAUNCH_FAILED;
    run_all(); /* it waits for the device */
    for (size_t i = 0; i < ALLOCATIONS_MAX; i++)
        if (fake.allocations[i].at == (void *)(uintptr_t)pointer && pointer != 0) {
            free(fake.allocations[i].at);
            fake.live.allocations--;
            fake.live.bytes -= fake.allocations[i].bytes;
            fake.allocations[i].at = NULL;
            return OK;
        }
    return INVALID;
}

int cuMemHostAlloc(void **ret, size_t bytes, unsigned flags)
{
    LOCKED;
    (void)flags;
    *ret = fake_keep(malloc(bytes));
    if (*ret == NULL)
        return NO_MEMORY;
    fake.live.pinned++;
    return state();
}

int cuMemFreeHost(void *pointer)
{
    LOCKED;
    run_all();
    fake_drop(pointer);
    fake.live.pinned--;
    return state();
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream)
{
    LOCKED;
    return queue(stream, &(struct op){.kind = OP_COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes});
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream)
{
    LOCKED;
    return queue(stream, &(struct op){.kind = OP_COPY, .to = to, .from = (void *)(uintptr_t)from, .bytes = bytes});
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *stream)
{
    LOCKED;
    return queue(stream, &(struct op){.kind = OP_SET, .to = (void *)(uintptr_t)to, .value = value, .bytes = bytes});
}

int cuStreamCreate(void **ret, unsigned flags)
{
    LOCKED;
    (void)flags;
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (fake.streams[i] == NULL) {
            *ret = fake.streams[i] = calloc(1, sizeof(struct stream));
            fake.live.streams++;
            return *ret != NULL ? state() : NO_MEMORY;
        }
    return NO_MEMORY;
}

int cuStreamDestroy_v2(void *handle)
{
    LOCKED;
    struct stream *stream = handle;
    run_all();
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (fake.streams[i] == stream)
            fake.streams[i] = NULL;
    free(stream->ops);
    free(stream);
    fake.live.streams--;
    return state();
}

int cuStreamWaitEvent(void *stream, void *handle, unsigned flags)
{
    LOCKED;
    struct event *event = handle;
    (void)flags;
    return queue(stream, &(struct op){.kind = OP_WAIT, .event = event, .event_at = event->asked});
}

int cuEventCreate(void **ret, unsigned flags)
{
    LOCKED;
    (void)flags;
    *ret = fake_keep(calloc(1, sizeof(struct event)));
    fake.live.events++;
    return *ret != NULL ? state() : NO_MEMORY;
}

int cuEventDestroy_v2(void *event)
{
    LOCKED;
    run_all();
    fake_drop(event);
    fake.live.events--;
    return state();
}

int cuEventRecord(void *handle, void *stream)
{
    LOCKED;
    struct event *event = handle;
    event->asked++;
    return queue(stream, &(struct op){.kind = OP_RECORD, .event = event, .event_at = event->asked});
}

int cuEventQuery(void *handle)
{
    LOCKED;
    const struct event *event = handle;
    if (event->done < event->asked)
        run_all();
    return fake.is_failed ? LAUNCH_FAILED : event->done < event->asked ? NOT_READY : OK;
}

int cuEventElapsedTime(float *ret_ms, void *start, void *end)
{
    LOCKED;
    const struct event *from = start, *to = end;
    *ret_ms = (float)((double)(to->at_ns - from->at_ns) / 1e6);
    return state();
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **parameters,
                   void **extra)
{
    LOCKED;
    const struct kernel_row *kernel = function;
    struct op op = {
        .kind = OP_LAUNCH, .kernel = kernel->name, .grid = grid_x, .threads = block_x, .shared_bytes = shared_bytes};
    if (fake.is_failed)
        return LAUNCH_FAILED;
    if (grid_x == 0 || grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1 || extra != NULL ||
        kernel->bytes > PARAMETERS_MAX)
        return INVALID;
    fake.live.launches++;
    if (fake.fail_at > 0 && --fake.fail_at == 0) {
        fake.is_failed = true;
        return LAUNCH_FAILED;
    }
    if (fake.hang_at > 0 && --fake.hang_at == 0)
        fake.is_hung = true;
    memcpy(op.parameters, parameters[0], kernel->bytes);
    return queue(stream, &op);
}
