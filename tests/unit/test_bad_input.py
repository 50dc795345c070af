"""Every bad input fails in playbooks/validate.yml, with a message that names the variable and the fix."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HASH = "$2b$12$" + "abcdefghijklmnopqrstuO" + "abcdefghijklmnopqrstuvwxyzABCDu"
GOOD: list[dict[str, Any]] = [{"name": "alice", "role": "publisher", "password": "Wonderland"}]

# What a supported host says about itself; the runs take it from the fact cache and gather nothing.
FACTS = {
    "ansible_distribution": "Debian",
    "ansible_distribution_version": "12.9",
    "ansible_distribution_major_version": "12",
    "ansible_os_family": "Debian",
    "ansible_architecture": "x86_64",
    "_ansible_facts_gathered": True,
}


@dataclass(frozen=True)
class Case:
    """Variables of the server, and what the refusal must say."""

    variables: dict[str, Any]
    says: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    servers: tuple[str, ...] = ("server",)


def users(*accounts: dict[str, Any]) -> dict[str, Any]:
    return {"pypi_users_accounts": list(accounts)}


def alice(**entry: Any) -> dict[str, Any]:
    """One account: alice, as far as the case does not say otherwise."""
    return users({"name": "alice", **entry})


CASES = {
    "no users": Case(users(), ("pypi_users_accounts", "at least one")),
    "no list of users": Case({"pypi_users_accounts": None}, ("pypi_users_accounts", "required")),
    "duplicate user": Case(users(GOOD[0], GOOD[0]), ("pypi_users_accounts[1] (alice)", "duplicate", "keep one")),
    "empty password": Case(alice(password=""), ("alice", "password is empty", "set one")),
    "long password": Case(alice(password="x" * 73), ("alice", "73 bytes", "72", "shorter")),
    "long password in UTF-8": Case(alice(password="ä" * 37), ("alice", "74 bytes", "72", "shorter")),
    "colon in a name": Case(users({"name": "a:b", "password": "x"}), ("pypi_users_accounts[0]", "name must be", "letters")),
    "newline in a name": Case(users({"name": "a\nb", "password": "x"}), ("pypi_users_accounts[0]", "name must be")),
    "both secrets": Case(alice(password="x", password_hash=HASH), ("alice", "both of password and password_hash", "exactly one")),
    "neither secret": Case(alice(), ("alice", "neither of password and password_hash", "exactly one")),
    "{SHA} hash": Case(alice(password_hash="{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="), ("alice", "bcrypt", "htpasswd -nBC 12")),
    "apr1 hash": Case(alice(password_hash="$apr1$lCGWRT5c$uLgyxmVJwpiKPDFDFIlvR/"), ("alice", "bcrypt", "htpasswd -nBC 12")),
    "plain text as hash": Case(alice(password_hash="Wonderland"), ("alice", "bcrypt", "htpasswd -nBC 12")),
    "cut hash": Case(alice(password_hash=HASH[:-1]), ("alice", "bcrypt", "htpasswd -nBC 12")),
    "unknown role": Case(alice(password="x", role="admin"), ("pypi_users_accounts", "role", "admin", "publisher")),
    "unknown key": Case(alice(password="x", passwd="y"), ("passwd", "pypi_users_accounts", "password_hash")),
    "projects of a reader": Case(alice(password="x", projects=["acme-*"]), ("alice", "projects", "role: publisher")),
    "unknown system": Case({}, ("Gentoo", "not supported", "Debian"), facts={"ansible_distribution": "Gentoo"}),
    "old system": Case({}, ("Debian 11", "not supported", "12"), facts={"ansible_distribution_version": "11.1"}),
    "port 0": Case({"pypi_stack_http_port": 0}, ("pypi_stack_http_port is 0", "1 to 65535")),
    "port 65536": Case({"pypi_stack_https_port": 65536}, ("pypi_stack_https_port is 65536", "1 to 65535")),
    "port that is no number": Case({"pypi_stack_https_port": "https"}, ("pypi_stack_https_port", "int")),
    "relative directory": Case({"pypi_directory": "opt/pypi"}, ("opt/pypi", "absolute path")),
    "relative place for packages": Case({"pypi_stack_packages": "srv/packages"}, ("pypi_stack_packages", "absolute path")),
    "relative certificate": Case(
        {"pypi_tls_mode": "files", "pypi_tls_certificate_file": "a.pem"}, ("pypi_tls_certificate_file", "absolute path")
    ),
    "unknown TLS mode": Case({"pypi_tls_mode": "yes please"}, ("pypi_tls_mode", "self_signed")),
    "size without unit": Case({"pypi_stack_max_upload_size": "1000"}, ("pypi_stack_max_upload_size", "k, m, g")),
    "weak hashes": Case({"pypi_users_bcrypt_cost": 4}, ("pypi_users_bcrypt_cost is 4", "10 to 15")),
    "no server": Case({}, ("pypi_servers has 0 hosts", "exactly one"), servers=()),
    "two servers": Case({}, ("pypi_servers has 2 hosts", "exactly one"), servers=("server", "second")),
    "nothing wrong": Case({}, ()),
}


def validate(directory: Path, case: Case) -> subprocess.CompletedProcess[str]:
    directory.mkdir()
    variables = {"pypi_users_accounts": GOOD, "pypi_ca_directory": str(directory), **case.variables}
    group = {"hosts": dict.fromkeys(case.servers), "vars": {"ansible_connection": "local", **variables}}
    (directory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"pypi_servers": group, "pypi_clients": {}}}}))
    for server in case.servers:
        cache = directory / "facts" / f"s1_{server}"
        cache.parent.mkdir(exist_ok=True)
        for name in (cache, cache.with_name(server)):  # the file's name has a prefix in some versions
            name.write_text(json.dumps(FACTS | case.facts))
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_GATHERING": "smart",
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(directory / "facts"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    command = ["ansible-playbook", "-i", str(directory / "hosts.yml"), "playbooks/validate.yml"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """All cases, as many at a time as there are cores: each is mostly Ansible's own start."""
    directory = tmp_path_factory.mktemp("cases")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda item: validate(directory / str(item[0]), item[1]), enumerate(CASES.values()))
        yield dict(zip(CASES, results, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_bad_input(runs: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    run, case = runs[name], CASES[name]
    output = run.stdout + run.stderr
    if not case.says:
        assert run.returncode == 0, output
        return
    assert run.returncode != 0, output
    message = " ".join(output.split())
    assert not [said for said in case.says if said not in message], message
    assert "Wonderland" not in message
    assert "changed=1" not in message


def test_site_validates_before_anything_else() -> None:
    plays = yaml.safe_load((ROOT / "site.yml").read_text("utf-8"))
    assert [play["import_playbook"] for play in plays] == [
        "playbooks/validate.yml",
        "playbooks/server.yml",
        "playbooks/clients.yml",
    ] or plays[0]["import_playbook"] == "playbooks/validate.yml"
