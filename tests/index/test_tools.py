"""The newest of every tool, on a machine that the role has set up, installs and publishes with no flag for it and no prompt.

By the role's own plan and module, below a directory that the tools see as their home and, laid over the machine's, as /etc. The
index wants a login, and TLS by a CA that only the host's bundle has.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pypi_client_files as files
import pytest
from places import places
from pypi_client_edit import plan
from pypi_simple import PYPI_SIMPLE_ENDPOINT

from .artifacts import wheel
from .clients import HERE, environment, program
from .serve import certified, reading, serving
from .test_matrix import BUNDLE

# What the README says that the scope `user` leaves to the user.
TOLD = {"flit": "REQUESTS_CA_BUNDLE=$BUNDLE", "pipenv in a project that names PyPI": "PIPENV_PYPI_MIRROR=$URL"}
ALONE = """
mount -t overlay overlay -o "lowerdir=$MACHINE:/etc" /etc
mount --bind "$CA" "$BUNDLE"
[ ! -e /etc/profile.d/private-pypi.sh ] || . /etc/profile.d/private-pypi.sh
eval "$1" </dev/null
"""
FOREIGN = {
    "etc/pip.conf": "# policy\n[global]\ntimeout = 42",
    "etc/uv/uv.toml": "offline = false\r\n",
    "home/.netrc": "machine other.example login someone password else",
    "home/.pypirc": "[distutils]\nindex-servers =\n  other\n\n[other]\nrepository = https://other.example/\n",
    "home/.config/pypoetry/config.toml": "[repositories.other] # ours\nurl   =  'https://other.example/'\n",
    "home/.config/pdm/config.toml": "[pypi]\nverify_ssl = true",
}
PROJECT = '[project]\nname = "{name}"\nversion = "1.0"\nrequires-python = ">=3.11"\n'
FLIT = 'description = "x"\n[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
HATCH = '[tool.hatch.envs.default]\nskip-install = true\ndependencies = ["app"]\n'
PIPFILE = f'[[source]]\nname = "pypi"\nurl = "{PYPI_SIMPLE_ENDPOINT}"\nverify_ssl = true\n'
IMPORT = "python -c 'import app; print(app.answer)'"
INSTALLS = {
    "pip": f"python -m venv .venv; PYTHONPATH=$PIP .venv/bin/python -m pip install app; .venv/bin/{IMPORT}",
    "pip-tools": "echo app | pip-compile --quiet --output-file=pins.txt -; grep -q app==1.0 pins.txt; "
    f"uv venv --quiet; uv pip sync pins.txt; .venv/bin/{IMPORT}",
    "uv": f"uv add app; uv sync; uv run {IMPORT}",
    "poetry": f"poetry source add --priority=primary private $URL; poetry add app; poetry run {IMPORT}",
    "pdm": f"pdm add --no-self app; pdm run {IMPORT}",
    "pipenv": f"pipenv install app; pipenv run {IMPORT}",
    "pipenv in a project that names PyPI": f"pipenv install app; pipenv run {IMPORT}",
    "hatch": f"hatch run {IMPORT}",
}
EXTRA = {"poetry": "[tool.poetry]\npackage-mode = false\n", "hatch": HATCH}
PUBLISHES = {
    "twine": "twine upload dist/*",
    "uv": "uv publish",
    "poetry": "poetry publish -r private",
    "pdm": "pdm publish --no-build",
    "hatch": "hatch publish",
    "flit": "flit publish",
}


@cache
def path() -> str:
    own = (environment("newest", HERE / "clients.lock"), environment("more", HERE / "more-clients.lock"))
    return ":".join([f"{program('uv-newest')}/bin", *map(str, own), os.environ["PATH"]])


@dataclass
class Machine:
    base: Path
    scope: str
    url: str
    asked: list[str]

    def configure(self, state: str = "present") -> list[str]:
        """What a run of the role writes."""
        user = {"user": "ci", "username": "alice", "password": "alicealice", "publish": True}
        want = {"index_url": self.url, "upload_url": self.url.removesuffix("simple/"), "repository": "private"}
        more = {"cert": BUNDLE, "tools": list(plan.KINDS), "uv_trust": "system-certs", "keep_public": False}
        wanted = want | more | {"anonymous_read": False, "remove": state == "absent"}
        ids = [str(os.getuid()), str(os.getgid())]
        passwd = {"ci": ["ci", "x", *ids, "", str(self.base / "home"), "/bin/sh"]}
        here = places("Linux", self.base)
        targets = plan.pypi_client_targets([user], self.scope, here, passwd, wanted)
        record = here["record"]
        seen = files.look({"record": record, "read": targets, "store": None, "uv": []})
        writes = plan.pypi_client_plan(seen, targets, [user], wanted, record)["writes"]
        for write in writes:
            files.write(write)
        return [plan.pypi_client_place(write) for write in writes]

    def settings(self) -> dict[str, bytes]:
        hidden = [self.base / "home" / name for name in (".config", ".netrc", ".pypirc")]
        found = [
            file for place in (*hidden, self.base / "etc") for file in (place, *place.rglob("*")) if file.is_file()
        ]
        return {str(file.relative_to(self.base)): file.read_bytes() for file in found}

    def run(self, command: str, project: Path, tool: str = "") -> str:
        if self.scope == "user" and tool in TOLD:
            command = f"export {TOLD[tool]}; {command}"
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", ALONE, "sh", f"set -e; {command}"],
            env={
                "HOME": str(self.base / "home"),
                "XDG_CACHE_HOME": str(project / "cache"),
                "PATH": path(),
                "PIP": str(program("pip-newest")),
                "MACHINE": str(self.base / "etc"),
                "CA": str(self.base / "ca.pem"),
                "BUNDLE": BUNDLE,
                "URL": self.url,
                "LANG": "C.UTF-8",
            },
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said


@pytest.fixture(scope="module", params=["system", "user"])
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    base = tmp_path_factory.mktemp(request.param)
    for name, text in FOREIGN.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text, newline="")
    (base / "var/lib").mkdir(parents=True)
    tls = certified(base)
    with (
        serving(base / "index") as server,
        reading(server.store, tls, "alice:alicealice", server.url) as (url, asked),
    ):
        made = Machine(base, request.param, url, asked)
        made.run("hatch config show", base)  # it writes its own settings on its first start, with the public index
        before = made.settings()
        assert made.configure()
        assert server.upload(wheel("app", "1.0")).ok
        yield made
        assert made.configure() == [], "what a tool did to its settings is no change"
        made.configure("absent")
        assert made.settings() == before


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.mark.parametrize("tool", INSTALLS)
def test_it_installs(machine: Machine, project: Path, tool: str) -> None:
    (project / "pyproject.toml").write_text(PROJECT.format(name="x") + EXTRA.get(tool, ""))
    if "PyPI" in tool:
        (project / "Pipfile").write_text(PIPFILE)
    machine.asked.clear()
    assert "42" in machine.run(INSTALLS[tool], project, tool).splitlines()
    assert "/packages/app-1.0-py3-none-any.whl" in machine.asked


@pytest.mark.parametrize("tool", PUBLISHES)
def test_it_publishes(machine: Machine, project: Path, tool: str) -> None:
    name = f"from-{tool}"
    file, content = wheel(name, "1.0")
    (project / "dist").mkdir()
    (project / "dist" / file).write_bytes(content)
    (project / "pyproject.toml").write_text(PROJECT.format(name=name) + (FLIT if tool == "flit" else ""))
    (project / "from_flit.py").touch()
    machine.run(PUBLISHES[tool], project, tool)
    assert (machine.base / "index/packages" / file).exists()
