"""Requests to one upstream: bounded in time and memory, over connections that are kept.

An address is resolved here and that address is connected to, so that no name leads into a network that is not public, be it by
a redirect, by a page or by an answer of DNS that changes. Behind an HTTP proxy names are resolved by the proxy, and only literal
addresses can be judged.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from .config import Network, Upstream
from .errors import Busy, Failed, Late, Refusal

REDIRECTS = 5
CHUNK = 1 << 16
IDLE = 15.0
"""Seconds after which a connection that nobody uses is not used again."""
SPARE = 16
"""Connections to one host that are kept."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HEADERS = {"User-Agent": "private-pypi", "Connection": "keep-alive"}
_BROKEN = (OSError, http.client.HTTPException, ValueError)


class _Watch:
    """Breaks a connection off when its time is up, whatever its thread is waiting for."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self.expired = False
        self._socket = sock
        self._timer = threading.Timer(max(seconds, 0), self._expire)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # past ssl's own, which is not for two threads


class _Line:
    """A connection to a host, and since when nobody uses it."""

    def __init__(self, connection: http.client.HTTPConnection, sock: socket.socket) -> None:
        self.connection, self.socket, self.since = connection, sock, 0.0

    def close(self) -> None:
        self.connection.close()
        self.socket.close()


class Answer:
    """A response whose body is still to be read."""

    def __init__(
        self, transport: Transport, line: _Line, key: _Key, response: http.client.HTTPResponse, url: str, watch: _Watch
    ) -> None:
        self.status, self.reason, self.headers, self.url = response.status, response.reason, response.headers, url
        self._transport, self._line, self._key = transport, line, key
        self._response, self._watch = response, watch

    @property
    def length(self) -> int | None:
        """What the header says of the body."""
        return None if self._response.chunked else self._response.length

    @property
    def name(self) -> str:
        return self._transport.upstream.name

    def chunks(self, limit: int) -> Iterator[bytes]:
        """The body as it comes in; a refusal if it is longer than `limit` bytes, shorter than it said, or late."""
        expected, size = self.length, 0
        if expected is not None and expected > limit:
            raise Failed(f"{self.name} sends {expected} bytes; {limit} are allowed")
        while True:
            try:
                chunk = self._response.read1(CHUNK)
            except _BROKEN as error:
                raise self._transport.failure(error, self._watch.expired) from None
            if self._watch.expired:
                raise self._transport.failure(TimeoutError(), True)
            if not chunk:
                break
            size += len(chunk)
            if size > limit:
                raise Failed(f"{self.name} sends more than {limit} bytes")
            yield chunk
        if expected is not None and size != expected:
            raise Failed(f"{self.name} broke off after {size} of {expected} bytes")

    def unpacked(self, body: IO[bytes], limit: int) -> bytes:
        """What the file holds, which is this answer's body as it came; at most `limit` bytes."""
        body.seek(0)
        if self.headers.get("Content-Encoding", "identity").lower() not in ("gzip", "x-gzip"):
            return body.read()
        unpack, parts, size = zlib.decompressobj(wbits=31), [], 0
        try:
            while chunk := body.read(CHUNK):
                parts.append(unpack.decompress(chunk, limit + 1 - size))
                size += len(parts[-1])
                if size > limit:
                    raise Failed(f"{self.name} sends more than {limit} bytes, unpacked")
        except zlib.error as error:
            raise Failed(f"{self.name} sends broken gzip: {error}") from None
        if not unpack.eof:
            raise Failed(f"{self.name} broke off in the middle of gzip")
        return b"".join(parts)

    def close(self, keep: bool) -> None:
        """`keep` the connection if nothing is wrong with it."""
        self._watch.cancel()
        whole = self._response.isclosed() or self._response.length == 0
        self._response.close()
        if keep and whole and not self._response.will_close and not self._watch.expired:
            self._transport.give_back(self._key, self._line)
        else:
            self._line.close()


_Key = tuple[str, str, int]


class Transport:
    """GET requests to an upstream and to where its pages and redirects point."""

    def __init__(self, upstream: Upstream, timeout: float) -> None:
        """`timeout`: seconds for a connection to stand, and in which something has to come."""
        self.upstream, self._timeout = upstream, timeout
        self._own = _key(urlsplit(upstream.url))
        self._tls = ssl.create_default_context()
        if upstream.ca_file:
            self._tls.load_verify_locations(upstream.ca_file)
        self._proxy = urlsplit(upstream.proxy) if upstream.proxy else None
        self._spare: dict[_Key, list[_Line]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], seconds: float) -> Iterator[Answer]:
        """Ask, follow redirects, and give back what is neither redirect nor failure: 200, 304, 404 or 410.

        `seconds`: until the body has to be read.
        """
        answer, keep = self._follow(url, headers, time.monotonic() + seconds), False
        try:
            yield answer
            keep = True
        finally:
            answer.close(keep)

    def _follow(self, url: str, headers: Mapping[str, str], end: float) -> Answer:
        for _ in range(REDIRECTS + 1):
            answer = self._ask(url, headers, end)
            if answer.status in (200, 304, 404, 410):
                return answer
            location, wait = answer.headers.get("Location"), answer.headers.get("Retry-After", "")
            try:
                for _chunk in answer.chunks(CHUNK):  # an error page is short, and then the connection can be kept
                    pass
            except Refusal:
                answer.close(keep=False)
            else:
                answer.close(keep=True)
            if answer.status in (301, 302, 303, 307, 308) and location:
                url = self._redirected(url, location)
            elif answer.status == 429:
                pause = int(wait) if wait.isdigit() and len(wait) < 5 else 30
                raise Busy(f"{self.upstream.name} asks to come back later (429)", max(1, pause))
            else:
                raise Failed(f"{self.upstream.name} answers {answer.status} {_printable(answer.reason)}".rstrip())
        raise Failed(f"{self.upstream.name} redirects more than {REDIRECTS} times")

    def give_back(self, key: _Key, line: _Line) -> None:
        line.since = time.monotonic()
        with self._lock:
            spare = self._spare.setdefault(key, [])
            if len(spare) < SPARE:
                return spare.append(line)
        line.close()
        return None

    def failure(self, error: Exception, expired: bool) -> Refusal:
        """What went wrong, with the upstream's name."""
        if expired or isinstance(error, TimeoutError):
            return Late(f"{self.upstream.name} takes too long")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Failed(f"{self.upstream.name}: certificate not trusted: {_printable(error.verify_message)}")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Failed(f"{self.upstream.name} cannot be read: {_printable(reason)}")

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            parts = urlsplit(target)
            _key(parts)
        except ValueError:
            raise Failed(f"{self.upstream.name} redirects to something that is no address") from None
        if urlsplit(url).scheme == "https" and parts.scheme != "https":
            raise Failed(f"{self.upstream.name} redirects from https to {_printable(parts.scheme)}")
        return target

    def _ask(self, url: str, headers: Mapping[str, str], end: float) -> Answer:
        try:
            parts = urlsplit(url)
            key = _key(parts)
        except ValueError as error:
            raise Failed(f"{self.upstream.name}: {error}") from None
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        host = parts.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        sent = {**_HEADERS, "Accept-Encoding": "identity", **headers, "Host": shown}
        if parts.port:
            sent["Host"] += f":{parts.port}"
        if key == self._own and self.upstream.username + self.upstream.password:
            sent["Authorization"] = _basic(self.upstream.username, self.upstream.password)
        if self._proxy and parts.scheme == "http":
            target = f"http://{sent['Host']}{target}"
            if self._proxy.username:
                sent["Proxy-Authorization"] = _basic(unquote(self._proxy.username), unquote(self._proxy.password or ""))
        while True:
            line = self._take(key)
            fresh = line is None
            watch = None
            try:
                if line is None:
                    line, watch = self._reach(key, end)
                else:
                    watch = _Watch(line.socket, end - time.monotonic())
                line.socket.settimeout(self._timeout)
                line.connection.request("GET", target, headers=sent)
                response = line.connection.getresponse()
                return Answer(self, line, key, response, url, watch)
            except _BROKEN as error:
                expired = watch is not None and watch.expired
                if watch:
                    watch.cancel()
                if line:
                    line.close()
                # A connection that was kept may have been closed by the other side meanwhile.
                gone = isinstance(error, ConnectionError | http.client.BadStatusLine | ssl.SSLError)
                if fresh or expired or not gone:
                    raise self.failure(error, expired) from None

    def _take(self, key: _Key) -> _Line | None:
        with self._lock:
            spare = self._spare.get(key, [])
            while spare:
                line = spare.pop()
                if time.monotonic() - line.since < IDLE:
                    return line
                line.close()
        return None

    def _reach(self, key: _Key, end: float) -> tuple[_Line, _Watch]:
        try:
            return self._connect(key, end)
        except _BROKEN as error:
            raise _away(self.failure(error, False)) from None
        except Late as error:
            raise _away(error) from None

    def _connect(self, key: _Key, end: float) -> tuple[_Line, _Watch]:
        scheme, host, port = key
        if self._proxy:
            with suppress(ValueError):
                self._refuse_private([ipaddress.ip_address(host)], host)
            sock = self._dial(_addresses(self._proxy.hostname or "", self._proxy.port or 80), end)
        else:
            found = _addresses(host, port)
            public = [entry for entry in found if public_address(_ip(entry), self.upstream.private)]
            if not public:
                self._refuse_private([_ip(entry) for entry in found], host)
            sock = self._dial(public, end)
        watch = _Watch(sock, end - time.monotonic())
        try:
            sock.settimeout(self._timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                if self._proxy:
                    self._tunnel(sock, host, port)
                sock.settimeout(self._timeout)
                wrapped = self._tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                watch._socket = sock = wrapped
                wrapped.do_handshake()
        except _BROKEN as error:
            watch.cancel()
            sock.close()
            raise self.failure(error, watch.expired) from None
        connection = http.client.HTTPConnection(host, port)
        connection.auto_open = 0
        connection.sock = sock
        return _Line(connection, sock), watch

    def _dial(self, addresses: list[_Address], end: float) -> socket.socket:
        last: Exception = OSError("no address")
        for family, address in addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(max(0.1, min(self._timeout, end - time.monotonic())))
            try:
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                last = error
                if time.monotonic() > end:
                    break
        raise last

    def _tunnel(self, sock: socket.socket, host: str, port: int) -> None:
        """Through the HTTP proxy (RFC 9110, 9.3.6)."""
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}"]
        if self._proxy and self._proxy.username:
            credential = _basic(unquote(self._proxy.username), unquote(self._proxy.password or ""))
            lines.append(f"Proxy-Authorization: {credential}")
        sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        response = http.client.HTTPResponse(sock, method="CONNECT")
        response.begin()
        if response.status != 200:
            raise http.client.HTTPException(f"the proxy answers {response.status} {_printable(response.reason)}")

    def _refuse_private(self, addresses: list[_IP], host: str) -> None:
        for address in addresses:
            if not public_address(address, self.upstream.private):
                raise Failed(
                    f"{self.upstream.name} points to {_printable(host)}, {address}: not a public address"
                    " (allow_private_addresses of the upstream lets it through)"
                )


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_Address = tuple[socket.AddressFamily, tuple[str, int]]


def public_address(address: _IP, allowed: tuple[Network, ...]) -> bool:
    """Whether an address is nobody's own network, also when it is packed into another one, or is allowed by name."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner:
            return public_address(inner, allowed)
    return address.is_global and not address.is_multicast


def _addresses(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc]


def _ip(entry: _Address) -> _IP:
    return ipaddress.ip_address(entry[1][0].partition("%")[0])


def _key(parts: SplitResult) -> _Key:
    """Scheme, host and port; a ValueError for what is no address of a web server."""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address that is neither http nor https")
    if parts.username or parts.password:
        raise ValueError("an address with a password in it")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _away(refusal: Refusal) -> Refusal:
    refusal.away = True
    return refusal


def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _printable(text: object) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in str(text))[:120]
