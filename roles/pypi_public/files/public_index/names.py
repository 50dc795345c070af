"""Project names (PEP 503), file names of wheels (PEP 427) and sdists (PEP 625 and before), versions (PEP 440).

Names are normalised once; everything else here takes them normalised. File names of upstreams are older than the rules of
packaging.utils, which refuses many of them; versions are packaging's, as in static_index.
"""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.version import Version

SDIST_SUFFIXES = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz")
MAX_LENGTH = 240
"""File systems allow 255 bytes, and `.metadata` is added."""

_SEPARATORS = re.compile(r"[-_.]+")
_NORMAL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")


@lru_cache(maxsize=1_024)
def normalise(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()


def is_normal(name: str) -> bool:
    return len(name) <= MAX_LENGTH and _NORMAL.fullmatch(name) is not None


def version_of(filename: str, project: str) -> str | None:
    """The version that a wheel or an sdist of this project is of; None for what no installer would take for one."""
    if len(filename) > MAX_LENGTH or not _FILENAME.fullmatch(filename):
        return None
    if filename.endswith(".whl"):
        parts = filename[:-4].split("-")
        return parts[1] if len(parts) in (5, 6) and normalise(parts[0]) == project else None
    suffix = next((s for s in SDIST_SUFFIXES if filename.endswith(s)), None)
    if suffix is None:
        return None
    # A dash may be in the name, and in old versions too, so the name tells where it ends.
    stem = filename[: -len(suffix)]
    for found in re.finditer("-", stem):
        if normalise(stem[: found.start()]) == project:
            return stem[found.end() :] or None
    return None


@lru_cache(maxsize=65_536)
def version_key(version: str) -> Version | None:
    """What versions are compared by; None for one that is none by PEP 440."""
    try:
        return Version(version)
    except ValueError:  # also more digits than Python converts
        return None


def pre_release(version: str) -> bool:
    key = version_key(version)
    return key is not None and key.is_prerelease


def same_version(one: str, other: str) -> bool:
    """1, 1.0 and v1.0.0 are the same; what is no version is only the same as itself."""
    key = version_key(one)
    return one == other or (key is not None and key == version_key(other))
