/* Proofs of workers: claimed in Redis, run over a link for all devices of a worker at once, ended by control_verdict.c.
 *
 * A claim is good for 30 s and is renewed while the run goes on, so that another gateway takes over soon when this one
 * dies. */
#include "gateway/control_proof.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

#define RUNS_MAX 256
#define RENEW_NS (8 * NS_PER_S)
#define RUN_LIMIT_NS (300 * NS_PER_S)

struct registry_entry *run_entry(const struct probe_run *run)
{
    struct registry_entry *entry = registry_find(run->control->registry, str_of(run->worker->id));
    return entry && entry->probe == run ? entry : NULL;
}

const struct verify_report *run_report(const struct probe_run *run, unsigned device)
{
    return run->devices[device].session ? proof_session_report(run->devices[device].session) : NULL;
}

void run_free(struct probe_run *run)
{
    struct registry_entry *entry = run_entry(run);
    if (entry)
        entry->probe = NULL;
    control_slot_close(run);
    timer_clear(run->control->loop, &run->renew);
    *run->link = run->next;
    if (run->next)
        run->next->link = run->link;
    run->control->run_count--;
    for (unsigned i = 0; i < run->device_count; i++)
        proof_session_free(run->devices[i].session);
    worker_unref(run->worker);
    control_verdict_free(run->verdict);
    free(run);
}

void run_hold(struct probe_run *run)
{
    run->holds++;
}

void run_release(struct probe_run *run)
{
    run->holds--;
    if (run->holds > 0 || !run->has_ended)
        return;
    for (unsigned i = 0; i < run->device_count; i++)
        if (run->devices[i].session && run->devices[i].state != DEVICE_TOLD)
            return;
    run_free(run);
}

void control_runs_free(struct control *control)
{
    while (control->runs)
        run_free(control->runs);
}

uint32_t control_gateway_hash(const struct control *control)
{
    uint32_t hash = (uint32_t)str_hash(str_of(control->gateway->id), 0);
    return hash ? hash : 1;
}

struct admission_policy control_admission_policy(const struct control *control)
{
    return (struct admission_policy){control->settings->probes.reprobe_min_s * 1000,
                                     control->settings->probes.reprobe_max_s * 1000};
}

uint64_t control_fresh_bits(void)
{
    uint64_t bits;
    crypto_random(&bits, sizeof(bits));
    return bits;
}

static unsigned count_in(const struct probe_run *run, int state)
{
    unsigned count = 0;
    for (unsigned i = 0; i < run->device_count; i++)
        count += (int)run->devices[i].state == state;
    return count;
}

/* -- renewing the claim ------------------------------------------------------------------------------------------ */

struct renewal {
    struct probe_run *run;
    struct admission claim;
};

static void run_lose(struct probe_run *run)
{
    run->is_lost = true;
    run_hold(run);
    for (unsigned i = 0; i < run->device_count; i++) {
        struct proof_device *device = &run->devices[i];
        if (device->state == DEVICE_HELD_HELLO || device->state == DEVICE_HELD_SLOT)
            proof_session_lose(device->session);
    }
    run_release(run);
}

static void on_renewed(void *ctx, enum error error)
{
    struct renewal *renewal = ctx;
    struct probe_run *run = renewal->run;
    struct registry_entry *entry = run_entry(run);
    bool has_ended = run->has_ended; /* losing it may end it, too */
    run->is_renewing = false;
    if (error == ERR_NONE) {
        run->claim = renewal->claim;
        if (entry)
            entry->record.admission = run->claim;
    } else if (error == ERR_MISMATCH) {
        run_lose(run); /* somebody else has it */
    }
    if (has_ended)
        control_verdict(run);
    free(renewal);
    run_release(run);
}

static void on_renew(struct timer *timer)
{
    struct probe_run *run = container_of(timer, struct probe_run, renew);
    struct control *control = run->control;
    const struct admission_policy policy = control_admission_policy(control);
    const struct admission_news news = {.event = ADMISSION_PROBE_GOING_ON, .now_ms = clock_wall_ms()};
    if (run->has_ended || control->is_shut)
        return;
    if (loop_now(control->loop) - run->started_ns > RUN_LIMIT_NS) {
        run_lose(run); /* which may end and free it; nothing is renewed any more */
        return;
    }
    timer_set(control->loop, timer, loop_now(control->loop) + RENEW_NS);
    struct renewal *renewal = run->is_renewing ? NULL : malloc(sizeof(*renewal));
    if (!renewal)
        return;
    *renewal = (struct renewal){run, run->claim};
    (void)admission_step(&renewal->claim, &news, &policy);
    if (worker_store_admit(control->redis, str_of(run->worker->id), run->claim.token, &renewal->claim, on_renewed,
                           renewal) == ERR_NONE) {
        run->is_renewing = true;
        run_hold(run);
    } else {
        free(renewal);
    }
}

/* -- the sessions ------------------------------------------------------------------------------------------------ */

static void device_done(struct proof_device *device)
{
    struct probe_run *run = device->run;
    device->state = DEVICE_DONE;
    control_slot_leave(device);
    if (count_in(run, DEVICE_DONE) == run->device_count && !run->has_ended) {
        run->has_ended = true;
        timer_clear(run->control->loop, &run->renew);
        if (!run->is_renewing) /* two changes of one token: the one that comes second would be refused */
            control_verdict(run);
    }
}

static bool is_forsaken(const struct probe_run *run)
{
    return run->is_lost || run->control->is_shut || !run_entry(run);
}

static void go_on_after_hello(struct probe_run *run)
{
    run_hold(run); /* losing the last session ends the run */
    for (unsigned i = 0; i < run->device_count; i++) {
        struct proof_device *device = &run->devices[i];
        if (device->state != DEVICE_HELD_HELLO)
            continue;
        if (is_forsaken(run) || run->has_changed || run->refusal[0]) {
            proof_session_lose(device->session);
        } else {
            device->state = DEVICE_RUNS;
            proof_session_go_on(device->session);
        }
    }
    run_release(run);
}

static void on_newcomer(void *ctx, enum error error, bool is_granted, int64_t retry_after_ms)
{
    struct probe_run *run = ctx;
    (void)retry_after_ms; /* it is tried again with growing pauses, like whatever else is refused */
    if (error)
        run_lose(run);
    else if (!is_granted)
        snprintf(run->refusal, sizeof(run->refusal), "%s", IDENTITY_BLOCK_FULL);
    run->was_learned = true;
    go_on_after_hello(run);
    run_release(run);
}

/* It was never admitted, and its address block has only so many admissions. What is leased is paid for, and a network's
 * machines may share few addresses. */
static bool ask_as_newcomer(struct probe_run *run)
{
    const struct registry_entry *entry = run_entry(run);
    uint64_t block = atomic_load(&run->worker->address_block);
    if (!entry || entry->record.admission.admitted_at_ms || !block || run->refusal[0] || entry->record.lease[0])
        return false;
    if (identity_store_newcomer(run->control->redis, block, str_of(run->worker->id), on_newcomer, run) == ERR_NONE)
        return true;
    run_lose(run);
    return false;
}

static void on_identified(void *ctx, enum error error, const struct identity_memory *memory)
{
    struct probe_run *run = ctx;
    if (error)
        run_lose(run);
    else
        control_identified(run, memory);
    if (!error && ask_as_newcomer(run))
        return;
    run->was_learned = true;
    go_on_after_hello(run);
    run_release(run);
}

/* Every device has said who it is, or has failed to. */
static void on_all_hellos(struct probe_run *run)
{
    struct identity identities[IDENTITIES_MAX];
    size_t count = is_forsaken(run) ? 0 : control_identities(run, true, identities);
    if (count > 0) {
        run_hold(run);
        if (identity_store_learn(run->control->redis, identities, count, on_identified, run) == ERR_NONE)
            return;
        run_lose(run);
        run_release(run);
        return;
    }
    go_on_after_hello(run);
}

static bool device_start(struct probe_run *run, unsigned gpu);

/* The first device's hello tells how many there are. */
static void start_others(struct probe_run *run, const struct verify_report *report)
{
    unsigned count = report->gpu_count < run->device_max ? report->gpu_count : run->device_max;
    run->is_spread = true;
    for (unsigned i = 1; i < count && run_entry(run); i++) {
        run->device_count++;
        if (!device_start(run, i))
            run->is_lost = true;
    }
}

static void on_hello(void *ctx, struct proof_session *session)
{
    struct proof_device *device = ctx;
    struct probe_run *run = device->run;
    device->state = DEVICE_HELD_HELLO;
    if (!run->is_spread)
        start_others(run, proof_session_report(session));
    if (run->was_learned)
        go_on_after_hello(run);
    else if (count_in(run, DEVICE_HELD_HELLO) + count_in(run, DEVICE_DONE) == run->device_count)
        on_all_hellos(run);
}

static void on_slotted(void *ctx, struct proof_session *session)
{
    struct proof_device *device = ctx;
    device->state = DEVICE_HELD_SLOT;
    if (is_forsaken(device->run))
        proof_session_lose(session);
    else
        control_slot_arrive(device);
}

static void on_done(void *ctx, struct proof_session *session)
{
    struct proof_device *device = ctx;
    struct probe_run *run = device->run;
    (void)session;
    run_hold(run);
    device_done(device);
    /* The last one to say who it is may have failed instead. */
    if (!run->has_ended && !run->was_learned && count_in(run, DEVICE_HELD_HELLO) > 0 &&
        count_in(run, DEVICE_HELD_HELLO) + count_in(run, DEVICE_DONE) == run->device_count)
        on_all_hellos(run);
    run_release(run);
}

static void on_told(void *ctx, struct proof_session *session)
{
    struct proof_device *device = ctx;
    (void)session;
    device->state = DEVICE_TOLD;
    run_hold(device->run);
    run_release(device->run);
}

/* -- starting ---------------------------------------------------------------------------------------------------- */

struct reactor *control_linked_reactor(const struct control *control, const struct registry_entry *entry)
{
    for (size_t i = 0; i < control->gateway->reactor_count; i++)
        if (entry->links_of[i] > 0)
            return control->gateway->reactors[i];
    return NULL;
}

/* It was admitted under the key and driver that its summary holds; whether it is still the same shows at its hello. */
static bool run_is_known(const struct registry_entry *entry)
{
    const struct worker_record *record = &entry->record;
    return record->proof.at_ms && record->proof.gpu[0] && record->admission.admitted_at_ms;
}

static enum error device_open(struct probe_run *run, struct proof_device *device, const struct registry_entry *entry)
{
    static const struct proof_events events = {on_hello, on_slotted, on_done, on_told};
    struct control *control = run->control;
    const struct worker_record *record = &entry->record;
    const struct worker_proof *proof = &record->proof;
    bool is_first = run->purpose == VERIFY_ADMISSION || !proof->at_ms || !proof->gpu[0];
    const struct verify_options verify = {
        .purpose = run->purpose,
        .proven_gpu = run_is_known(entry) ? str_of(proof->gpu) : (struct str){NULL, 0},
        .gpu = device->gpu,
        .catalogue = control->catalogue,
        .pool = control->chain_pool,
        .claimed_gpu = str_of(is_first ? record->gpu : proof->gpu),
        .self = entry->lease_self,
    };
    const struct proof_session_options options = {.loop = control->loop,
                                                  .pool = control->pool,
                                                  .reactor = run->reactor,
                                                  .worker = run->worker,
                                                  .verify = &verify,
                                                  .is_over = &control->is_shut,
                                                  .events = &events,
                                                  .ctx = device};
    return proof_session_open(&options, &device->session);
}

static bool device_start(struct probe_run *run, unsigned gpu)
{
    struct registry_entry *entry = run_entry(run);
    struct proof_device *device = &run->devices[gpu];
    *device = (struct proof_device){.run = run, .gpu = gpu, .seat = device->seat};
    if (gpu > 0)
        control_slot_join(device); /* the first one has its seat since the run began */
    bool is_open = entry && run->reactor && device_open(run, device, entry) == ERR_NONE;
    if (!is_open) {
        device->state = DEVICE_DONE;
        control_slot_leave(device);
    }
    return is_open;
}

static void run_open(struct probe_run *run, struct registry_entry *entry)
{
    struct control *control = run->control;
    run->reactor = control_linked_reactor(control, entry);
    run->device_count = 1;
    if (!control_slot_alone(run) || !device_start(run, 0)) {
        run->has_ended = true;
        control_verdict(run);
        return;
    }
    timer_set(control->loop, &run->renew, loop_now(control->loop) + RENEW_NS);
}

static void on_claimed(void *ctx, enum error error)
{
    struct probe_run *run = ctx;
    struct control *control = run->control;
    struct registry_entry *entry = run_entry(run);
    run->holds--;
    if (error || !entry || control->is_shut) {
        /* Another gateway was faster, or Redis did not answer: what is stored tells how to go on. */
        if (entry && !control->is_shut)
            control_load_worker(control, str_of(run->worker->id));
        run_free(run);
        return;
    }
    entry->record.admission = run->claim;
    run_open(run, entry);
}

/* A worker that has calls is asked for little, beside them. */
static enum verify_purpose purpose_of(const struct registry_entry *entry, const struct admission *claim)
{
    if (claim->next_purpose == VERIFY_ADMISSION || claim->state != ADMISSION_READY)
        return VERIFY_ADMISSION;
    return worker_load(entry->worker) > 0 ? VERIFY_LEASE : claim->next_purpose;
}

static void run_start(struct control *control, struct registry_entry *entry, const struct admission *claim,
                      bool is_wanted)
{
    unsigned count = entry->record.gpus && strcmp(entry->record.gpu, "cpu") != 0 ? entry->record.gpus : 1;
    count = count < PROBE_DEVICES_MAX ? count : PROBE_DEVICES_MAX;
    struct probe_run *run = calloc(1, sizeof(*run) + count * sizeof(run->devices[0]));
    if (!run)
        return; /* the next tick tries again */
    run->control = control;
    run->worker = worker_ref(entry->worker);
    run->claim = *claim;
    run->purpose = purpose_of(entry, claim);
    memcpy(run->declared_gpu, entry->record.gpu, sizeof(run->declared_gpu));
    run->declared_gpus = entry->record.gpus;
    run->device_max = count;
    run->started_ns = loop_now(control->loop);
    run->renew.on_due = on_renew;
    run->next = control->runs;
    run->link = &control->runs;
    if (run->next)
        run->next->link = &run->next;
    control->runs = run;
    control->run_count++;
    entry->probe = run;
    if (!is_wanted)
        control_slot_open(run);
    run_hold(run);
    if (worker_store_admit(control->redis, str_of(run->worker->id), entry->record.admission.token, claim, on_claimed,
                           run) != ERR_NONE)
        run_free(run);
}

bool control_is_leased_out(const struct registry_entry *entry)
{
    return entry->record.lease[0] && entry->command != COMMAND_NONE && entry->command != COMMAND_WAITING;
}

/* The admission's setting is about those that serve calls; whether a lease goes on without a proof is its network's. */
static bool is_probed(const struct control *control, const struct registry_entry *entry)
{
    if (!entry->record.lease[0])
        return control->settings->probes.admission != PROBE_OFF;
    return strcmp(entry->record.gpu, WORKER_GPU_UNPROVEN) != 0 && entry->command == COMMAND_WAITING;
}

void control_consider(struct control *control, struct registry_entry *entry, enum admission_event event)
{
    const struct admission_policy policy = control_admission_policy(control);
    const struct admission_news news = {.event = event,
                                        .now_ms = clock_wall_ms(),
                                        .random = control_fresh_bits(),
                                        .gateway = control_gateway_hash(control)};
    struct admission claim = entry->record.admission;
    if (!is_probed(control, entry) || control->is_shut || entry->probe || entry->links == 0 || entry->draining ||
        control->run_count >= RUNS_MAX)
        return;
    if (admission_step(&claim, &news, &policy) == ADMISSION_SEND_PROBE)
        run_start(control, entry, &claim, event == ADMISSION_WANTED);
}
