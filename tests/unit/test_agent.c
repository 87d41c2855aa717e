/* The worker agent against a gateway and an upstream played by this process: registration and upstream on threads, the
 * link listener and its HTTP/2 client on the agent's own loop. */
#include "adapters/native/agent.h"
#include "adapters/native/agent_state.h"
#include "core/clock.h"
#include "core/h2.h"
#include "probes/challenge.h"

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
#include <sys/stat.h>
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
    if (call->body.len + bytes.len <= CHALLENGE_ANSWER_MAX)
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

/* -- tests ------------------------------------------------------------------------------------------------------- */

static void test_options(void **state)
{
    (void)state;
#define BASE "--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:2", "--price", "1"
    static const struct {
        const char *args[16];
        enum agent_parsed want;
        const char *says;
    } cases[] = {
        {{BASE}, AGENT_RUN, ""},
        {{"--help"}, AGENT_HELP, ""},
        {{"--version"}, AGENT_VERSION, ""},
        {{"--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:2"}, AGENT_BAD, "--price is missing"},
        {{"--token", "t", "--upstream", "http://u:2", "--price", "1"}, AGENT_BAD, "--gateway is missing"},
        {{"--gateway", "http://g:1", "--upstream", "http://u:2", "--price", "1"}, AGENT_BAD, "--token is missing"},
        {{"--gateway", "http://g:1", "--token", "t", "--price", "1"}, AGENT_BAD, "--upstream is missing"},
        {{BASE, "--slots", "0"}, AGENT_BAD, "--slots"},
        {{BASE, "--slots", "8x"}, AGENT_BAD, "--slots"},
        {{BASE, "--slots"}, AGENT_BAD, "--slots"},
        {{BASE, "--gpus", "-1"}, AGENT_BAD, "--gpus"},
        {{BASE, "--price", "-1"}, AGENT_BAD, "--price"},
        {{BASE, "--price", "1e3"}, AGENT_BAD, "--price"},
        {{BASE, "--gpu", "NVIDIA H100"}, AGENT_BAD, "--gpu"},
        {{BASE, "--gpu", ""}, AGENT_BAD, "--gpu"},
        {{BASE, "--gateway", "g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "ftp://g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "http://g:1/path"}, AGENT_BAD, "--gateway"},
        {{BASE, "--gateway", "http://me:pw@g:1"}, AGENT_BAD, "--gateway"},
        {{BASE, "--upstream", "http://u:2/?a=b"}, AGENT_BAD, "--upstream"},
        {{BASE, "--upstream-key", "sk-plain"}, AGENT_BAD, "env:NAME"},
        {{BASE, "--token", "env:NO_SUCH_NAME"}, AGENT_BAD, "NO_SUCH_NAME"},
        {{BASE, "--token", "file:/no/such/file"}, AGENT_BAD, "/no/such/file"},
        {{BASE, "--token", "two words"}, AGENT_BAD, "--token"},
        {{BASE, "--nonsense"}, AGENT_BAD, "--nonsense"},
        {{BASE, "word"}, AGENT_BAD, "word"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct agent_options got;
        char message[256], *argv[20] = {"sluice-worker"};
        int argc = 1;
        for (; cases[i].args[argc - 1]; argc++)
            argv[argc] = (char *)(uintptr_t)cases[i].args[argc - 1];
        assert_int_equal(agent_options_parse(argc, argv, &got, message, sizeof(message)), cases[i].want);
        assert_non_null(strstr(message, cases[i].says));
    }
    options_set("x");
    assert_int_equal(options.price_usd_nano, 1200000000);
    assert_string_equal(options.upstream_key, "up-key");
    assert_null(strstr(options.upstream, "/v1"));
    assert_int_equal(options.gpus, 1);
    assert_true(options.name[0]);
}

static void test_state_folder_is_per_upstream(void **state)
{
    (void)state;
    struct agent_options one, two;
    char message[256];
    char *argv[] = {"w", "--gateway", "http://g:1", "--token", "t", "--upstream", "http://u:1", "--price", "1", NULL};
    setenv("XDG_STATE_HOME", "/tmp/xdg", 1);
    assert_int_equal(agent_options_parse(9, argv, &one, message, sizeof(message)), AGENT_RUN);
    argv[6] = "http://u:2";
    assert_int_equal(agent_options_parse(9, argv, &two, message, sizeof(message)), AGENT_RUN);
    unsetenv("XDG_STATE_HOME");
    assert_true(str_starts(str_of(one.state_dir), STR("/tmp/xdg/sluice-worker/")));
    assert_string_not_equal(one.state_dir, two.state_dir);
}

static void test_gpu_names(void **state)
{
    (void)state;
    static const struct {
        const char *driver, *name; /* NULL: not known */
    } cases[] = {
        {"NVIDIA H100 80GB HBM3", "nvidia/h100-sxm-80"},
        {"NVIDIA H100 PCIe", "nvidia/h100-pcie-80"},
        {"NVIDIA H200", "nvidia/h200-sxm-141"},
        {"NVIDIA A100-SXM4-80GB", "nvidia/a100-sxm-80"},
        {"NVIDIA A100 80GB PCIe", "nvidia/a100-pcie-80"},
        {"NVIDIA A100-PCIE-40GB", "nvidia/a100-pcie-40"},
        {"NVIDIA GeForce RTX 4090", "nvidia/rtx4090-24"},
        {"NVIDIA GeForce RTX 4090 D", NULL},
        {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL},
        {"NVIDIA GeForce RTX 3090 Ti", NULL},
        {"NVIDIA L4", "nvidia/l4-24"},
        {"NVIDIA L40S", "nvidia/l40s-48"},
        {"NVIDIA L40", "nvidia/l40-48"},
        {"Tesla T4", "nvidia/t4-16"},
        {"NVIDIA Something New", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char name[40] = "";
        assert_int_equal(agent_gpu_name(str_of(cases[i].driver), name, sizeof(name)), cases[i].name != NULL);
        assert_string_equal(name, cases[i].name ? cases[i].name : "");
    }
}

static void test_state_file(void **state)
{
    (void)state;
    char dir[128], path[160];
    struct agent_state first, second;
    struct stat info;
    snprintf(dir, sizeof(dir), "%s/deep/er", folder);
    snprintf(path, sizeof(path), "%s/worker.json", dir);
    assert_int_equal(agent_state_open(dir, &first), ERR_NONE);
    assert_string_equal(first.worker_id, "");
    assert_int_equal(agent_state_open(dir, &second), ERR_EXISTS);
    strcat(first.worker_id, "wrk_a");
    strcat(first.secret, "sec_a");
    assert_int_equal(agent_state_save(&first), ERR_NONE);
    strcat(first.secret, "b");
    assert_int_equal(agent_state_save(&first), ERR_NONE);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    agent_state_close(&first);
    assert_int_equal(agent_state_open(dir, &second), ERR_NONE);
    assert_string_equal(second.worker_id, "wrk_a");
    assert_string_equal(second.secret, "sec_ab");
    agent_state_close(&second);
    static const char *const damaged[] = {"", "{", "{\"worker_id\":\"w\"}", "{\"worker_id\":\"w\",\"secret\":7}"};
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        FILE *file = fopen(path, "w");
        fputs(damaged[i], file);
        fclose(file);
        assert_int_equal(agent_state_open(dir, &second), ERR_BAD_INPUT);
    }
}

static void test_enrols_and_reports(void **state)
{
    (void)state;
    agent_start("enrol", 2);
    json_t *body = registered_body();
    static const char *const words[][2] = {
        {"token", "tok-1"}, {"gpu", "cpu"}, {"region", "eu-west"}, {"price_per_gpu_hour_usd", "1.2"}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        assert_string_equal(json_string_value(json_object_get(body, words[i][0])), words[i][1]);
    assert_int_equal(json_integer_value(json_object_get(body, "slots")), 2);
    assert_int_equal(json_integer_value(json_object_get(body, "gpus")), 1);
    assert_string_equal(json_string_value(json_array_get(json_object_get(body, "tags"), 1)), "hipaa");
    assert_null(json_object_get(body, "worker_id"));
    json_decref(body);
    assert_int_equal(strncmp(gate.links[0].hello, "SLUICE-LINK/1 wrk_1 sec_1 ", 26), 0);

    struct call status;
    memset(&status, 0, sizeof(status));
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "models", "[\"model-a\",\"model-b\"]"));
    assert_int_equal(status.status, 200);
    assert_true(status_has(&status, "upstream", "\"ok\""));
    assert_true(status_has(&status, "slots", "2"));
    assert_true(status_has(&status, "in_flight", "0"));
    assert_true(status_has(&status, "draining", "false"));
    agent_stop();
    buf_free(&status.body);

    /* The identity outlives the process. */
    agent_start("enrol", 1);
    body = registered_body();
    assert_string_equal(json_string_value(json_object_get(body, "worker_id")), "wrk_1");
    assert_string_equal(json_string_value(json_object_get(body, "secret")), "sec_1");
    assert_null(json_object_get(body, "token"));
    json_decref(body);
    agent_stop();
}

static void test_calls(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("calls", 1);
    call_run(&call, "POST", "/v1/echo?x=1", STR("{\"model\":\"a\"}"), 200);
    assert_string_equal(call.body.ptr, "POST /v1/echo?x=1 HTTP/1.1|json|{\"model\":\"a\"}");
    assert_string_equal(call.type, "application/json");
    assert_true(atomic_load(&saw_key)); /* the upstream's key, not the caller's */
    buf_free(&call.body);
    call_run(&call, "POST", "/v1/teapot", STR("{}"), 429);
    assert_string_equal(call.retry_after, "7");
    assert_string_equal(call.fault, "");
    assert_int_equal(call.header_count, 1);
    buf_free(&call.body);
    static const char *const bad[] = {"/other", "/v1/../admin", "/v1/a%2e%2e/b", "/sluice/other"};
    static const int want[] = {404, 400, 400, 404};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        call_run(&call, "POST", bad[i], STR("{}"), want[i]);
        buf_free(&call.body);
    }
    agent_stop();
}

static void test_upstream_faults(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("faults", 1);
    call_run(&call, "POST", "/v1/silent", STR("{}"), 502);
    assert_string_equal(call.fault, "upstream");
    json_t *root = json_loads(call.body.ptr, 0, NULL);
    assert_non_null(json_object_get(json_object_get(root, "error"), "message"));
    json_decref(root);
    buf_free(&call.body);
    atomic_store(&let_go, false);
    call_start(&call, "POST", "/v1/torn", STR("{}"));
    turn_until(call.received);
    assert_int_equal(call.status, 200);
    atomic_store(&let_go, true);
    turn_until(call.ends);
    assert_int_equal(call.end, H2_END_RESET);
    assert_int_equal(call.code, NGHTTP2_INTERNAL_ERROR);
    buf_free(&call.body);
    agent_stop();
}

static void test_upstream_down_and_back(void **state)
{
    (void)state;
    struct call status = {0}, call = {0};
    atomic_store(&upstream_fails, true);
    agent_start("down", 1);
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "upstream", "\"down\""));
    assert_true(status_has(&status, "models", "[]"));
    atomic_store(&upstream_fails, false);
    turn_until(status_has(&status, "upstream", "\"ok\""));
    int port = upstream.port;
    server_stop(&upstream);
    call_run(&call, "POST", "/v1/echo", STR("{}"), 502);
    assert_string_equal(call.fault, "upstream");
    turn_until(status_has(&status, "upstream", "\"down\"")); /* noticed at once, not at the next poll */
    assert_true(status_has(&status, "models", "[]"));
    upstream.port = port;
    server_start(&upstream);
    turn_until(status_has(&status, "models", "[\"model-a\",\"model-b\"]"));
    agent_stop();
    buf_free(&status.body);
    buf_free(&call.body);
}

static void test_slots_and_cancel(void **state)
{
    (void)state;
    struct call calls[2] = {{0}, {0}}, third = {0}, status = {0};
    agent_start("slots", 1);
    call_start(&status, "GET", "/sluice/status", STR(""));
    atomic_store(&hanging, 0);
    atomic_store(&hung_up, 0);
    for (int i = 0; i < 2; i++)
        call_start(&calls[i], "POST", "/v1/hang", STR("{}"));
    turn_until(calls[0].received && calls[1].received);
    assert_string_equal(calls[0].type, "text/event-stream");
    turn_until(status_has(&status, "in_flight", "2"));
    call_run(&third, "POST", "/v1/echo", STR("{}"), 429);
    assert_string_equal(third.fault, "slots");
    assert_non_null(strstr(third.body.ptr, "slots_full"));
    buf_free(&third.body);
    int64_t cancelled_ns = clock_mono_ns();
    h2_stream_cancel(calls[0].stream, NGHTTP2_CANCEL);
    turn_until(atomic_load(&hung_up) == 1);
    assert_true(clock_mono_ns() - cancelled_ns < 100 * NS_PER_MS);
    call_run(&third, "POST", "/v1/echo", STR("{}"), 200); /* the slot is free again */
    buf_free(&third.body);
    turn_until(status_has(&status, "in_flight", "1"));
    gate_drop_links(); /* a gateway that dies cancels what it had */
    turn_until(atomic_load(&hung_up) == 2);
    turn_until(gate_up() == 1); /* and is dialled again */
    buf_free(&status.body);
    call_start(&status, "GET", "/sluice/status", STR(""));
    turn_until(status_has(&status, "in_flight", "0"));
    agent_stop();
    buf_free(&status.body);
    buf_free(&calls[0].body);
    buf_free(&calls[1].body);
}

static void test_flow_control(void **state)
{
    (void)state;
    struct call call = {.keeps_window = true};
    agent_start("flow", 1);
    atomic_store(&is_stalled, false);
    call_start(&call, "GET", "/v1/flood", STR(""));
    turn_until(atomic_load(&is_stalled));
    assert_true(atomic_load(&flooded) < FLOOD_BYTES / 2);
    assert_int_equal(call.ends, 0);
    call.keeps_window = false;
    h2_stream_consumed(call.stream, call.received);
    turn_until(call.ends);
    assert_int_equal(call.end, H2_END_OK);
    assert_int_equal(call.received, FLOOD_BYTES);
    buf_free(&call.body);
    agent_stop();
}

static void test_delay(void **state)
{
    (void)state;
    struct call call = {0};
    agent_start("delay", 1);
    turn_until(registered_count() > 0);
    agent_stop();
    registry_reset();
    gate_open();
    registry_welcomes(1, NULL);
    options.delay_ns = 80 * NS_PER_MS;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
    int64_t from_ns = clock_mono_ns();
    call_run(&call, "POST", "/v1/echo", STR("{}"), 200);
    assert_true(atomic_load(&asked_ns) - from_ns >= 79 * NS_PER_MS);
    buf_free(&call.body);
    agent_stop();
}

static void test_proof(void **state)
{
    (void)state;
    struct challenge challenge;
    struct call call = {0};
    agent_start("proof", 1);
    for (int wrong = 0; wrong < 2; wrong++) {
        challenge_make(&challenge);
        struct str question = {(const char *)challenge.question, challenge.question_len};
        call_run(&call, "POST", "/sluice/probe", question, 200);
        assert_int_equal(challenge_check(&challenge, (struct str){call.body.ptr, call.body.len - 1}), !wrong);
        buf_free(&call.body);
        agent_stop();
        registry_reset();
        gate_open();
        registry_welcomes(1, NULL);
        options.wrong_proof = true;
        assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
        turn_until(gate_up() == 1);
    }
    call_run(&call, "POST", "/sluice/probe", STR("?"), 400);
    buf_free(&call.body);
    agent_stop();
}

static void test_moves_with_the_gateway(void **state)
{
    (void)state;
    agent_start("moves", 1);
    int before = registered_count();
    gate_close(); /* it comes back at another port */
    gate_open();
    registry_welcomes(1, NULL);
    turn_until(gate_up() == 1);
    assert_true(registered_count() > before);

    /* A list that a gateway sends itself: one more link wanted. */
    char list[256];
    struct call call = {0};
    snprintf(list, sizeof(list),
             "[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\",\"links\":2,\"tls\":false,\"pin\":null}]", gate.port);
    call_run(&call, "PUT", "/sluice/gateways", str_of(list), 204);
    turn_until(gate_up() == 2);
    buf_free(&call.body);
    call_run(&call, "PUT", "/sluice/gateways", STR("[{\"id\":7}]"), 400);
    buf_free(&call.body);
    call_run(&call, "PUT", "/sluice/gateways", STR("[]"), 204); /* gone: its links end */
    turn_until(gate_up() == 0);
    buf_free(&call.body);
    agent_stop();
}

static void test_enrols_again_where_it_is_unknown(void **state)
{
    (void)state;
    agent_start("unknown", 1);
    registry_answers(401, "{\"error\":{\"message\":\"no such worker\",\"type\":\"x\",\"param\":null,\"code\":\"x\"}}");
    gate.answer = "NO denied\n";
    int before = registered_count();
    gate_drop_links();
    turn_until(registered_count() > before + 1);
    char answer[512];
    snprintf(
        answer, sizeof(answer),
        "{\"worker_id\":\"wrk_2\",\"secret\":\"sec_2\",\"gateways\":[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\","
        "\"links\":1,\"tls\":false}]}",
        gate.port);
    gate.answer = "OK 0\n";
    gate_drop_links();
    registry_answers(200, answer);
    turn_until(gate_up() == 1 && strstr(gate.links[gate.count - 1].hello, " wrk_2 sec_2 "));
    agent_stop();
}

static void test_wrong_token_ends_it(void **state)
{
    (void)state;
    registry_reset();
    gate_open();
    registry_answers(401, "{\"error\":{\"message\":\"bad token\",\"type\":\"x\",\"param\":null,\"code\":\"x\"}}");
    options_set("token");
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_REFUSED);
    agent_stop();
}

static void test_tries_on_while_no_gateway_answers(void **state)
{
    (void)state;
    gate_open();
    registry_reset();
    registry_answers(503, "{}");
    options_set("patient");
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(registered_count() >= 2);
    assert_int_equal(done_count, 0);
    registry_welcomes(1, NULL);
    turn_until(gate_up() == 1);
    agent_stop();
}

static void test_drain(void **state)
{
    (void)state;
    struct call status = {0}, running = {0}, late = {0};
    agent_start("drain", 1);
    atomic_store(&let_go, false);
    atomic_store(&hanging, 0);
    call_start(&status, "GET", "/sluice/status", STR(""));
    call_start(&running, "POST", "/v1/wait", STR("{}"));
    turn_until(atomic_load(&hanging) == 1);
    agent_drain(agent);
    agent_drain(agent);
    turn_until(status_has(&status, "draining", "true"));
    call_run(&late, "POST", "/v1/echo", STR("{}"), 503);
    assert_string_equal(late.fault, "draining");
    assert_int_equal(done_count, 0);
    atomic_store(&let_go, true);
    turn_until(running.ends);
    assert_int_equal(running.end, H2_END_OK);
    assert_true(str_eq(buf_str(&running.body), STR("waited")));
    turn_until(done_count);
    assert_int_equal(done_code, AGENT_DRAINED);
    assert_int_equal(done_count, 1);
    agent_stop();
    buf_free(&status.body);
    buf_free(&running.body);
    buf_free(&late.body);

    agent_start("drain", 1); /* a call that outlasts the drain is cut off */
    options.drain_ns = 0;
    agent_stop();
    gate_open();
    registry_welcomes(1, NULL);
    options.drain_ns = 50 * NS_PER_MS;
    done_count = 0;
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate_up() == 1);
    call_start(&running, "POST", "/v1/hang", STR("{}"));
    turn_until(running.received);
    agent_drain(agent);
    turn_until(done_count && running.ends);
    assert_int_equal(running.end, H2_END_RESET);
    agent_stop();
    buf_free(&running.body);
}

/* A certificate made on the spot; its pin in hex. */
static SSL_CTX *make_tls(char ret_pin[65])
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    uint8_t digest[SHA256_BYTES];
    unsigned len = 0;
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    assert_int_equal(X509_digest(certificate, EVP_sha256(), digest, &len), 1);
    crypto_hex(digest, sizeof(digest), ret_pin);
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(tls, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(tls, key), 1);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return tls;
}

static void test_tls_takes_only_the_pinned_certificate(void **state)
{
    (void)state;
    char pin[65], other[65];
    struct call call = {0};
    gate_open();
    SSL_CTX_free(make_tls(other));
    gate.tls = make_tls(pin);
    registry_reset();
    registry_welcomes(1, other);
    options_set("tls");
    assert_int_equal(agent_open(loop, &options, on_done, NULL, &agent), ERR_NONE);
    turn_until(gate.tried >= 2);
    for (size_t i = 0; i < gate.count; i++)
        assert_int_equal(gate.links[i].len, 0); /* the secret was not said */
    registry_welcomes(1, NULL); /* no TLS, said of a loopback address, is fine; here the listener wants TLS */
    char answer[1024];
    snprintf(answer, sizeof(answer),
             "{\"gateways\":[{\"id\":\"gw_1\",\"address\":\"127.0.0.1:%d\",\"links\":1,\"tls\":true,\"pin\":\"%s\"}]}",
             gate.port, pin);
    registry_answers(200, answer);
    gate_drop_links();
    turn_until(gate_up() == 1);
    call_run(&call, "POST", "/v1/echo", STR("hello"), 200);
    buf_free(&call.body);
    agent_stop();
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_state_folder_is_per_upstream),
        cmocka_unit_test(test_gpu_names),
        cmocka_unit_test(test_state_file),
        cmocka_unit_test(test_enrols_and_reports),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_upstream_faults),
        cmocka_unit_test(test_upstream_down_and_back),
        cmocka_unit_test(test_slots_and_cancel),
        cmocka_unit_test(test_flow_control),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_proof),
        cmocka_unit_test(test_moves_with_the_gateway),
        cmocka_unit_test(test_enrols_again_where_it_is_unknown),
        cmocka_unit_test(test_wrong_token_ends_it),
        cmocka_unit_test(test_tries_on_while_no_gateway_answers),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_tls_takes_only_the_pinned_certificate),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
