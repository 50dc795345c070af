"""What login shells are told."""

from __future__ import annotations

_PROFILE = "# Ansible: private index. For tools that bring a CA bundle of their own, such as poetry, flit, hatch.\n"


def profile(cert: str) -> str:
    """What login shells read: the host's CA bundle for requests and httpx, where the user has set no other one."""
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    return _PROFILE + "".join(f'export {name}="${{{name}:-{cert}}}"\n' for name in names)
