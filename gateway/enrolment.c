#include "gateway/enrolment.h"

#include "core/clock.h"
#include "core/embed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(enrolment_put_lua, "gateway/enrolment_put.lua");
REDIS_SCRIPT(put_script, enrolment_put_lua);
EMBED(enrolment_find_lua, "gateway/enrolment_find.lua");
REDIS_SCRIPT(find_script, enrolment_find_lua);
EMBED(enrolment_delete_lua, "gateway/enrolment_delete.lua");
REDIS_SCRIPT(delete_script, enrolment_delete_lua);

#define ENROLMENTS "sl:{enrolments}:list"
#define TOKENS "sl:{enrolments}:tokens"
#define LEASE_KEY_MAX (sizeof("sl:lease_token:") + SHA256_HEX)
#define TOKEN_LEN (sizeof(ENROLMENT_TOKEN_PREFIX) - 1 + 43)

struct ask {
    enrolment_done_fn *on_done;
    enrolment_found_fn *on_found;
    enrolment_list_fn *on_list;
    int if_zero; /* the error that a 0 stands for */
    void *ctx;
};

static struct ask *ask_new(struct ask fields)
{
    struct ask *ask = malloc(sizeof(*ask));
    if (ask)
        *ask = fields;
    return ask;
}

static enum error asked(struct ask *ask, enum error error)
{
    if (error)
        free(ask);
    return error;
}

bool enrolment_token_is_formed(struct str token)
{
    _Static_assert(sizeof(ENROLMENT_TOKEN_PREFIX) == sizeof(ENROLMENT_LEASE_PREFIX), "tokens have one length");
    if (token.len != TOKEN_LEN ||
        !(str_starts(token, STR(ENROLMENT_TOKEN_PREFIX)) || str_starts(token, STR(ENROLMENT_LEASE_PREFIX))))
        return false;
    for (size_t i = sizeof(ENROLMENT_TOKEN_PREFIX) - 1; i < token.len; i++) {
        char c = token.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

static void on_number(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    else if (!error && reply->integer == 0)
        error = (enum error)ask->if_zero;
    ask->on_done(ask->ctx, error);
    free(ask);
}

enum error enrolment_put(struct redis *redis, const struct enrolment *enrolment, struct str token,
                         enrolment_done_fn *done, void *ctx)
{
    char digest[SHA256_HEX];
    crypto_sha256_hex(token, digest);
    struct ask *ask = ask_new((struct ask){.on_done = done, .if_zero = ERR_EXISTS, .ctx = ctx});
    json_t *root = json_pack("{s:s, s:s, s:I, s:I}", "id", enrolment->id, "supplier", enrolment->supplier, "created_at",
                             (json_int_t)enrolment->created_at_ms, "expires_at", (json_int_t)enrolment->expires_at_ms);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    struct str args[] = {STR(ENROLMENTS), STR(TOKENS), str_of(enrolment->id), str_of(text), str_of(digest)};
    enum error error = ask && text ? redis_run(redis, &put_script, on_number, ask, 2, 3, args) : ERR_NO_MEMORY;
    json_decref(root);
    free(text);
    return asked(ask, error);
}

enum error enrolment_delete(struct redis *redis, struct str id, enrolment_done_fn *done, void *ctx)
{
    struct ask *ask = ask_new((struct ask){.on_done = done, .if_zero = ERR_NOT_FOUND, .ctx = ctx});
    struct str args[] = {STR(ENROLMENTS), id};
    return asked(ask, ask ? redis_run(redis, &delete_script, on_number, ask, 1, 1, args) : ERR_NO_MEMORY);
}

static bool parse(struct str text, struct enrolment *ret)
{
    json_t *root = json_loadb(text.ptr, text.len, 0, NULL);
    const char *id = NULL, *supplier = NULL, *lease = "";
    json_int_t created_at = 0, expires_at = 0;
    bool is_good = root &&
                   json_unpack(root, "{s:s, s:s, s:I, s:I, s?s}", "id", &id, "supplier", &supplier, "created_at",
                               &created_at, "expires_at", &expires_at, "lease", &lease) == 0 &&
                   str_copy(ret->id, sizeof(ret->id), str_of(id)) &&
                   str_copy(ret->lease, sizeof(ret->lease), str_of(lease)) &&
                   str_copy(ret->supplier, sizeof(ret->supplier), str_of(supplier));
    ret->created_at_ms = created_at;
    ret->expires_at_ms = expires_at;
    json_decref(root);
    return is_good;
}

static void on_find(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct enrolment found = {0};
    if (!error && reply->type == REDIS_REPLY_NIL)
        error = ERR_NOT_FOUND;
    else if (!error &&
             (reply->type != REDIS_REPLY_STRING || !parse((struct str){reply->str, (size_t)reply->len}, &found)))
        error = ERR_PROTOCOL;
    if (!error && found.expires_at_ms && found.expires_at_ms <= clock_wall_ms())
        error = ERR_NOT_FOUND;
    ask->on_found(ask->ctx, error, error ? NULL : &found);
    free(ask);
}

/* -- of leases: a key each, which Redis lets expire -- */

static struct str lease_key(struct str token, char ret[static LEASE_KEY_MAX])
{
    char digest[SHA256_HEX];
    crypto_sha256_hex(token, digest);
    snprintf(ret, LEASE_KEY_MAX, "sl:lease_token:%s", digest);
    return str_of(ret);
}

void enrolment_lease_worker(struct str lease, char ret_id[static ID_TEXT_MAX])
{
    uint8_t digest[SHA256_BYTES];
    struct id id;
    crypto_sha256(lease, digest);
    memcpy(id.bytes, digest, sizeof(id.bytes));
    id_text("wrk_", &id, ret_id);
}

void enrolment_lease_secret(struct str token, char ret[static SECRET_TEXT_MAX])
{
    uint8_t bits[SHA256_BYTES];
    crypto_hmac_sha256(token, STR("the secret of its worker"), bits);
    crypto_secret_of("sls-", bits, ret);
    crypto_wipe(bits, sizeof(bits));
}

static void on_lease_put(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_STATUS)
        error = ERR_PROTOCOL;
    ask->on_done(ask->ctx, error);
    free(ask);
}

enum error enrolment_put_lease(struct redis *redis, const struct enrolment *enrolment, struct str token,
                               enrolment_done_fn *done, void *ctx)
{
    char key[LEASE_KEY_MAX], until[24];
    json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:s}", "id", "", "supplier", enrolment->supplier, "created_at",
                             (json_int_t)enrolment->created_at_ms, "expires_at", (json_int_t)enrolment->expires_at_ms,
                             "lease", enrolment->lease);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    struct ask *ask = ask_new((struct ask){.on_done = done, .ctx = ctx});
    snprintf(until, sizeof(until), "%" PRId64, enrolment->expires_at_ms);
    struct str args[] = {STR("SET"), lease_key(token, key), str_of(text), STR("PXAT"), str_of(until)};
    enum error error = ask && text ? redis_command(redis, on_lease_put, ask, 5, args) : ERR_NO_MEMORY;
    json_decref(root);
    free(text);
    return asked(ask, error);
}

static void on_lease_deleted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    ask->on_done(ask->ctx, error);
    free(ask);
}

enum error enrolment_delete_lease(struct redis *redis, struct str token, enrolment_done_fn *done, void *ctx)
{
    char key[LEASE_KEY_MAX];
    struct ask *ask = ask_new((struct ask){.on_done = done, .ctx = ctx});
    struct str args[] = {STR("DEL"), lease_key(token, key)};
    return asked(ask, ask ? redis_command(redis, on_lease_deleted, ask, 2, args) : ERR_NO_MEMORY);
}

/* -- finding ----------------------------------------------------------------------------------------------------- */

enum error enrolment_find(struct redis *redis, struct str token, enrolment_found_fn *done, void *ctx)
{
    char digest[SHA256_HEX], key[LEASE_KEY_MAX];
    crypto_sha256_hex(token, digest);
    struct ask *ask = ask_new((struct ask){.on_found = done, .ctx = ctx});
    if (str_starts(token, STR(ENROLMENT_LEASE_PREFIX))) {
        struct str get[] = {STR("GET"), lease_key(token, key)};
        return asked(ask, ask ? redis_command(redis, on_find, ask, 2, get) : ERR_NO_MEMORY);
    }
    struct str args[] = {STR(ENROLMENTS), STR(TOKENS), str_of(digest)};
    return asked(ask, ask ? redis_run(redis, &find_script, on_find, ask, 2, 1, args) : ERR_NO_MEMORY);
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct enrolment *)a)->id, ((const struct enrolment *)b)->id);
}

static json_t *list_of(const struct enrolment *all, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        json_t *expires_at = all[i].expires_at_ms ? json_integer(all[i].expires_at_ms) : json_null();
        json_t *row = json_pack("{s:s, s:s, s:I, s:o}", "id", all[i].id, "supplier", all[i].supplier, "created_at",
                                (json_int_t)all[i].created_at_ms, "expires_at", expires_at);
        if (json_array_append_new(list, row) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static void on_values(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    json_t *list = NULL;
    struct enrolment *all = NULL;
    size_t count = 0;
    if (!error && reply->type != REDIS_REPLY_ARRAY)
        error = ERR_PROTOCOL;
    if (!error && !(all = calloc(reply->elements + 1, sizeof(*all))))
        error = ERR_NO_MEMORY;
    for (size_t i = 0; !error && i < reply->elements; i++) {
        const redisReply *value = reply->element[i];
        /* Empty: deleted. */
        if (value->type == REDIS_REPLY_STRING && parse((struct str){value->str, (size_t)value->len}, &all[count]))
            count++;
    }
    if (!error) {
        qsort(all, count, sizeof(*all), by_id);
        if (!(list = list_of(all, count)))
            error = ERR_NO_MEMORY;
    }
    free(all);
    ask->on_list(ask->ctx, error, list);
    free(ask);
}

enum error enrolment_list(struct redis *redis, enrolment_list_fn *done, void *ctx)
{
    struct ask *ask = ask_new((struct ask){.on_list = done, .ctx = ctx});
    struct str args[] = {STR("HVALS"), STR(ENROLMENTS)};
    return asked(ask, ask ? redis_command(redis, on_values, ask, 2, args) : ERR_NO_MEMORY);
}
