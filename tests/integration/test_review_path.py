"""The request path at its edges: long calls, broken answers, retries that cost nothing, targets and sizes."""

import base64
import json
import time
from decimal import ROUND_HALF_EVEN, Decimal

import openai
import pytest

import harness
from harness import Raw, error_of, sse_data, wait_until

ASK = [{"role": "user", "content": "hello there"}]


def cost_of(price, gpu_ms):
    return (Decimal(price) * gpu_ms / 3600000).quantize(Decimal("0.000000001"), ROUND_HALF_EVEN)


# -- money of calls that last ------------------------------------------------------------------------------------------


def test_a_lone_long_call_is_paid_in_full(gateway, make_fleet):
    fleet = make_fleet(price="9000", slots=1)
    tenant = gateway.tenant(credit="500", budget_usd="400", budget_period="day")
    fleet.server.fault(chunk_delay_ms=1500, chunks=9)
    with Raw(gateway, timeout=30) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        answer = raw.answer()
    gpu_ms = int(answer.trailers["x-sluice-gpu-ms"])
    assert gpu_ms >= 12000
    assert Decimal(answer.trailers["x-sluice-cost-usd"]) == cost_of("9000", gpu_ms)
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) == cost_of("9000", gpu_ms)


def test_a_call_beyond_the_balance_goes_on_and_takes_all_of_it(gateway, make_fleet):
    fleet = make_fleet(price="9000", slots=1)
    tenant = gateway.tenant(credit="6")
    fleet.server.fault(chunk_delay_ms=1000, chunks=5)
    with Raw(gateway, timeout=30) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        answer = raw.answer()
    assert sse_data(answer.body)[-1] == b"[DONE]"
    assert Decimal(answer.trailers["x-sluice-cost-usd"]) == 6
    tenant.wait_rows(1)
    wait_until(lambda: Decimal(tenant.balance()["available_usd"]) == 0 == Decimal(tenant.balance()["held_usd"]), 10, "all is spent")


def test_without_money_there_is_no_waiting_for_a_slot(gateway, tenant, make_fleet):
    fleet = make_fleet(slots=1)
    poor = gateway.tenant(credit=None)
    fleet.server.fault(chunk_delay_ms=700, chunks=6)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        raw.read_until(b"data: ")
        answer = poor.call("POST", "/v1/chat/completions", json=fleet.chat())
        assert error_of(answer, 429)["code"] == "insufficient_quota"
        assert answer.elapsed.total_seconds() < 2
        raw.read_until(b"[DONE]")
    free = make_fleet(slots=1, price="0")
    free.server.fault(head_delay_ms=500)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", poor.key, free.chat())
        wait_until(lambda: free.server.state()["active"] == 1, 5, "the first has the slot")
        assert poor.call("POST", "/v1/chat/completions", json=free.chat()).status_code == 200  # waited for it
        assert raw.answer().status == 200


def test_a_silent_stream_says_that_it_lives(gateway, tenant, fleet):
    fleet.server.fault(chunk_delay_ms=17500, chunks=2)
    with Raw(gateway, timeout=40) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        answer = raw.answer()
    assert b": ping\n\n" in answer.body
    assert sse_data(answer.body)[-1] == b"[DONE]"


# -- streams that break ------------------------------------------------------------------------------------------------


def raw_stream(text, length=None):
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % (length or len(text))
    return base64.b64encode((head + text).encode()).decode()


def response_event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': 0, **fields})}\n\n"


DELTA = response_event("response.output_text.delta", output_index=0, content_index=0, item_id="m", delta="one", logprobs=[])


def test_responses_stream_that_breaks_within_an_event(client, gateway, tenant, fleet):
    text = DELTA + 'event: response.output_text.delta\ndata: {"type":"response.output_te'
    fleet.server.fault(raw=raw_stream(text, len(text) + 50))
    with pytest.raises(openai.APIError) as caught:
        list(client.responses.create(model=fleet.model, input="hello", stream=True))
    assert not isinstance(caught.value, openai.APIConnectionError)
    fleet.server.fault(raw=raw_stream(text, len(text) + 50))
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/responses", tenant.key, {"model": fleet.model, "input": "hello", "stream": True})
        body = raw.answer().body.decode()
    assert body.startswith(DELTA + "event: error\ndata: ")


def test_responses_error_event_of_the_model_server_passes(client, tenant, fleet):
    fleet.server.fault(raw=raw_stream(DELTA + response_event("error", code="oom", message="ran out of memory", param=None)))
    events = list(client.responses.create(model=fleet.model, input="hello", stream=True))
    assert [e.type for e in events] == ["response.output_text.delta", "error"] and events[1].code == "oom"
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) == 0


def test_responses_stream_passes_every_byte(gateway, tenant, fleet):
    text = ": hello\n\n" + response_event("response.created") + "\r\nid: 3\r\n\r\n" + DELTA.replace("\n", "\r\n") + \
        response_event("response.completed", response={"usage": {"input_tokens": 3, "output_tokens": 4}}) + ": bye"
    fleet.server.fault(raw=raw_stream(text), write_bytes=7)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/responses", tenant.key, {"model": fleet.model, "input": "hello", "stream": True})
        assert raw.answer().body.decode() == text
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (3, 4)


def test_chat_stream_that_breaks_when_all_was_said_is_complete(client, tenant, fleet):
    fleet.server.fault(die="before_done", rst=True, chunk_delay_ms=10)
    chunks = list(client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) > 0


# -- what answers carry ------------------------------------------------------------------------------------------------


def test_every_answer_tells_its_time(gateway, tenant, fleet):
    answers = [tenant.call("GET", "/v1/models"), tenant.call("GET", "/nowhere"), gateway.call("GET", "/healthz"),
               tenant.call("POST", "/v1/chat/completions", json=fleet.chat()), tenant.call("POST", "/v1/models"),
               tenant.call("POST", "/v1/chat/completions", content=b"{"), tenant.call("GET", "/api/v1/balance")]
    for answer in answers:
        assert int(answer.headers["openai-processing-ms"]) >= 0
        assert answer.headers["x-request-id"]


def test_no_rate_is_told_before_it_is_counted(gateway, fleet):
    tenant = gateway.tenant(rpm=10)
    answer = tenant.call("POST", "/v1/chat/completions", content=b"{}")
    error_of(answer, 400)
    assert "x-ratelimit-remaining-requests" not in answer.headers
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat(), headers={"x-sluice-region": "nowhere"})
    error_of(answer, 503)
    assert answer.headers["x-ratelimit-remaining-requests"] == "9"
    assert answer.headers["x-should-retry"] == "false"


def test_a_gateways_own_error_names_no_worker(tenant, make_fleet):
    fleet = make_fleet(2)
    for server in fleet.servers:
        server.fault(status=200, body="<html>", headers={"Content-Type": "text/html"}, count=-1)
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    error_of(answer, 502)
    assert "x-sluice-worker" not in answer.headers
    assert answer.headers["x-should-retry"] == "false"


def test_retries_are_counted(gateway, tenant, make_fleet):
    fleet = make_fleet(workers=[{"price": "0.10"}, {"price": "9.00"}])
    before = gateway.metric("sluice_retries_total")
    for server in fleet.servers:
        server.fault(status=500, body="{}")
    tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    wait_until(lambda: gateway.metric("sluice_retries_total") == before + 1, 5, "the second attempt is counted")


def test_metrics_that_should_not_be_zero(gateway, tenant, fleet):
    tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    tenant.call("POST", "/v1/chat/completions", json=fleet.chat(stream=True))
    labels = {"model": fleet.model, "network": "native"}
    for name in ("sluice_added_latency_seconds_count", "sluice_upstream_time_seconds_count"):
        assert gateway.metric(name, **labels) >= 2, name
    first = [line for line in gateway.call("GET", "/metrics").text.splitlines() if "first_token" in line and "_count" in line]
    assert any(fleet.model in line and not line.endswith(" 0") for line in first)
    assert gateway.metric("sluice_connections") >= 1
    assert gateway.metric("sluice_credit_held_usd_nano") > 0


# -- targets, sizes, forms ---------------------------------------------------------------------------------------------


def test_absolute_target(gateway, tenant, fleet):
    with Raw(gateway) as raw:
        raw.request("GET", "http://gateway/v1/models", tenant.key)
        assert raw.answer().status == 200
        raw.request("POST", "http://gateway:80/v1/chat/completions", tenant.key, fleet.chat())
        assert raw.answer().status == 200


@pytest.fixture(scope="module")
def small():
    gateway = harness.Gateway(config={"limits": {"body_bytes": 4096, "header_bytes": 2048}}).start()
    gateway.one_tenant = gateway.tenant()
    yield gateway
    gateway.remove()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("over", [0, 1])
def test_body_to_the_byte(small, over, chunked):
    body = b'{"model":"nobody","x":"' + b"a" * (4096 + over - 25) + b'"}'
    assert len(body) == 4096 + over
    with Raw(small) as raw:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {small.one_tenant.key}\r\n"
        if chunked:
            raw.send(head + "Transfer-Encoding: chunked\r\n\r\n")
            raw.send(b"%x\r\n" % 4000 + body[:4000] + b"\r\n%x\r\n" % (96 + over) + body[4000:] + b"\r\n0\r\n\r\n")
        else:
            raw.send((head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        answer = raw.answer()
    assert answer.status == (413 if over else 404)
    assert answer.error["code"] == ("body_too_large" if over else "model_not_found")


@pytest.mark.parametrize("over", [0, 1])
def test_head_to_the_byte(small, over):
    start, end = "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ", "\r\n\r\n"
    with Raw(small) as raw:
        raw.send(start + "a" * (2048 + over - len(start) - len(end)) + end)
        assert raw.answer().status == (431 if over else 200)


def test_head_to_the_byte_by_default(gateway):
    start, end = "GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: ", "\r\n\r\n"
    for over in (0, 1):
        with Raw(gateway) as raw:
            raw.send(start + "a" * (65536 + over - len(start) - len(end)) + end)
            assert raw.answer().status == (431 if over else 200)


def test_many_small_headers_fit(gateway):
    lines = "".join(f"X-{n}: {n}\r\n" for n in range(250))
    with Raw(gateway) as raw:
        raw.send("GET /healthz HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n")
        assert raw.answer().status == 200


def test_rest_body_too_large_is_not_kept(gateway, tenant):
    before = harness.rss_kib(gateway.pid)
    with Raw(gateway) as raw:
        raw.send(f"POST /api/v1/route HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tenant.key}\r\nContent-Length: 33554432\r\n\r\n")
        for _ in range(31):
            raw.send(b"x" * (1 << 20))
        assert harness.rss_kib(gateway.pid) < before + 16384
        raw.send(b"x" * (1 << 20))
        assert raw.answer().status == 413


def test_alias_of_an_audio_model(make_gateway, make_server, make_worker):
    model = harness.new_model_name()
    own = make_gateway(config={"models": {"aliases": {"whisper-1": model}}})
    server = make_server(models=[model])
    make_worker(server, on=own)
    tenant = own.tenant()
    wait_until(lambda: tenant.call("GET", "/v1/models/whisper-1").status_code == 200, 10, "the alias is listed")
    assert "whisper-1" in [m.id for m in tenant.client().models.list().data]
    sound = b"RIFF" + bytes(range(256)) * 20 + b"name=\"model\"\r\n\r\nwhisper-1\r\n--"
    text = tenant.client().audio.transcriptions.create(model="whisper-1", file=("a.wav", sound))
    assert text.text.endswith("bytes")
    received = server.last()["body"]
    assert sound in received
    assert b'name="model"\r\n\r\n' + model.encode() + b"\r\n" in received
    route = tenant.call("POST", "/api/v1/route", json={"model": "whisper-1"}).json()
    assert len(route["candidates"]) == 1
    row_model = wait_until(lambda: [r["model"] for r in tenant.usage(group_by="model")], 5, "a usage row")
    assert row_model == ["whisper-1"]


def test_keys_that_came_before_the_gateway_was_ready(make_gateway):
    own = make_gateway()
    tenant = own.tenant()
    own.kill()
    own.start(wait=False)
    seen = set()

    def ready():
        for path in ("/v1/models", "/api/v1/balance"):
            seen.add(tenant.call("GET", path).status_code)
        return own.call("GET", "/readyz").status_code == 200

    wait_until(ready, 20, "ready again")
    assert own.is_up() and seen <= {200, 503}
    assert tenant.call("GET", "/v1/models").status_code == 200


# -- the end -----------------------------------------------------------------------------------------------------------


def test_a_listener_does_not_hold_up_the_end(make_gateway):
    own = make_gateway()
    with Raw(own) as raw:
        raw.request("GET", "/api/v1/events", harness.ADMIN_KEY)
        assert raw.head().status == 200
        assert own.metric("sluice_calls_running") == 1  # the one that asks
        started = time.monotonic()
        assert own.stop() == 0
        assert time.monotonic() - started < 5
        assert raw.is_closed()


def test_a_stop_lets_running_calls_end(make_gateway, make_fleet):
    own = make_gateway()
    fleet = make_fleet(on=own)
    tenant = own.tenant()
    fleet.server.fault(chunk_delay_ms=300, chunks=6)
    with Raw(own) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=True))
        assert raw.head().status == 200
        own.process.terminate()
        raw.read_until(b"data: [DONE]")
    assert own.process.wait(15) == 0
