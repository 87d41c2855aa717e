/* Leases: made, listed, shown, ended. What becomes of them is the control thread's (lease_drive.h); here they are
 * written to and read from the store. */
#include "gateway/routes_lease.h"

#include "core/clock.h"
#include "gateway/keyring.h"
#include "gateway/lease_body.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "scheduler/lease_open.h"
#include "scheduler/lease_store.h"

#include <stdlib.h>
#include <string.h>

void lease_fail(struct api_call *call, enum error code)
{
    struct api_error error;
    if (code == ERR_NOT_FOUND)
        api_error_set(&error, 404, "invalid_request_error", "not_found", "id", "No such lease.");
    else
        api_error_from(&error, code);
    api_reply_error(call, &error);
}

bool lease_has_payer(struct api_call *call)
{
    struct api_error error;
    if (!call->is_admin)
        return true;
    api_error_set(&error, 403, "invalid_request_error", "insufficient_permissions", NULL,
                  "A lease is paid by a tenant: use an API key of one, not the operator's.");
    api_reply_error(call, &error);
    return false;
}

/* -- made -------------------------------------------------------------------------------------------------------- */

/* A lease on its way into the store. */
struct making {
    struct post *post;
    struct lease *lease;
};

static void making_end(struct making *making, const struct api_error *error)
{
    struct post *post = making->post;
    json_t *view = error ? NULL : lease_view(making->lease, clock_wall_ms());
    lease_free(making->lease);
    free(making);
    if (error)
        post_fail(post, error);
    else
        post_answer(post, 202, view, NULL);
}

static void making_fail(struct making *making, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    making_end(making, &error);
}

static void on_created(void *ctx, enum error code)
{
    struct making *making = ctx;
    if (code)
        making_fail(making, code);
    else
        making_end(making, NULL);
}

static void on_installation(void *ctx, enum error code, struct str installation)
{
    struct making *making = ctx;
    struct lease *lease = making->lease;
    if (!code && !str_copy(lease->installation, sizeof(lease->installation), installation))
        code = ERR_PROTOCOL;
    if (!code)
        code = lease_store_create(making->post->call->reactor->redis, lease, on_created, making);
    if (code)
        making_fail(making, code);
}

static void making_store(struct making *making)
{
    enum error code = lease_store_installation(making->post->call->reactor->redis, on_installation, making);
    if (code)
        making_fail(making, code);
}

/* The tenant has as many as it may: a call that is repeated may have made this one before. */
static void on_made_before(void *ctx, enum error code, struct lease *take)
{
    struct making *making = ctx;
    struct api_error error;
    lease_free(take);
    if (code == ERR_NOT_FOUND) {
        api_error_set(&error, 429, "rate_limit_error", "too_many_leases", NULL,
                      "This account has %lld leases that are not over, and may not have more: end some, or ask the "
                      "operator for a higher leases.max_open.",
                      (long long)making->post->call->reactor->gateway->settings->leases.max_open);
        error.no_retry = true;
        making_end(making, &error);
    } else if (code) {
        making_fail(making, code);
    } else {
        making_store(making);
    }
}

static void on_open_counted(void *ctx, enum error code, size_t count)
{
    struct making *making = ctx;
    struct reactor *reactor = making->post->call->reactor;
    if (!code && count < (size_t)reactor->gateway->settings->leases.max_open) {
        making_store(making);
        return;
    }
    if (!code)
        code = lease_store_get(reactor->redis, str_of(making->lease->id), on_made_before, making);
    if (code)
        making_fail(making, code);
}

static void making_admit(struct making *making)
{
    struct reactor *reactor = making->post->call->reactor;
    if (!reactor->gateway->settings->leases.max_open) {
        making_store(making);
        return;
    }
    enum error code = lease_open_count(reactor->redis, str_of(making->lease->tenant), on_open_counted, making);
    if (code)
        making_fail(making, code);
}

static void on_quote(void *ctx, enum error code, const struct quote *quote)
{
    struct making *making = ctx;
    struct api_error error;
    if (code == ERR_NOT_FOUND || (!code && strcmp(quote->tenant, making->lease->tenant) != 0)) {
        api_error_set(&error, 409, "invalid_request_error", "quote_expired", "quote",
                      "No such quote, or it has ended: ask for another.");
        making_end(making, &error);
    } else if (code) {
        making_fail(making, code);
    } else {
        making->lease->request.price_quoted_usd_nano = quote->price_usd_nano;
        making_admit(making);
    }
}

/* The body was found good when the request came. */
static enum error making_fill(struct lease *lease, const struct post *post)
{
    const json_t *budget = json_object_get(post->object, "budget");
    struct lease_request request;
    struct api_error error;
    if (!lease_body_parse(json_object_get(post->object, "body"), &request, &error))
        return ERR_BAD_INPUT;
    id_text(LEASE_ID_PREFIX, &post->seed, lease->id);
    memcpy(lease->tenant, post->call->tenant, sizeof(lease->tenant));
    memcpy(lease->key_id, post->call->key_id, sizeof(lease->key_id));
    lease->created_at_ms = clock_wall_ms();
    lease->due_ms = lease->created_at_ms;
    if (budget) {
        lease->budget_usd_nano = json_integer_value(json_object_get(budget, "limit"));
        (void)!str_copy(lease->budget_period, sizeof(lease->budget_period),
                        str_of(json_string_value(json_object_get(budget, "period"))));
    }
    return lease_request_copy(lease, &request) ? ERR_NONE : ERR_NO_MEMORY;
}

static void lease_create(struct post *post)
{
    struct making *making = calloc(1, sizeof(*making));
    struct api_error error;
    enum error code = making && (making->lease = lease_new()) ? ERR_NONE : ERR_NO_MEMORY;
    if (!making) {
        api_error_from(&error, code);
        post_fail(post, &error);
        return;
    }
    making->post = post;
    if (!code)
        code = making_fill(making->lease, post);
    if (!code && !making->lease->request.quote.ptr) {
        making_admit(making);
        return;
    }
    if (!code)
        code = quote_get(post->call->reactor->redis, making->lease->request.quote, on_quote, making);
    if (code)
        making_fail(making, code);
}

/* The limit that the caller's key has, kept with the lease; NULL: none. False: nothing may be spent with it. */
static bool budget_of_key(const struct api_call *call, json_t **ret, struct api_error *error)
{
    const struct credit *budget = call->key ? call->key->budget : NULL;
    const char *period = "";
    int64_t limit = budget ? credit_limit(budget, &period) : 0;
    *ret = NULL;
    if (budget && limit == 0) {
        api_error_set(error, 429, "insufficient_quota", "budget_exceeded", NULL, "This key's budget is used up.");
        error->no_retry = true;
        return false;
    }
    if (budget)
        *ret = json_pack("{s:I, s:s}", "limit", (json_int_t)limit, "period", period);
    return true;
}

void route_lease_create(struct api_call *call)
{
    static const char *const known[] = {NULL};
    struct lease_request request;
    struct api_error error;
    json_t *budget;
    if (!api_query_check(call, known) || !lease_has_payer(call))
        return;
    json_t *body = api_body(call);
    if (!body)
        return;
    if (!lease_body_parse(body, &request, &error) || !budget_of_key(call, &budget, &error)) {
        api_reply_error(call, &error);
        json_decref(body);
        return;
    }
    json_t *object = json_pack("{s:o, s:o*}", "body", body, "budget", budget);
    if (object)
        post_begin(call, IDEMPOTENCY_DAY_MS, object, 0, lease_create);
    else
        lease_fail(call, ERR_NO_MEMORY);
}

/* -- listed ------------------------------------------------------------------------------------------------------ */

struct listing {
    struct api_call *call;
    json_t *data;
    size_t limit;
    bool has_more, is_short_of_memory;
};

static void listing_end(struct listing *listing, enum error code)
{
    struct api_call *call = listing->call;
    json_t *data = listing->data;
    const json_t *last = json_array_get(data, json_array_size(data) - 1);
    const char *next = listing->has_more ? json_string_value(json_object_get(last, "id")) : NULL;
    if (listing->is_short_of_memory)
        code = ERR_NO_MEMORY;
    free(listing);
    if (code) {
        json_decref(data);
        lease_fail(call, code);
    } else {
        json_t *answer = json_pack("{s:s, s:O, s:s?}", "object", "list", "data", data, "next", next);
        json_decref(data);
        api_reply_json(call, 200, answer);
    }
}

/* One lease more than the page has tells that there is a next one. */
static void on_listed(void *ctx, enum error code, struct lease *take)
{
    struct listing *listing = ctx;
    if (!take) {
        listing_end(listing, code);
        return;
    }
    if (json_array_size(listing->data) == listing->limit)
        listing->has_more = true;
    else if (json_array_append_new(listing->data, lease_view(take, clock_wall_ms())) != 0)
        listing->is_short_of_memory = true;
    lease_free(take);
}

static void list_leases(struct api_call *call)
{
    int64_t limit = ROUTES_PAGE_DEFAULT;
    struct str cursor = api_query(call, "cursor"), tenant = {NULL, 0};
    struct api_error error;
    struct id id;
    bool is_good = query_int(call, "limit", 1, ROUTES_PAGE_MAX, &limit, &error);
    if (is_good && cursor.ptr && !id_parse(LEASE_ID_PREFIX, cursor, &id)) {
        api_error_bad_request(&error, "cursor", "cursor must be the \"next\" of the answer before.");
        is_good = false;
    }
    if (!is_good) {
        api_reply_error(call, &error);
        return;
    }
    if (call->tenant[0])
        tenant = str_of(call->tenant);
    struct listing *listing = calloc(1, sizeof(*listing));
    json_t *data = json_array();
    enum error code = ERR_NO_MEMORY;
    if (listing && data) {
        *listing = (struct listing){.call = call, .data = data, .limit = (size_t)limit};
        code = lease_store_list(call->reactor->redis, tenant, cursor, (size_t)limit + 1, on_listed, listing);
    }
    if (code) {
        free(listing);
        json_decref(data);
        lease_fail(call, code);
    }
}

void route_leases(struct api_call *call)
{
    static const char *const known[] = {"tenant", "limit", "cursor", NULL};
    if (api_query_check(call, known))
        with_tenant(call, false, list_leases);
}

/* -- one --------------------------------------------------------------------------------------------------------- */

struct lease_ask {
    struct api_call *call;
    void (*next)(struct api_call *call, struct lease *take_lease);
};

static void on_lease(void *ctx, enum error code, struct lease *take)
{
    struct lease_ask ask = *(struct lease_ask *)ctx;
    free(ctx);
    if (!code && !ask.call->is_admin && strcmp(take->tenant, ask.call->tenant) != 0) {
        lease_free(take);
        code = ERR_NOT_FOUND;
    }
    if (code)
        lease_fail(ask.call, code);
    else
        ask.next(ask.call, take);
}

void with_lease(struct api_call *call, void (*next)(struct api_call *call, struct lease *take_lease))
{
    struct lease_ask *ask;
    struct id id;
    if (!id_parse(LEASE_ID_PREFIX, call->params[0], &id)) {
        lease_fail(call, ERR_NOT_FOUND);
        return;
    }
    ask = malloc(sizeof(*ask));
    if (ask)
        *ask = (struct lease_ask){call, next};
    enum error code = ask ? lease_store_get(call->reactor->redis, call->params[0], on_lease, ask) : ERR_NO_MEMORY;
    if (code) {
        free(ask);
        lease_fail(call, code);
    }
}

static void show(struct api_call *call, struct lease *take)
{
    json_t *view = lease_view(take, clock_wall_ms());
    lease_free(take);
    api_reply_json(call, 200, view);
}

void route_lease(struct api_call *call)
{
    static const char *const known[] = {NULL};
    if (api_query_check(call, known))
        with_lease(call, show);
}

/* -- ended ------------------------------------------------------------------------------------------------------- */

static void on_stopped(void *ctx, enum error code, struct lease *take)
{
    struct api_call *call = ctx;
    if (code) {
        lease_fail(call, code);
        return;
    }
    json_t *view = lease_view(take, clock_wall_ms());
    lease_free(take);
    api_reply_json(call, 202, view);
}

void route_lease_delete(struct api_call *call)
{
    static const char *const known[] = {NULL};
    struct str tenant = {NULL, 0};
    struct id id;
    if (!api_query_check(call, known))
        return;
    if (!call->is_admin)
        tenant = str_of(call->tenant);
    enum error code = id_parse(LEASE_ID_PREFIX, call->params[0], &id)
                          ? lease_store_stop(call->reactor->redis, call->params[0], tenant, on_stopped, call)
                          : ERR_NOT_FOUND;
    if (code)
        lease_fail(call, code);
}
