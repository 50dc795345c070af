"""The application as the container runs it: gunicorn, its configuration file, the real login; and a reader for clients."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import bcrypt
import requests

from static_index.store import Store

FILES = Path(__file__).parents[2] / "roles/pypi_stack/files"
JSON = "application/vnd.pypi.simple.v1+json"
TOKENS = {
    name: f"ppi_{number:049}"
    for number, name in enumerate(["bob/tools", "bob/wide", "bob/read", "bob/old", "carol/wide", "bob/withdrawn"])
}


def _token(name: str, **more: object) -> dict[str, object]:
    return {"sha256": hashlib.sha256(TOKENS[name].encode()).hexdigest(), **more}


USERS: dict[str, dict[str, object]] = {
    "alice": {"role": "publisher"},
    "bob": {
        "role": "publisher",
        "projects": ["acme-*", "tools"],
        "tokens": {
            "tools": _token("bob/tools", scope="publish", projects=["t*"]),
            "wide": _token("bob/wide", scope="publish", projects=["*"]),
            "read": _token("bob/read"),
            "old": _token("bob/old", scope="publish", until="2020-01-31"),
        },
    },
    "carol": {"role": "reader", "tokens": {"wide": _token("carol/wide", scope="publish")}},
}


@dataclass
class Server:
    """A running pypiserver. Every user's password is their name, twice; their TOKENS are users as well."""

    store: Store
    port: int
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default=Path(os.devnull))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        gunicorn = Path(sys.executable).with_name("gunicorn")  # the oldest one supported has no __main__
        command = [str(gunicorn), "-c", str(FILES / "pypiserver/gunicorn.conf.py")]
        command += ["-b", f"127.0.0.1:{self.port}", "static_index.app:from_environment()"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=dict(self.environment), stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                if requests.get(f"{self.url}health", timeout=2).ok:
                    return
            except requests.RequestException:
                assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        """As the power cut does it: master, workers and all."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            with suppress(ProcessLookupError):
                for _ in range(100):  # the workers are no children of ours
                    os.killpg(self.process.pid, 0)
                    time.sleep(0.02)

    def post(
        self, user: str, data: Mapping[str, str], artifact: tuple[str, bytes] | None, **headers: str
    ) -> requests.Response:
        files = {"content": artifact} if artifact else None
        login = ("__token__", TOKENS[user]) if user in TOKENS else (user, user * 2)
        return requests.post(self.url, data=data, files=files, auth=login, headers=headers, timeout=120)

    def upload(self, artifact: tuple[str, bytes], user: str = "alice", **fields: str) -> requests.Response:
        digest = hashlib.sha256(artifact[1]).hexdigest()
        form = {":action": "file_upload", "protocol_version": "1", "sha256_digest": digest, **fields}
        return self.post(user, form, artifact)


@contextmanager
def serving(directory: Path, **environment: str) -> Iterator[Server]:
    """Start one in a directory, with its log beside it; kill it afterwards."""
    users = directory / "users"
    users.mkdir(parents=True, exist_ok=True)
    hashes = {name: bcrypt.hashpw((name * 2).encode(), bcrypt.gensalt(4)).decode() for name in USERS}
    (users / "htpasswd").write_text("".join(f"{name}:{value}\n" for name, value in hashes.items()))
    (users / "roles.json").write_text(json.dumps(USERS))
    store = Store(directory / "packages", directory / "index")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{FILES / 'pypiserver'}:{FILES / 'login'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYPI_PACKAGES": str(store.packages),
        "PYPI_INDEX": str(store.index.directory),
        "USERS_DIRECTORY": str(users),
        **environment,
    }
    server = Server(store, port, variables, log=directory.with_suffix(".log"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def certified(base: Path, name: str = "localhost") -> ssl.SSLContext:
    """TLS for that name or IPv4 address by a CA of our own: ca.pem, certificate.pem and key.pem are there then."""
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 2"
    leaf = f"-addext subjectAltName={'IP' if name[-1].isdigit() else 'DNS'}:{name} -addext basicConstraints=critical,CA:FALSE"
    for command in (
        f"{new} -keyout ca-key.pem -out ca.pem -subj /CN=ca -addext keyUsage=critical,keyCertSign",
        f"{new} -keyout key.pem -out certificate.pem -subj /CN={name} -CA ca.pem -CAkey ca-key.pem {leaf}",
    ):
        subprocess.run(command.split(), cwd=base, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(base / "certificate.pem", base / "key.pem")
    return tls


@contextmanager
def reading(
    store: Store, tls: ssl.SSLContext | None = None, login: str = "", uploads: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """What nginx does for readers, in its simplest form: address of the simple index, and the paths asked for.

    Without the `login`, a name and password with a colon between, the path is noted as "401". `uploads` is where those go.
    """
    asked: list[str] = []
    right = f"Basic {b64encode(login.encode()).decode()}"

    class Reader(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        packed = False

        def do_GET(self) -> None:
            if not login or self.headers.get("Authorization") == right:
                return super().do_GET()
            asked.append("401")
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent = {name: self.headers.get(name, "") for name in ("Authorization", "Content-Type", "User-Agent")}
            answer = requests.post(uploads, data=body, headers=sent, timeout=120)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def translate_path(self, path: str) -> str:
            path, self.packed = unquote(path.partition("?")[0]), False
            asked.append(path)
            if found := re.fullmatch(r"/packages/([^/]+)\.metadata", path):
                return str(store.index.directory / "metadata" / f"{found[1]}.metadata")
            if found := re.fullmatch(r"/packages/([^/]+)", path):
                return str(store.packages / found[1])
            page = store.index.directory / path.lstrip("/") / ("index.json" if self._json() else "index.html")
            self.packed = "gzip" in self.headers.get("Accept-Encoding", "")
            return f"{page}.gz" if self.packed else str(page)

        def guess_type(self, path: str | os.PathLike[str]) -> str:
            return (
                JSON
                if str(path).removesuffix(".gz").endswith(".json")
                else super().guess_type(str(path).removesuffix(".gz"))
            )

        def end_headers(self) -> None:
            if self.packed:
                self.send_header("Content-Encoding", "gzip")
            super().end_headers()

        def send_error(self, *arguments: Any, **named: Any) -> None:
            self.packed = False
            super().send_error(*arguments, **named)

        def log_message(self, *_args: object) -> None:
            pass

        def _json(self) -> bool:
            return JSON in self.headers.get("Accept", "")

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Reader)
    if tls:  # the handshake is for the thread of the connection: here it would hold up everybody
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{httpd.server_port}/simple/", asked
    finally:
        httpd.shutdown()
