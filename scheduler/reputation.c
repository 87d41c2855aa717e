/* The posterior is Beta(2 + good, 2 + bad); its lower bound is mean - 1.64 deviations (the normal approximation), which
 * with these priors stays monotone in good and bad over the whole range once it is clipped at 0. A newcomer's bound is
 * 0.13, after its admission (weight 3) 0.45: below everybody who serves well for a while, so that a new name never
 * pays. */
#include "scheduler/reputation.h"

#include <math.h>

#define HALF_LIFE_MS (7.0 * 24 * 3600 * 1000)
#define PRIOR 2.0
#define DEVIATIONS 1.64

static double sane(double count)
{
    return count > 0 && isfinite(count) ? count : 0;
}

static double kept(const struct reputation *reputation, int64_t now_ms)
{
    return now_ms > reputation->at_ms ? exp2(-(double)(now_ms - reputation->at_ms) / HALF_LIFE_MS) : 1.0;
}

void reputation_add(struct reputation *reputation, double good, double bad, int64_t now_ms)
{
    double keep = kept(reputation, now_ms);
    reputation->good = sane(reputation->good) * keep + sane(good);
    reputation->bad = sane(reputation->bad) * keep + sane(bad);
    if (now_ms > reputation->at_ms)
        reputation->at_ms = now_ms;
}

double reputation_bound(const struct reputation *reputation, int64_t now_ms)
{
    double keep = kept(reputation, now_ms);
    double a = PRIOR + sane(reputation->good) * keep, b = PRIOR + sane(reputation->bad) * keep;
    double mean = a / (a + b);
    double bound = mean - DEVIATIONS * sqrt(mean * (1 - mean) / (a + b + 1));
    return bound > 0 ? bound : 0;
}
