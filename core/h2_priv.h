/* The inside of core/h2: h2.c (the socket, the life of a connection), h2_stream.c (streams and the calls on them),
 * h2_session.c (nghttp2's callbacks). Nobody else includes it. */
#ifndef SLUICE_CORE_H2_PRIV_H
#define SLUICE_CORE_H2_PRIV_H

#include "core/h2.h"
#include <nghttp2/nghttp2.h>

#define H2_FRAME_MAX 65536                  /* DATA that we send and take in one frame */
#define H2_READ_BYTES 65536                 /* of one read of the socket */
#define H2_GATHER_BYTES ((size_t)256 << 10) /* of one write; on the stack */
/* What nghttp2 gives back at once (a frame, at most H2_FRAME_MAX and its head) must still fit behind gathered DATA. */
#define H2_GATHER_DATA (H2_GATHER_BYTES - H2_FRAME_MAX - 4096)

struct h2_stream {
    struct h2 *h2;
    struct h2_stream *prev, *next; /* ring of one of the connection's lists; only next is used in the pool */
    const struct h2_stream_ops *ops;
    void *ctx;
    struct str body; /* client: what is still to be sent */
    char *queue;     /* server: bytes [queue_at, queue_at + queue_len) wait for the window */
    size_t queue_at, queue_len, queue_cap;
    size_t unconsumed; /* given to on_data and not yet back */
    size_t credit;     /* back, not yet told to nghttp2 */
    int32_t id;
    uint32_t reset_code;
    bool cancelled;   /* by us; nothing more is delivered but on_end */
    bool ended;       /* on_end has fired */
    bool closed;      /* nghttp2 has let go of it */
    bool refused;     /* the request never left */
    bool head_done;   /* client: the final head came; server: h2_stream_respond was called */
    bool finished;    /* server: h2_stream_finish or h2_stream_tear was called */
    bool torn;        /* server: h2_stream_tear was called */
    bool local_done;  /* our END_STREAM is handed to nghttp2 */
    bool remote_done; /* the other side's END_STREAM came */
    bool deferred;    /* server: nghttp2 waits for h2_session_resume */
};

/* 6 KiB, so it is there only while something is read: a gateway has thousands of connections, most of them idle. */
struct h2_head {
    struct h2_header headers[2 + H2_HEADERS_MAX]; /* the first two are for :method and :path */
    nghttp2_rcbuf *held[2 * (2 + H2_HEADERS_MAX)];
    size_t count, held_count, bytes; /* count: without the first two */
    int status;
    bool in_progress;
};

struct h2 {
    struct loop *loop;
    struct io_source io;
    struct task task; /* cancelled streams' on_end, then the flush */
    struct h2_options options;
    nghttp2_session *session;
    struct h2_stream open, ending, lingering; /* heads of rings: in use; cancelled; ended, but not closed by nghttp2 */
    struct h2_stream *pool;
    size_t open_count, held_count, pool_count; /* held: all that nghttp2 may count as a stream of ours */
    size_t credit;                             /* of the connection's window, not yet told to nghttp2 */
    size_t stream_credit_step, credit_step;
    char *gather; /* of the flush in progress */
    size_t gather_len;
    struct buf pending; /* written when the socket takes more */
    struct buf early;
    int64_t last_read_ns, control_from_ns;
    unsigned control_count; /* frames without progress since control_from_ns */
    unsigned busy;          /* depth of calls that may not free us */
    enum error error;       /* of the coming on_close */
    bool dead, closing, want_out, read_again, write_broken, free_asked;

    struct h2_head *head; /* the header block in progress: blocks of one connection never interleave */
};

MUST_CHECK enum error h2_session_open(struct h2 *h2);
struct h2_stream *h2_stream_take(struct h2 *h2); /* from the pool, in the ring of open ones; NULL: no memory */
void h2_stream_drop(struct h2_stream *stream);   /* to the pool, from whatever ring it is in */
void h2_stream_end(struct h2_stream *stream, enum h2_end end); /* fires on_end */
void h2_wake(struct h2 *h2);                                   /* there is something to flush */
void h2_credit(struct h2 *h2, size_t bytes);                   /* of the connection's window */
struct h2_head *h2_head_free(struct h2_head *head);            /* accepts NULL */
void h2_ring_init(struct h2_stream *head);
void h2_ring_add(struct h2_stream *head, struct h2_stream *stream);
void h2_ring_remove(struct h2_stream *stream);

ssize_t h2_body_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t length, uint32_t *flags,
                     nghttp2_data_source *source, void *ctx);
/* Fills an nghttp2 header; borrowed. */
nghttp2_nv h2_nv(struct str name, struct str value);

#endif
