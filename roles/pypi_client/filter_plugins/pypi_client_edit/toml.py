"""Editing TOML.

What is ours lies between two comments. A value that it takes the place of is kept there as a comment, and comes back with `remove`.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

Tables = Mapping[str, Mapping[str, Any]]

_BEGIN, _END, _ASIDE = "# BEGIN Ansible: private index\n", "# END Ansible: private index\n", "# instead of: "
# uv.toml may have been written by a release that left \r\n in the middle of a file as it is.
_BLOCK = re.compile(rf"^{_BEGIN[:-1]}\r?\n(.*?)^{_END[:-1]}\r?\n", re.MULTILINE | re.DOTALL)


def block(*inner: str) -> str:
    return "".join([_BEGIN, *inner, _END]) if inner else ""


def line(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value)}\n"  # JSON's strings are TOML's as long as they are printable ASCII, which was checked


def foreign(text: str) -> str:
    """The text without us."""

    def aside(ours: re.Match[str]) -> str:
        return "".join(row.removeprefix(_ASIDE) for row in ours[1].splitlines(keepends=True) if row.startswith(_ASIDE))

    return _BLOCK.sub(aside, text)


def read(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ValueError(f"{path} on the host is no valid TOML: mend or remove it, then run again") from None


def table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table by its dotted name; empty where there is none, or no table."""
    at: Any = content
    for part in name.split("."):
        at = at.get(part, {}) if isinstance(at, Mapping) else {}
    return at if isinstance(at, Mapping) else {}


def _filled(content: Mapping[str, Any], tables: Tables) -> dict[str, Any] | None:
    """What a file should say; None where something else has the name of a table."""
    filled: dict[str, Any] = copy.deepcopy(dict(content))
    for name, options in tables.items():
        at: Any = filled
        for part in name.split("."):
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                return None
        at |= options
    return filled


def _put(rows: list[str], header: int, options: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Set the options of a table whose header is there already."""
    end = next((at for at in range(header + 1, len(rows)) if rows[at].lstrip().startswith("[")), len(rows))
    for key, value in options.items():
        for at in range(header + 1, end):
            if key in old and re.match(rf"\s*{re.escape(key)}\s*=", rows[at]):
                rows[at] = block(_ASIDE + rows[at], line(key, value))
    rows[header] += block(*(line(key, value) for key, value in options.items() if key not in old))


def edited(text: str, path: str, tables: Tables) -> str:
    """The foreign text with the tables in it, each option in place of what it was."""
    before = read(text, path)
    rows, fresh = text.splitlines(keepends=True), []
    for name, wanted in tables.items():
        old = table(before, name)
        options = {key: value for key, value in wanted.items() if old.get(key) != value}
        headers = [at for at, row in enumerate(rows) if re.match(rf"\s*\[\s*{re.escape(name)}\s*\]\s*(#|$)", row)]
        if headers:
            _put(rows, headers[0], options, old)
        elif options:
            fresh += [f"[{name}]\n", *(line(key, value) for key, value in options.items())]
    new, outcome = "".join(rows) + block(*fresh), _filled(before, tables)
    try:
        if outcome is not None and tomllib.loads(new) == outcome:
            return new
    except tomllib.TOMLDecodeError:
        pass
    names = ", ".join(f"[{name}]" for name in tables)
    raise ValueError(f"{path} on the host is laid out in a way this role cannot edit: write {names} as plain tables")
