"""The pipelines of docs/pipelines.md install and publish with real tools, and leave no token behind.

A shell stands for the runners: it runs their steps in order, with the variables that they would have.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from .artifacts import wheel
from .clients import HERE, environment, program
from .serve import TOKENS, Server, certified, reading, serving

GITHUB, GITLAB, _DEPENDABOT = map(
    partial(yaml.load, Loader=yaml.BaseLoader),
    re.findall(r"^```yaml\n((?:.|\n)*?)^```", (HERE.parents[1] / "docs/pipelines.md").read_text(), re.MULTILINE),
)
SECRETS = {"PYPI_READ": TOKENS["bob/read"], "PYPI_PUBLISH": TOKENS["bob/tools"]}
PROJECT = {
    "requirements.txt": "app\n",
    "test_app.py": "import unittest, app\nclass Test(unittest.TestCase):\n    def test(self): assert app.answer == 42\n",
    "pyproject.toml": """
[project]
name = "tools"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["app"]
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
""",
    # What a backend from the index would make.
    "backend.py": """
import os, shutil
def build_wheel(directory, *_):
    return os.path.basename(shutil.copy("tools-1.0-py3-none-any.whl", directory))
build_editable = build_wheel
def build_sdist(directory, *_):
    import io, tarfile
    with tarfile.open(f"{directory}/tools-1.0.tar.gz", "w:gz") as archive:
        archive.add("pyproject.toml", "tools-1.0/pyproject.toml")
        archive.add("backend.py", "tools-1.0/backend.py")
        archive.add("tools-1.0-py3-none-any.whl", "tools-1.0/tools-1.0-py3-none-any.whl")
        text = b"Metadata-Version: 2.1\\nName: tools\\nVersion: 1.0\\n\\n"
        info = tarfile.TarInfo("tools-1.0/PKG-INFO")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
    return "tools-1.0.tar.gz"
""",
}


@dataclass
class Runner:
    """One with a machine of its own: home, temporary directory and the project are below `base`."""

    base: Path
    url: str
    index: Server
    path: str
    said: str = ""
    kept: dict[str, str] = field(default_factory=dict)
    """What a step of GitHub leaves in GITHUB_ENV."""

    @property
    def project(self) -> Path:
        return self.base / "project"

    def here(self, text: str) -> str:
        """With this machine's index and directories, and without GitHub's expressions."""
        text = re.sub(r"\$\{\{ *secrets\.(\w+) *\}\}", lambda found: SECRETS[found[1]], text)
        text = text.replace("https://pypi.example.com/simple/", self.url)
        text = text.replace("https://pypi.example.com/", self.url.removesuffix("simple/"))
        return text.replace("pypi.example.com", "localhost").replace("/tmp/", f"{self.base}/tmp/")

    def run(self, script: str, *environments: Mapping[str, str], **more: str) -> None:
        variables = {name: self.here(value) for each in environments for name, value in each.items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", self.here(script)],
            env={
                "HOME": str(self.base / "home"),
                "PATH": self.path,
                "PIP_CONFIG_FILE": os.devnull,
                "RUNNER_TEMP": str(self.base / "tmp"),
                "GITHUB_ENV": str(self.base / "tmp/env"),
                **variables,
                **self.kept,
                **more,
            },
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, self.said
        if (env := self.base / "tmp/env").exists():
            self.kept |= dict(line.split("=", 1) for line in env.read_text().splitlines())

    def leaked(self) -> list[str]:
        """Files, and what was said, with a token in it."""
        found = [path for path in self.base.rglob("*") if path.is_file() and "index" not in path.parts]
        texts = {str(path.relative_to(self.base)): path.read_bytes() for path in found} | {"output": self.said.encode()}
        return [name for name, text in texts.items() if any(secret.encode() in text for secret in SECRETS.values())]

    def published(self) -> list[str]:
        return sorted(path.name for path in self.index.store.packages.glob("tools-*"))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    tls = certified(tmp_path)
    for name in ("home", "tmp", "project"):
        (tmp_path / name).mkdir()
    for name, text in PROJECT.items():
        (tmp_path / "project" / name).write_text(text)
    (tmp_path / "project/ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    filename, content = wheel("tools", fields=("Requires-Dist: app",))
    (tmp_path / "project" / filename).write_bytes(content)
    more = environment("more", HERE / "more-clients.lock")
    subprocess.run(["uv", "venv", "--quiet", "--seed", tmp_path / "python"], check=True)
    with (
        serving(tmp_path / "index") as server,
        reading(server.store, tls, f"__token__:{TOKENS['bob/read']}", server.url) as (url, _),
    ):
        assert server.upload(wheel("app")).ok
        path = f"{tmp_path}/python/bin:{program('uv-newest')}/bin:{more}:{os.environ['PATH']}"
        yield Runner(tmp_path, url, server, path)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


def test_github(runner: Runner) -> None:
    steps: list[dict[str, Any]] = [step for step in GITHUB["jobs"]["package"]["steps"] if "run" in step]
    login, *others = steps
    runner.run(login["run"], GITHUB["env"], login["env"])
    assert mode(runner.base / "tmp/netrc") == "0o600"
    runner.run("uv lock", GITHUB["env"])  # as whoever wrote the project did
    for step in others:
        runner.run(step["run"], GITHUB["env"], step.get("env", {}))
    assert runner.published() == ["tools-1.0-py3-none-any.whl", "tools-1.0.tar.gz"]
    assert runner.leaked() == ["tmp/netrc"]


def test_gitlab(runner: Runner) -> None:
    """The image's Python has what this machine's has: build and twine are there already."""
    more = next((HERE.parents[1] / ".cache/clients/more/lib").glob("python*/site-packages"))
    for name in ("test", "publish"):
        job = GITLAB[name]
        variables = {**GITLAB["variables"], **job.get("variables", {}), **SECRETS}
        variables = {
            key: re.sub(r"^\$(\w+)$", lambda found: SECRETS[found[1]], text) for key, text in variables.items()
        }
        runner.run("\n".join([*GITLAB["default"]["before_script"], *job["script"]]), variables, PYTHONPATH=str(more))
        assert mode(runner.base / "tmp/netrc") == "0o600"
        runner.run("\n".join(GITLAB["default"]["after_script"]), variables)
    assert runner.published() == ["tools-1.0-py3-none-any.whl", "tools-1.0.tar.gz"]
    assert runner.leaked() == []
