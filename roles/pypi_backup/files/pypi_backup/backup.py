"""One backup: kept, thinned out by the policy, and a part of it read back."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from .restic import MINE, PACKAGES, Config, Failure, NoRepository, documents, run

EXCLUDED = (f"{PACKAGES}/.uploads", f"{PACKAGES}/.restore")
"""What is half received, or half restored."""


def backup(config: Config) -> dict[str, Any]:
    """What was done: snapshot, files, bytes, added (bytes), read (the part that was read back). Raises Failure.

    A file is linked into place whole and synced before its upload is acknowledged, so whatever was acknowledged before this began is
    found whole, without a lock.
    """
    _there(config)
    run(config, "unlock")  # locks of runs that were killed only
    excluded = [part for path in EXCLUDED for part in ("--exclude", path)]
    said = list(documents(run(config, "backup", "--json", *MINE, *excluded, PACKAGES)))
    summary = next((each for each in said if each.get("message_type") == "summary"), None)
    if summary is None:
        raise Failure("restic did not say which snapshot it made")
    keep = [part for period, count in config.keep.items() if count for part in (f"--keep-{period}", str(count))]
    run(config, "forget", *MINE, "--group-by", "host,tags", *keep, "--prune")
    part = f"{int(time.time() // 86400) % config.read_parts + 1}/{config.read_parts}"
    run(config, "check", f"--read-data-subset={part}")
    return {
        "snapshot": str(summary["snapshot_id"])[:8],
        "files": summary["total_files_processed"],
        "bytes": summary["total_bytes_processed"],
        "added": summary["data_added"],
        "read": part,
    }


def _there(config: Config) -> None:
    """A repository is made once. One that was there and is not any more is a disk that is not mounted, or worse."""
    repository = Path(config.directory, "secrets/repository").read_text()
    note = Path(config.state_directory, f"known-{sha256(repository.encode()).hexdigest()[:16]}")
    try:
        run(config, "cat", "config", "--no-lock")  # somebody's lock says nothing about that
    except NoRepository:
        if note.exists():
            raise Failure(
                f"the repository was there and is gone. Is its disk mounted? To begin another one: rm {note}"
            ) from None
        run(config, "init")
    note.touch()
