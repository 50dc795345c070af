"""HTTP towards nginx, and nobody else.

    GET /simple/NAME/?index.json                  the page is in place in this form, or without one in all: nginx is sent to it
    GET /files/NAME/DIGEST16/FILENAME[.metadata]  likewise, or the bytes as they come in
    GET /exists/NAME                              whether an upstream has that project
    GET /health

A refusal has its reason in the status line, which is what clients show, and in the body.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .download import Download
from .errors import Refusal, Unknown
from .mirror import Mirror
from .names import is_normal, normalise
from .pages import FORMS
from .shares import Shares

CONNECTIONS = 400
"""At once; whoever comes then is told to come back. Each is a thread."""
ASKING = 128
"""Of these, at once, what may have to ask an upstream before it is answered: a connection more, and a thread that watches over it."""
PATIENCE = 10.0
"""Seconds that a request waits for a place among them; pip waits for 15 in all."""
REASON = 200
"""Characters of a status line."""

log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], mirror: Mirror) -> None:
        super().__init__(address, Handler)
        self.mirror = mirror
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        self.requests, self.asking = Shares(CONNECTIONS, 0), Shares(ASKING, PATIENCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            try:
                return super().process_request(request, client_address)
            except RuntimeError:  # no thread to be had
                self._places.release()
        request.sendall(
            b"HTTP/1.1 503 Too many at once\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        return self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client has left."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "public_index", ""
    disable_nagle_algorithm = True
    timeout = 60  # seconds for a client that takes nothing, or says nothing
    server: Server

    def do_GET(self) -> None:
        try:
            with self.server.requests(self._reader):
                self._route()
        except Refusal as refusal:
            self._refuse(refusal.status, str(refusal), refusal.retry_after)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the client has left
        except Exception:
            log.exception("%s", self.path)
            self._refuse(500, "the engine for public packages has failed; its log says why")

    do_HEAD = do_GET

    @property
    def _reader(self) -> str:
        """Who is behind this, as nginx says; it is held for as long as the request lasts, and told nobody."""
        return self.headers.get("X-Reader", "")

    def _asking(self) -> AbstractContextManager[None]:
        return self.server.asking(self._reader)

    def _route(self) -> None:
        path, _, form = self.path.partition("?")
        kind, *parts = [unquote(part) for part in path.split("/")[1:]]
        mirror = self.server.mirror
        if kind == "simple" and len(parts) == 2 and not parts[1]:
            with self._asking():
                mirror.page(_name(parts[0]), form if form in FORMS else "")
            self._redirect(f"/+public/simple/{parts[0]}/")
        elif kind == "files" and len(parts) == 3:
            self._file(_name(parts[0]), parts[1], parts[2])
        elif kind == "legacy" and len(parts) == 1:
            with self._asking():
                document = mirror.document(_name(parts[0]))
            self._send(200, None, "application/json", document)
        elif kind == "exists" and len(parts) == 1:
            with self._asking():
                upstream = mirror.exists(_name(parts[0]))
            self._answer({"upstream": upstream})
        elif kind == "health" and not parts:
            self._answer(mirror.health())
        else:
            raise Unknown("nothing is here under this address")

    def _file(self, name: str, digest16: str, filename: str) -> None:
        if not re.fullmatch("[0-9a-f]{16}", digest16):
            raise Unknown("no file has such an address")
        mirror = self.server.mirror
        with self._asking():
            if self.command == "HEAD":
                found: Path | int | Download | None = mirror.size(name, digest16, filename)
            else:
                found = mirror.file(name, digest16, filename, self._reader)
        if isinstance(found, Path):
            return self._redirect(f"/+public/files/{name}/{digest16}/{quote(filename)}")
        if isinstance(found, Download):
            found.begin()
            size = found.size
        else:
            size = found
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        if size is not None:
            self.send_header("Content-Length", str(size))
        elif self.command == "GET":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if isinstance(found, Download):
            self._stream(found, size is None)
        return None

    def _stream(self, download: Download, chunked: bool) -> None:
        try:
            for chunk in download.chunks():
                if chunked:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                else:
                    self.wfile.write(chunk)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except Refusal:
            self.close_connection = True  # too late for a status: it ends before it is whole

    def _redirect(self, location: str) -> None:
        self.send_response(200)
        self.send_header("X-Accel-Redirect", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, document: object) -> None:
        self._send(200, None, "application/json", json.dumps(document).encode())

    def _refuse(self, status: int, reason: str, retry_after: int = 0) -> None:
        reason = "".join(c if " " <= c <= "~" else "?" for c in reason)
        log.info("%s %s: %s", status, self.path[:300], reason)
        headers = {"Retry-After": str(retry_after)} if retry_after else {}
        self._send(status, reason[:REASON], "text/plain; charset=utf-8", f"{reason}\n".encode(), headers)

    def _send(
        self, status: int, reason: str | None, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status, reason)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """nginx has it in its log."""


def _name(text: str) -> str:
    """A project name in its one spelling; nothing else is ever passed on."""
    if not is_normal(text):
        normal = normalise(text)
        raise Unknown(f"this is spelt {normal}" if is_normal(normal) else "that is no project name")
    return text
