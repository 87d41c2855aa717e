/* core/h2: both roles on one loop over a socketpair. */
#include "cmocka_all.h"

#include "core/clock.h"
#include "core/h2.h"

#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIG ((size_t)5 << 20)
#define CALLS_MAX 1000
#define TEAR_BYTES 100000

struct pair;

/* What the server does with a request, by its path. */
enum plan { PLAN_ECHO, PLAN_BIG, PLAN_HOLD, PLAN_RESET, PLAN_EARLY_ANSWER, PLAN_TORN, PLAN_TEAR };

struct served {
    struct pair *pair;
    struct h2_stream *stream;
    enum plan plan;
    size_t left;       /* PLAN_BIG: bytes to send yet */
    size_t queued_max; /* the longest its queue has been */
    bool finished, gone;
};

struct call {
    struct pair *pair;
    struct h2_stream *stream;
    int status, heads, ends, finishes;
    enum h2_end end;
    uint32_t code;
    size_t got, header_count, unconsumed;
    bool content_good, paused, cancel_at_head, cancel_at_data, data_after_cancel, free_at_data, cancelled;
};

struct pair {
    struct loop *loop;
    int fds[2];
    struct h2 *client, *server;
    int client_closes, server_closes;
    enum error client_error;
    struct call calls[CALLS_MAX];
    struct served served[CALLS_MAX];
    size_t served_count, refused_from;
    int served_ends, served_cancelled;
};

static char pattern[BIG];

static void pattern_fill(void)
{
    for (size_t i = 0; i < BIG; i++)
        pattern[i] = (char)(i * 7 + i / 251);
}

/* -- server -- */

static void feed_big(struct served *served)
{
    while (served->left > 0 && h2_stream_queued(served->stream) < H2_QUEUE_HIGH) {
        size_t part = served->left < 10000 ? served->left : 10000;
        assert_int_equal(h2_stream_send(served->stream, (struct str){pattern + BIG - served->left, part}), ERR_NONE);
        served->left -= part;
        if (h2_stream_queued(served->stream) > served->queued_max)
            served->queued_max = h2_stream_queued(served->stream);
        if (served->left == 0)
            assert_int_equal(h2_stream_finish(served->stream), ERR_NONE);
    }
}

static void served_data(void *ctx, struct str bytes)
{
    struct served *served = ctx;
    if (served->plan == PLAN_ECHO)
        assert_int_equal(h2_stream_send(served->stream, bytes), ERR_NONE);
    if (served->plan != PLAN_HOLD)
        h2_stream_consumed(served->stream, bytes.len);
}

static void served_finished(void *ctx)
{
    struct served *served = ctx;
    served->finished = true;
    if (served->plan == PLAN_ECHO)
        assert_int_equal(h2_stream_finish(served->stream), ERR_NONE);
}

static void served_sent(void *ctx)
{
    struct served *served = ctx;
    assert_true(h2_stream_queued(served->stream) <= H2_QUEUE_LOW);
    if (served->plan == PLAN_BIG)
        feed_big(served);
}

static void served_end(void *ctx, enum h2_end end)
{
    struct served *served = ctx;
    assert_false(served->gone);
    served->gone = true;
    served->pair->served_ends++;
    if (end == H2_END_RESET && h2_stream_reset_code(served->stream) == NGHTTP2_CANCEL)
        served->pair->served_cancelled++;
}

static const struct h2_stream_ops served_ops = {
    .on_data = served_data, .on_finished = served_finished, .on_sent = served_sent, .on_end = served_end};

static enum plan plan_of(struct str path)
{
    static const struct {
        struct str path;
        enum plan plan;
    } plans[] = {{{"/big", 4}, PLAN_BIG},     {{"/hold", 5}, PLAN_HOLD},
                 {{"/reset", 6}, PLAN_RESET}, {{"/early", 6}, PLAN_EARLY_ANSWER},
                 {{"/torn", 5}, PLAN_TORN},   {{"/tear", 5}, PLAN_TEAR}};
    for (size_t i = 0; i < sizeof(plans) / sizeof(plans[0]); i++)
        if (str_eq(plans[i].path, path))
            return plans[i].plan;
    return PLAN_ECHO;
}

static void respond(struct served *served, int status)
{
    const struct h2_header headers[] = {{STR("content-type"), STR("text/plain")}};
    assert_int_equal(h2_stream_respond(served->stream, status, headers, 1), ERR_NONE);
}

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct pair *pair = ctx;
    assert_true(count >= 2);
    assert_true(str_eq(headers[0].name, STR(":method")) && str_eq(headers[0].value, STR("POST")));
    assert_true(str_eq(headers[1].name, STR(":path")));
    if (pair->served_count >= pair->refused_from)
        return false;
    struct served *served = &pair->served[pair->served_count++];
    *served = (struct served){.pair = pair, .stream = stream, .plan = plan_of(headers[1].value)};
    *ret_ops = &served_ops;
    *ret_ctx = served;
    switch (served->plan) {
    case PLAN_ECHO:
        respond(served, 200);
        break;
    case PLAN_BIG:
        respond(served, 200);
        served->left = BIG;
        feed_big(served);
        break;
    case PLAN_HOLD:
        break;
    case PLAN_RESET:
        h2_stream_cancel(stream, NGHTTP2_INTERNAL_ERROR);
        break;
    case PLAN_EARLY_ANSWER:
        respond(served, 429);
        assert_int_equal(h2_stream_send(stream, STR("full")), ERR_NONE);
        assert_int_equal(h2_stream_finish(stream), ERR_NONE);
        break;
    case PLAN_TORN:
        respond(served, 200);
        assert_int_equal(h2_stream_send(stream, STR("half")), ERR_NONE);
        break;
    case PLAN_TEAR:
        respond(served, 200);
        assert_int_equal(h2_stream_send(stream, (struct str){pattern, TEAR_BYTES}), ERR_NONE);
        assert_int_equal(h2_stream_tear(stream), ERR_NONE);
        break;
    }
    return true;
}

/* -- client -- */

static void call_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct call *call = ctx;
    call->status = status;
    call->heads++;
    call->header_count = count;
    if (count > 0)
        assert_true(str_eq(headers[0].name, STR("content-type")));
    if (call->cancel_at_head) {
        h2_stream_cancel(call->stream, NGHTTP2_CANCEL);
        call->cancelled = true;
        assert_int_equal(call->ends, 0);
    }
}

static void call_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    if (call->cancelled)
        call->data_after_cancel = true;
    if (call->got + bytes.len <= BIG && memcmp(pattern + call->got, bytes.ptr, bytes.len) != 0)
        call->content_good = false;
    call->got += bytes.len;
    if (call->free_at_data) {
        call->pair->client = h2_free(call->pair->client);
        return;
    }
    if (call->cancel_at_data) {
        h2_stream_cancel(call->stream, NGHTTP2_CANCEL);
        call->cancelled = true;
    }
    if (call->paused)
        call->unconsumed += bytes.len;
    else
        h2_stream_consumed(call->stream, bytes.len);
}

static void call_finished(void *ctx)
{
    ((struct call *)ctx)->finishes++;
}

static void call_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    call->ends++;
    call->end = end;
    call->code = h2_stream_reset_code(call->stream);
}

static const struct h2_stream_ops call_ops = {
    .on_head = call_head, .on_data = call_data, .on_finished = call_finished, .on_end = call_end};

static enum error call_try(struct pair *pair, size_t at, const char *path, struct str body)
{
    struct call *call = &pair->calls[at];
    const struct h2_header headers[] = {{STR("content-type"), STR("application/json")}, {STR("x-id"), STR("req_1")}};
    const struct h2_request request = {
        .method = STR("POST"), .path = str_of(path), .headers = headers, .header_count = 2, .body = body};
    call->pair = pair;
    call->content_good = true;
    return h2_request(pair->client, &request, &call_ops, call, &call->stream);
}

static struct call *call_start(struct pair *pair, size_t at, const char *path, struct str body)
{
    assert_int_equal(call_try(pair, at, path, body), ERR_NONE);
    return &pair->calls[at];
}

static void client_closed(void *ctx, enum error error)
{
    struct pair *pair = ctx;
    pair->client_closes++;
    pair->client_error = error;
    pair->client = h2_free(pair->client);
}

static void server_closed(void *ctx, enum error error)
{
    struct pair *pair = ctx;
    (void)error;
    pair->server_closes++;
    pair->server = h2_free(pair->server);
}

static struct h2_options client_options(struct pair *pair)
{
    return (struct h2_options){.on_close = client_closed, .ctx = pair};
}

static struct h2_options server_options(struct pair *pair)
{
    return (struct h2_options){.is_server = true, .on_request = on_request, .on_close = server_closed, .ctx = pair};
}

static struct pair *pair_new(void)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    assert_non_null(pair);
    pair->refused_from = CALLS_MAX;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair->fds), 0);
    assert_int_equal(loop_open(&pair->loop), ERR_NONE);
    return pair;
}

static struct pair *pair_open(const struct h2_options *client, const struct h2_options *server)
{
    struct pair *pair = pair_new();
    struct h2_options options = client ? *client : client_options(pair);
    options.ctx = pair;
    assert_int_equal(h2_open(pair->loop, pair->fds[0], &options, &pair->client), ERR_NONE);
    options = server ? *server : server_options(pair);
    options.ctx = pair;
    assert_int_equal(h2_open(pair->loop, pair->fds[1], &options, &pair->server), ERR_NONE);
    return pair;
}

static void pair_free(struct pair *pair)
{
    h2_free(pair->client);
    h2_free(pair->server);
    loop_free(pair->loop);
    free(pair);
}

/* Turns until the condition holds; it must within 20 seconds. */
#define UNTIL(pair, condition)                                \
    do {                                                      \
        int64_t give_up_ns = clock_mono_ns() + 20 * NS_PER_S; \
        while (!(condition)) {                                \
            assert_true(clock_mono_ns() < give_up_ns);        \
            loop_turn((pair)->loop, 10 * NS_PER_MS);          \
        }                                                     \
    } while (0)

/* Turns until nothing is ready any more: what was to happen without a timer has happened. */
static void settle(struct pair *pair)
{
    for (int i = 0; i < 200; i++)
        loop_turn(pair->loop, 0);
}

/* -- tests -- */

static void test_echo(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    struct call *none = call_start(pair, 0, "/", (struct str){NULL, 0});
    struct call *small = call_start(pair, 1, "/", (struct str){pattern, 300});
    struct call *big = call_start(pair, 2, "/", (struct str){pattern, BIG});
    assert_int_equal(h2_stream_count(pair->client), 3);
    assert_int_equal(none->ends + small->ends, 0);
    UNTIL(pair, none->ends && small->ends && big->ends);
    for (size_t i = 0; i < 3; i++) {
        struct call *call = &pair->calls[i];
        assert_int_equal(call->status, 200);
        assert_int_equal(call->header_count, 1);
        assert_int_equal(call->heads, 1);
        assert_int_equal(call->finishes, 1);
        assert_int_equal(call->ends, 1);
        assert_int_equal(call->end, H2_END_OK);
        assert_true(call->content_good);
    }
    assert_int_equal(none->got, 0);
    assert_int_equal(small->got, 300);
    assert_int_equal(big->got, BIG);
    assert_int_equal(h2_stream_count(pair->client), 0);
    UNTIL(pair, pair->served_ends == 3);
    pair_free(pair);
}

static void test_thousand_at_once(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    size_t ended = 0;
    for (size_t i = 0; i < CALLS_MAX; i++)
        call_start(pair, i, "/", (struct str){pattern, i * 13});
    assert_int_equal(h2_stream_count(pair->client), CALLS_MAX);
    UNTIL(pair, h2_stream_count(pair->client) == 0);
    for (size_t i = 0; i < CALLS_MAX; i++) {
        const struct call *call = &pair->calls[i];
        ended += call->ends == 1 && call->end == H2_END_OK && call->got == i * 13 && call->content_good;
    }
    assert_int_equal(ended, CALLS_MAX);
    pair_free(pair);
}

static void test_paused_reader_bounds_memory(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    struct call *call = &pair->calls[0];
    call->paused = true;
    call_start(pair, 0, "/big", (struct str){pattern, 10});
    struct call *other = call_start(pair, 1, "/", (struct str){pattern, 1000});
    UNTIL(pair, call->got >= (size_t)1 << 20 && other->ends);
    settle(pair);
    /* The window holds what has come, the server's queue what has not; nothing beyond. */
    assert_int_equal(call->got, (size_t)1 << 20);
    const struct served *served = &pair->served[0];
    assert_true(served->queued_max <= H2_QUEUE_HIGH + 10000);
    assert_true(h2_stream_queued(served->stream) > 0);
    assert_true(served->left >= BIG - ((size_t)1 << 20) - H2_QUEUE_HIGH - 10000);
    call->paused = false;
    h2_stream_consumed(call->stream, call->unconsumed);
    UNTIL(pair, call->ends);
    assert_int_equal(call->got, BIG);
    assert_true(call->content_good);
    pair_free(pair);
}

static void test_paused_readers_stop_nobody(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    for (size_t i = 0; i < 40; i++) {
        pair->calls[i].paused = true;
        call_start(pair, i, "/big", (struct str){pattern, 10});
    }
    UNTIL(pair, pair->calls[39].got == (size_t)1 << 20);
    struct call *call = call_start(pair, 40, "/big", (struct str){pattern, 10});
    UNTIL(pair, call->ends);
    assert_int_equal(call->got, BIG);
    pair_free(pair);
}

/* Callers who all go at once are no attack. */
static void test_thousand_cancels(void **state)
{
    (void)state;
    const struct h2_options server = {
        .is_server = true, .streams_max = 20000, .on_request = on_request, .on_close = server_closed};
    struct pair *pair = pair_open(NULL, &server);
    for (int round = 0; round < 4; round++) {
        pair->served_count = 0;
        pair->served_ends = 0;
        for (size_t i = 0; i < CALLS_MAX; i++) {
            pair->calls[i] = (struct call){0};
            call_start(pair, i, "/hold", (struct str){NULL, 0});
        }
        UNTIL(pair, pair->served_count == CALLS_MAX);
        for (size_t i = 0; i < CALLS_MAX; i++)
            h2_stream_cancel(pair->calls[i].stream, NGHTTP2_CANCEL);
        UNTIL(pair, pair->served_ends == CALLS_MAX && h2_stream_count(pair->client) == 0);
    }
    assert_int_equal(pair->client_closes + pair->server_closes, 0);
    pair_free(pair);
}

static void test_holding_server_bounds_request(void **state)
{
    (void)state;
    const struct h2_options server = {
        .is_server = true, .connection_window = 4 << 20, .on_request = on_request, .on_close = server_closed};
    struct pair *pair = pair_open(NULL, &server);
    struct call *call = call_start(pair, 0, "/hold", (struct str){pattern, BIG});
    UNTIL(pair, pair->served_count == 1);
    settle(pair);
    assert_false(pair->served[0].finished);
    h2_stream_cancel(call->stream, NGHTTP2_CANCEL);
    UNTIL(pair, call->ends && pair->served_ends == 1);
    assert_int_equal(call->end, H2_END_CANCELLED);
    /* What the cancelled stream held of the connection's window is back: others run. */
    for (size_t i = 0; i < 6; i++) {
        call = call_start(pair, 1, "/", (struct str){pattern, BIG});
        UNTIL(pair, call->ends);
        assert_int_equal(call->got, BIG);
        *call = (struct call){0};
    }
    pair_free(pair);
}

static void test_cancel(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    char *body = malloc(100000);
    assert_non_null(body);
    memset(body, 'b', 100000);
    /* Before its head has left. */
    struct call *unsent = call_start(pair, 0, "/", (struct str){body, 100000});
    h2_stream_cancel(unsent->stream, NGHTTP2_CANCEL);
    assert_int_equal(unsent->ends, 0);
    UNTIL(pair, unsent->ends);
    free(body); /* on_end has given it back */
    assert_int_equal(unsent->end, H2_END_CANCELLED);
    settle(pair);
    assert_int_equal(pair->served_count, 0);
    /* Before the answer's head, at it and in the middle of the body. */
    struct call *waiting = call_start(pair, 1, "/hold", (struct str){pattern, 10});
    UNTIL(pair, pair->served_count == 1);
    h2_stream_cancel(waiting->stream, NGHTTP2_CANCEL);
    pair->calls[2].cancel_at_head = true;
    struct call *at_head = call_start(pair, 2, "/big", (struct str){pattern, 10});
    pair->calls[3].cancel_at_data = true;
    struct call *at_data = call_start(pair, 3, "/big", (struct str){pattern, 10});
    UNTIL(pair, waiting->ends && at_head->ends && at_data->ends && pair->served_ends == 3);
    assert_int_equal(waiting->end, H2_END_CANCELLED);
    assert_int_equal(at_head->end, H2_END_CANCELLED);
    assert_int_equal(at_head->got, 0);
    assert_int_equal(at_data->end, H2_END_CANCELLED);
    assert_false(at_data->data_after_cancel);
    assert_int_equal(pair->served_cancelled, 3);
    settle(pair);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pair->calls[i].ends, 1);
    struct call *after = call_start(pair, 4, "/", (struct str){pattern, 10});
    UNTIL(pair, after->ends);
    assert_int_equal(after->end, H2_END_OK);
    pair_free(pair);
}

static void test_server_resets_and_refuses(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    struct call *reset = call_start(pair, 0, "/reset", (struct str){pattern, BIG});
    struct call *early = call_start(pair, 1, "/early", (struct str){pattern, BIG});
    struct call *torn = call_start(pair, 2, "/torn", (struct str){pattern, 1});
    UNTIL(pair, reset->ends && early->ends && torn->got == 4);
    assert_int_equal(reset->end, H2_END_RESET);
    assert_int_equal(reset->code, NGHTTP2_INTERNAL_ERROR);
    assert_int_equal(reset->heads, 0);
    assert_int_equal(early->end, H2_END_OK);
    assert_int_equal(early->status, 429);
    assert_int_equal(early->got, 4);
    assert_int_equal(torn->ends, 0);
    h2_stream_cancel(pair->served[2].stream, NGHTTP2_INTERNAL_ERROR);
    pair->refused_from = pair->served_count;
    struct call *refused = call_start(pair, 3, "/", (struct str){pattern, 5});
    UNTIL(pair, torn->ends && refused->ends);
    assert_int_equal(torn->end, H2_END_RESET);
    assert_int_equal(torn->finishes, 0);
    assert_int_equal(refused->end, H2_END_REFUSED);
    UNTIL(pair, pair->served_ends == 3);
    pair_free(pair);
}

static void test_torn_answer_leaves_before_its_reset(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    for (size_t i = 0; i < 3; i++)
        call_start(pair, i, "/tear", (struct str){pattern, 1});
    UNTIL(pair, pair->calls[0].ends && pair->calls[1].ends && pair->calls[2].ends);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pair->calls[i].status, 200);
        assert_int_equal(pair->calls[i].got, TEAR_BYTES);
        assert_int_equal(pair->calls[i].end, H2_END_RESET);
        assert_int_equal(pair->calls[i].code, NGHTTP2_INTERNAL_ERROR);
        assert_int_equal(pair->calls[i].finishes, 0);
    }
    UNTIL(pair, pair->served_ends == 3);
    pair_free(pair);
}

static void test_connection_breaks(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    for (size_t i = 0; i < 20; i++)
        call_start(pair, i, i % 2 ? "/big" : "/hold", (struct str){pattern, BIG});
    UNTIL(pair, pair->served_count == 20 && pair->calls[1].got > 0);
    h2_stream_cancel(pair->calls[4].stream, NGHTTP2_CANCEL);
    pair->server = h2_free(pair->server);
    assert_int_equal(pair->served_ends, 20);
    UNTIL(pair, pair->client_closes == 1);
    assert_int_not_equal(pair->client_error, ERR_NONE);
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(pair->calls[i].ends, 1);
        assert_int_equal(pair->calls[i].end, i == 4 ? H2_END_CANCELLED : H2_END_CLOSED);
    }
    assert_null(pair->client);
    pair_free(pair);
}

static void test_free_inside_callback(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    pair->calls[0].free_at_data = true;
    struct call *call = call_start(pair, 0, "/big", (struct str){pattern, 10});
    struct call *other = call_start(pair, 1, "/hold", (struct str){pattern, BIG});
    UNTIL(pair, pair->server_closes == 1);
    assert_int_equal(call->ends, 1);
    assert_int_equal(call->end, H2_END_CLOSED);
    assert_int_equal(other->ends, 1);
    assert_int_equal(pair->client_closes, 0);
    assert_int_equal(pair->served_ends, 2);
    pair_free(pair);
}

static void test_shutdown(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    struct call *held = call_start(pair, 0, "/hold", (struct str){pattern, 10});
    UNTIL(pair, pair->served_count == 1);
    h2_shutdown(pair->server);
    struct call *late = call_start(pair, 1, "/", (struct str){pattern, 10}); /* crosses the GOAWAY */
    UNTIL(pair, late->ends);
    assert_int_equal(late->end, H2_END_REFUSED);
    settle(pair);
    assert_int_equal(call_try(pair, 2, "/", (struct str){pattern, 10}), ERR_CLOSED);
    assert_int_equal(held->ends, 0);
    respond(&pair->served[0], 200);
    assert_int_equal(h2_stream_send(pair->served[0].stream, (struct str){pattern, 100}), ERR_NONE);
    assert_int_equal(h2_stream_finish(pair->served[0].stream), ERR_NONE);
    UNTIL(pair, held->ends && pair->server_closes == 1 && pair->client_closes == 1);
    assert_int_equal(held->end, H2_END_OK);
    assert_int_equal(held->got, 100);
    pair_free(pair);
}

static void test_client_shutdown(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    struct call *call = call_start(pair, 0, "/big", (struct str){pattern, BIG});
    UNTIL(pair, call->got > 0);
    h2_shutdown(pair->client);
    assert_int_equal(call_try(pair, 1, "/", (struct str){pattern, 10}), ERR_CLOSED);
    UNTIL(pair, pair->client_closes == 1);
    assert_int_equal(pair->client_error, ERR_NONE);
    assert_int_equal(call->end, H2_END_OK);
    assert_int_equal(call->got, BIG);
    pair_free(pair);
}

/* A raw HEADERS frame of the answer on stream `id`. */
static void send_head(struct pair *pair, char id, const char *block, size_t len)
{
    char frame[8192] = {0, (char)(len >> 8), (char)len, 1, 4, 0, 0, 0, id};
    assert_true(len <= sizeof(frame) - 9);
    memcpy(frame + 9, block, len);
    assert_int_equal(send(pair->fds[1], frame, 9 + len, 0), (ssize_t)(9 + len));
}

static void test_head_too_large(void **state)
{
    (void)state;
    struct pair *pair = pair_new();
    struct h2_options options = client_options(pair);
    char many[1 + 129 * 5] = {(char)0x88}, bomb[1 + 7 + 3000 + 40] = {(char)0x88};
    assert_int_equal(h2_open(pair->loop, pair->fds[0], &options, &pair->client), ERR_NONE);
    for (size_t i = 0; i < 3; i++)
        call_start(pair, i, "/", (struct str){NULL, 0});
    assert_int_equal(send(pair->fds[1], "\0\0\0\4\0\0\0\0\0", 9, 0), 9);
    settle(pair);
    /* One header more than allowed. */
    for (size_t i = 0; i < 129; i++)
        memcpy(many + 1 + i * 5, "\0\1a\1b", 5);
    send_head(pair, 1, many, sizeof(many));
    /* One header of 3000 bytes put in the table, then named again 40 times: 120 KB from 3. */
    memcpy(bomb + 1, "\x40\1a\x7f\xb9\x16", 6);
    memset(bomb + 7, 'v', 3000);
    memset(bomb + 7 + 3000, 0xbe, 40);
    send_head(pair, 3, bomb, 7 + 3000 + 40);
    UNTIL(pair, pair->calls[0].ends && pair->calls[1].ends);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pair->calls[i].end, H2_END_RESET);
        assert_int_equal(pair->calls[i].heads, 0);
    }
    assert_int_equal(pair->client_closes, 0);
    /* The connection and its compression state are whole. */
    send_head(pair, 5, "\x88\x5f\1x", 4);
    UNTIL(pair, pair->calls[2].heads);
    assert_int_equal(pair->calls[2].status, 200);
    assert_int_equal(pair->calls[2].header_count, 1);
    close(pair->fds[1]);
    pair_free(pair);
}

static void test_limits(void **state)
{
    (void)state;
    const struct h2_options server = {.is_server = true, .streams_max = 3, .on_request = on_request};
    struct pair *pair = pair_open(NULL, &server);
    struct call *first = call_start(pair, 0, "/", (struct str){pattern, 10});
    UNTIL(pair, first->ends); /* the server's settings are known now */
    for (size_t i = 1; i < 4; i++)
        call_start(pair, i, "/hold", (struct str){pattern, 10});
    assert_int_equal(call_try(pair, 4, "/", (struct str){pattern, 10}), ERR_BUSY);
    h2_stream_cancel(pair->calls[1].stream, NGHTTP2_CANCEL);
    UNTIL(pair, pair->calls[1].ends);
    call_start(pair, 4, "/", (struct str){pattern, 10});
    UNTIL(pair, pair->calls[4].ends);
    assert_int_equal(pair->calls[4].end, H2_END_OK);
    pair_free(pair);
}

static void test_early_bytes(void **state)
{
    (void)state;
    struct pair *pair = pair_new();
    struct h2_options options = client_options(pair);
    char bytes[4096];
    assert_int_equal(h2_open(pair->loop, pair->fds[0], &options, &pair->client), ERR_NONE);
    struct call *call = call_start(pair, 0, "/", (struct str){pattern, 300});
    settle(pair);
    /* All that the client has sent so far was read behind somebody's hello. */
    ssize_t len = read(pair->fds[1], bytes, sizeof(bytes));
    assert_true(len > 300 && len < (ssize_t)sizeof(bytes));
    options = server_options(pair);
    options.early = (struct str){bytes, (size_t)len};
    assert_int_equal(h2_open(pair->loop, pair->fds[1], &options, &pair->server), ERR_NONE);
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(pair->served_count, 0);
    UNTIL(pair, call->ends);
    assert_int_equal(call->end, H2_END_OK);
    assert_int_equal(call->got, 300);
    pair_free(pair);
}

static void test_ping(void **state)
{
    (void)state;
    struct pair *pair = pair_open(NULL, NULL);
    settle(pair);
    int64_t before_ns = h2_last_read_ns(pair->client);
    UNTIL(pair, loop_now(pair->loop) > before_ns);
    h2_ping(pair->client);
    UNTIL(pair, h2_last_read_ns(pair->client) > before_ns);
    pair_free(pair);
}

/* Writes frames to the client until it closes; true if it did within `count` of them. */
static bool closes_within(struct pair *pair, const char *frame, size_t len, int count)
{
    char sink[65536];
    assert_int_equal(fcntl(pair->fds[1], F_SETFL, O_NONBLOCK), 0);
    for (int i = 0; i < count && pair->client_closes == 0; i++) {
        if (send(pair->fds[1], frame, len, MSG_NOSIGNAL) < 0)
            loop_turn(pair->loop, 0);
        if (i % 64 == 0)
            loop_turn(pair->loop, 0);
        while (read(pair->fds[1], sink, sizeof(sink)) > 0)
            continue;
    }
    settle(pair);
    return pair->client_closes == 1;
}

static void test_floods(void **state)
{
    static const char settings[] = "\0\0\0\4\0\0\0\0\0",
                      ping[] = "\0\0\10\6\0\0\0\0\0"
                               "12345678",
                      window[] = "\0\0\4\10\0\0\0\0\0\0\0\0\1", empty_data[] = "\0\0\0\0\0\0\0\0\1",
                      interim[] = "\0\0\5\1\4\0\0\0\1\x08\003100", nonsense[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    static const struct {
        const char *frame;
        size_t len;
    } floods[] = {{settings, 9}, {ping, 17}, {window, 13}, {empty_data, 9}, {interim, 14}, {nonsense, 28}};
    (void)state;
    for (size_t i = 0; i < sizeof(floods) / sizeof(floods[0]); i++) {
        struct pair *pair = pair_new();
        struct h2_options options = client_options(pair);
        assert_int_equal(h2_open(pair->loop, pair->fds[0], &options, &pair->client), ERR_NONE);
        struct call *call = call_start(pair, 0, "/", (struct str){pattern, 10});
        settle(pair);
        assert_int_equal(send(pair->fds[1], settings, 9, 0), 9);
        assert_true(closes_within(pair, floods[i].frame, floods[i].len, 5000));
        assert_int_equal(call->ends, 1);
        close(pair->fds[1]);
        pair_free(pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_thousand_at_once),
        cmocka_unit_test(test_paused_reader_bounds_memory),
        cmocka_unit_test(test_paused_readers_stop_nobody),
        cmocka_unit_test(test_thousand_cancels),
        cmocka_unit_test(test_holding_server_bounds_request),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_server_resets_and_refuses),
        cmocka_unit_test(test_torn_answer_leaves_before_its_reset),
        cmocka_unit_test(test_connection_breaks),
        cmocka_unit_test(test_free_inside_callback),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_client_shutdown),
        cmocka_unit_test(test_head_too_large),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_early_bytes),
        cmocka_unit_test(test_ping),
        cmocka_unit_test(test_floods),
    };
    pattern_fill();
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
