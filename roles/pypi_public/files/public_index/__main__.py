"""Public packages: python3 -m public_index serve | list | purge NAME [FILE]"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from . import config
from .cache import Cache
from .mirror import Mirror
from .names import normalise
from .server import Server


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("public_index", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve", help="answer nginx")
    command.add_argument("--host", default="0.0.0.0")
    command.add_argument("--port", type=int, default=8080)
    commands.add_parser("list", help="what the cache holds: size in bytes, day of last use, project, file")
    command = commands.add_parser(
        "purge", help="remove a project or a file from the cache; it is fetched anew when asked for"
    )
    command.add_argument("name", help="project, in any spelling")
    command.add_argument("file", nargs="?", default="", help="file name; without it, everything of the project")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    try:
        wanted = config.load(Path(os.environ.get("PUBLIC_CONFIG", "/config.json")))
    except config.ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if options.command == "serve":
        return _serve(wanted, options.host, options.port)
    cache = Cache(wanted.cache, wanted.cache_size)
    if options.command == "list":
        for kept in sorted(cache.kept()):
            day = time.strftime("%Y-%m-%d", time.gmtime(kept.used))
            print(f"{kept.size:>12} {day} {kept.project} {kept.filename}")
        return 0
    removed = cache.purge(normalise(options.name), options.file)
    print(*removed or ["nothing of that is kept"], sep="\n")
    return 0 if removed else 1


def _serve(wanted: config.Config, host: str, port: int) -> int:
    mirror = Mirror(wanted)
    mirror.prepare()
    mirror.watch()
    with Server((host, port), mirror) as server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
