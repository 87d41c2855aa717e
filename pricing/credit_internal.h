/* What credit.c (arithmetic) and credit_gate.c (Redis) share. */
#ifndef SLUICE_PRICING_CREDIT_INTERNAL_H
#define SLUICE_PRICING_CREDIT_INTERNAL_H

#include "core/money.h"
#include "pricing/credit.h"
#include "pricing/keys.h"

#define SLICE_LEAST (USD_NANO / 20)
#define SLICE_MOST (USD_NANO * 5)
#define WANT_MOST (USD_NANO * 10) /* a call that wants more does not make slices larger still */
#define WANTS_A_SLICE 16          /* a slice is enough for this many of the largest calls */
/* Without a sign of life from Redis the gateway stops lending its holds a little before Redis takes them back. */
#define LOCAL_LIFE_NS ((HOLD_LIFE_MS - 5000) * NS_PER_MS)

/* In Redis this gateway holds: left + what running calls took + what was charged and is not settled yet. */
struct credit {
    _Alignas(64) _Atomic int64_t left;
    _Atomic int64_t last_take_ns; /* to the second */
    /* On a line of their own: read at each take, seldom written. */
    _Alignas(64) _Atomic int64_t valid_until_ns; /* of `left`; 0: never had any */
    _Atomic int64_t period_ms, period_end_ms;    /* that `left` belongs to; budgets only */
    _Atomic int64_t slice, largest_want, granted_last;
    _Atomic int64_t sliced_at_ns;
    _Atomic int64_t dry_until_ns; /* Redis had nothing (more) to give: ask again after this */
    _Atomic bool renewing;
    _Atomic uint32_t takes_open; /* questions for a slice that Redis has not answered */
    _Atomic uint64_t grants;
    _Atomic uint64_t gone_grants; /* Redis had no hold of ours when this many had been granted */
    _Atomic uint32_t refs;
    enum credit_kind kind;
    bool is_daily;
    int64_t limit_usd_nano;
    int64_t (*mono_ns)(void), (*wall_ms)(void); /* the clocks; tests set their own */
    char id[MONEY_ID_MAX + 1];
};

bool credit_is_valid(const struct credit *credit, int64_t mono_ns);
/* A slice came: asked for at sent_ns, counted in period_ms (0 for balances). */
void credit_grant(struct credit *credit, int64_t amount, int64_t sent_ns, int64_t period_ms);
void credit_extend(struct credit *credit, int64_t sent_ns); /* Redis has kept the hold alive */
void credit_lapse(struct credit *credit, int64_t left);     /* Redis has no hold of ours: `left` of it never was */
int64_t credit_next_slice(struct credit *credit);
int64_t credit_period_end(const struct credit *credit, int64_t period_ms);

#endif
