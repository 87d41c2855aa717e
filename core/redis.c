#include "core/redis.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/log.h"
#include "core/redis_link.h"
#include "core/redis_target.h"
#include <assert.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_NS (5 * NS_PER_S)
#define QUEUE_DEFAULT 10000
#define QUEUE_BYTES_MAX ((size_t)64 << 20)
#define SENT_TEXTS 16
#define GREETING_NS (5 * NS_PER_S) /* connect, AUTH, SELECT and PING */
#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (2 * NS_PER_S)

enum redis_state { STATE_BACKOFF, STATE_GREETING, STATE_READY };

struct call {
    struct call *next;
    redis_done_fn *done;
    void *ctx;
    int64_t deadline_ns;
    const struct redis_script *script; /* set while a NOSCRIPT answer leads to EVAL with the text */
    bool is_repeated;                  /* it has been answered NOSCRIPT before */
    size_t argc, rest_at;              /* of a script: arguments in all, and where those after the SHA begin in bytes */
    size_t len;
    char bytes[]; /* as sent */
};

struct call_list {
    struct call *head, *tail;
};

struct redis {
    struct loop *loop;
    struct redis_target target;
    int64_t timeout_ns;
    unsigned queue_max;
    void (*on_state)(void *ctx, bool connected);
    void *ctx;
    enum redis_state state;
    struct redis_link *link; /* NULL in STATE_BACKOFF */
    unsigned greeting_left;  /* answers to the greeting that are still to come */
    struct call_list waiting, in_flight;
    const struct redis_script *sent_texts[SENT_TEXTS]; /* on this connection; a ring */
    unsigned sent_text_next;
    unsigned open_count;
    size_t open_bytes;
    struct timer retry; /* end of the back-off, or of the time for the greeting */
    struct timer overdue;
    int64_t backoff_ns;
    unsigned depth; /* frames of ours that still need this struct */
    bool is_closing, is_failure_told;
};

static void list_push(struct call_list *list, struct call *call)
{
    call->next = NULL;
    if (list->head == NULL)
        list->head = call;
    else
        list->tail->next = call;
    list->tail = call;
}

static struct call *list_pop(struct call_list *list)
{
    struct call *call = list->head;

    if (call != NULL)
        list->head = call->next;
    return call;
}

static void redis_leave(struct redis *redis)
{
    if (--redis->depth > 0 || !redis->is_closing)
        return;
    crypto_wipe(&redis->target, sizeof(redis->target));
    free(redis);
}

static void call_complete(struct redis *redis, struct call *call, const redisReply *reply, enum error error)
{
    redis->open_count--;
    redis->open_bytes -= call->len;
    if (call->done != NULL)
        call->done(call->ctx, reply, error);
    free(call);
}

static void redis_send_waiting(struct redis *redis)
{
    while (redis->state == STATE_READY && redis->waiting.head != NULL && !redis_link_is_full(redis->link)) {
        struct call *call = list_pop(&redis->waiting);

        list_push(&redis->in_flight, call);
        redis_link_send(redis->link, call->bytes, call->len);
    }
}

/* ---- connecting, greeting, losing ---- */

static void redis_tell_failure(struct redis *redis, const char *why)
{
    /* Once an outage: the attempts that follow would flood the log. */
    if (redis->is_failure_told)
        log_debug(NULL, "Redis still cannot be used: %s", why);
    else
        log_warn(NULL, "Redis cannot be used, trying again: %s", why);
    redis->is_failure_told = true;
}

static void redis_back_off(struct redis *redis)
{
    int64_t half = redis->backoff_ns / 2;
    uint32_t random;

    crypto_random(&random, sizeof(random));
    redis->state = STATE_BACKOFF;
    timer_set(redis->loop, &redis->retry, clock_mono_ns() + half + half * (int64_t)(random >> 16) / 65536);
    redis->backoff_ns = redis->backoff_ns * 2 < BACKOFF_MAX_NS ? redis->backoff_ns * 2 : BACKOFF_MAX_NS;
}

/* In-flight commands are popped one by one and not from a list of their own, so that redis_free in a completion finds
 * the rest. What completions ask for meanwhile goes to the waiting list. */
static void redis_lost(struct redis *redis, const char *why)
{
    bool was_ready = redis->state == STATE_READY;
    int64_t now_ns = clock_mono_ns();
    struct call *call;

    redis_tell_failure(redis, why);
    redis->link = redis_link_drop(redis->link);
    redis_back_off(redis);
    if (was_ready && redis->on_state != NULL)
        redis->on_state(redis->ctx, false);
    while ((call = list_pop(&redis->in_flight)) != NULL)
        call_complete(redis, call, NULL, call->deadline_ns <= now_ns ? ERR_DEADLINE : ERR_CLOSED);
}

static void on_greeting(struct redis *redis, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        redis_lost(redis, reply->str); /* wrong password, no such database, still loading... */
        return;
    }
    if (--redis->greeting_left > 0)
        return;
    log_info(NULL, "Redis is connected");
    redis->state = STATE_READY;
    redis->backoff_ns = BACKOFF_FIRST_NS;
    redis->is_failure_told = false;
    timer_clear(redis->loop, &redis->retry);
    if (redis->on_state != NULL)
        redis->on_state(redis->ctx, true);
}

static void redis_greet(struct redis *redis, int argc, const char **argv)
{
    char *bytes;
    int len = redisFormatCommandArgv(&bytes, argc, argv, NULL);

    redis->greeting_left++;
    if (len < 0)
        return; /* no memory: the greeting stays incomplete and its time limit ends it */
    redis_link_send(redis->link, bytes, (size_t)len);
    crypto_wipe(bytes, (size_t)len);
    redisFreeCommand(bytes);
}

static void on_link_reply(void *ctx, const redisReply *reply);

static void on_link_room(void *ctx)
{
    redis_send_waiting(ctx);
}

static void on_link_lost(void *ctx, const char *why)
{
    struct redis *redis = ctx;

    redis->depth++;
    redis_lost(redis, why);
    redis_leave(redis);
}

static void redis_connect(struct redis *redis)
{
    const struct redis_target *target = &redis->target;
    struct redis_link_owner owner = {
        .on_reply = on_link_reply, .on_room = on_link_room, .on_lost = on_link_lost, .ctx = redis};
    char why[REDIS_WHY_MAX], db[24];

    if (redis_link_open(redis->loop, target, &owner, &redis->link, why) != ERR_NONE) {
        redis_tell_failure(redis, why);
        redis_back_off(redis);
        return;
    }
    redis->state = STATE_GREETING;
    redis->greeting_left = 0;
    memset(redis->sent_texts, 0, sizeof(redis->sent_texts));
    timer_set(redis->loop, &redis->retry, clock_mono_ns() + GREETING_NS);
    if (target->user[0] != '\0')
        redis_greet(redis, 3, (const char *[]){"AUTH", target->user, target->password});
    else if (target->password[0] != '\0')
        redis_greet(redis, 2, (const char *[]){"AUTH", target->password});
    snprintf(db, sizeof(db), "%lld", (long long)target->db);
    if (target->db != 0)
        redis_greet(redis, 2, (const char *[]){"SELECT", db});
    redis_greet(redis, 1, (const char *[]){"PING"}); /* fails while the server still loads its data */
}

static void on_retry_due(struct timer *timer)
{
    struct redis *redis = container_of(timer, struct redis, retry);

    redis->depth++;
    if (redis->link != NULL)
        redis_lost(redis, "no answer to the greeting in time");
    else
        redis_connect(redis);
    redis_leave(redis);
}

static void on_overdue(struct timer *timer)
{
    struct redis *redis = container_of(timer, struct redis, overdue);
    const struct call *sent, *unsent;
    int64_t now_ns = clock_mono_ns();

    redis->depth++;
    if (redis->in_flight.head != NULL && redis->in_flight.head->deadline_ns <= now_ns)
        redis_lost(redis, "no answer to a command in time");
    while (redis->waiting.head != NULL && redis->waiting.head->deadline_ns <= now_ns)
        call_complete(redis, list_pop(&redis->waiting), NULL, ERR_DEADLINE);
    /* Both lists are in the order of their deadlines, since one timeout holds for all. */
    sent = redis->in_flight.head;
    unsent = redis->waiting.head;
    if (sent != NULL && (unsent == NULL || sent->deadline_ns < unsent->deadline_ns))
        timer_set(redis->loop, timer, sent->deadline_ns);
    else if (unsent != NULL)
        timer_set(redis->loop, timer, unsent->deadline_ns);
    redis_leave(redis);
}

/* ---- commands ---- */

static bool is_noscript(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR && str_starts((struct str){reply->str, reply->len}, STR("NOSCRIPT"));
}

static void call_repeat(struct redis *redis, struct call *call)
{
    call->is_repeated = true;
    call->deadline_ns = clock_mono_ns() + redis->timeout_ns; /* the lists are in order of deadlines */
    list_push(&redis->in_flight, call);
}

static bool text_was_sent(const struct redis *redis, const struct redis_script *script)
{
    for (size_t i = 0; i < SENT_TEXTS; i++)
        if (redis->sent_texts[i] == script)
            return true;
    return false;
}

/* The command that was refused, with the text in place of the SHA. It keeps its call, now without a script. */
static enum error call_send_text(struct redis *redis, struct call *call)
{
    const struct redis_script *script = call->script;
    size_t text_len = (size_t)(script->text_end - script->text);
    struct buf buf;
    enum error error = ERR_NO_MEMORY;

    buf_init(&buf, QUEUE_BYTES_MAX * 2);
    if (!buf_reserve(&buf, text_len + call->len + 64) ||
        !buf_printf(&buf, "*%zu\r\n$4\r\nEVAL\r\n$%zu\r\n", call->argc, text_len) ||
        !buf_append(&buf, script->text, text_len) || !buf_append(&buf, "\r\n", 2) ||
        !buf_append(&buf, call->bytes + call->rest_at, call->len - call->rest_at))
        goto out;
    redis->sent_texts[redis->sent_text_next++ % SENT_TEXTS] = script;
    call->script = NULL;
    call_repeat(redis, call);
    redis_link_send(redis->link, buf.ptr, buf.len);
    error = ERR_NONE;
out:
    buf_free(&buf);
    return error;
}

static void on_call_reply(struct redis *redis, const redisReply *reply)
{
    struct call *call = list_pop(&redis->in_flight);

    assert(call != NULL);
    if (call->script == NULL || !is_noscript(reply)) {
        call_complete(redis, call, reply, ERR_NONE);
    } else if (!call->is_repeated && text_was_sent(redis, call->script)) {
        /* A server that has started anew refuses all that are in flight; the text is ahead of this one by now. */
        call_repeat(redis, call);
        redis_link_send(redis->link, call->bytes, call->len);
    } else if (call_send_text(redis, call) != ERR_NONE) {
        call_complete(redis, call, NULL, ERR_NO_MEMORY);
    }
}

static void on_link_reply(void *ctx, const redisReply *reply)
{
    struct redis *redis = ctx;

    redis->depth++;
    if (redis->state == STATE_READY)
        on_call_reply(redis, reply);
    else
        on_greeting(redis, reply);
    redis_leave(redis);
}

/* Room for a command of len bytes that the queue can take. */
static enum error call_new(const struct redis *redis, size_t len, redis_done_fn *done, void *ctx, struct call **ret)
{
    struct call *call;

    if (redis->is_closing)
        return ERR_CANCELLED;
    if (len > QUEUE_BYTES_MAX)
        return ERR_TOO_LARGE;
    if (redis->open_count >= redis->queue_max || len > QUEUE_BYTES_MAX - redis->open_bytes)
        return ERR_BUSY;
    call = malloc(sizeof(*call) + len);
    if (call == NULL)
        return ERR_NO_MEMORY;
    *call = (struct call){.done = done, .ctx = ctx};
    *ret = call;
    return ERR_NONE;
}

static void call_give(struct redis *redis, struct call *call)
{
    call->deadline_ns = clock_mono_ns() + redis->timeout_ns;
    redis->open_count++;
    redis->open_bytes += call->len;
    list_push(&redis->waiting, call);
    if (!timer_is_set(&redis->overdue))
        timer_set(redis->loop, &redis->overdue, call->deadline_ns);
    redis_send_waiting(redis);
}

/* An upper bound of what put_bulk writes for args; past QUEUE_BYTES_MAX it stops counting. */
static size_t bulks_size(size_t count, const struct str *args)
{
    size_t size = 0;

    for (size_t i = 0; i < count && size <= QUEUE_BYTES_MAX; i++)
        size += (args[i].len < QUEUE_BYTES_MAX ? args[i].len : QUEUE_BYTES_MAX) + 32;
    return size;
}

static void put_bulk(struct call *call, struct str arg)
{
    char *to = call->bytes + call->len;
    *to++ = '$';
    to += str_put_u64(to, arg.len);
    memcpy(to, "\r\n", 2);
    to += 2;
    if (arg.len > 0)
        memcpy(to, arg.ptr, arg.len);
    memcpy(to + arg.len, "\r\n", 2);
    call->len = (size_t)(to - call->bytes) + arg.len + 2;
}

/* These have no answer or more than one, which would end the pairing of answers with commands. */
static bool is_unpaired(struct str name)
{
    static const char *const names[] = {"SUBSCRIBE",    "PSUBSCRIBE",   "SSUBSCRIBE", "UNSUBSCRIBE",
                                        "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return true;
    return false;
}

enum error redis_command(struct redis *redis, redis_done_fn *done, void *ctx, size_t argc, const struct str *argv)
{
    struct call *call;
    enum error error;

    if (argc == 0 || is_unpaired(argv[0]))
        return ERR_BAD_INPUT;
    error = call_new(redis, 32 + bulks_size(argc, argv), done, ctx, &call);
    if (error != ERR_NONE)
        return error;
    call->len = (size_t)snprintf(call->bytes, 32, "*%zu\r\n", argc);
    for (size_t i = 0; i < argc; i++)
        put_bulk(call, argv[i]);
    call_give(redis, call);
    return ERR_NONE;
}

enum error redis_commandf(struct redis *redis, redis_done_fn *done, void *ctx, const char *format, ...)
{
    char *bytes = NULL;
    struct str rest;
    struct call *call;
    enum error error;
    va_list list;
    int len;

    va_start(list, format);
    len = redisvFormatCommand(&bytes, format, list);
    va_end(list);
    if (len < 0)
        return len == -1 ? ERR_NO_MEMORY : ERR_BAD_INPUT;
    rest = (struct str){bytes, (size_t)len}; /* "*1\r\n$4\r\nPING\r\n" */
    str_next(&rest, '\n');
    str_next(&rest, '\n');
    if (is_unpaired(str_next(&rest, '\r'))) {
        error = ERR_BAD_INPUT;
        goto out;
    }
    error = call_new(redis, (size_t)len, done, ctx, &call);
    if (error != ERR_NONE)
        goto out;
    memcpy(call->bytes, bytes, (size_t)len);
    call->len = (size_t)len;
    call_give(redis, call);
out:
    redisFreeCommand(bytes);
    return error;
}

/* The SHA-1 of the text. Threads that meet at the first use may each compute it; one of them keeps it. */
static enum error script_sha(struct redis_script *script, char ret_sha[41])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    int unset = 0;

    if (atomic_load_explicit(&script->sha_state, memory_order_acquire) == 2) {
        memcpy(ret_sha, script->sha, 41);
        return ERR_NONE;
    }
    if (EVP_Digest(script->text, (size_t)(script->text_end - script->text), digest, NULL, EVP_sha1(), NULL) != 1)
        return ERR_SYSTEM;
    crypto_hex(digest, 20, ret_sha);
    if (atomic_compare_exchange_strong(&script->sha_state, &unset, 1)) {
        memcpy(script->sha, ret_sha, 41);
        atomic_store_explicit(&script->sha_state, 2, memory_order_release);
    }
    return ERR_NONE;
}

enum error redis_run(struct redis *redis, struct redis_script *script, redis_done_fn *done, void *ctx, size_t key_count,
                     size_t arg_count, const struct str *args)
{
    size_t count = key_count + arg_count;
    char sha[41], keys[24];
    struct call *call;
    enum error error = script_sha(script, sha);

    if (error != ERR_NONE)
        return error;
    error = call_new(redis, 128 + bulks_size(count, args), done, ctx, &call);
    if (error != ERR_NONE)
        return error;
    call->script = script;
    call->argc = count + 3;
    call->len = (size_t)snprintf(call->bytes, 32, "*%zu\r\n", call->argc);
    put_bulk(call, STR("EVALSHA"));
    put_bulk(call, str_of(sha));
    call->rest_at = call->len;
    snprintf(keys, sizeof(keys), "%zu", key_count);
    put_bulk(call, str_of(keys));
    for (size_t i = 0; i < count; i++)
        put_bulk(call, args[i]);
    call_give(redis, call);
    return ERR_NONE;
}

/* ---- opening ---- */

enum error redis_open(struct loop *loop, const struct redis_options *options, struct redis **ret)
{
    struct redis *redis = calloc(1, sizeof(*redis));
    enum error error;

    if (redis == NULL)
        return ERR_NO_MEMORY;
    error = redis_target_parse(options->url, &redis->target);
    if (error != ERR_NONE) {
        free(redis);
        return error;
    }
    redis->loop = loop;
    redis->timeout_ns = options->timeout_ns > 0 ? options->timeout_ns : TIMEOUT_DEFAULT_NS;
    redis->queue_max = options->queue_max > 0 ? options->queue_max : QUEUE_DEFAULT;
    redis->on_state = options->on_state;
    redis->ctx = options->ctx;
    redis->retry.on_due = on_retry_due;
    redis->overdue.on_due = on_overdue;
    redis->backoff_ns = BACKOFF_FIRST_NS;
    redis_connect(redis);
    *ret = redis;
    return ERR_NONE;
}

struct redis *redis_free(struct redis *redis)
{
    struct call *call;

    if (redis == NULL)
        return NULL;
    assert(!redis->is_closing);
    redis->is_closing = true;
    redis->state = STATE_BACKOFF;
    redis->depth++;
    redis->link = redis_link_drop(redis->link);
    timer_clear(redis->loop, &redis->retry);
    timer_clear(redis->loop, &redis->overdue);
    while ((call = list_pop(&redis->in_flight)) != NULL || (call = list_pop(&redis->waiting)) != NULL)
        call_complete(redis, call, NULL, ERR_CANCELLED);
    redis_leave(redis);
    return NULL;
}

bool redis_is_connected(const struct redis *redis)
{
    return redis->state == STATE_READY;
}
