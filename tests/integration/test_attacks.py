"""Workers that cheat, as real processes: sluice-worker with tests/attacks/cheat.c in the place of its probe."""

import os
import re
import shutil
import subprocess

import pytest

import harness
from harness import wait_until

CHEAT = harness.BUILD / "attacks/cheat"
MIB_KIB = 1024
# What each is told, by the step that saw it first.
TILES, CHAIN = r"tile \d+( of pass \d+)? is not what was filled", r"row \d+ is not what was asked for"
WRONG = {
    "missing-tiles": TILES + r"|walker \d+ did not go that way",
    "less-memory": "claims more memory than it can fill",
    "stale-tiles": TILES,
    "one-pass": TILES,
    "half-walk": r"walker \d+ did not go that way",
    "skip-rows": CHAIN,
    "skip-block": CHAIN,
    "skip-step": CHAIN,
    "premultiplied": CHAIN,
    "stale-chain": CHAIN,
    "root-of-another-worker": TILES,
    "root-of-another-session": TILES,
    "wrong-path": TILES,
    "late-root": TILES,
    "half-frame": "no frame of the protocol",
    "garbage": "no frame of the protocol",
    "oversize": "no frame of the protocol",
}
MUTE = {"half-frame", "garbage", "oversize"}  # without a hello nobody knows their keys


@pytest.fixture(scope="module", autouse=True)
def cheat_is_built():
    subprocess.run(["make", "-s", f"BUILD={harness.BUILD.relative_to(harness.REPO)}", str(CHEAT.relative_to(harness.REPO))],
                   cwd=harness.REPO, check=True, timeout=900)


@pytest.fixture
def probe_of(tmp_path):
    def make(cheat):
        path = tmp_path / f"cheat-{cheat}"
        path.write_text(f'#!/bin/sh\nexec {CHEAT} --cheat {cheat} "$@"\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def cheats(probe_of, make_worker):
    """Workers by their cheats, started together; the price makes them the first choice of every call."""

    def make(gateway, server, names, **options):
        workers = {}
        for name in names:
            worker = make_worker(server, on=gateway, start=False, probe=probe_of(name), price="0.01", **options)
            known = {w["id"] for w in gateway.workers()}
            worker.start(wait=False)
            worker.id = wait_until(lambda: next((w["id"] for w in gateway.workers() if w["id"] not in known), None), 30, f"{name} registered")
            workers[name] = worker
        return workers

    return make


def bans(gateway):
    return gateway.admin_ok("GET", "/api/v1/admin/bans")["data"]


def is_banned(gateway, worker):
    return (gateway.worker(worker.id)["reason"] or "").startswith("banned until")


def cpu_seconds(gateway):
    fields = open(f"/proc/{gateway.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.timeout(240)
def test_every_cheat_is_banned_and_never_called(make_gateway, make_server, make_worker, cheats, probe_of):
    gateway = make_gateway()
    model = harness.new_model_name()
    cheated, honest = make_server(models=[model]), make_server(models=[model])
    control = make_worker(honest, on=gateway, probe=probe_of("none"))
    tenant = gateway.tenant()
    post = lambda: tenant.call("POST", "/v1/chat/completions", json={"model": model, "messages": []}).status_code
    workers = cheats(gateway, cheated, WRONG)
    for name, worker in workers.items():
        suspended = worker.wait_state("suspended", 60)
        assert re.search(WRONG[name], suspended["reason"]), f"{name}: {suspended['reason']}"
        assert post() == 200
    # The second failure, a second later, and it is out for a month, by its key; those that never said a word have none.
    wait_until(lambda: all(is_banned(gateway, w) for w in workers.values()), 60, "all are banned")
    keys = {w.id for name, w in workers.items() if name not in MUTE}
    wait_until(lambda: keys == {b["worker"] for b in bans(gateway)}, 10, "their keys are banned")
    assert all(b["until_at"] - b["at"] > 29 * 86400 * 1000 for b in bans(gateway))
    for _ in range(5):
        assert post() == 200
    assert cheated.requests() == [] and len(honest.requests()) >= 5
    assert gateway.worker(control.id)["state"] == "ready"
    assert not {b["worker"] for b in bans(gateway)} & {control.id}


@pytest.mark.timeout(120)
def test_a_ban_stays_with_the_key(make_gateway, make_server, make_worker, cheats, probe_of):
    """The same machine enrols again, as another supplier's, and is honest from now on."""
    gateway = make_gateway()
    server = make_server(models=[harness.new_model_name()])
    worker = cheats(gateway, server, ["skip-step"])["skip-step"]
    wait_until(lambda: worker.id in {b["worker"] for b in bans(gateway)}, 60, "banned")
    worker.kill()
    state = worker.directory / "s"
    kept = [p for p in state.rglob("probe.key")]
    assert kept, "the probe's key is in the state directory"
    again = make_worker(server, on=gateway, start=False, token=gateway.enrolment("another")["token"], probe=probe_of("none"))
    for path in kept:
        to = again.directory / "s" / path.relative_to(state)
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(again.directory / "s", 0o700)
        shutil.copy2(path, to)
    known = {w["id"] for w in gateway.workers()}
    again.start(wait=False)
    again.id = wait_until(lambda: next((w["id"] for w in gateway.workers() if w["id"] not in known), None), 20, "registered again")
    assert again.id != worker.id
    suspended = again.wait_state("suspended", 30)
    assert suspended["reason"].startswith("banned"), suspended["reason"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["garbage", "oversize", "half-frame"])
def test_garbage_costs_little(make_gateway, make_server, cheats, name):
    """Each worker is looked at twice, and then banned. Afterwards nothing of it is left."""
    gateway = make_gateway()
    server = make_server(models=[harness.new_model_name()])
    count = 20 if name == "garbage" else 8
    done = lambda: gateway.metric("sluice_proofs_total", result="wrong")
    first = cheats(gateway, server, [name])[name]
    wait_until(lambda: is_banned(gateway, first), 60, "the first is banned")
    first.kill()
    attempts, rss = done(), harness.rss_kib(gateway.pid)
    checked, cpu = gateway.metric("sluice_proof_cpu_seconds_total", work="check"), cpu_seconds(gateway)
    workers = [cheats(gateway, server, [name])[name] for _ in range(count)]
    wait_until(lambda: all(is_banned(gateway, w) for w in workers), 120, "all are banned")
    attempts = done() - attempts
    assert attempts >= 2 * count
    checked = (gateway.metric("sluice_proof_cpu_seconds_total", work="check") - checked) / attempts
    all_of_it = (cpu_seconds(gateway) - cpu) / attempts
    grown = harness.rss_kib(gateway.pid) - rss
    print(f"{name}: {attempts:.0f} attempts, {checked * 1e3:.2f} ms of checking each, {all_of_it * 1e3:.2f} ms in all, {grown} KiB more")
    assert checked < 0.010
    assert grown < 16 * MIB_KIB


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["torn", "flood", "silent"])
def test_broken_pipes_do_not_reach_the_gateway(make_gateway, make_server, make_worker, cheats, probe_of, name):
    """The agent ends such a probe, or waits for it; the gateway sees no answer, and the others go on."""
    gateway = make_gateway()
    model = harness.new_model_name()
    server = make_server(models=[model])
    worker = cheats(gateway, server, [name])[name]
    if name == "silent":
        worker.wait_state("suspended", 60)
        assert gateway.metric("sluice_proofs_total", result="late") >= 1
    else:
        wait_until(lambda: gateway.metric("sluice_proofs_total", result="lost") + gateway.metric("sluice_proofs_total", result="wrong") >= 1,
                   60, "a proof was lost")
    assert gateway.worker(worker.id)["state"] != "ready"
    other = make_worker(make_server(models=[model]), on=gateway, probe=probe_of("none"))
    assert gateway.worker(other.id)["state"] == "ready" and worker.is_up()
    assert server.requests() == []


@pytest.mark.timeout(60)
def test_a_name_alone_sells_nothing(make_gateway, make_server, make_worker):
    """A machine without a GPU that says it is one of a hundred: sold as what it is, or not at all."""
    server = make_server(models=[harness.new_model_name()])
    gateway = make_gateway()
    worker = make_worker(server, on=gateway, gpu="nvidia/h100-sxm-80", price="0.01")
    tenant = gateway.tenant()
    offers = [o for o in tenant.call("GET", "/api/v1/offers", params={"limit": 200}).json()["data"]]
    assert worker.id and [o["gpu"] for o in offers] == ["cpu"], offers
    strict = make_gateway(config={"probes": {"mismatch": "suspend"}})
    claimant = make_worker(server, on=strict, start=False, gpu="nvidia/h100-sxm-80", price="0.01")
    claimant.start(wait=False)
    suspended = wait_until(lambda: next((w for w in strict.workers() if w["state"] == "suspended"), None), 40, "suspended")
    assert re.search("claims nvidia/h100-sxm-80, proves cpu", suspended["reason"]), suspended["reason"]


@pytest.mark.timeout(120)
def test_twenty_honest_workers_join_at_once(make_gateway, make_server, make_worker):
    gateway = make_gateway()
    server = make_server(models=[harness.new_model_name()])
    token = gateway.enrolment()["token"]
    workers = [make_worker(server, on=gateway, wait=False, token=token) for _ in range(20)]
    wait_until(lambda: [w["state"] for w in gateway.workers()].count("ready") == 20, 90, "all are ready")
    assert gateway.metric("sluice_proofs_total", result="passed") >= 20
    for result in ("wrong", "slow", "late", "lost"):
        assert gateway.metric("sluice_proofs_total", result=result) == 0, result
    assert bans(gateway) == [] and all(w.is_up() for w in workers)
