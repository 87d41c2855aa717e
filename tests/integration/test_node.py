"""The official Node client, in two majors: the checks are in node/client.mjs."""

import os
import subprocess

import pytest

import harness


@pytest.mark.parametrize("package", ["openai", "openai-6"])
def test_node_client(gateway, tenant, make_fleet, package):
    fleet = make_fleet(names="a")
    done = subprocess.run([harness.REPO / ".venv/bin/node", "--test", "--test-reporter=spec", "client.mjs"], text=True, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=harness.REPO / "tests/integration/node",
                          env={**os.environ, "SLUICE_URL": gateway.url, "SLUICE_KEY": tenant.key, "SLUICE_MODEL": fleet.model,
                               "SLUICE_CONTROL": str(fleet.server.control.base_url).rstrip("/"), "SLUICE_CLIENT": package})
    assert done.returncode == 0, done.stdout[-6000:]
