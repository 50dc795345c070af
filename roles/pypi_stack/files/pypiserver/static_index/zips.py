"""Zip files that every tool reads the same way.

Some tools trust the directory at the end, others walk from one local header to the next. Here both have to tell the same:
every byte belongs to a member, the directory or its end record, and nothing is told twice (PKWARE's APPNOTE.TXT; PyPI has
refused other zips since August 2025).
"""

from __future__ import annotations

import os
import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from .errors import Refusal

METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What wheels are packed with. The others unpack without a bound on memory, in one call."""

_LOCAL, _CENTRAL, _END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_END64, _LOCATOR = b"PK\6\6", b"PK\6\7"
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 1 << 0, 1 << 3, 1 << 11
_IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True)
class _Header:
    """What a local header and its entry in the directory both say, and where the one is."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int


def check(file: BinaryIO) -> None:
    """Refuse a zip that two tools could read differently. It has to be one: zipfile has opened it."""
    file.seek(0)
    headers: dict[bytes, _Header] = {}
    while (signature := file.read(4)) == _LOCAL:
        header = _local(file)
        _check_name(header)
        if header.name in headers:
            raise Refusal(f"two members are called {_shown(header.name)}")  # which one counts differs between tools
        headers[header.name] = header
        file.seek(header.packed, os.SEEK_CUR)
    start, listed = file.tell() - 4, 0
    while signature == _CENTRAL:
        entry = _central(file)
        if headers.get(entry.name) != entry:
            raise Refusal(f"the zip's directory and the member itself disagree about {_shown(entry.name)}")
        listed += 1
        signature = file.read(4)
    if listed != len(headers):
        raise Refusal("a member of the zip is not in its directory, or twice")
    _check_end(file, signature, (listed, file.tell() - 4 - start, start))
    _check_tree([header.name for header in headers.values()])


def _local(file: BinaryIO) -> _Header:
    at = file.tell() - 4
    _, flags, method, _, crc, packed, size, name_length, extra_length = _unpack(file, "<HHHLLLLHH")
    name, extra = _exactly(file, name_length), _extra(_exactly(file, extra_length))
    size, packed = _wide(extra, size, packed)
    _check_unicode_path(extra, name)
    return _Header(name, flags, method, crc, packed, size, at)


def _central(file: BinaryIO) -> _Header:
    fields = _unpack(file, "<HHHHLLLLHHHHHLL")
    _, _, flags, method, _, crc, packed, size, name_length, extra_length, comment_length, disk, _, _, at = fields
    name, extra = _exactly(file, name_length), _extra(_exactly(file, extra_length))
    size, packed, at = _wide(extra, size, packed, at)
    if comment_length or disk:
        raise Refusal(f"the zip's directory has a comment or another disk for {_shown(name)}")
    _check_unicode_path(extra, name)
    return _Header(name, flags, method, crc, packed, size, at)


def _check_end(file: BinaryIO, signature: bytes, directory: tuple[int, int, int]) -> None:
    """`directory`: number of entries, bytes, offset."""
    at = file.tell() - 4
    wide = signature == _END64
    if wide:
        length, _, _, disk, start_disk, here, entries, size, offset = _unpack(file, "<QHHLLQQQQ")
        if (length, disk, start_disk, here, entries, size, offset) != (44, 0, 0, directory[0], *directory):
            raise Refusal("the zip's 64-bit end record is another than its directory")
        if (_exactly(file, 4), *_unpack(file, "<LQL")) != (_LOCATOR, 0, at, 1):
            raise Refusal("the zip's 64-bit end record is not where its locator says")
        signature = file.read(4)
    if signature != _END:
        raise Refusal("the zip has bytes that belong to none of its members")
    disk, start_disk, here, entries, size, offset, comment_length = _unpack(file, "<HHHHLLH")
    found = (here, entries, size, offset)
    for value, true, unknown in zip(
        found, (directory[0], *directory), (0xFFFF, 0xFFFF, _IN_EXTRA, _IN_EXTRA), strict=True
    ):
        if value != true and not (wide and value == unknown):
            raise Refusal("the zip's end record is another than its directory")
    comment = _exactly(file, comment_length)
    if disk or start_disk or b"PK" in comment or file.read(1):
        raise Refusal("the zip goes on behind its end record")


def _check_name(header: _Header) -> None:
    name = header.name
    parts = name.removesuffix(b"/").split(b"/")
    if b"\\" in name or any(byte < 0x20 or byte == 0x7F for byte in name) or {b"", b".", b".."}.intersection(parts):
        raise Refusal(f"illegal member name {_shown(name)}")
    if len(parts[0]) == 2 and parts[0].endswith(b":"):
        raise Refusal(f"illegal member name {_shown(name)}")  # a drive
    try:
        if not name.isascii() and not (header.flags & _UTF8 and name.decode()):
            raise Refusal(f"member name {_shown(name)} is not ASCII and not marked as UTF-8")
    except UnicodeDecodeError:
        raise Refusal(f"member name {_shown(name)} is not UTF-8") from None
    if header.flags & (_ENCRYPTED | _DESCRIPTOR):
        raise Refusal(f"{_shown(name)} is encrypted or has its size behind it")
    if header.method not in METHODS:
        raise Refusal(
            f"{_shown(name)} is packed by method {header.method}; only stored and deflated are read everywhere"
        )
    if header.method == zipfile.ZIP_STORED and header.packed != header.size:
        raise Refusal(f"{_shown(name)} is stored, but has two sizes")


def _check_tree(names: list[bytes]) -> None:
    """Refuse a name that is a file and a directory at once."""
    directories = {name[: at + 1] for name in names for at, byte in enumerate(name) if byte == 0x2F}
    for name in names:
        if name + b"/" in directories:
            raise Refusal(f"{_shown(name)} is a file and a directory")


def _check_unicode_path(extra: dict[int, bytes], name: bytes) -> None:
    """Info-ZIP's second name: one version byte, the CRC of the first, the name."""
    if extra.get(_UNICODE_PATH, b"....." + name)[5:] != name:
        raise Refusal(f"{_shown(name)} has a second name")


def _extra(data: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    while data:
        kind, length = struct.unpack_from("<HH", data) if len(data) >= 4 else (0, len(data))
        if 4 + length > len(data) or (kind in fields and kind in (_ZIP64, _UNICODE_PATH)):
            raise Refusal("the zip has a malformed extra field")
        fields[kind] = data[4 : 4 + length]
        data = data[4 + length :]
    return fields


def _wide(extra: dict[int, bytes], *values: int) -> list[int]:
    """The values, with those that say so taken from the 64-bit extra field, in its order."""
    wide, result = extra.get(_ZIP64, b""), []
    for value in values:
        if value == _IN_EXTRA and len(wide) >= 8:
            value, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(value)
    return result


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _exactly(file, struct.calcsize(layout)))


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise Refusal("the zip ends in the middle of a header")
    return data


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
