"""A whole, honest wheel or sdist, and its metadata.

Archives come from strangers as far as this module is concerned: every read is bounded, and whatever a library raises
over the bytes is the archive's fault.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import tarfile
import zipfile
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from packaging.metadata import parse_email

from .errors import Refusal, Unreadable
from .names import Release

_CHUNK = 1 << 20
_SLACK = 64 << 20  # bytes that any archive may unpack to, however small it is
_WANTED = {True: re.compile(r"[^/]+\.dist-info/METADATA"), False: re.compile(r"[^/]+/PKG-INFO")}
_UNPACK: dict[str, Any] = {".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar.xz": lzma.open}

Members = dict[str, bytes | None]
"""Member names; the content is there for metadata only."""


@dataclass(frozen=True)
class Limits:
    """What an archive may cost to read: members, bytes of metadata, and unpacked size as a multiple of its own."""

    members: int = 9_999
    metadata: int = 16 << 20
    expansion: int = 200

    def unpacked(self, packed: int) -> int:
        return packed * self.expansion + _SLACK

    def check(self, members: int, unpacked: int, packed: int) -> None:
        if members > self.members:
            raise Refusal(f"more than {self.members} members")
        if unpacked > self.unpacked(packed):
            raise Refusal(f"unpacks to more than {self.expansion} times its size")


@dataclass(frozen=True)
class Metadata:
    """Core metadata as it stands in the archive, and the one field that index pages repeat."""

    content: bytes
    requires_python: str | None


def read(file: BinaryIO, release: Release, limits: Limits, *, every_byte: bool) -> Metadata:
    """Metadata of the archive. Unreadable if it is not whole, Refusal if it is not what its name says.

    A zip's directory stands at its end, so a zip that opens is not cut short; `every_byte` also checks its members'
    checksums. A tar is always read to its end.
    """
    wanted = _WANTED[release.is_wheel]
    unpack = _zip if release.suffix in (".whl", ".zip") else _tar
    file.seek(0)
    try:
        members = unpack(file, release, wanted, limits, every_byte)
    except Refusal as error:
        raise Refusal(f"{release.filename}: {error}") from None
    except Exception as error:  # noqa: BLE001  # zipfile alone has a dozen kinds
        raise Unreadable(f"{release.filename}: broken archive: {error or type(error).__name__}") from None

    found = {name: content for name, content in members.items() if content is not None}
    if len(found) != 1:
        what = "*.dist-info/METADATA" if release.is_wheel else "*/PKG-INFO"
        raise Refusal(f"{release.filename}: {len(found)} files match {what}, exactly one is needed")
    (path, content) = found.popitem()
    if release.is_wheel:
        folder = path.rpartition("/")[0]
        name, _, version = folder.removesuffix(".dist-info").partition("-")
        release.check(name, version, f"its directory {folder}")
        for required in ("WHEEL", "RECORD"):
            if f"{folder}/{required}" not in members:
                raise Refusal(f"{release.filename}: {folder}/{required} is missing")

    fields, _ = parse_email(content)
    if not fields.get("name") or not fields.get("version"):
        raise Refusal(f"{release.filename}: its metadata has no Name or no Version")
    release.check(fields["name"], fields["version"], "its metadata")
    return Metadata(content, fields.get("requires_python"))


def _zip(file: BinaryIO, release: Release, wanted: re.Pattern[str], limits: Limits, every_byte: bool) -> Members:
    members: Members = {}
    packed = os.fstat(file.fileno()).st_size
    if _directory_size(file, packed) > limits.metadata:  # zipfile would hold all of it in memory
        raise Refusal(f"the zip's directory is larger than {limits.metadata} bytes")
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        limits.check(len(infos), sum(info.file_size for info in infos), packed)
        for info in infos:
            if info.filename in members:
                raise Refusal(f"two members are called {info.filename!r}")  # which one counts differs between tools
            members[info.filename] = None
            if wanted.fullmatch(info.filename):
                if info.file_size > limits.metadata:
                    raise Refusal(f"{info.filename} is larger than {limits.metadata} bytes")
                members[info.filename] = archive.read(info)
            elif every_byte:
                with archive.open(info) as content:
                    while content.read(_CHUNK):
                        pass
    return members


def _directory_size(file: BinaryIO, packed: int) -> int:
    """Size of the central directory, as the end record states it; 0 without a record, which zipfile then reports."""
    file.seek(max(0, packed - (22 + 0xFFFF)))
    record = file.read().rpartition(b"PK\5\6")[2]
    return int.from_bytes(record[8:12], "little") if len(record) >= 18 else 0


def _tar(file: BinaryIO, release: Release, wanted: re.Pattern[str], limits: Limits, every_byte: bool) -> Members:
    members: Members = {}
    packed = os.fstat(file.fileno()).st_size
    with _UNPACK[release.suffix](file) as plain:
        bounded = _Bounded(plain, limits.unpacked(packed))
        with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|") as archive:
            for info in archive:
                limits.check(len(members) + 1, info.size, packed)
                members[info.name] = None
                if wanted.fullmatch(info.name) and (content := archive.extractfile(info)):
                    if info.size > limits.metadata:
                        raise Refusal(f"{info.name} is larger than {limits.metadata} bytes")
                    members[info.name] = content.read()
        while bounded.read(_CHUNK):  # to the checksum at the very end: tarfile is content with half an archive
            pass
    return members


class _Bounded:
    """A stream that refuses to give more than `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Refusal("unpacks to far more than its size")
        return data
