"""Repositories on other machines: over SSH, and in S3 by TLS with a CA and a login of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from index.serve import certified

from .lab import ROOT, SURVIVOR, Lab, wait_until
from .secrets import Secrets

pytestmark = [pytest.mark.scenario("default"), pytest.mark.reliability]

# AWS's simulator speaks S3, with accounts. It wants much that requirements.lock has not, so it lives apart:
# echo 'moto[server]' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
#   --no-emit-index-url - --output-file tests/system/moto.lock
LOCK, MOTO = Path(__file__).with_name("moto.lock"), ROOT / ".cache/moto"
ACCOUNT = """
import sys, boto3
iam = boto3.client("iam", endpoint_url=sys.argv[1], verify=sys.argv[2], region_name="us-east-1",
                   aws_access_key_id="none", aws_secret_access_key="none")
iam.create_user(UserName="backup")
key = iam.create_access_key(UserName="backup")["AccessKey"]
allow = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}'
iam.put_user_policy(UserName="backup", PolicyName="s3", PolicyDocument=allow)
print(key["AccessKeyId"], key["SecretAccessKey"])
"""
PASSPHRASE = "a passphrase from the vault"


class Repository:
    """The variables of one, and what the host says of it."""

    def __init__(self, lab: Lab, secret: str, **variables: Any) -> None:
        self.lab, self.secret = lab, secret
        self.variables = {"pypi_backup_passphrase": PASSPHRASE, **variables}

    def backed_up(self, **other: Any) -> tuple[bool, Mapping[str, Any]]:
        """Whether the playbook went well, and the status that it left. No output, journal or other account sees the secrets."""
        with Secrets.watched_processes(self.lab, "nobody") as processes:
            run = self.lab.site("-vvv", playbook="playbooks/backup.yml", **{**self.variables, **other})
        secrets = Secrets.passwords([PASSPHRASE, *filter(None, self.secret.splitlines())])
        assert secrets.found_in(run.stdout + run.stderr) == [] and "restic" in processes.text
        assert secrets.found_in(processes.text) == []
        assert secrets.found_in(self.lab.server.check_output("journalctl --no-pager --since=-15min")) == []
        status = json.loads(self.lab.server.check_output("cat /var/lib/pypi-backup/status.json"))
        assert status["ok"] is (run.returncode == 0), run.stdout[-3000:]
        return status["ok"], status

    def comes_back(self) -> None:
        packages = self.lab.server.check_output("docker volume inspect --format '{{.Mountpoint}}' pypi_packages")
        before = self.lab.server.check_output(f"sha256sum {packages}/{SURVIVOR} && rm {packages}/{SURVIVOR}")
        run = self.lab.site(playbook="playbooks/restore.yml", **self.variables)
        assert run.returncode == 0 and "1 came back." in run.stdout, run.stdout[-3000:]
        assert self.lab.server.check_output(f"sha256sum {packages}/{SURVIVOR}") == before


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left(lab: Lab) -> Iterator[None]:
    """Neither program nor secrets nor timer, when the variables say so."""
    yield
    run = lab.site(playbook="playbooks/server.yml")
    assert run.returncode == 0 and lab.server.run(f"ls -d {lab.project}-backup").rc != 0, run.stdout


@pytest.fixture(scope="module")
def sftp(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """OpenSSH's server on the client, with an account that the key opens."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    lab.root_of_client.check_output(
        "apt-get update -q && apt-get install -y -q --no-install-recommends openssh-server && systemctl start ssh"
        " && (id backup-taker || useradd --create-home backup-taker)"
        f" && install -d -m 0700 -o backup-taker ~backup-taker/.ssh && echo '{public}' >~backup-taker/.ssh/authorized_keys"
    )
    address = lab.address("client")
    known = lab.root_of_client.check_output(f"ssh-keyscan {address} 2>/dev/null")
    return Repository(
        lab,
        key.read_text(),
        pypi_backup_repository=f"sftp:backup-taker@{address}:backup",
        pypi_backup_sftp_key=key.read_text(),
        pypi_backup_sftp_known_hosts=known,
    )


def test_over_ssh(sftp: Repository) -> None:
    ok, status = sftp.backed_up()
    assert ok, status
    sftp.comes_back()


def test_a_server_of_another_key_and_a_key_of_another_are_refused(lab: Lab, sftp: Repository) -> None:
    there = sftp.variables["pypi_backup_sftp_known_hosts"].split()
    ok, status = sftp.backed_up(pypi_backup_sftp_known_hosts=f"192.0.2.1 {there[1]} {there[2]}")
    assert not ok and "none of the keys in pypi_backup_sftp_known_hosts" in status["error"]
    lab.root_of_client.check_output("mv ~backup-taker/.ssh/authorized_keys ~backup-taker/.ssh/none")
    try:
        ok, status = sftp.backed_up()
    finally:
        lab.root_of_client.check_output("mv ~backup-taker/.ssh/none ~backup-taker/.ssh/authorized_keys")
    assert not ok and "does not take pypi_backup_sftp_key" in status["error"]


@pytest.fixture(scope="module")
def s3(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """moto on this machine, which lets nobody in but an account that it has."""
    if not (MOTO / "bin/python").exists():
        subprocess.run(["uv", "venv", "--quiet", MOTO], check=True)
    subprocess.run(["uv", "pip", "sync", "--quiet", "--require-hashes", "--python", MOTO, LOCK], check=True)
    gateway = lab.server.check_output("ip route show default").split()[2]
    here = tmp_path_factory.mktemp("moto")
    certified(here, gateway)
    tls = ["-c", str(here / "certificate.pem"), "-k", str(here / "key.pem")]
    with (here / "log").open("w") as log:
        server = subprocess.Popen(
            [MOTO / "bin/moto_server", "-H", gateway, "-p", "0", *tls],
            env=os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": "3", "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        said = here / "log"
        wait_until("it listens", lambda: "Running on https://" in said.read_text(), 60)
        url = said.read_text().partition("Running on ")[2].split()[0]
        account = [str(MOTO / "bin/python"), "-c", ACCOUNT, url, str(here / "ca.pem")]
        name, secret = subprocess.run(account, check=True, capture_output=True, text=True).stdout.split()
        yield Repository(
            lab,
            secret,
            pypi_backup_repository=f"s3:{url}/backups",
            pypi_backup_environment={"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": secret},
            pypi_backup_ca_file=str(here / "ca.pem"),
        )
    finally:
        server.terminate()
        server.wait(30)


def test_into_s3(s3: Repository) -> None:
    ok, status = s3.backed_up()
    assert ok, status
    s3.comes_back()


def test_a_wrong_login_and_a_certificate_that_nobody_knows_are_told(s3: Repository) -> None:
    login = s3.variables["pypi_backup_environment"]
    ok, status = s3.backed_up(pypi_backup_environment={**login, "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"})
    assert not ok and "the login in pypi_backup_environment is refused" in status["error"], status
    ok, status = s3.backed_up(pypi_backup_ca_file="")
    assert not ok and "pypi_backup_ca_file does not have the CA" in status["error"], status
