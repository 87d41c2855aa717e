/* Less memory than claimed: tiles that are not kept, recomputed, paged from the host or from another GPU; passes and
 * steps of walkers that are left out; tiles of an earlier fill.
 *
 * A share f of tiles that are wrong passes with (1 - f)^64. A share that is right all the same costs time: while an
 * honest device reads its memory once, the cheat computes, or fetches, f of it, at a rate that is that much lower, and
 * is under the floor of 0.75 when f * read / other > 4/3. Below that a lie cannot be seen, and the table says so. */
#include "tests/attacks/world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const classes[] = {"nvidia/h100-sxm-80", "nvidia/h200-sxm-141", "nvidia/rtx4090-24",
                                      "nvidia/l40s-48"};
#define CLASSES (sizeof(classes) / sizeof(classes[0]))

static struct world world;
static bool is_right = true;

static struct contest contest_of(const char *class_name, struct lie *lie)
{
    lie->claim = claim_of(&world, class_name);
    return (struct contest){.world = &world,
                            .options = options_for(&world, VERIFY_ADMISSION, class_name),
                            .machine = machine_of(&world, class_name),
                            .lie = lie};
}

static void try(struct tally tally, struct lie lie, unsigned trials)
{
    for (unsigned i = 0; i < trials; i++) {
        struct verify_report report;
        struct contest contest = contest_of(tally.class_name, &lie);
        contest_run(&contest, &report);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

/* Of the tiles that are asked for, the share that is not kept, as lie.c rounds it. */
static double wrong_share(const char *class_name, double share)
{
    const struct gpu_class *class = catalogue_find(world.scaled, str_of(class_name));
    const double tiles = floor(class->vram_gib * 1073741824 * 0.97 / PROBE_TILE_BYTES);
    return floor(share * tiles + 0.5) / tiles;
}

static void garbage(unsigned trials)
{
    static const double shares[] = {0.02, 0.05, 0.10, 0.25};
    for (size_t c = 0; c < CLASSES; c++)
        for (size_t i = c == 0 ? 0 : 2; i < sizeof(shares) / sizeof(shares[0]); i++) {
            char name[64];
            snprintf(name, sizeof(name), "%.0f %% of the tiles are not kept", shares[i] * 100);
            try((struct tally){.attack = name,
                               .class_name = classes[c],
                               .bound = pow(1 - wrong_share(classes[c], shares[i]), 64)},
                (struct lie){.missing_share = shares[i], .missing = LIE_GARBAGE}, c == 0 ? trials : trials / 10);
        }
}

/* The cheat's rate over an honest one's when a share comes from elsewhere at `other`. */
static void elsewhere(enum lie_missing missing, const char *what, unsigned trials)
{
    static const double shares[] = {0.01, 0.05, 0.10, 0.25, 0.50};
    for (size_t c = 0; c < CLASSES; c++) {
        const struct machine machine = machine_of(&world, classes[c]);
        if (missing == LIE_FROM_PEER && !strstr(classes[c], "-sxm-"))
            continue; /* they have no NVLink */
        const double other = missing == LIE_RECOMPUTED  ? machine.fill_gbps
                             : missing == LIE_FROM_HOST ? machine.host_gbps
                                                        : machine.peer_gbps;
        const double invisible = 4.0 / 3 * other / machine.pass_gbps;
        bool is_seen = false;
        for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]) && !is_seen; i++) {
            const double share = wrong_share(classes[c], shares[i]);
            char name[64];
            is_seen = share > invisible;
            snprintf(name, sizeof(name), "%.0f %% %s (seen above %.1f %%)", shares[i] * 100, what, invisible * 100);
            try((struct tally){.attack = name, .class_name = classes[c], .bound = is_seen ? 0 : 1},
                (struct lie){.missing_share = shares[i], .missing = missing}, trials);
        }
    }
}

static void others(unsigned trials)
{
    const char *h100 = "nvidia/h100-sxm-80";
    const struct gpu_class *class = catalogue_find(world.scaled, str_of(h100));
    const uint64_t bytes = (uint64_t)(class->vram_gib * 1073741824);
    try((struct tally){.attack = "40 of 80 GiB, and says so when it must fill", .class_name = h100},
        (struct lie){.memory_bytes = bytes / 2}, trials / 10);
    try((struct tally){.attack = "76 of 80 GiB", .class_name = h100}, (struct lie){.memory_bytes = bytes / 100 * 95},
        trials / 10);
    try((struct tally){.attack = "tiles of an earlier fill (stale seed)", .class_name = h100},
        (struct lie){.has_other_seed = true}, trials / 10);
    try((struct tally){.attack = "the last of the passes is not run", .class_name = h100, .bound = pow(6.0 / 7, 64)},
        (struct lie){.passes_done = 6}, trials);
    try((struct tally){.attack = "half of the passes are not run", .class_name = h100, .bound = pow(0.5, 64)},
        (struct lie){.passes_done = 3}, trials / 10);
    try((struct tally){.attack = "walkers stop one step early", .class_name = h100, .bound = pow(7.0 / 8, 32)},
        (struct lie){.steps_walked = 7}, trials);
    try((struct tally){.attack = "walkers stop half way", .class_name = h100, .bound = pow(0.5, 32)},
        (struct lie){.steps_walked = 4}, trials / 10);
}

int main(void)
{
    const char *text = getenv("ATTACK_TRIALS");
    int64_t trials = 200;
    if (text)
        must(str_to_i64(str_of(text), &trials) && trials >= 10 && trials <= 1000000, "ATTACK_TRIALS: 10 or more");
    world_open(&world);
    table_head("Memory");
    for (size_t c = 0; c < CLASSES; c++)
        try((struct tally){.attack = "honest", .class_name = classes[c], .must_pass = true}, (struct lie){0},
            (unsigned)trials / 10);
    garbage((unsigned)trials);
    elsewhere(LIE_RECOMPUTED, "recomputed", (unsigned)trials / 20);
    elsewhere(LIE_FROM_HOST, "in host memory", (unsigned)trials / 20);
    elsewhere(LIE_FROM_PEER, "in a peer's memory", (unsigned)trials / 20);
    others((unsigned)trials);
    world_close(&world);
    return is_right ? 0 : 1;
}
