"""Who there is and what they may: `htpasswd` and `roles.json`, as pypi_users writes them.

A line or an entry that is malformed is named in the log, the others count. Nobody has more rights by a mistake: who has a
malformed entry is a reader without tokens, and a malformed token counts for nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from math import inf
from pathlib import Path
from typing import Any

import bcrypt

import trust
from minted import Mint
from trust import Trust

log = logging.getLogger("login")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
"""What pypi_users accepts as a name."""
HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}", re.ASCII)
"""And as a hash: bcrypt, of a cost that one login cannot stop all the others with."""
ROLES = ("reader", "publisher")
TOKEN = re.compile(rb"ppi_[0-9A-Za-z]{49}")
"""What is no password. Being random, it needs neither a slow hash nor a limit for who guesses."""
TOKEN_USER = "__token__"
"""Who logs in with a token, if not its account. No account has that name."""
SCOPES = ("read", "publish")


class Refused(Exception):
    """Of a token: the reason, for whoever sent it."""

    def __init__(self, who: str, reason: str) -> None:
        super().__init__(reason)
        self.who = who
        """Whose it is, for the log."""


@dataclass(frozen=True)
class Account:
    """A user as the inventory describes them, or a token of theirs: `ci/laptop`."""

    name: str
    role: str = "reader"
    projects: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    """Patterns that must match as well: the token's own."""
    until: date | None = None
    """The last day (UTC)."""
    expires: float = inf
    """The same of a token that was minted, in seconds since the epoch."""

    @property
    def end(self) -> float:
        """In seconds since the epoch."""
        return (self.until.toordinal() + 1 - date(1970, 1, 1).toordinal()) * 86_400 if self.until else self.expires


@dataclass(frozen=True)
class Users:
    """One reading of the two files."""

    identity: tuple[tuple[int, int, int], ...] = ()
    hashes: dict[str, bytes] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: dict[str, Account] = field(default_factory=dict)
    """By their SHA-256."""
    trusts: dict[str, Trust] = field(default_factory=dict)
    """By the name of the account: whose runs get tokens of it."""
    mint: Mint | None = None
    read_at: tuple[float, float] = field(default_factory=lambda: (time.time(), time.monotonic()))

    @staticmethod
    def identify(directory: Path) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever either file was replaced or written. Raises FileNotFoundError."""
        stats = [os.stat(directory / name) for name in ("htpasswd", "roles.json")]
        return tuple((s.st_ino, s.st_mtime_ns, s.st_size) for s in stats)

    @classmethod
    def read(cls, directory: Path, mint: Mint | None = None) -> Users:
        """Raises OSError for a missing file and ValueError for a roles.json that is none as a whole."""
        identity = cls.identify(directory)
        hashes = _read_hashes((directory / "htpasswd").read_bytes())
        return cls(identity, hashes, *_read_accounts((directory / "roles.json").read_bytes()), mint)

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

    def admit(self, name: str, token: bytes) -> Account:
        """The account of a token. Raises Refused; OSError or ValueError for one that cannot be read."""
        digest = hashlib.sha256(token).hexdigest()
        account = self.tokens.get(digest) or self._minted(digest)
        if account is None:
            raise Refused(f"the unknown token sha256:{digest[:8]}...", "This token is unknown here, or was withdrawn.")
        if name not in (TOKEN_USER, account.name.partition("/")[0]):
            raise Refused(account.name, f"This token is of another account: log in as {TOKEN_USER}.")
        if self.left(account) <= 0:
            when = f"its last day was {account.until} (UTC)" if account.until else "it was for 15 minutes"
            raise Refused(account.name, f"The token {account.name} has expired: {when}.")
        return account

    def _minted(self, digest: str) -> Account | None:
        """Its rights are those that the account has by now."""
        minted = self.mint.find(digest) if self.mint else None
        if minted is None:
            return None
        name, trusted = f"{minted.account}/{minted.run}", self.trusts.get(minted.account)
        if trusted is None or trusted.digest != minted.trust:
            raise Refused(name, f"{minted.account} trusts no more what the token {name} was made for.")
        account = self.accounts[minted.account]
        return Account(name, account.role, account.projects, expires=minted.until)

    def left(self, account: Account) -> float:
        """Seconds until it ends. Who sets the clock back revives no token: time goes on from when the files were read."""
        wall, steady = self.read_at
        return account.end - max(time.time(), wall + time.monotonic() - steady)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """As a dictionary, with None for what is there more than once: nobody knows which one was meant."""
    counted = Counter(name for name, _ in pairs)
    return {name: value if counted[name] == 1 else None for name, value in pairs}


def _read_hashes(text: bytes) -> dict[str, bytes]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        name, _, value = line.decode("ascii", "replace").partition(":")
        if NAME.fullmatch(name) and HASH.fullmatch(value):
            pairs.append((name, value.encode()))
        elif line.strip() and not line.startswith(b"#"):
            log.error("htpasswd: line %d is no name:hash and counts for nothing", number)
    hashes = _once(pairs)
    for name in [name for name, value in hashes.items() if value is None]:
        log.error("htpasswd: %s is there more than once and counts for nothing", name)
        del hashes[name]
    return hashes


def _read_accounts(text: bytes) -> tuple[dict[str, Account], dict[str, Account], dict[str, Trust]]:
    """Accounts by name, their tokens by hash, and what they trust by name."""
    entries = json.loads(text, object_pairs_hook=_once)
    if not isinstance(entries, dict):
        raise ValueError("roles.json is no object")  # noqa: TRY004  # as for what is no JSON
    accounts: dict[str, Account] = {}
    tokens: list[tuple[str, Account]] = []
    trusts: dict[str, Trust] = {}
    for name, entry in entries.items():
        try:
            accounts[name], described, trusted = _account(name, **entry)
        except TypeError:  # from the arguments as well: another key, or no object
            log.error("roles.json: the entry of %.80r is malformed and makes a reader", name)
            continue
        try:
            trusts |= {name: _trust(accounts[name], trusted)} if trusted is not None else {}
        except (TypeError, ValueError, AttributeError):
            log.error("roles.json: what %.80r trusts is malformed and counts for nothing", name)
        for token, of_token in described.items():
            try:
                tokens.append(_token(accounts[name], token, **of_token))
            except (TypeError, ValueError):
                log.error("roles.json: the token %.80r of %.80r is malformed and counts for nothing", token, name)
    by_hash = _once(tokens)
    for digest, token_account in tokens:
        if by_hash.get(digest) is None:
            log.error("roles.json: the token of %s is another one as well and counts for nothing", token_account.name)
            by_hash.pop(digest, None)
    return accounts, by_hash, trusts


def _account(
    name: str, role: str = "reader", projects: Sequence[str] = (), tokens: object = None, trusted: object = None
) -> tuple[Account, dict[str, Any], object]:
    """And its tokens and what it trusts, as they are. Raises TypeError for what is no role, no list of patterns or no object of tokens."""
    if role not in ROLES or not isinstance(tokens or {}, dict):
        raise TypeError
    return Account(name, role, _patterns(projects)), dict(tokens or {}), trusted  # type: ignore[call-overload]


def _trust(account: Account, described: object) -> Trust:
    """Raises TypeError, ValueError or AttributeError for what is malformed."""
    if not NAME.fullmatch(account.name) or account.role == "publisher" and not account.projects:
        raise ValueError  # a pipeline that may publish everything is nobody's intention
    return trust.read(described)


def _token(
    account: Account,
    name: str,
    sha256: str,
    scope: str = "read",
    projects: Sequence[str] = (),
    until: str | None = None,
) -> tuple[str, Account]:
    """Its hash and what it may: nothing that its account may not. Raises TypeError or ValueError for what is malformed."""
    if not NAME.fullmatch(account.name) or not NAME.fullmatch(name) or scope not in SCOPES:
        raise ValueError
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError
    role = account.role if scope == "publish" else "reader"
    last = None if until is None else date.fromisoformat(until)
    return sha256, Account(f"{account.name}/{name}", role, account.projects, _patterns(projects), last)


def _patterns(projects: object) -> tuple[str, ...]:
    """Raises TypeError for what is no list of text."""
    if not isinstance(projects, (list, tuple)) or not all(isinstance(pattern, str) for pattern in projects):
        raise TypeError
    return tuple(projects)
