"""The register of names: entered before the first file is there, kept when the last one has gone, and missed when it is lost."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from static_index import __main__ as command
from static_index import guard, sync
from static_index.errors import Conflict, Forbidden, NotFound, Unavailable
from static_index.store import Store

from .artifacts import wheel
from .conftest import INSPECTOR, Add, upload
from .serve import serving
from .test_store import kills, put


def register(store: Store) -> Path:
    return store.packages / ".owned"


def start(store: Store) -> bool:
    """What a watcher does first."""
    return sync.build_register(store, sync.look(store))


def anew(store: Store) -> Store:
    return Store(store.packages, store.index.directory, INSPECTOR)


def test_a_name_is_ours_before_its_first_file_is_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []
    link = os.link

    def watched(*args: Any, **kwargs: Any) -> None:
        there.append((register(store) / "acme-tool").exists())
        link(*args, **kwargs)

    monkeypatch.setattr(os, "link", watched)
    upload(store, wheel("Acme.Tool"))
    assert there == [True]


def test_kill_9_leaves_no_file_without_its_name(tmp_path: Path) -> None:
    for store in kills(tmp_path, lambda _: None, lambda s: upload(s, wheel())):
        if list(store.packages.glob("*.whl")):
            assert (register(store) / "acme-tool").exists()


def test_a_file_put_by_hand_has_its_name_while_it_is_still_growing(store: Store) -> None:
    path = put(store, wheel())
    os.utime(path)
    assert store.refresh("acme-tool", [path.name], whole=False) == {path.name}
    assert (register(store) / "acme-tool").exists()
    assert not (store.index.pages / "acme-tool").exists()


def test_it_stays_ours_until_it_is_given_up(store: Store, add: Add) -> None:
    add(wheel())
    with pytest.raises(Conflict, match="has files; delete them first"):
        store.give_up("Acme_Tool")
    store.remove_version("acme-tool", "1.0")
    assert start(store)
    assert store.owns("acme-tool")
    assert (register(store) / "acme-tool").exists()
    store.give_up("Acme_Tool")
    assert not store.owns("acme-tool")
    assert start(store)
    assert not (register(store) / "acme-tool").exists()
    with pytest.raises(NotFound, match="no name of this index"):
        store.give_up("acme-tool")


def test_it_is_complete_when_all_that_is_there_was_entered(store: Store, add: Add) -> None:
    add(wheel())
    add(wheel("other"))
    for place in (register(store), store.index.directory / ".owned"):
        shutil.rmtree(place)
    seen: set[str] = set()
    enter = store.register._complete

    def watched() -> None:
        seen.update(store.register.names)
        enter()

    store.register._complete = watched  # type: ignore[method-assign]
    assert start(store)
    assert seen == {"acme-tool", "other"}
    assert (register(store) / "~complete").exists()


def test_a_new_index_has_a_register(store: Store) -> None:
    assert start(store)
    assert store.register.complete


def lose_directory(store: Store) -> None:
    for path in store.packages.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lose_register(store: Store) -> None:
    shutil.rmtree(register(store))


def lose_mark(store: Store) -> None:
    (register(store) / "~complete").unlink()


@pytest.mark.parametrize("lose", [lose_directory, lose_register, lose_mark])
def test_a_register_that_was_lost_is_not_complete_until_somebody_says_so(
    store: Store, add: Add, lose: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(wheel())
    add(wheel("gone"))
    store.remove_version("gone", "1.0")
    assert start(store)
    lose(store)
    for _ in range(2):  # a restart makes nothing better
        store = anew(store)
        assert not start(store)
        sync.rebuild(store, lambda _done, _total: None)
    assert "recover-names" in caplog.text
    assert not store.register.complete
    assert {"acme-tool", "gone"} <= store.register.names
    monkeypatch.setattr(command, "store_from_environment", lambda: store)
    assert command.main(["recover-names"]) == 0
    assert store.register.complete
    assert (register(store) / "gone").exists()


def test_packages_that_are_not_there_make_no_register_of_an_older_index(store: Store, add: Add) -> None:
    """Of one that had none yet: the first start with it happens to come without the volume."""
    add(wheel())
    for place in (register(store), store.index.directory / ".owned"):
        shutil.rmtree(place)
    lose_directory(store)
    for _ in range(2):
        store = anew(store)
        assert not start(store)
        sync.rebuild(store, lambda _done, _total: None)
    assert not store.register.complete


def test_the_register_is_no_package(store: Store, add: Add) -> None:
    add(wheel())
    assert start(store)
    assert set(sync.look(store)) == {"acme_tool-1.0-py3-none-any.whl"}


# Who may begin a project


@contextmanager
def answering(answers: dict[str, int]) -> Iterator[tuple[str, list[str]]]:
    """Another index: status by path. Its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(answers.get(self.path, 404))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/exists/", asked
    finally:
        httpd.shutdown()


ANSWERS = {"/exists/requests": 200, "/exists/down": 502, "/exists/odd": 204, "/exists/acme-x": 200}


@pytest.mark.parametrize(
    ("project", "projects", "refusal", "is_asked"),
    [
        ("requests", [], Forbidden, True),
        ("requests", ["req*"], Forbidden, True),
        ("requests", ["requests"], None, False),
        ("new", [], None, True),
        ("down", [], Unavailable, True),
        ("odd", [], Unavailable, True),
        ("acme-x", [], None, False),
    ],
)
def test_who_may_begin_a_project(
    project: str,
    projects: list[str],
    refusal: type[Exception] | None,
    is_asked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with answering(ANSWERS) as (url, asked):
        monkeypatch.setenv("PYPI_TAKEN_URL", url)
        monkeypatch.setenv("PYPI_RESERVED", "acme-* tools")
        begin = guard.from_environment()
        if refusal:
            with pytest.raises(refusal):
                begin(project, "alice", projects)
        else:
            begin(project, "alice", projects)
        assert bool(asked) == is_asked


def test_nobody_is_asked_where_there_are_no_public_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYPI_TAKEN_URL", raising=False)
    guard.from_environment()("requests", "alice", [])


def test_a_first_upload_under_a_public_name(tmp_path: Path) -> None:
    with answering(ANSWERS | {"/exists/tools": 200}) as (url, asked), serving(tmp_path, PYPI_TAKEN_URL=url) as server:
        refused = server.upload(wheel("Requests"))
        assert (refused.status_code, "pypi_public_reserved_names" in refused.reason) == (403, True)
        assert not list(server.store.packages.glob("*.whl")) and not server.store.owns("requests")
        assert server.upload(wheel("down")).status_code == 503
        assert server.upload(wheel("tools"), user="bob").status_code == 200  # named literally in bob's projects
        assert server.upload(wheel("own")).status_code == 200
        asked.clear()
        assert server.upload(wheel("own", "2.0")).status_code == 200
        server.store.remove_version("own", "1.0")
        server.store.remove_version("own", "2.0")
        assert server.upload(wheel("own", "3.0")).status_code == 200
        assert asked == []
