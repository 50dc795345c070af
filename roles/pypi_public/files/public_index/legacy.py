"""PyPI's older JSON API, `/pypi/NAME/json` (docs.pypi.org/api/json), as far as a listing tells: versions, ages, yanks.

What a listing does not have (summary, links, description) is null: programs that ask for updates do without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from .listing import File, Listing
from .names import pre_release, version_key


def document(listing: Listing, files: Sequence[File]) -> bytes:
    """With these files of the listing; their addresses begin with a slash."""
    releases: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        releases.setdefault(file.version, []).append(_file(listing.project, file))
    latest = newest(files)
    whole = {
        "info": _info(listing.project, latest),
        "releases": releases,
        "urls": releases[latest.version] if latest else [],
        "vulnerabilities": [],
    }
    return json.dumps(whole, separators=(",", ":")).encode()


def newest(files: Sequence[File]) -> File | None:
    """One of the newest version that is not yanked and no pre-release, as far as there is one."""

    def rank(file: File) -> tuple[bool, bool, Any]:
        return file.yanked is None, not pre_release(file.version), version_key(file.version)

    return max((file for file in files if version_key(file.version)), key=rank, default=None)


def _info(project: str, latest: File | None) -> dict[str, Any]:
    return {
        "name": project,
        "version": latest.version if latest else None,
        "requires_python": latest.requires_python if latest else None,
        "summary": None,
        "project_urls": None,
        "requires_dist": None,
        "yanked": latest is not None and latest.yanked is not None,
        "yanked_reason": (latest.yanked if latest else None) or None,
    }


def _file(project: str, file: File) -> dict[str, Any]:
    wheel = file.filename.endswith(".whl")
    return {
        "filename": file.filename,
        "url": f"/public/{project}/{file.digest16}/{quote(file.filename)}",
        "digests": {"sha256": file.sha256},
        "size": file.size,
        "packagetype": "bdist_wheel" if wheel else "sdist",
        "python_version": file.filename.split("-")[-3] if wheel else "source",
        "requires_python": file.requires_python or None,
        "upload_time": file.uploaded[:19] or None,
        "upload_time_iso_8601": file.uploaded or None,
        "yanked": file.yanked is not None,
        "yanked_reason": file.yanked or None,
    }
