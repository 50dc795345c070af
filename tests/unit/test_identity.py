"""Identity tokens: what is none, none of ours, or none for now. Signatures are verified by nginx; on hosts, tests ask that one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from issuer import AUDIENCE, GITHUB, Key, decode, encode, of_github, verify
from minting_index import EC, OTHER, RSA, Index

import identity

HEADER, TWICE = encode({"alg": "RS256", "kid": "rsa"}), b'{"iss":"a","iss":"b"}'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    return Index(tmp_path, monkeypatch)


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


@pytest.mark.parametrize("case", UNTRUSTED)
def test_whoever_is_not_trusted_is_refused_with_pypi_s_code(index: Index, case: str) -> None:
    make, code = UNTRUSTED[case]
    assert index.refused(make())[0] == code
    assert not list((index.directory / "minted").glob("*/*")), "nothing of it is kept"
    assert index.minted(RSA.token(of_github())), "and nobody else is held up"


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
    token = identity.parse(RSA.token(of_github(**{"exp": NOW + 2 * 86_400, "iat": NOW, "nbf": None, **changed})))
    with nullcontext() if fits else pytest.raises(identity.Invalid):
        identity.check(token, AUDIENCE, NOW)


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


def test_nothing_is_verified_that_could_not_be_for_us(index: Index) -> None:
    for make, code in UNTRUSTED.values():
        before = index.signatures
        index.refused(make())
        if code == "invalid-payload":
            assert index.signatures == before


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
