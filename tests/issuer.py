"""An issuer of identity tokens as far as tokens go: keys, and what is signed by them. The cryptography is not the one under test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

AUDIENCE = "pypi.example.com"
GITHUB = "https://token.actions.githubusercontent.com"
SHA256 = hashes.SHA256()


def encode(data: bytes | Mapping[str, Any]) -> str:
    """base64url of RFC 7515, of JSON if it is no bytes."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(value: int, length: int) -> str:
    return encode(value.to_bytes(length, "big"))


class Key:
    """A pair of keys; `jwk` is the public one."""

    def __init__(self, kid: str, algorithm: str = "RS256") -> None:
        self.algorithm = algorithm
        self.jwk: dict[str, Any]
        self.sign: Callable[[bytes], bytes]
        if algorithm == "RS256":
            private = rsa.generate_private_key(65537, 2048)
            about = private.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": _number(about.n, 256), "e": _number(about.e, 3)}
            self.sign = lambda data: private.sign(data, padding.PKCS1v15(), SHA256)
        else:
            curve = ec.generate_private_key(ec.SECP256R1())
            point = curve.public_key().public_numbers()
            self.jwk = {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}

            def sign(data: bytes) -> bytes:
                return b"".join(n.to_bytes(32, "big") for n in decode_dss_signature(curve.sign(data, ec.ECDSA(SHA256))))

            self.sign = sign
        self.jwk |= {"kid": kid, "use": "sig", "alg": algorithm}

    def token(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token with these claims. Headers may be others."""
        head = {"typ": "JWT", "alg": self.algorithm, "kid": self.jwk["kid"], **header}
        signed = f"{encode({k: v for k, v in head.items() if v is not None})}.{encode(claims)}"
        return f"{signed}.{encode(self.sign(signed.encode()))}"

    def forged(self, claims: Mapping[str, Any]) -> str:
        """Signed by HS256 with the public key for a secret, which everybody knows."""
        signed = f"{encode({'alg': 'HS256', 'kid': self.jwk['kid']})}.{encode(claims)}"
        return f"{signed}.{encode(hmac.digest(decode(self.jwk['n']), signed.encode(), hashlib.sha256))}"


def verify(jwk: Mapping[str, Any], token: Any) -> bool:
    """What nginx does on hosts."""
    data, signature = token.signed.encode(), decode(token.signature)
    try:
        if jwk["kty"] == "RSA":
            n, e = (int.from_bytes(decode(jwk[part]), "big") for part in "ne")
            rsa.RSAPublicNumbers(e, n).public_key().verify(signature, data, padding.PKCS1v15(), SHA256)
        else:
            x, y = (int.from_bytes(decode(jwk[part]), "big") for part in "xy")
            both = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
            public.verify(encode_dss_signature(*both), data, ec.ECDSA(SHA256))
    except InvalidSignature:
        return False
    return True


def of_github(**changed: Any) -> dict[str, Any]:
    """What GitHub says of a run; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "iss": GITHUB,
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now - 300,
        "exp": now + 300,
        "jti": str(uuid.uuid4()),
        "sub": "repo:acme/lib:environment:production",
        "repository": "acme/lib",
        "repository_id": "1234",
        "repository_owner": "acme",
        "environment": "production",
        "event_name": "push",
        "ref": "refs/tags/v1",
        "sha": "0" * 40,
        "job_workflow_ref": "acme/lib/.github/workflows/release.yml@refs/tags/v1",
        "run_id": "4711",
        **changed,
    }
    return {name: value for name, value in claims.items() if value is not None}
