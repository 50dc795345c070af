"""New images: tried beside what runs, switched to when they serve, and else nothing was switched, or what ran is back."""

from __future__ import annotations

import re
import threading
from base64 import b64encode
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from .lab import SURVIVOR, Edge, Lab, right, wait_until

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


@contextmanager
def reading(edge: Edge) -> Generator[Callable[[], tuple[int, list[str]]]]:
    """A client that reads all the time. Yields what tells how often, and what went wrong."""
    end, read, wrong = threading.Event(), [0], []

    def go() -> None:
        while not end.is_set():
            try:
                status = edge.request(f"/packages/{SURVIVOR}", right("alice")).status
                wrong.extend([] if status == 200 else [str(status)])
            except OSError as error:
                wrong.append(str(error))
            read[0] += 1
            end.wait(0.02)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield lambda: (read[0], wrong)
    finally:
        end.set()
        thread.join()


def upgrade(lab: Lab, *arguments: str, **variables: Any) -> tuple[int, str]:
    run = lab.site(*arguments, playbook="playbooks/upgrade.yml", **variables)
    return run.returncode, " ".join(run.stdout.split())


def nothing_left(lab: Lab) -> bool:
    return "candidate" not in lab.server.check_output("docker ps --all && docker network ls")


def test_a_newer_image_is_told_of_tried_and_switched_to(lab: Lab, edge: Edge) -> None:
    before = identities(lab)
    with offered(lab, "nginx", "LABEL generation=2") as name, reading(edge) as reads:
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
        count, wrong = reads()
    assert wrong == [] and count > 50
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
def test_a_bad_image_is_never_switched_to(lab: Lab, edge: Edge, service: str, lines: str, says: str) -> None:
    before = identities(lab)
    with offered(lab, service, lines) as name, reading(edge) as reads:
        code, said = upgrade(lab)
        assert code != 0 and says in said and "Nothing was switched" in said, said
        count, wrong = reads()
    assert identities(lab) == before
    assert lab.server.check_output(f"docker image inspect --format '{{{{.Id}}}}' {name}") == before[service][1]
    assert nothing_left(lab)
    assert wrong == [] and count > 50


def test_an_image_that_fails_after_the_switch_gives_way_to_the_exact_old_one(lab: Lab, edge: Edge) -> None:
    before = {name: image for name, (_, image) in identities(lab).items()}
    try:
        with offered(lab, "pypiserver", STARTS_ONCE), reading(edge) as reads:
            code, said = upgrade(lab, pypi_stack_start_timeout=40)
            assert code != 0 and "What ran before is back" in said, said
            count, wrong = reads()
    finally:
        lab.server.check_output(f"rm -f {lab.project}/index/.tried")
    assert {name: image for name, (_, image) in identities(lab).items()} == before
    wait_until("every container is healthy", lab.healthy, 60)
    assert wrong == [] and count > 50
    assert edge.takes_uploads()
