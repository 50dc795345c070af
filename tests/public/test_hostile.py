"""An upstream that does what it should not: bounded time and memory, a clear answer, nothing bad kept."""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from public_index.download import Download
from public_index.errors import Late

from .conftest import Engine, Start, address, described, document, process, serving
from .upstream import JSON, Misbehaviour, Upstream, running, say, slowly


def drips(request: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each in time."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX: ")
    for _ in range(100):
        request.wfile.write(b"x")
        time.sleep(0.3)


def endless(request: BaseHTTPRequestHandler) -> None:
    """10 GB of a page."""
    say(request, b'{"files":[', JSON, Content_Length=str(10 << 30))
    for _ in range(10 << 10):
        request.wfile.write(b" " * (1 << 20))


def endless_chunks(request: BaseHTTPRequestHandler) -> None:
    """The same without saying how much."""
    say(request, b"", JSON, Content_Length=None, Transfer_Encoding="chunked")
    for _ in range(10 << 10):
        request.wfile.write(b"100000\r\n%b\r\n" % (b" " * (1 << 20)))


BOMB = gzip.compress(b" " * (256 << 20), 1)


def bomb(request: BaseHTTPRequestHandler) -> None:
    """A page of 256 MB in one."""
    say(request, BOMB, JSON, Content_Encoding="gzip")


def loop(request: BaseHTTPRequestHandler) -> None:
    say(request, b"", status=302, Location=request.path)


def says(content: bytes, kind: str = JSON, status: int = 200, **headers: str | None) -> Misbehaviour:
    return lambda request: say(request, content, kind, status, **headers)


def raw(content: bytes) -> Misbehaviour:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(content)
        request.close_connection = True

    return send


def cut(request: BaseHTTPRequestHandler) -> None:
    say(request, b'{"files": [], "meta": {}}', Content_Length="100000")
    request.close_connection = True


def silent(_request: BaseHTTPRequestHandler) -> None:
    time.sleep(6)


PAGES: dict[str, tuple[Misbehaviour, int]] = {
    "slow bytes": (drips, 504),
    "slow body": (slowly(b" " * 100, 1, 0.3), 504),
    "silence": (silent, 504),
    "10 GB": (endless, 502),
    "10 GB in chunks": (endless_chunks, 502),
    "a bomb": (bomb, 502),
    "half of gzip": (says(gzip.compress(b'{"files":[]}')[:-9], Content_Encoding="gzip"), 502),
    "redirect loop": (loop, 502),
    "a redirect nowhere": (says(b"", status=302, Location="file:///etc/passwd"), 502),
    "a redirect with a password": (says(b"", status=302, Location="http://a:b@127.0.0.1/"), 502),
    "a redirect to nonsense": (says(b"", status=302, Location="http://[::1"), 502),
    "garbage": (raw(os.urandom(100_000)), 502),
    "a header without an end": (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000), 502),
    "no answer": (raw(b""), 502),
    "a page cut short": (cut, 502),
    "no JSON": (says(b"{"), 502),
    "another JSON": (says(b"[1, 2]"), 502),
    "JSON of another version": (says(b'{"meta": {"api-version": "2.0"}, "files": []}'), 502),
    "deep JSON": (says(b"[" * 1_000_000), 502),
    "JSON of very many values": (says(b'{"files":[' + b"[]," * 10_000_000 + b"0]}"), 502),
    "HTML of very many files": (says(b"<title>Links for lib</title>" + b"<a href=x>" * 3_000_000, "text/html"), 502),
    "not UTF-8": (says(b"\xff\xfe"), 502),
    "a login in HTML": (says(b"<html><form>password</form><a href='/x'>x</a></html>", "text/html"), 502),
    "HTML that makes no sense": (says(b"<a " * 3_000_000, "text/html"), 502),
    "an unknown type": (says(b"hello", "text/plain"), 502),
    "429": (says(b"", status=429, Retry_After="17"), 503),
    "500": (says(b"", status=500), 502),
    "401": (says(b"", status=401), 502),
    "403": (says(b"", status=403), 502),
    "304": (says(b"", status=304), 502),
}


def memory() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("what", PAGES)
def test_a_bad_page(start: Start, upstream: Upstream, what: str) -> None:
    upstream.add("good")
    wrong, status = PAGES[what]
    upstream.wrong["/simple/lib/"] = wrong
    engine = start()
    begun, before = time.monotonic(), memory()
    reply = engine.ask("/simple/lib/")
    assert time.monotonic() - begun < 60
    assert memory() - before < 200 << 20
    assert reply.status == status, reply
    assert reply.reason.startswith("pypi "), reply.reason
    assert reply.headers["Retry-After"] == ("17" if what == "429" else None)
    assert not (engine.cache / "listings/lib.json").exists()
    assert engine.ask("/exists/lib").status == status  # an error never looks like a name that is free
    assert list((engine.cache / "tmp").iterdir()) == []
    assert engine.offers("good")


def test_what_was_good_outlives_it(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    engine = start()
    assert engine.ask(address(artifact, "lib")).status == 200
    before = engine.page("lib")
    for wrong, _status in (
        PAGES[what] for what in ("500", "429", "garbage", "no JSON", "a login in HTML", "a page cut short")
    ):
        upstream.wrong["/simple/lib/"] = wrong
        engine.later(700)
        assert engine.page("lib") == before
    del upstream.wrong["/simple/lib/"]
    added = upstream.add("lib", "2.0")
    engine.later(700)
    assert added.filename in engine.offers("lib")


def wrong_digest(content: bytes) -> Misbehaviour:
    return says(content[:-1] + bytes([content[-1] ^ 1]), "application/octet-stream")


def short(content: bytes) -> Misbehaviour:
    def send(request: BaseHTTPRequestHandler) -> None:
        say(request, content[: len(content) // 2], "application/octet-stream", Content_Length=str(len(content)))
        request.close_connection = True

    return send


def long(content: bytes) -> Misbehaviour:
    return says(content + b"x", "application/octet-stream")


def broken_chunks(content: bytes) -> Misbehaviour:
    def send(request: BaseHTTPRequestHandler) -> None:
        say(request, b"%x\r\n%b" % (len(content), content[:-5]), Content_Length=None, Transfer_Encoding="chunked")
        request.close_connection = True

    return send


def more_chunks(content: bytes) -> Misbehaviour:
    body = b"%x\r\n%b\r\n1\r\nx\r\n0\r\n\r\n" % (len(content), content)
    return says(body, Content_Length=None, Transfer_Encoding="chunked")


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("wrong", [wrong_digest, short, long, broken_chunks, more_chunks])
def test_a_bad_file(start: Start, upstream: Upstream, wrong: Any, size_known: bool) -> None:
    artifact = upstream.add("lib", content=os.urandom(300_000))
    if not size_known:
        artifact.says = {"size": None}
    path = f"/files/{artifact.filename}"
    upstream.wrong[path] = wrong(artifact.content)
    engine = start()
    for _ in range(2):
        broken_off(engine, address(artifact, "lib"), len(artifact.content))
        assert engine.kept() == set()
        assert list((engine.cache / "tmp").iterdir()) == []
    if wrong is long and size_known:
        assert engine.ask(address(artifact, "lib")).status == 502  # before anybody has a byte
    del upstream.wrong[path]
    assert engine.ask(address(artifact, "lib")).body == artifact.content
    assert engine.kept() == {artifact.filename}


def broken_off(engine: Engine, path: str, size: int) -> None:
    """Either a refusal with its reason, or a body that breaks off: never one that looks whole."""
    try:
        reply = engine.ask(path)
    except http.client.IncompleteRead as error:
        assert len(error.partial) <= size  # all of it where no size was known: the end is missing
    else:
        assert reply.status == 502, reply[:3]
        assert reply.reason.startswith("pypi ")


@pytest.mark.parametrize("status", [404, 403, 500, 302])
def test_a_file_that_is_not_to_be_had(start: Start, upstream: Upstream, status: int) -> None:
    artifact = upstream.add("lib")
    upstream.wrong[f"/files/{artifact.filename}"] = says(b"no", status=status, Location="//")
    reply = start().ask(address(artifact, "lib"))
    assert (reply.status, reply.reason.startswith("pypi ")) == (502, True)


def test_a_size_buys_no_time(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for a download is not for whoever says that a very large file will come."""

    def trickle(request: BaseHTTPRequestHandler) -> None:
        say(request, b"", "application/octet-stream", Content_Length=str(1 << 49))
        for _ in range(40):
            request.wfile.write(b"x")
            time.sleep(0.2)

    artifact = upstream.add("lib", says={"size": 1 << 49})
    upstream.wrong[f"/files/{artifact.filename}"] = trickle
    monkeypatch.setattr("public_index.download.START", 1.0)
    engine = start()
    assert engine.mirror
    begun = time.monotonic()
    download = engine.mirror.file("lib", artifact.sha256[:16], artifact.filename)
    assert isinstance(download, Download)
    with pytest.raises(Late, match="pypi sends this file too slowly"):
        download.wait()
    assert time.monotonic() - begun < 5
    assert engine.kept() == set()


def test_bad_metadata(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib", metadata=b"Name: lib")
    upstream.wrong[f"/files/{artifact.filename}.metadata"] = says(b"Name: xxx")
    engine = start()
    broken_off(engine, address(artifact, "lib", ".metadata"), 9)
    assert engine.kept() == set()


ELSEWHERE = ["127.0.0.2", "localhost", "[::1]", "[::ffff:127.0.0.2]", "2130706434", "0x7f000002", "127.2", "0.0.0.0"]


@pytest.mark.parametrize(
    "host", [*ELSEWHERE, "10.0.0.1", "169.254.169.254", "[fe80::1]", "[64:ff9b::7f00:2]", "100.64.0.1"]
)
def test_no_way_into_a_private_network(start: Start, upstream: Upstream, host: str) -> None:
    """By a redirect of a page or a file, or by a page that names it; the upstream itself is allowed at 127.0.0.3 only."""
    artifact = upstream.add("lib")
    with running(Upstream(), "127.0.0.3") as public, running(Upstream(), "0.0.0.0") as private:
        there = f"http://{host}:{private.url.split(':')[2].split('/')[0]}/"
        public.projects["lib"] = [artifact]
        public.wrong["/simple/page/"] = says(b"", status=302, Location=f"{there}simple/lib/")
        public.wrong[f"/files/{artifact.filename}"] = says(b"", status=302, Location=f"{there}files/x")
        engine = start([described(public, allow_private_addresses=["127.0.0.3"])])
        private.projects["lib"] = [artifact]
        begun = time.monotonic()
        for path in ("/simple/page/", address(artifact, "lib")):
            reply = engine.ask(path)
            assert reply.status == 502, reply
            assert "not a public address" in reply.reason
        public.projects["other"] = [other := public.add("other")]
        other.says = {"url": f"{there}files/{other.filename}"}
        assert "not a public address" in engine.ask(address(other, "other")).reason
        assert time.monotonic() - begun < 30
        assert private.asked == []


def test_the_password_is_for_the_upstream_alone(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    with running(Upstream()) as files:
        files.projects["lib"] = [artifact]
        artifact.says = {"url": f"{files.url.replace('simple/', 'files/')}{artifact.filename}"}
        engine = start([described(upstream, username="me", password="se:cret")])
        assert engine.ask(address(artifact, "lib")).body == artifact.content
        assert upstream.asked[0][1]["Authorization"] == f"Basic {b64encode(b'me:se:cret').decode()}"
        assert [path for path, _ in files.asked] == [f"/files/{artifact.filename}"]
        assert "Authorization" not in files.asked[0][1]


def test_nothing_of_the_client_goes_upstream(start: Start, upstream: Upstream) -> None:
    upstream.add("lib")
    engine = start()
    headers = "Authorization: Basic x\r\nCookie: a\r\nX-Forwarded-For: 1.2.3.4\r\nUser-Agent: me\r\nX-Reader: jane"
    with socket.create_connection(("127.0.0.1", engine.port)) as client:
        client.sendall(
            f"GET /simple/lib/ HTTP/1.1\r\nHost: private.example\r\n{headers}\r\nConnection: close\r\n\r\n".encode()
        )
        assert b"200 OK" in client.recv(1000)
    ((_, sent),) = upstream.asked
    assert set(sent) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
    assert sent["User-Agent"] == "private-pypi"


@pytest.mark.parametrize(
    "path",
    [
        "http://example.org/",
        "//example.org/simple/lib/",
        "/simple/lib/../../etc/passwd",
        "/simple/..%2f..%2fetc/",
        "/simple/http:%2f%2fexample.org/",
        "/files/lib/0123456789abcdef/lib-1.0-py3-none-any.whl",
        "/files/lib/{digest}/other-1.0-py3-none-any.whl",
        "/files/lib/{digest}/..%2f..%2fother",
        "/files/lib/{digest}/lib-1.0-py3-none-any.whl.metadata",
        "/files/lib/{digest}/lib-1.0-py3-none-any.whl.asc",
        "/files/other/{digest}/lib-1.0-py3-none-any.whl",
        "/files/lib/{digest}/",
        "/files/lib/../tmp/x",
        "/",
        "/simple/",
    ],
)
def test_nothing_but_what_a_page_names(start: Start, upstream: Upstream, path: str) -> None:
    artifact = upstream.add("lib")
    upstream.add("other", "2.0")
    engine = start()
    reply = engine.ask(path.format(digest=artifact.sha256[:16]))
    assert reply.status == 404, reply
    assert {asked for asked, _ in upstream.asked} <= {"/simple/lib/", "/simple/other/"}
    assert engine.kept() == set()


def test_a_method_that_is_none(start: Start) -> None:
    engine = start()
    for method in ("POST", "PUT", "CONNECT", "OPTIONS"):
        assert engine.ask("/simple/lib/", method).status == 501


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / "key.pem")]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *name, "-out", str(folder / "cert.pem")], check=True, capture_output=True
    )
    yield folder


def test_tls(start: Start, upstream: Upstream, certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with running(Upstream(), tls=tls) as secure:
        artifact = secure.add("lib")
        there = described(secure, allow_private_addresses=["127.0.0.1", "::1"])
        reply = start([there]).ask("/simple/lib/")
        assert (reply.status, "certificate" in reply.reason) == (502, True)
        wrong_name = {**there, "url": secure.url.replace("localhost", "127.0.0.1")}
        trusted = {"ca_file": str(certificate / "cert.pem")}
        assert start([wrong_name | trusted]).ask("/simple/lib/").status == 502
        engine = start([there | trusted])
        assert engine.ask(address(artifact, "lib")).body == artifact.content
        # From there, nothing leads to where anybody may listen.
        secure.wrong["/simple/down/"] = says(b"", status=302, Location=upstream.url + "lib/")
        assert "redirects from https to http" in engine.ask("/simple/down/").reason
        insecure = secure.add("insecure")
        insecure.says = {"url": upstream.url + insecure.filename}
        assert engine.offers("insecure") == set()
        plain = {**there, "url": secure.url.replace("https", "http"), "allow_private_addresses": ["127.0.0.1", "::1"]}
        assert start([plain]).ask("/simple/lib/").status == 502


def test_through_a_proxy(start: Start, upstream: Upstream, certificate: Path) -> None:
    asked: list[bytes] = []

    def serve(listener: socket.socket, target: int) -> None:
        while True:
            client, _ = listener.accept()
            head = client.recv(65536)
            asked.append(head)
            if b"Proxy-Authorization: Basic " + b64encode(b"me:p@ss") not in head:
                client.sendall(b"HTTP/1.1 407 Who are you\r\n\r\n")
                client.close()
                continue
            server = socket.create_connection(("localhost", target))
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n") if head.startswith(b"CONNECT") else server.sendall(head)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    def pump(one: socket.socket, other: socket.socket) -> None:
        while data := one.recv(65536):
            other.sendall(data)

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    for context in (None, tls):
        with running(Upstream(), tls=context) as behind, socket.create_server(("127.0.0.1", 0)) as listener:
            artifact = behind.add("lib")
            port = int(behind.url.split(":")[2].split("/")[0])
            threading.Thread(target=serve, args=(listener, port), daemon=True).start()
            proxy = f"127.0.0.1:{listener.getsockname()[1]}"
            there = described(
                behind, ca_file=str(certificate / "cert.pem"), url=behind.url.replace("127.0.0.1", "localhost")
            )
            behind.wrong["/simple/inside/"] = says(
                b"", status=302, Location=f"{there['url'][:-1].split(':')[0]}://10.0.0.1/"
            )
            engine = start([there | {"proxy": f"http://me:p%40ss@{proxy}"}])
            assert engine.ask(address(artifact, "lib")).body == artifact.content
            assert "not a public address" in engine.ask("/simple/inside/").reason
            assert all(b"localhost" in head for head in asked)
            assert "407" in start([there | {"proxy": f"http://{proxy}"}]).ask("/simple/else/").reason


def test_nobody_listens_there(upstream: Upstream, tmp_path: Path) -> None:
    wanted = document([described(upstream, url="http://127.0.0.1:9/simple/")], tmp_path / "cache")
    with serving(wanted) as engine:
        assert "Connection refused" in engine.ask("/simple/lib/").reason


def test_a_real_process_is_bounded_too(upstream: Upstream, tmp_path: Path) -> None:
    """Many at once: slow pages, large pages, and good ones between them."""
    upstream.add("good")
    for number, wrong in enumerate([drips, endless_chunks, bomb, PAGES["HTML that makes no sense"][0]] * 5):
        upstream.wrong[f"/simple/bad-{number}/"] = wrong
    with (
        process(document([described(upstream)], tmp_path / "cache"), tmp_path) as engine,
        ThreadPoolExecutor(20) as pool,
    ):
        assert engine.process
        bad = [pool.submit(engine.ask, f"/simple/bad-{number}/") for number in range(20)]
        time.sleep(0.3)
        begun = time.monotonic()
        assert engine.offers("good")
        assert time.monotonic() - begun < 60
        assert {future.result().status for future in bad} == {502, 504}
        status = Path(f"/proc/{engine.process.pid}/status").read_text()
        peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        assert peak < 400_000, f"{peak} kB"
