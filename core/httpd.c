#include "core/httpd.h"
#include "core/clock.h"
#include "core/http_guard.h"
#include "core/http_pool.h"
#include "core/http_socket.h"
#include "core/log.h"
#include "core/tcp_progress.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LINGER_MS = 1000,      /* how long a refused connection may go on sending into the void */
    BODY_GRACE_MS = 10000, /* a body's rate is judged from here on */
    BODY_LOOK_MS = 1000,
    STREAM_BLOCK = 16384,
    POOL_EXTRA = 24 << 10, /* of a connection's memory beyond the head: header table, answer head, send buffer */
    LISTEN_BACKLOG = 4096,
    STALL_LOOKS = 4,     /* within write_stall_ms */
    IDLE_S = 120,        /* a kept connection without a request */
    FIELDS_BYTES = 4096, /* of an answer's fields that are given to libmicrohttpd as one */
    FIELDS_JOINED = 32,
};

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

static struct call *call_of(const struct httpd_call *public)
{
    return container_of(public, struct call, public);
}

/* -- refusing -- */

static void conn_refuse_now(struct conn *conn)
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
        conn_refuse_now(conn);
        errno = EAGAIN;
        return -1;
    }
    return (ssize_t)kept; /* the messages before it are answered first: see on_completed */
}

/* -- calls -- */

static void httpd_wake(struct httpd *httpd)
{
    loop_defer(httpd->loop, &httpd->run);
}

static void call_suspend(struct call *call)
{
    call->is_suspended = call->conn->socket.is_suspended = true;
    MHD_suspend_connection(call->mhd);
}

static void call_resume(struct call *call)
{
    if (!call->is_suspended)
        return;
    call->is_suspended = call->conn->socket.is_suspended = false;
    MHD_resume_connection(call->mhd);
    httpd_wake(call->conn->httpd);
}

static void call_gone(struct call *call)
{
    struct httpd *httpd = call->conn->httpd;
    if (call->is_gone || !call->is_requested)
        return;
    call->is_gone = true;
    bool is_answered = call->response && (!call->is_stream || call->is_ended);
    if (!is_answered)
        httpd->options.ops->on_gone(httpd->options.ctx, &call->public);
    shutdown(call->conn->hangup.fd, SHUT_RDWR);
    call_resume(call);
}

static void on_hangup(struct io_source *source, uint32_t events)
{
    struct conn *conn = container_of(source, struct conn, hangup);
    conn->socket.is_drained = false;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) || conn->is_lingering)
        return;
    if (conn->call && conn->call->is_requested) {
        call_gone(conn->call);
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
        call_gone(conn->call);
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
    conn_refuse_now(conn);
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
            call_gone(conn->call);
        shutdown(conn->hangup.fd, SHUT_RDWR);
        return;
    }
    conn->acked = acked;
    timer_set(httpd->loop, timer, now + stall_look_ns(httpd));
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **context,
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

/* "http://host/path?query", as a proxy is asked, means the same as "/path?query" (RFC 9112, section 3.2.2). */
static struct str origin_form(struct str target)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < 2; i++) {
        struct str scheme = schemes[i];
        if (target.len < scheme.len || !str_eq_nocase((struct str){target.ptr, scheme.len}, scheme))
            continue;
        size_t at = scheme.len;
        while (at < target.len && target.ptr[at] != '/' && target.ptr[at] != '?')
            at++;
        if (at == target.len)
            return STR("/");
        return (struct str){target.ptr + at, target.len - at};
    }
    return target;
}

/* The first that is known of a request: its URI, before it is taken apart. Makes the call. */
static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct httpd *httpd = cls;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *conn = info ? info->socket_context : NULL;
    struct call *call = httpd->free_calls;
    if (!conn)
        return NULL;
    if (call) {
        httpd->free_calls = call->next_free;
        httpd->free_count--;
        memset(call, 0, sizeof(*call));
    } else if (!(call = calloc(1, sizeof(*call)))) {
        return NULL;
    }
    call->uri = strdup(uri);
    if (!call->uri) {
        free(call);
        return NULL;
    }
    struct str rest = origin_form(str_of(call->uri));
    call->public.path = str_next(&rest, '?');
    call->public.query = rest.ptr ? rest : STR("");
    if (!call->public.path.len)
        call->public.path = STR("/");
    call->conn = conn;
    call->mhd = mhd;
    conn->call = call;
    return call;
}

static enum MHD_Result on_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_len,
                                 const char *value, size_t value_len)
{
    struct call *call = cls;
    struct httpd *httpd = call->conn->httpd;
    (void)kind;
    for (size_t i = 0; i < httpd->known_count; i++) {
        if (httpd->known_len[i] != name_len || call->public.known[i].ptr)
            continue;
        if (str_eq_nocase((struct str){name, name_len}, (struct str){httpd->options.known[i], name_len})) {
            call->public.known[i] = (struct str){value ? value : "", value_len};
            break;
        }
    }
    return MHD_YES;
}

static void call_head(struct call *call, const char *method, const char *version)
{
    struct httpd *httpd = call->conn->httpd;
    call->is_seen = true;
    call->public.method = str_of(method);
    call->public.is_http10 = strcmp(version, "HTTP/1.0") == 0;
    call->public.from_loopback = call->conn->from_loopback;
    call->public.started_ns = loop_now(httpd->loop);
    MHD_get_connection_values_n(call->mhd, MHD_HEADER_KIND, on_header, call);
    buf_init(&call->public.body, (size_t)httpd->limits.body_bytes);
    size_t length = (size_t)call->conn->guard.length;
    /* What is announced is reserved at once, but a large claim is believed only as its bytes arrive. */
    if (length && length <= 1 << 20 && length < httpd->limits.body_bytes / 2 &&
        !buf_reserve(&call->public.body, length + 64))
        log_warn(NULL, "no memory for a request body");
    httpd->options.ops->on_head(httpd->options.ctx, &call->public);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
                                 const char *version, const char *upload, size_t *upload_len, void **context)
{
    struct httpd *httpd = cls;
    struct call *call = *context;
    (void)url;
    if (!call || call->is_gone || httpd->is_closing)
        return MHD_NO;
    if (!call->is_seen) {
        call_head(call, method, version);
        return MHD_YES;
    }
    if (*upload_len) {
        struct str bytes = {upload, *upload_len};
        *upload_len = 0;
        if (call->public.discard_body)
            return MHD_YES;
        if (!buf_append_str(&call->public.body, bytes))
            return MHD_NO;
        if (httpd->options.ops->on_body)
            httpd->options.ops->on_body(httpd->options.ctx, &call->public, bytes);
        return MHD_YES;
    }
    if (!call->is_requested) {
        call->is_requested = true;
        httpd->options.ops->on_request(httpd->options.ctx, &call->public);
    }
    if (call->is_gone) /* no memory for the answer */
        return MHD_NO;
    if (call->response)
        return MHD_queue_response(mhd, (unsigned)call->status, call->response);
    call_suspend(call);
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
    struct httpd *httpd = cls;
    struct call *call = *context;
    (void)mhd;
    if (!call)
        return;
    struct conn *conn = call->conn;
    bool is_complete = code == MHD_REQUEST_TERMINATED_COMPLETED_OK && !call->is_broken && !call->is_gone;
    if (!is_complete) {
        call->is_suspended = conn->socket.is_suspended = false; /* libmicrohttpd is closing it already */
        call_gone(call);
    }
    conn->call = NULL;
    *context = NULL;
    timer_clear(httpd->loop, &conn->stall);
    if (call->is_seen)
        httpd->options.ops->on_end(httpd->options.ctx, &call->public, is_complete);
    if (call->response)
        MHD_destroy_response(call->response);
    buf_free(&call->out);
    buf_free(&call->public.body);
    free(call->uri);
    if (httpd->free_count < 256) {
        call->next_free = httpd->free_calls;
        httpd->free_calls = call;
        httpd->free_count++;
    } else {
        free(call);
    }
    if (conn->refused && !conn->is_lingering)
        conn_refuse_now(conn);
}

/* -- answers -- */

static void response_field(struct MHD_Response *response, const struct httpd_field *field)
{
    if (MHD_add_response_header(response, field->name, field->value) != MHD_YES)
        log_warn(NULL, "header %s could not be set", field->name);
}

/* libmicrohttpd checks and copies each field for itself, which together costs more than the rest of an answer: all of
 * them go in as the value of the first one, with its line ends put in afterwards. What does not fit goes in singly. */
static void response_fields(struct MHD_Response *response, const struct httpd_field *fields, size_t count)
{
    char block[FIELDS_BYTES];
    size_t ends[FIELDS_JOINED], end_count = 0, len = 0;
    const char *name = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strlen(fields[i].name), value_len = strlen(fields[i].value);
        if (value_len == 0 || strpbrk(fields[i].value, "\r\n") || end_count == FIELDS_JOINED ||
            name_len + value_len + 5 > sizeof(block) - len) {
            response_field(response, &fields[i]);
            continue;
        }
        if (name) {
            ends[end_count++] = len;
            memcpy(block + len, "  ", 2);
            memcpy(block + len + 2, fields[i].name, name_len);
            memcpy(block + len + 2 + name_len, ": ", 2);
            len += name_len + 4;
        }
        name = name ? name : fields[i].name;
        memcpy(block + len, fields[i].value, value_len);
        len += value_len;
    }
    if (!name)
        return;
    block[len] = '\0';
    response_field(response, &(struct httpd_field){name, block});
    char *value = (char *)(uintptr_t)MHD_get_response_header(response, name);
    for (size_t i = 0; value && i < end_count; i++)
        memcpy(value + ends[i], "\r\n", 2);
}

static void call_answered(struct call *call, int status)
{
    call->status = status;
    struct conn *conn = call->conn;
    struct httpd *httpd = conn->httpd;
    if (!call->response) /* out of memory: the connection closes without an answer */
        call->is_gone = true;
    conn->stalled_from_ns = 0;
    timer_set(httpd->loop, &conn->stall, loop_now(httpd->loop) + stall_look_ns(httpd));
    call_resume(call);
}

void httpd_answer(struct httpd_call *public, int status, const struct httpd_field *fields, size_t count,
                  struct buf *take_body)
{
    struct call *call = call_of(public);
    assert(!call->response);
    if (call->is_gone) {
        buf_free(take_body);
        return;
    }
    struct buf body = {0};
    if (take_body) {
        body = *take_body;
        *take_body = (struct buf){0};
    }
    call->response = MHD_create_response_from_buffer(body.len, body.ptr, MHD_RESPMEM_MUST_FREE);
    if (call->response)
        response_fields(call->response, fields, count);
    else
        free(body.ptr);
    call_answered(call, status);
}

static ssize_t stream_read(void *cls, uint64_t position, char *to, size_t max)
{
    struct call *call = cls;
    struct httpd *httpd = call->conn->httpd;
    (void)position;
    size_t left = call->out.len - call->out_at;
    if (left == 0) {
        if (call->is_broken || call->is_gone)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (call->is_ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        call_suspend(call);
        return 0;
    }
    size_t taken = left < max ? left : max;
    memcpy(to, call->out.ptr + call->out_at, taken);
    call->out_at += taken;
    if (call->out_at == call->out.len) {
        buf_clear(&call->out);
        call->out_at = 0;
    }
    if (call->was_high && call->out.len - call->out_at < HTTPD_STREAM_LOW) {
        call->was_high = false;
        if (!call->is_ended && !call->is_broken)
            httpd->options.ops->on_drained(httpd->options.ctx, &call->public);
    }
    return (ssize_t)taken;
}

void httpd_stream(struct httpd_call *public, int status, const struct httpd_field *fields, size_t count)
{
    struct call *call = call_of(public);
    assert(!call->response);
    if (call->is_gone)
        return;
    call->is_stream = true;
    buf_init(&call->out, 0);
    call->response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, call, NULL);
    if (call->response)
        response_fields(call->response, fields, count);
    call_answered(call, status);
}

bool httpd_write(struct httpd_call *public, struct str bytes)
{
    struct call *call = call_of(public);
    if (call->is_gone)
        return true;
    assert(call->is_stream && !call->is_ended && !call->is_broken);
    if (call->out_at > HTTPD_STREAM_HIGH) {
        buf_drop_front(&call->out, call->out_at);
        call->out_at = 0;
    }
    if (!buf_append_str(&call->out, bytes))
        return false;
    if (call->out.len - call->out_at > HTTPD_STREAM_HIGH)
        call->was_high = true;
    call_resume(call);
    return true;
}

size_t httpd_queued(const struct httpd_call *public)
{
    const struct call *call = call_of(public);
    return call->out.len - call->out_at;
}

void httpd_finish(struct httpd_call *public, const struct httpd_field *trailers, size_t count)
{
    struct call *call = call_of(public);
    if (call->is_gone)
        return;
    for (size_t i = 0; i < count; i++)
        if (MHD_add_response_footer(call->response, trailers[i].name, trailers[i].value) != MHD_YES)
            log_warn(NULL, "trailer %s could not be set", trailers[i].name);
    call->is_ended = true;
    call_resume(call);
}

void httpd_break(struct httpd_call *public)
{
    struct call *call = call_of(public);
    if (call->is_gone)
        return;
    call->is_broken = true;
    call_resume(call);
}

/* -- running libmicrohttpd -- */

static void httpd_turn(struct httpd *httpd)
{
    http_sockets_run(httpd->epoll.fd);
    MHD_run(httpd->mhd);
    http_sockets_run(-1);
}

static void httpd_run(struct task *task)
{
    struct httpd *httpd = container_of(task, struct httpd, run);
    MHD_UNSIGNED_LONG_LONG timeout;
    httpd_turn(httpd);
    if (MHD_get_timeout(httpd->mhd, &timeout) == MHD_YES && timeout == 0)
        httpd_wake(httpd);
}

static void on_epoll(struct io_source *source, uint32_t events)
{
    (void)events;
    httpd_wake(container_of(source, struct httpd, epoll));
}

/* libmicrohttpd looks at its time-outs only when it runs. */
static void on_tick(struct timer *timer)
{
    struct httpd *httpd = container_of(timer, struct httpd, tick);
    httpd_wake(httpd);
    timer_set(httpd->loop, timer, loop_now(httpd->loop) + NS_PER_S);
}

static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

static void on_mhd_log(void *cls, const char *format, va_list args) PRINTF_LIKE(2, 0);
static void on_mhd_log(void *cls, const char *format, va_list args)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof(text), format, args);
    log_debug(NULL, "libmicrohttpd: " STR_FMT, STR_ARG(str_trim(str_of(text))));
}

/* SO_REUSEPORT would let us in beside a stranger of the same user: a socket without it tells whether one is there. */
static bool is_taken(const struct addrinfo *at)
{
    int on = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
                 bind(fd, at->ai_addr, at->ai_addrlen) != 0 && errno == EADDRINUSE;
    if (fd >= 0)
        close(fd);
    return taken;
}

enum error httpd_listen(const char *address, bool is_first, int *ret_fd, uint16_t *ret_port)
{
    char host[256];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    const char *colon = strrchr(address, ':');
    if (!colon || !str_copy(host, sizeof(host), (struct str){address, (size_t)(colon - address)}))
        return ERR_BAD_INPUT;
    size_t host_len = strlen(host);
    char *name = host;
    if (host_len > 2 && host[0] == '[' && host[host_len - 1] == ']') {
        host[host_len - 1] = '\0';
        name++;
    }
    if (getaddrinfo(*name ? name : NULL, colon + 1, &hints, &found) != 0)
        return ERR_BAD_INPUT;
    if (is_first && is_taken(found)) {
        freeaddrinfo(found);
        errno = EADDRINUSE;
        return ERR_EXISTS;
    }
    int on = 1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    enum error error = ERR_SYSTEM;
    struct sockaddr_storage bound;
    socklen_t bound_len = sizeof(bound);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0 &&
        bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0 &&
        getsockname(fd, (struct sockaddr *)&bound, &bound_len) == 0) {
        *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
        *ret_fd = fd;
        error = ERR_NONE;
    } else if (fd >= 0) {
        error = errno == EADDRINUSE ? ERR_EXISTS : ERR_SYSTEM;
        close(fd);
    }
    freeaddrinfo(found);
    return error;
}

enum error httpd_open(struct loop *loop, const struct httpd_options *options, struct httpd **ret)
{
    struct httpd *httpd = calloc(1, sizeof(*httpd));
    if (!httpd || !http_sockets_init()) {
        free(httpd);
        return ERR_NO_MEMORY;
    }
    httpd->loop = loop;
    httpd->options = *options;
    httpd->limits = (struct http_guard_limits){options->head_bytes, options->body_bytes};
    while (httpd->known_count < HTTPD_KNOWN_MAX && options->known[httpd->known_count]) {
        httpd->known_len[httpd->known_count] = strlen(options->known[httpd->known_count]);
        httpd->known_count++;
    }
    httpd->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access, httpd,
        MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, options->listen_fd,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, options->head_bytes + POOL_EXTRA, MHD_OPTION_CONNECTION_LIMIT,
        options->connections_max, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S, MHD_OPTION_URI_LOG_CALLBACK, on_uri,
        httpd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, httpd, MHD_OPTION_NOTIFY_CONNECTION, on_connection, httpd,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = httpd->mhd ? MHD_get_daemon_info(httpd->mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        free(httpd);
        return ERR_SYSTEM;
    }
    httpd->epoll = (struct io_source){.fd = info->epoll_fd, .on_ready = on_epoll};
    if (!http_pool_is_ours())
        log_info(NULL, "libmicrohttpd %s: its own memory pools are used, which are slower", MHD_get_version());
    httpd->run.run = httpd_run;
    httpd->tick.on_due = on_tick;
    enum error error = loop_add(loop, &httpd->epoll, EPOLLIN);
    if (error != ERR_NONE) {
        httpd_free(httpd);
        return error;
    }
    timer_set(loop, &httpd->tick, loop_now(loop) + NS_PER_S);
    httpd_wake(httpd);
    *ret = httpd;
    return ERR_NONE;
}

void httpd_quiesce(struct httpd *httpd)
{
    int fd = MHD_quiesce_daemon(httpd->mhd);
    if (fd >= 0)
        close(fd);
}

struct httpd *httpd_free(struct httpd *httpd)
{
    if (!httpd)
        return NULL;
    int epoll_fd = httpd->epoll.fd;
    loop_remove(httpd->loop, &httpd->epoll);
    timer_clear(httpd->loop, &httpd->tick);
    /* A suspended connection must be resumed before the daemon stops, and none may be suspended anew. */
    httpd->is_closing = true;
    for (struct conn *conn = httpd->conns; conn; conn = conn->next)
        if (conn->call)
            call_gone(conn->call);
    httpd_turn(httpd);
    http_sockets_run(epoll_fd);
    MHD_stop_daemon(httpd->mhd);
    http_sockets_run(-1);
    loop_undefer(httpd->loop, &httpd->run);
    while (httpd->free_calls) {
        struct call *call = httpd->free_calls;
        httpd->free_calls = call->next_free;
        free(call);
    }
    free(httpd);
    return NULL;
}

size_t httpd_connections(const struct httpd *httpd)
{
    return httpd->connections;
}
