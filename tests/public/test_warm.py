"""Filled beforehand: exactly what is wanted, once, and then the upstream may go."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from index.artifacts import sdist, wheel

from public_index.__main__ import main
from public_index.warm import best

from .conftest import Start, address, described, document
from .upstream import OLD, Artifact, Upstream

LINUX = [
    "cp312-cp312-manylinux_2_28_x86_64",
    "cp312-cp312-manylinux_2_17_x86_64",
    "cp39-abi3-manylinux_2_17_x86_64",
    "py3-none-any",
]
TARGETS = {"linux": LINUX, "windows": ["cp312-cp312-win_amd64", "py3-none-any"]}

Run = Any


@pytest.fixture
def run(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    def run(*wanted: dict[str, Any], **options: Any) -> tuple[int, list[str], str]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(document([described(upstream)], tmp_path / "cache", **options)))
        monkeypatch.setenv("PUBLIC_CONFIG", str(path))
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"targets": TARGETS, "wanted": wanted})))
        status = main(["warm"])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run


def built(upstream: Upstream, name: str, tags: str) -> Artifact:
    """A wheel with these tags."""
    filename, content = wheel(name, content=os.urandom(100))
    artifact = Artifact(filename.replace("py3-none-any", tags), content, OLD, {}, b"Name: x")
    upstream.projects.setdefault(name, []).append(artifact)
    return artifact


def test_exactly_what_is_wanted(start: Start, upstream: Upstream, run: Run) -> None:
    new, old, windows, _mac = (
        built(upstream, "numpy", f"cp312-cp312-{platform}")
        for platform in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "win_amd64", "macosx_14_0_arm64")
    )
    pure, _other = upstream.add("requests"), upstream.add("requests", "2.0")
    source = Artifact(*sdist("source"), OLD)
    upstream.projects["source"] = [source]
    wanted = [
        {"name": "NumPy", "version": "1.0.0", "targets": ["linux"]},
        {"name": "requests", "version": "1.0", "sha256": [pure.sha256]},
        {"name": "source", "version": "1.0"},
    ]
    status, lines, said = run(*wanted)
    assert (status, said, len(lines)) == (0, "", 4)
    assert "4 of 4, 0 of 0 MB: " in lines[-1]
    engine = start(packages="cached")
    upstream.down = True
    assert engine.kept() == {new.filename, f"{new.filename}.metadata", pure.filename, source.filename}
    assert engine.offers("numpy") == {new.filename}
    asked = len(upstream.asked)
    assert run(*wanted) == (0, [], "")  # everything is there
    assert len(upstream.asked) == asked
    upstream.down = False
    assert run({"name": "numpy", "version": "1.0", "sha256": [old.sha256, windows.sha256]})[0] == 0
    assert upstream.count(f"/files/{new.filename}") == 1
    upstream.down = True
    # Offline the page says what there is, as soon as it is there.
    assert engine.offers("numpy") == {new.filename, old.filename, windows.filename}
    assert engine.ask(address(old, "numpy")).body == old.content


def test_what_cannot_be_fetched_is_said_and_the_rest_is_fetched(start: Start, upstream: Upstream, run: Run) -> None:
    good = upstream.add("good")
    upstream.add("acme-lib")
    upstream.add("young", uploaded="2999-01-01T00:00:00Z")
    built(upstream, "mac", "cp312-cp312-macosx_14_0_arm64")
    bad = upstream.add("bad")
    upstream.wrong[f"/files/{bad.filename}"] = lambda request: request.send_error(500)
    names = ("acme-lib", "young", "mac", "bad", "good", "nobody", "../x")
    wanted = [{"name": name, "version": "1.0", "targets": ["linux"]} for name in names]
    status, lines, said = run(*wanted, {"name": "good", "version": "9"}, reserved=["acme-*"], minimum_age=604_800)
    assert status == 1
    assert len(lines) == 1
    for words in (
        "acme-lib 1.0: acme-lib is reserved",
        "young-1.0-py3-none-any.whl: young 1.0 is 0s old",
        "mac 1.0: nothing of it is for linux",
        "bad-1.0-py3-none-any.whl: pypi answers 500",
        "nobody 1.0: pypi has no project nobody",
        "no project name",
        "good 9: upstream lists no such release",
    ):
        assert words in said, said
    assert not [path for path, _ in upstream.asked if "acme" in path]
    assert start().kept() == {good.filename}


def test_too_much_for_the_cache_is_said(upstream: Upstream, run: Run) -> None:
    for number in range(5):
        upstream.add("lib", f"{number}.0", content=os.urandom(100_000))
    wanted = [{"name": "lib", "version": f"{number}.0"} for number in range(5)]
    status, _lines, said = run(*wanted, cache_size=300_000)
    assert status == 1
    assert "has no room: pypi_public_cache_size" in said


@pytest.mark.parametrize(
    "wanted", [[{"version": "1"}], [{"name": 7, "version": "1"}], [{"name": "x", "version": "1", "targets": ["y"]}]]
)
def test_a_document_of_another_form(run: Run, wanted: list[Any]) -> None:
    assert run(*wanted)[0] == 1


def test_the_best_wheel(upstream: Upstream) -> None:
    from public_index.listing import File

    def file(name: str) -> File:
        return File(name, "1.0", "", "")

    names = [
        "x-1.0-py3-none-any.whl",
        "x-1.0-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "x-1.0.zip",
        "x-1.0.tar.gz",
    ]
    names += ["x-1.0-1-cp312-cp312-manylinux_2_17_x86_64.whl", "x-1.0-10b-cp312-cp312-manylinux_2_17_x86_64.whl"]
    names += ["x-1.0-cp312-cp312-manylinux_2_17_x86_64.whl", "x-1.0-cp312-cp312-manylinux_2_28_x86_64.whl"]
    order = [7, 5, 4, 6, 1, 0, 3, 2]
    for place, number in enumerate(order):
        left = [file(names[other]) for other in order[place:]]
        found = best(left[::-1], LINUX)
        assert found
        assert found.filename == names[number]
    assert best([], LINUX) is None
