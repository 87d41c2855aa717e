/* Quotes: what a lease would cost now, and which offers it would try. */
#include "core/clock.h"
#include "core/money.h"
#include "gateway/lease_body.h"
#include "gateway/lease_drive.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "gateway/routes_lease.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE_KEY "sl:quote:"
#define QUOTE_TEXT_MAX 160

static void fail_post(struct post *post, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    post_fail(post, &error);
}

/* -- kept -------------------------------------------------------------------------------------------------------- */

struct quote_ask {
    struct quote quote;
    quote_done_fn *done;
    void *ctx;
};

static void on_quote_text(void *ctx, const redisReply *reply, enum error code)
{
    struct quote_ask ask = *(struct quote_ask *)ctx;
    struct str text, price;
    free(ctx);
    if (!code && reply->type == REDIS_REPLY_STRING) {
        text = (struct str){reply->str, reply->len};
        price = str_next(&text, ' ');
        struct str expires = str_next(&text, ' ');
        if (!str_to_i64(price, &ask.quote.price_usd_nano) || !str_to_i64(expires, &ask.quote.expires_at_ms) ||
            !str_copy(ask.quote.tenant, sizeof(ask.quote.tenant), text))
            code = ERR_PROTOCOL;
        else if (ask.quote.expires_at_ms <= clock_wall_ms())
            code = ERR_NOT_FOUND;
    } else if (!code) {
        code = reply->type == REDIS_REPLY_NIL ? ERR_NOT_FOUND : ERR_CLOSED;
    }
    ask.done(ask.ctx, code, code ? NULL : &ask.quote);
}

enum error quote_get(struct redis *redis, struct str id, quote_done_fn *done, void *ctx)
{
    char key[sizeof(QUOTE_KEY) + ID_TEXT_MAX];
    struct quote_ask *ask = calloc(1, sizeof(*ask));
    struct str args[] = {STR("GET"), {key, 0}};
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct quote_ask){.done = done, .ctx = ctx};
    enum error code = str_copy(ask->quote.id, sizeof(ask->quote.id), id) ? ERR_NONE : ERR_BAD_INPUT;
    args[1].len = (size_t)snprintf(key, sizeof(key), QUOTE_KEY "%s", ask->quote.id);
    if (!code)
        code = redis_command(redis, on_quote_text, ask, 2, args);
    if (code)
        free(ask);
    return code;
}

/* -- made -------------------------------------------------------------------------------------------------------- */

/* post->object becomes the answer before it is stored. */
static void on_stored(void *ctx, const redisReply *reply, enum error code)
{
    struct post *post = ctx;
    if (!code && reply->type == REDIS_REPLY_ERROR)
        code = ERR_CLOSED;
    if (code)
        fail_post(post, code);
    else
        post_answer(post, 200, json_incref(post->object), NULL);
}

/* The best candidate's price stands for the quote's life. */
static enum error quote_store(struct post *post, json_t *answer, const char *id, int64_t expires_at_ms)
{
    const char *price_text = json_string_value(json_object_get(answer, "price_per_gpu_hour_usd"));
    char key[sizeof(QUOTE_KEY) + ID_TEXT_MAX], text[QUOTE_TEXT_MAX], life[24];
    int64_t price;
    if (!price_text || !money_parse(str_of(price_text), &price))
        return ERR_PROTOCOL;
    snprintf(key, sizeof(key), QUOTE_KEY "%s", id);
    snprintf(text, sizeof(text), "%" PRId64 " %" PRId64 " %s", price, expires_at_ms, post->call->tenant);
    snprintf(life, sizeof(life), "%" PRId64, QUOTE_LIFE_MS);
    struct str args[] = {STR("SET"), str_of(key), str_of(text), STR("PX"), str_of(life)};
    return redis_command(post->call->reactor->redis, on_stored, post, 5, args);
}

static void none_fits(struct post *post, const char *message)
{
    struct api_error error;
    api_error_set(&error, 503, "server_error", "no_offer_matches", NULL, "%.240s",
                  *message ? message : "No offer fits.");
    error.no_retry = true;
    post_fail(post, &error);
}

static void on_candidates(void *ctx, json_t *take_found)
{
    struct post *post = ctx;
    json_t *best = json_array_get(json_object_get(take_found, "data"), 0);
    const char *message = json_string_value(json_object_get(take_found, "message"));
    int64_t expires_at_ms = clock_wall_ms() + QUOTE_LIFE_MS;
    char id[ID_TEXT_MAX];
    if (!take_found) {
        fail_post(post, ERR_NO_MEMORY);
        return;
    }
    if (!best || (message && *message)) {
        none_fits(post, message ? message : "");
        json_decref(take_found);
        return;
    }
    id_text("quo_", &post->seed, id);
    json_t *answer =
        json_pack("{s:s, s:I, s:O, s:O*}", "id", id, "expires_at", (json_int_t)expires_at_ms, "candidates",
                  json_object_get(take_found, "data"), "rejected", json_object_get(take_found, "rejected"));
    static const char *const fields[] = {
        "offer", "network", "gpu", "gpu_raw", "gpus", "region", "price_per_gpu_hour_usd", "interruptible"};
    for (size_t i = 0; answer && i < sizeof(fields) / sizeof(fields[0]); i++) {
        json_t *value = json_object_get(best, fields[i]);
        json_object_set(answer, strcmp(fields[i], "gpus") != 0 ? fields[i] : "count", value ? value : json_null());
    }
    json_decref(take_found);
    enum error code = answer ? quote_store(post, answer, id, expires_at_ms) : ERR_NO_MEMORY;
    json_decref(post->object);
    post->object = answer;
    if (code)
        fail_post(post, code);
}

static void quote_create(struct post *post)
{
    struct reactor *reactor = post->call->reactor;
    struct lease_request request;
    struct api_error error;
    if (lease_body_parse(post->object, &request, &error))
        lease_candidates_json(reactor->gateway->control, reactor, &request, on_candidates, post);
    else
        post_fail(post, &error);
}

void route_quote(struct api_call *call)
{
    static const char *const known[] = {NULL};
    struct lease_request request;
    struct api_error error;
    if (!api_query_check(call, known) || !lease_has_payer(call))
        return;
    json_t *body = api_body(call);
    if (!body)
        return;
    if (lease_body_parse(body, &request, &error)) {
        post_begin(call, IDEMPOTENCY_DAY_MS, body, 0, quote_create);
        return;
    }
    api_reply_error(call, &error);
    json_decref(body);
}
