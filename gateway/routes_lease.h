/* Handlers of leases and quotes; for the table in routes.c. */
#ifndef SLUICE_GATEWAY_ROUTES_LEASE_H
#define SLUICE_GATEWAY_ROUTES_LEASE_H

#include "core/redis.h"
#include "gateway/api.h"

api_handler route_lease_create; /* POST /api/v1/leases, API_EITHER: the operator is told that it takes a caller's key */
api_handler route_leases;       /* GET /api/v1/leases, API_EITHER */
api_handler route_lease;        /* GET /api/v1/leases/{id}, API_EITHER */
api_handler route_lease_delete; /* DELETE /api/v1/leases/{id}, API_EITHER */
api_handler route_lease_logs;   /* GET /api/v1/leases/{id}/logs, API_EITHER */
api_handler route_quote;        /* POST /api/v1/quotes, the same */

/* -- what these files share -- */

struct lease;
void lease_fail(struct api_call *call, enum error code); /* ERR_NOT_FOUND: no such lease */
/* Loads the lease that the path names: next(call, lease) in a coming turn with a lease of its own, or answers. A lease
 * of another tenant is not found, except by the operator. */
void with_lease(struct api_call *call, void (*next)(struct api_call *call, struct lease *take_lease));

/* False: it was answered, for nobody would pay. */
MUST_CHECK bool lease_has_payer(struct api_call *call);

/* A quote is a price that a tenant was told; it reserves nothing. In Redis until it ends. */
#define QUOTE_LIFE_MS INT64_C(300000)
struct quote {
    char id[ID_TEXT_MAX], tenant[ID_TEXT_MAX];
    int64_t price_usd_nano, expires_at_ms;
};
/* ERR_NOT_FOUND: no such quote, or it has ended. quote is borrowed for the call. */
typedef void quote_done_fn(void *ctx, enum error error, const struct quote *quote);
MUST_CHECK enum error quote_get(struct redis *redis, struct str id, quote_done_fn *done, void *ctx);

#endif
