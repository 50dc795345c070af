"""What several roles ask of their variables, said in the same words by all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# kind → what a value must be, and what to give instead. Numbers count as what they look like.
KINDS = {
    "path": (r"/[^:\s]+", "Give an absolute path without colons and spaces, such as /opt/pypi."),
    "place": (
        r"/[^:\s]+|[a-zA-Z0-9][a-zA-Z0-9_.-]+",
        "Give the name of a Docker volume (pypi_packages) or an absolute path (/srv/packages).",
    ),
    "image": (
        r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{64})?",
        "Give NAME:TAG or NAME:TAG@sha256:DIGEST with all 64 hex digits.",
    ),
    "checksum": (r"sha256:[0-9a-f]{64}", 'Give "sha256:" and the 64 hex digits that the release page lists.'),
    "size": (r"[1-9][0-9]*[kmg]", "Give a number and one of the units k, m, g, such as 512m."),
    "port": (
        r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]",
        "Give a port from 1 to 65535.",
    ),
    "number": (r"[0-9]+", "Give a number from 0 on."),
    "workers": (r"auto|[1-9][0-9]*", "Give a number from 1 on, or auto."),
    "host name": (
        r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?",
        "Give the bare name that clients use, such as pypi.example.com.",
    ),
    "url": (r"https?://[^/]+.*", "Give a URL, such as https://mirror.example.com."),
}


def refused(values: Mapping[str, object], kind: str) -> list[str]:
    """One sentence for each variable, or entry of a list, that is not of its kind.

    `values` is name → value or list of values. Raises KeyError for a kind that is not there.
    """
    pattern, advice = KINDS[kind]
    single = [
        (f"{name}[{number}]" if isinstance(value, list) else name, each)
        for name, value in values.items()
        for number, each in enumerate(value if isinstance(value, list) else [value])
    ]
    return [
        f"{name} is {json.dumps(value, ensure_ascii=False)}. {advice}"
        for name, value in single
        if not re.fullmatch(pattern, str(value))
    ]


def files(role_files: str, *directories: str) -> list[dict[str, str]]:
    """The text files below these directories of a role, as host_files takes them, in a fixed order."""
    root = Path(role_files)
    found = (
        path
        for name in directories
        for path in sorted((root / name).rglob("*"))
        if path.suffix in (".py", ".js", ".conf")
    )
    return [{"name": str(path.relative_to(root)), "content": path.read_text("utf-8")} for path in found]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"host_tools_refused": refused, "host_tools_files": files}
