"""Pages and files of public projects, made when they are asked for and taken away when they are no longer right."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from . import listing as listings
from .advisories import RETRY, Advisories
from .cache import Cache
from .config import Config, Upstream
from .download import Download
from .errors import Busy, Failed, Forbidden, Refusal, Unknown
from .legacy import document
from .listing import File, Listing
from .pages import render
from .policy import Policy
from .transport import Transport

LARGEST_PAGE = 32 << 20
LARGEST_METADATA = 16 << 20
DOWNLOADS = 64
"""At once; each is a thread and a connection."""
READERS = 4
"""Pages that are read or written at once: a large one takes 100 MB meanwhile."""
REMEMBERED = 60_000
"""Files of listings in memory."""
NEGATIVE = 60
STALE = 30
"""Seconds after which an upstream that failed is asked again."""
STEP = 60
"""Seconds that the clock may go back; after more, what it let through is judged anew."""
AHEAD = 2
"""Seconds that a page still has to be right for when nginx is sent to it."""

log = logging.getLogger(__name__)


class _Known(NamedTuple):
    listing: Listing
    files: dict[tuple[str, str], File]
    """By digest16 and file name."""


class Mirror:
    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.config, self._clock = config, clock
        self.cache = Cache(config.cache, config.cache_size)
        self.advisories = Advisories(self.cache, config.advisories if config.block_malware else None, config.timeout)
        self.policy = Policy(config, self.advisories.malicious)
        self._transports = {upstream.name: Transport(upstream, config.timeout) for upstream in config.upstreams}
        self._names = _Locks()
        self._reading = threading.BoundedSemaphore(READERS)
        self._lock = threading.Lock()
        self._downloads: dict[Path, Download] = {}
        self._known: OrderedDict[str, tuple[tuple[int, int], _Known]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._suspended: dict[tuple[str, str], float] = {}
        self._page_ends: dict[str, float] = {}
        self._page_times: dict[str, tuple[bytes, float]] = {}
        self._file_ends: dict[str, float] = {}
        self._exemption_ends, self._looked = self._next_exemption_end(), self._clock()

    # What clients ask for

    def page(self, name: str) -> None:
        """See to it that a project's pages are in place."""
        self._gate(name)
        with self._names(name):
            now = self._clock()
            if self._page_ends.get(name, 0) > now + AHEAD and self.cache.has_pages(name):
                return
            known, files, ends = self._offer(name, now)
            with self._reading:
                pages = render(known.listing, files)
            # nginx makes the ETag of size and time: another page is younger by a second, and the same one is not.
            digest = hashlib.sha256(pages["index.json.gz"] + pages["index.html.gz"]).digest()
            last, written = self._page_times.get(name, (b"", 0.0))
            if digest != last:
                written = max(now, written + 1)
            self.cache.make_room(sum(map(len, pages.values())))
            self.cache.put_pages(name, pages, written)
            self._page_times[name] = digest, written
            self._page_ends[name] = ends

    def document(self, name: str) -> bytes:
        """A project in the older API."""
        self._gate(name)
        with self._names(name):
            known, files, _ = self._offer(name, self._clock())
            return document(known.listing, files)

    def _offer(self, name: str, now: float) -> tuple[_Known, list[File], float]:
        """What is known of a project, its files that may be had, and until when that is right."""
        known, until = self._listing(name, self.config.page_seconds)
        offer = self.policy.offer(known.listing, now)
        files = offer.files
        if not files and offer.refused:
            raise Forbidden(offer.refused)
        if self.config.packages == "cached":
            files = self._only_kept(name, files)
        return known, files, min(until, offer.changes)

    def file(self, name: str, digest16: str, filename: str) -> Path | Download:
        """A file that is kept, or one that is being fetched."""
        file, path, url, sha256, size = self._wanted(name, digest16, filename)
        if path.exists():
            self.cache.touch(path, self._clock())
            return path
        if self.config.packages == "cached":
            raise Unknown(f"{filename} is not kept here, and upstream is not asked (pypi_public_packages: cached)")
        with self._lock:
            if found := self._downloads.get(path):
                return found
            if len(self._downloads) >= DOWNLOADS:
                raise Busy(f"{DOWNLOADS} files are being fetched already", 5)
            limit = LARGEST_METADATA if filename != file.filename else self.config.cache_size
            download = Download(self._transport(name), self.cache, url, sha256, size, limit)
            arguments = self._keep(name, file, path), self._end(path)
            # Nobody may wait for one that could not be started.
            threading.Thread(target=download.run, daemon=True, args=arguments).start()
            self._downloads[path] = download
        return download

    def size(self, name: str, digest16: str, filename: str) -> Path | int | None:
        """A file that is kept, or the bytes of one that is not, if known."""
        _file, path, _url, _sha256, size = self._wanted(name, digest16, filename)
        return path if path.exists() else size

    def exists(self, name: str) -> str:
        """The name of the upstream that has a project of this name; an Unknown if none has, any other Refusal if nobody knows."""
        if refusal := self.policy.refusal(name):
            raise refusal
        with self._names(name):
            return self._listing(name, self.config.page_seconds)[0].listing.upstream

    def files(self, name: str) -> tuple[File, ...]:
        """What the upstream lists, whether or not it may be had."""
        self._gate(name)
        with self._names(name):
            return self._listing(name, self.config.page_seconds)[0].listing.files

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
            "failing": sorted({name for (name, _), until in list(self._suspended.items()) if until > now}),
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
        for name in self.cache.projects():
            self.enforce(name)

    def watch(self) -> None:
        """Do what is due from now on, in threads."""
        threading.Thread(target=self._watch, daemon=True).start()
        threading.Thread(target=self._watch_advisories, daemon=True).start()

    def enforce(self, name: str) -> None:
        """Remove a project's pages, and its files that are not allowed (any more)."""
        with self._names(name):
            self._drop_page(name)
            now, ends = self._clock(), float("inf")
            known = None if self.policy.refusal(name) else self._read(name)
            for kept in self.cache.kept(name):
                file = known and known.files.get((kept.digest16, kept.filename.removesuffix(".metadata")))
                reason = "it is no longer known to be allowed"
                if known and file:
                    reason, changes = self.policy.judge(known.listing, file, now)
                    ends = min(ends, changes)
                if reason:
                    log.warning("removed %s: %s", kept.filename, reason)
                    self.cache.drop_file(kept)
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
            for name in [name for name, end in list(ends.items()) if end <= now]:
                if not self._names.busy(name):  # with the upstream, perhaps, which may take its time: the next round
                    remove(name)

    def _next_exemption_end(self) -> float:
        return min((entry.ends for entry in self.config.exempt if entry.ends > self._clock()), default=float("inf"))

    def _end_page(self, name: str) -> None:
        with self._names(name):
            now = self._clock()
            if self._page_ends.get(name, now) <= now:
                self._drop_page(name)

    def refresh_advisories(self) -> None:
        changed = self.advisories.refresh(self._clock())
        self._file_ends.update(dict.fromkeys(changed, 0.0))  # due until it is done, should one of them fail
        for name in changed:
            self.enforce(name)

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
        self._page_ends.pop(name, None)
        self.cache.drop_pages(name)

    # Listings

    def _gate(self, name: str) -> None:
        if refusal := self.policy.refusal(name):
            raise refusal
        if self.config.packages == "proxy":
            self.advisories.check()

    def _upstream(self, name: str) -> Upstream:
        upstream = self.config.upstream(name)
        assert upstream  # the gate has seen it
        return upstream

    def _transport(self, name: str) -> Transport:
        return self._transports[self._upstream(name).name]

    def _wanted(self, name: str, digest16: str, filename: str) -> tuple[File, Path, str, str, int | None]:
        """A listed file that may be had, where it is kept, and what has to be fetched for it: address, SHA-256, size."""
        self._gate(name)
        wheel = filename.removesuffix(".metadata")
        with self._names(name):
            known = self._read(name)
            if not known or (digest16, wheel) not in known.files:
                known = self._listing(name, NEGATIVE)[0]
        file = known.files.get((digest16, wheel))
        if not file:
            raise Unknown(f"{known.listing.upstream} lists no {wheel} with that digest")
        self.policy.check(known.listing, file, self._clock())
        path = self.cache.path(name, digest16, filename)
        if wheel == filename:
            return file, path, file.url, file.sha256, file.size
        if not file.metadata:
            raise Unknown(f"{known.listing.upstream} has no metadata beside {wheel}")
        parts = urlsplit(file.url)
        return file, path, urlunsplit(parts._replace(path=f"{parts.path}.metadata")), file.metadata, None

    def _read(self, name: str) -> _Known | None:
        """What is known on disk; nothing if it is from an upstream that does not answer for the name any more."""
        stamp = self.cache.listing_stamp(name)
        if not stamp:
            return None
        with self._lock:
            found = self._known.get(name)
            if found and found[0] == stamp:
                self._known.move_to_end(name)
                return found[1]
        with self._reading:
            kept = self.cache.listing(name)
        upstream = self.config.upstream(name)
        if not kept or not upstream or (kept[0].upstream, kept[0].source) != (upstream.name, upstream.url):
            return None
        return self._remember(kept[0])

    def _remember(self, listing: Listing) -> _Known:
        known = _Known(listing, {(file.digest16, file.filename): file for file in listing.files})
        if stamp := self.cache.listing_stamp(listing.project):
            with self._lock:
                self._known[listing.project] = stamp, known
                self._known.move_to_end(listing.project)
                while len(self._known) > 1 and sum(len(k.files) for _, k in self._known.values()) > REMEMBERED:
                    self._known.popitem(last=False)
        return known

    def _listing(self, name: str, seconds: float) -> tuple[_Known, float]:
        """What the upstream says, confirmed within so many seconds, and until when that is good enough."""
        now, known = self._clock(), self._read(name)
        if self.config.packages == "cached":
            if known:
                return known, now + self.config.page_seconds
            raise Unknown(f"{name} is not kept here, and upstream is not asked (pypi_public_packages: cached)")
        # What is not listed any more is for lock files only; it does not make a page.
        alive = known is not None and not (known.files and all(file.withdrawn for file in known.listing.files))
        if known and alive and now - seconds < (confirmed := self.cache.confirmed(name)) <= now + STEP:
            return known, confirmed + self.config.page_seconds
        upstream = self._upstream(name)
        if self._unknown.get(name, 0) > now:
            raise Unknown(f"{upstream.name} has no project {name}")
        everything, this = (upstream.name, ""), (upstream.name, name)
        if known and alive and max(self._suspended.get(everything, 0), self._suspended.get(this, 0)) > now:
            return known, now + STALE
        try:
            return self._fetch(name, upstream, known, now), now + self.config.page_seconds
        except Unknown:
            self._forget(name, known, now)
            raise
        except Refusal as error:
            log.warning("%s: %s", name, error)
            if not known or not alive:
                raise
            # One page that cannot be read must not keep all others as they are.
            self._suspended[everything if error.away else this] = now + STALE
            return known, now + STALE

    def _fetch(self, name: str, upstream: Upstream, known: _Known | None, now: float) -> _Known:
        headers = {"Accept": listings.ACCEPT, "Accept-Encoding": "gzip"}
        if known and known.listing.etag:
            headers["If-None-Match"] = known.listing.etag
        seconds = 2 * self.config.timeout
        with self._transports[upstream.name].get(f"{upstream.url}{name}/", headers, seconds) as answer:
            if answer.status == 304 and known and known.listing.etag:
                self._recovered(name, upstream)
                self.cache.confirm_listing(name, now)
                return known
            if answer.status in (404, 410):
                raise Unknown(f"{upstream.name} has no project {name}")
            if answer.status != 200:
                raise Failed(f"{upstream.name} answers {answer.status} without being asked for it")
            with self._reading:
                content, kind = answer.read(LARGEST_PAGE), answer.headers.get("Content-Type", "")
                etag = answer.headers.get("ETag", "")[:200]
                listing = listings.parse(name, upstream, answer.url, kind, content, etag, seconds)
        self._recovered(name, upstream)
        return self._store(listing, known, now)

    def _recovered(self, name: str, upstream: Upstream) -> None:
        for project in ("", name):
            self._suspended.pop((upstream.name, project), None)

    def _store(self, listing: Listing, known: _Known | None, now: float) -> _Known:
        """Keep what the upstream says, and what it said before of files that are kept here and listed no more."""
        name = listing.project
        if known:
            there = {(file.digest16, file.filename) for file in listing.files}
            gone = {(kept.digest16, kept.filename) for kept in self.cache.kept(name)} - there
            old = [known.files[key]._replace(withdrawn=True) for key in gone if key in known.files]
            listing = listing._replace(files=(*listing.files, *old))
        self.cache.put_listing(listing, now)
        stored = self._remember(listing)
        self.enforce(name)  # what it says of the files that are here may be something else now
        return stored

    def _forget(self, name: str, known: _Known | None, now: float) -> None:
        """The upstream has no such project, for now."""
        self._drop_page(name)
        with self._lock:
            self._unknown[name] = now + min(NEGATIVE, self.config.page_seconds)
            while len(self._unknown) > 10_000:
                self._unknown.popitem(last=False)
        if known:
            left = self._store(known.listing._replace(files=(), versions=(), etag=""), known, now)
            if not left.files:
                self.cache.drop_listing(name)

    def _only_kept(self, name: str, files: list[File]) -> list[File]:
        """Without an upstream, what is not here is not offered."""
        there = {(kept.digest16, kept.filename) for kept in self.cache.kept(name)}
        return [
            file if (file.digest16, f"{file.filename}.metadata") in there else file._replace(metadata="")
            for file in files
            if (file.digest16, file.filename) in there
        ]

    # Downloads

    def _keep(self, name: str, file: File, path: Path) -> Callable[[Path], None]:
        def keep(temporary: Path) -> None:
            with self._names(name):
                # The rules may have changed in the meantime.
                known, now = self._read(name), self._clock()
                self._gate(name)
                if known and temporary.stat().st_size <= self.cache.limit:  # a larger one would push out everything
                    self.policy.check(known.listing, file, now)
                    ends = self.policy.judge(known.listing, file, now).changes
                    self._file_ends[name] = min(self._file_ends.get(name, float("inf")), ends)
                    self.cache.place(temporary, path)
            self.cache.make_room(0)

        return keep

    def _end(self, path: Path) -> Callable[[], None]:
        def end() -> None:
            with self._lock:
                self._downloads.pop(path, None)

        return end


class _Locks:
    """A lock for each name that somebody holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Any, int]] = {}

    def busy(self, name: str) -> bool:
        return name in self._held

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._lock:
            lock, holders = self._held.get(name, (threading.RLock(), 0))
            self._held[name] = lock, holders + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, holders = self._held[name]
                if holders > 1:
                    self._held[name] = lock, holders - 1
                else:
                    del self._held[name]
