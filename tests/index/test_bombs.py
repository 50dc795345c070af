"""No archive and no form costs a worker: what unpacks to much is refused in time, and others upload meanwhile."""

from __future__ import annotations

import gzip
import io
import os
import signal
import socket
import struct
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from static_index import archive, inspector, sync
from static_index.archive import Metadata
from static_index.errors import Refusal
from static_index.inspector import Inspector
from static_index.store import Store

from .artifacts import metadata, wheel
from .serve import Server, serving
from .state import check_whole

MEMORY = 512 << 20
"""Of the container, by default; the workers together must stay far below it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), PYPI_WORKERS="4") as running:
        deadline = time.monotonic() + 60
        while len(workers(running)) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield running


def zeros(count: int) -> bytes:
    return bytes(count << 20)


def tarred(header: Callable[[tarfile.TarInfo], bytes]) -> bytes:
    """An sdist that begins with whatever header the function makes."""
    info = tarfile.TarInfo("acme_tool-1.0/PKG-INFO")
    content = metadata("acme-tool", "1.0").encode()
    info.size = len(content)
    return gzip.compress(header(info) + info.tobuf() + content.ljust(512, b"\0") + bytes(1024), 1)


def special(kind: bytes, megabytes: int) -> bytes:
    """A member that says something about the next one, at length."""

    def header(_next: tarfile.TarInfo) -> bytes:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = kind, megabytes << 20
        return info.tobuf(tarfile.GNU_FORMAT) + zeros(megabytes)

    return tarred(header)


def compressed(method: int) -> bytes:
    """A wheel whose one large member is unpacked in one call."""
    buffer = io.BytesIO(wheel()[1])
    with zipfile.ZipFile(buffer, "a", method) as archive:
        archive.writestr("acme_tool/large", zeros(150))
    return buffer.getvalue()


def false_end() -> bytes:
    """A directory of many megabytes behind an end record that seems to say otherwise."""
    content = wheel(members={f"x/{number}": "x" for number in range(5_000)})[1]
    return content[:-2] + struct.pack("<H", 22) + b"PK\5\6" + bytes(18)


def lines(count: int) -> bytes:
    text = metadata("acme-tool", "1.0", *["X: y"] * count)
    return wheel(members={"{stem}.dist-info/METADATA": text})[1]


WHEEL, SDIST = "acme_tool-1.0-py3-none-any.whl", "acme_tool-1.0.tar.gz"
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bzip2": (WHEEL, lambda: compressed(zipfile.ZIP_BZIP2)),
    "LZMA": (WHEEL, lambda: compressed(zipfile.ZIP_LZMA)),
    "a long name in a tar": (SDIST, lambda: special(tarfile.GNUTYPE_LONGNAME, 300)),
    "a PAX header in a tar": (SDIST, lambda: special(tarfile.XHDTYPE, 300)),
    "a global PAX header": (SDIST, lambda: special(tarfile.XGLTYPE, 300)),
    "metadata of short lines": (WHEEL, lambda: lines(700_000)),
    "too much metadata": (WHEEL, lambda: lines(3 << 20)),
    "an end record within the end record": (WHEEL, false_end),
}


def workers(server: Server) -> set[str]:
    """Process ids of gunicorn: its master and the workers."""
    assert server.process
    found = subprocess.run(
        ["pgrep", "-g", str(server.process.pid), "gunicorn"], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


def in_use(server: Server) -> int:
    """The most bytes of memory that each process has ever had in use, added up."""
    high = [Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2] for pid in workers(server)]
    return sum(int(text.split()[0]) << 10 for text in high)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_nobody_notices(server: Server, bomb: str) -> None:
    """Six at once, and honest uploads beside them."""
    filename, make = BOMBS[bomb]
    content, before = make(), workers(server)
    assert len(content) < 8 << 20
    with ThreadPoolExecutor(10) as pool:
        refused = [pool.submit(server.upload, (filename, content)) for _ in range(6)]
        honest = [pool.submit(server.upload, wheel(f"honest-{n}")) for n in range(4)]
        assert {answer.result().status_code for answer in honest} == {200}
        assert {answer.result().status_code for answer in refused} == {400}
    assert workers(server) == before
    assert in_use(server) < MEMORY * 3 // 4
    assert not (server.store.packages / filename).exists()


Reader = Callable[[IO[bytes]], object]
"""What the readers do with an archive, in place of reading it."""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reader], Inspector]]:
    """Makes an inspector whose one reader does something else; its helper is a fork of this process."""
    helpers = []

    def make(read: Reader) -> Inspector:
        for limit, value in {"READERS": 1, "MEMORY": 2 << 30, "SECONDS": 1, "PATIENCE": 1}.items():
            monkeypatch.setattr(inspector, limit, value)
        monkeypatch.setattr(archive, "read", lambda file, *_args, **_kwargs: read(file.seek(0) or file))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        helpers.append(pid := os.fork())
        if pid == 0:
            ours.close()
            inspector.serve(theirs)
            os._exit(0)
        theirs.close()
        asked = Inspector()
        monkeypatch.setattr(asked, "_channel", ours)
        return asked

    yield make
    for pid in helpers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


GOOD = Metadata(b"x", None)


def spin(_file: IO[bytes]) -> None:
    while True:
        pass


def sleep(_file: IO[bytes]) -> None:
    time.sleep(3600)


def grow(_file: IO[bytes]) -> Metadata:
    bytes(inspector.MEMORY)  # asked for, not touched: that would take time
    return GOOD


def die(_file: IO[bytes]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("what", [spin, sleep, grow, die])
def test_a_reader_that_does_not_answer_is_replaced(
    what: Reader, reading: Callable[[Reader], Inspector], tmp_path: Path
) -> None:
    asked = reading(lambda file: GOOD if file.read() == b"good" else what(file))
    for content in (b"bomb", b"bomb", b"good"):
        path = tmp_path / WHEEL
        path.write_bytes(content)
        with path.open("rb") as file:
            if content == b"good":
                assert asked.read(file, WHEEL, strict=True).content == b"x"
                continue
            with pytest.raises(Refusal, match="reading it takes more memory or time than an archive may cost"):
                asked.read(file, WHEEL, strict=True)


def test_what_was_put_by_hand_and_kills_its_reader_is_listed_without_metadata(
    reading: Callable[[Reader], Inspector], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And named, and the others are read. Who kept several in memory was killed, and began again for ever."""
    store = Store(
        tmp_path / "packages", tmp_path / "index", reading(lambda file: die(file) if b"bomb" in file.read() else GOOD)
    )
    for number in range(4):
        for name, content in ((f"bomb-{number}.0", b"bomb"), (f"good-{number}.0", b"good")):
            path = store.packages / f"{name}-py3-none-any.whl"
            path.write_bytes(content)
            os.utime(path, (1e9, 1e9))
    sync.rebuild(store, lambda _done, _total: None)
    check_whole(store)
    for name in ("bomb", "good"):
        files = store.index.records.load(name).files
        assert [bool(file.metadata) for file in files.values()] == [name == "good"] * 4
    for number in range(4):
        assert f"listed without metadata: bomb-{number}.0-py3-none-any.whl: reading it takes more" in caplog.text


def test_requests_that_no_reader_took_are_put_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(wheel()[1])
    asked, send, lost = Inspector(), Inspector._send, [1, 2, 3]

    def lose(self: Inspector, request: bytes, descriptors: list[int]) -> None:
        if lost:
            lost.pop()  # as in the queue of readers that are being killed
        else:
            send(self, request, descriptors)

    monkeypatch.setattr(Inspector, "_send", lose)
    with path.open("rb") as file:
        assert asked.read(file, WHEEL, strict=True).requires_python == ">=3.8"


def test_a_helper_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / WHEEL
    path.write_bytes(wheel()[1])
    asked = Inspector()
    for _ in range(2):
        with path.open("rb") as file:
            assert asked.read(file, WHEEL, strict=True).requires_python == ">=3.8"
        assert asked._helper
        children = subprocess.run(["pgrep", "-P", str(asked._helper.pid)], capture_output=True, text=True, check=True)
        for pid in [asked._helper.pid, *map(int, children.stdout.split())]:
            os.kill(pid, signal.SIGKILL)
