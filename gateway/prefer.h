/* The caller's wishes for a call: the x-sluice-* request headers (and the like fields of a query) as constraints. */
#ifndef SLUICE_GATEWAY_PREFER_H
#define SLUICE_GATEWAY_PREFER_H

#include "gateway/api_error.h"
#include "scheduler/dispatch.h"

/* The headers' values; absent when not sent. */
struct prefer_headers {
    struct str prefer, max_price, region, require;
};

#define PREFER_HEADER_PREFER "x-sluice-prefer"
#define PREFER_HEADER_MAX_PRICE "x-sluice-max-price"
#define PREFER_HEADER_REGION "x-sluice-region"
#define PREFER_HEADER_REQUIRE "x-sluice-require"

/* Sets weights, max_price_usd_nano, region and require of *ret from the headers, or their defaults (balanced, any); the
 * other fields stay. The views point into the headers' memory. False: *ret_error is a 400 with the header's name in
 * param, *ret is untouched. */
MUST_CHECK bool prefer_parse(const struct prefer_headers *headers, struct dispatch_query *ret,
                             struct api_error *ret_error);

/* The parts, for queries whose fields have other names. Region: 1..64 bytes without control characters. Require: 1..16
 * tags of 1..32 letters, digits and -_.: between commas. */
bool prefer_is_region(struct str text);
bool prefer_is_require(struct str text);

#endif
