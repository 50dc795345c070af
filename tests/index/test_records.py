"""What is known of a project: grown upload by upload as a rebuild has it, and mended when a part is gone."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from static_index import names, pages, sync
from static_index.errors import Conflict, Damaged
from static_index.records import File, Record
from static_index.store import Store

from .artifacts import sdist, wheel
from .conftest import Add
from .state import check_whole, links, page, tree
from .test_store import rebuild


def versions(store: Store, project: str = "acme-tool") -> list[str]:
    found: list[str] = page(store, project)["versions"]
    return found


# Growth


def grow(store: Store, count: int) -> None:
    """As so many uploads would, without the archives: a few kinds of files, and one version with two."""
    known = store.index.records.load("acme-tool")
    for number in range(len(known), len(known) + count):
        filename = wheel(version=f"1.{number}")[0] if number % 7 else f"acme_tool-1.{max(number - 1, 0)}.tar.gz"
        (store.packages / filename).write_bytes(b"%d" % number)
        status = (store.packages / filename).stat()
        release = names.parse(filename)
        added = File(
            filename, str(release.version), names.release_key(str(release.version)), status.st_size, status.st_mtime_ns,
            f"{number:064}", requires_python=">=3.8" if number % 3 else None, yanked="" if number % 50 == 1 else None,
        )  # fmt: skip
        with store.index.lock("acme-tool"):
            store.index.add("acme-tool", store.index.records.load("acme-tool"), added, {}, lambda: None)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "BLOCK", 8)
    monkeypatch.setattr(pages, "PLAIN", 20)


@pytest.mark.usefixtures("small_pages")
def test_pages_grow_into_what_a_rebuild_makes(store: Store) -> None:
    """At every number of files: before, at and behind the end of a block, and beyond what is kept plain."""
    for count in range(1, 36):
        grow(store, 1)
        before = tree(store)
        assert len(page(store, "acme-tool")["files"]) == len(links(store, "acme-tool")) == count
        assert ("simple/acme-tool/index.html" in before) == (count <= 20)
        record = store.index.records.load("acme-tool")
        with store.index.lock("acme-tool"):
            store.index.publish("acme-tool", record, record.files)
        assert tree(store) == before


def test_uploads_out_of_order_are_as_a_rebuild_has_them(store: Store, add: Add) -> None:
    for version in ("2.0", "1.0", "1.5"):
        add(wheel(version=version))
        add(sdist(version=version))
    store.index.write_root()
    assert sync.differences(store) == []
    assert versions(store) == ["2.0", "1.0", "1.5"]


def test_an_upload_comes_last_also_when_the_clock_was_ahead(store: Store, add: Add) -> None:
    add(wheel(version="1.0"))
    tomorrow = time.time() + 86_400
    os.utime(store.packages / wheel(version="1.0")[0], (tomorrow, tomorrow))
    rebuild(store)
    added = add(wheel(version="2.0"))
    assert added.mtime_ns < time.time_ns()
    store.index.write_root()
    assert sync.differences(store) == []
    assert versions(store) == ["2.0", "1.0"]


# Damage


def remove(path: Path) -> None:
    path.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": remove,
    "empty": lambda record: record.write_bytes(b""),
    "cut off": lambda record: record.write_bytes(record.read_bytes()[:-9]),
    "zeros at its end": lambda record: record.write_bytes(record.read_bytes() + bytes(40)),
    "no JSON": lambda record: record.write_bytes(b"\xff" + record.read_bytes()[1:]),
    "a line that is no JSON": lambda record: record.write_bytes(
        record.read_bytes().replace(b'{"filename', b"{filename", 1)
    ),
    "another format": lambda record: record.write_bytes(record.read_bytes().replace(b'{"pages":', b'{"pages":1')),
    "a file less": lambda record: record.write_bytes(b"".join(record.read_bytes().splitlines(keepends=True)[:-1])),
}
CHANGES: dict[str, tuple[Callable[[Store, Add], object], set[str]]] = {
    "upload": (lambda _store, add: add(wheel(version="4.0")), {"1.0", "2.0", "3.0", "4.0"}),
    "yank": (lambda store, _add: store.yank("acme-tool", "2.0", "bad"), {"1.0", "2.0", "3.0"}),
    "remove": (lambda store, _add: store.remove_version("acme-tool", "2.0"), {"1.0", "3.0"}),
    "remove a file": (lambda store, _add: store.remove(wheel(version="2.0")[0]), {"1.0", "3.0"}),
}


def three(store: Store, add: Add) -> None:
    for version in ("1.0", "2.0", "3.0"):
        add(wheel(version=version))
        os.utime(store.packages / wheel(version=version)[0], (1e9, 1e9))  # a fresh file may still be growing
    rebuild(store)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_costs_no_version(store: Store, add: Add, damage: str, change: str) -> None:
    three(store, add)
    DAMAGE[damage](store.index.records.path("acme-tool"))
    act, expected = CHANGES[change]
    act(store, add)
    assert set(versions(store)) == expected
    check_whole(store)
    assert {file.version for file in store.index.records.load("acme-tool").files.values()} == expected
    store.index.write_root()
    assert sync.differences(store) == []


PAGES: dict[str, Callable[[Path], object]] = {
    "all gone": shutil.rmtree,
    "one gone": lambda folder: remove(folder / "index.json"),
    "empty": lambda folder: (folder / "index.html.gz").write_bytes(b""),
    "of another upload": lambda folder: (folder / "index.json.gz").write_bytes(gzip.compress(b"{}")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("damage", PAGES)
def test_damaged_pages_are_made_anew(store: Store, add: Add, damage: str, change: str) -> None:
    three(store, add)
    PAGES[damage](store.index.pages / "acme-tool")
    act, expected = CHANGES[change]
    act(store, add)
    assert set(versions(store)) == expected
    check_whole(store)


def test_yanks_that_cannot_be_read_stop_the_project_and_no_other(store: Store, add: Add) -> None:
    three(store, add)
    (store.packages / ".yanked/acme-tool.json").write_text("{")
    with pytest.raises(Damaged, match="the yanks of acme-tool cannot be read: mend or remove .*/acme-tool.json"):
        add(wheel(version="4.0"))
    add(wheel("other"))
    rebuild(store)
    assert versions(store) == ["1.0", "2.0", "3.0"]
    assert versions(store, "other") == ["1.0"]


# One file for one thing


TWINS = {
    "a zip beside the tar": (sdist(), wheel(filename="acme_tool-1.0.zip", members={"a-1.0/PKG-INFO": "Name: acme-tool\nVersion: 1.0\n\n"})),
    "tags in another order": (wheel(filename="acme_tool-1.0-py2.py3-none-any.whl"), wheel(filename="acme_tool-1.0-py3.py2-none-any.whl")),
    "another spelling of the version": (wheel(), wheel(version="1.0.0")),
    "the same build": (wheel(filename="acme_tool-1.0-1-py3-none-any.whl"), wheel(filename="acme_tool-1.0-01-py3-none-any.whl")),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), TWINS.values(), ids=TWINS)
def test_a_released_file_has_no_twin(
    store: Store, add: Add, first: tuple[str, bytes], second: tuple[str, bytes]
) -> None:
    add(first)
    with pytest.raises(Conflict, match=f"{second[0]} already exists as {first[0]}; what is released never changes"):
        add(second)
    assert not (store.packages / second[0]).exists()


def test_an_odd_spelling_put_by_hand_counts_as_well(store: Store, add: Add) -> None:
    (store.packages / "Acme.Tool-1.0.tar.gz").write_bytes(sdist()[1])
    os.utime(store.packages / "Acme.Tool-1.0.tar.gz", (1e9, 1e9))
    rebuild(store)
    with pytest.raises(Conflict, match="already exists as Acme.Tool-1.0.tar.gz"):
        add(sdist())


def test_other_builds_and_tags_are_other_files(store: Store, add: Add) -> None:
    for tags in ("py3-none-any", "1-py3-none-any", "2-py3-none-any", "py2.py3-none-any", "cp311-cp311-linux_x86_64"):
        add(wheel(filename=f"acme_tool-1.0-{tags}.whl"))
    assert len(page(store, "acme-tool")["files"]) == 5


def test_a_reason_cannot_look_like_a_record(store: Store, add: Add) -> None:
    """Lines are found by a part of their text."""
    three(store, add)
    store.yank("acme-tool", "2.0", '\n{"filename":"x","version":"9",,"release":"1",\n{"seals":')
    record = store.index.records.load("acme-tool")
    assert record.versions == ["1.0", "2.0", "3.0"]
    assert [file.version for file in record.of_release("1")] == ["1.0"]
    assert (len(record), len(record.files), record.seals) == (3, 3, ())
    assert Record(record.content[:40]).intact is False
