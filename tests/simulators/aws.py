#!/usr/bin/env python3
"""EC2 of one region: form posts signed with SigV4, XML out (network_sim.py has what all simulators share).

Instances with ClientToken are idempotent; tags come with the launch; InsufficientInstanceCapacity is a 500 and
RequestLimitExceeded a 503, as the real ones are; terminated instances stay visible for a while; a just-created id may
not be found at first (list_lag hides it from describe too). On demand and reservations have no price in this API: what
they cost here is ON_DEMAND. For POST /control/set: is_without_reservations, they may not be read; ends_at_once, the
reason code of instances that never come up; rubbish, a text that is every answer."""

import base64
import fnmatch
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
    "g6.xlarge": ("L4", 1, 22888, "0.3310", "x86_64"),
    "g6e.xlarge": ("L40S", 1, 45776, "0.8120", "x86_64"),
    "g6e.12xlarge": ("L40S", 4, 45776, "4.301235", "x86_64"),
    "g5g.xlarge": ("T4g", 1, 16384, "0.2100", "arm64"),
    "g6f.large": ("L4", 0, 2861, "0.0700", "x86_64"),
}
ON_DEMAND = {"p5.48xlarge": 55.04, "p4de.24xlarge": 27.4471, "g6.xlarge": 0.8048, "g6e.xlarge": 1.861, "g6e.12xlarge": 10.4926,
             "g5g.xlarge": 0.42, "g6f.large": 0.202}
MARKETS = ("spot", "capacity-block", "interruptible-capacity-reservation")
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
    page_size = 5
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
             "not_yet": (400, "IncorrectInstanceState", "The instance is not in a state from which it can be ended."),
             "no_action": (400, "InvalidAction", "The action is not valid for this endpoint."),
             "not_allowed": (403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
             "mismatch": (400, "IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent."),
             "ended": (400, "IdempotentInstanceTerminated", "The instance of this token was terminated."),
             "reserved": (400, "ReservationCapacityExceeded", "The requested reservation does not have sufficient capacity."),
             "no_stop": (400, "UnsupportedOperation", "You can't stop the Spot Instance because it is of a one-time request."),
             "user_data": (400, "InvalidUserData.Malformed", "User data is limited to 16384 bytes"),
             "image": (400, "InvalidAMIID.Malformed", "Invalid id")}

    def setup(self):
        self.is_without_reservations, self.ends_at_once, self.rubbish = False, None, None
        row = {"availabilityZone": ZONES[0], "instanceType": "p5.48xlarge", "instancePlatform": "Linux/UNIX", "tenancy": "default",
               "state": "active", "totalInstanceCount": 4, "availableInstanceCount": 3, "instanceMatchCriteria": "targeted",
               "reservationType": "default", "endDateType": "unlimited", "interruptible": False}
        block = {"instanceType": "p4de.24xlarge", "reservationType": "capacity-block", "endDateType": "limited",
                 "availableInstanceCount": 1, "endDate": "2098-01-01T11:30:00.000Z"}
        changes = [{}, block, {"interruptible": True, "availabilityZone": ZONES[1]}, {"availableInstanceCount": 0},
                   {"instancePlatform": "Windows"}, {"tenancy": "dedicated"}, {"endDateType": "limited", "endDate": "2001-01-01T00:00:00Z"},
                   {"state": "expired"}]
        self.reservations = [{"capacityReservationId": f"cr-{i:017x}", **row, **change} for i, change in enumerate(changes, 1)]

    def default_offers(self):
        return [{"id": name, "gpu": gpu, "gpus": max(count, 1), "price": ON_DEMAND[name] / max(count, 1), "stock": None,
                 "interruptible": False} for name, (gpu, count, _, _, _) in TYPES.items()]

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
        if not {"host", "x-amz-date"} <= set(names) or any(n.startswith("x-amz-") and n not in names for n in request.headers):
            return False
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
        if self.rubbish:
            return Answer(200, self.rubbish, content_type="text/xml")
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
            self.refuse("no_action", request)
        return self.reply(action, fn(request, request.form))

    # -- offers --
    def filters(self, form):
        """{name: values} of Filter.N.Name and Filter.N.Value.M."""
        found = {}
        for key, name in form.items():
            if key.startswith("Filter.") and key.endswith(".Name"):
                found[name] = [v for k, v in form.items() if k.startswith(key.removesuffix("Name") + "Value.")]
        return found

    def passes(self, filters, name, value):
        return name not in filters or any(fnmatch.fnmatchcase(value, pattern) for pattern in filters[name])

    def do_DescribeInstanceTypes(self, request, form):
        filters = self.filters(form)
        rows = []
        for name, (gpu, count, mib, spot, arch) in TYPES.items():
            if not self.passes(filters, "instance-type", name):
                continue
            rows.append({"instanceType": name, "currentGeneration": True,
                         "supportedUsageClasses": ["on-demand", *(["spot"] if spot else [])],
                         "processorInfo": {"supportedArchitectures": [arch]},
                         "gpuInfo": {"gpus": [{"name": gpu, "manufacturer": "NVIDIA", "count": count, "logicalGpuCount": max(count, 1),
                                               "gpuPartitionSize": 1.0 if count else 0.125, "memoryInfo": {"sizeInMiB": mib}}],
                                     "totalGpuMemoryInMiB": mib * max(count, 1)}})
        shown, token = self.page(rows, form.get("NextToken"))
        return {"instanceTypeSet": shown, "nextToken": token}

    def do_DescribeSpotPriceHistory(self, request, form):
        wanted = {v for k, v in form.items() if k.startswith("InstanceType.")}
        rows = [{"instanceType": name, "productDescription": "Linux/UNIX", "spotPrice": TYPES[name][3],
                 "timestamp": form.get("StartTime", ""), "availabilityZone": zone}
                for name in TYPES if name in wanted and TYPES[name][3] for zone in ZONES]
        shown, token = self.page(rows, form.get("NextToken"))
        return {"spotPriceHistorySet": shown, "nextToken": token}

    def do_DescribeCapacityReservations(self, request, form):
        if self.is_without_reservations:
            self.refuse("not_allowed", request)
        rows = [r for r in self.reservations if self.passes(self.filters(form), "state", r["state"])]
        shown, token = self.page(rows, form.get("NextToken"))
        return {"capacityReservationSet": shown, "nextToken": token}

    # -- instances --
    def row(self, made):
        states = {"pending": (0, "pending"), "running": (16, "running"), "stopping": (32, "shutting-down"),
                  "gone": (48, "terminated"), "stopped": (80, "stopped"), "failed": (48, "terminated")}
        code, name = states[made.state]
        row = {"instanceId": made.id, "imageId": made.image, "instanceState": {"code": code, "name": name},
               "instanceType": made.more.get("type", ""), "launchTime": "2026-11-20T10:00:00.000Z",
               "placement": {"availabilityZone": made.more.get("zone", ZONES[0])},
               "tagSet": [{"key": k, "value": v} for k, v in self.tags(made).items()], "clientToken": made.tag}
        if made.more.get("market"):
            row["instanceLifecycle"] = made.more["market"]
        elif made.interruptible:
            row["instanceLifecycle"] = "spot"
        if made.state == "running":
            row["ipAddress"] = "127.0.0.1"
        if made.state in ("failed", "gone") and made.reason:
            row["stateReason"] = {"code": self.ends_at_once or "Server.InternalError", "message": made.reason}
        return row

    def tags(self, made):
        return made.more.get("tags") or {"sluice-lease": made.tag}

    def reserve(self, request, form):
        """What a launch into a reservation takes from it."""
        target = form.get("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId")
        if not target:
            return
        held = next((r for r in self.reservations if r["capacityReservationId"] == target and r["state"] == "active"), None)
        kind = ("capacity-block" if held and held["reservationType"] == "capacity-block" else
                "interruptible-capacity-reservation" if held and held["interruptible"] else None)
        if (not held or held["availableInstanceCount"] < 1 or held["instanceType"] != form["InstanceType"] or
                held["availabilityZone"] != form.get("Placement.AvailabilityZone") or kind != form.get("InstanceMarketOptions.MarketType")):
            self.refuse("reserved", request)
        held["availableInstanceCount"] -= 1

    def do_RunInstances(self, request, form):
        token, kind = form.get("ClientToken", ""), form.get("InstanceType")
        before = next((m for m in self.instances.values() if token and m.tag == token), None)
        if before and not before.is_live:
            self.refuse("ended", request)
        if before and before.more.get("asked", form) != form:
            self.refuse("mismatch", request)
        if before:
            return {"reservationId": "r-1", "instancesSet": [self.row(before)]}
        if form.get("MinCount") != "1" or form.get("MaxCount") != "1" or not form.get("ImageId", "").startswith("ami-"):
            self.refuse("image", request)
        offer = self.offer(kind)
        if not offer:
            self.refuse("no_capacity", request)
        user_data = base64.b64decode(form.get("UserData", ""), validate=True)
        if len(user_data) > 16384:
            self.refuse("user_data", request)
        self.reserve(request, form)
        tags = {v: form[k.removesuffix("Key") + "Value"] for k, v in form.items()
                if k.startswith("TagSpecification.1.Tag.") and k.endswith(".Key")}
        market, spot = form.get("InstanceMarketOptions.MarketType"), TYPES[kind][3]
        if market not in (None, *MARKETS):
            self.refuse(market, request)
        if market == "spot" and (not spot or float(form.get("InstanceMarketOptions.SpotOptions.MaxPrice", "1e9")) < float(spot)):
            self.refuse("price_moved", request)
        price = {"price": float(spot) / max(TYPES[kind][1], 1)} if market == "spot" else {}
        made = self.create(tag=token, offer=offer, image=form["ImageId"], interruptible=market not in (None, "capacity-block"),
                           argv=["sh", "-c", user_data.decode(errors="replace")] if user_data else [], tags=tags, type=kind,
                           market=market, asked=form, zone=form.get("Placement.AvailabilityZone", ZONES[0]),
                           ports=[int(p) for p in tags.get("sluice-ports", "").split("/") if p], **price)
        if self.ends_at_once:
            self.finish(made, self.ends_at_once)
        return {"reservationId": "r-1", "ownerId": "123456789012", "instancesSet": [self.row(made)]}

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
            if made.state == "failed":  # a launch that fails ends the instance: it is shown as terminated, and bills nothing
                self.finish(made, made.reason)
            return {"reservationSet": [{"reservationId": "r-1", "instancesSet": [self.row(made)]}]}
        filters = self.filters(form)
        rows = []
        for made in self.listing():
            names = {"instance-state-name": self.row(made)["instanceState"]["name"], "client-token": made.tag,
                     **{f"tag:{k}": v for k, v in self.tags(made).items()}}
            if all(any(fnmatch.fnmatchcase(names.get(name, ""), v) for v in values) for name, values in filters.items()):
                rows.append(made)
        shown, token = self.page(rows, form.get("NextToken"))
        return {"reservationSet": [{"reservationId": "r-1", "instancesSet": [self.row(m)]} for m in shown], "nextToken": token}

    def do_TerminateInstances(self, request, form):
        made = self.known(request, form)
        if made.is_live and made.state != "stopping":
            self.terminate(made)
        return {"instancesSet": [{"instanceId": made.id, "currentState": {"code": 32, "name": "shutting-down"}}]}

    def do_StopInstances(self, request, form):
        made = self.known(request, form)
        if made.more.get("market") == "spot":
            self.refuse("no_stop", request)
        self.halt(made)
        return {"instancesSet": [{"instanceId": made.id, "currentState": {"code": 64, "name": "stopping"}}]}


if __name__ == "__main__":
    run(Ec2)
