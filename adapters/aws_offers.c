/* What EC2 offers in a region: its GPU types, then spot prices a zone, then the account's capacity reservations. On
 * demand and reserved capacity have no price in EC2's API: they are configured, USD an hour for the whole machine, as
 * options `price.<type>` and `reserved_price.<type>`, else as `price.<GPU>` like those of every network without prices.
 * With options `subnet.<zone>` only these zones are offered. */
#include "adapters/aws.h"
#include "adapters/network.h"
#include "core/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TYPES_MAX 128
#define TYPE_MAX 32
#define BLOCK_ENDS_EARLY_MS (45 * 60 * INT64_C(1000)) /* capacity blocks are taken back 30 min before their end */
#define SPAN_LEAST_S 600
/* What is looked for where the configuration names no types; p6e and the like are ARM and marked so. */
static const char types_default[] = "p3*,p4*,p5*,p6*,g4dn.*,g5.*,g6.*,g6e.*,g7*";

struct aws_type {
    char name[TYPE_MAX], gpu[32];
    uint32_t gpus;
    uint64_t vram_bytes;
    bool is_arm, has_spot, has_on_demand;
};

struct memory {
    struct aws_type types[TYPES_MAX];
    size_t count;
    unsigned pages;
};

static struct memory *memory_of(struct adapter_call *call)
{
    return adapter_memory(call, sizeof(struct memory));
}

static const struct aws_type *type_of(const struct memory *memory, struct str name)
{
    for (size_t i = 0; i < memory->count; i++)
        if (str_eq(str_of(memory->types[i].name), name))
            return &memory->types[i];
    return NULL;
}

/* The configured price of a type; absent: none. */
static struct str price_of(struct adapter_call *call, const char *kind, struct str type)
{
    struct str key = adapter_text(call, "%s" STR_FMT, kind, STR_ARG(type));
    return key.ptr ? str_of(network_option(call_network(call), key.ptr)) : key;
}

/* One machine of a type. price: of the machine, absent: the configured one of its GPU. */
static void offer(struct adapter_call *call, const struct aws_type *type, struct adapter_offer row, struct str price)
{
    row.gpu_raw = str_of(type->gpu);
    row.gpu_form = STR("HGX"); /* SXM wherever the model comes as SXM */
    row.vram_bytes = type->vram_bytes;
    row.gpus = type->gpus;
    row.fraction_ppm = 1000000;
    row.region = str_of(network_option(call_network(call), "region"));
    row.is_priced = price.len;
    if (row.is_priced)
        row.terms = (struct price_terms){
            .amount = price, .currency = STR("USD"), .per = PRICE_PER_MACHINE_HOUR, .gpus = type->gpus};
    row.reliability = -1;
    row.is_arm = type->is_arm;
    if (row.id.ptr)
        adapter_offers(call, &row, 1);
}

/* Where machines can be placed: anywhere, or where there are subnets. */
static bool is_open_zone(struct adapter_call *call, struct str zone)
{
    const struct network *network = call_network(call);
    struct str value;
    if (aws_subnet(call, zone))
        return true;
    for (size_t i = 0; i < network_option_count(network); i++)
        if (str_starts(network_option_key(network, i, &value), STR("subnet.")))
            return false;
    return true;
}

/* -- reservations ------------------------------------------------------------------------------------------------ */

static void ask_reservations(struct adapter_call *call, struct str next);

static bool is_or_absent(const json_t *item, const char *member, struct str wanted)
{
    struct str text = json_text_at(item, member);
    return !text.len || str_eq(text, wanted);
}

static void take_reservation(struct adapter_call *call, const struct memory *memory, const json_t *item)
{
    struct str name = json_text_at(item, "instanceType"), zone = json_text_at(item, "availabilityZone");
    struct str reservation = json_text_at(item, "capacityReservationId"), price;
    const struct aws_type *type = type_of(memory, name);
    bool is_block = str_eq(json_text_at(item, "reservationType"), STR("capacity-block"));
    bool is_interruptible = str_eq(json_text_at(item, "interruptible"), STR("true"));
    double left = json_number_at(item, "availableInstanceCount", 0);
    int64_t span_s = 0, end_ms = json_time_at(item, "endDate");
    /* A machine must match it in platform and tenancy, too. */
    if (!type || left < 1 || left > 100000 || !str_eq(json_text_at(item, "state"), STR("active")) || !reservation.len ||
        !zone.len || !is_open_zone(call, zone) || !is_or_absent(item, "instancePlatform", STR("Linux/UNIX")) ||
        !is_or_absent(item, "tenancy", STR("default")))
        return;
    if (end_ms)
        span_s = (end_ms - (is_block ? BLOCK_ENDS_EARLY_MS : 0) - call_wall_ms(call)) / 1000;
    if (end_ms && span_s < SPAN_LEAST_S)
        return;
    price = price_of(call, "reserved_price.", name);
    if (!price.len)
        price = price_of(call, "price.", name);
    offer(call, type,
          (struct adapter_offer){.id = adapter_text(call, "%s/" STR_FMT "/" STR_FMT "/" STR_FMT,
                                                    is_block           ? "cb"
                                                    : is_interruptible ? "ir"
                                                                       : "cr",
                                                    STR_ARG(name), STR_ARG(zone), STR_ARG(reservation)),
                                 .zone = zone,
                                 .available = (uint32_t)left,
                                 .interruptible = is_interruptible,
                                 .span_max_s = span_s},
          price);
}

/* An account or a server that has no such thing has no reservations; the rest of its offers stands. */
static bool is_without(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct network *network = call_network(call);
    struct aws_state *state = network_state(network);
    if (!aws_is_error(answer, "UnauthorizedOperation") && !aws_is_error(answer, "InvalidAction"))
        return false;
    if (!state->is_told_reservations)
        log_warn(&(struct log_ctx){.network = network_id(network).ptr},
                 "capacity reservations cannot be read and are left out: ec2:DescribeCapacityReservations is not "
                 "allowed");
    state->is_told_reservations = true;
    return true;
}

static void on_reservations(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    const json_t *item;
    size_t i;
    if (!memory)
        return;
    if (answer->status >= 300) {
        if (is_without(call, answer))
            adapter_done(call, NULL);
        else
            adapter_fail_answer(call, answer);
        return;
    }
    json_t *tree = aws_tree(call, answer, "capacityReservationSet");
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "capacityReservationSet"), i, item)
    {
        take_reservation(call, memory, item);
    }
    struct str next = json_text_at(tree, "nextToken");
    if (next.len && ++memory->pages < AWS_PAGES_MAX)
        ask_reservations(call, next);
    else
        adapter_done(call, NULL);
    json_decref(tree);
}

static void ask_reservations(struct adapter_call *call, struct str next)
{
    struct buf body;
    aws_begin(&body, "DescribeCapacityReservations");
    if (aws_add(call, &body, "Filter.1.Name", STR("state")) &&
        aws_add(call, &body, "Filter.1.Value.1", STR("active")) &&
        (!next.len || aws_add(call, &body, "NextToken", next)))
        aws_ask(call, &body, AWS_READS_ERRORS, on_reservations);
    else
        buf_free(&body);
}

/* -- spot -------------------------------------------------------------------------------------------------------- */

static void ask_spot(struct adapter_call *call, struct str next);

static void on_spot(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    json_t *tree = memory ? aws_tree(call, answer, "spotPriceHistorySet") : NULL;
    const json_t *item;
    size_t i;
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "spotPriceHistorySet"), i, item)
    {
        struct str name = json_text_at(item, "instanceType"), zone = json_text_at(item, "availabilityZone");
        struct str price = json_text_at(item, "spotPrice");
        const struct aws_type *type = type_of(memory, name);
        if (!type || !type->has_spot || !zone.len || !price.len || !is_open_zone(call, zone))
            continue;
        offer(call, type,
              (struct adapter_offer){
                  .id = adapter_text(call, "spot/" STR_FMT "/" STR_FMT "/", STR_ARG(name), STR_ARG(zone)),
                  .zone = zone,
                  .interruptible = true},
              price);
    }
    struct str next = json_text_at(tree, "nextToken");
    if (next.len && ++memory->pages < AWS_PAGES_MAX)
        ask_spot(call, next);
    else
        ask_reservations(call, (struct str){NULL, 0});
    json_decref(tree);
}

static void ask_spot(struct adapter_call *call, struct str next)
{
    const struct memory *memory = memory_of(call);
    struct buf body;
    char key[40], now[32];
    time_t at = (time_t)(call_wall_ms(call) / 1000);
    struct tm utc;
    size_t count = 0;
    bool fits = memory && gmtime_r(&at, &utc) && strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &utc) > 0;
    aws_begin(&body, "DescribeSpotPriceHistory");
    fits = fits && aws_add(call, &body, "ProductDescription.1", STR("Linux/UNIX")) &&
           aws_add(call, &body, "StartTime", str_of(now)) && (!next.len || aws_add(call, &body, "NextToken", next));
    for (size_t i = 0; fits && i < memory->count; i++) {
        if (!memory->types[i].has_spot)
            continue;
        snprintf(key, sizeof(key), "InstanceType.%zu", ++count);
        fits = aws_add(call, &body, key, str_of(memory->types[i].name));
    }
    if (fits && count) {
        aws_ask(call, &body, AWS_READS, on_spot);
        return;
    }
    buf_free(&body);
    if (fits)
        ask_reservations(call, (struct str){NULL, 0});
}

/* -- types ------------------------------------------------------------------------------------------------------- */

static bool holds(const json_t *list, const char *text)
{
    const json_t *item;
    size_t i;
    json_array_foreach(list, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), text))
            return true;
    }
    return false;
}

/* False: not a type that has whole GPUs. */
static bool take_type(const json_t *item, struct aws_type *ret)
{
    const json_t *gpu = json_at(item, "gpuInfo.gpus[0]"), *uses = json_at(item, "supportedUsageClasses");
    double gpus = json_number_at(gpu, "count", 0), mib = json_number_at(gpu, "memoryInfo.sizeInMiB", 0);
    if (!(gpus >= 1) || gpus > 64 || json_number_at(gpu, "gpuPartitionSize", 1) < 1)
        return false;
    *ret = (struct aws_type){.gpus = (uint32_t)gpus,
                             .vram_bytes = mib > 0 && mib < 4e6 ? (uint64_t)mib << 20 : 0,
                             .is_arm = holds(json_at(item, "processorInfo.supportedArchitectures"), "arm64"),
                             .has_spot = holds(uses, "spot"),
                             .has_on_demand = holds(uses, "on-demand")};
    return str_copy(ret->name, sizeof(ret->name), json_text_at(item, "instanceType")) &&
           str_copy(ret->gpu, sizeof(ret->gpu), json_text_at(gpu, "name")) && *ret->name && *ret->gpu;
}

/* On demand: in any zone, or in each that has a subnet. */
static void offer_on_demand(struct adapter_call *call, const struct aws_type *type)
{
    const struct network *network = call_network(call);
    struct str price = price_of(call, "price.", str_of(type->name)), value;
    bool has_zones = false;
    for (size_t i = 0; i < network_option_count(network); i++) {
        struct str zone = network_option_key(network, i, &value);
        if (!str_starts(zone, STR("subnet.")))
            continue;
        zone = (struct str){zone.ptr + strlen("subnet."), zone.len - strlen("subnet.")};
        has_zones = true;
        offer(call, type,
              (struct adapter_offer){.id = adapter_text(call, "od/%s/" STR_FMT "/", type->name, STR_ARG(zone)),
                                     .zone = zone},
              price);
    }
    if (!has_zones)
        offer(call, type, (struct adapter_offer){.id = adapter_text(call, "od/%s//", type->name)}, price);
}

static void ask_types(struct adapter_call *call, struct str next);

static void on_types(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    json_t *tree = memory ? aws_tree(call, answer, "instanceTypeSet") : NULL;
    const json_t *item;
    size_t i;
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "instanceTypeSet"), i, item)
    {
        struct aws_type *type = &memory->types[memory->count];
        if (memory->count == TYPES_MAX || !take_type(item, type))
            continue;
        memory->count++;
        if (type->has_on_demand)
            offer_on_demand(call, type);
    }
    struct str next = json_text_at(tree, "nextToken");
    if (next.len && ++memory->pages < AWS_PAGES_MAX)
        ask_types(call, next);
    else if (memory->count)
        ask_spot(call, (struct str){NULL, 0});
    else
        adapter_done(call, NULL);
    json_decref(tree);
}

static void ask_types(struct adapter_call *call, struct str next)
{
    const char *given = network_option(call_network(call), "types");
    struct str rest = str_of(given ? given : types_default), name;
    struct buf body;
    char key[40];
    bool fits = true;
    size_t count = 0;
    aws_begin(&body, "DescribeInstanceTypes");
    while (fits && count < TYPES_MAX && (name = str_trim(str_next(&rest, ','))).ptr) {
        snprintf(key, sizeof(key), "Filter.1.Value.%zu", ++count);
        fits = aws_add(call, &body, key, name);
    }
    /* A filter, because a type that the region lacks is an error otherwise. It knows '*', too. */
    if (fits && aws_add(call, &body, "Filter.1.Name", STR("instance-type")) &&
        aws_add(call, &body, "MaxResults", STR("100")) && (!next.len || aws_add(call, &body, "NextToken", next)))
        aws_ask(call, &body, AWS_READS, on_types);
    else
        buf_free(&body);
}

void aws_run_offers(struct adapter_call *call)
{
    ask_types(call, (struct str){NULL, 0});
}
