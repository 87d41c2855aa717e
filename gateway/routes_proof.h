/* Handlers of proofs and bans; for the table in routes.c. */
#ifndef SLUICE_GATEWAY_ROUTES_PROOF_H
#define SLUICE_GATEWAY_ROUTES_PROOF_H

#include "gateway/api.h"

api_handler route_proofs;     /* GET /api/v1/workers/{id}/proofs, API_EITHER */
api_handler route_prove;      /* POST /api/v1/workers/{id}/proofs, API_ADMIN */
api_handler route_bans;       /* GET /api/v1/admin/bans, API_ADMIN */
api_handler route_ban_delete; /* DELETE /api/v1/admin/bans/{id}, API_ADMIN */

#endif
