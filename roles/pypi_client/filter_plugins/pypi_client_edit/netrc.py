"""The stanza in .netrc."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

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


def _logins(text: str, path: str, host: str) -> list[_Stanza]:
    return [stanza for stanza in _netrc_read(text, path) if (stanza.kind, stanza.name) == ("machine", host)]


def _mark(host: str) -> re.Pattern[str]:
    return re.compile(rf"#former(\+?):{re.escape(host)}:(\S*)\n?")


def _put_aside(text: str, stanza: _Stanza, host: str, place: str) -> str:
    """A login becomes a comment on a line of its own, with a plus where the line before ended for it; `place` follows.

    As one word, since Python's netrc reads on behind the first word of a comment that follows a blank line or a blank.
    """
    start = len(text[: stanza.start].rstrip(" \t"))
    if above := start > 0 and text[start - 1] != "\n":
        start = stanza.start
    blank = re.compile(r"[^\S\n]*\n").match(text, stanza.end)
    end = blank.end() if blank else stanza.end
    former = f"#former{'+' * above}:{host}:{quote(text[start:end])}\n"
    return text[:start] + "\n" * above + former + place + text[end:]


def _put_back(text: str, host: str) -> str:
    mark, whole = _mark(host), ""
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        found = mark.fullmatch(line)
        whole = (whole.removesuffix("\n") if found[1] else whole) + unquote(found[2]) if found else whole + line
    return whole


def has_former(text: str, want: Mapping[str, Any]) -> bool:
    """Whether a login for the index's host was put aside: then what is in its place is ours."""
    return bool(re.search(rf"^{_mark(_host(want)).pattern}$", text, re.MULTILINE))


def _host(want: Mapping[str, Any]) -> str:
    return str(urlsplit(want["index_url"]).hostname)


@lines.whole
def netrc(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """.netrc: exactly one stanza for the index's host, before any `default` (readers stop there).

    A login that was there stays as a comment. `known` in `want` says that what is there is ours.
    """
    host = _host(want)
    fields = {"login": str(user.get("username")), "password": str(user.get("password"))}
    present = _logins(text, path, host)
    known = want.get("known", want["remove"]) or has_former(text, want)
    if want["remove"]:
        return _put_back(_without(text, present), host) if known else text
    if [stanza.fields for stanza in present] == [fields]:
        return text
    stanza = f"machine {host} login {fields['login']} password {fields['password']}"
    if known and present:
        first = present[0]
        text = _without(text, present[1:])
        return text[: first.start] + stanza + (text[first.end :] or "\n")
    for old in reversed(present):
        text = _put_aside(text, old, host, f"{stanza}\n" if old is present[0] else "")
    if present:
        return text
    stanzas = list(_netrc_read(text, path))
    default = next((s.start for s in stanzas if s.kind == "default"), None)
    if default is not None:
        return f"{text[:default]}{stanza}\n{text[default:]}"
    if stanzas and stanzas[-1].kind == "macdef" and not re.search(r"\n[ \t]*\n\Z", text):
        # Only a blank line ends a macro; the mark says that it is ours.
        text += f"\n#former+:{host}:\n"
    return f"{text}{stanza}\n"


def _without(text: str, stanzas: Sequence[_Stanza]) -> str:
    for old in reversed(stanzas):
        head, rest = text[: old.start], text[old.end :]
        whole_line = not head or head.endswith("\n")
        text = head + (re.sub(r"\A[ \t]*\n", "", rest) if whole_line else rest)
    return text
