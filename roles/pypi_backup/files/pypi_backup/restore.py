"""The way back: what a snapshot has and the host has not is put in place; what differs stays, unless told otherwise."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from .restic import MINE, PACKAGES, Config, Failure, documents, run

STAGE = ".restore"
"""Beside the packages, so that nothing is copied: files move from here. The index does not look into it."""
FEW = 500
"""So many files are asked for by name; else all of the snapshot is brought."""
LAST = ".owned/~complete"
"""Says that every name is in the register (static_index/owned.py), so it comes last."""


@dataclass
class Plan:
    """Paths below the packages' directory."""

    snapshot: str
    time: str
    missing: dict[str, int] = field(default_factory=dict)
    """And their sizes."""
    different: list[str] = field(default_factory=list)
    same: int = 0


def project_of(path: str) -> str:
    """The normalised name (PEP 503) of the project that a file belongs to, of whatever the packages' directory holds."""
    name = path.rpartition("/")[2]
    if path.startswith(".yanked/"):
        name = name[: -len(".json")]
    elif not path.startswith("."):
        stem = re.sub(r"\.(tar\.\w+|tgz|zip|whl|egg)$", "", name)
        name = stem.partition("-")[0] if name.endswith((".whl", ".egg")) else stem.rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def plan(config: Config, snapshot: str, project: str) -> Plan:
    """What would be done. Raises Failure when there is no such snapshot, or nothing of the project in it."""
    made = json.loads(
        run(config, "snapshots", "--json", *MINE, *([] if snapshot == "latest" else [snapshot])) or "null"
    )
    if not made:
        raise Failure(f"there is no snapshot {snapshot} of the packages in this repository; it has: {_known(config)}")
    chosen = max(made, key=lambda each: str(each["time"]))
    planned = Plan(chosen["id"], chosen["time"][:19])
    wanted = re.sub(r"[-_.]+", "-", project).lower()
    seen = False
    for path, size, mtime in _files(config, planned.snapshot):
        if wanted and (project_of(path) != wanted or path == LAST):
            continue
        seen = True
        try:
            status = os.stat(os.path.join(config.packages_path, path))
        except FileNotFoundError:
            planned.missing[path] = size
        else:
            if status.st_size == size and (path.startswith(".owned/") or abs(status.st_mtime - mtime) < 0.001):
                planned.same += 1
            else:
                planned.different.append(path)
    if not seen:
        raise Failure(f"there is nothing of {project or 'the packages'} in the snapshot of {planned.time}")
    return planned


def _known(config: Config) -> str:
    """The snapshots that there are, the youngest first."""
    made = json.loads(run(config, "snapshots", "--json", *MINE) or "null") or []
    young = sorted(made, key=lambda each: str(each["time"]), reverse=True)
    return ", ".join(f"{each['id'][:8]} of {each['time'][:19]}" for each in young) or "none"


def _files(config: Config, snapshot: str) -> Iterator[tuple[str, int, float]]:
    for node in documents(run(config, "ls", "--json", snapshot)):
        path = str(node.get("path", ""))
        if node.get("type") == "file" and path.startswith(PACKAGES + "/"):
            yield path[len(PACKAGES) + 1 :], node.get("size", 0), _seconds(node["mtime"])


def _seconds(text: str) -> float:
    """Of RFC 3339 with nanoseconds."""
    whole, fraction, zone = re.fullmatch(r"([^.]+?)(\.\d+)?(Z|[+-]\d\d:\d\d)", text).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp() + float(fraction or 0)


def restore(config: Config, planned: Plan, overwrite: bool) -> tuple[int, list[str]]:
    """Does it. Returns how many files came back, and which stay as they are. Raises Failure or OSError; whatever becomes of it, each
    file is as it was or as in the snapshot."""
    wanted = {**planned.missing, **(dict.fromkeys(planned.different, 0) if overwrite else {})}
    kept = [] if overwrite else list(planned.different)
    packages = Path(config.packages_path)
    stage = packages / STAGE
    shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
    if not wanted:
        return 0, kept
    free = shutil.disk_usage(packages).free
    if sum(wanted.values()) > free:
        raise Failure(
            f"{sum(wanted.values()):,} bytes are missing, and {free:,} are free on the disk of {packages}: make room"
        )
    few = wanted if len(wanted) <= FEW else {}
    names = [part for path in few for part in ("--include", f"{PACKAGES}/{_literal(path)}")]
    run(config, "restore", planned.snapshot, "--target", f"{PACKAGES}/{STAGE}", *names, write=True)
    for path in sorted(wanted, key=lambda each: (each == LAST, each)):
        staged, place = stage / PACKAGES.lstrip("/") / path, packages / path
        if not place.parent.exists():
            place.parent.mkdir()
            shutil.copystat(staged.parent, place.parent)
            status = staged.parent.stat()
            os.chown(place.parent, status.st_uid, status.st_gid)
        if overwrite:
            os.replace(staged, place)
            continue
        try:
            os.link(staged, place)
        except FileExistsError:
            kept.append(path)  # uploaded meanwhile
    os.sync()
    shutil.rmtree(stage, ignore_errors=True)
    return len(wanted) - len(set(kept) & set(wanted)), kept


def _literal(path: str) -> str:
    """For restic's patterns."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)
