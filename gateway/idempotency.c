#include "gateway/idempotency.h"

#include "core/embed.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(idempotency_claim_lua, "gateway/idempotency_claim.lua");
REDIS_SCRIPT(claim_script, idempotency_claim_lua);
EMBED(idempotency_complete_lua, "gateway/idempotency_complete.lua");
REDIS_SCRIPT(complete_script, idempotency_complete_lua);
EMBED(idempotency_release_lua, "gateway/idempotency_release.lua");
REDIS_SCRIPT(release_script, idempotency_release_lua);

struct ask {
    idempotency_claimed_fn *on_claimed;
    idempotency_done_fn *on_done;
    void *ctx;
};

bool idempotency_make(struct str caller, struct str method, struct str path, struct str key, struct str body,
                      int64_t keep_ms, struct idempotency *ret)
{
    if (key.len == 0 || key.len > IDEMPOTENCY_KEY_MAX)
        return false;
    /* Lengths keep the parts apart, so that no caller can name another's record. */
    struct str parts[] = {caller, method, path, key};
    struct buf text;
    buf_init(&text, 0);
    bool fits = true;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        fits = fits && buf_printf(&text, "%zu:", parts[i].len) && buf_append_str(&text, parts[i]);
    if (fits) {
        char digest[SHA256_HEX];
        crypto_sha256_hex(buf_str(&text), digest);
        snprintf(ret->record, sizeof(ret->record), "sl:idem:{%s}", digest);
        crypto_sha256_hex(body, ret->body_sha256);
        ret->keep_ms = keep_ms;
    }
    buf_free(&text);
    return fits;
}

static struct str text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, (size_t)reply->len} : (struct str){NULL, 0};
}

static enum error read_claim(const redisReply *reply, struct id *ret_seed, int *ret_status, struct str *ret_answer)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1)
        return ERR_PROTOCOL;
    struct str what = text_of(reply->element[0]);
    if (str_eq(what, STR("mismatch")))
        return ERR_MISMATCH;
    if (reply->elements < 2 || !id_parse("", text_of(reply->element[1]), ret_seed))
        return ERR_PROTOCOL;
    *ret_status = 0;
    *ret_answer = (struct str){NULL, 0};
    if (str_eq(what, STR("open")))
        return ERR_NONE;
    int64_t status;
    if (reply->elements < 4 || !str_to_i64(text_of(reply->element[2]), &status) || status < 200 || status > 599)
        return ERR_PROTOCOL;
    *ret_status = (int)status;
    *ret_answer = text_of(reply->element[3]);
    return ERR_NONE;
}

static void on_claim(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct id seed;
    int status = 0;
    struct str answer = {NULL, 0};
    if (!error)
        error = read_claim(reply, &seed, &status, &answer);
    ask->on_claimed(ask->ctx, error, error ? NULL : &seed, error ? 0 : status, answer);
    free(ask);
}

enum error idempotency_claim(struct redis *redis, const struct idempotency *what, idempotency_claimed_fn *done,
                             void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){.on_claimed = done, .ctx = ctx};
    char seed[ID_TEXT_MAX], keep[24];
    id_new("", seed);
    snprintf(keep, sizeof(keep), "%" PRId64, what->keep_ms);
    struct str args[] = {str_of(what->record), str_of(what->body_sha256), str_of(seed), str_of(keep)};
    enum error error = redis_run(redis, &claim_script, on_claim, ask, 1, 3, args);
    if (error)
        free(ask);
    return error;
}

static void on_written(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    ask->on_done(ask->ctx, error);
    free(ask);
}

enum error idempotency_complete(struct redis *redis, const struct idempotency *what, const struct id *seed, int status,
                                struct str answer, idempotency_done_fn *done, void *ctx)
{
    assert(status >= 200 && status <= 599);
    if (answer.len > IDEMPOTENCY_ANSWER_MAX)
        return ERR_TOO_LARGE;
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){.on_done = done, .ctx = ctx};
    char seed_text[ID_TEXT_MAX], status_text[12], keep[24];
    id_text("", seed, seed_text);
    snprintf(status_text, sizeof(status_text), "%d", status);
    snprintf(keep, sizeof(keep), "%" PRId64, what->keep_ms);
    struct str args[] = {
        str_of(what->record), str_of(what->body_sha256), str_of(seed_text), str_of(status_text), answer, str_of(keep)};
    enum error error = redis_run(redis, &complete_script, on_written, ask, 1, 5, args);
    if (error)
        free(ask);
    return error;
}

enum error idempotency_release(struct redis *redis, const struct idempotency *what, const struct id *seed,
                               idempotency_done_fn *done, void *ctx)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = (struct ask){.on_done = done, .ctx = ctx};
    char seed_text[ID_TEXT_MAX];
    id_text("", seed, seed_text);
    struct str args[] = {str_of(what->record), str_of(seed_text)};
    enum error error = redis_run(redis, &release_script, on_written, ask, 1, 1, args);
    if (error)
        free(ask);
    return error;
}
