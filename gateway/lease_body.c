#include "gateway/lease_body.h"

#include "gateway/gpu_known.h"
#include "gateway/prefer.h"
#include "gateway/routes.h"
#include "scheduler/dispatch.h"

#include <string.h>

#define ARG_MAX_BYTES 8192
#define ENV_NAME_MAX 128
#define IMAGE_MAX 512
#define RESERVED_ENV "SLUICE_"

/* -- an image's reference ---------------------------------------------------------------------------------------- */

static bool is_lower(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_word(char c)
{
    return is_lower(c) || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Lower case and digits, with '.', one or two '_', or any '-' between them. */
static bool is_path_part(struct str part)
{
    size_t i = 0;
    if (part.len == 0 || !is_lower(part.ptr[0]) || !is_lower(part.ptr[part.len - 1]))
        return false;
    while (i < part.len) {
        size_t run = 0;
        char c = part.ptr[i];
        if (is_lower(c)) {
            i++;
            continue;
        }
        if (c != '.' && c != '_' && c != '-')
            return false;
        while (i < part.len && part.ptr[i] == c) {
            run++;
            i++;
        }
        if (!is_lower(part.ptr[i]) || (c == '.' && run > 1) || (c == '_' && run > 2))
            return false;
    }
    return true;
}

static bool is_host(struct str part)
{
    struct str name = part, port;
    int64_t number;
    name = str_next(&part, ':');
    port = part;
    if (name.len == 0 || (port.ptr && (!str_to_i64(port, &number) || number < 1 || number > 65535)))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!is_word(name.ptr[i]) && name.ptr[i] != '.' && name.ptr[i] != '-')
            return false;
    return is_word(name.ptr[0]) && is_word(name.ptr[name.len - 1]);
}

static bool is_tag(struct str tag)
{
    if (tag.len < 1 || tag.len > 128 || !is_word(tag.ptr[0]))
        return false;
    for (size_t i = 1; i < tag.len; i++)
        if (!is_word(tag.ptr[i]) && tag.ptr[i] != '.' && tag.ptr[i] != '-')
            return false;
    return true;
}

static bool is_digest(struct str digest)
{
    struct str algorithm = str_next(&digest, ':');
    if (algorithm.len < 2 || algorithm.len > 32 || digest.len < 32 || digest.len > 128)
        return false;
    for (size_t i = 0; i < algorithm.len; i++)
        if (!is_lower(algorithm.ptr[i]))
            return false;
    for (size_t i = 0; i < digest.len; i++)
        if (!(digest.ptr[i] >= '0' && digest.ptr[i] <= '9') && !(digest.ptr[i] >= 'a' && digest.ptr[i] <= 'f'))
            return false;
    return true;
}

bool image_reference_is_good(struct str text)
{
    struct str rest = text, name = str_next(&rest, '@'), last, tag;
    bool is_first = true;
    if (text.len == 0 || text.len > IMAGE_MAX || (rest.ptr && !is_digest(rest)))
        return false;
    /* The first part is a host if it looks like one and is not the only one. */
    for (;;) {
        struct str part = str_next(&name, '/');
        if (!name.ptr) {
            last = part;
            break;
        }
        bool may_be_host = is_first && (memchr(part.ptr, '.', part.len) || memchr(part.ptr, ':', part.len) ||
                                        str_eq(part, STR("localhost")));
        if (!(may_be_host ? is_host(part) : is_path_part(part)))
            return false;
        is_first = false;
    }
    tag = last;
    last = str_next(&tag, ':');
    return is_path_part(last) && (!tag.ptr || is_tag(tag));
}

/* -- fields ------------------------------------------------------------------------------------------------------ */

static const json_t *given(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return json_is_null(value) ? NULL : value;
}

static bool has_nul(struct str text)
{
    return memchr(text.ptr, '\0', text.len) != NULL;
}

static bool take_gpu(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    char near[GPU_NEAR_TEXT_MAX];
    if (!body_text(body, "gpu", ROUTES_NAME_MAX, true, &ret->gpu, error))
        return false;
    enum error code = gpu_known(ret->gpu, near);
    if (code == ERR_NOT_FOUND)
        api_error_bad_request(error, "gpu", "gpu: no GPU is known as \"%.64s\"; near are %s.", ret->gpu.ptr, near);
    else if (code)
        api_error_from(error, code);
    return !code;
}

static bool take_image(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    if (!body_text(body, "image", IMAGE_MAX, true, &ret->image, error))
        return false;
    if (image_reference_is_good(ret->image))
        return true;
    api_error_bad_request(error, "image",
                          "image must be a reference such as ghcr.io/acme/trainer:1.2: lower case, without a scheme.");
    return false;
}

static bool take_command(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    const json_t *list = given(body, "command");
    if (!list)
        return true;
    bool is_good = json_is_array(list) && json_array_size(list) >= 1 && json_array_size(list) <= LEASE_ARGS_MAX;
    for (size_t i = 0; is_good && i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        struct str arg = {json_string_value(item), json_string_length(item)};
        is_good = arg.ptr && arg.len <= ARG_MAX_BYTES && !has_nul(arg) && (i > 0 || arg.len > 0);
        ret->argv[i] = arg;
        ret->argc = i + 1;
    }
    if (!is_good)
        api_error_bad_request(error, "command",
                              "command must be a list of 1 to %d strings of at most %d bytes, the program first; a "
                              "shell's line is [\"sh\", \"-c\", \"...\"].",
                              LEASE_ARGS_MAX, ARG_MAX_BYTES);
    return is_good;
}

static bool is_env_name(struct str name)
{
    if (name.len < 1 || name.len > ENV_NAME_MAX || (name.ptr[0] >= '0' && name.ptr[0] <= '9'))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (!is_word(name.ptr[i]))
            return false;
    return true;
}

static bool take_env(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    json_t *env = (json_t *)(uintptr_t)given(body, "env"), *item;
    const char *name;
    if (!env)
        return true;
    if (!json_is_object(env) || json_object_size(env) > LEASE_ENV_MAX) {
        api_error_bad_request(error, "env", "env must be an object of at most %d names and strings.", LEASE_ENV_MAX);
        return false;
    }
    json_object_foreach(env, name, item)
    {
        struct str value = {json_string_value(item), json_string_length(item)};
        if (!is_env_name(str_of(name)) || str_starts(str_of(name), STR(RESERVED_ENV))) {
            api_error_bad_request(
                error, "env",
                "env: \"%.64s\" is no name for a variable: letters, digits and _, no digit first, not "
                "beginning with " RESERVED_ENV ".",
                name);
            return false;
        }
        if (!value.ptr || value.len > ARG_MAX_BYTES || has_nul(value)) {
            api_error_bad_request(error, "env", "env: the value of %.64s must be a string of at most %d bytes.", name,
                                  ARG_MAX_BYTES);
            return false;
        }
        ret->env[ret->env_count++] = (struct supply_pair){str_of(name), value};
    }
    return true;
}

static bool take_ports(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    const json_t *list = given(body, "ports");
    if (!list)
        return true;
    bool is_good = json_is_array(list) && json_array_size(list) <= SUPPLY_PORTS_MAX;
    for (size_t i = 0; is_good && i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t port = json_integer_value(item);
        is_good = json_is_integer(item) && port >= 1 && port <= 65535;
        for (size_t j = 0; is_good && j < i; j++)
            is_good = ret->ports[j] != port;
        if (is_good)
            ret->ports[ret->port_count++] = (uint16_t)port;
    }
    if (!is_good)
        api_error_bad_request(error, "ports", "ports must be a list of at most %d different numbers from 1 to 65535.",
                              SUPPLY_PORTS_MAX);
    return is_good;
}

/* Absent: *ret stays. */
static bool take_flag(const json_t *body, const char *name, bool *ret, struct api_error *error)
{
    const json_t *value = given(body, name);
    if (value && !json_is_boolean(value)) {
        api_error_bad_request(error, name, "%s must be true or false.", name);
        return false;
    }
    if (value)
        *ret = json_is_true(value);
    return true;
}

/* Which offers fit. */
static bool take_wishes(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    struct weights weights;
    bool may_be_interrupted = false;
    if (!body_text(body, "region", ROUTES_NAME_MAX, false, &ret->region, error) ||
        !body_text(body, "network", ROUTES_NAME_MAX, false, &ret->network, error) ||
        !body_text(body, "offer", 128, false, &ret->offer, error) ||
        !body_text(body, "quote", ID_TEXT_MAX - 1, false, &ret->quote, error) ||
        !body_text(body, "prefer", 128, false, &ret->prefer, error) ||
        !body_text(body, "require", 512, false, &ret->require, error) ||
        !take_flag(body, "interruptible", &may_be_interrupted, error) ||
        !body_amount(body, "max_price_per_gpu_hour_usd", &ret->price_max_usd_nano, error) ||
        !body_int(body, "price_tolerance_bps", 0, LEASE_TOLERANCE_MOST_BPS, &ret->tolerance_bps, error))
        return false;
    ret->interruptible = may_be_interrupted;
    if (ret->prefer.ptr && !weights_parse(ret->prefer, &weights))
        api_error_bad_request(error, "prefer",
                              "prefer must be price, latency, reputation, balanced, or weights such as "
                              "\"price=0.6,latency=0.3,reputation=0.1\".");
    else if (ret->require.ptr && !prefer_is_require(ret->require))
        api_error_bad_request(error, "require", "require must be a list of tags such as gdpr,hipaa.");
    else
        return true;
    return false;
}

/* No less than lease_request_copy counts. */
static size_t text_bytes(const struct lease_request *request)
{
    const struct str texts[] = {request->gpu,     request->image,  request->region, request->network,
                                request->require, request->prefer, request->quote,  request->offer};
    size_t bytes = 1;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        bytes += texts[i].len + 1;
    for (size_t i = 0; i < request->argc; i++)
        bytes += request->argv[i].len + 1;
    for (size_t i = 0; i < request->env_count; i++)
        bytes += request->env[i].key.len + request->env[i].value.len + 2;
    return bytes;
}

bool lease_body_parse(const json_t *body, struct lease_request *ret, struct api_error *error)
{
    static const char *const known[] = {"gpu",
                                        "count",
                                        "image",
                                        "command",
                                        "env",
                                        "ports",
                                        "max_price_per_gpu_hour_usd",
                                        "region",
                                        "network",
                                        "require",
                                        "prefer",
                                        "offer",
                                        "interruptible",
                                        "max_duration_s",
                                        "quote",
                                        "deadline_s",
                                        "retry_until_up",
                                        "recover",
                                        "disk_gib",
                                        "price_tolerance_bps",
                                        NULL};
    struct lease_request request = {
        .price_max_usd_nano = -1, .price_quoted_usd_nano = -1, .recovers = true, .disk_gib = LEASE_DISK_GIB};
    int64_t count = 1;
    if (!body_check(body, known, error) || !take_gpu(body, &request, error) ||
        !body_int(body, "count", 1, LEASE_COUNT_MOST, &count, error) || !take_image(body, &request, error) ||
        !take_command(body, &request, error) || !take_env(body, &request, error) ||
        !take_ports(body, &request, error) || !take_wishes(body, &request, error) ||
        !body_int(body, "max_duration_s", 1, LEASE_DURATION_MOST_S, &request.max_duration_s, error) ||
        !body_int(body, "deadline_s", 1, LEASE_DEADLINE_MOST_S, &request.deadline_s, error) ||
        !body_int(body, "disk_gib", 1, LEASE_DISK_MOST_GIB, &request.disk_gib, error) ||
        !take_flag(body, "retry_until_up", &request.retry_until_up, error) ||
        !take_flag(body, "recover", &request.recovers, error))
        return false;
    request.gpus = (uint32_t)count;
    if (text_bytes(&request) > LEASE_TEXT_MAX) {
        api_error_bad_request(error, "command",
                              "command, env and the other texts of a lease must not have more than %zu bytes together.",
                              LEASE_TEXT_MAX);
        return false;
    }
    *ret = request;
    return true;
}
