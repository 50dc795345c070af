"""TOML: uv.toml."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

_UV_BLOCK = re.compile(
    r"^# BEGIN Ansible: private index\r?\n.*?^# END Ansible: private index\r?\n", re.MULTILINE | re.DOTALL
)


def uv_trust_option(option: str, versions: Sequence[str]) -> str:
    """How uv spells the use of the system's certificates, for the releases that are to read the file.

    `native-tls` is known from 0.4 to 0.13 at least, but with a warning from 0.12 on; before 0.11 `system-certs` is an
    unknown field, with which uv refuses the whole file and every command.
    """
    if option != "auto":
        return option
    old = any(tuple(map(int, version.split(".")[:2])) < (0, 11) for version in versions)
    return "native-tls" if old or not versions else "system-certs"


def uv_toml(text: str, path: str, want: Mapping[str, Any]) -> str:
    """uv.toml: top-level keys are only possible above the first table, [[index]] only below them: two blocks."""

    def block(*lines: str) -> str:
        return "".join(
            f"{line}\n" for line in ("# BEGIN Ansible: private index", *lines, "# END Ansible: private index")
        )

    def line(item: tuple[str, Any]) -> str:
        # JSON's strings are TOML's as long as they are printable ASCII, which was checked.
        return f"{item[0]} = {json.dumps(item[1])}"

    foreign = _UV_BLOCK.sub("", text)
    if want["remove"]:
        return foreign
    if foreign and not foreign.endswith("\n"):
        foreign += "\n"
    index: dict[str, Any] = {"name": want["repository"], "url": want["index_url"], "publish-url": want["upload_url"]}
    if not want["keep_public"]:
        index["default"] = True
    if not want["anonymous_read"]:
        index["authenticate"] = "always"  # else uv asks without a login first, every time
    top: dict[str, Any] = {}
    try:
        expected = tomllib.loads(foreign)
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
        head = block(*map(line, top.items())) if top else ""
        tail = block("[[index]]", *map(line, index.items()))
        new = head + foreign + tail
        outcome = tomllib.loads(new)
    except tomllib.TOMLDecodeError:
        raise ValueError(
            f"{path} on the host cannot take an [[index]] table: it is no valid TOML, or says `index = [...]`; mend that first"
        ) from None
    if outcome != expected | top | {"index": [*others, index]}:
        raise ValueError(f"{path} on the host is laid out in a way this role cannot edit")
    return new
