#include "gateway/lease_drive_priv.h"

#include "core/clock.h"
#include "core/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS (100 * NS_PER_MS)
#define KEEP_NS (LEASE_CLAIM_MS / 3 * NS_PER_MS)
#define SAVE_AGAIN_NS NS_PER_S
#define SAVE_TRIES_MAX 20
#define SHARDS_A_TICK 4
#define MEMORY_TICKS 20
#define ODD_PAUSE_MS 60000 /* a lease that does not go on as it should */

static void drive_run(struct drive *drive);

/* -- one claimed lease ------------------------------------------------------------------------------------------- */

void drive_free(struct drive *drive)
{
    struct lease_driver *driver = drive->driver;
    if (drive->call)
        network_cancel(drive->call);
    drive_find_leave(drive);
    timer_clear(driver->loop, &drive->keep);
    timer_clear(driver->loop, &drive->again);
    loop_undefer(driver->loop, &drive->step);
    *drive->link = drive->next;
    if (drive->next)
        drive->next->link = drive->link;
    driver->drive_count--;
    lease_free(drive->lease);
    free(drive);
}

static void on_kept(void *ctx, enum error error)
{
    struct drive *drive = ctx;
    drive->is_keeping = false;
    if (error == ERR_MISMATCH || error == ERR_NOT_FOUND)
        drive->is_lost = true;
    if (drive->is_over)
        drive_free(drive);
}

static void on_keep(struct timer *timer)
{
    struct drive *drive = container_of(timer, struct drive, keep);
    timer_set(drive->driver->loop, timer, loop_now(drive->driver->loop) + KEEP_NS);
    if (drive->is_keeping || drive->is_lost)
        return;
    drive->is_keeping = lease_store_keep(drive->driver->redis, drive->lease, on_kept, drive) == ERR_NONE;
}

/* The drive's end. Waits for an open question about its claim. */
static void drive_end(struct drive *drive)
{
    drive->is_over = true;
    timer_clear(drive->driver->loop, &drive->keep);
    timer_clear(drive->driver->loop, &drive->again);
    if (!drive->is_keeping)
        drive_free(drive);
}

static void save(struct drive *drive);

static void on_save_again(struct timer *timer)
{
    save(container_of(timer, struct drive, again));
}

static void on_saved(void *ctx, enum error error)
{
    struct drive *drive = ctx;
    struct lease_driver *driver = drive->driver;
    if (error == ERR_MISMATCH || error == ERR_NOT_FOUND) {
        log_info(NULL, "lease %s is another gateway's now", drive->lease->id);
        drive_end(drive);
        return;
    }
    if (error != ERR_NONE && !driver->is_shut && drive->save_tries++ < SAVE_TRIES_MAX) {
        timer_set(driver->loop, &drive->again, loop_now(driver->loop) + SAVE_AGAIN_NS);
        return;
    }
    drive->save_tries = 0;
    if (error != ERR_NONE || drive->is_last || drive->is_lost) {
        drive_end(drive); /* unsaved: whoever claims it next finds it as it was saved last */
        return;
    }
    if (drive->is_intended) {
        drive->is_intended = false;
        drive_create(drive);
        return;
    }
    loop_defer(driver->loop, &drive->step);
}

static void save(struct drive *drive)
{
    enum error error = lease_store_save(drive->driver->redis, drive->lease, !drive->is_last, on_saved, drive);
    if (error == ERR_BUSY || error == ERR_NO_MEMORY)
        timer_set(drive->driver->loop, &drive->again, loop_now(drive->driver->loop) + SAVE_AGAIN_NS);
    else if (error != ERR_NONE)
        drive_end(drive);
}

static void let_go(struct drive *drive, int64_t due_ms)
{
    drive->lease->due_ms = due_ms;
    drive->is_last = true;
    save(drive);
}

void drive_put_off(struct drive *drive, int64_t after_ms)
{
    let_go(drive, clock_wall_ms() + after_ms);
}

static void count(struct lease_driver *driver, const struct lease_event *event, enum lease_state before,
                  const struct lease *lease)
{
    if (event->kind == LEASE_CREATED || event->kind == LEASE_CREATE_FAILED)
        driver->counts.attempts_by_error[event->kind == LEASE_CREATED ? SUPPLY_OK : event->error]++;
    if (before == lease->state)
        return;
    driver->counts.by_state[lease->state]++;
    log_info(NULL, "lease %s: %s -> %s%s%s", lease->id, lease_state_name(before), lease_state_name(lease->state),
             *lease->reason ? ": " : "", lease->reason);
}

/* The numbers of the attempts that are not closed; how many. */
static size_t open_attempts(const struct lease *lease, uint32_t ret[LEASE_ATTEMPTS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < lease->attempt_count; i++)
        if (lease->attempts[i].state != ATTEMPT_CLOSED)
            ret[count++] = lease->attempts[i].number;
    return count;
}

/* What is closed now and was not: its token and its worker are of no use any more. */
static void close_doors(struct drive *drive, const uint32_t *numbers, size_t number_count)
{
    for (size_t i = 0; i < drive->lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &drive->lease->attempts[i];
        for (size_t n = 0; n < number_count && attempt->state == ATTEMPT_CLOSED; n++)
            if (numbers[n] == attempt->number)
                drive_close_door(drive, attempt);
    }
}

void drive_apply(struct drive *drive, const struct lease_event *event)
{
    struct lease_driver *driver = drive->driver;
    enum lease_state before = drive->lease->state;
    uint32_t open[LEASE_ATTEMPTS_MAX];
    size_t open_count = open_attempts(drive->lease, open);
    if (drive->is_lost) {
        drive_end(drive);
        return;
    }
    int64_t now_ms = clock_wall_ms();
    if (lease_apply(drive->lease, event, now_ms, &driver->policy) != ERR_NONE) {
        log_error(NULL, "lease %s (%s): event %d does not fit", drive->lease->id, lease_state_name(before),
                  (int)event->kind);
        drive_put_off(drive, ODD_PAUSE_MS);
        return;
    }
    count(driver, event, before, drive->lease);
    close_doors(drive, open, open_count);
    /* What only waits now is let go in the same save. */
    struct lease_action next = lease_next(drive->lease, now_ms, &driver->policy);
    if (next.what == LEASE_DO_NOTHING)
        let_go(drive, 0);
    else if (next.what == LEASE_DO_WAIT || driver->is_shut)
        let_go(drive, next.what == LEASE_DO_WAIT ? next.until_ms : now_ms);
    else
        save(drive);
}

static void intend_create(struct drive *drive)
{
    const struct lease_event event = {.kind = LEASE_INTENDED, .attempt = drive->action.attempt};
    drive->is_intended = true;
    drive_apply(drive, &event);
}

static void intend_capture(struct drive *drive)
{
    struct lease *lease = drive->lease;
    const struct lease_event event = {.kind = LEASE_CAPTURE_INTENDED, .to_ms = lease_epoch_ms(lease, clock_wall_ms())};
    drive_apply(drive, &event);
}

static void drive_run(struct drive *drive)
{
    struct lease_driver *driver = drive->driver;
    int64_t now_ms = clock_wall_ms();
    struct lease *lease = drive->lease;
    if (driver->is_shut) {
        let_go(drive, now_ms);
        return;
    }
    drive->action = lease_next(lease, now_ms, &driver->policy);
    switch (drive->action.what) {
    case LEASE_DO_NOTHING:
        let_go(drive, 0);
        break;
    case LEASE_DO_WAIT:
        let_go(drive, drive->action.until_ms);
        break;
    case LEASE_DO_STOP:
        drive_apply(drive, &(struct lease_event){.kind = LEASE_STOP});
        break;
    case LEASE_DO_PICK:
        drive_pick(drive);
        break;
    case LEASE_DO_HOLD:
        drive_hold(drive);
        break;
    case LEASE_DO_CREATE:
        intend_create(drive);
        break;
    case LEASE_DO_FIND:
        drive_find(drive);
        break;
    case LEASE_DO_DESCRIBE:
        drive_describe(drive);
        break;
    case LEASE_DO_DOOR:
        drive_door(drive);
        break;
    case LEASE_DO_GO:
        drive_go(drive);
        break;
    case LEASE_DO_INTEND_CAPTURE:
        intend_capture(drive);
        break;
    case LEASE_DO_CAPTURE:
        drive_capture(drive);
        break;
    case LEASE_DO_TERMINATE:
        drive_terminate(drive);
        break;
    case LEASE_DO_RELEASE:
        drive_release(drive);
        break;
    }
}

static void on_step(struct task *task)
{
    drive_run(container_of(task, struct drive, step));
}

/* -- claims ------------------------------------------------------------------------------------------------------ */

struct claim {
    struct lease_driver *driver;
    unsigned shard;
};

static void drive_new(struct lease_driver *driver, struct lease *lease)
{
    struct drive *drive = calloc(1, sizeof(*drive));
    if (!drive) {
        lease_free(lease); /* due again when the claim has run out */
        return;
    }
    drive->driver = driver;
    drive->lease = lease;
    drive->keep.on_due = on_keep;
    drive->again.on_due = on_save_again;
    drive->step.run = on_step;
    drive->next = driver->drives;
    drive->link = &driver->drives;
    if (drive->next)
        drive->next->link = &drive->next;
    driver->drives = drive;
    driver->drive_count++;
    timer_set(driver->loop, &drive->keep, loop_now(driver->loop) + KEEP_NS);
    loop_defer(driver->loop, &drive->step);
}

static void on_claimed(void *ctx, enum error error, struct lease *take)
{
    struct claim *claim = ctx;
    if (take) {
        drive_new(claim->driver, take);
        return;
    }
    if (error != ERR_NONE)
        log_debug(NULL, "leases cannot be claimed: %s", error_text(error));
    claim->driver->is_claiming[claim->shard] = false;
    claim->driver->claims_open--;
    free(claim);
}

static void claim_shard(struct lease_driver *driver, unsigned shard)
{
    size_t room = (LEASE_DRIVES_MAX - driver->drive_count) / LEASE_SHARDS;
    struct claim *claim = room && !driver->is_claiming[shard] ? malloc(sizeof(*claim)) : NULL;
    if (!claim)
        return;
    *claim = (struct claim){driver, shard};
    if (lease_store_claim(driver->redis, shard, room, on_claimed, claim) != ERR_NONE) {
        free(claim);
        return;
    }
    driver->is_claiming[shard] = true;
    driver->claims_open++;
}

static void on_tick(struct timer *timer)
{
    struct lease_driver *driver = container_of(timer, struct lease_driver, tick);
    timer_set(driver->loop, timer, loop_now(driver->loop) + TICK_NS);
    if (driver->ticks++ % MEMORY_TICKS == 0)
        capacity_refresh(driver->memory, driver->redis);
    /* Without the installation's name nothing can be tagged, so nothing may be created. */
    if (!networks_installation(driver->networks).ptr || !control_is_ready(driver->control))
        return;
    for (unsigned i = 0; i < SHARDS_A_TICK; i++)
        claim_shard(driver, driver->next_shard++ % LEASE_SHARDS);
}

/* -- opening and closing ----------------------------------------------------------------------------------------- */

static void take_settings(struct lease_policy *policy, const struct settings *settings)
{
    policy->slice_ms = settings->leases.slice_ms;
    policy->watch_ms = settings->leases.watch_ms;
    policy->describe_ms = settings->leases.boot_poll_ms;
    policy->probing_ms = settings->leases.probing_ms;
    policy->grace_ms = settings->leases.grace_ms;
    policy->retry_ms = settings->leases.retry_ms;
    policy->silent_ms = settings->leases.silent_ms;
    policy->seek_ms = settings->leases.seek_ms;
}

enum error lease_driver_open(struct control *control, struct networks *networks, struct redis *redis,
                             struct lease_driver **ret)
{
    struct lease_driver *driver = calloc(1, sizeof(*driver));
    if (!driver)
        return ERR_NO_MEMORY;
    enum error error = capacity_memory_open(&driver->memory);
    if (error) {
        free(driver);
        return error;
    }
    driver->control = control;
    driver->networks = networks;
    driver->loop = control->loop;
    driver->redis = redis;
    driver->policy = lease_policy_default;
    take_settings(&driver->policy, control->settings);
    driver->policy.terms = drive_terms;
    driver->policy.ctx = driver;
    driver->tick.on_due = on_tick;
    timer_set(driver->loop, &driver->tick, loop_now(driver->loop) + TICK_NS);
    *ret = driver;
    return ERR_NONE;
}

void lease_driver_shut(struct lease_driver *driver)
{
    if (!driver)
        return;
    driver->is_shut = true;
    timer_clear(driver->loop, &driver->tick);
    /* What is under way at a network is let go as it was saved last; the next owner looks for it by its tag. */
}

bool lease_driver_is_idle(const struct lease_driver *driver)
{
    return !driver || (driver->drive_count == 0 && driver->claims_open == 0);
}

struct lease_driver *lease_driver_free(struct lease_driver *driver)
{
    if (!driver)
        return NULL;
    assert(driver->claims_open == 0); /* its redis was freed, which completes them */
    timer_clear(driver->loop, &driver->tick);
    while (driver->drives)
        drive_free(driver->drives);
    drive_finds_free(driver);
    capacity_memory_free(driver->memory);
    free(driver);
    return NULL;
}

void lease_driver_counts(const struct lease_driver *driver, struct lease_counts *ret)
{
    *ret = driver->counts;
    ret->active_gpus = 0;
    for (const struct drive *drive = driver->drives; drive; drive = drive->next)
        if (drive->lease->state == LEASE_ACTIVE)
            ret->active_gpus += drive->lease->request.gpus;
}
