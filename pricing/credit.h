/* Credit: money (or a key's budget) that this gateway holds for a tenant, so that admission is local arithmetic.
 *
 * A credit is process-wide and shared by all reactors: its amounts are atomics, no locks. In Redis the same amount is
 * held under this gateway's name; a gateway that dies gives its holds back within 60 s. See pricing/README.md. */
#ifndef SLUICE_PRICING_CREDIT_H
#define SLUICE_PRICING_CREDIT_H

#include "core/id.h"
#include "core/redis.h"
#include <stdatomic.h>
#include <stdint.h>

enum credit_kind {
    CREDIT_BALANCE, /* a tenant's prepaid balance; id = tenant */
    CREDIT_BUDGET,  /* a key's spending limit a period; id = key */
};

struct credit; /* atomically reference-counted */

/* gateway_id, here and in settle.h, names one run of a gateway process: make a new one at each start (id_new). What an
 * earlier run still holds is charged for its own records and then comes back by the sweep.
 *
 * limit_usd_nano, period ("day" | "month") only for CREDIT_BUDGET. Starts with one reference. NULL: out of memory. */
struct credit *credit_new(enum credit_kind kind, const char *id, int64_t limit_usd_nano, const char *period);
struct credit *credit_ref(struct credit *credit);
struct credit *credit_unref(struct credit *credit); /* returns NULL */

/* Takes up to want_usd_nano (>= 1) for a call that begins, all of what is left if less. 0: nothing is left here. */
int64_t credit_take(struct credit *credit, int64_t want_usd_nano);
/* A call of that hold ended and costs cost: draws the rest of the cost from what is left, gives back what the hold had
 * too much. Returns what was charged (<= cost); the difference is the operator's loss. The charged amount stays counted
 * as held in Redis until the usage record is settled. */
int64_t credit_charge(struct credit *credit, int64_t held_usd_nano, int64_t cost_usd_nano);
int64_t credit_left(const struct credit *credit);
/* What a budget's period is limited to; *ret_period: "day" or "month". Not of balances. */
int64_t credit_limit(const struct credit *credit, const char **ret_period);
/* Start (Unix ms) of the budget period the credit counts in now; 0 for balances. */
int64_t credit_period_start(const struct credit *credit, int64_t wall_ms);

/* -- renewal: one gate a thread (reactor or control), over that thread's Redis connection -- */
struct credit_gate;
struct credit_waiter {
    void (*on_answer)(struct credit_waiter *waiter, bool has_funds, enum error error); /* once, in a coming turn */
    struct credit_waiter *next, **link;                                                /* of the gate */
};
MUST_CHECK enum error credit_gate_open(struct loop *loop, struct redis *redis, const char *gateway_id,
                                       struct credit_gate **ret);
struct credit_gate *credit_gate_free(struct credit_gate *gate);
/* For a call that found credit_take() == 0: asks Redis for another slice (calls that wait for the same credit share one
 * question; within 100 ms of a "no" the answer is "no" without asking). error is set when Redis did not answer: the
 * caller then answers 503. */
void credit_wait(struct credit_gate *gate, struct credit *credit, struct credit_waiter *waiter);
void credit_wait_cancel(struct credit_waiter *waiter); /* the caller hung up; harmless when answered */
/* To be called after each credit_take: renews in the background when less than half a slice is left. No system call
 * in the usual case. */
void credit_renew_if_low(struct credit_gate *gate, struct credit *credit);
/* Every ~10 s by the control thread for each credit: extends this gateway's holds' life (60 s) and gives back what is
 * idle. At exit: gives everything back that is not needed for records still to be settled. */
void credit_keep_alive(struct credit_gate *gate, struct credit *credit);
void credit_give_back(struct credit_gate *gate, struct credit *credit);
/* True when no question to Redis is open: at exit, turn the loop until then (for a bounded time) before freeing. */
bool credit_gate_is_idle(const struct credit_gate *gate);

#endif
