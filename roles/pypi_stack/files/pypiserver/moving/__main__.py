"""python -m moving <SPEC: what is to be done, as JSON on the standard input, for there are passwords in it.

    {"do": "in", "source": "/source" or URL, "projects": ["acme-*"], "stages": [], "largest": BYTES, "dry": false,
     "username": "", "password": "", "ca": PEM, "proxy": {"https": URL}}
    {"do": "out", "target": "/target", "dry": false}

Progress is told on the standard error, the report is a line of JSON on the standard output. Exit 0: all is done; 1: something was refused,
the rest was taken; 2: it could not begin, or had to stop.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from static_index import guard
from static_index.app import store_from_environment

from .directory import Directory
from .incoming import Taking
from .offers import Failed, Report, Source, Stopped, Wanted
from .outgoing import Leaving
from .simple import SimpleIndex
from .web import Web


def main() -> int:
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    spec, report = json.load(sys.stdin), Report()
    store, dry = store_from_environment(), bool(spec.get("dry"))
    store.inspector.start()  # before threads
    code = 0
    try:
        if spec["do"] == "out":
            Leaving(store, Path(spec["target"]), report, dry=dry).run()
        else:
            wanted = Wanted(spec.get("projects", ()))
            source = _source(spec, wanted, report)
            Taking(store, source, wanted, report, guard.from_environment(), int(spec["largest"]), dry).run()
    except (Stopped, Failed) as error:
        report.refuse("move_out_directory" if spec["do"] == "out" else "move_in_source", str(error))
        code = 2
    print(report, file=sys.stderr, flush=True)
    print(report.dump(), flush=True)
    return code or (1 if report.refused else 0)


def _source(spec: dict[str, Any], wanted: Wanted, report: Report) -> Source:
    """A directory by its path, or an index by its address."""
    place = str(spec["source"])
    if place.startswith("/"):
        return Directory(Path(place), wanted, report, spec.get("stages", ()))
    web = Web(place, spec.get("username", ""), spec.get("password", ""), spec.get("ca", ""), spec.get("proxy"))
    return SimpleIndex(place, web, wanted, report)


if __name__ == "__main__":
    sys.exit(main())
