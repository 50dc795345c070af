"""Who may come in: verifies HTTP Basic credentials (RFC 7617) against the users' files.

Two callers share it. nginx asks `application` (WSGI, in its own container) about every credential that it has not seen
lately; pypiserver asks `Login.check` about every upload. It runs in the stock pypiserver image: standard library and bcrypt.

bcrypt is slow on purpose. So one verification runs at a time, in fair turns, and one credential is verified once however many
requests wait for it. Nothing derived from a password is kept but an HMAC under a key that dies with the process.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import minting
from minted import Mint
from turns import TooManyAttempts, Turns
from users import TOKEN, Account, Refused, Users

__all__ = ["Account", "Login", "Mint", "Pending", "Refused", "TooManyAttempts", "make_application", "parse_basic"]

log = logging.getLogger("login")

REMEMBER_SECONDS = 300.0
"""How long a verdict is reused. A change of the files ends it at once."""
MAX_WRONG = 10_000
"""Wrong credentials that are remembered. Right ones are as many as there are users."""
WINDOW_SECONDS = 60.0
"""How long a guess counts."""
GUESSES = 10
"""Verifications within the window for one name from one source. Those under way count, right ones do not."""
MAX_WAITING = 40
"""Verifications that may wait."""
MAX_FOLLOWERS = 8
"""Requests to the service that may wait for another one's verification. With those above fewer than its threads: /health finds one."""
WAIT_SECONDS = 10.0
"""How long a verification waits for its turn: on a slow machine a crowd is told to come back, before nginx gives up (proxy_read_timeout)."""
MAX_LINES = 300
"""Failed logins that the log tells of within the window; of the others it has the number."""

Gone = Callable[[], bool]
"""Whether the client that asks has hung up."""


class Pending(TooManyAttempts):
    """The same credential is being verified, and enough wait for it: ask again in a moment."""


@dataclass(eq=False)
class _Verification:
    """One under way, and who waits for it."""

    users: Users
    name: str
    password: bytes
    address: str
    connection: str
    verdict: Future[Account | None] = field(default_factory=Future)
    waiting: list[Gone] = field(default_factory=list)

    def abandoned(self) -> bool:
        return all(gone() for gone in self.waiting)


class _Verdicts:
    """What is known of credentials. Right and wrong apart: no number of guesses makes it forget who is right."""

    def __init__(self) -> None:
        self._right: dict[bytes, tuple[float, Account]] = {}
        self._wrong: OrderedDict[bytes, float] = OrderedDict()

    def keep(self, key: bytes, account: Account | None) -> None:
        if account:
            self._right[key] = time.monotonic(), account
            return
        self._wrong[key] = time.monotonic()
        if len(self._wrong) > MAX_WRONG:
            self._wrong.popitem(last=False)

    def find(self, key: bytes) -> tuple[bool, Account | None]:
        """Whether there is a verdict, and which."""
        born, account = self._right.get(key) or (self._wrong.get(key), None)
        return born is not None and time.monotonic() - born < REMEMBER_SECONDS, account


class _Guesses:
    """How often which name was tried from where. Whoever asks pays in advance, and gets it back for a right password."""

    def __init__(self) -> None:
        self._times: dict[bytes, list[float]] = {}
        self._swept = time.monotonic()

    def pay(self, who: bytes) -> float:
        """The moment, for `give_back`. Raises TooManyAttempts."""
        now = time.monotonic()
        if now - self._swept > WINDOW_SECONDS:
            self._swept = now
            self._times = {
                other: times for other, times in self._times.items() if times and now - times[-1] < WINDOW_SECONDS
            }
        lately = [moment for moment in self._times.get(who, ()) if now - moment < WINDOW_SECONDS]
        if len(lately) >= GUESSES:
            raise TooManyAttempts
        self._times[who] = [*lately, now]
        return now

    def give_back(self, who: bytes, moment: float) -> None:
        with suppress(KeyError, ValueError):  # over since
            self._times[who].remove(moment)


class _Diary:
    """Tells the log who was refused, never with what. A name that nobody has may be a password in the wrong field."""

    def __init__(self) -> None:
        self._begun, self._lines = time.monotonic(), 0

    def note(self, who: str, address: str, reason: str = "") -> None:
        if time.monotonic() - self._begun > WINDOW_SECONDS:
            if self._lines > MAX_LINES:
                log.warning("%d more logins failed", self._lines - MAX_LINES)
            self._begun, self._lines = time.monotonic(), 0
        self._lines += 1
        if self._lines <= MAX_LINES:
            log.warning("login of %s failed, from %.45s%s", who, address or "?", reason)


class Login:
    """Remembers verdicts, verifies each credential once, and slows down who guesses. Safe for threads."""

    def __init__(self, directory: Path, max_followers: float = inf, mint: Mint | None = None) -> None:
        self.verifications = 0
        self._directory, self._max_followers, self._mint = directory, max_followers, mint
        self._users = Users()
        self._key = secrets.token_bytes(32)
        self._verdicts = _Verdicts()
        self._under_way: dict[bytes, _Verification] = {}
        self._guesses = _Guesses()
        self._turns = Turns(MAX_WAITING, WAIT_SECONDS)
        self._diary = _Diary()
        self._lock = threading.Lock()

    def check(
        self, name: str, password: bytes, address: str = "", connection: str = "", gone: Gone = lambda: False
    ) -> Account | None:
        """The account, or None for a wrong name or password. Verifications take turns by address and connection.

        Raises TooManyAttempts, for a token Refused; OSError or ValueError when the files cannot be read.
        """
        address = _network(address)
        with self._lock:
            self._read_users()
            if TOKEN.fullmatch(password):
                return self._admit(name, password, address)
            key = self._digest(self._users.identity, name, password)
            known, account = self._verdicts.find(key)
            if known:
                return account
            verification, paid = self._under_way.get(key), None
            if verification is None:
                paid = self._guesses.pay(self._digest(address, name))
                verification = self._under_way[key] = _Verification(self._users, name, password, address, connection)
            elif sum(len(other.waiting) - 1 for other in self._under_way.values()) >= self._max_followers:
                raise Pending
            verification.waiting.append(gone)
        if paid is not None:
            self._verify(verification, key, paid)
        return verification.verdict.result()

    def users(self) -> Users:
        """As they are now. Raises OSError or ValueError."""
        with self._lock:
            self._read_users()
            return self._users

    def note(self, who: str, address: str, reason: str) -> None:
        """Tells the log who was refused elsewhere."""
        with self._lock:
            self._diary.note(who, address, f": {reason}")

    @property
    def waiting(self) -> int:
        """Requests that wait for a verdict."""
        with self._lock:
            return sum(len(verification.waiting) for verification in self._under_way.values())

    def remember(self, account: Account) -> float:
        """Seconds that a verdict may be reused."""
        return min(REMEMBER_SECONDS, max(0.001, self._users.left(account)))

    def _admit(self, name: str, token: bytes, address: str) -> Account:
        try:
            return self._users.admit(name, token)
        except Refused as refused:
            self._diary.note(refused.who, address, f": {refused}")
            raise

    def _read_users(self) -> None:
        if Users.identify(self._directory) != self._users.identity:
            self._users = Users.read(self._directory, self._mint)
            self._verdicts = _Verdicts()

    def _verify(self, asked: _Verification, key: bytes, paid: float) -> None:
        account, failure = None, None
        try:
            with self._turns.turn(asked.address, asked.connection, asked.abandoned):
                self.verifications += 1
                account = asked.users.verify(asked.name, asked.password)
        except Exception as error:  # noqa: BLE001  # whoever waits for the verdict gets it
            failure = error
        with self._lock:
            del self._under_way[key]
            if account or failure:
                self._guesses.give_back(self._digest(asked.address, asked.name), paid)
            if not failure:
                self._verdicts.keep(key, account)
            if not failure and not account:
                known = asked.name in asked.users.hashes
                who = asked.name if known else f"somebody unknown ({self._digest(asked.name)[:4].hex()})"
                self._diary.note(who, asked.address)
        if failure:
            asked.verdict.set_exception(failure)
        else:
            asked.verdict.set_result(account)

    def _digest(self, *about: object) -> bytes:
        return hmac.digest(self._key, repr(about).encode("utf-8", "surrogatepass"), "sha256")


def _network(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the IPv6 network that one customer has (RFC 6177)."""
    with suppress(ValueError):
        ip = ipaddress.ip_address(address)
        if isinstance(ip, ipaddress.IPv6Address):
            return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return address


def parse_basic(authorization: str) -> tuple[str, bytes] | None:
    """Name and password of an Authorization header (RFC 7617, UTF-8), or None for anything malformed."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        return (name.decode("utf-8"), password) if colon else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


def _hung_up(connection: socket.socket | None) -> bool:
    """Whether nginx has closed it: its client did not wait for the answer."""
    if connection is None:
        return False
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def make_application(login: Login, mints: minting.Minting | None = None) -> Any:
    """WSGI: 204 with `X-Login-User`, `X-Login-Role` and `X-Login-Remember` (milliseconds), 401, 425 (ask again), 429 or 503.
    A token is refused by a 401 with the reason as `X-Login-Refusal`.

    `/health` and `/status` are open, `/refusal` answers what the header `X-Refusal` says ("405 Uploads go …"): nginx can give no
    reason in a status line, and that is all that twine shows.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def answer(status: str, body: str = "", *headers: tuple[str, str]) -> Iterable[bytes]:
            start_response(status, [("Content-Length", str(len(body))), *headers])
            return [body.encode("latin-1")]

        path = environ["PATH_INFO"]
        if path == "/health":
            return answer("200 OK", "ok\n")
        if path == "/status":
            return answer("200 OK", json.dumps({"verifications": login.verifications, "waiting": login.waiting}))
        if path == "/refusal":
            refusal = environ["HTTP_X_REFUSAL"]
            return answer(refusal, f"{refusal[4:]}\n", ("Content-Type", "text/plain; charset=utf-8"))
        if mints and path.startswith("/_/oidc/"):
            note = partial(login.note, "a pipeline", environ.get("HTTP_X_REAL_IP", ""))
            return minting.respond(mints, environ, note, start_response)
        header = environ.get("HTTP_AUTHORIZATION", "")
        # No name has a colon in it: what is malformed is nobody's, and costs as much as a wrong password.
        credential = parse_basic(header) or (f":{header}", b"")
        client = environ.get("HTTP_X_REAL_IP", ""), environ.get("HTTP_X_CONNECTION", "")
        try:
            account = login.check(*credential, *client, partial(_hung_up, environ.get("gunicorn.socket")))
        except Pending:
            return answer("425 Too Early")
        except TooManyAttempts:
            return answer("429 Too Many Requests")
        except Refused as refused:
            return answer("401 Unauthorized", "", ("X-Login-Refusal", str(refused)))
        except (OSError, ValueError) as error:
            log.error("cannot read the users: %s", error)
            return answer("503 Service Unavailable")
        if account is None:
            return answer("401 Unauthorized")
        about = {"User": account.name, "Role": account.role, "Remember": f"{login.remember(account) * 1000:.0f}"}
        return answer("204 No Content", "", *((f"X-Login-{key}", value) for key, value in about.items()))

    return application


def _from_environment() -> Any:
    """As the container runs it. AUDIENCE is there if some account trusts a pipeline, and then what `minting` needs, too."""
    mint = Mint(Path(os.environ["MINTED_DIRECTORY"])) if "AUDIENCE" in os.environ else None
    login = Login(Path(os.environ.get("USERS_DIRECTORY", "/users")), MAX_FOLLOWERS, mint)
    return make_application(login, minting.from_environment(login.users, mint) if mint else None)


application = _from_environment()
