"""A project's public files as HTML and JSON, in the forms of the private pages (static_index/pages.py), plain and compressed.

Made from what is known, never by editing what the upstream sent. Addresses are relative.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import Any

from .listing import File, Listing
from .names import version_key

NAMES = ("index.html", "index.html.gz", "index.json", "index.json.gz")
PLAIN = 1_024
"""Files of a page that is there in plain form too; nginx unpacks larger ones for the few clients that want it."""

_API = "1.4"


def render(listing: Listing, files: Sequence[File]) -> dict[str, bytes]:
    """The pages by file name, with these files of the listing."""
    plain = {"index.html": _html(listing, files).encode(), "index.json": _json(listing, files).encode()}
    with ThreadPoolExecutor(2) as pool:  # zlib lets other threads run
        packed = list(pool.map(lambda page: gzip.compress(page, 5, mtime=0), plain.values()))
    pages = dict(zip((f"{name}.gz" for name in plain), packed, strict=True))
    return pages | plain if len(files) <= PLAIN else pages


def _html(listing: Listing, files: Sequence[File]) -> str:
    status = ""
    if listing.status:
        status = f'<meta name="pypi:project-status" content="{escape(listing.status)}">'
    if listing.status_reason:
        status += f'<meta name="pypi:project-status-reason" content="{escape(listing.status_reason)}">'
    title = f"Links for {listing.project}"
    head = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="pypi:repository-version" content="{_API}">{status}<title>{title}</title></head>
<body>
<h1>{title}</h1>
"""
    return "".join([head, *(_link(listing.project, file) for file in files), "</body>\n</html>\n"])


def _link(project: str, file: File) -> str:
    attributes = ""
    if file.requires_python:
        attributes += f' data-requires-python="{escape(file.requires_python)}"'
    if file.metadata:  # PEP 714: the second name is for clients that only know the first one chosen
        for key in ("core-metadata", "dist-info-metadata"):
            attributes += f' data-{key}="sha256={file.metadata}"'
    if file.yanked is not None:
        attributes += f' data-yanked="{escape(file.yanked)}"'
    if file.uploaded:
        attributes += f' data-upload-time="{file.uploaded}"'
    if file.size is not None:
        attributes += f' data-size="{file.size}"'
    if file.provenance:
        attributes += f' data-provenance="{escape(file.provenance)}"'
    return f'<a href="{_url(project, file)}#sha256={file.sha256}"{attributes}>{escape(file.filename)}</a><br>\n'


def _json(listing: Listing, files: Sequence[File]) -> str:
    document: dict[str, Any] = {"meta": {"api-version": _API}, "name": listing.project}
    if listing.status:
        document["project-status"] = {"status": listing.status}
        if listing.status_reason:
            document["project-status"]["reason"] = listing.status_reason
    document["files"] = [_entry(listing.project, file) for file in files]
    document["versions"] = _versions(listing, files)
    return json.dumps(document, separators=(",", ":"))


def _entry(project: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "filename": file.filename,
        "url": _url(project, file),
        "hashes": {"sha256": file.sha256},
    }
    if file.size is not None:
        entry["size"] = file.size
    if file.uploaded:
        entry["upload-time"] = file.uploaded
    if file.requires_python:
        entry["requires-python"] = file.requires_python
    # Under this name only: pip 22.3 to 23.1 take the older one for something else in JSON (PEP 714).
    if file.metadata:
        entry["core-metadata"] = {"sha256": file.metadata}
    if file.yanked is not None:
        entry["yanked"] = file.yanked or True
    if file.provenance:
        entry["provenance"] = file.provenance
    return entry


def _versions(listing: Listing, files: Sequence[File]) -> list[str]:
    """Those of the files, each once, in the upstream's order and spelling."""
    spelt = {version_key(version): version for version in listing.versions}
    offered = dict.fromkeys(spelt.get(version_key(file.version), file.version) for file in files)
    known = [version for version in listing.versions if version in offered]
    return list(dict.fromkeys([*known, *offered]))


def _url(project: str, file: File) -> str:
    # Names of files have nothing else that has to be quoted (names.py), and quote() takes its time.
    filename = file.filename.replace("+", "%2B").replace("!", "%21")
    return f"../../public/{project}/{file.digest16}/{filename}"
