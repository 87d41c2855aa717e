#include "core/money.h"

#include <assert.h>
#include <string.h>

#define MONEY_WHOLE_DIGITS 10
#define MONEY_FRACTION_DIGITS 9
#define MS_PER_HOUR 3600000
#define BPS_PER_ONE 10000

bool money_parse(struct str text, int64_t *ret_usd_nano)
{
    int64_t value = 0;
    size_t whole = 0, fraction = 0;
    bool point = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '.' && !point && whole > 0) {
            point = true;
            continue;
        }
        if (c < '0' || c > '9')
            return false;
        if (point ? ++fraction > MONEY_FRACTION_DIGITS : ++whole > MONEY_WHOLE_DIGITS)
            return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, c - '0', &value))
            return false;
    }
    if (whole == 0 || (point && fraction == 0))
        return false;
    for (size_t i = fraction; i < MONEY_FRACTION_DIGITS; i++) {
        if (__builtin_mul_overflow(value, 10, &value))
            return false;
    }
    *ret_usd_nano = value;
    return true;
}

void money_text(int64_t usd_nano, char ret[static MONEY_TEXT_MAX])
{
    uint64_t left = usd_nano < 0 ? 0 - (uint64_t)usd_nano : (uint64_t)usd_nano;
    char text[MONEY_TEXT_MAX];
    size_t at = sizeof(text);
    bool shown = false;
    text[--at] = '\0';
    for (int i = 0; i < MONEY_FRACTION_DIGITS; i++, left /= 10) {
        shown |= left % 10 > 0 || i >= MONEY_FRACTION_DIGITS - 2; /* cents are always told */
        if (shown)
            text[--at] = (char)('0' + left % 10);
    }
    text[--at] = '.';
    do {
        text[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (usd_nano < 0)
        text[--at] = '-';
    memcpy(ret, text + at, sizeof(text) - at);
}

bool money_add(int64_t a, int64_t b, int64_t *ret)
{
    int64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret = sum;
    return true;
}

/* numerator / denominator, half to even. Symmetric about zero; denominator > 0. */
static __int128 divide_half_even(__int128 numerator, __int128 denominator)
{
    bool negative = numerator < 0;
    __int128 whole = negative ? -numerator : numerator;
    __int128 quotient = whole / denominator, rest = whole % denominator;
    if (rest * 2 > denominator || (rest * 2 == denominator && (quotient & 1)))
        quotient++;
    return negative ? -quotient : quotient;
}

static bool narrow(__int128 value, int64_t *ret)
{
    if (value > INT64_MAX || value < INT64_MIN)
        return false;
    *ret = (int64_t)value;
    return true;
}

bool money_cost(int64_t price_usd_nano, int64_t gpu_ms, int64_t *ret_usd_nano)
{
    if (price_usd_nano < 0 || gpu_ms < 0)
        return false;
    return narrow(divide_half_even((__int128)price_usd_nano * gpu_ms, MS_PER_HOUR), ret_usd_nano);
}

bool money_bps(int64_t usd_nano, int64_t bps, int64_t *ret_usd_nano)
{
    return narrow(divide_half_even((__int128)usd_nano * bps, BPS_PER_ONE), ret_usd_nano);
}

int64_t money_gpu_ms(int64_t span_ns, int64_t gpus, int64_t slots)
{
    assert(gpus >= 1 && slots >= 1);
    if (span_ns <= 0)
        return 0;
    __int128 ms = divide_half_even((__int128)span_ns * gpus, (__int128)slots * 1000000);
    return ms > INT64_MAX ? INT64_MAX : (int64_t)ms;
}
