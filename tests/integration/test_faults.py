"""Processes are killed at random in the middle of the work; then the books must balance."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from decimal import Decimal

import httpx
import pytest

import harness
from harness import wait_until

REQUESTS = int(os.environ.get("SLUICE_FAULT_REQUESTS", "1000"))
CALLERS = 10


class Caller(threading.Thread):
    """Sends its share of the calls, one at a time, and notes how each ended for it."""

    def __init__(self, gateway, tenant, model, count, seed):
        super().__init__()
        self.gateway, self.tenant, self.model, self.count = gateway, tenant, model, count
        self.random = random.Random(seed)
        self.outcomes = Counter()
        self.costs = Decimal(0)
        self.bad = []

    def run(self):
        with httpx.Client(base_url=self.gateway.url, timeout=20, headers={"Authorization": f"Bearer {self.tenant.key}"}) as http:
            for _ in range(self.count):
                self.one(http)

    def one(self, http):
        stream = self.random.random() < 0.5
        body = {"model": self.model, "messages": [{"role": "user", "content": "count"}], "max_tokens": 10, "stream": stream,
                "user": f"u{self.random.randrange(50)}"}
        try:
            answer = http.post("/v1/chat/completions", json=body)
        except httpx.ConnectError:
            self.outcomes["refused"] += 1  # the gateway was down: the call never began, so it is made again
            time.sleep(0.05)
            return self.one(http)
        except httpx.HTTPError:
            self.outcomes["broken"] += 1  # begun, and it may or may not have been answered in full
            return
        if answer.status_code != 200:
            self.outcomes["failed"] += 1
            if answer.status_code not in (404, 429, 502, 503):
                self.bad.append((answer.status_code, answer.text[:300]))
            return
        text = answer.text
        if stream:
            is_whole = text.endswith("data: [DONE]\n\n")
            if not is_whole and '"error"' not in text:
                self.bad.append(("stream that ends clean but short", text[-300:]))
            self.outcomes["done" if is_whole else "half"] += 1
        else:
            content = json.loads(text)["choices"][0]["message"]["content"]
            if len(content.split()) != 10:
                self.bad.append(("short answer", content))
            self.outcomes["done"] += 1
            self.costs += Decimal(answer.headers["x-sluice-cost-usd"])


def ledger_accounts(gateway):
    accounts = Counter()
    for transfer in gateway.ledger():
        amounts = [Decimal(e["amount_usd"]) for e in transfer["entries"]]
        assert sum(amounts) == 0, transfer
        for entry in transfer["entries"]:
            accounts[entry["account"]] += Decimal(entry["amount_usd"])
    return accounts


def check_books(gateway, tenant, credit):
    rows = tenant.usage(group_by="model")
    cost = sum(Decimal(r["cost_usd"]) for r in rows)
    balance = tenant.balance()
    available, held = Decimal(balance["available_usd"]), Decimal(balance["held_usd"])
    assert available >= 0 and held >= 0
    assert available + held == Decimal(credit) - cost, (balance, cost)
    assert sum(ledger_accounts(gateway).values()) == 0


@pytest.mark.timeout(300)
def test_a_thousand_requests_under_fire(make_gateway, make_fleet):
    own = make_gateway()
    fleet = make_fleet(3, on=own, slots=8, price="36.00")
    for server in fleet.servers:
        server.fault(count=-1, head_delay_ms=40, chunk_delay_ms=6)
    tenant = own.tenant(credit="1000")
    callers = [Caller(own, tenant, fleet.model, REQUESTS // CALLERS, seed) for seed in range(CALLERS)]
    dice = random.Random(20240607)
    kills = Counter()
    for caller in callers:
        caller.start()
    while any(c.is_alive() for c in callers):
        time.sleep(dice.uniform(0.15, 0.6))
        victim = dice.choice(["worker", "worker", "gateway", "redis"])
        if victim == "worker":
            worker = dice.choice(fleet.workers)
            worker.kill()
            time.sleep(dice.uniform(0, 0.1))
            worker.start(wait=False)
        elif victim == "gateway":
            own.kill()
            time.sleep(dice.uniform(0, 0.1))
            own.start(wait=dice.random() < 0.8)
        elif pid := own.redis_pid():
            os.kill(pid, signal.SIGKILL)
        kills[victim] += 1
    for caller in callers:
        caller.join(120)
        assert not caller.is_alive(), "a call hangs"
    if not own.is_up():
        own.start()
    own.wait_ready(30)
    for worker in fleet.workers:
        worker.wait_state("ready", 40)
    outcomes = sum((c.outcomes for c in callers), Counter())
    print(f"kills {dict(kills)}, outcomes {dict(outcomes)}")
    assert [b for c in callers for b in c.bad] == []
    assert all(kills[k] for k in ("worker", "gateway", "redis")), kills
    assert outcomes["done"] >= REQUESTS * 0.3, outcomes
    wait_until(lambda: tenant.requests_billed() >= outcomes["done"], 30, f"{outcomes['done']} completed calls are billed")
    wait_until(lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200, 30, "it serves again")
    wait_until(lambda: own.metric("sluice_journal_pending_records") == 0, 30, "all records are settled")
    billed = tenant.requests_billed() - 1
    assert billed <= outcomes["done"] + outcomes["half"] + outcomes["broken"], (billed, outcomes)
    # Holds of the gateways that died come home within a minute.
    wait_until(lambda: check_books(own, tenant, "1000") is None, 90, "the books balance")


@pytest.mark.parametrize("stream", [False, True])
def test_gateway_killed_in_mid_request(make_gateway, make_fleet, stream):
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    fleet.server.fault(infinite=stream, chunk_delay_ms=20, head_delay_ms=0 if stream else 20000)
    with harness.Raw(own) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=stream))
        wait_until(lambda: fleet.server.state()["active"] == 1, 5, "upstream call runs")
        if stream:
            raw.read_until(b"a3 ")
        own.kill()
        assert raw.is_closed()
    wait_until(lambda: fleet.server.last()["end"] == "cancelled", 10, "the worker ends what nobody waits for")
    own.start()
    wait_until(lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200, 20, "serves again")
    wait_until(lambda: check_books(own, tenant, "100") is None, 90, "the books balance")
    assert tenant.requests_billed() <= 2


def test_redis_killed_in_mid_request(make_gateway, make_fleet):
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    fleet.server.fault(head_delay_ms=700)
    done = []
    thread = threading.Thread(target=lambda: done.append(tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code))
    thread.start()
    wait_until(lambda: fleet.server.state()["active"] == 1, 5, "upstream call runs")
    os.kill(own.redis_pid(), signal.SIGKILL)
    thread.join()
    assert done == [200], "a running call needs no Redis"
    wait_until(lambda: own.call("GET", "/readyz").status_code == 200, 20, "Redis is back by itself")
    tenant.wait_rows(1)
    assert own.is_up()
    wait_until(lambda: check_books(own, tenant, "100") is None, 90, "the books balance")


def test_clean_stop_leaves_nothing(make_gateway, make_fleet):
    own = make_gateway()
    make_fleet(on=own)
    children = harness.children_of(own.pid)
    assert children
    assert own.stop() == 0
    wait_until(lambda: not any(harness.is_running(c) for c in children), 10, "its redis-server is gone")


def test_killed_gateway_takes_its_redis_along(make_gateway):
    own = make_gateway()
    pid = own.redis_pid()
    own.kill()
    wait_until(lambda: not harness.is_running(pid), 10, "redis-server of a killed gateway is gone")
    own.start()
