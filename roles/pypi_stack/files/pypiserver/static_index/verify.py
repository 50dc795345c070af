"""Read everything, and say in plain words what is not as it was recorded and what to do about it. Changes nothing.

One project at a time, beside a server that goes on: what another one is changing is looked at again under the project's lock. Needs
a record of memory and some 100 bytes for each file.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import platform
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import users

from . import names
from .errors import Damaged, Refusal
from .files import digest
from .owned import COMPLETE
from .records import File
from .store import Store

RENDER = "Render it anew: static_index rebuild"
BACKUP = (
    "Put it back from a backup (its hash is checked when this runs again), or delete the version and upload a new one:"
    " static_index delete {} {}"
)
SETTLED_SECONDS = 60
"""What changed later than so long ago may not have been looked at yet."""
_IDLE = 3 << 13
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: `kind` for machines, `what` and `fix` for people."""

    kind: str
    what: str
    fix: str


@dataclass
class Counts:
    """What has been read so far."""

    projects: int = 0
    files: int = 0
    bytes: int = 0


Progress = Callable[[int, int], None]


def give_way() -> None:
    """Let everybody else have the processor and, where its scheduler knows priorities, the disk."""
    os.nice(19)
    if number := _IOPRIO_SET.get(platform.machine()):
        ctypes.CDLL(None).syscall(number, 1, 0, _IDLE)


def verify(store: Store, accounts: Path, counts: Counts, progress: Progress) -> Iterator[Finding]:
    """All findings. `accounts` is the directory of htpasswd and roles.json; `progress` is told projects done and of all."""
    yield from _users(accounts)
    listed: set[int] = set()  # hashes of names: a tenth of the memory
    projects = sorted(store.index.projects())
    for project in projects:
        yield from _files(store, project, counts, listed)
        yield from _made(store, project)
        counts.projects += 1
        progress(counts.projects, len(projects))
    yield from _not_listed(store, listed)
    yield from _names(store, projects)


def _users(directory: Path) -> Iterator[Finding]:
    fix = "Write the accounts anew: ansible-playbook playbooks/users.yml"
    with _said("login") as said:
        try:
            users.Users.read(directory)
        except FileNotFoundError as error:
            said.append(f"{Path(error.filename).name} is missing: nobody can log in")
        except OSError as error:
            said.append(f"{error.filename} cannot be read ({error.strerror})")
        except ValueError as error:
            said.append(f"roles.json: {error}; accounts have the rights they had when it could be read, or none")
    yield from (Finding("users", text, fix) for text in said)


def _files(store: Store, project: str, counts: Counts, listed: set[int]) -> Iterator[Finding]:
    record = store.index.records.load(project)
    for file in record.files.values():
        listed.add(hash(file.filename))
        counts.files += 1
        counts.bytes += file.size
        if (problem := _problem(store, file)) and _still(store, project, file):
            yield problem


def _problem(store: Store, file: File) -> Finding | None:
    """What is wrong with a file, as far as can be told without the lock."""
    path, text = store.packages / file.filename, ""
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
            if time.time() - status.st_ctime < SETTLED_SECONDS:
                return None
            text = f"was changed after it was published: {status.st_size} bytes, {file.size} recorded"
        elif (sha256 := digest(path)) != file.sha256:
            text = f"is damaged: its sha256 is {sha256}, {file.sha256} recorded"
        elif not status.st_mode & stat.S_IROTH:
            return Finding("permissions", f"{file.filename} cannot be read by nginx", f"chmod o+r {file.filename}")
    except FileNotFoundError:
        text = "is gone, but on its pages"
    except OSError as error:
        text = f"cannot be read ({error.strerror})"
    return Finding("file", f"{file.filename} {text}", BACKUP.format(*_release(file))) if text else None


def _release(file: File) -> tuple[str, str]:
    return names.parse(file.filename).project, file.version


def _still(store: Store, project: str, file: File) -> bool:
    """Whether the file is recorded like that now that nobody changes anything."""
    with store.index.lock(project):
        return store.index.records.load(project).file(file.filename) == file


def _made(store: Store, project: str) -> Iterator[Finding]:
    """The record, the pages and the metadata that were made from a project's files."""
    with store.index.lock(project):
        if not store.index.knows(project):
            return  # it went meanwhile
        record = store.index.records.load(project)
        whole = len(record.files) == len(record) and record.intact
        if not whole:
            yield Finding("record", f"the record of {project} is damaged: {store.index.records.path(project)}", RENDER)
        unlike = [] if not whole else store.index.unlike(project, record)
        for file in record.files.values():
            if file.metadata and not store.index.has_metadata(file):
                unlike.append(store.index.metadata_path(file.filename))
        try:
            yanked = store.yanked(project)
        except Damaged as error:
            yield Finding("yanks", str(error), "Mend it as said; versions that were yanked have to be yanked again")
        else:
            if any(file.yanked != yanked.get(file.release) for file in record.files.values()):
                yield Finding("record", f"the record of {project} has other yanks than {project}.json", RENDER)
    for path in unlike:
        yield Finding("page", f"{path} is not what was made from the record", RENDER)


def _not_listed(store: Store, listed: set[int]) -> Iterator[Finding]:
    with os.scandir(store.packages) as entries:
        for entry in entries:
            if entry.name.startswith(".") or hash(entry.name) in listed or not entry.is_file():
                continue
            if time.time() - entry.stat().st_ctime < SETTLED_SECONDS:
                continue
            try:
                if store.index.records.load(names.parse(entry.name).project).file(entry.name):
                    continue  # it came meanwhile
                with open(entry.path, "rb") as file:
                    store.inspector.read(file, entry.name, strict=False)
                yield Finding("file", f"{entry.name} is on no page", RENDER)
            except (Refusal, OSError) as error:
                fix = "Put the file back from a backup, upload it anew, or move it away"
                yield Finding("file", f"{entry.name} is on no page, because it cannot be: {error}", fix)


def _names(store: Store, projects: list[str]) -> Iterator[Finding]:
    """The register of names, and the list of projects."""
    recover = "See that the right directory is mounted, then: static_index recover-names"
    for place in (store.register.directory, store.register.twin):
        if not (place / COMPLETE).exists():
            yield Finding("names", f"the register of names in {place} is not complete", recover)
        elif missing := [name for name in projects if not (place / name).exists() and store.index.knows(name)]:
            yield Finding("names", f"the register of names in {place} lacks {', '.join(missing[:9])}", recover)
    page = store.index.pages / "index.json"
    try:
        root = {each["name"] for each in json.loads(page.read_bytes())["projects"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield Finding("page", f"the list of projects cannot be read ({error})", RENDER)
        return
    if root != set(store.index.records.projects()) and time.time() - page.parent.stat().st_mtime > SETTLED_SECONDS:
        yield Finding("page", f"{page} has other projects than there are", RENDER)


@contextmanager
def _said(logger: str) -> Iterator[list[str]]:
    """What is logged meanwhile, which goes nowhere else."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, handler = logging.getLogger(logger), Handler()
    log.addHandler(handler)
    before, log.propagate = log.propagate, False
    try:
        yield lines
    finally:
        log.propagate = before
        log.removeHandler(handler)
