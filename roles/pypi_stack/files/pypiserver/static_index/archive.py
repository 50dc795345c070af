"""A whole, honest wheel or sdist, and its metadata.

Archives come from strangers as far as this module is concerned. It runs in a process of its own, with bounds on memory and
time (see `inspector`), and whatever a library raises over the bytes is the archive's fault.
"""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import hashlib
import io
import lzma
import os
import posixpath
import re
import tarfile
import zipfile
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from packaging.metadata import parse_email
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from . import zips
from .errors import Refusal, Unreadable
from .names import Release

MAX_METADATA = 4 << 20
"""Bytes of core metadata; the largest on PyPI have a tenth of that."""
MAX_FIELDS = 20_000
"""Lines of its fields, which take a parser far longer than their text does."""
MAX_HEADER = 1 << 20
"""Bytes of what a tar says about its next member."""
MAX_EXPANSION = 200
MAX_SLACK = 64 << 20
"""An archive may unpack to so many times its size, and to so many bytes more however small it is."""
MAX_REQUIRES_PYTHON = 1_000
"""Characters; every page of the project repeats it."""

_CHUNK = 1 << 20
_WANTED = {True: re.compile(r"[^/]+\.dist-info/METADATA"), False: re.compile(r"[^/]+/PKG-INFO")}
_UNPACK: dict[str, Any] = {".tar.gz": gzip.open, ".tgz": gzip.open, ".tar.bz2": bz2.open, ".tar.xz": lzma.open}
_ABOUT_THE_NEXT = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
_UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")

Members = dict[str, bytes | None]
"""Member names; the content is there for metadata only."""
Recorded = dict[str, tuple[str, str, str]]
"""Algorithm, digest and size of files by name, in the words of RECORD."""


@dataclass(frozen=True)
class Metadata:
    """Core metadata as it stands in the archive, and the one field that index pages repeat."""

    content: bytes
    requires_python: str | None


def read(file: BinaryIO, release: Release, *, strict: bool) -> Metadata:
    """Metadata of the archive. Unreadable if it is not whole, Refusal if it is not what its name says.

    `strict` is for uploads: every byte is read and has to be in order, and what clients of today cannot use is refused. Without
    it a zip's directory and metadata are enough: it stands at the end, so a zip that opens is not cut short.
    """
    file.seek(0)
    try:
        content = (_zip if release.suffix in (".whl", ".zip") else _tar)(file, release, strict)
    except Refusal as error:
        raise Refusal(f"{release.filename}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # zipfile alone has a dozen kinds
        raise Unreadable(f"{release.filename}: broken archive: {error or type(error).__name__}") from None
    return _metadata(content, release, strict)


def _metadata(content: bytes, release: Release, strict: bool) -> Metadata:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise Refusal(f"{release.filename}: its metadata is not UTF-8 (byte {error.start})") from None
    if re.split(rb"\n\r?\n", content, maxsplit=1)[0].count(b"\n") > MAX_FIELDS:
        raise Refusal(f"{release.filename}: its metadata has more than {MAX_FIELDS} lines of fields")
    fields, _ = parse_email(content)
    if not fields.get("name") or not fields.get("version"):
        raise Refusal(f"{release.filename}: its metadata has no Name or no Version")
    release.check(fields["name"], fields["version"], "its metadata")
    requires = fields.get("requires_python")
    if requires and len(requires) > MAX_REQUIRES_PYTHON:
        raise Refusal(f"{release.filename}: Requires-Python is longer than {MAX_REQUIRES_PYTHON} characters")
    if requires and strict:
        try:
            SpecifierSet(requires)
        except InvalidSpecifier:
            raise Refusal(
                f"{release.filename}: Requires-Python is {requires!r}, which pip ignores: write it like '>=3.10'"
            ) from None
    return Metadata(content, requires)


def _check_size(unpacked: int, packed: int) -> None:
    if unpacked > packed * MAX_EXPANSION + MAX_SLACK:
        raise Refusal(f"unpacks to more than {MAX_EXPANSION} times its size")


def _only(members: Members, release: Release) -> tuple[str, bytes]:
    """Path and content of the metadata: there has to be one, and in a wheel what belongs beside it."""
    found = [(name, content) for name, content in members.items() if content is not None]
    if len(found) != 1:
        what = "*.dist-info/METADATA" if release.is_wheel else "*/PKG-INFO"
        raise Refusal(f"{len(found)} files match {what}, exactly one is needed")
    folder = found[0][0].rpartition("/")[0]
    if release.is_wheel:
        name, _, version = folder.removesuffix(".dist-info").partition("-")
        release.check(name, version, f"its directory {folder}")
        for required in ("WHEEL", "RECORD"):
            if f"{folder}/{required}" not in members:
                raise Refusal(f"{folder}/{required} is missing")
    return found[0]


def _zip(file: BinaryIO, release: Release, strict: bool) -> bytes:
    with zipfile.ZipFile(file) as archive:
        if strict:
            zips.check(file)
        infos = archive.infolist()
        _check_size(sum(info.file_size for info in infos), os.fstat(file.fileno()).st_size)
        wanted = _WANTED[release.is_wheel]
        members = {x.filename: _metadata_member(archive, x) if wanted.fullmatch(x.filename) else None for x in infos}
        path, content = _only(members, release)
        if strict:
            _read_all(archive, _record(archive, path.rpartition("/")[0], members) if release.is_wheel else {})
    return content


def _metadata_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_METADATA:
        raise Refusal(f"{info.filename} is larger than {MAX_METADATA} bytes")
    if info.compress_type not in zips.METHODS:
        raise Refusal(f"{info.filename} is packed by method {info.compress_type}")
    return archive.read(info)


def _read_all(archive: zipfile.ZipFile, record: Recorded) -> None:
    """Check every member's checksum, and what RECORD says of it."""
    for info in archive.infolist():
        algorithm, digest, size = record.get(info.filename, ("", "", ""))
        hashed = hashlib.new(algorithm) if algorithm else None
        with archive.open(info) as content:
            while chunk := content.read(_CHUNK):
                if hashed:
                    hashed.update(chunk)
        if hashed and base64.urlsafe_b64encode(hashed.digest()).rstrip(b"=").decode() != digest.rstrip("="):
            raise Refusal(f"{info.filename} is not what RECORD says: another digest")
        if size and size.lstrip("0") != str(info.file_size or ""):
            raise Refusal(f"{info.filename} is not what RECORD says: another size")


def _record(archive: zipfile.ZipFile, folder: str, members: Members) -> Recorded:
    """A wheel's RECORD. It has to name the files that are there, each once."""
    rows = [row for row in csv.reader(io.StringIO(archive.read(f"{folder}/RECORD").decode(), newline="")) if row]
    record: Recorded = {}
    for path, *claims in rows:
        digest, size = (*claims, "", "")[:2]
        algorithm, _, value = digest.partition("=")
        if algorithm not in ("", "sha256", "sha384", "sha512"):
            raise Refusal(f"RECORD has an {algorithm} digest: the wheel format asks for sha256 or better")
        record[path] = (algorithm, value, size)
    there = {name for name in members if not name.endswith("/")} - {f"{folder}/{name}" for name in _UNRECORDED}
    listed = record.keys() - {f"{folder}/{name}" for name in _UNRECORDED}
    if len(record) != len(rows) or listed != there:
        odd = next(iter(sorted(listed ^ there)), "a file twice")
        raise Refusal(f"RECORD does not list the files that are there: {odd}")
    return record


def _tar(file: BinaryIO, release: Release, strict: bool) -> bytes:
    members: Members = {}
    wanted = _WANTED[release.is_wheel]
    packed = os.fstat(file.fileno()).st_size
    with _UNPACK[release.suffix](file) as plain:
        bounded = _Bounded(plain, packed)
        with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r|", tarinfo=_Header) as archive:
            for info in archive:
                _check_size(info.size, packed)
                if strict:
                    _check_place(info)
                members[info.name] = None
                if wanted.fullmatch(info.name) and (content := archive.extractfile(info)):
                    if info.size > MAX_METADATA:
                        raise Refusal(f"{info.name} is larger than {MAX_METADATA} bytes")
                    members[info.name] = content.read()
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
        while bounded.read(_CHUNK):  # to the checksum at the very end: tarfile is content with half an archive
            pass
    return _only(members, release)[1]


def _check_place(info: tarfile.TarInfo) -> None:
    """Refuse what would be unpacked outside of the directory, or is neither file, directory nor link."""
    if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
        raise Refusal(f"illegal member {info.name!r}: a device or pipe")
    link = posixpath.join(posixpath.dirname(info.name), info.linkname) if info.issym() else info.linkname
    for place in (info.name, link):
        if posixpath.normpath(place).startswith(("/", "..")):
            raise Refusal(f"illegal member {info.name!r}: it leads out of the archive")


class _Header(tarfile.TarInfo):
    """A tar header. One that says something about the next may hold a name or a few attributes; tarfile takes all of it at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _ABOUT_THE_NEXT and header.size > MAX_HEADER:
            raise Refusal(f"a header of {header.size} bytes")
        return header


class _Bounded:
    """A stream that refuses to give far more bytes than it is packed to."""

    def __init__(self, stream: IO[bytes], packed: int) -> None:
        self._stream, self._packed, self._given = stream, packed, 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._given += len(data)
        _check_size(self._given, self._packed)
        return data
