"""Upload forms (multipart/form-data, RFC 7578), read as they come in: the file goes to its place beside the packages, once.

Fields that nobody asks for are read and forgotten, so a form costs the memory of one chunk however large it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import BinaryIO
from urllib.parse import parse_qsl

from .errors import Refusal

CHUNK = 64 << 10
MAX_FIELD = 8 << 10
"""Bytes of a field that is asked for, and of a part's headers."""
MAX_PARTS = 4_096
"""A classifier is a part, and so is a dependency."""

Sink = Callable[[bytes], object]


class Body:
    """The body of a request (a WSGI environment). It is read to its end exactly: what is cut off is refused (RFC 9112, 6.3)."""

    def __init__(self, environ: Mapping[str, object]) -> None:
        self._input: BinaryIO = environ["wsgi.input"]  # type: ignore[assignment]
        declared = str(environ.get("CONTENT_LENGTH") or "")
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        if declared and not declared.isdigit():
            raise Refusal("malformed Content-Length")
        self._left = None if chunked else int(declared or 0)  # None: the server knows where it ends (RFC 9112, 7.1)

    def read(self) -> bytes:
        """The next bytes, none at the end."""
        if self._left == 0:
            return b""
        data = self._input.read(CHUNK if self._left is None else min(CHUNK, self._left))
        if self._left is None:
            return data
        if not data:
            raise Refusal(f"the upload broke off, {self._left} bytes before its end")
        self._left -= len(data)
        return data

    def drop(self) -> None:
        """Read the rest: who is still sending would not hear the answer."""
        while self.read():
            pass


@dataclass
class Form:
    """The fields that were asked for, and the name of the file, if there was one."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None


def read(body: Body, content_type: str, wanted: Collection[str], file_field: str, file: Sink) -> Form:
    """Read a form; the file in `file_field` goes to `file`. Refusal for a malformed one."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() == "multipart/form-data":
        if not isinstance(boundary, str) or not re.fullmatch(r"[ -~]{1,200}", boundary):
            raise Refusal("malformed form: no boundary")
        return _Multipart(body, boundary.encode(), wanted, file_field, file).read()
    if header.get_content_type() == "application/x-www-form-urlencoded":
        return Form(_urlencoded(body, wanted))
    raise Refusal("an upload is a form: Content-Type has to be multipart/form-data")


def _urlencoded(body: Body, wanted: Collection[str]) -> dict[str, str]:
    data = b""
    while chunk := body.read():
        data += chunk
        if len(data) > MAX_FIELD:
            raise Refusal(f"form of more than {MAX_FIELD} bytes: send files as multipart/form-data")
    pairs = parse_qsl(data.decode("utf-8", "replace"), keep_blank_values=True)
    fields = {name: value for name, value in pairs if name in wanted}
    if len(fields) != sum(name in wanted for name, _ in pairs):
        raise Refusal("malformed form: a field is there twice")
    return fields


class _Multipart:
    """Reads one form (RFC 2046, 5.1.1)."""

    def __init__(self, body: Body, boundary: bytes, wanted: Collection[str], file_field: str, file: Sink) -> None:
        self._body, self._wanted, self._file_field, self._file = body, wanted, file_field, file
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first one may be the first line

    def read(self) -> Form:
        form = Form()
        self._until(self._delimiter, _forget)
        for _ in range(MAX_PARTS):
            self._fill(2)
            if self._buffer.startswith(b"--"):
                self._body.drop()
                return form
            self._read_part(self._headers(), form)
        raise Refusal(f"malformed form: more than {MAX_PARTS} parts")

    def _read_part(self, headers: Message, form: Form) -> None:
        name = headers.get_param("name", header="Content-Disposition")
        if name == self._file_field:
            if form.filename is not None:
                raise Refusal("two files in one upload: send one after the other")
            if not (filename := headers.get_filename()):
                raise Refusal(f"the file in {self._file_field} has no name")
            form.filename = filename
            self._until(self._delimiter, self._file)
        elif isinstance(name, str) and name in self._wanted:
            if name in form.fields:
                raise Refusal(f"malformed form: the field {name} is there twice")
            value = bytearray()
            self._until(self._delimiter, lambda data: _keep(value, data, name))
            form.fields[name] = value.decode("utf-8", "replace")
        else:
            self._until(self._delimiter, _forget)

    def _headers(self) -> Message:
        """Those of the part that begins here, behind the end of its delimiter's line."""
        head = bytearray()
        self._until(b"\r\n\r\n", lambda data: _keep(head, data, "headers of a part"))
        headers = Message()
        rest, *lines = head.decode("utf-8", "replace").split("\r\n")
        if rest.strip(" \t"):
            raise Refusal("malformed form: its boundary is a part of what is sent")
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                headers["Content-Disposition"] = value.strip()
        return headers

    def _until(self, mark: bytes, sink: Sink) -> None:
        """Everything before the next mark goes to the sink."""
        while (at := self._buffer.find(mark)) < 0:
            kept = len(mark) - 1  # the mark may have begun
            if len(self._buffer) > kept:
                sink(self._buffer[:-kept])
            self._buffer = self._buffer[-kept:] + self._more()
        sink(self._buffer[:at])
        self._buffer = self._buffer[at + len(mark) :]

    def _fill(self, length: int) -> None:
        while len(self._buffer) < length:
            self._buffer += self._more()

    def _more(self) -> bytes:
        if not (data := self._body.read()):
            raise Refusal("malformed form: it has no end")
        return data


def _forget(_data: bytes) -> None:
    pass


def _keep(value: bytearray, data: bytes, what: str) -> None:
    value += data
    if len(value) > MAX_FIELD:
        raise Refusal(f"malformed form: {what} of more than {MAX_FIELD} bytes")
