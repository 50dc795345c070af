"""Atomic and durable writes, and locks that die with their process."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO


def sync_directory(path: Path) -> None:
    """Make renames and links in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def digest(path: Path, algorithm: Callable[[], Any] = hashlib.sha256) -> str:
    """Of a file's content, in hex."""
    found = algorithm()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return str(found.hexdigest())


def content(path: Path) -> bytes | None:
    """None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def make_directory(path: Path) -> None:
    """As mkdir -p, readable by nginx whatever the umask is."""
    path.mkdir(mode=0o755, parents=True, exist_ok=True)


@contextmanager
def staged(contents: Mapping[Path, bytes], spool: Path) -> Iterator[Callable[[], None]]:
    """Write files that are to replace others, and yield what puts them all into place, in the order given.

    Putting them into place needs no more space, so a full disk is noticed before anything has changed. Files that are
    the same already are left alone. A file is always at least a second younger than the one it replaces: nginx makes the ETag
    of the size and of whole seconds. `spool` is a directory on the same file system, for what is not in place yet.
    """
    ready: list[tuple[Path, Path]] = []

    def commit() -> None:
        while ready:
            os.replace(*ready[0])
            ready.pop(0)

    try:
        for path, content in contents.items():
            younger = time.time()
            with suppress(FileNotFoundError):
                old = path.stat()
                if old.st_size == len(content) and path.read_bytes() == content:
                    continue
                younger = max(younger, int(old.st_mtime) + 1)
            temporary = spool / secrets.token_hex(8)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
                ready.append((temporary, path))
                file.write(content)
                file.flush()
                os.utime(file.fileno(), (younger, younger))
                os.fsync(file.fileno())
        yield commit
    finally:
        for temporary, _ in ready:
            temporary.unlink()


def write(contents: Mapping[Path, bytes], spool: Path) -> None:
    """Replace files, each atomically."""
    with staged(contents, spool) as commit:
        commit()


@contextmanager
def appending(path: Path, length: int, content: bytes) -> Iterator[Callable[[], None]]:
    """Make room behind the first so many bytes of a file, and yield what writes the content there.

    As with `staged`, that needs no more space. Until then the file ends in zeros, or as before if nothing is written. It is
    not synced: a power cut may leave zeros there.
    """
    fd, written = os.open(path, os.O_WRONLY), False

    def write_at(data: bytes) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], length + done)

    def commit() -> None:
        nonlocal written
        written = True
        write_at(content)

    try:
        os.ftruncate(fd, length)
        try:
            write_at(bytes(len(content)))
            yield commit
        finally:
            if not written:
                os.ftruncate(fd, length)
    finally:
        os.close(fd)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, between threads and processes; the kernel frees it if the holder dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """As lock, but yields False at once when somebody else holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _locked(fd)
    finally:
        os.close(fd)


@contextmanager
def temporary_file(spool: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file that is gone afterwards; locked while its process lives, so that `sweep` can tell the dead ones."""
    path = spool / secrets.token_hex(8)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), "w+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield path, file
        finally:
            path.unlink(missing_ok=True)


def sweep(spool: Path, older_than: float) -> None:
    """Remove what dead processes left: unlocked, and last written before the time given (seconds since the epoch).

    What cannot be opened is none of ours.
    """
    for path in spool.iterdir():
        with suppress(OSError), path.open("rb") as file:
            if path.stat().st_mtime < older_than and _locked(file.fileno()):
                path.unlink()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
