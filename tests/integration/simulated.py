"""Networks to lease from: a simulator's process each, and what a gateway's configuration says of it."""

import json
import subprocess
import sys

import httpx

import harness

# By adapter.
# A row: script, {credential: constant text, or None for the simulator's key}, {option: value}.
NETWORKS = {
    "vast": ("vast.py", {"api_key": None}, {}),
    "lambda": ("lambda_sim.py", {"api_key": None}, {"ssh_key": "sluice"}),
    "runpod": ("runpod.py", {"api_key": None}, {"pace_percent": "0"}),
    "nosana": ("nosana.py", {"api_key": None}, {"pace_percent": "0"}),
    "ionet": ("ionet.py", {"api_key": None}, {"pace_percent": "0"}),
    "akash": ("akash.py", {"api_key": None}, {"account": "dedicated", "bid_poll_ms": "50", "bid_wait_ms": "1000", "deadline_ms": "15000"}),
    "kubernetes": ("kubernetes.py", {"token": None}, {"price.default": "2.00"}),
    "aws": ("aws.py", {"access_key": "AKIDEXAMPLE", "secret_key": None},
            {"region": "us-east-1", "ami": "ami-0123456789abcdef0", "price.p5.48xlarge": "55.04", "price.g6.xlarge": "0.8048",
             "price.g6e.xlarge": "1.861", "price.nvidia/l40s-48": "2.6232", "reserved_price.p5.48xlarge": "40",
             "reserved_price.p4de.24xlarge": "20"}),
}


class Simulator(harness.Process):
    """tests/simulators/<network>.py with its control port. args: more of its command line, such as --run."""

    name = "simulator"

    def __init__(self, adapter, args=()):
        super().__init__()
        self.adapter = adapter
        script, self.credential, self.options = NETWORKS[adapter]
        self.spawn([sys.executable, harness.REPO / "tests/simulators" / script, *args], stdout=subprocess.PIPE)
        said = json.loads(self.process.stdout.readline())
        self.port, self.key = said["port"], said["key"]
        self.control = httpx.Client(base_url=f"http://127.0.0.1:{said['control_port']}", timeout=20)

    def settings(self, id=None, **fields):
        """The row of `networks` for a gateway, and the environment it wants."""
        id = id or self.adapter
        env, credential = {}, {}
        for name, value in self.credential.items():
            variable = f"SIM_{id}_{name}".upper().replace("-", "_")
            env[variable] = self.key if value is None else value
            credential[name] = f"env:{variable}"
        row = {"id": id, "adapter": self.adapter, "base_url": f"http://127.0.0.1:{self.port}", "credential": credential,
               "poll_s": 1, "reconcile_s": 2, "orphan_grace_s": 3, **fields}
        options = {"pace_percent": "2", **self.options, **fields.pop("options", {})}
        return {**row, **({"options": options} if options else {})}, env

    def ask(self, method, path, body=None):
        answer = self.control.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    def fault(self, fault, **fields):
        return self.ask("POST", "/control/faults", {"fault": fault, **fields})

    def clear(self):
        return self.ask("DELETE", "/control/faults")

    def truth(self):
        return self.ask("GET", "/control/instances")

    def live(self):
        return [i for i in self.truth()["instances"] if i["state"] != "gone"]
