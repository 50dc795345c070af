"""Pages, yanks, removal, rebuild, and a SIGKILL before every step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pypi_simple
import pytest

from static_index import __main__ as command
from static_index import files, sync
from static_index.errors import Conflict, NotFound, Refusal
from static_index.store import Store

from .artifacts import metadata, sdist, wheel
from .conftest import INSPECTOR, Add, upload
from .state import check_whole, eventually, links, page, tree


def rebuild(store: Store) -> None:
    sync.rebuild(store, lambda _done, _total: None)


# Pages


def test_pages_say_what_the_standards_ask(store: Store, add: Add) -> None:
    filename, content = wheel("Foo.Bar", "1!1.0+cu118", fields=('Requires-Python: >=3.8,<4 "&',))
    path = put(store, (filename, content))  # by hand, since no upload may have such a Requires-Python
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    rebuild(store)
    add(sdist("foo-bar", "0.9"))

    sha256, core = (
        hashlib.sha256(content).hexdigest(),
        hashlib.sha256(metadata("Foo.Bar", "1!1.0+cu118", 'Requires-Python: >=3.8,<4 "&').encode()).hexdigest(),
    )
    document = page(store, "foo-bar")
    assert document["meta"] == {"api-version": "1.1"}
    assert (document["name"], document["versions"]) == ("foo-bar", ["1!1.0+cu118", "0.9"])
    assert document["files"][0] == {
        "filename": filename,
        "url": "../../packages/foo_bar-1%211.0%2Bcu118-py3-none-any.whl",
        "hashes": {"sha256": sha256},
        "size": len(content),
        "upload-time": "2023-11-14T22:13:20.123456Z",
        "requires-python": '>=3.8,<4 "&',
        "core-metadata": {"sha256": core},
    }
    assert "core-metadata" not in document["files"][1]
    assert links(store, "foo-bar")[filename] == {
        "href": f"../../packages/foo_bar-1%211.0%2Bcu118-py3-none-any.whl#sha256={sha256}",
        "data-requires-python": '>=3.8,<4 "&',
        "data-core-metadata": f"sha256={core}",
        "data-dist-info-metadata": f"sha256={core}",
    }
    check_whole(store)


def test_another_reader_understands_both_pages(store: Store, add: Add) -> None:
    add(wheel())
    add(sdist(version="2.0"))
    store.yank("acme-tool", "1.0", "<b>broken</b>")
    folder = store.index.directory / "simple" / "acme-tool"
    html = pypi_simple.ProjectPage.from_html(
        "acme-tool", (folder / "index.html").read_text(), base_url="https://x/simple/acme-tool/"
    )
    data = pypi_simple.ProjectPage.from_json_data(
        json.loads((folder / "index.json").read_bytes()), base_url="https://x/simple/acme-tool/"
    )
    assert html.repository_version == data.repository_version == "1.1"
    for one, other in zip(html.packages, data.packages, strict=True):
        assert (one.filename, one.url, one.digests, one.requires_python) == (
            other.filename,
            other.url,
            other.digests,
            other.requires_python,
        )
        assert (one.is_yanked, one.yanked_reason, one.metadata_digests) == (
            other.is_yanked,
            other.yanked_reason,
            other.metadata_digests,
        )
    assert data.versions == ["1.0", "2.0"]
    assert data.packages[0].yanked_reason == "<b>broken</b>"
    age = datetime.now(UTC) - (data.packages[0].upload_time or datetime.min)
    assert age.total_seconds() < 60


def test_the_root_lists_projects(store: Store, add: Add) -> None:
    add(wheel("b"))
    add(wheel("A.a"))
    rebuild(store)
    root = json.loads((store.index.directory / "simple" / "index.json").read_bytes())
    assert [each["name"] for each in root["projects"]] == ["a-a", "b"]
    parsed = pypi_simple.IndexPage.from_html((store.index.directory / "simple" / "index.html").read_text())
    assert parsed.projects == ["a-a", "b"]


def test_no_two_forms_of_a_page_have_one_etag(store: Store, add: Add) -> None:
    """nginx: seconds of mtime, and the size. A client with the older form would be told that nothing has changed."""
    add(wheel("acme-tool", "1.0"))
    etags = set()
    for reason in ("aaa", "bbb", "ccc"):
        store.yank("acme-tool", "1.0", reason)
        status = (store.index.pages / "acme-tool/index.html").stat()
        etags.add((int(status.st_mtime), status.st_size))
    assert len(etags) == 3


# Conflicts, removal, yanks


def test_a_name_is_taken_once(store: Store, add: Add) -> None:
    add(wheel())
    before = tree(store)
    with pytest.raises(Conflict, match="already exists with other content"):
        add(wheel(content=b"other"))
    add(wheel())
    assert tree(store) == before


def test_an_upload_that_was_cut_off_is_finished_by_the_same_bytes_only(store: Store, add: Add) -> None:
    filename, content = wheel()
    (store.packages / filename).write_bytes(content)
    with pytest.raises(Conflict):
        add(wheel(content=b"other"))
    add((filename, content))
    check_whole(store)
    assert links(store, "acme-tool").keys() == {filename}


def test_remove_by_any_spelling(store: Store, add: Add) -> None:
    add(wheel("Foo.Bar", "1.0"))
    add(sdist("Foo.Bar", "1.0"))
    add(wheel("Foo.Bar", "1.1"))
    assert len(store.remove_version("FOO_bar", "1.0.0")) == 2
    assert page(store, "foo-bar")["versions"] == ["1.1"]
    store.remove("foo_bar-1.1-py3-none-any.whl")
    rebuild(store)
    assert tree(store).keys() == {
        f"simple/{name}" for name in ("index.html", "index.html.gz", "index.json", "index.json.gz")
    }
    assert [path for path in store.packages.iterdir() if not path.name.startswith(".")] == []
    with pytest.raises(NotFound):
        store.remove_version("foo-bar", "1.1")
    with pytest.raises(NotFound):
        store.remove("foo_bar-1.1-py3-none-any.whl")
    add(wheel("Foo.Bar", "1.0"))


def test_a_yank_outlives_the_index_and_covers_later_files(store: Store, add: Add) -> None:
    add(wheel("Foo.Bar", "1.0"))
    add(wheel("Foo.Bar", "1.1"))
    assert store.yank("foo_BAR", "1.0.0", "leaks <memory>") == ["foo_bar-1.0-py3-none-any.whl"]
    add(sdist("Foo.Bar", "1.0"))
    shutil.rmtree(store.index.directory)
    again = Store(store.packages, store.index.directory, INSPECTOR)
    rebuild(again)
    yanked = {file["filename"]: file.get("yanked") for file in page(again, "foo-bar")["files"]}
    reason = "leaks <memory>"
    assert yanked == {
        "foo_bar-1.0-py3-none-any.whl": reason,
        "foo_bar-1.0.tar.gz": reason,
        "foo_bar-1.1-py3-none-any.whl": None,
    }
    assert links(again, "foo-bar")["foo_bar-1.0.tar.gz"]["data-yanked"] == reason
    again.yank("foo-bar", "1.1", "")
    assert page(again, "foo-bar")["files"][1]["yanked"] is True
    for version in ("1.0", "1.1"):
        again.yank("Foo-Bar", version, None)
    assert not [file for file in page(again, "foo-bar")["files"] if "yanked" in file]
    with pytest.raises(NotFound):
        again.yank("foo-bar", "3", "")


# Files by other hands


def put(store: Store, artifact: tuple[str, bytes], age: float = 3600) -> Path:
    path = store.packages / artifact[0]
    path.write_bytes(artifact[1])
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_rebuild_from_nothing_gives_the_same_bytes(store: Store, add: Add) -> None:
    for version in ("1.0", "1.1", "2.0rc1"):
        add(wheel("Foo.Bar", version))
        add(sdist("Foo.Bar", version))
    add(wheel("other"))
    store.yank("other", "1.0", "no")
    store.index.write_root()
    before = tree(store)
    rebuild(store)
    assert tree(store) == before
    shutil.rmtree(store.index.directory)
    rebuild(Store(store.packages, store.index.directory, INSPECTOR))
    assert tree(store) == before
    assert sync.differences(store) == []


def test_a_rebuild_repairs_what_hands_did(store: Store, add: Add) -> None:
    add(wheel("kept"))
    add(wheel("gone"))
    rebuild(store)
    (store.packages / "gone-1.0-py3-none-any.whl").unlink()
    (store.index.directory / "simple/kept/index.html").write_bytes(b"")
    (store.index.directory / "metadata/kept-1.0-py3-none-any.whl.metadata").unlink()
    (store.index.directory / "simple/stray").mkdir()
    put(store, wheel("put"))
    assert sync.differences(store)
    rebuild(store)
    check_whole(store)
    assert store.index.records.projects() == ["kept", "put"]
    assert store.index.projects() == {"kept", "put"}
    assert sync.differences(store) == []


def test_a_rebuild_reads_only_what_changed(store: Store, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    add(wheel("old"))
    put(store, wheel("new"))
    read: list[str] = []
    real = Path.open

    def spy(self: Path, *args: Any, **kwargs: Any) -> Any:
        read.append(self.name)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    rebuild(store)
    assert {name for name in read if name.endswith(".whl")} == {"new-1.0-py3-none-any.whl"}


def test_what_is_put_by_hand_and_broken(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    put(store, (wheel("half")[0], wheel("half")[1][:200]))
    put(store, ("notes.txt", b"x"))
    put(store, (sdist("plain")[0], wheel("plain")[1]))
    odd = put(store, wheel("odd", members={"{stem}.dist-info/RECORD": ""}))
    rebuild(store)
    assert store.index.records.projects() == ["odd"]
    assert "core-metadata" not in page(store, "odd")["files"][0]
    for text in (
        "not listed: half-1.0",
        "not listed: notes.txt",
        "not listed: plain-1.0",
        f"without metadata: {odd.name}",
    ):
        assert text in caplog.text
    put(store, wheel("half"))
    rebuild(store)
    assert store.index.records.projects() == ["half", "odd"]


@contextmanager
def watched(store: Store) -> Iterator[None]:
    """A watcher in a process of its own, killed without a word."""
    child = os.fork()
    if child == 0:
        sync.Watcher(store).run()
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def listed(store: Store) -> set[str]:
    return {name for project in store.index.records.projects() for name in store.index.records.load(project).files}


def test_the_watcher_sees_files_come_and_go(store: Store, add: Add) -> None:
    put(store, wheel("before"))
    with watched(store), watched(store):
        eventually(lambda: listed(store) == {"before-1.0-py3-none-any.whl"})
        fresh = put(store, wheel("fresh"), age=0)
        rsynced = store.packages / ".restored-1.0-py3-none-any.whl.Xy12"
        rsynced.write_bytes(wheel("restored")[1])
        os.utime(rsynced, (1e9, 1e9))
        rsynced.rename(store.packages / "restored-1.0-py3-none-any.whl")
        add(wheel("uploaded"))
        eventually(lambda: len(listed(store)) == 4)
        root = store.index.directory / "simple/index.json"
        eventually(lambda: store.index.made and len(json.loads(root.read_bytes())["projects"]) == 4)
        assert page(store, "restored")["files"][0]["upload-time"] == "2001-09-09T01:46:40.000000Z"
        fresh.unlink()
        put(store, wheel("uploaded", content=b"replaced"), age=1000)
        eventually(lambda: len(listed(store)) == 3)
        eventually(lambda: len(json.loads(root.read_bytes())["projects"]) == 3)
    check_whole(store)
    assert sync.differences(store) == []


def test_the_list_of_projects_comes_after_their_pages(store: Store) -> None:
    """By it nginx tells a page that does not exist from one that is not made yet; also where the packages were restored a moment ago."""
    put(store, wheel("old"))
    put(store, wheel("restored"), age=0)
    with watched(store):
        eventually(lambda: store.index.made)
        assert {page(store, name)["name"] for name in ("old", "restored")} == {"old", "restored"}
    shutil.rmtree(store.index.pages)
    assert not store.index.made


def test_an_empty_index_has_a_list_of_projects(store: Store) -> None:
    with watched(store):
        eventually(lambda: store.index.made)


def test_the_watcher_of_a_slow_disk_sees_the_next_file_soon(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It rests from its own work only, not from waiting for the disk."""
    fsync = os.fsync

    def slow_fsync(descriptor: int) -> None:
        time.sleep(0.3)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    with watched(store):
        for number in range(3):
            filename = put(store, wheel(f"slow-{number}")).name
            eventually((store.index.directory / "metadata" / f"{filename}.metadata").exists)


def test_the_watcher_waits_for_a_file_that_still_grows(store: Store) -> None:
    filename, content = wheel(content=os.urandom(4096))
    with watched(store), (store.packages / filename).open("wb") as file:
        for start in range(0, len(content), 1024):
            file.write(content[start : start + 1024])
            file.flush()
            time.sleep(0.5)
            assert listed(store) == set()
        file.close()
        eventually(lambda: listed(store) == {filename})
    check_whole(store)


def test_the_command(
    store: Store, add: Add, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYPI_PACKAGES", str(store.packages))
    monkeypatch.setenv("PYPI_INDEX", str(store.index.directory))
    add(wheel("Foo.Bar", "1.0"))
    assert command.main(["yank", "FOO-bar", "1.0.0", "--reason", "why"]) == 0
    assert page(store, "foo-bar")["files"][0]["yanked"] == "why"
    assert command.main(["unyank", "foo_bar", "1"]) == 0
    assert "yanked" not in page(store, "foo-bar")["files"][0]
    put(store, wheel("put"))
    assert command.main(["check"]) == 1
    assert "simple/put/index.html" in capsys.readouterr().out
    assert command.main(["rebuild"]) == 0
    assert "2 of 2 projects" in capsys.readouterr().err
    assert command.main(["check"]) == 0
    assert command.main(["delete", "foo.bar", "1.0"]) == 0
    assert command.main(["delete", "foo.bar", "1.0"]) == 1
    assert "foo-bar (1.0) not found" in capsys.readouterr().err
    assert store.index.records.projects() == ["put"]


# Death at every step


STEPS = ("fsync", "link", "replace", "unlink", "mkdir", "rmdir", "open", "pwrite", "ftruncate", "utime")


@contextmanager
def before_step(number: int, then: Callable[[], object]) -> Iterator[None]:
    """Calls `then` before the n-th call that changes the disk."""
    real = {name: getattr(os, name) for name in STEPS}
    left = number

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                then()
            return call(*args, **kwargs)

        return step

    for name, call in real.items():
        setattr(os, name, counted(call))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


def die_before_step(number: int, action: Callable[[], object]) -> bool:
    """Run the action in a child that kills itself before the n-th step. False: it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            with before_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                action()
        except BaseException:  # noqa: BLE001  # the child must not come back into pytest
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


def kills(tmp_path: Path, prepare: Callable[[Store], object], action: Callable[[Store], object]) -> Iterator[Store]:
    """A store for each step at which the action was killed."""
    for step in range(1, 200):
        store = Store(tmp_path / str(step) / "packages", tmp_path / str(step) / "index", INSPECTOR)
        prepare(store)
        if not die_before_step(step, lambda store=store: action(store)):  # type: ignore[misc]
            assert step > 15
            return
        yield store


def restart(store: Store) -> None:
    """What the watcher does first; unlike a rebuild it trusts what records say."""
    for project in {"acme-tool", *store.index.projects()}:
        store.refresh(project, [path.name for path in store.packages.glob("*.whl")], whole=True)


@pytest.mark.parametrize("first", [True, False], ids=["new project", "second version"])
def test_kill_9_in_an_upload(first: bool, tmp_path: Path) -> None:
    artifact = wheel(version="2.0")
    for store in kills(tmp_path, lambda s: None if first else upload(s, wheel()), lambda s: upload(s, artifact)):
        check_whole(store, settled=False)
        try:
            upload(store, artifact)
        except Conflict:  # killed after the last page was written
            assert artifact[0] in {file["filename"] for file in page(store, "acme-tool")["files"]}
        check_whole(store)
        files.sweep(store.spool, older_than=time.time() + 1)
        files.sweep(store.index.directory / ".tmp", older_than=time.time() + 1)
        assert not list(store.spool.iterdir()) and not list((store.index.directory / ".tmp").iterdir())


def test_kill_9_in_an_upload_without_a_retry(tmp_path: Path) -> None:
    artifact = wheel(version="2.0")
    for store in kills(tmp_path, lambda s: upload(s, wheel()), lambda s: upload(s, artifact)):
        for path in store.packages.glob("*.whl"):
            os.utime(path, (1e9, 1e9))
        restart(store)
        check_whole(store)
        assert len(page(store, "acme-tool")["files"]) == len(list(store.packages.glob("*.whl")))
        store.index.write_root()
        store.sweep(listed(store))
        assert sync.differences(store) == []


def test_what_cannot_be_opened_is_none_of_ours_and_holds_up_nothing(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "left").touch()
    files.sweep(tmp_path, older_than=time.time() + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


@pytest.mark.parametrize("left", [0, 1], ids=["last version", "one of two"])
def test_kill_9_in_a_removal(left: int, tmp_path: Path) -> None:
    def prepare(store: Store) -> None:
        upload(store, wheel(version="1.0"))
        if left:
            upload(store, wheel(version="2.0"))
        store.yank("acme-tool", "1.0", "bad")
        for path in store.packages.glob("*.whl"):
            os.utime(path, (1e9, 1e9))
        rebuild(store)

    for store in kills(tmp_path, prepare, lambda s: s.remove_version("acme-tool", "1.0")):
        check_whole(store, settled=False)
        restart(store)
        check_whole(store)
        on_disk = {path.name for path in store.packages.glob("*.whl")}
        assert listed(store) == on_disk == (set(links(store, "acme-tool")) if on_disk else set())
        try:
            store.remove_version("acme-tool", "1.0")
        except NotFound:
            pass
        assert len(listed(store)) == len(list(store.packages.glob("*.whl"))) == left


def test_kill_9_in_a_yank(tmp_path: Path) -> None:
    for store in kills(tmp_path, lambda s: upload(s, wheel()), lambda s: s.yank("acme-tool", "1.0", "bad")):
        for path in store.packages.glob("*.whl"):
            os.utime(path, (1e9, 1e9))
        check_whole(store, settled=False)
        restart(store)
        check_whole(store)
        assert (
            page(store, "acme-tool")["files"][0].get("yanked")
            == store.index.records.load("acme-tool").files["acme_tool-1.0-py3-none-any.whl"].yanked
        )
        store.yank("acme-tool", "1.0", "bad")
        assert page(store, "acme-tool")["files"][0]["yanked"] == "bad"


# Side by side


def test_workers_do_not_lose_each_others_files(store: Store) -> None:
    """Threads as the workers use them: each with its own file descriptors for the locks."""
    failures: list[Refusal] = []

    def work(worker: int) -> None:
        for number in range(10):
            upload(store, wheel(version=f"{worker}.{number}"))
            try:
                upload(store, wheel("shared", version=str(number), content=b"%d" % worker))
            except Conflict as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(page(store, "acme-tool")["files"]) == 40
    assert (len(page(store, "shared")["files"]), len(failures)) == (10, 30)
    check_whole(store)
