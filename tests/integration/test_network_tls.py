"""Networks behind certificates of their own: ca_file, client_cert_file, client_key_file."""

import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from test_conformance import ROWS, Drive

ANSWER = b'{"success": true, "instances": [], "next_token": null}'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *args):
        pass


class Quiet(HTTPServer):
    def handle_error(self, request, client_address):
        pass


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """ca.pem, and server.pem and client.pem that it signed, with their keys."""
    folder = tmp_path_factory.mktemp("papers")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *ec, "-keyout", folder / "ca.key", "-out", folder / "ca.pem", "-subj", "/CN=test CA")
    for name in ("server", "client"):
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *ec, "-keyout", folder / f"{name}.key", "-out", folder / "request", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", folder / "request", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-days", "2",
                "-CAcreateserial", "-extfile", folder / "ext", "-out", folder / f"{name}.pem")
    return folder


@pytest.fixture
def serve(papers):
    servers = []

    def start(wants_client=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(papers / "server.pem", papers / "server.key")
        if wants_client:
            context.load_verify_locations(papers / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        server = Quiet(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def check(url, **options):
    drive = Drive(ROWS["vast"], type("World", (), {"key": "key-of-vast", "base_url": url}), deadline_ms="5000", **options)
    result = drive.call("check")
    drive.close()
    return result


def test_a_certificate_of_their_own(papers, serve):
    url = serve()
    assert check(url)["error"] == "transient", "nobody vouches for it"
    assert check(url, ca_file=str(papers / "ca.pem"))["error"] == "ok"


def test_a_certificate_of_ours(papers, serve):
    url, ca = serve(wants_client=True), str(papers / "ca.pem")
    assert check(url, ca_file=ca)["error"] == "transient", "it wants to know who asks"
    assert check(url, ca_file=ca, client_cert_file=str(papers / "client.pem"),
                 client_key_file=str(papers / "client.key"))["error"] == "ok"
