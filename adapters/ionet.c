/* io.net: containers (CaaS), paid before for whole hours. A deployment's name is its tag.
 *
 * The price of a query is for the whole span that it names: offers are asked for one hour. What is paid is asked again
 * for the span that is bought, and compared with the cap, before it is bought. A deployment ends by itself after its
 * span, which is never extended here: the longest lease is HOURS_MAX. Answers are wrapped in `data` or they are not;
 * ids are numbers or texts; a status may have spaces. A container has one port, seen by HTTP at its public_url.
 *
 * UNCONFIRMED, here and nowhere else:
 * - Pages of the list start at 0; where the first is refused, at 1. Lists are read until a page is short.
 * - How a deploy is refused for want of hardware, or of money: by the phrases of `errors`.
 * - The status that a deploy answers with; that of one that failed to start, and whether it can be deleted.
 * - A name can be used once only: one that is taken was taken by us.
 * - How fast it may be asked (INTERVAL_NS), and how long a listing lags (SETTLE_MS).
 * - GPUs of a price in one place cost the same in another: marked as an estimate there. */
#include "adapters/registry.h"
#include "adapters/shorthand.h"

#define BASE "/enterprise/v1/io-cloud/caas"
#define HOURS_MAX 8760
#define HARDWARE_MAX 64
#define PLACES_MAX 32
#define PAGE_SIZE 100
#define PAGES_MAX 500
#define SECOND_NS INT64_C(1000000000)
#define INTERVAL_NS (SECOND_NS / 10)
#define SETTLE_MS 30000
#define BOOT_MS (20 * INT64_C(60000))

static const uint32_t counts[] = {1, 2, 4, 8};
#define COUNTS (sizeof counts / sizeof *counts)

static const json_t *unwrapped(const struct adapter_answer *answer)
{
    const json_t *data = json_at(answer->json, "data");
    return data ? data : answer->json;
}

static bool is_number(struct str id)
{
    int64_t number;
    return str_to_i64(id, &number);
}

/* An id as it was: a number or a text. */
static json_t *id_json(struct str id)
{
    int64_t number;
    return str_to_i64(id, &number) ? json_integer(number) : json_of_text(id);
}

static struct str price_path(struct adapter_call *call, struct str hardware, struct str place, uint32_t gpus,
                             int64_t hours)
{
    const char *quote = is_number(place) ? "" : "\"";
    struct str list = adapter_text(call, "[%s" STR_FMT "%s]", quote, STR_ARG(place), quote);
    struct str places = adapter_url_escaped(call, list), escaped = adapter_url_escaped(call, hardware);
    if (!places.ptr || !escaped.ptr)
        return (struct str){0};
    return adapter_text(call,
                        BASE "/price?location_ids=" STR_FMT "&hardware_id=" STR_FMT
                             "&duration_hours=%lld&gpus_per_container=%u&replica_count=1",
                        STR_ARG(places), STR_ARG(escaped), (long long)hours, gpus);
}

static struct price_terms price_read(struct adapter_call *call, const struct adapter_answer *answer, uint32_t gpus,
                                     int64_t hours)
{
    return (struct price_terms){.amount = json_decimal_at(call, unwrapped(answer), "total_cost_usdc"),
                                .currency = STR("USDC"),
                                .per = PRICE_PER_SPAN,
                                .gpus = gpus,
                                .span_s = hours * 3600};
}

/* -- offers: for each hardware and number of GPUs, the places that have it, then the price in the best of them -- */

struct hardware {
    struct str id, name;
    int64_t gpus_max;
};

struct place {
    struct str id, country, name;
    int64_t replicas;
};

struct listing {
    struct hardware hardware[HARDWARE_MAX];
    size_t hardware_count, step;
    struct place places[PLACES_MAX];
    size_t place_count, best;
};

static void offers_next(struct adapter_call *call, struct listing *listing);

/* One that is not known any more costs its own offers only. */
static bool is_skipped(const struct adapter_answer *answer)
{
    return answer->status == 400 || answer->status == 404 || answer->status == 422;
}

static void on_price(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    if (!listing)
        return;
    uint32_t gpus = counts[listing->step % COUNTS];
    const struct hardware *hardware = &listing->hardware[listing->step++ / COUNTS];
    struct price_terms terms = price_read(call, answer, gpus, 1);
    if (!adapter_is_good(answer) && !is_skipped(answer)) {
        adapter_fail_answer(call, answer);
        return;
    }
    struct adapter_offer offers[PLACES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < listing->place_count && terms.amount.ptr; i++) {
        const struct place *place = &listing->places[i];
        struct str id = adapter_text(call, STR_FMT "/%u/" STR_FMT, STR_ARG(hardware->id), gpus, STR_ARG(place->id));
        terms.is_estimate = i != listing->best;
        offers[count++] = (struct adapter_offer){
            .id = id,
            .gpu_raw = hardware->name,
            .gpus = gpus,
            .available = place->replicas < UINT32_MAX ? (uint32_t)place->replicas : 0,
            .region = place->country.len ? place->country : place->id,
            .country = place->country.len == 2 ? place->country : (struct str){0},
            .zone = place->name,
            .terms = terms,
            .is_priced = true,
            .reliability = -1,
            .span_max_s = HOURS_MAX * INT64_C(3600),
        };
    }
    adapter_offers(call, offers, count);
    offers_next(call, listing);
}

static void on_places(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    const json_t *rows = unwrapped(answer);
    if (!listing)
        return;
    if (!is_skipped(answer) && (!adapter_is_good(answer) || !json_is_array(rows))) {
        adapter_fail_odd(call, answer, STR("the list of places is none"));
        return;
    }
    listing->place_count = listing->best = 0;
    for (size_t i = 0; adapter_is_good(answer) && i < json_array_size(rows) && listing->place_count < PLACES_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        struct str country = json_text_at(row, "iso2"), name = json_text_at(row, "name");
        struct place place = {.id = json_id_at(call, row, "id"), .replicas = json_count_at(row, "available_replicas")};
        place.country = adapter_text(call, STR_FMT, STR_ARG(country));
        place.name = adapter_text(call, STR_FMT, STR_ARG(name));
        if (place.replicas <= 0 || !place.id.len || place.id.len > 32)
            continue;
        if (place.replicas > listing->places[listing->best].replicas || !listing->place_count)
            listing->best = listing->place_count;
        listing->places[listing->place_count++] = place;
    }
    if (listing->place_count) {
        adapter_get(call,
                    price_path(call, listing->hardware[listing->step / COUNTS].id, listing->places[listing->best].id,
                               counts[listing->step % COUNTS], 1),
                    on_price);
        return;
    }
    listing->step++;
    offers_next(call, listing);
}

static void offers_next(struct adapter_call *call, struct listing *listing)
{
    while (listing->step / COUNTS < listing->hardware_count &&
           counts[listing->step % COUNTS] > listing->hardware[listing->step / COUNTS].gpus_max)
        listing->step++;
    if (listing->step / COUNTS >= listing->hardware_count) {
        adapter_done(call, NULL);
        return;
    }
    struct str id = adapter_url_escaped(call, listing->hardware[listing->step / COUNTS].id);
    if (id.ptr)
        adapter_get(call,
                    adapter_text(call, BASE "/available-replicas?hardware_id=" STR_FMT "&hardware_qty=%u", STR_ARG(id),
                                 counts[listing->step % COUNTS]),
                    on_places);
}

static void on_hardware(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    const json_t *rows = json_at(unwrapped(answer), "hardware");
    if (!listing)
        return;
    if (!adapter_is_good(answer) || !json_is_array(rows)) {
        adapter_fail_odd(call, answer, STR("the list of hardware is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(rows) && listing->hardware_count < HARDWARE_MAX; i++) {
        const json_t *row = json_array_get(rows, i);
        struct str name = json_text_at(row, "hardware_name");
        struct hardware *hardware = &listing->hardware[listing->hardware_count];
        *hardware = (struct hardware){.id = json_id_at(call, row, "hardware_id"),
                                      .name = adapter_text(call, STR_FMT, STR_ARG(name)),
                                      .gpus_max = json_count_at(row, "max_gpus_per_container")};
        if (json_count_at(row, "available") != 0 && hardware->id.len && hardware->id.len < 64 && hardware->name.len)
            listing->hardware_count++;
    }
    offers_next(call, listing);
}

static void offers(struct adapter_call *call)
{
    adapter_get(call, STR(BASE "/hardware/max-gpus-per-container"), on_hardware);
}

/* -- create: price, name, deploy -- */

struct purchase {
    struct str hardware, place;
    uint32_t gpus;
    int64_t hours;
};

static void on_deployed(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_instance instance = {.id = json_text_at(unwrapped(answer), "deployment_id"),
                                       .tag = call_tag(call),
                                       .state = INSTANCE_PENDING,
                                       .price_usd_nano = -1,
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
    adapter_post(call, STR(BASE "/deploy"),
                 json_pack("{s:o,s:I,s:I,s:o,s:[o],s:o,s:{s:o,s:s,s:s}}", "resource_private_name",
                           json_of_text(order->tag), "duration_hours", (json_int_t)purchase->hours,
                           "gpus_per_container", (json_int_t)purchase->gpus, "hardware_id", id_json(purchase->hardware),
                           "location_ids", id_json(purchase->place), "container_config", config, "registry_config",
                           "image_url", json_of_text(order->image), "registry_username", "", "registry_secret", ""),
                 true, on_deployed);
}

static void on_quote(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct purchase *purchase = adapter_memory(call, sizeof *purchase);
    const struct supply_order *order = call_order(call);
    if (!purchase)
        return;
    struct price_terms terms = price_read(call, answer, purchase->gpus, purchase->hours);
    int64_t price = adapter_price(call, &terms);
    if (!adapter_is_good(answer) || price < 0)
        adapter_fail_odd(call, answer, STR("it tells no price"));
    else if (order->price_max_usd_nano >= 0 && price > order->price_max_usd_nano)
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("it costs more than it may"));
    else
        adapter_get(call,
                    adapter_text(call, BASE "/clusters/check_cluster_name_availability?cluster_name=" STR_FMT,
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
    purchase->hours = hours < 1 ? 1 : hours > HOURS_MAX ? HOURS_MAX : hours;
    adapter_get(call, price_path(call, purchase->hardware, purchase->place, purchase->gpus, purchase->hours), on_quote);
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
    return id.ptr ? adapter_text(call, BASE "/deployment/" STR_FMT "%s", STR_ARG(id), more) : id;
}

/* It runs once its container does, and has a URL then. */
static void on_containers(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_instance *instance = adapter_memory(call, sizeof *instance);
    const json_t *worker = json_at(unwrapped(answer), "workers[0]");
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
    struct supply_instance instance = deployment_read(call, unwrapped(answer), call_tag(call));
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
    const json_t *rows = json_at(unwrapped(answer), "deployments");
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
    pages->next++;
    if (json_array_size(rows) < PAGE_SIZE)
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
        adapter_get(call, adapter_text(call, BASE "/deployments?page=%zu&page_size=%d", pages->next, PAGE_SIZE),
                    on_page);
}

/* What has ended by itself cannot be ended. */
static void on_state(struct adapter_call *call, const struct adapter_answer *answer)
{
    enum instance_state state = deployment_read(call, unwrapped(answer), call_tag(call)).state;
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
    .run = {[ADAPTER_OFFERS] = offers,
            [ADAPTER_CREATE] = create,
            [ADAPTER_DESCRIBE] = describe,
            [ADAPTER_LIST] = list,
            [ADAPTER_TERMINATE] = terminate},
};
