/* core/tls: identity files, pins and the handshake on the loop; then core/h2 over it. */
#include "cmocka_all.h"

#include "core/clock.h"
#include "core/h2.h"
#include "core/tls.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BIG ((size_t)3 << 20)

struct end {
    SSL *ssl;
    struct tls_handshake *handshake;
    int calls;
    enum error error;
};

struct fixture {
    char dir[32];
    struct loop *loop;
    SSL_CTX *server;
    char pin[SHA256_HEX];
    int fds[2];
    struct end ends[2]; /* client, server */
};

static void fixture_open(struct fixture *fixture)
{
    *fixture = (struct fixture){.dir = "/tmp/test_tls.XXXXXX"};
    assert_non_null(mkdtemp(fixture->dir));
    assert_int_equal(loop_open(&fixture->loop), ERR_NONE);
    assert_int_equal(tls_server_open(fixture->dir, NULL, NULL, &fixture->server, fixture->pin), ERR_NONE);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fixture->fds), 0);
}

static void fixture_path(const struct fixture *fixture, const char *name, char ret[64])
{
    assert_true(snprintf(ret, 64, "%s/%s", fixture->dir, name) < 64);
}

static void fixture_close(struct fixture *fixture)
{
    char path[64];
    SSL_CTX_free(fixture->server);
    loop_free(fixture->loop);
    fixture_path(fixture, "link.crt", path);
    unlink(path);
    fixture_path(fixture, "link.key", path);
    unlink(path);
    rmdir(fixture->dir);
}

static void on_done(void *ctx, enum error error)
{
    struct end *end = ctx;
    end->calls++;
    end->error = error;
    end->handshake = NULL;
}

static void shake(struct fixture *fixture, struct str pin)
{
    struct tls_client *client = NULL;
    int64_t give_up_ns = clock_mono_ns() + 10 * NS_PER_S;
    assert_int_equal(tls_client_open(pin, &client), ERR_NONE);
    assert_int_equal(tls_client_new(client, "127.0.0.1", &fixture->ends[0].ssl), ERR_NONE);
    fixture->ends[1].ssl = SSL_new(fixture->server);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tls_handshake_start(fixture->loop, fixture->fds[i], fixture->ends[i].ssl, i == 1, give_up_ns,
                                             on_done, &fixture->ends[i], &fixture->ends[i].handshake),
                         ERR_NONE);
    assert_int_equal(fixture->ends[0].calls + fixture->ends[1].calls, 0);
    while (fixture->ends[0].calls == 0 || fixture->ends[1].calls == 0)
        loop_turn(fixture->loop, NS_PER_S);
    tls_client_free(client);
}

static void test_identity(void **state)
{
    (void)state;
    struct fixture fixture;
    char path[64], pin[SHA256_HEX];
    struct stat info;
    SSL_CTX *again = NULL;
    fixture_open(&fixture);
    fixture_path(&fixture, "link.key", path);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(tls_server_open(fixture.dir, NULL, NULL, &again, pin), ERR_NONE);
    assert_string_equal(pin, fixture.pin);
    SSL_CTX_free(again);
    /* Given files must be what they say. */
    assert_int_equal(tls_server_open(fixture.dir, path, path, &again, pin), ERR_BAD_INPUT);
    assert_int_equal(tls_server_open(fixture.dir, path, NULL, &again, pin), ERR_BAD_INPUT);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(tls_server_open(fixture.dir, NULL, NULL, &again, pin), ERR_BAD_INPUT);
    close(fixture.fds[0]);
    close(fixture.fds[1]);
    fixture_close(&fixture);
}

static void test_pins(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture fixture;
        char pin[SHA256_HEX];
        fixture_open(&fixture);
        memcpy(pin, fixture.pin, sizeof(pin));
        if (i == 1)
            pin[63] = pin[63] == '0' ? '1' : '0';
        /* 0: the right pin; 1: a wrong one; 2: none, and no CA knows this certificate. */
        shake(&fixture, i < 2 ? str_of(pin) : (struct str){NULL, 0});
        assert_int_equal(fixture.ends[0].error, i == 0 ? ERR_NONE : ERR_DENIED);
        assert_int_equal(fixture.ends[0].calls, 1);
        if (i == 0)
            assert_string_equal(SSL_get_version(fixture.ends[0].ssl), "TLSv1.3");
        for (int end = 0; end < 2; end++) {
            SSL_free(fixture.ends[end].ssl);
            close(fixture.fds[end]);
        }
        fixture_close(&fixture);
    }
    struct tls_client *client = NULL;
    assert_int_equal(tls_client_open(STR("1234"), &client), ERR_BAD_INPUT);
    assert_int_equal(tls_client_open(STR(""), &client), ERR_BAD_INPUT);
}

static void test_deadline_and_break(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture fixture;
        fixture_open(&fixture);
        struct end *end = &fixture.ends[1];
        end->ssl = SSL_new(fixture.server);
        int64_t deadline_ns = clock_mono_ns() + (i == 0 ? 20 * NS_PER_MS : 60 * NS_PER_S);
        assert_int_equal(tls_handshake_start(fixture.loop, fixture.fds[1], end->ssl, true, deadline_ns, on_done, end,
                                             &end->handshake),
                         ERR_NONE);
        if (i == 1)
            close(fixture.fds[0]);
        while (end->calls == 0)
            loop_turn(fixture.loop, NS_PER_S);
        assert_int_equal(end->error, i == 0 ? ERR_DEADLINE : ERR_CLOSED);
        SSL_free(end->ssl);
        if (i == 0)
            close(fixture.fds[0]);
        close(fixture.fds[1]);
        fixture_close(&fixture);
    }
}

/* -- core/h2 over TLS -- */

static char pattern[BIG];

struct call {
    struct h2_stream *stream, *served;
    size_t got;
    int ends;
    bool good;
    enum h2_end end;
};

static void echo_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    assert_int_equal(h2_stream_send(call->served, bytes), ERR_NONE);
    h2_stream_consumed(call->served, bytes.len);
}

static void echo_finished(void *ctx)
{
    assert_int_equal(h2_stream_finish(((struct call *)ctx)->served), ERR_NONE);
}

static void echo_end(void *ctx, enum h2_end end)
{
    (void)ctx;
    assert_int_equal(end, H2_END_OK);
}

static const struct h2_stream_ops echo_ops = {.on_data = echo_data, .on_finished = echo_finished, .on_end = echo_end};

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct call *call = ctx;
    (void)headers;
    (void)count;
    call->served = stream;
    *ret_ops = &echo_ops;
    *ret_ctx = call;
    return h2_stream_respond(stream, 200, NULL, 0) == ERR_NONE;
}

static void call_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    (void)ctx;
    (void)headers;
    assert_int_equal(status, 200);
    assert_int_equal(count, 0);
}

static void call_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    call->good = call->good && memcmp(pattern + call->got, bytes.ptr, bytes.len) == 0;
    call->got += bytes.len;
    h2_stream_consumed(call->stream, bytes.len);
}

static void call_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    call->end = end;
    call->ends++;
}

static const struct h2_stream_ops call_ops = {.on_head = call_head, .on_data = call_data, .on_end = call_end};

static void test_h2_over_tls(void **state)
{
    (void)state;
    struct fixture fixture;
    struct call call = {.good = true};
    struct h2 *client = NULL, *server = NULL;
    fixture_open(&fixture);
    shake(&fixture, str_of(fixture.pin));
    struct h2_options options = {.tls = fixture.ends[0].ssl};
    assert_int_equal(h2_open(fixture.loop, fixture.fds[0], &options, &client), ERR_NONE);
    options =
        (struct h2_options){.tls = fixture.ends[1].ssl, .is_server = true, .on_request = on_request, .ctx = &call};
    assert_int_equal(h2_open(fixture.loop, fixture.fds[1], &options, &server), ERR_NONE);
    const size_t sizes[] = {0, 100, BIG};
    for (size_t i = 0; i < 3; i++) {
        const struct h2_request request = {.method = STR("POST"), .path = STR("/"), .body = {pattern, sizes[i]}};
        call.got = 0;
        call.ends = 0;
        assert_int_equal(h2_request(client, &request, &call_ops, &call, &call.stream), ERR_NONE);
        int64_t give_up_ns = clock_mono_ns() + 20 * NS_PER_S;
        while (call.ends == 0 && clock_mono_ns() < give_up_ns)
            loop_turn(fixture.loop, 10 * NS_PER_MS);
        assert_int_equal(call.ends, 1);
        assert_int_equal(call.end, H2_END_OK);
        assert_int_equal(call.got, sizes[i]);
        assert_true(call.good);
    }
    h2_free(client);
    h2_free(server);
    fixture_close(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_deadline_and_break),
        cmocka_unit_test(test_h2_over_tls),
    };
    for (size_t i = 0; i < BIG; i++)
        pattern[i] = (char)(i * 11 + i / 257);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
