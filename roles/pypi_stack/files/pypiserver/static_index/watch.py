"""What changes in a directory, told by the kernel (inotify(7)), or found by looking where it cannot tell."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from pathlib import Path

_CHANGES = (
    0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200
)  # modified, attributes, written, moved from and to, created, deleted
_ENDED = 0x400 | 0x800 | 0x2000 | 0x8000  # the directory deleted, moved or unmounted, the watch ended
_LOST = 0x4000
_EVENT = struct.Struct("iIII")
_BUFFER = 64 << 10


class CannotTell(Exception):
    """Something changed, and nobody knows what: look at everything."""


class Events:
    """Names that were created, written, removed or renamed in a directory, by anybody on this machine.

    Raises OSError where there is no inotify, or no instance of it left (fs.inotify.max_user_instances).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(directory), _CHANGES) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(directory))

    def since(self) -> set[str]:
        """Names since the last call. CannotTell if some were lost, OSError if the directory is another one now."""
        names: set[str] = set()
        while select.select([self._fd], [], [], 0)[0]:
            data, at = os.read(self._fd, _BUFFER), 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                if mask & _ENDED:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self._directory))
                if mask & _LOST:
                    raise CannotTell
                names.add(os.fsdecode(data[at - length : at].rstrip(b"\0")))
        return names

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Stamp:
    """Whether a directory may have changed since it was last asked about, by its mtime."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, 0

    def since(self) -> bool:
        before, now = self._stamp, self._path.stat().st_mtime_ns
        self._stamp = now if time.time_ns() - now > 1_000_000_000 else 0  # clocks tick: a fresh stamp may hide a change
        return now != before
