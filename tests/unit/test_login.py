"""The login service: right is right, wrong costs the same for everyone, and one credential is verified once."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from typing import Any

import bcrypt
import pytest

import login as login_module
from login import (
    GUESSES,
    MAX_LINES,
    MAX_WRONG,
    REMEMBER_SECONDS,
    WINDOW_SECONDS,
    Login,
    Pending,
    TooManyAttempts,
    make_application,
    parse_basic,
)
from users import Account, Users

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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


@pytest.mark.parametrize("password", [b"wonderland", b"wrong"])
def test_a_verdict_ends(login: Login, clock: Callable[[float], None], password: bytes) -> None:
    login.check("alice", password)
    clock(REMEMBER_SECONDS - 5)
    login.check("alice", password)
    assert login.verifications == 1
    clock(10)
    login.check("alice", password)
    assert login.verifications == 2


def test_wrong_passwords_do_not_make_it_forget_who_is_right(
    login: Login, compared: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", lambda *_: True)
        assert login.check("alice", b"wonderland")
    for number in range(MAX_WRONG + 10):
        login.check(f"name{number}", b"guess")
    assert len(compared) == MAX_WRONG + 10
    assert login.check("alice", b"wonderland") and login.check(f"name{MAX_WRONG}", b"guess") is None
    assert len(compared) == MAX_WRONG + 10
    login.check("name0", b"guess")  # the oldest is forgotten
    assert len(compared) == MAX_WRONG + 11


@pytest.mark.parametrize("followers", [3, inf])
def test_a_crowd_with_one_credential_costs_one_verification(
    users: Path, monkeypatch: pytest.MonkeyPatch, followers: float
) -> None:
    """All wait for it; or some, and the rest is told to ask again, so that they hold no thread of the server."""
    login = Login(users, followers)
    entered, hold = held(monkeypatch)
    with ThreadPoolExecutor(50) as pool:
        leader = pool.submit(login.check, "alice", b"wonderland")
        assert entered.wait(10)
        crowd = [pool.submit(login.check, "alice", b"wonderland") for _ in range(49)]
        waiting = min(49, followers)
        wait_until(lambda: sum(asked.done() for asked in crowd) == 49 - waiting and login.waiting == 1 + waiting)
        hold.set()
        answers = [asked.exception(10) or asked.result() for asked in [leader, *crowd]]
    assert sum(isinstance(answer, Account) for answer in answers) == 1 + waiting
    assert sum(isinstance(answer, Pending) for answer in answers) == 49 - waiting
    assert login.check("alice", b"wonderland") and login.verifications == 1


def test_an_edit_counts_from_the_next_request(users: Path, login: Login) -> None:
    assert login.check("alice", b"wonderland")
    write_users(users, {"alice": "changed"}, {"alice": {"role": "reader"}})
    assert login.check("alice", b"wonderland") is None
    account = login.check("alice", b"changed")
    assert account and account.role == "reader"
    assert login.check("bob", "pässwörd".encode()) is None


def test_guessing_one_name_is_stopped_and_others_at_that_address_are_not(login: Login) -> None:
    for guess in range(GUESSES):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        login.check("alice", b"one more", "192.0.2.1")
    assert login.check("bob", "pässwörd".encode(), "192.0.2.1")
    assert login.check("alice", b"wonderland", "192.0.2.2")


def test_known_user_at_a_guessed_address_stays_in(login: Login) -> None:
    assert login.check("alice", b"wonderland", "192.0.2.1")
    for guess in range(GUESSES):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    assert login.check("alice", b"wonderland", "192.0.2.1")


def test_right_passwords_are_no_guesses(users: Path, login: Login) -> None:
    for number in range(2 * GUESSES):
        write_users(users, PASSWORDS | {f"new{number}": "x"}, {})
        assert login.check("alice", b"wonderland", "192.0.2.1")
    assert login.verifications == 2 * GUESSES


def test_a_burst_of_guesses_for_one_name_is_stopped_as_well(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way counts."""
    entered, hold = held(monkeypatch)
    with ThreadPoolExecutor(100) as pool:
        burst = [pool.submit(login.check, "alice", f"guess {n}".encode(), "192.0.2.1") for n in range(100)]
        assert entered.wait(10)
        wait_until(lambda: sum(guess.done() for guess in burst) == 100 - GUESSES)
        hold.set()
    refused = [guess for guess in burst if isinstance(guess.exception(), TooManyAttempts)]
    assert len(refused) == 100 - GUESSES and login.verifications == GUESSES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("", "", True),
    ],
)
def test_one_network_is_one_guesser(login: Login, one: str, other: str, same: bool) -> None:
    """Every customer of IPv6 has more addresses than could be counted."""
    for guess in range(GUESSES):
        login.check("alice", f"guess {guess}".encode(), one)
    try:
        assert login.check("alice", b"wonderland", other) and not same
    except TooManyAttempts:
        assert same


def test_honest_logins_get_in_beside_a_guesser_at_their_address(
    users: Path, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty of them, each for the first time, while somebody guesses without a pause, a new name each time."""
    honest = {f"honest{number}": f"password {number}" for number in range(20)}
    write_users(users, honest, {})
    stop = threading.Event()

    def guess() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            login.check(f"name{number}", b"guess", "192.0.2.1", "7")
        return number

    real = bcrypt.checkpw

    def slow(*args: bytes) -> bool:
        time.sleep(0.01)
        return real(*args)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with ThreadPoolExecutor(21) as pool:
        guesser = pool.submit(guess)
        wait_until(lambda: login.verifications > 50)
        answers = [pool.submit(login.check, name, word.encode(), "192.0.2.1") for name, word in honest.items()]
        try:
            assert all(answer.result(10) for answer in answers)
        finally:
            stop.set()
    assert guesser.result() > 50


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


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.perf_counter() + 10
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.005)


def test_who_waits_too_long_is_told_to_come_back(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone who waits for the same verdict; and nothing is remembered of it, nor counted as a guess."""
    monkeypatch.setattr(login_module, "WAIT_SECONDS", 0.2)
    login = Login(users)
    entered, hold = held(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(login.check, "alice", b"wonderland")
        assert entered.wait(10)
        for _ in range(GUESSES):
            for late in [pool.submit(login.check, "bob", "pässwörd".encode()) for _ in range(2)]:
                with pytest.raises(TooManyAttempts):
                    late.result(5)
        hold.set()
        assert first.result(10)
    assert login.check("bob", "pässwörd".encode())


def test_nothing_is_verified_for_who_has_hung_up(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowd that went away costs who comes next nothing; where one of those who wait for a verdict is still there, it comes."""
    entered, hold = held(monkeypatch)
    gone = threading.Event()
    with ThreadPoolExecutor(50) as pool:
        first = pool.submit(login.check, "alice", b"wonderland")
        assert entered.wait(10)
        left = [pool.submit(login.check, f"name{n}", b"guess", "192.0.2.1", "7", gone.is_set) for n in range(39)]
        pair = [
            pool.submit(login.check, "bob", "pässwörd".encode(), "192.0.2.1", "7", ask) for ask in (gone.is_set, bool)
        ]
        wait_until(lambda: login.waiting == 42)
        gone.set()
        hold.set()
        assert first.result(10) and all(asked.result(10) for asked in pair)
        assert all(isinstance(asked.exception(10), TooManyAttempts) for asked in left)
    assert login.verifications == 2


def test_failures_are_forgotten_after_the_window(login: Login, clock: Callable[[float], None]) -> None:
    for guess in range(GUESSES):
        login.check("alice", f"guess {guess}".encode(), "192.0.2.1")
    clock(WINDOW_SECONDS - 5)
    with pytest.raises(TooManyAttempts):
        login.check("alice", b"wonderland", "192.0.2.1")
    clock(10)
    assert login.check("alice", b"wonderland", "192.0.2.1")


# What the log says


def test_a_failed_login_is_told(login: Login, caplog: pytest.LogCaptureFixture) -> None:
    """By the name, if there is such a user. What else was typed may be a password: it has a mark, the same each time."""
    for name in ("alice", "wonderland", "wonderland\nlogin of bob", "wonderland"):
        login.check(name, f"guess {len(caplog.messages)}".encode(), "192.0.2.1")
    assert caplog.messages[0] == "login of alice failed, from 192.0.2.1"
    assert all(
        re.fullmatch(r"login of somebody unknown \(\w{8}\) failed, from 192.0.2.1", m) for m in caplog.messages[1:]
    )
    assert caplog.messages[1] == caplog.messages[3] != caplog.messages[2]
    assert login.check("alice", b"wonderland") and len(caplog.messages) == 4


def test_the_log_is_not_filled(
    login: Login, compared: list[bytes], clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    for guess in range(MAX_LINES + 50):
        login.check(f"name{guess}", b"guess")
    assert len(caplog.messages) == MAX_LINES
    clock(WINDOW_SECONDS + 1)
    login.check("one more", b"guess")
    assert caplog.messages[MAX_LINES] == "50 more logins failed" and len(caplog.messages) == MAX_LINES + 2


# Files with mistakes in them

HASH = bcrypt.hashpw(b"wonderland", b"$2b$04$" + b"." * 22).decode()


@pytest.mark.parametrize(
    "line",
    [
        "mallory",
        "mallory:",
        f":{HASH}",
        f"mallory:{HASH[:-1]}",
        f"mallory:{HASH}:more",
        "mallory:wonderland",
        "mallory:{SHA}4zqgyE5vs6U8ANrjMHkqUu0dcIE=",
        f"mallory:{HASH.replace('$04$', '$31$')}",
        f"mallory publisher:{HASH}",
        f"m\xe4llory:{HASH}",
        f"{'m' * 65}:{HASH}",
        f"mallory:{HASH}\nmallory:{HASH}",
    ],
)
def test_a_malformed_line_is_named_and_the_others_count(
    users: Path, login: Login, caplog: pytest.LogCaptureFixture, line: str
) -> None:
    lines = (users / "htpasswd").read_text("utf-8").splitlines()
    (users / "htpasswd").write_bytes("\n".join([lines[0], line, "", "# a comment", lines[1]]).encode("latin-1"))
    assert login.check("alice", b"wonderland") and login.check("bob", "pässwörd".encode())
    [said] = caplog.messages
    assert "htpasswd: line 2 " in said or "htpasswd: mallory is there more than once" in said
    assert HASH not in said
    assert login.check(line.partition(":")[0], b"wonderland") is None


@pytest.mark.parametrize(
    "entry",
    [
        '{"role": "publisher", "projects": "acme-*"}',
        '{"role": "publisher", "projects": {"acme-*": true}}',
        '{"role": "publisher", "projects": [["acme-*"]]}',
        '{"role": "publisher", "projects": null}',
        '{"role": "publisher", "project": ["acme-*"]}',
        '{"role": "publisher", "projects": ["acme-*"], "projects": []}',
        '{"role": "Publisher"}',
        '{"role": ["publisher"]}',
        '{"role": "publisher", "name": "bob"}',
        '["publisher"]',
        '"publisher"',
        "null",
        '{"role": "reader"}, "alice": {"role": "publisher"}',
    ],
)
def test_a_malformed_entry_gives_nobody_more_rights(
    users: Path, login: Login, caplog: pytest.LogCaptureFixture, entry: str
) -> None:
    (users / "roles.json").write_text(f'{{"bob": {{"role": "publisher"}}, "alice": {entry}}}', "utf-8")
    account, other = login.check("alice", b"wonderland"), login.check("bob", "pässwörd".encode())
    assert (account, other) == (Account("alice"), Account("bob", "publisher"))
    assert account and account.role == "reader"
    assert caplog.messages == ["roles.json: the entry of 'alice' is malformed and makes a reader"]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "\xff"])
def test_roles_that_are_none_as_a_whole_are_an_error(users: Path, login: Login, text: str) -> None:
    (users / "roles.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):  # of any kind: whoever asks says 503
        login.check("alice", b"wonderland")


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

    b"".join(make_application(login)({"PATH_INFO": "/", **environ}, start_response))
    return seen["status"], seen["headers"]


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_the_application_answers_what_nginx_understands(users: Path, login: Login) -> None:
    status, headers = answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))
    assert (status, headers["X-Login-User"], headers["X-Login-Role"]) == ("204 No Content", "alice", "publisher")
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wrong"))[0] == "401 Unauthorized"
    assert answer(login)[0] == "401 Unauthorized"
    assert answer(login, PATH_INFO="/health")[0] == "200 OK"
    assert answer(login, PATH_INFO="/status")[0] == "200 OK"
    assert answer(login, PATH_INFO="/refusal", HTTP_X_REFUSAL="413 too large")[0] == "413 too large"
    (users / "htpasswd").unlink()
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))[0] == "503 Service Unavailable"
