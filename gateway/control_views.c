/* What handlers on reactors ask of the control thread: the question goes there, and on through the reactors where they
 * have to add something, and comes back to the asking reactor's loop. */
#include "gateway/control_priv.h"
#include "gateway/networks.h"

#include "core/clock.h"
#include "core/httpd.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

/* -- the list of workers ----------------------------------------------------------------------------------------- */

struct list_ask {
    struct control *control;
    struct reactor *reactor;
    struct task task; /* answers without the control thread, when that cannot be reached */
    char supplier[sizeof(((struct worker_record *)NULL)->supplier)];
    bool is_for_all;
    json_t *list;
    void (*done)(void *ctx, json_t *take_list);
    void *ctx;
};

static void list_answer(void *arg)
{
    struct list_ask ask = *(struct list_ask *)arg;
    free(arg);
    ask.done(ask.ctx, ask.list);
}

static void list_task(struct task *task)
{
    list_answer(container_of(task, struct list_ask, task));
}

static json_t *make_list(const struct list_ask *ask)
{
    const struct registry *registry = ask->control->registry;
    json_t *list = json_array();
    int64_t now_ms = clock_wall_ms();
    for (size_t i = 0; list && i < registry_count(registry); i++) {
        const struct registry_entry *entry = registry_at(registry, i);
        if (!ask->is_for_all && !str_eq(str_of(entry->record.supplier), str_of(ask->supplier)))
            continue;
        if (json_array_append_new(list, registry_row(entry, now_ms)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static void on_list_ask(void *arg)
{
    struct list_ask *ask = arg;
    ask->list = make_list(ask);
    if (loop_post(ask->reactor->loop, list_answer, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for the workers");
}

void control_workers_json(struct control *control, struct reactor *reactor, struct str supplier,
                          void (*done)(void *ctx, json_t *take_list), void *ctx)
{
    struct list_ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        done(ctx, NULL);
        return;
    }
    *ask = (struct list_ask){.control = control,
                             .reactor = reactor,
                             .task = {.run = list_task},
                             .is_for_all = supplier.ptr == NULL,
                             .done = done,
                             .ctx = ctx};
    /* A supplier's name too long to be stored has no workers. */
    bool is_possible =
        ask->is_for_all || (supplier.len > 0 && str_copy(ask->supplier, sizeof(ask->supplier), supplier));
    if (!is_possible)
        ask->list = json_array();
    if (!is_possible || loop_post(control->loop, on_list_ask, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}

/* -- numbers ----------------------------------------------------------------------------------------------------- */

struct extra_ask {
    struct control *control;
    struct reactor *reactor;
    struct task task;
    size_t next; /* the reactor whose numbers come next */
    struct metrics_extra extra;
    void (*done)(void *ctx, const struct metrics_extra *extra);
    void *ctx;
};

#define LAGS_MAX (sizeof(((struct metrics_extra *)NULL)->loop_lag_ns) / sizeof(int64_t))

static void extra_answer(void *arg)
{
    struct extra_ask *ask = arg;
    ask->done(ask->ctx, &ask->extra);
    free(ask);
}

static void extra_task(struct task *task)
{
    extra_answer(container_of(task, struct extra_ask, task));
}

/* On each reactor in turn. */
static void on_extra_reactor(void *arg);

static void extra_go_on(struct extra_ask *ask)
{
    const struct gateway *gateway = ask->control->gateway;
    bool is_last = ask->next == gateway->reactor_count;
    struct reactor *to = is_last ? ask->reactor : gateway->reactors[ask->next];
    if (loop_post(to->loop, is_last ? extra_answer : on_extra_reactor, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for the numbers");
}

static void on_extra_reactor(void *arg)
{
    struct extra_ask *ask = arg;
    struct reactor *reactor = ask->control->gateway->reactors[ask->next++];
    int64_t connections = reactor->httpd ? (int64_t)httpd_connections(reactor->httpd) : 0;
    if (reactor->index < LAGS_MAX)
        ask->extra.loop_lag_ns[reactor->index] = loop_lag_ns(reactor->loop);
    metrics_gauge_add(reactor->metrics, METRIC_CONNECTIONS,
                      connections - metrics_gauge(reactor->metrics, METRIC_CONNECTIONS));
    ask->extra.journal_pending += (int64_t)journal_pending(reactor->journal);
    extra_go_on(ask);
}

static void add_credit(void *ctx, struct credit *credit)
{
    int64_t *held = ctx;
    *held += credit_left(credit);
}

static void on_extra_ask(void *arg)
{
    struct extra_ask *ask = arg;
    struct control *control = ask->control;
    struct metrics_extra *extra = &ask->extra;
    size_t reactors = control->gateway->reactor_count;
    for (size_t i = 0; i < registry_count(control->registry); i++)
        extra->workers_by_state[registry_at(control->registry, i)->record.admission.state]++;
    const struct chain_pool_stats pool = chain_pool_stats(control->chain_pool);
    memcpy(extra->proofs, control->proofs, sizeof(extra->proofs));
    extra->proof_cpu_ns = control->proof_cpu_ns;
    extra->prepare_cpu_ns = pool.cpu_ns;
    extra->prepared = pool.ready;
    extra->redis_connected = atomic_load(&control->is_connected);
    extra->reactor_count = reactors < LAGS_MAX ? reactors : LAGS_MAX;
    keyring_store_each_credit(control->keyring_store, add_credit, &extra->credit_held_usd_nano);
    networks_extra(control->networks, extra);
    extra_go_on(ask);
}

void control_extra(struct control *control, struct reactor *reactor,
                   void (*done)(void *ctx, const struct metrics_extra *extra), void *ctx)
{
    static const struct metrics_extra nothing;
    struct extra_ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        done(ctx, &nothing);
        return;
    }
    *ask = (struct extra_ask){
        .control = control, .reactor = reactor, .task = {.run = extra_task}, .done = done, .ctx = ctx};
    if (loop_post(control->loop, on_extra_ask, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}

/* -- a proof now ------------------------------------------------------------------------------------------------- */

struct prove_ask {
    struct control *control;
    struct reactor *reactor;
    struct task task;
    char id[ID_TEXT_MAX];
    enum error error;
    const char *state;
    void (*done)(void *ctx, enum error error, const char *state);
    void *ctx;
};

static void prove_answer(void *arg)
{
    struct prove_ask ask = *(struct prove_ask *)arg;
    free(arg);
    ask.done(ask.ctx, ask.error, ask.state);
}

static void prove_task(struct task *task)
{
    prove_answer(container_of(task, struct prove_ask, task));
}

static enum error prove_now(struct control *control, const char *id, const char **ret_state)
{
    struct registry_entry *entry = registry_find(control->registry, str_of(id));
    if (!entry)
        return ERR_NOT_FOUND;
    *ret_state = "being proven already";
    if (entry->probe)
        return ERR_NONE;
    *ret_state = entry->links == 0 ? "not linked here" : admission_state_name(entry->record.admission.state);
    if (entry->links == 0 || !admission_is_ready(&entry->record.admission))
        return ERR_BUSY;
    control_consider(control, entry, ADMISSION_WANTED);
    *ret_state = "asked";
    return entry->probe ? ERR_NONE : ERR_BUSY;
}

static void on_prove_ask(void *arg)
{
    struct prove_ask *ask = arg;
    ask->error = prove_now(ask->control, ask->id, &ask->state);
    if (loop_post(ask->reactor->loop, prove_answer, ask) != ERR_NONE)
        log_error(NULL, "no memory to answer for a proof");
}

void control_prove(struct control *control, struct reactor *reactor, struct str id,
                   void (*done)(void *ctx, enum error error, const char *state), void *ctx)
{
    struct prove_ask *ask = calloc(1, sizeof(*ask));
    if (!ask) {
        done(ctx, ERR_NO_MEMORY, "");
        return;
    }
    *ask = (struct prove_ask){
        .control = control, .reactor = reactor, .task = {.run = prove_task}, .state = "", .done = done, .ctx = ctx};
    ask->error = str_copy(ask->id, sizeof(ask->id), id) ? ERR_NO_MEMORY : ERR_NOT_FOUND;
    if (ask->error == ERR_NOT_FOUND || loop_post(control->loop, on_prove_ask, ask) != ERR_NONE)
        loop_defer(reactor->loop, &ask->task);
}
