"""What every network must do, over every adapter, each against its simulator.

A network is one row of NETWORKS: its name is that of the adapter and of tests/simulators/<name>.py. All else has a
default, and says where the network differs:

    adapter      where the name is another
    credential   key -> value, with {key} for the simulator's key; default {"api_key": "{key}"}
    path         what follows http://127.0.0.1:PORT in base_url
    options      of the adapter; pace_percent and deadline_ms are set for all
    rates        currency -> USD
    order        fields of the order that differ, such as {"span_s": 3600}
    pick         which offer is ordered: a function of an offer, default the first that is whole and not interruptible
    pages        attributes of the simulator that make its pages small
    expect       fault -> error class, where the network tells them apart otherwise; None: it has no such answer
    leftover     True: a create that fails may leave an instance (fault `leftover`)
    price_told   False: neither create nor describe tell a price, and create does not refuse a moved one
    skip         names of tests below -> why the network cannot be put to them
    script       of the simulator, where it is not <adapter>.py
    sim          more arguments of the simulator

Run one row: pytest tests/integration/test_conformance.py -k vast
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

import harness

TAG = "sluice-abc123-01jdconformance0000000000-"
GPU_HOUR = 1_000_000_000


class Row:
    def __init__(self, name, credential=None, path="", options=None, rates=None, order=None, pick=None, pages=None,
                 expect=None, leftover=False, price_told=True, skip=None, script=None, sim=(), adapter=None):
        self.name, self.path, self.options, self.rates = name, path, options or {}, rates or {}
        self.credential = credential if credential is not None else {"api_key": "{key}"}
        self.order, self.pick, self.pages = order or {}, pick, pages or {"page_size": 2}
        self.expect = {"no_capacity": "no_capacity", "quota": "quota", "no_funds": "no_funds",
                       "bad_image": "bad_request", **(expect or {})}
        self.leftover, self.price_told, self.skip, self.sim = leftover, price_told, skip or {}, list(sim)
        self.adapter = adapter or name
        self.script = script or f"{self.adapter}.py"


NETWORKS = [
    Row("aws", credential={"access_key": "AKIDEXAMPLE", "secret_key": "{key}"},
        options={"region": "us-east-1", "ami": "ami-0123456789abcdef0", "price.p5.48xlarge": "55.04", "price.g6.xlarge": "0.8048",
                 "reserved_price.p5.48xlarge": "40"},
        expect={"no_funds": "quota"}, price_told=False,
        skip={"test_one_that_fails": "it ends what fails by itself"}),
    Row("vast", leftover=True, expect={"quota": None}),
    Row("lambda", script="lambda_sim.py", options={"ssh_key": "operator"}, expect={"no_funds": None}),
    Row("fake", credential={"api_key": "{key}"}, options={"boot_looks": "1"},
        skip={"test_rate_limit_is_waited_out": "it has no pauses", "test_rubbish": "it speaks no HTTP",
              "test_slow_answers": "it speaks no HTTP", "test_mangled_answers": "it speaks no HTTP",
              "test_a_network_that_is_down": "a folder is always there"}),
    Row("akash", options={"account": "dedicated", "bid_poll_ms": "20", "bid_wait_ms": "200"},
        order={"price_max": 40 * GPU_HOUR}, expect={"quota": None},
        skip={"test_a_lost_answer_is_found_by_its_tag": "a deployment shows its name with its lease: test_akash_kubernetes.py"}),
    Row("kubernetes", credential={"token": "{key}"}, options={"price.default": "2.0"}, price_told=False,
        expect={"no_capacity": None, "no_funds": None, "bad_image": None}),
    Row("coreweave", adapter="kubernetes", credential={"token": "{key}"}, price_told=False,
        options={"profile": "coreweave", "price.default": "2.0"}, sim=("--profile", "coreweave"),
        expect={"no_capacity": None, "no_funds": None, "bad_image": None}),
    Row("ionet", pages={"page_max": 2}, price_told=False),
    Row("nosana", pages={"page_max": 2}, price_told=False, expect={"no_capacity": None, "quota": None},
        leftover=True),
    Row("runpod", options={"expose": "tcp"}),
]
ROWS = {row.name: row for row in NETWORKS}


class Simulator:
    def __init__(self, row):
        argv = [sys.executable, str(harness.REPO / "tests/simulators" / row.script), *row.sim]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                        preexec_fn=harness.die_with_parent)
        told = json.loads(self.process.stdout.readline())
        self.key, self.base_url = told["key"], f"http://127.0.0.1:{told['port']}{row.path}"
        self.control_url = f"http://127.0.0.1:{told['control_port']}/control"

    def control(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.control_url}/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def reset(self):
        self.control("POST", "reset", {})

    def fault(self, name, **fields):
        self.control("POST", "faults", {"fault": name, **fields})

    def clear(self):
        self.control("DELETE", "faults")

    def truth(self):
        return self.control("GET", "instances")

    def foreign(self, tag):
        self.control("POST", "instances", {"tag": tag})

    def set(self, **attributes):
        self.control("POST", "set", attributes)

    def requests(self, op):
        return [line for line in self.control("GET", "requests")["log"] if line["op"] == op]

    def close(self):
        self.process.terminate()
        self.process.wait()


class Folder:
    """The fake network, which has no simulator: its folder is one."""

    def __init__(self, row):
        self.path = harness.short_dir()
        self.key, self.base_url = "key-of-fake", f"dir://{self.path}/net"
        self.net = self.path / "net"

    def reset(self):
        shutil.rmtree(self.net, ignore_errors=True)
        self.net.mkdir()
        (self.net / "key").write_text(self.key + "\n")

    def fault(self, name, **fields):
        file = self.net / "faults.json"
        faults = json.loads(file.read_text()) if file.exists() else []
        file.write_text(json.dumps([*faults, {"fault": name, "count": 1, **fields}]))

    def clear(self):
        (self.net / "faults.json").unlink(missing_ok=True)

    def truth(self):
        live = [json.loads(f.read_text()) for f in (self.net / "instances").glob("*.json")]
        ended = [json.loads(f.read_text()) for f in (self.net / "ended").glob("*.json")]
        created = {}
        for made in live + ended:
            created[made["tag"]] = created.get(made["tag"], 0) + 1
        return {"instances": live + ended, "created": created, "live": len(live)}

    def foreign(self, tag):
        made = {"id": "fi_" + tag.replace("-", ""), "tag": tag, "state": "running", "looks": 0, "ports": []}
        (self.net / "instances" / f"{made['id']}.json").write_text(json.dumps(made))

    def set(self, **attributes):
        pass

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Drive:
    """build/conformance over one opened network."""

    def __init__(self, row, world, credential=None, base_url=None, **options):
        given = {key: value.replace("{key}", world.key) for key, value in row.credential.items()}
        config = {"adapter": row.adapter, "id": f"{row.name}-one", "base_url": base_url or world.base_url,
                  "credential": credential or given, "rates": row.rates,
                  "options": {"pace_percent": "0", "deadline_ms": "10000", **row.options, **options}}
        self.row, self.world, self.secrets = row, world, [v for v in given.values() if len(v) > 5]
        self.process = subprocess.Popen([str(harness.BUILD / "conformance"), json.dumps(config)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=harness.die_with_parent)
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        assert line, f"the driver died: {self.process.stderr.read()}"
        for secret in self.secrets:
            assert secret not in line
        return json.loads(line)

    def call(self, op, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        result = self.read()
        if result["error"] != "ok":
            assert result["message"].startswith(f"{self.about['title']} ({self.row.name}-one): "), result
        return result

    def has(self, trait):
        return bool(self.about["traits"] & trait)

    def offers(self):
        result = self.call("offers")
        assert result["error"] == "ok", result
        return result.get("offers", [])

    def offer(self):
        pick = self.row.pick or (lambda o: not o["is_slice"] and not o["interruptible"])
        return next(o for o in self.offers() if pick(o))

    def create(self, number=1, offer=None, **over):
        offer = offer or self.offer()
        order = {"tag": f"{TAG}{number}", "offer": offer["id"], "gpus": offer["gpus"], "image": "ghcr.io/example/serve:1",
                 "argv": ["/bin/sh", "-c", "echo up; sleep 600"], "env": {"TOKEN": "t-0123456789", "MODE": "a b"},
                 "script": "#!/bin/sh\necho up\n", "ports": [8000], "price_max": -1,
                 "price_quoted": offer["price_usd_nano"], "interruptible": offer["interruptible"], "span_s": 3600,
                 "disk_gib": 20, **self.row.order, **over}
        return self.call("create", order=order)

    def made(self, number=1, **over):
        result = self.create(number, **over)
        assert result["error"] == "ok", result
        assert result["instance"]["id"]
        return result["instance"]["id"]

    def describe(self, id, number=1):
        return self.call("describe", id=id, tag=f"{TAG}{number}")

    def terminate(self, id, number=1):
        return self.call("terminate", id=id, tag=f"{TAG}{number}")

    def until(self, id, condition, number=1, looks=40):
        for _ in range(looks):
            result = self.describe(id, number)
            if condition(result):
                return result
            time.sleep(0.02)
        raise AssertionError(f"never in {looks} looks: {result}")

    def running(self, id, number=1):
        return self.until(id, lambda r: r["error"] == "ok" and r["instance"]["state"] == "running", number)["instance"]

    def gone(self, id, number=1):
        return self.until(id, lambda r: r["error"] == "not_found" or r.get("instance", {}).get("state") == "gone", number)

    def listed(self):
        result = self.call("list")
        assert result["error"] == "ok", result
        return sorted((one["tag"], one["id"]) for one in result.get("instances", []) if one["state"] != "gone")

    def tags(self):
        return [tag for tag, _ in self.listed()]

    def close(self):
        self.process.stdin.close()
        log = self.process.stderr.read()
        assert self.process.wait(20) == 0, log
        for secret in [*self.secrets, "t-0123456789"]:
            assert secret not in log
        self.process.stdout.close()
        self.process.stderr.close()


ERRORS = ("ok", "no_capacity", "quota", "no_funds", "bad_request", "bad_credential", "rate_limited", "transient", "unknown",
          "not_found", "not_yet", "price_moved", "unsupported", "failed", "lost")
NO_LOGS, NO_TAG, IDEMPOTENT, NO_STOP = 1 << 0, 1 << 1, 1 << 6, 1 << 8


@pytest.fixture(scope="module")
def worlds():
    made = {}
    yield made
    for world in made.values():
        world.close()


@pytest.fixture(params=list(ROWS))
def row(request):
    row = ROWS[request.param]
    name = request.node.originalname
    if name in row.skip:
        pytest.skip(row.skip[name])
    return row


@pytest.fixture
def world(row, worlds):
    if row.name not in worlds:
        worlds[row.name] = Folder(row) if row.name == "fake" else Simulator(row)
    worlds[row.name].reset()
    return worlds[row.name]


@pytest.fixture
def open_drive(row, world):
    made = []

    def make(**options):
        made.append(Drive(row, world, **options))
        return made[-1]

    yield make
    for drive in made:
        drive.close()


@pytest.fixture
def drive(open_drive):
    return open_drive()


def live(world, number=1):
    return [i for i in world.truth()["instances"] if i["tag"] == f"{TAG}{number}" and i["state"] != "gone"]


def test_good_credentials(drive):
    assert drive.call("check")["error"] == "ok"


def test_wrong_credentials(row, world, open_drive):
    wrong = {key: "wrong-" + str(len(key)) for key in row.credential}
    drive = open_drive(credential=wrong)
    for result in (drive.call("check"), drive.call("list")):
        assert result["error"] == "bad_credential", result
        assert "check this network's credential" in result["message"]


def test_offers_are_normalised(drive):
    offers = drive.offers()
    assert offers
    assert len({o["id"] for o in offers}) == len(offers)
    for offer in offers:
        assert 0 < len(offer["id"]) < 160
        assert GPU_HOUR // 200 <= offer["price_usd_nano"] <= 40 * GPU_HOUR, offer
        assert offer["gpus"] >= 1 and offer["terms"]["amount"] and offer["gpu_raw"]
        assert offer["gpu"] == "" or offer["gpu"] == "cpu" or "/" in offer["gpu"]
    assert any(o["gpu"].startswith("nvidia/") for o in offers)
    assert sum(o["gpu"] == "" for o in offers) * 2 < len(offers)


def test_pages(row, world, drive):
    before = {o["id"] for o in drive.offers()}
    world.set(**row.pages)
    assert {o["id"] for o in drive.offers()} == before
    for number in range(1, 6):
        drive.made(number)
    assert drive.tags() == sorted(f"{TAG}{n}" for n in range(1, 6))


def test_a_whole_life(world, drive):
    made = drive.create()
    assert made["error"] == "ok" and not made["is_uncertain"], made
    id = made["instance"]["id"]
    if not drive.has(NO_TAG):  # under the same id: what is listed under another is taken for an orphan
        assert drive.listed() == [(f"{TAG}1", id)]
    one = drive.running(id)
    if not drive.has(NO_TAG):
        assert drive.listed() == [(f"{TAG}1", id)]
    assert [e for e in one["endpoints"] if e["url"].split("://")[0] in ("http", "https", "tcp")], one
    logs = drive.call("logs", id=id, tag=f"{TAG}1")
    assert logs["error"] == ("unsupported" if drive.has(NO_LOGS) else "ok"), logs
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)
    assert drive.terminate(id)["error"] == "ok"
    assert drive.tags() == []
    truth = world.truth()
    assert truth["created"][f"{TAG}1"] == 1 and not live(world)


def test_stop(world, drive):
    id = drive.made()
    drive.running(id)
    result = drive.call("stop", id=id, tag=f"{TAG}1")
    if drive.has(NO_STOP):
        assert result["error"] == "unsupported"
    else:
        assert result["error"] == "ok", result
        drive.until(id, lambda r: r["instance"]["state"] in ("stopped", "stopping"))
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)


def test_the_offer_decides(world, drive):
    """What is created is what was offered: GPUs and price."""
    offer = drive.offer()
    drive.made(offer=offer)
    made, = live(world)
    assert made["gpus"] == offer["gpus"]
    if made.get("price"):
        assert abs(made["price"] - offer["price_usd_nano"] / GPU_HOUR) < 0.02 * made["price"] + 0.0001


@pytest.mark.parametrize("fault", ["drop_answer_after_effect", "garbage_body", "html_200"])
def test_a_lost_answer_is_found_by_its_tag(world, drive, fault):
    if drive.has(NO_TAG):
        pytest.skip("it has no tags")
    offer = drive.offer()
    world.fault(fault, op="create")
    result = drive.create(offer=offer)
    assert result["error"] == "transient" and result["is_uncertain"], result
    assert drive.tags() == [f"{TAG}1"]
    if drive.has(IDEMPOTENT):
        drive.made(offer=offer)
    assert world.truth()["created"][f"{TAG}1"] == 1


def test_an_order_that_never_arrived(world, drive):
    offer = drive.offer()
    world.fault("drop_before", op="create")
    assert drive.create(offer=offer)["error"] == "transient"
    assert drive.tags() == [] and not live(world)


@pytest.mark.parametrize("fault", ["no_capacity", "quota", "no_funds", "bad_image"])
def test_refusals_are_told_apart(row, world, drive, fault):
    if row.expect[fault] is None:
        pytest.skip("the network has no such answer")
    offer = drive.offer()
    world.fault(fault, op="create")
    result = drive.create(offer=offer)
    assert result["error"] == row.expect[fault], result
    assert not result["is_uncertain"]
    assert ";" in result["message"] and len(result["message"]) < 320
    assert not live(world) or result["leftover"]
    assert drive.made(offer=offer)


@pytest.mark.parametrize("retry_after", [None, 1])
def test_rate_limit_is_waited_out(row, world, open_drive, retry_after):
    drive = open_drive(pace_percent="5")
    id = drive.made()
    world.fault("rate_limit", op="describe", **({} if retry_after is None else {"retry_after": retry_after}))
    begun = time.monotonic()
    assert drive.describe(id)["error"] == "ok"
    assert time.monotonic() - begun >= (0.04 if retry_after is None else 1.0)
    world.fault("rate_limit", op="describe", count=-1)
    result = drive.describe(id)
    assert result["error"] == "rate_limited", result
    assert any(line["status"] in (429, 503) for line in world.requests("describe"))


@pytest.mark.parametrize("fault", ["error_500", "garbage_body", "html_200", "huge_body", "drop_before"])
@pytest.mark.parametrize("op", ["offers", "describe", "list"])
def test_rubbish(row, world, drive, fault, op):
    id = drive.made()
    world.fault(fault, op=op, count=8)
    result = drive.call(op, id=id, tag=f"{TAG}1")
    assert result["error"] == "transient", result
    world.clear()
    assert drive.call(op, id=id, tag=f"{TAG}1")["error"] == "ok"


def test_mangled_answers(row, world, drive):
    """Members of other types, missing, doubled, absurd: any result will do, one for each call, and the next is good."""
    offer = drive.offer()
    id = drive.made(offer=offer)
    for round in range(12):
        world.fault("mangled_body", count=-1, chance=[0.01, 0.05, 0.3][round % 3])
        for op in ("check", "offers", "describe", "list", "logs", "stop"):
            result = drive.call(op, id=id, tag=f"{TAG}1")
            assert result["error"] in ERRORS, result
            assert all(one["tag"].startswith("sluice-abc123-") for one in result.get("instances", []))
            assert all(o["price_usd_nano"] > 0 for o in result.get("offers", []))
        result = drive.create(100 + round, offer=offer)
        assert result["error"] in ERRORS and (result["error"] == "ok" or result["is_uncertain"] or result["http_status"])
        world.clear()
    assert drive.offers() and drive.tags()


def test_slow_answers(row, world, open_drive):
    drive = open_drive()
    id = drive.made()
    world.fault("slow_body", op="describe", bytes=200, ms=5)
    assert drive.describe(id)["error"] == "ok"
    hasty = open_drive(deadline_ms="300")
    world.fault("slow_body", op="describe", bytes=1, ms=200)
    result = hasty.describe(id)
    assert result["error"] == "transient" and "no answer in time" in result["message"], result


def test_a_delete_that_is_ignored(world, drive):
    id = drive.made()
    drive.running(id)
    world.fault("delete_ignored", op="terminate")
    assert drive.terminate(id)["error"] == "ok"
    assert drive.describe(id)["instance"]["state"] == "running"
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)


def test_a_delete_that_is_refused(world, drive):
    id = drive.made()
    world.fault("delete_refused", op="terminate")
    assert drive.terminate(id)["error"] in ("not_yet", "transient"), "neither done nor final"
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)


def test_a_listing_that_lags(world, drive):
    if drive.has(NO_TAG):
        pytest.skip("it has no tags")
    offer = drive.offer()
    world.fault("list_lag", op="create", n=2)
    drive.made(offer=offer)
    seen = [drive.tags() for _ in range(3)]
    assert seen[-1] == [f"{TAG}1"] and seen[0] == [], seen


def test_a_price_that_moved(row, world, drive):
    if not row.price_told:
        pytest.skip("it tells no price of what runs")
    offer = drive.offer()
    world.fault("price_moved", op="create", factor=2)
    result = drive.create(offer=offer)
    if result["error"] == "price_moved":
        assert not live(world) or result["leftover"]
        return
    assert result["error"] == "ok", result
    one = drive.running(result["instance"]["id"])
    assert one["price_usd_nano"] >= 1.9 * offer["price_usd_nano"], (one, offer)


def test_what_is_not_ours_is_not_listed(world, drive):
    drive.made()
    world.foreign("somebody-elses")
    world.foreign("sluice-ffffff-01jdsomebodyelses-1")
    assert drive.tags() == [f"{TAG}1"]


def test_a_failed_create_tells_what_it_left(row, world, drive):
    if not row.leftover:
        pytest.skip("its creates leave nothing")
    offer = drive.offer()
    world.fault("leftover", op="create")
    result = drive.create(offer=offer)
    assert result["error"] != "ok" and result["leftover"], result
    assert live(world)
    assert drive.terminate(result["leftover"])["error"] == "ok"
    drive.gone(result["leftover"])
    assert not live(world)


def test_one_that_vanishes(world, drive):
    id = drive.made()
    drive.running(id)
    world.fault("vanish", op="describe")
    drive.until(id, lambda r: r["error"] == "not_found" or r["instance"]["state"] in ("gone", "failed", "stopped"))
    assert drive.terminate(id)["error"] == "ok"


def test_one_that_never_runs(world, drive):
    offer = drive.offer()
    world.fault("stuck_pending", op="create")
    id = drive.made(offer=offer)
    for _ in range(6):
        assert drive.describe(id)["instance"]["state"] == "pending"
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)


def test_one_that_fails(world, drive):
    offer = drive.offer()
    world.fault("fails", op="create")
    id = drive.made(offer=offer)
    drive.until(id, lambda r: r["error"] == "ok" and r["instance"]["state"] == "failed")
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)


def test_a_network_that_is_down(row, world, open_drive):
    drive = open_drive(base_url=f"http://127.0.0.1:1{row.path}")
    result = drive.call("check")
    assert result["error"] == "transient" and "cannot be reached" in result["message"], result
    assert not result["is_uncertain"]
