"""Faults that a server lives with: what clients see meanwhile, and that nothing acknowledged is lost.

Each is a row of docs/reliability.md. `make reliability` writes it, and makes those as well that are too long for every day.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from .conftest import Faulty
from .lab import Lab, wait_until

pytestmark = pytest.mark.scenario("default")


def pid(lab: Lab, service: str) -> int:
    return int(lab.containers()[service]["State"]["Pid"])


@pytest.mark.parametrize("service", ["nginx", "login", "pypiserver"])
def test_kill_9_of_a_container(lab: Lab, faulty: Faulty, service: str) -> None:
    """The engine starts it again; nginx answers from what it knows while the others are away."""
    before = pid(lab, service)
    with faulty(f"kill -9 of {service}", "docker events: die, exitCode=137, start") as seen:
        lab.server.check_output(f"kill -9 {before}")
        wait_until("another one runs", lambda: pid(lab, service) not in (0, before), 30)
    assert service == "nginx" or seen.reads.bad == []
    assert seen.reads.longest() < 15 and seen.uploads.longest() < 30


@pytest.mark.parametrize(("process", "unit"), [("dockerd", "docker"), ("containerd", "containerd")])
def test_kill_9_of_the_engine(lab: Lab, faulty: Faulty, process: str, unit: str) -> None:
    """live-restore: the containers run on, under their shims."""
    containers = {name: each["State"]["Pid"] for name, each in lab.containers().items()}
    before = lab.server.check_output(f"systemctl show --value --property MainPID {unit}")

    def again() -> bool:
        now = lab.server.run(f"systemctl show --value --property MainPID {unit}").stdout.strip()
        return now not in ("0", before) and lab.server.run("docker ps").rc == 0

    with faulty(f"kill -9 of {process}", f"journal of {unit}.service: Main process exited, code=killed") as seen:
        lab.server.check_output(f"kill -9 {before}")
        wait_until("the engine is back", again, 120)
    assert seen.reads.bad == [] and seen.uploads.bad == []
    assert {name: each["State"]["Pid"] for name, each in lab.containers().items()} == containers


def test_a_restart_of_the_engine(lab: Lab, faulty: Faulty) -> None:
    """As a package update does it."""
    with faulty("the engine restarts (its package was updated)", "journal of docker.service") as seen:
        lab.server.check_output("systemctl restart containerd docker")
    assert seen.reads.bad == [] and seen.uploads.bad == []


def test_kill_9_of_a_shim(lab: Lab, faulty: Faulty) -> None:
    """What stands between the engine and a container; with it, the container's output is lost."""
    before = pid(lab, "pypiserver")
    with faulty("kill -9 of pypiserver's shim", "docker events: die, start") as seen:
        lab.server.check_output(f"kill -9 $(ps -o ppid= -p {before})")
        wait_until("another one runs", lambda: pid(lab, "pypiserver") not in (0, before), 60)
    assert seen.reads.bad == []


def test_a_power_cut(lab: Lab, faulty: Faulty) -> None:
    with faulty("power cut and boot", "journalctl --list-boots"):
        lab.cut_the_power()


def test_no_name_can_be_resolved(lab: Lab, faulty: Faulty) -> None:
    with faulty("DNS gone from the host", "nothing: reads, logins and uploads need no name from outside") as seen:
        lab.server.check_output("cp /etc/resolv.conf /run/kept && echo 'nameserver 192.0.2.1' >/etc/resolv.conf")
        try:
            assert lab.server.run("timeout 2 getent hosts client").rc != 0
            lab.compose("restart login 2>&1")  # and it comes back without one
            wait_until("the stack is healthy", lab.healthy, 60)
        finally:
            lab.server.check_output("cat /run/kept >/etc/resolv.conf")
    assert seen.reads.bad == []


@contextmanager
def small_disk(lab: Lab, where: str, options: str) -> Generator[str]:
    """What is written into a directory comes to lie on a file system with these options; yields where that is. It is all kept afterwards."""
    small = "/run/small"
    lab.compose("stop pypiserver nginx 2>&1")
    lab.server.check_output(
        f"mkdir -p {small} && mount -t tmpfs -o {options} none {small} && mkdir {small}/upper {small}/work"
        f" && chown --reference {where} {small}/upper && chmod --reference {where} {small}/upper"
        f" && mount -t overlay -o lowerdir={where},upperdir={small}/upper,workdir={small}/work none {where}"
    )
    lab.compose("up --detach --wait 2>&1")
    try:
        yield small
    finally:
        lab.compose("stop pypiserver nginx 2>&1")
        kept = f"find {small}/upper -type c -delete && cp -a {small}/upper/. {where}/"  # without the marks of what was removed
        lab.server.check_output(f"umount {where} && {kept} && umount {small}")
        lab.compose("up --detach --wait 2>&1")


FULL = {
    "packages": ("size=8m", "dd if=/dev/zero of={}/full bs=64k"),
    "index": ("size=64m,nr_inodes=99", "touch $(seq -f {}/full%g 99)"),
}


@pytest.mark.reliability
@pytest.mark.parametrize("what", FULL)
def test_no_room(lab: Lab, faulty: Faulty, what: str) -> None:
    """Of bytes for packages, and of inodes for pages and records."""
    options, fill = FULL[what]
    packages = lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages")
    with small_disk(lab, packages if what == "packages" else f"{lab.project}/index", options) as small:
        names = {"packages": "disk of the packages full", "index": "inodes of the index used up"}
        with faulty(names[what], "pypiserver's log; clients: 507 and why; verify: disk") as seen:
            before = len(seen.uploads.bad)
            lab.server.run(fill.format(small))
            wait_until("uploads are refused", lambda: len(seen.uploads.bad) > before + 2, 60)
            lab.server.check_output(f"rm {small}/full*")
    assert seen.reads.bad == []
    assert {answer.split()[0] for answer in seen.uploads.bad} == {"507"}, seen.uploads.bad


@pytest.mark.reliability
def test_a_run_that_replaces_every_container(lab: Lab, faulty: Faulty) -> None:
    """And the next one, which puts everything back."""
    before = {name: each["Id"] for name, each in lab.containers().items()}
    with faulty("two runs of site.yml, each replacing every container", "the runs' own output") as seen:
        changes = {
            "pypi_stack_nginx_memory": "300m",
            "pypi_stack_login_memory": "300m",
            "pypi_stack_pypiserver_memory": "700m",
        }
        run = lab.site(playbook="playbooks/server.yml", **changes)
        assert run.returncode == 0, run.stdout[-3000:]
        assert set(before.values()).isdisjoint(each["Id"] for each in lab.containers().values())
        run = lab.site(playbook="playbooks/server.yml")
        assert run.returncode == 0, run.stdout[-3000:]
    assert seen.reads.bad == []


def loaded(lab: Lab) -> list[str]:
    """When nginx's workers and the login began, which is when they read their code."""
    began = "ps -o lstart= -C nginx | sort | tail -1; docker inspect --format '{{.State.StartedAt}}' pypi-login-1"
    return str(lab.server.check_output(began)).splitlines()


def test_files_that_were_changed_by_hand(lab: Lab, faulty: Faulty) -> None:
    """They are put right, the run says so, and whoever has read them reads them again."""
    changed = {"nginx/*/owned.js": "// by hand", "login/login.py": "# by hand", "compose.yml": "# by hand"}
    with faulty("files changed by hand and loaded; the next run of site.yml", "the run, with --diff what") as seen:
        for file, line in changed.items():
            lab.server.check_output(f"echo '{line}' >>$(ls {lab.project}/{file})")
        lab.compose("kill --signal HUP nginx 2>&1 && docker restart pypi-login-1")
        before = loaded(lab)
        run = lab.site("--diff", playbook="playbooks/server.yml")
        assert run.returncode == 0 and run.stdout.count("by hand") >= len(changed), run.stdout[-3000:]
        assert all("by hand" not in lab.server.check_output(f"cat {lab.project}/{file}") for file in changed)
        assert all(then < now for then, now in zip(before, loaded(lab), strict=True))
    assert seen.reads.bad == []


@pytest.mark.reliability
def test_a_run_that_ends_before_its_handlers(lab: Lab, faulty: Faulty) -> None:
    """ctrl-C between the new nginx.conf and the reload: the next run finds the file as it should be, and has it read all the same."""
    size = {"pypi_stack_max_upload_size": "123m"}
    with faulty(
        "ctrl-C before nginx was told of its new configuration; the next run of site.yml", "the next run"
    ) as seen:
        before = loaded(lab)[0]
        lab.interrupted("pypi_stack : Start | Bring it up", **size)
        try:
            assert "123m" in lab.server.check_output(f"cat {lab.project}/nginx/nginx.conf") and loaded(lab)[0] == before
            run = lab.site(playbook="playbooks/server.yml", **size)
            assert run.returncode == 0 and "To be read: nginx" in run.stdout, run.stdout[-3000:]
            assert loaded(lab)[0] != before
        finally:
            run = lab.site(playbook="playbooks/server.yml")
        assert run.returncode == 0, run.stdout[-3000:]
    assert seen.reads.bad == []
