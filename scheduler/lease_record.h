/* A lease as JSON: what the store keeps, and what users see. */
#ifndef SLUICE_SCHEDULER_LEASE_RECORD_H
#define SLUICE_SCHEDULER_LEASE_RECORD_H

#include "scheduler/lease.h"
#include <jansson.h>

#define LEASE_RECORD_MAX ((size_t)524288) /* texts of requests and networks may grow sixfold in JSON, and must fit */

/* The whole record, appended. Bytes that are no UTF-8 become '?'. False: out of memory, or larger than `to` takes. */
MUST_CHECK bool lease_record_write(const struct lease *lease, struct buf *to);
/* ERR_BAD_INPUT: not a record of ours. Fields that are absent get their defaults, so that older records stay readable.
 */
MUST_CHECK enum error lease_record_read(struct str text, struct lease **ret);
/* What GET /api/v1/leases/{id} answers. billed_ms (GPU time) and cost_usd include what runs and is not charged yet. Of
 * the environment only the names are shown. NULL: out of memory. */
json_t *lease_view(const struct lease *lease, int64_t now_ms);

#endif
