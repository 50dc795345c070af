"""New images: tried beside what runs, switched to when they serve, and else nothing was switched, or what ran is back."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .lab import Edge, Lab, wait_until
from .traffic import Traffic, traffic

pytestmark = pytest.mark.scenario("default")


def appended(module: str, code: str) -> str:
    """A line of a Dockerfile: a module of the image that does something more when it is imported."""
    encoded = b64encode(f"\n{code}\n".encode()).decode()
    return f'RUN echo {encoded} | base64 -d >>"$(python3 -c "import {module}; print({module}.__file__)")"'


# What clients would notice at once, and no health check does.
LETS_ALL_IN = appended("bcrypt", "checkpw = lambda *_: True")
# Starts once, which is beside what runs.
STARTS_ONCE = appended(
    "gunicorn",
    """
import os
if os.path.exists("/data/index/records"):
    if os.path.exists("/data/index/.tried"):
        os._exit(1)
    open("/data/index/.tried", "w").close()
""",
)


def identities(lab: Lab) -> dict[str, tuple[str, str]]:
    return {name: (container["Id"], container["Image"]) for name, container in lab.containers().items()}


@contextmanager
def offered(lab: Lab, service: str, lines: str) -> Generator[str]:
    """The registry has another image under the service's name, made from the one that runs. Yields the name."""
    name, identity = lab.containers()[service]["Config"]["Image"], lab.containers()[service]["Image"]
    recipe = b64encode(f"FROM kept\nUSER 0\n{lines}\n".encode()).decode()
    build = f"docker tag {identity} kept && echo {recipe} | base64 -d | docker build --quiet --tag {name} -"
    lab.server.check_output(f"{build} && docker push {name} && docker tag kept {name}")
    try:
        yield name
    finally:
        lab.server.check_output(f"docker tag kept {name} && docker push {name} && docker image rm kept")


def upgrade(lab: Lab, *arguments: str, **variables: Any) -> tuple[int, str]:
    run = lab.site(*arguments, playbook="playbooks/upgrade.yml", **variables)
    return run.returncode, " ".join(run.stdout.split())


def nobody_noticed(seen: Traffic) -> None:
    """No read failed, and nothing that was acknowledged is lost."""
    assert seen.reads.bad == [] and len(seen.reads.good) > 50
    assert seen.acknowledged and seen.lost() == []


def nothing_left(lab: Lab) -> bool:
    return "candidate" not in lab.server.check_output("docker ps --all && docker network ls")


def test_a_newer_image_is_told_of_tried_and_switched_to(lab: Lab, edge: Edge, tmp_path: Path) -> None:
    before = identities(lab)
    with offered(lab, "nginx", "LABEL generation=2") as name, traffic(edge, tmp_path) as seen:
        code, said = upgrade(lab, "--check")
        assert code == 0 and f"{name} is now sha256:" in said, said
        assert identities(lab) == before
        code, said = upgrade(lab)
        assert code == 0 and re.search(r"a login, pages, \S+, an upload", said), said
        after = identities(lab)
        assert after["nginx"][1] != before["nginx"][1]
        assert after["pypiserver"][1] == before["pypiserver"][1]
        assert lab.containers()["nginx"]["Config"]["Labels"]["generation"] == "2"
        assert nothing_left(lab)
    nobody_noticed(seen)
    code, said = upgrade(lab)  # and back to the one that the registry has again
    again = identities(lab)
    assert code == 0 and again["nginx"][1] == before["nginx"][1], said
    # Nothing else is made anew. (Above it was, where the inventory had another name for the same image.)
    assert again["pypiserver"] == after["pypiserver"] and again["login"] == after["login"]


@pytest.mark.parametrize(
    ("service", "lines", "says"),
    [
        ("nginx", "RUN rm /usr/sbin/nginx", "nginx"),
        ("pypiserver", LETS_ALL_IN, "a wrong password: /simple/ answered 200"),
    ],
    ids=["does not start", "answers wrongly"],
)
def test_a_bad_image_is_never_switched_to(
    lab: Lab, edge: Edge, tmp_path: Path, service: str, lines: str, says: str
) -> None:
    before = identities(lab)
    with offered(lab, service, lines) as name, traffic(edge, tmp_path) as seen:
        code, said = upgrade(lab)
        assert code != 0 and says in said and "Nothing was switched" in said, said
    assert identities(lab) == before
    assert lab.server.check_output(f"docker image inspect --format '{{{{.Id}}}}' {name}") == before[service][1]
    assert nothing_left(lab)
    nobody_noticed(seen)


def test_an_image_that_fails_after_the_switch_gives_way_to_the_exact_old_one(
    lab: Lab, edge: Edge, tmp_path: Path
) -> None:
    before = {name: image for name, (_, image) in identities(lab).items()}
    try:
        with offered(lab, "pypiserver", STARTS_ONCE), traffic(edge, tmp_path) as seen:
            code, said = upgrade(lab, pypi_stack_start_timeout=40)
            assert code != 0 and "What ran before is back" in said, said
    finally:
        lab.server.check_output(f"rm -f {lab.project}/index/.tried")
    assert {name: image for name, (_, image) in identities(lab).items()} == before
    wait_until("every container is healthy", lab.healthy, 60)
    nobody_noticed(seen)
    assert edge.takes_uploads()
