"""Upload forms, however they are cut into pieces, and those that are none."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from static_index import form
from static_index.errors import Refusal
from static_index.form import Body, Form


class Pieces(io.RawIOBase):
    """A body that comes in pieces of the given sizes, and then in whatever is asked for."""

    def __init__(self, content: bytes, sizes: Iterator[int]) -> None:
        self._content, self._sizes = io.BytesIO(content), sizes

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, next(self._sizes, size)))


def read(content: bytes, content_type: str, sizes: tuple[int, ...] = (), **environ: str) -> tuple[Form, bytes]:
    file = io.BytesIO()
    environment: Mapping[str, object] = {
        "wsgi.input": Pieces(content, iter(sizes)),
        "CONTENT_LENGTH": str(len(content)),
        **environ,
    }
    return form.read(Body(environment), content_type, (":action", "name"), "content", file.write), file.getvalue()


@given(
    content=st.binary(max_size=300) | st.lists(st.sampled_from([b"\r\n", b"--", b"b", b"\r", b"\n"])).map(b"".join),
    filename=st.from_regex(r"[a-z]{1,8}\.whl", fullmatch=True),
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    sizes=st.lists(st.integers(1, 9), max_size=80).map(tuple),
    boundary=st.sampled_from(["bound", "-", "--x", "a'()+_,./:=? b"]),
)
def test_what_urllib3_writes_is_read(
    content: bytes, filename: str, name: str, sizes: tuple[int, ...], boundary: str
) -> None:
    fields: list[tuple[str, str | tuple[str, bytes]]] = [
        ("skipped", "x"),
        ("name", name),
        ("content", (filename, content)),
    ]
    body, content_type = encode_multipart_formdata([*fields, (":action", "file_upload")], boundary)
    if b"\r\n--" + boundary.encode() in b"\r\n" + content + b"\r\n":
        return  # no client chooses a boundary that is in what it sends
    content_type = f'multipart/form-data; boundary="{boundary}"'
    got, file = read(body, content_type, sizes)
    assert (got.fields, got.filename, file) == ({"name": name, ":action": "file_upload"}, filename, content)


@given(content=st.binary(max_size=200), sizes=st.lists(st.integers(1, 9), max_size=50).map(tuple))
def test_whatever_else_is_read_or_refused(content: bytes, sizes: tuple[int, ...]) -> None:
    for content_type in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded", ""):
        for body in (
            content,
            b"--b\r\n" + content,
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + content,
        ):
            try:
                read(body, content_type, sizes)
            except Refusal:
                pass


PART = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
FILE = PART % (b"content", b'; filename="x.whl"', b"x")
REFUSED = {
    "two files": (FILE + FILE + b"--b--", "two files in one upload"),
    "a field twice": (PART % (b"name", b"", b"a") + PART % (b"name", b"", b"b") + b"--b--", "name is there twice"),
    "a long field": (PART % (b"name", b"", b"x" * 9_000) + b"--b--", "name of more than 8192 bytes"),
    "a long header": (b"--b\r\nX: " + b"x" * 9_000 + b"\r\n\r\n\r\n--b--", "headers of a part of more than 8192 bytes"),
    "too many parts": (PART % (b"c", b"", b"x") * 5_000 + b"--b--", "more than 4096 parts"),
    "no end": (FILE, "it has no end"),
    "no name": (PART % (b"content", b'; filename=""', b"x") + b"--b--", "has no name"),
    "a boundary inside": (PART % (b"name", b"", b"\r\n--bc\r\n\r\n") + b"--b--", "a part of what is sent"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        read(body, "multipart/form-data; boundary=b")


def test_what_is_cut_off_is_refused_also_behind_a_whole_form() -> None:
    """RFC 9112, 6.3: the body is as long as its Content-Length says, or it is none."""
    with pytest.raises(Refusal, match="broke off, 7 bytes before its end"):
        read(FILE + b"--b--", "multipart/form-data; boundary=b", CONTENT_LENGTH=str(len(FILE) + 12))


def test_a_form_without_a_length_ends_where_the_server_says() -> None:
    got, file = read(
        FILE + b"--b--", "multipart/form-data; boundary=b", CONTENT_LENGTH="", HTTP_TRANSFER_ENCODING="chunked"
    )
    assert (got.filename, file) == ("x.whl", b"x")


def test_a_form_costs_the_memory_of_a_chunk() -> None:
    content = PART % (b"description", b"", bytes(50 << 20)) + b"--b--"
    body = Body({"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))})
    tracemalloc.start()
    form.read(body, "multipart/form-data; boundary=b", ("name",), "content", lambda _data: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
