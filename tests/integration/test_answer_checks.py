"""Answers that are asked again of another operator's worker: who was wrong pays, and the caller gets its money back."""

import json
from datetime import datetime, timezone
from decimal import Decimal

import pytest

import harness
from harness import wait_until

CHECKED = {"probes": {"check_answers": 0.3, "canaries": "off"}}


def operators(gateway, count, **options):
    """A fleet whose workers belong to a supplier each; all model servers are the same model."""
    own = [{"token": gateway.enrolment(supplier=f"operator-{i}")["token"], "region": f"r{i}"} for i in range(count)]
    return harness.Fleet(gateway, workers=own, names=["word"] * count, price="2.00", **options)


@pytest.fixture
def make_operators():
    made = []

    def make(gateway, count, **options):
        made.append(operators(gateway, count, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.remove()


def ask(tenant, fleet, number, **fields):
    """A call that only the worker of that number may take."""
    headers = {"x-sluice-region": f"r{number}"}
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat(temperature=0, **fields), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def checks(gateway, result=None):
    return gateway.metric("sluice_answer_checks_total", **({"result": result} if result else {}))


def correctness(gateway, fleet, number):
    return gateway.worker(fleet.workers[number].id)["reputation_parts"]["correctness"]["bad"]


def wait_until_idle(gateway):
    wait_until(lambda: gateway.metric("sluice_answer_checks_running") == 0, 90, "no check is under way")


def total(tenant):
    balance = tenant.balance()
    return Decimal(balance["available_usd"]) + Decimal(balance["held_usd"])


def transfers(gateway, kind):
    return [t for t in gateway.ledger() if t["kind"] == kind]


def expect_books(gateway):
    entries = gateway.ledger()
    for transfer in entries:
        assert sum(Decimal(e["amount_usd"]) for e in transfer["entries"]) == 0, transfer
    assert len({t["id"] for t in entries}) == len(entries)


def spent(tenant):
    return sum(Decimal(r["cost_usd"]) for r in tenant.usage(group_by="worker"))


def call_until(condition, call, most=200):
    for _ in range(most):
        if condition():
            return
        call()
    wait_until(condition, 20, "a check with that result")


def head_fields(head):
    lines = head.decode("latin-1").split("\r\n")
    fields = sorted(line.split(":")[0].lower() for line in lines[1:] if line)
    return (lines[0], *[f for f in fields if f not in ("content-length", "transfer-encoding")])


def test_the_liar_pays(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    assert [correctness(gateway, fleet, i) for i in range(3)] == [0, 0, 0]
    for _ in range(20):  # what the liar has earned, and may lose
        ask(tenant, fleet, 0)
    fleet.servers[0].fault(count=-1, say="lie", head_delay_ms=50)
    for server in fleet.servers[1:]:
        server.fault(count=-1, head_delay_ms=30)  # so that the checks cost something
    call_until(lambda: checks(gateway, "original_wrong") >= 2, lambda: ask(tenant, fleet, 0, stream=True))
    wait_until_idle(gateway)
    refunded = lambda: transfers(gateway, "refund")
    wait_until(lambda: len(refunded()) == checks(gateway, "original_wrong") == gateway.metric("sluice_refunds_total"), 10, "refunds")
    wait_until(lambda: total(tenant) == 100 - spent(tenant), 10, "all is settled")
    first = refunded()[0]
    of = first["id"].removeprefix("refund:")
    call = next(t for t in gateway.ledger() if t["id"] == of)
    amount = lambda t, account: sum(Decimal(e["amount_usd"]) for e in t["entries"] if account in e["account"])
    assert amount(first, "avail") == -amount(call, "held") - amount(call, "avail") > 0
    assert amount(first, "operator-0") == -amount(call, "operator-0")
    penalty = next(t for t in gateway.ledger() if t["id"] == "penalty:" + of)
    assert penalty["kind"] == "penalty" and 0 < amount(penalty, "plat:penalties") == -amount(penalty, "operator-0")
    # Usage and invoice say the same, and what they say is gone from the balance.
    month = datetime.fromtimestamp(first["at"] / 1000, timezone.utc).strftime("%Y-%m")
    invoice = tenant.call("GET", f"/api/v1/invoices/{month}").json()
    assert Decimal(invoice["total_usd"]) == spent(tenant) == 100 - total(tenant)
    assert sum(r["requests"] for r in tenant.usage(group_by="worker")) == sum(l["requests"] for l in invoice["lines"])
    expect_books(gateway)
    wait_until(lambda: correctness(gateway, fleet, 0) > 0, 10, "the liar's correctness falls")
    assert [correctness(gateway, fleet, i) for i in (1, 2)] == [0, 0]
    assert 9.9 < correctness(gateway, fleet, 0) <= 10, "one tenant counts once a day"
    # The tenant pays no check, its operators are paid for them.
    assert all(tenant.id not in json.dumps(t) for t in transfers(gateway, "check"))
    paid = lambda: {e["account"] for t in transfers(gateway, "check") for e in t["entries"]}
    wait_until(lambda: {"sup:operator-1:pending", "sup:operator-2:pending", "plat:checks"} <= paid(), 10, "those who were asked are paid")
    assert "sup:operator-0:pending" not in paid()
    # Nothing tells a worker that it is asked for a check's sake.
    heads = {head_fields(r["head"]) for r in fleet.servers[1].requests() + fleet.servers[0].requests()}
    assert len(heads) <= 2, heads


def test_wrong_for_two_tenants_is_proven_anew(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    fleet.servers[0].fault(count=-1, say="lie")
    proven = lambda: gateway.worker(fleet.workers[0].id)["last_probe_at"]
    before = proven()
    for tenant, counts in ((gateway.tenant(), 10), (gateway.tenant(), 20)):
        assert proven() == before
        call_until(lambda: correctness(gateway, fleet, 0) > counts - 5, lambda: ask(tenant, fleet, 0))
    wait_until(lambda: proven() > before, 20, "it proved itself again")


def test_a_liar_that_is_asked_for_a_check_harms_nobody(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    fleet.servers[2].fault(count=-1, say="lie")
    call_until(lambda: checks(gateway, "peer_wrong") >= 1, lambda: ask(tenant, fleet, 0))
    wait_until_idle(gateway)
    wait_until(lambda: correctness(gateway, fleet, 2) > 0, 10, "the liar's correctness falls")
    assert [correctness(gateway, fleet, i) for i in (0, 1)] == [0, 0]
    assert checks(gateway, "original_wrong") == 0 and not transfers(gateway, "refund")
    expect_books(gateway)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_honest_workers_that_round_differently(make_gateway, make_operators, path):
    """At one place two words are nearly as likely: each worker takes another one, and goes on from there."""
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    fleet.servers[0].fault(count=-1, tie_at=2)
    fleet.servers[1].fault(count=-1, tie_at=4)
    numbers = iter(range(1000))

    def call():
        number = next(numbers)
        question = fleet.chat() if "chat" in path else {"model": fleet.model, "prompt": "hello there"}
        question |= {"temperature": 0, "max_tokens": 8, "stream": bool(number % 2)}
        answer = tenant.call("POST", path, json=question, headers={"x-sluice-region": f"r{number % 3}"})
        assert answer.status_code == 200

    call_until(lambda: checks(gateway, "agreed") >= 6, call)
    wait_until_idle(gateway)
    assert checks(gateway) == checks(gateway, "agreed")
    assert [correctness(gateway, fleet, i) for i in range(3)] == [0, 0, 0]
    assert not transfers(gateway, "refund")


def test_no_evidence_no_verdict(make_gateway, make_operators):
    """An engine without log-probabilities cannot show that another text is wrong."""
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    fleet.servers[0].fault(count=-1, tie_at=2)
    for server in fleet.servers[1:]:
        server.fault(count=-1, no_logprobs=True)
    call_until(lambda: checks(gateway, "inconclusive") >= 2, lambda: ask(tenant, fleet, 0))
    wait_until_idle(gateway)
    assert checks(gateway) == checks(gateway, "inconclusive")
    assert [correctness(gateway, fleet, i) for i in range(3)] == [0, 0, 0]


def test_a_worker_that_does_not_answer_is_passed_over(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 4)
    tenant = gateway.tenant()
    fleet.servers[0].fault(count=-1, say="lie")
    fleet.servers[3].fault(count=-1, status=400, body="{}")
    call_until(lambda: checks(gateway, "original_wrong") >= 4, lambda: ask(tenant, fleet, 0))
    wait_until_idle(gateway)
    assert checks(gateway) == checks(gateway, "original_wrong")
    assert [correctness(gateway, fleet, i) for i in (1, 2, 3)] == [0, 0, 0]
    assert fleet.servers[3].requests()


def test_two_operators_cannot_judge(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 2)
    tenant = gateway.tenant()
    fleet.servers[0].fault(count=-1, say="lie")
    call_until(lambda: checks(gateway, "inconclusive") >= 2, lambda: ask(tenant, fleet, 0))
    wait_until_idle(gateway)
    assert checks(gateway) == checks(gateway, "inconclusive")
    assert [correctness(gateway, fleet, i) for i in (0, 1)] == [0, 0]
    assert not transfers(gateway, "refund")


def test_what_cannot_be_compared_is_asked_once(make_gateway, make_operators):
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    headers = {"x-sluice-region": "r0"}
    for fields in ({}, {"temperature": 1}, {"temperature": 0, "n": 2}, {"temperature": 0, "tools": [{"type": "function"}]}):
        for _ in range(15):
            answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields), headers=headers)
            assert answer.status_code == 200
    assert gateway.metric("sluice_answer_checks_running") == 0 and checks(gateway) == 0
    assert fleet.seen() == [60, 0, 0]


def test_checks_leave_the_last_slot(make_gateway, make_operators):
    """A worker whose slots are all but one taken, or that has only one, is not asked."""
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 2, slots=1)
    tenant = gateway.tenant()
    for _ in range(30):
        ask(tenant, fleet, 0)
    assert wait_until(lambda: gateway.metric("sluice_answer_checks_running") >= 1, 5, "some were drawn")
    for _ in range(5):
        ask(tenant, fleet, 1)
    assert len(fleet.servers[1].requests()) == 5


def test_a_killed_gateway_refunds_once(make_gateway, make_operators):
    """Whatever is killed at whatever moment: no call is given back twice, and the books balance."""
    gateway = make_gateway(config=CHECKED)
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    fleet.servers[0].fault(count=-1, say="lie", head_delay_ms=20)
    for _ in range(3):
        seen = checks(gateway, "original_wrong")
        call_until(lambda: checks(gateway, "original_wrong") > seen, lambda: ask(tenant, fleet, 0))
        gateway.restart()
        for worker in fleet.workers:
            worker.wait_state("ready")
        wait_until(fleet.is_listed, 20, "the model is back")
    wait_until_idle(gateway)
    wait_until(lambda: total(tenant) == 100 - spent(tenant), 10, "all is settled")
    assert len(transfers(gateway, "refund")) >= 3  # a verdict is in the journal when it is counted
    expect_books(gateway)


def test_a_gateway_ends_amid_checks(make_gateway, make_operators):
    gateway = make_gateway(config={"probes": {"check_answers": 0.3, "canaries": "on"}})
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    for server in fleet.servers[1:]:
        server.fault(count=-1, head_delay_ms=20000)
    call_until(lambda: gateway.metric("sluice_answer_checks_running") >= 3 and any(fleet.seen()[1:]), lambda: ask(tenant, fleet, 0))
    assert gateway.stop() == 0


def store_of(gateway):
    import redis

    return redis.Redis(unix_socket_path=str(next(p for p in gateway.data_dir.rglob("*") if p.is_socket())))


def test_canaries_watch_where_nothing_can_be_compared(make_gateway, make_operators):
    gateway = make_gateway(config={"probes": {"check_answers": 0.3, "canaries": "on"}})
    fleet = make_operators(gateway, 3)
    tenant = gateway.tenant()
    store = store_of(gateway)
    made = 0

    def call():
        nonlocal made
        made += 1
        tenant.call("POST", "/v1/chat/completions", json=fleet.chat(temperature=0.7, user=str(made)))
        for worker in fleet.workers:
            store.delete(f"sl:canary:{worker.id}")  # another one may come within the minute

    def canaries():
        bodies = [json.loads(r["body"]) for server in fleet.servers for r in server.requests()]
        assert len(bodies) >= made
        return [b for b in bodies if b["temperature"] == 0]

    def until(condition, what):
        wait_until(lambda: call() or condition(), 90, what)

    kept = lambda: [json.loads(v) for k in store.scan_iter("sl:canary:*") if store.type(k) == b"hash" for v in store.hvals(k)]
    until(kept, "the answer to one is kept")
    known = json.loads(kept()[0]["question"])
    asked = lambda: sum(b == known for b in canaries())
    before = asked()
    until(lambda: asked() > before, "it is asked again")
    wait_until_idle(gateway)
    assert checks(gateway) == checks(gateway, "agreed")
    fleet.servers[0].fault(count=-1, say="lie")
    until(lambda: correctness(gateway, fleet, 0) > 0, "the liar's correctness falls")
    wait_until_idle(gateway)
    assert [correctness(gateway, fleet, i) for i in (1, 2)] == [0, 0]
    tenant.wait_rows(made)
    assert not transfers(gateway, "refund")
    expect_books(gateway)
    plain = [b for b in canaries() if "logprobs" not in b]
    assert plain and all(set(b) == {"model", "messages", "temperature", "max_tokens"} for b in plain)
