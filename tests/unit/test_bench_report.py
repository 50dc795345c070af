"""Which targets count as reached, and that nothing which was not measured is passed over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.report import DIRECT, OURS, TLS, Public, Size, Target, number, public_targets, render, results_table, targets

FEW = Size(
    files=1000,
    rates={
        "small page": {
            "limit": 1000,
            "limit, TLS": 800,
            OURS: 800,
            TLS: 700,
            "by hand": 20,
            "by hand, cached": 30,
            "devpi": 10,
        },
        "500 versions": {"limit": 100, OURS: 90, TLS: 80, "by hand": 2, "by hand, cached": 2, "devpi": 1},
        "JSON page": {"limit": 1000, OURS: 850},
        "1 kB file": {"limit": 1000, OURS: 799},
    },
    cpu={},
    speed={"100 MB file": {"limit": 100, OURS: 95, TLS: 50}},
    clients={},
    uploads={OURS: 1, "by hand": 5},
    burst={OURS: {"errors": 0, "p50": 0.5, "p95": 1.0}, TLS: {"errors": 2}},
    memory={OURS: 150},
    index_seconds={},
)
MANY = replace(FEW, files=30_000, uploads={OURS: 1.31, "by hand": 13.1})

PUBLIC = Public(
    packages=50,
    seconds={
        "uv pip install, 50 packages, cold": {DIRECT: 1, OURS: 1.2, "peryx": 0.5},
        "uv pip install, 50 packages, warm": {DIRECT: 1, OURS: 0.9, "peryx": 0.8, "devpi": 2},
        "pip install, 50 packages, cold": {DIRECT: 1, OURS: 1.3},
        "pip install, 50 packages, warm": {DIRECT: 1, OURS: 2},
    },
    rates={
        "page of 500 versions, public": {OURS: 95, "peryx": 200},
        "page of 500 versions, private": {OURS: 100},
        "1 kB file, public": {OURS: 94},
        "1 kB file, private": {OURS: 100},
    },
    crowd={"times that it left the upstream": {OURS: 1, "devpi": 100}},
    memory={OURS: 150},
)


def verdict(what: str) -> str:
    [found] = [target for target in targets([FEW, MANY]) if target.what == what]
    return found.verdict.strip("*")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("small page, ours against limit, 1,000 files", "reached"),
        ("small page, ours, TLS against limit, 1,000 files", "missed"),
        ("small page, ours, TLS against limit, TLS, 1,000 files", "reached"),
        ("1 kB file, ours against limit, 1,000 files", "missed"),
        ("1 kB file, ours, TLS against limit, 1,000 files", "not measured"),
        ("100 MB file, ours against limit, 30,000 files", "reached"),
        ("pages, times by hand, 1,000 files", "reached"),
        ("pages, times by hand, cached, 1,000 files", "missed"),  # 45 times on one page, 27 on the other
        ("pages, times devpi, 1,000 files", "reached"),
        ("pages at 30,000 files against 1,000", "reached"),
        ("upload at 30,000 files against 1,000", "missed"),
        ("uploads, times by hand, 30,000 files", "reached"),
        ("uploads, times devpi, 30,000 files", "not measured"),
        ("burst: errors, ours, 1,000 files", "reached"),
        ("burst: errors, ours, TLS, 1,000 files", "missed"),
        ("burst: p95 in seconds, ours, 1,000 files", "reached"),
        ("burst: p95 in seconds, ours, TLS, 1,000 files", "not measured"),
        ("memory at rest in MiB, whole stack, 1,000 files", "reached"),
    ],
)
def test_verdicts(what: str, expected: str) -> None:
    assert verdict(what) == expected


def test_the_count_is_of_what_was_reached() -> None:
    text = render([FEW, MANY], {"date": "today"}, "Made by a test.")
    rows = [line for line in text.splitlines() if line.endswith("| reached |")]
    assert f"{len(rows)} of {len(targets([FEW, MANY]))} reached." in text
    assert "Made by a test." in text and "| date | today |" in text and "## 30,000 files" in text


def test_the_ratio_to_the_limit_stands_beside_the_figure() -> None:
    line = results_table(FEW.rates, "work", "limit").splitlines()[2]
    assert line == "| small page | 1,000 | 800 (0.8) | 800 (0.8) | 700 (0.7) | 20 (0.02) | 30 (0.03) | 10 (0.01) |"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0"), (12345.6, "12,346"), (99.94, "99.9"), (0.0123, "0.0123")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_exactly_the_wanted_value_is_enough() -> None:
    assert Target("x", 1, 1.0).verdict == Target("x", 1, 1.0, at_most=True).verdict == "reached"


def test_verdicts_on_public_packages() -> None:
    assert {target.what: target.verdict.strip("*") for target in public_targets(PUBLIC)} == {
        "page of 500 versions, public and cached against private": "reached",
        "1 kB file, public and cached against private": "missed",
        "uv pip install, 50 packages, cold, against PyPI itself": "reached",
        "uv pip install, 50 packages, warm, against the best of the others": "missed",
        "pip install, 50 packages, cold, against PyPI itself": "missed",
        "pip install, 50 packages, warm, against the best of the others": "not measured",  # no other one could
        "page of pydantic-core, cold, seconds": "not measured",
        "the crowd: times that it left the upstream": "reached",
        "the crowd: clients that got an error": "not measured",
    }
    assert "| 1 kB file, public | 94 |" in render([], {}, "", PUBLIC)
