"""Public packages through the index: what gets in, what does not, and what is left when one of the parts is gone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .lab import ROOT, Edge, Lab, recap, right, wait_until
from .packages import make_wheel
from .upstream import LARGE

pytestmark = pytest.mark.scenario("default")

JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
ALICE = right("alice")
PIP = "~/public/bin/pip --no-input --disable-pip-version-check --no-cache-dir"
SETTLED = 3
"""Seconds after which nginx remembers whose a name is (owned.js): it can tell a change by its time then."""


def files(edge: Edge, project: str) -> list[dict[str, Any]]:
    answer = edge.request(f"/simple/{project}/", {**ALICE, **JSON})
    assert answer.status == 200, answer.reason
    listed: list[dict[str, Any]] = json.loads(answer.body)["files"]
    return listed


def fetch(edge: Edge, project: str) -> Any:
    """The first file of a project, as a client finds it."""
    return edge.request(files(edge, project)[0]["url"].replace("../..", ""), ALICE)


@pytest.fixture(scope="module")
def container(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.server.check_output("docker inspect pypi-public-public-1"))[0]
    return found


@pytest.fixture(scope="module")
def venv(lab: Lab) -> str:
    lab.client.check_output("python3 -m venv --clear ~/public")
    return "~/public"


@contextmanager
def stopped(lab: Lab, stop: str, start: str) -> Generator[None]:
    lab.server.check_output(stop)
    try:
        yield
    finally:
        lab.server.check_output(start)


@contextmanager
def without_engine(lab: Lab) -> Generator[None]:
    with stopped(lab, "docker stop --time 1 pypi-public-public-1", "docker start pypi-public-public-1"):
        yield
    wait_until("the engine is back", lambda: engine_state(lab) == "healthy", 120)


def engine_state(lab: Lab) -> str:
    asked = "docker inspect --format '{{.State.Health.Status}}' pypi-public-public-1"
    return str(lab.server.check_output(asked)).strip()


@contextmanager
def without_upstream(lab: Lab) -> Generator[None]:
    def systemctl(verb: str) -> None:
        lab.root_of_client.check_output(f"systemctl {verb} upstream")

    systemctl("stop")
    try:
        yield
    finally:
        systemctl("start")


@pytest.mark.parametrize("installer", [f"{PIP} install", "VIRTUAL_ENV=~/public uv pip install --no-cache"])
def test_one_index_has_public_and_private_packages(lab: Lab, venv: str, installer: str) -> None:
    lab.client.check_output(f"{installer} --force-reinstall hello survivor 2>&1")
    versions = lab.client.check_output(
        f"{venv}/bin/python -c 'import hello, survivor; print(hello.__version__, survivor.__version__)'"
    )
    assert versions == "1.1 1.0"  # the newest that is old enough, and ours


def test_no_stranger_gets_in_by_the_name_of_ours(lab: Lab, edge: Edge) -> None:
    """The upstream has 99.0 of both, of one of them since it is ours."""

    def asked(name: str) -> int:
        return str(lab.root_of_client.check_output("journalctl --unit upstream --no-pager")).count(name)

    before = asked("survivor")  # when the name was new: whether it is public
    add = "rm -rf /srv/upstream/simple/survivor && python3 /srv/upstream.py /srv/upstream survivor 99.0"
    lab.root_of_client.check_output(add)
    assert [file["filename"] for file in files(edge, "survivor")] == ["survivor-1.0-py3-none-any.whl"]
    for name in ("acme-next", "Acme_Next", "acme..next", "acme%2Dnext"):
        answer = edge.request(f"/simple/{name}/", ALICE)
        assert answer.status in (301, 303, 404) and b"99" not in answer.body, name
    assert asked("/simple/hello/") > 0
    assert (asked("survivor"), asked("acme")) == (before, 0)


def test_what_is_too_young_is_refused_with_the_rule(lab: Lab, edge: Edge, venv: str) -> None:
    assert [file["filename"] for file in files(edge, "hello")] == [
        f"hello-{v}-py3-none-any.whl" for v in ("1.0", "1.1")
    ]
    # Lock files skip the page.
    wheel = "hello-1.2-py3-none-any.whl"
    digest = lab.client.check_output(f"sha256sum /srv/upstream/simple/hello/{wheel}")[:16]
    url = f"{lab.url}/public/hello/{digest}/{wheel}"
    run = lab.client.run(f"{PIP} download --dest ~/none 'hello @ {url}' 2>&1")
    assert run.rc != 0 and "pypi_public_minimum_age is 7d" in run.stdout, run.stdout


def test_malware_is_refused_with_its_advisory(lab: Lab, edge: Edge, venv: str) -> None:
    answer = edge.request("/simple/evil/", ALICE)
    assert answer.status == 403 and "MAL-2026-1" in answer.reason, answer.reason
    wheel = "evil-1.0-py3-none-any.whl"
    digest = lab.client.check_output(f"sha256sum /srv/upstream/simple/evil/{wheel}")[:16]
    url = f"{lab.url}/public/evil/{digest}/{wheel}"
    run = lab.client.run(f"{PIP} download --dest ~/none 'evil @ {url}' 2>&1")
    assert run.rc != 0 and "MAL-2026-1" in run.stdout, run.stdout


def test_nobody_publishes_over_a_public_name(edge: Edge, tmp_path: Path) -> None:
    refused = edge.upload(make_wheel("fetched-later", "2.0", 0, tmp_path), "alice")
    assert refused.status == 403 and "pypi_public_reserved_names" in refused.reason, refused.reason
    allowed = edge.upload(make_wheel("acme-next", "2.0", 0, tmp_path), "erin")
    assert allowed.status == 200, allowed.reason


@pytest.mark.parametrize("path", ["/+public/simple/hello/", "/%2Bpublic/simple/hello/", "/exists/hello"])
def test_nothing_else_of_it_can_be_asked(edge: Edge, path: str) -> None:
    assert edge.request(path, ALICE).status == 404
    assert edge.request(path).status == 401


def test_a_password_is_asked_for(edge: Edge) -> None:
    path = files(edge, "hello")[0]["url"].replace("../..", "")
    assert edge.request("/simple/hello/").status == edge.request(path).status == 401
    assert (
        edge.request("/simple/not-fetched/").status
        == edge.request("/public/large/0123456789abcdef/x.whl").status
        == 401
    )


def test_a_kept_file_comes_without_engine_and_upstream(lab: Lab, edge: Edge) -> None:
    assert len(fetch(edge, "large").body) == LARGE
    with without_upstream(lab), without_engine(lab):
        again = fetch(edge, "large")
        assert again.status == 200 and len(again.body) == LARGE
        missing = edge.request("/simple/never-asked/", ALICE)
        assert missing.status == 502 and "private ones" in missing.reason.lower(), missing.reason
        assert edge.request("/simple/survivor/", ALICE).status == 200
    with without_upstream(lab):
        missing = edge.request("/simple/never-asked/", ALICE)
        assert missing.status == 502 and "lab" in missing.reason, missing.reason


def test_pip_and_uv_install_what_is_kept_without_the_upstream(lab: Lab, edge: Edge, venv: str) -> None:
    lab.client.check_output(f"{PIP} install --force-reinstall hello 2>&1")
    with without_upstream(lab):
        for installer in (f"{PIP} install", "uv pip install --python ~/public --no-cache"):
            lab.client.check_output(f"timeout 120 {installer} --force-reinstall hello survivor 2>&1")


def test_a_cache_is_filled_from_a_lock_file(lab: Lab, venv: str, tmp_path: Path) -> None:
    """Exactly what it names and is not ours, once, and then nobody needs the upstream."""
    public = "docker compose --project-directory /opt/pypi-public exec -T public python3 -m public_index"

    def kept() -> set[str]:
        return {line.split()[-1] for line in lab.server.check_output(f"{public} list").splitlines()}

    def warm() -> int:
        lock = tmp_path / "requirements.txt"
        lock.write_text("hello==1.0\nlarge==1.0\nsurvivor==1.0\n")
        wanted = {
            "warm_files": [os.path.relpath(lock, ROOT)],
            "warm_pythons": ["3.13"],
            "warm_platforms": ["manylinux_2_28_x86_64"],
        }
        run = lab.site(playbook="playbooks/warm.yml", **wanted)
        assert run.returncode == 0, run.stdout
        return recap(run.stdout)[lab.server_name]["changed"]

    lab.server.run(f"{public} purge hello; {public} purge large")
    before = kept()
    assert warm() == 1
    assert kept() - before == {"hello-1.0-py3-none-any.whl", "large-1.0-py3-none-any.whl"}
    assert warm() == 0
    with without_upstream(lab):
        lab.client.check_output(f"{PIP} install --force-reinstall hello==1.0 large survivor 2>&1")


def test_use_is_noted_and_nginx_cannot_write(lab: Lab, edge: Edge) -> None:
    """What was not used for the longest time makes room; a kept file is used without the engine."""
    found = "find $(docker volume inspect --format '{{.Mountpoint}}' pypi_public)/files/large -name '*.whl'"
    assert fetch(edge, "large").status == 200
    lab.server.check_output(f"touch -a -d '2 days ago' $({found})")
    assert fetch(edge, "large").status == 200
    age = float(lab.server.check_output(f"echo $(( $(date +%s) - $(stat -c %X $({found})) ))"))
    assert age < 3600
    assert lab.compose("exec -T nginx sh -c 'touch /data/known/public/x 2>&1 || true'").endswith("Permission denied")


def registers(lab: Lab) -> dict[str, str]:
    """Where names are entered, on the server."""
    packages = lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages")
    return {"packages/.owned": f"{packages}/.owned", "index/.owned": f"{lab.project}/index/.owned"}


def test_names_are_not_free_when_the_register_cannot_be_read(lab: Lab, edge: Edge) -> None:
    """As when the volume is not mounted."""
    packages = lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages")
    with stopped(lab, f"mv {packages}/.owned {packages}/.away", f"mv {packages}/.away {packages}/.owned"):
        answer = edge.request("/simple/never-seen/", ALICE)
        assert answer.status == 503, answer
        # nginx looks ten times a second whether what it knows of a name still holds.
        wait_until("what is kept is not given out", lambda: edge.request("/simple/hello/", ALICE).status == 503, 30)
        assert edge.request("/simple/survivor/", ALICE).status == 200
    assert edge.request("/simple/hello/", ALICE).status == 200


@pytest.mark.parametrize("register", ["packages/.owned", "index/.owned"])
def test_what_is_kept_is_not_given_out_under_a_name_that_became_ours(lab: Lab, edge: Edge, register: str) -> None:
    """nginx remembers that a name is others', until something is entered."""
    entry = f"{registers(lab)[register]}/hello"
    assert edge.request("/simple/hello/", ALICE).status == 200
    time.sleep(SETTLED)
    assert edge.request("/simple/hello/", ALICE).status == 200
    with stopped(lab, f"touch {entry}", f"rm {entry}"):
        wait_until("it is ours", lambda: edge.request("/simple/hello/", ALICE).status == 404, 30)
        time.sleep(SETTLED)
        assert edge.request("/simple/hello/", ALICE).status == 404
    wait_until("it is others'", lambda: edge.request("/simple/hello/", ALICE).status == 200, 30)


@pytest.mark.parametrize("register", ["packages/.owned", "index/.owned"])
def test_a_name_is_not_free_when_its_entry_cannot_be_read(lab: Lab, edge: Edge, register: str) -> None:
    """As on a disk that fails: a link to itself is an error, and not a file that is not there."""
    name = f"unreadable-{register[:5]}"
    entry = f"{registers(lab)[register]}/{name}"
    with stopped(lab, f"ln -s {name} {entry}", f"rm {entry}"):
        for path in (f"/simple/{name}/", f"/pypi/{name}/json", f"/public/{name}/{'0' * 16}/x-1.0-py3-none-any.whl"):
            assert edge.request(path, ALICE).status == 503, path
    assert edge.request(f"/simple/{name}/", ALICE).status == 404


def test_a_private_page_that_is_not_made_yet_is_no_404(lab: Lab, edge: Edge) -> None:
    """The index directory was emptied, and is made again from the packages."""
    pages = f"{lab.project}/index/simple"
    away = f"docker pause pypi-pypiserver-1 && mv {pages} {pages}.away && mkdir {pages}"
    with stopped(lab, away, f"rmdir {pages} && mv {pages}.away {pages} && docker unpause pypi-pypiserver-1"):
        answer = edge.request("/simple/survivor/", ALICE)
        assert (answer.status, "being made" in answer.reason) == (503, True), answer
    assert edge.request("/simple/survivor/", ALICE).status == 200


def test_a_killed_engine_comes_back(lab: Lab, edge: Edge, container: dict[str, Any]) -> None:
    pid = lab.server.check_output("docker inspect --format '{{.State.Pid}}' pypi-public-public-1")
    lab.server.check_output(f"kill -9 {pid}")
    wait_until(
        "another process is healthy",
        lambda: (
            engine_state(lab) == "healthy"
            and pid != lab.server.check_output("docker inspect --format '{{.State.Pid}}' pypi-public-public-1")
        ),
        120,
    )
    assert edge.request("/simple/hello/", ALICE).status == 200


def test_the_engine_has_nothing_of_ours(lab: Lab, container: dict[str, Any]) -> None:
    sources = {mount["Destination"]: mount for mount in container["Mounts"] if mount["Type"] != "tmpfs"}
    assert sorted(sources) == ["/cache", "/code/public_index", "/config"]
    assert [path for path, mount in sources.items() if mount["RW"]] == ["/cache"]
    assert sorted(container["NetworkSettings"]["Networks"]) == ["pypi-public_outside", "pypi_public"]
    settings = container["HostConfig"]
    assert (
        settings["ReadonlyRootfs"] and settings["CapDrop"] == ["ALL"] and settings["RestartPolicy"]["Name"] == "always"
    )
    assert not settings["PortBindings"] and container["Config"]["User"] not in ("", "0", "root")
    stack = lab.containers()
    assert all("pypi-public_outside" not in each["NetworkSettings"]["Networks"] for each in stack.values())
