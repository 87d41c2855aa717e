/* The inside of the Kubernetes adapter: shared by kubernetes.c, kubernetes_node.c and kubernetes_pod.c. */
#ifndef SLUICE_ADAPTERS_KUBERNETES_PRIV_H
#define SLUICE_ADAPTERS_KUBERNETES_PRIV_H

#include "adapters/adapter.h"

#define KUBERNETES_INTERRUPTIBLE "qos.coreweave.cloud/interruptable" /* a taint; spelled so */
#define KUBERNETES_PUBLIC "service.beta.kubernetes.io/coreweave-load-balancer-type"
#define KUBERNETES_OURS "sluice-installation" /* labels of what we make */
#define KUBERNETES_TAG "sluice-tag"
#define KUBERNETES_ZONE "topology.kubernetes.io/zone"
#define KUBERNETES_REPLICAS "nvidia.com/gpu.replicas"

struct kubernetes {
    bool is_coreweave;
    int64_t cpu, memory_gib; /* of each GPU; 0: none are asked for */
    const char *namespace, *service_type, *node_host, *token_file;
};

void kubernetes_offers(struct adapter_call *call); /* kubernetes_node.c */
void kubernetes_create(struct adapter_call *call); /* kubernetes_pod.c */
void kubernetes_check(struct adapter_call *call);

/* -- kubernetes_pod.c -- */
/* Is a taint with this key no obstacle? */
bool kubernetes_tolerates(const struct network *network, struct str key);
/* The i-th key of taints that are tolerated beside the interruptible one; absent: no more. */
struct str kubernetes_toleration(const struct network *network, size_t i);

/* -- kubernetes_node.c -- */
/* What an offer's id says: which nodes, and what of them. */
struct kubernetes_want {
    int64_t gpus;
    struct str resource;       /* "nvidia.com/gpu" */
    struct str label, value;   /* of the node: which GPU it has */
    struct str zone, replicas; /* of the node; empty: it has no such label */
    bool interruptible;
};
bool kubernetes_offer_read(struct str id, struct kubernetes_want *ret); /* borrows of id */

/* -- kubernetes.c -- */
struct str kubernetes_path(struct adapter_call *call, const char *kind, struct str name); /* in the namespace */
/* A pod as an instance; endpoints come from its service. */
void kubernetes_pod_read(struct adapter_call *call, const json_t *pod, struct supply_instance *ret);

#endif
