#!/usr/bin/env python3
"""RunPod: REST v2 and the part of GraphQL that rents interruptible pods (network_sim.py has what all simulators share).

As the real one: no capacity is a 400 with prose, like a broken rule; GraphQL answers 200 with `errors`; the same name may
be used again, so a second POST makes a second pod; a pod is RUNNING before it has a `runtime`; the catalogue may say HIGH
and create fail; DELETE of what is gone is a 404; every authenticated answer has RateLimit headers; v1 has gone (410)."""

import json
import re
import shlex
import time

from network_sim import Answer, Network, Refused, run

GONE = "There are no longer any instances available with the requested specifications. Please refresh and try again."
FIELDS = {"name", "image", "args", "disk", "env", "ports", "registry", "cloud", "cpu", "gpu", "dataCenterIds", "globalNetworking",
          "mounts", "startJupyter", "startSsh", "templateId"}
ROWS = [("NVIDIA GeForce RTX 4090", 24, "SECURE", "US-KS-2", 8, 0.69, 0.35), ("NVIDIA GeForce RTX 4090", 24, "SECURE", "EU-RO-1", 8, 0.69, 0.35),
        ("NVIDIA GeForce RTX 4090", 24, "COMMUNITY", None, 4, 0.34, 0.2), ("NVIDIA H100 80GB HBM3", 80, "SECURE", "CA-MTL-1", 8, 2.69, 1.5),
        ("NVIDIA A100-SXM4-80GB", 80, "SECURE", "EUR-IS-1", 4, 1.49, None), ("NVIDIA A100 80GB PCIe", 80, "COMMUNITY", None, 1, 1.19, 0.6),
        ("AMD Instinct MI300X OAM", 192, "SECURE", "EU-RO-1", 8, 2.39, None), ("NVIDIA GeForce RTX 3070", 8, "SECURE", "US-KS-2", 0, 0, None)]
WINDOWS = (("minute", 60, 60), ("hour", 3600, 3000), ("day", 86400, 50000))


def problem(status, title, detail, errors=None):
    body = {"title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = errors
    return Answer(status, json.dumps(body), content_type="application/problem+json")


class RunPod(Network):
    name = "runpod"
    routes = [("GET", "/v2/catalog/gpus", "offers", "catalog"), ("POST", "/v2/pods", "create", "make"), ("GET", "/v2/pods", "list", "pods"),
              ("GET", "/v2/pods/{id}", "describe", "pod"), ("DELETE", "/v2/pods/{id}", "terminate", "end"),
              ("POST", "/v2/pods/{id}/action", "stop", "act"), ("POST", "/graphql", "graphql", "graph"),
              ("GET", "/v1/pods", "list", "retired"), ("POST", "/v1/pods", "create", "retired")]

    def setup(self):
        self.times = []

    def default_offers(self):
        return [{"id": f"{gpu}/{cloud}/{center}", "gpu": gpu, "vram_gib": vram, "cloud": cloud, "region": center, "gpus": gpus,
                 "price": price, "bid": bid, "stock": None} for gpu, vram, cloud, center, gpus, price, bid in ROWS]

    def new_id(self):
        return f"{self.random.getrandbits(40):x}{self.serial:04x}"

    def error(self, kind, request):
        said = {"denied": (401, "Unauthorized", "invalid bearer token"), "not_found": (404, "Not Found", "pod not found"),
                "rate_limited": (429, "Too Many Requests", "rate limit exceeded for the minute window"),
                "internal": (500, "Internal Server Error", "Something went wrong. Please try again later or contact support."),
                "no_capacity": (400, "Bad Request", GONE), "quota": (400, "Bad Request", "You have reached your quota of pods."),
                "no_funds": (402, "Payment Required", "Your account balance is too low to create this pod."),
                "bad_image": (400, "Bad Request", "image could not be resolved: manifest unknown"),
                "price_moved": (400, "Bad Request", "bid is lower than the minimum bid"),
                "not_yet": (409, "Conflict", "pod cannot be changed in its state")}
        status, title, detail = said.get(kind, (400, "Bad Request", "request could not be processed"))
        if request.path == "/graphql" and status not in (401, 429, 500):
            return Answer(200, {"errors": [{"message": detail, "path": ["podRentInterruptable"], "extensions": {"code": "RUNPOD"}}],
                                "data": {"podRentInterruptable": None}})
        return problem(status, title, detail)

    # -- limits: told on every authenticated answer, kept with --pace --
    def is_too_soon(self, op):
        self.times = [t for t in self.times if t > time.monotonic() - 60]
        self.times.append(time.monotonic())
        return self.is_paced and len(self.times) > 60

    def route(self, request):
        fn, parts = super().route(request)
        if request.path == "/graphql":
            query = str(self.body(request).get("query", ""))
            request.op = next((op for word, op in (("podRentInterruptable", "create"), ("podTerminate", "terminate"),
                                                   ("myself", "list")) if word in query), "offers")
        return fn, parts

    def body(self, request):
        try:
            body = json.loads(request.body or b"{}")
        except ValueError:
            body = {}
        return body if isinstance(body, dict) else {}

    def answer(self, request):
        answer = super().answer(request)
        if answer.status != 401:
            used = len(self.times)
            answer.headers["RateLimit"] = ", ".join(f'"{n}";r={max(quota - used, 0)};t={span // 2}' for n, span, quota in WINDOWS)
            answer.headers["RateLimit-Policy"] = ", ".join(f'"{n}";q={quota};w={span}' for n, span, quota in WINDOWS)
            if answer.status == 429:
                answer.headers.setdefault("Retry-After", "1")
        return answer

    def retired(self, request):
        return 410, {"error": "this version of the API is no longer available"}

    # -- offers --
    def rows(self, gpu=None, cloud=None, count=1, centers=None):
        return [o for o in self.offers if o.get("stock") != 0 and o.get("gpus", 1) >= count and (gpu is None or o["gpu"] == gpu) and
                (cloud is None or o.get("cloud", "SECURE") == cloud) and (not centers or o.get("region") in centers)]

    def catalog(self, request):
        query = request.query
        if "include" not in query and any(k in query for k in ("product", "count", "cloud", "countryCodes")):
            return problem(400, "Bad Request", "filters require include=AVAILABILITY")
        if query.get("include") == "AVAILABILITY" and query.get("product") not in ("POD", "CLUSTER", "SERVERLESS"):
            return problem(400, "Bad Request", "product is required with include=AVAILABILITY")
        gpus = {}
        for offer in self.offers:
            cloud = offer.get("cloud", "SECURE").lower()
            gpu = gpus.setdefault(offer["gpu"], {
                "id": offer["gpu"], "name": offer["gpu"].split(" ", 1)[-1], "pool": None, "memory": offer.get("vram_gib", 24),
                "manufacturer": "AMD" if offer["gpu"].startswith("AMD") else "NVIDIA", "secure": False, "community": False,
                "price": {"secure": 0, "community": 0}, "maxCount": {"secure": 0, "community": 0}})
            if offer.get("gpus", 1):
                gpu[cloud], gpu["price"][cloud] = True, offer["price"]
                gpu["maxCount"][cloud] = max(gpu["maxCount"][cloud], offer.get("gpus", 1))
        if "include" in query:
            cloud, count = query.get("cloud", "SECURE"), int(query.get("count", "1"))
            for offer in self.rows(cloud=cloud, count=count):
                gpu = gpus[offer["gpu"]]
                gpu["availability"] = "HIGH" if offer.get("stock") is None else "LOW"
                if offer.get("region"):
                    gpu.setdefault("dataCenters", []).append({"id": offer["region"], "name": offer["region"], "availability": gpu["availability"]})
        return 200, {"gpus": list(gpus.values())}

    def gpu_types(self, query):
        rows = []
        for id in dict.fromkeys(o["gpu"] for o in self.offers):
            row = {"id": id, "memoryInGb": next(o.get("vram_gib", 24) for o in self.offers if o["gpu"] == id)}
            for alias, count, secure in re.findall(r"(\w+)\s*:\s*lowestPrice\(input:\{gpuCount:(\d+),secureCloud:(true|false)\}\)", query):
                bids = [o["bid"] for o in self.rows(id, "SECURE" if secure == "true" else "COMMUNITY", int(count)) if o.get("bid")]
                row[alias] = {"minimumBidPrice": min(bids, default=None), "stockStatus": "High" if bids else None}
            rows.append(row)
        return rows

    # -- pods --
    def shown(self, made):
        is_up, host = made.state == "running", "127.0.0.1"
        ports = [{"ip": host, "private": int(p.split("/")[0]), "public": made.host_ports.get(p), "type": "tcp"}
                 for p in made.ports if p.endswith("/tcp")]
        status = {"running": "RUNNING", "stopped": "EXITED", "failed": "ERROR", "gone": "TERMINATED"}.get(
            made.state, "RUNNING" if made.looks else "PROVISIONING")
        return {"id": made.id, "name": made.tag, "image": made.image, "args": "", "disk": made.more.get("disk", 50), "ports": made.ports,
                "env": made.env, "registry": None, "status": status, "actions": ["start" if status == "EXITED" else "stop", "terminate"],
                "mounts": {}, "gpu": {"id": made.offer["gpu"] if made.offer else "NVIDIA L4", "count": made.gpus},
                "cloud": made.more.get("cloud", "SECURE"), "dataCenterId": made.more.get("center"), "cudaVersion": "12.8",
                "ssh": {"proxy": {"host": "ssh.runpod.io", "port": 22, "username": f"{made.id}-64411eb2"}, "direct": None},
                "template": None, "cost": 0.0 if status in ("EXITED", "TERMINATED") else round((made.price or 0) * made.gpus, 6), "locked": False,
                "globalNetworking": {"enabled": False},
                "runtime": {"uptime": 3, "gpus": [], "ports": ports + [{"ip": "100.65.14.155", "private": 19123, "public": 60821, "type": "http"}]}
                if is_up else None,
                "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made.created)), "startedAt": None}

    def argv(self, text):
        try:
            parts = json.loads(text or "null")
            return [*parts.get("entrypoint", []), *parts.get("cmd", [])]
        except (ValueError, AttributeError):
            return shlex.split(text)

    def place(self, request, name, gpu, cloud, count, centers, **more):
        if not any(o["gpu"] == gpu for o in self.offers):
            raise Refused(problem(400, "Bad Request", f"gpu type {gpu} does not exist"))
        rows = self.rows(gpu, cloud, count, centers)
        if not rows:
            self.refuse("no_capacity", request)
        return self.create(name, rows[0], gpus=count, cloud=cloud, center=rows[0].get("region"), **more)

    def make(self, request):
        body, wrong = request.json(), []
        wrong += [f"$: additional properties '{key}' not allowed" for key in body if key not in FIELDS]
        for key, kind in (("name", str), ("image", str), ("gpu", dict), ("env", dict), ("ports", list), ("disk", int)):
            if not isinstance(body.get(key), kind) and (key in body or key in ("name", "image", "gpu")):
                wrong.append(f"$.{key}: value must be {kind.__name__}")
        wrong += [f"$.ports: '{p}' is not a port" for p in body.get("ports", []) if not re.fullmatch(r"\d+/(http|tcp)", str(p))]
        wrong += ["$.env: value must be string" for v in body.get("env", {}).values() if not isinstance(v, str)]
        if wrong:
            return problem(422, "Unprocessable Entity", "Request validation failed.", wrong)
        made = self.place(request, body["name"], body["gpu"].get("id"), body.get("cloud", "SECURE"), body["gpu"].get("count", 1),
                          body.get("dataCenterIds"), image=body["image"], argv=self.argv(body.get("args")), env=body.get("env"),
                          ports=body.get("ports"), disk=body.get("disk"))
        return 201, self.shown(made)

    def rent(self, request, wish):
        made = self.place(request, wish["name"], wish["gpuTypeId"], wish.get("cloudType", "ALL"), wish.get("gpuCount", 1), None,
                          image=wish["imageName"], argv=self.argv(wish.get("dockerArgs")), env={e["key"]: e["value"] for e in wish["env"]},
                          ports=[p for p in wish.get("ports", "").split(",") if p], price=wish["bidPerGpu"], interruptible=True)
        if made.offer.get("bid") is None or wish["bidPerGpu"] + 1e-9 < made.offer["bid"]:
            self.finish(made, "outbid")
            del self.instances[made.id]
            self.refuse("price_moved", request)
        return {"id": made.id, "desiredStatus": "RUNNING", "costPerHr": wish["bidPerGpu"] * made.gpus}

    def graph(self, request):
        body = request.json()
        query, variables = body.get("query", ""), body.get("variables") or {}
        if "podRentInterruptable" in query:
            return 200, {"data": {"podRentInterruptable": self.rent(request, variables["input"])}}
        if "gpuTypes" in query:
            return 200, {"data": {"gpuTypes": self.gpu_types(query)}}
        return 200, {"errors": [{"message": "Cannot query that field", "extensions": {"code": "GRAPHQL_VALIDATION_FAILED"}}]}

    def known(self, request, id):
        made = self.find(id)
        if not made:
            self.refuse("not_found", request)
        return made

    def pod(self, request, id):
        made = self.look(self.known(request, id))
        if not made.is_live:
            self.refuse("not_found", request)
        return 200, self.shown(made)

    def pods(self, request):
        return 200, {"pods": [self.shown(made) for made in self.listing()]}

    def act(self, request, id):
        made, action = self.known(request, id), request.json().get("action")
        if action not in ("start", "stop", "restart", "terminate"):
            return problem(422, "Unprocessable Entity", "Request validation failed.",
                           ["$.action: value must be one of 'start', 'stop', 'restart', 'terminate'"])
        if action == "stop":
            self.halt(made)
        elif action == "terminate":
            self.terminate(made)
        return 200, self.shown(made)

    def end(self, request, id):
        self.terminate(self.known(request, id))
        return 204, None


if __name__ == "__main__":
    run(RunPod)
