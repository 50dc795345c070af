"""Who comes next, where one at a time may be served and anybody may push: turns go round.

First between sources (the addresses that requests come from), then between the lanes of one source (its connections), so that
who asks once waits for one turn of each other, however many requests those have in line. When no place is left, the newest of
whoever has the most in line gives way.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class TooManyAttempts(Exception):
    """Nothing was done: too much of it lately, or too many in line, or for too long."""


@dataclass(eq=False)
class _Ticket:
    gone: Callable[[], bool]
    called: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    """It has been called, or was taken out of the line."""


class Turns:
    """Safe for threads. `places` may wait, each for so many `seconds`."""

    def __init__(self, places: int, seconds: float) -> None:
        self._places, self._seconds = places, seconds
        self._lock = threading.Lock()
        self._busy = False
        self._line: OrderedDict[str, OrderedDict[str, deque[_Ticket]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._everyone())

    @contextmanager
    def turn(self, source: str, lane: str, gone: Callable[[], bool]) -> Iterator[None]:
        """Waits for it. `gone` says that nobody waits for the result: such a one loses its place. Raises TooManyAttempts."""
        self._wait(source, lane, gone)
        try:
            yield
        finally:
            with self._lock:
                self._call_next()

    def _wait(self, source: str, lane: str, gone: Callable[[], bool]) -> None:
        with self._lock:
            if not self._busy:
                self._busy = True
                return
            self._make_room(source, lane)
            ticket = _Ticket(gone)
            self._line.setdefault(source, OrderedDict()).setdefault(lane, deque()).append(ticket)
        if not ticket.done.wait(self._seconds):
            with self._lock:
                if not ticket.done.is_set():
                    self._take_out(source, lane, ticket)
        if not ticket.called:
            raise TooManyAttempts

    def _call_next(self) -> None:
        while self._line:
            source, lanes = next(iter(self._line.items()))
            lane, tickets = next(iter(lanes.items()))
            ticket = tickets[0]
            ticket.called = not ticket.gone()
            self._take_out(source, lane, ticket)
            if source in self._line:
                self._line.move_to_end(source)
                if lane in lanes:
                    lanes.move_to_end(lane)
            if ticket.called:
                return
        self._busy = False

    def _make_room(self, source: str, lane: str) -> None:
        everyone = self._everyone()
        if len(everyone) < self._places:
            return
        if left := [place for place in everyone if place[2].gone()]:
            for place in left:
                self._take_out(*place)
            return

        def size(of: str) -> int:
            return sum(map(len, self._line.get(of, {}).values()))

        crowd = max(reversed(self._line), key=size)
        if size(crowd) <= size(source) + 1:
            crowd = source
        lanes = self._line.get(crowd, OrderedDict())
        longest = max(reversed(lanes), key=lambda n: len(lanes[n]), default=lane)
        if crowd == source and len(lanes.get(longest, ())) <= len(lanes.get(lane, ())) + 1:
            raise TooManyAttempts
        self._take_out(crowd, longest, lanes[longest][-1])

    def _everyone(self) -> list[tuple[str, str, _Ticket]]:
        return [(s, n, ticket) for s, lanes in self._line.items() for n, line in lanes.items() for ticket in line]

    def _take_out(self, source: str, lane: str, ticket: _Ticket) -> None:
        lanes = self._line[source]
        lanes[lane].remove(ticket)
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._line[source]
        ticket.done.set()
