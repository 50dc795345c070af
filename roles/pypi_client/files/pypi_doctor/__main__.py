"""`python3 pypi_doctor`: ends with the code of the first finding, or 0."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

if not __package__:  # the directory itself was run
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pypi_doctor import __doc__ as about
from pypi_doctor.findings import CODES, Finding, Trouble
from pypi_doctor.index import Index, look_at_index
from pypi_doctor.settings import Environment, look_at_secrets, look_at_settings, look_at_tools, of_pip, of_uv


def look(index: str, env: Environment, directory: Path, publish: bool = False, project: str = "") -> list[Finding]:
    """Everything that is wrong; first what keeps the index from being reached."""
    told = (of_pip(env).get("index-url"), of_uv(env, directory).get("index-url"))
    index = index or next((setting.value for setting in told if setting), "")
    if urlsplit(index).scheme not in ("http", "https"):
        fix = "run playbooks/clients.yml for this machine, or say --index https://…/simple/"
        return [Finding(10, "neither pip nor uv is set to an index", fix)]
    found: list[Finding] = []
    try:
        found += look_at_index(Index(index, env), env, publish, re.sub("[-_.]+", "-", project).lower())
    except Trouble as trouble:
        found.append(trouble.finding)
    return [*found, *look_at_settings(index, env, directory), *look_at_secrets(env), *look_at_tools(env, directory)]


def main(arguments: Sequence[str] | None = None) -> int:
    codes = "; ".join(f"{code} {what}" for code, what in CODES.items())
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0], epilog=f"Exit codes: {codes}.")
    parser.add_argument(
        "--index", default="", metavar="URL", help="https://…/simple/; without: what pip or uv is set to"
    )
    parser.add_argument("--publish", action="store_true", help="may the login upload? Nothing is uploaded")
    parser.add_argument("--project", default="", metavar="NAME", help="may it upload this project? Nothing is uploaded")
    parser.add_argument("--json", action="store_true", help="a list of {code, what, fix}")
    options = parser.parse_args(arguments)
    found = look(options.index, os.environ, Path.cwd(), options.publish, options.project)
    if options.json:
        print(json.dumps([finding._asdict() for finding in found]))
    else:
        print(
            "\n".join(f"[{code}] {CODES[code]}: {what}\n     {fix}" for code, what, fix in found) or "Nothing is wrong."
        )
    return found[0].code if found else 0


if __name__ == "__main__":
    sys.exit(main())
