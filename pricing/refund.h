/* What a check of answers costs, and what a wrong answer costs its worker. Both are usage records: they go through the
 * journal, so they outlive a killed gateway, and through settle.lua, which moves each once.
 *
 * A refund gives a tenant back what the call was charged, however much of it its credit had covered; the supplier's
 * part comes from the supplier, the take from the platform. On top the supplier pays a penalty, but never more than
 * what it has earned from this tenant and was not paid. It counts in the day and month of the call: a usage row without
 * a request and with the negative cost, and that much less on the call's invoice line. A budget is not given back.
 *
 * A check is a call of the platform's own: its supplier gets what a tenant's call would bring, out of plat:checks. */
#ifndef SLUICE_PRICING_REFUND_H
#define SLUICE_PRICING_REFUND_H

#include "pricing/usage.h"

#define REFUND_PENALTY_TIMES 10    /* the call's whole cost */
#define REFUND_PLATFORM "platform" /* the tenant of checks */

/* The refund of a call whose record was appended to the same journal before. */
void refund_record(const struct usage_record *call, struct usage_record *ret);
/* A check that took gpu_ms: of ret worker, supplier, network, gpu, model, price and take rate are set. False: it cost
 * nothing. */
bool check_record(int64_t gpu_ms, int64_t at_ms, struct usage_record *ret);

#endif
