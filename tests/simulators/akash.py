#!/usr/bin/env python3
"""Akash by its Console API (network_sim.py has what all simulators share).

What is true of the real one and of this one: gpu-prices and providers need no key, all else wants x-api-key; prices that
are listed are statistics; a deployment (201, dseq in ms as text) holds its deposit and is active without any lease; bids
come some polls later, or never, only from providers that have what the SDL asks at no more than it allows, and may be gone
when they are taken (400); a lease wants the very manifest that create gave; its status is null at first, then a service
that is not ready, without host names; the service's name is all that can be found again; closing twice is fine; unknown
providers are 404 in plain text; without funds a lease ends by itself and then its deployment.

Faults of its own: no_bids {"tag"}, bid_lost (at the lease), out_of_funds (at a look), lease_fails (500 at the lease)."""

import json
import re
import time

from network_sim import Answer, Network, Refused, run

BLOCKS_PER_HOUR = 600
OWNER = "akash1owner"
# the simulators' names of GPUs: model, ram, interface
MODELS = {"RTX 4090": ("rtx4090", "24Gi", "PCIe"), "H100 SXM": ("h100", "80Gi", "SXM5"), "A100 SXM4": ("a100", "80Gi", "SXM4"),
          "L4": ("l4", "24Gi", "PCIe")}
COUNTRIES = {"us-east": "US", "us-west": "US", "eu-north": "FI", "eu-west": "NL"}


class BadSdl(Exception):
    pass


def scalar(text):
    """A YAML scalar of one line: double quotes with escapes, {}, or plain without anything that YAML could mean."""
    if text.startswith('"'):
        if not re.fullmatch(r'"(?:[^"\\\x00-\x1f\x7f-\uffff]|\\["\\n]|\\U[0-9A-F]{8})*"', text):
            raise BadSdl(f"bad quoted scalar {text[:40]!r}")
        named = {"n": "\n", '"': '"', "\\": "\\"}
        return re.sub(r"\\(U[0-9A-F]{8}|.)", lambda m: named.get(m[1]) or chr(int(m[1][1:], 16)), text[1:-1])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise BadSdl(f"bad plain scalar {text[:40]!r}")
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def split_key(text):
    match = re.fullmatch(r'("(?:[^"\\]|\\.)*"|[A-Za-z0-9_.-]+):(?: (.*))?', text)
    return match and (scalar(match[1]), match[2])


def parse_block(lines, indent):
    """Block mappings and sequences of scalars and mappings: what an SDL needs, and nothing else of YAML."""
    if lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        rows = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            text = lines[0][1][2:]
            if split_key(text) and not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
                lines[0] = (indent + 2, text)
                rows.append(parse_block(lines, indent + 2))
            else:
                lines.pop(0)
                rows.append(scalar(text))
        return rows
    found = {}
    while lines and lines[0][0] == indent:
        pair = split_key(lines[0][1])
        if not pair or pair[0] in found:
            raise BadSdl(f"bad line {lines[0][1][:40]!r}")
        lines.pop(0)
        if pair[1] is not None:
            found[pair[0]] = scalar(pair[1])
        else:
            if not lines or lines[0][0] <= indent:
                raise BadSdl(f"nothing under {pair[0]}")
            found[pair[0]] = parse_block(lines, lines[0][0])
    return found


def parse_sdl(text):
    lines = [(len(line) - len(line.lstrip(" ")), line.strip(" ")) for line in text.split("\n") if line.strip(" ")]
    sdl = parse_block(lines, 0)
    if lines:
        raise BadSdl(f"bad indentation at {lines[0][1][:40]!r}")
    return sdl


def expand(text):
    """What Kubernetes does with commands and environments: $$ is $, $(NAME) of an unknown name stays."""
    return re.sub(r"\$\$", "$", text)


class Akash(Network):
    name = "akash"
    routes = [("GET", "/v1/gpu-prices", "offers", "prices"), ("GET", "/v1/gpu", "offers", "gpus"),
              ("GET", "/v1/providers", "offers", "providers"), ("GET", "/v1/providers/{address}", "offers", "provider"),
              ("GET", "/v1/balances", "check", "balances"),
              ("POST", "/v1/deployments", "create", "deploy"), ("GET", "/v1/deployments", "list", "deployments"),
              ("GET", "/v1/deployments/{dseq}", "describe", "deployment"),
              ("DELETE", "/v1/deployments/{dseq}", "terminate", "end"),
              ("GET", "/v1/bids", "bids", "bids"), ("GET", "/v1/bids/{dseq}", "bids", "bids"),
              ("POST", "/v1/leases", "lease", "take")]
    create_refusals = ("no_funds", "bad_image")
    bid_polls = 1     # polls that show no bids
    silent_looks = 0  # looks at which a lease still has no status, beside the answer that made it
    funds = 100000.0

    def new_id(self):
        self.last_dseq = max(int(time.time() * 1000), getattr(self, "last_dseq", 0) + 1)
        return str(self.last_dseq)

    def public_path(self, path):
        return path.startswith(("/v1/gpu", "/v1/providers", "/v1/bid-screening"))

    def is_authorised(self, request):
        return request.headers.get("x-api-key") == self.key

    def error(self, kind, request):
        rows = {
            "denied": (401, "UnauthorizedError", "API key not found" if request.headers.get("x-api-key") else "Unauthorized",
                       "unauthorized", "authorization_error"),
            "not_found": (404, "NotFoundError", "Deployment not found", "not_found", "client_error"),
            "rate_limited": (429, "TooManyRequestsError", "Too many requests", "rate_limited", "client_error"),
            "internal": (500, "InternalServerError", "Internal server error", "unknown_error", "server_error"),
            "no_funds": (402, "PaymentRequiredError", "Not enough balance to cover the deployment deposit. Add credits or "
                         "turn on auto recharge to continue.", "bad_request", "client_error"),
            "bad_image": (400, "BadRequestError", "Invalid SDL: service image: invalid reference format", "bad_request",
                          "client_error"),
            "not_yet": (409, "ConflictError", "Deployment is busy", "conflict", "client_error"),
            "bid_lost": (400, "BadRequestError", "Failed to create lease: Cannot create lease: The selected bid is no longer "
                         "open. Please select another bid.", "bad_request", "client_error"),
        }
        status, name, message, code, type = rows.get(kind, (400, "BadRequestError", kind, "bad_request", "client_error"))
        return Answer(status, {"error": name, "message": message, "code": code, "type": type})

    def bad(self, message):
        raise Refused(Answer(400, {"error": "BadRequestError", "message": message, "code": "bad_request",
                                   "type": "client_error"}))

    # -- what can be had: a provider for each row of offers --
    def model(self, row):
        if row["gpu"] not in MODELS:
            return (re.sub(r"[^a-z0-9]", "", row["gpu"].lower()), f"{row.get('vram_gib', 0)}Gi", "PCIe")
        return MODELS[row["gpu"]]

    def room(self, row):
        return 8 if row.get("stock") is None else min(8, row["stock"])

    def address(self, row):
        return "akash1" + re.sub(r"[^a-z0-9]", "", str(row["id"]).lower())

    def prices(self, request):
        models = {}
        for row in self.offers:
            models.setdefault(self.model(row), []).append(row)
        rows = []
        for (model, ram, interface), of in sorted(models.items()):
            asked, free = sorted(row["price"] for row in of), sum(self.room(row) for row in of)
            med = asked[len(asked) // 2]
            price = {"currency": "USD", "min": asked[0], "max": asked[-1], "avg": sum(asked) / len(asked),
                     "weightedAverage": med, "med": med}
            rows.append({"vendor": "nvidia", "model": model, "ram": ram, "interface": interface,
                         "availability": {"total": 8 * len(of), "available": free},
                         "providerAvailability": {"total": len(of), "available": sum(self.room(row) > 0 for row in of)},
                         "price": price, "priceUakt": None})
        rows.append({"vendor": "nvidia", "model": "gtx1070ti", "ram": "8Gi", "interface": "PCIe",
                     "availability": {"total": 1, "available": 1}, "providerAvailability": {"total": 1, "available": 1},
                     "price": None, "priceUakt": None})
        return Answer(200, {"availability": {"total": sum(r["availability"]["total"] for r in rows),
                                             "available": sum(r["availability"]["available"] for r in rows)},
                            "models": rows})

    def gpus(self, request):
        details = [{"model": self.model(row)[0], "ram": self.model(row)[1], "interface": self.model(row)[2], "allocatable": 8,
                    "allocated": 8 - self.room(row)} for row in self.offers]
        return Answer(200, {"gpus": {"total": {"allocatable": 8 * len(details),
                                               "allocated": sum(d["allocated"] for d in details)},
                                     "details": {"nvidia": details}}})

    def provider_view(self, row):
        model, ram, interface = self.model(row)
        country = row.get("country") or COUNTRIES.get(row.get("region"), "US")
        return {"owner": self.address(row), "name": str(row["id"]), "hostUri": "https://provider.example:8443",
                "createdHeight": 1, "isOnline": True, "isAudited": True, "isValidVersion": True, "uptime1d": 1,
                "uptime7d": 0.998, "uptime30d": None, "ipRegion": row.get("region"), "ipRegionCode": None,
                "ipCountry": country, "ipCountryCode": country, "ipLat": "40.1", "ipLon": "-74.2", "leaseCount": 3,
                "deploymentCount": None, "attributes": [{"key": "region", "value": row.get("region"), "auditedBy": []}],
                "gpuModels": [{"vendor": "nvidia", "model": model, "ram": ram, "interface": interface}],
                "locationRegion": None, "country": None, "city": None, "tier": "community"}

    def providers(self, request):
        rows = [self.provider_view(row) for row in self.offers]
        if "addresses" in request.query:
            wanted = request.query["addresses"].split(",")
            if len(wanted) > 20:
                self.bad("Validation error")
            rows = [row for row in rows if row["owner"] in wanted]
        return Answer(200, rows)

    def provider(self, request, address):
        for row in self.offers:
            if self.address(row) == address:
                return Answer(200, self.provider_view(row))
        return Answer(404, "Provider not found.")

    def balances(self, request):
        return Answer(200, {"data": {"balance": self.funds, "deployments": 0, "total": self.funds}})

    # -- deployment, bids, lease --
    def check_sdl(self, text):
        try:
            sdl = parse_sdl(text)
            (name, service), = sdl["services"].items()
            if sdl["version"] not in ("2.0", "2.1") or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
                raise BadSdl("service name")
            if not any(to.get("global") for expose in service["expose"] for to in expose["to"]):
                raise BadSdl("zero global services")
            resources = sdl["profiles"]["compute"][name]["resources"]
            pricing = sdl["profiles"]["placement"]["any"]["pricing"][name]
            (vendor, models), = resources["gpu"]["attributes"]["vendor"].items()
            if pricing["denom"] not in ("uact", "uakt") or pricing["amount"] < 1 or sdl["deployment"][name]["any"]["count"] != 1:
                raise BadSdl("pricing")
            if not isinstance(service["image"], str) or not service["image"] or " " in service["image"]:
                raise BadSdl("service image: invalid reference format")
            return name, service, resources, pricing, vendor, models[0]
        except (BadSdl, KeyError, ValueError, TypeError, AttributeError) as error:
            self.bad(f"Invalid SDL: {error}")

    def deploy(self, request):
        data = request.json().get("data") or {}
        if not isinstance(data.get("sdl"), str):
            raise Refused(Answer(400, {"error": "BadRequestError", "message": "Validation error", "code": "validation_error",
                                       "type": "validation_error", "data": [{"path": ["data", "sdl"]}]}))
        if not data.get("deposit"):
            self.bad("deposit is required")
        if data["deposit"] < 5:
            self.bad("Failed to create deployment: Deposit too low")
        name, service, resources, pricing, vendor, gpu = self.check_sdl(data["sdl"])
        env = dict(pair.split("=", 1) for pair in service.get("env", []))
        manifest = json.dumps([{"name": "any", "services": [{
            "name": name, "image": service["image"], "command": service.get("command"), "args": service.get("args"),
            "env": service.get("env"), "count": 1, "expose": [{"port": e["port"], "externalPort": e["as"], "proto": "TCP",
                                                               "service": "", "global": True} for e in service["expose"]]}]}])
        moved = self.fault("price_moved", "create", name)
        made = self.create(name, None, runs=False, price=None, gpus=resources["gpu"]["units"], image=service["image"],
                           argv=[expand(a) for a in service.get("command") or []],
                           env={k: expand(v) for k, v in env.items()},
                           ports=[e["port"] for e in service["expose"]], manifest=manifest, gpu=gpu,
                           most=pricing["amount"], factor=moved.get("factor", 2) if moved else 1, polls=0, bids=[], lease=None)
        return Answer(201, {"data": {"dseq": made.id, "manifest": manifest,
                                     "signTx": {"code": 0, "transactionHash": "AB" * 32, "rawLog": "[]"}}})

    def make_bids(self, made):
        gpu = made.more["gpu"]
        if self.fault("no_capacity", "create", made.tag) or self.fault("no_bids", "create", made.tag):
            return
        for row in self.offers:
            model, ram, interface = self.model(row)
            if (model != gpu["model"] or self.room(row) < 1 or ram != gpu.get("ram", ram) or
                    not interface.lower().startswith(gpu.get("interface", ""))):
                continue
            amount = row["price"] * made.more["factor"] * made.gpus * 1e6 / BLOCKS_PER_HOUR
            if amount <= made.more["most"]:
                made.more["bids"].append({"provider": self.address(row), "state": "open", "amount": amount, "row": row})

    def bid_view(self, made, bid):
        return {"bid": {"id": {"owner": OWNER, "dseq": made.id, "gseq": 1, "oseq": 1, "provider": bid["provider"], "bseq": 0},
                        "state": bid["state"], "price": {"denom": "uact", "amount": f"{bid['amount']:.18f}"},
                        "created_at": "23412345", "resources_offer": [{"resources": {"gpu": {"units": {"val": str(made.gpus)}}},
                                                                       "count": 1}]},
                "escrow_account": {"id": {"scope": "bid", "xid": f"{OWNER}/{made.id}/1/1/{bid['provider']}"},
                                   "state": {"owner": bid["provider"], "state": "open", "transferred": [], "funds": []}}}

    def bids(self, request, dseq=None):
        made = self.find(dseq or request.query.get("dseq", ""))
        if not made or "bids" not in made.more:
            return Answer(200, {"data": []})
        made.more["polls"] += 1
        if made.more["polls"] == self.bid_polls + 1:
            self.make_bids(made)
        return Answer(200, {"data": [self.bid_view(made, bid) for bid in made.more["bids"]]})

    def take(self, request):
        body = request.json()
        wanted = (body.get("leases") or [{}])[0]
        made = self.find(str(wanted.get("dseq")))
        if not made:
            self.refuse("not_found", request)
        if body.get("manifest") != made.more["manifest"]:
            self.bad("Failed to create lease: invalid manifest")
        if made.more["lease"]:
            return self.deployment(request, made.id)
        if self.fault("leftover", "create", made.tag) or self.fault("lease_fails", "create", made.tag):
            self.refuse("internal", request)
        bid = next((b for b in made.more["bids"] if b["provider"] == wanted.get("provider")), None)
        if bid and self.fault("bid_lost", "create", made.tag):
            bid["state"] = "closed"
        if not bid or bid["state"] != "open" or (wanted.get("gseq"), wanted.get("oseq")) != (1, 1) or not self.room(bid["row"]):
            self.refuse("bid_lost", request)
        for other in made.more["bids"]:
            other["state"] = "active" if other is bid else "lost"
        made.offer, made.price = bid["row"], bid["amount"] * BLOCKS_PER_HOUR / 1e6 / made.gpus
        if bid["row"].get("stock"):
            bid["row"]["stock"] -= 1
        made.more["lease"] = {"provider": bid["provider"], "amount": bid["amount"]}
        made.looks, made.runs = 0, True
        return Answer(200, {"data": self.view(made, False)})

    # -- what there is --
    def lease_view(self, made, with_status):
        lease = made.more.get("lease")
        if "bids" not in made.more and not made.more.get("leaseless"):  # of the control port
            lease = {"provider": "akash1somebody", "amount": 100.0}
        if not lease:
            return None
        state = "active" if made.state in ("pending", "running") else "closed"
        view = {"id": {"owner": OWNER, "dseq": made.id, "gseq": 1, "oseq": 1, "provider": lease["provider"], "bseq": 0},
                "state": made.more.get("ends", state), "price": {"denom": "uact", "amount": f"{lease['amount']:.18f}"},
                "created_at": "23412350", "closed_on": "0"}
        if made.more.get("ends"):
            view["reason"] = "lease_closed_reason_insufficient_funds"
        elif state == "closed":
            view["reason"] = "lease_closed_reason_unstable" if made.is_live else "lease_closed_owner"
        if with_status:
            view["status"] = self.status_view(made) if view["state"] == "active" else None
        return view

    def status_view(self, made):
        if made.state == "pending" and made.looks <= self.silent_looks:
            return None
        ready = int(made.state == "running")
        ports = [{"port": port, "externalPort": made.host_ports[port], "host": "127.0.0.1", "available": 1, "proto": "TCP"}
                 for port in made.ports if port != 80] if ready else []
        uris = [f"{made.id}.ingress.provider.example"] if ready and 80 in made.ports else []
        return {"forwarded_ports": {made.tag: ports} if ports else {}, "ips": {},
                "services": {made.tag: {"name": made.tag, "available": ready, "total": 1, "uris": uris, "observed_generation": 1,
                                        "replicas": ready, "updated_replicas": ready, "ready_replicas": ready,
                                        "available_replicas": ready}}}

    def view(self, made, with_status):
        state = "active" if made.is_live else "closed"
        lease = self.lease_view(made, with_status)
        escrow = "overdrawn" if made.more.get("ends") and made.is_live else "open" if made.is_live else "closed"
        return {"deployment": {"id": {"owner": OWNER, "dseq": made.id}, "state": state, "hash": "AA==",
                               "created_at": "23412340"},
                "leases": [lease] if lease else [],
                "escrow_account": {"id": {"scope": "deployment", "xid": f"{OWNER}/{made.id}"},
                                   "state": {"owner": OWNER, "state": escrow, "transferred": [], "settled_at": "23412350",
                                             "funds": [{"denom": "uact", "amount": "5000000.000000000000000000"}],
                                             "deposits": []}}}

    def deployment(self, request, dseq):
        made = self.instances.get(dseq)
        if not made:
            self.refuse("not_found", request)
        if made.more.get("ends"):
            self.finish(made, "insufficient_funds")
        elif made.is_live and self.fault("out_of_funds", "describe", made.tag):
            made.state, made.more["ends"] = "failed", "insufficient_funds"
            self.kill(made)
        elif made.more.get("lease") or "bids" not in made.more:
            self.look(made)
        return Answer(200, {"data": self.view(made, True)})

    def deployments(self, request):
        rows = self.listing()
        if "limit" not in request.query and "skip" not in request.query:
            return Answer(200, {"data": {"deployments": [self.view(made, False) for made in rows]}})
        skip, limit = int(request.query.get("skip", 0)), min(int(request.query.get("limit", 1000)), self.page_size)
        return Answer(200, {"data": {"deployments": [self.view(made, False) for made in rows[skip:skip + limit]],
                                     "pagination": {"total": len(rows), "skip": skip, "limit": limit,
                                                    "hasMore": skip + limit < len(rows)}}})

    def end(self, request, dseq):
        made = self.instances.get(dseq)
        if not made:
            self.refuse("not_found", request)
        if made.is_live:
            self.terminate(made)
        return Answer(200, {"data": {"success": True}})


if __name__ == "__main__":
    run(Akash)
