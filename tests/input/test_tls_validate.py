"""What `validate` of the role pypi_tls refuses, and with which words. One play, one host for each case, nothing changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_tls_filters import HOST, Pair, make

ROOT = Path(__file__).parents[2]
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "pypi_tls", "tasks_from": "validate"}}],
    }
]

# Case: variables (names of files stand for their paths) and what the message must say; nothing: it must pass.
FILES = {"pypi_tls_mode": "files", "pypi_tls_certificate_file": "chain.pem", "pypi_tls_key_file": "key.pem"}
ACME = {"pypi_tls_mode": "acme", "pypi_tls_acme_email": "a@example.com", "pypi_tls_acme_agree_terms": True}
CA = {"pypi_tls_ca_directory": "ca"}
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing_set": ({}, []),
    "files": (FILES, []),
    "files_expire_soon": (FILES | {"pypi_tls_certificate_file": "soon.pem"}, []),
    "acme": (ACME, []),
    "off_as_yaml_reads_it": ({"pypi_tls_mode": False}, []),
    "ca_below_its_name": (CA | {"pypi_tls_alternative_names": [f"a.{HOST}"]}, []),
    "ca_may_be_reissued": (CA | {"pypi_tls_alternative_names": ["b.de"], "pypi_tls_ca_reissue": "true"}, []),
    "unknown_mode": ({"pypi_tls_mode": "selfsigned"}, ["pypi_tls_mode", "self_signed, files, acme, off"]),
    "url_for_a_name": ({"pypi_tls_hostname": f"https://{HOST}"}, ["pypi_tls_hostname", f"https://{HOST}"]),
    "wildcard": ({"pypi_tls_alternative_names": ["*.b.de"]}, ["pypi_tls_alternative_names", "*.b.de"]),
    "relative_directory": ({"pypi_tls_directory": "tls"}, ['pypi_tls_directory is "tls"', "absolute"]),
    "renewed_for_ever": ({"pypi_tls_renew_before_days": 397}, ["pypi_tls_renew_before_days is 397"]),
    "too_long_for_apple": ({"pypi_tls_validity_days": 398}, ["pypi_tls_validity_days 398"]),
    "outlives_the_ca": ({"pypi_tls_ca_validity_days": 400}, ["pypi_tls_ca_validity_days 400"]),
    "name_outside_of_the_ca": ({"pypi_tls_ca_permitted_names": ["b.de"]}, ["pypi_tls_ca_permitted_names", HOST]),
    "name_outside_of_the_old_ca": (
        CA | {"pypi_tls_alternative_names": ["b.de"]},
        ["may not sign for b.de", "-e pypi_tls_ca_reissue=true"],
    ),
    "wrong_passphrase": (CA | {"pypi_tls_ca_passphrase": "x"}, ["ca-key.pem", "pypi_tls_ca_passphrase"]),
    "ca_without_key": ({"pypi_tls_ca_directory": "keyless"}, ["ca-key.pem", "Put it back"]),
    "wrong_host_name": (FILES | {"pypi_tls_hostname": "b.de"}, ["pypi_tls_certificate_file", "does not cover b.de"]),
    "mismatched_key": (FILES | {"pypi_tls_key_file": "other.pem"}, ["pypi_tls_key_file", "belongs to another"]),
    "missing_file": (FILES | {"pypi_tls_key_file": "/nowhere.pem"}, ["pypi_tls_key_file is '/nowhere.pem'"]),
    "vaulted_without_password": (FILES | {"pypi_tls_key_file": "vault.pem"}, ["vault.pem'", "vault password"]),
    "expired": (FILES | {"pypi_tls_certificate_file": "expired.pem"}, ["expired on"]),
    "files_unset": ({"pypi_tls_mode": "files"}, ["pypi_tls_certificate_file is ''"]),
    "acme_without_email": (ACME | {"pypi_tls_acme_email": ""}, ["pypi_tls_acme_email"]),
    "acme_without_consent": (ACME | {"pypi_tls_acme_agree_terms": False}, ["pypi_tls_acme_agree_terms true"]),
    "acme_for_an_address": (ACME | {"pypi_tls_hostname": "192.0.2.1"}, ["DNS names only", "192.0.2.1"]),
    "acme_over_http": (ACME | {"pypi_tls_acme_directory_url": "http://a/"}, ["pypi_tls_acme_directory_url"]),
}


def write_files(directory: Path) -> None:
    root = make("Root")
    leaf = make("leaf", (HOST,), issuer=root)
    authority = make("CA", constraints=([HOST], None))
    same_key = {"issuer": root, "key": leaf.key}
    pairs: dict[str, Pair] = {
        "soon.pem": make("leaf", (HOST,), days=(-9, 9), **same_key),  # type: ignore[arg-type]
        "expired.pem": make("leaf", (HOST,), days=(-9, -1), **same_key),  # type: ignore[arg-type]
        "ca/ca.pem": authority,
        "keyless/ca.pem": authority,
    }
    texts = {name: pair.pem for name, pair in pairs.items()} | {
        "chain.pem": leaf.pem + root.pem,
        "key.pem": leaf.key_pem(),
        "other.pem": root.key_pem(),
        "vault.pem": "$ANSIBLE_VAULT;1.1;AES256\n3132\n",
        "ca/ca-key.pem": authority.key_pem(),
    }
    for name, text in texts.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each host failed with."""
    directory = tmp_path_factory.mktemp("tls")
    write_files(directory)
    present = {path.name: str(path) for path in directory.iterdir()}
    hosts = {
        case: {
            "ansible_connection": "local",
            "pypi_tls_hostname": HOST,
            "pypi_tls_ca_directory": str(directory / "new"),
        }
        | {name: present.get(value, value) if isinstance(value, str) else value for name, value in variables.items()}
        for case, (variables, _) in CASES.items()
    }
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (directory / "play.json").write_text(json.dumps(PLAY))
    run = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", directory / "hosts.json", directory / "play.json"],
        env=os.environ | {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_ROLES_PATH": str(ROOT / "roles")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(run.stdout[run.stdout.index("{") :])
    assert report["stats"].keys() == CASES.keys(), run.stderr
    assert not any(stats["changed"] for stats in report["stats"].values())
    assert not (directory / "new").exists()
    failed: dict[str, str] = {}
    for task in report["plays"][0]["tasks"]:
        for host, result in task["hosts"].items():
            if result.get("failed"):
                said = [part["msg"] for part in [result, *result.get("results", [])] if "msg" in part]
                failed[host] = failed.get(host, "") + "".join("".join(message) for message in said)
    return failed


@pytest.mark.parametrize("case", CASES)
def test_validate(messages: dict[str, str], case: str) -> None:
    expected = CASES[case][1]
    message = messages.get(case, "")
    assert bool(expected) == bool(message), message
    for part in expected:
        assert part in message


def test_no_message_shows_a_key(messages: dict[str, str]) -> None:
    assert "PRIVATE KEY" not in json.dumps(messages)
