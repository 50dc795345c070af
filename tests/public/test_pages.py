"""What the upstream says survives, in both forms, whichever form it came in."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index.artifacts import sdist
from packaging.utils import parse_sdist_filename, parse_wheel_filename

from public_index import config, listing, names
from public_index.pages import render

from .conftest import Start, address
from .upstream import JSON, OLD, Artifact, Upstream, held_back, say

SAYS: dict[str, Any] = {
    "requires-python": '>=3.9,<"4"&x',
    "yanked": 'broken "badly" <b>',
    "upload-time": "2024-05-29T15:37:47.027275Z",
    "provenance": "https://files.example/lib.provenance",
}


@pytest.mark.parametrize("html", [False, True])
def test_attributes_survive(start: Start, upstream: Upstream, html: bool) -> None:
    upstream.html = html
    says = {key: value for key, value in SAYS.items() if not (html and key == "provenance")}
    rich = upstream.add("lib", "1.0", metadata=b"Name: lib", says=says)
    bare = upstream.add("lib", "2.0+cu118", uploaded=None, says={"size": None, "requires-python": None})
    empty = upstream.add("lib", "3.0", says={"yanked": ""})
    upstream.projects["lib"].append(Artifact(*sdist("lib", "1.0"), OLD))
    engine = start()
    page = engine.page("lib")
    files = {file["filename"]: file for file in page["files"]}
    assert page["name"] == "lib"
    assert page["versions"] == ["1.0", "2.0+cu118", "3.0"]
    expected = {**rich.entry(), "url": f"../../public/lib/{rich.sha256[:16]}/{rich.filename}"}
    assert files[rich.filename] == expected
    assert "dist-info-metadata" not in str(page)  # PEP 714
    assert files[bare.filename].keys() == {"filename", "url", "hashes"}
    assert files[empty.filename]["yanked"] is True
    assert "lib-1.0.tar.gz" in files
    link = engine.links("lib")[rich.filename]
    digest = expected["core-metadata"]["sha256"]
    assert link == {
        "href": f"{expected['url']}#sha256={rich.sha256}",
        "data-requires-python": SAYS["requires-python"],
        "data-yanked": SAYS["yanked"],
        "data-upload-time": SAYS["upload-time"],
        "data-size": str(len(rich.content)),
        "data-core-metadata": f"sha256={digest}",
        "data-dist-info-metadata": f"sha256={digest}",
    } | ({} if html else {"data-provenance": SAYS["provenance"]})
    assert engine.ask(address(rich, "lib", ".metadata")).body == b"Name: lib"
    assert engine.ask(address(bare, "lib").replace("+", "%2B")).body == bare.content


def test_the_status_of_a_project_survives(start: Start, upstream: Upstream) -> None:
    upstream.add("lib")
    upstream.page = {"project-status": {"status": "archived", "reason": 'no "time"'}}
    engine = start()
    assert engine.page("lib")["project-status"] == {"status": "archived", "reason": 'no "time"'}
    assert engine.page("lib")["meta"] == {"api-version": "1.4"}
    html = (engine.cache / "simple/lib/index.html").read_text()
    assert '<meta name="pypi:project-status" content="archived">' in html
    assert '<meta name="pypi:project-status-reason" content="no &quot;time&quot;">' in html


def test_html_with_a_base_and_of_older_days(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    html = f"""<HTML><HEAD><BASE HREF="/files/"><base href="/wrong/"></HEAD>
    <BODY><h1>Links for lib</h1><A rel=internal href='{artifact.filename}#sha256={artifact.sha256.upper()}' data-yanked>x</A>
    <a href="lib-2.0.tar.gz#md5=0123">no sha256</a><a>nothing</a><a href="../../packages/&amp;#x">odd</a>
    <a href="lib-3.0.exe#sha256={artifact.sha256}">no installer reads it</a>
    <a href="other-1.0.tar.gz#sha256={artifact.sha256}">another project's</a>"""
    upstream.wrong["/simple/lib/"] = lambda request: say(request, html.encode(), "text/html")
    engine = start()
    assert engine.offers("lib") == {artifact.filename}
    assert engine.page("lib")["files"][0]["yanked"] is True
    assert engine.ask(address(artifact, "lib")).body == artifact.content


@pytest.mark.parametrize(
    "says",
    [
        {"hashes": {}},
        {"hashes": {"md5": "0" * 32}},
        {"hashes": {"sha256": "0" * 63 + "g"}},
        {"hashes": {"sha256": 7}},
        {"hashes": None},
        {"filename": "other-1.0-py3-none-any.whl"},
        {"filename": "../lib-1.0-py3-none-any.whl"},
        {"filename": "lib-1.0-py3-none-any.whl\n"},
        {"filename": "lib-1.0.exe"},
        {"filename": "lib-1.0-py3-none-any.whl.metadata"},
        {"filename": "lib-" + "1" * 300 + ".tar.gz"},
        {"filename": ["lib-1.0-py3-none-any.whl"]},
        {"url": "file:///etc/passwd"},
        {"url": "javascript:alert(1)"},
        {"url": "http://[broken"},
        {"url": 7},
    ],
)
def test_a_file_that_is_not_one(start: Start, upstream: Upstream, says: dict[str, Any]) -> None:
    upstream.add("lib", says=says)
    good = upstream.add("lib", "2.0")
    assert start().offers("lib") == {good.filename}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", -1),
        ("size", True),
        ("size", "12"),
        ("upload-time", "yesterday"),
        ("upload-time", "2026-99-99T00:00:00Z"),
        ("requires-python", 3),
        ("requires-python", "x" * 3000),
        ("core-metadata", True),
        ("core-metadata", {"sha256": '"><script>'}),
        ("provenance", "javascript:alert(1)"),
        ("yanked", []),
    ],
)
def test_a_value_that_makes_no_sense_is_left_out(start: Start, upstream: Upstream, key: str, value: Any) -> None:
    artifact = upstream.add("lib", says={key: value})
    engine = start()
    (file,) = engine.page("lib")["files"]
    assert key not in file
    assert engine.ask(address(artifact, "lib")).body == artifact.content


def test_a_page_that_is_the_same_keeps_its_etag_and_another_has_another(start: Start, upstream: Upstream) -> None:
    upstream.add("lib")
    engine = start()
    engine.page("lib")
    path = engine.cache / "simple/lib/index.json"
    first = path.stat().st_mtime
    engine.later(601)
    engine.page("lib")
    assert path.stat().st_mtime == first
    upstream.projects["lib"][0].uploaded = "2020-01-01T00:00:00.000001Z"  # as long as before
    engine.later(601)
    engine.page("lib")
    assert path.stat().st_mtime >= first + 1


def test_a_form_is_made_when_it_is_asked_for(start: Start, upstream: Upstream) -> None:
    """Installers take JSON, and wait for nothing else."""
    upstream.add("lib")
    engine = start()
    folder = engine.cache / "simple/lib"
    assert engine.ask("/simple/lib/?index.json").status == 200
    assert {path.name for path in folder.iterdir()} == {"index.json", "index.json.gz"}
    first = (folder / "index.json").stat().st_mtime
    engine.now += 100
    assert engine.ask("/simple/lib/?index.html").status == 200
    assert {path.name for path in folder.iterdir()} == {"index.html", "index.html.gz", "index.json", "index.json.gz"}
    assert (folder / "index.json").stat().st_mtime == first
    assert upstream.count("/simple/lib/") == 1
    engine.later(501)
    assert not folder.exists()


@pytest.mark.parametrize(("first", "second"), [("html", "json"), ("json", "html")])
def test_both_forms_are_of_one_moment(start: Start, upstream: Upstream, first: str, second: str) -> None:
    """Whatever happens between the two: here somebody takes a file out of a cache that nobody fills."""
    files = [upstream.add("lib", version) for version in ("1.0", "2.0")]
    engine = start()
    for file in files:
        assert engine.ask(address(file, "lib")).status == 200
    engine.kept()
    engine = start(packages="cached")
    page = engine.cache / f"simple/lib/index.{first}"
    assert engine.ask(f"/simple/lib/?index.{first}").status == 200
    assert files[0].filename in page.read_text()
    assert engine.mirror
    engine.mirror.cache.purge("lib", files[0].filename)
    assert engine.ask(f"/simple/lib/?index.{second}").status == 200
    for form in (first, second):
        text = (page.parent / f"index.{form}").read_text()
        assert files[1].filename in text and files[0].filename not in text


def test_a_page_is_asked_for_once_in_ten_minutes_and_then_only_for_changes(start: Start, upstream: Upstream) -> None:
    upstream.add("lib")
    content = b""
    tags: list[str | None] = []

    def answer(request: Any) -> None:
        tags.append(request.headers.get("If-None-Match"))
        same = tags[-1] == '"one"'
        say(request, b"" if same else content, status=304 if same else 200, Content_Type=JSON, ETag='"one"')

    content = json.dumps(upstream.document("lib")).encode()
    upstream.wrong["/simple/lib/"] = answer
    engine = start()
    for _ in range(3):
        assert engine.offers("lib")
    engine.later(590)
    assert engine.offers("lib")
    assert tags == [None]
    engine.later(11)
    for _ in range(3):
        assert engine.offers("lib")
    assert tags == [None, '"one"']


def test_slow_pages_hold_nobody_up(start: Start, upstream: Upstream) -> None:
    upstream.add("good")
    engine = start(timeout=60)
    end = threading.Event()
    slow = [f"slow{number}" for number in range(12)]
    for name in slow:
        upstream.add(name)
        content = json.dumps(upstream.document(name)).encode()
        upstream.wrong[f"/simple/{name}/"] = held_back(content, 10, end, JSON)
    with ThreadPoolExecutor(len(slow)) as pool:
        asked = [pool.submit(engine.offers, name) for name in slow]
        while sum(upstream.count(f"/simple/{name}/") for name in slow) < len(slow):
            time.sleep(0.01)
        try:
            assert engine.offers("good")
        finally:
            end.set()
        assert all(page.result() for page in asked)


def test_a_large_page_in_time(start: Start, upstream: Upstream) -> None:
    """As large as the largest one there is: 15,000 files, 7 MB."""
    files = [
        Artifact(f"pydantic_core-2.{n // 100}.{n % 100}-cp312-cp312-manylinux_2_17_{n}.whl", b"%d" % n).entry()
        | {
            "url": f"https://files.example.org/packages/64/20/{n:060}/pydantic_core-2.{n // 100}.{n % 100}-cp312-cp312-m_{n}.whl"
        }
        for n in range(15_000)
    ]
    content = json.dumps({"meta": {"api-version": "1.1"}, "files": files, "versions": []}).encode()
    assert len(content) > 6 << 20
    upstream.wrong["/simple/pydantic-core/"] = lambda request: say(request, content)
    engine = start(minimum_age=7 * 86_400)
    begun = time.process_time()
    assert engine.ask("/simple/pydantic-core/").status == 200
    assert time.process_time() - begun < 5  # of two cores, in a noisy place
    assert len(engine.page("pydantic-core")["files"]) == 15_000
    assert not (engine.cache / "simple/pydantic-core/index.json").exists()


def test_nothing_breaks_out_of_a_page() -> None:
    evil = '"><script>alert(1)</script>'
    file = listing.File("lib-1.0.tar.gz", "1.0", "https://x/", "0" * 64, 1, "", evil, "", evil, evil)
    known = listing.Listing("lib", "pypi", "https://x/", (file,), (), evil, evil)
    assert b"<script" not in render("index.html", known, [file])["index.html"]
    page = json.loads(render("index.json", known, [file])["index.json"])
    assert [page["project-status"]["reason"], page["files"][0]["yanked"]] == [evil, evil]


TEXTS = st.text(st.sampled_from('[],"\\\n1a'), max_size=12)
VERSIONS = (
    "1.0 1 v1.0.0 1.0.dev1 1.0a1 1.0a1.dev2 1.0b2 1.0rc1 1.0c1 1.0-1 1.0.post1 1.0.post1.dev3 1!0.5 1.0+abc 1.0+abc.5"
)
VERSIONS += " 1.0+5 1.0.1 0 0.0 10.0 1.0-preview3 1.0_r4 1.0ALPHA 2024.1.1 1.0a 1.0.post 1.0dev 1.0a0"


def test_what_is_no_version_is_none() -> None:
    for nonsense in ("", "a", "1.0-foo", "1..0", "1.0+", "1.0+a..b", "latest", "9" * 10_000, "1.0\n2", "١.٠"):
        assert names.version_key(nonsense) is None


@settings(max_examples=300, deadline=None)
@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,4}([-_.][A-Za-z0-9]{1,4}){0,3}", fullmatch=True),
    st.sampled_from(VERSIONS.split()),
)
def test_file_names_are_read_as_packaging_reads_them(name: str, version: str) -> None:
    project = names.normalise(name)
    wheel = f"{name.replace('-', '_')}-{version.replace('-', '_')}-py3-none-any.whl"
    with suppress(ValueError):
        their_name, their_version = parse_sdist_filename(f"{name}-{version}.tar.gz")
        ours = names.version_of(f"{name}-{version}.tar.gz", project)
        assert their_name != project or (ours and names.same_version(ours, str(their_version)))
    with suppress(ValueError):
        their_name, their_version, _build, _tags = parse_wheel_filename(wheel)
        ours = names.version_of(wheel, project)
        assert their_name != project or (ours and names.same_version(ours, str(their_version)))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"packages": "yes"}, "packages"),
        ({"reserve": []}, "'reserve' is unknown"),
        ({"minimum_age": "7d"}, "minimum_age"),
        ({"cache_size": 0}, "cache_size"),
        ({"reserved": 7}, "wrong type"),
        ({"upstreams": [{"name": ""}]}, "is no name"),
        ({"upstreams": [{"name": "x", "url": "ftp://x"}]}, "no address"),
        ({"upstreams": [{"name": "x", "url": "http://x", "user": "a"}]}, "'user' is unknown"),
        (
            {"upstreams": [{"name": "x", "url": "http://x", "allow_private_addresses": ["x"]}]},
            "allow_private_addresses",
        ),
        ({"exempt": [{"name": "x"}]}, "until is missing"),
        ({"exempt": [{"name": "x", "until": "soon"}]}, "is no date"),
        ({"exempt": [{"until": "2026-01-01"}]}, "name is missing"),
    ],
)
def test_a_configuration_is_refused_with_the_key(options: dict[str, Any], word: str) -> None:
    with pytest.raises(config.ConfigError, match=word):
        config.parse(options)


def test_the_default_upstream_is_the_one_that_pip_has() -> None:
    assert config.parse({}).upstreams[0].url.startswith("https://")


@given(
    st.lists(st.tuples(st.sampled_from(["lib-1.tar.gz", "lib-2.zip", "é"]), TEXTS, st.sampled_from("abc")), max_size=6),
    st.lists(TEXTS, max_size=2),
    TEXTS,
    st.booleans(),
)
def test_one_file_of_a_listing_is_found_as_by_reading_all(
    said: list[tuple[str, str, str]], versions: list[str], reason: str, old: bool
) -> None:
    """Whatever an upstream writes into it; also in one without lines, as it was once."""
    files = tuple(listing.File(name, "1", "https://x/", digest * 64, yanked=text) for name, text, digest in said)
    known = listing.Listing("lib", "pypi", "https://x/", files, tuple(versions), "", reason, "")
    kept = json.dumps(known, separators=(",", ":")).encode() if old else known.dump()
    assert listing.restore(kept) == known
    for filename in ("lib-1.tar.gz", "lib-2.zip", "é", 'lib-1.tar.gz","1', ""):
        for digest in "abc":
            alone = tuple(file for file in files if file.key == (digest * 16, filename))
            assert listing.excerpt(kept, digest * 16, filename) == known._replace(files=alone)
