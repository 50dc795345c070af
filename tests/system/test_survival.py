"""What must outlive reboots, crashes, upgrades and mistakes."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Generator
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any

import pytest

from .conftest import MakeWheel
from .lab import PASSWORDS, SURVIVOR, Answer, Edge, Lab, basic, recap, right
from .secrets import Secrets

SERVICES = ["nginx", "login", "pypiserver"]


def survivor(edge: Edge) -> str:
    answer = edge.request(f"/packages/{SURVIVOR}", right("alice"))
    assert answer.status == 200, answer
    return hashlib.sha256(answer.body).hexdigest()


@pytest.fixture(scope="module")
def digest(lab: Lab) -> str:
    """Of the survivor, as it was before it was uploaded."""
    return str(lab.client.check_output(f"sha256sum ~/{SURVIVOR}")).split()[0]


def test_the_package_from_before_the_reboot_installs(lab: Lab, edge: Edge, digest: str) -> None:
    assert survivor(edge) == digest
    lab.client.check_output(
        "python3 -m venv --clear ~/survivor"
        " && ~/survivor/bin/pip install --no-input --no-cache-dir --disable-pip-version-check survivor 2>&1"
    )
    assert lab.client.check_output("~/survivor/bin/python -c 'import survivor; print(survivor.__version__)'") == "1.0"


def test_compose_down_keeps_the_packages(lab: Lab, edge: Edge, digest: str) -> None:
    """Even with --volumes, which would take along what the project owns."""
    lab.compose("down --volumes 2>&1")
    assert not lab.compose("ps --all --quiet")
    lab.compose("up --detach --wait 2>&1")
    assert survivor(edge) == digest


@dataclass
class Upgrade:
    """One ordinary run with a new image and a new password, and what was there before it."""

    run: CompletedProcess[str]
    before: dict[str, Any]
    after: dict[str, Any]
    session: http.client.HTTPConnection
    late: Answer
    processes: str


NEW_PASSWORD = "erin-Changes-2023"


@pytest.fixture(scope="module")
def upgrade(lab: Lab, edge: Edge) -> Generator[Upgrade]:
    before = lab.containers()
    image = before["pypiserver"]["Config"]["Image"].removesuffix("-next")
    lab.server.check_output(f"docker tag {image} {image}-next")
    accounts = [
        {key: value for key, value in account.items() if account["name"] != "erin" or key != "password"}
        | ({"password": NEW_PASSWORD} if account["name"] == "erin" else {})
        for account in lab.of_server["accounts_later"]
    ]
    session = edge.session(timeout=300)
    assert edge.request("/simple/survivor/", right("erin"), session=session).status == 200
    with Secrets.watched_processes(lab) as processes:
        run = lab.site("-vvv", "--diff", pypi_users_accounts=accounts, pypi_stack_pypiserver_image=f"{image}-next")
    late = edge.request("/simple/survivor/", right("erin"))
    yield Upgrade(run, before, lab.containers(), session, late, processes.text)
    session.close()


@pytest.mark.scenario("default")
def test_a_new_image_recreates_only_what_it_is_for(upgrade: Upgrade) -> None:
    assert upgrade.run.returncode == 0, upgrade.run.stdout[-5000:]
    same = {service for service in SERVICES if upgrade.before[service]["Id"] == upgrade.after[service]["Id"]}
    assert same == {"nginx"}
    assert upgrade.before["nginx"]["State"]["Pid"] == upgrade.after["nginx"]["State"]["Pid"]
    assert upgrade.after["pypiserver"]["Config"]["Image"].endswith("-next")


@pytest.mark.scenario("default")
def test_a_new_image_keeps_the_packages(edge: Edge, upgrade: Upgrade, digest: str, make: MakeWheel) -> None:
    assert survivor(edge) == digest
    assert edge.upload(make("acme-after-upgrade", 2_000), "alice").status == 200


@pytest.mark.scenario("default")
def test_an_old_password_is_refused_from_the_first_request(edge: Edge, upgrade: Upgrade) -> None:
    """Also on a connection on which it was right a moment ago."""
    assert upgrade.late.status == 401
    assert edge.request("/simple/survivor/", {"Authorization": basic("erin", NEW_PASSWORD)}).status == 200
    try:
        status = edge.request("/simple/survivor/", right("erin"), session=upgrade.session).status
    except (http.client.HTTPException, OSError):
        return  # nginx has closed what was idle for long
    assert status == 401


@pytest.mark.scenario("default")
def test_a_run_that_changes_users_says_no_secret(lab: Lab, upgrade: Upgrade) -> None:
    secrets = Secrets.of(lab, [*PASSWORDS.values(), NEW_PASSWORD])
    assert secrets.found_in(upgrade.run.stdout + upgrade.run.stderr) == []
    assert "TASK [pypi_users" in upgrade.run.stdout and upgrade.processes.count("python") > 10
    assert secrets.found_in(upgrade.processes) == []


def test_a_bad_nginx_configuration_never_replaces_the_good_one(lab: Lab, edge: Edge) -> None:
    """A size that looks right to our validation and that nginx cannot take."""

    def state() -> tuple[str, int]:
        files = lab.server.check_output(f"find {lab.project}/nginx -type f -exec sha256sum {{}} +")
        return files, lab.containers()["nginx"]["State"]["Pid"]

    before = state()
    run = lab.site(
        *("--start-at-task", "Configure | Write the welcome page and the nginx configuration"),
        playbook="playbooks/server.yml",
        pypi_stack_max_upload_size=f"{10**30}m",
    )
    assert run.returncode != 0 and "client_max_body_size" in run.stdout, run.stdout[-5000:]
    assert recap(run.stdout)[lab.server_name]["failed"] == 1
    assert state() == before
    lab.compose("kill --signal HUP nginx 2>&1")  # what it would read now is still good
    assert edge.request("/simple/survivor/", right("alice")).status == 200
    assert state() == before


@pytest.mark.scenario("default")
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_power_cut_in_a_large_upload(lab: Lab, edge: Edge, make: MakeWheel, share: float) -> None:
    """The file is there, whole and on its page, or there is nothing; and the client may try again."""
    name = f"acme-cut-at-{int(share * 100)}"
    wheel = make(name, 300_000_000)
    headers, body = edge.form(wheel, "alice")
    lines = [
        f"{key}: {value}" for key, value in {"Host": edge.host_header, **headers, "Content-Length": len(body)}.items()
    ]
    with edge.connect() as connection:
        connection.sendall("\r\n".join(["POST / HTTP/1.1", *lines, "", ""]).encode())
        connection.sendall(memoryview(body)[: int(len(body) * share)])
        lab.cut_the_power()

    def found() -> tuple[bool, bool]:
        page = edge.request(f"/simple/{name}/", right("alice"))
        file = edge.request(f"/packages/{wheel.name}", right("alice"))
        assert {page.status, file.status} <= {200, 404}
        assert file.status == 404 or file.body == wheel.read_bytes()
        return wheel.name in page.body.decode(), file.status == 200

    assert found() in ((True, True), (False, False))
    assert share == 1.0 or found() == (False, False)
    assert edge.upload(wheel, "alice").status in (200, 409)
    assert found() == (True, True)
