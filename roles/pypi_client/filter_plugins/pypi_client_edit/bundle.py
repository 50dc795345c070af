"""The files for places that Ansible does not reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import ini, netrc, uv


def pypi_client_bundle(want: Mapping[str, Any], username: str, password: str) -> dict[str, str]:
    """By name; the login is in netrc alone."""
    return {
        "netrc": netrc.netrc("", "netrc", want, {"username": username, "password": password}),
        "pip.conf": ini.pip_conf("", "pip.conf", want),
        "uv.toml": uv.uv_toml("", "uv.toml", want),
    }
