/* Whatever a query or path holds: what was decoded is free of control characters and lies in the call's own memory, and
 * an error that quotes it is a JSON object. */
#include "tests/fuzz/fuzz.h"

#include "gateway/api.h"

#include <jansson.h>
#include <string.h>

static void nothing(struct api_call *call)
{
    (void)call;
}

static const struct api_route routes[] = {{"GET", "/a/{one}/b/{two}", API_OPEN, nothing},
                                          {"DELETE", "/a/{one}", API_OPEN, nothing},
                                          {"GET", "/", API_OPEN, nothing},
                                          {NULL, NULL, API_OPEN, NULL}};

static void check_text(const struct api_call *call, struct str text)
{
    if (!text.ptr)
        return;
    CHECK(text.ptr >= call->text && text.ptr + text.len < call->text + sizeof(call->text));
    CHECK(text.ptr[text.len] == '\0' && strlen(text.ptr) == text.len);
    for (size_t i = 0; i < text.len; i++)
        CHECK((unsigned char)text.ptr[i] >= 0x20 && text.ptr[i] != 0x7f);
}

static void check_error(const struct api_error *error)
{
    struct buf text;
    buf_init(&text, 0);
    CHECK(error->status == 400 && api_error_json(error, &text));
    json_t *json = json_loadb(text.ptr, text.len, JSON_REJECT_DUPLICATES, NULL);
    CHECK(json_is_object(json_object_get(json, "error")));
    json_decref(json);
    buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const known[] = {"gpu", "limit", "cursor", NULL};
    struct str text = {(const char *)data, size}, captured[API_PARAMS_MAX] = {{NULL, 0}};
    struct api_call *call = calloc(1, sizeof(*call));
    const struct api_route *route = NULL;
    struct api_error error;
    struct buf allow;
    buf_init(&allow, 0);
    enum api_match match = api_match_in(routes, STR("GET"), text, &route, captured, &allow);
    CHECK((match == API_FOUND) == (route != NULL) && (match == API_NO_METHOD) == (allow.len > 0));
    buf_free(&allow);
    if (api_params_set(call, captured)) {
        for (size_t i = 0; i < API_PARAMS_MAX; i++)
            check_text(call, call->params[i]);
    }
    call->query = text;
    bool is_good = api_query_parse(call, known, &error);
    if (!is_good)
        check_error(&error);
    for (size_t i = 0; i < call->field_count; i++) {
        check_text(call, call->fields[i].name);
        check_text(call, call->fields[i].value);
    }
    for (size_t i = 0; is_good && known[i]; i++)
        check_text(call, api_query(call, known[i]));
    free(call);
    return 0;
}
