"""deploy/quickstart.sh as a user meets it, on a model server of the tests instead of the real model."""

import decimal
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import wait_until


def descendants(pid):
    found = []
    for child in harness.children_of(pid):
        found += [child, *descendants(child)]
    return found


class Quickstart(harness.Process):
    name = "quickstart"

    def __init__(self, **env):
        super().__init__()
        self.env = {"SLUICE_PORT": str(harness.free_port()), "SLUICE_DATA_DIR": str(self.directory / "v"),
                    "SLUICE_RUN_DIR": str(self.directory / "r"), **env}

    def start(self):
        self.log_path.unlink(missing_ok=True)
        self.started = time.monotonic()
        self.spawn(["bash", harness.REPO / "deploy/quickstart.sh"], env=self.env)
        wait_until(lambda: "Ctrl-C stops everything." in self.log() or not self.is_up(), 60, "the quick start is up")
        assert self.is_up(), self.log()
        return self

    def line(self, mark):
        return next(line.strip() for line in self.log().splitlines() if mark in line)

    def run_line(self, mark, drop=""):
        done = subprocess.run(["bash", "-c", self.line(mark).removeprefix(drop)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, (self.line(mark), done.stdout, done.stderr)
        return done.stdout

    def interrupt(self):
        pids = descendants(self.pid)
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(40) == 0, self.log()
        wait_until(lambda: not any(harness.is_running(p) for p in pids), 10, "nothing it started is left")
        return pids


@pytest.fixture
def quickstart():
    made = []

    def make(**env):
        made.append(Quickstart(**env))
        return made[-1]

    yield make
    for one in made:
        for pid in descendants(one.pid) if one.is_up() else []:
            os.kill(pid, signal.SIGKILL)
        one.remove()


def test_the_printed_lines_work(quickstart, make_server):
    server = make_server(models=["gemma-3-270m"], name="a")
    bystander = make_server()
    run = quickstart(UPSTREAM=server.url).start()
    answer = json.loads(run.run_line("-d '{").strip())
    assert answer["choices"][0]["message"]["content"].startswith("a0 ")
    prices = {}
    for wish in ("price", "latency"):
        headers = run.run_line(f"x-sluice-prefer: {wish}")
        prices[wish] = re.search(r"(?i)x-sluice-price-per-gpu-hour-usd: ([0-9.]+)", headers).group(1)
    assert float(prices["price"]) == 0.2 and float(prices["latency"]) == 0.5
    assert json.loads(run.run_line("/api/v1/stats", drop="stats"))
    assert len(json.loads(run.run_line("group_by=worker"))["data"]) >= 1
    workers = subprocess.run(["bash", "-c", run.line("build/sluice workers")], cwd=harness.REPO, capture_output=True, text=True, timeout=30)
    assert len(re.findall(r" ready +cpu +cpu ", workers.stdout)) == 3, (workers.stdout, workers.stderr)
    metrics = run.line("metrics    ").split()[1]
    assert harness.httpx.get(metrics).status_code == 200
    key = run.line("API key").split()[-1]
    files = [p for p in (run.directory / "r").rglob("*") if p.is_file()]
    assert all(p.stat().st_mode & 0o077 == 0 for p in files), [oct(p.stat().st_mode) for p in files]
    assert len(run.interrupt()) >= 5  # gateway, its Redis, three workers
    assert bystander.is_up() and server.is_up()
    run.start()
    assert time.monotonic() - run.started < 15
    assert run.line("API key").split()[-1] == key, "the second run made another key"
    assert json.loads(run.run_line("-d '{").strip())["choices"]
    run.interrupt()


def test_without_a_model(quickstart, make_server, make_worker):
    run = quickstart(SLUICE_NO_MODEL="1").start()
    text = run.log()
    for word in ("vLLM", "SGLang", "Ollama", "TGI"):
        assert word in text
    line = run.line("build/sluice-worker")
    server = make_server(models=["gemma-3-270m"])
    words = line.replace("http://127.0.0.1:8000", server.url).split()
    worker = harness.Process()
    try:
        worker.spawn([harness.BUILD / "sluice-worker", *words[1:], "--state-dir", worker.directory / "s"])
        url, key = run.line("address").split()[1], run.line("API key").split()[-1]
        wait_until(lambda: harness.httpx.get(f"{url}/models/gemma-3-270m", headers={"Authorization": f"Bearer {key}"}).status_code == 200, 20,
                   "the printed worker line works")
    finally:
        worker.remove()
    run.interrupt()


def test_port_in_use(quickstart):
    port = harness.free_port()
    with socket.create_server(("127.0.0.1", port)):
        run = quickstart(SLUICE_NO_MODEL="1", SLUICE_PORT=str(port)).start()
        assert f":{port}/v1" not in run.line("address")
        run.interrupt()


def test_killed_script_leaves_nothing(quickstart):
    run = quickstart(SLUICE_NO_MODEL="1").start()
    pids = descendants(run.pid)
    run.process.kill()
    run.process.wait(5)
    wait_until(lambda: not any(harness.is_running(p) for p in pids), 20, "what it started has ended too")


def processes_with(word):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


def test_renting_by_the_printed_lines(quickstart, make_server):
    """Offers beside those of the workers, a lease from launch to end, the door; and Ctrl-C ends what is still rented."""
    run = quickstart(UPSTREAM=make_server(models=["gemma-3-270m"]).url).start()
    export = run.line("export SLUICE_API_KEY=")

    def by(line, code=0):
        done = subprocess.run(["bash", "-c", f"{export}; {line}"], cwd=harness.REPO, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == code, (line, done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def money():
        url, key = run.line("address").split()[1].removesuffix("/v1"), run.line("API key").split()[-1]
        rows = harness.httpx.get(f"{url}/api/v1/balance", headers={"Authorization": f"Bearer {key}"}).json()
        return decimal.Decimal(rows["available_usd"]) + decimal.Decimal(rows["held_usd"])

    networks = {row.split()[1] for row in by(run.line("build/sluice offers") + " --limit 100")[0].splitlines()[1:]}
    assert networks == {"native", "fake"}
    mark = f"6{os.getpid() % 100000:05d}"  # told apart from what other tests run
    launch = run.line("build/sluice launch --gpu cpu").replace("sleep 600", f"sleep {mark}")
    assert mark in launch
    out, err = by(launch)
    assert re.search(r"^state +active$", out, re.M) and "active on fake" in err
    lease = re.search(r"lse_\w+", out).group(0)
    before = money()
    assert re.search(rf"^{lease} +active +1 x cpu +fake ", by(run.line("build/sluice ps"))[0], re.M)
    wait_until(lambda: by(run.line("build/sluice logs"))[0] == "hello\n", 20, "its log is there")
    assert re.search(r"^fake +fake +ok +14 ", by(run.line("build/sluice networks"))[0], re.M)
    out, _ = by(run.line("build/sluice down"))
    cost = decimal.Decimal(re.search(rf"^{lease} +ended +\$([0-9.]+)$", out, re.M).group(1))
    assert 0 < cost < decimal.Decimal("0.01")
    wait_until(lambda: not processes_with(mark), 10, "its machine has ended")
    wait_until(lambda: before - money() == cost, 10, "what it cost was paid")
    out, err = by(run.line("build/sluice launch --gpu RTX4090"), code=1)
    assert re.search(r"^state +failed$", out, re.M) and "probe_failed: sold 1 x nvidia/rtx4090-24, proven 1 x cpu" in err
    assert re.search(r"^lse_\w+ +failed +1 x RTX4090 +fake +- +- +0\.00 ", by("build/sluice ps --all")[0], re.M) and before - money() == cost
    assert by("build/sluice ps -o name")[0] == ""
    by(launch)
    assert processes_with(mark)
    folder = str(run.directory / "r")
    run.interrupt()
    assert "ending leases" in run.log() and "had to be killed" not in run.log()
    assert not processes_with(mark) and not processes_with(folder)
    run.start()
    assert not any((run.directory / "r/fake/run").iterdir()), "folders of machines that have ended are kept"
    run.interrupt()
