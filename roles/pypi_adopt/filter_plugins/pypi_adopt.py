"""Filters of the role pypi_adopt: from what `docker inspect` and an htpasswd say to what is to be adopted.

A stack is a pypiserver that Compose runs as the blog posts have it (`run -P /data/.htpasswd -a update,download,list /data/packages`),
with all other containers of its project, such as an nginx in front.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

ROOT = "/data/packages"
"""Where pypiserver's image looks when it is told nothing."""
_VALUED = {
    "-P",
    "--passwords",
    "-a",
    "--authenticate",
    "-p",
    "--port",
    "-i",
    "-H",
    "--interface",
    "--host",
    "--server",
    "--hash-algo",
    "--log-file",
    "--log-stream",
    "--log-frmt",
    "--backend",
    "--fallback-url",
    "--health-endpoint",
    "--cache-control",
    "--blacklist-file",
    "--welcome",
    "--log-req-frmt",
    "--log-res-frmt",
    "--log-err-frmt",
    "--server-base-url",
}
"""pypiserver's options that take the word behind them."""
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}")
_KINDS = {
    "{SHA}": "SHA-1 without salt",
    "$apr1$": "MD5 (apr1)",
    "$1$": "MD5",
    "$5$": "SHA-256 crypt",
    "$6$": "SHA-512 crypt",
    "$2": "bcrypt of a form or cost that is not taken",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def old(inspected: str, project: str, own: Sequence[str]) -> dict[str, Any]:
    """The stack on a host. `inspected` is JSON of all containers, `project` its name if there are several, `own` our directories.

    `containers` is empty when there is none; `problem` says why one that is there cannot be adopted.
    """
    containers = json.loads(inspected or "[]")
    theirs = [c for c in containers if _label(c, "project.working_dir") not in own and _label(c, "oneoff") != "True"]
    servers = [c for c in theirs if "pypiserver" in c["Config"]["Image"]]
    servers = [c for c in servers if not project or _label(c, "project") == project]
    found: dict[str, Any] = {
        "containers": [],
        "ports": [],
        "packages": [],
        "htpasswd": "",
        "project": "",
        "problem": "",
    }
    projects = sorted({_label(server, "project") for server in servers})
    if not servers:
        return found
    if len(servers) > 1 and (len(projects) > 1 or not project):
        return found | {
            "problem": f"there are several pypiservers, of the projects {', '.join(projects)}: say one as pypi_adopt_project"
        }
    server, name = servers[0], projects[0]
    # The server first: an nginx in front asks for its address when it starts.
    members = [server, *(c for c in theirs if name and c is not server and _label(c, "project") == name)]
    directory = _label(server, "project.working_dir")
    published = [port for c in members if c["State"]["Running"] for port in _ports(c)]
    found |= {
        "project": name,
        "containers": [{"id": c["Id"], "name": c["Name"].lstrip("/"), "restart": _restart(c)} for c in members],
        "ports": sorted(set(published)),
        "directory": directory,
        # Compose v1 has them as they were typed.
        "files": [
            str(PurePosixPath(directory, each)) for each in _label(server, "project.config_files").split(",") if each
        ],
    }
    passwords, roots = _arguments(server)
    found["packages"] = [place for root in roots if (place := _on_host(server, root))]
    found["htpasswd"] = _on_host(server, passwords) if passwords and passwords != "." else ""
    return found | {"problem": _problem(found, roots)}


def _problem(found: Mapping[str, Any], roots: Sequence[str]) -> str:
    name = found["containers"][0]["name"]
    if not found["project"] or not found["files"]:
        return (
            f"{name} was not started by Compose, so nothing says how it is started again. Take its files with playbooks/move_in.yml,"
            " and stop it yourself"
        )
    if found["project"] == "pypi":
        return (
            f"{name} is of a Compose project called pypi, as this one's is. Take its files with playbooks/move_in.yml from a copy, and"
            " remove it before"
        )
    if len(found["packages"]) != len(roots):
        return f"{name} has its packages ({', '.join(roots)}) in the container itself: copy them out (docker cp), and playbooks/move_in.yml"
    return ""


def _label(container: Mapping[str, Any], name: str) -> str:
    return str((container["Config"]["Labels"] or {}).get(f"com.docker.compose.{name}", ""))


def _restart(container: Mapping[str, Any]) -> str:
    policy = container["HostConfig"]["RestartPolicy"]
    count = policy.get("MaximumRetryCount") or 0
    return f"{policy['Name'] or 'no'}{f':{count}' if count else ''}"


def _ports(container: Mapping[str, Any]) -> list[int]:
    bound = (container["NetworkSettings"]["Ports"] or {}).values()
    return [int(one["HostPort"]) for ports in bound for one in ports or []]


def _arguments(container: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The password file and the roots, as paths in the container."""
    config = container["Config"]
    words = [str(word) for word in [*(config["Entrypoint"] or [])[1:], *(config["Cmd"] or [])]]
    passwords, roots, at = "", [], 0
    while at < len(words):
        word, _, value = words[at].partition("=")
        if word in _VALUED and not value:
            at += 1
            value = words[at] if at < len(words) else ""
        if word in ("-P", "--passwords"):
            passwords = value
        elif not word.startswith("-") and words[at].startswith("/"):
            roots.append(words[at])
        at += 1
    base = config["WorkingDir"] or "/"
    return (str(PurePosixPath(base, passwords)) if passwords not in ("", ".") else passwords), roots or [ROOT]


def _on_host(container: Mapping[str, Any], path: str) -> str:
    """Where the host has what the container has there; empty if that is in the container's own layer."""
    mounts = sorted(container["Mounts"], key=lambda mount: len(mount["Destination"]), reverse=True)
    for mount in mounts:
        if PurePosixPath(path).is_relative_to(mount["Destination"]):
            return str(PurePosixPath(mount["Source"]) / PurePosixPath(path).relative_to(mount["Destination"]))
    return ""


def users(htpasswd: str, accounts: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """`kept`: entries whose passwords stay as they are; `lost`: name and why; `missing`: names that the inventory does not have yet."""
    known = {str(account.get("name")) for account in accounts}
    kept: list[dict[str, str]] = []
    lost: list[list[str]] = []
    for line in htpasswd.splitlines():
        name, colon, value = line.strip().partition(":")
        if not colon or line.startswith("#"):
            continue
        if not _NAME.fullmatch(name):
            lost.append([json.dumps(name), "a name that is not taken"])
        elif _BCRYPT.fullmatch(value):
            kept.append({"name": name, "role": "publisher", "password_hash": value})
        else:
            lost.append(
                [name, next((kind for start, kind in _KINDS.items() if value.startswith(start)), "DES, or unknown")]
            )
    names = [account["name"] for account in kept] + [name for name, _ in lost]
    return {"kept": kept, "lost": lost, "missing": [name for name in dict.fromkeys(names) if name not in known]}


def snippet(found: Mapping[str, Any], origin: str) -> str:
    """YAML to paste into the inventory, with hashes only."""
    lines = [
        f"# From the htpasswd of {origin}. Everybody in it could upload; a reader has no role.",
        "pypi_users_accounts:",
        *(
            f"  - {{name: {json.dumps(a['name'])}, role: publisher, password_hash: {a['password_hash']!r}}}"
            for a in found["kept"]
        ),
    ]
    if found["lost"]:
        lines.append(
            "  # These hashes fall to guessing, or cannot be checked here. Everybody gets a new password, from the vault:"
        )
    for name, kind in found["lost"]:
        lines.append(f'  # - {{name: {name}, role: publisher, password: "{{{{ vault_… }}}}"}}  # was {kind}')
    return "\n".join([*lines, ""])


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {f"pypi_adopt_{function.__name__}": function for function in (old, users, snippet)}
