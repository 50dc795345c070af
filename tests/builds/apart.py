"""Takes bytes apart in search of secrets: archives in archives, down to what is none.

As a program it reads {"directories": […], "since": SECONDS, "needles": […]} and prints which of their files that changed since then have
one of the needles. (As arguments they would be in the engine's records of this very program.)
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

BROKEN = (EOFError, OSError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error)


def parts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """What an archive or a compressed file has inside; of anything else nothing."""
    if data.startswith(b"\x1f\x8b"):
        yield "gzip", gzip.decompress(data)
    elif data.startswith(b"\xfd7zXZ\0"):
        yield "xz", lzma.decompress(data)
    elif data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name, archive.read(name)
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as members:
            for member in members:
                if file := members.extractfile(member) if member.isfile() else None:
                    yield member.name, file.read()


def found_in(data: bytes, needles: Iterable[bytes], name: str = "") -> list[str]:
    """Where in it a needle is, as a path."""
    found = [name] if any(needle in data for needle in needles) else []
    with suppress(*BROKEN):  # it only began like one
        for part, content in parts(data):
            found += found_in(content, needles, f"{name}/{part}")
    return found


def changed(root: Path, since: float) -> Iterator[Path]:
    """The files whose content, owner or name changed since then (ctime, which no program can set).

    What is mounted there belongs to containers that run, and so do volumes.
    """
    for base, directories, names in os.walk(root):
        directories[:] = [
            name
            for name in directories
            if not (name == "volumes" and Path(base) == root) and not os.path.ismount(f"{base}/{name}")
        ]
        for path in (Path(base, name) for name in names):
            with suppress(FileNotFoundError):  # gone meanwhile
                seen = path.lstat()
                if stat.S_ISREG(seen.st_mode) and seen.st_ctime >= since:
                    yield path


def main() -> None:
    asked = json.load(sys.stdin)
    needles = [needle.encode() for needle in asked["needles"]]
    for directory in asked["directories"]:
        for path in changed(Path(directory), asked["since"]):
            with suppress(FileNotFoundError):
                for found in found_in(path.read_bytes(), needles, str(path)):
                    print(found)


if __name__ == "__main__":
    main()
