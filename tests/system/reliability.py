"""docs/reliability.md: what each fault cost whom, written by the run that measured it (`make reliability`)."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPORT = os.environ.get("RELIABILITY_REPORT", "")
"""Where the table is to be written, by a run that makes all of the faults."""

HEAD = """# What faults cost

Written by `make reliability`, on {date}, on {cores} cores with {memory:.0f} GB ({kernel}). A server of the lab, pypiserver and nginx as site.yml leaves them.
One client reads a file every 20 ms and one publishes a small wheel every 100 ms, through TLS and with a password. **They never try again**, unlike pip, uv and twine.
*Longest* is the longest time between two good answers. *Lost* are files that the index had acknowledged and that are not on their page,
byte by byte, afterwards.

| Fault | Failed reads | Longest | Failed uploads | Longest | Lost | What is said |
|---|--:|--:|--:|--:|--:|---|
"""


@dataclass(frozen=True)
class Row:
    fault: str
    reads: tuple[int, int]
    """Failed, of how many."""
    read_pause: float
    """Seconds."""
    uploads: tuple[int, int]
    upload_pause: float
    lost: int
    says: str

    def __str__(self) -> str:
        of = "{} of {}".format
        return (
            f"| {self.fault} | {of(*self.reads)} | {self.read_pause:.1f} s | {of(*self.uploads)} | {self.upload_pause:.1f} s"
            f" | {self.lost} | {self.says} |\n"
        )


def write(path: Path, rows: list[Row]) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    head = HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}", cores=os.cpu_count(), memory=memory, kernel=platform.release()
    )
    path.write_text(head + "".join(map(str, rows)) + Path(__file__).with_suffix(".md").read_text())
