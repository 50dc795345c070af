"""The files that every index gets: many small ones, one project with 500 versions, one big file, two sets of 50 packages."""

from __future__ import annotations

import zipfile
from pathlib import Path

from index.artifacts import wheel

VERSIONS = 500
"""Of the project `many`."""
SMALL = 10
"""Versions of every other project."""
SETS = {"light": 1_000, "heavy": 20_000_000}
"""Bytes of each of the 50 packages that `wants-light` and `wants-heavy` require."""
SET = 50

SMALL_PROJECT, SMALL_FILE = "p00000", "p00000-1.0-py3-none-any.whl"
BIG_FILE = "big-1.0-py3-none-any.whl"


def small(name: str, version: str) -> tuple[str, bytes]:
    """File name and bytes of a wheel of about 1 kB."""
    return sized(name, version, 300)


def sized(name: str, version: str, size: int, *fields: str) -> tuple[str, bytes]:
    """File name and bytes of a wheel with so many bytes of payload."""
    return wheel(name, version, fields=fields, content=bytes(size), compression=zipfile.ZIP_STORED)


def fill(directory: Path, files: int) -> list[str]:
    """The names of so many small files (at least VERSIONS) and of the special ones; makes what is missing in the directory."""
    found = []
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        project, version = divmod(number - VERSIONS, SMALL)
        name = f"p{project:05}" if number >= VERSIONS else "many"
        found.append(_keep(directory, name, f"{version if number >= VERSIONS else number}.0", 300))
    found.append(_keep(directory, "big", "1.0", 100_000_000))
    for kind, size in SETS.items():
        names = [f"{kind}-{number:02}" for number in range(SET)]
        found += [_keep(directory, name, "1.0", size) for name in names]
        found.append(_keep(directory, f"wants-{kind}", "1.0", 0, *(f"Requires-Dist: {name}" for name in names)))
    return found


def _keep(directory: Path, name: str, version: str, size: int, *fields: str) -> str:
    path = directory / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not path.exists():
        path.write_bytes(sized(name, version, size, *fields)[1])
    return path.name
