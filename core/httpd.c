#include "core/httpd.h"
#include "core/clock.h"
#include "core/http_pool.h"
#include "core/httpd_priv.h"
#include "core/log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    POOL_EXTRA = 24 << 10, /* of a connection's memory beyond the head: header table, answer head, send buffer */
    LISTEN_BACKLOG = 4096,
    IDLE_S = 120, /* a kept connection without a request */
};

/* -- calls -- */

void httpd_wake(struct httpd *httpd)
{
    loop_defer(httpd->loop, &httpd->run);
}

void httpd_call_suspend(struct call *call)
{
    call->is_suspended = call->conn->socket.is_suspended = true;
    MHD_suspend_connection(call->mhd);
}

void httpd_call_resume(struct call *call)
{
    if (!call->is_suspended)
        return;
    call->is_suspended = call->conn->socket.is_suspended = false;
    MHD_resume_connection(call->mhd);
    httpd_wake(call->conn->httpd);
}

void httpd_call_gone(struct call *call)
{
    struct httpd *httpd = call->conn->httpd;
    if (call->is_gone || !call->is_requested)
        return;
    call->is_gone = true;
    bool is_answered = call->response && (!call->is_stream || call->is_ended);
    if (!is_answered)
        httpd->options.ops->on_gone(httpd->options.ctx, &call->public);
    shutdown(call->conn->hangup.fd, SHUT_RDWR);
    httpd_call_resume(call);
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
    httpd_call_suspend(call);
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
        httpd_call_gone(call);
    }
    conn->call = NULL;
    *context = NULL;
    httpd_conn_watch_reader(conn, false);
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
        httpd_conn_refuse(conn);
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
        httpd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, httpd, MHD_OPTION_NOTIFY_CONNECTION, httpd_on_connection,
        httpd, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
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
            httpd_call_gone(conn->call);
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
