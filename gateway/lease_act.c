/* What a lease's next action asks of the market, of the money and of the network, and the events that come of it. */
#include "gateway/lease_drive_priv.h"

#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/money.h"

#include <stdlib.h>
#include <string.h>

#define STORE_PAUSE_MS 1000 /* Redis did not answer a question of money: the same again */
#define BPS 10000
#define SPAN_PREPAID_S (24 * 3600)
#define SPAN_OPEN_S (30 * 24 * 3600)

/* -- the market -------------------------------------------------------------------------------------------------- */

size_t drive_candidates(struct lease_driver *driver, const struct lease_request *request, struct lease_ranked *ret,
                        size_t *ret_considered)
{
    return networks_candidates(driver->networks, request, LEASE_RANKED_MAX, ret, ret_considered);
}

static uint64_t random_bits(void)
{
    uint64_t bits;
    crypto_random(&bits, sizeof(bits));
    return bits;
}

void drive_pick(struct drive *drive)
{
    struct lease_driver *driver = drive->driver;
    size_t considered = 0;
    struct lease_ranked *ranked = calloc(LEASE_RANKED_MAX, sizeof(*ranked));
    if (!ranked) {
        drive_put_off(drive, STORE_PAUSE_MS);
        return;
    }
    size_t count = drive_candidates(driver, &drive->lease->request, ranked, &considered);
    int64_t now_ms = clock_wall_ms();
    struct lease_picked picked = lease_pick(drive->lease, ranked, count, driver->memory, now_ms, random_bits());
    struct lease_event event = {.kind = LEASE_NO_CANDIDATE, .error = picked.error, .message = str_of(picked.message)};
    if (picked.index < count) {
        event.kind = LEASE_PICKED;
        event.candidate = &ranked[picked.index].candidate;
        capacity_try(driver->memory, event.candidate, now_ms);
    }
    drive_apply(drive, &event);
    free(ranked);
}

/* -- money ------------------------------------------------------------------------------------------------------- */

static struct lease_budget budget_of(const struct lease *lease)
{
    struct lease_budget budget = {.limit_usd_nano = lease->budget_usd_nano};
    memcpy(budget.key, lease->key_id, sizeof(budget.key));
    memcpy(budget.period, lease->budget_period, sizeof(budget.period));
    return budget;
}

/* Redis did not answer: nothing is known, and the same question may be asked again. */
static bool is_unanswered(enum error error)
{
    return error == ERR_CLOSED || error == ERR_DEADLINE || error == ERR_BUSY || error == ERR_CANCELLED ||
           error == ERR_NO_MEMORY;
}

static void on_held(void *ctx, enum error error)
{
    struct drive *drive = ctx;
    struct lease_event event = {.kind = LEASE_HELD};
    if (is_unanswered(error)) {
        drive_put_off(drive, STORE_PAUSE_MS);
        return;
    }
    if (error != ERR_NONE) {
        event.kind = LEASE_UNFUNDED;
        event.message = error == ERR_NO_FUNDS ? STR("the balance, or what is left of the key's budget, does not cover "
                                                    "the next slice: add credits")
                                              : str_of(error_text(error));
    }
    drive_apply(drive, &event);
}

void drive_hold(struct drive *drive)
{
    const struct lease *lease = drive->lease;
    const struct lease_attempt *attempt = lease_current_const(lease);
    int64_t price = lease->since_ms || !attempt ? lease->price_usd_nano : attempt->of.price_usd_nano, want = 0;
    int64_t unpaid_ms = lease->since_ms ? lease_epoch_ms(lease, clock_wall_ms()) - lease->epoch_billed_ms : 0;
    struct lease_budget budget = budget_of(lease);
    enum error error = ERR_OVERFLOW;
    if (lease_hold_want(price, (int32_t)lease->request.gpus, unpaid_ms > 0 ? unpaid_ms : 0,
                        drive->driver->policy.slice_ms, &want))
        error = lease_hold(drive->driver->redis, lease->tenant, lease->id, want, &budget, on_held, drive);
    if (error != ERR_NONE)
        on_held(drive, error);
}

static void on_charged(void *ctx, enum error error)
{
    struct drive *drive = ctx;
    struct lease *lease = drive->lease;
    int32_t gpus = (int32_t)lease->request.gpus;
    int64_t before = 0, after = 0;
    if (error != ERR_NONE) {
        if (!is_unanswered(error))
            log_error(NULL, "lease %s cannot be charged: %s", lease->id, error_text(error));
        drive_put_off(drive, STORE_PAUSE_MS);
        return;
    }
    if (!lease_cost(lease->price_usd_nano, gpus, lease->epoch_billed_ms, &before) ||
        !lease_cost(lease->price_usd_nano, gpus, lease->capture_intent_ms, &after))
        after = before = 0; /* out of range: lease_charge refuses such a bill before */
    const struct lease_event event = {.kind = LEASE_CAPTURED,
                                      .to_ms = lease->capture_intent_ms,
                                      .gpu_ms = (lease->capture_intent_ms - lease->epoch_billed_ms) * gpus,
                                      .cost_usd_nano = after - before};
    drive_apply(drive, &event);
}

static const struct lease_attempt *billed_attempt(const struct lease *lease)
{
    for (size_t i = lease->attempt_count; i-- > 0;) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        if (attempt->epoch == lease->epoch && attempt->up_ms > 0)
            return attempt;
    }
    return lease_current_const(lease);
}

/* The markup's part of what the tenant pays, in basis points, to the nearest. */
static int32_t take_of(const struct lease_candidate *of)
{
    int64_t price = of->price_usd_nano, own = of->network_price_usd_nano;
    if (price <= 0 || own < 0 || own >= price)
        return 0;
    return (int32_t)(((__int128)(price - own) * BPS + price / 2) / price);
}

void drive_capture(struct drive *drive)
{
    const struct lease *lease = drive->lease;
    const struct lease_attempt *attempt = billed_attempt(lease);
    struct lease_bill bill = {.budget = budget_of(lease),
                              .price_usd_nano = lease->price_usd_nano,
                              .gpus = (int32_t)lease->request.gpus,
                              .take_rate_bps = attempt ? take_of(&attempt->of) : 0,
                              .run = (int32_t)lease->epoch,
                              .active_at_ms = lease->since_ms,
                              .until_ms = lease->capture_intent_ms};
    bool fits = attempt && str_copy(bill.lease, sizeof(bill.lease), str_of(lease->id)) &&
                str_copy(bill.tenant, sizeof(bill.tenant), str_of(lease->tenant)) &&
                str_copy(bill.network, sizeof(bill.network), str_of(attempt->of.network)) &&
                str_copy(bill.gpu, sizeof(bill.gpu), str_of(attempt->of.gpu));
    enum error error = fits ? lease_charge(drive->driver->redis, &bill, on_charged, drive) : ERR_BAD_INPUT;
    if (error != ERR_NONE)
        on_charged(drive, error);
}

static void on_released(void *ctx, enum error error)
{
    static const struct lease_event event = {.kind = LEASE_RELEASED};
    struct drive *drive = ctx;
    if (error != ERR_NONE)
        drive_put_off(drive, STORE_PAUSE_MS);
    else
        drive_apply(drive, &event);
}

void drive_release(struct drive *drive)
{
    struct lease_budget budget = budget_of(drive->lease);
    enum error error =
        lease_release(drive->driver->redis, drive->lease->tenant, drive->lease->id, &budget, on_released, drive);
    if (error != ERR_NONE)
        on_released(drive, error);
}

/* -- the network ------------------------------------------------------------------------------------------------- */

const struct lease_attempt *drive_attempt(const struct drive *drive)
{
    return &drive->lease->attempts[drive->action.attempt];
}

static struct network *network_of(const struct drive *drive)
{
    return networks_find(drive->driver->networks, drive_attempt(drive)->of.network);
}

static void note(struct drive *drive, enum supply_error error, const char *message)
{
    networks_note(drive->driver->networks, drive_attempt(drive)->of.network, &drive_attempt(drive)->of, error, message);
}

void drive_ask_failed(struct drive *drive, const struct network_result *result)
{
    const struct lease_event event = {.kind = LEASE_ASK_FAILED,
                                      .attempt = drive->action.attempt,
                                      .error = result->error,
                                      .message = str_of(result->message),
                                      .retry_after_ms = result->retry_after_ms};
    if (result->error != SUPPLY_NOT_FOUND && result->error != SUPPLY_NOT_YET)
        note(drive, result->error, result->message);
    drive_apply(drive, &event);
}

/* The network's price cap of an attempt: what its tenant pays at most, less our markup, and never more than it was
 * listed for by more than the tenant's tolerance. */
static int64_t price_cap(const struct lease *lease, const struct lease_candidate *of)
{
    int64_t cap = of->network_price_usd_nano, user = lease->request.price_max_usd_nano;
    if (!money_bps(of->network_price_usd_nano, BPS + lease->request.tolerance_bps, &cap))
        cap = of->network_price_usd_nano;
    if (user < 0 || of->price_usd_nano <= 0)
        return cap;
    /* user * network / ours, rounded down. */
    __int128 own = (__int128)user * of->network_price_usd_nano / of->price_usd_nano;
    return own < cap ? (int64_t)own : cap;
}

static void on_created(void *ctx, const struct network_result *result)
{
    struct drive *drive = ctx;
    const struct lease_candidate *of = &drive_attempt(drive)->of;
    const struct supply_instance *made = result->instance;
    struct lease_event event = {.kind = LEASE_CREATED, .attempt = drive->action.attempt, .instance = made};
    char message[SUPPLY_MESSAGE_MAX];
    drive->call = NULL;
    if (result->error != SUPPLY_OK) {
        event.kind = LEASE_CREATE_FAILED;
        event.error = result->error;
        event.is_uncertain = result->is_uncertain;
        event.leftover = result->leftover;
        event.message = str_of(result->message);
        event.retry_after_ms = result->retry_after_ms;
    } else if (made->price_usd_nano > price_cap(drive->lease, of)) {
        char price[MONEY_TEXT_MAX];
        money_text(made->price_usd_nano, price);
        snprintf(message, sizeof(message), "%s made it at %s USD per GPU-hour, above what was agreed", of->network,
                 price);
        event.kind = LEASE_CREATE_FAILED;
        event.error = SUPPLY_PRICE_MOVED;
        event.leftover = made->id;
        event.message = str_of(message);
    }
    note(drive, event.kind == LEASE_CREATED ? SUPPLY_OK : event.error, result->message);
    if (event.kind == LEASE_CREATED || event.error == SUPPLY_NO_CAPACITY)
        capacity_note(drive->driver->memory, drive->driver->redis, of, event.kind == LEASE_CREATED, clock_wall_ms());
    drive_apply(drive, &event);
}

/* How long it is wanted. Without an end: a day where it is paid before, after which the lease moves on to another
 * machine; elsewhere so long that only what nobody ends any more meets it. */
static int64_t span_of(const struct lease *lease, const struct network *network)
{
    if (lease->request.max_duration_s > 0)
        return lease->request.max_duration_s;
    return network_adapter(network)->traits & ADAPTER_PREPAID ? SPAN_PREPAID_S : SPAN_OPEN_S;
}

static void send_create(struct drive *drive, const struct door_start *start)
{
    const struct lease *lease = drive->lease;
    const struct lease_request *request = &lease->request;
    const struct lease_attempt *attempt = drive_attempt(drive);
    struct network *network = network_of(drive);
    struct supply_pair env[LEASE_ENV_MAX + 2];
    size_t env_count = 0;
    for (size_t i = 0; i < request->env_count && i < LEASE_ENV_MAX; i++)
        env[env_count++] = request->env[i];
    for (size_t i = 0; start && i < start->env_count && i < 2; i++)
        env[env_count++] = (struct supply_pair){start->env[i].name, start->env[i].value};
    struct supply_order order = {.tag = str_of(attempt->tag),
                                 .offer = str_of(attempt->of.offer),
                                 .gpus = request->gpus,
                                 .image = request->image,
                                 .argv = start ? start->argv : request->argv,
                                 .argc = start ? sizeof(start->argv) / sizeof(start->argv[0]) : request->argc,
                                 .env = env,
                                 .env_count = env_count,
                                 .ports = request->ports,
                                 .port_count = request->port_count,
                                 .price_max_usd_nano = price_cap(lease, &attempt->of),
                                 .price_quoted_usd_nano = attempt->of.network_price_usd_nano,
                                 .interruptible = attempt->of.interruptible,
                                 .span_s = span_of(lease, network),
                                 .disk_gib = request->disk_gib};
    if (start && start->user_data.ptr)
        order.script = start->user_data;
    drive->call = network_create(network, &order, on_created, drive);
}

void drive_create(struct drive *drive)
{
    static const struct network_result gone = {.error = SUPPLY_TRANSIENT,
                                               .message = "the network is not configured any more"};
    if (!network_of(drive))
        on_created(drive, &gone);
    else
        drive_open_door(drive, send_create);
}

static void on_described(void *ctx, const struct network_result *result)
{
    struct drive *drive = ctx;
    drive->call = NULL;
    if (result->error != SUPPLY_OK) {
        drive_ask_failed(drive, result);
        return;
    }
    const struct lease_event event = {
        .kind = LEASE_DESCRIBED, .attempt = drive->action.attempt, .instance = result->instance};
    drive_apply(drive, &event);
}

void drive_describe(struct drive *drive)
{
    const struct lease_attempt *attempt = drive_attempt(drive);
    struct network *network = network_of(drive);
    if (network)
        drive->call = network_describe(network, str_of(attempt->instance), str_of(attempt->tag), on_described, drive);
    else
        drive_put_off(drive, 60000);
}

static void on_terminated(void *ctx, const struct network_result *result)
{
    struct drive *drive = ctx;
    drive->call = NULL;
    if (result->error != SUPPLY_OK) {
        drive_ask_failed(drive, result);
        return;
    }
    const struct lease_event event = {.kind = LEASE_TERMINATED, .attempt = drive->action.attempt};
    drive_apply(drive, &event);
}

void drive_terminate(struct drive *drive)
{
    const struct lease_attempt *attempt = drive_attempt(drive);
    struct network *network = network_of(drive);
    if (!network) {
        drive_put_off(drive, 60000);
        return;
    }
    drive_close_door(drive, attempt);
    drive->call = network_terminate(network, str_of(attempt->instance), str_of(attempt->tag), on_terminated, drive);
}
