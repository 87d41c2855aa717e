"""Limits: sizes, slow clients, concurrency, rate, the queue."""

import threading
import time

import pytest

import harness
from harness import Raw, error_of, wait_until

TIGHT = {"limits": {"body_bytes": 200000, "header_bytes": 16384, "head_ms": 1000, "write_stall_ms": 1500, "queue_per_model": 2,
                    "queue_wait_ms": 1500}}


@pytest.fixture(scope="module")
def tight():
    gateway = harness.Gateway(config=TIGHT).start()
    fleet = harness.Fleet(gateway, slots=1)
    yield gateway, fleet
    fleet.remove()
    gateway.remove()


@pytest.fixture
def tight_fleet(tight):
    gateway, fleet = tight
    harness.live_processes.extend([gateway, *fleet.workers, *fleet.servers])
    fleet.server.clear()
    return fleet


@pytest.fixture
def tight_tenant(tight):
    return tight[0].tenant()


class Background:
    """A call that runs on a thread of its own."""

    def __init__(self, call):
        self.answer = self.seconds = None
        self.thread = threading.Thread(target=self.run, args=(call,))
        self.thread.start()

    def run(self, call):
        started = time.monotonic()
        self.answer = call()
        self.seconds = time.monotonic() - started

    def join(self):
        self.thread.join(30)
        return self.answer


def test_default_body_limit_is_32_mib(gateway, tenant, fleet):
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, headers={"X-No": "body"}, body=b"")
        raw.answer()
    with Raw(gateway) as raw:  # refused by the length alone
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\n"
                 f"Content-Type: application/json\r\nContent-Length: {32 * 1024 * 1024 + 1}\r\n\r\n")
        assert raw.answer().status == 413
    big = fleet.chat(messages=[{"role": "user", "content": "x" * (30 * 1024 * 1024)}])
    assert tenant.call("POST", "/v1/chat/completions", json=big).status_code == 200


def test_body_too_large(tight, tight_tenant, tight_fleet):
    at_limit = b'{"model":"%s","messages":[],"x":"' % tight_fleet.model.encode()
    at_limit += b"y" * (200000 - len(at_limit) - 2) + b'"}'
    kind = {"Content-Type": "application/json"}
    assert tight_tenant.call("POST", "/v1/chat/completions", content=at_limit, headers=kind).status_code == 200
    with Raw(tight[0]) as raw:
        answer = raw.request("POST", "/v1/chat/completions", tight_tenant.key, at_limit + b" ").answer()
        assert answer.status == 413 and answer.error["message"]


def test_chunked_body_too_large(tight, tight_tenant):
    with Raw(tight[0]) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tight_tenant.key}\r\n"
                 "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(30):
                raw.send(b"2710\r\n" + b"x" * 10000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert raw.answer().status == 413


def test_chunked_body_is_accepted(tight, tight_tenant, tight_fleet):
    import json
    body = json.dumps(tight_fleet.chat()).encode()
    with Raw(tight[0]) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tight_tenant.key}\r\n"
                 "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in body:
            raw.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        raw.send(b"0\r\n\r\n")
        assert raw.answer().status == 200
    assert tight_fleet.server.last()["body"] == body


def test_expect_100_continue(tight, tight_tenant, tight_fleet):
    import json
    body = json.dumps(tight_fleet.chat()).encode()
    with Raw(tight[0]) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tight_tenant.key}\r\nExpect: 100-continue\r\n"
                 f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        assert raw.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        assert raw.send(body).answer().status == 200


@pytest.mark.parametrize("headers", [{"X-Big": "x" * 20000}, [(f"X-{i}", "y" * 100) for i in range(200)]], ids=["one", "many"])
def test_header_too_large(tight, tight_tenant, headers):
    with Raw(tight[0]) as raw:
        answer = raw.request("GET", "/v1/models", tight_tenant.key, headers=headers).answer()
        assert answer.status == 431 and answer.error["message"]


def test_headers_of_60_kb_are_fine_by_default(gateway, tenant):
    with Raw(gateway) as raw:
        headers = [(f"X-{i}", "y" * 1000) for i in range(58)]
        assert raw.request("GET", "/v1/models", tenant.key, headers=headers).answer().status == 200


def test_slow_head_is_408(tight):
    with Raw(tight[0]) as raw:
        raw.send("GET /v1/models HTTP/1.1\r\nHost: g\r\nX-Slow: ")
        started = time.monotonic()
        assert raw.head().status == 408
        assert 0.5 < time.monotonic() - started < 5
        assert raw.is_closed()


def test_dripping_head_is_408_too(tight):
    """A byte now and then does not extend the deadline of the head."""
    with Raw(tight[0]) as raw:
        raw.send("GET /v1/models HTTP/1.1\r\nHost: g\r\nX-Slow: ")
        raw.socket.settimeout(0.2)
        started = time.monotonic()
        while time.monotonic() - started < 8:
            try:
                raw.send("a")
                if raw.more() == b"" or b"408" in raw.buffer:
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() - started < 5


def test_idle_connection_before_a_request_is_no_error(tight):
    with Raw(tight[0]) as raw:
        assert raw.request("GET", "/healthz").answer().status == 200


@pytest.mark.timeout(60)
def test_slow_body_is_408(gateway, tenant):
    """A body under 1024 bytes a second after its first 10 seconds is given up."""
    with Raw(gateway, timeout=30) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\n"
                 "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
        started = time.monotonic()
        assert raw.head().status == 408
        assert 8 < time.monotonic() - started < 20


def test_reader_that_takes_nothing_is_closed(tight, tight_tenant, tight_fleet):
    tight_fleet.server.fault(infinite=True, huge_bytes=50000)
    with Raw(tight[0], receive_buffer=4096) as raw:
        raw.request("POST", "/v1/chat/completions", tight_tenant.key, tight_fleet.chat(stream=True))
        raw.head()
        wait_until(lambda: tight_fleet.server.last()["end"] == "cancelled", 15, "the stalled reader is cut off")


def test_concurrency_of_a_key(gateway, fleet):
    tenant = gateway.tenant(max_concurrency=2)
    fleet.server.fault(count=2, head_delay_ms=1500)
    running = [Background(lambda: tenant.call("POST", "/v1/chat/completions", json=fleet.chat())) for _ in range(2)]
    wait_until(lambda: fleet.server.state()["active"] == 2, 5, "two calls run")
    started = time.monotonic()
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    assert time.monotonic() - started < 1
    assert error_of(answer, 429)["code"] == "concurrency_limit_exceeded"
    assert 0 < float(answer.headers["retry-after-ms"]) <= 60000
    assert [c.join().status_code for c in running] == [200, 200]
    assert tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200


def test_concurrency_is_given_back_on_every_way_out(gateway, fleet):
    tenant = gateway.tenant(max_concurrency=1)
    post = lambda **fields: tenant.call("POST", "/v1/chat/completions", json=fleet.chat(**fields))
    for fault, status in ((dict(status=400, body="{}"), 400), (dict(status=500, body=""), 502), (dict(die="before_head", count=2), 502),
                          (dict(status=429, body="{}"), 429), ({}, 200)):
        fleet.server.clear()
        fleet.server.fault(**fault)
        assert post().status_code == status
    for body in (b"{", b"[]", b'{"model":"none"}', b'{"model":7}'):
        tenant.call("POST", "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    fleet.server.clear()
    fleet.server.fault(die="mid")
    post(stream=True)
    fleet.server.fault(infinite=True, chunk_delay_ms=10)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True)).head()
    wait_until(lambda: post().status_code == 200, 3, "the slot of the key is free again")


def test_requests_a_minute(gateway, fleet):
    tenant = gateway.tenant(rpm=5)
    codes = [tenant.call("POST", "/v1/chat/completions", json=fleet.chat()) for _ in range(7)]
    limited = [c for c in codes if c.status_code == 429]
    assert 1 <= len(limited) <= 2
    assert error_of(limited[-1], 429)["code"] == "rate_limit_exceeded"
    assert 0 < float(limited[-1].headers["retry-after-ms"]) <= 60000
    assert limited[-1].headers["x-ratelimit-remaining-requests"] == "0"


def test_full_slots_queue_and_a_full_queue_refuses(tight, tight_tenant, tight_fleet):
    tight_fleet.server.fault(count=1, head_delay_ms=900)
    post = lambda: tight_tenant.call("POST", "/v1/chat/completions", json=tight_fleet.chat())
    calls = [Background(post)]
    wait_until(lambda: tight_fleet.server.state()["active"] == 1, 5, "the only slot is taken")
    calls += [Background(post) for _ in range(4)]
    statuses = sorted(c.join().status_code for c in calls)
    refused = [c.answer for c in calls if c.answer.status_code != 200]
    assert statuses.count(200) == 3, statuses  # one ran, two waited
    for answer in refused:
        assert answer.status_code in (429, 503)
        assert 0 < float(answer.headers["retry-after-ms"]) <= 60000
        error_of(answer, answer.status_code)
    assert min(c.seconds for c in calls if c.answer.status_code != 200) < 0.8, "a full queue must refuse at once"


def test_waiting_ends_after_queue_wait(tight, tight_tenant, tight_fleet):
    tight_fleet.server.fault(count=1, head_delay_ms=6000)
    with Raw(tight[0]) as raw:
        raw.request("POST", "/v1/chat/completions", tight_tenant.key, tight_fleet.chat())
        wait_until(lambda: tight_fleet.server.state()["active"] == 1, 5, "the only slot is taken")
        started = time.monotonic()
        answer = tight_tenant.call("POST", "/v1/chat/completions", json=tight_fleet.chat())
        assert answer.status_code in (429, 503) and 1 < time.monotonic() - started < 4
        assert 0 < float(answer.headers["retry-after-ms"]) <= 60000


def test_caller_that_leaves_the_queue(tight, tight_tenant, tight_fleet):
    before = len(tight_fleet.server.requests())
    tight_fleet.server.fault(count=1, head_delay_ms=1000)
    post = lambda: tight_tenant.call("POST", "/v1/chat/completions", json=tight_fleet.chat())
    first = Background(post)
    wait_until(lambda: tight_fleet.server.state()["active"] == 1, 5, "the only slot is taken")
    with Raw(tight[0]) as raw:
        raw.request("POST", "/v1/chat/completions", tight_tenant.key, tight_fleet.chat())
    assert first.join().status_code == 200
    assert post().status_code == 200
    assert len(tight_fleet.server.requests()) == before + 2, "a call whose caller had left was sent all the same"
