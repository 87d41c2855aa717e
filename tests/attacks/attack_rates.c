/* Names and rates: a lesser device under a greater one's name, a device that is shared or held back, one device under
 * two names, pings that are held back to be given time; and honest devices near and far, whose times scatter. */
#include "tests/attacks/world.h"
#include "scheduler/slot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define H100 "nvidia/h100-sxm-80"
#define H200 "nvidia/h200-sxm-141"
#define A100 "nvidia/a100-sxm-80"
#define H100_PCIE "nvidia/h100-pcie-80"
#define RTX4090 "nvidia/rtx4090-24"
#define L40S "nvidia/l40s-48"
#define A6000 "nvidia/rtxa6000-48"
#define MS 1e-3

static const char *const classes[] = {H100, H200, RTX4090, L40S};
#define CLASSES (sizeof(classes) / sizeof(classes[0]))

static struct world world;
static bool is_right = true;

static struct contest contest_of(const char *claimed, const char *real, struct lie *lie, enum verify_purpose purpose)
{
    lie->claim = claim_of(&world, claimed);
    return (struct contest){.world = &world,
                            .options = options_for(&world, purpose, claimed),
                            .machine = machine_of(&world, real),
                            .lie = lie};
}

/* -- names -- */

static void spoof(const char *claimed, const char *real, struct lie lie, const char *how, unsigned trials)
{
    char name[96];
    snprintf(name, sizeof(name), "%s%s%s", strchr(real, '/') + 1, *how ? ", " : " in its place", how);
    struct tally tally = {.attack = name, .class_name = claimed};
    for (unsigned i = 0; i < trials; i++) {
        struct verify_report report;
        struct lie one = lie;
        struct contest contest = contest_of(claimed, real, &one, VERIFY_ADMISSION);
        contest_run(&contest, &report);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

/* Claims that contradict each other end at hello. */
static void contradict(const char *how, void (*change)(struct probe_claim *claim), unsigned trials)
{
    struct tally tally = {.attack = how, .class_name = H100};
    for (unsigned i = 0; i < trials; i++) {
        struct verify_report report;
        struct lie lie = {0};
        struct contest contest = contest_of(H100, H100, &lie, VERIFY_ADMISSION);
        change(&lie.claim);
        if (strcmp(lie.claim.name, "cpu") == 0) /* its sizes are not scaled, and no rate of it is judged */
            contest.machine.fill_gbps = contest.machine.pass_gbps = contest.machine.chain_tops = 1e9;
        contest_run(&contest, &report);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
}

static void of_an_a100(struct probe_claim *claim)
{
    claim->cc_major = 8;
    claim->sms = claim->smids_seen = 108;
}

static void divided(struct probe_claim *claim)
{
    claim->mig = true;
}

static void sliced(struct probe_claim *claim)
{
    claim->smids_seen = claim->sms / 4;
}

static void named_cpu(struct probe_claim *claim)
{
    *claim = (struct probe_claim){.name = "cpu", .vram_bytes = 16 << 20, .free_bytes = 16 << 20};
}

static void names(unsigned trials)
{
    table_head("Names (all that a device tells of itself agrees with the name)");
    spoof(H100, A100, (struct lie){0}, "", trials);
    spoof(H100, H100_PCIE, (struct lie){0}, "", trials);
    spoof(L40S, A6000, (struct lie){0}, "", trials);
    spoof(H200, H100, (struct lie){.missing_share = 0.43, .missing = LIE_GARBAGE}, "43 % not kept", trials);
    spoof(H200, H100, (struct lie){.missing_share = 0.43, .missing = LIE_RECOMPUTED}, "43 % recomputed", trials);
    spoof(H200, H100, (struct lie){.missing_share = 0.43, .missing = LIE_FROM_HOST}, "43 % in host memory", trials);
    spoof(H200, H100, (struct lie){.missing_share = 0.43, .missing = LIE_FROM_PEER}, "43 % in a peer", trials);
    spoof(H100, RTX4090, (struct lie){.missing_share = 0.70, .missing = LIE_RECOMPUTED}, "70 % recomputed", trials);
    spoof(H100, RTX4090, (struct lie){.missing_share = 0.70, .missing = LIE_FROM_HOST}, "70 % in host memory", trials);
    spoof(L40S, RTX4090, (struct lie){.missing_share = 0.50, .missing = LIE_FROM_HOST}, "50 % in host memory", trials);
    contradict("an A100's units and capability, named H100", of_an_a100, trials);
    contradict("a device divided into instances", divided, trials);
    contradict("a slice that sees a quarter of the units", sliced, trials);
    contradict("no GPU at all, and says so", named_cpu, trials);
}

/* -- shares -- */

static void shared(double share, enum verify_purpose purpose, const char *what, bool is_unseen, unsigned trials)
{
    struct tally tally = {.attack = what, .class_name = H100, .bound = is_unseen ? 1 : 0};
    for (unsigned i = 0; i < trials; i++) {
        struct verify_report report;
        struct lie lie = {0};
        struct contest contest = contest_of(H100, H100, &lie, purpose);
        struct machine *machine = &contest.machine;
        machine->fill_gbps *= share;
        machine->pass_gbps *= share;
        machine->walk_gbps *= share;
        machine->chain_tops *= share;
        contest_run(&contest, &report);
        tally_add(&tally, &report);
    }
    is_right &= tally_end(&tally);
    if (is_unseen)
        printf("    its credit is %.2f of 1\n", tally.credit_sum / tally.trials);
}

static void shares(unsigned trials)
{
    table_head("Shares of a device");
    shared(0.5, VERIFY_ADMISSION, "half of the time is another's", false, trials);
    shared(0.7, VERIFY_ADMISSION, "held back to 70 % of its rates", false, trials);
    shared(0.8, VERIFY_ADMISSION, "held back to 80 % of its rates", false, trials);
    shared(0.8, VERIFY_SPOT, "held back to 80 %, spot check", true, trials);
    shared(0.5, VERIFY_SPOT, "half of the time is another's, spot check", false, trials);
    shared(0.7, VERIFY_SPOT, "held back to 70 %, spot check", false, trials);
}

/* -- one device under two names -- */

/* Two sessions against one device. It works on one challenge after the other, or, with is_even, on both at once; and in
 * a slot the two are asked at the same moment. Each lie keeps what fits. */
struct pair {
    struct contest contests[2];
    struct lie lies[2];
    bool is_slotted;
    double now_s[2], busy_until_s; /* each session's clock; they are one in a slot */
};

static void step(struct pair *pair, unsigned i, double sent_s)
{
    struct contest *contest = &pair->contests[i];
    const double work_s = contest_work(contest);
    double ready_s = sent_s + work_s;
    if (contest->ask.type == PROBE_CHALLENGE) { /* on the device, when it is free */
        ready_s = fmax(sent_s, pair->busy_until_s) + work_s;
        pair->busy_until_s = ready_s;
    }
    contest_judge(contest, ready_s - sent_s);
    pair->now_s[i] = ready_s + contest->machine.rtt_s;
}

/* Both go through the barrier as the gateway does: whoever has a slotted frame waits until all have. */
static void run_slotted(struct pair *pair)
{
    struct slot_barrier slot;
    struct slot_go go;
    unsigned numbers[2];
    bool has_arrived[2] = {false, false}, has_left[2] = {false, false};
    slot_barrier_open(&slot);
    for (unsigned i = 0; i < 2; i++)
        numbers[i] = slot_barrier_join(&slot);
    while (!slot_barrier_is_over(&slot)) {
        const unsigned i = has_left[0] || (!has_left[1] && pair->now_s[1] < pair->now_s[0]) ? 1 : 0;
        unsigned at = has_arrived[i] || has_left[i] ? 1 - i : i;
        struct contest *contest = &pair->contests[at];
        enum slot_turn turn = SLOT_WAIT;
        if (contest->next == VERIFY_DONE) {
            turn = slot_barrier_leave(&slot, numbers[at], &go);
            has_left[at] = true;
        } else if (!contest->send.is_slotted) {
            step(pair, at, pair->now_s[at]);
            continue;
        } else {
            turn = slot_barrier_arrive(&slot, numbers[at], (int64_t)(pair->now_s[at] * 1e9), &go);
            has_arrived[at] = true;
        }
        must(turn != SLOT_LATE, "a slot was missed");
        if (turn != SLOT_GO)
            continue;
        double sent_s = 0;
        for (unsigned k = 0; k < 2; k++)
            if (has_arrived[k])
                sent_s = fmax(sent_s, pair->now_s[k]);
        for (unsigned n = 0; n < go.count; n++)
            for (unsigned k = 0; k < 2; k++)
                if (numbers[k] == go.members[n]) {
                    has_arrived[k] = false;
                    step(pair, k, sent_s);
                }
    }
}

/* One session after the other: what a market without slots would do. */
static void run_apart(struct pair *pair)
{
    for (unsigned i = 0; i < 2; i++)
        while (pair->contests[i].next != VERIFY_DONE)
            step(pair, i, fmax(pair->now_s[i], pair->now_s[0]));
}

static bool is_sold(const struct verify_report *report, const char *claimed)
{
    return report->result == VERIFY_PASSED && report->proven_class && strcmp(report->proven_class->name, claimed) == 0;
}

static void two_names(const char *what, const char *claimed, const char *real, struct lie lie, bool is_slotted,
                      bool is_unseen, unsigned trials)
{
    struct tally tally = {.attack = what, .class_name = claimed, .bound = is_unseen ? 1 : 0};
    for (unsigned t = 0; t < trials; t++) {
        struct pair pair = {.is_slotted = is_slotted};
        struct verify_report reports[2];
        for (unsigned i = 0; i < 2; i++) {
            pair.lies[i] = lie;
            pair.contests[i] = contest_of(claimed, real, &pair.lies[i], VERIFY_ADMISSION);
            pair.contests[i].key = i ? world.other_key : world.key;
            contest_open(&pair.contests[i]);
        }
        if (is_slotted)
            run_slotted(&pair);
        else
            run_apart(&pair);
        for (unsigned i = 0; i < 2; i++) {
            reports[i] = *verify_report(pair.contests[i].session);
            contest_close(&pair.contests[i]);
        }
        /* The pair is caught when either is: the worse of the two counts. */
        tally_add(&tally, &reports[is_sold(&reports[0], claimed) ? 1 : 0]);
    }
    is_right &= tally_end(&tally);
}

static void pairs(unsigned trials)
{
    const struct lie half = {.missing_share = 0.5, .missing = LIE_RECOMPUTED},
                     garbage = {.missing_share = 0.5, .missing = LIE_GARBAGE},
                     paged = {.missing_share = 0.5, .missing = LIE_FROM_HOST},
                     tenth = {.missing_share = 0.09, .missing = LIE_RECOMPUTED};
    table_head("One device under two names (the pair is caught when either is)");
    two_names("apart: what a slot is for", H100, H100, (struct lie){0}, false, true, trials);
    two_names("in a slot, half of the tiles each, recomputed", H100, H100, half, true, false, trials);
    two_names("in a slot, half of the tiles each, not kept", H100, H100, garbage, true, false, trials);
    two_names("in a slot, half of the tiles each, from the host", H100, H100, paged, true, false, trials);
    two_names("in a slot, with memory for both", H100, H100, (struct lie){0}, true, false, trials);
    two_names("an H200 as two H100 in a slot, 9 % recomputed", H100, H200, tenth, true, false, trials);
}

/* -- pings that are held back -- */

static struct verify_report pinged(const char *class_name, double rtt_s, double ping_s, enum verify_purpose purpose)
{
    struct verify_report report;
    struct lie lie = {0};
    struct contest contest = contest_of(class_name, class_name, &lie, purpose);
    contest.machine.rtt_s = rtt_s;
    contest.machine.ping_s = ping_s;
    contest_run(&contest, &report);
    return report;
}

static bool is_no_more(const char *what, double proven, double real)
{
    if (proven <= real * 1.000001)
        return true;
    printf("    %s: %.6g proven of %.6g   <-- WRONG\n", what, proven, real);
    return false;
}

static void pings(void)
{
    static const double delays[] = {0, 50 * MS, 150 * MS, 300 * MS}, rtts[] = {0, 10 * MS};
    printf("\nPings held back (GB/s, TOPS; never above what the device can do, nor above what it proves without)\n"
           "%-14s %6s %8s %10s %10s %10s  %s\n",
           "class", "rtt ms", "delay ms", "fill", "pass", "chain", "verdict");
    for (size_t c = 0; c < CLASSES; c++)
        for (size_t r = 0; r < sizeof(rtts) / sizeof(rtts[0]); r++) {
            struct proven without = {0};
            for (size_t d = 0; d < sizeof(delays) / sizeof(delays[0]); d++) {
                const struct machine real = machine_of(&world, classes[c]);
                const struct verify_report report = pinged(classes[c], rtts[r], delays[d], VERIFY_ADMISSION);
                const struct proven *proven = &report.proven;
                const double fill = proven->fill_gbps * MEMORY_SCALE, pass = proven->pass_gbps * MEMORY_SCALE,
                             chain = proven->chain_tops * CHAIN_SCALE;
                if (d == 0)
                    without = *proven;
                printf("%-14s %6.0f %8.0f %10.1f %10.1f %10.1f  %s%s%s\n", strchr(classes[c], '/') + 1, rtts[r] * 1e3,
                       delays[d] * 1e3, fill, pass, chain, verify_result_name(report.result),
                       report.reason[0] ? ": " : "", report.reason);
                is_right &= is_no_more("fill", fill, real.fill_gbps) && is_no_more("pass", pass, real.pass_gbps) &&
                            is_no_more("chain", chain, real.chain_tops);
                if (rtts[r] > 0) /* longer work makes less of the true round trip: nearer to the truth, never above */
                    continue;
                is_right &= is_no_more("fill", proven->fill_gbps, without.fill_gbps) &&
                            is_no_more("pass", proven->pass_gbps, without.pass_gbps) &&
                            is_no_more("chain", proven->chain_tops, without.chain_tops);
            }
        }
}

/* -- honest ones -- */

static void honest_at(double rtt_s, double noise, bool must_pass, unsigned trials)
{
    for (size_t c = 0; c < CLASSES; c++) {
        char name[64];
        snprintf(name, sizeof(name), "honest, %.0f ms away, times +-%.0f %%", rtt_s * 1e3, noise * 100);
        struct tally tally = {.attack = name, .class_name = classes[c], .bound = 1, .must_pass = must_pass};
        for (unsigned i = 0; i < trials; i++) {
            struct verify_report report;
            struct lie lie = {0};
            struct contest contest = contest_of(classes[c], classes[c], &lie, VERIFY_ADMISSION);
            contest.machine.rtt_s = rtt_s;
            contest.machine.noise = noise;
            contest_run(&contest, &report);
            tally_add(&tally, &report);
        }
        is_right &= tally_end(&tally);
    }
}

static void honest(unsigned trials)
{
    table_head("Honest devices");
    honest_at(10 * MS, 0.07, true, trials);
    honest_at(0, 0.10, true, trials / 10);
    honest_at(50 * MS, 0.05, true, trials / 10);
    honest_at(100 * MS, 0.05, true, trials / 10);
    honest_at(150 * MS, 0.05, false, trials / 10);
    honest_at(300 * MS, 0.05, false, trials / 10);
}

int main(void)
{
    const char *text = getenv("ATTACK_TRIALS");
    int64_t trials = 200;
    if (text)
        must(str_to_i64(str_of(text), &trials) && trials >= 10 && trials <= 1000000, "ATTACK_TRIALS: 10 or more");
    world_open(&world);
    names((unsigned)trials / 20);
    shares((unsigned)trials / 20);
    pairs((unsigned)trials / 20);
    pings();
    honest((unsigned)trials * 5 / 4); /* of four classes: 1,000 at 200 trials */
    world_close(&world);
    return is_right ? 0 : 1;
}
