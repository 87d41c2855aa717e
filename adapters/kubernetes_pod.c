/* Create on Kubernetes: a pod that is named by the tag, so that a repeat finds it (409), and a service for its ports
 * that goes with it. Taints that pods of ours tolerate. */
#include "adapters/kubernetes_priv.h"

#include <inttypes.h>
#include <string.h>

#define SPAN_SLACK_S 1800 /* activeDeadlineSeconds counts from the start on its node: pulling the image, the probe */
#define ARGUMENT_MAX ((size_t)256 << 10)

/* -- taints -- */

struct str kubernetes_toleration(const struct network *network, size_t i)
{
    static const char *const always[] = {"nvidia.com/gpu", "amd.com/gpu"};
    const struct kubernetes *kubernetes = network_state(network);
    struct str rest = str_of(network_option(network, "tolerate"));
    if (i < 2)
        return str_of(always[i]);
    if (kubernetes->is_coreweave && i == 2)
        return STR("node.coreweave.cloud/reserved");
    for (i -= kubernetes->is_coreweave ? 3 : 2; rest.ptr; i--) {
        struct str key = str_trim(str_next(&rest, ','));
        if (i == 0)
            return key;
    }
    return (struct str){NULL, 0};
}

bool kubernetes_tolerates(const struct network *network, struct str key)
{
    struct str known;
    for (size_t i = 0; (known = kubernetes_toleration(network, i)).ptr; i++) {
        if (str_eq(key, known))
            return true;
    }
    return str_eq(key, STR(KUBERNETES_INTERRUPTIBLE));
}

static json_t *tolerations(const struct network *network, bool interruptible)
{
    json_t *list = json_array();
    struct str key = STR("");
    for (size_t i = 0; (key = kubernetes_toleration(network, i)).ptr; i++)
        json_array_append_new(list, json_pack("{s:s%, s:s}", "key", key.ptr, key.len, "operator", "Exists"));
    if (interruptible)
        json_array_append_new(list, json_pack("{s:s, s:s}", "key", KUBERNETES_INTERRUPTIBLE, "operator", "Exists"));
    return list;
}

/* -- the pod -- */

/* Kubernetes replaces $(NAME) in commands and environment, and makes one $ of two: each is doubled. NULL: no UTF-8. */
static json_t *literal(struct str text)
{
    struct buf buf;
    buf_init(&buf, ARGUMENT_MAX);
    bool ok = true;
    for (size_t i = 0; ok && i < text.len; i++)
        ok = text.ptr[i] && buf_append(&buf, "$$", text.ptr[i] == '$' ? 1 : 0) && buf_append(&buf, &text.ptr[i], 1);
    json_t *json = ok ? json_stringn(buf.len ? buf.ptr : "", buf.len) : NULL;
    if (buf.len)
        explicit_bzero(buf.ptr, buf.len); /* environments hold secrets */
    buf_free(&buf);
    return json;
}

static json_t *environment(const struct supply_order *order)
{
    json_t *list = json_array();
    for (size_t i = 0; i < order->env_count; i++) {
        const struct supply_pair *pair = &order->env[i];
        if (json_array_append_new(
                list, json_pack("{s:s%, s:o}", "name", pair->key.ptr, pair->key.len, "value", literal(pair->value)))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *command(const struct supply_order *order)
{
    json_t *list = json_array();
    for (size_t i = 0; i < order->argc; i++) {
        if (json_array_append_new(list, literal(order->argv[i]))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static void put_quantity(json_t *map, const char *name, int64_t count, const char *unit)
{
    char text[32];
    if (count > 0 && snprintf(text, sizeof(text), "%" PRId64 "%s", count, unit) > 0)
        json_object_set_new(map, name, json_string(text));
}

static json_t *resources(const struct network *network, const struct supply_order *order,
                         const struct kubernetes_want *want)
{
    const struct kubernetes *kubernetes = network_state(network);
    json_t *limits = json_object(), *requests = json_object();
    char gpus[24];
    snprintf(gpus, sizeof(gpus), "%" PRIu32, order->gpus);
    json_object_setn_new(limits, want->resource.ptr, want->resource.len, json_string(gpus));
    put_quantity(limits, "ephemeral-storage", order->disk_gib, "Gi");
    put_quantity(requests, "ephemeral-storage", order->disk_gib, "Gi");
    put_quantity(requests, "cpu", kubernetes->cpu * order->gpus, "");
    put_quantity(requests, "memory", kubernetes->memory_gib * order->gpus, "Gi");
    return json_pack("{s:o, s:o}", "limits", limits, "requests", requests);
}

static json_t *container_ports(const struct supply_order *order)
{
    json_t *list = json_array();
    for (size_t i = 0; i < order->port_count; i++)
        json_array_append_new(list, json_pack("{s:i, s:s}", "containerPort", order->ports[i], "protocol", "TCP"));
    return list;
}

static json_t *selector(const struct network *network, const struct kubernetes_want *want)
{
    const struct kubernetes *kubernetes = network_state(network);
    json_t *map = json_object();
    json_object_setn_new(map, want->label.ptr, want->label.len, json_stringn(want->value.ptr, want->value.len));
    if (want->zone.len)
        json_object_set_new(map, KUBERNETES_ZONE, json_stringn(want->zone.ptr, want->zone.len));
    if (want->replicas.len)
        json_object_set_new(map, KUBERNETES_REPLICAS, json_stringn(want->replicas.ptr, want->replicas.len));
    if (kubernetes->is_coreweave)
        json_object_set_new(map, "node.coreweave.cloud/state", json_string("production"));
    return map;
}

static json_t *metadata(const struct network *network, const struct supply_order *order)
{
    struct str installation = network_installation(network);
    return json_pack("{s:s%, s:{s:s, s:s%, s:s%}}", "name", order->tag.ptr, order->tag.len, "labels",
                     "app.kubernetes.io/managed-by", "sluice", KUBERNETES_OURS, installation.ptr, installation.len,
                     KUBERNETES_TAG, order->tag.ptr, order->tag.len);
}

static json_t *pod_make(const struct network *network, const struct supply_order *order,
                        const struct kubernetes_want *want)
{
    json_t *container =
        json_pack("{s:s, s:s%, s:o, s:o, s:o, s:{s:b}}", "name", "main", "image", order->image.ptr, order->image.len,
                  "env", environment(order), "ports", container_ports(order), "resources",
                  resources(network, order, want), "securityContext", "allowPrivilegeEscalation", 0);
    int64_t span_s = order->span_s < INT32_MAX - SPAN_SLACK_S ? order->span_s + SPAN_SLACK_S : INT32_MAX;
    const char *secret = network_option(network, "image_pull_secret");
    if (order->argc && container && json_object_set_new(container, "command", command(order))) {
        json_decref(container);
        container = NULL;
    }
    json_t *spec = json_pack("{s:s, s:b, s:b, s:I, s:o, s:o, s:{s:{s:s}}, s:[o]}", "restartPolicy", "Never",
                             "automountServiceAccountToken", 0, "enableServiceLinks", 0, "activeDeadlineSeconds",
                             (json_int_t)span_s, "nodeSelector", selector(network, want), "tolerations",
                             tolerations(network, want->interruptible), "securityContext", "seccompProfile", "type",
                             "RuntimeDefault", "containers", container);
    if (spec && secret)
        json_object_set_new(spec, "imagePullSecrets", json_pack("[{s:s}]", "name", secret));
    return json_pack("{s:s, s:s, s:o, s:o}", "apiVersion", "v1", "kind", "Pod", "metadata", metadata(network, order),
                     "spec", spec);
}

/* -- its service -- */

static json_t *service_make(const struct network *network, const struct supply_order *order, struct str uid)
{
    const struct kubernetes *kubernetes = network_state(network);
    json_t *meta = metadata(network, order), *ports = json_array();
    json_object_set_new(meta, "ownerReferences",
                        json_pack("[{s:s, s:s, s:s%, s:s%}]", "apiVersion", "v1", "kind", "Pod", "name", order->tag.ptr,
                                  order->tag.len, "uid", uid.ptr, uid.len));
    if (kubernetes->is_coreweave && !strcmp(kubernetes->service_type, "LoadBalancer"))
        json_object_set_new(meta, "annotations", json_pack("{s:s}", KUBERNETES_PUBLIC, "public"));
    for (size_t i = 0; i < order->port_count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "p%u", order->ports[i]);
        json_array_append_new(ports, json_pack("{s:s, s:i, s:i, s:s}", "name", name, "port", order->ports[i],
                                               "targetPort", order->ports[i], "protocol", "TCP"));
    }
    return json_pack("{s:s, s:s, s:o, s:{s:s, s:{s:s%}, s:o}}", "apiVersion", "v1", "kind", "Service", "metadata", meta,
                     "spec", "type", kubernetes->service_type, "selector", KUBERNETES_TAG, order->tag.ptr,
                     order->tag.len, "ports", ports);
}

/* -- the calls -- */

struct making {
    struct supply_instance instance;
    enum supply_error error;
    struct str why;
};

static void on_undone(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct making *making = adapter_memory(call, sizeof(*making));
    (void)answer; /* whether it was ended or not: it is reported as leftover, and looked after */
    adapter_fail(call, making->error, making->why);
}

static void on_service(struct adapter_call *call, const struct adapter_answer *answer)
{
    struct making *making = adapter_memory(call, sizeof(*making));
    if (answer->status < 300 || str_eq(json_text_at(answer->json, "reason"), STR("AlreadyExists"))) {
        adapter_done(call, &making->instance);
        return;
    }
    making->error = adapter_classify(call, answer);
    making->why =
        adapter_text(call, "its service was refused: " STR_FMT, STR_ARG(json_text_at(answer->json, "message")));
    adapter_send(call, &(struct adapter_request){.method = "DELETE",
                                                 .path = kubernetes_path(call, "pods", call_order(call)->tag),
                                                 .takes_errors = true,
                                                 .on_answer = on_undone});
}

static void pod_is_there(struct adapter_call *call, const json_t *pod)
{
    struct making *making = adapter_memory(call, sizeof(*making));
    const struct supply_order *order = call_order(call);
    struct str uid = json_text_at(pod, "metadata.uid");
    if (!str_eq(json_text_at(pod, "metadata.name"), order->tag) || !uid.len) {
        adapter_uncertain(call, true);
        adapter_fail(call, SUPPLY_UNKNOWN, STR("its answer is not the pod that was asked for"));
        return;
    }
    adapter_uncertain(call, false);
    adapter_leftover(call, order->tag);
    kubernetes_pod_read(call, pod, &making->instance);
    if (!order->port_count) {
        adapter_done(call, &making->instance);
        return;
    }
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = kubernetes_path(call, "services", (struct str){NULL, 0}),
                                                 .take_json = service_make(call_network(call), order, uid),
                                                 .takes_errors = true,
                                                 .on_answer = on_service});
}

static void on_existing(struct adapter_call *call, const struct adapter_answer *answer)
{
    pod_is_there(call, answer->json);
}

static void on_pod(struct adapter_call *call, const struct adapter_answer *answer)
{
    if (answer->status < 300) {
        pod_is_there(call, answer->json);
    } else if (answer->status == 409 && str_eq(json_text_at(answer->json, "reason"), STR("AlreadyExists"))) {
        adapter_leftover(call, call_order(call)->tag);
        adapter_send(call, &(struct adapter_request){.path = kubernetes_path(call, "pods", call_order(call)->tag),
                                                     .on_answer = on_existing});
    } else {
        adapter_fail_answer(call, answer);
    }
}

void kubernetes_create(struct adapter_call *call)
{
    const struct supply_order *order = call_order(call);
    struct kubernetes_want want;
    if (!adapter_memory(call, sizeof(struct making)))
        return;
    if (!kubernetes_offer_read(order->offer, &want) || want.gpus != order->gpus) {
        adapter_fail(call, SUPPLY_NO_CAPACITY, STR("no such offer"));
        return;
    }
    json_t *pod = pod_make(call_network(call), order, &want);
    if (pod)
        adapter_send(call, &(struct adapter_request){.method = "POST",
                                                     .path = kubernetes_path(call, "pods", (struct str){NULL, 0}),
                                                     .take_json = pod,
                                                     .creates = true,
                                                     .takes_errors = true,
                                                     .on_answer = on_pod});
    else
        adapter_fail(call, SUPPLY_BAD_REQUEST, STR("image, command and environment must be UTF-8 text without NUL"));
}

/* -- may pods be made here? -- */

static void check_on_answer(struct adapter_call *call, const struct adapter_answer *answer)
{
    const struct kubernetes *kubernetes = network_state(call_network(call));
    if (json_true_at(answer->json, "status.allowed"))
        adapter_done(call, NULL);
    else
        adapter_fail(call, SUPPLY_BAD_CREDENTIAL,
                     adapter_text(call, "it may not create pods in namespace %s", kubernetes->namespace));
}

void kubernetes_check(struct adapter_call *call)
{
    const struct kubernetes *kubernetes = network_state(call_network(call));
    json_t *review = json_pack("{s:s, s:s, s:{s:{s:s, s:s, s:s}}}", "apiVersion", "authorization.k8s.io/v1", "kind",
                               "SelfSubjectAccessReview", "spec", "resourceAttributes", "namespace",
                               kubernetes->namespace, "verb", "create", "resource", "pods");
    adapter_send(call, &(struct adapter_request){.method = "POST",
                                                 .path = STR("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
                                                 .take_json = review,
                                                 .on_answer = check_on_answer});
}
