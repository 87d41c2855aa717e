/* Follows Redis: the feed of changes, read by a blocking command on a connection of its own, and full reads at start,
 * after each gap and now and then. */
#include "gateway/control_priv.h"

#include "core/clock.h"
#include "core/log.h"

#include <stdlib.h>

#define FEED "sl:feed"
#define BLOCK_MS "10000"
#define FEED_TIMEOUT_NS (30 * NS_PER_S)
#define RETRY_NS (250 * NS_PER_MS)
#define ENTRIES_MOST "500"
#define UNKNOWN_LOADS_MAX 64

static void feed_ask(struct control *control);

static void on_gone(void *ctx, struct registry_entry *entry)
{
    struct control *control = ctx;
    log_info(&(struct log_ctx){.worker = entry->record.id}, "worker is no longer registered");
    control_drop(control, entry->worker);
    control_models_forget(control, entry);
    if (!entry->record.lease[0])
        control_market_changed(control, true);
}

/* -- one worker -------------------------------------------------------------------------------------------------- */

struct load {
    struct control *control;
    char id[ID_TEXT_MAX];
    bool is_unknown;
};

static void take_record(struct control *control, const struct worker_record *record)
{
    enum registry_change change;
    struct registry_entry *entry = NULL;
    if (registry_put(control->registry, record, &change, &entry) != ERR_NONE) {
        log_error(&(struct log_ctx){.worker = record->id}, "no memory for a worker");
        return;
    }
    if (change != REGISTRY_SAME && !record->lease[0])
        control_market_changed(control, change == REGISTRY_NOW);
    control_consider(control, entry, ADMISSION_TICK);
}

static void on_loaded(void *ctx, enum error error, const struct worker_record *record)
{
    struct load *load = ctx;
    struct control *control = load->control;
    if (load->is_unknown)
        control->feed.unknown_loads--;
    if (error == ERR_NONE)
        take_record(control, record);
    struct registry_entry *entry = registry_find(control->registry, str_of(load->id));
    if (entry && error == ERR_NOT_FOUND) {
        registry_remove(control->registry, entry, on_gone, control);
    } else if (entry && !load->is_unknown) {
        bool again = entry->load_again;
        entry->is_loading = entry->load_again = false;
        if (again)
            control_load_worker(control, str_of(load->id));
    }
    free(load);
}

void control_load_worker(struct control *control, struct str id)
{
    struct registry_entry *entry = registry_find(control->registry, id);
    if (entry && entry->is_loading) {
        entry->load_again = true;
        return;
    }
    if (!entry && control->feed.unknown_loads >= UNKNOWN_LOADS_MAX)
        return; /* the next full read brings it */
    struct load *load = calloc(1, sizeof(*load));
    if (!load || !str_copy(load->id, sizeof(load->id), id)) {
        free(load);
        return;
    }
    load->control = control;
    load->is_unknown = !entry;
    if (worker_store_get(control->redis, str_of(load->id), on_loaded, load) != ERR_NONE) {
        free(load);
        return;
    }
    if (entry)
        entry->is_loading = true;
    else
        control->feed.unknown_loads++;
}

/* -- one that has just registered here --------------------------------------------------------------------------- */

struct learning {
    struct control *control;
    struct reactor *reactor;
    char id[ID_TEXT_MAX];
    struct task task;
    void (*done)(void *ctx);
    void *ctx;
};

static void learning_end(void *arg)
{
    struct learning *learning = arg;
    learning->done(learning->ctx);
    free(learning);
}

static void learning_task(struct task *task)
{
    learning_end(container_of(task, struct learning, task));
}

static void on_learned(void *ctx, enum error error, const struct worker_record *record)
{
    struct learning *learning = ctx;
    if (error == ERR_NONE)
        take_record(learning->control, record);
    if (loop_post(learning->reactor->loop, learning_end, learning) != ERR_NONE)
        log_error(NULL, "no memory to answer a registration");
}

static void learning_start(void *arg)
{
    struct learning *learning = arg;
    enum error error = worker_store_get(learning->control->redis, str_of(learning->id), on_learned, learning);
    if (error)
        on_learned(learning, error, NULL);
}

void control_worker_registered(struct control *control, struct reactor *reactor, const char *id,
                               void (*done)(void *ctx), void *ctx)
{
    struct learning *learning = calloc(1, sizeof(*learning));
    if (!learning) {
        done(ctx);
        return;
    }
    *learning = (struct learning){
        .control = control, .reactor = reactor, .task = {.run = learning_task}, .done = done, .ctx = ctx};
    if (!str_copy(learning->id, sizeof(learning->id), str_of(id)) ||
        loop_post(control->loop, learning_start, learning) != ERR_NONE)
        loop_defer(reactor->loop, &learning->task);
}

/* -- all of them ------------------------------------------------------------------------------------------------- */

static void on_record(void *ctx, enum error error, const struct worker_record *record)
{
    struct control *control = ctx;
    if (record) {
        take_record(control, record);
        return;
    }
    control->feed.is_reading_all = false;
    control->feed.has_failed = error != ERR_NONE;
    if (error == ERR_NONE) {
        registry_pass_end(control->registry, on_gone, control);
        control_models_read(control);
    } else if (!control->is_shut) {
        log_warn(NULL, "cannot read the workers: %s", error_text(error));
    }
    if (control->feed.read_all_again && !control->is_shut)
        control_read_all(control);
}

void control_read_all(struct control *control)
{
    struct control_feed *feed = &control->feed;
    feed->read_all_again = feed->is_reading_all;
    if (feed->is_reading_all)
        return;
    registry_pass_begin(control->registry);
    feed->is_reading_all = worker_store_all(control->redis, on_record, control) == ERR_NONE;
    feed->has_failed = !feed->is_reading_all;
    if (control->keyring_store)
        keyring_store_changed(control->keyring_store, STR("all"), STR(""));
}

/* -- the feed ---------------------------------------------------------------------------------------------------- */

static struct str text_of(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING ? (struct str){reply->str, (size_t)reply->len} : (struct str){NULL, 0};
}

static const redisReply *item(const redisReply *reply, size_t i)
{
    static const redisReply nothing = {.type = REDIS_REPLY_NIL};
    return reply->type == REDIS_REPLY_ARRAY && i < reply->elements ? reply->element[i] : &nothing;
}

static void take_change(struct control *control, const redisReply *fields)
{
    struct str kind = {NULL, 0}, id = {NULL, 0};
    for (size_t i = 0; fields->type == REDIS_REPLY_ARRAY && i + 1 < fields->elements; i += 2) {
        if (str_eq(text_of(item(fields, i)), STR("kind")))
            kind = text_of(item(fields, i + 1));
        else if (str_eq(text_of(item(fields, i)), STR("id")))
            id = text_of(item(fields, i + 1));
    }
    if (!id.ptr)
        return;
    if (str_eq(kind, STR("worker")))
        control_load_worker(control, id);
    else if (str_eq(kind, STR("key")) || str_eq(kind, STR("tenant")))
        keyring_store_changed(control->keyring_store, kind, id);
    else if (str_eq(kind, STR("gateway")))
        control_sign(control);
}

/* XREAD: [[stream, [[id, [field, value, ...]], ...]]]; XREVRANGE: [[id, fields]]. */
static void take_entries(struct control *control, const redisReply *entries, bool are_changes)
{
    for (size_t i = 0; entries->type == REDIS_REPLY_ARRAY && i < entries->elements; i++) {
        const redisReply *entry = item(entries, i);
        struct str id = text_of(item(entry, 0));
        if (!id.ptr || !str_copy(control->feed.last_id, sizeof(control->feed.last_id), id))
            continue;
        if (are_changes)
            take_change(control, item(entry, 1));
    }
}

/* After a gap: from the start again, a little later. */
static void feed_retry(struct control *control)
{
    control->feed.last_id[0] = '\0';
    if (!control->is_shut)
        timer_set(control->loop, &control->feed.retry, loop_now(control->loop) + RETRY_NS);
}

static void on_changes(void *ctx, const redisReply *reply, enum error error)
{
    struct control *control = ctx;
    control->feed.is_asking = false;
    if (control->is_shut)
        return;
    if (error || reply->type == REDIS_REPLY_ERROR) {
        feed_retry(control);
        return;
    }
    take_entries(control, item(item(reply, 0), 1), true);
    feed_ask(control);
}

/* Changes after this entry come by the feed, those before it by the full read. */
static void on_last_id(void *ctx, const redisReply *reply, enum error error)
{
    struct control *control = ctx;
    control->feed.is_asking = false;
    if (control->is_shut)
        return;
    if (error || reply->type != REDIS_REPLY_ARRAY) {
        feed_retry(control);
        return;
    }
    (void)str_copy(control->feed.last_id, sizeof(control->feed.last_id), STR("0-0"));
    take_entries(control, reply, false);
    control_read_all(control);
    feed_ask(control);
}

static void feed_ask(struct control *control)
{
    struct control_feed *feed = &control->feed;
    struct str last[] = {STR("XREVRANGE"), STR(FEED), STR("+"), STR("-"), STR("COUNT"), STR("1")};
    struct str next[] = {STR("XREAD"),      STR("BLOCK"),   STR(BLOCK_MS), STR("COUNT"),
                         STR(ENTRIES_MOST), STR("STREAMS"), STR(FEED),     str_of(feed->last_id)};
    enum error error = feed->last_id[0] ? redis_command(feed->redis, on_changes, control, 8, next)
                                        : redis_command(feed->redis, on_last_id, control, 6, last);
    feed->is_asking = error == ERR_NONE;
    if (error)
        feed_retry(control);
}

static void on_retry(struct timer *timer)
{
    struct control *control = container_of(timer, struct control, feed.retry);
    if (!control->feed.is_asking)
        feed_ask(control);
}

static void on_state(void *ctx, bool connected)
{
    struct control *control = ctx;
    atomic_store(&control->is_connected, connected);
}

enum error control_feed_open(struct control *control, const char *redis_url)
{
    const struct redis_options options = {
        .url = redis_url, .timeout_ns = FEED_TIMEOUT_NS, .queue_max = 4, .on_state = on_state, .ctx = control};
    control->feed.retry.on_due = on_retry;
    enum error error = redis_open(control->loop, &options, &control->feed.redis);
    if (error == ERR_NONE)
        feed_ask(control);
    return error;
}

void control_feed_close(struct control *control)
{
    timer_clear(control->loop, &control->feed.retry);
    control->feed.redis = redis_free(control->feed.redis);
}
