"""Project names (PEP 503), file names of wheels (PEP 427) and sdists (PEP 625 and before), versions (PEP 440).

The standard library has none of it. Names are normalised once; everything else here takes them normalised.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

SDIST_SUFFIXES = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz")
MAX_LENGTH = 240
"""File systems allow 255 bytes, and `.metadata` is added."""

_SEPARATORS = re.compile(r"[-_.]+")
_NORMAL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")
_VERSION = re.compile(
    r"""v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)
    (?:[-_.]?(?P<pre>a|b|c|rc|alpha|beta|pre|preview)[-_.]?(?P<pre_n>\d*))?
    (?P<post>-(?P<post_n1>\d+)|[-_.]?(?:post|rev|r)[-_.]?(?P<post_n2>\d*))?
    (?P<dev>[-_.]?dev[-_.]?(?P<dev_n>\d*))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_LOW, _HIGH = (-1,), (1,)


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
def version_key(version: str) -> Any:
    """What versions are compared by; None for one that is none by PEP 440."""
    found = _VERSION.fullmatch(version.strip())
    if not found:
        return None
    try:
        release = tuple(map(int, found["release"].split(".")))
        while len(release) > 1 and release[-1] == 0:
            release = release[:-1]
        pre: tuple[Any, ...] = _HIGH
        if found["pre"]:
            letter = found["pre"].lower()
            pre = (0, _PRE.get(letter, letter), int(found["pre_n"] or 0))
        elif found["dev"] and not found["post"]:
            pre = _LOW
        post = (0, int(found["post_n1"] or found["post_n2"] or 0)) if found["post"] else _LOW
        dev = (0, int(found["dev_n"] or 0)) if found["dev"] else _HIGH
        local = tuple(
            (1, int(part), "") if part.isdigit() else (0, 0, part)
            for part in re.split(r"[-_.]", (found["local"] or "").lower())
            if part
        )
        return int(found["epoch"] or 0), release, pre, post, dev, local
    except ValueError:  # more digits than Python converts
        return None


def pre_release(version: str) -> bool:
    found = _VERSION.fullmatch(version.strip())
    return bool(found and (found["pre"] or found["dev"]))


def same_version(one: str, other: str) -> bool:
    """1, 1.0 and v1.0.0 are the same; what is no version is only the same as itself."""
    key = version_key(one)
    return one == other or (key is not None and key == version_key(other))
