#!/usr/bin/env python3
"""io.net: containers paid before for whole hours, CaaS (network_sim.py has what all simulators share).

As the real one: reads are wrapped in `data`, deploy and delete are not; a price is for the whole span it is asked for; ids are
numbers or texts; a status may have spaces; public_url is empty until the container runs; DELETE asks for the termination, which
comes later; a deployment is never forgotten, only `destroyed` or `completed`; errors are FastAPI's."""

import json
import time
import uuid

from network_sim import Answer, Network, run

BASE = "/enterprise/v1/io-cloud/caas"
# hardware, its name, most GPUs, USD a GPU-hour, places with replicas
ROWS = [(203, "H100 PCIe", 8, 1.99, [(1, "US", "United States", 4), (7, "NO", "Norway", 2)]), (71, "GeForce RTX 4090", 4, 0.29, [(1, "US", "United States", 9)]),
        ("gpu_1x_a6000", "RTX A6000", 1, 0.4, [("DE", "DE", "Germany", 3)]), (12, "A100-SXM4-80GB", 8, 1.2, [(7, "NO", "Norway", 0)])]
FIELDS = {"resource_private_name": str, "duration_hours": int, "gpus_per_container": int, "hardware_id": (int, str), "location_ids": list,
          "container_config": dict, "registry_config": dict}
ENDED_SHOWN = 40


def wrong(loc, text, kind):
    return {"loc": ["body", loc], "msg": text, "type": kind}


class IoNet(Network):
    name = "ionet"
    routes = [("GET", f"{BASE}/hardware/max-gpus-per-container", "offers", "hardware"), ("GET", f"{BASE}/available-replicas", "offers", "replicas"),
              ("GET", f"{BASE}/price", "price", "price"), ("GET", f"{BASE}/clusters/check_cluster_name_availability", "name", "check_name"),
              ("POST", f"{BASE}/deploy", "create", "deploy"), ("GET", f"{BASE}/deployments", "list", "deployments"),
              ("GET", f"{BASE}/deployment/{{id}}", "describe", "deployment"), ("GET", f"{BASE}/deployment/{{id}}/containers", "describe", "containers"),
              ("DELETE", f"{BASE}/deployment/{{id}}", "terminate", "end")]
    end_polls, page_max = 1, 100

    def default_offers(self):
        return [{"id": f"{hw}/{place}", "hardware": hw, "gpu": name, "gpus": most, "price": price, "place": place, "iso2": iso2, "region": region, "stock": stock}
                for hw, name, most, price, places in ROWS for place, iso2, region, stock in places]

    def new_id(self):
        return str(uuid.UUID(int=self.random.getrandbits(128)))

    def is_authorised(self, request):
        return request.headers.get("x-api-key") == self.key

    def error(self, kind, request):
        status, text = {"denied": (401, "Invalid API key"), "not_found": (404, "Not Found"), "rate_limited": (429, "Too Many Requests"),
                        "internal": (500, "Internal Server Error"), "no_capacity": (400, "Not enough replicas are available for this hardware"),
                        "quota": (403, "Quota of deployments exceeded"), "no_funds": (402, "Insufficient balance"),
                        "bad_image": (400, "Image could not be pulled"), "price_moved": (400, "Price changed"),
                        "not_yet": (409, "Deployment cannot be terminated now")}.get(kind, (400, "Bad Request"))
        return Answer(status, {"detail": text})

    def hardware_of(self, offer):
        return offer.get("hardware", f"hw-{offer['gpu'].replace(' ', '-').lower()}")

    def place_of(self, offer):
        return offer.get("place", offer.get("region", "US"))

    def rows(self, hardware, places=None, gpus=1):
        return [o for o in self.offers if str(self.hardware_of(o)) == str(hardware) and o.get("gpus", 1) >= gpus and o.get("stock") != 0 and
                (places is None or self.place_of(o) in places)]

    def hardware(self, request):
        rows = {}
        for o in self.offers:
            row = rows.setdefault(str(self.hardware_of(o)), {"hardware_id": self.hardware_of(o), "hardware_name": o["gpu"], "brand_name": "NVIDIA",
                                                             "max_gpus_per_container": 0, "available": 0})
            row["max_gpus_per_container"] = max(row["max_gpus_per_container"], o.get("gpus", 1))
            row["available"] += 8 if o.get("stock") is None else o["stock"]
        return 200, {"data": {"hardware": list(rows.values()), "total": len(rows)}}

    def replicas(self, request):
        if "hardware_id" not in request.query:
            return Answer(422, {"detail": [{"loc": ["query", "hardware_id"], "msg": "field required", "type": "value_error.missing"}]})
        rows = self.rows(request.query["hardware_id"], gpus=int(request.query.get("hardware_qty", "1")))
        return 200, {"data": [{"id": self.place_of(o), "iso2": o.get("iso2", str(self.place_of(o)).upper()[:2]), "name": o.get("region"),
                               "available_replicas": 8 if o.get("stock") is None else o["stock"]} for o in rows]}

    def price(self, request):
        query = request.query
        try:
            places = json.loads(query["location_ids"])
            gpus, hours, replicas = (int(query[k]) for k in ("gpus_per_container", "duration_hours", "replica_count"))
        except (KeyError, ValueError):
            return Answer(422, {"detail": [{"loc": ["query", "location_ids"], "msg": "value is not a valid list", "type": "type_error.list"}]})
        rows = self.rows(query.get("hardware_id"), places, gpus)
        if not rows:
            self.refuse("not_found", request)
        moved = (self.fault("price_moved", "create") or {"factor": 1}).get("factor", 2)
        total = round(rows[0]["price"] * gpus * hours * replicas * moved, 6)
        return 200, {"data": {"replica_count": replicas, "gpus_per_container": gpus, "available_replica_count": [len(rows)], "discount": 0,
                              "ionet_fee": 0, "ionet_fee_percent": 0, "currency_conversion_fee": 0, "currency_conversion_fee_percent": 0,
                              "total_cost_usdc": total}}

    def check_name(self, request):
        name = request.query.get("cluster_name")
        return 200, {"data": not any(made.tag == name and made.is_live for made in self.instances.values())}

    def deploy(self, request):
        body = request.json()
        bad = [wrong(key, "extra fields not permitted", "value_error.extra") for key in body if key not in FIELDS]
        bad += [wrong(key, "field required", "value_error.missing") for key, kind in FIELDS.items() if not isinstance(body.get(key), kind)]
        if not bad and not 1 <= body["duration_hours"] <= 8760:
            bad.append(wrong("duration_hours", "ensure this value is less than or equal to 8760", "value_error.number"))
        if not bad and not body["registry_config"].get("image_url"):
            bad.append(wrong("image_url", "field required", "value_error.missing"))
        if bad:
            return Answer(422, {"detail": bad})
        rows = self.rows(body["hardware_id"], body["location_ids"], body["gpus_per_container"])
        if not rows:
            self.refuse("no_capacity", request)
        config = body["container_config"]
        made = self.create(body["resource_private_name"], rows[0], gpus=body["gpus_per_container"], image=body["registry_config"]["image_url"],
                           env={**config.get("env_variables", {}), **config.get("secret_env_variables", {})},
                           argv=[*config.get("entrypoint", []), *config.get("args", [])], hours=body["duration_hours"],
                           ports=[config["traffic_port"]] if config.get("traffic_port") else [])
        return 200, {"status": "deployment requested", "deployment_id": made.id}

    # -- deployments: those that ended are still shown --
    def status(self, made):
        if made.state == "gone":
            return "completed" if made.reason == "vanished" else "destroyed"
        return {"running": "running", "failed": "failed", "stopping": "termination requested"}.get(made.state, "deployment requested")

    def known(self, request, id):
        made = self.instances.get(id)
        if not made:
            self.refuse("not_found", request)
        return made

    def shown(self, made):
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(made.created))
        return {"id": made.id, "status": self.status(made), "completed_percent": 1.5, "hardware_name": made.offer["gpu"] if made.offer else "L4",
                "brand_name": "NVIDIA", "compute_minutes_served": 7, "compute_minutes_remaining": 53, "created_at": when}

    def deployment(self, request, id):
        made = self.look(self.known(request, id))
        return 200, {"data": {**self.shown(made), "started_at": None, "finished_at": None, "amount_paid": (made.price or 0) * made.gpus * made.more.get("hours", 1),
                              "total_gpus": made.gpus, "gpus_per_container": made.gpus, "total_containers": 1,
                              "locations": [{"id": 1, "iso2": "US", "name": made.offer.get("region", "") if made.offer else ""}],
                              "container_config": {"env_variables": {}, "traffic_port": (made.ports or [None])[0], "image_url": made.image,
                                                   "secret_env_keys": sorted(made.env)}}}

    def containers(self, request, id):
        made = self.known(request, id)
        is_up = made.state == "running"
        worker = {"device_id": "d-1", "container_id": f"c-{made.id}", "hardware": "H100", "brand_name": "NVIDIA", "uptime_percent": 100,
                  "gpus_per_container": made.gpus, "status": "running" if is_up else "pending", "container_events": [],
                  "public_url": f"https://{made.id}.container.io.systems" if is_up else ""}
        return 200, {"data": {"total": 1, "workers": [worker]}}

    def deployments(self, request):
        ended = [made for made in self.instances.values() if not made.is_live][-ENDED_SHOWN:]
        rows = [{**self.shown(made), "name": made.tag, "hardware_quantity": made.gpus} for made in [*reversed(self.listing()), *ended]]
        size, page = int(request.query.get("page_size", "20")), int(request.query.get("page", "0"))
        size = min(size, self.page_max) if size <= 100 else size
        if size > 100 or page < 0:
            return Answer(422, {"detail": [{"loc": ["query", "page_size"], "msg": "ensure this value is less than or equal to 100", "type": "value_error"}]})
        if "status" in request.query:
            rows = [row for row in rows if row["status"] == request.query["status"]]
        return 200, {"data": {"deployments": rows[page * size:(page + 1) * size], "total": len(rows), "statuses": sorted({r["status"] for r in rows})}}

    def end(self, request, id):
        made = self.known(request, id)
        if not made.is_live:
            return Answer(400, {"detail": "Deployment is already destroyed"})
        self.terminate(made)
        return 200, {"status": "termination requested", "deployment_id": made.id}


if __name__ == "__main__":
    run(IoNet)
