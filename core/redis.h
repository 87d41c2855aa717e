/* Redis on the event loop (hiredis async): reconnects by itself, pipelines, runs scripts by SHA, has a bounded queue.
 */
#ifndef SLUICE_CORE_REDIS_H
#define SLUICE_CORE_REDIS_H

#include "core/loop.h"
#include "core/str.h"
#include <hiredis/hiredis.h>

struct redis;

/* A completion: fires exactly once, never before the call that asked for it returned. reply is borrowed for the call
 * and NULL when error is set (ERR_CLOSED: connection lost, the command may or may not have run; ERR_DEADLINE;
 * ERR_CANCELLED: redis_free). A Redis error reply arrives as reply->type == REDIS_REPLY_ERROR with error ERR_NONE. */
typedef void redis_done_fn(void *ctx, const redisReply *reply, enum error error);

struct redis_options {
    const char *url;    /* redis://[:password@]host:port[/db], rediss://..., unix:///path */
    int64_t timeout_ns; /* a command's answer; 0: 5 s. Blocking commands: give a connection of its own a long one */
    unsigned queue_max; /* commands waiting or in flight; past it calls return ERR_BUSY. 0: 10,000 */
    void (*on_state)(void *ctx, bool connected); /* may be NULL */
    void *ctx;
};

MUST_CHECK enum error redis_open(struct loop *loop, const struct redis_options *options, struct redis **ret);
struct redis *
redis_free(struct redis *redis); /* completes what is open with ERR_CANCELLED; accepts NULL, returns NULL */
bool redis_is_connected(const struct redis *redis);

/* Commands given while disconnected wait in the queue for the connection, up to their timeout. done may be NULL.
 * argv is copied (sent) before the call returns. */
MUST_CHECK enum error redis_command(struct redis *redis, redis_done_fn *done, void *ctx, size_t argc,
                                    const struct str *argv);
/* Convenience on hiredis' format ("HGET %s %b"). */
MUST_CHECK enum error redis_commandf(struct redis *redis, redis_done_fn *done, void *ctx, const char *format, ...);

/* A Lua script built into the binary. Declare with REDIS_SCRIPT at file scope after EMBED. */
struct redis_script {
    const char *name;
    const char *text, *text_end;
    char sha[41]; /* filled at first use */
};
#define REDIS_SCRIPT(var, embedded) \
    static struct redis_script var = {.name = #embedded, .text = embedded, .text_end = embedded##_end}

/* EVALSHA; on NOSCRIPT loads the text and runs it, once more, before done is called. args = keys, then arguments. */
MUST_CHECK enum error redis_run(struct redis *redis, struct redis_script *script, redis_done_fn *done, void *ctx,
                                size_t key_count, size_t arg_count, const struct str *args);

#endif
