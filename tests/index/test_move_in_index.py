"""Any simple index comes in: a real pypiserver, this index itself, and one in the forms that Nexus and Artifactory give their pages.

Those two cannot be had here; their pages are written down as their documentation and users show them.
"""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import requests
from public.upstream import Artifact, Misbehaviour, Upstream, running, say

from moving import incoming, offers, web
from moving.offers import Failed, Stopped
from static_index.store import Store

from .artifacts import sdist, wheel
from .conftest import Add
from .moving_runs import new_store, put, take, whole_tree
from .serve import certified, reading
from .state import check_whole, page

LOGIN = ("bob", "builder")
RIGHT = f"Basic {b64encode(b'bob:builder').decode()}"


def listing(*names: str) -> Misbehaviour:
    """The list of projects, which the stand-in has not."""
    text = "".join(f'<a href="{name}/">{name}</a>\n' for name in names)
    return lambda request: say(request, f"<html><body>{text}</body></html>".encode(), "text/html")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with running(Upstream()) as upstream:
        upstream.wrong["/simple/"] = lambda request: listing(*upstream.projects)(request)
        yield upstream


@contextmanager
def pypiserver(packages: Path, *arguments: str) -> Iterator[str]:
    """The real one, as the posts start it but for the image."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("pypi-server")),
        "run",
        "--port",
        str(port),
        "--interface",
        "127.0.0.1",
    ]
    process = subprocess.Popen([*command, *arguments, str(packages)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except requests.RequestException:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/simple/"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("hashes", ["sha256", "md5", "off"])
def test_a_pypiserver_comes_in_with_its_times(store: Store, tmp_path: Path, hashes: str) -> None:
    """Which it says by Last-Modified only."""
    for number, artifact in enumerate((wheel("acme-tool"), sdist("acme-tool", "1.1"), wheel("Other.Thing", "2.0"))):
        put(tmp_path / "theirs", artifact, 1_600_000_000 + number)
    with pypiserver(tmp_path / "theirs", "-P", ".", "-a", ".", f"--hash-algo={hashes}") as url:
        report = take(store, url)
        assert (report.taken, report.refused) == (3, [])
        again = take(store, url)
        assert (again.taken, again.already) == (0, 3)
    assert [file["upload-time"] for file in page(store, "acme-tool")["files"]] == [
        "2020-09-13T12:26:40.000000Z",
        "2020-09-13T12:26:41.000000Z",
    ]
    check_whole(store)


def test_what_pypiserver_sends_elsewhere_for_is_not_taken(store: Store, upstream: Upstream, tmp_path: Path) -> None:
    """It redirects to PyPI for what it has not: a stranger's package would become ours."""
    upstream.add("acme-missing")
    put(tmp_path / "theirs", wheel("acme-tool"))
    fallback = upstream.url.replace("127.0.0.1", "localhost")
    with pypiserver(tmp_path / "theirs", "-P", ".", "-a", ".", "--fallback-url", fallback) as url:
        assert requests.get(f"{url}acme-missing/", timeout=10).url == f"{fallback}acme-missing/"
        report = take(store, url, "acme-tool", "acme-missing")
    assert report.taken == 1 and len(report.refused) == 1 and "redirects to localhost" in report.refused[0]
    assert not store.owns("acme-missing")


def test_this_index_comes_in_whole(store: Store, add: Add, tmp_path: Path) -> None:
    """Over TLS with a CA and a login; times, yanks and order are the same to the microsecond."""
    for number in range(5):
        add(wheel("acme-tool", f"1.{number}"))
    add(sdist("Other.Thing", "2.0"))
    store.yank("acme-tool", "1.1", "broken on <Windows>")
    store.yank("acme-tool", "1.2", "")
    store.index.write_root()
    theirs = new_store(tmp_path / "other")
    with reading(store, certified(tmp_path), login="bob:builder") as (url, _):
        ca = (tmp_path / "ca.pem").read_text()
        with pytest.raises(Stopped, match="certificate is not trusted .* move_in_ca_file"):
            take(theirs, url, login=LOGIN)
        with pytest.raises(Stopped, match="401.* give move_in_username"):
            take(theirs, url, ca=ca)
        assert take(theirs, url, login=LOGIN, ca=ca).taken == 6
    for project in ("acme-tool", "other-thing"):
        assert page(theirs, project) == page(store, project)
    assert page(theirs, "acme-tool")["files"][1]["yanked"] == "broken on <Windows>"
    assert page(theirs, "acme-tool")["files"][2]["yanked"] is True


def test_a_yank_holds_before_the_first_file_is_there(store: Store, upstream: Upstream) -> None:
    upstream.add("acme-tool", "1.0", says={"yanked": "broken"})
    seen: list[Any] = []
    original = store.index.add

    def add(*arguments: Any) -> None:
        seen.append(store.yanked("acme-tool"))
        original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.index, "add", add)
        take(store, upstream.url)
    assert seen == [{"1": "broken"}]


def test_our_own_decision_on_a_yank_stays(store: Store, upstream: Upstream) -> None:
    upstream.add("acme-tool", "1.0", says={"yanked": "broken"})
    take(store, upstream.url)
    store.yank("acme-tool", "1.0", None)
    report = take(store, upstream.url)
    assert report.notes == ["acme-tool 1.0 is yanked at the source and not here: see playbooks/release.yml"]
    other = sdist("acme-tool", "1.0")
    upstream.projects["acme-tool"].append(Artifact(*other, says={"yanked": "broken"}))
    assert take(store, upstream.url).taken == 1
    assert not any("yanked" in file for file in page(store, "acme-tool")["files"])


def test_a_version_that_is_half_yanked_is_not_yanked_and_said(store: Store, upstream: Upstream) -> None:
    upstream.add("acme-tool", "1.0", says={"yanked": "broken"})
    other = sdist("acme-tool", "1.0")
    upstream.projects["acme-tool"].append(Artifact(*other))
    report = take(store, upstream.url)
    assert report.notes == ["acme-tool 1: only some of its files are yanked at the source; none is here"]
    assert not any("yanked" in file for file in page(store, "acme-tool")["files"])


NEXUS = (
    '<html lang="en"><head><title>Links for acme-tool</title><meta name="api-version" value="2"/></head><body>'
    '<h1>Links for acme-tool</h1>\n<a href="../../packages/acme-tool/1.0/{name}#sha256={sha256}" rel="internal"'
    ' data-requires-python="&gt;=3.8" >{name}</a><br/>\n</body></html>'
)
ARTIFACTORY = (
    '<!DOCTYPE html>\n<html><head><title>Simple Index</title><meta name="api-version" value="2" /></head><body>\n'
    '<a data-requires-python="&gt;=3.8" href="../../acme-tool/1.0/{name}#sha256={sha256}" rel="internal" >{name}</a><br/>\n</body></html>'
)
WITH_BASE = (
    '<html><head><base href="../../packages/acme-tool/1.0/"></head><body><a href="{name}#md5={md5}">{name}</a>'
    '<a href="{name}.asc">its signature</a></body></html>'
)


@pytest.mark.parametrize("form", [NEXUS, ARTIFACTORY, WITH_BASE], ids=["Nexus", "Artifactory", "base"])
def test_pages_of_others(store: Store, upstream: Upstream, form: str) -> None:
    name, content = wheel("acme-tool")
    sha256, md5 = hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    text = form.format(name=name, sha256=sha256, md5=md5).encode()
    upstream.wrong["/simple/"] = listing("acme-tool")
    upstream.wrong["/simple/acme-tool/"] = lambda request: say(request, text, "text/html;charset=utf-8")
    for path in (f"/packages/acme-tool/1.0/{name}", f"/acme-tool/1.0/{name}"):
        upstream.wrong[path] = lambda request: say(
            request, content, "application/zip", Last_Modified="Sun, 13 Sep 2020 12:26:40 GMT"
        )
    assert take(store, upstream.url).refused == []
    (file,) = page(store, "acme-tool")["files"]
    assert (file["hashes"]["sha256"], file["upload-time"]) == (sha256, "2020-09-13T12:26:40.000000Z")


@pytest.mark.parametrize("html", [False, True], ids=["JSON", "HTML"])
def test_what_is_not_what_its_page_says_is_refused(store: Store, upstream: Upstream, html: bool) -> None:
    upstream.html = html
    upstream.add("acme-tool", "1.0", says={"hashes": {"sha256": "0" * 64}})
    upstream.add("acme-tool", "1.1")
    report = take(store, upstream.url)
    assert len(report.refused) == 1 and "its sha256 is" in report.refused[0]
    assert [file["filename"] for file in page(store, "acme-tool")["files"]] == ["acme_tool-1.1-py3-none-any.whl"]


def cut(content: bytes) -> Misbehaviour:
    """Half of it, and the connection ends."""

    def send(request: BaseHTTPRequestHandler) -> None:
        say(request, content[: len(content) // 2], Content_Length=str(len(content)))
        request.close_connection = True

    return send


def test_a_source_that_breaks_off_is_gone_on_with(store: Store, upstream: Upstream) -> None:
    first, second = upstream.add("acme-tool", "1.0"), upstream.add("acme-tool", "1.1")
    upstream.wrong[f"/files/{second.filename}"] = cut(second.content)
    report = take(store, upstream.url)
    assert report.taken == 1 and len(report.refused) == 1 and "broke off after" in report.refused[0]
    assert upstream.count(f"/files/{second.filename}") == incoming.TRIES
    del upstream.wrong[f"/files/{second.filename}"]
    assert take(store, upstream.url).taken == 1
    assert upstream.count(f"/files/{first.filename}") == 1  # its hash on the page was enough
    check_whole(store)


def test_a_source_that_is_away_ends_the_run(store: Store, upstream: Upstream) -> None:
    for number in range(60):
        upstream.add(f"acme-{number}")
    upstream.wrong |= {f"/files/acme_{number}-1.0-py3-none-any.whl": cut(b"x" * 99) for number in range(60)}
    with pytest.raises(Stopped, match="failed 10 times in a row; what was taken stays"):
        take(store, upstream.url)
    assert len({path for path, _ in upstream.asked if path.startswith("/files")}) < 25
    upstream.down = True
    with pytest.raises(Failed, match="/simple/"):
        take(store, upstream.url)


def test_the_login_goes_to_the_index_alone(store: Store, upstream: Upstream, tmp_path: Path) -> None:
    """Neither a redirect nor a page takes it along, not even to another port."""
    with running(Upstream()) as elsewhere:
        one, two = upstream.add("acme-one"), upstream.add("acme-two")
        elsewhere.projects |= upstream.projects
        base = elsewhere.url.removesuffix("simple/")
        upstream.wrong[f"/files/{one.filename}"] = lambda request: say(
            request, b"", "text/plain", 302, Location=f"{base}files/{one.filename}"
        )
        upstream.projects["acme-two"] = [
            Artifact(two.filename, two.content, says={"url": f"{base}files/{two.filename}"})
        ]
        assert take(store, upstream.url, login=LOGIN).taken == 2
        assert {headers.get("Authorization") for _, headers in upstream.asked} == {RIGHT}
        assert len(elsewhere.asked) == 2
        assert {headers.get("Authorization") for _, headers in elsewhere.asked} == {None}


def test_a_redirect_of_its_own_keeps_the_login(store: Store, upstream: Upstream) -> None:
    one = upstream.add("acme-one")
    upstream.wrong["/files/moved"] = lambda request: say(request, one.content)
    upstream.wrong[f"/files/{one.filename}"] = lambda request: say(
        request, b"", "text/plain", 302, Location="/files/moved"
    )
    assert take(store, upstream.url, login=LOGIN).taken == 1
    assert [headers.get("Authorization") for path, headers in upstream.asked if path == "/files/moved"] == [RIGHT]


def test_through_a_proxy_and_past_it(upstream: Upstream) -> None:
    """The stand-in is the proxy as well: it answers for whatever host it is asked."""
    one = upstream.add("acme-one")
    proxy = {"http": upstream.url.removesuffix("/simple/"), "no_proxy": "localhost,.inside.example.com"}
    reach = web.Web("http://nexus.example.com/simple/", proxy=proxy)
    with reach.get(f"http://nexus.example.com/files/{one.filename}") as body:
        assert body.whole(1 << 20) == one.content
    with pytest.raises(Failed), reach.get(f"http://nexus.inside.example.com/files/{one.filename}"):
        pass


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"])
def test_nothing_but_the_web_is_read(store: Store, upstream: Upstream, target: str) -> None:
    one, two = upstream.add("acme-one"), upstream.add("acme-two", says={"url": target})
    assert two
    upstream.wrong[f"/files/{one.filename}"] = lambda request: say(request, b"", "text/plain", 302, Location=target)
    report = take(store, upstream.url)
    assert report.taken == 0 and len(report.refused) == 2
    assert store.index.records.projects() == []


def test_nothing_leads_from_https_to_http(store: Store, tmp_path: Path) -> None:
    with running(Upstream(), tls=certified(tmp_path)) as upstream, running(Upstream()) as plain:
        one = upstream.add("acme-one")
        plain.projects |= upstream.projects
        base = plain.url.removesuffix("simple/")
        upstream.wrong[f"/files/{one.filename}"] = lambda request: say(
            request, b"", "text/plain", 302, Location=f"{base}files/{one.filename}"
        )
        upstream.add("acme-two", says={"url": f"{base}files/acme_two-1.0-py3-none-any.whl"})
        upstream.wrong["/simple/"] = listing("acme-one", "acme-two")
        report = take(store, upstream.url, ca=(tmp_path / "ca.pem").read_text(), login=LOGIN)
        assert report.taken == 0 and len(report.refused) == 2 and plain.asked == []


def test_of_a_group_only_what_is_named_is_asked_for(store: Store, upstream: Upstream) -> None:
    for name in ("acme-one", "acme-two", "requests"):
        upstream.add(name)
    assert take(store, upstream.url, "Acme.One").taken == 1
    assert {path for path, _ in upstream.asked} == {"/simple/acme-one/", "/files/acme_one-1.0-py3-none-any.whl"}
    take(store, upstream.url, "acme-*")
    assert upstream.count("/simple/requests/") == 0
    assert store.index.records.projects() == ["acme-one", "acme-two"]
    assert take(store, upstream.url, "missing").refused[0].startswith("missing: there is no such project: ")


def test_a_dry_run_reads_pages_only(store: Store, upstream: Upstream) -> None:
    upstream.add("acme-one")
    report = take(store, upstream.url, dry=True)
    assert report.taken == 1 and report.total_bytes > 0
    assert [path for path, _ in upstream.asked] == ["/simple/", "/simple/acme-one/"]


def test_a_file_larger_than_may_be_is_not_read_to_its_end(store: Store, upstream: Upstream) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        say(request, b"", Content_Length=None)
        request.close_connection = True
        while sent < 1 << 30:
            request.wfile.write(bytes(1 << 16))
            sent += 1 << 16

    one = upstream.add("acme-one")
    upstream.wrong[f"/files/{one.filename}"] = endless
    report = take(store, upstream.url)
    assert len(report.refused) == 1 and "pypi_stack_max_upload_size" in report.refused[0]
    assert sent < 64 << 20


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/html", b"<html>Sign in to continue</html>"),
        ("application/json", b'{"files": [1]}'),
        ("application/json", b"{"),
        ("application/vnd.pypi.simple.v1+json", b'{"projects": [{}]}'),
        ("text/plain", b"acme-one"),
        ("application/json", b"[" * 100_000),
    ],
)
def test_what_is_no_index_says_so(store: Store, upstream: Upstream, kind: str, text: bytes) -> None:
    upstream.wrong["/simple/"] = lambda request: say(request, text, kind)
    with pytest.raises((Stopped, Failed)):
        take(store, upstream.url)


def test_a_page_has_a_bound(store: Store, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moving.simple.LARGEST_PAGE", 100)
    upstream.add("acme-one")
    report = take(store, upstream.url)
    assert len(report.refused) == 1 and "longer than 100 bytes" in report.refused[0]


@pytest.mark.parametrize("url", ["file:///etc/", "https://bob:secret@nexus.example.com/simple/", "nexus", "https://"])
def test_an_address_that_is_none_is_refused(store: Store, url: str) -> None:
    with pytest.raises(Stopped, match="no address such as"):
        take(store, url)


def test_times_are_read_and_written_alike() -> None:
    assert offers.nanoseconds("2020-09-13T12:26:40.123456Z") == 1_600_000_000_123_456_000
    assert offers.nanoseconds("2020-09-13T12:26:40+00:00") == 1_600_000_000_000_000_000
    for wrong in (None, 7, "", "2020-09-13", "2020-09-13T12:26:40", "2020-13-13T12:26:40Z", "2020-09-13T12:26:40.xZ"):
        assert offers.nanoseconds(wrong) is None
    for moment in (1, 999_999_999, 1_600_000_000_123_456_789):
        assert offers.nanoseconds(offers.text_of(moment)) == moment
    assert offers.http_date("Sun, 13 Sep 2020 12:26:40 GMT") == 1_600_000_000_000_000_000
    assert offers.http_date("yesterday") is None and offers.http_date(None) is None


def test_an_index_that_grows_meanwhile_comes_in_by_the_next_run(
    store: Store, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.add("acme-one", "1.0")
    take(store, upstream.url)
    upstream.add("acme-one", "1.1")
    assert (take(store, upstream.url).taken, len(page(store, "acme-one")["files"])) == (1, 2)
    once = new_store(tmp_path / "once")
    take(once, upstream.url)
    assert whole_tree(once) == whole_tree(store)
