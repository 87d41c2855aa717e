#!/usr/bin/env python3
"""A model server to test against: speaks OpenAI's API, misbehaves on command, remembers every byte.

    model_server.py --models a,b [--port N] [--control-port N] [--key K] [--name NAME]

It prints one line of JSON with its two ports and serves until it is killed. The first port is the API. The second is for
the test: each call there is one HTTP request with a JSON body.

    GET    /requests?since=N   what came in: number, times (monotonic ns), head and body as received (base64), how it ended
    POST   /faults             one fault (below) is added to the queue; each request takes the first one that matches it
    DELETE /faults             forget the faults
    POST   /models             {"models": [...]}: what it serves from now on
    POST   /listen             {"on": false}: refuses connections; {"on": true}: takes them again on the same port
    POST   /abort              resets every open connection of the API port
    GET    /state              {"active": requests being answered, "connections": n, "peak": most at once, "served": n}

A fault is an object. `count` says for how many requests it holds (default 1; -1: for all), `match` narrows it down
({"model": ..., "path": ..., "stream": true}). What it does, all optional and free to combine:

    head_delay_ms, first_delay_ms, chunk_delay_ms   waits before the head, before the first chunk, between chunks
    status, headers {name: value}, body             another answer altogether (body as text)
    raw                                             the whole answer as base64, sent as it is, then the connection closes
    die: before_head | after_head | after_role | mid | before_done, rst: true    ends the connection there
    chunks                                          how many content chunks (default: max_tokens, else 5)
    no_done, no_usage, no_finish, crlf, bom, infinite: true
    extra_lines ["id: 7", ...]                      added to every event of a stream
    malformed_at, error_at, comment_at              content chunk number that becomes broken JSON, an error event, a comment
    write_bytes                                     the stream is written so many bytes at a time
    huge_bytes                                      length of the answer's content
    short_by                                        promises a body that much longer than it is
    no_length: true                                 plain answer without a length, ended by closing
    embeddings: float | base64                      ignores encoding_format
    say                                             words of another model: these letters in place of the server's name
    tie_at                                          says the word that was nearly as likely there, and goes on from it
    no_logprobs: true                               as an engine that knows none

A plain answer has log-probabilities when it is asked for them: of each word, of one that is nearly as likely, and of one
that is not.
"""

import argparse
import asyncio
import base64
import json
import socket
import struct
import sys
import time
from urllib.parse import parse_qs, urlsplit

EMBEDDING = [0.5, -0.25, 0.125, 1.0, -2.0, 0.0, 3.5, -0.0625]
REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
           408: "Request Timeout", 409: "Conflict", 413: "Content Too Large", 422: "Unprocessable Content",
           429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable"}


class Hangup(Exception):
    """The other side closed, or a fault asked for the end of the connection."""


class Server:
    def __init__(self, args):
        self.models = [m for m in args.models.split(",") if m]
        self.key = args.key
        self.name = args.name
        self.faults = []
        self.log = []
        self.connections = set()
        self.active = 0
        self.peak = 0
        self.served = 0
        self.listener = None
        self.port = args.port
        self.sequence = 0

    async def listen(self):
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=1024)
        self.port = self.listener.sockets[0].getsockname()[1]

    def take_fault(self, path, request):
        for fault in self.faults:
            match = fault.get("match", {})
            if path == "/v1/models" and "path" not in match:
                continue  # the agent's polling comes whenever it likes: it takes only what is meant for it
            if any((path if k == "path" else request.get(k)) != v for k, v in match.items()):
                continue
            count = fault.get("count", 1)
            if count > 0:
                fault["count"] = count - 1
                if count == 1:
                    self.faults.remove(fault)
            return fault
        return {}


class Connection(asyncio.Protocol):
    """One connection, read by hand so that the log has the exact bytes and the exact time of a hang-up."""

    def __init__(self, server):
        self.server = server
        self.buffer = bytearray()
        self.wake = asyncio.Event()
        self.gone_ns = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self.run())

    def data_received(self, data):
        self.buffer += data
        self.wake.set()

    def eof_received(self):
        self.gone()

    def connection_lost(self, exc):
        self.gone()
        self.server.connections.discard(self)

    def gone(self):
        if self.gone_ns is None:
            self.gone_ns = time.monotonic_ns()
        self.wake.set()
        self.writable.set()

    def pause_writing(self):
        self.writable.clear()

    def resume_writing(self):
        self.writable.set()

    async def more(self):
        if self.gone_ns is not None:
            raise Hangup
        self.wake.clear()
        await self.wake.wait()

    async def read_request(self):
        while b"\r\n\r\n" not in self.buffer:
            if self.gone_ns is not None:
                raise Hangup
            await self.more()
        started = time.monotonic_ns()
        end = self.buffer.index(b"\r\n\r\n") + 4
        head = bytes(self.buffer[:end])
        del self.buffer[:end]
        line, *fields = head[:-4].decode("latin-1").split("\r\n")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self.read_chunked()
        else:
            length = int(headers.get("content-length", "0"))
            while len(self.buffer) < length:
                await self.more()
            body = bytes(self.buffer[:length])
            del self.buffer[:length]
        method, target, _ = line.split(" ")
        return started, head, method, target, headers, body

    async def read_chunked(self):
        body = bytearray()
        while True:
            while b"\r\n" not in self.buffer:
                await self.more()
            end = self.buffer.index(b"\r\n")
            size = int(bytes(self.buffer[:end]).split(b";")[0], 16)
            while len(self.buffer) < end + 2 + size + 2:
                await self.more()
            body += self.buffer[end + 2 : end + 2 + size]
            del self.buffer[: end + 2 + size + 2]
            if size == 0:
                return bytes(body)

    async def run(self):
        try:
            while True:
                await self.one(*await self.read_request())
        except Hangup:
            pass
        except Exception as error:  # a bug here must be seen, and must not look like a quiet upstream
            print(f"model_server: {error!r}", file=sys.stderr, flush=True)
        finally:
            self.transport.close()

    async def one(self, started, head, method, target, headers, body):
        server = self.server
        entry = {"n": server.sequence, "started_ns": started, "read_ns": time.monotonic_ns(), "method": method,
                 "target": target, "head": head, "body": body, "end": "running", "end_ns": None, "first_write_ns": None,
                 "chunks": 0}
        server.sequence += 1
        is_poll = method == "GET" and urlsplit(target).path == "/v1/models"
        if not is_poll:
            server.log.append(entry)
            server.active += 1
            server.peak = max(server.peak, server.active)
        answer = Answer(self, entry)
        try:
            await respond(server, answer, method, urlsplit(target).path, headers, body)
            entry["end"] = "complete"
            entry["end_ns"] = time.monotonic_ns()
        except Hangup:
            entry["end"] = "died" if answer.died else "cancelled"
            entry["end_ns"] = self.gone_ns or time.monotonic_ns()
            raise
        finally:
            if not is_poll:
                server.active -= 1
                server.served += 1

    async def sleep_ms(self, ms):
        """Waits, but not past a hang-up."""
        deadline = time.monotonic() + ms / 1000
        while self.gone_ns is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.wake.clear()
            try:
                await asyncio.wait_for(self.wake.wait(), left)
            except asyncio.TimeoutError:
                return
        raise Hangup


class Answer:
    """Writes one answer the way the fault wants it."""

    def __init__(self, connection, entry):
        self.connection = connection
        self.entry = entry
        self.fault = {}
        self.died = False

    async def write(self, data, pieces=None):
        step = pieces or len(data) or 1
        for at in range(0, len(data), step):
            if self.connection.gone_ns is not None:
                raise Hangup
            if self.entry["first_write_ns"] is None:
                self.entry["first_write_ns"] = time.monotonic_ns()
            self.connection.transport.write(data[at : at + step])
            if pieces:
                await asyncio.sleep(0)
            await self.connection.writable.wait()

    async def wait(self, name):
        ms = self.fault.get(name, 0)
        if ms:
            await self.connection.sleep_ms(ms)
        elif self.connection.gone_ns is not None:
            raise Hangup

    def die_at(self, place):
        if self.fault.get("die") != place:
            return
        self.died = True
        transport = self.connection.transport
        if self.fault.get("rst"):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        raise Hangup

    def head(self, status, fields):
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}"] + [f"{k}: {v}" for k, v in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def plain(self, status, content, kind="application/json", fields=None):
        await self.wait("head_delay_ms")
        self.die_at("before_head")
        fields = {"Content-Type": kind, **(fields or {})}
        if self.fault.get("no_length"):
            fields["Connection"] = "close"
        else:
            fields["Content-Length"] = str(len(content) + self.fault.get("short_by", 0))
        await self.write(self.head(status, fields))
        self.die_at("after_head")
        await self.wait("first_delay_ms")
        if self.fault.get("die") == "mid":
            await self.write(content[: len(content) // 2])
            self.die_at("mid")
        await self.write(content, self.fault.get("write_bytes"))
        if self.fault.get("no_length") or self.fault.get("short_by"):
            self.died = bool(self.fault.get("short_by"))
            self.connection.transport.close()
            raise Hangup

    async def start_stream(self):
        await self.wait("head_delay_ms")
        self.die_at("before_head")
        await self.write(self.head(200, {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache",
                                         "Transfer-Encoding": "chunked"}))
        self.die_at("after_head")
        if self.fault.get("bom"):
            await self.chunk(b"\xef\xbb\xbf")
        await self.wait("first_delay_ms")

    async def chunk(self, data):
        await self.write(b"%x\r\n%s\r\n" % (len(data), data), None)
        self.entry["chunks"] += 1

    async def event(self, data, name=None):
        lines = [f"event: {name}"] if name else []
        lines += self.fault.get("extra_lines", [])
        lines.append("data: " + (data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))))
        newline = "\r\n" if self.fault.get("crlf") else "\n"
        raw = (newline.join(lines) + newline * 2).encode()
        step = self.fault.get("write_bytes")
        if not step:
            await self.chunk(raw)
            return
        for at in range(0, len(raw), step):
            await self.chunk(raw[at : at + step])
            await asyncio.sleep(0)

    async def end_stream(self):
        await self.write(b"0\r\n\r\n")


def error_body(message, code):
    return json.dumps({"error": {"message": message, "type": "upstream_test", "param": None, "code": code}}).encode()


async def respond(server, answer, method, path, headers, body):
    try:
        request = json.loads(body) if body and "json" in headers.get("content-type", "json") else {}
        if not isinstance(request, dict):
            request = {}
    except ValueError:
        request = {}
    fault = answer.fault = server.take_fault(path, request)
    if server.key and headers.get("authorization") != f"Bearer {server.key}":
        return await answer.plain(401, error_body("wrong upstream key", "invalid_api_key"))
    if "raw" in fault:
        await answer.wait("head_delay_ms")
        await answer.write(base64.b64decode(fault["raw"]), fault.get("write_bytes"))
        answer.connection.transport.close()
        answer.died = True
        raise Hangup
    if "status" in fault:
        return await answer.plain(fault["status"], fault.get("body", "").encode(),
                                  fields={"Content-Type": "application/json", **fault.get("headers", {})})
    if path == "/v1/models":
        data = [{"id": m, "object": "model", "created": 1700000000, "owned_by": server.name} for m in server.models]
        return await answer.plain(200, json.dumps({"object": "list", "data": data}).encode())
    handler = {"/v1/chat/completions": chat, "/v1/completions": completion, "/v1/embeddings": embeddings,
               "/v1/responses": responses}.get(path)
    if handler:
        if request.get("model") not in server.models:
            return await answer.plain(404, error_body(f"no model {request.get('model')}", "model_not_found"))
        return await handler(server, answer, request)
    if path == "/v1/audio/speech":
        return await answer.plain(200, b"ID3\x04\x00" + bytes(range(256)) * 8, kind="audio/mpeg")
    if path.startswith(("/v1/audio/", "/v1/images/", "/v1/rerank")):
        return await answer.plain(200, json.dumps({"text": f"{len(body)} bytes", "data": [], "results": []}).encode())
    await answer.plain(404, error_body(f"no path {path}", "not_found"))


def usage_of(request, tokens):
    text = request.get("messages") or request.get("input") or request.get("prompt") or ""
    prompt = max(1, len(json.dumps(text).split()))
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def words(server, request, fault):
    count = fault.get("chunks", request.get("max_tokens") or request.get("max_completion_tokens") or 5)
    name, tie = fault.get("say", server.name), fault.get("tie_at", count)
    return [f"{name}{i} " if i < tie else f"tie{i} " if i == tie else f"then{i} " for i in range(count)]


def logprobs_of(server, request, fault, parts, text):
    """As vLLM gives them: a list of entries for a chat, parallel lists for a completion; None when not asked for."""
    if not request.get("logprobs") or fault.get("no_logprobs"):
        return None
    rivals = []
    for i, part in enumerate(parts):
        usual = f"{server.name}{i} "
        other = usual if part.startswith("tie") else f"tie{i} "
        rivals.append([(part, -0.7), (other, -0.9), (f"far{i} ", -7.5)])
    if text:
        return {"tokens": parts, "token_logprobs": [r[0][1] for r in rivals], "top_logprobs": [dict(r) for r in rivals],
                "text_offset": [len("".join(parts[:i])) for i in range(len(parts))]}

    def entry(token, logprob):
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    return {"content": [{**entry(*r[0]), "top_logprobs": [entry(*one) for one in r]} for r in rivals]}


async def chat(server, answer, request, text=False):
    fault = answer.fault
    parts = words(server, request, fault)
    kind = "text_completion" if text else "chat.completion"
    base = {"id": f"cmpl-{answer.entry['n']}", "object": kind + ("" if text else ".chunk"), "created": 1700000000,
            "model": request["model"], "system_fingerprint": "fp_test"}
    choices = range(request.get("n") or 1)
    usage = usage_of(request, len(parts))
    if not request.get("stream"):
        content = "x" * fault["huge_bytes"] if "huge_bytes" in fault else "".join(parts)
        logprobs = logprobs_of(server, request, fault, parts, text)
        done = [{"index": i, "finish_reason": "stop", "logprobs": logprobs,
                 **({"text": content} if text else {"message": {"role": "assistant", "content": content}})} for i in choices]
        result = {**base, "object": kind, "choices": done, "x_unknown": {"kept": [1, 2.50, "é"]}}
        if not fault.get("no_usage"):
            result["usage"] = usage
        return await answer.plain(200, json.dumps(result, ensure_ascii=False).encode())

    def piece(index, delta, finish=None):
        choice = {"index": index, "finish_reason": finish}
        choice.update({"text": delta.get("content", "")} if text else {"delta": delta})
        event = {**base, "choices": [choice]}
        if include_usage:
            event["usage"] = None
        return event

    include_usage = bool((request.get("stream_options") or {}).get("include_usage")) and not fault.get("no_usage")
    await answer.start_stream()
    if not text:
        for i in choices:
            await answer.event(piece(i, {"role": "assistant", "content": ""}))
    answer.die_at("after_role")
    number = 0
    while number < len(parts) or fault.get("infinite"):
        if number:
            await answer.wait("chunk_delay_ms")
            if not fault.get("chunk_delay_ms"):
                await asyncio.sleep(0)
        if number == len(parts) // 2:
            answer.die_at("mid")
        if number == fault.get("malformed_at"):
            await answer.event('{"choices":[{"delta":{"content":"half')
        elif number == fault.get("error_at"):
            await answer.event({"error": {"message": "ran out of memory", "type": "server_error", "code": "oom"}})
            return await answer.end_stream()
        if number == fault.get("comment_at"):
            await answer.chunk(b": still here\n\n")
        content = "x" * fault["huge_bytes"] if "huge_bytes" in fault else parts[number % len(parts)]
        for i in choices:
            await answer.event(piece(i, {"content": content}))
        number += 1
    if not fault.get("no_finish"):
        for i in choices:
            await answer.event(piece(i, {}, "stop"))
    answer.die_at("before_done")
    if include_usage:
        await answer.event({**base, "choices": [], "usage": usage})
    if not fault.get("no_done"):
        await answer.event("[DONE]")
    await answer.end_stream()


async def completion(server, answer, request):
    await chat(server, answer, request, text=True)


async def embeddings(server, answer, request):
    given = request.get("input", "")
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    form = answer.fault.get("embeddings") or request.get("encoding_format", "float")
    packed = base64.b64encode(struct.pack(f"<{len(EMBEDDING)}f", *EMBEDDING)).decode()
    data = [{"object": "embedding", "index": i, "embedding": packed if form == "base64" else EMBEDDING} for i in range(count)]
    usage = {"prompt_tokens": 3 * count, "total_tokens": 3 * count}
    await answer.plain(200, json.dumps({"object": "list", "data": data, "model": request["model"], "usage": usage}).encode())


async def responses(server, answer, request):
    parts = words(server, request, answer.fault)
    count = usage_of(request, len(parts))
    usage = {"input_tokens": count["prompt_tokens"], "output_tokens": len(parts), "total_tokens": count["total_tokens"]}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "".join(parts), "annotations": []}]}
    whole = {"id": f"resp_{answer.entry['n']}", "object": "response", "created_at": 1700000000, "status": "completed",
             "model": request["model"], "output": [item], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto",
             "tools": []}
    if not request.get("stream"):
        return await answer.plain(200, json.dumps(whole).encode())
    sequence = 0

    async def send(kind, **fields):
        nonlocal sequence
        await answer.event({"type": kind, "sequence_number": sequence, **fields}, name=kind)
        sequence += 1

    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    await answer.start_stream()
    await send("response.created", response=begun)
    await send("response.in_progress", response=begun)
    answer.die_at("after_role")
    await send("response.output_item.added", output_index=0, item={**item, "content": [], "status": "in_progress"})
    await send("response.content_part.added", output_index=0, content_index=0, item_id="msg_1",
               part={"type": "output_text", "text": "", "annotations": []})
    for number, part in enumerate(parts):
        if number:
            await answer.wait("chunk_delay_ms")
        if number == len(parts) // 2:
            answer.die_at("mid")
        await send("response.output_text.delta", output_index=0, content_index=0, item_id="msg_1", delta=part, logprobs=[])
    await send("response.output_text.done", output_index=0, content_index=0, item_id="msg_1", text="".join(parts), logprobs=[])
    await send("response.completed", response=whole)
    await answer.end_stream()


def exported(entry):
    return {**entry, "head": base64.b64encode(entry["head"]).decode(), "body": base64.b64encode(entry["body"]).decode()}


class Control(Connection):
    """The test's side: plain request, plain JSON answer."""

    async def one(self, started, head, method, target, headers, body):
        server = self.server
        url = urlsplit(target)
        value = json.loads(body) if body else {}
        result = {}
        if (method, url.path) == ("GET", "/requests"):
            since = int(parse_qs(url.query).get("since", ["0"])[0])
            result = [exported(e) for e in server.log if e["n"] >= since]
        elif (method, url.path) == ("POST", "/faults"):
            server.faults.append(value)
        elif (method, url.path) == ("DELETE", "/faults"):
            server.faults.clear()
        elif (method, url.path) == ("POST", "/models"):
            server.models = value["models"]
        elif (method, url.path) == ("POST", "/abort"):
            self.abort_all()
        elif (method, url.path) == ("POST", "/listen"):
            if value["on"] and server.listener is None:
                await server.listen()
            elif not value["on"] and server.listener is not None:
                server.listener.close()
                server.listener = None
                self.abort_all()
        elif (method, url.path) == ("GET", "/state"):
            result = {"active": server.active, "peak": server.peak, "served": server.served, "next": server.sequence,
                      "connections": len([c for c in server.connections if not isinstance(c, Control)])}
        else:
            result = {"error": f"no {method} {url.path}"}
        data = json.dumps(result).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))

    def abort_all(self):
        for connection in list(self.server.connections):
            if not isinstance(connection, Control):
                connection.transport.abort()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--models", default="test-model")
    parser.add_argument("--key", default="")
    parser.add_argument("--name", default="word")
    args = parser.parse_args()
    server = Server(args)
    await server.listen()
    loop = asyncio.get_running_loop()
    control = await loop.create_server(lambda: Control(server), "127.0.0.1", args.control_port)
    print(json.dumps({"port": server.port, "control_port": control.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
