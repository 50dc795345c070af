"""An account's `trusted`: what is refused, and that the login reads what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pypi_users as users
import pytest
from test_login import write_users

from login import Login
from trust import Trust

GITHUB = {"issuer": "github", "repository": "acme/lib", "repository_id": 1234, "workflow": "release.yml"}
GITLAB = {"issuer": "gitlab", "repository": "acme/tools/lib", "workflow": "ci/release.yml"}
BUILDKITE = {"issuer": "buildkite", "repository": "acme/lib"}
OTHER = {"issuer": "https://id.example.com/realms/ci", "claims": {"sub": "nightly", "team": 7}}


def account(trusted: Any, **more: Any) -> dict[str, Any]:
    return {"name": "ci", "role": "publisher", "projects": ["acme-*"], "trusted": trusted, **more}


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        (
            GITHUB,
            Trust("github", "https://token.actions.githubusercontent.com", "acme/lib", "1234", "release.yml"),
        ),
        (GITLAB, Trust("gitlab", "https://gitlab.com", "acme/tools/lib", "", "ci/release.yml")),
        (
            GITLAB | {"url": "https://gitlab.example.com:8443/sub", "environment": "pro duction"},
            Trust(
                "gitlab",
                "https://gitlab.example.com:8443/sub",
                "acme/tools/lib",
                "",
                "ci/release.yml",
                "pro duction",
            ),
        ),
        (
            BUILDKITE | {"repository_id": "0184990a-4770"},
            Trust("buildkite", "https://agent.buildkite.com", "acme/lib", "0184990a-4770"),
        ),
        (
            OTHER | {"issuer": "https://id.example.com/", "claims": {"sub": "x"}},
            Trust("oidc", "https://id.example.com/", claims=(("sub", "x"),)),
        ),
        (OTHER, Trust("oidc", "https://id.example.com/realms/ci", claims=(("sub", "nightly"), ("team", "7")))),
    ],
)
def test_the_login_reads_what_the_inventory_says(tmp_path: Path, trusted: dict[str, Any], expected: Trust) -> None:
    """With empty values as Ansible fills them in, too."""
    for entry in (trusted, {"url": None, "environment": "", "claims": None, **trusted}):
        assert users.pypi_users_problems([account(entry)]) == []
        write_users(tmp_path, {}, json.loads(users.pypi_users_roles([account(entry)])))
        assert Login(tmp_path).users().trusts == {"ci": expected}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (account("acme/lib"), "trusted must be an entry such as {issuer: github,"),
        (account(GITHUB, projects=[]), "trusted needs projects, for a publisher"),
        (account(GITHUB | {"branch": "main"}), "trusted: has the unknown key 'branch'"),
        (account(GITHUB | {"repository": "lib"}), "trusted: repository is 'lib': write OWNER/NAME"),
        (account(GITHUB | {"repository": "acme/lib/x"}), "write OWNER/NAME"),
        (account(GITHUB | {"repository": "acme/*"}), "write OWNER/NAME"),
        (account(GITHUB | {"repository_id": "acme/lib"}), "repository_id is 'acme/lib': give the number"),
        (account(GITHUB | {"workflow": None}), "workflow is None: give the name of a file in .github/workflows"),
        (account(GITHUB | {"workflow": ".github/workflows/release.yml"}), "give the name of a file"),
        (account(GITHUB | {"claims": {"sub": "x"}}), "claims is for an issuer that is a URL"),
        (account(GITHUB | {"url": "http://github.example.com"}), "url is 'http://github.example.com': give the https"),
        (account(GITHUB | {"url": "https://github.example.com/"}), "give the https address"),
        (account(GITLAB | {"workflow": None}), "workflow is None: give the path of the file, such as .gitlab-ci.yml"),
        (account(GITLAB | {"workflow": "ci.yml@other/project"}), "give the path of the file"),
        (account(BUILDKITE | {"workflow": "x.yml"}), "workflow is not told by buildkite: remove it"),
        (account(BUILDKITE | {"url": "https://buildkite.example.com"}), "url is"),
        (account({"claims": {"sub": "x"}}), "issuer is None: use github, gitlab, buildkite, or the https URL"),
        (account(OTHER | {"issuer": "gitea"}), "issuer is 'gitea'"),
        (account(OTHER | {"issuer": "https://gitlab.com"}), "issuer is the URL of gitlab: use gitlab"),
        (account(OTHER | {"issuer": "https://gitlab.com/"}), "issuer is the URL of gitlab: use gitlab"),
        (account(OTHER | {"issuer": "https://id.example.com//"}), "issuer is 'https://id.example.com//': use"),
        (account(OTHER | {"issuer": "http://id.example.com"}), "issuer is 'http://id.example.com'"),
        (account(OTHER | {"issuer": "https://id.example.com/?x"}), "issuer is"),
        (account(OTHER | {"claims": {}}), "claims must say what a token of that issuer has to have"),
        (account(OTHER | {"claims": {"sub": ""}}), "claims must say"),
        (account(OTHER | {"claims": {"verified": True}}), "claims must say"),
        (account(OTHER | {"claims": ["sub"]}), "claims must say"),
        (account(OTHER | {"repository": "acme/lib"}), "repository is for github, gitlab, buildkite: use claims"),
    ],
)
def test_what_would_trust_nobody_or_everybody_is_refused_with_the_fix(entry: dict[str, Any], says: str) -> None:
    (problem, *others) = users.pypi_users_problems([entry])
    assert problem.startswith("pypi_users_accounts[0] (ci): ") and says in problem and not others


def test_a_reader_needs_no_workflow_and_nobody_a_password() -> None:
    reader = {"name": "tests", "trusted": {"issuer": "github", "repository": "acme/lib"}}
    assert users.pypi_users_problems([reader, account(GITHUB)]) == []
    assert users.pypi_users_files([reader], "", "", 4, 9898)[1]["content"] == ""


def test_one_run_is_of_one_account() -> None:
    [problem] = users.pypi_users_problems([account(GITHUB), account(GITHUB | {"environment": ""}, name="again")])
    assert problem.startswith("pypi_users_accounts[1] (again): trusted is the same as that of pypi_users_accounts[0]")
    assert users.pypi_users_problems([account(GITHUB), account(GITHUB | {"environment": "x"}, name="again")]) == []
