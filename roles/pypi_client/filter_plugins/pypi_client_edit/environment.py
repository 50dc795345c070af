"""What login shells are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = "# Ansible: private index. For tools that bring a CA bundle of their own, such as poetry, flit, hatch.\n"


def profile(want: Mapping[str, Any]) -> str:
    """The host's CA bundle for requests and httpx, and pipenv's index in place of the public one that its projects name.

    What the user has set is left.
    """
    variables = dict.fromkeys(("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), want["cert"]) if want["cert"] else {}
    if "pipenv" in want["tools"]:
        variables["PIPENV_PYPI_MIRROR"] = want["index_url"]
    return _HEAD + "".join(f'export {name}="${{{name}:-{value}}}"\n' for name, value in variables.items())
