/* The hub against fake agents on core/h2: hellos, which reactor gets a link, status, requests, ends. */
#include "cmocka_all.h"

#include "adapters/native/hub_status.h"
#include "adapters/native/link_hello.h"
#include "core/clock.h"
#include "core/tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REACTORS 2
#define AGENTS_MAX 8
#define SECRET "sws_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"

struct fixture;

/* One link's agent side. */
struct agent {
    struct fixture *fixture;
    int fd;
    SSL *ssl;
    struct h2 *h2;
    struct h2_stream *status;
    char answer[LINK_ANSWER_MAX + 1], list[256];
    size_t list_len;
    int lists, calls, cancelled, closes;
    const char *line; /* the status line that it sends at once */
};

struct fixture {
    struct loop *loop;
    struct hub *hub;
    struct hub_reactor *reactors[REACTORS];
    struct loop *loops[REACTORS];
    struct worker *worker;
    SSL_CTX *tls;
    char pin[SHA256_HEX];
    struct agent agents[AGENTS_MAX];
    int ups[REACTORS], downs[REACTORS], statuses, finds;
    struct worker_status last;
    char last_model[64];
    bool drop_at_status;
};

static const char good_line[] =
    "{\"in_flight\":3,\"slots\":64,\"models\":[\"gemma\",\"qwen\"],\"draining\":false,\"upstream\":\"ok\",\"new\":1}\n";

#define UNTIL(fixture, condition)                             \
    do {                                                      \
        int64_t give_up_ns = clock_mono_ns() + 10 * NS_PER_S; \
        while (!(condition)) {                                \
            assert_true(clock_mono_ns() < give_up_ns);        \
            loop_turn((fixture)->loop, 10 * NS_PER_MS);       \
        }                                                     \
    } while (0)

static void settle(struct fixture *fixture)
{
    for (int i = 0; i < 100; i++)
        loop_turn(fixture->loop, 0);
}

/* -- the owner ---------------------------------------------------------------------------------------------------- */

static struct worker *find(void *ctx, struct str id, uint8_t ret_secret[SHA256_BYTES])
{
    struct fixture *fixture = ctx;
    fixture->finds++;
    if (!str_eq(id, str_of(fixture->worker->id)))
        return NULL;
    crypto_sha256(STR(SECRET), ret_secret);
    return worker_ref(fixture->worker);
}

struct seat {
    struct fixture *fixture;
    unsigned index;
};

static void on_link(void *ctx, struct worker *worker, bool is_up)
{
    struct seat *seat = ctx;
    assert_ptr_equal(worker, seat->fixture->worker);
    ++*(is_up ? &seat->fixture->ups[seat->index] : &seat->fixture->downs[seat->index]);
}

static void on_status(void *ctx, struct worker *worker, const struct worker_status *status)
{
    struct seat *seat = ctx;
    struct fixture *fixture = seat->fixture;
    fixture->statuses++;
    fixture->last = *status;
    if (status->model_count > 0)
        assert_true(str_copy(fixture->last_model, sizeof(fixture->last_model), status->models[0]));
    if (fixture->drop_at_status) {
        hub_drop(fixture->reactors[seat->index], worker);
        assert_int_equal(fixture->downs[seat->index], 0);
    }
}

static struct fixture *fixture_open(bool with_tls)
{
    static struct seat seats[REACTORS];
    const struct hub_events events = {on_link, on_status};
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    assert_int_equal(loop_open(&fixture->loop), ERR_NONE);
    fixture->worker = worker_new("wrk_1", 70);
    for (unsigned i = 0; i < REACTORS; i++) {
        seats[i] = (struct seat){fixture, i};
        fixture->loops[i] = fixture->loop;
        assert_int_equal(hub_reactor_open(fixture->loop, i, &events, &seats[i], &fixture->reactors[i]), ERR_NONE);
    }
    if (with_tls) {
        char dir[] = "/tmp/test_hub.XXXXXX", path[64];
        assert_non_null(mkdtemp(dir));
        assert_int_equal(tls_server_open(dir, NULL, NULL, &fixture->tls, fixture->pin), ERR_NONE);
        assert_true(snprintf(path, sizeof(path), "%s/link.crt", dir) > 0 && unlink(path) == 0);
        assert_true(snprintf(path, sizeof(path), "%s/link.key", dir) > 0 && unlink(path) == 0);
        assert_int_equal(rmdir(dir), 0);
    }
    const struct hub_options options = {.listen = "127.0.0.1:0",
                                        .tls = fixture->tls,
                                        .reactors = fixture->reactors,
                                        .loops = fixture->loops,
                                        .reactor_count = REACTORS,
                                        .find = find,
                                        .ctx = fixture};
    assert_int_equal(hub_open(fixture->loop, &options, &fixture->hub), ERR_NONE);
    assert_int_not_equal(hub_port(fixture->hub), 0);
    return fixture;
}

static void fixture_close(struct fixture *fixture)
{
    hub_free(fixture->hub);
    for (unsigned i = 0; i < REACTORS; i++) {
        hub_reactor_free(fixture->reactors[i]);
        assert_int_equal(fixture->ups[i], fixture->downs[i]);
    }
    for (size_t i = 0; i < AGENTS_MAX; i++)
        h2_free(fixture->agents[i].h2);
    /* Every link gave its reference back. */
    assert_int_equal(atomic_load(&fixture->worker->refs), 1);
    worker_unref(fixture->worker);
    SSL_CTX_free(fixture->tls);
    loop_free(fixture->loop);
    free(fixture);
}

static size_t links_up(const struct fixture *fixture, unsigned reactor)
{
    size_t count = 0, up = 0;
    void *const *links = hub_links(fixture->reactors[reactor], &count);
    for (size_t i = 0; i < count; i++)
        up += links[i] != NULL;
    return up;
}

/* -- the agent ---------------------------------------------------------------------------------------------------- */

struct served {
    struct agent *agent;
    struct h2_stream *stream;
    bool is_list, is_call;
};

static void served_data(void *ctx, struct str bytes)
{
    struct served *served = ctx;
    struct agent *agent = served->agent;
    if (served->is_list) {
        assert_true(agent->list_len + bytes.len < sizeof(agent->list));
        memcpy(agent->list + agent->list_len, bytes.ptr, bytes.len);
        agent->list_len += bytes.len;
    }
    if (served->is_call)
        assert_int_equal(h2_stream_send(served->stream, bytes), ERR_NONE);
    h2_stream_consumed(served->stream, bytes.len);
}

static void served_finished(void *ctx)
{
    struct served *served = ctx;
    if (served->is_list) {
        served->agent->lists++;
        assert_int_equal(h2_stream_respond(served->stream, 204, NULL, 0), ERR_NONE);
    }
    if (served->is_list || served->is_call)
        assert_int_equal(h2_stream_finish(served->stream), ERR_NONE);
}

static void served_end(void *ctx, enum h2_end end)
{
    struct served *served = ctx;
    if (served->stream == served->agent->status)
        served->agent->status = NULL;
    else if (end == H2_END_RESET && h2_stream_reset_code(served->stream) == NGHTTP2_CANCEL)
        served->agent->cancelled++;
    free(served);
}

static const struct h2_stream_ops served_ops = {
    .on_data = served_data, .on_finished = served_finished, .on_end = served_end};

static void say(struct agent *agent, const char *line)
{
    assert_int_equal(h2_stream_send(agent->status, str_of(line)), ERR_NONE);
}

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct agent *agent = ctx;
    struct str method = headers[0].value, path = headers[1].value;
    struct served *served = calloc(1, sizeof(*served));
    assert_non_null(served);
    (void)count;
    *served = (struct served){.agent = agent, .stream = stream};
    *ret_ops = &served_ops;
    *ret_ctx = served;
    if (str_eq(path, STR("/sluice/status"))) {
        assert_true(str_eq(method, STR("GET")) && !agent->status);
        agent->status = stream;
        assert_int_equal(h2_stream_respond(stream, 200, NULL, 0), ERR_NONE);
        if (agent->line)
            say(agent, agent->line);
    } else if (str_eq(path, STR("/sluice/gateways"))) {
        assert_true(str_eq(method, STR("PUT")));
        served->is_list = true;
        agent->list_len = 0;
    } else {
        agent->calls++;
        served->is_call = str_eq(path, STR("/v1/echo"));
        if (served->is_call)
            assert_int_equal(h2_stream_respond(stream, 200, NULL, 0), ERR_NONE);
    }
    return true;
}

static void on_agent_close(void *ctx, enum error error)
{
    struct agent *agent = ctx;
    (void)error;
    agent->closes++;
    agent->h2 = h2_free(agent->h2);
}

static int dial(const struct fixture *fixture)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(hub_port(fixture->hub)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

static void on_shaken(void *ctx, enum error error)
{
    assert_int_equal(error, ERR_NONE);
    *(bool *)ctx = true;
}

static void shake(struct fixture *fixture, struct agent *agent)
{
    struct tls_client *client = NULL;
    struct tls_handshake *handshake = NULL;
    bool is_shaken = false;
    assert_int_equal(tls_client_open(str_of(fixture->pin), &client), ERR_NONE);
    assert_int_equal(tls_client_new(client, "127.0.0.1", &agent->ssl), ERR_NONE);
    assert_int_equal(tls_handshake_start(fixture->loop, agent->fd, agent->ssl, false, clock_mono_ns() + 10 * NS_PER_S,
                                         on_shaken, &is_shaken, &handshake),
                     ERR_NONE);
    UNTIL(fixture, is_shaken);
    tls_client_free(client);
}

/* Sends a hello and reads the answer, byte by byte so that what follows stays for HTTP/2. True: the answer is whole;
 * false: closed without one. */
static bool greet(struct fixture *fixture, struct agent *agent, const char *hello)
{
    size_t len = 0;
    agent->fixture = fixture;
    agent->fd = dial(fixture);
    if (fixture->tls) {
        shake(fixture, agent);
        assert_int_equal(SSL_write(agent->ssl, hello, (int)strlen(hello)), (int)strlen(hello));
    } else {
        assert_int_equal(send(agent->fd, hello, strlen(hello), 0), (ssize_t)strlen(hello));
    }
    for (int64_t give_up_ns = clock_mono_ns() + 8 * NS_PER_S; clock_mono_ns() < give_up_ns;) {
        ssize_t n = agent->ssl ? SSL_read(agent->ssl, agent->answer + len, 1) : read(agent->fd, agent->answer + len, 1);
        if (n == 0)
            return false;
        if (n == 1 && agent->answer[len++] == '\n') {
            agent->answer[len - 1] = '\0';
            return true;
        }
        if (n < 0)
            loop_turn(fixture->loop, NS_PER_MS);
    }
    fail();
    return false;
}

static struct agent *agent_start(struct fixture *fixture, size_t at, const char *boot, const char *line)
{
    struct agent *agent = &fixture->agents[at];
    char hello[LINK_HELLO_MAX + 1] = {0};
    size_t len = 0;
    assert_true(link_hello_write(&(struct link_hello){STR("wrk_1"), STR(SECRET), str_of(boot)}, hello, &len));
    agent->line = line;
    assert_true(greet(fixture, agent, hello));
    struct link_answer answer;
    assert_true(link_answer_parse(str_of(agent->answer), &answer));
    assert_true(answer.is_taken);
    const struct h2_options options = {
        .tls = agent->ssl, .is_server = true, .on_request = on_request, .on_close = on_agent_close, .ctx = agent};
    assert_int_equal(h2_open(fixture->loop, agent->fd, &options, &agent->h2), ERR_NONE);
    return agent;
}

/* -- calls of the gateway ------------------------------------------------------------------------------------------ */

struct call {
    struct h2_stream *stream;
    int status, ends;
    size_t got;
    enum h2_end end;
};

static void call_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    (void)headers;
    (void)count;
    ((struct call *)ctx)->status = status;
}

static void call_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    call->got += bytes.len;
    h2_stream_consumed(call->stream, bytes.len);
}

static void call_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    call->ends++;
    call->end = end;
}

static const struct h2_stream_ops call_ops = {.on_head = call_head, .on_data = call_data, .on_end = call_end};

static enum error call_try(struct fixture *fixture, unsigned reactor, const char *path, struct call *call)
{
    const struct h2_request request = {.method = STR("POST"), .path = str_of(path), .body = STR("hello there")};
    *call = (struct call){0};
    return hub_request(fixture->reactors[reactor], fixture->worker, &request, &call_ops, call, &call->stream);
}

/* -- tests --------------------------------------------------------------------------------------------------------- */

static void test_link_carries_calls(void **state)
{
    (void)state;
    for (int with_tls = 0; with_tls < 2; with_tls++) {
        struct fixture *fixture = fixture_open(with_tls);
        struct call call;
        assert_int_equal(call_try(fixture, 0, "/v1/echo", &call), ERR_CLOSED);
        struct agent *agent = agent_start(fixture, 0, "boot-1", good_line);
        assert_string_equal(agent->answer, "OK 0");
        UNTIL(fixture, fixture->statuses == 1);
        assert_int_equal(fixture->ups[0], 1);
        assert_int_equal(links_up(fixture, 0), 1);
        assert_int_equal(fixture->last.in_flight, 3);
        assert_int_equal(fixture->last.model_count, 2);
        assert_string_equal(fixture->last_model, "gemma");
        assert_int_equal(atomic_load(&fixture->worker->slots), 64);
        assert_int_equal(atomic_load(&fixture->worker->reported), 3);
        assert_true(atomic_load(&fixture->worker->upstream_ok) && !atomic_load(&fixture->worker->draining));
        assert_true(atomic_load(&fixture->worker->heard_ns) > 0 && atomic_load(&fixture->worker->rtt_ns) > 0);
        assert_int_equal(call_try(fixture, 0, "/v1/echo", &call), ERR_NONE);
        UNTIL(fixture, call.ends);
        assert_int_equal(call.end, H2_END_OK);
        assert_int_equal(call.status, 200);
        assert_int_equal(call.got, 11);
        /* A change, in two pieces. */
        say(agent, "{\"in_flight\":64,\"slots\":64,\"models\":[],\"drai");
        settle(fixture);
        assert_int_equal(fixture->statuses, 1);
        say(agent, "ning\":true,\"upstream\":\"down\"}\n");
        UNTIL(fixture, fixture->statuses == 2);
        assert_true(fixture->last.draining && !fixture->last.upstream_ok);
        assert_int_equal(fixture->last.model_count, 0);
        assert_int_equal(call_try(fixture, 0, "/v1/hold", &call), ERR_NONE);
        UNTIL(fixture, agent->calls == 2);
        h2_stream_cancel(call.stream, NGHTTP2_CANCEL);
        UNTIL(fixture, call.ends && agent->cancelled == 1);
        fixture_close(fixture);
    }
}

static void test_refusals(void **state)
{
    static const struct {
        const char *hello, *answer; /* NULL: closed without a word */
    } cases[] = {
        {"SLUICE-LINK/1 wrk_1 " SECRET "x boot\n", "NO denied"},
        {"SLUICE-LINK/1 wrk_2 " SECRET " boot\n", "NO denied"},
        {"SLUICE-LINK/1 wrk_1  boot\n", "NO protocol"},
        {"SLUICE-LINK/1 wrk_1 " SECRET "\n", "NO protocol"},
        {"SLUICE-LINK/1 wrk_1 " SECRET " bo/ot\n", "NO protocol"},
        {"SLUICE-LINK/1 wrk_1 " SECRET " boot extra\n", "NO protocol"},
        {"SLUICE-LINK/1 wrk_1 " SECRET " boot\r\n", "NO protocol"},
        {"SLUICE-LINK/1 wrk_1 " SECRET " boot\nPRI *", "NO protocol"},
        {"SLUICE-LINK/2 wrk_1 " SECRET " boot\n", "NO protocol"},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "NO protocol"},
        {"\n", "NO protocol"},
    };
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct agent *agent = &fixture->agents[0];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(greet(fixture, agent, cases[i].hello));
        assert_string_equal(agent->answer, cases[i].answer);
        UNTIL(fixture, read(agent->fd, agent->answer, 1) == 0);
        close(agent->fd);
    }
    char endless[LINK_HELLO_MAX + 1] = "SLUICE-LINK/1 wrk_1 ";
    memset(endless + 20, 'x', sizeof(endless) - 21);
    endless[LINK_HELLO_MAX] = '\0';
    assert_true(greet(fixture, agent, endless));
    assert_string_equal(agent->answer, "NO protocol");
    close(agent->fd);
    assert_int_equal(fixture->finds, 2);
    assert_int_equal(links_up(fixture, 0) + links_up(fixture, 1), 0);
    fixture_close(fixture);
}

/* No hello, or half of one, is cut off at the deadline of 5 seconds. */
static void test_deadline(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct agent *agent = &fixture->agents[0];
    int64_t from_ns = clock_mono_ns();
    assert_false(greet(fixture, agent, "SLUICE-LINK/1 wrk_1 "));
    int64_t took_ns = clock_mono_ns() - from_ns;
    assert_true(took_ns > 4 * NS_PER_S && took_ns < 7 * NS_PER_S);
    close(agent->fd);
    fixture_close(fixture);
}

static void test_reactors_share_links(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct call call;
    assert_string_equal(agent_start(fixture, 0, "boot-1", good_line)->answer, "OK 0");
    assert_string_equal(agent_start(fixture, 1, "boot-1", good_line)->answer, "OK 1");
    UNTIL(fixture, fixture->statuses == 2);
    /* A third link takes the place of the oldest, whose running call may end. */
    assert_int_equal(call_try(fixture, 0, "/v1/hold", &call), ERR_NONE);
    UNTIL(fixture, fixture->agents[0].calls == 1);
    assert_string_equal(agent_start(fixture, 2, "boot-1", good_line)->answer, "OK 0");
    UNTIL(fixture, fixture->statuses == 3);
    assert_int_equal(fixture->ups[0], 2);
    assert_int_equal(fixture->downs[0], 1);
    assert_int_equal(links_up(fixture, 0), 1);
    settle(fixture);
    assert_int_equal(call.ends, 0);
    assert_int_equal(fixture->agents[0].closes, 0);
    h2_stream_cancel(call.stream, NGHTTP2_CANCEL);
    UNTIL(fixture, call.ends && fixture->agents[0].closes == 1);
    assert_int_equal(fixture->downs[0], 1);
    /* A link that breaks leaves its reactor first in line. */
    fixture->agents[1].h2 = h2_free(fixture->agents[1].h2);
    UNTIL(fixture, fixture->downs[1] == 1);
    assert_int_equal(links_up(fixture, 1), 0);
    assert_string_equal(agent_start(fixture, 3, "boot-1", good_line)->answer, "OK 1");
    UNTIL(fixture, fixture->ups[1] == 2);
    fixture_close(fixture);
}

static void test_new_start_ends_old_links(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct call call;
    agent_start(fixture, 0, "boot-1", good_line);
    agent_start(fixture, 1, "boot-1", good_line);
    UNTIL(fixture, fixture->statuses == 2);
    assert_int_equal(call_try(fixture, 1, "/v1/hold", &call), ERR_NONE);
    assert_string_equal(agent_start(fixture, 2, "boot-2", good_line)->answer, "OK 0");
    UNTIL(fixture, fixture->agents[0].closes == 1 && fixture->agents[1].closes == 1);
    UNTIL(fixture, fixture->statuses == 3);
    assert_int_equal(call.ends, 1);
    assert_int_equal(call.end, H2_END_CLOSED);
    assert_int_equal(links_up(fixture, 0), 1);
    assert_int_equal(links_up(fixture, 1), 0);
    assert_int_equal(fixture->agents[2].closes, 0);
    fixture_close(fixture);
}

static void test_bad_status_closes(void **state)
{
    static const char *const lines[] = {
        "nonsense\n",
        "[]\n",
        "{\"in_flight\":-1,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":0,\"models\":[],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":65537,\"models\":[],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[\"\"],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[\"a\\nb\"],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[1],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":0,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"up\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"slots\":2,\"models\":[],\"draining\":false,\"upstream\":\"ok\"}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\",\"lease\":{}}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\",\"lease\":[1]}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\","
        "\"lease\":{\"state\":\"gone\"}}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\","
        "\"lease\":{\"state\":\"exited\"}}\n",
        "{\"in_flight\":0,\"slots\":1,\"models\":[],\"draining\":false,\"upstream\":\"ok\","
        "\"lease\":{\"state\":\"exited\",\"exit_code\":256}}\n",
    };
    (void)state;
    struct fixture *fixture = fixture_open(false);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct agent *agent = agent_start(fixture, 0, "boot-1", lines[i]);
        UNTIL(fixture, agent->closes == 1);
        assert_int_equal(fixture->statuses, 0);
        *agent = (struct agent){0};
    }
    /* A line without end, and too many lines. */
    struct agent *endless = agent_start(fixture, 1, "boot-1", NULL);
    UNTIL(fixture, endless->status);
    char part[1001];
    memset(part, 'x', 1000);
    part[1000] = '\0';
    for (int i = 0; i < 40; i++)
        say(endless, part);
    UNTIL(fixture, endless->closes == 1);
    struct agent *flood = agent_start(fixture, 2, "boot-1", NULL);
    UNTIL(fixture, flood->status);
    for (int i = 0; i < 1100; i++)
        say(flood, good_line);
    UNTIL(fixture, flood->closes == 1);
    assert_int_equal(fixture->statuses, 1024);
    assert_int_equal(fixture->ups[0], fixture->downs[0]);
    fixture_close(fixture);
}

static void test_drop(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    fixture->drop_at_status = true;
    struct agent *agent = agent_start(fixture, 0, "boot-1", good_line);
    UNTIL(fixture, agent->closes == 1);
    assert_int_equal(fixture->downs[0], 1);
    assert_int_equal(links_up(fixture, 0), 0);
    fixture_close(fixture);
}

static void test_goodbye(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct agent *agent = agent_start(fixture, 0, "boot-1", good_line);
    struct call running, late;
    UNTIL(fixture, fixture->statuses == 1);
    assert_int_equal(call_try(fixture, 0, "/v1/hold", &running), ERR_NONE);
    UNTIL(fixture, agent->calls == 1);
    h2_shutdown(agent->h2);
    settle(fixture);
    assert_int_equal(call_try(fixture, 0, "/v1/echo", &late), ERR_CLOSED);
    assert_int_equal(fixture->downs[0], 0);
    UNTIL(fixture, fixture->downs[0] == 1);
    assert_int_equal(links_up(fixture, 0), 0);
    assert_int_equal(running.ends, 0);
    h2_stream_cancel(running.stream, NGHTTP2_CANCEL);
    UNTIL(fixture, agent->closes == 1);
    fixture_close(fixture);
}

static void test_status_finished(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    struct agent *agent = agent_start(fixture, 0, "boot-1", good_line);
    struct call running;
    UNTIL(fixture, fixture->statuses == 1);
    assert_int_equal(call_try(fixture, 0, "/v1/hold", &running), ERR_NONE);
    UNTIL(fixture, agent->calls == 1);
    assert_int_equal(h2_stream_finish(agent->status), ERR_NONE);
    UNTIL(fixture, fixture->downs[0] == 1);
    settle(fixture);
    assert_int_equal(links_up(fixture, 0), 0);
    assert_int_equal(running.ends + agent->closes, 0);
    h2_stream_cancel(running.stream, NGHTTP2_CANCEL);
    UNTIL(fixture, agent->closes == 1);
    /* Reset instead: at once. */
    agent = agent_start(fixture, 1, "boot-1", good_line);
    UNTIL(fixture, fixture->statuses == 2);
    assert_int_equal(call_try(fixture, 0, "/v1/hold", &running), ERR_NONE);
    h2_stream_cancel(agent->status, NGHTTP2_INTERNAL_ERROR);
    UNTIL(fixture, agent->closes == 1 && running.ends == 1);
    assert_int_equal(running.end, H2_END_CLOSED);
    fixture_close(fixture);
}

static void test_gateways_list(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_open(false);
    for (unsigned i = 0; i < REACTORS; i++)
        hub_set_gateways(fixture->reactors[i], STR("[1]"));
    struct agent *agent = agent_start(fixture, 0, "boot-1", good_line);
    UNTIL(fixture, agent->lists == 1);
    assert_memory_equal(agent->list, "[1]", 3);
    /* Two changes in one turn: the last one arrives. */
    hub_set_gateways(fixture->reactors[0], STR("[1,2]"));
    hub_set_gateways(fixture->reactors[0], STR("[1,2,3]"));
    UNTIL(fixture, agent->list_len == 7 && memcmp(agent->list, "[1,2,3]", 7) == 0);
    fixture_close(fixture);
}

static void test_listen_addresses(void **state)
{
    static const struct {
        const char *listen;
        enum error error;
    } cases[] = {
        {"0.0.0.0:0", ERR_DENIED}, {"[::]:0", ERR_DENIED}, {"127.0.0.1", ERR_BAD_INPUT},
        {":0", ERR_BAD_INPUT},     {"[::1]:0", ERR_NONE},  {"127.9.9.9:0", ERR_NONE},
    };
    (void)state;
    struct fixture *fixture = fixture_open(false);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct hub_options options = {.listen = cases[i].listen,
                                            .reactors = fixture->reactors,
                                            .loops = fixture->loops,
                                            .reactor_count = REACTORS,
                                            .find = find,
                                            .ctx = fixture};
        struct hub *hub = NULL;
        assert_int_equal(hub_open(fixture->loop, &options, &hub), cases[i].error);
        hub_free(hub);
    }
    fixture_close(fixture);
}

static void test_texts(void **state)
{
    static const struct {
        const char *line;
        bool ok, is_taken;
        unsigned reactor;
    } answers[] = {
        {"OK 0", true, true, 0},       {"OK 15", true, true, 15},  {"NO denied", true, false, 0},
        {"OK", false, false, 0},       {"OK -1", false, false, 0}, {"OK x", false, false, 0},
        {"OK 99999", false, false, 0}, {"", false, false, 0},      {"HTTP/1.1 400", false, false, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        struct link_answer answer = {0};
        assert_int_equal(link_answer_parse(str_of(answers[i].line), &answer), answers[i].ok);
        assert_int_equal(answer.is_taken, answers[i].is_taken);
        assert_int_equal(answer.reactor, answers[i].reactor);
    }
    char line[LINK_HELLO_MAX];
    size_t len = 0;
    assert_false(link_hello_write(&(struct link_hello){STR("a b"), STR("s"), STR("b")}, line, &len));
    assert_false(link_hello_write(&(struct link_hello){STR("a"), STR(""), STR("b")}, line, &len));
    assert_false(link_hello_write(&(struct link_hello){STR("a"), STR("s\n"), STR("b")}, line, &len));
}

/* -- a thread a reactor -------------------------------------------------------------------------------------------- */

struct station {
    pthread_t thread;
    struct loop *loop;
    struct hub_reactor *reactor;
    atomic_int ups, downs, statuses, echoes;
    struct worker *worker;
    struct h2_stream *stream;
};

static void station_call(struct station *station);

static void station_data(void *ctx, struct str bytes)
{
    struct station *station = ctx;
    h2_stream_consumed(station->stream, bytes.len);
}

static void station_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    (void)ctx;
    (void)status;
    (void)headers;
    (void)count;
}

static void station_end(void *ctx, enum h2_end end)
{
    struct station *station = ctx;
    if (end == H2_END_OK && atomic_fetch_add(&station->echoes, 1) < 100)
        station_call(station);
}

static const struct h2_stream_ops station_ops = {
    .on_head = station_head, .on_data = station_data, .on_end = station_end};

static void station_call(struct station *station)
{
    const struct h2_request request = {.method = STR("POST"), .path = STR("/v1/echo"), .body = STR("hello")};
    (void)!hub_request(station->reactor, station->worker, &request, &station_ops, station, &station->stream);
}

static void station_link(void *ctx, struct worker *worker, bool is_up)
{
    struct station *station = ctx;
    (void)worker;
    atomic_fetch_add(is_up ? &station->ups : &station->downs, 1);
}

static void station_status(void *ctx, struct worker *worker, const struct worker_status *status)
{
    struct station *station = ctx;
    (void)status;
    station->worker = worker;
    if (atomic_fetch_add(&station->statuses, 1) == 0)
        station_call(station);
}

static void *station_run(void *arg)
{
    struct station *station = arg;
    loop_run(station->loop);
    station->reactor = hub_reactor_free(station->reactor);
    return NULL;
}

static void test_threads(void **state)
{
    const struct hub_events events = {station_link, station_status};
    struct station stations[REACTORS] = {0};
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    (void)state;
    assert_int_equal(loop_open(&fixture->loop), ERR_NONE);
    fixture->worker = worker_new("wrk_1", 3);
    for (unsigned i = 0; i < REACTORS; i++) {
        struct station *station = &stations[i];
        assert_int_equal(loop_open(&station->loop), ERR_NONE);
        assert_int_equal(hub_reactor_open(station->loop, i, &events, station, &station->reactor), ERR_NONE);
        fixture->reactors[i] = station->reactor;
        fixture->loops[i] = station->loop;
        assert_int_equal(pthread_create(&station->thread, NULL, station_run, station), 0);
    }
    const struct hub_options options = {.listen = "127.0.0.1:0",
                                        .reactors = fixture->reactors,
                                        .loops = fixture->loops,
                                        .reactor_count = REACTORS,
                                        .find = find,
                                        .ctx = fixture};
    assert_int_equal(hub_open(fixture->loop, &options, &fixture->hub), ERR_NONE);
    agent_start(fixture, 0, "boot-1", good_line);
    agent_start(fixture, 1, "boot-1", good_line);
    UNTIL(fixture, atomic_load(&stations[0].echoes) > 100 && atomic_load(&stations[1].echoes) > 100);
    agent_start(fixture, 2, "boot-2", good_line);
    UNTIL(fixture, fixture->agents[0].closes && fixture->agents[1].closes);
    UNTIL(fixture, atomic_load(&stations[0].ups) + atomic_load(&stations[1].ups) == 3);
    hub_free(fixture->hub);
    for (unsigned i = 0; i < REACTORS; i++) {
        loop_stop(stations[i].loop);
        assert_int_equal(pthread_join(stations[i].thread, NULL), 0);
        loop_free(stations[i].loop);
        assert_int_equal(atomic_load(&stations[i].ups), atomic_load(&stations[i].downs));
    }
    for (size_t i = 0; i < AGENTS_MAX; i++)
        h2_free(fixture->agents[i].h2);
    assert_int_equal(atomic_load(&fixture->worker->refs), 1);
    worker_unref(fixture->worker);
    loop_free(fixture->loop);
    free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_link_carries_calls),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_reactors_share_links),
        cmocka_unit_test(test_new_start_ends_old_links),
        cmocka_unit_test(test_bad_status_closes),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_goodbye),
        cmocka_unit_test(test_status_finished),
        cmocka_unit_test(test_gateways_list),
        cmocka_unit_test(test_listen_addresses),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_deadline),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
