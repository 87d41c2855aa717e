/* The scaled catalogue, the model of time, and sessions frame by frame. */
#include "tests/attacks/world.h"
#include "core/clock.h"
#include "core/config.h"
#include "core/crypto.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PCIE_5_GBPS 55 /* sixteen lanes */
#define PCIE_4_GBPS 27
#define NVLINK_GBPS 450
#define SCALED_WALKERS 40
#define SCALED_WALK_STEPS 8
#define CLASS_TEXT 640

void must(bool is_true, const char *what)
{
    if (is_true)
        return;
    fprintf(stderr, "attacks: %s\n", what);
    exit(2);
}

uint64_t chance(void)
{
    static uint64_t state = 20251122; /* splitmix64 */
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

double chance_between(double least, double most)
{
    return least + (most - least) * (double)(chance() >> 11) / 9007199254740992.0;
}

/* -- the scaled world -------------------------------------------------------------------------------------------- */

static const struct {
    const char *class_name, *driver_name;
} driver_names[] = {
    {"nvidia/h100-sxm-80", "NVIDIA H100 80GB HBM3"},  {"nvidia/h200-sxm-141", "NVIDIA H200"},
    {"nvidia/rtx4090-24", "NVIDIA GeForce RTX 4090"}, {"nvidia/l40s-48", "NVIDIA L40S"},
    {"nvidia/a100-sxm-80", "NVIDIA A100-SXM4-80GB"},  {"nvidia/rtxa6000-48", "NVIDIA RTX A6000"},
    {"nvidia/h100-pcie-80", "NVIDIA H100 PCIe"},
};

const char *driver_name_of(const char *class_name)
{
    for (size_t i = 0; i < sizeof(driver_names) / sizeof(driver_names[0]); i++)
        if (strcmp(driver_names[i].class_name, class_name) == 0)
            return driver_names[i].driver_name;
    return "";
}

static double operations_of(struct chain_shape shape)
{
    return 2.0 * shape.n * shape.n * shape.n * shape.blocks * shape.steps;
}

/* The shape that has as many operations, divided by CHAIN_SCALE. */
static struct chain_shape scaled_shape(struct chain_shape real)
{
    struct chain_shape shape = {64, real.blocks, 1};
    const double steps = operations_of(real) / CHAIN_SCALE / operations_of(shape);
    shape.steps = steps < 1 ? 1 : (uint32_t)(steps + 0.5);
    return shape;
}

static void print_class(FILE *to, const struct gpu_class *class)
{
    const struct chain_shape admission = scaled_shape(class->admission_chain), spot = scaled_shape(class->spot_chain);
    const double walk = (double)SCALED_WALKERS * SCALED_WALK_STEPS / ((double)class->walkers * class->walk_steps);
    fprintf(to,
            "  - name: %s\n    vram_gib: %.12f\n    fill_gbps: %.9f\n    pass_gbps: %.9f\n    walk_gbps: %.9f\n"
            "    chain_tops: %.12f\n    double_rounds: 2\n    passes: %u\n    walkers: %d\n    walk_steps: %d\n"
            "    admission_chain: %ux%ux%u\n    spot_chain: %ux%ux%u\n    lease_chain: 64x8x5\n"
            "    spot_fill_bytes: %llu\n    net_frames: 1\n    net_floor_mbps: %.6f\n",
            class->name, class->vram_gib / MEMORY_SCALE, class->fill_gbps / MEMORY_SCALE,
            class->pass_gbps / MEMORY_SCALE, class->walk_gbps * walk, class->chain_tops / CHAIN_SCALE, class->passes,
            SCALED_WALKERS, SCALED_WALK_STEPS, admission.n, admission.blocks, admission.steps, spot.n, spot.blocks,
            spot.steps, (unsigned long long)((double)class->spot_fill_bytes / MEMORY_SCALE), class->net_floor_mbps);
}

/* Every class that can be proven, so that those that are not the claimed one are as near as in the real catalogue. */
static void open_scaled(struct world *world)
{
    char path[] = "/tmp/sluice-attacks-XXXXXX", error[CONFIG_ERROR_MAX] = "";
    int fd = mkstemp(path);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    must(file, "no temporary file");
    fputs("classes:\n", file);
    for (size_t i = 0; i < catalogue_count(world->real); i++) {
        const struct gpu_class *class = catalogue_at(world->real, i);
        if (class->has_floor && class->double_rounds)
            print_class(file, class);
    }
    must(fclose(file) == 0, "no temporary file");
    const enum error failed = catalogue_open(path, &world->scaled, error);
    unlink(path);
    must(!failed, error);
}

void world_open(struct world *world)
{
    char error[CONFIG_ERROR_MAX] = "";
    must(!catalogue_open(NULL, &world->real, error), error);
    open_scaled(world);
    must(!chain_pool_open(1, &world->pool), "no pool");
    must(!signing_key_new(&world->key) && !signing_key_new(&world->other_key), "no keys");
}

void world_close(struct world *world)
{
    chain_pool_free(world->pool);
    catalogue_free(world->scaled);
    catalogue_free(world->real);
    signing_key_free(world->key);
    signing_key_free(world->other_key);
}

static const struct gpu_class *class_of(const struct catalogue *catalogue, const char *name)
{
    const struct gpu_class *class = catalogue_find(catalogue, str_of(name));
    must(class, name);
    return class;
}

struct machine machine_of(const struct world *world, const char *class_name)
{
    const struct gpu_class *class = class_of(world->real, class_name);
    return (struct machine){.fill_gbps = class->fill_gbps,
                            .pass_gbps = class->pass_gbps,
                            .walk_gbps = class->walk_gbps,
                            .chain_tops = class->chain_tops,
                            .host_gbps = class->cc_major >= 9 ? PCIE_5_GBPS : PCIE_4_GBPS,
                            .peer_gbps = NVLINK_GBPS,
                            .rtt_s = 0.010,
                            .net_gbps = 10};
}

struct probe_claim claim_of(const struct world *world, const char *class_name)
{
    const struct gpu_class *class = class_of(world->scaled, class_name);
    struct probe_claim claim = {.cc_major = class->cc_major,
                                .cc_minor = class->cc_minor,
                                .sms = class->sms,
                                .smids_seen = class->sms,
                                .l2_bytes = class->l2_bytes,
                                .pci_vendor = 0x10de,
                                .pci_device = class->pci_devices[0],
                                .vram_bytes = (uint64_t)(class->vram_gib * (1 << 30)),
                                .driver = "575.57.08",
                                .uuid = {1, 2, 3}};
    claim.free_bytes = claim.vram_bytes;
    must(str_copy(claim.name, sizeof(claim.name), str_of(driver_name_of(class_name))), class_name);
    return claim;
}

double machine_seconds(const struct machine *machine, const struct lie_work *work)
{
    const double scale = MEMORY_SCALE / 1e9;
    double seconds = work->read * scale / machine->pass_gbps;
    seconds = fmax(seconds, work->recomputed * scale / machine->fill_gbps);
    seconds = fmax(seconds, work->from_host * scale / machine->host_gbps);
    seconds = fmax(seconds, work->from_peer * scale / machine->peer_gbps);
    return seconds + work->filled * scale / machine->fill_gbps +
           work->operations * CHAIN_SCALE / 1e12 / machine->chain_tops;
}

/* -- sessions ---------------------------------------------------------------------------------------------------- */

struct verify_options options_for(const struct world *world, enum verify_purpose purpose, const char *claimed)
{
    return (struct verify_options){
        .purpose = purpose, .catalogue = world->scaled, .pool = world->pool, .claimed_gpu = str_of(claimed)};
}

/* A question comes after what it is about: nothing is opened that was not committed to before. */
static void check_order(struct contest *contest)
{
    must(probe_frame_decode(contest->send.frame, &contest->ask) == ERR_NONE, "the verifier sends what is no frame");
    if (contest->ask.type != PROBE_OPEN)
        return;
    must(contest->is_committed && memcmp(contest->committed, contest->ask.of.open.id, PROBE_ID_BYTES) == 0,
         "openings were drawn before the commitment");
}

static void go_on(struct contest *contest, enum verify_next next)
{
    contest->next = next;
    for (unsigned tries = 0; contest->next == VERIFY_WAIT; tries++) {
        must(tries < 60000, "no CHAIN was prepared within a minute");
        usleep(1000);
        contest->next = verify_resume(contest->session, &contest->send);
    }
    if (contest->next == VERIFY_SEND)
        check_order(contest);
}

void contest_open(struct contest *contest)
{
    const struct prover_options options = {.backend = lie_backend(contest->lie),
                                           .key = contest->key ? contest->key : contest->world->key,
                                           .host_id = {7},
                                           .devices = 1};
    must(!prover_open(&options, &contest->prover), "no prover");
    must(!verify_open(&contest->options, &contest->session), "no session");
    buf_init(&contest->answer, 2 * PROBE_FRAME_MAX);
    contest->round = 0;
    contest->is_committed = false;
    go_on(contest, verify_start(contest->session, &contest->send));
}

double contest_work(struct contest *contest)
{
    contest->lie->work = (struct lie_work){0};
    buf_clear(&contest->answer);
    must(!prover_answer(contest->prover, contest->send.frame, &contest->answer), "no answer");
    if (contest->ask.type == PROBE_CHALLENGE) {
        memcpy(contest->committed, contest->ask.of.challenge.id, PROBE_ID_BYTES);
        contest->is_committed = true;
        return machine_seconds(&contest->machine, &contest->lie->work);
    }
    return contest->ask.type == PROBE_PING ? contest->machine.ping_s : 0.001;
}

void contest_judge(struct contest *contest, double work_s)
{
    const struct machine *machine = &contest->machine;
    const double bits = 8.0 * (double)(contest->send.frame.len + contest->answer.len);
    const double noise = 1 + chance_between(-machine->noise, machine->noise);
    int64_t took_ns = (int64_t)((work_s * noise + machine->rtt_s + bits / 1e9 / machine->net_gbps) * 1e9);
    if (contest->tamper)
        contest->tamper(contest->ctx, &contest->ask, contest->round, &contest->answer, &took_ns);
    contest->round++;
    go_on(contest, verify_answer(contest->session, buf_str(&contest->answer), took_ns, &contest->send));
}

void contest_close(struct contest *contest)
{
    contest->session = verify_free(contest->session);
    contest->prover = prover_free(contest->prover);
    buf_free(&contest->answer);
}

void contest_run(struct contest *contest, struct verify_report *ret)
{
    contest_open(contest);
    while (contest->next != VERIFY_DONE)
        contest_judge(contest, contest_work(contest));
    *ret = *verify_report(contest->session);
    must(ret->result != VERIFY_OPEN, "a session ended open");
    contest_close(contest);
}

/* -- the table --------------------------------------------------------------------------------------------------- */

/* Reasons that differ in their numbers are one. */
static void mask_numbers(char *text)
{
    char *to = text;
    bool is_number = false;
    for (const char *from = text; *from; from++) {
        const bool is_digit = *from >= '0' && *from <= '9';
        if (is_digit && is_number)
            continue;
        is_number = is_digit && from > text && from[-1] == ' ';
        *to++ = is_number ? '#' : *from;
    }
    *to = '\0';
}

static void note_reason(struct tally *tally, const struct verify_report *report)
{
    const bool is_passed = report->result == VERIFY_PASSED;
    const char *class_name = report->proven_class ? report->proven_class->name : "unknown";
    char text[sizeof(tally->reasons[0].text)];
    snprintf(text, sizeof(text), "%s%s%s", is_passed ? "proven as" : verify_result_name(report->result),
             is_passed ? " " : ": ", is_passed ? class_name : report->reason);
    mask_numbers(text);
    for (size_t i = 0; i < TALLY_REASONS; i++) {
        if (tally->reasons[i].count && strcmp(tally->reasons[i].text, text) != 0)
            continue;
        memcpy(tally->reasons[i].text, text, sizeof(text));
        tally->reasons[i].count++;
        return;
    }
}

void tally_add(struct tally *tally, const struct verify_report *report)
{
    const bool is_claimed = report->proven_class && strcmp(report->proven_class->name, tally->class_name) == 0;
    tally->trials++;
    tally->by_result[report->result]++;
    if (report->result == VERIFY_PASSED && is_claimed)
        tally->passed++;
    else if (report->result == VERIFY_PASSED)
        tally->others++;
    note_reason(tally, report);
    if (tally->trials == 1 || report->ratio < tally->ratio_least)
        tally->ratio_least = report->ratio;
    if (report->ratio > tally->ratio_most)
        tally->ratio_most = report->ratio;
    tally->credit_sum += report->credit;
}

void table_head(const char *title)
{
    printf("\n%s\n%-47s %-14s %7s %7s %10s  %s\n", title, "attack", "claimed", "trials", "caught", "bound", "verdicts");
}

bool tally_end(const struct tally *tally)
{
    const double n = tally->trials, most = n * tally->bound + 6 * sqrt(n * tally->bound * (1 - tally->bound));
    const bool is_honest = tally->passed == tally->trials;
    const bool is_right = tally->must_pass ? is_honest : tally->passed <= most;
    char bound[32];
    if (tally->must_pass)
        snprintf(bound, sizeof(bound), "passes");
    else
        snprintf(bound, sizeof(bound),
                 tally->bound >= 1  ? "unseen"
                 : tally->bound > 0 ? "%.4g %%"
                                    : "all",
                 100 * (1 - tally->bound));
    const char *slash = strchr(tally->class_name, '/');
    printf("%-47s %-14s %7u %7u %10s  ", tally->attack, slash ? slash + 1 : tally->class_name, tally->trials,
           tally->trials - tally->passed, bound);
    for (size_t i = 0; i < TALLY_REASONS && tally->reasons[i].count; i++)
        printf("%s%s (%u)", i ? "; " : "", tally->reasons[i].text, tally->reasons[i].count);
    printf("%s\n", is_right ? "" : "   <-- WRONG");
    fflush(stdout);
    return is_right;
}
