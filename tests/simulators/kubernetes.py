#!/usr/bin/env python3
"""A Kubernetes API server with GPU nodes: pods, services, nodes (network_sim.py has what all simulators share).

What is true of the real one and of this one: no capacity is a pod that waits, Unschedulable (201); names are unique (409
AlreadyExists); a pod that is deleted keeps its phase and gets a deletionTimestamp; its service goes with it; an image that
is not there is ErrImagePull, then ImagePullBackOff; quota and RBAC are both 403; lists come by limit and continue, whose
tokens expire (410); quantities are texts; errors are Status objects; watches give bookmarks and end with ERROR 410.

--profile coreweave: nodes as CoreWeave labels and taints them. Offers of the control port are nodes: "gpu" is the product
label (or the instance type), "gpus" how many it has, "region".

Faults of its own: image_missing (the pod never runs), expired_token (410 at a continue), evicted (at a look)."""

import json
import uuid
from datetime import datetime, timezone

from network_sim import Answer, Network, Refused, run

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
TYPE, PRODUCT = "node.kubernetes.io/instance-type", "nvidia.com/gpu.product"
# the simulators' names of GPUs: product label, MiB
PRODUCTS = {"RTX 4090": ("NVIDIA-GeForce-RTX-4090", 24564), "H100 SXM": ("NVIDIA-H100-80GB-HBM3", 81559),
            "A100 SXM4": ("NVIDIA-A100-SXM4-80GB", 81920), "L4": ("NVIDIA-L4", 23034)}
COREWEAVE = {"H100 SXM": ("gd-8xh100ib-i128", "H100_NVLINK_80GB"), "A100 SXM4": ("gd-8xa100-i128", "A100_NVLINK_80GB"),
             "L40": ("gd-8xl40-i128", "L40"), "B200": ("b200-8x", "B200_NVLINK")}
STATUSES = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 410: "Expired",
            422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 504: "Timeout"}
GPUS = ("nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb")


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def expand(text):
    """$$ is $; $(NAME) of an unknown name stays."""
    return text.replace("$$", "$")


class Kubernetes(Network):
    name = "kubernetes"
    routes = [("GET", "/version", "check", "version"),
              ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "check", "review"),
              ("GET", "/api/v1/nodes", "offers", "list_nodes"), ("GET", "/api/v1/pods", "offers", "list_all_pods"),
              ("GET", "/apis/compute.coreweave.com/v1alpha1/nodepools", "offers", "list_pools"),
              ("POST", "/api/v1/namespaces/{ns}/pods", "create", "make_pod"),
              ("GET", "/api/v1/namespaces/{ns}/pods", "list", "list_pods"),
              ("GET", "/api/v1/namespaces/{ns}/pods/{name}", "describe", "get_pod"),
              ("GET", "/api/v1/namespaces/{ns}/pods/{name}/log", "logs", "get_log"),
              ("DELETE", "/api/v1/namespaces/{ns}/pods/{name}", "terminate", "end_pod"),
              ("POST", "/api/v1/namespaces/{ns}/services", "service", "make_service"),
              ("GET", "/api/v1/namespaces/{ns}/services/{name}", "service", "get_service"),
              ("DELETE", "/api/v1/namespaces/{ns}/services/{name}", "service", "end_service")]
    create_refusals = ("quota",)
    end_polls = 1
    namespaces = ("default",)
    page_size = 3

    def setup(self):
        self.services, self.version_of_all, self.events = {}, 100, []

    def default_offers(self):
        if self.args.profile == "coreweave":
            rows = [("g1a2b3c", "H100 SXM", 8, "US-EAST-04A"), ("g1a2b3d", "H100 SXM", 8, "US-EAST-04A"),
                    ("g2a", "A100 SXM4", 8, "US-WEST-01A"), ("g3a", "B200", 8, "US-CENTRAL-07A"), ("g4a", "L40", 8, "US-EAST-04A")]
            more = {"g1a2b3d": {"interruptible": True}, "g4a": {"state": "triage"}}
        else:
            rows = [("node-1", "RTX 4090", 8, "eu-west-1a"), ("node-2", "RTX 4090", 8, "eu-west-1a"),
                    ("node-3", "H100 SXM", 8, "eu-west-1b"), ("node-4", "L4", 2, "eu-west-1b"), ("node-5", "A100 SXM4", 4, "eu-west-1a"),
                    ("mig-1", "A100 SXM4", 7, "eu-west-1a"), ("sliced-1", "L4", 4, "eu-west-1a"), ("amd-1", "MI300X", 8, "eu-west-1b"),
                    ("cordoned", "H100 SXM", 8, "eu-west-1b"), ("sick", "H100 SXM", 8, "eu-west-1b"), ("tainted", "H100 SXM", 8, "eu-west-1b")]
            more = {"mig-1": {"labels": {PRODUCT: "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"}}, "cordoned": {"unschedulable": True},
                    "sliced-1": {"labels": {"nvidia.com/gpu.replicas": "4"}}, "sick": {"ready": "Unknown"},
                    "tainted": {"taints": [{"key": "dedicated", "value": "research", "effect": "NoSchedule"}]},
                    "amd-1": {"labels": {"beta.amd.com/gpu.device-id.74b5": "8"}, "resource": "amd.com/gpu"}}
        return [{"id": i, "gpu": gpu, "gpus": n, "region": zone, "stock": None, "price": 2.0, **more.get(i, {})}
                for i, gpu, n, zone in rows]

    def is_authorised(self, request):
        return request.bearer() == self.key

    def status(self, code, message, reason=None, headers=None):
        return Answer(code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                             "reason": reason or STATUSES.get(code, ""), "code": code}, headers=headers)

    def error(self, kind, request):
        rows = {"denied": (401, "Unauthorized"), "not_found": (404, "the server could not find the requested resource"),
                "rate_limited": (429, "the server has received too many requests and has asked us to try again later"),
                "internal": (500, "Internal error occurred: etcdserver: leader changed"),
                "quota": (403, 'pods "x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: '
                               'requests.nvidia.com/gpu=8, limited: requests.nvidia.com/gpu=8'),
                "forbidden": (403, 'pods is forbidden: User "system:serviceaccount:default:x" cannot create resource "pods" '
                                   'in API group "" in the namespace "default"'),
                "limit_range": (403, 'pods "x" is forbidden: maximum ephemeral-storage usage per Container is 100Gi, but limit is 9Ti'),
                "image_policy": (403, 'admission webhook "validate.example.com" denied the request: the registry is not allowed'),
                "not_yet": (409, "Operation cannot be fulfilled: the object has been modified", "Conflict")}
        row = rows.get(kind, (400, kind))
        return self.status(row[0], row[1], row[2] if len(row) > 2 else None)

    # -- lists --
    def objects(self, request, rows, kind):
        """A page of rows; tokens name an offset and what version it was of."""
        limit, token = int(request.query.get("limit", 0)) or len(rows) or 1, request.query.get("continue", "")
        at = 0
        if token:
            if self.fault("expired_token"):
                raise Refused(self.status(410, "The provided continue parameter is too old to display a consistent list "
                                               "result. You can start a new list without the continue parameter."))
            at = int(token.split(".")[1])
        limit = min(limit, self.page_size)
        meta = {"resourceVersion": str(self.version_of_all)}
        if at + limit < len(rows):
            meta["continue"] = f"tok.{at + limit}"
            meta["remainingItemCount"] = len(rows) - at - limit
        return Answer(200, {"kind": kind + "List", "apiVersion": "v1", "metadata": meta, "items": rows[at:at + limit]})

    def matches(self, labels, selector):
        pairs = [part.split("=", 1) for part in selector.split(",") if part]
        return all(labels.get(key.rstrip("=")) == value.lstrip("=") for key, value in pairs)

    # -- nodes --
    def node_view(self, row):
        resource, labels = row.get("resource", "nvidia.com/gpu"), {"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": row["id"]}
        taints = list(row.get("taints", []))
        zone = row.get("region") or "zone-a"
        labels.update({ZONE: zone, REGION: zone.rstrip("abcdefABCDEF")})
        if self.args.profile == "coreweave":
            type, kind = COREWEAVE.get(row["gpu"], (row["gpu"], row["gpu"]))
            labels.update({TYPE: type, "gpu.nvidia.com/class": kind, "gpu.nvidia.com/model": kind,
                           "node.coreweave.cloud/class": "gpu", "node.coreweave.cloud/state": row.get("state", "production")})
            taints.append({"key": "node.coreweave.cloud/reserved", "value": "org", "effect": "NoSchedule"})
            if row.get("interruptible"):
                taints.append({"key": "qos.coreweave.cloud/interruptable", "effect": "NoExecute"})
        elif resource == "nvidia.com/gpu":
            product, mib = PRODUCTS.get(row["gpu"], (row["gpu"].replace(" ", "-"), 0))
            labels.update({PRODUCT: product, "nvidia.com/gpu.count": str(row["gpus"]), TYPE: "bare-metal"})
            if mib:
                labels["nvidia.com/gpu.memory"] = str(mib)
            taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
        labels.update(row.get("labels", {}))
        return {"metadata": {"name": row["id"], "labels": labels}, "spec": {"unschedulable": row.get("unschedulable", False), "taints": taints},
                "status": {"capacity": {resource: str(row["gpus"]), "cpu": "64", "memory": "528268Mi"},
                           "allocatable": {resource: str(row["gpus"]), "cpu": "63500m", "memory": "520000Mi"},
                           "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": row.get("ready", "True")}],
                           "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": row["id"]}]}}

    def list_nodes(self, request):
        return self.objects(request, [self.node_view(row) for row in self.offers], "Node")

    def list_pools(self, request):
        types = sorted({self.node_view(row)["metadata"]["labels"][TYPE] for row in self.offers})
        return Answer(200, {"kind": "NodePoolList", "apiVersion": "compute.coreweave.com/v1alpha1", "metadata": {}, "items": [
            {"metadata": {"name": f"pool-{type}"}, "spec": {"computeClass": "default", "instanceType": type, "targetNodes": 2,
                                                           "autoscaling": False}} for type in types]})

    def free(self, row):
        used = sum(made.gpus for made in self.instances.values()
                   if made.is_live and made.more.get("node") == row["id"] and made.state in ("pending", "running", "stopping"))
        return row["gpus"] - used - (0 if row.get("stock") != 0 else row["gpus"])

    def fits(self, row, spec, resource, gpus):
        node = self.node_view(row)
        tolerated = {t.get("key") for t in spec.get("tolerations", []) if t.get("operator") == "Exists"}
        return (not node["spec"]["unschedulable"] and row.get("ready", "True") == "True" and self.free(row) >= gpus and
                resource in node["status"]["allocatable"] and all(t["key"] in tolerated for t in node["spec"]["taints"]) and
                all(node["metadata"]["labels"].get(k) == v for k, v in spec.get("nodeSelector", {}).items()))

    def schedule(self, made):
        spec = made.more["spec"]
        if made.more["node"] or made.more["is_unschedulable"]:
            return
        limits = spec["containers"][0]["resources"]["limits"]
        resource = next(name for name in limits if name in GPUS)
        for row in self.offers:
            if self.fits(row, spec, resource, made.gpus):
                made.more["node"], made.runs = row["id"], not made.more["image_missing"]
                made.interruptible = bool(row.get("interruptible"))
                return

    # -- pods --
    def version(self, request):
        return Answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.2"})

    def review(self, request):
        spec = request.json()["spec"]["resourceAttributes"]
        return Answer(201, {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {
            "resourceAttributes": spec}, "status": {"allowed": spec["namespace"] in self.namespaces}})

    def namespace(self, ns):
        if ns not in self.namespaces:
            raise Refused(self.status(404, f'namespaces "{ns}" not found'))

    def invalid(self, message):
        raise Refused(self.status(422, message))

    def check_pod(self, pod):
        name, spec = pod["metadata"].get("name", ""), pod["spec"]
        labels = pod["metadata"].get("labels", {})
        if not name or len(name) > 63 or not name.replace("-", "a").isalnum() or name != name.lower():
            self.invalid(f'Pod "{name}" is invalid: metadata.name: Invalid value')
        if any(len(value) > 63 for value in labels.values()):
            self.invalid(f'Pod "{name}" is invalid: metadata.labels: must be no more than 63 characters')
        (container,) = spec["containers"]
        limits = container["resources"]["limits"]
        if not isinstance(limits.get("nvidia.com/gpu", ""), str) or not any(key in GPUS for key in limits):
            self.invalid(f'Pod "{name}" is invalid: spec.containers[0].resources.limits')
        if not container.get("image") or " " in container["image"]:
            self.invalid(f'Pod "{name}" is invalid: spec.containers[0].image: Invalid value')
        if not 0 < spec.get("activeDeadlineSeconds", 1) <= 2147483647:
            self.invalid(f'Pod "{name}" is invalid: spec.activeDeadlineSeconds')
        if any("=" in e["name"] or not e["name"] or not isinstance(e.get("value", ""), str) for e in container.get("env", [])):
            self.invalid(f'Pod "{name}" is invalid: spec.containers[0].env[0].name')
        return name, spec, container

    def make_pod(self, request, ns):
        self.namespace(ns)
        pod = request.json()
        name, spec, container = self.check_pod(pod)
        if self.find(name):
            raise Refused(self.status(409, f'pods "{name}" already exists'))
        for kind in ("forbidden", "limit_range", "image_policy"):
            if self.fault(kind, "create"):
                self.refuse(kind, request)
        gpus = next(int(n) for key, n in container["resources"]["limits"].items() if key in GPUS)
        image_missing = self.fault("bad_image", "create") or self.fault("image_missing", "create")
        made = self.create(pod["metadata"]["labels"].get("sluice-tag", name), None, runs=False, id=name, gpus=gpus, price=2.0,
                           image=container["image"], argv=[expand(a) for a in container.get("command", [])],
                           env={e["name"]: expand(e.get("value", "")) for e in container.get("env", [])},
                           ports=[p["containerPort"] for p in container.get("ports", [])], spec=spec, node=None,
                           labels=pod["metadata"]["labels"], uid=str(uuid.uuid4()), since=now(), image_missing=image_missing,
                           is_unschedulable=self.fault("no_capacity", "create") is not None)
        return Answer(201, self.view(made))

    def view(self, made):
        uid = made.more.setdefault("uid", str(uuid.uuid4()))
        since = made.more.setdefault("since", now())
        spec = dict(made.more.get("spec") or {"containers": [{"name": "main", "image": "x", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]})
        node = made.more.get("node") or (None if "spec" in made.more else self.offers[0]["id"])
        if node:
            spec["nodeName"] = node
        meta = {"name": made.id, "namespace": "default", "uid": uid, "resourceVersion": str(self.version_of_all),
                "creationTimestamp": since, "labels": made.more.get("labels", {
                    "sluice-tag": made.tag, "sluice-installation": (made.tag.split("-") + ["", ""])[1]})}
        if made.state == "stopping":
            meta.update(deletionTimestamp=now(), deletionGracePeriodSeconds=10)
        status = {"phase": made.more.get("phase_was", "Running") if made.state == "stopping" else
                  {"pending": "Pending", "running": "Running", "failed": "Failed", "stopped": "Succeeded"}[made.state],
                  "qosClass": "Burstable", "conditions": []}
        if node:
            status["hostIP"] = "127.0.0.1"
            status["conditions"].append({"type": "PodScheduled", "status": "True"})
        elif made.looks:
            status["conditions"].append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                         "message": f"0/{len(self.offers)} nodes are available: {len(self.offers)} Insufficient "
                                                    "nvidia.com/gpu."})
        status["containerStatuses"] = [{"name": "main", "ready": made.state == "running", "restartCount": 0, "image": made.image,
                                        "state": self.container_state(made)}] if node else []
        if made.more.get("evicted"):
            status.update(reason="Evicted", message="The node was low on resource: ephemeral-storage.")
            status["conditions"].append({"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"})
        return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": status}

    def container_state(self, made):
        if made.state == "pending" and made.more.get("image_missing"):
            return {"waiting": {"reason": "ErrImagePull" if made.looks < 2 else "ImagePullBackOff",
                                "message": f'Back-off pulling image "{made.image}": not found'}}
        if made.state == "pending":
            return {"waiting": {"reason": "ContainerCreating"}}
        if made.state in ("failed", "stopped"):
            code = made.process.returncode if made.process else 1
            return {"terminated": {"exitCode": code if made.state == "failed" else 0,
                                   "reason": "Error" if made.state == "failed" else "Completed", "finishedAt": now()}}
        return {"running": {"startedAt": made.more.get("since", now())}}

    def pod(self, name):
        made = self.find(name)
        if not made:
            raise Refused(self.status(404, f'pods "{name}" not found'))
        return made

    def get_pod(self, request, ns, name):
        made = self.pod(name)
        if made.lag > 0:
            pass  # a pod that is read by its name is always there
        if made.state == "pending" and "spec" in made.more:
            self.schedule(made)
        if self.fault("evicted", "describe", made.tag):
            made.state, made.more["evicted"] = "failed", True
            self.kill(made)
        self.look(made)
        if not made.is_live:
            raise Refused(self.status(404, f'pods "{name}" not found'))
        if made.state == "failed" and made.process and made.process.returncode == 0:
            made.state = "stopped"
        return Answer(200, self.view(made))

    def list_pods(self, request, ns):
        self.namespace(ns)
        if request.query.get("watch"):
            return self.watch(request)
        for made in list(self.instances.values()):
            if made.is_live and made.state == "stopping":
                self.look(made)
        rows = [self.view(made) for made in self.listing()]
        return self.objects(request, [row for row in rows if self.matches(row["metadata"]["labels"], request.query.get("labelSelector", ""))],
                            "Pod")

    def list_all_pods(self, request):
        rows = [self.view(made) for made in self.instances.values() if made.is_live]
        rows.append({"metadata": {"name": "done", "labels": {}}, "spec": {"nodeName": self.offers[0]["id"] if self.offers else "x", "containers": [
            {"resources": {"limits": {"nvidia.com/gpu": "8"}}}]}, "status": {"phase": "Succeeded"}})
        if "Succeeded" in request.query.get("fieldSelector", ""):
            rows = [row for row in rows if row["status"]["phase"] not in ("Succeeded", "Failed")]
        return self.objects(request, rows, "Pod")

    def watch(self, request):
        """What is there as events, a bookmark, and then what comes of a version that is too old."""
        since = int(request.query.get("resourceVersion") or 0)
        expired = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}})
        if 0 < since < self.version_of_all - 1000:
            return Answer(200, expired + "\n", content_type="application/json")
        lines = [json.dumps({"type": "ADDED", "object": self.view(made)}) for made in self.listing()]
        lines.append(json.dumps({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(self.version_of_all)}}}))
        return Answer(200, stream=[(line + "\n").encode() for line in [*lines, expired]], content_type="application/json")

    def get_log(self, request, ns, name):
        made = self.pod(name)
        if made.state == "pending":
            raise Refused(self.status(400, f'container "main" in pod "{name}" is waiting to start: ContainerCreating'))
        text = self.logs(made)
        return Answer(200, text[:int(request.query.get("limitBytes", len(text)))], content_type="text/plain")

    def end_pod(self, request, ns, name):
        made = self.pod(name)
        if request.json().get("preconditions", {}).get("uid", made.more.get("uid")) != made.more.get("uid"):
            raise Refused(self.status(409, "Precondition failed: UID in precondition", "Conflict"))
        made.more["phase_was"] = {"pending": "Pending", "running": "Running"}.get(made.state, "Failed")
        if made.state != "stopping":
            self.terminate(made)
        return Answer(200, self.view(made) if made.is_live else {"kind": "Status", "status": "Success"})

    def finish(self, made, reason):
        if made.is_live:
            for name in [name for name, service in self.services.items() if service["owner"] == made.more.get("uid")]:
                del self.services[name]
        self.version_of_all += 1
        return super().finish(made, reason)

    # -- services --
    def make_service(self, request, ns):
        self.namespace(ns)
        body = request.json()
        name, spec = body["metadata"]["name"], body["spec"]
        if name in self.services:
            raise Refused(self.status(409, f'services "{name}" already exists'))
        if self.fault("leftover", "create") or self.fault("service_refused"):
            raise Refused(self.status(403, f'services "{name}" is forbidden: exceeded quota: services, requested: services=1, '
                                           'used: services=5, limited: services=5'))
        owners = body["metadata"].get("ownerReferences", [])
        if not owners or owners[0]["kind"] != "Pod" or not owners[0].get("uid"):
            self.invalid("ownerReferences")
        self.services[name] = {"owner": owners[0]["uid"], "spec": spec, "labels": body["metadata"].get("labels", {}), "looks": 0}
        return Answer(201, self.service_view(name))

    def service_view(self, name):
        service = self.services[name]
        made = next((m for m in self.instances.values() if m.more.get("uid") == service["owner"]), None)
        spec = {**service["spec"], "clusterIP": "10.96.0.17", "ports": [dict(p) for p in service["spec"]["ports"]]}
        outside = made.host_ports if made and made.host_ports else {}
        for i, port in enumerate(spec["ports"]):
            if spec["type"] in ("NodePort", "LoadBalancer"):
                port["nodePort"] = outside.get(port["targetPort"], 30000 + i)
        ingress = [{"ip": "127.0.0.1"}] if spec["type"] == "LoadBalancer" and service["looks"] > 0 else []
        return {"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "uid": name, "labels": service["labels"]}, "spec": spec,
                "status": {"loadBalancer": {"ingress": ingress} if ingress else {}}}

    def get_service(self, request, ns, name):
        if name not in self.services:
            raise Refused(self.status(404, f'services "{name}" not found'))
        answer = Answer(200, self.service_view(name))
        self.services[name]["looks"] += 1
        return answer

    def end_service(self, request, ns, name):
        if not self.services.pop(name, None):
            raise Refused(self.status(404, f'services "{name}" not found'))
        return Answer(200, {"kind": "Status", "status": "Success"})


if __name__ == "__main__":
    run(Kubernetes, lambda parser: parser.add_argument("--profile", default="plain", choices=["plain", "coreweave"]))
