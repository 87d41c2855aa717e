/* What EC2 offers in a region: its GPU types, then spot prices a zone, then the account's capacity reservations. On
 * demand and reserved capacity have no price in EC2's API: they are configured, USD an hour for the whole machine, as
 * options `price.<type>` and `reserved_price.<type>`. */
#include "adapters/aws.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TYPES_MAX 64
#define TYPE_MAX 32
#define BLOCK_ENDS_EARLY_MS (45 * 60 * INT64_C(1000)) /* capacity blocks are taken back 30 min before their end */
/* GPU types of today, where the configuration names none. */
static const char types_default[] =
    "p5.48xlarge,p5e.48xlarge,p5en.48xlarge,p4d.24xlarge,p4de.24xlarge,g6e.xlarge,g6e.12xlarge,g6e.48xlarge,g6.xlarge,"
    "g6.12xlarge,g5.xlarge,g5.12xlarge,g5.48xlarge,g4dn.xlarge,g4dn.12xlarge,p3.2xlarge,p3.16xlarge";

struct aws_type {
    char name[TYPE_MAX], gpu[32];
    uint32_t gpus;
    uint64_t vram_bytes;
    bool is_arm, is_fraction, has_spot, has_on_demand;
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

static void offer(struct adapter_call *call, const struct aws_type *type, struct str id, struct str zone,
                  struct str price, uint32_t available, bool interruptible, int64_t span_max_s)
{
    const struct adapter_offer row = {.id = id,
                                      .gpu_raw = str_of(type->gpu),
                                      .gpu_form = STR("HGX"), /* SXM wherever the model comes as SXM */
                                      .vram_bytes = type->vram_bytes,
                                      .gpus = type->gpus ? type->gpus : 1,
                                      .fraction_ppm = type->is_fraction ? 0 : 1000000,
                                      .available = available,
                                      .region = str_of(network_option(call_network(call), "region")),
                                      .zone = zone,
                                      .terms = {.amount = price,
                                                .currency = STR("USD"),
                                                .per = PRICE_PER_MACHINE_HOUR,
                                                .gpus = type->gpus ? type->gpus : 1},
                                      .is_priced = true,
                                      .interruptible = interruptible,
                                      .reliability = -1,
                                      .span_max_s = span_max_s,
                                      .is_arm = type->is_arm};
    if (id.ptr && price.len && !type->is_fraction)
        adapter_offers(call, &row, 1);
}

/* -- reservations ------------------------------------------------------------------------------------------------ */

static void ask_reservations(struct adapter_call *call, struct str next);

static void on_reservations(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    json_t *tree = memory ? aws_tree(call, answer) : NULL;
    const json_t *item;
    size_t i;
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "capacityReservationSet"), i, item)
    {
        struct str name = json_text_at(item, "instanceType"), zone = json_text_at(item, "availabilityZone");
        struct str reservation = json_text_at(item, "capacityReservationId"), price;
        const struct aws_type *type = type_of(memory, name);
        bool is_block = str_eq(json_text_at(item, "reservationType"), STR("capacity-block"));
        double left = json_number_at(item, "availableInstanceCount", 0);
        int64_t span_s = 0, end_ms = json_time_at(item, "endDate");
        if (!type || left < 1 || left > 100000 || !str_eq(json_text_at(item, "state"), STR("active")))
            continue;
        if (end_ms)
            span_s = (end_ms - (is_block ? BLOCK_ENDS_EARLY_MS : 0) - call_wall_ms(call)) / 1000;
        if (end_ms && span_s < 600)
            continue;
        price = price_of(call, "reserved_price.", name);
        if (!price.len)
            price = price_of(call, "price.", name);
        offer(call, type,
              adapter_text(call, "%s/" STR_FMT "/" STR_FMT "/" STR_FMT, is_block ? "cb" : "cr", STR_ARG(name),
                           STR_ARG(zone), STR_ARG(reservation)),
              zone, price, (uint32_t)left, false, span_s);
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
    if (!next.len || aws_add(call, &body, "NextToken", next))
        aws_ask(call, &body, false, on_reservations);
    else
        buf_free(&body);
}

/* -- spot -------------------------------------------------------------------------------------------------------- */

static void ask_spot(struct adapter_call *call, struct str next);

static void on_spot(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    json_t *tree = memory ? aws_tree(call, answer) : NULL;
    const json_t *item;
    size_t i;
    if (!tree)
        return;
    json_array_foreach(json_at(tree, "spotPriceHistorySet"), i, item)
    {
        struct str name = json_text_at(item, "instanceType"), zone = json_text_at(item, "availabilityZone");
        const struct aws_type *type = type_of(memory, name);
        if (type && type->has_spot && zone.len)
            offer(call, type, adapter_text(call, "spot/" STR_FMT "/" STR_FMT "/", STR_ARG(name), STR_ARG(zone)), zone,
                  json_text_at(item, "spotPrice"), 0, true, 0);
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
    bool fits = memory && gmtime_r(&at, &utc) && strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &utc) > 0;
    aws_begin(&body, "DescribeSpotPriceHistory");
    fits = fits && aws_add(call, &body, "ProductDescription.1", STR("Linux/UNIX")) &&
           aws_add(call, &body, "StartTime", str_of(now)) && (!next.len || aws_add(call, &body, "NextToken", next));
    for (size_t i = 0; fits && i < memory->count; i++) {
        snprintf(key, sizeof(key), "InstanceType.%zu", i + 1);
        fits = aws_add(call, &body, key, str_of(memory->types[i].name));
    }
    if (fits)
        aws_ask(call, &body, false, on_spot);
    else
        buf_free(&body);
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

static bool take_type(const json_t *item, struct aws_type *ret)
{
    const json_t *gpu = json_at(item, "gpuInfo.gpus[0]");
    double gpus = json_number_at(gpu, "count", 0), mib = json_number_at(gpu, "memoryInfo.sizeInMiB", 0);
    *ret = (struct aws_type){.gpus = gpus >= 1 && gpus <= 64 ? (uint32_t)gpus : 0,
                             .vram_bytes = mib > 0 && mib < 4e6 ? (uint64_t)mib << 20 : 0,
                             .is_arm = holds(json_at(item, "processorInfo.supportedArchitectures"), "arm64"),
                             .is_fraction = gpus < 1 || json_number_at(gpu, "gpuPartitionSize", 1) < 1,
                             .has_spot = holds(json_at(item, "supportedUsageClasses"), "spot"),
                             .has_on_demand = holds(json_at(item, "supportedUsageClasses"), "on-demand")};
    return gpu && str_copy(ret->name, sizeof(ret->name), json_text_at(item, "instanceType")) &&
           str_copy(ret->gpu, sizeof(ret->gpu), json_text_at(gpu, "name")) && *ret->name && *ret->gpu;
}

static void on_types(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct memory *memory = memory_of(call);
    json_t *tree = memory ? aws_tree(call, answer) : NULL;
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
        struct str name = str_of(type->name);
        if (type->has_on_demand)
            offer(call, type, adapter_text(call, "od/" STR_FMT "//", STR_ARG(name)), (struct str){NULL, 0},
                  price_of(call, "price.", name), 0, false, 0);
    }
    json_decref(tree);
    if (memory->count)
        ask_spot(call, (struct str){NULL, 0});
    else
        adapter_done(call, NULL);
}

void aws_run_offers(struct adapter_call *call)
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
    /* A filter, because a type that the region lacks is an error otherwise. */
    if (fits && aws_add(call, &body, "Filter.1.Name", STR("instance-type")))
        aws_ask(call, &body, false, on_types);
    else
        buf_free(&body);
}
