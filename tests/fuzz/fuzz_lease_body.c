/* What callers ask for of a lease: a body that was taken keeps to every limit, fits the lease's own memory, and brings
 * nothing that a shell or a YAML file could take for more than an image's name. The input is a body, or where it is no
 * JSON, the values of one with '|' between them. */
#include "tests/fuzz/fuzz.h"

#include "gateway/gpu_known.h"
#include "gateway/lease_body.h"

#include <string.h>

static const char *const fields[] = {"image",          "command", "env",
                                     "ports",          "region",  "count",
                                     "prefer",         "require", "max_price_per_gpu_hour_usd",
                                     "max_duration_s", "offer",   "recover"};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* A value as it stands, or as a text. */
static json_t *value_of(struct str text)
{
    json_t *value = json_loadb(text.len ? text.ptr : "", text.len, JSON_DECODE_ANY, NULL);
    return value ? value : json_stringn(text.len ? text.ptr : "", text.len);
}

static json_t *body_of(struct str text)
{
    json_t *body = json_loadb(text.len ? text.ptr : "", text.len, JSON_REJECT_DUPLICATES, NULL);
    if (body)
        return body;
    body = json_pack("{s:s, s:s}", "gpu", "h100", "image", "debian:12");
    for (size_t i = 0; i < FIELDS && text.ptr; i++) {
        struct str value = str_next(&text, '|');
        if (value.len)
            json_object_set_new(body, fields[i], value_of(value));
    }
    return body;
}

static bool is_plain(struct str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && !strchr("._-/:@", c))
            return false;
    }
    return text.len > 0 && text.ptr[0] != '-';
}

static void check_request(const struct lease_request *request)
{
    struct lease *lease = lease_new();
    CHECK(lease && lease_request_copy(lease, request));
    CHECK(is_plain(request->image) && str_eq(lease->request.image, request->image));
    CHECK(request->gpus >= 1 && request->gpus <= LEASE_COUNT_MOST);
    CHECK(request->argc <= LEASE_ARGS_MAX && request->env_count <= LEASE_ENV_MAX);
    CHECK(request->port_count <= SUPPLY_PORTS_MAX && request->price_max_usd_nano >= -1);
    for (size_t i = 0; i < request->argc; i++)
        CHECK(!memchr(request->argv[i].ptr, '\0', request->argv[i].len));
    for (size_t i = 0; i < request->env_count; i++)
        CHECK(request->env[i].key.len && is_plain(request->env[i].key) &&
              !memchr(request->env[i].value.ptr, '\0', request->env[i].value.len));
    for (size_t i = 0; i < request->port_count; i++)
        CHECK(request->ports[i] > 0);
    lease_free(lease);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    struct lease_request request;
    struct api_error error = {.status = 0};
    char near[GPU_NEAR_TEXT_MAX];
    json_t *body = body_of(text);
    if (lease_body_parse(body, &request, &error))
        check_request(&request);
    else
        CHECK(error.status == 400 && memchr(error.message, '\0', sizeof(error.message)) && error.message[0]);
    json_decref(body);
    if (image_reference_is_good(text))
        CHECK(is_plain(text));
    if (size % 16 == 0 && gpu_known(text, near) == ERR_NOT_FOUND) /* slow: looks at every name */
        CHECK(memchr(near, '\0', sizeof(near)) && near[0]);
    return 0;
}
