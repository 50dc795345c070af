from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest

from public_index import config
from public_index.mirror import Mirror
from public_index.server import Server

from .upstream import Upstream, running

FILES = Path(__file__).parents[2] / "roles/pypi_public/files"
NOW = 1_790_000_000.0
"""2026-09-21T14:13:20Z"""
DAY = 86_400


class Reply(NamedTuple):
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class Links(HTMLParser):
    """The anchors of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.all: list[dict[str, str | None]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.all.append(dict(attrs))


@dataclass
class Engine:
    """One that runs, and what nginx is for it: what it is sent to, it finds in the cache."""

    cache: Path
    port: int = 0
    now: float = NOW
    mirror: Mirror | None = None
    process: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)

    def ask(self, path: str, method: str = "GET", timeout: float = 60, reader: str = "") -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, headers={"X-Reader": reader})
            response = connection.getresponse()
            body = response.read()
            if location := response.headers.get("X-Accel-Redirect"):
                target = self.cache / unquote(location).removeprefix("/+public/")
                body = target.read_bytes() if target.is_file() else body
            return Reply(response.status, response.reason, response.headers, body)
        finally:
            connection.close()

    def page(self, name: str) -> dict[str, Any]:
        """The JSON page, as a client has it."""
        reply = self.ask(f"/simple/{name}/")
        assert reply.status == 200, reply
        folder = self.cache / "simple" / name
        packed = gzip.decompress((folder / "index.json.gz").read_bytes())
        assert not (folder / "index.json").exists() or (folder / "index.json").read_bytes() == packed
        document: dict[str, Any] = json.loads(packed)
        return document

    def links(self, name: str) -> dict[str, dict[str, str | None]]:
        """The HTML page's anchors by file name."""
        self.page(name)
        html = gzip.decompress((self.cache / "simple" / name / "index.html.gz").read_bytes())
        return {(link["href"] or "").partition("#")[0].rpartition("/")[2]: link for link in Links(html).all}

    def offers(self, name: str) -> set[str]:
        """File names, the same in both forms."""
        files = {file["filename"] for file in self.page(name)["files"]}
        assert {unquote(link) for link in self.links(name)} == files
        return files

    def kept(self) -> set[str]:
        """Names of files in the cache, once everything that was on its way is there."""
        while self.mirror and self.mirror.health()["downloads"]:
            time.sleep(0.01)
        return {path.name for path in self.cache.glob("files/*/*/*")}

    def later(self, seconds: float) -> None:
        """So much time passes, and the engine notices."""
        assert self.mirror
        self.now += seconds
        self.mirror.tick()


Start = Callable[..., Engine]


def document(upstreams: list[dict[str, Any]], cache: Path, **options: Any) -> dict[str, Any]:
    return {"upstreams": upstreams, "cache": str(cache), "timeout": 2, "minimum_age": 0, **options}


def described(upstream: Upstream, **more: Any) -> dict[str, Any]:
    return {"name": "pypi", "url": upstream.url, "allow_private_addresses": ["127.0.0.1"], **more}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running(Upstream()) as upstream:
        yield upstream


@contextmanager
def serving(wanted: dict[str, Any], now: float = NOW) -> Iterator[Engine]:
    engine = Engine(Path(wanted["cache"]), now=now)
    engine.mirror = Mirror(config.parse(wanted), lambda: engine.now)
    engine.mirror.prepare()
    server = Server(("127.0.0.1", 0), engine.mirror)
    engine.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield engine
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def start(upstream: Upstream, tmp_path: Path) -> Iterator[Start]:
    """Start an engine whose clock stands still, with options of its configuration; `upstream` adds to the one upstream's."""
    with ExitStack() as stack:

        def start(upstreams: list[dict[str, Any]] | None = None, now: float = NOW, **options: Any) -> Engine:
            wanted = document(upstreams or [described(upstream)], tmp_path / "cache", **options)
            return stack.enter_context(serving(wanted, now))

        yield start


@contextmanager
def process(wanted: dict[str, Any], directory: Path) -> Iterator[Engine]:
    """An engine as the container has it, that can be killed."""
    path = directory / "config.json"
    path.write_text(json.dumps(wanted))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(FILES), "PUBLIC_CONFIG": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "public_index", "serve", "--host", "127.0.0.1", "--port", str(port)]
    child = subprocess.Popen(command, env=environment, stderr=(directory / "log").open("ab"))
    engine = Engine(Path(wanted["cache"]), port, process=child)
    try:
        end = time.monotonic() + 60
        while True:
            with suppress(OSError):
                if engine.ask("/health").status == 200:
                    break
            assert time.monotonic() < end and child.poll() is None, (directory / "log").read_text()
            time.sleep(0.05)
        yield engine
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def address(artifact: Any, name: str, suffix: str = "") -> str:
    return f"/files/{name}/{artifact.sha256[:16]}/{artifact.filename}{suffix}"
