/* The posterior of a dimension is Beta(2 + good, 2 + bad); its score is mean - 1.64 deviations (the normal
 * approximation), which with these priors stays monotone in good and bad over the whole range once it is clipped at 0.
 * The score of nobody is 0.13, after an admission (weight 3) 0.45: below everybody who serves well for a while, so that
 * a new name never pays. */
#include "scheduler/reputation.h"

#include <assert.h>
#include <math.h>

#define PRIOR 2.0
#define DEVIATIONS 1.64
#define WRONG_TIMES 20.0
#define MISMATCH_WEIGHT 10.0
#define MISMATCH_FORFEIT 0.5
#define CALL_UNIT_USD_NANO 1e7 /* a cent: a call of that value weighs the most */
#define CALL_MOST 0.5
#define CALL_LEAST 0.01
#define FAILURE_LEAST 0.05 /* a call that fails has no value to weigh it by */

static const char *const names[REPUTATION_DIMENSIONS] = {
    [REPUTATION_HARDWARE] = "hardware",
    [REPUTATION_CORRECTNESS] = "correctness",
    [REPUTATION_AVAILABILITY] = "availability",
    [REPUTATION_NETWORK] = "network",
};

static const double exponents[REPUTATION_DIMENSIONS] = {
    [REPUTATION_HARDWARE] = 0.35,
    [REPUTATION_CORRECTNESS] = 0.35,
    [REPUTATION_AVAILABILITY] = 0.2,
    [REPUTATION_NETWORK] = 0.1,
};

const char *reputation_dimension_name(enum reputation_dimension dimension)
{
    assert((unsigned)dimension < REPUTATION_DIMENSIONS);
    return names[dimension];
}

static double clip(double value, double most)
{
    return value > 0 ? value < most ? value : most : 0; /* NaN becomes 0, infinity the most */
}

static double weight_of(enum verify_purpose purpose)
{
    switch (purpose) {
    case VERIFY_ADMISSION:
        return 3;
    case VERIFY_SPOT:
        return 1;
    case VERIFY_LEASE:
        break;
    }
    return 0.5;
}

/* -- evidence -- */

struct reputation_evidence reputation_of_proof(enum verify_purpose purpose, double credit, bool has_network)
{
    struct reputation_evidence evidence = {.good = {0}};
    double weight = weight_of(purpose);
    credit = clip(credit, 1);
    evidence.good[REPUTATION_HARDWARE] = weight * credit;
    evidence.bad[REPUTATION_HARDWARE] = weight * (1 - credit);
    evidence.good[REPUTATION_CORRECTNESS] = weight;
    evidence.good[REPUTATION_AVAILABILITY] = weight;
    evidence.good[REPUTATION_NETWORK] = has_network ? weight : 0;
    return evidence;
}

struct reputation_evidence reputation_of_wrong(enum verify_purpose purpose)
{
    struct reputation_evidence evidence = {.good = {0}};
    double weight = weight_of(purpose), spot = weight_of(VERIFY_SPOT);
    evidence.bad[REPUTATION_HARDWARE] = WRONG_TIMES * (weight > spot ? weight : spot);
    evidence.bad[REPUTATION_CORRECTNESS] = evidence.bad[REPUTATION_HARDWARE];
    evidence.forfeit[REPUTATION_HARDWARE] = evidence.forfeit[REPUTATION_CORRECTNESS] = 1;
    return evidence;
}

struct reputation_evidence reputation_of_late(enum verify_purpose purpose)
{
    struct reputation_evidence evidence = {.good = {0}};
    evidence.bad[REPUTATION_AVAILABILITY] = weight_of(purpose);
    return evidence;
}

struct reputation_evidence reputation_of_mismatch(void)
{
    struct reputation_evidence evidence = {.good = {0}};
    evidence.bad[REPUTATION_CORRECTNESS] = MISMATCH_WEIGHT;
    evidence.forfeit[REPUTATION_CORRECTNESS] = MISMATCH_FORFEIT;
    return evidence;
}

struct reputation_evidence reputation_of_calls(uint64_t done, uint64_t failed, int64_t value_usd_nano)
{
    struct reputation_evidence evidence = {.good = {0}};
    double mean = done && value_usd_nano > 0 ? (double)value_usd_nano / (double)done : 0;
    double weight = clip(0.5 * log2(1 + mean / CALL_UNIT_USD_NANO), CALL_MOST);
    double good = weight > CALL_LEAST ? weight : CALL_LEAST, bad = weight > FAILURE_LEAST ? weight : FAILURE_LEAST;
    evidence.good[REPUTATION_AVAILABILITY] = clip((double)done * good, REPUTATION_COUNT_MAX);
    evidence.bad[REPUTATION_AVAILABILITY] = clip((double)failed * bad, REPUTATION_COUNT_MAX);
    return evidence;
}

void reputation_merge(struct reputation_evidence *evidence, const struct reputation_evidence *more)
{
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        evidence->good[i] += more->good[i];
        evidence->bad[i] += more->bad[i];
        evidence->forfeit[i] = 1 - (1 - clip(evidence->forfeit[i], 1)) * (1 - clip(more->forfeit[i], 1));
    }
}

/* -- counts -- */

static double kept(int64_t from_ms, int64_t to_ms, double half_life_ms)
{
    return to_ms > from_ms ? exp2(-((double)to_ms - (double)from_ms) / half_life_ms) : 1.0;
}

struct reputation reputation_at(const struct reputation *reputation, int64_t now_ms)
{
    struct reputation now = *reputation;
    double keep_good = kept(now.at_ms, now_ms, (double)REPUTATION_GOOD_HALF_LIFE_MS);
    double keep_bad = kept(now.at_ms, now_ms, (double)REPUTATION_BAD_HALF_LIFE_MS);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        now.good[i] = clip(now.good[i], REPUTATION_COUNT_MAX) * keep_good;
        now.bad[i] = clip(now.bad[i], REPUTATION_COUNT_MAX) * keep_bad;
    }
    if (now_ms > now.at_ms)
        now.at_ms = now_ms;
    return now;
}

void reputation_add(struct reputation *reputation, const struct reputation_evidence *evidence, int64_t now_ms)
{
    *reputation = reputation_at(reputation, now_ms);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        double good = reputation->good[i] * (1 - clip(evidence->forfeit[i], 1)) + clip(evidence->good[i], INFINITY);
        double bad = reputation->bad[i] + clip(evidence->bad[i], INFINITY);
        reputation->good[i] = clip(good, REPUTATION_COUNT_MAX);
        reputation->bad[i] = clip(bad, REPUTATION_COUNT_MAX);
    }
}

static double bound_of(double good, double bad)
{
    double a = PRIOR + good, b = PRIOR + bad;
    double mean = a / (a + b);
    return clip(mean - DEVIATIONS * sqrt(mean * (1 - mean) / (a + b + 1)), 1);
}

double reputation_score(const struct reputation *reputation, enum reputation_dimension dimension, int64_t now_ms)
{
    assert((unsigned)dimension < REPUTATION_DIMENSIONS);
    const struct reputation now = reputation_at(reputation, now_ms);
    return bound_of(now.good[dimension], now.bad[dimension]);
}

double reputation_bound(const struct reputation *reputation, int64_t now_ms)
{
    const struct reputation now = reputation_at(reputation, now_ms);
    double score[REPUTATION_DIMENSIONS], mean = 1, least;
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        score[i] = bound_of(now.good[i], now.bad[i]);
        mean *= pow(score[i], exponents[i]);
    }
    least = fmin(score[REPUTATION_HARDWARE], score[REPUTATION_CORRECTNESS]);
    return fmin(mean, least);
}
