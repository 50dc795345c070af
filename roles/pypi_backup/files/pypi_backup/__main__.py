"""python3 -m pypi_backup CONFIG backup | restore [--snapshot ID] [--project NAME] [--overwrite] [--dry-run]: 0 when it went well."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import backup, restore
from .restic import Config, Failure

SHOWN = 100
"""Paths that are named at most."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="pypi_backup", description="Back the packages up, or bring them back.")
    parser.add_argument("config", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("backup")
    back = commands.add_parser("restore")
    back.add_argument("--snapshot", default="latest")
    back.add_argument("--project", default="")
    back.add_argument("--overwrite", action="store_true")
    back.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    config = Config.read(options.config)
    return _backup(config) if options.command == "backup" else _restore(config, options)


def _backup(config: Config) -> int:
    began, status = time.time(), Path(config.state_directory, "status.json")
    before: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        before = json.loads(status.read_bytes())
    document: dict[str, Any] = {"ok": True, "time": _utc(began), "last_success": _utc(began)}
    try:
        document.update(backup.backup(config))
        size = f"{document['bytes']:,} bytes, {document['added']:,} of them new"
        print(f"snapshot {document['snapshot']}: {document['files']} files, {size}")
    except (Failure, OSError) as error:
        document.update(ok=False, last_success=before.get("last_success"), error=str(error))
        print(f"The backup failed: {error}", file=sys.stderr)
    document["seconds"] = round(time.time() - began, 1)
    temporary = status.with_suffix(".new")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(temporary, status)
    return 0 if document["ok"] else 1


def _restore(config: Config, options: argparse.Namespace) -> int:
    try:
        planned = restore.plan(config, options.snapshot, options.project)
        print(f"The snapshot {planned.snapshot[:8]} of {planned.time}: {planned.same} files are here as they were.")
        if options.dry_run:
            size = sum(planned.missing.values())
            _tell(f"{len(planned.missing)} are missing and would come back, {size:,} bytes.", [*planned.missing])
            replaced = planned.different if options.overwrite else []
            kept = [] if options.overwrite else planned.different
        else:
            count, kept = restore.restore(config, planned, options.overwrite)
            print(f"{count} came back.")
            replaced = []
        if replaced:
            _tell(f"{len(replaced)} differ and would be replaced.", replaced)
        if kept:
            _tell(f"{len(kept)} differ from the snapshot, and stay; -e restore_overwrite=true replaces them.", kept)
    except (Failure, OSError) as error:
        print(
            f"The restore did not come to its end: {error}. Each file is as it was or as in the snapshot; mend that and run it again.",
            file=sys.stderr,
        )
        return 1
    return 0


def _tell(what: str, paths: Sequence[str]) -> None:
    """With names, as far as anybody reads them."""
    more = [f"and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    print(what, *paths[:SHOWN], *more, sep="\n  ")


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
