#include "gateway/keyring_store.h"
#include "gateway/reactor.h"
#include "gateway/routes.h"

#include "core/money.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* -- the body and the query as a whole -- */

json_t *api_body(struct api_call *call)
{
    json_error_t where;
    json_t *body = json_loadb(call->body.ptr ? call->body.ptr : "", call->body.len, JSON_REJECT_DUPLICATES, &where);
    struct api_error error;
    if (!body)
        api_error_bad_request(&error, NULL, "The body is not valid JSON (line %d, column %d).", where.line,
                              where.column);
    else if (!json_is_object(body))
        api_error_bad_request(&error, NULL, "The body must be a JSON object.");
    else
        return body;
    json_decref(body);
    api_reply_error(call, &error);
    return NULL;
}

bool api_query_check(struct api_call *call, const char *const *known)
{
    struct api_error error;
    if (api_query_parse(call, known, &error))
        return true;
    api_reply_error(call, &error);
    return false;
}

/* -- fields -- */

bool body_check(const json_t *body, const char *const *known, struct api_error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)body, name, value)
    {
        const char *const *have = known;
        while (*have && strcmp(*have, name) != 0)
            have++;
        if (!*have) {
            api_error_bad_request(error, name, "Unknown field.");
            return false;
        }
    }
    return true;
}

/* Characters of valid UTF-8; SIZE_MAX when a control character is among them. */
static size_t count_characters(struct str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text.ptr[i + 1] < 0xa0))
            return SIZE_MAX;
        count += (c & 0xc0) != 0x80;
    }
    return count;
}

bool body_text(const json_t *body, const char *name, size_t max, bool is_required, struct str *ret,
               struct api_error *error)
{
    const json_t *value = json_object_get(body, name);
    if (!is_required && (!value || json_is_null(value))) {
        *ret = (struct str){NULL, 0};
        return true;
    }
    struct str text = {json_string_value(value), json_string_length(value)};
    size_t count = text.ptr ? count_characters(text) : 0;
    if (count == 0 || count > max) {
        api_error_bad_request(error, name, "%s must be a string of 1 to %zu characters, none of them control.", name,
                              max);
        return false;
    }
    *ret = text;
    return true;
}

bool body_int(const json_t *body, const char *name, int64_t min, int64_t max, int64_t *ret, struct api_error *error)
{
    const json_t *value = json_object_get(body, name);
    if (!value || json_is_null(value))
        return true;
    if (!json_is_integer(value) || json_integer_value(value) < min || json_integer_value(value) > max) {
        api_error_bad_request(error, name, "%s must be a whole number from %" PRId64 " to %" PRId64 ".", name, min,
                              max);
        return false;
    }
    *ret = json_integer_value(value);
    return true;
}

bool body_amount(const json_t *body, const char *name, int64_t *ret, struct api_error *error)
{
    const json_t *value = json_object_get(body, name);
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value) ||
        !money_parse((struct str){json_string_value(value), json_string_length(value)}, ret)) {
        api_error_bad_request(error, name,
                              "%s must be an amount in US dollars as a string, such as \"12.50\": at most 10 digits "
                              "before the point and 9 after it, and not above 9223372036.854775807.",
                              name);
        return false;
    }
    return true;
}

bool query_int(struct api_call *call, const char *name, int64_t min, int64_t max, int64_t *ret, struct api_error *error)
{
    struct str text = api_query(call, name);
    int64_t value;
    if (!text.ptr)
        return true;
    if (!str_to_i64(text, &value) || value < min || value > max) {
        api_error_bad_request(error, name, "%s must be a whole number from %" PRId64 " to %" PRId64 ".", name, min,
                              max);
        return false;
    }
    *ret = value;
    return true;
}

bool query_flag(struct api_call *call, const char *name, int *ret, struct api_error *error)
{
    struct str text = api_query(call, name);
    if (!text.ptr)
        return true;
    if (str_eq(text, STR("1")) || str_eq(text, STR("true"))) {
        *ret = 1;
    } else if (str_eq(text, STR("0")) || str_eq(text, STR("false"))) {
        *ret = 0;
    } else {
        api_error_bad_request(error, name, "%s must be true or false.", name);
        return false;
    }
    return true;
}

/* -- whose money -- */

static void fail(struct api_call *call, enum error code)
{
    struct api_error error;
    api_error_from(&error, code);
    api_reply_error(call, &error);
}

struct tenant_ask {
    struct api_call *call;
    void (*next)(struct api_call *call);
};

static void on_tenant(void *ctx, enum error code)
{
    struct tenant_ask ask = *(struct tenant_ask *)ctx;
    free(ctx);
    if (code == ERR_NOT_FOUND) {
        struct api_error error;
        api_error_set(&error, 404, "invalid_request_error", "not_found", "tenant", "No such tenant.");
        api_reply_error(ask.call, &error);
    } else if (code) {
        fail(ask.call, code);
    } else {
        ask.next(ask.call);
    }
}

void with_tenant(struct api_call *call, bool is_required, void (*next)(struct api_call *call))
{
    struct str tenant = api_query(call, "tenant");
    struct api_error error;
    if (!call->is_admin) {
        if (!tenant.ptr || str_eq(tenant, str_of(call->tenant))) {
            next(call);
            return;
        }
        api_error_set(&error, 403, "invalid_request_error", "insufficient_permissions", "tenant",
                      "A caller's key sees its own tenant only.");
        api_reply_error(call, &error);
        return;
    }
    if (!tenant.ptr && !is_required) {
        next(call);
        return;
    }
    if (tenant.len == 0) {
        api_error_bad_request(&error, "tenant", "With the admin key, name the tenant: ?tenant=ten_...");
        api_reply_error(call, &error);
        return;
    }
    if (!str_copy(call->tenant, sizeof(call->tenant), tenant)) {
        api_error_set(&error, 404, "invalid_request_error", "not_found", "tenant", "No such tenant.");
        api_reply_error(call, &error);
        return;
    }
    struct tenant_ask *ask = malloc(sizeof(*ask));
    if (ask)
        *ask = (struct tenant_ask){call, next};
    enum error code = ask ? keyring_has_tenant(call->reactor->redis, tenant, on_tenant, ask) : ERR_NO_MEMORY;
    if (code) {
        free(ask);
        fail(call, code);
    }
}

/* -- lists -- */

static const char *row_id(const json_t *row)
{
    const char *id = json_string_value(json_object_get(row, "id"));
    return id ? id : "";
}

static int by_id(const void *a, const void *b)
{
    return strcmp(row_id(*(json_t *const *)a), row_id(*(json_t *const *)b));
}

/* The page of rows (sorted) after the cursor; NULL: out of memory. */
static json_t *page_of(json_t **rows, size_t count, struct str cursor, size_t limit)
{
    json_t *data = json_array();
    const char *last = NULL;
    bool has_more = false;
    for (size_t i = 0; i < count && data; i++) {
        struct str id = str_of(row_id(rows[i]));
        size_t len = id.len < cursor.len ? id.len : cursor.len;
        int order = cursor.ptr ? memcmp(id.ptr, cursor.ptr, len) : 1;
        if (order < 0 || (order == 0 && id.len <= cursor.len))
            continue;
        if (json_array_size(data) == limit) {
            has_more = true;
            break;
        }
        json_array_append(data, rows[i]);
        last = id.ptr;
    }
    return json_pack("{s:s, s:o, s:s?}", "object", "list", "data", data, "next", has_more ? last : NULL);
}

static bool is_id(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return text.len > 0 && text.len < ID_TEXT_MAX;
}

void reply_page(struct api_call *call, json_t *take_rows)
{
    int64_t limit = ROUTES_PAGE_DEFAULT;
    struct api_error error;
    struct str cursor = api_query(call, "cursor");
    bool is_good = query_int(call, "limit", 1, ROUTES_PAGE_MAX, &limit, &error);
    if (is_good && cursor.ptr && !is_id(cursor)) {
        api_error_bad_request(&error, "cursor", "cursor must be the \"next\" of the answer before.");
        is_good = false;
    }
    if (!is_good) {
        json_decref(take_rows);
        api_reply_error(call, &error);
        return;
    }
    size_t count = json_array_size(take_rows);
    json_t **rows = calloc(count ? count : 1, sizeof(json_t *)), *page = NULL;
    for (size_t i = 0; rows && i < count; i++)
        rows[i] = json_array_get(take_rows, i);
    if (rows) {
        qsort(rows, count, sizeof(json_t *), by_id);
        page = page_of(rows, count, cursor, (size_t)limit);
    }
    free(rows);
    json_decref(take_rows);
    api_reply_json(call, 200, page);
}
