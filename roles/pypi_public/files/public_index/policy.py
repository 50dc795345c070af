"""Which of a project's public files are offered, why not the others, and when that changes: a function of listing and clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .config import Config, Exemption, fits
from .errors import Forbidden, Refusal, Unknown
from .listing import File, Listing, moment
from .names import same_version

DAY = 86_400

Malicious = Callable[[str, str], str]
"""Of a project and a version: the advisory that calls it malicious, or nothing."""


class Verdict(NamedTuple):
    """`reason` is empty for what is offered; `changes` is when it has to be asked again (seconds since the epoch)."""

    reason: str
    changes: float = math.inf


class Offer(NamedTuple):
    """What a page shows. `refused` is the reason for the first file that is not offered."""

    files: list[File]
    changes: float
    refused: str


class Policy:
    def __init__(self, config: Config, malicious: Malicious) -> None:
        self._config, self._malicious = config, malicious

    def refusal(self, name: str) -> Refusal | None:
        """Why a whole project is not public here, whatever the upstream has."""
        if self._config.packages == "deny":
            return Unknown(f"{name} is not here, and public packages are off (pypi_public_packages: deny)")
        if fits(name, self._config.reserved):
            return Unknown(f"{name} is reserved for private packages (pypi_public_reserved_names)")
        if self._config.only and not fits(name, self._config.only):
            return Unknown(f"{name} is not one of the public projects allowed here (pypi_public_only)")
        if not self._config.upstream(name):
            return Unknown(f"no upstream has {name} among its projects (pypi_public_upstreams)")
        return None

    def judge(self, listing: Listing, file: File, now: float) -> Verdict:
        """Whether one file may be had."""
        title = f"{listing.project} {file.version}"
        if listing.status == "quarantined":
            return Verdict(f"{listing.project} is quarantined by {listing.upstream}")
        if self._config.block_malware and (advisory := self._malicious(listing.project, file.version)):
            return Verdict(f"{title} is malicious: {advisory} (pypi_public_block_malware)")
        age = self._config.minimum_age
        if not age:
            return Verdict("")
        uploaded = moment(file.uploaded)
        old_enough = math.inf if uploaded is None else uploaded + age
        if old_enough <= now:
            return Verdict("")
        exempt = max((exemption.ends for exemption in self._exemptions(listing.project, file.version)), default=0)
        if now < exempt:
            return Verdict("", exempt)
        gate = f"pypi_public_minimum_age is {_days(age)} (pypi_public_exempt lets it through)"
        if uploaded is None:
            return Verdict(f"{title} has no known upload time at {listing.upstream}; {gate}")
        return Verdict(f"{title} is {_days(max(0, now - uploaded))} old; {gate}", old_enough)

    def offer(self, listing: Listing, now: float) -> Offer:
        """The files of a page, and the next moment at which they are others."""
        files, changes, refused = [], math.inf, ""
        for file in listing.files:
            if file.withdrawn:
                continue
            verdict = self.judge(listing, file, now)
            changes = min(changes, verdict.changes)
            refused = refused or verdict.reason
            if not verdict.reason:
                files.append(file)
        return Offer(files, changes, refused)

    def check(self, listing: Listing, file: File, now: float) -> None:
        """Refuse a file that may not be had."""
        if reason := self.judge(listing, file, now).reason:
            raise Forbidden(reason)

    def _exemptions(self, name: str, version: str) -> list[Exemption]:
        return [
            exemption
            for exemption in self._config.exempt
            if exemption.name == name and (not exemption.version or same_version(exemption.version, version))
        ]


def _days(seconds: float) -> str:
    """2 days as `2d`, an hour as `1h`."""
    for unit, length in (("d", DAY), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return (
                f"{seconds / length:.0f}{unit}"
                if seconds % length == 0
                else f"{int(seconds / length * 10) / 10:g}{unit}"
            )
    return f"{seconds:.0f}s"
