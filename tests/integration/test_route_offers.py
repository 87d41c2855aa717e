"""Ranking as a caller sees it: preferences, constraints, affinity, the dry run, the offers."""

import collections
from decimal import Decimal

import pytest

import harness
from harness import error_of, wait_until


THREE = [{"price": "0.50", "region": "eu-west", "gpu": "nvidia/rtx4090-24", "delay_ms": 250},
         {"price": "1.00", "region": "us-east", "gpu": "nvidia/a100-sxm-80", "delay_ms": 80},
         {"price": "3.00", "region": "eu-west", "gpu": "nvidia/h100-sxm-80", "delay_ms": 0}]


@pytest.fixture
def three(make_fleet):
    """Cheap and slow, middling, dear and fast; and they have served enough that their latency is known."""
    return make_fleet(workers=THREE)


@pytest.fixture(scope="module")
def trusting():
    """A gateway that asks for no proof: there workers are sold as what they say they are."""
    gateway = harness.Gateway(config={"probes": {"admission": "off"}}).start()
    yield gateway
    gateway.remove()


@pytest.fixture
def claims(make_fleet, trusting):
    return make_fleet(workers=THREE, on=trusting)


@pytest.fixture
def buyer(trusting):
    return trusting.tenant()


def ask(tenant, fleet, headers=None, **fields):
    return tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields), headers=headers or {})


def route(tenant, fleet, headers=None, **fields):
    answer = tenant.call("POST", "/api/v1/route", json=fleet.chat(**fields), headers=headers or {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def worker_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.headers["x-sluice-worker"]


def test_preference_chooses(tenant, three):
    cheap, _, fast = [w.id for w in three.workers]
    assert {worker_of(ask(tenant, three, {"x-sluice-prefer": "price"})) for _ in range(5)} == {cheap}
    # On a busy machine one late answer of the fast one sends a call elsewhere until it has made up for it.
    wait_until(lambda: {worker_of(ask(tenant, three, {"x-sluice-prefer": "latency"})) for _ in range(5)} == {fast}, 20, "latency is learnt")
    assert worker_of(ask(tenant, three, {"x-sluice-prefer": "price=1,latency=0,reputation=0"})) == cheap


@pytest.mark.parametrize("prefer", ["price", "latency", "reputation", "balanced", "price=0.6,latency=0.3,reputation=0.1", "price=1"])
def test_dry_run_is_sorted_and_explained(tenant, three, prefer):
    before = three.seen()
    got = route(tenant, three, {"x-sluice-prefer": prefer})
    scores = [c["score"] for c in got["candidates"]]
    assert scores == sorted(scores) and len(scores) == 3 and got["rejected"] == []
    for candidate in got["candidates"]:
        assert set(candidate["parts"]) == {"price", "latency", "reputation"}
        assert all(0 <= v <= 1 for v in candidate["parts"].values())
    if prefer == "price":
        assert [c["worker"] for c in got["candidates"]] == [w.id for w in three.workers]
        assert all(abs(c["score"] - c["parts"]["price"]) < 1e-6 for c in got["candidates"])
    assert three.seen() == before
    assert tenant.requests_billed() == 0


def test_model_alone_is_enough_for_a_dry_run(tenant, three):
    got = tenant.call("POST", "/api/v1/route", json={"model": three.model}).json()
    assert len(got["candidates"]) == 3


@pytest.mark.parametrize("headers,fit", [
    ({"x-sluice-max-price": "1.00"}, [0, 1]), ({"x-sluice-max-price": "0.999999999"}, [0]), ({"x-sluice-max-price": "0.5"}, [0]),
    ({"x-sluice-region": "eu-west"}, [0, 2]), ({"x-sluice-region": "eu-west", "x-sluice-max-price": "1"}, [0]),
    ({"x-sluice-max-price": "0.499999999"}, []), ({"x-sluice-region": "mars"}, []), ({"x-sluice-require": "hipaa"}, [])], ids=str)
def test_constraints(tenant, three, headers, fit):
    ids = [w.id for w in three.workers]
    got = route(tenant, three, headers)
    assert sorted(c["worker"] for c in got["candidates"]) == sorted(ids[i] for i in fit)
    assert sorted(r["worker"] for r in got["rejected"]) == sorted(set(ids) - {ids[i] for i in fit})
    assert all(r["reason"] for r in got["rejected"])
    if fit:
        served = {worker_of(ask(tenant, three, {**headers, "x-sluice-prefer": p})) for p in ("price", "latency", "balanced")}
        assert served <= {ids[i] for i in fit}
    else:
        before = three.seen()
        answer = ask(tenant, three, headers)
        assert error_of(answer, 503)["code"] == "no_worker_matches"
        assert answer.headers["x-should-retry"] == "false"
        assert three.seen() == before


def test_compliance_tags(tenant, make_fleet):
    fleet = make_fleet(workers=[{"price": "0.10"}, {"price": "0.20", "tags": "gdpr"}, {"price": "0.30", "tags": "gdpr,hipaa"}])
    ids = [w.id for w in fleet.workers]
    for require, fit in (("gdpr", ids[1:]), ("gdpr,hipaa", ids[2:]), ("hipaa", ids[2:]), ("soc2", [])):
        got = route(tenant, fleet, {"x-sluice-require": require})
        assert sorted(c["worker"] for c in got["candidates"]) == sorted(fit)
        answer = ask(tenant, fleet, {"x-sluice-require": require, "x-sluice-prefer": "price"})
        assert worker_of(answer) == fit[0] if fit else answer.status_code == 503


def test_constraint_holds_for_failover_too(tenant, three):
    three.servers[0].fault(count=-1, status=500, body="x")
    for _ in range(4):
        answer = ask(tenant, three, {"x-sluice-max-price": "0.50"})
        error_of(answer, 502)
    assert three.seen()[1:] == [0, 0]


@pytest.mark.parametrize("name,values", [
    ("x-sluice-prefer", ["cheap", "price=", "price=-1", "price=x", "price=0.5,price=0.5", "price=0.5;latency=0.5", "speed=1", "price=nan", "price=inf",
                         "price=0,latency=0,reputation=0"]),
    ("x-sluice-max-price", ["-1", "x", "1e3", "", "1.0000000001", "12345678901", "+1", "$1"])])
def test_bad_values(tenant, fleet, name, values):
    for value in values:
        for path in ("/v1/chat/completions", "/api/v1/route"):
            answer = tenant.call("POST", path, json=fleet.chat(), headers={name: value})
            assert answer.status_code == 400, (value, path, answer.text)
            assert error_of(answer, 400)["param"] == name


def test_session_stays_with_its_worker(tenant, make_fleet):
    fleet = make_fleet(3, price="1.00")
    for headers, fields in (({"x-session-id": "s-1"}, {}), ({}, {"prompt_cache_key": "p-1"}), ({}, {"user": "u-1"}), ({}, {})):
        served = collections.Counter(worker_of(ask(tenant, fleet, headers, **fields)) for _ in range(8))
        assert len(served) == 1, (headers, fields, served)


def test_sessions_spread(tenant, make_fleet):
    fleet = make_fleet(3, price="1.00")
    served = collections.Counter(worker_of(ask(tenant, fleet, {"x-session-id": f"s-{n}"})) for n in range(40))
    assert len(served) == 3 and min(served.values()) >= 3, served


def test_affinity_yields_to_load(gateway, tenant, make_fleet):
    import threading
    fleet = make_fleet(2, price="1.00", slots=1)
    home = worker_of(ask(tenant, fleet, {"x-session-id": "s"}))
    fleet.server_of(home).fault(head_delay_ms=1500)
    thread = threading.Thread(target=lambda: ask(tenant, fleet, {"x-session-id": "s"}))
    thread.start()
    wait_until(lambda: fleet.server_of(home).state()["active"] == 1, 5, "home is busy")
    assert worker_of(ask(tenant, fleet, {"x-session-id": "s"})) != home
    thread.join()


def test_load_spreads_over_equal_workers(tenant, make_fleet):
    import threading
    fleet = make_fleet(3, price="1.00", slots=4)
    for server in fleet.servers:
        server.fault(count=-1, head_delay_ms=100)
    served = collections.Counter()

    def caller(n):
        for m in range(6):
            served[worker_of(ask(tenant, fleet, {"x-session-id": f"{n}-{m}"}))] += 1

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) == 3 and min(served.values()) >= 9, served


# -- offers ------------------------------------------------------------------------------------------------------------


def offers(buyer, **params):
    """The offers of the three workers of this test, in the order given; others' offers are left out."""
    answer = buyer.call("GET", "/api/v1/offers", params={"limit": 200, **params})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    keyed = {(Decimal(worker["price"]), worker["gpu"]): i for i, worker in enumerate(THREE)}
    return [(keyed[key], row) for row in rows if (key := (Decimal(row["price_per_gpu_hour_usd"]), row["gpu_claimed"])) in keyed]


def test_offers_have_their_fields(buyer, claims):
    found = dict(offers(buyer, explain=1))
    assert sorted(found) == [0, 1, 2]
    row = found[2]
    assert set(row) >= {"id", "network", "gpu", "gpu_raw", "count", "vram_gib", "region", "price_per_gpu_hour_usd", "interruptible",
                        "reputation", "latency_ms", "observed_at", "score", "parts"}
    assert row["network"] == "native" and row["region"] == "eu-west" and row["count"] == 1 and row["vram_gib"] == 80
    assert set(row["parts"]) == {"price", "latency", "reputation"}
    assert row["gpu"] == row["gpu_claimed"] and row["performance"] == 1
    assert Decimal(row["effective_price_per_gpu_hour_usd"]) == 3
    assert set(row["reputation_parts"]) == {"hardware", "correctness", "availability", "network"}
    assert not {"parts", "reputation_parts"} & set(dict(offers(buyer))[2])


def test_workers_are_sold_as_what_they_prove(gateway, tenant, three):
    """Who claims a GPU and proves to be a machine without one is offered as that."""
    # The score of a proof is told a moment after its verdict.
    found = wait_until(lambda: (f := dict(offers(tenant, explain=1))) and all(r["reputation"] > 0.4 for r in f.values()) and f, 10, "scored")
    assert sorted(found) == [0, 1, 2]
    for i, worker in enumerate(three.workers):
        row, seen = found[i], gateway.worker(worker.id)
        assert row["gpu"] == seen["gpu"] == seen["gpu_proven"] == "cpu"
        assert row["gpu_claimed"] == seen["gpu_claimed"] == THREE[i]["gpu"] and row["vram_gib"] < 1
        assert seen["proven_at"] > 1.6e12 and seen["banned_until"] is None
        parts = seen["reputation_parts"]
        assert parts["hardware"]["good"] > 2.9 and parts["hardware"]["bad"] == 0
        assert 0.4 < seen["reputation"] <= min(parts["hardware"]["score"], parts["correctness"]["score"])
        assert abs(row["reputation_parts"]["hardware"] - parts["hardware"]["score"]) < 0.01
    assert not {row["id"] for row in tenant.call("GET", "/api/v1/offers", params={"gpu": "h100"}).json()["data"]} & {w.id for w in three.workers}


@pytest.mark.parametrize("params,fit", [
    ({"gpu": "h100"}, [2]), ({"gpu": "H100"}, [2]), ({"gpu": "RTX 4090"}, [0]), ({"gpu": "nvidia/a100-sxm-80"}, [1]), ({"gpu": "h200"}, []),
    ({"region": "eu-west"}, [0, 2]), ({"max_price": "1"}, [0, 1]), ({"max_price": "0.49"}, []), ({"min_vram_gib": 48}, [1, 2]),
    ({"network": "native"}, [0, 1, 2]), ({"network": "vast"}, []), ({"count": 2}, []), ({"count": 1}, [0, 1, 2]),
    ({"require": "hipaa"}, [])], ids=str)
def test_offer_filters(buyer, claims, params, fit):
    assert sorted(i for i, _ in offers(buyer, **params)) == fit


def test_offer_sorting(buyer, claims):
    assert [i for i, _ in offers(buyer, sort="price")] == [0, 1, 2]
    assert [i for i, _ in offers(buyer, prefer="price")] == [0, 1, 2]
    scores = [r["score"] for _, r in offers(buyer)]
    assert scores == sorted(scores)


def test_offer_pages(buyer, claims):
    whole = [r["id"] for r in buyer.call("GET", "/api/v1/offers", params={"limit": 200, "sort": "price"}).json()["data"]]
    paged, cursor = [], None
    while True:
        page = buyer.call("GET", "/api/v1/offers", params={"limit": 2, "sort": "price", **({"cursor": cursor} if cursor else {})}).json()
        assert len(page["data"]) <= 2
        paged += [r["id"] for r in page["data"]]
        cursor = page.get("next")
        if not cursor:
            break
    assert paged == whole and len(set(paged)) == len(paged)


@pytest.mark.parametrize("query,param", [({"count": "x"}, "count"), ({"count": "-1"}, "count"), ({"max_price": "cheap"}, "max_price"),
                                         ({"sort": "colour"}, "sort"), ({"limit": "0"}, "limit"), ({"limit": "99999999999"}, "limit"),
                                         ({"min_vram_gib": "lots"}, "min_vram_gib"), ({"prefer": "x"}, "prefer"), ({"nonsense": "1"}, "nonsense"),
                                         ({"interruptible": "maybe"}, "interruptible"), ({"cursor": "@@@"}, "cursor")])
def test_nonsense_in_an_offer_query(tenant, query, param):
    assert error_of(tenant.call("GET", "/api/v1/offers", params=query), 400)["param"] == param
