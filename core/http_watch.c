#include "core/http_watch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define WATCHES_POOLED_MAX 64

struct http_watch {
    struct io_source io;
    struct http_watches *set;
    const CURL *easy;                /* that it was first watched for; only compared */
    struct http_watch *next, **link; /* live ones; or the pool by next */
};

static void watch_on_ready(struct io_source *source, uint32_t events)
{
    struct http_watch *watch = container_of(source, struct http_watch, io);
    int mask = (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP) ? CURL_CSELECT_IN : 0) |
               (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) | (events & EPOLLERR ? CURL_CSELECT_ERR : 0);
    watch->set->on_ready(watch->set->ctx, source->fd, mask);
}

static void watch_release(struct http_watch *watch)
{
    struct http_watches *set = watch->set;
    loop_remove(set->loop, &watch->io);
    *watch->link = watch->next;
    if (watch->next)
        watch->next->link = watch->link;
    if (set->pool_count >= WATCHES_POOLED_MAX) {
        free(watch);
        return;
    }
    watch->next = set->pool;
    set->pool = watch;
    set->pool_count++;
}

static struct http_watch *watch_take(struct http_watches *set, const CURL *easy, curl_socket_t fd)
{
    struct http_watch *watch = set->pool;
    if (watch) {
        set->pool = watch->next;
        set->pool_count--;
        memset(watch, 0, sizeof(*watch));
    } else if (!(watch = calloc(1, sizeof(*watch)))) {
        return NULL;
    }
    watch->set = set;
    watch->easy = easy;
    watch->io.fd = fd;
    watch->io.on_ready = watch_on_ready;
    watch->next = set->live;
    watch->link = &set->live;
    if (set->live)
        set->live->link = &watch->next;
    set->live = watch;
    return watch;
}

int http_watches_set(CURL *easy, curl_socket_t fd, int what, void *ctx, void *socket_ctx)
{
    struct http_watches *set = ctx;
    struct http_watch *watch = socket_ctx;
    if (what == CURL_POLL_REMOVE) {
        if (watch)
            watch_release(watch);
        curl_multi_assign(set->multi, fd, NULL);
        return 0;
    }
    uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U);
    bool is_new = !watch;
    if (is_new && !(watch = watch_take(set, easy, fd)))
        return -1;
    enum error error = is_new ? loop_add(set->loop, &watch->io, events) : loop_modify(set->loop, &watch->io, events);
    if (error && is_new)
        watch_release(watch);
    else if (is_new)
        curl_multi_assign(set->multi, fd, watch);
    return error ? -1 : 0;
}

void http_watches_leave(struct http_watches *set, const CURL *easy)
{
    for (struct http_watch *watch = set->live; watch; watch = watch->next)
        if (watch->easy == easy)
            loop_remove(set->loop, &watch->io);
}

void http_watches_free(struct http_watches *set)
{
    while (set->live)
        watch_release(set->live);
    while (set->pool) {
        struct http_watch *next = set->pool->next;
        free(set->pool);
        set->pool = next;
    }
}
