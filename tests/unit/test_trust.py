"""Whose runs are an account's: at each provider, and with several issuers and accounts."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from issuer import AUDIENCE, GITHUB, Key, of_github
from minting_index import RELEASE, RSA, Index, use
from test_login import write_users


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


def test_letters_may_be_large_in_names(index: Index) -> None:
    place = "Acme/Lib/.github/workflows/release.yml"
    assert index.minted(RSA.token(of_github(repository="Acme/Lib", job_workflow_ref=f"{place}@refs/tags/v1")))
    assert index.minted(RSA.token(of_github(job_workflow_ref=f"acme/lib/.github/workflows/release.yml@{'0' * 40}")))
    assert index.minted(RSA.token(of_github(environment="Production")))


def test_letters_beyond_ascii_become_no_others(index: Index) -> None:
    """A Kelvin sign's small form is a k."""
    index.trusting({"release": {**RELEASE, "environment": "key"}})
    assert index.refused(RSA.token(of_github(environment="\u212aey")))[0] == "invalid-publisher"
    assert index.minted(RSA.token(of_github(environment="Key")))


READING = {"kind": "github", "issuer": GITHUB, "repository": "acme/lib"}


def test_a_pull_request_may_read_but_not_with_the_rights_of_its_target(index: Index) -> None:
    index.trusting({"tests": READING}, role="reader", projects=[])
    assert use(index, index.minted(RSA.token(of_github(event_name="pull_request")))) == "tests/github:4711"
    assert index.refused(RSA.token(of_github(event_name="pull_request_target")))[0] == "invalid-publisher"


def test_of_several_accounts_the_one_that_publishes_and_asks_for_more(index: Index) -> None:
    publisher = {"role": "publisher", "projects": ["acme-*"]}
    roles = {
        "a-reader": {"trusted": READING},
        "any": {**publisher, "trusted": {**RELEASE, "environment": ""}},
        "narrow": {**publisher, "trusted": RELEASE},
    }
    write_users(index.directory / "users", {}, roles)
    for claims, account in {
        "narrow": of_github(),
        "any": of_github(environment="test"),
        "a-reader": of_github(job_workflow_ref=None),
    }.items():
        assert use(index, index.minted(RSA.token(account))) == f"{claims}/github:4711"


def test_a_run_with_another_name_than_logs_can_have(index: Index) -> None:
    token = index.minted(RSA.token(of_github(run_id="4711 x\n/" + "ä" * 99)))
    assert use(index, token) == "release/github:4711-x-"


GITLAB = {
    "kind": "gitlab",
    "issuer": "https://gitlab.example.com",
    "repository": "acme/tools/lib",
    "repository_id": "12",
    "workflow": ".gitlab-ci.yml",
    "environment": "production",
}
OF_GITLAB = {
    "iss": "https://gitlab.example.com",
    "project_path": "acme/tools/lib",
    "project_id": 12,
    "ci_config_ref_uri": "gitlab.example.com/acme/tools/lib//.gitlab-ci.yml@refs/heads/main",
    "ref_path": "refs/heads/main",
    "pipeline_source": "push",
    "pipeline_id": "77",
    "environment": "production",
}
BUILDKITE = {"kind": "buildkite", "issuer": "https://agent.buildkite.com", "repository": "acme/lib"}
OF_BUILDKITE = {
    "iss": "https://agent.buildkite.com",
    "organization_slug": "acme",
    "pipeline_slug": "lib",
    "build_number": 5,
}
OTHERS = {"kind": "oidc", "issuer": "https://id.example.com/realm", "claims": {"sub": "builder", "team": "7"}}
OF_OTHERS = {"iss": "https://id.example.com/realm", "sub": "builder", "team": 7, "jti": "x/1"}


@pytest.mark.parametrize(
    ("trusted", "claims", "name"),
    [(GITLAB, OF_GITLAB, "gitlab:77"), (BUILDKITE, OF_BUILDKITE, "buildkite:5"), (OTHERS, OF_OTHERS, "oidc:x-1")],
)
def test_other_providers(index: Index, trusted: dict[str, Any], claims: dict[str, Any], name: str) -> None:
    index.trusting({"release": trusted})
    index.publish(RSA, issuer=trusted["issuer"])
    now = int(time.time())
    common = {"aud": AUDIENCE, "iat": now, "exp": now + 60, "jti": "x/2"}
    assert use(index, index.minted(RSA.token({**common, **claims}))) == f"release/{name}"
    asked = {**claims, "pipeline_source": "merge_request_event"} if trusted is GITLAB else claims
    wrongs: list[dict[str, Any]]
    for claim in set(asked) - {"iss", "ref_path", "pipeline_id", "build_number", "jti"}:
        if claim == "pipeline_source":
            wrongs = [{claim: asked[claim]}]
        else:
            wrongs = [{claim: f"{claims[claim]}x"}, {claim: True}, {claim: None}]
        if claim == "environment":
            wrongs.append({claim: "Production"})  # which is another one at GitLab
        for changed in wrongs:
            code = index.refused(RSA.token({**common, **claims, **changed, "jti": f"{claim}{changed}"}))[0]
            assert code == "invalid-publisher", changed


MINE, THEIRS = Key("rsa"), Key("theirs")


@pytest.fixture
def two(index: Index) -> Index:
    """The index trusts another issuer as well, one of whose keys is called as one of GitHub's."""
    index.trusting({"release": RELEASE, "other": {**GITLAB, "repository": "acme/lib"}})
    index.publish_all({GITHUB: [RSA.jwk], GITLAB["issuer"]: [MINE.jwk, THEIRS.jwk]})
    return index


def both(**changed: Any) -> dict[str, Any]:
    """Claims that would do for either."""
    return of_github(**{**OF_GITLAB, **changed})


@pytest.mark.parametrize(
    ("key", "kid"),
    [(MINE, "rsa"), (THEIRS, "theirs"), (THEIRS, "rsa"), (MINE, "theirs")],
    ids=["a name that both have", "its own name", "the other's name", "a wrong name"],
)
def test_an_issuer_signs_for_itself_and_no_other(two: Index, key: Key, kid: str) -> None:
    assert two.refused(key.token(both(iss=GITHUB), kid=kid))[0] == "invalid-token"
    assert two.refused(RSA.token(both(iss=GITLAB["issuer"]), kid=kid))[0] == "invalid-token"


def test_an_issuer_speaks_for_its_own_accounts_and_no_others(two: Index) -> None:
    """Each says what the other's account asks for, too."""
    theirs = both(
        project_path="acme/lib", ci_config_ref_uri="gitlab.example.com/acme/lib//.gitlab-ci.yml@refs/heads/main"
    )
    assert use(two, two.minted(RSA.token({**theirs, "iss": GITHUB}))) == "release/github:4711"
    assert use(two, two.minted(THEIRS.token({**theirs, "jti": "1"}))) == "other/gitlab:77"
    same = str(uuid.uuid4())
    assert two.minted(RSA.token(of_github(jti=same)))
    assert two.minted(THEIRS.token({**theirs, "jti": same})), "and names its tokens as it likes"
    assert two.refused(THEIRS.token({**theirs, "jti": "2", "project_path": "acme/x"}))[0] == "invalid-publisher"
    assert two.refused(RSA.token({**theirs, "iss": GITHUB, "jti": "3", "repository": "x/y"}))[0] == "invalid-publisher"


@pytest.mark.parametrize(
    "bad",
    [
        "acme/lib",
        [],
        {},
        {**RELEASE, "kind": "gitea"},
        {**RELEASE, "issuer": "http://token.actions.githubusercontent.com"},
        {**RELEASE, "repository": ""},
        {**RELEASE, "repository": None},
        {**RELEASE, "repository_id": 1234},
        {**RELEASE, "branch": "main"},
        {**RELEASE, "claims": {"sub": "x"}},
        {**OTHERS, "claims": {}},
        {**OTHERS, "claims": {"sub": ""}},
        {**OTHERS, "claims": {"sub": 7}},
        {**OTHERS, "claims": ["sub"]},
    ],
)
def test_a_malformed_trust_counts_for_nothing_and_the_others_count(
    index: Index, caplog: pytest.LogCaptureFixture, bad: Any
) -> None:
    index.trusting({"bad": bad, "release": RELEASE})
    assert use(index, index.minted(RSA.token(of_github()))) == "release/github:4711"
    assert "roles.json: what 'bad' trusts is malformed and counts for nothing" in caplog.text
    assert list(index.login.users().trusts) == ["release"]


def test_a_publisher_of_everything_trusts_nobody(index: Index) -> None:
    index.trusting({"release": RELEASE}, projects=[])
    assert index.refused(RSA.token(of_github())) == ("not-enabled", "no account of this index trusts a pipeline")
