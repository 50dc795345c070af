"""What is known of each project's files: one JSON document per project, the memory that all workers share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import files

UNFINISHED = 0


@dataclass(frozen=True)
class File:
    """One release file. `metadata` is the sha256 of its core metadata; `yanked` a reason, perhaps empty, or None."""

    filename: str
    version: str
    size: int
    mtime_ns: int
    sha256: str
    metadata: str | None = None
    requires_python: str | None = None
    yanked: str | None = None


@dataclass(frozen=True)
class Record:
    """A project's files by name, and the format of the pages that name them; UNFINISHED while these are being written."""

    files: Mapping[str, File] = field(default_factory=dict)
    pages: int = UNFINISHED


class Records:
    """The directory that holds them."""

    def __init__(self, directory: Path, spool: Path) -> None:
        self._directory, self._spool = directory, spool

    def projects(self) -> list[str]:
        return sorted(path.stem for path in self._directory.iterdir())

    def load(self, project: str) -> Record:
        """An absent or damaged record is an empty one: whatever reads it then looks at the files again."""
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            document = json.loads(self._path(project).read_bytes())
            return Record({each["filename"]: File(**each) for each in document["files"]}, document["pages"])
        return Record()

    def document(self, project: str, record: Record) -> dict[Path, bytes]:
        """The record as it is to be written, and where."""
        content = {"pages": record.pages, "files": [vars(file) for file in record.files.values()]}
        return {self._path(project): json.dumps(content, indent=0).encode()}

    def save(self, project: str, record: Record) -> None:
        files.write(self.document(project, record), self._spool)
        self.sync()

    def sync(self) -> None:
        files.sync_directory(self._directory)

    def delete(self, project: str) -> None:
        self._path(project).unlink(missing_ok=True)
        self.sync()

    def _path(self, project: str) -> Path:
        return self._directory / f"{project}.json"
