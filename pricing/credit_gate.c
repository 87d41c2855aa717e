#include "pricing/credit.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"
#include "pricing/credit_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EMBED(hold_lua, "pricing/hold.lua");
EMBED(registry_lua, "pricing/registry.lua");
REDIS_SCRIPT(hold_script, hold_lua);
REDIS_SCRIPT(registry_script, registry_lua);

#define GET(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define PUT(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
#define BUCKETS 64
#define DRY_NS (100 * NS_PER_MS)
#define IDLE_NS (10 * NS_PER_S)
#define RETRY_LEAST_NS (100 * NS_PER_MS)
#define RETRY_MOST_NS (2 * NS_PER_S)
#define LEAST_WANT (USD_NANO / 1000)
#define NUMBER_TEXT 24

enum op_kind { OP_TAKE, OP_KEEP };

/* A question to Redis, asked again under the same id until it is answered: only then is it known whether it was done.
 */
struct op {
    struct credit_gate *gate; /* NULL: the gate was freed meanwhile */
    struct credit *credit;
    enum op_kind kind;
    char id[ID_TEXT_MAX];
    struct purse purse;
    int64_t amount, least; /* keep: amount goes back */
    int64_t period_ms, sent_ns, retry_ns;
    uint64_t grants_seen;
    bool others_were_asking, is_renewal;
    struct credit_waiter *waiters;
    struct timer retry;
    struct op *next;
};

struct credit_gate {
    struct loop *loop;
    struct redis *redis;
    char gateway_id[MONEY_ID_MAX + 1];
    struct op *ops[BUCKETS];
    size_t op_count;
    struct credit_waiter *said_yes, *said_no, *said_busy; /* answers for the coming turn */
    struct task answer;
};

static void op_send(struct op *op);

static void waiter_push(struct credit_waiter **list, struct credit_waiter *waiter)
{
    waiter->next = *list;
    waiter->link = list;
    if (*list)
        (*list)->link = &waiter->next;
    *list = waiter;
}

void credit_wait_cancel(struct credit_waiter *waiter)
{
    if (!waiter->link)
        return;
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->next = NULL;
    waiter->link = NULL;
}

/* Callbacks may wait anew or cancel others: the list is moved aside first, and each leaves it before its call. */
static void waiters_answer(struct credit_waiter **list, bool has_funds, enum error error)
{
    struct credit_waiter *aside = *list;

    *list = NULL;
    if (aside)
        aside->link = &aside;
    while (aside) {
        struct credit_waiter *waiter = aside;
        credit_wait_cancel(waiter);
        waiter->on_answer(waiter, has_funds, error);
    }
}

static void gate_answer(struct task *task)
{
    struct credit_gate *gate = container_of(task, struct credit_gate, answer);

    waiters_answer(&gate->said_yes, true, ERR_NONE);
    waiters_answer(&gate->said_no, false, ERR_NONE);
    waiters_answer(&gate->said_busy, false, ERR_BUSY);
}

enum error credit_gate_open(struct loop *loop, struct redis *redis, const char *gateway_id, struct credit_gate **ret)
{
    struct credit_gate *gate;

    if (!money_id_is_good(str_of(gateway_id)))
        return ERR_BAD_INPUT;
    gate = calloc(1, sizeof(*gate));
    if (!gate)
        return ERR_NO_MEMORY;
    gate->loop = loop;
    gate->redis = redis;
    gate->answer.run = gate_answer;
    (void)!str_copy(gate->gateway_id, sizeof(gate->gateway_id), str_of(gateway_id));
    *ret = gate;
    return ERR_NONE;
}

static void op_free(struct op *op)
{
    if (op->kind == OP_TAKE)
        atomic_fetch_sub_explicit(&op->credit->takes_open, 1, memory_order_relaxed);
    if (op->is_renewal)
        PUT(op->credit->renewing, false);
    credit_unref(op->credit);
    free(op);
}

struct credit_gate *credit_gate_free(struct credit_gate *gate)
{
    if (!gate)
        return NULL;
    loop_undefer(gate->loop, &gate->answer);
    for (size_t i = 0; i < BUCKETS; i++) {
        struct op *op = gate->ops[i], *next;
        for (; op; op = next) {
            next = op->next;
            waiters_answer(&op->waiters, false, ERR_CANCELLED);
            op->gate = NULL;
            if (timer_is_set(&op->retry)) { /* else its answer is under way, and frees it */
                timer_clear(gate->loop, &op->retry);
                op_free(op);
            }
        }
    }
    waiters_answer(&gate->said_yes, false, ERR_CANCELLED);
    waiters_answer(&gate->said_no, false, ERR_CANCELLED);
    waiters_answer(&gate->said_busy, false, ERR_CANCELLED);
    free(gate);
    return NULL;
}

bool credit_gate_is_idle(const struct credit_gate *gate)
{
    return gate->op_count == 0;
}

static struct op **bucket_of(struct credit_gate *gate, const struct credit *credit)
{
    return &gate->ops[((uintptr_t)credit >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}

static struct op *op_find(struct credit_gate *gate, const struct credit *credit, enum op_kind kind)
{
    struct op *op = *bucket_of(gate, credit);
    while (op && (op->credit != credit || op->kind != kind))
        op = op->next;
    return op;
}

/* The period that counts now; false if the purse cannot be named (never for a credit that credit_new accepted). */
static struct op *op_new(struct credit_gate *gate, struct credit *credit, enum op_kind kind)
{
    struct op *op = calloc(1, sizeof(*op)), **bucket = bucket_of(gate, credit);
    bool is_named;

    if (!op)
        return NULL;
    op->gate = gate;
    op->credit = credit_ref(credit);
    op->kind = kind;
    op->period_ms = credit_period_start(credit, credit->wall_ms());
    is_named = credit->kind == CREDIT_BALANCE ? purse_of_tenant(str_of(credit->id), &op->purse)
                                              : purse_of_budget(str_of(credit->id), op->period_ms, &op->purse);
    assert(is_named);
    (void)is_named;
    id_new("hld_", op->id);
    op->grants_seen = atomic_load_explicit(&credit->grants, memory_order_acquire);
    op->others_were_asking = GET(credit->takes_open) > 0;
    if (kind == OP_TAKE)
        atomic_fetch_add_explicit(&credit->takes_open, 1, memory_order_relaxed);
    op->next = *bucket;
    *bucket = op;
    gate->op_count++;
    return op;
}

static void op_end(struct op *op)
{
    if (op->gate) {
        struct op **at = bucket_of(op->gate, op->credit);
        while (*at != op)
            at = &(*at)->next;
        *at = op->next;
        op->gate->op_count--;
    }
    op_free(op);
}

/* "<granted> <dry>" */
static bool parse_grant(struct str text, int64_t *ret_granted, bool *ret_is_dry)
{
    struct str amount = str_next(&text, ' ');
    if (!amount.ptr || !text.ptr || !str_to_i64(amount, ret_granted) || *ret_granted < 0)
        return false;
    *ret_is_dry = str_eq(text, STR("1"));
    return true;
}

static bool op_take_answer(struct op *op, struct str text)
{
    struct credit *credit = op->credit;
    struct credit_waiter *waiters = NULL;
    int64_t granted;
    bool is_dry;

    if (!parse_grant(text, &granted, &is_dry))
        return false;
    if (granted)
        credit_grant(credit, granted, op->sent_ns, op->period_ms);
    PUT(credit->granted_last, granted);
    if (is_dry)
        PUT(credit->dry_until_ns, credit->mono_ns() + DRY_NS);
    /* The op ends first: a waiter that finds the slice gone again asks a new question. */
    waiters = op->waiters;
    if (waiters)
        waiters->link = &waiters;
    op->waiters = NULL;
    op_end(op);
    waiters_answer(&waiters, credit_left(credit) > 0, ERR_NONE);
    return true;
}

static bool op_keep_answer(struct op *op, struct str text)
{
    struct credit *credit = op->credit;
    int64_t left = atomic_load_explicit(&credit->left, memory_order_acquire); /* before looking at the grants */

    if (str_eq(text, STR("kept")))
        credit_extend(credit, op->sent_ns);
    else if (!str_eq(text, STR("gone")))
        return false;
    else if (!op->others_were_asking && GET(credit->takes_open) == 0 &&
             atomic_load_explicit(&credit->grants, memory_order_acquire) == op->grants_seen) {
        credit_lapse(credit, left); /* no slice came meanwhile that "gone" does not speak of */
        PUT(credit->gone_grants, op->grants_seen);
    }
    op_end(op);
    return true;
}

static void op_retry(struct timer *timer)
{
    op_send(container_of(timer, struct op, retry));
}

static void op_failed(struct op *op, enum error error)
{
    waiters_answer(&op->waiters, false, error);
    op->retry_ns = op->retry_ns ? op->retry_ns * 2 : RETRY_LEAST_NS;
    if (op->retry_ns > RETRY_MOST_NS)
        op->retry_ns = RETRY_MOST_NS;
    timer_set(op->gate->loop, &op->retry, loop_now(op->gate->loop) + op->retry_ns);
}

/* A completion may not fire inside the call that asks: the waiters hear of it in the coming turn. */
static void op_not_sent(struct op *op, enum error error)
{
    while (op->waiters) {
        struct credit_waiter *waiter = op->waiters;
        credit_wait_cancel(waiter);
        waiter_push(&op->gate->said_busy, waiter);
        loop_defer(op->gate->loop, &op->gate->answer);
    }
    op_failed(op, error);
}

static void op_done(void *ctx, const redisReply *reply, enum error error)
{
    struct op *op = ctx;
    struct credit *credit;

    if (!op->gate) {
        op_free(op);
        return;
    }
    if (error == ERR_CANCELLED) { /* Redis is being closed: nobody will ask again */
        waiters_answer(&op->waiters, false, error);
        op_end(op);
        return;
    }
    credit = credit_ref(op->credit);
    if (error) {
        op_failed(op, error);
    } else if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS) {
        log_warn(NULL, "redis: hold.lua: %s", reply->type == REDIS_REPLY_ERROR ? reply->str : "not a text");
        op_failed(op, ERR_UNREACHABLE);
    } else {
        struct str text = {reply->str, reply->len};
        if (!(op->kind == OP_TAKE ? op_take_answer(op, text) : op_keep_answer(op, text)))
            op_failed(op, ERR_PROTOCOL);
    }
    credit_unref(credit);
}

static struct str number(int64_t value, char ret[static NUMBER_TEXT])
{
    int len = snprintf(ret, NUMBER_TEXT, "%" PRId64, value);
    return (struct str){ret, (size_t)len};
}

static void op_ask(struct op *op);

static void op_noted(void *ctx, const redisReply *reply, enum error error)
{
    struct op *op = ctx;

    if (!error && reply->type == REDIS_REPLY_INTEGER && op->gate)
        op_ask(op);
    else
        op_done(op, reply, error);
}

/* The purse is noted before anything is held of it: the sweep then finds the hold, whenever we may die. */
static void op_send(struct op *op)
{
    char life[NUMBER_TEXT];
    struct str args[] = {STR(HOLDS_DUE), STR(HOLDS_GEN), STR("note"), str_of(op->purse.name),
                         number(HOLD_LIFE_MS, life)};
    enum error error = redis_run(op->gate->redis, &registry_script, op_noted, op, 2, 3, args);
    if (error)
        op_not_sent(op, error);
}

static void op_ask(struct op *op)
{
    static const char *const suffixes[] = {"acct", "hold", "due", NULL, "ledger", "chain"};
    struct credit_gate *gate = op->gate;
    struct credit *credit = op->credit;
    char keys[6][MONEY_KEY_MAX], op_suffix[ID_TEXT_MAX + 4], life[NUMBER_TEXT], amount[NUMBER_TEXT], least[NUMBER_TEXT],
        limit[NUMBER_TEXT], keep_s[NUMBER_TEXT];
    size_t key_count = op->purse.is_balance ? 6 : 4, count = 0;
    struct str args[6 + 8];
    enum error error;

    snprintf(op_suffix, sizeof(op_suffix), "op:%s", op->id);
    for (; count < key_count; count++)
        args[count] = purse_key(&op->purse, suffixes[count] ? suffixes[count] : op_suffix, keys[count]);
    args[count++] = op->kind == OP_TAKE ? STR("take") : STR("keep");
    args[count++] = str_of(op->id);
    args[count++] = str_of(gate->gateway_id);
    args[count++] = number(HOLD_LIFE_MS, life);
    args[count++] = number(op->amount, amount);
    if (op->kind == OP_TAKE) {
        args[count++] = number(op->least, least);
        args[count++] = credit->kind == CREDIT_BUDGET ? number(credit->limit_usd_nano, limit) : STR("");
        args[count++] = number(DEDUP_S + (credit->is_daily ? 1 : 31) * 86400, keep_s);
    }
    op->sent_ns = credit->mono_ns();
    error = redis_run(gate->redis, &hold_script, op_done, op, key_count, count - key_count, args);
    if (error)
        op_not_sent(op, error);
}

static struct op *ask_for_slice(struct credit_gate *gate, struct credit *credit, bool is_renewal)
{
    struct op *op = op_new(gate, credit, OP_TAKE);

    if (!op)
        return NULL;
    op->is_renewal = is_renewal;
    op->retry.on_due = op_retry;
    op->least = GET(credit->largest_want) > LEAST_WANT ? GET(credit->largest_want) : LEAST_WANT;
    op->amount = credit_next_slice(credit);
    if (op->least > op->amount)
        op->least = op->amount;
    return op;
}

void credit_wait(struct credit_gate *gate, struct credit *credit, struct credit_waiter *waiter)
{
    struct op *op = op_find(gate, credit, OP_TAKE);

    if (op) {
        waiter_push(&op->waiters, waiter);
        return;
    }
    if (credit_left(credit) > 0) {
        waiter_push(&gate->said_yes, waiter);
    } else if (credit->mono_ns() < GET(credit->dry_until_ns)) {
        waiter_push(&gate->said_no, waiter);
    } else {
        op = ask_for_slice(gate, credit, false);
        if (op) {
            waiter_push(&op->waiters, waiter);
            op_send(op);
            return;
        }
        waiter_push(&gate->said_busy, waiter);
    }
    loop_defer(gate->loop, &gate->answer);
}

void credit_renew_if_low(struct credit_gate *gate, struct credit *credit)
{
    bool idle = false;
    struct op *op;

    if (GET(credit->left) >= GET(credit->granted_last) / 2 || GET(credit->renewing) ||
        credit->mono_ns() < GET(credit->dry_until_ns) || op_find(gate, credit, OP_TAKE))
        return;
    if (!atomic_compare_exchange_strong(&credit->renewing, &idle, true))
        return;
    op = ask_for_slice(gate, credit, true);
    if (op)
        op_send(op);
    else
        PUT(credit->renewing, false);
}

/* Takes what nobody uses off the local amount before Redis hears of it, so that it cannot be spent twice. */
static int64_t remove_left(struct credit *credit, int64_t leave)
{
    int64_t left = GET(credit->left);

    do {
        if (left <= leave)
            return 0;
    } while (!atomic_compare_exchange_weak(&credit->left, &left, leave));
    return left - leave;
}

static void keep(struct credit_gate *gate, struct credit *credit, bool give_all)
{
    struct op *op;
    int64_t now = credit->mono_ns();

    if (GET(credit->grants) == GET(credit->gone_grants) || op_find(gate, credit, OP_KEEP))
        return; /* nothing is held: an idle tenant costs Redis nothing */
    if (credit->kind == CREDIT_BUDGET && credit->wall_ms() >= GET(credit->period_end_ms))
        return; /* the sweep returns what the last period's hold still has */
    op = op_new(gate, credit, OP_KEEP);
    if (!op)
        return;
    op->retry.on_due = op_retry;
    if (credit_is_valid(credit, now)) {
        if (give_all || now - GET(credit->last_take_ns) > IDLE_NS)
            op->amount = remove_left(credit, 0);
        else
            op->amount = remove_left(credit, 2 * GET(credit->slice));
    }
    op_send(op);
}

void credit_keep_alive(struct credit_gate *gate, struct credit *credit)
{
    keep(gate, credit, false);
}

void credit_give_back(struct credit_gate *gate, struct credit *credit)
{
    keep(gate, credit, true);
}
