"""Who there is and what they may: `htpasswd` and `roles.json`, as pypi_users writes them.

A line or an entry that is malformed is named in the log, the others count. Nobody has more rights by a mistake: who has a
malformed entry is a reader.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

log = logging.getLogger("login")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
"""What pypi_users accepts as a name."""
HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}", re.ASCII)
"""And as a hash: bcrypt, of a cost that one login cannot stop all the others with."""
ROLES = ("reader", "publisher")


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
        """Raises OSError for a missing file and ValueError for a roles.json that is none as a whole."""
        identity = cls.identify(directory)
        hashes = _read_hashes((directory / "htpasswd").read_bytes())
        return cls(identity, hashes, _read_accounts((directory / "roles.json").read_bytes()))

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


def _read_accounts(text: bytes) -> dict[str, Account]:
    entries = json.loads(text, object_pairs_hook=_once)
    if not isinstance(entries, dict):
        raise ValueError("roles.json is no object")  # noqa: TRY004  # as for what is no JSON
    accounts = {}
    for name, entry in entries.items():
        try:
            accounts[name] = _account(name, **entry)
        except TypeError:  # from the arguments as well: another key, or no object
            log.error("roles.json: the entry of %.80r is malformed and makes a reader", name)
    return accounts


def _account(name: str, role: str = "reader", projects: Sequence[str] = ()) -> Account:
    """Raises TypeError for what is no role and no list of patterns."""
    if role not in ROLES or not isinstance(projects, (list, tuple)) or not all(isinstance(p, str) for p in projects):
        raise TypeError
    return Account(name, role, tuple(projects))
