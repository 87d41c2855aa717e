#include "gateway/api_error.h"

#include "core/json_walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TYPE_REQUEST "invalid_request_error"
#define TYPE_SERVER "server_error"
#define UNAVAILABLE_RETRY_MS 1000

static void set_message(struct api_error *ret, int status, const char *type, const char *code, const char *param,
                        const char *format, va_list args)
{
    *ret = (struct api_error){.status = status, .type = type, .code = code, .param = param};
    if (vsnprintf(ret->message, sizeof(ret->message), format, args) < 0)
        ret->message[0] = '\0';
}

void api_error_set(struct api_error *ret, int status, const char *type, const char *code, const char *param,
                   const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(ret, status, type, code, param, format, args);
    va_end(args);
}

void api_error_bad_request(struct api_error *ret, const char *param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(ret, 400, TYPE_REQUEST, NULL, param, format, args);
    va_end(args);
}

void api_error_unauthorized(struct api_error *ret)
{
    api_error_set(ret, 401, TYPE_REQUEST, "invalid_api_key", NULL,
                  "Incorrect or missing API key. Send it as \"Authorization: Bearer KEY\".");
}

void api_error_forbidden(struct api_error *ret)
{
    api_error_set(ret, 403, TYPE_REQUEST, "insufficient_permissions", NULL, "This call needs the admin key.");
}

void api_error_not_found(struct api_error *ret, const char *what)
{
    api_error_set(ret, 404, TYPE_REQUEST, "not_found", NULL, "No such %s.", what);
}

void api_error_unavailable(struct api_error *ret)
{
    api_error_set(ret, 503, TYPE_SERVER, "unavailable", NULL, "The gateway's store does not answer. Try again.");
    ret->retry_after_ms = UNAVAILABLE_RETRY_MS;
}

void api_error_from(struct api_error *ret, enum error error)
{
    switch (error) {
    case ERR_CLOSED:
    case ERR_DEADLINE:
    case ERR_BUSY:
    case ERR_CANCELLED:
    case ERR_UNREACHABLE:
    case ERR_NO_MEMORY:
        api_error_unavailable(ret);
        return;
    case ERR_NOT_FOUND:
        api_error_not_found(ret, "object");
        return;
    case ERR_MISMATCH:
        api_error_set(ret, 409, TYPE_REQUEST, "idempotency_mismatch", "Idempotency-Key",
                      "This Idempotency-Key was used with another request.");
        return;
    case ERR_EXISTS:
        api_error_set(ret, 409, TYPE_REQUEST, "exists", NULL, "It exists already.");
        return;
    case ERR_BAD_INPUT:
        api_error_bad_request(ret, NULL, "The request is not understood.");
        return;
    case ERR_TOO_LARGE:
        api_error_set(ret, 413, TYPE_REQUEST, "too_large", NULL, "The request is too large.");
        return;
    case ERR_OVERFLOW:
        api_error_bad_request(ret, NULL, "A number is out of range.");
        return;
    case ERR_DENIED:
        api_error_set(ret, 403, TYPE_REQUEST, "insufficient_permissions", NULL, "This key may not do that.");
        return;
    case ERR_NO_FUNDS:
        api_error_set(ret, 429, "insufficient_quota", "insufficient_quota", NULL, "The balance is used up.");
        ret->no_retry = true;
        return;
    default:
        api_error_set(ret, 500, TYPE_SERVER, "internal_error", NULL, "The gateway failed: %s.", error_text(error));
    }
}

static bool append_member(struct buf *to, const char *name, const char *value)
{
    return buf_printf(to, "\"%s\":", name) && (value ? json_quote(to, str_of(value)) : buf_append(to, "null", 4));
}

bool api_error_json(const struct api_error *error, struct buf *ret)
{
    return buf_append_str(ret, STR("{\"error\":{")) && append_member(ret, "message", error->message) &&
           buf_append(ret, ",", 1) && append_member(ret, "type", error->type) && buf_append(ret, ",", 1) &&
           append_member(ret, "param", error->param) && buf_append(ret, ",", 1) &&
           append_member(ret, "code", error->code) && buf_append_str(ret, STR("}}"));
}
