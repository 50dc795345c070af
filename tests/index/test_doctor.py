"""Each finding of the doctor is provoked once, by an index and files of this machine; and a client with nothing wrong has none."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .clients import HERE
from .serve import TOKENS, Server, certified, serving

DOCTOR = HERE.parents[1] / "roles/pypi_client/files/pypi_doctor"
OTHER = "https://other.example/simple/"
ALONE = """
[ ! -e /etc/pip.conf ] || mount --bind /dev/null /etc/pip.conf
[ ! -e /etc/uv ] || mount -t tmpfs none /etc/uv
exec "$@"
"""
"""Without what this machine's own pip and uv are told."""


@dataclass
class Machine:
    home: Path
    env: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)

    def write(self, path: str, text: str, mode: int = 0o600) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def log_in(self, name: str, password: str) -> None:
        self.write(".netrc", f"machine localhost login {name} password {password}\n")

    def look(self) -> list[tuple[int, str]]:
        """Code and text of what it finds; it ends with the first code, and says no password."""
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", ALONE, "sh", sys.executable, DOCTOR, "--json", *self.options],
            env={
                "HOME": str(self.home),
                "PATH": f"{self.home}/bin:/usr/bin:/usr/sbin:/bin",
                "XDG_CONFIG_DIRS": "/nowhere",
                **self.env,
            },
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not done.stderr, done.stderr
        assert "alicealice" not in done.stdout and not any(token in done.stdout for token in TOKENS.values())
        found = [(entry["code"], f"{entry['what']} {entry['fix']}") for entry in json.loads(done.stdout)]
        assert done.returncode == (found[0][0] if found else 0)
        return found


@contextmanager
def edge(
    uploads: str, tls: ssl.SSLContext | None, answer: tuple[int, str] | None = None, ahead: float = 0
) -> Iterator[str]:
    """Address of a simple index before the real application, which says about each login what nginx would say.

    `answer`: what something else would say instead; `ahead`: seconds of its clock.
    """

    class Edge(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            said = requests.get(uploads, headers=self._login(), timeout=60)
            # That only uploads are taken there, it says to who is let in.
            status, reason = answer or ((200, "OK") if said.status_code == 404 else (said.status_code, said.reason))
            self._say(status, reason)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = {"Content-Type": self.headers.get("Content-Type", "")}
            said = requests.post(uploads, data=body, headers={**self._login(), **kind}, timeout=60)
            self._say(said.status_code, said.reason)

        def _login(self) -> dict[str, str]:
            sent = self.headers.get("Authorization")
            return {"Authorization": sent} if sent else {}

        def _say(self, status: int, reason: str) -> None:
            self.send_response(status, reason)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + ahead)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Edge)
    if tls:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://localhost:{httpd.server_port}/simple/"
    finally:
        httpd.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("doctor") / "index") as server:
        yield server


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Iterator[Machine]:
    """One on which nothing is wrong."""
    tls = certified(tmp_path)
    with edge(server.url, tls) as url:
        machine = Machine(tmp_path, {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}, ["--index", url])
        machine.log_in("alice", "alicealice")
        machine.write(".config/pip/pip.conf", f"[global]\nindex-url = {url}\ncert = {tmp_path / 'ca.pem'}\n", 0o644)
        machine.write(".config/uv/uv.toml", f'[[index]]\nurl = "{url}"\ndefault = true\n', 0o644)
        yield machine


@contextmanager
def instead(machine: Machine, server: Server, tls: ssl.SSLContext | None, **more: Any) -> Iterator[None]:
    """Another index at another port, to which everything is set."""
    with edge(server.url, tls, **more) as url:
        for path in (".config/pip/pip.conf", ".config/uv/uv.toml"):
            text = (machine.home / path).read_text()
            machine.write(path, text.replace(machine.options[1], url), 0o644)
        machine.options[1] = url
        yield


def signed(directory: Path, name: str, since: float, until: float) -> ssl.SSLContext:
    """With a certificate by the CA of `certified`; times in days from now."""
    ca = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since))
        .not_valid_after(now + timedelta(days=until))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "odd.pem").write_bytes(
        certificate.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(directory / "odd.pem")
    return tls


def codes(machine: Machine) -> list[int]:
    return [code for code, _ in machine.look()]


def test_nothing_is_wrong(machine: Machine, server: Server) -> None:
    assert machine.look() == []
    machine.options += ["--publish", "--project", "anything"]
    assert machine.look() == []
    del machine.options[:2]
    assert machine.look() == []  # it finds the index by itself
    assert not list(server.store.packages.glob("anything*"))


def test_plain_http_and_reading_without_a_login(machine: Machine, server: Server) -> None:
    (machine.home / ".netrc").unlink()
    with instead(machine, server, None, answer=(200, "OK")):
        assert machine.look() == []


FILES: dict[str, tuple[int, Callable[[Machine], object]]] = {
    "no login": (30, lambda m: (m.home / ".netrc").unlink()),
    "a login for another machine": (30, lambda m: m.write(".netrc", "machine other.example login x password y\n")),
    "no netrc at all": (30, lambda m: m.write(".netrc", "machine localhost login\n")),
    "wrong password": (31, lambda m: m.log_in("alice", "wrong")),
    "expired token": (32, lambda m: m.log_in("__token__", TOKENS["bob/old"])),
    "withdrawn token": (32, lambda m: m.log_in("__token__", TOKENS["bob/withdrawn"])),
    "secret": (44, lambda m: (m.home / ".netrc").chmod(0o644)),
    "secret of twine": (44, lambda m: m.write(".pypirc", "[x]\npassword = x\n", 0o640)),
    "login in the address": (
        44,
        lambda m: m.write(
            ".config/pip/pip.conf", f"[global]\nindex-url = {m.options[1].replace('//', '//alice:alicealice@')}\n"
        ),
    ),
    "venv": (
        40,
        lambda m: (
            m.write("venv/pip.conf", f"[global]\nindex-url={OTHER}\n"),
            m.env.setdefault("VIRTUAL_ENV", f"{m.home}/venv"),
        )[0],
    ),
    "another index in a project": (
        40,
        lambda m: m.write("pyproject.toml", f'[[tool.uv.index]]\nurl = "{OTHER}"\ndefault = true\n'),
    ),
    "a second index in pip.conf": (41, lambda m: m.write(".pip/pip.conf", f"[install]\nextra-index-url = {OTHER}\n")),
    "a second index of uv": (
        41,
        lambda m: (m.write("uv.toml", f'[[index]]\nurl = "{OTHER}"\n'), m.write("pyproject.toml", "")),
    ),
    "a file that uv refuses": (
        45,
        lambda m: (
            m.write(".config/uv/uv.toml", "system-certs = true\n"),
            m.write("bin/uv", "#!/bin/sh\necho uv 0.9.30\n", 0o755),
        )[0],
    ),
    "a pip of 2015": (45, lambda m: m.write("bin/pip", "#!/bin/sh\necho pip 8.1.1 from x\n", 0o755)),
}


@pytest.mark.parametrize(("code", "spoil"), FILES.values(), ids=FILES)
def test_files(machine: Machine, code: int, spoil: Callable[[Machine], object]) -> None:
    spoil(machine)
    assert codes(machine) == [code]


VARIABLES = {
    "PIP_INDEX_URL": (40, OTHER),
    "UV_DEFAULT_INDEX": (40, f"x={OTHER}"),
    "UV_INDEX_URL": (40, OTHER),
    "PIP_NO_INDEX": (40, "1"),
    "PIP_EXTRA_INDEX_URL": (41, OTHER),
    "UV_INDEX": (41, f"x={OTHER}"),
    "PIP_TRUSTED_HOST": (42, "localhost"),
    "UV_INSECURE_HOST": (42, "localhost:443"),
    "REQUESTS_CA_BUNDLE": (43, "/nowhere/ca.pem"),
    "CURL_CA_BUNDLE": (43, "/etc/hostname"),
}


@pytest.mark.parametrize(("name", "found"), VARIABLES.items(), ids=VARIABLES)
def test_variables(machine: Machine, name: str, found: tuple[int, str]) -> None:
    machine.env[name] = found[1]
    [(code, text)] = machine.look()
    assert code == found[0] and name in text


def test_rights(machine: Machine, server: Server) -> None:
    for login, options, code in (
        (("carol", "carolcarol"), ["--publish"], 33),
        (("__token__", TOKENS["bob/read"]), ["--publish"], 33),
        (("bob", "bobbob"), ["--project", "Other.Lib"], 34),
        (("bob", "bobbob"), ["--project", "acme-lib"], None),
    ):
        machine.log_in(*login)
        machine.options[2:] = options
        assert codes(machine) == ([code] if code else []), (login, options)
    # twine's own login counts, where it has one.
    machine.options[2:] = ["--publish"]
    repository = machine.options[1].removesuffix("simple/")
    machine.write(".pypirc", f"[private]\nrepository = {repository}\nusername = alice\npassword = alicealice\n")
    machine.log_in("carol", "carolcarol")
    assert machine.look() == []


def test_no_index(machine: Machine) -> None:
    for path in (".config/pip/pip.conf", ".config/uv/uv.toml"):
        (machine.home / path).unlink()
    del machine.options[:]
    assert codes(machine) == [10]


def test_name_and_port(machine: Machine) -> None:
    machine.options[1] = "https://index.invalid/simple/"
    assert codes(machine)[0] == 11
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machine.options[1] = f"https://localhost:{port}/simple/"
    assert codes(machine)[0] == 12


@pytest.mark.parametrize(
    ("code", "name", "since", "until"),
    [(14, "other.example", -1, 1), (15, "localhost", -2, -1), (16, "localhost", 1, 2)],
)
def test_certificates(machine: Machine, server: Server, code: int, name: str, since: float, until: float) -> None:
    with instead(machine, server, signed(machine.home, name, since, until)):
        assert codes(machine)[0] == code


def test_a_ca_that_is_not_known(machine: Machine, server: Server) -> None:
    (elsewhere := machine.home / "elsewhere").mkdir()
    with instead(machine, server, certified(elsewhere)):
        assert codes(machine)[0] == 13


def test_no_tls(machine: Machine, server: Server) -> None:
    with instead(machine, server, None):
        machine.options[1] = machine.options[1].replace("http:", "https:")
        assert codes(machine)[0] == 17


@pytest.mark.parametrize("ahead", [-400, 400])
def test_clock(machine: Machine, server: Server, ahead: float) -> None:
    with instead(machine, server, certified(machine.home), ahead=ahead):
        [(code, text)] = machine.look()
        assert code == 18 and ("behind" if ahead > 0 else "ahead of") in text


@pytest.mark.parametrize(("code", "answer"), [(20, (302, "Found")), (21, (502, "Bad Gateway"))])
def test_another_answer(machine: Machine, server: Server, code: int, answer: tuple[int, str]) -> None:
    with instead(machine, server, certified(machine.home), answer=answer):
        assert codes(machine) == [code]


@pytest.mark.parametrize("port", ["closed", "refuses"])
def test_proxy(machine: Machine, server: Server, port: str) -> None:
    """One that lets nobody through; with no_proxy it is not asked."""
    with edge(server.url, None) as url, socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        machine.env["https_proxy"] = closed if port == "closed" else url.removesuffix("/simple/")
        assert codes(machine) == [19]
        machine.env["no_proxy"] = "localhost"
        assert machine.look() == []
