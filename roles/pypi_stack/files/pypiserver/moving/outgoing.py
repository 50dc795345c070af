"""From the store into a plain directory: PROJECT/FILE with the times of upload, and a JSON of what was known (`manifest`).

Projects are read as their records are at that moment; a file is never changed, so what others upload meanwhile harms nothing. The
JSON is written last: where it is, all that it names was there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from static_index import files
from static_index.records import File
from static_index.store import Store

from . import manifest
from .offers import Report, Stopped, in_batches

CHUNK = 1 << 20
ROOM = 128 << 20
_BEGUN = ".moving-out"
"""Where files are written before they have their names; it also says that an unfinished directory is ours."""


class Leaving:
    """A run. What is in the target already, of that size and time, is not copied again."""

    def __init__(self, store: Store, target: Path, report: Report, *, dry: bool = False) -> None:
        self._store, self._target, self._report, self._dry = store, target, report, dry

    def run(self) -> None:
        begun, whole = self._target / _BEGUN, self._target / manifest.NAME
        if not begun.exists() and not whole.exists() and any(self._target.iterdir()):
            raise Stopped("it holds other files: give one that is empty, or of an earlier move-out")
        projects = self._store.index.records.projects()
        self._look_for_room(projects)
        if self._dry:
            return
        begun.mkdir(exist_ok=True)
        whole.unlink(missing_ok=True)
        found: dict[str, list[File]] = {}
        for batch in in_batches(projects, 256):
            for project in batch:
                if kept := self._project(project):
                    found[project] = kept
        bare = self._store.register.names - found.keys()
        content = manifest.dump(self._store.index.url, found, bare)
        files.write({whole: content}, begun)
        shutil.rmtree(begun)
        files.sync_directory(self._target)

    def _look_for_room(self, projects: list[str]) -> None:
        for project in projects:
            for file in self._store.index.records.load(project).files.values():
                self._report.total += 1
                if not _there(self._target / project / file.filename, file):
                    self._report.total_bytes += file.size
        status = os.statvfs(self._target)
        free = max(0, status.f_bavail * status.f_frsize - ROOM)
        if self._report.total_bytes > free:
            raise Stopped(
                f"there is no room: {self._report.total_bytes:,} bytes are to be written, {free:,} are free. Nothing was written"
            )

    def _project(self, project: str) -> list[File]:
        """Its files as its record has them, whatever leaves meanwhile."""
        record = self._store.index.records.load(project)
        if not len(record):
            return []
        folder = self._target / project
        files.make_directory(folder)
        kept = []
        for file in record.files.values():
            try:
                if self._copy(file, folder):
                    kept.append(file)
            except FileNotFoundError:
                if self._store.index.records.load(project).file(file.filename):
                    self._report.refuse(file.filename, "it is recorded and not there: run playbooks/verify.yml")
        files.sync_directory(folder)
        return kept

    def _copy(self, file: File, folder: Path) -> bool:
        target = folder / file.filename
        if _there(target, file):
            self._report.skip()
            return True
        if target.exists():
            self._report.refuse(file.filename, f"{target.name} is in the target with other content, which stays")
            return False
        found = hashlib.sha256()
        with (
            (self._store.packages / file.filename).open("rb") as source,
            files.temporary_file(self._target / _BEGUN) as (path, copy),
        ):
            while chunk := source.read(CHUNK):
                found.update(chunk)
                copy.write(chunk)
            copy.flush()
            if found.hexdigest() != file.sha256:
                self._report.refuse(file.filename, "it is damaged here, and was not copied: run playbooks/verify.yml")
                return False
            os.utime(copy.fileno(), ns=(file.mtime_ns, file.mtime_ns))
            os.fsync(copy.fileno())
            os.link(path, target)
        self._report.take(file.size)
        return True


def _there(path: Path, file: File) -> bool:
    """By size and time: a copy is whole before it has its name."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
