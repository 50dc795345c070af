"""Bring the index in line with the package directory: once, or for ever.

What comes by hand, rsync or a restore is told by the kernel, or found by listing the directory: when its mtime changed (looked at
every second) and now and then anyway. Subdirectories are not looked into.
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

from . import names, watch
from .errors import Refusal
from .store import SETTLE_SECONDS, Store

log = logging.getLogger(__name__)

Seen = dict[str, tuple[int, int]]
"""Size and mtime_ns of every visible file."""

POLL_SECONDS = 1.0
FULL_SECONDS = {True: 3600.0, False: 60.0}
"""How often everything is looked at, when the kernel tells of changes and when it cannot."""
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


def build_register(store: Store, seen: Iterable[str], *, recover: bool = False) -> bool:
    """Enter every name that has files, or had some when the index was last in line; before that is brought in line. See `owned`."""
    ours = _all(store, seen)
    if recover:
        store.register.recover(ours)
        return True
    return store.register.build(ours, trusted=not ours or any(ours.values()))


def rebuild(store: Store, progress: Callable[[int, int], None]) -> None:
    """Make everything anew that differs from what it should be; only new and changed files are read.

    `progress` is told the number of projects done and of all. The result depends on nothing but the directory.
    """
    seen = look(store)
    todo = _all(store, seen)
    growing: set[str] = set()
    for done, later in enumerate(_refresh(store, todo, whole=True, anew=True), start=1):
        growing |= later
        progress(done, len(todo))
    while growing:
        time.sleep(SETTLE_SECONDS)
        growing = set().union(*_refresh(store, _projects(growing)))
    store.index.write_root()
    store.sweep(seen)


def differences(store: Store) -> list[str]:
    """Where the index is another than a rebuild from nothing would give; paths below the index directory."""
    index = store.index.directory
    fresh = Store(store.packages, index / ".check", store.inspector, store.index.url)
    try:
        rebuild(fresh, lambda _done, _total: None)
        twin = fresh.index.directory
        different = {path for one, other in ((index, twin), (twin, index)) for path in _unlike(one, other)}
        return sorted(path for path in different if not store.index.lags(path))
    finally:
        shutil.rmtree(fresh.index.directory)


def _unlike(one: Path, other: Path) -> Iterator[str]:
    for part in ("simple", "metadata", "legacy", "records"):
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
                self._store.prepare()
                with self._store.index.watching() as mine:
                    if mine:
                        self._watch()
            except Exception:
                log.exception("the index may be behind the directory; starting over in 10 s")
                time.sleep(10)
            time.sleep(POLL_SECONDS)

    def _watch(self) -> None:
        source, pages = _Source(self._store), watch.Stamp(self._store.index.pages)
        seen = look(self._store)
        build_register(self._store, seen)
        growing = set().union(*_refresh(self._store, _all(self._store, seen), whole=True))
        swept = 0.0
        while True:
            started, worked = time.monotonic(), time.thread_time()
            if (changed := source.changes()) is None:
                now = look(self._store)
                changed = {name for name in now.keys() | seen.keys() if now.get(name) != seen.get(name)}
                seen = now
            growing = set().union(*_refresh(self._store, _projects(growing | changed)))
            if (self._store.index.made or not growing) and pages.since():
                self._store.index.write_root()
            if not swept or started - swept > FULL_SECONDS[True]:
                self._store.sweep(seen)
                swept = started
            time.sleep(max(POLL_SECONDS, (time.thread_time() - worked) * (1 / SHARE - 1)))


class _Source:
    """What may have changed in the package directory, and which records somebody took away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamp, self._looked = watch.Stamp(store.packages), time.monotonic()
        try:
            self._events = [watch.Events(path) for path in (store.packages, store.index.records.directory)]
        except OSError as error:
            log.warning("listing the directory instead of being told of changes: %s", error)
            self._events = []

    def changes(self) -> set[str] | None:
        """Names of files since the last call; None: nobody can tell, look at all of them. OSError if it is another directory now."""
        moved, names = self._stamp.since(), set()
        try:
            if self._events:
                names, taken = (events.since() for events in self._events)
                names |= {name for record in taken for name in self._of_lost(record)}
                moved = moved and not names  # by another machine
        except watch.CannotTell:
            moved = True
        if moved or time.monotonic() - self._looked > FULL_SECONDS[bool(self._events)]:
            self._looked = time.monotonic()
            return None
        return names

    def _of_lost(self, record: str) -> list[str]:
        """The files of a project whose pages are there while its record is not."""
        project = Path(record).stem
        known, index = self._store.index.knows(project), self._store.index
        return self._store.present(project) if known and not index.records.path(project).exists() else []


def _all(store: Store, seen: Iterable[str]) -> dict[str, set[str]]:
    """All files by project; a project that only the index knows has none."""
    return {**{project: set() for project in store.index.projects()}, **_projects(seen)}


def _refresh(store: Store, todo: dict[str, set[str]], *, whole: bool = False, anew: bool = False) -> Iterator[set[str]]:
    """Refresh projects side by side: hashing and fsync wait for the disk, not for the interpreter."""

    def one(item: tuple[str, set[str]]) -> set[str]:
        try:
            return store.refresh(item[0], item[1], whole=whole, anew=anew)
        except Refusal as error:
            log.error("%s is left as it is: %s", item[0], error)
            return set()

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
