"""Tokens that were minted: files by their hash, in a directory that the login writes and pypiserver reads.

They outlive a restart, and there is no key that could make more of them. Each has its account, and by a digest what that account
trusted then: its rights are looked up when it is used, and gone when the account trusts something else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import string
import threading
import time
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

LIFETIME = 900
"""Seconds, as on PyPI."""
MOST = 20_000
"""Files that are kept, of tokens and of what was used: not even who is trusted fills the disk."""
_SWEEP_SECONDS = 60.0
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class Minted:
    """What is known of a token."""

    account: str
    run: str
    """Of the pipeline: `github:4711`."""
    trust: str
    """The digest of what was trusted."""
    until: int
    """In seconds since the epoch."""


class Mint:
    """The directory. Two may have the same one: what is used once is decided by the file system."""

    def __init__(self, directory: Path) -> None:
        self._tokens, self._spent = directory / "tokens", directory / "spent"
        self._lock = threading.Lock()
        self._swept, self._kept = 0.0, 0

    def find(self, digest: str) -> Minted | None:
        """By the SHA-256 of a token. Raises OSError or ValueError for one that cannot be read."""
        try:
            return Minted(**json.loads((self._tokens / digest).read_bytes()))
        except FileNotFoundError:
            return None
        except TypeError:
            raise ValueError(f"{digest} is no minted token") from None

    def issue(self, minted: Minted) -> str:
        """A new token, readable from now on. Raises OSError."""
        token = _make_token()
        digest = hashlib.sha256(token.encode()).hexdigest()
        unfinished = self._tokens / f".{digest}"
        with suppress(FileExistsError):
            self._tokens.mkdir(mode=0o700)
        unfinished.write_text(json.dumps(asdict(minted)), "utf-8")
        os.utime(unfinished, (minted.until, minted.until))
        unfinished.rename(self._tokens / digest)
        return token

    def spend(self, issuer: str, jti: str, until: float) -> bool:
        """Whether this identity token is used for the first time. On disk when it returns, with its end. Raises OSError."""
        self._make_room()
        with suppress(FileExistsError):
            self._spent.mkdir(mode=0o700)
        path = self._spent / hashlib.sha256(json.dumps([issuer, jti]).encode()).hexdigest()
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        directory = os.open(self._spent, os.O_RDONLY)
        try:
            os.utime(file, (until, until))
            os.fsync(file)
            os.fsync(directory)
        finally:
            os.close(file)
            os.close(directory)
        return True

    def _make_room(self) -> None:
        """For a token and what it is given for. Raises OSError."""
        with self._lock:
            self._sweep()
            if self._kept >= MOST:
                raise OSError(f"{MOST} tokens and identity tokens are kept already")
            self._kept += 2

    def _sweep(self) -> None:
        """Removes what is over. Its time of change says when that is."""
        if time.monotonic() - self._swept < _SWEEP_SECONDS and self._swept:
            return
        self._swept, self._kept = time.monotonic(), 0
        for directory in (self._tokens, self._spent):
            with suppress(FileNotFoundError), os.scandir(directory) as entries:
                for entry in entries:
                    self._kept += 1
                    if entry.stat().st_mtime < time.time() - _SWEEP_SECONDS:
                        Path(entry.path).unlink(missing_ok=True)
                        self._kept -= 1


def _make_token() -> str:
    """As playbooks/token.yml makes them: 256 random bits and a CRC-32, both in base 62."""

    def base62(number: int, length: int) -> str:
        digits = ""
        for _ in range(length):
            number, digit = divmod(number, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        return digits

    text = base62(int.from_bytes(secrets.token_bytes(32), "big"), 43)
    return f"ppi_{text}{base62(zlib.crc32(text.encode()), 6)}"
