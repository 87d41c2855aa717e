/* REST resources: a call of /api/v1, /worker/v1 or the watching paths, its answer, its errors, and the table of routes.
 *
 * A handler runs on a reactor's loop with the whole body read. It answers exactly once, now or in a later turn. If the
 * caller hangs up meanwhile the answer is dropped; the call stays valid until it is answered. */
#ifndef SLUICE_GATEWAY_API_H
#define SLUICE_GATEWAY_API_H

#include "core/id.h"
#include "gateway/api_error.h"
#include <jansson.h>

struct reactor;
struct api_key;

#define API_PARAMS_MAX 2
#define API_QUERY_BYTES_MAX 2048 /* longer queries are 400 */
#define API_QUERY_FIELDS_MAX 24

enum api_access {
    API_OPEN,     /* no key */
    API_ADMIN,    /* admin key only; a caller's key is 403 */
    API_CALLER,   /* a caller's key only */
    API_EITHER,   /* admin or caller: call->is_admin tells */
    API_LOOPBACK, /* open from loopback; elsewhere the admin key or metrics.token */
};

struct api_call {
    struct reactor *reactor;
    struct str method, path;           /* path as received, without the query */
    struct str query;                  /* raw, without '?' */
    struct str params[API_PARAMS_MAX]; /* the route's {captures}, percent-decoded */
    struct str body;
    bool is_admin;
    const struct api_key *key; /* NULL for admin and open calls; valid only in the turn the handler is called */
    char tenant[ID_TEXT_MAX], key_id[ID_TEXT_MAX]; /* of the key; "" else: copies that last */
    char request_id[ID_TEXT_MAX];
    bool from_loopback;
    struct str idempotency_key;                                          /* absent when none */
    struct str (*header)(const struct api_call *call, const char *name); /* absent when none */
    void *ctx;                                                           /* the handler's own */
    /* Of api_query and api_params_set; starts zeroed. */
    char text[API_QUERY_BYTES_MAX + 256];
    size_t text_len;
    struct {
        struct str name, value;
    } fields[API_QUERY_FIELDS_MAX];
    size_t field_count;
    int query_state; /* 0: not parsed yet, 1: parsed, -1: malformed */
};

typedef void api_handler(struct api_call *call);

struct api_route {
    const char *method;  /* "GET"; HEAD is answered by GET's handler */
    const char *pattern; /* "/api/v1/admin/keys/{id}" */
    enum api_access access;
    api_handler *handler;
};

/* All routes but the OpenAI path; ends with a row of NULLs (routes.c). */
extern const struct api_route api_routes[];

/* Answers; the call is gone when they return. */
void api_reply(struct api_call *call, int status, const char *content_type, struct str body);
/* body lies still until the gateway ends: it is not copied. */
void api_reply_static(struct api_call *call, int status, const char *content_type, struct str body);
void api_reply_json(struct api_call *call, int status, json_t *take_json); /* takes the reference; NULL: 500 */
void api_reply_empty(struct api_call *call, int status);                   /* 204 */
void api_reply_error(struct api_call *call, const struct api_error *error);
/* A stream of server-sent events: api_stream_begin once, then api_stream_send as often as wanted (false: the caller is
 * gone or too slow: stop), then api_stream_end. */
void api_stream_begin(struct api_call *call, void (*on_gone)(struct api_call *call));
MUST_CHECK bool api_stream_send(struct api_call *call, struct str bytes);
void api_stream_end(struct api_call *call);

enum api_match {
    API_FOUND,
    API_NO_PATH,   /* 404 */
    API_NO_METHOD, /* 405: the path is known with the methods in *ret_allow */
};
/* Finds the row of a request in api_routes. path is as received, without the query; *ret_params get the captured
 * segments as received: hand them to api_params_set. HEAD finds GET's row. *ret_allow ("GET, HEAD, POST") is appended
 * to on API_NO_METHOD. */
enum api_match api_match(struct str method, struct str path, const struct api_route **ret,
                         struct str ret_params[API_PARAMS_MAX], struct buf *ret_allow);
/* The same over any table, pure. */
enum api_match api_match_in(const struct api_route *routes, struct str method, struct str path,
                            const struct api_route **ret, struct str ret_params[API_PARAMS_MAX], struct buf *ret_allow);
/* Fills call->params from captured segments, percent-decoded into the call's memory. False: a bad escape, a control
 * character or too long: there is no such path (404). */
MUST_CHECK bool api_params_set(struct api_call *call, const struct str captured[API_PARAMS_MAX]);

/* Decodes the body as a strict JSON object (UTF-8, no name twice); on failure answers 400 and returns NULL. */
MUST_CHECK json_t *api_body(struct api_call *call);
/* Checks that the query is well-formed, has no name twice and none that is not in the NULL-terminated list; else
 * answers 400 and returns false. Comes first in every handler that takes a query. */
MUST_CHECK bool api_query_check(struct api_call *call, const char *const *known);
/* The named field of the query, percent-decoded into the call's own memory; absent when not there. */
struct str api_query(struct api_call *call, const char *name);
/* The like without answering: false with *ret_error set. */
MUST_CHECK bool api_query_parse(struct api_call *call, const char *const *known, struct api_error *ret_error);

#endif
