/* The door: every HTTP request of a reactor comes in here, is given its id, its caller and its route, and goes to the
 * OpenAI path (openai.h) or to a handler of the REST table (api.h). */
#ifndef SLUICE_GATEWAY_HTTP_FRONT_H
#define SLUICE_GATEWAY_HTTP_FRONT_H

#include "core/httpd.h"
#include "gateway/answer.h"
#include "gateway/api.h"
#include "gateway/reactor.h"

/* Headers that the gateway reads, by their place in httpd_call.known. */
enum known_header {
    HEADER_AUTHORIZATION,
    HEADER_ORIGIN,
    HEADER_ACCESS_CONTROL_REQUEST_HEADERS,
    HEADER_CONTENT_TYPE,
    HEADER_ACCEPT,
    HEADER_IDEMPOTENCY_KEY,
    HEADER_STAINLESS_TIMEOUT,
    HEADER_STAINLESS_READ_TIMEOUT,
    HEADER_SESSION_ID,
    HEADER_PREFER,
    HEADER_MAX_PRICE,
    HEADER_REGION,
    HEADER_REQUIRE,
    HEADER_COUNT
};

struct openai_call;

/* A request on its way through the gateway. */
struct front_call {
    struct reactor *reactor;
    struct httpd_call *http; /* NULL once the HTTP side has ended */
    char request_id[ID_TEXT_MAX];
    struct openai_call *openai; /* the OpenAI path's */
    struct rest_call *rest;     /* a REST handler's */
    bool is_too_large;          /* the body of a REST call */
    bool is_listener;           /* of events without an end: no call in work */
    struct front_call *next_free;
};

extern const struct httpd_ops front_ops; /* ctx: the reactor */
extern const char *const front_headers[HEADER_COUNT + 1];

struct front *front_open(void); /* NULL: out of memory */
struct front *front_free(struct front *front);

bool front_has_origin(const struct front_call *call);
/* The bearer token of the Authorization header; absent when there is none. */
struct str front_bearer(const struct httpd_call *http);
/* True, with a 503 in *ret_error, while the keys have not been read yet. */
bool front_is_starting(const struct reactor *reactor, struct api_error *ret_error);
bool front_is_admin(const struct gateway *gateway, struct str token);
/* Answers with an error object and counts the request in the metrics. */
void front_error(struct front_call *call, const struct api_error *error, struct str model);
/* A plain answer; takes body. */
void front_answer(struct front_call *call, int status, struct answer *answer, struct buf *take_body);

#endif
