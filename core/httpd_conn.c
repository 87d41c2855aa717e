/* A connection of the HTTP server: strict framing, slow senders, hang-ups, stalled readers. */
#include "core/clock.h"
#include "core/httpd_priv.h"
#include "core/log.h"
#include "core/tcp_progress.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    LINGER_MS = 1000,      /* how long a refused connection may go on sending into the void */
    BODY_GRACE_MS = 10000, /* a body's rate is judged from here on */
    BODY_LOOK_MS = 1000,
    STALL_LOOKS = 4, /* within write_stall_ms */
};

/* -- refusing -- */

void httpd_conn_refuse(struct conn *conn)
{
    struct httpd *httpd = conn->httpd;
    struct buf response;
    buf_init(&response, 65536);
    httpd->options.ops->refuse(httpd->options.ctx, conn->refused, &response);
    /* One attempt: a peer that does not even take a few hundred bytes gets none. */
    ssize_t sent = send(conn->hangup.fd, response.ptr, response.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < (ssize_t)response.len)
        log_debug(NULL, "a refused client did not take its answer");
    buf_free(&response);
    shutdown(conn->hangup.fd, SHUT_WR);
    conn->is_lingering = true;
    timer_set(httpd->loop, &conn->timer, loop_now(httpd->loop) + LINGER_MS * NS_PER_MS);
}

static int refusal_status(enum http_guard_verdict verdict)
{
    switch (verdict) {
    case HTTP_GUARD_HEAD_TOO_LARGE:
        return 431;
    case HTTP_GUARD_BODY_TOO_LARGE:
        return 413;
    case HTTP_GUARD_UNKNOWN_CODING:
        return 501;
    case HTTP_GUARD_UNKNOWN_VERSION:
        return 505;
    default:
        return 400;
    }
}

static void conn_time_phase(struct conn *conn)
{
    struct loop *loop = conn->httpd->loop;
    enum http_guard_phase phase = http_guard_phase(&conn->guard);
    if (conn->is_hung_up)
        return;
    if (phase == HTTP_GUARD_IDLE) {
        conn->is_body_timed = false;
        timer_clear(loop, &conn->timer);
    } else if (phase == HTTP_GUARD_HEAD) {
        if (!timer_is_set(&conn->timer) || conn->is_body_timed)
            timer_set(loop, &conn->timer, loop_now(loop) + conn->httpd->options.head_ms * NS_PER_MS);
        conn->is_body_timed = false;
    } else if (!conn->is_body_timed) {
        conn->is_body_timed = true;
        conn->body_from_ns = loop_now(loop);
        timer_set(loop, &conn->timer, conn->body_from_ns + BODY_GRACE_MS * NS_PER_MS);
    }
}

/* libmicrohttpd's recv. */
static ssize_t on_recv(struct http_socket *socket, char *to, size_t len, int flags)
{
    struct conn *conn = container_of(socket, struct conn, socket);
    enum http_guard_verdict verdict;
    ssize_t got = http_socket_recv(socket, to, len, flags);
    if (got <= 0)
        return got;
    if (conn->refused) { /* nothing after a refused message is looked at */
        errno = EAGAIN;
        return -1;
    }
    size_t kept = http_guard_feed(&conn->guard, to, (size_t)got, &verdict);
    if (verdict == HTTP_GUARD_OK) {
        conn_time_phase(conn);
        return got;
    }
    conn->refused = refusal_status(verdict);
    if (kept == 0) {
        httpd_conn_refuse(conn);
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t)kept; /* the messages before it are answered first: see on_completed */
}

static void on_hangup(struct io_source *source, uint32_t events)
{
    struct conn *conn = container_of(source, struct conn, hangup);
    conn->socket.is_drained = false;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) || conn->is_lingering)
        return;
    if (conn->call && conn->call->is_requested) {
        httpd_call_gone(conn->call);
        return;
    }
    /* What was sent before the end may be unread still, and libmicrohttpd gets no second edge for an end that came
     * with it: look again when it has read. */
    conn->is_hung_up = true;
    timer_set(conn->httpd->loop, &conn->timer, loop_now(conn->httpd->loop));
}

static void on_conn_timer(struct timer *timer)
{
    struct conn *conn = container_of(timer, struct conn, timer);
    struct httpd *httpd = conn->httpd;
    int64_t now = loop_now(httpd->loop);
    if (conn->is_hung_up && conn->call && conn->call->is_requested) {
        httpd_call_gone(conn->call);
        return;
    }
    if (conn->is_lingering || conn->is_hung_up) {
        shutdown(conn->hangup.fd, SHUT_RDWR); /* its event makes libmicrohttpd close it */
        return;
    }
    if (conn->call && conn->call->is_requested) { /* what comes behind a request is read when that is answered */
        conn->body_from_ns = now;
        timer_set(httpd->loop, timer, now + httpd->options.head_ms * NS_PER_MS);
        return;
    }
    if (conn->is_body_timed) {
        int64_t span_ms = (now - conn->body_from_ns) / NS_PER_MS;
        if ((int64_t)http_guard_body_seen(&conn->guard) * 1000 >= httpd->options.body_min_bps * span_ms) {
            timer_set(httpd->loop, timer, now + BODY_LOOK_MS * NS_PER_MS);
            return;
        }
    }
    conn->refused = 408;
    httpd_conn_refuse(conn);
}

static int64_t stall_look_ns(const struct httpd *httpd)
{
    return httpd->options.write_stall_ms * NS_PER_MS / STALL_LOOKS;
}

/* A reader that takes nothing of what waits for it, look after look, is cut off: bytes that a stream has sent just
 * before a single look are no sign. */
static void on_stall_timer(struct timer *timer)
{
    struct conn *conn = container_of(timer, struct conn, stall);
    struct httpd *httpd = conn->httpd;
    uint64_t acked = conn->acked;
    bool waits = false;
    int64_t now = loop_now(httpd->loop);
    bool is_known = tcp_progress(conn->hangup.fd, &acked, &waits);
    if (!is_known || !waits || acked != conn->acked)
        conn->stalled_from_ns = 0;
    else if (!conn->stalled_from_ns)
        conn->stalled_from_ns = now;
    if (conn->stalled_from_ns && now - conn->stalled_from_ns >= (STALL_LOOKS - 1) * stall_look_ns(httpd)) {
        if (conn->call)
            httpd_call_gone(conn->call);
        shutdown(conn->hangup.fd, SHUT_RDWR);
        return;
    }
    conn->acked = acked;
    timer_set(httpd->loop, timer, now + stall_look_ns(httpd));
}

void httpd_conn_watch_reader(struct conn *conn, bool on)
{
    struct loop *loop = conn->httpd->loop;
    conn->stalled_from_ns = 0;
    if (on)
        timer_set(loop, &conn->stall, loop_now(loop) + stall_look_ns(conn->httpd));
    else
        timer_clear(loop, &conn->stall);
}

void httpd_on_connection(void *cls, struct MHD_Connection *mhd, void **context,
                         enum MHD_ConnectionNotificationCode code)
{
    struct httpd *httpd = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct conn *conn = calloc(1, sizeof(*conn));
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (conn && info)
            conn->socket =
                (struct http_socket){.fd = info->connect_fd, .epoll_fd = httpd->epoll.fd, .on_recv = on_recv};
        if (!conn || !info || !http_socket_add(&conn->socket)) {
            free(conn);
            if (info)
                shutdown(info->connect_fd, SHUT_RDWR);
            return;
        }
        conn->httpd = httpd;
        conn->hangup = (struct io_source){.fd = info->connect_fd, .on_ready = on_hangup};
        conn->timer.on_due = on_conn_timer;
        conn->stall.on_due = on_stall_timer;
        http_guard_init(&conn->guard, &httpd->limits);
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const struct sockaddr *peer = info ? info->client_addr : NULL;
        if (peer && peer->sa_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)peer;
            conn->from_loopback = (ntohl(in->sin_addr.s_addr) >> 24) == 127;
        } else if (peer && peer->sa_family == AF_INET6) {
            const struct sockaddr_in6 *in = (const void *)peer;
            conn->from_loopback = IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
        }
        conn->next = httpd->conns;
        conn->link = &httpd->conns;
        if (conn->next)
            conn->next->link = &conn->next;
        httpd->conns = conn;
        httpd->connections++;
        if (loop_add(httpd->loop, &conn->hangup, EPOLLRDHUP | EPOLLET) != ERR_NONE)
            shutdown(conn->hangup.fd, SHUT_RDWR);
        *context = conn;
        return;
    }
    struct conn *conn = *context;
    if (!conn)
        return;
    http_socket_remove(&conn->socket);
    loop_remove(httpd->loop, &conn->hangup);
    timer_clear(httpd->loop, &conn->timer);
    timer_clear(httpd->loop, &conn->stall);
    *conn->link = conn->next;
    if (conn->next)
        conn->next->link = conn->link;
    httpd->connections--;
    free(conn);
    *context = NULL;
}
