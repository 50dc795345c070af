"""The server has no way out but a proxy with a password, and IPv6 besides IPv4."""

from __future__ import annotations

import subprocess
from typing import Any
from urllib.parse import urlsplit

import pytest
import testinfra  # type: ignore[import-untyped]
import yaml
from system.lab import ROOT, Edge, Lab, recap, wait_until

PASSWORD = "only-Way-Out-1971"
ENVIRONMENT = "/etc/docker/proxy.env"
PUBLIC = "/opt/pypi-public/config/config.json"
DROP_IN = "/etc/systemd/system/docker.service.d/proxy.conf"
ACCOUNTS = [
    {"name": "alice", "role": "publisher", "password": "alice-Wonderland-1865"},
    {"name": "bob", "password": "bob-Builder-1999"},
]


@pytest.fixture(scope="module")
def pebble(lab: Lab) -> Any:
    return testinfra.get_host(f"docker://{lab.container('pebble')}")


def test_there_is_no_other_way_out(lab: Lab) -> None:
    for url in ("https://registry-1.docker.io/v2/", "http://192.0.2.1/"):
        assert lab.server.run(f"curl --silent --max-time 5 {url}").rc == 7, "could not connect"


def test_everything_took_the_proxy(pebble: Any) -> None:
    """The package manager, the plugins' download, the engine's pulls and the ACME client."""
    variables = yaml.safe_load((ROOT / ".cache/lab/vars.yml").read_text("utf-8"))
    plugin = urlsplit(variables.get("docker_host_buildx_url", "https://github.com/")).netloc
    log = pebble.check_output("journalctl --unit tinyproxy --no-pager --output cat")
    asked = [f"CONNECT {host} " for host in (f"{plugin}:443", "registry-1.docker.io:443", "pebble:14000")]
    assert [request for request in [*asked, "GET http://deb.debian.org/"] if request not in log] == []


def test_the_password_is_in_files_of_root_and_of_who_needs_it(lab: Lab) -> None:
    file, public = lab.server.file(ENVIRONMENT), lab.server.file(PUBLIC)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert (public.user, public.gid, public.mode) == ("root", 9896, 0o640)
    search = "grep -rlaF --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -e %s /"
    assert sorted(lab.server.run(search, PASSWORD).stdout.split()) == [ENVIRONMENT, PUBLIC]
    told = "systemctl show docker.service; systemctl cat docker.service; docker info; docker inspect $(docker ps -aq)"
    said = lab.server.check_output(told)
    assert "proxy.env" in said and PASSWORD not in said


def test_a_run_shows_the_password_to_nobody(lab: Lab) -> None:
    """Not to another account of the server while something is fetched, nor on the controller's screen."""
    plugin = "/usr/local/lib/docker/cli-plugins/docker-buildx"
    lab.server.check_output(f"rm {plugin}")
    look = "while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; sleep 0.05; done | awk '!s[$0]++'"
    watch = subprocess.Popen(
        ["docker", "exec", "--user", "nobody", lab.container(lab.server_name), "timeout", "300", "sh", "-c", look],
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        run = lab.site("-vvv", "--diff", playbook="playbooks/server.yml", pypi_users_accounts=ACCOUNTS)
    finally:
        lab.server.run("kill $(cat /proc/[0-9]*/stat | awk '$2 == \"(timeout)\" {print $1}')")
        seen = watch.communicate(timeout=30)[0]
    assert run.returncode == 0 and recap(run.stdout)[lab.server_name]["changed"] == 1, run.stdout[-3000:]
    assert lab.server.file(plugin).exists
    assert "AnsiballZ" in seen or "python" in seen
    assert PASSWORD not in seen
    assert PASSWORD not in run.stdout + run.stderr


@pytest.mark.parametrize("url", ["http://pypi.acme.test/health", "https://pypi.acme.test/health"])
def test_a_client_that_has_nothing_but_ipv6_is_served(edge: Edge, pebble: Any, url: str) -> None:
    assert pebble.check_output(f"curl --silent --insecure --ipv6 --max-time 10 {url}") == "ok"


def test_without_the_variable_nothing_of_it_is_left(lab: Lab, edge: Edge) -> None:
    run = lab.site(playbook="playbooks/server.yml", pypi_users_accounts=ACCOUNTS, pypi_proxy={})
    assert run.returncode == 0, run.stdout[-3000:]
    assert lab.server.run(f"ls {ENVIRONMENT} {DROP_IN} /usr/local/lib/docker/python").stdout == ""
    assert "proxy.env" not in lab.server.check_output("cat /usr/local/sbin/pypi-tls-renew")
    engine = lab.server.check_output("tr '\\0' '\\n' <\"/proc/$(pidof dockerd)/environ\"")
    assert "PATH=" in engine and "PROXY" not in engine
    wait_until("every container is healthy", lab.healthy, 120)
    assert edge.request("/health").status == 200
