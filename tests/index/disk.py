"""The disks of a server, each in a file, and what a power cut leaves of them.

A file is what the loop device has been given so far, so a copy of it is the disk at that moment: what the kernel still holds
back is not in it. The mount options take away what ext4 does for programs that forget fsync, as other file systems do not do it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PARTS = ("packages", "index")
"""One disk each, as where the packages are on a volume of their own: syncing the one does nothing for the other."""
BYTES = 16 << 20
OPTIONS = "loop,data=writeback,noauto_da_alloc,commit=600"


@dataclass(frozen=True)
class Disks:
    """`directory` holds the files and, when they are mounted, the parts."""

    directory: Path

    def image(self, part: str) -> Path:
        return self.directory / f"{part}.img"

    def make(self) -> Disks:
        """New and empty ones."""
        self.directory.mkdir()
        now = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left to be written later
        for part in PARTS:
            with self.image(part).open("wb") as file:
                file.truncate(BYTES)
            subprocess.run(["mkfs.ext4", "-q", "-E", now, self.image(part)], check=True)
        return self

    def copy(self, target: Path) -> Disks:
        """What is on the disks now. Asked while they are mounted, it is what a power cut leaves.

        In new files: whatever makes a mount namespace meanwhile (an engine that starts a container) holds a disk for a while after
        it was unmounted here, and the next mount of the same file would be that one.
        """
        target.mkdir()
        copies = Disks(target)
        for part in PARTS:
            shutil.copyfile(self.image(part), copies.image(part))
        return copies

    def discard(self) -> None:
        """They are not needed any more."""
        shutil.rmtree(self.directory)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        with ExitStack() as stack:
            for part in PARTS:
                root = self.directory / part
                root.mkdir(exist_ok=True)
                subprocess.run(["mount", "-o", OPTIONS, self.image(part), root], check=True)
                stack.callback(subprocess.check_call, ["umount", root])
            yield self.directory

    def write_names(self) -> None:
        """Commit the journals: names are written then, but no bytes that nobody has synced."""
        for part in PARTS:
            fd = os.open(self.directory / part, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
