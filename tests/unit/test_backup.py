"""What of a snapshot is missing on a host, what differs, and what belongs to a project; what restic says, in words that help."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pypi_backup import restic, restore


@pytest.mark.parametrize(
    ("path", "project"),
    [
        ("Acme_Lib-1.0-py3-none-any.whl", "acme-lib"),
        ("acme-lib-1.0.tar.gz", "acme-lib"),
        ("acme.lib-1.0.zip", "acme-lib"),
        (".yanked/acme-lib.json", "acme-lib"),
        (".owned/acme-lib", "acme-lib"),
        (".owned/~complete", "~complete"),
    ],
)
def test_the_project_of_a_file(path: str, project: str) -> None:
    assert restore.project_of(path) == project


@pytest.fixture
def config(tmp_path: Path) -> restic.Config:
    (tmp_path / "packages/.owned").mkdir(parents=True)
    return restic.Config(
        image="restic/restic:1",
        directory="/opt/pypi-backup",
        local="/srv/backup",
        sftp=False,
        ca=False,
        packages="pypi_packages",
        packages_path=str(tmp_path / "packages"),
        keep={"daily": 7},
        read_parts=30,
        state_directory=str(tmp_path),
    )


def answers(monkeypatch: pytest.MonkeyPatch, files: dict[str, tuple[int, str]]) -> None:
    """restic with one snapshot, ab…, of these files: size and time."""
    listed = [{"struct_type": "snapshot"}] + [
        {"type": "file", "path": f"{restic.PACKAGES}/{path}", "size": size, "mtime": mtime}
        for path, (size, mtime) in files.items()
    ]

    def run(_: restic.Config, *arguments: str, **__: Any) -> str:
        if arguments[0] == "snapshots":
            return "null" if "other" in arguments else json.dumps([{"id": "ab" * 32, "time": "2026-11-26T02:00:00.5Z"}])
        return "\n".join(map(json.dumps, listed))

    monkeypatch.setattr(restore, "run", run)


def test_what_is_missing_and_what_differs(config: restic.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = Path(config.packages_path)
    for name, size in [("a-1.tar.gz", 3), ("a-2.tar.gz", 4), ("a-3.tar.gz", 3), (".owned/a", 0)]:
        (packages / name).write_bytes(b"x" * size)
        os.utime(packages / name, (1_000_000_000, 1_000_000_000))
    os.utime(packages / "a-3.tar.gz", (1_000_000_001, 1_000_000_001))
    then = "2001-09-09T01:46:40.0000001Z"
    files = {name: (3, then) for name in ("a-1.tar.gz", "a-2.tar.gz", "a-3.tar.gz", "a-4.tar.gz", "b-1.tar.gz")}
    answers(monkeypatch, files | {".owned/a": (0, "2020-01-01T00:00:00+01:00"), restore.LAST: (0, then)})
    planned = restore.plan(config, "latest", "")
    assert planned.missing == {"a-4.tar.gz": 3, "b-1.tar.gz": 3, restore.LAST: 0}
    assert planned.different == ["a-2.tar.gz", "a-3.tar.gz"] and planned.same == 2
    planned = restore.plan(config, "latest", "B")
    assert planned.missing == {"b-1.tar.gz": 3} and not planned.different
    with pytest.raises(restic.Failure, match="nothing of c in the snapshot of 2026-11-26T02:00:00"):
        restore.plan(config, "latest", "c")


def test_of_a_snapshot_that_there_is_not_the_others_are_named(
    config: restic.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, {})
    with pytest.raises(restic.Failure, match="no snapshot other .*; it has: abababab of 2026-11-26T02:00:00"):
        restore.plan(config, "other", "")


def test_what_does_not_fit_is_not_begun(config: restic.Config) -> None:
    with pytest.raises(restic.Failure, match="bytes are missing, and .* are free on the disk of"):
        restore.restore(config, restore.Plan("ab", "", missing={"a-1.tar.gz": 1 << 60}), overwrite=False)


def test_a_lock_names_a_process_that_the_next_run_can_look_for(config: restic.Config) -> None:
    command = restic.command(config, "unlock")
    assert command[command.index("--pid") + 1] == "host" and command[command.index("--hostname") + 1] == "pypi"


def test_no_secret_is_an_argument(config: restic.Config) -> None:
    command = restic.command(config, "snapshots")
    assert "--env-file" in command and "RESTIC_PASSWORD_FILE=/secrets/passphrase" in command
    assert "pypi_packages:/data/packages:ro" in command and "/srv/backup:/srv/backup" in command


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("Fatal: wrong password or no key found", "pypi_backup_passphrase is not the one"),
        (
            "Fatal: unable to open config file: stat /x/config: no such file or directory\nIs there a repository at",
            "there is no repository",
        ),
        ("Fatal: repository does not exist: unable to open config file", "there is no repository"),
        ("unable to create lock in backend: repository is already locked by PID 1", "somebody else works with"),
        ("Save: write: no space left on device", "the disk of the repository is full"),
        *(
            (
                f"Fatal: unable to open config file: {reason}\nIs there a repository at the following location?\ns3:x",
                means,
            )
            for reason, means in {
                "Stat: The specified key does not exist.": "there is no repository",
                "Stat: The specified bucket does not exist": "there is no repository",
                "Lstat: file does not exist": "there is no repository",
                "Get: dial tcp 192.0.2.1:443: connect: connection refused": "the repository's server cannot be reached",
                "Get: dial tcp 192.0.2.1:443: i/o timeout": "the repository's server cannot be reached",
                "Get: dial tcp: lookup x: no such host": "the repository's server cannot be reached",
                "Get: something that nobody has thought of": "Fatal: unable to open config file: Get: something",
            }.items()
        ),
        (
            "subprocess ssh: Host key verification failed.",
            "the SFTP server has none of the keys in pypi_backup_sftp_known_hosts",
        ),
        ("ssh: me@host: Permission denied (publickey).", "the SFTP server does not take pypi_backup_sftp_key"),
        (
            "Fatal: unable to open config file: Stat: The AWS Access Key Id you provided does not exist in our records.\nIs there a repository at",
            "the login in pypi_backup_environment is refused",
        ),
        ("Get: tls: certificate signed by unknown authority", "pypi_backup_ca_file does not have the CA"),
        ("", "restic said nothing"),
    ],
)
def test_failures_in_words(said: str, means: str) -> None:
    failure = restic.failure(said)
    assert str(failure).startswith(means)
    assert isinstance(failure, restic.NoRepository) is (means == "there is no repository")


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_move_into_place_and_the_end_of_the_register_comes_last(
    config: restic.Config, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """One came meanwhile, and stays."""
    packages, order = Path(config.packages_path), list[str]()
    (packages / "b-1.tar.gz").write_bytes(b"here")

    def run(_: restic.Config, *arguments: str, **__: Any) -> str:
        assert f"{restic.PACKAGES}/c\\[1]-1.zip" in arguments
        for path in [*wanted, "b-1.tar.gz"]:
            staged = Path(config.packages_path, restore.STAGE, restic.PACKAGES.lstrip("/"), path)
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(b"restored")
        (packages / "a-1.tar.gz").write_bytes(b"meanwhile")
        return ""

    def noted(function: Any) -> Any:
        def one(source: Path, place: Path) -> None:
            order.append(place.name)
            function(source, place)

        return one

    wanted = {"a-1.tar.gz": 8, restore.LAST: 8, ".yanked/a.json": 8, "c[1]-1.zip": 8, "~b-1.zip": 8}
    monkeypatch.setattr(restore, "run", run)
    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    planned = restore.Plan("ab", "", missing=wanted, different=["b-1.tar.gz"])
    came, kept = restore.restore(config, planned, overwrite)
    assert order[-1] == "~complete" and not (packages / restore.STAGE).exists()
    assert (packages / "~b-1.zip").read_bytes() == (packages / ".yanked/a.json").read_bytes() == b"restored"
    assert (packages / "a-1.tar.gz").read_bytes() == (b"restored" if overwrite else b"meanwhile")
    assert kept == ([] if overwrite else ["b-1.tar.gz", "a-1.tar.gz"])
    assert came == (6 if overwrite else 4)
