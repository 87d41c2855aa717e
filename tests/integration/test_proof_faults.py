"""Proofs under fire: two gateways prove the same workers every second or two while gateways and workers are killed. No worker
may pay for that, and the receipts of each stay one chain."""

import json
import os
import random
import subprocess
import time
from collections import Counter


import harness
from harness import wait_until

SECONDS = float(os.environ.get("SLUICE_FAULT_SECONDS", "20"))
WORKERS = 6


def all_receipts(gateway, worker_id):
    """Oldest first."""
    return harness.all_pages(lambda params: gateway.admin_ok("GET", f"/api/v1/workers/{worker_id}/proofs", params=params))[::-1]


def is_one_chain(receipts):
    """Each names the one before it, and no two name the same."""
    return len({r["previous"] for r in receipts}) == len(receipts)


def test_a_gateway_stops_in_the_middle_of_proofs(make_gateway, make_server):
    gateway = make_gateway(config={"probes": {"reprobe_min_s": 1, "reprobe_max_s": 2}}, threads=2)
    server, dice = make_server(models=[harness.new_model_name()]), random.Random(7)
    workers = [harness.Worker(gateway, server) for _ in range(WORKERS)]
    try:
        for worker in workers:
            worker.start()
        for stop in range(int(os.environ.get("SLUICE_FAULT_STOPS", "8"))):
            asked = [gateway.admin("POST", f"/api/v1/workers/{worker.id}/proofs").status_code for worker in workers]
            assert set(asked) <= {202, 409}, asked
            time.sleep(dice.uniform(0, 0.06))
            assert gateway.stop() == 0, gateway.log()[-3000:]
            gateway.start()
            wait_until(lambda: all(w["linked"] for w in gateway.workers()), 30, "all linked again")
    finally:
        for worker in workers:
            worker.remove()


def test_proofs_under_fire(make_gateway, make_server, redis_url, tmp_path):
    config = {"redis": {"url": redis_url}, "probes": {"reprobe_min_s": 1, "reprobe_max_s": 2}}
    # AddressSanitizer keeps what was freed for a while: not so much that it looks like a leak.
    env = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=16"}
    gateways = [make_gateway(config=config, threads=2, start=False, env=env) for _ in range(2)]
    for gateway in gateways:
        gateway.start()
    server = make_server(models=[harness.new_model_name()])
    workers = [harness.Worker(gateways[0], server) for _ in range(WORKERS)]
    dice, kills = random.Random(20261122), Counter()
    try:
        for worker in workers:
            worker.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(dice.uniform(0.2, 1.2))
            victim = dice.choice(["worker", "worker", "gateway"])
            process = dice.choice(workers if victim == "worker" else gateways)
            process.kill()
            time.sleep(dice.uniform(0, 0.3))
            process.start(wait=False)
            kills[victim] += 1
        assert kills["worker"] and kills["gateway"], kills
        for gateway in gateways:
            gateway.wait_ready()
        # A claim of a gateway that died lasts half a minute; then another one goes on.
        counts = {w.id: len(all_receipts(gateways[0], w.id)) for w in workers}
        for worker in workers:
            worker.wait_state("ready", 60)
            wait_until(lambda: len(all_receipts(gateways[0], worker.id)) >= counts[worker.id] + 2, 60, "it is proven again")
        assert gateways[0].admin_ok("GET", "/api/v1/admin/bans")["data"] == []
        for gateway in gateways:
            for row in gateway.workers():
                assert row["state"] == "ready" and not row["reason"] and not row["banned_until"], row
            assert "suspended:" not in gateway.log(), [line for line in gateway.log().splitlines() if "suspended:" in line]
        for worker in workers:
            found = all_receipts(gateways[0], worker.id)
            assert found[0]["previous"] == "" and is_one_chain(found), [r["previous"] for r in found]
            assert {r["result"] for r in found} == {"passed"}, Counter(r["result"] for r in found)
            path = tmp_path / f"{worker.id}.json"
            path.write_text(json.dumps(found))
            said = subprocess.run([harness.BUILD / "sluice", "proof", "verify", path], capture_output=True, text=True, timeout=60)
            assert said.returncode == 0, said.stdout + said.stderr
        # Proofs leave nothing behind: what some fifty more of them take is noise.
        proofs = lambda: sum(len(all_receipts(gateways[0], w.id)) for w in workers)
        before, had = [harness.rss_kib(g.pid) for g in gateways], proofs()
        wait_until(lambda: proofs() >= had + 50, 120, "fifty more proofs")
        grown = [harness.rss_kib(g.pid) - rss for g, rss in zip(gateways, before)]
        print(f"kills {dict(kills)}, {proofs()} receipts, grown by {grown} KiB")
        assert max(grown) < 8192, grown
    finally:
        for worker in workers:
            worker.remove()
