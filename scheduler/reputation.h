/* Reputation: decayed Beta posteriors, one for each dimension of what a worker is trusted with. Pure.
 *
 * Proofs move hardware, correctness, availability and network; calls move availability alone; a referee's verdict moves
 * correctness. The total is the weighted geometric mean of the four scores, and never more than the least of hardware
 * and correctness: nothing but the gateway's own checks can lift a worker, however much it serves or is paid.
 *
 * Good counts fade with a half-life of 7 days, bad ones with 30. A wrong answer forfeits all the good in hardware and
 * correctness: whatever a worker has proven before, it then stands below a newcomer until it has proven itself anew.
 * The script beside worker_store.c computes the same. */
#ifndef SLUICE_SCHEDULER_REPUTATION_H
#define SLUICE_SCHEDULER_REPUTATION_H

#include "probes/verifier.h"

#include <stdbool.h>
#include <stdint.h>

enum reputation_dimension {
    REPUTATION_HARDWARE,
    REPUTATION_CORRECTNESS,
    REPUTATION_AVAILABILITY,
    REPUTATION_NETWORK,
    REPUTATION_DIMENSIONS
};
const char *reputation_dimension_name(enum reputation_dimension dimension); /* "hardware", ... */

#define REPUTATION_COUNT_MAX 1000.0 /* of good and of bad, so that no flood is remembered for years */
#define REPUTATION_GOOD_HALF_LIFE_MS (INT64_C(7) * 24 * 3600 * 1000)
#define REPUTATION_BAD_HALF_LIFE_MS (INT64_C(30) * 24 * 3600 * 1000)

struct reputation {
    double good[REPUTATION_DIMENSIONS], bad[REPUTATION_DIMENSIONS]; /* decayed counts on top of the prior */
    int64_t at_ms;                                                  /* when they were last decayed */
};

/* What one observation changes: a share of the good so far is forfeited, then counts are added. */
struct reputation_evidence {
    double good[REPUTATION_DIMENSIONS], bad[REPUTATION_DIMENSIONS];
    double forfeit[REPUTATION_DIMENSIONS]; /* [0, 1] */
};

/* A proof whose answers were all right. credit: proven_credit() of its rates, [0, 1]; 1 for a class without floors.
 * has_network: pings or transfers were measured. Weights: admission 3, spot check 1, beside a lease 0.5. */
struct reputation_evidence reputation_of_proof(enum verify_purpose purpose, double credit, bool has_network);
/* A wrong answer: 20 times the weight, and never less than of a spot check, against hardware and correctness, whose
 * good is forfeited. */
struct reputation_evidence reputation_of_wrong(enum verify_purpose purpose);
struct reputation_evidence reputation_of_late(enum verify_purpose purpose); /* no answer in time: availability alone */
/* A job's answer that a referee found wrong: half of the good in correctness is forfeited. Milder than a wrong proof,
 * for answers of models are compared with a tolerance. */
struct reputation_evidence reputation_of_mismatch(void);
/* Calls that ended well and calls that the worker failed; value: what the good ones cost, in USD nano. */
struct reputation_evidence reputation_of_calls(uint64_t done, uint64_t failed, int64_t value_usd_nano);
/* Both together. */
void reputation_merge(struct reputation_evidence *evidence, const struct reputation_evidence *more);

void reputation_add(struct reputation *reputation, const struct reputation_evidence *evidence, int64_t now_ms);
/* The counts as they are at that time. */
struct reputation reputation_at(const struct reputation *reputation, int64_t now_ms);
/* Lower confidence bound (95%, one-sided) of the dimension's posterior with the newcomers' prior; [0, 1]. */
double reputation_score(const struct reputation *reputation, enum reputation_dimension dimension, int64_t now_ms);
double reputation_bound(const struct reputation *reputation, int64_t now_ms); /* the total; [0, 1] */

#endif
