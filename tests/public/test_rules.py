"""Whose name it is, how old, how malicious: the same answer for page, file and metadata."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from public_index.cache import Cache, Kept

from .conftest import DAY, NOW, Engine, Start, address, described
from .upstream import Artifact, Upstream, running, say


def day(days_ago: float) -> str:
    return datetime.fromtimestamp(NOW - days_ago * DAY, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def until(days: float) -> str:
    return day(-days)[:10]


def refused(engine: Engine, name: str, artifact: Artifact, *words: str, status: int = 403) -> None:
    """Neither the file nor its metadata is to be had, with or without asking for the page before."""
    for suffix in ("", ".metadata"):
        for method in ("GET", "HEAD"):
            reply = engine.ask(address(artifact, name, suffix), method)
            assert reply.status == status, reply
            assert all(word in reply.reason for word in words), reply.reason
            assert artifact.content not in reply.body
    assert not {kept for kept in engine.kept() if kept.startswith(artifact.filename)}


@pytest.mark.parametrize("name", ["acme-sdk", "acme-tools-x", "acme"])
def test_a_reserved_name_is_never_asked_for(start: Start, upstream: Upstream, name: str) -> None:
    artifact = upstream.add(name, "99.0")
    engine = start(reserved=["Acme_*", "ACME"])
    assert engine.ask(f"/simple/{name}/").status == 404
    assert "pypi_public_reserved_names" in engine.ask(f"/simple/{name}/").reason
    refused(engine, name, artifact, status=404)
    assert engine.ask(f"/exists/{name}").status == 404
    assert upstream.asked == []


@pytest.mark.parametrize(
    "spelling",
    [
        "Acme_SDK",
        "acme%20sdk",
        "acme..sdk",
        "acme_sdk",
        "ACME-SDK",
        "acme-sdk%00",
        "acme%2fsdk",
        "acme%2dsdk%2e",
        "-acme-sdk",
    ]
    + ["acme--sdk", "%61cme_sdk", "acme-sdk%2F..%2Frequests", "acme%E2%80%90sdk", "acme%ADsdk"],
)
def test_another_spelling_is_no_way_around(start: Start, upstream: Upstream, spelling: str) -> None:
    artifact = upstream.add("acme-sdk", "99.0")
    engine = start(reserved=["acme-*"])
    for path in (
        f"/simple/{spelling}/",
        f"/files/{spelling}/{artifact.sha256[:16]}/{artifact.filename}",
        f"/exists/{spelling}",
    ):
        assert engine.ask(path).status == 404
    assert upstream.asked == []


def test_only_what_is_named(start: Start, upstream: Upstream) -> None:
    other = upstream.add("leftpad")
    upstream.add("requests")
    engine = start(only=["requests", "types-*"])
    assert engine.offers("requests")
    asked = len(upstream.asked)
    assert "pypi_public_only" in engine.ask("/simple/leftpad/").reason
    refused(engine, "leftpad", other, "pypi_public_only", status=404)
    assert len(upstream.asked) == asked


def test_denied_altogether(start: Start, upstream: Upstream) -> None:
    refused(start(packages="deny"), "requests", upstream.add("requests"), "deny", status=404)
    assert upstream.asked == []


def test_the_first_upstream_that_fits_answers_alone(start: Start, upstream: Upstream) -> None:
    upstream.add("torch", "99.0")
    upstream.add("requests")
    with running(Upstream()) as special:
        upstreams = [described(special, name="special", projects=["Torch*"]), described(upstream)]
        engine = start(upstreams)
        assert engine.ask("/simple/torch/").status == 404
        special.down = True
        assert engine.ask("/simple/torchvision/").reason.startswith("special ")
        assert engine.ask("/simple/torchvision/").status == 502
        assert engine.offers("requests")
    assert not [path for path, _ in upstream.asked if "torch" in path]


@pytest.mark.parametrize("html", [False, True])
def test_the_age_gate(start: Start, upstream: Upstream, html: bool) -> None:
    upstream.html = html
    old = upstream.add("urllib3", "2.8", day(30))
    young = upstream.add("urllib3", "2.9.1", day(2), metadata=b"young")
    unknown = upstream.add("urllib3", "2.9.2", None, metadata=b"unknown")
    future = upstream.add("urllib3", "2.9.3", day(-300), metadata=b"future")
    engine = start(minimum_age=7 * DAY)
    rule = ("urllib3 2.9.", "pypi_public_minimum_age is 7d", "pypi_public_exempt")
    for artifact in (young, unknown, future):  # as from a lock file, before the page
        refused(engine, "urllib3", artifact, *rule)
    assert "is 2d old" in engine.ask(address(young, "urllib3")).reason
    assert engine.offers("urllib3") == {old.filename}
    assert engine.page("urllib3")["versions"] == ["2.8"]
    assert engine.ask(address(old, "urllib3")).body == old.content
    # What becomes old enough appears, though nobody has done anything and the page could be kept for longer.
    page = engine.cache / "simple/urllib3/index.json"
    engine.later(5 * DAY - 300)
    assert engine.offers("urllib3") == {old.filename}
    engine.later(299)
    assert page.exists()
    engine.later(1)
    assert not page.exists()
    assert engine.offers("urllib3") == {old.filename, young.filename}
    assert engine.ask(address(young, "urllib3")).body == young.content
    assert engine.ask(address(young, "urllib3", ".metadata")).body == b"young"
    refused(engine, "urllib3", unknown, *rule)


def test_a_project_that_is_too_young_as_a_whole_says_so(start: Start, upstream: Upstream) -> None:
    upstream.add("brandnew", "1.0", day(1))
    reply = start(minimum_age=7 * DAY).ask("/simple/brandnew/")
    assert (reply.status, "pypi_public_minimum_age" in reply.reason) == (403, True)
    assert reply.reason in reply.body.decode()


def test_an_exemption_ends_on_its_date(start: Start, upstream: Upstream) -> None:
    old = upstream.add("urllib3", "2.8", day(30))
    exempt = upstream.add("urllib3", "2.9.1", day(0), metadata=b"exempt")
    other = upstream.add("urllib3", "2.9.2", day(0))
    entry = {"name": "URLLIB3", "version": "2.9.1.0", "until": until(2), "reason": "CVE"}
    engine = start(minimum_age=300 * DAY, exempt=[entry | {"version": "2.8", "until": "2099-12-31"}, entry])
    assert engine.offers("urllib3") == {old.filename, exempt.filename}
    assert engine.ask(address(exempt, "urllib3")).body == exempt.content
    assert engine.ask(address(exempt, "urllib3", ".metadata")).body == b"exempt"
    refused(engine, "urllib3", other, "pypi_public_minimum_age")
    assert engine.ask(address(old, "urllib3")).status == 200
    engine.later(2 * DAY + 9 * 3600)  # the evening of the day
    assert engine.offers("urllib3") == {old.filename, exempt.filename}
    engine.later(3600 - 800)
    assert exempt.filename not in engine.kept()
    refused(engine, "urllib3", exempt, "pypi_public_minimum_age")
    assert engine.offers("urllib3") == {old.filename}


def test_an_exemption_that_ended_while_nothing_ran(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("urllib3", "2.9.1", day(0))
    options: dict[str, Any] = {"minimum_age": 300 * DAY, "exempt": [{"name": "urllib3", "until": until(2)}]}
    engine = start(**options)
    assert engine.ask(address(artifact, "urllib3")).status == 200
    assert artifact.filename in engine.kept()
    assert start(**options, now=NOW + DAY).kept() == {artifact.filename}
    refused(start(**options, now=NOW + 4 * DAY), "urllib3", artifact, "pypi_public_minimum_age")


def test_an_exemption_ends_for_what_another_process_fetched(start: Start, upstream: Upstream) -> None:
    """A warm-up, which has gone when the day comes."""
    artifact = upstream.add("urllib3", "2.9.1", day(0))
    options: dict[str, Any] = {"minimum_age": 300 * DAY, "exempt": [{"name": "urllib3", "until": until(2)}]}
    server = start(**options)
    warming = start(**options)
    assert warming.ask(address(artifact, "urllib3")).status == 200
    assert warming.kept() == {artifact.filename}
    server.later(DAY)
    assert server.kept() == {artifact.filename}
    server.later(2 * DAY)
    assert server.kept() == set()


def test_a_clock_that_was_ahead(start: Start, upstream: Upstream) -> None:
    """When it is set right, what it let through goes, and what was read then is not the news for ever."""
    old, young = upstream.add("lib", "1.0"), upstream.add("lib", "2.0", day(1))
    engine = start(minimum_age=7 * DAY, now=NOW + 300 * DAY)
    assert engine.offers("lib") == {old.filename, young.filename}
    assert engine.ask(address(young, "lib")).status == 200
    assert engine.kept() == {young.filename}
    engine.later(1)
    engine.later(-300 * DAY)
    assert engine.kept() == set()
    assert not (engine.cache / "simple/lib").exists()
    newer = upstream.add("lib", "1.1")
    assert engine.offers("lib") == {old.filename, newer.filename}


def advisory(name: str, versions: list[str], *ranges: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    described = [{"type": "ECOSYSTEM", "events": events} for events in ranges]
    package = {"ecosystem": "PyPI", "name": name}
    affected = [{"package": package, "versions": versions, "ranges": described}]
    return {"id": "MAL-2026-1", "affected": affected, **more}


def archive(*advisories: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as members:
        members.writestr("GHSA-1.json", json.dumps({**advisory("requests", ["1.0"]), "id": "GHSA-1"}))
        for number, document in enumerate(advisories):
            members.writestr(f"MAL-2026-{number}.json", json.dumps(document))
    return buffer.getvalue()


def publish(upstream: Upstream, *advisories: dict[str, Any]) -> str:
    """The advisories from now on; gives back their address."""
    content = archive(*advisories)
    upstream.wrong["/all.zip"] = lambda request: say(request, content, "application/zip")
    return upstream.url.replace("/simple/", "/all.zip")


def test_malware_also_when_it_is_kept_already(start: Start, upstream: Upstream) -> None:
    bad = upstream.add("lib", "1.1", metadata=b"bad")
    good = upstream.add("lib", "1.0")
    url = publish(upstream)
    engine = start(advisories_url=url)
    assert engine.mirror
    engine.mirror.refresh_advisories()
    assert engine.offers("lib") == {bad.filename, good.filename}
    for suffix in ("", ".metadata"):
        assert engine.ask(address(bad, "lib", suffix)).status == 200
    assert engine.ask(address(good, "lib")).status == 200
    publish(upstream, advisory("Lib", ["1.1.0"]))
    engine.now += 3600
    assert engine.mirror.advisories.due(engine.now)
    engine.mirror.refresh_advisories()
    assert engine.kept() == {good.filename}
    assert not (engine.cache / "simple/lib").exists()
    refused(engine, "lib", bad, "lib 1.1 is malicious: MAL-2026-1", "pypi_public_block_malware")
    assert engine.offers("lib") == {good.filename}
    # It is known at the next start, without the network; and a rule that was switched on later finds it in the cache as well.
    del upstream.wrong["/all.zip"]
    refused(start(advisories_url=url), "lib", bad, "MAL-2026-1")
    assert start(block_malware=False).ask(address(bad, "lib")).status == 200
    refused(start(advisories_url=url), "lib", bad, "MAL-2026-1")


def test_malware_goes_although_the_disk_is_full(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, other = upstream.add("lib"), upstream.add("other")
    engine = start(advisories_url=publish(upstream))
    assert engine.mirror
    engine.mirror.refresh_advisories()
    for name, artifact in (("lib", bad), ("other", other)):
        assert engine.ask(address(artifact, name)).status == 200
    assert engine.kept() == {bad.filename, other.filename}
    publish(upstream, advisory("lib", ["1.0"]), advisory("other", ["1.0"]))
    engine.now += 3600

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(engine.mirror.cache, "write", full)
        with suppress(OSError):
            engine.mirror.refresh_advisories()
        engine.later(1)
        assert engine.kept() == set()


def test_one_project_that_cannot_be_judged_keeps_no_malware_of_others(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["aaa", "lib", "zzz"]
    bad = [upstream.add(name) for name in names]
    engine = start(advisories_url=publish(upstream))
    assert engine.mirror
    engine.mirror.refresh_advisories()
    for name, artifact in zip(names, bad, strict=True):
        assert engine.ask(address(artifact, name)).status == 200
    assert len(engine.kept()) == 3
    publish(upstream, *(advisory(name, ["1.0"]) for name in names))
    engine.now += 3600
    drop = engine.mirror.cache.drop_file

    def broken(kept: Kept) -> None:
        if kept.project == "lib":
            raise OSError(5, "Input/output error")
        drop(kept)

    with monkeypatch.context() as patched:
        patched.setattr(engine.mirror.cache, "drop_file", broken)
        engine.mirror.refresh_advisories()
        assert engine.kept() == {bad[1].filename}
        engine.later(1)
    engine.later(1)
    assert engine.kept() == set()


@pytest.mark.parametrize("when", ["start", "tick"])
def test_one_project_that_cannot_be_judged_keeps_no_others_as_they_are(
    start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    names = ["aaa", "lib", "zzz"]
    files = [upstream.add(name) for name in names]
    engine = start()
    for name, artifact in zip(names, files, strict=True):
        assert engine.ask(address(artifact, name)).status == 200
    assert len(engine.kept()) == 3
    drop = Cache.drop_file

    def broken(cache: Cache, kept: Kept) -> None:
        if kept.project == "lib":
            raise OSError(5, "Input/output error")
        drop(cache, kept)

    monkeypatch.setattr(Cache, "drop_file", broken)
    if when == "start":
        again = start(reserved=names)
    else:
        assert engine.mirror
        again = engine
        for name in names:
            (engine.cache / f"listings/{name}.json").unlink()
        engine.later(-100)
    assert again.kept() == {files[1].filename}
    assert not list(again.cache.glob("simple/lib/*"))


@pytest.mark.parametrize(
    ("versions", "events", "malicious"),
    [
        ([], [], "1.0 1.5 2.0 nonsense"),
        (["1.5"], [], "1.5"),
        (["nonsense"], [], "nonsense"),
        ([], [{"introduced": "0"}], "1.0 1.5 2.0 nonsense"),
        ([], [{"introduced": "1.5"}], "1.5 2.0 nonsense"),
        ([], [{"introduced": "0"}, {"fixed": "1.5"}], "1.0 nonsense"),
        ([], [{"introduced": "0"}, {"last_affected": "1.5"}], "1.0 1.5 nonsense"),
        ([], [{"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "1.0.1"}], "1.0 2.0 nonsense"),
    ],
)
def test_which_releases_an_advisory_means(
    start: Start, upstream: Upstream, versions: list[str], events: list[dict[str, str]], malicious: str
) -> None:
    document = advisory("lib", versions, *([events] if events else []))
    engine = start(advisories_url=publish(upstream, document, {**advisory("other", []), "withdrawn": "2026"}))
    assert engine.mirror
    engine.mirror.refresh_advisories()
    judge = engine.mirror.advisories.malicious
    assert [v for v in ("1.0", "1.5", "2.0", "nonsense") if judge("lib", v)] == malicious.split()
    assert not judge("other", "1.0")
    assert not judge("requests", "1.0")


def test_without_advisories_nothing_is_known_to_be_harmless(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    url = upstream.url.replace("/simple/", "/all.zip")
    engine = start(advisories_url=url)
    assert engine.mirror
    for content in (b"no zip", archive()[:-30], b""):
        upstream.wrong["/all.zip"] = lambda request, content=content: say(request, content)  # type: ignore[misc]
        with pytest.raises(Exception, match="advisories"):
            engine.mirror.refresh_advisories()
        assert engine.ask("/simple/lib/").status == 503
        refused(engine, "lib", artifact, "advisories", status=503)
    publish(upstream)
    engine.mirror.refresh_advisories()
    assert engine.offers("lib")
    assert start().mirror.health()["advisories"] == "no advisories_url: malware is not looked for"  # type: ignore[union-attr]


def test_what_the_upstream_has_in_quarantine(start: Start, upstream: Upstream) -> None:
    artifact = upstream.add("lib")
    engine = start()
    assert engine.ask(address(artifact, "lib")).status == 200
    assert engine.kept() == {artifact.filename}
    upstream.page = {"project-status": {"status": "quarantined", "reason": "looked at"}}
    engine.later(600)
    assert engine.ask("/simple/lib/").status == 403
    refused(engine, "lib", artifact, "quarantined")


def test_whether_a_name_is_taken(start: Start, upstream: Upstream) -> None:
    upstream.add("requests")
    engine = start()
    assert json.loads(engine.ask("/exists/requests").body) == {"upstream": "pypi"}
    assert engine.ask("/exists/nobody").status == 404
    upstream.down = True
    assert engine.ask("/exists/somebody").status == 502
    assert engine.ask("/exists/requests").status == 200


def test_whether_a_name_is_taken_is_not_known_without_an_upstream(start: Start, upstream: Upstream) -> None:
    upstream.add("requests")
    assert start().offers("requests")
    engine = start(packages="cached", reserved=["acme-*"])
    asked = len(upstream.asked)
    assert json.loads(engine.ask("/exists/requests").body) == {"upstream": "pypi"}
    assert engine.ask("/exists/acme-tool").status == 404
    reply = engine.ask("/exists/nobody")
    assert (reply.status, "not known" in reply.reason) == (503, True), reply
    assert len(upstream.asked) == asked
