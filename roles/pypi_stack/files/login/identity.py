"""Identity tokens of pipelines: what is in one, and whether it is meant for this index and for now (OpenID Connect Core 1.0, 3.1.3.7).

A JWT (RFC 7519) in the compact form of RFC 7515. Whoever signed it is another question: `Signed` has what is needed to ask that.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 32_768
"""Characters of a token."""
LEEWAY = 30
"""Seconds that the clocks of issuer and index may differ."""
LONGEST_LIFE = 86_400
"""Seconds after which a token is over, whatever it says: until then it is remembered that it was used."""
ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
"""What a signature may be made by, and the kind of key. Not `none`; and no secret key, for which a public one could pass."""

_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Malformed(Exception):
    """It is no token at all."""


class Invalid(Exception):
    """It is one, but not for us or not for now; the reason has nothing of its content."""


@dataclass(frozen=True)
class Signed:
    """A token in its parts. Nothing in it is to be believed before the signature was verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: str
    """What the signature is over."""
    signature: str
    """In base64url."""

    @property
    def issuer(self) -> str:
        return str(self.claims["iss"])

    @property
    def jti(self) -> str:
        return str(self.claims["jti"])

    @property
    def expires(self) -> int:
        """In seconds since the epoch."""
        return int(min(self.claims["exp"], self.claims["iat"] + LONGEST_LIFE))


def parse(token: object) -> Signed:
    """Raises Malformed."""
    if not isinstance(token, str) or len(token) > LONGEST:
        raise Malformed
    parts = token.split(".")
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts):
        raise Malformed
    header, claims = _document(parts[0]), _document(parts[1])
    if not _is_text(header.get("alg")) or not _is_text(claims.get("iss")):
        raise Malformed
    return Signed(header, claims, f"{parts[0]}.{parts[1]}", parts[2])


def check(token: Signed, audience: str, now: float) -> None:
    """Raises Invalid. `now` in seconds since the epoch."""
    claims = token.claims
    if token.header["alg"] not in ALGORITHMS or not _is_text(token.header.get("kid")):
        raise Invalid(f"it has to be signed by {' or '.join(ALGORITHMS)}, with a key that it names (kid)")
    if "crit" in token.header:
        raise Invalid("it asks for extensions that this index does not know (crit)")
    if claims.get("aud") not in (audience, [audience]):
        raise Invalid(f"it is not for this index: its audience has to be {audience} and nothing else (aud)")
    if not _is_text(claims.get("jti")):
        raise Invalid("it has no name (jti), so nobody could tell whether it was used before")
    times = [claims.get("exp"), claims.get("iat"), claims.get("nbf", claims.get("iat"))]
    if not all(isinstance(each, (int, float)) and not isinstance(each, bool) and 0 < each < 2**53 for each in times):
        raise Invalid("it does not say when it was made and when it expires (iat, exp)")
    if token.expires + LEEWAY <= now:
        raise Invalid("it has expired, or was made more than a day ago (exp, iat)")
    if max(times[1:]) - LEEWAY > now:
        raise Invalid("it is not valid yet: are the clocks right? (iat, nbf)")


def suits(key: Mapping[str, Any], token: Signed) -> bool:
    """Whether it is the key of a JWK set (RFC 7517) that the token names, and one for its algorithm."""
    algorithm = token.header["alg"]
    return (
        key.get("kid") == token.header["kid"]
        and key.get("kty") == ALGORITHMS[algorithm]
        and key.get("alg", algorithm) == algorithm
        and key.get("use", "sig") == "sig"
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024


def _document(part: str) -> dict[str, Any]:
    """Names that come twice are refused (RFC 7515, 4): another reader might take the other one."""
    try:
        text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        document = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Malformed from None
    if not isinstance(document, dict):
        raise Malformed
    return document


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
