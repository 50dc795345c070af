"""What is kept on disk, and for how long.

    simple/NAME/            pages, as nginx serves them; a file that is there is right
    files/NAME/DIGEST16/    wheels, sdists and `.metadata`, likewise
    listings/NAME.json      what the upstream said; its time is when that was last confirmed
    tmp/                    what is not whole yet

Everything appears under its name by a rename after it was synced, so whatever dies at whatever moment leaves nothing half written
under a name that is served. What was not used longest goes first; used is the later one of a file's two times.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, NamedTuple

from .listing import Listing, excerpt, restore
from .pages import FORMS, filenames

SPARE = 64 << 20
"""Bytes of the file system that are left to others."""
SPOOLED = 1 << 18
"""Bytes of a page that comes in, in memory."""
LEVEL = 0.95
"""A cache that was full is emptied down to this part of its size, so that not every file makes it look again."""


class Kept(NamedTuple):
    """A file of the cache. `used` is in seconds since the epoch."""

    project: str
    digest16: str
    filename: str
    path: Path
    size: int
    used: float


class Cache:
    def __init__(self, root: Path, limit: int) -> None:
        """`limit`: bytes of files, listings and pages together."""
        self.root, self.limit = root, limit
        self._tmp = root / "tmp"
        self._lock, self._clearing = threading.Lock(), threading.Lock()
        self._size = 0
        for path in (root / "simple", root / "files", root / "listings", self._tmp):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Remove what dead processes left, and all pages: nobody knows any more how long they are right."""
        for path in self._tmp.iterdir():
            with suppress(FileNotFoundError), path.open("r+b") as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        for path in (self.root / "simple").iterdir():
            self.drop_pages(path.name)
        self.measure()

    @contextmanager
    def temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A file that is gone afterwards unless it was placed; locked while its process lives."""
        path = self._tmp / secrets.token_hex(8)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), "w+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield path, file
            finally:
                path.unlink(missing_ok=True)

    def spool(self) -> IO[bytes]:
        """A file without a name: in memory as long as it is small, on disk beyond."""
        return SpooledTemporaryFile(SPOOLED, dir=str(self._tmp))

    def write(self, path: Path, content: bytes, time: float | None = None) -> None:
        """Place a file with this content and, if it is given, this time."""
        with self.temporary() as (temporary, file):
            file.write(content)
            file.flush()
            if time is not None:
                os.utime(file.fileno(), (time, time))
            os.fsync(file.fileno())
            self.place(temporary, path)

    def place(self, temporary: Path, path: Path) -> None:
        """Give a synced file its name. Whoever removes an empty directory meanwhile does not disturb."""
        size = temporary.stat().st_size
        for attempt in (1, 2, 3):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            try:
                os.replace(temporary, path)
                break
            except FileNotFoundError:
                if attempt == 3:
                    raise
        with self._lock:
            self._size += size

    # Pages

    def forms(self, name: str) -> set[str]:
        """Those in which a project's page is there."""
        return {form for form in FORMS if (self.root / "simple" / name / f"{form}.gz").exists()}

    def put_page(self, name: str, form: str, page: Mapping[str, bytes], time: float) -> None:
        """Place a form of a project's page, and take away its files that there are no more."""
        folder = self.root / "simple" / name
        for filename, content in page.items():
            self.write(folder / filename, content, time)
        for filename in filenames(form):
            if filename not in page:
                (folder / filename).unlink(missing_ok=True)

    def drop_pages(self, name: str) -> None:
        folder = self.root / "simple" / name
        for form in FORMS:
            for filename in filenames(form):
                (folder / filename).unlink(missing_ok=True)
        _remove_empty(folder)

    # Listings

    def listing(self, name: str) -> Listing | None:
        """What the upstream said; None if there is nothing that can be read."""
        with suppress(OSError, ValueError):
            return restore(self._listing(name).read_bytes())
        return None

    def excerpt(self, name: str, digest16: str, filename: str) -> Listing | None:
        """What it said of one file, likewise."""
        with suppress(OSError, ValueError):
            return excerpt(self._listing(name).read_bytes(), digest16, filename)
        return None

    def put_listing(self, listing: Listing, now: float) -> None:
        self.write(self._listing(listing.project), listing.dump(), now)

    def confirm_listing(self, name: str, now: float) -> None:
        with suppress(FileNotFoundError):
            os.utime(self._listing(name), (now, now))

    def confirmed(self, name: str) -> float:
        with suppress(FileNotFoundError):
            return self._listing(name).stat().st_mtime
        return 0

    def drop_listing(self, name: str) -> None:
        self._listing(name).unlink(missing_ok=True)

    def _listing(self, name: str) -> Path:
        return self.root / "listings" / f"{name}.json"

    # Files

    def path(self, name: str, digest16: str, filename: str) -> Path:
        return self.root / "files" / name / digest16 / filename

    def touch(self, path: Path, now: float) -> None:
        """It was used now. Its other time stays: nginx makes the ETag of it."""
        with suppress(OSError):
            os.utime(path, ns=(int(now * 1e9), path.stat().st_mtime_ns))

    def projects(self) -> list[str]:
        """Those with a file."""
        return sorted(path.name for path in (self.root / "files").iterdir())

    def kept(self, name: str | None = None) -> Iterator[Kept]:
        """The files of a project, or of all."""
        files = self.root / "files"
        for path in _files(files, 3) if name is None else _files(files / name, 2):
            with suppress(FileNotFoundError):
                found = path.stat()
                project, digest16, filename = path.parts[-3:]
                yield Kept(project, digest16, filename, path, found.st_size, max(found.st_atime, found.st_mtime))

    def drop_file(self, kept: Kept) -> None:
        try:
            kept.path.unlink()
        except FileNotFoundError:
            return  # and its size was taken off by whoever was faster
        _remove_empty(kept.path.parent)
        _remove_empty(kept.path.parents[1])
        with self._lock:
            self._size -= kept.size

    def purge(self, name: str, filename: str = "") -> list[str]:
        """Remove a project, or a file of it with its metadata; gives back the files that were removed."""
        gone = [kept for kept in self.kept(name) if filename in ("", kept.filename.removesuffix(".metadata"))]
        for kept in gone:
            self.drop_file(kept)
        if not filename:
            self.drop_pages(name)
            self.drop_listing(name)
        return [kept.filename for kept in gone]

    # Size

    def measure(self) -> int:
        """Bytes of everything, counted anew: other processes remove and add too."""
        size = sum(kept.size for kept in self.kept())
        for path in (*(self.root / "listings").iterdir(), *_files(self.root / "simple", 2)):
            with suppress(FileNotFoundError):
                size += path.stat().st_size
        with self._lock:
            self._size = size
        return size

    @property
    def size(self) -> int:
        return self._size

    def make_room(self, size: int) -> None:
        """Remove what was not used longest until so many bytes more have a place, or nothing is left to remove."""
        with self._clearing:  # two would choose the same files, and take their sizes off twice
            self._make_room(size)

    def _make_room(self, size: int) -> None:
        if size > self.limit:
            return  # it is not kept, or perhaps there is no such file: a page only says so
        free = shutil.disk_usage(self.root).free
        if self._size + size <= self.limit and size + SPARE <= free:
            return
        excess = self.measure() + size - int(self.limit * LEVEL)
        excess = max(excess, size + SPARE - free)
        for kept in sorted(self.kept(), key=lambda kept: kept.used):
            if excess <= 0:
                return
            self.drop_file(kept)
            excess -= kept.size
        with_files = set(self.projects())
        listings = []
        for path in (self.root / "listings").iterdir():
            with suppress(FileNotFoundError):
                found = path.stat()
                listings.append((found.st_mtime, found.st_size, path))
        for _time, length, path in sorted(listings):
            if excess <= 0:
                return
            if path.stem not in with_files:
                excess -= length
                self.drop_pages(path.stem)
                path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """What is so many levels below, also while others remove it; Path.glob raises then, before Python 3.13."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in list(folder.iterdir()):
            if depth > 1:
                yield from _files(path, depth - 1)
            else:
                yield path
