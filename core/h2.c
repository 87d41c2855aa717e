/* The socket and the life of a connection. */
#include "core/h2_priv.h"
#include "core/clock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAMS_MAX_DEFAULT 4096
#define STREAM_WINDOW_DEFAULT ((uint32_t)1 << 20)
#define CONNECTION_WINDOW_DEFAULT ((uint32_t)1 << 30)
#define TURN_WRITES_MAX 8 /* full gathered buffers a turn, so that one connection does not hold up the others */
#define TLS_READS_MAX 8   /* records a read may gather beyond the first */

static void on_task(struct task *task);
static void on_ready(struct io_source *source, uint32_t events);

static void end_cancelled(struct h2 *h2)
{
    while (h2->ending.next != &h2->ending) {
        struct h2_stream *stream = h2->ending.next;
        h2_stream_end(stream, H2_END_CANCELLED);
        if (stream->closed)
            h2_stream_drop(stream);
    }
}

static void free_ring(struct h2_stream *head)
{
    while (head->next != head) {
        struct h2_stream *stream = head->next;
        h2_ring_remove(stream);
        free(stream->queue);
        free(stream);
    }
}

/* -- the end of a connection ------------------------------------------------------------------------------------- */

/* Stops all I/O and ends every stream. */
static void die(struct h2 *h2, enum error error)
{
    if (h2->dead)
        return;
    h2->dead = true;
    h2->error = error;
    loop_remove(h2->loop, &h2->io);
    if (h2->options.tls) {
        if (error == ERR_NONE)
            SSL_shutdown(h2->options.tls);
        SSL_free(h2->options.tls);
        ERR_clear_error();
        h2->options.tls = NULL;
    }
    close(h2->io.fd);
    h2->busy++;
    end_cancelled(h2);
    while (h2->open.next != &h2->open) {
        h2_stream_end(h2->open.next, H2_END_CLOSED);
        end_cancelled(h2);
    }
    h2->busy--;
}

static void destroy(struct h2 *h2)
{
    loop_undefer(h2->loop, &h2->task);
    h2_head_free(h2->head);
    nghttp2_session_del(h2->session);
    free_ring(&h2->lingering);
    while (h2->pool) {
        struct h2_stream *stream = h2->pool;
        h2->pool = stream->next;
        free(stream->queue);
        free(stream);
    }
    buf_free(&h2->pending);
    buf_free(&h2->early);
    free(h2);
}

struct h2 *h2_free(struct h2 *h2)
{
    if (!h2 || h2->free_asked)
        return NULL;
    h2->free_asked = true;
    die(h2, ERR_NONE);
    if (h2->busy == 0)
        destroy(h2);
    return NULL;
}

/* Around every piece of work that may call back: the last one out frees what was asked to be freed. True: still there.
 */
static bool leave(struct h2 *h2)
{
    if (--h2->busy > 0)
        return true;
    if (!h2->free_asked)
        return true;
    destroy(h2);
    return false;
}

static void fail(struct h2 *h2, enum error error)
{
    if (h2->dead)
        return;
    die(h2, error);
    if (!h2->free_asked && h2->options.on_close)
        h2->options.on_close(h2->options.ctx, error);
}

/* -- writing ----------------------------------------------------------------------------------------------------- */

void h2_wake(struct h2 *h2)
{
    if (!h2->dead)
        loop_defer(h2->loop, &h2->task);
}

/* Writes what the socket takes now; false when the connection is broken. A plain socket that the other side has closed
 * may still hold its last answers: then nothing more is written, and the reader finds the end behind them. */
static bool write_some(struct h2 *h2, const char *bytes, size_t len, size_t *ret_written)
{
    *ret_written = 0;
    while (*ret_written < len) {
        size_t part = 0;
        if (h2->options.tls) {
            ERR_clear_error();
            int rc = SSL_write_ex(h2->options.tls, bytes + *ret_written, len - *ret_written, &part);
            if (rc <= 0) {
                int why = SSL_get_error(h2->options.tls, rc);
                return why == SSL_ERROR_WANT_WRITE || why == SSL_ERROR_WANT_READ;
            }
        } else {
            ssize_t rc = send(h2->io.fd, bytes + *ret_written, len - *ret_written, MSG_NOSIGNAL);
            if (rc < 0 && errno == EINTR)
                continue;
            if (rc < 0 && (errno == EPIPE || errno == ECONNRESET)) {
                h2->write_broken = true;
                return true;
            }
            if (rc < 0)
                return errno == EAGAIN || errno == EWOULDBLOCK;
            part = (size_t)rc;
        }
        *ret_written += part;
    }
    return true;
}

static void want_out(struct h2 *h2, bool want)
{
    if (h2->want_out == want)
        return;
    h2->want_out = want;
    if (loop_modify(h2->loop, &h2->io, EPOLLIN | (want ? (uint32_t)EPOLLOUT : 0)) != ERR_NONE)
        fail(h2, ERR_SYSTEM);
}

/* Frames from nghttp2 into the buffer; false when the session is broken. */
static bool gather(struct h2 *h2)
{
    while (h2->gather_len <= H2_GATHER_DATA) {
        const uint8_t *bytes = NULL;
        ssize_t len = nghttp2_session_mem_send(h2->session, &bytes);
        if (len < 0)
            return false;
        if (len == 0)
            return true;
        assert((size_t)len <= H2_GATHER_BYTES - h2->gather_len);
        memcpy(h2->gather + h2->gather_len, bytes, (size_t)len);
        h2->gather_len += (size_t)len;
    }
    return true;
}

/* What an earlier turn could not write; false while some of it is left. */
static bool flush_pending(struct h2 *h2)
{
    size_t written = 0;
    if (h2->pending.len == 0)
        return true;
    if (!write_some(h2, h2->pending.ptr, h2->pending.len, &written)) {
        fail(h2, ERR_CLOSED);
        return false;
    }
    buf_drop_front(&h2->pending, written);
    if (h2->pending.len > 0) {
        want_out(h2, true);
        return false;
    }
    buf_free(&h2->pending);
    return true;
}

/* One gathered buffer, one write; true when it left whole and there may be more. */
static bool flush_once(struct h2 *h2)
{
    size_t written = 0;
    h2->gather_len = 0;
    bool good = gather(h2);
    if (h2->dead)
        return false;
    if (!good || !write_some(h2, h2->gather, h2->gather_len, &written)) {
        fail(h2, good ? ERR_CLOSED : ERR_PROTOCOL);
        return false;
    }
    if (h2->write_broken)
        return false;
    if (written < h2->gather_len) {
        if (!buf_append(&h2->pending, h2->gather + written, h2->gather_len - written))
            fail(h2, ERR_NO_MEMORY);
        else
            want_out(h2, true);
        return false;
    }
    if (h2->gather_len > 0 && nghttp2_session_want_write(h2->session))
        return true;
    want_out(h2, false);
    return false;
}

static void flush(struct h2 *h2)
{
    char bytes[H2_GATHER_BYTES];
    if (h2->write_broken || !flush_pending(h2))
        return;
    h2->gather = bytes;
    int writes = 0;
    while (writes < TURN_WRITES_MAX && flush_once(h2))
        writes++;
    h2->gather = NULL;
    if (writes == TURN_WRITES_MAX)
        h2_wake(h2); /* the rest in the next turn */
}

/* nghttp2 wants nothing any more: GOAWAY went or came and all streams have ended, or the other side misbehaved. */
static void close_if_done(struct h2 *h2)
{
    if (h2->dead || h2->write_broken || h2->pending.len > 0 || nghttp2_session_want_read(h2->session) ||
        nghttp2_session_want_write(h2->session))
        return;
    fail(h2, h2->closing ? ERR_NONE : ERR_CLOSED);
}

static void on_task(struct task *task)
{
    struct h2 *h2 = container_of(task, struct h2, task);
    h2->busy++;
    if (h2->early.len > 0 || h2->read_again)
        on_ready(&h2->io, EPOLLIN);
    end_cancelled(h2);
    if (!h2->dead && !h2->free_asked)
        flush(h2);
    if (!h2->dead && !h2->free_asked)
        close_if_done(h2);
    leave(h2);
}

/* -- reading ----------------------------------------------------------------------------------------------------- */

/* ERR_BUSY: nothing there now. */
static enum error read_some(struct h2 *h2, char *to, size_t size, size_t *ret_len)
{
    *ret_len = 0;
    h2->read_again = false;
    if (!h2->options.tls) {
        ssize_t rc = 0;
        do
            rc = read(h2->io.fd, to, size); /* not recv(), which the programs wrap for their HTTP/1 server */
        while (rc < 0 && errno == EINTR);
        if (rc < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? ERR_BUSY : ERR_CLOSED;
        *ret_len = (size_t)rc;
        return rc == 0 ? ERR_CLOSED : ERR_NONE;
    }
    for (int i = 0; i < TLS_READS_MAX && *ret_len < size; i++) {
        size_t part = 0;
        ERR_clear_error();
        int rc = SSL_read_ex(h2->options.tls, to + *ret_len, size - *ret_len, &part);
        if (rc <= 0) {
            int why = SSL_get_error(h2->options.tls, rc);
            if (*ret_len > 0)
                return ERR_NONE; /* a lasting error shows at the next read */
            return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? ERR_BUSY : ERR_CLOSED;
        }
        *ret_len += part;
    }
    h2->read_again = true; /* OpenSSL may hold bytes that epoll does not show */
    return ERR_NONE;
}

static void take_in(struct h2 *h2, const char *bytes, size_t len)
{
    h2->last_read_ns = loop_now(h2->loop);
    ssize_t rc = nghttp2_session_mem_recv(h2->session, (const uint8_t *)bytes, len);
    if (h2->head && !h2->head->in_progress)
        h2->head = h2_head_free(h2->head);
    if (h2->dead || h2->free_asked)
        return;
    if (rc < 0)
        fail(h2, ERR_PROTOCOL);
    else if (nghttp2_session_want_write(h2->session) || !nghttp2_session_want_read(h2->session))
        h2_wake(h2);
}

static void on_ready(struct io_source *source, uint32_t events)
{
    struct h2 *h2 = container_of(source, struct h2, io);
    char bytes[H2_READ_BYTES];
    size_t len = 0;
    h2->busy++;
    if (h2->early.len > 0) {
        struct buf early = h2->early;
        h2->early = (struct buf){0};
        take_in(h2, early.ptr, early.len);
        buf_free(&early);
    }
    if (!h2->dead && (events & ~(uint32_t)EPOLLOUT)) {
        enum error error = read_some(h2, bytes, sizeof(bytes), &len);
        if (error == ERR_NONE)
            take_in(h2, bytes, len);
        else if (error != ERR_BUSY)
            fail(h2, h2->closing ? ERR_NONE : error);
    }
    if (!h2->dead && (events & EPOLLOUT || h2->read_again))
        h2_wake(h2);
    leave(h2);
}

/* -- connections ------------------------------------------------------------------------------------------------- */

enum error h2_open(struct loop *loop, int fd, const struct h2_options *options, struct h2 **ret)
{
    enum error error = ERR_NO_MEMORY;
    int one = 1;
    struct h2 *h2 = calloc(1, sizeof(*h2));
    if (!h2)
        return ERR_NO_MEMORY;
    h2->loop = loop;
    h2->io = (struct io_source){.fd = fd, .on_ready = on_ready};
    h2->task.run = on_task;
    h2->options = *options;
    h2->options.early = (struct str){NULL, 0};
    if (h2->options.streams_max == 0)
        h2->options.streams_max = STREAMS_MAX_DEFAULT;
    if (h2->options.stream_window == 0)
        h2->options.stream_window = STREAM_WINDOW_DEFAULT;
    if (h2->options.connection_window == 0)
        h2->options.connection_window = CONNECTION_WINDOW_DEFAULT;
    h2->stream_credit_step = h2->options.stream_window / 4;
    h2->credit_step = h2->options.connection_window / 4;
    h2_ring_init(&h2->open);
    h2_ring_init(&h2->ending);
    h2_ring_init(&h2->lingering);
    buf_init(&h2->pending, H2_GATHER_BYTES);
    buf_init(&h2->early, 0);
    h2->last_read_ns = h2->control_from_ns = loop_now(loop);
    if ((options->early.len > 0 && !buf_append_str(&h2->early, options->early)) || h2_session_open(h2) != ERR_NONE)
        goto out;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        error = ERR_SYSTEM;
        goto out;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* a Unix socket has no such option */
    if ((error = loop_add(loop, &h2->io, EPOLLIN)) != ERR_NONE)
        goto out;
    h2->read_again = h2->options.tls != NULL; /* the handshake may have read on */
    h2_wake(h2);
    *ret = h2;
    return ERR_NONE;
out:
    destroy(h2);
    return error;
}

void h2_shutdown(struct h2 *h2)
{
    if (h2->dead || h2->closing)
        return;
    h2->closing = true;
    int32_t last = h2->options.is_server ? nghttp2_session_get_last_proc_stream_id(h2->session) : 0;
    /* Out of memory here means that the other side is not told; the connection then ends when it closes. */
    (void)nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    h2_wake(h2);
}

size_t h2_stream_count(const struct h2 *h2)
{
    return h2->open_count;
}

int64_t h2_last_read_ns(const struct h2 *h2)
{
    return h2->last_read_ns;
}

void h2_ping(struct h2 *h2)
{
    if (!h2->dead && nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL) == 0)
        h2_wake(h2);
}
