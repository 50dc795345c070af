"""pip, uv, poetry and pdm read the pages; twine and uv publish. Nothing but the index is asked, and every request is counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from static_index.store import Store

from .artifacts import sdist, wheel
from .clients import HERE, environment
from .conftest import Add
from .serve import reading, serving


@pytest.fixture(scope="session")
def tools() -> Path:
    """Where the programs are."""
    return environment("newest", HERE / "clients.lock")


@dataclass
class Client:
    """Programs with a home of their own, and the index that they may ask."""

    home: Path
    tools: Path
    url: str
    asked: list[str] = field(default_factory=list)

    def run(self, *command: str, ok: bool = True) -> str:
        """What it said; fails, saying it, when it did not end as expected."""
        environment = {
            "HOME": str(self.home),
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "PIP_CONFIG_FILE": os.devnull,
            "PDM_CHECK_UPDATE": "0",
            "VIRTUAL_ENV": str(self.tools.parent),
        }
        done = subprocess.run(
            command, env=environment, cwd=self.home, capture_output=True, text=True, check=False, timeout=120
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    def wheels(self) -> list[str]:
        """The wheels that were downloaded so far."""
        return [path for path in self.asked if path.endswith(".whl")]

    def write(self, name: str, text: str) -> None:
        (self.home / name).write_text(text)


@pytest.fixture
def client(store: Store, tmp_path: Path, tools: Path) -> Iterator[Client]:
    home = tmp_path / "home"
    home.mkdir()
    with reading(store) as (url, asked):
        yield Client(home, tools, url, asked)


def with_pip(client: Client, requirement: str, *options: str) -> str:
    command = ("pip", "install", "--dry-run", "--ignore-installed", "--no-cache-dir", "--index-url", client.url)
    said = client.run(*command, *options, requirement)
    return said.partition("Would install ")[2]


def with_uv(client: Client, requirement: str, *options: str) -> str:
    client.write("requirements.in", requirement)
    command = ("uv", "pip", "compile", "--no-cache", "--no-header", "--index-url", client.url)
    return client.run(*command, *options, "requirements.in").replace("==", "-")


def locked(text: str) -> str:
    """poetry.lock and pdm.lock alike."""
    return " ".join("-".join(pair) for pair in re.findall(r'^name = "(.*)"\nversion = "(.*)"$', text, re.MULTILINE))


def project(client: Client, requirement: str, source: str) -> None:
    head = f'[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11,<4"\ndependencies = ["{requirement}"]\n'
    client.write("pyproject.toml", head + source)


def with_poetry(client: Client, requirement: str, *options: str) -> str:
    project(client, requirement, f'[[tool.poetry.source]]\nname = "private"\nurl = "{client.url}"\n')
    client.run("poetry", "lock", "--no-interaction", "--no-cache", *options)
    return locked((client.home / "poetry.lock").read_text())


def with_pdm(client: Client, requirement: str, *options: str) -> str:
    project(client, requirement, f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{client.url}"\n')
    client.run("pdm", "lock", *options)
    return locked((client.home / "pdm.lock").read_text())


Resolve = Callable[..., str]
RESOLVERS: dict[str, Resolve] = {"pip": with_pip, "uv": with_uv, "poetry": with_poetry, "pdm": with_pdm}


@pytest.fixture(params=RESOLVERS)
def resolve(request: pytest.FixtureRequest) -> Resolve:
    return RESOLVERS[request.param]


@pytest.fixture
def published(store: Store, add: Add) -> Store:
    """An app that wants a library, of which the newest versions are not for everyone."""
    add(wheel("app", "1!1", fields=("Requires-Dist: lib",)))
    for version in ("1.0+local.1", "1.5", "2.0rc1"):
        add(wheel("lib", version))
    add(wheel("lib", "1.6", fields=("Requires-Python: >=4",)))
    return store


def test_metadata_is_enough_to_resolve(published: Store, client: Client, resolve: Resolve) -> None:
    """Neither a pre-release nor a version for another Python; an epoch survives; no wheel is downloaded."""
    found = resolve(client, "app")
    assert "app-1!1" in found and "lib-1.5" in found, found
    assert [path for path in client.asked if path.endswith(".metadata")]
    assert not client.wheels()


def test_a_yanked_version_is_for_who_pinned_it(published: Store, client: Client, resolve: Resolve) -> None:
    published.yank("lib", "1.5", "broken")
    assert "lib-1.0" in resolve(client, "app")  # pdm leaves the local part out
    assert "lib-1.5" in resolve(client, "lib==1.5")


@pytest.mark.parametrize(
    ("resolver", "option"), [("uv", "--exclude-newer"), ("pip", "--uploaded-prior-to"), ("pdm", "--exclude-newer")]
)
def test_the_index_as_of_a_day(store: Store, add: Add, client: Client, resolver: str, option: str) -> None:
    for version, uploaded in (("1.0", 1e9), ("2.0", 1.1e9)):
        os.utime(store.packages / add(wheel("lib", version)).filename, (uploaded, uploaded))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("static_index.store.SETTLE_SECONDS", 0)
        store.refresh("lib", (), whole=True)
    resolve = RESOLVERS[resolver]
    assert "lib-2.0" in resolve(client, "lib")
    assert "lib-1.0" in resolve(client, "lib", option, "2003-01-01")


@pytest.mark.parametrize("name", ["Foo.Bar_baz", "a" * 100 + "-" + "b" * 99])
def test_strange_names_are_found(store: Store, add: Add, client: Client, resolve: Resolve, name: str) -> None:
    add(wheel(name, "1.0"))
    normal, found = (re.sub("[-_.]+", "-", text).lower() for text in (name, resolve(client, name)))
    assert f"{normal}-1-0" in found


def test_pip_and_uv_install_what_they_found(published: Store, add: Add, client: Client) -> None:
    add(sdist("src", "1.0"))
    client.run(
        "pip", "download", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--index-url", client.url, "app"
    )
    assert (client.home / "app-1!1-py3-none-any.whl").read_bytes() == (
        published.packages / "app-1!1-py3-none-any.whl"
    ).read_bytes()
    client.run("uv", "pip", "install", "--no-cache", "--target", "there", "--index-url", client.url, "app")
    assert (client.home / "there/lib-1.5.dist-info").is_dir()


def test_twine_and_uv_publish(tmp_path: Path, tools: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = Client(tmp_path, tools, server.url)
        login = ("--username", "alice", "--password", "alicealice")
        programs = {
            "twine": (sys.executable, "-m", "twine", "upload", "--repository-url", server.url, *login),
            "uv": ("uv", "publish", "--publish-url", server.url, *login),
        }

        def save(artifact: tuple[str, bytes]) -> str:
            client.write(artifact[0], "")
            (tmp_path / artifact[0]).write_bytes(artifact[1])
            return artifact[0]

        for name, program in programs.items():
            client.run(*program, save(wheel(name, "1.0")))
            assert "already exists" in client.run(*program, save(wheel(name, "1.0", content=b"other")), ok=False)
            lie = save((wheel(name, "3.0")[0], wheel(name, "4.0")[1]))
            assert "the form has the version '4.0'" in client.run(*program, lie, ok=False)
        assert set(server.store.index.records.projects()) == {"twine", "uv"}
