"""How the last backup went, as pypi_backup says it."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Iterator
from pathlib import Path

from .findings import Config, Finding

HOURS = 48
"""Age of the last good backup that is a finding: two nights."""
AGAIN = "ansible-playbook playbooks/backup.yml, or systemctl start pypi-backup; journalctl --unit pypi-backup says why it failed"


def backups(config: Config) -> Iterator[Finding]:
    """Whether the last backup went well, and there was one lately."""
    if not config.backup_file:
        return
    try:
        last = json.loads(Path(config.backup_file).read_bytes())
        good = calendar.timegm(time.strptime(last["last_success"], "%Y-%m-%dT%H:%M:%SZ")) if last["last_success"] else 0
    except FileNotFoundError:
        yield Finding("backup", "there was no backup yet", AGAIN)
        return
    hours = (time.time() - good) / 3600
    if not last["ok"]:
        yield Finding("backup", f"the backup of {last['time']} failed: {last.get('error')}", AGAIN)
    elif hours > HOURS:
        yield Finding("backup", f"the last backup is {hours:.0f} hours old", AGAIN)
