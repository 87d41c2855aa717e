/* Less arithmetic than asked for: rows, columns, blocks, sums or steps of CHAIN left out, chains premultiplied or from
 * before, another field.
 *
 * What is wrong before the last step spreads to all rows: none is accepted, but for the 251^-8 of a fingerprint. Only
 * the last step can be cut: a share f of its rows passes with (1 - f)^4, and saves f / L of the work. */
#include "tests/attacks/world.h"
#include "probes/fingerprint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define H100 "nvidia/h100-sxm-80"

static const struct chain_shape shape = {64, 8, 5};
static struct world world;
static bool is_right = true;

static const struct attack {
    const char *name;
    struct lie lie;
    bool is_last; /* hits the last step only */
} attacks[] = {
    {"a quarter of the rows of step 2 of 5", {.chain = LIE_CHAIN_ROWS, .chain_step = 1, .chain_share = 0.25}, false},
    {"one row of step 3 of 5", {.chain = LIE_CHAIN_ONE_ROW, .chain_step = 2}, false},
    {"one number of step 4 of 5", {.chain = LIE_CHAIN_ONE_ELEMENT, .chain_step = 3}, false},
    {"one of 8 blocks of columns of step 2 of 5", {.chain = LIE_CHAIN_BLOCK, .chain_step = 1}, false},
    {"one of 8 blocks of columns of the last step", {.chain = LIE_CHAIN_BLOCK, .chain_step = 4}, false},
    {"the first step", {.chain = LIE_CHAIN_STEP, .chain_step = 0}, false},
    {"the last step", {.chain = LIE_CHAIN_STEP, .chain_step = 4}, false},
    {"half of the products of each sum, step 3 of 5",
     {.chain = LIE_CHAIN_SUMS, .chain_step = 2, .chain_share = 0.5},
     false},
    {"1 of 64 products of each sum of the last step",
     {.chain = LIE_CHAIN_SUMS, .chain_step = 4, .chain_share = 1.0 / 64},
     false},
    {"premultiplied, without the rotations", {.chain = LIE_CHAIN_NO_SHIFT}, false},
    {"a power of A by squaring", {.chain = LIE_CHAIN_NO_SCALE}, false},
    {"numbers modulo 250", {.chain = LIE_CHAIN_WRONG_FIELD}, false},
    {"sums of 16 bits", {.chain = LIE_CHAIN_SATURATED}, false},
    {"a chain of before (stale seed)", {.chain = LIE_CHAIN_OTHER_SEED}, false},
    {"bound to another worker (replayed root)", {.is_other_worker = true}, false},
    {"bound to another challenge (replayed root)", {.is_other_challenge = true}, false},
    {"a quarter of the rows of the last step", {.chain = LIE_CHAIN_LAST_ROWS, .chain_share = 0.25}, true},
    {"1 of 64 rows of the last step", {.chain = LIE_CHAIN_LAST_ROWS, .chain_share = 1.0 / 64}, true},
};
#define ATTACKS (sizeof(attacks) / sizeof(attacks[0]))

/* -- whole sessions: all that a busy device is asked for -- */

static struct verify_report play(struct lie *lie, enum verify_purpose purpose)
{
    struct verify_report report;
    lie->claim = claim_of(&world, H100);
    struct contest contest = {.world = &world,
                              .options = options_for(&world, purpose, H100),
                              .machine = machine_of(&world, H100),
                              .lie = lie};
    contest_run(&contest, &report);
    return report;
}

static void sessions(const struct attack *attack, unsigned trials)
{
    struct tally tally = {.attack = attack->name, .class_name = H100};
    tally.bound = attack->is_last ? pow(1 - attack->lie.chain_share, 4) : 0;
    for (unsigned i = 0; i < trials; i++) {
        struct lie lie = attack->lie;
        const struct verify_report report = play(&lie, VERIFY_LEASE);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

static void honest(unsigned trials)
{
    struct tally tally = {.attack = "honest, beside a job", .class_name = H100, .must_pass = true};
    for (unsigned i = 0; i < trials; i++) {
        struct lie lie = {0};
        const struct verify_report report = play(&lie, VERIFY_LEASE);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

/* Right, and no faster: what the premultiplied matrix over the group ring costs shows in the rate. */
static void group_ring(unsigned trials)
{
    struct tally tally = {.attack = "premultiplied with the rotations (2.4 x work)", .class_name = H100};
    for (unsigned i = 0; i < trials; i++) {
        struct lie lie = {.chain = LIE_CHAIN_GROUP_RING};
        const struct verify_report report = play(&lie, VERIFY_ADMISSION);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

static double chain_rate(struct lie lie)
{
    for (;;) { /* until one passes: with the last step cut, three of ten do */
        struct lie one = lie;
        const struct verify_report report = play(&one, VERIFY_LEASE);
        if (report.result == VERIFY_PASSED)
            return report.proven.chain_tops;
    }
}

static void gain_of_the_last_step(void)
{
    const double honest = chain_rate((struct lie){0});
    const double cut = chain_rate((struct lie){.chain = LIE_CHAIN_LAST_ROWS, .chain_share = 0.25});
    const double gain = cut / honest - 1, most = 1 / (1 - 0.25 / shape.steps) - 1;
    printf("A quarter of the last of %u steps gains %.2f %% (at most %.2f %%); of 50 steps it would be 0.50 %%.\n",
           shape.steps, gain * 100, most * 100);
    is_right &= gain <= most + 1e-9;
}

/* -- all rows of many chains against their fingerprints -- */

struct rows {
    unsigned all, right, accepted, accepted_wrong;
};

static void count_rows(struct lie *lie, struct rows *ret)
{
    const struct probe_backend_ops *ops = lie_backend(lie);
    const size_t columns = (size_t)shape.n * shape.blocks;
    int8_t *want = malloc(shape.n * columns);
    struct probe_backend *backend = NULL;
    struct fingerprint print = {0};
    struct buf row, path;
    uint32_t root[8];
    enum probe_route route;
    buf_init(&row, PROBE_FRAME_MAX);
    buf_init(&path, PROBE_FRAME_MAX);
    must(want && !ops->open(0, &backend) && !fingerprint_make(shape, &print), "no chain");
    struct probe_chain chain = {.n = shape.n, .blocks = shape.blocks, .steps = shape.steps};
    memcpy(chain.seed, print.seed, sizeof(chain.seed));
    must(!chain_run(print.seed, shape.n, shape.blocks, shape.steps, want), "no chain");
    must(!ops->chain(backend, &chain, root, &route), "no chain");
    for (uint32_t i = 0; i < shape.n; i++) {
        buf_clear(&row);
        buf_clear(&path);
        must(!ops->chain_open(backend, i, &row, &path), "no row");
        const bool is_same = memcmp(row.ptr, want + i * columns, columns) == 0;
        const bool is_accepted = fingerprint_check(&print, i, buf_str(&row));
        ret->all++;
        ret->right += is_same;
        ret->accepted += is_accepted;
        ret->accepted_wrong += is_accepted && !is_same;
    }
    ops->close(backend);
    fingerprint_free(&print);
    buf_free(&row);
    buf_free(&path);
    free(want);
}

static void all_rows(unsigned trials)
{
    printf("\n%-47s %9s %9s %9s %15s\n", "rows against their fingerprints", "rows", "right", "accepted",
           "wrong, accepted");
    for (size_t i = 0; i < ATTACKS; i++) {
        struct rows rows = {0};
        if (attacks[i].lie.is_other_worker || attacks[i].lie.is_other_challenge)
            continue; /* their rows are right; their roots are not */
        for (unsigned t = 0; t < trials; t++) {
            struct lie lie = attacks[i].lie;
            count_rows(&lie, &rows);
        }
        const bool is_fine = rows.accepted_wrong == 0 && rows.accepted == rows.right;
        printf("%-47s %9u %9u %9u %15u%s\n", attacks[i].name, rows.all, rows.right, rows.accepted, rows.accepted_wrong,
               is_fine ? "" : "   <-- WRONG");
        is_right &= is_fine;
    }
    puts("Rows that are right after a lie: one number of 251 is 0, and then nothing was left out or changed.");
}

int main(void)
{
    const char *text = getenv("ATTACK_TRIALS");
    int64_t trials = 200;
    if (text)
        must(str_to_i64(str_of(text), &trials) && trials >= 10 && trials <= 1000000, "ATTACK_TRIALS: 10 or more");
    world_open(&world);
    table_head("Chain (what is left out, or wrong)");
    honest((unsigned)trials / 10);
    for (size_t i = 0; i < ATTACKS; i++)
        sessions(&attacks[i], (unsigned)trials / (attacks[i].is_last ? 1 : 10));
    group_ring((unsigned)trials / 10);
    gain_of_the_last_step();
    all_rows((unsigned)trials / 10);
    world_close(&world);
    return is_right ? 0 : 1;
}
