#include "gateway/keyring_store.h"

#include "core/embed.h"
#include "core/money.h"
#include "gateway/keyring.h"
#include "scheduler/worker_store.h"

#include <stdlib.h>
#include <string.h>

EMBED(keyring_put_lua, "gateway/keyring_put.lua");
REDIS_SCRIPT(put_script, keyring_put_lua);
EMBED(keyring_delete_lua, "gateway/keyring_delete.lua");
REDIS_SCRIPT(delete_script, keyring_delete_lua);

/* One question under way. */
struct ask {
    struct redis *redis;
    char id[ID_TEXT_MAX];
    json_t *object; /* what was to be stored */
    keyring_put_fn *on_put;
    keyring_done_fn *on_done;
    keyring_list_fn *on_list;
    void *ctx;
};

static struct ask *ask_new(struct redis *redis, void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    if (ask) {
        ask->redis = redis;
        ask->ctx = ctx;
    }
    return ask;
}

static void ask_free(struct ask *ask)
{
    json_decref(ask->object);
    free(ask);
}

static enum error started(struct ask *ask, enum error error)
{
    if (error)
        ask_free(ask);
    return error;
}

/* A reply that is not what a healthy Redis gives counts as one that did not come. */
static enum error reply_error(const redisReply *reply, enum error error, int type)
{
    return error ? error : reply->type == type ? ERR_NONE : ERR_PROTOCOL;
}

/* The version already tells every gateway within its next look; the feed only makes it sooner. */
static void tell(struct redis *redis, const char *id)
{
    enum error error = feed_append(redis, "key", str_of(id));
    (void)error;
}

static json_t *decode(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? json_loadb(reply->str, reply->len, 0, NULL) : NULL;
}

/* -- tenants -- */

static void on_tenant_read(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    json_t *stored = NULL;
    error = reply_error(reply, error, REDIS_REPLY_STRING);
    if (!error && !(stored = decode(reply)))
        error = ERR_PROTOCOL;
    ask->on_put(ask->ctx, error, stored, false);
    ask_free(ask);
}

static void on_tenant_put(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    error = reply_error(reply, error, REDIS_REPLY_INTEGER);
    if (!error && reply->integer == 0) {
        struct str args[] = {STR("HGET"), STR(KEYRING_TENANTS), str_of(ask->id)};
        error = redis_command(ask->redis, on_tenant_read, ask, 3, args);
        if (!error)
            return;
    }
    ask->on_put(ask->ctx, error, error ? NULL : json_incref(ask->object), !error);
    ask_free(ask);
}

/* Fills ask->id and ask->object; the text to store is the caller's to free. */
static char *prepare_put(struct ask *ask, const json_t *object)
{
    ask->object = json_deep_copy(object);
    const char *id = json_string_value(json_object_get(object, "id"));
    if (!ask->object || !id || !str_copy(ask->id, sizeof(ask->id), str_of(id)))
        return NULL;
    return json_dumps(object, JSON_COMPACT);
}

enum error keyring_put_tenant(struct redis *redis, const json_t *object, keyring_put_fn *done, void *ctx)
{
    struct ask *ask = ask_new(redis, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_put = done;
    char *text = prepare_put(ask, object);
    struct str args[] = {STR("HSETNX"), STR(KEYRING_TENANTS), str_of(ask->id), str_of(text)};
    enum error error = text ? redis_command(redis, on_tenant_put, ask, 4, args) : ERR_NO_MEMORY;
    free(text);
    return started(ask, error);
}

/* -- keys -- */

static void on_key_put(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    json_t *stored = NULL;
    bool is_new = false;
    error = reply_error(reply, error, REDIS_REPLY_ARRAY);
    if (!error && (reply->elements < 1 || reply->element[0]->type != REDIS_REPLY_STRING))
        error = ERR_PROTOCOL;
    if (!error && reply->elements == 1) {
        error = ERR_NOT_FOUND;
    } else if (!error) {
        is_new = strcmp(reply->element[0]->str, "new") == 0;
        if (reply->element[1]->type == REDIS_REPLY_NIL)
            error = ERR_MISMATCH;
        else if (!(stored = decode(reply->element[1])))
            error = ERR_PROTOCOL;
        else
            json_object_del(stored, "sha256");
    }
    if (is_new)
        tell(ask->redis, ask->id);
    ask->on_put(ask->ctx, error, stored, is_new);
    ask_free(ask);
}

enum error keyring_put_key(struct redis *redis, const json_t *object, keyring_put_fn *done, void *ctx)
{
    struct ask *ask = ask_new(redis, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_put = done;
    char *text = prepare_put(ask, object);
    struct str args[] = {STR(KEYRING_TENANTS),
                         STR(KEYRING_KEYS),
                         STR(KEYRING_LOG),
                         STR(KEYRING_VERSION),
                         str_of(json_string_value(json_object_get(object, "tenant"))),
                         str_of(ask->id),
                         str_of(text)};
    enum error error = text ? redis_run(redis, &put_script, on_key_put, ask, 4, 3, args) : ERR_NO_MEMORY;
    free(text);
    return started(ask, error);
}

static void on_deleted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    error = reply_error(reply, error, REDIS_REPLY_INTEGER);
    if (!error && reply->integer == 0)
        error = ERR_NOT_FOUND;
    if (!error)
        tell(ask->redis, ask->id);
    ask->on_done(ask->ctx, error);
    ask_free(ask);
}

enum error keyring_delete_key(struct redis *redis, struct str id, keyring_done_fn *done, void *ctx)
{
    struct ask *ask = ask_new(redis, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_done = done;
    struct str args[] = {STR(KEYRING_KEYS), STR(KEYRING_LOG), STR(KEYRING_VERSION), id};
    bool fits = str_copy(ask->id, sizeof(ask->id), id);
    return started(ask, fits ? redis_run(redis, &delete_script, on_deleted, ask, 3, 1, args) : ERR_BAD_INPUT);
}

/* -- reading -- */

static void on_has(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    error = reply_error(reply, error, REDIS_REPLY_INTEGER);
    ask->on_done(ask->ctx, error ? error : reply->integer ? ERR_NONE : ERR_NOT_FOUND);
    ask_free(ask);
}

enum error keyring_has_tenant(struct redis *redis, struct str tenant, keyring_done_fn *done, void *ctx)
{
    struct ask *ask = ask_new(redis, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_done = done;
    struct str args[] = {STR("HEXISTS"), STR(KEYRING_TENANTS), tenant};
    return started(ask, redis_command(redis, on_has, ask, 3, args));
}

static void on_list(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    json_t *list = NULL;
    error = reply_error(reply, error, REDIS_REPLY_ARRAY);
    if (!error && !(list = json_array()))
        error = ERR_NO_MEMORY;
    for (size_t i = 0; !error && i < reply->elements; i++) {
        json_t *object = decode(reply->element[i]);
        if (!object)
            continue;
        json_object_del(object, "sha256");
        if (json_array_append_new(list, object) != 0)
            error = ERR_NO_MEMORY;
    }
    if (error) {
        json_decref(list);
        list = NULL;
    }
    ask->on_list(ask->ctx, error, list);
    ask_free(ask);
}

static enum error list_hash(struct redis *redis, struct str hash, keyring_list_fn *done, void *ctx)
{
    struct ask *ask = ask_new(redis, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    ask->on_list = done;
    struct str args[] = {STR("HVALS"), hash};
    return started(ask, redis_command(redis, on_list, ask, 2, args));
}

enum error keyring_list_tenants(struct redis *redis, keyring_list_fn *done, void *ctx)
{
    return list_hash(redis, STR(KEYRING_TENANTS), done, ctx);
}

enum error keyring_list_keys(struct redis *redis, keyring_list_fn *done, void *ctx)
{
    return list_hash(redis, STR(KEYRING_KEYS), done, ctx);
}

/* -- the stored form -- */

static bool text_field(const json_t *object, const char *name, char *to, size_t to_size)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value) &&
           str_copy(to, to_size, (struct str){json_string_value(value), json_string_length(value)});
}

static bool parse_models(const json_t *object, struct api_key *ret, struct keyring_key_text *text)
{
    const json_t *models = json_object_get(object, "models");
    if (!json_is_array(models))
        return true;
    size_t count = json_array_size(models);
    text->models = calloc(count ? count : 1, sizeof(*text->models));
    if (!text->models)
        return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *model = json_array_get(models, i);
        text->models[i] = (struct str){json_string_value(model), json_string_length(model)};
        if (!text->models[i].ptr)
            return false;
    }
    ret->has_models = true;
    ret->models = text->models;
    ret->model_count = count;
    return true;
}

static int32_t small_field(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));
    return value > 0 && value <= INT32_MAX ? (int32_t)value : 0;
}

bool keyring_key_parse(struct str json, struct api_key *ret, int64_t *ret_budget_usd_nano,
                       const char **ret_budget_period, struct keyring_key_text *ret_text)
{
    struct keyring_key_text text = {json_loadb(json.ptr, json.len, 0, NULL), NULL};
    struct api_key key = {0};
    const char *digest = json_string_value(json_object_get(text.object, "sha256"));
    const char *budget = json_string_value(json_object_get(text.object, "budget_usd"));
    const char *period = json_string_value(json_object_get(text.object, "budget_period"));
    int64_t amount = 0;
    if (!text.object || !digest || !crypto_unhex(str_of(digest), key.sha256, SHA256_BYTES) ||
        !text_field(text.object, "id", key.id, sizeof(key.id)) ||
        !text_field(text.object, "tenant", key.tenant, sizeof(key.tenant)) ||
        !text_field(text.object, "name", key.name, sizeof(key.name)) || !parse_models(text.object, &key, &text) ||
        (budget && !money_parse(str_of(budget), &amount))) {
        keyring_key_text_free(&text);
        return false;
    }
    key.expires_at_ms = json_integer_value(json_object_get(text.object, "expires_at"));
    key.rpm = small_field(text.object, "rpm");
    key.max_concurrency = small_field(text.object, "max_concurrency");
    *ret = key;
    *ret_budget_usd_nano = amount;
    *ret_budget_period = !budget ? NULL : period && strcmp(period, "day") == 0 ? "day" : "month";
    *ret_text = text;
    return true;
}

void keyring_key_text_free(struct keyring_key_text *text)
{
    json_decref(text->object);
    free(text->models);
    *text = (struct keyring_key_text){NULL, NULL};
}
