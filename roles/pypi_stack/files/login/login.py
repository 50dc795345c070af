"""Who may come in: verifies HTTP Basic credentials (RFC 7617) against `htpasswd` and `roles.json`.

Two callers share it. nginx asks `application` (WSGI, in its own container) about every credential that it has not seen
lately; pypiserver asks `Login.check` about every upload. It runs in the stock pypiserver image: standard library and bcrypt.

bcrypt is slow on purpose. So one verification runs at a time, and one credential is verified once however many requests
wait for it. Nothing derived from a password is kept but an HMAC under a key that dies with the process.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

REMEMBER_SECONDS = 300.0
"""How long a verdict is reused. A change of the files ends it at once."""
WINDOW_SECONDS = 60.0
"""How long wrong passwords are counted."""
FAILURES_PER_NAME = 10
"""Wrong passwords from one address for one name before no hash is computed for that pair."""
FAILURES_PER_ADDRESS = 30
"""Wrong passwords from one address before only one of its verifications may wait. It is not shut out: offices share addresses."""
MAX_WAITING = 48
"""Verifications that may wait. Fewer than the server has threads, so that the health check always finds one."""
WAIT_SECONDS = 10.0
"""How long a verification waits for its turn: on a slow machine a crowd is told to come back, before nginx gives up (js_fetch_timeout)."""
MAX_REMEMBERED = 10_000
"""Entries of the table of verdicts."""


class TooManyAttempts(Exception):
    """Nothing was verified: too many wrong passwords lately, or too many verifications waiting, or for too long."""


@dataclass(frozen=True)
class Account:
    """A user, as the inventory describes them."""

    name: str
    role: str = "reader"
    projects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Users:
    """One reading of the two files."""

    identity: tuple[tuple[int, int, int], ...] = ()
    hashes: dict[str, bytes] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)

    @staticmethod
    def identify(directory: Path) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever either file was replaced or written. Raises FileNotFoundError."""
        stats = [os.stat(directory / name) for name in ("htpasswd", "roles.json")]
        return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in stats)

    @classmethod
    def read(cls, directory: Path) -> Users:
        """Raises OSError for a missing file and ValueError for a malformed one."""
        identity = cls.identify(directory)
        lines = (directory / "htpasswd").read_text("utf-8").splitlines()
        pairs = (line.split(":", 1) for line in lines if line and not line.startswith("#"))
        roles = json.loads((directory / "roles.json").read_text("utf-8"))
        accounts = {n: Account(n, r.get("role", "reader"), tuple(r.get("projects", ()))) for n, r in roles.items()}
        return cls(identity, {name: value.encode() for name, value in pairs}, accounts)

    def verify(self, name: str, password: bytes) -> Account | None:
        """The account, if the password is right.

        A wrong answer takes the time of some user's hash, whatever was wrong. Hashes may differ in cost; which one stands in for a
        name that does not exist depends on the name, so that asking for it again and again tells nothing either.
        """
        if not self.hashes:
            return None
        known = self.hashes.get(name)
        stand_in = max(self.hashes.values(), key=lambda other: hmac.digest(other, name.encode(), "sha256"))
        readable = len(password) <= 72 and b"\0" not in password  # bcrypt would look at what is before only
        right = bcrypt.checkpw(password if readable else b"", known or stand_in)
        return self.accounts.get(name, Account(name)) if right and readable and known else None


class Login:
    """Remembers verdicts, verifies each credential once, and slows down who guesses. Safe for threads."""

    def __init__(self, directory: Path) -> None:
        self.verifications = 0
        self._directory = directory
        self._users = Users()
        self._key = secrets.token_bytes(32)
        self._verdicts: OrderedDict[bytes, tuple[float, Account | None]] = OrderedDict()
        self._pending: dict[bytes, Future[Account | None]] = {}
        self._failures: Counter[tuple[str, ...]] = Counter()
        self._waiting: Counter[str] = Counter()
        self._window = time.monotonic()
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()

    def check(self, name: str, password: bytes, address: str = "") -> Account | None:
        """The account, or None for a wrong name or password.

        Raises TooManyAttempts; OSError or ValueError when the files cannot be read.
        """
        with self._lock:
            users = self._fresh_users()
            message = b"\0".join([repr(users.identity).encode(), name.encode(), password])
            key = hmac.digest(self._key, message, "sha256")
            born, verdict = self._verdicts.get(key, (0.0, None))
            if born and time.monotonic() - born < REMEMBER_SECONDS:
                return verdict
            pending = self._pending.get(key)
            if pending is None:
                self._admit(name, address)
                pending = mine = self._pending[key] = Future()
            else:
                mine = None
        if mine is not None:
            self._resolve(mine, key, users, name, password, address)
        return pending.result()

    def _fresh_users(self) -> Users:
        if Users.identify(self._directory) != self._users.identity:
            self._users = Users.read(self._directory)
            self._verdicts.clear()
        return self._users

    def _admit(self, name: str, address: str) -> None:
        if time.monotonic() - self._window > WINDOW_SECONDS:
            self._window = time.monotonic()
            self._failures.clear()
        suspect = self._failures[(address,)] >= FAILURES_PER_ADDRESS
        if (
            self._failures[(address, name)] >= FAILURES_PER_NAME
            or self._waiting.total() >= MAX_WAITING
            or (suspect and self._waiting[address] > 0)
        ):
            raise TooManyAttempts
        self._waiting[address] += 1

    def _resolve(
        self, mine: Future[Account | None], key: bytes, users: Users, name: str, password: bytes, address: str
    ) -> None:
        try:
            if not self._one_at_a_time.acquire(timeout=WAIT_SECONDS):
                raise TooManyAttempts
            try:
                self.verifications += 1
                verdict = users.verify(name, password)
            finally:
                self._one_at_a_time.release()
        except Exception as error:  # noqa: BLE001  # whoever waits for the verdict gets it
            mine.set_exception(error)
        else:
            with self._lock:
                self._verdicts[key] = (time.monotonic(), verdict)
                while len(self._verdicts) > MAX_REMEMBERED:
                    self._verdicts.popitem(last=False)
                if verdict is None:
                    self._failures.update([(address,), (address, name)])
            mine.set_result(verdict)
        finally:
            with self._lock:
                del self._pending[key]
                self._waiting -= Counter({address: 1})


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


def make_application(login: Login) -> Any:
    """WSGI: 204 with `X-Login-User` and `X-Login-Role`, 401, 429 or 503; `/health` and `/status` are open."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def answer(status: str, body: bytes = b"", *headers: tuple[str, str]) -> Iterable[bytes]:
            start_response(status, [("Content-Length", str(len(body))), *headers])
            return [body]

        path = environ["PATH_INFO"]
        if path == "/health":
            return answer("200 OK", b"ok\n")
        if path == "/status":
            return answer("200 OK", json.dumps({"verifications": login.verifications}).encode())
        header = environ.get("HTTP_AUTHORIZATION", "")
        # No name has a colon in it: what is malformed is nobody's, and costs as much as a wrong password.
        credential = parse_basic(header) or (f":{header}", b"")
        try:
            account = login.check(*credential, environ.get("HTTP_X_REAL_IP", ""))
        except TooManyAttempts:
            return answer("429 Too Many Requests")
        except (OSError, ValueError) as error:
            print(f"login: cannot read the users: {error}", file=environ["wsgi.errors"], flush=True)
            return answer("503 Service Unavailable")
        if account is None:
            return answer("401 Unauthorized")
        return answer("204 No Content", b"", ("X-Login-User", account.name), ("X-Login-Role", account.role))

    return application


application = make_application(Login(Path(os.environ.get("USERS_DIRECTORY", "/users"))))
