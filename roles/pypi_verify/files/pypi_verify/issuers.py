"""The keys of those who say whose pipeline it is, as the timer of pypi_issuers fetches them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from .findings import Config, Finding

HOURS = 1
"""Age of keys that is a finding. They are fetched every few minutes, and good for a day."""
FETCH = "systemctl start pypi-issuers; journalctl --unit pypi-issuers says why. When they are a day old, no pipeline of it gets a token"


def issuers(config: Config) -> Iterator[Finding]:
    """Whether every issuer that an account trusts has keys that were fetched lately."""
    if not config.keys_file:
        return
    try:
        known = json.loads(Path(config.keys_file).read_bytes())
        fetched = {issuer: float(entry["fetched"]) for issuer, entry in known.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        yield Finding("issuer", f"the issuers' keys in {config.keys_file} cannot be read: {error}", FETCH)
        return
    for issuer, then in sorted(fetched.items()):
        hours = (time.time() - then) / 3600
        if hours > HOURS:
            when = f"{hours:.0f} hours ago" if then else "never"
            yield Finding("issuer", f"the keys of {issuer} were fetched last: {when}", FETCH)
