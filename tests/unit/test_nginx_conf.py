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
    called = set(re.findall(r"{{ ((?:\w+\.)?\w+)\(", "".join(templates.values())))
    for path, text in templates.items():
        for macro in re.findall(r"{% macro (\w+)\(", text):
            assert {macro, f"{path.name.partition('.')[0]}.{macro}"} & called, f"{path.name}: {macro}"
    assert len(templates) > 5


def test_whoever_adds_a_header_adds_all_of_them() -> None:
    """A block with one of its own inherits none (add_header)."""
    for block in re.findall(r"{[^{}]*add_header[^{}]*}", render(pypi_stack_trusted=True)):
        assert "X-Content-Type-Options nosniff" in block


@pytest.mark.parametrize("more", [True, False])
@pytest.mark.parametrize("tls", [True, False])
def test_gixy_finds_nothing(tmp_path: Path, tls: bool, more: bool) -> None:
    rendered = render(pypi_stack_tls=tls, pypi_stack_public=more, pypi_stack_trusted=more)
    assert findings(tmp_path, rendered) == set()


def locations(configuration: str) -> dict[str, str]:
    """What is between the braces of each, without what is in locations inside of it."""
    found: dict[str, str] = {}
    for match in re.finditer(
        r"^( *)location ([^{\n]*(?:\{\d+\}[^{\n]*)*) \{\n(.*?)^\1\}", configuration, re.MULTILINE | re.DOTALL
    ):
        found |= locations(match[3])
        found[match[2]] = re.sub(r"^( +)location .*?^\1\}\n", "", match[3], flags=re.MULTILINE | re.DOTALL)
    return found


def test_without_public_packages_nothing_of_them_is_there() -> None:
    rendered = render(pypi_stack_public=False)
    for word in ("public:8080", "8081", "$owner", "@fetch", "@kept_page", "/+public"):
        assert word not in rendered, word


def test_without_trusted_pipelines_nothing_of_them_is_there() -> None:
    for word in ("oidc/audience", "oidc/mint-token", "8082", "signature", "zone=mints"):
        assert word in render(pypi_stack_trusted=True), word
        assert word not in render(), word


def test_what_the_mint_gets_has_no_login_in_it() -> None:
    """And a limit, and no more than a token's length of body."""
    asking = {name: text for name, text in locations(render(pypi_stack_trusted=True)).items() if "$mint;" in text}
    assert set(asking) == {"= /_/oidc/audience", "= /_/oidc/mint-token"}
    for text in asking.values():
        for line in (
            "proxy_pass_request_headers off;",
            "limit_req zone=mints burst=60 nodelay;",
            "client_max_body_size 33k;",
        ):
            assert line in text
        assert "$http_authorization" not in text


def test_nobody_is_asked_before_it_is_known_that_a_name_is_not_ours() -> None:
    """Every location with something of the cache, or that goes on to the engine, looks at the register first."""
    found = locations(render(pypi_stack_public=True))
    looking = {name for name, text in found.items() if "if ($whose = us)" in text and "if ($whose != others)" in text}
    asking = {name for name, text in found.items() if re.search(r"@fetch|/public/(?:files|simple)/\$public", text)}
    assert asking
    for name in asking - looking:  # one that others go on to, which have looked, or which the engine alone comes to
        before = {other for other, text in found.items() if f"{name};" in text}
        assert before, name
        assert all(other in looking or "internal;" in found[other] for other in before), name


def test_only_who_was_let_in_gets_to_the_engine() -> None:
    """Those that ask it are reached through locations that ask the login, or come after one that does."""
    found = locations(render(pypi_stack_public=True))
    for target in ("@fetch_page", "@fetch_file", "@fetch_document"):
        (before,) = [name for name, text in found.items() if target in text]
        while "auth_request off" in found[before]:
            assert before.startswith("@")
            (before,) = [
                name for name, text in found.items() if re.search(rf"{before}\b", text) and name != "@kept_page"
            ]


def test_the_engine_makes_the_form_that_is_served_afterwards() -> None:
    found = locations(render(pypi_stack_public=True))
    assert "/simple/$public_project/?$clear;" in found["@fetch_page"]
    (served,) = [text for text in found.values() if "/public/simple/$kept/$clear " in text]
    assert "try_files" in served


def test_what_the_engine_gets_has_nothing_of_the_client() -> None:
    for text in (text for text in locations(render(pypi_stack_public=True)).values() if "$engine" in text):
        assert "proxy_pass_request_headers off" in text
        assert "proxy_pass_request_body off" in text
        assert not re.search(r"\$(?:remote|http_|login|args|request_uri|is_args)", text)


def test_a_private_page_is_read_as_without_public_packages() -> None:
    """The location that known users' reads end in differs by where it goes when there is no page."""
    with_public, without = (locations(render(pypi_stack_public=public)) for public in (True, False))
    page = next(name for name in without if "/simple/(?<project>" in name)
    assert with_public[page].replace("@kept_page", "@read") == without[page]


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


def test_the_engine_is_told_whose_request_it_is_and_nothing_else_of_it() -> None:
    """Or one reader could take all of its places."""
    asked = {name: body for name, body in locations(render(pypi_stack_public=True)).items() if "set $engine" in body}
    assert {"@fetch_page", "@fetch_document", "@fetch_file"} < set(asked) and len(asked) == 4
    for name, body in asked.items():
        assert "proxy_pass_request_headers off;" in body, name
        who = "$public_reader" if name.startswith("@fetch") else "pypiserver"
        assert f"proxy_set_header X-Reader {who};" in body, name


def test_limits_by_address_are_by_network() -> None:
    """Every customer of IPv6 has more addresses than could be counted."""
    rendered = render(pypi_stack_trusted=True)
    zones = re.findall(r"limit_(?:req|conn)_zone (\S+) zone=(\w+)", rendered)
    assert ("$binary_remote_addr", "mints") not in zones and ("$network", "mints") in zones
    limited = [
        text for text in locations(rendered).values() if re.search(r"limit_(req|conn) (zone=mints|uploads_by)", text)
    ]
    assert len(limited) == 3
    for text in limited:
        assert "js_set $network network.of;" in text
    assert "binary_remote_addr" not in rendered
