#include "core/redis_link.h"
#include "core/log.h"
#include <assert.h>
#include <fcntl.h>
#include <hiredis/async.h>
#include <stdlib.h>
#include <sys/epoll.h>

#define UNWRITTEN_MAX ((size_t)1 << 20) /* hiredis moves the rest of its buffer at each write */

struct redis_link {
    struct loop *loop;
    struct redis_link_owner owner;
    redisAsyncContext *ac; /* NULL once hiredis has freed it */
    struct io_source io;
    struct task flush;
    uint32_t wanted, armed;
    size_t unwritten; /* at most this many bytes are in hiredis' buffer */
    bool is_dropped, is_in_hiredis;
    char why[REDIS_WHY_MAX];
};

static void link_free(struct redis_link *link)
{
    if (link->ac != NULL)
        redisAsyncFree(link->ac); /* hook_cleanup clears link->ac */
    free(link);
}

struct redis_link *redis_link_drop(struct redis_link *link)
{
    if (link == NULL)
        return NULL;
    link->is_dropped = true;
    loop_undefer(link->loop, &link->flush);
    loop_remove(link->loop, &link->io);
    if (!link->is_in_hiredis)
        link_free(link);
    return NULL;
}

static void link_arm(struct redis_link *link, uint32_t events)
{
    if (link->armed == events)
        return;
    /* Should it fail, the answers stay out and the commands' deadline drops the connection. */
    if (loop_modify(link->loop, &link->io, events) != ERR_NONE)
        log_error(NULL, "Redis connection: cannot change what the loop waits for");
    else
        link->armed = events;
}

static void hook_add_read(void *data)
{
    struct redis_link *link = data;

    link->wanted |= EPOLLIN;
}

static void hook_del_read(void *data)
{
    struct redis_link *link = data;

    link->wanted &= ~(uint32_t)EPOLLIN;
}

/* Commands of one turn are gathered and written at its end; only what the kernel did not take waits for EPOLLOUT. */
static void hook_add_write(void *data)
{
    struct redis_link *link = data;

    link->wanted |= EPOLLOUT;
    if (!link->is_in_hiredis && !(link->armed & EPOLLOUT))
        loop_defer(link->loop, &link->flush);
}

static void hook_del_write(void *data)
{
    struct redis_link *link = data;

    link->wanted &= ~(uint32_t)EPOLLOUT;
    link->unwritten = 0;
}

/* hiredis is about to close the descriptor and to free the context, errstr included. */
static void hook_cleanup(void *data)
{
    struct redis_link *link = data;

    loop_remove(link->loop, &link->io);
    str_copy(link->why, sizeof(link->why), str_of(link->ac->c.errstr));
    link->ac = NULL;
}

static void on_reply(redisAsyncContext *ac, void *reply, void *unused)
{
    struct redis_link *link = ac->data;

    (void)unused;
    if (!link->is_dropped && reply != NULL) /* NULL: hiredis gives up, which link_pump will see */
        link->owner.on_reply(link->owner.ctx, reply);
}

void redis_link_send(struct redis_link *link, const char *bytes, size_t len)
{
    int rc = redisAsyncFormattedCommand(link->ac, on_reply, NULL, bytes, len);

    assert(rc == REDIS_OK); /* refused only while disconnecting, when hiredis calls nobody that sends */
    (void)rc;
    link->unwritten += len;
}

bool redis_link_is_full(const struct redis_link *link)
{
    return link->unwritten >= UNWRITTEN_MAX;
}

/* The one place that lets hiredis read and write, and so call back. */
static void link_pump(struct redis_link *link, uint32_t events)
{
    bool wrote = false;

    link->is_in_hiredis = true;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        redisAsyncHandleRead(link->ac);
    if (!link->is_dropped && link->ac != NULL && (events & link->wanted & EPOLLOUT)) {
        redisAsyncHandleWrite(link->ac);
        wrote = true;
    }
    link->is_in_hiredis = false;
    if (link->is_dropped) {
        link_free(link);
        return;
    }
    if (link->ac == NULL) {
        loop_undefer(link->loop, &link->flush);
        link->owner.on_lost(link->owner.ctx, link->why[0] != '\0' ? link->why : "closed");
        return;
    }
    if (wrote || !(link->wanted & EPOLLOUT))
        link_arm(link, link->wanted);
    else if (!(link->armed & EPOLLOUT)) /* a completion sent something */
        loop_defer(link->loop, &link->flush);
    link->owner.on_room(link->owner.ctx);
}

static void on_link_ready(struct io_source *source, uint32_t events)
{
    link_pump(container_of(source, struct redis_link, io), events);
}

static void on_link_flush(struct task *task)
{
    link_pump(container_of(task, struct redis_link, flush), EPOLLOUT);
}

enum error redis_link_open(struct loop *loop, const struct redis_target *target, const struct redis_link_owner *owner,
                           struct redis_link **ret, char ret_why[static REDIS_WHY_MAX])
{
    enum error error = ERR_NO_MEMORY;
    struct redis_link *link = calloc(1, sizeof(*link));
    redisAsyncContext *ac =
        target->is_unix ? redisAsyncConnectUnix(target->host) : redisAsyncConnect(target->host, target->port);

    str_copy(ret_why, REDIS_WHY_MAX, STR("no memory or descriptors left"));
    if (link == NULL || ac == NULL)
        goto out;
    error = ERR_UNREACHABLE;
    if (ac->err != 0) {
        str_copy(ret_why, REDIS_WHY_MAX, str_of(ac->c.errstr));
        goto out;
    }
    if (!target->is_unix)
        redisEnableKeepAlive(&ac->c);
    (void)fcntl(ac->c.fd, F_SETFD, FD_CLOEXEC);
    link->loop = loop;
    link->owner = *owner;
    link->ac = ac;
    link->wanted = link->armed = EPOLLIN | EPOLLOUT;
    link->io = (struct io_source){.fd = ac->c.fd, .on_ready = on_link_ready};
    link->flush = (struct task){.run = on_link_flush};
    error = loop_add(loop, &link->io, link->armed);
    if (error != ERR_NONE)
        goto out;
    ac->data = link;
    ac->ev.data = link;
    ac->ev.addRead = hook_add_read;
    ac->ev.delRead = hook_del_read;
    ac->ev.addWrite = hook_add_write;
    ac->ev.delWrite = hook_del_write;
    ac->ev.cleanup = hook_cleanup;
    *ret = link;
    return ERR_NONE;
out:
    if (ac != NULL)
        redisAsyncFree(ac);
    free(link);
    return error;
}
