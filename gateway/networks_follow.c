/* What all gateways share of a network: who polls it, its state, its offers, as Redis holds them. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"

#include <string.h>

EMBED(networks_follow_lua, "gateway/networks_follow.lua");
REDIS_SCRIPT(follow_script, networks_follow_lua);
EMBED(networks_resign_lua, "gateway/networks_resign.lua");
REDIS_SCRIPT(resign_script, networks_resign_lua);

#define CHANGES_MOST "100"
#define SCAN_COUNT "500"

static struct str text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS
               ? (struct str){reply->str, (size_t)reply->len}
               : (struct str){NULL, 0};
}

static int64_t number_of(struct str text)
{
    int64_t value = 0;
    return str_to_i64(text, &value) ? value : 0;
}

/* -- one record -------------------------------------------------------------------------------------------------- */

struct taking {
    struct net *net;
    struct offer_digest digest;
    bool is_fitting;
};

static void take_offer(void *ctx, const struct network_offer *offer)
{
    struct taking *taking = ctx;
    taking->is_fitting = offer_table_put(&taking->net->table, &taking->digest, offer) != OFFER_NO_MEMORY;
}

/* Records come from other gateways: one that cannot be read is of another version of the program, and left out. */
static void take_record(struct net *net, struct str hex, struct str record)
{
    struct taking taking = {.net = net};
    if (!offer_digest_parse(hex, &taking.digest))
        return;
    if (record.len == 0)
        offer_table_remove(&net->table, &taking.digest);
    else if (!offer_record_read(record, take_offer, &taking) || !taking.is_fitting)
        log_warn(&(struct log_ctx){.network = net->settings->id}, "an offer of %s cannot be taken in",
                 net->settings->id);
}

/* -- all of them ------------------------------------------------------------------------------------------------- */

static void scan(struct net *net);

static void on_gone(void *ctx, const struct offer_digest *digest)
{
    (void)ctx, (void)digest;
}

static void on_scanned(void *ctx, const redisReply *reply, enum error error)
{
    struct net *net = ctx;
    net->is_reading = false;
    if (net->all->is_shut)
        return;
    if (error || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[1]->type != REDIS_REPLY_ARRAY ||
        !str_copy(net->cursor, sizeof(net->cursor), text_of(reply->element[0])))
        return; /* the next second begins anew */
    const redisReply *rows = reply->element[1];
    for (size_t i = 0; i + 1 < rows->elements; i += 2)
        take_record(net, text_of(rows->element[i]), text_of(rows->element[i + 1]));
    if (strcmp(net->cursor, "0") != 0) {
        scan(net);
        return;
    }
    offer_table_sweep(&net->table, on_gone, net);
    net->is_synced = true;
    networks_market_changed(net->all);
}

static void scan(struct net *net)
{
    const struct str args[] = {STR("HSCAN"), net_key(net, NET_OFFERS), str_of(net->cursor), STR("COUNT"),
                               STR(SCAN_COUNT)};
    net->is_reading = redis_command(net->all->redis, on_scanned, net, 5, args) == ERR_NONE;
}

void net_read_all(struct net *net)
{
    net_poll_drop(net);
    net->is_synced = false;
    net->version = -1;
}

/* What changes meanwhile comes again as a change: those after `version` are read next. */
static void begin_reading(struct net *net, int64_t version, struct str last)
{
    if (!str_copy(net->last, sizeof(net->last), last.len ? last : STR("0-0")))
        return;
    net_poll_drop(net);
    net->version = version;
    net->table.round++;
    strcpy(net->cursor, "0");
    scan(net);
}

/* -- the state --------------------------------------------------------------------------------------------------- */

struct reading {
    int64_t version;
    struct str last, breaker;
    struct net_shared shared;
};

static void take_field(struct reading *reading, struct str name, struct str value)
{
    struct net_shared *shared = &reading->shared;
    const struct {
        struct str name;
        int64_t *to;
    } numbers[] = {{STR("version"), &reading->version},
                   {STR("polled_at"), &shared->polled_at_ms},
                   {STR("looked_at"), &shared->looked_at_ms},
                   {STR("error_at"), &shared->error_at_ms},
                   {STR("unknown_gpus"), &shared->unknown_gpus},
                   {STR("unpriced"), &shared->unpriced},
                   {STR("orphans_ended"), &shared->orphans_ended},
                   {STR("early"), &shared->early},
                   {STR("origins"), &shared->origins}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (str_eq(name, numbers[i].name))
            *numbers[i].to = number_of(value);
    }
    enum supply_error error;
    if (str_eq(name, STR("last")))
        reading->last = value;
    else if (str_eq(name, STR("breaker")))
        reading->breaker = value;
    else if (str_eq(name, STR("error")))
        snprintf(shared->error, sizeof(shared->error), STR_FMT, STR_ARG(value));
    else if (str_starts(name, STR("error:")) && supply_error_of((struct str){name.ptr + 6, name.len - 6}, &error))
        shared->errors[error] = number_of(value);
}

/* Another gateway's breaker opened or closed. */
static void take_breaker(struct net *net, struct str text)
{
    struct breaker breaker;
    if (!text.len || str_eq(text, str_of(net->shared.breaker)) ||
        !str_copy(net->shared.breaker, sizeof(net->shared.breaker), text) || !breaker_parse(text, &breaker))
        return;
    net->breaker = breaker;
    net_show_down(net);
}

static void take_state(struct net *net, struct reading *reading, int64_t redis_ms)
{
    int64_t origins = net->shared.origins, early = net->shared.early;
    take_breaker(net, reading->breaker);
    memcpy(reading->shared.breaker, net->shared.breaker, sizeof(reading->shared.breaker));
    net->shared = reading->shared;
    /* Redis' clock to ours. */
    if (net->shared.polled_at_ms)
        atomic_store(&net->sighting->at_ms, clock_wall_ms() - (redis_ms - net->shared.polled_at_ms));
    if (net->shared.origins != origins)
        net_origins_read(net);
    if (net->is_poller && net->shared.early != early)
        net_poll_soon(net);
}

/* -- changes ----------------------------------------------------------------------------------------------------- */

/* One version. False: it is not the next one. */
static bool take_change(struct net *net, const redisReply *entry, bool *ret_changed)
{
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 || entry->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    const redisReply *fields = entry->element[1];
    int64_t version = fields->elements >= 2 ? number_of(text_of(fields->element[1])) : 0;
    if (version > net->version + 1 || !str_copy(net->last, sizeof(net->last), text_of(entry->element[0])))
        return false;
    if (version <= net->version)
        return true; /* its own, or read with all */
    for (size_t i = 2; i + 1 < fields->elements; i += 2)
        take_record(net, text_of(fields->element[i]), text_of(fields->element[i + 1]));
    net->version = version;
    *ret_changed = true;
    return true;
}

static void take_changes(struct net *net, const redisReply *changes, const struct reading *reading)
{
    bool changed = false, is_behind = net->version < 0 || reading->version < net->version || !net->is_synced;
    for (size_t i = 0; !is_behind && i < changes->elements; i++)
        is_behind = !take_change(net, changes->element[i], &changed);
    if (!is_behind && reading->version > net->version && changes->elements == 0)
        is_behind = true; /* the stream was cut off behind what this gateway has */
    if (changed)
        networks_market_changed(net->all);
    if (!is_behind)
        return;
    net->is_synced = false;
    begin_reading(net, reading->version, reading->last);
}

static void take_poller(struct net *net, struct str poller)
{
    bool is_self = str_eq(poller, str_of(net->all->control->gateway->id));
    if (!str_copy(net->shared.poller, sizeof(net->shared.poller), poller))
        net->shared.poller[0] = 0;
    if (is_self == net->is_poller)
        return;
    net->is_poller = is_self;
    log_info(&(struct log_ctx){.network = net->settings->id}, "this gateway %s network %s",
             is_self ? "polls" : "no longer polls", net->settings->id);
    if (!is_self) {
        net_poll_drop(net);
        net_reconcile_drop(net);
    }
}

static void on_followed(void *ctx, const redisReply *reply, enum error error)
{
    struct net *net = ctx;
    net->is_asking = false;
    if (net->all->is_shut || error || reply->type != REDIS_REPLY_ARRAY || reply->elements != 4 ||
        reply->element[2]->type != REDIS_REPLY_ARRAY || reply->element[3]->type != REDIS_REPLY_ARRAY)
        return;
    struct reading reading = {.version = 0};
    const redisReply *fields = reply->element[2];
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        take_field(&reading, text_of(fields->element[i]), text_of(fields->element[i + 1]));
    take_state(net, &reading, number_of(text_of(reply->element[0])));
    take_poller(net, text_of(reply->element[1]));
    if (!net->is_reading)
        take_changes(net, reply->element[3], &reading);
    net_poll_tick(net);
}

void net_follow(struct net *net)
{
    char life[24];
    int64_t looks_s = 3 * net->settings->poll_s;
    looks_s = looks_s < NET_LIFE_LEAST_S ? NET_LIFE_LEAST_S : looks_s > NET_LIFE_MOST_S ? NET_LIFE_MOST_S : looks_s;
    snprintf(life, sizeof(life), "%lld", (long long)looks_s * 1000);
    const struct str args[] = {net_key(net, NET_POLLER),
                               net_key(net, NET_STATE),
                               net_key(net, NET_CHANGES),
                               str_of(net->all->control->gateway->id),
                               net->network ? str_of(life) : STR("0"),
                               net->last[0] ? str_of(net->last) : STR("0-0"),
                               STR(CHANGES_MOST)};
    if (!net->is_asking)
        net->is_asking = redis_run(net->all->redis, &follow_script, on_followed, net, 3, 4, args) == ERR_NONE;
}

void net_resign(struct net *net)
{
    const struct str args[] = {net_key(net, NET_POLLER), str_of(net->all->control->gateway->id)};
    net->is_poller = false;
    if (redis_run(net->all->redis, &resign_script, NULL, NULL, 1, 1, args) != ERR_NONE)
        log_debug(NULL, "another gateway takes %s over by itself", net->settings->id);
}
