/* io.net: containers (CaaS), paid before for whole hours. A deployment's name is its tag.
 *
 * The price of a query is for the whole span that it names: offers are asked for one hour. What is paid is asked again
 * for the span that is bought, and compared with the cap, before it is bought. A deployment ends by itself after its
 * span, which is never extended here: the longest lease is IONET_HOURS_MAX hours. Answers are wrapped in `data` or they
 * are not; ids are numbers or texts; a status may have spaces. A container has one port, seen by HTTP at its
 * public_url.
 *
 * UNCONFIRMED, here and nowhere else:
 * - Pages of the list start at 0; where the first is refused, at 1.
 * - How a deploy is refused for want of hardware, or of money: by the phrases of `errors`.
 * - The status that a deploy answers with; that of one that failed to start, and whether it can be deleted.
 * - A name can be used once only: one that is taken was taken by us.
 * - How fast it may be asked (INTERVAL_NS), and how long a listing lags (SETTLE_MS).
 * - GPUs of a price in one place cost the same in another: marked as an estimate there. */
#include "adapters/ionet.h"
#include "adapters/registry.h"

#define PAGE_SIZE 100
#define PAGES_MAX 500
#define SECOND_NS INT64_C(1000000000)
#define INTERVAL_NS (SECOND_NS / 10)
#define SETTLE_MS 30000
#define BOOT_MS (20 * INT64_C(60000))

/* An id as it was: a number or a text. */
static json_t *id_json(struct str id)
{
    int64_t number;
    return str_to_i64(id, &number) ? json_integer(number) : json_of_text(id);
}

/* -- create: price, name, deploy -- */

struct purchase {
    struct str hardware, place;
    uint32_t gpus;
    int64_t hours, price_usd_nano;
};

static void on_deployed(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct purchase *purchase = adapter_memory(call, sizeof *purchase);
    struct supply_instance instance = {.id = json_text_at(ionet_unwrapped(answer), "deployment_id"),
                                       .tag = call_tag(call),
                                       .state = INSTANCE_PENDING,
                                       .price_usd_nano = purchase ? purchase->price_usd_nano : -1,
                                       .interruptible = 0};
    if (adapter_is_good(answer) && instance.id.len)
        adapter_done(call, &instance);
    else
        adapter_fail_odd(call, answer, STR("its answer names no deployment"));
}

static void on_name(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct purchase *purchase = adapter_memory(call, sizeof *purchase);
    const struct supply_order *order = call_order(call);
    if (!purchase)
        return;
    if (json_is_false(json_at(answer->json, "data"))) {
        adapter_uncertain(call, true);
        adapter_fail(call, SUPPLY_TRANSIENT, STR("a deployment of that name exists"));
        return;
    }
    /* All of the environment is secret: the other kind is shown to whoever reads the deployment. */
    json_t *config =
        json_pack("{s:i,s:{},s:o}", "replica_count", 1, "env_variables", "secret_env_variables", json_of_env(order));
    config = json_with_command(config, order, "args");
    if (config && order->port_count)
        json_object_set_new(config, "traffic_port", json_integer(order->ports[0]));
    adapter_post(call, STR(IONET_BASE "/deploy"),
                 json_pack("{s:o,s:I,s:I,s:o,s:[o],s:o,s:{s:o,s:s,s:s}}", "resource_private_name",
                           json_of_text(order->tag), "duration_hours", (json_int_t)purchase->hours,
                           "gpus_per_container", (json_int_t)purchase->gpus, "hardware_id", id_json(purchase->hardware),
                           "location_ids", id_json(purchase->place), "container_config", config, "registry_config",
                           "image_url", json_of_text(order->image), "registry_username", "", "registry_secret", ""),
                 true, on_deployed);
}

static void on_quote(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct purchase *purchase = adapter_memory(call, sizeof *purchase);
    const struct supply_order *order = call_order(call);
    if (!purchase)
        return;
    struct price_terms terms = ionet_price(call, answer, purchase->gpus, purchase->hours);
    purchase->price_usd_nano = adapter_price(call, &terms);
    if (!adapter_is_good(answer) || purchase->price_usd_nano < 0)
        adapter_fail_odd(call, answer, STR("it tells no price"));
    else if (order->price_max_usd_nano >= 0 && purchase->price_usd_nano > order->price_max_usd_nano)
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("it costs more than it may"));
    else
        adapter_get(call,
                    adapter_text(call, IONET_BASE "/clusters/check_cluster_name_availability?cluster_name=" STR_FMT,
                                 STR_ARG(order->tag)),
                    on_name);
}

static void create(struct adapter_call *call)
{
    struct purchase *purchase = adapter_memory(call, sizeof *purchase);
    const struct supply_order *order = call_order(call);
    struct str rest = order->offer;
    int64_t gpus, hours = order->span_s / 3600 + (order->span_s % 3600 > 0);
    if (!purchase)
        return;
    purchase->hardware = str_next(&rest, '/');
    if (!str_to_i64(str_next(&rest, '/'), &gpus) || gpus < 1 || gpus > 64 || !rest.len || !purchase->hardware.len) {
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("this is no offer of io.net"));
        return;
    }
    purchase->place = rest;
    purchase->gpus = (uint32_t)gpus;
    purchase->hours = hours < 1 ? 1 : hours > IONET_HOURS_MAX ? IONET_HOURS_MAX : hours;
    adapter_get(call, ionet_price_path(call, purchase->hardware, purchase->place, purchase->gpus, purchase->hours),
                on_quote);
}

/* -- deployments -- */

static enum instance_state state_of(struct str status)
{
    static const struct {
        const char *status;
        enum instance_state state;
    } rows[] = {{"running", INSTANCE_RUNNING},
                {"completed", INSTANCE_GONE},
                {"destroyed", INSTANCE_GONE},
                {"failed", INSTANCE_FAILED},
                {"termination requested", INSTANCE_STOPPING}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_eq_nocase(status, str_of(rows[i].status)))
            return rows[i].state;
    return INSTANCE_PENDING; /* "deployment requested" */
}

/* The deployment's own answer does not tell its name. What failed and is finished is gone. */
static struct supply_instance deployment_read(struct adapter_call *call, const json_t *row, struct str tag)
{
    struct str status = json_text_at(row, "status");
    enum instance_state state = state_of(status);
    if (state == INSTANCE_FAILED && json_text_at(row, "finished_at").len)
        state = INSTANCE_GONE;
    return (struct supply_instance){.id = json_id_at(call, row, "id"),
                                    .tag = tag,
                                    .state = state,
                                    .reason = status,
                                    .price_usd_nano = -1,
                                    .interruptible = 0,
                                    .created_at_ms = json_time_at(row, "created_at"),
                                    .placement = json_text_at(row, "locations[0].name")};
}

static struct str path_of(struct adapter_call *call, const char *more)
{
    struct str id = adapter_url_escaped(call, call_instance(call));
    return id.ptr ? adapter_text(call, IONET_BASE "/deployment/" STR_FMT "%s", STR_ARG(id), more) : id;
}

/* It runs once its container does, and has a URL then. */
static void on_containers(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_instance *instance = adapter_memory(call, sizeof *instance);
    const json_t *worker = json_at(ionet_unwrapped(answer), "workers[0]");
    struct supply_endpoint endpoint = {.port = 80, .url = json_text_at(worker, "public_url")};
    if (!instance)
        return;
    if (!adapter_is_good(answer)) {
        adapter_fail_answer(call, answer);
        return;
    }
    bool is_up = str_eq(json_text_at(worker, "status"), STR("running"));
    instance->state = is_up ? INSTANCE_RUNNING : INSTANCE_PENDING;
    instance->endpoints = &endpoint;
    instance->endpoint_count = is_up && endpoint.url.len;
    adapter_done(call, instance);
}

static void on_described(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_instance instance = deployment_read(call, ionet_unwrapped(answer), call_tag(call));
    if (!adapter_is_good(answer) || !instance.id.len) {
        adapter_fail_odd(call, answer, STR("its answer is no deployment"));
        return;
    }
    if (instance.state != INSTANCE_RUNNING) {
        adapter_done(call, &instance);
        return;
    }
    struct supply_instance *kept = adapter_memory(call, sizeof *kept);
    if (!kept)
        return;
    *kept = instance;
    kept->reason = STR("running");
    kept->placement = adapter_text(call, STR_FMT, STR_ARG(instance.placement));
    adapter_get(call, path_of(call, "/containers"), on_containers);
}

static void describe(struct adapter_call *call)
{
    adapter_get(call, path_of(call, ""), on_described);
}

struct pages {
    size_t next, asked;
};

static void list(struct adapter_call *call);

static void on_page(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct pages *pages = adapter_memory(call, sizeof *pages);
    const json_t *rows = json_at(ionet_unwrapped(answer), "deployments");
    if (!pages)
        return;
    if (answer->status == 422 && pages->next++ == 0) {
        list(call);
        return;
    }
    if (!adapter_is_good(answer) || !json_is_array(rows)) {
        adapter_fail_odd(call, answer, STR("the list of deployments is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(rows) && i < 10 * PAGE_SIZE; i++) {
        const json_t *row = json_array_get(rows, i);
        struct supply_instance instance = deployment_read(call, row, json_text_at(row, "name"));
        if (instance.state != INSTANCE_GONE)
            adapter_instances(call, &instance, 1);
    }
    /* Where the first page is numbered 1, page 0 may be that one too: only an empty page is surely the last. */
    bool is_whole = !pages->asked && json_count_at(ionet_unwrapped(answer), "total") == (int64_t)json_array_size(rows);
    pages->next++;
    if (!json_array_size(rows) || is_whole)
        adapter_done(call, NULL);
    else if (++pages->asked < PAGES_MAX)
        list(call);
    else
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its list of deployments has no end"));
}

static void list(struct adapter_call *call)
{
    struct pages *pages = adapter_memory(call, sizeof *pages);
    if (pages)
        adapter_get(call, adapter_text(call, IONET_BASE "/deployments?page=%zu&page_size=%d", pages->next, PAGE_SIZE),
                    on_page);
}

/* What has ended by itself cannot be ended. */
static void on_state(struct adapter_call *call, const struct adapter_answer *answer)
{
    enum instance_state state = deployment_read(call, ionet_unwrapped(answer), call_tag(call)).state;
    if (!adapter_is_good(answer))
        adapter_fail_answer(call, answer);
    else if (state == INSTANCE_GONE || state == INSTANCE_STOPPING)
        adapter_done(call, NULL);
    else
        adapter_delete(call, path_of(call, ""), adapter_done_if_good);
}

static void terminate(struct adapter_call *call)
{
    adapter_get(call, path_of(call, ""), on_state);
}

static void authorise(struct network *network, struct adapter_call *call)
{
    adapter_header(call, "x-api-key", str_of(network_credential(network, "api_key")));
}

/* {"detail": "text"} or {"detail": [{"loc", "msg", "type"}]} */
static void explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message)
{
    struct str first = json_text_at(answer->json, "detail[0].msg"), text = json_text_at(answer->json, "detail");
    *ret_code = json_text_at(answer->json, "detail[0].type");
    *ret_message = first.len ? first : text.len ? text : answer->body;
}

static const struct adapter_error_row errors[] = {
    {0, NULL, "not enough", SUPPLY_NO_CAPACITY},
    {0, NULL, "no available", SUPPLY_NO_CAPACITY},
    {0, NULL, "not available", SUPPLY_NO_CAPACITY},
    {0, NULL, "unavailable", SUPPLY_NO_CAPACITY},
    {0, NULL, "insufficient replicas", SUPPLY_NO_CAPACITY},
    {0, NULL, "sold out", SUPPLY_NO_CAPACITY},
    {0, NULL, "balance", SUPPLY_NO_FUNDS},
    {0, NULL, "funds", SUPPLY_NO_FUNDS},
    {0, NULL, "credits", SUPPLY_NO_FUNDS},
    {0, NULL, "quota", SUPPLY_QUOTA},
    {0},
};

const struct adapter adapter_ionet = {
    .name = "ionet",
    .title = "io.net",
    .base_url = "https://api.io.solutions",
    .credentials = {"api_key"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_NO_STOP | ADAPTER_PREPAID | ADAPTER_ONE_PORT,
    .any_interval_ns = INTERVAL_NS,
    .deadline_ns = {[ADAPTER_OFFERS] = 120 * SECOND_NS},
    .settle_ms = SETTLE_MS,
    .boot_ms = BOOT_MS,
    .span_min_s = 3600,
    .errors = errors,
    .authorise = authorise,
    .explain = explain,
    .run = {[ADAPTER_OFFERS] = ionet_offers,
            [ADAPTER_CREATE] = create,
            [ADAPTER_DESCRIBE] = describe,
            [ADAPTER_LIST] = list,
            [ADAPTER_TERMINATE] = terminate},
};
