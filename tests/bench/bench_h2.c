/* Requests a second of a core/h2 client and server in one thread over a socketpair: what one worker link costs.
 * bench_h2 [requests] [concurrency] [body bytes] */
#include "core/clock.h"
#include "core/h2.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define CALLS_MAX 1024

struct bench;

struct call {
    struct bench *bench;
    size_t got;
};

struct bench {
    struct loop *loop;
    struct h2 *client, *server;
    int64_t left, done, failed;
    struct str body;
    struct call calls[CALLS_MAX];
    struct h2_stream *streams[CALLS_MAX];
};

static const char answer[] =
    "{\"id\":\"chatcmpl-123\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":"
    "{\"role\":\"assistant\",\"content\":\"Hello there, this is an answer of usual size.\"},"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,"
    "\"total_tokens\":21}}";

static void call_start(struct call *call);

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    struct call *call = ctx;
    (void)headers;
    if (status != 200 || count != 2)
        call->bench->failed++;
}

static void on_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    call->got += bytes.len;
    h2_stream_consumed(call->bench->streams[call - call->bench->calls], bytes.len);
}

static void on_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    struct bench *bench = call->bench;
    bench->done++;
    if (end != H2_END_OK || call->got != sizeof(answer) - 1)
        bench->failed++;
    call_start(call);
}

static const struct h2_stream_ops call_ops = {.on_head = on_head, .on_data = on_data, .on_end = on_end};

static void call_start(struct call *call)
{
    struct bench *bench = call->bench;
    if (bench->left == 0)
        return;
    bench->left--;
    call->got = 0;
    char id[32];
    int len = snprintf(id, sizeof(id), "req_%020lld", (long long)bench->left);
    const struct h2_header headers[] = {
        {STR("content-type"), STR("application/json")},
        {STR("x-request-id"), {id, (size_t)len}},
    };
    const struct h2_request request = {.method = STR("POST"),
                                       .path = STR("/v1/chat/completions"),
                                       .headers = headers,
                                       .header_count = 2,
                                       .body = bench->body};
    if (h2_request(bench->client, &request, &call_ops, call, &bench->streams[call - bench->calls]) != ERR_NONE)
        abort();
}

static void server_data(void *ctx, struct str bytes)
{
    h2_stream_consumed(*(struct h2_stream **)ctx, bytes.len);
}

static void server_finished(void *ctx)
{
    struct h2_stream *stream = *(struct h2_stream **)ctx;
    const struct h2_header headers[] = {
        {STR("content-type"), STR("application/json")},
        {STR("content-length"), STR("232")},
    };
    char length[16];
    int digits = snprintf(length, sizeof(length), "%zu", sizeof(answer) - 1);
    struct h2_header filled[2] = {headers[0], {headers[1].name, {length, (size_t)digits}}};
    if (h2_stream_respond(stream, 200, filled, 2) != ERR_NONE ||
        h2_stream_send(stream, (struct str){answer, sizeof(answer) - 1}) != ERR_NONE ||
        h2_stream_finish(stream) != ERR_NONE)
        abort();
}

static void server_end(void *ctx, enum h2_end end)
{
    (void)end;
    free(ctx);
}

static const struct h2_stream_ops server_ops = {
    .on_data = server_data, .on_finished = server_finished, .on_end = server_end};

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    struct h2_stream **held = malloc(sizeof(struct h2_stream *));
    (void)ctx;
    (void)headers;
    (void)count;
    if (!held)
        return false;
    *held = stream;
    *ret_ops = &server_ops;
    *ret_ctx = held;
    return true;
}

int main(int argc, char **argv)
{
    int64_t total = argc > 1 ? strtoll(argv[1], NULL, 10) : 200000;
    int64_t concurrency = argc > 2 ? strtoll(argv[2], NULL, 10) : 64;
    int64_t body = argc > 3 ? strtoll(argv[3], NULL, 10) : 250;
    int fds[2];
    static struct bench bench;
    char *bytes = body > 0 ? calloc(1, (size_t)body) : NULL;
    if (concurrency < 1 || concurrency > CALLS_MAX || !bytes || total < 1)
        return 2;
    bench.body = (struct str){bytes, (size_t)body};
    bench.left = total;
    struct h2_options client = {0}, server = {.is_server = true, .on_request = on_request};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0 || loop_open(&bench.loop) != ERR_NONE ||
        h2_open(bench.loop, fds[0], &client, &bench.client) != ERR_NONE ||
        h2_open(bench.loop, fds[1], &server, &bench.server) != ERR_NONE)
        return 1;
    int64_t from_ns = clock_mono_ns();
    for (int64_t i = 0; i < concurrency; i++) {
        bench.calls[i].bench = &bench;
        call_start(&bench.calls[i]);
    }
    while (bench.done < total)
        loop_turn(bench.loop, NS_PER_S);
    int64_t took_ns = clock_mono_ns() - from_ns;
    printf("%lld requests, %lld at once, %lld-byte bodies: %lld requests/s, %lld ns/request (both ends), %lld failed\n",
           (long long)total, (long long)concurrency, (long long)body, (long long)(total * NS_PER_S / took_ns),
           (long long)(took_ns / total), (long long)bench.failed);
    h2_free(bench.client);
    h2_free(bench.server);
    loop_free(bench.loop);
    free(bytes);
    return bench.failed > 0;
}
