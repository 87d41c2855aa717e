#!/usr/bin/env python3
"""Nosana: deployments on markets, paid with credits (network_sim.py has what all simulators share).

As the real one: POST /deployments is a 404; /deployments/create leaves a DRAFT that /start runs; a state that does not allow
something is a 500; a 401 is no JSON; RUNNING is said before a host runs it (active_jobs 0); prices may be null, and are what a
host gets, without the fee; only what is STOPPED can be deleted, and a DRAFT becomes that only by being started."""

import base64
import re
import time

from network_sim import Answer, Network, run

WRONG_STATE = {"error": "Deployment is in the incorrect state."}
# name, GPUs, type, reward, fee, GiB
ROWS = [("NVIDIA 4090", 1, "PREMIUM", 0.26446, 10, 24), ("NVIDIA 5090", 1, "PREMIUM", 0.33055, 10, 32), ("NVIDIA H100", 1, "PREMIUM", 1.2396, 10, 80),
        ("NVIDIA 8x A5000", 8, "PREMIUM", 1.6, 12.5, 24), ("NVIDIA 3060 Community", 1, "COMMUNITY", 0.048, 10, 12), ("NVIDIA A100 80GB", 1, "PREMIUM", None, 10, 80),
        ("Old queue", 1, "OTHER", 0, None, 8), ("NVIDIA L40S", 1, "PREMIUM", 0.6, None, 48)]
STARTS, STOPS = ("DRAFT", "STOPPED", "ERROR", "INSUFFICIENT_FUNDS"), ("RUNNING", "ERROR", "INSUFFICIENT_FUNDS")


def address(text):
    letters = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = int.from_bytes(text.encode().ljust(32, b"\1")[:32], "big")
    made = ""
    while number:
        number, rest = divmod(number, 58)
        made += letters[rest]
    return made[::-1]


class Nosana(Network):
    name = "nosana"
    routes = [("GET", "/markets", "offers", "markets"), ("GET", "/credits/balance", "check", "balance"),
              ("POST", "/deployments/create", "create", "make"), ("GET", "/deployments", "list", "deployments"),
              ("GET", "/deployments/{id}", "describe", "deployment"), ("POST", "/deployments/{id}/start", "start", "begin"),
              ("POST", "/deployments/{id}/stop", "terminate", "stop"), ("DELETE", "/deployments/{id}", "terminate", "end"),
              ("PATCH", "/deployments/{id}/update-replica-count", "terminate", "resize"), ("GET", "/deployments/{id}/events", "logs", "events")]
    create_refusals = ("no_funds", "bad_image")
    credits, page_max = 100.0, 100

    def default_offers(self):
        return [{"id": address(name), "gpu": name, "gpus": gpus, "type": kind, "reward": reward, "fee": fee, "vram_gib": vram, "stock": None,
                 "price": None if reward is None else reward * (1 + (fee or 0) / 100) / gpus} for name, gpus, kind, reward, fee, vram in ROWS]

    def new_id(self):
        return address(f"deployment {self.serial}")

    def control(self, request):
        if request.path == "/control/more":
            return Answer(200, {"more": [made.more for made in self.instances.values()]})
        return super().control(request)

    def public_path(self, path):
        return path == "/markets"

    def error(self, kind, request):
        if kind == "denied":
            return Answer(401, "Unauthorized")
        if kind == "not_found" and not request.path.startswith("/deployments/"):
            return Answer(404, {"message": f"Route {request.method}:{request.path} not found", "error": "Not Found", "statusCode": 404})
        status, text = {"not_found": (404, "Deployment not found."), "rate_limited": (429, "Too many requests."),
                        "internal": (500, "Internal server error."), "no_funds": (400, "Insufficient credits. Required: $1.000, Available: $0.000"),
                        "not_yet": (500, WRONG_STATE["error"])}.get(kind, (400, "Invalid request body."))
        return Answer(status, {"error": text})

    def markets(self, request):
        moved = (self.fault("price_moved", "create") or {"factor": 1}).get("factor", 2)
        return Answer(200, [{
            "address": o["id"], "slug": re.sub(r"\W+", "-", o["gpu"].lower()), "name": o["gpu"], "type": o.get("type", "PREMIUM"),
            "usd_reward_per_hour": moved * o.get("reward", o.get("price")) if o.get("reward", o.get("price")) is not None else None, "network_fee_percentage": o.get("fee"), "required_images": [],
            "metadata": [{"key": "vram", "value": f"{o.get('vram_gib', 24)} GB"}]} for o in self.offers])

    def balance(self, request):
        return 200, {"assignedCredits": self.credits, "reservedCredits": 0.0, "settledCredits": 0.0}

    # -- deployments --
    def now(self, made):
        """Its status; looks bring STARTING to RUNNING and STOPPING to STOPPED."""
        status = made.more.get("status", "RUNNING")
        if status == "STARTING" and made.looks > 0:
            status = "RUNNING"
        if made.state == "failed" and status == "RUNNING":
            status = "ERROR" if made.process is None else "STOPPED"
        if status == "STOPPING" and made.looks > 1:
            status = "STOPPED"
        made.more["status"] = status
        return status

    def shown(self, made):
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(made.created))
        return {"id": made.id, "name": made.tag, "vault": address("vault"), "market": made.offer["id"] if made.offer else address("none"),
                "owner": address("owner"), "status": self.now(made), "replicas": made.more.get("replicas", 1), "timeout": made.more.get("timeout", 60),
                "endpoints": [{"opId": "main", "port": p, "url": f"https://{made.id}-{p}.node.k8s.prd.nos.ci"} for p in made.ports],
                "confidential": made.more.get("confidential", True), "active_revision": 1, "active_jobs": int(made.state == "running"),
                "strategy": made.more.get("strategy", "SIMPLE"), "created_at": when, "updated_at": when}

    def make(self, request):
        body = request.json()
        for key, kind in (("name", str), ("market", str), ("replicas", int), ("timeout", (int, float)), ("strategy", str), ("job_definition", dict)):
            if not isinstance(body.get(key), kind):
                return Answer(400, {"statusCode": 400, "code": "FST_ERR_VALIDATION", "error": "Bad Request",
                                    "message": f"body must have required property '{key}'"})
        ops = body["job_definition"].get("ops") or [{}]
        args, offer = ops[0].get("args", {}), self.offer(body["market"])
        if body["timeout"] < 1 or body["replicas"] < 1 or ops[0].get("type") != "container/run" or not args.get("image") or not offer:
            self.refuse("bad_request", request)
        made = self.create(body["name"], offer, runs=False, image=args["image"], env=args.get("env"), ports=[p["port"] for p in args.get("expose", [])],
                           argv=[*args.get("entrypoint", []), *args.get("cmd", [])], status="DRAFT", replicas=1, timeout=body["timeout"],
                           strategy=body["strategy"], confidential=body.get("confidential", True))
        if body.get("autostart"):
            self.launch(made)
        return 200, {**self.shown(made), "status": made.more["status"]}

    def launch(self, made):
        made.looks, made.runs, made.state = 0, made.more["replicas"] > 0, "pending"
        made.more["status"] = "STARTING"

    def known(self, request, id):
        made = self.find(id)
        if not made:
            self.refuse("not_found", request)
        return made

    def begin(self, request, id):
        made = self.known(request, id)
        if self.now(made) not in STARTS:
            return 500, WRONG_STATE
        if self.fault("leftover", "create", made.tag):
            return 500, {"error": "Failed to start deployment."}
        self.launch(made)
        return 200, {"status": "STARTING", "updated_at": "2026-08-21T10:00:00.000Z"}

    def deployment(self, request, id):
        made = self.known(request, id)
        if made.more.get("status") in ("DRAFT", "STOPPING", "STOPPED"):
            made.looks += 1
        else:
            self.look(made)
        if not made.is_live:
            self.refuse("not_found", request)
        return 200, self.shown(made)

    def deployments(self, request):
        query = request.query
        if query.get("limit", "10") not in ("10", "20", "50", "100"):
            self.refuse("bad_request", request)
        wanted, search = query.get("status", "").split(","), query.get("search", "").lower()
        rows = [made for made in reversed(self.listing())
                if (wanted == [""] or self.now(made) in wanted) and (search in made.tag.lower() or search in made.id.lower())]
        at = base64.b64decode(query["cursor"]).decode() if "cursor" in query else "0"
        shown, more = self.page(rows, at, min(int(query.get("limit", "10")), self.page_max))
        return 200, {"deployments": [self.shown(made) for made in shown], "pagination": {
            "cursor_next": base64.b64encode(more.encode()).decode() if more else None, "cursor_prev": None, "total_items": len(rows)}}

    def stop(self, request, id):
        made = self.known(request, id)
        if self.now(made) not in STOPS:
            return 500, WRONG_STATE
        if not any(f["fault"] == "delete_ignored" and f["count"] for f in self.faults):  # it strikes when it is deleted
            self.halt(made)
        made.looks, made.more["status"] = 0, "STOPPING"
        return 200, {"status": "STOPPING", "updated_at": "2026-08-21T10:00:00.000Z"}

    def resize(self, request, id):
        made = self.known(request, id)
        made.more["replicas"] = request.json().get("replicas", 1)
        return 200, {"replicas": made.more["replicas"], "updated_at": "2026-08-21T10:00:00.000Z"}

    def end(self, request, id):
        made = self.known(request, id)
        if self.now(made) != "STOPPED":
            return 500, WRONG_STATE
        if made.state == "running":  # it only said that it stopped
            made.more["status"] = "RUNNING"
        self.terminate(made)
        return 204, None

    def events(self, request, id):
        made = self.known(request, id)
        return 200, {"events": [{"category": "Deployment", "deploymentId": made.id, "type": "JOB_LIST_CONFIRMED", "message": "Successfully listed job",
                                 "created_at": "2026-08-21T10:00:00.000Z"}]}


if __name__ == "__main__":
    run(Nosana)
