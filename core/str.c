#include "core/str.h"

#include <assert.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct str str_of(const char *c_string)
{
    return c_string ? (struct str){c_string, strlen(c_string)} : (struct str){NULL, 0};
}

bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static unsigned char lower(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    }
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.len >= suffix.len &&
           (suffix.len == 0 || memcmp(s.ptr + (s.len - suffix.len), suffix.ptr, suffix.len) == 0);
}

struct str str_trim(struct str s)
{
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

struct str str_next(struct str *rest, char separator)
{
    struct str field = *rest;
    if (!rest->ptr)
        return field;
    const char *at = rest->len ? memchr(rest->ptr, separator, rest->len) : NULL;
    if (!at) {
        *rest = (struct str){NULL, 0};
        return field;
    }
    field.len = (size_t)(at - field.ptr);
    *rest = (struct str){at + 1, rest->len - field.len - 1};
    return field;
}

bool str_to_i64(struct str s, int64_t *ret)
{
    bool negative = s.len > 0 && s.ptr[0] == '-';
    size_t at = negative;
    if (at == s.len)
        return false;
    int64_t value = 0;
    for (; at < s.len; at++) {
        if (s.ptr[at] < '0' || s.ptr[at] > '9')
            return false;
        int64_t digit = s.ptr[at] - '0';
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, negative ? -digit : digit, &value))
            return false;
    }
    *ret = value;
    return true;
}

/* What a decimal number is made of: value = mantissa x 10^exponent. `exact` says that no digit was left out. */
struct decimal {
    uint64_t mantissa;
    int exponent;
    bool negative, exact;
};

#define EXPONENT_CEILING 100000

static bool decimal_read(struct str s, struct decimal *ret)
{
    struct decimal d = {.exact = true};
    size_t at = 0, digits = 0, significant = 0;
    bool point = false;
    if (at < s.len && s.ptr[at] == '-') {
        d.negative = true;
        at++;
    }
    for (; at < s.len; at++) {
        char c = s.ptr[at];
        if (c == '.' && !point && digits > 0) {
            point = true;
            digits = 0;
            continue;
        }
        if (c < '0' || c > '9')
            break;
        digits++;
        if (significant < 19) {
            d.mantissa = d.mantissa * 10 + (uint64_t)(c - '0');
            significant += d.mantissa > 0;
            d.exponent -= point;
        } else {
            d.exact = false;
        }
    }
    if (digits == 0)
        return false;
    if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        at++;
        bool down = at < s.len && s.ptr[at] == '-';
        at += at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+');
        int exponent = 0;
        size_t start = at;
        for (; at < s.len && s.ptr[at] >= '0' && s.ptr[at] <= '9'; at++) {
            if (exponent < EXPONENT_CEILING)
                exponent = exponent * 10 + (s.ptr[at] - '0');
        }
        if (at == start)
            return false;
        d.exponent += down ? -exponent : exponent;
    }
    if (at != s.len)
        return false;
    *ret = d;
    return true;
}

bool str_to_double(struct str s, double *ret)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    struct decimal d;
    if (!decimal_read(s, &d))
        return false;
    /* Mantissa and power of ten are both exact doubles here, so one operation rounds once, correctly. */
    if (d.exact && d.mantissa <= (UINT64_C(1) << 53) && d.exponent >= -22 && d.exponent <= 22) {
        double value = (double)d.mantissa;
        value = d.exponent < 0 ? value / powers[-d.exponent] : value * powers[d.exponent];
        *ret = d.negative ? -value : value;
        return true;
    }
    char text[128], *heap = NULL, *copy = text;
    if (s.len >= sizeof(text)) {
        heap = malloc(s.len + 1);
        if (!heap)
            return false;
        copy = heap;
    }
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = '\0';
    /* glibc answers "C" with its built-in locale: nothing is allocated. */
    double value = strtod_l(copy, NULL, newlocale(LC_ALL_MASK, "C", (locale_t)0));
    free(heap);
    if (!isfinite(value))
        return false;
    *ret = value;
    return true;
}

bool str_copy(char *to, size_t to_size, struct str from)
{
    assert(to_size > 0);
    to[0] = '\0';
    if (from.len >= to_size)
        return false;
    if (from.len > 0)
        memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
    return true;
}

static uint64_t read64(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t read32(const char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* After wyhash (public domain, Wang Yi): folded 64 x 64 multiplications over 16 bytes a step. */
size_t str_put_u64(char to[static STR_U64_MAX], uint64_t value)
{
    char digits[STR_U64_MAX];
    size_t at = sizeof(digits);
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    memcpy(to, digits + at, sizeof(digits) - at);
    return sizeof(digits) - at;
}

uint64_t str_hash(struct str s, uint64_t seed)
{
    static const uint64_t k0 = UINT64_C(0xa0761d6478bd642f), k1 = UINT64_C(0xe7037ed1a0b428db),
                          k2 = UINT64_C(0x8ebc6af09c88c6e3);
    const char *p = s.ptr;
    size_t left = s.len;
    uint64_t a, b;
    seed ^= mix(seed ^ k0, k1);
    for (; left > 16; p += 16, left -= 16)
        seed = mix(read64(p) ^ k1, read64(p + 8) ^ seed);
    if (left >= 8) {
        a = read64(p);
        b = read64(p + left - 8);
    } else if (left >= 4) {
        a = read32(p);
        b = read32(p + left - 4);
    } else if (left > 0) {
        a = (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[left / 2] << 8 |
            (unsigned char)p[left - 1];
        b = 0;
    } else {
        a = b = 0;
    }
    return mix(k2 ^ s.len, mix(a ^ k1, b ^ seed));
}

void buf_init(struct buf *buf, size_t limit)
{
    *buf = (struct buf){.limit = limit ? limit : BUF_LIMIT_DEFAULT};
}

void buf_free(struct buf *buf)
{
    if (!buf)
        return;
    free(buf->ptr);
    *buf = (struct buf){.limit = buf->limit};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
}

bool buf_reserve(struct buf *buf, size_t more)
{
    size_t limit = buf->limit ? buf->limit : BUF_LIMIT_DEFAULT;
    if (more > limit || buf->len > limit - more)
        return false;
    size_t need = buf->len + more;
    if (need <= buf->cap)
        return true;
    size_t cap = buf->cap ? buf->cap : 64;
    while (cap < need)
        cap = cap > limit / 2 ? limit : cap * 2;
    char *ptr = realloc(buf->ptr, cap);
    if (!ptr)
        return false;
    buf->ptr = ptr;
    buf->cap = cap;
    return true;
}

bool buf_append(struct buf *buf, const void *bytes, size_t len)
{
    if (!buf_reserve(buf, len))
        return false;
    if (len > 0)
        memcpy(buf->ptr + buf->len, bytes, len);
    buf->len += len;
    return true;
}

bool buf_append_str(struct buf *buf, struct str s)
{
    return buf_append(buf, s.ptr, s.len);
}

bool buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    /* One byte more than the text, for the NUL that vsnprintf insists on. */
    if (len < 0 || !buf_reserve(buf, (size_t)len + 1))
        return false;
    va_start(args, format);
    vsnprintf(buf->ptr + buf->len, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
    return true;
}

void buf_drop_front(struct buf *buf, size_t len)
{
    assert(len <= buf->len);
    if (len == 0)
        return;
    buf->len -= len;
    memmove(buf->ptr, buf->ptr + len, buf->len);
}

struct str buf_str(const struct buf *buf)
{
    return (struct str){buf->ptr ? buf->ptr : "", buf->len};
}
