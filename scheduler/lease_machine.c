/* What a network and the door tell of an attempt's machine, from its creation to its end. */
#include "scheduler/lease_moves.h"

#include <stdio.h>

#define GO_PAUSE_MS 2000

/* -- creating -- */

enum error lease_on_intended(struct lease_step *step)
{
    struct lease *lease = step->lease;
    if (lease->state != LEASE_RESERVED || !lease_is_current(step) || !lease->is_held)
        return ERR_MISMATCH;
    lease_move_attempt(step->attempt, ATTEMPT_CREATING);
    step->attempt->intended_ms = step->now_ms;
    step->attempt->look_ms = step->now_ms; /* whoever finds it so and did not create it, looks for it */
    lease_move(lease, LEASE_PROVISIONING);
    return ERR_NONE;
}

static bool has_instance(const struct lease_event *event)
{
    return event->instance && event->instance->id.len > 0 && event->instance->id.len < SUPPLY_ID_MAX;
}

/* CREATED and FOUND. Also when it was given up meanwhile: then it is ended. */
enum error lease_on_exists(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    if (!has_instance(step->event) || attempt->intended_ms == 0)
        return ERR_MISMATCH;
    if (attempt->state == ATTEMPT_SEEKING || attempt->state == ATTEMPT_CLOSED) {
        lease_end_instance(attempt, step->event->instance->id, step->now_ms);
        return ERR_NONE;
    }
    if (attempt->state != ATTEMPT_CREATING)
        return ERR_MISMATCH;
    LEASE_TELL(attempt->instance, step->event->instance->id);
    attempt->known_ms = step->now_ms;
    lease_move_attempt(attempt, ATTEMPT_BOOTING);
    attempt->tries = 0;
    attempt->look_ms = step->now_ms;
    return ERR_NONE;
}

enum error lease_on_create_failed(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    const struct lease_event *event = step->event;
    bool is_of_lease = lease_is_current(step);
    if (attempt->state != ATTEMPT_CREATING && attempt->state != ATTEMPT_SEEKING)
        return ERR_MISMATCH;
    lease_blame(attempt, event->error == SUPPLY_OK ? SUPPLY_UNKNOWN : event->error, event->message);
    if (event->leftover.len > 0 && event->leftover.len < SUPPLY_ID_MAX) {
        lease_end_instance(attempt, event->leftover, step->now_ms);
    } else if (event->is_uncertain) {
        attempt->look_ms = step->now_ms + LEASE_ASK_MS;
        return ERR_NONE;
    } else {
        lease_close_attempt(attempt, step->now_ms);
    }
    if (is_of_lease)
        lease_go_on(step);
    return ERR_NONE;
}

enum error lease_on_found_not(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    bool is_of_lease = lease_is_current(step);
    int64_t end_ms = lease_seek_end_ms(step->policy, attempt);
    if (attempt->state != ATTEMPT_CREATING && attempt->state != ATTEMPT_SEEKING)
        return ERR_MISMATCH;
    if (step->now_ms < end_ms) {
        int64_t look_ms = step->now_ms + lease_back_off_ms(LEASE_ASK_MS, attempt->tries++);
        attempt->look_ms = look_ms < end_ms ? look_ms : end_ms;
        return ERR_NONE;
    }
    if (attempt->error == SUPPLY_OK)
        lease_blame(attempt, SUPPLY_TRANSIENT, STR("its creation was not answered, and it does not show in the list"));
    lease_close_attempt(attempt, step->now_ms);
    if (is_of_lease)
        lease_go_on(step);
    return ERR_NONE;
}

/* -- what the network tells of it -- */

static void take_endpoints(struct lease *lease, const struct supply_instance *instance)
{
    lease->endpoint_count = 0;
    for (size_t i = 0; i < instance->endpoint_count && lease->endpoint_count < SUPPLY_PORTS_MAX; i++) {
        struct lease_endpoint *endpoint = &lease->endpoints[lease->endpoint_count];
        endpoint->port = instance->endpoints[i].port;
        /* One that is too long is none: a cut address would lead elsewhere. */
        lease->endpoint_count += str_copy(endpoint->url, sizeof(endpoint->url), instance->endpoints[i].url);
    }
}

static void activate(struct lease_step *step)
{
    struct lease *lease = step->lease;
    lease_move(lease, LEASE_ACTIVE);
    if (lease->active_at_ms == 0)
        lease->active_at_ms = step->now_ms;
    lease->since_ms = lease->seen_ms = step->now_ms;
    lease->until_ms = lease->epoch_billed_ms = 0;
    lease->unfunded_ms = lease->hold_ms = 0;
    lease->attempts_of_search = 0;
    lease->pauses = 0;
    step->attempt->tries = 0;
    step->attempt->gone_looks = 0;
    step->attempt->look_ms = step->attempt->door_ms = step->now_ms + step->policy->watch_ms;
}

static void come_up(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    lease_move_attempt(attempt, ATTEMPT_UP);
    attempt->up_ms = step->now_ms;
    attempt->look_ms = step->now_ms + step->policy->watch_ms;
    attempt->door_ms = step->now_ms;
    if (lease_terms_of(step->policy, attempt).probe == LEASE_PROBE_OFF)
        activate(step);
    else
        lease_move(step->lease, LEASE_PROBING);
}

static bool is_gone_state(enum instance_state state)
{
    return state == INSTANCE_STOPPED || state == INSTANCE_FAILED || state == INSTANCE_GONE;
}

/* It says that it is no more. Before it was usable once is enough; an active lease is lost by two looks in a row, or by
 * one while the door is silent too. */
static void on_gone(struct lease_step *step, struct str message)
{
    struct lease_attempt *attempt = step->attempt;
    bool has_door = lease_terms_of(step->policy, attempt).probe != LEASE_PROBE_OFF;
    attempt->gone_looks++;
    if (step->lease->state != LEASE_ACTIVE)
        lease_give_up(step, SUPPLY_FAILED, message);
    else if (attempt->gone_looks >= 2 || (has_door && attempt->door == LEASE_DOOR_NONE))
        lease_lose(step, message);
    else
        attempt->look_ms = step->now_ms + step->policy->describe_ms;
}

static void describe_current(struct lease_step *step)
{
    struct lease *lease = step->lease;
    struct lease_attempt *attempt = step->attempt;
    const struct supply_instance *instance = step->event->instance;
    const struct lease_policy *policy = step->policy;
    struct str reason = instance->reason.len > 0 ? instance->reason : str_of(instance_state_name(instance->state));
    attempt->tries = 0;
    if (is_gone_state(instance->state)) {
        on_gone(step, reason);
        return;
    }
    attempt->gone_looks = 0;
    attempt->look_ms = step->now_ms + (lease->state == LEASE_PROVISIONING ? policy->describe_ms : policy->watch_ms);
    if (instance->state == INSTANCE_RUNNING) {
        take_endpoints(lease, instance);
        lease->seen_ms = lease_later_of(lease->seen_ms, step->now_ms);
        if (attempt->state == ATTEMPT_BOOTING)
            come_up(step);
    } else if (lease->state == LEASE_ACTIVE) {
        /* Pending: it does not run. Stopping: about to be gone. */
        attempt->look_ms = step->now_ms + policy->describe_ms;
        if (step->now_ms - lease->seen_ms > policy->silent_ms)
            lease_lose(step, reason);
    } else if (instance->state == INSTANCE_STOPPING) {
        lease_give_up(step, SUPPLY_FAILED, reason);
    } else if (attempt->state == ATTEMPT_BOOTING && step->now_ms >= lease_boot_end_ms(policy, attempt)) {
        lease_give_up(step, SUPPLY_BOOT_TIMEOUT, reason);
    }
}

static void describe_ending(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    enum instance_state state = step->event->instance->state;
    int64_t patience_ms = state == INSTANCE_STOPPING ? LEASE_STILL_STOPPING_MS : LEASE_ALIVE_MS;
    if (state == INSTANCE_GONE) {
        lease_close_attempt(attempt, step->now_ms);
        return;
    }
    if (step->now_ms >= attempt->said_ended_ms + patience_ms) {
        attempt->said_ended_ms = 0; /* it said so, and it lives */
        attempt->look_ms = step->now_ms;
        attempt->tries++;
    } else {
        attempt->look_ms = step->now_ms + LEASE_ASK_MS;
    }
}

enum error lease_on_described(struct lease_step *step)
{
    if (!step->event->instance)
        return ERR_MISMATCH;
    if (step->attempt->state == ATTEMPT_ENDING)
        describe_ending(step);
    else if (lease_is_current(step) && step->attempt->state >= ATTEMPT_BOOTING)
        describe_current(step);
    else
        return ERR_MISMATCH;
    return ERR_NONE;
}

enum error lease_on_terminated(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    if (attempt->state != ATTEMPT_ENDING)
        return ERR_MISMATCH;
    attempt->said_ended_ms = step->now_ms;
    /* The first look soon; one that came back to life is not hurried. */
    attempt->look_ms = step->now_ms + (attempt->tries > 0 ? lease_back_off_ms(LEASE_ASK_MS, attempt->tries)
                                                          : step->policy->describe_ms);
    return ERR_NONE;
}

/* Not there, says the network, and it is not too early to believe it. */
static bool is_missing(const struct lease_step *step)
{
    return step->event->error == SUPPLY_NOT_FOUND &&
           (step->attempt->up_ms > 0 || step->now_ms >= lease_settled_ms(step->policy, step->attempt));
}

static void ask_again(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    int64_t pause_ms = lease_back_off_ms(LEASE_ASK_MS, attempt->tries);
    if (step->event->error == SUPPLY_NOT_YET && attempt->tries > 2)
        pause_ms = lease_back_off_ms(LEASE_ASK_MS, 2); /* it will be possible, and soon */
    attempt->tries += attempt->tries < UINT32_MAX;
    pause_ms =
        lease_later_of(pause_ms, step->event->retry_after_ms < 10 * LEASE_BACK_OFF_MS_MAX ? step->event->retry_after_ms
                                                                                          : 10 * LEASE_BACK_OFF_MS_MAX);
    attempt->look_ms = step->now_ms + pause_ms;
}

enum error lease_on_ask_failed(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    struct str message = step->event->message;
    if (attempt->state == ATTEMPT_CHOSEN || attempt->state == ATTEMPT_CLOSED)
        return ERR_MISMATCH;
    if (attempt->state == ATTEMPT_ENDING) {
        if (is_missing(step)) {
            lease_close_attempt(attempt, step->now_ms);
            return ERR_NONE;
        }
        ask_again(step);
        /* It may have ended by itself: now and then a look in place of another order to end. */
        if (attempt->said_ended_ms == 0 && (step->event->error == SUPPLY_UNSUPPORTED || attempt->tries % 4 == 0))
            attempt->said_ended_ms = step->now_ms;
        return ERR_NONE;
    }
    ask_again(step);
    if (attempt->state == ATTEMPT_SEEKING || attempt->state == ATTEMPT_CREATING)
        return ERR_NONE;
    if (step->event->error == SUPPLY_NOT_FOUND && is_missing(step)) {
        on_gone(step, message);
    } else if (attempt->state == ATTEMPT_BOOTING) {
        if (step->now_ms >= lease_boot_end_ms(step->policy, attempt))
            lease_give_up(step, SUPPLY_BOOT_TIMEOUT, message);
    } else if (step->lease->state == LEASE_PROBING) {
        attempt->door_ms = lease_later_of(attempt->door_ms, step->now_ms + GO_PAUSE_MS);
    }
    return ERR_NONE;
}

/* -- the door -- */

static void let_in(struct lease_step *step)
{
    step->attempt->proven_ms = step->now_ms;
    step->attempt->door_ms = step->now_ms;
}

static void exited(struct lease_step *step)
{
    char reason[64];
    snprintf(reason, sizeof(reason), "the command ended with exit code %d", step->event->exit_code);
    if (step->lease->state == LEASE_PROBING) /* GO went out, and who sent it did not live to tell */
        activate(step);
    lease_begin_stop(step, step->now_ms, str_of(reason));
}

static void probe(struct lease_step *step)
{
    struct lease_attempt *attempt = step->attempt;
    const struct lease_event *event = step->event;
    bool must_prove = lease_terms_of(step->policy, attempt).probe == LEASE_PROBE_REQUIRED;
    bool is_late = step->now_ms >= attempt->up_ms + step->policy->probing_ms;
    attempt->door_ms = step->now_ms + step->policy->describe_ms;
    if (attempt->proven_ms > 0) {
        if (step->now_ms >= attempt->proven_ms + step->policy->probing_ms)
            lease_give_up(step, SUPPLY_FAILED, STR("it was let in, and then the command could not be started"));
        return;
    }
    if (event->door == LEASE_DOOR_PROVEN) {
        let_in(step);
    } else if (event->door == LEASE_DOOR_REFUSED && must_prove) {
        lease_give_up(step, SUPPLY_PROBE_FAILED, event->message);
    } else if (event->door == LEASE_DOOR_REFUSED) {
        LEASE_TELL(attempt->message, event->message);
        let_in(step);
    } else if (is_late && event->door == LEASE_DOOR_WAITING && !must_prove) {
        LEASE_TELL(attempt->message, STR("unproven: it gave no proof in time"));
        let_in(step);
    } else if (is_late) {
        lease_give_up(step, SUPPLY_PROBE_FAILED,
                      event->door == LEASE_DOOR_NONE ? STR("it runs, but never came to the door")
                                                     : STR("it gave no proof in time"));
    }
}

enum error lease_on_door(struct lease_step *step)
{
    struct lease *lease = step->lease;
    if (!lease_is_current(step) || step->attempt->state != ATTEMPT_UP)
        return ERR_MISMATCH;
    step->attempt->door = step->event->door;
    if (step->event->door == LEASE_DOOR_EXITED) {
        exited(step);
    } else if (lease->state == LEASE_PROBING) {
        probe(step);
    } else {
        step->attempt->door_ms = step->now_ms + step->policy->watch_ms;
        if (step->event->door != LEASE_DOOR_NONE)
            lease->seen_ms = lease_later_of(lease->seen_ms, step->now_ms);
    }
    return ERR_NONE;
}

enum error lease_on_went(struct lease_step *step)
{
    if (step->lease->state != LEASE_PROBING || !lease_is_current(step) || step->attempt->proven_ms == 0)
        return ERR_MISMATCH;
    activate(step);
    return ERR_NONE;
}
