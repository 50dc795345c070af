"""The listener, as sslyze sees it from outside: Mozilla's intermediate profile, and a chain that clients accept."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .lab import ROOT, Edge, Lab

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
