/* The HTTP server over real sockets: answers, streams, hang-ups, refusals, slow senders. One thread: the client's side
 * writes, turns the loop, and reads what is there. */
#include "core/httpd.h"
#include "core/clock.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define WAIT_NS (5 * NS_PER_S)

struct seen {
    struct loop *loop;
    struct httpd *httpd;
    uint16_t port;
    struct httpd_call *call; /* the one that waits for its answer */
    int requests, gone, ended, completed, drained, refused;
    char path[64], body[256], query[64], header[64];
    bool answer_at_once;
};

static void on_head(void *ctx, struct httpd_call *call)
{
    (void)ctx;
    assert_int_equal(call->body.len, 0);
}

static void answer_hello(struct httpd_call *call)
{
    struct buf body;
    struct httpd_field fields[] = {{"content-type", "text/plain"}, {"x-mine", "1"}};
    buf_init(&body, 0);
    assert_true(buf_append_str(&body, STR("hello")));
    httpd_answer(call, 200, fields, 2, &body);
}

static void on_request(void *ctx, struct httpd_call *call)
{
    struct seen *seen = ctx;
    seen->requests++;
    str_copy(seen->path, sizeof(seen->path), call->path);
    str_copy(seen->query, sizeof(seen->query), call->query);
    str_copy(seen->body, sizeof(seen->body), buf_str(&call->body));
    str_copy(seen->header, sizeof(seen->header), call->known[0]);
    seen->call = call;
    if (seen->answer_at_once)
        answer_hello(call);
}

static void on_gone(void *ctx, struct httpd_call *call)
{
    struct seen *seen = ctx;
    assert_ptr_equal(call, seen->call);
    seen->gone++;
}

static void on_drained(void *ctx, struct httpd_call *call)
{
    struct seen *seen = ctx;
    (void)call;
    seen->drained++;
}

static void on_end(void *ctx, struct httpd_call *call, bool is_complete)
{
    struct seen *seen = ctx;
    if (seen->call == call)
        seen->call = NULL;
    seen->ended++;
    seen->completed += is_complete;
}

static void refuse(void *ctx, int status, struct buf *ret)
{
    struct seen *seen = ctx;
    seen->refused = status;
    assert_true(buf_printf(ret, "HTTP/1.1 %d No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status));
}

static const struct httpd_ops ops = {.on_head = on_head,
                                     .on_request = on_request,
                                     .on_gone = on_gone,
                                     .on_drained = on_drained,
                                     .on_end = on_end,
                                     .refuse = refuse};

static void start_stall(struct seen *seen, int64_t head_ms, int64_t write_stall_ms)
{
    static const char *const known[] = {"x-test", NULL};
    struct httpd_options options = {.known = known,
                                    .head_bytes = 8192,
                                    .body_bytes = 1 << 20,
                                    .head_ms = head_ms,
                                    .body_min_bps = 1024,
                                    .write_stall_ms = write_stall_ms,
                                    .connections_max = 100,
                                    .ops = &ops,
                                    .ctx = seen};
    *seen = (struct seen){.answer_at_once = true};
    assert_int_equal(loop_open(&seen->loop), ERR_NONE);
    assert_int_equal(httpd_listen("127.0.0.1:0", true, &options.listen_fd, &seen->port), ERR_NONE);
    assert_int_equal(httpd_open(seen->loop, &options, &seen->httpd), ERR_NONE);
}

static void start(struct seen *seen, int64_t head_ms)
{
    start_stall(seen, head_ms, 60000);
}

static void finish(struct seen *seen)
{
    httpd_free(seen->httpd);
    loop_free(seen->loop);
}

static int dial(const struct seen *seen)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(seen->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Turns the loop until the text is in what came, or (text NULL) the server has closed. Returns what came. */
static char *hear(struct seen *seen, int fd, const char *text)
{
    static char got[65536];
    size_t len = 0;
    int64_t until = clock_mono_ns() + WAIT_NS;
    got[0] = '\0';
    while (clock_mono_ns() < until) {
        loop_turn(seen->loop, 2 * NS_PER_MS);
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, 0);
        if (n == 0 && !text)
            return got;
        if (n > 0)
            len += (size_t)n;
        got[len] = '\0';
        if (text && strstr(got, text))
            return got;
    }
    fail_msg("waited for '%s', got '%s'", text ? text : "the end", got);
    return NULL;
}

#define turn_until(seen, condition)                        \
    do {                                                   \
        int64_t turn_end = clock_mono_ns() + WAIT_NS;      \
        while (!(condition) && clock_mono_ns() < turn_end) \
            loop_turn((seen)->loop, 2 * NS_PER_MS);        \
        assert_true(condition);                            \
    } while (0)

static void test_answers(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    int fd = dial(&seen);
    say(fd, "POST /v1/a%2Fb?x=1&y HTTP/1.1\r\nHost: a\r\nX-Test: yes\r\nContent-Length: 3\r\n\r\nabc");
    char *got = hear(&seen, fd, "hello");
    assert_non_null(strstr(got, "HTTP/1.1 200"));
    assert_non_null(strstr(got, "x-mine: 1"));
    assert_string_equal(seen.path, "/v1/a%2Fb");
    assert_string_equal(seen.query, "x=1&y");
    assert_string_equal(seen.body, "abc");
    assert_string_equal(seen.header, "yes");
    /* the same connection again, and two at once */
    say(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.completed == 3);
    assert_string_equal(seen.path, "/2");
    assert_int_equal(seen.gone, 0);
    /* an answer that comes later */
    seen.answer_at_once = false;
    say(fd, "GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 4);
    answer_hello(seen.call);
    hear(&seen, fd, "hello");
    turn_until(&seen, seen.completed == 4);
    close(fd);
    finish(&seen);
}

/* Requests on one connection whose answers come late: each comes through, whenever the next is sent. */
static void test_next_request(void **state)
{
    static const char request[] = "POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, request);
    for (int i = 0; i < 40; i++) {
        bool is_early = i % 8 == 7; /* while the one before it still waits */
        turn_until(&seen, seen.requests == i + 1);
        if (is_early)
            say(fd, request);
        for (int turn = 0; turn < i % 3; turn++)
            loop_turn(seen.loop, 0);
        answer_hello(seen.call);
        for (int turn = 0; turn < i % 8; turn++)
            loop_turn(seen.loop, 0);
        if (!is_early)
            say(fd, request);
        turn_until(&seen, seen.completed == i + 1);
    }
    assert_int_equal(seen.gone, 0);
    close(fd);
    finish(&seen);
}

static void test_stream(void **state)
{
    struct seen seen;
    struct httpd_field type = {"content-type", "text/event-stream"}, trailer = {"x-cost", "1"};
    (void)state;
    start(&seen, 5000);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, "GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 1);
    httpd_stream(seen.call, 200, &type, 1);
    assert_true(httpd_write(seen.call, STR("data: 1\n\n")));
    hear(&seen, fd, "data: 1\n\n"); /* leaves before the rest is there */
    assert_true(httpd_write(seen.call, STR("data: 2\n\n")));
    httpd_finish(seen.call, &trailer, 1);
    char *got = hear(&seen, fd, "x-cost: 1\r\n\r\n");
    assert_non_null(strstr(got, "\r\n0\r\n"));
    turn_until(&seen, seen.completed == 1);
    /* a broken one has no clean end */
    say(fd, "GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 2);
    httpd_stream(seen.call, 200, &type, 1);
    assert_true(httpd_write(seen.call, STR("data: 3\n\n")));
    httpd_break(seen.call);
    got = hear(&seen, fd, NULL);
    assert_non_null(strstr(got, "data: 3\n\n"));
    assert_null(strstr(got, "\r\n0\r\n"));
    turn_until(&seen, seen.ended == 2);
    assert_int_equal(seen.completed, 1);
    close(fd);
    finish(&seen);
}

static void test_back_pressure(void **state)
{
    struct seen seen;
    struct httpd_field type = {"content-type", "text/event-stream"};
    static char block[65536];
    (void)state;
    memset(block, 'x', sizeof(block));
    start(&seen, 5000);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, "GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 1);
    httpd_stream(seen.call, 200, &type, 1);
    size_t written = 0;
    while (httpd_queued(seen.call) <= HTTPD_STREAM_HIGH) {
        assert_true(httpd_write(seen.call, (struct str){block, sizeof(block)}));
        written += sizeof(block);
        loop_turn(seen.loop, 0);
        assert_true(written < 64 << 20); /* the socket's own buffers end somewhere */
    }
    assert_int_equal(seen.drained, 0);
    static char sink[65536];
    int64_t until = clock_mono_ns() + WAIT_NS;
    while (!seen.drained && clock_mono_ns() < until) {
        if (recv(fd, sink, sizeof(sink), 0) <= 0)
            loop_turn(seen.loop, NS_PER_MS);
    }
    assert_int_equal(seen.drained, 1);
    assert_true(httpd_queued(seen.call) < HTTPD_STREAM_LOW);
    close(fd);
    turn_until(&seen, seen.ended == 1);
    assert_int_equal(seen.gone, 1);
    finish(&seen);
}

static void test_hang_up(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 1);
    close(fd);
    turn_until(&seen, seen.ended == 1);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(seen.completed, 0);
    turn_until(&seen, httpd_connections(seen.httpd) == 0);
    finish(&seen);
}

static void test_refusals(void **state)
{
    static const struct {
        const char *bytes;
        int status;
    } cases[] = {
        {"GET / HTTP/1.1\nHost: a\n\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: br\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 0},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX", 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct seen seen;
        char status[32];
        start(&seen, 5000);
        int fd = dial(&seen);
        say(fd, cases[i].bytes);
        if (cases[i].status) {
            snprintf(status, sizeof(status), "HTTP/1.1 %d", cases[i].status);
            assert_non_null(strstr(hear(&seen, fd, NULL), status));
            assert_int_equal(seen.refused, cases[i].status);
        } else {
            turn_until(&seen, httpd_connections(seen.httpd) == 1);
            assert_int_equal(seen.refused, 0);
        }
        assert_int_equal(seen.requests, 0);
        close(fd);
        turn_until(&seen, httpd_connections(seen.httpd) == 0);
        finish(&seen);
    }
}

static void test_good_then_bad(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    int fd = dial(&seen);
    say(fd, "GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\n\n");
    char *got = hear(&seen, fd, NULL);
    char *hello = strstr(got, "hello");
    assert_non_null(hello);
    assert_non_null(strstr(hello, "HTTP/1.1 400"));
    assert_int_equal(seen.requests, 1);
    close(fd);
    finish(&seen);
}

/* A stream that waits for its source is left alone; a reader that takes nothing is cut off. */
static void test_absolute_targets(void **state)
{
    static const char *const cases[][3] = {{"http://a.b:80/v1/models?x=1", "/v1/models", "x=1"},
                                           {"HTTPS://a/p%2Fq", "/p%2Fq", ""},
                                           {"http://a", "/", ""},
                                           {"http://a?x", "/", "x"},
                                           {"/http://a/", "/http://a/", ""}};
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    int fd = dial(&seen);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char request[256];
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", cases[i][0]);
        say(fd, request);
        hear(&seen, fd, "hello");
        assert_string_equal(seen.path, cases[i][1]);
        assert_string_equal(seen.query, cases[i][2]);
    }
    close(fd);
    finish(&seen);
}

/* Half a request behind one that is being worked on is no slow request. */
static void test_head_waits_behind_a_call(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 40);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHo");
    turn_until(&seen, seen.requests == 1);
    int64_t until = clock_mono_ns() + 200 * NS_PER_MS;
    while (clock_mono_ns() < until)
        loop_turn(seen.loop, 10 * NS_PER_MS);
    assert_int_equal(seen.refused, 0);
    answer_hello(seen.call);
    assert_non_null(strstr(hear(&seen, fd, "hello"), "HTTP/1.1 200"));
    assert_non_null(strstr(hear(&seen, fd, NULL), "HTTP/1.1 408")); /* now it is */
    close(fd);
    finish(&seen);
}

/* The daemon ends while a request's bytes lie in its socket unread. */
static void test_end_with_a_request_unread(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 5000);
    seen.answer_at_once = false;
    int fd = dial(&seen), other = dial(&seen);
    say(fd, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 1);
    say(other, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    finish(&seen);
    assert_int_equal(seen.gone, 1);
    assert_int_equal(seen.requests, 1);
    close(fd);
    close(other);
}

static void test_stalled_reader(void **state)
{
    struct seen seen;
    struct httpd_field type = {"content-type", "text/event-stream"};
    static char block[1 << 20];
    (void)state;
    start_stall(&seen, 5000, 100);
    seen.answer_at_once = false;
    int fd = dial(&seen);
    say(fd, "GET /s HTTP/1.1\r\nHost: a\r\n\r\n");
    turn_until(&seen, seen.requests == 1);
    httpd_stream(seen.call, 200, &type, 1);
    assert_true(httpd_write(seen.call, STR("data: 1\n\n")));
    hear(&seen, fd, "data: 1\n\n");
    int64_t until = clock_mono_ns() + 500 * NS_PER_MS; /* five times the limit with nothing to send */
    while (clock_mono_ns() < until)
        loop_turn(seen.loop, 10 * NS_PER_MS);
    assert_int_equal(seen.ended, 0);
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 16; i++)
        assert_true(httpd_write(seen.call, (struct str){block, sizeof(block)}));
    turn_until(&seen, seen.ended == 1);
    assert_int_equal(seen.gone, 1);
    turn_until(&seen, httpd_connections(seen.httpd) == 0);
    close(fd);
    finish(&seen);
}

static void test_shared_port(void **state)
{
    struct seen seen;
    char address[32];
    uint16_t port;
    int fd = -1;
    (void)state;
    start(&seen, 5000);
    snprintf(address, sizeof(address), "127.0.0.1:%u", seen.port);
    assert_int_equal(httpd_listen(address, true, &fd, &port), ERR_EXISTS);
    assert_int_equal(httpd_listen(address, false, &fd, &port), ERR_NONE);
    assert_int_equal(port, seen.port);
    close(fd);
    finish(&seen);
}

static void test_slow_head(void **state)
{
    struct seen seen;
    (void)state;
    start(&seen, 50);
    int fd = dial(&seen);
    say(fd, "GET / HTTP/1.1\r\nHo");
    assert_non_null(strstr(hear(&seen, fd, NULL), "HTTP/1.1 408"));
    close(fd);
    finish(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_next_request),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_hang_up),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_good_then_bad),
        cmocka_unit_test(test_absolute_targets),
        cmocka_unit_test(test_head_waits_behind_a_call),
        cmocka_unit_test(test_end_with_a_request_unread),
        cmocka_unit_test(test_slow_head),
        cmocka_unit_test(test_shared_port),
        cmocka_unit_test(test_stalled_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
