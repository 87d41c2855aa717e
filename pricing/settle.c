#include "pricing/settle.h"

#include "core/clock.h"
#include "core/embed.h"
#include "core/log.h"
#include "pricing/keys.h"
#include "pricing/settle_args.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

EMBED(settle_lua, "pricing/settle.lua");
EMBED(budget_lua, "pricing/budget.lua");
REDIS_SCRIPT(settle_script, settle_lua);
REDIS_SCRIPT(budget_script, budget_lua);

#define LOOK_NS (20 * NS_PER_MS)
#define RETRY_LEAST_NS (50 * NS_PER_MS)
#define RETRY_MOST_NS NS_PER_S
/* Records settled together. The next window waits for the last answer to this one, so this many at least are settled
 * each time that a busy machine lets Redis run. */
#define WINDOW 2048
#define BATCHES_A_TURN 8 /* script calls made in one turn; bounds its work */
#define BUCKETS 512      /* power of two */
#define NONE UINT16_MAX

enum batch_kind { BATCH_MONEY, BATCH_BUDGET, BATCH_KINDS };

/* Records of the window that one script call settles: a list through settler.next_in. */
struct batch {
    struct settler *settler;
    uint16_t first, last, count;
    uint16_t next_in_bucket;
    enum batch_kind kind;
    bool is_settled;
};

struct settler {
    struct loop *loop;
    struct redis *redis;
    struct journal *journal;
    char gateway_id[MONEY_ID_MAX + 1];
    struct timer timer;
    struct task go, more;
    uint64_t released;                      /* records settled since opening */
    size_t window;                          /* the oldest records of the journal that are being settled; 0: none are */
    size_t batch_count, send_at, in_flight; /* batches before send_at were sent, or could not be */
    int64_t retry_ns;
    bool is_closed; /* settler_free was called; the last answer frees */
    struct settle_waiter *waiters;
    uint16_t buckets[BUCKETS];
    uint16_t next_in[BATCH_KINDS][WINDOW];
    struct batch batches[BATCH_KINDS * WINDOW];
    struct settle_args args;
};

void settle_wait_cancel(struct settle_waiter *waiter)
{
    if (!waiter->link)
        return;
    *waiter->link = waiter->next;
    if (waiter->next)
        waiter->next->link = waiter->link;
    waiter->next = NULL;
    waiter->link = NULL;
}

static void waiter_push(struct settle_waiter **list, struct settle_waiter *waiter)
{
    waiter->next = *list;
    waiter->link = list;
    if (*list)
        (*list)->link = &waiter->next;
    *list = waiter;
}

/* The settler may be freed by the last of these calls. */
static void waiters_answer(struct settler *settler)
{
    struct settle_waiter *ready = NULL, *waiter = settler->waiters;

    while (waiter) {
        struct settle_waiter *next = waiter->next;
        if (waiter->upto <= settler->released) {
            settle_wait_cancel(waiter);
            waiter_push(&ready, waiter);
        }
        waiter = next;
    }
    while (ready) {
        waiter = ready;
        settle_wait_cancel(waiter);
        waiter->on_settled(waiter);
    }
}

static const char *owner_of(const struct settler *settler, size_t i)
{
    const char *owner = journal_owner_at(settler->journal, i);
    return owner[0] ? owner : settler->gateway_id;
}

static bool same_batch(const struct settler *settler, enum batch_kind kind, size_t i, size_t j)
{
    const struct usage_record *a = journal_at(settler->journal, i), *b = journal_at(settler->journal, j);

    if (strcmp(owner_of(settler, i), owner_of(settler, j)))
        return false;
    if (kind == BATCH_BUDGET)
        return a->budget_period_ms == b->budget_period_ms && !strcmp(a->key, b->key);
    return clock_day_start(a->at_ms) == clock_day_start(b->at_ms) && !strcmp(a->tenant, b->tenant);
}

/* Puts record i into the open batch of its kind and group, or opens one. */
static void gather(struct settler *settler, enum batch_kind kind, size_t i)
{
    const struct usage_record *record = journal_at(settler->journal, i);
    const char *who = kind == BATCH_BUDGET ? record->key : record->tenant;
    uint16_t *bucket = &settler->buckets[str_hash(str_of(who), kind) % BUCKETS], at = *bucket;
    struct batch *batch;

    while (at != NONE && !(settler->batches[at].kind == kind && settler->batches[at].count < SETTLE_BATCH &&
                           same_batch(settler, kind, i, settler->batches[at].first)))
        at = settler->batches[at].next_in_bucket;
    settler->next_in[kind][i] = NONE;
    if (at != NONE) {
        batch = &settler->batches[at];
        settler->next_in[kind][batch->last] = (uint16_t)i;
        batch->last = (uint16_t)i;
        batch->count++;
        return;
    }
    at = (uint16_t)settler->batch_count++;
    settler->batches[at] = (struct batch){.settler = settler,
                                          .first = (uint16_t)i,
                                          .last = (uint16_t)i,
                                          .count = 1,
                                          .next_in_bucket = *bucket,
                                          .kind = kind};
    *bucket = at;
}

static void send_open(struct settler *settler);
static void send_more(struct settler *settler);

static void settler_look(struct settler *settler)
{
    size_t pending = journal_pending(settler->journal);

    if (settler->window || pending == 0)
        return;
    timer_clear(settler->loop, &settler->timer);
    settler->window = pending < WINDOW ? pending : WINDOW;
    settler->batch_count = 0;
    settler->retry_ns = 0;
    memset(settler->buckets, 0xff, sizeof(settler->buckets));
    for (size_t i = 0; i < settler->window; i++) {
        const struct usage_record *record = journal_at(settler->journal, i);
        if (!settle_record_is_good(record)) {
            log_error(NULL, "usage record %s cannot be settled and is dropped", record->id);
            continue;
        }
        gather(settler, BATCH_MONEY, i);
        if (settle_counts_in_budget(record))
            gather(settler, BATCH_BUDGET, i);
    }
    send_open(settler);
}

static void window_answered(struct settler *settler)
{
    bool is_settled = true;

    for (size_t i = 0; i < settler->batch_count; i++)
        is_settled &= settler->batches[i].is_settled;
    if (!is_settled) {
        settler->retry_ns = settler->retry_ns ? settler->retry_ns * 2 : RETRY_LEAST_NS;
        if (settler->retry_ns > RETRY_MOST_NS)
            settler->retry_ns = RETRY_MOST_NS;
        timer_set(settler->loop, &settler->timer, loop_now(settler->loop) + settler->retry_ns);
        return;
    }
    journal_release(settler->journal, settler->window);
    settler->released += settler->window;
    settler->window = 0;
    if (settler->waiters || journal_pending(settler->journal) >= SETTLE_BATCH)
        loop_defer(settler->loop, &settler->go);
    else if (journal_pending(settler->journal) > 0)
        timer_set(settler->loop, &settler->timer, loop_now(settler->loop) + LOOK_NS);
}

static void batch_done(void *ctx, const redisReply *reply, enum error error)
{
    struct batch *batch = ctx;
    struct settler *settler = batch->settler;

    settler->in_flight--;
    if (settler->is_closed) {
        if (settler->in_flight == 0)
            free(settler);
        return;
    }
    batch->is_settled = !error && reply->type == REDIS_REPLY_INTEGER;
    if (!batch->is_settled && error != ERR_CANCELLED && settler->retry_ns < RETRY_MOST_NS)
        log_warn(NULL, "settling waits: %s", error ? error_text(error) : reply->str ? reply->str : "odd answer");
    if (settler->in_flight == 0 && settler->send_at == settler->batch_count)
        window_answered(settler);
}

static enum error batch_send(struct settler *settler, struct batch *batch)
{
    struct settle_args *args = &settler->args;
    const char *owner = owner_of(settler, batch->first);
    const struct usage_record *record = journal_at(settler->journal, batch->first);
    struct redis_script *script = batch->kind == BATCH_BUDGET ? &budget_script : &settle_script;

    if (batch->kind == BATCH_BUDGET)
        settle_args_begin_budget(args, record, owner);
    else
        settle_args_begin(args, record, owner);
    for (uint16_t i = batch->first; i != NONE; i = settler->next_in[batch->kind][i]) {
        record = journal_at(settler->journal, i);
        if (batch->kind == BATCH_BUDGET)
            settle_args_add_budget(args, record);
        else
            settle_args_add(args, record);
    }
    return redis_run(settler->redis, script, batch_done, batch, args->key_count, args->count - args->key_count,
                     args->args);
}

/* Sends what is not settled of the window: all of it, or after a failure what failed, under the same ids. */
static void send_open(struct settler *settler)
{
    settler->send_at = 0;
    send_more(settler);
}

static void send_more(struct settler *settler)
{
    for (int sent = 0; sent < BATCHES_A_TURN && settler->send_at < settler->batch_count;) {
        struct batch *batch = &settler->batches[settler->send_at++];
        if (batch->is_settled)
            continue;
        sent++;
        settler->in_flight += batch_send(settler, batch) == ERR_NONE;
    }
    if (settler->send_at < settler->batch_count)
        loop_defer(settler->loop, &settler->more);
    else if (settler->in_flight == 0)
        window_answered(settler); /* Redis' queue is full, or no record was good */
}

static void settler_more(struct task *task)
{
    send_more(container_of(task, struct settler, more));
}

static void settler_on_due(struct timer *timer)
{
    struct settler *settler = container_of(timer, struct settler, timer);

    if (settler->window)
        send_open(settler);
    else
        settler_look(settler);
}

static void settler_go(struct task *task)
{
    struct settler *settler = container_of(task, struct settler, go);

    settler_look(settler);
    waiters_answer(settler);
}

enum error settler_open(struct loop *loop, struct redis *redis, struct journal *journal, const char *gateway_id,
                        struct settler **ret)
{
    struct settler *settler;

    if (!money_id_is_good(str_of(gateway_id)) || strlen(gateway_id) >= ID_TEXT_MAX)
        return ERR_BAD_INPUT;
    settler = calloc(1, sizeof(*settler));
    if (!settler)
        return ERR_NO_MEMORY;
    settler->loop = loop;
    settler->redis = redis;
    settler->journal = journal;
    settler->timer.on_due = settler_on_due;
    settler->go.run = settler_go;
    settler->more.run = settler_more;
    (void)!str_copy(settler->gateway_id, sizeof(settler->gateway_id), str_of(gateway_id));
    journal_set_owner(journal, gateway_id);
    if (journal_pending(journal) > 0)
        loop_defer(loop, &settler->go);
    *ret = settler;
    return ERR_NONE;
}

struct settler *settler_free(struct settler *settler)
{
    if (!settler)
        return NULL;
    timer_clear(settler->loop, &settler->timer);
    loop_undefer(settler->loop, &settler->go);
    loop_undefer(settler->loop, &settler->more);
    while (settler->waiters)
        settle_wait_cancel(settler->waiters);
    settler->is_closed = true;
    if (settler->in_flight == 0)
        free(settler);
    return NULL;
}

void settler_kick(struct settler *settler)
{
    if (!settler->window && !timer_is_set(&settler->timer))
        timer_set(settler->loop, &settler->timer, loop_now(settler->loop) + LOOK_NS);
}

void settler_wait(struct settler *settler, struct settle_waiter *waiter)
{
    waiter->upto = settler->released + journal_pending(settler->journal);
    waiter_push(&settler->waiters, waiter);
    loop_defer(settler->loop, &settler->go); /* at the turn's end: one batch for all that end in this turn */
}
