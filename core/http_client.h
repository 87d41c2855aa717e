/* An HTTP client on the event loop: libcurl's multi interface, socket_action, keep-alive pools.
 *
 * No proxy (from the environment neither), no redirects, no cookies, no content decoding. A request is sent at most
 * once: a kept connection that the server has closed before is not used, one that dies after is HTTP_END_BROKEN. */
#ifndef SLUICE_CORE_HTTP_CLIENT_H
#define SLUICE_CORE_HTTP_CLIENT_H

#include "core/loop.h"
#include "core/str.h"

struct http_client; /* one a loop */
struct http_fetch;  /* one exchange */

struct http_header {
    struct str name, value;
};

enum http_end {
    HTTP_END_OK,          /* the whole answer arrived */
    HTTP_END_UNREACHABLE, /* could not connect, resolve or agree on TLS: nothing was sent */
    HTTP_END_BROKEN,      /* the connection broke before the answer was whole */
    HTTP_END_DEADLINE,    /* a time limit of the request passed */
    HTTP_END_TOO_LARGE,   /* the answer passed body_max */
    HTTP_END_CANCELLED,   /* http_fetch_cancel or http_client_free */
};

struct http_request {
    const char *method;                /* "GET", "POST", ... */
    const char *url;                   /* http, https; copied */
    const struct http_header *headers; /* copied */
    size_t header_count;
    struct str body; /* borrowed until on_end; absent for none */
    /* All NULL as a rule; copied. "aws:amz:<region>:<service>": signed by AWS's Signature Version 4 with user (the
     * key's id) and password (the secret). ca_file: PEM of who may have signed the server's certificate, in place of
     * the system's. client_cert, client_key: PEM files by which we show who we are. */
    const char *aws_sigv4, *user, *password, *ca_file, *client_cert, *client_key;
    int64_t connect_timeout_ns; /* 0: 5 s */
    int64_t total_timeout_ns;   /* 0: none */
    int64_t idle_timeout_ns;    /* longest silence once sent; 0: none */
    size_t body_max;            /* of the answer; 0: no limit (streams) */
    size_t header_max;          /* of the answer's head; 0: 64 KiB */
    /* Callbacks run on the loop, never inside http_fetch_start. Any but on_end may be NULL. */
    /* Once, for the final answer; names in lower case, borrowed for the call. A head over header_max: TOO_LARGE. */
    void (*on_head)(void *ctx, int status, const struct http_header *headers, size_t count);
    void (*on_data)(void *ctx, struct str bytes);
    void (*on_end)(void *ctx, enum http_end end); /* exactly once, last; the fetch is freed when it returns */
    void *ctx;
};

MUST_CHECK enum error http_client_open(struct loop *loop, struct http_client **ret);
/* https of this client is checked against these CAs (a PEM file, at most 1023 bytes of path) in place of the system's.
 * Before the first fetch. */
MUST_CHECK bool http_client_trust(struct http_client *client, const char *ca_file);
struct http_client *http_client_free(struct http_client *client); /* ends open fetches with HTTP_END_CANCELLED; not
                                                                 from a callback of a fetch; accepts NULL */

/* ERR_BAD_INPUT for a header that holds line breaks or NUL; ERR_CLOSED while the client is being freed. */
MUST_CHECK enum error http_fetch_start(struct http_client *client, const struct http_request *request,
                                       struct http_fetch **ret);
void http_fetch_cancel(
    struct http_fetch *fetch); /* closes the connection at once; on_end(CANCELLED) in a coming turn */
/* In on_end: whether any byte of an answer came. */
bool http_fetch_was_answered(const struct http_fetch *fetch);
/* Back-pressure: while paused no on_data comes and the socket is not read. Allowed inside on_data: bytes given to that
 * call count as taken. */
void http_fetch_pause(struct http_fetch *fetch, bool paused);

#endif
