"""Bad requests by the hundred thousand leave the gateway as small as before."""

import json
import socket

import pytest

import harness

TOTAL = 100_000


def bad_requests(tenant, model):
    def post(body, key=tenant.key, path="/v1/chat/completions"):
        return (f"POST {path} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body

    good = json.dumps({"model": model, "messages": []}).encode()
    return [
        (401, post(good, key="sk-wrong")), (401, post(good, key="")), (400, post(b"{")), (400, post(b"[1,2,3]")), (400, post(b'{"model":7}')),
        (404, post(b'{"model":"nobody","messages":[]}')), (400, post(good[:-1] + b',"stream":"yes"}')), (400, post(b"\xff\xfe" * 50)),
        (400, post(b'{"model":"x","model":"y"}')), (404, b"GET /v1/nothing HTTP/1.1\r\nHost: g\r\n\r\n"),
        (405, b"DELETE /v1/models HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n"), (400, post(b'{"a":' * 2000)),
        (404, f"GET /v1/models/none%2Fsuch HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\n\r\n".encode()),
        (403, f"GET /api/v1/workers HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\n\r\n".encode()),
        (400, f"GET /api/v1/usage?from=x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\n\r\n".encode()),
        (400, post(good + b"junk")),
    ]


def send_all(gateway, batch, rounds):
    """Sends the batch again and again over one connection, several requests a write, and counts the answers by status."""
    data = b"".join(request for _, request in batch)
    counts = {}
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as s:
        for _ in range(rounds):
            s.sendall(data)
            seen, tail = 0, b""
            while seen < len(batch):
                got = s.recv(262144)
                assert got, f"closed after {seen} of {len(batch)} answers"
                seen, tail = count(tail + got, seen, counts)
    return counts


def count(data, seen, counts):
    """Counts the heads in data; keeps back the last few bytes, where a head may be cut."""
    at = 0
    while (found := data.find(b"HTTP/1.1 ", at)) >= 0 and len(data) >= found + 12:
        status = int(data[found + 9 : found + 12])
        counts[status] = counts.get(status, 0) + 1
        seen += 1
        at = found + 12
    return seen, data[max(at, len(data) - 11) :]


@pytest.mark.timeout(240)
def test_bad_requests_leave_no_trace(make_gateway, make_fleet):
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    batch = bad_requests(tenant, fleet.model)
    expected = {}
    for status, request in batch:
        with harness.Raw(own) as raw:
            answer = raw.send(request).answer()
            assert answer.status == status, (answer.status, request[:200], answer.body[:300])
            assert answer.error["message"] and answer.get("x-request-id")
        expected[status] = expected.get(status, 0) + 1
    rounds = TOTAL // len(batch) // 5
    sizes = []
    for _ in range(5):
        counts = send_all(own, batch, rounds)
        assert counts == {status: n * rounds for status, n in expected.items()}
        sizes.append(harness.rss_kib(own.pid))
    print(f"resident KiB after each {rounds * len(batch)} bad requests: {sizes}")
    assert sizes[-1] - sizes[0] < 2048, sizes
    assert sizes[-1] < 40 * 1024, sizes
    assert tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200
    assert fleet.server.requests()[:-1] == []


def test_connections_that_come_and_go(gateway, tenant, fleet):
    """Hang-ups at every point of a request leave no memory, no call and no connection behind."""
    body = json.dumps(fleet.chat(stream=True)).encode()
    request = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {tenant.key}\r\nContent-Type: application/json\r\n"
               f"Content-Length: {len(body)}\r\n\r\n").encode() + body

    def round_of():
        for at in range(0, len(request) + 1, 5):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as s:
                s.sendall(request[:at])

    round_of()
    before = harness.rss_kib(gateway.pid)
    for _ in range(10):
        round_of()
    assert harness.rss_kib(gateway.pid) - before < 2048
    harness.wait_until(lambda: fleet.server.state()["active"] == 0, 10, "no upstream call is left")
    harness.wait_until(lambda: gateway.worker(fleet.worker.id)["in_flight"] == 0, 10, "nothing is in flight")
