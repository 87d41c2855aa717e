#include "core/json_walk.h"

#include <assert.h>
#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && is_blank(*p))
        p++;
    return p;
}

/* p is at the opening quote; the answer is behind the closing one. */
static const char *skip_string(const char *p, const char *end)
{
    const char *from = p + 1;
    for (;;) {
        const char *quote = from < end ? memchr(from, '"', (size_t)(end - from)) : NULL;
        if (!quote)
            return end;
        const char *slash = quote;
        while (slash > p + 1 && slash[-1] == '\\')
            slash--;
        if ((quote - slash) % 2 == 0)
            return quote + 1;
        from = quote + 1;
    }
}

static const char *skip_container(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        switch (*p) {
        case '"':
            p = skip_string(p, end);
            continue;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (--depth == 0)
                return p + 1;
            break;
        default:
            break;
        }
        p++;
    }
    return end;
}

static enum js_type type_of(char c)
{
    switch (c) {
    case '"':
        return JS_STRING;
    case '{':
        return JS_OBJECT;
    case '[':
        return JS_ARRAY;
    case 't':
        return JS_TRUE;
    case 'f':
        return JS_FALSE;
    case 'n':
        return JS_NULL;
    default:
        return c == '-' || (c >= '0' && c <= '9') ? JS_NUMBER : JS_NONE;
    }
}

/* The value at *at, which moves behind it. */
static struct json_value take_value(const char **at, const char *end)
{
    const char *start = skip_blanks(*at, end), *p = start;
    struct json_value value = {JS_NONE, {NULL, 0}};
    if (p < end)
        value.type = type_of(*p);
    switch (value.type) {
    case JS_NONE:
        *at = end;
        return value;
    case JS_STRING:
        p = skip_string(p, end);
        break;
    case JS_OBJECT:
    case JS_ARRAY:
        p = skip_container(p, end);
        break;
    default:
        while (p < end && *p != ',' && *p != '}' && *p != ']' && !is_blank(*p))
            p++;
    }
    value.text = (struct str){start, (size_t)(p - start)};
    *at = p;
    return value;
}

struct json_value json_value_of(struct str text)
{
    const char *at = text.ptr;
    return take_value(&at, text.ptr + text.len);
}

struct json_walk json_walk_of(struct json_value container)
{
    bool open = container.type == JS_ARRAY || container.type == JS_OBJECT;
    if (!open || container.text.len < 2)
        return (struct json_walk){NULL, NULL};
    return (struct json_walk){container.text.ptr + 1, container.text.ptr + container.text.len - 1};
}

static void skip_comma(struct json_walk *walk)
{
    walk->at = skip_blanks(walk->at, walk->end);
    if (walk->at < walk->end && *walk->at == ',')
        walk->at++;
}

bool json_next_item(struct json_walk *walk, struct json_value *ret)
{
    struct json_value value = take_value(&walk->at, walk->end);
    if (value.type == JS_NONE)
        return false;
    skip_comma(walk);
    *ret = value;
    return true;
}

bool json_next_member(struct json_walk *walk, struct str *ret_key, struct json_value *ret)
{
    struct json_value key = take_value(&walk->at, walk->end);
    if (key.type != JS_STRING || key.text.len < 2)
        return false;
    walk->at = skip_blanks(walk->at, walk->end);
    if (walk->at == walk->end || *walk->at != ':')
        return false;
    walk->at++;
    struct json_value value = take_value(&walk->at, walk->end);
    if (value.type == JS_NONE)
        return false;
    skip_comma(walk);
    *ret_key = (struct str){key.text.ptr + 1, key.text.len - 2};
    *ret = value;
    return true;
}

struct json_value json_member_of(struct json_value object, const char *key)
{
    struct json_value value, none = {JS_NONE, {NULL, 0}};
    struct str name, wanted = str_of(key);
    if (object.type != JS_OBJECT)
        return none;
    struct json_walk walk = json_walk_of(object);
    while (json_next_member(&walk, &name, &value)) {
        if (str_eq(name, wanted))
            return value;
    }
    return none;
}

bool json_to_count(struct json_value value, int64_t *ret)
{
    int64_t count;
    double number;
    if (value.type != JS_NUMBER)
        return false;
    if (!str_to_i64(value.text, &count)) {
        if (!str_to_double(value.text, &number) || !(number >= 0 && number < 9e15))
            return false;
        count = (int64_t)number;
        if ((double)count != number)
            return false;
    }
    if (count < 0)
        return false;
    *ret = count;
    return true;
}

bool json_is_nothing(struct json_value value)
{
    return value.type == JS_NONE || value.type == JS_NULL;
}

/* ---- text ---- */

static int hex4(const char *p, const char *end)
{
    int unit = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

static size_t utf8_put(uint32_t point, char to[static 4])
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (char)(0xc0 | point >> 6);
        to[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (char)(0xe0 | point >> 12);
        to[1] = (char)(0x80 | (point >> 6 & 0x3f));
        to[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | point >> 18);
    to[1] = (char)(0x80 | (point >> 12 & 0x3f));
    to[2] = (char)(0x80 | (point >> 6 & 0x3f));
    to[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

/* *at is behind a backslash and moves behind the escape. Length of what it stands for, 0 if it is none. */
static size_t unescape(const char **at, const char *end, char to[static 4])
{
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (*at == end)
        return 0;
    char c = *(*at)++;
    if (c != 'u') {
        const char *letter = c ? strchr(letters, c) : NULL;
        if (letter)
            to[0] = bytes[letter - letters];
        return letter != NULL;
    }
    int unit = hex4(*at, end);
    if (unit < 0)
        return 0;
    *at += 4;
    uint32_t point = (uint32_t)unit;
    if (point >= 0xd800 && point <= 0xdfff) {
        int low = end - *at >= 2 && (*at)[0] == '\\' && (*at)[1] == 'u' ? hex4(*at + 2, end) : -1;
        if (point <= 0xdbff && low >= 0xdc00 && low <= 0xdfff) {
            *at += 6;
            point = 0x10000 + ((point - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        } else {
            point = 0xfffd;
        }
    }
    return utf8_put(point, to);
}

bool json_to_text(struct json_value value, char *to, size_t size, size_t *ret_len)
{
    assert(size >= 1);
    if (value.type != JS_STRING || value.text.len < 2)
        return false;
    const char *p = value.text.ptr + 1, *end = value.text.ptr + value.text.len - 1;
    size_t len = 0;
    while (p < end) {
        const char *slash = memchr(p, '\\', (size_t)(end - p));
        size_t run = (size_t)((slash ? slash : end) - p);
        if (run >= size - len)
            return false;
        memcpy(to + len, p, run);
        len += run;
        p += run;
        if (!slash)
            break;
        char bytes[4];
        p++;
        size_t more = unescape(&p, end, bytes);
        if (more == 0 || more >= size - len)
            return false;
        memcpy(to + len, bytes, more);
        len += more;
    }
    to[len] = '\0';
    *ret_len = len;
    return true;
}

/* Length of the well-formed UTF-8 sequence at p, 0 if there is none. */
static size_t utf8_len(const unsigned char *p, size_t left)
{
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
               (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : len;
}

bool json_quote(struct buf *to, struct str s)
{
    size_t before = to->len;
    bool ok = buf_append(to, "\"", 1);
    for (size_t i = 0; ok && i < s.len;) {
        const unsigned char *p = (const unsigned char *)s.ptr + i;
        size_t run = 0;
        while (i + run < s.len && p[run] >= 0x20 && p[run] < 0x80 && p[run] != '"' && p[run] != '\\')
            run++;
        if (run == 0 && *p >= 0x80)
            run = utf8_len(p, s.len - i);
        if (run > 0) {
            ok = buf_append(to, p, run);
            i += run;
            continue;
        }
        if (*p >= 0x80)
            ok = buf_append(to, "\xef\xbf\xbd", 3);
        else if (*p < 0x20)
            ok = buf_printf(to, "\\u%04x", (unsigned)*p);
        else
            ok = buf_printf(to, "\\%c", *p);
        i++;
    }
    ok = ok && buf_append(to, "\"", 1);
    if (!ok)
        to->len = before;
    return ok;
}
