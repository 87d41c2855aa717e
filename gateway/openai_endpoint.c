#include "gateway/openai_call.h"

#include <string.h>

static const struct openai_endpoint endpoints[] = {
    {"/v1/chat/completions", OPENAI_CHAT, false},
    {"/v1/completions", OPENAI_COMPLETIONS, false},
    {"/v1/embeddings", OPENAI_EMBEDDINGS, false},
    {"/v1/responses", OPENAI_RESPONSES, false},
    {"/v1/audio/speech", OPENAI_RESPONSES, true},
    {"/v1/audio/transcriptions", OPENAI_RESPONSES, true},
    {"/v1/audio/translations", OPENAI_RESPONSES, true},
    {"/v1/images/generations", OPENAI_RESPONSES, true},
    {"/v1/images/edits", OPENAI_RESPONSES, true},
    {"/v1/images/variations", OPENAI_RESPONSES, true},
    {"/v1/rerank", OPENAI_RESPONSES, true},
};

const struct openai_endpoint *openai_endpoint(struct str path)
{
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(*endpoints); i++)
        if (str_eq(path, str_of(endpoints[i].path)))
            return &endpoints[i];
    return NULL;
}

bool openai_takes(const struct httpd_call *http)
{
    return str_eq(http->method, STR("POST")) && openai_endpoint(http->path);
}

enum api_match openai_match(const struct httpd_call *http, struct buf *ret_allow)
{
    static const struct str models = {"/v1/models", 10};
    const char *methods = NULL;
    if (openai_endpoint(http->path))
        methods = "POST";
    else if (str_eq(http->path, models) || (str_starts(http->path, STR("/v1/models/")) && http->path.len > 11))
        methods = "GET, HEAD";
    if (!methods)
        return API_NO_PATH;
    if (methods[0] == 'G' && (str_eq(http->method, STR("GET")) || str_eq(http->method, STR("HEAD"))))
        return API_FOUND;
    return buf_append_str(ret_allow, str_of(methods)) ? API_NO_METHOD : API_NO_PATH;
}

/* -- multipart/form-data (RFC 7578): only as much as finds the field `model` -- */

static struct str find(struct str in, struct str what)
{
    const char *at = in.len ? memmem(in.ptr, in.len, what.ptr, what.len) : NULL;
    return at ? (struct str){at, in.len - (size_t)(at - in.ptr)} : (struct str){NULL, 0};
}

static struct str skip(struct str s, size_t len)
{
    return (struct str){s.ptr + len, s.len - len};
}

/* "--" and the boundary, in ret. */
static bool boundary_of(struct str content_type, char ret[static 80], size_t *ret_len)
{
    struct str at = find(content_type, STR("boundary="));
    if (!str_starts(content_type, STR("multipart/form-data")) || !at.ptr)
        return false;
    struct str value = skip(at, 9);
    struct str field = str_next(&value, ';');
    field = str_trim(field);
    if (field.len >= 2 && field.ptr[0] == '"' && field.ptr[field.len - 1] == '"')
        field = (struct str){field.ptr + 1, field.len - 2};
    if (field.len == 0 || field.len > 70)
        return false;
    memcpy(ret, "--", 2);
    memcpy(ret + 2, field.ptr, field.len);
    *ret_len = field.len + 2;
    return true;
}

struct str multipart_model(struct str content_type, struct str body)
{
    char boundary[80];
    size_t boundary_len;
    if (!boundary_of(content_type, boundary, &boundary_len))
        return (struct str){NULL, 0};
    struct str mark = {boundary, boundary_len};
    for (struct str part = find(body, mark); part.ptr; part = find(part, mark)) {
        part = skip(part, mark.len);
        struct str content = find(part, STR("\r\n\r\n"));
        if (!content.ptr)
            break;
        struct str head = {part.ptr, (size_t)(content.ptr - part.ptr)};
        if (!find(head, STR("name=\"model\"")).ptr)
            continue;
        content = skip(content, 4);
        struct str end = find(content, STR("\r\n--"));
        if (!end.ptr)
            break;
        return (struct str){content.ptr, (size_t)(end.ptr - content.ptr)};
    }
    return (struct str){NULL, 0};
}

bool multipart_set_model(struct str content_type, struct buf *body, struct str model)
{
    if (!buf_reserve(body, model.len))
        return false;
    struct str old = multipart_model(content_type, buf_str(body));
    if (!old.ptr)
        return false;
    size_t at = (size_t)(old.ptr - body->ptr);
    memmove(body->ptr + at + model.len, body->ptr + at + old.len, body->len - at - old.len);
    memcpy(body->ptr + at, model.ptr, model.len);
    body->len = body->len - old.len + model.len;
    return true;
}
