#include "gateway/gateways.h"

#include "core/embed.h"

#include <stdlib.h>
#include <string.h>

EMBED(gateways_sign_lua, "gateway/gateways_sign.lua");
REDIS_SCRIPT(sign_script, gateways_sign_lua);
EMBED(gateways_leave_lua, "gateway/gateways_leave.lua");
REDIS_SCRIPT(leave_script, gateways_leave_lua);

#define LIST "sl:{gateways}:list"
#define SEEN "sl:{gateways}:seen"
#define GATEWAYS_MAX 256
#define DIGITS(number) DIGITS_OF(number)
#define DIGITS_OF(number) #number

struct ask {
    gateways_list_fn *on_list;
    void (*on_left)(void *ctx);
    void *ctx;
};

static struct str text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, (size_t)reply->len} : (struct str){NULL, 0};
}

/* Each text starts with its id, so that bytes in order are ids in order. */
static int by_text(const void *a, const void *b)
{
    return strcmp((*(redisReply *const *)a)->str, (*(redisReply *const *)b)->str);
}

static bool join(const redisReply *reply, struct buf *ret)
{
    redisReply *sorted[GATEWAYS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < reply->elements && count < GATEWAYS_MAX; i++)
        if (text_of(reply->element[i]).len > 0)
            sorted[count++] = reply->element[i];
    qsort(sorted, count, sizeof(sorted[0]), by_text);
    bool fits = buf_append(ret, "[", 1);
    for (size_t i = 0; fits && i < count; i++)
        fits = (i == 0 || buf_append(ret, ",", 1)) && buf_append_str(ret, text_of(sorted[i]));
    return fits && buf_append(ret, "]", 1);
}

static void on_list(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct buf json;
    buf_init(&json, 0);
    if (!error && reply->type != REDIS_REPLY_ARRAY)
        error = ERR_PROTOCOL;
    if (!error && !join(reply, &json))
        error = ERR_NO_MEMORY;
    if (ask->on_list)
        ask->on_list(ask->ctx, error, error ? STR("") : buf_str(&json));
    buf_free(&json);
    free(ask);
}

enum error gateways_sign(struct redis *redis, const struct gateway_address *self, bool is_settled,
                         gateways_list_fn *done, void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    json_t *pin = self->pin[0] ? json_string(self->pin) : json_null();
    json_t *root = json_pack("{s:s, s:s, s:i, s:b, s:o}", "id", self->id, "address", self->address, "links",
                             (int)self->links, "tls", (int)self->tls, "pin", pin);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    struct str args[] = {STR(LIST),
                         STR(SEEN),
                         str_of(self->id),
                         str_of(text),
                         STR(DIGITS(GATEWAYS_LIFE_MS)),
                         is_settled ? STR("1") : STR("0")};
    enum error error = ERR_NO_MEMORY;
    if (ask && text) {
        *ask = (struct ask){.on_list = done, .ctx = ctx};
        error = redis_run(redis, &sign_script, on_list, ask, 2, 4, args);
    }
    if (error)
        free(ask);
    free(text);
    json_decref(root);
    return error;
}

static void on_left(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    (void)reply;
    (void)error; /* unsaid, it goes off the list by itself */
    if (ask->on_left)
        ask->on_left(ask->ctx);
    free(ask);
}

enum error gateways_leave(struct redis *redis, const char *id, void (*done)(void *ctx), void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    struct str args[] = {STR(LIST), STR(SEEN), str_of(id)};
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){.on_left = done, .ctx = ctx};
    enum error error = redis_run(redis, &leave_script, on_left, ask, 2, 1, args);
    if (error)
        free(ask);
    return error;
}

enum error gateways_read(struct redis *redis, gateways_list_fn *done, void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    struct str args[] = {STR("HVALS"), STR(LIST)};
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){.on_list = done, .ctx = ctx};
    enum error error = redis_command(redis, on_list, ask, 2, args);
    if (error)
        free(ask);
    return error;
}
