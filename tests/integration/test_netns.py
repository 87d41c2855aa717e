"""A worker behind NAT: a network namespace from which one can only call out."""

import os
import shutil
import subprocess

import pytest

import harness
from harness import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and the ip command")


def ip(*args):
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def namespace():
    """A namespace with one link to this host, 10.201.77.1 <-> 10.201.77.2, that takes no connection from outside."""
    name, outer, inner = f"slns{os.getpid()}", f"slo{os.getpid()}"[:15], f"sli{os.getpid()}"[:15]
    try:
        try:
            ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", inner, "netns", name)
            ip("addr", "add", "10.201.77.1/30", "dev", outer)
            ip("link", "set", outer, "up")
            for args in (["addr", "add", "10.201.77.2/30", "dev", inner], ["link", "set", inner, "up"], ["link", "set", "lo", "up"]):
                ip("-n", name, *args)
        except subprocess.CalledProcessError as error:  # a container without the right, a chroot
            pytest.skip(f"no network namespaces here: {' '.join(error.cmd)}: {error.stderr.strip()}")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", outer], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_worker_with_only_outbound_traffic(namespace, make_gateway):
    own = make_gateway(start=False)
    own.address = "10.201.77.1"
    own.start()
    inside = ["ip", "netns", "exec", namespace]
    server = harness.ModelServer(prefix=inside)
    worker = harness.Worker(own, server, prefix=inside)
    try:
        worker.start()
        tenant = own.tenant()
        answer = tenant.call("POST", "/v1/chat/completions", json={"model": server.model, "messages": []})
        assert answer.status_code == 200 and answer.headers["x-sluice-worker"] == worker.id
        chunks = list(tenant.client().chat.completions.create(model=server.model, messages=[], stream=True))
        assert chunks[-1].choices[0].finish_reason == "stop"
        listening = subprocess.run([*inside, "ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.split("\n")
        outside = [line for line in listening if line and "127.0.0.1:" not in line.split()[3]]
        assert outside == [], f"something in the namespace can be reached from outside: {outside}"
        own.kill()
        own.start()
        wait_until(lambda: tenant.call("POST", "/v1/chat/completions", json={"model": server.model, "messages": []}).status_code == 200, 20,
                   "the worker came back by itself")
    finally:
        worker.remove()
        server.remove()


def test_metrics_from_elsewhere_want_a_key(namespace, make_gateway):
    own = make_gateway(start=False, config={"metrics": {"token": "env:SCRAPE"}}, env={"SCRAPE": "scrape-token"})
    own.address = "0.0.0.0"
    own.start()

    def status(path, key=None):
        header = ["-H", f"Authorization: Bearer {key}"] if key else []
        return subprocess.run(["ip", "netns", "exec", namespace, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10",
                               *header, f"http://10.201.77.1:{own.port}{path}"], capture_output=True, text=True).stdout

    assert status("/metrics") == status("/metrics", "wrong") == "401"
    assert status("/metrics", "scrape-token") == status("/metrics", harness.ADMIN_KEY) == "200"
    assert own.call("GET", "/metrics").status_code == 200
