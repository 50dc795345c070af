"""Whose runs are an account's: what the identity token of a pipeline has to say, as PyPI asks for it.

Names can be given away: a repository that is deleted, or an owner who is renamed, leaves them to whoever comes next. Numbers cannot.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Claims = Mapping[str, Any]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_OF_A_STRANGER = ("pull_request", "pull_request_target", "merge_request_event", "external_pull_request_event")


@dataclass(frozen=True)
class Trust:
    """An entry `trusted` of an account. What is empty is not asked for."""

    kind: str
    """A provider of `KINDS`, which say where in a token the rest is found."""
    issuer: str
    """Its URL, as tokens have it (`iss`)."""
    repository: str = ""
    """OWNER/NAME; at Buildkite ORGANISATION/PIPELINE."""
    repository_id: str = ""
    workflow: str = ""
    """The file that the run has to come from."""
    environment: str = ""
    claims: tuple[tuple[str, str], ...] = ()
    """Of a provider that nothing is known of: names and values."""

    @property
    def digest(self) -> str:
        """Changes with every part of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def narrowness(self) -> int:
        """How many conditions there are: an account that asks for an environment goes before one that takes any."""
        return sum(map(bool, (self.repository, self.repository_id, self.workflow, self.environment))) + len(self.claims)

    def objections(self, claims: Claims, publishes: bool) -> list[str]:
        """What a token lacks, for the log: names of claims, or reasons. Empty if the run is trusted."""
        if claims["iss"] != self.issuer:
            return ["iss"]
        return [*KINDS[self.kind].objections(self, claims, publishes)]

    def run(self, claims: Claims) -> str:
        """Which run it is, such as `github:4711`: for logs, in characters that every log can have."""
        return f"{self.kind}:{_UNSAFE.sub('-', str(claims.get(KINDS[self.kind].run, claims['jti'])))[:64]}"


@dataclass(frozen=True)
class Kind:
    """A provider: how it says what a Trust asks for, and which claim names a run."""

    objections: Callable[[Trust, Claims, bool], Iterable[str]]
    run: str


def _differ(claims: Claims, fold: Callable[[str], str] = str, **wanted: str) -> Iterable[str]:
    """Claims that are others, without those that nothing is wanted of."""
    return [name for name, value in wanted.items() if value and fold(_text(claims.get(name))) != fold(value)]


def _small(text: str) -> str:
    """For names that are equal whether large or small; letters beyond ASCII may become ASCII ones by that."""
    return text.lower() if text.isascii() else text


def _text(value: object) -> str:
    """Of a claim: text, or a number as some have it. Nothing else is equal to anything."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _file(claims: Claims, claim: str, place: str, refs: tuple[str, ...]) -> Iterable[str]:
    """Unless the claim is that place at the run's own branch, tag or commit: not at another one's, where it may say other things."""
    own = {f"{place}@{_text(claims.get(ref))}" for ref in refs if _text(claims.get(ref))}
    return [] if claims.get(claim) in own else [claim]


def _github(trust: Trust, claims: Claims, publishes: bool) -> Iterable[str]:
    yield from _differ(claims, _small, repository=trust.repository, environment=trust.environment)
    yield from _differ(claims, repository_id=trust.repository_id)
    if trust.workflow:
        place = f"{_text(claims.get('repository'))}/.github/workflows/{trust.workflow}"
        yield from _file(claims, "job_workflow_ref", place, ("ref", "sha"))
    yield from _strangers(claims, "event_name", publishes)


def _gitlab(trust: Trust, claims: Claims, publishes: bool) -> Iterable[str]:
    yield from _differ(claims, _small, project_path=trust.repository)
    # GitLab's environments differ by the size of letters: who may not use `production` could make a `Production`.
    yield from _differ(claims, project_id=trust.repository_id, environment=trust.environment)
    if trust.workflow:
        host = trust.issuer.partition("://")[2]
        place = f"{host}/{_text(claims.get('project_path'))}//{trust.workflow}"
        yield from _file(claims, "ci_config_ref_uri", place, ("ref_path", "sha"))
    yield from _strangers(claims, "pipeline_source", publishes)


def _buildkite(trust: Trust, claims: Claims, _publishes: bool) -> Iterable[str]:
    organisation, _, pipeline = trust.repository.partition("/")
    yield from _differ(claims, organization_slug=organisation, pipeline_slug=pipeline, pipeline_id=trust.repository_id)


def _other(trust: Trust, claims: Claims, _publishes: bool) -> Iterable[str]:
    return [name for name, value in trust.claims if _text(claims.get(name)) != value]


def _strangers(claims: Claims, claim: str, publishes: bool) -> Iterable[str]:
    """A pull request's code is not reviewed yet. Its own run may read; one with the rights of the target may not even that."""
    event = claims.get(claim)
    if event == "pull_request_target" or publishes and event in _OF_A_STRANGER:
        yield f"{claim} {event}"


KINDS = {
    "github": Kind(_github, "run_id"),
    "gitlab": Kind(_gitlab, "pipeline_id"),
    "buildkite": Kind(_buildkite, "build_number"),
    "oidc": Kind(_other, "jti"),
}


def read(described: object) -> Trust:
    """From roles.json. Raises TypeError or ValueError for what is malformed, and for what would trust a whole provider."""
    if not isinstance(described, dict):
        raise TypeError
    claims = described.get("claims", {})
    trust = Trust(**{**described, "claims": tuple(sorted(claims.items()))})
    texts = [value for name, value in asdict(trust).items() if name != "claims"]
    texts += [text for pair in trust.claims for text in pair]
    if not all(isinstance(text, str) for text in texts) or trust.kind not in KINDS:
        raise TypeError
    named = all(value for _, value in trust.claims) and trust.claims if trust.kind == "oidc" else trust.repository
    if not trust.issuer.startswith("https://") or not named or (trust.kind == "oidc") != bool(trust.claims):
        raise ValueError
    return trust
