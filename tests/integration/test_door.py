"""Leased machines at the door: what they fetch, how they prove themselves, and what becomes of the tenant's command."""

import re
import socket
import subprocess

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
