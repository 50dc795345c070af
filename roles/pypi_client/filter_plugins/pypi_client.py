"""Filters of the role pypi_client: the new text of a client's file from its present text and what we want in it.

What is not ours stays, byte for byte. Each editor takes the text of one file ('' when absent) and returns the
new one; `remove` takes our part out again. INI and TOML are parsed again afterwards: a file is never replaced by
one that its tool cannot read or that says something else. Errors never quote a file: it may hold secrets.

What was put where is remembered on the host, without secrets: what other variables or users ask for later is put in
after the old has been taken out.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# What pip, uv, curl and twine read alike from .netrc and .pypirc. Seen to differ: backslash and # in front (curl
# against Python and uv), quotes (old Python), and beyond ASCII pip sends Latin-1 where curl and uv send UTF-8.
_WORD = re.compile(r"[!$-&(-\[\]-~][!#-\[\]-~]*")
_INI_SECTION = re.compile(r"\[(?P<name>[^]]+)\]")
_INI_OPTION = re.compile(r"(?P<name>[^\s#;\[=:][^=:]*?)\s*[=:]\s*(?P<value>.*)")
_LOCAL = re.compile(r"localhost|127(\.\d+){3}|::1")
_USER_KEYS = ("user", "username", "password", "publish")
_UV_BLOCK = re.compile(
    r"^# BEGIN Ansible: private index\r?\n.*?^# END Ansible: private index\r?\n", re.MULTILINE | re.DOTALL
)


# --- what the variables may hold


def _url_problem(url: str) -> str | None:
    if not url:
        return "is empty: give the index's address, such as https://pypi.example.org/simple/"
    # The URL itself stays unsaid as long as it may hold a password.
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL: write https://pypi.example.org/simple/"
    if "@" in parts.netloc:
        return "holds a user name or password: take them out and put them into pypi_client_users"
    if parts.scheme not in ("http", "https") or not host:
        return f"is {url!r}: it needs http:// or https:// and a host, such as https://pypi.example.org/simple/"
    if re.search(r"[^!-~]", url) or parts.query or parts.fragment or parts.netloc != parts.netloc.lower():
        return f"is {url!r}: write it with a lower-case host and without spaces, query or fragment"
    return None


def _word_problem(key: str, value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{key} is missing, empty or not text: set it, in quotes"
    if not _WORD.fullmatch(value):
        return (
            f"{key} holds something that .netrc readers understand differently (space, quote, backslash, control or"
            " non-ASCII character, or # in front): choose another one"
        )
    return None


def pypi_client_problems(
    users: Sequence[Mapping[str, Any]], index_url: str, upload_url: str, repository: str
) -> list[str]:
    """Everything wrong with the variables, one sentence each: what, where and the fix. No password is quoted."""
    problems = [f"pypi_client_index_url {problem}" for problem in [_url_problem(index_url)] if problem]
    if not problems and not index_url.endswith("/simple/"):
        problems.append(f"pypi_client_index_url is {index_url!r}: it must end with /simple/ (with the last slash)")
    if upload_url and (problem := _url_problem(upload_url)):
        problems.append(f"pypi_client_upload_url {problem}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", repository) or repository in ("distutils", "pypi", "testpypi"):
        problems.append(
            f"pypi_client_repository is {repository!r}: use lower-case letters, digits and single hyphens,"
            " and not a name with a meaning of its own (pypi, testpypi, distutils)"
        )
    seen: set[str] = set()
    for index, user in enumerate(users):
        account = user.get("user")
        where = f"pypi_client_users[{index}]"
        if not isinstance(account, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?", account):
            problems.append(f"{where}: user is not the name of an account on the host: set it, such as user: ci")
        else:
            where += f" ({account})"
            if account in seen:
                problems.append(f"{where}: the account has an entry already: keep one of them")
            seen.add(account)
        found: list[str | None] = [
            f"unknown key {key!r}: use {', '.join(_USER_KEYS)}" for key in user if key not in _USER_KEYS
        ]
        found += [_word_problem(key, user.get(key)) for key in ("username", "password")]
        if ":" in str(user.get("username")):
            found.append("username holds a colon, which no login can have: use the name from pypi_users_accounts")
        problems += [f"{where}: {problem}" for problem in found if problem]
    return problems


# --- INI: pip.conf and .pypirc

Ini = dict[str, dict[str, list[str]]]


def _key(name: str) -> str:
    """pip takes index_url and Index-URL for index-url; twine's ca_cert is spelled one way only, so it is safe here."""
    return name.strip().lower().replace("_", "-")


def _ini_read(text: str, path: str) -> Ini:
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


def _ini_set(text: str, path: str, section: str, options: Mapping[str, str | None]) -> str:
    """Set options of a section (None: remove them, and the section once it is empty)."""
    before = _ini_read(text, path)
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

    if text and not text.endswith("\n"):
        text += "\n"
    todo_keys = {_key(name) for name in todo}
    fresh = [f"{name} = {value}\n" for name, value in todo.items() if value is not None]
    blocks = _blocks(text.splitlines(keepends=True), _INI_SECTION)
    for index, block in enumerate(blocks):
        if not block or block[0].partition("]")[0] != f"[{section}":
            continue
        kept: list[str] = [block[0]]
        first, *entries = _blocks(block[1:], _INI_OPTION)
        kept += first
        for entry in entries:
            kept += entry[_end(entry) :] if _key(re.split("[=:]", entry[0])[0]) in todo_keys else entry
        end = _end(kept)
        block[:] = kept[:end] + fresh + kept[end:] if mine else kept[end:]
        if not mine and blocks[index - 1][-1:] == ["\n"]:
            blocks[index - 1].pop()
        break
    else:
        blocks.append((["\n"] if text.strip() else []) + [f"[{section}]\n", *fresh])
    new = "".join(line for block in blocks for line in block)
    try:
        understood = _ini_read(new, path) == wanted
    except ValueError:
        understood = False
    if not understood:
        raise ValueError(
            f"{path} on the host is laid out in a way this role cannot edit: start its options at the margin"
        )
    return new


def _without(words: Sequence[str], *gone: str) -> list[str]:
    return [word for word in words if word not in gone]


def pip_conf(text: str, path: str, want: Mapping[str, Any]) -> str:
    """pip.conf: the index, the CA bundle and, for plain http only, trusted-host (pip refuses it otherwise)."""
    url, cert, remove = want["index_url"], want["cert"], want["remove"]
    parts = urlsplit(url)
    now = _ini_read(text, path).get("global", {})
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
        extra = _without(extra, url)
    if parts.scheme == "http" and not remove and not _LOCAL.fullmatch(parts.hostname or ""):
        trusted = trusted if parts.netloc in trusted else [*trusted, parts.netloc]
    else:  # for https it would switch verification off
        trusted = _without(trusted, parts.netloc, parts.hostname or "")
    options |= {"extra-index-url": " ".join(extra) or None, "trusted-host": " ".join(trusted) or None}
    if cert and not remove:
        options["cert"] = cert
    elif cert and now.get("cert") == [cert]:
        options["cert"] = None
    return _ini_set(text, path, "global", options)


def pypirc(text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    """.pypirc: the section for `twine upload -r NAME`; [pypi] too, for a bare `twine upload`, unless it is in use."""
    remove = want["remove"] or not user.get("publish")
    name, url = want["repository"], want["upload_url"]
    before = _ini_read(text, path)
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
        servers = _without(listed or [], *ours)
        if servers == ["pypi"]:
            servers = []  # the same to twine, and what we made of nothing
    else:
        # Without a list twine reads [pypi] and [testpypi]: a list of ours must not hide them.
        servers = ["pypi", *(["testpypi"] if "testpypi" in before else [])] if listed is None else listed
        # Where a list leaves [pypi] out, a bare `twine upload` goes to the public index whatever [pypi] says.
        servers = [*servers, *(section for section in ours if section not in servers)]
    return _ini_set(text, path, "distutils", {"index-servers": " ".join(servers) or None})


# --- .netrc


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
    if text and not text.endswith("\n"):
        text += "\n"
    if stanzas and stanzas[-1].kind == "macdef" and not re.search(r"\n[ \t]*\n\Z", text):
        text += "\n"  # only a blank line ends a macro
    return f"{text}{stanza}\n"


# --- uv.toml


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


# --- the environment

_PROFILE = "# Ansible: private index. For tools that bring a CA bundle of their own, such as poetry, flit, hatch.\n"


def profile(cert: str) -> str:
    """What login shells read: the host's CA bundle for requests and httpx, where the user has set no other one."""
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    return _PROFILE + "".join(f'export {name}="${{{name}:-{cert}}}"\n' for name in names)


# --- the plan

_SECRET = ("netrc", "pypirc")
_REMEMBERED = ("index_url", "upload_url", "repository", "cert")


def pypi_client_passwd(lines: Sequence[str]) -> dict[str, list[str]]:
    """The accounts that `getent passwd` printed."""
    return {line.split(":")[0]: line.split(":") for line in lines}


def pypi_client_targets(
    users: Sequence[Mapping[str, Any]],
    scope: str,
    etc: str,
    passwd: Mapping[str, Sequence[str]],
    want: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The files to keep: kind, place (base and path below it), owner and group (numeric), entries of their users by number."""
    targets: list[dict[str, Any]] = []

    def add(kind: str, base: str, path: str, owner: Sequence[str], entries: Sequence[int]) -> None:
        uid, gid = map(int, owner)
        targets.append({"kind": kind, "base": base, "path": path, "uid": uid, "gid": gid, "entries": entries})

    if scope == "system":
        everyone = list(range(len(users)))
        add("pip", etc, "pip.conf", ("0", "0"), everyone)
        add("uv", etc, "uv/uv.toml", ("0", "0"), everyone)
        if want["cert"]:
            add("profile", etc, "profile.d/private-pypi.sh", ("0", "0"), everyone)
    for index, user in enumerate(users):
        _, _, uid, gid, _, home, *_ = passwd[user["user"]]
        if scope == "user":
            add("pip", home, ".config/pip/pip.conf", (uid, gid), [index])
            add("uv", home, ".config/uv/uv.toml", (uid, gid), [index])
        add("netrc", home, ".netrc", (uid, gid), [index])
        add("pypirc", home, ".pypirc", (uid, gid), [index])
    return targets


def pypi_client_place(file: Mapping[str, Any]) -> str:
    """The whole path."""
    return f"{file['base']}/{file['path']}"


def _edit(kind: str, text: str, path: str, want: Mapping[str, Any], user: Mapping[str, Any]) -> str:
    match kind:
        case "pip":
            return pip_conf(text, path, want)
        case "uv":
            return uv_toml(text, path, want)
        case "profile":
            return "" if want["remove"] else profile(want["cert"])
        case "netrc":
            return netrc(text, path, want, user)
        case _:
            return pypirc(text, path, want, user)


def _same(kind: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the one, written over the other, leaves nothing of it."""
    match kind:
        case "pip":
            keys: tuple[str, ...] = ("index_url", "cert")
        case "pypirc":
            keys = ("upload_url", "repository", "cert")
        case "netrc":
            return bool(urlsplit(one["index_url"]).hostname == urlsplit(other["index_url"]).hostname)
        case _:
            return True
    return all(one[key] == other[key] for key in keys)


def _check_ground(files: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> None:
    problems = [f"{place} {there['problem']}" for place, there in files.items() if "problem" in there]
    missing = {str(target["base"]) for target in targets if not files[pypi_client_place(target)]["base"]}
    problems += [f"{base} is no directory" for base in sorted(missing)]
    if problems:
        raise ValueError(f"on the host {', '.join(problems)}: put plain ones in their place, then run again")


def _text(place: str, there: Mapping[str, Any]) -> str:
    try:
        return b64decode(there.get("content", "")).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{place} on the host is not UTF-8 text: mend or remove it, then run again") from None


def _owner(there: Mapping[str, Any], target: Mapping[str, Any] | None, secret: bool) -> dict[str, Any]:
    """A file with a secret becomes its user's and 0600; the others keep the owner and mode they have."""
    if target and (secret or not there["exists"]):
        return {"uid": target["uid"], "gid": target["gid"], "mode": "0600" if secret else "0644"}
    return {key: there.get(key) for key in ("uid", "gid", "mode")}


def _write(file: Mapping[str, Any], content: str | None, owner: Mapping[str, Any]) -> dict[str, Any]:
    encoded = None if content is None else b64encode(content.encode()).decode()
    return {"base": file["base"], "path": file["path"], "content": encoded, **owner}


def pypi_client_plan(
    seen: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    users: Sequence[Mapping[str, Any]],
    want: Mapping[str, Any],
    at: Mapping[str, str],
) -> dict[str, list[Any]]:
    """`writes`: what differs, as pypi_client_files takes it. `others`: the pip.conf files that name further indexes.

    `seen` is what that module has read. The record, which is kept `at` a place, says before the first write what may be
    where, and after the last what is.
    """
    _check_ground(seen["files"], [] if want["remove"] else targets)
    records = seen["records"]
    wanted = {pypi_client_place(target): target for target in targets}
    known = {pypi_client_place(file): file for record in records for file in record["files"]}
    writes: list[dict[str, Any]] = []
    others: list[str] = []
    for place, file in (known | wanted).items():
        there, target, kind = seen["files"][place], wanted.get(place), file["kind"]
        text = new = _text(place, there)
        for record in records:
            had = any(pypi_client_place(each) == place for each in record["files"])
            if had and not (target and not want["remove"] and _same(kind, record, want)):
                new = _edit(kind, new, place, {**want, **record, "remove": True}, {})
        if target:
            readers = [users[entry]["user"] for entry in target["entries"]] or ["nobody"]
            versions = [version for reader in readers for version in seen["uv"].get(reader, ())]
            trust = uv_trust_option(want["uv_trust"], versions)
            user = users[target["entries"][0]] if kind in _SECRET else {}
            new = _edit(kind, new, place, {**want, "uv_trust": trust}, user)
            if kind == "pip" and _further_indexes(new, place, want["index_url"]):
                others.append(place)
        owner = _owner(there, target, kind in _SECRET and not want["remove"])
        if new != text or (there["exists"] and any(there[key] != value for key, value in owner.items())):
            emptied = text.strip() and not new.strip()  # what we emptied was ours alone
            writes.append(_write(file, None if emptied else new, owner))
    return {"writes": _recorded(writes, records, targets, want, at), "others": others}


def _further_indexes(text: str, path: str, index_url: str) -> list[str]:
    return _without(_ini_read(text, path).get("global", {}).get("extra-index-url", []), index_url)


def _recorded(
    writes: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    want: Mapping[str, Any],
    at: Mapping[str, str],
) -> list[Mapping[str, Any]]:
    """The writes between those of the record."""
    files = [{key: target[key] for key in ("kind", "base", "path")} for target in targets]
    record = {key: want[key] for key in _REMEMBERED} | {"files": sorted(files, key=pypi_client_place)}
    after = [] if want["remove"] else [record]

    def remember(what: Sequence[Any]) -> list[dict[str, Any]]:
        text = json.dumps(what, indent=1) + "\n" if what else None
        return [_write(at, text, {"uid": 0, "gid": 0, "mode": "0600"})]

    if list(records) == after:
        return list(writes)
    return [*(remember([*records, *after]) if writes else []), *writes, *remember(after)]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "pypi_client_passwd": pypi_client_passwd,
            "pypi_client_place": pypi_client_place,
            "pypi_client_plan": pypi_client_plan,
            "pypi_client_problems": pypi_client_problems,
            "pypi_client_targets": pypi_client_targets,
        }
