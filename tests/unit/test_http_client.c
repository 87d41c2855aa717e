/* core/http_client against a small server on threads of this process, which misbehaves as its path says. */
#include "core/http_client.h"
#include "core/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FLOOD_BYTES ((size_t)48 << 20)
#define TRICKLE_CHUNKS 5
#define PATIENCE_NS (20 * NS_PER_S)
#define BODY_MAX 300000

static struct {
    int fd, port;
    pthread_t thread;
    atomic_int connections, threads;
    atomic_int dropped;     /* requests read and not answered */
    atomic_int closed;      /* connections that the server has closed */
    atomic_int taken;       /* chunks that the client has seen */
    atomic_size_t flooded;  /* bytes that the socket took */
    atomic_bool is_stalled; /* the socket took nothing for a while */
    atomic_llong closed_ns; /* when a hanging exchange saw the client go */
} server;

/* What the client takes off its epoll must still be open: a closed number may be another thread's file by then. */
static atomic_int late_removals;

int epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event)
{
    int result = (int)syscall(SYS_epoll_ctl, epoll_fd, op, fd, event);
    if (op == EPOLL_CTL_DEL && result != 0)
        atomic_fetch_add(&late_removals, 1);
    return result;
}

static void put(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void serve_flood(int fd)
{
    static const char block[65536];
    put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 50331648\r\n\r\n");
    size_t sent = 0;
    while (sent < FLOOD_BYTES) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        if (poll(&wait, 1, 200) == 0) {
            atomic_store(&server.is_stalled, true);
            continue;
        }
        size_t left = FLOOD_BYTES - sent;
        ssize_t n = send(fd, block, left < sizeof(block) ? left : sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            return;
        sent += (size_t)n;
        atomic_store(&server.flooded, sent);
    }
}

static void serve_trickle(int fd)
{
    put(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Case: Kept\r\n\r\n");
    for (int i = 0; i < TRICKLE_CHUNKS; i++) {
        put(fd, "4\r\nabcd\r\n");
        int64_t give_up = clock_mono_ns() + PATIENCE_NS;
        while (atomic_load(&server.taken) <= i && clock_mono_ns() < give_up)
            usleep(200);
    }
    put(fd, "0\r\nX-Trailer: t\r\n\r\n");
}

static void wait_for_close(int fd)
{
    char byte;
    while (read(fd, &byte, 1) > 0)
        ;
    atomic_store(&server.closed_ns, clock_mono_ns());
}

static void serve_echo(int fd, const char *head, const char *body, size_t len)
{
    char answer[2048];
    const char *type = strstr(head, "Content-Type:");
    const char *expect = strstr(head, "Expect:");
    snprintf(answer, sizeof(answer),
             "HTTP/1.1 201 Created\r\nX-Line: %.*s\r\nX-Key: %s\r\nX-Type: %s\r\nContent-Length: %zu\r\n\r\n%.*s",
             (int)strcspn(head, "\r"), head, strstr(head, "X-Key: secret") ? "yes" : "no",
             type || expect ? "yes" : "no", len, (int)len, body);
    put(fd, answer);
}

/* False: close the connection. */
static bool serve_one(int fd, const char *head, const char *body, size_t len)
{
    const char *path = strchr(head, ' ');
    path = path ? path + 1 : "";
    if (!strncmp(path, "/echo", 5)) {
        serve_echo(fd, head, body, len);
        return true;
    }
    if (!strncmp(path, "/trickle", 8)) {
        serve_trickle(fd);
        return true;
    }
    if (!strncmp(path, "/redirect", 9)) {
        put(fd, "HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n\r\n");
        return true;
    }
    if (!strncmp(path, "/flood", 6))
        serve_flood(fd);
    else if (!strncmp(path, "/hang", 5))
        put(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    else if (!strncmp(path, "/short", 6))
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc");
    else if (!strncmp(path, "/cut", 4))
        put(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    else if (!strncmp(path, "/garbage", 8))
        put(fd, "no http at all\r\n\r\n");
    else if (!strncmp(path, "/bighead", 8)) {
        put(fd, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 100; i++)
            put(fd, "X-Filler: 0123456789012345678901234567890123456789\r\n");
        put(fd, "Content-Length: 0\r\n\r\n");
    } else if (!strncmp(path, "/bye", 4))
        put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye");
    else if (!strncmp(path, "/drop", 5))
        atomic_fetch_add(&server.dropped, 1);
    if (!strncmp(path, "/drop/reset", 11)) {
        struct linger now = {.l_onoff = 1};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    if (!strncmp(path, "/hang", 5) || !strncmp(path, "/never", 6))
        wait_for_close(fd);
    return false;
}

static void *serve_connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char bytes[BODY_MAX + 8192];
    size_t have = 0;
    for (;;) {
        bytes[have] = '\0';
        char *end = strstr(bytes, "\r\n\r\n");
        const char *length = strstr(bytes, "Content-Length: ");
        size_t body = end && length && length < end ? strtoul(length + 16, NULL, 10) : 0;
        if (end && have >= (size_t)(end + 4 - bytes) + body) {
            size_t used = (size_t)(end + 4 - bytes) + body;
            if (!serve_one(fd, bytes, end + 4, body))
                break;
            memmove(bytes, bytes + used, have - used);
            have -= used;
            continue;
        }
        ssize_t n = read(fd, bytes + have, sizeof(bytes) - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    atomic_fetch_add(&server.closed, 1);
    atomic_fetch_sub(&server.threads, 1);
    return NULL;
}

static void *serve(void *arg)
{
    (void)arg;
    int fd;
    while ((fd = accept(server.fd, NULL, NULL)) >= 0) {
        int small = 65536;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        atomic_fetch_add(&server.connections, 1);
        atomic_fetch_add(&server.threads, 1);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static int listen_anywhere(int *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *ret_port = ntohs(at.sin_port);
    return fd;
}

struct exchange {
    struct http_fetch *fetch;
    struct buf body;
    size_t received, headers, heads;
    int status, ends;
    enum http_end end;
    bool was_answered;
    bool pause_at_data, cancel_at_data, is_paused, got_data_while_paused;
    struct exchange *cancel_other; /* at the first data */
    char line[128], key[8], type[8], mixed[16];
};

static struct loop *loop;
static struct http_client *client;

static void on_head(void *ctx, int status, const struct http_header *headers, size_t count)
{
    struct exchange *x = ctx;
    x->status = status;
    x->headers = count;
    x->heads++;
    for (size_t i = 0; i < count; i++) {
        if (str_eq(headers[i].name, STR("x-line")))
            assert_true(str_copy(x->line, sizeof(x->line), headers[i].value));
        if (str_eq(headers[i].name, STR("x-key")))
            assert_true(str_copy(x->key, sizeof(x->key), headers[i].value));
        if (str_eq(headers[i].name, STR("x-type")))
            assert_true(str_copy(x->type, sizeof(x->type), headers[i].value));
        if (str_eq(headers[i].name, STR("x-case")))
            assert_true(str_copy(x->mixed, sizeof(x->mixed), headers[i].value));
    }
}

static void on_data(void *ctx, struct str bytes)
{
    struct exchange *x = ctx;
    assert_int_equal(x->ends, 0);
    x->got_data_while_paused = x->got_data_while_paused || x->is_paused;
    x->received += bytes.len;
    if (x->received < 4096)
        assert_true(buf_append_str(&x->body, bytes));
    atomic_store(&server.taken, (int)(x->received / 4));
    if (x->pause_at_data) {
        x->pause_at_data = false;
        x->is_paused = true;
        http_fetch_pause(x->fetch, true);
    }
    if (x->cancel_at_data)
        http_fetch_cancel(x->fetch);
    if (x->cancel_other)
        http_fetch_cancel(x->cancel_other->fetch);
    x->cancel_other = NULL;
}

static void on_end(void *ctx, enum http_end end)
{
    struct exchange *x = ctx;
    x->ends++;
    x->end = end;
    x->was_answered = x->fetch && http_fetch_was_answered(x->fetch);
}

static struct http_request request_of(struct exchange *x, const char *method, const char *path, char *url, int port)
{
    memset(x, 0, sizeof(*x));
    snprintf(url, 64, "http://127.0.0.1:%d%s", port, path);
    return (struct http_request){
        .method = method, .url = url, .on_head = on_head, .on_data = on_data, .on_end = on_end, .ctx = x};
}

static void start(struct exchange *x, const struct http_request *request)
{
    assert_int_equal(http_fetch_start(client, request, &x->fetch), ERR_NONE);
    assert_int_equal(x->ends, 0);
}

#define turn_until(condition)                             \
    do {                                                  \
        int64_t give_up_ = clock_mono_ns() + PATIENCE_NS; \
        while (!(condition)) {                            \
            loop_turn(loop, 5 * NS_PER_MS);               \
            assert_true(clock_mono_ns() < give_up_);      \
        }                                                 \
    } while (0)

static void run_as(struct exchange *x, const struct http_request *request, enum http_end end)
{
    start(x, request);
    turn_until(x->ends);
    assert_int_equal(x->ends, 1);
    assert_int_equal(x->end, end);
    x->fetch = NULL;
}

static void run_path(struct exchange *x, const char *path, enum http_end end)
{
    char url[64];
    struct http_request request = request_of(x, "GET", path, url, server.port);
    run_as(x, &request, end);
}

static void test_plain(void **state)
{
    (void)state;
    static const struct {
        const char *method, *body, *line;
    } cases[] = {
        {"GET", NULL, "GET /echo?a=b HTTP/1.1"},       {"POST", "hello", "POST /echo?a=b HTTP/1.1"},
        {"POST", "", "POST /echo?a=b HTTP/1.1"},       {"PUT", "put it", "PUT /echo?a=b HTTP/1.1"},
        {"DELETE", NULL, "DELETE /echo?a=b HTTP/1.1"}, {"GET", "odd", "GET /echo?a=b HTTP/1.1"},
        {"GET", NULL, "GET /echo?a=b HTTP/1.1"},
    };
    setenv("http_proxy", "http://127.0.0.1:9", 1);
    int before = atomic_load(&server.connections);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct exchange x;
        char url[64];
        struct http_request request = request_of(&x, cases[i].method, "/echo?a=b", url, server.port);
        struct http_header header = {STR("X-Key"), STR("secret")};
        request.headers = &header;
        request.header_count = i == 1;
        request.body = str_of(cases[i].body);
        run_as(&x, &request, HTTP_END_OK);
        assert_int_equal(x.status, 201);
        assert_string_equal(x.line, cases[i].line);
        assert_string_equal(x.key, i == 1 ? "yes" : "no");
        assert_string_equal(x.type, "no");
        assert_true(str_eq(buf_str(&x.body), cases[i].body ? str_of(cases[i].body) : STR("")));
        buf_free(&x.body);
    }
    unsetenv("http_proxy");
    assert_int_equal(atomic_load(&server.connections), before + 1); /* kept alive */
}

static void test_bad_headers(void **state)
{
    (void)state;
    static const struct http_header bad[] = {
        {{"X-A", 3}, {"a\r\nX-B: b", 9}}, {{"X-A\n", 4}, {"a", 1}}, {{"X:A", 3}, {"a", 1}}, {{"", 0}, {"a", 1}}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct exchange x;
        char url[64];
        struct http_request request = request_of(&x, "GET", "/echo", url, server.port);
        request.headers = &bad[i];
        request.header_count = 1;
        assert_int_equal(http_fetch_start(client, &request, &x.fetch), ERR_BAD_INPUT);
    }
}

/* The server sends a chunk only when the client has seen the one before. */
static void test_bytes_are_handed_on_as_they_come(void **state)
{
    (void)state;
    struct exchange x;
    atomic_store(&server.taken, 0);
    run_path(&x, "/trickle", HTTP_END_OK);
    assert_int_equal(x.status, 200);
    assert_int_equal(x.heads, 1);
    assert_string_equal(x.mixed, "Kept");
    assert_true(str_eq(buf_str(&x.body), STR("abcdabcdabcdabcdabcd")));
    buf_free(&x.body);
}

static void test_pause_bounds_what_is_read(void **state)
{
    (void)state;
    struct exchange x;
    char url[64];
    struct http_request request = request_of(&x, "GET", "/flood", url, server.port);
    request.idle_timeout_ns = 100 * NS_PER_MS; /* our own pause is no silence of the server */
    atomic_store(&server.flooded, 0);
    atomic_store(&server.is_stalled, false);
    x.pause_at_data = true;
    int closed = atomic_load(&server.closed);
    start(&x, &request);
    turn_until(atomic_load(&server.is_stalled));
    assert_true(x.is_paused);
    assert_false(x.got_data_while_paused);
    size_t at_stall = x.received;
    assert_true(atomic_load(&server.flooded) < FLOOD_BYTES / 2);
    int64_t until = clock_mono_ns() + 150 * NS_PER_MS;
    turn_until(clock_mono_ns() > until);
    assert_int_equal(x.received, at_stall);
    assert_int_equal(x.ends, 0);
    x.is_paused = false;
    http_fetch_pause(x.fetch, false);
    turn_until(x.ends);
    assert_int_equal(x.end, HTTP_END_OK);
    assert_int_equal(x.received, FLOOD_BYTES);
    buf_free(&x.body);
    turn_until(atomic_load(&server.closed) > closed); /* or the next request meets a connection that is about to go */
}

static void test_cancel_closes_at_once(void **state)
{
    (void)state;
    for (int inside = 0; inside < 2; inside++) {
        struct exchange x;
        char url[64];
        struct http_request request = request_of(&x, "GET", "/hang", url, server.port);
        atomic_store(&server.closed_ns, 0);
        x.cancel_at_data = inside;
        start(&x, &request);
        turn_until(x.received == 3 || x.ends);
        int64_t cancelled_ns = clock_mono_ns();
        if (!inside) {
            http_fetch_cancel(x.fetch);
            assert_int_equal(x.ends, 0);
            http_fetch_cancel(x.fetch);
        }
        turn_until(x.ends);
        assert_int_equal(x.end, HTTP_END_CANCELLED);
        turn_until(atomic_load(&server.closed_ns));
        assert_true(atomic_load(&server.closed_ns) - cancelled_ns < 100 * NS_PER_MS);
        assert_int_equal(x.ends, 1);
        buf_free(&x.body);
    }
}

static void test_cancel_in_every_state(void **state)
{
    (void)state;
    struct exchange fresh, paused, one, other;
    char url[64];
    struct http_request request = request_of(&fresh, "GET", "/hang", url, server.port);
    start(&fresh, &request);
    http_fetch_cancel(fresh.fetch); /* before libcurl has seen it */
    turn_until(fresh.ends);
    assert_int_equal(fresh.end, HTTP_END_CANCELLED);
    assert_int_equal(fresh.heads, 0);

    int port, deaf = listen_anywhere(&port);
    request = request_of(&fresh, "GET", "/hang", url, port);
    start(&fresh, &request);
    loop_turn(loop, 0); /* libcurl connects, and has not heard yet that it stands */
    atomic_store(&late_removals, 0);
    http_fetch_cancel(fresh.fetch);
    turn_until(fresh.ends);
    assert_int_equal(fresh.end, HTTP_END_CANCELLED);
    assert_int_equal(atomic_load(&late_removals), 0);
    close(deaf);

    request = request_of(&paused, "GET", "/flood", url, server.port);
    paused.pause_at_data = true;
    start(&paused, &request);
    turn_until(paused.is_paused);
    http_fetch_pause(paused.fetch, false); /* a resume and a cancel in one turn */
    http_fetch_cancel(paused.fetch);
    turn_until(paused.ends);
    assert_int_equal(paused.end, HTTP_END_CANCELLED);
    assert_false(paused.got_data_while_paused);

    request = request_of(&other, "GET", "/never", url, server.port);
    start(&other, &request);
    request = request_of(&one, "GET", "/hang", url, server.port);
    one.cancel_other = &other; /* from inside the callback of another fetch */
    start(&one, &request);
    turn_until(other.ends);
    assert_int_equal(other.end, HTTP_END_CANCELLED);
    assert_int_equal(one.ends, 0);
    http_fetch_cancel(one.fetch);
    turn_until(one.ends);
    assert_int_equal(one.ends + other.ends + paused.ends + fresh.ends, 4);
    buf_free(&paused.body);
    buf_free(&one.body);
}

static void test_ends(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum http_end end;
        int status;
        size_t bytes, body_max, header_max;
        int64_t total_ms, idle_ms;
    } cases[] = {
        {"/short", HTTP_END_BROKEN, 200, 3, 0, 0, 0, 0},       {"/cut", HTTP_END_BROKEN, 200, 3, 0, 0, 0, 0},
        {"/silent", HTTP_END_BROKEN, 0, 0, 0, 0, 0, 0},        {"/garbage", HTTP_END_BROKEN, 0, 0, 0, 0, 0, 0},
        {"/redirect", HTTP_END_OK, 302, 0, 0, 0, 0, 0},        {"/never", HTTP_END_DEADLINE, 0, 0, 0, 0, 30, 0},
        {"/never", HTTP_END_DEADLINE, 0, 0, 0, 0, 0, 30},      {"/hang", HTTP_END_DEADLINE, 200, 3, 0, 0, 100000, 30},
        {"/hang", HTTP_END_DEADLINE, 200, 3, 0, 0, 80, 0},     {"/hang", HTTP_END_TOO_LARGE, 200, 0, 2, 0, 0, 0},
        {"/bighead", HTTP_END_TOO_LARGE, 0, 0, 0, 2000, 0, 0}, {"/bighead", HTTP_END_OK, 200, 0, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct exchange x;
        char url[64];
        struct http_request request = request_of(&x, "GET", cases[i].path, url, server.port);
        request.body_max = cases[i].body_max;
        request.header_max = cases[i].header_max;
        request.total_timeout_ns = cases[i].total_ms * NS_PER_MS;
        request.idle_timeout_ns = cases[i].idle_ms * NS_PER_MS;
        run_as(&x, &request, cases[i].end);
        assert_int_equal(x.status, cases[i].status);
        assert_int_equal(x.was_answered, strcmp(cases[i].path, "/silent") && strcmp(cases[i].path, "/never"));
        assert_int_equal(x.received, cases[i].bytes);
        buf_free(&x.body);
    }
}

/* Leaves two connections in the client's pool: one request could go again on the other. */
static void keep_two(void)
{
    struct exchange two[2];
    char url[64];
    for (size_t i = 0; i < 2; i++) {
        struct http_request request = request_of(&two[i], "GET", "/echo", url, server.port);
        start(&two[i], &request);
    }
    turn_until(two[0].ends && two[1].ends);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(two[i].end, HTTP_END_OK);
        buf_free(&two[i].body);
    }
}

static void test_nothing_is_sent_twice(void **state)
{
    (void)state;
    static char large[BODY_MAX];
    memset(large, 'x', sizeof(large));
    static const struct {
        const char *method, *path;
        size_t body;
    } cases[] = {
        {"POST", "/drop", 5},        {"POST", "/drop", 0},
        {"POST", "/drop", BODY_MAX}, {"GET", "/drop", 0},
        {"PUT", "/drop", 5},         {"DELETE", "/drop", 0},
        {"POST", "/drop/reset", 5},  {"POST", "/drop/reset", 0},
        {"GET", "/drop/reset", 0},   {"POST", "/drop/reset", BODY_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        keep_two();
        struct exchange x;
        char url[64];
        struct http_request request = request_of(&x, cases[i].method, cases[i].path, url, server.port);
        request.body = (struct str){large, cases[i].body};
        int dropped = atomic_load(&server.dropped);
        run_as(&x, &request, HTTP_END_BROKEN);
        assert_int_equal(x.heads, 0);
        assert_false(x.was_answered);
        assert_int_equal(atomic_load(&server.dropped), dropped + 1);
        run_path(&x, "/echo", HTTP_END_OK); /* and the client goes on */
        assert_int_equal(atomic_load(&server.dropped), dropped + 1);
        buf_free(&x.body);
    }
}

static void test_connection_closed_while_idle_is_replaced(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct exchange x;
        char url[64];
        int closed = atomic_load(&server.closed);
        run_path(&x, "/bye", HTTP_END_OK);
        buf_free(&x.body);
        turn_until(atomic_load(&server.closed) > closed);
        struct http_request request = request_of(&x, "POST", "/echo", url, server.port);
        request.body = STR("hello");
        run_as(&x, &request, HTTP_END_OK);
        assert_true(str_eq(buf_str(&x.body), STR("hello")));
        buf_free(&x.body);
    }
}

static void test_unreachable(void **state)
{
    (void)state;
    int port, fd = listen_anywhere(&port);
    close(fd); /* nobody listens there now */
    struct exchange x;
    char url[64];
    struct http_request request = request_of(&x, "POST", "/echo", url, port);
    request.body = STR("hello");
    run_as(&x, &request, HTTP_END_UNREACHABLE);
    request.url = "ftp://127.0.0.1/file";
    x.ends = 0;
    run_as(&x, &request, HTTP_END_UNREACHABLE);
}

static void test_free_ends_what_is_open(void **state)
{
    (void)state;
    struct http_client *second = NULL;
    assert_int_equal(http_client_open(loop, &second), ERR_NONE);
    struct exchange x, fresh;
    char url[64];
    struct http_request request = request_of(&x, "GET", "/hang", url, server.port);
    assert_int_equal(http_fetch_start(second, &request, &x.fetch), ERR_NONE);
    turn_until(x.received == 3);
    request = request_of(&fresh, "GET", "/hang", url, server.port);
    assert_int_equal(http_fetch_start(second, &request, &fresh.fetch), ERR_NONE);
    assert_null(http_client_free(second));
    assert_int_equal(x.ends, 1);
    assert_int_equal(x.end, HTTP_END_CANCELLED);
    assert_int_equal(fresh.ends, 1);
    buf_free(&x.body);
    assert_null(http_client_free(NULL));
}

static int set_up(void **state)
{
    (void)state;
    server.fd = listen_anywhere(&server.port);
    if (pthread_create(&server.thread, NULL, serve, NULL) || loop_open(&loop) != ERR_NONE)
        return -1;
    return http_client_open(loop, &client) == ERR_NONE ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    client = http_client_free(client);
    loop = loop_free(loop);
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    while (atomic_load(&server.threads))
        usleep(1000);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_bad_headers),
        cmocka_unit_test(test_bytes_are_handed_on_as_they_come),
        cmocka_unit_test(test_pause_bounds_what_is_read),
        cmocka_unit_test(test_cancel_closes_at_once),
        cmocka_unit_test(test_cancel_in_every_state),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_nothing_is_sent_twice),
        cmocka_unit_test(test_connection_closed_while_idle_is_replaced),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_free_ends_what_is_open),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
