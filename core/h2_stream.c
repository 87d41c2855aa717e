/* Streams: their memory and the calls of core/h2.h on them. */
#include "core/h2_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define POOL_MAX 256           /* streams kept for the next requests */
#define POOLED_QUEUE_MAX 16384 /* a kept stream keeps at most this much of a queue */
#define H2_PATH_MAX 16384
#define LAST_STREAM_ID INT32_C(0x7fff0000)

/* -- streams ----------------------------------------------------------------------------------------------------- */

void h2_ring_init(struct h2_stream *head)
{
    head->prev = head->next = head;
}

void h2_ring_add(struct h2_stream *head, struct h2_stream *stream)
{
    stream->prev = head->prev;
    stream->next = head;
    head->prev->next = stream;
    head->prev = stream;
}

void h2_ring_remove(struct h2_stream *stream)
{
    stream->prev->next = stream->next;
    stream->next->prev = stream->prev;
    stream->prev = stream->next = stream;
}

struct h2_stream *h2_stream_take(struct h2 *h2)
{
    struct h2_stream *stream = h2->pool;
    if (stream) {
        h2->pool = stream->next;
        h2->pool_count--;
        char *queue = stream->queue;
        size_t queue_cap = stream->queue_cap;
        *stream = (struct h2_stream){.queue = queue, .queue_cap = queue_cap};
    } else if (!(stream = calloc(1, sizeof(*stream)))) {
        return NULL;
    }
    stream->h2 = h2;
    h2_ring_add(&h2->open, stream);
    h2->open_count++;
    h2->held_count++;
    return stream;
}

void h2_stream_drop(struct h2_stream *stream)
{
    struct h2 *h2 = stream->h2;
    h2_ring_remove(stream);
    if (!stream->ended)
        h2->open_count--;
    h2->held_count--;
    if (stream->queue_cap > POOLED_QUEUE_MAX) {
        free(stream->queue);
        stream->queue = NULL;
        stream->queue_cap = 0;
    }
    if (h2->pool_count == POOL_MAX) {
        free(stream->queue);
        free(stream);
        return;
    }
    stream->next = h2->pool;
    h2->pool = stream;
    h2->pool_count++;
}

void h2_stream_end(struct h2_stream *stream, enum h2_end end)
{
    struct h2 *h2 = stream->h2;
    assert(!stream->ended);
    stream->ended = true;
    h2->open_count--;
    h2_ring_remove(stream);
    h2_ring_add(&h2->lingering, stream);
    stream->body = (struct str){NULL, 0};
    if (stream->ops && stream->ops->on_end)
        stream->ops->on_end(stream->ctx, end);
}

/* Well below what the other side would refuse, or nghttp2 not send. */
static enum error head_check(const struct h2_header *headers, size_t count)
{
    size_t bytes = 0;
    if (count > H2_HEADERS_MAX)
        return ERR_TOO_LARGE;
    for (size_t i = 0; i < count; i++) {
        bytes += headers[i].name.len + headers[i].value.len + 32;
        if (bytes > H2_HEADER_BYTES / 2)
            return ERR_TOO_LARGE;
    }
    return ERR_NONE;
}

/* -- the client's calls ------------------------------------------------------------------------------------------ */

static enum error request_check(struct h2 *h2, const struct h2_request *request)
{
    enum error error = head_check(request->headers, request->header_count);
    if (error != ERR_NONE || request->path.len > H2_PATH_MAX)
        return ERR_TOO_LARGE;
    if (h2->dead || h2->closing || !nghttp2_session_check_request_allowed(h2->session))
        return ERR_CLOSED;
    if (nghttp2_session_get_next_stream_id(h2->session) > (uint32_t)LAST_STREAM_ID) {
        h2_shutdown(h2);
        return ERR_CLOSED;
    }
    if (h2->held_count >= h2->options.streams_max ||
        h2->held_count >= nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS))
        return ERR_BUSY;
    return ERR_NONE;
}

static nghttp2_nv fixed_nv(struct str name, struct str value)
{
    nghttp2_nv nv = h2_nv(name, value);
    nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
    return nv;
}

enum error h2_request(struct h2 *h2, const struct h2_request *request, const struct h2_stream_ops *ops, void *ctx,
                      struct h2_stream **ret)
{
    nghttp2_nv nv[4 + H2_HEADERS_MAX];
    assert(!h2->options.is_server);
    enum error error = request_check(h2, request);
    if (error != ERR_NONE)
        return error;
    struct h2_stream *stream = h2_stream_take(h2);
    if (!stream)
        return ERR_NO_MEMORY;
    stream->ops = ops;
    stream->ctx = ctx;
    stream->body = request->body;
    stream->local_done = request->body.len == 0;
    nv[0] = h2_nv(STR(":method"), request->method);
    nv[0].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    nv[1] = h2_nv(STR(":path"), request->path);
    nv[1].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    nv[2] = fixed_nv(STR(":scheme"), STR("http"));
    nv[3] = fixed_nv(STR(":authority"), STR("worker"));
    for (size_t i = 0; i < request->header_count; i++)
        nv[4 + i] = h2_nv(request->headers[i].name, request->headers[i].value);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = h2_body_read};
    int32_t id = nghttp2_submit_request(h2->session, NULL, nv, 4 + request->header_count,
                                        request->body.len > 0 ? &body : NULL, stream);
    if (id < 0) {
        h2_stream_drop(stream);
        return id == NGHTTP2_ERR_INVALID_ARGUMENT ? ERR_BAD_INPUT : ERR_NO_MEMORY;
    }
    stream->id = id;
    h2_wake(h2);
    *ret = stream;
    return ERR_NONE;
}

/* -- the server's calls ------------------------------------------------------------------------------------------ */

static bool is_over(const struct h2_stream *stream)
{
    return stream->h2->dead || stream->cancelled || stream->closed || stream->ended;
}

enum error h2_stream_respond(struct h2_stream *stream, int status, const struct h2_header *headers, size_t count)
{
    nghttp2_nv nv[1 + H2_HEADERS_MAX];
    assert(stream->h2->options.is_server && !stream->head_done);
    assert(status >= 200 && status <= 999);
    if (is_over(stream))
        return ERR_CLOSED;
    enum error error = head_check(headers, count);
    if (error != ERR_NONE)
        return error;
    char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    nv[0] = h2_nv(STR(":status"), (struct str){digits, 3});
    nv[0].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    for (size_t i = 0; i < count; i++)
        nv[1 + i] = h2_nv(headers[i].name, headers[i].value);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = h2_body_read};
    if (nghttp2_submit_response(stream->h2->session, stream->id, nv, 1 + count, &body) != 0)
        return ERR_NO_MEMORY;
    stream->head_done = true;
    /* Streams take turns by frames; otherwise the oldest would go on for as long as it has bytes. */
    const nghttp2_extpri turns = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
    (void)nghttp2_session_change_extpri_stream_priority(stream->h2->session, stream->id, &turns, 1);
    h2_wake(stream->h2);
    return ERR_NONE;
}

static bool queue_reserve(struct h2_stream *stream, size_t more)
{
    size_t needed = stream->queue_at + stream->queue_len + more;
    if (needed <= stream->queue_cap)
        return true;
    if (stream->queue_at > 0) {
        memmove(stream->queue, stream->queue + stream->queue_at, stream->queue_len);
        stream->queue_at = 0;
        needed = stream->queue_len + more;
        if (needed <= stream->queue_cap)
            return true;
    }
    size_t cap = stream->queue_cap * 2 > needed ? stream->queue_cap * 2 : needed;
    cap = cap < 1024 ? 1024 : cap;
    char *queue = realloc(stream->queue, cap);
    if (!queue)
        return false;
    stream->queue = queue;
    stream->queue_cap = cap;
    return true;
}

static void resume(struct h2_stream *stream)
{
    if (stream->deferred) {
        stream->deferred = false;
        /* Fails only for a stream that is being closed. */
        (void)nghttp2_session_resume_data(stream->h2->session, stream->id);
    }
    h2_wake(stream->h2);
}

enum error h2_stream_send(struct h2_stream *stream, struct str bytes)
{
    assert(stream->h2->options.is_server && !stream->finished);
    if (is_over(stream))
        return ERR_CLOSED;
    if (bytes.len > H2_QUEUE_MAX - stream->queue_len)
        return ERR_TOO_LARGE;
    if (bytes.len == 0)
        return ERR_NONE;
    if (!queue_reserve(stream, bytes.len))
        return ERR_NO_MEMORY;
    memcpy(stream->queue + stream->queue_at + stream->queue_len, bytes.ptr, bytes.len);
    stream->queue_len += bytes.len;
    resume(stream);
    return ERR_NONE;
}

size_t h2_stream_queued(const struct h2_stream *stream)
{
    return stream->queue_len;
}

enum error h2_stream_finish(struct h2_stream *stream)
{
    assert(stream->h2->options.is_server && stream->head_done && !stream->finished);
    if (is_over(stream))
        return ERR_CLOSED;
    stream->finished = true;
    resume(stream);
    return ERR_NONE;
}

enum error h2_stream_tear(struct h2_stream *stream)
{
    stream->torn = !is_over(stream);
    return h2_stream_finish(stream);
}

/* -- both sides' calls ------------------------------------------------------------------------------------------- */

void h2_credit(struct h2 *h2, size_t bytes)
{
    h2->credit += bytes;
    if (h2->credit < h2->credit_step || h2->dead)
        return;
    (void)nghttp2_session_consume_connection(h2->session, h2->credit);
    h2->credit = 0;
    h2_wake(h2);
}

void h2_stream_consumed(struct h2_stream *stream, size_t bytes)
{
    struct h2 *h2 = stream->h2;
    bytes = bytes < stream->unconsumed ? bytes : stream->unconsumed; /* what its end gave back counts once */
    stream->unconsumed -= bytes;
    h2_credit(h2, bytes);
    stream->credit += bytes;
    if (stream->credit < h2->stream_credit_step || h2->dead || stream->remote_done)
        return;
    (void)nghttp2_session_consume_stream(h2->session, stream->id, stream->credit);
    stream->credit = 0;
    h2_wake(h2);
}

void h2_stream_cancel(struct h2_stream *stream, uint32_t h2_error_code)
{
    struct h2 *h2 = stream->h2;
    if (stream->cancelled || stream->ended)
        return;
    stream->cancelled = true;
    h2_ring_remove(stream);
    h2_ring_add(&h2->ending, stream);
    if (h2->dead)
        return; /* die() is going over the streams */
    if (!stream->closed)
        (void)nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, stream->id, h2_error_code);
    h2_wake(h2);
}

uint32_t h2_stream_reset_code(const struct h2_stream *stream)
{
    return stream->reset_code;
}
