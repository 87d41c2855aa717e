"""sluice-probe check and bench as a user runs them: on the CPU, and on a GPU that is emulated (tests/fake_cuda)."""

import json
import os
import re
import struct
import subprocess

import pytest

import harness

PROBE = harness.REPO / "build/sluice-probe"
FAKE = harness.REPO / "build/tests/fake_cuda/libfake_cuda.so"


def run(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "FAKE_CUDA_"))}
    return subprocess.run([PROBE, *arguments], env={**clean, **environment}, capture_output=True, text=True, timeout=90)


def gpu(*arguments, **environment):
    if not FAKE.exists():
        pytest.skip("no C++ compiler: the emulated GPU was not built")
    libraries = {name: str(FAKE) for name in ("SLUICE_LIBCUDA", "SLUICE_LIBNVML", "SLUICE_LIBCUBLASLT")}
    return run(*arguments, **{**libraries, "SLUICE_CUDA_KERNELS": str(FAKE), "FAKE_CUDA_MEMORY": "16000000", **environment})


def test_check_of_the_cpu():
    done = run("check", "--backend", "cpu")
    assert done.returncode == 0, done
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(rows) == 18 and all(row.endswith("identical") for row in rows[1:]), done.stdout
    assert len({row.index("identical") for row in rows[1:]} | {rows[0].index("result")}) == 1, "a column out of line"
    assert done.stdout.splitlines()[-1] == "17 of 17 identical"
    assert done.stderr == ""


def test_check_of_a_gpu():
    done = gpu("check", "--backend", "cuda", "--json")
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert told["is_identical"] and told["wrong"] == 0 and told["done"] == 17
    checks = told["devices"][0]["checks"]
    assert {check["challenge"] for check in checks} == {"fill", "pass", "walk", "chain"}
    assert {check["route"] for check in checks if check["challenge"] == "chain"} <= {"mma_s8", "cublaslt_s8"}
    assert all(check["compared"] == min(check["out_of"], 64 * (4 if check["challenge"] == "pass" else 1))
               or check["challenge"] == "pass" for check in checks)


@pytest.mark.parametrize("kernel, challenge, reason", [
    ("probe_fill", "fill", "tile 0 is not what it should be"),
    ("probe_chain_rows", "chain", "row 0 is not what it should be"),
    ("probe_chain_table", "chain", None),
])
def test_check_finds_a_wrong_bit(kernel, challenge, reason):
    done = gpu("check", "--json", FAKE_CUDA_FLIP=kernel)
    assert done.returncode == 1
    wrong = [check for check in json.loads(done.stdout)["devices"][0]["checks"] if not check["is_identical"]]
    assert wrong and {check["challenge"] for check in wrong} == {challenge}
    assert reason is None or wrong[0]["reason"] == reason


def test_a_gpu_that_fails_on_the_way():
    done = gpu("check", FAKE_CUDA_FAIL="60")
    assert done.returncode == 1
    assert "system call failed" in done.stdout + done.stderr
    assert done.stderr.count("it is not used any more") == 1, done.stderr


def test_a_gpu_with_less_memory_than_it_claims():
    done = gpu("check", FAKE_CUDA_REAL="3000000")
    assert done.returncode == 1
    assert "out of memory" in done.stdout


def test_bench_of_the_cpu():
    done = run("bench", "--backend", "cpu")
    assert done.returncode == 0, done
    assert done.stderr == ""
    rows = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len({len(row) for row in rows}) == 1, "a column out of line: " + done.stdout
    for name, unit in (("FILL", "GB/s"), ("PASS", "GB/s"), ("WALK", "GB/s"), ("CHAIN", "TOPS"), ("plain read", "GB/s")):
        assert re.search(rf"^  {name} +[\d.]+ {unit} ", done.stdout, re.M), name


def test_bench_of_a_gpu():
    done = gpu("bench", "--json")
    assert done.returncode == 0, done
    device = json.loads(done.stdout)["devices"][0]
    assert device["name"] == "NVIDIA Fake" and device["clock_load_mhz"] == 1755
    rates = ("fill_gbps", "pass_gbps", "walk_gbps", "chain_tops", "read_gbps", "int8_tops", "bf16_tflops", "h2d_gbps",
             "d2h_gbps")
    assert all(device[rate] > 0 for rate in rates), device


def test_bench_gives_a_row_for_the_catalogue():
    done = run("bench", "--backend", "cpu", "--row")
    assert done.returncode == 0
    assert done.stdout.startswith("classes:\n  - name: cpu\n    is_measured: true\n    fill_gbps: ")


def test_an_admission_of_a_gpu():
    """Both ends of the protocol over the CUDA backend, with the sizes of class cpu: an emulated GPU is slow."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "FAKE_CUDA_"))}
    if not FAKE.exists():
        pytest.skip("no C++ compiler: the emulated GPU was not built")
    done = subprocess.run([harness.REPO / "build/admit", "cuda", "1"], capture_output=True, text=True, timeout=90, env={
        **clean, "SLUICE_LIBCUDA": str(FAKE), "SLUICE_CUDA_KERNELS": str(FAKE), "SLUICE_LIBCUBLASLT": str(FAKE),
        "FAKE_CUDA_NAME": "cpu", "FAKE_CUDA_MEMORY": str(16 << 20), "FAKE_CUDA_REAL": str(64 << 20)})
    assert done.returncode == 0, done
    for line, purpose in zip(done.stdout.splitlines(), ("admission", "spot"), strict=True):
        told = json.loads(line)
        assert (told["purpose"], told["passed"], told["class"]) == (purpose, 1, "cpu")


def test_without_a_gpu():
    done = run("check", "--backend", "cuda", SLUICE_LIBCUDA="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sluice-probe: no such device here\n"
    done = run("bench", "--gpu", "7", "--backend", "cpu")
    assert (done.returncode, done.stderr) == (1, "sluice-probe: no such device here\n")


@pytest.mark.parametrize("arguments", [["--backend", "abacus"], ["--gpu", "-1"], ["--gpu", "x"], ["--fast"], ["now"]])
def test_usage(arguments):
    for command in ("check", "bench"):
        done = run(command, *arguments)
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done
        assert run(command, "--help").stdout.startswith(f"usage: sluice-probe {command} ")


def test_a_probe_whose_gpu_is_lost_ends(tmp_path):
    """After a fault of a kernel only a new process may use the GPU: serve answers that the device failed, and ends."""
    if not FAKE.exists():
        pytest.skip("no C++ compiler: the emulated GPU was not built")
    warm = struct.pack("<2sBBIII", b"SL", 1, 5, 8, 0, 0)
    serve = subprocess.Popen([PROBE, "serve", "--backend", "cuda", "--key", tmp_path / "k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env={**os.environ, "SLUICE_LIBCUDA": str(FAKE), "SLUICE_CUDA_KERNELS": str(FAKE),
                                                          "FAKE_CUDA_FAIL": "1"})
    types = []
    try:
        for number in range(1, 5):
            serve.stdin.write(struct.pack("<IQ", len(warm), number) + warm)
            serve.stdin.flush()
            head = serve.stdout.read(12)
            if len(head) < 12:
                break
            types.append(serve.stdout.read(struct.unpack("<IQ", head)[0])[3])
    except BrokenPipeError:
        pass
    assert serve.wait(30) == 1
    assert types and set(types) == {18}
    assert b"failed for good" in serve.stderr.read()
