"""Every bad input fails in playbooks/validate.yml, with a message that names the variable and the fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Run = subprocess.CompletedProcess[str]
HASH = "$2b$12$" + "abcdefghijklmnopqrstuO" + "abcdefghijklmnopqrstuvwxyzABCDu"
GOOD: list[dict[str, Any]] = [{"name": "alice", "role": "publisher", "password": "Wonderland"}]

# What the hosts of the cases say about themselves, whatever machine the tests run on.
FACTS = {
    "server": ("Debian", "12.9"),
    "client": ("Debian", "13.1"),
    "unknown": ("Gentoo", "2.17"),
}


@dataclass(frozen=True)
class Case:
    """Variables of the server, and what the refusal must say."""

    variables: dict[str, Any]
    says: tuple[str, ...]
    servers: tuple[str, ...] = ("server",)
    clients: tuple[str, ...] = ()


def users(*accounts: dict[str, Any]) -> dict[str, Any]:
    return {"pypi_users_accounts": list(accounts)}


def alice(**entry: Any) -> dict[str, Any]:
    """One account: alice, as far as the case does not say otherwise."""
    return users({"name": "alice", **entry})


SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="
APR1 = "$apr1$lCGWRT5c$uLgyxmVJwpiKPDFDFIlvR/"

# What is checked in one place is wrong in one run: Ansible's own start is what a case costs.
CASES = {
    "no patience": Case(
        {"pypi_users_accounts": GOOD, "host_turn_patience": -1}, ("host_turn_patience is -1", "from 0 on")
    ),
    "no users": Case(users(), ("pypi_users_accounts", "at least one")),
    "bad users": Case(
        users(
            *(GOOD[0], GOOD[0]),
            {"name": "empty", "password": ""},
            {"name": "long", "password": "x" * 73},
            {"name": "umlauts", "password": "ä" * 37},
            {"name": "colon:colon", "password": "x"},
            {"name": "new\nline", "password": "x"},
            {"name": "both", "password": "x", "password_hash": HASH},
            {"name": "neither"},
            {"name": "sha", "password_hash": SHA},
            {"name": "apr1", "password_hash": APR1},
            {"name": "plain", "password_hash": "Wonderland"},
            {"name": "cut", "password_hash": HASH[:-1]},
            {"name": "reader", "password": "x", "projects": ["acme-*"]},
            {"name": "tokens", "tokens": [{"name": "cut", "secret": "ppi_Wonderland"}, {"name": "cut", "hash": HASH}]},
            {
                "name": "ends",
                "tokens": [{"name": "when", "hash": f"sha256:{'0' * 64}", "until": "tomorrow", "scope": "publish"}],
            },
        ),
        (
            "pypi_users_accounts[1] (alice): is a duplicate of entry 0: keep one of them",
            "pypi_users_accounts[2] (empty): password is empty: set one",
            "pypi_users_accounts[3] (long): password is 73 bytes long in UTF-8, bcrypt reads 72: choose a shorter one",
            "pypi_users_accounts[4] (umlauts): password is 74 bytes long",
            "pypi_users_accounts[5]: name must be 1 to 64 ASCII letters",
            "pypi_users_accounts[6]: name must be 1 to 64 ASCII letters",
            "pypi_users_accounts[7] (both): has both of password and password_hash: set exactly one",
            "pypi_users_accounts[8] (neither): has neither of password and password_hash: set exactly one",
            *(
                f"pypi_users_accounts{where}: password_hash is not a whole bcrypt hash ($2b$, $2y$ or $2a$, 60 characters):"
                " make one with `htpasswd -nBC 12 NAME`"
                for where in ("[9] (sha)", "[10] (apr1)", "[11] (plain)", "[12] (cut)")
            ),
            "pypi_users_accounts[13] (reader): projects narrows a publisher, but role is reader: set role: publisher",
            "pypi_users_accounts[14] (tokens): tokens[0] (cut): secret is no whole token",
            "pypi_users_accounts[14] (tokens): tokens[1] (cut): name is that of another token of this account",
            "pypi_users_accounts[14] (tokens): tokens[1] (cut): hash is not sha256: and 64 hexadecimal digits",
            "pypi_users_accounts[15] (ends): tokens[0] (when): scope is publish, but the account's role is reader",
            "pypi_users_accounts[15] (ends): tokens[0] (when): until is 'tomorrow': give its last day, such as 2027-01-31",
        ),
    ),
    "trusting too much": Case(
        users(
            {"name": "all", "role": "publisher", "trusted": {"issuer": "github", "repository": "acme"}},
            {"name": "other", "trusted": {"issuer": "id.example.com", "repository": "acme/lib"}},
            {"name": "a", "trusted": {"issuer": "gitlab", "repository": "acme/lib"}},
            {"name": "b", "trusted": {"issuer": "gitlab", "repository": "acme/lib"}},
        ),
        (
            "pypi_users_accounts[0] (all): trusted needs projects, for a publisher",
            "pypi_users_accounts[0] (all): trusted: repository is 'acme': write OWNER/NAME",
            "pypi_users_accounts[0] (all): trusted: workflow is None: give the name of a file in .github/workflows",
            "pypi_users_accounts[1] (other): trusted: issuer is 'id.example.com': use github, gitlab, buildkite",
            "pypi_users_accounts[3] (b): trusted is the same as that of pypi_users_accounts[2] (a)",
        ),
    ),
    "no CA of the issuers": Case(
        {"pypi_issuers_ca_file": "no/ca.pem"}, ('pypi_issuers_ca_file is \\"no/ca.pem\\", which is no file here',)
    ),
    "unknown role and key": Case(
        alice(password="x", role="admin", passwd="y"),
        (
            "reader, publisher, got: admin",
            "pypi_users_accounts.passwd",
            "Supported parameters include",
            "password_hash",
        ),
    ),
    "unknown system": Case({}, ("Gentoo 2.17", "not supported", "Debian"), servers=("unknown",)),
    "ports out of range": Case(
        {"pypi_stack_http_port": 0, "pypi_stack_https_port": 65536},
        ("pypi_stack_http_port is 0. Give a port from 1 to 65535", "pypi_stack_https_port is 65536. Give a port"),
    ),
    "variable of an earlier version": Case(
        {"pypi_stack_max_archive_members": 20_000}, ("pypi_stack_max_archive_members has no meaning", "Remove it")
    ),
    "proxy that a shell would not take": Case(
        {"pypi_proxy": {"https": "http://someone:Wonderland!@proxy:3128", "http": "proxy:3128"}},
        (
            "docker_host_proxy.http is no URL such as http://user:password@proxy.example.com:3128",
            "docker_host_proxy.https is no URL",
            "%40 (@)",
        ),
    ),
    "exceptions from the proxy": Case(
        {"pypi_proxy": {"no_proxy": "a, b"}},
        ('docker_host_proxy.no_proxy is \\"a, b\\". Give names and networks',),
    ),
    "address in brackets": Case(
        {"pypi_stack_listen_address": "[::]"}, ('pypi_stack_listen_address is \\"[::]\\". Give one', "2001:db8::10")
    ),
    "digest that is cut": Case(
        {"pypi_stack_nginx_image": "nginx:1.28@sha256:cafe"},
        ('pypi_stack_nginx_image is \\"nginx:1.28@sha256:cafe\\". Give NAME:TAG or NAME:TAG@sha256:DIGEST',),
    ),
    "one digest and an IPv6 address": Case(
        {"pypi_stack_nginx_image": "nginx:1.28@sha256:" + "0" * 64, "pypi_stack_listen_address": "2001:db8::1"}, ()
    ),
    "relative directory": Case(
        {"pypi_directory": "opt/pypi"}, ('pypi_users_directory is \\"opt/pypi/users\\". Give an absolute path',)
    ),
    "relative place for packages": Case(
        {"pypi_stack_packages": "srv/packages"}, ('pypi_stack_packages is \\"srv/packages\\"', "absolute path")
    ),
    "relative certificate": Case(
        {"pypi_tls_mode": "files", "pypi_tls_certificate_file": "a.pem", "pypi_tls_key_file": "b.pem"},
        ("pypi_tls_certificate_file is 'a.pem'. Give the absolute path", "pypi_tls_key_file is 'b.pem'"),
    ),
    "unknown TLS mode": Case({"pypi_tls_mode": "yes please"}, ("pypi_tls_mode", "self_signed")),
    "bad settings of public packages": Case(
        {
            "pypi_public_upstreams": [
                {"name": "torch", "url": "https://us:Wonderland@packages.example.com/"},
                {"name": "torch", "username": "us", "ca_file": "ca.pem"},
            ],
            "pypi_public_reserved_names": ["Acme_*"],
            "pypi_public_minimum_age": "7",
            "pypi_public_exempt": [{"name": "urllib3", "version": "2.9.1", "until": "tomorrow"}],
            "pypi_public_cache_size": "20",
        },
        (
            "pypi_public_upstreams[0] (torch): url has a user in it: give username and password",
            "pypi_public_upstreams[1] (torch) is a duplicate of entry 0",
            "pypi_public_upstreams[1] (torch): has only one of username and password",
            "pypi_public_upstreams[1] (torch): ca_file is 'ca.pem', which is no absolute path",
            "pypi_public_upstreams[0] (torch) answers for all projects, so what is behind it is never asked: put it last",
            "pypi_public_reserved_names has 'Acme_*': patterns match normalised names (PEP 503)",
            'pypi_public_minimum_age is \\"7\\": give a number and one of the units s, m, h, d, w',
            "pypi_public_exempt[0] (urllib3): until is 'tomorrow': give its last day",
            'pypi_public_cache_size is \\"20\\": give a number',
        ),
    ),
    "unknown key of an upstream": Case(
        {"pypi_public_upstreams": [{"name": "pypi", "uri": "https://packages.example.com/"}]},
        ("pypi_public_upstreams.uri", "Supported parameters include"),
    ),
    "unknown way with public packages": Case(
        {"pypi_public_packages": "allow"}, ("pypi_public_packages", "proxy, cached, deny, got: allow")
    ),
    "relative place for public packages": Case(
        {"pypi_public_cache": "srv/public"}, ('is \\"srv/public\\"', "absolute path (/srv/packages)")
    ),
    "one place for both kinds of packages": Case(
        {"pypi_public_cache": "pypi_packages"}, ("pypi_stack_public_cache and pypi_stack_packages are both",)
    ),
    "what verify could not go by": Case(
        {"pypi_verify_free_percent": 100, "pypi_verify_status_file": "status.json"},
        ("pypi_verify_free_percent is 100. Give a number from 0 to 99", "pypi_verify_status_file is"),
    ),
    "no backup to come back from": Case(
        {
            "pypi_backup_repository": "a disk",
            "pypi_backup_passphrase": "short",
            "pypi_backup_keep": {"daily": 0},
        },
        (
            "pypi_backup_repository is no repository that this role can use",
            "pypi_backup_passphrase has 5 characters. Give at least 12",
            "pypi_backup_keep keeps nothing",
        ),
    ),
    "a backup to a server that nobody knows": Case(
        {
            "pypi_backup_repository": "sftp:me@host:/backup",
            "pypi_backup_passphrase": "long enough for everybody",
            "pypi_backup_sftp_key": "ssh-ed25519 AAAA",
            "pypi_backup_ca_file": "/no/such.pem",
        },
        (
            "pypi_backup_sftp_key is no private key",
            "pypi_backup_sftp_known_hosts is empty",
            "pypi_backup_ca_file is /no/such.pem, and there is no such file",
        ),
    ),
    "no server": Case({}, ("pypi_servers has 0 hosts", "exactly one"), servers=()),
    "accounts that a client does not have": Case(
        {
            "pypi_client_users": [
                {"user": name, "username": "x", "password": "y"} for name in ("root", "no-such", "nor-this", "0")
            ]
        },
        ("pypi_client_users names accounts that this host does not have (0, no-such, nor-this): create them first",),
        clients=("client",),
    ),
    "nothing wrong": Case({}, (), clients=("client",)),
}


def write_facts_modules(library: Path) -> None:
    """One for each host: what `gather_facts` runs in place of `setup`."""
    library.mkdir()
    for host, (distribution, version) in FACTS.items():
        facts: dict[str, Any] = {
            "distribution": distribution,
            "distribution_version": version,
            "os_family": distribution,
        }
        facts |= {"distribution_major_version": version.partition(".")[0], "architecture": "x86_64"}
        facts |= {"python": {"executable": sys.executable}}
        said = json.dumps({"ansible_facts": {f"ansible_{key}": value for key, value in facts.items()}})
        (library / f"facts_of_{host}").write_text(f"#!/bin/sh\necho '{said}'\n")


def validate(base: Path, name: str) -> Run:
    case, directory = CASES[name], base / name
    directory.mkdir()
    variables = {"pypi_users_accounts": GOOD, "pypi_ca_directory": str(directory), **case.variables}

    def group(*hosts: str) -> dict[str, Any]:
        facts = {host: {"ansible_facts_modules": [f"facts_of_{host}"]} for host in hosts}
        here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        return {"hosts": facts, "vars": here | variables}

    inventory = directory / "hosts.yml"
    groups = {"pypi_servers": group(*case.servers), "pypi_clients": group(*case.clients)}
    inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LIBRARY": str(base / "library"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    command = ["ansible-playbook", "-i", str(inventory), "playbooks/validate.yml"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All cases, as many at a time as there are cores: each is mostly Ansible's own start."""
    base = tmp_path_factory.mktemp("cases")
    write_facts_modules(base / "library")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(CASES, pool.map(lambda name: validate(base, name), CASES), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_bad_input(runs: dict[str, Run], name: str) -> None:
    result, case = runs[name], CASES[name]
    output = result.stdout + result.stderr
    if not case.says:
        assert result.returncode == 0, output
        return
    assert result.returncode != 0, output
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
