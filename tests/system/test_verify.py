"""Each finding is provoked once, named with what to do, and gone when it is mended."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from .lab import SURVIVOR, Lab, recap, wait_until

STATUS = "/var/lib/pypi-verify/status.json"


def look(lab: Lab, changes: str = "", way: str = "") -> list[str]:
    """What is found by a look of its own, whose configuration has changes (a jq-like update in Python) and `way` first in PATH."""
    lab.server.check_output(
        f"cd {lab.project}-verify && python3 -c \"import json; c = json.load(open('config.json'));"
        f" c.update(status_file='/run/verify/status.json'); {changes or 'pass'}; json.dump(c, open('/run/verify.json', 'w'))\""
    )
    run = lab.server.run(f"cd {lab.project}-verify && PATH={way}:$PATH python3 -B -m pypi_verify /run/verify.json")
    document = json.loads(lab.server.check_output("cat /run/verify/status.json"))
    found = [f"{each['kind']}: {each['what']}" for each in document["findings"]]
    assert run.rc == (1 if found else 0), run.stderr
    assert document["ok"] is not bool(found)
    assert all(each["fix"] for each in document["findings"])
    return found


@dataclass(frozen=True)
class Fault:
    """Shell that makes and mends it; a change of the configuration instead; and what is said."""

    says: str
    make: str = ":"
    mend: str = ":"
    changes: str = ""
    way: str = ""


FAULTS = {
    "owner": Fault(
        "permissions: {project}/users/roles.json has the owner 0, the group 0 and the mode 0644 instead of 0, 9898 and 0640",
        "chgrp 0 {project}/users/roles.json && chmod 644 {project}/users/roles.json",
        "chgrp 9898 {project}/users/roles.json && chmod 640 {project}/users/roles.json",
    ),
    "seals": Fault(
        "permissions: {project}/users/htpasswd.seals: No such file or directory",
        "mv {project}/users/htpasswd.seals /run/",
        "mv /run/htpasswd.seals {project}/users/",
    ),
    "key": Fault(
        "certificate: certificate.pem and key.pem in {project}/tls are damaged, or not of each other",
        "cp -p {project}/tls/key.pem /run/ && truncate -s 99 {project}/tls/key.pem",
        "cp -p /run/key.pem {project}/tls/key.pem",
    ),
    "chain": Fault("certificate: clients refuse the certificate of {hostname}: ", changes="c['ca'] = ''"),
    "name": Fault(
        "certificate: clients refuse the certificate of other.test: ", changes="c['hostname'] = 'other.test'"
    ),
    "space": Fault(
        "disk: 0.0 % of the space of /mnt are free",
        "mount -t tmpfs -o size=64k,nr_inodes=99 none /mnt && (dd if=/dev/zero of=/mnt/full bs=4k || true)",
        "umount /mnt",
        "c['packages'] = '/mnt'",
    ),
    "inodes": Fault(
        "disk: 0.0 % of the inodes of /mnt are free",
        "mount -t tmpfs -o size=1m,nr_inodes=9 none /mnt && (touch /mnt/1 /mnt/2 /mnt/3 /mnt/4 /mnt/5 /mnt/6 /mnt/7 /mnt/8 || true)",
        "umount /mnt",
        "c['packages'] = '/mnt'",
    ),
    "clock": Fault(
        "clock: nobody sets the clock of this host",
        "mkdir /run/way && ln -s /bin/false /run/way/systemd-detect-virt && ln -s /bin/echo /run/way/timedatectl",
        "rm -r /run/way",
        way="/run/way",
    ),
    "clock set back": Fault("clock: the clock stands at ", "touch -d '1 day' /run/verify/status.json"),
    "another image": Fault(
        "image: pypi/nginx runs another image than the one that {nginx} stands for now",
        "docker tag {nginx} kept && docker tag {pypiserver} {nginx}",
        "docker tag kept {nginx} && docker image rm kept",
    ),
    "another name": Fault(
        "image: pypi/nginx runs {nginx} instead of nginx:9", changes="c['containers']['pypi/nginx'] = 'nginx:9'"
    ),
    "no container": Fault("container: pypi/other is not there", changes="c['containers']['pypi/other'] = 'nginx:9'"),
    "no engine": Fault(
        "containers: this could not be looked at: ",
        "mkdir /run/way && ln -s /bin/false /run/way/docker",
        "rm -r /run/way",
        way="/run/way",
    ),
    "a container that hangs": Fault(
        "container: pypi/pypiserver is paused",
        "docker pause pypi-pypiserver-1",
        "docker unpause pypi-pypiserver-1",
    ),
    "accounts": Fault(
        "users: htpasswd: line ",
        "cp -p {project}/users/htpasswd /run/ && echo damage >>{project}/users/htpasswd",
        "cp -p /run/htpasswd {project}/users/htpasswd",
    ),
}


@contextmanager
def fault(lab: Lab, name: str) -> Generator[Fault]:
    images = {service: each["Config"]["Image"] for service, each in lab.containers().items()}
    names = {"project": lab.project, "hostname": lab.hostname, **images}
    chosen = FAULTS[name]
    lab.server.check_output(chosen.make.format(**names))
    try:
        yield Fault(chosen.says.format(**names), changes=chosen.changes, way=chosen.way)
    finally:
        lab.server.check_output(chosen.mend.format(**names))
        wait_until("every container is healthy", lab.healthy, 60)


def test_nothing_is_found_where_nothing_is_wrong(lab: Lab) -> None:
    assert look(lab) == []


@pytest.mark.scenario("default")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(lab: Lab, name: str) -> None:
    with fault(lab, name) as provoked:
        found = look(lab, provoked.changes, provoked.way)
    assert any(each.startswith(provoked.says) for each in found), found


@pytest.mark.scenario("default")
def test_the_playbook_says_it_all_and_repairs_what_is_made(lab: Lab) -> None:
    """A package that rotted on the disk, a page, a line of htpasswd, and a clock that is a year ahead."""
    packages = lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages")
    package, page = f"{packages}/{SURVIVOR}", f"{lab.project}/index/simple/survivor/index.json"
    rot = "python3 -c \"f = open('{0}', 'r+b'); f.seek(50000); f.write(b'damage')\" && touch -d @{1} {0}"
    date = lab.server.check_output(f"stat --format %.9Y {package}")
    lab.server.check_output(f"cp -p {package} {page} /run/ && {rot.format(package, date)} && echo no >{page}")
    lab.server.check_output(f"cp -p {lab.project}/users/htpasswd /run/ && echo damage >>{lab.project}/users/htpasswd")
    lab.server.check_output("printf '#!/bin/sh\\nexec /bin/date -d \"1 year\" +%%s\\n' >/usr/local/bin/date")
    lab.server.check_output("chmod +x /usr/local/bin/date")
    try:
        run, said = verify(lab)
        assert run.returncode != 0
        assert f"{SURVIVOR} is damaged: its sha256 is " in said, said
        assert "simple/survivor/index.json is not what was made from the record. Render it anew" in said
        assert "htpasswd: line " in said and "The host's clock is 31" in said
        status = json.loads(lab.server.check_output(f"cat {STATUS}"))
        assert {each["kind"] for each in status["findings"]} == {"file", "page", "users"}
        assert lab.server.check_output(f"stat --format '%a %U' {STATUS}") == "640 root"
        assert lab.server.run("systemctl is-failed pypi-verify").stdout.strip() == "failed"
        assert f"{SURVIVOR} is damaged" in lab.server.check_output("journalctl --unit pypi-verify --no-pager")
    finally:
        lab.server.check_output(
            f"rm /usr/local/bin/date && cp -p /run/{SURVIVOR} {package} && cp -p /run/htpasswd {lab.project}/users/"
        )
    run, said = verify(lab, verify_repair=True)
    assert run.returncode == 0 and "All is well" in said, said
    assert lab.server.run(f"cmp /run/index.json {page}").rc == 0
    assert recap(run.stdout)[lab.server_name]["changed"] == 1  # the rebuild
    assert lab.server.check_output("systemctl is-enabled pypi-verify.timer") == "enabled"


def verify(lab: Lab, **variables: Any) -> tuple[Any, str]:
    run = lab.site(playbook="playbooks/verify.yml", **variables)
    return run, " ".join(run.stdout.split())
