/* EC2 of one region: on demand, spot, and into a reseller's capacity reservations and capacity blocks. Form posts
 * signed with SigV4, answers in XML. An offer's id is "<market>/<type>/<zone>/<reservation>", market one of od, spot,
 * cr (a capacity reservation), ir (an interruptible one), cb (a capacity block).
 *
 * Options: region and ami (an image with Docker and the GPU's driver) are needed. types: of machines, "p5*,g6e.*".
 * price.<type>, reserved_price.<type>: USD an hour of a machine on demand, in a reservation. subnet.<zone>: only these
 * zones are used. security_group, key_name, profile (of IAM), root_device (of the image, /dev/sda1).
 * Permissions: ec2:DescribeInstances, DescribeInstanceTypes, DescribeSpotPriceHistory, DescribeCapacityReservations
 * (may be left out), RunInstances, CreateTags, StopInstances, TerminateInstances; iam:PassRole for a profile.
 *
 * Not confirmed by a first-party text: the HTTP status of most errors (codes decide, not statuses); that a capacity
 * block cannot be given back (nothing here buys one). */
#include "adapters/aws.h"
#include "adapters/registry.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define SCRIPT_MAX 16384 /* of user data, before it is encoded */
#define TAG_KEY "sluice-lease"
#define TAG_PORTS "sluice-ports"

struct list_memory {
    unsigned pages;
};

static const struct {
    const char *name, *type; /* type: of InstanceMarketOptions; NULL: none */
} markets[] = {{"od", NULL},
               {"cr", NULL},
               {"spot", "spot"},
               {"ir", "interruptible-capacity-reservation"},
               {"cb", "capacity-block"}};

/* -- instances --------------------------------------------------------------------------------------------------- */

static enum instance_state state_of(struct str name)
{
    if (str_eq(name, STR("running")))
        return INSTANCE_RUNNING;
    if (str_eq(name, STR("shutting-down")) || str_eq(name, STR("stopping")))
        return INSTANCE_STOPPING;
    if (str_eq(name, STR("stopped")))
        return INSTANCE_STOPPED;
    return str_eq(name, STR("terminated")) ? INSTANCE_GONE : INSTANCE_PENDING;
}

static struct str tag_of(const json_t *item)
{
    const json_t *tags = json_at(item, "tagSet"), *tag;
    size_t i;
    json_array_foreach(tags, i, tag)
    {
        if (str_eq(json_text_at(tag, "key"), STR(TAG_KEY)))
            return json_text_at(tag, "value");
    }
    return json_text_at(item, "clientToken"); /* the same text */
}

/* The machine's address serves the ports of the tag TAG_PORTS, "8000/22". */
static size_t endpoints_of(struct adapter_call *call, const json_t *item, struct supply_endpoint *ret)
{
    const json_t *tags = json_at(item, "tagSet"), *tag;
    struct str host = json_text_at(item, "ipAddress"), ports = {NULL, 0};
    size_t count = 0, i;
    if (!host.len)
        host = json_text_at(item, "privateIpAddress");
    json_array_foreach(tags, i, tag)
    {
        if (str_eq(json_text_at(tag, "key"), STR(TAG_PORTS)))
            ports = json_text_at(tag, "value");
    }
    while (ports.ptr && host.len && count < SUPPLY_PORTS_MAX) {
        int64_t port;
        if (!str_to_i64(str_next(&ports, '/'), &port) || port < 1 || port > 65535)
            continue;
        struct str url = adapter_text(call, "http://" STR_FMT ":%d", STR_ARG(host), (int)port);
        if (!url.ptr)
            return 0;
        ret[count++] = (struct supply_endpoint){(uint16_t)port, url};
    }
    return count;
}

static void instance_of(struct adapter_call *call, const json_t *item, struct supply_instance *ret,
                        struct supply_endpoint *endpoints)
{
    struct str lifecycle = json_text_at(item, "instanceLifecycle"), why = json_text_at(item, "stateReason.message");
    *ret = (struct supply_instance){.id = json_text_at(item, "instanceId"),
                                    .tag = tag_of(item),
                                    .state = state_of(json_text_at(item, "instanceState.name")),
                                    .reason = why.len ? why : json_text_at(item, "reason"),
                                    .price_usd_nano = -1,
                                    .interruptible = str_eq(lifecycle, STR("spot")) ||
                                                     str_eq(lifecycle, STR("interruptible-capacity-reservation")),
                                    .created_at_ms = json_time_at(item, "launchTime"),
                                    .placement = json_text_at(item, "placement.availabilityZone")};
    ret->endpoints = endpoints;
    ret->endpoint_count = ret->state == INSTANCE_RUNNING ? endpoints_of(call, item, endpoints) : 0;
}

static void on_made(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance instance;
    if (answer->status >= 300) {
        if (aws_is_error(answer, "IdempotentParameterMismatch")) /* an earlier try of this attempt made it */
            adapter_uncertain(call, true);
        adapter_fail_answer(call, answer);
        return;
    }
    json_t *tree = aws_tree(call, answer, "instancesSet[0]");
    if (!tree)
        return;
    const json_t *item = json_at(tree, "instancesSet[0]");
    instance_of(call, item, &instance, endpoints);
    if (!instance.id.len) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer names no instance"));
    } else if (instance.state == INSTANCE_GONE) { /* an old token's, or it ended at once */
        bool is_full = str_starts(json_text_at(item, "stateReason.code"), STR("Server.Insufficient"));
        adapter_uncertain(call, false);
        adapter_fail(call, is_full ? SUPPLY_NO_CAPACITY : SUPPLY_FAILED, instance.reason);
    } else if (instance.interruptible != call_order(call)->interruptible) {
        adapter_leftover(call, instance.id);
        adapter_fail(call, SUPPLY_UNKNOWN, STR("it made another kind of instance than was asked for"));
    } else {
        adapter_done(call, &instance);
    }
    json_decref(tree);
}

/* The most that the machine may cost an hour, in USD: what rounding took from the price of one of its GPUs is given
 * back, less than a millionth of a dollar. False: no cap. */
static bool bid(const struct supply_order *order, char *ret, size_t size)
{
    int64_t cap, gpus = order->gpus ? (int64_t)order->gpus : 1;
    if (order->price_max_usd_nano < 0 || __builtin_mul_overflow(order->price_max_usd_nano, gpus, &cap) ||
        __builtin_add_overflow(cap, gpus - 1, &cap))
        return false;
    snprintf(ret, size, "%lld.%06lld", (long long)(cap / 1000000000), (long long)(cap % 1000000000 / 1000));
    return true;
}

/* Where it is to run, and as what. */
static bool add_market(struct adapter_call *call, struct buf *body, const char *type, struct str zone,
                       struct str reservation)
{
    const char *subnet = zone.len ? aws_subnet(call, zone) : NULL;
    char price[48];
    if (zone.len &&
        !aws_add(call, body, subnet ? "SubnetId" : "Placement.AvailabilityZone", subnet ? str_of(subnet) : zone))
        return false;
    if (type && !aws_add(call, body, "InstanceMarketOptions.MarketType", str_of(type)))
        return false;
    if (type && !strcmp(type, "spot"))
        return (!bid(call_order(call), price, sizeof(price)) ||
                aws_add(call, body, "InstanceMarketOptions.SpotOptions.MaxPrice", str_of(price))) &&
               aws_add(call, body, "InstanceMarketOptions.SpotOptions.SpotInstanceType", STR("one-time")) &&
               aws_add(call, body, "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", STR("terminate"));
    if (reservation.len)
        return aws_add(call, body, "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId",
                       reservation);
    return aws_add(call, body, "CapacityReservationSpecification.CapacityReservationPreference", STR("none"));
}

static bool add_tags(struct adapter_call *call, struct buf *body)
{
    const struct supply_order *order = call_order(call);
    char ports[SUPPLY_PORTS_MAX * 6 + 1] = "";
    size_t len = 0;
    for (size_t i = 0; i < order->port_count && i < SUPPLY_PORTS_MAX; i++)
        len += (size_t)snprintf(ports + len, sizeof(ports) - len, "%s%u", i ? "/" : "", (unsigned)order->ports[i]);
    return aws_add(call, body, "TagSpecification.1.ResourceType", STR("instance")) &&
           aws_add(call, body, "TagSpecification.1.Tag.1.Key", STR(TAG_KEY)) &&
           aws_add(call, body, "TagSpecification.1.Tag.1.Value", order->tag) &&
           aws_add(call, body, "TagSpecification.1.Tag.2.Key", STR("Name")) &&
           aws_add(call, body, "TagSpecification.1.Tag.2.Value", order->tag) &&
           (!len || (aws_add(call, body, "TagSpecification.1.Tag.3.Key", STR(TAG_PORTS)) &&
                     aws_add(call, body, "TagSpecification.1.Tag.3.Value", (struct str){ports, len})));
}

static bool add_machine(struct adapter_call *call, struct buf *body)
{
    static const struct {
        const char *option, *key;
    } options[] = {
        {"security_group", "SecurityGroupId.1"}, {"key_name", "KeyName"}, {"profile", "IamInstanceProfile.Name"}};
    const struct network *network = call_network(call);
    const char *root = network_option(network, "root_device");
    char disk[24];
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        const char *value = network_option(network, options[i].option);
        if (value && !aws_add(call, body, options[i].key, str_of(value)))
            return false;
    }
    snprintf(disk, sizeof(disk), "%lld", (long long)call_order(call)->disk_gib);
    /* One hop: what runs in a container cannot ask for the machine's own user data and role. */
    return aws_add(call, body, "ImageId", str_of(network_option(network, "ami"))) &&
           aws_add(call, body, "ClientToken", call_order(call)->tag) &&
           aws_add(call, body, "InstanceInitiatedShutdownBehavior", STR("terminate")) &&
           aws_add(call, body, "MetadataOptions.HttpTokens", STR("required")) &&
           aws_add(call, body, "MetadataOptions.HttpPutResponseHopLimit", STR("1")) &&
           aws_add(call, body, "BlockDeviceMapping.1.DeviceName", str_of(root ? root : "/dev/sda1")) &&
           aws_add(call, body, "BlockDeviceMapping.1.Ebs.VolumeSize", str_of(disk)) &&
           aws_add(call, body, "BlockDeviceMapping.1.Ebs.DeleteOnTermination", STR("true"));
}

static struct str base64(struct adapter_call *call, struct str text)
{
    unsigned char encoded[SCRIPT_MAX / 3 * 4 + 8];
    if (text.len > SCRIPT_MAX) {
        adapter_fail(call, SUPPLY_BAD_REQUEST,
                     STR("the command and its environment are over the 16 KiB that EC2 takes"));
        return (struct str){NULL, 0};
    }
    int len = EVP_EncodeBlock(encoded, (const unsigned char *)(text.len ? text.ptr : ""), (int)text.len);
    return adapter_text(call, "%.*s", len, (const char *)encoded);
}

static void run_create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    struct str rest = order->offer, market = str_next(&rest, '/'), type = str_next(&rest, '/');
    struct str zone = str_next(&rest, '/'), reservation = str_next(&rest, '/');
    size_t m = 0, count = sizeof(markets) / sizeof(*markets);
    struct buf body;
    while (m < count && !str_eq(market, str_of(markets[m].name)))
        m++;
    if (m == count || !type.len) {
        adapter_fail(call, SUPPLY_NO_CAPACITY, STR("no such offer"));
        return;
    }
    struct str script = base64(call, order->script);
    aws_begin(&body, "RunInstances");
    if (script.ptr && aws_add(call, &body, "InstanceType", type) && aws_add(call, &body, "MinCount", STR("1")) &&
        aws_add(call, &body, "MaxCount", STR("1")) && add_machine(call, &body) && add_tags(call, &body) &&
        add_market(call, &body, markets[m].type, zone, reservation) && aws_add(call, &body, "UserData", script))
        aws_ask(call, &body, AWS_CREATES, on_made);
    else
        buf_free(&body);
}

static void on_described(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct supply_instance instance;
    json_t *tree = aws_tree(call, answer, "reservationSet");
    if (!tree)
        return;
    instance_of(call, json_at(tree, "reservationSet[0].instancesSet[0]"), &instance, endpoints);
    if (str_eq(instance.id, call_instance(call)))
        adapter_done(call, &instance);
    else
        adapter_fail(call, SUPPLY_NOT_FOUND, STR("no such instance"));
    json_decref(tree);
}

static void by_instance(struct adapter_call *call, const char *action, adapter_answer_fn *on_answer)
{
    struct buf body;
    aws_begin(&body, action);
    if (aws_add(call, &body, "InstanceId.1", call_instance(call)))
        aws_ask(call, &body, AWS_READS, on_answer);
    else
        buf_free(&body);
}

static void run_describe(struct adapter_call *call)
{
    by_instance(call, "DescribeInstances", on_described);
}

static void on_said(struct adapter_call *call, const struct adapter_answer *answer)
{
    json_t *tree = aws_tree(call, answer, "instancesSet[0].instanceId");
    if (!tree)
        return;
    json_decref(tree);
    adapter_done(call, NULL);
}

static void run_stop(struct adapter_call *call)
{
    by_instance(call, "StopInstances", on_said);
}

static void run_terminate(struct adapter_call *call)
{
    by_instance(call, "TerminateInstances", on_said);
}

static void list_page(struct adapter_call *call, struct str next);

static void on_list(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct list_memory *memory = adapter_memory(call, sizeof(*memory));
    json_t *tree = memory ? aws_tree(call, answer, "reservationSet") : NULL;
    const json_t *reservation, *item;
    size_t r, i;
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "reservationSet"), r, reservation)
    {
        json_array_foreach(json_at(reservation, "instancesSet"), i, item)
        {
            struct supply_instance instance;
            instance_of(call, item, &instance, endpoints);
            if (instance.id.len && instance.state != INSTANCE_GONE)
                adapter_instances(call, &instance, 1);
        }
    }
    struct str next = json_text_at(tree, "nextToken");
    if (next.len && ++memory->pages < AWS_PAGES_MAX)
        list_page(call, next);
    else if (next.len)
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its listing has no end"));
    else
        adapter_done(call, NULL);
    json_decref(tree);
}

static void list_page(struct adapter_call *call, struct str next)
{
    static const char *const states[] = {"pending", "running", "shutting-down", "stopping", "stopped"};
    struct buf body;
    char key[32];
    struct str tags = adapter_text(call, STR_FMT "*", STR_ARG(network_tag_prefix(call_network(call))));
    aws_begin(&body, "DescribeInstances");
    bool fits = tags.ptr && aws_add(call, &body, "Filter.1.Name", STR("tag:" TAG_KEY)) &&
                aws_add(call, &body, "Filter.1.Value.1", tags) && aws_add(call, &body, "MaxResults", STR("500")) &&
                (!next.len || aws_add(call, &body, "NextToken", next)) &&
                aws_add(call, &body, "Filter.2.Name", STR("instance-state-name"));
    for (size_t i = 0; fits && i < sizeof(states) / sizeof(*states); i++) {
        snprintf(key, sizeof(key), "Filter.2.Value.%zu", i + 1);
        fits = aws_add(call, &body, key, str_of(states[i]));
    }
    if (fits)
        aws_ask(call, &body, AWS_READS, on_list);
    else
        buf_free(&body);
}

static void run_list(struct adapter_call *call)
{
    list_page(call, (struct str){NULL, 0});
}

static const char *open_network(struct network *network)
{
    const char *region = network_option(network, "region");
    if (!region || !*region || strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") != strlen(region))
        return "options.region is needed, such as us-east-1";
    return network_option(network, "ami") ? NULL : "options.ami is needed: an image with Docker and the GPU's driver";
}

const struct adapter adapter_aws = {
    .name = "aws",
    .title = "AWS EC2",
    .base_url = AWS_GENERAL_URL,
    .credentials = {"access_key", "secret_key", "?session_token"},
    .options = {"region", "ami", "types", "subnet.*", "security_group", "key_name", "profile", "root_device",
                "reserved_price.*"},
    .traits = ADAPTER_NO_LOGS | ADAPTER_INTERRUPTIBLE | ADAPTER_VM | ADAPTER_IDEMPOTENT | ADAPTER_IMPORTED_PRICE,
    .any_interval_ns = 20 * 1000000,
    .settle_ms = 60000,
    .boot_ms = 15 * 60000,
    .errors = aws_errors,
    .state_size = sizeof(struct aws_state),
    .open = open_network,
    .authorise = aws_authorise,
    .explain = aws_explain,
    .run = {[ADAPTER_OFFERS] = aws_run_offers,
            [ADAPTER_CREATE] = run_create,
            [ADAPTER_DESCRIBE] = run_describe,
            [ADAPTER_LIST] = run_list,
            [ADAPTER_STOP] = run_stop,
            [ADAPTER_TERMINATE] = run_terminate},
};
