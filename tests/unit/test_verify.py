"""What verify says of a certificate, on a server that shows one made for the purpose; and that a check which fails is a finding."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pypi_verify import __main__ as program
from pypi_verify import backups, certificate, findings, issuers, system
from pypi_verify.findings import Config, Finding

HOST = "pypi.example.com"
Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def make(name: str, since: float, days: float, by: Pair | None = None) -> Pair:
    """A certificate from so many days ago until so many days from now; a CA, unless another one signs it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder(subject_name=subject, public_key=key.public_key())
        .issuer_name(by[0].subject if by else subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=since))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return builder.sign(by[1] if by else key, hashes.SHA256()), key


def write(pair: Pair, certificate_file: Path, key_file: Path | None = None) -> None:
    certificate_file.write_bytes(pair[0].public_bytes(serialization.Encoding.PEM))
    if key_file:
        no = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        key_file.write_bytes(pair[1].private_bytes(serialization.Encoding.PEM, form, no))


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Callable[[Pair, Pair], Config]]:
    """Serve a certificate of a CA, and return what a host that does so has written down."""
    listeners: list[socket.socket] = []

    def start(authority: Pair, leaf: Pair) -> Config:
        write(authority, tmp_path / "ca.pem")
        write(leaf, tmp_path / "certificate.pem", tmp_path / "key.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=answer, args=(listeners[-1], context), daemon=True).start()
        places = {"tls_directory": str(tmp_path), "ca": str(tmp_path / "ca.pem"), "directory": "/opt/pypi"}
        rest = {
            "packages": "p",
            "containers": {},
            "private": [],
            "keys_file": "",
            "backup_file": "",
            "free_percent": 10,
            "status_file": "",
            "status_group": "",
        }
        port = listeners[-1].getsockname()[1]
        return Config(HOST, "", port, tls=True, certificate_days=14, **places, **rest)  # type: ignore[arg-type]

    def answer(listener: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with raw:
                try:
                    context.wrap_socket(raw, server_side=True).recv(1)
                except OSError:
                    pass

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def said(config: Config) -> str:
    found = list(certificate.certificate(config))
    assert all(finding.kind == "certificate" and finding.fix for finding in found)
    return " | ".join(finding.what for finding in found)


CA = make("a CA", 1, 3000)


@pytest.mark.parametrize(
    ("authority", "leaf", "says"),
    [
        (CA, make(HOST, 351, 14.5, CA), ""),
        (CA, make(HOST, 352, 13.5, CA), f"the certificate of {HOST} ends in 13 days"),
        (CA, make(HOST, 2, 4, CA), ""),
        (CA, make(HOST, 5, 1.4, CA), f"the certificate of {HOST} ends in 1 days"),
        (CA, make(HOST, 20, -1, CA), f"clients refuse the certificate of {HOST}: certificate has expired"),
        (CA, make("other.example.com", 1, 99, CA), f"clients refuse the certificate of {HOST}: Hostname mismatch"),
        (CA, make(HOST, 1, 99, make("other", 1, 99)), f"clients refuse the certificate of {HOST}: unable to get local"),
        (ending := make("old", 3000, 80), make(HOST, 1, 60, ending), "the CA ends in 80 days"),
    ],
)
def test_a_certificate_is_judged_as_clients_do(
    show: Callable[[Pair, Pair], Config], authority: Pair, leaf: Pair, says: str
) -> None:
    assert said(show(authority, leaf)).startswith(says) and (says or not said(show(authority, leaf)))


def test_what_is_on_the_disk_is_compared_with_what_is_shown(
    show: Callable[[Pair, Pair], Config], tmp_path: Path
) -> None:
    config = show(CA, make(HOST, 1, 99, CA))
    write(make(HOST, 0, 99, CA), tmp_path / "certificate.pem", tmp_path / "key.pem")
    assert said(config) == f"nginx shows another certificate than the one in {tmp_path}"
    write(make(HOST, 0, 99, CA), tmp_path / "certificate.pem")
    assert said(config).startswith(f"certificate.pem and key.pem in {tmp_path} are damaged, or not of each other")
    (tmp_path / "key.pem").unlink()
    assert said(config).startswith(f"certificate.pem and key.pem in {tmp_path} are damaged, or not of each other")
    assert said(dataclasses.replace(config, port=1)).endswith("Connection refused")
    assert said(dataclasses.replace(config, tls=False)) == ""


def test_a_check_that_fails_is_a_finding_and_the_others_go_on() -> None:
    def broken() -> Iterator[Finding]:
        raise OSError("no engine")
        yield

    def good() -> Iterator[Finding]:
        yield Finding("disk", "full", "make room")

    found = list(program._all({"containers": broken, "disk": good}))
    assert [each.what for each in found] == ["this could not be looked at: no engine", "full"]


def test_a_program_says_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="^so it is$"):
        findings.said("sh", "-c", "echo first >&2; echo so it is >&2; exit 3")
    monkeypatch.setattr(findings, "PATIENCE", 0.1)
    with pytest.raises(OSError, match=r"^no answer within 0\.1 seconds$"):
        findings.said("sleep", "60")


@pytest.mark.parametrize(
    ("container", "synchronised", "last", "says"),
    [
        (True, "no", 0, ""),
        (False, "yes", 0, ""),
        (False, "no", 0, "nobody sets the clock of this host"),
        (False, "yes", 4e9, "the clock stands at "),
    ],
)
def test_the_clock(monkeypatch: pytest.MonkeyPatch, container: bool, synchronised: str, last: float, says: str) -> None:
    def answer(*command: str) -> str:
        if command[0] == "systemd-detect-virt" and not container:
            raise OSError
        return f"NTPSynchronized={synchronised}"

    monkeypatch.setattr(system, "said", answer)
    found = [finding.what for finding in system.clock(last)]
    assert [what.startswith(says) for what in found] == [True] * bool(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"https://a": {"fetched": now - 3000, "keys": []}}', []),
        ("{}", []),
        (
            '{"https://a": {"fetched": now - 7300}, "https://b": {"fetched": now}}',
            ["of https://a were fetched last: 2 hours ago"],
        ),
        ('{"https://a": {"fetched": 0, "keys": []}}', ["of https://a were fetched last: never"]),
        (None, ["cannot be read: [Errno 2]"]),
        ("{", ["cannot be read: "]),
        ("[]", ["cannot be read: "]),
        ('{"https://a": {}}', ["cannot be read: "]),
        ('{"https://a": []}', ["cannot be read: "]),
    ],
)
def test_keys_of_issuers_have_to_be_fresh(
    show: Callable[[Pair, Pair], Config], tmp_path: Path, text: str | None, says: list[str]
) -> None:
    file, now = tmp_path / "keys.json", int(time.time())
    if text is not None:
        file.write_text(
            text.replace("now - 3000", str(now - 3000)).replace("now - 7300", str(now - 7300)).replace("now", str(now))
        )
    config = show(CA, make(HOST, 1, 60, CA))
    assert list(issuers.issuers(config)) == [], "where no account trusts a pipeline"
    found = list(issuers.issuers(dataclasses.replace(config, keys_file=str(file))))
    assert len(found) == len(says)
    for finding, words in zip(found, says, strict=True):
        assert words in finding.what and "journalctl --unit pypi-issuers" in finding.fix and finding.kind == "issuer"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "there was no backup yet"),
        ({"ok": True, "age": 1}, ""),
        ({"ok": True, "age": 49}, "the last backup is 49 hours old"),
        ({"ok": False, "age": 1, "error": "the disk is full"}, "failed: the disk is full"),
        ({"ok": False, "age": None, "error": "locked"}, "failed: locked"),
    ],
)
def test_the_last_backup_has_to_be_well_and_of_late(
    show: Callable[[Pair, Pair], Config], tmp_path: Path, document: dict[str, Any] | None, says: str
) -> None:
    config = show(CA, make(HOST, 1, 60, CA))
    file = tmp_path / "status.json"
    if document:
        age = document.pop("age")
        then = age and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age * 3600))
        file.write_text(json.dumps({**document, "time": then, "last_success": then}))
    found = [finding.what for finding in backups.backups(dataclasses.replace(config, backup_file=str(file)))]
    assert len(found) == bool(says) and all(says in what for what in found), found
    assert list(backups.backups(config)) == []
