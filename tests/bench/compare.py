"""Measures gateway, nginx and HAProxy one after the other, again and again, and prints how they compare.

One thread each, on the same machine as the load and the upstream, so only the ratios say something. The gateway runs with
keys, limits, ranking and metering on. `gateway` has a worker that answers on the link by itself (bench_worker), so that the
gateway alone is measured; `gateway+agent` goes through the real agent to the same nginx that the others use as upstream.

With two cores or more, the proxy under test (the gateway with its Redis) has one of them, and all else (load, upstream,
worker) another: in all cases alike. Only with one connection, where nothing runs at the same time, all but Redis share one
core: what it takes to wake another core, 30 us and more on a virtual machine, would hide what is to be measured. A run's
CPU time is what all threads of the proxy used for one request; it suffers less than the rate when somebody else uses the
machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
import harness  # noqa: E402

SECONDS = int(os.environ.get("BENCH_SECONDS", "2"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
CHUNKS = 100
RPM = 1000000  # the most that a key may have: a new key for each comparison keeps the limit on without reaching it
CORES = sorted(os.sched_getaffinity(0))
LOAD_CORE, PROXY_CORE = (CORES[0], CORES[1]) if len(CORES) > 1 else (CORES[0], CORES[0])
MODEL = "bench-model"

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %(key)s"
local file = io.open("%(body)s", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration, latency:percentile(50),
        latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""

NGINX = """
worker_processes 1; daemon off; pid %(dir)s/%(name)s.pid; error_log %(dir)s/%(name)s.err;
events { worker_connections 4096; }
http {
    access_log off; client_max_body_size 64m; keepalive_requests 1000000000; types {} default_type application/json;
    client_body_temp_path %(dir)s/%(name)s.body; proxy_temp_path %(dir)s/%(name)s.proxy; fastcgi_temp_path %(dir)s/%(name)s.f;
    uwsgi_temp_path %(dir)s/%(name)s.u; scgi_temp_path %(dir)s/%(name)s.s;
%(servers)s
}
"""
UPSTREAM = """
    server { listen 127.0.0.1:%(upstream)d backlog=1024;
        location = /v1/models { return 200 '{"object":"list","data":[{"id":"%(model)s","object":"model"}]}'; }
        location = /stream { default_type text/event-stream; alias %(dir)s/stream.txt; error_page 405 =200 $uri; }
        location / { return 200 '%(answer)s'; }
    }
"""
PROXY = """
    upstream model { server 127.0.0.1:%(upstream)d; keepalive 256; keepalive_requests 1000000000; }
    server { listen 127.0.0.1:%(nginx)d backlog=1024;
        location / { proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }
        location = /stream { proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }
    }
"""
HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend in
    bind 127.0.0.1:%(haproxy)d backlog 1024
    default_backend model
backend model
    http-reuse always
    server one 127.0.0.1:%(upstream)d
"""


def answer_text():
    """270 bytes, as many as bench_worker answers."""
    text = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": MODEL, "choices": [
        {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}}, separators=(",", ":"))
    return text.replace('"content":""', '"content":"' + "x" * (270 - len(text)) + '"')


def stream_text():
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": MODEL}
    events = [{**base, "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]} for _ in range(CHUNKS)]
    return "".join(f"data: {json.dumps(e, separators=(',', ':'))}\n\n" for e in events) + "data: [DONE]\n\n"


def pin(pid, core):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), {core})


def cpu_ns(pid):
    """CPU time that the threads and the worker processes of this one have used."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


class Bench:
    def __init__(self):
        self.dir = harness.short_dir()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        self.data_dir = Path(tempfile.mkdtemp(prefix="sl-", dir=os.environ.get("BENCH_DATA", memory)))
        self.processes, self.workers, self.pids = [], [], {}
        self.ports = {name: harness.free_port() for name in ("upstream", "nginx", "haproxy")}
        self.values = {"dir": self.dir, "model": MODEL, "answer": answer_text(), **self.ports}

    def start(self, name, argv, port, core):
        process = harness.Process()
        process.name = name
        self.processes.append(process)
        process.spawn(["taskset", "-c", core, *argv])
        harness.wait_until(lambda: subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/v1/models"]).returncode == 0, 10,
                           f"{name} is up: {process.log()}")
        # The process that carries the requests: nginx has a worker process under its master.
        self.pids[name] = harness.children_of(process.pid)[0] if argv[0] == "nginx" else process.pid

    def start_all(self):
        (self.dir / "stream.txt").write_text(stream_text())
        self.dir.chmod(0o755)
        for name, servers in (("upstream", UPSTREAM), ("nginx", PROXY)):
            path = self.dir / f"{name}.conf"
            path.write_text(NGINX % {**self.values, "name": name, "servers": servers % self.values})
            self.start(name, ["nginx", "-p", self.dir, "-e", self.dir / "nginx.err", "-c", path], self.ports[name],
                       PROXY_CORE if name == "nginx" else LOAD_CORE)
        path = self.dir / "haproxy.cfg"
        path.write_text(HAPROXY % self.values)
        self.start("haproxy", ["haproxy", "-db", "-f", path], self.ports["haproxy"], PROXY_CORE)
        self.gateways, self.keys = {}, {}
        for name in ("gateway", "gateway+agent"):
            gateway = harness.Gateway(threads=1, data_dir=self.data_dir / name).start()
            self.processes.append(gateway)
            self.pids[name] = gateway.pid
            pin(gateway.pid, PROXY_CORE)
            token = gateway.enrolment()["token"]
            worker = harness.Process()
            self.processes.append(worker)
            self.workers.append(worker)
            program = [harness.BUILD / "bench/bench_worker", "--model", MODEL, "--chunks", str(CHUNKS)] if name == "gateway" else \
                [harness.BUILD / "sluice-worker"]
            worker.spawn(["taskset", "-c", LOAD_CORE, *program, "--gateway", gateway.url, "--token", token,
                          "--upstream", f"http://127.0.0.1:{self.ports['upstream']}", "--price", "1.00", "--slots", "256", "--probe", harness.BUILD / "sluice-probe", "--state-dir",
                          worker.directory / "s"])
            tenant = gateway.tenant(credit="1000000", rpm=RPM, max_concurrency=10000)
            harness.wait_until(lambda: tenant.call("GET", f"/v1/models/{MODEL}").status_code == 200, 30, f"the worker of {name} is ready")
            self.ports[name] = gateway.port
            self.gateways[name] = (gateway, tenant)

    def load_pids(self):
        """What answers behind the proxies: the upstream and the workers."""
        return [self.pids["upstream"], *(worker.pid for worker in self.workers)]

    def measure(self, target, path, body, connections):
        key, pid = self.keys.get(target, "none"), self.pids.get(target)
        load_core = PROXY_CORE if connections == 1 else LOAD_CORE
        script, body_path = self.dir / "wrk.lua", self.dir / "body.json"
        body_path.write_bytes(body)
        script.write_text(WRK % {"key": key, "body": body_path})
        cpu = cpu_ns(pid) if pid else 0
        done = subprocess.run(["taskset", "-c", str(load_core), "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "20s", "-s", script,
                               f"http://127.0.0.1:{self.ports[target]}{path}"], capture_output=True, text=True)
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
        assert line, done.stdout + done.stderr
        requests, microseconds, p50, p99, errors = map(int, line.split()[1:])
        assert errors == 0 and requests > 0, f"{target} {path}: {errors} errors in {requests} requests\n{done.stdout}"
        cpu = cpu_ns(pid) - cpu if pid else 0
        return {"rate": requests * 1e6 / microseconds, "p50": p50, "p99": p99, "cpu": cpu / 1000 / requests}

    def compare(self, title, targets, body, connections, path="/v1/chat/completions", stream_path=None):
        """Rounds of all targets in turn, so that a noisy minute hits all of them; the best of each, for noise only slows."""
        runs = {t: [] for t in targets}
        for gateway, _ in self.gateways.values():
            pin(gateway.redis_pid(), LOAD_CORE if connections == 1 else PROXY_CORE)
        for pid in self.load_pids():
            pin(pid, PROXY_CORE if connections == 1 else LOAD_CORE)
        self.keys = {name: tenant.new_key(rpm=RPM, max_concurrency=10000)[1] for name, (_, tenant) in self.gateways.items()}
        for _ in range(ROUNDS):
            for target in targets:
                own_path = stream_path if stream_path and target not in self.gateways else path
                runs[target].append(self.measure(target, own_path, body, connections))
        best = {"rate": max, "p50": min, "p99": min, "cpu": min}
        result = {t: {k: of(r[k] for r in rows) for k, of in best.items()} for t, rows in runs.items()}
        print(f"\n{title}, {connections} connection{'s' * (connections > 1)}")
        base, nginx = result.get("direct"), result["nginx"]
        for target, r in result.items():
            added = f"  added p50 {r['p50'] - base['p50']:5.0f} us, p99 {r['p99'] - base['p99']:6.0f} us" if base and target != "direct" else ""
            cpu = f"CPU {r['cpu']:6.1f} us" if r["cpu"] else " " * 13
            print(f"  {target:14} {r['rate']:8.0f} requests/s  {r['rate'] / nginx['rate']:5.2f} of nginx  {cpu}  "
                  f"p50 {r['p50']:6.0f} us  p99 {r['p99']:7.0f} us{added}", flush=True)
        return result

    def stop(self):
        for process in reversed(self.processes):
            if process.process:
                process.stop()  # a master that is killed would leave its workers behind
            process.remove()
        for folder in (self.dir, self.data_dir):
            shutil.rmtree(folder, ignore_errors=True)


def main():
    bench = Bench()
    try:
        bench.start_all()
        bench.ports["direct"] = bench.ports["upstream"]
        small = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello " * 30}]}).encode()
        big = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "word " * 44000}]}).encode()
        stream = json.dumps({"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hello"}]}).encode()
        everyone = ["direct", "nginx", "haproxy", "gateway", "gateway+agent"]
        print(f"journals and Redis of the gateways in {bench.data_dir.parent} (BENCH_DATA names another folder)")
        print(f"{ROUNDS} rounds of {SECONDS} s each, the best of each; one thread each; the load runs on the same machine "
              f"({len(CORES)} cores, load average {os.getloadavg()[0]:.1f} at the start)")
        rates = bench.compare("Small body, 270 bytes back", everyone, small, 64)
        single = bench.compare("Small body, 270 bytes back", everyone, small, 1)
        large = bench.compare("220 KB body", everyone, big, 20)
        streamed = bench.compare(f"Streamed, {CHUNKS} events", ["direct", "nginx", "haproxy", "gateway"], stream, 16, stream_path="/stream")
        print(f"\nIn short (aims in brackets; load average {os.getloadavg()[0]:.1f} at the end: a busy machine blurs all of it)")
        added = lambda result, target, what: result[target][what] - result["direct"][what]
        print(f"  throughput of the gateway / nginx             {rates['gateway']['rate'] / rates['nginx']['rate']:6.2f}    (0.70 and more)")
        print(f"  CPU time of a request, gateway / nginx        {rates['gateway']['cpu'] / rates['nginx']['cpu']:6.2f}")
        for name, p50, p99 in (("gateway", 80, 300), ("gateway+agent", 160, 500)):
            print(f"  added at 1 connection, {name:14} p50 {added(single, name, 'p50'):6.0f} us (under {p50}), "
                  f"p99 {added(single, name, 'p99'):6.0f} us (under {p99})")
        for name in ("nginx", "haproxy"):
            print(f"    for comparison,      {name:14} p50 {added(single, name, 'p50'):6.0f} us, p99 {added(single, name, 'p99'):6.0f} us")
        print(f"  220 KB: added p50 of the gateway / HAProxy    {added(large, 'gateway', 'p50') / max(1, added(large, 'haproxy', 'p50')):6.2f}    (2.00 and less)")
        print(f"  streams: rate of the gateway / nginx          {streamed['gateway']['rate'] / streamed['nginx']['rate']:6.2f}")
        for name, (gateway, _) in bench.gateways.items():
            print(f"  resident memory of the {name:22} {harness.rss_kib(gateway.pid) / 1024:6.1f} MiB (under 40)")
    finally:
        bench.stop()


if __name__ == "__main__":
    main()
