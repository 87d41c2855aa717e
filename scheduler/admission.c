/* The life of an admission, as data. */
#include "scheduler/admission.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define CLAIM_MS 30000          /* a probe that nobody reports on (its gateway died): another may start after this */
#define LONGEST_PROBE_MS 300000 /* beyond any admission: no claim is renewed past this */
#define RETRY_LOST_MS 1000
#define RETRY_LOST_DOUBLINGS 4 /* longer than a device stays with a gateway that died */
#define RETEST_MS 1000
#define RETESTS 2
#define OTHERS_FIRST_MS 2000 /* how long a re-test is left to other gateways */
#define SLOW_IN_ROW_MAX 3
#define PAUSE_MIN_MS 10000
#define PAUSE_MAX_MS 600000
#define PAUSE_DOUBLINGS 6 /* 640 s: past the most */
#define DAY_MS INT64_C(86400000)
#define BAN_MS (30 * DAY_MS)
#define BAN_DOUBLINGS 6 /* five years */

static const char *const state_names[ADMISSION_STATE_COUNT] = {
    [ADMISSION_ENROLLED] = "enrolled",
    [ADMISSION_PROBING] = "probing",
    [ADMISSION_READY] = "ready",
    [ADMISSION_SUSPENDED] = "suspended",
};

/* What an event means in a state. A ready worker that is probed again stays ready meanwhile. */
enum move {
    IGNORE,    /* out of place: changes nothing */
    PROBE_DUE, /* probe if it is time */
    PROBE_NOW, /* probe unless one is under way */
    /* only of a probe under way */
    PASS,
    SLOW,
    QUARANTINE,
    SUSPEND,
    TRY_AGAIN, /* soon */
    RENEW,
    /* of either */
    START_OVER, /* a newcomer */
};

#define OF_EVERY_PROBE                                                                                  \
    [ADMISSION_PROBE_GOOD] = PASS, [ADMISSION_PROBE_SLOW] = SLOW, [ADMISSION_PROBE_WRONG] = QUARANTINE, \
    [ADMISSION_PROBE_LATE] = SUSPEND, [ADMISSION_PROBE_LOST] = TRY_AGAIN, [ADMISSION_PROBE_GOING_ON] = RENEW
#define WHEN_DUE [ADMISSION_LINKED] = PROBE_DUE, [ADMISSION_TICK] = PROBE_DUE

static const enum move moves[ADMISSION_STATE_COUNT][ADMISSION_EVENT_COUNT] = {
    [ADMISSION_ENROLLED] = {WHEN_DUE},
    [ADMISSION_PROBING] = {WHEN_DUE, OF_EVERY_PROBE, [ADMISSION_CHANGED] = START_OVER},
    [ADMISSION_READY] = {WHEN_DUE, OF_EVERY_PROBE, [ADMISSION_CHANGED] = START_OVER, [ADMISSION_WANTED] = PROBE_NOW},
    [ADMISSION_SUSPENDED] = {WHEN_DUE},
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

int64_t admission_interval_ms(const struct admission_policy *policy, double score, uint64_t random)
{
    double least = (double)policy->reprobe_min_ms, most = (double)policy->reprobe_max_ms;
    double share = (score - ADMISSION_SCORE_LOW) / (ADMISSION_SCORE_HIGH - ADMISSION_SCORE_LOW);
    if (!(share > 0)) /* a score that is no number is a low one */
        share = 0;
    else if (share > 1)
        share = 1;
    double uniform = ((double)(random >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
    double interval = -log(uniform) * (least + share * (most - least));
    if (interval < least / 2)
        interval = least / 2;
    return (int64_t)(interval < 2 * most ? interval : 2 * most);
}

/* A re-test by the gateway that saw the failure could repeat its own fault, so another is waited for a little. */
static bool is_due(const struct admission *admission, const struct admission_news *news)
{
    int64_t at_ms = admission->next_probe_at_ms;
    if (admission->retests && admission->failed_gateway == news->gateway)
        at_ms += OTHERS_FIRST_MS;
    return news->now_ms >= at_ms;
}

static void start_probe(struct admission *admission, int64_t now_ms)
{
    if (admission->state != ADMISSION_READY) {
        admission->state = ADMISSION_PROBING;
        admission->next_purpose = VERIFY_ADMISSION;
    } else if (now_ms - admission->admitted_at_ms >= DAY_MS) {
        admission->next_purpose = VERIFY_ADMISSION;
    }
    admission->claimed_at_ms = now_ms;
    admission->next_probe_at_ms = now_ms + CLAIM_MS;
}

static void set_reason(struct admission *admission, const char *prefix, struct str given, const char *standard)
{
    struct str reason = given.len ? given : str_of(standard);
    int len = reason.len < sizeof(admission->reason) ? (int)reason.len : (int)sizeof(admission->reason);
    snprintf(admission->reason, sizeof(admission->reason), "%s%.*s", prefix, len, reason.ptr);
}

static void suspend(struct admission *admission, const struct admission_news *news, const char *standard)
{
    uint32_t doublings = admission->suspensions < PAUSE_DOUBLINGS ? admission->suspensions : PAUSE_DOUBLINGS;
    int64_t pause = (int64_t)PAUSE_MIN_MS << doublings;
    admission->state = ADMISSION_SUSPENDED;
    set_reason(admission, "", news->reason, standard);
    if (admission->suspensions < UINT32_MAX)
        admission->suspensions++;
    admission->next_probe_at_ms = news->now_ms + (pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS);
}

static void ban(struct admission *admission, const struct admission_news *news)
{
    uint32_t doublings = admission->bans < BAN_DOUBLINGS ? admission->bans : BAN_DOUBLINGS;
    admission->banned_until_ms = news->now_ms + (BAN_MS << doublings);
    admission->next_probe_at_ms = admission->banned_until_ms;
    admission->retests = 0;
    admission->failed_gateway = 0;
    admission->state = ADMISSION_SUSPENDED;
    if (admission->bans < UINT32_MAX)
        admission->bans++;
    struct tm day;
    time_t until = (time_t)(admission->banned_until_ms / 1000);
    char text[32], prefix[64];
    if (!gmtime_r(&until, &day) || !strftime(text, sizeof(text), "%Y-%m-%d", &day))
        snprintf(text, sizeof(text), "a far day");
    snprintf(prefix, sizeof(prefix), "banned until %s: ", text);
    set_reason(admission, prefix, news->reason, "wrong answer");
}

static void quarantine(struct admission *admission, const struct admission_news *news)
{
    if (admission->retests) {
        ban(admission, news);
        return;
    }
    admission->state = ADMISSION_SUSPENDED;
    set_reason(admission, "", news->reason, "wrong answer");
    admission->retests = RETESTS;
    admission->failed_gateway = news->gateway;
    admission->next_probe_at_ms = news->now_ms + RETEST_MS;
}

static void pass(struct admission *admission, const struct admission_news *news, const struct admission_policy *policy,
                 int64_t sent_at_ms)
{
    admission->last_probe_took_ms = news->now_ms > sent_at_ms ? news->now_ms - sent_at_ms : 0;
    if (admission->retests > 1) {
        admission->retests--;
        admission->state = ADMISSION_SUSPENDED;
        admission->failed_gateway = news->gateway;
        admission->next_probe_at_ms = news->now_ms + RETEST_MS;
        return;
    }
    if (news->purpose == VERIFY_ADMISSION)
        admission->admitted_at_ms = news->now_ms;
    admission->state = ADMISSION_READY;
    admission->next_purpose = VERIFY_SPOT;
    admission->reason[0] = 0;
    admission->suspensions = admission->slow_in_row = admission->retests = admission->failed_gateway = 0;
    admission->next_probe_at_ms = news->now_ms + admission_interval_ms(policy, news->score, news->random);
}

static void slow(struct admission *admission, const struct admission_news *news, const struct admission_policy *policy)
{
    if (admission->slow_in_row < UINT32_MAX)
        admission->slow_in_row++;
    if (admission->state == ADMISSION_READY && admission->slow_in_row < SLOW_IN_ROW_MAX)
        admission->next_probe_at_ms = news->now_ms + admission_interval_ms(policy, ADMISSION_SCORE_LOW, news->random);
    else
        suspend(admission, news, "slower than its class");
}

/* As it was before the probe, or what the change makes of it. */
static void start_over(struct admission *admission, int64_t next_probe_at_ms)
{
    if (admission->state != ADMISSION_READY)
        admission->state = admission->reason[0] ? ADMISSION_SUSPENDED : ADMISSION_ENROLLED;
    admission->next_probe_at_ms = next_probe_at_ms;
}

static void end_probe(struct admission *admission, enum move move, const struct admission_news *news,
                      const struct admission_policy *policy)
{
    int64_t sent_at_ms = admission->claimed_at_ms;
    admission->claimed_at_ms = 0;
    if (move == TRY_AGAIN) {
        unsigned doublings = news->lost > 1 ? news->lost - 1 : 0;
        doublings = doublings < RETRY_LOST_DOUBLINGS ? doublings : RETRY_LOST_DOUBLINGS;
        start_over(admission, news->now_ms + (RETRY_LOST_MS << doublings));
        return;
    }
    admission->last_probe_at_ms = news->now_ms;
    if (move == PASS)
        pass(admission, news, policy, sent_at_ms);
    else if (move == SLOW)
        slow(admission, news, policy);
    else if (move == QUARANTINE)
        quarantine(admission, news);
    else
        suspend(admission, news, "answer too late");
}

enum admission_action admission_step(struct admission *admission, const struct admission_news *news,
                                     const struct admission_policy *policy)
{
    assert((unsigned)admission->state < ADMISSION_STATE_COUNT && (unsigned)news->event < ADMISSION_EVENT_COUNT);
    assert(policy->reprobe_min_ms >= 0 && policy->reprobe_min_ms <= policy->reprobe_max_ms);
    enum move move = moves[admission->state][news->event];
    enum admission_action action = ADMISSION_NOTHING;
    int64_t claimed_at_ms = admission->claimed_at_ms;
    switch (move) {
    case IGNORE:
        return ADMISSION_NOTHING;
    case PROBE_DUE:
    case PROBE_NOW:
        if (!is_due(admission, news) && (move == PROBE_DUE || claimed_at_ms))
            return ADMISSION_NOTHING;
        start_probe(admission, news->now_ms);
        action = ADMISSION_SEND_PROBE;
        break;
    case PASS:
    case SLOW:
    case QUARANTINE:
    case SUSPEND:
    case TRY_AGAIN:
        if (!claimed_at_ms)
            return ADMISSION_NOTHING;
        end_probe(admission, move, news, policy);
        break;
    case RENEW:
        if (!claimed_at_ms || news->now_ms - claimed_at_ms > LONGEST_PROBE_MS)
            return ADMISSION_NOTHING;
        admission->next_probe_at_ms = news->now_ms + CLAIM_MS;
        break;
    case START_OVER:
        admission->claimed_at_ms = 0;
        admission->next_purpose = VERIFY_ADMISSION;
        admission->state = ADMISSION_PROBING; /* no longer proven */
        start_over(admission, news->now_ms);
        break;
    }
    admission->token++;
    return action;
}

bool admission_is_ready(const struct admission *admission)
{
    return admission->state == ADMISSION_READY;
}
