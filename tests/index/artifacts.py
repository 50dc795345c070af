"""Wheels and sdists of any shape, good and bad."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Mapping


def metadata(name: str, version: str, *extra: str) -> str:
    return "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *extra, "", "A package.", ""])


def wheel(
    name: str = "acme-tool",
    version: str = "1.0",
    *,
    filename: str = "",
    fields: tuple[str, ...] = ("Requires-Python: >=3.8",),
    content: bytes = b"answer = 42\n",
    members: Mapping[str, str | bytes] | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> tuple[str, bytes]:
    """File name and bytes of a wheel. `members` add to its files, replace them, or remove them (empty)."""
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"
    contents: dict[str, str | bytes] = {
        f"{stem.partition('-')[0]}/__init__.py": content,
        f"{stem}.dist-info/METADATA": metadata(name, version, *fields),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{stem}.dist-info/RECORD"
    contents[record] = "written last"
    contents.update({path.format(stem=stem): text for path, text in (members or {}).items()})
    if contents[record] == "written last":
        lines = [recorded(path, text) for path, text in contents.items() if text and path != record]
        contents[record] = "".join([*lines, f"{record},,\n"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for path, text in contents.items():
            if text:
                archive.writestr(zipfile.ZipInfo(path), text, compression)
    return filename or f"{stem}-py3-none-any.whl", buffer.getvalue()


def recorded(path: str, text: str | bytes) -> str:
    """A file's line in RECORD (binary distribution format)."""
    content = text.encode() if isinstance(text, str) else text
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def tar(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in members.items():
            content = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sdist(
    name: str = "acme-tool", version: str = "1.0", *, filename: str = "", content: bytes = b""
) -> tuple[str, bytes]:
    """File name and bytes of an sdist, named as PEP 625 has it unless told otherwise."""
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"
    members: dict[str, str | bytes] = {
        f"{stem}/PKG-INFO": metadata(name, version, "Requires-Python: >=3.9"),
        f"{stem}/data": content,
    }
    return filename or f"{stem}.tar.gz", gzip.compress(tar(members), mtime=0)
