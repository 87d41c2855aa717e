/* The lease itself: names, the table of moves, and what can be read off it. lease_next.c says what is to be done,
 * lease_apply.c takes what came of it. */
#include "scheduler/lease_moves.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NAME_OF(code, text) [code] = text,
static const char *const lease_names[] = {LEASE_STATE_MAP(NAME_OF)};
static const char *const attempt_names[] = {ATTEMPT_STATE_MAP(NAME_OF)};

#define TO(state) (1u << (state))
static const unsigned may_go_to[LEASE_STATE_COUNT] = {
    [LEASE_REQUESTED] = TO(LEASE_RESERVED) | TO(LEASE_STOPPING) | TO(LEASE_FAILED),
    [LEASE_RESERVED] = TO(LEASE_PROVISIONING) | TO(LEASE_REQUESTED) | TO(LEASE_STOPPING) | TO(LEASE_FAILED),
    [LEASE_PROVISIONING] =
        TO(LEASE_PROBING) | TO(LEASE_ACTIVE) | TO(LEASE_REQUESTED) | TO(LEASE_STOPPING) | TO(LEASE_FAILED),
    [LEASE_PROBING] = TO(LEASE_ACTIVE) | TO(LEASE_REQUESTED) | TO(LEASE_STOPPING) | TO(LEASE_FAILED),
    [LEASE_ACTIVE] = TO(LEASE_REQUESTED) | TO(LEASE_STOPPING) | TO(LEASE_FAILED),
    [LEASE_STOPPING] = TO(LEASE_ENDED),
    [LEASE_ENDED] = 0,
    [LEASE_FAILED] = 0,
};

static const unsigned attempt_may_go_to[] = {
    [ATTEMPT_CHOSEN] = TO(ATTEMPT_CREATING) | TO(ATTEMPT_CLOSED),
    [ATTEMPT_CREATING] = TO(ATTEMPT_BOOTING) | TO(ATTEMPT_SEEKING) | TO(ATTEMPT_ENDING) | TO(ATTEMPT_CLOSED),
    [ATTEMPT_BOOTING] = TO(ATTEMPT_UP) | TO(ATTEMPT_ENDING),
    [ATTEMPT_UP] = TO(ATTEMPT_ENDING),
    [ATTEMPT_ENDING] = TO(ATTEMPT_CLOSED),
    [ATTEMPT_SEEKING] = TO(ATTEMPT_ENDING) | TO(ATTEMPT_CLOSED),
    /* The answer of a create that was given up for lost: what it made is ended as well. */
    [ATTEMPT_CLOSED] = TO(ATTEMPT_ENDING),
};

const char *lease_state_name(enum lease_state state)
{
    return (unsigned)state < LEASE_STATE_COUNT ? lease_names[state] : "unknown";
}

bool lease_state_of(struct str name, enum lease_state *ret)
{
    for (unsigned i = 0; i < LEASE_STATE_COUNT; i++) {
        if (str_eq(name, str_of(lease_names[i]))) {
            *ret = (enum lease_state)i;
            return true;
        }
    }
    return false;
}

const char *attempt_state_name(enum attempt_state state)
{
    return (unsigned)state < sizeof(attempt_names) / sizeof(attempt_names[0]) ? attempt_names[state] : "unknown";
}

const struct lease_policy lease_policy_default = {
    .slice_ms = 15 * 60 * 1000,
    .describe_ms = 2000,
    .watch_ms = 15000,
    .probing_ms = 5 * 60 * 1000,
    .grace_ms = 60000,
    .retry_ms = 15000,
    .seek_ms = 120000,
    .silent_ms = 3 * 60 * 1000,
};

bool lease_may_move(enum lease_state from, enum lease_state to)
{
    return may_go_to[from] & TO(to);
}

void lease_move(struct lease *lease, enum lease_state to)
{
    assert(lease_may_move(lease->state, to));
    lease->state = to;
}

void lease_move_attempt(struct lease_attempt *attempt, enum attempt_state to)
{
    assert(attempt_may_go_to[attempt->state] & TO(to));
    attempt->state = to;
}

/* -- terms -- */

struct lease_terms lease_terms_of(const struct lease_policy *policy, const struct lease_attempt *attempt)
{
    struct lease_terms terms = {.is_known = false};
    if (policy->terms)
        terms = policy->terms(policy->ctx, attempt->of.network);
    if (terms.settle_ms <= 0)
        terms.settle_ms = LEASE_SETTLE_MS;
    if (terms.boot_ms <= 0)
        terms.boot_ms = LEASE_BOOT_MS;
    return terms;
}

/* A network's own figure, and half of it again. */
static int64_t settling_ms(const struct lease_policy *policy, const struct lease_attempt *attempt)
{
    int64_t settle_ms = lease_terms_of(policy, attempt).settle_ms;
    return settle_ms + settle_ms / 2;
}

int64_t lease_seek_end_ms(const struct lease_policy *policy, const struct lease_attempt *attempt)
{
    return attempt->intended_ms + policy->seek_ms + settling_ms(policy, attempt);
}

int64_t lease_settled_ms(const struct lease_policy *policy, const struct lease_attempt *attempt)
{
    return attempt->known_ms + settling_ms(policy, attempt);
}

int64_t lease_boot_end_ms(const struct lease_policy *policy, const struct lease_attempt *attempt)
{
    return attempt->intended_ms + lease_terms_of(policy, attempt).boot_ms;
}

int64_t lease_back_off_ms(int64_t first_ms, uint32_t tries)
{
    return tries > 5 || first_ms << tries > LEASE_BACK_OFF_MS_MAX ? LEASE_BACK_OFF_MS_MAX : first_ms << tries;
}

/* -- what can be read off it -- */

const struct lease_attempt *lease_current_const(const struct lease *lease)
{
    if (lease->attempt_count == 0 || lease_is_over(lease) || lease->state == LEASE_STOPPING)
        return NULL;
    const struct lease_attempt *last = &lease->attempts[lease->attempt_count - 1];
    return last->state <= ATTEMPT_UP ? last : NULL;
}

struct lease_attempt *lease_current(struct lease *lease)
{
    const struct lease_attempt *current = lease_current_const(lease);
    return current ? &lease->attempts[current - lease->attempts] : NULL;
}

bool lease_is_over(const struct lease *lease)
{
    return lease->state == LEASE_ENDED || lease->state == LEASE_FAILED;
}

bool lease_owns(const struct lease *lease, uint32_t attempt_number)
{
    for (size_t i = 0; i < lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        if (attempt->number == attempt_number)
            return attempt->state != ATTEMPT_CHOSEN && attempt->state != ATTEMPT_CLOSED;
    }
    return false;
}

int64_t lease_duration_end_ms(const struct lease *lease)
{
    int64_t most_ms = lease->request.max_duration_s * 1000;
    return most_ms > 0 && lease->since_ms > 0 ? lease->since_ms + most_ms - lease->former_ms : INT64_MAX;
}

int64_t lease_epoch_ms(const struct lease *lease, int64_t now_ms)
{
    if (lease->since_ms == 0)
        return 0;
    int64_t end_ms = lease->until_ms > 0 ? lease->until_ms : now_ms < lease->seen_ms ? now_ms : lease->seen_ms;
    if (end_ms > lease_duration_end_ms(lease))
        end_ms = lease_duration_end_ms(lease);
    int64_t span_ms = end_ms - lease->since_ms;
    int64_t least_ms =
        lease->capture_intent_ms > lease->epoch_billed_ms ? lease->capture_intent_ms : lease->epoch_billed_ms;
    return span_ms > least_ms ? span_ms : least_ms;
}

bool lease_is_charged(const struct lease *lease)
{
    return lease->since_ms == 0 || (lease->until_ms > 0 && lease->capture_intent_ms == 0 &&
                                    lease->epoch_billed_ms >= lease_epoch_ms(lease, lease->until_ms));
}

bool lease_is_cleared(const struct lease *lease)
{
    for (size_t i = 0; i < lease->attempt_count; i++) {
        if (lease->attempts[i].state != ATTEMPT_CLOSED)
            return false;
    }
    return true;
}

bool lease_has_room(const struct lease *lease)
{
    for (size_t i = 0; i < lease->attempt_count; i++) {
        if (lease->attempts[i].state == ATTEMPT_CLOSED)
            return true;
    }
    return lease->attempt_count < LEASE_ATTEMPTS_MAX;
}

/* When must it be active? 0: whenever. */
static int64_t deadline_ms(const struct lease *lease)
{
    const struct lease_request *request = &lease->request;
    int64_t from_ms = lease->search_ms > 0 ? lease->search_ms : lease->created_at_ms;
    if (request->deadline_s > 0)
        return from_ms + request->deadline_s * 1000;
    return request->retry_until_up ? 0 : from_ms + LEASE_DEADLINE_MS;
}

struct lease_stop_due lease_stop_due(const struct lease *lease, const struct lease_policy *policy)
{
    struct lease_stop_due due = {.at_ms = INT64_MAX, .why = LEASE_STOP_NOT};
    if (lease->state >= LEASE_STOPPING)
        return due;
    if (lease->state == LEASE_ACTIVE && lease_duration_end_ms(lease) < INT64_MAX) {
        due.at_ms = lease_duration_end_ms(lease);
        due.why = LEASE_STOP_DURATION;
    } else if (lease->state < LEASE_ACTIVE && deadline_ms(lease) > 0) {
        due.at_ms = deadline_ms(lease);
        due.why = LEASE_STOP_DEADLINE;
    }
    if (lease->state == LEASE_ACTIVE && lease->unfunded_ms > 0 && lease->unfunded_ms + policy->grace_ms < due.at_ms) {
        due.at_ms = lease->unfunded_ms + policy->grace_ms;
        due.why = LEASE_STOP_UNFUNDED;
    }
    if (lease->stop_asked_ms > 0 && lease->stop_asked_ms < due.at_ms) {
        due.at_ms = lease->stop_asked_ms;
        due.why = LEASE_STOP_ASKED;
    }
    return due;
}

/* -- memory -- */

struct lease *lease_new(void)
{
    struct lease *lease = calloc(1, sizeof(*lease));
    if (lease)
        buf_init(&lease->pool, LEASE_TEXT_MAX);
    return lease;
}

struct lease *lease_free(struct lease *lease)
{
    if (lease) {
        if (lease->pool.ptr)
            explicit_bzero(lease->pool.ptr, lease->pool.cap);
        buf_free(&lease->pool);
        free(lease);
    }
    return NULL;
}

static size_t room_of(struct str text)
{
    return text.ptr ? text.len : 0;
}

/* Into the pool, whose memory is reserved already and does not move. */
static void keep(struct buf *pool, struct str *text)
{
    if (!text->ptr)
        return;
    struct str kept = {text->len > 0 ? pool->ptr + pool->len : "", text->len};
    bool fits = text->len == 0 || buf_append_str(pool, *text);
    assert(fits);
    (void)fits;
    *text = kept;
}

bool lease_request_copy(struct lease *lease, const struct lease_request *request)
{
    struct lease_request copy = *request;
    struct str *const texts[] = {&copy.gpu,     &copy.image,  &copy.region, &copy.network,
                                 &copy.require, &copy.prefer, &copy.quote,  &copy.offer};
    size_t room = 1;
    if (request->argc > LEASE_ARGS_MAX || request->env_count > LEASE_ENV_MAX || request->port_count > SUPPLY_PORTS_MAX)
        return false;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        room += room_of(*texts[i]);
    for (size_t i = 0; i < copy.argc; i++)
        room += room_of(copy.argv[i]);
    for (size_t i = 0; i < copy.env_count; i++)
        room += room_of(copy.env[i].key) + room_of(copy.env[i].value);
    struct buf pool;
    buf_init(&pool, LEASE_TEXT_MAX);
    if (room > LEASE_TEXT_MAX || !buf_reserve(&pool, room)) {
        buf_free(&pool);
        return false;
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        keep(&pool, texts[i]);
    for (size_t i = 0; i < copy.argc; i++)
        keep(&pool, &copy.argv[i]);
    for (size_t i = 0; i < copy.env_count; i++) {
        keep(&pool, &copy.env[i].key);
        keep(&pool, &copy.env[i].value);
    }
    /* The old pool goes last: request may be of this lease. */
    if (lease->pool.ptr)
        explicit_bzero(lease->pool.ptr, lease->pool.cap);
    buf_free(&lease->pool);
    lease->pool = pool;
    lease->request = copy;
    return true;
}
