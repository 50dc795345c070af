"""The login service: right is right, wrong costs the same for everyone, and one credential is verified once."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt
import pytest

import login as login_module
from login import FAILURES_PER_ADDRESS, FAILURES_PER_NAME, Login, TooManyAttempts, Users, make_application, parse_basic

PASSWORDS = {"alice": "wonderland", "bob": "pässwörd"}


def write_users(directory: Path, passwords: dict[str, str], roles: dict[str, Any]) -> None:
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for name, word in passwords.items()]
    for name, text in {"roles.json": json.dumps(roles), "htpasswd": "".join(lines)}.items():
        (directory / f".{name}").write_text(text, "utf-8")
        (directory / f".{name}").rename(directory / name)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    roles = {"alice": {"role": "publisher", "projects": ["acme-*"]}, "bob": {"role": "reader"}}
    write_users(tmp_path, PASSWORDS, roles)
    return tmp_path


@pytest.fixture
def login(users: Path) -> Login:
    return Login(users)


def test_right_password_gives_the_account(login: Login) -> None:
    account = login.check("alice", b"wonderland")
    assert account
    assert (account.name, account.role, account.projects) == ("alice", "publisher", ("acme-*",))
    assert login.check("bob", "pässwörd".encode())


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", b"wrong"),
        ("alice", b""),
        ("nobody", b"wonderland"),
        ("", b""),
        ("alice", b"wonderland\0"),
        ("Alice", b"wonderland"),
    ],
)
def test_wrong_credentials_are_nobody(login: Login, name: str, password: bytes) -> None:
    assert login.check(name, password) is None


def test_password_longer_than_bcrypt_reads_is_wrong(users: Path) -> None:
    write_users(users, {"long": "x" * 72}, {})
    assert Login(users).check("long", b"x" * 72)
    assert Login(users).check("long", b"x" * 73) is None


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were compared with, in order. Nothing is ever equal."""
    seen: list[bytes] = []

    def record(_password: bytes, reference: bytes) -> bool:
        seen.append(reference)
        return False

    monkeypatch.setattr(bcrypt, "checkpw", record)
    return seen


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer x", "alice:wonderland", "Basic YWxpY2U="])
def test_a_malformed_header_costs_one_verification(login: Login, compared: list[bytes], header: str) -> None:
    assert answer(login, HTTP_AUTHORIZATION=header)[0] == "401 Unauthorized"
    assert len(compared) == 1


@pytest.mark.parametrize("password", [b"guess", b"", b"x" * 100, b"wonderland\0"])
@pytest.mark.parametrize("name", ["alice", "nobody", ""])
def test_whatever_is_wrong_costs_one_verification(
    login: Login, compared: list[bytes], name: str, password: bytes
) -> None:
    assert login.check(name, password) is None
    assert len(compared) == 1


def test_hashes_of_another_cost_do_not_tell_who_exists(users: Path, compared: list[bytes]) -> None:
    """Each unknown name always takes the time of the same user, and not all of them that of one."""
    read = Users.read(users)
    for name in [f"nobody{number}" for number in range(20)] * 2:
        read.verify(name, b"guess")
    assert compared[:20] == compared[20:]
    assert set(compared) == set(read.hashes.values())


def test_many_first_requests_verify_once(login: Login) -> None:
    barrier = threading.Barrier(50)

    def ask() -> object:
        barrier.wait()
        return login.check("alice", b"wonderland")

    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(ask) for _ in range(50)]
    assert all(answer.result() for answer in answers)
    assert login.verifications == 1


def test_an_edit_counts_from_the_next_request(users: Path, login: Login) -> None:
    assert login.check("alice", b"wonderland")
    write_users(users, {"alice": "changed"}, {"alice": {"role": "reader"}})
    assert login.check("alice", b"wonderland") is None
    account = login.check("alice", b"changed")
    assert account and account.role == "reader"
    assert login.check("bob", "pässwörd".encode()) is None


def test_guessing_one_name_is_stopped_and_others_at_that_address_are_not(login: Login) -> None:
    for guess in range(FAILURES_PER_NAME):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        login.check("alice", b"one more", "192.0.2.1")
    assert login.check("bob", "pässwörd".encode(), "192.0.2.1")
    assert login.check("alice", b"wonderland", "192.0.2.2")


def test_known_user_at_a_guessed_address_stays_in(login: Login) -> None:
    assert login.check("alice", b"wonderland", "192.0.2.1")
    for guess in range(FAILURES_PER_NAME):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    assert login.check("alice", b"wonderland", "192.0.2.1")


def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """From now on a verification sets the first event, and ends when the second is set."""
    entered, hold = threading.Event(), threading.Event()
    real = bcrypt.checkpw

    def slow(*args: bytes) -> bool:
        entered.set()
        assert hold.wait(10)
        return real(*args)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    return entered, hold


def test_an_address_that_tries_many_names_waits_in_line(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for guess in range(FAILURES_PER_ADDRESS):
        login.check(f"name{guess}", b"guess", "192.0.2.1")
    entered, hold = held(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(login.check, "name-x", b"guess", "192.0.2.1")
        assert entered.wait(10)
        with pytest.raises(TooManyAttempts):
            login.check("name-y", b"guess", "192.0.2.1")
        clean = pool.submit(login.check, "bob", "pässwörd".encode(), "192.0.2.2")
        hold.set()
        assert first.result(10) is None
        assert clean.result(10)


def test_who_waits_too_long_is_told_to_come_back(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone who waits for the same verdict; and nothing is remembered of it."""
    monkeypatch.setattr(login_module, "WAIT_SECONDS", 0.2)
    entered, hold = held(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(login.check, "alice", b"wonderland")
        assert entered.wait(10)
        for late in [pool.submit(login.check, "bob", "pässwörd".encode()) for _ in range(2)]:
            with pytest.raises(TooManyAttempts):
                late.result(5)
        hold.set()
        assert first.result(10)
    assert login.check("bob", "pässwörd".encode())


def test_failures_are_forgotten_after_the_window(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for guess in range(FAILURES_PER_NAME):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    monkeypatch.setattr(login_module, "WINDOW_SECONDS", 0.0)
    assert login.check("alice", b"wonderland", "192.0.2.1")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YWxpY2U=",
        "Bearer YWxpY2U6eA==",
        "Basic " + base64.b64encode(b"\xff:x").decode(),
    ],
)
def test_malformed_headers_are_no_credential(header: str) -> None:
    assert parse_basic(header) is None


def answer(login: Login, **environ: str) -> tuple[str, dict[str, str]]:
    seen: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        seen.update(status=status, headers=dict(headers))

    class Errors:
        def write(self, _text: str) -> None: ...
        def flush(self) -> None: ...

    b"".join(make_application(login)({"PATH_INFO": "/", "wsgi.errors": Errors(), **environ}, start_response))
    return seen["status"], seen["headers"]


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_the_application_answers_what_nginx_understands(users: Path, login: Login) -> None:
    status, headers = answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))
    assert (status, headers["X-Login-User"], headers["X-Login-Role"]) == ("204 No Content", "alice", "publisher")
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wrong"))[0] == "401 Unauthorized"
    assert answer(login)[0] == "401 Unauthorized"
    assert answer(login, PATH_INFO="/health")[0] == "200 OK"
    (users / "htpasswd").unlink()
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))[0] == "503 Service Unavailable"
