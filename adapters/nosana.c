/* Nosana: deployments on markets, paid with the credits of an API key. A deployment's name is its tag.
 *
 * Create is two requests: /deployments/create makes a DRAFT, which costs nothing, /start runs it. An answer that is
 * lost in between leaves a DRAFT; it is found by its name, told as failed, and ended. Ending takes steps, each of which
 * only one state allows: a DRAFT is started with no replicas, what runs is stopped, what is stopped is deleted; all
 * else is refused with a 500 ("incorrect state"). A call goes as far as it gets in two seconds: ask again.
 *
 * A deployment runs once (SIMPLE) and for `timeout` at most: what nobody ends, ends by then.
 *
 * UNCONFIRMED, here and nowhere else (of the offers, see nosana_offers.c):
 * - Whether jobs paid with credits need a timeout of an hour: TIMEOUT_MIN_MINUTES does no harm, an end before is free.
 * - How fast it may be asked (INTERVAL_NS), and how long a listing lags (SETTLE_MS).
 * - api.nosana.com has the same paths; set base_url for it. */
#include "adapters/nosana.h"
#include "adapters/registry.h"
#include "adapters/shorthand.h"
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MIN_MINUTES 60
#define TIMEOUT_MAX_MINUTES (365 * 24 * 60)
#define INTERVAL_NS INT64_C(200000000)
#define SETTLE_MS 15000
#define BOOT_MS (20 * INT64_C(60000))
#define ENDING_LOOKS 5
#define ENDING_WAIT_NS INT64_C(250000000) /* and twice, four times that */
#define PAGES_MAX 200

static void check(struct adapter_call *call)
{
    adapter_get(call, STR("/credits/balance"), adapter_done_if_good);
}

/* -- deployments -- */

static enum instance_state state_read(const json_t *deployment)
{
    static const struct {
        const char *status;
        enum instance_state state;
    } rows[] = {{"DRAFT", INSTANCE_FAILED},
                {"STARTING", INSTANCE_PENDING},
                {"STOPPING", INSTANCE_STOPPING},
                {"STOPPED", INSTANCE_STOPPED},
                {"ARCHIVED", INSTANCE_GONE},
                {"ERROR", INSTANCE_FAILED},
                {"INSUFFICIENT_FUNDS", INSTANCE_FAILED}};
    struct str status = json_text_at(deployment, "status");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_eq(status, str_of(rows[i].status)))
            return rows[i].state;
    /* RUNNING is the manager's word; a host runs it once a job is active. */
    bool is_up = str_eq(status, STR("RUNNING")) && json_count_at(deployment, "active_jobs") > 0;
    return is_up ? INSTANCE_RUNNING : INSTANCE_PENDING;
}

static struct supply_instance deployment_read(const json_t *deployment,
                                              struct supply_endpoint endpoints[static SUPPLY_PORTS_MAX])
{
    const json_t *rows = json_at(deployment, "endpoints");
    struct supply_instance instance = {.id = json_text_at(deployment, "id"),
                                       .tag = json_text_at(deployment, "name"),
                                       .state = state_read(deployment),
                                       .reason = json_text_at(deployment, "status"),
                                       .endpoints = endpoints,
                                       .price_usd_nano = -1,
                                       .interruptible = 0,
                                       .created_at_ms = json_time_at(deployment, "created_at"),
                                       .placement = json_text_at(deployment, "market")};
    for (size_t i = 0; i < json_array_size(rows) && instance.endpoint_count < SUPPLY_PORTS_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        double port = json_number_at(row, "port", 0); /* a number or a text */
        if (port >= 1 && port <= UINT16_MAX && json_text_at(row, "url").len)
            endpoints[instance.endpoint_count++] = (struct supply_endpoint){(uint16_t)port, json_text_at(row, "url")};
    }
    return instance;
}

static struct str path_of(struct adapter_call *call, struct str id, const char *more)
{
    struct str escaped = adapter_url_escaped(call, id);
    return escaped.ptr ? adapter_text(call, "/deployments/" STR_FMT "%s", STR_ARG(escaped), more) : escaped;
}

static void on_described(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance instance = deployment_read(answer->json, endpoints);
    if (adapter_is_good(answer) && instance.id.len)
        adapter_done(call, &instance);
    else
        adapter_fail_odd(call, answer, STR("its answer is no deployment"));
}

static void describe(struct adapter_call *call)
{
    adapter_get(call, path_of(call, call_instance(call), ""), on_described);
}

struct pages {
    size_t count;
};

static void list_page(struct adapter_call *call, struct str cursor);

static void on_page(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct pages *pages = adapter_memory(call, sizeof *pages);
    const json_t *rows = json_at(answer->json, "deployments");
    struct str prefix = network_tag_prefix(call_network(call)),
               next = json_text_at(answer->json, "pagination.cursor_next");
    if (!pages)
        return;
    if (!adapter_is_good(answer) || !json_is_array(rows)) {
        adapter_fail_odd(call, answer, STR("the list of deployments is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(rows) && i < NOSANA_ROWS_MAX; i++) {
        struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
        struct supply_instance instance = deployment_read(json_array_get(rows, i), endpoints);
        if (instance.id.len && instance.state != INSTANCE_GONE && str_starts(instance.tag, prefix))
            adapter_instances(call, &instance, 1);
    }
    if (!next.len)
        adapter_done(call, NULL);
    else if (++pages->count < PAGES_MAX)
        list_page(call, next);
    else
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its list of deployments has no end"));
}

static void list_page(struct adapter_call *call, struct str cursor)
{
    struct str prefix = network_tag_prefix(call_network(call)), escaped = adapter_url_escaped(call, cursor);
    if (escaped.ptr)
        adapter_get(call,
                    adapter_text(call, "/deployments?search=" STR_FMT "&limit=100%s" STR_FMT, STR_ARG(prefix),
                                 escaped.len ? "&cursor=" : "", STR_ARG(escaped)),
                    on_page);
}

static void list(struct adapter_call *call)
{
    list_page(call, STR(""));
}

/* -- create: is the market still there, and at what price; a draft; its start -- */

struct draft {
    struct str id;
    int64_t price_usd_nano;
};

static void on_started(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct draft *draft = adapter_memory(call, sizeof *draft);
    if (!draft)
        return;
    struct supply_instance instance = {.id = draft->id,
                                       .tag = call_tag(call),
                                       .state = INSTANCE_PENDING,
                                       .price_usd_nano = draft->price_usd_nano,
                                       .interruptible = 0};
    if (adapter_is_good(answer))
        adapter_done(call, &instance);
    else
        adapter_fail_answer(call, answer);
}

static void on_draft(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct draft *draft = adapter_memory(call, sizeof *draft);
    struct str id = json_text_at(answer->json, "id");
    if (!draft)
        return;
    if (!adapter_is_good(answer) || !id.len || id.len >= SUPPLY_ID_MAX) {
        adapter_fail_odd(call, answer, STR("its answer is no deployment"));
        return;
    }
    draft->id = adapter_text(call, STR_FMT, STR_ARG(id));
    adapter_leftover(call, draft->id); /* if it does not start */
    if (draft->id.ptr)
        adapter_post(call, path_of(call, draft->id, "/start"), json_object(), true, on_started);
}

static void create_draft(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    int64_t minutes = order->span_s / 60 + (order->span_s % 60 > 0);
    minutes = minutes < TIMEOUT_MIN_MINUTES ? TIMEOUT_MIN_MINUTES : minutes;
    minutes = minutes > TIMEOUT_MAX_MINUTES ? TIMEOUT_MAX_MINUTES : minutes;
    json_t *ports = json_array();
    for (size_t i = 0; i < order->port_count; i++)
        json_array_append_new(ports, json_pack("{s:i}", "port", (int)order->ports[i]));
    json_t *args = json_pack("{s:o,s:o,s:b,s:o}", "image", json_of_text(order->image), "env", json_of_env(order), "gpu",
                             1, "expose", ports);
    args = json_with_command(args, order, "cmd");
    /* What is not confidential is published with its environment: the job's definition is pinned where all can read. */
    bool is_confidential = !adapter_option_is(call, "confidential", "no");
    json_t *body =
        json_pack("{s:o,s:o,s:i,s:I,s:s,s:b,s:{s:s,s:s,s:{s:s},s:[{s:s,s:s,s:o}]}}", "name", json_of_text(order->tag),
                  "market", json_of_text(order->offer), "replicas", 1, "timeout", (json_int_t)minutes, "strategy",
                  "SIMPLE", "confidential", is_confidential, "job_definition", "version", "0.1", "type", "container",
                  "meta", "trigger", "api", "ops", "type", "container/run", "id", "main", "args", args);
    adapter_post(call, STR("/deployments/create"), body, true, on_draft);
}

static void on_market(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct supply_order *order = call_order(call);
    struct draft *draft = adapter_memory(call, sizeof *draft);
    if (!draft)
        return;
    struct price_terms terms = nosana_price(call, nosana_market(answer->json, order->offer));
    draft->price_usd_nano = adapter_price(call, &terms);
    if (!adapter_is_good(answer) || !json_is_array(answer->json))
        adapter_fail_odd(call, answer, STR("the list of markets is none"));
    else if (draft->price_usd_nano < 0)
        adapter_fail(call, SUPPLY_NO_CAPACITY, STR("its market is closed"));
    else if (order->price_max_usd_nano >= 0 && draft->price_usd_nano > order->price_max_usd_nano)
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("the market asks for more than it may cost"));
    else
        create_draft(call);
}

static void create(struct adapter_call *call)
{
    adapter_get(call, STR("/markets"), on_market);
}

/* -- terminate: what the state allows, and a few short looks at what came of it -- */

struct ending {
    unsigned looks;
};

static void terminate(struct adapter_call *call);

static void look_again(struct adapter_call *call)
{
    struct ending *ending = adapter_memory(call, sizeof *ending);
    if (ending && ++ending->looks > ENDING_LOOKS)
        adapter_fail(call, SUPPLY_NOT_YET, STR("it is being stopped"));
    else if (ending)
        adapter_later(call, ENDING_WAIT_NS << (ending->looks > 2 ? 2 : ending->looks - 1), terminate);
}

static void on_step(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (adapter_is_good(answer))
        look_again(call);
    else
        adapter_fail_answer(call, answer);
}

static void on_emptied(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (adapter_is_good(answer))
        adapter_post(call, path_of(call, call_instance(call), "/start"), json_object(), false, on_step);
    else
        adapter_fail_answer(call, answer);
}

static void on_state(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct str id = call_instance(call), status = json_text_at(answer->json, "status");
    if (!adapter_is_good(answer) || !status.len)
        adapter_fail_odd(call, answer, STR("its answer is no deployment"));
    else if (str_eq(status, STR("ARCHIVED")))
        adapter_done(call, NULL);
    else if (str_eq(status, STR("STOPPED")))
        adapter_delete(call, path_of(call, id, ""), adapter_done_if_good);
    else if (str_eq(status, STR("STARTING")) || str_eq(status, STR("STOPPING")))
        look_again(call);
    else if (str_eq(status, STR("DRAFT")))
        adapter_patch(call, path_of(call, id, "/update-replica-count"), json_pack("{s:i}", "replicas", 0), on_emptied);
    else
        adapter_post(call, path_of(call, id, "/stop"), json_object(), false, on_step);
}

static void terminate(struct adapter_call *call)
{
    adapter_get(call, path_of(call, call_instance(call), ""), on_state);
}

static const struct adapter_error_row errors[] = {
    {0, NULL, "incorrect state", SUPPLY_NOT_YET},
    {0, NULL, "insufficient", SUPPLY_NO_FUNDS},
    {0, NULL, "deployment not found", SUPPLY_NOT_FOUND},
    {0, NULL, "invalid request body", SUPPLY_BAD_REQUEST},
    {0},
};

const struct adapter adapter_nosana = {
    .name = "nosana",
    .title = "Nosana",
    .base_url = "https://dashboard.k8s.prd.nos.ci/api",
    .credentials = {"api_key"},
    .options = {"confidential"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_NO_STOP,
    .any_interval_ns = INTERVAL_NS,
    .settle_ms = SETTLE_MS,
    .boot_ms = BOOT_MS,
    .errors = errors,
    .run = {[ADAPTER_CHECK] = check,
            [ADAPTER_OFFERS] = nosana_offers,
            [ADAPTER_CREATE] = create,
            [ADAPTER_DESCRIBE] = describe,
            [ADAPTER_LIST] = list,
            [ADAPTER_TERMINATE] = terminate},
};
