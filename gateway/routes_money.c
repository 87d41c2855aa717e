/* Balance, usage, invoices and the ledger: the ledger's own JSON, asked for by the caller or the operator. */
#include "gateway/reactor.h"
#include "gateway/routes.h"
#include "pricing/ledger.h"

#include <string.h>

#define TIME_MAX_MS INT64_C(253402300800000) /* the year 10000 */

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

static void on_json(void *ctx, enum error code, struct str json)
{
    if (code)
        fail(ctx, code);
    else
        api_reply(ctx, 200, "application/json", json);
}

/* -- balance -- */

static void ask_balance(struct api_call *call)
{
    enum error code = ledger_balance(call->reactor->redis, str_of(call->tenant), on_json, call);
    if (code)
        fail(call, code);
}

void route_balance(struct api_call *call)
{
    static const char *const known[] = {"tenant", NULL};
    if (api_query_check(call, known))
        with_tenant(call, true, ask_balance);
}

/* -- usage -- */

static bool usage_query(struct api_call *call, int64_t *ret_from, int64_t *ret_to, enum usage_group *ret_group,
                        struct api_error *error)
{
    static const char *const groups[] = {[USAGE_BY_DAY] = "day",
                                         [USAGE_BY_MODEL] = "model",
                                         [USAGE_BY_WORKER] = "worker",
                                         [USAGE_BY_KEY] = "key",
                                         [USAGE_BY_NETWORK] = "network"};
    struct str name = api_query(call, "group_by");
    *ret_from = 0;
    *ret_to = INT64_MAX;
    *ret_group = USAGE_BY_DAY;
    if (!query_int(call, "from", 0, TIME_MAX_MS, ret_from, error) ||
        !query_int(call, "to", 0, TIME_MAX_MS, ret_to, error))
        return false;
    if (*ret_from > *ret_to) {
        api_error_bad_request(error, "from", "from must not be later than to.");
        return false;
    }
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        if (!name.ptr || str_eq(name, str_of(groups[i]))) {
            *ret_group = (enum usage_group)i;
            return true;
        }
    }
    api_error_bad_request(error, "group_by", "group_by must be day, model, worker, key or network.");
    return false;
}

static void ask_usage(struct api_call *call)
{
    struct api_error error;
    int64_t from, to;
    enum usage_group group;
    if (!usage_query(call, &from, &to, &group, &error)) {
        api_reply_error(call, &error);
        return;
    }
    enum error code = ledger_usage(call->reactor->redis, str_of(call->tenant), from, to, group, on_json, call);
    if (code)
        fail(call, code);
}

void route_usage(struct api_call *call)
{
    static const char *const known[] = {"from", "to", "group_by", "tenant", NULL};
    struct api_error error;
    int64_t from, to;
    enum usage_group group;
    if (!api_query_check(call, known))
        return;
    if (usage_query(call, &from, &to, &group, &error))
        with_tenant(call, true, ask_usage);
    else
        api_reply_error(call, &error);
}

/* -- invoices -- */

/* Does the Accept header name text/csv and not application/json? */
static bool accepts_csv(struct api_call *call)
{
    struct str rest = call->header(call, "accept"), item;
    bool csv = false, json = false;
    while ((item = str_next(&rest, ',')).ptr) {
        struct str type = str_trim(str_next(&item, ';'));
        csv |= str_eq_nocase(type, STR("text/csv"));
        json |= str_eq_nocase(type, STR("application/json"));
    }
    return csv && !json;
}

static void on_csv(void *ctx, enum error code, struct str text)
{
    struct api_error error;
    if (code == ERR_NOT_FOUND || code == ERR_BAD_INPUT) {
        api_error_not_found(&error, "month");
        api_reply_error(ctx, &error);
    } else if (code) {
        fail(ctx, code);
    } else {
        api_reply(ctx, 200, "text/csv; charset=utf-8", text);
    }
}

static void on_invoice(void *ctx, enum error code, struct str json)
{
    if (code)
        on_csv(ctx, code, json);
    else
        api_reply(ctx, 200, "application/json", json);
}

static void ask_invoice(struct api_call *call)
{
    bool as_csv = call->ctx != NULL;
    enum error code = ledger_invoice(call->reactor->redis, str_of(call->tenant), call->params[0], as_csv,
                                     as_csv ? on_csv : on_invoice, call);
    if (code)
        on_csv(call, code, STR(""));
}

void route_invoice(struct api_call *call)
{
    static const char *const known[] = {"format", "tenant", NULL};
    if (!api_query_check(call, known))
        return;
    struct str format = api_query(call, "format");
    if (format.ptr && !str_eq(format, STR("csv")) && !str_eq(format, STR("json"))) {
        struct api_error error;
        api_error_bad_request(&error, "format", "format must be csv or json.");
        api_reply_error(call, &error);
        return;
    }
    /* Read now: the headers may be gone when the tenant is known. */
    bool as_csv = format.ptr ? str_eq(format, STR("csv")) : accepts_csv(call);
    call->ctx = as_csv ? call : NULL;
    with_tenant(call, true, ask_invoice);
}

/* -- the ledger -- */

static void on_ledger(void *ctx, enum error code, struct str json)
{
    if (code == ERR_BAD_INPUT) {
        struct api_error error;
        api_error_bad_request(&error, "cursor", "cursor must be the \"next\" of the answer before.");
        api_reply_error(ctx, &error);
        return;
    }
    on_json(ctx, code, json);
}

static void ask_ledger(struct api_call *call)
{
    struct api_error error;
    int64_t limit = ROUTES_PAGE_DEFAULT;
    if (!query_int(call, "limit", 1, ROUTES_PAGE_MAX, &limit, &error)) {
        api_reply_error(call, &error);
        return;
    }
    struct str tenant = call->tenant[0] ? str_of(call->tenant) : (struct str){NULL, 0};
    enum error code =
        ledger_list(call->reactor->redis, tenant, api_query(call, "cursor"), (size_t)limit, on_ledger, call);
    if (code)
        on_ledger(call, code, STR(""));
}

void route_ledger(struct api_call *call)
{
    static const char *const known[] = {"tenant", "limit", "cursor", NULL};
    if (api_query_check(call, known))
        with_tenant(call, false, ask_ledger);
}
