/* settle_sweep: gives back what gateways held that have shown no sign of life. Any number of gateways may sweep. */
#include "pricing/settle.h"

#include "core/embed.h"
#include "core/log.h"
#include "pricing/keys.h"

#include <stdlib.h>
#include <string.h>

EMBED(sweep_hold_lua, "pricing/hold.lua");
EMBED(sweep_registry_lua, "pricing/registry.lua");
REDIS_SCRIPT(hold_script, sweep_hold_lua);
REDIS_SCRIPT(registry_script, sweep_registry_lua);

#define PAGE 64
#define PAGES_MAX 64 /* the rest waits for the next sweep */
#define GEN_MAX 24

struct sweep;

struct sweep_item {
    struct sweep *sweep;
    struct purse purse;
    char gen[GEN_MAX];
};

struct sweep {
    struct redis *redis;
    size_t pages, in_flight;
    bool is_page_full, has_failed;
    struct sweep_item items[PAGE];
};

static void sweep_page(struct sweep *sweep);

static void item_answered(struct sweep *sweep)
{
    if (--sweep->in_flight > 0)
        return;
    if (sweep->is_page_full && !sweep->has_failed && sweep->pages < PAGES_MAX)
        sweep_page(sweep);
    else
        free(sweep);
}

/* Ends with an answer even where nothing could be done: the purse stays due, and the next sweep comes to it. */
static void item_next_done(void *ctx, const redisReply *reply, enum error error)
{
    struct sweep_item *item = ctx;

    if (error || reply->type == REDIS_REPLY_ERROR)
        item->sweep->has_failed = true;
    item_answered(item->sweep);
}

static void item_swept(void *ctx, const redisReply *reply, enum error error)
{
    struct sweep_item *item = ctx;
    struct str args[] = {STR(HOLDS_DUE),           STR(HOLDS_GEN),    STR("next"),
                         str_of(item->purse.name), str_of(item->gen), {"", 0}};

    if (!error && reply->type == REDIS_REPLY_STRING) {
        args[5] = (struct str){reply->str, reply->len};
        error = redis_run(item->sweep->redis, &registry_script, item_next_done, item, 2, 4, args);
        if (!error)
            return;
    } else if (!error) {
        log_warn(NULL, "redis: sweeping holds: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a text");
    }
    item->sweep->has_failed = true;
    item_answered(item->sweep);
}

static enum error item_sweep(struct sweep_item *item)
{
    static const char *const suffixes[] = {"acct", "hold", "due", "op:sweep", "ledger", "chain"};
    char keys[6][MONEY_KEY_MAX];
    struct str args[7];
    size_t key_count = item->purse.is_balance ? 6 : 4;

    for (size_t i = 0; i < key_count; i++)
        args[i] = purse_key(&item->purse, suffixes[i], keys[i]);
    args[key_count] = STR("sweep");
    return redis_run(item->sweep->redis, &hold_script, item_swept, item, key_count, 1, args);
}

static void page_done(void *ctx, const redisReply *reply, enum error error)
{
    struct sweep *sweep = ctx;

    if (!error && reply->type == REDIS_REPLY_ARRAY) {
        sweep->is_page_full = reply->elements >= PAGE * 2;
        for (size_t i = 0; i + 1 < reply->elements && i / 2 < PAGE; i += 2) {
            const redisReply *name = reply->element[i], *gen = reply->element[i + 1];
            struct sweep_item *item = &sweep->items[i / 2];
            item->sweep = sweep;
            if (!purse_parse((struct str){name->str, name->len}, &item->purse) ||
                !str_copy(item->gen, sizeof(item->gen), (struct str){gen->str, gen->len}) || item_sweep(item))
                sweep->has_failed = true;
            else
                sweep->in_flight++;
        }
    }
    sweep->in_flight++; /* this answer itself */
    item_answered(sweep);
}

static void sweep_page(struct sweep *sweep)
{
    struct str args[] = {STR(HOLDS_DUE), STR(HOLDS_GEN), STR("due"), STR("64")};

    _Static_assert(PAGE == 64, "as the text says");
    sweep->pages++;
    sweep->is_page_full = false;
    if (redis_run(sweep->redis, &registry_script, page_done, sweep, 2, 2, args))
        free(sweep);
}

void settle_sweep(struct redis *redis)
{
    struct sweep *sweep = calloc(1, sizeof(*sweep));

    if (!sweep)
        return;
    sweep->redis = redis;
    sweep_page(sweep);
}
