"""daemon.json: what cannot be read is named with its place, what others wrote stays, what we wrote goes when it is not wanted."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import docker_host
import pytest


def file(data: bytes | dict[str, Any]) -> str:
    return b64encode(json.dumps(data).encode() if isinstance(data, dict) else data).decode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{\n  'a': 1\n}", "is no JSON: Expecting property name enclosed in double quotes in line 2, column 3"),
        (b'{"a": 1,}', "is no JSON: "),
        (b'{"a": 1} {"b": 2}', "is no JSON: Extra data in line 1, column 10"),
        (b'["a"]', 'holds no JSON object but ["a"]'),
        (b"null", "holds no JSON object but null"),
        ("{}".encode("utf-16"), "byte order mark"),
        ("{}".encode("utf-8-sig"), "byte order mark"),
        ('{"a": "ü"}'.encode("latin-1"), "is not UTF-8 at byte 8"),
        (b" \n", "is no JSON: "),
        (b"", ""),
        (b"{}", ""),
        ('{"a": "ü"}'.encode(), ""),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(data: bytes, says: str) -> None:
    found = docker_host.problem(file(data))
    assert found.startswith(says) or says in found
    assert bool(found) == bool(says)


@pytest.mark.parametrize(
    ("present", "added", "wanted", "result"),
    [
        ({}, {}, {"a": 1}, {"a": 1}),
        ({"theirs": 1}, {}, {"a": 1}, {"theirs": 1, "a": 1}),
        ({"theirs": 1, "a": 1}, {"a": 1}, {}, {"theirs": 1}),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 5}, {"a": 1}, {}, {"a": 5}),  # somebody has changed it since: theirs
        ({"a": 1}, {}, {}, {"a": 1}),  # was there before us
        ({"a": {"theirs": 1, "b": 2}}, {"a": {"b": 2}}, {}, {"a": {"theirs": 1}}),
        ({"a": {"b": 2}}, {"a": {"b": 2}}, {}, {}),
        ({"a": {"b": 2, "c": 3}}, {"a": {"b": 2, "c": 3}}, {"a": {"c": 4}}, {"a": {"c": 4}}),
        ({"a": {"theirs": 1}}, {}, {"a": {"b": 2}}, {"a": {"theirs": 1, "b": 2}}),
        ({"a": {}}, {"a": {"b": 1}}, {}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": 2}, {"a": 2}),
        ({"l": [1, 2]}, {"l": [1, 2]}, {"l": [2]}, {"l": [2]}),
    ],
)
def test_merging(
    present: dict[str, Any], added: dict[str, Any], wanted: dict[str, Any], result: dict[str, Any]
) -> None:
    assert docker_host.merged(file(present), added, wanted) == result


def test_notes_that_are_damaged_are_none() -> None:
    assert [docker_host.parsed(file(data)) for data in (b"{", b"[]", b"\xff", b"")] == [{}] * 4
    assert docker_host.parsed(file({"users": ["a"]})) == {"users": ["a"]}


def test_settings_that_differ() -> None:
    one = {"same": {"a": [1]}, "other": [1], "gone": None}
    assert docker_host.differing(one, {"same": {"a": [1]}, "other": [2], "new": None}) == ["gone", "new", "other"]


@pytest.mark.parametrize(
    ("says", "old"),
    [
        ("2.40.3", False),
        ("2.18.0", False),
        ("2.9.9", True),
        ("2.17.99", True),
        ("github.com/docker/buildx v2.20.1 abc", False),
        ("", True),
        ("docker: 'compose' is not a docker command.", True),
    ],
)
def test_versions_are_compared_as_numbers(says: str, old: bool) -> None:
    assert docker_host.due([PLUGIN], {"compose": {"stdout": says}}, {}) == ([PLUGIN] if old else [])


PLUGIN = {"name": "compose", "minimum": "2.18.0", "path": "/p", "checksum": "sha256:aa"}


def test_a_file_of_ours_follows_its_checksum_and_one_of_the_distribution_s_stays() -> None:
    new, old = {"compose": {"stdout": "2.40.3"}}, {"compose": {"stdout": "2.1.0"}}
    assert docker_host.due([PLUGIN], new, {}) == []
    assert docker_host.due([PLUGIN], new, {"/p": "bb"}) == [PLUGIN]
    assert docker_host.due([PLUGIN], old, {"/p": "aa"}) == []  # nothing newer is to be had
