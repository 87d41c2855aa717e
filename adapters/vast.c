/* Vast.ai: a market of other people's machines. Search, take an ask, watch the instance.
 *
 * Its ways: an ask can be taken once, and slices of one machine vanish together. A create that fails may leave an
 * instance behind (`new_contract`). 200 may say success: false. Intervals by endpoint, 429 as text without Retry-After.
 * UNCONFIRMED: that dph_total of a search for bids is what a bid costs with its disk; that "Insufficient credit" (seen
 * when paying ahead) is also what a create says; the cap on rows of one search. */
#include "adapters/registry.h"
#include "core/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SEARCH_LIMIT 3000
#define PAGES_MAX 400
#define DISK_GB_MIN 8
#define DISK_GB_SEARCHED 20

static bool is_good(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (answer->status == 200 && !json_is_false(json_object_get(answer->json, "success")))
        return true;
    adapter_fail_answer(call, answer);
    return false;
}

/* -- offers -- */

struct search {
    bool is_bid;
};

static void search(struct adapter_call *call);

static struct str country_of(struct str place)
{
    bool has = place.len >= 4 && place.ptr[place.len - 4] == ',' && place.ptr[place.len - 3] == ' ';
    return has ? (struct str){place.ptr + place.len - 2, 2} : (struct str){NULL, 0};
}

static void offer_of(struct adapter_call *call, const json_t *row, bool is_bid)
{
    int64_t id = json_count_at(row, "id"), gpus = json_count_at(row, "num_gpus");
    double ram_mb = json_number_at(row, "gpu_ram", 0), seconds = json_number_at(row, "duration", 0);
    if (id <= 0 || gpus <= 0 || gpus > 1024 || json_is_false(json_object_get(row, "rentable")) ||
        json_true_at(row, "rented") || (is_bid && json_number_at(row, "min_bid", 0) <= 0))
        return;
    struct str ip = str_trim(json_text_at(row, "public_ipaddr"));
    struct adapter_offer offer = {
        .id = adapter_text(call, "%s.%lld", is_bid ? "bid" : "ask", (long long)id),
        .gpu_raw = json_text_at(row, "gpu_name"),
        .vram_bytes = ram_mb > 0 && ram_mb < 1e7 ? (uint64_t)ram_mb << 20 : 0,
        .gpus = (uint32_t)gpus,
        .available = 1,
        .region = json_text_at(row, "geolocation"),
        .country = country_of(json_text_at(row, "geolocation")),
        .zone = adapter_text(call, "machine-%lld", (long long)json_count_at(row, "machine_id")),
        .machine = json_true_at(row, "static_ip") && ip.len ? adapter_text(call, "ip:" STR_FMT, STR_ARG(ip))
                                                            : (struct str){NULL, 0},
        .origin = adapter_text(call, "host-%lld", (long long)json_count_at(row, "host_id")),
        .terms = {.amount = json_decimal_at(call, row, "dph_total"),
                  .currency = STR("USD"),
                  .per = PRICE_PER_MACHINE_HOUR,
                  .gpus = (uint32_t)gpus},
        .is_priced = true,
        .interruptible = is_bid,
        .reliability = json_number_at(row, "reliability2", json_number_at(row, "reliability", -1)),
        .span_max_s = seconds > 0 && seconds < 1e10 ? (int64_t)seconds : 0,
        .is_arm = str_starts(json_text_at(row, "cpu_arch"), STR("arm")),
    };
    adapter_offers(call, &offer, 1);
}

static void on_search(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct search *at = adapter_memory(call, sizeof(*at));
    const json_t *rows = json_at(answer->json, "offers"), *row;
    size_t i;
    if (!at || !is_good(call, answer))
        return;
    if (!json_is_array(rows)) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its search has no list of offers"));
        return;
    }
    json_array_foreach(rows, i, row) offer_of(call, row, at->is_bid);
    if (at->is_bid) {
        adapter_done(call, NULL);
        return;
    }
    at->is_bid = true;
    search(call);
}

static void search(struct adapter_call *call)
{
    const struct search *at = adapter_memory(call, sizeof(*at));
    const char *least = network_option(call_network(call), "reliability_min");
    double reliability = 0.9;
    if (!at)
        return;
    if (least && !str_to_double(str_of(least), &reliability))
        reliability = 0.9;
    json_t *body = json_pack("{s:{s:b}, s:{s:b}, s:{s:b}, s:{s:b}, s:{s:i}, s:{s:f}, s:s, s:[[s, s]], s:i, s:i}",
                             "verified", "eq", network_option(call_network(call), "unverified") == NULL, "external",
                             "eq", 0, "rentable", "eq", 1, "rented", "eq", 0, "direct_port_count", "gte", 1,
                             "reliability2", "gte", reliability, "type", at->is_bid ? "bid" : "on-demand", "order",
                             "dph_total", "asc", "limit", SEARCH_LIMIT, "allocated_storage", DISK_GB_SEARCHED);
    adapter_send(call,
                 &(struct adapter_request){
                     .method = "POST", .path = STR("/api/v0/bundles/"), .take_json = body, .on_answer = on_search});
}

/* -- create -- */

/* Keys of `env` that start with '-' would be options of docker. */
static bool is_name(struct str key)
{
    for (size_t i = 0; i < key.len; i++) {
        char c = key.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || (i && c >= '0' && c <= '9')))
            return false;
    }
    return key.len > 0;
}

static json_t *env_of(const struct supply_order *order)
{
    json_t *env = json_object();
    char key[64];
    for (size_t i = 0; env && i < order->env_count; i++) {
        const struct supply_pair *pair = &order->env[i];
        if (!is_name(pair->key) ||
            json_object_setn_new(env, pair->key.ptr, pair->key.len, json_stringn(pair->value.ptr, pair->value.len))) {
            json_decref(env);
            return NULL;
        }
    }
    for (size_t i = 0; i < order->port_count; i++) {
        snprintf(key, sizeof(key), "-p %u:%u", order->ports[i], order->ports[i]);
        json_object_set_new(env, key, json_string("1"));
    }
    return env;
}

static void on_taken(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct str id = json_id_at(call, answer->json, "new_contract");
    if (answer->status == 200 && json_true_at(answer->json, "success") && id.len) {
        struct supply_instance made = {
            .id = id, .tag = call_tag(call), .state = INSTANCE_PENDING, .price_usd_nano = -1, .interruptible = -1};
        adapter_done(call, &made);
        return;
    }
    adapter_leftover(call, id); /* a bid below the market makes a stopped instance and an error */
    adapter_fail_answer(call, answer);
}

static void run_create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    bool is_bid = str_starts(order->offer, STR("bid."));
    struct str ask = {order->offer.ptr + 4, order->offer.len - 4};
    int64_t number, disk = order->disk_gib > DISK_GB_MIN ? order->disk_gib : DISK_GB_MIN;
    json_t *env = env_of(order), *args = json_array();
    for (size_t i = 1; i < order->argc; i++)
        json_array_append_new(args, json_stringn(order->argv[i].ptr, order->argv[i].len));
    json_t *body =
        json_pack("{s:s, s:s%, s:I, s:s%, s:s, s:s, s:b, s:o, s:o}", "client_id", "me", "image", order->image.ptr,
                  order->image.len, "disk", (json_int_t)disk, "label", order->tag.ptr, order->tag.len, "runtype",
                  "args", "target_state", "running", "cancel_unavail", 1, "env", env, "args", args);
    if (order->offer.len < 5 || !str_to_i64(ask, &number) || !body || is_bid != order->interruptible) {
        json_decref(body);
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("the order cannot be told to it: offer or environment"));
        return;
    }
    if (order->argc) /* args alone would be added to the image's entry point; this takes its place */
        json_object_set_new(body, "onstart", json_stringn(order->argv[0].ptr, order->argv[0].len));
    if (is_bid && order->price_quoted_usd_nano > 0) /* a bid is for the machine, paid as bid; micro-dollars, up */
        json_object_set_new(body, "price",
                            json_real(ceil((double)order->price_quoted_usd_nano * order->gpus / 1000) / 1e6));
    adapter_send(call, &(struct adapter_request){.method = "PUT",
                                                 .path = adapter_text(call, "/api/v0/asks/%lld/", (long long)number),
                                                 .take_json = body,
                                                 .creates = true,
                                                 .takes_errors = true,
                                                 .on_answer = on_taken});
}

/* -- instances -- */

static bool has_text(struct str text, const char *part)
{
    return text.len && memmem(text.ptr, text.len, part, strlen(part));
}

static enum instance_state state_of(const json_t *row)
{
    struct str actual = json_text_at(row, "actual_status"), said = json_text_at(row, "status_msg");
    bool is_stopped = str_eq(json_text_at(row, "intended_status"), STR("stopped")) &&
                      str_eq(json_text_at(row, "cur_state"), STR("stopped"));
    if (is_stopped || str_eq(actual, STR("stopped")) || str_eq(actual, STR("frozen")))
        return INSTANCE_STOPPED; /* asked for, or outbid: Vast sets the intention itself */
    if (str_eq(actual, STR("exited")) || str_eq(actual, STR("offline")) ||
        has_text(said, "OCI runtime create failed") || has_text(said, "Error response from daemon"))
        return INSTANCE_FAILED;
    if (str_eq(actual, STR("running")) || str_eq(actual, STR("unknown")))
        return INSTANCE_RUNNING; /* unknown: no heartbeat lately */
    return INSTANCE_PENDING;     /* null, loading, created, rebooting */
}

static size_t endpoints_of(struct adapter_call *call, const json_t *row,
                           struct supply_endpoint to[static SUPPLY_PORTS_MAX])
{
    struct str ip = str_trim(json_text_at(row, "public_ipaddr"));
    const json_t *ports = json_object_get(row, "ports"), *maps;
    const char *key;
    size_t count = 0;
    json_object_foreach((json_t *)(uintptr_t)ports, key, maps)
    {
        struct str rest = str_of(key), inside = str_next(&rest, '/');
        struct str outside = json_id_at(call, maps, "[0].HostPort");
        int64_t port, mapped;
        if (count < SUPPLY_PORTS_MAX && ip.len && str_eq(rest, STR("tcp")) && str_to_i64(inside, &port) && port > 0 &&
            port < 65536 && str_to_i64(outside, &mapped) && mapped > 0 && mapped < 65536)
            to[count++] = (struct supply_endpoint){
                (uint16_t)port, adapter_text(call, "http://" STR_FMT ":%lld", STR_ARG(ip), (long long)mapped)};
    }
    return count;
}

static struct supply_instance instance_of(struct adapter_call *call, const json_t *row,
                                          struct supply_endpoint endpoints[static SUPPLY_PORTS_MAX])
{
    double hourly = json_number_at(row, "dph_total", -1), gpus = json_number_at(row, "num_gpus", 0);
    const json_t *is_bid = json_object_get(row, "is_bid");
    struct supply_instance one = {.id = json_id_at(call, row, "id"),
                                  .tag = json_text_at(row, "label"),
                                  .state = state_of(row),
                                  .reason = json_text_at(row, "status_msg"),
                                  .endpoints = endpoints,
                                  .price_usd_nano = -1,
                                  .interruptible = json_is_boolean(is_bid) ? json_is_true(is_bid) : -1,
                                  .created_at_ms = json_time_at(row, "start_date"),
                                  .placement = json_text_at(row, "geolocation")};
    if (hourly > 0 && hourly < 1e6 && gpus >= 1)
        one.price_usd_nano = (int64_t)ceil(hourly * 1e9 / gpus);
    if (one.state == INSTANCE_RUNNING)
        one.endpoint_count = endpoints_of(call, row, endpoints);
    return one;
}

static void on_described(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    const json_t *row = json_at(answer->json, "instances");
    if (!is_good(call, answer))
        return;
    if (json_is_null(row)) {
        adapter_fail(call, SUPPLY_NOT_FOUND, STR("no such instance"));
        return;
    }
    struct supply_instance one = instance_of(call, row, endpoints);
    if (json_is_object(row) && one.id.len)
        adapter_done(call, &one);
    else
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer has no instance"));
}

static void on_ended(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (!is_good(call, answer))
        return;
    if (answer->json)
        adapter_done(call, NULL);
    else
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer is empty"));
}

/* DESCRIBE, STOP and TERMINATE differ in the method and the body. */
static void run_on_one(struct adapter_call *call)
{
    enum adapter_op op = call_op(call);
    struct str path =
        adapter_text(call, "/api/v0/instances/" STR_FMT "/", STR_ARG(adapter_url_escaped(call, call_instance(call))));
    struct adapter_request request = {.path = path, .on_answer = op == ADAPTER_DESCRIBE ? on_described : on_ended};
    if (op != ADAPTER_DESCRIBE) {
        request.method = op == ADAPTER_STOP ? "PUT" : "DELETE";
        request.take_json = op == ADAPTER_STOP ? json_pack("{s:s}", "state", "stopped") : json_object();
    }
    adapter_send(call, &request);
}

/* -- list -- */

static void list_page(struct adapter_call *call, struct str token);

static void on_page(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    int *pages = adapter_memory(call, sizeof(*pages));
    const json_t *rows = json_at(answer->json, "instances"), *row;
    struct str next = json_id_at(call, answer->json, "next_token");
    size_t i;
    if (!pages || !is_good(call, answer))
        return;
    if (!json_is_array(rows)) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its listing has no instances"));
        return;
    }
    json_array_foreach(rows, i, row)
    {
        struct supply_instance one = instance_of(call, row, endpoints);
        adapter_instances(call, &one, 1);
    }
    if (!next.len || !json_array_size(rows))
        adapter_done(call, NULL);
    else if (++*pages == PAGES_MAX)
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its listing has no end"));
    else
        list_page(call, adapter_url_escaped(call, next));
}

static void list_page(struct adapter_call *call, struct str token)
{
    struct str path =
        adapter_text(call, "/api/v1/instances/?limit=25%s" STR_FMT, token.len ? "&after_token=" : "", STR_ARG(token));
    adapter_send(call, &(struct adapter_request){.path = path, .on_answer = on_page});
}

static void run_list(struct adapter_call *call)
{
    list_page(call, STR(""));
}

static const struct adapter_error_row errors[] = {
    {0, "auth_error", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, NULL, "invalid user key", SUPPLY_BAD_CREDENTIAL}, /* under 404 from the search */
    {0, NULL, "no_such_ask", SUPPLY_NO_CAPACITY},
    {0, "no_such_ask", NULL, SUPPLY_NO_CAPACITY},
    {0, "no_such_instance", NULL, SUPPLY_NOT_FOUND},
    {0, "invalid_price", NULL, SUPPLY_PRICE_MOVED},
    {0, NULL, "insufficient credit", SUPPLY_NO_FUNDS},
    {0, "insufficient_credit", NULL, SUPPLY_NO_FUNDS},
    {0, NULL, "too frequent", SUPPLY_RATE_LIMITED},
    {200, NULL, "bid", SUPPLY_PRICE_MOVED},
    {0},
};

const struct adapter adapter_vast = {
    .name = "vast",
    .title = "Vast.ai",
    .base_url = "https://console.vast.ai",
    .credentials = {"api_key"},
    .options = {"reliability_min", "unverified"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_INTERRUPTIBLE,
    .interval_ns = {[ADAPTER_OFFERS] = 6 * NS_PER_S,
                    [ADAPTER_CREATE] = 4500 * NS_PER_MS,
                    [ADAPTER_DESCRIBE] = 2 * NS_PER_S,
                    [ADAPTER_LIST] = NS_PER_S,
                    [ADAPTER_STOP] = NS_PER_S,
                    [ADAPTER_TERMINATE] = 3 * NS_PER_S},
    .settle_ms = 15000,
    .boot_ms = 15 * 60000, /* launches die often: better the next offer */
    .errors = errors,
    .run = {[ADAPTER_OFFERS] = search,
            [ADAPTER_CREATE] = run_create,
            [ADAPTER_DESCRIBE] = run_on_one,
            [ADAPTER_LIST] = run_list,
            [ADAPTER_STOP] = run_on_one,
            [ADAPTER_TERMINATE] = run_on_one},
};
