"""Fetches the public keys of the issuers that accounts trust (OpenID Connect Discovery 1.0, JWK sets of RFC 7517).

    python3 fetch_keys.py ROLES.JSON KEYS.JSON [CA.PEM]

Writes {issuer: {"fetched": seconds since the epoch, "keys": [JWK]}}, with 0 for who never answered. Whoever does not answer keeps the
keys that it had, and whoever is trusted no more loses them. Exit code 1 if some issuer failed. The host's Python, standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, build_opener

SECONDS = 5
"""That a connection may be silent."""
LONGEST = 1 << 20
"""Bytes of a document."""
AT_ONCE = 16
"""Issuers that are asked at the same time: one that is slow holds up nobody else."""
FIELDS = ("kid", "kty", "alg", "use", "n", "e", "crv", "x", "y")
"""What is kept of a key."""

Key = dict[str, Any]


class NoRedirect(HTTPRedirectHandler):
    """An issuer is where its name says, or nowhere."""

    def redirect_request(self, *_: Any) -> None:  # urllib makes an error of the answer
        return None


def issuers(roles: Any) -> list[str]:
    """Those that accounts of roles.json trust."""
    trusted = [entry.get("trusted") for entry in roles.values() if isinstance(entry, dict)]
    return sorted(
        {each["issuer"] for each in trusted if isinstance(each, dict) and isinstance(each.get("issuer"), str)}
    )


def make_opener(ca: str | None) -> OpenerDirector:
    """The way out is the environment's proxy, if there is one."""
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return build_opener(NoRedirect, ProxyHandler(), HTTPSHandler(context=context))


def fetch(opener: OpenerDirector, url: object) -> dict[str, Any]:
    """A JSON object. Raises ValueError or OSError."""
    if not isinstance(url, str) or not url.startswith("https://"):
        raise ValueError(f"{url!r} is no https URL")
    with opener.open(url, timeout=SECONDS) as answer:
        content = answer.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise ValueError(f"{url} is longer than {LONGEST} bytes")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError(f"{url} is no JSON object")  # noqa: TRY004  # as for what is no JSON
    return document


def keys_of(opener: OpenerDirector, issuer: str) -> list[Key]:
    """Raises ValueError or OSError, also for an issuer without a key of use."""
    about = fetch(opener, issuer.rstrip("/") + "/.well-known/openid-configuration")
    if about.get("issuer") != issuer:
        raise ValueError("it says that it is {!r}".format(about.get("issuer")))
    found = fetch(opener, about.get("jwks_uri")).get("keys")
    useful = [key for key in found if is_useful(key)] if isinstance(found, list) else []
    keys = [{name: key[name] for name in FIELDS if name in key} for key in useful]
    if not keys:
        raise ValueError("it has no key that could be used")
    return keys


def is_useful(key: Any) -> bool:
    """A public key with a name: RSA of 2048 to 8192 bits, or EC on P-256."""
    if not isinstance(key, dict) or not isinstance(key.get("kid"), str):
        return False
    if key.get("kty") == "RSA":
        return 256 <= length(key.get("n")) <= 1024 and 1 <= length(key.get("e")) <= 8
    return key.get("kty") == "EC" and key.get("crv") == "P-256" and length(key.get("x")) == length(key.get("y")) == 32


def length(number: Any) -> int:
    """Bytes of one in base64url, without leading zeros but for EC; 0 for what is none."""
    try:
        return len(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)))
    except (TypeError, ValueError):
        return 0


def write(path: Path, known: dict[str, Any]) -> None:
    """At once: a reader has the old or the new one."""
    unfinished = path.with_name("." + path.name)
    unfinished.write_text(json.dumps(known, sort_keys=True), "utf-8")
    unfinished.chmod(0o644)
    os.replace(str(unfinished), str(path))


def main(roles: str, keys: str, ca: str | None = None) -> int:
    path = Path(keys)
    wanted, before = issuers(json.loads(Path(roles).read_text("utf-8"))), read(path)
    known = {issuer: before.get(issuer, {"fetched": 0, "keys": []}) for issuer in wanted}
    write(path, known)
    opener, failed = make_opener(ca), 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = {pool.submit(keys_of, opener, issuer): issuer for issuer in wanted}
        for answer in as_completed(asked):
            issuer = asked[answer]
            try:
                known[issuer] = {"fetched": int(time.time()), "keys": answer.result()}
                write(path, known)
            except (OSError, ValueError, HTTPException) as error:
                failed = 1
                print(f"{issuer}: {error}; the keys that were fetched before are kept for a day", file=sys.stderr)
    return failed


def read(path: Path) -> dict[str, Any]:
    """What was fetched before; nothing where that cannot be read."""
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
