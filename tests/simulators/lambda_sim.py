#!/usr/bin/env python3
"""Lambda Cloud 1.10, from its own OpenAPI document. network_sim.py says how it is told what to do.

Faithful in: types in an object by name, cents for the whole machine, GPUs in prose, refusals after a listing that says
yes, no ip while booting, unknown members of a body refused, names and tags echoed, terminated ones that stay listed for a
while, 1 request a second and 1 launch in 12 (with --pace).
"""

import re
import time

from network_sim import Answer, Network, Refused, run

LAUNCH = {"region_name", "instance_type_name", "ssh_key_names", "name", "hostname", "file_system_names",
          "file_system_mounts", "image", "user_data", "tags", "firewall_rulesets"}


class Lambda(Network):
    name = "lambda"
    routes = [("GET", "/api/v1/instance-types", "offers", "types"),
              ("POST", "/api/v1/instance-operations/launch", "create", "launch"),
              ("GET", "/api/v1/instances/{id}", "describe", "show"),
              ("GET", "/api/v1/instances", "list", "show_all"),
              ("POST", "/api/v1/instance-operations/terminate", "terminate", "end"),
              ("GET", "/api/v1/ssh-keys", "check", "keys")]
    intervals = {"create": 12.0}
    end_polls = 1
    ssh_keys = ("operator", "sluice")

    def setup(self):
        self.last_any = 0.0

    def default_offers(self):
        rows = [("gpu_1x_h100_pcie", "H100 (80 GB PCIe)", 1, 249, ["us-west-3"]),
                ("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 8, 2392, ["us-east-1", "us-south-2"]),
                ("gpu_1x_a10", "A10 (24 GB PCIe)", 1, 75, ["us-west-1", "europe-central-1"]),
                ("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 1, 129, ["asia-south-1"]),
                ("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 8, 1432, []),
                ("gpu_1x_gh200", "GH200 (96 GB)", 1, 149, ["us-east-3"]),
                ("gpu_8x_v100", "Tesla V100 (16 GB)", 8, 440, ["us-south-1"]),
                ("gpu_1x_b200_sxm6", "B200 (180 GB SXM6)", 1, 499, ["us-east-2"]),
                ("cpu_4x_general", "N/A", 0, 12, ["us-east-1"])]
        return [{"id": name, "gpu": gpu, "gpus": n, "cents": cents, "price": cents / 100 / max(n, 1), "regions": regions,
                 "stock": None, "interruptible": False} for name, gpu, n, cents, regions in rows]

    def new_id(self):
        return f"{self.serial:032x}"

    def is_authorised(self, request):
        return self.key in (request.bearer(), request.basic_user())

    def is_too_soon(self, op):
        now = time.monotonic()
        if self.is_paced and now - self.last_any < 1.0:
            return True
        self.last_any = now
        return super().is_too_soon(op)

    def error(self, kind, request):
        rows = {"denied": (401, "global/invalid-api-key", "API key was invalid, expired, or deleted."),
                "not_found": (404, "global/object-does-not-exist", "Specified instance does not exist."),
                "no_capacity": (400, "instance-operations/launch/insufficient-capacity",
                                "Not enough capacity to fulfill launch request."),
                "quota": (400, "global/quota-exceeded", "Quota exceeded."),
                "rate_limited": (429, "global/rate-limited", "Too many requests."),
                "not_yet": (409, "global/conflict", "vm-has-not-launched"),
                "internal": (500, "global/internal-error", "An internal error occurred.")}
        status, code, message = rows.get(kind, (400, "global/invalid-parameters", f"Invalid request data: {kind}"))
        return Answer(status, {"error": {"code": code, "message": message, "suggestion": "Try again later."}})

    def invalid(self, why):
        raise Refused(Answer(400, {"error": {"code": "global/invalid-parameters", "message": why}}))

    def type_of(self, offer, price=None):
        cents = offer["cents"] if price is None else round(price * 100 * max(offer["gpus"], 1))
        return {"name": offer["id"], "description": f"{offer['gpus']}x {offer['gpu']}", "gpu_description": offer["gpu"],
                "price_cents_per_hour": cents,
                "specs": {"vcpus": 26, "memory_gib": 200, "storage_gib": 1024, "gpus": offer["gpus"]}}

    def types(self, request):
        return 200, {"data": {o["id"]: {"instance_type": self.type_of(o),
                                        "regions_with_capacity_available": [{"name": r, "description": r + ", somewhere"}
                                                                            for r in o["regions"]]}
                              for o in self.offers}}

    def keys(self, request):
        return 200, {"data": [{"id": "1", "name": name, "public_key": "ssh-ed25519 AAAA"} for name in self.ssh_keys]}

    def launch(self, request):
        body = request.json()
        for key in body:
            if key not in LAUNCH:
                self.invalid(f"unknown field {key}")
        if len(body.get("ssh_key_names", [])) != 1 or body["ssh_key_names"][0] not in self.ssh_keys:
            self.invalid("exactly one known SSH key is needed")
        if len(body.get("name", "")) > 64 or not re.fullmatch(r"[a-z0-9][0-9a-z-]{0,62}", body.get("hostname", "a")):
            self.invalid("name or hostname")
        for tag in body.get("tags", []):
            if not re.fullmatch(r"[a-z][a-z0-9-:]+", tag["key"]) or len(tag["key"]) > 55 or len(tag["value"]) > 128:
                self.invalid("tags")
        offer = self.offer(body.get("instance_type_name")) or self.refuse("not_found", request)
        if body.get("region_name") not in offer["regions"]:
            self.refuse("no_capacity", request)
        script = body.get("user_data", "")
        made = self.create(tag=body.get("name", ""), offer=offer, argv=["/bin/sh", "-c", script] if script else [],
                           region=body["region_name"], tags=body.get("tags", []), image="lambda-stack")
        return 200, {"data": {"instance_ids": [made.id]}}

    def row(self, made):
        status = {"pending": "booting", "running": "active", "stopping": "terminating", "failed": "unhealthy",
                  "stopped": "unhealthy", "gone": "terminated"}[made.state]
        row = {"id": made.id, "name": made.tag, "status": status, "ssh_key_names": list(self.ssh_keys),
               "file_system_names": [], "region": {"name": made.more.get("region", "us-east-1"), "description": "x"},
               "instance_type": self.type_of(made.offer, made.price), "tags": made.more.get("tags", []),
               "actions": {"terminate": {"available": made.state not in ("stopping", "gone")}}}
        if made.state == "running":
            row["ip"], row["private_ip"] = "198.51.100.2", "10.0.0.2"
        return row

    def show(self, request, id):
        made = self.find(id) or self.refuse("not_found", request)
        if not self.look(made).is_live and made.reason == "vanished":
            self.refuse("not_found", request)
        return 200, {"data": self.row(made)}

    def show_all(self, request):
        shown = self.listing()
        ended = [m for m in self.instances.values() if not m.is_live and m.reason == "terminated"][-3:]
        return 200, {"data": [self.row(made) for made in shown + ended]}

    def end(self, request):
        ids = request.json().get("instance_ids", [])
        ended = [self.find(id) or self.refuse("not_found", request) for id in ids]
        return 200, {"data": {"terminated_instances": [self.row(self.terminate(made)) for made in ended]}}


if __name__ == "__main__":
    run(Lambda)
