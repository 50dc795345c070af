"""The login of an index with an account that trusts a pipeline, and what its issuer signs."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from issuer import AUDIENCE, GITHUB, Key, verify
from test_login import write_users

import minting
from login import Login, Refused, make_application
from minted import Mint
from minting import Keys, Minting

RELEASE = {
    "kind": "github",
    "issuer": GITHUB,
    "repository": "acme/lib",
    "repository_id": "1234",
    "workflow": "release.yml",
    "environment": "production",
}
RSA, EC, OTHER = Key("rsa"), Key("ec", "ES256"), Key("rsa")


class Index:
    """The login of one, with an account that trusts a pipeline, and the keys of its issuer."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        """It waits for a key for 0.2 s, not for 5."""
        patch.setattr(minting, "PATIENCE", 0.2)
        self.directory = directory
        for name in ("users", "minted"):
            (directory / name).mkdir()
        self.trusting({"release": RELEASE})
        self.publish(RSA, EC)
        self.signatures, self.nginx_is_down = 0, False
        self.restart()

    def restart(self) -> None:
        self.mint = Mint(self.directory / "minted")
        self.login = Login(self.directory / "users", mint=self.mint)
        self.keys = Keys(self.directory / "keys.json", self.directory / "minted/asked")
        self.application = make_application(
            self.login, Minting(self.login.users, self.mint, self.keys, AUDIENCE, self.verify)
        )

    def verify(self, *about: Any) -> bool:
        self.signatures += 1
        if self.nginx_is_down:
            raise ConnectionRefusedError
        return verify(*about)

    def trusting(self, trusted: dict[str, Any], **entry: Any) -> None:
        roles = {
            name: {"role": "publisher", "projects": ["acme-*"], "trusted": each, **entry}
            for name, each in trusted.items()
        }
        write_users(self.directory / "users", {"alice": "wonderland"}, {**roles, "alice": {"role": "publisher"}})

    def publish(self, *keys: Key, issuer: str = GITHUB, fetched: float | None = None) -> None:
        self.publish_all({issuer: [key.jwk for key in keys]}, fetched)

    def publish_all(self, keys: dict[str, list[Any]], fetched: float | None = None) -> None:
        when = time.time() if fetched is None else fetched
        known = {issuer: {"fetched": when, "keys": of_one} for issuer, of_one in keys.items()}
        (self.directory / "keys.new").write_text(json.dumps(known))
        (self.directory / "keys.new").rename(self.directory / "keys.json")

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        said: list[str] = []
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
        answer = b"".join(self.application(environ, lambda status, _headers: said.append(status)))
        return int(said[0][:3]), json.loads(answer)

    def exchange(self, token: object) -> tuple[int, Any]:
        return self.ask("POST", "/_/oidc/mint-token", json.dumps({"token": token}).encode())

    def minted(self, token: str) -> str:
        status, answer = self.exchange(token)
        assert status == 200, answer
        return str(answer["token"])

    def refused(self, token: object) -> tuple[str, str]:
        """Code and description."""
        status, answer = self.exchange(token)
        assert answer["message"] == "Token request failed", answer
        (error,) = answer["errors"]
        assert status == (503 if error["code"] == "unavailable" else 422)
        return error["code"], error["description"]


def use(index: Index, token: str) -> str:
    """Whom it lets in, or why not."""
    try:
        account = index.login.check("__token__", token.encode())
    except Refused as refused:
        return str(refused)
    return account.name if account else ""
