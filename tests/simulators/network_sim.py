#!/usr/bin/env python3
"""What the simulators of networks share: HTTP on threads, instances, switchable faults, a control port, local processes.

A simulator is a subclass of Network that speaks one network's API; this file has no API of its own:

    class Example(Network):
        name = "example"
        routes = [("GET", "/v1/offers", "offers", "search"),            # method, path, operation, function
                  ("POST", "/v1/machines", "create", "make"),
                  ("DELETE", "/v1/machines/{id}", "terminate", "end")]

        def make(self, request):
            body = request.json()
            made = self.create(tag=body["name"], offer=self.offer(body["type"]), env=body["env"])
            return Answer(201, {"id": made.id})

    if __name__ == "__main__":
        run(Example)

    example.py [--port N] [--control-port N] [--key K] [--run] [--pace] [--boot-polls N] [--seed N]

It prints one line of JSON with its ports and its key and serves until it is killed. A function gets the Request and the
path's {parts} by name, runs under the simulator's one lock, and gives an Answer or (status, body). To end a request
early it raises Refused(Answer) or calls self.refuse(kind). A subclass overrides error(kind, request), which gives the
network's own answer for: denied, not_found, rate_limited, internal, no_capacity, quota, no_funds, bad_image,
price_moved, bad_request, not_yet.

Time passes by looks, not by clocks: an instance runs after `boot_polls` looks at it (self.look), and one that was ended
is shown as stopping for `end_polls` more. With --pace the intervals of `intervals` {operation: seconds} are enforced.
With --run what create was given (argv, env) runs as a local process of its own session; its output is its log.

The control port: each call is one HTTP request with a JSON body.

    GET    /control/instances       everything that ever ran: id, tag, state, created, ended (Unix s), price, gpus,
                                    burnt_usd, pid; with how many were made under each tag
    GET    /control/requests        {"count": {operation: n}, "log": the last 2000: operation, method, path, status, at}
    POST   /control/faults          one fault, or a list of them, is added
    GET    /control/faults          those that are set, with how often each has struck
    DELETE /control/faults          forget them
    GET, POST /control/offers       the offers; a list replaces them
    POST   /control/instances       {"tag": ..., ...}: an instance appears that nobody asked for
    POST   /control/vanish          {"id": ...} or {"tag": ...}: it dies
    POST   /control/set             {"boot_polls": 3, ...}: attributes of the simulator
    POST   /control/reset           everything as it was at the start

A fault: {"fault": name, "op": operation or a list (absent: all), "count": n (default 1; -1: for ever),
"probability": 0..1 (default 1), "tag": only for this instance, and what it needs}:

    latency_ms              {"ms"}: waits before the request is looked at
    drop_before             closes the connection, nothing was done
    rate_limit              429; {"retry_after": s} adds the header
    error_500               5xx; {"status": 503}
    denied                  as for a wrong key
    drop_answer_after_effect  does it, then closes the connection
    garbage_body, html_200  does it, then answers rubbish
    mangled_body            does it, then answers with some members of other types, missing, or of absurd size
    slow_body               does it, then sends the answer {"bytes"} (1) at a time, {"ms"} (50) apart
    huge_body               does it, then sends {"bytes"} (32 MiB) of an endless JSON text
    no_capacity, quota, no_funds, bad_image   create is refused so (`create_refusals`)
    price_moved             {"factor"}: what is created costs that much more; with {"refuse": true} it is refused
    stuck_pending, fails    what is created never runs; fails when it is looked at
    list_lag                {"n"}: listings lack it that often
    vanish                  at a look at it, it is gone
    delete_ignored          answers as if it ended the instance
    delete_refused          not_yet, nothing is done
    leftover                create fails and leaves an instance (simulators that have it)
"""

import argparse
import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

LOG_MAX = 2000
HTML = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>"


ODDITIES = [None, True, -1, 0, 1e308, -0.0, 2**63 - 1, -2**63, "", "x" * 5000, "\u0000\u202e", "-5", "1e999", "NaN", [], {},
            [[[[]]]], {"id": {}}, [None] * 40, "9" * 400, "../../etc", "a/b?c#d%00", 99999999999, "tcp", "sluice-abc123-"]


def mangled(value, dice, chance):
    """The same JSON with some of it replaced, dropped or doubled."""
    if dice.random() < chance:
        return dice.choice(ODDITIES)
    if isinstance(value, dict):
        return {dice.choice(["", "id", k]) if dice.random() < chance / 4 else k: mangled(v, dice, chance)
                for k, v in value.items() if dice.random() >= chance / 2}
    if isinstance(value, list):
        rows = [mangled(v, dice, chance) for v in value if dice.random() >= chance / 2]
        return rows * 2 if dice.random() < chance else rows
    return value


class Answer:
    """status and body: a dict or list becomes JSON, a str text, bytes stay; stream: chunks that are sent as they come."""

    def __init__(self, status=200, body=None, headers=None, content_type=None, stream=None):
        self.status, self.headers, self.stream = status, dict(headers or {}), stream
        if isinstance(body, (dict, list)):
            self.body, standard = json.dumps(body).encode(), "application/json"
        elif isinstance(body, str):
            self.body, standard = body.encode(), "text/plain; charset=utf-8"
        else:
            self.body, standard = body or b"", "application/octet-stream"
        self.content_type = content_type or standard


class Refused(Exception):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        parts = urlsplit(target)
        self.path = parts.path
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.pairs = parse_qsl(parts.query, keep_blank_values=True)  # all, in order
        self.op = None

    def json(self):
        """The body; {} where there is none, Refused(400) where it is no JSON."""
        if not self.body:
            return {}
        try:
            return json.loads(self.body)
        except ValueError:
            raise Refused(Answer(400, {"error": "body is no JSON"}))

    def bearer(self):
        return self.headers.get("authorization", "").removeprefix("Bearer ").strip()

    def basic_user(self):
        value = self.headers.get("authorization", "")
        if not value.startswith("Basic "):
            return ""
        return base64.b64decode(value[6:]).decode(errors="replace").split(":", 1)[0]


class Instance:
    """state: pending, running, stopping, stopped, failed, gone. `more` is for what the network adds."""

    def __init__(self, id, tag, offer, **more):
        self.id, self.tag, self.offer, self.state = id, tag, offer, "pending"
        self.price = more.pop("price", None)  # USD per GPU-hour; None: not known yet
        self.gpus = more.pop("gpus", 1)
        self.image, self.argv = more.pop("image", ""), list(more.pop("argv", None) or [])
        self.env, self.ports = dict(more.pop("env", None) or {}), list(more.pop("ports", None) or [])
        self.interruptible = more.pop("interruptible", False)
        self.more = more
        self.created, self.ended = time.time(), None
        self.looks, self.lag, self.is_stuck, self.fails = 0, 0, False, False
        self.reason, self.process, self.folder, self.host_ports, self.is_killed = "", None, None, {}, False
        self.runs = True  # with --run: start its argv; False until the simulator calls start

    @property
    def is_live(self):
        return self.state != "gone"

    def burnt(self):
        return (self.price or 0.0) * self.gpus * ((self.ended or time.time()) - self.created) / 3600

    def truth(self):
        return {"id": self.id, "tag": self.tag, "state": self.state, "created": self.created, "ended": self.ended,
                "price": self.price, "gpus": self.gpus, "burnt_usd": self.burnt(), "reason": self.reason,
                "pid": self.process.pid if self.process else None, "interruptible": self.interruptible,
                "offer": self.offer.get("id") if self.offer else None, "argv": self.argv, "image": self.image,
                "env": sorted(self.env), "ports": self.ports}


class Network:
    name = "network"
    routes = []
    intervals = {}       # operation: least seconds between two requests, with --pace
    create_refusals = ("no_capacity", "quota", "no_funds", "bad_image")
    page_size = 25
    end_polls = 0        # looks at which an ended one is still shown as stopping

    def __init__(self, args):
        self.key = args.key or f"key-of-{self.name}"
        self.is_paced, self.is_running, self.boot_polls = args.pace, args.run, args.boot_polls
        self.random = random.Random(args.seed)
        self.lock = threading.RLock()
        self.restore = {}  # attributes that /control/set has changed, as they were
        self.patterns = [(method, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)) + "$"), op, fn)
                         for method, path, op, fn in self.routes]
        self.folder = tempfile.mkdtemp(prefix=f"sim-{self.name}-")
        self.reset()

    def reset(self):
        for made in getattr(self, "instances", {}).values():
            self.kill(made)
        for key, value in self.restore.items():
            setattr(self, key, value)
        self.restore, self.serial = {}, 0
        self.instances = {}  # id -> Instance, all that ever were
        self.faults, self.log, self.count, self.last = [], [], {}, {}
        self.offers = self.default_offers()
        self.setup()

    # -- what a simulator overrides --
    def setup(self):
        """At the start and after a reset: what the simulator keeps besides."""

    def default_offers(self):
        """USD per GPU-hour; stock None: no end of them."""
        rows = [("rtx4090-1", "RTX 4090", 1, 24, 0.34, "us-east"), ("rtx4090-2", "RTX 4090", 2, 24, 0.36, "eu-north"),
                ("h100-1", "H100 SXM", 1, 80, 2.49, "us-east"), ("h100-8", "H100 SXM", 8, 80, 2.29, "eu-west"),
                ("a100-1", "A100 SXM4", 1, 80, 1.19, "us-west"), ("l4-1", "L4", 1, 24, 0.43, "eu-west")]
        return [{"id": i, "gpu": gpu, "gpus": n, "vram_gib": vram, "price": price, "region": region, "stock": None,
                 "interruptible": False} for i, gpu, n, vram, price, region in rows]

    def new_id(self):
        return f"{self.name}-{self.serial:06d}"

    def is_authorised(self, request):
        return request.bearer() == self.key

    def error(self, kind, request):
        status = {"denied": 401, "not_found": 404, "rate_limited": 429, "internal": 500, "no_capacity": 409,
                  "quota": 403, "no_funds": 402, "bad_image": 422, "price_moved": 409, "not_yet": 409}.get(kind, 400)
        return Answer(status, {"error": {"code": kind, "message": f"{self.name}: {kind}"}})

    def public_path(self, path):
        """Served without a key."""
        return False

    # -- what a simulator uses --
    def refuse(self, kind, request):
        raise Refused(self.error(kind, request))

    def fault(self, name, op=None, tag=None):
        """The first fault of that name that strikes now, or None; it is used up by that."""
        with self.lock:
            for fault in self.faults:
                if fault["fault"] != name or fault["count"] == 0:
                    continue
                ops = fault.get("op")
                if op and ops and op not in ([ops] if isinstance(ops, str) else ops):
                    continue
                if fault.get("tag") and fault["tag"] != tag:
                    continue
                if fault.get("probability", 1) < 1 and self.random.random() >= fault["probability"]:
                    continue
                if fault["count"] > 0:
                    fault["count"] -= 1
                fault["struck"] += 1
                return fault
        return None

    def offer(self, id):
        """The offer that can still be had, or None."""
        for offer in self.offers:
            if str(offer["id"]) == str(id) and offer.get("stock") != 0:
                return offer
        return None

    def create(self, tag, offer, runs=True, **more):
        """Makes an instance; price, gpus and interruptible come from the offer unless given."""
        self.serial += 1
        price = more.pop("price", offer.get("price") if offer else None)
        moved = self.fault("price_moved", "create", tag)
        if moved and price is not None:
            price *= moved.get("factor", 2)
        more.setdefault("gpus", offer.get("gpus", 1) if offer else 1)
        more.setdefault("interruptible", offer.get("interruptible", False) if offer else False)
        id = more.pop("id", None) or self.new_id()
        made = Instance(id, tag, offer, price=price, **more)
        lag = self.fault("list_lag", "create", tag)
        made.lag = lag.get("n", 2) if lag else 0
        made.is_stuck = self.fault("stuck_pending", "create", tag) is not None
        made.fails = self.fault("fails", "create", tag) is not None
        made.runs = runs
        if offer and offer.get("stock"):
            offer["stock"] -= 1
        self.instances[made.id] = made
        return made

    def find(self, id, tag=None):
        """What lives under that id, or None."""
        made = self.instances.get(id)
        return made if made and made.is_live else None

    def listing(self):
        """What a listing shows now, oldest first. What is on its way out goes on, looked at singly or not."""
        shown = []
        for made in list(self.instances.values()):
            if made.state == "stopping":
                self.look(made)
            if not made.is_live:
                continue
            if made.lag > 0:
                made.lag -= 1
                continue
            shown.append(made)
        return shown

    def page(self, rows, token, size=None):
        """(rows of the page, next token or None); tokens are offsets as text."""
        size = size or self.page_size
        at = int(token) if str(token or "").isdigit() else 0
        return rows[at:at + size], str(at + size) if at + size < len(rows) else None

    def look(self, made):
        """One look at an instance: moves it on."""
        if not made.is_live:
            return made
        made.looks += 1
        if self.fault("vanish", "describe", made.tag):
            return self.finish(made, "vanished")
        if made.process and made.process.poll() is not None and made.state == "running":
            made.state, made.reason = "failed", f"exited with {made.process.returncode}"
        if made.state == "stopping":
            if made.looks > self.end_polls:
                self.finish(made, made.reason)
        elif made.state == "pending" and made.fails:
            made.state, made.reason = "failed", "OCI runtime create failed"
        elif made.state == "pending" and not made.is_stuck and made.looks > self.boot_polls and made.runs:
            self.start(made)
        return made

    def start(self, made):
        made.state, made.runs = "running", True
        for port in made.ports:
            made.host_ports[port] = self.free_port()
        if self.is_running and made.argv:
            made.folder = tempfile.mkdtemp(prefix="instance-", dir=self.folder)
            env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": made.folder, "TMPDIR": made.folder}
            env.update({str(k): str(v) for k, v in made.env.items()})
            env.update({f"SIM_PORT_{inside}": str(outside) for inside, outside in made.host_ports.items()})
            with open(os.path.join(made.folder, "log"), "wb") as log:
                made.process = subprocess.Popen([str(a) for a in made.argv], env=env, cwd=made.folder, stdout=log,
                                                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                                start_new_session=True)

    def free_port(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def logs(self, made):
        if made.folder:
            with open(os.path.join(made.folder, "log"), "rb") as log:
                return log.read()
        return f"starting {made.tag}\nready\n".encode()

    def halt(self, made, state="stopped"):
        """Ends the compute and keeps the instance."""
        self.kill(made)
        made.state = state

    def terminate(self, made):
        """Ends it, unless a fault ignores that."""
        if self.fault("delete_ignored", "terminate", made.tag):
            return made
        self.kill(made)
        if self.end_polls:
            made.state, made.looks = "stopping", 0
        else:
            self.finish(made, "terminated")
        return made

    def finish(self, made, reason):
        self.kill(made)
        if made.is_live:
            made.state, made.ended, made.reason = "gone", time.time(), reason
            if made.offer and isinstance(made.offer.get("stock"), int) and not made.offer.get("single_use"):
                made.offer["stock"] += 1
        return made

    def kill(self, made):
        if made.process and not made.is_killed:
            made.is_killed = True
            try:
                os.killpg(made.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            made.process.wait()

    # -- the inside --
    def route(self, request):
        for method, pattern, op, fn in self.patterns:
            match = pattern.match(request.path)
            if match and method == request.method:
                request.op = op
                return getattr(self, fn), {k: unquote(v) for k, v in match.groupdict().items()}
        return None, {}

    def before(self, request):
        """Faults that strike before anything is done; an Answer ends the request, None goes on."""
        limit = self.fault("rate_limit", request.op)
        if limit or self.is_too_soon(request.op):
            answer = self.error("rate_limited", request)
            if limit and "retry_after" in limit:
                answer.headers["Retry-After"] = str(limit["retry_after"])
            return answer
        broken = self.fault("error_500", request.op)
        if broken:
            answer = self.error("internal", request)
            answer.status = broken.get("status", answer.status)
            return answer
        if not self.public_path(request.path) and (not self.is_authorised(request) or self.fault("denied", request.op)):
            return self.error("denied", request)
        return None

    def is_too_soon(self, op):
        now, last = time.monotonic(), self.last.get(op, 0.0)
        if self.is_paced and now - last < self.intervals.get(op, 0.0):
            return True
        self.last[op] = now
        return False

    def refusal(self, request):
        if request.op != "create":
            return
        for kind in self.create_refusals:
            if self.fault(kind, "create"):
                self.refuse(kind, request)
        moved = next((f for f in self.faults if f["fault"] == "price_moved" and f.get("refuse") and f["count"]), None)
        if moved and self.fault("price_moved", "create"):
            self.refuse("price_moved", request)

    def answer(self, request):
        fn, parts = self.route(request)
        if not fn:
            request.op = "unknown"
            return self.error("not_found", request)
        early = self.before(request)
        if early:
            return early
        try:
            self.refusal(request)
            if request.op == "terminate" and self.fault("delete_refused", "terminate"):
                self.refuse("not_yet", request)
            answer = fn(request, **parts)
        except Refused as refused:
            return refused.answer
        return answer if isinstance(answer, Answer) else Answer(*answer)

    def note(self, request, status):
        self.count[request.op] = self.count.get(request.op, 0) + 1
        self.log.append({"op": request.op, "method": request.method, "path": request.target, "status": status,
                         "at": time.monotonic()})
        del self.log[:-LOG_MAX]

    # -- the control port --
    def control(self, request):
        body = request.json() if request.body else None
        what = (request.method, request.path)
        if what == ("GET", "/control/instances"):
            rows = [made.truth() for made in self.instances.values()]
            made = {}
            for row in rows:
                made[row["tag"]] = made.get(row["tag"], 0) + 1
            live = sum(row["state"] != "gone" for row in rows)
            return Answer(200, {"instances": rows, "created": made, "live": live,
                                "burnt_usd": sum(row["burnt_usd"] for row in rows)})
        if what == ("POST", "/control/instances"):
            offer = self.offer(body.pop("offer")) if "offer" in body else (self.offers or [None])[0]
            made = self.create(body.pop("tag", "somebody-elses"), offer, **body)
            self.start(made)
            return Answer(200, made.truth())
        if what == ("GET", "/control/requests"):
            return Answer(200, {"count": self.count, "log": self.log})
        if what == ("GET", "/control/faults"):
            return Answer(200, {"faults": self.faults})
        if what == ("POST", "/control/faults"):
            for fault in body if isinstance(body, list) else [body]:
                self.faults.append({"count": 1, "struck": 0, **fault})
            return Answer(200, {"faults": self.faults})
        if what == ("DELETE", "/control/faults"):
            self.faults = []
            return Answer(200, {})
        if what == ("GET", "/control/offers"):
            return Answer(200, {"offers": self.offers})
        if what == ("POST", "/control/offers"):
            self.offers = body if isinstance(body, list) else body["offers"]
            return Answer(200, {"offers": len(self.offers)})
        if what == ("POST", "/control/vanish"):
            struck = [m for m in self.instances.values()
                      if m.is_live and (m.id == body.get("id") or m.tag == body.get("tag"))]
            for made in struck:
                self.finish(made, "vanished")
            return Answer(200, {"vanished": len(struck)})
        if what == ("POST", "/control/set"):
            for key, value in body.items():
                self.restore.setdefault(key, getattr(self, key, None))
                setattr(self, key, value)
            return Answer(200, {})
        if what == ("POST", "/control/reset"):
            self.reset()
            return Answer(200, {})
        return Answer(404, {"error": "no such control call"})

    def close(self):
        for made in self.instances.values():
            self.kill(made)
        shutil.rmtree(self.folder, ignore_errors=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    network = None

    def log_message(self, *args):
        pass

    def read_request(self):
        headers = {k.lower(): v for k, v in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length") or 0))
        return Request(self.command, self.path, headers, body)

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, answer, chunk=0, pause_s=0.0):
        if self.wfile.closed:
            return
        head = [f"HTTP/1.1 {answer.status} X"]
        if answer.status != 204 or answer.body:
            head.append(f"Content-Type: {answer.content_type}")
        head += [f"{k}: {v}" for k, v in answer.headers.items()]
        head.append("Transfer-Encoding: chunked" if answer.stream else f"Content-Length: {len(answer.body)}")
        self.wfile.write(("\r\n".join(head) + "\r\n\r\n").encode() + (b"" if chunk or answer.stream else answer.body))
        if answer.stream:
            for part in answer.stream:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif chunk:
            for at in range(0, len(answer.body), chunk):
                self.wfile.write(answer.body[at:at + chunk])
                time.sleep(pause_s)

    def serve(self):
        network, request = self.network, self.read_request()
        network.route(request)
        slow = network.fault("latency_ms", request.op)
        if slow:
            time.sleep(slow.get("ms", 200) / 1000)
        if network.fault("drop_before", request.op):
            self.hang_up()
            return
        with network.lock:
            answer = network.answer(request)
            network.note(request, answer.status)
        done = answer.status < 300
        if done and network.fault("drop_answer_after_effect", request.op):
            self.hang_up()
        elif done and network.fault("garbage_body", request.op):
            self.send(Answer(answer.status, b'{"\xff\x00garbage": [', content_type="application/json"))
        elif answer.body[:1] in (b"{", b"[") and (odd := network.fault("mangled_body", request.op)):
            body = mangled(json.loads(answer.body), network.random, odd.get("chance", 0.05))
            self.send(Answer(answer.status, json.dumps(body).encode(), answer.headers, "application/json"))
        elif done and network.fault("html_200", request.op):
            self.send(Answer(200, HTML, content_type="text/html"))
        elif done and (huge := network.fault("huge_body", request.op)):
            self.send(Answer(200, b'{"data":"' + b"x" * huge.get("bytes", 32 << 20), content_type="application/json"))
        elif drip := network.fault("slow_body", request.op):
            self.send(answer, drip.get("bytes", 1), drip.get("ms", 50) / 1000)
        else:
            self.send(answer)

    def guarded(self):
        try:
            self.serve()
        except (BrokenPipeError, ConnectionResetError, OSError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = guarded


class ControlHandler(Handler):
    def serve(self):
        request = self.read_request()
        with self.network.lock:
            try:
                answer = self.network.control(request)
            except Refused as refused:
                answer = refused.answer
        self.send(answer)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def run(kind, extra=None):
    """Serves until it is killed. extra(parser): more arguments, which the simulator finds in self.args."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--key", default="")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--pace", action="store_true")
    parser.add_argument("--boot-polls", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    if extra:
        extra(parser)
    args = parser.parse_args()
    kind.args = args
    network = kind(args)
    servers = []
    for handler, port in ((Handler, args.port), (ControlHandler, args.control_port)):
        bound = type(handler.__name__, (handler,), {"network": network})
        servers.append(Server(("127.0.0.1", port), bound))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    print(json.dumps({"port": servers[0].server_address[1], "control_port": servers[1].server_address[1],
                      "key": network.key, "name": network.name}), flush=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    network.close()
