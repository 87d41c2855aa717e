"""The program `sluice`: against a real gateway, and against a played one that writes what no gateway should."""

import hashlib
import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

import harness
from harness import ADMIN_KEY, BUILD, wait_until

SLUICE = BUILD / "sluice"


def run(*args, gateway=None, key=ADMIN_KEY, code=0, stdin="", env=None):
    environment = {"PATH": os.environ["PATH"], **({"SLUICE_ADMIN_KEY": key} if key else {}),
                   **({"SLUICE_GATEWAY": gateway} if gateway else {}), **(env or {})}
    done = subprocess.run([SLUICE, *map(str, args)], env=environment, input=stdin, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert (code == 0) == (done.stderr == ""), done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def columns(text):
    """Rows of a table as dicts; the heads say where columns begin, for left-aligned ones at least."""
    lines = text.splitlines()
    names = re.split(r"\s{2,}", lines[0].strip())
    return [dict(zip(names, re.split(r"\s{2,}", line.strip()))) for line in lines[1:]]


# -- receipts, made by openssl -----------------------------------------------------------------------------------------


class Signer:
    def __init__(self, folder, name="key"):
        self.path, self.folder = folder / f"{name}.pem", folder
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.path], check=True, capture_output=True)
        der = subprocess.run(["openssl", "pkey", "-in", self.path, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
        self.public = der[-32:].hex()

    def receipt(self, at=1763770000123, previous="", **fields):
        step = {"id": "01" * 16, "kind": "chain", "passed": True, "rate": 1210.75, "root": "66" * 32, "seed": "55" * 32,
                "took_us": 351234, "unit": "TOPS"}
        body = {"at": at, "claimed": "nvidia/h200-sxm-141", "class": "nvidia/h200-sxm-141", "driver": "580.95.05",
                "exchange_key": "22" * 32, "gateway": "gw_1", "gateway_key": self.public, "gpu": 0, "host_sha256": "33" * 32,
                "performance": 0.875, "previous": previous,
                "proven": {"chain_tops": 1210.75, "fill_gbps": 205.5, "pass_gbps": 4187.5, "vram_gib": 136.25, "walk_gbps": 98.25},
                "purpose": "admission", "ratio": 0.9375, "reason": "", "result": "passed", "rtt_us": 1234, "steps": [step],
                "uuid_sha256": "44" * 32, "version": 1, "worker": "wrk_1", "worker_key": "11" * 32, **fields}
        text = self.folder / "text"
        text.write_text(compact(body))
        body["signature"] = subprocess.run(["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.path, "-in", text],
                                           check=True, capture_output=True).stdout.hex()
        return body


def compact(body):
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def log(signer):
    """Four receipts, newest first, as a gateway lists them."""
    made, previous = [], ""
    for i in range(4):
        made.insert(0, signer.receipt(at=1763770000123 + i * 1000, previous=previous))
        previous = hashlib.sha256(compact(made[0]).encode()).hexdigest()
    return made


# -- a played gateway --------------------------------------------------------------------------------------------------


@pytest.fixture
def played():
    """Answers from a table of (method, path) to (status, body); the body a value, or bytes as they are."""
    answers, seen = {}, []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            status, body = answers.get((self.command, urlsplit(self.path).path), (404, {"error": {"message": "No such thing."}}))
            if callable(body):
                body = body(self.path)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except ConnectionError:
                pass

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.answers, server.seen, server.url = answers, seen, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


WORKER = {"id": "wrk_1", "name": "blue", "supplier": "acme", "state": "ready", "reason": None, "models": ["llama", "gemma"],
          "gpu": "nvidia/h200-sxm-141", "gpus": 8, "gpu_claimed": "nvidia/h200-sxm-141", "gpu_proven": "nvidia/h100-sxm-80",
          "price_per_gpu_hour_usd": "2.5", "slots": 64, "in_flight": 3, "region": "eu-west", "reputation": 0.4481,
          "performance": 0.871, "driver": "580.95.05", "proven_at": 1763770000123, "last_probe_at": 1763770000123,
          "next_probe_at": 1763773600000, "banned_until": None,
          "reputation_parts": {"hardware": {"score": 0.61, "good": 3.0, "bad": 0.25}, "network": {"score": 0.45, "good": 0, "bad": 0}}}


def listing(*rows):
    return {"object": "list", "data": list(rows), "next": None}


# -- tests -------------------------------------------------------------------------------------------------------------


def test_workers_of_a_real_gateway(gateway, fleet):
    rows = columns(run("workers", gateway=gateway.url))
    mine = next(r for r in rows if r["ID"] == fleet.worker.id)
    assert mine["STATE"] == "ready" and mine["CLAIMED"] == "nvidia/h100-sxm-80" and mine["CALLS"] == "0/8"
    assert mine["MODELS"] == fleet.model
    assert fleet.worker.id in run("workers", "-o", "name", gateway=gateway.url).split()
    listed = json.loads(run("-o", "json", "workers", "--gateway", gateway.url + "/"))
    assert fleet.worker.id in [w["id"] for w in listed["data"]]
    assert "supplier-1" in run("workers", "-o", "wide", gateway=gateway.url)


def test_proofs_of_a_real_gateway(gateway, make_fleet, tmp_path):
    worker = make_fleet().worker.id
    path = tmp_path / "log.json"

    def verified():
        path.write_text(run("proof", "list", worker, "-o", "json", gateway=gateway.url))
        return columns(run("proof", "verify", path, key=None))

    rows = verified()
    assert rows[-1]["CHAIN"] == "first" and rows[0]["WORKER"] == worker and rows[0]["RESULT"] == "passed"
    text = run("worker", "show", worker, gateway=gateway.url)
    for kind in ("hello", "net", "fill", "pass", "walk", "chain", "bind"):
        assert re.search(rf"^{kind} +passed ", text, re.M), text
    for name in ("hardware", "correctness", "availability", "network"):
        assert re.search(rf"^{name} +0\.\d{{3}} ", text, re.M), text
    assert worker in run("worker", "probe", worker, gateway=gateway.url)
    more = wait_until(lambda: len(found := verified()) > len(rows) and found, 30, "a receipt of the proof that was asked for")
    assert [r["CHAIN"] for r in more][-2:] == ["linked", "first"] and {r["SIGNATURE"] for r in more} == {"good"}
    run("worker", "probe", "wrk_none", gateway=gateway.url, code=5)
    run("proof", "list", "none", gateway=gateway.url, code=5)
    assert run("ban", "list", gateway=gateway.url).split()[:2] == ["ID", "KIND"]
    run("ban", "lift", "ab" * 32, gateway=gateway.url, code=5)


def test_exit_codes_of_a_real_gateway(gateway, tenant, tmp_path):
    assert "sluice:" in run("workers", gateway=gateway.url, key=None, code=4)
    assert "sluice:" in run("workers", gateway=gateway.url, key="wrong", code=4)
    assert "--key-file" in run("workers", gateway=gateway.url, key=None, env={"SLUICE_API_KEY": tenant.key}, code=4)
    run("worker", "show", "wrk_none", gateway=gateway.url, code=5)
    assert "--gateway" in run("workers", gateway=f"http://127.0.0.1:{harness.free_port()}", code=3)
    for args in ([], ["frob"], ["workers", "extra"], ["worker", "show"], ["workers", "-o", "yaml"], ["workers", "--frob"],
                 ["workers", "--gateway", "ftp://x"], ["workers", "--key", "00"], ["workers", "--key-file", "/no/such/file"]):
        run(*args, gateway=gateway.url, code=2)
    path = tmp_path / "key"
    path.write_text(ADMIN_KEY + "\n")
    assert run("workers", "--key-file", path, gateway=gateway.url, key=None)


def test_curl_does_what_it_prints(gateway, fleet):
    line = run("workers", "--curl", gateway=gateway.url)
    assert ADMIN_KEY not in line and "$SLUICE_ADMIN_KEY" in line
    answer = subprocess.run(["bash", "-c", line], env={"PATH": os.environ["PATH"], "SLUICE_ADMIN_KEY": ADMIN_KEY}, capture_output=True,
                            timeout=30).stdout
    assert fleet.worker.id in [w["id"] for w in json.loads(answer)["data"]]
    assert "$SLUICE_API_KEY" in run("worker", "probe", "a'b/../c", "--curl", key=None)
    assert "/workers/a%27b%2F..%2Fc/proofs" in run("worker", "probe", "a'b/../c", "--curl", key=None)


def test_help_of_every_command():
    text = run("--help")
    assert "exit codes" in text
    for command in (["workers"], ["worker", "show"], ["worker", "probe"], ["proof", "list"], ["proof", "verify"], ["ban", "list"],
                    ["ban", "lift"]):
        assert " ".join(command) in text
        assert "usage: sluice " + " ".join(command) in run(*command, "--help")
    assert "proof" not in run("worker", "--help").split("options:")[0].replace("a proof", "")
    assert "--key " in run("proof", "verify", "--help") and "--gateway" not in run("proof", "verify", "--help")
    assert "--key " not in run("proof", "list", "--help") and "--key-file" in run("proof", "list", "--help")


def test_worker_show(played, signer):
    played.answers[("GET", "/api/v1/workers")] = (200, listing({**WORKER, "id": "wrk_0"}, WORKER))
    played.answers[("GET", "/api/v1/workers/wrk_1/proofs")] = (200, listing({"number": 7, "receipt": compact(signer.receipt())}))
    text = run("worker", "show", "wrk_1", gateway=played.url)
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert ["class", "nvidia/h200-sxm-141", "nvidia/h100-sxm-80", "-"] in lines
    assert any(line[0] == "pass GB/s" and line[2] == "4187.5" and line[3].endswith(" %") for line in lines)
    assert any(line[0] == "memory GiB" and line[2] == "136.2" for line in lines)
    assert ["chain", "passed", "351.2 ms", "1210.8", "TOPS"] in lines
    assert ["devices", "8"] in lines and ["of device", "0"] in lines
    assert ["last receipt", "2025-11-22 00:06:40Z"] in lines and ["result", "passed"] in lines
    assert ["hardware", "0.610", "3.0", "0.2"] in lines and ["in all", "0.448", "-", "-"] in lines
    assert run("worker", "show", "wrk_1", "-o", "name", gateway=played.url) == "wrk_1\n"
    nothing = {"chain_tops": 1100.5, "fill_gbps": 0.0, "pass_gbps": 0.0, "vram_gib": 0.0, "walk_gbps": 0.0}
    last = [signer.receipt(purpose="spot", proven=nothing), signer.receipt(gpu=1, proven={**nothing, "vram_gib": 1.5}), signer.receipt()]
    played.answers[("GET", "/api/v1/workers/wrk_1/proofs")] = (200, listing(*last))
    text = run("worker", "show", "wrk_1", gateway=played.url)
    assert re.search(r"memory GiB +\S+ +136\.2 ", text) and re.search(r"chain TOPS +\S+ +1100\.5 ", text), text
    both = json.loads(run("worker", "show", "wrk_1", "-o", "json", gateway=played.url))
    assert both["worker"] == WORKER and both["receipt"]["worker"] == "wrk_1"
    played.answers[("GET", "/api/v1/workers/wrk_1/proofs")] = (200, listing())
    assert "no receipts yet" in run("worker", "show", "wrk_1", gateway=played.url)
    run("worker", "show", "wrk_2", gateway=played.url, code=5)


def test_worker_probe(played):
    played.answers[("POST", "/api/v1/workers/wrk_1/proofs")] = (202, {"worker": "wrk_1", "state": "probing"})
    assert "probing" in run("worker", "probe", "wrk_1", gateway=played.url)
    method, path, headers, body = played.seen[-1]
    assert headers["Authorization"] == f"Bearer {ADMIN_KEY}" and headers["Idempotency-Key"] and body == b"{}"
    run("worker", "probe", "wrk_2", gateway=played.url, code=5)


def test_bans(played):
    ban = {"id": "ab" * 32, "kind": "key", "worker": "wrk_1", "reason": "wrong answers", "at": 1763770000123, "until_at": 1766362000123, "bans": 2}
    played.answers[("GET", "/api/v1/admin/bans")] = (200, listing(ban))
    rows = columns(run("ban", "list", gateway=played.url))
    assert rows == [{"ID": "ab" * 32, "KIND": "key", "WORKER": "wrk_1", "UNTIL": "2025-12-22 00:06:40Z", "BANS": "2", "REASON": "wrong answers"}]
    played.answers[("DELETE", "/api/v1/admin/bans/" + "ab" * 32)] = (204, b"")
    assert run("ban", "lift", "ab" * 32, gateway=played.url) == "lifted\n"
    run("ban", "lift", "cd" * 32, gateway=played.url, code=5)


def test_proof_list_and_verify(played, log, tmp_path):
    pages = {None: {"object": "list", "data": log[:3], "next": "c&2"}, "c%262": listing(log[3])}
    played.answers[("GET", "/api/v1/workers/wrk_1/proofs")] = (
        200, lambda path: pages[path.partition("&cursor=")[2] or None])
    rows = columns(run("proof", "list", "wrk_1", gateway=played.url))
    assert [r["RESULT"] for r in rows] == ["passed"] * 4 and rows[0]["CLASS"] == "nvidia/h200-sxm-141"
    names = run("proof", "list", "wrk_1", "-o", "name", gateway=played.url).split()
    assert names == [hashlib.sha256(compact(r).encode()).hexdigest() for r in log]
    path = tmp_path / "log.json"
    path.write_text(run("proof", "list", "wrk_1", "-o", "json", gateway=played.url))
    rows = columns(run("proof", "verify", path, key=None))
    assert [r["SIGNATURE"] for r in rows] == ["good"] * 4
    assert [r["CHAIN"] for r in rows] == ["linked", "linked", "linked", "first"]
    assert run("proof", "verify", path, "-o", "name").split() == names
    assert rows[0]["TIME"] == "2025-11-22 00:06:43Z" and rows[0]["WORKER"] == "wrk_1" and rows[0]["GATEWAY"] == "gw_1"


def test_proof_verify_refuses(signer, log, tmp_path):
    path = tmp_path / "log.json"

    def verify(value, code=1, *args):
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return run("proof", "verify", path, *args, code=code)

    verify(log, 0, "--key", signer.public)
    verify(log[0], 0)
    verify({"data": [{"receipt": r} for r in log]}, 0)
    verify([compact(r) for r in log], 0)
    verify(log[:2], 0)  # the newest ones only
    assert verify(log, 1, "--key", "00" * 32).count("WRONG") == 4
    assert "gap" in verify([log[0], log[1], log[3]])
    for field, value in (("result", "slow"), ("ratio", 0.938), ("worker", "wrk_2"), ("at", 1763770000124), ("gpu", 1)):
        assert "WRONG" in verify([{**log[0], field: value}])
    assert "no receipt" in verify([{**log[0], "more": 1}])
    assert "no receipt" in verify([7])
    assert "fork" in verify([*log, signer.receipt(at=1763770009999, previous=log[1]["previous"])])
    assert "no JSON" in verify("{")
    assert json.loads(run("proof", "verify", path, "-o", "json", code=0) if verify(log, 0) else "")[0]["signature"] == "good"
    run("proof", "verify", tmp_path / "missing", code=2)
    run("proof", "verify", path, "--key", "12", code=2)
    assert "good" in run("proof", "verify", "-", stdin=json.dumps(log))


def test_hostile_answers(played):
    nasty = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\u200b\r\nwrk_9  ready"
    played.answers[("GET", "/api/v1/workers")] = (200, listing({**WORKER, "name": nasty, "reason": nasty, "models": [nasty] * 2}))
    text = run("workers", "-o", "wide", gateway=played.url)
    assert len(text.splitlines()) == 2 and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u200b]", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", run("workers", "-o", "json", gateway=played.url))
    for body, code in (({"error": {"message": nasty}}, 1), (nasty.encode(), 1), ([], 1), ({"data": {}}, 1), (b"", 1)):
        played.answers[("GET", "/api/v1/workers")] = (500 if isinstance(body, dict) and "error" in body else 200, body)
        text = run("workers", gateway=played.url, code=code)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    played.answers[("GET", "/api/v1/workers")] = (200, {"object": "list", "data": [WORKER], "next": "again"})  # without end
    assert "no end" in run("workers", "-o", "name", gateway=played.url, code=1)
    played.answers[("GET", "/api/v1/workers")] = (200, b"[" + b"1," * (20 << 20))
    assert "larger than" in run("workers", gateway=played.url, code=1)
    played.answers[("GET", "/api/v1/workers")] = (200, listing(*[{"id": 7, "models": 3, "reputation": "x", "slots": []}, 8, None]))
    assert len(run("workers", gateway=played.url).splitlines()) == 4
