/* The table of all REST calls. */
#include "gateway/bootstrap.h"
#include "gateway/routes.h"
#include "gateway/routes_lease.h"
#include "gateway/routes_proof.h"
#include "gateway/routes_worker.h"

const struct api_route api_routes[] = {
    {"POST", "/api/v1/admin/tenants", API_ADMIN, route_tenant_create},
    {"GET", "/api/v1/admin/tenants", API_ADMIN, route_tenants},
    {"POST", "/api/v1/admin/keys", API_ADMIN, route_key_create},
    {"GET", "/api/v1/admin/keys", API_ADMIN, route_keys},
    {"DELETE", "/api/v1/admin/keys/{id}", API_ADMIN, route_key_delete},
    {"POST", "/api/v1/admin/credits", API_ADMIN, route_credit},
    {"POST", "/api/v1/admin/enrolments", API_ADMIN, routes_enrolment_create},
    {"GET", "/api/v1/admin/enrolments", API_ADMIN, routes_enrolment_list},
    {"DELETE", "/api/v1/admin/enrolments/{id}", API_ADMIN, routes_enrolment_delete},
    {"GET", "/api/v1/workers", API_ADMIN, routes_worker_list},
    {"GET", "/api/v1/workers/{id}/proofs", API_EITHER, route_proofs},
    {"POST", "/api/v1/workers/{id}/proofs", API_ADMIN, route_prove},
    {"GET", "/api/v1/admin/bans", API_ADMIN, route_bans},
    {"DELETE", "/api/v1/admin/bans/{id}", API_ADMIN, route_ban_delete},
    {"POST", "/worker/v1/register", API_OPEN, routes_worker_register},
    {"GET", "/worker/v1/bootstrap/{file}", API_OPEN, route_bootstrap},
    {"GET", "/api/v1/balance", API_EITHER, route_balance},
    {"GET", "/api/v1/usage", API_EITHER, route_usage},
    {"GET", "/api/v1/invoices/{month}", API_EITHER, route_invoice},
    {"GET", "/api/v1/ledger", API_EITHER, route_ledger},
    {"GET", "/api/v1/offers", API_EITHER, route_offers},
    {"POST", "/api/v1/quotes", API_EITHER, route_quote},
    {"POST", "/api/v1/leases", API_EITHER, route_lease_create},
    {"GET", "/api/v1/leases", API_EITHER, route_leases},
    {"GET", "/api/v1/leases/{id}", API_EITHER, route_lease},
    {"DELETE", "/api/v1/leases/{id}", API_EITHER, route_lease_delete},
    {"GET", "/api/v1/leases/{id}/logs", API_EITHER, route_lease_logs},
    {"POST", "/api/v1/route", API_EITHER, route_dry_run},
    {"GET", "/api/v1/networks", API_ADMIN, route_networks},
    {"GET", "/api/v1/stats", API_EITHER, route_stats},
    {"GET", "/api/v1/events", API_ADMIN, route_events},
    {"GET", "/metrics", API_LOOPBACK, route_metrics},
    {"GET", "/healthz", API_OPEN, route_healthz},
    {"GET", "/readyz", API_OPEN, route_readyz},
    {"GET", "/openapi.json", API_OPEN, route_openapi},
    {NULL, NULL, API_OPEN, NULL},
};

enum api_match api_match(struct str method, struct str path, const struct api_route **ret,
                         struct str ret_params[API_PARAMS_MAX], struct buf *ret_allow)
{
    return api_match_in(api_routes, method, path, ret, ret_params, ret_allow);
}
