"""The operator's command: python -m static_index rebuild | verify | yank | unyank | delete | give-up | recover-names | check"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import sync
from . import verify as verification
from .app import store_from_environment
from .errors import Refusal
from .store import Store


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("static_index", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rebuild", help="bring every page in line with the package directory")
    verify = commands.add_parser(
        "verify", help="read every file, and name what is not as it was recorded; changes nothing"
    )
    verify.add_argument(
        "--json", action="store_true", help="a line of JSON for each finding, and one with what was read"
    )
    commands.add_parser(
        "check", help="read everything and name what a rebuild from nothing would make otherwise; changes nothing"
    )
    commands.add_parser(
        "recover-names",
        help="make the register of names anew, when it was lost and the packages are there: until then nothing is asked of other indexes",
    )
    giving = commands.add_parser(
        "give-up", help="let go of a name that has no files any more, and let another index answer for it"
    )
    giving.add_argument("name", help="project, in any spelling")
    for name, text in (
        ("yank", "keep a version from being chosen, but leave it to those who pinned it (PEP 592)"),
        ("unyank", "take a yank back"),
        ("delete", "delete all files of a version"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", help="project, in any spelling")
        command.add_argument("version")
        if name == "yank":
            command.add_argument("--reason", default="", help="shown to whoever installs it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    store = store_from_environment()
    try:
        if options.command == "rebuild":
            sync.rebuild(store, _progress())
            return 0
        if options.command == "verify":
            return _verify(store, as_json=options.json)
        if options.command == "check":
            different = sync.differences(store)
            print(*different or ["everything is as a rebuild would make it"], sep="\n")
            return 1 if different else 0
        if options.command == "recover-names":
            sync.build_register(store, sync.look(store), recover=True)
            return 0
        if options.command == "give-up":
            store.give_up(options.name)
            return 0
        if options.command == "delete":
            touched = store.remove_version(options.name, options.version)
            store.index.write_root()
        else:
            touched = store.yank(options.name, options.version, getattr(options, "reason", None))
    except Refusal as error:
        print(error, file=sys.stderr)
        return 1
    print(*touched, sep="\n")
    return 0


def _verify(store: Store, *, as_json: bool) -> int:
    verification.give_way()
    counts, found = verification.Counts(), 0
    accounts = Path(os.environ.get("USERS_DIRECTORY") or "/users")
    for found, finding in enumerate(verification.verify(store, accounts, counts, _progress()), start=1):
        print(json.dumps(vars(finding)) if as_json else f"{finding.what}\n    {finding.fix}", flush=True)
    if as_json:
        print(json.dumps(vars(counts)))
    else:
        print(f"{found} findings in {counts.files} files of {counts.projects} projects, {counts.bytes:,} bytes")
    return 1 if found else 0


def _progress() -> Callable[[int, int], None]:
    """One line that moves on a terminal, one every five seconds elsewhere."""
    shown = time.monotonic()
    pause, end = (0.1, "\r") if sys.stderr.isatty() else (5.0, "\n")

    def show(done: int, total: int) -> None:
        nonlocal shown
        if done == total or time.monotonic() - shown > pause:
            shown = time.monotonic()
            print(f"{done} of {total} projects", end="\n" if done == total else end, file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
