/* How attempts and leases end: given up, failed over, lost, stopped. */
#include "scheduler/lease_moves.h"

#include <stdio.h>
#include <string.h>

#define PAUSES_MAX 4 /* doublings of retry_ms */

/* Cut where it does not fit, between characters. */
void lease_tell(char *to, size_t size, struct str text)
{
    size_t len = text.ptr ? text.len : 0;
    if (len >= size) {
        len = size - 1;
        while (len > 0 && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
            len--;
    }
    if (len > 0)
        memmove(to, text.ptr, len);
    to[len] = '\0';
}

int64_t lease_later_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* -- an attempt's end -- */

/* What it made, or may have made, is to be ended. */
static void retire(struct lease_attempt *attempt, int64_t now_ms)
{
    static const enum attempt_state to[] = {[ATTEMPT_CHOSEN] = ATTEMPT_CLOSED,
                                            [ATTEMPT_CREATING] = ATTEMPT_SEEKING,
                                            [ATTEMPT_BOOTING] = ATTEMPT_ENDING,
                                            [ATTEMPT_UP] = ATTEMPT_ENDING};
    if (attempt->state > ATTEMPT_UP)
        return;
    lease_move_attempt(attempt, to[attempt->state]);
    attempt->ending_ms = now_ms;
    attempt->said_ended_ms = 0;
    attempt->tries = 0;
    attempt->look_ms = now_ms;
}

void lease_close_attempt(struct lease_attempt *attempt, int64_t now_ms)
{
    lease_move_attempt(attempt, ATTEMPT_CLOSED);
    if (attempt->ending_ms == 0)
        attempt->ending_ms = now_ms;
}

void lease_end_instance(struct lease_attempt *attempt, struct str instance, int64_t now_ms)
{
    lease_move_attempt(attempt, ATTEMPT_ENDING);
    LEASE_TELL(attempt->instance, instance);
    attempt->known_ms = now_ms;
    if (attempt->ending_ms == 0)
        attempt->ending_ms = now_ms;
    attempt->said_ended_ms = 0;
    attempt->tries = 0;
    attempt->look_ms = now_ms;
}

/* -- the lease's end -- */

/* Billing ends at at_ms, but never before what is charged already. */
static void stop_billing(struct lease *lease, int64_t at_ms)
{
    if (lease->since_ms == 0 || lease->until_ms > 0)
        return;
    int64_t charged_ms = lease->since_ms + lease_later_of(lease->epoch_billed_ms, lease->capture_intent_ms);
    if (at_ms > lease_duration_end_ms(lease))
        at_ms = lease_duration_end_ms(lease);
    lease->until_ms = lease_later_of(at_ms, charged_ms);
}

static void retire_current(struct lease *lease, int64_t now_ms)
{
    struct lease_attempt *current = lease_current(lease);
    if (current)
        retire(current, now_ms);
    lease->endpoint_count = 0;
    lease->is_held = false;
    lease->unfunded_ms = 0;
}

/* At at_ms it was stopped; what ran unseen for long by then is billed to when it was seen. */
void lease_begin_stop(struct lease_step *step, int64_t at_ms, struct str reason)
{
    struct lease *lease = step->lease;
    if (at_ms > step->now_ms)
        at_ms = step->now_ms;
    stop_billing(lease, at_ms - lease->seen_ms > step->policy->silent_ms ? lease->seen_ms : at_ms);
    retire_current(lease, step->now_ms);
    lease_move(lease, LEASE_STOPPING);
    LEASE_TELL(lease->reason, reason);
}

void lease_move_failed(struct lease_step *step, struct str reason)
{
    struct lease *lease = step->lease;
    stop_billing(lease, lease->seen_ms);
    retire_current(lease, step->now_ms);
    lease_move(lease, LEASE_FAILED);
    LEASE_TELL(lease->reason, reason);
    lease->ended_at_ms = step->now_ms;
}

void lease_move_search_failed(struct lease_step *step, struct str what)
{
    char reason[SUPPLY_MESSAGE_MAX];
    lease_why_nothing(step->lease, what, reason);
    lease_move_failed(step, str_of(reason));
}

/* Machines of this epoch that were made and came to nothing, without a proof that was less than what was sold: after a
 * few of them it is likelier the image than the machines, and each costs the operator. */
static unsigned fruitless(const struct lease *lease)
{
    unsigned count = 0;
    for (size_t i = 0; i < lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        bool is_silent = attempt->error == SUPPLY_PROBE_FAILED && attempt->door != LEASE_DOOR_REFUSED;
        count += attempt->epoch == lease->epoch && attempt->known_ms > 0 &&
                 (is_silent || attempt->error == SUPPLY_FAILED || attempt->error == SUPPLY_BOOT_TIMEOUT);
    }
    return count;
}

/* This search found nothing: over, or after a pause a new one. */
void lease_end_search(struct lease_step *step, struct str what)
{
    struct lease *lease = step->lease;
    if (!lease->request.retry_until_up || lease_refusals(lease) > 0 || fruitless(lease) >= LEASE_FRUITLESS_MAX) {
        lease_move_search_failed(step, what);
        return;
    }
    lease_why_nothing(lease, what, lease->reason);
    lease->pick_ms =
        step->now_ms + (step->policy->retry_ms << (lease->pauses < PAUSES_MAX ? lease->pauses : PAUSES_MAX));
    lease->pauses += lease->pauses < PAUSES_MAX;
    lease->attempts_of_search = 0;
}

/* The current attempt came to nothing: the next candidate, unless there were enough. */
void lease_go_on(struct lease_step *step)
{
    struct lease *lease = step->lease;
    lease->endpoint_count = 0;
    lease->is_held = false;
    lease->price_usd_nano = 0;
    lease_move(lease, LEASE_REQUESTED);
    snprintf(lease->reason, sizeof(lease->reason), "%s: %s%s%.200s", step->attempt->of.network,
             supply_error_name(step->attempt->error), *step->attempt->message ? ": " : "", step->attempt->message);
    if (lease_refusals(lease) >= 2)
        lease_move_search_failed(step, STR("two networks refused the request as it is"));
    else if (lease->attempts_of_search >= LEASE_CANDIDATES_MAX)
        lease_end_search(step, STR("no machine after " LEASE_CANDIDATES_TEXT " attempts"));
}

bool lease_is_current(const struct lease_step *step)
{
    return step->attempt && step->attempt == lease_current(step->lease);
}

void lease_blame(struct lease_attempt *attempt, enum supply_error error, struct str message)
{
    attempt->error = error;
    LEASE_TELL(attempt->message, message);
}

void lease_give_up(struct lease_step *step, enum supply_error error, struct str message)
{
    bool is_of_lease = lease_is_current(step);
    lease_blame(step->attempt, error, message);
    retire(step->attempt, step->now_ms);
    if (is_of_lease)
        lease_go_on(step);
}

/* The machine of an active lease is gone: billed to when it was last seen. */
void lease_lose(struct lease_step *step, struct str message)
{
    struct lease *lease = step->lease;
    char reason[SUPPLY_MESSAGE_MAX];
    lease_blame(step->attempt, SUPPLY_LOST, message);
    snprintf(reason, sizeof(reason), "the machine at %s was lost%s%.220s", step->attempt->of.network,
             *step->attempt->message ? ": " : "", step->attempt->message);
    if (!lease->request.recovers || lease->epoch >= LEASE_RECOVERIES_MAX) {
        lease_move_failed(step, str_of(reason));
        return;
    }
    stop_billing(lease, lease->seen_ms);
    retire_current(lease, step->now_ms);
    lease_move(lease, LEASE_REQUESTED);
    LEASE_TELL(lease->reason, str_of(reason));
    lease->search_ms = step->now_ms;
    lease->pick_ms = 0;
    lease->pauses = 0;
    lease->attempts_of_search = 0;
}
