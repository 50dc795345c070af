"""Disks, permissions, clock."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator

from .findings import SITE, Config, Finding, said


def disks(config: Config) -> Iterator[Finding]:
    """Space and inodes of the file systems that hold the packages, the index and the engine."""
    places: dict[int, str] = {}
    for place in (packages(config), config.directory, said("docker", "info", "--format", "{{.DockerRootDir}}")):
        if os.path.exists(place):
            places.setdefault(os.stat(place).st_dev, place)
    for place in places.values():
        seen = os.statvfs(place)
        for what, free, total in (("space", seen.f_bavail, seen.f_blocks), ("inodes", seen.f_favail, seen.f_files)):
            if total and 100 * free < config.free_percent * total:  # some file systems do not count inodes
                yield Finding(
                    "disk",
                    f"{100 * free / total:.1f} % of the {what} of {place} are free; uploads are refused when none are",
                    "Make room (old images: docker image prune; old versions: static_index delete) or enlarge it",
                )


def packages(config: Config) -> str:
    """The directory with the packages, which may be that of a volume."""
    if config.packages.startswith("/"):
        return config.packages
    return said("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", config.packages)


def permissions(config: Config) -> Iterator[Finding]:
    """Whoever may read the users' hashes and the key, and whether the containers still can."""
    for wanted in config.private:
        path = wanted["path"]
        try:
            seen = os.stat(path, follow_symlinks=False)
        except OSError as error:
            yield Finding("permissions", f"{path}: {error.strerror}", SITE)
            continue
        found = seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)
        should = int(wanted.get("owner", 0)), int(wanted.get("group", 0)), int(wanted["mode"], 8)
        if found != should:
            text = "{} has the owner {}, the group {} and the mode {:04o} instead of {}, {} and {:04o}"
            yield Finding("permissions", text.format(path, *found, *should), SITE)


def clock(last: float) -> Iterator[Finding]:
    """`last` is the time of the last look. Whether somebody sets the clock, which in a container is the machine's matter."""
    if last > time.time():
        yield Finding(
            "clock",
            f"the clock stands at {_utc(time.time())}, before the last look at {_utc(last)}",
            "Set it. Certificates, tokens and the minimum age of public packages go by it",
        )
    try:
        said("systemd-detect-virt", "--container", "--quiet")
    except OSError:
        if said("timedatectl", "show", "--property=NTPSynchronized") != "NTPSynchronized=yes":
            yield Finding("clock", "nobody sets the clock of this host", "timedatectl set-ntp true, or install chrony")


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
