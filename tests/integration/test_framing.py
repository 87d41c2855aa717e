"""Ambiguous HTTP framing is 400 and the connection closes: the door to request smuggling stays shut."""

import json

import pytest

from harness import Raw

HOST = "Host: g\r\n"
JSON = "Content-Type: application/json\r\n"
BAD = {
    "length and chunked": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": f"POST /v1/models HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths that differ": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two lengths that agree": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "list of lengths": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 4, 4\r\n\r\nabcd",
    "negative length": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n",
    "signed length": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: +4\r\n\r\nabcd",
    "hex length": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 0x4\r\n\r\nabcd",
    "length beyond 64 bits": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: 99999999999999999999999\r\n\r\n",
    "empty length": f"POST /v1/models HTTP/1.1\r\n{HOST}Content-Length: \r\n\r\n",
    "folded header": f"GET /v1/models HTTP/1.1\r\n{HOST}X-A: b\r\n c\r\n\r\n",
    "folded by tab": f"GET /v1/models HTTP/1.1\r\n{HOST}X-A: b\r\n\tc\r\n\r\n",
    "bare LF between headers": f"GET /v1/models HTTP/1.1\r\n{HOST}X-A: b\nX-C: d\r\n\r\n",
    "bare LF after the request line": f"GET /v1/models HTTP/1.1\n{HOST}\r\n",
    "only LF": "GET /v1/models HTTP/1.1\nHost: g\n\n",
    "bare CR in a value": f"GET /v1/models HTTP/1.1\r\n{HOST}X-A: b\rX-C: d\r\n\r\n",
    "NUL in a value": f"GET /v1/models HTTP/1.1\r\n{HOST}X-A: b\0c\r\n\r\n",
    "NUL in the path": f"GET /v1/mod\0els HTTP/1.1\r\n{HOST}\r\n",
    "blank before the colon": f"GET /v1/models HTTP/1.1\r\n{HOST}Content-Length : 0\r\n\r\n",
    "header without a colon": f"GET /v1/models HTTP/1.1\r\n{HOST}nonsense\r\n\r\n",
    "header without a name": f"GET /v1/models HTTP/1.1\r\n{HOST}: x\r\n\r\n",
    "chunked twice": f"POST /v1/models HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": f"POST /v1/models HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
BAD_CHUNKS = {
    "size is no number": "zz\r\nabc\r\n0\r\n\r\n",
    "size with sign": "-1\r\n\r\n0\r\n\r\n",
    "size beyond 64 bits": "fffffffffffffffff1\r\na\r\n0\r\n\r\n",
    "chunk longer than its size": "3\r\nabcdef\r\n0\r\n\r\n",
    "bare LF after the size": "3\nabc\r\n0\r\n\r\n",
    "bare LF after the data": "3\r\nabc\n0\r\n\r\n",
    "size 0x": "0x3\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_ambiguous_head(gateway, name):
    with Raw(gateway) as raw:
        raw.send(BAD[name] + "GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
        answer = raw.answer()
        assert answer.status == 400
        assert answer.error["message"]
        assert raw.is_closed() and b"HTTP/1.1" not in raw.buffer, "the bytes after it were taken for a request"


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_ambiguous_chunks(gateway, tenant, name):
    with Raw(gateway) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.1\r\n{HOST}Authorization: Bearer {tenant.key}\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n")
        raw.send(BAD_CHUNKS[name] + "GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
        assert raw.answer().status == 400
        assert raw.is_closed()


@pytest.mark.parametrize("coding,statuses", [("gzip", [501]), ("xchunked", [501]), ("identity", [501]), ("gzip, chunked", [501]),
                                             ("chunked, gzip", [400, 501]), ("chunked, identity", [400, 501])])
def test_unknown_transfer_coding(gateway, coding, statuses):
    with Raw(gateway) as raw:
        raw.send(f"POST /v1/models HTTP/1.1\r\n{HOST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n")
        assert raw.answer().status in statuses
        assert raw.is_closed()


def test_every_split_of_a_bad_head_is_caught(gateway):
    """The check must not depend on how the bytes arrive."""
    data = BAD["length and chunked"]
    for at in range(1, len(data) - 8, 7):
        with Raw(gateway) as raw:
            raw.send(data[:at])
            raw.send(data[at:])
            assert raw.answer().status == 400
            assert raw.is_closed()


def test_second_request_of_a_connection_is_checked_too(gateway):
    with Raw(gateway) as raw:
        raw.send("GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n" + BAD["chunked and length"])
        assert raw.answer().status == 200
        assert raw.answer().status == 400
        assert raw.is_closed()


def test_request_after_a_body_is_checked_too(gateway, tenant, fleet):
    body = json.dumps(fleet.chat()).encode()
    good = (f"POST /v1/chat/completions HTTP/1.1\r\n{HOST}{JSON}Authorization: Bearer {tenant.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    with Raw(gateway) as raw:
        raw.send(good + BAD["bare LF between headers"].encode())
        assert raw.answer().status == 200
        assert raw.answer().status == 400
        assert raw.is_closed()


def test_bare_line_feeds_in_a_body_are_just_bytes(gateway, tenant, fleet):
    body = b'{\n\r"model":"%s",\r"messages":[]\n}' % fleet.model.encode()
    with Raw(gateway) as raw:
        assert raw.request("POST", "/v1/chat/completions", tenant.key, body).answer().status == 200
    assert fleet.server.last()["body"] == body


def test_pipelined_requests_are_answered_in_order(gateway, tenant, fleet):
    with Raw(gateway) as raw:
        for n in range(1, 6):
            raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(max_tokens=n))
        for n in range(1, 6):
            assert raw.answer().json()["usage"]["completion_tokens"] == n


def test_missing_host_and_wrong_version(gateway):
    for head in ("GET /healthz HTTP/1.1\r\n\r\n", "GET /healthz HTTP/3.7\r\nHost: g\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n"):
        with Raw(gateway) as raw:
            raw.send(head)
            assert raw.head().status in (400, 501, 505)
            assert raw.is_closed()
