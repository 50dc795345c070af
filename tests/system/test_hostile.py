"""Input in the shape of known attacks, byte by byte: refused or cut off, never a server error, and nobody else notices."""

from __future__ import annotations

import re
import secrets
import ssl
import statistics
import time
from contextlib import ExitStack

import pytest

from .conftest import MakeWheel
from .lab import SURVIVOR, Edge, Lab, basic, right, wait_until

pytestmark = [pytest.mark.scenario("default"), pytest.mark.usefixtures("attacked_since")]

ALICE = f"Authorization: {right('alice')['Authorization']}\r\n"
HOST = "Host: localhost\r\n"
HEAD = f"{HOST}{ALICE}"
CLOSE = "Connection: close\r\n\r\n"
FILE = f"/packages/{SURVIVOR}"


def get(target: str, more: str = "") -> str:
    return f"GET {target} HTTP/1.1\r\n{HEAD}{more}{CLOSE}"


def post(headers: str, body: str, target: str = "/") -> str:
    return f"POST {target} HTTP/1.1\r\n{HEAD}{headers}\r\n{body}"


SMUGGLED = f"GET {FILE} HTTP/1.1\r\n{HOST}\r\n"
REQUESTS = {
    # sizes
    "a header of 64 kB": get("/simple/", f"X-Long: {'x' * 65536}\r\n"),
    "a credential of 64 kB": f"GET / HTTP/1.1\r\n{HOST}Authorization: Basic {'QUJD' * 16384}\r\n{CLOSE}",
    "10,000 headers": get("/simple/", "".join(f"X-{n}: {n}\r\n" for n in range(10_000))),
    "a target of 64 kB": get("/" + "a" * 65536),
    "a project name of 4 kB": get(f"/simple/{'a' * 4000}/"),
    "a project name longer than a file's may be": get(f"/simple/{'a' * 300}/"),
    "one without /simple/": get(f"/{'a' * 300}/json"),
    "a file's name longer than it may be": get(f"/packages/{'a' * 300}.whl"),
    "its metadata": get(f"/packages/{'a' * 300}.whl.metadata"),
    "a path of 2,000 names": get("/a" * 2000),
    "the same below the pages": get(f"/simple{'/a' * 2000}/"),
    "a body that belongs to no read": get("/simple/", f"Content-Length: {2**30}\r\n"),
    "1,000 ranges": get(FILE, f"Range: bytes={','.join(f'{n}-' for n in range(1000))}\r\n"),
    "a range beyond the end": get(FILE, "Range: bytes=99999999-\r\n"),
    "a body longer than allowed": post("Content-Length: 9999999999999\r\n", "x"),
    # paths
    "out of the root": get("/../../etc/passwd"),
    "out of the root, encoded": get("/packages/%2e%2e/%2e%2e/etc/passwd"),
    "out of the root, encoded twice": get("/packages/%252e%252e/%252e%252e/etc/passwd"),
    "out of the root, slashes encoded": get("/packages/..%2f..%2f..%2fetc%2fpasswd"),
    "out of the root, backslashes": get("/packages/..\\..\\..\\etc\\passwd"),
    "out of the root, overlong UTF-8": get("/packages/%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd"),
    "beside the packages": get("/packages../users/htpasswd"),
    "the users' file": get("/packages/../users/htpasswd"),
    "a dot file": get("/packages/.uploads"),
    "NUL, encoded": get(f"{FILE}%00.html"),
    "NUL": get(f"{FILE}\0.html"),
    "newline, encoded": get("/simple/a%0d%0aSet-Cookie:x/"),
    "not UTF-8": get("/simple/%ff%fe/"),
    "another site": get("http://169.254.169.254/latest/meta-data/"),
    "no slash": get("simple/"),
    # shapes that two servers may read differently
    "length and chunks": post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "two lengths": post("Content-Length: 5\r\nContent-Length: 50\r\n", f"hello{SMUGGLED}"),
    "a list of lengths": post("Content-Length: 5, 5\r\n", f"hello{SMUGGLED}"),
    "a length with a sign": post("Content-Length: +5\r\n", f"hello{SMUGGLED}"),
    "a negative length": post("Content-Length: -1\r\n", SMUGGLED),
    "a length in hex": post("Content-Length: 0x5\r\n", f"hello{SMUGGLED}"),
    "an unknown transfer encoding": post("Transfer-Encoding: xchunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "chunked twice": post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "chunked, then identity": post("Transfer-Encoding: chunked, identity\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a space before the colon": post("Transfer-Encoding : chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a folded header": post("Transfer-Encoding:\r\n chunked\r\n", f"0\r\n\r\n{SMUGGLED}"),
    "a chunk of no size": post("Transfer-Encoding: chunked\r\n", f"zz\r\nhello\r\n0\r\n\r\n{SMUGGLED}"),
    "a chunk of 2^64": post("Transfer-Encoding: chunked\r\n", f"FFFFFFFFFFFFFFFFF\r\nhello\r\n{SMUGGLED}"),
    "chunks in HTTP/1.0": f"POST / HTTP/1.0\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    # nonsense
    "two credentials": get("/simple/", ALICE),
    "two hosts": get("/simple/", HOST),
    "no host": f"GET / HTTP/1.1\r\n{ALICE}{CLOSE}",
    "an impossible host": f"GET / HTTP/1.1\r\nHost: a/../b@c\r\n{ALICE}{CLOSE}",
    "NUL in a header": get("/simple/", "X-Nul: a\0b\r\n"),
    "an unknown method": f"BREW /simple/ HTTP/1.1\r\n{HEAD}{CLOSE}",
    "TRACE": f"TRACE / HTTP/1.1\r\n{HEAD}{CLOSE}",
    "CONNECT": f"CONNECT 169.254.169.254:80 HTTP/1.1\r\n{HEAD}{CLOSE}",
    "no HTTP at all": "\x16\x03\x01\x02\0\x01\0\r\n\r\n",
    "HTTP/2's preface in HTTP/1": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    # forms
    "an empty form": post("Connection: close\r\nContent-Type: multipart/form-data\r\nContent-Length: 0\r\n", ""),
    "a form without its limit": post(
        "Connection: close\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n", "hello"
    ),
    "a form that ends early": post(
        "Connection: close\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 5\r\n", "--x\r\n"
    ),
    "no action": post(
        "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n", "a=b"
    ),
    "an unknown action": post(
        "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n", ":action=rm"
    ),
    "a form in a strange charset": post(
        "Connection: close\r\nContent-Type: application/x-www-form-urlencoded; charset=zip\r\nContent-Length: 10\r\n",
        ":action=\xff\xfe",
    ),
    "XML-RPC": post(
        "Connection: close\r\nContent-Type: text/xml\r\nContent-Length: 12\r\n", "<methodCall/>"[:12], "/RPC2"
    ),
}
EXPECTED = {"1,000 ranges": 200}  # answered by the whole file


def talk(edge: Edge, request: str) -> bytes:
    """Everything that comes back until the server closes or has nothing more to say."""
    received = b""
    with edge.connect(timeout=3) as connection:
        try:
            connection.sendall(request.encode("latin-1"))
            while data := connection.recv(65536):
                received += data
        except (TimeoutError, ConnectionError, ssl.SSLError):
            pass
    return received


@pytest.mark.parametrize("name", REQUESTS)
def test_hostile_input(edge: Edge, name: str) -> None:
    received = talk(edge, REQUESTS[name])
    statuses = [int(status) for status in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", received, re.MULTILINE)]
    allowed = [EXPECTED[name]] if name in EXPECTED else range(400, 500)
    assert len(statuses) <= 2 and all(status in allowed for status in statuses), received[:2000]
    assert b"root:" not in received and b"$2b$" not in received
    # Whatever was smuggled behind the request was anonymous.
    assert b"PK\x03\x04" not in received or name == "1,000 ranges"
    assert edge.request("/simple/survivor/", right("alice")).status == 200


# What an old gunicorn, behind nginx, takes for a reason to read a body of another length or to answer twice.
QUIRKS = {
    "old websockets": "Sec-WebSocket-Key1: x\r\n",
    "websockets": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
    "HTTP/2": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "expectations": "Expect: 100-continue\r\n",
    "underscores": "Transfer_Encoding: chunked\r\nContent_Length: 8\r\nSec_WebSocket_Key1: x\r\n",
    "proxies": "X-Forwarded-Proto: http\r\nX-Forwarded-Ssl: off\r\nProxy-Connection: keep-alive\r\n",
    "script names": "Script-Name: /x\r\nPath-Info: /health\r\n",
    "methods": "X-HTTP-Method-Override: GET\r\n",
    "trailers": "TE: trailers\r\nTrailer: Content-Length\r\nKeep-Alive: timeout=99\r\n",
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("quirk", QUIRKS)
def test_nothing_is_smuggled_past_nginx(edge: Edge, make: MakeWheel, quirk: str, chunked: bool) -> None:
    """A whole upload in the body of another request, behind what ends that body for who reads it wrongly."""
    name = f"acme-smuggled-{secrets.token_hex(4)}"
    headers, form = edge.form(make(name, 1_000), "alice")
    lines = "".join(
        f"{key}: {value}\r\n" for key, value in ({"Host": "x", "Content-Length": len(form)} | headers).items()
    )
    body = b"8 bytes." + f"POST / HTTP/1.1\r\n{lines}\r\n".encode() + form
    length = f"Content-Length: {len(body)}\r\n"
    if chunked:
        length, body = "Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"POST / HTTP/1.1\r\n{HEAD}{QUIRKS[quirk]}Content-Type: text/plain\r\n{length}\r\n"
    received = talk(edge, head + body.decode("latin-1"))
    assert len(re.findall(rb"^HTTP/1\.1 [2-5]", received, re.MULTILINE)) == 1, received
    assert edge.request(f"/simple/{name}/", right("alice")).status == 404


REFUSED = {
    "a reader's": ("/", "bob", "403 bob may download but not upload"),
    "a wrong password's": ("/", "", "401 Unauthorized"),
    "one to a wrong address": ("/packages/", "alice", "405 Uploads go by POST to https://"),
    "one by a wrong method": ("/legacy/", "PUT", "405 Uploads go by POST to https://"),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_not_stored(lab: Lab, edge: Edge, name: str, chunked: bool) -> None:
    """More than nginx has room for. The client sends everything before it looks at the answer, as twine does."""
    path, user, expected = REFUSED[name]
    method, user = ("PUT", "alice") if user == "PUT" else ("POST", user)
    credential = right(user)["Authorization"] if user else basic("alice", "wrong")
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * 2**20}"
    with edge.connect() as connection:
        lines = f"{method} {path} HTTP/1.1\r\n{HOST}Authorization: {credential}\r\n{length}\r\n\r\n"
        connection.sendall(lines.encode())
        for _ in range(100):
            connection.sendall(b"100000\r\n%b\r\n" % bytes(2**20) if chunked else bytes(2**20))
        used = lab.compose("exec -T nginx du -s /tmp").split()[0]
        connection.sendall(b"0\r\n\r\n" if chunked else b"")
        answer = connection.recv(4096)
    assert answer.startswith(f"HTTP/1.1 {expected}".encode()), answer
    assert int(used) < 1000, "kB"


def test_slow_clients_hold_nobody_up(edge: Edge) -> None:
    """Two hundred that never finish: half of them their headers, half of them a body."""
    with ExitStack() as stack:
        for number in range(200):
            connection = stack.enter_context(edge.connect())
            head = f"POST / HTTP/1.1\r\n{HEAD}Content-Length: 1000\r\n"
            connection.sendall((head if number % 2 else f"{head}\r\nslow").encode())
        waited = []
        for _ in range(20):
            start = time.monotonic()
            assert edge.request("/simple/survivor/", right("alice")).status == 200
            waited.append(time.monotonic() - start)
        assert statistics.median(waited) < 1


def test_a_client_that_hangs_up_in_mid_upload_leaves_nothing(lab: Lab, edge: Edge) -> None:
    head = post("Content-Type: multipart/form-data; boundary=limit\r\nContent-Length: 100000\r\n", "")
    part = '--limit\r\nContent-Disposition: form-data; name="content"; filename="acme_cut-1.0-py3-none-any.whl"\r\n\r\n'
    with edge.connect() as connection:
        connection.sendall((head + part).encode() + b"x" * 50_000)
    assert edge.request("/simple/acme-cut/", right("alice")).status == 404
    assert edge.request("/packages/acme_cut-1.0-py3-none-any.whl", right("alice")).status == 404


def test_the_stack_has_survived(lab: Lab, attacked_since: str) -> None:
    wait_until("every container is healthy", lab.healthy, 30)
    assert "Traceback" not in lab.compose(f"logs --no-color --since {attacked_since}")
