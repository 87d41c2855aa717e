#include "gateway/api.h"

#include <string.h>

/* -- routes -- */

static struct str next_segment(struct str *rest)
{
    if (rest->len == 0 || rest->ptr[0] != '/')
        return (struct str){NULL, 0};
    const char *from = rest->ptr + 1;
    const char *slash = memchr(from, '/', rest->len - 1);
    size_t len = slash ? (size_t)(slash - from) : rest->len - 1;
    *rest = (struct str){from + len, rest->len - 1 - len};
    return (struct str){from, len};
}

static bool pattern_matches(struct str pattern, struct str path, struct str ret_params[API_PARAMS_MAX])
{
    struct str params[API_PARAMS_MAX] = {{NULL, 0}};
    size_t count = 0;
    for (;;) {
        struct str want = next_segment(&pattern), have = next_segment(&path);
        if (!want.ptr || !have.ptr) {
            if (want.ptr || have.ptr || path.len > 0)
                return false;
            memcpy(ret_params, params, sizeof(params));
            return true;
        }
        if (want.len > 0 && want.ptr[0] == '{') {
            if (have.len == 0 || count == API_PARAMS_MAX)
                return false;
            params[count++] = have;
        } else if (!str_eq(want, have)) {
            return false;
        }
    }
}

static bool list_method(struct buf *allow, const char *method)
{
    return (allow->len == 0 || buf_append(allow, ", ", 2)) && buf_append_str(allow, str_of(method)) &&
           (strcmp(method, "GET") != 0 || buf_append_str(allow, STR(", HEAD")));
}

enum api_match api_match_in(const struct api_route *routes, struct str method, struct str path,
                            const struct api_route **ret, struct str ret_params[API_PARAMS_MAX], struct buf *ret_allow)
{
    struct str want = str_eq(method, STR("HEAD")) ? STR("GET") : method;
    bool is_known = false;
    for (const struct api_route *route = routes; route->method; route++) {
        struct str params[API_PARAMS_MAX];
        if (!pattern_matches(str_of(route->pattern), path, params))
            continue;
        if (str_eq(want, str_of(route->method))) {
            *ret = route;
            memcpy(ret_params, params, sizeof(params));
            return API_FOUND;
        }
        is_known = true;
    }
    if (!is_known)
        return API_NO_PATH;
    size_t before = ret_allow->len;
    for (const struct api_route *route = routes; route->method; route++) {
        struct str params[API_PARAMS_MAX];
        if (pattern_matches(str_of(route->pattern), path, params) && !list_method(ret_allow, route->method)) {
            ret_allow->len = before;
            break;
        }
    }
    return API_NO_METHOD;
}

/* -- percent-decoding into the call's memory -- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes and NUL-terminates; false on a bad escape, a control character or when the call's memory is full. */
static bool decode(struct api_call *call, struct str s, bool is_form, struct str *ret)
{
    char *to = call->text + call->text_len;
    size_t room = sizeof(call->text) - call->text_len, len = 0;
    for (size_t i = 0; i < s.len; i++) {
        int c = (unsigned char)s.ptr[i];
        if (c == '+' && is_form) {
            c = ' ';
        } else if (c == '%') {
            if (s.len - i < 3)
                return false;
            int a = hex_digit(s.ptr[i + 1]), b = hex_digit(s.ptr[i + 2]);
            if (a < 0 || b < 0)
                return false;
            c = a << 4 | b;
            i += 2;
        }
        if (c < 0x20 || c == 0x7f || len + 1 >= room)
            return false;
        to[len++] = (char)c;
    }
    if (len >= room)
        return false;
    to[len] = '\0';
    call->text_len += len + 1;
    *ret = (struct str){to, len};
    return true;
}

bool api_params_set(struct api_call *call, const struct str captured[API_PARAMS_MAX])
{
    for (size_t i = 0; i < API_PARAMS_MAX; i++) {
        if (captured[i].ptr && (captured[i].len > 128 || !decode(call, captured[i], false, &call->params[i])))
            return false;
    }
    return true;
}

/* -- the query -- */

static bool query_split(struct api_call *call)
{
    struct str rest = call->query;
    if (rest.len > API_QUERY_BYTES_MAX)
        return false;
    while (rest.len > 0) {
        const char *amp = memchr(rest.ptr, '&', rest.len);
        struct str field = {rest.ptr, amp ? (size_t)(amp - rest.ptr) : rest.len};
        size_t skip = field.len + (amp ? 1 : 0);
        rest = (struct str){rest.ptr + skip, rest.len - skip};
        if (field.len == 0)
            continue;
        const char *equals = memchr(field.ptr, '=', field.len);
        struct str name = {field.ptr, equals ? (size_t)(equals - field.ptr) : field.len};
        struct str value = equals ? (struct str){equals + 1, field.len - name.len - 1} : STR("");
        size_t at = call->field_count;
        if (at == API_QUERY_FIELDS_MAX || !decode(call, name, true, &call->fields[at].name) ||
            !decode(call, value, true, &call->fields[at].value))
            return false;
        call->field_count++;
    }
    return true;
}

static bool is_listed(const char *const *known, struct str name)
{
    for (; *known; known++) {
        if (str_eq(name, str_of(*known)))
            return true;
    }
    return false;
}

bool api_query_parse(struct api_call *call, const char *const *known, struct api_error *ret_error)
{
    if (call->query_state == 0)
        call->query_state = query_split(call) ? 1 : -1;
    if (call->query_state < 0) {
        api_error_bad_request(ret_error, NULL,
                              "The query is malformed, longer than %d bytes or has more than %d fields.",
                              API_QUERY_BYTES_MAX, API_QUERY_FIELDS_MAX);
        return false;
    }
    for (size_t i = 0; i < call->field_count; i++) {
        struct str name = call->fields[i].name;
        if (!is_listed(known, name)) {
            api_error_bad_request(ret_error, name.ptr, "Unknown query field.");
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (str_eq(name, call->fields[j].name)) {
                api_error_bad_request(ret_error, name.ptr, "The query field is there twice.");
                return false;
            }
        }
    }
    return true;
}

struct str api_query(struct api_call *call, const char *name)
{
    for (size_t i = 0; i < call->field_count; i++) {
        if (str_eq(call->fields[i].name, str_of(name)))
            return call->fields[i].value;
    }
    return (struct str){NULL, 0};
}
