"""A public index with real wheels on loopback, that behaves or does not."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from index.artifacts import wheel

JSON = "application/vnd.pypi.simple.v1+json"
OLD = "2020-01-01T00:00:00.000000Z"

Misbehaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Artifact:
    """A file and what the page says of it; `says` replaces entries of PEP 691, None removes one."""

    filename: str
    content: bytes
    uploaded: str | None = OLD
    says: Mapping[str, Any] = field(default_factory=dict)
    metadata: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "filename": self.filename,
            "url": f"../../files/{self.filename}",
            "hashes": {"sha256": self.sha256},
            "size": len(self.content),
            "upload-time": self.uploaded,
            "requires-python": ">=3.8",
            "yanked": False,
        }
        if self.metadata:
            entry["core-metadata"] = {"sha256": hashlib.sha256(self.metadata).hexdigest()}
        return {key: value for key, value in {**entry, **self.says}.items() if value is not None}


@dataclass
class Upstream:
    """`projects` may be changed while it runs. `wrong` has what is done instead of an answer, by path."""

    projects: dict[str, list[Artifact]] = field(default_factory=dict)
    wrong: dict[str, Misbehaviour] = field(default_factory=dict)
    page: dict[str, Any] = field(default_factory=dict)
    html: bool = False
    down: bool = False
    url: str = ""
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, version: str = "1.0", uploaded: str | None = OLD, **more: Any) -> Artifact:
        """A wheel that can be installed."""
        says = more.pop("says", {})
        metadata = more.pop("metadata", b"")
        artifact = Artifact(*wheel(name, version, **more), uploaded, says, metadata)
        self.projects.setdefault(name, []).append(artifact)
        return artifact

    def count(self, path: str) -> int:
        return [asked for asked, _ in self.asked].count(path)

    def document(self, name: str) -> dict[str, Any]:
        files = [artifact.entry() for artifact in self.projects[name]]
        return {"meta": {"api-version": "1.1"}, "name": name, "files": files, **self.page}

    def anchors(self, name: str) -> str:
        """PEP 503, with all that HTML can say."""
        lines = ["<!DOCTYPE html><html><head><title>Links for it</title></head><body>"]
        for entry in (artifact.entry() for artifact in self.projects[name]):
            more = f' data-requires-python="{escape(entry["requires-python"])}"' if "requires-python" in entry else ""
            more += f' data-upload-time="{entry["upload-time"]}"' if "upload-time" in entry else ""
            more += f' data-size="{entry["size"]}"' if "size" in entry else ""
            if entry["yanked"] is not False:
                more += f' data-yanked="{escape(entry["yanked"])}"'
            if "core-metadata" in entry:
                more += f' data-core-metadata="sha256={entry["core-metadata"]["sha256"]}"'
            lines.append(f'<a href="{entry["url"]}#sha256={entry["hashes"]["sha256"]}"{more}>{entry["filename"]}</a>')
        return "\n".join(lines)


def handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = re.sub("^http://[^/]+", "", unquote(self.path))  # through a proxy it is all of the address
            upstream.asked.append((path, dict(self.headers)))
            if upstream.down:
                self.close_connection = True
            elif path in upstream.wrong:
                upstream.wrong[path](self)
            else:
                self.answer(path)

        def answer(self, path: str) -> None:
            _, kind, name, *_ = [*path.split("/"), ""]
            if kind == "simple" and name in upstream.projects:
                if upstream.html:
                    return say(self, upstream.anchors(name).encode(), "text/html; charset=utf-8")
                return say(self, json.dumps(upstream.document(name)).encode(), JSON)
            if kind == "files":
                for artifact in (artifact for artifacts in upstream.projects.values() for artifact in artifacts):
                    if name in (artifact.filename, f"{artifact.filename}.metadata"):
                        content = artifact.content if name == artifact.filename else artifact.metadata
                        upstream.sent[name] += len(content)
                        return say(self, content, "application/octet-stream")
            return say(self, b"nothing here", "text/plain", 404)

        def log_message(self, *_args: object) -> None:
            pass

    return Handler


def say(
    request: BaseHTTPRequestHandler, content: bytes, kind: str = JSON, status: int = 200, **headers: str | None
) -> None:
    """An answer; a header of None is left out."""
    request.send_response(status)
    said: dict[str, str | None] = {"Content-Type": kind, "Content-Length": str(len(content))}
    for key, value in {**said, **{key.replace("_", "-"): value for key, value in headers.items()}}.items():
        if value is not None:
            request.send_header(key, value)
    request.end_headers()
    request.wfile.write(content)


def slowly(content: bytes, piece: int, pause: float) -> Misbehaviour:
    """All of it, in pieces."""

    def send(request: BaseHTTPRequestHandler) -> None:
        say(request, b"", "application/octet-stream", Content_Length=str(len(content)))
        for start in range(0, len(content), piece):
            request.wfile.write(content[start : start + piece])
            time.sleep(pause)

    return send


def held_back(
    content: bytes, last: int, until: threading.Event, kind: str = "application/octet-stream"
) -> Misbehaviour:
    """All of it, its last bytes when the event has come."""

    def send(request: BaseHTTPRequestHandler) -> None:
        say(request, b"", kind, Content_Length=str(len(content)))
        request.wfile.write(content[:-last])
        until.wait(60)
        request.wfile.write(content[-last:])

    return send


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that leave."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_args: object) -> None:
        pass


@contextmanager
def running(upstream: Upstream, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Upstream]:
    server = Quiet((address, 0), handler(upstream))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    upstream.url = f"{'https' if tls else 'http'}://{'localhost' if tls else address}:{server.server_port}/simple/"
    try:
        yield upstream
    finally:
        server.shutdown()
        server.server_close()
