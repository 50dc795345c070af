"""A file leaves the upstream once, whoever asks and whoever goes; and what is kept stays right."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from public_index import download
from public_index.__main__ import main
from public_index.cache import Cache

from .conftest import Engine, Start, address, described, document, process, serving
from .upstream import JSON, Artifact, Upstream, held_back, running, slowly


def large(upstream: Upstream, megabytes: int, pause: float = 0.0) -> Artifact:
    """A file that comes in 50 pieces."""
    artifact = Artifact("big-1.0-py3-none-any.whl", random.Random(7).randbytes(megabytes << 20))
    upstream.projects["big"] = [artifact]
    if pause:
        upstream.wrong[f"/files/{artifact.filename}"] = slowly(artifact.content, (megabytes << 20) // 50, pause)
    return artifact


def test_100_clients_want_100_mb(upstream: Upstream, tmp_path: Path) -> None:
    artifact = large(upstream, 100)
    everybody = threading.Event()
    in_time: list[bool] = []
    upstream.wrong[f"/files/{artifact.filename}"] = held_back(artifact.content, 1 << 20, everybody)

    def client(engine: Engine) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=100)
        connection.request("GET", address(artifact, "big"))
        response = connection.getresponse()
        assert response.length == len(artifact.content)
        size = len(response.read(1000))
        in_time.append(not everybody.is_set())
        if len(in_time) == 100:
            everybody.set()
        while chunk := response.read(1 << 20):
            assert artifact.content[size : size + len(chunk)] == chunk
            size += len(chunk)
        connection.close()
        return size

    with (
        process(document([described(upstream)], tmp_path / "cache", timeout=60), tmp_path) as engine,
        ThreadPoolExecutor(100) as pool,
    ):
        assert set(pool.map(client, [engine] * 100)) == {len(artifact.content)}
        assert in_time == [True] * 100
        assert upstream.count(f"/files/{artifact.filename}") == 1
        assert upstream.count("/simple/big/") == 1
        wait_for(lambda: engine.kept() == {artifact.filename})
        assert engine.ask(address(artifact, "big")).body == artifact.content
        status = Path(f"/proc/{engine.process.pid}/status").read_text() if engine.process else ""
        assert int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) < 150_000


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("limit", ["server.CONNECTIONS", "server.ASKING"])
def test_a_reader_who_asks_for_very_much_leaves_places_for_others(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"public_index.{limit}", 20)
    monkeypatch.setattr("public_index.server.PATIENCE", 0.1)
    upstream.add("good")
    engine, end = start(timeout=60), threading.Event()
    names = [f"slow{number}" for number in range(20)]
    for name in names:
        upstream.add(name)
        content = json.dumps(upstream.document(name)).encode()
        upstream.wrong[f"/simple/{name}/"] = held_back(content, 10, end, JSON)
    with ThreadPoolExecutor(len(names)) as pool:
        asked = [pool.submit(engine.ask, f"/simple/{name}/", reader="greedy") for name in names]
        try:
            while len(upstream.asked) + sum(reply.done() for reply in asked) < len(names):
                time.sleep(0.01)
            for path in ("/simple/good/", "/exists/good", "/health"):
                assert engine.ask(path, reader="modest").status == 200, path
        finally:
            end.set()
        replies = [reply.result() for reply in asked]
    assert [reply.status for reply in replies].count(200) == 10
    assert {(reply.status, reply.headers["Retry-After"]) for reply in replies} == {(200, None), (503, "5")}
    assert engine.ask("/simple/slow19/", reader="greedy").status == 200


def test_a_reader_who_starts_very_many_downloads_leaves_places_for_others(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one who leaves at once: what was begun is fetched all the same."""
    monkeypatch.setattr("public_index.mirror.DOWNLOADS", 8)
    monkeypatch.setattr("public_index.mirror.PATIENCE", 0.1, raising=False)
    good = upstream.add("good")
    engine, end = start(timeout=60), threading.Event()
    files = [upstream.add("slow", f"{number}.0") for number in range(9)]
    for file in files:
        upstream.wrong[f"/files/{file.filename}"] = held_back(file.content, 10, end)
    statuses = []
    try:
        for file in files:
            connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=60)
            connection.request("GET", address(file, "slow"), headers={"X-Reader": "greedy"})
            statuses.append(connection.getresponse().status)
            connection.close()
        assert engine.ask(address(good, "good"), reader="modest").body == good.content
        assert statuses == [200] * 4 + [503] * 5
    finally:
        end.set()
    assert len(engine.kept()) == 5
    for file in files:
        assert engine.ask(address(file, "slow"), reader="greedy").body == file.content


def test_a_client_that_leaves_harms_nobody(start: Start, upstream: Upstream) -> None:
    artifact = large(upstream, 10, 0.03)
    engine = start()

    def leave(after: int) -> None:
        with socket.create_connection(("127.0.0.1", engine.port)) as client:
            client.sendall(f"GET {address(artifact, 'big')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            while after > 0:
                after -= len(client.recv(min(after, 65536)))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # and slams the door

    leave(100_000)
    with ThreadPoolExecutor(20) as pool:
        stays = [pool.submit(engine.ask, address(artifact, "big")) for _ in range(5)]
        list(pool.map(leave, range(0, 5_000_000, 500_000)))
        assert all(future.result().body == artifact.content for future in stays)
    assert upstream.count(f"/files/{artifact.filename}") == 1
    assert engine.kept() == {artifact.filename}


def test_all_have_left_and_it_is_kept_all_the_same(start: Start, upstream: Upstream) -> None:
    artifact = large(upstream, 5, 0.01)
    engine = start()
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        client.sendall(f"GET {address(artifact, 'big')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1000)
    wait_for(lambda: engine.kept() == {artifact.filename})


def test_a_client_that_takes_nothing_holds_nobody_up(start: Start, upstream: Upstream) -> None:
    artifact = large(upstream, 20)
    engine = start()
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        client.sendall(f"GET {address(artifact, 'big')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert engine.ask(address(artifact, "big")).body == artifact.content


def test_readers_are_broken_off_when_the_digest_is_wrong(start: Start, upstream: Upstream) -> None:
    artifact = large(upstream, 5, 0.02)
    content = artifact.content[:-1] + b"x"
    upstream.wrong[f"/files/{artifact.filename}"] = slowly(content, 100_000, 0.01)
    engine = start()

    def reads(_number: int) -> int:
        with pytest.raises(http.client.IncompleteRead) as caught:
            engine.ask(address(artifact, "big"))
        return len(caught.value.partial)

    with ThreadPoolExecutor(10) as pool:
        assert all(0 < size < len(content) for size in pool.map(reads, range(10)))
    assert engine.kept() == set()


@pytest.mark.parametrize("moment", [0.02, 0.2, 0.5, 0.9])
def test_killed_in_the_middle(upstream: Upstream, tmp_path: Path, moment: float) -> None:
    """Nothing half is ever served; and what was there before is there after."""
    whole = upstream.add("lib")
    artifact = large(upstream, 5, 0.02)
    wanted = document([described(upstream)], tmp_path / "cache")
    with process(wanted, tmp_path) as engine:
        assert engine.ask(address(whole, "lib")).status == 200
        assert engine.page("big")
        wait_for(lambda: engine.kept() == {whole.filename})
        readers = [threading.Thread(target=swallow, args=(engine, address(artifact, "big"))) for _ in range(3)]
        for reader in readers:
            reader.start()
        time.sleep(moment)
        assert engine.process
        engine.process.send_signal(signal.SIGKILL)
        engine.process.wait()
        for reader in readers:
            reader.join()
        assert engine.kept() <= {whole.filename, artifact.filename}
    del upstream.wrong[f"/files/{artifact.filename}"]
    with process(wanted, tmp_path) as engine:
        assert list((engine.cache / "tmp").iterdir()) == []
        assert list((engine.cache / "simple").iterdir()) == []
        upstream.down = True
        assert engine.ask(address(whole, "lib")).body == whole.content
        upstream.down = False
        assert engine.ask(address(artifact, "big")).body == artifact.content


def swallow(engine: Engine, path: str) -> None:
    try:
        engine.ask(path)
    except (OSError, http.client.HTTPException):
        pass
    else:
        raise AssertionError("a body that looks whole")


def test_it_lives_on_without_the_upstream(start: Start, upstream: Upstream) -> None:
    kept, other = upstream.add("lib", "1.0", metadata=b"Name: lib"), upstream.add("lib", "2.0", metadata=b"Name: lib")
    engine = start()
    before = engine.page("lib")
    assert engine.ask(address(kept, "lib")).status == 200
    assert engine.kept() == {kept.filename}
    upstream.down = True
    for again in (engine, start()):
        again.later(100 * 86_400)
        assert again.page("lib") == before
        assert again.ask(address(kept, "lib")).body == kept.content
        reply = again.ask(address(other, "lib"))
        assert (reply.status, reply.reason.startswith("pypi ")) == (502, True)
        assert again.ask("/simple/never-seen/").status == 502
    # An upstream that has just failed is not asked for the same again.
    asked = len(upstream.asked)
    again.later(1)
    assert again.page("lib") == before
    assert len(upstream.asked) == asked


def test_an_upstream_that_cannot_be_reached_costs_time_once(start: Start, tmp_path: Path) -> None:
    with running(Upstream()) as gone:
        names = [f"lib-{number}" for number in range(5)]
        for name in names:
            gone.add(name)
        engine = start([described(gone)])
        for name in names:
            engine.page(name)
        gone.down = True  # the connections that are kept, too
    tries: list[str] = []
    assert engine.mirror
    transport = engine.mirror._catalogue.transport("lib")
    dial = transport._dial
    transport._dial = lambda *given: tries.append("") or dial(*given)  # type: ignore[func-returns-value, method-assign]
    engine.later(700)
    for name in names:
        engine.page(name)
    assert len(tries) == 1


def test_one_bad_page_does_not_keep_the_others_as_they_are(start: Start, upstream: Upstream) -> None:
    upstream.add("bad")
    upstream.add("good")
    engine = start()
    assert engine.offers("bad")
    assert engine.offers("good")
    upstream.wrong["/simple/bad/"] = lambda request: request.send_error(500)
    new = upstream.add("good", "2.0")
    engine.later(601)
    assert engine.offers("bad")
    assert new.filename in engine.offers("good")


def test_what_the_cache_holds_and_nothing_else(start: Start, upstream: Upstream) -> None:
    kept, other = upstream.add("lib", "1.0", metadata=b"x"), upstream.add("lib", "2.0")
    upstream.add("seen")
    engine = start()
    assert engine.ask(address(kept, "lib")).status == 200
    assert engine.ask("/simple/seen/").status == 200
    assert engine.kept() == {kept.filename}
    asked = len(upstream.asked)
    offline = start(packages="cached")
    assert offline.offers("lib") == {kept.filename}
    assert "core-metadata" not in offline.page("lib")["files"][0]
    assert offline.offers("seen") == set()
    assert offline.ask(address(kept, "lib")).body == kept.content
    for path in (address(other, "lib"), "/simple/other/", address(kept, "lib", ".metadata")):
        reply = offline.ask(path)
        assert (reply.status, "pypi_public_packages: cached" in reply.reason) == (404, True), reply
    assert len(upstream.asked) == asked


def test_what_the_upstream_has_withdrawn(start: Start, upstream: Upstream) -> None:
    """It is not offered any more, and stays with those who have it in a lock file; so does a project that is gone."""
    gone, stays = upstream.add("lib", "1.0"), upstream.add("lib", "2.0")
    engine = start()
    assert engine.ask(address(gone, "lib")).status == 200
    assert engine.kept()
    upstream.projects["lib"].remove(gone)
    engine.later(601)
    assert engine.offers("lib") == {stays.filename}
    assert start(now=engine.now).ask(address(gone, "lib")).body == gone.content
    del upstream.projects["lib"]
    engine.later(601)
    assert engine.ask("/simple/lib/").status == 404
    assert engine.ask("/exists/lib").status == 404
    assert engine.ask(address(gone, "lib")).body == gone.content
    upstream.down = True
    engine.later(61)
    assert engine.ask("/simple/lib/").status == 502
    assert start([described(upstream, url=upstream.url.replace("simple", "other"))]).kept() == set()


def test_a_new_file_is_found_though_the_page_is_older(start: Start, upstream: Upstream) -> None:
    """As when a lock file was made elsewhere a minute ago."""
    upstream.add("lib", "1.0")
    engine = start()
    assert engine.page("lib")
    new = upstream.add("lib", "2.0")
    assert engine.ask(address(new, "lib")).status == 404
    engine.now += 61
    assert engine.ask(address(new, "lib")).body == new.content


def test_a_name_that_was_not_there_is_asked_for_again_in_a_minute(start: Start, upstream: Upstream) -> None:
    engine = start()
    for _ in range(5):
        assert engine.ask("/simple/lib/").status == 404
    assert upstream.count("/simple/lib/") == 1
    upstream.add("lib")
    engine.later(61)
    assert engine.offers("lib")


def test_full(start: Start, upstream: Upstream) -> None:
    """What was not used longest goes, and nothing fails; larger than everything is a file that is not kept."""
    artifacts = [upstream.add("lib", f"{number}.0", content=os.urandom(100_000)) for number in range(12)]
    engine = start(cache_size=1_000_000)
    for artifact in artifacts:
        engine.now += 10
        assert engine.ask(address(artifact, "lib")).body == artifact.content
        assert artifact.filename in engine.kept()
        engine.now += 10
        assert engine.ask(address(artifacts[0], "lib")).status == 200  # in use, and what is in use stays
    assert engine.mirror
    assert engine.mirror.cache.measure() <= 1_000_000
    kept = engine.kept()
    assert kept == {artifact.filename for artifact in artifacts if artifact.filename in kept}
    assert {artifacts[0].filename, *(artifact.filename for artifact in artifacts[6:])} <= kept
    assert artifacts[1].filename not in kept
    assert engine.ask(address(artifacts[1], "lib")).body == artifacts[1].content
    big = upstream.add("big", content=os.urandom(2_000_000))
    kept = engine.kept()
    assert engine.ask(address(big, "big")).body == big.content
    assert engine.kept() == kept
    assert engine.mirror.cache.measure() <= 1_000_000
    assert engine.ask(address(big, "big")).body == big.content


def test_a_size_that_is_only_said(start: Start, upstream: Upstream) -> None:
    """A line on a page empties no cache."""
    good = upstream.add("lib")
    bad = upstream.add("bad", says={"size": 1 << 49})
    engine = start()
    assert engine.ask(address(good, "lib")).status == 200
    assert engine.ask(address(bad, "bad")).status == 502
    assert engine.kept() == {good.filename}


def test_room_cannot_be_made(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a download that never began, and the next one is none the worse."""
    artifact = upstream.add("lib")
    engine = start()
    assert engine.mirror
    with monkeypatch.context() as broken:
        broken.setattr(engine.mirror.cache, "make_room", lambda _size: 1 // 0)
        for _ in range(2):
            assert engine.ask(address(artifact, "lib"), timeout=5).status == 502
    assert not engine.kept()
    mirror, others = engine.mirror, list[Any]()

    def no_thread(_self: threading.Thread) -> None:
        others.append(mirror.file("lib", artifact.sha256[:16], artifact.filename))  # somebody else, in this moment
        raise RuntimeError("no thread")

    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", no_thread)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                mirror.file("lib", artifact.sha256[:16], artifact.filename)
    assert ["no thread" in str(other._error) for other in others] == [True, True]
    assert engine.ask(address(artifact, "lib"), timeout=5).body == artifact.content
    assert engine.kept() == {artifact.filename}


def test_a_download_that_is_slow_to_start_holds_no_other_up(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads take their time where others compute: on a cold install every file waited for all others to begin."""
    first, second = upstream.add("one"), upstream.add("two")
    engine = start()
    assert engine.mirror
    for name in ("one", "two"):
        assert engine.page(name)
    going, begin, started = threading.Event(), threading.Event(), download.Download.start

    def slow(self: download.Download, *arguments: Any) -> None:
        if first.filename in self._url:
            going.set()
            begin.wait(60)
        started(self, *arguments)

    monkeypatch.setattr(download.Download, "start", slow)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(engine.ask, address(first, "one"))]
        assert going.wait(10)
        asked.append(pool.submit(engine.ask, address(first, "one")))  # of the same file: it follows the first
        try:
            assert engine.ask(address(second, "two"), timeout=10).body == second.content
        finally:
            begin.set()
        assert [reply.result().body for reply in asked] == [first.content] * 2
    assert upstream.sent[first.filename] == len(first.content)


def test_many_make_room_at_once(tmp_path: Path) -> None:
    """What one removes the others neither stumble over nor count again."""
    cache = Cache(tmp_path, 1_000_000)
    for round_ in range(5):
        for number in range(40):
            cache.write(cache.path(f"p{number}", f"{round_:016x}", "f"), b"x" * 50_000)
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(cache.make_room, 0) for _ in range(8)]:
                done.result()
        counted = cache.size
        assert counted == cache.measure() <= 1_000_000


def test_others_remove_while_it_is_counted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1_000_000)
    for number in range(20):
        cache.write(cache.path("p", f"{number:016x}", "f"), b"x")
    seen = 0
    for seen, kept in enumerate(cache.kept(), start=1):
        shutil.rmtree(tmp_path / "files/p", ignore_errors=True)
        assert kept.size == 1
    assert seen == 1


def test_purge_and_list(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    one, two = upstream.add("my-lib", "1.0", metadata=b"x"), upstream.add("my-lib", "2.0")
    other = upstream.add("other")
    engine = start()
    for path in (
        address(one, "my-lib"),
        address(one, "my-lib", ".metadata"),
        address(two, "my-lib"),
        address(other, "other"),
    ):
        assert engine.ask(path).status == 200
    assert len(engine.kept()) == 4
    written = tmp_path / "config.json"
    written.write_text(json.dumps(document([described(upstream)], engine.cache)))
    monkeypatch.setenv("PUBLIC_CONFIG", str(written))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert {tuple(line.split()[2:]) for line in out.splitlines()} == {
        ("my-lib", one.filename),
        ("my-lib", f"{one.filename}.metadata"),
        ("my-lib", two.filename),
        ("other", other.filename),
    }
    assert main(["purge", "My_Lib", one.filename]) == 0
    assert engine.kept() == {two.filename, other.filename}
    assert engine.offers("my-lib") == {one.filename, two.filename}
    assert main(["purge", "My_Lib"]) == 0
    assert engine.kept() == {other.filename}
    assert not (engine.cache / "listings/my-lib.json").exists()
    assert main(["purge", "nothing"]) == 1
    assert engine.ask(address(one, "my-lib")).body == one.content
    assert engine.offers("my-lib") == {one.filename, two.filename}


def test_head_and_health(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    engine = start()
    reply = engine.ask(address(artifact, "lib"), "HEAD")
    assert (reply.status, reply.headers["Content-Length"], reply.body) == (200, str(len(artifact.content)), b"")
    assert upstream.sent == {}
    assert b'"status": "ok"' in engine.ask("/health").body
    upstream.down = True
    engine.later(601)
    assert engine.ask("/simple/lib/").status == 200
    assert b'"failing": ["pypi"]' in engine.ask("/health").body


def test_head_says_no_more_than_get(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib", metadata=b"about it")
    assert start().offers("lib")
    engine = start(packages="cached")
    for suffix in ("", ".metadata"):
        for method in ("HEAD", "GET"):
            reply = engine.ask(address(artifact, "lib", suffix), method)
            assert (reply.status, "cached" in reply.reason) == (404, True), (method, suffix, reply)


def test_metadata_that_is_said_to_be_other_is_fetched_again(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib", metadata=b"first")
    engine = start()
    for suffix in ("", ".metadata"):
        assert engine.ask(address(artifact, "lib", suffix)).status == 200
    assert engine.kept() == {artifact.filename, f"{artifact.filename}.metadata"}
    artifact.metadata = b"second"
    engine.later(601)
    assert engine.offers("lib")
    assert engine.kept() == {artifact.filename}
    assert engine.ask(address(artifact, "lib", ".metadata")).body == b"second"
    assert upstream.count(f"/files/{artifact.filename}") == 1


def test_metadata_that_is_said_to_be_other_while_nothing_ran(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib", metadata=b"first")
    engine = start()
    for suffix in ("", ".metadata"):
        assert engine.ask(address(artifact, "lib", suffix)).status == 200
    assert len(engine.kept()) == 2
    listing = engine.cache / "listings/lib.json"
    said = hashlib.sha256(b"first").hexdigest(), hashlib.sha256(b"second").hexdigest()
    listing.write_text(listing.read_text().replace(*said))
    assert start().kept() == {artifact.filename}


def test_a_full_disk_is_said(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.add("lib")
    engine = start()
    assert engine.mirror

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(engine.mirror.cache, "write", full)
        assert engine.ask("/simple/lib/").status == 500
    assert engine.offers("lib")


def test_a_broken_cache_is_mended(start: Start, upstream: Upstream) -> None:
    """Whoever wrote nonsense into it."""
    artifact = upstream.add("lib")
    engine = start()
    assert engine.ask(address(artifact, "lib")).status == 200
    for content in (b"", b"[]", b"{}", b"[1,2,3,4,5]", b"\xff", b"null"):
        (engine.cache / "listings/lib.json").write_bytes(content)
        assert engine.offers("lib") or True
        again = start()
        assert again.offers("lib") == {artifact.filename}
        assert again.ask(address(artifact, "lib")).body == artifact.content


def test_nothing_has_a_name_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut may take is never under a name that is served."""
    synced: set[int] = set()
    sync, replace = os.fsync, os.replace

    def note(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        sync(fd)

    def check(source: Path, target: Path) -> None:
        assert source.stat().st_ino in synced
        assert not target.exists()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", check)
    with running(Upstream()) as upstream, serving(document([described(upstream)], tmp_path / "cache")) as engine:
        artifact = upstream.add("lib", metadata=b"Name: lib")
        assert engine.page("lib")
        for suffix in ("", ".metadata"):
            assert engine.ask(address(artifact, "lib", suffix)).status == 200
        assert len(engine.kept()) == 2
    assert len(synced) == 4 + 1 + 2
