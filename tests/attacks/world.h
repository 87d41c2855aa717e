/* Where attacks are played: a gateway's verifier, provers with devices that lie, and a clock that is a model.
 *
 * Sizes are those of real GPU classes divided by MEMORY_SCALE and CHAIN_SCALE, and rates are too, so that every time is
 * that of the real size: an H100 has 4 MiB here, a PASS over it lasts 31 ms, and a CPU plays it in a few. Nothing
 * sleeps and nothing is measured: times come of the work that the device really did (lie.h), at the rates of the
 * machine that the cheat has, as if reading, computing and copying overlapped perfectly, which is the cheat's best
 * case. */
#ifndef SLUICE_TESTS_ATTACKS_WORLD_H
#define SLUICE_TESTS_ATTACKS_WORLD_H

#include "probes/prover.h"
#include "probes/verifier.h"
#include "tests/attacks/lie.h"

#define MEMORY_SCALE 20480.0
#define CHAIN_SCALE (128.0 * 128 * 128 * 10) /* n = 64 for 8192, and a tenth of the steps */

struct machine { /* what stands behind a prover: real figures, GB/s and TOPS */
    double fill_gbps, pass_gbps, walk_gbps, chain_tops, host_gbps, peer_gbps;
    double rtt_s, ping_s, noise; /* ping_s: held back from pings; noise: +- that share of every time */
    double net_gbps;
};

struct world {
    struct catalogue *real, *scaled;
    struct chain_pool *pool;
    struct signing_key *key, *other_key;
};
void world_open(struct world *world);
void world_close(struct world *world);

/* The machine that the class's references are of, 10 ms away. */
struct machine machine_of(const struct world *world, const char *class_name);
/* What a device of that class tells of itself, without a contradiction. */
struct probe_claim claim_of(const struct world *world, const char *class_name);
const char *driver_name_of(const char *class_name);
/* Seconds for that work, before noise and the round trip. */
double machine_seconds(const struct machine *machine, const struct lie_work *work);

/* -- a session, frame by frame -- */

/* Changes the answer to a frame, or how long it took; round counts the answers of the session. */
typedef void (*tamper)(void *ctx, const struct probe_frame *ask, unsigned round, struct buf *answer, int64_t *took_ns);

struct contest {
    /* given */
    const struct world *world;
    struct verify_options options;
    struct machine machine;
    struct lie *lie;
    const struct signing_key *key; /* NULL: the world's */
    tamper tamper;
    void *ctx;
    /* the rest is the contest's */
    struct prover *prover;
    struct verify_session *session;
    enum verify_next next;
    struct verify_send send;
    struct probe_frame ask; /* what is to be sent, decoded */
    struct buf answer;
    unsigned round;
    bool is_committed; /* a challenge was answered: may be opened */
    uint8_t committed[PROBE_ID_BYTES];
};
struct verify_options options_for(const struct world *world, enum verify_purpose purpose, const char *claimed);
void contest_open(struct contest *contest); /* up to the first frame */
/* The prover's answer to the frame that is to be sent; seconds of the device's own work. */
double contest_work(struct contest *contest);
/* Noise, round trip, bytes; then the verifier's turn. work_s: until the answer was ready. */
void contest_judge(struct contest *contest, double work_s);
void contest_close(struct contest *contest);
/* All of that. */
void contest_run(struct contest *contest, struct verify_report *ret);

uint64_t chance(void); /* reproducible */
double chance_between(double least, double most);

/* -- the table -- */

#define TALLY_REASONS 3
struct tally {
    const char *attack, *class_name;
    double bound;                    /* at most that share of the trials may pass */
    bool must_pass;                  /* an honest one: every one passes, */
    unsigned trials, passed, others; /* others: passed as another class than claimed */
    unsigned by_result[VERIFY_LOST + 1];
    double ratio_least, ratio_most, credit_sum;
    struct {
        char text[128];
        unsigned count;
    } reasons[TALLY_REASONS];
};
/* Counts as passed: the result is PASSED, and as the claimed class or one that rates cannot tell from it. */
void tally_add(struct tally *tally, const struct verify_report *report);
void table_head(const char *title);
/* Prints the row. false: more passed than the bound allows, by six standard deviations, or an honest one did not. */
bool tally_end(const struct tally *tally);

void must(bool is_true, const char *what); /* ends the program when not */

#endif
