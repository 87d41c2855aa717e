"""Leased machines at the door: what they fetch, how they prove themselves, and what becomes of the tenant's command."""

import hashlib
import http.server
import itertools
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading

import httpx
import pytest

import harness


@pytest.mark.parametrize("program", ["sluice-worker", "sluice-probe"])
def test_programs_need_the_c_library_only(program):
    """A leased container has a C library and little else."""
    told = subprocess.run(["readelf", "-d", harness.BUILD / program], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.*?)\]", told))
    assert needed <= {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2"}, needed
    told = subprocess.run(["readelf", "-V", harness.BUILD / program], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([0-9.]+)", told)}
    assert max(versions) <= (2, 34), versions


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, chunked"])
def test_answers_in_codings_fail_the_exchange_only(coding, tmp_path):
    """The worker's libcurl has no decoders: what stands in for them must refuse, and must not end the program."""
    body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = (f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\nContent-Encoding: {coding}\r\n"
                  f"Content-Type: application/json\r\nConnection: close\r\n\r\n").encode() + body
        worker = subprocess.Popen(
            [harness.BUILD / "sluice-worker", "--gateway", f"http://127.0.0.1:{server.getsockname()[1]}", "--token", "x",
             "--upstream", "http://127.0.0.1:1", "--price", "1", "--gpu", "cpu", "--state-dir", tmp_path],
            stderr=subprocess.PIPE, text=True, preexec_fn=harness.die_with_parent)
        try:
            server.settimeout(20)
            for _ in range(2):  # it comes again
                client, _address = server.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)
            assert worker.poll() is None
        finally:
            worker.kill()
            log = worker.communicate()[1]
    assert "cannot register" in log and "not built in" not in log, log


# -- the script, on machines with more or less on them ---------------------------------------------------------------

TOOL = harness.BUILD / "tests/door_tool"
LEASE = "lse_01h8zzzzzzzzzzzzzzzzzzzzzz.%d"
BARE = ("sh", "sleep", "mkdir", "chmod", "rm", "cat", "env", "printf", "echo")  # what any image has
numbers = itertools.count(1)


class Machine(harness.Process):
    """What a network makes of an attempt: a process that starts with the script and the token."""

    name = "machine"

    def __init__(self, gateway, *command, kind="container", image="-", valid_s=600, orphan_s=900, programs=None,
                 url=None, env=None):
        super().__init__()
        self.gateway = gateway
        self.lease = LEASE % next(numbers)
        redis = f"unix://{gateway.data_dir}/redis/redis.sock"
        done = subprocess.run([TOOL, redis, url or gateway.url, harness.BUILD, self.lease, str(valid_s), str(orphan_s), kind,
                               image, *command], capture_output=True, text=True, check=True, env={**os.environ, **(env or {})})
        self.token, self.script = done.stdout.split("\n", 1)
        self.path = "/usr/bin:/bin"
        if programs is not None:
            folder = self.directory / "bin"
            folder.mkdir()
            for program in {*BARE, *programs}:
                (folder / program).symlink_to(shutil.which(program, path="/usr/bin:/bin"))
            self.path = str(folder)

    def start(self):
        self.spawn([shutil.which("env"), "-i", f"PATH={self.path}", f"TMPDIR={self.directory}", f"SLUICE_TOKEN={self.token}",
                    "/bin/sh", "-c", self.script])
        return self

    def row(self):
        return next((row for row in self.gateway.workers() if row.get("lease") == self.lease), None)

    def wait_ready(self, timeout=30):
        return harness.wait_until(lambda: (row := self.row()) and row["state"] == "ready" and row["linked"] and row, timeout,
                                  "a proven machine")


@pytest.fixture
def machine(gateway):
    made = []

    def make(*command, on=None, **options):
        made.append(Machine(on or gateway, *command, **options))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        one.remove()


@pytest.mark.parametrize("programs", [("curl", "sha256sum"), ("wget", "sha256sum"), ("python3",), ("curl", "openssl"),
                                      ("bash", "sha256sum")], ids=" ".join)
def test_fetches_with_what_there_is(machine, programs):
    if any(not shutil.which(program, path="/usr/bin:/bin") for program in programs):
        pytest.skip(f"this machine has not all of {programs}")
    row = machine("sleep", "1000", programs=programs).start().wait_ready()
    assert row["gpu_proven"] == "cpu"
    assert row["price_per_gpu_hour_usd"] == "0.00"
    assert row["models"] == []


@pytest.mark.parametrize("programs, told", [
    (("curl",), "needs sha256sum, openssl or python3"),
    (("sha256sum",), "there is no curl, wget or python3"),
])
def test_says_what_is_missing(machine, programs, told):
    one = machine("true", programs=programs)
    one.script = one.script.replace("for w in 1 2 4 8 16 x", "for w in 0 x")  # the pauses between tries
    one.start()
    assert one.process.wait(30) == 1
    assert told in one.log() and one.log().splitlines()[-1].startswith("sluice: "), one.log()


def test_runs_nothing_that_is_not_ours(machine, gateway):
    """Neither what was changed on the way, nor what came by an address that is too old."""
    one = machine("true")
    one.script = re.sub(r"for w in 1 2 4 8 16 x", "for w in 0 x", one.script)
    digest = re.search(r"' ([0-9a-f]{64})$", one.script, re.M)[1]
    one.script = one.script.replace(digest, digest[::-1])
    one.start()
    assert one.process.wait(30) == 1
    assert "what came is not what it should be" in one.log()
    late = machine("true", valid_s=-5)
    late.script = re.sub(r"for w in 1 2 4 8 16 x", "for w in 0 x", late.script)
    late.start()
    assert late.process.wait(30) == 1
    assert "403" in late.log(), late.log()


def test_addresses_are_signed_and_short_lived(machine, gateway):
    script = machine("true").script
    paths = re.findall(r"'(/worker/v1/bootstrap/[^']*)' ([0-9a-f]{64})", script)
    assert [re.search(r"bootstrap/(\w+)", path)[1] for path, _digest in paths] == ["worker", "probe"]
    for path, digest in paths:
        answer = httpx.get(gateway.url + path)
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest() == digest
        assert httpx.head(gateway.url + path).headers["content-length"] == str(len(answer.content))
        for change in [("sig=", "sig=A"), ("expires=", "expires=1"), ("lse_", "lse_x"), ("?", "?&extra=1&"),
                       ("bootstrap/worker", "bootstrap/probe"), ("bootstrap/probe", "bootstrap/worker")]:
            if change[0] in path:
                other = httpx.get(gateway.url + path.replace(*change, 1))
                assert other.status_code == (400 if "extra" in change[1] else 403), (change, other.text)
    old = re.findall(r"'(/worker/v1/bootstrap/[^']*)'", machine("true", valid_s=-1).script)
    assert [httpx.get(gateway.url + path).status_code for path in old] == [403, 403]
    assert httpx.get(gateway.url + "/worker/v1/bootstrap/worker").status_code == 403


def test_a_token_is_one_worker(machine, gateway):
    """Whoever registers with it is the attempt's one worker, at no price, whatever it says of itself."""
    one = machine("true")
    describe = {"name": "x", "gpu": "nvidia/h100-sxm-80", "price_per_gpu_hour_usd": "9.00", "token": one.token,
                "lease": "lse_other.1"}
    answers = [httpx.post(gateway.url + "/worker/v1/register", json=describe) for _ in range(3)]
    assert [a.status_code for a in answers] == [200] * 3
    assert len({(a.json()["worker_id"], a.json()["secret"]) for a in answers}) == 1
    assert one.row()["price_per_gpu_hour_usd"] == "0.00"
    assert one.row()["lease"] == one.lease
    again = {**describe, "worker_id": answers[0].json()["worker_id"], "secret": answers[0].json()["secret"]}
    del again["token"]
    assert httpx.post(gateway.url + "/worker/v1/register", json=again).status_code == 200
    assert one.row()["price_per_gpu_hour_usd"] == "0.00"
    for wrong in ["sll-" + "A" * 43, "slw-" + one.token[4:], one.token[:-1], one.token + "A"]:
        assert httpx.post(gateway.url + "/worker/v1/register", json={**describe, "token": wrong}).status_code == 401
    assert gateway.admin("GET", "/api/v1/admin/enrolments").json()["data"] == [] or all(
        "lse_" not in str(row) for row in gateway.admin("GET", "/api/v1/admin/enrolments").json()["data"])


def test_is_no_offer(machine, gateway):
    one = machine("sleep", "1000").start()
    worker = one.wait_ready()["id"]
    offers = gateway.admin("GET", "/api/v1/offers").json()["data"]
    assert all(offer["id"] != worker for offer in offers)


def test_lives_through_a_killed_gateway(machine, make_gateway):
    gateway = make_gateway()
    one = machine("sleep", "1000", on=gateway).start()
    before = one.wait_ready()
    gateway.kill()
    gateway.restart()
    after = one.wait_ready()
    assert after["id"] == before["id"] and one.is_up()
    assert one.log().count('"enrolled"') == 1


def test_ends_when_nobody_owns_it(machine, make_gateway):
    gateway = make_gateway()
    one = machine("sleep", "1000", on=gateway, orphan_s=2).start()
    one.wait_ready()
    gateway.kill()
    assert one.process.wait(30) == 4
    assert "nobody owns this machine any more" in one.log()


def test_ends_where_no_gateway_ever_answers(machine, make_gateway):
    """The worker is there, the gateway is gone before it could register."""
    gateway = make_gateway()
    one = machine("sleep", "1000", on=gateway, orphan_s=2)
    folder = one.directory / f".sluice-{one.lease}"
    folder.mkdir(mode=0o700)
    for program in ("sluice-worker", "sluice-probe"):
        shutil.copy(harness.BUILD / program, folder)  # as after a restart of the container: nothing is fetched again
    gateway.kill()
    one.start()
    assert one.process.wait(30) == 4


class Front(http.server.BaseHTTPRequestHandler):
    """What stands before gateways in earnest: TLS, and everything handed on."""

    protocol_version = "HTTP/1.1"

    def handed_on(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.seen.append(self.path.split("?")[0])
        answer = httpx.request(self.command, self.server.gateway + self.path, content=body, timeout=30,
                               headers={"content-type": self.headers.get("content-type") or "text/plain"})
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers["content-type"])
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = handed_on

    def log_message(self, *_):
        pass


def certificate(folder, name):
    files = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=" + name, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", files[0], "-out", files[1]],
                   check=True, capture_output=True)
    return files


@pytest.mark.parametrize("is_known", [True, False], ids=["its own CA", "another CA"])
def test_over_https_with_the_gateways_own_ca(is_known, make_gateway, tmp_path):
    """The machine has no CA that knows the gateway: it gets it with the programs, and believes no other."""
    key, crt = certificate(tmp_path, "front")
    trusted = crt if is_known else certificate(tmp_path, "other")[1]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    gateway = make_gateway(env={"SSL_CERT_FILE": str(trusted)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
        front.socket = context.wrap_socket(front.socket, server_side=True)
        front.gateway, front.seen = gateway.url, []
        threading.Thread(target=front.serve_forever, daemon=True).start()
        one = Machine(gateway, "sleep", "1000", url=f"https://127.0.0.1:{front.server_port}", orphan_s=3,
                      env={"SSL_CERT_FILE": str(trusted)}).start()
        try:
            if is_known:
                one.wait_ready()
            else:
                assert one.process.wait(30) == 4
                assert "cannot register" in one.log()
            assert [f"/worker/v1/bootstrap/{name}" in front.seen for name in ("worker", "probe", "ca")] == [True] * 3
            assert ("/worker/v1/register" in front.seen) == is_known
        finally:
            one.kill()
            one.remove()
            front.shutdown()
