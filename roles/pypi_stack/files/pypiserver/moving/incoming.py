"""From a source into the store: every file is checked as an upload is, and what is here already stays as it is."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, TypeVar

from static_index import files, names
from static_index.errors import Conflict, Refusal
from static_index.guard import Guard
from static_index.records import File
from static_index.store import Claims, Past, Store

from .offers import Failed, Offer, Report, Source, Stopped, Wanted, in_batches

AT_ONCE = 4
BATCH = 256
CHUNK = 1 << 20
ROOM = 128 << 20
"""Bytes of the disk that stay free."""
TRIES = 3
GIVE_UP = 10
"""After so many failures of the source in a row it is taken to be away."""

_T = TypeVar("_T")


@dataclass
class Taking:
    """A run. `largest` is the limit on a file in bytes; `dry` says what would be taken; `pause` is in seconds, before a second try."""

    store: Store
    source: Source
    wanted: Wanted
    report: Report
    begin: Guard
    largest: int
    dry: bool = False
    pause: float = 2.0
    _failures: int = 0
    _stopped: bool = False
    _barred: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Take all that is wanted. Stopped if going on makes no sense; what was taken until then stays."""
        projects = list(self._retrying(self.source.projects))
        if not projects:
            self.report.refuse("move_in_projects", "no project of the source matches")
        for missing in sorted(set(self.wanted.literal) - set(projects)):
            self.report.refuse(missing, "there is no such project")
        listed: dict[str, list[Offer]] = {}
        for name, offers in zip(projects, self._all(projects, self._list), strict=True):
            listed[name] = offers
            self.report.total += len(offers)
        self._look_for_room(listed)
        self._all([name for name in projects if listed[name]], lambda name: self._project(name, listed.pop(name)))
        for name in self.source.names:
            self._claim(name)

    def _all(self, projects: list[str], work: Callable[[str], _T]) -> list[_T]:
        """For some projects at once; files of one come one after another, in the order of its pages."""
        found: list[_T] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for batch in in_batches(projects, BATCH):
                found += pool.map(work, batch)
        return found

    def _list(self, project: str) -> list[Offer]:
        if self._stopped:
            return []
        try:
            offers = self._retrying(partial(self.source.offers, project))
            if not offers:
                self.report.note(f"{project} has no files at the source")
            return offers
        except (Refusal, Failed) as error:
            self._fail(project, error)
            return []

    def _look_for_room(self, listed: dict[str, list[Offer]]) -> None:
        """The list says how much will come; only what is not here counts."""
        unknown = 0
        for project, offers in listed.items():
            record = self.store.index.records.load(project)
            for offer in (each for each in offers if each.filename not in record.files):
                self.report.total_bytes += offer.size or 0
                unknown += offer.size is None
        if unknown:
            self.report.note(f"{unknown} files are of unknown size; each is refused where there is no room for it")
        free = self._free()
        if self.report.total_bytes > free:
            raise Stopped(
                f"there is no room: {self.report.total_bytes:,} bytes are to come, {free:,} are free (of the disk with the packages,"
                f" of which {ROOM:,} stay free). Nothing was taken"
            )

    def _free(self) -> int:
        status = os.statvfs(self.store.packages)
        return max(0, status.f_bavail * status.f_frsize - ROOM)

    def _project(self, project: str, offers: list[Offer]) -> None:
        for offer in offers:
            if self._stopped:
                return
            try:
                self._retrying(partial(self._take, project, offer))
            except (Refusal, Failed) as error:
                self._fail(offer.where, error)
            except OSError as error:  # of the store: a source that cannot be read raises one of the others
                self._stop(
                    f"the store cannot be written: {error.strerror or error}. What was taken stays; run it again"
                )

    def _fail(self, where: str, error: Exception) -> None:
        self.report.refuse(where, str(error))
        with self._lock:
            self._failures = self._failures + 1 if isinstance(error, Failed) else 0
            if self._failures >= GIVE_UP:
                self._stop(f"the source failed {GIVE_UP} times in a row; what was taken stays. Run it again later")

    def _stop(self, why: str) -> NoReturn:
        """For those as well that work beside this."""
        self._stopped = True
        raise Stopped(why)

    def _retrying(self, ask: Callable[[], _T]) -> _T:
        for attempt in range(1, TRIES):
            with suppress(Failed):
                return ask()
            time.sleep(self.pause * attempt)
        return ask()

    def _take(self, project: str, offer: Offer) -> None:
        release = names.parse(offer.filename)
        if release.project != project:
            raise Refusal(f"its name is of the project {release.project}, not of {project}")
        if known := self.store.index.records.load(project).file(offer.filename):
            if not self._same(known, offer):
                raise Conflict("it is here with other content, which stays: what is released never changes")
            if offer.yanked is not None and known.yanked is None:
                self.report.note(
                    f"{project} {known.version} is yanked at the source and not here: see playbooks/release.yml"
                )
            return self.report.skip()
        self._may_begin(project)
        if self.dry:
            return self._look(offer)
        with offer.open() as stream, self.store.incoming() as incoming:
            digest, size = offer.digest, 0
            hashed = hashlib.new(digest[0]) if digest and digest[0] != "sha256" else None
            room = min(self.largest, self._free())
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                if size > room:
                    raise Refusal(self._too_large(offer))
                incoming.write(chunk)
                if hashed:
                    hashed.update(chunk)
            found = hashed.hexdigest() if hashed else incoming.digest("sha256")
            if digest and found != digest[1]:
                raise Failed(f"its {digest[0]} is {found}, and {digest[1]} by the source's list")
            uploaded = offer.uploaded_ns if offer.uploaded_ns is not None else stream.uploaded_ns
            if uploaded is not None and not 0 < uploaded <= time.time_ns():
                uploaded = None
            _, new = self.store.add(offer.filename, incoming, Claims(project), Past(uploaded, offer.yanked))
        with self._lock:
            self._failures = 0
        if new:
            self.report.take(size)
        else:
            self.report.skip()

    def _look(self, offer: Offer) -> None:
        """What can be known of a file without bringing it here."""
        if (offer.size or 0) > self.largest:
            raise Refusal(self._too_large(offer))
        if offer.here:
            with offer.open() as stream:
                if stream.file:
                    self.store.inspector.read(stream.file, offer.filename, strict=True)
        self.report.take(offer.size or 0)

    def _too_large(self, offer: Offer) -> str:
        if self._free() < self.largest:
            return f"there is no room for it: {self._free():,} bytes are free"
        return f"it is larger than {self.largest:,} bytes (pypi_stack_max_upload_size)"

    def _same(self, known: File, offer: Offer) -> bool:
        """Whether a file is the one that is here. It has to be read where the source has no hash of it."""
        if digest := offer.digest:
            name, value = digest
            if name == "sha256":
                return known.sha256 == value
            return files.digest(self.store.packages / known.filename, lambda: hashlib.new(name)) == value
        if (known.size, known.mtime_ns) == (offer.size, offer.uploaded_ns):  # as rsync has it, to the nanosecond
            return True
        hashed = hashlib.sha256()
        with offer.open() as stream:
            while chunk := stream.read(CHUNK):
                hashed.update(chunk)
        return hashed.hexdigest() == known.sha256

    def _may_begin(self, project: str) -> None:
        """Asked once for a project, since the answer comes from elsewhere."""
        if project in self._barred:
            raise Refusal(self._barred[project])
        if not self.store.owns(project):
            try:
                self.begin(project, "this run (move_in_projects)", self.wanted.literal)
            except Refusal as error:
                self._barred[project] = str(error)
                raise

    def _claim(self, name: str) -> None:
        """A name without files comes along, or it could be a stranger's here."""
        if name not in self.wanted or self.store.owns(name):
            return
        try:
            self._may_begin(name)
        except Refusal as error:
            self.report.refuse(name, str(error))
            return
        if not self.dry:
            with self.store.index.lock(name):
                self.store.register.claim(name)
