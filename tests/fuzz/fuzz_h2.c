/* Bytes of a hostile other side into core/h2. The first byte of the input chooses our role and how the rest is cut;
 * each stream must end exactly once, whatever comes. */
#include "core/h2.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALLS 3

struct call {
    struct h2_stream *stream;
    int ends;
    bool cancel_at_data;
};

static void on_head(void *ctx, int status, const struct h2_header *headers, size_t count)
{
    (void)ctx;
    if (status < 200 || status > 999 || count > H2_HEADERS_MAX)
        abort();
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += headers[i].name.len + headers[i].value.len;
    if (bytes > H2_HEADER_BYTES)
        abort();
}

static void on_data(void *ctx, struct str bytes)
{
    struct call *call = ctx;
    h2_stream_consumed(call->stream, bytes.len);
    if (call->cancel_at_data)
        h2_stream_cancel(call->stream, 8);
}

static void on_end(void *ctx, enum h2_end end)
{
    struct call *call = ctx;
    (void)end;
    call->ends++;
}

static const struct h2_stream_ops call_ops = {.on_head = on_head, .on_data = on_data, .on_end = on_end};

/* Server role: answers at once; the stream's ctx is the stream. */
static void served_data(void *ctx, struct str bytes)
{
    h2_stream_consumed(ctx, bytes.len);
}

static void served_end(void *ctx, enum h2_end end)
{
    (void)ctx;
    (void)end;
}

static const struct h2_stream_ops served_ops = {.on_data = served_data, .on_end = served_end};

static bool on_request(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx)
{
    (void)ctx;
    if (count < 2 || !headers[0].value.ptr || !headers[1].value.ptr)
        abort();
    *ret_ops = &served_ops;
    *ret_ctx = stream;
    return h2_stream_respond(stream, 200, NULL, 0) == ERR_NONE && h2_stream_send(stream, STR("ok")) == ERR_NONE &&
           h2_stream_finish(stream) == ERR_NONE;
}

static void on_close(void *ctx, enum error error)
{
    (void)error;
    *(bool *)ctx = true;
}

static void feed(struct loop *loop, int fd, const uint8_t *data, size_t size, size_t step)
{
    char sink[4096];
    while (size > 0) {
        size_t part = size < step ? size : step;
        ssize_t sent = send(fd, data, part, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            return;
        data += sent;
        size -= (size_t)sent;
        loop_turn(loop, 0);
        while (read(fd, sink, sizeof(sink)) > 0)
            continue;
    }
    for (int i = 0; i < 4; i++)
        loop_turn(loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loop *loop = NULL;
    struct h2 *h2 = NULL;
    struct call calls[CALLS] = {0};
    int fds[2];
    bool is_closed = false;
    if (size == 0)
        return 0;
    bool is_server = data[0] & 1;
    size_t step = data[0] & 2 ? 65536 : 1 + (data[0] >> 2), opened = 0;
    if (loop_open(&loop) != ERR_NONE || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
        abort();
    const struct h2_options options = {
        .is_server = is_server, .on_request = on_request, .on_close = on_close, .ctx = &is_closed};
    if (h2_open(loop, fds[0], &options, &h2) != ERR_NONE)
        abort();
    for (size_t i = 0; i < CALLS && !is_server; i++) {
        const struct h2_request request = {
            .method = STR("POST"), .path = STR("/"), .body = {"0123456789", i == 1 ? 10 : 0}};
        calls[i].cancel_at_data = i == 2;
        opened += h2_request(h2, &request, &call_ops, &calls[i], &calls[i].stream) == ERR_NONE;
    }
    loop_turn(loop, 0);
    feed(loop, fds[1], data + 1, size - 1, step);
    close(fds[1]);
    for (int i = 0; i < 3; i++)
        loop_turn(loop, 0);
    h2_free(h2);
    for (size_t i = 0; i < opened; i++)
        if (calls[i].ends != 1)
            abort();
    loop_free(loop);
    return 0;
}
