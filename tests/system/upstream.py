"""A public index for the hosts: plain files, as `python3 -m http.server` serves them, and the archive of its malware.

As a program: upstream.py DIRECTORY [PROJECT VERSION], which adds one to what is there
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

if __package__:
    from .packages import make_wheel
else:
    from packages import make_wheel  # type: ignore[import-not-found, no-redef]

LARGE = 20 << 20

# Project → version → days since it was uploaded.
PROJECTS = {
    "hello": {"1.0": 400, "1.1": 30, "1.2": 1},
    "large": {"1.0": 30},
    "fetched-later": {"1.0": 30},
    "evil": {"1.0": 30},
    "acme-next": {"99.0": 400},
}


def make_upstream(directory: Path) -> None:
    for project, versions in PROJECTS.items():
        make_project(directory, project, versions)
    # As OSV publishes them: https://google.github.io/osv.dev/data/
    advisory = {
        "id": "MAL-2026-1",
        "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "evil"}, "versions": ["1.0"]}],
    }
    with zipfile.ZipFile(directory / "advisories.zip", "w") as archive:
        archive.writestr("MAL-2026-1.json", json.dumps(advisory))


def make_project(directory: Path, project: str, versions: Mapping[str, int]) -> None:
    page = directory / "simple" / project
    page.mkdir(parents=True)
    links = [_link(project, version, days, page) for version, days in versions.items()]
    (page / "index.html").write_text(f"<!DOCTYPE html><title>{project}</title>\n" + "\n".join(links))


def _link(project: str, version: str, days: int, page: Path) -> str:
    wheel = make_wheel(project, version, LARGE if project == "large" else 0, page)
    uploaded = datetime.now(UTC) - timedelta(days=days)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return (
        f'<a href="{wheel.name}#sha256={digest}" data-upload-time="{uploaded:%Y-%m-%dT%H:%M:%SZ}">{wheel.name}</a><br>'
    )


if __name__ == "__main__":
    if sys.argv[2:]:
        make_project(Path(sys.argv[1]), sys.argv[2], {sys.argv[3]: 400})
    else:
        make_upstream(Path(sys.argv[1]))
