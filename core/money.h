/* Money: int64_t nano-US-dollars (`_usd_nano`), never a float. JSON carries decimal strings ("12.50"). */
#ifndef SLUICE_CORE_MONEY_H
#define SLUICE_CORE_MONEY_H

#include "core/str.h"

#define USD_NANO INT64_C(1000000000)
#define MONEY_TEXT_MAX 24

/* Amounts from outside: 1 to 10 digits, optionally a point and 1 to 9 digits; no sign, exponent or blank. */
MUST_CHECK bool money_parse(struct str text, int64_t *ret_usd_nano);
/* The exact amount with at least one digit before the point and two after it, and no more zeros at the end than these
 * two want: "0.00", "1.20", "-0.000000001". */
void money_text(int64_t usd_nano, char ret[static MONEY_TEXT_MAX]);
MUST_CHECK bool money_add(int64_t a, int64_t b, int64_t *ret);
/* price (nano-USD per GPU-hour) x gpu_ms / 3,600,000, half to even, once. False on overflow or negative input. */
MUST_CHECK bool money_cost(int64_t price_usd_nano, int64_t gpu_ms, int64_t *ret_usd_nano);
/* amount x bps / 10,000, half to even (take rates, markups). */
MUST_CHECK bool money_bps(int64_t usd_nano, int64_t bps, int64_t *ret_usd_nano);
/* span_ns x gpus / slots, half to even, to whole milliseconds. gpus, slots >= 1. */
int64_t money_gpu_ms(int64_t span_ns, int64_t gpus, int64_t slots);

#endif
