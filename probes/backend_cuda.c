#include "core/clock.h"
#include "core/log.h"
#include "probes/backend_cuda_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KERNELS_FILE_MAX ((size_t)64 << 20)
#define WARM_NS (200 * NS_PER_MS)
#define CENSUS_CYCLES 20000 /* some 10 us: long enough for every multiprocessor to get a block */

#define KERNEL_ROW(name, parameters, threads, shared) {#name, threads, shared},
static const struct {
    const char *name;
    unsigned threads, shared_bytes;
} kernels[CUDA_KERNELS] = {PROBE_KERNELS(KERNEL_ROW)};

enum error cuda_queue(struct probe_backend *backend, enum cuda_kernel kernel, uint32_t blocks, size_t stream,
                      void *parameters)
{
    const struct gpu_grid grid = {
        .blocks = blocks, .threads = kernels[kernel].threads, .shared_bytes = kernels[kernel].shared_bytes};
    return gpu_launch(&backend->gpu, backend->kernel[kernel], kernels[kernel].name, grid, stream, parameters);
}

/* Kernels built elsewhere, for a probe built without nvcc; NULL: use the built-in ones. */
static const char *kernels_path(void)
{
    const char *path = secure_getenv("SLUICE_CUDA_KERNELS");
    return path != NULL && path[0] != 0 ? path : NULL;
}

/* For checks of every route: SLUICE_CUDA_ROUTE=dp4a, mma_s8 or cublaslt_s8. PROBE_ROUTE_COUNT: the fastest. */
static enum probe_route route_wanted(void)
{
    const char *name = secure_getenv("SLUICE_CUDA_ROUTE");
    static const enum probe_route routes[] = {PROBE_ROUTE_DP4A, PROBE_ROUTE_MMA_S8, PROBE_ROUTE_CUBLASLT_S8};
    for (size_t i = 0; i < sizeof routes / sizeof routes[0] && name != NULL; i++)
        if (strcmp(name, probe_route_name(routes[i])) == 0)
            return routes[i];
    return PROBE_ROUTE_COUNT;
}

/* The caller frees *ret. NUL-terminated, as PTX must be. */
static enum error kernels_read(const char *path, char **ret)
{
    struct stat stat;
    enum error error = ERR_SYSTEM;
    char *image = NULL;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return ERR_NOT_FOUND;
    if (fstat(fileno(file), &stat) != 0)
        goto out;
    error = ERR_TOO_LARGE;
    if (stat.st_size <= 0 || (uint64_t)stat.st_size > KERNELS_FILE_MAX)
        goto out;
    error = ERR_NO_MEMORY;
    image = calloc(1, (size_t)stat.st_size + 1);
    if (image == NULL)
        goto out;
    error = fread(image, 1, (size_t)stat.st_size, file) == (size_t)stat.st_size ? ERR_NONE : ERR_SYSTEM;
out:
    (void)fclose(file);
    if (error == ERR_NONE)
        *ret = image;
    else
        free(image);
    return error;
}

static unsigned cuda_count(void)
{
    if (probe_fatbin_len == 0 && kernels_path() == NULL)
        return 0;
    const struct cuda_driver *driver = cuda_driver_get();
    int count = 0;
    if (driver == NULL || driver->device_count(&count) != CU_OK || count < 0)
        return 0;
    return (unsigned)count < PROBE_DEVICES_MAX ? (unsigned)count : PROBE_DEVICES_MAX;
}

static uint32_t attribute(const struct probe_backend *backend, int which)
{
    int value = 0;
    const cu_result result = backend->gpu.driver->device_attribute(&value, which, backend->gpu.device);
    return result == CU_OK && value > 0 ? (uint32_t)value : 0;
}

static enum error kernels_find(struct probe_backend *backend)
{
    enum error error = ERR_NONE;
    for (size_t i = 0; i < CUDA_KERNELS && error == ERR_NONE; i++) {
        error = gpu_kernel(&backend->gpu, kernels[i].name, &backend->kernel[i]);
        if (error == ERR_NONE && kernels[i].shared_bytes > 48 * 1024 &&
            kernels[i].shared_bytes <= attribute(backend, CU_ATTRIBUTE_SHARED_BYTES_MAX))
            error = gpu_checked(&backend->gpu,
                                backend->gpu.driver->function_attribute(
                                    backend->kernel[i], CU_FUNCTION_DYNAMIC_SHARED_MAX, (int)kernels[i].shared_bytes),
                                "cuFuncSetAttribute");
    }
    return error;
}

static struct probe_backend *cuda_close(struct probe_backend *backend)
{
    if (backend == NULL)
        return NULL;
    if (gpu_enter(&backend->gpu) == ERR_NONE) {
        cuda_tiles_free(backend);
        cuda_chain_free(backend);
    }
    cuda_routes_free(backend);
    backend->blas = backend->gpu.is_hung ? cublaslt_abandon(backend->blas) : cublaslt_close(backend->blas);
    gpu_close(&backend->gpu);
    backend->nvml = nvml_close(backend->nvml);
    free(backend);
    return NULL;
}

static enum error cuda_open(unsigned index, struct probe_backend **ret)
{
    if (index >= cuda_count())
        return ERR_NOT_FOUND;
    char *image = NULL, pci[32] = "";
    const char *path = kernels_path();
    enum error error = path != NULL ? kernels_read(path, &image) : ERR_NONE;
    if (error != ERR_NONE) {
        log_error(NULL, "CUDA kernels of %s: %s", path, error_text(error));
        return error;
    }
    struct probe_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) {
        free(image);
        return ERR_NO_MEMORY;
    }
    const struct cuda_driver *driver = cuda_driver_get();
    error = gpu_open(driver, index, image != NULL ? (const void *)image : (const void *)probe_fatbin, &backend->gpu);
    free(image);
    if (error == ERR_NONE)
        error = kernels_find(backend);
    if (error != ERR_NONE) {
        (void)cuda_close(backend);
        return error;
    }
    const uint32_t major = attribute(backend, CU_ATTRIBUTE_CC_MAJOR), minor = attribute(backend, CU_ATTRIBUTE_CC_MINOR);
    backend->sms = attribute(backend, CU_ATTRIBUTE_SMS);
    backend->sms = backend->sms > 0 ? backend->sms : 1;
    backend->own_route = major >= 8 ? PROBE_ROUTE_MMA_S8 : PROBE_ROUTE_DP4A;
    backend->wanted = route_wanted();
    if (backend->wanted == PROBE_ROUTE_DP4A || backend->wanted == PROBE_ROUTE_MMA_S8)
        backend->own_route = backend->wanted;
    backend->preferred = backend->own_route;
    backend->cc_major = (uint8_t)major;
    backend->cc_minor = (uint8_t)minor;
    backend->nvml = nvml_open();
    if (backend->nvml != NULL && driver->device_pci(pci, (int)sizeof pci, backend->gpu.device) == CU_OK)
        backend->nvml_device = nvml_find(backend->nvml, pci);
    backend->blas = cublaslt_open();
    *ret = backend;
    return ERR_NONE;
}

/* -- claim -- */

/* How many different multiprocessors ran a block: what a claim of fewer or more has to answer to. */
static uint32_t census(struct probe_backend *backend)
{
    uint32_t seen[32] = {0}, count = 0;
    cu_pointer at = 0;
    struct gpu *gpu = &backend->gpu;
    if (gpu_enter(gpu) != ERR_NONE || gpu_alloc(gpu, sizeof seen, &at) != ERR_NONE)
        return 0;
    struct kernel_smids parameters = {.seen_at = at, .cycles = CENSUS_CYCLES};
    enum error error = gpu_write(gpu, at, seen, sizeof seen);
    if (error == ERR_NONE)
        error = cuda_queue(backend, CUDA_probe_smids, backend->sms * 4, 0, &parameters);
    if (error == ERR_NONE)
        error = gpu_read(gpu, seen, at, sizeof seen);
    gpu_free(gpu, &at);
    for (size_t i = 0; i < sizeof seen / sizeof seen[0] && error == ERR_NONE; i++)
        count += (uint32_t)__builtin_popcount(seen[i]);
    return count;
}

static void driver_version(const struct probe_backend *backend, const struct nvml_facts *facts, char *ret, size_t size)
{
    int version = 0;
    if (facts->driver[0] != 0)
        (void)snprintf(ret, size, "%.*s", (int)size - 1, facts->driver);
    else if (backend->gpu.driver->driver_version(&version) == CU_OK && version > 0)
        (void)snprintf(ret, size, "CUDA %d.%d", version / 1000, version % 1000 / 10);
}

static void cuda_claim(struct probe_backend *backend, struct probe_claim *ret)
{
    struct probe_claim claim = {0};
    struct nvml_facts facts = {0};
    const struct cuda_driver *call = backend->gpu.driver;
    const cu_device device = backend->gpu.device;
    size_t memory = 0, free_bytes = 0, total = 0;
    if (backend->nvml_device != NULL)
        nvml_facts(backend->nvml, backend->nvml_device, &facts);
    if (call->device_name(claim.name, (int)sizeof claim.name, device) != CU_OK)
        claim.name[0] = 0;
    claim.name[sizeof claim.name - 1] = 0;
    if (call->device_uuid(claim.uuid, device) != CU_OK)
        memset(claim.uuid, 0, sizeof claim.uuid);
    if (call->device_memory(&memory, device) == CU_OK)
        claim.vram_bytes = memory;
    if (gpu_enter(&backend->gpu) == ERR_NONE && call->memory_info(&free_bytes, &total) == CU_OK)
        claim.free_bytes = free_bytes;
    driver_version(backend, &facts, claim.driver, sizeof claim.driver);
    const uint32_t bits = attribute(backend, CU_ATTRIBUTE_BUS_BITS);
    const uint32_t sm_mhz = attribute(backend, CU_ATTRIBUTE_CLOCK_KHZ) / 1000;
    const uint32_t memory_mhz = attribute(backend, CU_ATTRIBUTE_MEMORY_CLOCK_KHZ) / 1000;
    claim.pci_vendor = facts.pci_vendor;
    claim.pci_device = facts.pci_device;
    claim.pci_subsystem = facts.pci_subsystem;
    claim.l2_bytes = attribute(backend, CU_ATTRIBUTE_L2_BYTES);
    claim.sms = backend->sms;
    claim.smids_seen = census(backend);
    claim.bus_bits = facts.bus_bits != 0 ? facts.bus_bits : bits;
    claim.clock_sm_mhz = facts.clock_sm_max_mhz != 0 ? facts.clock_sm_max_mhz : sm_mhz;
    claim.clock_memory_mhz = facts.clock_memory_max_mhz != 0 ? facts.clock_memory_max_mhz : memory_mhz;
    claim.cc_major = backend->cc_major;
    claim.cc_minor = backend->cc_minor;
    claim.ecc = facts.has_ecc ? facts.ecc : attribute(backend, CU_ATTRIBUTE_ECC) != 0;
    claim.mig = facts.mig;
    *ret = claim;
}

/* -- the rest of what a backend does -- */

static void cuda_release(struct probe_backend *backend)
{
    if (gpu_enter(&backend->gpu) != ERR_NONE)
        return; /* dead: nothing is given back any more */
    cuda_tiles_free(backend);
    cuda_chain_free(backend);
}

/* Each kernel once, so that none is set up while the gateway's clock runs. */
static enum error kernels_touch(struct probe_backend *backend)
{
    const struct probe_fill fill = {.tiles = 33, .double_rounds = 1}; /* two subtrees, so that a tree is made */
    const struct probe_pass pass = {.passes = 1};
    const struct probe_walk walk = {.walkers = 8, .steps = 1};
    const struct probe_chain chain = {.n = 64, .blocks = 1, .steps = 1};
    uint32_t roots[PROBE_PASSES_MAX][8];
    enum probe_route route;
    enum error error = cuda_fill(backend, &fill);
    if (error == ERR_NONE)
        error = cuda_pass(backend, &pass, roots);
    if (error == ERR_NONE)
        error = cuda_walk(backend, &walk, roots[0]);
    if (error == ERR_NONE)
        error = cuda_chain_run(backend, &chain, roots[0], &route);
    return error;
}

static enum error cuda_warm(struct probe_backend *backend)
{
    double tops = 0;
    enum error error = gpu_enter(&backend->gpu);
    if (error != ERR_NONE)
        return error;
    cuda_release(backend);
    if (backend->tuned_n == 0) {
        error = kernels_touch(backend);
        if (error == ERR_NONE)
            error = cuda_chain_tune(backend);
    }
    if (error == ERR_NONE && backend->cc_major >= 8)
        error = cuda_load(backend, KERNEL_RATE_INT8, WARM_NS, &tops);
    const int64_t end_ns = clock_mono_ns() + WARM_NS;
    while (error == ERR_NONE && backend->cc_major < 8 && clock_mono_ns() < end_ns) /* no such instruction there */
        error = cuda_chain_rate(backend, backend->tuned_n, backend->tuned_blocks, 1, &tops);
    cuda_release(backend);
    return error;
}

static uint32_t cuda_clock_mhz(struct probe_backend *backend)
{
    return backend->nvml_device != NULL ? nvml_clock_sm_mhz(backend->nvml, backend->nvml_device) : 0;
}

void cuda_backend_wait_limit(struct probe_backend *backend, int64_t limit_ns)
{
    backend->gpu.wait_limit_ns = limit_ns;
}

const struct probe_backend_ops probe_backend_cuda = {
    .name = "cuda",
    .count = cuda_count,
    .open = cuda_open,
    .close = cuda_close,
    .claim = cuda_claim,
    .warm = cuda_warm,
    .fill = cuda_fill,
    .pass = cuda_pass,
    .pass_open = cuda_pass_open,
    .walk = cuda_walk,
    .walk_open = cuda_walk_open,
    .tile_read = cuda_tile_read,
    .chain = cuda_chain_run,
    .chain_open = cuda_chain_open,
    .release = cuda_release,
    .clock_mhz = cuda_clock_mhz,
    .bench = cuda_bench,
};
