"""What was acknowledged is in a backup, and comes back from it: whole, one project, on a host that lost everything."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from .conftest import MakeWheel
from .lab import Edge, Lab, right, wait_until
from .secrets import Secrets
from .traffic import traffic

pytestmark = [pytest.mark.scenario("default"), pytest.mark.reliability]

REPOSITORY, STATUS = "/srv/backup", "/var/lib/pypi-backup/status.json"
PASSPHRASE = "a passphrase from the vault"
BACKUP = {"pypi_backup_repository": REPOSITORY, "pypi_backup_passphrase": PASSPHRASE}


@pytest.fixture(scope="module")
def packages(lab: Lab) -> str:
    return str(lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages"))


def tree(lab: Lab, where: str) -> str:
    """Every file of the packages' directory, with owner, mode, size, content and, but for the names of the register, time."""
    looks = [
        "find . -type f ! -path './.uploads/*' -printf '%p %U:%G %m %s\\n'",
        "find . -type f ! -path './.uploads/*' -exec sha256sum {} +",
        "find . -type f ! -path './.uploads/*' ! -path './.owned/*' -printf '%p %T@\\n'",
    ]
    return str(lab.server.check_output(f"cd {where} && ({'; '.join(looks)}) | sort"))


def said(run: Any) -> str:
    return " ".join((run.stdout + run.stderr).split())


def unit(lab: Lab) -> str:
    """The error of a backup by the unit of the timer, empty when there is none."""
    ended = lab.server.run("systemctl start pypi-backup").rc
    status = json.loads(lab.server.check_output(f"cat {STATUS}"))
    assert (ended == 0) is status["ok"]
    return str(status.get("error", ""))


def restored(lab: Lab, options: str = "") -> str:
    """What the program says that restore.yml runs."""
    return str(
        lab.server.check_output(f"cd {lab.project}-backup && python3 -B -m pypi_backup config.json restore {options}")
    )


@pytest.fixture(scope="module")
def lost(lab: Lab, edge: Edge, packages: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A backup while somebody publishes; then everything of the index is lost from the host. Returns what was there."""
    lab.compose("exec -T pypiserver python3 -m static_index yank survivor 1.0 --reason broken")
    with traffic(edge, tmp_path_factory.mktemp("traffic")) as seen, Secrets.watched_processes(lab) as processes:
        acknowledged = set(seen.acknowledged)
        run = lab.site("-vvv", playbook="playbooks/backup.yml", **BACKUP)
    assert run.returncode == 0, run.stdout[-3000:]
    for text in (run.stdout, processes.text):
        assert PASSPHRASE not in text, text[max(0, text.find(PASSPHRASE) - 500) :][:600]
    assert "pypi_backup" in processes.text
    assert unit(lab) == ""  # with what came meanwhile
    before = tree(lab, packages)
    assert acknowledged and all(name in before for name in acknowledged)
    lab.compose("down 2>&1")
    lab.server.check_output(
        f"docker volume rm pypi_packages && rm -r {lab.project} {lab.project}-backup {lab.project}-verify"
    )
    return before


def test_a_lost_host_is_back_by_one_command(lab: Lab, edge: Edge, packages: str, lost: str) -> None:
    run = lab.site(playbook="playbooks/restore.yml", **BACKUP)
    assert run.returncode == 0 and "Seen: " in run.stdout, said(run)[-3000:]
    assert tree(lab, packages) == lost
    assert lab.compose("exec -T pypiserver python3 -m static_index check") == "everything is as a rebuild would make it"
    page = json.loads(
        edge.request("/simple/survivor/", {**right("alice"), "Accept": "application/vnd.pypi.simple.v1+json"}).body
    )
    assert page["files"][0]["yanked"] == "broken"
    lab.compose("exec -T pypiserver python3 -m static_index unyank survivor 1.0")
    lab.client.check_output(
        "python3 -m venv --clear ~/restored && ~/restored/bin/pip install --no-input --no-cache-dir survivor 2>&1"
    )


def test_a_second_time_nothing_changes_and_what_is_newer_stays(
    lab: Lab, edge: Edge, packages: str, make: MakeWheel
) -> None:
    """Of one project: a file that is gone comes back, one that is another by now does not, unless it is told."""
    gone, other = make("acme-restored", 2_000), make("acme-restored-too", 2_000)
    for wheel in (gone, other):
        assert edge.upload(wheel, "alice").status == 200
    assert unit(lab) == ""
    lab.server.check_output(f"rm {packages}/{gone.name} && echo newer >>{packages}/{other.name}")
    wait_until("it is off its page", lambda: edge.request(f"/packages/{gone.name}", right("alice")).status == 404, 60)
    run = lab.site("--check", playbook="playbooks/restore.yml", **BACKUP)
    assert run.returncode == 0 and "1 are missing and would come back" in said(run) and gone.name in run.stdout, said(
        run
    )
    assert "1 came back." in restored(lab, "--project Acme.Restored")
    page = f"/packages/{gone.name}"
    wait_until("it is served again", lambda: edge.request(page, right("alice")).body == gone.read_bytes(), 60)
    output = restored(lab)
    assert "0 came back." in output and "1 differ from the snapshot, and stay" in output and other.name in output
    assert lab.server.check_output(f"tail -c 6 {packages}/{other.name}") == "newer"
    assert "1 came back." in restored(lab, "--overwrite")
    assert (
        lab.server.check_output(f"sha256sum <{packages}/{other.name}").split()[0]
        == sha256(other.read_bytes()).hexdigest()
    )


FAULTS = {
    "another passphrase": (
        "cp -p {d}/secrets/passphrase /run/ && echo -n something else >{d}/secrets/passphrase",
        "cp -p /run/passphrase {d}/secrets/passphrase",
        "pypi_backup_passphrase is not the one",
    ),
    "gone": ("mv {r} {r}.away", "rm -rf {r} && mv {r}.away {r}", "Is its disk mounted?"),
    "full": (
        "mv {r} {r}.away && mkdir {r} && mount -t tmpfs -o size=2m none {r} && cp -a {r}.away/. {r}/; dd if=/dev/zero of={r}/full bs=4k || true",
        "umount {r} && rmdir {r} && mv {r}.away {r}",
        "the disk of the repository is full",
    ),
    "damaged": (
        "cp -a {r} {r}.away && for f in $(find {r}/data -type f); do dd if=/dev/zero of=$f bs=1 seek=40 count=20 conv=notrunc status=none; done",
        "rm -r {r} && mv {r}.away {r}",
        "",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_repository_that_cannot_be_used_is_told_of(lab: Lab, name: str) -> None:
    make, mend, says = FAULTS[name]
    places = {"d": f"{lab.project}-backup", "r": REPOSITORY}
    lab.server.check_output(make.format(**places))
    try:
        error = unit(lab)
        found = lab.server.run(f"cd {lab.project}-verify && python3 -B -m pypi_verify config.json").stdout
    finally:
        lab.server.check_output(mend.format(**places))
    assert error and says in error, error
    assert "backup: the backup of " in found
    assert unit(lab) == ""
