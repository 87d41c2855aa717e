/* The life of an admission, as data. */
#include "scheduler/admission.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PROBE_GIVEN_UP_MS 10000 /* a probe that nobody reports on (its gateway died): another may start after this */
#define RETRY_LOST_MS 1000
#define PAUSE_MIN_MS 10000
#define PAUSE_MAX_MS 600000
#define PAUSE_DOUBLINGS 6 /* 640 s: past the most */

static const char *const state_names[ADMISSION_STATE_COUNT] = {
    [ADMISSION_ENROLLED] = "enrolled",
    [ADMISSION_PROBING] = "probing",
    [ADMISSION_READY] = "ready",
    [ADMISSION_SUSPENDED] = "suspended",
};

/* What an event means in a state. A ready worker that is probed again stays ready meanwhile. */
enum move {
    IGNORE,    /* too late or out of place: changes nothing */
    PROBE_DUE, /* probe if it is time */
    PASS,
    SUSPEND,
    TRY_AGAIN, /* soon */
};

#define EVENT_COUNT (ADMISSION_TICK + 1)
static const enum move moves[ADMISSION_STATE_COUNT][EVENT_COUNT] = {
    [ADMISSION_ENROLLED] = {[ADMISSION_LINKED] = PROBE_DUE, [ADMISSION_TICK] = PROBE_DUE},
    [ADMISSION_PROBING] = {[ADMISSION_LINKED] = PROBE_DUE,
                           [ADMISSION_TICK] = PROBE_DUE,
                           [ADMISSION_PROBE_GOOD] = PASS,
                           [ADMISSION_PROBE_WRONG] = SUSPEND,
                           [ADMISSION_PROBE_LATE] = SUSPEND,
                           [ADMISSION_PROBE_LOST] = TRY_AGAIN},
    [ADMISSION_READY] = {[ADMISSION_LINKED] = PROBE_DUE,
                         [ADMISSION_TICK] = PROBE_DUE,
                         [ADMISSION_PROBE_GOOD] = PASS,
                         [ADMISSION_PROBE_WRONG] = SUSPEND,
                         [ADMISSION_PROBE_LATE] = SUSPEND,
                         [ADMISSION_PROBE_LOST] = TRY_AGAIN},
    [ADMISSION_SUSPENDED] = {[ADMISSION_LINKED] = PROBE_DUE, [ADMISSION_TICK] = PROBE_DUE},
};

const char *admission_state_name(enum admission_state state)
{
    assert((unsigned)state < ADMISSION_STATE_COUNT);
    return state_names[state];
}

bool admission_state_parse(struct str name, enum admission_state *ret)
{
    for (unsigned state = 0; state < ADMISSION_STATE_COUNT; state++) {
        if (str_eq(name, str_of(state_names[state]))) {
            *ret = (enum admission_state)state;
            return true;
        }
    }
    return false;
}

static void start_probe(struct admission *admission, int64_t now_ms)
{
    if (admission->state != ADMISSION_READY)
        admission->state = ADMISSION_PROBING;
    admission->next_probe_at_ms = now_ms + PROBE_GIVEN_UP_MS;
}

static void pass(struct admission *admission, int64_t now_ms, const struct admission_policy *policy, uint64_t random)
{
    uint64_t span = (uint64_t)(policy->reprobe_max_ms - policy->reprobe_min_ms) + 1;
    int64_t sent_at_ms = admission->next_probe_at_ms - PROBE_GIVEN_UP_MS;
    admission->state = ADMISSION_READY;
    admission->reason[0] = 0;
    admission->suspensions = 0;
    admission->last_probe_at_ms = now_ms;
    admission->last_probe_took_ms = now_ms > sent_at_ms ? now_ms - sent_at_ms : 0;
    admission->next_probe_at_ms = now_ms + policy->reprobe_min_ms + (int64_t)(random % span);
}

static void suspend(struct admission *admission, int64_t now_ms, const char *reason)
{
    uint32_t doublings = admission->suspensions < PAUSE_DOUBLINGS ? admission->suspensions : PAUSE_DOUBLINGS;
    int64_t pause = (int64_t)PAUSE_MIN_MS << doublings;
    admission->state = ADMISSION_SUSPENDED;
    snprintf(admission->reason, sizeof(admission->reason), "%s", reason);
    if (admission->suspensions < UINT32_MAX)
        admission->suspensions++;
    admission->last_probe_at_ms = now_ms;
    admission->next_probe_at_ms = now_ms + (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

static void try_again(struct admission *admission, int64_t now_ms)
{
    if (admission->state == ADMISSION_PROBING)
        admission->state = admission->suspensions ? ADMISSION_SUSPENDED : ADMISSION_ENROLLED;
    admission->next_probe_at_ms = now_ms + RETRY_LOST_MS;
}

enum admission_action admission_step(struct admission *admission, enum admission_event event, int64_t now_ms,
                                     const struct admission_policy *policy, uint64_t random)
{
    assert((unsigned)admission->state < ADMISSION_STATE_COUNT && (unsigned)event < EVENT_COUNT);
    assert(policy->reprobe_min_ms >= 0 && policy->reprobe_min_ms <= policy->reprobe_max_ms);
    enum admission_action action = ADMISSION_NOTHING;
    switch (moves[admission->state][event]) {
    case IGNORE:
        return ADMISSION_NOTHING;
    case PROBE_DUE:
        if (now_ms < admission->next_probe_at_ms)
            return ADMISSION_NOTHING;
        start_probe(admission, now_ms);
        action = ADMISSION_SEND_PROBE;
        break;
    case PASS:
        pass(admission, now_ms, policy, random);
        break;
    case SUSPEND:
        suspend(admission, now_ms, event == ADMISSION_PROBE_WRONG ? "wrong answer" : "answer too late");
        break;
    case TRY_AGAIN:
        try_again(admission, now_ms);
        break;
    }
    admission->token++;
    return action;
}

bool admission_is_ready(const struct admission *admission)
{
    return admission->state == ADMISSION_READY;
}
