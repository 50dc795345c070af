"""All of it goes into a plain directory, and comes in from there as it was: files, times, yanks, names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from moving import manifest, outgoing
from moving.offers import Stopped
from static_index.pages import BLOCK
from static_index.store import Store

from .artifacts import sdist, wheel
from .conftest import Add, upload
from .moving_runs import files_of, leave, new_store, put, take, whole_tree
from .test_verify import rot

FILES = 9


@pytest.fixture
def full(store: Store, add: Add) -> Store:
    """A store with what there is to lose."""
    for number in range(FILES):
        add(wheel("acme-tool", f"1.{number}", content=b"%d\n" % number))
    add(sdist("Other.Thing", "2.0"))
    add(wheel("gone"))
    store.yank("acme-tool", "1.1", "broken on <Windows>")
    store.yank("acme-tool", "1.2", "")
    store.remove_version("gone", "1.0")
    return store


def test_there_and_back_again(full: Store, tmp_path: Path) -> None:
    """Byte for byte: pages, records with nanoseconds, yanks, and the register of names."""
    for number in range(BLOCK):
        upload(full, wheel("acme-tool", f"2.{number}"))
    report = leave(full, tmp_path / "out")
    assert (report.taken, report.refused) == (FILES + BLOCK + 1, [])
    back = new_store(tmp_path / "back")
    assert take(back, tmp_path / "out").refused == []
    assert whole_tree(back) == whole_tree(full)
    assert back.yanked("acme-tool") == full.yanked("acme-tool") == {"1.1": "broken on <Windows>", "1.2": ""}
    assert back.register.names == full.register.names == {"acme-tool", "other-thing", "gone"}
    assert {name for name in files_of(tmp_path / "out") if name.count("/") == 0} == {manifest.NAME}


def test_what_it_says_is_what_other_tools_know(full: Store, tmp_path: Path) -> None:
    leave(full, tmp_path / "out")
    document = json.loads((tmp_path / "out" / manifest.NAME).read_text())
    assert document["format"] == 1 and document["names"] == ["gone"]
    first, second = document["projects"]["acme-tool"][:2]
    assert first.keys() == {"filename", "hashes", "size", "upload-time", "yanked", "requires-python"}
    assert (first["yanked"], second["yanked"]) == (False, "broken on <Windows>")
    assert document["projects"]["acme-tool"][2]["yanked"] is True


def test_without_its_json_it_is_a_plain_directory(full: Store, tmp_path: Path) -> None:
    leave(full, tmp_path / "out")
    (tmp_path / "out" / manifest.NAME).unlink()
    back = new_store(tmp_path / "back")
    assert take(back, tmp_path / "out").taken == FILES + 1
    assert whole_tree(back).keys() == whole_tree(full).keys()


def test_it_goes_on_and_follows(full: Store, tmp_path: Path) -> None:
    leave(full, tmp_path / "out")
    before = files_of(tmp_path / "out")
    upload(full, wheel("acme-tool", "3.0"))
    full.remove_version("other-thing", "2.0")
    report = leave(full, tmp_path / "out")
    assert (report.taken, report.already) == (1, FILES)
    after = files_of(tmp_path / "out")
    assert before.keys() - after.keys() == set()  # nothing of it is deleted; what counts is the JSON
    assert "other-thing" not in json.loads(after[manifest.NAME][1])["projects"]
    back = new_store(tmp_path / "back")
    take(back, tmp_path / "out")
    assert whole_tree(back) == whole_tree(full)


def test_a_run_that_ended_early_is_no_export_yet(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(full, tmp_path / "out")
    upload(full, wheel("acme-tool", "3.0"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            leave(full, tmp_path / "out")
    assert not (tmp_path / "out" / manifest.NAME).exists()
    assert leave(full, tmp_path / "out").already == FILES + 1
    assert not (tmp_path / "out/.moving-out").exists()
    assert (tmp_path / "out" / manifest.NAME).exists()


def test_a_damaged_file_is_named_and_not_handed_on(full: Store, tmp_path: Path) -> None:
    rot(full.packages / "acme_tool-1.7-py3-none-any.whl")
    (full.packages / "acme_tool-1.8-py3-none-any.whl").unlink()
    report = leave(full, tmp_path / "out")
    assert len(report.refused) == 2, report.refused
    assert (
        "acme_tool-1.7-py3-none-any.whl: it is damaged here, and was not copied: run playbooks/verify.yml"
        in report.refused
    )
    assert "acme_tool-1.8-py3-none-any.whl: it is recorded and not there: run playbooks/verify.yml" in report.refused
    assert report.taken == FILES - 1
    named = {
        file["filename"] for file in json.loads((tmp_path / "out" / manifest.NAME).read_text())["projects"]["acme-tool"]
    }
    assert (
        named.isdisjoint({"acme_tool-1.7-py3-none-any.whl", "acme_tool-1.8-py3-none-any.whl"})
        and len(named) == FILES - 2
    )


def test_a_directory_of_somebody_else_is_refused(full: Store, tmp_path: Path) -> None:
    put(tmp_path / "out", ("letters.txt", b"dear"))
    with pytest.raises(Stopped, match="it holds other files"):
        leave(full, tmp_path / "out")
    assert list(files_of(tmp_path / "out")) == ["letters.txt"]


def test_a_file_in_the_way_stays(full: Store, tmp_path: Path) -> None:
    leave(full, tmp_path / "out")
    mine = put(tmp_path / "out/acme-tool", ("acme_tool-1.7-py3-none-any.whl", b"mine"))
    report = leave(full, tmp_path / "out")
    assert len(report.refused) == 1 and "with other content, which stays" in report.refused[0]
    assert mine.read_bytes() == b"mine"


def test_no_room_is_said_before_anything_is_written(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "ROOM", 1 << 60)
    with pytest.raises(Stopped, match="there is no room"):
        leave(full, tmp_path / "out")
    assert files_of(tmp_path / "out") == {}


def test_a_dry_run_writes_nothing(full: Store, tmp_path: Path) -> None:
    report = leave(full, tmp_path / "out", dry=True)
    assert report.total == FILES + 1 and report.total_bytes > 0
    assert files_of(tmp_path / "out") == {}


def test_uploads_and_deletions_go_on_meanwhile(full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there when its project's turn came is in it whole, unless it was deleted before it was copied."""
    original, other, copied = outgoing.Leaving._copy, new_store(tmp_path), []

    def copy(self: outgoing.Leaving, *arguments: Any) -> bool:
        copied.append(arguments)
        if len(copied) == 4:
            upload(other, wheel("acme-tool", "5.0"))
            other.remove_version("acme-tool", f"1.{FILES - 1}")
        return original(self, *arguments)

    monkeypatch.setattr(outgoing.Leaving, "_copy", copy)
    report = leave(full, tmp_path / "out")
    assert (report.taken, report.refused) == (FILES, [])
    back = new_store(tmp_path / "back")
    assert take(back, tmp_path / "out").refused == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": 2}',
        '{"format": 1, "projects": [], "names": []}',
        '{"format": 1, "projects": {"a": [1]}, "names": []}',
    ],
)
def test_a_json_that_is_none_says_so(store: Store, tmp_path: Path, content: str) -> None:
    (tmp_path / manifest.NAME).write_text(content)
    with pytest.raises(Stopped, match="not what move-out writes"):
        take(store, tmp_path)


@pytest.mark.parametrize("filename", ["../x-1.0.tar.gz", "/etc/passwd", "..", ""])
def test_the_json_does_not_lead_out_of_its_directory(store: Store, tmp_path: Path, filename: str) -> None:
    (tmp_path / manifest.NAME).write_text(
        json.dumps({"format": 1, "names": [], "projects": {"x": [{"filename": filename, "hashes": {}}]}})
    )
    with pytest.raises(Stopped, match="outside of itself"):
        take(store, tmp_path)
