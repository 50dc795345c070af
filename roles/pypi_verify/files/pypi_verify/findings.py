"""What is wrong, and how programs of the host are asked."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60
"""Seconds for an answer; docker waits for ever for an engine that does not start."""
SITE = "ansible-playbook site.yml makes it what it should be"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: `kind` for machines, `what` and `fix` for people."""

    kind: str
    what: str
    fix: str


@dataclass(frozen=True)
class Config:
    """What the role wrote down; names as in its variables, without `pypi_verify_`."""

    hostname: str
    address: str
    port: int
    tls: bool
    tls_directory: str
    ca: str
    directory: str
    packages: str
    containers: dict[str, str]
    private: list[dict[str, Any]]
    keys_file: str
    backup_file: str
    certificate_days: int
    free_percent: int
    status_file: str
    status_group: str

    @classmethod
    def read(cls, path: Path) -> Config:
        return cls(**json.loads(path.read_bytes()))


def said(*command: str) -> str:
    """What a program says. OSError with its last line if it fails, or does not answer."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except subprocess.CalledProcessError as error:
        raise OSError(" ".join(error.stderr.split("\n")[-2:]).strip() or f"status {error.returncode}") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"no answer within {PATIENCE} seconds") from None
    return run.stdout.strip()
