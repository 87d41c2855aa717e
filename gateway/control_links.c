/* Between the control thread and the reactors: links and status from them, the list of gateways to them. */
#include "gateway/control_priv.h"

#include "core/log.h"

#include <stdlib.h>
#include <string.h>

/* -- from reactors ----------------------------------------------------------------------------------------------- */

/* What this reactor told last of the worker; 0 where nothing. NULL: out of memory, so all is news. Reactor's thread. */
static uint64_t *told_of(struct control *control, unsigned reactor, const struct worker *worker)
{
    struct control_told *told = &control->told[reactor];
    if (worker->index >= told->count) {
        size_t count = told->count * 2 > 64 ? told->count * 2 : 64;
        count = count > worker->index ? count : (size_t)worker->index + 1;
        uint64_t *digests = realloc(told->digests, count * sizeof(*digests));
        if (!digests)
            return NULL;
        memset(digests + told->count, 0, (count - told->count) * sizeof(*digests));
        told->digests = digests;
        told->count = count;
    }
    return &told->digests[worker->index];
}

struct link_news {
    struct control *control;
    struct worker *worker; /* a reference */
    unsigned reactor;
    bool is_up;
};

static void on_link_news(void *arg)
{
    struct link_news *news = arg;
    struct control *control = news->control;
    struct registry_entry *entry = registry_find(control->registry, str_of(news->worker->id));
    if (entry && entry->worker == news->worker) {
        bool has_turned = registry_link(control->registry, entry, news->reactor, news->is_up, loop_now(control->loop));
        if (has_turned)
            log_info(&(struct log_ctx){.worker = entry->record.id}, news->is_up ? "linked" : "its last link is gone");
        control_market_check(control, entry);
        if (news->is_up)
            control_consider(control, entry, ADMISSION_LINKED);
    }
    worker_unref(news->worker);
    free(news);
}

void control_link_changed(struct control *control, unsigned reactor, struct worker *worker, bool is_up)
{
    struct link_news *news = malloc(sizeof(*news));
    uint64_t *told = is_up ? told_of(control, reactor, worker) : NULL;
    if (told)
        *told = 0;
    if (news) {
        *news = (struct link_news){control, worker_ref(worker), reactor, is_up};
        if (loop_post(control->loop, on_link_news, news) == ERR_NONE)
            return;
        worker_unref(worker);
        free(news);
    }
    log_error(&(struct log_ctx){.worker = worker->id}, "no memory to tell of a link");
}

struct status_news {
    struct control *control;
    struct worker *worker; /* a reference */
    bool draining;
    enum worker_command command;
    int exit_code;
    size_t model_count;
    struct str models[]; /* and their texts */
};

static void on_status_news(void *arg)
{
    struct status_news *news = arg;
    struct control *control = news->control;
    struct registry_entry *entry = registry_find(control->registry, str_of(news->worker->id));
    bool has_changed = false;
    if (entry && entry->worker == news->worker) {
        if (registry_models(entry, news->models, news->model_count, &has_changed) != ERR_NONE)
            log_error(&(struct log_ctx){.worker = entry->record.id}, "no memory for the list of models");
        bool waits = news->command == COMMAND_WAITING && entry->command != COMMAND_WAITING;
        entry->draining = news->draining;
        entry->command = news->command;
        entry->exit_code = news->exit_code;
        if (has_changed && !entry->record.lease[0])
            control_market_changed(control, true);
        control_market_check(control, entry);
        if (waits) /* only now is it known that no challenge disturbs its tenant */
            control_consider(control, entry, ADMISSION_LINKED);
    }
    worker_unref(news->worker);
    free(news);
}

static uint64_t digest_of(const struct worker_status *status)
{
    uint64_t digest = str_hash(STR("status"), (uint64_t)status->draining | (uint64_t)status->command << 1 |
                                                  (uint64_t)status->exit_code << 8);
    for (size_t i = 0; i < status->model_count; i++)
        digest = str_hash(status->models[i], digest);
    return digest ? digest : 1;
}

void control_status(struct control *control, unsigned reactor, struct worker *worker,
                    const struct worker_status *status)
{
    /* Each status line comes here, once a second a link; all but changes end here. */
    uint64_t digest = digest_of(status), *told = told_of(control, reactor, worker);
    if (told && *told == digest)
        return;
    size_t bytes = sizeof(struct status_news) + status->model_count * sizeof(struct str);
    for (size_t i = 0; i < status->model_count; i++)
        bytes += status->models[i].len;
    struct status_news *news = malloc(bytes);
    if (!news)
        return; /* the next line tells it again */
    *news = (struct status_news){.control = control,
                                 .worker = worker_ref(worker),
                                 .draining = status->draining,
                                 .command = status->command,
                                 .exit_code = status->exit_code,
                                 .model_count = status->model_count};
    char *text = (char *)(news->models + status->model_count);
    for (size_t i = 0; i < status->model_count; i++) {
        memcpy(text, status->models[i].ptr, status->models[i].len);
        news->models[i] = (struct str){text, status->models[i].len};
        text += status->models[i].len;
    }
    if (loop_post(control->loop, on_status_news, news) != ERR_NONE) {
        worker_unref(worker);
        free(news);
    } else if (told) {
        *told = digest;
    }
}

/* -- to reactors ------------------------------------------------------------------------------------------------- */

struct drop {
    struct hub_reactor *hub;
    struct worker *worker; /* a reference */
};

static void on_drop(void *arg)
{
    struct drop *drop = arg;
    hub_drop(drop->hub, drop->worker);
    worker_unref(drop->worker);
    free(drop);
}

void control_drop(struct control *control, struct worker *worker)
{
    for (size_t i = 0; i < control->gateway->reactor_count; i++) {
        struct reactor *reactor = control->gateway->reactors[i];
        struct drop *drop = malloc(sizeof(*drop));
        if (!drop)
            return; /* its next link is refused at least */
        *drop = (struct drop){reactor->hub, worker_ref(worker)};
        if (loop_post(reactor->loop, on_drop, drop) != ERR_NONE) {
            worker_unref(worker);
            free(drop);
        }
    }
}

struct list_news {
    struct hub_reactor *hub;
    size_t len;
    char json[];
};

static void on_list_news(void *arg)
{
    struct list_news *news = arg;
    hub_set_gateways(news->hub, (struct str){news->json, news->len});
    free(news);
}

bool control_tell_gateways(struct control *control, struct str json)
{
    for (size_t i = 0; i < control->gateway->reactor_count; i++) {
        struct reactor *reactor = control->gateway->reactors[i];
        struct list_news *news = malloc(sizeof(*news) + json.len);
        if (!news)
            return false;
        news->hub = reactor->hub;
        news->len = json.len;
        memcpy(news->json, json.ptr, json.len);
        if (loop_post(reactor->loop, on_list_news, news) != ERR_NONE) {
            free(news);
            return false;
        }
    }
    return true;
}

/* -- the listener's question ------------------------------------------------------------------------------------- */

struct worker *control_find(void *ctx, struct str worker_id, uint8_t ret_secret_sha256[SHA256_BYTES])
{
    struct control *control = ctx;
    struct registry_entry *entry = registry_find(control->registry, worker_id);
    struct id id;
    if (!entry) {
        /* It may have registered with another gateway a moment ago; it comes again. */
        if (id_parse(WORKER_ID_PREFIX, worker_id, &id))
            control_load_worker(control, worker_id);
        return NULL;
    }
    if (!crypto_unhex(str_of(entry->record.secret_sha256), ret_secret_sha256, SHA256_BYTES))
        return NULL;
    return worker_ref(entry->worker);
}
