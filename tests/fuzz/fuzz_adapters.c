/* Whatever networks answer: an adapter does one thing at a time, ends its call once, hands out what it may, and reads
 * no byte that is not there. The core of networks is played here: answers are made of the input, mostly of words that
 * the adapters look for, so that they get past the first look. */
#include "tests/fuzz/fuzz.h"

#include "adapters/registry.h"

#include <stdarg.h>
#include <string.h>

#define ANSWERS_MAX 24
#define DEPTH_MAX 6
#define TEXTS_MAX 4096
#define MEMORY_MAX ((size_t)64 << 10)

/* What a network answers when all is well, in the order of its adapter's questions or any other. */
static const char *const runpod[] = {
    ("{'gpus':[{'id':'NVIDIA GeForce RTX 4090','memory':24,'secure':true,'community':true,"
     "'price':{'secure':0.69,'community':0.34},'availability':'HIGH','dataCenters':[{'id':'US-KS-2',"
     "'availability':'HIGH'},{'id':'EU-RO-1','availability':'NONE'}]}]}"),
    ("{'data':{'gpuTypes':[{'id':'NVIDIA H100 NVL','memoryInGb':94,'s1':{'minimumBidPrice':1.5,"
     "'stockStatus':'High'},'c8':{'minimumBidPrice':'0.2','stockStatus':null}}]}}"),
    ("{'id':'7h9k2m4n6p','name':'sluice-abc123-01jd-1','ports':['8000/http','22/tcp'],'status':'RUNNING',"
     "'gpu':{'id':'x','count':1},'dataCenterId':'US-KS-2','cost':0.69,'runtime':{'ports':[{'private':22,"
     "'public':34446,'type':'tcp','ip':'195.26.233.3'}]},'createdAt':'2026-06-01T12:00:00Z'}"),
    "{'pods':[{'id':'a','name':'sluice-abc123-01jd-1','status':'EXITED'},{'id':'b','name':'somebody'}]}",
    "{'data':{'podRentInterruptable':{'id':'7h9k','costPerHr':0.2}}}",
    ("{'errors':[{'message':'There are no longer any instances available','extensions':{'code':'RUNPOD'}}],"
     "'data':null}"),
    "{'title':'Bad Request','status':400,'detail':'out of capacity','errors':['$.gpu: value must be object']}",
};
static const char *const nosana[] = {
    ("[{'address':'97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf','slug':'nvidia-5090','name':'NVIDIA 8x A5000',"
     "'type':'PREMIUM','usd_reward_per_hour':0.33055,'network_fee_percentage':12.5,'metadata':[{'key':'vram',"
     "'value':'32 GB'}]}]"),
    ("{'id':'4fGk','name':'sluice-abc123-01jd-1','market':'97G9','status':'RUNNING',"
     "'endpoints':[{'opId':'main','port':80,'url':'https://x.example'}],'active_jobs':1,"
     "'created_at':'2026-08-21T10:00:00.000Z'}"),
    "{'id':'4fGk','name':'sluice-abc123-01jd-1','status':'STOPPED','endpoints':[]}",
    "{'id':'4fGk','name':'sluice-abc123-01jd-1','status':'DRAFT'}",
    ("{'deployments':[{'id':'4fGk','name':'sluice-abc123-01jd-1','status':'STOPPING'}],"
     "'pagination':{'cursor_next':'MTA='}}"),
    "{'status':'STARTING','updated_at':'2026-08-21T10:00:00.000Z'}",
    "{'error':'Deployment is in the incorrect state.'}",
};
static const char *const ionet[] = {
    ("{'data':{'hardware':[{'hardware_id':203,'hardware_name':'H100 PCIe','max_gpus_per_container':8,"
     "'available':12},{'hardware_id':'gpu_1x_a6000','hardware_name':'RTX A6000','max_gpus_per_container':1,"
     "'available':3}],'total':2}}"),
    ("{'data':[{'id':1,'iso2':'US','name':'United States','available_replicas':4},{'id':'DE','iso2':'DE',"
     "'name':'Germany','available_replicas':9}]}"),
    "{'data':{'replica_count':1,'total_cost_usdc':3.98}}",
    "{'data':true}",
    "{'status':'deployment requested','deployment_id':'0f0c'}",
    ("{'data':{'id':'0f0c','status':'running','created_at':'2026-01-05T10:00:00Z',"
     "'locations':[{'name':'Norway'}]}}"),
    "{'data':{'total':1,'workers':[{'status':'running','public_url':'https://x.example'}]}}",
    ("{'data':{'deployments':[{'id':7,'status':'termination requested','name':'sluice-abc123-01jd-1'},{'id':8,"
     "'status':'completed','name':'x'}],'total':300}}"),
    "{'data':{'deployments':[],'total':2}}",
    "{'detail':[{'loc':['body','duration_hours'],'msg':'field required','type':'value_error.missing'}]}",
};
static const char *const akash[] = {
    ("{'models':[{'vendor':'nvidia','model':'h100','ram':'80Gi','interface':'SXM5','availability':{'total':16,"
     "'available':12},'price':{'min':1.1,'med':2.49,'avg':2.5,'max':'3'}}]}"),
    ("[{'owner':'akash1prov','isOnline':true,'ipCountryCode':'US','uptime7d':0.998,'gpuModels':[{'vendor':'nvidia',"
     "'model':'h100','ram':'80Gi','interface':'SXM5'},{'vendor':'nvidia','model':'h100','ram':'80','interface':''}]}]"),
    "{'data':{'dseq':'1766000000000','manifest':'[]','signTx':{'code':0}}}",
    ("{'data':[{'bid':{'id':{'dseq':'1766000000000','gseq':1,'oseq':1,'provider':'akash1prov'},'state':'open',"
     "'price':{'denom':'uact','amount':'100.000000000000000000'}}},{'bid':{'id':{'gseq':1,'oseq':1,"
     "'provider':'akash1other'},'state':'open','price':{'denom':'uact','amount':'90.5'}}},{'bid':{'id':{'gseq':1,"
     "'oseq':1,'provider':'akash1dear'},'state':'open','price':{'denom':'uact','amount':'900000'}}}]}"),
    ("{'data':{'deployment':{'id':{'dseq':'1766000000000'},'state':'active'},'leases':[{'id':{'provider':'akash1prov'},"
     "'state':'active','price':{'denom':'uact','amount':'2916.0'},'status':{'forwarded_ports':{'sluice-abc123-01jd-1':"
     "[{'port':22,'externalPort':31022,'host':'provider.example'}]},'ips':{'sluice-abc123-01jd-1':[{'IP':'203.0.113.7',"
     "'Port':80,'ExternalPort':80}]},'services':{'sluice-abc123-01jd-1':{'uris':['abc.example'],'ready_replicas':1}}}}]"
     "}}"),
    ("{'data':{'deployment':{'id':{'dseq':'7'},'state':'active'},'leases':[{'state':'insufficient_funds',"
     "'reason':'lease_closed_reason_insufficient_funds','status':null}]}}"),
    ("{'data':{'deployments':[{'deployment':{'id':{'dseq':'1766000000001'},'state':'active'},'leases':[{'state':'"
     "active',"
     "'id':{'provider':'akash1prov'}}]},{'deployment':{'id':{'dseq':'1700000000000'},'state':'active'},'leases':[]}],"
     "'pagination':{'hasMore':true}}}"),
    "{'data':{'deployments':[],'pagination':{'hasMore':false}}}",
    "{'data':{'success':true}}",
    "{'error':'BadRequestError','message':'Cannot create lease: The selected bid is no longer "
    "open','code':'bad_request'}",
};
static const char *const kubernetes[] = {
    ("{'metadata':{'continue':'tok'},'items':[{'metadata':{'name':'g1','labels':{'nvidia.com/gpu.product':'NVIDIA-L4',"
     "'nvidia.com/gpu.memory':'23034','topology.kubernetes.io/zone':'z','nvidia.com/"
     "gpu.replicas':'4'}},'spec':{'taints':"
     "[{'key':'nvidia.com/gpu','effect':'NoSchedule'}]},'status':{'allocatable':{'nvidia.com/gpu':'8',"
     "'nvidia.com/mig-1g.5gb':7,'amd.com/gpu':'9999999'},'conditions':[{'type':'Ready','status':'True'}]}},{'metadata':"
     "{'name':'g2','labels':{'beta.amd.com/gpu.device-id.74b5':'8'}},'status':{'allocatable':{'amd.com/gpu':'8'},"
     "'conditions':[{'type':'Ready','status':'True'}]}}]}"),
    ("{'metadata':{},'items':[{'metadata':{'name':'sluice-abc123-01jd-1','labels':{'sluice-tag':'sluice-abc123-01jd-1'}"
     "},"
     "'spec':{'nodeName':'g1','containers':[{'resources':{'limits':{'nvidia.com/"
     "gpu':'3','cpu':'1'}}}],'initContainers':"
     "[{'resources':{'limits':{'nvidia.com/gpu':'4','nvidia.com/mig-1g.5gb':'1'}}}]},'status':{'phase':'Running'}}]}"),
    ("{'metadata':{'name':'sluice-abc123-01jd-1','uid':'u-1','labels':{'sluice-tag':'sluice-abc123-01jd-1'},"
     "'creationTimestamp':'2026-11-21T00:00:00Z'},'spec':{'nodeName':'g1','containers':[{'image':'x','ports':"
     "[{'containerPort':8000}]}],'tolerations':[{'key':'qos.coreweave.cloud/"
     "interruptable'}]},'status':{'phase':'Pending',"
     "'hostIP':'10.0.0.1','conditions':[{'type':'PodScheduled','status':'False','reason':'Unschedulable','message':'0/"
     "5'},"
     "{'type':'DisruptionTarget','status':'True','reason':'PreemptionByScheduler'}],'containerStatuses':[{'state':"
     "{'waiting':{'reason':'ImagePullBackOff','message':'m'},'terminated':{'reason':'Error','exitCode':1}}}]}}"),
    "{'metadata':{'name':'sluice-abc123-01jd-1','uid':'u-1','deletionTimestamp':'x'},'status':{'phase':'Failed'}}",
    ("{'spec':{'type':'NodePort','ports':[{'port':8000,'targetPort':8000,'nodePort':30001}]},'status':{'loadBalancer':"
     "{'ingress':[{'ip':'2001:db8::1'},{'hostname':'lb.example'}]}}}"),
    ("{'spec':{'type':'LoadBalancer','ports':[{'port':8000,'targetPort':8000}]},'status':{'loadBalancer':{'ingress':"
     "[{'ip':'2001:db8::1'}]}}}"),
    "{'status':{'allowed':true}}",
    "{'kind':'Status','message':'already exists','reason':'AlreadyExists','code':409}",
};

#define ANSWERS(of) of, sizeof(of) / sizeof *(of)
static const struct subject {
    const struct adapter *adapter;
    const char *const *answers;
    size_t answer_count;
    const char *offers[3];
} subjects[] = {
    {&adapter_runpod, ANSWERS(runpod), {"S/1/US-KS-2/NVIDIA GeForce RTX 4090", "c/2//NVIDIA H100 NVL", "///"}},
    {&adapter_nosana, ANSWERS(nosana), {"97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf", "x", ""}},
    {&adapter_ionet, ANSWERS(ionet), {"203/1/1", "gpu_1x_a6000/1/DE", "//"}},
    {&adapter_akash, ANSWERS(akash), {"nvidia/h100/80Gi/SXM5/1/", "nvidia/h100/80Gi/SXM5/1/US", "/////"}},
    {&adapter_kubernetes,
     ANSWERS(kubernetes),
     {"1|nvidia.com/gpu|nvidia.com/gpu.product|NVIDIA-L4|z||o", "1|amd.com/gpu|a|8||4|i", "||||||"}},
};

struct network {
    const struct adapter *adapter;
    void *state;
};

struct adapter_call {
    struct network *network;
    const struct subject *subject;
    enum adapter_op op;
    const struct supply_order *order;
    const uint8_t *data; /* of the input, what is not used yet */
    size_t size;
    void *texts[TEXTS_MAX], *memory;
    size_t text_count, memory_size;
    adapter_answer_fn *on_answer;
    void (*then)(struct adapter_call *call);
    void (*on_data)(struct adapter_call *call, struct str bytes);
    bool is_open, is_over, takes_errors;
    unsigned sum;
};

/* Every byte of a text that was handed out is read. */
static void touch(struct adapter_call *call, struct str text)
{
    for (size_t i = 0; i < text.len; i++)
        call->sum += (unsigned char)text.ptr[i];
}

/* -- answers -- */

static const char *const words[] = {"id",     "name",  "status",  "RUNNING", "data", "sluice-abc123-01jd-1",
                                    "0.3367", "tcp",   "PREMIUM", "-1",      "1e99", "65536",
                                    "DRAFT",  "errors"};
#define WORDS (sizeof words / sizeof *words)

static uint8_t take(struct adapter_call *call)
{
    return fuzz_byte(&call->data, &call->size);
}

static json_t *json_make(struct adapter_call *call, int depth)
{
    uint8_t kind = take(call);
    json_t *made;
    switch (depth >= DEPTH_MAX ? 2 + kind % 6 : kind % 10) {
    case 0:
    case 8:
        made = json_object();
        for (int i = take(call) % 12; i > 0; i--)
            json_object_set_new(made, words[take(call) % WORDS], json_make(call, depth + 1));
        return made;
    case 1:
        made = json_array();
        for (int i = take(call) % 8; i > 0; i--)
            json_array_append_new(made, json_make(call, depth + 1));
        return made;
    case 2:
    case 9:
        return json_string(words[take(call) % WORDS]);
    case 3:
        return json_integer(take(call) - 2);
    case 4:
        return json_real(take(call) / 7.0);
    case 5:
        return json_boolean(kind & 16);
    case 6: {
        char text[64];
        size_t len = take(call) % sizeof text;
        for (size_t i = 0; i < len; i++)
            text[i] = (char)(take(call) & 0x7f);
        return json_stringn(text, len);
    }
    default:
        return kind & 16 ? json_null() : json_integer(INT64_MAX - take(call));
    }
}

/* What should have come, with some of it left out, repeated, or something else. */
static json_t *bend(struct adapter_call *call, json_t *from)
{
    const char *key;
    json_t *value, *made;
    size_t i;
    uint8_t how = take(call) % 16;
    if (how == 1)
        return json_make(call, 3);
    if (json_is_object(from)) {
        made = json_object();
        json_object_foreach(from, key, value)
        {
            if (take(call) % 16 != 1)
                json_object_set_new(made, key, bend(call, value));
        }
        return made;
    }
    if (!json_is_array(from))
        return json_incref(from);
    made = json_array();
    for (int times = how == 2 ? 70 : 1; times > 0; times--)
        json_array_foreach(from, i, value)
        {
            json_array_append_new(made, bend(call, value));
        }
    return made;
}

static json_t *template_of(struct adapter_call *call)
{
    char text[2048];
    str_copy(text, sizeof text, str_of(call->subject->answers[take(call) % call->subject->answer_count]));
    for (char *at = text; (at = strchr(at, '\'')); at++)
        *at = '"';
    json_t *json = json_loads(text, 0, NULL);
    CHECK(json);
    return json;
}

static struct str answer_header(const struct adapter_answer *answer, const char *lower_name)
{
    (void)answer;
    (void)lower_name;
    return (struct str){NULL, 0};
}

static void answer(struct adapter_call *call)
{
    static const int statuses[] = {200, 200, 200, 200, 200, 200, 200, 200, 201, 204,
                                   400, 401, 403, 404, 409, 422, 429, 500, 503};
    int status = statuses[take(call) % (sizeof statuses / sizeof *statuses)];
    adapter_answer_fn *on_answer = call->on_answer;
    call->is_open = false;
    uint8_t kind = take(call) % 16;
    json_t *straight = template_of(call);
    json_t *json = kind == 1 ? json_make(call, 0) : kind == 2 ? NULL : bend(call, straight);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : calloc(1, 1);
    struct str body = json ? str_of(text) : (struct str){(const char *)call->data, call->size < 512 ? call->size : 512};
    bool is_tree = json_is_object(json) || json_is_array(json);
    struct adapter_answer told = {
        .status = status, .body = body, .json = is_tree ? json : NULL, .header = answer_header};
    if (call->on_data && status < 300) {
        for (size_t at = 0; at < body.len && !call->is_over; at += 7)
            call->on_data(call, (struct str){body.ptr + at, body.len - at < 7 ? body.len - at : 7});
        told = (struct adapter_answer){.status = status, .header = answer_header};
    }
    if (status < 300 || call->takes_errors)
        on_answer(call, &told);
    else
        adapter_fail_answer(call, &told);
    free(text);
    json_decref(json);
    json_decref(straight);
}

/* -- the core, as adapters see it -- */

static void *keep(struct adapter_call *call, size_t size)
{
    if (call->text_count == TEXTS_MAX) {
        adapter_fail(call, SUPPLY_TRANSIENT, STR("its answer takes too much memory"));
        return NULL;
    }
    return call->texts[call->text_count++] = calloc(1, size);
}

const char *network_credential(const struct network *network, const char *key)
{
    (void)network;
    (void)key;
    return "key-of-nobody";
}

const char *network_option(const struct network *network, const char *key)
{
    (void)network;
    (void)key;
    return NULL;
}

const char *network_base_url(const struct network *network)
{
    (void)network;
    return "http://127.0.0.1:1";
}

struct str network_installation(const struct network *network)
{
    (void)network;
    return STR("abc123");
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
    return STR("7h9k2m4n6p");
}

struct str call_tag(const struct adapter_call *call)
{
    return call->order->tag;
}

int64_t call_log_offset(const struct adapter_call *call)
{
    (void)call;
    return 10;
}

int64_t call_wall_ms(const struct adapter_call *call)
{
    (void)call;
    return INT64_C(1795000000000);
}

void *adapter_memory(struct adapter_call *call, size_t size)
{
    CHECK(size && size <= MEMORY_MAX && (!call->memory || size == call->memory_size));
    call->memory_size = size;
    if (!call->memory)
        call->memory = calloc(1, size);
    return call->memory;
}

struct str adapter_text(struct adapter_call *call, const char *format, ...)
{
    va_list args;
    char *made = NULL;
    va_start(args, format);
    int len = vasprintf(&made, format, args);
    va_end(args);
    char *kept = len < 0 ? NULL : keep(call, (size_t)len + 1);
    if (kept)
        memcpy(kept, made, (size_t)len);
    free(made);
    return kept ? (struct str){kept, (size_t)len} : (struct str){NULL, 0};
}

struct str adapter_url_escaped(struct adapter_call *call, struct str text)
{
    char *made = keep(call, 3 * text.len + 1);
    for (size_t i = 0; made && i < text.len; i++)
        snprintf(made + 3 * i, 4, "%%%02X", (unsigned)(unsigned char)text.ptr[i]);
    return made ? (struct str){made, 3 * text.len} : (struct str){NULL, 0};
}

void adapter_send(struct adapter_call *call, const struct adapter_request *request)
{
    char *body = request->take_json ? json_dumps(request->take_json, JSON_COMPACT) : NULL;
    CHECK(request->on_answer && (!request->take_json || body));
    free(body);
    json_decref(request->take_json);
    if (call->is_over)
        return;
    CHECK(!call->is_open && !call->then && request->path.len);
    if (call->network->adapter->authorise)
        call->network->adapter->authorise(call->network, call);
    touch(call, request->path);
    touch(call, request->body);
    call->is_open = true;
    call->on_answer = request->on_answer;
    call->on_data = request->on_data;
    call->takes_errors = request->takes_errors;
}

void adapter_header(struct adapter_call *call, const char *name, struct str value)
{
    CHECK(name[0]);
    touch(call, value);
}

void adapter_later(struct adapter_call *call, int64_t after_ns, void (*then)(struct adapter_call *call))
{
    if (call->is_over)
        return;
    CHECK(after_ns >= 0 && then && !call->is_open && !call->then);
    call->then = then;
}

void adapter_offers(struct adapter_call *call, const struct adapter_offer *offers, size_t count)
{
    for (size_t i = 0; i < count && !call->is_over; i++) {
        const struct adapter_offer *o = &offers[i];
        const struct str texts[] = {o->id,   o->gpu_raw, o->gpu_form, o->region,       o->country,       o->zone,
                                    o->tags, o->machine, o->origin,   o->terms.amount, o->terms.currency};
        for (size_t j = 0; j < sizeof texts / sizeof *texts; j++)
            touch(call, texts[j]);
    }
}

static void check_instance(struct adapter_call *call, const struct supply_instance *one)
{
    CHECK(one->state < INSTANCE_STATE_COUNT && one->endpoint_count <= SUPPLY_PORTS_MAX && one->price_usd_nano >= -1);
    touch(call, one->id);
    touch(call, one->tag);
    touch(call, one->reason);
    touch(call, one->placement);
    for (size_t i = 0; i < one->endpoint_count; i++)
        touch(call, one->endpoints[i].url);
}

void adapter_logs(struct adapter_call *call, struct str bytes)
{
    CHECK(call->op == ADAPTER_LOGS);
    touch(call, bytes);
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
    CHECK(!call->is_open && !call->then);
    if (call->op == ADAPTER_CREATE || call->op == ADAPTER_DESCRIBE)
        CHECK(instance);
    if (instance)
        check_instance(call, instance);
    call->is_over = true;
}

void adapter_fail(struct adapter_call *call, enum supply_error error, struct str message)
{
    CHECK(error > SUPPLY_OK && error < SUPPLY_ERROR_COUNT);
    touch(call, message);
    if (!call->is_over)
        CHECK(!call->then);
    call->is_over = true;
}

enum supply_error adapter_classify(const struct adapter_call *call, const struct adapter_answer *told)
{
    struct str code = {NULL, 0}, said = {NULL, 0};
    if (call->network->adapter->explain)
        call->network->adapter->explain(told, &code, &said);
    touch((struct adapter_call *)(uintptr_t)call, code);
    touch((struct adapter_call *)(uintptr_t)call, said);
    return told->status == 404 ? SUPPLY_NOT_FOUND : told->status == 401 ? SUPPLY_BAD_CREDENTIAL : SUPPLY_TRANSIENT;
}

void adapter_fail_answer(struct adapter_call *call, const struct adapter_answer *told)
{
    adapter_fail(call, adapter_classify(call, told), told->body);
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

enum error adapter_worth(const struct adapter_call *call, const struct price_terms *terms, int64_t *ret_usd_nano)
{
    struct rates rates;
    rates_init(&rates, 0);
    return price_terms_usd(terms, &rates, call_wall_ms(call), ret_usd_nano);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct subject *subject = &subjects[fuzz_byte(&data, &size) % (sizeof subjects / sizeof *subjects)];
    static const struct str argv[] = {STR("sh"), STR("-c"), STR("echo \"$X\"")};
    static const struct supply_pair env[] = {{STR("X"), STR("1")}, {STR("TOKEN"), STR("")}};
    static const uint16_t ports[] = {8000, 22};
    struct network network = {.adapter = subject->adapter, .state = calloc(1, subject->adapter->state_size + 1)};
    struct supply_order order = {.tag = STR("sluice-abc123-01jd-1"),
                                 .offer = str_of(subject->offers[fuzz_byte(&data, &size) % 3]),
                                 .gpus = 1,
                                 .image = STR("docker.io/x/y:1"),
                                 .argv = argv,
                                 .argc = 3,
                                 .env = env,
                                 .env_count = 2,
                                 .script = STR("#!/bin/sh\n"),
                                 .ports = ports,
                                 .port_count = 2,
                                 .price_max_usd_nano = fuzz_byte(&data, &size) % 2 ? 500000000 : -1,
                                 .price_quoted_usd_nano = 500000000,
                                 .span_s = 4000,
                                 .disk_gib = 20};
    if (fuzz_byte(&data, &size) % 8 == 1) /* what an order holds need not be UTF-8 */
        order.image = (struct str){(const char *)data, size < 8 ? size : 8};
    if (fuzz_byte(&data, &size) % 8 == 1)
        order.argc = 0;
    struct adapter_call *call = calloc(1, sizeof *call);
    *call = (struct adapter_call){
        .network = &network, .subject = subject, .order = &order, .op = fuzz_byte(&data, &size) % ADAPTER_OPS};
    call->data = data;
    call->size = size;
    bool is_fine = !network.adapter->open || !network.adapter->open(&network);
    if (is_fine && network.adapter->run[call->op])
        network.adapter->run[call->op](call);
    for (int i = 0; i < ANSWERS_MAX && is_fine && network.adapter->run[call->op] && !call->is_over; i++) {
        CHECK(call->is_open != (call->then != NULL));
        void (*then)(struct adapter_call *) = call->then;
        call->then = NULL;
        if (then)
            then(call);
        else
            answer(call);
    }
    if (is_fine && network.adapter->close)
        network.adapter->close(&network);
    for (size_t i = 0; i < call->text_count; i++)
        free(call->texts[i]);
    free(call->memory);
    free(call);
    free(network.state);
    return 0;
}
