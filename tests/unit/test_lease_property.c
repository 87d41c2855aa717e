/* What must hold of a lease whatever its networks, its driver and its machines do: random worlds from fixed seeds, in
 * which answers get lost, lists lag, deletes are ignored, machines die, money runs out and the driver is killed at any
 * step and another goes on from what was stored last. */
#include "tests/unit/cmocka_all.h"

#include "scheduler/lease_record.h"

#include <inttypes.h>
#include <string.h>

#define LEASES 1500
#define STEPS_MAX 20000
#define BEGIN_MS INT64_C(1764000000000)
#define MACHINES_MAX 2048
#define NETWORKS 3
#define MINUTE 60000

struct machine {
    char tag[SUPPLY_TAG_MAX], id[24];
    int64_t made_ms, shown_ms, runs_ms, dies_ms, proves_ms, exits_ms; /* INT64_MAX: never */
    int64_t ends_ms; /* when a delete takes effect; INT64_MAX: none was heeded */
    int64_t went_ms; /* 0: not told to go */
    bool refuses, is_leftover;
};

struct world {
    uint64_t seed, chaos; /* chaos: of 100, how often something goes wrong */
    int64_t now_ms, stop_ms, poor_ms;
    struct machine machines[MACHINES_MAX];
    size_t machine_count;
    struct lease_terms terms[NETWORKS];
    bool is_released;
    int64_t charged_ms[LEASE_RECOVERIES_MAX + 1];
    int64_t since_ms[LEASE_RECOVERIES_MAX + 1], until_ms[LEASE_RECOVERIES_MAX + 1];
    struct lease *lease, *stored; /* the driver's, and what Redis has */
    unsigned long created, crashes, losses, saves;
};

static struct world world;
static struct lease_policy policy;
static const char *const networks[NETWORKS] = {"alpha", "beta", "gamma"};

static uint64_t below(uint64_t limit)
{
    world.seed = world.seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = (world.seed ^ (world.seed >> 31)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ (x >> 29)) % limit;
}

static bool goes_wrong(uint64_t of_100)
{
    return below(10000) < of_100 * world.chaos;
}

static struct lease_terms terms_of(void *ctx, const char *network)
{
    (void)ctx;
    for (unsigned i = 0; i < NETWORKS; i++) {
        if (strcmp(networks[i], network) == 0)
            return world.terms[i];
    }
    return (struct lease_terms){.is_known = false};
}

/* -- what is stored -- */

static bool is_same_action(struct lease_action a, struct lease_action b)
{
    return a.what == b.what && a.attempt == b.attempt && a.until_ms == b.until_ms;
}

/* What is read from its record is the same lease: the same record again, and the same action. */
static void check_record(const struct lease *lease)
{
    struct buf first, second;
    struct lease *again = NULL;
    buf_init(&first, 0);
    buf_init(&second, 0);
    assert_true(lease_record_write(lease, &first));
    assert_int_equal(lease_record_read(buf_str(&first), &again), ERR_NONE);
    assert_true(lease_record_write(again, &second));
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.ptr, second.ptr, first.len);
    assert_true(is_same_action(lease_next(lease, world.now_ms, &policy), lease_next(again, world.now_ms, &policy)));
    lease_free(again);
    buf_free(&first);
    buf_free(&second);
}

static void save(void)
{
    struct lease *lease = world.lease;
    if (world.saves++ % 101 == 0)
        check_record(lease);
    if (world.stored->stop_asked_ms > 0)
        lease->stop_asked_ms = world.stored->stop_asked_ms;
    /* A run that was lost before it was seen a second time is over in the event that tells so. */
    if (lease->epoch > world.stored->epoch && world.until_ms[world.stored->epoch] == 0)
        world.until_ms[world.stored->epoch] = world.stored->seen_ms;
    *world.stored = *lease;
    if (lease->since_ms > 0) {
        assert_true(lease->epoch <= LEASE_RECOVERIES_MAX);
        world.since_ms[lease->epoch] = lease->since_ms;
        world.until_ms[lease->epoch] = lease->until_ms;
    }
}

static bool is_killed(void)
{
    if (!goes_wrong(8))
        return false;
    *world.lease = *world.stored;
    world.crashes++;
    world.now_ms += (int64_t)below(40000);
    return true;
}

static void apply(const struct lease_event *event)
{
    if (is_killed())
        return;
    enum error error = lease_apply(world.lease, event, world.now_ms, &policy);
    if (error)
        fail_msg("seed: event %d refused in %s: %s", event->kind, lease_state_name(world.lease->state),
                 error_text(error));
    if (!is_killed())
        save();
}

/* -- the networks -- */

static bool is_alive(const struct machine *machine)
{
    return world.now_ms < machine->dies_ms && world.now_ms < machine->ends_ms;
}

static struct machine *machine_of(const char *tag)
{
    for (size_t i = 0; i < world.machine_count; i++) {
        if (strcmp(world.machines[i].tag, tag) == 0)
            return &world.machines[i];
    }
    return NULL;
}

static int64_t maybe(uint64_t of_100, int64_t from_ms, uint64_t span_ms)
{
    return goes_wrong(of_100) ? from_ms + (int64_t)below(span_ms) : INT64_MAX;
}

static struct machine *make(const struct lease_attempt *attempt)
{
    const struct lease_terms terms = terms_of(NULL, attempt->of.network);
    struct machine *machine = &world.machines[world.machine_count];
    if (machine_of(attempt->tag))
        fail_msg("created twice: %s", attempt->tag);
    assert_true(world.machine_count < MACHINES_MAX);
    snprintf(machine->tag, sizeof(machine->tag), "%s", attempt->tag);
    snprintf(machine->id, sizeof(machine->id), "i-%zu", world.machine_count++);
    machine->made_ms = world.now_ms;
    machine->shown_ms = world.now_ms + (int64_t)below((uint64_t)terms.settle_ms);
    machine->runs_ms = world.now_ms + (int64_t)below(3 * MINUTE) + (goes_wrong(10) ? 60 * MINUTE : 0);
    machine->proves_ms = machine->runs_ms + (int64_t)below(2 * MINUTE) + (goes_wrong(10) ? 60 * MINUTE : 0);
    machine->refuses = goes_wrong(15);
    machine->dies_ms = maybe(60, world.now_ms, 90 * MINUTE);
    machine->exits_ms = maybe(20, world.now_ms, 200 * MINUTE);
    machine->ends_ms = INT64_MAX;
    world.created++;
    return machine;
}

static const enum supply_error refusals[] = {SUPPLY_NO_CAPACITY, SUPPLY_QUOTA,       SUPPLY_RATE_LIMITED,
                                             SUPPLY_TRANSIENT,   SUPPLY_PRICE_MOVED, SUPPLY_UNKNOWN};

static void create(const struct lease_action *action)
{
    const struct lease_event intent = {.kind = LEASE_INTENDED, .attempt = action->attempt};
    const uint32_t number = world.lease->attempts[action->attempt].number;
    apply(&intent);
    const struct lease_attempt *attempt = &world.lease->attempts[action->attempt];
    if (attempt->number != number || attempt->state != ATTEMPT_CREATING || is_killed())
        return; /* killed before or after it was stored */
    struct lease_event event = {.kind = LEASE_CREATED, .attempt = action->attempt};
    struct supply_instance instance = {.price_usd_nano = -1};
    world.now_ms += (int64_t)below(60000);
    if (goes_wrong(25)) {
        event.kind = LEASE_CREATE_FAILED;
        event.error = refusals[below(sizeof(refusals) / sizeof(refusals[0]))];
        event.message = STR("no");
    } else if (goes_wrong(2)) {
        event.kind = LEASE_CREATE_FAILED;
        event.error = SUPPLY_BAD_REQUEST;
    } else if (goes_wrong(15)) {
        event.kind = LEASE_CREATE_FAILED;
        event.error = SUPPLY_TRANSIENT;
        event.is_uncertain = true;
        if (below(2))
            make(attempt);
    } else {
        const struct machine *machine = make(attempt);
        instance.id = str_of(machine->id);
        event.instance = &instance;
        if (goes_wrong(8)) {
            event.kind = LEASE_CREATE_FAILED;
            event.error = SUPPLY_PRICE_MOVED;
            event.leftover = instance.id;
        }
    }
    apply(&event);
}

static bool ask_fails(const struct lease_action *action)
{
    static const enum supply_error errors[] = {SUPPLY_TRANSIENT, SUPPLY_RATE_LIMITED, SUPPLY_BAD_CREDENTIAL};
    if (!goes_wrong(20))
        return false;
    const struct lease_event event = {.kind = LEASE_ASK_FAILED,
                                      .attempt = action->attempt,
                                      .error = errors[below(3)],
                                      .retry_after_ms = (int64_t)below(20000)};
    apply(&event);
    return true;
}

static void find(const struct lease_action *action)
{
    struct machine *machine = machine_of(world.lease->attempts[action->attempt].tag);
    bool is_shown = machine && world.now_ms >= machine->shown_ms && is_alive(machine);
    const struct supply_instance instance = {.id = str_of(is_shown ? machine->id : NULL)};
    const struct lease_event event = {.kind = is_shown ? LEASE_FOUND : LEASE_FOUND_NOT,
                                      .attempt = action->attempt,
                                      .instance = is_shown ? &instance : NULL};
    if (!ask_fails(action))
        apply(&event);
}

static enum instance_state state_of(const struct machine *machine)
{
    if (!is_alive(machine))
        return INSTANCE_GONE;
    return world.now_ms < machine->runs_ms ? INSTANCE_PENDING : INSTANCE_RUNNING;
}

static void describe(const struct lease_action *action)
{
    const struct lease_attempt *attempt = &world.lease->attempts[action->attempt];
    struct machine *machine = machine_of(attempt->tag);
    assert_non_null(machine);
    assert_string_equal(machine->id, attempt->instance);
    const struct supply_endpoint endpoint = {.port = 80, .url = STR("http://203.0.113.7:80")};
    struct supply_instance instance = {
        .id = str_of(machine->id), .state = state_of(machine), .endpoints = &endpoint, .endpoint_count = 1};
    if (ask_fails(action))
        return;
    if (world.now_ms < machine->shown_ms || (instance.state == INSTANCE_GONE && below(2))) {
        apply(&(struct lease_event){.kind = LEASE_ASK_FAILED, .attempt = action->attempt, .error = SUPPLY_NOT_FOUND});
        return;
    }
    if (instance.state == INSTANCE_GONE && world.now_ms < machine->ends_ms && below(2))
        instance.state = below(2) ? INSTANCE_STOPPED : INSTANCE_FAILED; /* dead, and still there to be ended */
    apply(&(struct lease_event){.kind = LEASE_DESCRIBED, .attempt = action->attempt, .instance = &instance});
}

static void terminate(const struct lease_action *action)
{
    struct machine *machine = machine_of(world.lease->attempts[action->attempt].tag);
    assert_non_null(machine);
    if (ask_fails(action))
        return;
    if (world.now_ms < machine->runs_ms && is_alive(machine) && goes_wrong(30)) {
        apply(&(struct lease_event){.kind = LEASE_ASK_FAILED, .attempt = action->attempt, .error = SUPPLY_NOT_YET});
        return;
    }
    /* Not shown yet: "no such thing", which is taken for done. Or heard and ignored. */
    bool is_heeded = world.now_ms >= machine->shown_ms && !goes_wrong(30);
    if (is_heeded && machine->ends_ms == INT64_MAX)
        machine->ends_ms = world.now_ms + (int64_t)below(8000);
    if (is_heeded && goes_wrong(10)) /* done, but nobody was told */
        apply(&(struct lease_event){.kind = LEASE_ASK_FAILED, .attempt = action->attempt, .error = SUPPLY_TRANSIENT});
    else
        apply(&(struct lease_event){.kind = LEASE_TERMINATED, .attempt = action->attempt});
}

/* -- the door -- */

static void door(const struct lease_action *action)
{
    const struct lease_attempt *attempt = &world.lease->attempts[action->attempt];
    const struct machine *machine = machine_of(attempt->tag);
    struct lease_event event = {.kind = LEASE_DOOR, .attempt = action->attempt, .door = LEASE_DOOR_NONE};
    assert_non_null(machine);
    if (is_alive(machine) && world.now_ms >= machine->runs_ms && !goes_wrong(10))
        event.door = world.now_ms < machine->proves_ms ? LEASE_DOOR_WAITING
                     : machine->refuses                ? LEASE_DOOR_REFUSED
                                                       : LEASE_DOOR_PROVEN;
    if (event.door != LEASE_DOOR_NONE && machine->went_ms > 0 && world.now_ms >= machine->exits_ms) {
        event.door = LEASE_DOOR_EXITED;
        event.exit_code = 3;
    }
    apply(&event);
}

static void go(const struct lease_action *action)
{
    struct machine *machine = machine_of(world.lease->attempts[action->attempt].tag);
    assert_non_null(machine);
    if (!is_alive(machine) || goes_wrong(10)) {
        apply(&(struct lease_event){.kind = LEASE_ASK_FAILED, .attempt = action->attempt, .error = SUPPLY_TRANSIENT});
        return;
    }
    if (machine->went_ms == 0)
        machine->went_ms = world.now_ms;
    apply(&(struct lease_event){.kind = LEASE_WENT, .attempt = action->attempt});
}

/* -- money -- */

static void hold(void)
{
    const struct lease_event held = {.kind = LEASE_HELD}, unfunded = {.kind = LEASE_UNFUNDED, .message = STR("poor")};
    assert_false(world.is_released);
    assert_true(world.lease->price_usd_nano > 0);
    apply(world.now_ms >= world.poor_ms ? &unfunded : &held);
}

static void capture(void)
{
    const struct lease *lease = world.lease;
    int64_t *charged_ms = &world.charged_ms[lease->epoch];
    assert_false(world.is_released);
    /* It may have been charged already by one who was killed then, and to the same end. */
    assert_true(*charged_ms == lease->epoch_billed_ms || *charged_ms == lease->capture_intent_ms);
    *charged_ms = lease->capture_intent_ms;
    int64_t slice_ms = lease->capture_intent_ms - lease->epoch_billed_ms;
    assert_true(slice_ms > 0);
    apply(&(struct lease_event){.kind = LEASE_CAPTURED, .gpu_ms = slice_ms * 2, .cost_usd_nano = slice_ms * 2});
}

static void pick(void)
{
    struct lease_candidate candidate = {.gpus = 2, .price_usd_nano = 3600000, .network_price_usd_nano = 3000000};
    assert_true(world.now_ms >= world.lease->pick_ms);
    if (goes_wrong(10)) {
        apply(&(struct lease_event){.kind = LEASE_NO_CANDIDATE, .message = STR("0 of 3 offers fit")});
        return;
    }
    snprintf(candidate.network, sizeof(candidate.network), "%s", networks[below(NETWORKS)]);
    snprintf(candidate.offer, sizeof(candidate.offer), "o%d", (int)below(50));
    apply(&(struct lease_event){.kind = LEASE_PICKED, .candidate = &candidate});
}

/* -- a life -- */

static void wait_until(int64_t until_ms)
{
    assert_true(until_ms > world.now_ms);
    int64_t late_ms = goes_wrong(10) ? (int64_t)below(2 * MINUTE) : (int64_t)below(300);
    /* Somebody looks too early now and then: nothing may depend on when. */
    world.now_ms = goes_wrong(10) ? world.now_ms + 1 : until_ms + late_ms;
}

static void carry_out(const struct lease_action *action)
{
    switch (action->what) {
    case LEASE_DO_NOTHING:
        break;
    case LEASE_DO_WAIT:
        wait_until(action->until_ms);
        break;
    case LEASE_DO_STOP:
        apply(&(struct lease_event){.kind = LEASE_STOP});
        break;
    case LEASE_DO_PICK:
        pick();
        break;
    case LEASE_DO_HOLD:
        hold();
        break;
    case LEASE_DO_CREATE:
        create(action);
        break;
    case LEASE_DO_FIND:
        find(action);
        break;
    case LEASE_DO_DESCRIBE:
        describe(action);
        break;
    case LEASE_DO_DOOR:
        door(action);
        break;
    case LEASE_DO_GO:
        go(action);
        break;
    case LEASE_DO_INTEND_CAPTURE:
        apply(
            &(struct lease_event){.kind = LEASE_CAPTURE_INTENDED, .to_ms = lease_epoch_ms(world.lease, world.now_ms)});
        break;
    case LEASE_DO_CAPTURE:
        capture();
        break;
    case LEASE_DO_TERMINATE:
        terminate(action);
        break;
    case LEASE_DO_RELEASE:
        world.is_released = true;
        apply(&(struct lease_event){.kind = LEASE_RELEASED});
        break;
    }
}

static void begin(uint64_t seed)
{
    struct lease *lease = world.lease, *stored = world.stored;
    world = (struct world){.seed = seed * UINT64_C(0xe7037ed1a0b428db), .lease = lease, .stored = stored};
    world.chaos = below(4) == 0 ? 0 : below(101);
    world.now_ms = BEGIN_MS;
    world.stop_ms = BEGIN_MS + (int64_t)below(5 * 60 * MINUTE);
    world.poor_ms = maybe(15, BEGIN_MS, 120 * MINUTE);
    for (unsigned i = 0; i < NETWORKS; i++)
        world.terms[i] = (struct lease_terms){.is_known = true,
                                              .probe = (enum lease_probe)below(3),
                                              .settle_ms = 1 + (int64_t)below(90000),
                                              .boot_ms = 10 * MINUTE};
    memset(lease, 0, sizeof(*lease));
    snprintf(lease->id, sizeof(lease->id), "lse_%026" PRIu64, seed);
    snprintf(lease->installation, sizeof(lease->installation), "0a1b2c");
    lease->created_at_ms = world.now_ms;
    lease->request = (struct lease_request){.gpu = STR("nvidia/rtx4090-24"),
                                            .gpus = 2,
                                            .price_max_usd_nano = -1,
                                            .price_quoted_usd_nano = -1,
                                            .max_duration_s = below(3) ? 0 : 60 + (int64_t)below(4 * 3600),
                                            .deadline_s = below(2) ? 0 : 60 + (int64_t)below(3600),
                                            .retry_until_up = below(2),
                                            .recovers = below(2)};
    *stored = *lease;
}

/* What the stored lease says of each run is what was charged, and no machine was billed while it did not run. */
static void check_money(void)
{
    int64_t total_ms = 0;
    for (unsigned i = 0; i <= LEASE_RECOVERIES_MAX; i++) {
        int64_t usable_ms = world.since_ms[i] > 0 ? world.until_ms[i] - world.since_ms[i] : 0;
        if (world.charged_ms[i] != usable_ms)
            fail_msg("run %u: charged %" PRId64 " ms of %" PRId64, i, world.charged_ms[i], usable_ms);
        total_ms += usable_ms;
    }
    assert_true(total_ms == 0 || world.lease->active_at_ms > 0);
    assert_true(world.lease->billed_gpu_ms == 2 * total_ms);
    assert_true(world.lease->cost_usd_nano == 2 * total_ms);
    if (world.lease->request.max_duration_s > 0)
        assert_true(total_ms <= world.lease->request.max_duration_s * 1000);
    for (size_t i = 0; i < world.lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &world.lease->attempts[i];
        const struct machine *machine = machine_of(attempt->tag);
        if (attempt->error == SUPPLY_LOST)
            assert_true(world.until_ms[attempt->epoch] <= machine->dies_ms);
        if (attempt->error == SUPPLY_LOST)
            world.losses++;
    }
}

static void check_end(void)
{
    const struct lease *lease = world.lease;
    assert_true(lease_is_over(lease));
    assert_true(lease->reason[0] != '\0');
    assert_true(lease->ended_at_ms >= lease->created_at_ms);
    assert_true(world.is_released);
    assert_true(lease->attempts_made >= world.created);
    for (size_t i = 0; i < world.machine_count; i++) {
        if (is_alive(&world.machines[i]))
            fail_msg("%s still runs", world.machines[i].tag);
        assert_false(lease_owns(lease, (uint32_t)i + 1));
    }
    check_money();
}

static void random_lives(void **state)
{
    unsigned long ended = 0, failed = 0, active = 0, created = 0, crashes = 0, losses = 0, recovered = 0;
    (void)state;
    policy = lease_policy_default;
    policy.terms = terms_of;
    policy.watch_ms = MINUTE; /* fewer steps, the same moves */
    world.lease = lease_new();
    world.stored = lease_new();
    for (uint64_t seed = 1; seed <= LEASES; seed++) {
        struct lease_action action = {.what = LEASE_DO_WAIT};
        unsigned steps = 0;
        begin(seed);
        while (action.what != LEASE_DO_NOTHING) {
            if (world.now_ms >= world.stop_ms && world.stored->stop_asked_ms == 0)
                world.stored->stop_asked_ms = world.now_ms; /* which the driver sees when it saves or loads */
            /* Nobody who has nothing under way keeps it: it is loaded again. */
            if (action.what == LEASE_DO_WAIT)
                *world.lease = *world.stored;
            action = lease_next(world.lease, world.now_ms, &policy);
            carry_out(&action);
            world.now_ms += (int64_t)below(50);
            if (++steps > STEPS_MAX)
                fail_msg("seed %" PRIu64 " never ends: %s, %s, action %d", seed, lease_state_name(world.lease->state),
                         world.lease->reason, action.what);
        }
        *world.lease = *world.stored;
        check_end();
        ended += world.lease->state == LEASE_ENDED;
        failed += world.lease->state == LEASE_FAILED;
        active += world.lease->active_at_ms > 0;
        recovered += world.lease->epoch > 0;
        created += world.created;
        crashes += world.crashes;
        losses += world.losses;
    }
    print_message("%d leases: %lu ended, %lu failed, %lu were active, %lu recovered; %lu machines, %lu lost, driver "
                  "killed %lu times\n",
                  LEASES, ended, failed, active, recovered, created, losses, crashes);
    /* The worlds are such that all of it happens. */
    assert_true(ended > 500 && failed > 150 && active > 1000 && recovered > 80 && losses > 150 && crashes > 5000);
    world.lease = lease_free(world.lease);
    world.stored = lease_free(world.stored);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
