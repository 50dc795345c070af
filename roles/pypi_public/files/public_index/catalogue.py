"""What upstreams say of projects: from disk as long as it is good enough, from the upstream then."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from . import listing as listings
from .cache import Cache
from .config import Config, Upstream
from .errors import Failed, Refusal, Unknown
from .listing import Listing
from .transport import Transport

LARGEST_PAGE = 32 << 20
READERS = 4
"""Pages that are parsed or rendered at once: a large one takes 100 MB meanwhile. What comes in slowly waits on disk, not here."""
NEGATIVE = 60
STALE = 30
"""Seconds after which an upstream that failed is asked again."""
STEP = 60
"""Seconds that the clock may go back; after more, what it let through is judged anew."""

log = logging.getLogger(__name__)


class Catalogue:
    """Whoever asks holds the project's lock."""

    def __init__(
        self, config: Config, cache: Cache, clock: Callable[[], float], changed: Callable[[str], None]
    ) -> None:
        """`changed` is called with a project of which something else is said now."""
        self._config, self._cache, self._clock, self._changed = config, cache, clock, changed
        self._transports = {upstream.name: Transport(upstream, config.timeout) for upstream in config.upstreams}
        self.reading = threading.BoundedSemaphore(READERS)
        self._lock = threading.Lock()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._suspended: dict[tuple[str, str], float] = {}

    def failing(self) -> list[str]:
        """Upstreams that are not asked for a while."""
        now = self._clock()
        return sorted({name for (name, _), until in list(self._suspended.items()) if until > now})

    def read(self, name: str) -> Listing | None:
        """What is known on disk; nothing if it is from an upstream that does not answer for the name any more."""
        with self.reading:
            return self._answered(name, self._cache.listing(name))

    def find(self, name: str, digest16: str, filename: str) -> Listing | None:
        """The same with one file alone, or with none if it is not listed."""
        return self._answered(name, self._cache.excerpt(name, digest16, filename))

    def _answered(self, name: str, known: Listing | None) -> Listing | None:
        upstream = self._config.upstream(name)
        return known if known and upstream and (known.upstream, known.source) == (upstream.name, upstream.url) else None

    def current(self, name: str, seconds: float) -> tuple[Listing, float]:
        """What the upstream says, confirmed within so many seconds, and until when that is good enough."""
        now, known = self._clock(), self.read(name)
        if self._config.packages == "cached":
            if known:
                return known, now + self._config.page_seconds
            raise Unknown(f"{name} is not kept here, and upstream is not asked (pypi_public_packages: cached)")
        # What is not listed any more is for lock files only; it does not make a page.
        alive = known is not None and not (known.files and all(file.withdrawn for file in known.files))
        if known and alive and now - seconds < (confirmed := self._cache.confirmed(name)) <= now + STEP:
            return known, confirmed + self._config.page_seconds
        upstream = self._upstream(name)
        if self._unknown.get(name, 0) > now:
            raise Unknown(f"{upstream.name} has no project {name}")
        everything, this = (upstream.name, ""), (upstream.name, name)
        if known and alive and max(self._suspended.get(everything, 0), self._suspended.get(this, 0)) > now:
            return known, now + STALE
        try:
            return self._fetch(name, upstream, known, now), now + self._config.page_seconds
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

    def _fetch(self, name: str, upstream: Upstream, known: Listing | None, now: float) -> Listing:
        headers = {"Accept": listings.ACCEPT, "Accept-Encoding": "gzip"}
        if known and known.etag:
            headers["If-None-Match"] = known.etag
        seconds = 2 * self._config.timeout
        body = self._cache.spool()
        with body, self._transports[upstream.name].get(f"{upstream.url}{name}/", headers, seconds) as answer:
            if answer.status == 304 and known and known.etag:
                self._recovered(name, upstream)
                self._cache.confirm_listing(name, now)
                return known
            if answer.status in (404, 410):
                raise Unknown(f"{upstream.name} has no project {name}")
            if answer.status != 200:
                raise Failed(f"{upstream.name} answers {answer.status} without being asked for it")
            for chunk in answer.chunks(LARGEST_PAGE):
                body.write(chunk)
            kind, etag = answer.headers.get("Content-Type", ""), answer.headers.get("ETag", "")[:200]
            with self.reading:
                content = answer.unpacked(body, LARGEST_PAGE)
                listing = listings.parse(name, upstream, answer.url, kind, content, etag, seconds)
        self._recovered(name, upstream)
        return self._store(listing, known, now)

    def _recovered(self, name: str, upstream: Upstream) -> None:
        for project in ("", name):
            self._suspended.pop((upstream.name, project), None)

    def _store(self, listing: Listing, known: Listing | None, now: float) -> Listing:
        """Keep what the upstream says, and what it said before of files that are kept here and listed no more."""
        name = listing.project
        if known:
            gone = {(kept.digest16, kept.filename) for kept in self._cache.kept(name)}
            gone -= {file.key for file in listing.files}
            old = [file._replace(withdrawn=True) for file in known.files if file.key in gone]
            listing = listing._replace(files=(*listing.files, *old))
        self._cache.put_listing(listing, now)
        self._changed(name)  # what it says of the files that are here may be something else now
        return listing

    def _forget(self, name: str, known: Listing | None, now: float) -> None:
        """The upstream has no such project, for now."""
        with self._lock:
            self._unknown[name] = now + min(NEGATIVE, self._config.page_seconds)
            while len(self._unknown) > 10_000:
                self._unknown.popitem(last=False)
        if known:
            left = self._store(known._replace(files=(), versions=(), etag=""), known, now)
            if not left.files:
                self._cache.drop_listing(name)
        else:
            self._changed(name)

    def _upstream(self, name: str) -> Upstream:
        upstream = self._config.upstream(name)
        assert upstream  # the gate has seen it
        return upstream

    def transport(self, name: str) -> Transport:
        return self._transports[self._upstream(name).name]
