"""/metrics, /healthz, /readyz, /api/v1/stats."""

import os
import shutil
import signal
import subprocess
from decimal import Decimal

import pytest

import harness
from harness import ADMIN_KEY, error_of, wait_until


def ask(tenant, fleet, **fields):
    return tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields))


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_has_no_complaint(gateway, tenant, fleet):
    ask(tenant, fleet)
    ask(tenant, fleet, stream=True)
    text = gateway.call("GET", "/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    # The name of this one is the contract's own; promtool would have it in seconds. It has no other complaint.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("sluice_gpu_milliseconds_total use base unit")]
    assert complaints == [] and done.returncode in (0, 3)


def test_names_and_counting(gateway, tenant, fleet):
    model = {"model": fleet.model, "network": "native"}
    before = {name: gateway.metric(name, **labels) for name, labels in
              (("sluice_requests_total", {**model, "status": "200"}), ("sluice_gpu_milliseconds_total", {}),
               ("sluice_billed_usd_nano_total", {}))}
    tokens = gateway.metric("sluice_tokens_total")
    fleet.server.fault(head_delay_ms=200)
    answer = ask(tenant, fleet, max_tokens=7)
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    expected = {"sluice_requests_total": 1, "sluice_gpu_milliseconds_total": int(answer.headers["x-sluice-gpu-ms"]),
                "sluice_billed_usd_nano_total": int(Decimal(answer.headers["x-sluice-cost-usd"]) * 10**9)}
    for name, by in expected.items():
        labels = {**model, "status": "200"} if name == "sluice_requests_total" else {}
        wait_until(lambda: gateway.metric(name, **labels) == before[name] + by, 5, f"{name} grew by {by}")
    wait_until(lambda: gateway.metric("sluice_tokens_total") == tokens + 7 + row["prompt_tokens"], 5, "tokens are counted")
    assert gateway.metric("sluice_workers", state="ready") >= 1
    text = gateway.call("GET", "/metrics").text
    histograms = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ") and line.endswith(" histogram")}
    assert all(name.startswith("sluice_") and name.endswith("_seconds") for name in histograms)
    for words in (("added",), ("first",), ("queue",), ("upstream",)):
        assert [n for n in histograms if all(w in n for w in words)], f"no histogram of {words} in {histograms}"


def test_errors_are_counted(gateway, tenant, fleet):
    before = gateway.metric("sluice_requests_total", status="404")
    tenant.call("POST", "/v1/chat/completions", json={"model": "nobody-serves-it", "messages": []})
    wait_until(lambda: gateway.metric("sluice_requests_total", status="404") == before + 1, 5, "the 404 is counted")


def test_unknown_models_make_no_labels(gateway, tenant):
    for n in range(5):
        tenant.call("POST", "/v1/chat/completions", json={"model": f"made-up-by-a-caller-{n}", "messages": []})
    assert "made-up-by-a-caller" not in gateway.call("GET", "/metrics").text


def test_no_secrets_in_labels(gateway, tenant, fleet):
    request_id = ask(tenant, fleet).headers["x-request-id"]
    text = gateway.call("GET", "/metrics").text
    for secret in (tenant.id, tenant.key, tenant.key_id, request_id, ADMIN_KEY):
        assert secret not in text


def test_health_and_readiness(gateway):
    assert gateway.call("GET", "/healthz").status_code == 200
    assert gateway.call("GET", "/readyz").status_code == 200


def test_not_ready_without_redis(make_gateway):
    own = make_gateway()
    pid = own.redis_pid()
    assert pid, "no redis-server among the children of the gateway"
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: own.call("GET", "/readyz").status_code == 503, 20, "not ready while Redis is silent")
        assert own.call("GET", "/healthz").status_code == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: own.call("GET", "/readyz").status_code == 200, 20, "ready again")


def test_stats(gateway, tenant, fleet):
    ask(tenant, fleet)
    tenant.wait_rows(1)
    own = tenant.call("GET", "/api/v1/stats")
    assert own.status_code == 200 and isinstance(own.json(), dict)
    everything = gateway.admin("GET", "/api/v1/stats")
    assert everything.status_code == 200
    error_of(gateway.call("GET", "/api/v1/stats"), 401)
    stranger = gateway.tenant()
    assert tenant.id not in stranger.call("GET", "/api/v1/stats").text
