"""Old and new clients install from the same pages: no page may hold what one of them stumbles over.

The releases are the real ones, in a Python that most are older than: removed/ gives the old pips what Python has removed since.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from static_index.store import Store

from .artifacts import wheel
from .clients import HERE, PROGRAMS, environment, old_python_modules, program
from .conftest import adding
from .serve import reading


@dataclass(frozen=True)
class Outcome:
    """What is installed afterwards, what was asked for, and what the client said."""

    packages: set[str]
    asked: list[str]
    said: str


Command = Callable[[Path, str], tuple[dict[str, str], list[str | Path]]]


def pip(name: str) -> Command:
    """A pip that does not live in the environment that it fills."""

    def command(home: Path, url: str) -> tuple[dict[str, str], list[str | Path]]:
        path = str(program(name))
        if name != "pip-newest":
            path = f"{old_python_modules()}:{path}"
        install = ["install", "--no-cache-dir", "--disable-pip-version-check", "--index-url", url, "app"]
        return {"PYTHONPATH": path}, [home / "venv/bin/python", "-m", "pip", *install]

    return command


def uv(name: str) -> Command:
    return lambda home, url: (
        {"VIRTUAL_ENV": str(home / "venv")},
        [program(name) / "bin/uv", "pip", "install", "--no-cache", "--default-index", url, "app"],
    )


PROJECT = """\
[tool.poetry]
name = "x"
version = "1"
description = ""
authors = []
package-mode = false
[tool.poetry.dependencies]
python = ">=3.11,<4"
app = "*"
[[tool.poetry.source]]
name = "private"
url = "{url}"
"""


def poetry(name: str) -> Command:
    def command(home: Path, url: str) -> tuple[dict[str, str], list[str | Path]]:
        (home / "pyproject.toml").write_text(PROJECT.format(url=url))
        lock = HERE / ("clients.lock" if name == "poetry-newest" else f"{name}.lock")
        tool = environment("newest" if name == "poetry-newest" else name, lock) / "poetry"
        return {"VIRTUAL_ENV": str(home / "venv")}, [tool, "install", "--no-interaction", "--no-cache"]

    return command


MATRIX = {name: pip(name) if name.startswith("pip-") else uv(name) for name in PROGRAMS}
MATRIX |= {name: poetry(name) for name in ("poetry-1.8", "poetry-newest")}


def install(name: str, store: Store, home: Path) -> Outcome:
    """Ask for `app` in an empty environment."""
    home.mkdir()
    subprocess.run(["uv", "venv", "--quiet", home / "venv"], check=True)
    with reading(store) as (url, asked):
        variables, command = MATRIX[name](home, url)
        base = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PIP_CONFIG_FILE": os.devnull,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            command, env=base | variables, cwd=home, capture_output=True, text=True, check=False, timeout=300
        )
        found = {
            path.name.removesuffix(".dist-info") for path in home.glob("venv/lib/python*/site-packages/*.dist-info")
        }
        return Outcome(found, list(asked), done.stdout + done.stderr)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Outcome]]:
    """All of them, as many at a time as there are cores: each is mostly its own start."""
    base = tmp_path_factory.mktemp("matrix")
    store = Store(base / "packages", base / "index")
    add = adding(store)
    add(wheel("app", "1!1", fields=("Requires-Dist: lib",)))
    for version in ("1.0", "1.5", "2.0rc1", "1.7"):
        add(wheel("lib", version))
    add(wheel("lib", "1.6", fields=("Requires-Python: >=4",)))
    store.yank("lib", "1.7", "broken")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {name: pool.submit(install, name, store, base / name) for name in MATRIX}


@pytest.mark.parametrize("name", MATRIX)
def test_it_installs_the_newest_that_is_for_it(installed: dict[str, Future[Outcome]], name: str) -> None:
    """Neither a pre-release nor a version for another Python nor a yanked one; pip 9 is older than yanks (PEP 592)."""
    outcome = installed[name].result()
    assert outcome.packages == {"app-1!1", "lib-1.7" if name == "pip-9.0.3" else "lib-1.5"}, outcome.said


def test_who_knows_metadata_asks_for_it(installed: dict[str, Future[Outcome]]) -> None:
    """uv and poetry in all of these releases; pip since 23.2, which is the first to know the key that JSON has (PEP 714)."""
    asking = {
        name for name, each in installed.items() if any(path.endswith(".metadata") for path in each.result().asked)
    }
    assert asking == {name for name in MATRIX if not re.match(r"pip-(9|19|2[0-2]|23\.[01])\.", name)}
