/* nghttp2's callbacks: they turn frames into the calls of h2_stream_ops, and queued bytes into DATA frames. */
#include "core/h2_priv.h"
#include "core/clock.h"

#include <stdlib.h>
#include <string.h>

/* A connection that sends this many frames without any head or byte within the span only wants to keep us busy. */
#define CONTROL_FRAMES_MAX 2000
#define CONTROL_SPAN_NS (10 * NS_PER_S)

nghttp2_nv h2_nv(struct str name, struct str value)
{
    /* Only what repeats in value earns a place in the compression table; the rest would push it out again, costs an
     * insertion at both ends, and may be secret. */
    static const struct str repeating[] = {
        {"accept", 6}, {"content-type", 12}, {"accept-encoding", 15}, {"user-agent", 10}, {"cache-control", 13},
    };
    nghttp2_nv nv = {.name = (uint8_t *)(uintptr_t)name.ptr,
                     .namelen = name.len,
                     .value = (uint8_t *)(uintptr_t)value.ptr,
                     .valuelen = value.len,
                     .flags = NGHTTP2_NV_FLAG_NO_INDEX};
    for (size_t i = 0; i < sizeof(repeating) / sizeof(repeating[0]); i++)
        if (repeating[i].len == name.len && memcmp(repeating[i].ptr, name.ptr, name.len) == 0)
            nv.flags = NGHTTP2_NV_FLAG_NONE;
    return nv;
}

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* -- heads ------------------------------------------------------------------------------------------------------- */

static void head_clear(struct h2_head *head)
{
    for (size_t i = 0; i < head->held_count; i++)
        nghttp2_rcbuf_decref(head->held[i]);
    head->held_count = head->count = head->bytes = 0;
    head->status = 0;
    head->in_progress = false;
    head->headers[0] = head->headers[1] = (struct h2_header){{NULL, 0}, {NULL, 0}};
}

struct h2_head *h2_head_free(struct h2_head *head)
{
    if (head)
        head_clear(head);
    free(head);
    return NULL;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct h2 *h2 = ctx;
    (void)session;
    (void)frame;
    if (h2->free_asked)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!h2->head) {
        if (!(h2->head = malloc(sizeof(*h2->head))))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        h2->head->held_count = 0;
    }
    head_clear(h2->head);
    h2->head->in_progress = true;
    return 0;
}

static int status_of(nghttp2_vec text)
{
    if (text.len != 3)
        return 0;
    int status = 0;
    for (size_t i = 0; i < 3; i++) {
        if (text.base[i] < '0' || text.base[i] > '9')
            return 0;
        status = status * 10 + (text.base[i] - '0');
    }
    return status;
}

static struct str hold(struct h2_head *head, nghttp2_rcbuf *rcbuf)
{
    nghttp2_vec bytes = nghttp2_rcbuf_get_buf(rcbuf);
    nghttp2_rcbuf_incref(rcbuf);
    head->held[head->held_count++] = rcbuf;
    return (struct str){(const char *)bytes.base, bytes.len};
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name, nghttp2_rcbuf *value,
                     uint8_t flags, void *ctx)
{
    struct h2_head *head = ((struct h2 *)ctx)->head;
    nghttp2_vec name_bytes = nghttp2_rcbuf_get_buf(name), value_bytes = nghttp2_rcbuf_get_buf(value);
    (void)session;
    (void)frame;
    (void)flags;
    head->bytes += name_bytes.len + value_bytes.len;
    if (head->bytes > H2_HEADER_BYTES)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (name_bytes.len > 0 && name_bytes.base[0] == ':') {
        struct str text = {(const char *)name_bytes.base, name_bytes.len};
        if (str_eq(text, STR(":status")))
            head->status = status_of(value_bytes);
        else if (str_eq(text, STR(":method")) && !head->headers[0].name.ptr)
            head->headers[0] = (struct h2_header){STR(":method"), hold(head, value)};
        else if (str_eq(text, STR(":path")) && !head->headers[1].name.ptr)
            head->headers[1] = (struct h2_header){STR(":path"), hold(head, value)};
        return 0;
    }
    if (head->count == H2_HEADERS_MAX)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    head->headers[2 + head->count++] = (struct h2_header){hold(head, name), hold(head, value)};
    return 0;
}

static int reset(struct h2 *h2, int32_t id, uint32_t code)
{
    int rc = nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, id, code);
    return nghttp2_is_fatal(rc) ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_control_frame(struct h2 *h2)
{
    int64_t now = loop_now(h2->loop);
    if (now - h2->control_from_ns > CONTROL_SPAN_NS) {
        h2->control_from_ns = now;
        h2->control_count = 0;
    }
    return ++h2->control_count > CONTROL_FRAMES_MAX ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_answer_head(struct h2 *h2, struct h2_stream *stream)
{
    if (stream->head_done || (h2->head->status >= 100 && h2->head->status < 200))
        return on_control_frame(h2); /* trailers; an interim head, of which there may be any number */
    h2->control_count = 0;
    if (stream->cancelled)
        return 0;
    if (h2->head->status < 200 || h2->head->status > 999)
        return reset(h2, stream->id, NGHTTP2_PROTOCOL_ERROR);
    stream->head_done = true;
    stream->ops->on_head(stream->ctx, h2->head->status, h2->head->headers + 2, h2->head->count);
    return 0;
}

static int on_request_head(struct h2 *h2, int32_t id)
{
    struct h2_stream *stream = NULL;
    h2->control_count = 0;
    if (!h2->head->headers[0].name.ptr || !h2->head->headers[1].name.ptr)
        return reset(h2, id, NGHTTP2_PROTOCOL_ERROR);
    if (h2->closing || !(stream = h2_stream_take(h2)))
        return reset(h2, id, NGHTTP2_REFUSED_STREAM);
    stream->id = id;
    if (nghttp2_session_set_stream_user_data(h2->session, id, stream) != 0 ||
        !h2->options.on_request(h2->options.ctx, stream, h2->head->headers, h2->head->count + 2, &stream->ops,
                                &stream->ctx)) {
        nghttp2_session_set_stream_user_data(h2->session, id, NULL);
        h2_stream_drop(stream);
        return reset(h2, id, NGHTTP2_REFUSED_STREAM);
    }
    return 0;
}

/* -- frames ------------------------------------------------------------------------------------------------------ */

static int on_remote_end(struct h2 *h2, struct h2_stream *stream)
{
    stream->remote_done = true;
    if (stream->cancelled)
        return 0;
    if (stream->ops->on_finished)
        stream->ops->on_finished(stream->ctx);
    /* The answer is whole: nobody wants the rest of the request's body. */
    if (!h2->options.is_server && !stream->local_done)
        return reset(h2, stream->id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *ctx)
{
    struct h2 *h2 = ctx;
    int32_t id = frame->hd.stream_id;
    struct h2_stream *stream;
    int rc = 0;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            rc = on_request_head(h2, id);
        else if ((stream = stream_of(session, id)) && !h2->options.is_server)
            rc = on_answer_head(h2, stream);
        head_clear(h2->head);
        break;
    case NGHTTP2_DATA:
        if (frame->hd.length == 0)
            rc = on_control_frame(h2);
        break;
    case NGHTTP2_RST_STREAM:
        return stream_of(session, id) ? 0 : on_control_frame(h2); /* one a stream is its right */
    default:
        return on_control_frame(h2);
    }
    if (rc == 0 && !h2->free_asked && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && (stream = stream_of(session, id)))
        rc = on_remote_end(h2, stream);
    return h2->free_asked ? NGHTTP2_ERR_CALLBACK_FAILURE : rc;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
                         void *ctx)
{
    struct h2 *h2 = ctx;
    struct h2_stream *stream = stream_of(session, id);
    (void)flags;
    h2->control_count = 0;
    if (!stream || stream->cancelled || stream->ended) {
        h2_credit(h2, len);
        return 0;
    }
    stream->unconsumed += len;
    stream->ops->on_data(stream->ctx, (struct str){(const char *)data, len});
    return h2->free_asked ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *ctx)
{
    struct h2 *h2 = ctx;
    struct h2_stream *stream = stream_of(session, id);
    if (!stream)
        return 0;
    stream->closed = true;
    stream->reset_code = code;
    h2_credit(h2, stream->unconsumed);
    stream->unconsumed = 0;
    if (stream->ended) {
        h2_stream_drop(stream);
    } else if (!stream->cancelled) {
        bool whole = h2->options.is_server ? stream->local_done : stream->remote_done;
        h2_stream_end(stream, whole                                               ? H2_END_OK
                              : stream->refused || code == NGHTTP2_REFUSED_STREAM ? H2_END_REFUSED
                                                                                  : H2_END_RESET);
        h2_stream_drop(stream);
    }
    return h2->free_asked ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int error, void *ctx)
{
    (void)ctx;
    (void)error;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
        if (stream)
            stream->refused = true;
    }
    return 0;
}

/* -- DATA that we send ------------------------------------------------------------------------------------------- */

ssize_t h2_body_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t length, uint32_t *flags,
                     nghttp2_data_source *source, void *ctx)
{
    struct h2_stream *stream = source->ptr;
    bool is_server = stream->h2->options.is_server;
    size_t waiting = is_server ? stream->queue_len : stream->body.len;
    (void)session;
    (void)id;
    (void)to;
    (void)ctx;
    if (stream->cancelled || stream->ended)
        return NGHTTP2_ERR_DEFERRED; /* its RST_STREAM is on the way; the body may be gone */
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (waiting > length)
        return (ssize_t)length;
    if (stream->torn && waiting == 0)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* nghttp2 resets the stream */
    if (!is_server || (stream->finished && !stream->torn)) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (waiting == 0) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)waiting;
}

static ssize_t on_frame_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t connection_window,
                               int32_t stream_window, uint32_t frame_max, void *ctx)
{
    (void)session;
    (void)type;
    (void)id;
    (void)ctx;
    int32_t length = connection_window < stream_window ? connection_window : stream_window;
    if ((uint32_t)length > frame_max)
        length = (int32_t)frame_max;
    return length > H2_FRAME_MAX ? H2_FRAME_MAX : length;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
                        nghttp2_data_source *source, void *ctx)
{
    struct h2 *h2 = ctx;
    struct h2_stream *stream = source->ptr;
    (void)session;
    if (stream->cancelled || stream->ended)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (h2->gather_len + 9 + length > H2_GATHER_DATA)
        return NGHTTP2_ERR_WOULDBLOCK;
    memcpy(h2->gather + h2->gather_len, head, 9);
    h2->gather_len += 9;
    if (length > 0) {
        struct str *body = &stream->body;
        bool is_server = h2->options.is_server;
        memcpy(h2->gather + h2->gather_len, is_server ? stream->queue + stream->queue_at : body->ptr, length);
        h2->gather_len += length;
        h2->control_count = 0;
        if (is_server) {
            bool was_above = stream->queue_len > H2_QUEUE_LOW;
            stream->queue_len -= length;
            stream->queue_at = stream->queue_len > 0 ? stream->queue_at + length : 0;
            if (was_above && stream->queue_len <= H2_QUEUE_LOW && stream->ops->on_sent)
                stream->ops->on_sent(stream->ctx);
        } else {
            body->ptr += length;
            body->len -= length;
        }
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        stream->local_done = true;
        /* The answer is whole before the request was: RFC 9113 section 8.1 lets us stop the other side. */
        if (h2->options.is_server && !stream->remote_done)
            return reset(h2, stream->id, NGHTTP2_NO_ERROR);
    }
    return h2->free_asked ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* -- opening ----------------------------------------------------------------------------------------------------- */

static int session_new(struct h2 *h2, nghttp2_session_callbacks *callbacks, nghttp2_option *option)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, on_frame_length);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_settings(option, 32);
    nghttp2_option_set_peer_max_concurrent_streams(option, h2->options.streams_max);
    if (!h2->options.is_server)
        return nghttp2_session_client_new2(&h2->session, callbacks, h2, option);
    /* Our client is the gateway: it may drop thousands of calls in a second when its own callers go. */
    nghttp2_option_set_stream_reset_rate_limit(option, 100000, 20000);
    return nghttp2_session_server_new2(&h2->session, callbacks, h2, option);
}

enum error h2_session_open(struct h2 *h2)
{
    const struct h2_options *options = &h2->options;
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    enum error error = ERR_NO_MEMORY;
    nghttp2_settings_entry settings[6] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options->stream_window},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, H2_FRAME_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_BYTES},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}, /* streams in a plain queue instead of a tree */
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 4096},
        {options->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         options->is_server ? options->streams_max : 0},
    };
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0 ||
        session_new(h2, callbacks, option) != 0)
        goto out;
    if (nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, 6) != 0 ||
        nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, (int32_t)options->connection_window) !=
            0)
        goto out;
    error = ERR_NONE;
out:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return error;
}
