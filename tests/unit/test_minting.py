"""Tokens for pipelines: what comes of an identity token, and what holds when something is down, full or over."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from issuer import AUDIENCE, GITHUB, Key, of_github
from minting_index import EC, OTHER, RELEASE, RSA, Index, use
from test_login import basic

import identity
import minted as minted_module
import minting as minting_module
from login import Refused
from minted import LIFETIME
from minting import MAX_AGE, MAX_WAITING, ask_nginx


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_the_audience_is_the_index_s_name(index: Index) -> None:
    assert index.ask("GET", "/_/oidc/audience") == (200, {"audience": AUDIENCE})


@pytest.mark.parametrize("asked", ["POST /_/oidc/audience", "GET /_/oidc/mint-token", "GET /_/oidc/other"])
def test_nothing_else_is_there(index: Index, asked: str) -> None:
    assert index.ask(*asked.split())[0] == 405  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE]])
def test_a_trusted_run_gets_a_token_with_the_rights_of_its_account(index: Index, key: Key, audience: Any) -> None:
    status, answer = index.exchange(key.token(of_github(aud=audience)))
    assert status == 200 and answer["success"] is True
    assert 0 <= time.time() + LIFETIME - answer["expires"] < 5
    account = index.login.check("__token__", answer["token"].encode())
    assert account
    assert (account.name, account.role, account.projects) == ("release/github:4711", "publisher", ("acme-*",))
    assert 0 < index.login.remember(account) <= 300


@pytest.mark.parametrize(
    "body", [b"", b"token", b"[]", b"{}", b'{"token": null}', b"\xff", b"[" * 40_000, b"x" * 99_000]
)
def test_what_is_no_request_is_refused(index: Index, body: bytes) -> None:
    status, answer = index.ask("POST", "/_/oidc/mint-token", body)
    assert (status, answer["errors"][0]["code"]) == (422, "invalid-payload")


def test_it_is_good_for_one_token(index: Index) -> None:
    token = RSA.token(of_github())
    with ThreadPoolExecutor(8) as pool:
        answers = [answer for _, answer in pool.map(index.exchange, [token] * 8)]
    codes = [answer["errors"][0]["code"] for answer in answers if "errors" in answer]
    assert codes == ["invalid-reuse-token"] * 7
    index.restart()
    assert index.refused(token)[0] == "invalid-reuse-token", "after a restart too"


def test_one_that_is_refused_is_not_used_up(index: Index) -> None:
    claims = of_github()
    assert index.refused(OTHER.token(claims))[0] == "invalid-token"
    assert index.minted(RSA.token(claims))


def test_it_ends(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    token, now = index.minted(RSA.token(of_github())), time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME - 5)
    assert use(index, token) == "release/github:4711"
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 1)
    assert use(index, token) == "The token release/github:4711 has expired: it was for 15 minutes."


def test_it_outlives_a_restart_and_other_users(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    index.trusting({"release": RELEASE, "new": {**RELEASE, "repository": "acme/new"}})
    index.restart()
    assert use(index, token) == "release/github:4711"


@pytest.mark.parametrize("trusted", [{}, {"release": {**RELEASE, "environment": "test"}}, {"release": None}])
def test_it_ends_at_once_with_the_trust(index: Index, trusted: dict[str, Any]) -> None:
    token = index.minted(RSA.token(of_github()))
    assert use(index, token) == "release/github:4711"
    index.trusting(trusted)
    assert use(index, token) == "release trusts no more what the token release/github:4711 was made for."


def test_it_never_may_more_than_its_account_by_now(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    index.trusting({"release": RELEASE}, role="reader", projects=[])
    account = index.login.check("__token__", token.encode())
    assert account and (account.role, account.projects) == ("reader", ())


def test_it_is_no_password_of_another_account(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    with pytest.raises(Refused, match="of another account"):
        index.login.check("alice", token.encode())


def test_the_server_has_no_token_and_no_key_that_makes_some(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    texts = [path.read_bytes() + str(path).encode() for path in index.directory.rglob("*") if path.is_file()]
    assert not [text for text in texts if token[4:].encode() in text]
    (kept,) = (index.directory / "minted/tokens").iterdir()
    assert kept.name == hashlib.sha256(token.encode()).hexdigest()


def test_keys_of_a_new_name_are_asked_for_once_and_waited_for(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minting_module, "PATIENCE", 20)
    new, asked = Key("new"), index.directory / "minted/asked"

    def host() -> None:
        deadline = time.monotonic() + 20
        while not asked.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        index.publish(RSA, new)

    thread = threading.Thread(target=host)
    thread.start()
    assert index.minted(new.token(of_github()))
    thread.join()
    asked.unlink()
    monkeypatch.setattr(minting_module, "PATIENCE", 0)
    assert "does not have (kid)" in index.refused(RSA.token(of_github(), kid="newer"))[1]
    assert not asked.exists(), "not again within a minute"


def test_all_who_come_with_a_new_key_wait_for_it_and_no_more_than_there_is_room_for(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer changes its key for all of its jobs."""
    monkeypatch.setattr(minting_module, "PATIENCE", 60)
    new, keys = Key("new"), index.keys
    with ThreadPoolExecutor(MAX_WAITING + 1) as pool:
        answers = [pool.submit(index.exchange, new.token(of_github())) for _ in range(MAX_WAITING + 1)]
        (first,) = wait(answers, 30, FIRST_COMPLETED).done
        assert first.result()[1]["errors"][0]["code"] == "invalid-token", "there is no room for one more"
        index.publish(RSA, new)
        codes = sorted(answer.result()[0] for answer in answers)
    assert codes == [200] * MAX_WAITING + [422]
    assert keys._places._value == MAX_WAITING


@pytest.mark.parametrize("fetched", [None, -MAX_AGE - 1])
def test_an_issuer_that_is_down_for_long_is_named(index: Index, fetched: float | None) -> None:
    token = index.minted(RSA.token(of_github()))
    if fetched is None:
        (index.directory / "keys.json").unlink()
    else:
        index.publish(RSA, fetched=time.time() + fetched)
    assert index.refused(RSA.token(of_github())) == (
        "unavailable",
        f"the keys of {GITHUB} could not be fetched: the index's operator can see why",
    )
    assert use(index, token) == "release/github:4711", "who has a token goes on"


def test_an_issuer_that_is_down_for_hours_is_not_missed(index: Index) -> None:
    index.publish(RSA, fetched=time.time() - MAX_AGE + 60)
    assert index.minted(RSA.token(of_github()))


def test_without_nginx_nobody_is_let_in(index: Index) -> None:
    token, index.nginx_is_down = RSA.token(of_github()), True
    assert index.refused(token) == ("unavailable", "the signature cannot be verified at the moment")
    index.nginx_is_down = False
    assert index.minted(token), "it was not used up"


class Nginx(BaseHTTPRequestHandler):
    """Answers what the path says."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/silence":
            self.server.over.wait(30)  # type: ignore[attr-defined]
        elif self.path != "/nothing":
            self.send_response(int(self.path[1:]))
            self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def nginx() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nginx)
    server.over = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/204", None),
        ("/403", "invalid-token"),
        *((path, "unavailable") for path in ("/200", "/302", "/404", "/500", "/502", "/nothing", "/silence")),
        ("", "unavailable"),
    ],
)
def test_whatever_else_nginx_answers_is_no_yes(
    index: Index, nginx: str, monkeypatch: pytest.MonkeyPatch, path: str, code: str | None
) -> None:
    """And no no: a pipeline that hears of a wrong signature would not ask again. Without a path nobody listens."""
    monkeypatch.setattr(minting_module, "NGINX_SECONDS", 0.3)
    index.verify = ask_nginx(nginx + path if path else "http://127.0.0.1:1/")  # type: ignore[method-assign]
    index.restart()
    token, start = RSA.token(of_github()), time.monotonic()
    if code:
        assert index.refused(token)[0] == code
        assert time.monotonic() - start < 15, "it is not waited for without end"
        assert not list((index.directory / "minted").glob("*/*"))
    else:
        assert index.minted(token)


def test_what_is_kept_has_an_end_and_a_bound(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is trusted could fill the disk otherwise, or have it remembered for ever what was used."""
    now = int(time.time())
    index.minted(RSA.token(of_github(exp=now + 10**9)))
    (spent,) = (index.directory / "minted/spent").iterdir()
    assert 0 <= spent.stat().st_mtime - now - identity.LONGEST_LIFE - identity.LEEWAY < 5
    monkeypatch.setattr(minted_module, "MOST", 8)
    for _ in range(3):
        assert index.minted(RSA.token(of_github()))
    token = RSA.token(of_github())
    for _ in range(2):
        assert index.refused(token) == ("unavailable", "the index cannot store a token at the moment")
        index.restart()
    assert len(list((index.directory / "minted").glob("*/*"))) == 8
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 100)
    index.restart()
    later = {"iat": now + LIFETIME, "nbf": None, "exp": now + LIFETIME + 300}
    assert index.minted(RSA.token(of_github(**later))), "there is room again when they are over"


def test_without_room_nobody_is_let_in(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert index.refused(RSA.token(of_github()))[0] == "unavailable"


def test_what_is_over_is_swept_away(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.minted(RSA.token(of_github()))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * LIFETIME)
    index.mint._swept = 0
    later = int(now) + 2 * LIFETIME
    index.minted(RSA.token(of_github(iat=later, nbf=later, exp=later + 300)))
    assert [len(list((index.directory / "minted" / name).iterdir())) for name in ("tokens", "spent")] == [1, 1]


def test_the_log_says_who_got_one_and_what_a_refused_run_lacked(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    token = index.minted(RSA.token(of_github()))
    assert "minted for release/github:4711, sub 'repo:acme/lib:environment:production'" in caplog.text
    index.refused(RSA.token(of_github(environment="test")))
    assert "login of a pipeline failed, from ?: of 'repo:acme/lib" in caplog.text
    assert "release: environment" in caplog.text and token not in caplog.text


def test_nginx_hears_of_it_as_of_any_token(index: Index) -> None:
    said: dict[str, str] = {}
    token = index.minted(RSA.token(of_github()))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_AUTHORIZATION": basic("__token__", token)}
    index.application(environ, lambda status, headers: said.update(headers, status=status))
    assert (said["status"], said["X-Login-User"], said["X-Login-Role"]) == (
        "204 No Content",
        "release/github:4711",
        "publisher",
    )
