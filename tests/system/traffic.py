"""Clients that read and publish all the time and never try again: what they saw of a fault, and what it cost."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .lab import SURVIVOR, Edge, right, wait_until
from .packages import make_wheel


@dataclass
class Stream:
    """One client's requests, one after the other."""

    good: list[float] = field(default_factory=list)
    """When each ended, in seconds of the monotonic clock."""
    bad: list[str] = field(default_factory=list)
    """What went wrong instead."""

    def longest(self) -> float:
        """Seconds without a good one."""
        return max((after - before for before, after in zip(self.good, self.good[1:], strict=False)), default=0.0)


@dataclass
class Traffic:
    """What both clients saw so far."""

    edge: Edge
    reads: Stream = field(default_factory=Stream)
    uploads: Stream = field(default_factory=Stream)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file that the index said it has, by name."""

    def wait_for_both(self, seconds: float) -> None:
        """Until a read and an upload that began after this have ended well: of each two, for one may have been on its way."""
        reads, uploads = len(self.reads.good) + 2, len(self.uploads.good) + 2
        wait_until(
            "reads and uploads work",
            lambda: len(self.reads.good) >= reads and len(self.uploads.good) >= uploads,
            seconds,
        )

    def lost(self) -> list[str]:
        """The acknowledged files that are not on their page, or are other bytes."""
        page = self.edge.request("/simple/acme-traffic/", right("alice")).body.decode()
        return [
            name
            for name, digest in self.acknowledged.items()
            if name not in page
            or hashlib.sha256(self.edge.request(f"/packages/{name}", right("alice")).body).hexdigest() != digest
        ]


@contextmanager
def traffic(edge: Edge, directory: Path) -> Generator[Traffic]:
    """Reads every 20 ms and small uploads every 100 ms while the block runs; both work at its beginning and again at its end."""
    seen, end = Traffic(edge), threading.Event()
    generation = str(time.time_ns())

    def stream(of: Stream, pause: float, once: Callable[[int], str]) -> None:
        number = 0
        while not end.is_set():
            number += 1
            try:
                wrong = once(number)
            except (OSError, http.client.HTTPException) as error:
                wrong = f"{type(error).__name__}: {error}"
            if wrong:
                of.bad.append(wrong)
            else:
                of.good.append(time.monotonic())
            end.wait(pause)

    def read(_: int) -> str:
        answer = edge.request(f"/packages/{SURVIVOR}", right("alice"))
        return "" if answer.status == 200 else f"{answer.status} {answer.reason}"

    def upload(number: int) -> str:
        wheel = make_wheel("acme-traffic", f"1.{generation}.{number}", 2_000, directory)
        answer = edge.upload(wheel, "alice")
        if answer.status == 200:
            seen.acknowledged[wheel.name] = hashlib.sha256(wheel.read_bytes()).hexdigest()
        wheel.unlink()
        return "" if answer.status == 200 else f"{answer.status} {answer.reason}"

    threads = [
        threading.Thread(target=stream, args=(seen.reads, 0.02, read)),
        threading.Thread(target=stream, args=(seen.uploads, 0.1, upload)),
    ]
    for thread in threads:
        thread.start()
    try:
        seen.wait_for_both(60)
        yield seen
        seen.wait_for_both(120)
    finally:
        end.set()
        for thread in threads:
            thread.join()
