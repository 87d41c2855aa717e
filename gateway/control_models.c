/* What workers serve, kept in Redis: a gateway that starts again knows the models of workers that will dial it in a
 * moment, and lets calls for them wait instead of denying that there is such a model. A hint only: nothing breaks where
 * it is missing or old. */
#include "gateway/control_priv.h"

#include "core/log.h"

#include <stdlib.h>

#define MODELS_KEY "sl:models"
#define START_GRACE_NS (5 * INT64_C(1000000000)) /* on top of REGISTRY_UNLINKED_NS */

static void tell_failed(enum error error)
{
    if (error)
        log_debug(NULL, "models of a worker not stored: %s", error_text(error));
}

static void store(struct control *control, struct registry_entry *entry)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < entry->model_count; i++)
        json_array_append_new(list, json_stringn(entry->models[i].ptr, entry->models[i].len));
    char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    struct str args[] = {STR("HSET"), STR(MODELS_KEY), str_of(entry->record.id), str_of(text)};
    if (text)
        tell_failed(redis_command(control->redis, NULL, NULL, 4, args));
    free(text);
    json_decref(list);
}

void control_models_forget(struct control *control, struct registry_entry *entry)
{
    struct str args[] = {STR("HDEL"), STR(MODELS_KEY), str_of(entry->record.id)};
    tell_failed(redis_command(control->redis, NULL, NULL, 3, args));
    entry->is_models_stored = false;
}

void control_models_sync(struct control *control, struct registry_entry *entry)
{
    bool serves = registry_serves(entry, control->settings->probes.admission, loop_now(control->loop));
    if (entry->record.lease[0])
        return;
    if (entry->is_models_stored && (entry->draining || (entry->links == 0 && !serves))) {
        control_models_forget(control, entry);
    } else if (!entry->is_models_stored && entry->links > 0 && entry->is_models_known && !entry->draining) {
        entry->is_models_stored = true;
        store(control, entry);
    }
}

/* -- reading ----------------------------------------------------------------------------------------------------- */

/* What links tell is newer than what is stored. */
static void take_models(struct control *control, struct str id, struct str text)
{
    struct registry_entry *entry = registry_find(control->registry, id);
    struct str models[WORKER_MODELS_MAX];
    bool changed;
    json_t *list = entry && entry->links == 0 ? json_loadb(text.ptr, text.len, 0, NULL) : NULL;
    size_t count = json_array_size(list);
    bool is_good = json_is_array(list) && count <= WORKER_MODELS_MAX;
    for (size_t i = 0; is_good && i < count; i++) {
        models[i] =
            (struct str){json_string_value(json_array_get(list, i)), json_string_length(json_array_get(list, i))};
        is_good = models[i].ptr != NULL;
    }
    if (is_good && registry_models(entry, models, count, &changed) == ERR_NONE && !control->has_workers)
        entry->unlinked_ns = loop_now(control->loop) + START_GRACE_NS;
    json_decref(list);
}

static void on_models(void *ctx, const redisReply *reply, enum error error)
{
    struct control *control = ctx;
    for (size_t i = 0; !error && reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2) {
        const redisReply *id = reply->element[i], *text = reply->element[i + 1];
        if (id->type == REDIS_REPLY_STRING && text->type == REDIS_REPLY_STRING)
            take_models(control, (struct str){id->str, (size_t)id->len}, (struct str){text->str, (size_t)text->len});
    }
    if (!control->has_workers && !control->is_shut) {
        control->has_workers = true;
        control_market_changed(control, true);
    }
}

void control_models_read(struct control *control)
{
    struct str args[] = {STR("HGETALL"), STR(MODELS_KEY)};
    enum error error = redis_command(control->redis, on_models, control, 2, args);
    if (error)
        log_warn(NULL, "cannot read what workers serve: %s", error_text(error));
}
