#!/usr/bin/env python3
"""EC2 of one region: form posts signed with SigV4, XML out (network_sim.py has what all simulators share).

Instances with ClientToken are idempotent; tags come with the launch; InsufficientInstanceCapacity is a 500 and
RequestLimitExceeded a 503, as the real ones are; terminated instances stay visible for a while; a just-created id may
not be found at first (list_lag hides it from describe too)."""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from network_sim import Answer, Network, Refused, run

NS = "http://ec2.amazonaws.com/doc/2016-11-15/"
REGION = "us-east-1"
ACCESS_KEY = "AKIDEXAMPLE"
# type: GPU, count, MiB a GPU, spot USD an hour (None: no spot), architecture
TYPES = {
    "p5.48xlarge": ("H100", 8, 81920, "30.1230", "x86_64"),
    "p4de.24xlarge": ("A100", 8, 81920, None, "x86_64"),
    "g6.xlarge": ("L4", 1, 24576, "0.3310", "x86_64"),
    "g6e.xlarge": ("L40S", 1, 49152, "0.8120", "x86_64"),
    "g5g.xlarge": ("T4g", 1, 16384, "0.2100", "arm64"),
    "g6f.large": ("L4", 0, 3072, None, "x86_64"),
}
ZONES = [REGION + "a", REGION + "b"]


def xml(value):
    if isinstance(value, dict):
        return "".join(f"<{k}>{xml(v)}</{k}>" for k, v in value.items() if v is not None)
    if isinstance(value, list):
        return "".join(f"<item>{xml(v)}</item>" for v in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def sign(secret, *parts):
    key = ("AWS4" + secret).encode()
    for part in parts:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


class Ec2(Network):
    name = "aws"
    routes = [("POST", "/", "other", "act")]
    ops = {"RunInstances": "create", "DescribeInstances": "describe", "TerminateInstances": "terminate", "StopInstances": "stop",
           "DescribeInstanceTypes": "offers", "DescribeSpotPriceHistory": "offers", "DescribeCapacityReservations": "offers"}
    end_polls = 1
    codes = {"denied": (401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
             "rate_limited": (503, "RequestLimitExceeded", "Request limit exceeded."),
             "internal": (500, "InternalError", "An internal error has occurred"),
             "no_capacity": (500, "InsufficientInstanceCapacity",
                             "We currently do not have sufficient capacity in the Availability Zone you requested."),
             "quota": (400, "VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit allows."),
             "no_funds": (400, "PendingVerification", "Your account is currently being verified."),
             "bad_image": (400, "InvalidAMIID.NotFound", "The image id does not exist"),
             "price_moved": (400, "SpotMaxPriceTooLow", "Your Spot request price is lower than the minimum required."),
             "not_found": (400, "InvalidInstanceID.NotFound", "The instance ID does not exist"),
             "not_yet": (400, "IncorrectInstanceState", "The instance is not in a state from which it can be ended.")}

    def setup(self):
        self.reservations = [{"capacityReservationId": "cr-0123456789abcdef0", "instanceType": "p5.48xlarge",
                              "availabilityZone": ZONES[0], "state": "active", "totalInstanceCount": 4, "availableInstanceCount": 3,
                              "reservationType": "default", "endDateType": "unlimited"},
                             {"capacityReservationId": "cr-0fedcba9876543210", "instanceType": "p5.48xlarge",
                              "availabilityZone": ZONES[1], "state": "expired", "totalInstanceCount": 4, "availableInstanceCount": 4,
                              "reservationType": "default", "endDateType": "unlimited"}]

    def default_offers(self):
        return [{"id": name, "gpu": gpu, "gpus": max(count, 1), "price": float(spot) / max(count, 1) if spot else None, "stock": None,
                 "interruptible": False} for name, (gpu, count, _, spot, _) in TYPES.items()]

    def new_id(self):
        return f"i-{self.serial:017x}"

    # SigV4 by the canonical request of this very request.
    def is_authorised(self, request):
        text = request.headers.get("authorization", "")
        if not text.startswith("AWS4-HMAC-SHA256 "):
            return False
        fields = dict(part.strip().split("=", 1) for part in text[len("AWS4-HMAC-SHA256 "):].split(","))
        access, date, region, service, _ = fields["Credential"].split("/")
        names = fields["SignedHeaders"].split(";")
        heads = "".join(f"{n}:{' '.join(request.headers.get(n, '').split())}\n" for n in names)
        canonical = "\n".join([request.method, request.path, "", heads, fields["SignedHeaders"], hashlib.sha256(request.body).hexdigest()])
        to_sign = "\n".join(["AWS4-HMAC-SHA256", request.headers.get("x-amz-date", ""), f"{date}/{region}/{service}/aws4_request",
                             hashlib.sha256(canonical.encode()).hexdigest()])
        wanted = hmac.new(sign(self.key, date, region, service, "aws4_request"), to_sign.encode(), hashlib.sha256).hexdigest()
        return access == ACCESS_KEY and region == REGION and service == "ec2" and hmac.compare_digest(wanted, fields["Signature"])

    def error(self, kind, request):
        status, code, message = self.codes.get(kind, (400, "InvalidParameterValue", f"{kind} is not valid"))
        return Answer(status, f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>"
                      f"<Message>{message}</Message></Error></Errors><RequestID>r-1</RequestID></Response>", content_type="text/xml")

    def reply(self, action, value):
        return Answer(200, f"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"{NS}\"><requestId>r-1</requestId>"
                      f"{xml(value)}</{action}Response>", content_type="text/xml")

    def route(self, request):
        fn, parts = super().route(request)
        form = dict(parse_qsl(request.body.decode(errors="replace"), keep_blank_values=True))
        request.form = form
        action = form.get("Action", "")
        request.op = self.ops.get(action, "unknown")
        if request.op == "describe" and "InstanceId.1" not in form:
            request.op = "list"
        return fn, parts

    def act(self, request):
        action = request.form.get("Action", "")
        fn = getattr(self, "do_" + action, None)
        if not fn or request.form.get("Version") != "2016-11-15":
            raise Refused(self.error("InvalidAction", request))
        return self.reply(action, fn(request, request.form))

    # -- offers --
    def do_DescribeInstanceTypes(self, request, form):
        wanted = {v for k, v in form.items() if k.startswith("Filter.1.Value.")}
        rows = []
        for name, (gpu, count, mib, spot, arch) in TYPES.items():
            if wanted and name not in wanted:
                continue
            rows.append({"instanceType": name, "currentGeneration": True,
                         "supportedUsageClasses": ["on-demand", *(["spot"] if spot else [])],
                         "processorInfo": {"supportedArchitectures": [arch]},
                         "gpuInfo": {"gpus": [{"name": gpu, "manufacturer": "NVIDIA", "count": count,
                                               "memoryInfo": {"sizeInMiB": mib}}], "totalGpuMemoryInMiB": mib * max(count, 1)}})
        return {"instanceTypeSet": rows}

    def do_DescribeSpotPriceHistory(self, request, form):
        wanted = {v for k, v in form.items() if k.startswith("InstanceType.")}
        rows = [{"instanceType": name, "productDescription": "Linux/UNIX", "spotPrice": TYPES[name][3],
                 "timestamp": form.get("StartTime", ""), "availabilityZone": zone}
                for name in TYPES if name in wanted and TYPES[name][3] for zone in ZONES]
        shown, token = self.page(rows, form.get("NextToken"), 3)
        return {"spotPriceHistorySet": shown, "nextToken": token}

    def do_DescribeCapacityReservations(self, request, form):
        return {"capacityReservationSet": self.reservations}

    # -- instances --
    def row(self, made):
        states = {"pending": (0, "pending"), "running": (16, "running"), "stopping": (32, "shutting-down"),
                  "gone": (48, "terminated"), "stopped": (80, "stopped"), "failed": (48, "terminated")}
        code, name = states[made.state]
        row = {"instanceId": made.id, "imageId": made.image, "instanceState": {"code": code, "name": name},
               "instanceType": made.more["type"], "launchTime": "2026-11-20T10:00:00.000Z", "placement": {"availabilityZone": ZONES[0]},
               "tagSet": [{"key": k, "value": v} for k, v in made.more["tags"].items()], "clientToken": made.tag}
        if made.interruptible:
            row["instanceLifecycle"] = "spot"
        if made.state == "running":
            row["ipAddress"] = "127.0.0.1"
        if made.state in ("failed", "gone") and made.reason:
            row["stateReason"] = {"code": "Server.InternalError", "message": made.reason}
        return row

    def do_RunInstances(self, request, form):
        token = form.get("ClientToken", "")
        before = next((m for m in self.instances.values() if token and m.tag == token), None)
        if before:
            return {"reservationId": "r-1", "instancesSet": [self.row(before)]}
        if form.get("MinCount") != "1" or form.get("MaxCount") != "1" or not form.get("ImageId", "").startswith("ami-"):
            self.refuse("bad_image", request)
        offer = self.offer(form.get("InstanceType"))
        if not offer:
            self.refuse("no_capacity", request)
        tags, n = {}, 1
        while f"TagSpecification.1.Tag.{n}.Key" in form:
            tags[form[f"TagSpecification.1.Tag.{n}.Key"]] = form[f"TagSpecification.1.Tag.{n}.Value"]
            n += 1
        target = form.get("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId")
        if target:
            held = next((r for r in self.reservations if r["capacityReservationId"] == target and r["state"] == "active"), None)
            if not held or held["availableInstanceCount"] < 1 or held["instanceType"] != form["InstanceType"]:
                return self.refuse_code(400, "ReservationCapacityExceeded", "The requested reservation does not have sufficient capacity.")
            held["availableInstanceCount"] -= 1
        is_spot = form.get("InstanceMarketOptions.MarketType") == "spot"
        if is_spot and float(form.get("InstanceMarketOptions.SpotOptions.MaxPrice", "1e9")) < float(TYPES[form["InstanceType"]][3] or 1e9):
            self.refuse("price_moved", request)
        script = base64.b64decode(form.get("UserData", "")).decode(errors="replace")
        made = self.create(tag=token, offer=offer, image=form["ImageId"], interruptible=is_spot,
                           argv=["sh", "-c", script] if script else [], tags=tags, type=form["InstanceType"])
        return {"reservationId": "r-1", "ownerId": "123456789012", "instancesSet": [self.row(made)]}

    def refuse_code(self, status, code, message):
        raise Refused(Answer(status, f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
                             "<RequestID>r-1</RequestID></Response>", content_type="text/xml"))

    def known(self, request, form):
        made = self.instances.get(form.get("InstanceId.1"))
        if not made:
            self.refuse("not_found", request)
        return made

    def do_DescribeInstances(self, request, form):
        if "InstanceId.1" in form:
            made = self.known(request, form)
            if made.lag > 0:
                made.lag -= 1
                self.refuse("not_found", request)
            self.look(made)
            return {"reservationSet": [{"reservationId": "r-1", "instancesSet": [self.row(made)]}]}
        prefix = form.get("Filter.1.Value.1", "").rstrip("*")
        key = form.get("Filter.1.Name", "").removeprefix("tag:")
        rows = [m for m in self.listing() if m.more.get("tags", {}).get(key, "").startswith(prefix)]
        shown, token = self.page(rows, form.get("NextToken"), 5)
        return {"reservationSet": [{"reservationId": "r-1", "instancesSet": [self.row(m)]} for m in shown], "nextToken": token}

    def do_TerminateInstances(self, request, form):
        made = self.known(request, form)
        if made.is_live and made.state != "stopping":
            self.terminate(made)
        return {"instancesSet": [{"instanceId": made.id, "currentState": {"code": 32, "name": "shutting-down"}}]}

    def do_StopInstances(self, request, form):
        made = self.known(request, form)
        self.halt(made)
        return {"instancesSet": [{"instanceId": made.id, "currentState": {"code": 64, "name": "stopping"}}]}


if __name__ == "__main__":
    run(Ec2)
