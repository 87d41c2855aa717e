/* Looking at a network's offers, by the one gateway that is its poller. What changed goes into the table at once and
 * into Redis in batches; what was not listed any more goes at the end of a whole listing. */
#include "gateway/networks_priv.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

EMBED(networks_write_lua, "gateway/networks_write.lua");
REDIS_SCRIPT(write_script, networks_write_lua);
EMBED(networks_polled_lua, "gateway/networks_polled.lua");
REDIS_SCRIPT(polled_script, networks_polled_lua);

#define BATCH 100 /* offers a version */
#define WRITES_MAX 4
#define EARLY_GAP_NS (5 * NS_PER_S) /* between two looks, whoever asks */
#define RECORD_MAX ((size_t)8 << 10)

/* -- into Redis -------------------------------------------------------------------------------------------------- */

static void flush(struct net *net);

static void on_written(void *ctx, const redisReply *reply, enum error error)
{
    struct net *net = ctx;
    net->writes--;
    if (net->all->is_shut)
        return;
    bool is_next = !error && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                   reply->element[0]->type == REDIS_REPLY_INTEGER && reply->element[1]->type == REDIS_REPLY_STRING &&
                   reply->element[0]->integer == net->version + 1;
    if (is_next) {
        net->version++;
        is_next = str_copy(net->last, sizeof(net->last),
                           (struct str){reply->element[1]->str, (size_t)reply->element[1]->len});
    }
    if (!is_next)
        net_read_all(net); /* lost, or unknown whether it was written */
    flush(net);
}

/* The record of an offer as it is now; empty: it is gone. One that cannot be written (its texts are no UTF-8) is
 * nobody's. */
static void record_of(struct net *net, const struct offer_digest *digest, struct buf *records)
{
    const struct offer_entry *entry = offer_table_find(&net->table, digest);
    if (entry && !offer_record_write(&entry->of, records))
        offer_table_remove(&net->table, digest);
}

static bool write_batch(struct net *net, size_t count)
{
    char ids[BATCH][OFFER_DIGEST_HEX];
    size_t ends[BATCH];
    struct str args[5 + 2 * BATCH] = {net_key(net, NET_POLLER), net_key(net, NET_OFFERS), net_key(net, NET_STATE),
                                      net_key(net, NET_CHANGES), str_of(net->all->control->gateway->id)};
    struct buf records;
    buf_init(&records, BATCH * RECORD_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct offer_digest *digest = &net->dirty[net->dirty_at + i];
        record_of(net, digest, &records);
        ends[i] = records.len;
        offer_digest_hex(digest, ids[i]);
    }
    for (size_t i = 0; i < count; i++) {
        size_t from = i ? ends[i - 1] : 0;
        args[5 + 2 * i] = str_of(ids[i]);
        args[6 + 2 * i] = ends[i] > from ? (struct str){records.ptr + from, ends[i] - from} : STR("");
    }
    enum error error = redis_run(net->all->redis, &write_script, on_written, net, 4, 1 + 2 * count, args);
    buf_free(&records);
    return error == ERR_NONE;
}

static void finish(struct net *net);

static void flush(struct net *net)
{
    for (;;) {
        size_t left = net->dirty_count - net->dirty_at, count = left < BATCH ? left : BATCH;
        if (count == 0 || net->writes >= WRITES_MAX || (left < BATCH && !net->is_ended))
            break;
        if (!write_batch(net, count)) {
            net_read_all(net);
            return;
        }
        net->writes++;
        net->dirty_at += count;
    }
    if (net->dirty_at == net->dirty_count)
        net->dirty_at = net->dirty_count = 0;
    if (net->is_ended && net->dirty_count == 0 && net->writes == 0)
        finish(net);
}

static bool push_dirty(struct net *net, const struct offer_digest *digest)
{
    if (net->dirty_count == net->dirty_cap) {
        size_t cap = net->dirty_cap ? net->dirty_cap * 2 : 2 * BATCH;
        struct offer_digest *more = realloc(net->dirty, cap * sizeof(*more));
        if (!more)
            return false;
        net->dirty = more;
        net->dirty_cap = cap;
    }
    net->dirty[net->dirty_count++] = *digest;
    return true;
}

/* -- a look ------------------------------------------------------------------------------------------------------ */

static void on_polled(void *ctx, const redisReply *reply, enum error error)
{
    struct net *net = ctx;
    bool is_time = !error && reply->type == REDIS_REPLY_STRING && !str_eq(str_of(reply->str), STR("lost"));
    if (is_time && !net->all->is_shut)
        net_follow(net);
}

/* Tells all gateways how it ended. */
static void tell(struct net *net)
{
    char now[24], unknown[24], unpriced[24];
    bool is_good = net->outcome == SUPPLY_OK;
    snprintf(now, sizeof(now), "%lld", (long long)clock_wall_ms());
    snprintf(unknown, sizeof(unknown), "%zu", net->unknown_gpus);
    snprintf(unpriced, sizeof(unpriced), "%zu", net->unpriced);
    const struct str args[] = {net_key(net, NET_POLLER),
                               net_key(net, NET_STATE),
                               str_of(net->all->control->gateway->id),
                               is_good && !net->is_checking ? STR("1") : STR("0"),
                               STR("error"),
                               is_good ? STR("") : str_of(net->outcome_message),
                               STR("error_at"),
                               is_good ? STR("0") : str_of(now),
                               STR("unknown_gpus"),
                               str_of(unknown),
                               STR("unpriced"),
                               str_of(unpriced)};
    size_t count = sizeof(args) / sizeof(args[0]);
    if (!is_good || net->is_checking)
        count -= 4; /* it did not see the offers */
    if (redis_run(net->all->redis, &polled_script, on_polled, net, 2, count - 2, args) != ERR_NONE)
        log_debug(NULL, "a look at %s is not told", net->settings->id);
}

static void finish(struct net *net)
{
    int64_t now_ns = loop_now(net->all->loop);
    net->is_ended = false;
    tell(net);
    net_count_error(net, net->outcome);
    if (net->outcome != SUPPLY_OK)
        log_warn(&(struct log_ctx){.network = net->settings->id}, "%s", net->outcome_message);
    int64_t wait_ns = net->outcome_retry_ms * NS_PER_MS;
    if (net->next_poll_ns < now_ns + wait_ns)
        net->next_poll_ns = now_ns + wait_ns;
    if (breaker_note(&net->breaker, net->outcome, net->outcome_retry_ms, clock_wall_ms())) {
        if (net->breaker.state == BREAKER_CLOSED)
            net->next_poll_ns = net->is_checking ? now_ns : net->next_poll_ns;
        net_breaker_changed(net);
    }
    net->is_checking = false;
}

static void on_done(void *ctx, const struct network_result *result)
{
    struct net *net = ctx;
    net->call = NULL;
    net->outcome = net->has_failed && result->error == SUPPLY_OK ? SUPPLY_TRANSIENT : result->error;
    net->outcome_retry_ms = result->retry_after_ms;
    net->polled_ns = loop_now(net->all->loop);
    snprintf(net->outcome_message, sizeof(net->outcome_message), "%s",
             net->has_failed && result->error == SUPPLY_OK ? "no memory for its offers" : result->message);
    net->is_ended = true;
    flush(net);
}

static void on_gone(void *ctx, const struct offer_digest *digest)
{
    struct net *net = ctx;
    net->has_failed |= !push_dirty(net, digest);
}

static void on_listed(void *ctx, const struct network_result *result)
{
    struct net *net = ctx;
    if (result->error == SUPPLY_OK && !net->has_failed) {
        size_t before = net->table.count;
        offer_table_sweep(&net->table, on_gone, net);
        if (net->table.count != before)
            networks_market_changed(net->all);
        net->unknown_gpus = result->unknown_gpus;
        net->unpriced = result->unpriced;
    }
    on_done(net, result);
}

static void on_offers(void *ctx, const struct network_offer *offers, size_t count)
{
    struct net *net = ctx;
    int64_t most = net->settings->max_price_per_gpu_hour_usd_nano;
    struct str id = str_of(net->settings->id);
    bool changed = false;
    for (size_t i = 0; i < count; i++) {
        if (most >= 0 && offers[i].price_usd_nano > most)
            continue;
        struct offer_digest digest = offer_digest_of(id, offers[i].id);
        enum offer_put put = offer_table_put(&net->table, &digest, &offers[i]);
        changed |= put == OFFER_CHANGED;
        net->has_failed |= put == OFFER_NO_MEMORY || (put == OFFER_CHANGED && !push_dirty(net, &digest));
    }
    if (!changed)
        return;
    networks_market_changed(net->all);
    flush(net);
}

static void look(struct net *net)
{
    bool is_credential = net->breaker.state != BREAKER_CLOSED && net->breaker.reason == SUPPLY_BAD_CREDENTIAL;
    net->has_failed = false;
    net->is_checking = is_credential;
    net->next_poll_ns = loop_now(net->all->loop) + net->settings->poll_s * NS_PER_S;
    net->table.round++;
    net->call = is_credential ? network_check(net->network, on_done, net)
                              : network_offers(net->network, on_offers, on_listed, net);
}

void net_poll_tick(struct net *net)
{
    int64_t now_ns = loop_now(net->all->loop);
    if (net->all->is_shut || !net->is_poller || !net->is_synced || !net->network || net->call || net->is_ended ||
        net->writes > 0)
        return;
    bool is_tried = net->breaker.state == BREAKER_HALF_OPEN; /* the try was dropped */
    if (net->breaker.state == BREAKER_CLOSED ? now_ns >= net->next_poll_ns
                                             : is_tried || breaker_try(&net->breaker, clock_wall_ms()))
        look(net);
}

void net_poll_soon(struct net *net)
{
    int64_t now_ns = loop_now(net->all->loop), due_ns = net->polled_ns + EARLY_GAP_NS;
    due_ns = due_ns > now_ns ? due_ns : now_ns;
    if (net->is_poller) {
        net->next_poll_ns = net->next_poll_ns < due_ns ? net->next_poll_ns : due_ns;
    } else if (now_ns >= net->next_early_ns) {
        const struct str args[] = {STR("HINCRBY"), net_key(net, NET_STATE), STR("early"), STR("1")};
        net->next_early_ns = now_ns + EARLY_GAP_NS;
        if (redis_command(net->all->redis, NULL, NULL, 4, args) != ERR_NONE)
            log_debug(NULL, "the poller of %s is not asked", net->settings->id);
    }
}

void net_poll_drop(struct net *net)
{
    if (net->call)
        network_cancel(net->call);
    if (net->call || net->is_ended || net->dirty_count > 0 || net->writes > 0)
        net->is_synced = false; /* what is in the table may not be in Redis */
    net->call = NULL;
    net->is_ended = net->is_checking = false;
    net->dirty_count = net->dirty_at = 0;
}
