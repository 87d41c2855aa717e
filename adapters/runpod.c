/* RunPod: pods by REST v2; interruptible ones by GraphQL, the only place that rents them and tells their price.
 *
 * A pod's name is its tag. There is no idempotency key and no filter by name: a second POST makes a second pod, so a
 * create whose answer was lost is looked for in the whole listing. No capacity is a 400 with prose, as a broken rule
 * is. A pod is RUNNING before its container is: only with a `runtime` is it up.
 *
 * UNCONFIRMED, here and nowhere else:
 * - `args` of v2 takes the JSON form that GraphQL's dockerArgs takes ({"entrypoint", "cmd"}); as plain text it would
 *   leave the image's own entrypoint in place.
 * - Pods that GraphQL rented are in v2's listing, and are ended through v2.
 * - A bid under the floor is refused with a message that names the bid; what is bid is what is paid.
 * - The country is read off a data centre's id: "US-KS-2" and "CA-MTL-1" by their first part, others by their second.
 * - How long a listing may lack a new pod (SETTLE_MS). */
#include "adapters/registry.h"
#include "adapters/runpod.h"
#include <stdlib.h>

#define SETTLE_MS 30000
#define BOOT_MS (25 * INT64_C(60000)) /* pulling an image may take 20 minutes */
#define PROXY "proxy.runpod.net"      /* https://<pod>-<port>.<PROXY>: closes a request after 100 s */
#define COST_BPS 10                   /* a pod's cost is a 32-bit float */
#define SECOND_NS INT64_C(1000000000)

const struct runpod_cloud runpod_clouds[RUNPOD_CLOUDS] = {{'S', "SECURE", "secure", "price.secure"},
                                                          {'C', "COMMUNITY", "community", "price.community"}};
const uint32_t runpod_counts[RUNPOD_COUNTS] = {1, 2, 4, 8};

/* -- offers: each cloud and number of GPUs, then what GraphQL says of bids -- */

struct listing {
    size_t step;
};

static void offers_next(struct adapter_call *call);

void runpod_offer(struct offer_batch *batch, const json_t *gpu, char kind, uint32_t gpus, struct str center,
                  struct str price)
{
    bool is_secure = (kind & ~0x20) == 'S';
    struct str gpu_id = json_text_at(gpu, "id"), cloud = is_secure ? STR("secure") : STR("community");
    struct str id =
        adapter_text(batch->call, "%c/%u/" STR_FMT "/" STR_FMT, kind, gpus, STR_ARG(center), STR_ARG(gpu_id));
    struct str rest = center, first = str_next(&rest, '-'), second = str_next(&rest, '-');
    struct str country = str_eq(first, STR("US")) || str_eq(first, STR("CA")) ? first : second;
    int64_t memory = json_at(gpu, "memory") ? json_count_at(gpu, "memory") : json_count_at(gpu, "memoryInGb");
    struct adapter_offer offer = {.id = id, .gpu_raw = gpu_id, .gpus = gpus, .region = center, .origin = cloud};
    offer.country = country.len == 2 ? country : (struct str){0};
    offer.zone = center.len ? center : cloud;
    offer.vram_bytes = memory > 0 && memory < 4096 ? (uint64_t)memory << 30 : 0;
    offer.terms = (struct price_terms){.amount = price, .currency = STR("USD"), .per = PRICE_PER_GPU_HOUR};
    offer.is_priced = true;
    offer.interruptible = kind & 0x20;
    offer.reliability = -1;
    if (gpu_id.len && price.len)
        offer_batch_put(batch, &offer);
}

static void on_catalog(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    const json_t *gpus = json_at(answer->json, "gpus");
    if (!listing)
        return;
    if (!adapter_is_good(answer) || !json_is_array(gpus)) {
        adapter_fail_odd(call, answer, STR("the catalogue of GPUs is none"));
        return;
    }
    const struct runpod_cloud *cloud = &runpod_clouds[listing->step / RUNPOD_COUNTS];
    uint32_t count = runpod_counts[listing->step % RUNPOD_COUNTS];
    struct offer_batch batch = {.call = call};
    for (size_t i = 0; i < json_array_size(gpus) && i < RUNPOD_ROWS_MAX; i++) {
        const json_t *gpu = json_array_get(gpus, i), *centers = json_at(gpu, "dataCenters");
        struct str level = json_text_at(gpu, "availability");
        /* Absent where none can be had anywhere. A price may stand for a cloud that does not offer it. */
        if (!json_true_at(gpu, cloud->offered) || !level.len || str_eq(level, STR("NONE")))
            continue;
        struct str price = json_decimal_at(call, gpu, cloud->price);
        if (!json_array_size(centers))
            runpod_offer(&batch, gpu, cloud->kind, count, STR(""), price);
        for (size_t j = 0; j < json_array_size(centers) && j < 1024; j++) {
            const json_t *center = json_array_get(centers, j);
            level = json_text_at(center, "availability");
            if (level.len && !str_eq(level, STR("NONE")) && json_text_at(center, "id").len)
                runpod_offer(&batch, gpu, cloud->kind, count, json_text_at(center, "id"), price);
        }
    }
    offer_batch_end(&batch);
    listing->step++;
    offers_next(call);
}

static void offers_next(struct adapter_call *call)
{
    struct listing *listing = adapter_memory(call, sizeof *listing);
    if (!listing)
        return;
    if (listing->step >= RUNPOD_COUNTS && listing->step < RUNPOD_CLOUDS * RUNPOD_COUNTS &&
        adapter_option_is(call, "community", "no"))
        listing->step = RUNPOD_CLOUDS * RUNPOD_COUNTS;
    if (listing->step < RUNPOD_CLOUDS * RUNPOD_COUNTS) {
        struct str path = adapter_text(call, "/v2/catalog/gpus?include=AVAILABILITY&product=POD&count=%u&cloud=%s",
                                       runpod_counts[listing->step % RUNPOD_COUNTS],
                                       runpod_clouds[listing->step / RUNPOD_COUNTS].name);
        adapter_get(call, path, on_catalog);
    } else if (adapter_option_is(call, "spot", "no")) {
        adapter_done(call, NULL);
    } else {
        runpod_ask_bids(call);
    }
}

/* -- pods -- */

/* The answer's "8000/http" among the ports asked for; what else is open on the host is not ours to tell. */
static bool port_read(struct str text, uint16_t *ret_port, bool *ret_is_http)
{
    struct str number = str_next(&text, '/');
    int64_t port;
    if (!str_to_i64(number, &port) || port < 1 || port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    *ret_is_http = str_eq(text, STR("http"));
    return *ret_is_http || str_eq(text, STR("tcp"));
}

static struct str tcp_url(struct adapter_call *call, const json_t *runtime, uint16_t port)
{
    const json_t *ports = json_at(runtime, "ports");
    for (size_t i = 0; i < json_array_size(ports) && i < 256; i++) {
        const json_t *row = json_array_get(ports, i);
        int64_t outside = json_count_at(row, "public");
        struct str ip = json_text_at(row, "ip");
        if (json_count_at(row, "private") == port && str_eq(json_text_at(row, "type"), STR("tcp")) && ip.len &&
            outside > 0 && outside <= UINT16_MAX)
            return adapter_text(call, "tcp://" STR_FMT ":%u", STR_ARG(ip), (unsigned)outside);
    }
    return (struct str){0};
}

static size_t endpoints_read(struct adapter_call *call, const json_t *pod, struct str id,
                             struct supply_endpoint ret[static SUPPLY_PORTS_MAX])
{
    const char *proxy = network_option(call_network(call), "proxy");
    const json_t *ports = json_at(pod, "ports");
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(ports) && count < SUPPLY_PORTS_MAX; i++) {
        const json_t *row = json_array_get(ports, i);
        bool is_http;
        struct supply_endpoint *to = &ret[count];
        if (!port_read(str_of(json_string_value(row)), &to->port, &is_http))
            continue;
        to->url = is_http ? adapter_text(call, "https://" STR_FMT "-%u.%s", STR_ARG(id), (unsigned)to->port,
                                         proxy ? proxy : PROXY)
                          : tcp_url(call, json_at(pod, "runtime"), to->port);
        count += to->url.len > 0;
    }
    return count;
}

/* The pod costs so much an hour with all its GPUs; 0 while it is stopped. */
static int64_t price_read(struct adapter_call *call, const json_t *pod)
{
    int64_t gpus = json_count_at(pod, "gpu.count");
    struct price_terms terms = {.amount = json_decimal_at(call, pod, "cost"),
                                .currency = STR("USD"),
                                .per = PRICE_PER_MACHINE_HOUR,
                                .gpus = gpus > 0 && gpus < PRICE_GPUS_MAX ? (uint32_t)gpus : 1};
    return adapter_price(call, &terms);
}

static enum instance_state state_read(const json_t *pod)
{
    struct str status = json_text_at(pod, "status");
    if (str_eq(status, STR("RUNNING")))
        return json_is_object(json_at(pod, "runtime")) ? INSTANCE_RUNNING : INSTANCE_PENDING;
    if (str_eq(status, STR("EXITED")))
        return INSTANCE_STOPPED;
    if (str_eq(status, STR("ERROR")))
        return INSTANCE_FAILED;
    return str_eq(status, STR("TERMINATED")) ? INSTANCE_GONE : INSTANCE_PENDING;
}

static struct supply_instance pod_read(struct adapter_call *call, const json_t *pod,
                                       struct supply_endpoint endpoints[static SUPPLY_PORTS_MAX])
{
    struct str id = json_text_at(pod, "id");
    enum instance_state state = state_read(pod);
    return (struct supply_instance){.id = id,
                                    .tag = json_text_at(pod, "name"),
                                    .state = state,
                                    .reason = json_text_at(pod, "status"),
                                    .endpoints = endpoints,
                                    .endpoint_count =
                                        state == INSTANCE_RUNNING ? endpoints_read(call, pod, id, endpoints) : 0,
                                    .price_usd_nano = price_read(call, pod),
                                    .interruptible = -1,
                                    .created_at_ms = json_time_at(pod, "createdAt"),
                                    .placement = json_text_at(pod, "dataCenterId")};
}

static void on_pod(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance instance = pod_read(call, answer->json, endpoints);
    if (adapter_is_good(answer) && instance.id.len)
        adapter_done(call, &instance);
    else
        adapter_fail_odd(call, answer, STR("its answer is no pod"));
}

static struct str pod_path(struct adapter_call *call, const char *more)
{
    struct str id = adapter_url_escaped(call, call_instance(call));
    return id.ptr ? adapter_text(call, "/v2/pods/" STR_FMT "%s", STR_ARG(id), more) : (struct str){0};
}

static void describe(struct adapter_call *call)
{
    adapter_get(call, pod_path(call, ""), on_pod);
}

static void on_pods(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct str prefix = network_tag_prefix(call_network(call));
    const json_t *pods = json_at(answer->json, "pods");
    if (!adapter_is_good(answer) || !json_is_array(pods)) {
        adapter_fail_odd(call, answer, STR("the list of pods is none"));
        return;
    }
    for (size_t i = 0; i < json_array_size(pods) && i < RUNPOD_ROWS_MAX; i++) {
        struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
        const json_t *pod = json_array_get(pods, i);
        if (!str_starts(json_text_at(pod, "name"), prefix))
            continue;
        struct supply_instance instance = pod_read(call, pod, endpoints);
        if (instance.id.len && instance.state != INSTANCE_GONE)
            adapter_instances(call, &instance, 1);
    }
    adapter_done(call, NULL);
}

static void list(struct adapter_call *call)
{
    adapter_get(call, STR("/v2/pods"), on_pods);
}

static void stop(struct adapter_call *call)
{
    adapter_post(call, pod_path(call, "/action"), json_pack("{s:s}", "action", "stop"), false, adapter_done_if_good);
}

static void terminate(struct adapter_call *call)
{
    adapter_delete(call, pod_path(call, ""), adapter_done_if_good);
}

/* -- create -- */

static bool offer_read(struct str offer, struct runpod_wish *ret)
{
    struct str kind = str_next(&offer, '/'), gpus = str_next(&offer, '/');
    ret->center = str_next(&offer, '/');
    ret->gpu = offer;
    if (kind.len != 1 || !ret->gpu.len || !str_to_i64(gpus, &ret->gpus) || ret->gpus < 1 || ret->gpus > 64)
        return false;
    ret->is_bid = kind.ptr[0] & 0x20;
    ret->cloud = (kind.ptr[0] & ~0x20) == 'S' ? &runpod_clouds[0] : &runpod_clouds[1];
    return (kind.ptr[0] & ~0x20) == ret->cloud->kind;
}

const char *runpod_port_kind(struct adapter_call *call, uint16_t port)
{
    return port == 22 || adapter_option_is(call, "expose", "tcp") ? "tcp" : "http";
}

json_t *runpod_args(const struct supply_order *order)
{
    if (!order->argc)
        return json_string("");
    json_t *args = json_with_command(json_object(), order, "cmd");
    char *text = args ? json_dumps(args, JSON_COMPACT) : NULL;
    json_t *made = text ? json_string(text) : NULL;
    free(text);
    json_decref(args);
    return made;
}

static json_t *pod_body(struct adapter_call *call, const struct supply_order *order, const struct runpod_wish *wish)
{
    json_t *ports = json_array(), *centers = json_array();
    for (size_t i = 0; i < order->port_count; i++)
        json_array_append_new(ports, json_sprintf("%u/%s", order->ports[i], runpod_port_kind(call, order->ports[i])));
    if (wish->center.len)
        json_array_append_new(centers, json_of_text(wish->center));
    return json_pack("{s:o,s:o,s:{s:o,s:I},s:s,s:I,s:o,s:o,s:o,s:o}", "name", json_of_text(order->tag), "image",
                     json_of_text(order->image), "gpu", "id", json_of_text(wish->gpu), "count", (json_int_t)wish->gpus,
                     "cloud", wish->cloud->name, "disk", (json_int_t)order->disk_gib, "args", runpod_args(order), "env",
                     json_of_env(order), "ports", ports, "dataCenterIds", centers);
}

/* What it costs shows only now. */
static void on_created(struct adapter_call *call, const struct adapter_answer *answer)
{
    int64_t cap = call_order(call)->price_max_usd_nano;
    if (answer->status == 403) { /* this GPU is not for this account; the key and other GPUs may be fine */
        adapter_fail(call, SUPPLY_UNKNOWN, json_text_at(answer->json, "detail"));
    } else if (adapter_is_good(answer) && cap >= 0 && price_moved(cap, price_read(call, answer->json), COST_BPS)) {
        adapter_leftover(call, json_text_at(answer->json, "id"));
        adapter_fail(call, SUPPLY_PRICE_MOVED, STR("it costs more than it may"));
    } else {
        on_pod(call, answer);
    }
}

static void create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    struct runpod_wish wish;
    if (!offer_read(order->offer, &wish))
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("this is no offer of RunPod"));
    else if (wish.is_bid)
        runpod_bid(call, &wish);
    else
        adapter_post(call, STR("/v2/pods"), pod_body(call, order, &wish), true, on_created);
}

/* v2: {"title", "detail", "errors": ["..."]}; GraphQL: {"errors": [{"message", "extensions": {"code"}}]}. */
static void explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message)
{
    static const char *const texts[] = {"errors[0].message", "errors[0]", "detail", "title", "error", "message"};
    *ret_code = json_text_at(answer->json, "errors[0].extensions.code");
    for (size_t i = 0; i < sizeof texts / sizeof *texts && !ret_message->len; i++)
        *ret_message = json_text_at(answer->json, texts[i]);
    if (!answer->json)
        *ret_message = answer->body;
}

static const struct adapter_error_row errors[] = {
    {0, NULL, "no longer any instances available", SUPPLY_NO_CAPACITY},
    {0, NULL, "no instances available", SUPPLY_NO_CAPACITY},
    {0, NULL, "does not have the resources", SUPPLY_NO_CAPACITY},
    {0, NULL, "not enough free gpus", SUPPLY_NO_CAPACITY},
    {0, NULL, "out of capacity", SUPPLY_NO_CAPACITY},
    {0, NULL, "insufficient resources", SUPPLY_NO_CAPACITY},
    {0, NULL, "no capacity", SUPPLY_NO_CAPACITY},
    {0, NULL, "pod not found", SUPPLY_NOT_FOUND},
    {0, NULL, "balance", SUPPLY_NO_FUNDS},
    {0, NULL, "limit for", SUPPLY_QUOTA},
    {0, NULL, "quota", SUPPLY_QUOTA},
    {200, NULL, "bid", SUPPLY_PRICE_MOVED},
    {200, "UNAUTHENTICATED", NULL, SUPPLY_BAD_CREDENTIAL},
    {200, "FORBIDDEN", NULL, SUPPLY_BAD_CREDENTIAL},
    {200, "BAD_USER_INPUT", NULL, SUPPLY_BAD_REQUEST},
    {200, "GRAPHQL_VALIDATION_FAILED", NULL, SUPPLY_BAD_REQUEST},
    {200, "INTERNAL_SERVER_ERROR", NULL, SUPPLY_TRANSIENT},
    {0},
};

const struct adapter adapter_runpod = {
    .name = "runpod",
    .title = "RunPod",
    .base_url = "https://api.runpod.io",
    .credentials = {"api_key"},
    .options = {"community", "spot", "expose", "proxy"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_INTERRUPTIBLE,
    .any_interval_ns = SECOND_NS, /* 60 a minute */
    .deadline_ns = {[ADAPTER_OFFERS] = 120 * SECOND_NS},
    .settle_ms = SETTLE_MS,
    .boot_ms = BOOT_MS,
    .errors = errors,
    .explain = explain,
    .run = {[ADAPTER_OFFERS] = offers_next,
            [ADAPTER_CREATE] = create,
            [ADAPTER_DESCRIBE] = describe,
            [ADAPTER_LIST] = list,
            [ADAPTER_STOP] = stop,
            [ADAPTER_TERMINATE] = terminate},
};
