/* Errors as OpenAI's clients understand them: {"error":{"message","type","param","code"}} and the status. */
#ifndef SLUICE_GATEWAY_API_ERROR_H
#define SLUICE_GATEWAY_API_ERROR_H

#include "core/str.h"

struct api_error {
    int status;
    const char *type;  /* "invalid_request_error", "insufficient_quota", ... */
    const char *code;  /* NULL: null */
    const char *param; /* NULL: null; borrowed until the error was sent */
    char message[256];
    int64_t retry_after_ms; /* 0: none; else 1..60000 -> retry-after-ms and retry-after */
    bool no_retry;          /* x-should-retry: false */
};

/* Fills *ret; message by printf rules. */
void api_error_set(struct api_error *ret, int status, const char *type, const char *code, const char *param,
                   const char *format, ...) PRINTF_LIKE(6, 7);
MUST_CHECK bool api_error_json(const struct api_error *error, struct buf *ret);

/* The ones used in more than one place. */
void api_error_bad_request(struct api_error *ret, const char *param, const char *format, ...) PRINTF_LIKE(3, 4);
void api_error_unauthorized(struct api_error *ret);                /* 401 invalid_api_key */
void api_error_forbidden(struct api_error *ret);                   /* 403 a caller's key on an admin call */
void api_error_not_found(struct api_error *ret, const char *what); /* 404 */
void api_error_unavailable(struct api_error *ret);                 /* 503: Redis does not answer; retry-after-ms */
void api_error_from(struct api_error *ret,
                    enum error error); /* of a store: unreachable 503, not found 404, mismatch 409... */

#endif
