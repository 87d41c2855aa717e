#include "pricing/rates.h"
#include "pricing/price_terms.h"

#include <string.h>

static const struct {
    const char *name, *of; /* of NULL: US dollars */
    uint32_t scale;        /* one is 10^-scale of that */
} fixed[] = {
    {"USD", NULL, 0},   {"USDC", NULL, 0}, /* a dollar as far as networks that are paid in it are concerned */
    {"cents", NULL, 2}, {"ACT", NULL, 0},  {"uact", NULL, 6}, {"uakt", "AKT", 6},
};

static size_t fixed_at(struct str currency)
{
    size_t i = 0;
    while (i < sizeof(fixed) / sizeof(fixed[0]) && !str_eq_nocase(currency, str_of(fixed[i].name)))
        i++;
    return i;
}

void rates_init(struct rates *rates, int64_t limit_ms)
{
    memset(rates, 0, sizeof(*rates));
    rates->limit_ms = limit_ms > 0 ? limit_ms : RATES_LIMIT_MS_DEFAULT;
}

/* rates->count: there is none. */
static size_t row_at(const struct rates *rates, struct str currency)
{
    size_t i = 0;
    while (i < rates->count && !str_eq_nocase(currency, str_of(rates->rows[i].currency)))
        i++;
    return i;
}

static bool is_name(struct str currency)
{
    for (size_t i = 0; i < currency.len; i++) {
        char c = currency.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            return false;
    }
    return currency.len > 0 && currency.len < RATE_CURRENCY_MAX;
}

enum error rates_set(struct rates *rates, struct str currency, struct str usd, struct str source, int64_t at_ms)
{
    struct rate rate = {.at_ms = at_ms};
    if (!is_name(currency) || at_ms < 0 || !price_decimal(usd, &rate.digits, &rate.scale) || rate.digits == 0)
        return ERR_BAD_INPUT;
    if (fixed_at(currency) < sizeof(fixed) / sizeof(fixed[0]))
        return ERR_DENIED;
    if (source.len >= RATE_SOURCE_MAX)
        source.len = RATE_SOURCE_MAX - 1;
    (void)str_copy(rate.currency, sizeof(rate.currency), currency);
    (void)str_copy(rate.source, sizeof(rate.source), source);
    size_t at = row_at(rates, currency);
    if (at == RATES_MAX)
        return ERR_TOO_LARGE;
    struct rate *row = &rates->rows[at];
    if (at < rates->count && at_ms && (row->at_ms == 0 || row->at_ms > at_ms))
        return ERR_EXISTS;
    rates->count += at == rates->count;
    *row = rate;
    return ERR_NONE;
}

enum error rates_find(const struct rates *rates, struct str currency, int64_t now_ms, struct rate *ret)
{
    size_t at = fixed_at(currency);
    uint32_t scale = 0;
    if (at < sizeof(fixed) / sizeof(fixed[0])) {
        scale = fixed[at].scale;
        if (!fixed[at].of) {
            *ret = (struct rate){.digits = 1, .scale = scale, .source = "fixed"};
            (void)str_copy(ret->currency, sizeof(ret->currency), str_of(fixed[at].name));
            return ERR_NONE;
        }
        currency = str_of(fixed[at].of);
    }
    size_t row = row_at(rates, currency);
    if (row == rates->count)
        return ERR_NOT_FOUND;
    *ret = rates->rows[row];
    ret->scale += scale;
    uint64_t now = (uint64_t)now_ms, then = (uint64_t)ret->at_ms;
    uint64_t age_ms = now_ms > ret->at_ms ? now - then : then - now;
    return ret->at_ms && age_ms > (uint64_t)rates->limit_ms ? ERR_DEADLINE : ERR_NONE;
}
