/* Inside of the HTTP server: connections and calls. Included by core/httpd*.c only. */
#ifndef SLUICE_CORE_HTTPD_PRIV_H
#define SLUICE_CORE_HTTPD_PRIV_H

#include "core/http_guard.h"
#include "core/http_socket.h"
#include "core/httpd.h"

#include <microhttpd.h>

struct conn {
    struct httpd *httpd;
    struct http_guard guard;
    struct http_socket socket;
    struct io_source hangup; /* EPOLLRDHUP on the socket: libmicrohttpd does not watch a suspended connection */
    struct timer timer;      /* a slow head, a slow body, the linger of a refused one */
    struct timer stall;      /* while an answer leaves: does the reader take it? */
    uint64_t acked;
    int64_t stalled_from_ns; /* 0: it takes what is sent */
    struct call *call;
    int64_t body_from_ns;
    int refused; /* status that the connection is (or will be) closed with; 0: none */
    bool is_lingering, is_hung_up, is_body_timed, from_loopback;
    struct conn *next, **link;
};

struct call {
    struct httpd_call public;
    struct conn *conn;
    struct MHD_Connection *mhd;
    struct MHD_Response *response;
    int status;
    struct buf out; /* a stream's queue */
    size_t out_at;  /* of it already taken */
    char *uri;
    bool is_seen, is_requested, is_suspended, is_stream, is_ended, is_broken, is_gone, was_high;
    struct call *next_free;
};

struct httpd {
    struct loop *loop;
    struct MHD_Daemon *mhd;
    struct httpd_options options;
    struct http_guard_limits limits;
    size_t known_len[HTTPD_KNOWN_MAX];
    size_t known_count, connections;
    bool is_closing;
    struct io_source epoll;
    struct task run;
    struct timer tick;
    struct conn *conns;
    struct call *free_calls;
    size_t free_count;
};

static inline struct call *httpd_call_of(const struct httpd_call *public)
{
    return container_of(public, struct call, public);
}

/* httpd.c */
void httpd_wake(struct httpd *httpd); /* libmicrohttpd has something to do: it runs at the end of the turn */
void httpd_call_suspend(struct call *call);
void httpd_call_resume(struct call *call);
void httpd_call_gone(struct call *call); /* the caller has hung up: tells the owner, once, and closes */

/* httpd_conn.c: what a connection is watched for */
void httpd_on_connection(void *httpd, struct MHD_Connection *mhd, void **context,
                         enum MHD_ConnectionNotificationCode code);
void httpd_conn_refuse(struct conn *conn);                /* answers conn->refused and lets nothing more in */
void httpd_conn_watch_reader(struct conn *conn, bool on); /* while an answer leaves */

#endif
