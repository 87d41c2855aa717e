#include "probes/check_command.h"

#include "core/log.h"
#include "probes/check.h"
#include "probes/device_command.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char check_help[] = "usage: sluice-probe check [OPTIONS]\n"
                                 "Asks the devices each challenge and compares their answers with the CPU's.\n"
                                 "  --backend NAME  auto (default), cpu or cuda\n"
                                 "  --gpu N         that device only\n"
                                 "  --full          also large shapes, and most of the device's memory\n"
                                 "  --json          one JSON object\n"
                                 "Exit codes: 0 all identical, 1 not, 2 usage.\n";

static const struct check_tiles small_tiles[] = {
    {.tiles = 1, .double_rounds = 8, .passes = 1, .walkers = 1, .steps = 1},
    {.tiles = 31, .double_rounds = 1, .passes = 2, .walkers = 8, .steps = 16},
    {.tiles = 33, .double_rounds = 64, .passes = 3, .walkers = 63, .steps = 7},
    {.tiles = 1000, .double_rounds = 4, .passes = 4, .walkers = 513, .steps = 32},
};
static const struct check_tiles large_tiles = {/* three stored levels of a device's tree */
                                               .tiles = 20011,
                                               .double_rounds = 16,
                                               .passes = 2,
                                               .walkers = 8192,
                                               .steps = 256};
static const struct {
    uint32_t n, blocks, steps;
} small_chains[] = {{64, 1, 1}, {64, 4, 5}, {128, 3, 2}, {64, 16, 2}, {256, 2, 3}},
  large_chains[] = {{192, 16, 6}, {576, 2, 3}, {1024, 8, 4}, {2048, 4, 12}, {4096, 4, 12}, {8192, 8, 6}};

struct run {
    const struct device_command *command;
    json_t *checks; /* NULL: as a table */
    unsigned done, wrong;
};

static void row_print(const struct check *check)
{
    char compared[48];
    if (check->compared == check->out_of)
        (void)snprintf(compared, sizeof compared, "all %" PRIu64, check->out_of);
    else
        (void)snprintf(compared, sizeof compared, "%" PRIu64 " of %" PRIu64, check->compared, check->out_of);
    printf("  %-6s %-28s %-12s %-18s %10.1f ms  %s\n", check->kind, check->shape,
           check->route[0] != 0 ? check->route : "-", compared, (double)check->took_ns / 1e6,
           check->is_identical ? "identical" : check->reason);
    (void)fflush(stdout);
}

static void on_done(void *owner, const struct check *check)
{
    struct run *run = owner;
    run->done++;
    run->wrong += !check->is_identical;
    if (run->checks == NULL)
        row_print(check);
    else
        (void)json_array_append_new(
            run->checks, json_pack("{s:s, s:s, s:s, s:I, s:I, s:b, s:s, s:f}", "challenge", check->kind, "shape",
                                   check->shape, "route", check->route, "compared", (json_int_t)check->compared,
                                   "out_of", (json_int_t)check->out_of, "is_identical", check->is_identical, "reason",
                                   check->reason, "took_ms", (double)check->took_ns / 1e6));
}

/* Most of what is free, so that addresses beyond 4 GiB and the last ones are looked at. */
static void memory_check(struct run *run, struct probe_backend *backend, const struct probe_claim *claim)
{
    struct check_tiles shape = {.tiles = claim->free_bytes / 100 * 95 / PROBE_TILE_BYTES,
                                .double_rounds = 8,
                                .passes = 2,
                                .walkers = 1024,
                                .steps = 64};
    if (shape.tiles > large_tiles.tiles)
        check_tiles(run->command->backend, backend, &shape, on_done, run);
}

static void device_check(struct run *run, struct probe_backend *backend, const struct probe_claim *claim)
{
    const struct probe_backend_ops *ops = run->command->backend;
    const bool is_cpu = ops == &probe_backend_cpu; /* its large chains take minutes */
    for (size_t i = 0; i < sizeof small_tiles / sizeof small_tiles[0]; i++)
        check_tiles(ops, backend, &small_tiles[i], on_done, run);
    for (size_t i = 0; i < sizeof small_chains / sizeof small_chains[0]; i++)
        check_chain(ops, backend, small_chains[i].n, small_chains[i].blocks, small_chains[i].steps, on_done, run);
    if (!run->command->is_full)
        return;
    check_tiles(ops, backend, &large_tiles, on_done, run);
    for (size_t i = 0; i < sizeof large_chains / sizeof large_chains[0]; i++)
        if (!is_cpu || large_chains[i].n <= 1024)
            check_chain(ops, backend, large_chains[i].n, large_chains[i].blocks, large_chains[i].steps, on_done, run);
    ops->release(backend);
    memory_check(run, backend, claim);
}

/* False: the device could not be opened or warmed up. */
static bool one_device(struct run *run, unsigned index, json_t *devices)
{
    const struct probe_backend_ops *ops = run->command->backend;
    struct probe_backend *backend = NULL;
    struct probe_claim claim;
    enum error error = ops->open(index, &backend);
    if (error == ERR_NONE)
        error = ops->warm(backend);
    if (error != ERR_NONE) {
        fprintf(stderr, "sluice-probe: device %u: %s\n", index, error_text(error));
        (void)ops->close(backend);
        return false;
    }
    ops->claim(backend, &claim);
    run->checks = devices != NULL ? json_array() : NULL;
    if (devices == NULL)
        printf("%s %u: %s\n  %-6s %-28s %-12s %-18s %13s  %s\n", ops->name, index, claim.name, "ask", "shape", "route",
               "compared", "answer", "result");
    device_check(run, backend, &claim);
    if (devices != NULL)
        (void)json_array_append_new(
            devices, json_pack("{s:i, s:s, s:o}", "gpu", (int)index, "name", claim.name, "checks", run->checks));
    (void)ops->close(backend);
    return true;
}

int check_command(int argc, char **argv)
{
    struct device_command command = {0};
    const int code = device_command_parse(argc, argv, check_help, &command);
    if (code >= 0)
        return code;
    struct run run = {.command = &command};
    json_t *devices = command.is_json ? json_array() : NULL;
    bool is_fine = true;
    for (unsigned i = command.first; i < command.end; i++)
        is_fine = one_device(&run, i, devices) && is_fine;
    is_fine = is_fine && run.wrong == 0 && run.done > 0;
    if (command.is_json) {
        json_t *all = json_pack("{s:s, s:b, s:i, s:i, s:o}", "backend", command.backend->name, "is_identical", is_fine,
                                "done", (int)run.done, "wrong", (int)run.wrong, "devices", devices);
        char *text = all != NULL ? json_dumps(all, JSON_INDENT(2)) : NULL;
        is_fine = text != NULL && puts(text) >= 0 && is_fine;
        free(text);
        json_decref(all);
    } else {
        printf("%u of %u identical\n", run.done - run.wrong, run.done);
    }
    return fflush(stdout) == 0 && is_fine ? EXIT_SUCCESS : EXIT_FAILURE;
}
