#include "probes/bench_command.h"

#include "core/clock.h"
#include "core/config.h"
#include "probes/catalogue.h"
#include "probes/device_command.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char bench_help[] = "usage: sluice-probe bench [OPTIONS]\n"
                                 "Measures the devices and compares them with datasheet and reference.\n"
                                 "  --backend NAME  auto (default), cpu or cuda\n"
                                 "  --gpu N         that device only\n"
                                 "  --full          fills nearly all of the free memory instead of at most 16 GiB\n"
                                 "  --json          one JSON object\n"
                                 "  --row           a row for the catalogue's file\n"
                                 "Exit codes: 0 done, 1 a device failed, 2 usage.\n";

#define FILL_BYTES_MAX ((uint64_t)16 << 30)
#define PASSES 4
#define RUNS 3 /* of what is short; the best counts */

struct measured {
    struct probe_claim claim;
    const struct gpu_class *class; /* by the driver's name; NULL: unknown */
    struct probe_bench bench;
    struct proven proven; /* by the clock of this process; vram: filled */
    enum probe_route route;
    struct chain_shape shape;
    uint32_t double_rounds;
};

static double per_second(double amount, int64_t ns)
{
    return ns > 0 ? amount / ((double)ns / 1e9) : 0;
}

static double best(double a, double b)
{
    return a > b ? a : b;
}

/* -- measuring -- */

static enum error tiles_measure(const struct probe_backend_ops *ops, struct probe_backend *backend, bool is_full,
                                struct measured *to)
{
    const uint64_t most = to->claim.free_bytes / 100 * 95;
    const uint64_t bytes = is_full || most < FILL_BYTES_MAX ? most : FILL_BYTES_MAX;
    const struct probe_fill fill = {.seed = {1}, .tiles = bytes / PROBE_TILE_BYTES, .double_rounds = to->double_rounds};
    const struct probe_pass pass = {.passes = PASSES};
    const struct gpu_class *class = to->class;
    const struct probe_walk walk = {.walkers = class != NULL && class->walkers > 0 ? class->walkers : 1024,
                                    .steps = class != NULL && class->walk_steps > 0 ? class->walk_steps : 64};
    uint32_t roots[PROBE_PASSES_MAX][8];
    if (fill.tiles == 0)
        return ERR_NO_MEMORY;
    int64_t start_ns = clock_mono_ns();
    enum error error = ops->fill(backend, &fill);
    to->proven.fill_gbps = per_second((double)fill.tiles * PROBE_TILE_BYTES / 1e9, clock_mono_ns() - start_ns);
    if (error == ERR_NONE)
        to->proven.vram_gib = (double)fill.tiles * PROBE_TILE_BYTES / (double)((uint64_t)1 << 30);
    for (int run = 0; run < RUNS && error == ERR_NONE; run++) {
        start_ns = clock_mono_ns();
        error = ops->pass(backend, &pass, roots);
        const double rate =
            per_second((double)fill.tiles * PROBE_TILE_BYTES * PASSES / 1e9, clock_mono_ns() - start_ns);
        to->proven.pass_gbps = best(to->proven.pass_gbps, rate);
    }
    for (int run = 0; run < RUNS && error == ERR_NONE; run++) {
        start_ns = clock_mono_ns();
        error = ops->walk(backend, &walk, roots[0]);
        const double rate =
            per_second((double)walk.walkers * walk.steps * PROBE_LINE_WORDS * 4 / 1e9, clock_mono_ns() - start_ns);
        to->proven.walk_gbps = best(to->proven.walk_gbps, rate);
    }
    return error;
}

/* The class's own where it is known, else one that takes a fraction of a second. */
static struct chain_shape shape_of(const struct measured *of)
{
    if (of->class != NULL && of->class->admission_chain.n > 0)
        return of->class->admission_chain;
    return of->claim.sms >= 16 ? (struct chain_shape){.n = 4096, .blocks = 4, .steps = 20}
                               : (struct chain_shape){.n = 128, .blocks = 4, .steps = 4};
}

static enum error chain_measure(const struct probe_backend_ops *ops, struct probe_backend *backend, struct measured *to)
{
    const struct chain_shape shape = to->shape;
    const struct probe_chain chain = {.seed = {1}, .n = shape.n, .blocks = shape.blocks, .steps = shape.steps};
    const double operations = 2.0 * shape.n * shape.n * shape.n * shape.blocks * shape.steps;
    uint32_t root[8];
    enum error error = ERR_NONE;
    for (int run = 0; run < RUNS && error == ERR_NONE; run++) {
        const int64_t start_ns = clock_mono_ns();
        error = ops->chain(backend, &chain, root, &to->route);
        to->proven.chain_tops = best(to->proven.chain_tops, per_second(operations / 1e12, clock_mono_ns() - start_ns));
    }
    return error;
}

static enum error measure(const struct device_command *command, const struct catalogue *catalogue, unsigned index,
                          struct measured *ret)
{
    const struct probe_backend_ops *ops = command->backend;
    struct probe_backend *backend = NULL;
    struct measured to = {0};
    enum error error = ops->open(index, &backend);
    if (error != ERR_NONE)
        return error;
    ops->claim(backend, &to.claim);
    to.class = ops == &probe_backend_cpu
                   ? catalogue_find(catalogue, STR("cpu"))
                   : catalogue_of_driver_name(catalogue, str_of(to.claim.name), to.claim.vram_bytes);
    to.shape = shape_of(&to);
    to.double_rounds = to.class != NULL && to.class->double_rounds > 0 ? to.class->double_rounds : 32;
    to.bench = ops->bench(backend); /* first: it sees the clocks of an idle device */
    error = ops->warm(backend);
    if (error == ERR_NONE)
        error = tiles_measure(ops, backend, command->is_full, &to);
    ops->release(backend);
    if (error == ERR_NONE)
        error = chain_measure(ops, backend, &to);
    (void)ops->close(backend);
    if (error == ERR_NONE)
        *ret = to;
    return error;
}

/* -- printing -- */

static void number_put(char ret[static 16], double value, const char *unit)
{
    if (value <= 0)
        (void)snprintf(ret, 16, "-");
    else
        (void)snprintf(ret, 16, "%.*f %s", value >= 1000 ? 0 : value >= 10 ? 1 : 3, value, unit);
}

static void share_put(char ret[static 16], double value, double of)
{
    if (value <= 0 || of <= 0)
        (void)snprintf(ret, 16, "-");
    else
        (void)snprintf(ret, 16, "%.1f %%", 100 * value / of);
}

static void line_print(const char *what, const char *unit, double value, double sheet, double reference)
{
    char text[5][16];
    if (value <= 0)
        return; /* it cannot be measured there */
    number_put(text[0], value, unit);
    number_put(text[1], sheet, unit);
    share_put(text[2], value, sheet);
    number_put(text[3], reference, unit);
    share_put(text[4], value, reference);
    printf("  %-22s %13s %13s %8s %13s %8s\n", what, text[0], text[1], text[2], text[3], text[4]);
}

static void bytes_print(const char *what, double bytes, double sheet_gib)
{
    const double gib = (double)((uint64_t)1 << 30);
    if (bytes < gib)
        line_print(what, "MiB", bytes / gib * 1024, sheet_gib * 1024, 0);
    else
        line_print(what, "GiB", bytes / gib, sheet_gib, 0);
}

static void table_print(const struct device_command *command, const struct catalogue *catalogue, unsigned index,
                        const struct measured *m)
{
    static const struct gpu_class none;
    const struct gpu_class *class = m->class != NULL ? m->class : &none;
    const struct probe_bench *bench = &m->bench;
    const double gib = (double)((uint64_t)1 << 30);
    double distance = 0;
    printf("%s %u: %s", command->backend->name, index, m->claim.name);
    if (m->claim.sms > 0)
        printf(", %u SMs (%u seen), compute capability %u.%u, driver %s", m->claim.sms, m->claim.smids_seen,
               m->claim.cc_major, m->claim.cc_minor, m->claim.driver);
    printf("\nclass: %s\n", m->class != NULL ? class->name : "unknown");
    printf("  %-22s %13s %13s %8s %13s %8s\n", "", "measured", "datasheet", "share", "reference", "share");
    bytes_print("memory, claimed", (double)m->claim.vram_bytes, class->vram_gib);
    bytes_print("memory, free", (double)bench->free_bytes, 0);
    bytes_print("memory, filled", m->proven.vram_gib * gib, 0);
    line_print("FILL", "GB/s", m->proven.fill_gbps, 0, class->fill_gbps);
    line_print("PASS", "GB/s", m->proven.pass_gbps, class->memory_gbps, class->pass_gbps);
    line_print("WALK", "GB/s", m->proven.walk_gbps, 0, class->walk_gbps);
    line_print("CHAIN", "TOPS", m->proven.chain_tops, class->int8_tops, class->chain_tops);
    line_print("plain read", "GB/s", bench->memory_gbps, class->memory_gbps, 0);
    line_print("int8 steps", "TOPS", bench->int8_tops, class->int8_tops, 0);
    line_print("bf16", "TFLOPS", bench->bf16_tflops, class->bf16_tflops, 0);
    line_print("host to device", "GB/s", bench->h2d_gbps, 0, 0);
    line_print("device to host", "GB/s", bench->d2h_gbps, 0, 0);
    line_print("SM clock, idle", "MHz", bench->clock_idle_mhz, 0, 0);
    line_print("SM clock, load", "MHz", bench->clock_load_mhz, m->claim.clock_sm_mhz, 0);
    printf("FILL with D %u; CHAIN of n %u, %u blocks, %u steps by %s\n", m->double_rounds, m->shape.n, m->shape.blocks,
           m->shape.steps, probe_route_name(m->route));
    const struct gpu_class *nearest = catalogue_classify(catalogue, &m->proven, &distance);
    if (nearest != NULL && command->is_full)
        printf("nearest class by these numbers: %s, distance %.2f\n", nearest->name, distance);
}

/* For the file of probes.catalogue. */
static void row_print(const struct measured *m)
{
    printf("  - name: %s\n    is_measured: true\n    fill_gbps: %.4g\n    pass_gbps: %.4g\n    walk_gbps: %.4g\n"
           "    chain_tops: %.4g\n    double_rounds: %u\n",
           m->class != NULL ? m->class->name : "nvidia/unknown", m->proven.fill_gbps, m->proven.pass_gbps,
           m->proven.walk_gbps, m->proven.chain_tops, m->double_rounds);
    if (m->class != NULL && m->class->memory_gbps > 0 && m->class->int8_tops > 0)
        printf("    # PASS is %.1f %% of the datasheet's %.0f GB/s, CHAIN %.1f %% of %.0f TOPS (%s, %s)\n",
               100 * m->proven.pass_gbps / m->class->memory_gbps, m->class->memory_gbps,
               100 * m->proven.chain_tops / m->class->int8_tops, m->class->int8_tops, probe_route_name(m->route),
               m->claim.driver);
}

static json_t *json_of(unsigned index, const struct measured *m)
{
    const struct probe_bench *bench = &m->bench;
    json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:s}", "gpu", (int)index, "name", m->claim.name,
                             "driver", m->claim.driver, "class", m->class != NULL ? m->class->name : "", "vram_bytes",
                             (json_int_t)m->claim.vram_bytes, "free_bytes", (json_int_t)bench->free_bytes,
                             "clock_idle_mhz", (int)bench->clock_idle_mhz, "clock_load_mhz", (int)bench->clock_load_mhz,
                             "route", probe_route_name(m->route));
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"filled_gib", m->proven.vram_gib},
                   {"fill_gbps", m->proven.fill_gbps},
                   {"pass_gbps", m->proven.pass_gbps},
                   {"walk_gbps", m->proven.walk_gbps},
                   {"chain_tops", m->proven.chain_tops},
                   {"read_gbps", bench->memory_gbps},
                   {"int8_tops", bench->int8_tops},
                   {"bf16_tflops", bench->bf16_tflops},
                   {"h2d_gbps", bench->h2d_gbps},
                   {"d2h_gbps", bench->d2h_gbps},
                   {"datasheet_gbps", m->class != NULL ? m->class->memory_gbps : 0},
                   {"datasheet_int8_tops", m->class != NULL ? m->class->int8_tops : 0},
                   {"reference_pass_gbps", m->class != NULL ? m->class->pass_gbps : 0},
                   {"reference_chain_tops", m->class != NULL ? m->class->chain_tops : 0}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && json != NULL; i++)
        (void)json_object_set_new(json, numbers[i].name, json_real(numbers[i].value));
    return json;
}

int bench_command(int argc, char **argv)
{
    struct device_command command = {0};
    const int code = device_command_parse(argc, argv, bench_help, &command);
    if (code >= 0)
        return code;
    char why[CONFIG_ERROR_MAX];
    struct catalogue *catalogue = NULL;
    if (catalogue_open(NULL, &catalogue, why) != ERR_NONE) {
        fprintf(stderr, "sluice-probe: %s\n", why);
        return EXIT_FAILURE;
    }
    json_t *devices = command.is_json ? json_array() : NULL;
    bool is_fine = true;
    if (command.is_row)
        puts("classes:");
    for (unsigned i = command.first; i < command.end; i++) {
        struct measured measured;
        const enum error error = measure(&command, catalogue, i, &measured);
        if (error != ERR_NONE) {
            fprintf(stderr, "sluice-probe: device %u: %s\n", i, error_text(error));
            is_fine = false;
        } else if (command.is_json) {
            (void)json_array_append_new(devices, json_of(i, &measured));
        } else if (command.is_row) {
            row_print(&measured);
        } else {
            table_print(&command, catalogue, i, &measured);
        }
    }
    if (command.is_json) {
        json_t *all = json_pack("{s:s, s:o}", "backend", command.backend->name, "devices", devices);
        char *text = all != NULL ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
        is_fine = text != NULL && puts(text) >= 0 && is_fine;
        free(text);
        json_decref(all);
    }
    (void)catalogue_free(catalogue);
    return fflush(stdout) == 0 && is_fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
