"""A dry run on the finished hosts changes nothing; and no secret is said or kept where it has no business."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest

from .lab import Lab, recap
from .secrets import Secrets, encodings


@pytest.fixture(scope="module")
def dry_run(lab: Lab) -> CompletedProcess[str]:
    return lab.site("--check", "--diff", "-vvv")


def test_a_dry_run_finds_nothing_to_change(lab: Lab, dry_run: CompletedProcess[str]) -> None:
    assert dry_run.returncode == 0, dry_run.stdout[-5000:] + dry_run.stderr[-2000:]
    hosts = recap(dry_run.stdout)
    assert {name for names in lab.groups.values() for name in names} <= hosts.keys()
    assert {name: host["changed"] for name, host in hosts.items() if host["changed"]} == {}


def test_a_dry_run_says_no_secret(lab: Lab, dry_run: CompletedProcess[str]) -> None:
    assert Secrets.of(lab).found_in(dry_run.stdout + dry_run.stderr) == []


def test_a_dry_run_that_would_change_the_clients_says_no_secret(lab: Lab) -> None:
    """Every file with a credential in it differs; test_survival.py has the same for the server, by a real run."""
    client = [{"user": "admin", "username": "frank", "password": "frank-Never-2024", "publish": True}]
    run = lab.site("--check", "--diff", "-vvv", playbook="playbooks/clients.yml", pypi_client_users=client)
    assert run.returncode == 0 and all(host["changed"] for host in recap(run.stdout).values()), run.stdout[-5000:]
    assert Secrets.of(lab, ["frank-Never-2024"]).found_in(run.stdout + run.stderr) == []


def test_bad_input_changes_nothing_on_the_hosts(lab: Lab) -> None:
    run = lab.site(pypi_stack_https_port=70000, pypi_stack_log_max_files=9, pypi_users_bcrypt_cost=11)
    assert run.returncode != 0 and "pypi_stack_https_port is 70000" in run.stdout, run.stdout[-5000:]
    assert {name: host["changed"] for name, host in recap(run.stdout).items() if host["changed"]} == {}
    assert "max-file: 9" not in lab.server.check_output(f"cat {lab.project}/compose.yml")


def test_no_password_is_on_the_server_s_disk(lab: Lab) -> None:
    """All of it: users, containers with their layers and logs, journal, temporary files."""
    needles = "\n".join(sorted(Secrets.passwords().needles))
    # The search can find: a file that holds one of them, in hex.
    lab.server.check_output(f"echo x{max(encodings('alice-Wonderland-1865'))}x >/var/tmp/decoy")
    search = "grep -rlaF --devices=skip --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev -e %s /"
    found = lab.server.run(search, needles).stdout.splitlines()
    lab.server.check_output("rm /var/tmp/decoy")
    assert found == ["/var/tmp/decoy"]


def test_no_secret_is_in_what_docker_tells(lab: Lab) -> None:
    secrets = Secrets.of(lab)
    told = lab.server.check_output(
        "docker inspect $(docker ps --all --quiet) $(docker image ls --quiet) $(docker volume ls --quiet)"
    )
    assert '"Env"' in told and secrets.found_in(told) == []
    assert secrets.found_in(lab.compose("config")) == []
    # What runs, with its arguments and its environment.
    shown = lab.server.check_output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "gunicorn" in shown and secrets.found_in(shown) == []


def test_no_secret_is_in_the_logs(lab: Lab) -> None:
    secrets = Secrets.of(lab)
    said = lab.compose("logs --no-color") + lab.server.check_output("journalctl --no-pager --output cat")
    assert "survivor" in said and secrets.found_in(said) == []
