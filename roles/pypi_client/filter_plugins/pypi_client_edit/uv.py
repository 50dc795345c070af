"""uv.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from . import lines, toml


def uv_trust_option(option: str, versions: Sequence[str]) -> str:
    """How uv spells the use of the system's certificates, for the releases that are to read the file.

    `native-tls` is known from 0.4 to 0.13 at least, but with a warning from 0.12 on; before 0.11 `system-certs` is an
    unknown field, with which uv refuses the whole file and every command.
    """
    if option != "auto":
        return option
    old = any(tuple(map(int, version.split(".")[:2])) < (0, 11) for version in versions)
    return "native-tls" if old or not versions else "system-certs"


@lines.whole
def uv_toml(text: str, path: str, want: Mapping[str, Any]) -> str:
    """uv.toml: top-level keys are only possible above the first table, [[index]] only below them: two blocks."""
    foreign = toml.foreign(text)
    if want["remove"]:
        return foreign
    index: dict[str, Any] = {"name": want["repository"], "url": want["index_url"], "publish-url": want["upload_url"]}
    if not want["keep_public"]:
        index["default"] = True
    if not want["anonymous_read"]:
        index["authenticate"] = "always"  # else uv asks without a login first, every time
    top: dict[str, Any] = {}
    expected = toml.read(foreign, path)
    others = expected.get("index", [])
    if any(other.get("name") == index["name"] or (other.get("default") and "default" in index) for other in others):
        raise ValueError(
            f"{path} on the host has another default index, or one named {index['name']!r}: remove its [[index]] table,"
            " or choose another pypi_client_repository or pypi_client_keep_public_index"
        )
    if "publish-url" not in expected:
        top["publish-url"] = want["upload_url"]  # a bare `uv publish` must not go to the public index
    if want["cert"]:
        if False in (expected.get("system-certs"), expected.get("native-tls")):
            raise ValueError(f"{path} on the host turns the system's certificates off: remove that line")
        if "system-certs" not in expected and "native-tls" not in expected:
            top[want["uv_trust"]] = True
    head = toml.block(*(toml.line(key, value) for key, value in top.items()))
    new = head + foreign + toml.block("[[index]]\n", *(toml.line(key, value) for key, value in index.items()))
    try:
        outcome = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        raise ValueError(
            f"{path} on the host cannot take an [[index]] table: it says `index = [...]`; mend that first"
        ) from None
    if outcome != expected | top | {"index": [*others, index]}:
        raise ValueError(f"{path} on the host is laid out in a way this role cannot edit")
    return new
