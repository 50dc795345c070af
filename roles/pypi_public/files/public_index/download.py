"""One file from upstream to any number of readers: one thread writes it down, and the readers follow what it has written.

A reader that leaves disturbs nobody. The last byte of a file is held back until its digest was checked, so nobody ever has a whole
file with a wrong byte in it; when something is wrong, the readers are broken off and nothing is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .cache import Cache
from .errors import Failed, Late, Refusal
from .transport import Transport

SLOWEST, START = 50_000, 60.0
"""Bytes a second; what has come may have taken the time of this, and so many seconds. A size that is only said buys no time."""
TELL, NOTICE = 0.02, 0.1
"""Seconds between two calls to the readers, and after which a reader looks by itself: a hundred are not woken for each packet."""
PIECE = 1 << 18
"""Bytes that a reader takes at once."""
LONGEST = 86_400
"""Seconds for any file."""
UNKNOWN = 3_600
"""Seconds for a file whose size nobody says."""

log = logging.getLogger(__name__)


class Download:
    def __init__(self, transport: Transport, cache: Cache, url: str, sha256: str, size: int | None, limit: int) -> None:
        """`size`: bytes, as the listing says; `limit`: as many at most if it says nothing."""
        self._transport, self._cache = transport, cache
        self._url, self._sha256, self._limit = url, sha256, limit
        self.size = size
        self._file: BinaryIO | None = None
        self._written = 0
        self._begun = self._whole = False
        self._error: Refusal | None = None
        self._changed = threading.Condition()

    def start(self, keep: Callable[[Path], None], ended: Callable[[], None]) -> None:
        """Run in a thread. Nobody waits for one that cannot be started."""
        try:
            threading.Thread(target=self.run, daemon=True, args=(keep, ended)).start()
        except RuntimeError as error:
            self._fail(Failed(f"a file of {self._transport.upstream.name} cannot be fetched: {error}"))
            ended()
            raise

    def run(self, keep: Callable[[Path], None], ended: Callable[[], None]) -> None:
        """Fetch it. `keep` gives the whole and synced file a name, `ended` is called last, whatever happens."""
        try:
            self._cache.make_room(self.size or 0)
            with self._cache.temporary() as (path, file):
                self._fetch(path, file)
                os.fsync(file.fileno())
                keep(path)
        except Refusal as error:
            self._fail(error)
        except Exception as error:  # of the disk, mostly; the readers must not wait for ever
            log.exception("%s", self._url)
            self._fail(Failed(f"a file of {self._transport.upstream.name} cannot be kept: {type(error).__name__}"))
        finally:
            ended()

    def begin(self) -> None:
        """Wait until the first bytes can be read, or raise the refusal."""
        with self._changed:
            self._changed.wait_for(lambda: self._begun or self._error)
            if self._error and not self._whole:
                raise self._error

    def chunks(self) -> Iterator[bytes]:
        """The file from its beginning; the refusal when it is broken off."""
        at, whole = 0, False
        while not whole:
            readable, whole = self._beyond(at)
            assert self._file
            while at < readable:
                chunk = os.pread(self._file.fileno(), min(PIECE, readable - at), at)
                at += len(chunk)
                yield chunk

    def _beyond(self, at: int) -> tuple[int, bool]:
        """Wait for more than so many bytes, and give back how many can be read, and whether that is the whole."""
        with self._changed:
            while not (self._readable() > at or self._whole or self._error):
                self._changed.wait(NOTICE)
            if self._error and not self._whole:
                raise self._error
            return self._readable(), self._whole

    def wait(self) -> None:
        """Until it is whole; the refusal if it never is."""
        with self._changed:
            self._changed.wait_for(lambda: self._whole or self._error)
            if self._error and not self._whole:
                raise self._error

    def _readable(self) -> int:
        return self._written if self._whole else max(0, self._written - 1)

    def _fetch(self, path: Path, file: BinaryIO) -> None:
        seconds = UNKNOWN if self.size is None else min(LONGEST, START + self.size / SLOWEST)
        name = self._transport.upstream.name
        digest, told, begun = hashlib.sha256(), 0.0, time.monotonic()
        with self._transport.get(self._url, {}, seconds) as answer:
            if answer.status != 200:
                raise Failed(f"{name} lists this file and answers {answer.status} for it")
            if None not in (self.size, answer.length) and self.size != answer.length:
                raise Failed(f"{name} sends {answer.length} bytes; its page says {self.size}")
            with self._changed:
                self.size = answer.length if self.size is None else self.size
                self._file = path.open("rb")
                self._begun = True
                self._changed.notify_all()
            for chunk in answer.chunks(self._limit if self.size is None else self.size):
                file.write(chunk)
                file.flush()
                digest.update(chunk)
                self._written += len(chunk)
                if time.monotonic() - begun > START + self._written / SLOWEST:
                    raise Late(f"{name} sends this file too slowly")
                if time.monotonic() - told > TELL:
                    told = time.monotonic()
                    with self._changed:
                        self._changed.notify_all()
        if self.size not in (None, self._written):
            raise Failed(f"{name} sent {self._written} of {self.size} bytes")
        if digest.hexdigest() != self._sha256:
            raise Failed(f"{name} sent a file whose SHA-256 is not its page's")
        with self._changed:
            self._whole = True
            self._changed.notify_all()

    def _fail(self, error: Refusal) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
        log.warning("%s: %s", self._url, error)
