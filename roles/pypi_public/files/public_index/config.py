"""What the operator wants: one JSON file, checked as a whole before anything starts."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .names import normalise

Network = IPv4Network | IPv6Network
MODES = ("proxy", "cached", "deny")


class ConfigError(Exception):
    """The text names the key and the fix."""


@dataclass(frozen=True)
class Upstream:
    """A simple index elsewhere (PEP 503). `url` ends in a slash; `proxy` is http://[user:password@]host[:port]."""

    name: str
    url: str
    projects: tuple[str, ...] = ("*",)
    username: str = ""
    password: str = ""
    ca_file: str = ""
    proxy: str = ""
    private: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Exemption:
    """What the age gate lets through before `ends` (seconds since the epoch); an empty version stands for all."""

    name: str
    version: str
    ends: float
    reason: str = ""


@dataclass(frozen=True)
class Config:
    """Ages and times are in seconds, sizes in bytes."""

    upstreams: tuple[Upstream, ...]
    packages: str = "proxy"
    reserved: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    minimum_age: float = 604_800
    exempt: tuple[Exemption, ...] = ()
    block_malware: bool = True
    advisories: Upstream | None = None
    cache_size: int = 20 << 30
    page_seconds: float = 600
    timeout: float = 20
    cache: Path = Path("/cache")

    def upstream(self, name: str) -> Upstream | None:
        """The one that answers for a name, alone: the first with a pattern that fits."""
        return next((upstream for upstream in self.upstreams if fits(name, upstream.projects)), None)


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def load(path: Path) -> Config:
    """The configuration, or a ConfigError."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return parse(document)


def parse(document: Mapping[str, Any]) -> Config:
    """Check and complete what the file says."""
    try:
        return _parse(document)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"a value is of the wrong type: {error}") from None


def _parse(document: Mapping[str, Any]) -> Config:
    known = {*Config.__dataclass_fields__, "advisories_url", "advisories_ca_file", "advisories_proxy"} - {"advisories"}
    _refuse_others("", document, known)
    values = {key: value for key, value in document.items() if not key.startswith("advisories_")}
    if values.setdefault("packages", "proxy") not in MODES:
        raise ConfigError(f"packages: {values['packages']!r} is none of {', '.join(MODES)}")
    for key, least in (("minimum_age", 0), ("cache_size", 1), ("page_seconds", 1), ("timeout", 1)):
        if key in values and not (isinstance(values[key], int | float) and values[key] >= least):
            raise ConfigError(f"{key}: {values[key]!r} is not a number of at least {least}")
    values["upstreams"] = tuple(_upstream(entry) for entry in document.get("upstreams") or [{"name": "pypi"}])
    for key in ("reserved", "only"):
        values[key] = tuple(map(_pattern, document.get(key, ())))
    values["exempt"] = tuple(map(_exemption, document.get("exempt", ())))
    values["cache"] = Path(document.get("cache", "/cache"))
    if url := document.get("advisories_url"):
        # Its address is the operator's own choice, and any path at it is fine.
        everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        ca_file, proxy = document.get("advisories_ca_file") or "", document.get("advisories_proxy") or ""
        values["advisories"] = Upstream("advisories", _address(url), (), "", "", ca_file, proxy, everything)
    return Config(**values)


def _upstream(entry: Mapping[str, Any]) -> Upstream:
    known = {"name", "url", "projects", "username", "password", "ca_file", "proxy", "allow_private_addresses"}
    _refuse_others("upstreams: ", entry, known)
    name = entry.get("name")
    if not name or not re.fullmatch(r"[\w.-]{1,40}", name, re.ASCII):
        raise ConfigError(f"upstreams: {name!r} is no name: up to 40 letters, digits, dots, dashes and underscores")
    try:
        private = tuple(ip_network(network) for network in entry.get("allow_private_addresses") or ())
    except ValueError as error:
        raise ConfigError(f"upstreams: {name}: allow_private_addresses: {error}") from None
    return Upstream(
        name=name,
        url=_address(entry.get("url") or _default_index(name)).rstrip("/") + "/",
        projects=tuple(map(_pattern, entry.get("projects") or ["*"])),
        username=entry.get("username") or "",
        password=entry.get("password") or "",
        ca_file=entry.get("ca_file") or "",
        proxy=_address(entry["proxy"]) if entry.get("proxy") else "",
        private=private,
    )


def _default_index(name: str) -> str:
    """pip knows where the public index is; it does not have to be said a second time."""
    try:
        return str(importlib.import_module("pip._internal.models.index").PyPI.simple_url)
    except (ImportError, AttributeError):
        raise ConfigError(f"upstreams: {name} has no url, and there is no pip here to know the default") from None


def _exemption(entry: Mapping[str, Any]) -> Exemption:
    _refuse_others("exempt: ", entry, {"name", "version", "until", "reason"})
    try:
        # The day itself is part of it, in UTC.
        day = date.fromisoformat(str(entry["until"])) + timedelta(days=1)
        ends = datetime(day.year, day.month, day.day, tzinfo=timezone.utc).timestamp()
    except KeyError:
        raise ConfigError(f"exempt: {entry.get('name')}: until is missing; an exemption has an end") from None
    except (ValueError, OverflowError):
        raise ConfigError(f"exempt: {entry.get('name')}: until: {entry['until']!r} is no date (2026-12-31)") from None
    if not entry.get("name"):
        raise ConfigError("exempt: name is missing")
    return Exemption(normalise(entry["name"]), str(entry.get("version") or ""), ends, entry.get("reason") or "")


def _pattern(text: str) -> str:
    """Names are compared normalised, so patterns are too."""
    return re.sub(r"[-_.]+", "-", text).lower()


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return url
    except ValueError:
        pass
    raise ConfigError(f"{url!r} is no address: https://host/path")


def _refuse_others(where: str, entry: Mapping[str, Any], known: set[str]) -> None:
    if others := sorted(entry.keys() - known):
        raise ConfigError(f"{where}{others[0]!r} is unknown; known are {', '.join(sorted(known))}")
