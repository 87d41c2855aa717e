#include "core/http_socket.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define OURS (UINT64_C(1) << 63) /* in an event's data: a struct http_socket, and no address of libmicrohttpd's own */

static _Atomic(struct http_socket *) *socket_by_fd;
static size_t socket_by_fd_count;
static _Thread_local int running_epoll_fd = -1;

ssize_t __real_recv(int fd, void *to, size_t len, int flags);
ssize_t __wrap_recv(int fd, void *to, size_t len, int flags);
int __real_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int __real_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);
int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms);

bool http_sockets_init(void)
{
    struct rlimit limit;
    if (socket_by_fd)
        return true;
    size_t count = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1048576 ? limit.rlim_cur : 1048576;
    socket_by_fd = calloc(count, sizeof(*socket_by_fd));
    socket_by_fd_count = socket_by_fd ? count : 0;
    return socket_by_fd != NULL;
}

bool http_socket_add(struct http_socket *socket)
{
    if (socket->fd < 0 || (size_t)socket->fd >= socket_by_fd_count)
        return false;
    atomic_store_explicit(&socket_by_fd[socket->fd], socket, memory_order_release);
    return true;
}

void http_socket_remove(struct http_socket *socket)
{
    atomic_store_explicit(&socket_by_fd[socket->fd], NULL, memory_order_release);
    if (socket->is_added && !socket->is_wanted) /* libmicrohttpd believes that it is out already */
        (void)__real_epoll_ctl(socket->epoll_fd, EPOLL_CTL_DEL, socket->fd, NULL);
}

static struct http_socket *socket_of(int fd)
{
    bool is_known = fd >= 0 && (size_t)fd < socket_by_fd_count;
    return is_known ? atomic_load_explicit(&socket_by_fd[fd], memory_order_acquire) : NULL;
}

void http_sockets_run(int epoll_fd)
{
    running_epoll_fd = epoll_fd;
}

ssize_t http_socket_recv(struct http_socket *socket, char *to, size_t len, int flags)
{
    if (socket->is_drained) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t got = __real_recv(socket->fd, to, len, flags);
    /* The epoll is edge-triggered: what comes from here on shows as an event, so this holds only for a socket in it. */
    socket->is_drained = socket->is_added && (got < 0 ? errno == EAGAIN : got > 0 && (size_t)got < len);
    return got;
}

ssize_t __wrap_recv(int fd, void *to, size_t len, int flags)
{
    struct http_socket *socket = socket_of(fd);
    return socket ? socket->on_recv(socket, to, len, flags) : __real_recv(fd, to, len, flags);
}

int __wrap_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    struct http_socket *socket = epoll_fd == running_epoll_fd ? socket_of(fd) : NULL;
    if (!socket || socket->epoll_fd != epoll_fd)
        return __real_epoll_ctl(epoll_fd, op, fd, event);
    if (op == EPOLL_CTL_ADD) {
        socket->watcher = event->data.ptr;
        if (!socket->is_added) {
            struct epoll_event own = {.events = event->events, .data = {.u64 = (uintptr_t)socket | OURS}};
            if (__real_epoll_ctl(epoll_fd, op, fd, &own) != 0)
                return -1;
        }
        socket->is_added = socket->is_wanted = true;
        return 0;
    }
    if (op == EPOLL_CTL_DEL && socket->is_suspended && socket->is_added) {
        socket->is_wanted = false;
        return 0;
    }
    if (op == EPOLL_CTL_DEL)
        socket->is_added = socket->is_wanted = false;
    return __real_epoll_ctl(epoll_fd, op, fd, event);
}

int __wrap_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout_ms)
{
    int count = __real_epoll_wait(epoll_fd, events, max, timeout_ms), kept = 0;
    if (epoll_fd != running_epoll_fd)
        return count;
    for (int i = 0; i < count; i++) {
        struct epoll_event event = events[i];
        if (event.data.u64 & OURS) {
            struct http_socket *socket = (void *)(uintptr_t)(event.data.u64 & ~OURS);
            if (event.events & ~(uint32_t)EPOLLOUT)
                socket->is_drained = false;
            if (socket->is_suspended)
                continue;
            event.data.ptr = socket->watcher;
        }
        events[kept++] = event;
    }
    return count < 0 ? count : kept;
}
