/* Strict framing of HTTP/1.x requests: reads along with the parser behind it and refuses whatever two parsers could
 * read differently (request smuggling) or what passes a limit. RFC 9112.
 *
 * Pure: bytes in, verdict out; no allocation. It follows message after message on one connection. */
#ifndef SLUICE_CORE_HTTP_GUARD_H
#define SLUICE_CORE_HTTP_GUARD_H

#include "core/str.h"

enum http_guard_verdict {
    HTTP_GUARD_OK,
    HTTP_GUARD_MALFORMED,       /* 400 */
    HTTP_GUARD_HEAD_TOO_LARGE,  /* 431 */
    HTTP_GUARD_BODY_TOO_LARGE,  /* 413 */
    HTTP_GUARD_UNKNOWN_CODING,  /* 501 */
    HTTP_GUARD_UNKNOWN_VERSION, /* 505 */
};

struct http_guard_limits {
    size_t head_bytes; /* request line and headers; trailers count anew */
    uint64_t body_bytes;
};

enum http_guard_phase { HTTP_GUARD_IDLE, HTTP_GUARD_HEAD, HTTP_GUARD_BODY };

#define HTTP_GUARD_HEADERS_MAX 256

struct http_guard {
    const struct http_guard_limits *limits;
    uint8_t state;                                              /* enum in http_guard.c */
    uint8_t method_len, version_at, name_len, value_len, known; /* of what is being read */
    bool has_length, has_coding, has_host, is_http10, in_trailers;
    char name[20], value[20]; /* of a header that frames the message, lower case */
    uint32_t headers;
    size_t head_bytes;
    uint64_t body_left, body_seen, length;
    uint32_t chunk_digits, extension;
};

void http_guard_init(struct http_guard *guard, const struct http_guard_limits *limits); /* limits are borrowed */
/* Reads len bytes. Returns how many of them belong to messages that are in order so far: all of them when *ret_verdict
 * is HTTP_GUARD_OK; else those before the message that is refused (after which the connection must close). */
size_t http_guard_feed(struct http_guard *guard, const char *bytes, size_t len, enum http_guard_verdict *ret_verdict);
enum http_guard_phase http_guard_phase(const struct http_guard *guard);
/* Body bytes of the current message read so far (framing of chunks left out). */
uint64_t http_guard_body_seen(const struct http_guard *guard);

#endif
