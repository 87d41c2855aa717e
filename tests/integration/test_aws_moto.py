"""EC2 by moto, an independent implementation, and by the service model that AWS publishes with its SDK: what the adapter
sends is signed as moto checks it, stored as it was meant, and has no parameter that the model does not know.

moto answers no ClientToken twice alike, has no capacity reservations and looks at no user's bid: for these see
test_aws.py. An action that it lacks gets EC2's own InvalidAction here, in place of its page of HTML."""

import base64
import os
from io import BytesIO
from threading import Thread
from urllib.parse import parse_qsl

import pytest

from test_conformance import Drive, Row

os.environ["MOTO_ENABLE_AMI_VALIDATION"] = "true"  # read when moto is imported
os.environ["MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION"] = "true"

import botocore.loaders  # noqa: E402
import botocore.model  # noqa: E402
from moto import settings  # noqa: E402
from moto.core.authorization import ActionAuthenticatorMixin  # noqa: E402
from moto.ec2.models import ec2_backends  # noqa: E402
from moto.iam.models import iam_backends  # noqa: E402
from moto.server import DomainDispatcherApplication, create_backend_app  # noqa: E402
from moto.sts.models import sts_backends  # noqa: E402
from werkzeug.serving import make_server  # noqa: E402

ACCOUNT, REGION = "123456789012", "us-east-1"
MODEL = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("ec2", "service-2"))
MISSING = ("DescribeCapacityReservations",)
INVALID_ACTION = (b"<Response><Errors><Error><Code>InvalidAction</Code><Message>The action is not valid.</Message></Error></Errors>"
                  b"<RequestID>r-1</RequestID></Response>")
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:%s", "Resource": "*"}]}'


class Moto:
    """moto's server on a thread; `forms` has what came, the newest last."""

    def __init__(self):
        self.app, self.forms = DomainDispatcherApplication(create_backend_app), []
        self.server = make_server("127.0.0.1", 0, self.serve, threaded=True)
        self.base_url, self.key = f"http://127.0.0.1:{self.server.port}", ""
        self.ec2 = ec2_backends[ACCOUNT][REGION]
        self.iam = iam_backends[ACCOUNT]["aws"]
        Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(body)
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
        self.forms.append(form)
        if form["Action"] in MISSING:
            start_response("400 Bad Request", [("Content-Type", "text/xml")])
            return [INVALID_ACTION]
        return self.app(environ, start_response)

    def user(self, name, actions="*"):
        self.iam.create_user(REGION, name)
        self.iam.put_user_policy(name, "policy", POLICY % actions)
        key = self.iam.create_access_key(user_name=name)
        return {"access_key": key.access_key_id, "secret_key": key.secret_access_key}


@pytest.fixture(scope="module")
def moto():
    moto = Moto()
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # from now on signatures and permissions are checked
    ActionAuthenticatorMixin.request_count = 0
    yield moto
    moto.server.shutdown()


@pytest.fixture(scope="module")
def credential(moto):
    return moto.user("gateway")


@pytest.fixture
def ami(moto):
    return next(i for i in moto.ec2.describe_images() if i.platform != "windows" and i.architecture == "x86_64").id


@pytest.fixture
def open_drive(moto, credential, ami):
    made = []

    def make(credential=credential, **options):
        all_options = {"region": REGION, "ami": ami, "price.g6.xlarge": "0.8048", "price.p5.48xlarge": "55.04", **options}
        made.append(Drive(Row("aws", credential=credential, options=all_options), moto))
        return made[-1]

    yield make
    for drive in made:
        drive.close()


@pytest.fixture
def drive(open_drive):
    return open_drive()


def offer_of(drive, id):
    return next(o for o in drive.offers() if o["id"] == id)


def stored(moto, id):
    return moto.ec2.get_instance(id)


def test_check_is_signed_as_moto_signs(drive):
    assert drive.call("check")["error"] == "ok"


def test_a_session_of_a_role(moto, open_drive):
    role = moto.iam.create_role("gateway-role", "{}", "/", None, None, [], "3600")
    moto.iam.put_role_policy("gateway-role", "policy", POLICY % "*")
    session = sts_backends[ACCOUNT]["aws"].assume_role(region_name=REGION, role_session_name="s", role_arn=role.arn, policy=None,
                                                       duration=3600, external_id=None)
    held = {"access_key": session.access_key_id, "secret_key": session.secret_access_key}
    assert open_drive({**held, "session_token": session.session_token}).call("check")["error"] == "ok"


def test_what_is_not_allowed(moto, credential, open_drive):
    assert open_drive({**credential, "secret_key": "wrong-secret"}).call("check")["error"] == "bad_credential"
    assert open_drive({**credential, "access_key": "AKIAIOSFODNN7EXAMPLE"}).call("check")["error"] == "bad_credential"
    assert open_drive(moto.user("reader", "DescribeInstances")).call("check")["error"] == "ok"
    assert open_drive(moto.user("stranger", "DescribeImages")).call("check")["error"] == "bad_credential"


def test_offers_of_all_gpu_types(drive):
    """moto holds the real list of types, as AWS described them."""
    offers = drive.offers()
    by_type = {o["id"].split("/")[1]: o for o in offers}
    assert len({o["id"] for o in offers}) == len(offers)
    known = {"p5.48xlarge": ("nvidia/h100-sxm-80", 8), "p5.4xlarge": ("nvidia/h100-sxm-80", 1), "p5en.48xlarge": ("nvidia/h200-sxm-141", 8),
             "p4d.24xlarge": ("nvidia/a100-sxm-40", 8), "p4de.24xlarge": ("nvidia/a100-sxm-80", 8), "g6.xlarge": ("nvidia/l4-24", 1),
             "g6e.48xlarge": ("nvidia/l40s-48", 8), "g5.12xlarge": ("nvidia/a10g-24", 4), "g4dn.xlarge": ("nvidia/t4-16", 1),
             "p3.2xlarge": ("nvidia/v100-sxm-16", 1)}
    seen = {name: (by_type[name]["gpu"], by_type[name]["gpus"]) for name in known if name in by_type}
    assert len(seen) >= 8 and seen == {name: known[name] for name in seen}
    assert not [o for o in offers if o["gpu"] == "" or o["is_slice"]]
    assert {o["id"] for o in offers if not o["interruptible"]} == {"od/g6.xlarge//", "od/p5.48xlarge//"}
    assert {o["zone"] for o in offers if o["interruptible"]} > {"us-east-1a"}


def test_an_instance_as_moto_stored_it(moto, drive, ami):
    script = "#!/bin/sh\necho 'a b' & echo +%=\"ü\"\n" + "x" * 16000
    made = drive.create(offer=offer_of(drive, "od/g6.xlarge//"), script=script, ports=[8000, 22], disk_gib=123)
    assert made["error"] == "ok", made
    id = made["instance"]["id"]
    one = stored(moto, id)
    tag = moto.forms[-1]["ClientToken"]
    assert tag.startswith("sluice-abc123-") and one.client_token == tag
    assert {t["key"]: t["value"] for t in one.get_tags()} == {"sluice-lease": tag, "Name": tag, "sluice-ports": "8000/22"}
    assert base64.b64decode(str(one.user_data)).decode() == script
    assert (one.image_id, one.instance_type, one.lifecycle) == (ami, "g6.xlarge", None)
    assert one.instance_initiated_shutdown_behavior == "terminate"
    assert (one.metadata_options.http_tokens, one.metadata_options.http_put_response_hop_limit) == ("required", 1)
    (device, disk), = one.get_block_device_mapping
    assert (device, int(disk.size), str(disk.delete_on_termination).lower()) == ("/dev/sda1", 123, "true")
    seen = drive.running(id)
    assert seen["tag"] == tag and seen["interruptible"] == 0 and seen["placement"].startswith(REGION)
    assert seen["created_at_ms"] > 1_700_000_000_000
    assert [(e["port"], e["url"]) for e in seen["endpoints"]] == [(p, f"http://{one.public_ip_address}:{p}") for p in (8000, 22)]
    assert drive.tags() == [tag]
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)
    assert drive.terminate(id)["error"] == "ok" and drive.tags() == []


def test_spot_with_all_options(moto, open_drive):
    vpc = moto.ec2.create_vpc("10.7.0.0/16")
    subnet = moto.ec2.create_subnet(vpc.id, "10.7.1.0/24", "us-east-1b")
    group = moto.ec2.create_security_group("workers", "of workers", vpc_id=vpc.id)
    moto.ec2.create_key_pair("operators", "rsa", {})
    profile = moto.iam.create_instance_profile("worker", "/", [])
    drive = open_drive(**{"subnet.us-east-1b": subnet.id, "security_group": group.id, "key_name": "operators", "profile": profile.name,
                          "root_device": "/dev/xvda"})
    offers = drive.offers()
    assert {o["zone"] for o in offers} == {"us-east-1b"}
    made = drive.create(offer=next(o for o in offers if o["id"] == "spot/g6.xlarge/us-east-1b/"), price_max=331_000_000)
    assert made["error"] == "ok" and made["instance"]["interruptible"] == 1, made
    assert moto.forms[-1]["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.331000"
    one = stored(moto, made["instance"]["id"])
    assert (one.lifecycle, one.subnet_id, one.key_name) == ("spot", subnet.id, "operators")
    assert [g.id for g in one.security_groups] == [group.id]
    assert [device for device, _ in one.get_block_device_mapping] == ["/dev/xvda"]
    associated = moto.ec2.describe_iam_instance_profile_associations([], {"instance-id": [one.id]}, 10, None)[0]
    assert [a.iam_instance_profile.name for a in associated] == [profile.name]
    assert drive.terminate(one.id)["error"] == "ok"


def test_stop_and_start_from_nothing(moto, drive):
    id = drive.create(offer=offer_of(drive, "od/g6.xlarge//"))["instance"]["id"]
    assert drive.call("stop", id=id, tag="")["error"] == "ok"
    assert stored(moto, id).state == "stopped"
    assert drive.describe(id)["instance"]["state"] == "stopped" and len(drive.tags()) == 1
    assert drive.terminate(id)["error"] == "ok" and stored(moto, id).state == "terminated"


def test_errors(moto, drive, open_drive):
    offer = offer_of(drive, "od/g6.xlarge//")
    assert drive.describe("i-0123456789abcdef0")["error"] == "not_found"
    assert drive.describe("i-0123456789abcdef0")["http_status"] == 400
    assert drive.terminate("i-0123456789abcdef0")["error"] == "ok"
    assert drive.call("stop", id="i-0123456789abcdef0", tag="")["error"] == "not_found"
    no_image = open_drive(ami="ami-0123456789abcdef0").create(offer=offer)
    assert no_image["error"] == "bad_request" and not no_image["is_uncertain"] and "ami-0123456789abcdef0" in no_image["message"]
    assert drive.create(offer={**offer, "id": "od/g99.xlarge//"})["error"] in ("bad_request", "no_capacity")
    assert drive.create(offer={**offer, "id": "od/g6.xlarge/us-east-1q/"})["error"] == "bad_request"
    assert open_drive(security_group="sg-0123456789abcdef0").create(offer=offer)["error"] == "bad_request"
    assert drive.tags() == []


def test_what_is_not_ours(moto, drive, ami):
    for tags in ({}, {"sluice-lease": "sluice-ffffff-x-1"}, {"Name": "sluice-abc123-x-1"}):
        moto.ec2.run_instances(ami, 1, None, [], instance_type="g6.xlarge", is_instance_type_default=False, region_name=REGION,
                               tags={"instance": tags})
    assert drive.tags() == []


# -- the model --

def member_name(name, shape):
    """How the ec2 protocol writes a member: queryName, else its name on the wire with a capital, else its own."""
    wire = shape.serialization.get("name")
    return shape.serialization.get("queryName") or (wire[0].upper() + wire[1:] if wire else name)


def faults_of(shape, parts, value):
    if shape.type_name == "structure":
        members = {member_name(name, member): member for name, member in shape.members.items()}
        return faults_of(members[parts[0]], parts[1:], value) if parts and parts[0] in members else f"no member {parts}"
    if shape.type_name == "list":
        return faults_of(shape.member, parts[1:], value) if parts and parts[0].isdigit() else f"no item {parts}"
    if parts:
        return f"{parts} beyond a {shape.type_name}"
    fits = {"integer": str.isdigit, "boolean": ("true", "false").__contains__, "string": lambda v: v in (shape.enum or [v]),
            "timestamp": lambda v: len(v) == 20 and v.endswith("Z"), "blob": base64.b64decode}
    return None if fits[shape.type_name](value) else f"{value!r} is no {shape.name}"


def test_the_model_knows_every_parameter(moto, open_drive):
    """In all markets; reservations and blocks, which moto lacks, too."""
    drive = open_drive(security_group="sg-1", key_name="k", profile="worker")
    moto.forms.clear()
    offer = offer_of(drive, "od/g6.xlarge//")
    for id in ("od/g6.xlarge//", "spot/g6.xlarge/us-east-1a/", "cr/g6.xlarge/us-east-1a/cr-1", "ir/g6.xlarge/us-east-1a/cr-2",
               "cb/g6.xlarge/us-east-1a/cr-3"):
        drive.create(offer={**offer, "id": id}, price_max=10**9)
    open_drive(**{"subnet.us-east-1a": "subnet-1"}).create(offer={**offer, "id": "spot/g6.xlarge/us-east-1a/"})
    for op in ("list", "describe", "stop", "terminate"):
        drive.call(op, id="i-0123456789abcdef0", tag="")
    actions = {form["Action"] for form in moto.forms}
    assert actions == {"DescribeInstanceTypes", "DescribeSpotPriceHistory", "DescribeCapacityReservations", "RunInstances",
                       "DescribeInstances", "StopInstances", "TerminateInstances"}
    keys = {key for form in moto.forms for key in form}
    assert {"InstanceMarketOptions.SpotOptions.MaxPrice", "SubnetId", "SecurityGroupId.1",
            "CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId"} < keys
    faults = []
    for form in moto.forms:
        assert form["Version"] == MODEL.api_version
        shape = MODEL.operation_model(form["Action"]).input_shape
        for key, value in form.items():
            fault = key not in ("Action", "Version") and faults_of(shape, key.split("."), value)
            faults += [f"{form['Action']} {key}: {fault}"] if fault else []
    assert faults == []


def test_the_model_would_tell():
    shape = MODEL.operation_model("RunInstances").input_shape
    assert faults_of(shape, ["SecurityGroupIds", "1"], "sg-1") and not faults_of(shape, ["SecurityGroupId", "1"], "sg-1")
    assert faults_of(shape, ["InstanceMarketOptions", "MarketType"], "stop") and faults_of(shape, ["MinCount"], "one")


def test_answers_have_the_members_that_are_read():
    """The names that the adapter looks for in what EC2 answers, by the same model."""
    wanted = {"DescribeInstances": ["reservationSet.instancesSet." + m for m in
                                    ("instanceId", "clientToken", "ipAddress", "privateIpAddress", "instanceLifecycle", "stateReason.message",
                                     "stateReason.code", "reason", "launchTime", "instanceState.name", "placement.availabilityZone",
                                     "tagSet.key", "tagSet.value")] + ["nextToken"],
              "RunInstances": ["instancesSet.instanceId"], "StopInstances": ["instancesSet.instanceId"],
              "TerminateInstances": ["instancesSet.instanceId"],
              "DescribeInstanceTypes": ["instanceTypeSet." + m for m in
                                        ("instanceType", "supportedUsageClasses", "processorInfo.supportedArchitectures", "gpuInfo.gpus.name",
                                         "gpuInfo.gpus.count", "gpuInfo.gpus.gpuPartitionSize", "gpuInfo.gpus.memoryInfo.sizeInMiB")] +
              ["nextToken"],
              "DescribeSpotPriceHistory": ["spotPriceHistorySet." + m for m in ("instanceType", "availabilityZone", "spotPrice")] + ["nextToken"],
              "DescribeCapacityReservations": ["capacityReservationSet." + m for m in
                                               ("instanceType", "availabilityZone", "capacityReservationId", "reservationType", "interruptible",
                                                "availableInstanceCount", "endDate", "state", "instancePlatform", "tenancy")] + ["nextToken"]}
    for action, paths in wanted.items():
        for path in paths:
            shape = MODEL.operation_model(action).output_shape
            for part in path.split("."):
                shape = shape.member if shape.type_name == "list" else shape
                named = {member.serialization.get("name", name): member for name, member in shape.members.items()}
                assert part in named, (action, path, part)
                shape = named[part]
