"""INI: pip.conf and .pypirc."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from . import lines

_INI_SECTION = re.compile(r"\[(?P<name>[^]]+)\]")
_INI_OPTION = re.compile(r"(?P<name>[^\s#;\[=:][^=:]*?)\s*[=:]\s*(?P<value>.*)")
_ASIDE = "# instead of: "
_LOCAL = re.compile(r"localhost|127(\.\d+){3}|::1")


Ini = dict[str, dict[str, list[str]]]


def _key(name: str) -> str:
    """pip takes index_url and Index-URL for index-url; twine's ca_cert is spelled one way only, so it is safe here."""
    return name.strip().lower().replace("_", "-")


def read(text: str, path: str) -> Ini:
    """Section, option, words of the value."""
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(text)
    except configparser.Error:
        raise ValueError(f"{path} on the host is no valid INI file: mend or remove it, then run again") from None
    return {name: {_key(k): v.split() for k, v in parser.items(name)} for name in parser.sections()}


def _blocks(lines: Sequence[str], opens: re.Pattern[str]) -> list[list[str]]:
    """Cut lines into blocks; a matching line opens the next one. The first block may be empty."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if opens.match(line):
            blocks.append([])
        blocks[-1].append(line)
    return blocks


def _end(block: Sequence[str]) -> int:
    """Where the block's closing blank lines and comments start: they belong to what follows."""
    end = len(block)
    while end > 1 and re.match(r"\s*([#;]|$)", block[end - 1]):
        end -= 1
    return end


def _reworded(entry: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str]:
    """A list with words more or less at its end, otherwise as it is laid out; nothing where it is another list."""
    value = "".join(entry).rstrip()
    if old and new[: len(old)] == old:
        return [f"{' '.join([value, *new[len(old) :]])}\n"]
    if new and old[: len(new)] == new:
        for word in reversed(old[len(new) :]):
            value = value.removesuffix(word).rstrip()
        return [f"{value}\n"]
    return []


def _ini_set(text: str, path: str, section: str, options: Mapping[str, str | None], aside: Sequence[str] = ()) -> str:
    """Set options of a section (None: remove them, and the section once it is empty).

    `aside` are those whose former value stays as a comment, for _put_back.
    """
    before = read(text, path)
    now = before.get(section, {})
    todo = {name: value for name, value in options.items() if now.get(_key(name), []) != (value or "").split()}
    if not todo:
        return text
    wanted = {name: dict(values) for name, values in before.items()}
    mine = wanted.setdefault(section, {})
    for name, value in todo.items():
        mine.pop(_key(name), None)
        if value is not None:
            mine[_key(name)] = value.split()
    if not mine:
        del wanted[section]

    fresh = {_key(name): f"{name} = {value}\n" for name, value in todo.items() if value is not None}
    todo_keys = {_key(name) for name in todo}
    blocks = _blocks(text.splitlines(keepends=True), _INI_SECTION)
    for index, block in enumerate(blocks):
        if not block or block[0].partition("]")[0] != f"[{section}":
            continue
        kept: list[str] = [block[0]]
        first, *entries = _blocks(block[1:], _INI_OPTION)
        kept += first
        for entry in entries:
            key, end = _key(re.split("[=:]", entry[0])[0]), _end(entry)
            if key not in todo_keys:
                kept += entry
            elif reworded := _reworded(entry[:end], now[key], mine.get(key, [])):
                del fresh[key]
                kept += [*reworded, *entry[end:]]
            else:
                if key in aside and key in fresh and f"\n{_ASIDE}{key}" not in text.lower().replace("_", "-"):
                    kept += [_ASIDE + line for line in entry[:end]]
                kept += entry[end:]
        end = _end(kept)
        block[:] = [*kept[:end], *fresh.values(), *kept[end:]] if mine else kept[end:]
        if not mine and blocks[index - 1][-1:] == ["\n"]:
            blocks[index - 1].pop()
        break
    else:
        blocks.append((["\n"] if text.strip() else []) + [f"[{section}]\n", *fresh.values()])
    new = "".join(line for block in blocks for line in block)
    try:
        understood = read(new, path) == wanted
    except ValueError:
        understood = False
    if not understood:
        raise ValueError(
            f"{path} on the host is laid out in a way this role cannot edit: start its options at the margin"
        )
    return new


def _put_back(text: str, option: str, ours: str) -> str | None:
    """The former value in place of ours; None where there was none."""
    name = option.replace("-", "[-_]")
    former = re.compile(rf"^{_ASIDE}({name}\s*[=:].*\n(?:{_ASIDE}\s.*\n)*)", re.MULTILINE | re.IGNORECASE)
    if not former.search(text):
        return None
    text = re.sub(rf"^{option} = {re.escape(ours)}\n", "", text, flags=re.MULTILINE)
    return former.sub(lambda found: found[1].replace(_ASIDE, ""), text)


def without(words: Sequence[str], *gone: str) -> list[str]:
    return [word for word in words if word not in gone]


@lines.whole
def pip_conf(text: str, path: str, want: Mapping[str, Any]) -> str:
    """pip.conf: the index, the CA bundle and, for plain http only, trusted-host (pip refuses it otherwise)."""
    url, cert, remove = want["index_url"], want["cert"], want["remove"]
    parts = urlsplit(url)
    now = read(text, path).get("global", {})
    extra, trusted = now.get("extra-index-url", []), now.get("trusted-host", [])
    options: dict[str, str | None] = {}
    is_index = now.get("index-url") == [url]
    if remove or want["keep_public"]:
        if is_index:
            options["index-url"] = None
    else:
        options["index-url"] = url
    if want["keep_public"] and not remove:
        extra = extra if url in extra else [*extra, url]
    else:
        extra = without(extra, url)
    if parts.scheme == "http" and not remove and not _LOCAL.fullmatch(parts.hostname or ""):
        trusted = trusted if parts.netloc in trusted else [*trusted, parts.netloc]
    else:  # for https it would switch verification off
        trusted = without(trusted, parts.netloc, parts.hostname or "")
    options |= {"extra-index-url": " ".join(extra) or None, "trusted-host": " ".join(trusted) or None}
    if cert and not remove:
        options["cert"] = cert
    elif cert and now.get("cert") == [cert]:
        options["cert"] = None
    for name, ours in (("index-url", url), ("cert", cert)):
        if options.get(name, "") is None and (former := _put_back(text, name, ours)):
            text = former
            del options[name]
    return _ini_set(text, path, "global", options, aside=("index-url", "cert"))


@lines.whole
def pypirc(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """.pypirc: the section for `twine upload -r NAME`; [pypi] too, for a bare `twine upload`, unless it is in use."""
    remove = want["remove"] or not user.get("publish")
    name, url = want["repository"], want["upload_url"]
    before = read(text, path)
    ours = [name]
    if "pypi" not in before or before["pypi"].get("repository") == [url]:
        ours.append("pypi")
    options = {
        "repository": url,
        "username": user.get("username"),
        "password": user.get("password"),
        "ca_cert": want["cert"] or None,
    }
    for section in ours:
        text = _ini_set(text, path, section, dict.fromkeys(options) if remove else options)
    listed = before.get("distutils", {}).get("index-servers")
    if remove:
        servers = without(listed or [], *ours)
        if servers == ["pypi"]:
            servers = []  # the same to twine, and what we made of nothing
    else:
        # Without a list twine reads [pypi] and [testpypi]: a list of ours must not hide them.
        servers = ["pypi", *(["testpypi"] if "testpypi" in before else [])] if listed is None else listed
        # Where a list leaves [pypi] out, a bare `twine upload` goes to the public index whatever [pypi] says.
        servers = [*servers, *(section for section in ours if section not in servers)]
    return _ini_set(text, path, "distutils", {"index-servers": " ".join(servers) or None})
