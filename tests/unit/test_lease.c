/* The lease's moves one by one. What must hold of all of them together is test_lease_property.c's. */
#include "tests/unit/cmocka_all.h"

#include "scheduler/lease.h"

#include <string.h>

#define BEGIN INT64_C(1764000000000)
#define SECOND 1000
#define MINUTE (60 * SECOND)
#define SETTLE (20 * SECOND)
#define PRICE 3600000

static struct lease *lease;
static struct lease_policy policy;
static struct lease_terms terms;
static int64_t now;

static struct lease_terms terms_of(void *ctx, const char *network)
{
    (void)ctx;
    (void)network;
    return terms;
}

static int begin(void **state)
{
    (void)state;
    lease = lease_new();
    assert_non_null(lease);
    now = BEGIN;
    policy = lease_policy_default;
    policy.terms = terms_of;
    terms = (struct lease_terms){.is_known = true, .settle_ms = SETTLE, .boot_ms = 10 * MINUTE};
    snprintf(lease->id, sizeof(lease->id), "lse_01jd5v7q2m3n4p5r6s7t8v9wxy");
    snprintf(lease->installation, sizeof(lease->installation), "0a1b2c");
    lease->created_at_ms = now;
    lease->request.gpus = 1;
    lease->request.price_max_usd_nano = lease->request.price_quoted_usd_nano = -1;
    return 0;
}

static int end(void **state)
{
    (void)state;
    lease = lease_free(lease);
    return 0;
}

/* -- saying and expecting -- */

static struct lease_action next(void)
{
    return lease_next(lease, now, &policy);
}

static void expect(enum lease_do what, enum lease_state state)
{
    if (next().what != what || lease->state != state)
        fail_msg("action %d in %s (%s), expected %d in %s", next().what, lease_state_name(lease->state), lease->reason,
                 what, lease_state_name(state));
}

static void say_to(size_t attempt, struct lease_event event)
{
    event.attempt = attempt;
    enum error error = lease_apply(lease, &event, now, &policy);
    if (error)
        fail_msg("event %d refused in %s: %s", event.kind, lease_state_name(lease->state), error_text(error));
}

static size_t last(void)
{
    return lease->attempt_count > 0 ? lease->attempt_count - 1 : 0;
}

#define say(...) say_to(last(), (struct lease_event){__VA_ARGS__})

static void pick(const char *network, const char *offer)
{
    struct lease_candidate candidate = {.gpus = 1, .price_usd_nano = PRICE, .network_price_usd_nano = PRICE};
    snprintf(candidate.network, sizeof(candidate.network), "%s", network);
    snprintf(candidate.offer, sizeof(candidate.offer), "%s", offer);
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
    say(.kind = LEASE_PICKED, .candidate = &candidate);
}

static void intend(const char *network)
{
    pick(network, "1");
    expect(LEASE_DO_HOLD, LEASE_RESERVED);
    say(.kind = LEASE_HELD);
    expect(LEASE_DO_CREATE, LEASE_RESERVED);
    say(.kind = LEASE_INTENDED);
    assert_int_equal(lease->state, LEASE_PROVISIONING);
}

static void exists(enum lease_event_kind kind)
{
    const struct supply_instance instance = {.id = STR("i-1")};
    say(.kind = kind, .instance = &instance);
}

static void describe_as(size_t attempt, enum instance_state state)
{
    const struct supply_endpoint endpoint = {.port = 8000, .url = STR("http://203.0.113.7:33526")};
    const struct supply_instance instance = {
        .id = STR("i-1"), .state = state, .reason = STR("so it is"), .endpoints = &endpoint, .endpoint_count = 1};
    say_to(attempt, (struct lease_event){.kind = LEASE_DESCRIBED, .instance = &instance});
}

static void describe(enum instance_state state)
{
    describe_as(last(), state);
}

static void boot(const char *network)
{
    intend(network);
    exists(LEASE_CREATED);
    expect(LEASE_DO_DESCRIBE, LEASE_PROVISIONING);
}

static void reach_door(const char *network)
{
    boot(network);
    describe(INSTANCE_RUNNING);
    expect(LEASE_DO_DOOR, LEASE_PROBING);
}

static void be_active(void)
{
    reach_door("alpha");
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_PROVEN);
    expect(LEASE_DO_GO, LEASE_PROBING);
    say(.kind = LEASE_WENT);
    assert_int_equal(lease->state, LEASE_ACTIVE);
}

/* Active for span_ms, seen all the time. */
static void live(int64_t span_ms)
{
    for (int64_t ends = now + span_ms; now < ends;) {
        now = now + 15 * SECOND < ends ? now + 15 * SECOND : ends;
        describe(INSTANCE_RUNNING);
        say(.kind = LEASE_DOOR, .door = LEASE_DOOR_PROVEN);
        if (next().what == LEASE_DO_INTEND_CAPTURE && now < ends) {
            say(.kind = LEASE_CAPTURE_INTENDED, .to_ms = lease_epoch_ms(lease, now));
            say(.kind = LEASE_CAPTURED, .gpu_ms = lease->capture_intent_ms - lease->epoch_billed_ms);
            say(.kind = LEASE_HELD);
        }
    }
}

static void charge_rest(void)
{
    if (next().what == LEASE_DO_INTEND_CAPTURE)
        say(.kind = LEASE_CAPTURE_INTENDED, .to_ms = lease_epoch_ms(lease, now));
    if (next().what == LEASE_DO_CAPTURE)
        say(.kind = LEASE_CAPTURED, .gpu_ms = lease->capture_intent_ms - lease->epoch_billed_ms);
}

/* From stopping or failed on: what is left is charged, returned and ended. */
static void clear_up(enum lease_state over)
{
    for (int i = 0; i < 100 && next().what != LEASE_DO_NOTHING; i++) {
        struct lease_action action = next();
        switch (action.what) {
        case LEASE_DO_WAIT:
            now = action.until_ms;
            break;
        case LEASE_DO_TERMINATE:
            say_to(action.attempt, (struct lease_event){.kind = LEASE_TERMINATED});
            break;
        case LEASE_DO_DESCRIBE:
            describe_as(action.attempt, INSTANCE_GONE);
            break;
        case LEASE_DO_FIND:
            say_to(action.attempt, (struct lease_event){.kind = LEASE_FOUND_NOT});
            break;
        case LEASE_DO_RELEASE:
            say(.kind = LEASE_RELEASED);
            break;
        default:
            charge_rest();
            break;
        }
    }
    expect(LEASE_DO_NOTHING, over);
    assert_true(lease->is_released && lease->ended_at_ms > 0);
    for (size_t i = 0; i < lease->attempt_count; i++)
        assert_int_equal(lease->attempts[i].state, ATTEMPT_CLOSED);
}

static void assert_reason(const char *part)
{
    if (!strstr(lease->reason, part))
        fail_msg("\"%s\" does not tell \"%s\"", lease->reason, part);
}

/* -- the straight way -- */

static void from_wish_to_end(void **state)
{
    (void)state;
    be_active();
    assert_string_equal(lease->attempts[0].tag, "sluice-0a1b2c-01jd5v7q2m3n4p5r6s7t8v9wxy-1");
    assert_true(lease->active_at_ms == now && lease->since_ms == now);
    assert_string_equal(lease->endpoints[0].url, "http://203.0.113.7:33526");
    assert_true(lease_owns(lease, 1) && !lease_owns(lease, 2));
    expect(LEASE_DO_WAIT, LEASE_ACTIVE);
    assert_true(next().until_ms == now + policy.watch_ms);
    live(15 * MINUTE);
    expect(LEASE_DO_INTEND_CAPTURE, LEASE_ACTIVE);
    say(.kind = LEASE_CAPTURE_INTENDED, .to_ms = lease_epoch_ms(lease, now));
    expect(LEASE_DO_CAPTURE, LEASE_ACTIVE);
    say(.kind = LEASE_CAPTURED, .gpu_ms = 15 * MINUTE, .cost_usd_nano = 900);
    expect(LEASE_DO_HOLD, LEASE_ACTIVE); /* extended */
    say(.kind = LEASE_HELD);
    expect(LEASE_DO_WAIT, LEASE_ACTIVE);
    live(10 * SECOND);
    say(.kind = LEASE_STOP, .message = STR("enough"));
    expect(LEASE_DO_TERMINATE, LEASE_STOPPING);
    assert_string_equal(lease->reason, "enough");
    assert_null(lease_current(lease));
    assert_int_equal(lease->endpoint_count, 0);
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 15 * MINUTE + 10 * SECOND);
    assert_int_equal(lease->captures, 2);
    assert_false(lease_owns(lease, 1));
}

static void without_door(void **state)
{
    (void)state;
    terms.probe = LEASE_PROBE_OFF;
    boot("alpha");
    describe(INSTANCE_PENDING);
    expect(LEASE_DO_WAIT, LEASE_PROVISIONING);
    assert_true(next().until_ms == now + policy.describe_ms);
    now = next().until_ms;
    describe(INSTANCE_RUNNING);
    expect(LEASE_DO_WAIT, LEASE_ACTIVE);
    now = next().until_ms;
    expect(LEASE_DO_DESCRIBE, LEASE_ACTIVE);
    describe(INSTANCE_RUNNING);
    expect(LEASE_DO_WAIT, LEASE_ACTIVE); /* no look at a door */
}

/* -- the door -- */

static void refused_at_the_door(void **state)
{
    (void)state;
    reach_door("alpha");
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_WAITING);
    expect(LEASE_DO_WAIT, LEASE_PROBING);
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_REFUSED, .message = STR("sold 8, proven 4"));
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
    assert_int_equal(lease->attempts[0].error, SUPPLY_PROBE_FAILED);
    assert_string_equal(lease->attempts[0].message, "sold 8, proven 4");
    assert_int_equal(lease->attempts[0].state, ATTEMPT_ENDING);
    assert_true(lease->billed_gpu_ms == 0 && lease->since_ms == 0);
    intend("beta"); /* goes on beside the end of the first */
    exists(LEASE_CREATED);
    describe(INSTANCE_PENDING);
    expect(LEASE_DO_TERMINATE, LEASE_PROVISIONING);
    assert_int_equal(next().attempt, 0);
    assert_true(lease_owns(lease, 1) && lease_owns(lease, 2));
}

static void late_at_the_door(void **state)
{
    (void)state;
    reach_door("alpha");
    now += policy.probing_ms;
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_WAITING);
    assert_int_equal(lease->attempts[0].error, SUPPLY_PROBE_FAILED);
    reach_door("beta");
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_PROVEN);
    now += policy.probing_ms; /* GO never got through */
    expect(LEASE_DO_DESCRIBE, LEASE_PROBING);
    describe(INSTANCE_RUNNING);
    expect(LEASE_DO_DOOR, LEASE_PROBING);
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_NONE);
    assert_int_equal(lease->attempts[1].error, SUPPLY_FAILED);
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
}

static void only_reported(void **state)
{
    (void)state;
    terms.probe = LEASE_PROBE_REPORT;
    reach_door("alpha");
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_REFUSED, .message = STR("sold 8, proven 4"));
    expect(LEASE_DO_GO, LEASE_PROBING);
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_TRANSIENT);
    expect(LEASE_DO_WAIT, LEASE_PROBING);
    now = next().until_ms;
    expect(LEASE_DO_GO, LEASE_PROBING);
    say(.kind = LEASE_WENT);
    expect(LEASE_DO_WAIT, LEASE_ACTIVE);
    assert_string_equal(lease->reason, "sold 8, proven 4");
    assert_int_equal(lease->attempts[0].error, SUPPLY_OK);
}

static void reported_unproven(void **state)
{
    (void)state;
    terms.probe = LEASE_PROBE_REPORT;
    reach_door("alpha");
    now += policy.probing_ms;
    describe(INSTANCE_RUNNING);
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_NONE); /* nobody there who could start the command */
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
    reach_door("beta");
    now += policy.probing_ms;
    describe(INSTANCE_RUNNING);
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_WAITING);
    expect(LEASE_DO_GO, LEASE_PROBING);
    say(.kind = LEASE_WENT);
    assert_int_equal(lease->state, LEASE_ACTIVE);
    assert_reason("unproven");
}

static void command_ends(void **state)
{
    (void)state;
    be_active();
    live(MINUTE);
    now += SECOND;
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_EXITED, .exit_code = 3);
    assert_int_equal(lease->state, LEASE_STOPPING);
    assert_reason("exit code 3");
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == MINUTE + SECOND);
}

/* -- creating -- */

/* Who finds it so did not create it, and must not: it is looked for, as long as it may still show. */
static void found_creating(void **state)
{
    (void)state;
    intend("alpha");
    expect(LEASE_DO_FIND, LEASE_PROVISIONING);
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_TRANSIENT);
    expect(LEASE_DO_WAIT, LEASE_PROVISIONING);
    now = next().until_ms;
    expect(LEASE_DO_FIND, LEASE_PROVISIONING);
    exists(LEASE_FOUND);
    expect(LEASE_DO_DESCRIBE, LEASE_PROVISIONING);
    assert_string_equal(lease->attempts[0].instance, "i-1");
}

static void found_nowhere(void **state)
{
    (void)state;
    intend("alpha");
    int64_t ends = now + policy.seek_ms + SETTLE * 3 / 2;
    while (now < ends) {
        expect(LEASE_DO_FIND, LEASE_PROVISIONING);
        say(.kind = LEASE_FOUND_NOT);
        expect(LEASE_DO_WAIT, LEASE_PROVISIONING);
        assert_true(next().until_ms <= ends);
        now = next().until_ms;
    }
    expect(LEASE_DO_FIND, LEASE_PROVISIONING);
    say(.kind = LEASE_FOUND_NOT);
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
    assert_int_equal(lease->attempts[0].state, ATTEMPT_CLOSED);
    assert_int_equal(lease->attempts[0].error, SUPPLY_TRANSIENT);
    /* The answer of the create comes after all: what it made is ended. */
    const struct supply_instance instance = {.id = STR("i-9")};
    say_to(0, (struct lease_event){.kind = LEASE_CREATED, .instance = &instance});
    pick("beta", "1");
    say(.kind = LEASE_HELD);
    say(.kind = LEASE_INTENDED);
    exists(LEASE_CREATED);
    describe(INSTANCE_PENDING);
    expect(LEASE_DO_TERMINATE, LEASE_PROVISIONING);
    assert_string_equal(lease->attempts[0].instance, "i-9");
}

static void create_fails(void **state)
{
    (void)state;
    intend("alpha");
    say(.kind = LEASE_CREATE_FAILED, .error = SUPPLY_NO_CAPACITY, .message = STR("none left"));
    assert_int_equal(lease->attempts[0].state, ATTEMPT_CLOSED);
    assert_reason("alpha: no_capacity: none left");
    intend("beta");
    say(.kind = LEASE_CREATE_FAILED, .error = SUPPLY_TRANSIENT, .is_uncertain = true);
    expect(LEASE_DO_WAIT, LEASE_PROVISIONING);
    now = next().until_ms;
    expect(LEASE_DO_FIND, LEASE_PROVISIONING);
    /* Given up meanwhile: it is sought all the same, and ended when it shows. */
    say(.kind = LEASE_STOP);
    expect(LEASE_DO_FIND, LEASE_STOPPING);
    assert_int_equal(next().attempt, 1);
    exists(LEASE_FOUND);
    expect(LEASE_DO_TERMINATE, LEASE_STOPPING);
    clear_up(LEASE_ENDED);
}

static void create_leaves_something(void **state)
{
    (void)state;
    intend("alpha");
    say(.kind = LEASE_CREATE_FAILED, .error = SUPPLY_PRICE_MOVED, .leftover = STR("i-7"), .is_uncertain = true);
    assert_int_equal(lease->state, LEASE_REQUESTED);
    assert_int_equal(lease->attempts[0].state, ATTEMPT_ENDING);
    assert_string_equal(lease->attempts[0].instance, "i-7");
}

static void does_not_boot(void **state)
{
    (void)state;
    boot("alpha");
    describe(INSTANCE_FAILED);
    assert_int_equal(lease->attempts[0].error, SUPPLY_FAILED);
    assert_string_equal(lease->attempts[0].message, "so it is");
    boot("beta");
    now += terms.boot_ms;
    describe(INSTANCE_PENDING);
    assert_int_equal(lease->attempts[1].error, SUPPLY_BOOT_TIMEOUT);
    boot("gamma");
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_NOT_FOUND); /* it does not show yet */
    expect(LEASE_DO_TERMINATE, LEASE_PROVISIONING);
    now += SETTLE * 3 / 2;
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_NOT_FOUND);
    assert_int_equal(lease->attempts[2].error, SUPPLY_FAILED);
    boot("delta");
    now += terms.boot_ms;
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_TRANSIENT, .message = STR("502"));
    assert_int_equal(lease->attempts[3].error, SUPPLY_BOOT_TIMEOUT);
    assert_int_equal(lease->state, LEASE_REQUESTED);
}

/* -- searching -- */

static void fail_create(const char *network, const char *offer, enum supply_error error, const char *message)
{
    pick(network, offer);
    say(.kind = LEASE_HELD);
    say(.kind = LEASE_INTENDED);
    say(.kind = LEASE_CREATE_FAILED, .error = error, .message = str_of(message));
}

static void many_candidates(void **state)
{
    (void)state;
    for (int i = 0; i < LEASE_CANDIDATES_MAX; i++)
        fail_create(i % 2 ? "alpha" : "beta", "1", i % 2 ? SUPPLY_NO_CAPACITY : SUPPLY_QUOTA, "vcpu limit");
    expect(LEASE_DO_RELEASE, LEASE_FAILED);
    assert_reason("no machine after 25 attempts");
    assert_reason("beta: quota (13 tries), \"vcpu limit\"");
    assert_reason("alpha: no_capacity");
    assert_reason("quota raised");
    clear_up(LEASE_FAILED);
}

static void refused_by_two(void **state)
{
    (void)state;
    lease->request.retry_until_up = true;
    fail_create("alpha", "1", SUPPLY_BAD_REQUEST, "no such image");
    assert_int_equal(lease->state, LEASE_REQUESTED); /* it may be that network */
    fail_create("beta", "1", SUPPLY_BAD_REQUEST, "manifest unknown");
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_reason("no such image");
    assert_reason("manifest unknown");
    assert_reason("check image");
}

static void refused_by_all_there_are(void **state)
{
    (void)state;
    lease->request.retry_until_up = true;
    fail_create("alpha", "1", SUPPLY_BAD_REQUEST, "no such image");
    say(.kind = LEASE_NO_CANDIDATE, .message = STR("none of 3 offers can be tried: 3 tried already"));
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_reason("3 tried already");
    assert_reason("no such image");
}

static void no_candidate(void **state)
{
    (void)state;
    say(.kind = LEASE_NO_CANDIDATE, .message = STR("none of 4 offers can be tried: 4 above your price cap"));
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_string_equal(lease->reason, "none of 4 offers can be tried: 4 above your price cap");
    clear_up(LEASE_FAILED);
}

static void until_up(void **state)
{
    (void)state;
    static const int pauses[] = {15, 30, 60, 120, 240, 240};
    lease->request.retry_until_up = true;
    for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
        say(.kind = LEASE_NO_CANDIDATE, .message = STR("nothing"));
        expect(LEASE_DO_WAIT, LEASE_REQUESTED);
        assert_true(next().until_ms == now + pauses[i] * SECOND);
        assert_reason("nothing");
        now = next().until_ms;
        expect(LEASE_DO_PICK, LEASE_REQUESTED);
    }
    now += 24 * 60 * MINUTE; /* without a deadline of its own it goes on */
    be_active();
    assert_int_equal(lease->pauses, 0);
}

/* An image that cannot start is not tried for ever on machines that somebody pays for. */
static void until_up_but_not_in_vain(void **state)
{
    (void)state;
    lease->request.retry_until_up = true;
    for (unsigned made = 1; made <= 8; made++) {
        boot("alpha");
        if (made % 2) {
            describe(INSTANCE_FAILED);
        } else { /* it runs, and never comes to the door */
            describe(INSTANCE_RUNNING);
            now += policy.probing_ms;
            say(.kind = LEASE_DOOR, .door = LEASE_DOOR_NONE);
            assert_int_equal(lease->attempts[last()].error, SUPPLY_PROBE_FAILED);
        }
        say(.kind = LEASE_NO_CANDIDATE, .message = STR("1 tried already"));
        assert_int_equal(lease->state, made < 8 ? LEASE_REQUESTED : LEASE_FAILED);
        for (size_t i = 0; i < lease->attempt_count; i++) {
            lease->attempts[i].state = ATTEMPT_CLOSED;
        }
        now = lease->state == LEASE_REQUESTED ? lease->pick_ms : now;
    }
    assert_reason("1 tried already");
    clear_up(LEASE_FAILED);
}

/* Nor is a network's lack of capacity, or a machine that is not what it was sold for, held against the image. */
static void until_up_past_bad_machines(void **state)
{
    (void)state;
    lease->request.retry_until_up = true;
    for (unsigned made = 0; made < 20; made++) {
        reach_door("alpha");
        say(.kind = LEASE_DOOR, .door = LEASE_DOOR_REFUSED, .message = STR("half of it"));
        say(.kind = LEASE_NO_CANDIDATE, .message = STR("1 tried already"));
        assert_int_equal(lease->state, LEASE_REQUESTED);
        lease->attempts[last()].state = ATTEMPT_CLOSED;
        now = lease->pick_ms;
    }
}

static void deadline(void **state)
{
    (void)state;
    lease->request.deadline_s = 60;
    fail_create("alpha", "1", SUPPLY_NO_CAPACITY, "full");
    boot("beta");
    now = BEGIN + MINUTE;
    expect(LEASE_DO_STOP, LEASE_PROVISIONING);
    say(.kind = LEASE_STOP);
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_reason("not active within its deadline");
    assert_reason("alpha: no_capacity, \"full\"");
    clear_up(LEASE_FAILED);
    assert_true(lease->billed_gpu_ms == 0);
}

static void usual_deadline(void **state)
{
    (void)state;
    now += 30 * MINUTE;
    expect(LEASE_DO_STOP, LEASE_REQUESTED);
}

/* Closed attempts give way; what is open does not, and when there is no room nothing new begins. */
static void attempts_give_way(void **state)
{
    (void)state;
    lease->request.retry_until_up = true;
    boot("alpha");
    describe(INSTANCE_FAILED); /* the first stays open */
    for (int i = 0; i < 60; i++) {
        fail_create("beta", "1", SUPPLY_NO_CAPACITY, "");
        if (next().what == LEASE_DO_TERMINATE || next().what == LEASE_DO_WAIT)
            now = lease->pick_ms;
    }
    assert_int_equal(lease->attempt_count, LEASE_ATTEMPTS_MAX);
    assert_int_equal(lease->attempts[0].number, 1);
    assert_int_equal(lease->attempts[1].number, 31);
    assert_int_equal(lease->attempts[last()].number, 61);
    for (size_t i = 0; i < lease->attempt_count; i++) {
        lease->attempts[i].state = ATTEMPT_ENDING;
        lease->attempts[i].look_ms = now + MINUTE;
    }
    now = now > lease->pick_ms ? now : lease->pick_ms;
    expect(LEASE_DO_WAIT, LEASE_REQUESTED);
}

/* -- money -- */

static void unfunded_before(void **state)
{
    (void)state;
    pick("alpha", "1");
    say(.kind = LEASE_UNFUNDED, .message = STR("add credits"));
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_string_equal(lease->reason, "insufficient funds: add credits");
    assert_int_equal(lease->attempts[0].state, ATTEMPT_CLOSED);
    clear_up(LEASE_FAILED);
}

static void unfunded_while_active(void **state)
{
    (void)state;
    be_active();
    live(15 * MINUTE);
    charge_rest();
    expect(LEASE_DO_HOLD, LEASE_ACTIVE);
    say(.kind = LEASE_UNFUNDED);
    assert_reason("warned");
    expect(LEASE_DO_WAIT, LEASE_ACTIVE);
    now += policy.watch_ms;
    describe(INSTANCE_RUNNING);
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_PROVEN);
    expect(LEASE_DO_HOLD, LEASE_ACTIVE); /* credits may have come */
    say(.kind = LEASE_HELD);
    assert_string_equal(lease->reason, "");
    live(15 * MINUTE);
    charge_rest();
    say(.kind = LEASE_UNFUNDED);
    now += policy.grace_ms - 1;
    say(.kind = LEASE_UNFUNDED);
    assert_int_not_equal(next().what, LEASE_DO_STOP);
    now++;
    expect(LEASE_DO_STOP, LEASE_ACTIVE);
    say(.kind = LEASE_STOP);
    assert_int_equal(lease->state, LEASE_STOPPING);
    assert_reason("insufficient funds");
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 30 * MINUTE + policy.watch_ms + policy.grace_ms);
}

/* The end of a slice is stored before it is charged: who comes after a crash charges the same. */
static void same_slice(void **state)
{
    (void)state;
    be_active();
    live(15 * MINUTE);
    say(.kind = LEASE_CAPTURE_INTENDED, .to_ms = 15 * MINUTE);
    live(MINUTE);
    expect(LEASE_DO_CAPTURE, LEASE_ACTIVE);
    assert_true(lease->capture_intent_ms == 15 * MINUTE);
    const struct lease_event again = {.kind = LEASE_CAPTURE_INTENDED, .to_ms = 16 * MINUTE};
    assert_int_equal(lease_apply(lease, &again, now, &policy), ERR_MISMATCH);
    /* A stop that was asked before the end of a slice under way does not undo it. */
    lease->stop_asked_ms = lease->since_ms + 14 * MINUTE;
    say(.kind = LEASE_STOP);
    assert_true(lease->until_ms == lease->since_ms + 15 * MINUTE);
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 15 * MINUTE);
}

static void billed_to_the_asking(void **state)
{
    (void)state;
    be_active();
    live(5 * MINUTE);
    lease->stop_asked_ms = now - 10 * SECOND; /* noticed late */
    expect(LEASE_DO_STOP, LEASE_ACTIVE);
    say(.kind = LEASE_STOP);
    assert_reason("ended as asked");
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 5 * MINUTE - 10 * SECOND);
}

static void max_duration(void **state)
{
    (void)state;
    lease->request.max_duration_s = 600;
    be_active();
    live(11 * MINUTE);
    expect(LEASE_DO_STOP, LEASE_ACTIVE);
    say(.kind = LEASE_STOP);
    assert_reason("max_duration_s");
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 10 * MINUTE);
}

/* -- losing it -- */

static void gone_twice(void **state)
{
    (void)state;
    be_active();
    live(10 * MINUTE);
    now += 20 * SECOND;
    describe(INSTANCE_GONE);
    assert_int_equal(lease->state, LEASE_ACTIVE); /* once is a slip, while the door says nothing of the kind */
    now += 2 * SECOND;
    describe(INSTANCE_RUNNING);
    now += 20 * SECOND;
    describe(INSTANCE_STOPPED);
    now += 2 * SECOND;
    describe(INSTANCE_STOPPED);
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_reason("the machine at alpha was lost: so it is");
    assert_int_equal(lease->attempts[0].error, SUPPLY_LOST);
    assert_int_equal(lease->attempts[0].state, ATTEMPT_ENDING); /* stopped may still bill */
    clear_up(LEASE_FAILED);
    assert_true(lease->billed_gpu_ms == lease->seen_ms - lease->since_ms);
    assert_true(lease->billed_gpu_ms == 10 * MINUTE + 22 * SECOND);
}

static void gone_and_silent(void **state)
{
    (void)state;
    be_active();
    live(MINUTE);
    now += 15 * SECOND;
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_NONE);
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_NOT_FOUND);
    assert_int_equal(lease->state, LEASE_FAILED);
}

static void no_word_is_no_loss(void **state)
{
    (void)state;
    be_active();
    live(10 * MINUTE);
    for (int i = 0; i < 60; i++) {
        now += MINUTE;
        say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_TRANSIENT);
        say(.kind = LEASE_DOOR, .door = LEASE_DOOR_NONE);
    }
    assert_int_equal(lease->state, LEASE_ACTIVE);
    assert_reason("nothing was heard of it from alpha for 3600 s");
    assert_true(lease_epoch_ms(lease, now) == 10 * MINUTE); /* nor is it billed */
    describe(INSTANCE_RUNNING);
    assert_string_equal(lease->reason, "");
    assert_true(lease_epoch_ms(lease, now) == 70 * MINUTE);
    now += 10 * MINUTE; /* stopped unseen */
    say(.kind = LEASE_STOP);
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 70 * MINUTE);
}

static void pending_again(void **state)
{
    (void)state;
    be_active();
    live(MINUTE);
    now += policy.silent_ms;
    describe(INSTANCE_PENDING);
    assert_int_equal(lease->state, LEASE_ACTIVE);
    now += SECOND;
    describe(INSTANCE_PENDING);
    assert_int_equal(lease->state, LEASE_FAILED);
}

static void recovered(void **state)
{
    (void)state;
    lease->request.recovers = true;
    lease->request.max_duration_s = 3600;
    be_active();
    int64_t first_ms = lease->active_at_ms;
    live(20 * MINUTE);
    for (int i = 0; i < 2; i++) {
        now += SECOND;
        describe(INSTANCE_GONE);
    }
    expect(LEASE_DO_INTEND_CAPTURE, LEASE_REQUESTED); /* the run that ended is charged first */
    assert_int_equal(lease->epoch, 0);
    assert_null(lease_current(lease));
    charge_rest();
    assert_int_equal(lease->epoch, 1);
    assert_true(lease->billed_gpu_ms == 20 * MINUTE && lease->since_ms == 0 && lease->epoch_billed_ms == 0);
    now += 10 * MINUTE;
    be_active();
    assert_true(lease->active_at_ms == first_ms && lease->since_ms == now);
    assert_int_equal(lease->attempts[1].epoch, 1);
    live(41 * MINUTE); /* with the first run more than its hour */
    expect(LEASE_DO_STOP, LEASE_ACTIVE);
    say(.kind = LEASE_STOP);
    clear_up(LEASE_ENDED);
    assert_true(lease->billed_gpu_ms == 60 * MINUTE);
}

static void recovered_often_enough(void **state)
{
    (void)state;
    lease->request.recovers = true;
    for (unsigned i = 0; i <= LEASE_RECOVERIES_MAX; i++) {
        be_active();
        live(MINUTE);
        describe(INSTANCE_GONE);
        describe(INSTANCE_GONE);
        charge_rest();
        while (lease->state == LEASE_REQUESTED && next().what == LEASE_DO_WAIT)
            now = next().until_ms;
    }
    assert_int_equal(lease->state, LEASE_FAILED);
    assert_int_equal(lease->epoch, LEASE_RECOVERIES_MAX);
    clear_up(LEASE_FAILED);
    assert_true(lease->billed_gpu_ms == (LEASE_RECOVERIES_MAX + 1) * MINUTE);
}

/* A new search has its own deadline. */
static void lost_late(void **state)
{
    (void)state;
    lease->request.recovers = true;
    be_active();
    live(45 * MINUTE);
    describe(INSTANCE_GONE);
    describe(INSTANCE_GONE);
    charge_rest();
    expect(LEASE_DO_PICK, LEASE_REQUESTED);
    now += 30 * MINUTE;
    expect(LEASE_DO_STOP, LEASE_REQUESTED);
}

/* -- ending -- */

static void stop_now(void)
{
    boot("alpha");
    say(.kind = LEASE_STOP);
    say(.kind = LEASE_RELEASED);
    expect(LEASE_DO_TERMINATE, LEASE_STOPPING);
}

static void refuses_to_end(void **state)
{
    (void)state;
    stop_now();
    int64_t waited = 0;
    for (int i = 0; i < 40; i++) {
        if (next().what == LEASE_DO_TERMINATE)
            say(.kind = LEASE_ASK_FAILED, .error = i % 2 ? SUPPLY_NOT_YET : SUPPLY_TRANSIENT);
        else
            describe(INSTANCE_PENDING);
        waited = next().what == LEASE_DO_WAIT ? next().until_ms - now : 0;
        assert_true(waited <= MINUTE);
        now += waited;
    }
    assert_int_equal(lease->state, LEASE_STOPPING); /* never dropped */
    clear_up(LEASE_ENDED);
}

static void lives_on(void **state)
{
    (void)state;
    stop_now();
    say(.kind = LEASE_TERMINATED);
    expect(LEASE_DO_WAIT, LEASE_STOPPING);
    now = next().until_ms;
    expect(LEASE_DO_DESCRIBE, LEASE_STOPPING);
    describe(INSTANCE_RUNNING);
    now += 10 * SECOND;
    describe(INSTANCE_RUNNING);
    expect(LEASE_DO_TERMINATE, LEASE_STOPPING); /* it said yes, and did not */
    say(.kind = LEASE_TERMINATED);
    now += MINUTE;
    describe(INSTANCE_STOPPING);
    assert_int_not_equal(next().what, LEASE_DO_TERMINATE); /* on its way */
    clear_up(LEASE_ENDED);
}

static void not_found_too_early(void **state)
{
    (void)state;
    stop_now();
    say(.kind = LEASE_TERMINATED);
    now += 5 * SECOND;
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_NOT_FOUND); /* it may show yet */
    assert_int_equal(lease->attempts[0].state, ATTEMPT_ENDING);
    now += SETTLE * 3 / 2;
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_NOT_FOUND);
    expect(LEASE_DO_NOTHING, LEASE_ENDED);
}

/* Prepaid, it ends by itself: nothing can be ended, and it is looked at until it is gone. */
static void cannot_be_ended(void **state)
{
    (void)state;
    stop_now();
    say(.kind = LEASE_ASK_FAILED, .error = SUPPLY_UNSUPPORTED);
    now = next().until_ms;
    expect(LEASE_DO_DESCRIBE, LEASE_STOPPING);
    describe(INSTANCE_GONE);
    expect(LEASE_DO_NOTHING, LEASE_ENDED);
}

static void unknown_network(void **state)
{
    (void)state;
    stop_now();
    terms.is_known = false;
    expect(LEASE_DO_WAIT, LEASE_STOPPING);
    assert_true(next().until_ms == now + MINUTE);
    now += 24 * 60 * MINUTE;
    expect(LEASE_DO_WAIT, LEASE_STOPPING);
    terms.is_known = true;
    clear_up(LEASE_ENDED);
}

/* -- what does not fit -- */

static void stop_again(void **state)
{
    (void)state;
    say(.kind = LEASE_STOP, .message = STR("first"));
    expect(LEASE_DO_RELEASE, LEASE_STOPPING);
    say(.kind = LEASE_STOP, .message = STR("second"));
    assert_string_equal(lease->reason, "first");
    say(.kind = LEASE_RELEASED);
    expect(LEASE_DO_NOTHING, LEASE_ENDED);
    say(.kind = LEASE_STOP, .message = STR("third"));
    assert_string_equal(lease->reason, "first");
}

/* Which events fit where, and that the others change nothing. */
static void check_fits(const char *where, uint32_t fits)
{
    static struct lease before, after;
    const struct supply_instance instance = {.id = STR("i-1"), .state = INSTANCE_RUNNING};
    const struct lease_candidate candidate = {.network = "alpha", .price_usd_nano = PRICE};
    before = *lease;
    for (unsigned kind = LEASE_PICKED; kind <= LEASE_STOP; kind++) {
        const struct lease_event event = {.kind = (enum lease_event_kind)kind,
                                          .attempt = last(),
                                          .candidate = &candidate,
                                          .instance = &instance,
                                          .error = SUPPLY_TRANSIENT,
                                          .to_ms = 1};
        enum error error = lease_apply(lease, &event, now, &policy);
        if ((error == ERR_NONE) != ((fits >> kind & 1) != 0))
            fail_msg("%s: event %u: %s", where, kind, error_text(error));
        after = *lease;
        if (error && memcmp(&before, &after, sizeof(before)) != 0)
            fail_msg("%s: event %u was refused and changed something", where, kind);
        *lease = before;
    }
}

#define FITS(kind) (UINT32_C(1) << LEASE_##kind)

static void what_fits(void **state)
{
    (void)state;
    const uint32_t exists_bits = FITS(CREATED) | FITS(FOUND);
    check_fits("requested", FITS(PICKED) | FITS(NO_CANDIDATE) | FITS(STOP));
    pick("alpha", "1");
    check_fits("chosen", FITS(HELD) | FITS(UNFUNDED) | FITS(STOP));
    say(.kind = LEASE_HELD);
    check_fits("held", FITS(HELD) | FITS(UNFUNDED) | FITS(INTENDED) | FITS(STOP));
    say(.kind = LEASE_INTENDED);
    check_fits("creating", exists_bits | FITS(CREATE_FAILED) | FITS(FOUND_NOT) | FITS(ASK_FAILED) | FITS(STOP));
    exists(LEASE_CREATED);
    check_fits("booting", FITS(DESCRIBED) | FITS(ASK_FAILED) | FITS(STOP));
    describe(INSTANCE_RUNNING);
    check_fits("up", FITS(DESCRIBED) | FITS(ASK_FAILED) | FITS(DOOR) | FITS(STOP));
    say(.kind = LEASE_DOOR, .door = LEASE_DOOR_PROVEN);
    check_fits("proven", FITS(DESCRIBED) | FITS(ASK_FAILED) | FITS(DOOR) | FITS(WENT) | FITS(STOP));
    say(.kind = LEASE_WENT);
    live(MINUTE);
    const uint32_t active = FITS(DESCRIBED) | FITS(ASK_FAILED) | FITS(DOOR) | FITS(HELD) | FITS(UNFUNDED) | FITS(STOP);
    check_fits("active", active | FITS(CAPTURE_INTENDED));
    say(.kind = LEASE_CAPTURE_INTENDED, .to_ms = MINUTE);
    check_fits("charging", active | FITS(CAPTURED));
    say(.kind = LEASE_CAPTURED, .gpu_ms = MINUTE);
    say(.kind = LEASE_STOP);
    const uint32_t ending = FITS(DESCRIBED) | FITS(ASK_FAILED) | FITS(TERMINATED) | FITS(STOP);
    check_fits("stopping", ending | FITS(RELEASED));
    say(.kind = LEASE_TERMINATED);
    check_fits("said to have ended", ending | FITS(RELEASED));
    say(.kind = LEASE_RELEASED);
    describe(INSTANCE_GONE);
    check_fits("ended", exists_bits | FITS(RELEASED) | FITS(STOP));
}

static void names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LEASE_STATE_COUNT; i++) {
        enum lease_state read = LEASE_STATE_COUNT;
        assert_true(lease_state_of(str_of(lease_state_name((enum lease_state)i)), &read));
        assert_int_equal(read, i);
    }
    enum lease_state kept = LEASE_ACTIVE;
    assert_false(lease_state_of(STR("gone"), &kept));
    assert_int_equal(kept, LEASE_ACTIVE);
    assert_string_equal(attempt_state_name(ATTEMPT_SEEKING), "seeking");
    assert_null(lease_free(NULL));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(from_wish_to_end),
        CASE(without_door),
        CASE(refused_at_the_door),
        CASE(late_at_the_door),
        CASE(only_reported),
        CASE(reported_unproven),
        CASE(command_ends),
        CASE(found_creating),
        CASE(found_nowhere),
        CASE(create_fails),
        CASE(create_leaves_something),
        CASE(does_not_boot),
        CASE(many_candidates),
        CASE(refused_by_two),
        CASE(refused_by_all_there_are),
        CASE(no_candidate),
        CASE(until_up),
        CASE(until_up_but_not_in_vain),
        CASE(until_up_past_bad_machines),
        CASE(deadline),
        CASE(usual_deadline),
        CASE(attempts_give_way),
        CASE(unfunded_before),
        CASE(unfunded_while_active),
        CASE(same_slice),
        CASE(billed_to_the_asking),
        CASE(max_duration),
        CASE(gone_twice),
        CASE(gone_and_silent),
        CASE(no_word_is_no_loss),
        CASE(pending_again),
        CASE(recovered),
        CASE(recovered_often_enough),
        CASE(lost_late),
        CASE(refuses_to_end),
        CASE(lives_on),
        CASE(not_found_too_early),
        CASE(cannot_be_ended),
        CASE(unknown_network),
        CASE(stop_again),
        CASE(what_fits),
        CASE(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
