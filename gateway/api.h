/* REST resources: a call of /api/v1, /worker/v1 or the watching paths, its answer, its errors, and the table of routes.
 *
 * A handler runs on a reactor's loop with the whole body read. It answers exactly once, now or in a later turn. If the
 * caller hangs up meanwhile the answer is dropped; the call stays valid until it is answered. */
#ifndef SLUICE_GATEWAY_API_H
#define SLUICE_GATEWAY_API_H

#include "gateway/api_error.h"
#include "gateway/reactor.h"
#include <jansson.h>

enum api_access {
    API_OPEN,     /* no key */
    API_ADMIN,    /* admin key only; a caller's key is 403 */
    API_CALLER,   /* a caller's key only */
    API_EITHER,   /* admin or caller: call->is_admin tells */
    API_LOOPBACK, /* open from loopback; elsewhere the admin key or metrics.token */
};

struct api_call {
    struct reactor *reactor;
    struct str method, path; /* path decoded per segment, without the query */
    struct str query;        /* raw, without '?' */
    struct str params[2];    /* the route's {captures}, percent-decoded */
    struct str body;
    bool is_admin;
    const struct api_key *key; /* NULL for admin and open calls; valid only in the turn the handler is called */
    char tenant[ID_TEXT_MAX], key_id[ID_TEXT_MAX]; /* of the key; "" else: copies that last */
    char request_id[ID_TEXT_MAX];
    bool from_loopback;
    struct str idempotency_key;                                          /* absent when none */
    struct str (*header)(const struct api_call *call, const char *name); /* absent when none */
    void *ctx;                                                           /* the handler's own */
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
void api_reply_json(struct api_call *call, int status, json_t *take_json); /* takes the reference; NULL: 500 */
void api_reply_empty(struct api_call *call, int status);                   /* 204 */
void api_reply_error(struct api_call *call, const struct api_error *error);
/* A stream of server-sent events: api_stream_begin once, then api_stream_send as often as wanted (false: the caller is
 * gone or too slow: stop), then api_stream_end. */
void api_stream_begin(struct api_call *call, void (*on_gone)(struct api_call *call));
MUST_CHECK bool api_stream_send(struct api_call *call, struct str bytes);
void api_stream_end(struct api_call *call);

/* Decodes the body as a strict JSON object; on failure answers 400 and returns NULL. */
MUST_CHECK json_t *api_body(struct api_call *call);
/* The named field of the query, percent-decoded into the call's own memory; absent when not there. Twice: 400 by
 * api_query_check, which also refuses names that are not in the NULL-terminated list (answers and returns false). */
struct str api_query(struct api_call *call, const char *name);
MUST_CHECK bool api_query_check(struct api_call *call, const char *const *known);

#endif
