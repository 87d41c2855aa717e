/* Amounts are decimal texts, rates are decimal fractions, spans are whole: their quotient is rational. It is computed
 * as one wide integer, multiplied first and divided last; dividing by several numbers in turn and rounding each up
 * gives the same as rounding up once. */
#include "pricing/price_terms.h"
#include "core/money.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MS_PER_HOUR UINT64_C(3600000)
#define AMOUNT_DIGITS_MAX (PRICE_AMOUNT_MAX - 1)
#define BPS_PER_ONE 10000

/* -- wide numbers -- */

/* 47 digits of an amount (157 bits), a rate (60), 10^9 (30), milliseconds of an hour (22): 269 bits at most. */
struct wide {
    uint32_t limbs[10]; /* least first */
};

#define LIMBS (sizeof(((struct wide *)0)->limbs) / sizeof(uint32_t))

static void multiply(struct wide *wide, uint64_t by, uint64_t plus)
{
    unsigned __int128 carry = plus;
    for (size_t i = 0; i < LIMBS; i++) {
        carry += (unsigned __int128)wide->limbs[i] * by;
        wide->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

static void divide_up(struct wide *wide, uint64_t by)
{
    unsigned __int128 rest = 0;
    for (size_t i = LIMBS; i-- > 0;) {
        rest = rest << 32 | wide->limbs[i];
        wide->limbs[i] = (uint32_t)(rest / by);
        rest %= by;
    }
    for (size_t i = 0; rest && i < LIMBS && ++wide->limbs[i] == 0; i++)
        ;
}

static void divide_up_by_power(struct wide *wide, uint32_t power)
{
    for (; power >= 9; power -= 9)
        divide_up(wide, 1000000000);
    for (; power > 0; power--)
        divide_up(wide, 10);
}

static bool narrow(const struct wide *wide, int64_t *ret)
{
    for (size_t i = 2; i < LIMBS; i++) {
        if (wide->limbs[i])
            return false;
    }
    uint64_t value = (uint64_t)wide->limbs[1] << 32 | wide->limbs[0];
    if (value > INT64_MAX)
        return false;
    *ret = (int64_t)value;
    return true;
}

/* -- decimal texts -- */

/* Digits without the point, and how many of them stand behind it; without the zeros that end a fraction. */
static bool read_decimal(struct str text, struct wide *ret, size_t *ret_digits, uint32_t *ret_scale)
{
    const char *point = text.len ? memchr(text.ptr, '.', text.len) : NULL;
    size_t whole = point ? (size_t)(point - text.ptr) : text.len, digits = 0;
    if (text.len == 0 || text.len > AMOUNT_DIGITS_MAX || whole == 0 || (point && whole + 1 == text.len))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (i != whole && (text.ptr[i] < '0' || text.ptr[i] > '9'))
            return false;
    }
    while (point && text.ptr[text.len - 1] == '0')
        text.len--;
    *ret = (struct wide){{0}};
    for (size_t i = 0; i < text.len; i++) {
        if (i == whole)
            continue;
        digits += digits || text.ptr[i] != '0';
        multiply(ret, 10, (uint64_t)(text.ptr[i] - '0'));
    }
    *ret_digits = digits;
    *ret_scale = point ? (uint32_t)(text.len - whole - 1) : 0;
    return true;
}

bool price_decimal(struct str text, uint64_t *ret_digits, uint32_t *ret_scale)
{
    struct wide wide;
    size_t digits;
    uint32_t scale;
    int64_t value;
    if (!read_decimal(text, &wide, &digits, &scale) || digits > RATE_DIGITS_MAX || !narrow(&wide, &value))
        return false;
    *ret_digits = (uint64_t)value;
    *ret_scale = scale;
    return true;
}

/* The digits of "d.ddde-xx" as a decimal text without an exponent. */
static bool place_point(const char *scientific, char ret[static PRICE_AMOUNT_MAX])
{
    char digits[24], *e = strchr(scientific, 'e');
    size_t count = 0, len = 0;
    int64_t exponent;
    if (!e)
        return false;
    struct str power = str_of(e + 1);
    if (power.len && *power.ptr == '+')
        power = (struct str){power.ptr + 1, power.len - 1};
    if (!str_to_i64(power, &exponent) || exponent >= 15 || exponent < -18)
        return false;
    for (const char *c = scientific; c < e && count < sizeof(digits); c++) {
        if (*c >= '0' && *c <= '9')
            digits[count++] = *c;
    }
    while (count > 1 && digits[count - 1] == '0')
        count--;
    int64_t last = exponent < (int64_t)count - 1 ? exponent - (int64_t)count + 1 : 0; /* of the last place: 10^last */
    for (int64_t place = exponent > 0 ? exponent : 0; place >= last; place--) {
        int64_t at = exponent - place;
        if (place == -1)
            ret[len++] = '.';
        if (len + 3 > PRICE_AMOUNT_MAX)
            return false;
        ret[len++] = at >= 0 && at < (int64_t)count ? digits[at] : '0';
    }
    ret[len] = '\0';
    return true;
}

bool price_amount_of_json(const json_t *value, char ret[static PRICE_AMOUNT_MAX])
{
    struct wide ignored;
    size_t digits;
    uint32_t scale;
    char text[PRICE_AMOUNT_MAX];
    if (json_is_string(value)) {
        struct str said = {json_string_value(value), json_string_length(value)};
        return read_decimal(said, &ignored, &digits, &scale) && str_copy(ret, PRICE_AMOUNT_MAX, said);
    }
    if (json_is_integer(value)) {
        json_int_t number = json_integer_value(value);
        if (number < 0 || number >= (json_int_t)1000000000000000)
            return false;
        ret[str_put_u64(text, (uint64_t)number)] = '\0';
        memcpy(ret, text, str_put_u64(text, (uint64_t)number));
        return true;
    }
    double number = json_is_real(value) ? json_real_value(value) : -1;
    if (!isfinite(number) || number < 0)
        return false;
    for (int precision = 0; precision < 17; precision++) { /* 17 digits tell every double apart */
        double again;
        snprintf(text, sizeof(text), "%.*e", precision, number);
        if (str_to_double(str_of(text), &again) && again == number)
            return number == 0 ? str_copy(ret, PRICE_AMOUNT_MAX, STR("0")) : place_point(text, ret);
    }
    return false;
}

/* -- dollars -- */

static bool is_good_span(const struct price_terms *terms)
{
    if (terms->gpus > PRICE_GPUS_MAX)
        return false;
    if (terms->per == PRICE_PER_SPAN)
        return terms->span_s >= 1 && terms->span_s <= PRICE_SPAN_S_MAX;
    if (terms->per == PRICE_PER_BLOCK)
        return terms->block_ms >= 1 && terms->block_ms <= PRICE_BLOCK_MS_MAX;
    return terms->per < PRICE_PER_COUNT;
}

/* Of what is paid for at once. */
static uint64_t milliseconds_of(const struct price_terms *terms)
{
    switch (terms->per) {
    case PRICE_PER_MACHINE_MINUTE:
        return 60000;
    case PRICE_PER_MACHINE_SECOND:
        return 1000;
    case PRICE_PER_SPAN:
        return (uint64_t)terms->span_s * 1000;
    case PRICE_PER_BLOCK:
        return (uint64_t)terms->block_ms;
    default:
        return MS_PER_HOUR;
    }
}

enum error price_terms_usd(const struct price_terms *terms, const struct rates *rates, int64_t now_ms,
                           int64_t *ret_usd_nano)
{
    struct wide price;
    size_t digits;
    uint32_t scale;
    struct rate rate;
    if (!is_good_span(terms) || !read_decimal(terms->amount, &price, &digits, &scale))
        return ERR_BAD_INPUT;
    enum error failed = rates_find(rates, terms->currency, now_ms, &rate);
    if (failed)
        return failed;
    multiply(&price, rate.digits, 0);
    multiply(&price, (uint64_t)USD_NANO, 0);
    multiply(&price, MS_PER_HOUR, 0);
    divide_up_by_power(&price, scale + rate.scale);
    divide_up(&price, milliseconds_of(terms));
    if (terms->per != PRICE_PER_GPU_HOUR && terms->gpus > 1)
        divide_up(&price, terms->gpus);
    return narrow(&price, ret_usd_nano) ? ERR_NONE : ERR_OVERFLOW;
}

/* -- terms as they are -- */

const char *price_per_text(enum price_per per)
{
    static const char *const texts[PRICE_PER_COUNT] = {
        [PRICE_PER_GPU_HOUR] = "gpu_hour",
        [PRICE_PER_MACHINE_HOUR] = "machine_hour",
        [PRICE_PER_MACHINE_MINUTE] = "machine_minute",
        [PRICE_PER_MACHINE_SECOND] = "machine_second",
        [PRICE_PER_SPAN] = "span",
        [PRICE_PER_BLOCK] = "block",
    };
    return per < PRICE_PER_COUNT ? texts[per] : "unknown";
}

/* "2916.000" -> "2916", for reading only. */
static struct str without_zeros(struct str amount)
{
    if (!amount.len || !memchr(amount.ptr, '.', amount.len))
        return amount;
    while (amount.ptr[amount.len - 1] == '0')
        amount.len--;
    if (amount.ptr[amount.len - 1] == '.')
        amount.len--;
    return amount;
}

bool price_terms_text(const struct price_terms *terms, struct buf *to)
{
    static const char *const words[PRICE_PER_COUNT] = {
        [PRICE_PER_GPU_HOUR] = "GPU and hour",
        [PRICE_PER_MACHINE_HOUR] = "hour",
        [PRICE_PER_MACHINE_MINUTE] = "minute",
        [PRICE_PER_MACHINE_SECOND] = "second",
    };
    char span[64], gpus[32] = "";
    const char *word = terms->per < PRICE_PER_COUNT && words[terms->per] ? words[terms->per] : "unknown";
    struct str amount = without_zeros(terms->amount);
    bool is_hours = terms->span_s % 3600 == 0;
    if (terms->per == PRICE_PER_SPAN) {
        snprintf(span, sizeof(span), "span of %lld %s", (long long)(is_hours ? terms->span_s / 3600 : terms->span_s),
                 is_hours ? "h" : "s");
        word = span;
    } else if (terms->per == PRICE_PER_BLOCK) {
        snprintf(span, sizeof(span), "block of %g s", (double)terms->block_ms / 1000);
        word = span;
    }
    if (terms->per != PRICE_PER_GPU_HOUR)
        snprintf(gpus, sizeof(gpus), " for %u GPU%s", terms->gpus ? terms->gpus : 1, terms->gpus > 1 ? "s" : "");
    return buf_printf(to, STR_FMT " " STR_FMT " per %s%s%s", STR_ARG(amount), STR_ARG(terms->currency), word, gpus,
                      terms->is_estimate ? " (estimate)" : "");
}

json_t *price_terms_json(const struct price_terms *terms)
{
    json_t *object = json_pack("{s:s%,s:s%,s:s}", "amount", terms->amount.ptr ? terms->amount.ptr : "",
                               terms->amount.len, "currency", terms->currency.ptr ? terms->currency.ptr : "",
                               terms->currency.len, "per", price_per_text(terms->per));
    int failed = !object;
    if (object && terms->per != PRICE_PER_GPU_HOUR)
        failed |= json_object_set_new(object, "gpus", json_integer(terms->gpus ? terms->gpus : 1));
    if (object && terms->per == PRICE_PER_SPAN)
        failed |= json_object_set_new(object, "span_s", json_integer(terms->span_s));
    if (object && terms->per == PRICE_PER_BLOCK)
        failed |= json_object_set_new(object, "block_ms", json_integer(terms->block_ms));
    if (object && terms->is_estimate)
        failed |= json_object_set_new(object, "is_estimate", json_true());
    if (failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

bool price_moved(int64_t quoted_usd_nano, int64_t now_usd_nano, int64_t tolerance_bps)
{
    __int128 most = (__int128)quoted_usd_nano * ((__int128)BPS_PER_ONE + (tolerance_bps > 0 ? tolerance_bps : 0));
    return (__int128)now_usd_nano * BPS_PER_ONE > most;
}

bool price_with_markup(int64_t usd_nano, int64_t markup_bps, int64_t *ret_usd_nano)
{
    if (usd_nano < 0 || markup_bps < 0 || markup_bps > INT64_MAX - BPS_PER_ONE)
        return false;
    return money_bps(usd_nano, markup_bps + BPS_PER_ONE, ret_usd_nano);
}
