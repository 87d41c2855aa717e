/* The operator's resources: tenants, keys, credits. */
#include "core/clock.h"
#include "core/money.h"
#include "gateway/keyring.h"
#include "gateway/keyring_store.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "pricing/ledger.h"

#include <stdlib.h>
#include <string.h>

#define MODELS_MAX 256
#define MODEL_NAME_MAX 160
#define LIMIT_MAX 1000000
#define EXPIRY_MAX_MS INT64_C(253402300800000) /* the year 10000 */

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

static void fail_post(struct post *post, enum error code, const char *what)
{
    struct api_error error;
    if (code == ERR_NOT_FOUND)
        api_error_set(&error, 404, "invalid_request_error", "not_found", what, "No such %s.", what);
    else
        api_error_from(&error, code);
    post_fail(post, &error);
}

static void reject(struct api_call *call, json_t *body, const struct api_error *error)
{
    api_reply_error(call, error);
    json_decref(body);
}

static json_t *text_json(struct str text)
{
    return text.ptr ? json_stringn(text.ptr, text.len) : json_null();
}

static bool add_identity(json_t *object, const char *prefix, const struct id *seed)
{
    char id[ID_TEXT_MAX];
    id_text(prefix, seed, id);
    return json_object_set_new(object, "id", json_string(id)) == 0 &&
           json_object_set_new(object, "created_at", json_integer(clock_wall_ms())) == 0;
}

/* -- tenants -- */

static void on_tenant_put(void *ctx, enum error code, json_t *take_object, bool is_new)
{
    (void)is_new;
    if (code)
        fail_post(ctx, code, "tenant");
    else
        post_answer(ctx, 200, take_object, NULL);
}

static void tenant_create(struct post *post)
{
    enum error code = add_identity(post->object, "ten_", &post->seed)
                          ? keyring_put_tenant(post->call->reactor->redis, post->object, on_tenant_put, post)
                          : ERR_NO_MEMORY;
    if (code)
        fail_post(post, code, "tenant");
}

void route_tenant_create(struct api_call *call)
{
    static const char *const known[] = {"name", NULL};
    struct api_error error;
    struct str name;
    json_t *body = api_body(call);
    if (!body)
        return;
    if (!body_check(body, known, &error) || !body_text(body, "name", ROUTES_NAME_MAX, true, &name, &error)) {
        reject(call, body, &error);
        return;
    }
    json_t *object = json_pack("{s:n, s:o}", "id", "name", text_json(name));
    json_decref(body);
    if (object)
        post_begin(call, IDEMPOTENCY_DAY_MS, object, 0, tenant_create);
    else
        fail(call, ERR_NO_MEMORY);
}

static void on_tenants(void *ctx, enum error code, json_t *take_array)
{
    if (code)
        fail(ctx, code);
    else
        reply_page(ctx, take_array);
}

void route_tenants(struct api_call *call)
{
    static const char *const known[] = {"limit", "cursor", NULL};
    if (!api_query_check(call, known))
        return;
    enum error code = keyring_list_tenants(call->reactor->redis, on_tenants, call);
    if (code)
        fail(call, code);
}

/* -- keys -- */

static bool body_models(const json_t *body, json_t **ret, struct api_error *error)
{
    const json_t *models = json_object_get(body, "models");
    bool is_good = !models || json_is_null(models) || (json_is_array(models) && json_array_size(models) <= MODELS_MAX);
    for (size_t i = 0; is_good && i < json_array_size(models); i++) {
        size_t len = json_string_length(json_array_get(models, i));
        is_good = len >= 1 && len <= MODEL_NAME_MAX; /* 0 for what is no string */
    }
    if (!is_good) {
        api_error_bad_request(error, "models", "models must be a list of at most %d model names.", MODELS_MAX);
        return false;
    }
    *ret = json_is_array(models) ? json_deep_copy(models) : json_null();
    return true;
}

static bool body_budget(const json_t *body, int64_t *ret_budget, struct str *ret_period, struct api_error *error)
{
    int64_t budget = -1;
    struct str period;
    if (!body_amount(body, "budget_usd", &budget, error) ||
        !body_text(body, "budget_period", 16, false, &period, error))
        return false;
    if (period.ptr && !str_eq(period, STR("day")) && !str_eq(period, STR("month"))) {
        api_error_bad_request(error, "budget_period", "budget_period must be \"day\" or \"month\".");
        return false;
    }
    if (period.ptr && budget < 0) {
        api_error_bad_request(error, "budget_usd", "budget_period needs budget_usd.");
        return false;
    }
    *ret_budget = budget;
    *ret_period = budget >= 0 && !period.ptr ? STR("month") : period;
    return true;
}

/* The object to store, but for id, times and digest; NULL with *error set. */
static json_t *key_object(const json_t *body, struct api_error *error)
{
    static const char *const known[] = {"tenant",          "name",       "models",        "expires_at", "rpm",
                                        "max_concurrency", "budget_usd", "budget_period", NULL};
    struct str tenant, name, period;
    int64_t expires_at = 0, rpm = 0, max_concurrency = 0, budget;
    json_t *models;
    if (!body_check(body, known, error) || !body_text(body, "tenant", ID_TEXT_MAX - 1, true, &tenant, error) ||
        !body_text(body, "name", ROUTES_NAME_MAX, true, &name, error) ||
        !body_int(body, "expires_at", 1, EXPIRY_MAX_MS, &expires_at, error) ||
        !body_int(body, "rpm", 1, LIMIT_MAX, &rpm, error) ||
        !body_int(body, "max_concurrency", 1, LIMIT_MAX, &max_concurrency, error) ||
        !body_budget(body, &budget, &period, error) || !body_models(body, &models, error))
        return NULL;
    char budget_text[MONEY_TEXT_MAX];
    if (budget >= 0)
        money_text(budget, budget_text);
    json_t *object =
        json_pack("{s:n, s:o, s:o, s:o, s:o, s:o, s:o, s:s?, s:o}", "id", "tenant", text_json(tenant), "name",
                  text_json(name), "models", models, "expires_at", expires_at ? json_integer(expires_at) : json_null(),
                  "rpm", rpm ? json_integer(rpm) : json_null(), "max_concurrency",
                  max_concurrency ? json_integer(max_concurrency) : json_null(), "budget_usd",
                  budget >= 0 ? budget_text : NULL, "budget_period", text_json(period));
    if (!object)
        api_error_unavailable(error);
    return object;
}

static void on_key_put(void *ctx, enum error code, json_t *take_object, bool is_new)
{
    if (code == ERR_MISMATCH) /* made by this Idempotency-Key, and deleted since */
        fail_post(ctx, ERR_NOT_FOUND, "key");
    else if (code)
        fail_post(ctx, code, "tenant");
    else
        post_answer(ctx, 200, take_object, is_new ? "key" : NULL);
}

static void key_create(struct post *post)
{
    char digest[SHA256_HEX];
    crypto_secret("sk-", post->secret);
    crypto_sha256_hex(str_of(post->secret), digest);
    enum error code = add_identity(post->object, "key_", &post->seed) &&
                              json_object_set_new(post->object, "sha256", json_string(digest)) == 0
                          ? keyring_put_key(post->call->reactor->redis, post->object, on_key_put, post)
                          : ERR_NO_MEMORY;
    if (code)
        fail_post(post, code, "key");
}

void route_key_create(struct api_call *call)
{
    struct api_error error;
    json_t *body = api_body(call);
    if (!body)
        return;
    json_t *object = key_object(body, &error);
    if (!object) {
        reject(call, body, &error);
        return;
    }
    json_decref(body);
    post_begin(call, IDEMPOTENCY_DAY_MS, object, 0, key_create);
}

static void on_keys(void *ctx, enum error code, json_t *take_array)
{
    struct api_call *call = ctx;
    if (code) {
        fail(call, code);
        return;
    }
    for (size_t i = json_array_size(take_array); call->tenant[0] && i-- > 0;) {
        const char *tenant = json_string_value(json_object_get(json_array_get(take_array, i), "tenant"));
        if (!tenant || strcmp(tenant, call->tenant) != 0)
            json_array_remove(take_array, i);
    }
    reply_page(call, take_array);
}

static void list_keys(struct api_call *call)
{
    enum error code = keyring_list_keys(call->reactor->redis, on_keys, call);
    if (code)
        fail(call, code);
}

void route_keys(struct api_call *call)
{
    static const char *const known[] = {"tenant", "limit", "cursor", NULL};
    if (api_query_check(call, known))
        with_tenant(call, false, list_keys);
}

static void on_key_deleted(void *ctx, enum error code)
{
    struct api_error error;
    if (code == ERR_NOT_FOUND) {
        api_error_not_found(&error, "key");
        api_reply_error(ctx, &error);
    } else if (code) {
        fail(ctx, code);
    } else {
        api_reply_empty(ctx, 204);
    }
}

void route_key_delete(struct api_call *call)
{
    enum error code = keyring_delete_key(call->reactor->redis, call->params[0], on_key_deleted, call);
    if (code == ERR_BAD_INPUT) /* longer than any id */
        on_key_deleted(call, ERR_NOT_FOUND);
    else if (code)
        fail(call, code);
}

/* -- credits -- */

static void on_credited(void *ctx, enum error code, struct str json)
{
    struct post *post = ctx;
    if (code)
        fail_post(post, code, "tenant");
    else
        post_answer(post, 200, json_loadb(json.ptr, json.len, 0, NULL), NULL);
}

static void on_credit_tenant(void *ctx, enum error code)
{
    struct post *post = ctx;
    char transfer[ID_TEXT_MAX];
    id_text("xfr_", &post->seed, transfer);
    if (!code)
        code = ledger_credit(post->call->reactor->redis,
                             str_of(json_string_value(json_object_get(post->object, "tenant"))), post->amount_usd_nano,
                             str_of(transfer), on_credited, post);
    if (code)
        fail_post(post, code, "tenant");
}

static void credit_create(struct post *post)
{
    struct str tenant = str_of(json_string_value(json_object_get(post->object, "tenant")));
    enum error code = keyring_has_tenant(post->call->reactor->redis, tenant, on_credit_tenant, post);
    if (code)
        fail_post(post, code, "tenant");
}

void route_credit(struct api_call *call)
{
    static const char *const known[] = {"tenant", "amount_usd", NULL};
    struct api_error error;
    struct str tenant;
    int64_t amount = 0;
    json_t *body = api_body(call);
    if (!body)
        return;
    bool is_good = body_check(body, known, &error) &&
                   body_text(body, "tenant", ID_TEXT_MAX - 1, true, &tenant, &error) &&
                   body_amount(body, "amount_usd", &amount, &error);
    if (is_good && amount == 0) {
        api_error_bad_request(&error, "amount_usd", "amount_usd must be a string with an amount above 0.");
        is_good = false;
    }
    if (!is_good) {
        reject(call, body, &error);
        return;
    }
    post_begin(call, IDEMPOTENCY_MONEY_MS, body, amount, credit_create);
}
