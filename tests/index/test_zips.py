"""Zips that tools would read differently are refused, whatever zipfile says of them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from static_index import zips
from static_index.errors import Refusal

from .artifacts import recorded, wheel
from .conftest import Add

CONTENTS = {"a/one": b"1" * 500, "a/two": b"2" * 500}


def pack(
    contents: Mapping[str, bytes] = CONTENTS, change: Callable[[zipfile.ZipInfo], object] = lambda _info: None
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return buffer.getvalue()


def moved(content: bytes, by: int) -> bytes:
    """The zip with so many bytes before it, and its offsets right again."""
    end = content.rindex(b"PK\5\6")
    size, start = struct.unpack_from("<LL", content, end + 12)
    fixed, at = bytearray(content), start
    while fixed[at : at + 4] == b"PK\1\2":
        struct.pack_into("<L", fixed, at + 42, struct.unpack_from("<L", fixed, at + 42)[0] + by)
        at += 46 + sum(struct.unpack_from("<HHH", fixed, at + 28))
    struct.pack_into("<L", fixed, end + 16, start + by)
    assert at == start + size
    return bytes(by) + bytes(fixed)


def hidden() -> bytes:
    """A member that only those see who walk from one local header to the next."""
    extra, content = pack({"hidden": b"x"}), pack()
    local = extra[: extra.index(b"PK\1\2")]
    return local + moved(content, len(local))[len(local) :]


def renamed(where: int) -> bytes:
    """The first member by another name in its local header (0) or in the directory (1)."""
    parts = pack().split(b"a/one")
    return b"a/one".join(parts[:1]) + [b"a/six", b"a/one"][where] + parts[1] + [b"a/one", b"a/six"][where] + parts[2]


def patched(offset: int, layout: str, value: int, header: bytes = b"PK\3\4", both: bool = False) -> bytes:
    """A field of the first member's header, in the local one or, from the same field, in both."""
    content = bytearray(pack())
    struct.pack_into(layout, content, content.index(header) + offset, value)
    if both:
        struct.pack_into(layout, content, content.index(b"PK\1\2") + offset + 2, value)
    return bytes(content)


def with_extra(kind: int, data: bytes) -> bytes:
    return pack(change=lambda info: setattr(info, "extra", struct.pack("<HH", kind, len(data)) + data))


def commented(comment: bytes) -> bytes:
    buffer = io.BytesIO(pack())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = comment
    return buffer.getvalue()


def named(*names: str) -> bytes:
    return pack(dict.fromkeys(names, b"x"))


REFUSED = {
    "bytes before": (moved(pack(), 7), "a member of the zip is not in its directory|belong to none"),
    "bytes behind": (pack() + b"x", "goes on behind its end record"),
    "two zips in one": (pack() + pack({"b": b""}), "belong to none|goes on behind|another than its directory"),
    "a hidden member": (hidden(), "a member of the zip is not in its directory"),
    "a name in the local header only": (renamed(0), "disagree about 'a/one'"),
    "a name in the directory only": (renamed(1), "disagree about 'a/six'"),
    "another size in the local header": (patched(22, "<L", 501), "disagree about 'a/one'"),
    "another checksum in the local header": (patched(14, "<L", 1), "disagree about 'a/one'"),
    "encrypted": (patched(6, "<H", 1, both=True), "is encrypted or has its size behind it"),
    "size behind": (patched(6, "<H", 8, both=True), "is encrypted or has its size behind it"),
    "stored with two sizes": (patched(8, "<H", 0, both=True), "is stored, but has two sizes"),
    "bzip2": (pack(change=lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2)), "packed by method 12"),
    "LZMA": (pack(change=lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA)), "packed by method 14"),
    "a second name": (with_extra(0x7075, b"\1\0\0\0\0a/six"), "has a second name"),
    "an extra field cut short": (pack(change=lambda info: setattr(info, "extra", b"abc")), "malformed extra field"),
    "an end record inside of another": (commented(b"PK\5\6" + bytes(18)), "goes on behind its end record"),
    "a comment in the directory": (pack(change=lambda info: setattr(info, "comment", b"x")), "has a comment"),
    "up": (named("../x"), "illegal member name"),
    "up inside": (named("a/../../x"), "illegal member name"),
    "absolute": (named("/x"), "illegal member name"),
    "empty part": (named("a//x"), "illegal member name"),
    "drive": (named("C:/x"), "illegal member name"),
    "backslash": (pack({"a/bc": b""}).replace(b"a/bc", b"a\\bc"), "illegal member name"),
    "line feed": (named("a\nb"), "illegal member name"),
    "not UTF-8": (named("é").replace("é".encode(), b"\xc3\x28"), "is not UTF-8"),
    "file and directory": (named("a", "a/b"), "'a' is a file and a directory"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(content: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        zips.check(io.BytesIO(content))


def test_a_name_twice_is_refused() -> None:
    buffer = io.BytesIO(pack())
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/one", "other")
    with pytest.raises(Refusal, match="two members are called 'a/one'"):
        zips.check(buffer)


def test_zip64_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"x")
    zips.check(buffer)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    content = pack()
    assert b"PK\6\6" in content
    zips.check(io.BytesIO(content))
    for offset in (24, 40, 48):  # entries, size, offset
        broken = bytearray(content)
        broken[broken.index(b"PK\6\6") + offset] ^= 1
        with pytest.raises(Refusal):
            zips.check(io.BytesIO(bytes(broken)))


@given(
    st.dictionaries(st.from_regex(r"[a-zé]{1,5}(/[a-z]{1,3}\.x)?", fullmatch=True), st.binary(max_size=50), max_size=5)
)
def test_what_zipfile_writes_is_accepted(contents: dict[str, bytes]) -> None:
    if not {name.partition("/")[0] for name in contents if "/" in name} & contents.keys():
        zips.check(io.BytesIO(pack(contents)))


@given(st.integers(0, len(pack()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_means_nothing(at: int, by: int) -> None:
    """Whatever passes reads the same from the directory, which zipfile trusts, as from the local headers."""
    content = bytearray(pack())
    content[at] ^= by
    try:
        with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
            zips.check(io.BytesIO(bytes(content)))
            assert archive.namelist() == list(CONTENTS)
    except (Refusal, zipfile.BadZipFile, NotImplementedError):
        pass


LIES = {
    "another digest": (recorded("acme_tool/__init__.py", b"other = 42\n"), "is not what RECORD says: another digest"),
    "another size": ("acme_tool/__init__.py,,7\n", "is not what RECORD says: another size"),
    "a file less": ("", "RECORD does not list the files that are there: acme_tool/__init__.py"),
    "a file more": ("acme_tool/__init__.py,,\nmore.py,,\n", "RECORD does not list the files that are there: more.py"),
    "a file twice": (
        "acme_tool/__init__.py,,\nacme_tool/__init__.py,,\n",
        "RECORD does not list the files that are there",
    ),
    "a weak digest": ("acme_tool/__init__.py,md5=x,\n", "RECORD has an md5 digest"),
}


@pytest.mark.parametrize(("lines", "reason"), LIES.values(), ids=LIES)
def test_a_record_that_lies_is_refused(lines: str, reason: str, add: Add) -> None:
    others = "".join(f"acme_tool-1.0.dist-info/{name},,\n" for name in ("METADATA", "WHEEL", "RECORD"))
    with pytest.raises(Refusal, match=reason):
        add(wheel(members={"{stem}.dist-info/RECORD": lines + others}))
