#include "core/http_guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "POST /v1/x HTTP/1.1\r\nHost: a\r\n"

static const struct http_guard_limits limits = {.head_bytes = 4096, .body_bytes = 100};

static const struct {
    const char *bytes;
    enum http_guard_verdict verdict;
    size_t kept;
    enum http_guard_phase phase; /* after good bytes */
} cases[] = {
    {HEAD "\r\n", HTTP_GUARD_OK, 0, HTTP_GUARD_IDLE},
    {"\r\nGET / HTTP/1.0\r\n\r\n", HTTP_GUARD_OK, 0, HTTP_GUARD_IDLE},
    {HEAD "Content-Length: 3\r\n\r\nabc", HTTP_GUARD_OK, 0, HTTP_GUARD_IDLE},
    {HEAD "Content-Length: 3\r\n\r\nab", HTTP_GUARD_OK, 0, HTTP_GUARD_BODY},
    {HEAD "Content-Le", HTTP_GUARD_OK, 0, HTTP_GUARD_HEAD},
    {HEAD "X: \t \x80 ~\r\n\r\n", HTTP_GUARD_OK, 0, HTTP_GUARD_IDLE},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", HTTP_GUARD_OK, 0,
     HTTP_GUARD_IDLE},
    {HEAD "Transfer-Encoding:  Chunked \r\n\r\n0\r\n", HTTP_GUARD_OK, 0, HTTP_GUARD_BODY},
    /* what two parsers could read differently */
    {HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length: 3, 3\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length: +3\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length: 0x3\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length:\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length: 99999999999999999999\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Content-Length : 3\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: gzip\r\n\r\n", HTTP_GUARD_UNKNOWN_CODING, 0, 0},
    {HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n", HTTP_GUARD_UNKNOWN_CODING, 0, 0},
    {HEAD "Transfer-Encoding: chunked-and-more-than-fits\r\n\r\n", HTTP_GUARD_UNKNOWN_CODING, 0, 0},
    {HEAD "A: b\r\n c\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD " A: b\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "A: b\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "A: b\rc\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "A b\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD ": b\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "A: \x01\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET / HTTP/1.1\r\nX: y\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Host: b\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET  / HTTP/1.1\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET / HTTP/1.1 \r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET /\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET / HTTP/1.1\n\n", HTTP_GUARD_MALFORMED, 0, 0},
    {"GET / HTTP/2.0\r\n\r\n", HTTP_GUARD_UNKNOWN_VERSION, 0, 0},
    {"GET / HTTP/1.2\r\n\r\n", HTTP_GUARD_UNKNOWN_VERSION, 0, 0},
    {"\x16\x03\x01\x02", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\nx\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n123456789\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", HTTP_GUARD_MALFORMED, 0, 0},
    /* limits */
    {HEAD "Content-Length: 101\r\n\r\n", HTTP_GUARD_BODY_TOO_LARGE, 0, 0},
    {HEAD "Transfer-Encoding: chunked\r\n\r\n65\r\n", HTTP_GUARD_BODY_TOO_LARGE, 0, 0},
    /* a second message is refused, the first stands */
    {"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\n", HTTP_GUARD_MALFORMED, 19, 0},
    {HEAD "Content-Length: 2\r\n\r\nabX Y Z\r\n", HTTP_GUARD_MALFORMED, 53, 0},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct http_guard guard;
        enum http_guard_verdict verdict;
        size_t len = strlen(cases[i].bytes);
        http_guard_init(&guard, &limits);
        size_t kept = http_guard_feed(&guard, cases[i].bytes, len, &verdict);
        if (verdict != cases[i].verdict)
            print_error("case %zu: %s\n", i, cases[i].bytes);
        assert_int_equal(verdict, cases[i].verdict);
        assert_int_equal(kept, verdict == HTTP_GUARD_OK ? len : cases[i].kept);
        if (verdict == HTTP_GUARD_OK)
            assert_int_equal(http_guard_phase(&guard), cases[i].phase);
    }
}

/* The verdict may not depend on how the bytes are cut. */
static void test_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t len = strlen(cases[i].bytes);
        for (size_t cut = 1; cut < len; cut++) {
            struct http_guard guard;
            enum http_guard_verdict verdict;
            http_guard_init(&guard, &limits);
            http_guard_feed(&guard, cases[i].bytes, cut, &verdict);
            if (verdict == HTTP_GUARD_OK)
                http_guard_feed(&guard, cases[i].bytes + cut, len - cut, &verdict);
            assert_int_equal(verdict, cases[i].verdict);
        }
    }
}

static void test_head_limit(void **state)
{
    (void)state;
    char head[8192];
    struct http_guard guard;
    enum http_guard_verdict verdict;
    int at = snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nX: ");
    memset(head + at, 'a', sizeof(head) - (size_t)at);
    http_guard_init(&guard, &limits);
    http_guard_feed(&guard, head, 4096, &verdict);
    assert_int_equal(verdict, HTTP_GUARD_OK);
    http_guard_feed(&guard, head + 4096, 1, &verdict);
    assert_int_equal(verdict, HTTP_GUARD_HEAD_TOO_LARGE);

    char many[HTTP_GUARD_HEADERS_MAX * 6 + 64];
    size_t len = (size_t)snprintf(many, sizeof(many), "GET / HTTP/1.1\r\n");
    for (int i = 0; i <= HTTP_GUARD_HEADERS_MAX; i++)
        len += (size_t)snprintf(many + len, sizeof(many) - len, "a:b\r\n");
    http_guard_init(&guard, &limits);
    http_guard_feed(&guard, many, len, &verdict);
    assert_int_equal(verdict, HTTP_GUARD_HEAD_TOO_LARGE);
}

static void test_nul(void **state)
{
    (void)state;
    static const char with_nul[] = "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n";
    struct http_guard guard;
    enum http_guard_verdict verdict;
    http_guard_init(&guard, &limits);
    http_guard_feed(&guard, with_nul, sizeof(with_nul) - 1, &verdict);
    assert_int_equal(verdict, HTTP_GUARD_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
