"""Proofs of GPUs, played by a CUDA driver that runs the kernels on the CPU (tests/fake_cuda), and what is stored of them."""

import json
import re
import subprocess
from datetime import datetime

import pytest

import harness
from harness import wait_until

FAKE = harness.REPO / "build/tests/fake_cuda/libfake_cuda.so"
CLASS = "nvidia/fake-4m"
CATALOGUE = f"""classes:
  - name: {CLASS}
    vram_gib: 0.00390625
    memory_gbps: 1
    int8_tops: 1
    compute_capability: 9.0
    driver_names: Fake
    double_rounds: 2
    passes: 1
    walkers: 16
    walk_steps: 8
    admission_chain: 128x4x2
    spot_chain: 128x4x2
    lease_chain: 64x2x2
    spot_fill_bytes: 1 MiB
    fill_gbps: 0.001
    pass_gbps: 0.001
    walk_gbps: 0.0001
    chain_tops: 0.00001
"""


@pytest.fixture(scope="module", autouse=True)
def fake_driver():
    if not FAKE.exists():
        pytest.skip("no C++ compiler: the emulated GPU was not built")


@pytest.fixture
def gateway_of_gpus(make_gateway, tmp_path):
    (tmp_path / "gpus.yaml").write_text(CATALOGUE)

    def make(**probes):
        return make_gateway(config={"probes": {"catalogue": str(tmp_path / "gpus.yaml"), **probes}, "log": {"level": "debug"}})

    return make


@pytest.fixture
def gpu_worker(make_server, tmp_path):
    """Workers on fake GPUs. Each number is another machine: its GPUs have other UUIDs."""
    made = []

    def make(gateway, number=1, devices=1, wait=True, used=0, **options):
        probe = tmp_path / f"probe-{number}-{devices}"
        probe.write_text(f"#!/bin/sh\nexport SLUICE_LIBCUDA={FAKE} SLUICE_CUDA_KERNELS={FAKE} FAKE_CUDA_MEMORY={4 << 20} FAKE_CUDA_REAL={(4 << 20) * devices} FAKE_CUDA_DEVICES={devices} FAKE_CUDA_MACHINE={number} FAKE_CUDA_SMS=4 FAKE_CUDA_USED={used}\n"
                         f"exec {harness.BUILD}/sluice-probe \"$@\"\n")
        probe.chmod(0o755)
        server = make_server(models=[harness.new_model_name()])
        made.append(harness.Worker(gateway, server, probe=str(probe), **{"gpus": devices, "gpu": CLASS, **options}))
        return made[-1].start(wait=wait)

    yield make
    for worker in made:
        worker.remove()


def receipts(gateway, worker_id):
    return gateway.admin_ok("GET", f"/api/v1/workers/{worker_id}/proofs")["data"]


def verify(path, *args):
    return subprocess.run([harness.BUILD / "sluice", "proof", "verify", path, *args], capture_output=True, text=True, timeout=60)


def test_a_gpu_is_proven_and_leaves_a_receipt(gateway_of_gpus, gpu_worker, tmp_path):
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway)
    row = gateway.worker(worker.id)
    assert row["state"] == "ready" and row["gpu"] == CLASS and row["gpu_proven"] == CLASS
    found = receipts(gateway, row["id"])
    assert len(found) == 1
    receipt = found[0]
    assert receipt["result"] == "passed" and receipt["class"] == CLASS and receipt["previous"] == ""
    assert [step["kind"] for step in receipt["steps"] if step["kind"] in ("fill", "pass", "walk", "chain", "bind")] == \
        ["fill", "pass", "walk", "chain", "bind"]
    assert all(step["passed"] for step in receipt["steps"])
    path = tmp_path / "receipts.json"
    path.write_text(json.dumps(found))
    assert verify(path).returncode == 0
    receipt["class"] = "nvidia/h100-sxm-80"
    path.write_text(json.dumps([receipt]))
    assert verify(path).returncode == 1


def test_every_gpu_of_a_worker_is_proven_at_once(gateway_of_gpus, gpu_worker):
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway, devices=3)
    found = receipts(gateway, worker.id)
    assert sorted(receipt["gpu"] for receipt in found) == [0, 1, 2]
    assert len({receipt["uuid_sha256"] for receipt in found}) == 3
    assert gateway.worker(worker.id)["gpus"] == 3


def test_a_worker_with_fewer_gpus_than_it_says_sells_what_it_has(gateway_of_gpus, gpu_worker):
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway, devices=2, gpus=4)
    offers = gateway.tenant().call("GET", "/api/v1/offers").json()["data"]
    assert [offer["count"] for offer in offers if offer["id"] == worker.id] == [2]
    assert len(receipts(gateway, worker.id)) == 2


def test_one_gpu_is_not_sold_twice(gateway_of_gpus, gpu_worker):
    gateway = gateway_of_gpus()
    first = gpu_worker(gateway)
    gpu_worker(gateway, wait=False)  # the same machine's GPU under another name
    row = wait_until(lambda: next((w for w in gateway.workers() if w["state"] == "suspended"), None), 30, "the twin suspended")
    assert row["id"] != first.id and "another worker" in row["reason"]
    assert gateway.worker(first.id)["state"] == "ready"
    # The first is gone: the GPU may go on under its new name.
    first.stop()
    wait_until(lambda: gateway.worker(row["id"])["state"] == "ready", 60, "the twin ready")


def test_an_operators_gpus_are_challenged_at_once(gateway_of_gpus, gpu_worker):
    gateway = gateway_of_gpus(reprobe_min_s=1, reprobe_max_s=2)
    ids = [gpu_worker(gateway, number=n).id for n in (1, 2, 3)]
    sizes = lambda: [int(n) for n in re.findall(r"(\d+) devices are challenged at once", gateway.log())]
    wait_until(lambda: sizes().count(3) >= 2, 90, "all three challenged at once, twice")
    # What "at once" came to: each time that three were let go, three challenges left within 20 ms.
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    at_ms = lambda line: datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp() * 1000
    spans = []
    for i, line in enumerate(lines):
        if line["message"] == "3 devices are challenged at once":
            sent = [at_ms(other) for other in lines[i:] if other["message"] == "challenged in its slot"][:3]
            spans.append(max(sent) - min(sent) if len(sent) == 3 else 0)
    assert sorted(spans)[len(spans) // 2] <= 20, spans
    assert all(gateway.worker(i)["state"] == "ready" for i in ids)


def test_a_workers_gpus_are_challenged_at_once(gateway_of_gpus, gpu_worker):
    """Also without others to compare with: else one GPU could answer for all, one after another."""
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway, devices=3)
    sizes = lambda: [int(n) for n in re.findall(r"(\d+) devices are challenged at once", gateway.log())]
    assert sizes() == [3, 3, 3]  # FILL, PASS, CHAIN
    assert gateway.admin("POST", f"/api/v1/workers/{worker.id}/proofs", 202).json()["state"] == "asked"
    wait_until(lambda: len(receipts(gateway, worker.id)) == 6, 30, "three more receipts")
    assert sizes() == [3] * 6


def test_a_further_gpu_is_admitted_before_it_is_sold(gateway_of_gpus, gpu_worker):
    """Not by a small check of an admitted worker, which says little of its memory."""
    gateway = gateway_of_gpus(reprobe_min_s=1, reprobe_max_s=2)
    worker = gpu_worker(gateway, gpus=2)
    worker.stop()
    with open(worker.options["probe"]) as f:
        text = f.read()
    with open(worker.options["probe"], "w") as f:
        f.write(text.replace("FAKE_CUDA_DEVICES=1", "FAKE_CUDA_DEVICES=2").replace(f"FAKE_CUDA_REAL={4 << 20}", f"FAKE_CUDA_REAL={8 << 20}"))
    worker.start()
    second = lambda: [r["purpose"] for r in receipts(gateway, worker.id) if r["gpu"] == 1]
    wait_until(second, 30, "the second GPU is proven")
    assert second()[-1] == "admission"


def test_who_claims_anothers_uuid_has_no_power_over_it(gateway_of_gpus, gpu_worker):
    """The UUID of a GPU is no secret: what is done under it by other keys is not held against its worker."""
    gateway = gateway_of_gpus(reprobe_min_s=1, reprobe_max_s=2)
    honest = gpu_worker(gateway)
    honest.stop()
    liar = gpu_worker(gateway, wait=False, env={"SLUICE_PROBE_FAULT": "wrong-proof"})
    bans = lambda: gateway.admin_ok("GET", "/api/v1/admin/bans")["data"]
    wait_until(lambda: {ban["kind"] for ban in bans()} == {"gpu", "key"}, 60, "the liar banned")
    liar.remove()
    before = len(receipts(gateway, honest.id))
    honest.start()
    wait_until(lambda: len(receipts(gateway, honest.id)) >= before + 3, 60, "proven again")
    row = gateway.worker(honest.id)
    assert row["state"] == "ready", row


def test_a_proof_is_asked_for_now(gateway_of_gpus, gpu_worker):
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway)
    assert gateway.admin("POST", f"/api/v1/workers/{worker.id}/proofs", 202).json()["state"] == "asked"
    found = wait_until(lambda: (r := receipts(gateway, worker.id)) and len(r) == 2 and r, 30, "a second receipt")
    assert [r["purpose"] for r in found] == ["spot", "admission"] and found[0]["result"] == "passed"
    assert gateway.admin("POST", "/api/v1/workers/wrk_00000000000000000000000000/proofs").status_code == 404


def test_memory_in_use_is_no_lie(gateway_of_gpus, gpu_worker, tmp_path):
    """A first proof waits for the memory; later ones take what a loaded model leaves."""
    gateway = gateway_of_gpus()
    worker = gpu_worker(gateway, used=3 << 20, wait=False)
    row = wait_until(lambda: next((w for w in gateway.workers() if w["state"] == "suspended"), None), 30, "suspended")
    worker.id = row["id"]
    assert "are free" in row["reason"] and row["banned_until"] is None
    assert receipts(gateway, worker.id) == []
    wait_until(lambda: "did not take a proof: hello: only" in worker.log(), 10, "the worker's operator is told")
    script = tmp_path / "probe-1-1"
    full = script.read_text()
    worker.stop()
    script.write_text(full.replace(f"FAKE_CUDA_USED={3 << 20}", "FAKE_CUDA_USED=0"))
    worker.start(wait=False)
    worker.wait_state("ready", 60)
    # The model is loaded now, and the gateway asks again: less, and nobody is suspended for it.
    worker.stop()
    script.write_text(full)
    worker.start(wait=False)
    worker.wait_state("ready")
    gateway.admin("POST", f"/api/v1/workers/{worker.id}/proofs", 202)
    found = wait_until(lambda: (r := receipts(gateway, worker.id)) and len(r) == 2 and r, 30, "a second receipt")
    assert [(r["purpose"], r["result"]) for r in found] == [("lease", "passed"), ("admission", "passed")]
    assert gateway.worker(worker.id)["state"] == "ready" and gateway.worker(worker.id)["gpu"] == CLASS
