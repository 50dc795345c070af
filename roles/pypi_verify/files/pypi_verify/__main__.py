"""python3 -m pypi_verify CONFIG: 0 when all is well, 1 when something was found."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

from . import backups, certificate, containers, issuers, system
from .findings import SITE, Config, Finding

Check = Callable[[], Iterator[Finding]]


def main(path: str) -> int:
    config, started, counts = Config.read(Path(path)), time.time(), dict[str, int]()
    status = Path(config.status_file)
    checks: dict[str, Check] = {
        "containers": lambda: containers.containers(config),
        "certificate": lambda: certificate.certificate(config),
        "disk": lambda: system.disks(config),
        "permissions": lambda: system.permissions(config),
        "clock": lambda: system.clock(_last(status)),
        "backup": lambda: backups.backups(config),
        "issuer": lambda: issuers.issuers(config),
        "index": lambda: containers.index(config, counts),
    }
    findings = []
    for finding in _all(checks):
        findings.append(finding)
        print(f"{finding.kind}: {finding.what}\n    {finding.fix}", flush=True)
    versions: dict[str, str] = {}
    with suppress(OSError):
        versions = containers.versions()
    document = {
        "ok": not findings,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        **counts,
        "findings": [asdict(finding) for finding in findings],
        "versions": versions,
    }
    _write(status, document, config.status_group)
    print(f"{len(findings)} findings; {counts.get('files', 0)} files, {counts.get('bytes', 0):,} bytes were read")
    return 1 if findings else 0


def _all(checks: dict[str, Check]) -> Iterator[Finding]:
    """One that cannot be made is a finding, and the others go on."""
    for name, check in checks.items():
        try:
            yield from check()
        except (OSError, ValueError, LookupError) as error:
            yield Finding(name, f"this could not be looked at: {error}", SITE)


def _last(status: Path) -> float:
    """When somebody looked last, in seconds since the epoch; 0 for never."""
    try:
        return status.stat().st_mtime
    except OSError:
        return 0


def _write(path: Path, document: dict[str, Any], group: str) -> None:
    """Atomically, for root and the group: it has names of private projects."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file, indent=1)
    shutil.chown(new, 0, group)
    new.chmod(0o640)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
