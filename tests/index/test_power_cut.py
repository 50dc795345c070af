"""A power cut before every step: whatever was acknowledged is there, whole and on its page; the rest is whole or not there."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from static_index.errors import Conflict, NotFound
from static_index.store import Store

from .artifacts import wheel
from .conftest import INSPECTOR, upload
from .disk import Disks
from .serve import serving
from .state import check_whole, links, page
from .test_store import before_step, restart

LOST = {
    "nothing more": lambda _disks: None,  # is on the disks than what was synced
    "names": Disks.write_names,
}
Loss = Callable[[Disks], None]
every_kind_of_loss = pytest.mark.parametrize("lose", LOST.values(), ids=LOST)


def store_on(root: Path) -> Store:
    return Store(root / "packages", root / "index", INSPECTOR)


def settle(store: Store) -> None:
    """As if the files had been there for long: fresh ones may still be growing."""
    for path in store.packages.glob("*.whl"):
        os.utime(path, (1e9, 1e9))
    restart(store)


def cut(disks: Disks, lose: Loss, left: Disks) -> None:
    """Keep what is left, and die."""
    lose(disks)
    disks.copy(left.directory)
    os.kill(os.getpid(), signal.SIGKILL)


def cuts(
    directory: Path, lose: Loss, prepare: Callable[[Store], object], action: Callable[[Store], object]
) -> Iterator[tuple[Store, bool]]:
    """A store after a power cut before each step of the action and after the last one, and whether that had come to its end."""
    template = Disks(directory / "template").make()
    with template.mounted() as root:
        prepare(store_on(root))
        os.sync()
    for step in range(1, 200):
        disks, left = template.copy(directory / f"live-{step}"), Disks(directory / f"left-{step}")
        with disks.mounted() as root:
            child = os.fork()
            if child == 0:
                try:
                    with before_step(step, partial(cut, disks, lose, left)):
                        action(store_on(root))
                    os._exit(0)
                finally:  # the child must not come back into pytest
                    traceback.print_exc()
                    os._exit(1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                lose(disks)
                disks.copy(left.directory)
        with left.mounted() as root:
            yield store_on(root), status == 0
        disks.discard()
        left.discard()
        if status == 0:
            assert step > 15
            return


@every_kind_of_loss
@pytest.mark.parametrize("first", [True, False], ids=["new project", "second version"])
def test_in_an_upload(tmp_path: Path, first: bool, lose: Loss) -> None:
    artifact = wheel(version="2.0", content=os.urandom(100_000))

    def prepare(store: Store) -> None:
        if not first:
            upload(store, wheel(version="1.0"))

    for store, acknowledged in cuts(tmp_path, lose, prepare, lambda s: upload(s, artifact)):
        # What readers see before pypiserver is up again.
        check_whole(store, settled=acknowledged)
        if acknowledged:
            assert artifact[0] in links(store, "acme-tool")
        try:
            upload(store, artifact)
        except Conflict:
            assert artifact[0] in {file["filename"] for file in page(store, "acme-tool")["files"]}
        check_whole(store)
        assert first or "acme_tool-1.0-py3-none-any.whl" in links(store, "acme-tool")


@every_kind_of_loss
def test_in_a_removal(tmp_path: Path, lose: Loss) -> None:
    def prepare(store: Store) -> None:
        for version in ("1.0", "2.0"):
            upload(store, wheel(version=version))
        settle(store)

    for store, acknowledged in cuts(tmp_path, lose, prepare, lambda s: s.remove_version("acme-tool", "1.0")):
        check_whole(store, settled=acknowledged)
        restart(store)
        check_whole(store)
        with suppress(NotFound):
            assert store.remove_version("acme-tool", "1.0") and not acknowledged
        assert [path.name for path in store.packages.glob("*.whl")] == ["acme_tool-2.0-py3-none-any.whl"]


@every_kind_of_loss
def test_in_a_yank(tmp_path: Path, lose: Loss) -> None:
    def prepare(store: Store) -> None:
        upload(store, wheel())
        settle(store)

    for store, acknowledged in cuts(tmp_path, lose, prepare, lambda s: s.yank("acme-tool", "1.0", "bad")):
        check_whole(store, settled=acknowledged)
        assert not acknowledged or page(store, "acme-tool")["files"][0]["yanked"] == "bad"
        restart(store)
        check_whole(store)
        assert not acknowledged or page(store, "acme-tool")["files"][0].get("yanked") == "bad"
        store.yank("acme-tool", "1.0", "bad")
        assert page(store, "acme-tool")["files"][0]["yanked"] == "bad"


@every_kind_of_loss
def test_after_the_server_has_said_yes(tmp_path: Path, lose: Loss) -> None:
    """Over HTTP, with its four workers."""
    artifacts = [wheel(f"acme-{number}", content=os.urandom(100_000)) for number in range(8)]
    disks = Disks(tmp_path / "live").make()
    with disks.mounted() as root, serving(root) as server:
        for number, artifact in enumerate(artifacts):
            assert server.upload(artifact).status_code == 200
            lose(disks)
            with disks.copy(tmp_path / f"left-{number}").mounted() as after:
                store = store_on(after)
                check_whole(store)
                for name, content in artifacts[: number + 1]:
                    assert name in links(store, name.partition("-1.0")[0].replace("_", "-"))
                    assert (store.packages / name).read_bytes() == content
