"""Which files there are, and what is to be written."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from . import environment, ini, managers, netrc, uv

KINDS = {
    "pip": {"pip"},
    "uv": {"uv"},
    "twine": {"pypirc"},
    "poetry": {"poetry", "poetry_auth"},
    "pdm": {"pdm"},
    "pipenv": {"pip"},
    "hatch": {"hatch"},
    "flit": {"pypirc"},
}
"""The files that each tool reads, besides .netrc and what login shells are told."""

_REMEMBERED = ("index_url", "upload_url", "repository", "cert")


def pypi_client_passwd(lines: Sequence[str]) -> dict[str, list[str]]:
    """The accounts, of lines as /etc/passwd has them."""
    return {line.split(":")[0]: line.split(":") for line in lines}


def pypi_client_targets(
    users: Sequence[Mapping[str, Any]],
    scope: str,
    places: Mapping[str, Any],
    passwd: Mapping[str, Sequence[str]],
    want: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The files to keep: kind, place (base and path below it), owner and group (numeric), entries of their users by number.

    `places` are the system's: `machine` has base and path of each kind that is everybody's, `settings` is where below a home poetry,
    pdm and hatch have theirs.
    """
    kinds = {"netrc", "profile"}.union(*(KINDS[tool] for tool in want["tools"]))
    targets: list[dict[str, Any]] = []

    def add(
        kind: str, path: str, base: str, owner: Sequence[str], entries: Sequence[int], *, secret: bool = False
    ) -> None:
        if kind in kinds:
            uid, gid = map(int, owner)
            place = {"kind": kind, "base": base, "path": path}
            targets.append({**place, "uid": uid, "gid": gid, "entries": entries, "secret": secret})

    if scope == "system":
        for kind, (base, path) in places["machine"].items():
            if kind != "profile" or want["cert"] or "pipenv" in want["tools"]:
                add(kind, path, base, ("0", "0"), list(range(len(users))))
    for index, user in enumerate(users):
        _, _, uid, gid, _, home, *_ = passwd[user["user"]]
        account, publishes = (home, (uid, gid), [index]), bool(user.get("publish"))
        settings = places["settings"]
        if scope == "user":
            add("pip", ".config/pip/pip.conf", *account)
            add("uv", ".config/uv/uv.toml", *account)
        if scope == "user" or publishes:
            add("pdm", f"{settings}/pdm/config.toml", *account, secret=publishes)
        add("poetry", f"{settings}/pypoetry/config.toml", *account)
        if publishes:
            add("poetry_auth", f"{settings}/pypoetry/auth.toml", *account, secret=True)
            add("hatch", f"{settings}/hatch/config.toml", *account, secret=True)
        add("netrc", ".netrc", *account, secret=True)
        add("pypirc", ".pypirc", *account, secret=True)
    return targets


def pypi_client_place(file: Mapping[str, Any]) -> str:
    """The whole path."""
    return f"{file['base']}/{file['path']}"


def _edit(kind: str, text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    match kind:
        case "pip":
            return ini.pip_conf(text, path, want)
        case "uv":
            return uv.uv_toml(text, path, want)
        case "poetry":
            return managers.poetry(text, path, want)
        case "poetry_auth":
            return managers.poetry_auth(text, path, want, user)
        case "pdm":
            return managers.pdm(text, path, want, user)
        case "hatch":
            return managers.hatch(text, path, want, user)
        case "profile":
            return "" if want["remove"] else environment.profile(want)
        case "netrc":
            return netrc.netrc(text, path, want, user)
        case _:
            return ini.pypirc(text, path, want, user)


def _same(kind: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the one, written over the other, leaves nothing of it."""
    match kind:
        case "pip":
            keys: tuple[str, ...] = ("index_url", "cert")
        case "pypirc":
            keys = ("upload_url", "repository", "cert")
        case "netrc":
            return bool(urlsplit(one["index_url"]).hostname == urlsplit(other["index_url"]).hostname)
        case _:
            return True
    return all(one[key] == other[key] for key in keys)


def _check_ground(files: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> None:
    problems = [f"{place} {there['problem']}" for place, there in files.items() if "problem" in there]
    missing = {str(target["base"]) for target in targets if not files[pypi_client_place(target)]["base"]}
    problems += [f"{base} is no directory" for base in sorted(missing)]
    if problems:
        raise ValueError(f"on the host {', '.join(problems)}: put plain ones in their place, then run again")


def _text(place: str, there: Mapping[str, Any]) -> str:
    try:
        return b64decode(there.get("content", "")).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{place} on the host is not UTF-8 text: mend or remove it, then run again") from None


def _owner(there: Mapping[str, Any], target: Mapping[str, Any] | None, secret: bool) -> dict[str, Any]:
    """A file with a secret becomes its user's and 0600; the others keep the owner and mode they have."""
    if target and (secret or not there["exists"]):
        return {"uid": target["uid"], "gid": target["gid"], "mode": "0600" if secret else "0644"}
    return {key: there.get(key) for key in ("uid", "gid", "mode")}


def _write(file: Mapping[str, Any], content: str | None, owner: Mapping[str, Any]) -> dict[str, Any]:
    encoded = None if content is None else b64encode(content.encode()).decode()
    return {"base": file["base"], "path": file["path"], "content": encoded, **owner}


def pypi_client_plan(
    seen: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]],
    want: Mapping[str, Any],
    at: Mapping[str, str],
) -> dict[str, list[Any]]:
    """`writes`: what differs, as pypi_client_files takes it. `others`: the pip.conf files that name further indexes.
    `replaced`: the indexes of earlier runs that this one takes out.

    `seen` is what that module has read. The record, which is kept `at` a place, says before the first write what may be
    where, and after the last what is.
    """
    _check_ground(seen["files"], [] if want["remove"] else targets)
    records = seen["records"]
    wanted = {pypi_client_place(target): target for target in targets}
    known = {pypi_client_place(file): file for record in records for file in record["files"]}
    writes: list[dict[str, Any]] = []
    others: list[str] = []
    former: set[str] = set()  # where a login of the user's own was put aside
    for place, file in (known | wanted).items():
        there, target, kind = seen["files"][place], wanted.get(place), file["kind"]
        text = new = _text(place, there)
        ours = False
        for record in records:
            for entry in (each for each in record["files"] if pypi_client_place(each) == place):
                certain = not entry.get("former")  # else the file says it, where the user's own may be back already
                if target and not want["remove"] and _same(kind, record, want):
                    ours = ours or certain
                else:
                    new = _edit(kind, new, place, {**want, **record, "remove": True, "known": certain}, {})
        if target:
            readers = [users[number]["user"] for number in target["entries"]] or ["nobody"]
            versions = [version for reader in readers for version in seen["uv"].get(reader, ())]
            trust = uv.uv_trust_option(want["uv_trust"], versions)
            user = users[target["entries"][0]] if target["secret"] else {}
            new = _edit(kind, new, place, {**want, "uv_trust": trust, "known": ours}, user)
            if kind == "netrc" and netrc.has_former(new, want):
                former.add(place)
            if kind == "pip" and _further_indexes(new, place, want["index_url"]):
                others.append(place)
        owner = _owner(there, target, bool(target and target["secret"] and not want["remove"]))
        if new != text or (there["exists"] and any(there[key] != value for key, value in owner.items())):
            emptied = text.strip() and not new.strip()  # what we emptied was ours alone
            writes.append(_write(file, None if emptied else new, owner))
    files = [
        {"kind": target["kind"], "base": target["base"], "path": target["path"]}
        | ({"former": True} if place in former else {})
        for place, target in sorted(wanted.items())
    ]
    replaced = [] if want["remove"] else sorted({record["index_url"] for record in records} - {want["index_url"]})
    return {"writes": _recorded(writes, records, files, want, at), "others": others, "replaced": replaced}


def _further_indexes(text: str, path: str, index_url: str) -> list[str]:
    return ini.without(ini.read(text, path).get("global", {}).get("extra-index-url", []), index_url)


def _recorded(
    writes: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]],
    want: Mapping[str, Any],
    at: Mapping[str, str],
) -> list[Mapping[str, Any]]:
    """The writes between those of the record."""
    record = {key: want[key] for key in _REMEMBERED} | {"files": files}
    after = [] if want["remove"] else [record]

    def remember(what: Sequence[Any]) -> list[dict[str, Any]]:
        text = json.dumps(what, indent=1) + "\n" if what else None
        return [_write(at, text, {"uid": 0, "gid": 0, "mode": "0600"})]

    if list(records) == after:
        return list(writes)
    return [*(remember([*records, *after]) if writes else []), *writes, *remember(after)]
