"""Runs of moving in and out, in this process and against stores of their own; and what they are compared by."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from moving.directory import Directory
from moving.incoming import Taking
from moving.offers import Report, Source, Wanted
from moving.outgoing import Leaving
from moving.simple import SimpleIndex
from moving.web import Web
from static_index import guard, sync
from static_index.store import Store

from .conftest import INSPECTOR
from .state import tree

LARGEST = 1 << 20


def new_store(base: Path) -> Store:
    return Store(base / "packages", base / "index", INSPECTOR)


def take(
    store: Store,
    source: str | Path,
    *projects: str,
    stages: Iterable[str] = (),
    begin: guard.Guard = lambda *_: None,
    dry: bool = False,
    pause: float = 0.0,
    login: tuple[str, str] = ("", ""),
    ca: str = "",
) -> Report:
    """Move in from a directory or an address. `pause` as in Taking."""
    wanted, report = Wanted(projects), Report()
    found: Source
    if isinstance(source, Path):
        found = Directory(source, wanted, report, stages)
    else:
        found = SimpleIndex(source, Web(source, *login, ca), wanted, report)
    Taking(store, found, wanted, report, begin, LARGEST, dry, pause).run()
    return report


def leave(store: Store, target: Path, *, dry: bool = False) -> Report:
    report = Report()
    target.mkdir(exist_ok=True)
    Leaving(store, target, report, dry=dry).run()
    return report


def put(directory: Path, artifact: tuple[str, bytes], seconds: float = 1e9) -> Path:
    """A file that was written then."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / artifact[0]
    path.write_bytes(artifact[1])
    os.utime(path, (seconds, seconds))
    return path


def whole_tree(store: Store) -> dict[str, bytes]:
    """Every page and record, after what the watcher does."""
    sync.build_register(store, sync.look(store))
    sync.rebuild(store, lambda _done, _total: None)
    return tree(store)


def files_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Times and contents of all that is there."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }
