"""Filters of the role pypi_users: from the inventory's accounts to the files the containers read.

They run on the controller, where the vault is open: the host gets bcrypt hashes and nothing to compute.
`bcrypt` is used directly: three typed functions that release the GIL, so threads use every core.

Seals make a re-run fast. Checking 1,000 passwords against 1,000 hashes of cost 12 takes 200 s of CPU. So
accounts are put into 32 groups by name, and each group gets a seal: one bcrypt hash, of the same cost, over
all its names, passwords and hashes together. A seal that verifies proves that the whole group is as it was,
with one check; a change costs the checks of one group. Whoever steals the seals gains nothing: to test a guess
they must know every other password of the group, and pay as much as for the user's own hash, which lies beside
it. No key, no fast hash and no password is kept anywhere.

Measured with 1,000 `password` users of cost 12 on two busy cores: the first run 290 s of CPU, one where nothing
changed 9 s, one with a changed or removed user 22 s. `password_hash` users and tokens cost nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import bcrypt

sys.path.append(str(Path(__file__).parent))  # Ansible loads this file by its path, and nothing beside it

import pypi_users_trusted as trusted

Account = Mapping[str, Any]

GROUPS = 32  # checks of an unchanged run; about as many as one group of 1,000 users has members
COSTS = range(10, 16)  # below, a stolen file falls to guessing; above, one login takes seconds
HASH_COSTS = range(4, 16)  # who hashes a random token knows that a low cost is enough for it
MAX_BYTES = 72  # bcrypt reads no more
ROLES = ("reader", "publisher")
KEYS = ("name", "password", "password_hash", "role", "projects", "tokens", "trusted")
SCOPES = ("read", "publish")
TOKEN_KEYS = ("name", "hash", "secret", "scope", "projects", "until")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
# Salt and digest end in characters whose spare bits are zero: a mistyped or cut hash is seen here.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]")
_TOKEN = re.compile(r"ppi_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PATTERN = re.compile(r"[a-z0-9*?]+(-[a-z0-9*?]+)*")

_MAKE_HASH = "make one with `htpasswd -nBC 12 NAME` (the part after the colon), or leave it out and set password"
_MAKE_TOKEN = "make one with playbooks/token.yml"


def _cost(hashed: str) -> int | None:
    """The cost of a well-formed bcrypt hash, None for anything else."""
    match = _BCRYPT.fullmatch(hashed)
    return int(match[1]) if match else None


def _name_problem(name: object) -> str | None:
    if not isinstance(name, str):
        return "name must be text: put it in quotes"
    if _NAME.fullmatch(name):
        return None
    # The name itself stays unsaid: "alice:secret" is a likely mistake.
    return "name must be 1 to 64 ASCII letters, digits or . _ @ + - and start with a letter or digit"


def _password_problem(password: object) -> str | None:
    if not isinstance(password, str):
        return "password must be text: put it in quotes"
    if not password:
        return "password is empty: set one, or remove the entry"
    if password.startswith("ppi_"):
        return "password begins as a token does (ppi_): list it under tokens, or choose another"
    if "\0" in password:
        return "password holds a NUL character, which bcrypt cannot hash: choose another"
    if (size := len(password.encode("utf-8", "surrogatepass"))) > MAX_BYTES:
        return f"password is {size} bytes long in UTF-8, bcrypt reads {MAX_BYTES}: choose a shorter one"
    return None


def _hash_problem(hashed: object) -> str | None:
    cost = _cost(hashed) if isinstance(hashed, str) else None
    if cost is None:
        return f"password_hash is not a whole bcrypt hash ($2b$, $2y$ or $2a$, 60 characters): {_MAKE_HASH}"
    if cost not in HASH_COSTS:
        return f"password_hash has cost {cost}, not {HASH_COSTS[0]} to {HASH_COSTS[-1]}: {_MAKE_HASH}"
    return None


def _secret_problem(account: Account) -> str | None:
    given = [key for key in ("password", "password_hash") if account.get(key) is not None]
    if not given and (account.get("tokens") or account.get("trusted")):
        return None
    if len(given) != 1:
        return f"has {'both' if given else 'neither'} of password and password_hash: set exactly one"
    if given == ["password"]:
        return _password_problem(account["password"])
    return _hash_problem(account["password_hash"])


def _rights_problems(account: Account) -> Iterable[str]:
    role = account.get("role", "reader")
    if role not in ROLES:
        yield f"role is {role!r}: use {' or '.join(ROLES)}"
    if account.get("projects") and role == "reader":
        yield "projects narrows a publisher, but role is reader: set role: publisher, or remove projects"
    yield from _projects_problems(account.get("projects") or [])


def _projects_problems(projects: object) -> Iterable[str]:
    if not isinstance(projects, Sequence) or isinstance(projects, str):
        yield "projects must be a list: write ['acme-*']"
        return
    for pattern in projects:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            hint = re.sub(r"[-_.]+", "-", str(pattern)).lower().strip("-")
            hint = f"write {hint!r}" if _PATTERN.fullmatch(hint) else "write for example 'acme-*'"
            yield (
                f"projects has {pattern!r}: patterns match normalised names (PEP 503), so only"
                f" a-z, 0-9, single hyphens inside, * and ?; {hint}"
            )


def _tokens_problems(account: Account) -> Iterable[str]:
    tokens = account.get("tokens") or []
    if not isinstance(tokens, Sequence) or isinstance(tokens, str) or not all(isinstance(t, Mapping) for t in tokens):
        yield "tokens must be a list of entries with name and hash: playbooks/token.yml prints one"
        return
    names = [str(token.get("name")) for token in tokens]
    for index, token in enumerate(tokens):
        found = [_name_problem(token.get("name"))]
        where = f"tokens[{index}]"
        if found == [None]:
            where += f" ({names[index]})"
            if names.index(names[index]) != index:
                found.append("name is that of another token of this account: choose another")
        found += [f"has the unknown key {key!r}: use {', '.join(TOKEN_KEYS)}" for key in token if key not in TOKEN_KEYS]
        found += [_token_secret_problem(token), *_scope_problems(token, account)]
        yield from (f"{where}: {problem}" for problem in found if problem)


def _token_secret_problem(token: Account) -> str | None:
    given = [key for key in ("hash", "secret") if token.get(key) is not None]
    if len(given) != 1:
        return f"has {'both' if given else 'neither'} of hash and secret: set exactly one"
    if given == ["hash"] and not _TOKEN_HASH.fullmatch(str(token["hash"])):
        return f"hash is not sha256: and 64 hexadecimal digits: {_MAKE_TOKEN}, which prints it"
    if given == ["secret"]:
        whole = _TOKEN.fullmatch(str(token["secret"]))
        if not whole or whole[2] != _checksum(whole[1]):
            return f"secret is no whole token (ppi_ and 49 letters and digits, of which the last 6 are a checksum): {_MAKE_TOKEN}"
    return None


def _scope_problems(token: Account, account: Account) -> Iterable[str]:
    scope = token.get("scope", "read")
    if scope not in SCOPES:
        yield f"scope is {scope!r}: use {' or '.join(SCOPES)}"
    if scope == "publish" and account.get("role", "reader") == "reader":
        yield "scope is publish, but the account's role is reader: set role: publisher, or scope: read"
    if scope == "read" and token.get("projects"):
        yield "projects narrows what may be published, but scope is read: set scope: publish, or remove projects"
    yield from _projects_problems(token.get("projects") or [])
    if token.get("until") is not None:
        try:
            date.fromisoformat(str(token["until"]))
        except ValueError:
            yield f"until is {str(token['until'])!r}: give its last day, such as 2027-01-31"


def pypi_users_problems(accounts: Sequence[Account]) -> list[str]:
    """Everything wrong with the accounts, one sentence each: what, where and the fix. Empty when all is well.

    Names are compared as they are, capitals count: so do pypiserver and nginx. No sentence holds a
    password or a hash.
    """
    if not accounts:
        return ["pypi_users_accounts is empty: list at least one account with name and password"]
    problems: list[str] = []
    first: dict[str, int] = {}
    tokens: dict[str, str] = {}
    runs: dict[str, str] = {}
    for index, account in enumerate(accounts):
        name = account.get("name")
        where = f"pypi_users_accounts[{index}]"
        found = [_name_problem(name)]
        if found == [None]:
            where += f" ({name})"
            if first.setdefault(str(name), index) != index:
                found.append(f"is a duplicate of entry {first[str(name)]}: keep one of them")
        found += [f"has the unknown key {key!r}: use {', '.join(KEYS)}" for key in account if key not in KEYS]
        found += [_secret_problem(account), *_rights_problems(account), *(of_tokens := [*_tokens_problems(account)])]
        for token in [] if of_tokens else account.get("tokens") or []:
            this = f"{where}: tokens ({token['name']})"
            if (other := tokens.setdefault(_token_hash(token), this)) != this:
                found.append(f"tokens ({token['name']}): is the same token as {other}: {_MAKE_TOKEN}")
        found += (of_trusted := [*trusted.problems(account)])
        if account.get("trusted") and not of_trusted:
            same = json.dumps([account.get("role"), trusted.described(account)], sort_keys=True)
            if (other := runs.setdefault(same, where)) != where:
                found.append(f"trusted is the same as that of {other}, and nobody could say whose a run is: keep one")
        problems += [f"{where}: {problem}" for problem in found if problem]
    return problems


def pypi_users_roles(accounts: Sequence[Account]) -> str:
    """The text of roles.json: every account's role, the patterns it may publish (none: all), and its tokens and what it trusts, if there are any."""
    roles = {}
    for account in accounts:
        role: dict[str, Any] = {"role": str(account.get("role", "reader")), "projects": _patterns(account)}
        tokens = {str(token["name"]): _token_rights(token) for token in account.get("tokens") or []}
        role |= {"tokens": tokens} if tokens else {}
        roles[str(account["name"])] = role | ({"trusted": trusted.described(account)} if account.get("trusted") else {})
    return json.dumps(roles, indent=2, sort_keys=True) + "\n"


def _patterns(of: Account) -> list[str]:
    return sorted({str(pattern) for pattern in of.get("projects") or []})


def _token_rights(token: Account) -> dict[str, Any]:
    rights = {"sha256": _token_hash(token), "scope": str(token.get("scope", "read")), "projects": _patterns(token)}
    if token.get("until") is not None:
        rights["until"] = date.fromisoformat(str(token["until"])).isoformat()
    return rights


def _token_hash(token: Account) -> str:
    if token.get("hash") is not None:
        return str(token["hash"]).removeprefix("sha256:")
    return hashlib.sha256(str(token["secret"]).encode()).hexdigest()


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _checksum(text: str) -> str:
    """By which scanners for secrets tell a token from other text (CRC-32 in base 62, as GitHub's have it)."""
    return _base62(zlib.crc32(text.encode()), 6)


def pypi_users_token(about: Mapping[str, Any]) -> dict[str, Any]:
    """A new token: its `secret`, and its `entry` for the inventory, with `about`: name, scope, projects, until."""
    text = _base62(int.from_bytes(secrets.token_bytes(32), "big"), 43)
    secret = f"ppi_{text}{_checksum(text)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    given = {key: value for key, value in about.items() if value}
    return {"secret": secret, "entry": {"name": about["name"], "hash": f"sha256:{digest}", **given}}


def pypi_users_tokens(accounts: Sequence[Account], seen: Sequence[str]) -> list[dict[str, Any]]:
    """Every token by the name that logs call it, with its rights and its last use, as far as the logs know. No hash, no secret.

    A line of what was `seen` is the name and the time, in brackets, of a token's last request; "-" has the time at which the logs begin.
    """
    times = {name: time.strip("[]") for name, _, time in (line.partition(" ") for line in seen)}
    never = f"not since {times['-']}, where the logs begin" if times.get("-") else "not in the logs, which are empty"
    listed = []
    for account in accounts:
        for token in account.get("tokens") or []:
            name, rights = f"{account['name']}/{token['name']}", _token_rights(token)
            row = {"token": name, "scope": rights["scope"]}
            if rights["scope"] == "publish":  # both lists have to match
                lists = [patterns for patterns in (_patterns(account), rights["projects"]) if patterns]
                row["projects"] = " and ".join(", ".join(patterns) for patterns in lists) or "all"
            if until := rights.get("until"):
                row["until"] = (
                    f"{until}, which is over" if date.fromisoformat(until) < datetime.now(UTC).date() else until
                )
            listed.append(row | {"last_use": times.get(name, never)})
    return sorted(listed, key=lambda row: str(row["token"]))


def _parse(content: str) -> dict[str, str]:
    text = b64decode(content).decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _render(entries: Mapping[str, str]) -> str:
    return "".join(f"{key}:{value}\n" for key, value in sorted(entries.items()))


def _group(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).digest()[0] % GROUPS:02d}"


def _statement(names: Iterable[str], passwords: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """What a seal says about its group, as text that fits bcrypt's 72 bytes."""
    said = json.dumps([[name, passwords[name], hashes[name]] for name in sorted(names)])
    return b64encode(hashlib.sha256(said.encode()).digest()).decode()


def _matches(secret: str, hashed: str | None, cost: int) -> bool:
    return hashed is not None and _cost(hashed) == cost and bcrypt.checkpw(secret.encode(), hashed.encode())


def _hash(secret: str, cost: int) -> str:
    return bcrypt.hashpw(secret.encode(), bcrypt.gensalt(cost)).decode()


def pypi_users_files(
    accounts: Sequence[Account], htpasswd: str, seals: str, cost: int, gid: int
) -> list[dict[str, str]]:
    """The new files as host_files takes them, from the accounts and the present files in base64, "" for one that is not there.

    A present hash that verifies and has the wanted cost stays byte-identical; who is gone is dropped, and so is what is no hash.
    The accounts must have passed pypi_users_problems. Rights come first: a new name without rights is refused, rights without
    a name are nobody's. The seals come last: without them the next run only has more to check.
    """
    present, sealed = _parse(htpasswd), _parse(seals)
    hashes = {str(a["name"]): str(a["password_hash"]) for a in accounts if a.get("password_hash") is not None}
    passwords = {str(a["name"]): str(a["password"]) for a in accounts if a.get("password") is not None}
    groups: dict[str, list[str]] = {}
    for name in passwords:
        groups.setdefault(_group(name), []).append(name)
    # A seal over one account would cost as much as the account's own check.
    worth = [group for group, names in groups.items() if len(names) > 1]

    def intact(group: str) -> bool:
        names = groups[group]
        if any(_cost(present.get(name, "")) != cost for name in names):
            return False
        return _matches(_statement(names, passwords, present), sealed.get(group), cost)

    def settle(name: str) -> str:
        hashed = present.get(name)
        return hashed if hashed and _matches(passwords[name], hashed, cost) else _hash(passwords[name], cost)

    def seal(group: str) -> str:
        return _hash(_statement(groups[group], passwords, hashes), cost)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = {group for group, good in zip(worth, pool.map(intact, worth), strict=True) if good}
        loose = [name for group, names in groups.items() if group not in kept for name in names]
        hashes |= {name: present[name] for group in kept for name in groups[group]}
        hashes |= dict(zip(loose, pool.map(settle, loose), strict=True))
        broken = [group for group in worth if group not in kept]
        new_seals = {group: sealed[group] for group in kept}
        new_seals |= dict(zip(broken, pool.map(seal, broken), strict=True))
    shared = {"group": str(gid), "mode": "0640"}
    return [
        {"name": "roles.json", "content": pypi_users_roles(accounts), **shared},
        {"name": "htpasswd", "content": _render(hashes), **shared},
        {"name": "htpasswd.seals", "content": _render(new_seals), "mode": "0600"},
    ]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "pypi_users_problems": pypi_users_problems,
            "pypi_users_token": pypi_users_token,
            "pypi_users_tokens": pypi_users_tokens,
            "pypi_users_files": pypi_users_files,
        }
