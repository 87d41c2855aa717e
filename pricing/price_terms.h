/* What a network asks, in its own words, and the same as nano-USD per GPU-hour: exactly, in integers, never below what
 * is asked. */
#ifndef SLUICE_PRICING_PRICE_TERMS_H
#define SLUICE_PRICING_PRICE_TERMS_H

#include "pricing/rates.h"
#include <jansson.h>

#define PRICE_AMOUNT_MAX 48 /* with the NUL */
#define PRICE_SPAN_S_MAX INT64_C(315360000)
#define PRICE_BLOCK_MS_MAX INT64_C(86400000)
#define PRICE_GPUS_MAX 65536

enum price_per {
    PRICE_PER_GPU_HOUR,
    PRICE_PER_MACHINE_HOUR,   /* all GPUs of the offer together */
    PRICE_PER_MACHINE_MINUTE, /* likewise, and so are those below */
    PRICE_PER_MACHINE_SECOND,
    PRICE_PER_SPAN,  /* for span_s, paid before or as one block */
    PRICE_PER_BLOCK, /* for each block of a chain, block_ms long */
    PRICE_PER_COUNT
};

struct price_terms {
    struct str amount;   /* decimal text as the network says it: "2916.000000000000000000", "249", "0.3367" */
    struct str currency; /* "USD", "USDC", "uact", "uakt", "AKT", "cents" */
    enum price_per per;
    uint32_t gpus; /* of the machine, 1 .. PRICE_GPUS_MAX; 0 counts as 1. Not used PER_GPU_HOUR */
    int64_t span_s, block_ms;
    bool is_estimate; /* what is asked is known only at create */
};

/* Nano-USD per GPU-hour, computed without any rounding and then rounded up to a whole nano-dollar. An amount of 0 is a
 * price of 0: whether that is an offer at all is for the adapter to say. ERR_BAD_INPUT: not a price (no decimal text
 * without sign and exponent, or spans beyond their limits); ERR_OVERFLOW; ERR_NOT_FOUND: unknown currency;
 * ERR_DEADLINE: the rate of terms->currency is too old. */
MUST_CHECK enum error price_terms_usd(const struct price_terms *terms, const struct rates *rates, int64_t now_ms,
                                      int64_t *ret_usd_nano);
/* A decimal text: digits, perhaps a point and digits. *ret_digits / 10^*ret_scale, zeros at the end left out; at most
 * RATE_DIGITS_MAX digits. */
MUST_CHECK bool price_decimal(struct str text, uint64_t *ret_digits, uint32_t *ret_scale);

/* The amount of a JSON number or string: the shortest decimal text that reads as that number, never with an exponent
 * (0.3367 -> "0.3367", 1e-05 -> "0.00001", 249 -> "249"); a string stays as it is. Parse without
 * JSON_DECODE_INT_AS_REAL. False: negative, not finite, below 1e-18, 1e15 or more, not decimal, or not a number. */
MUST_CHECK bool price_amount_of_json(const json_t *value, char ret[static PRICE_AMOUNT_MAX]);

/* For people: "2916 uact per block of 6 s for 8 GPUs (estimate)". False: out of memory or of room; then to is as it
 * was. */
MUST_CHECK bool price_terms_text(const struct price_terms *terms, struct buf *to);
/* {"amount","currency","per",["gpus"],["span_s"],["block_ms"],["is_estimate"]}; a new reference; NULL: out of memory,
 * or texts that are not UTF-8. */
json_t *price_terms_json(const struct price_terms *terms);
const char *price_per_text(enum price_per per); /* "gpu_hour", "machine_hour", "span", "block", ... */

/* Did the price rise against the quote by more than tolerance_bps of it? A fall is no move. */
bool price_moved(int64_t quoted_usd_nano, int64_t now_usd_nano, int64_t tolerance_bps);
/* The price with markup_bps of it on top, half to even. False: overflow, or something is negative. */
MUST_CHECK bool price_with_markup(int64_t usd_nano, int64_t markup_bps, int64_t *ret_usd_nano);

#endif
