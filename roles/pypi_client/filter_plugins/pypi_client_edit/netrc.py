"""The stanza in .netrc."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from . import lines


class _Stanza(NamedTuple):
    kind: str  # machine, default or macdef
    name: str
    fields: Mapping[str, str]
    start: int
    end: int


_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|(?:\\.|[^\s\\])+)', re.DOTALL)


def _netrc_read(text: str, path: str) -> Iterator[_Stanza]:
    """The stanzas with their places, by the rules of Python's netrc module (which pip uses)."""
    broken = ValueError(f"{path} on the host is no valid .netrc: mend or remove it, then run again")

    def token(at: int) -> tuple[str, int, int]:
        match = _TOKEN.match(text, at)
        return (match[1], match.start(1), match.end()) if match else ("", len(text), len(text))

    def keyword(at: int) -> tuple[str, int, int]:
        word, start, end = token(at)
        while word.startswith("#"):
            word, start, end = token((text + "\n").index("\n", start))
        return word, start, end

    def value(at: int) -> tuple[str, int]:
        word, _, end = token(at)
        if not word:
            raise broken
        return re.sub(r"\\(.)", r"\1", word[1:-1] if word[0] == '"' else word, flags=re.DOTALL), end

    at = 0
    while True:
        kind, start, end = keyword(at)
        if not kind:
            return
        if kind not in ("machine", "default", "macdef"):
            raise broken
        name, end = ("", end) if kind == "default" else value(end)
        fields: dict[str, str] = {}
        if kind == "macdef":
            blank = re.compile(r"\n[ \t]*(\n|\Z)").search(text, end)
            end = blank.end() if blank else len(text)
        else:
            word, _, after = keyword(end)
            while word in ("login", "user", "password", "account"):
                fields["login" if word == "user" else word], end = value(after)
                word, _, after = keyword(end)
        yield _Stanza(kind, name, fields, start, end)
        at = end


@lines.whole
def netrc(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """.netrc: exactly one stanza for the index's host, before any `default` (readers stop there)."""
    host = str(urlsplit(want["index_url"]).hostname)
    fields = {"login": str(user.get("username")), "password": str(user.get("password"))}
    stanzas = list(_netrc_read(text, path))
    ours = [stanza for stanza in stanzas if (stanza.kind, stanza.name) == ("machine", host)]
    if not want["remove"] and [stanza.fields for stanza in ours] == [fields]:
        return text
    stanza = f"machine {host} login {fields['login']} password {fields['password']}"
    for index, old in reversed(list(enumerate(ours))):
        head, rest = text[: old.start], text[old.end :]
        if index == 0 and not want["remove"]:
            text = head + stanza + (rest or "\n")
        else:
            whole_line = not head or head.endswith("\n")
            text = head + (re.sub(r"\A[ \t]*\n", "", rest) if whole_line else rest)
    if ours or want["remove"]:
        return text
    default = next((s.start for s in stanzas if s.kind == "default"), None)
    if default is not None:
        return f"{text[:default]}{stanza}\n{text[default:]}"
    if stanzas and stanzas[-1].kind == "macdef" and not re.search(r"\n[ \t]*\n\Z", text):
        text += "\n"  # only a blank line ends a macro
    return f"{text}{stanza}\n"
