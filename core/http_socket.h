/* The sockets of clients as libmicrohttpd sees them: it is linked with --wrap for recv, epoll_ctl and epoll_wait.
 *
 * What it reads passes core/http_guard (httpd.c), and what it asks of the kernel for each request that waits for its
 * answer is left out: it takes a suspended connection out of its epoll and puts it back, and then reads though nothing
 * came. Here the socket stays in, events of suspended connections are kept back (a resumed connection is tried by
 * libmicrohttpd as if it were readable and writable, so none is missed), and a read that would find nothing is spared.
 */
#ifndef SLUICE_CORE_HTTP_SOCKET_H
#define SLUICE_CORE_HTTP_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct http_socket {
    int fd, epoll_fd; /* of libmicrohttpd's daemon */
    /* libmicrohttpd's recv; calls http_socket_recv for the bytes. */
    ssize_t (*on_recv)(struct http_socket *socket, char *to, size_t len, int flags);
    void *watcher;     /* what libmicrohttpd gets back with an event */
    bool is_added;     /* in the epoll */
    bool is_wanted;    /* libmicrohttpd wants its events */
    bool is_suspended; /* from just before MHD_suspend_connection to MHD_resume_connection */
    bool is_drained;   /* the kernel had nothing more, and has shown no event since */
};

bool http_sockets_init(void);                     /* once before all else; again is harmless; false: out of memory */
bool http_socket_add(struct http_socket *socket); /* by its fd; false: the descriptor is out of range */
void http_socket_remove(struct http_socket *socket);
ssize_t http_socket_recv(struct http_socket *socket, char *to, size_t len, int flags);
void http_sockets_run(int epoll_fd); /* which epoll's events belong to sockets of ours on this thread; -1: none */

#endif
