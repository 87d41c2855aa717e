/* Offers of a cluster: what its nodes have beyond what pods on them have asked for, put together by kind and zone.
 * First all pods, for what is used, then all nodes. */
#include "adapters/kubernetes_priv.h"
#include "probes/gpu_names.h"

#include <inttypes.h>
#include <string.h>

#define PAGE 250
#define PAGES_MAX 400 /* of each list: 100000 objects */
#define BODY_MAX ((size_t)32 << 20)
#define RELISTS_MAX 3
#define USED_MAX 2048 /* a power of two */
#define GROUPS_MAX 128
#define SIZES 5 /* 1, 2, 4, 8, 16 GPUs */
#define KINDS_MAX 8
#define GPUS_PER_NODE_MAX 1024

/* Where nodes say which GPU they have, best first. */
static const struct {
    const char *key, *form;
    bool is_coreweaves;
} labels[] = {
    {"node.kubernetes.io/instance-type", NULL, true},
    {"gpu.nvidia.com/class", NULL, true},
    {"nvidia.com/gpu.product", NULL, false},
    {"cloud.google.com/gke-accelerator", "HGX", false},
    {"karpenter.k8s.aws/instance-gpu-name", "HGX", false},
    {"amd.com/gpu.product-name", NULL, false},
    {"amd.com/gpu.device-id", NULL, false},
};
#define AMD_DEVICE "beta.amd.com/gpu.device-id."

/* Instance types whose names do not say the GPU as elsewhere. */
static const struct {
    const char *type, *gpu;
} coreweave_types[] = {
    {"b200-8x", "B200 SXM"}, {"b300-8x", "B300 SXM"},      {"gb200-4x", "GB200"},
    {"gb300-4x", "GB300"},   {"gd-1xgh200", "GH200 96GB"}, {"rtxp6000-8x", "RTX PRO 6000"},
};

/* -- what is used -- */

struct used {
    uint64_t hash; /* of node and resource; 0: free */
    int64_t gpus;
};

struct group {
    struct kubernetes_want want;
    struct str raw, form, region, type; /* texts of the call, as want's */
    uint64_t vram_bytes;
    uint32_t fraction_ppm;
    bool is_arm;
    int64_t available[SIZES];
};

struct survey {
    bool is_full; /* more nodes than fit: those that did not are taken for busy */
    size_t pages, relists, group_count;
    struct used used[USED_MAX];
    struct group groups[GROUPS_MAX];
};

/* NULL: no room, or not there and not to be made. */
static struct used *used_slot(struct survey *survey, struct str node, struct str resource, bool makes)
{
    uint64_t hash = str_hash(resource, str_hash(node, 7)) | 1;
    for (size_t i = 0; i < USED_MAX; i++) {
        struct used *slot = &survey->used[(hash + i) % USED_MAX];
        if (slot->hash == hash)
            return slot;
        if (!slot->hash) {
            slot->hash = makes ? hash : 0;
            return makes ? slot : NULL;
        }
    }
    survey->is_full = true;
    return NULL;
}

static bool is_gpu(struct str resource)
{
    return str_eq(resource, STR("nvidia.com/gpu")) || str_eq(resource, STR("amd.com/gpu")) ||
           str_eq(resource, STR("nvidia.com/gpu.shared")) || str_starts(resource, STR("nvidia.com/mig-"));
}

/* GPUs come whole: "8", seldom 8. */
static int64_t quantity(const json_t *value)
{
    int64_t count = 0;
    if (json_is_integer(value))
        count = json_integer_value(value);
    else if (!str_to_i64(str_of(json_string_value(value)), &count))
        return 0;
    return count < 0 ? 0 : count > GPUS_PER_NODE_MAX ? GPUS_PER_NODE_MAX : count;
}

struct demand {
    struct str resource;
    int64_t sum, first; /* first: the most that a container before the others wants */
};

/* Limits alone: of GPUs requests are the same. */
static void demand_add(struct demand *demands, const json_t *container, bool is_first)
{
    json_t *limits = (json_t *)(uintptr_t)json_at(container, "resources.limits"), *value = NULL;
    const char *name = NULL;
    json_object_foreach(limits, name, value)
    {
        struct str resource = str_of(name);
        size_t i = 0;
        while (i < KINDS_MAX && demands[i].resource.ptr && !str_eq(demands[i].resource, resource))
            i++;
        if (i == KINDS_MAX || !is_gpu(resource))
            continue;
        int64_t gpus = quantity(value);
        demands[i].resource = resource;
        demands[i].sum += is_first ? 0 : gpus;
        demands[i].first = is_first && gpus > demands[i].first ? gpus : demands[i].first;
    }
}

static void pod_note(struct survey *survey, const json_t *pod)
{
    struct str node = json_text_at(pod, "spec.nodeName"), phase = json_text_at(pod, "status.phase");
    struct demand demands[KINDS_MAX] = {0};
    const json_t *container = NULL;
    size_t i = 0;
    if (!node.len || str_eq(phase, STR("Succeeded")) || str_eq(phase, STR("Failed")))
        return;
    json_array_foreach(json_at(pod, "spec.containers"), i, container) demand_add(demands, container, false);
    json_array_foreach(json_at(pod, "spec.initContainers"), i, container) demand_add(demands, container, true);
    for (i = 0; i < KINDS_MAX && demands[i].resource.ptr; i++) {
        struct used *slot = used_slot(survey, node, demands[i].resource, true);
        if (slot)
            slot->gpus += demands[i].sum > demands[i].first ? demands[i].sum : demands[i].first;
    }
}

/* -- nodes -- */

static struct str label_of(const json_t *node, const char *key)
{
    return str_of(json_string_value(json_object_get(json_at(node, "metadata.labels"), key)));
}

/* Ready, not cordoned, no taint that keeps us out. */
static bool node_is_open(const struct network *network, const json_t *node, bool *ret_interruptible)
{
    const struct kubernetes *kubernetes = network_state(network);
    const json_t *row = NULL;
    bool is_ready = false;
    size_t i = 0;
    *ret_interruptible = false;
    json_array_foreach(json_at(node, "status.conditions"), i, row) is_ready |=
        str_eq(json_text_at(row, "type"), STR("Ready")) && str_eq(json_text_at(row, "status"), STR("True"));
    json_array_foreach(json_at(node, "spec.taints"), i, row)
    {
        struct str key = json_text_at(row, "key");
        if (str_eq(key, STR(KUBERNETES_INTERRUPTIBLE)))
            *ret_interruptible = true;
        if (!str_eq(json_text_at(row, "effect"), STR("PreferNoSchedule")) && !kubernetes_tolerates(network, key))
            return false;
    }
    if (kubernetes->is_coreweave && !str_eq(label_of(node, "node.coreweave.cloud/state"), STR("production")))
        return false;
    return is_ready && !json_true_at(node, "spec.unschedulable");
}

static struct str coreweave_gpu(struct str type)
{
    struct gpu_identity gpu;
    for (size_t i = 0; i < sizeof(coreweave_types) / sizeof(coreweave_types[0]); i++) {
        if (str_eq(type, str_of(coreweave_types[i].type)))
            return str_of(coreweave_types[i].gpu);
    }
    return gpu_identify(type, (struct str){NULL, 0}, 0, &gpu) ? type : (struct str){NULL, 0};
}

/* Which GPU the node has, by the first label that tells. */
static bool node_gpu(const struct kubernetes *kubernetes, const json_t *node, struct group *group)
{
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        struct str value = label_of(node, labels[i].key);
        if (!value.len || (labels[i].is_coreweaves && !kubernetes->is_coreweave))
            continue;
        group->raw = i == 0 ? coreweave_gpu(value) : value;
        group->form = str_of(labels[i].form);
        group->want.label = str_of(labels[i].key);
        group->want.value = value;
        if (group->raw.len)
            return true;
    }
    json_t *map = (json_t *)(uintptr_t)json_at(node, "metadata.labels"), *value = NULL;
    const char *key = NULL;
    json_object_foreach(map, key, value)
    {
        if (!str_starts(str_of(key), STR(AMD_DEVICE)))
            continue;
        group->raw = str_of(key + sizeof(AMD_DEVICE) - 1);
        group->want.label = str_of(key);
        group->want.value = str_of(json_string_value(value));
        return group->raw.len && group->want.value.len;
    }
    return false;
}

static bool is_same(const struct group *a, const struct group *b)
{
    return str_eq(a->want.resource, b->want.resource) && str_eq(a->want.label, b->want.label) &&
           str_eq(a->want.value, b->want.value) && str_eq(a->want.zone, b->want.zone) &&
           str_eq(a->want.replicas, b->want.replicas) && a->want.interruptible == b->want.interruptible &&
           str_eq(a->raw, b->raw) && str_eq(a->type, b->type) && a->is_arm == b->is_arm;
}

static struct group *group_find(struct adapter_call *call, struct survey *survey, const struct group *like)
{
    for (size_t i = 0; i < survey->group_count; i++) {
        if (is_same(&survey->groups[i], like))
            return &survey->groups[i];
    }
    if (survey->group_count == GROUPS_MAX)
        return NULL;
    struct group *group = &survey->groups[survey->group_count];
    *group = *like;
    struct str *const texts[] = {&group->want.resource, &group->want.label,    &group->want.value,
                                 &group->want.zone,     &group->want.replicas, &group->raw,
                                 &group->form,          &group->region,        &group->type};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        *texts[i] = adapter_text(call, STR_FMT, STR_ARG(*texts[i]));
        if (!texts[i]->ptr)
            return NULL;
    }
    survey->group_count++;
    return group;
}

/* A slice is never sold as a whole one. True: it is one. */
static bool group_slice(struct adapter_call *call, const json_t *node, struct group *group)
{
    struct str mig = STR("nvidia.com/mig-"), resource = group->want.resource;
    struct gpu_identity gpu;
    int64_t parts = 0;
    group->want.replicas = label_of(node, KUBERNETES_REPLICAS);
    if (str_to_i64(group->want.replicas, &parts) && parts > 1 && parts <= GPUS_PER_NODE_MAX)
        group->fraction_ppm = (uint32_t)(GPU_WHOLE_PPM / parts);
    else if (str_eq(resource, STR("nvidia.com/gpu.shared")))
        group->raw = adapter_text(call, STR_FMT "-SHARED", STR_ARG(group->raw));
    else if (str_starts(resource, mig))
        group->raw = adapter_text(call, STR_FMT "-MIG-" STR_FMT, STR_ARG(group->raw), (int)(resource.len - mig.len),
                                  resource.ptr + mig.len);
    (void)gpu_identify(group->raw, group->form, group->vram_bytes, &gpu);
    return gpu.is_slice || group->fraction_ppm;
}

static void resource_note(struct adapter_call *call, struct survey *survey, const json_t *node, struct group group,
                          int64_t gpus)
{
    struct used *used = used_slot(survey, json_text_at(node, "metadata.name"), group.want.resource, false);
    bool is_slice = group_slice(call, node, &group);
    gpus -= used ? used->gpus : survey->is_full ? gpus : 0;
    struct group *into = gpus > 0 ? group_find(call, survey, &group) : NULL;
    for (size_t i = 0; into && i < (is_slice ? 1 : SIZES); i++)
        into->available[i] += gpus >> i;
}

static void node_note(struct adapter_call *call, struct survey *survey, const json_t *node)
{
    const struct network *network = call_network(call);
    struct group group = {.region = label_of(node, "topology.kubernetes.io/region"),
                          .type = label_of(node, "node.kubernetes.io/instance-type"),
                          .is_arm = str_eq(label_of(node, "kubernetes.io/arch"), STR("arm64"))};
    int64_t mib = 0;
    if (!json_text_at(node, "metadata.name").len || !node_is_open(network, node, &group.want.interruptible) ||
        !node_gpu(network_state(network), node, &group))
        return;
    if (str_to_i64(label_of(node, "nvidia.com/gpu.memory"), &mib) && mib > 0 && mib < INT64_C(1) << 30)
        group.vram_bytes = (uint64_t)mib << 20;
    group.want.zone = label_of(node, KUBERNETES_ZONE);
    json_t *map = (json_t *)(uintptr_t)json_at(node, "status.allocatable"), *value = NULL;
    const char *name = NULL;
    json_object_foreach(map, name, value)
    {
        group.want.resource = str_of(name);
        if (is_gpu(group.want.resource) && quantity(value) > 0)
            resource_note(call, survey, node, group, quantity(value));
    }
}

/* -- offers -- */

bool kubernetes_offer_read(struct str id, struct kubernetes_want *ret)
{
    struct str gpus = str_next(&id, '|');
    struct kubernetes_want want = {0};
    want.resource = str_next(&id, '|');
    want.label = str_next(&id, '|');
    want.value = str_next(&id, '|');
    want.zone = str_next(&id, '|');
    want.replicas = str_next(&id, '|');
    want.interruptible = str_eq(id, STR("i"));
    if (!str_to_i64(gpus, &want.gpus) || want.gpus < 1 || want.gpus > GPUS_PER_NODE_MAX || !is_gpu(want.resource) ||
        !want.label.len || !want.value.len || (!want.interruptible && !str_eq(id, STR("o"))))
        return false;
    *ret = want;
    return true;
}

static void group_offers(struct adapter_call *call, const struct group *group)
{
    const struct kubernetes_want *want = &group->want;
    struct adapter_offer offers[SIZES];
    size_t count = 0;
    struct str key = adapter_text(call, "price." STR_FMT, STR_ARG(group->type));
    struct str price = str_of(key.len > sizeof("price.") - 1 ? network_option(call_network(call), key.ptr) : NULL);
    for (size_t i = 0; i < SIZES && group->available[i] > 0; i++) {
        struct str id = adapter_text(call, "%d|" STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT "|%s", 1 << i,
                                     STR_ARG(want->resource), STR_ARG(want->label), STR_ARG(want->value),
                                     STR_ARG(want->zone), STR_ARG(want->replicas), want->interruptible ? "i" : "o");
        struct kubernetes_want again;
        if (!id.len || !kubernetes_offer_read(id, &again))
            break;
        offers[count++] = (struct adapter_offer){
            .id = id,
            .gpu_raw = group->raw,
            .gpu_form = group->form,
            .vram_bytes = group->vram_bytes,
            .gpus = UINT32_C(1) << i,
            .fraction_ppm = group->fraction_ppm,
            .available = (uint32_t)(group->available[i] > 1000000 ? 1000000 : group->available[i]),
            .region = group->region.len ? group->region : want->zone,
            .zone = want->zone,
            .terms = {.amount = price, .currency = STR("USD"), .per = PRICE_PER_GPU_HOUR},
            .is_priced = price.len > 0,
            .interruptible = want->interruptible,
            .reliability = -1,
            .is_arm = group->is_arm,
        };
    }
    adapter_offers(call, offers, count);
}

static void ask_page(struct adapter_call *call, bool is_nodes, struct str token);

/* The rest of a list is gone after some minutes (410): all from the start. */
static void list_on_page(struct adapter_call *call, const struct adapter_answer *answer, bool is_nodes)
{
    struct survey *survey = adapter_memory(call, sizeof(*survey));
    const json_t *items = json_at(answer->json, "items"), *item = NULL;
    size_t i = 0;
    if (answer->status == 410 && survey->relists++ < RELISTS_MAX) {
        *survey = (struct survey){.relists = survey->relists};
        ask_page(call, false, STR(""));
        return;
    }
    if (answer->status != 200 || !json_is_array(items) || ++survey->pages > 2 * PAGES_MAX) {
        adapter_fail_answer(call, answer);
        return;
    }
    json_array_foreach(items, i, item)
    {
        if (is_nodes)
            node_note(call, survey, item);
        else
            pod_note(survey, item);
    }
    struct str token = json_text_at(answer->json, "metadata.continue");
    if (token.len || !is_nodes) {
        ask_page(call, is_nodes || !token.len, adapter_text(call, STR_FMT, STR_ARG(token)));
        return;
    }
    for (i = 0; i < survey->group_count; i++)
        group_offers(call, &survey->groups[i]);
    adapter_done(call, NULL);
}

static void on_pods(struct adapter_call *call, const struct adapter_answer *answer)
{
    list_on_page(call, answer, false);
}

static void on_nodes(struct adapter_call *call, const struct adapter_answer *answer)
{
    list_on_page(call, answer, true);
}

static void ask_page(struct adapter_call *call, bool is_nodes, struct str token)
{
    struct str path =
        adapter_text(call, "/api/v1/%s?limit=%d%s%s" STR_FMT, is_nodes ? "nodes" : "pods", PAGE,
                     is_nodes ? "" : "&fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed",
                     token.len ? "&continue=" : "", STR_ARG(adapter_url_escaped(call, token)));
    adapter_send(call, &(struct adapter_request){.path = path,
                                                 .body_max = BODY_MAX,
                                                 .takes_errors = true,
                                                 .on_answer = is_nodes ? on_nodes : on_pods});
}

void kubernetes_offers(struct adapter_call *call)
{
    if (adapter_memory(call, sizeof(struct survey)))
        ask_page(call, false, STR(""));
}
