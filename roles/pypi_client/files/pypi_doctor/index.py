"""What the index says, from its name to the rights of a login: the first that is wrong ends it."""

from __future__ import annotations

import configparser
import http.client
import netrc
import os
import re
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from .findings import Finding, Trouble
from .settings import Environment, address, bundles, home, shown

PATIENCE = 10
"""Seconds for each answer."""
SKEW = 300
"""Seconds that the clocks may differ."""
VERIFY = {9: 16, 10: 15, 62: 14, 64: 14}
"""OpenSSL's X509_V_ERR_… to the finding; any other is 13."""
BETWEEN = "see the address, and what is in between"


class Index:
    """Every question has a connection of its own, as a tool that was just started."""

    def __init__(self, url: str, env: Environment) -> None:
        parts = urlsplit(url)
        self.url, self.scheme, self.host = url, parts.scheme, parts.hostname or ""
        self.path = f"{parts.path.rstrip('/')}/"
        self.port = parts.port or {"https": 443}.get(parts.scheme, 80)
        self.where = f"{self.host}:{self.port}"
        self._ca = next((bundle.value for bundle in reversed(bundles(env)) if os.path.exists(bundle.value)), None)
        # Of this process's own environment.
        self._proxy = "" if proxy_bypass(self.host) else getproxies().get(self.scheme, "")

    def reach(self) -> None:
        """Name, port and certificate."""
        if not self._proxy:
            try:
                socket.getaddrinfo(self.host, self.port)
            except OSError as error:
                fix = "see DNS, /etc/hosts, and whether the VPN is up"
                raise Trouble(11, f"{self.host} has no address here: {error}", fix) from None
        self._connected(self._ca).close()

    def trusted_by(self, bundle: str) -> bool:
        try:
            self._connected(bundle).close()
        except (Trouble, OSError):
            return False
        return True

    def ask(self, method: str, path: str, login: str = "", body: bytes = b"", kind: str = "") -> tuple[int, str, str]:
        """Status, reason, and the header Date."""
        connection = http.client.HTTPConnection(self.host, self.port)
        connection.sock = self._connected(self._ca)
        headers = {name: value for name, value in (("Authorization", login), ("Content-Type", kind)) if value}
        try:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(20, f"{self.where} breaks off: {type(error).__name__} {error}", BETWEEN) from None
        finally:
            connection.close()
        if answer.status >= 500:
            fix = "on the server: docker compose --project-directory /opt/pypi ps"
            raise Trouble(21, f"{self.where} says {answer.status} {answer.reason}", fix)
        return answer.status, answer.reason, answer.headers.get("Date", "")

    def _connected(self, bundle: str | None) -> socket.socket:
        sock = self._tunnel() if self._proxy else self._dial()
        if self.scheme != "https":
            return sock
        try:
            return ssl.create_default_context(cafile=bundle).wrap_socket(sock, server_hostname=self.host)
        except ssl.SSLCertVerificationError as error:
            code = VERIFY.get(error.verify_code, 13)
            clock = f"have it renewed on the server (site.yml), if it really is {time.strftime('%Y-%m-%d %H:%M')} now"
            store = f"put the index's CA into {bundle or 'the store of this machine'} (README: Using it)"
            fix = {14: "use the name that it is for (pypi_hostname)", 15: clock, 16: clock}.get(code, store)
            raise Trouble(code, f"{self.where}: {error.verify_message}", fix) from None
        except OSError as error:
            raise Trouble(17, f"no TLS with {self.where}: {error}", BETWEEN) from None

    def _dial(self) -> socket.socket:
        try:
            return socket.create_connection((self.host, self.port), PATIENCE)
        except OSError as error:
            fix = "see whether the server is up, its port open (firewall, security group), and the VPN up"
            raise Trouble(12, f"{self.where} does not answer: {error}", fix) from None

    def _tunnel(self) -> socket.socket:
        """Through the HTTP proxy (RFC 9110, 9.3.6)."""
        parts = urlsplit(self._proxy if "//" in self._proxy else f"//{self._proxy}")
        fix = f"put {self.host} into no_proxy, or have the proxy let you through"
        lines = [f"CONNECT {self.where} HTTP/1.1", f"Host: {self.where}"]
        if parts.username:
            lines.append(f"Proxy-Authorization: {basic(unquote(parts.username), unquote(parts.password or ''))}")
        try:
            sock = socket.create_connection((parts.hostname or "", parts.port or 80), PATIENCE)
            sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            answer = http.client.HTTPResponse(sock, method="CONNECT")
            answer.begin()
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(19, f"the proxy {shown(self._proxy)} does not answer: {error}", fix) from None
        if answer.status != 200:
            sock.close()
            raise Trouble(19, f"the proxy {shown(self._proxy)} says {answer.status} {answer.reason}", fix)
        return sock


def basic(name: str, password: str) -> str:
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def login(host: str, env: Environment) -> str:
    """The header that pip and uv send."""
    path = Path(env.get("NETRC") or home(env) / ".netrc")
    fix = f"machine {host} login NAME password … on a line of it, mode 0600"
    try:
        found = netrc.netrc(str(path)).authenticators(host)
    except FileNotFoundError:
        found = None
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        raise Trouble(30, f"{path} cannot be read: {getattr(error, 'msg', error)}", fix) from None
    if not found or not found[0]:
        raise Trouble(30, f"{path} has no login for {host}", fix)
    return basic(found[0], found[2] or "")


def upload_login(index: str, env: Environment) -> str:
    """twine's, where .pypirc has this index; otherwise the same."""
    parser = configparser.RawConfigParser()
    try:
        parser.read(home(env) / ".pypirc", "utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        parser.clear()
    for section in parser.sections():
        if address(parser.get(section, "repository", fallback="")) == address(_uploads(index)):
            return basic(parser.get(section, "username", fallback=""), parser.get(section, "password", fallback=""))
    return login(urlsplit(index).hostname or "", env)


def _uploads(index: str) -> str:
    return re.sub(r"simple/?$", "", index)


def look_at_index(index: Index, env: Environment, publish: bool, project: str) -> Iterator[Finding]:
    index.reach()
    status, reason, date = index.ask("HEAD", index.path)
    if status not in (200, 401):
        raise Trouble(20, f"{index.url} answers {status} {reason}, which the index never does", BETWEEN)
    if abs(ahead := _ahead(date)) > SKEW:
        what = f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the index's"
        yield Finding(18, what, "set both by NTP: timedatectl set-ntp true")
    for value, where in bundles(env) if index.scheme == "https" else []:
        if not index.trusted_by(value):
            what = f"{where} names {value}, by which the index is not trusted"
            yield Finding(43, what, "name the bundle of this machine, which has its CA")
    if status == 401:
        _judge(*index.ask("HEAD", index.path, login(index.host, env))[:2])
    if publish or project:
        kind, body = _refusable(project)
        status, reason, _ = index.ask("POST", _uploads(index.path), upload_login(index.url, env), body, kind)
        _judge(status, reason)
        if status == 403:
            code = 34 if project and project in reason else 33
            raise Trouble(code, f"the index says: {reason}", "ask its operator: pypi_users_accounts, role and projects")


def _ahead(date: str) -> float:
    """Seconds."""
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0


def _judge(status: int, reason: str) -> None:
    """`Unauthorized` and the like are of HTTP; a token is refused with the reason."""
    if status == 401 and "token" in reason:
        raise Trouble(32, f"the index says: {reason}", "have another one made (playbooks/token.yml) in place of it")
    if status == 401:
        raise Trouble(
            31, "name or password is wrong", "correct it in ~/.netrc; for uploads in ~/.pypirc, if that has one"
        )
    if status == 429:
        raise Trouble(31, f"the index says: {reason}", "wait a minute, and see what tries a wrong password")


def _refusable(project: str) -> tuple[str, bytes]:
    """Type and body of an upload that is never kept: it is no archive, and has another digest."""
    if not project:
        return "", b""
    part = '--doctor\r\nContent-Disposition: form-data; name="'
    form = {":action": "file_upload", "protocol_version": "1", "sha256_digest": "0" * 64}
    text = "".join(f'{part}{key}"\r\n\r\n{value}\r\n' for key, value in form.items())
    filename = f"{project.replace('-', '_')}-0-py3-none-any.whl"
    text += f'{part}content"; filename="{filename}"\r\n\r\nno archive\r\n--doctor--\r\n'
    return "multipart/form-data; boundary=doctor", text.encode()
