"""Publishing and reading without a stored secret: a pipeline's identity token in, a token for 15 minutes out (PyPI's protocol).

    GET  /_/oidc/audience    200 {"audience": "pypi.example.com"}
    POST /_/oidc/mint-token  {"token": "<JWT>"}
                             200 {"success": true, "token": "ppi_…", "expires": <seconds since the epoch>}
                             422 {"message": "Token request failed", "errors": [{"code": "…", "description": "…"}]}

The codes are Warehouse's: not-enabled, invalid-payload, invalid-token, invalid-publisher, invalid-reuse-token. One is ours, with a 503:
unavailable, when it cannot be told whether a token is right. Keys come from a file that the host keeps fresh: nothing here has a way out.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from math import inf
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import identity
from identity import Signed
from minted import LIFETIME, Mint, Minted
from trust import Trust
from users import Account, Users

log = logging.getLogger("login")

MAX_AGE = 86_400
"""Seconds that keys are good for after they were fetched: as long an issuer may be down."""
ASK_SECONDS = 60.0
"""How often the host is asked for keys at most."""
PATIENCE = 5.0
"""Seconds after that for which a key that is not there yet is waited for."""
MAX_WAITING = 8
"""Who may wait for that at the same time: the login has 64 threads, and 48 wait for other things at most."""
NGINX_SECONDS = 5.0
"""That nginx may take to verify a signature."""
LONGEST_BODY = identity.LONGEST + 256

Verify = Callable[[Mapping[str, Any], Signed], bool]
"""Whether that key of a JWK set made the signature. Raises OSError when it cannot be told."""


class Refused(Exception):
    """With a code of PyPI's and a description, for whoever asked; `note` is for the operator only."""

    def __init__(self, code: str, description: str, note: str = "") -> None:
        super().__init__(description)
        self.code, self.note = code, note or description


class Minting:
    """What it takes to mint. Safe for threads."""

    def __init__(self, users: Callable[[], Users], mint: Mint, keys: Keys, audience: str, verify: Verify) -> None:
        self.audience = audience
        self._users, self._mint, self._keys, self._verify = users, mint, keys, verify

    def exchange(self, body: bytes) -> dict[str, Any]:
        """The answer to who may have a token. Raises Refused; OSError or ValueError when the users cannot be read."""
        users, token = self._users(), _parse(body)
        if not users.trusts:
            raise Refused("not-enabled", "no account of this index trusts a pipeline")
        if all(token.issuer != trust.issuer for trust in users.trusts.values()):
            raise Refused("invalid-payload", "unknown trusted publishing issuer")
        self._authenticate(token)
        account, trust = _trusting(users, token)
        try:
            if not self._mint.spend(token.issuer, token.jti, token.expires + identity.LEEWAY):
                raise Refused("invalid-reuse-token", "this identity token was used before: ask for another one (jti)")
            until = int(time.time()) + LIFETIME
            run = trust.run(token.claims)
            secret = self._mint.issue(Minted(account.name, run, trust.digest, until))
        except OSError as error:
            raise Refused("unavailable", "the index cannot store a token at the moment", str(error)) from error
        log.warning("minted for %s/%s, sub %.300r", account.name, run, token.claims.get("sub"))
        return {"success": True, "token": secret, "expires": until}

    def _authenticate(self, token: Signed) -> None:
        try:
            identity.check(token, self.audience, time.time())
        except identity.Invalid as invalid:
            raise Refused("invalid-token", f"malformed or invalid token: {invalid}") from None
        key = self._keys.find(token)
        try:
            right = self._verify(key, token)
        except (OSError, http.client.HTTPException) as error:
            raise Refused("unavailable", "the signature cannot be verified at the moment", str(error)) from error
        if not right:
            raise Refused("invalid-token", "malformed or invalid token: its signature is wrong")


class Keys:
    """The issuers' keys, as the host's fetch_keys.py writes them. `asked` is a file whose change makes it fetch them anew."""

    def __init__(self, file: Path, asked: Path) -> None:
        self._file, self._asked = file, asked
        self._lock = threading.Lock()
        self._when = -inf
        self._places = threading.BoundedSemaphore(MAX_WAITING)

    def find(self, token: Signed) -> Mapping[str, Any]:
        """The one that the token names. Raises Refused."""
        if key := self._look(token) or self._wait(token):
            return key
        if self._known(token.issuer) is None:
            raise Refused(
                "unavailable", f"the keys of {token.issuer} could not be fetched: the index's operator can see why"
            )
        raise Refused(
            "invalid-token", "malformed or invalid token: it is signed by a key that its issuer does not have (kid)"
        )

    def _look(self, token: Signed) -> Mapping[str, Any] | None:
        return next((key for key in self._known(token.issuer) or [] if identity.suits(key, token)), None)

    def _wait(self, token: Signed) -> Mapping[str, Any] | None:
        """Until the host has it. All who come meanwhile wait, not only who made us ask: an issuer changes its key for many jobs."""
        until, key = self._ask() + PATIENCE, None
        if not self._places.acquire(blocking=False):
            return None
        try:
            while not key and time.monotonic() < until:
                time.sleep(0.1)
                key = self._look(token)
        finally:
            self._places.release()
        return key

    def _known(self, issuer: str) -> list[Mapping[str, Any]] | None:
        """None where there are none that are fresh enough."""
        try:
            entry = json.loads(self._file.read_bytes())[issuer]
            return list(entry["keys"]) if time.time() - entry["fetched"] < MAX_AGE else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _ask(self) -> float:
        """Asks the host, and when that was (monotonic): not every time, or anybody could make it ask without end."""
        with self._lock:
            if time.monotonic() - self._when < ASK_SECONDS:
                return self._when
            self._when = time.monotonic()
        try:
            self._asked.write_text("", "ascii")
        except OSError as error:
            log.error("cannot ask for keys: %s", error)
        return self._when


def ask_nginx(url: str) -> Verify:
    """Its njs has WebCrypto (signature.js)."""
    opener = build_opener(ProxyHandler({}))

    def verify(key: Mapping[str, Any], token: Signed) -> bool:
        asked = {"algorithm": token.header["alg"], "key": key, "signed": token.signed, "signature": token.signature}
        try:
            with opener.open(url, json.dumps(asked).encode(), timeout=NGINX_SECONDS) as answer:
                if answer.status == 204:
                    return True
                raise OSError(f"nginx answers {answer.status}")
        except HTTPError as error:
            if error.code == 403:
                return False
            raise

    return verify


def from_environment(users: Callable[[], Users], mint: Mint) -> Minting:
    """AUDIENCE (the index's name), MINTED_DIRECTORY, KEYS_FILE and SIGNATURE_URL (nginx's)."""
    keys = Keys(Path(os.environ["KEYS_FILE"]), Path(os.environ["MINTED_DIRECTORY"]) / "asked")
    return Minting(users, mint, keys, os.environ["AUDIENCE"], ask_nginx(os.environ["SIGNATURE_URL"]))


def _parse(body: bytes) -> Signed:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict) or not isinstance(payload.get("token"), str):
        raise Refused("invalid-payload", 'send {"token": "<JWT>"}, in JSON')
    try:
        return identity.parse(payload["token"])
    except identity.Malformed:
        raise Refused("invalid-payload", "malformed JWT") from None


def _trusting(users: Users, token: Signed) -> tuple[Account, Trust]:
    """The account whose run it is: of several the one that publishes, and then the one that asks for more."""
    found: list[tuple[bool, int, str]] = []
    notes = []
    for name, trust in users.trusts.items():
        publishes = users.accounts[name].role == "publisher"
        objections = trust.objections(token.claims, publishes)
        if not objections:
            found.append((not publishes, -trust.narrowness, name))
        elif objections != ["iss"]:
            notes.append(f"{name}: {', '.join(objections)}")
    if not found:
        reason = "valid token, but no corresponding publisher: no account of this index trusts this run"
        note = f"of {token.claims.get('sub')!r:.300}, what differs: {'; '.join(notes)}"
        raise Refused("invalid-publisher", f"{reason}; the index's operator can see what differs", note[:2000])
    name = min(found)[2]
    return users.accounts[name], users.trusts[name]


def respond(
    minting: Minting, environ: Mapping[str, Any], note: Callable[[str], None], start_response: Any
) -> Iterable[bytes]:
    """As WSGI. `note` is told why somebody was refused."""

    def answer(status: str, document: object) -> Iterable[bytes]:
        body = json.dumps(document).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
    if asked == "GET /_/oidc/audience":
        return answer("200 OK", {"audience": minting.audience})
    if asked != "POST /_/oidc/mint-token":
        return answer("405 Method Not Allowed", {"message": "GET /_/oidc/audience, POST /_/oidc/mint-token"})
    try:
        return answer("200 OK", minting.exchange(environ["wsgi.input"].read(LONGEST_BODY)))
    except Refused as refused:
        refusal = refused
    except (OSError, ValueError) as error:
        refusal = Refused("unavailable", "the users of this index cannot be read", str(error))
    note(refusal.note)
    status = "503 Service Unavailable" if refusal.code == "unavailable" else "422 Unprocessable Entity"
    errors = [{"code": refusal.code, "description": str(refusal)}]
    return answer(status, {"message": "Token request failed", "errors": errors})
