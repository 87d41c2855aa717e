"""What a stream looks like on the wire, and what happens when the worker's side breaks it."""

import base64
import json
from decimal import Decimal

import openai
import pytest

import harness
from harness import Raw, sse_data, wait_until

ASK = [{"role": "user", "content": "hello there"}]


def raw_stream(gateway, tenant, fleet, path="/v1/chat/completions", headers=(), **fields):
    with Raw(gateway) as raw:
        raw.request("POST", path, tenant.key, fleet.chat(stream=True, **fields), headers)
        return raw.answer()


def content_of(events):
    return "".join(c["delta"].get("content") or "" for e in events if e != b"[DONE]" for c in json.loads(e)["choices"])


def test_shape_and_trailers(gateway, tenant, fleet):
    answer = raw_stream(gateway, tenant, fleet)
    assert answer.status == 200
    assert answer.get("content-type").startswith("text/event-stream")
    assert answer.get("cache-control") == "no-cache"
    assert answer.get("x-sluice-worker") == fleet.worker.id
    assert answer.get("x-sluice-network") == "native"
    announced = {t.strip().lower() for t in answer.get("trailer").split(",")}
    assert announced >= {"x-sluice-cost-usd", "x-sluice-gpu-ms"}
    events = sse_data(answer.body)
    assert events[-1] == b"[DONE]" and answer.body.endswith(b"data: [DONE]\n\n")
    gpu_ms = int(answer.trailers["x-sluice-gpu-ms"])
    assert Decimal(answer.trailers["x-sluice-cost-usd"]) == (Decimal(2) * gpu_ms / 3600000).quantize(Decimal("1e-9"))
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert row["gpu_ms"] == gpu_ms and Decimal(row["cost_usd"]) == Decimal(answer.trailers["x-sluice-cost-usd"])


def test_http_1_0_gets_no_chunks_and_no_trailers(gateway, tenant, fleet):
    body = json.dumps(fleet.chat(stream=True)).encode()
    with Raw(gateway) as raw:
        raw.send(f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {tenant.key}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = raw.head()
        assert answer.get("transfer-encoding") is None and answer.get("trailer") is None
        assert raw.rest().endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("dirt", [
    {"crlf": True}, {"bom": True}, {"extra_lines": ["id: 17"]}, {"extra_lines": ["event: message"]}, {"extra_lines": ["retry: 1000"]},
    {"write_bytes": 1}, {"comment_at": 2}, {"crlf": True, "write_bytes": 1, "extra_lines": ["id: 1", "event: chunk"]},
], ids=str)
def test_dirty_streams_leave_clean(gateway, tenant, fleet, dirt):
    fleet.server.fault(**dirt)
    answer = raw_stream(gateway, tenant, fleet)
    assert b"\r" not in answer.body and not answer.body.startswith(b"\xef")
    events = sse_data(answer.body)
    assert events[-1] == b"[DONE]" and events.count(b"[DONE]") == 1
    assert content_of(events) == "a0 a1 a2 a3 a4 "


def test_data_lines_are_untouched(gateway, tenant, fleet):
    lines = [b'{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}',
             b'{ "id":"x", "choices":[{"index":0,"delta":{"content":"caf\xc3\xa9 \\u00e9 1.50 12345678901234567890"}}] , "z" : 1.0}',
             b'{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}']
    stream = b"".join(b"data: " + line + b"\n\n" for line in lines) + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(stream)
    fleet.server.fault(raw=base64.b64encode(head + stream).decode())
    assert sse_data(raw_stream(gateway, tenant, fleet).body) == lines + [b"[DONE]"]


@pytest.mark.parametrize("ending", [b"data: [DONE]", b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]\n"], ids=str)
def test_done_is_exact_however_it_came(gateway, tenant, fleet, ending):
    line = b'{"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}'
    stream = b"data: " + line + b"\n\n" + ending
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(stream)
    fleet.server.fault(raw=base64.b64encode(head + stream).decode())
    answer = raw_stream(gateway, tenant, fleet)
    assert sse_data(answer.body) == [line, b"[DONE]"]


def test_finish_without_done_counts_as_complete(gateway, tenant, fleet):
    fleet.server.fault(no_done=True)
    events = sse_data(raw_stream(gateway, tenant, fleet).body)
    assert events[-1] == b"[DONE]"
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) >= 0


def test_finish_of_one_choice_of_two_is_not_complete(client, fleet):
    events = [{"choices": [{"index": i, "delta": {"content": "x"}, "finish_reason": f}]} for i, f in ((0, None), (1, None), (0, "stop"))]
    stream = "".join(f"data: {json.dumps(e)}\n\n" for e in events).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(stream)
    fleet.server.fault(raw=base64.b64encode(head + stream).decode())
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=fleet.model, messages=ASK, n=2, stream=True))


BROKEN = [{"die": "mid"}, {"die": "mid", "rst": True}, {"no_finish": True, "no_done": True}, {"malformed_at": 3}, {"error_at": 3}]


@pytest.mark.parametrize("fault", BROKEN, ids=str)
def test_dead_stream_raises_and_is_free(client, tenant, fleet, fault):
    fleet.server.fault(chunk_delay_ms=10, **fault)
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=8, stream=True):
            got.append(chunk)
    assert caught.value.message
    assert any(c.choices and c.choices[0].delta.content for c in got), "content that had come was not passed on"
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) == 0
    assert Decimal(tenant.balance()["available_usd"]) + Decimal(tenant.balance()["held_usd"]) == 100


def test_dead_stream_on_the_wire(gateway, tenant, fleet):
    fleet.server.fault(die="mid", chunk_delay_ms=20)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        assert raw.head().status == 200
        try:
            while b"\r\n0\r\n" not in raw.buffer and raw.more():
                pass
        except ConnectionResetError:
            pass
        rest = raw.buffer.partition(b"\r\n0\r\n")[0] + b"\r\n"
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    events = sse_data(body)
    assert b"[DONE]" not in events
    error = json.loads(events[-1])["error"]
    assert error["message"] and set(error) >= {"message", "type", "param", "code"}


@pytest.mark.parametrize("fault", [{"die": "before_head"}, {"die": "after_head"}, {"die": "after_role"},
                                   {"die": "after_role", "rst": True}, {"status": 500, "body": "no"},
                                   {"malformed_at": 0}, {"error_at": 0}], ids=str)
def test_failover_before_the_first_content(tenant, make_fleet, fault):
    fleet = make_fleet(2)
    for server in fleet.servers:
        server.fault(**fault)  # whichever is asked first breaks; the other one, asked next, still has its fault
    first, second = fleet.servers
    client = tenant.client()
    # Two attempts, both broken: no content came, so the caller sees an error and no half answer.
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=fleet.model, messages=ASK, stream=True))
    assert sorted(fleet.seen()) == [1, 1]
    # Now only one is broken: the caller does not notice.
    asked = len(first.requests()) + len(second.requests())
    for _ in range(4):
        before = fleet.seen()
        first.fault(**fault)
        text = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model=fleet.model, messages=ASK, stream=True))
        assert text in ("a0 a1 a2 a3 a4 ", "b0 b1 b2 b3 b4 ")
        first.clear()
        if fleet.seen()[0] > before[0]:
            assert text.startswith("b")
    assert len(first.requests()) + len(second.requests()) >= asked + 4


def test_failover_leaves_one_role_chunk(gateway, tenant, make_fleet):
    fleet = make_fleet(2)
    for _ in range(6):
        fleet.servers[0].fault(die="after_role")
        events = sse_data(raw_stream(gateway, tenant, fleet).body)
        fleet.servers[0].clear()
        roles = [e for e in events if b'"role":"assistant"' in e]
        ids = {json.loads(e)["id"] for e in events if e != b"[DONE]"}
        assert len(roles) == 1 and len(ids) == 1


def test_no_failover_after_content(tenant, make_fleet):
    fleet = make_fleet(2)
    for server in fleet.servers:
        server.fault(die="mid", chunk_delay_ms=10)
    with pytest.raises(openai.APIError):
        list(tenant.client().chat.completions.create(model=fleet.model, messages=ASK, max_tokens=8, stream=True))
    assert sorted(fleet.seen()) == [0, 1]


def test_responses_fail_over_until_the_first_delta(tenant, make_fleet):
    fleet = make_fleet(2)
    for _ in range(4):
        fleet.servers[0].fault(die="after_role")
        events = list(tenant.client().responses.create(model=fleet.model, input="x", stream=True))
        fleet.servers[0].clear()
        assert [e.type for e in events].count("response.created") == 1
        assert events[-1].type == "response.completed"


def test_responses_pass_as_they_are(gateway, tenant, fleet):
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/responses", tenant.key, {"model": fleet.model, "input": "x", "stream": True})
        answer = raw.answer()
    assert answer.body.startswith(b"event: response.created\ndata: {")
    assert b"[DONE]" not in answer.body
    assert json.loads(fleet.server.last()["body"]) == {"model": fleet.model, "input": "x", "stream": True}


def test_broken_responses_stream_is_not_a_clean_end(tenant, fleet):
    fleet.server.fault(die="mid", chunk_delay_ms=10)
    with pytest.raises((openai.APIError, openai.APIConnectionError)) as caught:
        events = list(tenant.client().responses.create(model=fleet.model, input="x", stream=True))
        if events[-1].type == "error":  # the client hands an error event of this endpoint to the caller as an event
            raise openai.APIError(events[-1].message, request=None, body=None)
    assert caught.value.message


def test_caller_that_closes_at_done_completed(gateway, tenant, fleet):
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        raw.read_until(b"data: [DONE]\n\n")
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert row["completion_tokens"] == 5


def test_slow_reader_slows_the_upstream(gateway, tenant, fleet):
    """Flow control from end to end: a caller that does not read makes the model server wait, not the gateway grow."""
    fleet.server.fault(infinite=True, huge_bytes=100000)
    before = harness.rss_kib(gateway.pid)
    with Raw(gateway, receive_buffer=4096) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        raw.head()
        last = -1

        def stalled():
            nonlocal last
            now = fleet.server.last()["chunks"]
            is_same, last = now == last and now > 3, now
            return is_same and harness.threading.Event().wait(0.3) is False and fleet.server.last()["chunks"] == now

        wait_until(stalled, 20, "the model server is held back")
        assert last < 400, f"{last} chunks of 100 kB were taken from a caller that reads nothing"
        assert harness.rss_kib(gateway.pid) - before < 20000
    wait_until(lambda: fleet.server.last()["end"] == "cancelled", 5, "upstream cancelled")


def test_keep_alive_is_a_comment(gateway, tenant, fleet):
    """A long silence before the first token is filled with comments, if with anything."""
    fleet.server.fault(first_delay_ms=3000)
    events = sse_data(raw_stream(gateway, tenant, fleet).body)
    assert events[-1] == b"[DONE]" and content_of(events) == "a0 a1 a2 a3 a4 "


def test_long_stream_is_whole(client, fleet):
    fleet.server.fault(chunks=3000)
    text = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(model=fleet.model, messages=ASK, stream=True))
    assert text == "".join(f"a{i} " for i in range(3000))


def test_big_answer_is_whole(client, fleet):
    fleet.server.fault(huge_bytes=8_000_000)
    assert len(client.chat.completions.create(model=fleet.model, messages=ASK).choices[0].message.content) == 8_000_000
