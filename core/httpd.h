/* The HTTP/1.1 server: libmicrohttpd on the event loop, with what it does not do by itself.
 *
 * It adds strict framing (core/http_guard, by way of a wrapped recv), JSON-able refusals, hang-up detection while a
 * request waits for its answer, deadlines for slow senders, and streams with back-pressure. One httpd a loop; several
 * on one address share it by SO_REUSEPORT.
 *
 * Life of a call: on_head, on_body..., on_request, then the owner answers (at once or later), at most one on_gone, and
 * last on_end, after which the call is gone. A call whose request never became whole gets only on_head and on_end. */
#ifndef SLUICE_CORE_HTTPD_H
#define SLUICE_CORE_HTTPD_H

#include "core/loop.h"
#include "core/str.h"

#define HTTPD_KNOWN_MAX 32
#define HTTPD_STREAM_HIGH ((size_t)256 << 10) /* a stream's queue above this: stop the source */
#define HTTPD_STREAM_LOW ((size_t)64 << 10)   /* on_drained when it falls below */

struct httpd;

struct httpd_call {
    struct str method, path, query;    /* path raw (percent-encoded), query without '?' */
    struct str known[HTTPD_KNOWN_MAX]; /* header values by their place in httpd_options.known; absent when not sent */
    struct buf body;                   /* as received; the owner may take it (and leave it zeroed) */
    bool is_http10, from_loopback;
    bool discard_body;  /* set in on_head: the body is read but not kept */
    int64_t started_ns; /* loop time of the head */
    void *owner;        /* the owner's */
};

struct httpd_field {
    const char *name, *value; /* NUL-terminated, copied */
};

struct httpd_ops {
    void (*on_head)(void *ctx, struct httpd_call *call);
    void (*on_body)(void *ctx, struct httpd_call *call,
                    struct str bytes); /* already appended to call->body; may be NULL */
    void (*on_request)(void *ctx, struct httpd_call *call);
    void (*on_gone)(void *ctx,
                    struct httpd_call *call); /* the client hung up or stalls: stop all work, do not answer */
    void (*on_drained)(void *ctx, struct httpd_call *call); /* a stream's queue fell below HTTPD_STREAM_LOW */
    void (*on_end)(void *ctx, struct httpd_call *call, bool is_complete); /* is_complete: the answer left to its end */
    /* Writes the whole raw response for a refused message (400, 408, 413, 431, 501, 505), "Connection: close" included.
     */
    void (*refuse)(void *ctx, int status, struct buf *ret_response);
};

struct httpd_options {
    int listen_fd;            /* from httpd_listen; owned by the httpd from then on */
    const char *const *known; /* names of headers to collect, lower case, at most HTTPD_KNOWN_MAX, ends with NULL */
    size_t head_bytes;
    uint64_t body_bytes;
    int64_t head_ms, body_min_bps, write_stall_ms;
    unsigned connections_max;
    const struct httpd_ops *ops;
    void *ctx;
};

/* A listening socket on "host:port" (SO_REUSEPORT, non-blocking); *ret_port gets the port, for port 0. is_first: nobody
 * may listen there yet, or two gateways would share the port unawares (ERR_EXISTS). */
MUST_CHECK enum error httpd_listen(const char *address, bool is_first, int *ret_fd, uint16_t *ret_port);
MUST_CHECK enum error httpd_open(struct loop *loop, const struct httpd_options *options, struct httpd **ret);
struct httpd *httpd_free(struct httpd *httpd); /* closes every connection; open calls get on_gone and on_end */
void httpd_quiesce(struct httpd *httpd);       /* no new connections */
size_t httpd_connections(const struct httpd *httpd);

/* A whole answer. take_body (may be NULL) gives its memory away. Exactly one of httpd_answer, httpd_answer_static and
 * httpd_stream a call.
 */
void httpd_answer(struct httpd_call *call, int status, const struct httpd_field *fields, size_t count,
                  struct buf *take_body);
/* The like with a body that lies still until the httpd is freed: it is sent from where it lies. */
void httpd_answer_static(struct httpd_call *call, int status, const struct httpd_field *fields, size_t count,
                         struct str body);
/* A stream of unknown length (chunked; to HTTP/1.0 until close). */
void httpd_stream(struct httpd_call *call, int status, const struct httpd_field *fields, size_t count);
MUST_CHECK bool httpd_write(struct httpd_call *call, struct str bytes); /* false: out of memory */
size_t httpd_queued(const struct httpd_call *call);
void httpd_finish(struct httpd_call *call, const struct httpd_field *trailers, size_t count); /* clean end */
void httpd_break(struct httpd_call *call); /* what is queued leaves, then the connection aborts: no clean end */

#endif
