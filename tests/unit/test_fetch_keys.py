"""The issuers' keys: fetched by https from a real server with a CA of its own; what is wrong there takes no good key away."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from index.serve import certified
from issuer import Key

import fetch_keys

RSA, EC = Key("rsa"), Key("ec", "ES256")


class Issuer:
    """One, and what it answers: a document, or raw bytes, or a status."""

    def __init__(self, base: Path, tls: ssl.SSLContext) -> None:
        self.base, self.answers = base, dict[str, Any]()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = issuer.answers.get(self.path, 404)
                if isinstance(answer, threading.Event):
                    answer.wait(120)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(answer if isinstance(answer, int) else 200)
                if answer == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"https://localhost:{self.server.server_port}"
        self.is_well()

    def is_well(self) -> None:
        about = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.answers = {"/.well-known/openid-configuration": about, "/keys": {"keys": [RSA.jwk, EC.jwk]}}

    def fetch(self, *trusted: str, ca: bool = True) -> int:
        roles = {"alice": {}, **{f"ci{n}": {"trusted": {"issuer": url}} for n, url in enumerate(trusted)}}
        (self.base / "roles.json").write_text(json.dumps(roles))
        paths = [self.base / "roles.json", self.base / "keys.json", *([self.base / "ca.pem"] if ca else [])]
        return fetch_keys.main(*map(str, paths))

    def known(self) -> dict[str, Any]:
        return dict(json.loads((self.base / "keys.json").read_text()))


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    one = Issuer(tmp_path, certified(tmp_path))
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_what_is_needed_of_the_keys_is_there_for_everybody_to_read(issuer: Issuer) -> None:
    issuer.answers["/keys"]["keys"].append(RSA.jwk | {"kid": "more", "x5c": ["…"], "d": "secret"})
    assert issuer.fetch(issuer.url, issuer.url) == 0
    (known,) = issuer.known().values()
    assert time.time() - known["fetched"] < 60
    assert known["keys"] == [RSA.jwk, EC.jwk, RSA.jwk | {"kid": "more"}]
    assert (issuer.base / "keys.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/openid-configuration", 500),
        ("/.well-known/openid-configuration", 302),
        ("/.well-known/openid-configuration", b"<html>"),
        ("/.well-known/openid-configuration", []),
        ("/.well-known/openid-configuration", {"issuer": "https://evil.example.com"}),
        ("/.well-known/openid-configuration", None),
        ("/keys", 404),
        ("/keys", 302),
        ("/keys", b"x" * (fetch_keys.LONGEST + 1)),
        ("/keys", {"keys": []}),
        ("/keys", {"keys": {"kid": "rsa"}}),
        ("/keys", {"keys": ["rsa", {"kid": 1}, {"kid": "x", "kty": "oct", "k": "AAAA"}]}),
        ("/keys", {"keys": [RSA.jwk | {"n": RSA.jwk["n"][:170]}]}),
        ("/keys", {"keys": [RSA.jwk | {"n": RSA.jwk["n"] * 5}, RSA.jwk | {"e": RSA.jwk["n"]}]}),
        ("/keys", {"keys": [EC.jwk | {"crv": "P-384"}]}),
        ("/keys", {"keys": [{key: value for key, value in RSA.jwk.items() if key != "kid"}]}),
    ],
)
def test_an_issuer_that_is_not_well_keeps_its_keys_and_is_named(
    issuer: Issuer, capsys: pytest.CaptureFixture[str], path: str, answer: Any
) -> None:
    other = "https://localhost:1"
    assert issuer.fetch(issuer.url, other) == 1, "nobody listens at the other one"
    before = issuer.known()
    assert before.pop(other) == {"fetched": 0, "keys": []} and before, "which holds nobody up"
    capsys.readouterr()
    wrong = {"issuer": issuer.url, "jwks_uri": issuer.url.replace("https", "http")}
    issuer.answers |= {path: wrong if answer is None else answer, "/elsewhere": issuer.answers[path]}
    assert issuer.fetch(issuer.url) == 1
    assert issuer.known() == before
    assert f"{issuer.url}: " in capsys.readouterr().err
    issuer.is_well()
    assert issuer.fetch(issuer.url) == 0


def test_a_certificate_that_nobody_vouches_for_is_refused(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    assert issuer.fetch(issuer.url, ca=False) == 1
    assert issuer.known()[issuer.url]["keys"] == [] and "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


def test_who_is_trusted_no_more_loses_its_keys(issuer: Issuer) -> None:
    issuer.fetch(issuer.url)
    assert issuer.fetch() == 0
    assert issuer.known() == {}


def test_one_that_takes_its_time_holds_up_nobody(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked first, and does not answer before the other one's keys are there."""
    monkeypatch.setattr(fetch_keys, "SECONDS", 120)
    slow, quick, over = f"{issuer.url}/a", f"{issuer.url}/b", threading.Event()
    issuer.answers["/a/.well-known/openid-configuration"] = over
    issuer.answers["/b/.well-known/openid-configuration"] = {"issuer": quick, "jwks_uri": f"{issuer.url}/keys"}
    fetching = threading.Thread(target=issuer.fetch, args=(slow, quick))
    fetching.start()
    try:
        deadline = time.monotonic() + 60
        while not (known := look(issuer)).get(quick, {}).get("keys") and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        assert known[quick]["keys"] and not known[slow]["keys"]
    finally:
        over.set()
        fetching.join()


def test_who_says_to_be_another_is_not_believed(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    issuer.answers["/.well-known/openid-configuration"] |= {"issuer": "https://evil.example.com"}
    assert issuer.fetch(issuer.url) == 1
    assert issuer.known()[issuer.url]["keys"] == []
    assert "it says that it is 'https://evil.example.com'" in capsys.readouterr().err


def test_some_have_a_slash_at_the_end(issuer: Issuer) -> None:
    """Which is no part of where they describe themselves (OpenID Connect Discovery 1.0, 4)."""
    name = f"{issuer.url}/realm/"
    about = {"issuer": name, "jwks_uri": f"{issuer.url}/keys"}
    issuer.answers["/realm/.well-known/openid-configuration"] = about
    assert issuer.fetch(name) == 0
    assert issuer.known()[name]["keys"]


def look(issuer: Issuer) -> dict[str, Any]:
    return issuer.known() if (issuer.base / "keys.json").exists() else {}


@pytest.mark.parametrize("damaged", ['{"', "[]", "7"])
def test_a_file_that_is_damaged_is_made_anew(issuer: Issuer, damaged: str) -> None:
    (issuer.base / "keys.json").write_text(damaged)
    assert issuer.fetch(issuer.url) == 0
    assert list(issuer.known()) == [issuer.url]
