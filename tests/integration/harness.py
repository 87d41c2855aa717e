"""Real processes to test with: gateways, workers, model servers, and raw sockets to speak to them byte for byte."""

import base64
import ctypes
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import httpx
import openai

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / os.environ.get("SLUICE_BUILD", "build")
THREADS = int(os.environ.get("SLUICE_THREADS", "1"))  # reactors of a gateway, where a test does not say
ADMIN_KEY = "test-admin-key-0123456789abcdef"
live_processes = []  # those of the running test, whose logs are shown when it fails
_libc = ctypes.CDLL(None)


def wait_until(condition, timeout=15.0, what="condition"):
    """Calls condition until it gives something true, and returns that. An exception counts as not yet."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (httpx.TransportError, OSError, AssertionError, KeyError, IndexError, ValueError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what} (last: {last!r})")
        threading.Event().wait(0.01)


def free_port():
    """A free port below the range that outgoing connections use: one of those could take it before a server does."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def short_dir():
    """A folder with a short path: Unix sockets allow 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="sl-", dir="/tmp"))


def die_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: an aborted test run leaves nothing behind
    for number in (signal.SIGINT, signal.SIGQUIT):  # a run that was started in the background has them ignored
        signal.signal(number, signal.SIG_DFL)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid):
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        threads = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return sorted({int(c) for t in [text, *threads] for c in t.split()})


def rss_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


class Process:
    name = "process"

    def __init__(self):
        self.process = None
        self.directory = short_dir()
        self.log_path = self.directory / "log"
        live_processes.append(self)

    def spawn(self, argv, env=None, stdout=None):
        assert self.process is None or self.process.poll() is not None
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log,
                                            env={**os.environ, **(env or {})}, preexec_fn=die_with_parent)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def is_up(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.is_up():
            self.process.kill()
        if self.process:
            self.process.wait(10)

    def stop(self, timeout=15):
        """Asks it to end, and gives its exit status."""
        if self.is_up():
            self.process.terminate()
        return self.process.wait(timeout)

    def remove(self):
        self.kill()
        if self in live_processes:
            live_processes.remove(self)
        shutil.rmtree(self.directory, ignore_errors=True)


class ModelServer(Process):
    """tests/simulators/model_server.py with its control port."""

    name = "model server"

    def __init__(self, models=("test-model",), key="", name="word", port=0, prefix=()):
        super().__init__()
        self.models = list(models)
        self.spawn([*prefix, sys.executable, REPO / "tests/simulators/model_server.py", "--models", ",".join(models), "--name", name,
                    "--key", key, "--port", port], stdout=subprocess.PIPE)
        ports = json.loads(self.process.stdout.readline())
        self.port = ports["port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.control = httpx.Client(base_url=f"http://127.0.0.1:{ports['control_port']}", timeout=20)

    @property
    def model(self):
        return self.models[0]

    def fault(self, **fault):
        self.control.post("/faults", json=fault)

    def clear(self):
        self.control.delete("/faults")

    def state(self):
        return self.control.get("/state").json()

    def requests(self, since=0):
        entries = self.control.get("/requests", params={"since": since}).json()
        for entry in entries:
            entry["head"] = base64.b64decode(entry["head"])
            entry["body"] = base64.b64decode(entry["body"])
        return entries

    def last(self):
        return self.requests()[-1]

    def listen(self, on):
        self.control.post("/listen", json={"on": on})

    def abort(self):
        self.control.post("/abort", json={})


class Gateway(Process):
    name = "gateway"

    def __init__(self, config=None, args=(), env=None, data_dir=None, threads=None):
        super().__init__()
        self.port = free_port()
        self.address = "127.0.0.1"
        self.data_dir = Path(data_dir) if data_dir else self.directory / "d"
        self.config = {"threads": threads or THREADS, **(config or {})}
        self.args = args
        self.env = {"SLUICE_ADMIN_KEY": ADMIN_KEY, **(env or {})}
        self.http = None

    @property
    def url(self):
        return f"http://{'127.0.0.1' if self.address == '0.0.0.0' else self.address}:{self.port}"

    def start(self, wait=True):
        self.http = self.http or httpx.Client(base_url=self.url, timeout=30)
        path = self.directory / "c.yaml"
        path.write_text(json.dumps(self.config, indent=1))  # JSON is YAML
        self.spawn([BUILD / "sluiced", "--config", path, "--listen", f"{self.address}:{self.port}", "--data-dir", self.data_dir,
                    *self.args], env=self.env)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=20):
        def ready():
            assert self.is_up(), f"the gateway ended with {self.process.returncode}:\n{self.log()[-3000:]}"
            return self.http.get("/readyz").status_code == 200

        try:
            wait_until(lambda: not self.is_up() or ready(), timeout, "gateway ready")
        finally:
            assert self.is_up(), f"the gateway ended with {self.process.returncode}:\n{self.log()[-3000:]}"

    def restart(self):
        self.kill()
        return self.start()

    def redis_pid(self):
        found = [p for p in children_of(self.pid) if b"redis-server" in Path(f"/proc/{p}/cmdline").read_bytes()]
        return found[0] if found else None

    def call(self, method, path, key=None, **kwargs):
        headers = dict(kwargs.pop("headers", {}))
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return self.http.request(method, path, headers=headers, **kwargs)

    def admin(self, method, path, status=None, **kwargs):
        answer = self.call(method, path, key=ADMIN_KEY, **kwargs)
        if status is not None:
            assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def admin_ok(self, method, path, **kwargs):
        answer = self.admin(method, path, **kwargs)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def tenant(self, credit="100", **key_fields):
        return Tenant(self, credit, **key_fields)

    def credit(self, tenant, amount):
        return self.admin_ok("POST", "/api/v1/admin/credits", json={"tenant": tenant, "amount_usd": amount},
                             headers={"Idempotency-Key": uuid.uuid4().hex})

    def enrolment(self, supplier="supplier-1", **fields):
        return self.admin_ok("POST", "/api/v1/admin/enrolments", json={"supplier": supplier, **fields})

    def workers(self):
        return all_pages(lambda params: self.admin_ok("GET", "/api/v1/workers", params=params))

    def worker(self, worker_id):
        return next((w for w in self.workers() if w["id"] == worker_id), None)

    def ledger(self):
        return all_pages(lambda params: self.admin_ok("GET", "/api/v1/ledger", params=params))

    def metric(self, name, **labels):
        """Sum of the samples of that name whose labels include these."""
        total = 0.0
        for line in self.call("GET", "/metrics").text.splitlines():
            if line.startswith("#") or not line.startswith(name):
                continue
            sample, _, value = line.rpartition(" ")
            if sample.split("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total


def all_pages(get):
    rows, params = [], {}
    while True:
        page = get(params)
        assert page["object"] == "list"
        rows += page["data"]
        if not page.get("next"):
            return rows
        params = {"cursor": page["next"]}


class Tenant:
    """A tenant with money and one key."""

    def __init__(self, gateway, credit="100", **key_fields):
        self.gateway = gateway
        self.id = gateway.admin_ok("POST", "/api/v1/admin/tenants", json={"name": f"tenant-{uuid.uuid4().hex[:8]}"})["id"]
        if credit:
            gateway.credit(self.id, credit)
        self.key_id, self.key = self.new_key(**key_fields)

    def new_key(self, **fields):
        made = self.gateway.admin_ok("POST", "/api/v1/admin/keys", json={"tenant": self.id, "name": "test", **fields})
        # Other threads of the gateway learn of it within a second; a test that uses it at once must not race that.
        wait_until(lambda: self.gateway.call("GET", "/v1/models", key=made["key"]).status_code == 200, 5, "new key is accepted")
        return made["id"], made["key"]

    def client(self, **options):
        options = {"max_retries": 0, "timeout": 30, **options}
        return openai.OpenAI(base_url=self.gateway.url + "/v1", api_key=self.key, **options)

    def call(self, method, path, **kwargs):
        return self.gateway.call(method, path, key=self.key, **kwargs)

    def balance(self):
        return self.call("GET", "/api/v1/balance").json()

    def usage(self, **params):
        answer = self.call("GET", "/api/v1/usage", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def requests_billed(self):
        return sum(row["requests"] for row in self.usage(group_by="model"))

    def wait_rows(self, count, timeout=10):
        wait_until(lambda: self.requests_billed() == count, timeout, f"{count} usage rows, have {self.requests_billed()}")


class Worker(Process):
    name = "worker"

    def __init__(self, gateway, upstream, price="1.00", token=None, env=None, prefix=(), **options):
        super().__init__()
        self.prefix = list(prefix)
        self.gateway = gateway
        self.upstream = upstream.url if hasattr(upstream, "url") else upstream
        self.token = token or gateway.enrolment()["token"]
        self.price = price
        self.env = env
        self.options = {"slots": 8, **options}
        self.id = None

    def start(self, wait=True):
        known = {w["id"] for w in self.gateway.workers()} if wait and not self.id else set()
        self.spawn(self.command(), env=self.env)
        if wait and not self.id:
            self.id = wait_until(lambda: next((w["id"] for w in self.gateway.workers() if w["id"] not in known), None), 15,
                                 "worker registered")
        if wait:
            is_trusted = self.gateway.config.get("probes", {}).get("admission") == "off"
            self.wait_state("enrolled" if is_trusted else "ready")
        return self

    def command(self, gateway_url=None):
        argv = [*self.prefix, BUILD / "sluice-worker", "--gateway", gateway_url or self.gateway.url, "--token", self.token, "--upstream",
                self.upstream, "--price", self.price, "--state-dir", self.directory / "s"]
        for name, value in self.options.items():
            if value is not None:
                argv += ["--" + name.replace("_", "-"), str(value)]
        return argv

    def wait_state(self, state, timeout=20):
        def reached():
            assert self.is_up() or state != "ready", f"the worker ended with {self.process.returncode}:\n{self.log()[-3000:]}"
            found = self.gateway.worker(self.id)
            return found if found and found["state"] == state else None

        return wait_until(reached, timeout, f"worker {self.id} {state}")


_model_numbers = itertools.count(1)


def new_model_name():
    return f"model-{os.getpid()}-{next(_model_numbers)}"


class Fleet:
    """Model servers with a worker each, all serving one model that nothing else on the gateway serves."""

    def __init__(self, gateway, count=1, workers=None, names=None, **options):
        self.gateway = gateway
        self.model = new_model_name()
        per_worker = workers or [{} for _ in range(count)]
        self.servers = [ModelServer([self.model], name=(names or "abcdefgh")[i]) for i in range(len(per_worker))]
        self.workers = [Worker(gateway, server, **{**options, **own}).start() for server, own in zip(self.servers, per_worker)]
        wait_until(self.is_listed, 10, f"{self.model} has {len(self.workers)} replicas")

    @property
    def server(self):
        return self.servers[0]

    @property
    def worker(self):
        return self.workers[0]

    def is_listed(self):
        # Any tenant sees it: one is made once a gateway.
        tenant = self.gateway.__dict__.setdefault("probe_tenant", None) or self.gateway.tenant()
        self.gateway.probe_tenant = tenant
        found = tenant.call("GET", f"/v1/models/{self.model}")
        return found.status_code == 200 and found.json()["x_sluice"]["replicas"] == len(self.workers)

    def server_of(self, worker_id):
        return self.servers[[w.id for w in self.workers].index(worker_id)]

    def chat(self, **fields):
        return {"model": self.model, "messages": [{"role": "user", "content": "hello there"}], **fields}

    def seen(self):
        return [len(server.requests()) for server in self.servers]

    def remove(self):
        for process in self.workers + self.servers:
            process.remove()


class Raw:
    """A connection used byte by byte; understands lengths, chunks and trailers but forgives nothing."""

    def __init__(self, gateway, timeout=10, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", gateway.port))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def request(self, method, path, key=None, body=b"", headers=()):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        if body or method in ("POST", "PUT"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{k}: {v}" for k, v in (headers.items() if isinstance(headers, dict) else headers)]
        return self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)

    def more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return data

    def read_until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                raise EOFError(f"closed before {mark!r}, have {self.buffer[-300:]!r}")
        end = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:end], self.buffer[end:]
        return data

    def read_exactly(self, count):
        while len(self.buffer) < count:
            if not self.more():
                raise EOFError(f"closed {count - len(self.buffer)} bytes early")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def head(self):
        while True:
            lines = self.read_until(b"\r\n\r\n").decode("latin-1")[:-4].split("\r\n")
            version, status, *_ = lines[0].split(" ", 2)
            if status != "100":
                break
        pairs = [line.split(":", 1) for line in lines[1:]]
        return RawAnswer(version, int(status), [(k.lower(), v.strip()) for k, v in pairs])

    def answer(self, method="GET"):
        answer = self.head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.get("transfer-encoding") == "chunked":
            while True:
                size = int(self.read_until(b"\r\n")[:-2], 16)
                if size == 0:
                    break
                answer.chunks.append(self.read_exactly(size))
                assert self.read_exactly(2) == b"\r\n"
            while (line := self.read_until(b"\r\n")[:-2]) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                answer.trailers[name.strip().lower()] = value.strip()
            answer.body = b"".join(answer.chunks)
        elif answer.get("content-length") is not None:
            answer.body = self.read_exactly(int(answer.get("content-length")))
        else:
            answer.body = self.rest()
        return answer

    def rest(self):
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self, timeout=10):
        """True when the other side closes within the time; what it still sends is thrown away."""
        self.socket.settimeout(timeout)
        try:
            self.rest()
            return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


class RawAnswer:
    def __init__(self, version, status, fields):
        self.version = version
        self.status = status
        self.fields = fields
        self.body = b""
        self.chunks = []
        self.trailers = {}

    def get(self, name):
        return next((v for k, v in self.fields if k == name), None)

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json()["error"]


def sse_data(body):
    """The data of each event of a stream that must be perfectly plain: only data lines and comments, blank line after each."""
    assert body.endswith(b"\n\n"), f"the last event lacks its blank line: {body[-80:]!r}"
    events = []
    for block in body[:-2].split(b"\n\n"):
        for line in block.split(b"\n"):
            assert line.startswith((b"data: ", b":")), f"not a data line: {line!r}"
            if line.startswith(b"data: "):
                events.append(line[6:])
    return events


def error_of(answer, status):
    """Checks the shape that every error has, and returns the error."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers.get("x-request-id")
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    return error
