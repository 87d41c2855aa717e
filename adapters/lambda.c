/* Lambda Cloud: whole machines by type and region, in cents for the machine. order.script is what starts (cloud-init).
 *
 * Its ways: types in an object by name; the GPU stands in prose ("1x H100 (80 GB SXM5)"); an empty list of regions is
 * no capacity, and one that is not empty may lie. Name and tags are set at launch; a launch twice makes two. An SSH key
 * of the account is asked for. What ports the order had is kept in a tag, as the API does not know them. UNCONFIRMED:
 * what 429 looks like; how long a terminated instance is listed; that the firewall lets the order's ports through (the
 * operator opens them). */
#include "adapters/registry.h"
#include "core/clock.h"

#include <stdio.h>
#include <string.h>

#define SCRIPT_MAX 1000000
#define CENT_NANO INT64_C(10000000)
#define PORTS_TEXT_MAX 128

/* -- offers -- */

struct gpu_words {
    struct str name, form;
    int64_t gib;
};

/* "H100 (80 GB SXM5)", "Tesla V100 (16 GB)"; false: something else. */
static bool gpu_words(struct str text, struct gpu_words *ret)
{
    struct str rest = text, name = str_next(&rest, '('), inside = str_next(&rest, ')');
    struct str number = str_next(&inside, ' '), unit = str_next(&inside, ' ');
    if (!inside.ptr)
        inside = (struct str){NULL, 0};
    *ret = (struct gpu_words){str_trim(name), str_trim(inside), 0};
    return ret->name.len && str_eq(unit, STR("GB")) && str_to_i64(number, &ret->gib) && ret->gib > 0 && ret->gib < 4096;
}

static struct str country_of(struct str region)
{
    static const struct {
        struct str start, country;
    } rows[] = {{STR("us-"), STR("US")},         {STR("europe-central-"), STR("DE")}, {STR("me-west-"), STR("IL")},
                {STR("asia-south-"), STR("IN")}, {STR("asia-northeast-"), STR("JP")}, {STR("australia-"), STR("AU")}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (str_starts(region, rows[i].start))
            return rows[i].country;
    return (struct str){NULL, 0};
}

static void offers_of_type(struct adapter_call *call, const json_t *type)
{
    struct str name = json_text_at(type, "instance_type.name");
    struct gpu_words words;
    int64_t gpus = json_count_at(type, "instance_type.specs.gpus");
    const json_t *regions = json_at(type, "regions_with_capacity_available"), *region;
    size_t i;
    if (!name.len || gpus <= 0 || gpus > 1024)
        return; /* machines without GPUs are types too */
    bool is_told = gpu_words(json_text_at(type, "instance_type.gpu_description"), &words);
    json_array_foreach(regions, i, region)
    {
        struct str place = json_text_at(region, "name");
        struct adapter_offer offer = {
            .id = adapter_text(call, STR_FMT "/" STR_FMT, STR_ARG(name), STR_ARG(place)),
            .gpu_raw = is_told ? words.name : name,
            .gpu_form = is_told ? words.form : (struct str){NULL, 0},
            .vram_bytes = is_told ? (uint64_t)words.gib << 30 : 0,
            .gpus = (uint32_t)gpus,
            .region = place,
            .country = country_of(place),
            .terms = {.amount = json_decimal_at(call, type, "instance_type.price_cents_per_hour"),
                      .currency = STR("cents"),
                      .per = PRICE_PER_MACHINE_HOUR,
                      .gpus = (uint32_t)gpus},
            .is_priced = true,
            .reliability = -1,
            .is_arm = memmem(name.ptr, name.len, "_gh", 3) || memmem(name.ptr, name.len, "_gb", 3),
        };
        if (place.len)
            adapter_offers(call, &offer, 1);
    }
}

static void on_types(struct adapter_call *call, const struct adapter_answer *answer)
{
    const json_t *types = json_at(answer->json, "data"), *type;
    const char *name;
    if (!json_is_object(types)) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer has no types"));
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)types, name, type) offers_of_type(call, type);
    adapter_done(call, NULL);
}

static void run_offers(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/api/v1/instance-types"), .on_answer = on_types});
}

/* -- create -- */

static void on_launched(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_instance made = {.id = json_text_at(answer->json, "data.instance_ids[0]"),
                                   .tag = call_tag(call),
                                   .state = INSTANCE_PENDING,
                                   .price_usd_nano = -1,
                                   .interruptible = 0};
    if (made.id.len)
        adapter_done(call, &made);
    else
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer names no instance"));
}

static void run_create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    struct str region = order->offer, type = str_next(&region, '/');
    char ports[PORTS_TEXT_MAX] = "-";
    size_t len = 0;
    for (size_t i = 0; i < order->port_count && len + 8 < sizeof(ports); i++)
        len += (size_t)snprintf(ports + len, sizeof(ports) - len, "%s%u", i ? "-" : "", order->ports[i]);
    json_t *body = order->script.len && order->script.len <= SCRIPT_MAX && region.len
                       ? json_pack("{s:s%, s:s%, s:[s], s:s%, s:s%, s:s%, s:[{s:s, s:s%}, {s:s, s:s}]}", "region_name",
                                   region.ptr, region.len, "instance_type_name", type.ptr, type.len, "ssh_key_names",
                                   network_option(call_network(call), "ssh_key"), "name", order->tag.ptr,
                                   order->tag.len, "hostname", order->tag.ptr, order->tag.len, "user_data",
                                   order->script.ptr, order->script.len, "tags", "key", "sluice", "value",
                                   order->tag.ptr, order->tag.len, "key", "sluice-ports", "value", ports)
                       : NULL;
    if (!body) {
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the order cannot be told to it: offer or script"));
        return;
    }
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = STR("/api/v1/instance-operations/launch"),
                                                 .take_json = body,
                                                 .creates = true,
                                                 .on_answer = on_launched});
}

/* -- instances -- */

static struct str tag_of(const json_t *row, struct str key)
{
    size_t i;
    const json_t *tag;
    json_array_foreach(json_object_get(row, "tags"), i, tag)
    {
        if (str_eq(json_text_at(tag, "key"), key))
            return json_text_at(tag, "value");
    }
    return (struct str){NULL, 0};
}

static enum instance_state state_of(const json_t *row)
{
    static const struct {
        struct str status;
        enum instance_state state;
    } rows[] = {{STR("booting"), INSTANCE_PENDING},  {STR("active"), INSTANCE_RUNNING},
                {STR("unhealthy"), INSTANCE_FAILED}, /* and bills */
                {STR("preempted"), INSTANCE_FAILED}, {STR("terminating"), INSTANCE_STOPPING},
                {STR("terminated"), INSTANCE_GONE}};
    struct str status = json_text_at(row, "status");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (str_eq(status, rows[i].status))
            return rows[i].state == INSTANCE_RUNNING && !json_text_at(row, "ip").len ? INSTANCE_PENDING : rows[i].state;
    return INSTANCE_PENDING;
}

static struct supply_instance instance_of(struct adapter_call *call, const json_t *row,
                                          struct supply_endpoint endpoints[static SUPPLY_PORTS_MAX])
{
    struct str ip = json_text_at(row, "ip"), ports = tag_of(row, STR("sluice-ports"));
    struct str tag = tag_of(row, STR("sluice"));
    int64_t cents = json_count_at(row, "instance_type.price_cents_per_hour"), port;
    int64_t gpus = json_count_at(row, "instance_type.specs.gpus");
    struct supply_instance one = {.id = json_text_at(row, "id"),
                                  .tag = tag.len ? tag : json_text_at(row, "name"),
                                  .state = state_of(row),
                                  .reason = json_text_at(row, "status"),
                                  .endpoints = endpoints,
                                  .price_usd_nano = -1,
                                  .placement = json_text_at(row, "region.name")};
    if (cents > 0 && cents < 100000000 && gpus > 0 && gpus <= 1024)
        one.price_usd_nano = (cents * CENT_NANO + gpus - 1) / gpus;
    while (one.state == INSTANCE_RUNNING && ports.ptr && one.endpoint_count < SUPPLY_PORTS_MAX) {
        struct str text = str_next(&ports, '-');
        if (str_to_i64(text, &port) && port > 0 && port < 65536)
            endpoints[one.endpoint_count++] = (struct supply_endpoint){
                (uint16_t)port, adapter_text(call, "http://" STR_FMT ":%lld", STR_ARG(ip), (long long)port)};
    }
    return one;
}

static void on_described(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance one = instance_of(call, json_at(answer->json, "data"), endpoints);
    if (one.id.len)
        adapter_done(call, &one);
    else
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer has no instance"));
}

static void run_describe(struct adapter_call *call)
{
    struct str id = adapter_url_escaped(call, call_instance(call));
    adapter_send(call, &(struct adapter_request){.path = adapter_text(call, "/api/v1/instances/" STR_FMT, STR_ARG(id)),
                                                 .on_answer = on_described});
}

static void on_list(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    const json_t *rows = json_at(answer->json, "data"), *row;
    size_t i;
    if (!json_is_array(rows)) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its listing has no instances"));
        return;
    }
    json_array_foreach(rows, i, row)
    {
        struct supply_instance one = instance_of(call, row, endpoints);
        adapter_instances(call, &one, 1);
    }
    adapter_done(call, NULL);
}

static void run_list(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = STR("/api/v1/instances"), .on_answer = on_list});
}

static void on_terminated(struct adapter_call *call, const struct adapter_answer *answer)
{
    bool is_gone = str_eq(json_text_at(answer->json, "error.code"), STR("global/object-does-not-exist"));
    if (is_gone || (answer->status == 200 && json_is_array(json_at(answer->json, "data.terminated_instances"))))
        adapter_done(call, NULL);
    else
        adapter_fail_answer(call, answer);
}

static void run_terminate(struct adapter_call *call)
{
    struct str id = call_instance(call);
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = STR("/api/v1/instance-operations/terminate"),
                                                 .take_json = json_pack("{s:[s%]}", "instance_ids", id.ptr, id.len),
                                                 .takes_errors = true,
                                                 .on_answer = on_terminated});
}

static const char *open_lambda(struct network *network)
{
    const char *key = network_option(network, "ssh_key");
    return key && key[0] ? NULL : "option ssh_key is needed: the name of an SSH key of the account";
}

static const struct adapter_error_row errors[] = {
    {0, "instance-operations/launch/insufficient-capacity", NULL, SUPPLY_NO_CAPACITY},
    {0, "global/quota-exceeded", NULL, SUPPLY_QUOTA},
    {0, "global/invalid-api-key", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "provider/internal-unavailable", NULL, SUPPLY_TRANSIENT},
    {0, "global/internal-error", NULL, SUPPLY_TRANSIENT},
    {0},
};

const struct adapter adapter_lambda = {
    .name = "lambda",
    .title = "Lambda Cloud",
    .base_url = "https://cloud.lambda.ai",
    .credentials = {"api_key"},
    .options = {"ssh_key"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_NO_STOP | ADAPTER_VM,
    .interval_ns = {[ADAPTER_CREATE] = 12 * NS_PER_S},
    .any_interval_ns = NS_PER_S,
    .settle_ms = 10000,
    .boot_ms = 20 * 60000,
    .errors = errors,
    .open = open_lambda,
    .run = {[ADAPTER_OFFERS] = run_offers,
            [ADAPTER_CREATE] = run_create,
            [ADAPTER_DESCRIBE] = run_describe,
            [ADAPTER_LIST] = run_list,
            [ADAPTER_TERMINATE] = run_terminate},
};
