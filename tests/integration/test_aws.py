"""What EC2 has beside the networks that all do alike: markets, reservations, zones, tokens, user data."""

import calendar
import time

import pytest

from test_conformance import GPU_HOUR, ROWS, Drive, Row, Simulator, live

ROW = ROWS["aws"]
KINDS = {"cr": "cr/p5.48xlarge/us-east-1a/cr-00000000000000001", "cb": "cb/p4de.24xlarge/us-east-1a/cr-00000000000000002",
         "ir": "ir/p5.48xlarge/us-east-1b/cr-00000000000000003"}


@pytest.fixture(scope="module")
def simulator():
    world = Simulator(ROW)
    yield world
    world.close()


@pytest.fixture
def world(simulator):
    simulator.reset()
    return simulator


@pytest.fixture
def open_drive(world):
    made = []

    def make(credential=None, **options):
        all_options = {**ROW.options, "price.nvidia/l40s-48": "2", "reserved_price.p4de.24xlarge": "20", **options}
        made.append(Drive(Row("aws", credential={**ROW.credential, **(credential or {})}, options=all_options), world))
        return made[-1]

    yield make
    for drive in made:
        drive.close()


@pytest.fixture
def drive(open_drive):
    return open_drive()


def offers_by_id(drive):
    offers = drive.offers()
    assert len({o["id"] for o in offers}) == len(offers)
    return {o["id"]: o for o in offers}


def is_sent(world, op="create"):
    return len(world.requests(op))


def test_only_reservations_that_can_be_used(drive):
    offers = {id: o for id, o in offers_by_id(drive).items() if id.split("/")[0] in KINDS}
    assert set(offers) == set(KINDS.values())
    assert [offers[KINDS[k]]["available"] for k in ("cr", "cb", "ir")] == [3, 1, 3]
    assert [offers[KINDS[k]]["interruptible"] for k in ("cr", "cb", "ir")] == [False, False, True]
    assert offers[KINDS["cr"]]["price_usd_nano"] == 5 * GPU_HOUR and offers[KINDS["cr"]]["span_max_s"] == 0
    ends = calendar.timegm((2098, 1, 1, 10, 45, 0))  # 45 min before the block's end
    assert abs(offers[KINDS["cb"]]["span_max_s"] - (ends - time.time())) < 60


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_reservation_is_used_until_it_is_full(world, drive, kind):
    offer = offers_by_id(drive)[KINDS[kind]]
    for number in range(offer["available"]):
        drive.made(number, offer=offer)
    full = drive.create(9, offer=offer)
    assert full["error"] == "no_capacity" and not full["is_uncertain"], full
    assert len([i for i in world.truth()["instances"] if i["state"] != "gone"]) == offer["available"]
    assert KINDS[kind] not in offers_by_id(drive)


def test_reservations_that_may_not_be_read_are_none(world, drive):
    with_them = offers_by_id(drive)
    world.set(is_without_reservations=True)
    for _ in range(3):
        assert set(offers_by_id(drive)) == set(with_them) - set(KINDS.values())
    drive.process.stdin.close()
    assert drive.process.stderr.read().count("capacity reservations cannot be read") == 1


def test_prices_by_type_and_by_gpu(drive):
    prices = {id: o["price_usd_nano"] for id, o in offers_by_id(drive).items()}
    assert prices["od/p5.48xlarge//"] == 6_880_000_000  # of the machine, over its GPUs
    assert prices["od/g6e.xlarge//"] == prices["od/g6e.12xlarge//"] == 2 * GPU_HOUR  # of a GPU
    assert prices["spot/g6e.12xlarge/us-east-1a/"] == 1_075_308_750
    assert "od/p4de.24xlarge//" not in prices and "od/g6f.large//" not in prices  # no price; no whole GPU


def test_spot_bids_what_it_may_cost(world, drive):
    offer = offers_by_id(drive)["spot/g6e.12xlarge/us-east-1b/"]
    low = drive.create(1, offer=offer, price_max=offer["price_usd_nano"] - 1)
    assert low["error"] == "price_moved" and not low["is_uncertain"], low
    id = drive.made(1, offer=offer, price_max=offer["price_usd_nano"])
    one, = live(world)
    assert one["interruptible"] and abs(one["price"] * 4 - 4.301235) < 1e-9
    assert drive.running(id)["placement"] == "us-east-1b"
    assert drive.call("stop", id=id, tag="")["error"] == "unsupported"


def test_another_market_than_was_asked_for(world, drive):
    wrong = drive.create(1, offer=offers_by_id(drive)["od/g6.xlarge//"], interruptible=True)
    assert wrong["error"] == "unknown" and wrong["leftover"] == live(world)[0]["id"], wrong


def test_offers_that_are_none(world, drive):
    offer = drive.offer()
    for id in ("od", "od//", "gratis/g6.xlarge//", "/", "spot//us-east-1a/"):
        assert drive.create(1, offer={**offer, "id": id})["error"] == "no_capacity"
    assert is_sent(world) == 0


def test_a_token_is_for_one_order(world, drive):
    offer = drive.offer()
    id = drive.made(1, offer=offer)
    assert drive.made(1, offer=offer) == id
    other = drive.create(1, offer=offer, disk_gib=21)
    assert other["error"] == "unknown" and other["is_uncertain"], other
    drive.running(id)
    assert drive.terminate(id)["error"] == "ok"
    drive.gone(id)
    again = drive.create(1, offer=offer)
    assert again["error"] == "failed" and not again["is_uncertain"], again
    assert list(world.truth()["created"].values()) == [1]


def test_what_was_just_made_may_not_be_found_yet(world, drive):
    offer = drive.offer()
    world.fault("list_lag", op="create", n=2)
    id = drive.made(1, offer=offer)
    assert [drive.describe(id)["error"] for _ in range(3)] == ["not_found", "not_found", "ok"]
    assert drive.about["settle_ms"] >= 30000  # so long a lease does not take it for lost


@pytest.mark.parametrize("code,error", [("Server.InsufficientInstanceCapacity", "no_capacity"), ("Client.VolumeLimitExceeded", "failed")])
def test_one_that_ends_at_once(world, drive, code, error):
    world.set(ends_at_once=code)
    result = drive.create(1)
    assert result["error"] == error and not result["is_uncertain"] and code in result["message"], result
    assert drive.tags() == []


def test_one_that_fails_is_gone_with_a_reason(world, drive):
    offer = drive.offer()
    world.fault("fails", op="create")
    id = drive.made(1, offer=offer)
    assert drive.gone(id)["instance"]["reason"] == "OCI runtime create failed"


def test_user_data_up_to_16_kib(world, drive):
    offer = drive.offer()
    head = "#!/bin/sh\n"
    largest = head + "~~~" * ((16384 - len(head)) // 3)  # in base64 every third character must be escaped
    script = largest + "#" * (16384 - len(largest))
    drive.made(1, offer=offer, script=script)
    assert live(world)[0]["argv"] == ["sh", "-c", script]
    over = drive.create(2, offer=offer, script=script + "#")
    assert over["error"] == "bad_request" and "16 KiB" in over["message"] and not over["is_uncertain"]
    assert is_sent(world) == 1


def test_zones_with_subnets(world, open_drive):
    drive = open_drive(**{"subnet.us-east-1b": "subnet-1"})
    offers = offers_by_id(drive)
    assert {o["zone"] for o in offers.values()} == {"us-east-1b"}
    assert {"od/g6.xlarge/us-east-1b/", "spot/g6.xlarge/us-east-1b/", KINDS["ir"]} < set(offers)


@pytest.mark.parametrize("rubbish", ["<html><body>Sign in</body></html>", "<a/>", "<reservationSet/>", "{}"])
def test_answers_that_are_not_ec2s(world, drive, rubbish):
    """None of them is an empty listing, or says that something was ended or made."""
    id = drive.made(1)
    world.set(rubbish=rubbish)
    for op in ("check", "offers", "list", "describe", "stop", "terminate"):
        assert drive.call(op, id=id, tag="")["error"] == "transient", op
    made = drive.create(2, offer={"id": "od/g6.xlarge//", "gpus": 1, "price_usd_nano": 1, "interruptible": False})
    assert made["error"] == "transient" and made["is_uncertain"]


def test_a_session_token_is_sent_and_signed(open_drive):
    assert open_drive(credential={"session_token": "FwoGZX/+=="}).call("check")["error"] == "ok"


@pytest.mark.parametrize("options,said", [({"region": "US east"}, "options.region is needed"), ({"region": ""}, "options.region is needed"),
                                          ({"zone": "us-east-1a"}, "knows no option")])
def test_configurations_that_are_refused(open_drive, options, said):
    assert said in open_drive(**options).about["error"]


def test_an_image_is_needed(world):
    drive = Drive(Row("aws", credential=ROW.credential, options={"region": "us-east-1"}), world)
    assert "options.ami is needed" in drive.about["error"]
    drive.close()
