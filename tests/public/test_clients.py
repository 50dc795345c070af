"""pip, uv, poetry and pdm get public packages through the engine: real ones from PyPI, as this machine's pip is told to reach it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from index.test_clients import RESOLVERS, Client, project, tools

from .conftest import Engine, Start, document, process
from .front import fronted
from .upstream import Upstream

__all__ = ["tools"]

# Small ones, which need twenty more.
WANTED = (
    *("build", "cachetools", "cattrs", "docutils", "filelock", "flask", "httpx[http2,socks]", "humanize", "inflection"),
    *("jsonschema", "more-itertools", "parso", "platformdirs", "pyparsing", "pytest", "python-dotenv", "requests"),
    *("rich", "simpleeval", "sortedcontainers", "tabulate", "termcolor", "tomlkit", "toolz", "tqdm", "uvicorn"),
    *("wheel", "wsproto"),
)
INSTALL = {
    "pip": ("pip", "install", "--no-compile", "--target", "there"),
    "uv": ("uv", "pip", "install", "--target", "there"),
}


def pypi(**more: Any) -> dict[str, Any]:
    """As pip reaches it from here, which may be a mirror with a private address."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    told = dict(re.findall(r"^(?:global|:env:)\.(index-url|cert)='(.*)'$", listed, re.MULTILINE))
    where = {"url": told.get("index-url", ""), "ca_file": told.get("cert", "")}
    return {"name": "pypi", **where, "allow_private_addresses": ["0.0.0.0/0", "::/0"], **more}


@dataclass
class Site:
    """An engine and its clients, each with a home of its own in which nothing is cached."""

    base: Path
    tools: Path
    engine: Engine
    url: str
    asked: list[str]

    def client(self) -> Client:
        home = self.base / f"home{len(list(self.base.glob('home*')))}"
        home.mkdir()
        return Client(home, self.tools, self.url, self.asked)

    def install(self, name: str) -> dict[str, str]:
        """Everything wanted into an empty directory: the digests of what is there afterwards."""
        client = self.client()
        client.run(*INSTALL[name], "--index-url", self.url, *WANTED)
        there = client.home / "there"
        files = [path for path in there.rglob("*") if path.is_file()]
        return {str(path.relative_to(there)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def site(base: Path, tools: Path, **more: Any) -> Iterator[Site]:
    """From PyPI, with the defaults for age and time; whatever an earlier one has kept is there."""
    wanted = document([pypi(**more)], base / "cache", timeout=20, minimum_age=604_800, page_seconds=1)
    with process(wanted, base) as engine, fronted(engine) as (url, asked):
        yield Site(base, tools, engine, url, asked)


@pytest.fixture
def public(tmp_path: Path, tools: Path) -> Iterator[Site]:
    with site(tmp_path, tools) as public:
        yield public


def releases(tree: dict[str, str]) -> set[str]:
    return {path.split(".dist-info")[0] for path in tree if path.endswith(".dist-info/METADATA")}


def test_fifty_packages_again_without_pypi(tmp_path: Path, tools: Path) -> None:
    with site(tmp_path, tools) as online:
        first = {name: online.install(name) for name in INSTALL}
    found = releases(first["pip"])
    assert len(found) >= 50
    assert releases(first["uv"]) == found
    with site(tmp_path, tools, proxy="http://127.0.0.1:9") as offline:  # where nobody listens
        assert offline.engine.ask("/simple/never-asked/").status == 502
        for name in INSTALL:
            assert offline.install(name) == first[name]


LOCKS = {
    "uv": (
        '[[tool.uv.index]]\nurl = "{url}"\ndefault = true\n',
        ("uv", "lock"),
        ("uv", "sync", "--frozen"),
        "uv.lock",
    ),
    "poetry": (
        '[tool.poetry]\npackage-mode = false\n[[tool.poetry.source]]\nname = "private"\nurl = "{url}"\n',
        ("poetry", "lock", "--no-interaction"),
        ("env", "--unset=VIRTUAL_ENV", "POETRY_VIRTUALENVS_IN_PROJECT=1", "poetry", "install", "--no-interaction"),
        "poetry.lock",
    ),
}


@pytest.mark.parametrize("tool", LOCKS)
def test_a_lock_file_names_this_server_only_and_installs_elsewhere(public: Site, tool: str) -> None:
    source, lock, install, name = LOCKS[tool]
    here, there = public.client(), public.client()
    project(here, "rich", source.format(url=public.url))
    here.run(*lock)
    text = (here.home / name).read_text()
    addresses = re.findall(r"\w+://[^\s\"']+", text)
    assert addresses and all(address.startswith(public.url.removesuffix("simple/")) for address in addresses), text
    for path in ("pyproject.toml", name):
        shutil.copy(here.home / path, there.home)
    there.run(*install)
    assert set(re.findall(r'^name = "(.*)"', text, re.MULTILINE)) >= {"rich", "pygments"}
    assert {path.name.split("-")[0] for path in there.home.rglob("*.dist-info")} >= {"rich", "pygments"}
    assert (there.home / name).read_text() == text


@pytest.fixture
def client(upstream: Upstream, start: Start, tmp_path: Path, tools: Path) -> Iterator[Client]:
    """Of `lib`, whose wheels say nothing of what their page says."""
    upstream.add("lib", "1.0", uploaded="2021-01-01T00:00:00.000000Z")
    upstream.add("lib", "2.0", uploaded="2025-01-01T00:00:00.000000Z")
    upstream.add("lib", "3.0", says={"requires-python": ">=4"})
    upstream.add("lib", "4.0", says={"yanked": "broken"})
    with fronted(start()) as (url, asked):
        yield Client(tmp_path, tools, url, asked)


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("name", ["pip", "uv", "pdm"])  # poetry asks the wheel
def test_pythons_and_yanks_are_as_the_upstream_has_them(
    client: Client, upstream: Upstream, name: str, html: bool
) -> None:
    upstream.html = html
    assert "lib-2.0" in RESOLVERS[name](client, "lib")
    assert "lib-4.0" in RESOLVERS[name](client, "lib==4.0")


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize(
    ("name", "option"), [("uv", "--exclude-newer"), ("pip", "--uploaded-prior-to"), ("pdm", "--exclude-newer")]
)
def test_the_index_as_of_a_day(client: Client, upstream: Upstream, name: str, option: str, html: bool) -> None:
    upstream.html = html
    assert "lib-1.0" in RESOLVERS[name](client, "lib", option, "2023-01-01")
