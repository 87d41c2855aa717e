"""The commands of `sluice` that rent: offers, launch, ps, logs, down, networks, against a played gateway that a test changes
as it goes, so that each step of a lease is told."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
from urllib.parse import parse_qs, urlsplit

from harness import ADMIN_KEY, BUILD, wait_until
from test_cli import columns, played  # noqa: F401  (a fixture)
from test_leases import rented  # noqa: F401

SLUICE = BUILD / "sluice"
HOSTILE = "Grüße \x1b[2J‮end"
OFFERS = [{"id": f"off_vast.{i}", "network": "vast-main", "gpu": "nvidia/h100-sxm-80", "gpu_raw": "H100 SXM", "count": 8, "vram_gib": 80,
           "region": "eu-north", "price_per_gpu_hour_usd": f"2.{i}0", "interruptible": False, "reputation": 0.75, "latency_ms": 40.5,
           "observed_at": 1763770000123, "score": 0.1 * i, "parts": {"price": 0.25, "latency": 0.5, "reputation": 0.125}} for i in range(3)]
LEASE = {"id": "lse_1", "state": "requested", "reason": None, "offer": None, "attempts": [], "endpoints": [], "price_per_gpu_hour_usd": None,
         "billed_ms": 0, "cost_usd": "0.00", "created_at": 1763770000123, "active_at": None, "ended_at": None, "gpu": "RTX4090", "count": 1,
         "image": "ghcr.io/x/y:1"}
QUOTE = {"id": "quo_1", "offer": "off_vast.0", "network": "vast-main", "gpu": "nvidia/rtx4090-24", "count": 1, "region": "eu-north",
         "price_per_gpu_hour_usd": "0.40", "expires_at": 1763770300123,
         "candidates": [{"offer": "off_vast.0", "network": "vast-main", "gpu": "nvidia/rtx4090-24", "gpus": 1, "region": "eu-north",
                         "price_per_gpu_hour_usd": "0.40", "score": 0.125, "parts": {"price": 0.5, "latency": 0.25, "reputation": 0.0625}}]}
ARGS = ("launch", "--gpu", "RTX4090", "--image", "ghcr.io/x/y:1")


def environment(gateway, **more):
    return {"PATH": os.environ["PATH"], "SLUICE_API_KEY": "sk-caller", "SLUICE_GATEWAY": gateway.url, **more}


def run(gateway, *args, code=0, **env):
    """What it prints on stdout, and on stderr."""
    done = subprocess.run([SLUICE, *map(str, args)], env=environment(gateway, **env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout, done.stderr


def posted(gateway, path):
    return [json.loads(body) for method, at, _, body in gateway.seen if method == "POST" and at == path]


def steps(*leases):
    """A GET that tells one step after another, and the last one from then on."""
    left = list(leases)
    return lambda path: left.pop(0) if len(left) > 1 else left[0]


# -- offers, networks --------------------------------------------------------------------------------------------------


def test_offers_are_asked_for_and_shown(played):
    played.answers["GET", "/api/v1/offers"] = (200, {"object": "list", "data": OFFERS, "next": None})
    out, err = run(played, "offers", "--gpu", "H100", "--count", 8, "--max-price", "2.50", "--region", "eu", "--prefer", "price=1,latency=0", "--limit", 5)
    asked = parse_qs(urlsplit(played.seen[0][1]).query)
    assert asked == {"gpu": ["H100"], "count": ["8"], "max_price": ["2.50"], "region": ["eu"], "prefer": ["price=1,latency=0"], "limit": ["5"]}
    assert played.seen[0][2]["Authorization"] == "Bearer sk-caller" and not err
    rows = columns(out)
    assert [row["OFFER"] for row in rows] == [o["id"] for o in OFFERS]
    assert rows[1]["$/GPU-H"] == "2.10" and rows[1]["SCORE"] == "0.1000" and rows[1]["INTERRUPTIBLE"] == "no"
    out, _ = run(played, "offers", "--explain")
    assert parse_qs(urlsplit(played.seen[-1][1]).query)["explain"] == ["1"]
    assert "PRICE PART" in out and re.search(r"0\.2500\s+0\.5000\s+0\.1250", out)
    out, _ = run(played, "offers", "-o", "name")
    assert out.split() == [o["id"] for o in OFFERS]
    out, _ = run(played, "offers", "-o", "json")
    assert json.loads(out)["data"] == OFFERS
    out, _ = run(played, "offers", "-o", "wide")
    assert "H100 SXM" in out and "2025-11-22" in out


def test_offers_of_unknown_gpus_say_so_and_do_no_harm(played):
    odd = {**OFFERS[0], "gpu": None, "gpu_raw": HOSTILE, "region": HOSTILE}
    played.answers["GET", "/api/v1/offers"] = (200, {"object": "list", "data": [odd], "next": None})
    out, _ = run(played, "offers")
    assert "? Grüße" in out and "\x1b" not in out and "\u202e" not in out


def test_networks(played):
    row = {"id": "vast-main", "adapter": "vast", "state": "ok", "offers": 12, "last_poll_at": 1763770000123, "last_error": HOSTILE, "orphans_ended": 3}
    played.answers["GET", "/api/v1/networks"] = (200, {"object": "list", "data": [row], "next": None})
    out, _ = run(played, "networks", SLUICE_ADMIN_KEY="admin-key")
    assert played.seen[0][2]["Authorization"] == "Bearer admin-key", "networks are the operator's"
    assert "vast-main" in out and "12" in out and "Grüße" in out and "\x1b" not in out
    row.update({"breaker": {"state": "open", "reason": "quota"}, "errors": {"quota": 2, "transient": 1}, "traits": ["no_logs", "vm"], "probe": "required", "poll_s": 30})
    out, _ = run(played, "networks", "-o", "wide")
    assert "quota 2, transient 1" in out and "no_logs,vm" in out and "open" in out
    assert run(played, "networks", "-o", "name")[0].split() == ["vast-main"]


# -- launch ------------------------------------------------------------------------------------------------------------


def test_launch_waits_and_tells_what_happens(played):
    failed = {"network": "vast-main", "offer": "off_vast.0", "error": "no_capacity", "message": "vast-main: gone " + HOSTILE, "at": 1}
    trying = {"network": "runpod", "offer": "off_runpod.1", "error": None, "message": None, "at": 2}
    active = {**LEASE, "state": "active", "attempts": [failed, trying], "price_per_gpu_hour_usd": "0.45", "endpoints": [{"port": 8000, "url": "http://203.0.113.7:33526"}]}
    played.answers["POST", "/api/v1/leases"] = (202, LEASE)
    played.answers["GET", "/api/v1/leases/lse_1"] = (200, steps({**LEASE, "state": "provisioning", "attempts": [failed, trying]}, active))
    out, err = run(played, *ARGS, "--port", 8000, "--max-price", "0.50", "--retry-until-up", "--env", "A=b=c", "--env", "FROM_HERE", "--count", 2,
                   "--max-duration", "12h", "--disk", 50, "--spot", "--no-recover", "--yes", "--", "sh", "-c", "echo hi", FROM_HERE="there")
    (body,) = posted(played, "/api/v1/leases")
    assert body == {"gpu": "RTX4090", "image": "ghcr.io/x/y:1", "ports": [8000], "max_price_per_gpu_hour_usd": "0.50", "retry_until_up": True,
                    "env": {"A": "b=c", "FROM_HERE": "there"}, "count": 2, "max_duration_s": 43200, "disk_gib": 50, "interruptible": True, "recover": False,
                    "command": ["sh", "-c", "echo hi"]}
    assert "Idempotency-Key" in played.seen[0][2]
    assert re.search(r"vast-main off_vast\.0: no_capacity: vast-main: gone Grüße", err) and "provisioning on runpod" in err and "\x1b" not in err
    assert err.count("no_capacity") == 1
    assert "lse_1" in out and "http://203.0.113.7:33526" in out and "active" in out


def test_launch_fails_with_the_reason(played):
    played.answers["POST", "/api/v1/quotes"] = (200, QUOTE)
    played.answers["POST", "/api/v1/leases"] = (202, LEASE)
    played.answers["GET", "/api/v1/leases/lse_1"] = (200, {**LEASE, "state": "failed", "reason": "nothing could be had: 3 offers tried"})
    out, err = run(played, *ARGS, "--yes", "-o", "json", code=1)
    assert "failed: nothing could be had: 3 offers tried" in err
    assert json.loads(out)["state"] == "failed"
    assert posted(played, "/api/v1/leases")[0]["quote"] == "quo_1", "without a cap the quote is the cap"


def test_launch_detached_prints_the_lease(played):
    played.answers["POST", "/api/v1/leases"] = (202, LEASE)
    out, err = run(played, *ARGS, "--max-price", "1", "-y", "-d", "-o", "name")
    assert out == "lse_1\n" and not err and [seen[0] for seen in played.seen] == ["POST"]


def test_launch_spends_only_with_consent(played):
    played.answers["POST", "/api/v1/quotes"] = (200, QUOTE)
    played.answers["POST", "/api/v1/leases"] = (202, LEASE)
    _, err = run(played, *ARGS, code=2)
    assert "--yes" in err and not posted(played, "/api/v1/leases")
    for answer, launched in (("n\n", False), ("y\n", True)):
        master, slave = pty.openpty()
        process = subprocess.Popen([SLUICE, *ARGS, "-d"], env=environment(played), stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(master, answer.encode())
        out, err = process.communicate(timeout=60)
        os.close(master), os.close(slave)
        assert "1 x nvidia/rtx4090-24 on vast-main at $0.40 a GPU-hour" in err and "Launch? [y/N]" in err
        assert process.returncode == (0 if launched else 1)
        assert bool(posted(played, "/api/v1/leases")) == launched
    assert posted(played, "/api/v1/leases")[0]["quote"] == "quo_1"


def test_dry_run_asks_for_the_price_alone(played):
    played.answers["POST", "/api/v1/quotes"] = (200, QUOTE)
    out, err = run(played, *ARGS, "--dry-run", "--explain")
    assert not err and "off_vast.0" in out and "0.0625" in out and [path for _, path, _, _ in played.seen] == ["/api/v1/quotes"]
    assert json.loads(run(played, *ARGS, "--dry-run", "-o", "json")[0]) == QUOTE
    played.answers["POST", "/api/v1/quotes"] = (503, {"error": {"message": "Nothing fits: 3 of 12 offers of RTX4090 are above the cap.", "code": "no_offer_matches"}})
    _, err = run(played, *ARGS, "--dry-run", code=1)
    assert "3 of 12 offers" in err


def test_launch_leaves_the_lease_when_interrupted(played):
    played.answers["POST", "/api/v1/leases"] = (202, LEASE)
    played.answers["GET", "/api/v1/leases/lse_1"] = (200, {**LEASE, "state": "provisioning"})
    process = subprocess.Popen([SLUICE, *ARGS, "--max-price", "1", "--yes"], env=environment(played), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(method == "GET" for method, _, _, _ in played.seen))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "sluice down lse_1" in err
    assert not any(method == "DELETE" for method, _, _, _ in played.seen)


def test_launch_is_curl_for_others(played):
    out, _ = run(played, *ARGS, "--env", "A=it's", "--max-price", "1", "--curl")
    words = shlex.split(out)
    assert json.loads(words[words.index("-d") + 1])["env"] == {"A": "it's"}
    assert words[-1].endswith("/api/v1/leases") and "sk-caller" not in out and "$SLUICE_API_KEY" in out and not played.seen


def test_launch_refuses_what_it_cannot_read(played):
    for args, word in ((("--port", "http"), "--port"), (("--env", "NOT_SET"), "--env"), (("--max-duration", "soon"), "--max-duration"), (("--count", "two"), "--count")):
        _, err = run(played, *ARGS, *args, "--yes", code=2)
        assert word in err
    _, err = run(played, "launch", "--gpu", "H100", code=2)
    assert "--image" in err
    _, err = run(played, "ps", "--gpu", "H100", code=2)
    assert "--gpu: not an option" in err
    _, err = run(played, "launch", "--port", code=2)
    assert "value is missing" in err
    assert not played.seen


# -- ps, logs, down ----------------------------------------------------------------------------------------------------


def test_ps_shows_those_that_are_not_over(played):
    active = {**LEASE, "id": "lse_2", "state": "active", "billed_ms": 7500000, "cost_usd": "0.83", "price_per_gpu_hour_usd": "0.40", "reason": HOSTILE,
              "attempts": [{"network": "vast-main", "offer": "off_vast.0", "error": None, "message": None, "at": 1}],
              "endpoints": [{"port": 8000, "url": "http://203.0.113.7:1"}]}
    rows = [active, LEASE, {**LEASE, "id": "lse_0", "state": "failed"}]
    played.answers["GET", "/api/v1/leases"] = (200, {"object": "list", "data": rows, "next": None})
    out, _ = run(played, "ps")
    assert "lse_2" in out and "lse_1" in out and "lse_0" not in out and "\x1b" not in out
    assert "2 h 05 min" in out and "vast-main" in out and "1 x RTX4090" in out and "http://203.0.113.7:1" in out
    assert run(played, "ps", "-a", "-o", "name")[0].split() == ["lse_2", "lse_1", "lse_0"]
    assert [row["id"] for row in json.loads(run(played, "ps", "-o", "json")[0])["data"]] == ["lse_2", "lse_1"]
    assert "ghcr.io/x/y:1" in run(played, "ps", "-o", "wide")[0]


def test_logs_come_as_they_were_written(played):
    text = "one\ntwo \x1b[31mred\r\nGrüße\n\nlast without an end".encode()
    played.answers["GET", "/api/v1/leases/lse_1/logs"] = (200, text)
    done = subprocess.run([SLUICE, "logs", "lse_1"], env=environment(played), capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout == text and not done.stderr
    master, slave = pty.openpty()
    subprocess.run([SLUICE, "logs", "lse_1"], env=environment(played), stdout=slave, timeout=60, check=True)
    seen = b""
    while b"without an end" not in seen:
        seen += os.read(master, 65536)
    os.close(master), os.close(slave)
    assert b"two ?[31mred\r\n" in seen and b"\x1b" not in seen, "a terminal gets no controls"


def test_logs_are_followed_to_the_end(played):
    events = ('event: state\ndata: {"state":"active","reason":null,"at":1}\n\n'
              "event: log\nid: 6\ndata: a\ndata: \ndata: b\n\n" ": quiet\n\n" "event: log\nid: 8\ndata: \ndata: c\ndata: \n\n"
              'event: note\ndata: {"message":"vast-main told no more"}\n\n'
              'event: end\ndata: {"state":"ended","reason":"you ended it","at":2}\n\n' "event: log\ndata: not seen\n\n")
    played.answers["GET", "/api/v1/leases/lse_1/logs"] = (200, events.encode())
    out, err = run(played, "logs", "-f", "lse_1")
    assert parse_qs(urlsplit(played.seen[0][1]).query) == {"follow": ["1"], "from": ["0"]}
    assert out == "a\n\nb\nc\n"
    assert "active" in err and "vast-main told no more" in err and "ended: you ended it" in err


def test_a_broken_stream_of_logs_is_taken_up_again(played):
    parts = [b"event: log\nid: 4\ndata: one\ndata: \n\nevent: log\nid: 7\ndata: half of a", b"event: log\nid: 9\ndata: two\n\nevent: end\ndata: {}\n\n"]
    played.answers["GET", "/api/v1/leases/lse_1/logs"] = (200, lambda path: parts.pop(0))
    out, _ = run(played, "logs", "-f", "lse_1")
    assert out == "one\ntwo" and [parse_qs(urlsplit(seen[1]).query)["from"] for seen in played.seen] == [["0"], ["4"]]


def test_logs_of_no_lease(played):
    _, err = run(played, "logs", "lse_9", code=5)
    assert "No such thing." in err


def test_down_ends_each_and_waits(played):
    ended = {i: {**LEASE, "id": f"lse_{i}", "state": "ended", "cost_usd": f"{i}.50"} for i in (1, 2)}
    played.answers["DELETE", "/api/v1/leases/lse_1"] = (202, {**ended[1], "state": "active"})
    played.answers["DELETE", "/api/v1/leases/lse_2"] = (202, ended[2])
    played.answers["GET", "/api/v1/leases/lse_1"] = (200, steps({**ended[1], "state": "stopping"}, ended[1]))
    out, err = run(played, "down", "lse_1", "lse_2", "--yes")
    assert re.findall(r"(lse_\d)\s+(\w+)\s+\$(\S+)", out) == [("lse_1", "ended", "1.50"), ("lse_2", "ended", "2.50")] and not err
    out, err = run(played, "down", "-d", "lse_1", "lse_9", "lse_2", code=5)
    assert "No such thing." in err and re.findall(r"(lse_\d)\s+(\w+)", out) == [("lse_1", "stopping"), ("lse_2", "ended")]
    out, _ = run(played, "down", "lse_2", "-o", "json")
    assert json.loads(out)["data"] == [ended[2]]
    assert run(played, "down", "lse_2", "-o", "name")[0] == "lse_2\n"
    _, err = run(played, "down", code=2)
    assert "down ID..." in err


def test_down_asks_before_it_ends_several(played):
    played.answers["DELETE", "/api/v1/leases/lse_1"] = played.answers["DELETE", "/api/v1/leases/lse_2"] = (202, {**LEASE, "state": "ended"})
    for ids, answer, ended in ((("lse_1", "lse_2"), b"n\n", 0), (("lse_1", "lse_2"), b"y\n", 2), (("lse_1",), b"", 1)):
        played.seen.clear()
        master, slave = pty.openpty()
        os.write(master, answer)
        done = subprocess.run([SLUICE, "down", *ids], env=environment(played), stdin=slave, capture_output=True, text=True, timeout=60)
        os.close(master), os.close(slave)
        assert len(played.seen) == ended and done.returncode == (0 if ended else 1) and ("End 2 leases?" in done.stderr) == (len(ids) > 1)


# -- a real gateway, and a network in a folder -------------------------------------------------------------------------


def test_a_machine_is_rented_and_given_back(rented):
    caller = {"SLUICE_API_KEY": rented.payer.key}
    out, _ = run(rented, "offers", "--gpu", "cpu", "--explain", **caller)
    assert [row["$/GPU-H"] for row in columns(out)] == ["1.00", "3.00"]
    out, _ = run(rented, "launch", "--gpu", "cpu", "--image", "demo/hello:1", "--dry-run", "-o", "json", **caller)
    assert json.loads(out)["price_per_gpu_hour_usd"] == "1.00"
    rented.folder.faults({"fault": "no_capacity", "op": "create"})
    out, err = run(rented, "launch", "--gpu", "CPU", "--image", "demo/hello:1", "--port", 8000, "--max-price", "3.50", "--yes", "-o", "json", "--",
                   "sh", "-c", "echo rented; sleep 600", **caller)
    lease = json.loads(out)
    assert lease["state"] == "active" and lease["endpoints"][0]["port"] == 8000
    assert "no_capacity" in err and "active" in err, err
    out, _ = run(rented, "ps", **caller)
    assert lease["id"] in out and "active" in out and "1 x CPU" in out
    wait_until(lambda: "rented\n" in run(rented, "logs", lease["id"], **caller)[0], 20, "logs")
    follower = subprocess.Popen([SLUICE, "logs", "-f", lease["id"]], env=environment(rented, **caller), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
    out, _ = run(rented, "down", lease["id"], **caller)
    assert re.search(rf"{lease['id']}\s+ended\s+\$0\.", out)
    out, err = follower.communicate(timeout=60)
    assert follower.returncode == 0 and "rented\n" in out and "ended" in err
    assert rented.folder.live() == [] and run(rented, "ps", "-o", "name", **caller)[0] == ""
    out, _ = run(rented, "networks", SLUICE_ADMIN_KEY=ADMIN_KEY)
    assert re.search(r"fake\s+fake\s+ok\s+2", out)
