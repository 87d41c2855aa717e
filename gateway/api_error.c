#include "gateway/api_error.h"

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

/* Length of the UTF-8 sequence at the front of s; 0 when it is not one (overlong, surrogate, cut off...). */
static size_t utf8_length(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.ptr;
    if (p[0] < 0x80)
        return 1;
    size_t len = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (len == 0 || len > s.len)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

/* Text as a JSON string, whatever bytes it holds: messages quote what callers sent. */
static bool append_json_string(struct buf *to, struct str s)
{
    if (!buf_append(to, "\"", 1))
        return false;
    while (s.len > 0) {
        size_t len = utf8_length(s);
        unsigned char c = (unsigned char)s.ptr[0];
        bool fits;
        if (len == 0)
            fits = buf_append(to, "\xef\xbf\xbd", 3); /* U+FFFD */
        else if (c < 0x20 || c == 0x7f)
            fits = buf_printf(to, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            fits = buf_append(to, "\\", 1) && buf_append(to, s.ptr, 1);
        else
            fits = buf_append(to, s.ptr, len);
        if (!fits)
            return false;
        len = len ? len : 1;
        s = (struct str){s.ptr + len, s.len - len};
    }
    return buf_append(to, "\"", 1);
}

static bool append_member(struct buf *to, const char *name, const char *value)
{
    return buf_printf(to, "\"%s\":", name) &&
           (value ? append_json_string(to, str_of(value)) : buf_append(to, "null", 4));
}

bool api_error_json(const struct api_error *error, struct buf *ret)
{
    return buf_append_str(ret, STR("{\"error\":{")) && append_member(ret, "message", error->message) &&
           buf_append(ret, ",", 1) && append_member(ret, "type", error->type) && buf_append(ret, ",", 1) &&
           append_member(ret, "param", error->param) && buf_append(ret, ",", 1) &&
           append_member(ret, "code", error->code) && buf_append_str(ret, STR("}}"));
}
