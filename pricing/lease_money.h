/* The money of GPU leases: held before anything is created, the hold extended while the lease runs, charged on the
 * cumulative duration, the rest returned.
 *
 * What a lease holds is a field of the tenant's holds under the lease's id. No gateway owns it and no sweep returns it:
 * it stays until lease_release, whichever gateway lives. Every call may be repeated, by any gateway, in any order:
 *   - a hold is asked for as what shall be held in all, never as what to add;
 *   - a charge says up to which duration a run has to be paid, and Redis keeps up to which it was: each millisecond is
 *     charged once, whoever asks how often with whatever boundaries. The sum over all charges of a run is exactly
 *     price x gpus x duration / 3,600,000, rounded once, half to even;
 *   - a release closes the lease for holds.
 * A charge is a usage record (worker: the lease's id, model: LEASE_MODEL) that settle.lua moves: hold first, then the
 * balance; what neither covers is plat:loss, and the supplier, account sup:<network>:pending, gets its part either way.
 *
 * A run is one machine that the lease was active on: a lease that was recovered elsewhere has further ones, numbered
 * from 0, each with its own price and its duration from 0.
 *
 * A key's budget is held of and charged beside the balance, in the period that now is: a lease is neither started nor
 * extended with more than the budget has left. What is charged counts in the period in which its slice ended.
 *
 * All calls are asynchronous. done fires once, in a coming turn, unless the call itself returned an error: ERR_NONE, or
 * ERR_CLOSED, ERR_DEADLINE, ERR_BUSY, ERR_CANCELLED: Redis did not answer, nothing is known, repeat the same call. */
#ifndef SLUICE_PRICING_LEASE_MONEY_H
#define SLUICE_PRICING_LEASE_MONEY_H

#include "core/redis.h"
#include "pricing/usage.h"

#define LEASE_MODEL "lease"  /* what usage and invoices show as the model */
#define LEASE_GPUS_MOST 4096 /* of one lease */
#define LEASE_RUNS_MOST 1000

typedef void lease_money_fn(void *ctx, enum error error);

/* The API key that the lease was made with. */
struct lease_budget {
    char key[ID_TEXT_MAX];
    char period[8];         /* "day" | "month" */
    int64_t limit_usd_nano; /* 0: the key has no budget */
};

/* What a run owes up to a duration. Copied by lease_charge. */
struct lease_bill {
    char lease[ID_TEXT_MAX]; /* "lse_..." */
    char tenant[ID_TEXT_MAX];
    struct lease_budget budget; /* key: always the lease's; limit 0: no budget */
    char network[USAGE_SUPPLIER_MAX], gpu[USAGE_GPU_MAX];
    int64_t price_usd_nano; /* a GPU-hour, as the tenant pays it (with the markup) */
    int32_t gpus;           /* 1 to LEASE_GPUS_MOST */
    int32_t take_rate_bps;  /* the operator's part of it: markup / (1 + markup); 0: all is the network's */
    int32_t run;            /* 0 to LEASE_RUNS_MOST - 1 */
    int64_t active_at_ms;   /* Unix ms: when this run became usable. Never changes within a run */
    int64_t until_ms;       /* to be paid: the run's first until_ms milliseconds */
};

/* Cost of a run's first duration_ms. False: a number out of range. */
MUST_CHECK bool lease_cost(int64_t price_usd_nano, int32_t gpus, int64_t duration_ms, int64_t *ret_usd_nano);
/* What should be held at a moment up to which a run has unpaid_ms not charged yet: these, the slice that begins, and
 * half a slice more, because nobody comes on the millisecond. False: a number out of range. */
MUST_CHECK bool lease_hold_want(int64_t price_usd_nano, int32_t gpus, int64_t unpaid_ms, int64_t slice_ms,
                                int64_t *ret_usd_nano);
/* The usage record of a run's milliseconds from from_ms to bill->until_ms, as number n (from 0) of the lease's charges.
 * False: a field that no ledger could take, or from_ms is not below until_ms. Pure. */
MUST_CHECK bool lease_record(const struct lease_bill *bill, int64_t from_ms, int64_t n, struct usage_record *ret);

/* At least want_usd_nano is held for the lease from now on (what it holds above that stays). done also:
 * ERR_NO_FUNDS: the balance, or what is left of the budget, cannot cover what is missing; nothing changed.
 * ERR_DENIED: the lease was released. ERR_BAD_INPUT at once: ids or an amount that cannot be. */
MUST_CHECK enum error lease_hold(struct redis *redis, const char *tenant, const char *lease, int64_t want_usd_nano,
                                 const struct lease_budget *budget /* may be NULL */, lease_money_fn *done, void *ctx);
/* Charges what bill->until_ms has beyond what was charged of this run; nothing if that is nothing. ERR_BAD_INPUT at
 * once: a bill that no ledger could take. */
MUST_CHECK enum error lease_charge(struct redis *redis, const struct lease_bill *bill, lease_money_fn *done, void *ctx);
/* What the lease still holds goes back; to be called after the last charge. Again is harmless. */
MUST_CHECK enum error lease_release(struct redis *redis, const char *tenant, const char *lease,
                                    const struct lease_budget *budget /* may be NULL */, lease_money_fn *done,
                                    void *ctx);

#endif
