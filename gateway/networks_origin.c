/* Who is behind a network's offers (hosts, providers), and what became of their machines: decayed counts in Redis,
 * shared by all gateways. A tenth of everything is held for or against the network as a whole, and counts for each of
 * its origins besides its own. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

EMBED(networks_origin_lua, "gateway/networks_origin.lua");
REDIS_SCRIPT(origin_script, networks_origin_lua);

#define NAMELESS "?" /* an offer that tells of no origin */
#define ALL "*"
#define ALL_SHARE 0.1
#define NUMBERS 12
#define DIGITS(number) DIGITS_OF(number)
#define DIGITS_OF(number) #number

/* Of ten machines of somebody unknown nine work out. */
#define COMPLETION_GOOD 9.0
#define COMPLETION_BAD 1.0

static void name_of(struct str origin, char ret[static NET_ORIGIN_MAX])
{
    if (origin.len == 0 || str_eq(origin, STR(ALL)))
        origin = STR(NAMELESS);
    if (origin.len >= NET_ORIGIN_MAX)
        origin.len = NET_ORIGIN_MAX - 1;
    memcpy(ret, origin.ptr, origin.len);
    ret[origin.len] = 0;
}

/* -- what is known ----------------------------------------------------------------------------------------------- */

static struct net_origin *place_of(const struct net_origins *origins, const char *name)
{
    size_t at = (size_t)str_hash(str_of(name), 0x6f726967) & (origins->place_count - 1);
    while (origins->places[at].name[0] && strcmp(origins->places[at].name, name) != 0)
        at = (at + 1) & (origins->place_count - 1);
    return &origins->places[at];
}

/* "at good good good good bad bad bad bad" */
static bool read_reputation(struct str text, struct reputation *ret)
{
    struct reputation reputation = {.at_ms = 0};
    double numbers[1 + 2 * REPUTATION_DIMENSIONS];
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (!str_to_double(str_next(&text, ' '), &numbers[i]) || numbers[i] < 0)
            return false;
    }
    if (numbers[0] > 9e15)
        return false;
    reputation.at_ms = (int64_t)numbers[0];
    for (size_t d = 0; d < REPUTATION_DIMENSIONS; d++) {
        reputation.good[d] = numbers[1 + d];
        reputation.bad[d] = numbers[1 + REPUTATION_DIMENSIONS + d];
    }
    *ret = reputation;
    return true;
}

static void on_origins(void *ctx, const redisReply *reply, enum error error)
{
    struct net *net = ctx;
    struct net_origins origins = {.place_count = 16};
    if (error || net->all->is_shut || reply->type != REDIS_REPLY_ARRAY)
        return; /* read again when one changes */
    while (origins.place_count < reply->elements + 1)
        origins.place_count *= 2;
    origins.places = calloc(origins.place_count, sizeof(*origins.places));
    if (!origins.places)
        return;
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        const redisReply *name = reply->element[i], *value = reply->element[i + 1];
        struct reputation reputation;
        char text[NET_ORIGIN_MAX];
        if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING || name->len == 0 ||
            !str_copy(text, sizeof(text), (struct str){name->str, (size_t)name->len}) ||
            !read_reputation((struct str){value->str, (size_t)value->len}, &reputation))
            continue;
        if (strcmp(text, ALL) == 0) {
            origins.all = reputation;
            continue;
        }
        struct net_origin *place = place_of(&origins, text);
        memcpy(place->name, text, sizeof(text));
        place->reputation = reputation;
        origins.count++;
    }
    net_origins_free(&net->origins);
    net->origins = origins;
    networks_market_changed(net->all);
}

void net_origins_read(struct net *net)
{
    const struct str args[] = {STR("HGETALL"), net_key(net, NET_ORIGINS)};
    if (redis_command(net->all->redis, on_origins, net, 2, args) != ERR_NONE)
        net->shared.origins = -1; /* it looks as if they had changed: the next second asks again */
}

void net_origins_free(struct net_origins *origins)
{
    free(origins->places);
    *origins = (struct net_origins){.count = 0};
}

static const struct net_origin *known_origin(const struct net *net, struct str origin)
{
    char name[NET_ORIGIN_MAX];
    if (net->origins.count == 0)
        return NULL;
    name_of(origin, name);
    const struct net_origin *place = place_of(&net->origins, name);
    return place->name[0] ? place : NULL;
}

static struct net_standing standing_of(const struct net *net, const struct net_origin *origin)
{
    int64_t now_ms = clock_wall_ms();
    struct reputation known = reputation_at(&net->origins.all, now_ms);
    struct net_standing standing = {.completion = 1};
    if (origin) {
        struct reputation own = reputation_at(&origin->reputation, now_ms);
        for (size_t d = 0; d < REPUTATION_DIMENSIONS; d++) {
            known.good[d] += own.good[d];
            known.bad[d] += own.bad[d];
        }
    }
    known.at_ms = now_ms;
    double good = known.good[REPUTATION_AVAILABILITY] + COMPLETION_GOOD;
    standing.completion = good / (good + known.bad[REPUTATION_AVAILABILITY] + COMPLETION_BAD);
    standing.reputation = reputation_bound(&known, now_ms);
    for (unsigned d = 0; d < REPUTATION_DIMENSIONS; d++)
        standing.scores[d] = reputation_score(&known, d, now_ms);
    return standing;
}

struct net_standing net_standing_of_all(const struct net *net)
{
    return standing_of(net, NULL);
}

struct net_standing net_standing_of(const struct net *net, struct str name, const struct net_standing *of_all)
{
    const struct net_origin *origin = known_origin(net, name);
    return origin ? standing_of(net, origin) : *of_all;
}

/* -- what is learned --------------------------------------------------------------------------------------------- */

static bool evidence_of(enum supply_error error, bool interruptible, struct reputation_evidence *ret)
{
    *ret = (struct reputation_evidence){.good = {0}};
    switch (error) {
    case SUPPLY_OK: /* it could be had */
        ret->good[REPUTATION_AVAILABILITY] = 0.25;
        return true;
    case SUPPLY_PROBE_FAILED:
        *ret = reputation_of_wrong(VERIFY_ADMISSION);
        ret->bad[REPUTATION_AVAILABILITY] += 10;
        return true;
    case SUPPLY_BOOT_TIMEOUT:
    case SUPPLY_FAILED:
        ret->bad[REPUTATION_AVAILABILITY] = 2;
        return true;
    case SUPPLY_LOST:
        ret->bad[REPUTATION_AVAILABILITY] = interruptible ? 0.25 : 2;
        return true;
    default: /* says nothing of the machine */
        return false;
    }
}

/* Good, bad, forfeited, each as a decimal of its own. */
static void write_numbers(const struct reputation_evidence *evidence, double share, char ret[NUMBERS][24])
{
    for (size_t d = 0; d < REPUTATION_DIMENSIONS; d++) {
        snprintf(ret[d], sizeof(ret[d]), "%.6g", evidence->good[d] * share);
        snprintf(ret[4 + d], sizeof(ret[d]), "%.6g", evidence->bad[d] * share);
        snprintf(ret[8 + d], sizeof(ret[d]), "%.6g", evidence->forfeit[d] * share);
    }
}

void net_origin_note(struct net *net, const struct lease_candidate *candidate, enum supply_error error)
{
    struct reputation_evidence evidence;
    char name[NET_ORIGIN_MAX], own[NUMBERS][24], all[NUMBERS][24];
    struct str args[3 + 2 * (1 + NUMBERS)] = {net_key(net, NET_ORIGINS), net_key(net, NET_STATE),
                                              STR(DIGITS(NET_ORIGINS_MAX))};
    if (!evidence_of(error, candidate->interruptible, &evidence))
        return;
    name_of(str_of(candidate->origin), name);
    write_numbers(&evidence, 1, own);
    write_numbers(&evidence, ALL_SHARE, all);
    args[3] = str_of(ALL);
    args[4 + NUMBERS] = str_of(name);
    for (size_t i = 0; i < NUMBERS; i++) {
        args[4 + i] = str_of(all[i]);
        args[5 + NUMBERS + i] = str_of(own[i]);
    }
    if (redis_run(net->all->redis, &origin_script, NULL, NULL, 2, sizeof(args) / sizeof(args[0]) - 2, args) != ERR_NONE)
        log_debug(NULL, "what %s did is not noted", name);
}
