/* What the REST handlers share: reading fields, whose money is asked for, POSTs that may come twice; and the handlers
 * themselves by name, for the table in routes.c.
 *
 * After the turn in which a handler is called, the body, the headers and the raw query are gone if the caller hung up;
 * params, api_query's values, tenant and key_id stay. */
#ifndef SLUICE_GATEWAY_ROUTES_H
#define SLUICE_GATEWAY_ROUTES_H

#include "gateway/api.h"
#include "gateway/idempotency.h"

#define ROUTES_PAGE_DEFAULT 100
#define ROUTES_PAGE_MAX 1000
#define ROUTES_NAME_MAX 64 /* characters of a name */

/* -- fields of a body: false with *error (a 400 with the field's name) set -- */

/* No field but those of the NULL-terminated list. The error borrows the name from the body. */
MUST_CHECK bool body_check(const json_t *body, const char *const *known, struct api_error *error);
/* A string of 1..max characters without control characters. Absent or null: the absent view, unless required. */
MUST_CHECK bool body_text(const json_t *body, const char *name, size_t max, bool is_required, struct str *ret,
                          struct api_error *error);
/* A whole number in min..max. Absent or null: *ret stays. */
MUST_CHECK bool body_int(const json_t *body, const char *name, int64_t min, int64_t max, int64_t *ret,
                         struct api_error *error);
/* An amount as a string. Absent or null: *ret stays. */
MUST_CHECK bool body_amount(const json_t *body, const char *name, int64_t *ret, struct api_error *error);

/* -- fields of a query: false with *error set; absent: *ret stays -- */
MUST_CHECK bool query_int(struct api_call *call, const char *name, int64_t min, int64_t max, int64_t *ret,
                          struct api_error *error);
MUST_CHECK bool query_flag(struct api_call *call, const char *name, int *ret, struct api_error *error);

/* Whose money: a caller's own tenant, or for the admin key the query's `tenant`, which must exist. Calls next(call)
 * now or in a later turn with call->tenant set, or answers an error. is_required: the admin must name one; else
 * call->tenant is "" for all. Comes after api_query_check. */
void with_tenant(struct api_call *call, bool is_required, void (*next)(struct api_call *call));

/* {"object":"list","data":[...],"next":...} of the rows whose "id" comes after the query's cursor, in order of ids, at
 * most `limit`; takes rows. The query's limit and cursor are read here. */
void reply_page(struct api_call *call, json_t *take_rows);

/* -- a POST that creates something -- */

struct post {
    struct api_call *call;
    struct id seed; /* the same for each repeat of the request: the new object's id is made from it */
    json_t *object; /* the handler's own, freed with the post */
    int64_t amount_usd_nano;
    char secret[SECRET_TEXT_MAX]; /* of the new object; wiped with the post */
    void (*create)(struct post *post);
    bool has_key;
    struct idempotency what;
    struct task task;
    json_t *answer;
    int status;
    struct api_error error;
};

/* Comes when the body was found good. Looks the Idempotency-Key up; answers by itself when the request was answered
 * before, or calls create(post) in a coming turn, which ends with post_answer or post_fail. take_object may be NULL. */
void post_begin(struct api_call *call, int64_t keep_ms, json_t *take_object, int64_t amount_usd_nano,
                void (*create)(struct post *post));
/* Stores the answer and sends it; the sent one alone has the member secret_name (NULL: none) with post->secret. */
void post_answer(struct post *post, int status, json_t *take_answer, const char *secret_name);
/* A 4xx frees the Idempotency-Key: nothing was created. */
void post_fail(struct post *post, const struct api_error *error);

/* -- the handlers -- */
api_handler route_tenant_create, route_tenants, route_key_create, route_keys, route_key_delete, route_credit;
api_handler route_balance, route_usage, route_invoice, route_ledger;
api_handler route_offers, route_dry_run, route_networks;
api_handler route_metrics, route_healthz, route_readyz, route_stats, route_events, route_openapi;

#endif
