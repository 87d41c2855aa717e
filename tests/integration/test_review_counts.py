"""Whatever way calls end, nothing stays counted: slots, concurrency, holds, places in the queue."""

import random
import threading
from decimal import Decimal

import pytest

import harness
from harness import Raw, wait_until

CALLERS = 24
FAULTS = [{}, {}, {"head_delay_ms": 60}, {"chunk_delay_ms": 20}, {"status": 500, "body": "{}"}, {"status": 429, "body": "{}"},
          {"status": 401, "body": "{}"}, {"status": 400, "body": '{"error":{"message":"no"}}'}, {"die": "before_head", "rst": True},
          {"die": "after_head"}, {"die": "after_role", "rst": True}, {"die": "mid", "chunk_delay_ms": 10}, {"die": "before_done"},
          {"malformed_at": 2}, {"error_at": 1}, {"status": 200, "body": "<html>"}, {"huge_bytes": 300000}, {"no_done": True}]


def caller(gateway, keys, model, seed, failures):
    rng = random.Random(seed)
    for _ in range(15):
        path, body = rng.choice([("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                                 ("/v1/responses", {"input": "a"}), ("/v1/embeddings", {"input": "a"})])
        body = {"model": model, **body}
        if path != "/v1/embeddings" and rng.random() < 0.6:
            body["stream"] = True
        headers = {"x-stainless-read-timeout": str(rng.choice([0.05, 0.3, 10]))}
        try:
            with Raw(gateway, timeout=20) as raw:
                raw.request("POST", path, rng.choice(keys), body, headers)
                if rng.random() < 0.35:
                    raw.socket.settimeout(rng.random() * 0.15 + 0.001)
                    raw.more()
                else:
                    raw.head()
                    if rng.random() < 0.5 and not raw.buffer:
                        raw.socket.settimeout(0.2)
                        raw.more()
        except (TimeoutError, EOFError, ConnectionError):
            pass
        except Exception as error:  # noqa: BLE001 - a thread's failure must reach the test
            failures.append(error)


@pytest.mark.parametrize("settle", ["journal", "redis"])
def test_counts_after_every_way_out(make_gateway, make_fleet, settle):
    own = make_gateway(config={"pricing": {"settle": settle}, "limits": {"queue_wait_ms": 400, "queue_per_model": 8}}, threads=2)
    fleet = make_fleet(on=own, workers=[{"slots": 2, "price": "50"}, {"slots": 3, "price": "50"}])
    tenant = own.tenant(max_concurrency=12)
    budget = tenant.new_key(budget_usd="50", budget_period="day")[1]
    rng = random.Random(7)
    for server in fleet.servers:
        for _ in range(150):
            server.fault(**rng.choice(FAULTS))
    failures = []
    threads = [threading.Thread(target=caller, args=(own, [tenant.key, budget], fleet.model, n, failures)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    fleet.workers[0].process.kill()  # all its links and calls with it
    fleet.workers[0].process.wait()
    fleet.workers[0].start(wait=False)
    for thread in threads:
        thread.join()
    assert failures == []
    for server in fleet.servers:
        server.clear()
    wait_until(lambda: own.metric("sluice_calls_running") == 1 and own.metric("sluice_calls_queued") == 0, 20, "no call is left")
    wait_until(lambda: all(w["in_flight"] == 0 for w in own.workers()), 20, "no slot is taken")
    wait_until(lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200, 30, "calls are answered")
    # As many at once as the key allows: had one been counted for good, the last would be refused.
    for server in fleet.servers:
        server.fault(count=-1, chunk_delay_ms=100)
    streams = [Raw(own) for _ in range(12)]
    for raw in streams:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
    for raw in streams:
        answer = raw.answer()
        assert answer.status == 200 or answer.error["code"] in ("overloaded", "queue_full")
        raw.socket.close()

    def balances():
        money = tenant.balance()
        spent = sum(Decimal(row["cost_usd"]) for row in tenant.usage(group_by="model"))
        return Decimal(money["available_usd"]) + Decimal(money["held_usd"]) + spent == 100

    wait_until(lambda: own.metric("sluice_journal_pending_records") == 0 and balances(), 20, "the books balance")
    wait_until(lambda: Decimal(tenant.balance()["held_usd"]) == 0, 40, "idle holds go back")
    assert own.stop() == 0
