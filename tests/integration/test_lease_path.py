"""A lease from the request to the bill, on a network in a folder whose machines are real processes with real proofs."""

import json
import os
import time
from decimal import Decimal

import pytest

import harness
from harness import wait_until

FAST = {"boot_poll": "100ms", "watch": "500ms", "slice": "2s", "retry": "500ms", "probing": "30s", "seek": "3s"}


class Folder:
    """The fake network's folder."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def settings(self, id="fake", run=True, **fields):
        return {"id": id, "adapter": "fake", "base_url": f"dir://{self.path}", "poll_s": 1, "reconcile_s": 1, "orphan_grace_s": 1,
                "options": {"run": "true"} if run else {}, **fields}

    def offers(self, *rows):
        (self.path / "offers.json").write_text(json.dumps(list(rows)))

    def faults(self, *rows):
        (self.path / "faults.json").write_text(json.dumps([{"count": 1, **row} for row in rows]))

    def live(self):
        try:
            return [json.loads((self.path / "instances" / name).read_text()) for name in os.listdir(self.path / "instances")
                    if name.endswith(".json")]
        except FileNotFoundError:
            return []

    def ended(self):
        return len(list((self.path / "ended").glob("*.json"))) if (self.path / "ended").exists() else 0


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "net")


def cpu(id="cpu-1", price="0.10", **fields):
    return {"id": id, "gpu": "cpu", "gpus": 1, "price": price, "stock": 16, "region": "here", **fields}


def launch(tenant, status=202, **fields):
    body = {"gpu": "cpu", "count": 1, "image": "demo/hello:1", "command": ["sh", "-c", "echo hello from the machine; sleep 600"], **fields}
    answer = tenant.call("POST", "/api/v1/leases", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def shown(tenant, lease):
    return tenant.call("GET", f"/api/v1/leases/{lease['id']}").json()


def wait_state(tenant, lease, *states, timeout=40):
    def reached():
        row = shown(tenant, lease)
        return row if row["state"] in states else None

    try:
        return wait_until(reached, timeout, f"lease in {states}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{json.dumps(shown(tenant, lease), indent=1)}")


def wait_offers(gateway, tenant, gpu="cpu"):
    wait_until(lambda: tenant.call("GET", f"/api/v1/offers?gpu={gpu}").json()["data"], 20, "offers")


def books_balance(gateway):
    for entry in gateway.ledger():
        assert sum(Decimal(e["amount_usd"]) for e in entry["entries"]) == 0


def start(make_gateway, *folders, **fields):
    config = {"networks": [f.settings(id=f"fake-{i}" if i else "fake", **fields) for i, f in enumerate(folders)], "leases": FAST}
    return make_gateway(config=config)


def test_from_request_to_bill(make_gateway, folder):
    folder.offers(cpu(price="3.60"))
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    lease = launch(tenant, ports=[8000])
    row = wait_state(tenant, lease, "active", "failed")
    assert row["state"] == "active", row
    assert row["price_per_gpu_hour_usd"] == "3.60" and row["active_at"] and [e["port"] for e in row["endpoints"]] == [8000]
    assert [i["tag"] for i in folder.live()] and lease["id"][4:] in folder.live()[0]["tag"]
    # Its output, by the link of the machine's own worker.
    wait_until(lambda: "hello from the machine" in tenant.call("GET", f"/api/v1/leases/{lease['id']}/logs").text, 15, "logs")
    # Charged by slices while it runs, with the rest held.
    wait_until(lambda: shown(tenant, lease)["billed_ms"] >= 2000, 15, "a slice is charged")
    assert Decimal(tenant.balance()["held_usd"]) > 0
    assert tenant.call("DELETE", f"/api/v1/leases/{lease['id']}").status_code == 202
    row = wait_state(tenant, lease, "ended")
    assert folder.live() == []
    wall_ms = row["billed_ms"]
    assert Decimal(row["cost_usd"]) == Decimal(wall_ms) / 10**6, "3.60 USD an hour is a micro-dollar a ms"
    assert row["ended_at"] - row["active_at"] >= wall_ms - 50
    wait_until(lambda: Decimal(tenant.balance()["held_usd"]) == 0, 10, "the rest is back")
    assert Decimal("5") - Decimal(tenant.balance()["available_usd"]) == Decimal(row["cost_usd"])
    books_balance(gateway)
    # Again is harmless.
    assert tenant.call("DELETE", f"/api/v1/leases/{lease['id']}").status_code == 202
    assert sum(Decimal(r["cost_usd"]) for r in tenant.usage(group_by="network") if r["network"] == "fake") == Decimal(row["cost_usd"])


def test_not_what_was_sold(make_gateway, folder):
    """The dearer honest machine is taken, because the cheap one proves to be none of what it says; that try is free."""
    folder.offers(cpu("liar", "0.01", gpu="RTX 4090", vram_gib=24))
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant, "rtx4090")
    lease = launch(tenant, gpu="rtx4090")
    row = wait_state(tenant, lease, "failed", "active", timeout=60)
    assert row["state"] == "failed", row
    assert row["attempts"][0]["error"] == "probe_failed" and "cpu" in row["attempts"][0]["message"]
    assert row["cost_usd"] == "0.00" and row["billed_ms"] == 0
    wait_until(lambda: folder.live() == [], 20, "the machine is ended")
    wait_until(lambda: tenant.balance() == {"available_usd": "5.00", "held_usd": "0.00"}, 10, "the hold is back")


def test_failover_is_free_and_shown(make_gateway, folder, tmp_path):
    other = Folder(tmp_path / "other")
    folder.offers(cpu(price="0.10"))
    other.offers(cpu(price="0.20"))
    folder.faults({"fault": "no_capacity", "op": "create", "count": -1})
    gateway = start(make_gateway, folder, other)
    tenant = gateway.tenant(credit="5")
    wait_until(lambda: len(tenant.call("GET", "/api/v1/offers?gpu=cpu").json()["data"]) == 2, 20, "both offers")
    row = wait_state(tenant, launch(tenant), "active", "failed")
    assert row["state"] == "active" and row["price_per_gpu_hour_usd"] == "0.20"
    assert [(a["network"], a["error"]) for a in row["attempts"]][0] == ("fake", "no_capacity")
    assert row["attempts"][0]["message"] and row["attempts"][0]["at"]


@pytest.mark.parametrize("fault, what", [("quota", "quota"), ("no_funds", "no_funds"), ("bad_image", "bad_request")])
def test_says_what_to_do(make_gateway, folder, fault, what):
    """Which network, what it answered, and what to do."""
    folder.offers(cpu())
    folder.faults({"fault": fault, "op": "create", "count": -1})
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    row = wait_state(tenant, launch(tenant), "failed")
    assert row["attempts"][-1]["error"] == what
    assert "fake" in row["reason"] and len(row["attempts"][-1]["message"]) > 20, row
    assert row["cost_usd"] == "0.00"


def test_price_above_the_cap(make_gateway, folder):
    folder.offers(cpu(price="2.00"))
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    row = wait_state(tenant, launch(tenant, max_price_per_gpu_hour_usd="0.50"), "failed")
    assert "2.00" in row["reason"] and "cap" in row["reason"] and "fake" in row["reason"], row["reason"]
    assert row["attempts"] == []


def test_without_money(make_gateway, folder):
    folder.offers(cpu(price="100.00"))
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="0.01")
    wait_offers(gateway, tenant)
    row = wait_state(tenant, launch(tenant), "failed")
    assert "insufficient funds" in row["reason"] and folder.live() == [] and folder.ended() == 0


def test_money_runs_out(make_gateway, folder):
    """Warned, then stopped; never below zero."""
    folder.offers(cpu(price="36.00"))
    gateway = make_gateway(config={"networks": [folder.settings()], "leases": {**FAST, "grace": "1s"}})
    tenant = gateway.tenant(credit="0.08")
    wait_offers(gateway, tenant)
    lease = launch(tenant)
    row = wait_state(tenant, lease, "ended", "failed", timeout=60)
    assert row["state"] == "ended" and "insufficient funds" in row["reason"], row
    balance = tenant.balance()
    assert Decimal(balance["available_usd"]) >= 0 and Decimal(balance["held_usd"]) == 0
    assert folder.live() == []
    books_balance(gateway)


def test_ends_by_itself(make_gateway, folder):
    folder.offers(cpu())
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    row = wait_state(tenant, launch(tenant, max_duration_s=2), "ended")
    assert 2000 <= row["billed_ms"] <= 4500
    # The command's own end ends the lease, too, and says how.
    row = wait_state(tenant, launch(tenant, command=["sh", "-c", "exit 7"]), "ended")
    assert "7" in row["reason"]


def test_lost_answer_makes_no_second_machine(make_gateway, folder):
    folder.offers(cpu())
    folder.faults({"fault": "drop_answer_after_effect", "op": "create"})
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    lease = launch(tenant)
    row = wait_state(tenant, lease, "active")
    assert len(folder.live()) == 1 and folder.ended() == 0 and len(row["attempts"]) == 1


def test_killed_gateway_carries_on(make_gateway, folder):
    folder.offers(cpu())
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    lease = launch(tenant)
    wait_until(lambda: shown(tenant, lease)["state"] in ("provisioning", "probing"), 20, "on its way")
    gateway.restart()
    row = wait_state(tenant, lease, "active", timeout=90)
    # Killed before it asked: an attempt without a machine. Killed after: the machine was found by its tag.
    assert len(folder.live()) == 1 and folder.ended() < len(row["attempts"])
    before = row["billed_ms"]
    gateway.restart()
    wait_until(lambda: shown(tenant, lease)["billed_ms"] > before, 90, "it is still billed")
    assert len(folder.live()) == 1
    tenant.call("DELETE", f"/api/v1/leases/{lease['id']}")
    row = wait_state(tenant, lease, "ended", timeout=90)
    assert folder.live() == []
    wait_until(lambda: Decimal(tenant.balance()["held_usd"]) == 0, 10, "the rest is back")
    assert Decimal("5") - Decimal(tenant.balance()["available_usd"]) == Decimal(row["cost_usd"])


def test_lost_machine_is_replaced(make_gateway, folder):
    folder.offers(cpu())
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    lease = launch(tenant)
    first = wait_state(tenant, lease, "active")
    assert first["attempts"][-1]["network"] == "fake"
    tag = folder.live()[0]["tag"]
    folder.faults({"fault": "vanish", "op": "describe", "tag": tag})
    wait_until(lambda: folder.live() and folder.live()[0]["tag"] != tag, 40, "another machine")
    row = wait_state(tenant, lease, "active")
    assert [a["error"] for a in row["attempts"]][0] == "lost" and len(folder.live()) == 1
    tenant.call("DELETE", f"/api/v1/leases/{lease['id']}")
    wait_state(tenant, lease, "ended")
    books_balance(gateway)


def test_orphan_is_ended(make_gateway, folder):
    """What runs under our tag and is owned by no lease is ended after its grace; what is not ours stays."""
    folder.offers(cpu())
    gateway = start(make_gateway, folder)
    tenant = gateway.tenant(credit="5")
    wait_offers(gateway, tenant)
    lease = launch(tenant)
    wait_state(tenant, lease, "active")
    mine = folder.live()[0]
    orphan = {**mine, "id": "stray_1", "tag": mine["tag"].rsplit("-", 1)[0] + "-77", "pid": 0}
    foreign = {**mine, "id": "foreign_1", "tag": "somebody-elses", "pid": 0}
    for made in (orphan, foreign):
        (folder.path / "instances" / f"{made['id']}.json").write_text(json.dumps(made))
    wait_until(lambda: "stray_1" not in [i["id"] for i in folder.live()], 30, "the orphan is ended")
    row = next(n for n in gateway.admin_ok("GET", "/api/v1/networks")["data"] if n["id"] == "fake")
    wait_until(lambda: next(n for n in gateway.admin_ok("GET", "/api/v1/networks")["data"] if n["id"] == "fake")["orphans_ended"] == 1,
               10, f"it is counted (was {row})")
    assert {i["id"] for i in folder.live()} == {mine["id"], "foreign_1"}
    assert shown(tenant, lease)["state"] == "active"
