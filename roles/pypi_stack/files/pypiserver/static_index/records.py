"""What is known of each project's files: a file of JSON lines per project, the memory that all workers share.

The first line is about the pages, each of the others about one file, in the order of the pages. Behind every block of files a line
says where it ends on the compressed pages. So an upload reads the end of a record only, and appends to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from . import files

UNFINISHED = 0
"""In place of the pages' format: they are being written."""
SUFFIX = ".jsonl"

# Inside of a JSON string every quote has a backslash in front, so these are found where they are meant only.
_FILE = b'{"filename":'
_SEALS = b'{"seals":'
_VERSION = re.compile(rb',"version":"([^"\\]*)"')


@dataclass(frozen=True)
class File:
    """One release file.

    `release` is the key of its version (`names.release_key`), `metadata` the sha256 of its core metadata, `yanked` a reason,
    perhaps empty, or None.
    """

    filename: str
    version: str
    release: str
    size: int
    mtime_ns: int
    sha256: str
    metadata: str | None = None
    requires_python: str | None = None
    yanked: str | None = None

    @property
    def place(self) -> tuple[int, str]:
        """Pages go by the time of upload: a new file comes last, and what is before it stays as it is."""
        return self.mtime_ns, self.filename


class Seal(NamedTuple):
    """The part of a compressed page that later files do not change: its length, and the length and CRC of what is in it."""

    packed: int
    size: int
    crc: int


Seals = tuple[Seal, ...]
"""One for each kind of page."""


class Record:
    """A project's files, looked for in the record's text as far as somebody asks: there may be ten thousand."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content[: content.rfind(b"\n") + 1]  # without a line that was cut off
        self._damaged = not content or len(self.content) != len(content)

    @property
    def intact(self) -> bool:
        """False when nothing was there, or a part that has been looked at could not be read."""
        return bool(self._end) and not self._damaged

    @property
    def pages(self) -> int:
        return self._end[0] if self._end else UNFINISHED

    @property
    def seals(self) -> Seals:
        """The last ones."""
        return self._end[1] if self._end else ()

    @property
    def tail(self) -> list[File]:
        """The files behind the last seals."""
        return self._end[2] if self._end else []

    @cached_property
    def _end(self) -> tuple[int, Seals, list[File]] | None:
        try:
            pages = json.loads(self.content[: self.content.find(b"\n") + 1])["pages"]
            at = self.content.rfind(b"\n" + _SEALS) + 1
            first, *lines = self.content[at:].splitlines()
            seals = tuple(Seal(*each) for each in json.loads(first).get("seals", ()))
            return pages, seals, [File(**json.loads(line)) for line in lines]
        except (ValueError, KeyError, TypeError):
            return None

    @cached_property
    def files(self) -> dict[str, File]:
        """All of them by name. Unreadable lines are left out, and the record is not intact then."""
        found: dict[str, File] = {}
        for line in self.content.splitlines()[1:]:
            try:
                if not line.startswith(_SEALS):
                    file = File(**json.loads(line))
                    found[file.filename] = file
            except (ValueError, TypeError):
                self._damaged = True
        return found

    def file(self, filename: str) -> File | None:
        return next(self._having(_FILE + json.dumps(filename).encode() + b","), None)

    def of_release(self, key: str) -> list[File]:
        return list(self._having(b',"release":' + json.dumps(key).encode() + b","))

    @cached_property
    def versions(self) -> list[str]:
        """Each once, in the order of the pages."""
        return [version.decode() for version in dict.fromkeys(_VERSION.findall(self.content))]

    @property
    def last(self) -> File | None:
        at = self.content.rfind(b"\n" + _FILE) + 1
        return File(**json.loads(self.content[at : self.content.find(b"\n", at)])) if at else None

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return self.content.count(b"\n" + _FILE)

    def _having(self, part: bytes) -> Iterator[File]:
        at = self.content.find(part)
        while at >= 0:
            start, end = self.content.rfind(b"\n", 0, at) + 1, self.content.find(b"\n", at)
            with suppress(ValueError, TypeError):
                yield File(**json.loads(self.content[start:end]))
            at = self.content.find(part, end)


def document(ordered: Iterable[File], pages: int, seals: Mapping[int, Seals] = MappingProxyType({})) -> bytes:
    """A whole record. `seals` by the number of files before them."""
    lines: list[Any] = [{"pages": pages}]
    for number, file in enumerate(ordered, start=1):
        lines.append(vars(file))
        if number in seals:
            lines.append({"seals": seals[number]})
    return _lines(lines)


def addition(added: File, seals: Seals | None) -> bytes:
    """What an upload appends; `seals` if it filled a block."""
    return _lines([vars(added), *([{"seals": seals}] if seals else [])])


def _lines(documents: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in documents)


class Records:
    """The directory that holds them."""

    def __init__(self, directory: Path, spool: Path) -> None:
        self.directory, self._spool = directory, spool

    def projects(self) -> list[str]:
        return sorted(path.stem for path in self.directory.iterdir() if path.suffix == SUFFIX)

    def load(self, project: str) -> Record:
        with suppress(FileNotFoundError):
            return Record(self.path(project).read_bytes())
        return Record()

    def path(self, project: str) -> Path:
        return self.directory / f"{project}{SUFFIX}"

    def save(self, project: str, content: bytes) -> None:
        """Replace a record; durable when this returns."""
        files.write({self.path(project): content}, self._spool)
        self.sync()

    def sync(self) -> None:
        files.sync_directory(self.directory)

    def delete(self, project: str) -> None:
        self.path(project).unlink(missing_ok=True)
        self.sync()
