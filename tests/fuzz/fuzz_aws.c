/* Whatever EC2 answers: the adapter asks one thing at a time, ends its call once, hands out what it may, and reads no
 * byte that is not there. The core of networks is played here; answers are EC2's own with bytes of the input in them.
 */
#include "tests/fuzz/fuzz.h"

#include "adapters/network.h"
#include "adapters/registry.h"

#include <stdarg.h>
#include <string.h>

#define ANSWERS_MAX 24
#define TEXTS_MAX 4096

#define INSTANCE                                                                                                    \
    "<item><instanceId>i-1</instanceId><instanceState><name>running</name></instanceState><clientToken>t</"         \
    "clientToken>"                                                                                                  \
    "<tagSet><item><key>sluice-lease</key><value>sluice-abc123-01jd-1</value></item><item><key>sluice-ports</key>"  \
    "<value>8000/22</value></item></tagSet><ipAddress>203.0.113.7</ipAddress><launchTime>2026-11-20T10:00:00Z"      \
    "</launchTime><stateReason><code>Server.InsufficientInstanceCapacity</code><message>no</message></stateReason>" \
    "<instanceLifecycle>spot</instanceLifecycle></item>"
static const char *const answers[] = {
    "<R><reservationSet><item><instancesSet>" INSTANCE
    "</instancesSet></item></reservationSet><nextToken>5</nextToken></R>",
    "<R><reservationSet><item><instancesSet>" INSTANCE "</instancesSet></item></reservationSet></R>",
    "<R><instancesSet>" INSTANCE "</instancesSet></R>",
    ("<R><instanceTypeSet><item><instanceType>p5.48xlarge</instanceType><supportedUsageClasses><item>spot</item><item>"
     "on-demand</item></supportedUsageClasses><gpuInfo><gpus><item><name>H100</name><count>8</count><memoryInfo>"
     "<sizeInMiB>81920</sizeInMiB></memoryInfo></item></gpus></gpuInfo></item></instanceTypeSet></R>"),
    ("<R><spotPriceHistorySet><item><instanceType>p5.48xlarge</instanceType><spotPrice>30.1</spotPrice>"
     "<availabilityZone>us-east-1a</availabilityZone></item></spotPriceHistorySet><nextToken>3</nextToken></R>"),
    ("<R><capacityReservationSet><item><capacityReservationId>cr-1</capacityReservationId><instanceType>p5.48xlarge"
     "</instanceType><availabilityZone>us-east-1a</availabilityZone><availableInstanceCount>3</availableInstanceCount>"
     "<state>active</state><endDate>2098-01-01T11:30:00Z</endDate><reservationType>capacity-block</reservationType>"
     "</item></capacityReservationSet></R>"),
    "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>",
    "<Response><Errors><Error><Code>IdempotentParameterMismatch</Code></Error></Errors></Response>",
};

struct network {
    void *state;
};

struct adapter_call {
    struct network *network;
    const struct supply_order *order;
    enum adapter_op op;
    const uint8_t *data;
    size_t size, text_count;
    void *texts[TEXTS_MAX], *memory;
    adapter_answer_fn *on_answer;
    bool is_over;
    unsigned sum;
};

static void touch(struct adapter_call *call, struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        call->sum += (unsigned char)text.ptr[i];
}

/* -- the core, as the adapter sees it -- */

const char *network_credential(const struct network *network, const char *key)
{
    (void)network;
    return key;
}

const char *network_base_url(const struct network *network)
{
    (void)network;
    return "https://ec2.amazonaws.com";
}

const char *network_option(const struct network *network, const char *key)
{
    (void)network;
    if (!strcmp(key, "region"))
        return "us-east-1";
    return !strcmp(key, "ami") ? "ami-1" : !strcmp(key, "reserved_price.p5.48xlarge") ? "40" : NULL;
}

size_t network_option_count(const struct network *network)
{
    (void)network;
    return 1;
}

struct str network_option_key(const struct network *network, size_t i, struct str *ret_value)
{
    (void)network;
    CHECK(i == 0);
    *ret_value = STR("ami-1");
    return STR("ami");
}

struct str network_id(const struct network *network)
{
    (void)network;
    return STR("aws");
}

void *network_state(const struct network *network)
{
    return network->state;
}

struct str network_tag_prefix(const struct network *network)
{
    (void)network;
    return STR("sluice-abc123-");
}

struct network *call_network(const struct adapter_call *call)
{
    return call->network;
}

const struct supply_order *call_order(const struct adapter_call *call)
{
    return call->order;
}

struct str call_instance(const struct adapter_call *call)
{
    (void)call;
    return STR("i-1");
}

int64_t call_wall_ms(const struct adapter_call *call)
{
    (void)call;
    return INT64_C(1795000000000);
}

void *adapter_memory(struct adapter_call *call, size_t size)
{
    if (!call->memory)
        call->memory = calloc(1, size);
    return call->memory;
}

static struct str keep(struct adapter_call *call, char *text, size_t len)
{
    if (call->text_count == TEXTS_MAX) {
        free(text);
        adapter_fail(call, SUPPLY_TRANSIENT, STR("too much"));
        return (struct str){NULL, 0};
    }
    call->texts[call->text_count++] = text;
    return (struct str){text, len};
}

struct str adapter_text(struct adapter_call *call, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    return len < 0 ? (struct str){NULL, 0} : keep(call, text, (size_t)len);
}

struct str adapter_url_escaped(struct adapter_call *call, struct str text)
{
    char *escaped = calloc(1, 3 * text.len + 1);
    for (size_t i = 0; i < text.len; i++)
        snprintf(escaped + 3 * i, 4, "%%%02X", (unsigned)(unsigned char)text.ptr[i]);
    return keep(call, escaped, 3 * text.len);
}

void adapter_send(struct adapter_call *call, const struct adapter_request *request)
{
    if (call->is_over)
        return;
    CHECK(!call->on_answer && request->on_answer && request->body.len && request->aws_sigv4);
    touch(call, request->body);
    call->on_answer = request->on_answer;
}

void adapter_header(struct adapter_call *call, const char *name, struct str value)
{
    CHECK(name[0]);
    touch(call, value);
}

void adapter_offers(struct adapter_call *call, const struct adapter_offer *offers, size_t count)
{
    for (size_t i = 0; i < count && !call->is_over; i++) {
        CHECK(offers[i].gpus >= 1 && offers[i].gpus <= 64 && offers[i].span_max_s >= 0);
        touch(call, offers[i].id);
        touch(call, offers[i].gpu_raw);
        touch(call, offers[i].zone);
        touch(call, offers[i].terms.amount);
    }
}

static void check_instance(struct adapter_call *call, const struct supply_instance *one)
{
    CHECK(one->state < INSTANCE_STATE_COUNT && one->endpoint_count <= SUPPLY_PORTS_MAX);
    touch(call, one->id);
    touch(call, one->tag);
    touch(call, one->reason);
    touch(call, one->placement);
    for (size_t i = 0; i < one->endpoint_count; i++)
        touch(call, one->endpoints[i].url);
}

void adapter_instances(struct adapter_call *call, const struct supply_instance *instances, size_t count)
{
    for (size_t i = 0; i < count && !call->is_over; i++)
        check_instance(call, &instances[i]);
}

void adapter_done(struct adapter_call *call, const struct supply_instance *instance)
{
    if (call->is_over)
        return;
    CHECK(!call->on_answer && (instance || (call->op != ADAPTER_CREATE && call->op != ADAPTER_DESCRIBE)));
    if (instance)
        check_instance(call, instance);
    call->is_over = true;
}

void adapter_fail(struct adapter_call *call, enum supply_error error, struct str message)
{
    CHECK(error > SUPPLY_OK && error < SUPPLY_ERROR_COUNT);
    touch(call, message);
    call->is_over = true;
}

void adapter_fail_answer(struct adapter_call *call, const struct adapter_answer *told)
{
    struct str code = {NULL, 0}, said = {NULL, 0};
    adapter_aws.explain(told, &code, &said);
    touch(call, code);
    adapter_fail(call, SUPPLY_UNKNOWN, said);
}

void adapter_leftover(struct adapter_call *call, struct str instance)
{
    touch(call, instance);
}

void adapter_uncertain(struct adapter_call *call, bool is_uncertain)
{
    (void)is_uncertain;
    CHECK(call->op == ADAPTER_CREATE);
}

/* -- answers -- */

static void answer(struct adapter_call *call)
{
    static const int statuses[] = {200, 200, 200, 200, 200, 200, 400, 403};
    adapter_answer_fn *on_answer = call->on_answer;
    int status = statuses[fuzz_byte(&call->data, &call->size) % 8];
    const char *from = answers[fuzz_byte(&call->data, &call->size) % (sizeof(answers) / sizeof(*answers))];
    size_t len = strlen(from);
    char *body = malloc(len); /* so that one byte too far is seen */
    CHECK(body);
    memcpy(body, from, len);
    for (int edits = fuzz_byte(&call->data, &call->size) % 8; edits > 0; edits--) {
        size_t at = (size_t)fuzz_byte(&call->data, &call->size) * 256 + fuzz_byte(&call->data, &call->size);
        body[at % len] = (char)fuzz_byte(&call->data, &call->size);
    }
    call->on_answer = NULL;
    on_answer(call, &(struct adapter_answer){.status = status, .body = {body, len}});
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const offers[] = {"od/p5.48xlarge//", "spot/p5.48xlarge/us-east-1a/", "cb/p5/us-east-1a/cr-1",
                                         "ir/p///"};
    static const uint16_t ports[] = {8000, 22};
    char state[64] = {0};
    struct network network = {state};
    struct supply_order order = {.tag = STR("sluice-abc123-01jd-1"),
                                 .offer = str_of(offers[fuzz_byte(&data, &size) % 4]),
                                 .gpus = 8,
                                 .script = STR("#!/bin/sh\n"),
                                 .ports = ports,
                                 .port_count = 2,
                                 .price_max_usd_nano = fuzz_byte(&data, &size) % 2 ? INT64_MAX / 8 : -1,
                                 .interruptible = fuzz_byte(&data, &size) % 2,
                                 .disk_gib = 20};
    struct adapter_call *call = calloc(1, sizeof(*call));
    CHECK(call && adapter_aws.state_size <= sizeof(state) && !adapter_aws.open(&network));
    *call = (struct adapter_call){.network = &network, .order = &order, .op = fuzz_byte(&data, &size) % ADAPTER_OPS};
    call->data = data;
    call->size = size;
    if (adapter_aws.run[call->op])
        adapter_aws.run[call->op](call);
    for (int i = 0; i < ANSWERS_MAX && adapter_aws.run[call->op] && !call->is_over; i++) {
        CHECK(call->on_answer);
        answer(call);
    }
    for (size_t i = 0; i < call->text_count; i++)
        free(call->texts[i]);
    free(call->memory);
    free(call);
    return 0;
}
