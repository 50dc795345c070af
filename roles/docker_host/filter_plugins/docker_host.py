"""Filters of the role docker_host: what daemon.json holds and should hold, and which plugins are due."""

from __future__ import annotations

import codecs
import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _parse(content: str) -> object:
    """The file's value from its base64; an empty file is an empty object, as dockerd has it."""
    return json.loads(b64decode(content).decode() or "{}")


def problem(content: str) -> str:
    """Why daemon.json (in base64) cannot be added to, as the end of a sentence; empty when it can."""
    data = b64decode(content)
    if data.startswith(MARKS):
        return "begins with a byte order mark: save it as UTF-8 without one"
    try:
        value = _parse(content)
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start + 1}: save it as UTF-8"
    except json.JSONDecodeError as error:
        return f"is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
    if not isinstance(value, dict):
        return f"holds no JSON object but {json.dumps(value)[:40]}: write {{}} around its settings"
    return ""


def _without(present: Object, added: Object) -> dict[str, Any]:
    """What is there, without what was added and nobody has changed since."""
    kept: dict[str, Any] = {}
    for key, value in present.items():
        old = added.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = _without(value, old)
            if inner or not value:
                kept[key] = inner
        elif value != old:
            kept[key] = value
    return kept


def _over(present: Object, wanted: Object) -> dict[str, Any]:
    def one(key: str) -> Any:
        old, new = present.get(key), wanted.get(key, present.get(key))
        return _over(old, new) if isinstance(old, Mapping) and isinstance(new, Mapping) else new

    return {key: one(key) for key in {**present, **wanted}}


def merged(content: str, added: Object, wanted: Object) -> dict[str, Any]:
    """The new daemon.json: the file's own keys (in base64), without what an earlier run added, with what is wanted."""
    present = _parse(content)
    assert isinstance(present, Mapping), "problem() has been asked"
    return _over(_without(present, added), wanted)


def parsed(content: str) -> dict[str, Any]:
    """A file in base64 as an object; empty when it is none: of the role's own notes, which can be lost without harm."""
    try:
        value = _parse(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def differing(one: Object, other: Object) -> list[str]:
    """The keys with another value in one than in the other, or in one of them only."""
    return sorted(key for key in {*one, *other} if (key in one, one.get(key)) != (key in other, other.get(key)))


def due(plugins: Sequence[Object], commands: Mapping[str, Object], checksums: Mapping[str, str]) -> list[Object]:
    """The plugins to be installed: a file of ours with another checksum than the one that is wanted; where there is none,
    what is missing or older than its minimum, by what `docker PLUGIN version` said."""

    def version(text: str) -> tuple[int, ...]:
        found = re.search(r"\d+(?:\.\d+)+", text)
        return tuple(int(part) for part in found[0].split(".")) if found else ()

    def is_due(plugin: Object) -> bool:
        if plugin["path"] in checksums:
            return bool(plugin["checksum"] != f"sha256:{checksums[plugin['path']]}")
        return version(commands[plugin["name"]]["stdout"]) < version(plugin["minimum"])

    return [plugin for plugin in plugins if is_due(plugin)]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {f"docker_host_{function.__name__}": function for function in (problem, merged, parsed, differing, due)}
