"""The listeners: TLS as sslyze sees it from outside (Mozilla's intermediate profile, a chain that clients accept), what the port
without it answers, and the headers that are on every answer."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .lab import ROOT, SURVIVOR, Answer, Edge, Lab, basic, right

# sslyze wants an older cryptography than the tools that are locked in requirements.lock, so it lives apart from them:
# echo 'sslyze==VERSION' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
#   --no-emit-index-url - --output-file tests/system/sslyze.lock
LOCK = Path(__file__).with_name("sslyze.lock")
SSLYZE = ROOT / ".cache/sslyze"


@dataclass(frozen=True)
class Scan:
    deviations: dict[str, str]
    results: dict[str, Any]


@pytest.fixture(scope="session")
def sslyze() -> Path:
    if not (SSLYZE / "bin/python").exists():
        subprocess.run(["uv", "venv", "--quiet", SSLYZE], check=True)
    subprocess.run(["uv", "pip", "sync", "--quiet", "--require-hashes", "--python", SSLYZE, LOCK], check=True)
    return SSLYZE / "bin/python"


@pytest.fixture(scope="session")
def scan(lab: Lab, edge: Edge, sslyze: Path, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    directory = tmp_path_factory.mktemp("sslyze")
    (directory / "ca.pem").write_text(lab.trusted)
    command = [str(sslyze), "-W", "ignore", "-m", "sslyze", f"{edge.hostname}:{edge.port}{{{edge.address}}}"]
    command += ["--mozilla_config=intermediate", "--http_headers"]
    command += [f"--certinfo_ca_file={directory}/ca.pem", f"--json_out={directory}/scan.json"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
    compliance = said.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    assert "Compliant" in compliance or "Not compliant" in compliance, said
    [server] = json.loads((directory / "scan.json").read_text())["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", said
    results = {
        name: attempt["result"] for name, attempt in server["scan_result"].items() if attempt["status"] == "COMPLETED"
    }
    return Scan(dict(re.findall(r"^ +\* (\w+): (.*)$", compliance, re.MULTILINE)), results)


def test_mozilla_s_intermediate_profile(scan: Scan) -> None:
    assert scan.deviations == {}


@pytest.mark.parametrize("version", ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"])
def test_an_old_version_is_refused(scan: Scan, version: str) -> None:
    assert scan.results[f"{version}_cipher_suites"]["accepted_cipher_suites"] == []


@pytest.mark.parametrize("version", ["tls_1_2", "tls_1_3"])
def test_a_current_version_is_spoken(scan: Scan, version: str) -> None:
    assert scan.results[f"{version}_cipher_suites"]["accepted_cipher_suites"]


def test_the_chain_is_valid_for_the_clients(scan: Scan) -> None:
    """With what they trust, for the name they use: sslyze validates both. Nothing in it is superfluous or in the wrong order."""
    [deployment] = scan.results["certificate_info"]["certificate_deployments"]
    stores = {path["trust_store"]["name"]: path for path in deployment["path_validation_results"]}
    assert stores["Supplied CA file"]["was_validation_successful"], stores["Supplied CA file"]["validation_error"]
    assert deployment["received_chain_has_valid_order"] and not deployment["received_chain_contains_anchor_certificate"]


def test_the_certificate_is_for_no_other_name(edge: Edge) -> None:
    other = Edge(edge.address, edge.port, "other.example.com", edge.context)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        other.connect()


def test_browsers_are_told_to_stay_with_tls(scan: Scan) -> None:
    header = scan.results["http_headers"]["strict_transport_security_header"]
    assert header and header["max_age"] >= 31536000


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_sessions_are_resumed(lab: Lab, edge: Edge, version: ssl.TLSVersion) -> None:
    """Whichever worker takes the connection: ten in a row, each after an answer, when the worker before has kept its session."""
    context = ssl.create_default_context(cadata=lab.trusted)
    context.minimum_version = context.maximum_version = version
    kept: ssl.SSLSession | None = None
    resumed: list[bool | None] = []
    for _ in range(10):
        raw = socket.create_connection((edge.address, edge.port), timeout=10)
        with context.wrap_socket(raw, server_hostname=edge.hostname, session=kept) as connection:
            connection.sendall(f"HEAD /health HTTP/1.1\r\nHost: {edge.host_header}\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            resumed.append(connection.session_reused)
            kept = connection.session
    assert resumed == [False] + [True] * 9


# The port without TLS


@pytest.fixture
def plain(lab: Lab, edge: Edge) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(edge.address, lab.plain_port, timeout=30)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
    connection.request(method, "/simple/survivor/?x", body, headers)
    answer = connection.getresponse()
    lines = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, lines, answer.read(), answer.reason)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_asks_without_a_password_is_sent_on(lab: Lab, plain: http.client.HTTPConnection, method: str) -> None:
    answer = ask(plain, method, {}, None)
    assert (answer.status, answer.headers["location"]) == (308, f"{lab.url}/simple/survivor/?x")


IN_THE_CLEAR = [(method, user) for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "BREW") for user in ("alice", "")]


@pytest.mark.parametrize(("method", "user"), [way for way in IN_THE_CLEAR if way not in (("GET", ""), ("HEAD", ""))])
def test_a_password_or_an_upload_in_the_clear_is_refused(
    lab: Lab, plain: http.client.HTTPConnection, method: str, user: str
) -> None:
    """Sent on, it would come in the clear again next time; and nobody would know."""
    body = None if method in ("GET", "HEAD") else bytes(2 * 2**20)
    answer = ask(plain, method, right(user) if user else {}, body)
    assert answer.status == 403 and "location" not in answer.headers
    assert method == "HEAD" or f"use {lab.url}/" in answer.body.decode()


# Headers

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
ANSWERS: dict[str, tuple[int, str, str, dict[str, str]]] = {
    "a page": (200, "GET", "/simple/survivor/", {}),
    "a page in JSON": (200, "GET", "/simple/survivor/", JSON),
    "a page by a closer look": (200, "GET", "/simple/survivor/", {"Accept": "text/html, x/y"}),
    "a compressed page": (200, "GET", "/simple/survivor/", {"Accept-Encoding": "gzip"}),
    "all projects": (200, "HEAD", "/simple/", {}),
    "welcome": (200, "GET", "/", {}),
    "a file": (200, "GET", f"/packages/{SURVIVOR}", {}),
    "a part of a file": (206, "GET", f"/packages/{SURVIVOR}", {"Range": "bytes=0-9"}),
    "no such part": (416, "GET", f"/packages/{SURVIVOR}", {"Range": "bytes=99999999-"}),
    "metadata": (200, "GET", f"/packages/{SURVIVOR}.metadata", {}),
    "not modified": (304, "GET", f"/packages/{SURVIVOR}", {"If-None-Match": "*"}),
    "health": (200, "GET", "/health", {}),
    "another spelling": (301, "GET", "/simple/Survivor/", {}),
    "no slash": (301, "GET", "/simple", {}),
    "an old address": (303, "GET", "/survivor/", {}),
    "nothing": (404, "GET", "/packages/", {}),
    "the login's own": (404, "GET", "/_login", {}),
    "nobody": (401, "GET", "/simple/", {"Authorization": ""}),
    "nobody's upload": (401, "POST", "/", {"Authorization": ""}),
    "a wrong password": (401, "GET", "/simple/", {"Authorization": basic("alice", "wrong")}),
    "a reader's upload": (403, "POST", "/", right("bob")),
    "an upload elsewhere": (405, "POST", "/survivor/", {}),
    "too large": (413, "POST", "/", {"Content-Length": "99999999999999"}),
    "too large where nothing is taken": (413, "GET", "/simple/", {"Content-Length": "99999999999999"}),
    "pypiserver's own": (400, "POST", "/", {}),
    "a header that is too long": (400, "GET", "/", {"X-Long": "x" * 9_000}),
    "a target that is too long": (414, "GET", f"/{'x' * 9_000}", {}),
    "a transfer encoding of nobody": (400, "POST", "/", {"Transfer-Encoding": "xchunked"}),
    "two hosts": (400, "GET", "/", {"HOST": "x"}),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_browsers_are_kept_from_guessing_and_telling(edge: Edge, name: str) -> None:
    """A location with a header of its own would lose these: so every kind of answer is looked at."""
    status, method, path, headers = ANSWERS[name]
    answer = edge.request(path, right("alice") | headers, method)
    assert answer.status == status, answer
    # nginx has them twice in a 416.
    assert all(set(answer.headers.get(header, "").split(", ")) == {value} for header, value in EVERYWHERE.items())
    assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize("status", [308, 403, 404, 400])
def test_they_are_on_the_port_without_tls_as_well(lab: Lab, edge: Edge, status: int) -> None:
    path = {404: f"/.well-known/acme-challenge/{secrets.token_hex()}"}.get(status, "/")
    lines = {403: "Authorization: x\r\n", 400: f"X-Long: {'x' * 9_000}\r\n"}.get(status, "")
    with socket.create_connection((edge.address, lab.plain_port), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}Connection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == status
        assert EVERYWHERE.items() <= {name.lower(): value for name, value in answer.getheaders()}.items()
