"""Filters of the role pypi_public: what is wrong with its variables, and the one JSON file that its service reads."""

from __future__ import annotations

import importlib
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.version import InvalidVersion, Version

Settings = Mapping[str, Any]
"""The role's variables, without their prefix."""
Upstream = Mapping[str, Any]

AUTHORITIES = "/config"
"""Where the container finds what `authorities` writes."""
UPSTREAM_KEYS = ("name", "url", "projects", "username", "password", "ca_file", "proxy", "allow_private_addresses")
EXEMPT_KEYS = ("name", "version", "until", "reason")
DEFAULT_INDEX = (("pypi_simple", "PYPI_SIMPLE_ENDPOINT"), ("pip._internal.models.index", "PyPI.simple_url"))
"""Libraries that know where PyPI is, and what they call it; the controller has one of them, or both."""

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {"m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_PATTERN = re.compile(r"[a-z0-9*?]+(-[a-z0-9*?]+)*")
_PROJECT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_UPSTREAM = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
# What systemd, a shell and Docker read alike without quotes, as docker_host asks for it.
_PROXY = re.compile(r"https?://[][A-Za-z0-9._%:@-]+/?")


def default_index() -> str:
    """Address of PyPI's simple index as a library has it; empty when none is installed."""
    for module, name in DEFAULT_INDEX:
        try:
            value: Any = importlib.import_module(module)
            for part in name.split("."):
                value = getattr(value, part)
        except (ImportError, AttributeError):
            continue
        return str(value).rstrip("/") + "/"
    return ""


# What is wrong


def problems(settings: Settings) -> list[str]:
    """One sentence each: the variable, its value and the fix. No sentence has a password."""
    found = [
        *_number("minimum_age", settings, _SECONDS, "7d, or 0 for none", zero=True),
        *_number("cache_size", settings, _BYTES, "20g"),
        *_patterns("reserved_names", settings["reserved_names"]),
        *_patterns("only", settings["only"]),
        *_url("advisories_url", settings["advisories_url"]),
        *_authority("ca_file", settings["ca_file"]),
        *(f"proxy.{key} {_PROXY_FIX}" for key in ("http", "https") if not _is_proxy(settings["proxy"].get(key))),
        *_all("upstreams", settings["upstreams"], UPSTREAM_KEYS, _upstream),
        *_never_asked(settings["upstreams"]),
        *_all("exempt", settings["exempt"], EXEMPT_KEYS, _exemption),
    ]
    if not settings["upstreams"]:
        found.append("upstreams is empty: name one, such as {name: pypi}, or set pypi_public_packages: deny")
    return [f"pypi_public_{problem}" for problem in found]


_PROXY_FIX = (
    "is no URL such as http://user:password@proxy.example.com:3128;"
    " write special characters of the user and the password as %40 (@), %2F (/) and so on"
)


def _number(
    name: str, settings: Settings, units: Mapping[str, int], example: str, *, zero: bool = False
) -> Iterable[str]:
    if _amount(str(settings[name]), units) is None and not (zero and str(settings[name]) == "0"):
        yield f'{name} is "{settings[name]}": give a number and one of the units {", ".join(units)}, such as {example}'


def _amount(text: str, units: Mapping[str, int]) -> int | None:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([a-z])", text)
    return int(found[1]) * units[found[2]] if found and found[2] in units else None


def _patterns(where: str, patterns: object) -> Iterable[str]:
    for pattern in patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else [patterns]:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            hint = re.sub(r"[-_.]+", "-", str(pattern)).lower().strip("-")
            hint = f"write {hint!r}" if _PATTERN.fullmatch(hint) else "write for example 'acme-*'"
            yield (
                f"{where} has {pattern!r}: patterns match normalised names (PEP 503), so only a-z, 0-9, single hyphens"
                f" inside, * and ?; {hint}"
            )


def _url(where: str, url: str) -> Iterable[str]:
    """Nothing for an empty one."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and url.isprintable()
    except ValueError:
        good = False
    if not url or good and not re.search(r"[\s?#@]", url):
        return
    if good and "@" in parts.netloc:
        yield f"{where} has a user in it: give username and password as keys of their own"
    else:
        yield f"{where} is {url!r}: give an address such as https://packages.example.com/simple/"


def _authority(where: str, path: str) -> Iterable[str]:
    """Nothing for an empty one."""
    if not path:
        return
    try:
        good = path.startswith("/") and "-----BEGIN CERTIFICATE-----" in Path(path).read_text("utf-8", "replace")
        reason = "" if good else "which is no absolute path" if not path.startswith("/") else "which has no certificate"
    except OSError as error:
        reason = f"which cannot be read ({error.strerror})"
    if reason:
        yield f"{where} is {path!r}, {reason}: give the absolute path, on the controller, of a file of PEM certificates"


def _is_proxy(url: object) -> bool:
    return not url or isinstance(url, str) and bool(_PROXY.fullmatch(url))


def _all(
    name: str,
    entries: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    check: Callable[[Mapping[str, Any]], Iterable[str]],
) -> Iterable[str]:
    """What is wrong with each entry, and entries that are there twice."""
    first: dict[object, int] = {}
    for index, entry in enumerate(entries):
        where = f"{name}[{index}]" + (f" ({entry['name']})" if isinstance(entry.get("name"), str) else "")
        for key in entry:
            if key not in keys:
                yield f"{where} has the unknown key {key!r}: use {', '.join(keys)}"
        identity = (entry.get("name"), str(entry.get("version") or ""))
        if first.setdefault(identity, index) != index:
            yield f"{where} is a duplicate of entry {first[identity]}: keep one of them"
        yield from (f"{where}: {problem}" for problem in check(entry))


def _upstream(entry: Upstream) -> Iterable[str]:
    if not _UPSTREAM.fullmatch(str(entry.get("name") or "")):
        yield "name must be 1 to 40 of a-z, 0-9, dots, dashes and underscores, and start with a letter or digit"
    yield from _url("url", entry.get("url") or "")
    if not entry.get("url") and not default_index():
        yield "has no url, and no library of the controller knows where PyPI is: set it"
    projects = entry.get("projects")
    if projects == []:
        yield "projects is empty: leave it out for all of them, or remove the entry"
    yield from _patterns("projects", projects or [])
    if bool(entry.get("username")) != bool(entry.get("password")):
        yield "has only one of username and password: set both, or none"
    yield from _authority("ca_file", entry.get("ca_file") or "")
    if not _is_proxy(entry.get("proxy")):
        yield f"proxy {_PROXY_FIX}"
    for network in entry.get("allow_private_addresses") or []:
        try:
            ip_network(network)
        except ValueError as error:
            yield f"allow_private_addresses has {network!r} ({error}): give networks such as 10.0.0.0/8"


def _never_asked(upstreams: Sequence[Upstream]) -> Iterable[str]:
    for index, entry in enumerate(upstreams[:-1]):
        if "*" in (entry.get("projects") or ["*"]):
            yield (
                f"upstreams[{index}] ({entry.get('name')}) answers for all projects, so what is behind it is never asked:"
                " put it last, or give it narrower projects"
            )
            return


def _exemption(entry: Mapping[str, Any]) -> Iterable[str]:
    if not _PROJECT.fullmatch(str(entry.get("name") or "")):
        yield "name must be that of a project"
    if isinstance(entry.get("version"), float):
        yield f"version is the number {entry['version']}: put it in quotes, or 1.10 is 1.1"
    elif version := str(entry.get("version") or ""):
        try:
            Version(version)
        except InvalidVersion:
            yield f"version is {version!r}, which is none by PEP 440: give one in quotes, or leave it out for all of them"
    try:
        date.fromisoformat(str(entry.get("until")))
    except ValueError:
        yield f"until is {str(entry.get('until') or '')!r}: give its last day, such as 2026-12-31"


# What the service reads


def config(settings: Settings) -> str:
    """The text of config.json, from variables without `problems`. Durations are in seconds, sizes in bytes."""
    document: dict[str, Any] = {
        "packages": settings["packages"],
        "upstreams": [_configured(upstream, settings) for upstream in settings["upstreams"]],
        "reserved": list(settings["reserved_names"]),
        "only": list(settings["only"]),
        "minimum_age": _amount(str(settings["minimum_age"]), _SECONDS) or 0,
        "exempt": [{key: str(entry[key]) for key in EXEMPT_KEYS if entry.get(key)} for entry in settings["exempt"]],
        "block_malware": bool(settings["block_malware"]),
        "cache_size": _amount(settings["cache_size"], _BYTES),
    }
    if url := settings["advisories_url"]:
        document["advisories_url"] = url
        document["advisories_proxy"] = _way_out(url, settings["proxy"])
        document["advisories_ca_file"] = f"{AUTHORITIES}/{_COMMON}" if settings["ca_file"] else ""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


_COMMON = "ca/common.pem"


def _configured(upstream: Upstream, settings: Settings) -> dict[str, Any]:
    given = {key: upstream[key] for key in UPSTREAM_KEYS if upstream.get(key)}
    url = given.get("url") or default_index()
    authority = _authority_name(upstream) if given.get("ca_file") else _COMMON if settings["ca_file"] else ""
    proxy = given.get("proxy") or _way_out(url, settings["proxy"])
    return {
        **given,
        "url": url.rstrip("/") + "/",
        **({"ca_file": f"{AUTHORITIES}/{authority}"} if authority else {}),
        **({"proxy": proxy} if proxy else {}),
    }


def _authority_name(upstream: Upstream) -> str:
    return f"ca/of-{upstream['name']}.pem"


def authorities(settings: Settings) -> list[dict[str, str]]:
    """The CA files as host_files takes them."""
    paths = {_COMMON: settings["ca_file"]} | {
        _authority_name(each): each.get("ca_file") for each in settings["upstreams"]
    }
    return [{"name": name, "content": Path(path).read_text("utf-8")} for name, path in paths.items() if path]


def _way_out(url: str, proxy: Mapping[str, str]) -> str:
    """The proxy for an address, as no_proxy is read everywhere: names with all below them, addresses and networks."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    exceptions = [each.strip().lower() for each in (proxy.get("no_proxy") or "").split(",") if each.strip()]
    return "" if any(_excepts(each, host) for each in exceptions) else proxy.get(parts.scheme) or ""


def _excepts(exception: str, host: str) -> bool:
    try:
        return ip_address(host) in ip_network(exception, strict=False)
    except ValueError:
        name = exception.removeprefix("*").lstrip(".")
        return exception == "*" or bool(name) and (host == name or host.endswith(f".{name}"))


# Files


def relative(contents: Mapping[str, str], directory: str) -> list[dict[str, str]]:
    """What host_look read, path to base64, as host_files takes it with the right owners; nothing where no Compose file is."""
    texts = {
        path[len(directory) + 1 :]: b64decode(content).decode(errors="replace") for path, content in contents.items()
    }
    rights = {"compose.yml": {"mode": "0600"}, "config/config.json": {"group": "9896", "mode": "0640"}}
    entries = [{"name": name, "content": text, **rights.get(name, {})} for name, text in texts.items()]
    return entries if "compose.yml" in texts else []


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        functions = (problems, config, authorities, relative)
        return {f"pypi_public_{function.__name__}": function for function in functions}
