"""The register of names: which projects are ours, also when their last file is gone or the index cannot be read.

An empty file for each name, beside the packages and once more beside the index, so that the loss of one of the two is noticed; nginx
looks at them before it asks anybody else for a project. `~complete` says that every name is there; its name makes it the last of what
is copied or restored in order. Where it is missing nginx says 503 about whatever it does not find: what cannot be read must not look
like what does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from . import files

log = logging.getLogger(__name__)

COMPLETE = "~complete"


class Register:
    """Names are normalised. Whoever takes one away holds the project's lock."""

    def __init__(self, directory: Path, twin: Path) -> None:
        self.directory, self.twin = directory, twin

    def has(self, name: str) -> bool:
        return (self.directory / name).exists() or (self.twin / name).exists()

    @property
    def complete(self) -> bool:
        return (self.directory / COMPLETE).exists()

    @property
    def names(self) -> set[str]:
        return {path.name for place in (self.directory, self.twin) if place.exists() for path in place.iterdir()} - {
            COMPLETE
        }

    def claim(self, *names: str) -> None:
        """Enter names that are not there yet; durable when this returns."""
        for place in (self.directory, self.twin):
            _enter(place, names)

    def give_up(self, name: str) -> bool:
        """Whether it was there."""
        had = self.has(name)
        for place in (self.directory, self.twin):
            (place / name).unlink(missing_ok=True)
            if place.exists():
                files.sync_directory(place)
        return had

    def build(self, names: Iterable[str], *, trusted: bool) -> bool:
        """Enter the names, and say that the register is complete. Whether it is.

        It is not when there was one that has gone, or if what is there is not to be `trusted`: another directory may be mounted in
        place of the packages'. That is for somebody to look at (`recover`), and is remembered until then.
        """
        self.claim(*self.names, *names)
        if not self.complete and ((self.twin / COMPLETE).exists() or not trusted):
            _enter(self.twin, [COMPLETE])
            log.error(
                "the register of names is gone, or there are no packages where there were some: see that the right directory is at %s,"
                " then run: python3 -m static_index recover-names. Until then nothing is asked of other indexes.",
                self.directory.parent,
            )
            return False
        self._complete()
        return True

    def recover(self, names: Iterable[str]) -> None:
        """The operator says that the packages are there: the register is what they and the rest of it tell."""
        self.claim(*self.names, *names)
        self._complete()

    def _complete(self) -> None:
        for place in (self.directory, self.twin):
            _enter(place, [COMPLETE])


def _enter(place: Path, names: Iterable[str]) -> None:
    missing = [name for name in names if not (place / name).exists()]
    if not missing:
        return
    if not place.exists():
        files.make_directory(place)
        files.sync_directory(place.parent)
    for name in missing:
        (place / name).touch(mode=0o644)
    files.sync_directory(place)
