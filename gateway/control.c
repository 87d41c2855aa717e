/* The control thread: opening, what is done now and then, closing. */
#include "gateway/bootstrap.h"
#include "gateway/control_priv.h"
#include "gateway/lease_drive.h"
#include "gateway/networks.h"

#include "core/clock.h"
#include "core/log.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS NS_PER_S
#define MONEY_TICKS 5
#define REPUTATION_TICKS 3
#define READ_ALL_TICKS 30
#define FLEET_TICKS 60
#define SETTLED_SIGNS (GATEWAYS_LIFE_MS / 1000 + 1)
#define ANSWER_OLD_NS (5 * NS_PER_S)
#define VERIFY_THREADS 2
#define CHAIN_THREADS 1
#define VERIFY_QUEUE 512

/* -- money ------------------------------------------------------------------------------------------------------- */

static void keep_alive(void *ctx, struct credit *credit)
{
    credit_keep_alive(ctx, credit);
}

static void give_back(void *ctx, struct credit *credit)
{
    credit_give_back(ctx, credit);
}

static void on_leftovers(void *ctx)
{
    (void)ctx;
    log_debug(NULL, "journals of earlier runs are settled");
}

/* -- reputation -------------------------------------------------------------------------------------------------- */

struct counting {
    struct control *control;
    char id[ID_TEXT_MAX];
    uint64_t failed;
};

static void on_counted(void *ctx, enum error error)
{
    struct counting *counting = ctx;
    struct registry_entry *entry = registry_find(counting->control->registry, str_of(counting->id));
    if (entry && entry->is_counting) {
        entry->is_counting = false;
        if (error == ERR_NONE)
            entry->counted_failed = counting->failed;
    }
    /* The feed tells of a reputation once a second at most, and this may have been within that second. */
    if (error == ERR_NONE && !counting->control->is_shut)
        control_load_worker(counting->control, str_of(counting->id));
    free(counting);
}

/* What was paid is taken away from the worker: told once, or lost with the answer, which costs it seconds of good
 * evidence. Failures are told until it is known that they were heard. */
static void count_work(struct control *control, struct registry_entry *entry)
{
    struct worker_payment payments[WORKER_PAYERS];
    uint64_t failed = atomic_load(&entry->worker->failed_count), bad = failed - entry->counted_failed;
    if (entry->is_counting)
        return;
    size_t count = worker_take_payments(entry->worker, payments);
    struct counting *counting = count || bad ? malloc(sizeof(*counting)) : NULL;
    if (!counting)
        return;
    *counting = (struct counting){.control = control, .failed = failed};
    memcpy(counting->id, entry->record.id, sizeof(counting->id));
    entry->is_counting = worker_store_count(control->redis, str_of(counting->id), payments, count, bad, on_counted,
                                            counting) == ERR_NONE;
    if (!entry->is_counting)
        free(counting);
}

/* -- the list of gateways ---------------------------------------------------------------------------------------- */

static void take_list(struct control *control, struct str json)
{
    if (str_eq(json, buf_str(&control->gateways)) || !control_tell_gateways(control, json))
        return;
    buf_clear(&control->gateways);
    if (!buf_append_str(&control->gateways, json))
        buf_clear(&control->gateways); /* told again next time */
}

static void on_signed(void *ctx, enum error error, struct str json)
{
    struct control *control = ctx;
    control->is_signing = false;
    control->signs = error ? 0 : control->signs + 1;
    if (error || control->is_shut)
        return;
    if (!control->is_told && feed_append(control->redis, "gateway", str_of(control->self.id)) == ERR_NONE)
        control->is_told = true; /* the others need not wait for their next sign */
    atomic_store(&control->answered_ns, clock_mono_ns());
    take_list(control, json);
}

void control_sign(struct control *control)
{
    bool is_settled = control->signs >= SETTLED_SIGNS;
    if (control->is_signing)
        return;
    control->is_signing = gateways_sign(control->redis, &control->self, is_settled, on_signed, control) == ERR_NONE;
    if (!control->is_signing)
        control->signs = 0;
}

/* -- now and then ------------------------------------------------------------------------------------------------ */

static void on_tick(struct timer *timer)
{
    struct control *control = container_of(timer, struct control, tick);
    uint64_t ticks = control->ticks++;
    timer_set(control->loop, timer, loop_now(control->loop) + TICK_NS);
    control_sign(control);
    registry_sweep(control->registry);
    if (control->gateway->bootstrap && (ticks % READ_ALL_TICKS == 0 || !bootstrap_has_key(control->gateway->bootstrap)))
        bootstrap_follow_key(control->gateway->bootstrap, control->redis);
    for (size_t i = 0; i < registry_count(control->registry); i++) {
        struct registry_entry *entry = registry_at(control->registry, i);
        control_market_check(control, entry);
        control_consider(control, entry, ADMISSION_TICK);
        if (ticks % REPUTATION_TICKS == 0)
            count_work(control, entry);
    }
    if (ticks % MONEY_TICKS == 0) {
        keyring_store_each_credit(control->keyring_store, keep_alive, control->credit_gate);
        settle_sweep(control->settling);
    }
    if (ticks % FLEET_TICKS == FLEET_TICKS - 1)
        control_fleet(control);
    if (control->feed.has_failed || ticks % READ_ALL_TICKS == READ_ALL_TICKS - 1)
        control_read_all(control);
}

/* -- the listener ------------------------------------------------------------------------------------------------ */

static bool is_loopback(const char *host)
{
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost");
}

static bool address_text(const char *host, uint16_t port, char *ret, size_t size)
{
    struct buf text;
    buf_init(&text, size);
    bool fits = buf_printf(&text, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)port) &&
                str_copy(ret, size, buf_str(&text));
    buf_free(&text);
    return fits;
}

static const char *path_or_null(const char *path)
{
    return path && *path ? path : NULL;
}

static enum error listen_for_links(struct control *control)
{
    const struct settings *settings = control->settings;
    const struct config_address *own = &settings->link_listen, *told = &settings->link_advertise;
    const char *host = own->host[0] ? own->host : settings->listen.host;
    char listen[sizeof(control->self.address)];
    enum error error = ERR_NONE;
    if (!address_text(host, own->host[0] ? own->port : 0, listen, sizeof(listen)))
        return ERR_BAD_INPUT;
    if (!is_loopback(host)) {
        error = tls_server_open(settings->data_dir, path_or_null(settings->link_tls_cert),
                                path_or_null(settings->link_tls_key), &control->tls, control->self.pin);
        if (error) {
            log_error(NULL, "cannot make the TLS certificate of the worker links: %s", error_text(error));
            return error;
        }
    }
    const struct hub_options options = {.listen = listen,
                                        .tls = control->tls,
                                        .reactors = control->hubs,
                                        .loops = control->loops,
                                        .reactor_count = control->gateway->reactor_count,
                                        .find = control_find,
                                        .ctx = control};
    error = hub_open(control->loop, &options, &control->hub);
    if (error) {
        log_error(NULL, "cannot listen for workers on %s: %s", listen, error_text(error));
        return error;
    }
    control->self.tls = control->tls != NULL;
    control->self.links = (unsigned)control->gateway->reactor_count;
    uint16_t port = told->host[0] && told->port ? told->port : hub_port(control->hub);
    if (!address_text(told->host[0] ? told->host : host, port, control->self.address, sizeof(control->self.address)) ||
        !str_copy(control->self.id, sizeof(control->self.id), str_of(control->gateway->id)))
        return ERR_BAD_INPUT;
    log_info(NULL, "workers link to %s%s", control->self.address, control->tls ? " (TLS)" : "");
    return ERR_NONE;
}

static enum error open_hub(struct control *control)
{
    size_t count = control->gateway->reactor_count;
    control->hubs = calloc(count, sizeof(*control->hubs));
    control->loops = calloc(count, sizeof(*control->loops));
    if (!control->hubs || !control->loops)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        control->hubs[i] = control->gateway->reactors[i]->hub;
        control->loops[i] = control->gateway->reactors[i]->loop;
    }
    return listen_for_links(control);
}

/* -- opening and closing ----------------------------------------------------------------------------------------- */

static enum error take_aliases(struct control *control)
{
    const struct config_map *map = &control->settings->aliases;
    control->aliases = calloc(map->count ? map->count : 1, sizeof(*control->aliases));
    if (!control->aliases)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < map->count; i++)
        control->aliases[i] = (struct model_alias){str_of(map->pairs[i].key), str_of(map->pairs[i].value)};
    return ERR_NONE;
}

/* What proofs need. */
static enum error open_proofs(struct control *control)
{
    char error[CONFIG_ERROR_MAX], path[PATH_MAX];
    struct buf text;
    enum error code = catalogue_open(control->settings->probes.catalogue, &control->catalogue, error);
    if (code) {
        log_error(NULL, "%s", error);
        return code;
    }
    buf_init(&text, sizeof(path));
    bool fits =
        buf_printf(&text, "%s/proof.key", control->settings->data_dir) && str_copy(path, sizeof(path), buf_str(&text));
    buf_free(&text);
    code = fits ? signing_key_load(path, &control->proof_key) : ERR_TOO_LARGE;
    if (code) {
        log_error(NULL, "cannot read or make the key of receipts %s/proof.key: %s", control->settings->data_dir,
                  error_text(code));
        return code;
    }
    code = chain_pool_open(CHAIN_THREADS, &control->chain_pool);
    if (!code)
        code = verify_pool_open(control->loop, VERIFY_THREADS, VERIFY_QUEUE, &control->pool);
    return code;
}

static enum error open_parts(struct control *control, const char *redis_url)
{
    const struct redis_options redis = {.url = redis_url};
    size_t reactors = control->gateway->reactor_count;
    enum error error = take_aliases(control);
    if (!error)
        error = redis_open(control->loop, &redis, &control->redis);
    if (!error)
        error = (control->told = calloc(reactors, sizeof(*control->told))) ? ERR_NONE : ERR_NO_MEMORY;
    if (!error)
        error = registry_open(reactors, &control->registry);
    if (!error)
        error = open_proofs(control);
    if (!error)
        error = credit_gate_open(control->loop, control->redis, control->gateway->id, &control->credit_gate);
    if (!error)
        error = keyring_store_open(control->loop, control->redis, control_keyring_changed, control,
                                   &control->keyring_store);
    if (!error)
        error = networks_open(control, control->redis, &control->networks);
    if (!error)
        error = lease_driver_open(control, control->networks, control->redis, &control->leases);
    if (!error)
        error = open_hub(control);
    if (!error)
        error = control_feed_open(control, redis_url);
    return error;
}

enum error control_open(const struct control_options *options, struct control **ret)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control)
        return ERR_NO_MEMORY;
    control->gateway = options->gateway;
    control->loop = options->loop;
    control->settling = options->redis;
    control->settings = options->gateway->settings;
    buf_init(&control->gateways, 0);
    control_publish_init(control);
    control->tick.on_due = on_tick;
    enum error error = open_parts(control, options->redis_url);
    if (error) {
        control_free(control);
        return error;
    }
    settle_leftovers(control->loop, control->settling, options->journal_dir, control->gateway->id,
                     control->gateway->reactor_count, on_leftovers, control);
    timer_set(control->loop, &control->tick, loop_now(control->loop));
    options->gateway->control = control;
    *ret = control;
    return ERR_NONE;
}

uint16_t control_link_port(const struct control *control)
{
    return hub_port(control->hub);
}

static void on_left(void *ctx)
{
    struct control *control = ctx;
    control->closing--;
}

void control_shut(struct control *control)
{
    control->is_shut = true;
    door_shut(control);
    atomic_store(&control->is_published, false);
    timer_clear(control->loop, &control->tick);
    timer_clear(control->loop, &control->publish);
    lease_driver_shut(control->leases);
    networks_shut(control->networks);
    control->hub = hub_free(control->hub);
    if (gateways_leave(control->redis, control->gateway->id, on_left, control) == ERR_NONE)
        control->closing++;
    if (feed_append(control->redis, "gateway", str_of(control->self.id)) != ERR_NONE)
        log_debug(NULL, "the others see it by themselves that this gateway is gone");
}

void control_give_back(struct control *control)
{
    keyring_store_each_credit(control->keyring_store, give_back, control->credit_gate);
}

bool control_is_idle(const struct control *control)
{
    return control->closing == 0 && control->door_open == 0 && credit_gate_is_idle(control->credit_gate) &&
           lease_driver_is_idle(control->leases);
}

struct control *control_free(struct control *control)
{
    if (!control)
        return NULL;
    control->is_shut = true;
    timer_clear(control->loop, &control->tick);
    timer_clear(control->loop, &control->publish);
    hub_free(control->hub);
    SSL_CTX_free(control->tls);
    control_feed_close(control);
    keyring_store_free(control->keyring_store);
    credit_gate_free(control->credit_gate);
    redis_free(control->redis); /* completes what is open, while what it comes back to is still there */
    control->leases = lease_driver_free(control->leases);
    networks_free(control->networks);
    verify_pool_free(control->pool);
    control_runs_free(control);
    chain_pool_free(control->chain_pool);
    catalogue_free(control->catalogue);
    signing_key_free(control->proof_key);
    keyring_unref(control->keyring);
    market_unref(control->market);
    registry_free(control->registry);
    for (size_t i = 0; control->told && i < control->gateway->reactor_count; i++)
        free(control->told[i].digests);
    free(control->told);
    free(control->hubs);
    free(control->loops);
    free(control->aliases);
    buf_free(&control->gateways);
    if (control->gateway->control == control)
        control->gateway->control = NULL;
    free(control);
    return NULL;
}

bool control_is_ready(const struct control *control)
{
    return control && atomic_load(&control->is_published) && atomic_load(&control->is_connected) &&
           clock_mono_ns() - atomic_load(&control->answered_ns) < ANSWER_OLD_NS;
}
