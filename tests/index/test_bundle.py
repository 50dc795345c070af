"""The bundle of playbooks/client_bundle.yml, and the two image builds of docs/image-builds.md that use it.

A shell stands for BuildKit here: it mounts what a RUN asks for where it asks for it, in a mount namespace of its own, and runs the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .artifacts import wheel
from .clients import HERE, program
from .serve import certified, reading, serving

ROOT = HERE.parents[1]
RUNS = dict(
    zip(
        ("pip", "uv"),
        re.findall(r"^RUN (?:.*\\\n)*.*", (ROOT / "docs/image-builds.md").read_text(), re.MULTILINE),
        strict=True,
    )
)
SECRETS = {"netrc": "netrc", "pip.conf": "pip.conf", "uv.toml": "uv.toml", "ca": "ca.pem"}
FRESH = """
mount -t tmpfs none /mnt; mkdir /mnt/root /mnt/etc /mnt/work-root /mnt/work-etc; mount -t tmpfs none /run
for each in root etc; do mount -t overlay overlay -o lowerdir=/$each,upperdir=/mnt/$each,workdir=/mnt/work-$each /$each; done
rm -rf /etc/pip.conf /etc/xdg/pip /root/.netrc /root/.config
"""
PROJECT = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["app"]\n'


@dataclass
class Builder:
    base: Path
    url: str

    def playbook(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """With an index that is where ours is, and its CA."""
        accounts = [{"name": "alice", "password": "alicealice"}, {"name": "bob", "password_hash": "$2b$04$"}]
        inventory: dict[str, Any] = {"pypi_servers": {"hosts": {"index.invalid": {"pypi_users_accounts": accounts}}}}
        (self.base / "hosts.yml").write_text(yaml.safe_dump(inventory))
        extra = {"pypi_client_index_url": self.url, "pypi_client_ca_file": str(self.base / "ca.pem"), **variables}
        options = [
            word
            for name, value in extra.items()
            for word in ("-e", yaml.safe_dump({name: value}, default_flow_style=True))
        ]
        command = [
            "ansible-playbook",
            "-vvv",
            "--diff",
            "-i",
            str(self.base / "hosts.yml"),
            "playbooks/client_bundle.yml",
            *options,
        ]
        environment = os.environ | {"ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def run(self, step: str, context: Path, command: str = "") -> None:
        """What a RUN says, or another command with the same mounts."""
        *mounts, own = re.sub(r"^RUN ", "", step).split(" \\\n")
        script = FRESH
        for mount in mounts:
            name, target = re.findall(r"id=(\S+),target=(\S+)", mount)[0]
            script += f"mkdir -p $(dirname {target}); touch {target}; mount --bind $BUNDLE/{SECRETS[name]} {target}\n"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", script + (command or own.strip())],
            env={
                "HOME": "/root",
                "BUNDLE": str(self.base / "bundle"),
                "PATH": f"{context}/.venv/bin:{program('uv-newest')}/bin:{os.environ['PATH']}",
                "PYTHONPATH": str(program("pip-newest")),
            },
            cwd=context,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    base = tmp_path_factory.mktemp("bundle")
    tls = certified(base)
    with (
        serving(base / "index") as server,
        reading(server.store, tls, "alice:alicealice", server.url) as (url, _),
    ):
        assert server.upload(wheel("app", "1.0")).ok
        yield Builder(base, url)


@pytest.fixture(scope="module")
def bundle(builder: Builder) -> Path:
    directory = builder.base / "bundle"
    login = {"bundle_directory": str(directory), "bundle_username": "alice"}
    first = builder.playbook(**login)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "alicealice" not in first.stdout + first.stderr
    again = builder.playbook(**login)
    assert "changed=0" in again.stdout, again.stdout
    return directory


def test_it_is_its_owner_s_alone(bundle: Path) -> None:
    assert bundle.stat().st_mode & 0o777 == 0o700
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in bundle.iterdir()} == dict.fromkeys(
        SECRETS.values(), "0o600"
    )
    assert {file.name for file in bundle.iterdir() if "alicealice" in file.read_text()} == {"netrc"}


def test_pip_installs_in_a_build(builder: Builder, bundle: Path, tmp_path: Path) -> None:
    subprocess.run(["uv", "venv", "--quiet", "--seed", tmp_path / ".venv"], check=True)
    (tmp_path / "requirements.txt").write_text("app\n")
    builder.run(RUNS["pip"], tmp_path)
    assert list(tmp_path.glob(".venv/lib/python*/site-packages/app-1.0.dist-info"))


def test_uv_installs_in_a_build(builder: Builder, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    builder.run(RUNS["uv"], tmp_path, "SSL_CERT_FILE=/run/secrets/ca uv lock --no-cache")
    builder.run(RUNS["uv"], tmp_path)
    assert list(tmp_path.glob(".venv/lib/python*/site-packages/app-1.0.dist-info"))


def test_what_is_missing_is_said(builder: Builder) -> None:
    said = builder.playbook(bundle_username="bob").stdout
    assert "bundle_directory is missing" in said and "bundle_password is missing" in said
    assert "bundle_username is missing" in builder.playbook().stdout
