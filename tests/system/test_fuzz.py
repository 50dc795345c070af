"""Requests that nobody thought of: at most 1,500 of them, a new choice in every run, and never a server error.

Hypothesis puts them together from what the edge and pypiserver look at, and shrinks what fails to the least that does.
"""

from __future__ import annotations

import http.client
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .lab import SURVIVOR, Edge, Lab, basic, right

pytestmark = [pytest.mark.scenario("default"), pytest.mark.usefixtures("attacked_since")]

# The edge is one for the session and keeps nothing between examples; a busy machine may take its time for one.
BOUNDED = settings(
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# A wrong password costs a verification and is slowed down: one of them is enough here, guessing is in test_storm.py.
CREDENTIALS = st.sampled_from([None, right("alice"), right("bob"), {"Authorization": basic("alice", "wrong")}])
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "BREW"])

# What a request line can carry: printable ASCII as it is, everything else encoded.
ENCODED = st.text(max_size=12).map(lambda text: quote(text, safe="", errors="surrogatepass"))
PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=12)
KNOWN = [
    "",
    "simple",
    "packages",
    "survivor",
    "Survivor",
    SURVIVOR,
    f"{SURVIVOR}.metadata",
    "json",
    "health",
    "legacy",
    "pypi",
    "upload",
    "_login",
    "_upload",
    "_refused",
    "..",
]
KNOWN += [
    "index.html",
    "index.json",
    ".well-known",
    "acme-challenge",
    ".htpasswd",
    "%2e%2e",
    "%2f",
    "%00",
    "%ff",
    "RPC2",
]
SEGMENTS = st.one_of(st.sampled_from(KNOWN), ENCODED, PRINTABLE)
QUERIES = st.one_of(st.just(""), PRINTABLE.map("?{}".format), ENCODED.map("?:action={}".format))
TARGETS = st.builds(lambda parts, query: "/" + "/".join(parts) + query, st.lists(SEGMENTS, max_size=5), QUERIES)

LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Accept",
            "Accept-Encoding",
            "Range",
            "If-Range",
            "If-None-Match",
            "If-Modified-Since",
            "Content-Type",
            "Cookie",
        ]
        + [
            "User-Agent",
            "X-Forwarded-Host",
            "X-Forwarded-Proto",
            "X-Real-IP",
            "X-HTTP-Method-Override",
            "Referer",
            "Upgrade",
        ]
    ),
    st.one_of(
        LATIN,
        st.sampled_from(
            [
                "application/vnd.pypi.simple.v1+json",
                "text/html;q=0,*/*;q=0.1",
                "bytes=0-0,-1",
                "gzip;q=0",
                "*",
                '"',
                "websocket",
                "multipart/form-data",
            ]
        ),
    ),
    max_size=4,
)

NAMES = [
    ":action",
    "name",
    "version",
    "content",
    "filetype",
    "metadata_version",
    "sha256_digest",
    "pyversion",
    "comment",
]
VALUES = [
    "file_upload",
    "remove_pkg",
    "verify",
    "doc_upload",
    "survivor",
    "1.0",
    SURVIVOR,
    "bdist_wheel",
    "sdist",
    "2.1",
    "0" * 64,
]
FIELDS = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.text(max_size=8)),
        st.one_of(st.sampled_from(VALUES), st.text(max_size=30)),
        # The name of a file, where the field is one.
        st.one_of(
            st.none(),
            st.sampled_from([SURVIVOR, "../x-1.0.tar.gz", ".x-1.0.zip", "fuzz-1.0.tar.gz"]),
            st.text(max_size=12),
        ),
    ),
    max_size=8,
)


def form(fields: list[tuple[str, str, str | None]]) -> bytes:
    parts = []
    for name, value, file in fields:
        disposition = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
        parts.append(f"--limit\r\nContent-Disposition: {disposition}\r\n\r\n{value}\r\n")
    return ("".join(parts) + "--limit--\r\n").encode(errors="surrogatepass")


def ask(edge: Edge, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Status and body; 0 where the server hung up. Written by hand: a library would refuse to send what is odd."""
    lines = {"Host": edge.host_header, "Content-Length": str(len(body)), "Connection": "close", **headers}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with edge.connect(timeout=10) as connection:
        try:
            connection.sendall(f"{head}\r\n".encode("latin-1") + body)
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            return response.status, response.read()
        except (http.client.BadStatusLine, ConnectionError):
            return 0, b""


@settings(BOUNDED, max_examples=1000)
@given(method=METHODS, target=TARGETS, headers=HEADERS, credential=CREDENTIALS, body=st.binary(max_size=64))
def test_no_request_is_a_server_error(
    edge: Edge, method: str, target: str, headers: dict[str, str], credential: dict[str, str] | None, body: bytes
) -> None:
    status, answer = ask(edge, method, target, headers | (credential or {}), body)
    assert status < 500
    if credential is None and status in (200, 206):
        assert answer in b"ok\n", "more than /health says"


@settings(BOUNDED, max_examples=300)
@given(fields=FIELDS)
def test_no_form_is_a_server_error(edge: Edge, fields: list[tuple[str, str, str | None]]) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=limit", **right("alice")}
    status, _ = ask(edge, "POST", "/", headers, form(fields))
    assert 0 < status < 500


@pytest.fixture(scope="module", autouse=True)
def _still_serving(lab: Lab, edge: Edge) -> None:
    """Before the first of them; the last test asks again."""
    assert edge.request("/simple/", right("alice")).status == 200


def test_it_still_serves(lab: Lab, edge: Edge) -> None:
    assert edge.request("/simple/", right("alice")).status == 200
    assert edge.request("/simple/").status == 401
    assert lab.healthy()
    assert "Traceback" not in lab.compose("logs --no-color --tail 2000 pypiserver login")
