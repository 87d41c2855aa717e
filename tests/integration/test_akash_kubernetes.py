"""What Akash and Kubernetes do in their own way, beyond what the conformance suite asks of every network."""


import pytest

from test_conformance import GPU_HOUR, ROWS, TAG, Drive, Simulator

HOSTILE = ['/bin/sh', '-c', 'echo $HOME $$ $(id) "q" \\ \u00e9 \U0001f600 # : - {a: b}\n\tdone\x7f\u2028', "'", "%s", "- x: y", "\x85"]


@pytest.fixture(scope="module")
def simulators():
    made = {}
    yield made
    for simulator in made.values():
        simulator.close()


@pytest.fixture
def start(simulators):
    drives = []

    def make(name, **options):
        if name not in simulators:
            simulators[name] = Simulator(ROWS[name])
        if not drives:
            simulators[name].reset()
        drives.append(Drive(ROWS[name], simulators[name], **options))
        return simulators[name], drives[-1]

    yield make
    for drive in drives:
        drive.close()


def one(simulator, number=1):
    made, = [i for i in simulator.truth()["instances"] if i["tag"] == f"{TAG}{number}"]
    return made


@pytest.mark.parametrize("name", ["akash", "kubernetes"])
def test_commands_and_secrets_arrive_as_they_are(start, name):
    simulator, drive = start(name)
    drive.made(argv=HOSTILE, env={"A": "x: y # $(A) $$", "B": "", "C": '"\n- {}'})
    made = one(simulator)
    assert made["argv"] == HOSTILE and made["env"] == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["akash", "kubernetes"])
def test_an_image_that_cannot_be(start, name):
    simulator, drive = start(name)
    assert drive.create(image="a b: c\n")["error"] == "bad_request"
    assert not simulator.truth()["live"]


# -- Akash --

def test_no_bid_ends_the_deployment(start):
    simulator, drive = start("akash")
    offer = next(o for o in drive.offers() if o["country"] == "US" and o["gpus"] == 2)
    simulator.fault("no_bids")
    result = drive.create(offer=offer)
    assert result["error"] == "no_capacity" and not result["is_uncertain"], result
    assert result["leftover"] == one(simulator)["id"]
    assert "no provider in US bid" in result["message"] and "was closed" in result["message"]
    assert not simulator.truth()["live"]


def test_nobody_is_paid_above_the_cap(start):
    """The cap goes into the SDL per block and rounded down, so that there is no bid above it; the cheapest one is taken."""
    simulator, drive = start("akash")
    offer = next(o for o in drive.offers() if "rtx4090" in o["id"] and not o["country"] and o["gpus"] == 1)
    assert drive.create(offer=offer, price_max=GPU_HOUR // 3)["error"] == "no_capacity"  # 0.3333, and 0.34 is asked
    result = drive.create(2, offer=offer, price_max=GPU_HOUR * 35 // 100)
    assert result["error"] == "ok" and result["instance"]["price_usd_nano"] == 340_000_000, result
    assert drive.create(3, offer=offer, price_max=1)["error"] == "price_moved"


def test_a_country_is_where_the_bidder_is(start):
    simulator, drive = start("akash")
    offer = next(o for o in drive.offers() if "rtx4090" in o["id"] and o["country"] == "FI")
    result = drive.create(offer=offer)
    assert result["error"] == "ok" and result["instance"]["placement"] == "akash1rtx40902", result


def test_a_bid_that_went_is_followed_by_the_next(start):
    simulator, drive = start("akash")
    offer = next(o for o in drive.offers() if "rtx4090" in o["id"] and not o["country"] and o["gpus"] == 1)
    simulator.fault("bid_lost")
    result = drive.create(offer=offer)
    assert result["error"] == "ok" and result["instance"]["placement"] == "akash1rtx40902", result
    simulator.fault("bid_lost", count=2)
    result = drive.create(2, offer=offer)
    assert result["error"] == "no_capacity" and result["leftover"], result
    assert simulator.truth()["live"] == 1


@pytest.mark.parametrize("fault, fields", [("lease_fails", {}), ("drop_answer_after_effect", {"op": "lease"}),
                                           ("drop_before", {"op": "bids"}), ("error_500", {"op": "lease"})])
def test_what_fails_after_the_deployment_is_told(start, fault, fields):
    simulator, drive = start("akash")
    offer = drive.offer()
    simulator.fault(fault, **fields)
    result = drive.create(offer=offer)
    assert result["error"] == "transient" and not result["is_uncertain"], result
    assert result["leftover"] == one(simulator)["id"]
    assert drive.terminate(result["leftover"])["error"] == "ok" and not simulator.truth()["live"]


def test_the_deadline_leaves_a_name(start):
    simulator, drive = start("akash", deadline_ms="1500", bid_wait_ms="30000")
    offer = drive.offer()
    simulator.set(bid_polls=10000)
    result = drive.create(offer=offer)
    assert result["error"] == "transient" and result["leftover"] == one(simulator)["id"], result


def test_deployments_without_a_lease(start):
    simulator, drive = start("akash")
    old = "1700000000000"
    simulator.control("POST", "instances", {"tag": "unknown", "id": old, "leaseless": True})
    offer = drive.offer()
    simulator.fault("drop_answer_after_effect", op="create")
    result = drive.create(offer=offer)
    assert result["error"] == "transient" and result["is_uncertain"]
    listed = drive.call("list")["instances"]  # the young one may still become something
    assert [(i["id"], i["tag"], i["state"]) for i in listed] == [(old, "sluice-abc123-" + "0" * 26 + "-1", "stopped")]
    assert drive.describe(old)["instance"]["state"] == "stopped"
    assert drive.describe(one(simulator)["id"])["instance"]["state"] == "pending"
    _, shared = start("akash", account="shared")
    assert shared.tags() == []
    assert drive.terminate(old)["error"] == "ok" and drive.tags() == []


def test_a_lease_that_says_nothing_yet(start):
    """Without a status there is no name; once it was known, an unreachable provider does not make it unknown."""
    simulator, drive = start("akash")
    simulator.set(silent_looks=2, boot_polls=5)
    id = drive.made()
    _, other = start("akash")
    assert other.tags() == [] and other.tags() == []
    assert other.tags() == [f"{TAG}1"]
    assert drive.running(id)["price_usd_nano"] > 0
    assert drive.call("list")["instances"][0]["state"] == "running"


def test_a_lease_that_runs_out_of_funds(start):
    simulator, drive = start("akash")
    id = drive.made()
    drive.running(id)
    simulator.fault("out_of_funds")
    instance = drive.describe(id)["instance"]
    assert instance["state"] == "failed" and "insufficient_funds" in instance["reason"]
    assert drive.gone(id)


# -- Kubernetes --

def pods(drive, **want):
    return next(o for o in drive.offers() if all(o[k] == v for k, v in want.items()))


def test_nodes_that_are_no_offers(start):
    """Not ready, cordoned, tainted, and what runs on the others is taken off."""
    simulator, drive = start("kubernetes")
    h100 = pods(drive, gpu="nvidia/h100-sxm-80", gpus=1)
    assert h100["available"] == 8 and h100["zone"] == "eu-west-1b"
    id = drive.made(offer=pods(drive, gpu="nvidia/h100-sxm-80", gpus=4))
    drive.running(id)
    assert pods(drive, gpu="nvidia/h100-sxm-80", gpus=1)["available"] == 4
    assert not [o for o in drive.offers() if o["gpu"] == "nvidia/h100-sxm-80" and o["gpus"] == 8]


def test_slices_are_told(start):
    _, drive = start("kubernetes")
    slices = [o for o in drive.offers() if o["is_slice"]]
    assert sorted(o["fraction_ppm"] for o in slices) == [125_000, 250_000] and all(o["gpus"] == 1 for o in slices)
    assert pods(drive, gpu="amd/mi300x-192", gpus=8)["gpu_raw"] == "74b5"


def test_prices_are_the_operators(start):
    _, drive = start("kubernetes", **{"price.nvidia/h100-sxm-80": "2.5", "price.nvidia/l4-24": "0.40"})
    assert pods(drive, gpu="nvidia/h100-sxm-80")["price_usd_nano"] == 2_500_000_000
    assert pods(drive, gpu="nvidia/l4-24")["price_usd_nano"] == 400_000_000
    assert pods(drive, gpu="nvidia/rtx4090-24")["price_usd_nano"] == 2_000_000_000


def test_no_room_is_a_pod_that_waits(start):
    simulator, drive = start("kubernetes")
    offer = drive.offer()
    simulator.fault("no_capacity")
    id = drive.made(offer=offer)
    instance = drive.describe(drive.until(id, lambda r: r["instance"]["reason"])["instance"]["id"])["instance"]
    assert instance["state"] == "pending" and "Insufficient nvidia.com/gpu" in instance["reason"]


def test_an_image_that_is_not_there(start):
    simulator, drive = start("kubernetes")
    offer = drive.offer()
    simulator.fault("image_missing")
    id = drive.made(offer=offer)
    failed = drive.until(id, lambda r: r["instance"]["state"] == "failed")["instance"]
    assert "ImagePullBackOff" in failed["reason"] and "ghcr.io/example/serve:1" in failed["reason"]
    assert drive.call("logs", id=id)["error"] == "ok"


def test_quota_and_permission_are_told_apart(start):
    simulator, drive = start("kubernetes")
    offer = drive.offer()
    simulator.fault("quota")
    assert drive.create(offer=offer)["error"] == "quota"
    simulator.fault("forbidden")
    assert drive.create(offer=offer)["error"] == "bad_credential"
    simulator.fault("service_refused")
    result = drive.create(offer=offer)
    assert result["error"] == "quota" and result["leftover"] == f"{TAG}1", result
    drive.gone(f"{TAG}1")
    _, elsewhere = start("kubernetes", namespace="elsewhere")
    assert elsewhere.call("check")["error"] == "bad_credential"


@pytest.mark.parametrize("rule", ["limit_range", "image_policy"])
def test_what_a_cluster_does_not_admit_is_the_request_s_fault(start, rule):
    """Not the credential's, which would take the network from everybody else."""
    simulator, drive = start("kubernetes")
    offer = drive.offer()
    simulator.fault(rule)
    result = drive.create(offer=offer)
    assert result["error"] == "bad_request" and not result["is_uncertain"], result
    assert not simulator.truth()["live"]


def test_eviction_and_the_end_of_a_command(start):
    simulator, drive = start("kubernetes")
    id = drive.made()
    drive.running(id)
    simulator.fault("evicted")
    instance = drive.describe(id)["instance"]
    assert instance["state"] == "failed" and instance["reason"].startswith("Evicted")
    assert drive.terminate(id)["error"] == "ok"
    assert drive.describe(id)["instance"]["state"] == "stopping"
    drive.gone(id)


def test_tokens_of_lists_that_expire(start):
    simulator, drive = start("kubernetes")
    before = {o["id"]: o["available"] for o in drive.offers()}
    simulator.set(page_size=2)
    for number in range(1, 5):
        drive.made(number)
    simulator.fault("expired_token", op="list")
    assert set(drive.tags()) == {f"{TAG}{n}" for n in range(1, 5)}
    simulator.fault("expired_token", op="offers")
    assert {o["id"]: o["available"] for o in drive.offers()} == before
    simulator.fault("expired_token", count=-1)
    assert drive.call("offers")["error"] == "transient"


def test_logs_go_on_where_they_were_left(start):
    simulator, drive = start("kubernetes")
    id = drive.made()
    drive.running(id)
    whole = "".join(drive.call("logs", id=id)["logs"])
    assert whole.startswith("starting ") and len(whole) > 20
    assert "".join(drive.call("logs", id=id, **{"from": 9})["logs"]) == whole[9:]
    assert "logs" not in drive.call("logs", id=id, **{"from": len(whole)})


def test_a_token_that_is_replaced_in_its_file(start, tmp_path):
    simulator, _ = start("kubernetes")
    token = tmp_path / "token"
    token.write_text("expired\n")
    _, drive = start("kubernetes", credential={}, token_file=str(token))
    assert drive.call("list")["error"] == "bad_credential"
    token.write_text(simulator.key + "\n")
    assert drive.call("list")["error"] == "ok"


@pytest.mark.parametrize("type, url", [("NodePort", "tcp://203.0.113.9:"), ("ClusterIP", f"tcp://{TAG}1.default.svc:8000"),
                                       ("LoadBalancer", "tcp://127.0.0.1:8000")])
def test_where_ports_are(start, type, url):
    _, drive = start("kubernetes", service_type=type, node_host="203.0.113.9")
    id = drive.made()
    drive.running(id)
    endpoint, = drive.describe(id)["instance"]["endpoints"]
    assert endpoint["port"] == 8000 and endpoint["url"].startswith(url)


def test_coreweave(start):
    """Types name the GPU, nodes that are not in production are skipped, what can be taken back is marked."""
    simulator, drive = start("coreweave", **{"price.gd-8xh100ib-i128": "4.25"})
    offers = drive.offers()
    assert {o["gpu"] for o in offers} == {"nvidia/h100-sxm-80", "nvidia/a100-sxm-80", "nvidia/b200-sxm-180"}
    h100 = [o for o in offers if o["gpu"] == "nvidia/h100-sxm-80" and o["gpus"] == 8]
    assert sorted(o["interruptible"] for o in h100) == [False, True]
    assert all(o["price_usd_nano"] == 4_250_000_000 for o in h100)
    id = drive.made(1, offer=next(o for o in h100 if not o["interruptible"]))
    assert drive.running(id)["placement"] == "g1a2b3c"
    id = drive.made(2, offer=next(o for o in h100 if o["interruptible"]))
    instance = drive.running(id, 2)
    assert instance["placement"] == "g1a2b3d" and instance["interruptible"] == 1
