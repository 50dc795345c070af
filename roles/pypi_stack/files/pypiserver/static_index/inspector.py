"""Archives are read in processes of their own, so that none can cost a worker its memory or its time.

One helper for all workers keeps a few readers, forked from it: they take requests from a common socket, and whoever is killed over
an archive is replaced. A request brings the open file and a pipe for the answer, so a reader touches nothing else; that it
died is told by a pipe that ends too early.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from . import archive, names
from .archive import Metadata
from .errors import Refusal, Unreadable

READERS = 2
"""Archives that are read at once."""
MEMORY = 256 << 20
"""Bytes of address space that a reader may take; a fifth of it is the interpreter."""
SECONDS = 30
BYTES_PER_SECOND = 2 << 20
"""Processor time for an archive: so many seconds, and one more for so many bytes of it."""
PATIENCE = 10
"""So many times that by the clock: the machine may have other things to do."""
GROWTH = 32 << 10
"""KiB of memory that a reader may have come to use before it is replaced."""
TAKEN = b"+"
"""What a reader writes first: a request that died untaken, in the queue of those that were killed, says nothing of its archive."""
TRIES = 50
"""So often is a request that nobody took put again, a tenth of a second apart."""

_KINDS = {kind.__name__: kind for kind in (Refusal, Unreadable)}


class Inspector:
    """Asks the helper, which is started when it is first needed. Safe for threads, and for processes forked meanwhile."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._channel: socket.socket | None = None
        self._helper: subprocess.Popen[bytes] | None = None

    def start(self) -> socket.socket:
        """The socket to the helper; it ends when all that hold it have ended."""
        with self._starting:
            if self._channel is None:
                self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                package = Path(__file__).parent
                path = f"{package.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
                command = [sys.executable, "-m", f"{package.name}.{Path(__file__).stem}"]
                with theirs:
                    self._helper = subprocess.Popen(
                        command, stdin=theirs.fileno(), env={**os.environ, "PYTHONPATH": path}
                    )
            return self._channel

    def read(self, file: BinaryIO, filename: str, *, strict: bool) -> Metadata:
        """As `archive.read`; Refusal as well if the archive takes too much memory or time, twice: a reader may die of others.

        ChildProcessError if there is no reader, for seconds.
        """
        request = json.dumps({"filename": filename, "strict": strict}).encode()
        answer = self._taken(request, file) or self._taken(request, file)
        head, _, content = answer.partition(b"\n")
        said = json.loads(head or "{}")
        if "error" in said:
            raise _KINDS[said["error"]](said["text"])
        if len(content) != said.get("length"):
            raise Refusal(f"{filename}: reading it takes more memory or time than an archive may cost")
        return Metadata(content, said["requires_python"])

    def _taken(self, request: bytes, file: BinaryIO) -> bytes:
        """What the reader wrote that took the request; empty if it died of it."""
        for _ in range(TRIES):
            answer = self._ask(request, file)
            if answer:
                return answer.removeprefix(TAKEN)
            time.sleep(0.1)
        raise ChildProcessError("no process reads archives")

    def _ask(self, request: bytes, file: BinaryIO) -> bytes:
        """What a reader wrote before it was done or died; empty if none took the request."""
        ours, theirs = os.pipe()
        with open(ours, "rb") as reply:
            try:
                self._send(request, [file.fileno(), theirs])
            finally:
                os.close(theirs)
            return reply.read()

    def _send(self, request: bytes, descriptors: list[int]) -> None:
        channel = self.start()
        try:
            socket.send_fds(channel, [request], descriptors)
        except OSError:  # the helper was killed; the next one is this process's own
            with self._starting:
                if self._channel is channel:
                    self._channel = None
            socket.send_fds(self.start(), [request], descriptors)


def serve(channel: socket.socket) -> None:
    """Keep READERS readers until nobody holds the other end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: whoever uses us ends first
    for _ in range(READERS):
        _fork(channel)
    while os.waitstatus_to_exitcode(os.wait()[1]) != _NOBODY_ASKS:
        time.sleep(0.01)  # whatever kills them all at once must not keep a processor busy
        _fork(channel)


_NOBODY_ASKS = 7  # 3 and 4 would end a gunicorn that inherits a reader as its child


def _fork(channel: socket.socket) -> None:
    if os.fork() == 0:
        try:
            _take_requests(channel)
        finally:  # also a MemoryError, about which nothing more can be done here
            os._exit(1)


def _take_requests(channel: socket.socket) -> None:
    with suppress(OSError):  # the kernel's first choice when the container's memory runs out
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    full = _in_use() + GROWTH
    while _in_use() < full:
        request, descriptors, _, _ = socket.recv_fds(channel, 4096, 2)
        if not request:
            os._exit(_NOBODY_ASKS)
        with open(descriptors[0], "rb") as file, open(descriptors[1], "wb") as reply:
            reply.write(TAKEN)
            reply.flush()
            seconds = SECONDS + os.fstat(file.fileno()).st_size // BYTES_PER_SECOND
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, resource.RLIM_INFINITY))
            signal.alarm(PATIENCE * seconds)
            _answer(json.loads(request), file, reply.write)
            signal.alarm(0)


def _in_use() -> int:
    """KiB of memory, at the most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _answer(request: dict[str, object], file: BinaryIO, reply: Callable[[bytes], object]) -> None:
    try:
        metadata = archive.read(file, names.parse(str(request["filename"])), strict=bool(request["strict"]))
    except Refusal as error:
        reply(json.dumps({"error": type(error).__name__, "text": str(error)}).encode())
    else:
        head = {"requires_python": metadata.requires_python, "length": len(metadata.content)}
        reply(json.dumps(head).encode() + b"\n" + metadata.content)


if __name__ == "__main__":
    serve(socket.socket(fileno=sys.stdin.fileno()))
