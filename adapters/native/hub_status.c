#include "adapters/native/hub_status.h"

#include <jansson.h>
#include <string.h>

static bool int_of(const json_t *object, const char *name, json_int_t least, json_int_t most, int *ret)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most)
        return false;
    *ret = (int)json_integer_value(value);
    return true;
}

static struct str text_of(const json_t *value)
{
    return json_is_string(value) ? (struct str){json_string_value(value), json_string_length(value)}
                                 : (struct str){NULL, 0};
}

static bool models_of(const json_t *list, struct str models[static STATUS_MODELS_MAX], size_t *ret_count)
{
    if (!json_is_array(list) || json_array_size(list) > STATUS_MODELS_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        models[i] = text_of(json_array_get(list, i));
        if (models[i].len == 0 || models[i].len > STATUS_MODEL_NAME_MAX)
            return false;
        for (size_t at = 0; at < models[i].len; at++)
            if ((unsigned char)models[i].ptr[at] < ' ' || models[i].ptr[at] == 0x7f)
                return false;
    }
    *ret_count = json_array_size(list);
    return true;
}

/* "lease": {"state": ..., "exit_code": ...}, which only the worker of a lease tells. */
static bool lease_of(const json_t *lease, struct worker_status *status)
{
    static const char *const names[] = {[COMMAND_WAITING] = "waiting",
                                        [COMMAND_RUNNING] = "running",
                                        [COMMAND_STOPPING] = "stopping",
                                        [COMMAND_EXITED] = "exited"};
    struct str state = text_of(json_object_get(lease, "state"));
    if (!lease)
        return true;
    for (unsigned i = COMMAND_WAITING; i <= COMMAND_EXITED; i++)
        if (str_eq(state, str_of(names[i])))
            status->command = (enum worker_command)i;
    return status->command != COMMAND_NONE &&
           (status->command != COMMAND_EXITED || int_of(lease, "exit_code", 0, 255, &status->exit_code));
}

enum error status_parse(struct str line, status_fn *found, void *ctx)
{
    struct worker_status status = {0};
    struct str models[STATUS_MODELS_MAX];
    json_t *root = json_loadb(line.ptr, line.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *draining = json_object_get(root, "draining");
    struct str upstream = text_of(json_object_get(root, "upstream"));
    bool good = json_is_object(root) && int_of(root, "in_flight", 0, 10 * STATUS_SLOTS_MAX, &status.in_flight) &&
                int_of(root, "slots", 1, STATUS_SLOTS_MAX, &status.slots) && json_is_boolean(draining) &&
                (str_eq(upstream, STR("ok")) || str_eq(upstream, STR("down"))) &&
                models_of(json_object_get(root, "models"), models, &status.model_count) &&
                lease_of(json_object_get(root, "lease"), &status);
    if (good) {
        status.draining = json_is_true(draining);
        status.upstream_ok = upstream.len == 2;
        status.models = models;
        found(ctx, &status);
    }
    json_decref(root);
    return good ? ERR_NONE : ERR_PROTOCOL;
}

enum error status_feed(struct buf *line, struct str bytes, unsigned *left, status_fn *found, void *ctx)
{
    if (line->limit == 0)
        buf_init(line, STATUS_LINE_MAX);
    while (bytes.len > 0) {
        const char *end = memchr(bytes.ptr, '\n', bytes.len);
        struct str part = {bytes.ptr, end ? (size_t)(end - bytes.ptr) : bytes.len};
        if (!buf_append_str(line, part))
            return ERR_PROTOCOL;
        if (!end)
            return ERR_NONE;
        bytes = (struct str){end + 1, bytes.len - part.len - 1};
        if (*left == 0)
            return ERR_BUSY;
        --*left;
        enum error error = status_parse(buf_str(line), found, ctx);
        if (error != ERR_NONE)
            return error;
        buf_clear(line);
    }
    return ERR_NONE;
}
