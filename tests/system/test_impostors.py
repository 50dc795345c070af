"""A stranger's 99.0 under a name of ours is never installed, whichever client asks for it and whatever its password is."""

from __future__ import annotations

import platform
import re
import subprocess

import pytest
from index.clients import HERE, SYNC

from .lab import Edge, Lab, right
from .packages import make_wheel

pytestmark = pytest.mark.scenario("default")

WORK = "/home/admin/impostors"
# Both read the one that is for them. Without a source of theirs they would ask PyPI.
PROJECT = """\
[project]
name = "x"
version = "1"
requires-python = ">=3.11,<4"
dependencies = ["{requirement}"]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "private"
url = "{url}/simple/"
[tool.pdm]
distribution = false
[[tool.pdm.source]]
name = "pypi"
url = "{url}/simple/"
"""
CLIENTS = {
    "pip": f"{WORK}/venv/bin/pip install --no-input --no-cache-dir --target there '{{}}'",
    "uv": "uv pip install --no-cache --target there '{}'",
    "poetry": "python3 -m poetry install --no-interaction --no-cache",
    "pdm": "python3 -m pdm install",
}
OURS = ("survivor", "departed", "acme-sdk")
"""With a release; with one that was deleted; reserved and never published."""


def asked(lab: Lab) -> str:
    """Of the upstream, until now."""
    return str(lab.root_of_client.check_output("journalctl --unit upstream --no-pager"))


@pytest.fixture(scope="module")
def strangers(lab: Lab, edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> str:
    """They come when the names are ours, of which the upstream was asked whether they are public; what it was asked until then."""
    edge.upload(make_wheel("departed", "1.0", 0, tmp_path_factory.mktemp("wheel")), "alice")
    lab.compose("exec -T pypiserver python3 -m static_index delete departed 1.0")
    for name in OURS:
        add = f"rm -rf /srv/upstream/simple/{name} && python3 /srv/upstream.py /srv/upstream {name} 99.0"
        lab.root_of_client.check_output(add)
    return asked(lab)


@pytest.fixture(scope="module")
def tools(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """poetry and pdm beside the client's Python, and homes with the right password, a wrong one and none."""
    minor = lab.client.check_output("python3 -c 'import sys; print(sys.version_info.minor)'")
    target = tmp_path_factory.mktemp("tools") / "impostors"
    suited = ("--python-version", f"3.{minor}", "--python-platform", f"{platform.machine()}-manylinux_2_28")
    subprocess.run([*SYNC, *suited, "--target", target / "tools", HERE / "clients.lock"], check=True)
    homes = {"right": "", "wrong": f"machine {lab.hostname} login alice password guessed", "none": ""}
    for home, netrc in homes.items():
        (target / home).mkdir()
        (target / home / ".netrc").write_text(netrc)
    lab.root_of_client.check_output(f"rm -rf {WORK}")
    lab.bring(target)
    lab.root_of_client.check_output(f"chown -R admin: {WORK}")
    lab.client.check_output(f"cp ~/.netrc {WORK}/right/ && python3 -m venv {WORK}/venv")
    lab.client.check_output(f"chmod 600 {WORK}/*/.netrc")  # pdm passes over one that others can read


def install(lab: Lab, client: str, home: str, requirement: str) -> tuple[set[str], str]:
    """The releases that are there afterwards, and what the client said."""
    project = PROJECT.format(requirement=requirement, url=lab.url)
    script = f"""
        . /etc/profile
        export HOME={WORK}/{home} PYTHONPATH={WORK}/tools
        export POETRY_VIRTUALENVS_IN_PROJECT=1 PDM_NON_INTERACTIVE=1 PDM_CHECK_UPDATE=0 PDM_CACHE_DIR=cache
        rm -rf {WORK}/project && mkdir {WORK}/project && cd {WORK}/project
        cat >pyproject.toml <<'END'\n{project}END
        timeout 120 {CLIENTS[client].format(requirement)} 2>&1"""
    said = lab.client.run(script).stdout
    find = f"find {WORK}/project -name '*.dist-info' ! -name 'pip-*' -printf '%f\\n'"  # poetry's environments have pip
    return {name.removesuffix(".dist-info") for name in lab.client.check_output(find).split()}, said


@pytest.mark.parametrize("client", CLIENTS)
def test_ours_and_the_public_one_are_installed(lab: Lab, strangers: str, tools: None, client: str) -> None:
    for requirement, release in (("SURVIVOR", "survivor-1.0"), ("hello", "hello-1.1")):
        found, said = install(lab, client, "right", requirement)
        assert found == {release}, said


@pytest.mark.parametrize("client", CLIENTS)
def test_a_name_of_ours_without_a_release_has_none(lab: Lab, strangers: str, tools: None, client: str) -> None:
    for requirement in ("departed", "DePARTed", "acme-sdk", "Acme_SDK", "acme..sdk"):
        found, said = install(lab, client, "right", requirement)
        assert not found, said


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("home", ["wrong", "none"])
def test_without_the_right_password_there_is_nothing(
    lab: Lab, strangers: str, tools: None, home: str, client: str
) -> None:
    for requirement in OURS:
        found, said = install(lab, client, home, requirement)
        assert not found, said


@pytest.mark.parametrize("project", ["departed", "acme-sdk"])
def test_no_spelling_leads_to_a_stranger(lab: Lab, edge: Edge, strangers: str, project: str) -> None:
    wheel = f"{project.replace('-', '_')}-99.0-py3-none-any.whl"
    digest = lab.client.check_output(f"sha256sum /srv/upstream/simple/{project}/{wheel}")[:16]
    for between in ("-", "_", "..", "%20", "%2E", "%2F", "%2D-"):
        for name in (project.replace("-", between), f"%{ord(project[0]):x}{project[1:]}".upper().replace("-", between)):
            paths = (f"/simple/{name}/", f"/+simple/{name}/", f"/pypi/{name}/json", f"/public/{name}/{digest}/{wheel}")
            for path in paths:
                answer = edge.request(path, right("alice"))
                assert answer.status in (301, 303, 400, 404) and b"99.0" not in answer.body, (path, answer)


def test_nobody_was_asked_for_them(lab: Lab, strangers: str) -> None:
    log = asked(lab)
    assert "GET /simple/hello/ " in log
    assert not re.search("/simple/(survivor|departed|acme)", log.removeprefix(strangers))
