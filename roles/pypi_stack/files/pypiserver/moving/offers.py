"""What a source says of a file, which projects are wanted, and what a run reports."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from typing import BinaryIO, Protocol

from static_index import names
from static_index.errors import Refusal

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
HASHES = ("sha256", "sha512", "sha384", "blake2b", "blake2s", "sha224", "sha1", "md5")
"""What files are checked by, the first that a source gives: the store knows the first without reading a file again."""


class Failed(Exception):
    """The source did not answer, or not with what it should; the same may go well later."""


class Stopped(Exception):
    """Going on makes no sense; the text says why, and what to do."""


class Stream(Protocol):
    """The bytes of a file, when it was uploaded (ns since the epoch) if only its sender knows, and itself if it is here already."""

    uploaded_ns: int | None
    file: BinaryIO | None

    def read(self, size: int) -> bytes: ...


@dataclass(frozen=True)
class Offer:
    """A file of a project (normalised). `hashes` are hex by name; `size`, `uploaded_ns` and `yanked` are None where nobody knows.

    `here`: it is on a disk of this machine.
    """

    project: str
    filename: str
    where: str
    open: Callable[[], AbstractContextManager[Stream]] = field(repr=False)
    hashes: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    uploaded_ns: int | None = None
    yanked: str | None = None
    here: bool = False

    @property
    def digest(self) -> tuple[str, str] | None:
        """Name and value of the one that counts."""
        return next(((name, self.hashes[name]) for name in HASHES if name in self.hashes), None)


class Source(Protocol):
    """Where files come from. Whoever asks may use several threads."""

    def projects(self) -> Iterable[str]:
        """Names, normalised, of those that are wanted. Failed or Stopped if they cannot be had."""

    def offers(self, project: str) -> list[Offer]:
        """All files of one. Refusal where there is no such project, Failed if it cannot be read."""

    @property
    def names(self) -> Iterable[str]:
        """Projects that have no file any more and are still nobody else's."""


class Wanted:
    """Shell patterns of projects; none means all."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        given = list(patterns)
        self.literal = sorted({names.normalise(each) for each in given if not any(c in each for c in "*?[")})
        self._patterns = [each.lower() for each in given if any(c in each for c in "*?[")]
        self.all = not given

    @property
    def listed(self) -> bool:
        """Whether every project is said by name: the source's own list is of no interest then."""
        return bool(self.literal) and not self._patterns

    def __contains__(self, project: str) -> bool:
        return self.all or project in self.literal or any(fnmatchcase(project, each) for each in self._patterns)


def by_version(offers: list[Offer], report: Report) -> list[Offer]:
    """In the order of their upload, and with one yank for all files of a version: it is yanked if all of them are."""
    versions: dict[str, list[Offer]] = defaultdict(list)
    for offer in offers:
        try:
            release = names.parse(offer.filename)
        except Refusal as error:
            report.refuse(offer.where, str(error))
            continue
        versions[names.release_key(str(release.version))].append(offer)
    found: list[Offer] = []
    for key, files in versions.items():
        reasons = [each.yanked for each in files]
        if None in reasons and any(reason is not None for reason in reasons):
            report.note(f"{files[0].project} {key}: only some of its files are yanked at the source; none is here")
        whole = next(iter(reasons)) if None not in reasons else None
        found += [replace(each, yanked=whole) for each in files]
    return sorted(found, key=lambda offer: (offer.uploaded_ns or 0, offer.filename))


@dataclass
class Report:
    """Counts and words of a run, for people while it runs and as one JSON at its end. Safe for threads."""

    total: int = 0
    total_bytes: int = 0
    taken: int = 0
    taken_bytes: int = 0
    already: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    pause: float = 5.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _shown: float = field(default_factory=time.monotonic, repr=False)

    def take(self, size: int) -> None:
        with self._lock:
            self.taken += 1
            self.taken_bytes += size
        self._show()

    def skip(self) -> None:
        with self._lock:
            self.already += 1
        self._show()

    def refuse(self, where: str, reason: str) -> None:
        """A file or project that is not taken, which makes the run fail at its end."""
        line = reason if reason.startswith(where) else f"{where}: {reason}"
        with self._lock:
            self.refused.append(line)
        print(f"refused: {line}", file=sys.stderr, flush=True)

    def ignore(self, what: str) -> None:
        """Something that is no release."""
        with self._lock:
            self.ignored[what] = self.ignored.get(what, 0) + 1

    def note(self, line: str) -> None:
        with self._lock:
            self.notes.append(line)

    def _show(self) -> None:
        with self._lock:
            if time.monotonic() - self._shown < self.pause:
                return
            self._shown = time.monotonic()
        print(self, file=sys.stderr, flush=True)

    def __str__(self) -> str:
        return (
            f"{self.taken + self.already} of {self.total} files, {self.taken_bytes:,} of {self.total_bytes:,} bytes,"
            f" {self.already} were here, {len(self.refused)} refused"
        )

    def dump(self) -> str:
        keys = ("total", "taken", "taken_bytes", "already", "ignored", "notes")
        return json.dumps({**{key: getattr(self, key) for key in keys}, "refused": sorted(self.refused)})


def nanoseconds(text: object) -> int | None:
    """ISO 8601 in UTC with up to nine digits of a second (PEP 700 has six), in ns since the epoch; None for anything else."""
    if not isinstance(text, str) or not text.endswith(("Z", "+00:00")):
        return None
    whole, _, fraction = text.removesuffix("Z").removesuffix("+00:00").partition(".")
    try:
        moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
        return (moment - EPOCH) // timedelta(seconds=1) * 10**9 + int(fraction[:9].ljust(9, "0"))
    except ValueError:
        return None


def http_date(text: str | None) -> int | None:
    """As Last-Modified has it (RFC 9110), in ns since the epoch; None for anything else."""
    try:
        moment = parsedate_to_datetime(text or "")
        return (moment - EPOCH) // timedelta(seconds=1) * 10**9
    except (TypeError, ValueError):
        return None


def text_of(nanoseconds: int) -> str:
    """What `nanoseconds` reads."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def in_batches(items: list[str], size: int) -> Iterator[list[str]]:
    """A pool takes all it is given into memory at once."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
