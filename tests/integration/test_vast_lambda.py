"""What only Vast.ai and Lambda Cloud do, beyond what test_conformance.py asks of every network."""

import pytest

from test_conformance import GPU_HOUR, ROWS, TAG, Drive, Simulator, live


@pytest.fixture
def play(request):
    """play("vast", "--pace") -> (simulator, open); open(**options) opens the adapter over it."""
    made = []

    def start(name, *args, **options):
        row = ROWS[name]
        world = Simulator(type("More", (), {**vars(row), "sim": [*row.sim, *args]}))
        made.append(world)
        drive = Drive(row, world, **options)
        made.insert(0, drive)
        return world, drive

    yield start
    for one in made:
        one.close()


def by_id(drive):
    return {offer["id"]: offer for offer in drive.offers()}


def refused(world):
    return [line for line in world.control("GET", "requests")["log"] if line["status"] == 429]


# -- Vast.ai --

def test_vast_lists_asks_and_bids(play):
    world, drive = play("vast")
    offers = by_id(drive)
    assert offers["ask.20412346"]["price_usd_nano"] == 336_700_000 and offers["ask.20412346"]["gpus"] == 2
    bid = offers["bid.20412345"]
    assert bid["price_usd_nano"] == 180_000_000 and bid["interruptible"]
    assert bid["gpu"] == "nvidia/rtx4090-24" and bid["country"] == "SE" and bid["machine"] == "ip:203.0.113.87"
    assert offers["ask.20500002"] and "bid.20500002" not in offers, "no min_bid, no bid"
    assert offers["ask.20500007"]["gpu"] == "", "a laptop's GPU is not the desktop's"
    assert offers["ask.20412345"]["zone"] == offers["ask.20412347"]["zone"] != offers["ask.20500001"]["zone"]


def test_vast_bids_what_was_quoted_and_the_rental_shows_it(play):
    world, drive = play("vast")
    offer = by_id(drive)["bid.20412346"]
    id = drive.made(offer=offer)
    assert drive.running(id)["interruptible"] == 1
    made, = live(world)
    assert made["interruptible"] and made["price"] == pytest.approx(0.18)
    plain = drive.made(2, offer=by_id(drive)["ask.20500001"])
    assert drive.running(plain, 2)["interruptible"] == 0
    mixed = drive.create(3, offer={**offer, "interruptible": False})
    assert mixed["error"] == "bad_request", "a bid is never made for who wants to stay"


def test_vast_bid_below_the_market_leaves_an_instance(play):
    world, drive = play("vast")
    offer = by_id(drive)["bid.20412345"]
    rows = world.control("GET", "offers")["offers"]
    world.control("POST", "offers", [{**row, "min_bid": 5.0} for row in rows])
    result = drive.create(offer=offer)
    assert result["error"] == "price_moved" and result["leftover"] == live(world)[0]["id"], result
    assert drive.terminate(result["leftover"])["error"] == "ok"
    assert not live(world)


def test_vast_slices_of_a_machine_vanish_together(play):
    world, drive = play("vast")
    before = by_id(drive)
    id = drive.made(offer=before["ask.20412345"])
    assert drive.create(2, offer=before["ask.20412347"])["error"] == "no_capacity"
    after = by_id(drive)
    assert {id for id in before if id not in after} == {f"{kind}.2041234{n}" for kind in ("ask", "bid") for n in (5, 6, 7)}
    assert drive.terminate(id)["error"] == "ok"
    again = by_id(drive)
    assert "ask.20412347" in again and "ask.20412345" not in again and len(again) == len(before), "an ask is used once"


def test_vast_takes_no_options_of_docker_for_variables(play):
    world, drive = play("vast")
    result = drive.create(env={"-v /:/host": "1"})
    assert result["error"] == "bad_request" and not result["is_uncertain"]
    assert not world.requests("create")


def test_vast_wrong_key_is_a_404_of_the_search(play):
    world, drive = play("vast", credential={"api_key": "another-key"})
    result = drive.call("offers")
    assert result["error"] == "bad_credential" and result["http_status"] == 404 and "Invalid user key" in result["message"]


def test_vast_is_asked_no_faster_than_it_wants(play):
    world, drive = play("vast", "--pace", pace_percent="100", deadline_ms="30000")
    id = drive.made()
    for _ in range(2):
        assert drive.describe(id)["error"] == "ok"
        assert drive.call("list")["error"] == "ok"
    assert drive.terminate(id)["error"] == "ok"
    assert not refused(world)


def test_vast_outbid_is_stopped(play):
    world, drive = play("vast")
    id = drive.made(offer=by_id(drive)["bid.20412345"])
    drive.running(id)
    assert drive.call("stop", id=id, tag=f"{TAG}1")["error"] == "ok"
    assert drive.describe(id)["instance"]["state"] == "stopped"
    assert drive.tags() == [f"{TAG}1"], "it bills its disk and must be found"


# -- Lambda Cloud --

def test_lambda_types_by_region(play):
    world, drive = play("lambda")
    offers = by_id(drive)
    eight = offers["gpu_8x_h100_sxm5/us-east-1"]
    assert eight["price_usd_nano"] == 299 * GPU_HOUR // 100 and eight["gpus"] == 8 and eight["country"] == "US"
    assert eight["gpu"] == "nvidia/h100-sxm-80" and "gpu_8x_h100_sxm5/us-south-2" in offers
    assert offers["gpu_1x_a100_sxm4/asia-south-1"]["gpu"] == "nvidia/a100-sxm-40"
    assert offers["gpu_1x_gh200/us-east-3"]["is_arm"]
    assert not any("8x_a100_80gb" in id or id.startswith("cpu") for id in offers), "none there, or no GPU"


def test_lambda_refuses_what_it_has_just_listed(play):
    world, drive = play("lambda")
    offer = drive.offer()
    rows = world.control("GET", "offers")["offers"]
    world.control("POST", "offers", [{**row, "regions": []} for row in rows])
    result = drive.create(offer=offer)
    assert result["error"] == "no_capacity" and not result["is_uncertain"], result


def test_lambda_starts_the_script(play):
    world, drive = play("lambda")
    assert drive.create(script="")["error"] == "bad_request"
    assert not world.requests("create")
    drive.made(script="#!/bin/sh\necho from-user-data\n", ports=[8000, 22])
    made, = live(world)
    assert made["argv"][-1] == "#!/bin/sh\necho from-user-data\n"
    one = drive.running(made["id"])
    assert [e["url"] for e in one["endpoints"]] == ["http://198.51.100.2:8000", "http://198.51.100.2:22"]


def test_lambda_ssh_key_is_asked_for(play):
    world, drive = play("lambda")
    refusal = Drive(type("Row", (), {**vars(ROWS["lambda"]), "options": {}}), world)
    assert "option ssh_key is needed" in refusal.about["error"]
    refusal.close()


def test_lambda_is_asked_no_faster_than_it_wants(play):
    world, drive = play("lambda", "--pace", pace_percent="100")
    for _ in range(2):
        drive.offers()
        assert drive.call("list")["error"] == "ok"
    assert not refused(world)
