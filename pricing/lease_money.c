#include "pricing/lease_money.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"
#include "core/money.h"
#include "pricing/keys.h"
#include "pricing/settle_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(lease_money_lua, "pricing/lease_money.lua");
EMBED(lease_settle_lua, "pricing/settle.lua");
EMBED(lease_budget_lua, "pricing/budget.lua");
REDIS_SCRIPT(hold_script, lease_money_lua);
REDIS_SCRIPT(settle_script, lease_settle_lua);
REDIS_SCRIPT(budget_script, lease_budget_lua);

#define TRIES_MOST 16 /* of one charge: each means that somebody else charged meanwhile */
#define DURATION_MOST_MS (INT64_C(1) << 37)
#define CHARGES_MOST 99999999 /* of one lease: what fits a record's id beside the lease's */
#define NUMBER_TEXT 24

bool lease_cost(int64_t price_usd_nano, int32_t gpus, int64_t duration_ms, int64_t *ret_usd_nano)
{
    return gpus >= 1 && gpus <= LEASE_GPUS_MOST && duration_ms >= 0 && duration_ms <= DURATION_MOST_MS &&
           money_cost(price_usd_nano, duration_ms * gpus, ret_usd_nano);
}

bool lease_hold_want(int64_t price_usd_nano, int32_t gpus, int64_t unpaid_ms, int64_t slice_ms, int64_t *ret_usd_nano)
{
    if (unpaid_ms < 0 || unpaid_ms > DURATION_MOST_MS || slice_ms < 0 || slice_ms > DURATION_MOST_MS)
        return false;
    return lease_cost(price_usd_nano, gpus, unpaid_ms + slice_ms + slice_ms / 2, ret_usd_nano);
}

static bool put(char *to, size_t size, const char *text)
{
    return text[0] && str_copy(to, size, str_of(text));
}

/* The column may be shorter than a name: it is cut there, the account has all of it. */
static void put_cut(char *to, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);
    memcpy(to, text, len);
    to[len] = '\0';
}

static int64_t period_of(const struct lease_budget *budget, int64_t at_ms)
{
    return !strcmp(budget->period, "day") ? clock_day_start(at_ms) : clock_month_start(at_ms);
}

static bool budget_is_good(const struct lease_budget *budget)
{
    return budget->limit_usd_nano == 0 || (budget->limit_usd_nano > 0 && money_id_is_good(str_of(budget->key)) &&
                                           (!strcmp(budget->period, "day") || !strcmp(budget->period, "month")));
}

bool lease_record(const struct lease_bill *bill, int64_t from_ms, int64_t n, struct usage_record *ret)
{
    struct usage_record record = {
        .price_usd_nano = bill->price_usd_nano, .take_rate_bps = bill->take_rate_bps, .outcome = USAGE_LEASED};
    int64_t before, after;

    if (from_ms < 0 || from_ms >= bill->until_ms || n < 0 || n > CHARGES_MOST || bill->active_at_ms < 0 ||
        bill->active_at_ms > INT64_MAX / 2 || bill->take_rate_bps < 0 || bill->take_rate_bps > 10000 || bill->run < 0 ||
        bill->run >= LEASE_RUNS_MOST || !money_id_is_good(str_of(bill->tenant)) ||
        !money_id_is_good(str_of(bill->lease)) || strlen(bill->lease) + 10 > sizeof(record.id) ||
        !budget_is_good(&bill->budget))
        return false;
    if (!lease_cost(bill->price_usd_nano, bill->gpus, from_ms, &before) ||
        !lease_cost(bill->price_usd_nano, bill->gpus, bill->until_ms, &after) ||
        !put(record.tenant, sizeof(record.tenant), bill->tenant) ||
        !put(record.worker, sizeof(record.worker), bill->lease) ||
        !put(record.supplier, sizeof(record.supplier), bill->network))
        return false;
    snprintf(record.id, sizeof(record.id), "%.*s:%" PRId64, (int)sizeof(record.id) - 10, bill->lease, n);
    put_cut(record.key, sizeof(record.key), bill->budget.key);
    put_cut(record.network, sizeof(record.network), bill->network);
    put_cut(record.gpu, sizeof(record.gpu), bill->gpu);
    put_cut(record.model, sizeof(record.model), LEASE_MODEL);
    record.at_ms = bill->active_at_ms + bill->until_ms;
    record.gpu_ms = (bill->until_ms - from_ms) * bill->gpus;
    record.cost_usd_nano = after - before;
    if (bill->budget.limit_usd_nano > 0)
        record.budget_period_ms = period_of(&bill->budget, record.at_ms);
    if (!settle_record_is_good(&record))
        return false;
    *ret = record;
    return true;
}

/* A question: of a hold or a release, first of the budget and then of the balance. */
struct hold_ask {
    struct redis *redis;
    struct purse balance;
    char lease[ID_TEXT_MAX];
    bool is_release;
    int64_t want_usd_nano;
    struct lease_budget budget;
    bool was_budget_asked;
    lease_money_fn *done;
    void *ctx;
};

static struct str number(int64_t value, char ret[static NUMBER_TEXT])
{
    return (struct str){ret, (size_t)snprintf(ret, NUMBER_TEXT, "%" PRId64, value)};
}

static enum error hold_ask_purse(struct hold_ask *ask, const struct purse *purse);

static void hold_ask_end(struct hold_ask *ask, enum error error)
{
    lease_money_fn *done = ask->done;
    void *ctx = ask->ctx;

    free(ask);
    done(ctx, error);
}

static enum error verdict_of(const redisReply *reply, enum error error)
{
    struct str text;

    if (error)
        return error;
    if (reply->type != REDIS_REPLY_STRING) {
        log_warn(NULL, "redis: lease_money.lua: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a text");
        return ERR_CLOSED;
    }
    text = (struct str){reply->str, reply->len};
    return str_eq(text, STR("poor")) ? ERR_NO_FUNDS : str_eq(text, STR("closed")) ? ERR_DENIED : ERR_NONE;
}

static void hold_answered(void *ctx, const redisReply *reply, enum error error)
{
    struct hold_ask *ask = ctx;
    bool was_budget = ask->budget.limit_usd_nano > 0 && !ask->was_budget_asked;

    error = verdict_of(reply, error);
    if (!error && was_budget) {
        ask->was_budget_asked = true;
        error = hold_ask_purse(ask, &ask->balance);
        if (!error)
            return;
    }
    hold_ask_end(ask, error);
}

static enum error hold_ask_purse(struct hold_ask *ask, const struct purse *purse)
{
    char keys[5][MONEY_KEY_MAX], state[ID_TEXT_MAX + 8], want[NUMBER_TEXT], limit[NUMBER_TEXT], keep_s[NUMBER_TEXT];
    const char *suffixes[] = {"acct", "hold", state, "ledger", "chain"};
    size_t key_count = purse->is_balance ? 5 : 3, count = 0;
    struct str args[5 + 5];

    snprintf(state, sizeof(state), "lse:%s", ask->lease);
    for (; count < key_count; count++)
        args[count] = purse_key(purse, suffixes[count], keys[count]);
    args[count++] = ask->is_release ? STR("release") : STR("hold");
    args[count++] = str_of(ask->lease);
    if (!ask->is_release) {
        args[count++] = number(ask->want_usd_nano, want);
        args[count++] = purse->is_balance ? STR("") : number(ask->budget.limit_usd_nano, limit);
    }
    args[count++] = number(DEDUP_S + (purse->is_balance ? 0 : 31 * 86400), keep_s);
    return redis_run(ask->redis, &hold_script, hold_answered, ask, key_count, count - key_count, args);
}

static enum error hold_ask_start(struct redis *redis, const char *tenant, const char *lease,
                                 const struct lease_budget *budget, const struct hold_ask *what)
{
    struct hold_ask *ask;
    struct purse purse;
    enum error error;

    if (!money_id_is_good(str_of(lease)) || strlen(lease) >= ID_TEXT_MAX || !purse_of_tenant(str_of(tenant), &purse) ||
        what->want_usd_nano < 0 || (budget && !budget_is_good(budget)))
        return ERR_BAD_INPUT;
    ask = malloc(sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    *ask = *what;
    ask->redis = redis;
    ask->balance = purse;
    (void)!str_copy(ask->lease, sizeof(ask->lease), str_of(lease));
    if (budget)
        ask->budget = *budget;
    if (ask->budget.limit_usd_nano > 0 &&
        !purse_of_budget(str_of(budget->key), period_of(budget, clock_wall_ms()), &purse))
        error = ERR_BAD_INPUT;
    else
        error = hold_ask_purse(ask, &purse);
    if (error)
        free(ask);
    return error;
}

enum error lease_hold(struct redis *redis, const char *tenant, const char *lease, int64_t want_usd_nano,
                      const struct lease_budget *budget, lease_money_fn *done, void *ctx)
{
    return hold_ask_start(redis, tenant, lease, budget,
                          &(struct hold_ask){.want_usd_nano = want_usd_nano, .done = done, .ctx = ctx});
}

enum error lease_release(struct redis *redis, const char *tenant, const char *lease, const struct lease_budget *budget,
                         lease_money_fn *done, void *ctx)
{
    return hold_ask_start(redis, tenant, lease, budget,
                          &(struct hold_ask){.is_release = true, .done = done, .ctx = ctx});
}

struct charge {
    struct redis *redis;
    struct lease_bill bill;
    struct usage_record record;
    int tries;
    lease_money_fn *done;
    void *ctx;
};

static enum error charge_try(struct charge *charge, int64_t from_ms, int64_t n);

static void charge_end(struct charge *charge, enum error error)
{
    lease_money_fn *done = charge->done;
    void *ctx = charge->ctx;

    free(charge);
    done(ctx, error);
}

/* A budget is a limit, not money: what a gateway that dies between the two scripts did not count in it, it lacks. */
static void budget_counted(void *ctx, const redisReply *reply, enum error error)
{
    if (!error && reply->type == REDIS_REPLY_ERROR)
        log_warn(NULL, "redis: counting a lease in a budget: %s", reply->str);
    charge_end(ctx, error);
}

static enum error charge_budget(struct charge *charge)
{
    struct settle_args *args = malloc(sizeof(*args));
    enum error error;

    if (!args)
        return ERR_NO_MEMORY;
    settle_args_begin_budget(args, &charge->record, charge->bill.lease);
    settle_args_add_budget(args, &charge->record);
    error = redis_run(charge->redis, &budget_script, budget_counted, charge, args->key_count,
                      args->count - args->key_count, args->args);
    free(args);
    return error;
}

static void charge_answered(void *ctx, const redisReply *reply, enum error error)
{
    struct charge *charge = ctx;

    if (!error && reply->type == REDIS_REPLY_INTEGER) {
        if (settle_counts_in_budget(&charge->record))
            error = charge_budget(charge);
        if (error || !settle_counts_in_budget(&charge->record))
            charge_end(charge, error);
        return;
    }
    if (!error && reply->type == REDIS_REPLY_STRING) { /* where the run's charges are */
        struct str text = {reply->str, reply->len}, n = str_next(&text, ' ');
        int64_t charge_n, charged_ms;
        if (!str_to_i64(n, &charge_n) || !str_to_i64(text, &charged_ms))
            error = ERR_PROTOCOL;
        else if (charged_ms >= charge->bill.until_ms)
            error = ERR_NONE;
        else if (++charge->tries >= TRIES_MOST)
            error = ERR_BUSY;
        else if ((error = charge_try(charge, charged_ms, charge_n)) == ERR_NONE)
            return;
    } else if (!error) {
        log_warn(NULL, "redis: charging a lease: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "odd answer");
        error = ERR_CLOSED;
    }
    charge_end(charge, error);
}

static enum error charge_try(struct charge *charge, int64_t from_ms, int64_t n)
{
    const struct lease_bill *bill = &charge->bill;
    struct settle_args *args;
    enum error error;

    if (!lease_record(bill, from_ms, n, &charge->record))
        return ERR_BAD_INPUT;
    args = malloc(sizeof(*args));
    if (!args)
        return ERR_NO_MEMORY;
    settle_args_lease(
        args, &charge->record,
        &(struct settle_slice){
            .lease = bill->lease, .n = n, .run = bill->run, .from_ms = from_ms, .until_ms = bill->until_ms});
    error = redis_run(charge->redis, &settle_script, charge_answered, charge, args->key_count,
                      args->count - args->key_count, args->args);
    free(args);
    return error;
}

static void nothing_charged(void *ctx, const redisReply *reply, enum error error)
{
    (void)reply;
    charge_end(ctx, error);
}

enum error lease_charge(struct redis *redis, const struct lease_bill *bill, lease_money_fn *done, void *ctx)
{
    struct charge *charge = malloc(sizeof(*charge));
    enum error error;

    if (!charge)
        return ERR_NO_MEMORY;
    *charge = (struct charge){.redis = redis, .bill = *bill, .done = done, .ctx = ctx};
    if (bill->until_ms == 0)
        error = redis_commandf(redis, nothing_charged, charge, "PING");
    else
        error = charge_try(charge, 0, 0); /* a first guess; the answer says what is so */
    if (error)
        free(charge);
    return error;
}
