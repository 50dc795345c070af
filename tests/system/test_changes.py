"""Variables that change on an index that runs: nothing is lost from sight, and a run that fails leaves what ran running."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from .lab import Edge, Lab, recap, right, wait_until
from .traffic import traffic

DAEMON = "/etc/docker/daemon.json"


@contextmanager
def nothing_changes(lab: Lab, edge: Edge) -> Generator[None]:
    """The same containers, which have run on, and the same files of the project and of the engine."""

    def state() -> tuple[dict[str, Any], str]:
        containers = {name: (c["Id"], c["State"]["Pid"]) for name, c in lab.containers().items()}
        project = " ".join(f"{lab.project}/{part}" for part in ("compose.yml", "nginx", "users", "tls"))
        files = f"find {project} /etc/docker -type f -exec sha256sum {{}} +"
        return containers, lab.server.check_output(files)

    before = state()
    yield
    assert state() == before
    assert edge.request("/simple/survivor/", right("alice")).status == 200


def server(lab: Lab, **variables: Any) -> tuple[CompletedProcess[str], str]:
    """A run, and what it said on one line."""
    run = lab.site(playbook="playbooks/server.yml", **variables)
    return run, " ".join(run.stdout.split())


def test_what_would_be_lost_from_sight_is_refused_with_the_way_to_move_it(lab: Lab, edge: Edge) -> None:
    """And in the same breath a port that something else uses."""
    lab.server.check_output("systemd-run --collect --unit busy python3 -m http.server 8444 --bind 127.0.0.1")
    try:
        wait_until("it listens", lambda: lab.server.run("curl -s -o /dev/null http://127.0.0.1:8444/").rc == 0, 10)
        with nothing_changes(lab, edge):
            run, said = server(
                lab,
                pypi_stack_packages="/srv/elsewhere",
                pypi_users_directory="/srv/users",
                pypi_tls_directory="/srv/tls",
                pypi_stack_https_port=8444,
            )
    finally:
        lab.server.check_output("systemctl stop busy")
    packages = lab.of_server.get("pypi_stack_packages", "pypi_packages")
    assert f"pypi_stack_packages is /srv/elsewhere, but this host has the packages in {packages}," in said, said
    assert f"docker compose --project-directory {lab.project} down && mkdir -p /srv/elsewhere && find " in said
    assert (
        f"pypi_stack_users_directory is /srv/users, but this host has the users' hashes in {lab.project}/users," in said
    )
    assert (
        f"pypi_stack_tls_directory is /srv/tls, but this host has the certificate and its key in {lab.project}/tls,"
        in said
    )
    assert "port 8444 is to be the index's, but python3 (process " in said
    assert recap(run.stdout)[lab.server_name]["changed"] == 0
    assert lab.server.run("ls /srv/elsewhere /srv/users /srv/tls").stdout == ""


@pytest.mark.scenario("default")
def test_another_ca_than_the_clients_trust_is_refused(lab: Lab, edge: Edge, tmp_path: Path) -> None:
    """Another checkout, say, which would make one of its own."""
    with nothing_changes(lab, edge):
        _, said = server(lab, pypi_ca_directory=str(tmp_path))
    assert f"the one in pypi_tls_ca_directory, {tmp_path} (it has none)." in said, said
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_json_that_cannot_be_read_is_named_before_anything_changes(lab: Lab, edge: Edge) -> None:
    lab.server.check_output(f"mv {DAEMON} {DAEMON}.kept || true; printf '{{\\n  oops' >{DAEMON}")
    try:
        with nothing_changes(lab, edge):
            run, said = server(lab, pypi_stack_log_max_files=9)
    finally:
        lab.server.check_output(f"rm {DAEMON}; mv {DAEMON}.kept {DAEMON} || true")
    assert f"{DAEMON} on {lab.server_name} is no JSON: " in said and "in line 2, column 3. Mend the file" in said, said
    assert recap(run.stdout)[lab.server_name]["changed"] == 0


@pytest.mark.scenario("default")
def test_an_image_that_is_not_to_be_had_changes_nothing(lab: Lab, edge: Edge) -> None:
    with nothing_changes(lab, edge):
        run, said = server(lab, pypi_stack_nginx_image="nginx:none", pypi_stack_nginx_memory="200m")
    assert "manifest" in said and "nginx:none" in said, said
    assert recap(run.stdout)[lab.server_name]["changed"] == 0


@pytest.mark.scenario("default")
def test_an_image_that_does_not_start_gives_way_to_what_ran(lab: Lab, edge: Edge) -> None:
    """nginx's instead of pypiserver's: there is no gunicorn in it."""

    def configuration() -> str:
        return str(
            lab.server.check_output(
                f"find {lab.project}/compose.yml {lab.project}/nginx -type f -exec sha256sum {{}} +"
            )
        )

    images = {name: c["Config"]["Image"] for name, c in lab.containers().items()}
    before = configuration()
    _, said = server(lab, pypi_stack_pypiserver_image=images["nginx"], pypi_stack_max_upload_size="17m")
    assert "gunicorn" in said and "What ran before is back." in said, said
    assert {name: c["Config"]["Image"] for name, c in lab.containers().items()} == images
    assert configuration() == before
    wait_until("what ran before is healthy", lab.healthy, 60)
    assert edge.request("/simple/survivor/", right("alice")).status == 200


def test_a_setting_that_the_engine_does_not_know_is_taken_back(lab: Lab, edge: Edge) -> None:
    """Engines from 23 on judge it before they get it; older ones do not start with it."""
    daemon = f"cat {DAEMON} /etc/docker/docker_host.json 2>/dev/null || true"
    before = lab.server.check_output(daemon)
    run, said = server(lab, docker_host_daemon_config={"no-such-setting": 1})
    assert run.returncode != 0 and "don't match any configuration option: no-such-setting" in said, said
    assert lab.server.check_output(daemon).removesuffix("{}") == before
    wait_until("every container is healthy", lab.healthy, 120)
    assert edge.request("/simple/survivor/", right("alice")).status == 200


@pytest.mark.scenario("default")
def test_an_image_that_became_another_under_its_name_is_refused(lab: Lab, edge: Edge) -> None:
    nginx, other = (lab.containers()[name]["Config"]["Image"] for name in ("nginx", "pypiserver"))
    lab.server.check_output(f"docker tag {nginx} kept && docker tag {other} {nginx}")
    try:
        with nothing_changes(lab, edge):
            _, said = server(lab)
    finally:
        lab.server.check_output(f"docker tag kept {nginx} && docker image rm kept")
    assert f"pypi_stack_nginx_image is {nginx}, but that name stands for another image" in said, said


@pytest.mark.scenario("default")
def test_a_reload_that_nginx_refuses_ends_with_another_nginx(lab: Lab, edge: Edge, tmp_path: Path) -> None:
    """`nginx -t` does not compare a shared zone's key with the one in use; a new version of ours may have another."""

    def reload() -> str:
        return str(lab.server.check_output(f"sh {lab.project}/reload 2>&1"))

    def nginx() -> str:
        return str(lab.containers()["nginx"]["Id"])

    file, first = f"{lab.project}/nginx/nginx.conf", nginx()
    assert reload() == "" and nginx() == first
    lab.server.check_output(
        f"cp --preserve {file} {file}.kept && sed -i 's/network zone=uploads_by/binary_remote_addr zone=uploads_by/' {file}"
    )
    try:
        with traffic(edge, tmp_path) as seen:
            said = reload()
        assert "is replaced" in said and '"uploads_by" uses the "$binary_remote_addr" key while' in said, said
        assert nginx() != first
        assert not seen.reads.bad
    finally:
        lab.server.check_output(f"mv {file}.kept {file} && sh {lab.project}/reload")
    wait_until("every container is healthy", lab.healthy, 60)
