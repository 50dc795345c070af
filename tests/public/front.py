"""What nginx is for clients of public packages, in its simplest form. Whose a name is, the hosts' tests ask the real one."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from .conftest import Engine
from .upstream import JSON, Quiet, say


@contextmanager
def fronted(engine: Engine) -> Iterator[tuple[str, list[str]]]:
    """Address of the simple index, and the paths asked for."""
    asked: list[str] = []

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            page = re.fullmatch("/simple/([^/]+)/", self.path)
            kind = JSON if JSON in self.headers.get("Accept", "") else "text/html"
            form = "index.json" if kind == JSON else "index.html"
            path = f"{self.path}?{form}" if page else re.sub("^/public/", "/files/", self.path)
            reply = engine.ask(path, self.command, timeout=300)
            if page and reply.status == 200:
                content = (engine.cache / "simple" / page[1] / f"{form}.gz").read_bytes()
                say(self, content, kind, Content_Encoding="gzip")
            else:
                length = reply.headers["Content-Length"] if self.command == "HEAD" else str(len(reply.body))
                say(self, reply.body, "application/octet-stream", reply.status, Content_Length=length)

        do_HEAD = do_GET

        def log_message(self, *_args: object) -> None:
            pass

    httpd = Quiet(("127.0.0.1", 0), Front)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/simple/", asked
    finally:
        httpd.shutdown()
        httpd.server_close()
