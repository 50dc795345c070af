"""The rendered nginx.conf, as gixy (a linter that looks for ways in) sees it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

ROLE = Path(__file__).parents[2] / "roles/pypi_stack"
TEMPLATES = ROLE / "templates"
GIXY = Path(sys.executable).with_name("gixy")


def render(**changed: object) -> str:
    """As Ansible would, with the role's defaults."""
    variables = {
        name: trust_as_template(value) if isinstance(value, str) else value
        for part in ("defaults", "vars")
        for name, value in yaml.safe_load((ROLE / part / "main.yml").read_text("utf-8")).items()
    }
    variables |= {
        "ansible_managed": "by Ansible",
        "pypi_stack_hostname": "pypi.example.com",
        "__pypi_stack_edge": "code",
        **changed,
    }
    templar = Templar(loader=DataLoader()).copy_with_new_env(searchpath=[TEMPLATES], available_variables=variables)
    return str(templar.template(trust_as_template((TEMPLATES / "nginx.conf.j2").read_text("utf-8"))))


def findings(directory: Path, configuration: str) -> set[str]:
    """The checks that gixy has something to say about."""
    (directory / "nginx.conf").write_text(configuration, "utf-8")
    run = subprocess.run([GIXY, "--format=json", directory / "nginx.conf"], capture_output=True, text=True, check=False)
    return {found["plugin"] for found in json.loads(run.stdout)}


def test_no_concern_is_left_out() -> None:
    templates = {path: path.read_text("utf-8") for path in TEMPLATES.rglob("*.conf.j2")}
    called = set(re.findall(r"{{ ((?:\w+\.)?\w+)\(\)", "".join(templates.values())))
    for path, text in templates.items():
        for macro in re.findall(r"{% macro (\w+)\(", text):
            assert {macro, f"{path.name.partition('.')[0]}.{macro}"} & called, f"{path.name}: {macro}"
    assert len(templates) > 5


def test_whoever_adds_a_header_adds_all_of_them() -> None:
    """A block with one of its own inherits none (add_header)."""
    for block in re.findall(r"{[^{}]*add_header[^{}]*}", render()):
        assert "X-Content-Type-Options nosniff" in block


@pytest.mark.parametrize("tls", [True, False])
def test_gixy_finds_nothing(tmp_path: Path, tls: bool) -> None:
    assert findings(tmp_path, render(pypi_stack_tls=tls)) == set()


@pytest.mark.parametrize(
    ("before", "after", "check"),
    [
        ("TLSv1.2 TLSv1.3", "TLSv1 TLSv1.2", "weak_ssl_tls"),
        ("server_tokens off", "server_tokens on", "version_disclosure"),
        ("https://pypi.example.com$request_uri", "https://$http_host$uri", "http_splitting"),
    ],
)
def test_gixy_can_find(tmp_path: Path, before: str, after: str, check: str) -> None:
    rendered = render()
    assert before in rendered
    assert check in findings(tmp_path, rendered.replace(before, after))
