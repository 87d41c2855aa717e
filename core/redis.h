/* Redis on the event loop (hiredis async): reconnects by itself, pipelines, runs scripts by SHA, has a bounded queue.
 *
 * One struct redis belongs to one loop and its thread. The process must ignore SIGPIPE (hiredis writes with write()).
 * A host name is resolved by getaddrinfo() at each connect, on the loop's thread: give an address or a name in
 * /etc/hosts. There is no TLS (hiredis 0.14 has none): rediss:// is refused with ERR_BAD_INPUT; put a local TLS proxy
 * in front where the network is not trusted. */
#ifndef SLUICE_CORE_REDIS_H
#define SLUICE_CORE_REDIS_H

#include "core/loop.h"
#include "core/str.h"
#include <hiredis/hiredis.h>
#include <stdatomic.h>

struct redis;

/* A completion: fires exactly once, never before the call that asked for it returned. reply is borrowed for the call
 * and NULL when error is set (ERR_CLOSED: connection lost after the command was sent, it may or may not have run and
 * is not sent again; ERR_DEADLINE; ERR_NO_MEMORY; ERR_CANCELLED: redis_free). A Redis error reply arrives as
 * reply->type == REDIS_REPLY_ERROR with error ERR_NONE. It may call anything here, redis_free too. */
typedef void redis_done_fn(void *ctx, const redisReply *reply, enum error error);

struct redis_options {
    const char *url;    /* redis://[[user]:password@]host[:port][/db], unix:///path; user and password may use %XX */
    int64_t timeout_ns; /* a command's answer; 0: 5 s. Blocking commands: give a connection of its own a long one */
    unsigned queue_max; /* commands waiting or in flight; past it calls return ERR_BUSY. 0: 10,000 */
    void (*on_state)(void *ctx, bool connected); /* may be NULL */
    void *ctx;
};

/* Starts to connect and returns; commands may be given at once. ERR_BAD_INPUT: the URL (one log line says why). All of
 * options is copied. */
MUST_CHECK enum error redis_open(struct loop *loop, const struct redis_options *options, struct redis **ret);
struct redis *
redis_free(struct redis *redis); /* completes what is open with ERR_CANCELLED; accepts NULL, returns NULL */
bool redis_is_connected(const struct redis *redis);

/* Commands given while disconnected wait in the queue for the connection, up to their timeout. Order is kept. A command
 * in flight past its timeout costs the connection: its pipeline can no longer be matched to answers, so those behind it
 * complete with ERR_CLOSED. done may be NULL. argv is copied (sent) before the call returns. Also ERR_BUSY when
 * 64 MiB of commands are open, ERR_TOO_LARGE for one command past that, ERR_BAD_INPUT for no command or one that
 * changes how answers are matched (SUBSCRIBE and its kin, MONITOR), ERR_CANCELLED within redis_free. */
MUST_CHECK enum error redis_command(struct redis *redis, redis_done_fn *done, void *ctx, size_t argc,
                                    const struct str *argv);
/* Convenience on hiredis' format ("HGET %s %b"). */
MUST_CHECK enum error redis_commandf(struct redis *redis, redis_done_fn *done, void *ctx, const char *format, ...);

/* A Lua script built into the binary. Declare with REDIS_SCRIPT at file scope after EMBED. Threads may share it. */
struct redis_script {
    const char *name;
    const char *text, *text_end;
    atomic_int sha_state; /* of redis_run */
    char sha[41];         /* filled at first use */
};
#define REDIS_SCRIPT(var, embedded) \
    static struct redis_script var = {.name = #embedded, .text = embedded, .text_end = embedded##_end}

/* EVALSHA; on NOSCRIPT sends EVAL with the text, which loads it too, with a new timeout, before done is called. A
 * script that had to be loaded thus runs after the commands given since. args = keys, then arguments. script must
 * outlive redis. */
MUST_CHECK enum error redis_run(struct redis *redis, struct redis_script *script, redis_done_fn *done, void *ctx,
                                size_t key_count, size_t arg_count, const struct str *args);

#endif
