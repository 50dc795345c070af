"""Programs that ask an index, each release apart from the others, in .cache/clients.

Locks are made by `… | uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url -`:
clients.lock of poetry, pdm[locked] (what pdm was tested with) and pip, apart from requirements.lock since poetry and pdm pin what
other tools want newer; more-clients.lock of pipenv, hatch, flit, twine and pip-tools; poetry-1.8.lock of poetry~=1.8.0; old-clients.lock of one
program at a time.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache/clients"
SYNC = ("uv", "pip", "sync", "--quiet", "--require-hashes")


def _pins(lock: Path) -> dict[str, str]:
    """What a lock says of pip and uv, by `name-release`."""
    found = re.findall(r"^((pip|uv)==(\S+)(?: \\\n    --hash=\S+)+)", lock.read_text(), re.MULTILINE)
    return {f"{name}-{release}": pin for pin, name, release in found}


def _newest(name: str, lock: Path) -> dict[str, str]:
    return {f"{name}-newest": pin for each, pin in _pins(lock).items() if each.startswith(f"{name}-")}


PROGRAMS = {
    **_pins(HERE / "old-clients.lock"),
    **_newest("pip", HERE / "clients.lock"),
    **_newest("uv", HERE.parents[1] / "requirements.lock"),
}


def program(name: str) -> Path:
    """Where the modules of one of PROGRAMS are, and its commands below bin/."""
    target = CACHE / name
    subprocess.run(
        [*SYNC, "--python", sys.executable, "--target", target, "-"], input=PROGRAMS[name], text=True, check=True
    )
    return target


def environment(name: str, lock: Path) -> Path:
    """The commands of a virtual environment with what a lock lists."""
    venv = CACHE / name
    if not (venv / "bin/python").exists():
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run([*SYNC, "--python", venv, lock], check=True)
    return venv / "bin"


def old_python_modules() -> str:
    """PYTHONPATH for a pip that is older than this Python."""
    target, lock = CACHE / "removed", HERE / "removed/requirements.lock"
    subprocess.run([*SYNC, "--python", sys.executable, "--target", target, lock], check=True)
    return f"{lock.parent}:{target}"
