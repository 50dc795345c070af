"""The doctor on a real client, with the real index: what is said here is nginx's, not a stand-in's (tests/index/test_doctor.py)."""

from __future__ import annotations

import json

import pytest

from .lab import PASSWORDS, ROOT, TOKENS, Lab

pytestmark = pytest.mark.scenario("default")


def test_the_playbook_finds_nothing_on_a_client_of_ours(lab: Lab) -> None:
    """Also for who publishes; and nothing is left behind."""
    for arguments in ((), ("--check",)):
        done = lab.site(*arguments, playbook="playbooks/doctor.yml")
        assert (done.returncode, "Nothing is wrong." in done.stdout) == (0, True), done.stdout
    assert not lab.client.file("/run/pypi_doctor").exists


def test_the_playbook_says_what_is_wrong_and_fails(lab: Lab) -> None:
    done = lab.site(playbook="playbooks/doctor.yml", pypi_client_index_url="https://nowhere.invalid/simple/")
    assert (done.returncode, "[11] its name is not known" in done.stdout) == (2, True), done.stdout


@pytest.fixture(scope="module")
def doctor(lab: Lab) -> str:
    return f"python3 -B {lab.bring(ROOT / 'roles/pypi_client/files/pypi_doctor')}"


@pytest.mark.parametrize(
    ("code", "name", "secret", "options"),
    [
        (0, "alice", PASSWORDS["alice"], "--project anything"),
        (0, "__token__", TOKENS["erin/release"], "--project Acme.Doctor-Lib"),
        (0, "__token__", TOKENS["erin/laptop"], ""),
        (31, "alice", "Looking-Glass-1871", ""),
        (32, "__token__", TOKENS["erin/old"], ""),
        (33, "bob", PASSWORDS["bob"], "--publish"),
        (33, "__token__", TOKENS["erin/laptop"], "--publish"),
        (34, "__token__", TOKENS["erin/release"], "--project other-lib"),
    ],
)
def test_logins(lab: Lab, doctor: str, code: int, name: str, secret: str, options: str) -> None:
    host = lab.groups["pypi_servers"][0]
    with_login = f"cd && printf 'machine %s login %s password %s' {host} {name} {secret} >~/other-netrc && chmod 600 ~/other-netrc"
    # .pypirc has a login of its own for uploads.
    alone = "HOME=/nonexistent NETRC=/home/admin/other-netrc"
    done = lab.client.run(f"{with_login}; {alone} {doctor} --json {options}; status=$?; rm ~/other-netrc; exit $status")
    found = json.loads(done.stdout)
    assert (done.rc, [entry["code"] for entry in found]) == (code, [code] if code else []), found
    assert secret not in done.stdout


@pytest.mark.parametrize(
    ("code", "environment"),
    [
        (19, "https_proxy=http://127.0.0.1:9"),
        (41, "PIP_EXTRA_INDEX_URL=https://other.example/simple/"),
        (43, "REQUESTS_CA_BUNDLE=/etc/hostname"),
    ],
)
def test_variables(lab: Lab, doctor: str, code: int, environment: str) -> None:
    done = lab.client.run(f"cd && {environment} {doctor}")
    assert done.rc == code and f"[{code}]" in done.stdout, done.stdout
