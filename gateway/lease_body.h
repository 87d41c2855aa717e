/* What POST /api/v1/leases and POST /api/v1/quotes ask for: the fields of a body as the request for a lease. */
#ifndef SLUICE_GATEWAY_LEASE_BODY_H
#define SLUICE_GATEWAY_LEASE_BODY_H

#include "gateway/api_error.h"
#include "scheduler/lease.h"
#include <jansson.h>

#define LEASE_COUNT_MOST 1024 /* GPUs */
#define LEASE_DURATION_MOST_S (INT64_C(366) * 86400)
#define LEASE_DEADLINE_MOST_S (INT64_C(7) * 86400)
#define LEASE_DISK_MOST_GIB 16384
#define LEASE_DISK_GIB 20 /* where none is asked for */
#define LEASE_TOLERANCE_MOST_BPS 10000

/* Checks every field and fills *ret, whose texts are the body's (gpu: the canonical or short name as it was said). A
 * quote's price is not looked up. False: *error is a 400 with the field's name, which may be the body's. */
MUST_CHECK bool lease_body_parse(const json_t *body, struct lease_request *ret, struct api_error *error);

/* Is it an image's reference: [host[:port]/]path[:tag][@algorithm:digest]? */
bool image_reference_is_good(struct str text);

#endif
