/* Handlers of enrolment, registration and the list of workers; for the table in routes.c. */
#ifndef SLUICE_GATEWAY_ROUTES_WORKER_H
#define SLUICE_GATEWAY_ROUTES_WORKER_H

#include "gateway/api.h"

api_handler routes_worker_register;  /* POST /worker/v1/register, API_OPEN */
api_handler routes_worker_list;      /* GET /api/v1/workers, API_ADMIN */
api_handler routes_enrolment_create; /* POST /api/v1/admin/enrolments, API_ADMIN */
api_handler routes_enrolment_list;   /* GET /api/v1/admin/enrolments, API_ADMIN */
api_handler routes_enrolment_delete; /* DELETE /api/v1/admin/enrolments/{id}, API_ADMIN */

#endif
