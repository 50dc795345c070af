"""The simple index as HTML (PEP 503, 592, 629, 658, 714) and JSON (PEP 691, 592, 700, 714), version 1.1 of both.

Pure functions of what is known of the files, so that a rebuild gives the same bytes. Addresses are relative: they hold
behind any host, prefix or rewrite.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from html import escape
from typing import Any
from urllib.parse import quote

from packaging.version import Version

from .records import File

FORMAT = 2  # raise it when pages change: every project is then rendered anew at the next start
NAMES = ("index.html", "index.html.gz", "index.json", "index.json.gz")

_API = "1.1"
_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_HTML = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="pypi:repository-version" content="{api}"><title>{title}</title></head>
<body>
<h1>{title}</h1>
{links}
</body>
</html>
"""


def project(name: str, files: Iterable[File]) -> dict[str, bytes]:
    """The pages of one project by file name; oldest version first."""
    ordered = sorted(files, key=lambda file: (Version(file.version), file.filename))
    return _compressed(
        _html(f"Links for {name}", (_link(file) for file in ordered)),
        {
            "meta": {"api-version": _API},
            "name": name,
            "versions": list(dict.fromkeys(file.version for file in ordered)),
            "files": [_entry(file) for file in ordered],
        },
        level=6,
    )


def root(names: Iterable[str]) -> dict[str, bytes]:
    """The list of projects."""
    names = list(names)
    return _compressed(
        _html("Simple index", (f'<a href="{name}/">{name}</a><br>' for name in names)),
        {"meta": {"api-version": _API}, "projects": [{"name": name} for name in names]},
        level=1,  # long, often rewritten, seldom read
    )


def _link(file: File) -> str:
    attributes = ""
    if file.requires_python:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.metadata:  # PEP 714: the second name is for clients that only know the first one chosen
        for key in ("core-metadata", "dist-info-metadata"):
            attributes += f' data-{key}="sha256={file.metadata}"'
    if file.yanked is not None:
        attributes += f' data-yanked="{escape(file.yanked)}"'
    return f'<a href="{_url(file)}#sha256={file.sha256}"{attributes}>{escape(file.filename)}</a><br>'


def _entry(file: File) -> dict[str, Any]:
    uploaded = _EPOCH + timedelta(microseconds=file.mtime_ns // 1000)
    entry: dict[str, Any] = {
        "filename": file.filename,
        "url": _url(file),
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": uploaded.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    if file.metadata:
        entry["core-metadata"] = {"sha256": file.metadata}
    if file.yanked is not None:
        entry["yanked"] = file.yanked or True
    return entry


def _url(file: File) -> str:
    return f"../../packages/{quote(file.filename)}"


def _html(title: str, links: Iterator[str]) -> bytes:
    return _HTML.format(api=_API, title=title, links="\n".join(links)).encode()


def _compressed(html: bytes, document: dict[str, Any], level: int) -> dict[str, bytes]:
    data = json.dumps(document, separators=(",", ":")).encode()
    contents = (html, gzip.compress(html, level, mtime=0), data, gzip.compress(data, level, mtime=0))
    return dict(zip(NAMES, contents, strict=True))
