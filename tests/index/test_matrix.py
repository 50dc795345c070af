"""Old and new clients, set up by the role's own files, install from the same pages: no file and no page may hold what one stumbles over.

The releases are the real ones, in a Python that most are older than: removed/ gives the old pips what Python has removed since.
The index wants TLS by a CA that only the host's bundle has, and a login. As the clients see it, nothing else is in that bundle, and
the machine has no configuration of its own.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path

import pytest
import yaml
from pypi_client_edit import environment as shell
from pypi_client_edit import ini, netrc
from pypi_client_edit import uv as uv_settings

from static_index import pages
from static_index.store import Store

from .artifacts import wheel
from .clients import HERE, PROGRAMS, environment, old_python_modules, program
from .conftest import adding
from .serve import certified, reading

ROLE, README = HERE.parents[1] / "roles/pypi_client", HERE.parents[1] / "README.md"
STORES = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__pypi_client_stores"].values()
BUNDLE = next(store["bundle"] for store in STORES if Path(store["bundle"]).exists())
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # as the README has it, for Debian
ALONE = """
mount --bind "$0" "$BUNDLE"
for file in /etc/pip.conf /etc/uv/uv.toml; do [ ! -e $file ] || mount --bind /dev/null $file; done
exec "$@"
"""


@dataclass(frozen=True)
class Outcome:
    """What is installed afterwards, what was asked for, and what the client said."""

    packages: set[str]
    asked: list[str]
    said: str


@dataclass(frozen=True)
class Client:
    """A home on a machine with these releases of uv, and a command that installs `app` into $HOME/venv."""

    command: Sequence[str]
    variables: dict[str, str]
    uv: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def pip(name: str) -> Client:
    """It does not live in the environment that it fills."""
    path = str(program(name)) if name == "pip-newest" else f"{old_python_modules()}:{program(name)}"
    command = ("venv/bin/python", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "app")
    return Client(command, {"PYTHONPATH": path})


def uv(name: str, *others: str) -> Client:
    programs = [f"{program(each)}/bin/uv" for each in (name, *others)]
    versions = [subprocess.check_output([each, "--version"], text=True).split()[1] for each in programs]
    return Client((programs[0], "pip", "install", "--no-cache", "app"), {}, uv=tuple(versions))


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


def poetry(name: str, lock: str) -> Client:
    """It has a CA bundle of its own, but reads what the role tells login shells."""
    command = f". ./.profile; exec {environment(name, HERE / lock)}/poetry install --no-interaction --no-cache"
    return Client(("sh", "-euc", command), {}, files={"pyproject.toml": PROJECT})


def by_the_readme(client: Callable[..., Client], *arguments: str) -> Client:
    """What it says of machines that the role has not set up."""
    blocks = re.findall(r"^```\w+\n# ~/(\S+).*\n((?:.*\n)*?)```$", README.read_text(), re.MULTILINE)
    assert [path for path, _ in blocks] == [".config/pip/pip.conf", ".config/uv/uv.toml", ".netrc", ".profile"]
    told = (
        ("https://pypi.example.com/simple/", "{url}"),
        ("pypi.example.com", "localhost"),
        ("…", "s3cr3t!"),
        (CERTIFICATES, BUNDLE),
    )
    there = {path: reduce(lambda text, each: text.replace(*each), told, text) for path, text in blocks}
    made = client(*arguments)
    return replace(made, files=made.files | there)


MATRIX: dict[str, Callable[[], Client]] = {
    **{name: partial(pip if name.startswith("pip-") else uv, name) for name in PROGRAMS},
    "uv-newest-beside-old": partial(uv, "uv-newest", "uv-0.4.30"),
    "poetry-1.8": partial(poetry, "poetry-1.8", "poetry-1.8.lock"),
    "poetry-newest": partial(poetry, "newest", "clients.lock"),
    "pip-by-the-readme": partial(by_the_readme, pip, "pip-23.0.1"),
    "uv-by-the-readme": partial(by_the_readme, uv, "uv-newest"),
    "poetry-by-the-readme": partial(by_the_readme, poetry, "newest", "clients.lock"),
}


@dataclass(frozen=True)
class Index:
    store: Store
    bundle: Path
    tls: ssl.SSLContext

    def install(self, name: str, home: Path) -> Outcome:
        """Ask for `app` in an empty environment."""
        client = MATRIX[name]()
        home.mkdir()
        subprocess.run(["uv", "venv", "--quiet", home / "venv"], check=True)
        with reading(self.store, self.tls, "alice:s3cr3t!") as (url, asked):
            for path, text in (configuration(url, client.uv) | client.files).items():
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_text(text.replace("{url}", url))
                (home / path).chmod(0o600)
            base = {"HOME": str(home), "PATH": os.environ["PATH"], "VIRTUAL_ENV": str(home / "venv"), "BUNDLE": BUNDLE}
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-euc", ALONE, self.bundle, *client.command],
                env=base | {"PYTHONDONTWRITEBYTECODE": "1"} | client.variables,
                cwd=home,
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
        found = home.glob("venv/lib/python*/site-packages/*.dist-info")
        return Outcome({path.name.removesuffix(".dist-info") for path in found}, asked, done.stdout + done.stderr)


FOREIGN_LOGINS = """machine other.example login b password c 

machine localhost
  login old password old
machine third.example login b password c
"""  # a comment behind a blank and a blank line is what Python's netrc stumbles over


def configuration(url: str, uv: Sequence[str]) -> dict[str, str]:
    """What the role writes."""
    want = {"index_url": url, "upload_url": url, "repository": "private", "cert": BUNDLE, "keep_public": False}
    want |= {
        "uv_trust": uv_settings.uv_trust_option("auto", uv),
        "anonymous_read": False,
        "remove": False,
        "tools": ["pip", "uv", "twine"],
    }
    return {
        ".config/pip/pip.conf": ini.pip_conf("", "", want),
        ".config/uv/uv.toml": uv_settings.uv_toml("", "", want),
        ".netrc": netrc.netrc(FOREIGN_LOGINS, "", want, {"username": "alice", "password": "s3cr3t!"}),
        ".profile": shell.profile(want),
    }


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    base = tmp_path_factory.mktemp("index")
    tls = certified(base)
    store = Store(base / "packages", base / "index")
    add = adding(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "BLOCK", 1)  # compressed in several pieces, as pages of many files are
        add(wheel("app", "1!1", fields=("Requires-Dist: lib",)))
        for version in ("1.0", "1.5", "2.0rc1", "1.7"):
            add(wheel("lib", version))
        add(wheel("lib", "1.6", fields=("Requires-Python: >=4",)))
        store.yank("lib", "1.7", "broken")
    return Index(store, base / "ca.pem", tls)


@pytest.fixture(scope="module")
def installed(index: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Outcome]]:
    """All of them, as many at a time as there are cores: each is mostly its own start."""
    base = tmp_path_factory.mktemp("homes")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {name: pool.submit(index.install, name, base / name) for name in MATRIX}


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
    assert asking == {name for name in MATRIX if not re.match(r"pip-(9|19|2[0-2]|23\.[01]|by)", name)}


def test_uv_asks_with_its_login_at_once(installed: dict[str, Future[Outcome]]) -> None:
    """0.4 reads over `authenticate`, which it does not know."""
    refused = {name: each.result().asked.count("401") for name, each in installed.items() if name.startswith("uv-")}
    assert refused.pop("uv-0.4.30") > 0
    assert refused == dict.fromkeys(refused, 0)


def test_uv_warns_only_beside_an_old_one(installed: dict[str, Future[Outcome]]) -> None:
    warned = {name for name, each in installed.items() if re.search("warn|deprecat", each.result().said)}
    assert {name for name in warned if name.startswith("uv-")} == {"uv-newest-beside-old"}
