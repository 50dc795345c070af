"""The settings of poetry, pdm and hatch. Their indexes are the project's own affair, but for pdm's default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import lines, toml


def _with(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that have a value."""
    return {key: value for key, value in options.items() if value}


@lines.whole
def poetry(text: str, path: str, want: Mapping[str, Any]) -> str:
    """config.toml: where `publish -r NAME` goes, and the CA of that and of a project's source with this name."""
    name = want["repository"]
    tables = {f"repositories.{name}": {"url": want["upload_url"]}}
    if want["cert"]:
        tables[f"certificates.{name}"] = {"cert": want["cert"]}
    return toml.foreign(text) if want["remove"] else toml.edited(toml.foreign(text), path, tables)


@lines.whole
def poetry_auth(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """auth.toml: the login for both."""
    if want["remove"]:
        return toml.foreign(text)
    login = {key: user[key] for key in ("username", "password")}
    return toml.edited(toml.foreign(text), path, {f"http-basic.{want['repository']}": login})


@lines.whole
def pdm(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """config.toml: the index; for who publishes [repository.pypi] too, for a bare `pdm publish`, unless it is in use."""
    foreign = toml.foreign(text)
    if want["remove"]:
        return foreign
    source = f"pypi.{want['repository']}" if want["keep_public"] else "pypi"
    tables = {source: _with({"url": want["index_url"], "ca_certs": want["cert"]})}
    if user.get("publish"):
        login = {key: user[key] for key in ("username", "password")}
        target = _with({"url": want["upload_url"], **login, "ca_certs": want["cert"]})
        tables[f"repository.{want['repository']}"] = target
        if not toml.table(toml.read(foreign, path), "repository.pypi"):
            tables["repository.pypi"] = target
    return toml.edited(foreign, path, tables)


@lines.whole
def hatch(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """config.toml: where `hatch publish` goes. On its first start hatch writes a file that names the public index."""
    if want["remove"]:
        return toml.foreign(text)
    name = want["repository"]
    target = {"url": want["upload_url"], "user": user["username"], "auth": user["password"], "ca-cert": want["cert"]}
    tables = {"publish.index": {"repo": name}, f"publish.index.repos.{name}": _with(target)}
    return toml.edited(toml.foreign(text), path, tables)
