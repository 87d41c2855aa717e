"""The configuration file and the command lines."""

import os
import re
import subprocess

import pytest

import harness


def check(path, **env):
    return subprocess.run([harness.BUILD / "sluiced", "--check", "--config", path], capture_output=True, text=True, timeout=10,
                          env={**os.environ, **env})


@pytest.mark.parametrize("text,word", [("limits: {body_byte: 1}\n", "body_byte"), ("nonsense: 1\n", "nonsense"), ("\n\nlisten: [1]\n", "3"),
                                       ("threads: many\n", "threads"), ("a: b: c\n", "1"), ("threads: 1\nthreads: 2\n", "2"),
                                       ("metrics: {token: secret-itself}\n", "token"), ("limits: {head_ms: -1}\n", "head_ms")])
def test_bad_configuration_names_its_place(tmp_path, text, word):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    done = check(path)
    assert done.returncode not in (0, -6, -11) and word in done.stderr + done.stdout, (done.returncode, done.stdout, done.stderr)


def test_good_configurations(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("listen: 127.0.0.1:8080\n")
    assert check(path).returncode == 0
    done = check(harness.REPO / "deploy/sluice.yaml")
    assert done.returncode == 0, done.stderr
    assert check(tmp_path / "not-there.yaml").returncode != 0


def test_example_of_networks(tmp_path):
    """As it is, and with every line that is commented out; what an adapter does not know is refused before anything starts."""
    text = (harness.REPO / "deploy/networks.yaml").read_text().replace("/tmp/sluice-fake", str(tmp_path / "fake"))
    whole = re.sub(r"^( +)# (?=[a-z][\w./-]*: )", r"\1", text, flags=re.M)
    secrets = {name: "x" for name in re.findall(r"env:(\w+)", whole)}
    adapters = re.findall(r"^    adapter: (\w+)", text, flags=re.M)
    assert set(adapters) == {"akash", "aws", "fake", "ionet", "kubernetes", "lambda", "nosana", "runpod", "vast"}
    path = tmp_path / "c.yaml"
    for one in (text, whole):
        path.write_text(one)
        done = check(path, **secrets)
        assert done.returncode == 0, done.stderr
    assert whole.count("\n      ") == text.count("\n      ") and len(whole) < len(text)
    done = check(path, **{**secrets, "VAST_API_KEY": ""})
    assert done.returncode == 2 and "VAST_API_KEY" in done.stderr
    for was, now, words in (("reliability_min", "reliability", ("vast-main", "reliability")), ("region: us-east-1 ", "", ("aws-virginia", "region")),
                            ("ssh_key: ops", "", ("lambda-main", "ssh_key")), ("profile: coreweave", "profile: cw", ("coreweave-main", "profile"))):
        path.write_text(text.replace(was, now))
        done = check(path, **secrets)
        assert done.returncode == 2 and all(word in done.stderr for word in words), (was, done.stdout, done.stderr)


@pytest.mark.parametrize("argv", [["--nonsense"], ["--listen", "nowhere"], ["--threads", "x"], ["--redis", "http://x"], ["stray"]])
def test_bad_options_of_the_gateway(tmp_path, argv):
    done = subprocess.run([harness.BUILD / "sluiced", "--data-dir", tmp_path / "d", *argv], capture_output=True, text=True, timeout=10)
    assert done.returncode not in (0, -6, -11) and done.stderr.strip()


@pytest.mark.parametrize("argv", [["--nonsense"], ["--price", "x"], ["--price", "-1"], ["--slots", "0"], ["--slots", "many"], []])
def test_bad_options_of_the_worker(argv):
    base = ["--gateway", "http://127.0.0.1:1", "--token", "t", "--upstream", "http://127.0.0.1:1"] if argv else []
    done = subprocess.run([harness.BUILD / "sluice-worker", *base, *argv], capture_output=True, text=True, timeout=10)
    assert done.returncode not in (0, -6, -11) and done.stderr.strip()


def test_two_gateways_never_share_a_data_folder(make_gateway):
    first = make_gateway()
    second = make_gateway(start=False, data_dir=first.data_dir)
    second.start(wait=False)
    assert second.process.wait(20) != 0
    assert first.call("GET", "/readyz").status_code == 200


def test_port_in_use_is_said(make_gateway, make_server):
    own = make_gateway(start=False)
    own.port = make_server().port
    own.start(wait=False)
    assert own.process.wait(20) != 0 and str(own.port) in own.log()
