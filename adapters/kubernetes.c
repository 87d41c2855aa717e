/* Any Kubernetes cluster that schedules GPUs, and CoreWeave's with `profile: coreweave`. An instance is a pod of one
 * container that never restarts; its id is its name, which is the tag. Polling (describe) is how it is watched: the
 * driver of leases asks anyway, and a watch would be a connection for each gateway. Prices are the operator's.
 *
 * No capacity is no error here: the pod waits, Unschedulable, until the boot limit, and the reason is shown.
 *
 * UNCONFIRMED, all of it here and in the tables of kubernetes_node.c:
 * - how Karpenter spells `instance-gpu-name` by version; `amd.com/gpu.product-name` and `amd.com/gpu.device-id`;
 * - CoreWeave: the annotation for a public address (KUBERNETES_PUBLIC); instance types but gd-8xh100ib-i128, which are
 *   from public examples; that the interruptable taint is all that marks capacity that can be taken back. */
#include "adapters/kubernetes_priv.h"
#include "adapters/registry.h"
#include "core/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REQUESTS_NS (20 * NS_PER_MS)
#define PAGE 250
#define PAGES_MAX 400
#define RELISTS_MAX 3
#define TOKEN_MAX 16384
#define GRACE_S 10
#define LOG_CHUNK INT64_C(1048576)
#define LOG_MAX (INT64_C(256) << 20) /* kubelets rotate at 10 MiB: what was rotated away cannot be had */

/* -- the configuration -- */

static bool option(const struct network *network, const char *key, int64_t *ret)
{
    const char *text = network_option(network, key);
    return !text || (str_to_i64(str_of(text), ret) && *ret >= 0 && *ret <= 4096);
}

static bool is_dns_name(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-.");
    return len > 0 && len < 64 && !text[len];
}

static const char *kubernetes_open(struct network *network)
{
    struct kubernetes *kubernetes = network_state(network);
    const char *profile = network_option(network, "profile"), *type = network_option(network, "service_type");
    const char *namespace = network_option(network, "namespace");
    kubernetes->is_coreweave = profile && !strcmp(profile, "coreweave");
    kubernetes->namespace = namespace ? namespace : "default";
    kubernetes->service_type = type ? type : kubernetes->is_coreweave ? "LoadBalancer" : "NodePort";
    kubernetes->node_host = network_option(network, "node_host");
    kubernetes->token_file = network_option(network, "token_file");
    type = kubernetes->service_type;
    if (profile && !kubernetes->is_coreweave && strcmp(profile, "plain"))
        return "option profile: plain or coreweave";
    if (strcmp(type, "ClusterIP") && strcmp(type, "NodePort") && strcmp(type, "LoadBalancer"))
        return "option service_type: ClusterIP, NodePort or LoadBalancer";
    if (!is_dns_name(kubernetes->namespace))
        return "option namespace: not a name";
    if (!*network_base_url(network))
        return "base_url: the API server's address must be given";
    if (!network_credential(network, "token") && !kubernetes->token_file &&
        !network_option(network, "client_cert_file"))
        return "one of these must be given: credential token, option token_file, option client_cert_file";
    if (!option(network, "cpu_per_gpu", &kubernetes->cpu) ||
        !option(network, "memory_gib_per_gpu", &kubernetes->memory_gib))
        return "options cpu_per_gpu, memory_gib_per_gpu: whole numbers";
    return NULL;
}

/* A service account's token lasts an hour and is replaced in its file: read for each request, it is small. */
static void kubernetes_authorise(struct network *network, struct adapter_call *call)
{
    const struct kubernetes *kubernetes = network_state(network);
    char text[TOKEN_MAX];
    struct str token = str_of(network_credential(network, "token"));
    FILE *file = kubernetes->token_file ? fopen(kubernetes->token_file, "re") : NULL;
    if (file) {
        token = (struct str){text, fread(text, 1, sizeof(text), file)};
        while (token.len && strchr("\r\n \t", token.ptr[token.len - 1]))
            token.len--;
        fclose(file);
    }
    if (token.len)
        adapter_header(call, "Authorization", adapter_text(call, "Bearer " STR_FMT, STR_ARG(token)));
    explicit_bzero(text, sizeof(text));
}

static void kubernetes_explain(const struct adapter_answer *answer, struct str *ret_code, struct str *ret_message)
{
    *ret_code = json_text_at(answer->json, "reason");
    *ret_message = json_text_at(answer->json, "message");
    if (!answer->json)
        *ret_message = answer->body;
}

struct str kubernetes_path(struct adapter_call *call, const char *kind, struct str name)
{
    const struct kubernetes *kubernetes = network_state(call_network(call));
    return adapter_text(call, "/api/v1/namespaces/%s/%s%s" STR_FMT, kubernetes->namespace, kind, name.ptr ? "/" : "",
                        STR_ARG(adapter_url_escaped(call, name)));
}

/* -- a pod as an instance -- */

static const json_t *condition(const json_t *pod, const char *type, const char *status)
{
    const json_t *row = NULL;
    size_t i = 0;
    json_array_foreach(json_at(pod, "status.conditions"), i, row)
    {
        if (str_eq(json_text_at(row, "type"), str_of(type)) && str_eq(json_text_at(row, "status"), str_of(status)))
            return row;
    }
    return NULL;
}

/* While it waits: why, and whether it waits in vain. */
static bool waits_in_vain(struct adapter_call *call, const json_t *pod, struct str *ret_reason)
{
    static const char *const hopeless[] = {"ImagePullBackOff",           "InvalidImageName",     "ErrImageNeverPull",
                                           "CreateContainerConfigError", "CreateContainerError", "RunContainerError"};
    const json_t *waiting = json_at(pod, "status.containerStatuses[0].state.waiting");
    const json_t *unscheduled = condition(pod, "PodScheduled", "False");
    struct str reason = json_text_at(waiting, "reason");
    if (unscheduled)
        *ret_reason = adapter_text(call, STR_FMT ": " STR_FMT, STR_ARG(json_text_at(unscheduled, "reason")),
                                   STR_ARG(json_text_at(unscheduled, "message")));
    else if (reason.len)
        *ret_reason = adapter_text(call, STR_FMT " (image " STR_FMT ") " STR_FMT, STR_ARG(reason),
                                   STR_ARG(json_text_at(pod, "spec.containers[0].image")),
                                   STR_ARG(json_text_at(waiting, "message")));
    for (size_t i = 0; i < sizeof(hopeless) / sizeof(hopeless[0]); i++) {
        if (str_eq(reason, str_of(hopeless[i])))
            return true;
    }
    return false;
}

static struct str why_failed(struct adapter_call *call, const json_t *pod)
{
    const json_t *ended = json_at(pod, "status.containerStatuses[0].state.terminated");
    struct str reason = json_text_at(pod, "status.reason"), message = json_text_at(pod, "status.message");
    const json_t *disruption = condition(pod, "DisruptionTarget", "True");
    if (!reason.len && disruption)
        reason = json_text_at(disruption, "reason"), message = json_text_at(disruption, "message");
    if (reason.len)
        return adapter_text(call, STR_FMT "%s" STR_FMT, STR_ARG(reason), message.len ? ": " : "", STR_ARG(message));
    return adapter_text(call, "its command ended (" STR_FMT ", exit %" PRId64 ")",
                        STR_ARG(json_text_at(ended, "reason")), json_count_at(ended, "exitCode"));
}

static bool tolerates_interruption(const json_t *pod)
{
    const json_t *row = NULL;
    size_t i = 0;
    json_array_foreach(json_at(pod, "spec.tolerations"), i, row)
    {
        if (str_eq(json_text_at(row, "key"), STR(KUBERNETES_INTERRUPTIBLE)))
            return true;
    }
    return false;
}

void kubernetes_pod_read(struct adapter_call *call, const json_t *pod, struct supply_instance *ret)
{
    const json_t *labels = json_at(pod, "metadata.labels");
    struct str phase = json_text_at(pod, "status.phase"), node = json_text_at(pod, "spec.nodeName");
    struct str name = json_text_at(pod, "metadata.name"),
               tag = str_of(json_string_value(json_object_get(labels, KUBERNETES_TAG)));
    *ret = (struct supply_instance){
        .id = adapter_text(call, STR_FMT, STR_ARG(name)),
        .tag = adapter_text(call, STR_FMT, STR_ARG(tag)),
        .state = INSTANCE_PENDING,
        .price_usd_nano = -1,
        .interruptible = tolerates_interruption(pod),
        .created_at_ms = json_time_at(pod, "metadata.creationTimestamp"),
        .placement = node.len ? adapter_text(call, STR_FMT, STR_ARG(node)) : node,
    };
    if (json_text_at(pod, "metadata.deletionTimestamp").len)
        ret->state = INSTANCE_STOPPING; /* whatever the phase says */
    else if (str_eq(phase, STR("Running")))
        ret->state = INSTANCE_RUNNING;
    else if (str_eq(phase, STR("Failed")))
        ret->state = INSTANCE_FAILED, ret->reason = why_failed(call, pod);
    else if (str_eq(phase, STR("Succeeded")))
        ret->state = INSTANCE_STOPPED, ret->reason = why_failed(call, pod);
    else if (str_eq(phase, STR("Unknown")))
        ret->reason = STR("its node does not answer");
    else if (waits_in_vain(call, pod, &ret->reason))
        ret->state = INSTANCE_FAILED;
}

/* -- describe: the pod, and its service where it has ports -- */

struct described {
    struct supply_instance instance;
    struct supply_endpoint endpoints[SUPPLY_PORTS_MAX];
    struct str node_ip;
};

static void describe_on_service(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct described *seen = adapter_memory(call, sizeof(*seen));
    const struct kubernetes *kubernetes = network_state(call_network(call));
    const json_t *ports = json_at(answer->json, "spec.ports"), *row = NULL;
    struct str type = json_text_at(answer->json, "spec.type");
    struct str host = json_text_at(answer->json, "status.loadBalancer.ingress[0].ip");
    bool is_node_port = str_eq(type, STR("NodePort"));
    size_t i = 0;
    if (answer->status >= 300 && answer->status != 404) {
        adapter_fail_answer(call, answer);
        return;
    }
    if (is_node_port)
        host = kubernetes->node_host ? str_of(kubernetes->node_host) : seen->node_ip;
    else if (str_eq(type, STR("ClusterIP")))
        host = adapter_text(call, STR_FMT ".%s.svc", STR_ARG(seen->instance.id), kubernetes->namespace);
    else if (!host.len)
        host = json_text_at(answer->json, "status.loadBalancer.ingress[0].hostname");
    bool is_v6 = host.len && memchr(host.ptr, ':', host.len);
    json_array_foreach(ports, i, row)
    {
        int64_t inside = json_count_at(row, "targetPort");
        int64_t outside = json_count_at(row, is_node_port ? "nodePort" : "port");
        if (i == SUPPLY_PORTS_MAX || !host.len || inside < 1 || inside > 65535 || outside < 1 || outside > 65535)
            break;
        struct str url = adapter_text(call, is_v6 ? "tcp://[" STR_FMT "]:%" PRId64 : "tcp://" STR_FMT ":%" PRId64,
                                      STR_ARG(host), outside);
        seen->endpoints[seen->instance.endpoint_count++] = (struct supply_endpoint){(uint16_t)inside, url};
    }
    adapter_done(call, &seen->instance);
}

static void describe_on_pod(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct described *seen = adapter_memory(call, sizeof(*seen));
    if (!seen)
        return;
    kubernetes_pod_read(call, answer->json, &seen->instance);
    seen->instance.endpoints = seen->endpoints;
    seen->node_ip = adapter_text(call, STR_FMT, STR_ARG(json_text_at(answer->json, "status.hostIP")));
    if (!json_at(answer->json, "spec.containers[0].ports[0]"))
        adapter_done(call, &seen->instance);
    else
        adapter_send(call, &(struct adapter_request){.path = kubernetes_path(call, "services", call_instance(call)),
                                                     .takes_errors = true,
                                                     .on_answer = describe_on_service});
}

static void kubernetes_describe(struct adapter_call *call)
{
    adapter_send(call, &(struct adapter_request){.path = kubernetes_path(call, "pods", call_instance(call)),
                                                 .on_answer = describe_on_pod});
}

/* -- list -- */

struct listing {
    size_t pages, relists;
};

static void list_page(struct adapter_call *call, struct str token);

static void list_on_page(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct listing *listing = adapter_memory(call, sizeof(*listing));
    const json_t *items = json_at(answer->json, "items"), *pod = NULL;
    size_t i = 0;
    if (answer->status == 410 && listing->relists++ < RELISTS_MAX) { /* the rest is too old: all again */
        list_page(call, STR(""));
        return;
    }
    if (answer->status != 200 || !json_is_array(items) || ++listing->pages > PAGES_MAX) {
        adapter_fail_answer(call, answer);
        return;
    }
    json_array_foreach(items, i, pod)
    {
        struct supply_instance instance;
        kubernetes_pod_read(call, pod, &instance);
        adapter_instances(call, &instance, 1);
    }
    struct str token = json_text_at(answer->json, "metadata.continue");
    if (token.len)
        list_page(call, adapter_text(call, STR_FMT, STR_ARG(token)));
    else
        adapter_done(call, NULL);
}

static void list_page(struct adapter_call *call, struct str token)
{
    struct str path = kubernetes_path(call, "pods", (struct str){NULL, 0});
    path = adapter_text(call, STR_FMT "?labelSelector=%s%%3D" STR_FMT "&limit=%d%s" STR_FMT, STR_ARG(path),
                        KUBERNETES_OURS, STR_ARG(network_installation(call_network(call))), PAGE,
                        token.len ? "&continue=" : "", STR_ARG(adapter_url_escaped(call, token)));
    adapter_send(call, &(struct adapter_request){.path = path, .takes_errors = true, .on_answer = list_on_page});
}

static void kubernetes_list(struct adapter_call *call)
{
    if (adapter_memory(call, sizeof(struct listing)))
        list_page(call, STR(""));
}

/* -- logs: only from the start, so what the asker has is skipped -- */

static void logs_on_data(struct adapter_call *call, struct str bytes)
{
    int64_t *seen = adapter_memory(call, sizeof(*seen));
    int64_t skip = seen ? call_log_offset(call) - *seen : 0;
    if (!seen)
        return;
    *seen += (int64_t)bytes.len;
    if (skip < (int64_t)bytes.len)
        adapter_logs(call, skip > 0 ? (struct str){bytes.ptr + skip, bytes.len - (size_t)skip} : bytes);
}

static void logs_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct str message = json_text_at(answer->json, "message");
    if (answer->status < 300 || (answer->status == 400 && message.len)) /* "container is waiting to start": none yet */
        adapter_done(call, NULL);
    else
        adapter_fail_answer(call, answer);
}

static void kubernetes_logs(struct adapter_call *call)
{
    int64_t offset = call_log_offset(call);
    struct str path = kubernetes_path(call, "pods", call_instance(call));
    if (offset < 0 || offset > LOG_MAX) {
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("its log cannot be read that far"));
        return;
    }
    path = adapter_text(call, STR_FMT "/log?container=main&limitBytes=%" PRId64, STR_ARG(path), offset + LOG_CHUNK);
    adapter_send(call, &(struct adapter_request){.path = path,
                                                 .accept = "*/*",
                                                 .takes_errors = true,
                                                 .body_max = (size_t)(offset + LOG_CHUNK) + 65536,
                                                 .on_data = logs_on_data,
                                                 .on_answer = logs_on_answer});
}

/* -- the end: its service goes with it -- */

static void terminate_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    (void)answer;
    adapter_done(call, NULL);
}

static void kubernetes_terminate(struct adapter_call *call)
{
    json_t *options = json_pack("{s:s, s:s, s:i, s:s}", "kind", "DeleteOptions", "apiVersion", "v1",
                                "gracePeriodSeconds", GRACE_S, "propagationPolicy", "Background");
    adapter_send(call, &(struct adapter_request){.method = "DELETE",
                                                 .path = kubernetes_path(call, "pods", call_instance(call)),
                                                 .take_json = options,
                                                 .on_answer = terminate_on_answer});
}

static const struct adapter_error_row kubernetes_errors[] = {
    {403, NULL, "exceeded quota", SUPPLY_QUOTA},
    {403, NULL, "violates PodSecurity", SUPPLY_BAD_CREDENTIAL}, /* of the namespace: for the operator */
    {403, NULL, "usage per ", SUPPLY_BAD_REQUEST},              /* a LimitRange: disk */
    {403, NULL, "denied the request", SUPPLY_BAD_REQUEST},      /* an admission webhook: the image, most likely */
    {404, NULL, "namespaces \"", SUPPLY_BAD_CREDENTIAL},
    {409, "Conflict", NULL, SUPPLY_TRANSIENT},
    {410, NULL, NULL, SUPPLY_TRANSIENT},
    {429, NULL, NULL, SUPPLY_RATE_LIMITED},
    {0, "Timeout", NULL, SUPPLY_TRANSIENT},
    {0, "ServerTimeout", NULL, SUPPLY_TRANSIENT},
    {0, NULL, NULL, SUPPLY_OK},
};

const struct adapter adapter_kubernetes = {
    .name = "kubernetes",
    .title = "Kubernetes",
    .base_url = "",
    .credentials = {"?token"},
    .options = {"profile", "namespace", "service_type", "node_host", "token_file", "tolerate", "cpu_per_gpu",
                "memory_gib_per_gpu", "image_pull_secret"},
    .traits = ADAPTER_IDEMPOTENT | ADAPTER_IMPORTED_PRICE | ADAPTER_NO_STOP | ADAPTER_INTERRUPTIBLE,
    .any_interval_ns = REQUESTS_NS,
    .settle_ms = 2000,
    .boot_ms = 15 * 60 * 1000,
    .errors = kubernetes_errors,
    .state_size = sizeof(struct kubernetes),
    .open = kubernetes_open,
    .authorise = kubernetes_authorise,
    .explain = kubernetes_explain,
    .run = {[ADAPTER_CHECK] = kubernetes_check,
            [ADAPTER_OFFERS] = kubernetes_offers,
            [ADAPTER_CREATE] = kubernetes_create,
            [ADAPTER_DESCRIBE] = kubernetes_describe,
            [ADAPTER_LIST] = kubernetes_list,
            [ADAPTER_LOGS] = kubernetes_logs,
            [ADAPTER_TERMINATE] = kubernetes_terminate},
};
