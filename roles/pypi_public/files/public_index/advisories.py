"""Which releases are malicious: the advisories `MAL-…` of the Open Source Vulnerability format, from an archive of all of a registry's.

What was read last is kept on disk, for starts without a network. Until something was read, nothing is known to be harmless.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cache import Cache
from .config import Upstream
from .errors import Busy, Failed, Refusal
from .names import normalise, same_version, version_key
from .transport import Transport

PERIOD = 3_600
RETRY = 60
LARGEST = 512 << 20
LARGEST_MEMBER = 4 << 20
LARGEST_ALL = 512 << 20
SECONDS = 600

_ID = re.compile(r"MAL-[0-9]{4}-[0-9]{1,9}")

Range = tuple[tuple[str, str], ...]
"""Events in the order of versions: ("introduced" | "fixed" | "last_affected" | "limit", version)."""
Entry = tuple[str, tuple[str, ...], tuple[Range, ...]]
"""Identifier, versions and ranges that are malicious."""

log = logging.getLogger(__name__)


class Advisories:
    """`known` by project."""

    def __init__(self, cache: Cache, source: Upstream | None, timeout: float) -> None:
        self._cache, self._path = cache, cache.root / "advisories.json"
        self._transport = Transport(source, timeout) if source else None
        self._source = source
        self._etag = ""
        self.known: Mapping[str, list[Entry]] = {}
        self.read_at = 0.0
        self.error = ""
        self._lock = threading.Lock()
        if source:
            with suppress(OSError, ValueError, TypeError, KeyError):
                kept = json.loads(self._path.read_text())
                if kept["url"] == source.url:
                    self.known, self.read_at, self._etag = _restored(kept["known"]), kept["read_at"], kept["etag"]

    def check(self) -> None:
        """Refuse everything as long as nothing is known."""
        if self._transport and not self.read_at:
            raise Busy(
                f"the advisories on malicious packages are not read yet{self.error and f': {self.error}'}", RETRY
            )

    def malicious(self, name: str, version: str) -> str:
        """The identifier of an advisory, or nothing."""
        return next((entry[0] for entry in self.known.get(name, ()) if _affects(entry, version)), "")

    def due(self, now: float) -> bool:
        return self._transport is not None and now - self.read_at >= PERIOD

    def refresh(self, now: float) -> set[str]:
        """Read them again, and give back the projects of which something else is said now. A Refusal if that fails."""
        if not self._transport or not self._source:
            return set()
        with self._lock:
            try:
                known, etag = self._fetch(self._transport, self._source.url)
            except Refusal as error:
                self.error = str(error)
                raise
            changed = {name for name in {*known, *self.known} if known.get(name) != self.known.get(name)}
            self.known, self.read_at, self._etag, self.error = known, now, etag, ""
            document = {"url": self._source.url, "read_at": now, "etag": etag, "known": known}
            try:
                self._cache.write(self._path, json.dumps(document, separators=(",", ":")).encode())
            except OSError as error:
                log.warning("the advisories hold, and are not kept for the next start: %s", error)
        return changed

    def _fetch(self, transport: Transport, url: str) -> tuple[Mapping[str, list[Entry]], str]:
        headers = {"If-None-Match": self._etag} if self._etag and self.read_at else {}
        with transport.get(url, headers, SECONDS) as answer, self._cache.temporary() as (path, file):
            if answer.status == 304 and headers:
                for _chunk in answer.chunks(0):
                    pass
                return self.known, self._etag
            if answer.status != 200:
                raise Failed(f"advisories answers {answer.status}")
            for chunk in answer.chunks(LARGEST):
                file.write(chunk)
            file.flush()
            return read(path), answer.headers.get("ETag", "")[:200]


def read(archive: Path) -> Mapping[str, list[Entry]]:
    """What an archive says, by project; a Failed if it is none, or has not a single advisory in it."""
    known: dict[str, list[Entry]] = {}
    total, end, seen = 0, time.monotonic() + SECONDS, 0
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                seen += member.filename.endswith(".json")
                if not re.fullmatch(r"MAL-[^/]*\.json", member.filename.rpartition("/")[2]):
                    continue
                total += member.file_size
                if member.file_size > LARGEST_MEMBER or total > LARGEST_ALL or time.monotonic() > end:
                    raise ValueError("it is too large")
                _add(known, json.loads(members.read(member)))
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, RecursionError) as error:
        raise Failed(f"advisories: the archive cannot be read: {str(error)[:80]}") from None
    if not seen:
        raise Failed("advisories: there is none in the archive")
    return known


def _add(known: dict[str, list[Entry]], document: Any) -> None:
    """Take in one advisory; a ValueError if it has not the format's form."""
    try:
        identifier = document["id"]
        if not _ID.fullmatch(identifier) or document.get("withdrawn"):
            return
        for affected in document.get("affected") or ():
            package = affected.get("package") or {}
            if package.get("ecosystem") != "PyPI":
                continue
            versions = tuple(str(version) for version in affected.get("versions") or ())
            ranges = tuple(
                tuple((kind, str(version)) for event in described["events"] for kind, version in event.items())
                for described in affected.get("ranges") or ()
                if described.get("type") in ("ECOSYSTEM", "SEMVER")
            )
            known.setdefault(normalise(package["name"]), []).append((identifier, versions, ranges))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"an advisory without {error}") from None


def _affects(entry: Entry, version: str) -> bool:
    _identifier, versions, ranges = entry
    if not versions and not ranges:
        return True  # said of the project as a whole
    return any(same_version(version, listed) for listed in versions) or any(_within(r, version) for r in ranges)


def _within(events: Range, version: str) -> bool:
    """OSV schema, evaluation: the last event that is not after the version decides. What is no version may be any."""
    key = version_key(version)
    if key is None:
        return bool(events)
    affected = False
    for kind, at in sorted(events, key=lambda event: _order(event[1])):
        place = _order(at)
        if kind == "introduced" and place <= (1, key):
            affected = True
        elif (kind in ("fixed", "limit") and place <= (1, key)) or (kind == "last_affected" and place < (1, key)):
            affected = False
    return affected


def _order(version: str) -> tuple[int, Any]:
    """`0` is before everything; `*` and what is no version behind."""
    key = version_key(version)
    if version == "0":
        return 0, ()
    return (2, ()) if key is None else (1, key)


def _restored(known: Mapping[str, Iterable[Any]]) -> Mapping[str, list[Entry]]:
    return {
        name: [
            (identifier, tuple(versions), tuple(tuple((kind, at) for kind, at in events) for events in ranges))
            for identifier, versions, ranges in entries
        ]
        for name, entries in known.items()
    }
