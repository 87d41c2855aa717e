/* Who is challenged at the same time: devices that could be one and the same under several names. Who shares what, and
 * the barrier, are scheduler/slot.h's; here are the workers and their sessions. */
#include "gateway/control_proof.h"

#include "core/clock.h"
#include "core/log.h"
#include "scheduler/slot.h"

#include <stdlib.h>
#include <string.h>

#define PUT_OFFS_MAX 10 /* of SLOT_WAIT_NS */
#define MATE_REST 5     /* a worker is not brought again within this part of the least wait */

struct slot_place {
    struct control *control;
    struct slot_barrier barrier;
    struct timer due;
    unsigned refs; /* of runs, and of loops over it */
    unsigned put_offs;
    struct proof_device *members[SLOT_MEMBERS_MAX];
};

static void place_unref(struct slot_place *place)
{
    if (--place->refs > 0)
        return;
    timer_clear(place->control->loop, &place->due);
    free(place);
}

/* -- the barrier ------------------------------------------------------------------------------------------------- */

static void place_turn(struct slot_place *place, enum slot_turn turn, const struct slot_go *go)
{
    place->refs++; /* a session that cannot be sent ends within */
    if (turn == SLOT_GO)
        log_debug(NULL, "%u devices are challenged at once", go->count);
    for (unsigned i = 0; turn == SLOT_GO && i < go->count; i++) {
        struct proof_device *device = place->members[go->members[i]];
        if (!device || device->state != DEVICE_HELD_SLOT)
            continue;
        device->state = DEVICE_RUNS;
        proof_session_go_on(device->session);
    }
    int64_t due_ns = slot_barrier_due_ns(&place->barrier);
    if (due_ns == INT64_MAX)
        timer_clear(place->control->loop, &place->due);
    else
        timer_set(place->control->loop, &place->due, due_ns);
    place_unref(place);
}

/* Somebody waits for the gateway, which has still to prepare what it will be asked: many at once take a while. */
static bool is_preparing(const struct slot_place *place)
{
    for (unsigned i = 0; i < SLOT_MEMBERS_MAX; i++) {
        const struct proof_device *device = place->members[i];
        if (device && device->state == DEVICE_RUNS && (!device->session || !proof_session_is_asking(device->session)))
            return true;
    }
    return false;
}

static void on_due(struct timer *timer)
{
    struct slot_place *place = container_of(timer, struct slot_place, due);
    struct slot_go go;
    if (place->put_offs < PUT_OFFS_MAX && is_preparing(place)) {
        place->put_offs++;
        slot_barrier_put_off(&place->barrier, loop_now(place->control->loop));
    }
    place_turn(place, slot_barrier_tick(&place->barrier, loop_now(place->control->loop), &go), &go);
}

void control_slot_join(struct proof_device *device)
{
    struct slot_place *place = device->run->place;
    device->seat = place ? slot_barrier_join(&place->barrier) : SLOT_MEMBERS_MAX;
    if (device->seat < SLOT_MEMBERS_MAX)
        place->members[device->seat] = device;
}

void control_slot_arrive(struct proof_device *device)
{
    struct slot_place *place = device->run->place;
    struct slot_go go;
    if (!place || device->seat >= SLOT_MEMBERS_MAX) {
        device->state = DEVICE_RUNS;
        proof_session_go_on(device->session);
        return;
    }
    enum slot_turn turn = slot_barrier_arrive(&place->barrier, device->seat, loop_now(place->control->loop), &go);
    if (turn == SLOT_LATE)
        proof_session_lose(device->session);
    else
        place_turn(place, turn, &go);
}

void control_slot_leave(struct proof_device *device)
{
    struct slot_place *place = device->run->place;
    struct slot_go go;
    if (!place || device->seat >= SLOT_MEMBERS_MAX)
        return;
    unsigned seat = device->seat;
    device->seat = SLOT_MEMBERS_MAX;
    place->members[seat] = NULL;
    place_turn(place, slot_barrier_leave(&place->barrier, seat, &go), &go);
}

void control_slot_close(struct probe_run *run)
{
    struct slot_place *place = run->place;
    if (!place)
        return;
    control_slot_leave(&run->devices[0]); /* it had its seat before there was a session */
    for (unsigned i = 1; i < run->device_count; i++)
        control_slot_leave(&run->devices[i]);
    run->place = NULL;
    place_unref(place);
}

/* -- who comes along --------------------------------------------------------------------------------------------- */

static bool is_cpu(const struct registry_entry *entry)
{
    const char *proven = entry->record.proof.gpu;
    return !strcmp(proven[0] ? proven : entry->record.gpu, "cpu");
}

static struct slot_member member_of(const struct registry_entry *entry)
{
    return (struct slot_member){.is_cpu = is_cpu(entry),
                                .operator_key = slot_key(str_of(entry->record.supplier)),
                                .uuid_key = slot_key(str_of(entry->record.proof.uuid_sha256)),
                                .block_key = atomic_load(&entry->worker->address_block)};
}

/* A ready worker that has had some rest. A random check brings those that are past half of their wait, so that a large
 * operator's workers come in groups and not each time all. */
static bool may_come(const struct registry_entry *entry, const struct probe_run *run, int64_t now_ms)
{
    const struct admission *admission = &entry->record.admission;
    int64_t rested_ms = now_ms - admission->last_probe_at_ms;
    int64_t wait_ms = admission->next_probe_at_ms - admission->last_probe_at_ms;
    return entry->worker != run->worker && entry->links > 0 && !entry->probe && !entry->draining &&
           admission_is_ready(admission) && !is_cpu(entry) && !control_is_leased_out(entry) &&
           rested_ms > control_admission_policy(run->control).reprobe_min_ms / MATE_REST &&
           (run->purpose == VERIFY_ADMISSION || rested_ms > wait_ms / 2);
}

/* The workers to bring: those that could be the caller's devices, or a choice of them. How many. */
static size_t find_mates(const struct probe_run *run, struct registry_entry *caller,
                         struct registry_entry *ret[static SLOT_MEMBERS_MAX])
{
    const struct registry *registry = run->control->registry;
    size_t count = registry_count(registry), candidates = 1, groups, picked[SLOT_MEMBERS_MAX], picks = 0;
    struct slot_member *members = calloc(count + 1, sizeof(*members));
    struct registry_entry **entries = calloc(count + 1, sizeof(*entries));
    uint32_t *group = calloc(count + 1, sizeof(*group));
    int64_t now_ms = clock_wall_ms();
    if (!members || !entries || !group)
        goto out;
    entries[0] = caller;
    members[0] = member_of(caller);
    for (size_t i = 0; i < count; i++) {
        struct registry_entry *entry = registry_at(registry, i);
        if (may_come(entry, run, now_ms)) {
            entries[candidates] = entry;
            members[candidates++] = member_of(entry);
        }
    }
    if (candidates > 1 && slot_group(members, candidates, group, &groups) == ERR_NONE)
        picks = slot_pick(group, candidates, 0, control_fresh_bits(), picked);
    for (size_t i = 1; i < picks; i++)
        ret[i - 1] = entries[picked[i]];
out:
    free(members);
    free(entries);
    free(group);
    return picks > 0 ? picks - 1 : 0;
}

static void sit(struct probe_run *run, struct slot_place *place)
{
    run->place = place;
    place->refs++;
    run->devices[0].run = run;
    control_slot_join(&run->devices[0]);
}

/* With the run in it. NULL: no memory. */
static struct slot_place *place_new(struct probe_run *run)
{
    struct slot_place *place = calloc(1, sizeof(*place));
    if (!place)
        return NULL;
    place->control = run->control;
    place->due.on_due = on_due;
    place->refs = 1;
    slot_barrier_open(&place->barrier);
    sit(run, place);
    return place;
}

bool control_slot_alone(struct probe_run *run)
{
    if (run->place || run->device_max < 2 || !run->control->settings->probes.slot)
        return true;
    struct slot_place *place = place_new(run);
    if (place)
        place_unref(place);
    return place != NULL;
}

void control_slot_open(struct probe_run *run)
{
    struct control *control = run->control;
    struct registry_entry *caller = run_entry(run), *mates[SLOT_MEMBERS_MAX];
    size_t count = 0;
    if (control->settings->probes.slot && caller && !is_cpu(caller))
        count = find_mates(run, caller, mates);
    if (count == 0)
        return;
    struct slot_place *place = place_new(run);
    if (!place)
        return; /* each alone, as if it had no mates */
    for (size_t i = 0; i < count; i++) {
        control_consider(control, mates[i], ADMISSION_WANTED);
        if (mates[i]->probe && !mates[i]->probe->place)
            sit(mates[i]->probe, place);
    }
    place_unref(place);
}
