"""An account's `trusted`: whose pipeline gets tokens of it. What the server's login reads is more explicit: a kind and an issuer's URL."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Account = Mapping[str, Any]

ISSUERS = {
    "github": "https://token.actions.githubusercontent.com",
    "gitlab": "https://gitlab.com",
    "buildkite": "https://agent.buildkite.com",
}
KEYS = ("issuer", "url", "repository", "repository_id", "workflow", "environment", "claims")

_URL = re.compile(r"https://[^/?#@\s]+(/[^?#\s]*[^/?#\s])?")
_PLACES = {  # what a repository is called, and where a workflow is
    "github": (
        r"[\w.-]+/[\w.-]+",
        "OWNER/NAME",
        r"[\w.-]+\.ya?ml",
        "the name of a file in .github/workflows, such as release.yml",
    ),
    "gitlab": (
        r"[\w.-]+(/[\w.-]+)+",
        "GROUP/NAME",
        r"[^/\s@][^\s@]*\.ya?ml",
        "the path of the file, such as .gitlab-ci.yml",
    ),
    "buildkite": (r"[\w.-]+/[\w.-]+", "ORGANISATION/PIPELINE", "", ""),
}


def problems(account: Account) -> Iterable[str]:
    """Everything wrong with it, one sentence each. Nothing where there is none."""
    trusted = account.get("trusted")
    if trusted is None:
        return
    if not isinstance(trusted, Mapping):
        yield "trusted must be an entry such as {issuer: github, repository: acme/lib, workflow: release.yml}"
        return
    if account.get("role", "reader") == "publisher" and not account.get("projects"):
        yield "trusted needs projects, for a publisher: list what the pipeline publishes"
    found = [f"has the unknown key {key!r}: use {', '.join(KEYS)}" for key in trusted if key not in KEYS]
    given = {key: value for key, value in trusted.items() if value not in (None, "", {})}
    kind = _kind(given)
    if kind == "oidc":
        found += _other_problems(given)
    else:
        found += _place_problems(kind, given, account.get("role", "reader") == "publisher")
    yield from (f"trusted: {problem}" for problem in found)


def described(account: Account) -> dict[str, Any]:
    """The entry of roles.json. The account must have passed `problems`."""
    trusted = {key: value for key, value in account["trusted"].items() if value not in (None, "", {})}
    kind = _kind(trusted)
    issuer = str(trusted["issuer"] if kind == "oidc" else trusted.get("url", ISSUERS[kind]))
    texts = {
        key: str(trusted[key]) for key in ("repository", "repository_id", "workflow", "environment") if key in trusted
    }
    claims = {str(name): str(value) for name, value in trusted.get("claims", {}).items()}
    return {"kind": kind, "issuer": issuer, **texts, **({"claims": claims} if claims else {})}


def _kind(trusted: Account) -> str:
    issuer = str(trusted.get("issuer", ""))
    return issuer if issuer in ISSUERS else "oidc"


def _place_problems(kind: str, trusted: Account, publishes: bool) -> Iterable[str]:
    repository, named, workflow, where = _PLACES[kind]
    if not re.fullmatch(repository, str(trusted.get("repository", "")), re.ASCII):
        yield f"repository is {trusted.get('repository')!r}: write {named}"
    if "claims" in trusted:
        yield "claims is for an issuer that is a URL: use repository, repository_id, workflow and environment"
    if not workflow:
        for key in ("workflow", "environment"):
            if key in trusted:
                yield f"{key} is not told by {kind}: remove it"
    elif ("workflow" in trusted or publishes) and not re.fullmatch(
        workflow, str(trusted.get("workflow", "")), re.ASCII
    ):
        yield f"workflow is {trusted.get('workflow')!r}: give {where}"
    if "url" in trusted and (kind == "buildkite" or not _is_url(trusted["url"])):
        yield f"url is {trusted['url']!r}: give the https address of your own GitLab or GitHub as its tokens have it (iss)"
    if not re.fullmatch(r"[\w-]*", str(trusted.get("repository_id", "")), re.ASCII):
        yield f"repository_id is {trusted['repository_id']!r}: give the number that the API calls id"


def _other_problems(trusted: Account) -> Iterable[str]:
    issuer = trusted.get("issuer")
    if not _is_url(issuer.removesuffix("/") if isinstance(issuer, str) else issuer):  # some have a slash at the end
        names = ", ".join(ISSUERS)
        yield f"issuer is {issuer!r}: use {names}, or the https URL as tokens have it (iss)"
    for name, url in ISSUERS.items():
        if str(issuer).removesuffix("/") == url:
            yield f"issuer is the URL of {name}: use {name}, so that pull requests and workflows of others are told apart"
    claims = trusted.get("claims")
    if not isinstance(claims, Mapping) or not all(
        isinstance(value, (str, int)) and not isinstance(value, bool) and str(value) for value in claims.values()
    ):
        yield "claims must say what a token of that issuer has to have: write {sub: …}, each with text or a number"
    for key in ("url", "repository", "repository_id", "workflow", "environment"):
        if key in trusted:
            yield f"{key} is for {', '.join(ISSUERS)}: use claims for an issuer that is a URL"


def _is_url(value: object) -> bool:
    return isinstance(value, str) and bool(_URL.fullmatch(value))
