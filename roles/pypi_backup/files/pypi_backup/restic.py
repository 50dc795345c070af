"""restic in its container: what it is given, and what it says when it fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PACKAGES = "/data/packages"
"""Where the packages are in the container, and so in every snapshot, wherever they are on a host."""
MINE = ("--host", "pypi", "--tag", "packages")
"""What our snapshots carry: a repository may hold those of others too."""

MISSING = ("does not exist", "no such file or directory")
"""What restic says where there is none: by itself since 0.17, before in the words of the disk or the server. It adds "Is there a repository
at the following location?" to every reason why it could not look, so that says nothing."""
UNREACHABLE = ("connection refused", "i/o timeout", "no such host", "no route to host", "network is unreachable")
"""What the system and Go say."""
REFUSED = (
    "Access Key Id you provided does not exist",
    "signature we calculated does not match",
    "Access Denied",
    "401 Unauthorized",
    "403 Forbidden",
)
"""What servers of S3 and REST say to a wrong login."""
HINTS = {
    "wrong password": "pypi_backup_passphrase is not the one that this repository was made with",
    "already locked": "somebody else works with the repository: see `restic list locks`, and `restic unlock` if nobody does",
    "no space left": "the disk of the repository is full",
    "Host key verification failed": "the SFTP server has none of the keys in pypi_backup_sftp_known_hosts",
    "Permission denied (": "the SFTP server does not take pypi_backup_sftp_key",
    "signed by unknown authority": "pypi_backup_ca_file does not have the CA of the repository's certificate",
    **dict.fromkeys(REFUSED, "the login in pypi_backup_environment is refused"),
    **dict.fromkeys(UNREACHABLE, "the repository's server cannot be reached"),
    **dict.fromkeys(MISSING, "there is no repository"),
}
"""What restic says, and what it means to who reads it. The first counts: a key can be what does not exist, and not the repository."""


class Failure(Exception):
    """What went wrong, for people."""


class NoRepository(Failure):
    """There is none."""


@dataclass(frozen=True)
class Config:
    """config.json, as the role writes it."""

    image: str
    directory: str
    """Where passphrase, repository and environment are, for root only."""
    local: str
    """A repository that is a directory of this host, else empty."""
    sftp: bool
    """Whether it is reached by ssh, whose key and configuration are beside."""
    ca: bool
    """Whether the repository's certificate is checked by a CA bundle of its own."""
    packages: str
    """Name of a volume, or a directory."""
    packages_path: str
    """The directory in both cases."""
    keep: dict[str, int]
    read_parts: int
    """One of so many parts of the repository is read back after each backup."""
    state_directory: str
    """Where it is noted how the last backup went, and which repositories are known."""

    @classmethod
    def read(cls, path: Path) -> Config:
        document = json.loads(path.read_bytes())
        return cls(**{field.name: document[field.name] for field in fields(cls)})


def command(config: Config, *arguments: str, write: bool = False) -> list[str]:
    """The secrets are in files that are mounted, and in one that Docker reads; never among the arguments.

    A lock names the process that holds it. With processes of its own a container's is always number 1, which lives in the next one too,
    and the lock of a run that was killed would stand in the way for half an hour: so it has the host's.
    """
    mounts = [f"{config.packages}:{PACKAGES}{'' if write else ':ro'}", "pypi_backup_cache:/root/.cache"]
    mounts += [f"{config.directory}/secrets:/secrets:ro"]
    mounts += [f"{config.directory}/ssh:/root/.ssh:ro"] if config.sftp else []
    mounts += [f"{config.local}:{config.local}"] if config.local else []
    volumes = [part for mount in mounts for part in ("--volume", mount)]
    files = ["RESTIC_PASSWORD_FILE=/secrets/passphrase", "RESTIC_REPOSITORY_FILE=/secrets/repository"]
    trust = ["--cacert", "/secrets/ca.pem"] if config.ca else []
    environment = [part for each in files for part in ("--env", each)]
    return [
        *(
            "docker",
            "run",
            "--rm",
            "--hostname",
            "pypi",
            "--pid",
            "host",
            "--env-file",
            f"{config.directory}/secrets/environment",
        ),
        *(*environment, *volumes, config.image, *trust, *arguments),
    ]


def failure(said: str) -> Failure:
    """From what restic wrote to its standard error."""
    lines = [line for line in said.splitlines() if line.strip()]
    sign = next((sign for sign in HINTS if sign in said), "")
    hint = HINTS.get(sign)
    last = " ".join(lines[-3:]) or "restic said nothing"
    kind = NoRepository if sign in MISSING else Failure
    return kind(f"{hint} ({last})" if hint else last)


def run(config: Config, *arguments: str, write: bool = False) -> str:
    """What restic wrote to its standard output. Raises Failure."""
    done = subprocess.run(command(config, *arguments, write=write), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise failure(done.stderr)
    return done.stdout


def documents(output: str) -> Iterator[dict[str, Any]]:
    """Of JSON lines; what is none is restic's talk."""
    for line in output.splitlines():
        if line.startswith("{"):
            yield json.loads(line)
