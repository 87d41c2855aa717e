"""The official Python client against a worker that behaves, and its cancels, errors and retries."""

import base64
import json
import struct
import threading
import time
from decimal import ROUND_HALF_EVEN, Decimal

import httpx
import openai
import pytest

import harness
from harness import Raw, wait_until

ASK = [{"role": "user", "content": "hello there"}]


def test_chat(client, fleet):
    answer = client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=3)
    assert answer.choices[0].message.content == "a0 a1 a2 "
    assert answer.usage.completion_tokens == 3
    assert answer.model_extra["x_unknown"] == {"kept": [1, 2.5, "é"]}
    assert answer._request_id


def test_answer_bytes_are_the_upstreams(fleet, tenant):
    with httpx.Client() as direct:
        expected = direct.post(fleet.server.url + "/v1/chat/completions", json=fleet.chat()).content
    got = tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).content
    strip = lambda body: body[body.index(b'"object"'):]  # the id is a number that counts up
    assert strip(got) == strip(expected)


def test_headers_of_a_plain_answer(client, fleet, tenant):
    raw = client.chat.completions.with_raw_response.create(model=fleet.model, messages=ASK)
    headers = raw.headers
    assert headers["x-sluice-worker"] == fleet.worker.id
    assert headers["x-sluice-network"] == "native"
    assert headers["x-sluice-gpu"] == "cpu"  # what it has proven, whatever it says it is
    assert Decimal(headers["x-sluice-price-per-gpu-hour-usd"]) == 2
    assert int(headers["openai-processing-ms"]) >= 0
    gpu_ms = int(headers["x-sluice-gpu-ms"])
    expected = (Decimal(2) * gpu_ms / 3600000).quantize(Decimal("1e-9"), ROUND_HALF_EVEN)
    assert Decimal(headers["x-sluice-cost-usd"]) == expected
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert row["gpu_ms"] == gpu_ms and Decimal(row["cost_usd"]) == expected


def test_gpu_time_is_the_upstreams_time_over_its_slots(client, fleet):
    fleet.server.fault(head_delay_ms=400)
    raw = client.chat.completions.with_raw_response.create(model=fleet.model, messages=ASK)
    assert 48 <= int(raw.headers["x-sluice-gpu-ms"]) <= 90  # 400 ms on one of 8 slots is 50, and a busy machine adds some


def test_gpu_time_counts_every_gpu(tenant, make_fleet):
    fleet = make_fleet(gpus=4, slots=8)
    fleet.server.fault(head_delay_ms=400)
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    assert 198 <= int(answer.headers["x-sluice-gpu-ms"]) <= 300


def test_stream(client, fleet):
    stream = client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=4, stream=True)
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "a0 a1 a2 a3 "
    assert all(c.choices for c in chunks), "the usage chunk that the caller did not ask for was not removed"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_with_usage(client, fleet, tenant):
    chunks = list(client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=4, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 4
    tenant.wait_rows(1)
    row = tenant.usage(group_by="model")[0]
    assert row["completion_tokens"] == 4 and row["prompt_tokens"] == chunks[-1].usage.prompt_tokens


def test_stream_is_not_held_back(client, fleet):
    fleet.server.fault(chunk_delay_ms=300)
    seen = []
    for chunk in client.chat.completions.create(model=fleet.model, messages=ASK, max_tokens=3, stream=True):
        if chunk.choices[0].delta.content:
            seen.append(time.monotonic())
    assert seen[1] - seen[0] > 0.15 and seen[2] - seen[1] > 0.15


def test_completions(client, fleet):
    answer = client.completions.create(model=fleet.model, prompt="once", max_tokens=2)
    assert answer.choices[0].text == "a0 a1 "
    parts = [c.choices[0].text for c in client.completions.create(model=fleet.model, prompt="once", max_tokens=2, stream=True)]
    assert "".join(parts) == "a0 a1 "


def test_responses(client, fleet, tenant):
    answer = client.responses.create(model=fleet.model, input="hello")
    assert answer.output_text.startswith("a0 ")
    events = list(client.responses.create(model=fleet.model, input="hello", stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert [e.sequence_number for e in events] == list(range(len(events)))
    tenant.wait_rows(2)
    row = tenant.usage(group_by="model")[0]
    assert row["completion_tokens"] == 10


@pytest.mark.parametrize("upstream", ["float", "base64"])
def test_embeddings_in_both_forms(client, tenant, fleet, upstream):
    expected = [0.5, -0.25, 0.125, 1.0, -2.0, 0.0, 3.5, -0.0625]
    fleet.server.fault(count=-1, embeddings=upstream)
    asked = client.embeddings.create(model=fleet.model, input=["x", "y"])  # the client asks for base64 and unpacks it
    assert [d.embedding for d in asked.data] == [expected, expected]
    assert json.loads(fleet.server.last()["body"])["encoding_format"] == "base64"
    for form in ("float", "base64"):
        body = tenant.call("POST", "/v1/embeddings", json={"model": fleet.model, "input": "x", "encoding_format": form}).json()
        got = body["data"][0]["embedding"]
        if form == "base64":
            got = list(struct.unpack("<8f", base64.b64decode(got)))
        assert got == expected
        assert body["usage"]["prompt_tokens"] == 3
    plain = tenant.call("POST", "/v1/embeddings", json={"model": fleet.model, "input": [[1, 2], [3]]}).json()
    assert len(plain["data"]) == 2


def test_embeddings_of_odd_floats(tenant, fleet):
    texts = ["1e-7", "-1.5E+3", "0.1", "3", "-0", "123456.789"]
    body = '{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[ %s ]}],"usage":{"prompt_tokens":1,"total_tokens":1}}'
    fleet.server.fault(status=200, body=body % " ,\n".join(texts))
    got = tenant.call("POST", "/v1/embeddings", json={"model": fleet.model, "input": "x", "encoding_format": "base64"}).json()
    packed = base64.b64decode(got["data"][0]["embedding"])
    assert packed == struct.pack("<6f", *map(float, texts))


ODD_BODY = (b'{ "model" : "%s",\n\t"messages":[{"role":"user","content":"a\\u0000b \\ud83d\\ude00 caf\xc3\xa9 \\/"}],'
            b'"temperature":0.10, "seed":123456789012345678901234567890, "x":{"model":"no","stream":true,"a":1,"a":2},'
            b'"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}],'
            b'"logit_bias":{"50256":-100}, "y":1e400 , "z":[null,true,[[]]] }  ')


def test_body_is_forwarded_byte_for_byte(tenant, fleet):
    body = ODD_BODY % fleet.model.encode()
    answer = tenant.call("POST", "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert fleet.server.last()["body"] == body


def inserted_piece(sent, received):
    """What was put into `sent` in one place to give `received`; None where that is not how they differ."""
    start = next((i for i, (a, b) in enumerate(zip(sent, received)) if a != b), len(sent))
    for at in range(start, -1, -1):
        piece = received[at : at + len(received) - len(sent)]
        if sent[:at] + piece + sent[at:] == received:
            return piece
    return None


@pytest.mark.parametrize("options", [None, b'{"include_obfuscation":false}', b"{}", b"{ }", b"null"])
def test_stream_body_is_only_spliced(tenant, fleet, options):
    body = (ODD_BODY % fleet.model.encode()).rstrip()[:-1] + b',"stream" : true' + \
        (b',"stream_options" : ' + options if options else b"") + b" }"
    answer = tenant.call("POST", "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    received = fleet.server.last()["body"]
    assert json.loads(received)["stream_options"]["include_usage"] is True
    if options != b"null":
        assert inserted_piece(body, received) is not None, received
    usage_chunks = [e for e in harness.sse_data(answer.content) if b'"choices":[]' in e]
    assert usage_chunks == []


def test_caller_that_asked_for_no_usage_gets_none(tenant, fleet):
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat(stream=True, stream_options={"include_usage": False}))
    assert json.loads(fleet.server.last()["body"])["stream_options"] == {"include_usage": True}
    assert not [e for e in harness.sse_data(answer.content) if b'"choices":[]' in e]


def test_body_with_usage_asked_is_untouched(tenant, fleet):
    body = json.dumps(fleet.chat(stream=True, stream_options={"include_usage": True})).encode()
    tenant.call("POST", "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert fleet.server.last()["body"] == body


def test_tools_and_extra_body(client, fleet):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"c": {"type": "string"}}}}}]
    client.chat.completions.create(model=fleet.model, messages=ASK, tools=tools, tool_choice="auto",
                                   extra_body={"top_k": 7, "guided_json": {"a": [1]}})
    received = json.loads(fleet.server.last()["body"])
    assert received["tools"] == tools and received["top_k"] == 7 and received["guided_json"] == {"a": [1]}


def test_tool_call_stream_passes(client, fleet):
    calls = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
             {"index": 0, "function": {"arguments": '{"a"'}}, {"index": 0, "function": {"arguments": ":1}"}}]
    events = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": fleet.model,
               "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]} for call in calls]
    events.append({**events[0], "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    raw = "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    fleet.server.fault(raw=base64.b64encode((head + raw).encode()).decode())
    got = list(client.chat.completions.create(model=fleet.model, messages=ASK, stream=True))
    assert "".join(c.choices[0].delta.tool_calls[0].function.arguments for c in got[:3]) == '{"a":1}'
    assert got[-1].choices[0].finish_reason == "tool_calls"


def test_other_paths_pass_through(client, tenant, fleet):
    speech = client.audio.speech.create(model=fleet.model, voice="alloy", input="hello").content
    assert speech == b"ID3\x04\x00" + bytes(range(256)) * 8
    text = client.audio.transcriptions.create(model=fleet.model, file=("a.wav", b"RIFF" + b"\x00\xff" * 500))
    assert text.text.endswith("bytes")
    received = fleet.server.last()
    assert b"multipart/form-data" in received["head"] and b"\x00\xff" * 500 in received["body"]
    assert client.images.generate(model=fleet.model, prompt="a river").data == []
    assert tenant.call("POST", "/v1/rerank", json={"model": fleet.model, "query": "q", "documents": ["a"]}).status_code == 200
    tenant.wait_rows(4)


def test_alias(make_gateway, make_fleet, make_server, make_worker):
    model = harness.new_model_name()
    own = make_gateway(config={"models": {"aliases": {"gpt-4o-mini": model}}})
    server = make_server(models=[model])
    make_worker(server, on=own)
    tenant = own.tenant()
    wait_until(lambda: tenant.call("GET", "/v1/models/gpt-4o-mini").status_code == 200, 10, "the alias is listed")
    body = b'{"messages":[],"model" : "gpt-4o-mini", "x": "gpt-4o-mini"}'
    answer = tenant.call("POST", "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert server.last()["body"] == body.replace(b'"gpt-4o-mini",', b'"%s",' % model.encode(), 1)


# -- cancelling --------------------------------------------------------------------------------------------------------


def cancelled_within(server, closed_ns, ms=100):
    entry = wait_until(lambda: next((e for e in [server.last()] if e["end"] != "running"), None), 5, "upstream call ended")
    assert entry["end"] == "cancelled"
    assert (entry["end_ns"] - closed_ns) / 1e6 < ms


def test_cancel_in_mid_stream(client, fleet, tenant):
    fleet.server.fault(infinite=True, chunk_delay_ms=20)
    stream = client.chat.completions.create(model=fleet.model, messages=ASK, stream=True)
    for number, _ in enumerate(stream):
        if number == 5:
            break
    closed = time.monotonic_ns()
    stream.close()
    cancelled_within(fleet.server, closed)
    tenant.wait_rows(1)
    assert Decimal(tenant.usage(group_by="model")[0]["cost_usd"]) > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("delay", ["head_delay_ms", "first_delay_ms"])
def test_cancel_before_the_first_token(gateway, tenant, fleet, stream, delay):
    fleet.server.fault(**{delay: 20000})
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat(stream=stream))
        wait_until(lambda: fleet.server.state()["active"] == 1, 5, "upstream call runs")
        closed = time.monotonic_ns()
    cancelled_within(fleet.server, closed)


def test_cancel_frees_the_slot(gateway, tenant, make_fleet):
    fleet = make_fleet(slots=1)
    fleet.server.fault(count=1, head_delay_ms=20000)
    with Raw(gateway) as raw:
        raw.request("POST", "/v1/chat/completions", tenant.key, fleet.chat())
        wait_until(lambda: fleet.server.state()["active"] == 1, 5, "upstream call runs")
    started = time.monotonic()
    assert tenant.call("POST", "/v1/chat/completions", json=fleet.chat()).status_code == 200
    assert time.monotonic() - started < 1


# -- errors and retries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status,kind", [(400, openai.BadRequestError), (404, openai.NotFoundError), (409, openai.ConflictError),
                                         (422, openai.UnprocessableEntityError), (413, openai.APIStatusError),
                                         (415, openai.APIStatusError)])
def test_the_callers_own_fault_passes_as_it_is(client, fleet, status, kind):
    before = len(fleet.server.requests())
    body = json.dumps({"error": {"message": "the model says no", "type": "t", "param": "p", "code": "c"}, "more": 1})
    fleet.server.fault(status=status, body=body)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=fleet.model, messages=ASK)
    assert caught.value.status_code == status and caught.value.response.text == body
    assert caught.value.code == "c" and caught.value.param == "p"
    assert len(fleet.server.requests()) == before + 1


def test_error_classes_of_our_own(gateway, fleet, tenant):
    bad = openai.OpenAI(base_url=gateway.url + "/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        bad.models.list()
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        tenant.client().chat.completions.create(model="nothing-serves-this", messages=ASK)
    fleet.server.fault(status=500, body="boom")
    with pytest.raises(openai.InternalServerError) as caught:
        tenant.client().chat.completions.create(model=fleet.model, messages=ASK)
    assert caught.value.status_code == 502 and caught.value.code == "upstream_error"
    fleet.server.fault(status=429, body="{}", headers={"retry-after-ms": "5"})
    with pytest.raises(openai.RateLimitError) as caught:
        tenant.client().chat.completions.create(model=fleet.model, messages=ASK)
    assert 0 < float(caught.value.response.headers["retry-after-ms"]) <= 60000


def test_client_retries_what_one_replica_could_not(fleet, tenant):
    """A lone worker answered 429: one attempt, so the client is free to come again, and comes soon."""
    before = len(fleet.server.requests())
    fleet.server.fault(count=2, status=429, body="{}", headers={"retry-after-ms": "20"})
    started = time.monotonic()
    tenant.client(max_retries=2).chat.completions.create(model=fleet.model, messages=ASK)
    assert len(fleet.server.requests()) == before + 3
    assert time.monotonic() - started < 10


def test_client_does_not_multiply_our_retries(make_fleet, tenant):
    fleet = make_fleet(2)
    for server in fleet.servers:
        server.fault(count=-1, status=503, body="{}")
    with pytest.raises(openai.InternalServerError) as caught:
        tenant.client(max_retries=2).chat.completions.create(model=fleet.model, messages=ASK)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert fleet.seen() == [1, 1]


def test_deadline_of_the_client_bounds_the_wait(fleet, tenant):
    fleet.server.fault(head_delay_ms=20000)
    started = time.monotonic()
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat(),
                         headers={"x-stainless-read-timeout": "0.5", "x-stainless-timeout": "60"})
    assert harness.error_of(answer, 504)["code"] == "deadline_exceeded"
    assert 0.4 < time.monotonic() - started < 2
    wait_until(lambda: fleet.server.last()["end"] == "cancelled", 5, "upstream cancelled")


def test_rate_limit_headers_look_like_openais(gateway, fleet):
    tenant = gateway.tenant(rpm=100)
    answer = tenant.call("POST", "/v1/chat/completions", json=fleet.chat())
    assert answer.headers["x-ratelimit-limit-requests"] == "100"
    assert 0 <= int(answer.headers["x-ratelimit-remaining-requests"]) < 100
    assert answer.headers["x-ratelimit-reset-requests"][-1] == "s"


def test_many_callers_at_once(fleet, tenant):
    failures = []

    def caller():
        with tenant.client() as client:
            for n in range(5):
                try:
                    text = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(
                        model=fleet.model, messages=ASK, max_tokens=20, stream=True))
                    assert text == "".join(f"a{i} " for i in range(20))
                except Exception as error:  # collected: a thread must not die silently
                    failures.append(error)

    threads = [threading.Thread(target=caller) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    tenant.wait_rows(80)
    assert fleet.server.state()["peak"] <= 8, "more calls at once than the worker has slots"
