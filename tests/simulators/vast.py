#!/usr/bin/env python3
"""Vast.ai, as its clients know it. network_sim.py says how it is told what to do.

Faithful in: asks that can be taken once, slices of a machine that vanish together, actual_status null at first, random
host ports, 429 as text, a bid that fails and leaves `new_contract`, {"instances": null} of what is gone, pages of 25,
errors of three shapes, 200 with success: false.
"""

from network_sim import Answer, Network, run

COUNTRIES = {"us-east": "New York, US", "us-west": "Washington, US", "eu-west": "Netherlands, NL", "eu-north": "Sweden, SE"}


class Vast(Network):
    name = "vast"
    routes = [("POST", "/api/v0/bundles/", "offers", "search"),
              ("PUT", "/api/v0/asks/{id}/", "create", "take"),
              ("GET", "/api/v0/instances/{id}/", "describe", "show"),
              ("GET", "/api/v1/instances/", "list", "show_all"),
              ("PUT", "/api/v0/instances/{id}/", "stop", "manage"),
              ("DELETE", "/api/v0/instances/{id}/", "terminate", "destroy")]
    intervals = {"create": 4.5, "describe": 2.0, "list": 1.0, "stop": 1.0, "terminate": 3.0, "offers": 6.0}

    def default_offers(self):
        rows = [(20412345, 31337, "RTX 4090", 1, 24564, 0.3367, 0.18, "eu-north"),
                (20412346, 31337, "RTX 4090", 2, 24564, 0.3367, 0.18, "eu-north"),
                (20412347, 31337, "RTX 4090", 4, 24564, 0.34, 0.19, "eu-north"),
                (20500001, 4101, "H100 SXM", 8, 81559, 2.1334, 1.2, "us-east"),
                (20500002, 4102, "H100 SXM", 1, 81559, 2.26, None, "us-west"),
                (20500003, 4103, "A100 SXM4", 1, 81920, 0.9, 0.5, "eu-west"),
                (20500004, 4104, "A100 PCIE", 1, 40960, 0.62, 0.3, None),
                (20500005, 4105, "RTX 3090", 1, 24576, 0.17, 0.09, "us-east"),
                (20500006, 4106, "L40S", 1, 46068, 0.71, 0.4, "us-east"),
                (20500007, 4107, "RTX 4070 laptop", 1, 8188, 0.09, 0.05, "us-east")]
        return [{"id": i, "machine": m, "gpu": gpu, "gpus": n, "ram_mb": ram, "price": price, "min_bid": bid,
                 "region": region, "stock": 1, "single_use": True, "interruptible": False}
                for i, m, gpu, n, ram, price, bid, region in rows]

    def setup(self):
        self.next_ask = 20600000

    def finish(self, made, reason):
        """An ask is used once; when its machine is free again, it is offered under another number."""
        was_live = made.is_live
        super().finish(made, reason)
        for offer in self.offers:
            if was_live and made.offer and offer["id"] == made.offer["id"]:
                self.next_ask += 1
                offer["id"], offer["stock"] = self.next_ask, 1
        return made

    def new_id(self):
        return str(28811222 + self.serial)

    def error(self, kind, request):
        ask = request.path.split("/")[-2]
        rows = {"denied": (401, {"success": False, "error": "auth_error", "msg": "Invalid user key"}),
                "not_found": (404, {"success": False, "error": "no_such_instance", "msg": "error 404: no such instance"}),
                "no_capacity": (404, {"success": False, "error": "invalid_args", "ask_id": ask,
                                      "msg": f"error 404/3603: no_such_ask Instance type by id {ask} is not available."}),
                "no_funds": (411, {"success": False, "msg": "Insufficient credit"}),
                "bad_image": (400, {"success": False, "error": "invalid_args", "msg": "error 400: invalid image"}),
                "price_moved": (400, {"success": False, "error": "invalid_price", "msg": "price is below min_bid"}),
                "not_yet": (409, {"success": False, "message": "instance is being provisioned"}),
                "internal": (500, {"detail": "internal server error"})}
        if kind == "rate_limited":
            return Answer(429, f"API requests too frequent endpoint threshold={self.intervals.get(request.op, 1.0)}")
        if kind == "denied" and request.op == "offers":
            return Answer(404, {"success": False, "msg": "Invalid user key"})
        return Answer(*rows.get(kind, (400, {"success": False, "error": "invalid_args", "msg": kind})))

    # -- search --
    def is_free(self, offer):
        """Slices of one machine overlap: one taken takes them all."""
        return offer["stock"] != 0 and not any(
            made.is_live and made.offer and made.offer["machine"] == offer["machine"] for made in self.instances.values())

    def search(self, request):
        query = request.json()
        is_bid, rows = query.get("type") == "bid", []
        for offer in self.offers:
            if not self.is_free(offer):
                continue
            each = offer["min_bid"] if is_bid and offer["min_bid"] else offer["price"]
            rows.append({"id": offer["id"], "ask_contract_id": offer["id"], "machine_id": offer["machine"],
                         "host_id": 4711, "gpu_name": offer["gpu"], "num_gpus": offer["gpus"], "gpu_ram": offer["ram_mb"],
                         "gpu_total_ram": offer["ram_mb"] * offer["gpus"], "gpu_frac": 0.25, "cpu_cores": None,
                         "dph_base": each * offer["gpus"], "dph_total": each * offer["gpus"],
                         "min_bid": offer["min_bid"] and offer["min_bid"] * offer["gpus"], "direct_port_count": 199,
                         "reliability2": 0.9967, "verification": "verified", "duration": 2505600.0, "rentable": True,
                         "geolocation": COUNTRIES.get(offer["region"]), "rented": False, "is_bid": is_bid,
                         "static_ip": True, "public_ipaddr": f" 203.0.113.{offer['machine'] % 250} ", "dlperf": None})
        rows.sort(key=lambda row: row["dph_total"])
        return 200, {"offers": rows[:query.get("limit", 64)]}

    # -- create --
    def take(self, request, id):
        body = request.json()
        offer = self.offer(id)
        if not offer or not self.is_free(offer):
            self.refuse("no_capacity", request)
        if not body.get("image") or body.get("client_id") != "me" or body.get("disk", 0) < 8:
            self.refuse("bad_image", request)
        env = {k: v for k, v in body.get("env", {}).items() if not k.startswith("-")}
        ports = [int(k.split(":")[1]) for k in body.get("env", {}) if k.startswith("-p ")]
        argv = [body["onstart"], *body.get("args", [])] if body.get("onstart") else []
        bid = body.get("price")
        price = offer["price"] if bid is None else bid / offer["gpus"]
        made = {"tag": body.get("label", ""), "offer": offer, "price": price, "interruptible": bid is not None, "env": env,
                "ports": ports, "argv": argv, "image": body["image"]}
        is_low = bid is not None and bid + 1e-9 < (offer["min_bid"] or 0) * offer["gpus"]
        if is_low or self.fault("leftover", "create"):
            left = self.own(self.create(runs=False, **made))
            left.state = "stopped"
            return 400 if is_low else 200, {"success": False, "error": "invalid_price", "msg": "bid is below the market",
                                            "new_contract": int(left.id)}
        return 200, {"success": True, "new_contract": int(self.own(self.create(**made)).id), "instance_api_key": "k"}

    def own(self, made):
        made.offer = dict(made.offer)  # as it was when it was taken
        return made

    # -- instances --
    def row(self, made):
        status = {"pending": None if made.looks < 2 else "loading", "running": "running", "stopped": "stopped",
                  "failed": "created"}[made.state]
        intended = "stopped" if made.state == "stopped" else "running"
        return {"id": int(made.id), "actual_status": status, "intended_status": intended,
                "cur_state": intended, "next_state": intended, "label": made.tag, "public_ipaddr": " 203.0.113.7 ",
                "ports": {f"{inside}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(outside)}]
                          for inside, outside in made.host_ports.items()} if made.state == "running" else {},
                "gpu_name": made.offer["gpu"], "num_gpus": made.gpus, "dph_total": made.price * made.gpus,
                "is_bid": made.interruptible, "start_date": made.created, "image_uuid": made.image,
                "status_msg": "Error response from daemon: OCI runtime create failed: no such file"
                if made.state == "failed" else "success, running"}

    def show(self, request, id):
        made = self.find(id)
        if made:
            self.look(made)
        return 200, {"instances": self.row(made) if made and made.is_live else None}

    def show_all(self, request):
        size = min(int(request.query.get("limit", 25)), self.page_size)
        rows = self.listing()
        shown, token = self.page(rows, request.query.get("after_token"), size)
        return 200, {"success": True, "instances_found": len(shown), "total_instances": len(rows), "next_token": token,
                     "instances": [self.row(made) for made in shown]}

    def manage(self, request, id):
        made = self.find(id) or self.refuse("not_found", request)
        if request.json().get("state") == "stopped":
            self.halt(made)
        return 200, {"success": True}

    def destroy(self, request, id):
        self.terminate(self.find(id) or self.refuse("not_found", request))
        return 200, {"success": True}


if __name__ == "__main__":
    run(Vast)
