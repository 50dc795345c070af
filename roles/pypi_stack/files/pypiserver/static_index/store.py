"""Upload, remove, yank: the only code that changes anything.

All state is on disk, guarded by locks that die with their process, so any number of workers and commands agree. A file is linked
into place whole, checked and fsynced; the index follows (`index`). What a crash leaves between is a file that the record does not
know, or a record that does not agree with its pages: both are mended before the project's next change, and by `sync`. Nothing that
stood in the directory is rolled back.

Yanks (PEP 592) are kept beside the packages, per project and version, so that they survive the loss of the index.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from . import files, names
from .archive import Metadata
from .errors import Conflict, Damaged, NotFound, Refusal, Unreadable
from .index import Index
from .inspector import Inspector
from .owned import Register
from .records import File, Record

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


@dataclass(frozen=True)
class Past:
    """What a file brings along that was released elsewhere: its upload (nanoseconds since the epoch), and why its version is yanked.

    None is what nobody knows, or no yank.
    """

    uploaded_ns: int | None = None
    yanked: str | None = None


class Incoming:
    """A file that is being received, beside the packages: what is written here is linked to its place and never copied."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self._sha256.update(data)

    def digest(self, algorithm: str) -> str:
        """Of all that was written, in hex."""
        self.file.flush()
        return self._sha256.hexdigest() if algorithm == "sha256" else files.digest(self.path, DIGESTS[algorithm])


class Store:
    """A package directory and the index made from it."""

    def __init__(self, packages: Path, index: Path, inspector: Inspector | None = None, url: str = "../..") -> None:
        """`url`: where clients find the index, for what wants whole addresses."""
        self.packages = packages
        self.spool = packages / ".uploads"
        self._yanks = packages / ".yanked"
        self.index = Index(index, url)
        self.register = Register(packages / ".owned", index / ".owned")
        self.inspector = inspector or Inspector()
        self.prepare()

    def prepare(self) -> None:
        """Make the directories that are missing."""
        for path in (self.spool, self._yanks, *self.index.directories):
            files.make_directory(path)

    # Upload

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """Room for an upload; whatever has not been added is gone afterwards."""
        with files.temporary_file(self.spool) as (path, file):
            yield Incoming(path, file)

    def add(self, filename: str, incoming: Incoming, claims: Claims, past: Past | None = None) -> tuple[File, bool]:
        """Take an upload, and whether it is new. It is durable and on its project's pages when this returns.

        The same bytes again are no error: a client that lost the answer asks once more. A Refusal leaves no trace. With a `past` the
        name may be spelled as tools once did, for what is released is called so in lock files; a version that has files here keeps
        its own yank, or none.
        """
        release = names.parse(filename)
        release.check(claims.name, claims.version, "the form")
        for algorithm, claimed in claims.digests.items():
            if claimed.lower() != incoming.digest(algorithm):
                raise Refusal(f"{filename}: the {algorithm} digest sent is not that of the bytes received")
        sha256 = incoming.digest("sha256")
        if twin := _twin(self.index.records.load(release.project), release, sha256):  # spares us reading the archive
            return twin, False
        if past is None:
            release.refuse_odd_spelling()
        metadata = self.inspector.read(incoming.file, filename, strict=True)
        if past and past.uploaded_ns is not None:
            os.utime(incoming.file.fileno(), ns=(past.uploaded_ns, past.uploaded_ns))
        os.fsync(incoming.file.fileno())
        with self.index.lock(release.project):
            record = self._settled(release.project)
            if twin := _twin(record, release, sha256):
                return twin, False
            if past is None or past.uploaded_ns is None:
                _make_younger(incoming.file, record)
            if past and past.yanked is not None:
                self._yank_first(release, record, past.yanked)
            status, yanked = os.fstat(incoming.file.fileno()), self.yanked(release.project)
            added = _describe(release, status, sha256, metadata, yanked)
            core = self._core_metadata(filename, metadata)

            def place() -> None:
                self.register.claim(release.project)
                self._place(incoming.path, added)

            self.index.add(release.project, record, added, core, place)
        return added, True

    def owns(self, project: str) -> bool:
        """Whether the name is ours: it has files, or had some."""
        return self.register.has(project) or self.index.knows(project)

    def _place(self, path: Path, added: File) -> None:
        """The point of no return.

        The same bytes under that name without a record are an upload that was cut off here: it is finished.
        """
        final = self.packages / added.filename
        try:
            os.link(path, final)
        except FileExistsError:
            if files.digest(final) != added.sha256:
                raise Conflict(_taken(added.filename, added.filename)) from None
            os.replace(path, final)
        files.sync_directory(self.packages)

    # Remove and yank

    def remove(self, filename: str) -> None:
        """Delete one file."""
        project = names.parse(filename).project
        with self.index.lock(project):
            record = self._settled(project, whole=True)
            if filename not in record.files:
                raise NotFound(f"{filename} not found")
            self._remove(project, record, [filename])
            self.index.write_legacy(project)

    def remove_version(self, name: str, version: str) -> list[str]:
        """Delete all files of a version; any spelling of name and version. Returns their names."""
        project, release = names.normalise(name), names.release_key(version)
        with self.index.lock(project):
            record = self._settled(project, whole=True)
            doomed = _of_release(record, project, version)
            self._remove(project, record, doomed)
            self._write_yanks(project, {k: v for k, v in self.yanked(project).items() if k != release})
            self.index.write_legacy(project)
        return doomed

    def give_up(self, name: str) -> None:
        """Let go of a name: from now on it may be another index's project. Refused while it has files."""
        project = names.normalise(name)
        with self.index.lock(project):
            if self.present(project) or len(self.index.records.load(project)):
                raise Conflict(f"{project} has files; delete them first")
            if not self.register.give_up(project):
                raise NotFound(f"{project} is no name of this index")

    def _remove(self, project: str, record: Record, doomed: Iterable[str]) -> None:
        self.index.publish(project, record, {name: file for name, file in record.files.items() if name not in doomed})
        for filename in doomed:
            (self.packages / filename).unlink(missing_ok=True)
            self.index.drop_metadata(filename)
        files.sync_directory(self.packages)

    def yank(self, name: str, version: str, reason: str | None) -> list[str]:
        """Yank a version for a reason, perhaps an empty one; None takes the yank back. Returns the files' names."""
        project, release = names.normalise(name), names.release_key(version)
        with self.index.lock(project):
            record = self._settled(project, whole=True)
            affected = _of_release(record, project, version)
            others = {key: value for key, value in self.yanked(project).items() if key != release}
            self._write_yanks(project, others if reason is None else {**others, release: reason})
            changed = {filename: replace(record.files[filename], yanked=reason) for filename in affected}
            self.index.publish(project, record, {**record.files, **changed})
            self.index.write_legacy(project)
        return affected

    def _yank_first(self, release: names.Release, record: Record, reason: str) -> None:
        """Before the first file of a version is there: nobody may choose it meanwhile."""
        key = names.release_key(str(release.version))
        if not record.of_release(key):
            self._write_yanks(release.project, {key: reason, **self.yanked(release.project)})

    # Files that came or went by other hands

    def refresh(self, project: str, filenames: Iterable[str], *, whole: bool, anew: bool = False) -> set[str]:
        """Bring one project in line with the directory; `filenames` are those that may have come, gone or changed.

        `whole`: they are all that there are, so every file that is known is looked at as well. Only files with another size or
        mtime are read. Returns those that may still be growing: ask again. With `anew` what is made of them is made again even if
        nothing changed.
        """
        with self.index.lock(project):
            record = self.index.records.load(project)
            growing: set[str] = set()
            if anew:
                self.index.drop_damaged_metadata(record)
            if whole or not record.intact or not all(self._unchanged(record.file(name), name) for name in filenames):
                growing = self._refresh(project, record, filenames, anew)
            self.index.write_legacy(project, anew=anew)
            return growing

    def _settled(self, project: str, *, whole: bool = False) -> Record:
        """The record, when it agrees with the pages; else after it was made so. `whole`: and every line of it can be read."""
        record = self.index.records.load(project)
        if not self.index.knows(project):
            return record
        if self.index.agrees(project, record) and not (whole and len(record.files) != len(record)):
            return record
        log.warning("%s: the record and the pages do not agree; looking at its files", project)
        self._refresh(project, record, self.present(project), anew=False)
        return self.index.records.load(project)

    def _refresh(self, project: str, record: Record, filenames: Iterable[str], anew: bool) -> set[str]:
        growing: set[str] = set()
        gone: list[str] = []
        yanked = self.yanked(project)
        found: dict[str, File] = {}
        if any((self.packages / filename).exists() for filename in filenames):
            self.register.claim(project)  # before its page is there, and while the file is still growing
        for filename in sorted({*filenames, *record.files}):
            try:
                found[filename] = self._examine(filename, record.files.get(filename), yanked)
            except _Growing:
                growing.add(filename)
            except FileNotFoundError:
                gone.append(filename)
            except (Refusal, PermissionError) as error:
                log.warning("not listed: %s", error)
        settled = self.index.agrees(project, record) if found else not self.index.knows(project)
        if anew or found != record.files or not settled:
            self.index.publish(project, record, found)
        for filename in gone:
            self.index.drop_metadata(filename)
        return growing

    def _examine(self, filename: str, known: File | None, yanked: Mapping[str, str]) -> File:
        if known and self._unchanged(known, filename):
            return replace(known, yanked=yanked.get(known.release) if yanked else None)
        path = self.packages / filename
        before = path.stat()
        release = names.parse(filename)
        if not stat.S_ISREG(before.st_mode):
            raise Refusal(f"{filename}: not a regular file")
        if 0 <= time.time() - before.st_mtime < SETTLE_SECONDS:
            raise _Growing
        with path.open("rb") as file:
            metadata = None
            try:
                metadata = self.inspector.read(file, filename, strict=False)
            except Unreadable:
                raise
            except Refusal as error:  # whoever has access to the directory may know better, and old files are like that
                log.warning("listed without metadata: %s", error)
        sha256 = files.digest(path)
        if (after := path.stat()).st_mtime_ns != before.st_mtime_ns or after.st_size != before.st_size:
            raise _Growing
        if known and sha256 != known.sha256 and (known.size, known.mtime_ns) == (after.st_size, after.st_mtime_ns):
            log.error("%s is damaged: its sha256 is %s, recorded is %s, which stays", filename, sha256, known.sha256)
            return replace(known, yanked=yanked.get(known.release))
        files.write(self._core_metadata(filename, metadata), self.index.temporary)
        return _describe(release, before, sha256, metadata, yanked)

    def _unchanged(self, known: File | None, filename: str) -> bool:
        """Whether a file is as its record has it, or is neither there nor known."""
        try:
            status = (self.packages / filename).stat()
        except FileNotFoundError:
            return known is None
        if not known or (status.st_size, status.st_mtime_ns) != (known.size, known.mtime_ns):
            return False
        return not known.metadata or self.index.metadata_path(filename).exists()

    def present(self, project: str) -> list[str]:
        """The project's files, from the names in the directory."""
        present = []
        for filename in os.listdir(self.packages):
            if names.normalise(filename).startswith(project):
                with suppress(Refusal):
                    if names.parse(filename).project == project:
                        present.append(filename)
        return present

    # Housekeeping

    def sweep(self, present: Iterable[str]) -> None:
        """Remove what crashes left: half-written files, metadata of files that are gone."""
        files.sweep(self.spool, older_than=time.time() - 60)
        self.index.sweep(present, exists=lambda filename: (self.packages / filename).exists())

    def _core_metadata(self, filename: str, metadata: Metadata | None) -> dict[Path, bytes]:
        """Core metadata beside the index (PEP 658), for wheels: an sdist's may say less than a build of it would."""
        return {self.index.metadata_path(filename): metadata.content} if metadata and filename.endswith(".whl") else {}

    def yanked(self, project: str) -> dict[str, str]:
        """Reasons by release key. Damaged if they cannot be read."""
        path = self._yanks / f"{project}.json"
        try:
            yanked: dict[str, str] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise Damaged(f"the yanks of {project} cannot be read: mend or remove {path}") from None
        return yanked

    def _write_yanks(self, project: str, yanked: Mapping[str, str]) -> None:
        path = self._yanks / f"{project}.json"
        if yanked:
            files.write({path: json.dumps(yanked, indent=2, sort_keys=True).encode()}, self.spool)
        else:
            path.unlink(missing_ok=True)
        files.sync_directory(self._yanks)


class _Growing(Exception):
    """Somebody may be writing the file."""


def _twin(record: Record, release: names.Release, sha256: str) -> File | None:
    """The same file, if it is there already. Conflict if another one stands in its place."""
    for file in record.of_release(names.release_key(str(release.version))):
        if names.parse(file.filename).identity == release.identity:
            if (file.filename, file.sha256) == (release.filename, sha256):
                return file
            raise Conflict(_taken(release.filename, file.filename))
    return None


def _taken(filename: str, by: str) -> str:
    other = "with other content" if filename == by else f"as {by}"
    return f"{filename} already exists {other}; what is released never changes: upload a new version"


def _make_younger(file: BinaryIO, record: Record) -> None:
    """Uploads come last on their pages, also one that was received earlier than another."""
    if (last := record.last) and os.fstat(file.fileno()).st_mtime_ns <= last.mtime_ns < time.time_ns():
        now = max(time.time_ns(), last.mtime_ns + 1)
        os.utime(file.fileno(), ns=(now, now))
        os.fsync(file.fileno())


def _describe(
    release: names.Release,
    status: os.stat_result,
    sha256: str,
    metadata: Metadata | None,
    yanked: Mapping[str, str],
) -> File:
    version = str(release.version)
    key = names.release_key(version)
    return File(
        filename=release.filename,
        version=version,
        release=key,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        sha256=sha256,
        metadata=hashlib.sha256(metadata.content).hexdigest() if metadata and release.is_wheel else None,
        requires_python=metadata.requires_python if metadata else None,
        yanked=yanked.get(key),
    )


def _of_release(record: Record, project: str, version: str) -> list[str]:
    if not (found := record.of_release(names.release_key(version))):
        raise NotFound(f"{project} ({version}) not found")
    return [file.filename for file in found]
