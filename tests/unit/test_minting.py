"""Tokens for pipelines: who may have one, and what everybody else is told. Signatures are verified by nginx; on hosts, tests ask that one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from issuer import AUDIENCE, GITHUB, Key, decode, encode, of_github, verify
from test_login import basic, write_users

import identity
import minted as minted_module
import minting as minting_module
from login import Login, Refused, make_application
from minted import LIFETIME, Mint
from minting import MAX_AGE, MAX_WAITING, Keys, Minting, ask_nginx

RELEASE = {
    "kind": "github",
    "issuer": GITHUB,
    "repository": "acme/lib",
    "repository_id": "1234",
    "workflow": "release.yml",
    "environment": "production",
}
RSA, EC, OTHER = Key("rsa"), Key("ec", "ES256"), Key("rsa")
HEADER, TWICE = encode({"alg": "RS256", "kid": "rsa"}), b'{"iss":"a","iss":"b"}'


class Index:
    """The login of one, with an account that trusts a pipeline, and the keys of its issuer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("users", "minted"):
            (directory / name).mkdir()
        self.trusting({"release": RELEASE})
        self.publish(RSA, EC)
        self.signatures, self.nginx_is_down = 0, False
        self.restart()

    def restart(self) -> None:
        self.mint = Mint(self.directory / "minted")
        self.login = Login(self.directory / "users", mint=self.mint)
        self.keys = Keys(self.directory / "keys.json", self.directory / "minted/asked")
        self.application = make_application(
            self.login, Minting(self.login.users, self.mint, self.keys, AUDIENCE, self.verify)
        )

    def verify(self, *about: Any) -> bool:
        self.signatures += 1
        if self.nginx_is_down:
            raise ConnectionRefusedError
        return verify(*about)

    def trusting(self, trusted: dict[str, Any], **entry: Any) -> None:
        roles = {
            name: {"role": "publisher", "projects": ["acme-*"], "trusted": each, **entry}
            for name, each in trusted.items()
        }
        write_users(self.directory / "users", {"alice": "wonderland"}, {**roles, "alice": {"role": "publisher"}})

    def publish(self, *keys: Key, issuer: str = GITHUB, fetched: float | None = None) -> None:
        self.publish_all({issuer: [key.jwk for key in keys]}, fetched)

    def publish_all(self, keys: dict[str, list[Any]], fetched: float | None = None) -> None:
        when = time.time() if fetched is None else fetched
        known = {issuer: {"fetched": when, "keys": of_one} for issuer, of_one in keys.items()}
        (self.directory / "keys.new").write_text(json.dumps(known))
        (self.directory / "keys.new").rename(self.directory / "keys.json")

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        said: list[str] = []
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
        answer = b"".join(self.application(environ, lambda status, _headers: said.append(status)))
        return int(said[0][:3]), json.loads(answer)

    def exchange(self, token: object) -> tuple[int, Any]:
        return self.ask("POST", "/_/oidc/mint-token", json.dumps({"token": token}).encode())

    def minted(self, token: str) -> str:
        status, answer = self.exchange(token)
        assert status == 200, answer
        return str(answer["token"])

    def refused(self, token: object) -> tuple[str, str]:
        """Code and description."""
        status, answer = self.exchange(token)
        assert answer["message"] == "Token request failed", answer
        (error,) = answer["errors"]
        assert status == (503 if error["code"] == "unavailable" else 422)
        return error["code"], error["description"]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_the_audience_is_the_index_s_name(index: Index) -> None:
    assert index.ask("GET", "/_/oidc/audience") == (200, {"audience": AUDIENCE})


@pytest.mark.parametrize("asked", ["POST /_/oidc/audience", "GET /_/oidc/mint-token", "GET /_/oidc/other"])
def test_nothing_else_is_there(index: Index, asked: str) -> None:
    assert index.ask(*asked.split())[0] == 405  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE]])
def test_a_trusted_run_gets_a_token_with_the_rights_of_its_account(index: Index, key: Key, audience: Any) -> None:
    status, answer = index.exchange(key.token(of_github(aud=audience)))
    assert status == 200 and answer["success"] is True
    assert 0 <= time.time() + LIFETIME - answer["expires"] < 5
    account = index.login.check("__token__", answer["token"].encode())
    assert account
    assert (account.name, account.role, account.projects) == ("release/github:4711", "publisher", ("acme-*",))
    assert 0 < index.login.remember(account) <= 300


def twice(key: Key, claim: str) -> str:
    """A token whose last claim is also its first one, with another value."""
    claims = json.dumps(of_github()).replace(claim, claim.replace("acme", "evil"), 1)[:-1] + f", {claim}}}"
    signed = f"{encode({'alg': 'RS256', 'kid': key.jwk['kid']})}.{encode(claims.encode())}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


def of_length(key: Key, length: int) -> str:
    """A token of so many characters, right in all else. (One part alone cannot have every length.)"""
    for header in ("", "x"):
        padding = (length - len(key.token(of_github(padding=""), padding=header))) * 3 // 4
        for more in range(-3, 4):
            token = key.token(of_github(padding="x" * (padding + more)), padding=header)
            if len(token) == length:
                return token
    raise AssertionError(length)


NOW = int(time.time())
UNTRUSTED: dict[str, tuple[Callable[[], object], str]] = {
    "no text": (lambda: 7, "invalid-payload"),
    "nothing": (lambda: "", "invalid-payload"),
    "garbage": (lambda: "a.b.c", "invalid-payload"),
    "two parts": (lambda: RSA.token(of_github()).rpartition(".")[0], "invalid-payload"),
    "four parts": (lambda: RSA.token(of_github()) + ".e30", "invalid-payload"),
    "padded": (lambda: RSA.token(of_github()) + "=", "invalid-payload"),
    "a list": (lambda: f"{encode(b'[]')}.{encode(b'[]')}.AA", "invalid-payload"),
    "deep": (lambda: f"{encode(b'[' * 9000)}.{encode(b'{}')}.AA", "invalid-payload"),
    "a claim twice": (
        lambda: f"{HEADER}.{encode(TWICE)}.AA",
        "invalid-payload",
    ),
    "a claim twice under a right signature": (lambda: twice(RSA, '"repository": "acme/lib"'), "invalid-payload"),
    "NaN": (lambda: RSA.token(of_github(exp=float("nan"))), "invalid-payload"),
    "too long": (lambda: of_length(RSA, identity.LONGEST + 1), "invalid-payload"),
    "no issuer": (lambda: RSA.token(of_github(iss=None)), "invalid-payload"),
    "another issuer": (lambda: RSA.token(of_github(iss="https://evil.example.com")), "invalid-payload"),
    "an issuer with a slash": (lambda: RSA.token(of_github(iss=f"{GITHUB}/")), "invalid-payload"),
    "another key of that name": (lambda: OTHER.token(of_github()), "invalid-token"),
    "a key of another kind": (lambda: EC.token(of_github(), kid="rsa"), "invalid-token"),
    "an algorithm of another kind": (lambda: EC.token(of_github(), alg="RS256"), "invalid-token"),
    "an algorithm of the other key": (lambda: RSA.token(of_github(), alg="ES256"), "invalid-token"),
    "no key named": (lambda: RSA.token(of_github(), kid=None), "invalid-token"),
    "a key that is none": (lambda: RSA.token(of_github(), kid=["rsa"]), "invalid-token"),
    "a key brought along": (lambda: OTHER.token(of_github(), kid="mine", jwk=OTHER.jwk), "invalid-token"),
    "extensions": (lambda: RSA.token(of_github(), crit=["b64"], b64=False), "invalid-token"),
    "HS256 with the public key": (lambda: RSA.forged(of_github()), "invalid-token"),
    "none": (
        lambda: f"{encode({'alg': 'none', 'kid': 'rsa'})}.{encode(of_github())}.{encode(b'x')}",
        "invalid-token",
    ),
    "RS512": (lambda: RSA.token(of_github(), alg="RS512"), "invalid-token"),
    "other claims under the signature": (
        lambda: re.sub(r"\..*\.", f".{encode(of_github(sub='x'))}.", RSA.token(of_github())),
        "invalid-token",
    ),
    "no audience": (lambda: RSA.token(of_github(aud=None)), "invalid-token"),
    "another audience": (lambda: RSA.token(of_github(aud="pypi")), "invalid-token"),
    "two audiences": (lambda: RSA.token(of_github(aud=[AUDIENCE, "pypi"])), "invalid-token"),
    "no audiences": (lambda: RSA.token(of_github(aud=[])), "invalid-token"),
    "expired": (lambda: RSA.token(of_github(exp=int(time.time()) - 31)), "invalid-token"),
    "no end": (lambda: RSA.token(of_github(exp=None)), "invalid-token"),
    "an end in words": (lambda: RSA.token(of_github(exp="2099")), "invalid-token"),
    "an end that is true": (lambda: RSA.token(of_github(exp=True)), "invalid-token"),
    "an infinite end": (lambda: RSA.token(of_github(exp=1e300)), "invalid-token"),
    "of tomorrow": (lambda: RSA.token(of_github(iat=int(time.time()) + 40)), "invalid-token"),
    "not valid yet": (lambda: RSA.token(of_github(nbf=int(time.time()) + 40)), "invalid-token"),
    "no beginning": (lambda: RSA.token(of_github(iat=None)), "invalid-token"),
    "no name": (lambda: RSA.token(of_github(jti=None)), "invalid-token"),
    "an empty name": (lambda: RSA.token(of_github(jti="")), "invalid-token"),
    "a number for a name": (lambda: RSA.token(of_github(jti=7)), "invalid-token"),
    "a name without end": (lambda: RSA.token(of_github(jti="x" * 1025)), "invalid-token"),
    "of the day before yesterday": (
        lambda: RSA.token(of_github(iat=NOW - 2 * 86_400, nbf=None, exp=NOW + 2 * 86_400)),
        "invalid-token",
    ),
    "another repository": (lambda: RSA.token(of_github(repository="evil/lib")), "invalid-publisher"),
    "one of the same name": (lambda: RSA.token(of_github(repository_id="999")), "invalid-publisher"),
    "no number": (lambda: RSA.token(of_github(repository_id=None)), "invalid-publisher"),
    "another environment": (lambda: RSA.token(of_github(environment="test")), "invalid-publisher"),
    "no environment": (lambda: RSA.token(of_github(environment=None)), "invalid-publisher"),
    "another workflow": (
        lambda: RSA.token(of_github(job_workflow_ref="acme/lib/.github/workflows/ci.yml@refs/tags/v1")),
        "invalid-publisher",
    ),
    "a workflow elsewhere": (
        lambda: RSA.token(of_github(job_workflow_ref="evil/lib/.github/workflows/release.yml@refs/tags/v1")),
        "invalid-publisher",
    ),
    "a workflow of another branch": (
        lambda: RSA.token(of_github(job_workflow_ref="acme/lib/.github/workflows/release.yml@refs/heads/evil")),
        "invalid-publisher",
    ),
    "no workflow": (lambda: RSA.token(of_github(job_workflow_ref=None, ref=None, sha=None)), "invalid-publisher"),
    "a pull request": (lambda: RSA.token(of_github(event_name="pull_request")), "invalid-publisher"),
    "a pull request with rights": (lambda: RSA.token(of_github(event_name="pull_request_target")), "invalid-publisher"),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minting_module, "PATIENCE", 0.2)


@pytest.mark.parametrize("case", UNTRUSTED)
def test_whoever_is_not_trusted_is_refused_with_pypi_s_code(index: Index, case: str) -> None:
    make, code = UNTRUSTED[case]
    assert index.refused(make())[0] == code
    assert not list((index.directory / "minted").glob("*/*")), "nothing of it is kept"
    assert index.minted(RSA.token(of_github())), "and nobody else is held up"


@pytest.mark.parametrize(
    "body", [b"", b"token", b"[]", b"{}", b'{"token": null}', b"\xff", b"[" * 40_000, b"x" * 99_000]
)
def test_what_is_no_request_is_refused(index: Index, body: bytes) -> None:
    status, answer = index.ask("POST", "/_/oidc/mint-token", body)
    assert (status, answer["errors"][0]["code"]) == (422, "invalid-payload")


def test_clocks_may_differ_a_little(index: Index) -> None:
    now = int(time.time())
    assert index.minted(RSA.token(of_github(exp=now - 20)))
    assert index.minted(RSA.token(of_github(iat=now + 20, nbf=now + 20)))


@pytest.mark.parametrize(
    ("changed", "fits"),
    [
        ({"exp": NOW - 29}, True),
        ({"exp": NOW - 30}, False),
        ({"iat": NOW + 30, "nbf": NOW + 30}, True),
        ({"iat": NOW + 31, "nbf": NOW}, False),
        ({"iat": NOW, "nbf": NOW + 31}, False),
        ({"iat": NOW - 86_400 - 29}, True),
        ({"iat": NOW - 86_400 - 30}, False),
    ],
)
def test_the_leeway_ends_where_it_ends(changed: dict[str, int], fits: bool) -> None:
    token = identity.parse(RSA.token(of_github(**{"exp": NOW + 2 * 86_400, "nbf": None, **changed})))
    with nullcontext() if fits else pytest.raises(identity.Invalid):
        identity.check(token, AUDIENCE, NOW)


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


def test_it_is_good_for_one_token(index: Index) -> None:
    token = RSA.token(of_github())
    with ThreadPoolExecutor(8) as pool:
        answers = [answer for _, answer in pool.map(index.exchange, [token] * 8)]
    codes = [answer["errors"][0]["code"] for answer in answers if "errors" in answer]
    assert codes == ["invalid-reuse-token"] * 7
    index.restart()
    assert index.refused(token)[0] == "invalid-reuse-token", "after a restart too"


def test_one_that_is_refused_is_not_used_up(index: Index) -> None:
    claims = of_github()
    assert index.refused(OTHER.token(claims))[0] == "invalid-token"
    assert index.minted(RSA.token(claims))


def use(index: Index, token: str) -> str:
    """Whom it lets in, or why not."""
    try:
        account = index.login.check("__token__", token.encode())
    except Refused as refused:
        return str(refused)
    return account.name if account else ""


def test_it_ends(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    token, now = index.minted(RSA.token(of_github())), time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME - 5)
    assert use(index, token) == "release/github:4711"
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 1)
    assert use(index, token) == "The token release/github:4711 has expired: it was for 15 minutes."


def test_it_outlives_a_restart_and_other_users(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    index.trusting({"release": RELEASE, "new": {**RELEASE, "repository": "acme/new"}})
    index.restart()
    assert use(index, token) == "release/github:4711"


@pytest.mark.parametrize("trusted", [{}, {"release": {**RELEASE, "environment": "test"}}, {"release": None}])
def test_it_ends_at_once_with_the_trust(index: Index, trusted: dict[str, Any]) -> None:
    token = index.minted(RSA.token(of_github()))
    assert use(index, token) == "release/github:4711"
    index.trusting(trusted)
    assert use(index, token) == "release trusts no more what the token release/github:4711 was made for."


def test_it_never_may_more_than_its_account_by_now(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    index.trusting({"release": RELEASE}, role="reader", projects=[])
    account = index.login.check("__token__", token.encode())
    assert account and (account.role, account.projects) == ("reader", ())


def test_it_is_no_password_of_another_account(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    with pytest.raises(Refused, match="of another account"):
        index.login.check("alice", token.encode())


def test_the_server_has_no_token_and_no_key_that_makes_some(index: Index) -> None:
    token = index.minted(RSA.token(of_github()))
    texts = [path.read_bytes() + str(path).encode() for path in index.directory.rglob("*") if path.is_file()]
    assert not [text for text in texts if token[4:].encode() in text]
    (kept,) = (index.directory / "minted/tokens").iterdir()
    assert kept.name == hashlib.sha256(token.encode()).hexdigest()


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
    "other", [{"alg": "RS512"}, {"use": "enc"}, {"kty": "EC"}, {"kid": "other"}], ids=lambda other: str(other)
)
def test_a_key_is_good_for_what_its_issuer_says(index: Index, other: dict[str, str]) -> None:
    index.publish_all({GITHUB: [RSA.jwk | other]})
    assert "does not have (kid)" in index.refused(RSA.token(of_github()))[1]
    index.publish_all({GITHUB: [RSA.jwk | other, {k: v for k, v in RSA.jwk.items() if k not in ("alg", "use")}]})
    assert index.minted(RSA.token(of_github())), "and where it says nothing, for either"


def test_one_as_long_as_may_be(index: Index) -> None:
    assert index.minted(of_length(RSA, identity.LONGEST))


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


def test_keys_of_a_new_name_are_asked_for_once_and_waited_for(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minting_module, "PATIENCE", 20)
    new, asked = Key("new"), index.directory / "minted/asked"

    def host() -> None:
        deadline = time.monotonic() + 20
        while not asked.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        index.publish(RSA, new)

    thread = threading.Thread(target=host)
    thread.start()
    assert index.minted(new.token(of_github()))
    thread.join()
    asked.unlink()
    monkeypatch.setattr(minting_module, "PATIENCE", 0)
    assert "does not have (kid)" in index.refused(RSA.token(of_github(), kid="newer"))[1]
    assert not asked.exists(), "not again within a minute"


def test_all_who_come_with_a_new_key_wait_for_it_and_no_more_than_there_is_room_for(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer changes its key for all of its jobs."""
    monkeypatch.setattr(minting_module, "PATIENCE", 60)
    new, keys = Key("new"), index.keys
    with ThreadPoolExecutor(MAX_WAITING + 1) as pool:
        answers = [pool.submit(index.exchange, new.token(of_github())) for _ in range(MAX_WAITING + 1)]
        (first,) = wait(answers, 30, FIRST_COMPLETED).done
        assert first.result()[1]["errors"][0]["code"] == "invalid-token", "there is no room for one more"
        index.publish(RSA, new)
        codes = sorted(answer.result()[0] for answer in answers)
    assert codes == [200] * MAX_WAITING + [422]
    assert keys._places._value == MAX_WAITING


@pytest.mark.parametrize("fetched", [None, -MAX_AGE - 1])
def test_an_issuer_that_is_down_for_long_is_named(index: Index, fetched: float | None) -> None:
    token = index.minted(RSA.token(of_github()))
    if fetched is None:
        (index.directory / "keys.json").unlink()
    else:
        index.publish(RSA, fetched=time.time() + fetched)
    assert index.refused(RSA.token(of_github())) == (
        "unavailable",
        f"the keys of {GITHUB} could not be fetched: the index's operator can see why",
    )
    assert use(index, token) == "release/github:4711", "who has a token goes on"


def test_an_issuer_that_is_down_for_hours_is_not_missed(index: Index) -> None:
    index.publish(RSA, fetched=time.time() - MAX_AGE + 60)
    assert index.minted(RSA.token(of_github()))


def test_without_nginx_nobody_is_let_in(index: Index) -> None:
    token, index.nginx_is_down = RSA.token(of_github()), True
    assert index.refused(token) == ("unavailable", "the signature cannot be verified at the moment")
    index.nginx_is_down = False
    assert index.minted(token), "it was not used up"


class Nginx(BaseHTTPRequestHandler):
    """Answers what the path says."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/silence":
            self.server.over.wait(30)  # type: ignore[attr-defined]
        elif self.path != "/nothing":
            self.send_response(int(self.path[1:]))
            self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def nginx() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nginx)
    server.over = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/204", None),
        ("/403", "invalid-token"),
        *((path, "unavailable") for path in ("/200", "/302", "/404", "/500", "/502", "/nothing", "/silence")),
        ("", "unavailable"),
    ],
)
def test_whatever_else_nginx_answers_is_no_yes(
    index: Index, nginx: str, monkeypatch: pytest.MonkeyPatch, path: str, code: str | None
) -> None:
    """And no no: a pipeline that hears of a wrong signature would not ask again. Without a path nobody listens."""
    monkeypatch.setattr(minting_module, "NGINX_SECONDS", 0.3)
    index.verify = ask_nginx(nginx + path if path else "http://127.0.0.1:1/")  # type: ignore[method-assign]
    index.restart()
    token, start = RSA.token(of_github()), time.monotonic()
    if code:
        assert index.refused(token)[0] == code
        assert time.monotonic() - start < 15, "it is not waited for without end"
        assert not list((index.directory / "minted").glob("*/*"))
    else:
        assert index.minted(token)


def test_what_is_kept_has_an_end_and_a_bound(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is trusted could fill the disk otherwise, or have it remembered for ever what was used."""
    now = int(time.time())
    index.minted(RSA.token(of_github(exp=now + 10**9)))
    (spent,) = (index.directory / "minted/spent").iterdir()
    assert 0 <= spent.stat().st_mtime - now - identity.LONGEST_LIFE - identity.LEEWAY < 5
    monkeypatch.setattr(minted_module, "MOST", 8)
    for _ in range(3):
        assert index.minted(RSA.token(of_github()))
    token = RSA.token(of_github())
    for _ in range(2):
        assert index.refused(token) == ("unavailable", "the index cannot store a token at the moment")
        index.restart()
    assert len(list((index.directory / "minted").glob("*/*"))) == 8
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 100)
    index.restart()
    later = {"iat": now + LIFETIME, "nbf": None, "exp": now + LIFETIME + 300}
    assert index.minted(RSA.token(of_github(**later))), "there is room again when they are over"


def test_without_room_nobody_is_let_in(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        assert index.refused(RSA.token(of_github()))[0] == "unavailable"


def test_what_is_over_is_swept_away(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.minted(RSA.token(of_github()))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * LIFETIME)
    index.mint._swept = 0
    later = int(now) + 2 * LIFETIME
    index.minted(RSA.token(of_github(iat=later, nbf=later, exp=later + 300)))
    assert [len(list((index.directory / "minted" / name).iterdir())) for name in ("tokens", "spent")] == [1, 1]


def test_nothing_is_verified_that_could_not_be_for_us(index: Index) -> None:
    for make, code in UNTRUSTED.values():
        before = index.signatures
        index.refused(make())
        if code == "invalid-payload":
            assert index.signatures == before


def test_the_log_says_who_got_one_and_what_a_refused_run_lacked(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    token = index.minted(RSA.token(of_github()))
    assert "minted for release/github:4711, sub 'repo:acme/lib:environment:production'" in caplog.text
    index.refused(RSA.token(of_github(environment="test")))
    assert "login of a pipeline failed, from ?: of 'repo:acme/lib" in caplog.text
    assert "release: environment" in caplog.text and token not in caplog.text


def test_nginx_hears_of_it_as_of_any_token(index: Index) -> None:
    said: dict[str, str] = {}
    token = index.minted(RSA.token(of_github()))
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_AUTHORIZATION": basic("__token__", token)}
    index.application(environ, lambda status, headers: said.update(headers, status=status))
    assert (said["status"], said["X-Login-User"], said["X-Login-Role"]) == (
        "204 No Content",
        "release/github:4711",
        "publisher",
    )


def test_the_stand_in_signs_as_others_do() -> None:
    """Known answers: RFC 7515, A.3 (ES256)."""
    jwk = {
        "kty": "EC",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    signed = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
        "Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    token = identity.parse(signed)
    assert verify(jwk, token) and len(decode(token.signature)) == 64
