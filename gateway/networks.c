/* Opening networks, their tick, what leases ask of them and tell. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/log.h"
#include "scheduler/lease_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_NS NS_PER_S
#define ANY_INSTALLATION "000000" /* stands in while a configuration is tried out */
#define BLOCKED_MS INT64_C(60000)

/* -- opening ----------------------------------------------------------------------------------------------------- */

static void net_close(struct net *net)
{
    net_poll_drop(net);
    net_reconcile_drop(net);
    free(net->dirty);
    net->network = network_free(net->network);
    offer_table_free(&net->table);
    net_origins_free(&net->origins);
    sighting_unref(net->sighting);
}

/* error: CONFIG_ERROR_MAX; set on ERR_BAD_INPUT, and says which network. */
static enum error open_network(struct networks *networks, const struct settings_network *settings,
                               const struct adapter *adapter, const char *installation, struct network **ret,
                               char *error)
{
    const struct network_options options = {.loop = networks->loop,
                                            .http = networks->http,
                                            .adapter = adapter,
                                            .id = settings->id,
                                            .base_url = settings->base_url,
                                            .credential = &settings->credential,
                                            .options = &settings->options,
                                            .rates = &networks->rates,
                                            .installation = str_of(installation)};
    return network_open(&options, ret, error);
}

static enum error net_open_network(struct net *net, const char *installation, struct network **ret)
{
    char error[CONFIG_ERROR_MAX];
    const char *id = net->settings->id;
    enum error code = open_network(net->all, net->settings, net->adapter, installation, ret, error);
    if (code == ERR_BAD_INPUT)
        log_error(&(struct log_ctx){.network = id}, "%s", error);
    else if (code)
        log_error(&(struct log_ctx){.network = id}, "network %s: %s", id, error_text(code));
    return code;
}

enum error networks_check(const struct settings *settings, char error[static CONFIG_ERROR_MAX])
{
    const struct settings_network *rows = settings->networks.items;
    struct networks none = {0};
    enum error code = ERR_NONE;
    settings_rates(settings, &none.rates);
    for (size_t i = 0; !code && i < settings->networks.count; i++) {
        const struct adapter *adapter = adapter_find(str_of(rows[i].adapter));
        struct network *tried = NULL;
        if (!adapter)
            continue; /* native: settings_check refuses all else */
        code = open_network(&none, &rows[i], adapter, ANY_INSTALLATION, &tried, error);
        if (code && code != ERR_BAD_INPUT)
            snprintf(error, CONFIG_ERROR_MAX, "network %s: %s", rows[i].id, error_text(code));
        network_free(tried);
    }
    return code;
}

static enum error net_open(struct networks *networks, const struct settings_network *settings, struct net *net)
{
    static const char *const names[] = {
        [NET_POLLER] = "poller",   [NET_OFFERS] = "offers",   [NET_STATE] = "state",
        [NET_CHANGES] = "changes", [NET_ORIGINS] = "origins", [NET_ORPHANS] = "orphans"};
    struct network *tried = NULL;
    *net = (struct net){.all = networks, .settings = settings, .adapter = adapter_find(str_of(settings->adapter))};
    offer_table_init(&net->table);
    for (size_t i = 0; i < NET_KEYS; i++)
        snprintf(net->keys[i], sizeof(net->keys[i]), "sl:{net:%s}:%s", settings->id, names[i]);
    net->sighting = sighting_new(settings_offers_ttl_ms(settings));
    if (!net->sighting)
        return ERR_NO_MEMORY;
    if (!net->adapter)
        return ERR_BAD_INPUT; /* settings_check refuses it */
    /* The installation is not known yet, but the operator should hear at once what is wrong. */
    enum error error = net_open_network(net, ANY_INSTALLATION, &tried);
    network_free(tried);
    return error;
}

static void on_tick(struct timer *timer);

enum error networks_open(struct control *control, struct redis *redis, struct networks **ret)
{
    const struct settings *settings = control->settings;
    const struct settings_network *rows = settings->networks.items;
    struct networks *networks = calloc(1, sizeof(*networks));
    if (!networks)
        return ERR_NO_MEMORY;
    networks->control = control;
    networks->loop = control->loop;
    networks->redis = redis;
    networks->tick.on_due = on_tick;
    networks_market_init(networks);
    settings_rates(settings, &networks->rates);
    networks->nets = calloc(settings->networks.count + 1, sizeof(*networks->nets));
    enum error error = networks->nets ? http_client_open(control->loop, &networks->http) : ERR_NO_MEMORY;
    for (size_t i = 0; !error && i < settings->networks.count; i++) {
        if (strcmp(rows[i].adapter, "native") == 0)
            continue;
        error =
            networks->count < NETS_MAX ? net_open(networks, &rows[i], &networks->nets[networks->count]) : ERR_TOO_LARGE;
        networks->count++;
    }
    if (error) {
        networks_free(networks);
        return error;
    }
    timer_set(networks->loop, &networks->tick, loop_now(networks->loop));
    *ret = networks;
    return ERR_NONE;
}

void networks_shut(struct networks *networks)
{
    if (!networks || networks->is_shut)
        return;
    networks->is_shut = true;
    timer_clear(networks->loop, &networks->tick);
    timer_clear(networks->loop, &networks->build);
    for (size_t i = 0; i < networks->count; i++) {
        net_poll_drop(&networks->nets[i]);
        net_reconcile_drop(&networks->nets[i]);
        net_resign(&networks->nets[i]);
    }
}

struct networks *networks_free(struct networks *networks)
{
    if (!networks)
        return NULL;
    networks->is_shut = true;
    timer_clear(networks->loop, &networks->tick);
    timer_clear(networks->loop, &networks->build);
    for (size_t i = 0; i < networks->count; i++)
        net_close(&networks->nets[i]);
    http_client_free(networks->http);
    market_unref(networks->market);
    free(networks->nets);
    free(networks);
    return NULL;
}

/* -- the tick ---------------------------------------------------------------------------------------------------- */

static void on_installation(void *ctx, enum error error, struct str installation)
{
    struct networks *networks = ctx;
    networks->is_asking_installation = false;
    if (error || networks->is_shut || networks->installation[0])
        return;
    if (!str_copy(networks->installation, sizeof(networks->installation), installation))
        return;
    for (size_t i = 0; i < networks->count; i++) {
        struct net *net = &networks->nets[i];
        if (net_open_network(net, networks->installation, &net->network) != ERR_NONE)
            log_error(&(struct log_ctx){.network = net->settings->id}, "network %s cannot be opened",
                      net->settings->id);
    }
}

static void on_tick(struct timer *timer)
{
    struct networks *networks = container_of(timer, struct networks, tick);
    timer_set(networks->loop, timer, loop_now(networks->loop) + TICK_NS);
    if (!networks->installation[0]) {
        if (!networks->is_asking_installation)
            networks->is_asking_installation =
                lease_store_installation(networks->redis, on_installation, networks) == ERR_NONE;
        return;
    }
    bool has_turned = false;
    for (size_t i = 0; i < networks->count; i++) {
        struct net *net = &networks->nets[i];
        net_follow(net);
        net_poll_tick(net);
        net_reconcile_tick(net);
        net_show_down(net);
        has_turned |= net->was_fresh != !net_is_stale(net);
    }
    if (has_turned) /* which of two networks that list a machine is shown may turn with it */
        networks_market_changed(networks);
}

/* -- what leases ask --------------------------------------------------------------------------------------------- */

struct str net_key(const struct net *net, enum net_key key)
{
    return str_of(net->keys[key]);
}

struct net *networks_net(const struct networks *networks, const char *id)
{
    for (size_t i = 0; i < networks->count; i++) {
        if (strcmp(networks->nets[i].settings->id, id) == 0)
            return &networks->nets[i];
    }
    return NULL;
}

struct network *networks_find(const struct networks *networks, const char *id)
{
    const struct net *net = networks_net(networks, id);
    return net ? net->network : NULL;
}

struct http_client *networks_http(const struct networks *networks)
{
    return networks->http;
}

struct str networks_installation(const struct networks *networks)
{
    return networks->installation[0] ? str_of(networks->installation) : (struct str){NULL, 0};
}

struct lease_terms networks_terms(void *ctx, const char *network)
{
    static const enum lease_probe probes[] = {
        [PROBE_REQUIRED] = LEASE_PROBE_REQUIRED, [PROBE_REPORT] = LEASE_PROBE_REPORT, [PROBE_OFF] = LEASE_PROBE_OFF};
    const struct net *net = networks_net(ctx, network);
    if (!net)
        return (struct lease_terms){.is_known = false};
    return (struct lease_terms){.is_known = true,
                                .probe = probes[net->settings->probe],
                                .settle_ms = net->network ? network_settle_ms(net->network) : net->adapter->settle_ms,
                                .boot_ms = net->network ? network_boot_ms(net->network) : net->adapter->boot_ms};
}

bool net_is_stale(const struct net *net)
{
    return clock_wall_ms() - atomic_load(&net->sighting->at_ms) > net->sighting->ttl_ms;
}

bool net_is_down(const struct net *net)
{
    return net->breaker.state != BREAKER_CLOSED || clock_wall_ms() < net->blocked_until_ms;
}

/* -- what they tell ---------------------------------------------------------------------------------------------- */

void net_breaker_changed(struct net *net)
{
    const char *id = net->settings->id;
    char text[BREAKER_TEXT_MAX];
    breaker_text(&net->breaker, text);
    if (net->breaker.state == BREAKER_CLOSED)
        log_info(&(struct log_ctx){.network = id}, "network %s answers again", id);
    else
        log_warn(&(struct log_ctx){.network = id}, "network %s is not asked until %lld: %s", id,
                 (long long)net->breaker.until_ms, supply_error_name(net->breaker.reason));
    snprintf(net->shared.breaker, sizeof(net->shared.breaker), "%s", text);
    const struct str args[] = {STR("HSET"), net_key(net, NET_STATE), STR("breaker"), str_of(text)};
    if (redis_command(net->all->redis, NULL, NULL, 4, args) != ERR_NONE)
        log_debug(NULL, "the others find out by themselves about %s", id);
    net_show_down(net);
}

void net_show_down(struct net *net)
{
    atomic_store(&net->sighting->is_down, net_is_down(net));
}

void net_count_error(struct net *net, enum supply_error error)
{
    char field[40];
    if (error == SUPPLY_OK || (unsigned)error >= SUPPLY_ERROR_COUNT)
        return;
    net->errors[error]++;
    snprintf(field, sizeof(field), "error:%s", supply_error_name(error));
    const struct str args[] = {STR("HINCRBY"), net_key(net, NET_STATE), str_of(field), STR("1")};
    if (redis_command(net->all->redis, NULL, NULL, 4, args) != ERR_NONE)
        log_debug(NULL, "an error of %s is not counted", net->settings->id);
}

void networks_note(struct networks *networks, const char *network, const struct lease_candidate *candidate,
                   enum supply_error error, const char *message)
{
    struct net *net = networks_net(networks, network);
    int64_t now_ms = clock_wall_ms();
    if (!net)
        return;
    net_count_error(net, error);
    if (error != SUPPLY_OK)
        log_info(&(struct log_ctx){.network = network}, "network %s: %s: %s", network, supply_error_name(error),
                 message ? message : "");
    if (candidate)
        net_origin_note(net, candidate, error);
    if (error == SUPPLY_NO_CAPACITY || error == SUPPLY_PRICE_MOVED)
        net_poll_soon(net);
    if (error == SUPPLY_NO_FUNDS || error == SUPPLY_OK) {
        net->blocked_until_ms = error == SUPPLY_OK ? 0 : now_ms + BLOCKED_MS;
        net_show_down(net);
    }
    if (!supply_error_is_suppliers(error) && breaker_note(&net->breaker, error, 0, now_ms))
        net_breaker_changed(net);
}

void networks_reconcile_soon(struct networks *networks, const char *network)
{
    struct net *net = networks_net(networks, network);
    int64_t soon_ns = loop_now(networks->loop) + NS_PER_S;
    if (net && net->next_reconcile_ns > soon_ns)
        net->next_reconcile_ns = soon_ns;
}
