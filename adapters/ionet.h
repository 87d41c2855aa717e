/* io.net's containers: what its offers (ionet_offers.c) and all else (ionet.c) share. */
#ifndef SLUICE_ADAPTERS_IONET_H
#define SLUICE_ADAPTERS_IONET_H

#include "adapters/shorthand.h"

#define IONET_BASE "/enterprise/v1/io-cloud/caas"
#define IONET_HOURS_MAX 8760

const json_t *ionet_unwrapped(const struct adapter_answer *answer); /* its `data`, or the answer itself */

/* What GPUs of a hardware cost in a place for a span, all together. */
struct str ionet_price_path(struct adapter_call *call, struct str hardware, struct str place, uint32_t gpus,
                            int64_t hours);
struct price_terms ionet_price(struct adapter_call *call, const struct adapter_answer *answer, uint32_t gpus,
                               int64_t hours);

/* An offer's id is "<hardware>/<GPUs>/<place>". */
void ionet_offers(struct adapter_call *call);

#endif
