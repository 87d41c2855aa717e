"""Balance, usage, invoices, ledger, budgets."""

import csv
import io
import json
import threading
import time
import uuid
from datetime import datetime, timezone
from decimal import ROUND_HALF_EVEN, Decimal

import pytest

import harness
from harness import ADMIN_KEY, Raw, error_of, wait_until

NANO = Decimal("1e-9")


def ask(tenant, fleet, **fields):
    return tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields))


def total(tenant):
    balance = tenant.balance()
    return Decimal(balance["available_usd"]) + Decimal(balance["held_usd"])


def cost_of(price, gpu_ms):
    return (Decimal(price) * gpu_ms / 3600000).quantize(NANO, ROUND_HALF_EVEN)


def test_balance_falls_by_the_cost(tenant, fleet):
    assert total(tenant) == 100
    fleet.server.fault(head_delay_ms=300)
    cost = Decimal(ask(tenant, fleet).headers["x-sluice-cost-usd"])
    assert cost > 0
    wait_until(lambda: total(tenant) == 100 - cost, 10, "the call is settled")


@pytest.mark.parametrize("amount", [5, 5.0, "-1", "+1", "1e3", "", " 1", "1 ", "1.", ".5", "0x1", "NaN", "12345678901", "1.1234567890", "1,5", None, True])
def test_amounts_that_are_none(gateway, tenant, amount):
    answer = gateway.admin("POST", "/api/v1/admin/credits", json={"tenant": tenant.id, "amount_usd": amount},
                           headers={"Idempotency-Key": uuid.uuid4().hex})
    assert error_of(answer, 400)["param"] == "amount_usd"
    assert total(tenant) == 100


def test_credits_are_exact_and_idempotent(gateway):
    tenant = gateway.tenant(credit="1234567890.123456788")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"tenant": tenant.id, "amount_usd": "0.000000001"}
    first = gateway.admin_ok("POST", "/api/v1/admin/credits", json=body, headers=key)
    again = gateway.admin_ok("POST", "/api/v1/admin/credits", json=body, headers=key)
    assert first == again
    assert total(tenant) == Decimal("1234567890.123456789")
    other = gateway.admin("POST", "/api/v1/admin/credits", json={**body, "amount_usd": "1"}, headers=key)
    assert error_of(other, 409)["code"] == "idempotency_mismatch"
    assert total(tenant) == Decimal("1234567890.123456789")
    error_of(gateway.admin("POST", "/api/v1/admin/credits", json={"tenant": "ten_nobody", "amount_usd": "1"},
                           headers={"Idempotency-Key": uuid.uuid4().hex}), 404)


def test_concurrent_credits_with_one_key_count_once(gateway):
    tenant = gateway.tenant(credit=None)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    post = lambda: gateway.admin("POST", "/api/v1/admin/credits", json={"tenant": tenant.id, "amount_usd": "7"}, headers=key)
    threads = [threading.Thread(target=post) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(tenant) == 7


def test_no_money(gateway, fleet):
    tenant = gateway.tenant(credit=None)
    before = len(fleet.server.requests())
    for stream in (False, True):
        answer = ask(tenant, fleet, stream=stream)
        error = error_of(answer, 429)
        assert error["type"] == error["code"] == "insufficient_quota"
        assert answer.headers["x-should-retry"] == "false"
    assert len(fleet.server.requests()) == before
    gateway.credit(tenant.id, "1")
    wait_until(lambda: ask(tenant, fleet).status_code == 200, 3, "money that came is seen")


def test_usage_groups(gateway, tenant, fleet, make_fleet):
    other = make_fleet(price="0.50")
    costs = [Decimal(ask(tenant, f, max_tokens=n).headers["x-sluice-cost-usd"]) for f, n in ((fleet, 2), (fleet, 3), (other, 4))]
    tenant.wait_rows(3)
    by_model = {r["model"]: r for r in tenant.usage(group_by="model")}
    assert by_model[fleet.model]["requests"] == 2 and by_model[fleet.model]["completion_tokens"] == 5
    assert Decimal(by_model[fleet.model]["cost_usd"]) == costs[0] + costs[1]
    assert Decimal(by_model[other.model]["cost_usd"]) == costs[2]
    assert {r["worker"] for r in tenant.usage(group_by="worker")} == {fleet.worker.id, other.worker.id}
    assert [(r["key"], r["requests"]) for r in tenant.usage(group_by="key")] == [(tenant.key_id, 3)]
    assert [(r["network"], r["requests"]) for r in tenant.usage(group_by="network")] == [("native", 3)]
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    for rows in (tenant.usage(), tenant.usage(group_by="day")):
        assert [(r["day"], r["requests"]) for r in rows] == [(today, 3)]
    for row in by_model.values():
        assert set(row) >= {"requests", "gpu_ms", "prompt_tokens", "completion_tokens", "cost_usd"}
    assert tenant.usage(group_by="model", to=int(time.time() * 1000) - 86400000 * 2) == []
    admin = gateway.admin_ok("GET", "/api/v1/usage", params={"tenant": tenant.id, "group_by": "model"})["data"]
    assert sorted(r["model"] for r in admin) == sorted(by_model)


@pytest.mark.parametrize("query,param", [({"group_by": "moon"}, "group_by"), ({"from": "yesterday"}, "from"), ({"to": "-"}, "to"),
                                         ({"from": "1.5"}, "from"), ({"nonsense": "1"}, "nonsense")])
def test_nonsense_in_a_usage_query(tenant, query, param):
    assert error_of(tenant.call("GET", "/api/v1/usage", params=query), 400)["param"] == param


def test_tenants_see_only_their_own(gateway, tenant, fleet):
    ask(tenant, fleet)
    tenant.wait_rows(1)
    stranger = gateway.tenant()
    assert stranger.usage() == []
    asked = stranger.call("GET", "/api/v1/usage", params={"tenant": tenant.id})
    assert asked.status_code in (400, 403) or asked.json()["data"] == []
    for entry in harness.all_pages(lambda p: stranger.call("GET", "/api/v1/ledger", params=p).json()):
        assert tenant.id not in json.dumps(entry)


def test_calls_without_a_2xx_are_free(tenant, fleet):
    for fault in (dict(status=400, body="{}"), dict(status=500, body=""), dict(status=429, body="{}")):
        fleet.server.fault(**fault)
        assert ask(tenant, fleet).status_code != 200
    assert ask(tenant, fleet).status_code == 200
    tenant.wait_rows(1)
    assert tenant.requests_billed() == 1


def test_cancelled_call_pays_until_the_hangup(gateway, tenant, fleet):
    fleet.server.fault(head_delay_ms=20000)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat())
        wait_until(lambda: fleet.server.state()["active"] == 1, 5, "upstream call runs")
        threading.Event().wait(0.4)
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert 48 <= row["gpu_ms"] <= 120  # 400 ms on one of 8 slots, with room for a busy machine
    assert Decimal(row["cost_usd"]) == cost_of("2", row["gpu_ms"])


def test_invoice(tenant, fleet, make_fleet):
    other = make_fleet(price="0.333333333", gpu="nvidia/rtx4090-24")
    fleet.server.fault(head_delay_ms=200)
    for which in (fleet, fleet, other):
        assert ask(tenant, which).status_code == 200
    tenant.wait_rows(3)
    month = datetime.now(timezone.utc).strftime("%Y-%m")
    invoice = tenant.call("GET", f"/api/v1/invoices/{month}").json()
    assert invoice["month"] == month and len(invoice["lines"]) == 2
    usage = {r["worker"]: r for r in tenant.usage(group_by="worker")}
    for line in invoice["lines"]:
        assert set(line) == {"model", "worker", "gpu", "requests", "gpu_ms", "gpu_hours", "price_per_gpu_hour_usd", "amount_usd"}
        row = usage[line["worker"]]
        assert (line["gpu_ms"], line["requests"]) == (row["gpu_ms"], row["requests"])
        assert Decimal(line["amount_usd"]) == Decimal(row["cost_usd"])
        assert abs(Decimal(line["gpu_hours"]) - Decimal(line["gpu_ms"]) / 3600000) < Decimal("0.00001")
        expected = fleet if line["worker"] == fleet.worker.id else other
        assert Decimal(line["price_per_gpu_hour_usd"]) == Decimal(expected.worker.price)
        assert line["gpu"] == "cpu" and line["model"] == expected.model
    assert Decimal(invoice["total_usd"]) == sum(Decimal(line["amount_usd"]) for line in invoice["lines"])
    for answer in (tenant.call("GET", f"/api/v1/invoices/{month}?format=csv"),
                   tenant.call("GET", f"/api/v1/invoices/{month}", headers={"Accept": "text/csv"})):
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [{k: str(v) for k, v in line.items()} for line in invoice["lines"]] == rows


def test_no_such_month(tenant):
    error_of(tenant.call("GET", "/api/v1/invoices/2001-01"), 404)
    for nonsense in ("2026-13", "2026-00", "latest", "2026-1", "26-01"):
        assert tenant.call("GET", f"/api/v1/invoices/{nonsense}").status_code in (400, 404)


def test_ledger_sums_to_zero(gateway, tenant, fleet):
    for _ in range(5):
        ask(tenant, fleet)
    tenant.wait_rows(5)
    entries = gateway.ledger()
    assert entries
    for transfer in entries:
        assert set(transfer) >= {"id", "at", "kind", "entries"} and len(transfer["entries"]) >= 2
        assert sum(Decimal(e["amount_usd"]) for e in transfer["entries"]) == 0, transfer
    assert len({t["id"] for t in entries}) == len(entries)
    own = harness.all_pages(lambda p: tenant.call("GET", "/api/v1/ledger", params=p).json())
    assert own and len(own) < len(entries)


def test_budget_of_a_key(gateway, fleet):
    tenant = gateway.tenant(budget_usd="0.0001", budget_period="month")
    fleet.server.fault(count=-1, head_delay_ms=150)
    served = 0
    while (answer := ask(tenant, fleet)).status_code == 200:
        served += 1
        assert served < 60, "the budget never ended"
    error = error_of(answer, 429)
    assert error["type"] == "insufficient_quota" and error["code"] == "budget_exceeded"
    assert answer.headers["x-should-retry"] == "false"
    assert served >= 1
    tenant.wait_rows(served)
    spent = sum(Decimal(r["cost_usd"]) for r in tenant.usage(group_by="model"))
    assert spent <= Decimal("0.00013"), "more than the budget and one call"
    before = len(fleet.server.requests())
    assert ask(tenant, fleet).status_code == 429 and len(fleet.server.requests()) == before
    _, other = tenant.new_key()
    assert gateway.call("POST", "/v1/chat/completions", key=other, json=fleet.chat()).status_code == 200


def test_balance_never_goes_below_zero(gateway, fleet):
    tenant = gateway.tenant(credit="0.0002")
    fleet.server.fault(count=-1, head_delay_ms=100)
    statuses = []

    def caller():
        for _ in range(12):
            statuses.append(ask(tenant, fleet).status_code)

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 429 in statuses and 200 in statuses
    tenant.wait_rows(statuses.count(200))
    balance = tenant.balance()
    assert Decimal(balance["available_usd"]) >= 0 and Decimal(balance["held_usd"]) >= 0


def test_idempotent_tenants(gateway):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = gateway.admin_ok("POST", "/api/v1/admin/tenants", json={"name": "acme"}, headers=key)
    again = gateway.admin_ok("POST", "/api/v1/admin/tenants", json={"name": "acme"}, headers=key)
    assert first == again
    error_of(gateway.admin("POST", "/api/v1/admin/tenants", json={"name": "other"}, headers=key), 409)
    error_of(gateway.admin("POST", "/api/v1/admin/tenants", json={"name": "acme"}, headers={"Idempotency-Key": "x" * 256}), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name":5}', b"{}", b'{"name":""}', b'{"name":"a","x":1}', b'{"name":"a","name":"b"}'])
def test_nonsense_tenants(gateway, body):
    answer = gateway.call("POST", "/api/v1/admin/tenants", key=ADMIN_KEY, content=body, headers={"Content-Type": "application/json"})
    error_of(answer, 400)


def test_usage_outlives_a_killed_gateway(make_gateway, make_fleet):
    """Answered calls are billed though the gateway is killed right after the answer."""
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    costs = Decimal(0)
    for round_number in range(1, 4):
        for _ in range(5):
            costs += Decimal(ask(tenant, fleet).headers["x-sluice-cost-usd"])
        own.restart()
        tenant.wait_rows(5 * round_number)
        fleet.worker.wait_state("ready")
        wait_until(lambda: tenant.call("GET", f"/v1/models/{fleet.model}").status_code == 200, 10, "model is back")
    assert sum(Decimal(r["cost_usd"]) for r in tenant.usage(group_by="model")) == costs


def test_settle_redis(make_gateway, make_fleet):
    """With settle: redis an answered call is in the books at once."""
    own = make_gateway(config={"pricing": {"settle": "redis"}})
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    for n in range(1, 6):
        assert ask(tenant, fleet).status_code == 200
        assert tenant.requests_billed() == n
    assert list(tenant.client().chat.completions.create(**fleet.chat(stream=True)))
    assert tenant.requests_billed() == 6
