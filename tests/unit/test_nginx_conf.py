"""The rendered nginx.conf, as gixy (a linter that looks for ways in) sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

ROLE = Path(__file__).parents[2] / "roles/pypi_stack"
GIXY = Path(sys.executable).with_name("gixy")

JUSTIFIED = {
    # pypiserver gets the name that was asked for with its port, which $host would lose. What it makes of a forged one is shown
    # to the forger alone: no answer is cached for others.
    ("host_spoofing", "pypiserver.conf"),
}


def findings(directory: Path, tls: bool, spoil: tuple[str, str] = ("", "")) -> set[tuple[str, str]]:
    """Check and file of everything that gixy says about the configuration, with one text replaced by another."""
    variables = yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8"))
    variables |= {"ansible_managed": "by Ansible", "pypi_stack_hostname": "pypi.example.com", "pypi_stack_tls": tls}
    template = (ROLE / "templates/nginx.conf.j2").read_text("utf-8")
    rendered = str(Templar(loader=DataLoader(), variables=variables).template(trust_as_template(template)))
    assert spoil[0] in rendered
    (directory / "nginx.conf").write_text(rendered.replace(*spoil).replace("/etc/pypi", str(directory)), "utf-8")
    (directory / "pypiserver.conf").write_text((ROLE / "files/nginx/pypiserver.conf").read_text("utf-8"), "utf-8")
    run = subprocess.run([GIXY, "--format=json", directory / "nginx.conf"], capture_output=True, text=True, check=False)
    assert "pypiserver.conf" not in run.stderr, run.stderr
    return {(found["plugin"], Path(found["file"]).name) for found in json.loads(run.stdout)}


@pytest.mark.parametrize("tls", [True, False])
def test_gixy_finds_nothing(tmp_path: Path, tls: bool) -> None:
    assert findings(tmp_path, tls) == JUSTIFIED


@pytest.mark.parametrize(
    ("before", "after", "check"),
    [
        ("TLSv1.2 TLSv1.3", "TLSv1 TLSv1.2", "weak_ssl_tls"),
        ("server_tokens off", "server_tokens on", "version_disclosure"),
        ("https://pypi.example.com$request_uri", "https://$http_host$uri", "http_splitting"),
    ],
)
def test_gixy_can_find(tmp_path: Path, before: str, after: str, check: str) -> None:
    assert check in {name for name, _ in findings(tmp_path, True, (before, after))}
