"""A directory: plain, one that move-out wrote, or devpi's export (`devpi-export`, dump version 2).

A plain one may be nested. Files are told by their names, and were uploaded when they were last written.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from static_index import names
from static_index.errors import Refusal

from . import manifest
from .offers import HASHES, Offer, Report, Stopped, Stream, Wanted, by_version, http_date, nanoseconds

DEVPI = "dataindex.json"
RELEASES = (".whl", *names.SDIST_SUFFIXES)
SIDECARS = {".asc": "signatures", ".sig": "signatures", ".metadata": "metadata", ".attestation": "attestations"}
"""What indexes keep beside releases; the rest is counted as other files."""
_LINK = "it is a link: give what it points to"


class Directory:
    """Files of a tree, by project. `stages` are the names of devpi's indexes, USER/INDEX."""

    def __init__(self, root: Path, wanted: Wanted, report: Report, stages: Iterable[str] = ()) -> None:
        self._wanted, self._report, self._root = wanted, report, root
        self._found: dict[str, list[Offer]] = defaultdict(list)
        self.names: Iterable[str] = []
        if not root.is_dir():
            raise Stopped("it is not a directory")
        if (root / manifest.NAME).exists():
            self._read_manifest()
        elif (root / DEVPI).exists():
            self._read_devpi(set(stages))
        else:
            self._walk()

    def projects(self) -> Iterable[str]:
        return sorted(project for project in self._found if project in self._wanted)

    def offers(self, project: str) -> list[Offer]:
        if project not in self._found:
            raise Refusal("there is no such project")
        return by_version(self._found[project], self._report)

    def _add(self, project: str, path: Path, **known: Any) -> None:
        where = str(path.relative_to(self._root))
        self._found[project].append(Offer(project, path.name, where, lambda: _opened(path, where), here=True, **known))

    def _walk(self) -> None:
        def unreadable(error: OSError) -> None:
            self._report.refuse(os.path.relpath(error.filename, self._root), _permission(error))

        for folder, below, files in os.walk(self._root, onerror=unreadable):
            for name in (name for name in below if os.path.islink(os.path.join(folder, name))):
                self._report.refuse(os.path.relpath(os.path.join(folder, name), self._root), _LINK)
            below[:] = sorted(name for name in below if not name.startswith("."))
            for path in (Path(folder) / name for name in sorted(files)):
                if path.name.startswith(".") or not path.name.endswith(RELEASES):
                    self._report.ignore(SIDECARS.get(path.suffix, "other files"))
                    continue
                where = str(path.relative_to(self._root))
                try:
                    project = names.parse(path.name).project
                    status = path.stat()
                except (Refusal, OSError) as error:
                    self._report.refuse(where, _permission(error) if isinstance(error, OSError) else str(error))
                    continue
                if path.is_symlink():
                    self._report.refuse(where, _LINK)
                else:
                    self._add(project, path, size=status.st_size, uploaded_ns=status.st_mtime_ns)

    def _read_manifest(self) -> None:
        projects, self.names = manifest.load(self._root / manifest.NAME)
        for project, entries in projects.items():
            for entry in entries:
                known = {"size": entry.get("size"), "uploaded_ns": nanoseconds(entry.get("upload-time"))}
                path = self._below(project, str(entry.get("filename")))
                self._add(project, path, hashes=_hashes(entry), yanked=manifest.yank(entry.get("yanked")), **known)

    def _read_devpi(self, stages: set[str]) -> None:
        """Its files say when they came and what their hashes are. devpi knows no yanks."""
        try:
            indexes = json.loads((self._root / DEVPI).read_bytes())["indexes"]
            filled = {name: index["files"] for name, index in indexes.items() if index.get("files")}
            unknown = stages - indexes.keys()
            if unknown or (not stages and len(filled) > 1):
                raise Stopped(
                    f"the export has the indexes {', '.join(sorted(filled))}: say in move_in_stages which of them to take"
                )
            for name in sorted(stages or filled):
                for entry in filled.get(name, []):
                    if entry["type"] != "releasefile":
                        self._report.ignore(str(entry["type"]))
                        continue
                    kept = entry["entrymapping"]
                    self._add(
                        names.normalise(entry["projectname"]),
                        self._below(*str(entry["relpath"]).split("/")),
                        hashes=_hashes(kept),
                        uploaded_ns=http_date(kept.get("last_modified")),
                        size=_size(self._root / entry["relpath"]),
                    )
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise Stopped(f"{DEVPI} is not what devpi-export writes: {type(error).__name__} {error}") from None

    def _below(self, *parts: str) -> Path:
        """A path that is said by a file; Stopped if it leads elsewhere."""
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            raise Stopped(f"it names a file outside of itself: {'/'.join(parts)!r}")
        return self._root.joinpath(*parts)


class _File:
    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file, self._where = file, where
        self.file: BinaryIO | None = file
        self.uploaded_ns: int | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise Refusal(f"{self._where}: {_permission(error)}") from None


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Stream]:
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except FileNotFoundError:
        raise Refusal(f"{where}: there is no such file") from None
    except OSError as error:
        raise Refusal(f"{where}: {_permission(error)}") from None
    with file:
        yield _File(file, where)


def _size(path: Path) -> int | None:
    with suppress(OSError):  # whoever opens it says why
        return path.stat().st_size
    return None


def _permission(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"it cannot be read: make it readable for the number {os.getuid()}, or for all"
    return f"it cannot be read: {error.strerror}"


def _hashes(entry: dict[str, Any]) -> dict[str, str]:
    """Of an entry of a file; devpi before 6 has `hash_spec` or `md5` only."""
    hashes = entry.get("hashes")
    found = {str(name): str(value).lower() for name, value in hashes.items()} if isinstance(hashes, dict) else {}
    name, _, value = str(entry.get("hash_spec") or "").partition("=")
    return {k: v for k, v in ({name: value, "md5": entry.get("md5")} | found).items() if k in HASHES and v}
