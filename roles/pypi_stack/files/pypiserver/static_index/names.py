"""File names and the releases they stand for.

Wheels follow the binary distribution format (PEP 427), sdists PEP 625 and its loose forebears.

The line between legal and not: names are compared normalised (PEP 503), so every spelling that tools have ever produced
is accepted: `Foo.Bar_baz-1.0.tar.gz`, `foo-bar-1.0.zip`, `foo_bar-1!2.0+cu118-py3-none-any.whl`. Refused is what no
tool writes and clients read differently: anything but ASCII letters, digits and `._!+-`, a first character that is not a
letter or digit, doubled or trailing separators in the name, a version outside PEP 440, other suffixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name, canonicalize_version, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from .errors import Refusal

SDIST_SUFFIXES = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz")
"""Only the first is standard today; pip and uv still read the others."""
MAX_LENGTH = 240
"""File systems allow 255 bytes, and `.metadata` is added."""

_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._!+-]*")
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class Release:
    """What a file name says: `project` is normalised, `suffix` is `.whl` or one of SDIST_SUFFIXES."""

    filename: str
    project: str
    version: Version
    suffix: str

    @property
    def is_wheel(self) -> bool:
        return self.suffix == ".whl"

    def check(self, name: str | None, version: str | None, source: str) -> None:
        """Refuse a name or version that is another than the file name's; None and "" claim nothing."""
        if name and normalise(name) != self.project:
            raise Refusal(f"{self.filename}: {source} names the project {name!r}")
        if version and parse_version(version) != self.version:
            raise Refusal(f"{self.filename}: {source} has the version {version!r}")


def normalise(name: str) -> str:
    """PEP 503."""
    return canonicalize_name(name)


def release_key(version: str) -> str:
    """One text for all spellings of a version: 1, 1.0 and v1.0.0 are the same release."""
    return canonicalize_version(parse_version(version))


def parse_version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise Refusal(f"not a version by PEP 440: {text!r}") from None


def parse(filename: str) -> Release:
    """The release behind a file name, or a Refusal that says what is wrong with it."""
    if not _FILENAME.fullmatch(filename):
        raise Refusal(f"illegal file name {filename!r}")
    if len(filename) > MAX_LENGTH:
        raise Refusal(f"file name of {len(filename)} characters, {MAX_LENGTH} are allowed: {filename}")
    suffix = next((s for s in (".whl", *SDIST_SUFFIXES) if filename.endswith(s)), None)
    if suffix is None:
        raise Refusal(f"{filename}: neither a wheel (.whl) nor an sdist ({', '.join(SDIST_SUFFIXES)})")
    stem = filename.removesuffix(suffix)
    try:
        if suffix == ".whl":
            name, (project, version, _, _) = stem.split("-")[0], parse_wheel_filename(filename)
        else:
            name, (project, version) = stem.rpartition("-")[0], parse_sdist_filename(f"{stem}.tar.gz")
    except ValueError as error:
        raise Refusal(f"{filename}: {error}") from None
    if not _NAME.fullmatch(name):
        raise Refusal(f"{filename}: {name!r} is not a project name")
    return Release(filename, project, version, suffix)
