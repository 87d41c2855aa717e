/* What runs on a network under our tags and is no lease's: ended, after a while. The poller lists what runs, reads the
 * lease of each, and asks Redis since when those that are nobody's have been seen. What is ended stays in view until it
 * is no longer listed, and is ended again as long as it is.
 *
 * The listing comes before the leases are read: what is created meanwhile has its lease stored first. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"
#include "scheduler/lease_store.h"
#include "scheduler/worker_store.h"

#include <stdlib.h>
#include <string.h>

EMBED(networks_orphans_lua, "gateway/networks_orphans.lua");
REDIS_SCRIPT(orphans_script, networks_orphans_lua);

#define SEEN_MAX 20000 /* instances of a listing */
#define OPEN_MAX 8     /* leases read, or instances ended, at a time */
#define FIELD_MAX (SUPPLY_TAG_MAX + SUPPLY_ID_MAX)

enum seen_verdict { SEEN_UNREAD, SEEN_OWNED, SEEN_ORPHAN, SEEN_UNKNOWN };

struct seen {
    char id[SUPPLY_ID_MAX], tag[SUPPLY_TAG_MAX];
    enum seen_verdict verdict;
    int64_t age_ms;
    bool is_told; /* the network said before that it ended it */
};

/* A round outlives its network's interest in it until what it asked is answered. */
struct net_orphan_round {
    struct net *net; /* NULL: dropped */
    struct seen *seen;
    size_t count, cap, next, open;
    bool has_failed;
    struct adapter_call *call; /* the listing */
};

/* One question about one instance. */
struct seen_ask {
    struct net_orphan_round *round;
    size_t at;
    uint32_t attempt;
    struct adapter_call *call; /* of ending it; NULL: its lease is being read */
};

static struct net_orphan_round *round_free(struct net_orphan_round *round)
{
    free(round->seen);
    free(round);
    return NULL;
}

static void round_end(struct net_orphan_round *round)
{
    if (round->net)
        round->net->round = NULL;
    if (round->open == 0)
        round_free(round);
    else
        round->net = NULL;
}

/* "<tag> <instance>": one tag may have been created twice. */
static void field_of(const struct seen *seen, char ret[static FIELD_MAX])
{
    snprintf(ret, FIELD_MAX, "%s %s", seen->tag, seen->id);
}

/* -- ending ------------------------------------------------------------------------------------------------------ */

static void end_more(struct net_orphan_round *round);

static void on_ended(void *ctx, const struct network_result *result)
{
    struct seen_ask *ask = ctx;
    struct net_orphan_round *round = ask->round;
    const struct seen *seen = &round->seen[ask->at];
    struct net *net = round->net;
    char field[FIELD_MAX], value[64];
    round->open--;
    free(ask);
    if (!net) {
        if (round->open == 0)
            round_free(round);
        return;
    }
    net_count_error(net, result->error);
    if (result->error != SUPPLY_OK) {
        log_warn(&(struct log_ctx){.network = net->settings->id}, "an orphan is not ended yet: %s", result->message);
    } else {
        int64_t now_ms = clock_wall_ms();
        field_of(seen, field);
        snprintf(value, sizeof(value), "%lld %lld", (long long)(now_ms - seen->age_ms), (long long)now_ms);
        const struct str args[] = {STR("HSET"), net_key(net, NET_ORPHANS), str_of(field), str_of(value)};
        if (redis_command(net->all->redis, NULL, NULL, 4, args) != ERR_NONE)
            log_debug(NULL, "an orphan's end is not noted");
        if (net->next_reconcile_ns > loop_now(net->all->loop) + 5 * NS_PER_S)
            net->next_reconcile_ns = loop_now(net->all->loop) + 5 * NS_PER_S; /* is it gone? */
    }
    end_more(round);
}

/* Once; a machine that takes minutes to end is asked again quietly. */
static void orphan_tell(struct net *net, const struct seen *seen)
{
    const struct log_ctx ctx = {.network = net->settings->id};
    long long age_s = (long long)(seen->age_ms / 1000);
    if (seen->is_told) {
        log_info(&ctx, "%s under %s still runs, after %lld s: it is ended again", seen->id, seen->tag, age_s);
        return;
    }
    log_warn(&ctx, "network %s: %s runs under %s and no lease owns it since %lld s: it is ended", net->settings->id,
             seen->id, seen->tag, age_s);
    if (feed_append(net->all->redis, "orphan", str_of(seen->tag)) != ERR_NONE)
        log_debug(NULL, "an orphan is not told");
}

static void end_one(struct net_orphan_round *round, size_t at)
{
    struct net *net = round->net;
    const struct seen *seen = &round->seen[at];
    struct seen_ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return; /* the next round */
    *ask = (struct seen_ask){.round = round, .at = at};
    round->open++;
    orphan_tell(net, seen);
    ask->call = network_terminate(net->network, str_of(seen->id), str_of(seen->tag), on_ended, ask);
}

static void end_more(struct net_orphan_round *round)
{
    struct net *net = round->net;
    for (; round->open < OPEN_MAX && round->next < round->count; round->next++) {
        const struct seen *seen = &round->seen[round->next];
        if (seen->verdict == SEEN_ORPHAN && seen->age_ms >= net->settings->orphan_grace_s * 1000)
            end_one(round, round->next);
    }
    if (round->open == 0)
        round_end(round);
}

/* -- since when -------------------------------------------------------------------------------------------------- */

static void take_ages(struct net_orphan_round *round, const redisReply *reply)
{
    size_t at = 0;
    for (size_t i = 0; i < round->count; i++) {
        struct seen *seen = &round->seen[i];
        if (seen->verdict != SEEN_ORPHAN)
            continue;
        const redisReply *age = at + 1 < reply->elements ? reply->element[at] : NULL;
        const redisReply *told = age ? reply->element[at + 1] : NULL;
        at += 2;
        if (!age || age->type != REDIS_REPLY_STRING || told->type != REDIS_REPLY_STRING ||
            !str_to_i64((struct str){age->str, (size_t)age->len}, &seen->age_ms))
            seen->verdict = SEEN_UNKNOWN;
        else
            seen->is_told = told->len == 1 && told->str[0] == '1';
    }
}

static void on_ages(void *ctx, const redisReply *reply, enum error error)
{
    struct net_orphan_round *round = ctx;
    round->open--;
    if (!round->net || error || reply->type != REDIS_REPLY_ARRAY) {
        round_end(round);
        return;
    }
    take_ages(round, reply);
    round->next = 0;
    end_more(round);
}

static void ask_ages(struct net_orphan_round *round)
{
    struct net *net = round->net;
    struct str *args = calloc(5 + round->count, sizeof(*args));
    char(*fields)[FIELD_MAX] = calloc(round->count + 1, sizeof(*fields)), number[24];
    size_t orphans = 0, count = 5;
    enum error error = ERR_NO_MEMORY;
    if (!args || !fields)
        goto out;
    for (enum seen_verdict verdict = SEEN_ORPHAN; verdict <= SEEN_UNKNOWN; verdict++) {
        for (size_t i = 0; i < round->count; i++) {
            if (round->seen[i].verdict != verdict)
                continue;
            field_of(&round->seen[i], fields[count - 5]);
            args[count] = str_of(fields[count - 5]);
            count++;
            orphans += verdict == SEEN_ORPHAN;
        }
    }
    snprintf(number, sizeof(number), "%zu", orphans);
    args[0] = net_key(net, NET_POLLER);
    args[1] = net_key(net, NET_STATE);
    args[2] = net_key(net, NET_ORPHANS);
    args[3] = str_of(net->all->control->gateway->id);
    args[4] = str_of(number);
    round->open++;
    error = redis_run(net->all->redis, &orphans_script, on_ages, round, 3, count - 3, args);
    if (error)
        round->open--;
out:
    free(args);
    free(fields);
    if (error)
        round_end(round);
}

/* -- whose it is ------------------------------------------------------------------------------------------------- */

static void read_more(struct net_orphan_round *round);

/* Its lease knows the attempt as one that lives, by this instance's name if it knows one. By which of our names its
 * network goes does not matter: several may be of one account, and each lists the others' machines. */
static bool is_owned(const struct lease *lease, const struct seen *seen, uint32_t number)
{
    for (size_t i = 0; i < lease->attempt_count; i++) {
        const struct lease_attempt *attempt = &lease->attempts[i];
        if (attempt->number == number)
            return lease_owns(lease, number) && (!attempt->instance[0] || strcmp(attempt->instance, seen->id) == 0);
    }
    return false;
}

static void on_lease(void *ctx, enum error error, struct lease *take)
{
    struct seen_ask *ask = ctx;
    struct net_orphan_round *round = ask->round;
    struct seen *seen = &round->seen[ask->at];
    round->open--;
    if (round->net) {
        if (error == ERR_NOT_FOUND)
            seen->verdict = SEEN_ORPHAN;
        else if (error || !take)
            seen->verdict = SEEN_UNKNOWN;
        else
            seen->verdict = is_owned(take, seen, ask->attempt) ? SEEN_OWNED : SEEN_ORPHAN;
    }
    lease_free(take);
    free(ask);
    if (round->net)
        read_more(round);
    else if (round->open == 0)
        round_free(round);
}

static void read_one(struct net_orphan_round *round, size_t at)
{
    struct seen *seen = &round->seen[at];
    char lease_id[ID_TEXT_MAX];
    uint32_t attempt;
    seen->verdict = SEEN_UNKNOWN;
    if (!supply_tag_parse(networks_installation(round->net->all), str_of(seen->tag), lease_id, &attempt)) {
        seen->verdict = SEEN_OWNED; /* not ours to judge */
        return;
    }
    struct seen_ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return;
    *ask = (struct seen_ask){.round = round, .at = at, .attempt = attempt};
    if (lease_store_get(round->net->all->redis, str_of(lease_id), on_lease, ask) == ERR_NONE)
        round->open++;
    else
        free(ask);
}

static void read_more(struct net_orphan_round *round)
{
    while (round->open < OPEN_MAX && round->next < round->count)
        read_one(round, round->next++);
    if (round->open == 0)
        ask_ages(round);
}

/* -- the listing ------------------------------------------------------------------------------------------------- */

static void on_instances(void *ctx, const struct supply_instance *instances, size_t count)
{
    struct net_orphan_round *round = ctx;
    for (size_t i = 0; i < count; i++) {
        if (instances[i].state == INSTANCE_GONE || !instances[i].tag.len)
            continue;
        if (round->count == round->cap) {
            size_t cap = round->cap ? round->cap * 2 : 64;
            struct seen *more = cap <= SEEN_MAX ? realloc(round->seen, cap * sizeof(*more)) : NULL;
            if (!more) {
                round->has_failed = true;
                return;
            }
            round->seen = more;
            round->cap = cap;
        }
        struct seen *seen = &round->seen[round->count];
        *seen = (struct seen){.verdict = SEEN_UNREAD};
        if (str_copy(seen->id, sizeof(seen->id), instances[i].id) &&
            str_copy(seen->tag, sizeof(seen->tag), instances[i].tag))
            round->count++;
    }
}

static void on_listed(void *ctx, const struct network_result *result)
{
    struct net_orphan_round *round = ctx;
    struct net *net = round->net;
    round->call = NULL;
    round->open--;
    if (!net) {
        round_end(round);
        return;
    }
    net_count_error(net, result->error);
    if (breaker_note(&net->breaker, result->error, result->retry_after_ms, clock_wall_ms()))
        net_breaker_changed(net);
    if (result->error != SUPPLY_OK || round->has_failed) {
        log_warn(&(struct log_ctx){.network = net->settings->id}, "what runs on %s cannot be listed: %s",
                 net->settings->id, result->error != SUPPLY_OK ? result->message : "too much for a listing");
        round_end(round);
        return;
    }
    read_more(round);
}

void net_reconcile_tick(struct net *net)
{
    int64_t now_ns = loop_now(net->all->loop);
    if (net->all->is_shut || !net->is_poller || !net->network || net->round || net->breaker.state != BREAKER_CLOSED ||
        now_ns < net->next_reconcile_ns)
        return;
    struct net_orphan_round *round = calloc(1, sizeof(*round));
    net->next_reconcile_ns = now_ns + net->settings->reconcile_s * NS_PER_S;
    if (!round)
        return;
    round->net = net;
    round->open = 1;
    net->round = round;
    round->call = network_list(net->network, on_instances, on_listed, round);
}

void net_reconcile_drop(struct net *net)
{
    struct net_orphan_round *round = net->round;
    if (!round)
        return;
    if (round->call) {
        network_cancel(round->call);
        round->call = NULL;
        round->open--;
    }
    round_end(round);
}
