"""File names and the releases they stand for.

Wheels follow the binary distribution format (PEP 427), sdists PEP 625 and its loose forebears.

The line between legal and not: names are compared normalised (PEP 503), so every spelling that tools have ever produced
is understood: `Foo.Bar_baz-1.0.tar.gz`, `foo-bar-1.0.zip`, `foo_bar-1!2.0+cu118-py3-none-any.whl`. Refused is what no
tool writes and clients read differently: anything but ASCII letters, digits and `._!+-`, a first character that is not a
letter or digit, doubled or trailing separators in the name, a version outside PEP 440, other suffixes.

What is uploaded has to have the one spelling of today besides, `Release.refuse_odd_spelling`: uv passes over all others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name, canonicalize_version, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from .errors import Refusal

SDIST_SUFFIXES = (".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz")
"""Only the first is standard today; older files have the others."""
UPLOADED = (".whl", ".tar.gz", ".zip")
"""What may still be uploaded: pip reads all of them, uv no others, and PyPI takes no others."""
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
    tags: str = ""

    @property
    def is_wheel(self) -> bool:
        return self.suffix == ".whl"

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for files between which an installer could not choose: one wheel for a build and a set of tags, one sdist."""
        key = release_key(str(self.version))
        if not self.is_wheel:
            return key, "sdist"
        *build, interpreters, abis, platforms = self.tags.lower().split("-")
        number = [re.sub(r"^0+(?=\d)", "", tag) for tag in build]
        return key, *number, *(frozenset(part.split(".")) for part in (interpreters, abis, platforms))

    def refuse_odd_spelling(self) -> None:
        """Refuse a file name that PEP 625 or the wheel format would spell otherwise."""
        if self.suffix not in UPLOADED:
            raise Refusal(
                f"{self.filename}: pip and uv want sdists as .tar.gz; build it anew (python -m build --sdist)"
            )
        standard = f"{self.project.replace('-', '_')}-{self.version}{f'-{self.tags}' if self.tags else ''}{self.suffix}"
        if self.filename != standard:
            raise Refusal(
                f"{self.filename}: the standard name is {standard}; rename it, or build it with a newer build tool"
            )

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
    stem, tags = filename.removesuffix(suffix), ""
    try:
        if suffix == ".whl":
            name, (project, version, _, _) = stem.split("-")[0], parse_wheel_filename(filename)
            tags = stem.split("-", 2)[2]
        else:
            name, (project, version) = stem.rpartition("-")[0], parse_sdist_filename(f"{stem}.tar.gz")
    except ValueError as error:
        reason = str(error).partition(": ")[0]  # what follows is the name without or with another suffix
        raise Refusal(f"{filename}: {reason}") from None
    if not _NAME.fullmatch(name):
        raise Refusal(f"{filename}: {name!r} is not a project name")
    return Release(filename, project, version, suffix, tags)
