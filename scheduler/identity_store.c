#include "scheduler/identity_store.h"
#include "core/crypto.h"
#include "core/embed.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BANS_KEY "sl:{ident}bans"
#define DUE_KEY "sl:{ident}due"
#define KEY_MAX 96
#define FORGET_MS (INT64_C(365) * 24 * 3600 * 1000)
#define NOTE_WORDS 10 /* before the identities */
#define LISTED_MAX 10000
#define WORDS_MAX (2 + IDENTITIES_MAX + NOTE_WORDS + 2 * IDENTITIES_MAX)

EMBED(identity_note_lua, "scheduler/identity_note.lua");
REDIS_SCRIPT(note_script, identity_note_lua);
EMBED(identity_bans_lua, "scheduler/identity_bans.lua");
REDIS_SCRIPT(bans_script, identity_bans_lua);
EMBED(identity_lift_lua, "scheduler/identity_lift.lua");
REDIS_SCRIPT(lift_script, identity_lift_lua);
EMBED(identity_newcomer_lua, "scheduler/identity_newcomer.lua");
REDIS_SCRIPT(newcomer_script, identity_newcomer_lua);

static const char *const kinds[] = {[IDENTITY_UUID] = "uuid", [IDENTITY_KEY] = "key", [IDENTITY_HOST] = "host"};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

/* One question under way. */
struct ask {
    identity_memory_fn *on_memory;
    identity_bans_fn *on_bans;
    identity_lifted_fn *on_lifted;
    identity_slot_fn *on_slot;
    void *ctx;
};

/* Words to send; those that are made here lie in texts. */
struct words {
    struct str words[WORDS_MAX];
    size_t count, key_count;
    char keys[IDENTITIES_MAX][KEY_MAX], numbers[NOTE_WORDS][32];
    size_t number_count;
};

/* -- digests -- */

/* The kind is part of it: a key that somebody chose to look like another one's UUID is not that device. */
void identity_digest(enum identity_kind kind, struct str value, char ret[static IDENTITY_DIGEST_MAX])
{
    char inner[SHA256_HEX], text[SHA256_HEX + 32];
    crypto_sha256_hex(value, inner);
    snprintf(text, sizeof(text), "sluice %s %s", kinds[kind], inner);
    crypto_sha256_hex(str_of(text), ret);
}

/* -- asking -- */

static enum error ask_new(void *ctx, struct ask **ret)
{
    struct ask *ask = calloc(1, sizeof(*ask));
    if (!ask)
        return ERR_NO_MEMORY;
    ask->ctx = ctx;
    *ret = ask;
    return ERR_NONE;
}

static enum error started(struct ask *ask, enum error error)
{
    if (error)
        free(ask);
    return error;
}

static void check_reply(const redisReply *reply, int type, enum error *error)
{
    if (!*error && reply->type == REDIS_REPLY_ERROR)
        log_warn(NULL, "a script on identities failed: %s", reply->str);
    if (!*error && reply->type != type)
        *error = ERR_PROTOCOL;
}

static struct str text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, reply->len} : (struct str){NULL, 0};
}

static void put_number(struct words *words, double value)
{
    char *text = words->numbers[words->number_count++];
    snprintf(text, sizeof(words->numbers[0]), "%.17g", value);
    words->words[words->count++] = str_of(text);
}

static bool put_keys(struct words *words, const struct identity *identities, size_t count)
{
    uint8_t digest[SHA256_BYTES];
    words->count = words->number_count = 0;
    words->words[words->count++] = STR(BANS_KEY);
    words->words[words->count++] = STR(DUE_KEY);
    for (size_t i = 0; i < count; i++) {
        const struct identity *identity = &identities[i];
        if ((unsigned)identity->kind >= KIND_COUNT || !memchr(identity->digest, 0, sizeof(identity->digest)) ||
            !crypto_unhex(str_of(identity->digest), digest, sizeof(digest)))
            return false;
        snprintf(words->keys[i], KEY_MAX, "sl:{ident}:%s", identity->digest);
        words->words[words->count++] = str_of(words->keys[i]);
    }
    words->key_count = words->count;
    return true;
}

/* -- what is held against them -- */

static void on_memory(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct identity_memory memory = {.bans = 0};
    int64_t bans = 0;
    check_reply(reply, REDIS_REPLY_ARRAY, &error);
    bool is_good = !error && reply->elements == REPUTATION_DIMENSIONS + 3;
    for (unsigned i = 0; is_good && i < REPUTATION_DIMENSIONS; i++)
        is_good = str_to_double(text_of(reply->element[i]), &memory.bad[i]);
    is_good = is_good && str_to_i64(text_of(reply->element[REPUTATION_DIMENSIONS]), &bans) && bans >= 0 &&
              bans <= UINT32_MAX &&
              str_to_i64(text_of(reply->element[REPUTATION_DIMENSIONS + 1]), &memory.banned_until_ms) &&
              str_copy(memory.reason, sizeof(memory.reason), text_of(reply->element[REPUTATION_DIMENSIONS + 2]));
    memory.bans = (uint32_t)bans;
    if (!error && !is_good)
        error = ERR_PROTOCOL;
    ask->on_memory(ask->ctx, error, error ? NULL : &memory);
    free(ask);
}

/* Of the script; learning is a note of nothing. */
static enum error note(struct redis *redis, const struct identity *identities, size_t count,
                       const double bad[REPUTATION_DIMENSIONS], struct str reason, struct str worker,
                       identity_memory_fn *done, void *ctx)
{
    struct words words;
    struct ask *ask = NULL;
    if (count == 0 || count > IDENTITIES_MAX || !put_keys(&words, identities, count))
        return ERR_BAD_INPUT;
    for (unsigned i = 0; i < REPUTATION_DIMENSIONS; i++) {
        if (!(bad[i] >= 0 && bad[i] < 1e15))
            return ERR_BAD_INPUT;
        put_number(&words, bad[i]);
    }
    words.words[words.count++] = reason;
    words.words[words.count++] = worker;
    put_number(&words, (double)IDENTITY_BAN_MS);
    put_number(&words, IDENTITY_BAN_DOUBLINGS);
    put_number(&words, (double)FORGET_MS);
    put_number(&words, LISTED_MAX);
    for (size_t i = 0; i < count; i++) {
        words.words[words.count++] = str_of(identities[i].digest);
        words.words[words.count++] = str_of(kinds[identities[i].kind]);
    }
    enum error error = ask_new(ctx, &ask);
    if (error)
        return error;
    ask->on_memory = done;
    return started(ask, redis_run(redis, &note_script, on_memory, ask, words.key_count, words.count - words.key_count,
                                  words.words));
}

enum error identity_store_learn(struct redis *redis, const struct identity *identities, size_t count,
                                identity_memory_fn *done, void *ctx)
{
    static const double nothing[REPUTATION_DIMENSIONS] = {0};
    return note(redis, identities, count, nothing, STR(""), STR(""), done, ctx);
}

enum error identity_store_fail(struct redis *redis, const struct identity *identities, size_t count,
                               const struct reputation_evidence *evidence, const char *ban_reason, struct str worker,
                               identity_memory_fn *done, void *ctx)
{
    struct id id;
    struct str reason = ban_reason ? str_of(ban_reason) : STR("");
    if (!id_parse("wrk_", worker, &id) || (ban_reason && reason.len == 0))
        return ERR_BAD_INPUT;
    if (reason.len >= sizeof(((struct identity_memory *)0)->reason))
        reason.len = sizeof(((struct identity_memory *)0)->reason) - 1;
    return note(redis, identities, count, evidence->bad, reason, worker, done, ctx);
}

/* -- the list of bans -- */

static bool ban_of(const redisReply *digest, const redisReply *text, struct identity_ban *ret)
{
    struct str rest = text_of(text);
    int64_t bans;
    memset(ret, 0, sizeof(*ret));
    if (!str_copy(ret->digest, sizeof(ret->digest), text_of(digest)) ||
        !str_to_i64(str_next(&rest, ' '), &ret->at_ms) || !str_to_i64(str_next(&rest, ' '), &ret->until_ms) ||
        !str_to_i64(str_next(&rest, ' '), &bans) || bans < 0 || bans > UINT32_MAX)
        return false;
    struct str kind = str_next(&rest, ' ');
    while ((unsigned)ret->kind < KIND_COUNT && !str_eq(kind, str_of(kinds[ret->kind])))
        ret->kind++;
    ret->bans = (uint32_t)bans;
    return (unsigned)ret->kind < KIND_COUNT && str_copy(ret->worker, sizeof(ret->worker), str_next(&rest, ' ')) &&
           str_copy(ret->reason, sizeof(ret->reason), rest);
}

static void on_bans(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    struct identity_ban *bans = NULL;
    size_t count = 0;
    check_reply(reply, REDIS_REPLY_ARRAY, &error);
    if (!error && !(bans = calloc(reply->elements / 2 + 1, sizeof(*bans))))
        error = ERR_NO_MEMORY;
    for (size_t i = 0; !error && i + 1 < reply->elements; i += 2) {
        if (ban_of(reply->element[i], reply->element[i + 1], &bans[count]))
            count++;
        else
            log_warn(NULL, "a stored ban cannot be read and is left out of the list");
    }
    ask->on_bans(ask->ctx, error, bans, count);
    free(bans);
    free(ask);
}

enum error identity_store_bans(struct redis *redis, identity_bans_fn *done, void *ctx)
{
    struct ask *ask = NULL;
    char most[16];
    enum error error = ask_new(ctx, &ask);
    if (error)
        return error;
    ask->on_bans = done;
    snprintf(most, sizeof(most), "%d", IDENTITY_BANS_LISTED_MAX);
    const struct str args[] = {STR(BANS_KEY), STR(DUE_KEY), str_of(most)};
    return started(ask, redis_run(redis, &bans_script, on_bans, ask, 2, 1, args));
}

/* -- a pardon -- */

static void on_lifted(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    check_reply(reply, REDIS_REPLY_INTEGER, &error);
    ask->on_lifted(ask->ctx, error, error ? 0 : (unsigned)reply->integer);
    free(ask);
}

enum error identity_store_lift(struct redis *redis, const struct identity *identities, size_t count,
                               identity_lifted_fn *done, void *ctx)
{
    struct words words;
    struct ask *ask = NULL;
    if (count == 0 || count > IDENTITIES_MAX || !put_keys(&words, identities, count))
        return ERR_BAD_INPUT;
    for (size_t i = 0; i < count; i++)
        words.words[words.count++] = str_of(identities[i].digest);
    enum error error = ask_new(ctx, &ask);
    if (error)
        return error;
    ask->on_lifted = done;
    return started(ask, redis_run(redis, &lift_script, on_lifted, ask, words.key_count, count, words.words));
}

/* -- newcomers -- */

static void on_slot(void *ctx, const redisReply *reply, enum error error)
{
    struct ask *ask = ctx;
    check_reply(reply, REDIS_REPLY_INTEGER, &error);
    ask->on_slot(ask->ctx, error, !error && reply->integer == 0, error ? 0 : reply->integer);
    free(ask);
}

enum error identity_store_newcomer(struct redis *redis, uint64_t block, struct str worker, identity_slot_fn *done,
                                   void *ctx)
{
    struct ask *ask = NULL;
    struct id id;
    char keys[3][KEY_MAX], most[2][16];
    if (block == 0 || !id_parse("wrk_", worker, &id))
        return ERR_BAD_INPUT;
    enum error error = ask_new(ctx, &ask);
    if (error)
        return error;
    ask->on_slot = done;
    snprintf(keys[0], KEY_MAX, "sl:{ident}new:h:%016" PRIx64, block);
    snprintf(keys[1], KEY_MAX, "sl:{ident}new:d:%016" PRIx64, block);
    snprintf(keys[2], KEY_MAX, "sl:{ident}new:w:" STR_FMT, STR_ARG(worker));
    snprintf(most[0], sizeof(most[0]), "%d", NEWCOMERS_PER_HOUR);
    snprintf(most[1], sizeof(most[1]), "%d", NEWCOMERS_PER_DAY);
    const struct str args[] = {str_of(keys[0]), str_of(keys[1]), str_of(keys[2]), str_of(most[0]), str_of(most[1])};
    return started(ask, redis_run(redis, &newcomer_script, on_slot, ask, 3, 2, args));
}
