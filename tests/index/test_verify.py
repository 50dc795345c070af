"""verify names each kind of damage, and what to do, and goes on with the rest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from static_index import __main__ as command
from static_index import files, sync, verify
from static_index.store import Store

from .artifacts import metadata, sdist, wheel
from .conftest import Add

HASH = "$2b$12$" + "abcdefghijklmnopqrstuO" + "abcdefghijklmnopqrstuvwxyzABCDu"


def in_line(store: Store) -> None:
    """As the watcher leaves it."""
    sync.build_register(store, sync.look(store))
    sync.rebuild(store, lambda _done, _total: None)


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "htpasswd").write_text(f"alice:{HASH}\n")
    (folder / "roles.json").write_text('{"alice": {"role": "publisher"}}')
    return folder


@pytest.fixture
def found(
    store: Store, add: Add, accounts: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[tuple[str, str]]]:
    """Kinds and texts of what is found, after a first look that finds nothing."""
    monkeypatch.setattr(verify, "SETTLED_SECONDS", 0)
    for artifact in (wheel("good"), wheel("acme-tool", "1.0"), sdist("acme-tool", "2.0")):
        add(artifact)
        os.utime(store.packages / artifact[0], (1e9, 1e9))  # long settled, or rebuild waits
    store.yank("acme-tool", "1.0", "broken")
    in_line(store)

    def look() -> list[tuple[str, str]]:
        counts = verify.Counts()
        findings = list(verify.verify(store, accounts, counts, lambda _done, _total: None))
        assert counts.projects == 2  # whatever is wrong, the rest was read
        assert all(finding.fix for finding in findings)
        return [(finding.kind, finding.what) for finding in findings]

    assert look() == []
    return look


TOOL = "acme_tool-1.0-py3-none-any.whl"


def rot(path: Path) -> None:
    """Turn a bit as an old disk does: size and times stay."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


Damage = Callable[[Store, Path], object]
DAMAGE: dict[str, tuple[Damage, str, str]] = {
    "rot": (lambda s, _: rot(s.packages / TOOL), "file", f"{TOOL} is damaged: its sha256 is"),
    "cut": (lambda s, _: os.truncate(s.packages / TOOL, 99), "file", f"{TOOL} was changed after it was published: 99"),
    "gone": (lambda s, _: (s.packages / TOOL).unlink(), "file", f"{TOOL} is gone"),
    "closed": (lambda s, _: (s.packages / TOOL).chmod(0o600), "permissions", f"{TOOL} cannot be read by nginx"),
    "no archive": (
        lambda s, _: (s.packages / "acme_tool-3.0.tar.gz").write_text("no"),
        "file",
        "acme_tool-3.0.tar.gz is on no page, because it cannot be: ",
    ),
    "no name": (lambda s, _: (s.packages / "notes.txt").write_text("no"), "file", "notes.txt is on no page, because"),
    "not seen": (lambda s, _: (s.packages / "new-1.0.tar.gz").write_bytes(sdist("new")[1]), "file", "on no page"),
    "page": (lambda s, _: rot(s.index.pages / "acme-tool" / "index.json"), "page", "acme-tool/index.json is not"),
    "packed page": (
        lambda s, _: rot(s.index.pages / "acme-tool" / "index.html.gz"),
        "page",
        "acme-tool/index.html.gz is not",
    ),
    "older API": (lambda s, _: rot(s.index.legacy_path("acme-tool")), "page", "legacy/acme-tool.json is not"),
    "metadata": (lambda s, _: s.index.metadata_path(TOOL).write_text("no"), "page", f"{TOOL}.metadata is not"),
    "record": (
        lambda s, _: s.index.records.path("acme-tool").write_bytes(b"no\n"),
        "record",
        "the record of acme-tool is damaged",
    ),
    "yanks": (
        lambda s, _: (s.packages / ".yanked/acme-tool.json").write_text("{"),
        "yanks",
        "the yanks of acme-tool cannot be read",
    ),
    "other yanks": (
        lambda s, _: (s.packages / ".yanked/acme-tool.json").unlink(),
        "record",
        "the record of acme-tool has other yanks",
    ),
    "names": (lambda s, _: shutil.rmtree(s.packages / ".owned"), "names", ".owned is not complete"),
    "a name": (lambda s, _: (s.packages / ".owned/good").unlink(), "names", ".owned lacks good"),
    "projects": (lambda s, _: (s.index.pages / "index.json").write_text("{}"), "page", "the list of projects cannot"),
    "htpasswd": (lambda _, u: (u / "htpasswd").write_text("alice\n"), "users", "htpasswd: line 1 is no name:hash"),
    "no htpasswd": (lambda _, u: (u / "htpasswd").unlink(), "users", "htpasswd is missing: nobody can log in"),
    "roles": (lambda _, u: (u / "roles.json").write_text("{"), "users", "roles.json: "),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_the_rest_goes_on(
    store: Store, accounts: Path, found: Callable[[], list[tuple[str, str]]], kind: str
) -> None:
    damage, expected, says = DAMAGE[kind]
    damage(store, accounts)
    assert any(kind == expected and says in what for kind, what in found()), found()


@pytest.mark.parametrize("kind", ["page", "packed page", "older API", "metadata", "record", "other yanks", "projects"])
def test_rebuild_mends_what_is_made(
    store: Store, accounts: Path, found: Callable[[], list[tuple[str, str]]], kind: str
) -> None:
    DAMAGE[kind][0](store, accounts)
    assert found()
    in_line(store)
    assert found() == []


def test_a_damaged_file_is_never_taken_for_good_by_a_rebuild(
    store: Store, found: Callable[[], list[tuple[str, str]]]
) -> None:
    rot(store.packages / TOOL)
    store.index.metadata_path(TOOL).unlink()  # it is read again for that
    in_line(store)
    store.index.metadata_path(TOOL).write_bytes(metadata("acme-tool", "1.0", "Requires-Python: >=3.8").encode())
    assert [what.partition(":")[0] for _, what in found()] == [f"{TOOL} is damaged"]


def test_nothing_is_found_when_others_upload_yank_and_delete_meanwhile(
    store: Store, add: Add, found: Callable[[], list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it after the record was read, and before the file behind it and the next project are looked at."""
    del found
    add(wheel("acme-tool", "3.0"))
    changes = [
        lambda: store.remove_version("acme-tool", "2.0"),
        lambda: store.yank("acme-tool", "3.0", "why not"),
        lambda: add(wheel("acme-tool", "4.0")),
        lambda: store.remove_version("good", "1.0"),
        store.index.write_root,
    ]

    def digest(path: Path) -> str:
        while changes:
            changes.pop(0)()
        return files.digest(path)

    monkeypatch.setattr(verify, "digest", digest)
    accounts = store.packages.parent / "users"
    assert list(verify.verify(store, accounts, verify.Counts(), lambda _done, _total: None)) == []
    assert changes == []


def test_the_command_says_it_in_words_and_in_json(
    store: Store, add: Add, accounts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "store_from_environment", lambda: store)
    monkeypatch.setattr(verify, "give_way", lambda: None)
    monkeypatch.setenv("USERS_DIRECTORY", str(accounts))
    size = add(wheel("acme-tool", "1.0")).size
    in_line(store)
    assert command.main(["verify"]) == 0
    assert capsys.readouterr().out == f"0 findings in 1 files of 1 projects, {size:,} bytes\n"
    rot(store.packages / TOOL)
    assert command.main(["verify", "--json"]) == 1
    finding, counts = map(json.loads, capsys.readouterr().out.splitlines())
    assert (finding["kind"], counts) == ("file", {"projects": 1, "files": 1, "bytes": size})
