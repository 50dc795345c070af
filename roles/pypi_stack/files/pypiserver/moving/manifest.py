"""The JSON that move-out writes beside the files, and move-in reads: files as PEP 691, 592 and 700 have them.

    {"format": 1, "url": "https://…", "names": ["gone"], "projects": {"acme-lib": [{"filename": …, "hashes": {"sha256": …}, "size": …,
     "upload-time": "…Z", "yanked": false | true | "why", "requires-python": …}]}}

`names` are projects without files that are still nobody else's. Times have nine digits of a second, for the order of pages depends on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from static_index import names
from static_index.records import File

from .offers import Stopped, text_of

NAME = "private-pypi.json"
FORMAT = 1


def entry(file: File) -> dict[str, Any]:
    found = {
        "filename": file.filename,
        "hashes": {"sha256": file.sha256},
        "size": file.size,
        "upload-time": text_of(file.mtime_ns),
        "yanked": False if file.yanked is None else file.yanked or True,
    }
    return found | ({"requires-python": file.requires_python} if file.requires_python else {})


def dump(url: str, projects: Mapping[str, Iterable[File]], names: Iterable[str]) -> bytes:
    document = {
        "format": FORMAT,
        "url": url,
        "names": sorted(names),
        "projects": {name: [entry(file) for file in files] for name, files in sorted(projects.items())},
    }
    return json.dumps(document, indent=1).encode()


def load(path: Path) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Entries by project, and names. Stopped for what no move-out wrote."""
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        projects = {
            names.normalise(name): [dict(file) for file in files] for name, files in document["projects"].items()
        }
        return projects, [names.normalise(name) for name in document["names"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Stopped(f"{path.name} is not what move-out writes: {type(error).__name__} {error}") from None


def yank(value: object) -> str | None:
    """PEP 691's `yanked`: the reason, perhaps an empty one, or None."""
    return value if isinstance(value, str) and value else "" if value else None
