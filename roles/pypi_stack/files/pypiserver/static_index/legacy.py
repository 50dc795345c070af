"""PyPI's older JSON API, `/pypi/NAME/json` (docs.pypi.org/api/json): what Renovate, Dependabot, hatch and others ask.

A document for each project, as pure a function of what is known of the files as its pages are. Nothing that installs reads it, so it
follows an upload a moment later (`sync`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from packaging.metadata import parse_email
from packaging.version import Version

from .pages import upload_time
from .records import File

FORMAT = 1  # raise it when the document changes

_TEXTS = {
    "author": "author",
    "author_email": "author_email",
    "description_content_type": "description_content_type",
    "home_page": "home_page",
    "license": "license",
    "license_expression": "license_expression",
    "maintainer": "maintainer",
    "maintainer_email": "maintainer_email",
    "requires_python": "requires_python",
    "summary": "summary",
}
"""Fields of `info` and of core metadata, which calls them the same as far as packaging does."""


def newest(files: Sequence[File]) -> list[File]:
    """The files that `info` is about: of the newest version that is not yanked and no pre-release, as far as there is one."""

    def rank(file: File) -> tuple[bool, bool, Version]:
        version = Version(file.version)
        return file.yanked is None, not version.is_prerelease, version

    best = max(files, key=rank).release
    return [file for file in files if file.release == best]


def serial(content: bytes, url: str) -> int:
    """Another number when a record, the index's address or the form of these documents is another."""
    return zlib.crc32(content + f"{FORMAT} {url}".encode())


def tail(number: int) -> bytes:
    """How a document ends."""
    return f',"last_serial":{number}}}'.encode()


def document(project: str, files: Sequence[File], core: bytes | None, url: str, number: int) -> bytes:
    """`core`: the core metadata of a file of `newest`, if one has some; `url`: what files' addresses begin with."""
    latest = newest(files)
    metadata: dict[str, Any] = {**parse_email(core)[0]} if core else {}
    releases: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        releases.setdefault(file.version, []).append(_file(file, url))
    whole = {
        "info": _info(project, latest, metadata),
        "releases": releases,
        "urls": [_file(file, url) for file in latest],
        "vulnerabilities": [],
    }
    return json.dumps(whole, separators=(",", ":")).encode()[:-1] + tail(number)


def _info(project: str, latest: Sequence[File], metadata: Mapping[str, Any]) -> dict[str, Any]:
    first = latest[0]
    return {
        **{name: metadata.get(field, "") or None for name, field in _TEXTS.items()},
        "classifiers": metadata.get("classifiers", []),
        "description": metadata.get("description", ""),
        "keywords": ",".join(metadata.get("keywords", [])) or None,
        "name": metadata.get("name", project),
        "project_urls": metadata.get("project_urls") or None,
        "provides_extra": metadata.get("provides_extra") or None,
        "requires_dist": metadata.get("requires_dist") or None,
        "requires_python": metadata.get("requires_python") or first.requires_python,
        "version": first.version,
        "yanked": first.yanked is not None,
        "yanked_reason": first.yanked or None,
    }


def _file(file: File, url: str) -> dict[str, Any]:
    wheel = file.filename.endswith(".whl")
    uploaded = upload_time(file)
    return {
        "filename": file.filename,
        "url": f"{url}/packages/{quote(file.filename)}",
        "digests": {"sha256": file.sha256},
        "size": file.size,
        "packagetype": "bdist_wheel" if wheel else "sdist",
        "python_version": file.filename.split("-")[-3] if wheel else "source",
        "requires_python": file.requires_python,
        "upload_time": uploaded[:19],
        "upload_time_iso_8601": uploaded,
        "yanked": file.yanked is not None,
        "yanked_reason": file.yanked or None,
    }
