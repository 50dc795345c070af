"""Makes a wheel by hand: any size, a payload that does not compress, and a RECORD that pip verifies.

As a program: packages.py NAME VERSION BYTES DIRECTORY
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path


def make_wheel(name: str, version: str, size: int, directory: Path) -> Path:
    """A wheel of exactly `size` bytes or, where that is too little for its metadata, the smallest there is."""
    module = name.replace("-", "_")
    path = directory / f"{module}-{version}-py3-none-any.whl"
    _write(path, module, name, version, b"")
    # The payload's own length stands in no other member (RECORD pads it), so the rest stays as it is.
    _write(path, module, name, version, os.urandom(max(0, size - path.stat().st_size)))
    return path


def _write(path: Path, module: str, name: str, version: str, payload: bytes) -> None:
    info = f"{module}-{version}.dist-info"
    members = {
        f"{module}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{module}/payload": payload,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: A test.\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{member},sha256={_digest(data)},{len(data):010d}\n" for member, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    print(make_wheel(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
