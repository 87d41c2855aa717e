/* Reputation: a decayed Beta posterior, moved by probes, finished and failed work. Pure. */
#ifndef SLUICE_SCHEDULER_REPUTATION_H
#define SLUICE_SCHEDULER_REPUTATION_H

#include <stdint.h>

struct reputation {
    double good, bad; /* decayed counts on top of the prior */
    int64_t at_ms;    /* when they were last decayed */
};

void reputation_add(struct reputation *reputation, double good, double bad, int64_t now_ms); /* half-life 7 days */
/* Lower confidence bound (95%, one-sided) of the posterior with the newcomers' prior; [0, 1]. */
double reputation_bound(const struct reputation *reputation, int64_t now_ms);

#endif
