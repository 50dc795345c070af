"""Bring the index in line with the package directory: once, or for ever.

What comes by hand, rsync or a restore is found by listing the directory: when its mtime changed (looked at every second)
and every minute anyway, for files rewritten in place. Subdirectories are not looked into.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os import scandir
from pathlib import Path

from . import names
from .errors import Refusal
from .store import SETTLE_SECONDS, Store

log = logging.getLogger(__name__)

Seen = dict[str, tuple[int, int]]
"""Size and mtime_ns of every visible file."""

POLL_SECONDS = 1.0
FULL_SECONDS = 60.0
BATCH = 256
SHARE = 0.1
"""At most this share of a processor goes into listing the directory, however busy it is. Waiting for the disk does not count."""


def look(store: Store) -> Seen:
    """The files as they are. Dot names are half-written files and our own."""
    seen: Seen = {}
    with scandir(store.packages) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if not entry.name.startswith(".") and entry.is_file():
                    status = entry.stat()
                    seen[entry.name] = status.st_size, status.st_mtime_ns
    return seen


def rebuild(store: Store, progress: Callable[[int, int], None]) -> None:
    """Make everything anew that differs from what it should be; only new and changed files are read.

    `progress` is told the number of projects done and of all. The result depends on nothing but the directory.
    """
    seen = look(store)
    todo = _projects(seen)
    for project in store.projects():
        todo.setdefault(project, set())
    growing: set[str] = set()
    for done, later in enumerate(_refresh(store, todo, anew=True), start=1):
        growing |= later
        progress(done, len(todo))
    while growing:
        time.sleep(SETTLE_SECONDS)
        growing = set().union(*_refresh(store, _projects(growing)))
    store.write_root()
    store.sweep(seen)


def differences(store: Store) -> list[str]:
    """Where the index is another than a rebuild from nothing would give; paths below the index directory."""
    fresh = Store(store.packages, store.index / ".check")
    try:
        rebuild(fresh, lambda _done, _total: None)
        return sorted(
            {path for one, other in ((store, fresh), (fresh, store)) for path in _unlike(one.index, other.index)}
        )
    finally:
        shutil.rmtree(fresh.index)


def _unlike(one: Path, other: Path) -> Iterator[str]:
    for part in ("simple", "metadata", "records"):
        for path in (one / part).rglob("*.*"):
            twin = other / path.relative_to(one)
            if path.is_file() and not (twin.is_file() and twin.read_bytes() == path.read_bytes()):
                yield str(path.relative_to(one))


class Watcher(threading.Thread):
    """Keeps the index in line while the server runs. Start one in every worker: whichever holds the lock works."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="watcher", daemon=True)
        self._store = store

    def run(self) -> None:
        while True:
            try:
                with self._store.watching() as mine:
                    if mine:
                        self._watch()
            except Exception:
                log.exception("the index may be behind the directory; starting over in 10 s")
                time.sleep(10)
            time.sleep(POLL_SECONDS)

    def _watch(self) -> None:
        packages, pages = _Changes(self._store.packages), _Changes(self._store.pages)
        seen: Seen = {}
        growing: set[str] = set()
        full = (
            0.0  # monotonic time of the last full look; the first one also takes up what happened while nobody looked
        )
        while True:
            started, worked = time.monotonic(), time.thread_time()
            overdue = not full or started - full > FULL_SECONDS
            if packages.since() or growing or overdue:
                now = look(self._store)
                todo = _projects(
                    growing | {name for name in now.keys() | seen.keys() if now.get(name) != seen.get(name)}
                )
                if not full:
                    for project in self._store.projects():
                        todo.setdefault(project, set())
                growing = set().union(*_refresh(self._store, todo))
                seen = now
            if pages.since() or overdue:
                self._store.write_root()
            if overdue:
                self._store.sweep(seen)
                full = started
            time.sleep(max(POLL_SECONDS, (time.thread_time() - worked) * (1 / SHARE - 1)))


class _Changes:
    """Whether a directory may have changed since it was last asked about."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, 0

    def since(self) -> bool:
        before, now = self._stamp, self._path.stat().st_mtime_ns
        self._stamp = now if time.time_ns() - now > 1_000_000_000 else 0  # clocks tick: a fresh stamp may hide a change
        return now != before


def _refresh(store: Store, todo: dict[str, set[str]], *, anew: bool = False) -> Iterator[set[str]]:
    """Refresh projects side by side: hashing and fsync wait for the disk, not for the interpreter."""

    def one(item: tuple[str, set[str]]) -> set[str]:
        return store.refresh(item[0], item[1], anew=anew)

    items = sorted(todo.items())
    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, len(items), BATCH):  # the pool takes all it is given into memory at once
            yield from pool.map(one, items[start : start + BATCH])


def _projects(filenames: Iterable[str]) -> dict[str, set[str]]:
    projects: dict[str, set[str]] = defaultdict(set)
    for filename in filenames:
        try:
            projects[names.parse(filename).project].add(filename)
        except Refusal as error:
            log.warning("not listed: %s", error)
    return projects
