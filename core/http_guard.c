#include "core/http_guard.h"

#include <string.h>

enum state {
    ST_START, /* before a request line; one empty line is passed over */
    ST_START_LF,
    ST_METHOD,
    ST_TARGET,
    ST_VERSION,
    ST_LINE_LF,
    ST_HEADER_START,
    ST_NAME,
    ST_VALUE,
    ST_VALUE_LF,
    ST_END_LF,
    ST_LENGTH_BODY,
    ST_CHUNK_SIZE,
    ST_CHUNK_EXTENSION,
    ST_CHUNK_SIZE_LF,
    ST_CHUNK_DATA,
    ST_CHUNK_DATA_CR,
    ST_CHUNK_DATA_LF,
    ST_REFUSED,
};

enum known_header { KNOWN_NONE, KNOWN_LENGTH, KNOWN_CODING, KNOWN_HOST };

enum { CHUNK_EXTENSION_MAX = 256, CHUNK_DIGITS_MAX = 8, METHOD_MAX = 20 };

#define TOKEN 1
#define TARGET 2
#define VALUE 4

/* Which bytes may stand where: RFC 9110 token, request target (visible ASCII and obs-text), field value. */
static const uint8_t byte_class[256] = {
    [0x09] = VALUE,
    [0x20] = VALUE,
    ['!'] = TOKEN | TARGET | VALUE,
    ['"'] = TARGET | VALUE,
    ['#' ... '\''] = TOKEN | TARGET | VALUE,
    ['('] = TARGET | VALUE,
    [')'] = TARGET | VALUE,
    ['*'] = TOKEN | TARGET | VALUE,
    ['+'] = TOKEN | TARGET | VALUE,
    [','] = TARGET | VALUE,
    ['-'] = TOKEN | TARGET | VALUE,
    ['.'] = TOKEN | TARGET | VALUE,
    ['/'] = TARGET | VALUE,
    ['0' ... '9'] = TOKEN | TARGET | VALUE,
    [':' ... '@'] = TARGET | VALUE,
    ['A' ... 'Z'] = TOKEN | TARGET | VALUE,
    ['[' ... ']'] = TARGET | VALUE,
    ['^' ... 'z'] = TOKEN | TARGET | VALUE,
    ['{'] = TARGET | VALUE,
    ['|'] = TOKEN | TARGET | VALUE,
    ['}'] = TARGET | VALUE,
    ['~'] = TOKEN | TARGET | VALUE,
    [0x80 ... 0xff] = TARGET | VALUE,
};

static bool is_class(char byte, uint8_t class)
{
    return (byte_class[(uint8_t)byte] & class) != 0;
}

static char lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte | 0x20) : byte;
}

static void message_begin(struct http_guard *guard)
{
    const struct http_guard_limits *limits = guard->limits;
    memset(guard, 0, sizeof(*guard));
    guard->limits = limits;
    guard->state = ST_START;
}

void http_guard_init(struct http_guard *guard, const struct http_guard_limits *limits)
{
    guard->limits = limits;
    message_begin(guard);
}

/* -- header lines -- */

static void name_begin(struct http_guard *guard)
{
    guard->name_len = guard->value_len = 0;
    guard->known = KNOWN_NONE;
    guard->state = ST_NAME;
}

static enum http_guard_verdict name_end(struct http_guard *guard)
{
    if (guard->name_len == 0 || ++guard->headers > HTTP_GUARD_HEADERS_MAX)
        return guard->name_len == 0 ? HTTP_GUARD_MALFORMED : HTTP_GUARD_HEAD_TOO_LARGE;
    struct str name = {guard->name, guard->name_len};
    if (str_eq(name, STR("content-length")))
        guard->known = KNOWN_LENGTH;
    else if (str_eq(name, STR("transfer-encoding")))
        guard->known = KNOWN_CODING;
    else if (str_eq(name, STR("host")))
        guard->known = KNOWN_HOST;
    /* A trailer that frames the message again is the oldest trick of all. */
    if (guard->known && guard->in_trailers)
        return HTTP_GUARD_MALFORMED;
    guard->state = ST_VALUE;
    return HTTP_GUARD_OK;
}

static void value_byte(struct http_guard *guard, char byte)
{
    if (!guard->known || (guard->value_len == 0 && (byte == ' ' || byte == '\t')))
        return;
    if (guard->value_len < sizeof(guard->value))
        guard->value[guard->value_len] = lower(byte);
    if (guard->value_len < UINT8_MAX)
        guard->value_len++;
}

static enum http_guard_verdict length_end(struct http_guard *guard, struct str value)
{
    uint64_t length = 0;
    if (guard->has_length || value.len == 0 || value.len > 18)
        return HTTP_GUARD_MALFORMED;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return HTTP_GUARD_MALFORMED;
        length = length * 10 + (uint64_t)(value.ptr[i] - '0');
    }
    guard->has_length = true;
    guard->length = length;
    return HTTP_GUARD_OK;
}

static enum http_guard_verdict value_end(struct http_guard *guard)
{
    guard->state = ST_VALUE_LF;
    if (!guard->known)
        return HTTP_GUARD_OK;
    size_t kept = guard->value_len < sizeof(guard->value) ? guard->value_len : sizeof(guard->value);
    struct str value = str_trim((struct str){guard->value, kept});
    if (guard->known == KNOWN_LENGTH)
        return guard->value_len > sizeof(guard->value) ? HTTP_GUARD_MALFORMED : length_end(guard, value);
    if (guard->known == KNOWN_HOST ? guard->has_host : guard->has_coding)
        return HTTP_GUARD_MALFORMED;
    if (guard->known == KNOWN_HOST) {
        guard->has_host = true;
        return HTTP_GUARD_OK;
    }
    guard->has_coding = true;
    bool is_chunked = guard->value_len <= sizeof(guard->value) && str_eq(value, STR("chunked"));
    return is_chunked ? HTTP_GUARD_OK : HTTP_GUARD_UNKNOWN_CODING;
}

static enum http_guard_verdict head_end(struct http_guard *guard)
{
    if (guard->in_trailers) {
        message_begin(guard);
        return HTTP_GUARD_OK;
    }
    if (!guard->has_host && !guard->is_http10) /* RFC 9112, section 3.2 */
        return HTTP_GUARD_MALFORMED;
    if (guard->has_coding && (guard->has_length || guard->is_http10))
        return HTTP_GUARD_MALFORMED;
    if (guard->length > guard->limits->body_bytes)
        return HTTP_GUARD_BODY_TOO_LARGE;
    if (guard->has_coding) {
        guard->state = ST_CHUNK_SIZE;
    } else if (guard->length > 0) {
        guard->body_left = guard->length;
        guard->state = ST_LENGTH_BODY;
    } else {
        message_begin(guard);
    }
    return HTTP_GUARD_OK;
}

/* -- the request line's version: exactly HTTP/1.0 or HTTP/1.1 -- */

static enum http_guard_verdict version_byte(struct http_guard *guard, char byte)
{
    static const char expected[] = "HTTP/1.";
    size_t at = guard->version_at;
    if (at < 5 && byte != expected[at])
        return HTTP_GUARD_MALFORMED;
    if (at == 5 && byte != '1')
        return byte >= '0' && byte <= '9' ? HTTP_GUARD_UNKNOWN_VERSION : HTTP_GUARD_MALFORMED;
    if (at == 6 && byte != '.')
        return HTTP_GUARD_MALFORMED;
    if (at == 7) {
        if (byte != '0' && byte != '1')
            return byte >= '2' && byte <= '9' ? HTTP_GUARD_UNKNOWN_VERSION : HTTP_GUARD_MALFORMED;
        guard->is_http10 = byte == '0';
    }
    if (at == 8) {
        guard->state = ST_LINE_LF;
        return byte == '\r' ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    }
    guard->version_at++;
    return HTTP_GUARD_OK;
}

/* One byte of the head or the trailers. */
static enum http_guard_verdict head_byte(struct http_guard *guard, char byte)
{
    bool is_lf = byte == '\n';
    if (++guard->head_bytes > guard->limits->head_bytes)
        return HTTP_GUARD_HEAD_TOO_LARGE;
    switch ((enum state)guard->state) {
    case ST_START:
        if (byte == '\r' && guard->head_bytes == 1) {
            guard->state = ST_START_LF;
            return HTTP_GUARD_OK;
        }
        guard->state = ST_METHOD;
        guard->method_len = 1;
        return is_class(byte, TOKEN) ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_START_LF:
        guard->state = ST_START;
        return is_lf ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_METHOD:
        if (byte == ' ') {
            guard->state = ST_TARGET;
            return HTTP_GUARD_OK;
        }
        return ++guard->method_len <= METHOD_MAX && is_class(byte, TOKEN) ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_TARGET:
        if (byte == ' ') {
            guard->state = ST_VERSION;
            return guard->name_len ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED; /* name_len: the target is not empty */
        }
        guard->name_len = 1;
        return is_class(byte, TARGET) ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_VERSION:
        return version_byte(guard, byte);
    case ST_LINE_LF:
    case ST_VALUE_LF:
        guard->state = ST_HEADER_START;
        return is_lf ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_HEADER_START:
        if (byte == '\r') {
            guard->state = ST_END_LF;
            return HTTP_GUARD_OK;
        }
        name_begin(guard); /* a blank here would be an obsolete fold: no token, so refused */
        /* fall through */
    case ST_NAME:
        if (byte == ':')
            return name_end(guard);
        if (!is_class(byte, TOKEN))
            return HTTP_GUARD_MALFORMED;
        if (guard->name_len < sizeof(guard->name))
            guard->name[guard->name_len++] = lower(byte);
        return HTTP_GUARD_OK;
    case ST_VALUE:
        if (byte == '\r')
            return value_end(guard);
        if (!is_class(byte, VALUE))
            return HTTP_GUARD_MALFORMED;
        value_byte(guard, byte);
        return HTTP_GUARD_OK;
    case ST_END_LF:
        return is_lf ? head_end(guard) : HTTP_GUARD_MALFORMED;
    default:
        return HTTP_GUARD_MALFORMED;
    }
}

/* -- chunks -- */

static int hex_value(char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte = lower(byte);
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static enum http_guard_verdict chunk_size_end(struct http_guard *guard)
{
    if (guard->body_left == 0) {
        guard->in_trailers = true;
        guard->head_bytes = 0;
        guard->headers = 0;
        guard->state = ST_HEADER_START;
        return HTTP_GUARD_OK;
    }
    if (guard->body_seen + guard->body_left > guard->limits->body_bytes)
        return HTTP_GUARD_BODY_TOO_LARGE;
    guard->state = ST_CHUNK_DATA;
    return HTTP_GUARD_OK;
}

static enum http_guard_verdict chunk_byte(struct http_guard *guard, char byte)
{
    int digit;
    switch ((enum state)guard->state) {
    case ST_CHUNK_SIZE:
        digit = hex_value(byte);
        if (digit >= 0) {
            guard->body_left = guard->body_left * 16 + (uint64_t)digit;
            return ++guard->chunk_digits <= CHUNK_DIGITS_MAX ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
        }
        guard->extension = 0;
        guard->state = byte == '\r' ? ST_CHUNK_SIZE_LF : ST_CHUNK_EXTENSION;
        return guard->chunk_digits && (byte == '\r' || byte == ';') ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_CHUNK_EXTENSION:
        if (byte == '\r') {
            guard->state = ST_CHUNK_SIZE_LF;
            return HTTP_GUARD_OK;
        }
        return is_class(byte, VALUE) && ++guard->extension <= CHUNK_EXTENSION_MAX ? HTTP_GUARD_OK
                                                                                  : HTTP_GUARD_MALFORMED;
    case ST_CHUNK_SIZE_LF:
        return byte == '\n' ? chunk_size_end(guard) : HTTP_GUARD_MALFORMED;
    case ST_CHUNK_DATA_CR:
        guard->state = ST_CHUNK_DATA_LF;
        return byte == '\r' ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    case ST_CHUNK_DATA_LF:
        guard->chunk_digits = 0;
        guard->state = ST_CHUNK_SIZE;
        return byte == '\n' ? HTTP_GUARD_OK : HTTP_GUARD_MALFORMED;
    default:
        return HTTP_GUARD_MALFORMED;
    }
}

static size_t body_bytes(struct http_guard *guard, size_t len)
{
    size_t taken = len < guard->body_left ? len : (size_t)guard->body_left;
    guard->body_left -= taken;
    guard->body_seen += taken;
    if (guard->body_left == 0) {
        if (guard->state == ST_LENGTH_BODY)
            message_begin(guard);
        else
            guard->state = ST_CHUNK_DATA_CR;
    }
    return taken;
}

/* Values that do not frame the message are most of a head: pass over them in one go. */
static size_t skip_value(struct http_guard *guard, const char *bytes, size_t len)
{
    size_t i = 0;
    size_t room = guard->limits->head_bytes - guard->head_bytes;
    if (len > room)
        len = room;
    while (i < len && is_class(bytes[i], VALUE))
        i++;
    guard->head_bytes += i;
    return i;
}

size_t http_guard_feed(struct http_guard *guard, const char *bytes, size_t len, enum http_guard_verdict *ret_verdict)
{
    size_t message_at = 0; /* where the current message begins in bytes, 0 when it began earlier */
    *ret_verdict = HTTP_GUARD_OK;
    for (size_t i = 0; i < len;) {
        if (guard->state == ST_LENGTH_BODY || guard->state == ST_CHUNK_DATA) {
            i += body_bytes(guard, len - i);
            if (guard->state == ST_START)
                message_at = i;
            continue;
        }
        if (guard->state == ST_VALUE && !guard->known && (i += skip_value(guard, bytes + i, len - i)) == len)
            break;
        bool is_chunk_part = guard->state > ST_LENGTH_BODY;
        bool was_start = guard->state == ST_START;
        if (was_start && guard->head_bytes == 0)
            message_at = i;
        *ret_verdict = is_chunk_part ? chunk_byte(guard, bytes[i]) : head_byte(guard, bytes[i]);
        if (*ret_verdict != HTTP_GUARD_OK) {
            guard->state = ST_REFUSED;
            return message_at;
        }
        i++;
    }
    return len;
}

enum http_guard_phase http_guard_phase(const struct http_guard *guard)
{
    if (guard->state == ST_START && guard->head_bytes == 0)
        return HTTP_GUARD_IDLE;
    return guard->state < ST_LENGTH_BODY && !guard->in_trailers ? HTTP_GUARD_HEAD : HTTP_GUARD_BODY;
}

uint64_t http_guard_body_seen(const struct http_guard *guard)
{
    return guard->body_seen;
}
