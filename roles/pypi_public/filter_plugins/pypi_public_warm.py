"""What lock files want, for `public_index warm`: read on the controller, where the parsers are.

uv.lock, poetry.lock and pylock.toml (PEP 751) name every file with its digest; a requirements file has pins, with or without digests.
What does not come from an index (a path, a repository, the project itself) is passed over, and so is what this index has itself.
Markers decide where they stand beside the package itself (requirements, pylock.toml); in the other two they stand at dependencies,
and then a package counts for every target.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name

Entry = dict[str, Any]

_PYTHON = re.compile(r"3\.(\d{1,2})")
_PLATFORM = re.compile(
    r"(manylinux|musllinux)_(\d+)_(\d+)_(\w+)|macosx_(\d+)_(\d+)_(x86_64|arm64)|win_(amd64|arm64)|win32"
)
_GLIBC = {(2, 5): "manylinux1", (2, 12): "manylinux2010", (2, 17): "manylinux2014"}
_HASH = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})")


class WarmError(ValueError):
    """The text says which file or variable, and the fix."""


def pypi_public_wanted(
    files: Mapping[str, str], pythons: Sequence[str], platforms: Sequence[str], owned: Iterable[str] = ()
) -> dict[str, Any]:
    """The document for `public_index warm`. `files`: contents by path; `owned`: normalised names of private projects."""
    targets = {f"{python} {platform}": _tags(python, platform) for python in pythons for platform in platforms}
    environments = {
        f"{python} {platform}": _environment(python, platform) for python in pythons for platform in platforms
    }
    if not targets:
        raise WarmError("warm_pythons and warm_platforms: name at least one each")
    ours = set(owned)
    found: dict[tuple[str, str], Entry] = {}
    for path, text in files.items():
        for entry in _read(path, text):
            name = canonicalize_name(entry["name"])
            marker = entry.pop("marker", "")
            fitting = [target for target, environment in environments.items() if _applies(marker, environment, path)]
            if name in ours or not fitting:
                continue
            known = found.setdefault((name, entry["version"]), {**entry, "name": name, "targets": fitting})
            known["targets"] = sorted({*known["targets"], *fitting})
            # Without digests in one of the files, all of the release are eligible.
            known["sha256"] = (
                sorted({*known["sha256"], *entry["sha256"]}) if known["sha256"] and entry["sha256"] else []
            )
    return {"targets": targets, "wanted": [found[key] for key in sorted(found)]}


def _read(path: str, text: str) -> Iterator[Entry]:
    name = PurePosixPath(path).name
    try:
        if name == "uv.lock":
            return iter(list(_uv(tomllib.loads(text))))
        if name == "poetry.lock":
            return iter(list(_poetry(tomllib.loads(text))))
        if re.fullmatch(r"pylock(\.[^.]+)?\.toml", name):
            return iter(list(_pylock(tomllib.loads(text))))
        if name.endswith((".txt", ".in")):
            return iter(list(_requirements(path, text)))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        raise WarmError(f"{path}: not a lock file of its kind: {type(error).__name__} {error}") from None
    raise WarmError(f"{path}: neither uv.lock, poetry.lock, pylock.toml nor a requirements file (.txt)")


def _uv(document: Mapping[str, Any]) -> Iterator[Entry]:
    for package in document.get("package", ()):
        if "registry" in package["source"]:
            files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
            yield _entry(package, [file.get("hash", "") for file in files])


def _poetry(document: Mapping[str, Any]) -> Iterator[Entry]:
    older = document.get("metadata", {}).get("files", {})  # up to poetry 1.2
    for package in document.get("package", ()):
        if package.get("source", {}).get("type", "legacy") == "legacy":  # its word for an index
            files = package.get("files") or older.get(package["name"], ())
            yield _entry(package, [file.get("hash", "") for file in files])


def _pylock(document: Mapping[str, Any]) -> Iterator[Entry]:
    for package in document.get("packages", ()):
        if "version" in package and not {"vcs", "directory", "archive"} & package.keys():
            files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
            digests = [f"sha256:{file['hashes'].get('sha256', '')}" for file in files]
            yield {**_entry(package, digests), "marker": package.get("marker", "")}


def _entry(package: Mapping[str, Any], hashes: Iterable[str]) -> Entry:
    digests = [text.removeprefix("sha256:") for text in hashes if re.fullmatch("sha256:[0-9a-f]{64}", text)]
    return {"name": package["name"], "version": str(package["version"]), "sha256": sorted(digests)}


def _requirements(path: str, text: str) -> Iterator[Entry]:
    """Pins of a requirements file (pip's format); options are passed over, whatever is not pinned is refused."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        stated = re.sub(r"(^|\s)#.*", "", line).strip()
        if not stated or stated.startswith("-"):
            if re.match(r"(-r|--requirement|-c|--constraint)\b", stated):
                raise WarmError(f"{path}: {stated}: name that file in warm_files too, and take the line out")
            continue
        digests = _HASH.findall(stated)
        try:
            requirement = Requirement(re.split(r"\s--hash", stated)[0].strip())
        except InvalidRequirement as error:
            raise WarmError(f"{path}: {stated[:80]!r} is no requirement: {str(error).splitlines()[0]}") from None
        if requirement.url:
            continue
        pins = [
            pin.version for pin in requirement.specifier if pin.operator in ("==", "===") and "*" not in pin.version
        ]
        if len(pins) != 1:
            raise WarmError(
                f"{path}: {requirement.name} is not pinned; lock it (uv pip compile, pip-compile) or write =={{version}}"
            )
        yield {
            "name": requirement.name,
            "version": pins[0],
            "sha256": sorted(digests),
            "marker": str(requirement.marker or ""),
        }


def _applies(marker: str, environment: dict[str, str], path: str) -> bool:
    try:
        return not marker or Marker(marker).evaluate({**environment, "extra": ""})
    except ValueError as error:
        raise WarmError(f"{path}: {marker}: {error}") from None


def _tags(python: str, platform: str) -> list[str]:
    """Tags of the wheels that CPython takes there, in its order (PEP 425, 600, 656)."""
    minor = _minor(python)
    platforms = _platforms(platform)
    tags = [*cpython_tags((3, minor), platforms=platforms, abis=[f"cp3{minor}"])]
    tags += compatible_tags((3, minor), interpreter=f"cp3{minor}", platforms=platforms)
    return list(dict.fromkeys(map(str, tags)))


def _minor(python: str) -> int:
    found = _PYTHON.fullmatch(str(python))
    if not found:
        raise WarmError(f"warm_pythons: {python!r} is no Python version: write it in quotes, as '3.12'")
    return int(found[1])


def _platforms(platform: str) -> list[str]:
    """A platform and what runs on it as well, the newest first."""
    found = _PLATFORM.fullmatch(platform)
    if not found:
        raise WarmError(
            f"warm_platforms: {platform!r} is none; such as manylinux_2_28_x86_64, macosx_14_0_arm64, win_amd64"
        )
    kind, major, minor, machine = found.groups()[:4]
    if kind == "manylinux":
        names = []
        for number in range(int(minor), 4, -1):
            names.append(f"manylinux_{major}_{number}_{machine}")
            if alias := _GLIBC.get((int(major), number)):
                names.append(f"{alias}_{machine}")
        return [*names, f"linux_{machine}"]
    if kind == "musllinux":
        return [*(f"musllinux_{major}_{number}_{machine}" for number in range(int(minor), -1, -1)), f"linux_{machine}"]
    if found[5]:
        return list(mac_platforms((int(found[5]), int(found[6])), found[7]))
    return [platform]


def _environment(python: str, platform: str) -> dict[str, str]:
    """What markers are evaluated with (PEP 508)."""
    found = _PLATFORM.fullmatch(platform)
    machine = (found and (found[4] or found[7] or found[8])) or "x86"
    system, sys_platform, os_name = ("Linux", "linux", "posix")
    if platform.startswith("macosx"):
        system, sys_platform = "Darwin", "darwin"
    elif platform.startswith("win"):
        system, sys_platform, os_name, machine = "Windows", "win32", "nt", machine.upper()
    return {
        "python_version": str(python),
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "platform_system": system,
        "platform_machine": machine,
        "platform_release": "",
        "platform_version": "",
        "sys_platform": sys_platform,
        "os_name": os_name,
    }


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"pypi_public_wanted": pypi_public_wanted}
