/* A gateway and an upstream played by the test's own process: registration and upstream on threads, the link listener
 * and its HTTP/2 client on the agent's own loop. One test program includes it. */
#ifndef SLUICE_TESTS_UNIT_AGENT_PLAY_H
#define SLUICE_TESTS_UNIT_AGENT_PLAY_H

#include "adapters/native/agent.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "core/h2.h"
#include "probes/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <nghttp2/nghttp2.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_NS (20 * NS_PER_S)
#define FLOOD_BYTES ((size_t)24 << 20)

static struct loop *loop;

#define turn_until(condition)                             \
    do {                                                  \
        int64_t give_up_ = clock_mono_ns() + PATIENCE_NS; \
        while (!(condition)) {                            \
            loop_turn(loop, 5 * NS_PER_MS);               \
            assert_true(clock_mono_ns() < give_up_);      \
        }                                                 \
    } while (0)

/* -- a server of HTTP/1.1 on threads: one request a connection --------------------------------------------------- */

struct server {
    int fd, port;
    pthread_t thread;
    void (*handle)(int fd, const char *path, const char *head, const char *body);
};

static atomic_int open_connections;

struct accepted {
    struct server *server;
    int fd;
};

static void put(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

static void put_answer(int fd, int status, const char *body)
{
    char head[256];
    snprintf(head, sizeof(head),
             "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
             status, strlen(body));
    put(fd, head);
    put(fd, body);
}

static void *serve_connection(void *arg)
{
    struct accepted *accepted = arg;
    int fd = accepted->fd;
    static const size_t size = 1 << 20;
    char *bytes = malloc(size);
    size_t have = 0;
    for (;;) {
        bytes[have] = '\0';
        char *end = strstr(bytes, "\r\n\r\n");
        const char *length = strstr(bytes, "Content-Length: ");
        size_t body = end && length && length < end ? strtoul(length + 16, NULL, 10) : 0;
        if (end && have >= (size_t)(end + 4 - bytes) + body) {
            char *path = strchr(bytes, ' ') + 1;
            end[3] = '\0';
            accepted->server->handle(fd, path, bytes, end + 4);
            break;
        }
        ssize_t n = read(fd, bytes + have, size - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    free(bytes);
    free(accepted);
    atomic_fetch_sub(&open_connections, 1);
    return NULL;
}

static void *serve(void *arg)
{
    struct server *server = arg;
    int fd;
    while ((fd = accept(server->fd, NULL, NULL)) >= 0) {
        struct accepted *accepted = malloc(sizeof(*accepted));
        pthread_t thread;
        int small = 65536;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
        *accepted = (struct accepted){server, fd};
        atomic_fetch_add(&open_connections, 1);
        if (pthread_create(&thread, NULL, serve_connection, accepted) != 0)
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static int listen_at(int *port)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    *port = ntohs(at.sin_port);
    return fd;
}

static void server_start(struct server *server)
{
    server->fd = listen_at(&server->port);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_stop(struct server *server)
{
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->fd);
}

/* -- the upstream ------------------------------------------------------------------------------------------------ */

static struct server upstream;
static atomic_bool upstream_fails;  /* its models are 503 */
static atomic_int hanging, hung_up; /* calls of /v1/hang: begun, and seen to go away */
static atomic_bool let_go;          /* ends those of /v1/wait */
static atomic_size_t flooded;
static atomic_bool is_stalled;
static atomic_bool saw_key;
static atomic_llong asked_ns;

static void flood(int fd)
{
    static const char block[65536];
    char head[128];
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", FLOOD_BYTES);
    put(fd, head);
    for (size_t sent = 0; sent < FLOOD_BYTES;) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        if (poll(&wait, 1, 200) == 0) {
            atomic_store(&is_stalled, true);
            continue;
        }
        size_t left = FLOOD_BYTES - sent;
        ssize_t n = send(fd, block, left < sizeof(block) ? left : sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0)
            return;
        sent += (size_t)n;
        atomic_store(&flooded, sent);
    }
}

static void handle_upstream(int fd, const char *path, const char *head, const char *body)
{
    atomic_store(&saw_key, strstr(head, "authorization: Bearer up-key\r\n") != NULL);
    atomic_store(&asked_ns, clock_mono_ns());
    if (!strncmp(path, "/v1/models ", 11) && atomic_load(&upstream_fails)) {
        put_answer(fd, 503, "{\"error\":{\"message\":\"loading\"}}");
    } else if (!strncmp(path, "/v1/models ", 11)) {
        put_answer(fd, 200, "{\"object\":\"list\",\"data\":[{\"id\":\"model-a\"},{\"id\":\"model-b\"},{\"id\":7}]}");
    } else if (!strncmp(path, "/v1/echo", 8)) {
        char answer[4096];
        snprintf(answer, sizeof(answer), "%.*s|%s|%s", (int)strcspn(head, "\r"), head,
                 strstr(head, "content-type: application/json\r\n") ? "json" : "other", body);
        put_answer(fd, 200, answer);
    } else if (!strncmp(path, "/v1/teapot", 10)) {
        put(fd, "HTTP/1.1 429 X\r\nRetry-After: 7\r\nX-Hidden: 1\r\nContent-Length: 0\r\n\r\n");
    } else if (!strncmp(path, "/v1/hang", 8)) {
        char byte;
        put(fd,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n");
        atomic_fetch_add(&hanging, 1);
        while (read(fd, &byte, 1) > 0)
            ;
        atomic_fetch_add(&hung_up, 1);
    } else if (!strncmp(path, "/v1/wait", 8)) {
        atomic_fetch_add(&hanging, 1);
        while (!atomic_load(&let_go))
            usleep(500);
        put_answer(fd, 200, "waited");
    } else if (!strncmp(path, "/v1/torn", 8)) {
        put(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n");
        while (!atomic_load(&let_go))
            usleep(500);
    } else if (!strncmp(path, "/v1/garbage", 11)) {
        put(fd, "no http at all\r\n\r\n");
    } else if (!strncmp(path, "/v1/flood", 9)) {
        flood(fd);
    } /* else: closed without a word */
}

/* -- registration ------------------------------------------------------------------------------------------------ */

static struct server registry;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int status;
    char answer[4096], body[8192];
    int count;
} registered;

static void handle_register(int fd, const char *path, const char *head, const char *body)
{
    (void)head;
    pthread_mutex_lock(&registry_lock);
    assert_true(strlen(body) < sizeof(registered.body));
    memcpy(registered.body, body, strlen(body) + 1);
    put_answer(fd, strncmp(path, "/worker/v1/register ", 20) ? 404 : registered.status, registered.answer);
    registered.count++;
    pthread_mutex_unlock(&registry_lock);
}

static void registry_answers(int status, const char *answer)
{
    pthread_mutex_lock(&registry_lock);
    registered.status = status;
    assert_true(strlen(answer) < sizeof(registered.answer));
    memcpy(registered.answer, answer, strlen(answer) + 1);
    pthread_mutex_unlock(&registry_lock);
}

static int registered_count(void)
{
    pthread_mutex_lock(&registry_lock);
    int count = registered.count;
    pthread_mutex_unlock(&registry_lock);
    return count;
}

static json_t *registered_body(void)
{
    pthread_mutex_lock(&registry_lock);
    json_t *root = json_loads(registered.body, 0, NULL);
    pthread_mutex_unlock(&registry_lock);
    assert_non_null(root);
    return root;
}

static void registry_reset(void)
{
    pthread_mutex_lock(&registry_lock);
    registered.count = 0;
    registered.body[0] = '\0';
    pthread_mutex_unlock(&registry_lock);
}

/* -- the gateway's end of links ---------------------------------------------------------------------------------- */

#define LINKS_MAX 8

struct gate_link {
    struct io_source io;
    SSL *tls;
    bool in_handshake;
    char hello[600];
    size_t len;
    struct h2 *h2;
    bool is_closed;
};

static struct gate {
    struct io_source io;
    int port;
    SSL_CTX *tls;
    const char *answer; /* to hellos */
    struct gate_link links[LINKS_MAX];
    size_t count, tried;
} gate;

static void gate_on_close(void *ctx, enum error error)
{
    struct gate_link *link = ctx;
    (void)error;
    link->h2 = h2_free(link->h2);
    link->is_closed = true;
}

static void gate_link_on_ready(struct io_source *source, uint32_t events)
{
    struct gate_link *link = container_of(source, struct gate_link, io);
    (void)events;
    if (link->in_handshake) {
        int rc = SSL_accept(link->tls);
        if (rc != 1 && SSL_get_error(link->tls, rc) == SSL_ERROR_WANT_READ)
            return;
        if (rc != 1) {
            loop_remove(loop, source);
            link->is_closed = true;
            return;
        }
        link->in_handshake = false;
    }
    size_t room = sizeof(link->hello) - 1 - link->len;
    ssize_t n = link->tls ? SSL_read(link->tls, link->hello + link->len, (int)room)
                          : read(source->fd, link->hello + link->len, room);
    if (n <= 0) {
        bool is_early = link->tls ? SSL_get_error(link->tls, (int)n) == SSL_ERROR_WANT_READ : n < 0 && errno == EAGAIN;
        if (!is_early) {
            loop_remove(loop, source);
            link->is_closed = true;
        }
        return;
    }
    link->len += (size_t)n;
    link->hello[link->len] = '\0';
    if (!strchr(link->hello, '\n'))
        return;
    loop_remove(loop, source);
    if (link->tls)
        assert_true(SSL_write(link->tls, gate.answer, (int)strlen(gate.answer)) > 0);
    else
        put(source->fd, gate.answer);
    if (gate.answer[0] == 'N') {
        close(source->fd);
        link->is_closed = true;
        return;
    }
    struct h2_options options = {.tls = link->tls, .on_close = gate_on_close, .ctx = link};
    assert_int_equal(h2_open(loop, source->fd, &options, &link->h2), ERR_NONE);
    link->tls = NULL;
}

static void gate_on_ready(struct io_source *source, uint32_t events)
{
    int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    (void)events;
    if (fd < 0)
        return;
    gate.tried++;
    assert_true(gate.count < LINKS_MAX);
    struct gate_link *link = &gate.links[gate.count++];
    memset(link, 0, sizeof(*link));
    link->io.fd = fd;
    link->io.on_ready = gate_link_on_ready;
    if (gate.tls) {
        link->tls = SSL_new(gate.tls);
        SSL_set_fd(link->tls, fd);
        link->in_handshake = true;
    }
    assert_int_equal(loop_add(loop, &link->io, EPOLLIN), ERR_NONE);
}

static void gate_open(void)
{
    memset(&gate, 0, sizeof(gate));
    gate.answer = "OK 0\n";
    gate.io.fd = listen_at(&gate.port);
    gate.io.on_ready = gate_on_ready;
    assert_int_equal(loop_add(loop, &gate.io, EPOLLIN), ERR_NONE);
}

static void gate_drop_links(void)
{
    for (size_t i = 0; i < gate.count; i++) {
        struct gate_link *link = &gate.links[i];
        loop_remove(loop, &link->io);
        if (!link->h2 && !link->is_closed)
            close(link->io.fd);
        link->h2 = h2_free(link->h2);
        SSL_free(link->tls);
    }
    gate.count = 0;
}

static void gate_close(void)
{
    gate_drop_links();
    loop_remove(loop, &gate.io);
    close(gate.io.fd);
    SSL_CTX_free(gate.tls);
}

static size_t gate_up(void)
{
    size_t up = 0;
    for (size_t i = 0; i < gate.count; i++)
        up += gate.links[i].h2 != NULL;
    return up;
}

/* -- calls over a link ------------------------------------------------------------------------------------------- */

struct call {
    struct h2_stream *stream;
    struct buf body;
    size_t received;
    int status, ends;
    enum h2_end end;
    uint32_t code;
    bool keeps_window; /* gives no window back */
    char fault[32], type[64], retry_after[16];
    size_t header_count;
};

static void call_on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct call *call = ctx;
    call->status = status;
    call->header_count = count;
    for (size_t i = 0; i < count; i++) {
        if (str_eq(headers[i].name, STR("x-sluice-fault")))
            assert_true(str_copy(call->fault, sizeof(call->fault), headers[i].value));
        if (str_eq(headers[i].name, STR("content-type")))
            assert_true(str_copy(call->type, sizeof(call->type), headers[i].value));
        if (str_eq(headers[i].name, STR("retry-after")))
            assert_true(str_copy(call->retry_after, sizeof(call->retry_after), headers[i].value));
    }
}

static void call_on_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    call->received += bytes.len;
    if (call->body.len + bytes.len <= PROBE_FRAME_MAX)
        assert_true(buf_append_str(&call->body, bytes));
    if (!call->keeps_window)
        h2_stream_consumed(call->stream, bytes.len);
}

static void call_on_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    call->ends++;
    call->end = end;
    call->code = h2_stream_reset_code(call->stream);
    call->stream = NULL;
}

static const struct h2_stream_ops call_ops = {.on_head = call_on_head, .on_data = call_on_data, .on_end = call_on_end};

static void call_start(struct call *call, const char *method, const char *path, struct str body)
{
    struct h2_header headers[] = {{STR("content-type"), STR("application/json")},
                                  {STR("authorization"), STR("Bearer of-a-tenant")}};
    struct h2_request request = {str_of(method), str_of(path), headers, 2, body};
    bool keeps_window = call->keeps_window;
    memset(call, 0, sizeof(*call));
    call->keeps_window = keeps_window;
    struct h2 *h2 = NULL;
    for (size_t i = 0; i < gate.count && !h2; i++)
        h2 = gate.links[i].h2;
    assert_non_null(h2);
    assert_int_equal(h2_request(h2, &request, &call_ops, call, &call->stream), ERR_NONE);
}

static void call_run(struct call *call, const char *method, const char *path, struct str body, int status)
{
    call_start(call, method, path, body);
    turn_until(call->ends);
    assert_int_equal(call->end, H2_END_OK);
    assert_int_equal(call->status, status);
    assert_true(buf_append(&call->body, "", 1));
}

/* Whole lines of a status stream; the last one parsed. */
static json_t *last_status(struct call *call)
{
    struct str text = buf_str(&call->body), line, last = {NULL, 0};
    while (text.len && text.ptr[text.len - 1] != '\n')
        text.len--;
    while ((line = str_next(&text, '\n')).ptr)
        if (line.len)
            last = line;
    return last.ptr ? json_loadb(last.ptr, last.len, 0, NULL) : NULL;
}

static bool status_has(struct call *call, const char *field, const char *want)
{
    json_t *root = last_status(call);
    char *text = root ? json_dumps(json_object_get(root, field), JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    bool is_same = text && !strcmp(text, want);
    free(text);
    json_decref(root);
    return is_same;
}

/* -- the agent under test ---------------------------------------------------------------------------------------- */

static struct agent *agent;
static struct agent_options options;
static int done_count;
static enum agent_exit done_code;
static char folder[] = "/tmp/sluice-agent-XXXXXX";

static void on_done(void *ctx, enum agent_exit code)
{
    (void)ctx;
    done_count++;
    done_code = code;
}

static void options_set(const char *name)
{
    char url[64], state[128], price[] = "1.20";
    char message[256];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", registry.port);
    char up[64];
    snprintf(up, sizeof(up), "http://127.0.0.1:%d/v1/", upstream.port);
    snprintf(state, sizeof(state), "%s/%s", folder, name);
    setenv("TEST_UP_KEY", "up-key", 1);
    char *argv[] = {"sluice-worker",
                    "--gateway",
                    url,
                    "--token",
                    "tok-1",
                    "--upstream",
                    up,
                    "--price",
                    price,
                    "--gpu",
                    "cpu",
                    "--tags",
                    "gdpr,hipaa",
                    "--region",
                    "eu-west",
                    "--state-dir",
                    state,
                    "--slots",
                    "2",
                    "--drain-s",
                    "30",
                    "--upstream-key",
                    "env:TEST_UP_KEY",
                    NULL};
    int argc = (int)(sizeof(argv) / sizeof(argv[0])) - 1;
    assert_int_equal(agent_options_parse(argc, argv, &options, message, sizeof(message)), AGENT_RUN);
}

static void registry_welcomes(size_t links, const char *pin)
{
    char answer[1024];
    snprintf(answer, sizeof(answer),
             "{\"worker_id\":\"wrk_1\",\"secret\":\"sec_1\",\"gateways\":[{\"id\":\"gw_1\",\"address\":\"0.0.0.0:%d\","
             "\"links\":%zu,\"tls\":%s,\"pin\":%s%s%s}]}",
             gate.port, links, pin ? "true" : "false", pin ? "\"" : "", pin ? pin : "null", pin ? "\"" : "");
    registry_answers(200, answer);
}

static void agent_start(const char *name, size_t links)
{
    registry_reset();
    gate_open();
    registry_welcomes(links, NULL);
    options_set(name);
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == links);
}

static void agent_stop(void)
{
    agent = agent_free(agent);
    gate_close();
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(folder) || loop_open(&loop) != ERR_NONE)
        return -1;
    upstream.handle = handle_upstream;
    registry.handle = handle_register;
    server_start(&upstream);
    server_start(&registry);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    server_stop(&upstream);
    server_stop(&registry);
    loop = loop_free(loop);
    while (atomic_load(&open_connections))
        usleep(1000);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

#endif
