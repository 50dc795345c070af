"""Filters that judge certificates on the controller, before anything on a host changes.

They return sentences for people instead of raising: an assert shows them, a renewal gives them as its reason.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

AUTHORITY = "Private PyPI CA"  # the common name in tasks/ca.yml
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _tree(name: str) -> Network | str:
    """Read what a CA may be limited to: a network (an address is one) or a domain."""
    try:
        return ipaddress.ip_network(name)
    except ValueError:
        return name.lower()


def _is_domain(name: str) -> bool:
    """RFC 1123 and 5890. An all-numeric last label is a mistyped address, never a top level domain (RFC 3696, 2)."""
    labels = name.lower().split(".")
    return len(name) <= 253 and all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def invalid(names: Iterable[object]) -> list[object]:
    """List what is neither a DNS name nor an IP address."""
    return [name for name in names if not (isinstance(name, str) and (_address(name) or _is_domain(name)))]


def invalid_trees(names: Iterable[object]) -> list[object]:
    """List what is neither a domain nor an IP address or network."""

    def valid(tree: Network | str) -> bool:
        return not isinstance(tree, str) or _is_domain(tree)

    return [name for name in names if not (isinstance(name, str) and valid(_tree(name)))]


def addresses(names: Iterable[str]) -> list[str]:
    """List the IP addresses among the names."""
    return [name for name in names if _address(name)]


def alternative_names(names: Iterable[str]) -> list[str]:
    """Write names as community.crypto wants them: ``DNS:pypi.example.com``, ``IP:192.0.2.1``. Each once, order kept."""
    return list(dict.fromkeys(f"IP:{_address(name)}" if _address(name) else f"DNS:{name.lower()}" for name in names))


def subtrees(names: Iterable[str]) -> dict[str, list[str]]:
    """Write the name constraints (RFC 5280, 4.2.1.10) of a CA that may sign for these domains and networks only."""
    trees = [_tree(name) for name in names]
    networks = {f"IP:{tree}" for tree in trees if not isinstance(tree, str)}
    domains = {f"DNS:{tree}" for tree in trees if isinstance(tree, str)}
    # A kind of name that isn't mentioned is unconstrained, so each kind is mentioned. "invalid" is reserved (RFC 6761).
    return {
        "permitted": sorted(domains or {"DNS:invalid"}) + sorted(networks),
        "excluded": [] if networks else ["IP:0.0.0.0/0", "IP:::/0"],
    }


def _inside(name: str, tree: Network | str) -> bool:
    address = _address(name)
    if isinstance(tree, str):
        return not address and f".{name.lower()}".endswith("." + tree.removeprefix("."))
    return address is not None and address in tree


def outside(names: Iterable[str], permitted: Iterable[str]) -> list[str]:
    """List the names that are in none of the permitted domains and networks."""
    trees = [_tree(name) for name in permitted]
    return [name for name in names if not any(_inside(name, tree) for tree in trees)]


def forbidden(authority: str, names: Iterable[str]) -> list[str]:
    """List the names that the CA's name constraints keep it from signing."""
    try:
        constraints = (
            x509.load_pem_x509_certificate(authority.encode())
            .extensions.get_extension_for_class(x509.NameConstraints)
            .value
        )
    except x509.ExtensionNotFound:
        return []
    relevant = (x509.DNSName, x509.IPAddress)
    excluded = [_tree(str(tree.value)) for tree in constraints.excluded_subtrees or [] if isinstance(tree, relevant)]
    permitted = [_tree(str(tree.value)) for tree in constraints.permitted_subtrees or [] if isinstance(tree, relevant)]

    def signs(name: str) -> bool:
        # Constraints of one kind of name say nothing about the other kind.
        same_kind = [tree for tree in permitted if isinstance(tree, str) is not bool(_address(name))]
        allowed = not same_kind or any(_inside(name, tree) for tree in same_kind)
        return allowed and not any(_inside(name, tree) for tree in excluded)

    return [name for name in names if not signs(name)]


def _covered(name: str, alternatives: x509.SubjectAlternativeName) -> bool:
    """Match as RFC 9525 says: alternative names only, ``*`` as the whole left-most label, standing for one label."""
    if address := _address(name):
        return address in alternatives.get_values_for_type(x509.IPAddress)
    wildcard = "*." + name.lower().partition(".")[2]
    return any(value.lower() in (name.lower(), wildcard) for value in alternatives.get_values_for_type(x509.DNSName))


def _names_problems(leaf: x509.Certificate, names: Sequence[str], exactly: bool) -> list[str]:
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ["the certificate has no subject alternative names, and clients ignore the common name"]
    held = [str(name.value) for name in alternatives]
    found = [
        f"the certificate does not cover {name} (it covers {', '.join(held)})"
        for name in names
        if not _covered(name, alternatives)
    ]
    if exactly:
        wanted = {str(_address(name) or name.lower()) for name in names}
        found += [f"the certificate also covers {name}" for name in held if name not in wanted]
    return found


def _date_problems(leaf: x509.Certificate, within_days: int) -> list[str]:
    now = dt.datetime.now(dt.UTC)
    if leaf.not_valid_before_utc > now:
        return [f"the certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"]
    end = leaf.not_valid_after_utc
    if end <= now:
        return [f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC"]
    if end <= now + dt.timedelta(days=within_days):
        return [f"the certificate expires on {end:%Y-%m-%d %H:%M} UTC"]
    return []


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _chain_problems(chain: Sequence[x509.Certificate]) -> list[str]:
    return [
        f"certificate {number + 1} of the chain did not issue certificate {number} "
        "(the server's own comes first, then each one's issuer)"
        for number, (certificate, issuer) in enumerate(itertools.pairwise(chain), start=1)
        if not _issued(certificate, issuer)
    ]


def _use_problems(leaf: x509.Certificate) -> list[str]:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return []
    served = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses)
    return [] if served else ["the certificate is not meant for servers (extended key usage)"]


def key_problems(certificate: str, key: str, passphrase: str = "") -> list[str]:
    """Say why this key can't be used with this certificate. The passphrase must fit the key, empty for a plain one."""
    if "PRIVATE KEY" not in key:
        return ["the key is missing or not PEM"]
    encrypted = "ENCRYPTED" in key
    if encrypted and not passphrase:
        return ["the key is protected by a passphrase"]
    if passphrase and not encrypted:
        return ["a passphrase is set, but the key is not protected by one"]
    try:
        private = serialization.load_pem_private_key(key.encode(), passphrase.encode() or None)
    except (ValueError, TypeError):
        return ["the key cannot be opened with this passphrase" if encrypted else "the key is damaged"]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size < 2048:
        return [f"the key has {private.key_size} bits: OpenSSL 3 refuses RSA below 2048"]
    if private.public_key() != x509.load_pem_x509_certificate(certificate.encode()).public_key():
        return ["the key belongs to another certificate"]
    return []


def problems(
    chain: str,
    key: str,
    names: Sequence[str] = (),
    within_days: int | None = None,
    issuer: str = "",
) -> list[str]:
    """Say why a server can't (or, within so many days, soon can't) answer for these names with this chain and key.

    Without ``within_days`` dates are not looked at. ``issuer`` is the CA that must have signed the server's certificate,
    for these names and no others.
    """
    if "PRIVATE KEY" in chain:
        return ["the certificate file also holds a private key"]
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        return ["the certificate is missing or not PEM"]
    leaf = certificates[0]
    found = [
        *_chain_problems(certificates),
        *_use_problems(leaf),
        *key_problems(chain, key),
        *_names_problems(leaf, names, exactly=bool(issuer)),
    ]
    if within_days is not None:
        found += _date_problems(leaf, within_days)
    if issuer and not _issued(leaf, x509.load_pem_x509_certificate(issuer.encode())):
        found.append("the certificate was signed by another CA")
    return found


def stranger(certificate: str, authority: str) -> bool:
    """Whether a CA of this role's making signed the certificate, but not this one: another key, or "" for none at all."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate.encode())[0]
    except ValueError:
        return False
    if leaf.issuer.rfc4514_string() != f"CN={AUTHORITY}":
        return False
    return not (authority and _issued(leaf, x509.load_pem_x509_certificate(authority.encode())))


def days_left(certificate: str) -> int:
    """Whole days until the (first) certificate expires; negative when it has."""
    end = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
    return (end - dt.datetime.now(dt.UTC)).days


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "pypi_tls_invalid": invalid,
            "pypi_tls_invalid_trees": invalid_trees,
            "pypi_tls_addresses": addresses,
            "pypi_tls_outside": outside,
            "pypi_tls_alternative_names": alternative_names,
            "pypi_tls_subtrees": subtrees,
            "pypi_tls_forbidden": forbidden,
            "pypi_tls_problems": problems,
            "pypi_tls_key_problems": key_problems,
            "pypi_tls_days_left": days_left,
            "pypi_tls_stranger": stranger,
        }
