"""What RunPod, Nosana and io.net do in a way of their own, beyond what test_conformance.py asks of every network."""

import pytest

from test_conformance import ROWS, TAG, Drive, Simulator, live


@pytest.fixture
def opened():
    made = []

    def open_network(name, **options):
        if not made or not isinstance(made[0], Simulator):
            made.insert(0, Simulator(ROWS[name]))
            made[0].reset()
        made.append(Drive(ROWS[name], made[0], **options))
        return made[0], made[-1]

    yield open_network
    for one in reversed(made):
        one.close()


def by(drive, **fields):
    return [o for o in drive.offers() if all(o[key] == value for key, value in fields.items())]


# -- RunPod --


def test_runpod_tells_clouds_and_data_centers_apart(opened):
    _, drive = opened("runpod")
    rows = by(drive, gpu="nvidia/rtx4090-24", gpus=1, interruptible=False)
    assert {(o["origin"], o["region"], o["country"]) for o in rows} == {
        ("secure", "US-KS-2", "US"), ("secure", "EU-RO-1", "RO"), ("community", "", None)}
    assert not by(drive, gpu="nvidia/rtx3070-8")  # a price of 0 where no cloud has it


def test_runpod_rents_by_bid_what_was_listed_as_interruptible(opened):
    world, drive = opened("runpod")
    offer = by(drive, gpu="nvidia/h100-sxm-80", gpus=2, interruptible=True)[0]
    made = drive.create(1, offer)
    assert made["error"] == "ok" and made["instance"]["interruptible"] == 1, made
    one, = live(world)
    assert one["interruptible"] and one["gpus"] == 2 and one["price"] == 1.5
    assert drive.create(2, offer, price_max=1_000_000_000)["error"] == "price_moved"
    result = drive.create(3, offer, price_quoted=100_000_000)  # the floor rose since: GraphQL says so under 200
    assert result["error"] == "price_moved" and not result["is_uncertain"], result


def test_runpod_a_broken_rule_is_no_want_of_capacity(opened):
    world, drive = opened("runpod")
    offer = by(drive, gpu="nvidia/h100-sxm-80", gpus=1, interruptible=False)[0]
    broken = {**offer, "id": offer["id"].replace("H100", "H900")}
    assert drive.create(1, broken)["error"] == "bad_request"
    world.control("POST", "offers", [])
    assert drive.create(2, offer)["error"] in ("bad_request", "no_capacity")
    assert drive.create(3, {**offer, "id": "H100"})["error"] == "bad_request"


def test_runpod_is_not_up_before_its_runtime(opened):
    world, drive = opened("runpod")
    world.set(boot_polls=2)
    id = drive.made()
    said = [drive.describe(id)["instance"] for _ in range(3)]
    assert [(one["state"], one["reason"]) for one in said] == [("pending", "RUNNING")] * 2 + [("running", "RUNNING")]
    assert not said[1]["endpoints"] and said[2]["endpoints"][0]["url"].startswith("tcp://127.0.0.1:")


def test_runpod_a_pod_above_the_cap_is_left_to_be_ended(opened):
    world, drive = opened("runpod")
    offer = drive.offer()
    world.fault("price_moved", op="create", factor=2)
    result = drive.create(1, offer, price_max=offer["price_usd_nano"])
    assert result["error"] == "price_moved" and result["leftover"] == live(world)[0]["id"], result


# -- Nosana --


def test_nosana_asks_users_for_reward_and_fee(opened):
    _, drive = opened("nosana")
    prices = {o["gpu_raw"]: (o["terms"]["amount"], o["gpus"], o["price_usd_nano"]) for o in drive.offers()}
    assert prices == {"NVIDIA 4090": ("0.290906", 1, 290906000), "NVIDIA 5090": ("0.363605", 1, 363605000),
                      "NVIDIA H100": ("1.36356", 1, 1363560000), "NVIDIA A5000": ("1.8", 8, 225000000),
                      "NVIDIA L40S": ("0.6", 1, 600000000)}  # neither community nor null prices


@pytest.mark.parametrize("fault", ["drop_answer_after_effect", "drop_before", "error_500"])
def test_nosana_a_draft_is_found_and_ended(opened, fault):
    world, drive = opened("nosana")
    offer = drive.offer()
    world.fault(fault, op="start")
    result = drive.create(1, offer)
    assert result["error"] == "transient" and result["leftover"], result
    one, = drive.call("list")["instances"]
    assert one["id"] == result["leftover"] and one["tag"] == f"{TAG}1"
    assert one["state"] == ("pending" if fault == "drop_answer_after_effect" else "failed")
    assert drive.terminate(one["id"])["error"] == "ok"
    assert not live(world)
    assert all(made["state"] != "running" for made in world.truth()["instances"])


def test_nosana_bounds_what_it_starts_and_publishes_nothing(opened):
    world, drive = opened("nosana")
    assert drive.create(1, span_s=7201)["instance"]["price_usd_nano"] == drive.offer()["price_usd_nano"]
    made, = live(world)
    shown, = world.control("GET", "more")["more"]
    assert shown["timeout"] == 121 and shown["strategy"] == "SIMPLE" and shown["confidential"] is True
    assert made["argv"][:2] == ["/bin/sh", "-c"] and made["env"] == ["MODE", "TOKEN"]


def test_nosana_a_market_that_closed_or_rose(opened):
    world, drive = opened("nosana")
    offer = drive.offer()
    world.fault("price_moved", factor=2)
    assert drive.create(1, offer, price_max=offer["price_usd_nano"])["error"] == "price_moved"
    world.control("POST", "offers", [])
    assert drive.create(1, offer)["error"] == "no_capacity"
    assert not live(world) and not drive.tags()


# -- io.net --


def test_ionet_prices_are_of_a_span(opened):
    world, drive = opened("ionet")
    offer = by(drive, gpu="nvidia/h100-pcie-80", gpus=8, region="US")[0]
    assert offer["terms"]["per"] == "span" and offer["terms"]["amount"] == "15.92"
    assert offer["price_usd_nano"] == 1_990_000_000 and not offer["is_estimate"]
    assert by(drive, gpu="nvidia/h100-pcie-80", gpus=8, region="NO")[0]["is_estimate"]
    assert not by(drive, gpu="nvidia/a100-sxm-80")  # nobody has one
    assert drive.create(1, offer, price_max=1_989_999_999)["error"] == "price_moved"
    made = drive.create(1, offer, price_max=1_990_000_000, span_s=5401)
    assert made["error"] == "ok" and made["instance"]["price_usd_nano"] == 1_990_000_000, made
    assert [line["path"].split("duration_hours=")[1][:1] for line in world.requests("price")[-2:]] == ["1", "2"]


def test_ionet_ids_are_numbers_or_texts(opened):
    world, drive = opened("ionet")
    for number, gpu in ((1, "nvidia/rtxa6000-48"), (2, "nvidia/rtx4090-24")):
        assert drive.create(number, by(drive, gpu=gpu, gpus=1)[0])["error"] == "ok"
    assert len([i for i in world.truth()["instances"] if i["state"] != "gone"]) == 2


def test_ionet_ends_by_itself_and_is_remembered(opened):
    world, drive = opened("ionet")
    id = drive.made()
    drive.running(id)
    world.control("POST", "vanish", {"id": id})
    assert drive.describe(id)["instance"]["state"] == "gone" and drive.describe(id)["instance"]["reason"] == "completed"
    assert drive.tags() == [] and drive.terminate(id)["error"] == "ok"


def test_ionet_a_name_that_is_taken_is_ours(opened):
    _, drive = opened("ionet")
    drive.made(1)
    again = drive.create(1)
    assert again["error"] == "transient" and again["is_uncertain"] and "exists" in again["message"], again
    assert drive.tags() == [f"{TAG}1"]
