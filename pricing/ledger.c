/* Credits and balances. ledger_list.c reads transfers, ledger_usage.c and ledger_invoice.c report. */
#include "pricing/ledger.h"

#include "core/crypto.h"
#include "core/embed.h"
#include "core/log.h"
#include "core/money.h"
#include "pricing/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(credit_lua, "pricing/credit.lua");
REDIS_SCRIPT(credit_script, credit_lua);

#define TRANSFER_ID_MAX 255
#define DEDUP_TEXT "3542400"

_Static_assert(DEDUP_S == 3542400, "DEDUP_TEXT");

/* One call under way; its answer is given once. */
struct ledger_ask {
    struct redis *redis;
    struct purse purse;
    char tenant[MONEY_ID_MAX + 1];
    char hash[SHA256_HEX];
    char content[MONEY_ID_MAX + 32]; /* what a credit's id stands for */
    char entry_id[TRANSFER_ID_MAX + 1];
    char amount[24];
    ledger_done_fn *done;
    void *ctx;
};

static void answer(struct ledger_ask *ask, enum error error, struct str json)
{
    ask->done(ask->ctx, error, error ? (struct str){NULL, 0} : json);
    free(ask);
}

/* An error reply says that Redis could not do it now (loading, read-only, out of memory): the caller asks again. */
static enum error reply_error(const redisReply *reply, enum error error)
{
    if (error)
        return error;
    if (reply->type != REDIS_REPLY_ERROR)
        return ERR_NONE;
    log_warn(NULL, "redis: ledger: %s", reply->str);
    return ERR_CLOSED;
}

static struct ledger_ask *ask_new(struct redis *redis, struct str tenant, ledger_done_fn *done, void *ctx)
{
    struct ledger_ask *ask = calloc(1, sizeof(*ask));

    if (!ask)
        return NULL;
    ask->redis = redis;
    ask->done = done;
    ask->ctx = ctx;
    if (!purse_of_tenant(tenant, &ask->purse) || !str_copy(ask->tenant, sizeof(ask->tenant), tenant)) {
        free(ask);
        return NULL;
    }
    return ask;
}

static int64_t number_of(const redisReply *reply)
{
    int64_t value = 0;
    if (reply->type == REDIS_REPLY_STRING)
        (void)!str_to_i64((struct str){reply->str, reply->len}, &value);
    return value;
}

static void credit_done(void *ctx, const redisReply *reply, enum error error)
{
    struct ledger_ask *ask = ctx;
    char json[192], amount[MONEY_TEXT_MAX];
    int len;

    error = reply_error(reply, error);
    if (!error &&
        (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1 || reply->element[0]->type != REDIS_REPLY_STRING))
        error = ERR_PROTOCOL;
    if (!error && !strcmp(reply->element[0]->str, "mismatch"))
        error = ERR_MISMATCH;
    else if (!error && !strcmp(reply->element[0]->str, "overflow"))
        error = ERR_OVERFLOW;
    else if (!error && reply->elements != 2)
        error = ERR_PROTOCOL;
    if (error) {
        answer(ask, error, (struct str){NULL, 0});
        return;
    }
    money_text(number_of(reply->element[1]), amount);
    len = snprintf(json, sizeof(json), "{\"tenant\":\"%s\",\"available_usd\":\"%s\"}", ask->tenant, amount);
    answer(ask, ERR_NONE, (struct str){json, (size_t)len});
}

static void credit_post(struct ledger_ask *ask)
{
    char keys[4][MONEY_KEY_MAX], memory[SHA256_HEX + 8];
    enum error error;

    snprintf(memory, sizeof(memory), "xfer:%s", ask->hash);
    struct str args[] = {purse_key(&ask->purse, "acct", keys[0]),
                         purse_key(&ask->purse, memory, keys[1]),
                         purse_key(&ask->purse, "ledger", keys[2]),
                         purse_key(&ask->purse, "chain", keys[3]),
                         str_of(ask->entry_id),
                         str_of(ask->amount),
                         STR(DEDUP_TEXT)};
    error = redis_run(ask->redis, &credit_script, credit_done, ask, 4, 3, args);
    if (error)
        answer(ask, error, (struct str){NULL, 0});
}

static void credit_listed(void *ctx, const redisReply *reply, enum error error)
{
    struct ledger_ask *ask = ctx;

    error = reply_error(reply, error);
    if (error)
        answer(ask, error, (struct str){NULL, 0});
    else
        credit_post(ask);
}

/* The id now stands for this tenant and amount: also against a repetition that names another tenant. */
static void credit_claimed(void *ctx, const redisReply *reply, enum error error)
{
    struct ledger_ask *ask = ctx;

    error = reply_error(reply, error);
    if (!error && reply->type == REDIS_REPLY_STRING &&
        !str_eq((struct str){reply->str, reply->len}, str_of(ask->content)))
        error = ERR_MISMATCH;
    if (!error)
        error = redis_commandf(ask->redis, credit_listed, ask, "ZADD %s 0 %s", LEDGERS, ask->tenant);
    if (error)
        answer(ask, error, (struct str){NULL, 0});
}

enum error ledger_credit(struct redis *redis, struct str tenant, int64_t amount_usd_nano, struct str transfer_id,
                         ledger_done_fn *done, void *ctx)
{
    struct ledger_ask *ask;
    enum error error;

    if (amount_usd_nano < 1 || transfer_id.len < 1 || transfer_id.len > TRANSFER_ID_MAX || !money_id_is_good(tenant))
        return ERR_BAD_INPUT;
    ask = ask_new(redis, tenant, done, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    crypto_sha256_hex(transfer_id, ask->hash);
    snprintf(ask->amount, sizeof(ask->amount), "%" PRId64, amount_usd_nano);
    snprintf(ask->content, sizeof(ask->content), "%s %s", ask->tenant, ask->amount);
    /* In the ledger the id is shown as it is when it is a plain one; any other by its hash. */
    if (money_id_is_good(transfer_id))
        (void)!str_copy(ask->entry_id, sizeof(ask->entry_id), transfer_id);
    else
        snprintf(ask->entry_id, sizeof(ask->entry_id), "xfer_%.32s", ask->hash);
    error = redis_commandf(redis, credit_claimed, ask, "SET sl:xfer:%s %s NX GET EX %s", ask->hash, ask->content,
                           DEDUP_TEXT);
    if (error)
        free(ask);
    return error;
}

static void balance_done(void *ctx, const redisReply *reply, enum error error)
{
    struct ledger_ask *ask = ctx;
    char json[128], available[MONEY_TEXT_MAX], held[MONEY_TEXT_MAX];
    int len;

    error = reply_error(reply, error);
    if (!error && (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2))
        error = ERR_PROTOCOL;
    if (error) {
        answer(ask, error, (struct str){NULL, 0});
        return;
    }
    money_text(number_of(reply->element[0]), available);
    money_text(number_of(reply->element[1]), held);
    len = snprintf(json, sizeof(json), "{\"available_usd\":\"%s\",\"held_usd\":\"%s\"}", available, held);
    answer(ask, ERR_NONE, (struct str){json, (size_t)len});
}

enum error ledger_balance(struct redis *redis, struct str tenant, ledger_done_fn *done, void *ctx)
{
    struct ledger_ask *ask;
    char key[MONEY_KEY_MAX];
    enum error error;

    if (!money_id_is_good(tenant))
        return ERR_BAD_INPUT;
    ask = ask_new(redis, tenant, done, ctx);
    if (!ask)
        return ERR_NO_MEMORY;
    purse_key(&ask->purse, "acct", key);
    error = redis_commandf(redis, balance_done, ask, "HMGET %s avail held", key);
    if (error)
        free(ask);
    return error;
}
