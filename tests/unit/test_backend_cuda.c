/* The CUDA backend over the fake driver (tests/fake_cuda) must give the CPU backend's bits, and end well when the
 * device does not. */
#include "cmocka_all.h"

#include "core/clock.h"
#include "probes/backend_cuda_priv.h"
#include "tests/fake_cuda/fake_cuda.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "build/tests/fake_cuda/libfake_cuda.so"

static void (*live_now)(struct fake_cuda_live *);

static struct fake_cuda_live live(void)
{
    struct fake_cuda_live now;
    live_now(&now);
    return now;
}

/* -- a machine -- */

struct knob {
    const char *name, *value;
};
static const char *const knob_names[] = {
    "FAKE_CUDA_DEVICES",  "FAKE_CUDA_MEMORY",  "FAKE_CUDA_REAL",    "FAKE_CUDA_SMS",  "FAKE_CUDA_CC",
    "FAKE_CUDA_ORDER",    "FAKE_CUDA_FAIL",    "FAKE_CUDA_HANG",    "FAKE_CUDA_NAME", "SLUICE_LIBNVML",
    "SLUICE_LIBCUBLASLT", "SLUICE_CUDA_ROUTE", "FAKE_CUDA_NO_BATCH"};

/* A machine of that kind from now on. */
static void machine(const struct knob *knobs, size_t count)
{
    for (size_t i = 0; i < sizeof knob_names / sizeof knob_names[0]; i++)
        assert_int_equal(unsetenv(knob_names[i]), 0);
    assert_int_equal(setenv("SLUICE_LIBNVML", "/nonexistent", 1), 0);
    assert_int_equal(setenv("SLUICE_LIBCUBLASLT", "/nonexistent", 1), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(setenv(knobs[i].name, knobs[i].value, 1), 0);
    cuda_driver_set_library(LIBRARY);
}
#define MACHINE(...) \
    machine((const struct knob[]){__VA_ARGS__}, sizeof((const struct knob[]){__VA_ARGS__}) / sizeof(struct knob))

static struct probe_backend *opened(const struct probe_backend_ops *ops)
{
    struct probe_backend *backend = NULL;
    assert_int_equal(ops->open(0, &backend), ERR_NONE);
    return backend;
}

static const uint32_t challenge[4] = {1, 2, 3, 4}, worker_key[8] = {5, 6, 7, 8, 9, 10, 11, 12};

struct pair { /* the backend under test and the one that is right */
    struct probe_backend *cuda, *cpu;
};

static struct pair pair_open(void)
{
    return (struct pair){.cuda = opened(&probe_backend_cuda), .cpu = opened(&probe_backend_cpu)};
}

static void pair_close(struct pair pair)
{
    assert_null(probe_backend_cuda.close(pair.cuda));
    assert_null(probe_backend_cpu.close(pair.cpu));
    const struct fake_cuda_live now = live();
    assert_int_equal(
        now.allocations + now.pinned + now.streams + now.events + now.modules + now.contexts + now.descriptors, 0);
}

static void bytes_equal(struct buf *a, struct buf *b)
{
    assert_int_equal(a->len, b->len);
    if (a->len > 0)
        assert_memory_equal(a->ptr, b->ptr, a->len);
    buf_clear(a);
    buf_clear(b);
}

/* -- every operation against the CPU -- */

static void tiles_compare(struct pair pair, uint64_t tiles, uint32_t double_rounds, uint32_t passes, uint32_t walkers,
                          uint32_t steps)
{
    const struct probe_fill fill = {.seed = {tiles & 0xffffffffu, 7}, .tiles = tiles, .double_rounds = double_rounds};
    struct probe_pass pass = {.key = {3, 1, 4, 1, 5}, .passes = passes};
    struct probe_walk walk = {.key = {2, 7, 1, 8}, .walkers = walkers, .steps = steps};
    uint32_t roots[2][PROBE_PASSES_MAX][8], walked[2][8];
    struct buf of_cuda[2], of_cpu[2];
    memcpy(pass.challenge, challenge, sizeof challenge);
    memcpy(pass.worker_key, worker_key, sizeof worker_key);
    memcpy(walk.challenge, challenge, sizeof challenge);
    memcpy(walk.worker_key, worker_key, sizeof worker_key);
    for (size_t i = 0; i < 2; i++) {
        buf_init(&of_cuda[i], 0);
        buf_init(&of_cpu[i], 0);
    }
    assert_int_equal(probe_backend_cuda.fill(pair.cuda, &fill), ERR_NONE);
    assert_int_equal(probe_backend_cpu.fill(pair.cpu, &fill), ERR_NONE);
    assert_int_equal(probe_backend_cuda.pass(pair.cuda, &pass, roots[0]), ERR_NONE);
    assert_int_equal(probe_backend_cpu.pass(pair.cpu, &pass, roots[1]), ERR_NONE);
    assert_memory_equal(roots[0], roots[1], passes * sizeof roots[0][0]);
    const uint64_t some[] = {0, tiles / 2, tiles - 1, tiles / 3, tiles > 32 ? 31 : 0};
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        assert_int_equal(probe_backend_cuda.tile_read(pair.cuda, some[i], &of_cuda[0]), ERR_NONE);
        assert_int_equal(probe_backend_cpu.tile_read(pair.cpu, some[i], &of_cpu[0]), ERR_NONE);
        bytes_equal(&of_cuda[0], &of_cpu[0]);
        const uint32_t p = (uint32_t)i % passes;
        assert_int_equal(probe_backend_cuda.pass_open(pair.cuda, p, some[i], &of_cuda[0]), ERR_NONE);
        assert_int_equal(probe_backend_cpu.pass_open(pair.cpu, p, some[i], &of_cpu[0]), ERR_NONE);
        bytes_equal(&of_cuda[0], &of_cpu[0]);
    }
    assert_int_equal(probe_backend_cuda.walk(pair.cuda, &walk, walked[0]), ERR_NONE);
    assert_int_equal(probe_backend_cpu.walk(pair.cpu, &walk, walked[1]), ERR_NONE);
    assert_memory_equal(walked[0], walked[1], sizeof walked[0]);
    const uint32_t walkers_some[] = {0, walkers - 1, walkers / 2};
    for (size_t i = 0; i < sizeof walkers_some / sizeof walkers_some[0]; i++) {
        assert_int_equal(probe_backend_cuda.walk_open(pair.cuda, walkers_some[i], &of_cuda[0], &of_cuda[1]), ERR_NONE);
        assert_int_equal(probe_backend_cpu.walk_open(pair.cpu, walkers_some[i], &of_cpu[0], &of_cpu[1]), ERR_NONE);
        bytes_equal(&of_cuda[0], &of_cpu[0]);
        bytes_equal(&of_cuda[1], &of_cpu[1]);
    }
    assert_int_equal(probe_backend_cuda.tile_read(pair.cuda, tiles, &of_cuda[0]), ERR_BAD_INPUT);
    assert_int_equal(probe_backend_cuda.pass_open(pair.cuda, passes, 0, &of_cuda[0]), ERR_BAD_INPUT);
    assert_int_equal(probe_backend_cuda.walk_open(pair.cuda, walkers, &of_cuda[0], &of_cuda[1]), ERR_BAD_INPUT);
    for (size_t i = 0; i < 2; i++) {
        buf_free(&of_cuda[i]);
        buf_free(&of_cpu[i]);
    }
}

static void chain_compare(struct pair pair, uint32_t n, uint32_t blocks, uint32_t steps, enum probe_route expected)
{
    struct probe_chain chain = {.seed = {n, blocks, steps}, .n = n, .blocks = blocks, .steps = steps};
    uint32_t roots[2][8];
    enum probe_route route = PROBE_ROUTE_COUNT, of_cpu_route;
    struct buf of_cuda[2], of_cpu[2];
    memcpy(chain.challenge, challenge, sizeof challenge);
    memcpy(chain.worker_key, worker_key, sizeof worker_key);
    assert_int_equal(probe_backend_cuda.chain(pair.cuda, &chain, roots[0], &route), ERR_NONE);
    assert_int_equal(probe_backend_cpu.chain(pair.cpu, &chain, roots[1], &of_cpu_route), ERR_NONE);
    assert_int_equal(route, expected);
    assert_memory_equal(roots[0], roots[1], sizeof roots[0]);
    for (size_t i = 0; i < 2; i++) {
        buf_init(&of_cuda[i], 0);
        buf_init(&of_cpu[i], 0);
    }
    for (uint32_t row = 0; row < n; row += n / 4 + 1) {
        assert_int_equal(probe_backend_cuda.chain_open(pair.cuda, row, &of_cuda[0], &of_cuda[1]), ERR_NONE);
        assert_int_equal(probe_backend_cpu.chain_open(pair.cpu, row, &of_cpu[0], &of_cpu[1]), ERR_NONE);
        bytes_equal(&of_cuda[0], &of_cpu[0]);
        bytes_equal(&of_cuda[1], &of_cpu[1]);
    }
    assert_int_equal(probe_backend_cuda.chain_open(pair.cuda, n, &of_cuda[0], &of_cuda[1]), ERR_BAD_INPUT);
    for (size_t i = 0; i < 2; i++) {
        buf_free(&of_cuda[i]);
        buf_free(&of_cpu[i]);
    }
}

static void test_tiles(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_SMS", "3"});
    const struct pair pair = pair_open();
    tiles_compare(pair, 1, 8, 1, 1, 1);
    tiles_compare(pair, 2, 1, 3, 8, 3);
    tiles_compare(pair, 31, 2, 2, 9, 2);
    tiles_compare(pair, 32, 2, 2, 63, 4);
    tiles_compare(pair, 33, 4, 4, 65, 1);
    tiles_compare(pair, 200, 1, 2, 1030, 1); /* walkers of three stored levels */
    probe_backend_cuda.release(pair.cuda);
    assert_int_equal(live().allocations, 0);
    pair_close(pair);
}

static void test_chain_own(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_CC", "90"});
    struct pair pair = pair_open();
    chain_compare(pair, 64, 1, 1, PROBE_ROUTE_MMA_S8);
    chain_compare(pair, 64, 4, 5, PROBE_ROUTE_MMA_S8);
    chain_compare(pair, 128, 3, 2, PROBE_ROUTE_MMA_S8);
    chain_compare(pair, 64, 16, 3, PROBE_ROUTE_MMA_S8);
    pair_close(pair);
    MACHINE({"SLUICE_CUDA_ROUTE", "dp4a"});
    pair = pair_open();
    chain_compare(pair, 64, 1, 1, PROBE_ROUTE_DP4A);
    pair_close(pair);
    MACHINE({"FAKE_CUDA_CC", "75"});
    pair = pair_open();
    chain_compare(pair, 64, 2, 3, PROBE_ROUTE_DP4A);
    chain_compare(pair, 128, 4, 2, PROBE_ROUTE_DP4A);
    pair_close(pair);
}

/* Streams in both orders: what one needs of the other must be asked for. */
static void test_chain_library(void **state)
{
    (void)state;
    for (int order = 0; order < 2; order++) {
        MACHINE({"SLUICE_LIBCUBLASLT", LIBRARY}, {"FAKE_CUDA_ORDER", order == 0 ? "0" : "1"},
                {"SLUICE_CUDA_ROUTE", "cublaslt_s8"});
        const struct pair pair = pair_open();
        assert_int_equal(probe_backend_cuda.warm(pair.cuda), ERR_NONE);
        chain_compare(pair, 128, 2, 5, PROBE_ROUTE_CUBLASLT_S8);
        chain_compare(pair, 128, 2, 2, PROBE_ROUTE_CUBLASLT_S8); /* in the same buffers */
        chain_compare(pair, 192, 3, 3, PROBE_ROUTE_CUBLASLT_S8); /* three parts: one stream has two */
        chain_compare(pair, 256, 4, 2, PROBE_ROUTE_CUBLASLT_S8);
        assert_true(live().products > 0);
        pair_close(pair);
    }
}

static void test_chain_library_without_batches(void **state)
{
    (void)state;
    MACHINE({"SLUICE_LIBCUBLASLT", LIBRARY}, {"FAKE_CUDA_NO_BATCH", "1"}, {"SLUICE_CUDA_ROUTE", "cublaslt_s8"});
    const struct pair pair = pair_open();
    assert_int_equal(probe_backend_cuda.warm(pair.cuda), ERR_NONE);
    const unsigned products = live().products;
    chain_compare(pair, 128, 3, 2, PROBE_ROUTE_CUBLASLT_S8);
    assert_int_equal(live().products - products, 2 * 3 * 2); /* parts, blocks, steps */
    pair_close(pair);
}

/* A chain, then tiles, then a chain in whose way the tiles are. */
static void test_chain_takes_the_tiles_place(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_MEMORY", "280000"});
    const struct pair pair = pair_open();
    const struct probe_fill fill = {.tiles = 30, .double_rounds = 1};
    struct buf bytes;
    buf_init(&bytes, 0);
    assert_int_equal(probe_backend_cuda.fill(pair.cuda, &fill), ERR_NONE);
    chain_compare(pair, 64, 4, 2, PROBE_ROUTE_MMA_S8);
    assert_int_equal(probe_backend_cuda.tile_read(pair.cuda, 0, &bytes), ERR_BAD_INPUT);
    assert_int_equal(probe_backend_cuda.fill(pair.cuda, &fill), ERR_NONE);
    assert_int_equal(probe_backend_cuda.chain_open(pair.cuda, 0, &bytes, &bytes), ERR_BAD_INPUT);
    assert_int_equal(probe_backend_cuda.tile_read(pair.cuda, 0, &bytes), ERR_NONE);
    buf_free(&bytes);
    pair_close(pair);
}

/* -- what a device says of itself -- */

static void test_claim(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_NAME", "NVIDIA H200"}, {"FAKE_CUDA_SMS", "5"}, {"FAKE_CUDA_MEMORY", "1000000"},
            {"SLUICE_LIBNVML", LIBRARY});
    struct probe_backend *backend = opened(&probe_backend_cuda);
    struct probe_claim claim;
    probe_backend_cuda.claim(backend, &claim);
    assert_string_equal(claim.name, "NVIDIA H200");
    assert_string_equal(claim.driver, "570.00.fake");
    assert_int_equal(claim.uuid[1], 0xa1);
    assert_int_equal(claim.pci_vendor, 0x10de);
    assert_int_equal(claim.pci_device, 0x2335);
    assert_int_equal(claim.pci_subsystem, 0x18be10de);
    assert_int_equal(claim.vram_bytes, 1000000);
    assert_int_equal(claim.free_bytes, 1000000);
    assert_int_equal(claim.l2_bytes, 50 << 20);
    assert_int_equal(claim.sms, 5);
    assert_in_range(claim.smids_seen, 1, 5);
    assert_int_equal(claim.bus_bits, 6144);
    assert_int_equal(claim.clock_sm_mhz, 1980);
    assert_int_equal(claim.clock_memory_mhz, 3201);
    assert_int_equal(claim.cc_major, 9);
    assert_int_equal(claim.cc_minor, 0);
    assert_true(claim.ecc);
    assert_false(claim.mig);
    assert_int_equal(probe_backend_cuda.clock_mhz(backend), 1755);
    assert_null(probe_backend_cuda.close(backend));

    MACHINE({"FAKE_CUDA_CC", "86"}); /* no NVML */
    backend = opened(&probe_backend_cuda);
    probe_backend_cuda.claim(backend, &claim);
    assert_string_equal(claim.driver, "CUDA 12.8");
    assert_int_equal(claim.pci_vendor, 0);
    assert_int_equal(claim.clock_memory_mhz, 2619);
    assert_int_equal(claim.cc_minor, 6);
    assert_int_equal(probe_backend_cuda.clock_mhz(backend), 0);
    assert_null(probe_backend_cuda.close(backend));
}

static void test_no_device(void **state)
{
    (void)state;
    struct probe_backend *backend = NULL;
    MACHINE({"FAKE_CUDA_DEVICES", "0"});
    assert_int_equal(probe_backend_cuda.count(), 0);
    assert_int_equal(probe_backend_cuda.open(0, &backend), ERR_NOT_FOUND);
    cuda_driver_set_library("/nonexistent/libcuda.so.1");
    assert_int_equal(probe_backend_cuda.count(), 0);
    cuda_driver_set_library("/dev/null");
    assert_int_equal(probe_backend_cuda.count(), 0);
    MACHINE({"FAKE_CUDA_DEVICES", "40"});
    assert_int_equal(probe_backend_cuda.count(), PROBE_DEVICES_MAX);
    assert_int_equal(probe_backend_cuda.open(PROBE_DEVICES_MAX, &backend), ERR_NOT_FOUND);
    assert_null(backend);
    assert_null(probe_backend_cuda.close(NULL));
}

/* -- a device that fails -- */

static void test_less_memory_than_claimed(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_MEMORY", "1000000"}, {"FAKE_CUDA_REAL", "500000"});
    const struct pair pair = pair_open();
    const struct probe_fill too_much = {.tiles = 100, .double_rounds = 1};
    const struct probe_chain too_large = {.n = 512, .blocks = 4, .steps = 1};
    uint32_t root[8];
    enum probe_route route;
    struct probe_claim claim;
    probe_backend_cuda.claim(pair.cuda, &claim);
    assert_int_equal(claim.vram_bytes, 1000000);
    assert_int_equal(probe_backend_cuda.fill(pair.cuda, &too_much), ERR_NO_MEMORY);
    assert_int_equal(probe_backend_cuda.chain(pair.cuda, &too_large, root, &route), ERR_NO_MEMORY);
    assert_int_equal(live().allocations, 0);
    tiles_compare(pair, 40, 1, 1, 8, 1); /* it is not out for that */
    pair_close(pair);
}

/* A pass whose trees do not fit beside the tiles leaves the tiles. */
static void test_no_memory_for_a_pass(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_MEMORY", "82000"});
    const struct pair pair = pair_open();
    const struct probe_fill fill = {.tiles = 10, .double_rounds = 1};
    const struct probe_pass pass = {.passes = 1};
    const struct probe_walk walk = {.walkers = 1, .steps = 1};
    uint32_t roots[PROBE_PASSES_MAX][8];
    struct buf bytes;
    buf_init(&bytes, 0);
    assert_int_equal(probe_backend_cuda.fill(pair.cuda, &fill), ERR_NONE);
    assert_int_equal(probe_backend_cuda.pass(pair.cuda, &pass, roots), ERR_NO_MEMORY);
    assert_int_equal(probe_backend_cuda.walk(pair.cuda, &walk, roots[0]), ERR_NONE);
    assert_int_equal(probe_backend_cuda.pass_open(pair.cuda, 0, 0, &bytes), ERR_BAD_INPUT);
    assert_int_equal(probe_backend_cuda.tile_read(pair.cuda, 9, &bytes), ERR_NONE);
    buf_free(&bytes);
    pair_close(pair);
}

/* Whichever launch fails first: an error, then errors at once, and everything given back. */
static void test_failing_launches(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (unsigned k = 1; k <= 24; k++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%u", k);
        MACHINE({"FAKE_CUDA_FAIL", text});
        struct probe_backend *backend = opened(&probe_backend_cuda);
        const struct probe_fill fill = {.tiles = 33, .double_rounds = 1};
        const struct probe_pass pass = {.passes = 2};
        const struct probe_walk walk = {.walkers = 8, .steps = 1};
        const struct probe_chain chain = {.n = 64, .blocks = 1, .steps = 3};
        uint32_t roots[PROBE_PASSES_MAX][8];
        enum probe_route route;
        struct buf bytes;
        buf_init(&bytes, 0);
        enum error error = probe_backend_cuda.fill(backend, &fill);
        if (error == ERR_NONE)
            error = probe_backend_cuda.pass(backend, &pass, roots);
        if (error == ERR_NONE)
            error = probe_backend_cuda.pass_open(backend, 1, 32, &bytes);
        if (error == ERR_NONE)
            error = probe_backend_cuda.walk(backend, &walk, roots[0]);
        if (error == ERR_NONE)
            error = probe_backend_cuda.chain(backend, &chain, roots[0], &route);
        assert_true(error == ERR_NONE || error == ERR_SYSTEM);
        if (error != ERR_NONE) {
            failed++;
            const unsigned launches = live().launches;
            assert_int_equal(probe_backend_cuda.fill(backend, &fill), ERR_SYSTEM);
            assert_int_equal(probe_backend_cuda.warm(backend), ERR_SYSTEM);
            assert_int_equal(probe_backend_cuda.chain(backend, &chain, roots[0], &route), ERR_SYSTEM);
            assert_int_equal(live().launches, launches); /* it is not asked again */
            struct probe_claim claim;
            probe_backend_cuda.claim(backend, &claim);
            assert_string_equal(claim.name, "NVIDIA Fake");
            assert_int_equal(claim.smids_seen, 0);
        }
        buf_free(&bytes);
        assert_null(probe_backend_cuda.close(backend));
    }
    assert_in_range(failed, 15, 23);
}

static void test_hanging_device(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_HANG", "2"}, {"SLUICE_LIBCUBLASLT", LIBRARY});
    struct probe_backend *backend = opened(&probe_backend_cuda);
    const struct probe_fill fill = {.tiles = 5, .double_rounds = 1};
    cuda_backend_wait_limit(backend, 20 * NS_PER_MS);
    assert_int_equal(probe_backend_cuda.fill(backend, &fill), ERR_NONE);
    const int64_t start_ns = clock_mono_ns();
    assert_int_equal(probe_backend_cuda.fill(backend, &fill), ERR_SYSTEM);
    assert_true(clock_mono_ns() - start_ns >= 20 * NS_PER_MS);
    assert_int_equal(probe_backend_cuda.fill(backend, &fill), ERR_SYSTEM);
    assert_null(probe_backend_cuda.close(backend)); /* ... and that does not wait for it either */
}

static void test_bench(void **state)
{
    (void)state;
    MACHINE({"FAKE_CUDA_MEMORY", "4000000"}, {"SLUICE_LIBCUBLASLT", LIBRARY}, {"SLUICE_LIBNVML", LIBRARY});
    struct probe_backend *backend = opened(&probe_backend_cuda);
    const struct probe_bench bench = probe_backend_cuda.bench(backend);
    assert_true(bench.memory_gbps > 0 && bench.int8_tops > 0 && bench.bf16_tflops > 0);
    assert_true(bench.h2d_gbps > 0 && bench.d2h_gbps > 0);
    assert_int_equal(bench.free_bytes, 4000000);
    assert_int_equal(bench.clock_idle_mhz, 1755);
    assert_true(strcmp(bench.route, "mma_s8") == 0 || strcmp(bench.route, "cublaslt_s8") == 0);
    assert_int_equal(live().allocations, 0);
    assert_null(probe_backend_cuda.close(backend));
}

int main(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    void *symbol = dlsym(library, "fake_cuda_live");
    memcpy(&live_now, &symbol, sizeof symbol);
    if (setenv("SLUICE_CUDA_KERNELS", LIBRARY, 1) != 0) /* any file: the fake has its own */
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_chain_own),
        cmocka_unit_test(test_chain_library),
        cmocka_unit_test(test_chain_library_without_batches),
        cmocka_unit_test(test_chain_takes_the_tiles_place),
        cmocka_unit_test(test_claim),
        cmocka_unit_test(test_less_memory_than_claimed),
        cmocka_unit_test(test_no_memory_for_a_pass),
        cmocka_unit_test(test_failing_launches),
        cmocka_unit_test(test_hanging_device),
        cmocka_unit_test(test_bench),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
