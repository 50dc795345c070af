"""The operator's command: python -m static_index rebuild | yank | unyank | delete | give-up | recover-names | check"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable

from . import sync
from .app import store_from_environment
from .errors import Refusal


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("static_index", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("rebuild", help="bring every page in line with the package directory")
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
