#include "core/clock.h"
#include "core/log.h"
#include "probes/backend_cuda_priv.h"

#include <stdio.h>
#include <string.h>

#define READ_BYTES_MAX ((size_t)4 << 30)   /* far more than any L2 */
#define COPY_BYTES_MAX ((size_t)256 << 20) /* of pinned memory */
#define BF16_SIDE 8192u
#define LOAD_NS (50 * NS_PER_MS)
#define RUNS 5

enum { LAUNCH_NS = 5000000, ROUNDS_MAX = 1 << 24 };

static double operations_of(uint32_t kind, uint32_t rounds, uint32_t blocks)
{
    const double of_product = 2.0 * 16 * 8 * (kind == KERNEL_RATE_INT8 ? 32 : 16);
    return of_product * KERNEL_RATE_TILES * rounds * blocks * (256 / 32); /* eight warps in a block */
}

/* Launches grow until one takes some milliseconds, then go on until the time is up. */
static enum error rate_run(struct probe_backend *backend, uint32_t kind, int64_t for_ns, cu_pointer out,
                           double *ret_tops)
{
    const uint32_t blocks = backend->sms * KERNEL_RATE_PER_SM;
    struct kernel_rate parameters = {.out_at = out, .rounds = 4, .kind = kind};
    const int64_t start_ns = clock_mono_ns();
    double tops = 0;
    enum error error = ERR_NONE;
    while (error == ERR_NONE && clock_mono_ns() - start_ns < for_ns) {
        double seconds = 0;
        error = gpu_clock_start(&backend->gpu);
        if (error == ERR_NONE)
            error = cuda_queue(backend, CUDA_probe_rate, blocks, 0, &parameters);
        if (error == ERR_NONE)
            error = gpu_clock_end(&backend->gpu, &seconds);
        if (error == ERR_NONE && seconds > 0)
            tops = operations_of(kind, parameters.rounds, blocks) / seconds / 1e12;
        if (seconds * 1e9 < LAUNCH_NS && parameters.rounds < ROUNDS_MAX)
            parameters.rounds *= 2;
    }
    if (error == ERR_NONE)
        *ret_tops = tops;
    return error;
}

enum error cuda_load(struct probe_backend *backend, uint32_t kind, int64_t for_ns, double *ret_tops)
{
    cu_pointer out = 0;
    enum error error = gpu_enter(&backend->gpu);
    if (error == ERR_NONE)
        error = gpu_alloc(&backend->gpu, 256 * sizeof(uint32_t), &out);
    if (error == ERR_NONE)
        error = rate_run(backend, kind, for_ns, out, ret_tops);
    gpu_free(&backend->gpu, &out);
    return error;
}

static size_t free_bytes_now(struct probe_backend *backend)
{
    size_t free_bytes = 0, total = 0;
    return gpu_enter(&backend->gpu) == ERR_NONE && backend->gpu.driver->memory_info(&free_bytes, &total) == CU_OK
               ? free_bytes
               : 0;
}

/* The best of a few reads of a buffer that no cache holds. */
static enum error read_time(struct probe_backend *backend, size_t bytes, double *ret_gbps)
{
    struct gpu *gpu = &backend->gpu;
    cu_pointer at = 0, out = 0;
    double best_s = 0;
    enum error error = gpu_alloc(gpu, bytes, &at);
    if (error == ERR_NONE)
        error = gpu_alloc(gpu, 256, &out);
    if (error == ERR_NONE)
        error = gpu_checked(gpu, gpu->driver->memory_set(at, 0x5a, bytes, gpu->stream[0]), "cuMemsetD8Async");
    for (int run = 0; run <= RUNS && error == ERR_NONE; run++) {
        struct kernel_read parameters = {.in_at = at, .out_at = out, .bytes = bytes};
        double seconds = 0;
        error = gpu_clock_start(gpu);
        if (error == ERR_NONE)
            error = cuda_queue(backend, CUDA_probe_read, backend->sms * KERNEL_READ_PER_SM, 0, &parameters);
        if (error == ERR_NONE)
            error = gpu_clock_end(gpu, &seconds);
        if (run == 1 || (run > 1 && seconds < best_s))
            best_s = seconds;
    }
    if (error == ERR_NONE && best_s > 0)
        *ret_gbps = (double)bytes / best_s / 1e9;
    gpu_free(gpu, &at);
    gpu_free(gpu, &out);
    return error;
}

static enum error copy_time(struct gpu *gpu, cu_pointer device, void *host, size_t bytes, bool is_in, double *ret_gbps)
{
    double best_s = 0;
    enum error error = ERR_NONE;
    for (int run = 0; run <= RUNS && error == ERR_NONE; run++) {
        double seconds = 0;
        error = gpu_clock_start(gpu);
        if (error == ERR_NONE)
            error =
                is_in
                    ? gpu_checked(gpu, gpu->driver->copy_in(device, host, bytes, gpu->stream[0]), "cuMemcpyHtoDAsync")
                    : gpu_checked(gpu, gpu->driver->copy_out(host, device, bytes, gpu->stream[0]), "cuMemcpyDtoHAsync");
        if (error == ERR_NONE)
            error = gpu_clock_end(gpu, &seconds);
        if (run == 1 || (run > 1 && seconds < best_s))
            best_s = seconds;
    }
    if (error == ERR_NONE && best_s > 0)
        *ret_gbps = (double)bytes / best_s / 1e9;
    return error;
}

static enum error copies_time(struct probe_backend *backend, size_t bytes, double *ret_in, double *ret_out)
{
    struct gpu *gpu = &backend->gpu;
    cu_pointer device = 0;
    void *host = NULL;
    enum error error = gpu_alloc(gpu, bytes, &device);
    if (error == ERR_NONE)
        error = gpu_checked(gpu, gpu->driver->host_alloc(&host, bytes, 0), "cuMemHostAlloc");
    if (error == ERR_NONE) {
        memset(host, 0x5a, bytes);
        error = copy_time(gpu, device, host, bytes, true, ret_in);
    }
    if (error == ERR_NONE)
        error = copy_time(gpu, device, host, bytes, false, ret_out);
    if (host != NULL && !gpu->is_dead)
        (void)gpu->driver->host_free(host);
    gpu_free(gpu, &device);
    return error;
}

/* A large square product of the library; 0 where it has none or the memory does not suffice. */
static double bf16_library_tflops(struct probe_backend *backend)
{
    const size_t side = BF16_SIDE, in_bytes = side * side * 2;
    const struct gemm_shape shape = {.type = GEMM_BF16, .m = BF16_SIDE, .n = BF16_SIDE, .k = BF16_SIDE, .batch = 1};
    struct gpu *gpu = &backend->gpu;
    struct gemm gemm = {0};
    cu_pointer memory[4] = {0}; /* A, B, C, workspace */
    const size_t workspace_bytes = (size_t)32 << 20, bytes[4] = {in_bytes, in_bytes, 2 * in_bytes, workspace_bytes};
    double best_s = 0;
    if (backend->blas == NULL || gemm_plan(backend->blas, &shape, workspace_bytes, &gemm) != ERR_NONE)
        return 0;
    enum error error = ERR_NONE;
    for (size_t i = 0; i < 4 && error == ERR_NONE; i++)
        error = gpu_alloc(gpu, bytes[i], &memory[i]);
    for (size_t i = 0; i < 2 && error == ERR_NONE; i++) { /* random bits: power, and so clocks, depend on them */
        struct kernel_fill fill = {
            .tiles_at = memory[i], .first = i, .count = in_bytes / PROBE_TILE_BYTES, .double_rounds = 2};
        error = cuda_queue(backend, CUDA_probe_fill, backend->sms * KERNEL_FILL_PER_SM, 0, &fill);
    }
    for (unsigned run = 0; run < 2 * gemm.algorithms && error == ERR_NONE; run++) {
        double seconds = 0;
        error = gpu_clock_start(gpu);
        if (error == ERR_NONE)
            error = gemm_run(&gemm, run / 2, memory[0], memory[1], memory[2], memory[3], gpu->stream[0]);
        if (error == ERR_NONE)
            error = gpu_clock_end(gpu, &seconds);
        if (run % 2 == 1 && seconds > 0 && (best_s <= 0 || seconds < best_s))
            best_s = seconds;
    }
    for (size_t i = 0; i < 4; i++)
        gpu_free(gpu, &memory[i]);
    gemm_free(&gemm);
    return best_s > 0 ? 2.0 * BF16_SIDE * BF16_SIDE * BF16_SIDE / best_s / 1e12 : 0;
}

struct probe_bench cuda_bench(struct probe_backend *backend)
{
    struct probe_bench bench = {.free_bytes = free_bytes_now(backend),
                                .clock_idle_mhz = probe_backend_cuda.clock_mhz(backend)};
    enum error error = probe_backend_cuda.warm(backend);
    if (error == ERR_NONE && backend->cc_major >= 8)
        error = cuda_load(backend, KERNEL_RATE_BF16, LOAD_NS, &bench.bf16_tflops);
    bench.clock_load_mhz = probe_backend_cuda.clock_mhz(backend);
    if (error == ERR_NONE) {
        const double library = bf16_library_tflops(backend);
        bench.bf16_tflops = library > bench.bf16_tflops ? library : bench.bf16_tflops;
    }
    const size_t free_bytes = free_bytes_now(backend);
    const size_t read_bytes = free_bytes / 4 < READ_BYTES_MAX ? free_bytes / 4 : READ_BYTES_MAX;
    const size_t copy_bytes = free_bytes / 8 < COPY_BYTES_MAX ? free_bytes / 8 : COPY_BYTES_MAX;
    if (error == ERR_NONE && read_bytes >= 4096)
        error = read_time(backend, read_bytes / 4096 * 4096, &bench.memory_gbps);
    if (error == ERR_NONE && copy_bytes > 0)
        error = copies_time(backend, copy_bytes, &bench.h2d_gbps, &bench.d2h_gbps);
    if (error == ERR_NONE)
        error = cuda_chain_rate(backend, backend->tuned_n, backend->tuned_blocks, RUNS, &bench.int8_tops);
    if (error != ERR_NONE)
        log_warn(NULL, "the bench of GPU %d ended early: %s", backend->gpu.device, error_text(error));
    (void)snprintf(bench.route, sizeof bench.route, "%s", probe_route_name(backend->preferred));
    probe_backend_cuda.release(backend);
    return bench;
}
