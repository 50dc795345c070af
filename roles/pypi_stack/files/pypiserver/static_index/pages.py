"""The simple index as HTML (PEP 503, 592, 629, 658, 714) and JSON (PEP 691, 592, 700, 714), version 1.1 of both.

Pure functions of what is known of the files, so that a rebuild gives the same bytes. Addresses are relative: they hold
behind any host, prefix or rewrite.

Files come in the order of their upload. A page is compressed in blocks of BLOCK files that do not refer to each other (RFC 1951: a
full flush ends each), so a new file costs as much as the last block, and a copy of what is before it. Beyond PLAIN files there is
the compressed page only, which nginx unpacks for the few clients that do not take it.
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from html import escape
from typing import Any
from urllib.parse import quote

from .records import File, Seal, Seals

FORMAT = 2  # raise it when pages change: every project is then rendered anew at the next start
BLOCK = 128
PLAIN = 1_024

_API = "1.1"
_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_GZIP = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255])  # RFC 1952: deflate, no flags, no time, unknown system
_HTML_HEAD = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="pypi:repository-version" content="{api}"><title>{title}</title></head>
<body>
<h1>{title}</h1>
"""
_HTML_FOOT = "</body>\n</html>\n"


@dataclass(frozen=True)
class _Kind:
    """One form of a page: what is before the files, each of them, what is between two, and what is behind them."""

    name: str
    head: Callable[[str], str]
    entry: Callable[[File], str]
    between: str
    foot: Callable[[Iterable[str]], str]


@dataclass(frozen=True)
class Known:
    """What a project's pages are made of: the files behind the last seals, how many are before, and the versions of all."""

    project: str
    tail: Sequence[File]
    versions: Sequence[str]
    before: int = 0
    seals: Seals = ()


@dataclass(frozen=True)
class Pages:
    """The pages of a project by file name, None for one that is not to be there; and the seals by the number of files before them."""

    contents: Mapping[str, bytes | None]
    seals: Mapping[int, Seals]


def project(known: Known, sealed: Sequence[bytes] = ()) -> Pages:
    """The pages of one project. `sealed` are the parts up to the seals, in the order of KINDS, of the pages as they are."""
    contents: dict[str, bytes | None] = {}
    seals: dict[int, Seals] = {}
    for number, kind in enumerate(KINDS):
        page = _Page(sealed[number], *known.seals[number][1:]) if known.seals else _Page()
        block: list[str] = []
        for place, text in enumerate(_texts(kind, known), start=known.before + 1):
            block.append(text)
            if place % BLOCK == 0:
                seals[place] = (*seals.get(place, ()), page.seal("".join(block)))
                block = []
        packed = page.finish("".join(block) + kind.foot(known.versions))
        contents[f"{kind.name}.gz"] = packed
        contents[kind.name] = gzip.decompress(packed) if known.before + len(known.tail) <= PLAIN else None
    return Pages(contents, seals)


def trailers(known: Known) -> list[bytes]:
    """How the compressed pages end, in the order of KINDS: eight bytes that depend on all that is in them."""
    ends = []
    for number, kind in enumerate(KINDS):
        page = _Page(b"", *known.seals[number][1:]) if known.seals else _Page()
        ends.append(page.trailer("".join(_texts(kind, known)) + kind.foot(known.versions)))
    return ends


def root(names: Iterable[str]) -> dict[str, bytes]:
    """The list of projects."""
    names = list(names)
    html = "".join([_html_head("Simple index"), *(f'<a href="{name}/">{name}</a><br>\n' for name in names), _HTML_FOOT])
    document = _dump({"meta": {"api-version": _API}, "projects": [{"name": name} for name in names]})
    contents = {HTML.name: html.encode(), JSON.name: document.encode()}
    # Long, often rewritten, seldom read.
    return contents | {f"{name}.gz": gzip.compress(content, 1, mtime=0) for name, content in contents.items()}


class _Page:
    """A page being compressed, from what is there of it, the length of that when unpacked, and its CRC."""

    def __init__(self, packed: bytes = _GZIP, size: int = 0, crc: int = 0) -> None:
        self._packed, self._size, self._crc = [packed], size, crc

    def seal(self, text: str) -> Seal:
        self._add(text, zlib.Z_FULL_FLUSH)
        return Seal(sum(map(len, self._packed)), self._size, self._crc)

    def finish(self, text: str) -> bytes:
        self._add(text, zlib.Z_FINISH)
        return b"".join([*self._packed, self.trailer("")])

    def trailer(self, text: str) -> bytes:
        data = text.encode()
        return struct.pack("<LL", zlib.crc32(data, self._crc), (self._size + len(data)) & 0xFFFFFFFF)

    def _add(self, text: str, flush: int) -> None:
        data = text.encode()
        deflate = zlib.compressobj(6, wbits=-zlib.MAX_WBITS)
        self._packed.append(deflate.compress(data) + deflate.flush(flush))
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)


def _texts(kind: _Kind, known: Known) -> list[str]:
    texts = [kind.between + kind.entry(file) for file in known.tail]
    if known.before == 0:
        texts[0] = kind.head(known.project) + texts[0].removeprefix(kind.between)
    return texts


def _html_head(title: str) -> str:
    return _HTML_HEAD.format(api=_API, title=title)


def _link(file: File) -> str:
    attributes = ""
    if file.requires_python:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.metadata:  # PEP 714: the second name is for clients that only know the first one chosen
        for key in ("core-metadata", "dist-info-metadata"):
            attributes += f' data-{key}="sha256={file.metadata}"'
    if file.yanked is not None:
        attributes += f' data-yanked="{escape(file.yanked)}"'
    return f'<a href="{_url(file)}#sha256={file.sha256}"{attributes}>{escape(file.filename)}</a><br>\n'


def _entry(file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "filename": file.filename,
        "url": _url(file),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": upload_time(file),
    }
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    # Under this name only: pip 22.3 to 23.1 take the older one for something else in JSON (PEP 714).
    if file.metadata:
        entry["core-metadata"] = {"sha256": file.metadata}
    if file.yanked is not None:
        entry["yanked"] = file.yanked or True
    return entry


def _url(file: File) -> str:
    return f"../../packages/{quote(file.filename)}"


def upload_time(file: File) -> str:
    """ISO 8601, with microseconds, in UTC."""
    return (_EPOCH + timedelta(microseconds=file.mtime_ns // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _dump(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


HTML = _Kind(
    name="index.html",
    head=lambda project: _html_head(f"Links for {project}"),
    entry=_link,
    between="",
    foot=lambda _versions: _HTML_FOOT,
)
JSON = _Kind(
    name="index.json",
    head=lambda project: f'{{"meta":{{"api-version":"{_API}"}},"name":"{project}","files":[',
    entry=lambda file: _dump(_entry(file)),
    between=",",
    foot=lambda versions: f'],"versions":{_dump(list(versions))}}}',
)
KINDS = (HTML, JSON)
