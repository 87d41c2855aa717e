#include "core/json_scan.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state {
    AT_VALUE,
    AT_FIRST_ITEM, /* a value or ] */
    AT_FIRST_KEY,  /* a key or } */
    AT_KEY,
    AT_COLON,
    AT_NEXT, /* a comma or the closing bracket */
    AT_DONE, /* only blanks may follow */
    IN_STRING,
    IN_ESCAPE,
    IN_HEX,
    IN_UTF8,
    IN_WORD,
    IN_MINUS, /* number states: what was read last */
    IN_ZERO,
    IN_WHOLE,
    IN_POINT,
    IN_FRACTION,
    IN_E,
    IN_E_SIGN,
    IN_EXPONENT,
    FAILED
};

void json_scan_init(struct json_scan *scan, void (*on_member)(void *arg, const struct json_member *member), void *arg)
{
    *scan = (struct json_scan){.on_member = on_member, .arg = arg};
}

static size_t offset_of(const struct json_scan *scan, const char *p)
{
    return scan->offset + (size_t)(p - scan->chunk);
}

/* Notes the first problem, at p. Returns NULL, which ends the feed. */
static const char *refuse(struct json_scan *scan, const char *p, const char *problem)
{
    scan->offset = offset_of(scan, p);
    scan->problem = problem;
    scan->state = FAILED;
    return NULL;
}

static bool in_object(const struct json_scan *scan)
{
    unsigned level = scan->depth - 1;
    return scan->objects[level / 64] >> (level % 64) & 1;
}

/* A value has ended before p. */
static const char *value_end(struct json_scan *scan, const char *p)
{
    if (scan->depth > 1) {
        scan->state = AT_NEXT;
    } else if (scan->depth == 1) {
        scan->state = AT_NEXT;
        if (scan->root == JS_OBJECT && scan->on_member && !scan->key_lost) {
            struct json_member member = {
                {scan->key, scan->key_len}, (enum js_type)scan->member_type, scan->member_start, offset_of(scan, p)};
            scan->on_member(scan->arg, &member);
        }
    } else {
        scan->state = AT_DONE;
        scan->root_end = offset_of(scan, p);
    }
    return p;
}

static const char *open_container(struct json_scan *scan, const char *p, bool object)
{
    if (scan->depth == JSON_DEPTH_MAX)
        return refuse(scan, p, "nested too deep");
    uint64_t *word = &scan->objects[scan->depth / 64], bit = UINT64_C(1) << (scan->depth % 64);
    *word = object ? *word | bit : *word & ~bit;
    scan->depth++;
    scan->state = object ? AT_FIRST_KEY : AT_FIRST_ITEM;
    return p + 1;
}

static const char *close_container(struct json_scan *scan, const char *p)
{
    scan->depth--;
    return value_end(scan, p + 1);
}

static const char *value_start(struct json_scan *scan, const char *p)
{
    enum js_type type;
    enum state state = IN_WORD;
    switch (*p) {
    case '"':
        type = JS_STRING;
        state = IN_STRING;
        scan->in_key = false;
        break;
    case '{':
        type = JS_OBJECT;
        break;
    case '[':
        type = JS_ARRAY;
        break;
    case 't':
        type = JS_TRUE;
        scan->word = "rue";
        break;
    case 'f':
        type = JS_FALSE;
        scan->word = "alse";
        break;
    case 'n':
        type = JS_NULL;
        scan->word = "ull";
        break;
    default:
        if (*p != '-' && (*p < '0' || *p > '9'))
            return refuse(scan, p, "a value is expected");
        type = JS_NUMBER;
        state = *p == '-' ? IN_MINUS : *p == '0' ? IN_ZERO : IN_WHOLE;
    }
    scan->state = (uint8_t)state;
    if (scan->depth <= 1) {
        if (scan->depth == 0)
            scan->root = type;
        scan->member_type = (uint8_t)type;
        scan->member_start = offset_of(scan, p);
    }
    if (type >= JS_ARRAY)
        return open_container(scan, p, type == JS_OBJECT);
    return p + 1;
}

static const char *key_start(struct json_scan *scan, const char *p)
{
    if (*p != '"')
        return refuse(scan, p, "a key in quotes is expected");
    scan->in_key = true;
    scan->state = IN_STRING;
    if (scan->depth == 1) {
        scan->key_len = 0;
        scan->key_lost = false;
    }
    return p + 1;
}

/* ---- the key of a root member, put together as its pieces come ---- */

static bool keeps_key(const struct json_scan *scan)
{
    return scan->in_key && scan->depth == 1;
}

static void key_add(struct json_scan *scan, const char *bytes, size_t len)
{
    if (len > (size_t)JSON_KEY_MAX - scan->key_len)
        scan->key_lost = true;
    if (scan->key_lost)
        return;
    memcpy(scan->key + scan->key_len, bytes, len);
    scan->key_len = (uint8_t)(scan->key_len + len);
}

/* ---- strings ---- */

/* The first byte of [p, end) that is not plain string content: a quote, a backslash, a control or not ASCII. */
static const char *skip_plain(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), last_control = _mm_set1_epi8(0x1f);
#define SPECIAL(v)                                                                     \
    _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8((v), quote), _mm_cmpeq_epi8((v), slash)), \
                 _mm_or_si128(_mm_cmpeq_epi8(_mm_max_epu8((v), last_control), last_control), (v)))
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        unsigned found = (unsigned)_mm_movemask_epi8(SPECIAL(v));
        if (found)
            return p + __builtin_ctz(found);
    }
#undef SPECIAL
#else
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    for (; end - p >= 8; p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        uint64_t quote = v ^ (ones * '"'), slash = v ^ (ones * '\\');
        /* May say yes wrongly behind a byte that is special, never no: the loop below then finds the first. */
        if (((v - ones * 0x20) | (quote - ones) | (slash - ones) | v) & tops)
            break;
    }
#endif
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* Begins a sequence of more bytes: how many follow, and what the first of them may be (no overlong forms, no
 * surrogates, nothing above U+10FFFF). */
static bool utf8_start(struct json_scan *scan, unsigned char c)
{
    scan->utf8_low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    scan->utf8_high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    scan->utf8_left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    return c >= 0xc2 && c <= 0xf4;
}

static const char *take_utf8(struct json_scan *scan, const char *p, const char *end)
{
    while (scan->utf8_left > 0) {
        if (p == end)
            return p;
        unsigned char c = (unsigned char)*p;
        if (c < scan->utf8_low || c > scan->utf8_high)
            return refuse(scan, p, "ill-formed UTF-8");
        scan->utf8_low = 0x80;
        scan->utf8_high = 0xbf;
        scan->utf8_left--;
        p++;
    }
    scan->state = IN_STRING;
    return p;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Runs over whole two and three byte sequences, which is what text other than ASCII is made of. */
static const char *skip_common_utf8(const char *p, const char *end)
{
    while (end - p >= 3) {
        unsigned char c = (unsigned char)*p;
        if (c >= 0xe1 && c <= 0xec && is_continuation(p[1]) && is_continuation(p[2]))
            p += 3;
        else if (c >= 0xc2 && c <= 0xdf && is_continuation(p[1]))
            p += 2;
        else
            break;
    }
    return p;
}

static const char *take_string(struct json_scan *scan, const char *p, const char *end)
{
    while (p < end) {
        const char *start = p;
        p = skip_plain(p, end);
        if (keeps_key(scan))
            key_add(scan, start, (size_t)(p - start));
        if (p < end && (unsigned char)*p >= 0x80) {
            scan->key_lost |= keeps_key(scan);
            p = skip_common_utf8(p, end);
        }
        if (p == end)
            return p;
        unsigned char c = (unsigned char)*p;
        if (c == '"') {
            if (!scan->in_key)
                return value_end(scan, p + 1);
            scan->state = AT_COLON;
            return p + 1;
        }
        if (c == '\\') {
            scan->state = IN_ESCAPE;
            return p + 1;
        }
        if (c < 0x20)
            return refuse(scan, p, "control character in a string");
        if (c < 0x80 || p != start)
            continue;
        if (!utf8_start(scan, c))
            return refuse(scan, p, "ill-formed UTF-8");
        scan->state = IN_UTF8;
        return p + 1;
    }
    return p;
}

static const char *take_escape(struct json_scan *scan, const char *p)
{
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (*p == 'u') {
        scan->state = IN_HEX;
        scan->hex_left = 4;
        scan->unit = 0;
        return p + 1;
    }
    const char *letter = *p ? strchr(letters, *p) : NULL;
    if (!letter)
        return refuse(scan, p, "unknown escape in a string");
    if (keeps_key(scan))
        key_add(scan, bytes + (letter - letters), 1);
    scan->state = IN_STRING;
    return p + 1;
}

static const char *take_hex(struct json_scan *scan, const char *p, const char *end)
{
    for (; p < end && scan->hex_left > 0; p++, scan->hex_left--) {
        int value = *p >= '0' && *p <= '9'   ? *p - '0'
                    : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
                    : *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
                                             : -1;
        if (value < 0)
            return refuse(scan, p, "four hexadecimal digits are expected");
        scan->unit = (uint16_t)((unsigned)scan->unit << 4 | (unsigned)value);
    }
    if (scan->hex_left == 0) {
        if (keeps_key(scan)) {
            char ascii = (char)scan->unit;
            scan->key_lost |= scan->unit >= 0x80;
            key_add(scan, &ascii, 1);
        }
        scan->state = IN_STRING;
    }
    return p;
}

/* ---- words and numbers ---- */

static const char *take_word(struct json_scan *scan, const char *p, const char *end)
{
    for (; p < end && *scan->word; p++, scan->word++) {
        if (*p != *scan->word)
            return refuse(scan, p, "a value is expected");
    }
    return *scan->word ? p : value_end(scan, p);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool number_may_end(unsigned state)
{
    return state == IN_ZERO || state == IN_WHOLE || state == IN_FRACTION || state == IN_EXPONENT;
}

/* The state behind c, or FAILED when c does not belong to the number. */
static enum state number_step(enum state state, char c)
{
    bool e = c == 'e' || c == 'E';
    switch (state) {
    case IN_MINUS:
        return c == '0' ? IN_ZERO : is_digit(c) ? IN_WHOLE : FAILED;
    case IN_ZERO:
        return c == '.' ? IN_POINT : e ? IN_E : FAILED;
    case IN_WHOLE:
        return is_digit(c) ? IN_WHOLE : c == '.' ? IN_POINT : e ? IN_E : FAILED;
    case IN_POINT:
        return is_digit(c) ? IN_FRACTION : FAILED;
    case IN_FRACTION:
        return is_digit(c) ? IN_FRACTION : e ? IN_E : FAILED;
    case IN_E:
        return is_digit(c) ? IN_EXPONENT : c == '+' || c == '-' ? IN_E_SIGN : FAILED;
    default: /* IN_E_SIGN, IN_EXPONENT */
        return is_digit(c) ? IN_EXPONENT : FAILED;
    }
}

static const char *take_number(struct json_scan *scan, const char *p, const char *end)
{
    while (p < end) {
        if (scan->state == IN_WHOLE || scan->state == IN_FRACTION) {
            while (p < end && is_digit(*p))
                p++;
            if (p == end)
                return p;
        }
        enum state next = number_step((enum state)scan->state, *p);
        if (next == FAILED)
            return number_may_end(scan->state) ? value_end(scan, p) : refuse(scan, p, "malformed number");
        scan->state = (uint8_t)next;
        p++;
    }
    return p;
}

/* ---- between tokens ---- */

static const char *take_next(struct json_scan *scan, const char *p)
{
    bool object = in_object(scan);
    if (*p == ',') {
        scan->state = object ? AT_KEY : AT_VALUE;
        return p + 1;
    }
    if (*p != (object ? '}' : ']'))
        return refuse(scan, p, object ? "a comma or } is expected" : "a comma or ] is expected");
    return close_container(scan, p);
}

static const char *take_between(struct json_scan *scan, const char *p, const char *end)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t') {
        if (++p == end)
            return p;
    }
    switch (scan->state) {
    case AT_VALUE:
        return value_start(scan, p);
    case AT_FIRST_ITEM:
        return *p == ']' ? close_container(scan, p) : value_start(scan, p);
    case AT_FIRST_KEY:
        return *p == '}' ? close_container(scan, p) : key_start(scan, p);
    case AT_KEY:
        return key_start(scan, p);
    case AT_COLON:
        if (*p != ':')
            return refuse(scan, p, "a colon is expected");
        scan->state = AT_VALUE;
        return p + 1;
    case AT_NEXT:
        return take_next(scan, p);
    default:
        return refuse(scan, p, "nothing may follow the value");
    }
}

enum error json_scan_feed(struct json_scan *scan, struct str bytes)
{
    if (scan->state == FAILED)
        return ERR_BAD_INPUT;
    if (bytes.len == 0)
        return ERR_NONE;
    const char *p = bytes.ptr, *end = p + bytes.len;
    scan->chunk = p;
    while (p && p < end) {
        switch (scan->state) {
        case IN_STRING:
            p = take_string(scan, p, end);
            break;
        case IN_ESCAPE:
            p = take_escape(scan, p);
            break;
        case IN_HEX:
            p = take_hex(scan, p, end);
            break;
        case IN_UTF8:
            p = take_utf8(scan, p, end);
            break;
        case IN_WORD:
            p = take_word(scan, p, end);
            break;
        default:
            p = scan->state < IN_STRING ? take_between(scan, p, end) : take_number(scan, p, end);
        }
    }
    if (!p)
        return ERR_BAD_INPUT;
    scan->offset += bytes.len;
    return ERR_NONE;
}

enum error json_scan_end(struct json_scan *scan)
{
    if (scan->state == FAILED)
        return ERR_BAD_INPUT;
    scan->chunk = "";
    if (scan->depth == 0 && number_may_end(scan->state))
        value_end(scan, scan->chunk);
    if (scan->state == AT_DONE)
        return ERR_NONE;
    refuse(scan, scan->chunk, "the text ends too early");
    return ERR_BAD_INPUT;
}

enum error json_scan_all(struct str text, void (*on_member)(void *arg, const struct json_member *member), void *arg)
{
    struct json_scan scan;
    json_scan_init(&scan, on_member, arg);
    enum error error = json_scan_feed(&scan, text);
    return error ? error : json_scan_end(&scan);
}
