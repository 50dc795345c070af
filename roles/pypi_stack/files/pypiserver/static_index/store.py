"""Upload, remove, yank: the only code that changes anything.

All state is on disk, guarded by locks that die with their process, so any number of workers and commands agree. The
order of steps makes kill -9 and power cuts harmless:

- A file is linked into place whole, checked and fsynced. Pages that name it follow, its record comes last.
- When files leave, the record is marked unfinished first, pages follow, the bytes go last.
- So a record is never ahead of the pages. What a crash left between is a file without a record or an unfinished record,
  and both are taken up by `sync` or by the client's retry. Nothing that stood in the directory is rolled back.

Yanks (PEP 592) are kept beside the packages, per project and version, so that they survive the loss of the index.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from . import archive, files, names
from . import pages as render
from .errors import Conflict, NotFound, Refusal, Unreadable
from .records import File, Record, Records

log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
"""A file put by hand is taken for whole when it was not written to for so long."""

DIGESTS: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "md5": hashlib.md5,
    "blake2_256": lambda: hashlib.blake2b(digest_size=32),
}
"""What upload clients send along as `<name>_digest`."""


@dataclass(frozen=True)
class Claims:
    """What the client says about its upload; whatever is empty is not claimed."""

    name: str = ""
    version: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)


class Store:
    """A package directory and the index made from it."""

    def __init__(self, packages: Path, index: Path, limits: archive.Limits | None = None) -> None:
        self.packages, self.index = packages, index
        self.spool = packages / ".uploads"
        self._yanks = packages / ".yanked"
        self._metadata = index / "metadata"
        self.pages = index / "simple"
        self._temporary = index / ".tmp"
        self._locks = index / ".locks"
        self._limits = limits or archive.Limits()
        for path in (self.spool, self._yanks, self._metadata, self.pages, self._temporary, self._locks):
            files.make_directory(path)
        files.make_directory(index / "records")
        self.records = Records(index / "records", self._temporary)

    # Upload

    def add(self, filename: str, stream: BinaryIO, claims: Claims) -> File:
        """Take an upload. It is durable and on its project's pages when this returns; a Refusal leaves no trace."""
        release = names.parse(filename)
        release.check(claims.name, claims.version, "the form")
        with files.temporary_file(self.spool) as (path, file):
            digests = _copy(stream, file, {"sha256", *claims.digests})
            for algorithm, claimed in claims.digests.items():
                if claimed.lower() != digests[algorithm]:
                    raise Refusal(f"{filename}: the {algorithm} digest sent is not that of the bytes received")
            metadata = archive.read(file, release, self._limits, every_byte=True)
            os.fsync(file.fileno())
            with self.lock(release.project):
                record = self.records.load(release.project)
                if filename in record.files:
                    raise Conflict(f"Package {filename!r} already exists!")
                status, yanked = os.fstat(file.fileno()), self._yanked(release.project)
                added = _describe(release, status, digests["sha256"], metadata, yanked)
                after = {**record.files, filename: added}
                core = self._core_metadata(filename, metadata)
                self._publish(release.project, record, after, core, place=lambda: self._place(path, added))
        return added

    def _place(self, path: Path, added: File) -> None:
        """The point of no return, and the one that decides between simultaneous uploads of one name.

        The same bytes under that name without a record are an upload that was cut off here: it is finished.
        """
        final = self.packages / added.filename
        try:
            os.link(path, final)
        except FileExistsError:
            if _sha256(final) != added.sha256:
                raise Conflict(f"Package {added.filename!r} already exists!") from None
            os.replace(path, final)
        files.sync_directory(self.packages)

    # Remove and yank

    def remove(self, filename: str) -> None:
        """Delete one file."""
        project = names.parse(filename).project
        with self.lock(project):
            record = self.records.load(project)
            if filename not in record.files:
                raise NotFound(f"{filename} not found")
            self._remove(project, record, [filename])

    def remove_version(self, name: str, version: str) -> list[str]:
        """Delete all files of a version; any spelling of name and version. Returns their names."""
        project, release = names.normalise(name), names.release_key(version)
        with self.lock(project):
            record = self.records.load(project)
            doomed = _of_release(record, project, version)
            self._remove(project, record, doomed)
            self._write_yanks(project, {k: v for k, v in self._yanked(project).items() if k != release})
        return doomed

    def _remove(self, project: str, record: Record, doomed: Iterable[str]) -> None:
        self._publish(project, record, {name: file for name, file in record.files.items() if name not in doomed})
        for filename in doomed:
            (self.packages / filename).unlink(missing_ok=True)
            self._metadata_path(filename).unlink(missing_ok=True)
        files.sync_directory(self.packages)

    def yank(self, name: str, version: str, reason: str | None) -> list[str]:
        """Yank a version for a reason, perhaps an empty one; None takes the yank back. Returns the files' names."""
        project, release = names.normalise(name), names.release_key(version)
        with self.lock(project):
            record = self.records.load(project)
            affected = _of_release(record, project, version)
            others = {key: value for key, value in self._yanked(project).items() if key != release}
            self._write_yanks(project, others if reason is None else {**others, release: reason})
            changed = {filename: replace(record.files[filename], yanked=reason) for filename in affected}
            self._publish(project, record, {**record.files, **changed})
        return affected

    # Files that came or went by other hands

    def refresh(self, project: str, filenames: Iterable[str], *, anew: bool = False) -> set[str]:
        """Bring one project in line with the directory; `filenames` are those that may be new.

        Only files with another size or mtime are read. Returns those that may still be growing: ask again. With `anew`
        the pages are rendered even if nothing changed.
        """
        growing: set[str] = set()
        gone: list[str] = []
        with self.lock(project):
            record = self.records.load(project)
            yanked = self._yanked(project)
            found: dict[str, File] = {}
            for filename in sorted({*filenames, *record.files}):
                try:
                    found[filename] = self._examine(filename, record.files.get(filename), yanked)
                except _Growing:
                    growing.add(filename)
                except FileNotFoundError:
                    gone.append(filename)
                except (Refusal, PermissionError) as error:
                    log.warning("not listed: %s", error)
            if anew or found != record.files or record.pages != render.FORMAT:
                self._publish(project, record, found)
            for filename in gone:
                self._metadata_path(filename).unlink(missing_ok=True)
        return growing

    def _examine(self, filename: str, known: File | None, yanked: Mapping[str, str]) -> File:
        path = self.packages / filename
        before = path.stat()
        unchanged = known and (before.st_size, before.st_mtime_ns) == (known.size, known.mtime_ns)
        if known and unchanged and (not known.metadata or self._metadata_path(filename).exists()):
            return replace(known, yanked=yanked.get(names.release_key(known.version)) if yanked else None)
        release = names.parse(filename)
        if not stat.S_ISREG(before.st_mode):
            raise Refusal(f"{filename}: not a regular file")
        if 0 <= time.time() - before.st_mtime < SETTLE_SECONDS:
            raise _Growing
        with path.open("rb") as file:
            metadata = None
            try:
                metadata = archive.read(file, release, self._limits, every_byte=False)
            except Unreadable:
                raise
            except Refusal as error:  # whoever has access to the directory may know better, and old files are like that
                log.warning("listed without metadata: %s", error)
        sha256 = _sha256(path)
        if (after := path.stat()).st_mtime_ns != before.st_mtime_ns or after.st_size != before.st_size:
            raise _Growing
        files.write(self._core_metadata(filename, metadata), self._temporary)
        return _describe(release, before, sha256, metadata, yanked)

    # Pages

    def _publish(
        self,
        project: str,
        record: Record,
        after: Mapping[str, File],
        core: Mapping[Path, bytes] = MappingProxyType({}),
        place: Callable[[], None] = lambda: None,
    ) -> None:
        """Write the pages, then the record. Call it under the project's lock.

        `place` is called when all that needs space is done, and nothing visible has changed yet.
        """
        if any(after.get(name) != file for name, file in record.files.items()):
            kept = {name: file for name, file in record.files.items() if after.get(name) == file}
            self.records.save(project, Record(kept))
        folder = self.pages / project
        if not after:
            shutil.rmtree(folder, ignore_errors=True)
            self.records.delete(project)
            return
        if not folder.exists():
            files.make_directory(folder)
            files.sync_directory(self.pages)
        content = {folder / name: page for name, page in render.project(project, after.values()).items()}
        document = self.records.document(project, Record(after, render.FORMAT))
        with files.staged({**core, **content, **document}, self._temporary) as commit:
            place()
            commit()
        if core:
            files.sync_directory(self._metadata)
        files.sync_directory(folder)
        self.records.sync()

    def write_root(self) -> None:
        """Write the list of projects. Nothing that installs reads it, so `sync` does it, not the upload."""
        with files.lock(self._locks / "root"):
            content = render.root(self.records.projects())
            files.write({self.pages / name: page for name, page in content.items()}, self._temporary)

    # Housekeeping

    def lock(self, project: str) -> AbstractContextManager[None]:
        """One of 256 locks, so that there is none to clean up when a project goes."""
        return files.lock(self._locks / f"{zlib.crc32(project.encode()) % 256:02x}")

    def watching(self) -> AbstractContextManager[bool]:
        """True for the one process that watches the directory."""
        return files.try_lock(self._locks / "watch")

    def sweep(self, present: Iterable[str]) -> None:
        """Remove what crashes left: half-written files, metadata of files that are gone."""
        for spool in (self.spool, self._temporary):
            files.sweep(spool, older_than=time.time() - 60)
        orphans = {path.name.removesuffix(".metadata") for path in self._metadata.iterdir()}.difference(present)
        for filename in orphans:
            if not (self.packages / filename).exists():
                self._metadata_path(filename).unlink(missing_ok=True)

    def projects(self) -> set[str]:
        """Projects that have a record or pages."""
        return {*self.records.projects(), *(path.name for path in self.pages.iterdir() if path.is_dir())}

    def _metadata_path(self, filename: str) -> Path:
        return self._metadata / f"{filename}.metadata"

    def _core_metadata(self, filename: str, metadata: archive.Metadata | None) -> dict[Path, bytes]:
        """Core metadata beside the index (PEP 658), for wheels: an sdist's may say less than a build of it would."""
        return {self._metadata_path(filename): metadata.content} if metadata and filename.endswith(".whl") else {}

    def _yanked(self, project: str) -> dict[str, str]:
        with suppress(FileNotFoundError):
            yanked: dict[str, str] = json.loads((self._yanks / f"{project}.json").read_bytes())
            return yanked
        return {}

    def _write_yanks(self, project: str, yanked: Mapping[str, str]) -> None:
        path = self._yanks / f"{project}.json"
        if yanked:
            files.write({path: json.dumps(yanked, indent=2, sort_keys=True).encode()}, self.spool)
        else:
            path.unlink(missing_ok=True)
        files.sync_directory(self._yanks)


class _Growing(Exception):
    """Somebody may be writing the file."""


def _describe(
    release: names.Release,
    status: os.stat_result,
    sha256: str,
    metadata: archive.Metadata | None,
    yanked: Mapping[str, str],
) -> File:
    version = str(release.version)
    return File(
        filename=release.filename,
        version=version,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=sha256,
        metadata=hashlib.sha256(metadata.content).hexdigest() if metadata and release.is_wheel else None,
        requires_python=metadata.requires_python if metadata else None,
        yanked=yanked.get(names.release_key(version)),
    )


def _of_release(record: Record, project: str, version: str) -> list[str]:
    wanted = names.release_key(version)
    filenames = [name for name, file in record.files.items() if names.release_key(file.version) == wanted]
    if not filenames:
        raise NotFound(f"{project} ({version}) not found")
    return filenames


def _copy(source: BinaryIO, target: BinaryIO | None, algorithms: Iterable[str]) -> dict[str, str]:
    """Hex digests of the bytes from here to the end, copied to `target` on the way."""
    hashes = {name: DIGESTS[name]() for name in algorithms}
    while chunk := source.read(1 << 20):
        for each in hashes.values():
            each.update(chunk)
        if target:
            target.write(chunk)
    if target:
        target.flush()
    return {name: each.hexdigest() for name, each in hashes.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _copy(file, None, ["sha256"])["sha256"]
