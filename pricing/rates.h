/* Rates: what a unit of each currency is worth in US dollars, exactly, and since when. Belongs to one thread.
 *
 * Fixed: USD, USDC (taken for a dollar), ACT and uact (Akash's unit, a dollar and its millionth), cents. uakt is a
 * millionth of AKT. All others are set, by the operator or by a network that tells them. Names: case does not matter.
 */
#ifndef SLUICE_PRICING_RATES_H
#define SLUICE_PRICING_RATES_H

#include "core/str.h"

#define RATES_MAX 32
#define RATE_CURRENCY_MAX 16
#define RATE_SOURCE_MAX 48
#define RATE_DIGITS_MAX 18 /* of a rate, zeros at both ends left out */
#define RATES_LIMIT_MS_DEFAULT INT64_C(3600000)

struct rate {
    char currency[RATE_CURRENCY_MAX];
    char source[RATE_SOURCE_MAX]; /* who says so: "fixed", "configuration", a network's name */
    uint64_t digits;              /* a unit is worth digits / 10^scale USD; digits >= 1 */
    uint32_t scale;
    int64_t at_ms; /* when it was so; 0: for ever */
};

struct rates {
    struct rate rows[RATES_MAX];
    size_t count;
    int64_t limit_ms; /* a rate with a time that is older (or as far in the future) is not used */
};

/* limit_ms 0: RATES_LIMIT_MS_DEFAULT. */
void rates_init(struct rates *rates, int64_t limit_ms);
/* usd: what one unit is worth, as price_terms.h has amounts ("0.7312"), not 0. source: cut at RATE_SOURCE_MAX - 1.
 * at_ms 0: for ever (the operator says so). ERR_BAD_INPUT: not a rate or not a name; ERR_DENIED: the currency is fixed,
 * or derived (uakt: set AKT); ERR_TOO_LARGE: no room; ERR_EXISTS: a newer one is there, or the operator's, which
 * networks do not replace. */
MUST_CHECK enum error rates_set(struct rates *rates, struct str currency, struct str usd, struct str source,
                                int64_t at_ms);
/* Into *ret, with its derived scale (so uakt's row is AKT's with a scale that is larger by 6). ERR_NOT_FOUND: unknown
 * currency; ERR_DEADLINE: its rate is too old, and *ret is that rate. */
MUST_CHECK enum error rates_find(const struct rates *rates, struct str currency, int64_t now_ms, struct rate *ret);

#endif
