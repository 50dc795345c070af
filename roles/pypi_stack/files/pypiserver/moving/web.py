"""Requests to an index: with a login for that index only, bounded in time and size.

The operator has chosen the index, and it may well be in a private network; but where its pages and redirects lead is its own
choice, so the login never goes along, and nothing leads from https to http.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from static_index.errors import Refusal

from .offers import Failed, Stopped, http_date

SECONDS = 30.0
"""In which something has to come."""
LARGEST_PAGE = 64 << 20
"""Bytes; the largest of PyPI's has a tenth of that."""
CHUNK = 1 << 20

_BROKEN = (OSError, http.client.HTTPException, ValueError)


class NotThere(Refusal):
    """404 or 410."""


class Body:
    """A response that is read once. TLS, length and time are looked after; whatever is wrong raises Failed."""

    def __init__(self, response: Any, url: str) -> None:
        self._response, self.url = response, url
        self.file: BinaryIO | None = None
        self.type = str(response.headers.get_content_type())
        length = response.headers.get("Content-Length", "")
        self.length = int(length) if length.isdigit() and len(length) < 16 else None
        self.uploaded_ns = http_date(response.headers.get("Last-Modified"))
        self._read = 0

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._response.read(size)
        except _BROKEN as error:
            raise Failed(f"{self.url} broke off: {error or type(error).__name__}") from None
        self._read += len(data)
        if not data and self.length is not None and self._read != self.length:
            raise Failed(f"{self.url} broke off after {self._read} of {self.length} bytes")
        return data

    def whole(self, limit: int) -> bytes:
        parts: list[bytes] = []
        while chunk := self.read(min(CHUNK, limit + 1)):
            parts.append(chunk)
            if self._read > limit:
                raise Failed(f"{self.url} is longer than {limit} bytes")
        return b"".join(parts)


class Web:
    """GET requests to an index and to where it points. `ca` is PEM; `proxy` has URLs as http and https, and a list as no_proxy."""

    def __init__(
        self, index: str, username: str = "", password: str = "", ca: str = "", proxy: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(index)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise Stopped(
                "it is no address such as https://nexus.example.com/repository/pypi/simple/ without a password"
            )
        self._own = _origin(parts)
        self._login = f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}" if username else ""
        try:
            tls = ssl.create_default_context(cadata=ca or None)
            if ca:
                tls.load_default_certs()
        except ssl.SSLError as error:
            raise Stopped(f"move_in_ca_file holds no certificates: {error}") from None
        self._opener = urllib.request.OpenerDirector()  # the usual one also reads files, and FTP
        for handler in (
            _Proxies(dict(proxy or {})),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=tls),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(self),
        ):
            self._opener.add_handler(handler)

    def request(self, url: str, accept: str) -> urllib.request.Request:
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        request = urllib.request.Request(parts._replace(path=path, fragment="").geturl())
        request.add_header("Accept", accept)
        request.add_header("User-Agent", "private-pypi")
        if self._login and _origin(parts) == self._own:
            request.add_unredirected_header("Authorization", self._login)
        return request

    @contextmanager
    def get(self, url: str, accept: str = "*/*") -> Iterator[Body]:
        """The answer after redirects. NotThere, Stopped if nobody may read it, Failed for the rest."""
        try:
            response = self._opener.open(self.request(url, accept), timeout=SECONDS)
        except HTTPError as error:
            error.close()
            raise _refused(error, url) from None
        except ssl.SSLCertVerificationError as error:
            raise _untrusted(error) from None
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise _untrusted(error.reason) from None
            raise Failed(f"{url}: {error.reason}") from None
        except _BROKEN as error:
            raise Failed(f"{url}: {error or type(error).__name__}") from None
        with response:
            yield Body(response, response.geturl())


class _Proxies(urllib.request.ProxyHandler):
    """urllib looks for exceptions in the environment only, where a password would be seen."""

    def __init__(self, proxies: dict[str, str]) -> None:
        self._except = {"no": proxies.pop("no_proxy", "")}
        super().__init__({scheme: url for scheme, url in proxies.items() if url})

    def proxy_open(self, req: urllib.request.Request, proxy: str, type: str) -> Any:
        if urllib.request.proxy_bypass_environment(req.host, self._except):  # type: ignore[attr-defined]
            return None
        return super().proxy_open(req, proxy, type)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, web: Web) -> None:
        self._web = web

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request:
        target = urlsplit(urljoin(req.full_url, newurl))
        if target.scheme != "https" and (req.type == "https" or target.scheme != "http"):
            raise HTTPError(req.full_url, code, f"it redirects from {req.type} to {target.scheme}", headers, fp)
        return self._web.request(target.geturl(), req.get_header("Accept", "*/*"))


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _refused(error: HTTPError, url: str) -> Exception:
    if error.code in (404, 410):
        return NotThere(f"{url} is not there ({error.code})")
    if error.code in (401, 403):
        return Stopped(f"{url} answers {error.code} {error.reason}: give move_in_username and move_in_password")
    return Failed(f"{url} answers {error.code} {error.reason}")


def _untrusted(error: ssl.SSLCertVerificationError) -> Stopped:
    return Stopped(f"its certificate is not trusted ({error.verify_message}): give its CA as move_in_ca_file")
