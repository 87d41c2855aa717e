/* The headers of an answer, gathered in place: names are literals, values literals or printed into an arena. */
#ifndef SLUICE_GATEWAY_ANSWER_H
#define SLUICE_GATEWAY_ANSWER_H

#include "core/httpd.h"
#include "gateway/api_error.h"

#define ANSWER_FIELDS_MAX 28

struct answer {
    struct httpd_field fields[ANSWER_FIELDS_MAX];
    size_t count, arena_len;
    char arena[1024];
};

/* Starts with what every answer carries: x-request-id and CORS (has_origin: the caller is a browser). request_id is
 * borrowed until the answer is sent. */
void answer_init(struct answer *answer, const char *request_id, bool has_origin);
void answer_add(struct answer *answer, const char *name, const char *value); /* value is borrowed until it is sent */
void answer_add_copy(struct answer *answer, const char *name, const char *value);
void answer_add_number(struct answer *answer, const char *name, int64_t value); /* not negative */
/* content-type, retry-after-ms, retry-after, x-should-retry and the JSON text; *ret_body is the caller's to free.
 * False: out of memory. */
MUST_CHECK bool answer_error(struct answer *answer, const struct api_error *error, struct buf *ret_body);

#endif
