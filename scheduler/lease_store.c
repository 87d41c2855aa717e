#include "scheduler/lease_store.h"
#include "scheduler/lease_open.h"

#include "core/clock.h"
#include "core/crypto.h"
#include "core/embed.h"
#include "core/log.h"
#include "scheduler/worker_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX 96
#define NUMBER_MAX 24
#define UNREADABLE_MS 3600000
#define KEPT_MS "7776000000" /* 90 days after it was over and cleared */
#define LIST_MAX 1000
#define INSTALLATION_KEY "sl:installation"

EMBED(lease_create_lua, "scheduler/lease_create.lua");
REDIS_SCRIPT(create_script, lease_create_lua);
EMBED(lease_due_lua, "scheduler/lease_due.lua");
REDIS_SCRIPT(due_script, lease_due_lua);
EMBED(lease_claim_lua, "scheduler/lease_claim.lua");
REDIS_SCRIPT(claim_script, lease_claim_lua);
EMBED(lease_save_lua, "scheduler/lease_save.lua");
REDIS_SCRIPT(save_script, lease_save_lua);
EMBED(lease_keep_lua, "scheduler/lease_keep.lua");
REDIS_SCRIPT(keep_script, lease_keep_lua);
EMBED(lease_stop_lua, "scheduler/lease_stop.lua");
REDIS_SCRIPT(stop_script, lease_stop_lua);

/* -- keys, words, answers -- */

/* FNV-1a: every gateway of whatever build must agree on it. */
static unsigned shard_of(struct str id)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < id.len; i++)
        hash = (hash ^ (unsigned char)id.ptr[i]) * 16777619u;
    return (hash ^ hash >> 16) % LEASE_SHARDS;
}

static struct str shard_key(char ret[static KEY_MAX], unsigned shard, const char *what, struct str of)
{
    snprintf(ret, KEY_MAX, "sl:{lse:%u}:%s%.*s", shard, what, (int)of.len, of.ptr ? of.ptr : "");
    return str_of(ret);
}

static struct str number(char ret[static NUMBER_MAX], uint64_t value)
{
    snprintf(ret, NUMBER_MAX, "%" PRIu64, value);
    return str_of(ret);
}

static bool is_lease_id(struct str id)
{
    struct id parsed;
    return id_parse(LEASE_ID_PREFIX, id, &parsed);
}

static struct str text_at(const redisReply *reply, size_t i)
{
    if (reply->type != REDIS_REPLY_ARRAY || i >= reply->elements || reply->element[i]->type != REDIS_REPLY_STRING)
        return (struct str){NULL, 0};
    return (struct str){reply->element[i]->str, reply->element[i]->len};
}

static bool number_at(const redisReply *reply, size_t i, int64_t *ret)
{
    return str_to_i64(text_at(reply, i), ret) && *ret >= 0;
}

/* An answer that is an error of Redis' own is none. */
static enum error sound(const redisReply *reply, enum error error)
{
    if (!error && reply->type == REDIS_REPLY_ERROR) {
        log_warn(NULL, "a question about leases failed: %s", reply->str);
        return ERR_PROTOCOL;
    }
    return error;
}

/* Of {record, token, version, stop}. ERR_NOT_FOUND: nothing is there; ERR_BAD_INPUT: it cannot be read. */
static enum error take_lease(const redisReply *reply, struct lease **ret)
{
    struct str record = text_at(reply, 0), stop = text_at(reply, 3);
    struct lease *lease = NULL;
    int64_t token = 0, version = 0, stop_ms = 0;
    if (!record.ptr)
        return ERR_NOT_FOUND;
    if (!number_at(reply, 1, &token) || !number_at(reply, 2, &version) ||
        (stop.len > 0 && !number_at(reply, 3, &stop_ms)))
        return ERR_BAD_INPUT;
    enum error error = lease_record_read(record, &lease);
    if (error)
        return error;
    lease->token = (uint64_t)token;
    lease->version = (uint64_t)version;
    lease->stop_asked_ms = stop_ms;
    *ret = lease;
    return ERR_NONE;
}

/* One question under way. */
struct ask {
    struct redis *redis;
    char id[ID_TEXT_MAX];
    struct lease *lease; /* of a save: the caller's */
    lease_stored_fn *on_stored;
    lease_loaded_fn *on_lease;
    void *ctx;
};

static struct ask *ask_new(struct redis *redis, struct str id, void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return NULL;
    (void)str_copy(ask->id, sizeof(ask->id), id);
    ask->redis = redis;
    ask->ctx = ctx;
    return ask;
}

static enum error asked(struct ask *ask, enum error error)
{
    if (error)
        free(ask);
    return error;
}

static void answer_stored(struct ask *ask, enum error error)
{
    ask->on_stored(ask->ctx, error);
    free(ask);
}

/* The change itself is stored: who misses this line sees it by the next one, or by asking. */
static void tell_feed(struct redis *redis, const char *id)
{
    enum error error = feed_append(redis, "lease", str_of(id));
    if (error)
        log_debug(NULL, "cannot tell the feed of lease %s: %s", id, error_text(error));
}

/* -- create -- */

static void on_created(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    error = sound(reply, error);
    if (!error && reply->type == REDIS_REPLY_STRING && strcmp(reply->str, "new") == 0)
        tell_feed(ask->redis, ask->id);
    answer_stored(ask, error);
}

enum error lease_store_create(struct redis *redis, const struct lease *lease, lease_stored_fn *done, void *ctx)
{
    char keys[5][KEY_MAX], open[LEASE_OPEN_KEY_MAX], due[NUMBER_MAX];
    struct str id = str_of(lease->id);
    unsigned shard = shard_of(id);
    struct buf record;
    if (!is_lease_id(id) || !*lease->tenant)
        return ERR_BAD_INPUT;
    buf_init(&record, LEASE_RECORD_MAX + 1);
    struct ask *ask = ask_new(redis, id, ctx);
    enum error error = ask && lease_record_write(lease, &record) ? ERR_NONE : ERR_NO_MEMORY;
    if (ask && !error) {
        ask->on_stored = done;
        const struct str args[] = {shard_key(keys[0], shard, "l:", id),
                                   shard_key(keys[1], shard, "due", STR("")),
                                   shard_key(keys[2], shard, "all", STR("")),
                                   shard_key(keys[3], shard, "ten:", str_of(lease->tenant)),
                                   shard_key(keys[4], shard, "events", STR("")),
                                   lease_open_key(open, shard, str_of(lease->tenant)),
                                   id,
                                   str_of(lease->tenant),
                                   buf_str(&record),
                                   str_of(lease_state_name(lease->state)),
                                   number(due, (uint64_t)(lease->due_ms > 0 ? lease->due_ms : lease->created_at_ms))};
        error = redis_run(redis, &create_script, on_created, ask, 6, sizeof(args) / sizeof(args[0]) - 6, args);
    }
    if (record.ptr)
        explicit_bzero(record.ptr, record.len);
    buf_free(&record);
    return asked(ask, error);
}

/* -- one lease -- */

static void on_loaded(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct lease *lease = NULL;
    error = sound(reply, error);
    if (!error)
        error = take_lease(reply, &lease);
    ask->on_lease(ask->ctx, error, lease);
    free(ask);
}

static enum error ask_record(struct redis *redis, const char *id, redis_done_fn *done, void *ctx)
{
    char key[KEY_MAX];
    const struct str args[] = {STR("HMGET"),   shard_key(key, shard_of(str_of(id)), "l:", str_of(id)),
                               STR("record"),  STR("token"),
                               STR("version"), STR("stop")};
    return redis_command(redis, done, ctx, sizeof(args) / sizeof(args[0]), args);
}

enum error lease_store_get(struct redis *redis, struct str id, lease_loaded_fn *done, void *ctx)
{
    if (!is_lease_id(id))
        return ERR_NOT_FOUND;
    struct ask *ask = ask_new(redis, id, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_lease = done;
    return asked(ask, ask_record(redis, ask->id, on_loaded, ask));
}

enum error lease_store_stop(struct redis *redis, struct str id, struct str tenant, lease_loaded_fn *done, void *ctx)
{
    char keys[2][KEY_MAX];
    if (!is_lease_id(id))
        return ERR_NOT_FOUND;
    struct ask *ask = ask_new(redis, id, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_lease = done;
    const struct str args[] = {shard_key(keys[0], shard_of(id), "l:", id),
                               shard_key(keys[1], shard_of(id), "due", STR("")), id, tenant.ptr ? tenant : STR("")};
    return asked(ask, redis_run(redis, &stop_script, on_loaded, ask, 2, 2, args));
}

/* -- saving -- */

static enum error verdict_of(struct str verdict)
{
    if (str_eq(verdict, STR("missing")))
        return ERR_NOT_FOUND;
    if (str_eq(verdict, STR("lost")))
        return ERR_MISMATCH;
    return verdict.ptr ? ERR_NONE : ERR_PROTOCOL;
}

static void on_saved(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct lease *lease = ask->lease;
    int64_t stop_ms = 0;
    error = sound(reply, error);
    if (!error)
        error = verdict_of(text_at(reply, 0));
    if (!error) {
        lease->version++;
        if (number_at(reply, 1, &stop_ms))
            lease->stop_asked_ms = stop_ms;
        if (str_eq(text_at(reply, 0), STR("changed")))
            tell_feed(ask->redis, ask->id);
    }
    answer_stored(ask, error);
}

enum error lease_store_save(struct redis *redis, struct lease *lease, bool is_claimed, lease_stored_fn *done, void *ctx)
{
    char keys[3][KEY_MAX], open[LEASE_OPEN_KEY_MAX];
    char token[NUMBER_MAX], version[NUMBER_MAX], due[NUMBER_MAX], claim[NUMBER_MAX], stop[NUMBER_MAX];
    struct str id = str_of(lease->id);
    unsigned shard = shard_of(id);
    struct buf record;
    if (!is_lease_id(id) || lease->due_ms < 0)
        return ERR_BAD_INPUT;
    buf_init(&record, LEASE_RECORD_MAX + 1);
    struct ask *ask = ask_new(redis, id, ctx);
    enum error error = ask && lease_record_write(lease, &record) ? ERR_NONE : ERR_NO_MEMORY;
    if (ask && !error) {
        ask->on_stored = done;
        ask->lease = lease;
        const struct str args[] = {shard_key(keys[0], shard, "l:", id),
                                   shard_key(keys[1], shard, "due", STR("")),
                                   shard_key(keys[2], shard, "events", STR("")),
                                   lease_open_key(open, shard, str_of(lease->tenant)),
                                   id,
                                   number(token, lease->token),
                                   number(version, lease->version),
                                   buf_str(&record),
                                   str_of(lease_state_name(lease->state)),
                                   str_of(lease->reason),
                                   number(due, (uint64_t)lease->due_ms),
                                   is_claimed ? STR("1") : STR("0"),
                                   number(claim, LEASE_CLAIM_MS),
                                   number(stop, (uint64_t)lease->stop_asked_ms),
                                   STR(KEPT_MS)};
        error = redis_run(redis, &save_script, on_saved, ask, 4, sizeof(args) / sizeof(args[0]) - 4, args);
    }
    if (record.ptr)
        explicit_bzero(record.ptr, record.len);
    buf_free(&record);
    return asked(ask, error);
}

static void on_kept(void *ctx, const redisReply *reply, enum error error)
{
    error = sound(reply, error);
    if (!error)
        error = reply->type == REDIS_REPLY_STRING ? verdict_of((struct str){reply->str, reply->len}) : ERR_PROTOCOL;
    answer_stored(ctx, error);
}

enum error lease_store_keep(struct redis *redis, const struct lease *lease, lease_stored_fn *done, void *ctx)
{
    char keys[2][KEY_MAX], token[NUMBER_MAX], claim[NUMBER_MAX];
    struct str id = str_of(lease->id);
    if (!is_lease_id(id))
        return ERR_BAD_INPUT;
    struct ask *ask = ask_new(redis, id, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_stored = done;
    const struct str args[] = {shard_key(keys[0], shard_of(id), "l:", id),
                               shard_key(keys[1], shard_of(id), "due", STR("")), id, number(token, lease->token),
                               number(claim, LEASE_CLAIM_MS)};
    return asked(ask, redis_run(redis, &keep_script, on_kept, ask, 2, 3, args));
}

/* -- many: claims and listings; what is asked of each lease is answered in the order in which it was asked -- */

struct many {
    struct redis *redis;
    lease_loaded_fn *on_lease;
    void *ctx;
    unsigned shard;           /* of a claim */
    char tenant[ID_TEXT_MAX]; /* of a listing; "": all */
    size_t most, open;
    char (*ids)[ID_TEXT_MAX]; /* of a listing */
    size_t count;
    enum error error;
};

struct one {
    struct many *many;
    char id[ID_TEXT_MAX];
};

static struct many *many_new(struct redis *redis, size_t most, lease_loaded_fn *on_lease, void *ctx)
{
    struct many *many = calloc(1, sizeof(*many));
    if (many) {
        many->redis = redis;
        many->most = most < LIST_MAX ? most : LIST_MAX;
        many->on_lease = on_lease;
        many->ctx = ctx;
    }
    return many;
}

static struct one *one_new(struct many *many, struct str id)
{
    struct one *one = calloc(1, sizeof(*one));
    if (one) {
        one->many = many;
        (void)str_copy(one->id, sizeof(one->id), id);
    }
    return one;
}

static void many_check(struct many *many)
{
    if (many->open > 0)
        return;
    many->on_lease(many->ctx, many->error, NULL);
    free(many->ids);
    free(many);
}

static void many_answered(struct many *many, enum error error)
{
    if (error && !many->error)
        many->error = error;
    many->open--;
    many_check(many);
}

/* A damaged record must not take the others away, nor come back every moment, nor be dropped. */
static void put_off(struct many *many, const char *id)
{
    char key[KEY_MAX], due[NUMBER_MAX];
    log_error(NULL, "lease %s cannot be read; it is looked at again in an hour", id);
    const struct str args[] = {STR("ZADD"), shard_key(key, many->shard, "due", STR("")), STR("XX"),
                               number(due, (uint64_t)(clock_wall_ms() + UNREADABLE_MS)), str_of(id)};
    if (redis_command(many->redis, NULL, NULL, sizeof(args) / sizeof(args[0]), args))
        log_debug(NULL, "lease %s is due again when its claim has run out", id);
}

static void on_claimed_one(void *ctx, const redisReply *reply, enum error error)
{
    struct one *one = ctx;
    struct many *many = one->many;
    struct lease *lease = NULL;
    error = sound(reply, error);
    if (!error)
        error = take_lease(reply, &lease);
    if (lease)
        many->on_lease(many->ctx, ERR_NONE, lease);
    else if (error == ERR_BAD_INPUT)
        put_off(many, one->id);
    free(one);
    /* Not found: another gateway was faster. */
    many_answered(many, error == ERR_NOT_FOUND || error == ERR_BAD_INPUT ? ERR_NONE : error);
}

static enum error claim_one(struct many *many, struct str id)
{
    char keys[3][KEY_MAX], claim[NUMBER_MAX];
    if (!is_lease_id(id))
        return ERR_NONE;
    struct one *one = one_new(many, id);
    if (!one)
        return ERR_NO_MEMORY;
    const struct str args[] = {shard_key(keys[0], many->shard, "l:", id),
                               shard_key(keys[1], many->shard, "due", STR("")),
                               shard_key(keys[2], many->shard, "token", STR("")), id, number(claim, LEASE_CLAIM_MS)};
    enum error error = redis_run(many->redis, &claim_script, on_claimed_one, one, 3, 2, args);
    if (error)
        free(one);
    else
        many->open++;
    return error;
}

static void on_due(void *ctx, const redisReply *reply, enum error error)
{
    struct many *many = ctx;
    error = sound(reply, error);
    for (size_t i = 0; !error && reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < many->most; i++)
        error = claim_one(many, text_at(reply, i));
    many_answered(many, error);
}

enum error lease_store_claim(struct redis *redis, unsigned shard, size_t most, lease_loaded_fn *on_lease, void *ctx)
{
    char key[KEY_MAX], limit[NUMBER_MAX];
    struct many *many = shard < LEASE_SHARDS ? many_new(redis, most, on_lease, ctx) : NULL;
    if (!many)
        return shard < LEASE_SHARDS ? ERR_NO_MEMORY : ERR_BAD_INPUT;
    many->shard = shard;
    many->open = 1;
    const struct str args[] = {shard_key(key, shard, "due", STR("")), number(limit, many->most)};
    enum error error = redis_run(redis, &due_script, on_due, many, 1, 1, args);
    if (error)
        free(many);
    return error;
}

/* What outlived its record leaves the indexes. */
static void forget(struct many *many, const char *id)
{
    char key[KEY_MAX];
    unsigned shard = shard_of(str_of(id));
    struct str args[] = {STR("ZREM"), shard_key(key, shard, "all", STR("")), str_of(id)};
    enum error error = redis_command(many->redis, NULL, NULL, 3, args);
    if (!error && *many->tenant) {
        args[1] = shard_key(key, shard, "ten:", str_of(many->tenant));
        error = redis_command(many->redis, NULL, NULL, 3, args);
    }
    if (error)
        log_debug(NULL, "lease %s stays in the index for now: %s", id, error_text(error));
}

static void on_listed_one(void *ctx, const redisReply *reply, enum error error)
{
    struct one *one = ctx;
    struct many *many = one->many;
    struct lease *lease = NULL;
    error = sound(reply, error);
    if (!error)
        error = take_lease(reply, &lease);
    if (lease)
        many->on_lease(many->ctx, ERR_NONE, lease);
    else if (error == ERR_NOT_FOUND)
        forget(many, one->id);
    else if (error == ERR_BAD_INPUT)
        log_warn(NULL, "lease %s cannot be read and is left out", one->id);
    free(one);
    many_answered(many, error == ERR_NOT_FOUND || error == ERR_BAD_INPUT ? ERR_NONE : error);
}

static enum error list_one(struct many *many, const char *id)
{
    struct one *one = one_new(many, str_of(id));
    enum error error = one ? ask_record(many->redis, id, on_listed_one, one) : ERR_NO_MEMORY;
    if (error)
        free(one);
    else
        many->open++;
    return error;
}

static int newest_first(const void *a, const void *b)
{
    return strcmp(b, a);
}

static void on_ids(void *ctx, const redisReply *reply, enum error error)
{
    struct many *many = ctx;
    error = sound(reply, error);
    for (size_t i = 0; !error && reply->type == REDIS_REPLY_ARRAY && i < reply->elements && i < many->most; i++) {
        if (is_lease_id(text_at(reply, i)))
            many->count += str_copy(many->ids[many->count], ID_TEXT_MAX, text_at(reply, i));
    }
    if (error && !many->error)
        many->error = error;
    if (many->open == 1 && !many->error) { /* the last shard */
        qsort(many->ids, many->count, sizeof(many->ids[0]), newest_first);
        for (size_t i = 0; i < many->count && i < many->most && !many->error; i++)
            many->error = list_one(many, many->ids[i]);
    }
    many_answered(many, ERR_NONE);
}

enum error lease_store_list(struct redis *redis, struct str tenant, struct str before, size_t most,
                            lease_loaded_fn *on_lease, void *ctx)
{
    char key[KEY_MAX], from[ID_TEXT_MAX + 1], limit[NUMBER_MAX];
    struct many *many = many_new(redis, most, on_lease, ctx);
    enum error error = ERR_NONE;
    if (!many || (tenant.ptr && !str_copy(many->tenant, sizeof(many->tenant), tenant)) ||
        (before.ptr && !is_lease_id(before))) {
        free(many);
        return many ? ERR_BAD_INPUT : ERR_NO_MEMORY;
    }
    many->ids = calloc(LEASE_SHARDS * many->most + 1, sizeof(many->ids[0]));
    if (!many->ids) {
        free(many);
        return ERR_NO_MEMORY;
    }
    snprintf(from, sizeof(from), before.ptr ? "(%.*s" : "+", (int)before.len, before.ptr ? before.ptr : "");
    for (unsigned shard = 0; shard < LEASE_SHARDS && !error; shard++) {
        const struct str args[] = {STR("ZREVRANGEBYLEX"),
                                   tenant.ptr ? shard_key(key, shard, "ten:", tenant)
                                              : shard_key(key, shard, "all", tenant),
                                   str_of(from),
                                   STR("-"),
                                   STR("LIMIT"),
                                   STR("0"),
                                   number(limit, many->most)};
        error = redis_command(redis, on_ids, many, sizeof(args) / sizeof(args[0]), args);
        many->open += error == ERR_NONE;
    }
    if (error && many->open == 0) {
        free(many->ids);
        free(many);
        return error;
    }
    if (error) /* some were asked: their answers end it */
        many->error = error;
    return ERR_NONE;
}

/* -- the installation -- */

struct installing {
    lease_installation_fn *done;
    void *ctx;
};

static void on_installation(void *ctx, const redisReply *reply, enum error error)
{
    struct installing installing = *(struct installing *)ctx;
    struct str text = {NULL, 0};
    free(ctx);
    error = sound(reply, error);
    if (!error && reply->type == REDIS_REPLY_STRING && reply->len == SUPPLY_INSTALLATION_MAX - 2)
        text = (struct str){reply->str, reply->len};
    else if (!error)
        error = ERR_PROTOCOL;
    installing.done(installing.ctx, error, text);
}

enum error lease_store_installation(struct redis *redis, lease_installation_fn *done, void *ctx)
{
    unsigned char bytes[3];
    char hex[SUPPLY_INSTALLATION_MAX];
    struct installing *installing = malloc(sizeof(*installing));
    if (!installing)
        return ERR_NO_MEMORY;
    *installing = (struct installing){done, ctx};
    crypto_random(bytes, sizeof(bytes));
    snprintf(hex, sizeof(hex), "%02x%02x%02x", bytes[0], bytes[1], bytes[2]);
    const struct str make[] = {STR("SET"), STR(INSTALLATION_KEY), str_of(hex), STR("NX")},
                     get[] = {STR("GET"), STR(INSTALLATION_KEY)};
    enum error error = redis_command(redis, NULL, NULL, 4, make);
    if (!error)
        error = redis_command(redis, on_installation, installing, 2, get);
    if (error)
        free(installing);
    return error;
}
