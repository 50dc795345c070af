"""Pages and files of public projects, made when they are asked for and taken away when they are no longer right."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from .advisories import RETRY, Advisories
from .cache import Cache
from .catalogue import NEGATIVE, STEP, Catalogue
from .config import Config
from .download import Download
from .errors import Busy, Forbidden, Refusal, Unknown
from .legacy import document
from .listing import File, Listing
from .locks import Locks
from .pages import FORMS, render
from .policy import Policy
from .shares import Shares

LARGEST_METADATA = 16 << 20
DOWNLOADS = 128
"""At once; each is a thread and a connection, and one for its watch."""
PATIENCE = 5.0
"""Seconds that somebody waits for a place among them; pip waits for 15 in all."""
AHEAD = 2
"""Seconds that a page still has to be right for when nginx is sent to it."""

log = logging.getLogger(__name__)


class Mirror:
    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.config, self._clock = config, clock
        self.cache = Cache(config.cache, config.cache_size)
        self.advisories = Advisories(self.cache, config.advisories if config.block_malware else None, config.timeout)
        self.policy = Policy(config, self.advisories.malicious)
        self._names = Locks()
        self._catalogue = Catalogue(config, self.cache, clock, self.enforce)
        self._lock = threading.Lock()
        self._downloads: dict[Path, Download] = {}
        self._places = Shares(DOWNLOADS, PATIENCE)
        self._page_ends: dict[str, float] = {}
        self._page_times: dict[tuple[str, str], tuple[bytes, float]] = {}
        self._file_ends: dict[str, float] = {}
        self._exemption_ends, self._looked = self._next_exemption_end(), self._clock()

    # What clients ask for

    def page(self, name: str, form: str = "") -> None:
        """See to it that a project's page is in place in this form, or in both.

        Installers take one form, so the other is made when somebody asks for it, and then what is there is made again with it: both
        are always of one listing and one moment.
        """
        self._gate(name)
        wanted = {form} if form else {*FORMS}
        with self._names(name):
            now, there = self._clock(), self.cache.forms(name)
            if self._page_ends.get(name, 0) > now + AHEAD and wanted <= there:
                return
            known, files, ends = self._offer(name, now)
            for made in sorted(wanted | there):
                with self._catalogue.reading:
                    page = render(made, known, files)
                # nginx makes the ETag of size and time: another page is younger by a second, and the same one is not.
                digest = hashlib.sha256(page[f"{made}.gz"]).digest()
                last, written = self._page_times.get((name, made), (b"", 0.0))
                if digest != last:
                    written = max(now, written + 1)
                self.cache.make_room(sum(map(len, page.values())))
                self.cache.put_page(name, made, page, written)
                self._page_times[name, made] = digest, written
            self._page_ends[name] = ends

    def document(self, name: str) -> bytes:
        """A project in the older API."""
        self._gate(name)
        with self._names(name):
            known, files, _ = self._offer(name, self._clock())
            return document(known, files)

    def _offer(self, name: str, now: float) -> tuple[Listing, list[File], float]:
        """What is known of a project, its files that may be had, and until when that is right."""
        known, until = self._catalogue.current(name, self.config.page_seconds)
        offer = self.policy.offer(known, now)
        files = offer.files
        if not files and offer.refused:
            raise Forbidden(offer.refused)
        if self.config.packages == "cached":
            files = self._only_kept(name, files)
        return known, files, min(until, offer.changes)

    def file(self, name: str, digest16: str, filename: str, reader: str = "") -> Path | Download:
        """A file that is kept, or one that is being fetched: in the place of the reader who was first to ask."""
        file, path, url, sha256, size = self._wanted(name, digest16, filename)
        if path.exists():
            self.cache.touch(path, self._clock())
            return path
        self._may_fetch(filename)
        if found := self._downloads.get(path):
            return found
        self._places.take(reader)
        with ExitStack() as place:
            place.callback(self._places.give, reader)
            limit = LARGEST_METADATA if filename != file.filename else self.config.cache_size
            download = Download(self._catalogue.transport(name), self.cache, url, sha256, size, limit)
            with self._lock:
                if (found := self._downloads.setdefault(path, download)) is not download:
                    return found
            place.pop_all()
        # Not under the lock: where others compute, a thread takes its time to start, and everybody would wait for each.
        download.start(self._keep(name, file, path, sha256), self._end(path, reader))
        return download

    def size(self, name: str, digest16: str, filename: str) -> Path | int | None:
        """A file that is kept, or the bytes of one that would be fetched, if known."""
        _file, path, _url, _sha256, size = self._wanted(name, digest16, filename)
        if path.exists():
            return path
        self._may_fetch(filename)
        return size

    def exists(self, name: str) -> str:
        """The name of the upstream that has a project of this name; an Unknown if none has, any other Refusal if nobody knows."""
        if refusal := self.policy.refusal(name):
            raise refusal
        with self._names(name):
            if self.config.packages == "cached" and not self._catalogue.read(name):
                raise Busy(f"not known whether {name} is public: upstream is not asked (pypi_public_packages: cached)")
            return self._catalogue.current(name, self.config.page_seconds)[0].upstream

    def files(self, name: str) -> tuple[File, ...]:
        """What the upstream lists, whether or not it may be had."""
        self._gate(name)
        with self._names(name):
            return self._catalogue.current(name, self.config.page_seconds)[0].files

    def settle(self) -> None:
        """Wait until nothing is on its way any more."""
        while self._downloads:
            time.sleep(0.01)

    def health(self) -> dict[str, object]:
        """For whoever watches this."""
        now = self._clock()
        age = now - self.advisories.read_at if self.advisories.read_at else None
        source = self.config.advisories and self.config.block_malware
        return {
            "status": "ok",
            "packages": self.config.packages,
            "failing": self._catalogue.failing(),
            "advisories": {"age": age, "projects": len(self.advisories.known), "error": self.advisories.error}
            if source
            else "no advisories_url: malware is not looked for",
            "cache": {"size": self.cache.size, "limit": self.config.cache_size},
            "downloads": len(self._downloads),
        }

    # What time and the operator change

    def prepare(self) -> None:
        """Take away whatever is not whole, or no longer allowed."""
        self.cache.sweep()
        self._each(self.enforce, self.cache.projects())

    def watch(self) -> None:
        """Do what is due from now on, in threads."""
        threading.Thread(target=self._watch, daemon=True).start()
        threading.Thread(target=self._watch_advisories, daemon=True).start()

    def enforce(self, name: str) -> None:
        """Remove a project's pages, and its files that are not allowed (any more)."""
        with self._names(name):
            self._file_ends[name] = 0.0  # due until it is done
            ends = float("inf")
            with ExitStack() as removals:  # all of them, also when one fails
                removals.callback(self._drop_page, name)
                now = self._clock()
                here = [*self.cache.kept(name)]
                known = self._catalogue.read(name) if here and not self.policy.refusal(name) else None
                files = {file.key: file for file in known.files} if known else {}
                for kept in here:
                    file = files.get((kept.digest16, kept.filename.removesuffix(".metadata")))
                    reason = "it is no longer known to be allowed"
                    if known and file:
                        reason, changes = self.policy.judge(known, file, now)
                        ends = min(ends, changes)
                        if kept.filename != file.filename and _sha256(kept.path) != file.metadata:
                            reason = "its page has other metadata now"
                    if reason:
                        log.warning("removed %s: %s", kept.filename, reason)
                        removals.callback(self.cache.drop_file, kept)
            self._file_ends[name] = ends

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock()
        if self._exemption_ends <= now or now < self._looked - STEP:
            # Also for what another process has fetched: a warm-up.
            self._file_ends.update(dict.fromkeys([*self._page_ends, *self.cache.projects()], now))
            self._exemption_ends = self._next_exemption_end()
        self._looked = now
        for ends, remove in ((self._page_ends, self._end_page), (self._file_ends, self.enforce)):
            due = [name for name, end in list(ends.items()) if end <= now]
            # Who is busy is so with the upstream, perhaps, which may take its time: the next round.
            self._each(remove, [name for name in due if not self._names.busy(name)])

    def _each(self, remove: Callable[[str], None], names: Iterable[str]) -> None:
        """One that fails keeps nothing of the others, and is due again."""
        for name in names:
            try:
                remove(name)
            except Exception:
                log.exception("%s cannot be looked through", name)

    def _next_exemption_end(self) -> float:
        return min((entry.ends for entry in self.config.exempt if entry.ends > self._clock()), default=float("inf"))

    def _end_page(self, name: str) -> None:
        with self._names(name):
            now = self._clock()
            if self._page_ends.get(name, now) <= now:
                self._drop_page(name)

    def refresh_advisories(self) -> None:
        changed = self.advisories.refresh(self._clock())
        self._file_ends.update(dict.fromkeys(changed, 0.0))  # all are due, should this end in the middle
        self._each(self.enforce, changed)

    def _watch(self) -> None:
        while True:
            try:
                self.tick()
            except Exception:  # a full disk must not end it
                log.exception("a round failed")
            time.sleep(1)

    def _watch_advisories(self) -> None:
        while self.config.packages == "proxy":
            wait = 1
            if self.advisories.due(self._clock()):
                try:
                    self.refresh_advisories()
                except Refusal as error:
                    log.warning("%s", error)
                    wait = RETRY
                except Exception:
                    log.exception("the advisories")
                    wait = RETRY
            time.sleep(wait)

    def _drop_page(self, name: str) -> None:
        self._page_ends[name] = 0.0  # due until it is done
        self.cache.drop_pages(name)
        self._page_ends.pop(name)

    # What is asked for

    def _gate(self, name: str) -> None:
        if refusal := self.policy.refusal(name):
            raise refusal
        if self.config.packages == "proxy":
            self.advisories.check()

    def _may_fetch(self, filename: str) -> None:
        if self.config.packages == "cached":
            raise Unknown(f"{filename} is not kept here, and upstream is not asked (pypi_public_packages: cached)")

    def _wanted(self, name: str, digest16: str, filename: str) -> tuple[File, Path, str, str, int | None]:
        """A listed file that may be had, where it is kept, and what has to be fetched for it: address, SHA-256, size."""
        self._gate(name)
        wheel = filename.removesuffix(".metadata")
        with self._names(name):
            known = self._catalogue.find(name, digest16, wheel)
            if not known or not known.files:
                known = self._catalogue.current(name, NEGATIVE)[0]
        file = next((file for file in known.files if file.key == (digest16, wheel)), None)
        if not file:
            raise Unknown(f"{known.upstream} lists no {wheel} with that digest")
        self.policy.check(known, file, self._clock())
        path = self.cache.path(name, digest16, filename)
        if wheel == filename:
            return file, path, file.url, file.sha256, file.size
        if not file.metadata:
            raise Unknown(f"{known.upstream} has no metadata beside {wheel}")
        parts = urlsplit(file.url)
        return file, path, urlunsplit(parts._replace(path=f"{parts.path}.metadata")), file.metadata, None

    def _only_kept(self, name: str, files: list[File]) -> list[File]:
        """Without an upstream, what is not here is not offered."""
        there = {(kept.digest16, kept.filename) for kept in self.cache.kept(name)}
        return [
            file if (file.digest16, f"{file.filename}.metadata") in there else file._replace(metadata="")
            for file in files
            if file.key in there
        ]

    # Downloads

    def _keep(self, name: str, file: File, path: Path, sha256: str) -> Callable[[Path], None]:
        def keep(temporary: Path) -> None:
            with self._names(name):
                # The rules may have changed in the meantime.
                known, now = self._catalogue.find(name, *file.key), self._clock()
                self._gate(name)
                listed = known and next(iter(known.files), None)
                if not known or not listed or sha256 not in (listed.sha256, listed.metadata):
                    return
                if temporary.stat().st_size <= self.cache.limit:  # a larger one would push out everything
                    self.policy.check(known, listed, now)
                    ends = self.policy.judge(known, listed, now).changes
                    self._file_ends[name] = min(self._file_ends.get(name, float("inf")), ends)
                    self.cache.place(temporary, path)
            self.cache.make_room(0)

        return keep

    def _end(self, path: Path, reader: str) -> Callable[[], None]:
        def end() -> None:
            with self._lock:
                self._downloads.pop(path, None)
            self._places.give(reader)

        return end


def _sha256(path: Path) -> str:
    """Nothing for what cannot be read."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
