"""Who may begin a project under a name that other indexes have: whoever was told so, or one publisher could replace everybody's `requests`."""

from __future__ import annotations

import http.client
import logging
import os
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from .errors import Forbidden, Unavailable

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds for the other indexes' answer."""

Guard = Callable[[str, str, Iterable[str]], None]
"""Told a project that is not ours yet, the account's name and its patterns; raises Forbidden or Unavailable."""


def from_environment() -> Guard:
    """PYPI_TAKEN_URL (what a project's name is added to; missing: nobody is asked), PYPI_RESERVED (patterns, with spaces between)."""
    url, reserved = os.environ.get("PYPI_TAKEN_URL", ""), os.environ.get("PYPI_RESERVED", "").split()

    def guard(project: str, account: str, projects: Iterable[str]) -> None:
        if not url or project in projects or any(fnmatchcase(project, pattern) for pattern in reserved):
            return
        if _taken(f"{url}{project}"):
            raise Forbidden(
                f"{project} is a public project. If it is to be yours here, everybody gets yours: put {project} into"
                f" pypi_public_reserved_names, or literally into the projects of {account}"
            )

    return guard


def _taken(url: str) -> bool:
    """Whether another index has it. 404 says no, a 200 yes; anything else raises Unavailable."""
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=PATIENCE) as answer:
            if answer.status == 200:
                return True
            problem = f"{answer.status}"
    except HTTPError as error:
        if error.code == 404:
            return False
        problem = f"{error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        problem = str(error)
    log.error("cannot tell whether a public project has that name: %s: %s", url, problem)
    raise Unavailable(
        "nobody can tell at the moment whether a public project has that name; nothing was stored: try again, or put it into"
        " pypi_public_reserved_names"
    )
