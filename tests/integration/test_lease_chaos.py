"""Leases over every network at once, with all faults switched on at random and gateways killed at random.

SLUICE_CHAOS_LEASES=10000 is the whole of it (`make check-leases`); the suite runs some of them.
At the end: nothing runs that no lease owns, no attempt made two, every hold was captured or returned, all accounts sum to
zero, and what failed was free.
"""

import os
import random
import threading
import time
import uuid
from collections import Counter
from decimal import Decimal

import httpx
import pytest

import harness
from harness import wait_until
from simulated import NETWORKS, Simulator

LEASES = int(os.environ.get("SLUICE_CHAOS_LEASES", "64"))
VERBOSE = "SLUICE_CHAOS_VERBOSE" in os.environ
SEED = int(os.environ.get("SLUICE_CHAOS_SEED", "7"))
CALLERS = 8
AT_ONCE = max(160, min(LEASES // 5, 1600))  # leases that are not over, at a time
KILL_EVERY_S = (5.0, 15.0)

FAULTS = [
    {"fault": "latency_ms", "ms": 300, "probability": 0.03},
    {"fault": "rate_limit", "probability": 0.02},
    {"fault": "rate_limit", "retry_after": 1, "probability": 0.01},
    {"fault": "error_500", "probability": 0.03},
    {"fault": "drop_before", "probability": 0.02},
    {"fault": "drop_answer_after_effect", "probability": 0.04},
    {"fault": "garbage_body", "probability": 0.01},
    {"fault": "html_200", "probability": 0.01},
    {"fault": "no_capacity", "op": "create", "probability": 0.08},
    {"fault": "price_moved", "factor": 3, "op": "create", "probability": 0.02},
    {"fault": "stuck_pending", "op": "create", "probability": 0.02},
    {"fault": "fails", "op": "create", "probability": 0.03},
    {"fault": "list_lag", "n": 2, "op": "create", "probability": 0.05},
    {"fault": "vanish", "op": "describe", "probability": 0.004},
    {"fault": "delete_ignored", "op": "terminate", "probability": 0.05},
    {"fault": "delete_refused", "op": "terminate", "probability": 0.05},
    {"fault": "leftover", "op": "create", "probability": 0.02},
]
GPUS = ["rtx4090", "h100", "a100", "l4"]
OVER = ("ended", "failed")


class Caller(threading.Thread):
    """Makes leases over whichever gateway lives, ends some of them early, and sees each to its end."""

    def __init__(self, gateways, tenant, count, seed):
        super().__init__()
        self.gateways, self.tenant, self.count = gateways, tenant, count
        self.random = random.Random(seed)
        self.leases, self.bad = [], []
        self.http = httpx.Client(timeout=15, headers={"Authorization": f"Bearer {tenant.key}"})

    def call(self, method, path, **kwargs):
        """Over any gateway, again until one answers."""
        deadline = time.monotonic() + 120
        while True:
            gateway = self.random.choice(self.gateways)
            try:
                answer = self.http.request(method, gateway.url + path, **kwargs)
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"no gateway answered {method} {path} for two minutes")
            time.sleep(0.1)

    def make(self):
        body = {"gpu": self.random.choice(GPUS), "count": 1, "image": "example.test/x/y:1", "max_price_per_gpu_hour_usd": "30.00", "retry_until_up": self.random.random() < 0.5}
        if self.random.random() < 0.7:
            body["max_duration_s"] = self.random.randint(1, 4)
        answer = self.call("POST", "/api/v1/leases", json=body, headers={"Idempotency-Key": uuid.uuid4().hex})
        if answer.status_code != 202:
            self.bad.append((answer.status_code, answer.text[:300]))
            return None
        return {"id": answer.json()["id"], "ends": self.random.random() < 0.2 or "max_duration_s" not in body}

    def run(self):
        try:
            self.work()
        except Exception as error:  # shown by the test
            self.bad.append(repr(error))

    def work(self):
        open_leases = self.open = []
        while self.count > 0 or open_leases:
            while self.count > 0 and len(open_leases) < AT_ONCE // CALLERS:
                made = self.make()
                self.count -= 1
                if made:
                    open_leases.append(made)
            for lease in list(open_leases):
                row = self.call("GET", f"/api/v1/leases/{lease['id']}").json()
                if row["state"] in OVER:
                    open_leases.remove(lease)
                    self.leases.append(lease["id"])
                elif lease["ends"] and (row["state"] == "active" or self.random.random() < 0.02):
                    self.call("DELETE", f"/api/v1/leases/{lease['id']}")
            time.sleep(1)


class Killer(threading.Thread):
    """Kills a gateway at random, and starts it again."""

    def __init__(self, gateways, seed):
        super().__init__(daemon=True)
        self.gateways, self.random = gateways, random.Random(seed)
        self.is_over = threading.Event()
        self.kills = 0

    def run(self):
        while not self.is_over.wait(self.random.uniform(*KILL_EVERY_S)):
            gateway = self.random.choice(self.gateways)
            gateway.kill()
            self.kills += 1
            self.is_over.wait(self.random.uniform(0.0, 3.0))
            gateway.start(wait=False)
            wait_until(lambda: gateway.http.get("/readyz").status_code == 200, 60, "gateway ready again")


@pytest.fixture
def simulators():
    made = [Simulator(adapter, ["--seed", str(SEED + i)]) for i, adapter in enumerate(NETWORKS)
            if (harness.REPO / "tests/simulators" / NETWORKS[adapter][0]).exists()]
    yield made
    for simulator in made:
        simulator.remove()


LEASE_SETTINGS = {"max_open": 0, "slice": "2s", "watch": "1s", "boot_poll": "200ms", "grace": "2s", "retry": "500ms", "seek": "6s", "silent": "20s",
                  "probing": "2s"}  # machines of VM networks do not run here: they are given up at the door


def start_gateways(simulators, redis_url, make_gateway, **fields):
    rows, env = [], {}
    for simulator in simulators:
        row, variables = simulator.settings(probe="off", options={"pace_percent": "0", "settle_ms": "2000", "boot_ms": "6000",
                                                                         "deadline_ms": "8000"}, **fields)
        rows.append(row)
        env.update(variables)
    config = {"networks": rows, "redis": {"url": redis_url}, "leases": LEASE_SETTINGS}
    return [make_gateway(config=config, env=env) for _ in range(2)]


def all_leases(gateway):
    return harness.all_pages(lambda params: gateway.admin_ok("GET", "/api/v1/leases", params=params))


def tell(gateways):
    try:
        rows = all_leases(gateways[0])
    except httpx.HTTPError:
        return
    print(Counter(r["state"] for r in rows), [(r["id"], r["state"], r["reason"]) for r in rows if r["state"] not in OVER][:3], flush=True)


@pytest.mark.timeout(300 + LEASES)
def test_leases_under_fire(simulators, redis_url, make_gateway):
    gateways = start_gateways(simulators, redis_url, make_gateway)
    tenants = [gateways[0].tenant(credit="1000") for _ in range(2)]
    wait_until(lambda: len(gateways[1].admin_ok("GET", "/api/v1/offers?gpu=rtx4090")["data"]) > 0, 30, "offers")
    for simulator in simulators:
        simulator.ask("POST", "/control/faults", [{"count": -1, **fault} for fault in FAULTS])

    killer = Killer(gateways, SEED)
    killer.start()
    callers = [Caller(gateways, tenants[i % len(tenants)], LEASES // CALLERS, SEED + i) for i in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        while caller.is_alive():
            caller.join(20)
            if VERBOSE:
                tell(gateways)
    killer.is_over.set()
    killer.join(90)
    for simulator in simulators:
        simulator.clear()
    assert [b for caller in callers for b in caller.bad] == []

    for gateway in gateways:  # those that the thread had started died with it
        gateway.kill()
        gateway.start()
    rows = {row["id"]: row for row in all_leases(gateways[0])}
    ids = [i for caller in callers for i in caller.leases]
    assert len(ids) == len(set(ids)) == LEASES // CALLERS * CALLERS
    assert set(ids) == set(rows)

    # Nothing runs that no lease owns, and every lease is over: so nothing runs.
    def leftovers():
        return [(s.adapter, i["id"], i["tag"], i["state"]) for s in simulators for i in s.live()]

    def is_clear():
        left = leftovers()
        assert not left, left[:20]
        return True

    wait_until(is_clear, 180, "nothing runs any more")
    # None was made twice.
    twice = [(s.adapter, tag, n) for s in simulators for tag, n in s.truth()["created"].items() if n > 1]
    assert twice == []

    # The books: what leases say, what balances say, what the ledger says.
    for tenant in tenants:
        wait_until(lambda t=tenant: Decimal(t.balance()["held_usd"]) == 0, 60, "every hold is captured or returned")
    costs = sum(Decimal(row["cost_usd"]) for row in rows.values())
    spent = sum(1000 - Decimal(tenant.balance()["available_usd"]) for tenant in tenants)
    assert costs == spent
    accounts = Counter()
    for entry in gateways[0].ledger():
        assert sum(Decimal(e["amount_usd"]) for e in entry["entries"]) == 0, entry
        for e in entry["entries"]:
            accounts[e["account"]] += Decimal(e["amount_usd"])
    assert sum(accounts.values()) == 0
    for row in rows.values():
        prices = [Decimal(a["price_per_gpu_hour_usd"]) for a in row["attempts"]]
        if row["active_at"] is None:
            assert Decimal(row["cost_usd"]) == 0 and row["billed_ms"] == 0, row
        hours = Decimal(row["billed_ms"]) / 3600000
        assert row["state"] in OVER and Decimal(row["cost_usd"]) <= hours * max(prices, default=0) + Decimal("0.000001"), row
        assert row["billed_ms"] == 0 or Decimal(row["cost_usd"]) >= hours * min(prices) - Decimal("0.000001"), row

    states = Counter(row["state"] for row in rows.values())
    reasons = Counter(row["reason"][:90] for row in rows.values() if row["state"] == "failed")
    errors = Counter(a["error"] for row in rows.values() for a in row["attempts"] if a.get("error"))
    print(f"\n{len(rows)} leases, {dict(states)}, attempts given up {dict(errors)}, {killer.kills} kills, "
          f"made {sum(len(s.truth()['instances']) for s in simulators)} instances, cost {costs} USD, failed because {reasons.most_common(6)}")
    assert states["ended"] > len(rows) * 0.5
