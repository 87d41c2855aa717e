/* What an event makes of a lease: choosing, money and stopping here, its machine in lease_machine.c. */
#include "scheduler/lease_moves.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* -- choosing, money -- */

static enum error on_picked(struct lease_step *step)
{
    struct lease *lease = step->lease;
    const struct lease_candidate *candidate = step->event->candidate;
    if (lease->state != LEASE_REQUESTED || !candidate || !lease_is_charged(lease) || !lease_has_room(lease))
        return ERR_MISMATCH;
    struct lease_attempt attempt = {.number = lease->attempts_made + 1,
                                    .epoch = lease->epoch,
                                    .state = ATTEMPT_CHOSEN,
                                    .of = *candidate,
                                    .at_ms = step->now_ms};
    if (!supply_tag_make(str_of(lease->installation), str_of(lease->id), attempt.number, attempt.tag))
        return ERR_BAD_INPUT;
    if (lease->attempt_count == LEASE_ATTEMPTS_MAX) {
        size_t oldest = 0;
        while (lease->attempts[oldest].state != ATTEMPT_CLOSED)
            oldest++;
        memmove(&lease->attempts[oldest], &lease->attempts[oldest + 1],
                (LEASE_ATTEMPTS_MAX - oldest - 1) * sizeof(lease->attempts[0]));
        lease->attempt_count--;
    }
    lease->attempts[lease->attempt_count++] = attempt;
    lease->attempts_made++;
    lease->attempts_of_search++;
    lease->price_usd_nano = candidate->price_usd_nano;
    lease->is_held = false;
    lease->reason[0] = '\0';
    lease_move(lease, LEASE_RESERVED);
    return ERR_NONE;
}

static enum error on_no_candidate(struct lease_step *step)
{
    if (step->lease->state != LEASE_REQUESTED || !lease_is_charged(step->lease))
        return ERR_MISMATCH;
    lease_end_search(step, step->event->message.len > 0 ? step->event->message : STR("no offer fits"));
    return ERR_NONE;
}

static enum error on_money(struct lease_step *step, bool is_held)
{
    struct lease *lease = step->lease;
    char reason[SUPPLY_MESSAGE_MAX];
    if (lease->state != LEASE_RESERVED && lease->state != LEASE_ACTIVE)
        return ERR_MISMATCH;
    lease->is_held = is_held;
    if (is_held) {
        lease->unfunded_ms = 0;
    } else if (lease->state == LEASE_ACTIVE) {
        lease->unfunded_ms = lease->unfunded_ms > 0 ? lease->unfunded_ms : step->now_ms;
        lease->hold_ms = step->now_ms + step->policy->watch_ms;
    } else {
        struct str message = step->event->message;
        snprintf(reason, sizeof(reason), "insufficient funds%s%.*s", message.len > 0 ? ": " : "",
                 message.len < 280 ? (int)message.len : 280, message.len > 0 ? message.ptr : "");
        lease_move_failed(step, str_of(reason));
    }
    return ERR_NONE;
}

static enum error on_capture_intended(struct lease_step *step)
{
    struct lease *lease = step->lease;
    int64_t to_ms = step->event->to_ms;
    if (lease->since_ms == 0 || lease->capture_intent_ms > 0 || to_ms <= lease->epoch_billed_ms ||
        to_ms > lease_epoch_ms(lease, step->now_ms))
        return ERR_MISMATCH;
    lease->capture_intent_ms = to_ms;
    return ERR_NONE;
}

static enum error on_captured(struct lease_step *step)
{
    struct lease *lease = step->lease;
    const struct lease_event *event = step->event;
    if (lease->capture_intent_ms == 0 || event->gpu_ms < 0 || event->cost_usd_nano < 0)
        return ERR_MISMATCH;
    if (__builtin_add_overflow(lease->billed_gpu_ms, event->gpu_ms, &lease->billed_gpu_ms))
        lease->billed_gpu_ms = INT64_MAX;
    if (__builtin_add_overflow(lease->cost_usd_nano, event->cost_usd_nano, &lease->cost_usd_nano))
        lease->cost_usd_nano = INT64_MAX;
    lease->epoch_billed_ms = lease->capture_intent_ms;
    lease->capture_intent_ms = 0;
    lease->captures++;
    lease->is_held = false; /* the hold is used up by so much: while active it is extended */
    lease->hold_ms = 0;
    return ERR_NONE;
}

static enum error on_released(struct lease_step *step)
{
    if (step->lease->state < LEASE_STOPPING || !lease_is_charged(step->lease))
        return ERR_MISMATCH;
    step->lease->is_released = true;
    return ERR_NONE;
}

/* -- stopping -- */

static enum error on_stop(struct lease_step *step)
{
    struct lease *lease = step->lease;
    struct lease_stop_due due = lease_stop_due(lease, step->policy);
    struct str message = step->event->message;
    if (lease->state >= LEASE_STOPPING)
        return ERR_NONE;
    if (due.at_ms > step->now_ms)
        due = (struct lease_stop_due){.at_ms = step->now_ms, .why = LEASE_STOP_ASKED};
    switch (due.why) {
    case LEASE_STOP_DEADLINE:
        lease_move_search_failed(step, message.len > 0 ? message : STR("it was not active within its deadline"));
        break;
    case LEASE_STOP_DURATION:
        lease_begin_stop(step, due.at_ms, message.len > 0 ? message : STR("its max_duration_s is over"));
        break;
    case LEASE_STOP_UNFUNDED:
        lease_begin_stop(step, step->now_ms, STR("insufficient funds: its hold could not be extended; add credits"));
        break;
    default:
        lease_begin_stop(step, due.at_ms, message.len > 0 ? message : STR("ended as asked"));
        break;
    }
    return ERR_NONE;
}

/* -- what follows from any event -- */

static void warn_active(struct lease_step *step)
{
    struct lease *lease = step->lease;
    const struct lease_attempt *current = lease_current_const(lease);
    int64_t silent_ms = step->now_ms - lease->seen_ms;
    if (lease->unfunded_ms > 0)
        snprintf(lease->reason, sizeof(lease->reason),
                 "warned: insufficient funds, it is stopped %" PRId64 " s after the warning unless credits are added",
                 step->policy->grace_ms / 1000);
    else if (silent_ms > step->policy->silent_ms)
        snprintf(lease->reason, sizeof(lease->reason), "nothing was heard of it from %s for %" PRId64 " s",
                 current->of.network, silent_ms / 1000);
    else
        LEASE_TELL(lease->reason, str_of(current->message)); /* what its proof lacked, where that is only reported */
}

static void end_epoch(struct lease *lease)
{
    lease->former_ms += lease->epoch_billed_ms;
    lease->epoch++;
    lease->since_ms = lease->until_ms = lease->seen_ms = 0;
    lease->epoch_billed_ms = 0;
    lease->price_usd_nano = 0;
}

static void follow(struct lease_step *step)
{
    struct lease *lease = step->lease;
    if (lease->state == LEASE_ACTIVE)
        warn_active(step);
    if (lease->state == LEASE_REQUESTED && lease->since_ms > 0 && lease_is_charged(lease))
        end_epoch(lease);
    if (lease->state == LEASE_STOPPING && lease->is_released && lease_is_cleared(lease)) {
        lease_move(lease, LEASE_ENDED);
        lease->ended_at_ms = step->now_ms;
    }
}

static enum error take(struct lease_step *step)
{
    switch (step->event->kind) {
    case LEASE_PICKED:
        return on_picked(step);
    case LEASE_NO_CANDIDATE:
        return on_no_candidate(step);
    case LEASE_HELD:
        return on_money(step, true);
    case LEASE_UNFUNDED:
        return on_money(step, false);
    case LEASE_CAPTURE_INTENDED:
        return on_capture_intended(step);
    case LEASE_CAPTURED:
        return on_captured(step);
    case LEASE_RELEASED:
        return on_released(step);
    case LEASE_STOP:
        return on_stop(step);
    default:
        break;
    }
    if (!step->attempt)
        return ERR_MISMATCH;
    switch (step->event->kind) {
    case LEASE_INTENDED:
        return lease_on_intended(step);
    case LEASE_CREATED:
    case LEASE_FOUND:
        return lease_on_exists(step);
    case LEASE_CREATE_FAILED:
        return lease_on_create_failed(step);
    case LEASE_FOUND_NOT:
        return lease_on_found_not(step);
    case LEASE_DESCRIBED:
        return lease_on_described(step);
    case LEASE_ASK_FAILED:
        return lease_on_ask_failed(step);
    case LEASE_DOOR:
        return lease_on_door(step);
    case LEASE_WENT:
        return lease_on_went(step);
    case LEASE_TERMINATED:
        return lease_on_terminated(step);
    default:
        return ERR_MISMATCH;
    }
}

enum error lease_apply(struct lease *lease, const struct lease_event *event, int64_t now_ms,
                       const struct lease_policy *policy)
{
    struct lease_step step = {.lease = lease, .event = event, .policy = policy, .now_ms = now_ms};
    if (event->attempt < lease->attempt_count)
        step.attempt = &lease->attempts[event->attempt];
    enum error error = take(&step);
    if (!error)
        follow(&step);
    return error;
}
