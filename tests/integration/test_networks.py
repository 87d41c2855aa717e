"""Networks as operators and callers see them: offers of fake networks, who polls them, breakers, orphans."""

import json
import subprocess
import time

import pytest
import redis

import harness
from harness import wait_until


class Fake:
    """The folder of a fake network, and its row of a configuration."""

    def __init__(self, directory, id="fake", **fields):
        self.directory, self.id = directory, id
        directory.mkdir()
        self.row = {"id": id, "adapter": "fake", "base_url": f"dir://{directory}", "poll_s": 1, "reconcile_s": 1,
                    "orphan_grace_s": 2, **fields}

    def _write(self, name, value):
        (self.directory / ".new").write_text(json.dumps(value))
        (self.directory / ".new").rename(self.directory / name)

    def offers(self, *offers):
        self._write("offers.json", [{"id": f"o{i}", "gpu": "NVIDIA GeForce RTX 4090", "gpus": 1, "price": "0.50", "region": "eu-north",
                                     "country": "SE", "stock": 4, "interruptible": False, **o} for i, o in enumerate(offers)])

    def faults(self, *faults):
        self._write("faults.json", [{"count": -1, **f} for f in faults])

    def instance(self, id, tag):
        (self.directory / "instances").mkdir(exist_ok=True)
        path = self.directory / "instances" / f"{id}.json"
        path.write_text(json.dumps({"id": id, "tag": tag, "offer": "o0", "gpu": "NVIDIA GeForce RTX 4090", "region": "eu-north", "gpus": 1,
                                    "price_usd_nano": 500000000, "interruptible": False, "state": "running", "reason": "", "looks": 5, "lag": 0,
                                    "is_stuck": False, "fails": False, "created_ms": int(time.time() * 1000), "image": "x", "ports": []}))
        return path


@pytest.fixture
def make_fake(tmp_path):
    def make(id="fake", *offers, **fields):
        fake = Fake(tmp_path / id, id, **fields)
        if offers:
            fake.offers(*offers)
        return fake
    return make


def row_of(gateway, id="fake"):
    return next(n for n in gateway.admin_ok("GET", "/api/v1/networks")["data"] if n["id"] == id)


def offers_of(gateway, **params):
    return gateway.admin_ok("GET", "/api/v1/offers", params={"sort": "price", **params})["data"]


def prices(gateway, **params):
    return [o["price_per_gpu_hour_usd"] for o in offers_of(gateway, **params)]


def test_offers_of_a_network(make_gateway, make_fake):
    """With our markup, its own spelling and terms; unknown GPUs only to who asks for them."""
    fake = make_fake("fake", {"price": "0.50"}, {"price": "0.20", "gpu": "Voodoo 2"}, {"gpu": "NVIDIA H100 80GB HBM3", "gpus": 8, "price": "2.00"},
                     {"price": "9.99"}, markup_bps=1000, probe="report", max_price_per_gpu_hour_usd="5.00")
    gateway = make_gateway(config={"networks": [fake.row]})
    wait_until(lambda: prices(gateway) == ["0.55", "2.20"], 15, "offers")
    first = offers_of(gateway, gpu="4090", region="se", explain=1)[0]
    assert first["network"] == "fake" and first["gpu"] == "nvidia/rtx4090-24" and first["gpu_raw"] == "NVIDIA GeForce RTX 4090"
    assert first["id"].startswith("off_") and first["unproven"] and first["available"] == 4 and first["country"] == "SE"
    assert first["terms"]["amount"] == "0.50" and first["expires_at"] == first["observed_at"] + 15000
    assert offers_of(gateway, gpu="4090")[0]["id"] == first["id"]
    unknown = offers_of(gateway, gpu="unknown")
    assert [o["gpu_raw"] for o in unknown] == ["Voodoo 2"] and unknown[0]["gpu"] == "unknown"
    row = row_of(gateway)
    assert row["state"] == "ok" and row["offers"] == 3 and row["unknown_gpus"] == 1 and row["last_error"] is None
    assert row["last_poll_at"] and row["poller"].startswith("gwy_") and row["breaker"]["state"] == "closed"
    assert gateway.metric("sluice_offers", network="fake") == 3 and gateway.metric("sluice_unknown_gpus", network="fake") == 1
    assert gateway.metric("sluice_network_up", network="fake") == 1
    fake.offers({"price": "0.40"})
    wait_until(lambda: prices(gateway) == ["0.44"], 15, "what changed and what went")
    assert offers_of(gateway)[0]["id"] == first["id"]


def test_one_machine_on_two_networks(make_gateway, make_fake):
    """Shown once, where it is cheaper; to who names a network also there. Gone there, the other one is shown."""
    one = make_fake("one", {"machine": "ip:203.0.113.7", "price": "0.60"}, {"machine": "ip:203.0.113.8", "price": "0.70"})
    two = make_fake("two", {"machine": "ip:203.0.113.7", "price": "0.55"})
    gateway = make_gateway(config={"networks": [one.row, two.row]})
    wait_until(lambda: prices(gateway) == ["0.55", "0.70"], 15, "both are seen")
    assert offers_of(gateway)[0]["also"] == ["one"] and offers_of(gateway)[0]["network"] == "two"
    assert prices(gateway, network="one") == ["0.60", "0.70"]
    two.faults({"fault": "error_500"})
    wait_until(lambda: prices(gateway) == ["0.60", "0.70"], 20, "the other one is shown")


def test_one_polls_for_all_and_another_takes_over(make_gateway, make_fake, redis_url):
    fake = make_fake("fake", *({"price": f"{1 + i / 100:.2f}"} for i in range(300)))
    config = {"networks": [fake.row], "redis": {"url": redis_url}}
    gateways = [make_gateway(config=config), make_gateway(config=config)]
    for gateway in gateways:
        wait_until(lambda: row_of(gateway)["offers"] == 300 and len(offers_of(gateway, limit=1000)) == 300, 20, "offers on both")
    pollers = {row_of(g)["poller"] for g in gateways}
    assert len(pollers) == 1
    polls = [g for g in gateways if "this gateway polls network fake" in g.log()]
    assert len(polls) == 1
    other = next(g for g in gateways if g is not polls[0])
    fake.offers({"price": "0.10"}, *({} for _ in range(9)))
    wait_until(lambda: prices(other)[0] == "0.10" and len(prices(other)) == 10, 15, "the other follows")
    polls[0].kill()
    wait_until(lambda: row_of(other)["poller"] not in (None, *pollers), 25, "another polls")
    fake.offers({"price": "0.20"})
    wait_until(lambda: prices(other) == ["0.20"], 15, "it looks")
    third = make_gateway(config=config)  # knows all though nothing changes
    wait_until(lambda: prices(third) == ["0.20"], 15, "a new one knows all")
    poller = row_of(other)["poller"]
    other.stop()  # resigns
    wait_until(lambda: row_of(third)["poller"] not in (None, poller), 6, "at once")


def test_breaker_opens_and_heals(make_gateway, make_fake):
    fake = make_fake("fake", {"price": "0.50"})
    gateway = make_gateway(config={"networks": [fake.row]})
    wait_until(lambda: prices(gateway) == ["0.50"], 15, "offers")
    fake.faults({"fault": "error_500"})
    wait_until(lambda: row_of(gateway)["state"] == "down", 20, "the breaker opens")
    row = row_of(gateway)
    assert row["breaker"]["state"] in ("open", "half_open") and row["breaker"]["reason"] == "transient" and row["errors"]["transient"] >= 3
    assert "fake" in row["last_error"] and "internal error" in row["last_error"]
    assert offers_of(gateway) == [] and gateway.metric("sluice_network_up") == 0
    assert gateway.metric("sluice_network_errors_total", network="fake", **{"class": "transient"}) >= 3
    fake.faults()
    wait_until(lambda: row_of(gateway)["state"] == "ok" and prices(gateway) == ["0.50"], 40, "it heals")
    assert row_of(gateway)["breaker"] == {"state": "closed", "failures": 0, "until_at": None, "reason": None}


def test_wrong_credential(make_gateway, make_fake):
    """Says which network, what it answered, and what to do; nothing of it is sold."""
    fake = make_fake("fake", {"price": "0.50"}, credential={"api_key": "env:FAKE_KEY"})
    (fake.directory / "key").write_text("right\n")
    gateway = make_gateway(config={"networks": [fake.row]}, env={"FAKE_KEY": "wrong"})
    wait_until(lambda: row_of(gateway)["state"] == "refused", 15, "refused")
    row = row_of(gateway)
    assert row["breaker"]["reason"] == "bad_credential" and row["breaker"]["until_at"] > time.time() * 1000 + 30000
    assert "fake" in row["last_error"] and "unknown key" in row["last_error"] and "credential" in row["last_error"]
    assert "wrong" not in gateway.log() and offers_of(gateway) == []


def test_offers_grow_old(make_gateway, make_fake):
    fake = make_fake("fake", {"price": "0.50"}, offers_ttl_s=2, poll_s=1)
    gateway = make_gateway(config={"networks": [fake.row]})
    wait_until(lambda: prices(gateway) == ["0.50"], 15, "offers")
    fake.faults({"fault": "latency_ms", "ms": 8000, "op": "offers"})
    wait_until(lambda: offers_of(gateway) == [], 10, "too old to be shown")
    assert row_of(gateway)["state"] == "stale" and row_of(gateway)["offers"] == 1


def test_orphans_are_ended(make_gateway, make_fake, redis_url):
    """What runs under our tags and no lease owns is ended after its grace, again until it is gone; other tags are not ours."""
    fake = make_fake("fake", {"price": "0.50"})
    config = {"networks": [fake.row], "redis": {"url": redis_url}}
    gateways = [make_gateway(config=config), make_gateway(config=config)]
    store = redis.Redis(unix_socket_path=redis_url.removeprefix("unix://"))
    installation = wait_until(lambda: store.get("sl:installation"), 10, "installation").decode()
    wait_until(lambda: row_of(gateways[0])["state"] == "ok", 15, "polled")
    lease = "01jd" + "0" * 22
    fake.faults({"fault": "delete_ignored", "op": "terminate", "count": 3})
    ours, others = fake.instance("orphan1", f"sluice-{installation}-{lease}-1"), fake.instance("other", f"sluice-ffffff-{lease}-1")
    begun = time.monotonic()
    wait_until(lambda: not ours.exists(), 30, "the orphan is ended, though the network first only said so")
    assert time.monotonic() - begun > 2
    wait_until(lambda: all(row_of(g)["orphans_ended"] == 1 for g in gateways), 15, "it is counted once")
    assert others.exists()
    assert sum(g.log().count("no lease owns it") for g in gateways) == 1
    assert sum(g.log().count("it is ended again") for g in gateways) >= 1
    assert store.hlen("sl:{net:fake}:orphans") == 0
    assert gateways[0].metric("sluice_orphans_ended_total", network="fake") == 1


def test_what_a_lease_owns_is_left_alone(make_gateway, make_fake, redis_url):
    """Until the lease is no more: then it is an orphan like any other."""
    fake = make_fake("fake", {"price": "0.50"}, probe="off", orphan_grace_s=0)
    gateway = make_gateway(config={"networks": [fake.row], "redis": {"url": redis_url}})
    store = redis.Redis(unix_socket_path=redis_url.removeprefix("unix://"))
    wait_until(lambda: prices(gateway) == ["0.50"], 15, "offers")
    tenant = gateway.tenant()
    answer = tenant.call("POST", "/api/v1/leases", json={"gpu": "4090", "count": 1, "image": "x"}, headers={"Idempotency-Key": "a"})
    assert answer.status_code == 202, answer.text
    running = wait_until(lambda: list((fake.directory / "instances").glob("*.json")), 20, "it is created")
    assert len(running) == 1
    polled = row_of(gateway)["last_poll_at"]
    wait_until(lambda: row_of(gateway)["last_poll_at"] > polled + 5000, 20, "five rounds of the reconciler")
    assert running[0].exists() and "no lease owns it" not in gateway.log()
    wait_until(lambda: store.delete(*store.keys("sl:{lse:*")) or not running[0].exists(), 30, "without its lease it is ended")
    wait_until(lambda: row_of(gateway)["orphans_ended"] >= 1, 15, "and counted")


def test_a_gateway_that_stops_waits_for_what_it_asked(make_gateway, make_fake, redis_url):
    """A machine that is being made when the gateway is told to stop is known to who takes the lease over."""
    fake = make_fake("fake", {"price": "0.50"}, probe="off")
    gateway = make_gateway(config={"networks": [fake.row], "redis": {"url": redis_url}})
    store = redis.Redis(unix_socket_path=redis_url.removeprefix("unix://"))
    wait_until(lambda: prices(gateway) == ["0.50"], 15, "offers")
    fake.faults({"fault": "latency_ms", "ms": 1500, "op": "create"})
    tenant = gateway.tenant()
    answer = tenant.call("POST", "/api/v1/leases", json={"gpu": "4090", "count": 1, "image": "x"})
    assert answer.status_code == 202, answer.text
    attempt = lambda: json.loads(store.hget(store.keys("sl:{lse:*}:l:*")[0], "record"))["attempts"][-1]
    wait_until(lambda: attempt()["state"] == "creating", 20, "it is being made")
    gateway.stop()
    running, = (fake.directory / "instances").glob("*.json")
    assert attempt()["state"] == "booting" and attempt()["instance"] == running.stem


def test_two_networks_of_one_account(make_gateway, make_fake, redis_url):
    """Each lists the other's machines: what a lease owns is nobody's orphan, by whichever name it was made."""
    fake = make_fake("fake", {"price": "0.50"}, probe="off", orphan_grace_s=600)
    other = {**fake.row, "id": "twin"}
    gateway = make_gateway(config={"networks": [fake.row, other], "redis": {"url": redis_url}})
    store = redis.Redis(unix_socket_path=redis_url.removeprefix("unix://"))
    installation = wait_until(lambda: store.get("sl:installation"), 10, "installation").decode()
    wait_until(lambda: len(prices(gateway)) == 2, 15, "offers")
    tenant = gateway.tenant()
    answer = tenant.call("POST", "/api/v1/leases", json={"gpu": "4090", "count": 1, "image": "x", "network": "fake"})
    assert answer.status_code == 202, answer.text
    running = wait_until(lambda: list((fake.directory / "instances").glob("*.json")), 20, "it is created")
    fake.instance("stray", f"sluice-{installation}-{'01jd' + '0' * 22}-1")
    orphans = lambda id: [field.decode().split()[1] for field in store.hkeys(f"sl:{{net:{id}}}:orphans")]
    wait_until(lambda: all("stray" in orphans(id) for id in ("fake", "twin")), 30, "both have seen the stray one")
    assert orphans("fake") == orphans("twin") == ["stray"], running


@pytest.mark.parametrize("row,words", [
    ({"adapter": "fast"}, ["networks[0].adapter", "fast", "fake"]), ({"adapter": "fake"}, ["n1", "dir://"]),
    ({"adapter": "fake", "base_url": "dir:///nowhere/at/all"}, ["folder"]),
    ({"adapter": "fake", "base_url": "dir:///tmp", "options": {"colour": "red"}}, ["colour"])], ids=str)
def test_a_configuration_that_is_refused(make_gateway, row, words):
    gateway = make_gateway(start=False, config={"networks": [{"id": "n1", **row}]})
    with pytest.raises(AssertionError):
        gateway.start()
    for word in words:
        assert word in gateway.log(), gateway.log()
