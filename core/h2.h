/* HTTP/2 over one connected socket (plain or TLS) on the event loop, both roles, on nghttp2.
 *
 * The worker link uses it: the gateway is the client of the connection it has accepted, the worker agent the server.
 * Writes gather during a turn of the loop and leave in one system call at its end; many streams share one read.
 * All callbacks run on the loop and never inside the call that they answer. */
#ifndef SLUICE_CORE_H2_H
#define SLUICE_CORE_H2_H

#include "core/loop.h"
#include "core/str.h"
#include <openssl/ssl.h>

#define H2_HEADERS_MAX 128                /* of one head; more, or more bytes than the next line, resets the stream */
#define H2_HEADER_BYTES 65536             /* names and values of one head */
#define H2_QUEUE_HIGH ((size_t)256 << 10) /* a source should pause when a stream's queue is longer */
#define H2_QUEUE_LOW ((size_t)64 << 10)   /* on_sent fires when the queue falls to this */
#define H2_QUEUE_MAX ((size_t)16 << 20)   /* h2_stream_send refuses beyond */

struct h2;        /* a connection */
struct h2_stream; /* a stream of it */

struct h2_header {
    struct str name, value; /* name in lower case, without ':' pseudo-headers unless said */
};

enum h2_end {
    H2_END_OK,        /* both sides finished */
    H2_END_RESET,     /* the other side reset the stream (h2_stream_reset_code tells why) */
    H2_END_REFUSED,   /* REFUSED_STREAM or GOAWAY below it: surely not processed */
    H2_END_CLOSED,    /* the connection died */
    H2_END_CANCELLED, /* we cancelled */
};

/* Callbacks of a stream. For a client stream: head and data of the answer (1xx heads and trailers are dropped). For a
 * server stream: data of the request. on_end fires exactly once, last; the stream is gone when it returns.
 * An answer that ends before the request's body was sent whole ends the stream OK; the rest is not sent.
 * Callbacks may make any call on any stream or connection, h2_free too. */
struct h2_stream_ops {
    void (*on_head)(void *ctx, int status, const struct h2_header *headers, size_t count); /* client; borrowed */
    void (*on_data)(void *ctx, struct str bytes); /* must be given back with h2_stream_consumed, now or later */
    void (*on_finished)(void *ctx);               /* the other side's END_STREAM; may be NULL */
    void (*on_sent)(void *ctx);                   /* server: queued bytes fell below the low mark; may be NULL */
    void (*on_end)(void *ctx, enum h2_end end);   /* once; the last call */
};

struct h2_options {
    SSL *tls; /* handshake done; owned once h2_open succeeds; NULL for plain. The program ignores
                 SIGPIPE, for OpenSSL writes without MSG_NOSIGNAL */
    bool is_server;
    uint32_t streams_max;       /* concurrent streams we accept or open; 0: 4096 */
    uint32_t stream_window;     /* bytes the other side may send ahead on a stream; 0: 1 MiB */
    uint32_t connection_window; /* 0: 1 GiB, so that readers who pause their streams never stop the other streams */
    struct str early;           /* bytes already read from fd behind the hello; copied */
    /* server: a request's head has come (pseudo-headers ":method", ":path" first). Fill *ret_ops and *ret_ctx and
     * return true, or return false to refuse the stream. */
    bool (*on_request)(void *ctx, struct h2_stream *stream, const struct h2_header *headers, size_t count,
                       const struct h2_stream_ops **ret_ops, void **ret_ctx);
    void (*on_close)(void *ctx, enum error error); /* once, after every stream's on_end; then call h2_free */
    void *ctx;
};

MUST_CHECK enum error h2_open(struct loop *loop, int fd, const struct h2_options *options,
                              struct h2 **ret); /* owns fd once it succeeds */
struct h2 *h2_free(struct h2 *h2); /* closes at once; open streams end with H2_END_CLOSED first; accepts NULL */
void h2_shutdown(struct h2 *h2);   /* GOAWAY: no new streams; on_close when the open ones have ended. A connection does
                                      it by itself after 2^30 requests, when HTTP/2's stream ids run out */
size_t h2_stream_count(const struct h2 *h2);
int64_t h2_last_read_ns(const struct h2 *h2); /* loop time of the last bytes from the other side */
void h2_ping(struct h2 *h2);                  /* its answer shows in h2_last_read_ns */

struct h2_request {
    struct str method, path;
    const struct h2_header *headers; /* copied; none of HTTP/1's connection headers */
    size_t header_count;             /* ":scheme" and ":authority" are ours to add */
    struct str body;                 /* borrowed until on_end: sent from where it lies, never copied whole */
};

/* client: opens a stream. ERR_TOO_LARGE: more than 128 headers, 32 KiB of them or 16 KiB of path; ERR_CLOSED when the
 * connection is closing, ERR_BUSY at streams_max. */
MUST_CHECK enum error h2_request(struct h2 *h2, const struct h2_request *request, const struct h2_stream_ops *ops,
                                 void *ctx, struct h2_stream **ret);
/* server: the answer. h2_stream_send copies into the stream's queue; h2_stream_queued tells its length (keep it
 * bounded: pause the source above a high mark, go on at on_sent). h2_stream_finish ends the answer; h2_stream_tear ends
 * one that is not whole: what is queued leaves, then RST_STREAM (INTERNAL_ERROR), and on_end(RESET) comes. */
MUST_CHECK enum error h2_stream_respond(struct h2_stream *stream, int status, const struct h2_header *headers,
                                        size_t count);
MUST_CHECK enum error h2_stream_send(struct h2_stream *stream, struct str bytes);
size_t h2_stream_queued(const struct h2_stream *stream);
MUST_CHECK enum error h2_stream_finish(struct h2_stream *stream);
MUST_CHECK enum error h2_stream_tear(struct h2_stream *stream);

/* Opens the window again by that much. */
void h2_stream_consumed(struct h2_stream *stream, size_t bytes);
/* RST_STREAM leaves this turn; on_end(CANCELLED) comes from the loop, not from this call; no on_data any more. */
void h2_stream_cancel(struct h2_stream *stream, uint32_t h2_error_code);
uint32_t h2_stream_reset_code(const struct h2_stream *stream);

#endif
