/* Which offer a lease tries next. Pure. */
#ifndef SLUICE_SCHEDULER_LEASE_PICK_H
#define SLUICE_SCHEDULER_LEASE_PICK_H

#include "scheduler/capacity_memory.h"

/* A ranked offer, best first, as the market's query gave it (constraints of the request hold already). */
struct lease_ranked {
    struct lease_candidate candidate;
    double score;       /* lower is better */
    uint32_t available; /* 0: not told */
    bool is_stale;      /* older than its network's limit: not sold */
    bool is_down;       /* its network's breaker is open */
};
enum lease_skip { SKIP_STALE, SKIP_DOWN, SKIP_TRIED, SKIP_NO_CAPACITY, SKIP_PRICE, SKIP_QUOTE, SKIP_COUNT };
struct lease_picked {
    size_t index;                     /* into ranked; SIZE_MAX: none */
    unsigned skipped[SKIP_COUNT];     /* why others were not taken */
    char message[SUPPLY_MESSAGE_MAX]; /* when none: for people, with the counts and the cheapest one over the cap */
    enum supply_error error;          /* when none: NO_CAPACITY, PRICE_MOVED */
};
/* Among the best that may be tried, those whose scores are within 0.02 of the best, weighted by what they have
 * available, one at random (random: 64 fresh bits), so that gateways do not herd. An offer that this search has tried
 * is not tried again, unless it was only rate limited or transient and nothing else is left. Price cap and quote with
 * its tolerance are looked at again here. */
struct lease_picked lease_pick(const struct lease *lease, const struct lease_ranked *ranked, size_t count,
                               const struct capacity_memory *memory, int64_t now_ms, uint64_t random);

#endif
