/* What a lease needs next. */
#include "scheduler/lease_moves.h"

#define UNKNOWN_NETWORK_MS 60000
#define FULL_MS 5000

/* Candidates for the next action, offered in the order of their importance: the first one that is due is it. */
struct plan {
    struct lease_action due;
    bool is_due;
    int64_t now_ms, wait_ms;
};

static void offer(struct plan *plan, enum lease_do what, size_t attempt, int64_t at_ms)
{
    if (plan->is_due)
        return;
    if (at_ms <= plan->now_ms) {
        plan->due = (struct lease_action){.what = what, .attempt = attempt};
        plan->is_due = true;
    } else if (at_ms < plan->wait_ms) {
        plan->wait_ms = at_ms;
    }
}

/* Asking the attempt's network. One that is not configured (any more) cannot be asked. */
static void offer_ask(struct plan *plan, const struct lease *lease, const struct lease_policy *policy,
                      enum lease_do what, size_t attempt)
{
    const struct lease_attempt *of = &lease->attempts[attempt];
    if (lease_terms_of(policy, of).is_known)
        offer(plan, what, attempt, of->look_ms);
    else
        offer(plan, LEASE_DO_WAIT, attempt, plan->now_ms + UNKNOWN_NETWORK_MS);
}

static void offer_charge(struct plan *plan, const struct lease *lease)
{
    if (lease->capture_intent_ms > 0)
        offer(plan, LEASE_DO_CAPTURE, 0, 0);
    else
        offer(plan, LEASE_DO_INTEND_CAPTURE, 0, 0);
}

static void plan_search(struct plan *plan, const struct lease *lease)
{
    if (!lease_is_charged(lease)) /* the epoch that was lost */
        offer_charge(plan, lease);
    else if (lease_has_room(lease))
        offer(plan, LEASE_DO_PICK, 0, lease->pick_ms);
    else
        offer(plan, LEASE_DO_WAIT, 0, plan->now_ms + FULL_MS);
}

static void plan_door(struct plan *plan, const struct lease *lease, const struct lease_policy *policy, size_t last)
{
    const struct lease_attempt *attempt = &lease->attempts[last];
    /* A command that could not be started for so long will not be: the look at the door gives the attempt up. */
    bool is_to_go = attempt->proven_ms > 0 && plan->now_ms < attempt->proven_ms + policy->probing_ms;
    offer_ask(plan, lease, policy, LEASE_DO_DESCRIBE, last);
    offer(plan, is_to_go ? LEASE_DO_GO : LEASE_DO_DOOR, last, attempt->door_ms);
}

static void plan_active(struct plan *plan, const struct lease *lease, const struct lease_policy *policy, size_t last)
{
    struct lease_terms terms = lease_terms_of(policy, &lease->attempts[last]);
    int64_t slice_end_ms = lease->since_ms + lease->epoch_billed_ms + policy->slice_ms;
    offer_ask(plan, lease, policy, LEASE_DO_DESCRIBE, last);
    if (terms.probe != LEASE_PROBE_OFF)
        offer(plan, LEASE_DO_DOOR, last, lease->attempts[last].door_ms);
    if (lease->capture_intent_ms > 0)
        offer_charge(plan, lease);
    else if (lease_epoch_ms(lease, plan->now_ms) - lease->epoch_billed_ms >= policy->slice_ms)
        offer_charge(plan, lease);
    else if (slice_end_ms > plan->now_ms) /* else it waits until the lease is seen again */
        offer(plan, LEASE_DO_WAIT, 0, slice_end_ms);
    if (!lease->is_held)
        offer(plan, LEASE_DO_HOLD, last, lease->hold_ms);
}

static void plan_current(struct plan *plan, const struct lease *lease, const struct lease_policy *policy)
{
    size_t last = lease->attempt_count - 1; /* but in LEASE_REQUESTED there is one */
    switch (lease->state) {
    case LEASE_REQUESTED:
        plan_search(plan, lease);
        break;
    case LEASE_RESERVED:
        offer(plan, lease->is_held ? LEASE_DO_CREATE : LEASE_DO_HOLD, last, 0);
        break;
    case LEASE_PROVISIONING:
        offer_ask(plan, lease, policy,
                  lease->attempts[last].state == ATTEMPT_CREATING ? LEASE_DO_FIND : LEASE_DO_DESCRIBE, last);
        break;
    case LEASE_PROBING:
        plan_door(plan, lease, policy, last);
        break;
    case LEASE_ACTIVE:
        plan_active(plan, lease, policy, last);
        break;
    default:
        break;
    }
}

/* What earlier attempts left behind. */
static void plan_clearing(struct plan *plan, const struct lease *lease, const struct lease_policy *policy)
{
    for (size_t i = 0; i < lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        if (attempt->state == ATTEMPT_SEEKING)
            offer_ask(plan, lease, policy, LEASE_DO_FIND, i);
        else if (attempt->state == ATTEMPT_ENDING)
            offer_ask(plan, lease, policy, attempt->said_ended_ms > 0 ? LEASE_DO_DESCRIBE : LEASE_DO_TERMINATE, i);
    }
}

static void plan_closing(struct plan *plan, const struct lease *lease)
{
    if (!lease_is_charged(lease))
        offer_charge(plan, lease);
    else if (!lease->is_released)
        offer(plan, LEASE_DO_RELEASE, 0, 0);
}

struct lease_action lease_next(const struct lease *lease, int64_t now_ms, const struct lease_policy *policy)
{
    struct plan plan = {.now_ms = now_ms, .wait_ms = INT64_MAX};
    offer(&plan, LEASE_DO_STOP, 0, lease_stop_due(lease, policy).at_ms);
    plan_current(&plan, lease, policy);
    plan_clearing(&plan, lease, policy);
    if (lease->state >= LEASE_STOPPING)
        plan_closing(&plan, lease);
    if (plan.is_due)
        return plan.due;
    if (plan.wait_ms == INT64_MAX)
        return (struct lease_action){.what = LEASE_DO_NOTHING};
    return (struct lease_action){.what = LEASE_DO_WAIT, .until_ms = plan.wait_ms};
}
