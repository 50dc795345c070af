"""What pip and uv are told on this machine, by files and by the environment."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from .findings import Finding

Environment = Mapping[str, str]
UV_VARIABLES = {
    "UV_INDEX_URL": "index-url",
    "UV_DEFAULT_INDEX": "index-url",
    "UV_EXTRA_INDEX_URL": "extra-index-url",
    "UV_INDEX": "extra-index-url",
    "UV_INSECURE_HOST": "trusted-host",
}
"""What comes later wins."""
OLDEST_PIP = (9,)
SYSTEM_CERTS = (0, 11)
"""uv before it refuses a file with `system-certs`."""


class Setting(NamedTuple):
    """A value, and the file or variable that has it."""

    value: str
    where: str


def home(env: Environment) -> Path:
    return Path(env.get("HOME", "/nonexistent"))


def config(env: Environment) -> Path:
    return Path(env.get("XDG_CONFIG_HOME") or home(env) / ".config")


def of_pip(env: Environment) -> dict[str, Setting]:
    """Its options by name, as `pip install` has them."""
    found: dict[str, Setting] = {}
    for path in _pip_files(env):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, "utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update((key, Setting(value, str(path))) for key, value in parser.items(section))
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            found[name[4:].lower().replace("_", "-")] = Setting(value, name)
    return found


def _pip_files(env: Environment) -> list[Path]:
    """What comes later wins."""
    named = env.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    places = [Path(place) / "pip/pip.conf" for place in env.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if place]
    places += [Path("/etc/pip.conf"), home(env) / ".pip/pip.conf", config(env) / "pip/pip.conf"]
    venv = env.get("VIRTUAL_ENV", "")
    return [*places, *([Path(venv) / "pip.conf"] if venv else []), *([Path(named)] if named else [])]


def of_uv(env: Environment, directory: Path) -> dict[str, Setting]:
    """The default index as `index-url`, another as `extra-index-url`, and `system-certs` if that is set."""
    paths = [Path("/etc/uv/uv.toml"), config(env) / "uv/uv.toml"]
    project = next((place for place in (directory, *directory.parents) if (place / "pyproject.toml").exists()), None)
    if project:
        paths += [project / "pyproject.toml", project / "uv.toml"]
    if env.get("UV_CONFIG_FILE"):
        paths = [Path(env["UV_CONFIG_FILE"])]
    found: dict[str, Setting] = {}
    for path in [] if env.get("UV_NO_CONFIG") else paths:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        table = "tool.uv" if path.name == "pyproject.toml" else ""
        found.update((key, Setting(value, str(path))) for key, value in _toml(text, table))
    for name, key in UV_VARIABLES.items():
        if env.get(name):
            value = env[name].partition("=")[2] if name == "UV_DEFAULT_INDEX" and _named(env[name]) else env[name]
            found[key] = Setting(value, name)
    return found


def _named(index: str) -> bool:
    """As in `UV_DEFAULT_INDEX=private=https://…`."""
    return bool(re.match(r"[A-Za-z0-9._-]+=", index))


def _toml(text: str, table: str) -> Iterator[tuple[str, str]]:
    """What is of interest in a file of uv's; tomllib is there from Python 3.11 on only."""
    for block in re.split(r"^(?=[ \t]*\[)", text, flags=re.MULTILINE):
        head = re.match(r"[ \t]*\[+\s*([A-Za-z.-]+)\s*\]+", block)
        values = dict(re.findall(r"^[ \t]*([a-z-]+)[ \t]*=[ \t]*[\"']?([^\"'#\n]*)", block, re.MULTILINE))
        name = head[1] if head else ""
        if name == f"{table}.index".lstrip("."):
            if values.get("explicit", "").strip() != "true":
                default = values.get("default", "").strip() == "true"
                yield "index-url" if default else "extra-index-url", values.get("url", "")
        elif name == table:
            known = ("index-url", "extra-index-url", "system-certs")
            yield from ((key, values[key].strip()) for key in known if key in values)


def address(url: str) -> str:
    """What tells one index from another: without the login, in one spelling."""
    parts = urlsplit(url.strip())
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        port = None
    return f"{parts.scheme}://{parts.hostname}:{port}{parts.path.rstrip('/')}"


def shown(url: str) -> str:
    """Without the secret in it."""
    return re.sub(r"//[^/@\s]*@", "//…@", url)


def bundles(env: Environment) -> list[Setting]:
    """Files of CAs that a tool was told to use in place of the system's."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    found = [Setting(env[name], name) for name in names if env.get(name)]
    return [*found, *(setting for key, setting in of_pip(env).items() if key == "cert")]


def look_at_settings(index: str, env: Environment, directory: Path) -> Iterator[Finding]:
    """What keeps a tool from asking this index, and it alone."""
    for tool, settings in (("pip", of_pip(env)), ("uv", of_uv(env, directory))):
        for key, (value, where) in settings.items():
            fix = f"take it out of {where}"
            if key == "index-url" and address(value) != address(index):
                yield Finding(40, f"{tool} asks {shown(value)}, as {where} says", fix)
            elif key == "index-url" and "@" in urlsplit(value).netloc:
                yield Finding(44, f"{where} has a login in its address", "have it in ~/.netrc (mode 0600) instead")
            elif key == "extra-index-url" and _foreign(value, index):
                more = "whoever has the higher version there wins, under the name of a private package, too"
                yield Finding(41, f"{tool} asks {shown(value)} as well ({where}): {more}", fix)
            elif key == "trusted-host" and (urlsplit(index).hostname or "") in re.split(r"[\s,:]+", value):
                yield Finding(42, f"{tool} does not verify the index's certificate ({where})", fix)
            elif key == "no-index" and value.lower() in ("1", "true", "yes", "on", "t", "y"):
                yield Finding(40, f"{tool} asks no index at all, as {where} says", fix)


def _foreign(value: str, index: str) -> bool:
    return any(address(url) != address(index) for url in re.findall(r"https?://[^\s,\"']+", value))


def look_at_secrets(env: Environment) -> Iterator[Finding]:
    places = [Path(env.get("NETRC") or home(env) / ".netrc"), home(env) / ".pypirc"]
    places += [config(env) / name for name in ("pypoetry/auth.toml", "pdm/config.toml", "hatch/config.toml")]
    for path in places:
        try:
            others = stat.S_IMODE(path.stat().st_mode) & 0o077
            secret = re.search("password|auth *=", path.read_text("utf-8", "replace"))
        except OSError:
            continue
        if others and secret:
            yield Finding(44, f"others can read {path}", f"chmod 600 {path}, and have another password")


def look_at_tools(env: Environment, directory: Path) -> Iterator[Finding]:
    """Those on PATH."""
    certs, uv, pip = of_uv(env, directory).get("system-certs"), _version("uv", env), _version("pip", env)
    if certs and uv and uv < SYSTEM_CERTS:
        fix = f"uv self update, or write native-tls into {certs.where}"
        yield Finding(45, f"uv {_dotted(uv)} refuses {certs.where} for its system-certs", fix)
    if pip and pip < OLDEST_PIP:
        yield Finding(45, f"pip {_dotted(pip)} was never tried with this index", "python3 -m pip install --upgrade pip")


def _version(tool: str, env: Environment) -> tuple[int, ...] | None:
    program = shutil.which(tool, path=env.get("PATH", ""))
    if not program:
        return None
    try:
        done = subprocess.run(
            [program, "--version"], env=dict(env), capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(rf"{tool} (\d+(?:\.\d+)*)", done.stdout)
    return tuple(map(int, found[1].split("."))) if found else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
