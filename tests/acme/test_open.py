"""What is off by default: reading without a login, and removing through the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from system.lab import Edge, basic, right
from system.packages import make_wheel

REMOVE = b":action=remove_pkg&name=Acme.Open&version=1.0.0"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PATHS = ["/", "/simple/", "/simple/acme-open/", "/packages/{}", "/packages/{}.metadata"]


@pytest.fixture(scope="module")
def wheel(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_wheel("acme-open", "1.0", 2_000, tmp_path_factory.mktemp("wheel"))
    assert edge.upload(path, "alice").status in (200, 409)
    return path


@pytest.mark.parametrize("path", PATHS)
def test_everyone_reads(edge: Edge, wheel: Path, path: str) -> None:
    answer = edge.request(path.format(wheel.name))
    assert answer.status == 200 and answer.headers["cache-control"].startswith("private")
    assert edge.request(path.format(wheel.name), method="HEAD").status == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_password_is_still_wrong(edge: Edge, wheel: Path, path: str) -> None:
    assert edge.request(path.format(wheel.name), {"Authorization": basic("alice", "wrong")}).status == 401


@pytest.mark.parametrize(("headers", "status"), [({}, 401), (right("bob"), 403)], ids=["nobody", "reader"])
def test_only_publishers_change_anything(edge: Edge, wheel: Path, headers: dict[str, str], status: int) -> None:
    content_type = {"Content-Type": edge.form(wheel, "alice")[0]["Content-Type"]}
    assert edge.request("/", content_type | headers, "POST", edge.form(wheel, "alice")[1]).status == status
    assert edge.request("/", FORM | headers, "POST", REMOVE).status == status
    assert edge.request(f"/packages/{wheel.name}").status == 200


def test_a_publisher_removes(edge: Edge, wheel: Path) -> None:
    assert edge.request("/", FORM | right("alice"), "POST", REMOVE).status == 200
    assert edge.request(f"/packages/{wheel.name}").status == edge.request("/simple/acme-open/").status == 404
    assert edge.request("/", FORM | right("alice"), "POST", REMOVE).status == 404
