"""Workers: enrolment, the probe before the first job, restarts, draining, several gateways."""

import re
import socket
import subprocess
import threading
import time

import pytest

import harness
from harness import error_of, wait_until


def ask(tenant, fleet, **fields):
    return tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields))


def is_serving(gateway, worker_id):
    """Admitted, connected and taking calls."""
    worker = gateway.worker(worker_id)
    return worker["state"] == "ready" and worker["linked"] and not worker["draining"]


def test_offers_of_a_dead_worker_go(gateway, tenant, make_fleet):
    fleet = make_fleet(price="0.123456789")
    count = lambda: len([o for o in tenant.call("GET", "/api/v1/offers", params={"limit": 200}).json()["data"]
                         if o["price_per_gpu_hour_usd"] == "0.123456789"])
    wait_until(lambda: count() == 1, 5, "offered")
    fleet.worker.kill()
    wait_until(lambda: count() == 0, 10, "no longer offered")


def test_fields_of_a_worker(gateway, fleet):
    worker = gateway.worker(fleet.worker.id)
    assert set(worker) >= {"id", "state", "reason", "models", "gpu", "price_per_gpu_hour_usd", "slots", "in_flight", "region",
                           "reputation", "last_probe_at"}
    assert worker["state"] == "ready" and worker["models"] == [fleet.model] and worker["slots"] == 8
    assert worker["in_flight"] == 0 and worker["last_probe_at"] > 1.6e12
    assert 0 <= worker["reputation"] <= 1


def test_calls_move_availability_alone(gateway, tenant, make_fleet):
    fleet = make_fleet(price="1.00")
    parts = lambda: gateway.worker(fleet.worker.id)["reputation_parts"]
    before = wait_until(lambda: (p := parts())["hardware"]["good"] > 2.9 and p, 10, "its admission is scored")
    total = gateway.worker(fleet.worker.id)["reputation"]
    assert total > 0.4
    for _ in range(10):
        assert tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200
    wait_until(lambda: parts()["availability"]["good"] > before["availability"]["good"] + 0.09, 15, "its calls are counted")
    for name in ("hardware", "correctness", "network"):
        assert abs(parts()[name]["good"] - before[name]["good"]) < 0.01 and parts()[name]["bad"] == before[name]["bad"]
    assert abs(gateway.worker(fleet.worker.id)["reputation"] - total) < 0.01


def test_callers_do_not_see_workers(tenant):
    error_of(tenant.call("GET", "/api/v1/workers"), 403)


@pytest.mark.parametrize("fault", ["wrong-proof", "late-proof"])
def test_worker_that_fails_its_probe_gets_no_request(gateway, tenant, make_server, make_worker, fault):
    model = harness.new_model_name()
    server, honest = make_server(models=[model]), make_server(models=[model])
    worker = make_worker(server, wait=False, env={"SLUICE_WORKER_FAULT": fault}, price="0.01")
    suspended = wait_until(lambda: next((w for w in gateway.workers() if w["state"] == "suspended" and w["models"] == [model]), None), 60,
                           "worker suspended")
    assert suspended["reason"]
    dimension = "availability" if fault == "late-proof" else "hardware"
    wait_until(lambda: gateway.worker(suspended["id"])["reputation_parts"][dimension]["bad"] > 2.9, 10, "held against it")
    assert gateway.worker(suspended["id"])["reputation"] < 0.2
    answer = tenant.call("POST", "/v1/chat/completions", json={"model": model, "messages": []})
    assert answer.status_code == 404
    make_worker(honest)
    for _ in range(10):
        wait_until(lambda: tenant.call("POST", "/v1/chat/completions", json={"model": model, "messages": []}).status_code == 200, 10, "served")
    assert server.requests() == []
    got = tenant.call("POST", "/api/v1/route", json={"model": model}).json()
    assert suspended["id"] not in [c["worker"] for c in got["candidates"]]
    assert worker.is_up()


def test_wrong_revoked_and_expired_tokens(gateway, make_server, make_worker):
    server = make_server(models=[harness.new_model_name()])
    revoked = gateway.enrolment()
    assert gateway.admin("DELETE", f"/api/v1/admin/enrolments/{revoked['id']}").status_code == 204
    expired = gateway.enrolment(expires_at=int(time.time() * 1000) + 300)
    known = len(gateway.workers())
    past = time.time() + 0.4
    wait_until(lambda: time.time() > past, 2, "the token is past its expiry")
    for token in ("sl-wrong", revoked["token"], expired["token"]):
        worker = make_worker(server, wait=False, token=token)
        wait_until(lambda: not worker.is_up() or re.search("token|enrol|denied|401|403", worker.log(), re.I), 10, "the worker says why")
        worker.kill()
    assert len(gateway.workers()) == known


def test_one_token_enrols_many(gateway, make_server, make_worker):
    token = gateway.enrolment("supplier-many")["token"]
    model = harness.new_model_name()
    workers = [make_worker(make_server(models=[model]), token=token) for _ in range(3)]
    assert len({w.id for w in workers}) == 3


def test_worker_keeps_its_identity(gateway, tenant, make_fleet):
    fleet = make_fleet()
    before = fleet.worker.id
    fleet.worker.kill()
    wait_until(lambda: not is_serving(gateway, before), 10, "seen as gone")
    count = len(gateway.workers())
    fleet.worker.token = "not-needed-any-more"
    fleet.worker.start()
    fleet.worker.wait_state("ready")
    assert len(gateway.workers()) == count
    wait_until(lambda: ask(tenant, fleet).status_code == 200, 10, "serves again")


def test_secret_of_a_worker_is_private(make_fleet):
    fleet = make_fleet()
    files = [p for p in (fleet.worker.directory / "s").rglob("*") if p.is_file()]
    assert files
    for path in files:
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"


def test_drain_on_sigterm(gateway, tenant, make_fleet):
    fleet = make_fleet(2)
    drained, other = fleet.workers
    fleet.servers[0].fault(count=-1, chunk_delay_ms=150)
    texts = []

    def stream():
        texts.append("".join(c.choices[0].delta.content or "" for c in tenant.client().chat.completions.create(
            **fleet.chat(stream=True, max_tokens=10, user=f"u{len(texts)}-{threading.get_ident()}"))))

    threads = []
    while fleet.servers[0].state()["active"] == 0:
        threads.append(threading.Thread(target=stream))
        threads[-1].start()
        harness.threading.Event().wait(0.05)
        assert len(threads) < 50
    drained.process.terminate()
    wait_until(lambda: not is_serving(gateway, drained.id), 5, "no longer serving")
    seen = len(fleet.servers[0].requests())
    for n in range(10):
        answer = ask(tenant, fleet, user=f"later-{n}")
        assert answer.status_code == 200 and answer.headers["x-sluice-worker"] == other.id
    assert drained.process.wait(20) == 0
    for thread in threads:
        thread.join()
    assert len(fleet.servers[0].requests()) == seen
    assert all(len(t.split()) == 10 for t in texts), texts


def test_idle_worker_ends_at_once(tenant, make_fleet):
    fleet = make_fleet()
    started = time.monotonic()
    assert fleet.worker.stop() == 0
    assert time.monotonic() - started < 3
    # It has said that it leaves: nobody waits for its heartbeat to be missed.
    ask_model = lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    answer = wait_until(lambda: (a := ask_model()).status_code == 404 and a, 2, "its model is gone")
    assert answer.json()["error"]["code"] == "model_not_found"


def test_worker_survives_gateway_restarts(make_gateway, make_fleet):
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    for way in ("kill", "stop", "kill"):
        getattr(own, way)()
        own.start()
        wait_until(lambda: ask(tenant, fleet).status_code == 200, 20, f"the worker is back after {way}")
    assert fleet.worker.is_up() and len(own.workers()) == 1


def test_killed_worker_in_mid_request(tenant, make_fleet):
    fleet = make_fleet(2)
    fleet.servers[0].fault(count=-1, head_delay_ms=1500)
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(ask(tenant, fleet, user=f"u{n}").status_code)) for n in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: fleet.servers[0].state()["active"] > 0 or not any(t.is_alive() for t in threads), 5, "calls run")
    fleet.workers[0].kill()
    for thread in threads:
        thread.join()
    assert results == [200] * 8


def test_upstream_that_goes_and_comes(gateway, tenant, make_fleet):
    fleet = make_fleet()
    fleet.server.listen(False)
    answer = ask(tenant, fleet)
    assert answer.status_code in (502, 404, 503)
    fleet.server.listen(True)
    wait_until(lambda: ask(tenant, fleet).status_code == 200, 30, "serves again")


@pytest.mark.timeout(60)
def test_models_of_the_upstream_are_followed(gateway, tenant, make_fleet):
    fleet = make_fleet()
    other = harness.new_model_name()
    fleet.server.control.post("/models", json={"models": [other]})
    wait_until(lambda: tenant.call("GET", f"/v1/models/{other}").status_code == 200, 25, "the new model is listed")
    assert tenant.call("GET", f"/v1/models/{fleet.model}").status_code == 404


def test_upstream_key(gateway, tenant, make_server, make_worker, tmp_path):
    model = harness.new_model_name()
    server = make_server(models=[model], key="up-secret")
    worker = make_worker(server, upstream_key="env:UP_KEY", env={"UP_KEY": "up-secret"})
    post = lambda: tenant.call("POST", "/v1/chat/completions", json={"model": model, "messages": []})
    wait_until(lambda: post().status_code == 200, 5, "serves with the key")
    assert b"Bearer up-secret" in server.last()["head"] and tenant.key.encode() not in server.last()["head"]
    path = tmp_path / "key"
    path.write_text("up-secret\n")
    worker.remove()
    make_worker(server, upstream_key=f"file:{path}")
    wait_until(lambda: post().status_code == 200, 10, "key of a file")


def test_callers_key_never_reaches_the_upstream(tenant, fleet):
    ask(tenant, fleet)
    assert tenant.key.encode() not in fleet.server.last()["head"]


def test_two_gateways_on_one_redis(make_gateway, make_fleet, redis_url):
    first = make_gateway(config={"redis": {"url": redis_url}})
    fleet = make_fleet(on=first, slots=2)
    second = make_gateway(args=["--redis", redis_url])
    tenant = first.tenant()
    through = lambda gateway, **fields: gateway.call("POST", "/v1/chat/completions", key=tenant.key, json=fleet.chat(**fields))
    wait_until(lambda: through(second).status_code == 200, 10, "the worker's model is served by the new gateway too")
    # The worker's own cap holds for both together.
    fleet.server.fault(count=-1, head_delay_ms=200)
    statuses = []
    threads = [threading.Thread(target=lambda g=g: statuses.append(through(g).status_code)) for g in (first, second) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fleet.server.state()["peak"] <= 2
    assert statuses == [200] * 10
    key_id, key = tenant.new_key()
    wait_until(lambda: second.call("GET", "/v1/models", key=key).status_code == 200, 2, "a new key is known to both")
    first.admin("DELETE", f"/api/v1/admin/keys/{key_id}", status=204)
    wait_until(lambda: second.call("GET", "/v1/models", key=key).status_code == 401, 1.2, "a revoked key is refused by both")
    first.kill()
    tenant.gateway = second
    wait_until(lambda: through(second).status_code == 200, 5, "the other gateway goes on alone")


def link_ports(gateway):
    text = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
    ports = {int(re.search(r":(\d+)\s", line.split(None, 3)[3] + " ").group(1)) for line in text.splitlines() if f"pid={gateway.pid}," in line}
    return sorted(ports - {gateway.port})


@pytest.mark.parametrize("hello", [b"", b"GET / HTTP/1.1\r\n\r\n", b"SLUICE-LINK/1 wrk_x wrong boot\n", b"\x00" * 600, b"A" * 100000,
                                   b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=lambda b: str(b[:20]))
def test_link_without_a_secret_is_closed(gateway, fleet, hello):
    ports = link_ports(gateway)
    assert len(ports) == 1, f"one link listener expected, found {ports}"
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=8) as link:
        started = time.monotonic()
        try:
            link.sendall(hello)
            while link.recv(4096):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert time.monotonic() - started < 6
    assert gateway.call("GET", "/readyz").status_code == 200


def test_register_wants_a_token(gateway):
    for body in (b"", b"{}", b"[]", b'{"token":5}', b'{"token":"x"}'):
        answer = gateway.call("POST", "/worker/v1/register", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 401, 403), answer.text
        error_of(answer, answer.status_code)
