"""The older JSON API: it says what the pages say, a moment later, and follows every change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from static_index import legacy, sync
from static_index.store import Store

from .artifacts import sdist, wheel
from .conftest import INSPECTOR, Add, upload
from .serve import serving
from .state import page
from .test_store import put, rebuild

URL = "https://pypi.example.com"
FIELDS = (
    "Requires-Python: >=3.8",
    "Summary: Tools",
    "Project-URL: Source, https://git.example.com/tool",
    "Requires-Dist: requests>=2",
    'Requires-Dist: rich; extra == "tty"',
    "Provides-Extra: tty",
    "Classifier: Private :: Do Not Upload",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "packages", tmp_path / "index", INSPECTOR, URL)


def follow(store: Store, project: str = "acme-tool") -> None:
    """As the watcher does, which is told of a file that it knows."""
    store.refresh(project, store.present(project), whole=False)
    store.index.write_root()


def document(store: Store, project: str = "acme-tool") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.index.legacy_path(project).read_bytes())
    return found


def test_it_says_what_pypi_says(store: Store, add: Add) -> None:
    added = add(wheel(fields=FIELDS))
    add(sdist())
    follow(store)
    found = document(store)
    assert found.keys() == {"info", "last_serial", "releases", "urls", "vulnerabilities"}
    assert {key: found["info"][key] for key in ("name", "version", "summary", "requires_python", "yanked")} == {
        "name": "acme-tool",
        "version": "1.0",
        "summary": "Tools",
        "requires_python": ">=3.8",
        "yanked": False,
    }
    assert found["info"]["project_urls"] == {"Source": "https://git.example.com/tool"}
    assert found["info"]["requires_dist"] == ["requests>=2", 'rich; extra == "tty"']
    assert found["info"]["classifiers"] == ["Private :: Do Not Upload"]
    assert found["info"]["description"].strip() == "A package."
    assert found["urls"] == found["releases"]["1.0"]
    listed = page(store, "acme-tool")["files"][0]
    assert found["urls"][0] == {
        "filename": added.filename,
        "url": f"{URL}/packages/{added.filename}",
        "digests": listed["hashes"],
        "size": listed["size"],
        "packagetype": "bdist_wheel",
        "python_version": "py3",
        "requires_python": ">=3.8",
        "upload_time": listed["upload-time"][:19],
        "upload_time_iso_8601": listed["upload-time"],
        "yanked": False,
        "yanked_reason": None,
    }
    assert (found["urls"][1]["packagetype"], found["urls"][1]["python_version"]) == ("sdist", "source")


def test_it_is_about_the_newest_version_that_anyone_would_choose(store: Store, add: Add) -> None:
    for version in ("1.10", "1.9", "2.0rc1", "1.11"):
        add(wheel(version=version))
    store.yank("acme-tool", "1.11", "broken")
    found = document(store)
    assert found["info"]["version"] == "1.10"
    assert list(found["releases"]) == ["1.10", "1.9", "2.0rc1", "1.11"]
    assert found["releases"]["1.11"][0]["yanked_reason"] == "broken"
    for version in ("1.10", "1.9"):
        store.yank("acme-tool", version, "")
    assert document(store)["info"]["version"] == "2.0rc1"


CHANGES: dict[str, Callable[[Store], object]] = {
    "upload": lambda s: upload(s, wheel(version="3.0")),
    "yank": lambda s: s.yank("acme-tool", "1.0", "bad"),
    "removal": lambda s: s.remove("acme_tool-1.0-py3-none-any.whl"),
    "file put by hand": lambda s: put(s, wheel(version="4.0")),
    "address": lambda s: setattr(s.index, "url", "https://other.example.com"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_follows_every_change(store: Store, add: Add, change: str) -> None:
    add(wheel())
    add(wheel(version="2.0"))
    follow(store)
    before = document(store)
    CHANGES[change](store)
    follow(store)
    after = document(store)
    assert after != before
    assert after["last_serial"] != before["last_serial"]
    assert {file["filename"] for files in after["releases"].values() for file in files} == {
        file["filename"] for file in page(store, "acme-tool")["files"]
    }
    assert sync.differences(store) == []


def test_it_goes_with_the_last_file(store: Store, add: Add) -> None:
    add(wheel())
    follow(store)
    store.remove_version("acme-tool", "1.0")
    assert not store.index.legacy_path("acme-tool").exists()


def test_an_index_of_an_older_version_gets_them(store: Store, add: Add) -> None:
    add(wheel())
    follow(store)
    whole = store.index.legacy_path("acme-tool").read_bytes()
    path = store.index.legacy_path("acme-tool")
    path.unlink()
    rebuild(store)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-3])
    rebuild(store)
    assert path.read_bytes() == whole


def test_what_is_damaged_is_found(store: Store, add: Add) -> None:
    add(wheel())
    follow(store)
    path = store.index.legacy_path("acme-tool")
    path.write_bytes(path.read_bytes().replace(b'"1.0"', b'"9.9"'))
    assert sync.differences(store) == ["legacy/acme-tool.json"]


def test_without_metadata_it_still_has_the_files(store: Store, add: Add) -> None:
    add(sdist())
    follow(store)
    info = document(store)["info"]
    assert (info["name"], info["version"], info["requires_python"]) == ("acme-tool", "1.0", ">=3.9")
    assert (info["requires_dist"], info["summary"]) == (None, None)


def test_a_running_server_writes_them(tmp_path: Path) -> None:
    with serving(tmp_path, PYPI_URL=URL) as server:
        assert server.upload(wheel()).status_code == 200
        path = server.store.index.legacy_path("acme-tool")
        deadline = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)
        assert document(server.store)["urls"][0]["url"].startswith(f"{URL}/packages/")
        assert (server.store.packages / ".owned/~complete").exists()


def test_the_serial_is_that_of_the_record_and_the_address() -> None:
    numbers = {legacy.serial(content, url) for content in (b"a", b"b") for url in ("x", "y")}
    assert len(numbers) == 4
