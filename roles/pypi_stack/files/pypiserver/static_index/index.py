"""What is made from the packages and can be made again: each project's pages, record and core metadata, on disk.

The order of steps makes kill -9 and power cuts harmless. Pages that name a file follow the file, the record comes last; when files
leave, the record is marked unfinished first. So a record is never ahead of the pages, and one that is behind does not agree
with them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import MappingProxyType

from . import files, legacy, records
from . import pages as render
from .records import File, Record, Records

Place = Callable[[], None]


class Index:
    """The index directory. Everything that changes a project is called under its lock."""

    def __init__(self, directory: Path, url: str = "../..") -> None:
        self.directory, self.url = directory, url
        self.pages = directory / "simple"
        self.metadata = directory / "metadata"
        self.legacy = directory / "legacy"
        self.temporary = directory / ".tmp"
        self._locks = directory / ".locks"
        self.records = Records(directory / "records", self.temporary)
        self.directories = (self.pages, self.metadata, self.legacy, self.temporary, self._locks, self.records.directory)

    def lock(self, project: str) -> AbstractContextManager[None]:
        """One of 256 locks, so that there is none to clean up when a project goes."""
        return files.lock(self._locks / f"{zlib.crc32(project.encode()) % 256:02x}")

    def watching(self) -> AbstractContextManager[bool]:
        """True for the one process that watches the package directory."""
        return files.try_lock(self._locks / "watch")

    def projects(self) -> set[str]:
        """Projects that have a record or pages."""
        return {*self.records.projects(), *(path.name for path in self.pages.iterdir() if path.is_dir())}

    def knows(self, project: str) -> bool:
        return self.records.path(project).exists() or (self.pages / project).exists()

    def agrees(self, project: str, record: Record) -> bool:
        """Whether the record is whole, and the pages are those that were made from it."""
        if not record.intact or record.pages != render.FORMAT or not len(record):
            return False
        folder = self.pages / project
        try:
            for kind, trailer in zip(render.KINDS, render.trailers(_known(project, record)), strict=True):
                with (folder / f"{kind.name}.gz").open("rb") as file:
                    file.seek(-len(trailer), os.SEEK_END)
                    if file.read() != trailer:
                        return False
                plain = folder / kind.name
                if plain.exists() != (len(record) <= render.PLAIN):
                    return False
                if plain.exists() and plain.stat().st_size != int.from_bytes(trailer[-4:], "little"):
                    return False
        except OSError:
            return False
        return True

    def unlike(self, project: str, record: Record) -> list[Path]:
        """Pages and documents that are not, byte by byte, what is made from a whole record."""
        rendered, folder = _rendered(project, _in_order(record.files)).contents, self.pages / project
        wanted = {folder / name: content for name, content in rendered.items()}
        if self._tells(project, record):  # else it is behind, and about to be made
            wanted[self.legacy_path(project)] = self._document(project, record)
        return [path for path, content in wanted.items() if files.content(path) != content]

    # Writing

    def publish(
        self,
        project: str,
        record: Record,
        after: Mapping[str, File],
        core: Mapping[Path, bytes] = MappingProxyType({}),
        place: Place = lambda: None,
    ) -> None:
        """Write a project anew: core metadata and pages, then the record.

        `place` is called when all that needs space is done, and nothing visible has changed yet.
        """
        kept = {name: file for name, file in record.files.items() if after.get(name) == file}
        if len(kept) < len(record.files):
            self.records.save(project, records.document(_in_order(kept), records.UNFINISHED))
        if not after:
            shutil.rmtree(self.pages / project, ignore_errors=True)
            self.legacy_path(project).unlink(missing_ok=True)
            self.records.delete(project)
            return
        ordered = _in_order(after)
        rendered = _rendered(project, ordered)
        document = {self.records.path(project): records.document(ordered, render.FORMAT, rendered.seals)}
        self._write(project, core, rendered, document, place)

    def add(self, project: str, record: Record, added: File, core: Mapping[Path, bytes], place: Place) -> None:
        """Write a project with one file more. The record has to agree with the pages, or to be empty."""
        last = record.last
        if not last or added.place < last.place:
            self.publish(project, record, {**record.files, added.filename: added}, core, place)
            return
        known = _known(project, record, added)
        sealed = []
        for kind, seal in zip(render.KINDS, known.seals, strict=False):
            with (self.pages / project / f"{kind.name}.gz").open("rb") as file:
                sealed.append(file.read(seal.packed))
        rendered = render.project(known, sealed)
        addition = records.addition(added, rendered.seals.get(len(record) + 1))
        # What a power cut takes of a record, the file and its pages still tell: the one does not agree with the others then.
        with files.appending(self.records.path(project), len(record.content), addition) as append:
            self._write(project, core, rendered, {}, place)
            append()

    def _write(
        self,
        project: str,
        core: Mapping[Path, bytes],
        rendered: render.Pages,
        document: Mapping[Path, bytes],
        place: Place,
    ) -> None:
        folder = self.pages / project
        if not folder.exists():
            files.make_directory(folder)
            files.sync_directory(self.pages)
        contents = {folder / name: content for name, content in rendered.contents.items() if content is not None}
        with files.staged({**core, **contents, **document}, self.temporary) as commit:
            place()
            commit()
        for name, content in rendered.contents.items():
            if content is None:
                (folder / name).unlink(missing_ok=True)
        if core:
            files.sync_directory(self.metadata)
        files.sync_directory(folder)
        self.records.sync()

    @property
    def made(self) -> bool:
        """Whether the directory was looked through since the index was empty; nginx looks at this too (pages.js)."""
        return (self.pages / "index.html").exists()

    def write_root(self) -> None:
        """Write the list of projects. Nothing that installs reads it, so `sync` does it, not the upload."""
        with files.lock(self._locks / "root"):
            content = render.root(self.records.projects())
            files.write({self.pages / name: page for name, page in content.items()}, self.temporary)

    # The older API

    def legacy_path(self, project: str) -> Path:
        return self.legacy / f"{project}.json"

    def write_legacy(self, project: str, *, anew: bool = False) -> None:
        """Bring a project's document in line with its record."""
        record, path = self.records.load(project), self.legacy_path(project)
        if not anew and self._tells(project, record):
            return
        if record.files:
            files.write({path: self._document(project, record)}, self.temporary)
        else:
            path.unlink(missing_ok=True)

    def _document(self, project: str, record: Record) -> bytes:
        known = list(record.files.values())
        core = next((self._core(file.filename) for file in legacy.newest(known) if file.metadata), None)
        return legacy.document(project, known, core, self.url, legacy.serial(record.content, self.url))

    def lags(self, path: str) -> bool:
        """Whether a path below the index directory is a document that was made from an older record."""
        place = self.directory / path
        return place.parent == self.legacy and not self._tells(place.stem, self.records.load(place.stem))

    def _tells(self, project: str, record: Record) -> bool:
        ending = legacy.tail(legacy.serial(record.content, self.url))
        with suppress(OSError), self.legacy_path(project).open("rb") as file:
            file.seek(-len(ending), os.SEEK_END)
            return file.read() == ending
        return False

    def _core(self, filename: str) -> bytes | None:
        return files.content(self.metadata_path(filename))

    # Core metadata

    def metadata_path(self, filename: str) -> Path:
        return self.metadata / f"{filename}.metadata"

    def drop_metadata(self, filename: str) -> None:
        self.metadata_path(filename).unlink(missing_ok=True)

    def drop_damaged_metadata(self, record: Record) -> None:
        for file in record.files.values():
            if file.metadata and not self.has_metadata(file):
                self.drop_metadata(file.filename)

    def has_metadata(self, file: File) -> bool:
        """Whether it is there and has the digest that is recorded."""
        return hashlib.sha256(self._core(file.filename) or b"").hexdigest() == file.metadata

    # Housekeeping

    def sweep(self, kept: Iterable[str], exists: Callable[[str], bool]) -> None:
        """Remove what crashes and older versions left. `kept` are files that are listed; `exists` is asked about the others."""
        files.sweep(self.temporary, older_than=time.time() - 60)
        for filename in {path.name.removesuffix(".metadata") for path in self.metadata.iterdir()}.difference(kept):
            if not exists(filename):
                self.drop_metadata(filename)
        for path in self.records.directory.iterdir():
            if path.suffix != records.SUFFIX:
                with suppress(OSError):
                    path.unlink()


def _rendered(project: str, ordered: list[File]) -> render.Pages:
    """All pages, from the first file on."""
    return render.project(render.Known(project, ordered, list(dict.fromkeys(file.version for file in ordered))))


def _in_order(after: Mapping[str, File]) -> list[File]:
    return sorted(after.values(), key=lambda file: file.place)


def _known(project: str, record: Record, *added: File) -> render.Known:
    versions = [*record.versions, *(file.version for file in added if file.version not in record.versions)]
    return render.Known(project, [*record.tail, *added], versions, len(record) - len(record.tail), record.seals)
