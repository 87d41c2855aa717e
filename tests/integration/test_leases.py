"""Leases by REST: what is asked for, who may see what, and, over the `fake` network, a lease's whole life."""

import re
import uuid

import pytest

from harness import all_pages, error_of, wait_until
from test_lease_path import Folder, cpu, start, wait_offers
from test_openapi import check

ASKED = {"gpu": "RTX4090", "image": "ghcr.io/x/y:1"}
FIELDS = {"id", "state", "reason", "offer", "attempts", "endpoints", "price_per_gpu_hour_usd", "billed_ms", "cost_usd", "created_at",
          "active_at", "ended_at"}
OVER = ("ended", "failed")


def create(tenant, status=202, headers=None, **fields):
    answer = tenant.call("POST", "/api/v1/leases", json={**ASKED, **fields}, headers=headers or {})
    assert answer.status_code == status, answer.text
    check("POST", "/api/v1/leases", answer)
    return answer.json()


def get(tenant, lease, status=200):
    answer = tenant.call("GET", f"/api/v1/leases/{lease['id']}")
    assert answer.status_code == status, answer.text
    check("GET", "/api/v1/leases/{id}", answer)
    return answer.json()


def wait_state(tenant, lease, *states, timeout=60):
    seen = []

    def reached():
        seen.append(get(tenant, lease))
        assert seen[-1]["state"] in states or seen[-1]["state"] not in OVER, seen[-1]
        return seen[-1]["state"] in states

    wait_until(reached, timeout, f"{lease['id']} is one of {states}")
    return seen[-1]


# -- without any network -----------------------------------------------------------------------------------------------


def test_a_lease_that_finds_nothing_costs_nothing(gateway):
    tenant = gateway.tenant(credit="5")
    lease = create(tenant, count=2, ports=[8000], max_price_per_gpu_hour_usd="0.50")
    assert FIELDS <= set(lease) and re.fullmatch(r"lse_[0-9a-z]{26}", lease["id"]) and lease["state"] == "requested"
    over = wait_state(tenant, lease, "failed")
    assert over["reason"] and over["ended_at"] >= over["created_at"] and over["attempts"] == [] and over["cost_usd"] == "0.00"
    wait_until(lambda: tenant.balance() == {"available_usd": "5.00", "held_usd": "0.00"}, what="the whole balance is there")
    assert tenant.usage() == []


def test_the_same_key_gives_the_same_lease(gateway, tenant):
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = create(tenant, headers=headers, retry_until_up=True)
    assert create(tenant, headers=headers, retry_until_up=True)["id"] == first["id"]
    assert create(tenant, headers={}, retry_until_up=True)["id"] != first["id"]
    answer = tenant.call("POST", "/api/v1/leases", json=ASKED, headers=headers)
    assert answer.status_code == 409 and error_of(answer, 409)["code"] == "idempotency_mismatch"


def test_a_lease_is_ended_and_again(gateway, tenant):
    lease = create(tenant, retry_until_up=True)
    for _ in range(2):
        answer = tenant.call("DELETE", f"/api/v1/leases/{lease['id']}")
        assert answer.status_code == 202 and answer.json()["id"] == lease["id"]
        check("DELETE", "/api/v1/leases/{id}", answer)
    over = wait_state(tenant, lease, "ended")
    answer = tenant.call("DELETE", f"/api/v1/leases/{lease['id']}")
    assert answer.status_code == 202 and answer.json()["state"] == "ended" and answer.json()["ended_at"] == over["ended_at"]


def test_tenants_see_their_own_leases_alone(gateway, tenant):
    other, lease = gateway.tenant(), create(tenant, retry_until_up=True)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs")):
        answer = other.call(method, f"/api/v1/leases/{lease['id']}{path}")
        assert answer.status_code == 404 and error_of(answer, 404)["param"] == "id", (method, path)
    assert get(tenant, lease)["state"] not in ("stopping", *OVER)
    assert other.call("GET", "/api/v1/leases").json()["data"] == []
    assert other.call("GET", f"/api/v1/leases?tenant={tenant.id}").status_code == 403
    assert lease["id"] in [row["id"] for row in gateway.admin_ok("GET", "/api/v1/leases?limit=1000")["data"]]
    assert lease["id"] in [row["id"] for row in gateway.admin_ok("GET", f"/api/v1/leases?tenant={tenant.id}")["data"]]
    assert gateway.admin_ok("GET", f"/api/v1/leases/{lease['id']}")["id"] == lease["id"]
    assert gateway.admin("POST", "/api/v1/leases", json=ASKED).status_code == 403, "somebody has to pay"
    assert gateway.call("GET", f"/api/v1/leases/{lease['id']}").status_code == 401
    gateway.admin("DELETE", f"/api/v1/leases/{lease['id']}", status=202)
    wait_state(tenant, lease, "ended")


def test_pages_come_newest_first(gateway, tenant):
    made = [create(tenant, retry_until_up=True)["id"] for _ in range(5)]
    rows = all_pages(lambda params: tenant.call("GET", "/api/v1/leases", params={"limit": 2, **params}).json())
    assert [row["id"] for row in rows] == sorted(made, reverse=True)
    page = tenant.call("GET", "/api/v1/leases?limit=5")
    check("GET", "/api/v1/leases", page)
    assert page.json()["next"] is None
    for query, param in (("limit=0", "limit"), ("cursor=lse_x", "cursor"), ("state=active", "state")):
        answer = tenant.call("GET", f"/api/v1/leases?{query}")
        assert answer.status_code == 400 and error_of(answer, 400)["param"] == param


def test_what_is_wrong_is_named(gateway, tenant):
    for fields, param, said in (({"gpu": "RTX4091"}, "gpu", "nvidia/rtx4090-24"), ({"image": "https://x/y"}, "image", "ghcr.io"),
                                ({"ports": [0]}, "ports", "65535"), ({"command": "sh"}, "command", "list"), ({"env": {"1": "x"}}, "env", "digit"),
                                ({"max_price_per_gpu_hour_usd": 0.5}, "max_price_per_gpu_hour_usd", "string"), ({"count": 0}, "count", "whole number"),
                                ({"gpus": 2}, "gpus", "Unknown")):
        for path in ("/api/v1/leases", "/api/v1/quotes"):
            answer = tenant.call("POST", path, json={**ASKED, **fields})
            error = error_of(answer, 400)
            assert error["param"] == param and said in error["message"], (path, fields, error)
            check("POST", path, answer)
    assert tenant.call("GET", "/api/v1/leases").json()["data"] == []


def test_a_quote_that_is_no_more_is_refused(gateway, tenant):
    answer = tenant.call("POST", "/api/v1/leases", json={**ASKED, "quote": "quo_00000000000000000000000000"})
    assert answer.status_code == 409 and error_of(answer, 409)["code"] == "quote_expired"
    answer = tenant.call("POST", "/api/v1/quotes", json=ASKED)
    assert answer.status_code == 503 and error_of(answer, 503)["code"] == "no_offer_matches" and answer.headers["x-should-retry"] == "false"
    check("POST", "/api/v1/quotes", answer)


def test_a_key_without_any_budget_rents_nothing(gateway):
    tenant = gateway.tenant(budget_usd="0")
    answer = tenant.call("POST", "/api/v1/leases", json=ASKED)
    assert answer.status_code == 429 and error_of(answer, 429)["code"] == "budget_exceeded"


def test_a_tenant_has_so_many_open_leases(make_gateway):
    gateway = make_gateway(config={"leases": {"max_open": 2}})
    tenant, other = gateway.tenant(), gateway.tenant()
    first, second = create(tenant, retry_until_up=True), create(tenant, retry_until_up=True)
    error = create(tenant, 429, retry_until_up=True)["error"]
    assert error["code"] == "too_many_leases" and "2 leases" in error["message"] and "leases.max_open" in error["message"]
    create(other, retry_until_up=True)
    assert tenant.call("DELETE", f"/api/v1/leases/{first['id']}").status_code == 202
    wait_state(tenant, first, "ended")
    wait_until(lambda: tenant.call("POST", "/api/v1/leases", json={**ASKED, "retry_until_up": True}).status_code == 202, what="there is room again")
    assert get(tenant, second)["state"] == "requested"
    create(tenant, 429)


def test_unknown_leases_are_404(gateway, tenant):
    for lease in ("lse_00000000000000000000000000", "lse_x", "wrk_00000000000000000000000000"):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/logs?follow=1")):
            assert tenant.call(method, f"/api/v1/leases/{lease}{path}").status_code == 404


# -- over a network in a folder ----------------------------------------------------------------------------------------


@pytest.fixture
def rented(make_gateway, tmp_path):
    """A gateway with one network, whose machines are processes here, and a tenant with money."""
    folder = Folder(tmp_path / "net")
    folder.offers(cpu(price="1.00"), cpu("cpu-2", price="3.00"))
    gateway = start(make_gateway, folder)
    gateway.folder, gateway.payer = folder, gateway.tenant(credit="5")
    wait_offers(gateway, gateway.payer)
    return gateway


def prices(gateway):
    return sorted(row["price_per_gpu_hour_usd"] for row in gateway.payer.call("GET", "/api/v1/offers?gpu=cpu").json()["data"])


def test_a_quote_tells_the_price_and_holds_the_lease_to_it(rented):
    tenant, asked = rented.payer, {"gpu": "cpu", "image": "demo/hello:1", "command": ["sleep", "600"]}
    answer = tenant.call("POST", "/api/v1/quotes", json=asked)
    check("POST", "/api/v1/quotes", answer)
    quote = answer.json()
    assert quote["price_per_gpu_hour_usd"] == "1.00" and quote["network"] == "fake" and quote["count"] == 1
    assert [row["price_per_gpu_hour_usd"] for row in quote["candidates"]] == ["1.00", "3.00"]
    rented.folder.offers(cpu(price="1.02"), cpu("cpu-2", price="3.00"))
    wait_until(lambda: prices(rented) == ["1.02", "3.00"], 20, "the new price")
    over = wait_state(tenant, create(tenant, **asked, quote=quote["id"]), "failed")
    assert "quote" in over["reason"] and over["attempts"] == [], over["reason"]
    lease = wait_state(tenant, create(tenant, **asked, quote=quote["id"], price_tolerance_bps=200), "active")
    assert lease["price_per_gpu_hour_usd"] == "1.02"
    other = rented.tenant()
    assert other.call("POST", "/api/v1/leases", json={**asked, "quote": quote["id"]}).status_code == 409, "it is another tenant's"


def test_logs_are_followed_to_the_end(rented):
    tenant = rented.payer
    command = ["sh", "-c", "i=0; while [ $i -lt 3 ]; do echo line $i; i=$((i+1)); sleep 0.5; done; printf 'no end'; sleep 3"]
    lease = create(tenant, gpu="cpu", image="demo/hello:1", command=command)
    events, at = [], None
    with rented.http.stream("GET", f"/api/v1/leases/{lease['id']}/logs?follow=1", headers={"Authorization": f"Bearer {tenant.key}"}, timeout=60) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                at = (value, [])
                events.append(at)
            elif name == "data":
                at[1].append(value)
    written = "".join("\n".join(data) for name, data in events if name == "log")
    assert "line 0\nline 1\nline 2\nno end" in written
    assert events[-1][0] == "end" and '"ended"' in events[-1][1][0]
    assert any(name == "state" and '"active"' in data[0] for name, data in events)


def test_logs_of_what_does_not_run(gateway, tenant):
    lease = create(tenant, retry_until_up=True)
    answer = tenant.call("GET", f"/api/v1/leases/{lease['id']}/logs")
    assert answer.status_code == 409 and error_of(answer, 409)["code"] == "not_running"
    check("GET", "/api/v1/leases/{id}/logs", answer)
    tenant.call("DELETE", f"/api/v1/leases/{lease['id']}")


def test_a_lease_counts_in_its_keys_budget(rented):
    tenant = rented.payer
    _, key = tenant.new_key(budget_usd="0.0000001", budget_period="day")
    answer = rented.call("POST", "/api/v1/leases", key=key, json={"gpu": "cpu", "image": "demo/hello:1"})
    assert answer.status_code == 202
    over = wait_state(tenant, answer.json(), "failed")
    assert "budget" in over["reason"] and tenant.balance() == {"available_usd": "5.00", "held_usd": "0.00"}
