"""The login service: right is right, wrong costs the same for everyone, and one credential is verified once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
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
    Refused,
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


def token(number: int = 0) -> str:
    return f"ppi_{number:049}"


def described(number: int = 0, **more: Any) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(token(number).encode()).hexdigest(), **more}


def write_tokens(users: Path, tokens: Any, role: str = "publisher") -> None:
    """Alice's, who has a password as well; the robot has none."""
    roles = {"alice": {"role": role, "projects": ["acme-*"], "tokens": tokens}, "bob": {"role": "publisher"}}
    write_users(users, PASSWORDS, {**roles, "robot": {"role": "reader", "tokens": {"nightly": described(9)}}})


def admitted(login: Login, number: int = 0, name: str = "__token__") -> Account | None:
    return login.check(name, token(number).encode())


def refusal(login: Login, number: int = 0, name: str = "__token__") -> str:
    with pytest.raises(Refused) as refused:
        admitted(login, number, name)
    return str(refused.value)


@pytest.mark.parametrize("name", ["__token__", "alice"])
def test_a_token_logs_in_as_itself_or_as_its_account(users: Path, login: Login, name: str) -> None:
    write_tokens(users, {"ci": described(scope="publish", projects=["*-lib"]), "read": described(1)})
    assert admitted(login, 0, name) == Account("alice/ci", "publisher", ("acme-*",), ("*-lib",))
    assert admitted(login, 1, name) == Account("alice/read", "reader", ("acme-*",))
    assert admitted(login, 9) == Account("robot/nightly", "reader")
    assert login.check("alice", b"wonderland") == Account("alice", "publisher", ("acme-*",))


@pytest.mark.parametrize(
    "name", ["bob", "robot", "Alice", "", "alice ", "alice/ci", "__TOKEN__", "__token__ ", "__tök__"]
)
def test_a_token_is_nobody_else_s(users: Path, login: Login, name: str) -> None:
    write_tokens(users, {"ci": described()})
    assert refusal(login, 0, name) == "This token is of another account: log in as __token__."


@pytest.mark.parametrize("name", ["__token__", "alice"])
@pytest.mark.parametrize(
    "secret",
    ["", " ", "ppi_", token()[:-1], f"{token()}0", f" {token()}", f"{token()}\n", token().upper(), "ppi_" + "ä" * 49],
)
def test_what_is_no_whole_token_is_a_wrong_password(
    users: Path, login: Login, compared: list[bytes], name: str, secret: str
) -> None:
    write_tokens(users, {"ci": described()})
    assert login.check(name, secret.encode()) is None
    assert len(compared) == 1


def test_the_hash_of_a_token_is_no_token(users: Path, login: Login) -> None:
    write_tokens(users, {"ci": described()})
    assert login.check("alice", described()["sha256"].encode()) is None


def test_a_token_of_a_reader_only_reads_whatever_its_scope(users: Path, login: Login) -> None:
    write_tokens(users, {"ci": described(scope="publish")}, role="reader")
    account = admitted(login)
    assert account and account.role == "reader"


def test_a_withdrawn_token_is_refused_at_once_and_named_by_its_hash(
    users: Path, login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    write_tokens(users, {"ci": described()})
    assert admitted(login)
    write_tokens(users, {})
    assert refusal(login) == "This token is unknown here, or was withdrawn."
    assert described()["sha256"][:8] in caplog.text
    assert token() not in caplog.text


def test_a_token_lasts_to_the_end_of_its_last_day(
    users: Path, login: Login, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_tokens(users, {"ci": described(until="2027-01-31"), "for ever": described(1, until="9999-12-31")})
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: midnight - 60)
    account = admitted(login)
    assert account and 50 < login.remember(account) <= 60
    monkeypatch.setattr(time, "time", lambda: midnight)
    assert refusal(login) == "The token alice/ci has expired: its last day was 2027-01-31 (UTC)."
    assert "login of alice/ci failed, from ?: The token alice/ci has expired" in caplog.text


def test_a_clock_that_is_set_back_revives_no_token(
    users: Path, login: Login, monkeypatch: pytest.MonkeyPatch, clock: Callable[[float], None]
) -> None:
    write_tokens(users, {"ci": described(until="2027-01-31")})
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: midnight - 60)
    assert admitted(login)
    clock(90)
    monkeypatch.setattr(time, "time", lambda: midnight - 86_400)
    assert "expired" in refusal(login)


def test_a_thousand_tokens_cost_a_login_no_more_than_one(users: Path, login: Login, compared: list[bytes]) -> None:
    """No hash is compared, and none of the others is looked at."""
    write_tokens(users, {f"t{number}": described(number, scope="publish") for number in range(1000)})
    assert admitted(login)

    class Counted(dict[str, Account]):
        looks = 0

        def get(self, key: str, default: Any = None) -> Any:
            self.looks += 1
            return super().get(key, default)

        def __iter__(self) -> Any:
            raise AssertionError("looks at all")

        items = values = keys = __iter__

    login._users = replace(login._users, tokens=Counted(login._users.tokens))
    assert admitted(login, 999)
    assert isinstance(login._users.tokens, Counted) and login._users.tokens.looks == 1
    assert (login.verifications, compared) == (0, [])


def test_wrong_tokens_lock_nobody_out(users: Path, login: Login) -> None:
    write_tokens(users, {"ci": described()})
    for number in range(1, GUESSES + 5):
        refusal(login, number, "alice")
    assert login.check("alice", b"wonderland") and admitted(login, 0, "alice")


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "text",
        [],
        {},
        {"scope": "read"},
        described(scope="all"),
        described(scope=["publish"]),
        described(projects="acme-*"),
        described(projects=None),
        described(projects=[1]),
        described(until="soon"),
        described(until=20270131),
        described(until=""),
        described(expires="2027-01-31"),
        described(account="bob"),
        described(role="publisher"),
        {"sha256": None},
        {"sha256": described()["sha256"].upper()},
        {"sha256": described()["sha256"][:-1]},
        {"sha256": [described()["sha256"]]},
    ],
)
def test_a_malformed_token_counts_for_nothing_and_the_others_count(
    users: Path, login: Login, caplog: pytest.LogCaptureFixture, bad: Any
) -> None:
    write_tokens(users, {"bad": bad, "good": described(1)})
    assert admitted(login, 1) and admitted(login, 9) and login.check("alice", b"wonderland")
    assert caplog.messages == ["roles.json: the token 'bad' of 'alice' is malformed and counts for nothing"]
    assert refusal(login)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\nb", "tök", "x" * 65])
def test_a_token_of_a_name_that_no_header_can_have_counts_for_nothing(users: Path, login: Login, name: str) -> None:
    write_tokens(users, {name: described()})
    assert refusal(login)


@pytest.mark.parametrize("tokens", [["ci"], "ci", 7, True])
def test_tokens_that_are_none_as_a_whole_make_a_reader_without_tokens(users: Path, login: Login, tokens: Any) -> None:
    write_tokens(users, tokens)
    assert login.check("alice", b"wonderland") == Account("alice")
    assert admitted(login, 9)


def test_a_token_of_two_accounts_is_nobody_s(users: Path, login: Login, caplog: pytest.LogCaptureFixture) -> None:
    write_tokens(users, {"ci": described(9), "other": described(1)})
    assert refusal(login, 9) and admitted(login, 1)
    assert "token of alice/ci" in caplog.text and "token of robot/nightly" in caplog.text


def test_nginx_hears_whose_token_it_is_how_long_it_lasts_and_why_not(
    users: Path, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tokens(users, {"ci": described(until="2027-01-31")})
    midnight = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    monkeypatch.setattr(time, "time", lambda: midnight - 60)
    header = basic("__token__", token())
    status, headers = answer(login, HTTP_AUTHORIZATION=header)
    assert (status, headers["X-Login-User"], headers["X-Login-Role"]) == ("204 No Content", "alice/ci", "reader")
    assert 50_000 < int(headers["X-Login-Remember"]) <= 60_000
    monkeypatch.setattr(time, "time", lambda: midnight)
    status, headers = answer(login, HTTP_AUTHORIZATION=header)
    assert (status, headers["X-Login-Refusal"][:29]) == ("401 Unauthorized", "The token alice/ci has expire")


def test_the_application_answers_what_nginx_understands(users: Path, login: Login) -> None:
    status, headers = answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))
    assert (status, headers["X-Login-User"], headers["X-Login-Role"]) == ("204 No Content", "alice", "publisher")
    assert headers["X-Login-Remember"] == f"{REMEMBER_SECONDS * 1000:.0f}"
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wrong"))[0] == "401 Unauthorized"
    assert answer(login)[0] == "401 Unauthorized"
    assert answer(login, PATH_INFO="/health")[0] == "200 OK"
    assert answer(login, PATH_INFO="/status")[0] == "200 OK"
    assert answer(login, PATH_INFO="/refusal", HTTP_X_REFUSAL="413 too large")[0] == "413 too large"
    (users / "htpasswd").unlink()
    assert answer(login, HTTP_AUTHORIZATION=basic("alice", "wonderland"))[0] == "503 Service Unavailable"
