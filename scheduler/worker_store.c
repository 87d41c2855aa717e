#include "scheduler/worker_store.h"
#include "core/crypto.h"
#include "core/embed.h"
#include "core/log.h"
#include "scheduler/proof_store.h"
#include "scheduler/worker_record.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_KEY "sl:workers"
#define FEED_KEY "sl:feed"
#define READS_AT_ONCE 64 /* of worker_store_all */
#define PAID_MAX_USD_NANO (INT64_MAX / (2 * WORKER_PAYERS))

EMBED(worker_put_lua, "scheduler/worker_put.lua");
REDIS_SCRIPT(put_script, worker_put_lua);
EMBED(worker_admit_lua, "scheduler/worker_admit.lua");
REDIS_SCRIPT(admit_script, worker_admit_lua);
EMBED(worker_remove_lua, "scheduler/worker_remove.lua");
REDIS_SCRIPT(remove_script, worker_remove_lua);
EMBED(worker_reputation_lua, "scheduler/worker_reputation.lua");
REDIS_SCRIPT(reputation_script, worker_reputation_lua);

#define KEY_MAX (ID_TEXT_MAX + 20)

/* One question under way. */
struct ask {
    struct redis *redis;
    char id[ID_TEXT_MAX];
    struct worker_record *record; /* of a put: a copy, until it is sent */
    worker_stored_fn *on_stored;
    worker_record_fn *on_record;
    void *ctx;
};

static void ask_free(struct ask *ask)
{
    free(ask->record);
    free(ask);
}

static enum error ask_new(struct redis *redis, struct str id, void *ctx, struct ask **ret)
{
    struct id parsed;
    if (!id_parse("wrk_", id, &parsed))
        return ERR_BAD_INPUT;
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    (void)str_copy(ask->id, sizeof(ask->id), id);
    ask->redis = redis;
    ask->ctx = ctx;
    *ret = ask;
    return ERR_NONE;
}

static enum error started(struct ask *ask, enum error error)
{
    if (error)
        ask_free(ask);
    return error;
}

static void stored(struct ask *ask, enum error error)
{
    ask->on_stored(ask->ctx, error);
    ask_free(ask);
}

static struct str worker_key(const char *id, char ret[static KEY_MAX])
{
    snprintf(ret, KEY_MAX, "sl:{wrk:%s}", id);
    return str_of(ret);
}

/* What a script said, or why it said nothing. */
static struct str verdict_of(const redisReply *reply, enum error *error)
{
    if (!*error && reply->type == REDIS_REPLY_ERROR)
        log_warn(NULL, "a script on workers failed: %s", reply->str);
    if (!*error && reply->type != REDIS_REPLY_STRING)
        *error = ERR_PROTOCOL;
    return *error ? (struct str){NULL, 0} : (struct str){reply->str, reply->len};
}

/* The change itself is stored: a gateway that misses this line sees it when it next reads all workers. */
static void tell(struct ask *ask)
{
    enum error error = feed_append(ask->redis, "worker", str_of(ask->id));
    if (error)
        log_warn(&(struct log_ctx){.worker = ask->id}, "cannot tell the feed of a change: %s", error_text(error));
}

enum error feed_append(struct redis *redis, const char *kind, struct str id)
{
    const struct str args[] = {STR("XADD"), STR(FEED_KEY), STR("MAXLEN"), STR("~"),  STR("10000"),
                               STR("*"),    STR("kind"),   str_of(kind),  STR("id"), id};
    return redis_command(redis, NULL, NULL, sizeof(args) / sizeof(args[0]), args);
}

/* -- put: into the index, then the hash, then the feed; an index entry without a hash is nobody -- */

static void on_put(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct str verdict = verdict_of(reply, &error);
    if (!error && str_eq(verdict, STR("secret")))
        error = ERR_MISMATCH;
    if (!error && str_eq(verdict, STR("missing")))
        error = ERR_NOT_FOUND;
    if (!error && !str_eq(verdict, STR("same")))
        tell(ask);
    stored(ask, error);
}

static enum error put_hash(struct ask *ask, const struct worker_record *record, bool may_be_new)
{
    struct record_words words = {.count = 0};
    char key[KEY_MAX], declared[8];
    words.words[0] = worker_key(ask->id, key);
    words.words[1] = str_of(record->secret_sha256);
    words.count = 3;
    record_put_declared(&words, record);
    snprintf(declared, sizeof(declared), "%zu", words.count - 3);
    words.words[2] = str_of(declared);
    if (may_be_new)
        record_put_initial(&words, record);
    return redis_run(ask->redis, &put_script, on_put, ask, 1, words.count - 1, words.words);
}

static void on_indexed(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    if (!error)
        error = put_hash(ask, ask->record, true);
    if (error)
        stored(ask, error);
}

enum error worker_store_redeclare(struct redis *redis, const struct worker_record *record, worker_stored_fn *done,
                                  void *ctx)
{
    struct ask *ask = NULL;
    if (!worker_record_is_valid(record))
        return ERR_BAD_INPUT;
    enum error error = ask_new(redis, str_of(record->id), ctx, &ask);
    if (error)
        return error;
    ask->on_stored = done;
    return started(ask, put_hash(ask, record, false));
}

enum error worker_store_put(struct redis *redis, const struct worker_record *record, worker_stored_fn *done, void *ctx)
{
    struct ask *ask = NULL;
    if (!worker_record_is_valid(record))
        return ERR_BAD_INPUT;
    enum error error = ask_new(redis, str_of(record->id), ctx, &ask);
    if (error)
        return error;
    ask->on_stored = done;
    ask->record = malloc(sizeof(*record));
    if (!ask->record)
        return started(ask, ERR_NO_MEMORY);
    *ask->record = *record;
    const struct str args[] = {STR("SADD"), STR(INDEX_KEY), str_of(ask->id)};
    return started(ask, redis_command(redis, on_indexed, ask, 3, args));
}

/* -- remove: the hash, then out of the index, then the feed; an index entry without a hash is nobody -- */

static void on_unlisted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    if (!error)
        tell(ask);
    stored(ask, error);
}

static void on_removed(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    if (!error && reply->type != REDIS_REPLY_INTEGER)
        error = ERR_PROTOCOL;
    if (!error) {
        const struct str args[] = {STR("SREM"), STR(INDEX_KEY), str_of(ask->id)};
        error = redis_command(ask->redis, on_unlisted, ask, 3, args);
    }
    if (error)
        stored(ask, error);
}

enum error worker_store_remove(struct redis *redis, struct str id, worker_stored_fn *done, void *ctx)
{
    struct ask *ask = NULL;
    char key[KEY_MAX], list[KEY_MAX], keep[24];
    enum error error = ask_new(redis, id, ctx, &ask);
    if (error)
        return error;
    ask->on_stored = done;
    snprintf(list, sizeof(list), "sl:{wrk:%s}proofs", ask->id);
    snprintf(keep, sizeof(keep), "%d", WORKER_RECEIPTS_KEEP_S);
    const struct str args[] = {worker_key(ask->id, key), str_of(list), str_of(keep)};
    return started(ask, redis_run(redis, &remove_script, on_removed, ask, 2, 1, args));
}

/* -- get -- */

static void on_got(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct worker_record record;
    if (!error)
        error = worker_record_read(str_of(ask->id), reply, &record);
    ask->on_record(ask->ctx, error, error ? NULL : &record);
    ask_free(ask);
}

enum error worker_store_get(struct redis *redis, struct str id, worker_record_fn *done, void *ctx)
{
    struct ask *ask = NULL;
    char key[KEY_MAX];
    enum error error = ask_new(redis, id, ctx, &ask);
    if (error)
        return error;
    ask->on_record = done;
    const struct str args[] = {STR("HGETALL"), worker_key(ask->id, key)};
    return started(ask, redis_command(redis, on_got, ask, 2, args));
}

/* -- admission -- */

static void on_admitted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct str verdict = verdict_of(reply, &error);
    if (!error && str_eq(verdict, STR("missing")))
        error = ERR_NOT_FOUND;
    else if (!error && str_eq(verdict, STR("token")))
        error = ERR_MISMATCH;
    if (!error)
        tell(ask);
    stored(ask, error);
}

enum error worker_store_prove(struct redis *redis, struct str id, uint64_t expect_token,
                              const struct worker_verdict *verdict, worker_stored_fn *done, void *ctx)
{
    struct ask *ask = NULL;
    char key[KEY_MAX], list[KEY_MAX], digest[SHA256_HEX];
    const struct admission *admission = verdict->admission;
    struct str previous = verdict->previous.ptr ? verdict->previous : STR("");
    if (!admission_is_storable(admission) || admission->token <= expect_token ||
        (verdict->proof && !proof_is_storable(verdict->proof)) || verdict->receipt_count > WORKER_RECEIPTS_MAX)
        return ERR_BAD_INPUT;
    enum error error = ask_new(redis, id, ctx, &ask);
    if (error)
        return error;
    ask->on_stored = done;
    struct record_words words = {.count = 2};
    words.words[0] = worker_key(ask->id, key);
    snprintf(list, sizeof(list), "sl:{wrk:%s}proofs", ask->id);
    words.words[1] = str_of(list);
    record_put_u64(&words, NULL, expect_token);
    record_put_u64(&words, NULL, admission->token);
    words.words[words.count++] = previous;
    record_put_u64(&words, NULL, PROOF_STORE_MAX);
    record_put_u64(&words, NULL, PROOF_STORE_MS);
    record_put_u64(&words, NULL, verdict->receipt_count);
    for (size_t i = 0; i < verdict->receipt_count; i++)
        words.words[words.count++] = verdict->receipts[i];
    record_put_admission(&words, admission);
    if (verdict->proof)
        record_put_proof(&words, verdict->proof);
    if (verdict->receipt_count > 0) {
        crypto_sha256_hex(verdict->receipts[verdict->receipt_count - 1], digest);
        record_put_receipt(&words, digest);
    }
    return started(ask, redis_run(redis, &admit_script, on_admitted, ask, 2, words.count - 2, words.words));
}

enum error worker_store_admit(struct redis *redis, struct str id, uint64_t expect_token,
                              const struct admission *admission, worker_stored_fn *done, void *ctx)
{
    const struct worker_verdict verdict = {.admission = admission};
    return worker_store_prove(redis, id, expect_token, &verdict, done, ctx);
}

/* -- reputation -- */

static void on_counted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct str verdict = verdict_of(reply, &error);
    if (!error && str_eq(verdict, STR("missing")))
        error = ERR_NOT_FOUND;
    if (!error && str_eq(verdict, STR("fed")))
        tell(ask);
    stored(ask, error);
}

/* What one run of the script adds. */
struct addition {
    struct reputation_evidence evidence;
    double bad_least[REPUTATION_DIMENSIONS];
    const struct worker_payment *payments;
    size_t payment_count;
};

static enum error add(struct redis *redis, struct str id, const struct addition *addition, worker_stored_fn *done,
                      void *ctx)
{
    struct ask *ask = NULL;
    char key[KEY_MAX], payers[WORKER_PAYERS][24];
    uint64_t earned = 0;
    enum error error = ask_new(redis, id, ctx, &ask);
    if (error)
        return error;
    ask->on_stored = done;
    struct record_words words = {.count = 1};
    words.words[0] = worker_key(ask->id, key);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        record_put_double(&words, NULL, addition->evidence.good[i]);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        record_put_double(&words, NULL, addition->evidence.bad[i]);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        record_put_double(&words, NULL, addition->evidence.forfeit[i]);
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        record_put_double(&words, NULL, addition->bad_least[i]);
    for (size_t i = 0; i < addition->payment_count; i++)
        earned += addition->payments[i].value_usd_nano > 0 ? (uint64_t)addition->payments[i].value_usd_nano : 0;
    record_put_u64(&words, NULL, earned);
    for (size_t i = 0; i < addition->payment_count; i++) {
        const struct worker_payment *payment = &addition->payments[i];
        const struct reputation_evidence calls = reputation_of_calls(payment->done, 0, payment->value_usd_nano);
        snprintf(payers[i], sizeof(payers[i]), "%016" PRIx64, payment->tenant);
        words.words[words.count++] = str_of(payers[i]);
        record_put_double(&words, NULL, calls.good[REPUTATION_AVAILABILITY]);
    }
    return started(ask, redis_run(redis, &reputation_script, on_counted, ask, 1, words.count - 1, words.words));
}

static bool is_evidence(const struct reputation_evidence *evidence)
{
    bool is_good = true;
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++)
        is_good &=
            evidence->good[i] >= 0 && evidence->good[i] < 1e15 && evidence->bad[i] >= 0 && evidence->bad[i] < 1e15;
    return is_good;
}

enum error worker_store_reputation(struct redis *redis, struct str id, const struct reputation_evidence *evidence,
                                   worker_stored_fn *done, void *ctx)
{
    const struct addition addition = {.evidence = *evidence};
    return is_evidence(evidence) ? add(redis, id, &addition, done, ctx) : ERR_BAD_INPUT;
}

enum error worker_store_count(struct redis *redis, struct str id, const struct worker_payment *payments,
                              size_t payment_count, uint64_t failed, worker_stored_fn *done, void *ctx)
{
    struct addition addition = {.payments = payments, .payment_count = payment_count};
    uint64_t calls = 0;
    int64_t value = 0;
    if (payment_count > WORKER_PAYERS)
        return ERR_BAD_INPUT;
    for (size_t i = 0; i < payment_count; i++) {
        if (payments[i].value_usd_nano < 0 || payments[i].value_usd_nano > PAID_MAX_USD_NANO)
            return ERR_BAD_INPUT;
        calls += payments[i].done;
        value += payments[i].value_usd_nano;
    }
    /* A failed call has no value: it weighs as much as those that ended well. */
    addition.evidence = reputation_of_calls(calls, failed, value);
    addition.evidence.good[REPUTATION_AVAILABILITY] = 0; /* by payer, in the script */
    return add(redis, id, &addition, done, ctx);
}

enum error worker_store_inherit(struct redis *redis, struct str id, const double bad[REPUTATION_DIMENSIONS],
                                worker_stored_fn *done, void *ctx)
{
    struct addition addition = {.payment_count = 0};
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        if (!(bad[i] >= 0 && bad[i] < 1e15))
            return ERR_BAD_INPUT;
        addition.bad_least[i] = bad[i];
    }
    return add(redis, id, &addition, done, ctx);
}

/* -- all -- */

struct read_all {
    struct redis *redis;
    worker_record_fn *on_record;
    void *ctx;
    char (*ids)[ID_TEXT_MAX];
    size_t count, next, open;
    enum error error;
};

static void on_one_of_all(void *ctx, enum error error, const struct worker_record *record);

/* Keeps some reads under way; ends when none is left. */
static void read_more(struct read_all *all)
{
    while (!all->error && all->next < all->count && all->open < READS_AT_ONCE) {
        all->error = worker_store_get(all->redis, str_of(all->ids[all->next]), on_one_of_all, all);
        if (!all->error) {
            all->next++;
            all->open++;
        }
    }
    if (all->open > 0)
        return;
    all->on_record(all->ctx, all->error, NULL);
    free(all->ids);
    free(all);
}

static void on_one_of_all(void *ctx, enum error error, const struct worker_record *record)
{
    struct read_all *all = ctx;
    all->open--;
    if (record)
        all->on_record(all->ctx, ERR_NONE, record);
    else if (error == ERR_PROTOCOL) /* one damaged record must not take the others away */
        log_warn(NULL, "a stored worker cannot be read and is left out");
    else if (error != ERR_NOT_FOUND && !all->error)
        all->error = error;
    read_more(all);
}

static void on_index(void *ctx, const redisReply *reply, enum error error)
{
    struct read_all *all = ctx;
    struct id parsed;
    if (!error && reply->type != REDIS_REPLY_ARRAY)
        error = ERR_PROTOCOL;
    if (!error && reply->elements > 0) {
        all->ids = calloc(reply->elements, sizeof(*all->ids));
        if (!all->ids)
            error = ERR_NO_MEMORY;
    }
    for (size_t i = 0; !error && i < reply->elements; i++) {
        struct str id = {reply->element[i]->str, reply->element[i]->len};
        if (reply->element[i]->type == REDIS_REPLY_STRING && id_parse("wrk_", id, &parsed))
            all->count += str_copy(all->ids[all->count], ID_TEXT_MAX, id);
    }
    all->error = error;
    read_more(all);
}

enum error worker_store_all(struct redis *redis, worker_record_fn *on_record, void *ctx)
{
    struct read_all *all = calloc(1, sizeof(*all));
    if (!all)
        return ERR_NO_MEMORY;
    all->redis = redis;
    all->on_record = on_record;
    all->ctx = ctx;
    const struct str args[] = {STR("SMEMBERS"), STR(INDEX_KEY)};
    enum error error = redis_command(redis, on_index, all, 2, args);
    if (error)
        free(all);
    return error;
}
