/* Akash by the Console API (managed wallet, paid in dollars).
 *
 * There is no firm offer: what is listed are statistics of bids, and the price is known once a deployment was made and
 * providers have bid for it. So create is a deployment with the most it may cost in its SDL, a wait for bids, and a
 * lease with the cheapest; a deployment without a lease keeps its deposit and is ended again.
 *
 * The service is named by the tag, which shows once the lease's provider answers. A deployment that never got a lease
 * shows no name at all: with `account: dedicated` (nobody else uses the account) one that is older than any create may
 * be is listed under the tag of no lease, so that it is ended; else it cannot be told from others' and is left alone.
 *
 * UNCONFIRMED, all of it here:
 * - a leased wallet's key may be limited by an edge in front of the API: REQUESTS_NS is our own caution;
 * - `deposit` is ignored where deposits are managed, and at least 5 otherwise: DEPOSIT_USD;
 * - an SDL must expose something: AKASH_IDLE_PORT (akash_sdl.h); its spelling of interfaces: offer_read
 * (akash_create.c);
 * - gpuModels of providers are spelled as models of prices are: case and "Gi" are not told apart;
 * - bids for a deployment that asks in uact come in uact: one in another currency counts by its rate, if that is known;
 * - the block time of 6 s is an average of the chain: BLOCK_MS. */
#include "adapters/akash_priv.h"
#include "adapters/akash_sdl.h"
#include "adapters/registry.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS_NS (50 * NS_PER_MS)
#define DEPOSIT_USD 5
#define CPU_PER_GPU 4
#define MEMORY_GIB_PER_GPU 16
#define BID_WAIT_MS 30000
#define CLOCKS_MS 10000 /* between ours and the server's */
#define BID_POLL_MS 2000
#define PAGE 100
#define PAGES_MAX 100

static bool option(const struct network *network, const char *key, int64_t otherwise, int64_t most, int64_t *ret)
{
    const char *text = network_option(network, key);
    *ret = otherwise;
    return !text || (str_to_i64(str_of(text), ret) && *ret >= 1 && *ret <= most);
}

static const char *akash_open(struct network *network)
{
    struct akash *akash = network_state(network);
    struct str account = str_of(network_option(network, "account"));
    struct str estimate = str_of(network_option(network, "estimate"));
    akash->is_dedicated = str_eq(account, STR("dedicated"));
    if (account.len && !akash->is_dedicated && !str_eq(account, STR("shared")))
        return "option account: dedicated or shared";
    if (estimate.len && !str_eq(estimate, STR("min")) && !str_eq(estimate, STR("med")) &&
        !str_eq(estimate, STR("avg")) && !str_eq(estimate, STR("weightedAverage")) && !str_eq(estimate, STR("max")))
        return "option estimate: min, med, avg, weightedAverage or max";
    akash->estimate = estimate.len ? estimate.ptr : "med";
    bool ok = option(network, "deposit_usd", DEPOSIT_USD, 10000, &akash->deposit) &&
              option(network, "cpu_per_gpu", CPU_PER_GPU, 256, &akash->cpu) &&
              option(network, "memory_gib_per_gpu", MEMORY_GIB_PER_GPU, 4096, &akash->memory_gib) &&
              option(network, "bid_wait_ms", BID_WAIT_MS, AKASH_CREATE_MS - 30000, &akash->bid_wait_ms) &&
              option(network, "bid_poll_ms", BID_POLL_MS, BID_WAIT_MS, &akash->bid_poll_ms) &&
              option(network, "deadline_ms", AKASH_CREATE_MS, INT64_C(3600000), &akash->create_ms);
    return ok ? NULL : "options deposit_usd, cpu_per_gpu, memory_gib_per_gpu, bid_wait_ms, bid_poll_ms: whole numbers";
}

static void akash_authorise(struct network *network, struct adapter_call *call)
{
    adapter_header(call, "x-api-key", str_of(network_credential(network, "api_key")));
}

static void akash_explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message)
{
    *ret_code = json_text_at(answer->json, "code");
    *ret_message = json_text_at(answer->json, "message");
    if (!ret_message->len)
        *ret_message = answer->body; /* providers that are not found: plain text */
}

/* -- one deployment as an instance -- */

struct seen {
    struct supply_instance instance;
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
};

static struct akash_known *known_slot(struct adapter_call *call, struct str dseq)
{
    struct akash *akash = network_state(call_network(call));
    return &akash->known[str_hash(dseq, 1) % AKASH_KNOWN_MAX];
}

/* NULL: not known. */
static struct akash_known *known_find(struct adapter_call *call, struct str dseq)
{
    struct akash_known *known = known_slot(call, dseq);
    return str_eq(str_of(known->dseq), dseq) ? known : NULL;
}

void akash_note(struct adapter_call *call, struct str dseq, struct str tag, uint32_t gpus)
{
    struct akash_known *known = known_slot(call, dseq);
    *known = (struct akash_known){.gpus = gpus};
    if (!str_copy(known->dseq, sizeof(known->dseq), dseq) || !str_copy(known->tag, sizeof(known->tag), tag))
        *known = (struct akash_known){0};
}

/* The lease that counts: the active one, else the last. */
static const json_t *lease_of(const json_t *data)
{
    const json_t *leases = json_at(data, "leases"), *lease = NULL, *found = NULL;
    size_t i = 0;
    json_array_foreach(leases, i, lease)
    {
        found = lease;
        if (i == PAGE || str_eq(json_text_at(lease, "state"), STR("active")))
            break;
    }
    return found;
}

int64_t akash_price(struct adapter_call *call, const json_t *price, uint32_t gpus)
{
    struct price_terms terms = {.amount = json_text_at(price, "amount"),
                                .currency = json_text_at(price, "denom"),
                                .per = PRICE_PER_BLOCK,
                                .gpus = gpus,
                                .block_ms = BLOCK_MS};
    int64_t usd_nano = -1;
    return adapter_worth(call, &terms, &usd_nano) == ERR_NONE ? usd_nano : -1;
}

static void endpoint_add(struct adapter_call *call, struct seen *seen, int64_t port, struct str scheme, struct str host,
                         int64_t outside)
{
    if (seen->instance.endpoint_count == SUPPLY_PORTS_MAX || port < 1 || port > 65535 || port == AKASH_IDLE_PORT ||
        outside > 65535 || !host.len || host.len > 255 || !akash_is_word(host))
        return;
    struct str url = outside > 0
                         ? adapter_text(call, STR_FMT STR_FMT ":%" PRId64, STR_ARG(scheme), STR_ARG(host), outside)
                         : adapter_text(call, STR_FMT STR_FMT, STR_ARG(scheme), STR_ARG(host));
    seen->endpoints[seen->instance.endpoint_count++] = (struct supply_endpoint){(uint16_t)port, url};
}

static void endpoints_read(struct adapter_call *call, const json_t *status, struct str service, struct seen *seen)
{
    const json_t *of = json_object_getn(json_at(status, "services"), service.ptr, service.len), *row = NULL;
    size_t i = 0;
    json_array_foreach(json_at(of, "uris"), i, row)
    {
        struct str host = str_of(json_string_value(row));
        endpoint_add(call, seen, AKASH_HTTP_PORT, STR("http://"), host, 0);
        break; /* the others are names of the same */
    }
    of = json_object_getn(json_at(status, "forwarded_ports"), service.ptr, service.len);
    json_array_foreach(of, i, row) endpoint_add(call, seen, json_count_at(row, "port"), STR("tcp://"),
                                                json_text_at(row, "host"), json_count_at(row, "externalPort"));
    of = json_object_getn(json_at(status, "ips"), service.ptr, service.len);
    json_array_foreach(of, i, row) endpoint_add(call, seen, json_count_at(row, "Port"), STR("tcp://"),
                                                json_text_at(row, "IP"), json_count_at(row, "ExternalPort"));
}

/* What the provider says of the service that carries a tag of ours. */
static void service_read(struct adapter_call *call, const json_t *status, struct seen *seen)
{
    struct str prefix = network_tag_prefix(call_network(call));
    json_t *services = json_object_get(status, "services"), *service = NULL;
    const char *name = NULL;
    json_object_foreach(services, name, service)
    {
        if (!str_starts(str_of(name), prefix))
            continue;
        seen->instance.tag = adapter_text(call, "%s", name);
        if (!known_find(call, seen->instance.id))
            akash_note(call, seen->instance.id, str_of(name), 0);
        endpoints_read(call, status, str_of(name), seen);
        if (json_count_at(service, "ready_replicas") < 1)
            return;
        seen->instance.state = INSTANCE_RUNNING;
        known_slot(call, seen->instance.id)->was_ready = true;
        return;
    }
}

static bool is_in_creation(struct adapter_call *call, struct str dseq)
{
    const struct akash *akash = network_state(call_network(call));
    int64_t made_ms = 0, now_ms = call_wall_ms(call); /* the server makes it of its clock in ms */
    return str_to_i64(dseq, &made_ms) && made_ms > now_ms - akash->create_ms - CLOCKS_MS;
}

/* data: what GET of a deployment gives, or a row of the list (which lacks status). */
static void deployment_read(struct adapter_call *call, const json_t *data, struct str dseq, struct seen *ret)
{
    struct supply_instance *instance = &ret->instance;
    const json_t *lease = lease_of(data);
    const struct akash_known *known = known_find(call, dseq);
    struct str lease_state = json_text_at(lease, "state"), why = json_text_at(lease, "reason");
    int64_t made_ms = 0;
    *ret = (struct seen){0};
    *instance = (struct supply_instance){.id = dseq,
                                         .tag = str_of(known ? known->tag : NULL),
                                         .state = INSTANCE_PENDING,
                                         .endpoints = ret->endpoints,
                                         .price_usd_nano = -1,
                                         .interruptible = 0,
                                         .placement = json_text_at(lease, "id.provider")};
    if (str_to_i64(dseq, &made_ms))
        instance->created_at_ms = made_ms;
    if (lease && known && known->gpus)
        instance->price_usd_nano = akash_price(call, json_at(lease, "price"), known->gpus);
    if (lease && !str_eq(lease_state, STR("active")))
        instance->reason =
            adapter_text(call, "lease " STR_FMT "%s" STR_FMT, STR_ARG(lease_state), why.len ? ": " : "", STR_ARG(why));
    if (!str_eq(json_text_at(data, "deployment.state"), STR("active")))
        instance->state = INSTANCE_GONE;
    else if (!lease && !is_in_creation(call, dseq))
        instance->state = INSTANCE_STOPPED,
        instance->reason = STR("a deployment without a lease: its deposit is locked");
    else if (lease && !str_eq(lease_state, STR("active")))
        instance->state = INSTANCE_FAILED;
    else if (lease && json_is_object(json_at(lease, "status")))
        service_read(call, json_at(lease, "status"), ret);
    else if (lease && json_at(lease, "status"))
        instance->reason = STR("its provider tells nothing of it (yet)");
}

static void describe_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    const json_t *data = json_at(answer->json, "data");
    struct seen seen;
    if (!json_text_at(data, "deployment.state").len) {
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its answer has no deployment"));
        return;
    }
    deployment_read(call, data, call_instance(call), &seen);
    adapter_done(call, &seen.instance);
}

static void get_deployment(struct adapter_call *call, struct str dseq, bool takes_errors, adapter_answer_fn *then)
{
    struct str path = adapter_text(call, "/v1/deployments/" STR_FMT, STR_ARG(adapter_url_escaped(call, dseq)));
    adapter_send(call, &(struct adapter_request){.path = path, .takes_errors = takes_errors, .on_answer = then});
}

static void akash_describe(struct adapter_call *call)
{
    get_deployment(call, call_instance(call), false, describe_on_answer);
}

static void terminate_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (json_true_at(answer->json, "data.success"))
        adapter_done(call, NULL);
    else
        adapter_fail(call, SUPPLY_UNKNOWN, STR("it did not say that the deployment was closed"));
}

void akash_close_deployment(struct adapter_call *call, struct str dseq, bool takes_errors, adapter_answer_fn *then)
{
    struct str path = adapter_text(call, "/v1/deployments/" STR_FMT, STR_ARG(adapter_url_escaped(call, dseq)));
    adapter_send(call, &(struct adapter_request){
                           .method = "DELETE", .path = path, .takes_errors = takes_errors, .on_answer = then});
}

static void akash_terminate(struct adapter_call *call)
{
    akash_close_deployment(call, call_instance(call), false, terminate_on_answer);
}

/* -- list: pages of what is active, and a look at each whose name is not known -- */

struct listing {
    int64_t skip;
    size_t page, count, at;
    bool has_more;
    char todo[PAGE][AKASH_DSEQ_MAX];
};

static void list_next(struct adapter_call *call);

static void list_on_deployment(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof(*listing));
    struct seen seen;
    if (answer->status == 200) {
        deployment_read(call, json_at(answer->json, "data"), str_of(listing->todo[listing->at - 1]), &seen);
        if (seen.instance.tag.len)
            adapter_instances(call, &seen.instance, 1);
    } else if (answer->status != 404) {
        adapter_fail_answer(call, answer);
        return;
    }
    list_next(call);
}

/* A deployment that shows no name. With a lease it has one, whenever its provider tells: it is never guessed at. */
static void list_unnamed(struct adapter_call *call, struct seen *seen)
{
    const struct akash *akash = network_state(call_network(call));
    struct str prefix = network_tag_prefix(call_network(call));
    if (!akash->is_dedicated || seen->instance.state == INSTANCE_PENDING || is_in_creation(call, seen->instance.id))
        return;
    seen->instance.tag = adapter_text(call, STR_FMT AKASH_NO_LEASE, STR_ARG(prefix));
    adapter_instances(call, &seen->instance, 1);
}

static void list_on_page(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof(*listing));
    const json_t *rows = json_at(answer->json, "data.deployments"), *row = NULL;
    size_t i = 0;
    if (!json_is_array(rows)) {
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its answer has no deployments"));
        return;
    }
    listing->count = listing->at = 0;
    listing->has_more = json_array_size(rows) > 0 && json_true_at(answer->json, "data.pagination.hasMore");
    listing->skip += (int64_t)json_array_size(rows);
    json_array_foreach(rows, i, row)
    {
        struct str dseq = json_id_at(call, row, "deployment.id.dseq");
        struct seen seen;
        if (i == PAGE || !dseq.len || dseq.len >= AKASH_DSEQ_MAX)
            continue;
        deployment_read(call, row, dseq, &seen);
        const struct akash_known *known = known_find(call, dseq);
        if (known) {
            if (seen.instance.state == INSTANCE_PENDING && known->was_ready)
                seen.instance.state = INSTANCE_RUNNING;
            adapter_instances(call, &seen.instance, 1);
        } else if (lease_of(row) && seen.instance.state == INSTANCE_PENDING &&
                   str_copy(listing->todo[listing->count], AKASH_DSEQ_MAX, dseq)) {
            listing->count++;
        } else {
            list_unnamed(call, &seen);
        }
    }
    list_next(call);
}

static void list_page(struct adapter_call *call, const struct listing *listing)
{
    struct str path = adapter_text(call, "/v1/deployments?skip=%" PRId64 "&limit=%d", listing->skip, PAGE);
    adapter_send(call, &(struct adapter_request){.path = path, .on_answer = list_on_page});
}

static void list_next(struct adapter_call *call)
{
    struct listing *listing = adapter_memory(call, sizeof(*listing));
    if (listing->at < listing->count) {
        get_deployment(call, str_of(listing->todo[listing->at++]), true, list_on_deployment);
    } else if (!listing->has_more) {
        adapter_done(call, NULL);
    } else if (++listing->page == PAGES_MAX) {
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its list has no end"));
    } else {
        list_page(call, listing);
    }
}

static void akash_list(struct adapter_call *call)
{
    struct listing *listing = adapter_memory(call, sizeof(*listing));
    if (listing)
        list_page(call, listing);
}

static const struct adapter_error_row akash_errors[] = {
    {0, NULL, "no longer open", SUPPLY_NO_CAPACITY},
    {402, NULL, NULL, SUPPLY_NO_FUNDS},
    {0, NULL, "insufficient funds", SUPPLY_NO_FUNDS},
    {0, NULL, "not enough balance", SUPPLY_NO_FUNDS},
    {0, NULL, "deposit", SUPPLY_BAD_CREDENTIAL}, /* too low, or required: the option deposit_usd */
    {0, "unauthorized", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "forbidden", NULL, SUPPLY_BAD_CREDENTIAL},
    {0, "rate_limited", NULL, SUPPLY_RATE_LIMITED},
    {0, "service_unavailable", NULL, SUPPLY_TRANSIENT},
    {0, "not_found", NULL, SUPPLY_NOT_FOUND},
    {404, NULL, "not found", SUPPLY_NOT_FOUND},
    {0, "validation_error", NULL, SUPPLY_BAD_REQUEST},
    {0, NULL, "invalid sdl", SUPPLY_BAD_REQUEST},
    {0, NULL, NULL, SUPPLY_OK},
};

const struct adapter adapter_akash = {
    .name = "akash",
    .title = "Akash",
    .base_url = "https://console-api.akash.network",
    .credentials = {"api_key"},
    .options = {"account", "estimate", "deposit_usd", "cpu_per_gpu", "memory_gib_per_gpu", "bid_wait_ms",
                "bid_poll_ms"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_ESTIMATED | ADAPTER_NO_STOP,
    .any_interval_ns = REQUESTS_NS,
    .deadline_ns = {[ADAPTER_CREATE] = AKASH_CREATE_MS * NS_PER_MS, [ADAPTER_LIST] = 60 * NS_PER_S},
    .settle_ms = 15000,
    .boot_ms = 20 * 60 * 1000,
    .errors = akash_errors,
    .state_size = sizeof(struct akash),
    .open = akash_open,
    .authorise = akash_authorise,
    .explain = akash_explain,
    .run = {[ADAPTER_OFFERS] = akash_offers,
            [ADAPTER_CREATE] = akash_create,
            [ADAPTER_DESCRIBE] = akash_describe,
            [ADAPTER_LIST] = akash_list,
            [ADAPTER_TERMINATE] = akash_terminate},
};
