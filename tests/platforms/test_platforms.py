"""An engine for every system that is supported, whoever it came from, and a firewall that leaves it alone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import testinfra  # type: ignore[import-untyped]
from system.lab import Lab, recap, wait_until

from .conftest import ADMINISTRATORS

ASK = "curl --silent --output /dev/null --max-time 3 --write-out '%{{http_code}}' http://{}:{}/"


def neighbour_of(host: str) -> str:
    return next(name for name in ADMINISTRATORS if name != host)


def asked(lab: Lab, host: str, port: int) -> str:
    """What another host of the network is answered: a status, or 000."""
    other = testinfra.get_host(f"docker://{lab.container(neighbour_of(host))}")
    return str(other.run(ASK.format(lab.address(host), port)).stdout)


@contextmanager
def service(lab: Lab, host: str, port: int) -> Generator[None]:
    """A web server of the host's own."""
    machine = testinfra.get_host(f"docker://{lab.container(host)}")
    machine.check_output(f"systemd-run --collect --unit service-{port} python3 -m http.server {port}")
    try:
        wait_until("it answers", lambda: machine.run(ASK.format("127.0.0.1", port)).stdout == "200", 10)
        yield
    finally:
        machine.check_output(f"systemctl stop service-{port}")


@pytest.fixture(scope="module")
def container(lab: Lab) -> Generator[str]:
    """Serves on a published port."""
    serve = "printf 'server { listen 8080; }' >/etc/nginx/conf.d/there.conf && exec nginx -g 'daemon off;'"
    run = "docker run --detach --restart always --publish 9102:8080 --name there --entrypoint sh nginx:1.28 -c %s"
    lab.server.check_output(run, serve)
    yield "there"
    lab.server.check_output("timeout 60 docker rm --force there")  # an engine that does not start lets everybody wait


def test_the_engine_runs_now_and_after_a_boot(lab: Lab) -> None:
    docker = lab.server.service("docker")
    assert docker.is_running and docker.is_enabled


def test_compose_and_buildx_are_there(lab: Lab) -> None:
    for plugin in ("compose", "buildx"):
        assert re.search(r"\d+\.\d+\.\d+", lab.server.check_output(f"docker {plugin} version"))


def test_the_administrator_needs_no_sudo(lab: Lab, host: str) -> None:
    user = testinfra.get_host(f"docker://{ADMINISTRATORS[host]}@{lab.container(host)}")
    assert user.check_output("id -u") == "1000"
    assert user.check_output("docker info --format '{{.ServerVersion}}'")


def test_the_engine_is_the_distribution_s_or_docker_s_or_the_one_that_was_there(lab: Lab, host: str) -> None:
    match host:
        case "ubuntu":
            assert lab.server.package("docker.io").is_installed and lab.server.package("docker-compose-v2").is_installed
        case "rocky":
            assert lab.server.package("docker-ce").is_installed and not lab.server.package("docker").is_installed
            signed = lab.server.check_output("rpm --query --queryformat '%{RSAHEADER:pgpsig}' docker-ce")
            key = lab.server.check_output("rpm --query --queryformat '%{VERSION}' gpg-pubkey")
            assert signed.endswith(key) and len(key) == 8
        case _:
            assert lab.server.run("dpkg-query --search /usr/sbin/dockerd /usr/bin/docker").rc != 0
            assert not lab.server.package("docker.io").is_installed
            daemon = json.loads(lab.server.check_output("cat /etc/docker/daemon.json"))
            assert daemon == {"live-restore": True, "shutdown-timeout": 7, "labels": ["owner=us"]}
            assert lab.server.check_output("docker info --format '{{.Labels}}'") == "[owner=us]"


def play(lab: Lab, host: str, playbook: str, **variables: Any) -> tuple[str, int]:
    """What a run on this host alone said, on one line, and how many tasks changed something."""
    run = lab.site(f"--limit={host}", playbook=playbook, **variables)
    return " ".join(run.stdout.split()), recap(run.stdout)[host]["changed"]


@pytest.mark.parametrize("host", ["rocky"], indirect=True)
def test_another_key_than_docker_s_is_not_trusted(lab: Lab, host: str) -> None:
    show = (
        "gpg --show-keys --with-colons /usr/share/lookalike/docker-ce.asc | awk -F: '/^fpr/ {print tolower($10); exit}'"
    )
    key = f"rpm --query gpg-pubkey | grep {lab.server.check_output(show)[-8:]}"
    lab.server.check_output(f"rpm --erase $({key})")
    fingerprint = "060A 61C5 1B55 8A7F 742B 77AA C52F EB6B 621E 9F35"  # Docker's own, which the look-alike's is not
    said, changed = play(lab, host, "tests/platforms/key.yml", docker_host_rpm_repository_key_fingerprint=fingerprint)
    assert "does not match" in said and changed == 0, said
    assert lab.server.run(key).rc != 0
    said, changed = play(lab, host, "tests/platforms/key.yml")
    assert changed == 1 and lab.server.run(key).rc == 0, said
    assert "gpgkey" not in lab.server.check_output("cat /etc/yum.repos.d/docker-ce.repo"), (
        "dnf would trust what lies there"
    )


@pytest.mark.parametrize("host", ["rocky"], indirect=True)
def test_the_engine_starts_after_firewalld(lab: Lab, host: str) -> None:
    """One that starts while firewalld loads its rules never comes back."""
    assert "firewalld.service" in lab.server.check_output("systemctl show --value --property After docker").split()


@pytest.mark.parametrize("host", ["rocky"], indirect=True)
def test_what_a_run_wrote_that_ended_then_is_read_by_the_next(lab: Lab, host: str) -> None:
    """The files are as they should be, and neither firewalld nor the engine has read them."""
    zone = "/etc/firewalld/zones/host_firewall.xml"
    lab.server.check_output(f"cp -p {zone} /run/ && sed -i /9101/d {zone} && systemctl restart firewalld")
    with service(lab, host, 9101):
        # firewalld is active before it has read
        wait_until("it is closed", lambda: asked(lab, host, 9101) == "000", 60)
        lab.server.check_output(f"cp -p /run/host_firewall.xml {zone}")
        assert asked(lab, host, 9101) == "000"
        said, changed = play(lab, host, "molecule/platforms/converge.yml")
        assert changed == 2 and asked(lab, host, 9101) == "200", said  # firewalld reads, and the engine starts anew
    said, changed = play(lab, host, "molecule/platforms/converge.yml")
    assert changed == 0, said


@pytest.mark.parametrize("host", ["adopted"], indirect=True)
def test_what_is_dropped_from_the_variables_is_taken_out_and_what_others_set_stays(lab: Lab, host: str) -> None:
    user = ADMINISTRATORS[host]
    lab.server.check_output("useradd somebody-else && usermod -aG docker somebody-else")
    said, _ = play(lab, host, "molecule/platforms/converge.yml", docker_host_users=[], docker_host_daemon_config={})
    daemon = json.loads(lab.server.check_output("cat /etc/docker/daemon.json"))
    assert daemon == {"live-restore": True, "shutdown-timeout": 7}, said
    assert lab.server.check_output("getent group docker").split(":")[-1] == "somebody-else"
    daemon["labels"] = ["owner=us"]  # as a run leaves it that ends before it has restarted the engine
    lab.server.check_output(f"echo {shlex.quote(json.dumps(daemon))} >/etc/docker/daemon.json")
    play(lab, host, "molecule/platforms/converge.yml")
    assert lab.server.check_output("docker info --format '{{.Labels}}'") == "[owner=us]"
    assert set(lab.server.check_output("getent group docker").split(":")[-1].split(",")) == {"somebody-else", user}


def test_what_a_container_publishes_is_reached(lab: Lab, host: str, container: str) -> None:
    assert asked(lab, host, 9102) == "200"


def test_a_container_reaches_others(lab: Lab, host: str, container: str) -> None:
    other = neighbour_of(host)
    with service(lab, other, 9101):
        ask = ASK.format(lab.address(other), 9101)
        assert lab.server.check_output(f"docker exec {container} {ask}") == "200"


def test_the_host_s_own_services_are_closed_but_for_those_that_are_listed(lab: Lab, host: str) -> None:
    with service(lab, host, 9100), service(lab, host, 9101):
        assert (asked(lab, host, 9100), asked(lab, host, 9101)) == ("000", "200")


def test_it_is_so_after_a_boot_too(lab: Lab, host: str, container: str) -> None:
    subprocess.run(["docker", "restart", "--time", "60", lab.container(host)], check=True, capture_output=True)
    wait_until("the container is back", lambda: asked(lab, host, 9102) == "200", 60)
    test_the_host_s_own_services_are_closed_but_for_those_that_are_listed(lab, host)
    test_a_container_reaches_others(lab, host, container)
